"""The LMDB store: durable, for all processes of one machine."""

import contextlib
import os
import threading
import time
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import ClassVar, Final, TypeVar

import lmdb

from jobq.clock import Clock, SystemClock, check_clock
from jobq.errors import StoreBusy, StoreCorrupt, StoreUnavailable
from jobq.job import Reservation, Settlement
from jobq.options import check_path, flag, integer, one_of, seconds
from jobq.repo.base import (
    Advanced,
    Capabilities,
    Copied,
    CopyProgress,
    ReserveRequest,
    Retention,
    Settled,
)
from jobq.repo.entry import Mark
from jobq.repo.lmdb.bell import ANY, Bell, slot_of
from jobq.repo.lmdb.environment import Environment
from jobq.repo.lmdb.faults import translating
from jobq.repo.lmdb.futex import Word
from jobq.repo.lmdb.group import Pending
from jobq.repo.lmdb.index import Index
from jobq.repo.lmdb.opening import LEVELS, MAP_SIZE, Settings
from jobq.repo.lmdb.registry import REGISTRY
from jobq.repo.lmdb.search import FEW, STEP, Search
from jobq.repo.lmdb.topic_records import UNKNOWN
from jobq.repo.operations.flow import groups, limits
from jobq.repo.operations.flow.shares import ready_in, with_ready
from jobq.repo.repositories import Transaction
from jobq.repo.transactional import TIMELESS, Kind, TransactionalStore, seconds_to_next
from jobq.shares import Mix

T = TypeVar("T")

PROBE_S: Final = 1.0
"""Seconds between two looks for dead processes, while any process waits."""

LONGEST_SLEEP: Final = 1.0
"""Seconds: a waiter looks at clocks and processes this often."""

RECOVERY_STEP: Final = 512
"""Jobs of dead processes that are made ready in one commit: each gets a line of history, and all
together some 20 ms."""

MOST_SIZE: Final = 2**46
"""Bytes of address space that processes can have."""

_SYSTEM_CLOCK: Final = SystemClock()


