"""What does it cost to reserve where jobs have groups, and beside what waits at a limit?

Each queue has one topic with 10 000 jobs: without groups, or evenly in 1, 100 or 10 000 of them.
Two more have something at its limit: a group of the topic, held up by a job that is reserved, and
another topic, at its rate, with many jobs waiting. Calls reserve 1, 10 or 100 jobs, and only the
call of `reserve` is timed; the jobs are settled and enqueued anew meanwhile. All ways take turns,
so that the machine treats them alike. The ratio is that of medians, to the topic without groups.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import jobq
from benchmarks.session import Session
from benchmarks.ways import Way, compare, print_tables
from benchmarks.workloads import payloads

JOBS = 10_000
SIZES = (1, 10, 100)
FILL = 5_000
"""Jobs in one commit while a queue is filled."""

TOPIC, LIMITED = "work", "limited"
PLAIN = "no groups"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run and print; the exit status."""
    session = Session("groups", __doc__, _add_options, arguments)
    options = session.options
    with session.measuring(idle=True) as directory:
        results = measure(directory, options.calls, options.waiting)
    print_tables(results)
    session.keep(
        {"calls": options.calls, "waiting": options.waiting, "durability": "full"}, results
    )
    return 0


def measure(path: Path, calls: int, waiting: int) -> dict[str, dict[str, dict[str, float]]]:
    """Figures of each way, by how many jobs are asked for and by title."""
    many = f"{waiting:,}".replace(",", " ")
    queues = {PLAIN: queue(path / "plain", 0)}
    for groups in (1, 100, 10_000):
        queues[f"{groups} group{'s' * (groups > 1)}"] = queue(path / str(groups), groups)
    queues[f"100 groups, one more blocked with {many}"] = blocked(path / "blocked", waiting)
    queues[f"no groups, another topic at its rate with {many}"] = limited(path / "rate", waiting)
    try:
        return {
            str(n): compare(
                [Way(title, service, lambda: TOPIC) for title, service in queues.items()], n, calls
            )
            for n in SIZES
        }
    finally:
        for service in queues.values():
            service.close()


def queue(path: Path, groups: int) -> jobq.JobService:
    """A queue whose jobs are evenly in so many groups; in none if that is 0."""
    with jobq.open(str(path), durability="unsafe") as service:
        fill(service, TOPIC, JOBS, [f"group {number}" for number in range(groups)])
    return jobq.open(str(path), retention=0)


def blocked(path: Path, waiting: int) -> jobq.JobService:
    """A queue with 100 groups, and one more whose first job is held for hours."""
    with jobq.open(str(path), durability="unsafe") as service:
        fill(service, TOPIC, waiting, ["blocked"])
        fill(service, TOPIC, JOBS, [f"group {number}" for number in range(100)])
    service = jobq.open(str(path), retention=0)
    (held,) = service.reserve(TOPIC, timeout=0)
    held.extend(6 * 3600)
    service.configure(TOPIC, group_concurrency=1)
    return service


def limited(path: Path, waiting: int) -> jobq.JobService:
    """A queue with a topic that has no groups, and another that is at its rate for hours."""
    with jobq.open(str(path), durability="unsafe") as service:
        fill(service, LIMITED, waiting, [])
        fill(service, TOPIC, JOBS, [])
        service.configure(LIMITED, rate=(1, 6 * 3600))
    service = jobq.open(str(path), retention=0)
    (first,) = service.reserve(LIMITED, timeout=0)
    first.done()
    return service


def fill(service: jobq.JobService, topic: str, jobs: int, groups: Sequence[str]) -> None:
    values = payloads(min(jobs, FILL))
    for start in range(0, jobs, FILL):
        with service.batch() as batch:
            for number in range(start, min(start + FILL, jobs)):
                value = values[number - start]
                if groups:
                    batch.enqueue(topic, value, group=groups[number % len(groups)])
                else:
                    batch.enqueue(topic, value)


def _add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--calls", type=int, default=200, help="of each; default: %(default)s")
    parser.add_argument(
        "--waiting", type=int, default=100_000, help="jobs at a limit; default: %(default)s"
    )


if __name__ == "__main__":
    sys.exit(main())
