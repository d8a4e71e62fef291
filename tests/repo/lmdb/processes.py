"""Other processes for the tests: real ones, which can be killed and never outlive their test.

    def works(path: str) -> None:        # in a test module, run in the child
        ...
        say("ready")
        hear()

    child = start(works, str(path))      # in a test, by the fixture
    assert child.said() == "ready"
    child.kill()

A child speaks and hears JSON values, one a line, through its standard output and input. It dies
with its parent, and by itself after `DEADLINE_S`: so nothing here can hang for ever.
"""

import ctypes
import importlib
import json
import os
import signal
import subprocess
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[3]
DEADLINE_S = 60
"""After so many seconds a child is taken for hanging, and dies of SIGALRM."""
CANNOT = 77
"""The exit status of a child that met something which the machine cannot do."""


class Child:
    """A process that runs *work*, a function at the top of a module, with plain arguments.

    Args:
        wrap: A command that runs the rest of its arguments, such as `unshare --mount`.
        env: Environment variables in addition to the test's own.
        deadline_s: When it is taken for hanging.
    """

    def __init__(
        self,
        work: Callable[..., object],
        *args: Any,
        wrap: Sequence[str] = (),
        env: dict[str, str] | None = None,
        deadline_s: int = DEADLINE_S,
    ) -> None:
        source = Path(work.__code__.co_filename).relative_to(ROOT)
        module = ".".join(source.with_suffix("").parts)
        self._process = subprocess.Popen(
            [
                *wrap,
                *(sys.executable, "-P", "-m", "tests.repo.lmdb.processes"),
                *(module, work.__qualname__, json.dumps(args), str(deadline_s)),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": str(ROOT), **(env or {})},
        )
        self.pid = self._process.pid

    def said(self) -> Any:
        """The next thing that the child says."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, f"the child ended without a word, with status {self._process.wait()}"
        return json.loads(line)

    def tell(self, value: Any = None) -> None:
        """Say something to the child."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(value).encode() + b"\n")
        self._process.stdin.flush()

    def signal(self, number: int) -> None:
        """Send a signal."""
        self._process.send_signal(number)

    def kill(self) -> None:
        """Kill and reap it; harmless if it is dead already."""
        self._process.kill()
        self.wait()

    def wait(self) -> int:
        """Its exit status, or minus the signal that killed it, once it has ended."""
        with self._process:  # closes the pipes
            return self._process.wait()

    def join(self) -> None:
        """Wait for it to end well."""
        status = self.wait()
        assert status == 0, f"the child ended with status {status}"


def say(value: Any) -> None:
    """In a child: tell the test something."""
    sys.stdout.write(json.dumps(value) + "\n")
    sys.stdout.flush()


def hear() -> Any:
    """In a child: wait for what the test tells."""
    line = sys.stdin.readline()
    if not line:
        sys.exit(0)  # the test is over
    return json.loads(line)


def drop_privileges() -> None:
    """In a child: be refused what the modes of files refuse, even as root."""
    # The system call capset(2): header (version 3, this process), then no capability at all.
    header, nothing = (ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)()
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.capset(header, nothing):
        raise OSError(ctypes.get_errno(), "capset")


def outcome_of(work: Callable[[], object], seconds: int = 10) -> str:
    """In a child without threads: what became of *work*, done in a fork of this process.

    What it returned, as text; the name of the exception that it raised; or that of the signal
    that killed it.
    """
    reading, writing = os.pipe()
    pid = os.fork()
    if not pid:
        try:
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


def _main() -> None:
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
    module, name, args, deadline_s = sys.argv[1:]
    signal.alarm(int(deadline_s))
    getattr(importlib.import_module(module), name)(*json.loads(args))


if __name__ == "__main__":
    _main()
