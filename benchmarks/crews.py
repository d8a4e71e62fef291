"""How many jobs a second live through several processes at once, and how long does one call take?

Each process enqueues a job, reserves one and finishes it, again and again, each in a call of its
own that is on disk before it returns: payloads of 200 bytes, one queue for all. As soon as there
are two, what a call takes is mostly waiting for the write lock. SQLite's waiters sleep and ask
again, so a process that has just written mostly writes next: good for the rate, and bad for the
worst call of the others. Any exception is an error that a caller would see. The sides take turns in
every round, each on a fresh directory. persist-queue is not among them: two of its processes get
the same items. `contention` has all verbs of jobq.
"""

import argparse
import gc
import statistics
import sys
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

from benchmarks import workloads
from benchmarks.processes import Child, Pipe
from benchmarks.rounds import Pace, add_pace, kept, pace_of, ratio, turns
from benchmarks.session import Session
from benchmarks.sides import SIDES, durability, present, versions
from benchmarks.workloads import percentile
from benchmarks.yardsticks.parts import Payload, Queue

QUICK, FULL = Pace(3, 0.3), Pace(5, 3.0)
PROCESSES: Final = (1, 2, 4)

USUAL: Final = ("jobq", "sqlite3_hand", "huey", "litequeue")
OF_SEVERAL: Final = (*USUAL, "jobq relaxed", "sqlite3_by_statement")
VERBS: Final = ("enqueue", "reserve", "done")


class Run(NamedTuple):
    """One side in one round. Milliseconds are of single calls; with huey, `done` does nothing."""

    lives_per_s: float
    errors: int
    p50_ms: float
    p99_ms: float
    worst_ms: float
    worst_enqueue_ms: float
    worst_reserve_ms: float
    worst_done_ms: float


