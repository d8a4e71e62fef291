"""Disks of a few megabytes, which can really be full; for processes that may mount them."""

import contextlib
import os
import subprocess
from functools import cache
from pathlib import Path

from jobq.repo.lmdb.room import BALLAST


def mount(disk: str, mib: int = 5) -> Path:
    """A small disk, and where the queue on it is to be."""
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={mib}m", "none", disk], check=True)
    return Path(disk, "queue")


def enlarge(disk: str, mib: int) -> None:
    """Make it a larger one."""
    subprocess.run(["mount", "-o", f"remount,size={mib}m", disk], check=True)


def unmount(disk: str) -> None:
    """Away with it and all that is on it."""
    subprocess.run(["umount", "--lazy", disk], check=True)


def stuff(file: Path) -> None:
    """Another program takes all the room that is left."""
    with file.open("ab", buffering=0) as stuffing, contextlib.suppress(OSError):
        while stuffing.write(bytes(65536)) == 65536:
            pass
    assert free(file.parent) == 0


def free(directory: Path) -> int:
    disk = os.statvfs(directory)
    return disk.f_bavail * disk.f_frsize


def has_ballast(path: Path) -> bool:
    ballast = path / "ballast"
    return ballast.exists() and ballast.stat().st_blocks * 512 == BALLAST


@cache
def may_mount() -> tuple[str, ...] | None:
    """The command under which a process may mount file systems; None if nobody may."""
    for wrap in (("unshare", "--mount"), ("unshare", "--map-root-user", "--mount")):
        probe = [*wrap, "mount", "-t", "tmpfs", "-o", "size=64k", "none", "/mnt"]
        try:
            if subprocess.run(probe, capture_output=True, check=False).returncode == 0:
                return wrap
        except FileNotFoundError:
            return None
    return None
