"""Jobs as text for people and as JSON for programs."""

import json
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from datetime import datetime
from typing import Any, Final

from jobq import codec
from jobq.cli.plain import Plain, packed, plain
from jobq.cli.render import Table, duration, printable, shortened
from jobq.errors import StoreCorrupt
from jobq.job import JobRecord, LogLine, Progress
from jobq.states import Reason, Status

COLUMNS: Final = ("id", "topic", "status", "weight", "attempt", "when", "about")
TEXT_COLUMNS: Final = (0, 1, 2, 5, 6)
LONGEST_TOPIC: Final = 30
LONGEST_ABOUT: Final = 60
LONGEST_VALUE: Final = 100
"""Lines of a payload or a result that `show` prints."""
LOG_TAIL: Final = 20
_FACTS: Final = frozenset({"group", "unique", "deadline"})
"""Options that `show` has among the facts."""

_NONE: Final = codec.pack(None, limit=1)

Now = Callable[[], float]


# JSON.


def as_json(record: JobRecord) -> str:
    """The whole record as one line of JSON.

    Times are ISO 8601 in UTC, durations seconds; payload and result are written as `jobq.plain`
    says. `options` are those that were set, `effective` all of them.
    """
    return json.dumps(as_fields(record))


def as_fields(record: JobRecord) -> dict[str, Any]:
    """The whole record as values of JSON."""
    fields = replace(record, payload_bytes=_NONE, result_bytes=None).as_dict()
    fields["payload"] = value_of(record.payload_bytes)
    fields["result"] = None if record.result_bytes is None else value_of(record.result_bytes)
    fields["effective"] = record.effective.as_dict()
    return fields


def value_of(data: bytes) -> Plain:
    """A payload or a result; what does not unpack is shown as it is stored."""
    try:
        return plain(codec.unpack(data))
    except StoreCorrupt:
        return packed(data)


# A line of a table.


def as_row(record: JobRecord) -> list[str]:
    """What `jobs list` shows of a job, under `COLUMNS`."""
    return [
        record.id,
        shortened(printable(record.topic), LONGEST_TOPIC),
        str(record.status),
        str(record.weight),
        str(record.attempt),
        when(record),
        about(record),
    ]


def when(record: JobRecord, now: Now = time.time) -> str:
    """The time that matters most in its state."""
    if record.status is Status.DELAYED:
        return relative(record.due, now)
    if record.status is Status.RESERVED:
        return f"since {_passed(record.reserved_at, now)}"
    return relative(record.ended_at or record.created, now)


def about(record: JobRecord) -> str:
    """Its name, why it is canceled, and the last line of its error."""
    parts = [record.options.name or "", _reason(record), _last_line(record.error)]
    return shortened(printable(": ".join(filter(None, parts))), LONGEST_ABOUT)


def status(record: JobRecord) -> str:
    """Its status, and why it is canceled."""
    reason = _reason(record)
    return f"{record.status} ({reason})" if reason else str(record.status)


def _reason(record: JobRecord) -> str:
    """Why it is canceled, if that says more than that it is."""
    return "" if record.reason in {None, Reason.CANCELED} else str(record.reason)


def relative(at: datetime | None, now: Now = time.time) -> str:
    """How far a moment is from now: `3m ago`, or `in 2h` where it is still to come."""
    if at is None:
        return "-"
    left = at.timestamp() - now()
    return f"in {duration(left)}" if left > 0 else f"{duration(-left)} ago"


def _passed(at: datetime | None, now: Now) -> str:
    return "-" if at is None else duration(now() - at.timestamp())


# Its log.


def log_line(line: LogLine) -> str:
    """A line of the log for people: when, and what."""
    return f"{_utc(line.at)}  {printable(line.text)}"


def log_line_as_json(line: LogLine) -> str:
    """A line of the log: `at` and `text`."""
    return json.dumps({"at": line.at.isoformat(), "text": line.text})


# The whole job.


def as_text(record: JobRecord, now: Now = time.time) -> str:
    """The whole record for people, in sections."""
    lines = _facts(record, now)
    lines += ["", "options", *_options(record)]
    lines += ["", "payload", *_value(record.payload_bytes)]
    if record.result_bytes is not None:
        lines += ["", "result", *_value(record.result_bytes)]
    if record.error:
        lines += ["", "error", *(f"  {printable(line)}" for line in record.error.splitlines())]
    if record.history:
        lines += ["", "history", *_history(record)]
    if record.log:
        lines += ["", "log", *_log(record)]
    return "\n".join(lines)


