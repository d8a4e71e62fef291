"""The memory store: one lock, one undo list, and lines of those who wait."""

import math
import threading
from collections.abc import Callable, Collection
from typing import Final, TypeVar

from jobq.clock import Clock, SystemClock, check_clock
from jobq.errors import StoreUnavailable
from jobq.repo import forking, watch
from jobq.repo.base import Capabilities, Retention
from jobq.repo.entry import Entry, Mark
from jobq.repo.memory.flow import MemoryFlow
from jobq.repo.memory.jobs import MemoryJobs
from jobq.repo.memory.topics import MemoryTopics
from jobq.repo.memory.undo import Undo
from jobq.repo.memory.waiters import UNKNOWN, Waiters
from jobq.repo.operations.flow import limits
from jobq.repo.operations.flow.shares import ready_in
from jobq.repo.operations.soon import seconds_to_next
from jobq.repo.repositories import Transaction
from jobq.repo.transactional import Kind, TransactionalStore
from jobq.repo.watch import STORE, Watch
from jobq.shares import Mix

T = TypeVar("T")

HOLDER: Final = b"\xffmemory\xff"
"""Everybody who reserves here lives and dies with the store."""

SLOTS: Final = 1024
"""Counters for the ends of jobs that are waited for; jobs share them by their ids."""


