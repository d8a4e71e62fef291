"""Transactions: the only place where those of operations begin and end.

A write transaction begins, works and ends in one function on one thread; no transaction, cursor or
view of memory leaves this module's calls, and no user code runs inside. They are called with the
locks that `environment` has taken.
"""

import contextlib
from collections.abc import Callable
from functools import partial
from typing import Any, Final, TypeVar

import lmdb

from jobq.errors import JobqError
from jobq.repo.lmdb import steps
from jobq.repo.lmdb.access import Access, Kept
from jobq.repo.lmdb.faults import translated
from jobq.repo.lmdb.flow import LmdbFlow
from jobq.repo.lmdb.group import Pending
from jobq.repo.lmdb.jobs import LmdbJobs
from jobq.repo.lmdb.openfile import OpenFile
from jobq.repo.lmdb.opening import open_databases
from jobq.repo.lmdb.outcome import find_out
from jobq.repo.lmdb.slices import Slices
from jobq.repo.lmdb.topic_records import TopicRecords
from jobq.repo.lmdb.topics import LmdbTopics
from jobq.repo.repositories import Transaction

T = TypeVar("T")

TRIES: Final = 4

ENGINE_ERRORS: Final = (lmdb.Error, OSError, JobqError, SystemError)
"""What operations fail with; all else is a fault of ours, or was raised by a signal handler."""


