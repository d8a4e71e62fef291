"""A story during which backups are made; and what must be left of it, and of them.

While the child copies, the story goes on: one verb at each of its named steps.
"""

import hashlib
import os
import shutil
import threading
from collections.abc import Iterator
from multiprocessing.connection import Connection, Listener
from pathlib import Path
from typing import Any, Final

import lmdb

import jobq
from jobq.clock import ManualClock
from jobq.errors import JobqError
from jobq.repo.base import Store
from jobq.repo.lmdb.upkeep import child
from jobq.service import JobService
from tests.crash.processes import Pipe
from tests.model.told import Told
from tests.torture.power import copier
from tests.torture.power.copier import Break
from tests.torture.power.examiner import go_on
from tests.torture.power.faults import Fault
from tests.torture.power.record import BACKUPS, Acked, Began, Event, Record, moved
from tests.torture.power.recorder import Recorder
from tests.torture.power.states import Cut, all_of
from tests.torture.power.story import (
    RETENTION,
    Plot,
    Step,
    StoryOracle,
    content,
    kind_of,
    place,
    told_by,
)
from tests.torture.power.verdict import Kind, Verdict

STRAND: Final = 1
"""That of the backups; the verbs of the story are strand 0."""

APART: Final = 4
"""So many verbs are between two backups; as many are told while one is made."""


class BackupOracle(StoryOracle):
    """Judges the queue as any story's, and then each backup: whole, and late enough.

    Of a queue that promises nothing (`unsafe`) only the backups are judged.
    """

    def prepare(self, record: Record, directory: Path) -> None:
        """Note which verbs had returned when each backup was asked for, and begun when it ended."""
        self._first: dict[int, int] = {}
        self._last: dict[int, int] = {}
        self._whole: dict[bytes, range | Verdict] = {}
        self._directory = directory
        began = acked = 0
        for event in record.events:
            match event:
                case Began(0, number):
                    began = number
                case Acked(0, number):
                    acked = number
                case Began(_, number):
                    self._first[number] = acked
                case Acked(_, number):
                    self._last[number] = began
                case _:
                    pass

    def open(self, path: Path, cut: Cut) -> Store:
        """The queue after the machine has booted again; another one, if it promises nothing."""
        if self._plot.durability != "unsafe":
            return super().open(path, cut)
        another = path.with_name("another")
        return kind_of(self._plot).open(another, clock=ManualClock(), retention=RETENTION)

    def nothing_may_be_lost(self, cut: Cut) -> bool:
        """Whether there has to be a queue by now."""
        return self._plot.durability != "unsafe" and super().nothing_may_be_lost(cut)

    def look(self) -> Any:
        """All that the queue has; and after how many verbs it was as in each backup."""
        queue = None if self._plot.durability == "unsafe" else super().look()
        paths = (self._directory / BACKUPS).iterdir()
        return queue, {int(path.name): self._look_once_into(path) for path in paths}

    def judge(self, cut: Cut, seen: Any) -> Verdict:
        """Whether all is there that has to be, and is what it has to be."""
        queue, backups = seen
        verdict = Verdict(Kind.SOUND)
        if self._plot.durability != "unsafe":
            verdict = super().judge(cut, queue)
        if missing := set(range(1, cut.acked.get(STRAND, 0) + 1)) - backups.keys():
            return Verdict(Kind.LOST, f"there is no backup {min(missing)}, which was acknowledged")
        for number, found in sorted(backups.items()):
            if verdict.kind is Kind.SOUND:
                verdict = self._judge_backup(number, found, cut) or verdict
        return verdict

    def _look_once_into(self, backup: Path) -> range | Verdict:
        digest = hashlib.blake2b(backup.read_bytes()).digest()
        if digest not in self._whole:
            self._whole[digest] = self._look_into(backup)
        return self._whole[digest]

    def _judge_backup(self, number: int, found: range | Verdict, cut: Cut) -> Verdict | None:
        if isinstance(found, Verdict):
            return found
        first, last = self._first[number], self._last.get(number, cut.began[0])
        if found.stop <= first:
            text = f"backup {number} has {found[-1]} verbs, and was asked for after {first}"
            return Verdict(Kind.LOST, text)
        if found.start > last:
            return Verdict(Kind.WRONG, f"backup {number} has verbs that were not told: {found}")
        return None

    def _look_into(self, backup: Path) -> range | Verdict:
        """After how many verbs the queue was as in a backup; restored, checked and worked on."""
        path, verbs = self._directory / "restored", len(self._steps) + 1
        shutil.rmtree(path, ignore_errors=True)
        try:
            jobq.restore(backup, path)
            clock = self._clock(verbs)
            clock.reboot()
            told = Told(kind_of(self._plot), path, clock, RETENTION)
            told._learn(self._ids)
            with JobService(told.store) as svc:
                found = content(told)
                if problems := svc.check().problems:
                    return Verdict(Kind.UNSOUND, f"{backup.name}, restored: {problems[0]}")
                if verdict := go_on(svc):
                    return verdict
        except KeyError as error:
            return Verdict(Kind.WRONG, f"{backup.name}: a job that nobody enqueued: {error}")
        except (JobqError, lmdb.Error, OSError) as error:
            return Verdict(Kind.SHUT, f"{backup.name}: {type(error).__name__}: {error}")
        fits = [n for n in range(1, verbs + 1) if found == self._expected(n, verbs)]
        if not fits:
            return Verdict(Kind.WRONG, f"backup {backup.name} is as the queue never was")
        return range(fits[0], fits[-1] + 1)


