"""Child processes that talk to their benchmark through a pipe."""

import multiprocessing
import time
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType
from typing import Any, Protocol, Self

_CONTEXT = multiprocessing.get_context("spawn")  # as separate programs would: nothing inherited
_CPUCLOCK_SCHED = 2  # of the kernel: time on a processor, user and system, in nanoseconds


class Pipe(Protocol):
    """One end of the pipe between a benchmark and its child."""

    def send(self, obj: Any, /) -> None: ...
    def recv(self) -> Any: ...
    def poll(self, timeout: float | None = ..., /) -> bool: ...


class Child:
    """A process that calls a function with its pipe and *arguments*; killed when the block ends."""

    def __init__(self, function: Callable[..., None], *arguments: Any) -> None:
        self._pipe, theirs = _CONTEXT.Pipe()
        self._process = _CONTEXT.Process(target=function, args=(theirs, *arguments), daemon=True)
        self._process.start()
        theirs.close()

    def tell(self, message: Any) -> None:
        """Send it a message."""
        self._pipe.send(message)

    def hear(self, timeout: float = 120.0) -> Any:
        """Its next message.

        Raises:
            TimeoutError: None came in *timeout* seconds.
            RuntimeError: It has died.
        """
        if not self._pipe.poll(timeout):
            raise TimeoutError(f"a child process has said nothing for {timeout:.0f} s")
        try:
            return self._pipe.recv()
        except EOFError:
            self._process.join()
            raise RuntimeError(f"a child process ended with {self._process.exitcode}") from None

    def kill(self) -> int:
        """SIGKILL; the moment before it, in nanoseconds of CLOCK_MONOTONIC."""
        before = time.monotonic_ns()
        self._process.kill()
        return before

    def cpu_ns(self) -> int:
        """Time on a processor so far, user and system, of all its threads, dead ones included.

        From the outside, by the kernel's clock of that process: /proc/PID/stat counts in steps of
        10 ms, which is too coarse for a process that sleeps.
        """
        pid = self._process.pid
        assert pid is not None
        return time.clock_gettime_ns(~pid << 3 | _CPUCLOCK_SCHED)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        with suppress(ValueError):
            self._process.kill()
        self._process.join()
        self._pipe.close()
