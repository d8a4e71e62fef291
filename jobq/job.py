"""What is known of a job: the values that enqueue takes and that reads return.

Everything here is a plain value. Times are microseconds in fields whose name ends in `_us`
(UTC since 1970 unless said otherwise); properties give them as aware `datetime`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from enum import Enum
from typing import Any, Final, NamedTuple

from jobq import codec, ids
from jobq.clock import utc
from jobq.options import DEFAULTS, JobOptions
from jobq.states import FINISHED, Event, Reason, Status

LEAST_WEIGHT: Final = -(2**15)
MOST_WEIGHT: Final = 2**15 - 1


class Attempt(NamedTuple):
    """One time that a job was handed out, and how that ended.

    Attributes:
        attempt: Its number, 1 at first. One that was released was not tried: the next has the
            same number.
        event: How it ended: `Event.DONE`, `RETRY`, `RELEASE`, `CANCEL`, or `EXPIRE` for a lease
            that was over or a holder that died.
        holder: Name of the process that held it.
        reserved_us: When it was handed out.
        ended_us: When it ended.
        error: What its holder said of the failure, with the traceback if there was one; of older
            attempts only its last line may be left. None if nothing was said.
    """

    attempt: int
    event: Event
    holder: str
    reserved_us: int
    ended_us: int
    error: str | None

    @property
    def reserved_at(self) -> datetime:
        """When it was handed out."""
        return utc(self.reserved_us)

    @property
    def ended_at(self) -> datetime:
        """When it ended."""
        return utc(self.ended_us)

    def as_dict(self) -> dict[str, Any]:
        """The attempt as plain values: texts, numbers, ISO 8601 times."""
        return {
            "attempt": self.attempt,
            "event": str(self.event),
            "holder": self.holder,
            "reserved_at": self.reserved_at.isoformat(),
            "ended_at": self.ended_at.isoformat(),
            "error": self.error,
        }


class LogLine(NamedTuple):
    """A line of a job's log: when it was written, and its text."""

    at_us: int
    text: str

    @property
    def at(self) -> datetime:
        """When it was written."""
        return utc(self.at_us)


class Progress(NamedTuple):
    """How far a job is, as its holder said last.

    Attributes:
        done: So much.
        total: Out of so much; None if that is not known.
        text: What it is at; None if that was not said.
        at_us: When that was said.
    """

    done: float
    total: float | None
    text: str | None
    at_us: int

    @property
    def at(self) -> datetime:
        """When that was said."""
        return utc(self.at_us)


class Report(NamedTuple):
    """What a holder tells of its work on one job: log lines, progress.

    Attributes:
        id: 16 bytes.
        token: The one of the reservation.
        lines: Age in microseconds, and text, of each line, oldest first.
        progress: Done, total, text, age in microseconds; see `Progress`. None leaves it as it is.
        dropped: How many lines before these were dropped because they were too many.
    """

    id: bytes
    token: int
    lines: tuple[tuple[int, str], ...] = ()
    progress: tuple[float, float | None, str | None, int] | None = None
    dropped: int = 0


class JobSpec(NamedTuple):
    """One job to enqueue, checked and encoded: what the service hands to a store.

    Attributes:
        topic: Its topic's name.
        weight: Lower is served first; int16.
        delay_us: Microseconds from now until it becomes ready; 0 means at once.
        payload: As `codec.pack` made it.
        options: Those that were set; see `JobOptions`.
    """

    topic: str
    weight: int
    delay_us: int
    payload: bytes
    options: JobOptions


class Reservation(NamedTuple):
    """One job as its holder gets it.

    Attributes:
        id: 16 bytes.
        token: Grows with every reservation of the job; every call of the holder names it.
        attempt: How often the job has been tried, this time included; 1 at first.
        lease_us: Microseconds for which it is held, from the reservation on.
    """

    id: bytes
    token: int
    topic: str
    weight: int
    attempt: int
    retries: int
    crashes: int
    lease_us: int
    options: JobOptions
    payload: bytes


