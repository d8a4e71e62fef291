"""Topics: their names, their settings and their counts."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from datetime import datetime
from typing import Any, Final, Literal, TypedDict

from jobq.errors import InvalidValue, shown
from jobq.options import (
    LONGEST_S,
    MOST_COUNT,
    check_backoff,
    factor,
    flag,
    integer,
    jitter,
    one_of,
    seconds,
    several,
    text,
)
from jobq.states import Status

LONGEST_NAME: Final = 255
MOST_DONE: Final = 2**40
MOST_BYTES: Final = 2**50
MOST_RATE: Final = 10**9
LEAST_INTERVAL: Final = 1e-6
"""Seconds between two jobs of the highest rate."""

WhenFull = Literal["reject", "drop-oldest", "drop-lowest"]
"""What becomes of a new job that the topic has no room for: it is refused, or another one goes."""

GroupRetries = Literal["block", "pass"]

Rate = tuple[int, float]
"""So many jobs in so many seconds."""


def check_name(name: object) -> str:
    """*name*, if it can name a topic: 1 to 255 bytes of UTF-8, any character.

    >>> check_name("mail")
    'mail'

    Raises:
        InvalidValue: It is not text, empty, too long, or not encodable (lone surrogates).
    """
    if type(name) is str and name.isascii() and 0 < len(name) <= LONGEST_NAME:
        return name
    return text("topic", name, longest=LONGEST_NAME)


class SettingArgs(TypedDict, total=False):
    """The keyword settings that `configure` takes; see `TopicSettings`."""

    keep_done: float | None
    keep_canceled: float | None
    max_done: int | None
    paused: bool | None
    draining: bool | None
    concurrency: int | None
    rate: Rate | None
    burst: int | None
    group_concurrency: int | None
    group_rate: Rate | None
    group_burst: int | None
    group_retries: GroupRetries | None
    max_jobs: int | None
    max_bytes: int | None
    when_full: WhenFull | None
    max_lease: float | None
    max_retries: int | None
    min_backoff: float | None
    max_backoff: float | None
    factor: float | None
    jitter: float | None
    ttl: float | None
    ageing: float | None


@dataclass(frozen=True, slots=True)
class TopicSettings:
    """What holds for the jobs of one topic. None means: not set here, the store decides.

    The order is: the job's own options, its topic's settings, the store's. What is set holds for
    jobs that finish from then on.

    Attributes:
        keep_done: Seconds for which done jobs are kept; 0 forgets them at once.
        keep_canceled: Seconds for which canceled jobs are kept; 0 forgets them at once.
        max_done: The most done jobs of the topic that are kept, whatever their retention; those
            that were done first go first. Counts the jobs that are done while it is set. Unset,
            only the store's limit holds, which always does.
        paused: No job is handed out.
        draining: New jobs are refused; those that are there are served.
        concurrency: The most jobs that are reserved at once, over all processes.
        rate: The most jobs that are handed out in a period: (jobs, seconds).
        burst: The most that may be handed out at once after a quiet time; as many as in a period
            unless set. Only with `rate`, by which a burst takes a hundred years at most.
        group_concurrency: As `concurrency`, for each group by itself. 1 keeps each in strict order.
        group_rate: As `rate`, for each group by itself.
        group_burst: As `burst`, for `group_rate`.
        group_retries: Whether a job that waits for its retry goes on counting as reserved in its
            group, `block`, or lets others by, `pass`. Unset, it blocks if `group_concurrency` is 1.
        max_jobs: The most jobs that may wait, ready and delayed ones.
        max_bytes: The most bytes that the payloads of waiting jobs may have together.
        when_full: What a new job meets beyond these: `reject` raises QueueFull, `drop-oldest`
            cancels the ready jobs that were enqueued first, `drop-lowest` those that would be
            served last, the new ones included. Delayed jobs stay: if they alone leave no room,
            new ones go, or are refused if they are delayed too. What is beyond a cap that is
            lowered goes with the next new jobs, a thousand in each call. Unset, it is refused.
        max_lease: The longest lease in seconds; more than 0. The smaller one of this and the
            job's holds; likewise for `max_retries` and `ttl`.
        max_retries: The most retries.
        min_backoff: Seconds before the first retry; 0 or more. Holds for jobs that do not say
            themselves, likewise for the next three; see `JobOptions`.
        max_backoff: The longest wait before a retry, in seconds; at least `min_backoff`.
        factor: By what the wait grows from retry to retry; 1 or more.
        jitter: The wait is varied by this fraction up and down; 0 to 1.
        ttl: The most seconds from the enqueue, or the reset, until the job has to be handed out;
            more than 0.
        ageing: So many seconds of waiting count as one weight less; more than 0. Unset, low jobs
            wait for as long as there are others.
    """

    keep_done: float | None = None
    keep_canceled: float | None = None
    max_done: int | None = None
    paused: bool | None = None
    draining: bool | None = None
    concurrency: int | None = None
    rate: Rate | None = None
    burst: int | None = None
    group_concurrency: int | None = None
    group_rate: Rate | None = None
    group_burst: int | None = None
    group_retries: GroupRetries | None = None
    max_jobs: int | None = None
    max_bytes: int | None = None
    when_full: WhenFull | None = None
    max_lease: float | None = None
    max_retries: int | None = None
    min_backoff: float | None = None
    max_backoff: float | None = None
    factor: float | None = None
    jitter: float | None = None
    ttl: float | None = None
    ageing: float | None = None

    def changed(self, changes: Mapping[str, Any]) -> "TopicSettings":
        """These settings with *changes*, which `check_settings` has checked.

        >>> TopicSettings(keep_done=60.0).changed({"keep_done": None, "max_done": 9}).as_dict()
        {'max_done': 9}
        """
        return replace(self, **changes)

    def keep_us(self, status: Status) -> int | None:
        """For how long a job that ends as *status* is kept, in microseconds; None if not set."""
        keep = self.keep_done if status is Status.DONE else self.keep_canceled
        return None if keep is None else math.ceil(keep * 1_000_000)

    @property
    def blocks_group(self) -> bool:
        """Whether a job that waits for its retry counts as reserved in its group."""
        if self.group_retries is None:
            return self.group_concurrency == 1
        return self.group_retries == "block"

    def as_dict(self) -> dict[str, Any]:
        """The settings that are set, by name; what records hold."""
        found = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: value for name, value in found.items() if value is not None}


NO_SETTINGS: Final = TopicSettings()


def check_settings(args: Mapping[str, Any]) -> dict[str, Any]:
    """The settings in *args*, checked; None stays None.

    >>> check_settings({"keep_done": 60, "keep_canceled": None})
    {'keep_done': 60.0, 'keep_canceled': None}

    Raises:
        InvalidValue: There is none, or one is unknown, of the wrong type or out of range.
    """
    known = ", ".join(_CHECKS)
    if not args:
        raise InvalidValue(f"there is no setting to change: expected at least one of {known}")
    checked = {}
    for name, value in args.items():
        check = _CHECKS.get(name)
        if check is None:
            raise InvalidValue(f"unknown setting {shown(name)}: expected one of {known}")
        checked[name] = None if value is None else check(name, value)
    return checked


STORE_SETTINGS: Final = ("paused", "draining", "max_jobs", "max_bytes")
"""The settings that a store has as a whole too."""


def check_store_settings(args: Mapping[str, Any]) -> dict[str, Any]:
    """As `check_settings`, for the store as a whole.

    Raises:
        InvalidValue: There is none, or one is wrong or not for the store as a whole.
    """
    checked = check_settings(args)
    for name in checked:
        if name not in STORE_SETTINGS:
            known = ", ".join(STORE_SETTINGS)
            raise InvalidValue(
                f"setting {name!r} is for topics alone: expected one of {known} for the whole store"
            )
    return checked


def _flag(name: str, value: object) -> bool | None:
    return flag(name, value) or None  # False is as good as unset


def _above_zero(name: str, value: object) -> float:
    return seconds(name, value, above=True)


def _most(name: str, value: object) -> int:
    return integer(name, value, 1, MOST_COUNT)


def _rate(name: str, value: object) -> Rate:
    pair = several(name, value, "values") if issubclass(type(value), tuple | list) else []
    if len(pair) != 2:
        raise InvalidValue(f"{name} is {shown(value)}: expected two values, (jobs, seconds)")
    jobs = integer(f"the jobs of {name}", pair[0], 1, MOST_RATE)
    period = seconds(f"the seconds of {name}", pair[1], above=True)
    if period / jobs < LEAST_INTERVAL:
        raise InvalidValue(f"{name} is {shown(value)}: expected at most 1 000 000 jobs a second")
    return jobs, period


def check_together(settings: TopicSettings) -> None:
    """That settings, each of which is in its range, go together.

    Raises:
        InvalidValue: A burst at its rate would take longer than the longest time that there is; or
            the first wait before a retry is more than the longest.
    """
    check_backoff(settings.min_backoff, settings.max_backoff)
    for name, rate, burst in (
        ("rate", settings.rate, settings.burst),
        ("group_rate", settings.group_rate, settings.group_burst),
    ):
        if rate is not None and burst is not None and rate[1] / rate[0] * burst > LONGEST_S:
            raise InvalidValue(
                f"a burst of {burst} at a {name} of {rate[0]} jobs in {rate[1]:g} seconds takes "
                f"{rate[1] / rate[0] * burst:.0f} seconds: expected at most {LONGEST_S:.0f}"
            )


_CHECKS: Final[Mapping[str, Callable[[str, object], object]]] = {
    "keep_done": seconds,
    "keep_canceled": seconds,
    "max_done": lambda name, value: integer(name, value, 0, MOST_DONE),
    "paused": _flag,
    "draining": _flag,
    "concurrency": _most,
    "rate": _rate,
    "burst": _most,
    "group_concurrency": _most,
    "group_rate": _rate,
    "group_burst": _most,
    "group_retries": lambda name, value: one_of(name, value, ("block", "pass")),
    "max_jobs": lambda name, value: integer(name, value, 0, MOST_DONE),
    "max_bytes": lambda name, value: integer(name, value, 0, MOST_BYTES),
    "when_full": lambda name, value: one_of(name, value, ("reject", "drop-oldest", "drop-lowest")),
    "max_lease": _above_zero,
    "max_retries": lambda name, value: integer(name, value, 0, MOST_COUNT),
    "min_backoff": seconds,
    "max_backoff": seconds,
    "factor": factor,
    "jitter": jitter,
    "ttl": _above_zero,
    "ageing": _above_zero,
}


SECONDS: Final = frozenset(
    name for name, check in _CHECKS.items() if check in (seconds, _above_zero)
)
"""The settings that are durations, in seconds."""


@dataclass(frozen=True, slots=True)
class TopicStats:
    """How many jobs of one topic are in each state; kept with every change, never scanned.

    Attributes:
        name: The topic's name.
        bytes: What the payloads of those that wait, ready and delayed, have together.
        running: How many count against `TopicSettings.concurrency`: the reserved ones, and those
            that were canceled under a holder who may not know it yet.
        groups: How many groups have jobs that are ready or running, or a rate to remember.
        paused: No job is handed out: the topic is paused, or the whole store is.
    """

    name: str
    ready: int = 0
    delayed: int = 0
    reserved: int = 0
    done: int = 0
    canceled: int = 0
    bytes: int = 0
    running: int = 0
    groups: int = 0
    paused: bool = False

    @property
    def total(self) -> int:
        """All jobs of the topic that the store still has."""
        return self.ready + self.delayed + self.reserved + self.done + self.canceled

    @property
    def unfinished(self) -> int:
        """Jobs that are neither done nor canceled."""
        return self.ready + self.delayed + self.reserved

    def of(self, status: Status) -> int:
        """The number of jobs in *status*."""
        return int(getattr(self, status.value))


@dataclass(frozen=True, slots=True)
class GroupStats:
    """A group of a topic that has jobs to serve, or a rate to remember.

    Attributes:
        group: Its name.
        ready: How many of its jobs are ready.
        running: How many count against `TopicSettings.group_concurrency`: the reserved ones,
            those that wait for a retry and keep their place, and those that linger.
        lingering: How many of these were canceled under a holder who may not know it yet.
        next_at: When its rate lets the next job go; None if one may go now.
    """

    group: str
    ready: int
    running: int
    lingering: int = 0
    next_at: datetime | None = None

    def as_dict(self) -> dict[str, Any]:
        """All of it as plain values: the time as ISO 8601 text."""
        return {**_plain(self), "next_at": _iso(self.next_at)}


@dataclass(frozen=True, slots=True)
class TopicLimits:
    """What limits a topic, or the store as a whole, and how near it is to that.

    Attributes:
        settings: What is set.
        running: How many jobs count as reserved, see `TopicStats.running`.
        lingering: How many of these were canceled under a holder who may not know it yet.
        allowed: How many jobs the rate lets go now; None if there is no rate.
        next_at: When the rate lets the next job go; None if one may go now, or there is no rate.
        jobs: How many jobs wait, ready and delayed ones.
        bytes: What their payloads have together.
    """

    settings: TopicSettings
    running: int = 0
    lingering: int = 0
    allowed: int | None = None
    next_at: datetime | None = None
    jobs: int = 0
    bytes: int = 0

    def as_dict(self) -> dict[str, Any]:
        """All of it as plain values: the settings that are set, the time as ISO 8601 text."""
        settings = self.settings.as_dict()
        return {**_plain(self), "settings": settings, "next_at": _iso(self.next_at)}


def _plain(value: GroupStats | TopicLimits) -> dict[str, Any]:
    return {field.name: getattr(value, field.name) for field in fields(value)}


def _iso(at: datetime | None) -> str | None:
    return None if at is None else at.isoformat()
