"""Puts disks after a power cut in place, opens them through jobq, and judges what it finds.

It works in a process of its own, since a broken file may kill whoever maps it (SIGBUS, SIGABRT):
before each state it notes which one it is.

Many disks are the same at several cuts: what a sync was about to make last is what has lasted when
the next begins. Such a disk is opened once, and what was found in it is judged at each of them.
"""

import gc
import hashlib
import os
import random
import shutil
import time
from collections.abc import Hashable
from pathlib import Path
from typing import Any, Final, NamedTuple, Protocol

import lmdb

from jobq.errors import JobqError
from jobq.repo.base import Store
from jobq.service import JobService
from tests.crash.processes import Pipe
from tests.torture.power.record import BACKUPS, Record
from tests.torture.power.states import Cut, State, cuts, states
from tests.torture.power.verdict import Kind, Tally, Verdict

QUEUE: Final = "queue"
LAST: Final = "last of all"
AT_ONCE: Final = 20
"""So many states at most are told of together."""

REMEMBERED: Final = 4
"""What was found at so many cuts is remembered: the same disks are left at cuts that follow one
another."""

GARBAGE: Final = 20_000
"""So many new objects before Python looks for garbage: what opening a queue leaves is little."""


class Oracle(Protocol):
    """Knows what a disk may hold at a cut."""

    def prepare(self, record: Record, directory: Path) -> None:
        """Called once, before anything is judged."""
        ...

    def open(self, path: Path, cut: Cut) -> Store:
        """The queue, with the clock of a machine that has booted again."""
        ...

    def nothing_may_be_lost(self, cut: Cut) -> bool:
        """Whether there has to be a queue by now."""
        ...

    def moment(self, cut: Cut) -> Hashable:
        """What is found depends on this beside the disk: when the machine boots, above all."""
        ...

    def look(self) -> Any:
        """All that what was opened holds, as far as it is judged."""
        ...

    def judge(self, cut: Cut, seen: Any) -> Verdict:
        """Whether this is what it may hold."""
        ...


class Sift(NamedTuple):
    """Which states of a record are looked at.

    Attributes:
        grain: The bytes of a piece.
        most: States at most of one cut.
        seed: What chance comes from.
    """

    grain: int
    most: int
    seed: int


class Found(NamedTuple):
    """What came of opening a disk, whatever it was to hold.

    Attributes:
        seen: What it holds; None if that cannot be known.
        shut: Why it cannot; None if it can.
        wrong: What `check` found, or what did not work afterwards.
    """

    seen: Any
    shut: Verdict | None = None
    wrong: Verdict | None = None


class Examiner:
    """Judges states, one after the other, in one directory.

    Attributes:
        opened: How many disks were opened.
    """

    def __init__(self, oracle: Oracle, directory: Path) -> None:
        self._oracle = oracle
        self._path = directory / QUEUE
        self._backups = directory / BACKUPS
        self._backups.mkdir(exist_ok=True)
        self._known: list[dict[tuple[bytes, Hashable], Found]] = []
        self.opened = 0

    def begin(self) -> None:
        """Another cut comes."""
        self._known = [{}, *self._known[: REMEMBERED - 1]]

    def examine(self, state: State, image: bytes, cut: Cut, chance: random.Random) -> Verdict:
        """Put it there, open it, compare it, check it, go on with it.

        What was found in the same disk at the same time, by its digest *image*, is not looked for
        again.
        """
        if state.data is None and self._oracle.nothing_may_be_lost(cut):
            return Verdict(Kind.LOST, "the queue is gone")
        key = image, self._oracle.moment(cut)
        found = next((known[key] for known in self._known if key in known), None)
        if found is None:
            self.opened += 1
            self._put(state, chance)
            self._known[0][key] = found = self._find(cut)
        if found.shut is not None:
            return found.shut
        verdict = self._oracle.judge(cut, found.seen)
        return found.wrong or verdict if verdict.kind is Kind.SOUND else verdict

    def _find(self, cut: Cut) -> Found:
        try:
            store = self._oracle.open(self._path, cut)
        except (JobqError, lmdb.Error, OSError) as error:
            return Found(None, Verdict(Kind.SHUT, f"{type(error).__name__}: {error}"))
        with JobService(store) as svc:
            try:
                seen = self._oracle.look()
                problems = svc.check().problems
            except KeyError as error:
                return Found(None, Verdict(Kind.WRONG, f"a job that nobody enqueued: {error}"))
            except (JobqError, lmdb.Error, OSError) as error:
                return Found(None, Verdict(Kind.SHUT, f"read: {type(error).__name__}: {error}"))
            if problems:
                return Found(seen, wrong=Verdict(Kind.UNSOUND, problems[0]))
            try:
                return Found(seen, wrong=go_on(svc))
            except (JobqError, lmdb.Error, OSError) as error:
                stuck = Verdict(Kind.STUCK, f"{type(error).__name__}: {error}")
                return Found(seen, wrong=stuck)

    def _put(self, state: State, chance: random.Random) -> None:
        path = self._path
        if state.data is None or state.left is not None or not chance.randrange(20):
            shutil.rmtree(path, ignore_errors=True)  # else with what the last one has left
        path.mkdir(mode=0o700, exist_ok=True)
        if state.data is not None:
            (path / "data.mdb").write_bytes(state.data)
        if state.left is not None:
            (path / ".new-left").mkdir()
            (path / ".new-left" / "data.mdb").write_bytes(state.left)
        for old in self._backups.iterdir():
            old.unlink()
        for name, data in state.backups:
            (self._backups / name).write_bytes(data)
        _litter(path, chance)


