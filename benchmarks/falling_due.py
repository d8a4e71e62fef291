"""What does a caller feel while very many jobs fall due in one moment?

They are delayed, or reserved with leases that end, or waiting with deadlines that pass, all in the
same moment; or their holder is killed. Meanwhile one process sends jobs of another topic through
enqueue, reserve and done, one at a time and all the time, and each of its calls is timed: before
that moment, and from then on until all of them have been moved. Alone, where its own calls have to
move them all, and beside a process that waits for jobs of a third topic, which does so too (who is
dead is noticed by those who wait, and at an opening). The queues are filled a day before, by clocks
that are set forward when they are full.
"""

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import jobq
from benchmarks import filling
from benchmarks.filling import A_DAY_S, AT_ONCE, TOPIC
from benchmarks.processes import Child, Pipe
from benchmarks.session import Session
from benchmarks.workloads import payloads, percentile
from jobq.clock import SystemClock
from jobq.repo.lmdb import LmdbStore

BEFORE_S = 0.6
"""How long calls are timed before the moment."""
SET_UP_S = 1.6
"""From the setting of the clocks to the moment: processes have to start meanwhile."""
PATIENCE_S = 600.0
ASKED_MS = 100.0


class LaterClock(SystemClock):
    """The machine's clocks, set forward by so many microseconds."""

    def __init__(self, later_us: int) -> None:
        super().__init__()
        self.later_us = later_us

    def wall_us(self) -> int:
        return super().wall_us() + self.later_us

    def boot_us(self) -> int:
        return super().boot_us() + self.later_us


def delayed(service: jobq.JobService, values: Sequence[Any], left_s: float) -> None:
    service.enqueue_many(TOPIC, values, delay=left_s)


def leases(service: jobq.JobService, values: Sequence[Any], left_s: float) -> None:
    service.enqueue_many(TOPIC, values, lease=left_s)
    service.reserve(TOPIC, len(values), timeout=0)


def deadlines(service: jobq.JobService, values: Sequence[Any], left_s: float) -> None:
    service.enqueue_many(TOPIC, values, ttl=left_s)


def holder(service: jobq.JobService, values: Sequence[Any], left_s: float) -> None:
    service.enqueue_many(TOPIC, values, lease=2 * left_s)  # ends long after all of this
    service.reserve(TOPIC, len(values), timeout=0)


