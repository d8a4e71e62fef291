"""Signals that ask a command to end, noted at once and acted upon where it is safe."""

import os
import select
import signal
from types import FrameType
from typing import Any, Final, Self

SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Ending:
    """Within the block SIGINT, SIGTERM and SIGHUP are noted; whoever works there has to look.

    A handler that raised would do so between any two steps: between the opening of a file and the
    `with` that closes it, or in the middle of cleaning up. This one never does, however many come.
    Signals that are ignored (nohup, `&`) stay ignored.

    The end of the block is a look, too. Only the main thread can have such a block.
    """

    def __enter__(self) -> Self:
        self._number: int | None = None
        self._before: dict[signal.Signals, Any] = {}
        # Readable once a signal has come: so none can slip in between a look and a sleep.
        self._rung, self._bell = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._bell_before = signal.set_wakeup_fd(self._bell, warn_on_full_buffer=False)
        for number in SIGNALS:
            if signal.getsignal(number) is not signal.SIG_IGN:
                self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(self._bell_before)
        for descriptor in (self._rung, self._bell):
            os.close(descriptor)
        if kind is None:
            self.look()

    def look(self) -> None:
        """Go on, if no signal has come.

        Raises:
            SystemExit: One has: 128 and the number of the first one.
        """
        if self._number is not None:
            raise SystemExit(128 + self._number)

    def sleep(self, seconds: float) -> None:
        """Sleep for so long.

        Raises:
            SystemExit: A signal has come, maybe long before.
        """
        select.select([self._rung], [], [], seconds)
        self.look()

    def wait_for(self, descriptor: int) -> None:
        """Sleep until there is something to read, or the other end is closed.

        Raises:
            SystemExit: A signal has come, maybe long before.
        """
        readable: list[int] = []
        while descriptor not in readable:
            readable, _, _ = select.select([self._rung, descriptor], [], [])
            self.look()

    def _note(self, number: int, _: FrameType | None) -> None:
        if self._number is None:
            self._number = number
