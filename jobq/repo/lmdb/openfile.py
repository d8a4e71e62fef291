"""The file of a queue, as one process has it open, with what stands beside it.

Opening and closing it; noticing that it is no longer the one that was opened; and what can be done
when LMDB cannot go on as things are. Nothing here takes the gate, or the write lock once the file
is open: `environment` does.
"""

import os
import time
from functools import partial
from pathlib import Path
from typing import Final

import lmdb

from jobq.errors import StoreCorrupt, StoreFull, StoreUnavailable
from jobq.repo.lmdb import files, steps
from jobq.repo.lmdb.access import Databases
from jobq.repo.lmdb.bell import Bell
from jobq.repo.lmdb.doubt import settle
from jobq.repo.lmdb.faults import translated, translating
from jobq.repo.lmdb.filelock import FileLock
from jobq.repo.lmdb.holders import Holders
from jobq.repo.lmdb.opening import Settings, build, look_at, open_file, take_topics_back
from jobq.repo.lmdb.openlock import OpenLock
from jobq.repo.lmdb.records import FORMAT
from jobq.repo.lmdb.room import Room

MAP_GROWTH: Final = 16 * 1024**2

READER_CHECK_S: Final = 5.0
"""A reader that was killed pins all pages from its moment on (a queue of 0.45 MB grew to 597 MB),
until somebody looks."""


