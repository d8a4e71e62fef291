"""Every record of a data file, read through the engine and compared with its checksum.

In a child only: a damaged file may end the process that maps it.
"""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import lmdb

from jobq.clock import SystemClock
from jobq.errors import StoreCorrupt
from jobq.repo.lmdb import keys, records
from jobq.repo.lmdb.access import META_KEY, SETTINGS_KEY, Access, Databases, ascending
from jobq.repo.lmdb.flow import LmdbFlow
from jobq.repo.lmdb.index import ELSEWHERE_KEY
from jobq.repo.lmdb.jobs import LmdbJobs
from jobq.repo.lmdb.opening import LEAST_MAP_SIZE, MAP_SIZE, open_databases
from jobq.repo.lmdb.topics import LmdbTopics
from jobq.repo.repositories import NOBODY, Transaction

MOST_PROBLEMS: Final = 100
TOLD_EACH: Final = 10_000
"""Records between two words on how far it is."""


def open_to_read(path: Path, *, file: bool, lock: bool) -> lmdb.Environment:
    """The environment of a directory, or of a data *file*, only to read.

    With *lock* it takes a slot among the readers, so that what it reads stays while others write.

    Raises:
        lmdb.Error: It cannot be opened.
    """
    map_size = MAP_SIZE
    while True:
        try:
            return lmdb.open(
                os.fsencode(path),
                map_size=map_size,
                subdir=not file,
                readonly=True,
                lock=lock,
                max_dbs=len(Databases._fields),
                lib_version=0,
            )
        except lmdb.MemoryError:
            if map_size <= LEAST_MAP_SIZE:
                raise
            map_size //= 2


def refuse_foreign(txn: lmdb.Transaction, db: Databases, path: Path) -> None:
    """Raise unless it is a queue of this format.

    Raises:
        StoreCorrupt: It is not.
    """
    data = txn.get(SETTINGS_KEY, db=db.meta)
    if data is None:
        raise StoreCorrupt(f"{path} has no settings: it is not the queue of a jobq")
    found = records.decode_settings(SETTINGS_KEY, bytes(data)).get("format")
    if found != records.FORMAT:
        raise StoreCorrupt(f"{path} has format {found!r}: this jobq reads format {records.FORMAT}")


def databases(env: lmdb.Environment, txn: lmdb.Transaction, path: Path) -> Databases:
    """The databases of a queue of this format.

    Raises:
        StoreCorrupt: It is none.
        lmdb.Error: It cannot be read.
    """
    try:
        db = open_databases(env, txn)
    except lmdb.NotFoundError as error:
        raise StoreCorrupt(f"{path} is an LMDB file, but not the queue of a jobq") from error
    refuse_foreign(txn, db, path)
    return db


def entries_of(txn: lmdb.Transaction, db: Databases) -> int:
    """How many records there are."""
    return sum(int(txn.stat(handle)["entries"]) for handle in db)


def verify(
    txn: lmdb.Transaction, db: Databases, told: Callable[[int], object] = lambda _: None
) -> list[str]:
    """What is wrong with records, `MOST_PROBLEMS` of them at most.

    *told* gets how many were read, each `TOLD_EACH`.

    Raises:
        lmdb.Error: The engine could not go on.
    """
    problems: list[str] = []
    seen = 0
    for name, handle in zip(db._fields, db, strict=True):
        there, read = 0, _READ[name]
        with txn.cursor(handle) as cursor:
            try:
                for key, value in ascending(cursor.iternext()):
                    there += 1
                    seen += 1
                    try:
                        read(bytes(key), bytes(value))
                    except (StoreCorrupt, ValueError, TypeError) as error:
                        problems.append(f"{name}: {error}")
                        if len(problems) == MOST_PROBLEMS:
                            return problems
                    if seen % TOLD_EACH == 0:
                        told(seen)
            except StoreCorrupt as error:
                problems.append(f"{name}: {error}")
                continue
        said = int(txn.stat(handle)["entries"])
        if there != said:
            problems.append(f"{name}: of {said} records {there} can be come by")
    if txn.get(META_KEY, db=db.meta) is None:
        problems.append("meta: the meta record is missing")
    return problems


def transaction(txn: lmdb.Transaction, db: Databases) -> Transaction:
    """A transaction as operations see it, only to read."""
    access, clock = Access(txn, db), SystemClock()
    wall_us = clock.wall_us()
    return Transaction(
        LmdbJobs(access, wall_us),
        LmdbTopics(access, {}, wall_us),
        LmdbFlow(access),
        wall_us,
        clock.boot_us(),
        lambda: NOBODY,
        bytes.hex,
    )


def _meta(key: bytes, value: bytes) -> Any:
    if key == META_KEY:
        return records.decode_meta(key, value)
    if key in (SETTINGS_KEY, ELSEWHERE_KEY):
        return records.decode_note(key, value)
    raise StoreCorrupt(f"there is a record {key!r}, which nobody knows")


def _topic(key: bytes, value: bytes) -> Any:
    if key[:1] == b"n":
        return records.decode_number(key, value)
    kind, _ = keys.read_topic_key(key)
    if kind == b"i":
        return records.decode_topic(key, value)
    return records.decode_topic_settings(key, value)


def _queue(key: bytes, value: bytes) -> Any:
    if len(value) != 16:
        raise StoreCorrupt(f"a queue has {len(value)} bytes under the key {key.hex()}")
    return keys.read_queue_key(key)


def _flow(key: bytes, value: bytes) -> Any:
    kind = keys.read_flow_kind(key)
    if kind == b"k":
        return records.decode_key(key, value)
    if kind == b"l":
        return records.decode_lane(key, value)
    if kind == b"h":
        return records.decode_lingering(key, value)
    return records.decode_note(key, value)


_READ: Final[dict[str, Callable[[bytes, bytes], Any]]] = {
    "meta": _meta,
    "topics": _topic,
    "jobs": records.decode_body,
    "states": records.decode_state,
    "queue": _queue,
    "agenda": records.decode_place,
    "notes": records.decode_note,
    "flow": _flow,
}
