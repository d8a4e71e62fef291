"""Facts as text for people and as JSON for programs: one line, one object, nothing left out."""

import json
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import asdict

from jobq.repo.base import CheckReport, Stats
from jobq.states import Status
from jobq.topic import TopicStats


def stats_as_table(stats: Stats) -> str:
    """A line about the store, one a topic, and the totals."""
    rows = [["topic", *Status]]
    rows += [_counts(topic) for topic in stats.topics]
    rows += [_counts(stats.totals, name="total")]
    return "\n".join([_store_line(stats), "", *columns(rows)])


def stats_as_json(stats: Stats) -> str:
    """The same facts: `store`, `next_due` (ISO 8601, UTC, or null), `topics`, `totals`."""
    totals = asdict(stats.totals)
    del totals["name"]
    return json.dumps(
        {
            "store": stats.store,
            "next_due": None if stats.next_due is None else stats.next_due.isoformat(),
            "topics": [asdict(topic) for topic in stats.topics],
            "totals": totals,
        }
    )


def report_as_lines(report: CheckReport) -> str:
    """A line for each problem, and a closing sentence."""
    jobs = "1 job" if report.jobs == 1 else f"{report.jobs:,} jobs"
    if report.ok:
        return f"{jobs} checked, no problem found."
    found = "1 problem" if len(report.problems) == 1 else f"{len(report.problems):,} problems"
    if len(report.problems) == report.MOST_PROBLEMS:
        found = f"at least {found}"
    closing = f"{jobs} checked, {found} found: copy the directory before anything writes to it."
    return "\n".join([*map(printable, report.problems), closing])


def report_as_json(report: CheckReport) -> str:
    """The same facts: `ok`, `jobs`, `problems`."""
    return json.dumps({"ok": report.ok, "jobs": report.jobs, "problems": report.problems})


def columns(rows: Iterable[Sequence[str]]) -> list[str]:
    r"""The rows as lines: the first column to the left, the others to the right.

    >>> print(*columns([["topic", "ready"], ["mail", "1,204"], ["手紙", "7"]]), sep="|\n")
    topic  ready|
    mail   1,204|
    手紙       7
    """
    table = [list(row) for row in rows]
    widths = [max(map(width, column)) for column in zip(*table, strict=True)]
    lines = []
    for row in table:
        pads = [" " * (wide - width(cell)) for cell, wide in zip(row, widths, strict=True)]
        cells = [row[0] + pads[0]]
        cells += [pad + cell for pad, cell in zip(pads[1:], row[1:], strict=True)]
        lines.append("  ".join(cells))
    return lines


def width(text: str) -> int:
    """How many cells of a terminal *text* takes.

    >>> width("mail"), width("手紙")
    (4, 4)
    """
    if text.isascii():
        return len(text)
    wide = sum(unicodedata.east_asian_width(character) in "WF" for character in text)
    return len(text) + wide - sum(unicodedata.combining(character) > 0 for character in text)


def printable(text: str) -> str:
    r"""*text* on one line, with nothing in it that could steer a terminal.

    >>> printable("mail\x00\x1b[2J")
    'mail\\x00\\x1b[2J'
    """
    if text.isprintable():
        return text
    return "".join(
        character if character.isprintable() else ascii(character)[1:-1] for character in text
    )


def size(count: int) -> str:
    """A number of bytes for people.

    >>> size(1000), size(35_000), size(3_400_000_000)
    ('1000 B', '34.2 KiB', '3.2 GiB')
    """
    if count < 1024:
        return f"{count} B"
    number, unit = float(count), "B"
    for unit in ("KiB", "MiB", "GiB", "TiB"):  # noqa: B007 - the unit that the loop ends with
        number /= 1024
        if number < 1024:
            break
    return f"{number:.1f} {unit}"


def _counts(topic: TopicStats, name: str | None = None) -> list[str]:
    return [name or printable(topic.name), *(f"{topic.of(status):,}" for status in Status)]


def _store_line(stats: Stats) -> str:
    facts = []
    for name, value in stats.store.items():
        if name.endswith("_bytes") and isinstance(value, int):
            facts.append(f"{name.removesuffix('_bytes')} {size(value)}")
        else:
            facts.append(f"{name} {printable(str(value))}")
    due = stats.next_due
    facts.append(f"next due {'-' if due is None else due.isoformat(' ', 'milliseconds')}")
    return "  ".join(facts)
