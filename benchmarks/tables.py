"""The tables of docs/benchmarks.md, each from the result of one benchmark."""

import statistics
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final

from benchmarks.kept import Cases, Result
from benchmarks.workloads import percentile

Lines = list[str]

MIB: Final = 2**20
POINTS: Final = 6
"""How many points of a series a table shows."""


def markdown(head: Sequence[str], rows: Iterable[Sequence[str]]) -> Lines:
    """A table of Markdown: the first column to the left, the others to the right.

    >>> markdown(["side", "lives/s"], [["jobq", "9"]])
    ['| side | lives/s |', '|---|--:|', '| jobq | 9 |']
    """
    rule = "|---|" + "--:|" * (len(head) - 1)
    return [_row(head), rule, *map(_row, rows)]


def number(value: float, digits: int = 0) -> str:
    """A number for people.

    >>> number(12345.6), number(0.5, 2)
    ('12 346', '0.50')
    """
    return f"{value:,.{digits}f}".replace(",", " ")


def by_batch(result: Result) -> Lines:
    cases = Cases(result["results"])
    batches = cases.values("batch")
    head = ["lives/s", *(f"by {number(batch)}" for batch in batches)]
    rows = [
        [side, *(_rate(cases.median("lives_per_s", side=side, batch=batch)) for batch in batches)]
        for side in cases.values("side")
    ]
    for other in ("sqlite3_hand", "lmdb_bare"):
        times = [cases.ratio("lives_per_s", "jobq", other, batch=batch) for batch in batches]
        rows.append([f"jobq / {other}", *map(_times, times)])
    return markdown(head, rows)


def by_threads(result: Result) -> Lines:
    cases = Cases(result["results"])
    callers = cases.values("callers")
    lines: Lines = []
    for workload in cases.values("workload"):
        rows = [
            [side, *(_rate(cases.median("jobs_per_s", workload=workload, side=side, callers=many))
                     for many in callers)]
            for side in cases.values("side")
        ]  # fmt: skip
        times = [
            cases.ratio("jobs_per_s", "jobq", "sqlite3_hand", workload=workload, callers=many)
            for many in callers
        ]
        rows.append(["jobq / sqlite3_hand", *map(_times, times)])
        used = [row for row in rows if set(row[1:]) != {""}]
        head = [
            f"{workload}, jobs/s",
            *(f"{number(many)} caller{'s' * (many > 1)}" for many in callers),
        ]
        lines += [*markdown(head, used), ""]
    return lines[:-1]


def by_side(result: Result) -> Lines:
    cases = Cases(result["results"])
    rows = []
    for side in cases.values("side"):
        rate = cases.median("lives_per_s", side=side)
        mine = "" if side == "jobq" else _times(cases.ratio("lives_per_s", "jobq", side))
        rows.append([side, _rate(rate), mine])
    return markdown(["one job a commit", "lives/s", "jobq is so many times as fast"], rows)


def by_payload(result: Result) -> Lines:
    cases = Cases(result["results"])
    sizes = cases.values("payload_bytes")
    return markdown(
        ["lives/s, one at a time", *(f"{number(size)} B" for size in sizes)],
        [
            [side, *(_rate(cases.median("lives_per_s", side=side, payload_bytes=size, batch=1))
                     for size in sizes)]
            for side in cases.values("side")
        ],
    )  # fmt: skip


def by_processes(result: Result) -> Lines:
    cases = Cases(result["results"])
    head = ["", "lives/s", "p50 ms", "p99 ms", "worst ms", "errors"]
    rows = []
    for processes in cases.values("processes"):
        for side in cases.values("side"):
            which = {"processes": processes, "side": side}
            if rates := cases.rounds("lives_per_s", **which):
                p50, p99 = (cases.median(name, **which) or 0 for name in ("p50_ms", "p99_ms"))
                rows.append([
                    f"{side}, {processes} process{'es' * (processes > 1)}",
                    number(statistics.median(rates)), number(p50, 2), number(p99, 2),
                    number(max(cases.rounds("worst_ms", **which)), 1),
                    number(sum(cases.rounds("errors", **which))),
                ])  # fmt: skip
    return markdown(head, rows)


def by_backlog(result: Result) -> Lines:
    verbs = list(result["results"][0]["calls_us"])
    head = ["p50 (p99) µs", *verbs, "reserve, to the first", "open ms", "`jobq stats` ms",
            "RssAnon MiB", "bytes a job"]  # fmt: skip
    rows = []
    for one in result["results"]:
        calls = one["calls_us"]
        rows.append([
            one["backlog"],
            *(f"{calls[verb]['p50']:.0f} ({calls[verb]['p99']:.0f})" for verb in verbs),
            _times(calls["reserve"]["ratio"]),
            number(statistics.median(one["open_ms"]), 1),
            number(statistics.median(one["command_stats_ms"])),
            number(one["rss_anon_kib"] / 1024, 1),
            number(one["bytes_a_job"]),
        ])  # fmt: skip
    return markdown(head, rows)


