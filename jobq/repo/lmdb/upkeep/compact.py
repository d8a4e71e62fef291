"""Compaction: the data file without its free pages, in place of the old one."""

from pathlib import Path

from jobq.errors import InvalidValue
from jobq.repo.base import Copied
from jobq.repo.lmdb import files
from jobq.repo.lmdb.faults import translating
from jobq.repo.lmdb.upkeep import child, copying
from jobq.repo.lmdb.upkeep.alone import alone, put_in_place, workshop
from jobq.repo.lmdb.upkeep.backup import Told, telling


def compact(directory: Path, progress: Told = None) -> Copied:
    """Give the free pages of a queue back to the disk.

    Raises:
        InvalidValue: There is no queue.
        StoreLocked: Somebody has it open.
        StoreCorrupt: It is damaged, and left as it is.
        StoreFull: No room for the copy beside it.
        StoreUnavailable: It cannot be read or written.
    """
    data = directory / files.DATA
    with translating(directory):
        if not data.exists():
            raise InvalidValue(f"{directory} holds no queue")
    with alone(directory, "compact"), translating(directory), workshop(directory) as fresh:
        files.refuse_links(directory, data.stat())
        before = data.stat().st_size
        target = fresh / files.DATA
        request = {"source": str(directory.absolute()), "target": str(target.absolute())}
        done = child.run(copying.copy, request, telling(progress))
        put_in_place(target, directory)
    return Copied(str(directory), done["jobs"], done["bytes"], before)
