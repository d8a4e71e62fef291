"""Counts of topics as text and as JSON. Columns of what no topic uses are left out."""

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, replace
from typing import Final

from jobq.cli.limiting import settings_in_short
from jobq.cli.render import Table, printable, size
from jobq.repo.base import Stats
from jobq.service import JobService
from jobq.states import Status
from jobq.topic import STORE_SETTINGS, TopicSettings, TopicStats

Settings = Mapping[str, TopicSettings]
"""Those of topics, by name."""

_LIMITS: Final = "limits"


def settings_of(svc: JobService, stats: Stats) -> Settings:
    """The settings of the topics that were counted."""
    return {topic.name: svc.settings(topic.name) for topic in stats.topics}


def stats_as_table(stats: Stats, settings: Settings) -> str:
    """A line about the store, one a topic, and the totals."""
    more = _columns(stats, settings)
    rows = [["topic", *Status, *more]]
    for topic in (*stats.topics, replace(stats.totals, name="total")):
        counts = [f"{topic.of(status):,}" for status in Status]
        rows.append([printable(topic.name), *counts, *_cells(more, topic)])
    return "\n".join([_store_line(stats), "", *_table(rows)])


def stats_as_json(stats: Stats, settings: Settings) -> str:
    """The same facts: `store`, `next_due` (ISO 8601, UTC, or null), `topics`, `totals`.

    A topic has the `settings` that are set.
    """
    totals = asdict(stats.totals)
    del totals["name"]
    return json.dumps(
        {
            "store": stats.store,
            "next_due": None if stats.next_due is None else stats.next_due.isoformat(),
            "topics": [_as_fields(topic, settings) for topic in stats.topics],
            "totals": totals,
        }
    )


def topics_as_lines(stats: Stats, settings: Settings) -> list[str]:
    """A line a topic: its name, its unfinished jobs, and all that the store still has."""
    more = _columns(stats, settings)
    rows = [["topic", "unfinished", "total", *more]]
    for topic in stats.topics:
        counts = [f"{topic.unfinished:,}", f"{topic.total:,}"]
        rows.append([printable(topic.name), *counts, *_cells(more, topic)])
    return _table(rows)


def topics_as_json(stats: Stats, settings: Settings) -> list[str]:
    """A line a topic: its name, its counts, `unfinished`, `total`, and the `settings` set."""
    return [
        json.dumps(
            {**_as_fields(topic, settings), "unfinished": topic.unfinished, "total": topic.total}
        )
        for topic in stats.topics
    ]


def _as_fields(topic: TopicStats, settings: Settings) -> dict[str, object]:
    return {**asdict(topic), "settings": settings[topic.name].as_dict()}


Columns = Mapping[str, Callable[[TopicStats], str]]
"""What stands in each column, by its head."""


def _columns(stats: Stats, settings: Settings) -> Columns:
    """Those of flow control that any topic uses."""
    of_all = settings.values()
    # What counts against a limit is the same as what is reserved, but for canceled jobs.
    running = any(one.concurrency for one in of_all) or any(
        topic.running != topic.reserved for topic in stats.topics
    )
    weighed = "max_bytes" in stats.store or any(one.max_bytes is not None for one in of_all)
    limits = {
        topic.name: settings_in_short(settings[topic.name], paused=topic.paused)
        for topic in stats.topics
    }
    used: dict[str, tuple[bool, Callable[[TopicStats], str]]] = {
        "running": (running, lambda topic: f"{topic.running:,}"),
        "groups": (any(topic.groups for topic in stats.topics), lambda topic: f"{topic.groups:,}"),
        "bytes": (weighed, lambda topic: size(topic.bytes)),
        _LIMITS: (any(limits.values()), lambda topic: limits.get(topic.name, "")),
    }
    return {head: cell for head, (is_used, cell) in used.items() if is_used}


def _cells(columns: Columns, topic: TopicStats) -> Iterable[str]:
    return [cell(topic) for cell in columns.values()]


def _table(rows: list[list[str]]) -> list[str]:
    left = {0, rows[0].index(_LIMITS)} if _LIMITS in rows[0] else {0}
    return Table(left).lines(rows)


def _store_line(stats: Stats) -> str:
    facts = []
    for name, value in stats.store.items():
        if value is True:  # paused, draining
            facts.append(name)
        elif name.endswith("_bytes") and isinstance(value, int):
            shown = name if name in STORE_SETTINGS else name.removesuffix("_bytes")
            facts.append(f"{shown} {size(value)}")
        else:
            facts.append(f"{name} {printable(str(value))}")
    due = stats.next_due
    facts.append(f"next due {'-' if due is None else due.isoformat(' ', 'milliseconds')}")
    return "  ".join(facts)
