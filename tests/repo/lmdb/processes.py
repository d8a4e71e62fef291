"""Other processes for the tests: real ones, which can be killed and never outlive their test.

    def works(path: str) -> None:        # in a test module, run in the child
        ...
        say("ready")
        hear()

    child = start(works, str(path))      # in a test, by the fixture
    assert child.said() == "ready"
    child.kill()

They are those of the crash tests; here the pipe is not handed to the function, so that the
functions which it calls can speak as well. A child dies by itself after `LIFE_S`: so nothing
here can hang for ever.
"""

import ctypes
import faulthandler
import os
import signal
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.conftest import eventually
from tests.crash import processes
from tests.crash.processes import Pipe

LIFE_S = 120
"""After so many seconds a child is taken for hanging, and dies of SIGALRM."""
CANNOT = 77
"""The exit status of a child that met something which the machine cannot do."""


class Child(processes.Child):
    """A process that runs *work*, a function at the top of a module, with plain arguments.

    Args:
        deadline_s: When it is taken for hanging.
        how: As for the crash tests' children.
    """

    def __init__(
        self,
        work: Callable[..., object],
        *args: Any,
        deadline_s: int = LIFE_S,
        **how: Any,
    ) -> None:
        super().__init__(_speaking, work, deadline_s, args, **how)
        self._deadline_s = deadline_s + 5.0  # it is the first to notice

    def said(self) -> Any:
        """The next thing that the child says."""
        return self.hear(self._deadline_s)

    def wait(self) -> int:
        """Its exit status, or minus the signal that killed it, once it has ended."""
        return self.ended(self._deadline_s)

    def join(self) -> None:
        """Wait for it to end well."""
        status = self.wait()
        assert status == 0, f"the child ended with status {status}"


def asleep(child: Child) -> None:
    """Wait until the child sleeps, having said that it is about to."""
    assert child.said() == "waiting"
    eventually(lambda: processes.state_of(child.pid) == "S")


def say(value: Any) -> None:
    """In a child: tell the test something."""
    _pipes[-1].send(value)


def hear() -> Any:
    """In a child: wait for what the test tells."""
    try:
        return _pipes[-1].recv()
    except EOFError:
        sys.exit(0)  # the test is over


def heard() -> bool:
    """In a child: whether the test has told something more, or is over."""
    return _pipes[-1].poll()


def put(module: object, name: str, value: object) -> None:
    """In a child: replace a constant or a function of a module, for good."""
    setattr(module, name, value)


def striking_at(number: int, told: Path) -> Callable[[str], None]:
    """In a child: what kills it at the step of this number; *told* names the last reached."""
    reached: list[str] = []

    def strike(step: str) -> None:
        reached.append(step)
        told.write_text(step)
        if len(reached) == number:
            processes.kill_myself()

    return strike


def drop_privileges() -> None:
    """In a child: be refused what the modes of files refuse, even as root."""
    # The system call capset(2): header (version 3, this process), then no capability at all.
    header, nothing = (ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)()
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.capset(header, nothing):
        raise OSError(ctypes.get_errno(), "capset")


def outcome_of(work: Callable[[], object], seconds: int = LIFE_S // 2) -> str:
    """In a child without threads: what became of *work*, done in a fork of this process.

    What it returned, as text; the name of the exception that it raised; or that of the signal
    that killed it.
    """
    reading, writing = os.pipe()
    pid = os.fork()
    if not pid:
        try:
            faulthandler.disable()  # to be killed by a signal is one of the outcomes
            signal.alarm(seconds)
            try:
                said = str(work())
            except Exception as error:  # noqa: BLE001 - its name is the outcome
                frames = traceback.extract_tb(error.__traceback__)
                where = " > ".join(f"{Path(at.filename).name}:{at.lineno}" for at in frames)
                said = f"{type(error).__name__}: {error} ({where})"
            os.write(writing, said.encode(errors="replace")[:4000])
        finally:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        said = pipe.read().decode()
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    return signal.Signals(-status).name if status < 0 else said


_pipes: list[Pipe] = []
"""In a child: its way to the test."""


def _speaking(
    pipe: Pipe, work: Callable[..., object], deadline_s: int, args: tuple[Any, ...]
) -> None:
    _pipes.append(pipe)
    signal.alarm(deadline_s)
    work(*args)
