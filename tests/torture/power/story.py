"""A queue's story: verbs by chance, told to a store while it is recorded; and what must be left.

The oracle is the plain model of `tests.model`, written from the words of the design: what it has
after the first so many verbs, when the machine has booted anew, is what a disk may hold.
"""

import random
from collections.abc import Callable, Hashable
from functools import cached_property
from itertools import accumulate
from pathlib import Path
from typing import Any, Final, NamedTuple, TypeAlias

from jobq.clock import ManualClock
from jobq.codec import pack
from jobq.job import Change, JobSpec
from jobq.options import JobOptions
from jobq.repo.base import Retention, Store
from jobq.repo.lmdb import LmdbStore
from jobq.repo.mixed import MixedStore
from jobq.selector import Selector
from jobq.states import Event, Reason, Status
from tests.conftest import Kind
from tests.model.model import Model, Say, Tell
from tests.model.told import Told
from tests.torture.power.record import Record
from tests.torture.power.states import Cut
from tests.torture.power.verdict import Kind as Fate
from tests.torture.power.verdict import Verdict

KINDS: Final = {"lmdb": LmdbStore, "memory": MixedStore}
TOPICS: Final = ("mail", "mail-slow", "m")
CROWD: Final = 14
"""From so many jobs on, the story lets go of some: a state is read whole."""

ALL: Final = 10**6
RETENTION: Final = Retention(done_us=10**9, canceled_us=10**9, max_done=6)


class Plot(NamedTuple):
    """Which story it is: all of it follows from this.

    Attributes:
        length: How many verbs.
        topics, durability: How the queue is opened.
        depth: How many directories have to be made above that of the queue.
    """

    seed: int
    length: int
    topics: str = "lmdb"
    durability: str = "full"
    depth: int = 0


class Step(NamedTuple):
    """One verb, after a while."""

    wait_s: float
    verb: str
    arguments: tuple[Any, ...]


def told_by(plot: Plot) -> list[Step]:
    """The verbs of a story; nearly all of them change something."""
    chance = random.Random(plot.seed)
    clock = ManualClock()
    model = Model(clock, RETENTION)
    steps: list[Step] = []
    while len(steps) < plot.length:
        step = _step(model, chance)
        if step is not None:
            clock.advance(step.wait_s)
            getattr(model, step.verb)(*step.arguments)
            steps.append(step)
    return steps


def place(plot: Plot, root: Path) -> Path:
    """Where its queue is."""
    return root.joinpath(*(f"above{depth}" for depth in range(plot.depth)), "queue")


def kind_of(plot: Plot) -> Kind:
    """How the stores of a story are opened."""
    adapter = KINDS[plot.topics]

    def open_(path: Path, **settings: Any) -> Store:
        return adapter(path, durability=plot.durability, **settings)

    return Kind(plot.topics, open_, adapter.capabilities)


class StoryOracle:
    """Judges what is left of a story.

    Args:
        ids: The ids of its jobs, in the order in which they were enqueued.
    """

    def __init__(self, plot: Plot, ids: list[bytes]) -> None:
        self._plot = plot
        self._ids = ids
        self._known: dict[tuple[int, int], Any] = {}

    def prepare(self, record: Record, directory: Path) -> None:
        """The model knows all beforehand."""

    @cached_property
    def _steps(self) -> list[Step]:
        return told_by(self._plot)

    def open(self, path: Path, cut: Cut) -> Store:
        """The queue after the machine has booted again."""
        clock = self._clock(cut.began.get(0, 0))
        clock.reboot()
        self._told = Told(kind_of(self._plot), path, clock, RETENTION)
        self._told._learn(self._ids)
        return self._told.store

    def nothing_may_be_lost(self, cut: Cut) -> bool:
        """Whether there has to be a queue by now."""
        return cut.acked.get(0, 0) > 0

    def moment(self, cut: Cut) -> Hashable:
        """The time at which the machine boots again."""
        return self._waited_s[max(0, cut.began.get(0, 0) - 1)]

    def look(self) -> Any:
        """All that the queue has."""
        return content(self._told)

    def judge(self, cut: Cut, seen: Any) -> Verdict:
        """Whether it is as it was after the last verb that had returned, or the one after."""
        began, acked = cut.began.get(0, 0), cut.acked.get(0, 0)
        least = {"full": acked, "relaxed": max(cut.settled.get(0, 0), min(acked, 1))}
        promised = least.get(self._plot.durability, 0)
        for number in range(began, -1, -1):
            if seen == self._expected(number, began):
                missing = max(0, cut.commits[acked] - cut.commits.get(number, 10**9))
                if number >= promised:
                    return Verdict(Fate.SOUND, missing=missing)
                verb = self._steps[number - 1].verb
                text = f"as after {number} of {acked} verbs that had returned: no {verb}"
                return Verdict(Fate.LOST, text, missing)
        return Verdict(Fate.WRONG, f"as never before verb {began}")

    def _expected(self, number: int, began: int) -> Any:
        """What the queue has after so many verbs, opened when so many had begun."""
        if (number, began) not in self._known:
            self._known[number, began] = self._content_after(number, began)
        return self._known[number, began]

    def _content_after(self, number: int, began: int) -> Any:
        clock = ManualClock()
        model = Model(clock, RETENTION)
        for step in self._steps[: max(0, number - 1)]:
            clock.advance(step.wait_s)
            getattr(model, step.verb)(*step.arguments)
        for step in self._steps[max(0, number - 1) : max(0, began - 1)]:
            clock.advance(step.wait_s)
        model.reopen()
        return content(model)

    def _clock(self, began: int) -> ManualClock:
        clock = ManualClock()
        clock.advance(self._waited_s[max(0, began - 1)])
        return clock

    @cached_property
    def _waited_s(self) -> list[float]:
        """How much time has passed after the first so many verbs."""
        return [0.0, *accumulate(step.wait_s for step in self._steps)]


