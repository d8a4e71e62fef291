"""The LMDB store: durable, for all processes of one machine."""

import contextlib
import math
import os
import threading
import time
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import ClassVar, Final, NamedTuple, TypeVar

import lmdb

from jobq.clock import Clock, SystemClock, check_clock
from jobq.errors import StoreBusy, StoreCorrupt, StoreUnavailable
from jobq.job import Reservation, Settlement
from jobq.options import check_path, flag, integer, one_of, seconds
from jobq.repo import watch
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
from jobq.repo.operations.flow.shares import ready_in
from jobq.repo.operations.soon import seconds_to_next
from jobq.repo.repositories import Transaction
from jobq.repo.transactional import TIMELESS, Kind, TransactionalStore
from jobq.repo.watch import STORE, Watch
from jobq.shares import Mix

T = TypeVar("T")

PROBE_S: Final = 1.0
"""Seconds between two looks for dead processes, while any process waits."""

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
        bell, calls = self._env.bell, self._call.read()
        relief, page = bell.read_relief(), bell.page()
        mine = self._read(lambda tx: self._look(tx, topic))
        if bell.may_wait_for(mine.topics):
            self._wait_for_any(bell, mine, page, (calls, relief), timeout)
        elif isinstance(topic, Mix):
            self._wait_for_several(topic, timeout)
        else:
            self._wait_alone(topic, timeout)

    def _look(self, tx: Transaction, topic: str | Mix) -> "_Look":
        due = seconds_to_next(tx)
        if isinstance(topic, Mix):
            choice = self._choices.of(tx, topic)
            topics = [*choice] if choice.is_whole(tx) else [UNKNOWN, *choice]
            return _Look(topics, due, ready_in(tx, choice))
        number = tx.topics.known(topic)
        if number is None:
            return _Look([UNKNOWN], due, math.inf)
        return _Look([number], due, limits.ready_in(tx, number))

    def _wait_for_any(
        self, bell: Bell, look: "_Look", page: bytes, seen: tuple[int, int], timeout: float
    ) -> None:
        """Sleep at the counters of topics, if those of calls and relief are as they were seen."""
        call, (calls, relief) = self._call, seen
        single = len(look.topics) == 1 and not self._env.shares_counters
        mine = Watch(bell, look.topics, has_desk=single)
        owed: list[int] = []
        try:
            if min(look.due, look.ready) > 0:
                end = time.monotonic() + mine.begin(look.due, look.ready, timeout)
                owed = bell.wait_for_any(look.topics, page, (call, calls), end, relief)
            if calls == call.read():
                self._owed.topics = [topic for topic in owed if topic != STORE]
                self._owed.left = mine.end(called=STORE in owed)
                return
        except BaseException:
            mine.give_up()
            raise
        # It was called to stop, and may look no more: another one has to.
        mine.give_up()
        for desk in owed:
            bell.relieve(desk)

    # Where one cannot sleep at several counters.

    def _wait_alone(self, topic: str, timeout: float) -> None:
        number = self._numbers.get(topic, UNKNOWN)
        bell = self._env.bell
        bell.is_loner(watch.LONGEST_SLEEP)
        seen = bell.read(number)
        waiter = (number, threading.get_ident())
        self._waiting.add(waiter)
        try:
            look = self._read(lambda tx: self._look(tx, topic))
            if look.topics != [number]:  # wait for the right one, from the next call on
                self._numbers.pop(topic, None)
                if look.topics != [UNKNOWN]:
                    (self._numbers[topic],) = look.topics
                return
            sleep = min(timeout, watch.LONGEST_SLEEP, look.due, look.ready)
            if sleep > 0:
                bell.wait(number, seen, sleep)
        finally:
            self._waiting.discard(waiter)

    def _wait_for_several(self, mix: Mix, timeout: float) -> None:
        bell, call, waiter = self._env.bell, self._call, object()
        bell.is_loner(watch.LONGEST_SLEEP)
        self._waiting_for_several.add(waiter)
        try:
            calls, page = call.read(), bell.page()
            look = self._read(lambda tx: self._look(tx, mix))
            end = time.monotonic() + min(timeout, watch.LONGEST_SLEEP, look.due, look.ready)
            while (left := end - time.monotonic()) > 0:
                count = bell.ask_for_several()
                if calls != call.read() or not bell.stand(page, look.topics):
                    return
                bell.wait_for_several(count, left)
        finally:
            self._waiting_for_several.discard(waiter)

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
            sleep = self._tend(min(timeout, watch.LONGEST_SLEEP))
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
            if search.is_for_a_round(dead):
                self._write(_nothing, TIMELESS, patience=patience)
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


class _Look(NamedTuple):
    """What somebody sees who is about to wait.

    Attributes:
        topics: The numbers of its topics.
        due: In how many seconds something falls due in the store.
        ready: In how many seconds a job may be handed out of those that are ready.
    """

    topics: list[int]
    due: float
    ready: float


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


def _nothing(_: Transaction) -> None:
    """What a transaction does that is only to be had."""


def _until_next(tx: Transaction) -> float:
    """How long nothing falls due, in seconds, at most a waiter's longest sleep."""
    return min(watch.LONGEST_SLEEP, seconds_to_next(tx))
