"""How many jobs a second do threads of one process enqueue, one at a time each, by their number?

And how many whole lives, one at a time each: enqueue, reserve, done. Payloads of 200 bytes, every
call on disk before it returns, one queue for all threads. The sides take turns in every round, each
on a fresh directory. jobq's callers share commits, other sides' wait for one another. Beside the
threads, jobq's jobs from 1 000 coroutines of one loop, which `coroutines` has whole lives of.
"""

import argparse
import asyncio
import gc
import statistics
import sys
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final, NamedTuple

from benchmarks import workloads
from benchmarks.rounds import Pace, add_pace, kept, pace_of, print_rates, turns
from benchmarks.session import Session
from benchmarks.sides import SIDES, TOPIC, JobqQueue, durability, present, versions
from benchmarks.yardsticks.parts import Payload, Queue

QUICK, FULL = Pace(3, 0.15), Pace(5, 1.5)
THREADS: Final = (1, 8, 32)
COROUTINES: Final = 1_000

FOR_THREADS: Final = [side for side in SIDES if side != "lmdb_bare"]
USUAL: Final = ("jobq", "sqlite3_hand", "huey", "litequeue", "persist-queue")
AGAINST: Final = ("sqlite3_hand", "huey", "litequeue", "persist-queue")
BY_COROUTINES: Final = "jobq coroutines"

Act = Callable[[Queue[Any], Payload], None]
Case = tuple[str, int, str]


class Run(NamedTuple):
    """One side in one round: jobs a second that were enqueued, or have lived."""

    jobs_per_s: float


def main(arguments: Sequence[str] | None = None) -> int:
    """Run and print; the exit status."""
    session = Session("enqueuers", __doc__, _add_options, arguments)
    options, (rounds, seconds) = session.options, pace_of(session.options)
    sides = present(options.sides)
    runs: dict[Case, list[Run]] = {}
    with session.measuring() as directory:
        for workload, act in ACTS.items():
            for threads in options.threads:
                for number, side in turns(sides, rounds):
                    path = directory / f"{workload}-{threads}-{number}-{side.replace(' ', '-')}"
                    run = by_threads(path, side, act, threads, seconds)
                    runs.setdefault((workload, threads, side), []).append(run)
                print_table(runs, workload, threads)
        for number in range(rounds):
            run = by_coroutines(directory / f"coroutines-{number}", COROUTINES, seconds)
            runs.setdefault(("enqueue", COROUTINES, BY_COROUTINES), []).append(run)
    rates = [run.jobs_per_s for run in runs["enqueue", COROUTINES, BY_COROUTINES]]
    print(f"\nenqueue, {COROUTINES} coroutines of jobq: {statistics.median(rates):.0f} a second")
    session.keep(
        {"payload_bytes": 200, "seconds": seconds, "versions": versions(sides)},
        kept(
            ["workload", "callers", "durability", "side"],
            {
                (workload, callers, durability(side), side): some
                for (workload, callers, side), some in runs.items()
            },
        ),
    )
    return 0


def by_threads(path: Path, side: str, act: Act, threads: int, seconds: float) -> Run:
    """Do *act* in each of so many threads for so many seconds.

    Raises:
        AssertionError: There are not as many jobs left as there must be.
    """
    payloads = workloads.payloads(50)
    queue = SIDES[side](path)
    ends = [0.0]
    together = threading.Barrier(threads, action=lambda: ends.__setitem__(0, _start() + seconds))

    def run(offset: int) -> tuple[int, float]:
        """How many times, and when it was over."""
        act(queue, payloads[offset % 50])  # not counted: connections are opened, pages mapped
        together.wait()
        end, count, now = ends[0], 0, 0.0
        while now < end:
            act(queue, payloads[(offset + count) % 50])
            count += 1
            now = time.perf_counter()
        return count, now

    try:
        with ThreadPoolExecutor(threads) as pool:
            ran = list(pool.map(run, range(threads)))
        count = sum(times for times, _ in ran)
        left = count + threads if act is enqueue else 0
        if (waiting := queue.waiting()) != left:
            raise AssertionError(f"{side}: {left} jobs must wait, and there are {waiting}")
    finally:
        queue.close()
    return Run(count / (max(over for _, over in ran) - (ends[0] - seconds)))


def by_coroutines(path: Path, coroutines: int, seconds: float) -> Run:
    """Enqueue in each of so many coroutines of one loop for so many seconds.

    Raises:
        AssertionError: There are not as many jobs as have been enqueued.
    """
    payloads = workloads.payloads(50)
    queue = JobqQueue(str(path))
    queue.enqueue_many(payloads[:1])
    count = 0

    async def enqueue_until(end: float) -> None:
        nonlocal count
        while time.perf_counter() < end:
            await queue.service.aenqueue(TOPIC, payloads[count % 50])
            count += 1

    async def everybody() -> float:
        start = _start()
        await asyncio.gather(*[enqueue_until(start + seconds) for _ in range(coroutines)])
        return time.perf_counter() - start

    try:
        taken = asyncio.run(everybody())
        if (waiting := queue.waiting()) != count + 1:
            raise AssertionError(f"{count} jobs were enqueued, and {waiting - 1} are there")
    finally:
        queue.close()
    return Run(count / taken)


def enqueue(queue: Queue[Any], payload: Payload) -> None:
    """One job, in a call of its own."""
    queue.enqueue_many([payload])


def live(queue: Queue[Any], payload: Payload) -> None:
    """One job's life, or another thread's job in the middle of it."""
    queue.enqueue_many([payload])
    jobs = queue.reserve(1)
    if queue.payload(jobs[0]).keys() != payload.keys() or queue.done_many(jobs) != 1:
        raise AssertionError("a job came changed, or was not held")


ACTS: Final[dict[str, Act]] = {"enqueue": enqueue, "life": live}


def print_table(runs: dict[Case, list[Run]], workload: str, threads: int) -> None:
    """One workload by so many threads."""
    rates = {
        side: [run.jobs_per_s for run in some]
        for (its, callers, side), some in runs.items()
        if (its, callers) == (workload, threads)
    }
    print(f"\n{workload}, {threads} thread{'s' * (threads > 1)}")
    print_rates("jobs/s", rates, {name: rates[name] for name in AGAINST if name in rates})


def _start() -> float:
    """Now, with nothing to collect."""
    gc.collect()
    return time.perf_counter()


def _add_options(parser: argparse.ArgumentParser) -> None:
    add_pace(parser, QUICK, FULL)
    parser.add_argument(
        "--threads", type=int, nargs="+", default=list(THREADS), metavar="N", help="how many"
    )
    parser.add_argument(
        "--sides", nargs="+", default=USUAL, choices=FOR_THREADS, help="default: %(default)s"
    )


if __name__ == "__main__":
    sys.exit(main())
