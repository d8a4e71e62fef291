"""What does it cost to reserve where jobs have groups, and beside what waits at a limit?

Each queue has one topic with 10 000 jobs: without groups, or evenly in 1, 100 or 10 000 of them.
Two more have something at its limit: a group of the topic, held up by a job that is reserved, and
another topic, at its rate, with many jobs waiting. Calls reserve 1, 10 or 100 jobs, and only the
call of `reserve` is timed; the jobs are settled and enqueued anew meanwhile. All ways take turns,
so that the machine treats them alike. The ratio is that of medians, to the topic without groups.
"""

import argparse
import random
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import jobq
from benchmarks import machine
from benchmarks.workloads import payloads, percentile

JOBS = 10_000
SIZES = (1, 10, 100)
FILL = 5_000
"""Jobs in one commit while a queue is filled."""

TOPIC, LIMITED = "work", "limited"
PLAIN = "no groups"


@dataclass
class Way:
    """A queue to reserve from, and what the calls have taken."""

    title: str
    service: jobq.JobService
    taken_us: list[float] = field(default_factory=list)
    jobs: int = 0

    def reserve(self, n: int) -> None:
        """Reserve once; what was taken is enqueued anew."""
        start = time.perf_counter_ns()
        jobs = self.service.reserve(TOPIC, n, timeout=0)
        self.taken_us.append((time.perf_counter_ns() - start) / 1000)
        self.jobs += len(jobs)
        again = [jobq.NewJob(TOPIC, job.payload, group=job.options.group) for job in jobs]
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
        results = measure(directory, options.calls, options.waiting)
    for n, by_way in results.items():
        print(f"\n  {f'{n} at a time, µs a call':44} {'p50':>8} {'p99':>8} {'ratio':>6}")
        for title, result in by_way.items():
            print(
                f"  {title:44} {result['p50_us']:8.0f} {result['p99_us']:8.0f} "
                f"{result['ratio']:6.2f}"
            )
    machine.keep(
        options.json,
        "groups",
        __doc__.splitlines()[0],
        facts,
        {"calls": options.calls, "waiting": options.waiting, "durability": "full"},
        results,
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
        return {str(n): _turns(queues, n, calls) for n in SIZES}
    finally:
        for service in queues.values():
            service.close()


def _turns(queues: dict[str, jobq.JobService], n: int, calls: int) -> dict[str, dict[str, float]]:
    ways = [Way(title, service) for title, service in queues.items()]
    in_turn = list(ways)
    chance = random.Random(1)
    for number in range(-3, calls):
        chance.shuffle(in_turn)
        for way in in_turn:
            way.reserve(n)
            if number < 0:  # warm up: handles are opened
                way.taken_us.clear()
                way.jobs = 0
    short = [way.title for way in ways if way.jobs != n * calls]
    if short:
        raise AssertionError(f"not all calls had {n} jobs: {short}")
    base = statistics.median(ways[0].taken_us)
    return {
        way.title: {
            "p50_us": statistics.median(way.taken_us),
            "p99_us": percentile(way.taken_us, 99),
            "ratio": statistics.median(way.taken_us) / base,
        }
        for way in ways
    }


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


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="benchmarks.groups", description=__doc__)
    parser.add_argument("--calls", type=int, default=200, help="of each; default: %(default)s")
    parser.add_argument(
        "--waiting", type=int, default=100_000, help="jobs at a limit; default: %(default)s"
    )
    parser.add_argument("--dir", type=Path, help="directory on the disk to be measured")
    parser.add_argument("--json", type=Path, metavar="FILE", help="keep the results as data")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
