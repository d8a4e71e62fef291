"""One run of a command: fed, listened to, waited for, and ended when it has to be.

The command is a process group of its own, so a Ctrl-C at the terminal reaches the worker alone,
and a signal from the worker reaches the command and what it has started. Nothing here can block
on a pipe: input and output of any size are moved as the command takes and gives them.
"""

import contextlib
import os
import selectors
import signal
import subprocess
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import IO, Any, Final

from jobq import codec

LONGEST_LINE: Final = codec.LIMIT
"""A longer line of output is cut into pieces of so many bytes."""

LOOK_S: Final = 1.0
"""How often the caller is asked whether to go on."""

POLL_S: Final = 0.05
"""How often the process is looked at where the kernel cannot tell of its end (no pidfd)."""

MOST_DRAINED: Final = 1024 * 1024
"""Bytes of output that are read after the command has ended, at most: what it left in the pipes.
Processes that it has left behind may go on writing for ever."""

TAIL: Final = 20
"""Lines of stderr that are kept for the error of a job."""

_CHUNK: Final = 65536


class Why(Enum):
    """Why a command was ended from outside."""

    TIMEOUT = "timeout"
    LOST = "lost"  # the job is not held any more: canceled, or its lease is over
    STOPPED = "stopped"  # the worker has to end


@dataclass(slots=True)
class Ended:
    """How a run ended.

    Attributes:
        status: The exit status, or minus the number of the signal that killed it.
        why: Why it was ended from outside; None if it ended by itself.
        last: The last line of stdout that is not blank; None if there is none.
        errors: The last lines of stderr.
    """

    status: int
    why: Why | None
    last: str | None = None
    errors: deque[str] = field(default_factory=lambda: deque(maxlen=TAIL))


@dataclass(frozen=True, slots=True)
class Orders:
    """What a run has to do, and whom it tells.

    Attributes:
        vector: The command and its arguments; no shell.
        env: All of its environment.
        stdin: What it reads.
        timeout: Seconds after which it is ended; None for no limit.
        grace: Seconds from the request to end (SIGTERM) to the end (SIGKILL).
        on_line: Called with the name of the stream and each line of output.
        look: Asked once a second whether to end the run, and why.
        wake: A descriptor that becomes readable when `look` should be asked at once.
    """

    vector: Sequence[str]
    env: Mapping[str, str]
    stdin: bytes
    timeout: float | None
    grace: float
    on_line: Callable[[str, str], None]
    look: Callable[[], Why | None]
    wake: int


def run(orders: Orders) -> Ended:
    """Run the command to its end.

    Raises:
        OSError: It cannot be started.
    """
    process = subprocess.Popen(  # noqa: S603 - what to run is the user's to say
        list(orders.vector),
        env=dict(orders.env),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        process_group=0,
    )
    child = _Child(process, orders)
    try:
        child.attend()
        return child.end()
    finally:
        child.close()


