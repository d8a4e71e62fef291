"""Random stories of unique keys, deadlines and caps, told to stores and to a plain model."""

import shutil
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import ClassVar, Final

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

from jobq.clock import ManualClock
from jobq.errors import QueueFull, UniqueConflict
from jobq.job import Change, JobSpec, Settlement
from jobq.options import UNSET, JobOptions
from jobq.repo.base import DAY_US, ReserveRequest, Retention
from jobq.repo.transactional import TransactionalStore
from jobq.states import Event, Outcome, Reason, Status
from tests.conftest import STORES, Kind
from tests.model.telling import tell
from tests.model.terms import Caps, New, Refused, TermsModel

LEASE_S: Final = 10.0
KEYS: Final = ("k", "k\0", "kk", "ключ")
ENDLESS: Final = Retention(done_us=1000 * DAY_US, canceled_us=1000 * DAY_US)
"""Nothing is forgotten by the way."""

topics = st.sampled_from(("mail", "mail", "mail", "other"))
delays_us = st.sampled_from((0, 0, 0, 1_000_000, 3_000_000))
ttls_us = st.sampled_from((None, None, 1_000_000, 4_000_000, 30_000_000))
keys = st.sampled_from((None, *KEYS[:1] * 3, *KEYS))
news = st.builds(
    New,
    topics,
    st.sampled_from((0, 0, 1, -1)),
    delays_us,
    st.integers(0, 5),
    ttls_us,
    keys,
    st.sampled_from(("unfinished", "waiting", 2_000_000, 20_000_000)),
    st.sampled_from(("return", "replace", "replace", "raise")),
)
all_caps = st.builds(
    Caps,
    st.sampled_from((None, None, 3, 5)),
    st.sampled_from((None, None, 8, 15)),
    st.sampled_from((None, "reject", "drop-oldest", "drop-oldest", "drop-lowest", "drop-lowest")),
)
some = st.integers(0, 7)
supplies = st.none() | news | news
"""Hypothesis leaves out some rules in each story: all others bring jobs too, or it has none."""

topic_ttls_us = st.sampled_from((None, 3_000_000, 20_000_000, 40_000_000))

VERBS: Final = ("cancel", "delete", "reset")


def spec_of(new: New) -> JobSpec:
    """The job as stores take it."""
    unique_for = new.unique_for
    options = JobOptions(
        lease=LEASE_S,
        max_crashes=0,
        ttl=None if new.ttl_us is None else new.ttl_us / 1e6,
        unique=new.unique,
        unique_for=unique_for if isinstance(unique_for, str) else unique_for / 1e6,  # type: ignore[arg-type]
        on_conflict=new.on_conflict,  # type: ignore[arg-type]
    )
    return JobSpec(new.topic, new.weight, new.delay_us, b"x" * new.size, options)


