"""Places of their own for processes: with another clock, other pids, mounts or a boot id.

    child = start(within, Place(ahead=(1_000_000,)), work, path)

They are made by the child itself, so that it starts as fast as any other. It takes root; tests take
the fixture `places`, which skips them where nobody may.
"""

import ctypes
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, NamedTuple

from tests.crash.processes import Pipe, die_with_parent

BOOT_ID: Final = "/proc/sys/kernel/random/boot_id"

_CLONE_NEWTIME: Final = 0x80
_CLONE_NEWNS: Final = 0x20000
_CLONE_NEWPID: Final = 0x20000000
_MS_RDONLY: Final = 1
_MS_REMOUNT: Final = 32
_MS_BIND: Final = 4096
_MS_PRIVATE_FOR_ALL: Final = 1 << 18 | 16384


class Mount(NamedTuple):
    """A directory or file that stands elsewhere too."""

    source: str
    target: str
    read_only: bool = False


class Place(NamedTuple):
    """Where a process runs.

    Attributes:
        ahead: Seconds by which the time since boot is ahead, of time namespaces in each other.
        pid: Its pid, in a PID namespace of its own with its own /proc; 0 is none.
        mounts: What only it sees.
    """

    ahead: tuple[int, ...] = ()
    pid: int = 0
    mounts: tuple[Mount, ...] = ()


HERE: Final = Place()


def within(pipe: Pipe, place: Place, work: Callable[..., object], *arguments: Any) -> None:
    """In a child: do *work* there, in a process that dies with this one."""
    total = 0
    for seconds in place.ahead:
        total += seconds
        make_time_namespace(total)
        _fork(pipe)
    if place.pid or place.mounts:
        _call("unshare", _CLONE_NEWNS | (_CLONE_NEWPID if place.pid else 0))
        mount(None, "/", flags=_MS_PRIVATE_FOR_ALL)
    if place.pid:
        _fork(pipe)
        mount("proc", "/proc", "proc")
    for source, target, read_only in place.mounts:
        mount(source, target, flags=_MS_BIND)
        if read_only:
            mount(None, target, flags=_MS_BIND | _MS_REMOUNT | _MS_RDONLY)
    if place.pid > 1:
        make_next_pid(place.pid)
        _fork(pipe)
    assert place.pid in {0, os.getpid()}
    work(pipe, *arguments)


def make_time_namespace(seconds: int) -> None:
    """For the children from now on; *seconds* ahead of the machine itself."""
    _call("unshare", _CLONE_NEWTIME)
    Path("/proc/self/timens_offsets").write_text(f"boottime {seconds} 0\n")


def make_next_pid(pid: int) -> None:
    """Let the next process of this PID namespace have this pid."""
    Path("/proc/sys/kernel/ns_last_pid").write_text(str(pid - 1))


def mount(source: str | None, target: str, kind: str | None = None, flags: int = 0) -> None:
    """The system call, for what this process alone sees."""
    encoded = [None if text is None else text.encode() for text in (source, target, kind)]
    _call("mount", *encoded, ctypes.c_ulong(flags), None)


def _call(name: str, *arguments: Any) -> None:
    if getattr(ctypes.CDLL(None, use_errno=True), name)(*arguments):
        code = ctypes.get_errno()
        raise OSError(code, f"{name}: {os.strerror(code)}")


def _fork(pipe: Pipe) -> None:
    """Go on in a child; this process ends when that does, and as it does."""
    pid = os.fork()
    if pid:
        os.close(pipe.fileno())  # its end is the child's
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        os._exit(status & 0xFF)
    die_with_parent()