FILL: dict[str, Callable[[jobq.JobService, Sequence[Any], float], None]] = {
    "delayed jobs": delayed,
    "leases": leases,
    "deadlines": deadlines,
    "jobs of a killed holder": holder,
}
KILLED = "jobs of a killed holder"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run and print; the exit status."""
    session = Session("falling_due", __doc__, _add_options, arguments)
    options = session.options
    jobs = options.jobs or (1_000_000 if options.full else 50_000)
    results = []
    with session.measuring(idle=True) as directory:
        print(f"\n  {jobs:,} at once".replace(",", " "))
        print_head()
        for kind in options.kinds:
            for waiters in (0, 1) if kind != KILLED else (1,):
                path = directory / f"{kind} {waiters}"
                results.append(measure(path, kind, jobs, waiters))
                print_line(results[-1])
    worst = max(result["during"]["worst_ms"] for result in results)
    print(f"\nthe worst call of all: {worst:.0f} ms; asked for: {ASKED_MS:.0f} ms")
    session.keep({"jobs": jobs, "before_s": BEFORE_S, "durability": "full"}, results)
    return 0


def measure(path: Path, kind: str, jobs: int, waiters: int) -> dict[str, Any]:
    """Fill a queue, and look on while its jobs fall due."""
    with ExitStack() as stack:
        filler = stack.enter_context(Child(fill, str(path), kind, jobs))
        due_ns = filler.hear(PATIENCE_S)
        filling.settle(path)
        clock = LaterClock((due_ns - time.time_ns()) // 1000 - round(1e6 * SET_UP_S))
        children = [
            stack.enter_context(Child(wait, str(path), clock.later_us)) for _ in range(waiters)
        ]
        for child in children:
            child.hear()
        with jobq.JobService(LmdbStore(path, clock=clock), retention=0) as service:
            time.sleep(max(0.0, due_ns / 1e9 - clock.wall_us() / 1e6 - BEFORE_S))
            before = live_until(service, lambda: clock.wall_us() * 1000 >= due_ns)
            if kind == KILLED:
                filler.kill()
            start = time.monotonic()
            during = live_until(service, lambda: _left(service, kind) == 0)
            seconds = time.monotonic() - start
            moved = service.stats(TOPIC).totals
    arrived = moved.canceled if kind == "deadlines" else moved.ready
    if arrived != jobs:
        raise AssertionError(f"{jobs} {kind} fell due, {arrived} were moved")
    return {
        "kind": kind,
        "jobs": jobs,
        "waiters": waiters,
        "seconds": seconds,
        "before": figures(before),
        "during": figures(during),
    }


def fill(pipe: Pipe, path: str, kind: str, jobs: int) -> None:
    """The process that fills the queue, says when all falls due, and goes on living."""
    due_ns = time.time_ns() + round(A_DAY_S * 1e9)
    values = payloads(min(jobs, AT_ONCE))
    with jobq.open(path, durability="unsafe") as service:
        for start in range(0, jobs, AT_ONCE):
            left_s = (due_ns - time.time_ns()) / 1e9
            FILL[kind](service, values[: jobs - start], left_s)
        pipe.send(due_ns)
        time.sleep(PATIENCE_S)


def wait(pipe: Pipe, path: str, later_us: int) -> None:
    """A process that waits for jobs, which do not come."""
    with jobq.JobService(LmdbStore(path, clock=LaterClock(later_us))) as service:
        pipe.send("ready")
        service.reserve("nothing", timeout=PATIENCE_S)


class Call(NamedTuple):
    """How long one took, and how long of it this thread was on a processor."""

    ms: float
    cpu_ms: float


def live_until(service: jobq.JobService, over: Callable[[], bool]) -> list[Call]:
    """Jobs one after the other, at least one; the calls of all of them."""
    (payload,) = payloads(1)
    calls: list[Call] = []

    def timed(call: Callable[..., Any], *args: Any, **named: Any) -> Any:
        start, cpu = time.perf_counter_ns(), time.thread_time_ns()
        result = call(*args, **named)
        cpu, taken = time.thread_time_ns() - cpu, time.perf_counter_ns() - start
        calls.append(Call(taken / 1e6, cpu / 1e6))
        return result

    end = time.monotonic() + PATIENCE_S
    while not calls or not over():
        if time.monotonic() > end:
            raise TimeoutError("they are not all moved")
        timed(service.enqueue, "live", payload)
        (job,) = timed(service.reserve, "live", timeout=0)
        timed(job.done)
    return calls


def _left(service: jobq.JobService, kind: str) -> int:
    counted = service.stats(TOPIC).totals
    if kind == "delayed jobs":
        return counted.delayed
    return counted.ready if kind == "deadlines" else counted.reserved


def figures(calls: Sequence[Call]) -> dict[str, float]:
    """Lives a second, and milliseconds of calls."""
    taken = [call.ms for call in calls]
    return {
        "lives": len(calls) // 3,
        "lives_per_s": len(calls) / 3 * 1000 / sum(taken),
        "p50_ms": percentile(taken, 50),
        "p99_ms": percentile(taken, 99),
        "worst_ms": max(taken),
        "worst_cpu_ms": max(call.cpu_ms for call in calls),
    }


def print_head() -> None:
    print(
        f"  {'':36} {'moved':>6}   {'before:':>8} {'p50':>6} {'worst':>6}   "
        f"{'meanwhile:':>10} {'p50':>6} {'p99':>6} {'worst':>6} {'of CPU':>6}\n"
        f"  {'':36} {'in s':>6}   {'lives/s':>8} {'ms':>6} {'ms':>6}   "
        f"{'lives/s':>10} {'ms':>6} {'ms':>6} {'ms':>6} {'ms':>6}"
    )


def print_line(result: dict[str, Any]) -> None:
    before, during = result["before"], result["during"]
    title = result["kind"] + (", a waiter" if result["waiters"] else "")
    print(
        f"  {title:36} {result['seconds']:6.2f}   {before['lives_per_s']:8.0f} "
        f"{before['p50_ms']:6.2f} {before['worst_ms']:6.1f}   {during['lives_per_s']:10.0f} "
        f"{during['p50_ms']:6.2f} {during['p99_ms']:6.1f} {during['worst_ms']:6.1f} "
        f"{during['worst_cpu_ms']:6.1f}"
    )


def _add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--jobs", type=int, help="that fall due; default: 50 000")
    parser.add_argument("--full", action="store_true", help="1 000 000 jobs")
    parser.add_argument(
        "--kinds", nargs="+", default=list(FILL), choices=list(FILL), help="default: all"
    )


if __name__ == "__main__":
    sys.exit(main())
