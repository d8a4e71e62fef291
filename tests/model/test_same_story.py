"""One random story, told to every store and to a plain model: all of them must answer the same.

A story is a sequence of calls of the port, with clocks that run, stand and are stepped, and with
stores that are closed and opened again. After each call every record, count and index of every
store is compared with the model. At its end each unfinished job is handed out and done, once.

`pytest -m storm` tells many more and longer ones. A story that fails is told again first in the
next run (`.hypothesis/`); the `reproduce_failure` line that it prints brings it back anywhere, as a
decorator on the class of the story.
"""

import contextlib
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, TypeVar

import pytest
from hypothesis import note
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from jobq.clock import ManualClock
from jobq.errors import InvalidValue
from jobq.job import Change, JobSpec
from jobq.options import JobOptions
from jobq.repo.base import DAY_US, Retention, Store
from jobq.repo.lmdb import LmdbStore
from jobq.selector import ALL_JOBS, EVERY_STATUS, Selector
from jobq.states import Event, Reason, Status
from tests.conftest import DURABLE, STORES, Kind
from tests.model.model import (
    SETTLEMENTS,
    STEP,
    UNFINISHED,
    WAITING,
    Bounds,
    Model,
    Moved,
    Port,
    Say,
    Tell,
)
from tests.model.telling import tell
from tests.model.told import NO_JOB, Interrupt, Told, interrupt

T = TypeVar("T")

ROUNDS = 4
"""A storm's rounds: many short tests, as pytest ends one that takes too long."""

ALL = 10**6
"""A limit that no story reaches."""

CROWD = 70
"""More jobs than stand in one record of any index."""

# What stories are made of. Names are prefixes of one another, times lie on both sides of leases
# and retentions, and most of it repeats, so that things meet.

TOPICS = ("mail", "mail-slow", "mail\0x", "m", "пошта")

topics = st.sampled_from(TOPICS)
weights = st.sampled_from((0, 0, 0, 1, -1, 32767, -32768))
delays_us = st.sampled_from((0, 0, 0, 0, 1, 250_000, 1_000_000, 3_600_000_000))
texts = st.none() | st.sampled_from(("it broke", "Zeile 1\nZeile 2", ""))
keeps_us = st.none() | st.sampled_from((0, 1, 2_000_000, DAY_US))

options = st.sampled_from(
    (
        JobOptions(),
        JobOptions(lease=0.5, max_crashes=1),
        JobOptions(lease=30.0, max_crashes=1, retention=0.0),
        JobOptions(lease=1.0, max_crashes=2, retention=1.0),
        JobOptions(max_crashes=0, name="nightly", tags=("a", "b")),
    )
)
specs = st.builds(JobSpec, topics, weights, delays_us, st.binary(max_size=12), options)
batches = st.lists(specs, min_size=1, max_size=6)

retentions = st.builds(
    Retention,
    done_us=st.sampled_from((DAY_US, DAY_US, 2_000_000, 0)),
    canceled_us=st.sampled_from((7 * DAY_US, 7 * DAY_US, 2_000_000, 0)),
    max_done=st.sampled_from((1_000_000, 1_000_000, 3, 1, 0)),
)

keeps_s = st.sampled_from((None, 0.0, 1.0, 86_400.0))
changes = st.fixed_dictionaries(
    {},
    optional={
        "keep_done": keeps_s,
        "keep_canceled": keeps_s,
        "max_done": st.sampled_from((None, 0, 1, 3)),
    },
)
edits = st.builds(
    Change,
    topic=st.none() | topics,
    weight=st.none() | weights,
    delay_us=st.none() | delays_us,
    payload=st.none() | st.binary(max_size=12),
    options=st.fixed_dictionaries(
        {},
        optional={
            "lease": st.sampled_from((None, 0.5, 30.0)),
            "max_crashes": st.sampled_from((None, 0, 1)),
            "retention": st.sampled_from((None, 0.0, 1.0)),
            "tags": st.sampled_from((None, ("c",))),
        },
    ),
)