class Settlement(NamedTuple):
    """What a holder says of one job: done, retry, release or cancel.

    Attributes:
        id: 16 bytes.
        token: The one of the reservation.
        event: `Event.DONE`, `RETRY`, `RELEASE` or `CANCEL`.
        delay_us: For retry and release: microseconds until the job is ready again, 0 for at
            once. None (retry only) gives up: canceled as exhausted.
        keep_us: How long the finished job is kept, in microseconds; None leaves it to the store.
        result: For done: as `codec.pack` made it; None keeps none, and reads as None.
        error: Free text about a failure.
        reason: For cancel.
        follow: For done: jobs to enqueue in the same commit.
        report: What its holder has told of it since the last time.
    """

    id: bytes
    token: int
    event: Event
    delay_us: int | None = 0
    keep_us: int | None = None
    result: bytes | None = None
    error: str | None = None
    reason: Reason | None = None
    follow: tuple[JobSpec, ...] = ()
    report: Report | None = None


class JobCopy(NamedTuple):
    """Everything that has to go along when a job moves to another store.

    Attributes:
        id: 16 bytes.
        status: One of the five but reserved: a job that was held is ready in the copy, since
            nobody can hold it there.
        place: Where it stands among the jobs of its weight, as a number; lower is served first.
        token: How many reservations it has had.
        until_us: When it is due, or may be forgotten; None if it is ready.
        payload: As `codec.pack` made it; the result likewise.

    The others are as in `JobRecord`.
    """

    id: bytes
    topic: str
    status: Status
    reason: Reason | None
    weight: int
    place: int
    attempt: int
    token: int
    retries: int
    crashes: int
    resets: int
    created_us: int
    until_us: int | None
    reserved_us: int | None
    ended_us: int | None
    options: JobOptions
    payload: bytes
    result: bytes | None
    error: str | None
    history: tuple[Attempt, ...]
    history_dropped: int
    progress: Progress | None
    log: tuple[LogLine, ...]
    log_dropped: int


class Keep(Enum):
    """The type of `KEEP`."""

    KEEP = "keep"


KEEP: Final = Keep.KEEP
"""Says "as it is" where None is a value."""


class Change(NamedTuple):
    """What `edit` makes of waiting jobs, checked and encoded. None leaves a thing as it is.

    Attributes:
        topic: The topic to go to, to the back of the weight there.
        weight: The new weight; the place among its jobs stays that of the time of enqueueing.
        delay_us: Microseconds from now until ready; 0 for at once, in the old place.
        payload: As `codec.pack` made it.
        options: Checked values by name; None unsets one.
    """

    topic: str | None = None
    weight: int | None = None
    delay_us: int | None = None
    payload: bytes | None = None
    options: Mapping[str, Any] = {}

    def options_over(self, old: JobOptions) -> JobOptions:
        """The options of a job that had *old* ones.

        >>> Change(options={"lease": 5.0}).options_over(JobOptions(lease=1.0, name="n")).as_dict()
        {'lease': 5.0, 'name': 'n'}
        """
        return replace(old, **self.options) if self.options else old


@dataclass(frozen=True, slots=True)
class UniqueKey:
    """A unique key that a job has, or had when a period began that is not over.

    Attributes:
        key: The key.
        job_id: The job. It may be finished, or forgotten, if the key is taken for a period.
        until: When that period is over; None if the job has the key by its state.
    """

    key: str
    job_id: str
    until: datetime | None = None

    def as_dict(self) -> dict[str, Any]:
        """All of it as plain values: the time as ISO 8601 text."""
        until = None if self.until is None else self.until.isoformat()
        return {"key": self.key, "job_id": self.job_id, "until": until}


