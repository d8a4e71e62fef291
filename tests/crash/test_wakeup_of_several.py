"""Who waits for jobs of several topics is called for each of them, and sleeps through all others.

As in `test_wakeup`: a waiter that missed its call would look again a second after it fell asleep.
"""

import os
import signal
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

import jobq
from jobq import Pattern
from jobq.repo.lmdb import steps
from jobq.repo.lmdb.bell import COUNTERS, Bell
from jobq.shares import Topics
from tests.conftest import eventually
from tests.crash.conftest import Say
from tests.crash.processes import Pipe, Start, kill_myself, threads_of, waits
from tests.crash.test_wakeup import MISSED_S, SOON_S, _make_topics, _now_ns, asleep, seconds

ANY: Topics = ["first", "second", Pattern("mail.*")]


@pytest.mark.parametrize("topic", ["first", "second", "mail.a"])
@pytest.mark.parametrize("topic_exists", [True, False])
@pytest.mark.parametrize("strict", [True, False])
def test_a_waiter_gets_a_job_of_any_of_its_topics(
    topic: str, topic_exists: bool, strict: bool, start: Start, path: str
) -> None:
    with jobq.open(path) as svc:
        _make_topics(svc, "first", "other")
        if topic_exists:
            _make_topics(svc, topic)
        waiter = asleep(start(_get, path, ANY, strict))
        since_ns = time.monotonic_ns()
        svc.enqueue(topic, "now")

        assert seconds(waiter, since_ns) < SOON_S


def test_all_who_wait_for_several_topics_are_called(start: Start, path: str) -> None:
    with jobq.open(path) as svc:
        _make_topics(svc, "first", "second")
        waiters = [
            asleep(start(_get, path, topics, False))
            for topics in (ANY, ["second", "never"], {"first": 2, "second": 1}, Pattern("s*"))
        ]
        waiters.append(asleep(start(_get, path, "second", False)))
        since_ns = time.monotonic_ns()
        svc.enqueue_many("second", range(len(waiters)))

        assert max(seconds(waiter, since_ns) for waiter in waiters) < SOON_S


def test_a_topic_that_shares_its_counter_is_waited_for_too(start: Start, path: str) -> None:
    with jobq.open(path, durability="unsafe") as svc:
        for number in range(COUNTERS + 8):
            _make_topics(svc, f"topic {number}")
    with jobq.open(path) as svc:
        last = [f"topic {COUNTERS + 1}", f"topic {COUNTERS + 2}"]
        for topics in (last, Pattern("topic *")):
            waiter = asleep(start(_get, path, topics, False))
            since_ns = time.monotonic_ns()
            svc.enqueue(last[1])

            assert seconds(waiter, since_ns) < SOON_S


def test_a_delayed_job_comes_at_its_time(start: Start, path: str) -> None:
    with jobq.open(path) as svc:
        waiter = asleep(start(_get, path, ANY, False))
        since_ns = time.monotonic_ns()
        svc.enqueue("second", delay=0.3)

        assert 0.3 <= seconds(waiter, since_ns) < 1.0


def test_a_call_between_a_waiters_last_look_and_its_sleep_is_not_missed(
    start: Start, path: str
) -> None:
    """Wherever it is on its way: before it asks to be called, after it, and just before sleep."""
    with jobq.open(path) as svc:
        _make_topics(svc, "first", "second")
        for step in ("page", "ask_for_several", "stand", "wait_for_several"):
            waiter = start(_hesitate, path, step)
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
        _make_topics(svc, "first", "second", "other")
        waiters = [asleep(start(_get, path, ANY, False)) for _ in range(3)]
        for _ in range(20):
            svc.enqueue("other")
        since_ns = time.monotonic_ns()
        svc.enqueue_many("second", range(3))

        assert max(seconds(waiter, since_ns) for waiter in waiters) < SOON_S


def test_a_producer_that_dies_before_it_calls_costs_a_waiter_a_second_at_most(
    start: Start, path: str
) -> None:
    with jobq.open(path) as svc:
        _make_topics(svc, "first", "second")
        waiter = asleep(start(_get, path, ANY, False))
        since_ns = time.monotonic_ns()
        producer = start(_enqueue_and_die, path, "committed")
        after = seconds(waiter, since_ns)

        assert producer.ended() == -signal.SIGKILL
        assert after < 1.0 + SOON_S


def test_traffic_on_other_topics_costs_a_waiter_next_to_nothing(
    start: Start, path: str, say: Say
) -> None:
    """It is called by each of their commits, and sleeps on without looking into the store."""
    commits = 2000
    with jobq.open(path, durability="unsafe") as svc:
        _make_topics(svc, "first", "other")
        waiter = asleep(start(_get, path, ANY, False))
        before, since_ns = cpu_seconds(waiter.pid), time.monotonic_ns()
        for number in range(commits):
            svc.enqueue("other", number)
        spent = cpu_seconds(waiter.pid) - before
        took = (time.monotonic_ns() - since_ns) / 1e9
        svc.enqueue("first")
        seconds(waiter, since_ns)
    say(f"{commits} commits in {took:.2f} s cost who waits for other topics {spent:.2f} s")

    assert spent < 200e-6 * commits


