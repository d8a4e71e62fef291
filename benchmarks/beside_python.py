"""What does a thread that only computes, in the same process, cost the calls of the others?

Python lets one thread run at a time. Who computes in pure Python gives way when somebody else has
asked for `sys.getswitchinterval()`, 5 ms unless it is set, and jobq gives way at each call into
LMDB and for each flush. So a call takes some of these waits, and the write lock may be held during
them: that is what another process feels. Measured are lives (enqueue, reserve, done), one at a time
and by 100: without such a thread, beside one, and beside one with shorter intervals; then those of
another process, while the first one lives too, with and without the thread. The ways take turns.
"""

import argparse
import statistics
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import jobq
from benchmarks.processes import Child, Pipe
from benchmarks.rounds import ratio, turns
from benchmarks.session import Session
from benchmarks.workloads import payloads, percentile

TOPIC = "work"
BATCHES = (1, 100)
ALONE = "no such thread"
WAYS: dict[str, float | None] = {
    ALONE: None,
    "beside one, 5 ms": 0.005,
    "beside one, 1 ms": 0.001,
    "beside one, 0.1 ms": 0.0001,
}
"""The interval beside a thread that computes; None for no thread."""

NEIGHBOURS: dict[str, float | None] = {
    "beside a process that lives": None,
    "and computes, 5 ms": 0.005,
    "and computes, 0.1 ms": 0.0001,
}
IDLE = "alone"


class Round(NamedTuple):
    """One way in one round; what was computed meanwhile is a count of steps a second."""

    lives_per_s: float
    calls_ms: list[float]
    steps_per_s: float


def main(arguments: Sequence[str] | None = None) -> int:
    """Run and print; the exit status."""
    session = Session("beside_python", __doc__, _add_options, arguments)
    options = session.options
    rounds = options.rounds or (10 if options.full else 3)
    seconds = options.seconds or (2.0 if options.full else 0.4)
    with session.measuring(idle=True) as directory:
        with computing(0.005) as steps:
            time.sleep(seconds)
            freely = steps[0] / seconds
        results: list[dict[str, Any]] = []
        for batch in BATCHES:
            of_ways = own(directory / f"own {batch}", batch, rounds, seconds)
            results += figures("the process itself", batch, of_ways, freely)
        neighbours = others(directory / "others", rounds, seconds)
        results += figures("another process", 1, neighbours, freely)
    print_tables(results)
    session.keep({"rounds": rounds, "seconds": seconds, "durability": "full"}, results)
    return 0


def own(path: Path, batch: int, rounds: int, seconds: float) -> dict[str, list[Round]]:
    """Lives of this process by way."""
    runs: dict[str, list[Round]] = {way: [] for way in WAYS}
    with jobq.open(path, retention=0) as service:
        live(service, TOPIC, batch, 0.1)  # warms up
        for _, way in turns(list(WAYS), rounds):
            with computing(WAYS[way]) as steps:
                before, start = steps[0], time.monotonic()
                calls = live(service, TOPIC, batch, seconds)
                passed = time.monotonic() - start
                runs[way].append(_round(calls, batch, (steps[0] - before) / passed))
    return runs


def others(path: Path, rounds: int, seconds: float) -> dict[str, list[Round]]:
    """Lives of another process, one at a time, by what this one does meanwhile."""
    runs: dict[str, list[Round]] = {way: [] for way in (IDLE, *NEIGHBOURS)}
    with jobq.open(path, retention=0) as service, Child(neighbour, str(path)) as child:
        child.hear()
        for _, way in turns(list(runs), rounds):
            if way == IDLE:
                child.tell(seconds)
                steps_per_s = 0.0
            else:
                with computing(NEIGHBOURS[way]) as steps:
                    child.tell(seconds)
                    before, start = steps[0], time.monotonic()
                    live(service, "of this one", 1, seconds)
                    steps_per_s = (steps[0] - before) / (time.monotonic() - start)
            runs[way].append(_round(child.hear(), 1, steps_per_s))
    return runs


