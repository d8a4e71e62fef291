"""Processes to be killed: started from a clean helper, spoken to through a pipe, always reaped.

They come from a fork server, which has imported jobq and holds nothing else: so one starts in some
10 ms, without a thread, an open store or a signal handler of the test's own process. Every one dies
with that server, and the server with the test run, however that ends. What needs an environment or
a namespace of its own comes from a command line, which takes longer.
"""

import ctypes
import faulthandler
import multiprocessing
import os
import signal
import subprocess
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Final, NamedTuple, NoReturn, Protocol

from jobq.repo.lmdb import futex, steps
from tests.conftest import DEADLINE_S

CONTEXT: Final = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["jobq", "jobq.repo.lmdb", "pytest", __name__])

ROOT: Final = Path(__file__).parents[2]

_PR_SET_PDEATHSIG: Final = 1


class Pipe(Protocol):
    """A child's end of the pipe between it and its test."""

    def send(self, obj: Any, /) -> None: ...
    def recv(self) -> Any: ...
    def poll(self, timeout: float | None = ..., /) -> bool: ...
    def fileno(self) -> int: ...


class Silent(AssertionError):
    """A child has said nothing for too long, and was killed for that."""


class Failure(NamedTuple):
    """What a child says whose function raised."""

    text: str


class Child:
    """A process that calls *work* with its end of a pipe and *arguments*.

    Args:
        wrap: A command that runs the rest of its arguments, such as `unshare --mount`.
        env: Environment variables in addition to the test's own.
    """

    def __init__(
        self,
        work: Callable[..., object],
        *arguments: Any,
        wrap: Sequence[str] = (),
        env: Mapping[str, str] | None = None,
    ) -> None:
        self._pipe, theirs = CONTEXT.Pipe()
        self._process: _Process
        if wrap or env:
            self._process = _Program(theirs, wrap, env or {})
            self._pipe.send((work, arguments))
        else:
            self._process = CONTEXT.Process(target=_live, args=(theirs, work, arguments))
        self._process.start()
        theirs.close()
        assert self._process.pid is not None
        self.pid: int = self._process.pid

    def tell(self, message: Any = None) -> None:
        """Send it something."""
        self._pipe.send(message)

    def hear(self, timeout: float = DEADLINE_S) -> Any:
        """The next thing that it says; one that hangs is made to show where, on its stderr.

        Raises:
            Silent: It hangs. All other assertions say how it ended, or what it raised.
        """
        if not self._pipe.poll(timeout):
            self.signal(signal.SIGABRT)
            self._process.join(2)
            raise Silent(f"a child has said nothing for {timeout:g} s")
        try:
            said = self._pipe.recv()
        except (EOFError, ConnectionResetError):
            raise AssertionError(f"a child ended with {self.ended()} and said nothing") from None
        assert not isinstance(said, Failure), f"a child failed:\n{said.text}"
        return said

    def heard(self) -> bool:
        """Whether it has said something more, or ended."""
        return self._pipe.poll()

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal, unless it has ended: its number may be another's by now."""
        if self.alive:
            with suppress(ProcessLookupError):  # it has ended just now
                os.kill(self.pid, number)

    def kill(self) -> None:
        """SIGKILL; returns when it is dead. Harmless if it is."""
        self.signal(signal.SIGKILL)
        self.ended()

    def ended(self, timeout: float = DEADLINE_S) -> int:
        """Its exit status, or minus the signal that killed it; waits for its end."""
        self._process.join(timeout)
        status = self._process.exitcode
        assert status is not None, f"a child has not ended for {timeout:g} s"
        return status

    @property
    def alive(self) -> bool:
        """Whether it has not ended."""
        return self._process.exitcode is None

    def discard(self) -> None:
        """Kill it with all that it has forked, and let go of everything."""
        try:
            if self.alive:
                with suppress(ProcessLookupError):  # it has just begun, and has no group yet
                    os.killpg(self.pid, signal.SIGKILL)
            self.kill()
        finally:
            self._pipe.close()
        self._process.close()


class Start:
    """Starts children of one test, and discards them all at its end."""

    def __init__(self) -> None:
        self._children: list[Child] = []

    def __call__(self, work: Callable[..., object], *arguments: Any) -> Child:
        """A process that calls *work*, a function at the top of a module, with its pipe first."""
        child = Child(work, *arguments)
        self._children.append(child)
        return child

    def discard_all(self) -> None:
        """Kill and reap what is left."""
        while self._children:
            self._children.pop().discard()