selectors = st.builds(
    Selector,
    topic=st.none() | topics | st.just("never seen"),
    statuses=st.just(EVERY_STATUS) | st.frozensets(st.sampled_from(Status)),
    name=st.sampled_from((None, None, None, "nightly")),
    tags=st.sampled_from((frozenset(), frozenset(), frozenset("c"), frozenset("ab"))),
    reasons=st.none() | st.frozensets(st.sampled_from(Reason)),
    dead=st.none() | st.booleans(),
    error=st.sampled_from((None, None, None, "broke", "Zeile")),
    older_than_us=st.sampled_from((None, None, None, 0, 1_000_000)),
)
wheres = st.none() | st.none() | selectors


class Which(NamedTuple):
    """A job of the story: the *nth* last one in one of these states.

    If there is none, or no state is named: the *nth* last one of all there ever were.
    """

    nth: int
    statuses: tuple[Status, ...]


class Hold(NamedTuple):
    """A reservation of the story: the *nth* last one that stands, or of all ever given."""

    nth: int
    stands: bool


class Guess(NamedTuple):
    """A reservation that may never have been given."""

    which: Which
    token: int


Choice = Hold | Guess
Word = dict[str, Any]


def which(*statuses: Status) -> st.SearchStrategy[Which]:
    """Jobs, more often those in one of these states."""
    return st.builds(Which, st.integers(0, 9), st.sampled_from((statuses, statuses, ())))


def several(*statuses: Status) -> st.SearchStrategy[list[Which]]:
    """Some jobs, the same ones twice now and then."""
    return st.lists(which(*statuses), min_size=1, max_size=5)


choices: st.SearchStrategy[Choice] = st.one_of(
    st.builds(Hold, st.integers(0, 9), st.just(value=True)),
    st.builds(Hold, st.integers(0, 9), st.sampled_from((True, True, False))),
    st.builds(Guess, which(Status.RESERVED), st.integers(0, 3)),
)
words: st.SearchStrategy[Word] = st.one_of(
    st.fixed_dictionaries(
        {
            "event": st.just(Event.DONE),
            "keep_us": keeps_us,
            "result": st.none() | st.binary(max_size=9),
            "follow": st.lists(specs, max_size=2).map(tuple),
        }
    ),
    st.fixed_dictionaries(
        {
            "event": st.just(Event.RETRY),
            "delay_us": st.none() | delays_us,
            "keep_us": keeps_us,
            "error": texts,
        }
    ),
    st.fixed_dictionaries({"event": st.just(Event.RELEASE), "delay_us": delays_us}),
    st.fixed_dictionaries(
        {
            "event": st.just(Event.CANCEL),
            "keep_us": keeps_us,
            "error": texts,
            "reason": st.sampled_from((Reason.CANCELED, Reason.REJECTED)),
        }
    ),
)
says = st.lists(st.tuples(choices, words), min_size=1, max_size=6)
ages_us = st.sampled_from((0, 0, 1, 900_000))
tales = st.none() | st.fixed_dictionaries(
    {
        "lines": st.lists(
            st.tuples(ages_us, st.sampled_from(("", "begun", "zwölf Äpfel", "x" * 9))), max_size=4
        ).map(tuple),
        "progress": st.none()
        | st.tuples(st.sampled_from((0, 3, 2.5)), st.sampled_from((None, 10)), texts, ages_us),
        "dropped": st.sampled_from((0, 0, 2)),
    }
)
sizes = st.integers(1, 5) | st.just(2 * CROWD)
limits = st.sampled_from((1, 2, 5, ALL))
beyond_us = st.sampled_from((-1, 0, 0, 1))


