"""Every verb by itself, as crash tests have them: recorded once, and what must be left of each.

Here the oracle is the queue itself, uncut: what it holds when each commit of the verb is all there,
is what a disk may hold; once the verb has returned, only what the last of them has made.
"""

import os
import shutil
from collections.abc import Hashable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import lmdb

import jobq
from jobq.clock import ManualClock, SystemClock
from jobq.errors import JobqError
from jobq.repo.base import Store
from jobq.service import JobService
from tests.crash.flow_verbs import FLOW, FLOW_MIXED
from tests.crash.processes import Pipe
from tests.crash.repairs import LONG_REPAIRS, REPAIRS
from tests.crash.verbs import (
    CASES,
    KINDS,
    MIXED,
    Case,
    _be_victim,
    _Fork,
    _go_on,
    fill,
    is_mended,
    mended,
    seen_in,
)
from tests.torture.power.faults import Fault
from tests.torture.power.record import Record, Renamed, commits
from tests.torture.power.recorder import Recorder
from tests.torture.power.states import Cut, all_of
from tests.torture.power.verdict import Kind, Verdict


def _compact(path: str, _: object) -> object:
    jobq.compact(path)
    svc = jobq.open(path)
    svc.enqueue("mail", "e")
    return svc


def _restore(path: str, backup: str, *, replace: bool) -> object:
    jobq.restore(backup, path, replace=replace)
    svc = jobq.open(path)
    svc.enqueue("mail", "e")
    return svc


def _back_up(path: str) -> str:
    """A backup beside the queue, which then has one job more."""
    backup = f"{path}.backup"
    with jobq.open(path) as svc:
        svc.backup(backup)
        svc.enqueue("mail", "not in the backup")
    return backup


UPKEEP: Final = {
    "compact, then enqueue": Case(_compact, opens=True),
    "restore in place, then enqueue": Case(
        lambda path, _: _restore(path, _back_up(path), replace=True), opens=True
    ),
}
"""What puts another file in place of the queue's. Afterwards the new one has to be what counts."""

ALL: Final = {
    **CASES,
    **MIXED,
    **FLOW,
    **FLOW_MIXED,
    **REPAIRS,
    **LONG_REPAIRS,
    **UPKEEP,
}


class CaseOracle:
    """Judges what is left of one verb.

    Args:
        name: Of the case.
        wall_us: The time at which queues are opened; it stands still.
    """

    def __init__(self, name: str, wall_us: int) -> None:
        self._name = name
        self._wall_us = wall_us
        self._stages: list[Any] = []

    def prepare(self, record: Record, directory: Path) -> None:
        """Look at what each commit makes, and each file that is moved in."""
        moved = [at + 1 for at, one in enumerate(record.events) if isinstance(one, Renamed)]
        for upto in sorted({0, *commits(record), *moved, len(record.events)}):
            with self._uncut(record, upto, directory / "uncut") as svc:
                found = seen_in(svc, ALL[self._name])
            if found not in self._stages[-1:]:
                self._stages.append(found)

    def open(self, path: Path, cut: Cut) -> Store:  # noqa: ARG002 - an oracle's signature
        """The queue after the machine has booted again."""
        return self._service(path).store

    def nothing_may_be_lost(self, cut: Cut) -> bool:
        """Whether there has to be a queue by now."""
        return not ALL[self._name].new or bool(cut.acked)

    def moment(self, cut: Cut) -> Hashable:  # noqa: ARG002 - an oracle's signature
        """Time stands still."""
        return None

    def look(self) -> Any:
        """All that the queue has."""
        return seen_in(self._svc, ALL[self._name])

    def judge(self, cut: Cut, seen: Any) -> Verdict:
        """Whether the verb has happened, up to one of its commits; all of it if it has returned."""
        if seen == self._stages[-1] or (not cut.acked and seen in self._stages):
            return Verdict(Kind.SOUND)
        if seen in self._stages:
            return Verdict(Kind.LOST, f"{self._name!r} has returned, and has not happened")
        return Verdict(Kind.WRONG, f"neither as before {self._name!r} nor as after")

    @contextmanager
    def _uncut(self, record: Record, upto: int, path: Path) -> Iterator[JobService]:
        """The queue with all that was written up to an event."""
        state = all_of(record, upto)
        path.mkdir()
        if state.data is not None:
            (path / "data.mdb").write_bytes(state.data)
        with JobService(self._store(path)) as svc:
            yield svc
        shutil.rmtree(path)

    def _service(self, path: Path) -> JobService:
        self._svc = JobService(self._store(path))
        return self._svc

    def _store(self, path: Path) -> Store:
        clock = ManualClock(wall_us=self._wall_us, boot_us=ManualClock.JUST_BOOTED_US)
        return KINDS[self._topics](path, clock=clock)

    @property
    def _topics(self) -> str:
        """Where who opens it keeps the topics."""
        return ALL[self._name].topics