class _Story:
    """The process that tells a story and asks for backups."""

    def __init__(self, plot: Plot, root: Path, recorder: Recorder) -> None:
        self._steps: Iterator[tuple[int, Step]] = enumerate(told_by(plot), 2)
        self._clock = ManualClock()
        self._root, self._recorder = root, recorder
        recorder.began(1)
        self.store = Told(kind_of(plot), place(plot, root), self._clock, RETENTION)
        recorder.acked(1)

    def tell(self, most: int) -> int:
        """Tell at most so many verbs; gives how many."""
        for told in range(most):
            if (one := next(self._steps, None)) is None:
                return told
            number, step = one
            self._clock.advance(step.wait_s)
            self._recorder.began(number)
            getattr(self.store, step.verb)(*step.arguments)
            self._recorder.acked(number)
        return most

    def back_up(self, number: int, way: str, broken: Break) -> list[str]:
        """Have a backup made, and go on with the story meanwhile; gives the steps it was made in.

        What the child has done takes its place in the record, before what is done next here.
        """
        steps: list[str] = []
        where: list[int] = []
        with Listener(family="AF_UNIX") as listener:
            vars(child)["_CODE"] = copier.code(self._root, way, broken, str(listener.address))
            made: list[object] = []
            target = str(self._root / BACKUPS / str(number))
            self._recorder.began(number, STRAND)
            asking = threading.Thread(target=lambda: made.append(self.store.store.backup(target)))
            asking.start()
            other: Connection = listener.accept()
            while True:
                try:
                    step, events = other.recv()
                except EOFError:
                    break
                steps.append(step)
                self._take_in(events, where)
                self.tell(1)
                other.send(None)
            asking.join()
        assert made, "there is no backup"
        self._recorder.acked(number, STRAND)
        return steps

    def _take_in(self, events: list[Event], where: list[int]) -> None:
        """Add what the child has done; *where* has the places of all that it has done so far."""
        mine = self._recorder.record.events
        where += range(len(mine), len(mine) + len(events))
        mine += [moved(event, lambda at: where[at]) for event in events]


def act(pipe: Pipe, plot: Plot, root: Path, way: str, fault: Fault, broken: Break) -> None:
    """In a child: record a story and its backups, made in one of the `WAYS`."""
    recorder = Recorder(root)
    fault(recorder)
    story = _Story(plot, root, recorder)
    (root / BACKUPS).mkdir()  # by somebody who does not sync
    backups, steps = 0, list[str]()
    while story.tell(APART) == APART:
        backups += 1
        steps = story.back_up(backups, way, broken)
    record = recorder.finish()
    kept = tuple((path.name, path.read_bytes()) for path in sorted((root / BACKUPS).iterdir()))
    assert all_of(record, len(record.events)).backups == kept, "something was not recorded"
    pipe.send((record, story.store._ids, steps))
    os._exit(0)
