"""A closed queue as bare LMDB sees it, or as the bytes of its file: to change it unseen by jobq."""

from collections.abc import Callable
from pathlib import Path

import lmdb

from jobq import JobService

PAGE = 4096
LEAF = 2
"""The flag of a leaf in the head of a page."""


class Raw:
    """A closed queue as bare LMDB sees it."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def change(
        self, name: str, change: Callable[[lmdb.Transaction, lmdb._Database], object]
    ) -> None:
        """Change a database."""
        with lmdb.open(str(self._path), max_dbs=20, lib_version=0) as env:
            db = env.open_db(name.encode(), create=False)
            with env.begin(write=True) as txn:
                change(txn, db)

    def flip(self, name: str, key: bytes) -> None:
        """Turn a bit of a record's value."""

        def flip(txn: lmdb.Transaction, db: lmdb._Database) -> None:
            value = bytearray(txn.get(key, db=db) or b"")
            value[len(value) // 2] ^= 1
            txn.put(key, bytes(value), db=db)

        self.change(name, flip)

    def empty(self, name: str) -> None:
        """Forget all of a database."""
        self.change(name, lambda txn, db: txn.drop(db, delete=False))


def reserved(svc: JobService, topic: str = "mail") -> list[object]:
    return [job.payload for job in svc.reserve(topic, 100, timeout=0)]


def records_of(path: Path) -> list[tuple[str, bytes, bytes]]:
    """Every record of a closed queue: database, key, value."""
    found = []
    with lmdb.open(str(path), max_dbs=20, lib_version=0) as env:
        with env.begin() as txn:
            names = [bytes(key).decode() for key, _ in txn.cursor()]
        for name in names:
            db = env.open_db(name.encode(), create=False)
            with env.begin() as txn:
                found += [(name, bytes(key), bytes(value)) for key, value in txn.cursor(db)]
    return found


def swap_leaves(data: bytearray, leaves: list[int]) -> None:
    """Two pages in each other's place, as if they had always been there."""
    one, other = leaves[1] + 8, leaves[2] + 8  # after the number of the page
    size = PAGE - 8
    data[one : one + size], data[other : other + size] = (
        data[other : other + size],
        data[one : one + size],
    )


def leaves_of(path: Path, name: str) -> list[int]:
    """Where the leaves of a database's tree are in the file, in their order."""
    with lmdb.open(str(path), max_dbs=20, lib_version=0) as env:
        db = env.open_db(name.encode(), create=False)
        with env.begin() as txn:
            keys = [bytes(key) for key, _ in txn.cursor(db)]
            count = txn.stat(db)["leaf_pages"]
    assert count > 3
    data = (path / "data.mdb").read_bytes()
    leaves: dict[int, None] = {}
    for key in keys:
        # In its node, a key follows its length; elsewhere the same bytes may be a value.
        for at in find_all(data, bytes((len(key), 0)) + key):
            if data[at // PAGE * PAGE + 10] == LEAF:
                leaves[at // PAGE * PAGE] = None
    return list(leaves)


def find_all(data: bytes, what: bytes) -> list[int]:
    found, at = [], data.find(what)
    while at >= 0:
        found.append(at)
        at = data.find(what, at + 1)
    return found
