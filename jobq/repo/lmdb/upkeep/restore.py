"""Restoration: a queue out of a backup, in a new directory or in place of one that is there."""

import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Final

from jobq.errors import InvalidValue
from jobq.repo.base import Copied, CopyProgress
from jobq.repo.lmdb import files, steps
from jobq.repo.lmdb.faults import translating
from jobq.repo.lmdb.upkeep import child, copying
from jobq.repo.lmdb.upkeep.alone import alone, put_in_place, workshop
from jobq.repo.lmdb.upkeep.backup import Told, telling

PIECE: Final = 4 * 1024**2
"""Bytes that are copied between two words on how far it is."""


def restore(backup: Path, directory: Path, *, replace: bool, progress: Told = None) -> Copied:
    """Make a queue in a directory out of a backup, which stays as it is.

    Raises:
        InvalidValue: There is no such backup; or there is a queue, and it is not to be replaced;
            or the directory cannot hold one.
        StoreLocked: Somebody has the queue open that is to be replaced.
        StoreCorrupt: The backup is damaged, or no backup of a queue of this format; what is there
            stays as it is.
        StoreFull: No room; likewise.
        StoreUnavailable: Something cannot be read or written; likewise.
    """
    _refuse_what_is_no_file(backup)
    jobs: list[int] = []

    def build(fresh: Path) -> None:
        jobs.append(_fetch(backup, fresh / files.DATA, progress))

    data = directory / files.DATA
    before = 0
    with translating(directory):
        if not data.exists():
            files.prepare(directory.absolute(), create=True, build=build, fuse=False)
        elif replace:
            with alone(directory, "replace"), workshop(directory) as fresh:
                before = data.stat().st_size
                build(fresh)
                put_in_place(fresh / files.DATA, directory)
        if not jobs:
            raise InvalidValue(
                f"there is a queue in {directory} already: it takes replace (`--replace`) to put "
                "the backup in its place"
            )
        return Copied(str(directory), jobs[0], data.stat().st_size, before)


def _refuse_what_is_no_file(backup: Path) -> None:
    with translating(backup):
        try:
            kind = os.stat(backup).st_mode
        except (FileNotFoundError, NotADirectoryError) as error:
            raise InvalidValue(f"there is no backup {backup}") from error
    if not stat.S_ISREG(kind):
        raise InvalidValue(f"{backup} is no file: expected one that `jobq backup` has made")


def _fetch(backup: Path, target: Path, progress: Told) -> int:
    """Copy a backup and verify the copy; gives how many jobs it has."""
    with translating(backup), open(backup, "rb") as source:
        size = os.fstat(source.fileno()).st_size
        with open(target, "xb", opener=_private) as copy:
            _tell(progress, "copy", 0, size)
            while piece := source.read(PIECE):
                with translating(target):
                    copy.write(piece)
                    _tell(progress, "copy", copy.tell(), size)
            copy.flush()
            os.fsync(copy.fileno())
    steps.reached("backup fetched")
    request = {"path": str(target.absolute()), "words": str(backup)}
    jobs: int = child.run(copying.verify, request, telling(progress))
    return jobs


def _tell(progress: Callable[[CopyProgress], object] | None, step: str, done: int, of: int) -> None:
    if progress is not None:
        progress(CopyProgress(step, done, of))


def _private(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_CLOEXEC, 0o600)
