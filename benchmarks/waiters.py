"""What do a hundred waiting consumers cost, and does one job wake only one of them?

A hundred consumers wait for jobs of one topic: threads of one process, or 20 processes with 5 each.
Jobs come one at a time, with pauses, and then in bursts of a hundred; everyone who gets one does it
and waits again. Who finds nothing after a wait was woken in vain: each waiter looks once a second
anyway, so what counts is how many more there are than in the same time without jobs. Others wait
for another topic, or for several, while jobs come that are not theirs; or for jobs that are delayed
by 0.2 s, whose time counts from when they are due. Then one consumer waits alone, in a thread and
in a process, for the time from the call of `enqueue` to the return of `reserve`; it holds both
commits. The machine should be idle.
"""

import argparse
import random
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import jobq
from benchmarks import facts, latency
from benchmarks.processes import Child, Pipe
from benchmarks.session import Session
from benchmarks.workloads import percentile, print_percentiles
from jobq.job import Reservation
from jobq.repo.base import ReserveRequest
from jobq.repo.lmdb import LmdbStore
from jobq.shares import Mix

TOPIC = "work"
PAUSE_S = (0.002, 0.010)
DELAY_S = 0.2
BURSTS = 3
ALONE_S = 0.4
"""After a burst: until everybody waits again."""
PATIENCE_S = 30.0


class Crowd(NamedTuple):
    """Who waits, and for what; jobs are enqueued in `TOPIC`, to be due after *delay* seconds."""

    title: str
    processes: int
    threads: int
    topics: Any = TOPIC
    delay: float = 0.0

    @property
    def takes(self) -> bool:
        """Whether the jobs are for it."""
        return self.topics == TOPIC or TOPIC in self.topics


CROWDS = (
    Crowd("100 threads of a process", 1, 100),
    Crowd("20 processes with 5 threads", 20, 5),
    Crowd("100 threads, for two topics", 1, 100, (TOPIC, "other")),
    Crowd("20 processes, for two topics", 20, 5, (TOPIC, "other")),
    Crowd("100 threads, delayed jobs", 1, 100, delay=DELAY_S),
    Crowd("20 processes, delayed jobs", 20, 5, delay=DELAY_S),
    Crowd("100 threads, for another topic", 1, 100, "other"),
    Crowd("100 threads, for two others", 1, 100, ("other", "more")),
)


