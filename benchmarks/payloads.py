"""How many jobs a second live through enqueue, reserve and done, by the size of their payloads?

Empty payloads, 200 bytes, 10 kB and 1 MB (in msgpack; what jobq takes without being asked ends at
1 MiB). One thread, one topic, three calls for a batch; every payload is read and compared. Beside
jobq with each call on disk (`full`), jobq where the last commit may be lost in a power cut
(`relaxed`), and in memory. The sides take turns in every round, each on a fresh directory.
"""

import argparse
import gc
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

from benchmarks import workloads
from benchmarks.batches import cycle
from benchmarks.rounds import Pace, add_pace, kept, pace_of, print_rates, turns
from benchmarks.session import Session
from benchmarks.sides import SIDES, durability, present, versions
from benchmarks.yardsticks.parts import Payload, Queue

QUICK, FULL = Pace(3, 0.15), Pace(5, 1.0)
SIZES: Final = (0, 200, 10_000, 1_000_000)
BATCHES_OF_FULL: Final = (1, 10)
MOST_AT_ONCE: Final = 10_000_000
"""Bytes of a batch: what is larger is left out."""

USUAL: Final = (
    "jobq", "jobq relaxed", "jobq memory", "lmdb_bare", "sqlite3_hand", "sqlite3_apart",
    "huey", "litequeue", "persist-queue",
)  # fmt: skip
AGAINST: Final = ("sqlite3_hand", "sqlite3_apart", "lmdb_bare")

Case = tuple[int, int, str]


class Run(NamedTuple):
    """One side in one round. Microseconds are for one life."""

    lives_per_s: float
    enqueue_us: float
    reserve_us: float
    done_us: float


def main(arguments: Sequence[str] | None = None) -> int:
    """Run and print; the exit status."""
    session = Session("payloads", __doc__, _add_options, arguments)
    options, (rounds, seconds) = session.options, pace_of(session.options)
    sides = present(options.sides)
    batches = options.batches or (BATCHES_OF_FULL if options.pace is FULL else (1,))
    runs: dict[Case, list[Run]] = {}
    with session.measuring() as directory:
        for size in options.sizes:
            for batch in batches:
                if size * batch > MOST_AT_ONCE:
                    continue
                payloads = workloads.payloads(batch, size)
                for number, side in turns(sides, rounds):
                    path = directory / f"{size}-{batch}-{number}-{side.replace(' ', '-')}"
                    run = measure(path, side, payloads, seconds)
                    runs.setdefault((size, batch, side), []).append(run)
                print_table(runs, size, batch)
    session.keep(
        {"threads": 1, "seconds": seconds, "versions": versions(sides)},
        kept(
            ["workload", "payload_bytes", "batch", "durability", "side"],
            {
                ("life", size, batch, durability(side), side): some
                for (size, batch, side), some in runs.items()
            },
        ),
    )
    return 0


def measure(path: Path, side: str, payloads: Sequence[Payload], seconds: float) -> Run:
    """Batches through a new queue for so many seconds, after one that is not counted.

    Raises:
        AssertionError: A job is missing, changed or out of order.
    """
    queue: Queue[Any] = SIDES[side](path)
    try:
        cycle(queue, payloads)
        gc.collect()
        enqueue = reserve = done = count = 0
        end = time.perf_counter() + seconds
        while time.perf_counter() < end:
            taken = cycle(queue, payloads)
            enqueue += taken[0]
            reserve += taken[1]
            done += taken[2]
            count += len(payloads)
    finally:
        queue.close()
    us = 1000 * count
    return Run(count * 1e9 / (enqueue + reserve + done), enqueue / us, reserve / us, done / us)


def print_table(runs: dict[Case, list[Run]], size: int, batch: int) -> None:
    """One size and batch: rates, and ratios to the yardsticks that ran."""
    rates = {
        side: [run.lives_per_s for run in some]
        for (its, by, side), some in runs.items()
        if (its, by) == (size, batch)
    }
    print(f"\npayloads of {size:,} bytes, batches of {batch}".replace(",", " "))
    print_rates("lives/s", rates, {name: rates[name] for name in AGAINST if name in rates})


def _add_options(parser: argparse.ArgumentParser) -> None:
    add_pace(parser, QUICK, FULL)
    parser.add_argument(
        "--sizes", type=int, nargs="+", default=list(SIZES), metavar="N", help="bytes of a payload"
    )
    parser.add_argument(
        "--batches", type=int, nargs="+", metavar="N", help="batch sizes; 1, and 10 with --full"
    )
    parser.add_argument(
        "--sides", nargs="+", default=USUAL, choices=list(SIDES), help="default: %(default)s"
    )


if __name__ == "__main__":
    sys.exit(main())