def die_with_parent() -> None:
    """Have the kernel kill this process when the one that forked it is gone."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def kill_myself() -> NoReturn:
    """SIGKILL for this process, now."""
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError("unreachable")


def die_at(last: str) -> None:
    """SIGKILL for this process when a verb reaches the step *last*."""

    def reached(step: str) -> None:
        if step == last:
            kill_myself()

    steps.reached = reached


def state_of(pid: int) -> str:
    """The letter by which the kernel calls a process's state: R, S, D, T (stopped), Z, …"""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def waits(pid: int) -> bool:
    """Whether a thread sleeps until a call comes through a bell: in a futex between processes."""
    try:
        if state_of(pid) != "S":
            return False
        # The number of the system call and its arguments, of which the second says whether the
        # futex is private to its process, as all others are.
        number, *arguments = Path(f"/proc/{pid}/syscall").read_text().split()
    except (FileNotFoundError, ProcessLookupError):  # it has ended
        return False
    if number == "running":  # it has got up since
        return False
    if int(number) == futex.WAITV:  # nobody else sleeps at several
        return True
    return int(number) == futex.NUMBER and int(arguments[1], 16) == futex.WAIT


def threads_of(pid: int) -> list[int]:
    """Its threads; each has a state of its own."""
    return [int(task.name) for task in Path(f"/proc/{pid}/task").iterdir()]


class Notebook:
    """A file to which many processes append what happened, and which outlives their deaths.

    A note is one line of 64 bytes. A process that is killed in the middle of a long write leaves
    whole pages of it, so whole notes.
    """

    SIZE: Final = 64

    def __init__(self, path: Path | str) -> None:
        self._path = path
        self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)

    def note(self, *lines: str) -> None:
        """Append *lines*, words of at most 63 bytes together."""
        data = b"".join(line.encode().ljust(self.SIZE - 1) + b"\n" for line in lines)
        assert len(data) == self.SIZE * len(lines)
        os.write(self._fd, data)

    def read(self) -> list[str]:
        """All notes so far."""
        return [line.rstrip() for line in Path(self._path).read_text().splitlines()]

    def __len__(self) -> int:
        return Path(self._path).stat().st_size // self.SIZE

    def close(self) -> None:
        """Let go of the file."""
        os.close(self._fd)


class _Process(Protocol):
    """What a child needs of a process; those of `multiprocessing` have it."""

    @property
    def pid(self) -> int | None: ...
    @property
    def exitcode(self) -> int | None: ...
    def start(self) -> None: ...
    def join(self, timeout: float | None = None) -> None: ...
    def close(self) -> None: ...


class _Program:
    """A process from a command line of its own."""

    def __init__(self, pipe: Connection, wrap: Sequence[str], env: Mapping[str, str]) -> None:
        self._pipe = pipe
        self._wrap = wrap
        self._env = {**os.environ, "PYTHONPATH": str(ROOT), **env}
        self._popen: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        fd = self._pipe.fileno()
        command = [*self._wrap, sys.executable, "-P", "-m", __name__, str(fd)]
        self._popen = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, pass_fds=[fd], env=self._env
        )

    @property
    def pid(self) -> int | None:
        return self._popen.pid if self._popen else None

    @property
    def exitcode(self) -> int | None:
        return self._popen.poll() if self._popen else None

    def join(self, timeout: float | None = None) -> None:
        assert self._popen is not None
        with suppress(subprocess.TimeoutExpired):
            self._popen.wait(timeout)

    def close(self) -> None:
        """It has ended: there is nothing left to close."""


def run_program(fd: int) -> None:
    """What such a process does: hear what is to be done, and do it."""
    pipe = Connection(fd)
    work, arguments = pipe.recv()
    _live(pipe, work, arguments)


def _live(pipe: Pipe, work: Callable[..., object], arguments: tuple[Any, ...]) -> None:
    os.setsid()  # a group of its own, with its forks
    die_with_parent()
    faulthandler.enable()
    try:
        work(pipe, *arguments)
    except EOFError:
        sys.exit(3)  # the test has discarded us
    except SystemExit:
        raise
    except BaseException:  # noqa: BLE001 - the test raises it, if it listens
        traceback.print_exc()
        with suppress(OSError):
            pipe.send(Failure(traceback.format_exc()))
        sys.exit(1)


if __name__ == "__main__":
    from tests.crash import processes  # by the name under which tests know it

    processes.run_program(int(sys.argv[1]))
