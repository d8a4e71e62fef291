"""Puts disks after a power cut in place, opens them through jobq, and judges what it finds.

It works in a process of its own, since a broken file may kill whoever maps it (SIGBUS, SIGABRT):
before each state it notes which one it is.
"""

import hashlib
import os
import random
import shutil
import time
from pathlib import Path
from typing import Final, NamedTuple, Protocol

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

    def judge(self, cut: Cut) -> Verdict:
        """Whether what was opened holds what it may hold."""
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


class Examiner:
    """Judges states, one after the other, in one directory."""

    def __init__(self, oracle: Oracle, directory: Path) -> None:
        self._oracle = oracle
        self._path = directory / QUEUE
        self._backups = directory / BACKUPS

    def examine(self, state: State, cut: Cut, chance: random.Random) -> Verdict:
        """Put it there, open it, compare it, check it, go on with it."""
        if state.data is None and self._oracle.nothing_may_be_lost(cut):
            return Verdict(Kind.LOST, "the queue is gone")
        self._put(state, chance)
        try:
            store = self._oracle.open(self._path, cut)
        except (JobqError, lmdb.Error, OSError) as error:
            return Verdict(Kind.SHUT, f"{type(error).__name__}: {error}")
        with JobService(store) as svc:
            try:
                verdict = self._oracle.judge(cut)
                if verdict.kind is Kind.SOUND and (problems := svc.check().problems):
                    return Verdict(Kind.UNSOUND, problems[0])
            except (JobqError, lmdb.Error, OSError) as error:
                return Verdict(Kind.SHUT, f"read: {type(error).__name__}: {error}")
            if verdict.kind is not Kind.SOUND:
                return verdict
            try:
                return go_on(svc) or verdict
            except (JobqError, lmdb.Error, OSError) as error:
                return Verdict(Kind.STUCK, f"{type(error).__name__}: {error}")

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
        shutil.rmtree(self._backups, ignore_errors=True)
        self._backups.mkdir()
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
    oracle.prepare(record, directory)
    examiner = Examiner(oracle, directory)
    at = os.open(directory / "at", os.O_RDWR | os.O_CREAT, 0o600)
    number = 0
    for turn, cut in enumerate(cuts(record)):
        if turn % parts != part:
            continue
        tally = Tally()
        seen: set[bytes] = set()
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
            verdict = examiner.examine(state, cut, random.Random(number))
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
