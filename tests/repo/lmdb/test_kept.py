"""What a process remembers between its commits is what another one has left, or is read anew."""

import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import jobq
from jobq import JobService, Outcome, Status
from tests.conftest import DEADLINE_S
from tests.repo.lmdb.conftest import Start
from tests.repo.lmdb.processes import hear, say


def _does_what_it_hears(path: str) -> None:
    with jobq.open(path) as svc:
        say("ready")
        while (call := hear()) is not None:
            verb, args, options = call
            answer = getattr(svc, verb)(*args, **options)
            say(len(answer) if verb == "reserve" else None)


@pytest.fixture
def svc(tmp_path: Path) -> Any:
    with jobq.open(tmp_path / "queue") as svc:
        svc.enqueue_many("mail", ["one", "two", "three"])
        svc.done_many(svc.reserve("mail", 1, timeout=0))
        yield svc
        assert svc.check().problems == ()


@pytest.fixture
def other(svc: JobService, tmp_path: Path, start: Start) -> Callable[..., Any]:
    """Has another process call a verb."""
    assert not svc.closed
    child = start(_does_what_it_hears, str(tmp_path / "queue"))
    assert child.said() == "ready"

    def call(verb: str, *args: Any, **options: Any) -> Any:
        child.tell((verb, args, options))
        return child.said()

    return call


def test_settings_of_another_process_hold_at_the_next_call(
    svc: JobService, other: Callable[..., Any]
) -> None:
    other("pause", "mail")
    assert svc.reserve("mail", timeout=0) == []
    other("resume", "mail")
    assert len(svc.reserve("mail", timeout=0)) == 1


def test_jobs_that_another_process_brings_and_takes_are_counted(
    svc: JobService, other: Callable[..., Any]
) -> None:
    other("enqueue_many", "mail", [0] * 5)
    svc.enqueue("mail")
    assert svc.stats("mail").totals.ready == 8
    other("purge", "mail", status="ready")
    svc.enqueue("mail")
    assert svc.stats("mail").totals.ready == 1


def test_a_topic_that_another_process_makes_is_found(
    svc: JobService, other: Callable[..., Any]
) -> None:
    assert svc.reserve("new", timeout=0) == []
    other("enqueue", "new", "job")
    assert [job.payload for job in svc.reserve("new", timeout=0)] == ["job"]


def test_a_delay_that_another_process_set_ends_in_time(
    svc: JobService, other: Callable[..., Any]
) -> None:
    late = svc.enqueue("late", "late", delay=3600)  # so when the first is due is known
    assert svc.reserve("late", timeout=0) == []
    other("enqueue", "late", "soon", delay=0.2)
    jobs = svc.reserve("late", timeout=DEADLINE_S)
    assert [job.payload for job in jobs] == ["soon"]
    assert svc.status(late) is Status.DELAYED


def test_a_lease_of_another_process_ends_in_time(
    svc: JobService, other: Callable[..., Any]
) -> None:
    held = svc.reserve("mail", timeout=0)  # for ten minutes: so when the first ends is known
    other("enqueue", "short", "job", lease=0.2)
    assert other("reserve", "short", timeout=0) == 1
    jobs = svc.reserve("short", timeout=DEADLINE_S)
    assert [job.crashes for job in jobs] == [1]
    assert svc.done_many(held) == [Outcome.OK]


def test_two_processes_that_take_turns_lose_nothing(
    svc: JobService, other: Callable[..., Any]
) -> None:
    chance = random.Random(time.time_ns())
    brought = 2
    for number in range(60):
        topic = f"t{chance.randrange(4)}"
        if chance.random() < 0.5:
            svc.enqueue(topic, number)
        else:
            other("enqueue", topic, number)
        brought += 1
        if chance.random() < 0.2:
            svc.done_many(svc.reserve(topic, 2, timeout=0))
    totals = svc.stats().totals
    assert totals.ready + totals.done == brought + 1
