"""Exported jobs as plain values, one dict a job, and back: what stands in a JSON Lines file.

The form is made to outlive formats on the disk: names instead of numbers, ISO 8601 instead of
microseconds, and payloads as they are wherever JSON gives back the same value. Where it does not
(bytes, datetimes, sets, integer keys, …), the packed bytes stand there in base64.

| line | fields |
|---|---|
| first | `kind` "queue", `version`, `exported`, `last_place` |
| if the store as a whole has settings | `kind` "store", `settings` |
| one for each topic with settings | `kind` "topic", `name`, `settings` |
| one for each job | `kind` "job", and what `JobCopy` has |
| last | `kind` "end", `jobs`: how many there were |
"""

import base64
import contextlib
import math
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Final, NamedTuple, TypeVar

from jobq import codec, ids
from jobq.clock import utc
from jobq.errors import InvalidValue, shown
from jobq.job import Attempt, JobCopy, LogLine, Progress
from jobq.options import MOST_COUNT, JobOptions, integer, several, text_in
from jobq.repo.base import Exportable, Store
from jobq.service.reports import amount
from jobq.service.specs import check_weight
from jobq.states import ENDS, Event, Outcome, Reason, Status
from jobq.topic import NO_SETTINGS, check_name, check_settings, check_store_settings

T = TypeVar("T")

VERSION: Final = 1
PAGE: Final = 500
"""Jobs of one read, and of one commit."""

MOST_BYTES: Final = 16 * 1024 * 1024
"""A commit of an import ends when its payloads reach this size."""

DEEPEST: Final = 32
"""Values that are nested deeper than this are written packed: JSON parsers differ in what they
bear."""

PLACES: Final = 1024
"""Places that are noted together, as bits: they mostly are close to one another."""

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_LAST: Final = datetime.max.replace(tzinfo=UTC)
_MOST: Final = 2**63 - 1


class Imported(NamedTuple):
    """What an import did.

    Attributes:
        jobs: How many were added.
        skipped: How many were there already, by id; they stay as they are.
    """

    jobs: int
    skipped: int


def export_jobs(store: Exportable) -> Iterator[dict[str, Any]]:
    """All jobs of a store, line by line; see the module."""
    page = store.export_jobs(None, PAGE)
    yield {
        "kind": "queue",
        "version": VERSION,
        "exported": datetime.now(UTC).isoformat(),
        "last_place": page.last_place,
    }
    if settings := _settings_of(store, None):
        yield {"kind": "store", "settings": settings}
    for name in store.topics():
        if settings := _settings_of(store, name):
            yield {"kind": "topic", "name": name, "settings": settings}
    jobs = 0
    while page.copies:
        for copy in page.copies:
            yield to_line(copy)
        jobs += len(page.copies)
        page = store.export_jobs(page.copies[-1].id, PAGE)
    yield {"kind": "end", "jobs": jobs}


def _settings_of(store: Exportable, topic: str | None) -> dict[str, Any]:
    """What is set for a topic, or for the store, as JSON gives it back."""
    settings = store.settings(topic).as_dict()
    return {
        name: list(value) if isinstance(value, tuple) else value for name, value in settings.items()
    }


def import_jobs(store: Store, lines: Iterable[Mapping[str, Any]]) -> Imported:
    """Add the jobs of an export.

    Raises:
        InvalidValue: A line is wrong, or the end is missing; what stood before is imported.
            Or *lines* is nothing to loop over.
    """
    given: Iterator[Mapping[str, Any]] | None = None
    if not isinstance(lines, str | bytes | Mapping):
        with contextlib.suppress(TypeError):
            given = iter(lines)
    if given is None:
        raise InvalidValue(f"lines is {shown(lines)}: expected several dicts, as json.loads gives")
    run = _Import(store)
    for number, line in enumerate(given, start=1):
        try:
            run.read(line)
        except InvalidValue as error:
            run.write()
            raise InvalidValue(f"line {number}: {error}") from error
    run.write()
    if not run.ended:
        raise InvalidValue(
            "the export is cut short: its last line is missing; the jobs before are imported, "
            "and importing it again, once it is whole, skips them"
        )
    return Imported(run.added, run.jobs - run.added)