class OpenFile:
    """The open file of one queue directory.

    Attributes:
        room: How much may be written.
        env: LMDB's environment; None while it is closed. `open` gives it in any case.
        db: The handles of its databases that last; None until this process has committed.
        lock: The write lock; None while the file is closed.

    Raises:
        JobqError: It cannot be opened.
    """

    def __init__(self, path: Path, settings: Settings) -> None:
        self.path = path
        self.settings = settings
        self.room = Room(path, settings.max_size)
        self.env: lmdb.Environment | None = None
        self.db: Databases | None = None
        self.lock: FileLock | None = None
        self._data, self._lock_file = f"{path}/{files.DATA}", f"{path}/{files.LOCK}"
        self._open_lock: OpenLock | None = None
        self._bell: Bell | None = None
        self._holders: Holders | None = None
        self._identity: files.Identity | None = None
        self._closed = False
        self._broken: str | None = None
        self._checked_readers = 0.0
        with translating(path):
            try:
                files.prepare(
                    path,
                    create=settings.create,
                    build=self._build,
                    fuse=settings.fuse,
                    patience=settings.lock_timeout,
                )
            except lmdb.Error as error:
                if self.room.is_full_disk(error):
                    raise self.room.full(error) from error
                raise
        self._make_lock()
        self.open()

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
        """What there is to say about it."""
        env = self.open()
        info, page = env.info(), int(env.stat()["psize"])
        return {
            "kind": "lmdb",
            "path": str(self.path),
            "format": FORMAT,
            "durability": self.settings.durability,
            "topics": "lmdb" if self.settings.index is None else self.settings.index.kind,
            "file_bytes": (int(info["last_pgno"]) + 1) * page,
            "limit_bytes": min(self.settings.max_size, int(info["map_size"])),
            "readers": int(info["num_readers"]),
        }

    # Opening and closing.

    def open(self) -> lmdb.Environment:
        """The environment, opened if it is not: at first, and in a fork's child."""
        if self.env is not None:
            return self.env
        if self._closed:
            raise StoreUnavailable(f"the store of {self.path} is closed: open another")
        if self._broken is not None:
            raise StoreUnavailable(self._broken)
        with translating(self.path):
            if self._open_lock is None:  # one stays after a failed reopening
                self._open_lock = OpenLock(
                    self.path / files.DATA,
                    alone=self.settings.index is not None,
                    patience=self.settings.lock_timeout,
                )
            env: lmdb.Environment | None = None
            try:
                env = open_file(self.path, self.settings)
                if look_at(env, self.path) and self.settings.index is None:
                    self._take_topics_back(env)
                self._identity = files.identity(self.path)
                self._open_lock.refuse_other_than(self._identity.data)
                if self.lock is None:  # one stays after a failed reopening
                    self.lock = FileLock(self.path)
            except BaseException:
                if env is not None:
                    env.close()
                self._open_lock.close()
                self._open_lock = None
                raise
        self.env = env
        return env

    def _take_topics_back(self, env: lmdb.Environment) -> None:
        if self._is_taken_back(env):
            return
        self.room.give_up_ballast()
        with self.room.set_aside() as is_there:  # or jobs could not be worked off afterwards
            if is_there and self._is_taken_back(env):
                return
        raise StoreFull(
            f"{self.path}: no room to take the topics back into the file; make some, "
            "or open it with topics in memory and work some jobs off"
        )

    def _is_taken_back(self, env: lmdb.Environment) -> bool:
        """Take the topics back, and say whether there was room for them."""
        try:
            take_topics_back(env, self.path, self.settings, partial(self.settle, env))
        except lmdb.Error as error:
            self.doubt()
            if not self.room.is_full_disk(error):
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

    def close(self) -> None:
        """Close it for good, and be dead as a holder from now on."""
        self._closed = True
        self._shut()

    def let_go_in_child(self) -> None:
        """In a fork's child: close what is the parent's; the next call opens it anew."""
        if self.lock is not None:
            self.lock.drop()
            self.lock = None
        self._shut()
        if self.settings.index is not None:
            self._broken = self._broken or (
                f"the store of {self.path} belongs to the process that opened it, and this is a "
                "fork of that: with its topics in memory a queue is for one process alone"
            )

    def _shut(self) -> None:
        if self.env is not None:
            self.env.close()
        if self.lock is not None:
            self.lock.close()
        if self._holders is not None:
            self._holders.close()
        if self._open_lock is not None:
            self._open_lock.close()
        # The bell goes with its last user: a waiter may be asleep at it.
        self.env = self.db = self._open_lock = self.lock = self._holders = self._bell = None

    def reopen(self) -> lmdb.Environment:
        """After a panic or a failed commit."""
        if self.env is not None:
            self.env.close()
            self.env = self.db = None
        with translating(self.path):
            self.env = open_file(self.path, self.settings)
        return self.env

    # What others may have done meanwhile.

    def check_identity(self) -> None:
        """Refuse to go on with files that are no longer those of the queue.

        Raises:
            StoreUnavailable: They were removed or replaced, or cannot be looked at.
        """
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

    def check_readers(self) -> None:
        """Now and then: clear away readers that were killed."""
        now = time.monotonic()
        if now - self._checked_readers >= READER_CHECK_S:
            self._checked_readers = now
            with translating(self.path):
                self.open().reader_check()

    # After a failure.

    def doubt(self) -> None:
        """Note, for all processes, that the disk may have something else than what is read."""
        if self.settings.durability != "unsafe":  # which has no idea of the disk anyway
            self.bell.doubt = True

    def settle(self, env: lmdb.Environment) -> None:
        """End the doubt, if there is any; under the write lock.

        Raises:
            OSError: That cannot be done: nothing may be written as long as it lasts.
        """
        if self.bell.doubt:
            settle(self.path / files.DATA, int(env.stat()["psize"]))
            steps.reached("doubt ended")
            self.bell.doubt = False

    def mend(self, error: lmdb.Error) -> bool:
        """Do what an error asks for; false if nothing can be done."""
        env = self.open()
        if isinstance(error, lmdb.MapResizedError):
            try:
                env.set_mapsize(0)  # another process has grown it
            except lmdb.Error:  # beyond what can be mapped, and now nothing is
                env.close()
                self.env = self.db = None
                return False
        elif isinstance(error, lmdb.ReadersFullError):
            return bool(env.reader_check())
        elif isinstance(error, lmdb.PanicError):
            self.reopen()
        else:
            return False
        return True

    def grow(self, adds: int) -> bool:
        """A larger map, up to the limit for what adds jobs; false if it cannot be."""
        env = self.open()
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

    def as_ours(self, error: Exception) -> Exception:
        """The error as jobq's."""
        if isinstance(error, lmdb.MapResizedError):
            try:
                files.refuse_too_large_claim(self.path)
            except StoreCorrupt as damage:
                damage.__cause__ = error
                return damage
        if isinstance(error, lmdb.Error) and self.room.is_full_disk(error):
            return self.room.full(error)  # also where LMDB calls it an I/O error
        return translated(error, self.path)
