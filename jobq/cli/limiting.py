"""Settings and limits of topics as text for people."""

import time
from collections.abc import Callable
from typing import Any, Final

from jobq.cli.record import relative
from jobq.cli.render import printable, size
from jobq.topic import SECONDS, TopicLimits, TopicSettings

KEPT: Final = frozenset({"keep_done", "keep_canceled", "max_done"})
"""Settings that limit nobody who works."""

_WIDTH: Final = 19
"""Of the names of settings, and two spaces."""


def setting(value: Any) -> str:
    """A setting's value.

    >>> setting((100, 60.0)), setting(True), setting(1.5)
    ('100/60s', 'yes', '1.5')
    """
    if value is True:
        return "yes"
    if isinstance(value, tuple):
        jobs, seconds = value
        return f"{jobs}/{seconds:.15g}s"
    return printable(str(value))


def settings_as_lines(settings: TopicSettings) -> list[str]:
    """A line for each setting that is set."""
    return [fact(name, setting(value)) for name, value in settings.as_dict().items()]


def settings_in_short(settings: TopicSettings, *, paused: bool) -> str:
    """What limits a topic, on one line.

    >>> settings_in_short(TopicSettings(draining=True, rate=(5, 1.0), ttl=60.0), paused=True)
    'paused, draining, rate 5/1s, ttl 60s'
    """
    words = ["paused"] if paused else []
    for name, value in settings.as_dict().items():
        if name in KEPT or name == "paused":
            continue
        unit = "s" if name in SECONDS else ""
        shown = f"{value:g}{unit}" if unit else setting(value)
        words.append(name if value is True else f"{name} {shown}")
    return ", ".join(words)


def limits_as_lines(limits: TopicLimits, now: Callable[[], float] = time.time) -> list[str]:
    """How near it is to its limits, and then what is set."""
    settings = limits.settings
    lines = [fact("running", _of(f"{limits.running:,}", settings.concurrency))]
    if limits.lingering:
        lines.append(fact("lingering", f"{limits.lingering:,} (canceled, still held)"))
    if limits.allowed is not None:
        then = "" if limits.next_at is None else f", the next {relative(limits.next_at, now)}"
        lines.append(fact("may go now", f"{limits.allowed:,}{then}"))
    lines.append(fact("jobs waiting", _of(f"{limits.jobs:,}", settings.max_jobs)))
    most = settings.max_bytes
    room = None if most is None else size(most)
    lines.append(fact("bytes waiting", size(limits.bytes) + (f" of {room}" if room else "")))
    named = settings_as_lines(settings)
    return [*lines, *(["", "settings", *(f"  {line}" for line in named)] if named else [])]


def fact(name: str, value: str) -> str:
    """A name and what it is."""
    return f"{name:<{_WIDTH}}{value}"


def _of(number: str, most: int | None) -> str:
    return number if most is None else f"{number} of {most:,}"