class MemoryStore(TransactionalStore):
    """Jobs in this process's memory, with the same promises as any store, save durability.

    Args:
        clock: What tells the time; the system's by default.
        retention: How long finished jobs are kept.

    A fork's child has a copy of its own, which the parent does not see.
    """

    capabilities: Capabilities = Capabilities(durable=False, shared=False)

    def __init__(self, *, clock: Clock | None = None, retention: Retention | None = None) -> None:
        super().__init__(Retention() if retention is None else retention)
        self._clock = SystemClock() if clock is None else clock
        check_clock(self._clock)
        self._undo = Undo()
        self._jobs = MemoryJobs(self._clock, self._undo)
        self._topics = MemoryTopics(self._clock, self._undo)
        self._flow = MemoryFlow(self._undo)
        self._entry = Entry()
        self._lock = threading.Lock()
        self._waiters = Waiters(self._lock)
        self._ended = threading.Condition(self._lock)
        self._ends = [0] * SLOTS
        self._asked: set[int] = set()  # the slots of which somebody waits for the next end
        self._closed = False
        forking.watch(self)

    def _write(
        self,
        operation: Callable[[Transaction], T],
        kind: Kind,
        undo: Callable[[T], None] | None = None,
    ) -> T:
        outcomes: list[T] = []
        try:
            self._commit(operation, kind, outcomes)
            return outcomes[0]
        except BaseException:
            # An interrupt, after the commit or hardly before it: then there is nothing to undo, and
            # *undo* finds that out, as whoever holds nothing does.
            if outcomes and undo is not None:
                undo(outcomes[0])
            raise

    def _commit(self, operation: Callable[[Transaction], T], kind: Kind, outcomes: list[T]) -> None:
        """Run the operation; its outcome is in *outcomes* before it takes effect."""
        mark = Mark()
        self._entry.enter(mark)
        try:
            with self._lock:
                try:
                    tx = self._transaction()
                    if kind.moves_time:
                        self._move_time(tx)
                    outcomes.append(self._whole(operation)(tx))
                    self._undo.forget()  # the commit: an interrupt before it takes all back
                except BaseException:
                    self._undo.roll_back()
                    raise
                self._waiters.call(tx)
                if self._asked and self._note_ends(tx.ended):
                    self._ended.notify_all()
        finally:
            self._entry.mark = None

    def _read(self, operation: Callable[[Transaction], T]) -> T:
        mark = Mark()
        self._entry.enter(mark)
        try:
            with self._lock:
                return operation(self._transaction())
        finally:
            self._entry.mark = None

    def _transaction(self) -> Transaction:
        if self._closed:
            raise StoreUnavailable("this store is closed: open another")
        wall_us, boot_us = self._clock.wall_us(), self._clock.boot_us()
        return Transaction(
            self._jobs, self._topics, self._flow, wall_us, boot_us,
            lambda: HOLDER, self._holder_name,
        )  # fmt: skip

    def _holder_name(self, holder: bytes) -> str:
        return "this process"

    def _facts(self) -> dict[str, int | str]:
        return {"kind": "memory"}

    def wait(self, topic: str | Mix, timeout: float) -> None:
        mark = Mark()
        self._entry.enter(mark)
        try:
            with self._lock:
                self._wait(*self._look(self._transaction(), topic), timeout)
        finally:
            self._entry.mark = None

    def _look(self, tx: Transaction, topic: str | Mix) -> tuple[Collection[int], float, float]:
        """The numbers of the topics, and in how many seconds one has to look who waits for them.

        For what falls due in the store, and for what is ready and may be handed out later.
        """
        due = seconds_to_next(tx)
        if isinstance(topic, Mix):
            choice = self._choices.of(tx, topic)
            topics = set(choice) if choice.is_whole(tx) else {UNKNOWN, *choice}
            return topics, due, ready_in(tx, choice)
        number = tx.topics.known(topic)
        if number is None:
            return (UNKNOWN,), due, math.inf
        return (number,), due, limits.ready_in(tx, number)

    def _wait(self, topics: Collection[int], due: float, ready: float, timeout: float) -> None:
        """With the lock: what is committed meanwhile calls."""
        waiters = self._waiters
        mine, waiter = Watch(waiters, topics, has_desk=len(topics) == 1), waiters.waiter(topics)
        try:
            waiters.enter(waiter)
            if min(due, ready) > 0:
                waiters.sleep(waiter, mine.begin(due, ready, timeout))
            waiters.leave(waiter)
            self._owed.topics = [one for one in waiter.called if one]
            self._owed.left = mine.end(called=STORE in waiter.called)
        except BaseException:
            waiters.leave(waiter)
            mine.give_up()
            for one in waiter.called:
                waiters.relieve(one)
            raise

    def wait_ended(self, seen: dict[bytes, int | None], timeout: float) -> list[bytes]:
        if self._read(seconds_to_next) <= 0:
            self.advance()
        mark = Mark()
        self._entry.enter(mark)
        try:
            with self._ended:
                tx = self._transaction()
                called = self._called(seen)
                if not called:
                    sleep = min(timeout, watch.LONGEST_SLEEP, max(0.0, seconds_to_next(tx)))
                    self._ended.wait(sleep)
                    called = self._called(seen)
                return called
        finally:
            self._entry.mark = None

    # Ends, as `repo.lmdb.bell` has them; under the lock.

    def _called(self, seen: dict[bytes, int | None]) -> list[bytes]:
        """The jobs that have to be looked at; asks for a call for those that are new."""
        called = []
        for job_id, count in seen.copy().items():  # others may add to it
            slot = _slot(job_id)
            if count is None:
                seen[job_id] = self._ends[slot]
                self._asked.add(slot)
                called.append(job_id)
            elif count != self._ends[slot]:
                seen[job_id] = None
                called.append(job_id)
        return called

    def _note_ends(self, job_ids: list[bytes]) -> bool:
        """Note that jobs have ended; whether somebody waits for one of them."""
        slots = self._asked.intersection(map(_slot, job_ids))
        for slot in slots:
            self._ends[slot] += 1
        self._asked -= slots
        return bool(slots)

    def wake(self) -> None:
        # Called from signal handlers too, which may have interrupted this very thread with the
        # lock: then its waiters look again within a second anyway.
        if not self._entry.inside:
            with self._lock:
                self._notify_everybody()

    def _notify_everybody(self) -> None:
        self._waiters.wake_all()
        self._ended.notify_all()

    def close(self) -> None:
        mark = Mark()
        self._entry.enter(mark)
        try:
            with self._lock:
                self._closed = True
                self._notify_everybody()
        finally:
            self._entry.mark = None

    # Forks: hold still, so that the child's copy is whole; it has no waiters.

    def before_fork(self) -> None:
        if not self._entry.inside:
            self._lock.acquire()

    def after_fork_in_parent(self) -> None:
        if not self._entry.inside:
            self._lock.release()

    def after_fork_in_child(self) -> None:
        self._lock = threading.Lock()
        self._waiters = Waiters(self._lock)
        self._ended = threading.Condition(self._lock)


def _slot(job_id: bytes) -> int:
    return int.from_bytes(job_id[-4:]) % SLOTS  # neighbours in the order of enqueueing differ
