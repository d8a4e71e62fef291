"""How many jobs a second live through enqueue, reserve and done, by batch size?

One thread, one topic, payloads of 200 bytes, each call on disk before it returns. A life is
`enqueue_many`, `reserve` and `done_many`, each for one batch: three commits. The sides take
turns in every round, each on a fresh directory; the figures are medians, the ratios are medians
of the ratios within a round, so that a slow minute of the machine hits all sides.
"""

import argparse
import gc
import statistics
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks import workloads
from benchmarks.rounds import kept, ratio, turns
from benchmarks.session import Session
from benchmarks.sides import SIDES, durability, present, versions
from benchmarks.yardsticks.parts import Payload, Queue

LIVES = {1: 600, 10: 4_000, 100: 15_000, 1_000: 30_000}
"""Lives in a round by batch size: a few tenths of a second each."""

USUAL = ("jobq", "jobq mixed", "sqlite3_hand", "lmdb_bare", "jobq memory")
YARDSTICKS = ("sqlite3_hand", "lmdb_bare")


class Run(NamedTuple):
    """One side in one round. Microseconds are for one life."""

    lives_per_s: float
    enqueue_us: float
    reserve_us: float
    done_us: float


def main(arguments: Sequence[str] | None = None) -> int:
    """Run and print; the exit status."""
    session = Session("batches", __doc__, _add_options, arguments)
    options = session.options
    sides = present(options.sides)
    rounds: dict[int, dict[str, list[Run]]] = {}
    with session.measuring() as directory:
        for batch in options.batches:
            lives = max(batch, round(LIVES.get(batch, 20 * batch) * options.scale))
            rounds[batch] = compare(directory, sides, batch, lives, options.rounds)
            print_table(batch, lives, rounds[batch])
    settings = {
        "payload_bytes": 200,
        "threads": 1,
        "scale": options.scale,
        "versions": versions(sides),
    }
    cases = {
        ("life", batch, durability(side), side): runs
        for batch, by_side in rounds.items()
        for side, runs in by_side.items()
    }
    session.keep(settings, kept(["workload", "batch", "durability", "side"], cases))
    return 0


def compare(
    directory: Path, sides: Sequence[str], batch: int, lives: int, rounds: int
) -> dict[str, list[Run]]:
    """All rounds of all sides."""
    runs: dict[str, list[Run]] = {side: [] for side in sides}
    for number, side in turns(sides, rounds):
        queue = SIDES[side](directory / f"{side.replace(' ', '-')}-{batch}-{number}")
        try:
            runs[side].append(live(queue, batch, lives))
        finally:
            queue.close()
    return runs


def live(queue: Queue[Any], batch: int, lives: int) -> Run:
    """Drive *lives* lives through the queue, after one batch that is not counted."""
    payloads = workloads.payloads(batch)
    cycle(queue, payloads)
    gc.collect()
    enqueue = reserve = done = 0
    cycles = max(1, lives // batch)
    for _ in range(cycles):
        taken = cycle(queue, payloads)
        enqueue += taken[0]
        reserve += taken[1]
        done += taken[2]
    count = cycles * batch
    return Run(
        lives_per_s=count * 1e9 / (enqueue + reserve + done),
        enqueue_us=enqueue / count / 1000,
        reserve_us=reserve / count / 1000,
        done_us=done / count / 1000,
    )


def cycle(queue: Queue[Any], payloads: Sequence[Payload]) -> tuple[int, int, int]:
    """One batch through its life; the nanoseconds of each call.

    Raises:
        AssertionError: A job is missing, changed or out of order.
    """
    start = time.perf_counter_ns()
    queue.enqueue_many(payloads)
    enqueued = time.perf_counter_ns()
    jobs = queue.reserve(len(payloads))
    came = [queue.payload(job) for job in jobs]
    reserved = time.perf_counter_ns()
    finished = queue.done_many(jobs)
    done = time.perf_counter_ns()
    if came != payloads or finished != len(payloads):
        raise AssertionError(f"{len(payloads)} in, {len(came)} out, {finished} done, or reordered")
    return enqueued - start, reserved - enqueued, done - reserved


def print_table(batch: int, lives: int, runs: dict[str, list[Run]]) -> None:
    """Medians of one batch size, and ratios to the yardsticks that ran."""
    against = [side for side in YARDSTICKS if side in runs]
    rates = {side: [run.lives_per_s for run in some] for side, some in runs.items()}
    print(f"\nbatches of {batch}, {lives:,} lives a round".replace(",", " "))
    print(
        f"  {'':20} {'lives/s':>9} {'least':>9} {'most':>9}   {'enqueue':>7} {'reserve':>7} "
        f"{'done':>7} µs" + "".join(f"  / {side}" for side in against)
    )
    for side, some in runs.items():
        mine = rates[side]
        print(
            f"  {side:20} {statistics.median(mine):9.0f} {min(mine):9.0f} {max(mine):9.0f}   "
            f"{statistics.median(run.enqueue_us for run in some):7.1f} "
            f"{statistics.median(run.reserve_us for run in some):7.1f} "
            f"{statistics.median(run.done_us for run in some):7.1f}   "
            + "".join(f"  {ratio(mine, rates[other]):{len(other) + 2}.2f}" for other in against)
        )


def _add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--rounds", type=int, default=7, help="default: %(default)s")
    parser.add_argument(
        "--batches", type=int, nargs="+", default=list(LIVES), metavar="N", help="batch sizes"
    )
    parser.add_argument(
        "--sides", nargs="+", default=USUAL, choices=list(SIDES), help="default: %(default)s"
    )
    parser.add_argument("--scale", type=float, default=1.0, help="so many times the lives")


if __name__ == "__main__":
    sys.exit(main())
