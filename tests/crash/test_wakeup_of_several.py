"""Who waits for jobs of several topics is called for each of them, and sleeps through all others.

As in `waiters`: a waiter that missed its call would look again half a minute after it fell asleep.
"""

import os
import signal
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import jobq
from jobq import Pattern
from jobq.repo.lmdb import futex
from jobq.repo.lmdb.bell import COUNTERS
from jobq.shares import Topics
from tests.conftest import SOON_S, eventually
from tests.crash.conftest import Say
from tests.crash.processes import Child, Pipe, Start, waits
from tests.crash.waiters import (
    Player,
    asleep,
    at_the_one,
    enqueue_and_die,
    get,
    get_and_die,
    get_or_look,
    hesitate,
    make_topics,
    play,
    seconds,
    stop_threads,
)

ANY: Topics = ["first", "second", Pattern("mail.*")]


@pytest.mark.parametrize("topic", ["first", "second", "mail.a"])
@pytest.mark.parametrize("topic_exists", [True, False])
@pytest.mark.parametrize("strict", [True, False])
def test_a_waiter_gets_a_job_of_any_of_its_topics(
    topic: str, topic_exists: bool, strict: bool, start: Start, path: str
) -> None:
    with jobq.open(path) as svc:
        make_topics(svc, "first", "other")
        if topic_exists:
            make_topics(svc, topic)
        waiter = asleep(start(get, path, ANY, strict))
        since_ns = time.monotonic_ns()
        svc.enqueue(topic, "now")

        assert seconds(waiter, since_ns) < SOON_S


def test_all_who_wait_for_several_topics_are_called(start: Start, path: str) -> None:
    with jobq.open(path) as svc:
        make_topics(svc, "first", "second")
        waiters = [
            asleep(start(get, path, topics))
            for topics in (ANY, ["second", "never"], {"first": 2, "second": 1}, Pattern("s*"))
        ]
        waiters.append(asleep(start(get, path, "second")))
        waiters.append(asleep(start(at_the_one, get, path, ANY)))
        since_ns = time.monotonic_ns()
        svc.enqueue_many("second", range(len(waiters)))

        assert max(seconds(waiter, since_ns) for waiter in waiters) < SOON_S


def test_a_topic_that_shares_its_counter_is_waited_for_too(start: Start, path: str) -> None:
    with jobq.open(path, durability="unsafe") as svc:
        for number in range(COUNTERS + 8):
            make_topics(svc, f"topic {number}")
    with jobq.open(path) as svc:
        last = [f"topic {COUNTERS + 1}", f"topic {COUNTERS + 2}"]
        for topics in (last, Pattern("topic *")):
            waiter = asleep(start(get, path, topics))
            since_ns = time.monotonic_ns()
            svc.enqueue(last[1])

            assert seconds(waiter, since_ns) < SOON_S


def test_a_delayed_job_comes_at_its_time(start: Start, path: str) -> None:
    with jobq.open(path) as svc:
        waiter = asleep(start(get, path, ANY))
        since_ns = time.monotonic_ns()
        svc.enqueue("second", delay=0.3)

        assert 0.3 <= seconds(waiter, since_ns) < SOON_S


def test_a_call_between_a_waiters_last_look_and_its_sleep_is_not_missed(
    start: Start, path: str
) -> None:
    """Wherever it is on its way: before it asks to be called, after it, and just before sleep."""
    with jobq.open(path) as svc:
        make_topics(svc, "first", "second")
        for step in ("page", "may_wait_for", "wait_for_any"):
            waiter = start(hesitate, path, ANY, step)
            assert waiter.hear() == step
            svc.enqueue("second")
            since_ns = time.monotonic_ns()
            waiter.tell("go on")

            assert seconds(waiter, since_ns) < SOON_S, step


def test_where_the_kernel_cannot_sleep_at_several_no_call_is_missed_before_the_sleep(
    start: Start, path: str
) -> None:
    with jobq.open(path) as svc:
        make_topics(svc, "first", "second")
        for step in ("page", "ask_for_several", "stand", "wait_for_several"):
            waiter = start(at_the_one, hesitate, path, ANY, step)
            assert waiter.hear() == step
            svc.enqueue("second")
            since_ns = time.monotonic_ns()
            waiter.tell("go on")

            assert seconds(waiter, since_ns) < SOON_S, step


def test_a_call_that_is_answered_for_another_topic_is_asked_for_again(
    start: Start, path: str
) -> None:
    """Each call clears the flag of all waiters; each of them sets it again before it sleeps."""
    with jobq.open(path) as svc:
        make_topics(svc, "first", "second", "other")
        waiters = [asleep(start(at_the_one, get, path, ANY)) for _ in range(3)]
        for _ in range(20):
            svc.enqueue("other")
        since_ns = time.monotonic_ns()
        svc.enqueue_many("second", range(3))

        assert max(seconds(waiter, since_ns) for waiter in waiters) < SOON_S