class LmdbStore(TransactionalStore):
    """Jobs in a directory.

    Args:
        path: The directory; made if it does not exist, unless *create* is false.
        durability: `full`: what a call acknowledged survives power loss. `relaxed`: the last
            commit may be lost by power loss, the file stays intact. `unsafe`: survives the death
            of the process, but after a power cut the file may be unreadable.
        clock: What tells the time; the system's by default.
        retention: How long finished jobs are kept where they do not say so themselves.
        max_size: The most bytes that the data file may grow to by new jobs; beyond it they are
            refused. To work jobs off may take some 64 pages more.
        map_size: The address space to start with, in bytes; halved where there is less.
        lock_timeout: Seconds to wait for the write lock of another process.
        create: Whether a queue is made where there is none.
        fuse: Whether FUSE file systems are allowed; they may or may not do what locks need.

    Raises:
        InvalidValue: An argument is wrong, or the path cannot hold a queue.
        StoreUnavailable: The path cannot be read or written.
        StoreCorrupt: What is there is damaged or of another format.
        StoreFull: There is no room for a new queue.
        StoreLocked: A process has the queue open with its topics in memory.
    """

    capabilities: Capabilities = Capabilities(durable=True, shared=True)
    _damage = (StoreCorrupt, lmdb.Error)
    _index: ClassVar[type[Index] | None] = None
    """What keeps queues and agendas, if they are not to be in the file."""

    def __init__(
        self,
        path: str | Path,
        *,
        durability: str = "full",
        clock: Clock | None = None,
        retention: Retention | None = None,
        max_size: int = MAP_SIZE,
        map_size: int = MAP_SIZE,
        lock_timeout: float = 30.0,
        create: bool = True,
        fuse: bool = False,
    ) -> None:
        super().__init__(Retention() if retention is None else retention)
        self._clock = _SYSTEM_CLOCK if clock is None else clock
        check_clock(self._clock)
        settings = Settings(
            one_of("durability", durability, LEVELS),
            self._clock,
            integer("max_size", max_size, 1, MOST_SIZE),
            integer("map_size", map_size, 1, MOST_SIZE),
            seconds("lock_timeout", lock_timeout),
            flag("create", create),
            flag("fuse", fuse),
            self._index,
        )
        self._waiting: set[tuple[int, int]] = set()
        self._awaiting: set[tuple[int, int]] = set()
        self._waiting_for_several: set[object] = set()
        self._call = Word()
        self._owed = _Owed()
        self._search = Search()
        self._numbers: dict[str, int] = {}
        self._probed = 0.0
        self._closed = False
        self._env: Environment = REGISTRY.get(Path(check_path("path", path)).absolute(), settings)
        try:
            if self._index is not None:  # which is made now, of all jobs, or refused
                self._read(lambda _: None)
            # Somebody else has the lock, and will recover, or the next call here. And a damaged
            # queue has to be opened to be repaired.
            with contextlib.suppress(StoreBusy, StoreCorrupt):
                self._settle_in()
            with contextlib.suppress(StoreBusy, StoreCorrupt):
                if self._read(groups.left_behind):
                    self._write(groups.catch_up, TIMELESS)
        except BaseException:
            self.close()
            raise

    # The engine for `TransactionalStore`.

    def _write(
        self,
        operation: Callable[[Transaction], T],
        kind: Kind,
        undo: Callable[[T], None] | None = None,
        patience: float | None = None,
    ) -> T:
        if self._closed:
            raise self._is_closed()
        pending = Pending(self._whole(operation), kind, self._move_time, self._add_plain)
        if patience is not None:  # as if it had waited for the rest of the time already
            pending.since -= max(0.0, self._env.settings.lock_timeout - max(0.0, patience))
        try:
            self._env.write(pending)
        except BaseException:
            if pending.finished and pending.error is None and undo is not None:
                undo(pending.outcome)
            raise
        if pending.error is not None:
            raise pending.error
        outcome: T = pending.outcome
        return outcome

    def _read(self, operation: Callable[[Transaction], T]) -> T:
        if self._closed:
            raise self._is_closed()
        return self._env.read(operation)

    def _holder_name(self, holder: bytes) -> str:
        return self._env.holders.name(holder)

    def _facts(self) -> dict[str, int | str]:
        return self._env.facts()

    def reserve(self, request: ReserveRequest) -> list[Reservation]:
        self._recover_first()
        taken = super().reserve(request)
        # Who only looks, and never waits, looks for dead processes too.
        if not taken and self._recover():
            taken = super().reserve(request)
        return taken

    def _taking(self, request: ReserveRequest) -> Callable[[Transaction], list[Reservation]]:
        operation, owed = super()._taking(request), self._owed.topics
        if not owed:
            return operation
        self._owed.topics = []

        def take_and_pass_on(tx: Transaction) -> list[Reservation]:
            taken = operation(tx)
            _pass_on(tx, owed, taken)
            return taken

        return take_and_pass_on

    def settle(
        self, settlements: Sequence[Settlement], reserve: ReserveRequest | None = None
    ) -> Settled:
        if reserve is not None:
            self._recover_first()
        return super().settle(settlements, reserve)

    def _recover_first(self) -> None:
        """Look for dead processes now and then where there are always jobs, and nobody waits.

        Before anything is reserved: what is in hand must not be lost to an error, or an interrupt.
        """
        with contextlib.suppress(StoreBusy, StoreCorrupt):
            self._recover()

    def backup(self, path: str, progress: Callable[[CopyProgress], object] | None = None) -> Copied:
        if self._closed:
            raise self._is_closed()
        from jobq.repo.lmdb.upkeep.backup import backup

        with translating(self._env.path):
            return backup(self._env.path, Path(path), progress)

    # Waiting, and looking after the jobs of the dead.

    def wait(self, topic: str | Mix, timeout: float) -> None:
        if self._closed:
            raise self._is_closed()
        if self._recover():
            return
        if isinstance(topic, Mix):
            self._wait_for_several(topic, timeout)
            return
        number = self._numbers.get(topic, UNKNOWN)
        bell = self._env.bell
        seen = bell.read(number)
        waiter = (number, threading.get_ident())
        self._waiting.add(waiter)
        try:
            sleep = self._read(lambda tx: self._sleep(tx, topic, number))
            if sleep > 0:
                bell.wait(number, seen, min(timeout, sleep))
        finally:
            self._waiting.discard(waiter)

    def _sleep(self, tx: Transaction, topic: str, number: int) -> float:
        """How long a waiter may sleep at most, in seconds."""
        known = tx.topics.known(topic)
        if number != (known or UNKNOWN):  # wait for the right one, from the next call on
            self._numbers.pop(topic, None)
            if known is not None:
                self._numbers[topic] = known
            return 0.0
        sleep = _until_next(tx)
        return sleep if known is None else min(sleep, limits.ready_in(tx, known))

    def _wait_for_several(self, mix: Mix, timeout: float) -> None:
        bell, call, waiter = self._env.bell, self._call, object()
        self._waiting_for_several.add(waiter)
        try:
            calls, page = call.read(), bell.page()
            topics, sleep = self._read(lambda tx: self._look(tx, mix))
            end = time.monotonic() + min(timeout, sleep)
            if bell.may_wait_for(topics):
                owed = bell.wait_for_any(topics, page, (call, calls), end)
                if owed and calls != call.read():
                    # It was called to stop, and may look no more: another one has to.
                    for topic in owed:
                        bell.wake(topic, 1)
                else:
                    self._owed.topics = owed
                return
            while (left := end - time.monotonic()) > 0:
                count = bell.ask_for_several()
                if calls != call.read() or not bell.stand(page, topics):
                    return
                bell.wait_for_several(count, left)
        finally:
            self._waiting_for_several.discard(waiter)

    def _look(self, tx: Transaction, mix: Mix) -> tuple[list[int], float]:
        """The numbers of the topics, and how long who waits for them may sleep at most."""
        choice = self._choices.of(tx, mix)
        topics = [*choice] if choice.is_whole(tx) else [UNKNOWN, *choice]
        return topics, min(ready_in(tx, choice), _until_next(tx))

    def wait_ended(self, seen: dict[bytes, int | None], timeout: float) -> list[bytes]:
        if self._closed:
            raise self._is_closed()
        bell = self._env.bell
        # One job is waited for at its slot, several where every end that is waited for calls.
        slot = slot_of(next(iter(seen))) if len(seen) == 1 else ANY
        waiter = (slot, threading.get_ident())
        self._awaiting.add(waiter)
        try:
            count = bell.read_slot(slot)
            if called := _called(bell, seen):
                return called
            sleep = self._tend(min(timeout, LONGEST_SLEEP))
            if min(timeout, sleep) > 0 and not self._closed:
                bell.wait_slot(slot, count, min(timeout, sleep))
        finally:
            self._awaiting.discard(waiter)
        return _called(bell, seen)

    def _tend(self, patience: float) -> float:
        """Move time for who only waits; gives how long it may sleep then, in seconds.

        If others have the write lock for all of *patience*, they move time, or nobody can: a wait
        must not end late for that.
        """
        with contextlib.suppress(StoreBusy):
            if self._recover(patience):
                return 0.0
            sleep = self._read(_until_next)
            if sleep > 0:
                return sleep
            self._write(
                lambda tx: self._advance(tx, RECOVERY_STEP), TIMELESS, patience=patience
            )  # who is dead was looked at just now
        return 0.0

    def wake(self) -> None:
        numbers = {number for number, _ in list(self._waiting)}
        slots = {slot for slot, _ in list(self._awaiting)}
        self._call.call()
        if (numbers or slots or self._waiting_for_several) and not self._closed:
            bell = self._env.bell
            if self._waiting_for_several:
                bell.call_several()
            for number in numbers:
                bell.raise_counter(number)
                bell.wake(number)
            for slot in slots:
                bell.call_slot(slot)

    def advance(self, limit: int = 1000) -> Advanced:
        with translating(self._env.path):
            dead = self._env.holders.abandoned()
        return self._bring_back(dead, limit, STEP if dead else FEW, time_too=True)

    def _settle_in(self) -> None:
        """At open: the first step of time, and of the search for what the dead have left."""
        dead: set[bytes] = set()
        with contextlib.suppress(OSError):  # who needs to know will be told
            dead = self._env.holders.abandoned()
        is_due = self._read(seconds_to_next) <= 0
        self._bring_back(dead, RECOVERY_STEP, STEP, time_too=is_due)

    def _recover(self, patience: float | None = None) -> bool:
        """At most once a second: make ready what dead processes hold.

        True if another look is worth it: there was something, or there may be more.
        """
        now = time.monotonic()
        if now - self._probed < PROBE_S:
            return False
        self._probed = now
        search, holders = self._searching(), self._env.holders
        with translating(self._env.path):
            dead, half_made = holders.abandoned(), holders.half_made()
        moved = Advanced()
        if dead or search.at is not None:
            moved = self._bring_back(dead, RECOVERY_STEP, STEP, patience=patience)
        if search.hurries:
            self._probed = 0.0
            return True
        if moved.expired:  # files go the next time: an error of theirs must not hide this
            return True
        if search.gone or half_made:
            self._write(lambda _: holders.remove(search.gone), TIMELESS, patience=patience)
            search.forget()
        return False

    def _bring_back(
        self,
        dead: Collection[bytes],
        limit: int,
        most: int,
        *,
        time_too: bool = False,
        patience: float | None = None,
    ) -> Advanced:
        """A step of the search for what the dead hold: so many jobs, found among so many records.

        Waits for other processes no longer than *patience* (None: as usual).
        """
        search, probe, mark = self._searching(), self._env.holders.dead, Mark()
        if not search.begin(mark):  # another thread makes one
            return super().advance(limit)._replace(more=True) if time_too else Advanced()
        try:
            search.seek(dead, anybody=time_too)
            with translating(self._env.path):
                found = self._read(lambda tx: search.look(tx, most, probe))
            moved, stopped = Advanced(), None
            if found.lost is not None or time_too:
                moved, stopped = self._write(
                    lambda tx: self._advance(tx, limit, found.lost), TIMELESS, patience=patience
                )
            search.go_on(found, stopped)
            return moved._replace(more=moved.more or search.hurries)
        finally:
            search.end()

    def _searching(self) -> Search:
        """This process's search; a fork's child has one of its own."""
        if self._search.pid != os.getpid():
            self._search = Search()
        return self._search

    def close(self) -> None:
        if not self._closed:
            self.wake()
            self._closed = True
            REGISTRY.give_back(self._env)

    def _is_closed(self) -> StoreUnavailable:
        return StoreUnavailable(f"the store of {self._env.path} is closed: open another")