def _facts(record: JobRecord, now: Now) -> list[str]:
    facts = [
        ("id", record.id),
        ("topic", printable(record.topic)),
        ("group", printable(record.options.group or "")),
        ("unique key", printable(record.options.unique or "")),
        ("status", status(record)),
        ("weight", str(record.weight)),
        ("attempt", _attempts(record)),
        ("holder", printable(record.holder or "")),
        ("enqueued", moment(record.created, now)),
        ("due", moment(record.due, now)),
        ("deadline", moment(record.options.deadline, now)),
        ("reserved", moment(record.reserved_at, now)),
        ("lease until", moment(record.lease_until, now)),
        ("ended", moment(record.ended_at, now)),
        ("progress", _progress(record.progress, now)),
    ]
    return [f"{name:<13}{fact}" for name, fact in facts if fact]


def _attempts(record: JobRecord) -> str:
    counts = [("retries", record.retries), ("crashes", record.crashes), ("resets", record.resets)]
    return ", ".join([str(record.attempt), *(f"{name} {n}" for name, n in counts if n)])


def moment(at: datetime | None, now: Now = time.time) -> str:
    """A moment in UTC, and how far it is; empty if there is none."""
    if at is None:
        return ""
    return f"{_utc(at)}  {relative(at, now)}"


def _utc(at: datetime) -> str:
    return f"{at.replace(tzinfo=None).isoformat(' ', 'milliseconds')}Z"


def _progress(progress: Progress | None, now: Now) -> str:
    """How far it is, in parts of a hundred where that is known."""
    if progress is None:
        return ""
    done, total = progress.done, progress.total
    parts = [f"{done:g}" if total is None else f"{done:g} of {total:g}"]
    if total:
        parts.append(f"({done / total:.0%})")
    parts.append(printable(progress.text or ""))
    return f"{' '.join(filter(None, parts))}  {relative(progress.at, now)}"


def _options(record: JobRecord) -> Iterable[str]:
    """Each option that holds and is no fact already, and whether the job sets it itself."""
    own = record.options.as_dict()
    idle = set() if "unique" in own else {"unique_for", "on_conflict"} - own.keys()
    for name, value in record.effective.as_dict().items():
        if name in _FACTS or name in idle:
            continue
        shown = " ".join(value) if isinstance(value, tuple) else str(value)
        yield f"  {name:<13}{printable(shown)}{'' if name in own else '  (default)'}"


def _history(record: JobRecord) -> Iterator[str]:
    """An attempt a line: how it ended, when, how long it took, who had it, and the error."""
    if record.history_dropped:
        yield f"  … {record.history_dropped:,} older attempts are not kept"
    rows = []
    for attempt in record.history:
        took = (attempt.ended_at - attempt.reserved_at).total_seconds()
        last = shortened(printable(_last_line(attempt.error)), LONGEST_ABOUT)
        number, event, holder = str(attempt.attempt), str(attempt.event), attempt.holder
        ended = _utc(attempt.ended_at)
        rows.append([number, event, ended, duration(took), printable(holder), last])
    for line in Table((1, 2, 4, 5)).lines(rows):
        yield f"  {line}"


def _log(record: JobRecord) -> Iterator[str]:
    """The end of the log."""
    left_out = len(record.log) - LOG_TAIL
    if left_out > 0:
        yield f"  … {left_out:,} more lines before: `jobq jobs logs` has them"
    for line in record.log[-LOG_TAIL:]:
        yield f"  {log_line(line)}"


def _last_line(text: str | None) -> str:
    return (text or "").strip().rpartition("\n")[2].strip()


def _value(data: bytes) -> list[str]:
    # Not ASCII: people read it, and `printable` takes out what could steer the terminal.
    text = json.dumps(value_of(data), indent=2, ensure_ascii=False)
    lines = [f"  {printable(line)}" for line in text.splitlines()]
    if len(lines) > LONGEST_VALUE:
        left_out = len(lines) - LONGEST_VALUE
        lines = [*lines[:LONGEST_VALUE], f"  … {left_out:,} more lines: --json has all of it"]
    return lines
