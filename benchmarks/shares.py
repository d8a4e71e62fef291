"""What does it cost to reserve of several topics, and where there are thousands of them?

One queue has one topic, the other 10 000 with jobs in each. Calls reserve 1 or 100 jobs: of one
topic in either queue, of 2 and of 100 topics by their shares, in a strict order, and by a pattern
that all topics are like. A third queue has 10 000 topics too, of which 10 have jobs. Only the call
of `reserve` is timed; the jobs are settled meanwhile. All ways take turns, so that the machine
treats them alike. The ratio is that of medians, to one topic in the queue of one topic.
"""

import argparse
import random
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import jobq
from benchmarks import machine
from benchmarks.workloads import payloads, percentile
from jobq.shares import Topics

TOPICS = 10_000
WITH_JOBS = 10
SIZES = (1, 100)
FILL = 5_000
"""Jobs in one commit while a queue is filled."""


@dataclass
class Way:
    """A way to reserve, and what its calls have taken."""

    title: str
    service: jobq.JobService
    topics: Callable[[], Topics]
    strict: bool = False
    taken_us: list[float] = field(default_factory=list)
    jobs: int = 0

    def reserve(self, n: int) -> None:
        """Reserve once; what was taken is enqueued anew."""
        topics = self.topics()
        start = time.perf_counter_ns()
        jobs = self.service.reserve(topics, n, strict=self.strict, timeout=0)
        self.taken_us.append((time.perf_counter_ns() - start) / 1000)
        self.jobs += len(jobs)
        again = [jobq.NewJob(job.topic, job.payload) for job in jobs]
        jobs[0].done(then=again)
        self.service.done_many(jobs[1:])


def main(arguments: Sequence[str] | None = None) -> int:
    """Run and print; the exit status."""
    options = _options(arguments)
    with machine.workspace(options.dir) as directory:
        facts = machine.facts(directory)
        print(__doc__.splitlines()[0])
        print(machine.describe(facts))
        machine.warn_if_busy()
        results = {str(n): measure(directory / str(n), n, options.calls) for n in SIZES}
    for n, by_way in results.items():
        print(f"\n  {f'{n} at a time, µs a call':44} {'p50':>8} {'p99':>8} {'ratio':>6}")
        for title, result in by_way.items():
            print(
                f"  {title:44} {result['p50_us']:8.0f} {result['p99_us']:8.0f} "
                f"{result['ratio']:6.2f}"
            )
    machine.keep(
        options.json,
        "shares",
        __doc__.splitlines()[0],
        facts,
        {"calls": options.calls, "topics": TOPICS, "durability": "full"},
        results,
    )
    return 0


def measure(path: Path, n: int, calls: int) -> dict[str, dict[str, float]]:
    """Figures of each way to reserve *n* jobs, by its title."""
    path.mkdir()
    names = [f"topic.{number}" for number in range(TOPICS)]
    with (
        queue(path / "one", ["topic.0"], 20 * n) as one,
        queue(path / "many", names, 2) as many,
        queue(path / "few", names[:: TOPICS // WITH_JOBS], 20 * n) as few,
    ):
        few.enqueue_many("other", range(1))
        with few.batch() as batch:
            for name in names:
                batch.enqueue(name)
        few.delete(batch.ids)
        # Topics of which all n jobs can be had, so that each call reserves as many.
        deep = names[::100]
        for name in deep:
            many.enqueue_many(name, payloads(20 * n))
        chance = random.Random(1)
        ways = [
            Way("one topic, in a queue of one", one, lambda: "topic.0"),
            Way("one topic of 10 000, by its name", many, lambda: chance.choice(deep)),
            Way("2 topics", many, lambda: {deep[0]: 5, deep[1]: 1}),
            Way("100 topics", many, lambda: deep),
            Way("100 topics, strict", many, lambda: deep, strict=True),
            Way("10 000 topics by a pattern", many, lambda: jobq.Pattern("topic.*")),
            Way("10 000 by a pattern, 10 have jobs", few, lambda: jobq.Pattern("topic.*")),
        ]
        for number in range(-3, calls):
            chance.shuffle(ways)
            for way in ways:
                way.reserve(n)
                if number < 0:  # warm up: handles are opened, choices made
                    way.taken_us.clear()
                    way.jobs = 0
        short = [way.title for way in ways if way.jobs != n * calls]
        if short:
            raise AssertionError(f"not all calls had {n} jobs: {short}")
    by_title = {way.title: way.taken_us for way in sorted(ways, key=lambda way: way.title)}
    base = statistics.median(by_title["one topic, in a queue of one"])
    return {
        title: {
            "p50_us": statistics.median(taken_us),
            "p99_us": percentile(taken_us, 99),
            "ratio": statistics.median(taken_us) / base,
        }
        for title, taken_us in by_title.items()
    }


def queue(path: Path, topics: Sequence[str], jobs: int) -> jobq.JobService:
    """A queue with so many jobs in each of the topics."""
    with jobq.open(str(path), durability="unsafe") as service:
        values = payloads(jobs)
        todo = [(topic, value) for topic in topics for value in values]
        for start in range(0, len(todo), FILL):
            with service.batch() as batch:
                for topic, value in todo[start : start + FILL]:
                    batch.enqueue(topic, value)
    return jobq.open(str(path), retention=0)


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="benchmarks.shares", description=__doc__)
    parser.add_argument("--calls", type=int, default=300, help="of each; default: %(default)s")
    parser.add_argument("--dir", type=Path, help="directory on the disk to be measured")
    parser.add_argument("--json", type=Path, metavar="FILE", help="keep the results as data")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
