"""A backup: one file, a compact copy of the data file, made while the queue is in use."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from jobq.repo.base import Copied, CopyProgress
from jobq.repo.lmdb import files
from jobq.repo.lmdb.upkeep import child, copying

Told = Callable[[CopyProgress], object] | None


def backup(directory: Path, target: Path, progress: Told = None) -> Copied:
    """Copy the queue in a directory, which this process has open, to the new file *target*.

    Raises:
        InvalidValue: There is something at the target already, or no directory for it.
        StoreCorrupt: The queue is damaged.
        StoreFull: No room for the copy.
        StoreUnavailable: It cannot be read or written.
    """
    before = (directory / files.DATA).stat().st_size
    request = {"source": str(directory), "target": str(target.absolute())}
    done = child.run(copying.copy, request, telling(progress))
    return Copied(str(target), done["jobs"], done["bytes"], before)


def telling(progress: Told) -> child.Tell | None:
    """What passes on to *progress* how far a child is."""
    if progress is None:
        return None

    def tell(value: Any) -> None:
        progress(CopyProgress(*value))

    return tell
