"""Does the file grow while jobs come and go?

A short queue: batches of 100 jobs of 200 bytes are enqueued, reserved and done, again and again,
with 1 000 jobs waiting all the time. Once nothing is kept (`retention=0`), once the last 10 000
done jobs are (`max_done`). Then a backlog is enqueued and drained, and half as many once more.
What is looked at is the length of the file and what its trees hold, and how many jobs a second went
through meanwhile; LMDB gives no page back to the file system, so the length is the most that the
file has ever held, and what matters is whether it goes on growing. The commits wait for no disk
(`unsafe`), unless `--durability` says otherwise: pages are taken and given back in the same way,
and millions of jobs take minutes.
"""

import argparse
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jobq
from benchmarks import facts
from benchmarks.processes import Child, Pipe
from benchmarks.session import Session
from benchmarks.workloads import payloads

TOPIC = "work"
BATCH = 100
WAITING = 1_000
KEPT = 10_000
SHORT = {"nothing kept": 0, "10 000 done kept": KEPT}
"""Runs of the short queue, and how many done jobs each keeps."""
BACKLOG = "a backlog drained, twice"
LOOKS = 50
"""How often the file is looked at in a run, evenly by jobs; and once after the first 1 %."""

MIB = 2**20


class Point(NamedTuple):
    """The file after so many jobs have gone through, while so many wait."""

    jobs: int
    waiting: int
    seconds: float
    length: int
    in_use: int


def main(arguments: Sequence[str] | None = None) -> int:
    """Run and print; the exit status."""
    session = Session("churn", __doc__, _add_options, arguments)
    options = session.options
    jobs = options.jobs or (10_000_000 if options.full else 200_000)
    backlog = options.backlog or (1_000_000 if options.full else 50_000)
    durability = options.durability
    series: dict[str, list[Point]] = {}
    with session.measuring() as directory:
        for title, kept in SHORT.items():
            path = directory / title
            keep: dict[str, Any] = {"max_done": kept} if kept else {"keep_done": 0.0}
            with Child(churn, str(path), jobs, durability, keep) as child:
                series[title] = list(_points(child, path))
        path = directory / BACKLOG
        with Child(drain, str(path), backlog, durability) as child:
            series[BACKLOG] = list(_points(child, path))
    print_tables(series)
    grown = {title: growth(series[title], kept) for title, kept in SHORT.items()}
    for title, times in grown.items():
        print(f"{title}: the file has grown to {times:.2f} times what it was when it had settled")
    session.keep(
        {
            "jobs": jobs,
            "backlog": backlog,
            "batch": BATCH,
            "waiting": WAITING,
            "kept": KEPT,
            "payload_bytes": 200,
            "durability": durability,
        },
        [
            {
                "title": title,
                "growth": grown.get(title),
                "points": [one._asdict() for one in points],
            }
            for title, points in series.items()
        ],
    )
    return 0


def _points(child: Child, path: Path) -> Iterator[Point]:
    """The file whenever the child says how far it is, and waits: nobody writes meanwhile."""
    while (said := child.hear(600)) is not None:
        jobs, waiting, seconds = said
        file = facts.of_file(path)
        yield Point(jobs, waiting, seconds, file.length, file.in_use)
        child.tell("go on")


def churn(pipe: Pipe, path: str, jobs: int, durability: str, keep: dict[str, Any]) -> None:
    """The process of a short queue."""
    values = payloads(BATCH)
    looks = {0, jobs // 100, *(jobs * number // LOOKS for number in range(1, LOOKS + 1))}
    with jobq.open(path, durability=durability, **keep) as service:
        for _ in range(0, WAITING, BATCH):
            service.enqueue_many(TOPIC, values)
        spent = 0.0
        for number in range(0, jobs + 1, BATCH):
            if any(at in looks for at in range(number, number + BATCH)):
                pipe.send((number, WAITING, spent))
                pipe.recv()
            start = time.perf_counter()
            service.enqueue_many(TOPIC, values)
            _work(service)
            spent += time.perf_counter() - start
    pipe.send(None)


def drain(pipe: Pipe, path: str, jobs: int, durability: str) -> None:
    """The process of a backlog: it is enqueued, drained, and half of it enqueued and drained again.

    The second time shows that pages are used again.
    """
    values = payloads(BATCH)
    spent, through, waiting = 0.0, 0, 0

    def look() -> None:
        pipe.send((through, waiting, spent))
        pipe.recv()

    with jobq.open(path, durability=durability, keep_done=0.0) as service:
        for size in (jobs, jobs // 2):
            every = max(1, size // BATCH // (LOOKS // 4))
            for step, come in enumerate([True] * (size // BATCH) + [False] * (size // BATCH)):
                if step % every == 0:
                    look()
                start = time.perf_counter()
                if come:
                    service.enqueue_many(TOPIC, values)
                    waiting += BATCH
                else:
                    _work(service)
                    waiting -= BATCH
                    through += BATCH
                spent += time.perf_counter() - start
        look()
        if service.stats().totals.total:
            raise AssertionError("there are jobs left")
    pipe.send(None)


def _work(service: jobq.JobService) -> None:
    jobs = service.reserve(TOPIC, BATCH, timeout=0)
    if service.done_many(jobs).count(jobq.Outcome.OK) != BATCH:
        raise AssertionError(f"{len(jobs)} jobs came, and not all are done")


def growth(points: Sequence[Point], kept: int) -> float:
    """How many times as long the file is at the end as after the first 1 % of the jobs.

    Where done jobs are kept: as when twice as many as are kept have gone through.
    """
    begun = max(points[-1].jobs / 100, 2 * kept)
    return points[-1].length / next(one for one in points if one.jobs >= begun).length


def print_tables(series: dict[str, list[Point]]) -> None:
    """A few points of each series."""
    for title, points in series.items():
        head = f"{'jobs':>12} {'waiting':>9} {'jobs/s':>8} {'file MiB':>9} {'in use MiB':>11}"
        print(f"\n  {title}\n  {head}")
        before = points[0]
        for point in [points[1], *points[:: max(1, len(points) // 8)][1:-1], points[-1]]:
            passed = (point.seconds - before.seconds) or 1
            print(
                f"  {f'{point.jobs:,}':>12} {f'{point.waiting:,}':>9} "
                f"{(point.jobs - before.jobs) / passed:8.0f} "
                f"{point.length / MIB:9.2f} {point.in_use / MIB:11.2f}"
            )
            before = point


def _add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--jobs", type=int, help="through the short queue; default: 200 000")
    parser.add_argument("--backlog", type=int, help="default: 50 000")
    parser.add_argument("--full", action="store_true", help="10 000 000 jobs, and 1 000 000")
    parser.add_argument(
        "--durability",
        choices=("full", "relaxed", "unsafe"),
        default="unsafe",
        help="default: %(default)s",
    )


if __name__ == "__main__":
    sys.exit(main())
