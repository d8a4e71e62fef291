"""The options of a job: the one list that enqueue, records and documents read.

An option that is not set is None; the job is stored with what its caller and its service set,
and the rest has the defaults of `DEFAULTS`.
"""

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields
from typing import Any, Final, TypedDict

from jobq.errors import InvalidValue, shown

LONGEST_S: Final = 100 * 365 * 86400.0
"""The longest duration that jobq takes, in seconds: a hundred years.

It keeps every sum of a clock and a duration far inside 64 bits of microseconds.
"""
MOST_COUNT: Final = 2**31 - 1
LONGEST_NAME: Final = 255
MOST_TAGS: Final = 32


class OptionArgs(TypedDict, total=False):
    """The keyword options that `enqueue` and its relatives take; see `JobOptions`."""

    lease: float | None
    max_retries: int | None
    min_backoff: float | None
    max_backoff: float | None
    factor: float | None
    jitter: float | None
    max_crashes: int | None
    retention: float | None
    name: str | None
    tags: tuple[str, ...] | list[str] | None


@dataclass(frozen=True, slots=True)
class JobOptions:
    """How one job is treated. None means: not set here, the next one down decides.

    The order is: the job's own options, the service's, `DEFAULTS`.

    Attributes:
        lease: Seconds that a reservation lasts unless extended; more than 0.
        max_retries: How often `retry` may bring the job back; 0 means not at all. Crashes of
            holders never count.
        min_backoff: Seconds before the first retry; 0 or more.
        max_backoff: The longest wait before a retry, in seconds.
        factor: By what the wait grows from retry to retry; 1 or more.
        jitter: The wait is varied by this fraction up and down; 0 to 1.
        max_crashes: How often a holder of the job may die or overrun its lease before the job
            is canceled as poison; 0 means without limit.
        retention: Seconds for which the finished job is kept; 0 forgets it at once. Unset, the
            store decides by how it ended.
        name: A label to find the job by; at most 255 UTF-8 bytes. Not unique.
        tags: Labels; at most 32, each at most 255 UTF-8 bytes.
    """

    lease: float | None = None
    max_retries: int | None = None
    min_backoff: float | None = None
    max_backoff: float | None = None
    factor: float | None = None
    jitter: float | None = None
    max_crashes: int | None = None
    retention: float | None = None
    name: str | None = None
    tags: tuple[str, ...] | None = None

    @classmethod
    def of(cls, args: Mapping[str, Any]) -> "JobOptions":
        """The options in *args*, checked.

        >>> JobOptions.of({"lease": 30}).lease
        30.0

        Raises:
            InvalidValue: An option is unknown, of the wrong type or out of range.
        """
        if not args:
            return UNSET
        checked = {}
        for name, value in args.items():
            check = _CHECKS.get(name)
            if check is None:
                known = ", ".join(_CHECKS)
                raise InvalidValue(f"unknown option {shown(name)}: expected one of {known}")
            checked[name] = None if value is None else check(name, value)
        options = cls(**checked)  # type: ignore[arg-type] # each value as its check gave it
        low, high = options.min_backoff, options.max_backoff
        if low is not None and high is not None and low > high:
            raise InvalidValue(f"min_backoff {low!r} is more than max_backoff {high!r}")
        return options

    def over(self, below: "JobOptions") -> "JobOptions":
        """These options, and where one is not set, that of *below*."""
        if below is UNSET or below == UNSET:
            return self
        if self is UNSET:
            return below
        chosen = {}
        for field in fields(self):
            mine = getattr(self, field.name)
            chosen[field.name] = getattr(below, field.name) if mine is None else mine
        return JobOptions(**chosen)

    @property
    def lease_us(self) -> int | None:
        """The lease in microseconds, at least one; None if it is not set."""
        return None if self.lease is None else math.ceil(self.lease * 1_000_000)

    @property
    def retention_us(self) -> int | None:
        """The retention in microseconds; None if it is not set."""
        return None if self.retention is None else math.ceil(self.retention * 1_000_000)

    def as_dict(self) -> dict[str, Any]:
        """The options that are set, by name; what records hold."""
        found = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: value for name, value in found.items() if value is not None}


