"""Who waits for jobs, and how long they take to come: for all tests that no call is missed.

A waiter that missed its call would sleep on until it looks by itself: here that is half a minute
after it fell asleep, and not a second. So the bounds are below that, and far above what the busiest
machine needs.
"""

import os
import signal
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, Final

import jobq
from jobq import JobService
from jobq.repo.lmdb import futex
from jobq.repo.lmdb.bell import Bell
from jobq.shares import Topics
from tests.conftest import LONG_S, eventually, sleep_soundly
from tests.crash.processes import Child, Pipe, Start, die_at, threads_of, waits

PATIENCE_S: Final = 2 * LONG_S
"""How long they wait in all."""

# In the test.


def make_topics(svc: JobService, *topics: str) -> None:
    """Have topics that are empty."""
    with svc.batch() as batch:
        for topic in topics:
            batch.enqueue(topic)
    svc.delete(batch.ids)


def asleep(child: Child, after: Callable[[], object] = lambda: None) -> Child:
    """The child, once it waits for a job: nothing runs in it any more.

    Or it has said more by then: what it waits for may come by itself.
    """
    assert child.hear() == "about to wait"
    after()
    child.tell("wait")
    eventually(lambda: child.heard() or waits(child.pid))
    return child


def seconds(child: Child, since_ns: int) -> float:
    """From a moment to that at which the child had its job, or ended its wait."""
    came_ns: int = child.hear()
    return (came_ns - since_ns) / 1e9


def call_of(
    start: Start, wait: Callable[..., object], path: str, *producer: Any
) -> tuple[Child, float]:
    """What a process does that calls a waiter for `mail`: it, and after how many seconds that had
    its job. The waiter sleeps before.
    """
    waiter = asleep(start(wait, path, "mail"))
    since_ns = time.monotonic_ns()
    child = start(*producer)
    return child, seconds(waiter, since_ns)


def stop_threads(svc: JobService, topics: Topics, n: int) -> float:
    """The seconds that `stop` takes to end the waits of so many threads of this process."""
    ended: list[list[Any]] = []
    threads = [
        threading.Thread(target=lambda: ended.append(svc.reserve(topics)), daemon=True)
        for _ in range(n)
    ]
    for thread in threads:
        thread.start()
    eventually(lambda: sum(map(waits, threads_of(os.getpid()))) == n)
    since = time.monotonic()
    svc.stop()
    for thread in threads:
        thread.join(PATIENCE_S)
    took = time.monotonic() - since

    assert ended == [[]] * n
    return took


Player = tuple[Topics, Sequence[str]]
"""The topics that one waits for, and those to which it passes on, in turns."""


def play(
    start: Callable[..., Child],
    path: str,
    players: Sequence[Player],
    *,
    passes: int,
    balls: int,
    end: Topics = "end",
    **options: Any,
) -> tuple[int, float]:
    """Have jobs passed on in a ring of processes: how many passes, and seconds of the slowest.

    Balls come in where the last player passes to, and drop at the topic "end", for
    which *end* waits.
    """
    with jobq.open(path, retention=0, **options) as svc:
        make_topics(svc, "end", *(topic for _, to in players for topic in to))
        children = [start(pass_on, path, mine, to, options) for mine, to in players]
        for child in children:
            child.hear()
        for ball in range(balls):
            now_ns = time.monotonic_ns()
            svc.enqueue(players[-1][1][0], {"left": passes // balls, "ball": ball, "ns": now_ns})
        dropped: list[jobq.Job] = []
        while len(dropped) < balls:
            jobs = svc.reserve(end, balls - len(dropped), timeout=60)
            assert jobs, "a ball was lost"
            dropped += jobs
        svc.done_many(dropped)
        for child in children:
            child.signal(signal.SIGTERM)
        slowest_ns, count = zip(*(child.hear() for child in children), strict=True)

        assert svc.check().problems == ()
        return sum(count), max(slowest_ns) / 1e9


# What the children do.


def get(pipe: Pipe, path: str, topics: Topics, strict: bool = False) -> None:
    """Wait for a job until called, say when it came, and do it."""
    sleep_soundly()
    get_or_look(pipe, path, topics, strict)


def get_or_look(pipe: Pipe, path: str, topics: Topics, strict: bool = False) -> None:
    """The same, with a look each second."""
    with jobq.open(path) as svc:
        pipe.send("about to wait")
        pipe.recv()
        jobs = svc.reserve(topics, strict=strict, timeout=PATIENCE_S)
        pipe.send(time.monotonic_ns())
        svc.done_many(jobs)


def at_the_one(pipe: Pipe, work: Callable[..., object], *arguments: Any) -> None:
    """The same where the kernel lets nobody sleep at the counters of several topics."""
    futex.can_wait_for_any = lambda: False  # type: ignore[assignment]
    work(pipe, *arguments)


def get_and_die(_: Pipe, path: str, topics: Topics) -> None:
    """Wait for a job, and be killed as soon as called for one."""
    wait = Bell._wait_for_any

    def wait_and_die(bell: Bell, words: list[tuple[int, int]], end: float) -> int | None:
        place = wait(bell, words, end)
        if place is not None:
            os.kill(os.getpid(), signal.SIGKILL)
        return place

    Bell._wait_for_any = wait_and_die  # type: ignore[method-assign, assignment]
    sleep_soundly()
    with jobq.open(path) as svc:
        svc.reserve(topics, timeout=PATIENCE_S)


def hesitate(pipe: Pipe, path: str, topics: Topics, at: str) -> None:
    """Wait for a job, but go on from a step of the bell only when told to."""
    step = getattr(Bell, at)

    def wait_here(bell: Bell, *arguments: Any) -> Any:
        setattr(Bell, at, step)
        page = step(bell) if at == "page" else None
        pipe.send(at)
        pipe.recv()
        return page or step(bell, *arguments)

    sleep_soundly()
    with jobq.open(path) as svc:
        assert svc.reserve(topics, timeout=0) == []
        setattr(Bell, at, wait_here)
        jobs = svc.reserve(topics, timeout=PATIENCE_S)
        pipe.send(time.monotonic_ns())
        svc.done_many(jobs)


def enqueue_and_die(_: Pipe, path: str, topic: str, at: str) -> None:
    """Enqueue a job, and be killed at a step of that."""
    svc = jobq.open(path)
    die_at(at)
    svc.enqueue(topic)


def pass_on(
    pipe: Pipe, path: str, mine: Topics, to: Sequence[str], options: dict[str, Any]
) -> None:
    """Pass jobs on to the next one; say the longest that one was underway, and how many."""
    sleep_soundly()
    with jobq.open(path, retention=0, **options) as svc:
        signal.signal(signal.SIGTERM, lambda *_: svc.stop())
        slowest_ns = count = 0
        pipe.send("ready")
        while jobs := svc.reserve(mine):
            for job in jobs:
                ball = job.payload
                slowest_ns = max(slowest_ns, time.monotonic_ns() - ball["ns"])
                count += 1
                left = ball["left"] - 1
                ball = {"left": left, "ball": ball["ball"], "ns": time.monotonic_ns()}
                job.done(then=[jobq.NewJob(to[count % len(to)] if left > 0 else "end", ball)])
        pipe.send((slowest_ns, count))