class Report(NamedTuple):
    """What one process has found; seconds are of CLOCK_MONOTONIC, which all processes share."""

    start: float
    end: float
    lives: int
    taken_ms: dict[str, list[float]]
    errors: list[str]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run and print; the exit status: 1 if a caller of jobq saw an error."""
    session = Session("crews", __doc__, _add_options, arguments)
    options, (rounds, seconds) = session.options, pace_of(session.options)
    sides = present(options.sides)
    runs: dict[tuple[int, str], list[Run]] = {}
    messages: Counter[str] = Counter()
    with session.measuring() as directory:
        children = [Child(worker) for _ in range(max(options.processes))]
        try:
            for count in options.processes:
                for number, side in turns(sides, rounds):
                    path = directory / f"{count}-{number}-{side.replace(' ', '-')}"
                    reports = crew(children[:count], path, side, seconds)
                    runs.setdefault((count, side), []).append(run_of(reports))
                    messages.update(f"{side}: {text}" for one in reports for text in one.errors)
                print_table(runs, count)
        finally:
            for child in children:
                child.__exit__(None, None, None)
    for text, times in messages.most_common(20):
        print(f"  {text} ({times} times)")
    session.keep(
        {"payload_bytes": 200, "seconds": seconds, "versions": versions(sides)},
        kept(
            ["workload", "processes", "durability", "side"],
            {("life", count, durability(side), side): some for (count, side), some in runs.items()},
        ),
    )
    return 1 if any(text.startswith("jobq") for text in messages) else 0


def crew(children: Sequence[Child], path: Path, side: str, seconds: float) -> list[Report]:
    """Let the processes work together on a new queue, and look that no job is left.

    Raises:
        AssertionError: A job is lost, or there is one too many, though nobody saw an error.
    """
    for child in children:  # one by one: the first makes the queue
        child.tell((str(path), side, seconds))
        child.hear()
    for child in children:
        child.tell("go")
    reports = [Report(*child.hear(seconds + 60)) for child in children]
    queue = SIDES[side](path)
    try:
        waiting = queue.waiting()
    finally:
        queue.close()
    if waiting and not any(report.errors for report in reports):
        raise AssertionError(f"{side}: {waiting} jobs are left")
    return reports


def worker(pipe: Pipe) -> None:
    """A process: opens a queue, says so, works, reports, again and again."""
    payloads = workloads.payloads(50)
    while True:
        path, side, seconds = pipe.recv()
        queue = SIDES[side](Path(path))
        try:
            live(queue, payloads[0], {verb: [] for verb in VERBS})  # not counted
            gc.collect()
            pipe.send("ready")
            pipe.recv()
            report = work(queue, payloads, seconds)
        finally:
            queue.close()
        pipe.send(tuple(report))


def work(queue: Queue[Any], payloads: Sequence[Payload], seconds: float) -> Report:
    """Lives for so many seconds, one at a time."""
    taken: dict[str, list[float]] = {verb: [] for verb in VERBS}
    errors: list[str] = []
    lives = calls = 0
    start = now = time.monotonic()
    end = start + seconds
    while now < end:
        calls += 1
        try:
            lives += live(queue, payloads[calls % len(payloads)], taken)
        except Exception as error:  # noqa: BLE001 (whatever it is, a user would see it)
            errors.append(f"{type(error).__name__}: {error}")
        now = time.monotonic()
    return Report(start, now, lives, taken, errors)


def live(queue: Queue[Any], payload: Payload, taken_ms: dict[str, list[float]]) -> int:
    """One job's life, or another process's job in the middle of it; how many were finished."""
    start = time.perf_counter()
    queue.enqueue_many([payload])
    enqueued = time.perf_counter()
    taken_ms["enqueue"].append((enqueued - start) * 1000)
    jobs = queue.reserve(1)
    reserved = time.perf_counter()
    taken_ms["reserve"].append((reserved - enqueued) * 1000)
    if not jobs:
        raise AssertionError("nothing to reserve right after an enqueue")
    finished = queue.done_many(jobs)
    taken_ms["done"].append((time.perf_counter() - reserved) * 1000)
    return finished


def run_of(reports: Sequence[Report]) -> Run:
    """The processes' findings put together."""
    by_verb = {verb: [one for report in reports for one in report.taken_ms[verb]] for verb in VERBS}
    taken = [one for some in by_verb.values() for one in some]
    span = max(report.end for report in reports) - min(report.start for report in reports)
    return Run(
        lives_per_s=sum(report.lives for report in reports) / span,
        errors=sum(len(report.errors) for report in reports),
        p50_ms=percentile(taken, 50),
        p99_ms=percentile(taken, 99),
        worst_ms=max(taken),
        worst_enqueue_ms=max(by_verb["enqueue"]),
        worst_reserve_ms=max(by_verb["reserve"]),
        worst_done_ms=max(by_verb["done"]),
    )


def print_table(runs: dict[tuple[int, str], list[Run]], count: int) -> None:
    """Rates and calls of so many processes: medians, the worst of all rounds, ratios to SQLite."""
    mine = {side: some for (processes, side), some in runs.items() if processes == count}
    rates = {side: [run.lives_per_s for run in some] for side, some in mine.items()}
    against = [side for side in ("sqlite3_hand",) if side in mine]
    print(f"\n{count} process{'es' * (count > 1)}")
    print(
        f"  {'':22} {'lives/s':>8} {'least':>8} {'most':>8} {'p50':>7} {'p99':>7} {'worst':>8} ms "
        f"{'errors':>6}" + "".join(f"  / {name}" for name in against)
    )
    for side, some in mine.items():
        print(
            f"  {side:22} {statistics.median(rates[side]):8.0f} {min(rates[side]):8.0f} "
            f"{max(rates[side]):8.0f} {statistics.median(run.p50_ms for run in some):7.2f} "
            f"{statistics.median(run.p99_ms for run in some):7.2f} "
            f"{max(run.worst_ms for run in some):8.2f}    {sum(run.errors for run in some):6}"
            + "".join(f"  {ratio(rates[side], rates[name]):{len(name) + 2}.2f}" for name in against)
        )


def _add_options(parser: argparse.ArgumentParser) -> None:
    add_pace(parser, QUICK, FULL)
    parser.add_argument(
        "--processes", type=int, nargs="+", default=list(PROCESSES), metavar="N", help="how many"
    )
    parser.add_argument(
        "--sides", nargs="+", default=USUAL, choices=OF_SEVERAL, help="default: %(default)s"
    )


if __name__ == "__main__":
    sys.exit(main())
