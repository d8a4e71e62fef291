"""One LMDB transaction as the repositories see it: databases, the meta record, what is dirty."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final, NamedTuple, TypeVar

import lmdb

from jobq.errors import StoreCorrupt
from jobq.repo.flow import Lane
from jobq.repo.lmdb.records import STATUS_CODE, Meta, Topic, decode_meta, encode_meta
from jobq.states import Status
from jobq.topic import TopicSettings

Raw = bytes | memoryview  # what LMDB's types say of keys and values; it is bytes
V = TypeVar("V")

META_KEY: Final = b"meta"
SETTINGS_KEY: Final = b"settings"

LONGEST_KEY: Final = 511
"""Bytes: LMDB takes no longer one."""


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


MOST_KEPT: Final = 1024
"""Topics of which a process remembers what it has read."""

MOST_LANES: Final = 16_384
"""Lanes of groups that it remembers; each takes some 300 bytes."""


class Kept:
    """What a process remembers of the file from its last commit to its next one.

    Every commit changes the meta record, and numbers itself in it. So as long as that record is
    the one that a process has written itself, nobody else has committed, and all that it knew of
    the file still holds: it need not be read, verified and taken apart again.

    A transaction takes it and changes it as it goes; only after its commit is it put back. What
    becomes of the transaction otherwise, it is lost, and made anew.

    Attributes:
        record: The meta record; empty if nothing is known.
        meta: What it says.
        topics, settings, numbers: Of some topics, what was read; by number, and by name.
        lanes: Lanes, as they are in the file; by number.
        bounds: For some agendas, a time before which nothing is due; there may be nothing then.
    """

    __slots__ = ("bounds", "lanes", "meta", "numbers", "record", "settings", "topics")

    def __init__(self, record: bytes, meta: Meta) -> None:
        self.record = record
        self.meta = meta
        self.topics: dict[int, Topic] = {}
        self.settings: dict[int, TopicSettings] = {}
        self.numbers: dict[str, int] = {}
        self.lanes: dict[int, Lane] = {}
        self.bounds: dict[int, int] = {}

    def trim(self) -> None:
        """Forget the topics if they are many, and the lanes."""
        if len(self.topics) > MOST_KEPT or len(self.numbers) > MOST_KEPT:
            self.topics, self.settings, self.numbers = {}, {}, {}
        if len(self.lanes) > MOST_LANES:
            self.lanes = {}


class Access:
    """A transaction, and what is kept back until it ends.

    The meta record and the topics' counts change many times in one transaction and are written
    once, by `flush`.

    Args:
        remembered: What is known from the last commit; None reads everything anew.

    Attributes:
        kept: What is known in this transaction.
        meta: The meta record as this transaction has it; who changes it sets `dirty`.
        dirty: Whether anything was written; a clean transaction needs no commit to disk.
    """

    __slots__ = ("db", "dirty", "kept", "meta", "txn")

    kept: Kept
    meta: Meta

    def __init__(
        self, txn: lmdb.Transaction, db: Databases, remembered: Kept | None = None
    ) -> None:
        self.txn = txn
        self.db = db
        self.dirty = False
        if remembered is not None and txn.get(META_KEY, db=db.meta) == remembered.record:
            self.kept = remembered
            self.meta = remembered.meta

    def __getattr__(self, name: str) -> Any:
        # At the first look at `kept` or `meta`: many reads need neither.
        if name not in {"kept", "meta"}:
            raise AttributeError(name)
        data = self.txn.get(META_KEY, db=self.db.meta)
        if data is None:
            raise StoreCorrupt(
                "the meta record is missing: the file is damaged; restore it from a backup"
            )
        record = bytes(data)
        self.meta = decode_meta(META_KEY, record)
        self.kept = Kept(record, self.meta)
        return self.meta if name == "meta" else self.kept

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
        if min(*meta.totals, meta.size, *meta.watched) < 0:
            raise StoreCorrupt(
                f"the store would count {meta.totals} jobs, {meta.size} bytes that wait, "
                f"{meta.watched} watched; `jobq check` lists what is wrong"
            )
        meta.group += 1
        self.kept.record = record = encode_meta(META_KEY, meta)
        self.txn.put(META_KEY, record, db=self.db.meta)
        return meta.group


def ascending(entries: Iterable[tuple[Raw, V]]) -> Iterator[tuple[Raw, V]]:
    """The entries of a walk over a database, as long as their keys ascend.

    In a damaged tree a walk may meet the same page again and never end, and a key may be whatever
    stands behind the page.

    Raises:
        StoreCorrupt: A key does not follow the one before, or can be none of LMDB's.
    """
    last = b""
    for entry in entries:
        if len(entry[0]) > LONGEST_KEY:
            raise StoreCorrupt(f"a key has {len(entry[0])} bytes: the tree is damaged")
        key = bytes(entry[0])
        if key <= last:
            raise StoreCorrupt(f"the key {key.hex()} comes after {last.hex()}: the tree is damaged")
        last = key
        yield entry


def walked(access: Access, db: lmdb._Database) -> Iterator[bytes]:
    """All keys of a database, as long as its tree is whole.

    Values are not looked at: one whose length is damaged may end beyond the file, and with that the
    process.

    Raises:
        StoreCorrupt: It is not, which may be known only at its end.
    """
    entries = 0
    with access.txn.cursor(db) as cursor:
        for key, _ in ascending((key, None) for key in cursor.iternext(values=False)):
            yield bytes(key)
            entries += 1
    said = access.txn.stat(db)["entries"]
    if entries != said:
        raise StoreCorrupt(f"of {said} records only {entries} can be come by: a tree is damaged")


def refuse_damaged_tree(
    access: Access, db: lmdb._Database, read: Callable[[bytes], object]
) -> None:
    """Dropping a tree, or records of it, gives pages away: it has to be sure that they are its own.

    *read* takes a key apart, and raises StoreCorrupt if it cannot be one of the tree's.

    Raises:
        StoreCorrupt: It is not.
    """
    for key in walked(access, db):
        read(key)
