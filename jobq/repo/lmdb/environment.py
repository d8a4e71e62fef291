"""One LMDB environment: the only place where transactions begin and end.

Locks are taken in this order: leadership in the process (`group`), the write lock between
processes (`filelock`), the gate round every LMDB call (`gate`). The file lock is waited for
without the gate, so reads and forks go on meanwhile. A write transaction begins, works and ends
in one function on one thread; no transaction, cursor or view of memory leaves this module's
calls, and no user code runs inside.
"""

import contextlib
import os
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Final, TypeVar

import lmdb

from jobq import ids
from jobq.errors import JobqError, OutcomeUnknown, StoreCorrupt, StoreFull, StoreUnavailable
from jobq.repo import forking
from jobq.repo.entry import Entry, Mark
from jobq.repo.lmdb import files, steps
from jobq.repo.lmdb.access import META_KEY, Access, Databases, Kept
from jobq.repo.lmdb.bell import COUNTERS, EVERYBODY, Bell
from jobq.repo.lmdb.doubt import settle
from jobq.repo.lmdb.faults import of_system, translated, translating
from jobq.repo.lmdb.filelock import FileLock, OpenLock
from jobq.repo.lmdb.flow import LmdbFlow
from jobq.repo.lmdb.gate import Alive, Gate
from jobq.repo.lmdb.group import GroupCommit, Pending
from jobq.repo.lmdb.holders import Holders
from jobq.repo.lmdb.index import IndexTopics
from jobq.repo.lmdb.jobs import LmdbJobs
from jobq.repo.lmdb.opening import (
    Settings,
    build,
    look_at,
    open_databases,
    open_file,
    take_topics_back,
)
from jobq.repo.lmdb.records import FORMAT, decode_meta
from jobq.repo.lmdb.room import Room
from jobq.repo.lmdb.slices import Slices
from jobq.repo.lmdb.topics import UNKNOWN, LmdbTopics
from jobq.repo.repositories import Transaction
from jobq.repo.surely import surely

T = TypeVar("T")

MAP_GROWTH: Final = 16 * 1024**2

READER_CHECK_S: Final = 5.0
"""A reader that was killed pins all pages from its moment on (a queue of 0.45 MB grew to 597 MB),
until somebody looks."""

TRIES: Final = 4

ENGINE_ERRORS: Final = (lmdb.Error, OSError, JobqError, SystemError)
"""What operations fail with; all else is a fault of ours, or was raised by a signal handler."""


