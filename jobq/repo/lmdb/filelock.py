"""The lock between processes, in front of LMDB's own.

LMDB's write lock cannot be waited for with a timeout, blocks Ctrl-C and signal handlers, and
cannot say who has it. So writers take this one first. It is two `flock` locks. A writer needs
`write`; to wait for it, it must stand in the `turn`stile. A process that has let go of `write` and
wants it again when its turn is over has to pass the turnstile like everybody else, so a busy
process cannot shut out the others. The kernel releases both when their process dies.

Who waits for either sleeps in a line at the bell. Who leaves the turnstile calls the first in its
line, and so does who gives back `write` at the end of its turn. That is only to be quick: nobody
gets a lock by being called, and who is not called (its caller was killed, or has no bell yet) looks
again soon.
"""

import contextlib
import fcntl
import os
import random
import threading
import time
from pathlib import Path
from typing import Final

from jobq.errors import StoreBusy, StoreUnavailable
from jobq.repo.lmdb.bell import Bell
from jobq.repo.lmdb.beside import open_beside
from jobq.repo.lmdb.flocks import NAMELESS, TRY, flock_holder

FIRST_NAP_S: Final = 0.00005
"""A commit takes about 100 µs here, and 50 µs is what a sleep takes at least on Linux."""
LONGEST_TURN_NAP_S: Final = 0.0005
LONGEST_WRITE_NAP_S: Final = 0.0002
"""However long a wait becomes, it goes on looking so often. Who looked more rarely after a while
would hardly ever find the turnstile free: where commits take 100 ms, as on slow disks, it would be
shut out by those who come anew, who look most often of all."""

LINE_NAPS_S: Final = (0.002, 0.00025)
"""So long sleeps who is to be called, in the turnstile and behind it. Who is behind it is called
only when the turn of the holder is over; before that it looks whether the holder has gone."""

TURN_S: Final = 0.001
"""For so long from its turn on a process may take the lock again without standing in line, and
calls nobody: some five commits. To wake the next one each time takes as long as a commit."""

_TURN, _WRITE = range(2)


class FileLock:
    """The write lock of one queue directory, as this process sees it. One thread at a time.

    Attributes:
        bell: Where to wait and to call; None as long as it is not there.
    """

    def __init__(self, directory: Path) -> None:
        self._paths = (directory / "turn.lock", directory / "write.lock")
        self._files = [open_beside(path, directory) for path in self._paths]
        self.bell: Bell | None = None
        self._mutex = threading.Lock()
        self._busy = False
        self._in_turn = False
        self._turn_ends = 0.0
        self._doomed = False

    @staticmethod
    def is_used(directory: Path) -> bool:
        """Whether any process has ever used the lock of the directory."""
        return (directory / "write.lock").exists()

    def acquire(self, timeout: float) -> None:
        """Get the lock, waiting at most *timeout* seconds.

        Can be interrupted; whatever was taken by then, `release` gives back.

        Raises:
            StoreBusy: Another process held it all the time; the message says which.
            StoreUnavailable: It was closed before, or is meanwhile.
        """
        with self._mutex:
            if self._doomed:  # its descriptors may be those of other files by now
                raise self._was_closed()
            self._busy = True
        start = time.monotonic()
        if start < self._turn_ends and self._take(_WRITE):
            return
        self._in_turn = True
        self._get(_TURN, start, timeout, LONGEST_TURN_NAP_S)
        self._get(_WRITE, start, timeout, LONGEST_WRITE_NAP_S)
        self._give_back(_TURN)
        self._in_turn = False
        self._turn_ends = time.monotonic() + TURN_S

    def _take(self, which: int) -> bool:
        """Whether the lock was free, and is taken."""
        try:
            fcntl.flock(self._files[which], TRY)
        except BlockingIOError:
            return False
        return True

    def release(self) -> None:
        """Give it back; harmless without it."""
        with self._mutex:
            if self._busy:
                self._give_back(_WRITE)
                if self._in_turn:
                    self._give_back(_TURN)
                    self._in_turn = False
                self._busy = False
                if self._doomed:
                    self._close()

    def close(self) -> None:
        """Close the files, at once or when the thread that uses them has let go."""
        with self._mutex:
            self._doomed = True
            if not self._busy:
                self._close()

    def drop(self) -> None:
        """In a fork's child: close its copies; the parent keeps its lock."""
        self._close()

    def _close(self) -> None:
        for fd in self._files:
            with contextlib.suppress(OSError):
                os.close(fd)

    def _give_back(self, which: int) -> None:
        fcntl.flock(self._files[which], fcntl.LOCK_UN)
        if self.bell is not None and (which == _TURN or time.monotonic() >= self._turn_ends):
            self.bell.call_in_line(which)

    def _get(self, which: int, start: float, timeout: float, longest_nap: float) -> None:
        nap = FIRST_NAP_S
        while not self._take(which):
            if self._doomed:
                raise self._was_closed()
            waited = time.monotonic() - start
            if waited >= timeout:
                raise StoreBusy(self._says_who(waited))
            if self.bell is None:
                time.sleep(min(nap, timeout - waited))
                # Spread a little, so that waiting processes do not look in step.
                nap = min(longest_nap, nap * random.uniform(1.2, 2.0))
            elif self._sleep_in_line(self.bell, which, min(LINE_NAPS_S[which], timeout - waited)):
                return

    def _sleep_in_line(self, bell: Bell, which: int, seconds: float) -> bool:
        """Sleep until called, unless the lock is free meanwhile: then it is taken."""
        count = bell.ask_in_line(which)
        if self._take(which):  # given back before anybody could see that somebody has asked
            return True
        bell.wait_in_line(which, count, seconds)
        return False

    def _was_closed(self) -> StoreUnavailable:
        return StoreUnavailable(f"the store of {self._paths[0].parent} was closed meanwhile")

    def _says_who(self, waited: float) -> str:
        turn, write = self._paths
        # Who stands in the turnstile only waits as well, unless nobody has the lock behind it.
        who = flock_holder(write) or flock_holder(turn) or NAMELESS
        return f"waited {waited:.1f} s for the write lock, which is held by {who}"
