"""Who waits for a topic at a limit sleeps, and gets a job just when the limit lets it go.

As in `waiters`: a waiter that missed its call would look again after half a minute.
"""

import os
import time
from typing import Any, Final

import pytest

import jobq
from jobq import JobService
from tests.conftest import SOON_S, eventually, sleep_soundly
from tests.crash.conftest import Say
from tests.crash.processes import Child, Pipe, Start, waits
from tests.crash.verbs import whole
from tests.crash.waiters import PATIENCE_S, asleep, seconds

STORM: Final = pytest.mark.storm

LIMITS: Final[dict[str, tuple[str, ...]]] = {
    "concurrency": ("concurrency",),
    "group": ("group_concurrency",),
    "both": ("concurrency", "group_concurrency"),
}
"""What limits how many jobs run at once, of the topic or of its only group."""

BY_LIMIT: Final = pytest.mark.parametrize(
    "limit", [*list(LIMITS)[:-1], pytest.param(list(LIMITS)[-1], marks=STORM)]
)

STAYS: Final = 1.0
"""Seconds of a wait that is watched; a waiter that spins takes as much of a processor."""

IDLE_S: Final = 0.25
"""The most processor time of a waiter that sleeps for so long: it looks round once a second."""


# A place becomes free.


@BY_LIMIT
@pytest.mark.parametrize(
    "how",
    [
        *("done", "retry", "release later", "close"),
        *(pytest.param(how, marks=STORM) for how in ("reject", "retry at once", "release")),
    ],
)
def test_a_waiter_at_a_limit_gets_a_job_when_another_process_gives_one_up(
    how: str, limit: str, start: Start, path: str
) -> None:
    with jobq.open(path) as svc:
        _limit(svc, limit)
        svc.configure("mail", group_retries="pass")
        svc.enqueue_many("mail", [1, 2], group="g")
        holder = _holding(start, path)
        waiter = asleep(start(_get, path))
        since_ns = time.monotonic_ns()
        holder.tell(how)

        assert seconds(waiter, since_ns) < SOON_S
        assert waiter.hear() == (1 if how in {"retry at once", "release", "close"} else 2)
        assert whole(svc) == []


@BY_LIMIT
def test_a_waiter_at_a_limit_gets_a_job_when_its_holder_dies(
    limit: str, start: Start, path: str, say: Say
) -> None:
    with jobq.open(path) as svc:
        _limit(svc, limit)
        svc.enqueue_many("mail", [1, 2], group="g")
        holder = _holding(start, path)
        waiter = asleep(start(_get_or_look, path))
        since_ns = time.monotonic_ns()
        holder.kill()
        took = seconds(waiter, since_ns)
        say(f"{took:.3f} s after the death")

        assert took < SOON_S, "it looks for the dead once a second"
        assert waiter.hear() == 1
        assert whole(svc) == []


@BY_LIMIT
def test_a_waiter_at_a_limit_gets_a_job_when_a_lease_is_over(
    limit: str, start: Start, path: str
) -> None:
    with jobq.open(path) as svc:
        _limit(svc, limit)
        svc.enqueue("mail", 1, group="g", lease=0.3)
        svc.enqueue("mail", 2, group="g")
        waiter = asleep(start(_get, path), after=lambda: svc.reserve("mail", timeout=0))
        since_ns = time.monotonic_ns()

        assert seconds(waiter, since_ns) < SOON_S
        assert waiter.hear() == 1


@BY_LIMIT
@pytest.mark.parametrize("how", ["late", "extend", "kill", "end of the lease"])
def test_a_waiter_gets_a_job_when_the_holder_of_a_canceled_one_knows_and_not_before(
    how: str, limit: str, start: Start, path: str
) -> None:
    lease = 4.0 if how == "end of the lease" else 600.0
    with jobq.open(path) as svc:
        _limit(svc, limit)
        first = svc.enqueue("mail", 1, group="g", lease=lease)
        svc.enqueue("mail", 2, group="g")
        holder = _holding(start, path)
        since_ns = time.monotonic_ns()
        waiter = asleep(start(_get_or_look if how == "kill" else _get, path))
        svc.cancel(first)
        assert svc.reserve("mail", timeout=0) == [], "the holder works on"
        eventually(lambda: waits(waiter.pid))
        assert not waiter.heard()
        if how == "kill":
            since_ns = time.monotonic_ns()
            holder.kill()
        elif how != "end of the lease":
            since_ns = time.monotonic_ns()
            holder.tell(how)

        assert seconds(waiter, since_ns) < SOON_S
        assert waiter.hear() == 2
        assert whole(svc) == []


