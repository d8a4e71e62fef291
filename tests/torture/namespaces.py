"""Command lines that run a process where it has a clock, pids, mounts or an id of its own.

They take root, or leave to make user namespaces; a test that can have neither is skipped.
"""

import shlex
import subprocess
import time
from functools import cache
from typing import Final

import pytest

Wrap = tuple[str, ...]

HERE: Final[Wrap] = ()

BOOT_ID: Final = "/proc/sys/kernel/random/boot_id"


def ahead(seconds: int) -> Wrap:
    """In a time namespace whose time since boot is ahead; behind, if that is negative."""
    return HERE if seconds == 0 else _wrap("--time", f"--boottime={seconds}")


def behind() -> Wrap:
    """In a time namespace where the machine has been up for half of the time."""
    return ahead(-int(time.clock_gettime(time.CLOCK_BOOTTIME) / 2))


def own_pids(first: int = 1, *, boot_id: str = "", seconds: int = 0) -> Wrap:
    """As in a container: with a PID namespace and a /proc of its own, where it is process *first*.

    Args:
        first: Its pid there.
        boot_id: A file that is mounted over the id of the boot.
        seconds: How far the time since boot is ahead.
    """
    times = (f"--boottime={seconds}", "--time") if seconds else ()
    steps = []
    if boot_id:
        steps.append(f"mount --bind {shlex.quote(boot_id)} {BOOT_ID}")
    if first > 1:
        # Not by `exec`: the shell is process 1.
        steps += [f"echo {first - 1} > /proc/sys/kernel/ns_last_pid", '"$@"']
    else:
        steps.append('exec "$@"')
    inside = ("sh", "-c", " && ".join(steps), "sh")
    return (*_wrap("--pid", "--fork", "--kill-child", "--mount-proc", *times), *inside)


def mounted(*commands: str) -> Wrap:
    """With mounts of its own, made by these commands of the shell."""
    return (*_wrap("--mount"), "sh", "-c", " && ".join([*commands, 'exec "$@"']), "sh")


def bound(source: object, target: object) -> str:
    """The command that mounts one directory or file also elsewhere."""
    return f"mount --bind {shlex.quote(str(source))} {shlex.quote(str(target))}"


def _wrap(*options: str) -> Wrap:
    for leave in ((), ("--map-root-user",)):
        wrap = ("unshare", *leave, *options)
        if _works(wrap):
            return wrap
    pytest.skip(f"needs `unshare {' '.join(options)}`: root, or leave to make user namespaces")


@cache
def _works(wrap: Wrap) -> bool:
    try:
        return subprocess.run([*wrap, "true"], capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        return False
