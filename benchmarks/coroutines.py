"""How many jobs a second do coroutines live through, one at a time each, by their number?

Each coroutine enqueues a job, reserves one and settles it, again and again, each call on disk
before it returns: durability `full`, payloads of 200 bytes, one process. Beside it the same from
one thread and from 32 threads. The sides take turns in every round, each on a fresh directory;
the figures are medians, the ratios are medians of the ratios within a round. `commits` is how
many transactions a life took: the coroutines of a service share theirs.
"""

import argparse
import asyncio
import gc
import statistics
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import jobq
from benchmarks import workloads
from benchmarks.rounds import ratio, turns
from benchmarks.session import Session
from jobq.repo.lmdb import LmdbStore

TOPIC = "work"

LIVES = {"1 thread": 600, "32 threads": 3_200, "1": 600, "100": 10_000, "1000": 20_000,
         "1000 consume": 20_000}  # fmt: skip
"""Lives in a round by side: a second each, more or less."""


class Run(NamedTuple):
    """One side in one round."""

    lives_per_s: float
    commits_per_life: float


def main(arguments: Sequence[str] | None = None) -> int:
    """Run and print; the exit status."""
    session = Session("coroutines", __doc__, _add_options, arguments)
    options = session.options
    runs: dict[str, list[Run]] = {side: [] for side in SIDES}
    with session.measuring() as directory:
        for number, side in turns(SIDES, options.rounds):
            path = directory / f"{side.replace(' ', '-')}-{number}"
            runs[side].append(measure(path, side, round(LIVES[side] * options.scale)))
    print_table(runs)
    session.keep(
        {"payload_bytes": 200, "durability": "full", "scale": options.scale},
        {side: [run._asdict() for run in some] for side, some in runs.items()},
    )
    return 0


def measure(path: Path, side: str, lives: int) -> Run:
    """Drive *lives* lives through a new queue."""
    with jobq.open(str(path)) as service:
        service.enqueue("warm up")
        gc.collect()
        before = _commits(service)
        start = time.perf_counter()
        SIDES[side](service, lives)
        taken = time.perf_counter() - start
        done = service.stats(TOPIC).totals
        if (done.done, done.ready, done.reserved) != (lives, 0, 0):
            raise AssertionError(f"{lives} lives, but {done}")
        return Run(lives / taken, (_commits(service) - before) / lives)


def in_threads(threads: int) -> Callable[[jobq.JobService, int], None]:
    """The same from so many threads."""

    def run(service: jobq.JobService, lives: int) -> None:
        def live(count: int) -> None:
            for payload in workloads.payloads(count):
                service.enqueue(TOPIC, payload)
                (job,) = service.reserve(TOPIC)
                job.done()

        workers = [threading.Thread(target=live, args=[share]) for share in _shares(lives, threads)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()

    return run


def in_coroutines(coroutines: int) -> Callable[[jobq.JobService, int], None]:
    """Lives in so many coroutines of one loop."""

    def run(service: jobq.JobService, lives: int) -> None:
        async def live(count: int) -> None:
            for payload in workloads.payloads(count):
                await service.aenqueue(TOPIC, payload)
                (job,) = await service.areserve(TOPIC)
                await job.adone()

        async def everybody() -> None:
            await asyncio.gather(*[live(share) for share in _shares(lives, coroutines)])

        asyncio.run(everybody())

    return run


def in_loops(coroutines: int) -> Callable[[jobq.JobService, int], None]:
    """So many coroutines that enqueue, and as many `aconsume` loops, one job at a time."""

    def run(service: jobq.JobService, lives: int) -> None:
        left = lives

        async def enqueue(count: int) -> None:
            for payload in workloads.payloads(count):
                await service.aenqueue(TOPIC, payload)

        async def consume() -> None:
            nonlocal left
            async for job in service.aconsume(TOPIC):
                async with job:
                    left -= 1
                if left == 0:
                    service.stop()

        async def everybody() -> None:
            await asyncio.gather(
                *[enqueue(share) for share in _shares(lives, coroutines)],
                *[consume() for _ in range(coroutines)],
            )

        asyncio.run(everybody())

    return run


SIDES: dict[str, Callable[[jobq.JobService, int], None]] = {
    "1 thread": in_threads(1),
    "32 threads": in_threads(32),
    "1": in_coroutines(1),
    "100": in_coroutines(100),
    "1000": in_coroutines(1000),
    "1000 consume": in_loops(1000),
}


def _shares(lives: int, parts: int) -> list[int]:
    return [lives // parts + (number < lives % parts) for number in range(parts)]


def _commits(service: jobq.JobService) -> int:
    """The number of the last transaction of the file."""
    store = service.store
    assert isinstance(store, LmdbStore)
    assert store._env._file.env is not None
    return int(store._env._file.env.info()["last_txnid"])


def print_table(runs: dict[str, list[Run]]) -> None:
    """Medians, and ratios to the threads."""
    print(
        f"\n  {'coroutines':16} {'lives/s':>9} {'least':>9} {'most':>9} {'commits':>8}"
        "  / 1 thread  / 32 threads"
    )
    rates = {side: [run.lives_per_s for run in some] for side, some in runs.items()}
    for side, some in runs.items():
        mine = rates[side]
        print(
            f"  {side:16} {statistics.median(mine):9.0f} {min(mine):9.0f} {max(mine):9.0f} "
            f"{statistics.median(run.commits_per_life for run in some):8.3f}"
            f"  {ratio(mine, rates['1 thread']):10.2f}  {ratio(mine, rates['32 threads']):12.2f}"
        )


def _add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--rounds", type=int, default=5, help="default: %(default)s")
    parser.add_argument("--scale", type=float, default=1.0, help="so many times the lives")


if __name__ == "__main__":
    sys.exit(main())
