"""Random stories whose wall clock leaps at any moment, told to every store."""

import random
from collections import Counter
from pathlib import Path
from typing import Final

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from jobq.clock import EARLIEST_US, ManualClock
from jobq.job import Reservation
from jobq.repo.base import Store
from jobq.states import Outcome
from tests.conftest import STORES, Kind
from tests.crash.conftest import Say
from tests.model.telling import tell
from tests.model.test_flow import Aged, FlowStory
from tests.model.test_flow import Reopened as ReopenedFlow
from tests.model.test_same_story import Reopened, SameStory
from tests.model.test_terms import ENDLESS, Terms
from tests.repo.conftest import Queue
from tests.torture.clocks.clocks import DELAYS_S, HOUR_S, LEAPS_S, YEAR_S, RestlessClock

LONG_LEASE_S: Final = 600.0

leaps_s = st.builds(lambda way, far: way * far, st.sampled_from((1, -1)), st.sampled_from(LEAPS_S))


# Random stories, beside the model.


def _leap(clock: ManualClock, seconds: float) -> None:
    """Step it; to before 1970 by an hour at most, so that what is due then can be waited for."""
    until_1969_s = (clock.wall_us() - EARLIEST_US) / 1e6 + HOUR_S
    clock.step_wall(max(seconds, -until_1969_s) if clock.wall_us() > EARLIEST_US else abs(seconds))


def _away_s(clock: ManualClock) -> float:
    """How far it has gone and was stepped since it was made."""
    return (clock.wall_us() - ManualClock().wall_us()) / 1e6


counted: Final = Counter[str]()
"""How many stories were told, with how many steps, of which so many were leaps."""


class Counting:
    """A story that is counted."""

    def __init__(self) -> None:
        super().__init__()
        counted["stories"] += 1

    @invariant()
    def count(self) -> None:
        counted["steps"] += 1


class Leaping(Counting, SameStory):
    """Stories of all verbs, whose wall clock leaps between any two calls."""

    @rule(seconds=leaps_s)
    def leap(self, seconds: float) -> None:
        counted["leaps"] += 1
        _leap(self.clock, seconds)

    leap_soon = leap_again = leap  # as often as three other rules

    def drain(self) -> None:
        while self.clock.wall_us() <= EARLIEST_US:  # before 1970, by days if it was stepped there
            self.clock.step_wall(2 * HOUR_S)
        super().drain()


class LeapingReopened(Reopened, Leaping):
    """The same of durable stores, which are closed at any time, or boot."""


class LeapingFlow(Counting, FlowStory):
    """Stories of groups, limits, rates and ageing."""

    @rule(seconds=leaps_s)
    def leap(self, seconds: float) -> None:
        if abs(_away_s(self.clock) + seconds) < 1.3 * YEAR_S:  # as long as all jobs are kept
            counted["leaps"] += 1
            self._step(seconds)
            self._compare()

    leap_soon = leap_again = leap

    def _step(self, seconds: float) -> None:
        before_us = self.clock.wall_us()
        self.clock.step_wall(seconds)
        self.model.step(self.clock.wall_us() - before_us)
        for store in self.stores.values():
            store.advance()

    def _open(self, kind: Kind) -> Store:
        return kind.open(self.directory / kind.name, clock=self.clock, retention=ENDLESS)

    def _serve_all(self) -> None:
        self._step(3 * YEAR_S)  # all that is delayed is due
        super()._serve_all()


class LeapingFlowReopened(ReopenedFlow, LeapingFlow):
    """The same of durable stores, whose holder dies at any time."""


class LeapingAged(Aged, LeapingFlow):
    """The same of jobs and groups that age."""


