"""How long from enqueue in one process to reserve returning in another, and what does waiting cost?

The time runs from the call of `enqueue` to the return of `reserve`, so it holds the commit of the
enqueue, the wake-up and the commit of the reserve. CLOCK_MONOTONIC is the same for all processes;
the payload carries the start. The machine should be idle. Then one process waits in `reserve` for
a job that does not come; its processor time, user and system, is read from the outside.
"""

import argparse
import random
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jobq
from benchmarks.processes import Child, Pipe
from benchmarks.session import Session
from benchmarks.workloads import print_percentiles

TOPIC = "work"
PAUSE_S = (0.005, 0.020)
PATIENCE_S = 30.0


def main(arguments: Sequence[str] | None = None) -> int:
    """Run and print; the exit status."""
    session = Session("latency", __doc__, _add_options, arguments)
    options = session.options
    with session.measuring(idle=True) as directory:
        wake_up = enqueue_to_reserve(directory / "wake-up", options.jobs)
        print_percentiles(
            "ms",
            24,
            {"enqueue to reserve": wake_up["delivery_ms"], "of it, enqueue": wake_up["enqueue_ms"]},
        )
        idle = idle_percent(directory / "idle", options.idle)
        print(f"\nan idle waiter over {options.idle:.0f} s: {idle:.3f} % of a core")
    session.keep(
        {"jobs": options.jobs, "pause_s": PAUSE_S, "durability": "full", "idle_s": options.idle},
        {**wake_up, "idle_percent": idle},
    )
    return 0


def enqueue_to_reserve(path: Path, jobs: int) -> dict[str, list[float]]:
    """Milliseconds by job: `delivery_ms` the whole way, `enqueue_ms` its first part, the call."""
    enqueue_ms = []
    with jobq.open(str(path)) as service, Child(receive, str(path)) as receiver:
        receiver.hear()
        for number in range(-5, jobs):  # the first five warm up
            time.sleep(random.uniform(*PAUSE_S))
            start = time.monotonic_ns()
            service.enqueue(TOPIC, {"n": number, "start_ns": start})
            enqueue_ms.append((time.monotonic_ns() - start) / 1e6)
        service.enqueue(TOPIC, {"n": jobs, "start_ns": 0})
        delivery_ms: list[float] = receiver.hear()
    if len(delivery_ms) != len(enqueue_ms):
        raise AssertionError(f"{len(enqueue_ms)} jobs sent, {len(delivery_ms)} came")
    return {"delivery_ms": delivery_ms[5:], "enqueue_ms": enqueue_ms[5:]}


def receive(pipe: Pipe, path: str) -> None:
    """The receiving process: one job at a time until one says that it is the last."""
    delivery_ms = []
    with jobq.open(path) as service:
        pipe.send("ready")
        while True:
            jobs = service.reserve(TOPIC, timeout=PATIENCE_S)
            now = time.monotonic_ns()
            if not jobs:
                raise TimeoutError(f"no job came in {PATIENCE_S:.0f} s")
            payload: dict[str, Any] = jobs[0].payload
            jobs[0].done()
            if not payload["start_ns"]:
                break
            delivery_ms.append((now - payload["start_ns"]) / 1e6)
        pipe.send(delivery_ms)


def idle_percent(path: Path, seconds: float) -> float:
    """Per cent of one core that a process takes while it waits for a job."""
    with Child(wait, str(path), seconds + PATIENCE_S) as waiter:
        waiter.hear()
        time.sleep(2.0)  # what it does before it waits is over
        start, cpu = time.monotonic_ns(), waiter.cpu_ns()
        time.sleep(seconds)
        used, passed = waiter.cpu_ns() - cpu, time.monotonic_ns() - start
    return 100 * used / passed


def wait(pipe: Pipe, path: str, seconds: float) -> None:
    """The waiting process."""
    with jobq.open(path) as service:
        pipe.send("ready")
        service.reserve(TOPIC, timeout=seconds)


def _add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--jobs", type=int, default=500, help="default: %(default)s")
    parser.add_argument("--idle", type=float, default=12.0, help="seconds; default: %(default)s")


if __name__ == "__main__":
    sys.exit(main())