class CountingStore(LmdbStore):
    """Counts waits, and reservations after a wait that found nothing."""

    def __init__(self, path: str) -> None:
        super().__init__(path)
        self.waits = 0
        self.in_vain = 0
        self._counting = threading.Lock()
        self._thread = threading.local()

    def wait(self, topic: str | Mix, timeout: float) -> None:
        self._count("waits")
        super().wait(topic, timeout)
        self._thread.has_waited = True

    def reserve(self, request: ReserveRequest) -> list[Reservation]:
        taken = super().reserve(request)
        if not taken and getattr(self._thread, "has_waited", False):
            self._count("in_vain")
        self._thread.has_waited = False
        return taken

    def _count(self, name: str) -> None:
        with self._counting:
            setattr(self, name, getattr(self, name) + 1)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run and print; the exit status."""
    session = Session("waiters", __doc__, _add_options, arguments)
    options = session.options
    jobs = options.jobs or (2_000 if options.full else 100)
    idle_s = options.idle or (15.0 if options.full else 1.5)
    with session.measuring(idle=True) as directory:
        crowds = []
        for number, crowd in enumerate(CROWDS):
            crowds.append(measure(directory / str(number), crowd, jobs, idle_s))
            print_crowd(crowds[-1], with_head=number == 0)
        alone = {
            "threads": between_threads(directory / "threads", jobs),
            "processes": latency.enqueue_to_reserve(directory / "processes", jobs)["delivery_ms"],
        }
        print_percentiles("ms, one who waits", 24, {f"between {k}": v for k, v in alone.items()})
    session.keep(
        {
            "jobs": jobs,
            "pause_s": PAUSE_S,
            "bursts": BURSTS,
            "idle_s": idle_s,
            "durability": "full",
        },
        {"crowds": crowds, "alone_ms": alone},
    )
    return 0


def measure(path: Path, crowd: Crowd, jobs: int, idle_s: float) -> dict[str, Any]:
    """Idle waiters, then jobs one at a time, then bursts."""
    waiters = crowd.processes * crowd.threads
    with jobq.open(path, keep_done=0.0) as service, ExitStack() as stack:
        arguments = (str(path), crowd.topics, crowd.threads)
        group = Group(
            [stack.enter_context(Child(wait, *arguments)) for _ in range(crowd.processes)]
        )
        service.enqueue(TOPIC, 0)  # there are the topics that are waited for
        service.enqueue("other", 0)
        service.enqueue("more", 0)
        while group.look()["waits"] < waiters:  # not all are there yet
            time.sleep(0.1)

        idle = group.over(lambda: time.sleep(idle_s))
        ones = group.over(lambda: one_by_one(service, jobs, crowd.delay))
        bursts = group.over(lambda: burst(service, crowd))
    if crowd.takes and len(ones["ms"]) != jobs:
        raise AssertionError(f"{jobs} jobs sent, {len(ones['ms'])} came")
    looks_a_second = idle["in_vain"] / idle["seconds"]
    result = {
        "crowd": crowd.title,
        "processes": crowd.processes,
        "threads": crowd.threads,
        "jobs_are_theirs": crowd.takes,
        "idle_percent": 100 * idle["cpu_s"] / idle["seconds"],
        "idle_looks_a_waiter_and_s": looks_a_second / waiters,
        "cpu_ms_a_job": 1000 * ones["cpu_s"] / jobs,
        "in_vain_a_job": (ones["in_vain"] - looks_a_second * ones["seconds"]) / jobs,
        "switches_a_job": (
            ones["switches"] - idle["switches"] * ones["seconds"] / idle["seconds"]
        ) / jobs,
    }  # fmt: skip
    if crowd.takes:
        result["ms"] = ones["ms"]
        result["burst_ms"] = [max(some) for some in _in_parts(bursts["ms"], waiters)]
        result["in_vain_a_job_of_bursts"] = (
            bursts["in_vain"] - looks_a_second * bursts["seconds"]
        ) / (BURSTS * waiters)
    return result


class Group:
    """The processes that wait."""

    def __init__(self, children: Sequence[Child]) -> None:
        self._children = children

    def look(self) -> dict[str, Any]:
        """What they have counted, and how long jobs took that came since the last look."""
        for child in self._children:
            child.tell("look")
        found = [child.hear() for child in self._children]
        return {
            "waits": sum(one["waits"] for one in found),
            "in_vain": sum(one["in_vain"] for one in found),
            "switches": sum(one["switches"] for one in found),
            "came": [arrival for one in found for arrival in one["came"]],
        }

    def over(self, act: Any) -> dict[str, Any]:
        """The same for the time of an act, and its length; milliseconds of jobs as they came."""
        before, cpu, start = self.look(), self._cpu_ns(), time.monotonic()
        act()
        seconds, cpu = time.monotonic() - start, self._cpu_ns() - cpu
        after = self.look()
        return {
            "seconds": seconds,
            "cpu_s": cpu / 1e9,
            "in_vain": after["in_vain"] - before["in_vain"],
            "switches": after["switches"] - before["switches"],
            "ms": [ms for _, ms in sorted(after["came"])],
        }

    def _cpu_ns(self) -> int:
        return sum(child.cpu_ns() for child in self._children)


def one_by_one(service: jobq.JobService, jobs: int, delay: float) -> None:
    for _ in range(jobs):
        time.sleep(random.uniform(*PAUSE_S))
        due_ns = time.monotonic_ns() + int(delay * 1e9)
        service.enqueue(TOPIC, due_ns, delay=delay or None)
    time.sleep(delay + ALONE_S)  # the last one has come, and everybody waits


def burst(service: jobq.JobService, crowd: Crowd) -> None:
    """As many jobs as waiters in one commit, several times."""
    for _ in range(BURSTS):
        service.enqueue_many(TOPIC, [time.monotonic_ns()] * crowd.processes * crowd.threads)
        time.sleep(ALONE_S)


def wait(pipe: Pipe, path: str, topics: Any, threads: int) -> None:
    """A process with waiters."""
    store = CountingStore(path)
    with jobq.JobService(store, retention=0) as service:
        came: list[tuple[int, float]] = []

        def work() -> None:
            while jobs := service.reserve(list(topics) if isinstance(topics, tuple) else topics):
                now = time.monotonic_ns()
                sent = jobs[0].payload
                jobs[0].done()
                if sent:
                    came.append((sent, (now - sent) / 1e6))

        crew = [threading.Thread(target=work) for _ in range(threads)]
        for thread in crew:
            thread.start()
        try:
            while pipe.recv():
                have, came = came, []
                pipe.send(
                    {
                        "waits": store.waits,
                        "in_vain": store.in_vain,
                        "switches": facts.switches(),
                        "came": have,
                    }
                )
        except EOFError:
            service.stop()


def between_threads(path: Path, jobs: int) -> list[float]:
    """Milliseconds from the call of `enqueue` to the return of `reserve` in another thread."""
    taken = []
    with jobq.open(path, retention=0) as service:

        def work() -> None:
            while jobs := service.reserve(TOPIC, timeout=PATIENCE_S):
                now = time.monotonic_ns()
                sent = jobs[0].payload
                jobs[0].done()
                if not sent:
                    return
                taken.append((now - sent) / 1e6)

        thread = threading.Thread(target=work)
        thread.start()
        for _ in range(jobs):
            time.sleep(random.uniform(*PAUSE_S))
            service.enqueue(TOPIC, time.monotonic_ns())
        time.sleep(PAUSE_S[1])
        service.enqueue(TOPIC, 0)
        thread.join()
    return taken


def _in_parts(values: Sequence[float], size: int) -> list[Sequence[float]]:
    return [values[start : start + size] for start in range(0, len(values), size)]


def print_crowd(result: dict[str, Any], *, with_head: bool) -> None:
    """A line."""
    if with_head:
        print(
            f"\n  {'':32} {'idle':>6} {'in vain':>8} {'switches':>9} {'CPU ms':>7} {'p50':>6} "
            f"{'p99':>6} {'worst':>6} {'burst':>6}\n"
            f"  {'':32} {'% core':>6} {'a job':>8} {'a job':>9} {'a job':>7} {'ms':>6} "
            f"{'ms':>6} {'ms':>6} {'ms':>6}"
        )
    line = (
        f"  {result['crowd']:32} {result['idle_percent']:6.2f} {result['in_vain_a_job']:8.2f} "
        f"{result['switches_a_job']:9.1f} {result['cpu_ms_a_job']:7.2f}"
    )
    if ms := result.get("ms"):
        line += (
            f" {percentile(ms, 50):6.2f} {percentile(ms, 99):6.2f} {max(ms):6.2f} "
            f"{percentile(result['burst_ms'], 50):6.1f}"
        )
    print(line)


def _add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--jobs", type=int, help="one at a time; default: 100")
    parser.add_argument("--idle", type=float, help="seconds of idle waiting; default: 1.5")
    parser.add_argument("--full", action="store_true", help="2 000 jobs, 15 s")


if __name__ == "__main__":
    sys.exit(main())