class Transactions:
    """The transactions of one environment.

    Attributes:
        index: What keeps queues and agendas, if they are not in the file.
        topics: How many numbers of topics had been given at this process's last commit.
    """

    def __init__(self, file: OpenFile) -> None:
        index = file.settings.index
        self.index = None if index is None else index(file.path)
        self.topics = 0
        self._file = file
        self._slices = Slices()
        self._kept: Kept | None = None

    def read(self, operation: Callable[[Transaction], T]) -> T:
        """Run an operation in a read transaction."""
        for left in reversed(range(TRIES)):
            try:
                txn = self._file.open().begin()
                try:
                    return operation(self._transaction(txn)[0])
                finally:
                    txn.abort()
            except lmdb.Error as error:
                if not left or not self._file.mend(error):
                    raise self._file.as_ours(error) from error
            except OSError as error:
                raise translated(error, self._file.path) from error
        raise AssertionError("unreachable")

    def run_group(self, group: list[Pending], rings: list[Transaction]) -> None:
        """Run operations in one commit, or each in its own if one fails, and finish them all.

        *rings* gets the transactions that were committed: who waits for them has to be called.

        Raises:
            BaseException: An interrupt of the leader. What is not finished was not done.
        """
        try:
            self._commit(group, rings)
        except Exception as error:
            if all(pending.finished for pending in group):
                raise  # an interrupt of the leader, after the commit
            if len(group) == 1 and not self._worth_another_try(error, group[0], rings):
                return
            # Each alone: what one of them met must not touch the others.
            for pending in group:
                self._run_alone(pending, rings)
            if not isinstance(error, ENGINE_ERRORS) and not any(
                type(pending.error) is type(error) for pending in group
            ):
                raise  # no fault of an operation: an interrupt of the leader, before the commit

    def _run_alone(self, pending: Pending, rings: list[Transaction]) -> None:
        for left in reversed(range(TRIES)):
            try:
                self._commit([pending], rings)
                return
            except Exception as error:  # noqa: BLE001 - it becomes the operation's outcome
                if not left:
                    pending.finish(None, self._file.as_ours(error))
                elif not self._worth_another_try(error, pending, rings):
                    return

    def _worth_another_try(
        self, error: Exception, pending: Pending, rings: list[Transaction]
    ) -> bool:
        """Whether what stopped an operation is mended; if not, it is finished with the error."""
        if isinstance(error, lmdb.MapFullError):
            if self._file.grow(pending.kind.adds):
                return True
            pending.finish(None, self._file.room.full(error))
            return False
        if self._file.room.is_full_disk(error):
            if pending.kind.adds:
                pending.finish(None, self._file.room.full(error))
                return False
            self._file.room.give_up_ballast()
            with contextlib.suppress(*ENGINE_ERRORS):  # the next try will meet it, too
                self._commit([], rings)
            return True
        if isinstance(error, lmdb.Error) and self._file.mend(error):
            return True
        pending.finish(None, self._file.as_ours(error))
        return False

    def _commit(self, group: list[Pending], rings: list[Transaction]) -> None:
        """Run the operations in one transaction, commit it, and finish them.

        Without any, it commits the meta record alone: pages that a commit has freed can be taken
        after the next one, so that sets those of the last one free.

        Raises:
            Exception: Nothing was written, none is finished.
            BaseException: An interrupt: either nothing was written and none is finished, or all.
        """
        txn: lmdb.Transaction | None = None
        tx: Transaction | None = None
        number = 0
        outcomes: list[Any] = []
        try:
            if self._file.bell.doubt:
                self._file.settle(self._file.open())
            txn = self._begin()
            steps.reached("transaction begun")
            remembered, self._kept = self._kept, None
            tx, access, topics = self._transaction(txn, remembered)
            tx.is_short = partial(self._file.room.is_short, self._file.open(), txn, access.db)
            alone = access.kept is remembered
            work = partial(self._work, txn, tx, access, topics, group, outcomes, alone=alone)
            number = self._slices.run(work)
            txn.commit()  # also when there is nothing to do: aborting can be starved
            steps.reached("committed")
            self._file.db = access.db
            if number:
                self.topics = access.meta.topics
            if self.index is not None:
                self.index.committed(access.meta.group)
            self._kept = access.kept
            self._kept.trim()
            _finish(group, outcomes)
        except BaseException as error:
            # At once: an exception that is kept keeps this frame, and a transaction in it would
            # keep the write lock.
            if txn is not None:
                with contextlib.suppress(lmdb.Error):
                    txn.abort()
            if not number or isinstance(error, lmdb.MapFullError):
                raise
            committed = find_out(self._file, number, error, group, outcomes)
            if committed is False:
                raise
            if committed and tx is not None:
                _finish(group, outcomes)
                rings.append(tx)
            if not isinstance(error, lmdb.Error):
                raise  # an interrupt
            return
        rings.append(tx)

    def _work(
        self,
        txn: lmdb.Transaction,
        tx: Transaction,
        access: Access,
        topics: TopicRecords,
        group: list[Pending],
        outcomes: list[Any],
        *,
        alone: bool,
    ) -> int:
        """Run the operations; gives the number of the commit to come, 0 if none is needed."""
        size, mover = 0, None
        for pending in group:
            size += pending.kind.adds
            if pending.kind.moves_time:
                mover = pending
        if mover is not None:
            mover.moves_time(tx)
            steps.reached("time moved")
        if size:
            self._file.room.refuse_if_full(self._file.open(), txn, access.db, size, alone=alone)
        if len(group) == 1:
            outcomes.append(group[0].operation(tx))
        else:
            outcomes += _run_all(tx, group)
        steps.reached("operation run")
        if group and not access.dirty:
            return 0
        topics.flush()
        tx.flow.flush()
        number = access.flush()
        steps.reached("counts written")
        return number

    def _begin(self) -> lmdb.Transaction:
        for left in reversed(range(TRIES)):
            try:
                return self._file.open().begin(write=True)
            except lmdb.Error as error:
                if not left or not self._file.mend(error):
                    raise
        raise AssertionError("unreachable")

    def _transaction(
        self, txn: lmdb.Transaction, remembered: Kept | None = None
    ) -> tuple[Transaction, Access, TopicRecords]:
        # Before the first write of this process, each transaction opens handles of its own: only
        # a write can open lasting ones, and reading must not wait for the write lock.
        db = self._file.db or open_databases(self._file.open(), txn)
        clock = self._file.settings.clock
        wall_us = clock.wall_us()
        access = Access(txn, db, remembered)
        woken: dict[int, int] = {}
        index = self.index
        topics = (LmdbTopics if index is None else index.topics)(access, woken, wall_us)
        tx = Transaction(
            LmdbJobs(access, wall_us),
            topics,
            LmdbFlow(access),
            wall_us,
            clock.boot_us(),
            self._file.holders.get,
            self._file.holders.name,
        )
        tx.woken = woken
        if index is not None:
            index.begin(tx, access)
        return tx, access, topics


def _run_all(tx: Transaction, group: list[Pending]) -> list[Any]:
    """Run operations one after the other, and those that only add plain jobs all at once."""
    plain = [pending for pending in group if pending.kind.plain is not None]
    if len(plain) < 2:
        return [pending.operation(tx) for pending in group]
    others = {id(one): one.operation(tx) for one in group if one.kind.plain is None}
    added = plain[0].together(tx, [pending.kind.plain for pending in plain])
    others.update({id(one): ids for one, ids in zip(plain, added, strict=True)})
    return [others[id(pending)] for pending in group]


def _finish(group: list[Pending], outcomes: list[Any]) -> None:
    for pending, outcome in zip(group, outcomes, strict=True):
        pending.finish(outcome)