class _Import:
    """One import under way.

    Attributes:
        jobs: How many jobs were read.
        added: How many of those that were written were new.
        ended: Whether the last line was read.
    """

    def __init__(self, store: Store) -> None:
        self.jobs = 0
        self.added = 0
        self.ended = False
        self._store = store
        self._last_place: int | None = None
        self._base: int | None = None
        self._places: dict[int, int] = {}
        self._copies: list[JobCopy] = []
        self._size = 0

    def read(self, line: Mapping[str, Any]) -> None:
        """Take a line; jobs are written as they become enough for a commit."""
        kind = _text(line, "kind")
        if self.ended:
            raise InvalidValue("this comes after the end")
        if self._last_place is None:
            if kind != "queue":
                raise InvalidValue(f"kind is {shown(kind)}: an export begins with 'queue'")
            if _integer(line, "version") != VERSION:
                raise InvalidValue(f"version is {line['version']}: this jobq reads {VERSION}")
            self._last_place = _integer(line, "last_place")
        elif kind == "topic":
            name = check_name(_text(line, "name"))
            self._configure(name, check_settings(_map(line, "settings")))
        elif kind == "store":
            self._configure(None, check_store_settings(_map(line, "settings")))
        elif kind == "job":
            self._add(from_line(line))
        elif kind == "end":
            if _integer(line, "jobs") != self.jobs:
                raise InvalidValue(f"jobs is {line['jobs']}, but {self.jobs} were there")
            self.ended = True
        else:
            raise InvalidValue(f"kind is {shown(kind)}: expected 'store', 'topic', 'job' or 'end'")

    def _configure(self, topic: str | None, settings: Mapping[str, Any]) -> None:
        """Take over what was set, unless something is set for the topic, or the store, here."""
        if self._store.settings(topic) == NO_SETTINGS:
            self._store.configure(topic, settings)

    def _add(self, copy: JobCopy) -> None:
        self._refuse_known_place(copy.place)
        self.jobs += 1
        self._copies.append(copy)
        self._size += len(copy.payload) + len(copy.result or b"")
        if len(self._copies) == PAGE or self._size >= MOST_BYTES:
            self.write()

    def _refuse_known_place(self, place: int) -> None:
        """Of two jobs of a topic and weight in one place, a queue would serve only one."""
        page, bit = divmod(place, PLACES)
        there = self._places.get(page, 0)
        if there >> bit & 1:
            raise InvalidValue(f"place is {place}: a job before it has that place")
        self._places[page] = there | 1 << bit

    def write(self) -> None:
        """Write what was read."""
        copies, self._copies, self._size = self._copies, [], 0
        if copies and self._last_place is not None:
            done = self._store.import_jobs(copies, self._last_place, self._base)
            self._base = done.base
            self.added += done.outcomes.count(Outcome.OK)


def to_line(copy: JobCopy) -> dict[str, Any]:
    """A job as plain values that JSON can hold.

    Raises:
        StoreCorrupt: Payload or result do not decode.
    """
    return {
        "kind": "job",
        "id": ids.to_text(copy.id),
        "topic": copy.topic,
        "status": copy.status.value,
        "reason": None if copy.reason is None else copy.reason.value,
        "weight": copy.weight,
        "place": copy.place,
        "attempt": copy.attempt,
        "token": copy.token,
        "retries": copy.retries,
        "crashes": copy.crashes,
        "resets": copy.resets,
        "created": _iso(copy.created_us),
        "until": _iso_or_none(copy.until_us),
        "reserved": _iso_or_none(copy.reserved_us),
        "ended": _iso_or_none(copy.ended_us),
        "options": copy.options.as_dict() | _listed(copy.options),
        **_value("payload", copy.payload),
        **({} if copy.result is None else _value("result", copy.result)),
        "error": copy.error,
        "history": [
            {
                "attempt": one.attempt,
                "event": one.event.value,
                "holder": one.holder,
                "reserved": _iso(one.reserved_us),
                "ended": _iso(one.ended_us),
                "error": one.error,
            }
            for one in copy.history
        ],
        "history_dropped": copy.history_dropped,
        "progress": None
        if copy.progress is None
        else {
            "done": copy.progress.done,
            "total": copy.progress.total,
            "text": copy.progress.text,
            "at": _iso(copy.progress.at_us),
        },
        "log": [{"at": _iso(line.at_us), "text": line.text} for line in copy.log],
        "log_dropped": copy.log_dropped,
    }