def seconds(name: str, value: object, *, least: float = 0.0, above: bool = False) -> float:
    """*value* as a float number of seconds.

    Raises:
        InvalidValue: Not a number, NaN, infinite, below *least* (or, with *above*, not above
            it), or longer than `LONGEST_S`.
    """
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InvalidValue(f"{name} is {shown(value)}: expected a number of seconds")
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number) or number > LONGEST_S:
        raise InvalidValue(f"{name} is {shown(value)}: expected at most {LONGEST_S:.0f} seconds")
    if number < least or (above and number == least):
        bound = "more than" if above else "at least"
        raise InvalidValue(f"{name} is {shown(value)}: expected {bound} {least:g} seconds")
    return number


def several(name: str, values: object, what: str) -> list[Any]:
    """*values* as a list.

    Raises:
        InvalidValue: It is not several, but one: a text, bytes, a map, or nothing to loop over.
    """
    if isinstance(values, str | bytes | bytearray | Mapping) or not isinstance(values, Iterable):
        raise InvalidValue(f"{name} is {shown(values)}: expected several {what}")
    return list(values)


def integer(name: str, value: object, low: int, high: int) -> int:
    """*value* as an int from *low* to *high*, both included.

    Raises:
        InvalidValue: Not an int (a bool is none), or out of range.
    """
    if isinstance(value, bool) or not isinstance(value, int):
        raise InvalidValue(f"{name} is {shown(value)}: expected an integer")
    if not low <= value <= high:
        raise InvalidValue(f"{name} is {shown(value)}: expected {low} to {high}")
    return int(value)


def text(name: str, value: object, *, longest: int = LONGEST_NAME) -> str:
    """*value* as text of 1 to *longest* UTF-8 bytes.

    Raises:
        InvalidValue: Not a str, empty, too long, or not encodable (lone surrogates).
    """
    if not isinstance(value, str):
        raise InvalidValue(f"{name} is {shown(value)}: expected text")
    try:
        size = len(value.encode())
    except UnicodeEncodeError as error:
        raise InvalidValue(
            f"{name} is {shown(value)}: expected text that UTF-8 can encode"
        ) from error
    if not 1 <= size <= longest:
        raise InvalidValue(
            f"{name} is {shown(value)} ({size} bytes of UTF-8): expected 1 to {longest}"
        )
    return str.__str__(value)  # of a subclass, the text that it equals


def _lease(name: str, value: object) -> float:
    return seconds(name, value, above=True)


def _count(name: str, value: object) -> int:
    return integer(name, value, 0, MOST_COUNT)


def _ratio(name: str, value: object, low: float, high: float) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InvalidValue(f"{name} is {shown(value)}: expected a number")
    if not low <= value <= high:  # also refuses NaN, which compares false
        raise InvalidValue(f"{name} is {shown(value)}: expected {low:g} to {high:g}")
    return float(value)


def _factor(name: str, value: object) -> float:
    return _ratio(name, value, 1.0, 1000.0)


def _jitter(name: str, value: object) -> float:
    return _ratio(name, value, 0.0, 1.0)


def _tags(name: str, value: object) -> tuple[str, ...]:
    if isinstance(value, str) or not isinstance(value, list | tuple | set | frozenset):
        raise InvalidValue(f"{name} is {shown(value)}: expected a list or tuple of texts")
    if len(value) > MOST_TAGS:
        raise InvalidValue(f"{name} has {len(value)} entries: expected at most {MOST_TAGS}")
    return tuple(sorted({text("a tag", tag) for tag in value}))


_CHECKS: Final[Mapping[str, Callable[[str, object], object]]] = {
    "lease": _lease,
    "max_retries": _count,
    "min_backoff": seconds,
    "max_backoff": seconds,
    "factor": _factor,
    "jitter": _jitter,
    "max_crashes": _count,
    "retention": seconds,
    "name": text,
    "tags": _tags,
}

SECONDS: Final = frozenset(name for name, check in _CHECKS.items() if check in (seconds, _lease))
"""The options that are durations, in seconds."""

UNSET: Final = JobOptions()

DEFAULTS: Final = JobOptions(
    lease=600.0,
    max_retries=20,
    min_backoff=1.0,
    max_backoff=3600.0,
    factor=2.0,
    jitter=0.1,
    max_crashes=5,
)
"""What holds where neither the job nor the service says otherwise.

`retention`, `name` and `tags` have no default: unset retention is the store's to decide.
"""