class Environment:
    """The environment of one queue directory, shared by all its stores in this process."""

    def __init__(self, path: Path, settings: Settings) -> None:
        self.path = path
        self._data, self._lock_file = f"{path}/{files.DATA}", f"{path}/{files.LOCK}"
        self.settings = settings
        self.users = 0
        self._entry = Entry()
        self._gate = Gate()
        self._group = GroupCommit(self._run)
        self._room = Room(path, settings.max_size)
        self._closed = False
        self._broken: str | None = None
        self._checked_readers = 0.0
        self._topics = 0
        self._slices = Slices()
        self._kept: Kept | None = None
        self._env: lmdb.Environment | None = None
        self._db: Databases | None = None
        self._index = None if settings.index is None else settings.index(path)
        self._open_lock: OpenLock | None = None
        self._lock: FileLock | None = None
        self._bell: Bell | None = None
        self._holders: Holders | None = None
        self._identity: files.Identity | None = None
        with translating(path):
            try:
                files.prepare(path, create=settings.create, build=self._build, fuse=settings.fuse)
            except lmdb.Error as error:
                if self._is_full_disk(error):
                    raise self._full(error) from error
                raise
        self._make_lock()
        self._open()
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
        return self._gated(lambda: self._read(operation))

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
        return self._broken is not None

    @property
    def holders(self) -> Holders:
        """The holders of the directory."""
        if self._holders is None:
            self._holders = Holders(self.path / "holders", self.settings.clock.boot_id())
        return self._holders

    @property
    def bell(self) -> Bell:
        """The bell of the directory."""
        if self._bell is None:
            with translating(self.path):
                self._bell = Bell(self.path / "bell")
        return self._bell

    def facts(self) -> dict[str, int | str]:
        """What there is to say about the file."""
        return self._gated(self._facts)

    def _facts(self) -> dict[str, int | str]:
        env = self._open()
        info, page = env.info(), int(env.stat()["psize"])
        return {
            "kind": "lmdb",
            "path": str(self.path),
            "format": FORMAT,
            "durability": self.settings.durability,
            "topics": "lmdb" if self._index is None else self._index.kind,
            "file_bytes": (int(info["last_pgno"]) + 1) * page,
            "limit_bytes": min(self.settings.max_size, int(info["map_size"])),
            "readers": int(info["num_readers"]),
        }

    def close(self) -> None:
        """Close the file, and be dead as a holder. Waits for the calls of other threads."""
        self._gated(self._close)

    def _close(self) -> None:
        self._closed = True
        self._shut()

    # Forks: hold still with the gate, so that no other thread is inside LMDB.

    def before_fork(self) -> None:
        if not self._entry.inside:  # a fork from a signal handler inside a call: nothing helps
            self._gate.acquire()

    def after_fork_in_parent(self) -> None:
        self._gate.release_if_mine()

    def after_fork_in_child(self) -> None:
        self._gate = Gate()
        self._group.drop_all()
        if self._lock is not None:
            self._lock.drop()
            self._lock = None
        self._shut()
        if self._index is not None:
            self._index = None
            self._broken = self._broken or (
                f"the store of {self.path} belongs to the process that opened it, and this is a "
                "fork of that: with its topics in memory a queue is for one process alone"
            )

    # Opening and closing.

    def _open(self) -> lmdb.Environment:
        """The environment, opened if it is not: at first, and in a fork's child. With the gate."""
        if self._env is not None:
            return self._env
        if self._closed:
            raise StoreUnavailable(f"the store of {self.path} is closed: open another")
        if self._broken is not None:
            raise StoreUnavailable(self._broken)
        with translating(self.path):
            if self._open_lock is None:  # one stays after a failed reopening
                self._open_lock = OpenLock(
                    self.path / files.DATA,
                    alone=self._index is not None,
                    patience=self.settings.lock_timeout,
                )
            env: lmdb.Environment | None = None
            try:
                env = open_file(self.path, self.settings)
                if look_at(env, self.path) and self._index is None:
                    self._take_topics_back(env)
                self._identity = files.identity(self.path)
                self._open_lock.refuse_other_than(self._identity.data)
                if self._lock is None:  # one stays after a failed reopening
                    self._lock = FileLock(self.path)
            except BaseException:
                if env is not None:
                    env.close()
                self._open_lock.close()
                self._open_lock = None
                raise
        self._env = env
        return env

    def _take_topics_back(self, env: lmdb.Environment) -> None:
        if self._is_taken_back(env):
            return
        self._room.give_up_ballast()
        with self._room.set_aside() as is_there:  # or jobs could not be worked off afterwards
            if is_there and self._is_taken_back(env):
                return
        raise StoreFull(
            f"{self.path}: no room to take the topics back into the file; make some, "
            "or open it with topics in memory and work some jobs off"
        )

    def _is_taken_back(self, env: lmdb.Environment) -> bool:
        """Take the topics back, and say whether there was room for them."""
        try:
            take_topics_back(env, self.path, self.settings, partial(self._settle, env))
        except lmdb.Error as error:
            self._doubt()
            if not self._is_full_disk(error):
                raise
            return False
        return True

    def _make_lock(self) -> None:
        """LMDB's lock file, where somebody has removed it (or restored only the data).

        Under the write lock: LMDB counts transactions in the lock file, and who is just writing
        under the old one would be overwritten by the first to write under the new.
        """
        if files.lock_is_whole(self.path):
            return
        with translating(self.path):
            if not FileLock.is_used(self.path):
                files.reserve_lock(self.path / files.LOCK)
                return
            lock = FileLock(self.path)
            try:
                lock.acquire(self.settings.lock_timeout)
                if not files.lock_is_whole(self.path):
                    files.reserve_lock(self.path / files.LOCK)
            finally:
                lock.release()
                lock.close()

    def _build(self, directory: Path) -> None:
        build(directory, self.settings.clock)

    def _shut(self) -> None:
        if self._env is not None:
            self._env.close()
        if self._lock is not None:
            self._lock.close()
        if self._holders is not None:
            self._holders.close()
        if self._open_lock is not None:
            self._open_lock.close()
        # The bell goes with its last user: a waiter may be asleep at it.
        self._env = self._db = self._open_lock = self._lock = self._holders = self._bell = None

    def _reopen(self) -> lmdb.Environment:
        """After a panic or a failed commit. With gate and file lock."""
        if self._env is not None:
            self._env.close()
            self._env = self._db = None
        with translating(self.path):
            self._env = open_file(self.path, self.settings)
        return self._env

    def _check_identity(self) -> None:
        try:
            data, lock = os.stat(self._data), os.stat(self._lock_file)
        except (FileNotFoundError, NotADirectoryError):
            same = False
        except OSError as error:  # a disk that fails for a moment has not replaced anything
            raise translated(error, self.path) from error
        else:
            there = (data.st_dev, data.st_ino), (lock.st_dev, lock.st_ino)
            same = there == self._identity
        if not same:
            # Writing on would go into files that nobody will ever read again.
            self._broken = (
                f"the files of {self.path} were removed or replaced while it was open: "
                "close it and open it again"
            )
            self._shut()
            raise StoreUnavailable(self._broken)

    # Reading.

    def _read(self, operation: Callable[[Transaction], T]) -> T:
        for left in reversed(range(TRIES)):
            try:
                txn = self._open().begin()
                try:
                    return operation(self._transaction(txn)[0])
                finally:
                    txn.abort()
            except lmdb.Error as error:
                if not left or not self._mend(error):
                    raise self._as_ours(error) from error
            except OSError as error:
                raise translated(error, self.path) from error
        raise AssertionError("unreachable")

    def _transaction(
        self, txn: lmdb.Transaction, remembered: Kept | None = None
    ) -> tuple[Transaction, Access, LmdbTopics | IndexTopics]:
        # Before the first write of this process, each transaction opens handles of its own: only
        # a write can open lasting ones, and reading must not wait for the write lock.
        db = self._db or open_databases(self._open(), txn)
        clock = self.settings.clock
        wall_us = clock.wall_us()
        access = Access(txn, db, remembered)
        woken: dict[int, int] = {}
        topics = LmdbTopics(access, woken, wall_us)
        tx = Transaction(
            LmdbJobs(access, wall_us),
            topics,
            LmdbFlow(access),
            wall_us,
            clock.boot_us(),
            self.holders.get,
            self.holders.name,
        )
        tx.woken = woken
        if self._index is None:
            return tx, access, topics
        return tx, access, self._index.over(tx, access, topics)

    # Writing.

    def _run(self, take: Callable[[], list[Pending]], since: float) -> None:
        """Lead: get the locks, then commit whatever waits by then."""
        if self._env is None:
            try:
                self._gate.acquire(self._alive())
                self._open()
            finally:
                self._gate.release_if_mine()
        lock = self._lock
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
                self._open()
                self._check_identity()
                self._check_readers()
                bell = self.bell  # made now, if it is not there: after the commit nothing may fail
                lock.bell = bell
                try:
                    self._run_group(take(), rings)
                finally:  # an interrupt may come after the commit, and anywhere in this
                    surely(partial(_raise_counters, bell, rings, slots))
                steps.reached("counters raised")
            finally:
                self._gate.release_if_mine()
        finally:
            surely(lock.release)
            if bell is not None:  # without it nothing was committed
                surely(partial(self._ring, bell, rings, slots))

    def _ring(self, bell: Bell, rings: list[Transaction], slots: list[int]) -> None:
        """Wake who waits for what was committed."""
        steps.reached("file lock given back")
        for tx in rings:
            for topic in tx.soon:
                bell.wake(topic)
            for topic, jobs in tx.woken.items():
                # Who waits for a topic that is not there yet, or shares a counter, may wait for
                # another one than is woken for: then everybody has to look.
                shared = topic == UNKNOWN or self._topics >= COUNTERS
                bell.wake(topic, EVERYBODY if shared else jobs)
        if any(tx.soon or tx.woken for tx in rings):
            bell.wake_several()
        for slot in slots:
            bell.wake_slot(slot)
        steps.reached("waiters woken")

    def _run_group(self, group: list[Pending], rings: list[Transaction]) -> None:
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
                    pending.finish(None, self._as_ours(error))
                elif not self._worth_another_try(error, pending, rings):
                    return

    def _worth_another_try(
        self, error: Exception, pending: Pending, rings: list[Transaction]
    ) -> bool:
        """Whether what stopped an operation is mended; if not, it is finished with the error."""
        if isinstance(error, lmdb.MapFullError):
            if self._grow(pending.kind.adds):
                return True
            pending.finish(None, self._full(error))
            return False
        if self._is_full_disk(error):
            if pending.kind.adds:
                pending.finish(None, self._full(error))
                return False
            self._room.give_up_ballast()
            with contextlib.suppress(*ENGINE_ERRORS):  # the next try will meet it, too
                self._commit([], rings)
            return True
        if isinstance(error, lmdb.Error) and self._mend(error):
            return True
        pending.finish(None, self._as_ours(error))
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
            if self.bell.doubt:
                self._settle(self._open())
            txn = self._begin()
            steps.reached("transaction begun")
            remembered, self._kept = self._kept, None
            tx, access, topics = self._transaction(txn, remembered)
            tx.is_short = partial(self._room.is_short, self._open(), txn, access.db)
            alone = access.kept is remembered
            work = partial(self._work, txn, tx, access, topics, group, outcomes, alone=alone)
            number = self._slices.run(work)
            txn.commit()  # also when there is nothing to do: aborting can be starved
            steps.reached("committed")
            self._db = access.db
            if number:
                self._topics = access.meta.topics
            if self._index is not None:
                self._index.committed(access.meta.group)
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
            committed = self._find_out(number, error, group, outcomes)
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
        topics: LmdbTopics | IndexTopics,
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
            self._room.refuse_if_full(self._open(), txn, access.db, size, alone=alone)
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

    def _find_out(
        self, number: int, error: BaseException, group: list[Pending], outcomes: list[Any]
    ) -> bool | None:
        """Whether commit *number* took effect although it ended by an error or an interrupt.

        Under the file lock nobody else can have committed since. None, with the operations
        finished as `OutcomeUnknown`, if that cannot be found out either.
        """
        try:
            with translating(self.path):
                there, head_failed = self._look_for(number)
                if head_failed or isinstance(error, lmdb.Error):
                    self._doubt()
                    try:
                        self._settle(self._open())
                    except OSError:
                        # Without a head that was written before the failure it is not there.
                        if there or head_failed:
                            raise
                return there
        except JobqError as failure:
            for pending, outcome in zip(group, outcomes, strict=True):
                unknown = OutcomeUnknown(
                    f"a commit failed ({error}) and it cannot be found out whether it took "
                    f"effect ({failure}): look at the jobs, or repeat the call if that is harmless",
                    _ids_in(outcome),
                )
                unknown.__cause__ = error
                pending.finish(None, unknown)
            return None

    def _look_for(self, number: int) -> tuple[bool, bool]:
        """Whether commit *number* can be read, and whether it failed in writing its head.

        LMDB panics if that fails, and only then.
        """
        head_failed = False
        try:
            env = self._open()
            txn = env.begin()
        except lmdb.PanicError:
            head_failed = True
            env = self._reopen()
            txn = env.begin()
        try:
            db = self._db or open_databases(env, txn)
            data = txn.get(META_KEY, db=db.meta)
        finally:
            txn.abort()
        there = data is not None and decode_meta(META_KEY, bytes(data)).group >= number
        return there, head_failed

    def _doubt(self) -> None:
        """Note, for all processes, that the disk may have something else than what is read."""
        if self.settings.durability != "unsafe":  # which has no idea of the disk anyway
            self.bell.doubt = True

    def _settle(self, env: lmdb.Environment) -> None:
        """End the doubt, if there is any, under the file lock.

        Raises:
            OSError: That cannot be done: nothing may be written as long as it lasts.
        """
        if self.bell.doubt:
            settle(self.path / files.DATA, int(env.stat()["psize"]))
            steps.reached("doubt ended")
            self.bell.doubt = False

    def _begin(self) -> lmdb.Transaction:
        for left in reversed(range(TRIES)):
            try:
                return self._open().begin(write=True)
            except lmdb.Error as error:
                if not left or not self._mend(error):
                    raise
        raise AssertionError("unreachable")

    # Errors of the engine.

    def _mend(self, error: lmdb.Error) -> bool:
        """Do what an error asks for; false if nothing can be done."""
        env = self._open()
        if isinstance(error, lmdb.MapResizedError):
            try:
                env.set_mapsize(0)  # another process has grown it
            except lmdb.Error:  # beyond what can be mapped, and now nothing is
                env.close()
                self._env = self._db = None
                return False
        elif isinstance(error, lmdb.ReadersFullError):
            return bool(env.reader_check())
        elif isinstance(error, lmdb.PanicError):
            self._reopen()
        else:
            return False
        return True

    def _as_ours(self, error: Exception) -> Exception:
        """The error as jobq's."""
        if isinstance(error, lmdb.MapResizedError):
            try:
                files.refuse_too_large_claim(self.path)
            except StoreCorrupt as damage:
                damage.__cause__ = error
                return damage
        if isinstance(error, lmdb.Error) and self._is_full_disk(error):
            return self._full(error)  # also where LMDB calls it an I/O error
        return translated(error, self.path)

    def _grow(self, adds: int) -> bool:
        """A larger map, up to the limit for what adds jobs; false if it cannot be."""
        env = self._open()
        env.reader_check()
        size = int(env.info()["map_size"])
        larger = max(2 * size, size + 4 * adds) if adds else size + MAP_GROWTH
        if adds:
            larger = min(larger, self.settings.max_size)
            if larger <= size:
                return False
        try:
            env.set_mapsize(larger)
        except lmdb.Error:
            return False
        return True

    def _check_readers(self) -> None:
        now = time.monotonic()
        if now - self._checked_readers >= READER_CHECK_S:
            self._checked_readers = now
            with translating(self.path):
                self._open().reader_check()

    def _is_full_disk(self, error: Exception) -> bool:
        if isinstance(error, lmdb.DiskError):
            return True
        if isinstance(error, OSError):
            return isinstance(of_system(error, self.path), StoreFull)
        return getattr(error, "code", None) == 5 and self._room.disk_is_full()

    def _full(self, error: Exception) -> StoreFull:
        full = StoreFull(
            f"{self.path}: no room for more jobs ({error}); work some off, or purge finished "
            "ones, first"
        )
        full.__cause__ = error
        return full


def _raise_counters(bell: Bell, rings: list[Transaction], slots: list[int]) -> None:
    """Note for who waits what was committed; *slots* gets those of ends that are waited for."""
    for tx in rings:
        for topic in tx.woken.keys() | tx.soon:
            bell.raise_counter(topic)
        if tx.ended:
            bell.note_ends(tx.ended, slots)


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


def _ids_in(outcome: Any) -> tuple[str, ...]:
    """The jobs that an operation added or reserved."""
    found = outcome if isinstance(outcome, list) else getattr(outcome, "reserved", [])
    raw = [getattr(one, "id", one) for one in found]
    return tuple(ids.to_text(one) for one in raw if isinstance(one, bytes))
