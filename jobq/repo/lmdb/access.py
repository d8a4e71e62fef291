"""One LMDB transaction as the repositories see it: databases, the meta record, what is dirty."""

from collections.abc import Callable, Iterable, Iterator
from typing import Final, NamedTuple, TypeVar

import lmdb

from jobq.errors import StoreCorrupt
from jobq.repo.lmdb.records import STATUS_CODE, Meta, decode_meta, encode_meta
from jobq.states import Status

Raw = bytes | memoryview  # what LMDB's types say of keys and values; it is bytes
V = TypeVar("V")

META_KEY: Final = b"meta"
SETTINGS_KEY: Final = b"settings"


class Databases(NamedTuple):
    """The handles of the named databases; see `keys` for what stands in them."""

    meta: lmdb._Database
    topics: lmdb._Database
    jobs: lmdb._Database
    states: lmdb._Database
    queue: lmdb._Database
    agenda: lmdb._Database
    notes: lmdb._Database
    flow: lmdb._Database


class Access:
    """A transaction, and what is kept back until it ends.

    The meta record and the topics' counts change many times in one transaction and are written
    once, by `flush`.

    Attributes:
        dirty: Whether anything was written; a clean transaction needs no commit to disk.
    """

    __slots__ = ("_meta", "db", "dirty", "txn")

    def __init__(self, txn: lmdb.Transaction, db: Databases) -> None:
        self.txn = txn
        self.db = db
        self.dirty = False
        self._meta: Meta | None = None

    @property
    def meta(self) -> Meta:
        """The meta record as this transaction has it; who changes it sets `dirty`."""
        if self._meta is None:
            record = self.txn.get(META_KEY, db=self.db.meta)
            if record is None:
                raise StoreCorrupt("the meta record is missing: restore the queue from a backup")
            self._meta = decode_meta(META_KEY, bytes(record))
        return self._meta

    def add_total(self, status: Status, change: int) -> None:
        """Add to the store's number of jobs in *status*."""
        self.meta.totals[STATUS_CODE[status]] += change

    def total(self, status: Status) -> int:
        """The store's number of jobs in *status*."""
        return self.meta.totals[STATUS_CODE[status]]

    def flush(self) -> int:
        """Write the meta record under the number of a new commit, and give that number.

        Raises:
            StoreCorrupt: A count would be below nothing: some index does not match its jobs.
        """
        meta = self.meta
        if min(meta.totals) < 0:
            raise StoreCorrupt(
                f"the store would count {meta.totals} jobs; `jobq check` lists what is wrong"
            )
        meta.group += 1
        self.txn.put(META_KEY, encode_meta(META_KEY, meta), db=self.db.meta)
        return meta.group


def ascending(entries: Iterable[tuple[Raw, V]]) -> Iterator[tuple[Raw, V]]:
    """The entries of a walk over a database, as long as their keys ascend.

    In a damaged tree a walk may meet the same page again and never end.

    Raises:
        StoreCorrupt: A key does not follow the one before.
    """
    last = b""
    for entry in entries:
        key = bytes(entry[0])
        if key <= last:
            raise StoreCorrupt(f"the key {key.hex()} comes after {last.hex()}: the tree is damaged")
        last = key
        yield entry


def refuse_damaged_tree(
    access: Access, db: lmdb._Database, read: Callable[[bytes], object]
) -> None:
    """Dropping a tree, or records of it, gives pages away: it has to be sure that they are its own.

    *read* takes a key apart, and raises StoreCorrupt if it cannot be one of the tree's.

    Raises:
        StoreCorrupt: It is not.
    """
    entries = 0
    with access.txn.cursor(db) as cursor:
        for key, _ in ascending(cursor.iternext()):
            read(bytes(key))
            entries += 1
    if entries != access.txn.stat(db)["entries"]:
        raise StoreCorrupt("the tree of an index is damaged, so its pages cannot be used again")
