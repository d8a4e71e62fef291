"""A queue in a storm, and who watches it.

The test's own process sees to it that jobs come back from the dead, that producers do not run away,
and that in the end all is as the ledger says.
"""

import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final, NamedTuple

from jobq import JobRecord, JobService, Status
from tests.conftest import DEADLINE_S
from tests.crash.processes import Child, Pipe, Start
from tests.crash.verbs import whole
from tests.torture.kills import lives
from tests.torture.kills.ledger import Ledger
from tests.torture.kills.lives import Scene
from tests.torture.kills.reckoning import Figures, Reckoning
from tests.torture.kills.zygote import Blown, Gale, Zygote

WORST_S: Final = 15.0
"""By then the jobs of the dead are ready again. jobq promises seconds, and takes one to four where
as many processes as these share two cores; the leases are of hours."""

LONGEST: Final = 4
"""A storm that insists has so many times the kills that were asked for, at most."""

BACKLOG: Final = 400
LOOK_S: Final = 0.25
CONSUMERS: Final = 4

Fault = Callable[[], None]


class Storm(NamedTuple):
    """One run.

    Attributes:
        kills: So many at least.
        lease_s: Of all jobs.
        worst_s: By then the jobs of the dead have to be ready again.
        patience_s: So long it may take afterwards to finish all jobs.
        insists: Whether it goes on, within reason, until it shows something.
    """

    gale: Gale
    kills: int
    lease_s: float = 7200.0
    worst_s: float = WORST_S
    patience_s: float = 3 * DEADLINE_S
    insists: bool = False


def nothing() -> None:
    """Breaks nothing."""


def storm_over(
    storm: Storm, start: Start, directory: Path, seed: int, fault: Fault = nothing
) -> "Sea":
    """A storm that is over, and judged."""
    scene = Scene(
        str(directory / "queue"), directory / "notes", directory / "enough", storm.lease_s
    )
    sea = Sea(scene, storm.gale, start, seed, fault)
    most = LONGEST * storm.kills if storm.insists else storm.kills
    while sea.kills < storm.kills or (sea.kills < most and not sea.shows):
        time.sleep(LOOK_S)
        sea.watch()
    sea.calm()
    sea.settle(storm.worst_s, storm.patience_s)
    sea.svc.close()
    return sea