def by_churn(result: Result) -> Lines:
    lines: Lines = []
    for run in result["results"]:
        points = run["points"]
        shown = [points[1], *points[:: max(1, len(points) // POINTS)][1:-1], points[-1]]
        rows = [
            [number(one["jobs"]), number(one["waiting"]), number(one["length"] / MIB, 1),
             number(one["in_use"] / MIB, 1)]
            for one in shown
        ]  # fmt: skip
        head = [f"{run['title']}: jobs", "waiting", "file MiB", "of it, in use"]
        lines += [*markdown(head, rows), ""]
    return lines[:-1]


def by_due(result: Result) -> Lines:
    head = [f"{number(result['settings']['jobs'])} at once", "moved in s", "lives/s before",
            "meanwhile", "p99 ms", "worst ms", "worst on a processor, ms"]  # fmt: skip
    rows = [
        [
            one["kind"] + (", beside a waiter" if one["waiters"] else ""),
            number(one["seconds"], 1), number(one["before"]["lives_per_s"]),
            number(one["during"]["lives_per_s"]), number(one["during"]["p99_ms"], 1),
            number(one["during"]["worst_ms"], 1), number(one["during"]["worst_cpu_ms"], 1),
        ]
        for one in result["results"]
    ]  # fmt: skip
    return markdown(head, rows)


def by_crowd(result: Result) -> Lines:
    head = ["", "idle, % of a core", "woken in vain a job", "CPU ms a job", "p50 ms", "p99 ms",
            "worst ms"]  # fmt: skip
    rows = []
    for one in result["results"]["crowds"]:
        ms = one.get("ms")
        figures = [number(percentile(ms, 50), 2), number(percentile(ms, 99), 2),
                   number(max(ms), 1)] if ms else [""] * 3  # fmt: skip
        rows.append([
            one["crowd"], number(one["idle_percent"], 2), number(one["in_vain_a_job"], 2),
            number(one["cpu_ms_a_job"], 2), *figures,
        ])  # fmt: skip
    for whose, ms in result["results"]["alone_ms"].items():
        rows.append([
            f"one waiter, between {whose}", "", "", "", number(percentile(ms, 50), 2),
            number(percentile(ms, 99), 2), number(max(ms), 1),
        ])  # fmt: skip
    return markdown(head, rows)


def by_computing(result: Result) -> Lines:
    head = ["", "lives/s", "ratio", "p50 ms", "p99 ms", "worst ms", "the thread's own speed"]
    rows = [
        [
            f"{one['whose']}, by {one['batch']}: {one['way']}", number(one["lives_per_s"]),
            number(one["ratio"], 2), number(one["p50_ms"], 2), number(one["p99_ms"], 2),
            number(one["worst_ms"], 1), f"{one['computed']:.0%}" if one["computed"] else "",
        ]
        for one in result["results"]
    ]  # fmt: skip
    return markdown(head, rows)


def by_verb(result: Result) -> Lines:
    """Of all verbs at once: those of the most processes, the worst of all rounds."""
    cases = Cases(result["results"])
    most = max(cases.values("processes"))
    rounds: list[dict[str, Any]] = cases.rounds("verbs", processes=most)  # type: ignore[assignment]
    rows = []
    for verb in sorted(rounds[0]):
        of_verb = [one[verb] for one in rounds if verb in one]
        p50, p99 = (
            statistics.median(one[name] for one in of_verb) for name in ("p50_ms", "p99_ms")
        )
        rows.append([
            verb, number(sum(one["calls"] for one in of_verb)), number(p50, 2), number(p99, 2),
            number(max(one["worst_ms"] for one in of_verb), 1),
        ])  # fmt: skip
    return markdown([f"{most} processes", "calls", "p50 ms", "p99 ms", "worst ms"], rows)


TABLES: Final[dict[str, Callable[[Result], Lines]]] = {
    "batches": by_batch,
    "loops": by_side,
    "enqueuers": by_threads,
    "crews": by_processes,
    "contention": by_verb,
    "payloads": by_payload,
    "scale": by_backlog,
    "churn": by_churn,
    "falling_due": by_due,
    "waiters": by_crowd,
    "beside_python": by_computing,
}
"""In the order of the page."""


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _rate(rate: float | None) -> str:
    return "" if rate is None else number(rate)


def _times(times: float | None) -> str:
    return "" if times is None else f"{times:.2f} ×"
