"""Opening LMDB: with which settings, in which order, and what has to be there."""

import contextlib
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import lmdb

from jobq.clock import Clock
from jobq.errors import StoreCorrupt
from jobq.repo.lmdb import files, steps
from jobq.repo.lmdb.access import META_KEY, SETTINGS_KEY, Access, Databases
from jobq.repo.lmdb.filelock import FileLock
from jobq.repo.lmdb.flow import LmdbFlow
from jobq.repo.lmdb.index import Index, is_elsewhere, unmark, warn_of_left_out
from jobq.repo.lmdb.jobs import LmdbJobs
from jobq.repo.lmdb.records import FORMAT, Meta, decode_settings, encode_meta, encode_settings
from jobq.repo.lmdb.topics import LmdbTopics
from jobq.repo.operations.rebuild import rebuild
from jobq.repo.repositories import NOBODY, Transaction
from jobq.repo.surely import surely

MAP_SIZE: Final = 64 * 1024**3
"""Address space for the map: sparse, so it costs nothing until it is used."""

LEAST_MAP_SIZE: Final = 1024**2

LEVELS: Final = {
    "full": {"sync": True, "metasync": True},
    "relaxed": {"sync": True, "metasync": False},
    "unsafe": {"sync": False, "metasync": False},
}
"""What each level of durability means to LMDB."""

_NAMES: Final = Databases._fields


@dataclass(frozen=True, slots=True)
class Settings:
    """How a queue is opened; see `LmdbStore`."""

    durability: str
    clock: Clock
    max_size: int
    map_size: int
    lock_timeout: float
    create: bool
    fuse: bool
    index: type[Index] | None = None


def open_file(path: Path, settings: Settings) -> lmdb.Environment:
    """The environment of a directory that `files.prepare` has looked at.

    Raises:
        lmdb.Error: It cannot be opened.
    """
    env, map_size = _open_with_room(path, settings)
    mine = str(os.getpid())
    if any(line.split()[:1] == [mine] for line in env.readers().splitlines()):
        # A process with our pid was killed in a read (a container that was restarted): its slot
        # would never be cleared. Closing clears all slots of our pid.
        env.close()
        env = _open(path, map_size, settings.durability)
    env.reader_check()
    return env


def open_databases(env: lmdb.Environment, txn: lmdb.Transaction) -> Databases:
    """The handles of a queue's databases.

    Those opened in a write transaction last once it is committed; those opened in a read
    transaction last as long as that.

    Raises:
        lmdb.Error: They are not there, or cannot be read.
    """
    return Databases(*(env.open_db(name.encode(), txn=txn, create=False) for name in _NAMES))


def look_at(env: lmdb.Environment, path: Path) -> bool:
    """Refuse what is not a queue of this format; say whether its topics are kept elsewhere.

    Raises:
        StoreCorrupt: So it is.
        lmdb.Error: It cannot be read.
    """
    txn = env.begin()
    try:
        try:
            db = open_databases(env, txn)
        except lmdb.NotFoundError as error:
            raise StoreCorrupt(f"{path} is an LMDB file, but not the queue of a jobq") from error
        data = txn.get(SETTINGS_KEY, db=db.meta)
        if data is None:
            raise StoreCorrupt(f"{path} has no settings: it is not the queue of a jobq")
        found = decode_settings(SETTINGS_KEY, bytes(data)).get("format")
        if found != FORMAT:
            raise StoreCorrupt(f"{path} has format {found!r}: this jobq reads format {FORMAT}")
        return is_elsewhere(Access(txn, db))
    finally:
        txn.abort()


def take_topics_back(
    env: lmdb.Environment, path: Path, settings: Settings, settle: Callable[[], None]
) -> None:
    """Make the index in the file out of the jobs, if it is still not there, in one commit.

    *settle* is called before anything is written, under the write lock.

    Nobody keeps it elsewhere meanwhile: we have the queue open, together with others who come to
    do the same. The write lock says who does.

    Raises:
        StoreBusy: The write lock was not to be had in time.
        StoreCorrupt: Not all jobs can be come by.
        lmdb.Error: It cannot be written.
    """
    lock = FileLock(path)
    try:
        lock.acquire(settings.lock_timeout)
        steps.reached("file lock taken to rebuild")
        settle()
        while True:
            try:
                _take_back(env, path, settings.clock)
                return
            except lmdb.MapFullError:
                env.set_mapsize(2 * int(env.info()["map_size"]))
            except lmdb.MapResizedError:
                env.set_mapsize(0)
    finally:
        surely(lock.release)
        lock.close()


def _take_back(env: lmdb.Environment, path: Path, clock: Clock) -> None:
    txn = env.begin(write=True)
    try:
        access = Access(txn, open_databases(env, txn))
        if is_elsewhere(access):
            wall_us = clock.wall_us()
            topics = LmdbTopics(access, {}, wall_us)
            jobs = LmdbJobs(access, wall_us)
            flow = LmdbFlow(access)
            topics.clear()
            steps.reached("topics cleared")
            done = rebuild(
                Transaction(jobs, topics, flow, wall_us, clock.boot_us(), lambda: NOBODY, bytes.hex)
            )
            warn_of_left_out(path, done)
            unmark(access)
            topics.flush()
            flow.flush()
            access.flush()
            steps.reached("topics rebuilt")
        txn.commit()
        steps.reached("rebuilt topics committed")
    except BaseException:
        with contextlib.suppress(lmdb.Error):
            txn.abort()  # at once: an exception that is kept would keep the write lock
        raise


def build(directory: Path, clock: Clock) -> None:
    """The data file of an empty queue, in a directory of its own.

    Raises:
        lmdb.Error: It cannot be written.
    """
    env = _open(directory, LEAST_MAP_SIZE * 16, "full")
    try:
        db = Databases(*(env.open_db(name.encode()) for name in _NAMES))
        with env.begin(write=True) as txn:
            settings = {"format": FORMAT, "created_us": clock.wall_us()}
            txn.put(SETTINGS_KEY, encode_settings(SETTINGS_KEY, settings), db=db.meta)
            txn.put(META_KEY, encode_meta(META_KEY, Meta.empty()), db=db.meta)
    finally:
        env.close()


def _open_with_room(path: Path, settings: Settings) -> tuple[lmdb.Environment, int]:
    map_size = settings.map_size
    while True:
        try:
            return _open(path, map_size, settings.durability), map_size
        except lmdb.InvalidParameterError as error:
            raise StoreCorrupt(f"{path}: the head of the data file is damaged ({error})") from error
        except lmdb.MemoryError:
            if map_size <= LEAST_MAP_SIZE:
                files.refuse_too_large_claim(path)
                raise
            map_size //= 2  # a limited address space: RLIMIT_AS, a small machine


def _open(path: Path, map_size: int, durability: str) -> lmdb.Environment:
    return lmdb.open(
        os.fsencode(path),
        map_size=map_size,
        max_dbs=len(_NAMES),
        mode=0o600,
        writemap=False,
        # Explicit: LMDB_DEFAULT_LIB_VERSION in the environment would choose another format.
        lib_version=0,
        **LEVELS[durability],
    )
