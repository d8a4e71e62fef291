"""The storms prove themselves: jobq is broken on purpose, and each time the oracle says so."""

import random
import sys
import threading
import time
from pathlib import Path
from typing import Any, Final

import pytest

from jobq.repo.lmdb import LmdbStore, steps
from jobq.repo.lmdb.environment import Environment
from jobq.repo.lmdb.group import Pending
from jobq.repo.lmdb.holders import Holders
from jobq.repo.lmdb.topic_records import TopicRecords
from jobq.repo.lmdb.topics import LmdbTopics
from jobq.repo.operations import due
from jobq.states import Status
from tests.crash.processes import Start
from tests.torture.kills.sea import Fault, Storm, nothing, storm_over
from tests.torture.kills.zygote import Gale

KILLS: Final = Storm(Gale(8, 0.012), 150)
LONGER: Final = Storm(Gale(8, 0.012), 600, worst_s=3.0)
STOPS: Final = Storm(Gale(6, 0.03, stops=0.8, stop_s=1.0), 100, lease_s=0.2)
IMPATIENT: Final = KILLS._replace(patience_s=8.0)
RARELY: Final = 0.1
CHANCE: Final = random.SystemRandom()
"""Not the same in each fork of one process."""


def the_living_look_dead() -> None:
    Holders._is_dead = lambda *_: True  # type: ignore[method-assign]


def the_dead_look_alive() -> None:
    Holders._is_dead = lambda *_: False  # type: ignore[method-assign]


def no_fence() -> None:
    """Who calls may settle, whoever holds the job by now."""
    real = LmdbStore.settle

    def settle(self: LmdbStore, settlements: Any, reserve: Any = None) -> Any:
        states = self._read(lambda tx: tx.jobs.states([one.id for one in settlements]))
        pairs = zip(settlements, states, strict=True)
        forged = [one._replace(token=state.token if state else 1) for one, state in pairs]
        return real(self, forged, reserve)

    LmdbStore.settle = settle  # type: ignore[method-assign]


def acknowledged_before_the_commit() -> None:
    """A little before it."""
    real = Environment.write
    outcomes: dict[int, Any] = {}

    def write(self: Environment, pending: Pending) -> None:
        raised: list[BaseException] = []

        def commit() -> None:
            pending.thread = threading.get_ident()
            try:
                real(self, pending)
            except BaseException as error:  # noqa: BLE001 - raised by who waits
                raised.append(error)

        thread = threading.Thread(target=commit, daemon=True)
        thread.start()
        while thread.is_alive() and id(pending) not in outcomes:
            time.sleep(0.0005)
        if raised:
            raise raised[0]
        pending.outcome = outcomes.pop(id(pending), pending.outcome)

    def reached(step: str) -> None:
        if step == "counts written":
            work = sys._getframe(1).f_locals
            outcomes.update(zip(map(id, work["group"]), work["outcomes"], strict=True))
            time.sleep(0.003)

    Environment.write = write  # type: ignore[method-assign]
    steps.reached = reached


def a_job_is_dropped() -> None:
    real = LmdbStore.enqueue

    def enqueue(self: LmdbStore, specs: Any) -> Any:
        jobs = real(self, specs)
        if CHANCE.random() < RARELY:
            self.delete(jobs[:1])
        return jobs

    LmdbStore.enqueue = enqueue  # type: ignore[method-assign,assignment]


def a_job_is_added_twice() -> None:
    real = LmdbStore.enqueue

    def enqueue(self: LmdbStore, specs: Any) -> Any:
        if CHANCE.random() < RARELY:
            real(self, specs)
        return real(self, specs)

    LmdbStore.enqueue = enqueue  # type: ignore[method-assign,assignment]


def crashes_are_not_counted() -> None:
    real = due.put_back  # type: ignore[attr-defined] # imported there

    def put_back(tx: Any, back: Any) -> None:
        real(tx, [(job, state._replace(crashes=0), at) for job, state, at in back])

    due.put_back = put_back  # type: ignore[attr-defined,assignment]


def a_count_is_forgotten() -> None:
    real = TopicRecords.count

    def count(self: TopicRecords, topic: int, status: Status, change: int) -> None:
        if status is not Status.DONE or CHANCE.random() > RARELY:
            real(self, topic, status, change)

    TopicRecords.count = count  # type: ignore[method-assign]


def an_index_is_forgotten() -> None:
    """A job is ready, and in no queue."""
    real = LmdbTopics.push

    def push(self: LmdbTopics, topic: int, jobs: Any) -> None:
        real(self, topic, jobs if CHANCE.random() > RARELY else jobs[1:])

    LmdbTopics.push = push  # type: ignore[method-assign]


@pytest.mark.storm
@pytest.mark.parametrize(
    ("fault", "storm", "noticed"),
    [
        (the_living_look_dead, KILLS, ("got it while",)),
        (the_dead_look_alive, LONGER, ("jobs of the dead took",)),
        (no_fence, STOPS, (" began", "it was done 2 times", "was handed out again after")),
        (acknowledged_before_the_commit, KILLS, ("it is lost", "was handed out twice")),
        (a_job_is_dropped, KILLS, ("it is lost",)),
        (a_job_is_added_twice, KILLS, ("was added twice",)),
        (crashes_are_not_counted, KILLS, ("holders ended without a word",)),
        (a_count_is_forgotten, KILLS, ("stats says",)),
        (an_index_is_forgotten, IMPATIENT, ("not all jobs can be finished",)),
    ],
)
def test_a_broken_store_is_noticed(
    fault: Fault,
    storm: Storm,
    noticed: tuple[str, ...],
    start: Start,
    tmp_path: Path,
    seed: int,
) -> None:
    """By one of the things that it may do; which, is chance."""
    try:
        problems = storm_over(storm, start, tmp_path, seed, fault).problems
    except AssertionError as error:  # a process of the storm may meet it first, and end by it
        problems = [f"{noticed[0]}: {error}"] if "ended by itself" in str(error) else [str(error)]

    assert any(what in problem for problem in problems for what in noticed), problems


@pytest.mark.storm
@pytest.mark.parametrize("storm", [KILLS, STOPS], ids=["kills", "stops"])
def test_a_whole_store_passes(storm: Storm, start: Start, tmp_path: Path, seed: int) -> None:
    assert storm_over(storm, start, tmp_path, seed, nothing).problems == []