class LeapingTerms(Counting, Terms):
    """Stories of deadlines, unique keys with and without periods, and caps."""

    @rule(seconds=leaps_s)
    def leap(self, seconds: float) -> None:
        # Nothing of it is forgotten but what `Terms` sweeps: so no farther than it keeps jobs.
        self.model.sweep()
        for store in self.stores:
            store.prune(1000)
        if abs(_away_s(self.clock) + seconds) < 1.3 * YEAR_S:
            counted["leaps"] += 1
            _leap(self.clock, seconds)
        self.move_time()
        self.compare()

    leap_soon = leap_again = leap


STORIES: Final[tuple[type[RuleBasedStateMachine], ...]] = (
    Leaping, LeapingReopened, LeapingTerms, LeapingFlow, LeapingFlowReopened, LeapingAged,
)  # fmt: skip


@pytest.mark.parametrize("story", STORIES)
def test_every_store_answers_as_the_model_does_though_the_wall_clock_leaps(
    story: type[RuleBasedStateMachine],
) -> None:
    tell(story, 3, steps=20)


@pytest.mark.storm
@pytest.mark.parametrize("_turn", range(2))
@pytest.mark.parametrize("story", STORIES)
def test_every_store_answers_a_storm_of_stories_though_the_wall_clock_leaps(
    story: type[RuleBasedStateMachine], _turn: int, say: Say
) -> None:
    counted.clear()
    tell(story, 40, steps=60)
    say(f"{story.__name__}: {dict(counted)}")


# A clock that leaps within calls too, where no model can say what a call has seen.


@pytest.mark.parametrize("steps", [200, pytest.param(5_000, marks=pytest.mark.storm)])
@pytest.mark.parametrize("kind", STORES, ids=repr)
def test_a_clock_that_shows_another_time_at_each_look_confuses_nothing(
    steps: int, kind: Kind, tmp_path: Path, seed: int, say: Say
) -> None:
    """What holds whatever a wall clock says: leases by the boot clock, and every job once."""
    chance = random.Random(seed)
    clock = RestlessClock(chance)
    queue = Queue(kind.open(tmp_path / "queue", clock=clock), clock)
    ids: list[bytes] = []
    done: list[bytes] = []
    held: dict[bytes, tuple[Reservation, int]] = {}  # and when the lease is over
    overs = 0

    def take(n: int) -> None:
        nonlocal overs
        for job in queue.take(n=n):
            due_us = queue.get(job.id).created_us + delays[job.id]
            if job.id in held:
                assert held[job.id][1] <= clock.boot_us(), "a lease was cut short"
                overs += 1
            assert due_us <= clock.peak_us, "promoted before any clock has ever said so"
            held[job.id] = job, clock.boot_us() + job.lease_us

    delays: dict[bytes, int] = {}
    for _ in range(steps):
        match chance.randrange(6):
            case 0 | 1:
                delay, lease = chance.choice((0, 0, *DELAYS_S)), chance.choice((1.0, LONG_LEASE_S))
                ids.append(queue.add(delay=delay, lease=lease, max_crashes=0))
                delays[ids[-1]] = round(delay * 1e6)
            case 2 | 3:
                take(chance.randrange(1, 4))
            case 4 if held:
                job, until_us = held[chance.choice(list(held))]
                lives = until_us > clock.boot_us()
                assert queue.store.holds(job.id, job.token) is lives, "a lease is longer or shorter"
                assert (queue.done(job) is Outcome.OK) is lives
                if lives:
                    done.append(job.id)
                    del held[job.id]
            case _:
                clock.advance(chance.choice((0.1, 1.0, 60.0)))
    assert ids == sorted(set(ids))
    assert queue.store.check().problems == ()
    clock.rest()
    clock.step_wall(500 * YEAR_S)
    clock.advance(2 * LONG_LEASE_S)
    while taken := queue.take(n=100):
        assert {queue.done(job) for job in taken} == {Outcome.OK}
        done += [job.id for job in taken]
    say(f"{kind}: {len(ids)} jobs, {overs} leases over")

    assert sorted(done) == ids
    assert queue.store.check().problems == ()
    queue.store.close()