@BY_LIMIT
def test_as_many_waiters_get_up_as_places_become_free(limit: str, start: Start, path: str) -> None:
    with jobq.open(path) as svc:
        _limit(svc, limit, 4)
        svc.enqueue_many("mail", range(10), group="g")
        held = svc.reserve("mail", 4, timeout=0)
        waiters = [asleep(start(_get, path)) for _ in range(4)]
        since_ns = time.monotonic_ns()
        svc.done_many(held)

        assert max(seconds(waiter, since_ns) for waiter in waiters) < SOON_S


# Settings are changed.


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ({"paused": True}, {"paused": False}),
        ({"concurrency": 1}, {"concurrency": 2}),
        ({"concurrency": 1}, {"concurrency": None}),
        ({"group_concurrency": 1}, {"group_concurrency": 2}),
        ({"group_concurrency": 1}, {"group_concurrency": None}),
        ({"rate": (1, 1000.0)}, {"rate": None}),
        ({"rate": (1, 1000.0)}, {"rate": (1000, 1.0)}),
        ({"group_rate": (1, 1000.0)}, {"group_rate": None}),
        ({"group_rate": (1, 1000.0)}, {"group_rate": (1000, 1.0)}),
        ({"rate": (1, 1000.0)}, {"burst": 2}),
    ],
    ids=repr,
)
def test_a_waiter_gets_a_job_when_the_limit_is_lifted(
    before: dict[str, Any], after: dict[str, Any], start: Start, path: str
) -> None:
    with jobq.open(path) as svc:
        svc.configure("mail", **before)
        svc.enqueue_many("mail", [1, 2, 3], group="g")
        svc.reserve("mail", timeout=0)
        waiter = asleep(start(_get, path))
        since_ns = time.monotonic_ns()
        svc.configure("mail", **after)

        assert seconds(waiter, since_ns) < SOON_S
        assert whole(svc) == []


@pytest.mark.parametrize("topics", ["mail", ["mail", "other"]], ids=repr)
def test_a_waiter_gets_a_job_when_the_store_is_resumed(
    topics: Any, start: Start, path: str
) -> None:
    with jobq.open(path) as svc:
        svc.pause()
        svc.enqueue("mail", 1)
        waiter = asleep(start(_get, path, topics))
        since_ns = time.monotonic_ns()
        svc.resume()

        assert seconds(waiter, since_ns) < SOON_S


def test_a_waiter_of_several_topics_gets_a_job_of_the_first_that_may_give_one(
    start: Start, path: str
) -> None:
    with jobq.open(path) as svc:
        for topic in ("mail", "other"):
            svc.configure(topic, concurrency=1)
            svc.enqueue_many(topic, [f"{topic} 1", f"{topic} 2"])
        first, second = svc.reserve("mail", timeout=0) + svc.reserve("other", timeout=0)
        waiter = asleep(start(_get, path, ["mail", "other"]))
        since_ns = time.monotonic_ns()
        second.done()

        assert seconds(waiter, since_ns) < SOON_S
        assert waiter.hear() == "other 2"
        first.done()


# A rate.


@pytest.mark.parametrize("kind", ["rate", "group_rate"])
def test_a_job_at_a_rate_comes_at_its_time_and_not_before(
    kind: str, start: Start, path: str
) -> None:
    with jobq.open(path) as svc:
        burst = {"rate": "burst", "group_rate": "group_burst"}[kind]
        svc.configure("mail", **{kind: (10, 4.0), burst: 1})  # type: ignore[arg-type]
        svc.enqueue_many("mail", [1, 2, 3], group="g")
        since_ns = 0

        def take() -> None:
            nonlocal since_ns
            since_ns = time.monotonic_ns()
            assert len(svc.reserve("mail", 2, timeout=0)) == 1

        waiter = start(_get, path)
        asleep(waiter, after=take)

        assert 0.39 <= seconds(waiter, since_ns) < SOON_S
        assert len(svc.reserve("mail", 2, timeout=PATIENCE_S)) == 1
        assert 0.79 <= (time.monotonic_ns() - since_ns) / 1e9 < SOON_S