def neighbour(pipe: Pipe, path: str) -> None:
    """The other process."""
    with jobq.open(path, retention=0) as service:
        live(service, TOPIC, 1, 0.1)
        pipe.send("ready")
        while True:
            pipe.send(live(service, TOPIC, 1, pipe.recv()))


def live(
    service: jobq.JobService, topic: str, batch: int, seconds: float
) -> list[tuple[float, float, float]]:
    """Lives for so long; milliseconds of the three calls of each batch."""
    values = payloads(batch)
    calls: list[tuple[float, float, float]] = []
    end = time.monotonic() + seconds
    while not calls or time.monotonic() < end:
        start = time.perf_counter_ns()
        service.enqueue_many(topic, values)
        enqueued = time.perf_counter_ns()
        jobs = service.reserve(topic, batch, timeout=0)
        reserved = time.perf_counter_ns()
        if service.done_many(jobs).count(jobq.Outcome.OK) != batch:
            raise AssertionError(f"{len(jobs)} of {batch} jobs came")
        done = time.perf_counter_ns()
        calls.append(
            ((enqueued - start) / 1e6, (reserved - enqueued) / 1e6, (done - reserved) / 1e6)
        )
    return calls


@contextmanager
def computing(interval: float | None) -> Iterator[list[int]]:
    """A thread that counts its steps, with the switch interval set; no thread if that is None."""
    steps = [0]
    over = threading.Event()

    def work() -> None:
        is_over, count = over.is_set, 0
        while not is_over():
            for _ in range(1_000):
                count += 1
            steps[0] = count

    usual = sys.getswitchinterval()
    thread = threading.Thread(target=work) if interval is not None else None
    if interval is not None:
        sys.setswitchinterval(interval)
    try:
        if thread:
            thread.start()
        yield steps
    finally:
        over.set()
        if thread:
            thread.join()
        sys.setswitchinterval(usual)


def _round(calls: list[tuple[float, float, float]], batch: int, steps_per_s: float) -> Round:
    together = [ms for call in calls for ms in call]
    return Round(len(calls) * batch * 1000 / sum(together), together, steps_per_s)


def figures(
    whose: str, batch: int, runs: dict[str, list[Round]], freely: float
) -> list[dict[str, Any]]:
    """By way: medians of the rounds, percentiles of all calls, and the ratio to the first way."""
    base = [one.lives_per_s for one in next(iter(runs.values()))]
    results = []
    for way, rounds in runs.items():
        calls = [ms for one in rounds for ms in one.calls_ms]
        rates = [one.lives_per_s for one in rounds]
        results.append(
            {
                "whose": whose,
                "batch": batch,
                "way": way,
                "lives_per_s": statistics.median(rates),
                "ratio": ratio(rates, base),
                "p50_ms": percentile(calls, 50),
                "p99_ms": percentile(calls, 99),
                "worst_ms": max(calls),
                "computed": statistics.median(one.steps_per_s for one in rounds) / freely,
            }
        )
    return results


def print_tables(results: Sequence[dict[str, Any]]) -> None:
    """A table for each batch size, then one of the other process."""
    last = None
    for one in results:
        if (one["whose"], one["batch"]) != last:
            last = one["whose"], one["batch"]
            title = f"{one['whose']}, by {one['batch']}"
            print(
                f"\n  {title:28} {'lives/s':>8} {'ratio':>6} {'p50 ms':>7} {'p99 ms':>7} "
                f"{'worst':>7} {'computed':>9}"
            )
        print(
            f"  {one['way']:28} {one['lives_per_s']:8.0f} {one['ratio']:6.2f} "
            f"{one['p50_ms']:7.2f} {one['p99_ms']:7.2f} {one['worst_ms']:7.1f} "
            f"{one['computed']:8.0%}"
        )


def _add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--rounds", type=int, help="default: 3")
    parser.add_argument("--seconds", type=float, help="of each way in a round; default: 0.4")
    parser.add_argument("--full", action="store_true", help="10 rounds of 2 s")


if __name__ == "__main__":
    sys.exit(main())
