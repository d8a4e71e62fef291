"""What is wrong with a queue, what of it can be saved, and what is to be done.

Nothing is changed, and nothing is moved on: the queue may be in use. What the engine might die of
is done in a child, one step after the other, and how a child has died is a finding as well.
"""

import contextlib
import os
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import lmdb

from jobq.errors import InvalidValue, JobqError, StoreBusy, StoreCorrupt, StoreUnavailable
from jobq.repo.base import Diagnosis, Salvaged
from jobq.repo.lmdb import files
from jobq.repo.lmdb.access import Access
from jobq.repo.lmdb.faults import of_system, translating
from jobq.repo.lmdb.filelock import FileLock
from jobq.repo.lmdb.flocks import flock_holders
from jobq.repo.lmdb.index import is_elsewhere
from jobq.repo.lmdb.records import FORMAT
from jobq.repo.lmdb.room import BALLAST
from jobq.repo.lmdb.upkeep import child, copying, records
from jobq.repo.lmdb.upkeep.child import Tell
from jobq.repo.lmdb.upkeep.heads import find_heads
from jobq.repo.lmdb.upkeep.pages import Pages
from jobq.repo.lmdb.upkeep.salvage import Salvage
from jobq.repo.operations.checking import check

TRIES: Final = 5
"""How often it is looked again while others write, before problems are believed."""

LOCK_PATIENCE_S: Final = 10.0

MOSTLY_FREE: Final = 0.5
WORTH_IT: Final = 16 * 1024**2
"""A file of which so large a part is free, and so many bytes, is worth compacting."""

LITTLE_ROOM: Final = 64 * 1024**2
"""Free bytes of a disk below which it is said that there is little."""


def diagnose(directory: Path, *, deep: bool = False) -> Diagnosis:
    """Look at the queue in a directory.

    Args:
        directory: Where it is.
        deep: Read all of it: each page, each record by its checksum, and each job against every
            index and count.

    Raises:
        InvalidValue: There is no queue.
        StoreUnavailable: Its file cannot even be looked at.
    """
    return _Examination(directory, deep).diagnosis()


class _Examination:
    """One look at a queue."""

    def __init__(self, directory: Path, deep: bool) -> None:  # noqa: FBT001 - of its one caller
        self._directory = directory
        self._data = directory / files.DATA
        self._deep = deep
        self._problems: list[str] = []
        self._notes: list[str] = []
        self._facts: dict[str, Any] = {"path": str(directory)}
        self._steps: dict[str, bool] = {}
        self._index_only = False

    def diagnosis(self) -> Diagnosis:
        """Do all steps."""
        with translating(self._directory):
            self._look_at_files()
        self._step("head", self._look_at_head)
        self._step("opening", self._look_inside)
        if self._deep:
            self._step("pages", self._look_at_pages)
            self._step("records", self._read_records)
            if self._steps["opening"] and self._steps["records"]:
                sound = not self._problems
                self._step("indexes", self._compare)
                self._index_only = sound and bool(self._problems)
        saved = self._what_can_be_saved() if self._problems and not self._index_only else None
        return Diagnosis(
            tuple(self._problems),
            tuple(self._notes),
            tuple(self._advice(saved)),
            self._facts,
            self._steps,
            saved,
        )

    def _step(self, name: str, look: Any) -> None:
        """Do a step, and note whether all was well."""
        before = len(self._problems)
        try:
            look()
        except child.EngineDied as error:
            self._problems.append(f"{name}: {error}")
        except JobqError as error:
            self._problems.append(str(error))
        except OSError as error:
            self._problems.append(str(of_system(error, self._directory)))
        self._steps[name] = len(self._problems) == before

    # Files.

    def _look_at_files(self) -> None:
        try:
            data = os.stat(self._data)
        except (FileNotFoundError, NotADirectoryError) as error:
            raise InvalidValue(f"{self._directory} holds no queue") from error
        self._facts["file_bytes"] = data.st_size
        self._facts["open_in"] = flock_holders(self._data)
        if not stat.S_ISREG(data.st_mode):
            self._problems.append(f"{self._data} is no file")
            return
        try:
            files.refuse_links(self._directory, data)
        except InvalidValue as error:
            self._problems.append(str(error))
        if stat.S_IMODE(data.st_mode) & 0o077:
            self._notes.append(f"others than its owner may read or write {self._data}")
        if self._facts["open_in"] and not files.lock_is_whole(self._directory):
            self._problems.append(
                "lock.mdb was removed while the queue is open: whoever has it open must close it, "
                "and may not open it again before all others have"
            )
        disk = os.statvfs(self._directory)
        self._facts["disk_free_bytes"] = free = disk.f_bavail * disk.f_frsize
        if free < LITTLE_ROOM:
            self._notes.append(f"the disk has {free:,} bytes left")
        ballast = self._directory / "ballast"
        if ballast.exists() and ballast.stat().st_size < BALLAST:
            self._notes.append("the ballast was given up: the disk was full")

    def _look_at_head(self) -> None:
        pages = Pages(self._data)
        try:
            for _ in range(TRIES):
                if not pages.disagreement:
                    break
                pages.close()  # others may have written both heads while they were read
                pages = Pages(self._data)
            if not pages.metas:
                raise StoreCorrupt(
                    f"{self._data} is not the data file of a queue, or its head is destroyed"
                )
            if pages.disagreement:
                self._problems.append(pages.disagreement)
            newest = pages.metas[0]
            needed = (newest.last_page + 1) * newest.page_size
            self._facts["transaction"] = newest.txn
            if pages.size < needed:
                self._notes.append(
                    f"the file has {pages.size:,} bytes, and {needed:,} by its head: it is cut "
                    "short, unless the last pages are free"
                )
        finally:
            pages.close()

    # Inside, by children.

    def _look_inside(self) -> None:
        found = child.run(look_inside, {"path": str(self._directory)})
        self._facts |= found
        if found["readers_dead"]:
            self._notes.append(
                f"{found['readers_dead']} readers have died without a word: the next writer clears "
                "them away"
            )
        if found["topics"] != "lmdb":
            self._notes.append("the topics are kept in the memory of the process that has it open")

    def _look_at_pages(self) -> None:
        request = {"path": str(self._directory), "pin": bool(self._facts["open_in"])}
        self._problems += child.run(look_at_pages, request)

    def _read_records(self) -> None:
        self._problems += child.run(read_records, {"path": str(self._directory)})

    def _compare(self) -> None:
        self._problems += child.run(compare, {"path": str(self._directory)})

    # What to do.

    def _what_can_be_saved(self) -> Salvaged | None:
        for left in reversed(range(TRIES)):
            try:
                with contextlib.closing(Salvage(self._directory, alone=False)) as salvage:
                    return salvage.survey()
            except (JobqError, OSError) as error:  # or others have written meanwhile
                if not left:
                    self._notes.append(f"nothing can be saved: {error}")
        return None

    def _advice(self, saved: Salvaged | None) -> list[str]:
        advice = []
        if self._index_only:
            advice.append(
                "the jobs are sound, but indexes or counts are not: `jobq check --repair` makes "
                "these anew"
            )
        elif self._problems:
            advice.append("stop what uses the queue, and copy its directory before all else")
            advice.append(
                "with a backup: `jobq restore FILE` puts it in the place of what is damaged"
            )
        if saved is not None and saved.jobs:
            advice.append(
                "`jobq export --salvage FILE` writes the jobs that can be read, and `jobq import "
                "FILE` adds them to a new queue, or to a restored one, which skips what it has"
            )
        free = self._facts.get("free_bytes", 0)
        if not self._problems:
            if free > WORTH_IT and free > MOSTLY_FREE * self._facts["file_bytes"]:
                advice.append(
                    f"{free:,} bytes of the file are free: they are used again; to give them back "
                    "to the disk, `jobq compact`"
                )
            if not self._deep:
                advice.append("`--deep` reads every page, record and index")
        return advice