@dataclass(frozen=True, slots=True)
class JobRecord:
    """Everything that the store knows of one job, as it was when it was read.

    Attributes:
        id: Its name, a UUIDv7 in text.
        topic: Its topic's name.
        status: One of the five states.
        weight: Place in the topic: lower is served first.
        attempt: How often it has been handed out, releases not counted.
        retries: How often its holders asked for a retry since the last reset.
        crashes: How often a holder died or overran its lease since the last reset.
        resets: How often it was reset.
        reason: Why it is canceled; None unless it is.
        error: What was last said of a failure, with its traceback; None since the last reset if
            nothing was.
        options: The options it was enqueued with, or edited to; see `effective` for all of them.
        holder: Name of the process that holds it; None unless reserved.
        history: How its reservations ended so far, oldest first; at most the last 100.
        history_dropped: How many older ones are not kept any more.
        progress: How far its holder said it was; None if it said nothing.
        log: Its log lines, oldest first; at most the last 1 000 or 64 KiB. Only `JobService.get`
            reads them: empty in what `find` gives.
        log_dropped: How many older lines are not kept any more.
    """

    id: str
    topic: str
    status: Status
    weight: int
    attempt: int
    retries: int
    crashes: int
    resets: int
    reason: Reason | None
    error: str | None
    options: JobOptions
    holder: str | None
    created_us: int
    due_us: int | None
    lease_until_us: int | None
    reserved_us: int | None
    ended_us: int | None
    payload_bytes: bytes
    result_bytes: bytes | None
    history: tuple[Attempt, ...] = ()
    history_dropped: int = 0
    progress: Progress | None = None
    log: tuple[LogLine, ...] = ()
    log_dropped: int = 0

    @property
    def payload(self) -> Any:
        """The value that was enqueued, or put in its place by `edit`.

        Raises:
            StoreCorrupt: The stored bytes do not decode.
        """
        return codec.unpack(self.payload_bytes)

    @property
    def result(self) -> Any:
        """What its holder gave to `done`; None if nothing, or not done.

        Raises:
            StoreCorrupt: The stored bytes do not decode.
        """
        return None if self.result_bytes is None else codec.unpack(self.result_bytes)

    @property
    def effective(self) -> JobOptions:
        """Its options, and the defaults where it has none."""
        return self.options.over(DEFAULTS)

    @property
    def finished(self) -> bool:
        """Whether it is done or canceled."""
        return self.status in FINISHED

    @property
    def created(self) -> datetime:
        """When it was enqueued."""
        return utc(self.created_us)

    @property
    def due(self) -> datetime | None:
        """When it becomes ready; None unless delayed."""
        return _utc(self.due_us)

    @property
    def lease_until(self) -> datetime | None:
        """When its reservation ends unless extended; None unless reserved.

        Leases are measured on a clock that nobody can step; this is that moment on the wall
        clock as it stood when the record was read.
        """
        return _utc(self.lease_until_us)

    @property
    def deadline(self) -> datetime | None:
        """When it is canceled as expired unless it was handed out; None if it has no deadline."""
        return self.options.deadline

    @property
    def reserved_at(self) -> datetime | None:
        """When it was last handed out; None if never."""
        return _utc(self.reserved_us)

    @property
    def ended_at(self) -> datetime | None:
        """When it was done or canceled; None unless it is."""
        return _utc(self.ended_us)

    def as_dict(self) -> dict[str, Any]:
        """The record as plain values: texts, numbers, ISO 8601 times, payload and result."""
        times = {
            name: None if at is None else at.isoformat()
            for name, at in (
                ("created", self.created),
                ("due", self.due),
                ("lease_until", self.lease_until),
                ("reserved_at", self.reserved_at),
                ("ended_at", self.ended_at),
            )
        }
        return {
            "id": self.id,
            "topic": self.topic,
            "status": str(self.status),
            "weight": self.weight,
            "attempt": self.attempt,
            "retries": self.retries,
            "crashes": self.crashes,
            "resets": self.resets,
            "reason": None if self.reason is None else str(self.reason),
            "error": self.error,
            "options": self.options.as_dict(),
            "holder": self.holder,
            **times,
            "payload": self.payload,
            "result": self.result,
            "history": [attempt.as_dict() for attempt in self.history],
            "history_dropped": self.history_dropped,
            "progress": None if self.progress is None else self._progress(self.progress),
            "log": [{"at": line.at.isoformat(), "text": line.text} for line in self.log],
            "log_dropped": self.log_dropped,
        }

    @staticmethod
    def _progress(progress: Progress) -> dict[str, Any]:
        return {
            "done": progress.done,
            "total": progress.total,
            "text": progress.text,
            "at": progress.at.isoformat(),
        }


def _utc(at_us: int | None) -> datetime | None:
    return None if at_us is None else utc(at_us)


def name_of(job_id: bytes) -> str:
    """The id in text, for messages.

    >>> name_of(bytes(16))
    '00000000-0000-0000-0000-000000000000'
    """
    return ids.to_text(job_id)
