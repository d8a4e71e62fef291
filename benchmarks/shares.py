"""What does it cost to reserve of several topics, and where there are thousands of them?

One queue has one topic, the other 10 000 with jobs in each. Calls reserve 1 or 100 jobs: of one
topic in either queue, of 2 and of 100 topics by their shares, in a strict order, and by a pattern
that all topics are like. A third queue has 10 000 topics too, of which 10 have jobs. Only the call
of `reserve` is timed; the jobs are settled meanwhile. All ways take turns, so that the machine
treats them alike. The ratio is that of medians, to one topic in the queue of one topic.
"""

import argparse
import random
import sys
from collections.abc import Sequence
from pathlib import Path

import jobq
from benchmarks.session import Session
from benchmarks.ways import Way, compare, print_tables
from benchmarks.workloads import payloads

TOPICS = 10_000
WITH_JOBS = 10
SIZES = (1, 100)
FILL = 5_000
"""Jobs in one commit while a queue is filled."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run and print; the exit status."""
    session = Session("shares", __doc__, _add_options, arguments)
    options = session.options
    with session.measuring(idle=True) as directory:
        results = {str(n): measure(directory / str(n), n, options.calls) for n in SIZES}
    print_tables(results)
    session.keep({"calls": options.calls, "topics": TOPICS, "durability": "full"}, results)
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
        return dict(sorted(compare(ways, n, calls).items()))


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


def _add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--calls", type=int, default=300, help="of each; default: %(default)s")


if __name__ == "__main__":
    sys.exit(main())