class Sea:
    """A queue in a storm.

    Args:
        fault: Breaks jobq in the processes of the crew.

    Attributes:
        svc: The queue, as the watching process has it open.
        blown: What was done to the crew, once it is over.
        figures: What came of it, when all has settled.
        problems: What was wrong.
        slowest_s: For so long a job stood in the name of a dead process, at most.
        returned: Whether a job was seen that had come back from a dead process.
    """

    def __init__(
        self, scene: Scene, gale: Gale, start: Start, seed: int, fault: Fault = nothing
    ) -> None:
        self.problems: list[str] = []
        self.blown = Blown(0, 0)
        self.figures = Figures(0, 0, 0, 0, 0)
        self.slowest_s = 0.0
        self.returned = False
        self.svc = scene.open()
        self._scene = scene
        self._ledger = Ledger(scene.notes)
        self._reckoning = Reckoning(scene.lease_s, kept=scene.keep_s is None)
        self._zygote: Child = start(_be_zygote, scene, gale, seed, fault)
        self._all_done_to: str | None = None
        self._began = time.monotonic()
        self._took_s = 0.0

    @property
    def kills(self) -> int:
        """How many processes were killed so far."""
        return self._reckoning.kills

    @property
    def shows(self) -> bool:
        """Whether verbs were cut off, and jobs came back: on a slow machine it takes more kills."""
        return self.returned and self._reckoning.amid > 0

    def calm(self) -> None:
        """Kill all of the crew: the storm is over."""
        self._zygote.tell("enough")
        self.blown = self._hear()
        self._took_s = time.monotonic() - self._began

    def settle(self, worst_s: float = WORST_S, patience_s: float = 3 * DEADLINE_S) -> None:
        """See the jobs of the dead come back, have all finished, and judge."""
        self._scene.enough.touch()
        died = time.monotonic()
        back = self._comes_about(self._nobody_waits_for_the_dead, DEADLINE_S)
        self.slowest_s = max(self.slowest_s, time.monotonic() - died)
        if not back or self.slowest_s > worst_s:
            self.problems.append(f"jobs of the dead took {self.slowest_s:.1f} s to come back")
        self._zygote.tell("finish what is left")
        if not self._comes_about(lambda: not self.svc.stats().totals.unfinished, patience_s):
            self.problems.append("not all jobs can be finished")
        self._zygote.tell("that is all")
        assert self._hear() == "all are dead"
        self._reckoning.take(self._ledger.unread())
        counted: Counter[Status] = Counter()
        problems, self.figures = self._reckoning.judge(self._counted(counted))
        totals = self.svc.stats().totals
        stats = {status: getattr(totals, status) for status in Status if getattr(totals, status)}
        if stats != counted:
            problems.append(f"stats says {stats}, and there are {dict(counted)}")
        self.problems += problems + whole(self.svc)

    def told(self) -> str:
        """The figures."""
        blown, found = self.blown, self.figures
        return (
            f"{blown.kills} kills in {self._took_s:.0f} s "
            f"({60 * blown.kills / self._took_s:.0f} a minute), {found.amid} of them amid a verb, "
            f"{blown.stops} stops; {found.added} jobs and {found.settled} settlements "
            f"acknowledged, {found.refused} refused, {found.redelivered} redelivered, "
            f"after {self.slowest_s:.1f} s at most; {len(self.problems)} problems"
        )

    def watch(self) -> None:
        """Take the notes, hold back producers, and see whether the jobs of the dead come back."""
        assert not self._zygote.heard(), self._zygote.hear()
        unfinished = self.svc.stats().totals.unfinished
        if unfinished > BACKLOG:
            self._scene.enough.touch()
        elif unfinished < BACKLOG // 10:
            self._scene.enough.unlink(missing_ok=True)
        now_ns = time.monotonic_ns()
        waiting = list(self._unfinished())
        # Only then the notes: whoever has a dead process's pid by now has noted his birth before.
        self._reckoning.take(self._ledger.unread())
        for record in waiting:
            self.returned = self.returned or record.crashes > 0
            if record.status is Status.RESERVED:
                killed_ns = self._reckoning.killed.get(_pid(record), now_ns)
                self.slowest_s = max(self.slowest_s, (now_ns - killed_ns) / 1e9)

    def _unfinished(self) -> Iterator[JobRecord]:
        """What is not done: nothing before the last point up to which all were."""
        everything = True
        for record in _every(self.svc, self._all_done_to):
            everything = everything and record.finished
            if everything:
                self._all_done_to = record.id
            if not record.finished:
                yield record

    def _nobody_waits_for_the_dead(self) -> bool:
        """Moves time, as any process that waits does, and looks."""
        self.svc.reserve(lives.EMPTY, timeout=0.01)
        return not self.svc.stats().totals.reserved

    def _comes_about(self, fact: Callable[[], bool], timeout: float) -> bool:
        """Whether it does in time."""
        end = time.monotonic() + timeout
        while not (came := fact()) and time.monotonic() < end and not self._zygote.heard():
            time.sleep(0.01)
        return came

    def _counted(self, counted: Counter[Status]) -> Iterator[JobRecord]:
        """All jobs that the ledger is of; and how many there are in each state, of all."""
        for record in _every(self.svc):
            counted[record.status] += 1
            if record.topic in lives.TOPICS:
                yield record

    def _hear(self) -> Any:
        return self._zygote.hear(3 * DEADLINE_S)


def _be_zygote(pipe: Pipe, scene: Scene, gale: Gale, seed: int, fault: Fault) -> None:
    fault()
    zygote = Zygote(pipe, scene.notes, seed)
    blown = zygote.blow(gale, lives.crew(scene))
    assert pipe.recv() == "enough"
    pipe.send(blown)
    assert pipe.recv() == "finish what is left"
    zygote.rest(CONSUMERS, lives.consumers(scene))
    assert pipe.recv() == "that is all"
    pipe.send("all are dead")


def _every(svc: JobService, after: str | None = None) -> Iterator[JobRecord]:
    while page := svc.find(after=after, limit=1000):
        yield from page
        after = page[-1].id


def _pid(record: JobRecord) -> int:
    """The process that has the job."""
    return int((record.holder or "pid 0").split()[1])
