"""Queues and agendas that are kept outside of the file, and what the file says of them.

They are an index over the jobs, and can be made anew from them at any time (`rebuild`). So they may
be kept elsewhere than in the file, as long as one process alone has the queue open, and as long as
the file says so: what it had of them is cleared, and the file marked, by the first commit that does
not keep them there. Whoever keeps them in the file again has to rebuild them first.
"""

import logging
from abc import ABC, abstractmethod
from pathlib import Path
from typing import ClassVar, Final

from jobq.repo.lmdb.access import Access
from jobq.repo.lmdb.records import decode_note, encode_note
from jobq.repo.lmdb.topic_records import TopicRecords
from jobq.repo.operations.rebuild import Rebuilt
from jobq.repo.repositories import Transaction

ELSEWHERE_KEY: Final = b"topics elsewhere"
"""The mark, in the meta database; no record means that the index is in the file."""

_log = logging.getLogger("jobq")


class Index(ABC):
    """Queues and agendas of one environment, kept outside of its file.

    Args:
        path: The directory of the queue, for messages.

    It lives from transaction to transaction, and is called under the gate only. A transaction may
    end without a word, by an interrupt or a failed commit. So an index remembers of which commit it
    is, by number, and compares that with the file at the head of each transaction.
    """

    kind: ClassVar[str]
    """What `stats` calls it."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @abstractmethod
    def topics(self, access: Access, woken: dict[int, int], wall_us: int) -> TopicRecords:
        """The topics for a transaction. Their `flush` has to `mark` the file."""

    @abstractmethod
    def begin(self, tx: Transaction, access: Access) -> None:
        """The transaction with these begins: become the index of the commit that it finds."""

    @abstractmethod
    def committed(self, group: int) -> None:
        """The transaction has ended with commit *group*: what it did to the index stands."""


def is_elsewhere(access: Access) -> bool:
    """Whether the index is kept outside of the file.

    Raises:
        StoreCorrupt: The record that says so is damaged.
    """
    record = access.txn.get(ELSEWHERE_KEY, db=access.db.meta)
    if record is None:
        return False
    decode_note(ELSEWHERE_KEY, bytes(record))
    return True


def mark(access: Access, kind: str) -> None:
    """Say that the index is kept outside of the file from this commit on."""
    record = encode_note(ELSEWHERE_KEY, kind.encode())
    access.txn.put(ELSEWHERE_KEY, record, db=access.db.meta)
    access.dirty = True


def unmark(access: Access) -> None:
    """Say that it is in the file from this commit on."""
    access.txn.delete(ELSEWHERE_KEY, db=access.db.meta)
    access.dirty = True


def warn_of_left_out(path: Path, done: Rebuilt) -> None:
    """Say in the log that there are jobs which nobody will be served."""
    if done.left_out:
        _log.warning(
            "the topics of %s were rebuilt from %d jobs; %d more cannot be read and stand in none: "
            "`jobq check` lists them",
            path, done.placed, done.left_out,
        )  # fmt: skip
