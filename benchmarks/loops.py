"""How many jobs a second does one worker finish, each side driven as its own loop is written?

One process, one thread, payloads of 200 bytes. Blocks of 100 jobs are enqueued one at a time, each
on disk before the call returns, and then worked off by the side's loop, which commits each job by
itself: `consume` puts a job's end and the next reservation in one commit, and so do the yardsticks
called "pipelined"; other loops need a commit for each, and huey's worker one for both, since
taking is all it does. Sides that are not on disk: `jobq memory`; that may lose the last commit
in a power cut: `jobq relaxed`.
"""

import argparse
import gc
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple, Protocol

from benchmarks import workloads
from benchmarks.rounds import Pace, add_pace, kept, pace_of, ratio, turns
from benchmarks.session import Session
from benchmarks.sides import SIDES as QUEUES
from benchmarks.sides import TOPIC, JobqQueue, durability, present, versions
from benchmarks.yardsticks.lmdb_bare import BareLmdb
from benchmarks.yardsticks.parts import Payload, Queue
from benchmarks.yardsticks.sqlite3_hand import SqliteQueue

BLOCK, WARM_UP = 100, 10
QUICK, FULL = Pace(3, 0.4), Pace(7, 2.0)
AGAINST = ("sqlite3_hand", "huey tasks", "persist-queue", "litequeue", "lmdb_bare")


class Loop(Protocol):
    """A side as this benchmark drives it."""

    def enqueue(self, payload: Payload) -> None:
        """One job, in a commit of its own."""

    def work(self, count: int) -> list[Payload]:
        """Work off the *count* jobs that wait; their payloads."""

    def close(self) -> None:
        """Lets go of the files."""


class Consume:
    """`for job in svc.consume(topic, n): with job: …`."""

    def __init__(self, path: str, n: int = 1, durability: str = "full") -> None:
        self._service = JobqQueue(path, durability).service
        self._n = n

    def enqueue(self, payload: Payload) -> None:
        self._service.enqueue(TOPIC, payload)

    def work(self, count: int) -> list[Payload]:  # noqa: ARG002 (it sees when none is left)
        came = []
        for job in self._service.consume(TOPIC, self._n, timeout=0):
            with job:
                came.append(job.payload)
        return came

    def close(self) -> None:
        self._service.close()


class OneByOne:
    """Reserve a job, look at it, finish it: two commits where the queue has both."""

    def __init__(self, queue: Queue[Any]) -> None:
        self._queue = queue

    def enqueue(self, payload: Payload) -> None:
        self._queue.enqueue_many([payload])

    def work(self, count: int) -> list[Payload]:
        queue, came = self._queue, []
        for _ in range(count):
            jobs = queue.reserve(1)
            came += [queue.payload(job) for job in jobs]
            queue.done_many(jobs)
        return came

    def close(self) -> None:
        self._queue.close()


class Pipelined(OneByOne):
    """A job's end and the next reservation in one commit, as jobq's `consume` does it."""

    _queue: Any

    def work(self, count: int) -> list[Payload]:  # noqa: ARG002 (it sees when none is left)
        queue, came = self._queue, []
        jobs = queue.turn([], 1)
        while jobs:
            came += [queue.payload(job) for job in jobs]
            jobs = queue.turn(jobs, 1)
        return came


class HueyWorker:
    """A consumer's worker that calls a task."""

    def __init__(self, path: Path) -> None:
        from benchmarks.yardsticks.huey_sqlite import HueyTasks

        self._came: list[Payload] = []
        self._tasks = HueyTasks(path, self._handle)
        self.enqueue = self._tasks.enqueue
        self.close = self._tasks.close

    def work(self, count: int) -> list[Payload]:
        self._came = []
        self._tasks.work(count)
        return self._came

    def _handle(self, payload: Payload) -> None:
        self._came.append(payload)