# Nobody polls.


AT_LIMITS: Final[tuple[dict[str, Any], ...]] = (
    {},
    {"paused": True},
    {"concurrency": 1},
    {"group_concurrency": 1},
    {"rate": (1, 1000.0)},
    {"group_rate": (1, 1000.0)},
    {"concurrency": 1, "rate": (1, 0.01)},
)


@pytest.mark.parametrize("topics", ["mail", ["mail", "other"]], ids=repr)
@pytest.mark.parametrize("kind", ["lmdb", "mixed", "memory"])
def test_a_waiter_at_a_limit_costs_no_more_than_one_at_an_empty_topic(
    kind: str, topics: Any, start: Start, path: str, say: Say
) -> None:
    # All at once: each has a queue and a processor clock of its own, and sleeps most of the time.
    waiters = [
        start(_wait_at, f"{path} {number}", kind, topics, limit)
        for number, limit in enumerate(AT_LIMITS)
    ]
    for limit, waiter in zip(AT_LIMITS, waiters, strict=True):
        cpu_s, reads = waiter.hear()
        say(f"{limit}: {cpu_s:.3f} s of processor time in {STAYS:g} s, {reads} tries")

        assert cpu_s < IDLE_S, limit
        assert reads <= 5, limit


# What they share, and what the children do.


def _limit(svc: JobService, limit: str, jobs: int = 1) -> None:
    svc.configure("mail", **dict.fromkeys(LIMITS[limit], jobs))  # type: ignore[arg-type]


def _holding(start: Start, path: str) -> Child:
    child = start(_hold, path)
    assert child.hear() == "holding"
    return child


def _hold(pipe: Pipe, path: str) -> None:
    with jobq.open(path) as svc:
        jobs = svc.reserve("mail", timeout=0)
        (job,) = jobs
        pipe.send("holding")
        match pipe.recv():
            case "done":
                job.done()
            case "reject":
                job.cancel("rejected")
            case "retry":
                job.retry(1000)
            case "retry at once":
                job.retry(0)
            case "release":
                job.release()
            case "release later":
                job.release(1000)
            case "close":
                svc.close()
            case "late":
                assert svc.done_many(jobs) == ["stale"]
            case "extend":
                with pytest.raises(jobq.ReservationLost):
                    job.extend(10)
        pipe.recv()  # alive, so that nothing but its call wakes anybody


def _get(pipe: Pipe, path: str, topics: Any = "mail") -> None:
    sleep_soundly()
    _get_or_look(pipe, path, topics)


def _get_or_look(pipe: Pipe, path: str, topics: Any = "mail") -> None:
    with jobq.open(path) as svc:
        pipe.send("about to wait")
        pipe.recv()
        (job,) = svc.reserve(topics, timeout=PATIENCE_S)
        pipe.send(time.monotonic_ns())
        pipe.send(job.payload)
        pipe.recv()


def _wait_at(pipe: Pipe, path: str, kind: str, topics: Any, limit: dict[str, Any]) -> None:
    opened = {
        "lmdb": lambda: jobq.open(path),
        "mixed": lambda: jobq.open(path, topics="memory"),
        "memory": lambda: jobq.open(":memory:"),
    }
    with opened[kind]() as svc:
        if limit:
            svc.configure("mail", **limit)
            group = "g" if any(name.startswith("group") for name in limit) else None
            svc.enqueue_many("mail", [1, 2, 3], group=group)
            svc.reserve("mail", timeout=0)
        tried = 0
        reserve = svc.store.reserve

        def count(*args: Any) -> Any:
            nonlocal tried
            tried += 1
            return reserve(*args)

        svc.store.reserve = count  # type: ignore[method-assign,assignment]
        before = os.times()
        assert svc.reserve(topics, timeout=STAYS) == []
        after = os.times()
        pipe.send((after.user + after.system - before.user - before.system, tried))
