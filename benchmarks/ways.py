"""Ways to reserve, timed beside one another: they take turns, so that the machine treats all alike.

Only the call of `reserve` is timed; the jobs are settled and enqueued anew meanwhile.
"""

import random
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import jobq
from benchmarks.workloads import percentile
from jobq.shares import Topics

WARM_UP = 3


@dataclass
class Way:
    """A queue and the topics to reserve of, and what the calls have taken."""

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
        again = [jobq.NewJob(job.topic, job.payload, group=job.options.group) for job in jobs]
        jobs[0].done(then=again)
        self.service.done_many(jobs[1:])


def compare(ways: Sequence[Way], n: int, calls: int) -> dict[str, dict[str, float]]:
    """Figures of each way by its title: so many calls of *n* jobs each; ratios are to the first.

    Raises:
        AssertionError: A call had fewer jobs.
    """
    in_turn = list(ways)
    chance = random.Random(1)
    for number in range(-WARM_UP, calls):
        chance.shuffle(in_turn)
        for way in in_turn:
            way.reserve(n)
            if number < 0:  # warm up: handles are opened, choices made
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


def print_tables(results: Mapping[str, Mapping[str, Mapping[str, float]]]) -> None:
    """A table for each number of jobs, a line for each way."""
    for n, by_way in results.items():
        print(f"\n  {f'{n} at a time, µs a call':44} {'p50':>8} {'p99':>8} {'ratio':>6}")
        for title, result in by_way.items():
            print(
                f"  {title:44} {result['p50_us']:8.0f} {result['p99_us']:8.0f} "
                f"{result['ratio']:6.2f}"
            )