class SameStory(RuleBasedStateMachine):
    """A story that all stores can follow: none is closed while it hands out jobs."""

    kinds: ClassVar[tuple[Kind, ...]] = STORES
    step: ClassVar[int] = STEP
    bounds: ClassVar[Bounds] = Bounds()

    def __init__(self) -> None:
        super().__init__()
        self.directory = Path(tempfile.mkdtemp(prefix="jobq-story-"))
        self.clock = ManualClock()
        self.stores: list[Told] = []
        self.given: list[tuple[int, int]] = []
        self.said: dict[int, Say] = {}
        self.interrupt_after: int | None = None
        self.sound = True
        self.model: Model

    @initialize(
        retention=retentions,
        batch=st.lists(specs, min_size=3, max_size=9),
        crowd=st.sampled_from((0, 0, 0, CROWD)),
    )
    def open(self, retention: Retention, batch: list[JobSpec], crowd: int) -> None:
        self.model = Model(self.clock, retention, self.step, self.bounds)
        self.stores = [
            Told(kind, self.directory / kind.name, self.clock, retention) for kind in self.kinds
        ]
        self.enqueue(batch + batch[:1] * crowd)

    @contextlib.contextmanager
    def chapter(self) -> Iterator[None]:
        """A story that has gone wrong in one of its chapters has no end to be told."""
        self.sound = False
        yield
        self.sound = True

    def ask(self, question: Callable[[Port], T]) -> None:
        """All of them give the same answer."""
        with self.chapter():
            expected = question(self.model)
            for store in self.stores:
                assert question(store) == expected, f"{store} answers otherwise than the model"

    def tell(self, story: Callable[[Port], T]) -> T:
        """What all of them answer; afterwards all of them know the same."""
        after, self.interrupt_after = self.interrupt_after, None
        with self.chapter():
            answers = {} if after is None else self.interrupted(story, after)
            expected = story(self.model)
            for store in self.stores:
                answer = answers[store] if store in answers else story(store)
                assert answer == expected, f"{store} answers otherwise than the model"
                self.compare(store)
        return expected

    def interrupted(self, story: Callable[[Port], T], after: int) -> dict[Told, T]:
        """The answers of those that come to an end; the others were interrupted, and as before."""
        answers: dict[Told, T] = {}
        for store in self.stores:
            with contextlib.suppress(Interrupt), interrupt(after):
                answers[store] = story(store)
            if store not in answers:
                note(f"{store} was interrupted: nothing has changed")
                self.compare(store)
        return answers

    # Anybody.

    @rule(batch=batches)
    def enqueue(self, batch: list[JobSpec]) -> None:
        self.tell(lambda q: q.enqueue(batch))

    @rule(several=several(Status.READY, Status.DELAYED, Status.RESERVED), error=texts, where=wheres)
    def cancel(self, several: list[Which], error: str | None, where: Selector | None) -> None:
        jobs = self.pick(several)
        self.tell(lambda q: q.cancel(jobs, error, where))
        self.say_again(jobs)

    @rule(several=several(Status.DONE, Status.CANCELED), where=wheres)
    def reset(self, several: list[Which], where: Selector | None) -> None:
        jobs = self.pick(several)
        self.tell(lambda q: q.reset(jobs, where))
        self.say_again(jobs)

    @rule(several=several(*Status), where=wheres)
    def delete(self, several: list[Which], where: Selector | None) -> None:
        jobs = self.pick(several)
        self.tell(lambda q: q.delete(jobs, where))

    @rule(several=several(Status.READY, Status.DELAYED), change=edits, where=wheres)
    def edit(self, several: list[Which], change: Change, where: Selector | None) -> None:
        jobs = self.pick(several)
        self.tell(lambda q: q.edit(jobs, change, where))
        self.say_again(jobs)

    @rule(
        topic=topics,
        statuses=st.sampled_from(
            (WAITING, WAITING, *(frozenset({one}) for one in Status if one is not Status.RESERVED))
        ),
        limit=limits,
    )
    def purge(self, topic: str, statuses: frozenset[Status], limit: int) -> None:
        # Each step of a store moves time, so nothing may be due.
        self.tell(lambda q: q.advance(ALL))
        if limit < ALL:
            self.interrupt_after = None  # in steps it is not whole or absent
        self.tell(lambda q: q.purge(topic, statuses, limit))

    @rule(topic=topics, changes=changes)
    def configure(self, topic: str, changes: dict[str, Any]) -> None:
        self.tell(lambda q: q.configure(topic, changes))

    # Holders.

    @rule(nth=st.integers(0, 4), n=sizes)
    def reserve(self, nth: int, n: int) -> None:
        topic = self.topic(nth)
        handed = self.tell(lambda q: q.reserve(topic, n))
        self.given += [(job.job, job.token) for job in handed]

    @rule(says=says, nth=st.none() | st.integers(0, 4), n=sizes)
    def settle(self, says: list[tuple[Choice, Word]], nth: int | None, n: int) -> None:
        """Settle several jobs; also reserve anew in the same call, or not."""
        said = [Say(*self.hold(choice), **word) for choice, word in says]
        self.say(said, None if nth is None else (self.topic(nth), n))

    @rule(choice=choices, word=words, tale=tales, times=st.integers(1, 2))
    def settle_one(self, choice: Choice, word: Word, tale: Word | None, times: int) -> None:
        """Settle one job, and perhaps say the same once more before anything else happens."""
        hold = self.hold(choice)
        said = Say(*hold, **word, tell=None if tale is None else Tell(*hold, **tale))
        for _ in range(times):
            self.say([said])

    @rule(told=st.lists(st.tuples(choices, tales), min_size=1, max_size=3))
    def report(self, told: list[tuple[Choice, Word | None]]) -> None:
        tells = [Tell(*self.hold(choice), **(tale or {})) for choice, tale in told]
        self.tell(lambda q: q.report(tells))

    @rule(nth=st.integers(0, 4), word=words)
    def settle_all(self, nth: int, word: Word) -> None:
        """Reserve all jobs of a topic, and settle all that are held in one call."""
        self.reserve(nth, 2 * CROWD)
        word = {name: value for name, value in word.items() if name != "follow"}
        self.say([Say(*hold, **word) for hold in self.model.held()])

    @rule(several=several(*Status))
    def settle_as_before(self, several: list[Which]) -> None:
        """Say again what was said of these jobs, whatever has happened to them since."""
        self.say_again(self.pick(several))

    def say(self, said: list[Say], reserve: tuple[str, int] | None = None) -> None:
        answer = self.tell(lambda q: q.settle(said, reserve))
        self.said |= {say.job: say for say in said}
        self.given += [(job.job, job.token) for job in answer.reserved]

    def say_again(self, jobs: list[int]) -> None:
        self.say([self.said[job] for job in jobs if job in self.said])

    @rule(
        holds=st.lists(
            st.tuples(choices, st.sampled_from((0, 1, 500_000, DAY_US))), min_size=1, max_size=4
        )
    )
    def extend(self, holds: list[tuple[Choice, int]]) -> None:
        asked = [(*self.hold(choice), lease_us) for choice, lease_us in holds]
        self.tell(lambda q: q.extend(asked))

    @rule(says=says, event=st.sampled_from(sorted(set(Event) - SETTLEMENTS)))
    def refuse(self, says: list[tuple[Choice, Word]], event: Event) -> None:
        """One of them is no settlement: the call is refused, and none of the others happens."""
        job, token = self.hold(Hold(0, stands=True))
        if self.model.holds(job, token):
            said = [Say(*self.hold(choice), **word) for choice, word in says]
            said = [*(say for say in said if say.job != job), Say(job, token, event)]
            with self.chapter():
                for store in self.stores:
                    with pytest.raises(InvalidValue):
                        store.settle(said)
                    self.compare(store)

    @rule(after=st.integers(0, 40))
    def interrupt_the_next_call(self, after: int) -> None:
        self.interrupt_after = after

    # Time.

    @rule(limit=limits)
    def advance(self, limit: int) -> None:
        def story(q: Port) -> Moved:
            moved = q.advance(limit)
            # Whoever moved as many as it may need not know whether there are more.
            at_limit = limit in (moved.promoted, moved.expired)
            return moved._replace(more=True) if at_limit else moved

        self.tell(story)

    @rule(nth=st.integers(0, 4), n=sizes, beyond_us=beyond_us, limit=limits)
    def overrun_leases(self, nth: int, n: int, beyond_us: int, limit: int) -> None:
        self.reserve(nth, n)
        self.wait(self.model.last_us(Status.RESERVED), self.clock.boot_us(), beyond_us)
        for job, token in self.model.held()[-1:]:
            self.ask(lambda q: q.holds(job, token))  # noqa: B023 - asked at once
        self.advance(limit)

    @rule(
        after=st.none() | st.sampled_from((Status.DONE, Status.CANCELED)),
        beyond_us=beyond_us,
        limit=limits,
    )
    def prune(self, after: Status | None, beyond_us: int, limit: int) -> None:
        if after is not None:
            self.wait(self.model.next_us(after), self.clock.wall_us(), beyond_us)
        # Whether pruning moves time is not asked here: nothing is due.
        self.tell(lambda q: q.advance(ALL))
        self.tell(lambda q: q.prune(limit))

    @rule(seconds=st.sampled_from((0.000_001, 0.25, 0.5, 1.0, 2.0, 600.0, 3600.0, 86_400.0)))
    def let_time_pass(self, seconds: float) -> None:
        self.clock.advance(seconds)

    @rule(status=st.sampled_from((Status.DELAYED, Status.RESERVED)), beyond_us=beyond_us)
    def wait_for_the_next_one(self, status: Status, beyond_us: int) -> None:
        reserved = status is Status.RESERVED
        now_us = self.clock.boot_us() if reserved else self.clock.wall_us()
        self.wait(self.model.next_us(status), now_us, beyond_us)

    @rule(seconds=st.sampled_from((-86_400.0, -7200.0, -0.5, 0.001, 3600.0, 7200.0)))
    def step_the_wall_clock(self, seconds: float) -> None:
        self.clock.step_wall(seconds)

    def wait(self, until_us: int | None, now_us: int, beyond_us: int) -> None:
        """Let both clocks run until a moment of one of them, or a little less or more."""
        if until_us is not None:
            self.clock.advance(max(0, until_us + beyond_us - now_us) / 1e6)

    @precondition(lambda self: not self.model.held())
    @rule()
    def reopen(self) -> None:
        """Close those that outlive it, and open them again."""
        self.interrupt_after = None  # whoever is interrupted here has no store

        def story(q: Port) -> None:
            q.reopen()
            q.advance(ALL)  # opening moves time, but those that cannot be closed did not open

        self.tell(story)

    # Readers.

    @rule(
        several=several(*Status),
        choice=choices,
        topic=topics | st.just("never seen"),
    )
    def ask_for_some(self, several: list[Which], choice: Choice, topic: str) -> None:
        jobs = self.pick(several)
        job, token = self.hold(choice)
        self.ask(lambda q: q.status(jobs))
        self.ask(lambda q: q.get(jobs))
        self.ask(lambda q: q.holds(job, token))
        self.ask(lambda q: q.stats(topic))
        self.ask(lambda q: q.settings(topic))

    @rule(
        selector=st.just(ALL_JOBS) | selectors,
        after=st.none() | which(),
        limit=limits,
    )
    def find(self, selector: Selector, after: Which | None, limit: int) -> None:
        job = None if after is None else self.pick([after])[0]
        self.ask(lambda q: q.find(selector, job, limit))

    def compare(self, store: Told) -> None:
        """Everything that there is to know."""
        everything = [*range(self.model.enqueued), NO_JOB]
        assert store.get(everything) == self.model.get(everything), f"records of {store}"
        listed, may_miss = store.topics(), self.model.forgettable()
        known = [name for name in self.model.topics() if name in listed or name not in may_miss]
        assert listed == known, f"topics of {store}"
        expected = self.model.stats()
        topics = tuple(topic for topic in expected.topics if topic.name in listed)
        assert store.stats() == expected._replace(topics=topics), f"counts of {store}"
        report = store.check()
        assert report.problems == (), f"{store} is not sound"
        assert report.jobs == len(self.model.numbers(*Status))

    # The end.

    def teardown(self) -> None:
        try:
            if self.sound and self.stores:
                self.drain()
        finally:
            for store in self.stores:
                store.close()
            shutil.rmtree(self.directory)

    def drain(self) -> None:
        """Every unfinished job is handed out and done, exactly once, and nothing is left."""
        self.wait(self.model.last_us(Status.DELAYED), self.clock.wall_us(), 0)
        self.wait(self.model.last_us(Status.RESERVED), self.clock.boot_us(), 0)
        self.tell(lambda q: q.advance(ALL))
        expected = self.model.numbers(*UNFINISHED)
        done: list[int] = []
        for topic in self.model.topics():
            says: list[Say] = []
            while True:
                answer = self.tell(lambda q: q.settle(says, (topic, 7)))  # noqa: B023 - told at once
                done += [say.job for say in says]
                if not answer.reserved:
                    break
                says = [Say(job.job, job.token, Event.DONE) for job in answer.reserved]
        assert sorted(done) == expected
        assert self.model.numbers(*UNFINISHED) == []

    # From a choice to a number.

    def topic(self, nth: int) -> str:
        """One with ready jobs, if there is any."""
        ready = [topic.name for topic in self.model.stats().topics if topic.ready]
        return ready[nth % len(ready)] if ready else TOPICS[nth % len(TOPICS)]

    def pick(self, several: list[Which]) -> list[int]:
        picked = []
        for one in several:
            jobs = self.model.numbers(*one.statuses) or range(self.model.enqueued)
            picked.append(jobs[-1 - one.nth % len(jobs)])
        return picked

    def hold(self, choice: Choice) -> tuple[int, int]:
        if isinstance(choice, Guess):
            return self.pick([choice.which])[0], choice.token
        if not self.model.held():
            self.reserve(choice.nth, 1 + choice.nth)
        holds = self.model.held() if choice.stands else self.given
        return holds[-1 - choice.nth % len(holds)] if holds else (NO_JOB, 1)


