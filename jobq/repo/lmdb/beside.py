"""Files beside the data file: whoever may use that may use them, whoever has made them.

Each is made by the first process that needs it. If that is one of root (`sudo jobq compact`), or of
one of several users to whom a group gives the queue, the others have to be able to open it too. So
it takes after the data file: owner and group if root makes it, and what the group may do.
"""

import contextlib
import os
import stat
from pathlib import Path
from typing import Final

DATA: Final = "data.mdb"

_OF_GROUP: Final = 0o060


def open_beside(path: Path, directory: Path, flags: int = 0) -> int:
    """A descriptor of a file of the queue in *directory*, to read and write; made if need be.

    Raises:
        OSError: It can neither be opened nor made.
    """
    flags |= os.O_RDWR | os.O_CLOEXEC
    if not flags & os.O_EXCL:
        with contextlib.suppress(FileNotFoundError):
            return os.open(path, flags)
    fd = os.open(path, flags | os.O_CREAT, 0o600)
    take_after(fd, directory)
    return fd


def make_directory(path: Path, directory: Path) -> None:
    """A directory of the queue in *directory*, if it is not there.

    Raises:
        OSError: It cannot be made.
    """
    with contextlib.suppress(FileExistsError):
        path.mkdir(mode=0o700)
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            take_after(fd, directory)
        finally:
            os.close(fd)


def take_after(fd: int, directory: Path) -> None:
    """Give what was made now the owner and the mode that others need; what cannot be, stays."""
    with contextlib.suppress(OSError):
        data, mine = os.stat(directory / DATA), os.fstat(fd)
        if os.geteuid() == 0 and (data.st_uid, data.st_gid) != (mine.st_uid, mine.st_gid):
            os.fchown(fd, data.st_uid, data.st_gid)
        if shared := data.st_mode & _OF_GROUP:
            enter = (mine.st_mode & stat.S_IXUSR) >> 3  # a directory
            os.fchmod(fd, stat.S_IMODE(mine.st_mode) | shared | enter)
