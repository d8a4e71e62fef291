"""Random stories of groups, limits, rates and ageing: every store answers as the plain model does.

The clock stops wherever something falls due, so that one thing happens at a time. At the end all is
set free, handed out and done. `pytest -m storm` tells many more and longer ones.
"""

import contextlib
import tempfile
from pathlib import Path
from typing import Any, ClassVar

import pytest
from hypothesis import note
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

from jobq.clock import ManualClock
from jobq.job import Change, JobSpec, Settlement
from jobq.options import JobOptions
from jobq.repo.base import ReserveRequest, Store
from jobq.states import Event, Status
from tests.conftest import DURABLE, STORES, Kind
from tests.model.flow import FlowModel
from tests.model.telling import tell

SECOND_US = 1_000_000

TOPICS = st.sampled_from(["mail", "mail", "mail", "other"])
GROUPS = st.sampled_from([None, "a", "b", "c"])
WEIGHTS = st.integers(-2, 2)
DELAYS = st.sampled_from([0, 0, 3 * SECOND_US, 20 * SECOND_US])
WHICH = st.integers(0, 30)
SETTINGS: dict[str, st.SearchStrategy[Any]] = {
    "paused": st.sampled_from([None, None, True]),
    "concurrency": st.sampled_from([None, 1, 2, 5]),
    "rate": st.sampled_from([None, (1, 10.0), (3, 4.0)]),
    "burst": st.sampled_from([None, 1, 2]),
    "group_concurrency": st.sampled_from([None, 1, 1, 2]),
    "group_rate": st.sampled_from([None, (1, 10.0), (2, 7.0)]),
    "group_burst": st.sampled_from([None, 1, 3]),
    "group_retries": st.sampled_from([None, "block", "pass"]),
    "ageing": st.sampled_from([None, 5.0]),
}