class RepairOracle(CaseOracle):
    """Judges what is left of a verb that mends a queue, and makes sure that it can be mended.

    Where the verb has not happened, exactly that is wrong which was before. However that may be,
    the queue is repaired once more, and must be what it is after a repair that nobody cut off.
    """

    def prepare(self, record: Record, directory: Path) -> None:
        """Look at both stages, and what a repair makes of them."""
        super().prepare(record, directory)
        ends = []
        for upto in (0, len(record.events)):
            with self._uncut(record, upto, directory / "uncut") as svc:
                ends.append(self._end(svc))
        (before, one, was), (after, other, then) = ends
        wrong = [*was, *then, *is_mended(before, after, (one, other))]
        assert not wrong, wrong
        assert len(self._stages) == 2, "a repair is one commit"
        self._mended = (after[-1], other)

    def look(self) -> Any:
        """All that the queue has; and then what a repair makes of it, and what is wrong with that.

        That may be an error: it counts where the verb has happened, or not, as it should.
        """
        seen = super().look()
        try:
            return seen, self._end(self._svc)
        except (JobqError, lmdb.Error, OSError) as error:
            return seen, ([None], {}, [f"repaired once more: {type(error).__name__}: {error}"])

    def judge(self, cut: Cut, seen: Any) -> Verdict:
        """Whether the verb has happened, and whether it can be done again, and the jobs be done."""
        found, (mended, order, wrong) = seen
        verdict = super().judge(cut, found)
        if verdict.kind is not Kind.SOUND:
            return verdict
        if wrong:
            return Verdict(Kind.UNSOUND, wrong[0])
        if (mended[-1], order) != self._mended:
            return Verdict(Kind.WRONG, "repaired once more, it is not what a repair makes of it")
        return verdict

    @property
    def _topics(self) -> str:
        return ALL[self._name].afterwards

    def _end(self, svc: JobService) -> tuple[list[Any], dict[str, list[Any]], list[str]]:
        """Repair it once more and work it off: what was seen, in which order, what was wrong."""
        case = ALL[self._name]
        seen = seen_in(svc, case)
        wrong = mended(svc, case, seen)
        return seen, _go_on(svc, wrong), wrong


def oracle_of(name: str, wall_us: int) -> CaseOracle:
    """Who judges what is left of a case."""
    return (RepairOracle if ALL[name].mends else CaseOracle)(name, wall_us)


def act(pipe: Pipe, name: str, root: Path, fault: Fault) -> None:
    """In a child: fill a queue, do what the case does before, then record its verb."""
    case, path = ALL[name], str(root / "queue")
    if not case.new:
        fill(path, case)
    victim = _Fork(_be_victim, case, path) if case.victim else None
    recorder = Recorder(root)
    fault(recorder)
    subject: Any = path if case.opens else jobq.open(path, topics=case.topics)
    if victim is not None:
        victim.go()
        victim.hear()
        victim.end()
    held = None if case.opens else case.hold(subject)
    recorder.restart()
    recorder.began(1)
    kept = case.act(subject, held)
    recorder.acked(1)
    pipe.send((recorder.finish(), SystemClock().wall_us()))
    assert kept is not pipe  # it lives until here
    os._exit(0)
