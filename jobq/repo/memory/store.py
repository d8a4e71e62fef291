"""The memory store: one lock, one undo list, and a condition to wait at."""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, TypeVar

from jobq.clock import Clock, SystemClock, check_clock
from jobq.errors import StoreUnavailable
from jobq.repo import forking
from jobq.repo.base import Capabilities, Retention
from jobq.repo.entry import Entry, Mark
from jobq.repo.memory.flow import MemoryFlow
from jobq.repo.memory.jobs import MemoryJobs
from jobq.repo.memory.topics import MemoryTopics
from jobq.repo.memory.undo import Undo
from jobq.repo.operations.flow import limits
from jobq.repo.operations.flow.shares import ready_in
from jobq.repo.repositories import Transaction
from jobq.repo.transactional import Kind, TransactionalStore, seconds_to_next
from jobq.shares import Mix

T = TypeVar("T")

HOLDER: Final = b"\xffmemory\xff"
"""Everybody who reserves here lives and dies with the store."""

LONGEST_SLEEP: Final = 1.0
"""Seconds: a waiter looks at the clock this often, so a stepped wall clock is noticed."""

SLOTS: Final = 1024
"""Counters for the ends of jobs that are waited for; jobs share them by their ids."""


@dataclass(slots=True)
class Several:
    """Who waits for jobs of several topics; under the lock.

    Attributes:
        topics: Their numbers.
        stamp: That of the topics when they were chosen.
        called: One of them was changed since, or one was made.
    """

    topics: set[int]
    stamp: int
    called: bool = False


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
        self._changed = threading.Condition(self._lock)
        self._ended = threading.Condition(self._lock)
        self._several: dict[int, Several] = {}
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
            with self._changed:
                try:
                    tx = self._transaction()
                    if kind.moves_time:
                        self._move_time(tx)
                    outcomes.append(self._whole(operation)(tx))
                    self._undo.forget()  # the commit: an interrupt before it takes all back
                except BaseException:
                    self._undo.roll_back()
                    raise
                if tx.woken or tx.soon:
                    if self._several:
                        self._call_several(tx)
                    self._changed.notify_all()
                if self._asked and self._note_ends(tx.ended):
                    self._ended.notify_all()
        finally:
            self._entry.mark = None

    def _read(self, operation: Callable[[Transaction], T]) -> T:
        mark = Mark()
        self._entry.enter(mark)
        try:
            with self._changed:
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
        if isinstance(topic, Mix):
            self._wait_for_several(topic, timeout)
            return
        mark = Mark()
        self._entry.enter(mark)
        try:
            with self._changed:
                tx = self._transaction()
                number = tx.topics.known(topic)
                sleep = min(timeout, LONGEST_SLEEP, seconds_to_next(tx))
                if number is not None:
                    sleep = min(sleep, limits.ready_in(tx, number))
                if sleep > 0:
                    self._changed.wait(sleep)
        finally:
            self._entry.mark = None

    def _wait_for_several(self, mix: Mix, timeout: float) -> None:
        mark = Mark()
        self._entry.enter(mark)
        try:
            with self._changed:
                tx = self._transaction()
                choice = self._choices.of(tx, mix)
                next_s = min(LONGEST_SLEEP, seconds_to_next(tx))
                sleep = min(timeout, next_s, ready_in(tx, choice))
                if sleep <= 0:
                    return
                one = Several(set(choice), choice.stamp)
                self._several[id(one)] = one
                try:
                    end = time.monotonic() + sleep
                    while not one.called and (left := end - time.monotonic()) > 0:
                        self._changed.wait(left)
                finally:
                    self._several.pop(id(one), None)
        finally:
            self._entry.mark = None

    def _call_several(self, tx: Transaction) -> None:
        """Call who waits for several topics if one of theirs was changed, or one was made."""
        changed, stamp = tx.woken.keys() | tx.soon, tx.topics.stamp()
        for one in self._several.values():
            if one.stamp != stamp or not one.topics.isdisjoint(changed):
                one.called = True

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
                    self._ended.wait(min(timeout, LONGEST_SLEEP, max(0.0, seconds_to_next(tx))))
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
        # lock: then its waiters look again within LONGEST_SLEEP anyway.
        if not self._entry.inside:
            with self._changed:
                self._notify_everybody()

    def _notify_everybody(self) -> None:
        for one in self._several.values():
            one.called = True
        self._changed.notify_all()
        self._ended.notify_all()

    def close(self) -> None:
        mark = Mark()
        self._entry.enter(mark)
        try:
            with self._changed:
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
        self._changed = threading.Condition(self._lock)
        self._ended = threading.Condition(self._lock)
        self._several = {}


def _slot(job_id: bytes) -> int:
    return int.from_bytes(job_id[-4:]) % SLOTS  # neighbours in the order of enqueueing differ