class _Child:
    """A running command."""

    def __init__(self, process: "subprocess.Popen[bytes]", orders: Orders) -> None:
        self._process = process
        self._orders = orders
        self._ready = selectors.DefaultSelector()
        self._ended = Ended(0, None)
        self._exited = False
        self._stdin = memoryview(orders.stdin)
        self._lines = {"stdout": Lines(), "stderr": Lines()}
        self._end_at = float("inf") if orders.timeout is None else _now() + orders.timeout
        self._kill_at = float("inf")
        self._look_at = _now() + LOOK_S
        self._pidfd: int | None = None

    def attend(self) -> None:
        """Feed it and listen to it until it has ended."""
        process = self._process
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        self._register(process.stdin, selectors.EVENT_WRITE, self._feed)
        self._register(process.stdout, selectors.EVENT_READ, self._hear, "stdout")
        self._register(process.stderr, selectors.EVENT_READ, self._hear, "stderr")
        self._ready.register(self._orders.wake, selectors.EVENT_READ, (self._woken, ()))
        with contextlib.suppress(OSError):  # an old kernel, or a sandbox
            self._pidfd = os.pidfd_open(process.pid)
            self._ready.register(self._pidfd, selectors.EVENT_READ, (self._note_exit, ()))
        while not self._exited:
            for key, _ in self._ready.select(self._patience()):
                act, args = key.data
                act(key.fileobj, *args)
            if self._pidfd is None and _has_exited(process.pid):
                self._exited = True
            self._look()

    def end(self) -> Ended:
        """Take what is left in its pipes, and reap it."""
        for name in ("stdout", "stderr"):
            stream: IO[bytes] = getattr(self._process, name)
            left = MOST_DRAINED
            while left > 0 and not stream.closed and (data := _read(stream)):
                left -= len(data)
                self._take(name, self._lines[name].add(data))
            self._take(name, self._lines[name].rest())
        if self._ended.why is not None:
            self._signal(signal.SIGKILL)  # what it has started; before it is reaped
        self._ended.status = self._process.wait()
        return self._ended

    def close(self) -> None:
        """Leave nothing behind: no process, no descriptor."""
        if self._process.returncode is None:
            self._signal(signal.SIGKILL)
            self._process.wait()
        self._ready.close()
        if self._pidfd is not None:
            os.close(self._pidfd)
        for stream in (self._process.stdin, self._process.stdout, self._process.stderr):
            if stream is not None:
                _close(stream)

    # What happens.

    def _feed(self, stream: IO[bytes]) -> None:
        with contextlib.suppress(BlockingIOError):
            try:
                self._stdin = self._stdin[os.write(stream.fileno(), self._stdin[:_CHUNK]) :]
            except BrokenPipeError:  # it does not want to know
                self._stdin = self._stdin[:0]
        if not self._stdin:
            self._ready.unregister(stream)
            _close(stream)

    def _hear(self, stream: IO[bytes], name: str) -> None:
        data = _read(stream)
        if data:
            self._take(name, self._lines[name].add(data))
        elif data is not None:
            self._ready.unregister(stream)
            _close(stream)

    def _take(self, name: str, lines: Iterator[bytes]) -> None:
        for raw in lines:
            line = raw.decode(errors="replace")
            if name == "stderr":
                self._ended.errors.append(line)
            elif line.strip():
                self._ended.last = line
            self._orders.on_line(name, line)

    def _note_exit(self, _: int) -> None:
        self._exited = True

    def _woken(self, wake: int) -> None:
        self._ready.unregister(wake)  # it stays readable
        self._look_at = 0.0

    # When to end it.

    def _patience(self) -> float:
        """Seconds until there is something to do whatever the command does."""
        until = min(self._look_at, self._end_at, self._kill_at)
        longest = POLL_S if self._pidfd is None else LOOK_S
        return max(0.0, min(until - _now(), longest))

    def _look(self) -> None:
        now = _now()
        if now >= self._kill_at:
            self._kill_at = float("inf")
            self._signal(signal.SIGKILL)
        if self._ended.why is not None:
            return
        why: Why | None = None
        if now >= self._look_at:
            self._look_at = now + LOOK_S
            why = self._orders.look()
        if why is None and now >= self._end_at:
            why = Why.TIMEOUT
        if why is not None and not self._exited:
            self._ended.why = why
            self._look_at = self._end_at = float("inf")
            self._kill_at = now + self._orders.grace
            self._signal(signal.SIGTERM)

    def _signal(self, number: int) -> None:
        """To all of its group. It is not reaped yet, so its number is nobody else's."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, number)

    def _register(self, stream: IO[bytes], events: int, act: Any, *args: Any) -> None:
        os.set_blocking(stream.fileno(), False)
        self._ready.register(stream, events, (act, args))


class Lines:
    r"""Output as lines: without their ends, in pieces where they are too long.

    >>> lines = Lines()
    >>> list(lines.add(b"one\r\ntwo\nth")), list(lines.add(b"ree")), list(lines.rest())
    ([b'one', b'two'], [], [b'three'])
    """

    def __init__(self) -> None:
        self._rest = bytearray()

    def add(self, data: bytes) -> Iterator[bytes]:
        """The lines that *data* completes."""
        *complete, rest = data.split(b"\n")
        for line in complete:
            yield from self._pieces(line)
            yield bytes(self._rest).removesuffix(b"\r")
            self._rest.clear()
        yield from self._pieces(rest)

    def rest(self) -> Iterator[bytes]:
        """A last line that does not end."""
        if self._rest:
            yield bytes(self._rest)
            self._rest.clear()

    def _pieces(self, data: bytes) -> Iterator[bytes]:
        """Take *data* in; give full pieces of a line that is too long."""
        self._rest += data
        while len(self._rest) > LONGEST_LINE:
            yield bytes(self._rest[:LONGEST_LINE])
            del self._rest[:LONGEST_LINE]


def _now() -> float:
    return time.monotonic()


def _read(stream: IO[bytes]) -> bytes | None:
    """What is there; None for nothing yet, nothing for the end."""
    try:
        return os.read(stream.fileno(), _CHUNK)
    except BlockingIOError:
        return None


def _close(stream: IO[bytes]) -> None:
    with contextlib.suppress(OSError):  # what Popen's buffer could not flush, it never had
        stream.close()


def _has_exited(pid: int) -> bool:
    """Whether our child has exited; it is not reaped."""
    return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
