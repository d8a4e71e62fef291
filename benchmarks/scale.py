"""Does a call take longer, or a process more memory, when a million jobs wait?

Each queue has one topic and a backlog: ready jobs (1 000 and more), delayed ones that are due much
later, done ones that are kept, or reserved ones, whose holder lives. All but the first have 1 000
ready jobs beside. A process for each opens it, with payloads of 200 bytes and durability `full`;
they take turns in rounds, so that a slow minute of the machine hits all of them. Timed are the
calls that reserve one job, settle it, and enqueue another one; the step that promotes one which has
just fallen due, and looks for dead holders, as who waits does it (`advance`); `jobq.open`, `stats`
and the command `jobq stats`. Ratios are to the smallest backlog, within each round, and the median
of the rounds.
"""

import argparse
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import jobq
from benchmarks import facts, filling
from benchmarks.filling import TOPIC
from benchmarks.processes import Child, Pipe
from benchmarks.rounds import ratio, turns
from benchmarks.session import Session
from benchmarks.workloads import payloads, percentile

BESIDE = 1_000
"""Ready jobs beside a backlog that is not ready."""

VERBS = ("reserve", "done", "enqueue", "promote")
CALLS = 30
"""Of each verb in a round."""
MOST_S = 0.3
"""For those of them that promote."""
OPENINGS = 5


class Backlog(NamedTuple):
    """What a queue is filled with."""

    status: str
    jobs: int

    @property
    def title(self) -> str:
        return f"{self.jobs:,} {self.status}".replace(",", " ")


FILL: dict[str, Callable[[Path, int], None]] = {
    "ready": filling.ready,
    "delayed": filling.delayed,
    "done": filling.done,
}
RESERVED = "reserved"
"""Its jobs are reserved by a process that has to live on."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run and print; the exit status."""
    session = Session("scale", __doc__, _add_options, arguments)
    options = session.options
    sizes = options.sizes or ([1_000, 100_000, 1_000_000, 10_000_000] if options.full
                              else [1_000, 100_000])  # fmt: skip
    other = options.other or (1_000_000 if options.full else 100_000)
    backlogs = [Backlog("ready", size) for size in sorted(sizes)]
    backlogs += [Backlog(status, other) for status in ("delayed", "done", RESERVED)]
    with session.measuring(idle=True) as directory:
        results = measure(directory, backlogs, options.rounds)
    print_tables(results)
    settings = {"rounds": options.rounds, "calls": CALLS, "durability": "full"}
    session.keep(settings, results)
    return 0


def measure(directory: Path, backlogs: Sequence[Backlog], rounds: int) -> list[dict[str, Any]]:
    """Fill the queues, measure all of them in turns, and give what was found by backlog."""
    with ExitStack() as stack:
        results = {backlog.title: fill(directory, backlog, stack) for backlog in backlogs}
        taken: dict[str, dict[str, list[list[float]]]] = {
            title: {verb: [] for verb in VERBS} for title in results
        }
        children = {}
        for title, result in results.items():
            child = stack.enter_context(Child(serve, str(directory / title)))
            children[title] = child
            result.update(child.hear(600))
        for child in children.values():
            child.tell(3)  # warms up
            child.hear()
        for _, title in turns(list(children), rounds):
            children[title].tell(CALLS)
            for verb, times in children[title].hear().items():
                taken[title][verb].append(times)
        for title, child in children.items():
            child.tell(0)
            results[title].update(child.hear())
        times = min(5, rounds)
        for title, result in results.items():
            result["command_stats_ms"] = command_ms(directory / title, "stats", times)
            result["command_start_ms"] = command_ms(directory / title, "--version", times)
    base = taken[backlogs[0].title]
    for title, verbs in taken.items():
        results[title]["calls_us"] = {
            verb: _figures(runs, base[verb]) for verb, runs in verbs.items()
        }
    return [{"backlog": title, **result} for title, result in results.items()]


def fill(directory: Path, backlog: Backlog, stack: ExitStack) -> dict[str, Any]:
    """Make the queue; how large its file is. Bytes a job are those of trees; the file has more.

    Who holds its jobs lives until the end of the *stack*.
    """
    path = directory / backlog.title
    start = time.monotonic()
    if backlog.status == RESERVED:
        stack.enter_context(Child(hold, str(path), backlog.jobs)).hear(600)
    else:
        FILL[backlog.status](path, backlog.jobs)
    seconds = time.monotonic() - start
    with Child(look, str(path)) as child:
        file = facts.FileFacts(*child.hear())
    if backlog.status != "ready":
        filling.ready(path, BESIDE)
    filling.settle(path)
    print(f"  filled with {backlog.title} in {seconds:.0f} s, {file.length / 2**20:,.0f} MiB")
    return {
        "status": backlog.status,
        "jobs": backlog.jobs,
        "file_bytes": file.length,
        "bytes_a_job": round(file.in_use / backlog.jobs, 1),
        "file_bytes_a_job": round(file.length / backlog.jobs, 1),
    }


def hold(pipe: Pipe, path: str, jobs: int) -> None:
    """A process that holds so many jobs."""
    with jobq.open(path, durability="unsafe") as service:
        filling.reserved(service, jobs)
        pipe.send("it has them")
        pipe.recv()


