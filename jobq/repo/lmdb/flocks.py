"""`flock` locks on files of a queue, and who has them."""

import contextlib
import fcntl
import os
from pathlib import Path
from typing import Final

TRY: Final = fcntl.LOCK_EX | fcntl.LOCK_NB
"""To have it alone, or not at all; at once."""

NAMELESS: Final = "a process that cannot be named"


class Flock:
    """A lock that lasts as long as any copy of its descriptor: until this process closes it or
    dies, if a fork's child closes its own.

    Args:
        path: What to lock: a file, or a directory. It is not locked yet.

    Raises:
        OSError: It cannot be opened.
    """

    def __init__(self, path: Path) -> None:
        self._fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)

    def take(self, mode: int = TRY) -> bool:
        """Whether it was free, and is taken."""
        try:
            fcntl.flock(self._fd, mode)
        except BlockingIOError:
            return False
        return True

    def close(self) -> None:
        """Let go; not by unlocking, which would let go for the parent of a fork too."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    def __del__(self) -> None:
        # Closed even if an interrupt keeps anybody from doing so; and not by a file of Python's,
        # which would warn of every program that ends without closing its queue.
        if hasattr(self, "_fd"):
            self.close()


def flock_holder(path: Path) -> str | None:
    """Another process that has the file locked, in words; None if it cannot be told."""
    return next(iter(flock_holders(path)), None)


def flock_holders(path: Path) -> list[str]:
    """The other processes that have the file locked, in words; those that can be told."""
    found: dict[str, None] = {}
    with contextlib.suppress(OSError):
        inode = str(path.stat().st_ino)
        for line in Path("/proc/locks").read_text().splitlines():
            fields = line.split()
            if "->" in fields or "FLOCK" not in fields:
                continue
            pid, where = fields[-4], fields[-3]
            if where.rsplit(":", 1)[-1] == inode and pid != str(os.getpid()):
                with contextlib.suppress(OSError, KeyError):  # it has just ended
                    found[_in_words(pid)] = None
    return list(found)


def _in_words(pid: str) -> str:
    status = Path(f"/proc/{pid}/status").read_text().splitlines()
    facts = dict(line.split(":\t", 1) for line in status if ":\t" in line)
    return f"process {pid} ({facts['Name']}, {facts['State']})"