def content(queue: Told | Model) -> Any:
    """All that a queue has, in the model's numbers."""
    topics = queue.topics()
    return (
        queue.find(Selector(), None, ALL),
        topics,
        [queue.settings(name) for name in topics],
        queue.stats(),
    )


# The verbs.


Verb: TypeAlias = Callable[[Model, random.Random], tuple[Any, ...] | None]
"""Gives the arguments of a call by chance; None where it would change nothing."""

WAITING: Final = (Status.READY, Status.DELAYED)
OVER: Final = (Status.DONE, Status.CANCELED)


def _step(model: Model, chance: random.Random) -> Step | None:
    jobs = len(model.numbers(*Status))
    verb = chance.choice(
        ("delete", "delete", "purge", "settle", "reserve")
        if jobs > CROWD
        else (*("enqueue", "reserve", "settle") * 5, *VERBS)
        if jobs
        else ("enqueue",)
    )
    arguments = VERBS[verb](model, chance)
    wait_s = 0.0 if verb == "prune" else chance.choice((0.0, 0.0, 0.0, 0.0, 1.0, 40.0))
    return None if arguments is None else Step(wait_s, verb, arguments)


def _reserve(model: Model, chance: random.Random) -> tuple[Any, ...] | None:
    ready = [job for job in model.get(model.numbers(Status.READY)) if job is not None]
    return (chance.choice(ready).topic, chance.randint(1, 3)) if ready else None


def _settle(model: Model, chance: random.Random) -> tuple[Any, ...] | None:
    held = model.held()
    says = [_say(hold, chance) for hold in chance.sample(held, min(len(held), 2))]
    return (says, chance.choice((None, (chance.choice(TOPICS), 2)))) if says else None


def _extend(model: Model, _: random.Random) -> tuple[Any, ...] | None:
    held = model.held()
    return ([(*hold, 10**8) for hold in held[:2]],) if held else None


def _report(model: Model, _: random.Random) -> tuple[Any, ...] | None:
    held = model.held()
    return ([Tell(*held[0], ((0, "a line"),), (1, 2, None, 0))],) if held else None


def _cancel(model: Model, chance: random.Random) -> tuple[Any, ...] | None:
    jobs = _some(model.numbers(*WAITING, Status.RESERVED), chance)
    return (jobs, "why") if jobs else None


def _reset(model: Model, chance: random.Random) -> tuple[Any, ...] | None:
    jobs = _some(model.numbers(*OVER), chance)
    return (jobs,) if jobs else None


def _delete(model: Model, chance: random.Random) -> tuple[Any, ...] | None:
    jobs = _some(model.numbers(*OVER) or model.numbers(*WAITING), chance, 6)
    return (jobs,) if jobs else None


def _edit(model: Model, chance: random.Random) -> tuple[Any, ...] | None:
    change = Change(
        weight=chance.choice((None, 3)),
        topic=chance.choice((None, *TOPICS)),
        delay_us=chance.choice((None, 0, 5 * 10**6)),
        payload=chance.choice((None, _value(chance, 40))),
    )
    jobs = _some(model.numbers(*WAITING), chance)
    return (jobs, change) if jobs else None


def _prune(model: Model, _: random.Random) -> tuple[Any, ...] | None:
    """The model's has no look at what is due, a store's may."""
    return None if model._due() or model._over() else (ALL,)


VERBS: Final[dict[str, Verb]] = {
    "enqueue": lambda _, chance: (_specs(chance),),
    "reserve": _reserve,
    "settle": _settle,
    "extend": _extend,
    "report": _report,
    "cancel": _cancel,
    "reset": _reset,
    "delete": _delete,
    "edit": _edit,
    "configure": lambda _, chance: (
        chance.choice(TOPICS),
        {"max_done": chance.choice((None, 1, 3))},
    ),
    "purge": lambda _, chance: (
        chance.choice(TOPICS),
        frozenset({Status.READY, Status.DONE}),
        ALL,
    ),
    "advance": lambda *_: (ALL,),
    "prune": _prune,
}


def _some(jobs: list[int], chance: random.Random, most: int = 3) -> list[int]:
    return chance.sample(jobs, min(len(jobs), chance.randint(1, most)))


def _specs(chance: random.Random) -> list[JobSpec]:
    return [
        JobSpec(
            chance.choice(TOPICS),
            chance.choice((0, 0, -1, 7)),
            chance.choice((0, 0, 0, 30 * 10**6)),
            # Beyond 2 000 bytes a payload has pages of its own.
            _value(chance, chance.choice((0, 10, 200, 200, 1500, 5000, 9000))),
            JobOptions(lease=chance.choice((0.5, 30.0, 600.0)), max_crashes=1),
        )
        for _ in range(chance.randint(1, 3))
    ]


def _say(hold: tuple[int, int], chance: random.Random) -> Say:
    event = chance.choice((Event.DONE, Event.DONE, Event.RETRY, Event.RELEASE, Event.CANCEL))
    match event:
        case Event.DONE:
            follow = chance.choice(((), tuple(_specs(chance)[:1])))
            return Say(*hold, event, result=_value(chance, 20), follow=follow)
        case Event.RETRY:
            return Say(*hold, event, delay_us=chance.choice((0, 10**6)), error="it broke")
        case Event.RELEASE:
            return Say(*hold, event, delay_us=chance.choice((0, 10**6)))
        case _:
            return Say(*hold, event, reason=Reason.REJECTED, error="never")


def _value(chance: random.Random, size: int) -> bytes:
    return pack(chance.randbytes(size), limit=10**5)