def from_line(line: Mapping[str, Any]) -> JobCopy:
    """The job that a line tells of; the reverse of `to_line`.

    Raises:
        InvalidValue: A field is missing or wrong, or some do not go together.
    """
    status = _one_of(Status, line, "status")
    reason = None if line.get("reason") is None else _one_of(Reason, line, "reason")
    until_us = _time_or_none(line, "until")
    if status is Status.RESERVED:
        raise InvalidValue("status is 'reserved': nobody can hold a job that is imported")
    if (reason is None) == (status is Status.CANCELED):
        raise InvalidValue(f"reason is {shown(reason)}: exactly canceled jobs have one")
    if _integer(line, "place") < 1:
        raise InvalidValue("place is 0: expected 1 or more")
    if (until_us is None) != (status is Status.READY):
        raise InvalidValue(f"until is {shown(until_us)}: all but ready jobs have one")
    progress = line.get("progress")
    return JobCopy(
        id=ids.to_raw(_text(line, "id")),
        topic=check_name(_text(line, "topic")),
        status=status,
        reason=reason,
        weight=check_weight(_field(line, "weight")),
        place=_integer(line, "place"),
        attempt=_integer(line, "attempt", MOST_COUNT),
        token=_integer(line, "token", MOST_COUNT),
        retries=_integer(line, "retries", MOST_COUNT),
        crashes=_integer(line, "crashes", MOST_COUNT),
        resets=_integer(line, "resets", MOST_COUNT),
        created_us=_time(line, "created"),
        until_us=until_us,
        reserved_us=_time_or_none(line, "reserved"),
        ended_us=_time_or_none(line, "ended"),
        options=_options(line),
        payload=_packed(line, "payload"),
        result=_packed(line, "result") if "result" in line or "result_msgpack" in line else None,
        error=_text_or_none(line, "error"),
        history=tuple(_attempt(one) for one in _maps(line, "history")),
        history_dropped=_integer(line, "history_dropped"),
        progress=None if progress is None else _progress(_map(line, "progress")),
        log=tuple(LogLine(_time(one, "at"), _text(one, "text")) for one in _maps(line, "log")),
        log_dropped=_integer(line, "log_dropped"),
    )


def _attempt(one: Mapping[str, Any]) -> Attempt:
    event = _one_of(Event, one, "event")
    if event not in ENDS:
        raise InvalidValue(f"event is {shown(event.value)}: expected one of {', '.join(ENDS)}")
    return Attempt(
        _integer(one, "attempt", MOST_COUNT),
        event,
        _text(one, "holder"),
        _time(one, "reserved"),
        _time(one, "ended"),
        _text_or_none(one, "error"),
    )


def _progress(one: Mapping[str, Any]) -> Progress:
    total = one.get("total")
    return Progress(
        amount("done", _field(one, "done")),
        None if total is None else amount("total", total),
        _text_or_none(one, "text"),
        _time(one, "at"),
    )


# Values.


def _value(name: str, packed: bytes) -> dict[str, Any]:
    """A field with a payload or result: as JSON if that gives back the same, or packed."""
    value = codec.unpack(packed)
    if is_json(value):
        return {name: value}
    return {f"{name}_msgpack": base64.b64encode(packed).decode()}


