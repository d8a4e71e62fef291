"""What do a unique key, a deadline and a cap cost a job, one at a time and by 100?

One thread, one topic, payloads of 200 bytes, each call on disk before it returns. A life is an
enqueue through `batch`, `reserve` and `done_many`: three commits for so many jobs. The sides take
turns in every round, each on a fresh directory. The figures are medians, the ratios are medians of
the ratios within a round to jobs that have none of it: what is not used has to cost nothing.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, NamedTuple

import jobq
from benchmarks import workloads
from benchmarks.rounds import by_batch, ratio, turns
from benchmarks.session import Session

TOPIC: Final = "work"
LIVES: Final = {1: 400, 100: 10_000}
"""Lives in a round by batch size."""

PLAIN: Final = "plain"
LATER: Final = datetime(2100, 1, 1, tzinfo=UTC)
MOST: Final = 10**9

Options = Callable[[int], dict[str, Any]]

SIDES: Final[dict[str, Options]] = {
    PLAIN: lambda _: {},
    "unique": lambda number: {"unique": f"key-{number}"},
    "while waiting": lambda number: {"unique": f"key-{number}", "unique_for": "waiting"},
    "for a second": lambda number: {"unique": f"key-{number}", "unique_for": 1.0},
    "deadline": lambda _: {"deadline": LATER},
    "unique, ttl": lambda number: {"unique": f"key-{number}", "ttl": 3600.0},
    "capped topic": lambda _: {},
}


class Run(NamedTuple):
    """One side in one round: microseconds for one life, and for an enqueue that adds nothing."""

    enqueue_us: float
    reserve_us: float
    done_us: float
    refused_us: float

    @property
    def life_us(self) -> float:
        return self.enqueue_us + self.reserve_us + self.done_us


def main(arguments: Sequence[str] | None = None) -> int:
    """Run and print; the exit status."""
    session = Session("uniques", __doc__, _add_options, arguments)
    options = session.options
    rounds: dict[int, dict[str, list[Run]]] = {}
    with session.measuring() as directory:
        for batch, lives in LIVES.items():
            lives = max(batch, round(lives * options.scale))
            rounds[batch] = compare(directory, batch, lives, options.rounds)
            print_table(batch, lives, rounds[batch])
    session.keep(
        {"payload_bytes": 200, "durability": "full", "threads": 1, "scale": options.scale},
        by_batch(rounds),
    )
    return 0


def compare(directory: Path, batch: int, lives: int, rounds: int) -> dict[str, list[Run]]:
    """All rounds of all sides."""
    runs: dict[str, list[Run]] = {side: [] for side in SIDES}
    for number, side in turns(SIDES, rounds):
        path = directory / f"{side.replace(' ', '-')}-{batch}-{number}"
        with jobq.open(str(path)) as service:
            if side == "capped topic":
                service.configure(TOPIC, max_jobs=MOST, max_bytes=MOST)
            runs[side].append(live(service, SIDES[side], batch, lives))
    return runs


def live(service: jobq.JobService, options: Options, batch: int, lives: int) -> Run:
    """Drive *lives* lives, after one batch that is not counted.

    Raises:
        AssertionError: A job was lost, or added twice.
    """
    payloads = workloads.payloads(batch)
    took_ns = [0, 0, 0, 0]
    keyed = "unique" in options(0)
    done = 0
    for first in range(-batch, lives, batch):
        moments = [time.perf_counter_ns()]
        ids = enqueue(service, options, payloads, first)
        moments.append(time.perf_counter_ns())
        if keyed and enqueue(service, options, payloads, first) != ids:
            raise AssertionError("a key was given to two jobs")
        moments.append(time.perf_counter_ns())
        jobs = service.reserve(TOPIC, batch, timeout=0)
        moments.append(time.perf_counter_ns())
        done += service.done_many(jobs).count(jobq.Outcome.OK)
        moments.append(time.perf_counter_ns())
        if first >= 0:
            for at in range(4):
                took_ns[at] += moments[at + 1] - moments[at]
    if done != lives + batch:
        raise AssertionError(f"{done} of {lives + batch} jobs were done")
    enqueue_us, refused_us, reserve_us, done_us = (ns / 1e3 / lives for ns in took_ns)
    return Run(enqueue_us, reserve_us, done_us, refused_us if keyed else 0.0)


def enqueue(
    service: jobq.JobService, options: Options, payloads: Sequence[Any], first: int
) -> list[str]:
    """A batch in one commit."""
    with service.batch() as batch:
        for number, payload in enumerate(payloads):
            batch.enqueue(TOPIC, payload, **options(first + number))
    return batch.ids


def print_table(batch: int, lives: int, runs: dict[str, list[Run]]) -> None:
    """One line for each side."""
    print(f"\nby {batch}, {lives} lives a round, µs a life")
    print(
        f"  {'':14} {'enqueue':>8} {'reserve':>8} {'done':>8} {'life':>8} "
        f"{'there already':>14} {'life / plain':>13}"
    )
    columns = ("enqueue_us", "reserve_us", "done_us", "life_us")
    lives_us = {side: [run.life_us for run in some] for side, some in runs.items()}
    for side, some in runs.items():
        figures = " ".join(f"{_median(some, column):8.1f}" for column in columns)
        there = _median(some, "refused_us")
        print(
            f"  {side:14} {figures} {f'{there:.1f}' if there else '':>14} "
            f"{ratio(lives_us[side], lives_us[PLAIN]):13.2f}"
        )


def _median(some: Sequence[Run], name: str) -> float:
    return statistics.median(float(getattr(run, name)) for run in some)


def _add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--rounds", type=int, default=5, help="default: %(default)s")
    parser.add_argument("--scale", type=float, default=1.0, help="so many times the lives")


if __name__ == "__main__":
    sys.exit(main())
