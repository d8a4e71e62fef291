"""Queues with many jobs in one state, made quickly: by 5 000 in a commit that waits for no disk."""

import os
from collections.abc import Iterator
from pathlib import Path

import jobq
from benchmarks.workloads import payloads

TOPIC = "work"
AT_ONCE = 5_000
A_DAY_S = 86_400.0


def ready(path: Path, jobs: int) -> None:
    """So many ready jobs of `TOPIC`."""
    with jobq.open(path, durability="unsafe") as service:
        for count in _steps(jobs):
            service.enqueue_many(TOPIC, payloads(count))


def delayed(path: Path, jobs: int) -> None:
    """So many jobs of `TOPIC` that are due from an hour on, spread over a day."""
    with jobq.open(path, durability="unsafe") as service:
        values = payloads(min(jobs, AT_ONCE))
        for start in range(0, jobs, AT_ONCE):
            with service.batch() as batch:
                for number in range(start, min(start + AT_ONCE, jobs)):
                    delay = 3600 + A_DAY_S * (number * 7919 % jobs) / jobs  # in no order
                    batch.enqueue(TOPIC, values[number - start], delay=delay)


def done(path: Path, jobs: int) -> None:
    """So many jobs of `TOPIC` that are done and kept for days."""
    with jobq.open(path, durability="unsafe", keep_done=30 * A_DAY_S, max_done=2**40) as service:
        for count in _steps(jobs):
            service.enqueue_many(TOPIC, payloads(count))
            service.done_many(service.reserve(TOPIC, count, timeout=0))


def reserved(service: jobq.JobService, jobs: int) -> None:
    """So many jobs of `TOPIC` that this process holds for days."""
    for count in _steps(jobs):
        service.enqueue_many(TOPIC, payloads(count), lease=30 * A_DAY_S)
        service.reserve(TOPIC, count, timeout=0)


def settle(path: Path) -> None:
    """Have on the disk what was written without waiting, lest a measured flush carries it there."""
    descriptor = os.open(path / "data.mdb", os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _steps(jobs: int) -> Iterator[int]:
    for start in range(0, jobs, AT_ONCE):
        yield min(AT_ONCE, jobs - start)