# Tasks for a child.


def _open(path: Path) -> lmdb.Environment:
    """The queue, only to read; with a slot among the readers wherever that changes nothing."""
    lock = os.access(path / files.LOCK, os.R_OK | os.W_OK)
    return records.open_to_read(path, file=False, lock=lock)


def look_inside(request: dict[str, Any], _: Tell) -> dict[str, Any]:
    """What the engine says of the file, and the queue of itself."""
    path = Path(request["path"])
    with translating(path):
        env = _open(path)
        txn = env.begin()
        db = records.databases(env, txn, path)
        access = Access(txn, db)
        info, page = env.info(), int(env.stat()["psize"])
        live = 2 + sum(_pages_in(stat) for stat in (env.stat(), *map(txn.stat, db)))
        readers = [line.split() for line in env.readers().splitlines()[1:]]
        return {
            "format": FORMAT,
            "jobs": sum(access.meta.totals),
            "topics": "memory" if is_elsewhere(access) else "lmdb",
            "used_bytes": live * page,
            "free_bytes": (int(info["last_pgno"]) + 1 - live) * page,
            "readers": len(readers),
            "readers_dead": sum(not _lives(fields[0]) for fields in readers if fields),
        }


def _pages_in(stats: Mapping[str, Any]) -> int:
    return int(stats["branch_pages"] + stats["leaf_pages"] + stats["overflow_pages"])


def _lives(pid: str) -> bool:
    return not pid.isdigit() or Path(f"/proc/{pid}").exists()


def look_at_pages(request: dict[str, Any], _: Tell) -> list[str]:
    """What is wrong with the pages.

    Others may be writing meanwhile (`pin`). Then a read transaction keeps what the head says as it
    is; only the heads themselves change, so what is found then has to be found again.
    """
    path = Path(request["path"])
    data = path / files.DATA
    with translating(path):
        if not request["pin"]:
            return _wrong_pages(data)
        problems: list[str] = []
        env = _open(path)
        for _try in range(TRIES):
            txn = env.begin()
            problems = _wrong_pages(data)
            txn.abort()
            if not problems:
                return []
        # Once more, while nobody writes: then it is known.
        lock = FileLock(path)
        try:
            lock.acquire(LOCK_PATIENCE_S)
            return _wrong_pages(data)
        except (StoreBusy, StoreUnavailable):
            return problems
        finally:
            lock.release()
            lock.close()


def _wrong_pages(data: Path) -> list[str]:
    problems = copying.structure(data)
    pages = Pages(data)
    try:
        if pages.metas and not pages.disagreement:  # which is a problem of the head
            _, doubt = find_heads(pages)
            problems += [f"the last commit may be missing: {doubt}"] if doubt else []
    finally:
        pages.close()
    return problems


def read_records(request: dict[str, Any], _: Tell) -> list[str]:
    """What is wrong with the records."""
    path = Path(request["path"])
    with translating(path):
        env = _open(path)
        txn = env.begin()
        return records.verify(txn, records.databases(env, txn, path))


def compare(request: dict[str, Any], _: Tell) -> list[str]:
    """Which jobs, indexes and counts contradict one another."""
    path = Path(request["path"])
    with translating(path):
        env = _open(path)
        txn = env.begin()
        db = records.databases(env, txn, path)
        if is_elsewhere(Access(txn, db)):
            return []  # the index is in the memory of a process
        report = check(records.transaction(txn, db), (StoreCorrupt, lmdb.Error))
        return list(report.problems)
