"""Errors of LMDB and of the system, as jobq's: nothing of an engine leaves the adapter."""

import contextlib
import errno
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import lmdb

from jobq.errors import JobqError, StoreCorrupt, StoreFull, StoreUnavailable

_DAMAGE: Final = (
    lmdb.CorruptedError,
    lmdb.PageNotFoundError,
    lmdb.InvalidError,
    lmdb.VersionMismatchError,
    lmdb.PageFullError,
    lmdb.CursorFullError,
    lmdb.BadDbiError,
    lmdb.BadTxnError,  # an earlier call of the transaction met damage
    lmdb.IncompatibleError,
    lmdb.NotFoundError,  # not of a record, which is None: a database is gone
)


def translated(error: Exception, path: Path) -> Exception:
    """jobq's error for one of the engine's or the system's, caused by it; others as they are."""
    if isinstance(error, JobqError):
        return error
    if isinstance(error, SystemError) and isinstance(error.__cause__, lmdb.Error):
        error = error.__cause__  # py-lmdb's cursors, when deleting meets damage
    if isinstance(error, OSError):
        ours: JobqError = of_system(error, path)
    elif isinstance(error, lmdb.Error):
        ours = _of_lmdb(error, path)
    else:
        return error
    ours.__cause__ = error
    return ours


def of_system(error: OSError, path: Path) -> StoreFull | StoreUnavailable:
    """jobq's error for one of the operating system's."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return StoreFull(f"{path}: the disk is full")
    # A file of the queue that is there may be another user's, in a directory of one's own.
    name = error.filename if isinstance(error.filename, str) else ""
    is_there = name.startswith(f"{path}/") and os.path.lexists(name)
    return StoreUnavailable(f"{name if is_there else path}: {error.strerror or error}")


def _of_lmdb(error: lmdb.Error, path: Path) -> JobqError:
    where = str(error) if str(path) in str(error) else f"{path}: {error}"
    if isinstance(error, lmdb.MapFullError):
        return StoreFull(f"{where}: no room for more jobs")
    if isinstance(error, lmdb.DiskError):
        return StoreFull(f"{where}: the disk is full")
    if isinstance(error, _DAMAGE):
        return StoreCorrupt(f"{where}: the file is damaged; restore it from a backup")
    if isinstance(error, lmdb.LockError):
        return StoreUnavailable(
            f"{where}: another process with the same pid ({os.getpid()}) has the queue open; "
            "containers that share a queue must share a PID namespace"
        )
    return StoreUnavailable(where)


@contextlib.contextmanager
def translating(path: Path) -> Iterator[None]:
    """Whatever the engine or the system raises inside comes out as jobq's."""
    try:
        yield
    except (OSError, lmdb.Error) as error:
        raise translated(error, path) from error
