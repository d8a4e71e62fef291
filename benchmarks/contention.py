"""What do callers see when several processes do all verbs at once: errors, and how long calls take?

Every process enqueues, reserves and settles in a topic that all share, and administers jobs in a
topic of its own, where nobody can come between; so every call must succeed, and any exception and
any outcome other than ok counts as an error. Nothing pauses: the write lock is always wanted by
all. At the end every acknowledged job must be there, and `check` must find nothing. `done/s` is
jobs finished, of all that is done to them and beside them.
"""

import argparse
import random
import statistics
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final, NamedTuple, TypeVar

import jobq
from benchmarks import workloads
from benchmarks.processes import Child, Pipe
from benchmarks.rounds import Pace, add_pace, kept, pace_of
from benchmarks.session import Session
from benchmarks.workloads import percentile

T = TypeVar("T")

QUICK, FULL = Pace(1, 4.0), Pace(3, 10.0)
PROCESSES: Final = (1, 2, 4)

SHARED = "shared"
MOST_MESSAGES = 20


class Run(NamedTuple):
    """So many processes in one round. `verbs` has the figures of each verb's calls."""

    done_per_s: float
    calls: int
    p50_ms: float
    p99_ms: float
    worst_ms: float
    errors: int
    missing: int
    problems: int
    verbs: dict[str, dict[str, float]]
    messages: list[str]