def is_json(value: Any, depth: int = DEEPEST) -> bool:
    """Whether *value* comes back from JSON as it is.

    >>> is_json({"to": ["ann", 1.5, None]}), is_json({1: "int key"}), is_json(b"bytes")
    (True, False, False)
    """
    kind = type(value)
    if kind is float:
        return math.isfinite(value)
    if kind is list:
        return depth > 0 and all(is_json(each, depth - 1) for each in value)
    if kind is dict:
        return depth > 0 and all(
            type(key) is str and is_json(each, depth - 1) for key, each in value.items()
        )
    return value is None or kind in {bool, int, str}


def _packed(line: Mapping[str, Any], name: str) -> bytes:
    if f"{name}_msgpack" not in line:
        return codec.pack(_field(line, name), limit=_MOST)
    text = _text(line, f"{name}_msgpack")
    try:
        data = base64.b64decode(text, validate=True)
        codec.unpack(data)
    except Exception as error:
        raise InvalidValue(f"{name}_msgpack is {shown(text)}: no packed value") from error
    return data


def _options(line: Mapping[str, Any]) -> JobOptions:
    options = dict(_map(line, "options"))
    if "deadline" in options:
        options["deadline"] = utc(_time(options, "deadline"))
    return JobOptions.of(options)


def _listed(options: JobOptions) -> dict[str, Any]:
    return {} if options.tags is None else {"tags": list(options.tags)}


# Fields.


def _field(line: Mapping[str, Any], name: str) -> Any:
    if not issubclass(type(line), Mapping):
        raise InvalidValue(f"{shown(line)} is no object with fields")
    if name not in line:
        raise InvalidValue(f"{name} is missing")
    return line[name]


def _integer(line: Mapping[str, Any], name: str, most: int = 2**62) -> int:
    return integer(name, _field(line, name), 0, most)


def _text(line: Mapping[str, Any], name: str) -> str:
    value = _field(line, name)
    text = text_in(value)
    if text is None:
        raise InvalidValue(f"{name} is {shown(value)}: expected text")
    return text.encode(errors="backslashreplace").decode()


def _text_or_none(line: Mapping[str, Any], name: str) -> str | None:
    return None if line.get(name) is None else _text(line, name)


def _map(line: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    value = _field(line, name)
    if not issubclass(type(value), Mapping):
        raise InvalidValue(f"{name} is {shown(value)}: expected an object")
    found: Mapping[str, Any] = value
    return found


def _maps(line: Mapping[str, Any], name: str) -> list[Mapping[str, Any]]:
    value = _field(line, name)
    maps = several(name, value, "objects") if issubclass(type(value), list) else None
    if maps is None or not all(issubclass(type(one), Mapping) for one in maps):
        raise InvalidValue(f"{name} is {shown(value)}: expected a list of objects")
    return maps


def _one_of(kind: type[T], line: Mapping[str, Any], name: str) -> T:
    value = _text(line, name)
    try:
        return kind(value)  # type: ignore[call-arg] # each of them is an enum of texts
    except ValueError as error:
        raise InvalidValue(f"{name} is {shown(value)}: expected a {kind.__name__}") from error


def _time(line: Mapping[str, Any], name: str) -> int:
    value = _text(line, name)
    try:
        at = datetime.fromisoformat(value)
    except ValueError as error:
        raise InvalidValue(f"{name} is {shown(value)}: expected an ISO 8601 time") from error
    if at.tzinfo is None or not _EPOCH <= at <= _LAST:  # in UTC it may be of the year 10000
        raise InvalidValue(
            f"{name} is {shown(value)}: expected a time with its zone, since 1970, up to 9999"
        )
    return (at - _EPOCH) // timedelta(microseconds=1)


def _time_or_none(line: Mapping[str, Any], name: str) -> int | None:
    return None if line.get(name) is None else _time(line, name)


def _iso(at_us: int) -> str:
    return utc(at_us).isoformat()


def _iso_or_none(at_us: int | None) -> str | None:
    return None if at_us is None else _iso(at_us)