class SmallSteps(SameStory):
    """The same, where a writing verb moves 2 due jobs of each kind, 3 fill a page or a record, and
    next to nothing is kept of a job's past.

    So a few jobs are enough for a backlog and for all that goes on in pages.
    """

    step = 2
    bounds = Bounds(attempts=2, lines=3, bytes=20)


def _by_turns(path: Path, **settings: Any) -> Store:
    """One queue, whose topics are in the file and in memory by turns."""
    _openings[path] += 1
    return DURABLE[_openings[path] % len(DURABLE)].open(path, **settings)


_openings: Counter[Path] = Counter()

BY_TURNS = Kind("by turns", _by_turns, LmdbStore.capabilities)


class Reopened(SameStory):
    """A story for durable stores: they are closed at any time, or their machine boots."""

    kinds = (*DURABLE, BY_TURNS)

    @rule()
    def reopen(self) -> None:
        self.interrupt_after = None  # whoever is interrupted here has no store
        self.tell(lambda q: q.reopen())

    @rule()
    def reboot(self) -> None:
        self.clock.reboot()
        self.reopen()


STORIES = (SameStory, SmallSteps, Reopened)


def _make_small(story: type[SameStory], monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the code take small steps where the story has them."""
    if story is SmallSteps:
        monkeypatch.setattr("jobq.repo.transactional.STEP", story.step)
        for small in (
            "jobq.repo.transactional.PAGE",
            "jobq.repo.operations.checking.PAGE",
            "jobq.repo.operations.purging.PAGE",
            "jobq.repo.lmdb.topic_records.PLACE",
        ):
            monkeypatch.setattr(small, 3)
        monkeypatch.setattr("jobq.repo.operations.history.MOST_ATTEMPTS", story.bounds.attempts)
        monkeypatch.setattr("jobq.repo.operations.reports.MOST_LINES", story.bounds.lines)
        monkeypatch.setattr("jobq.repo.operations.reports.MOST_BYTES", story.bounds.bytes)


@pytest.mark.parametrize("story", STORIES)
def test_every_store_answers_any_story_as_the_model_does(
    story: type[SameStory], monkeypatch: pytest.MonkeyPatch
) -> None:
    _make_small(story, monkeypatch)
    tell(story, 11)


@pytest.mark.storm
@pytest.mark.parametrize("_turn", range(ROUNDS))
@pytest.mark.parametrize("story", STORIES)
def test_every_store_answers_a_storm_of_stories_as_the_model_does(
    story: type[SameStory], _turn: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    _make_small(story, monkeypatch)
    tell(story, 150, steps=80)