def test_a_producer_that_dies_before_it_calls_costs_a_waiter_a_second_at_most(
    start: Start, path: str
) -> None:
    with jobq.open(path) as svc:
        make_topics(svc, "first", "second")
        waiter = asleep(start(get_or_look, path, ANY))
        since_ns = time.monotonic_ns()
        producer = start(enqueue_and_die, path, "second", "committed")
        after = seconds(waiter, since_ns)

        assert producer.ended() == -signal.SIGKILL
        assert after < SOON_S


@pytest.mark.skipif(not futex.can_wait_for_any(), reason="here all of them are called")
def test_a_waiter_that_is_killed_when_it_was_called_costs_another_one_a_second_at_most(
    start: Start, path: str
) -> None:
    with jobq.open(path) as svc:
        make_topics(svc, "first", "second")
        first = start(get_and_die, path, ["first", "second"])
        eventually(lambda: waits(first.pid))
        waiter = asleep(start(get_or_look, path, ["second", "first"]))
        since_ns = time.monotonic_ns()
        svc.enqueue("second")
        after = seconds(waiter, since_ns)

        assert first.ended() == -signal.SIGKILL
        assert after < SOON_S


@pytest.mark.parametrize("way", ["at their counters", "at the one"])
def test_traffic_on_other_topics_costs_a_waiter_next_to_nothing(
    way: str, start: Start, path: str, say: Say
) -> None:
    """It is not called; or called by each of their commits, and does not look into the store."""
    commits = 2000
    with jobq.open(path, durability="unsafe") as svc:
        make_topics(svc, "first", "other")
        work = (get,) if way == "at their counters" else (at_the_one, get)
        waiter = asleep(start(*work, path, ANY))
        before, since_ns = cpu_seconds(waiter.pid), time.monotonic_ns()
        for number in range(commits):
            svc.enqueue("other", number)
        spent = cpu_seconds(waiter.pid) - before
        took = (time.monotonic_ns() - since_ns) / 1e9
        svc.enqueue("first")
        seconds(waiter, since_ns)
    say(f"{commits} commits in {took:.2f} s cost who waits for other topics {spent:.2f} s")

    assert spent < 200e-6 * commits


@pytest.mark.usefixtures("sound_sleep")
def test_stop_wakes_all_threads_that_wait(path: str) -> None:
    with jobq.open(path) as svc:
        make_topics(svc, "first")

        assert stop_threads(svc, ANY, 4) < SOON_S


@pytest.mark.usefixtures("sound_sleep")
@pytest.mark.parametrize("way", ["at their counters", "at the one", "both"])
def test_no_call_is_missed_while_processes_pass_jobs_on(
    way: str, start: Start, path: str, say: Say
) -> None:
    """Each waits for two topics of its own, in turns with who waits for one; all nearly asleep."""
    started = 0

    def start_in_that_way(work: Callable[..., object], *arguments: Any) -> Child:
        nonlocal started
        started += 1
        at_one = way == "at the one" or (way == "both" and started % 3 == 0)
        return start(at_the_one, work, *arguments) if at_one else start(work, *arguments)

    n, passes, balls = 4, 500, 3
    names = [[f"player {me}.{side}" for side in "ab"] for me in range(n)]
    players: list[Player] = [
        (Pattern(f"player {me}.*") if me % 2 else names[me][::-1], names[(me + 1) % n])
        for me in range(n)
    ]
    count, slowest = play(
        start_in_that_way,
        path,
        players,
        passes=passes,
        balls=balls,
        end=["end", "never"],
        durability="unsafe",
    )
    say(f"{count} passes between {n} processes, the slowest took {slowest:.3f} s")

    assert count >= passes - balls
    assert slowest < SOON_S


def test_processes_share_their_turns(start: Start, path: str) -> None:
    """Three processes with batches of different sizes: within one percent of the shares."""
    shares = {"mail": 5, "import": 1}
    with jobq.open(path, durability="unsafe", retention=0) as svc:
        for topic in shares:
            svc.enqueue_many(topic, range(10_000))
        children = [start(_count, path, shares, n, 4000) for n in (1, 7, 100)]
        given: Counter[str] = Counter()
        for child in children:
            given.update(child.hear(60))

    total = given.total()
    for topic, share in shares.items():
        assert abs(given[topic] - total * share / 6) < 0.01 * total * share / 6


# In the test.


def cpu_seconds(pid: int) -> float:
    """Processor time that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


# What the children do.


def _count(pipe: Pipe, path: str, shares: dict[str, float], n: int, most: int) -> None:
    """Take jobs, and say of which topics."""
    given: Counter[str] = Counter()
    with jobq.open(path, durability="unsafe", retention=0) as svc:
        while given.total() < most:
            jobs = svc.reserve(shares, min(n, most - given.total()), timeout=0)
            given.update(job.topic for job in jobs)
            svc.done_many(jobs)
    pipe.send(dict(given))
