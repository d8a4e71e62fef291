"""One LMDB environment: what stores call, and the locks that are taken for it.

Locks are taken in this order: leadership in the process (`group`), the write lock between
processes (`filelock`), the gate round every LMDB call (`gate`). The file lock is waited for
without the gate, so reads and forks go on meanwhile. Under them `transactions` do the work, and
when they are given back, those are called who wait for what was committed.
"""

import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TypeVar

from jobq.errors import StoreUnavailable
from jobq.repo import forking
from jobq.repo.entry import Entry, Mark
from jobq.repo.lmdb import steps
from jobq.repo.lmdb.bell import COUNTERS, EVERYBODY, Bell
from jobq.repo.lmdb.faults import translated
from jobq.repo.lmdb.gate import Alive, Gate
from jobq.repo.lmdb.group import GroupCommit, Pending
from jobq.repo.lmdb.holders import Holders
from jobq.repo.lmdb.openfile import OpenFile
from jobq.repo.lmdb.opening import Settings
from jobq.repo.lmdb.topic_records import UNKNOWN
from jobq.repo.lmdb.transactions import Transactions
from jobq.repo.repositories import Transaction
from jobq.repo.surely import surely
from jobq.repo.watch import SLACK_NS, STORE

T = TypeVar("T")


class Environment:
    """The environment of one queue directory, shared by all its stores in this process.

    Raises:
        JobqError: It cannot be opened.
    """

    def __init__(self, path: Path, settings: Settings) -> None:
        self.path = path
        self.settings = settings
        self.users = 0
        self._entry = Entry()
        self._gate = Gate()
        self._group = GroupCommit(self._run)
        self._file = OpenFile(path, settings)
        self._transactions = Transactions(self._file)
        forking.watch(self)

    # What stores call.

    def write(self, pending: Pending) -> None:
        """Run an operation in a group and commit it; it is finished afterwards.

        Raises:
            JobqError: The environment cannot be written.
            BaseException: An interrupt; see `GroupCommit.submit`.
        """
        mark = Mark()
        self._entry.enter(mark)
        try:
            pending.alive = self._alive()
            self._group.submit(pending)
        finally:
            self._entry.mark = None

    def read(self, operation: Callable[[Transaction], T]) -> T:
        """Run an operation in a read transaction."""
        return self._gated(lambda: self._transactions.read(operation))

    def _gated(self, call: Callable[[], T]) -> T:
        mark = Mark()
        self._entry.enter(mark)
        try:
            try:
                self._gate.acquire(self._alive())
                return call()
            finally:
                self._gate.release_if_mine()
        finally:
            self._entry.mark = None

    def _alive(self) -> Alive:
        return self._entry.mark or object

    @property
    def broken(self) -> bool:
        """Whether its files were found removed or replaced, and it has been closed for that."""
        return self._file.broken

    @property
    def holders(self) -> Holders:
        """The holders of the directory."""
        return self._file.holders

    @property
    def bell(self) -> Bell:
        """The bell of the directory."""
        return self._file.bell

    @property
    def shares_counters(self) -> bool:
        """Whether there are so many topics that some have to share what the bell has for each."""
        return self._transactions.topics >= COUNTERS

    def facts(self) -> dict[str, int | str]:
        """What there is to say about the file."""
        return self._gated(self._file.facts)

    def close(self) -> None:
        """Close the file, and be dead as a holder. Waits for the calls of other threads."""
        self._gated(self._file.close)

    # Forks: hold still with the gate, so that no other thread is inside LMDB.

    def before_fork(self) -> None:
        if not self._entry.inside:  # a fork from a signal handler inside a call: nothing helps
            self._gate.acquire()

    def after_fork_in_parent(self) -> None:
        self._gate.release_if_mine()

    def after_fork_in_child(self) -> None:
        self._gate = Gate()
        self._group.drop_all()
        self._file.let_go_in_child()
        self._transactions.index = None

    # Writing.

    def _run(self, take: Callable[[], list[Pending]], since: float) -> None:
        """Lead: get the locks, then commit whatever waits by then."""
        file, transactions = self._file, self._transactions
        if file.env is None:
            try:
                self._gate.acquire(self._alive())
                file.open()
            finally:
                self._gate.release_if_mine()
        lock = file.lock
        if lock is None:
            raise StoreUnavailable(f"the store of {self.path} is closed: open another")
        rings: list[Transaction] = []
        slots: list[int] = []
        bell: Bell | None = None
        try:
            try:
                # From when the leader came: who waited behind another leader does not start anew.
                lock.acquire(self.settings.lock_timeout + since - time.monotonic())
            except OSError as error:
                raise translated(error, self.path) from error
            steps.reached("file lock taken")
            try:
                self._gate.acquire(self._alive())
                file.open()
                file.check_identity()
                file.check_readers()
                bell = file.bell  # made now, if it is not there: after the commit nothing may fail
                lock.bell = bell
                try:
                    transactions.run_group(take(), rings)
                finally:  # an interrupt may come after the commit, and anywhere in this
                    surely(partial(_raise_counters, bell, rings, slots))
                steps.reached("counters raised")
            finally:
                self._gate.release_if_mine()
        finally:
            surely(lock.release)
            if bell is not None:  # without it nothing was committed
                surely(partial(_ring, bell, rings, slots, transactions.topics))


def _raise_counters(bell: Bell, rings: list[Transaction], slots: list[int]) -> None:
    """Note for who waits what was committed; *slots* gets those of ends that are waited for."""
    for tx in rings:
        for topic in {*tx.woken, *tx.gone, *(tx.soon if bell.has_loners() else ())}:
            bell.raise_counter(topic)
        if tx.ended:
            bell.note_ends(tx.ended, slots)


def _ring(bell: Bell, rings: list[Transaction], slots: list[int], topics: int) -> None:
    """Wake who waits for what was committed; there are numbers of so many topics."""
    steps.reached("file lock given back")
    for tx in rings:
        if tx.soon:
            if not bell.is_watched(STORE, _by_ns(tx)):
                bell.relieve(STORE)
            if bell.has_loners():
                for topic in tx.soon:
                    bell.wake(topic)
        for topic in tx.gone:
            bell.wake(topic)
        for topic, jobs in tx.woken.items():
            # Who waits for a topic that is not there yet, or shares a counter, may wait for
            # another one than is woken for: then everybody has to look.
            shared = topic == UNKNOWN or topics >= COUNTERS
            bell.wake(topic, EVERYBODY if shared else jobs)
    if any(tx.soon or tx.gone or tx.woken for tx in rings):
        bell.wake_several()
    for slot in slots:
        bell.wake_slot(slot)
    steps.reached("waiters woken")


def _by_ns(tx: Transaction) -> int:
    """When somebody has to look at the latest for what falls due shortly."""
    return time.monotonic_ns() + 1000 * min(tx.soon.values()) + SLACK_NS