class Worker:
    """One process's part: does random verbs and times each call."""

    def __init__(self, service: jobq.JobService, number: int) -> None:
        self._service = service
        self._own = f"own-{number}"
        self._random = random.Random(number)
        self._payloads = workloads.payloads(50)
        self.taken_ms: dict[str, list[float]] = {}
        self.errors: list[str] = []
        self.added = 0
        self.deleted = 0
        self.done = 0
        self._acts = {
            self.enqueue_one: 6,
            self.enqueue_some: 4,
            self.batch: 3,
            self.work: 20,
            self.administer: 4,
            self.look: 4,
        }

    def run(self, seconds: float) -> None:
        acts, weights = list(self._acts), list(self._acts.values())
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            act = self._random.choices(acts, weights)[0]
            try:
                act()
            except Exception as error:  # noqa: BLE001 (whatever it is, a user would see it)
                self._error(f"{act.__name__}: {type(error).__name__}: {error}")

    def enqueue_one(self) -> None:
        delay = self._random.choice([None, None, 0.05])
        self._call("enqueue", self._service.enqueue, SHARED, self._payload(), delay=delay)
        self.added += 1

    def enqueue_some(self) -> None:
        payloads = self._payloads[: self._random.randint(2, 20)]
        self._call("enqueue_many", self._service.enqueue_many, SHARED, payloads)
        self.added += len(payloads)

    def batch(self) -> None:
        def commit() -> None:
            with self._service.batch() as batch:
                for number in range(5):
                    batch.enqueue(SHARED, self._payload(), weight=number)

        self._call("batch", commit)
        self.added += 5

    def work(self) -> None:
        """Reserve, and settle in one of the ways."""
        n = self._random.randint(1, 12)
        jobs = self._call("reserve", self._service.reserve, SHARED, n, timeout=0)
        if not jobs:
            return
        way = self._random.randrange(10)
        if way < 5:
            self._expect_ok("done_many", self._call("done_many", self._service.done_many, jobs))
            self.done += len(jobs)
        elif way == 5:
            self._expect_ok(
                "release_many", self._call("release_many", self._service.release_many, jobs)
            )
        elif way == 6:
            self._expect_ok("retry_many", self._call("retry_many", self._service.retry_many, jobs))
        else:
            for job in jobs:
                self._settle_one(job)

    def administer(self) -> None:
        """A job of its own topic, through cancel, reset and delete."""
        service = self._service
        jid = self._call("enqueue", service.enqueue, self._own, self._payload())
        self.added += 1
        self._call("cancel", service.cancel, jid)
        self._call("reset", service.reset, jid)
        self._expect_ok("cancel", self._call("cancel", service.cancel, [jid]))
        if self._call("status", service.status, jid) is not jobq.Status.CANCELED:
            self._error("status: a canceled job is not canceled")
        if self._random.random() < 0.5:
            self._call("delete", service.delete, jid)
            self.deleted += 1

    def look(self) -> None:
        service = self._service
        found = self._call("find", service.find, topic=self._random.choice([SHARED, self._own]),
                           limit=20)  # fmt: skip
        for record in found[:1]:
            # Nobody deletes in the shared topic, and only this process in its own.
            self._call("get", service.get, record.id)
        self._call("stats", service.stats)
        self._call("topics", service.topics)

    def _settle_one(self, job: jobq.Job) -> None:
        if self._random.random() < 0.2:
            self._call("extend", job.extend, 60)
        way = self._random.randrange(8)
        if way == 0:
            self._call("retry", job.retry, delay=0.02)
        elif way == 1:
            self._call("release", job.release)
        elif way == 2:
            self._call("cancel by holder", job.cancel, reason="rejected", error="not wanted")
        elif way == 3:
            self._call("done, then", job.done, then=[jobq.NewJob(SHARED, self._payload())])
            self.added += 1
            self.done += 1
        else:
            self._call("done", job.done, {"ok": True})
            self.done += 1

    def _call(self, verb: str, call: Callable[..., T], *args: Any, **named: Any) -> T:
        start = time.perf_counter_ns()
        try:
            return call(*args, **named)
        finally:
            taken = (time.perf_counter_ns() - start) / 1e6
            self.taken_ms.setdefault(verb, []).append(taken)

    def _expect_ok(self, verb: str, outcomes: Iterable[jobq.Outcome]) -> None:
        for outcome, count in Counter(outcomes).items():
            if outcome is not jobq.Outcome.OK:
                self._error(f"{verb}: {count} of the jobs {outcome}")

    def _error(self, message: str) -> None:
        self.errors.append(message)

    def _payload(self) -> dict[str, Any]:
        return self._random.choice(self._payloads)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run and print; the exit status: 1 if a caller saw an error or a job is missing."""
    session = Session("contention", __doc__, _add_options, arguments)
    options, (rounds, seconds) = session.options, pace_of(session.options)
    runs: dict[int, list[Run]] = {count: [] for count in options.processes}
    with session.measuring() as directory:
        for number in range(rounds):
            for count in options.processes:
                run = contend(str(directory / f"queue-{count}-{number}"), count, seconds)
                runs[count].append(run)
                for text in run.messages:
                    print(f"  {text}")
    print_summary(runs)
    print_verbs(runs)
    session.keep(
        {"payload_bytes": 200, "seconds": seconds},
        kept(
            ["workload", "processes", "durability", "side"],
            {("all verbs", count, "full", "jobq"): some for count, some in runs.items()},
        ),
    )
    every = [run for some in runs.values() for run in some]
    return 1 if any(run.errors or run.missing or run.problems for run in every) else 0


def contend(path: str, processes: int, seconds: float) -> Run:
    """Run the processes and put their findings together."""
    taken_ms: dict[str, list[float]] = {}
    errors: list[str] = []
    expected = done = 0
    with jobq.open(path) as service:
        children = [Child(contender, path, number, seconds) for number in range(processes)]
        try:
            for child in children:
                child.hear()
            for child in children:
                child.tell("go")
            for child in children:
                theirs = child.hear(seconds + 60)
                for verb, taken in theirs["taken_ms"].items():
                    taken_ms.setdefault(verb, []).extend(taken)
                errors.extend(theirs["errors"])
                expected += theirs["added"] - theirs["deleted"]
                done += theirs["done"]
        finally:
            for child in children:
                child.__exit__(None, None, None)
        there = service.stats().totals
        report = service.check()
    counted = there.ready + there.delayed + there.reserved + there.done + there.canceled
    everything = figures_of([taken for some in taken_ms.values() for taken in some])
    most_common = Counter(errors).most_common(MOST_MESSAGES)
    return Run(
        done_per_s=done / seconds,
        calls=int(everything["calls"]),
        p50_ms=everything["p50_ms"],
        p99_ms=everything["p99_ms"],
        worst_ms=everything["worst_ms"],
        errors=len(errors),
        missing=expected - counted,
        problems=len(report.problems),
        verbs={verb: figures_of(taken) for verb, taken in sorted(taken_ms.items())},
        messages=[
            *[f"{text} ({count} times)" for text, count in most_common],
            *[str(problem) for problem in report.problems[:MOST_MESSAGES]],
        ],
    )


def contender(pipe: Pipe, path: str, number: int, seconds: float) -> None:
    """One of the processes."""
    with jobq.open(path) as service:
        worker = Worker(service, number)
        pipe.send("ready")
        pipe.recv()
        worker.run(seconds)
        pipe.send(
            {
                "taken_ms": worker.taken_ms,
                "errors": worker.errors,
                "added": worker.added,
                "deleted": worker.deleted,
                "done": worker.done,
            }
        )


def figures_of(taken: Sequence[float]) -> dict[str, float]:
    """Count, p50, p99 and worst."""
    return {
        "calls": len(taken),
        "p50_ms": percentile(taken, 50),
        "p99_ms": percentile(taken, 99),
        "worst_ms": max(taken),
    }


def print_summary(runs: dict[int, list[Run]]) -> None:
    """A line for each number of processes: medians, the worst of all rounds, sums of faults."""
    print(
        f"\n  {'processes':18} {'done/s':>7} {'calls':>7} {'p50':>8} {'p99':>8} {'worst':>8} ms "
        f"{'errors':>7} {'missing':>8} {'problems':>9}"
    )
    for count, some in runs.items():
        print(
            f"  {count:<18} {statistics.median(run.done_per_s for run in some):7.0f} "
            f"{sum(run.calls for run in some):7} "
            f"{statistics.median(run.p50_ms for run in some):8.2f} "
            f"{statistics.median(run.p99_ms for run in some):8.2f} "
            f"{max(run.worst_ms for run in some):8.2f}    {sum(run.errors for run in some):7} "
            f"{sum(run.missing for run in some):8} {sum(run.problems for run in some):9}"
        )


def print_verbs(runs: dict[int, list[Run]]) -> None:
    """The calls by verb, of the most processes, in the last round."""
    most = max(runs)
    print(f"\n  {f'{most} processes, ms':18} {'calls':>7} {'p50':>8} {'p99':>8} {'worst':>8}")
    for verb, figures in runs[most][-1].verbs.items():
        print(
            f"  {verb:18} {figures['calls']:7} {figures['p50_ms']:8.2f} {figures['p99_ms']:8.2f} "
            f"{figures['worst_ms']:8.2f}"
        )


def _add_options(parser: argparse.ArgumentParser) -> None:
    add_pace(parser, QUICK, FULL)
    parser.add_argument(
        "--processes", type=int, nargs="+", default=list(PROCESSES), metavar="N", help="how many"
    )


if __name__ == "__main__":
    sys.exit(main())
