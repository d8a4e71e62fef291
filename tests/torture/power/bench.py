"""The bench: records a workload in one process, and has others judge what power cuts leave."""

import os
import signal
from pathlib import Path
from typing import Any, Final, NamedTuple, TypeAlias

from jobq.clock import ManualClock
from tests.crash.processes import Child, Pipe, Silent, Start, kill_myself
from tests.model.told import Told
from tests.torture.disk import stubborn
from tests.torture.disk.failing import Fault as Trouble
from tests.torture.power import backups, cases, copier, crowd
from tests.torture.power.examiner import Oracle, Sift, examine
from tests.torture.power.faults import Fault, none
from tests.torture.power.record import Record, joined, replay
from tests.torture.power.recorder import Recorder
from tests.torture.power.story import RETENTION, Plot, StoryOracle, kind_of, place, told_by
from tests.torture.power.verdict import Kind, Tally, Verdict

PATIENCE_S: Final = 1200.0
"""A story, or the states of one cut, take seconds of work: that is minutes on a machine that has a
hundredth of a processor for each of us. So this is only for what hangs."""

DEADLY: Final = frozenset({signal.SIGBUS, signal.SIGABRT, signal.SIGSEGV})
"""What a broken file may do to whoever maps it."""


Errors: TypeAlias = dict[str, int]
"""How often a verb has raised each kind of error."""


class Recorded(NamedTuple):
    """A record, and who can judge it."""

    record: Record
    oracle: Oracle


def record_story(start: Start, plot: Plot, root: Path, fault: Fault = none) -> Recorded:
    """Tell a story, from the making of its queue on."""
    record, ids = _record(start(tell_story, plot, _new(root), fault))
    return Recorded(record, StoryOracle(plot, ids))


def record_case(start: Start, name: str, root: Path, fault: Fault = none) -> Recorded:
    """Have one verb called in a queue that is full of all sorts."""
    record, wall_us = _record(start(cases.act, name, _new(root), fault))
    return Recorded(record, cases.oracle_of(name, wall_us))


def record_backups(
    start: Start,
    plot: Plot,
    root: Path,
    way: str,
    fault: Fault = none,
    broken: copier.Break = copier.none,
) -> tuple[Recorded, list[str]]:
    """Tell a story while backups are made; also the steps in which the last one was made."""
    record, ids, steps = _record(start(backups.act, plot, _new(root), way, fault, broken))
    return Recorded(record, backups.BackupOracle(plot, ids)), steps


def record_crowd(
    start: Start, jobs: int, durability: str, root: Path, fault: Fault = none
) -> Recorded:
    """Let threads enqueue at once."""
    (record,) = _record(start(crowd.act, jobs, durability, _new(root), fault))
    return Recorded(record, crowd.CrowdOracle(durability))


def record_troubled_story(
    start: Start, plot: Plot, root: Path, troubles: list[Trouble], fault: Fault = none
) -> tuple[Recorded, Errors]:
    """Tell a story while the disk fails now and then; also what errors the verbs have raised."""
    child = start(stubborn.tell_story, plot, _new(root), troubles, fault)
    record, ids, errors = _record(child)
    return Recorded(record, stubborn.StubbornOracle(plot, ids)), errors


def record_stubborn(
    start: Start,
    jobs: int,
    durability: str,
    root: Path,
    trouble: Trouble | None,
    fault: Fault = none,
    *,
    making: bool = False,
) -> tuple[Recorded, list[str], Errors]:
    """Let one process enqueue while its disk fails; also its calls to the disk, and the errors."""
    child = start(stubborn.act, jobs, durability, _new(root), trouble, fault, making)
    record, calls, errors = _record(child)
    return Recorded(record, crowd.CrowdOracle(durability)), calls, errors


def record_killed_maker(
    start: Start, plot: Plot, root: Path, last: int, fault: Fault = none
) -> Recorded:
    """Kill a process that makes a queue, at event *last*; another one makes it, or goes on."""
    maker = start(die_making, plot, _new(root), last)
    first: Record = maker.hear(PATIENCE_S)
    maker.ended(PATIENCE_S)
    then, ids = start(tell_story, plot, root, fault).hear(PATIENCE_S)
    record = joined(first, then)
    assert replay(record) == record.final, "something was written that was not recorded"
    return Recorded(record, StoryOracle(plot, ids))


def judge(start: Start, recorded: Recorded, sift: Sift, directory: Path, workers: int = 1) -> Tally:
    """What becomes of all states that *sift* lets through."""
    total = Tally()
    waiting = {
        part: _examine(start, recorded, sift, directory, (part, workers), 0)
        for part in range(workers)
    }
    while waiting:
        for part, child in list(waiting.items()):
            try:
                tally = child.hear(PATIENCE_S)
            except Silent:
                raise  # it was killed by us, and not by what it has read
            except AssertionError:
                status = child.ended()
                if -status not in DEADLY:
                    raise
                at = int.from_bytes((directory / str(part) / "at").read_bytes())
                total.add(Verdict(Kind.DIED, signal.Signals(-status).name), f"state {at}")
                waiting[part] = _examine(start, recorded, sift, directory, (part, workers), at)
                continue
            if tally is None:
                del waiting[part]
            else:
                total += tally
    return total


def _examine(
    start: Start,
    recorded: Recorded,
    sift: Sift,
    directory: Path,
    share: tuple[int, int],
    done: int,
) -> Child:
    own = directory / f"{share[0]}"
    own.mkdir(parents=True, exist_ok=True)
    return start(examine, recorded.record, recorded.oracle, sift, own, share, done)


def _new(root: Path) -> Path:
    root.mkdir(parents=True)
    return root


def _record(child: Child) -> tuple[Any, ...]:
    said = child.hear(PATIENCE_S)
    found: tuple[Any, ...] = said if isinstance(said, tuple) else (said,)
    record = found[0]
    assert replay(record) == record.final, "something was written that was not recorded"
    return found


def die_making(pipe: Pipe, plot: Plot, root: Path, last: int) -> None:
    """In a child: record how a queue is made, up to the death of this process."""
    recorder = Recorder(root)

    def struck() -> None:
        pipe.send(recorder.record)
        kill_myself()

    recorder.last, recorder.struck = last, struck
    recorder.began(1)
    kind_of(plot).open(place(plot, root), clock=ManualClock(), retention=RETENTION)
    struck()


def tell_story(pipe: Pipe, plot: Plot, root: Path, fault: Fault) -> None:
    """In a child: record a story."""
    clock = ManualClock()
    recorder = Recorder(root)
    fault(recorder)
    recorder.began(1)
    store = Told(kind_of(plot), place(plot, root), clock, RETENTION)
    recorder.acked(1)
    for number, step in enumerate(told_by(plot), 2):
        clock.advance(step.wait_s)
        recorder.began(number)
        getattr(store, step.verb)(*step.arguments)
        recorder.acked(number)
    store.close()
    pipe.send((recorder.finish(), store._ids))
    os._exit(0)
