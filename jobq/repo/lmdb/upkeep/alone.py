"""Having a queue alone, and putting another data file in place of its own."""

import contextlib
import os
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from jobq.errors import OutcomeUnknown, StoreLocked
from jobq.repo.lmdb import files, steps
from jobq.repo.lmdb.faults import translating
from jobq.repo.lmdb.filelock import FileLock
from jobq.repo.lmdb.flocks import flock_holders
from jobq.repo.lmdb.openlock import PATIENCE_S, MakingLock, OpenLock

WRITE_LOCK_S: Final = 10.0
"""Who is about to open the queue may have its directory or the write lock, and lets go at once."""


@contextlib.contextmanager
def alone(directory: Path, verb: str) -> Iterator[None]:
    """Have the queue of a directory alone: nobody has it open, or opens it, until the end.

    Raises:
        StoreLocked: Somebody has it open; the message says who, and that *verb* cannot be done.
        StoreBusy: Somebody is making or opening it, and comes to no end.
        StoreUnavailable: It cannot be read or written.
    """
    data = directory / files.DATA
    with translating(directory), contextlib.ExitStack() as stack:
        # No other order could be waited for in a circle: makers of queues let go of the directory
        # before they open one.
        stack.enter_context(MakingLock(directory, data, WRITE_LOCK_S))
        try:
            mine = OpenLock(data, alone=True, patience=PATIENCE_S)
        except StoreLocked as error:
            who = ", ".join(flock_holders(data)) or "this process"
            raise StoreLocked(
                f"cannot {verb} {directory}: it is open in {who}; close it there first"
            ) from error
        stack.callback(mine.close)
        writing = FileLock(directory)
        stack.callback(writing.close)
        stack.callback(writing.release)
        writing.acquire(WRITE_LOCK_S)
        steps.reached("alone")
        yield


@contextlib.contextmanager
def workshop(directory: Path) -> Iterator[Path]:
    """A place in the directory for a new data file; whoever opens a queue clears away old ones."""
    fresh = files.workshop(directory)
    lasts = True
    try:
        yield fresh
    except OutcomeUnknown:
        lasts = False  # who clears it away syncs the names as well
        raise
    finally:
        if lasts:
            shutil.rmtree(fresh, ignore_errors=True)


def put_in_place(fresh: Path, directory: Path) -> None:
    """Put a data file that is on the disk in place of the queue's, in one step. Only alone.

    It is read and written by whom the old one was. LMDB's lock file goes: it counts the
    transactions of the old file, and the next who opens the queue makes a new one.

    Raises:
        OSError: It cannot be done; the old file is still there.
        OutcomeUnknown: The new file is there, but a power cut may bring the old one back.
    """
    data = directory / files.DATA
    old = os.stat(data)
    if (os.stat(fresh).st_uid, os.stat(fresh).st_gid) != (old.st_uid, old.st_gid):
        os.chown(fresh, old.st_uid, old.st_gid)
    os.chmod(fresh, stat.S_IMODE(old.st_mode))
    files.sync_file(fresh)
    steps.reached("new data file synced")
    (directory / files.LOCK).unlink(missing_ok=True)
    steps.reached("lock file removed")
    os.rename(fresh, data)
    steps.reached("new data file in place")
    try:
        files.sync_directory(directory)
    except OSError as error:
        raise OutcomeUnknown(
            f"the new file is in place in {directory}, but whether a power cut would bring the old "
            f"one back is not known ({error.strerror}): nothing else has to be done than to open it"
        ) from error
    steps.reached("its directory synced")