class _Owed(threading.local):
    """For which topics a thread was called, and has not looked for jobs since."""

    topics: Sequence[int] = ()


def _pass_on(tx: Transaction, owed: Sequence[int], taken: Sequence[Reservation]) -> None:
    """Have another waiter called for each topic that this one was called for, and has left jobs of.

    It was called once at each counter at most: so if that was for one topic, and it has a job of
    that, it owes nothing. If it has found nothing at all, there is nothing to be called for.
    """
    if taken and (len(owed) > 1 or all(tx.topics.known(job.topic) not in owed for job in taken)):
        for topic in with_ready(tx, owed):
            tx.woken[topic] = tx.woken.get(topic, 0) + 1


def _called(bell: Bell, seen: dict[bytes, int | None]) -> list[bytes]:
    """The jobs that have to be looked at; asks for a call for those that are new.

    One for which there was a call is not asked for again until the next time: most often it has
    ended, and there is none.
    """
    called = []
    for job_id, count in seen.copy().items():  # others may add to it
        if count is None:
            seen[job_id] = bell.ask(job_id)
            called.append(job_id)
        elif not bell.stands(job_id, count):
            seen[job_id] = None
            called.append(job_id)
    return called


def _until_next(tx: Transaction) -> float:
    """How long nothing falls due, in seconds, at most `LONGEST_SLEEP`; not above 0 if it has."""
    return min(LONGEST_SLEEP, seconds_to_next(tx))
