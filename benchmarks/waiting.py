"""How long from `done` returning in one process to `wait` returning in another?

One process enqueues a job, a second waits for its end, a third does it. The time runs from the
moment before the worker calls `done` (whole way: it holds that commit) and from its return (the
call alone) to the waiter having the record. CLOCK_MONOTONIC is the same for all processes. Between
two jobs there is a pause, so that everybody sleeps. The machine should be idle.
"""

import argparse
import random
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import jobq
from benchmarks.processes import Child, Pipe
from benchmarks.session import Session
from benchmarks.workloads import print_percentiles

TOPIC = "work"
PAUSE_S = (0.005, 0.020)
PATIENCE_S = 30.0
WARM_UP = 5


def main(arguments: Sequence[str] | None = None) -> int:
    """Run and print; the exit status."""
    session = Session("waiting", __doc__, _add_options, arguments)
    options = session.options
    with session.measuring(idle=True) as directory:
        result = done_to_answer(directory / "waiting", options.jobs)
    titles = {"answer_ms": "done returned to answer", "whole_ms": "call of done to answer"}
    print_percentiles("ms", 28, {title: result[name] for name, title in titles.items()})
    session.keep({"jobs": options.jobs, "pause_s": PAUSE_S, "durability": "full"}, result)
    return 0


def done_to_answer(path: Path, jobs: int) -> dict[str, list[float]]:
    """Milliseconds by job: from the return of `done`, 0 if the waiter was first, and its call."""
    answer_ms, whole_ms = [], []
    with (
        jobq.open(str(path)) as service,
        Child(wait, str(path)) as waiter,
        Child(work, str(path)) as worker,
    ):
        waiter.hear()
        worker.hear()
        for number in range(-WARM_UP, jobs):
            waiter.tell(service.enqueue(TOPIC, number))
            time.sleep(random.uniform(*PAUSE_S))  # the waiter sleeps by then
            worker.tell("do it")
            called_ns, returned_ns = worker.hear()
            came_ns, result = waiter.hear()
            if result != number:
                raise AssertionError(f"job {number} ended with {result}")
            if number >= 0:
                answer_ms.append(max(0, came_ns - returned_ns) / 1e6)
                whole_ms.append((came_ns - called_ns) / 1e6)
        waiter.tell(None)
        worker.tell(None)
    return {"answer_ms": answer_ms, "whole_ms": whole_ms}


def wait(pipe: Pipe, path: str) -> None:
    """The waiting process."""
    with jobq.open(path) as service:
        pipe.send("ready")
        while (job_id := pipe.recv()) is not None:
            record = service.wait(job_id, PATIENCE_S)
            came_ns = time.monotonic_ns()
            pipe.send((came_ns, record.result))


def work(pipe: Pipe, path: str) -> None:
    """The working process."""
    with jobq.open(path) as service:
        pipe.send("ready")
        while pipe.recv() is not None:
            [job] = service.reserve(TOPIC, timeout=PATIENCE_S)
            result = job.payload
            called_ns = time.monotonic_ns()
            job.done(result)
            pipe.send((called_ns, time.monotonic_ns()))


def _add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--jobs", type=int, default=500, help="default: %(default)s")


if __name__ == "__main__":
    sys.exit(main())