SIDES: Final[dict[str, Callable[[Path], Loop]]] = {
    "jobq": lambda path: Consume(str(path)),
    "jobq n=10": lambda path: Consume(str(path), 10),
    "jobq n=100": lambda path: Consume(str(path), 100),
    "jobq reserve, done": lambda path: OneByOne(QUEUES["jobq"](path)),
    "jobq relaxed": lambda path: Consume(str(path), durability="relaxed"),
    "jobq memory": lambda _: Consume(":memory:"),
    "lmdb_bare": lambda path: OneByOne(QUEUES["lmdb_bare"](path)),
    "lmdb_bare pipelined": lambda path: Pipelined(BareLmdb(path)),
    "sqlite3_hand": lambda path: OneByOne(QUEUES["sqlite3_hand"](path)),
    "sqlite3_hand pipelined": lambda path: Pipelined(SqliteQueue(path)),
    "huey tasks": HueyWorker,
    "litequeue": lambda path: OneByOne(QUEUES["litequeue"](path)),
    "persist-queue": lambda path: OneByOne(QUEUES["persist-queue"](path)),
}


class Run(NamedTuple):
    """One side in one round: jobs a second into the queue, out of it, and through both."""

    consumed_per_s: float
    enqueued_per_s: float
    lives_per_s: float


def main(arguments: Sequence[str] | None = None) -> int:
    """Run and print; the exit status."""
    session = Session("loops", __doc__, _add_options, arguments)
    rounds, seconds = pace_of(session.options)
    sides = present(session.options.sides)
    runs: dict[str, list[Run]] = {side: [] for side in sides}
    with session.measuring() as directory:
        for number, side in turns(sides, rounds):
            loop = SIDES[side](directory / f"{side.replace(' ', '-')}-{number}")
            try:
                runs[side].append(live(loop, seconds))
            finally:
                loop.close()
    print_table(runs)
    session.keep(
        {"payload_bytes": 200, "threads": 1, "seconds": seconds, "versions": versions(sides)},
        kept(
            ["workload", "durability", "side"],
            {("loop", durability(side), side): some for side, some in runs.items()},
        ),
    )
    return 0


def live(loop: Loop, seconds: float) -> Run:
    """Blocks of jobs through the side for so many seconds; a short one before is not counted."""
    payloads = workloads.payloads(BLOCK)
    _block(loop, payloads[:WARM_UP])
    gc.collect()
    blocks = enqueue = work = 0
    while enqueue + work < seconds * 1e9:
        taken = _block(loop, payloads)
        enqueue += taken[0]
        work += taken[1]
        blocks += 1
    count = blocks * BLOCK * 1e9
    return Run(count / work, count / enqueue, count / (enqueue + work))


def _block(loop: Loop, payloads: Sequence[Payload]) -> tuple[int, int]:
    """One block through its life; the nanoseconds of enqueuing it and of working it off."""
    start = time.perf_counter_ns()
    for payload in payloads:
        loop.enqueue(payload)
    enqueued = time.perf_counter_ns()
    came = loop.work(len(payloads))
    done = time.perf_counter_ns()
    if came != payloads:
        raise AssertionError(f"{len(payloads)} in, {len(came)} out, or reordered")
    return enqueued - start, done - enqueued


def print_table(runs: dict[str, list[Run]]) -> None:
    """Medians, and ratios of what is consumed to the yardsticks that ran."""
    against = [side for side in AGAINST if side in runs]
    rates = {side: [run.consumed_per_s for run in some] for side, some in runs.items()}
    print(
        f"\n  {'':22} {'consumed/s':>10} {'least':>8} {'most':>8} {'enqueued/s':>10} {'lives/s':>8}"
        + "".join(f"  / {side}" for side in against)
    )
    for side, some in runs.items():
        mine = rates[side]
        print(
            f"  {side:22} {statistics.median(mine):10.0f} {min(mine):8.0f} {max(mine):8.0f} "
            f"{statistics.median(run.enqueued_per_s for run in some):10.0f} "
            f"{statistics.median(run.lives_per_s for run in some):8.0f}"
            + "".join(f"  {ratio(mine, rates[other]):{len(other) + 2}.2f}" for other in against)
        )
    print("  ratios are of what is consumed")


def _add_options(parser: argparse.ArgumentParser) -> None:
    add_pace(parser, QUICK, FULL)
    parser.add_argument(
        "--sides", nargs="+", default=list(SIDES), choices=list(SIDES), help="default: all"
    )


if __name__ == "__main__":
    sys.exit(main())