class FlowStory(RuleBasedStateMachine):
    """One story, told to a store of each kind and to the model."""

    kinds: tuple[Kind, ...] = STORES
    first: ClassVar[dict[str, Any]] = {}

    def __init__(self) -> None:
        super().__init__()
        self._ends = contextlib.ExitStack()
        self.directory = Path(self._ends.enter_context(tempfile.TemporaryDirectory()))
        self.clock = ManualClock()
        self.model = FlowModel(self.clock.wall_us(), self.clock.boot_us())
        self.stores: dict[str, Store] = {}
        for kind in self.kinds:
            self.stores[kind.name] = self._open(kind)
        self.ids: dict[str, list[bytes]] = {name: [] for name in self.stores}
        self.held: list[tuple[int, int]] = []
        self.unique = 0

    def _open(self, kind: Kind) -> Store:
        return kind.open(self.directory / kind.name, clock=self.clock)

    def teardown(self) -> None:
        try:
            self._serve_all()
        finally:
            for store in self.stores.values():
                store.close()
            self._ends.close()

    def _serve_all(self) -> None:
        """Set all free, and see that every job is handed out once, by age as before."""
        for topic in ("mail", "other"):
            for name in SETTINGS.keys() - {"ageing"}:
                self._configure(topic, {name: None})
        self._pass(3600 * SECOND_US)
        for topic in ("mail", "other"):
            self._reserve(topic, 1000)
        assert all(
            job.status in {Status.RESERVED, Status.DONE, Status.CANCELED} for job in self.model.jobs
        )
        for number, token in list(self.held):
            self._settle(number, token, "done", 0)
        for name, store in self.stores.items():
            assert store.check().problems == (), name

    # What happens.

    @initialize(
        changes=st.fixed_dictionaries({}, optional=SETTINGS),
        jobs=st.lists(st.tuples(GROUPS, WEIGHTS, st.sampled_from([0, 3])), max_size=20),
    )
    def begin(self, changes: dict[str, Any], jobs: list[tuple[str | None, int, int]]) -> None:
        if changes := {**changes, **self.first}:
            self._configure("mail", changes)
        for group, weight, seconds in jobs:
            self._pass(seconds * SECOND_US)
            self.enqueue("mail", group, weight, 0, 1)

    @rule(topic=TOPICS, group=GROUPS, weight=WEIGHTS, delay_us=DELAYS, again=st.integers(1, 3))
    def enqueue(
        self, topic: str, group: str | None, weight: int, delay_us: int, again: int
    ) -> None:
        for _ in range(again):
            self.unique += 1  # so that no two jobs fall due in one moment
            lease = 30 + self.unique / 1e6
            options = JobOptions.of({"group": group, "lease": lease, "max_crashes": 0})
            delay = delay_us and delay_us + self.unique
            for name, store in self.stores.items():
                self.ids[name] += store.enqueue([JobSpec(topic, weight, delay, b"", options)])
            assert options.lease_us is not None
            self.model.enqueue(topic, group, weight, delay, options.lease_us)
            self._compare()

    @rule(topic=TOPICS, n=st.integers(1, 5))
    def reserve(self, topic: str, n: int) -> None:
        self._reserve(topic, n)
        self._compare()

    @rule(
        which=WHICH,
        event=st.sampled_from(["done", "done", "retry", "release", "cancel"]),
        delay_us=DELAYS,
    )
    def settle(self, which: int, event: str, delay_us: int) -> None:
        if self.held:
            self.unique += 1
            held = self.held[-1 - which % len(self.held)]
            self._settle(*held, event, delay_us and delay_us + self.unique)
            self._compare()

    @rule(which=WHICH)
    def extend(self, which: int) -> None:
        if self.held:
            self.unique += 1
            number, token = self.held[-1 - which % len(self.held)]
            lease_us = 40 * SECOND_US + self.unique
            expected = self.model.extend(number, token, lease_us)
            for name, store in self.stores.items():
                assert store.extend([(self.ids[name][number], token, lease_us)]) == [expected]
            self._compare()

    @rule(which=WHICH, verb=st.sampled_from(["cancel", "reset", "delete"]))
    def change(self, which: int, verb: str) -> None:
        if self.model.jobs:
            number = which % len(self.model.jobs)
            expected = getattr(self.model, verb)(number)
            for name, store in self.stores.items():
                assert getattr(store, verb)([self.ids[name][number]]) == [expected], name
            self._compare()

    @rule(which=WHICH)
    def cancel_held(self, which: int) -> None:
        held = [job for job in self.model.jobs if job.status is Status.RESERVED]
        if held:
            self.change(self.model.jobs.index(held[which % len(held)]), "cancel")

    @rule(
        which=WHICH,
        change=st.fixed_dictionaries(
            {}, optional={"topic": TOPICS, "group": GROUPS, "weight": WEIGHTS, "delay_us": DELAYS}
        ),
    )
    def edit(self, which: int, change: dict[str, Any]) -> None:
        if not self.model.jobs or not change:
            return
        self.unique += 1
        number = which % len(self.model.jobs)
        if change.get("delay_us"):
            change = {**change, "delay_us": change["delay_us"] + self.unique}
        expected = self.model.edit(number, change)
        given = {name: value for name, value in change.items() if name != "group"}
        if "group" in change:
            given["options"] = {"group": change["group"]}
        for name, store in self.stores.items():
            assert store.edit([self.ids[name][number]], Change(**given)) == [expected], name
        self._compare()

    @rule(topic=TOPICS, name=st.sampled_from(list(SETTINGS)), data=st.data())
    def configure(self, topic: str, name: str, data: st.DataObject) -> None:
        self._configure(topic, {name: data.draw(SETTINGS[name])})
        self._compare()

    @rule(seconds=st.sampled_from([0.5, 1.0, 2.5, 10.0, 31.0]))
    def pass_time(self, seconds: float) -> None:
        self._pass(int(seconds * SECOND_US))
        self._compare()

    # How it is told.

    def _reserve(self, topic: str, n: int) -> None:
        expected = self.model.reserve(topic, n)
        note(f"{topic}: {expected}")
        for name, store in self.stores.items():
            taken = store.reserve(ReserveRequest(topic, n))
            got = [(self.ids[name].index(job.id), job.token) for job in taken]
            assert got == expected, name
        self.held += expected

    def _settle(self, number: int, token: int, event: str, delay_us: int) -> None:
        expected = self.model.settle(number, token, event, delay_us)
        for name, store in self.stores.items():
            settlement = Settlement(self.ids[name][number], token, Event(event), delay_us)
            assert store.settle([settlement]).outcomes == [expected], name

    def _configure(self, topic: str, changes: dict[str, Any]) -> None:
        self.model.configure(topic, changes)
        for store in self.stores.values():
            store.configure(topic, changes)

    def _pass(self, us: int) -> None:
        while us:
            until_us = self.model.until_next()
            passes_us = us if until_us is None else min(us, until_us)
            self.clock.advance(passes_us / 1e6)
            self.model.let_pass(passes_us)
            us -= passes_us
            for store in self.stores.values():
                store.advance()

    def _compare(self) -> None:
        expected = [
            None if number in self.model.gone else job.status
            for number, job in enumerate(self.model.jobs)
        ]
        for name, store in self.stores.items():
            assert store.status(self.ids[name]) == expected, name


class Reopened(FlowStory):
    """The store is closed at any time, and with it its holder is dead; then it is opened again."""

    kinds = DURABLE

    @rule()
    def reopen(self) -> None:
        for kind in self.kinds:
            self.stores[kind.name].close()
            self.stores[kind.name] = self._open(kind)
        self.model.holder_dies()
        self._compare()


class Aged(FlowStory):
    """Jobs and groups of many weights that age."""

    first: ClassVar[dict[str, Any]] = {"ageing": 2.0}


STORIES = (FlowStory, Aged, Reopened)


@pytest.mark.parametrize("story", STORIES)
def test_limits_and_turns_are_the_models(story: type[FlowStory]) -> None:
    tell(story, 14)


@pytest.mark.storm
@pytest.mark.parametrize("_turn", range(3))
@pytest.mark.parametrize("story", STORIES)
def test_limits_and_turns_are_the_models_in_long_stories(
    story: type[FlowStory], _turn: int
) -> None:
    tell(story, 250, steps=100)