def look(pipe: Pipe, path: str) -> None:
    """A process that only reads the file."""
    pipe.send(tuple(facts.of_file(Path(path))))


def serve(pipe: Pipe, path: str) -> None:
    """The process of one queue: opens it, says what that took, then makes calls until told 0."""
    open_ms = []
    for _ in range(OPENINGS):
        start = time.perf_counter_ns()
        service = jobq.open(path, retention=0)
        open_ms.append((time.perf_counter_ns() - start) / 1e6)
        service.close()
    with jobq.open(path, retention=0) as service:
        at_first = facts.rss_anon_kib()
        pipe.send({"open_ms": open_ms, "rss_anon_kib_at_open": at_first})
        (payload,) = payloads(1)
        while calls := pipe.recv():
            pipe.send(_calls(service, payload, calls))
        stats_ms = []
        for _ in range(20):
            start = time.perf_counter_ns()
            service.stats()
            stats_ms.append((time.perf_counter_ns() - start) / 1e6)
        pipe.send({"stats_ms": statistics.median(stats_ms), "rss_anon_kib": facts.rss_anon_kib()})


def _calls(service: jobq.JobService, payload: Any, calls: int) -> dict[str, list[float]]:
    """The microseconds of each call; the backlog is as long afterwards as before."""
    taken: dict[str, list[float]] = {verb: [] for verb in VERBS}

    def timed(verb: str, call: Callable[..., Any], *args: Any, **named: Any) -> Any:
        start = time.perf_counter_ns()
        result = call(*args, **named)
        taken[verb].append((time.perf_counter_ns() - start) / 1000)
        return result

    for _ in range(calls):
        (job,) = timed("reserve", service.reserve, TOPIC, timeout=0)
        timed("done", job.done)
        timed("enqueue", service.enqueue, TOPIC, payload)
    end = time.monotonic() + MOST_S
    for _ in range(calls):
        if taken["promote"] and time.monotonic() > end:
            break
        service.enqueue("soon", payload, delay=0.001)
        time.sleep(0.002)
        if timed("promote", service.store.advance, 10).promoted != 1:
            raise AssertionError("not the one job that is due was promoted")
    service.purge("soon")
    return taken


def command_ms(path: Path, verb: str, times: int) -> list[float]:
    """Milliseconds of `jobq` as a process; `--version` is Python's start and jobq's imports.

    With modules compiled before, as pip leaves them, whatever the environment says of that.
    """
    compiled = {"PYTHONDONTWRITEBYTECODE": "", "PYTHONPYCACHEPREFIX": str(path.parent / "compiled")}
    taken = []
    for _ in range(times + 1):
        start = time.perf_counter_ns()
        subprocess.run(
            [sys.executable, "-m", "jobq", "--db", str(path), verb],
            check=True,
            stdout=subprocess.DEVNULL,
            env={**os.environ, **compiled},
        )
        taken.append((time.perf_counter_ns() - start) / 1e6)
    return taken[1:]


def _figures(rounds: list[list[float]], base: list[list[float]]) -> dict[str, float]:
    together = [taken for times in rounds for taken in times]
    medians, base_medians = ([statistics.median(times) for times in of] for of in (rounds, base))
    return {
        "p50": statistics.median(together),
        "p99": percentile(together, 99),
        "worst": max(together),
        "ratio": ratio(medians, base_medians),
    }


def print_tables(results: Sequence[dict[str, Any]]) -> None:
    """Calls by backlog, then what else was measured."""
    for verb in VERBS:
        print(f"\n  {verb + ', µs a call':24} {'p50':>8} {'p99':>8} {'worst':>8} {'ratio':>6}")
        for result in results:
            one = result["calls_us"][verb]
            print(
                f"  {result['backlog']:24} {one['p50']:8.0f} {one['p99']:8.0f} "
                f"{one['worst']:8.0f} {one['ratio']:6.2f}"
            )
    start_ms = statistics.median(ms for result in results for ms in result["command_start_ms"])
    print(f"\n  of `jobq stats`, {start_ms:.0f} ms are the start of Python and jobq's imports")
    print(
        f"  {'':24} {'open ms':>8} {'stats ms':>8} {'jobq stats ms':>13} {'RssAnon KiB':>11} "
        f"{'bytes/job':>9} {'in the file':>11}"
    )
    for result in results:
        print(
            f"  {result['backlog']:24} {statistics.median(result['open_ms']):8.1f} "
            f"{result['stats_ms']:8.2f} {statistics.median(result['command_stats_ms']):13.0f} "
            f"{result['rss_anon_kib']:11,} {result['bytes_a_job']:9.0f} "
            f"{result['file_bytes_a_job']:11.0f}"
        )


def _add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--rounds", type=int, default=10, help="default: %(default)s")
    parser.add_argument(
        "--sizes", type=int, nargs="+", metavar="N", help="ready jobs; default: 1 000 and 100 000"
    )
    parser.add_argument(
        "--other", type=int, metavar="N", help="delayed, done, reserved; default: 100 000"
    )
    parser.add_argument(
        "--full", action="store_true", help="up to 10 000 000 ready jobs, 1 000 000 others (4 GB)"
    )


if __name__ == "__main__":
    sys.exit(main())