def test_stop_wakes_all_threads_that_wait(path: str) -> None:
    with jobq.open(path) as svc:
        _make_topics(svc, "first")
        ended: list[list[Any]] = []
        threads = [
            threading.Thread(target=lambda: ended.append(svc.reserve(ANY)), daemon=True)
            for _ in range(4)
        ]
        for thread in threads:
            thread.start()
        eventually(lambda: sum(map(waits, threads_of(os.getpid()))) == len(threads))
        since = time.monotonic()
        svc.stop()
        for thread in threads:
            thread.join(5)

        assert ended == [[]] * 4
        assert time.monotonic() - since < SOON_S


def test_no_call_is_missed_while_processes_pass_jobs_on(start: Start, path: str, say: Say) -> None:
    """Each waits for two topics of its own, in turns with who waits for one; all nearly asleep."""
    players, passes, balls = 4, 1500, 3
    with jobq.open(path, retention=0, durability="unsafe") as svc:
        names = [f"player {number}.{side}" for number in range(players) for side in "ab"]
        _make_topics(svc, "end", *names)
        children = [start(_pass_on, path, number, players) for number in range(players)]
        for child in children:
            child.hear()
        for ball in range(balls):
            svc.enqueue("player 0.a", {"left": passes // balls, "ball": ball, "ns": _now_ns()})
        dropped: list[jobq.Job] = []
        while len(dropped) < balls:
            jobs = svc.reserve(["end", "never"], balls, timeout=60)
            assert jobs
            dropped += jobs
        svc.done_many(dropped)
        for child in children:
            child.signal(signal.SIGTERM)
        slowest_ns, count = zip(*(child.hear() for child in children), strict=True)
        report = svc.check()
    slowest = max(slowest_ns) / 1e9
    say(f"{sum(count)} passes between {players} processes, the slowest took {slowest:.3f} s")

    assert sum(count) >= passes - balls
    assert slowest < MISSED_S
    assert report.problems == ()


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


def _get(pipe: Pipe, path: str, topics: Topics, strict: bool) -> None:
    with jobq.open(path) as svc:
        pipe.send("about to wait")
        pipe.recv()
        jobs = svc.reserve(topics, strict=strict, timeout=30)
        pipe.send(_now_ns())
        svc.done_many(jobs)


def _hesitate(pipe: Pipe, path: str, at: str) -> None:
    """Wait for a job, but go on from a step only when told to."""
    step = getattr(Bell, at)

    def hesitate(bell: Bell, *arguments: Any) -> Any:
        setattr(Bell, at, step)
        page = step(bell) if at == "page" else None
        pipe.send(at)
        pipe.recv()
        return page or step(bell, *arguments)

    with jobq.open(path) as svc:
        assert svc.reserve(ANY, timeout=0) == []
        setattr(Bell, at, hesitate)
        jobs = svc.reserve(ANY, timeout=30)
        pipe.send(_now_ns())
        svc.done_many(jobs)


def _enqueue_and_die(_: Pipe, path: str, at: str) -> None:
    svc = jobq.open(path)

    def reached(step: str) -> None:
        if step == at:
            kill_myself()

    steps.reached = reached
    svc.enqueue("second")


def _pass_on(pipe: Pipe, path: str, me: int, players: int) -> None:
    """Pass jobs on to the next one; say the longest that one was underway, and how many."""
    with jobq.open(path, retention=0, durability="unsafe") as svc:
        signal.signal(signal.SIGTERM, lambda *_: svc.stop())
        slowest_ns = count = 0
        mine: Topics = Pattern(f"player {me}.*") if me % 2 else [f"player {me}.b", f"player {me}.a"]
        pipe.send("ready")
        while jobs := svc.reserve(mine):
            for job in jobs:
                ball = job.payload
                slowest_ns = max(slowest_ns, _now_ns() - ball["ns"])
                count += 1
                left = ball["left"] - 1
                to = f"player {(me + 1) % players}.{'ab'[count % 2]}" if left > 0 else "end"
                ball = {"left": left, "ball": ball["ball"], "ns": _now_ns()}
                job.done(then=[jobq.NewJob(to, ball)])
        pipe.send((slowest_ns, count))


def _count(pipe: Pipe, path: str, shares: dict[str, float], n: int, most: int) -> None:
    """Take jobs, and say of which topics."""
    given: Counter[str] = Counter()
    with jobq.open(path, durability="unsafe", retention=0) as svc:
        while given.total() < most:
            jobs = svc.reserve(shares, min(n, most - given.total()), timeout=0)
            given.update(job.topic for job in jobs)
            svc.done_many(jobs)
    pipe.send(dict(given))