class Terms(RuleBasedStateMachine):
    """Each step is told to all, and then all must know the same."""

    kinds: ClassVar[tuple[Kind, ...]] = tuple(kind for kind in STORES if kind.name != "mixed")

    def __init__(self) -> None:
        super().__init__()
        self.directory = Path(tempfile.mkdtemp(prefix="jobq-terms-"))
        self.clock = ManualClock()
        self.model = TermsModel(self.clock, round(LEASE_S * 1e6))
        self.stores = []
        for kind in self.kinds:
            store = kind.open(self.directory / kind.name, clock=self.clock, retention=ENDLESS)
            assert isinstance(store, TransactionalStore)
            self.stores.append(store)
        self.ids: list[list[bytes]] = [[] for _ in self.stores]  # by store, by number
        self.spoken: set[tuple[int, int]] = set()

    @initialize(caps=all_caps, ttl_us=topic_ttls_us, batch=st.lists(news, min_size=2, max_size=5))
    def begin(self, caps: Caps, ttl_us: int | None, batch: list[New]) -> None:
        self.configure(caps, ttl_us)
        self.enqueue(batch)

    def move_time(self) -> None:
        """So that a refused call, which takes that back too, changes nothing in the model."""
        self.model.let_time_pass()
        for store in self.stores:
            store.advance()

    # Anybody.

    @rule(batch=st.lists(news, min_size=1, max_size=4))
    def enqueue(self, batch: list[New]) -> None:
        self.move_time()
        specs = [spec_of(new) for new in batch]
        try:
            numbers = self.model.enqueue(batch)
        except Refused:
            for store in self.stores:
                with pytest.raises((QueueFull, UniqueConflict)):
                    store.enqueue(specs)
        else:
            for store, ids in zip(self.stores, self.ids, strict=True):
                self.learn(ids, numbers, store.enqueue(specs))
        self.compare()

    def bring(self, supply: New | None) -> None:
        if supply is not None:
            self.enqueue([supply])

    def learn(self, ids: list[bytes], numbers: list[int], found: list[bytes]) -> None:
        for number, job_id in zip(numbers, found, strict=True):
            if number == len(ids):
                ids.append(job_id)
            assert ids[number] == job_id

    @rule(
        supply=supplies,
        nth=some,
        status=st.sampled_from((None, *Status)),
        verb=st.sampled_from(VERBS),
    )
    def change(self, supply: New | None, nth: int, status: Status | None, verb: str) -> None:
        self.bring(supply)
        self.change_one(nth, verb, *([] if status is None else [status]))

    @rule(supply=supplies, nth=some)
    def cancel_under_its_holder(self, supply: New | None, nth: int) -> None:
        self.bring(supply)
        self.reserve(None, "mail", 2)
        self.change_one(nth, "cancel", Status.RESERVED)

    @rule(supply=supplies, nth=some, ttl_us=ttls_us)
    def let_live_again(self, supply: New | None, nth: int, ttl_us: int | None) -> None:
        self.bring(supply)
        if self.model.jobs:
            self.move_time()
            number = self.pick(nth, Status.DONE, Status.CANCELED)
            expected = self.model.reset(number, ttl_us)
            ends = UNSET if ttl_us is None else JobOptions(ttl=ttl_us / 1e6)
            for store, ids in zip(self.stores, self.ids, strict=True):
                assert store.reset([ids[number]], ends=ends) == [expected]
            self.compare()

    def change_one(self, nth: int, verb: str, *statuses: Status) -> None:
        if self.model.jobs:
            self.move_time()
            number = self.pick(nth, *statuses)
            expected: Outcome = getattr(self.model, verb)(number)
            for store, ids in zip(self.stores, self.ids, strict=True):
                assert getattr(store, verb)([ids[number]]) == [expected]
            self.compare()

    @rule(supply=supplies, nth=some, name=keys)
    def edit_key(self, supply: New | None, nth: int, name: str | None) -> None:
        self.bring(supply)
        if self.model.jobs:
            self.move_time()
            number = self.pick(nth, Status.READY, Status.DELAYED)
            expected = self.model.edit_key(number, name)
            change = Change(options={"unique": name})
            for store, ids in zip(self.stores, self.ids, strict=True):
                assert store.edit([ids[number]], change) == [expected]
            self.compare()

    @rule(supply=supplies, nth=some, ttl_us=ttls_us, delay_us=st.none() | delays_us)
    def edit_ttl(
        self, supply: New | None, nth: int, ttl_us: int | None, delay_us: int | None
    ) -> None:
        self.bring(supply)
        if self.model.jobs:
            self.move_time()
            number = self.pick(nth, Status.READY, Status.DELAYED)
            expected = self.model.edit_ttl(number, ttl_us, delay_us)
            ttl = None if ttl_us is None else ttl_us / 1e6
            change = Change(delay_us=delay_us, options={"ttl": ttl})
            for store, ids in zip(self.stores, self.ids, strict=True):
                assert store.edit([ids[number]], change) == [expected]
            self.compare()

    @rule(caps=all_caps, ttl_us=topic_ttls_us)
    def configure(self, caps: Caps, ttl_us: int | None) -> None:
        self.move_time()
        self.model.caps["mail"] = caps
        self.model.ttls_us["mail"] = ttl_us
        ttl = None if ttl_us is None else ttl_us / 1e6
        for store in self.stores:
            store.configure("mail", {**asdict(caps), "ttl": ttl})

    # Holders.

    @rule(supply=supplies, topic=topics, n=st.integers(1, 4))
    def reserve(self, supply: New | None, topic: str, n: int) -> None:
        self.bring(supply)
        self.move_time()
        expected = self.model.reserve(topic, n)
        for store, ids in zip(self.stores, self.ids, strict=True):
            held = store.reserve(ReserveRequest(topic, n))
            assert [job.id for job in held] == [ids[number] for number in expected]
        self.compare()

    @rule(
        supply=supplies,
        nth=some,
        event=st.sampled_from((Event.DONE, Event.DONE, Event.RETRY, Event.RELEASE, Event.CANCEL)),
        delay_us=delays_us,
        follow=st.lists(news, max_size=2),
        own=st.booleans(),
        stands=st.sampled_from((True, True, False)),
    )
    def settle(
        self,
        supply: New | None,
        nth: int,
        event: Event,
        delay_us: int,
        follow: list[New],
        own: bool,
        stands: bool,
    ) -> None:
        """A reservation that stands, or any that was given, each once.

        Follow-up jobs may ask for the key of the job.
        """
        self.bring(supply)
        if not any(job.status is Status.RESERVED for job in self.model.jobs):
            self.reserve(None, "mail", 2)
        given = [
            (job.number, token)
            for job in self.model.jobs
            for token in range(1, job.token + 1)
            if (job.number, token) not in self.spoken
            and (not stands or (job.status is Status.RESERVED and token == job.token))
        ]
        if not given:
            return
        self.move_time()
        number, token = given[-1 - nth % len(given)]
        name = self.model.jobs[number].unique
        if event is not Event.DONE:
            follow = []
        elif own:
            follow = [new._replace(unique=name) for new in follow]
        count = len(self.model.jobs)
        try:
            expected = self.model.settle(number, token, event, delay_us, follow)
        except Refused:
            expected = None
        for store, ids in zip(self.stores, self.ids, strict=True):
            settlement = Settlement(
                ids[number], token, event, delay_us,
                reason=Reason.REJECTED if event is Event.CANCEL else None,
                follow=tuple(spec_of(new) for new in follow),
            )  # fmt: skip
            if expected is None:
                with pytest.raises((QueueFull, UniqueConflict)):
                    store.settle([settlement])
            else:
                settled = store.settle([settlement])
                assert settled.outcomes == [expected]
                new = sorted({one for one in settled.follow_ids[0] if one not in ids})
                assert len(new) == len(self.model.jobs) - count
                ids += new
        if expected is not None:
            self.spoken.add((number, token))
        self.compare()

    # Time.

    @rule(supply=supplies, seconds=st.sampled_from((0.5, 1.0, 1.0, 2.0, 5.0, 10.0, 20.0)))
    def let_time_pass(self, supply: New | None, seconds: float) -> None:
        self.bring(supply)
        self.clock.advance(seconds)
        self.move_time()
        self.compare()

    @rule(seconds=st.sampled_from((-3600.0, -2.0, 2.0, 3600.0)))
    def step_the_wall_clock(self, seconds: float) -> None:
        """Whether a key whose period is over is forgotten already would show when it steps back."""
        self.model.sweep()
        for store in self.stores:
            store.prune(1000)
        self.clock.step_wall(seconds)
        self.move_time()
        self.compare()

    # What all know.

    def pick(self, nth: int, *statuses: Status) -> int:
        """The *nth* last job in one of these states; of all, if there is none."""
        numbers = [job.number for job in self.model.jobs if job.status in statuses]
        numbers = numbers or [job.number for job in self.model.jobs]
        return numbers[-1 - nth % len(numbers)]

    def compare(self) -> None:
        jobs = self.model.jobs
        expected = [(job.status, job.reason) for job in jobs]
        for store, ids in zip(self.stores, self.ids, strict=True):
            records = store.get(ids)
            found = [(None, None) if job is None else (job.status, job.reason) for job in records]
            assert found == expected
            assert [record and record.options.deadline_us for record in records] == [
                job.deadline_us if job.status else None for job in jobs
            ]
            has = store._read(lambda tx: {name: tx.flow.key(name) for name in KEYS})
            for name, key in has.items():
                over = key is None or (key.until_us and key.until_us <= self.clock.wall_us())
                number = None if over or key is None else ids.index(key.job)
                assert number == self.model.holder(name), f"who has {name!r}"
            for topic in ("mail", "other"):
                waiting = sum(job.size for job in self.model.waiting(topic))
                assert size(store, topic) == waiting
            assert store.check().problems == ()

    def teardown(self) -> None:
        for store in self.stores:
            store.close()
        shutil.rmtree(self.directory)


def size(store: TransactionalStore, topic: str) -> int:
    """The bytes that wait in a topic, as the store counts them."""

    def read(tx: object) -> int:
        topics = tx.topics  # type: ignore[attr-defined]
        number = topics.known(topic)
        return 0 if number is None else int(topics.size(number))

    return store._read(read)


def test_stores_and_model_agree_on_keys_deadlines_and_caps() -> None:
    tell(Terms, 24)


@pytest.mark.storm
@pytest.mark.parametrize("_turn", range(4))
def test_stores_and_model_agree_on_a_storm_of_keys_deadlines_and_caps(_turn: int) -> None:
    tell(Terms, 100, steps=80)
