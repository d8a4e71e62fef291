"""A process of its own, for what may take the process along that does it.

LMDB maps its file and trusts it: a page that is missing is SIGBUS, one that is damaged may be an
assertion, which is SIGABRT. And a call of LMDB that copies a whole file would keep every other
thread of its process from the store. So such work is done by a child: a new interpreter, since a
fork of a process with threads is none to rely on. It is told what to do by one line of JSON on
stdin and answers by lines on stdout; when its parent is gone, so is it.
"""

import contextlib
import importlib
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from typing import Any, Final

from jobq import errors
from jobq.errors import JobqError, StoreCorrupt, StoreUnavailable

Tell = Callable[[Any], None]
"""What a task calls to say how far it is: with any value that JSON can hold."""

Task = Callable[[dict[str, Any], Tell], Any]
"""What a child does: gets the request, gives an answer that JSON can hold."""

_CODE: Final = (
    f"import json, sys; sys.path[:] = json.loads(sys.argv[1]); from {__name__} import main; main()"
)
_DEATHS: Final = frozenset({signal.SIGBUS, signal.SIGSEGV, signal.SIGABRT, signal.SIGFPE})
"""What damage ends a process by."""


class EngineDied(StoreCorrupt):
    """LMDB took the child along: the file is damaged."""


def run(task: Task, request: dict[str, Any], tell: Tell | None = None) -> Any:
    """What *task*, a function at the top of a module of jobq, answers in a process of its own.

    An interrupt or an error of *tell* kills the child; it has ended when this returns.

    Raises:
        EngineDied: The engine has ended the child: what it read is damaged.
        JobqError: What the task raised, or (StoreUnavailable) no child can be had.
    """
    stderr = os.memfd_create("jobq-stderr", os.MFD_CLOEXEC)  # no pipe, which somebody had to read
    try:
        child = _start(stderr)
        try:
            return _follow(child, f"{task.__module__}:{task.__qualname__}", request, tell, stderr)
        finally:
            child.kill()
            for pipe in (child.stdin, child.stdout):
                if pipe is not None:
                    with contextlib.suppress(OSError):
                        pipe.close()
            child.wait()
    finally:
        os.close(stderr)


def _start(stderr: int) -> "subprocess.Popen[bytes]":
    if not sys.executable or getattr(sys, "frozen", False):  # there it is the program itself
        raise StoreUnavailable(
            "this program has no Python to start a helper process with: use `jobq` from outside"
        )
    modules = [path for path in sys.path if isinstance(path, str)]
    try:
        return subprocess.Popen(  # noqa: S603 - our own interpreter, and nothing of a user's
            [sys.executable, "-c", _CODE, json.dumps(modules)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=stderr,
            # Ctrl-C is for the parent, which then kills this one.
            start_new_session=True,
        )
    except OSError as error:
        raise StoreUnavailable(f"cannot start a helper process: {error}") from error


def _follow(
    child: "subprocess.Popen[bytes]",
    task: str,
    request: dict[str, Any],
    tell: Tell | None,
    stderr: int,
) -> Any:
    assert child.stdin is not None
    assert child.stdout is not None
    with contextlib.suppress(BrokenPipeError):  # it has died already: what follows says how
        child.stdin.write(json.dumps([task, request]).encode() + b"\n")
        child.stdin.flush()
    for line in child.stdout:
        try:
            kind, value = json.loads(line)
        except ValueError:  # it died in the middle of a line
            break
        if kind == "answer":
            return value
        if kind == "error":
            name, text = value
            raise getattr(errors, name)(text)
        if tell is not None:
            tell(value)
    raise _death(child.wait(), stderr, request.get("source", request.get("path", "the file")))


def _death(status: int, stderr: int, what: str) -> JobqError:
    """The error for a child that has ended without an answer while it read *what*."""
    size = os.fstat(stderr).st_size
    said = os.pread(stderr, 4000, max(0, size - 4000)).decode(errors="replace").strip()
    last = f" ({said.splitlines()[-1]})" if said else ""
    if status < 0:
        name = signal.Signals(-status).name
        if -status in _DEATHS:
            return EngineDied(f"LMDB died of {name} while it read {what}{last}: it is damaged")
        return StoreUnavailable(f"a helper process was killed by {name}")
    return StoreUnavailable(f"a helper process ended with status {status}{last}")


# In the child.


def main() -> None:
    """Do the task that stdin names, and answer on stdout."""
    answers = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)  # what anybody prints is no answer
    name, request = json.loads(sys.stdin.buffer.readline())
    threading.Thread(target=_die_with_parent, daemon=True).start()
    module, _, function = name.partition(":")
    task: Task = getattr(importlib.import_module(module), function)

    def say(kind: str, value: Any) -> None:
        answers.write(json.dumps([kind, value]).encode() + b"\n")

    try:
        say("answer", task(request, lambda value: say("told", value)))
    except JobqError as error:
        say("error", [_public(type(error)), str(error)])
    sys.stdout.flush()
    os._exit(0)  # at once: an engine that has seen damage need not be closed


def _public(kind: type[JobqError]) -> str:
    """The name of an error in `jobq.errors`: its own, or that of what it is a kind of."""
    return next(one.__name__ for one in kind.__mro__ if hasattr(errors, one.__name__))


def _die_with_parent() -> None:
    with contextlib.suppress(OSError):
        os.read(0, 1)  # nothing comes any more but the end
    os._exit(1)
