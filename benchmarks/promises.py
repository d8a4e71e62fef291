"""What jobq's design promises of its speed (section 7, and what stands elsewhere in it), judged.

Each promise is a workload with what it has to reach at least, and a goal; what was measured comes
from the results of benchmarks, so that a promise without a result says so.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final, NamedTuple

from benchmarks.kept import Cases, Result, Results
from benchmarks.workloads import percentile

NOT_MEASURED: Final = "not measured"


class Figure(NamedTuple):
    """One thing that was measured, and whether it is as good as asked; None if not asked."""

    text: str
    least: bool | None = None
    goal: bool | None = None


class Promise(NamedTuple):
    """A workload, what is asked of it in words, the benchmark that says, and how to read it."""

    workload: str
    least: str
    goal: str
    benchmarks: tuple[str, ...]
    read: Callable[..., Iterator[Figure]]


class Judged(NamedTuple):
    """A promise beside what was measured."""

    workload: str
    least: str
    goal: str
    measured: str
    verdict: str


def judge(results: Results) -> list[Judged]:
    """All promises, as far as there are results."""
    return [_judged(promise, results) for promise in PROMISES]


def as_text(judged: Sequence[Judged]) -> list[str]:
    """A line or two for each."""
    return [
        f"{one.verdict:>12}  {one.workload}: {one.measured}\n"
        f"{'':12}  (at least {one.least or '-'}; goal {one.goal or '-'})"
        for one in judged
    ]


def _judged(promise: Promise, results: Results) -> Judged:
    figures: list[Figure] = []
    if all(name in results for name in promise.benchmarks):
        figures = list(promise.read(*(results[name] for name in promise.benchmarks)))
    measured = "; ".join(figure.text for figure in figures) or NOT_MEASURED
    return Judged(promise.workload, promise.least, promise.goal, measured, verdict(figures))


def verdict(figures: Sequence[Figure]) -> str:
    """What all figures together have reached.

    >>> verdict([Figure("1.4", True, True), Figure("0.5", True)])
    'goal'
    >>> verdict([Figure("1.4", True, True), Figure("0.4", False)])
    'missed'
    """
    if not figures:
        return "-"
    if any(figure.least is False for figure in figures):
        return "missed"
    goals = [figure.goal for figure in figures if figure.goal is not None]
    return "goal" if goals and all(goals) else "at least"


# Each reads what its benchmark has kept.


def _batches(batch: int, least: float, goal: float | None, bare: float | None) -> Any:
    def read(result: Result) -> Iterator[Figure]:
        cases = Cases(result["results"])
        yield from _times(cases, "lives_per_s", "sqlite3_hand", least, goal, batch=batch)
        if bare:
            yield from _times(cases, "lives_per_s", "lmdb_bare", bare, None, batch=batch)

    return read


def _one_at_a_time(batches: Result, loops: Result) -> Iterator[Figure]:
    yield from _times(
        Cases(batches["results"]), "lives_per_s", "lmdb_bare", 0.8, None, "three commits", batch=1
    )
    looped = Cases(loops["results"])
    for side, goal in (
        *(("huey tasks", 1.0), ("persist-queue", 1.2)),
        *(("litequeue", 2.0), ("sqlite3_hand", 0.6)),
    ):
        yield from _times(looped, "lives_per_s", side, None, goal, "consume")


def _times(
    cases: Cases,
    figure: str,
    other: str,
    least: float | None,
    goal: float | None,
    what: str = "",
    **which: Any,
) -> Iterator[Figure]:
    times = cases.ratio(figure, "jobq", other, **which)
    if times is not None:
        yield Figure(
            f"{what} {times:.2f} × {other}".strip(),
            None if least is None else times >= least,
            None if goal is None else times >= goal,
        )


def _enqueuers(result: Result) -> Iterator[Figure]:
    cases = Cases(result["results"])
    for callers, least, goal in ((8, 1.2, 2.0), (32, 4.0, 8.0)):
        which = {"workload": "enqueue", "callers": callers}
        yield from _times(
            cases, "jobs_per_s", "sqlite3_hand", least, goal, f"{callers} threads", **which
        )


def _contention(result: Result) -> Iterator[Figure]:
    cases = Cases(result["results"])
    most = max(cases.values("processes"), default=0)
    for name, least, goal in (("errors", 0, None), ("p99_ms", 50, None), ("worst_ms", 250, 50)):
        if values := cases.rounds(name, processes=most):
            worst = max(values)
            text = f"{worst:.0f} {name}" if name == "errors" else (
                f"{name.removesuffix('_ms')} {worst:.0f} ms")  # fmt: skip
            yield Figure(text, worst <= least, None if goal is None else worst <= goal)


def _scale(result: Result) -> Iterator[Figure]:
    ready = [one for one in result["results"] if one["status"] == "ready"]
    most, first = ready[-1], ready[0]
    times = most["calls_us"]["reserve"]["ratio"]
    yield Figure(f"{most['backlog']}: reserve {times:.2f} ×", times <= 1.5, times <= 1.2)
    opened = max(percentile(one["open_ms"], 50) for one in result["results"])
    yield Figure(f"open {opened:.1f} ms", opened <= 200)
    command = max(percentile(one["command_stats_ms"], 50) for one in result["results"])
    yield Figure(f"`jobq stats` {command:.0f} ms", command <= 300)
    more = most["rss_anon_kib"] / first["rss_anon_kib"]
    yield Figure(f"RssAnon {more:.2f} ×", more <= 1.1)


def _churn(result: Result) -> Iterator[Figure]:
    jobs = f"{result['settings']['jobs']:,}".replace(",", " ")
    for one in result["results"]:
        if (times := one["growth"]) is not None:
            yield Figure(f"{one['title']}, {jobs} jobs: {times:.2f} ×", times <= 2)


def _memory(result: Result) -> Iterator[Figure]:
    cases = Cases(result["results"])
    for batch in (100, 1000):
        rate = cases.median("lives_per_s", side="jobq memory", batch=batch)
        if rate is not None:
            yield Figure(f"{rate:,.0f} by {batch}".replace(",", " "), rate >= 5e4, rate >= 1e5)


def _idle(result: Result) -> Iterator[Figure]:
    percent = result["results"]["idle_percent"]
    yield Figure(f"{percent:.3f} %", percent <= 0.2, percent <= 0.05)


def _falling_due(result: Result) -> Iterator[Figure]:
    jobs = f"{result['settings']['jobs']:,}".replace(",", " ")
    for one in result["results"]:
        worst = one["during"]["worst_ms"]
        beside = ", a waiter" if one["waiters"] else ""
        yield Figure(f"{one['kind']}{beside} {worst:.0f} ms", worst <= 100)
    yield Figure(f"{jobs} at once")


def _wake_up(result: Result) -> Iterator[Figure]:
    ms = result["results"]["delivery_ms"]
    for percent, most in ((50, 2.0), (99, 5.0)):
        value = percentile(ms, percent)
        yield Figure(f"p{percent} {value:.2f} ms", value <= most)


def _redelivery(result: Result) -> Iterator[Figure]:
    worst = max(one["last_s"] for one in result["results"])
    yield Figure(f"worst {worst:.2f} s", worst <= 5)


def _herd(result: Result) -> Iterator[Figure]:
    """One job calls one waiter, which finds nothing where somebody who is awake has taken it."""
    for one in result["results"]["crowds"][:2]:
        vain = one["in_vain_a_job"]
        yield Figure(f"{one['crowd']}: {vain:.2f} woken in vain a job", vain <= 1.0)


PROMISES: Final = (
    Promise("batches of 100, one thread", "0.8 × hand-written sqlite3, 0.5 × bare LMDB",
            "1.3 × sqlite3", ("batches",), _batches(100, 0.8, 1.3, 0.5)),
    Promise("batches of 10", "0.6 × sqlite3", "1.0 ×", ("batches",), _batches(10, 0.6, 1.0, None)),
    Promise("one at a time, one thread", "0.8 × bare LMDB making the same three commits",
            "a `consume` loop: 1 × huey's task loop, 1.2 × persist-queue, 2 × litequeue, "
            "0.6 × sqlite3", ("batches", "loops"), _one_at_a_time),
    Promise("enqueue, 8 / 32 threads, one at a time", "1.2 × / 4 × sqlite3", "2 × / 8 ×",
            ("enqueuers",), _enqueuers),
    Promise("4 processes, all verbs", "no error to a caller, p99 50 ms, worst 250 ms",
            "worst 50 ms", ("contention",), _contention),
    Promise("from 1 000 ready jobs to very many",
            "reserve p50 within 1.5 ×, open 0.2 s, `jobq stats` 0.3 s, RssAnon does not follow",
            "within 1.2 ×", ("scale",), _scale),
    Promise("steady churn through a short queue", "file within 2 × of its size when settled", "",
            ("churn",), _churn),
    Promise("in memory, batches", "50 000 lives/s", "100 000", ("batches",), _memory),
    Promise("idle waiting worker", "0.2 % of a core", "0.05 %", ("latency",), _idle),
    Promise("very many jobs fall due at once", "the worst call of others 100 ms", "",
            ("falling_due",), _falling_due),
    Promise("enqueue to reserve between processes", "p50 2 ms, p99 5 ms", "", ("latency",),
            _wake_up),
    Promise("jobs of a killed worker", "ready again within 5 s", "", ("redelivery",), _redelivery),
    Promise("100 waiting consumers", "one job wakes one", "", ("waiters",), _herd),
)  # fmt: skip