def _litter(path: Path, chance: random.Random) -> None:
    """Files that nothing is promised of: gone, empty, cut short or full of rubbish."""
    for name, size in (("lock.mdb", 8192), ("bell", 12288), ("write.lock", 0), ("turn.lock", 0)):
        match chance.randrange(12):
            case 0:
                (path / name).unlink(missing_ok=True)
            case 1:
                (path / name).write_bytes(bytes(size))
            case 2:
                (path / name).write_bytes(chance.randbytes(size // 2))


def go_on(svc: JobService) -> Verdict | None:
    """Three more operations: add a job, reserve all there are, finish them."""
    svc.enqueue("mail", LAST)
    jobs = svc.reserve("mail", 1000, timeout=0)
    if LAST not in [job.payload for job in jobs]:
        return Verdict(Kind.STUCK, "a job that was added afterwards is not served")
    if any(outcome != "ok" for outcome in svc.done_many(jobs)):
        return Verdict(Kind.STUCK, "jobs could not be finished afterwards")
    if problems := svc.check().problems:
        return Verdict(Kind.STUCK, f"afterwards: {problems[0]}")
    return None


def examine(
    pipe: Pipe,
    record: Record,
    oracle: Oracle,
    sift: Sift,
    directory: Path,
    share: tuple[int, int],
    done: int,
) -> None:
    """In a child: judge the states of every n-th cut, from the one after the first *done* on.

    Says tallies, and at last None.
    """
    part, parts = share
    gc.freeze()
    gc.set_threshold(GARBAGE)
    oracle.prepare(record, directory)
    examiner = Examiner(oracle, directory)
    at = os.open(directory / "at", os.O_RDWR | os.O_CREAT, 0o600)
    number = 0
    for turn, cut in enumerate(cuts(record)):
        if turn % parts != part:
            continue
        tally = Tally()
        seen: set[bytes] = set()
        examiner.begin()
        since = time.process_time()
        chance = random.Random(f"{sift.seed} {cut.position}")
        for state in states(cut, sift.grain, sift.most, chance):
            number += 1
            if number <= done:
                continue
            image = hashlib.blake2b(state.data or b"", digest_size=16)
            image.update(b"" if state.left is None else b"left" + state.left)
            for name, data in state.backups:
                image.update(name.encode() + data)
            if image.digest() in seen:
                tally.repeated += 1
                continue
            tally.cuts += not seen
            seen.add(image.digest())
            os.pwrite(at, number.to_bytes(8), 0)
            before = examiner.opened
            verdict = examiner.examine(state, image.digest(), cut, random.Random(number))
            tally.opened += examiner.opened - before
            tally.add(verdict, f"event {cut.position}, state {number}")
            if tally.states >= AT_ONCE:  # the next state may be the last of this process
                since = _say(pipe, tally, since)
                tally = Tally()
        _say(pipe, tally, since)
    pipe.send(None)


def _say(pipe: Pipe, tally: Tally, since: float) -> float:
    now = time.process_time()
    tally.seconds = now - since
    pipe.send(tally)
    return now
