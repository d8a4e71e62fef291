"""The options of a job: the one list that enqueue, records and documents read.

An option that is not set is None; the job is stored with what its caller and its service set,
and the rest has the defaults of `DEFAULTS`.
"""

import contextlib
import math
import os
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final, Literal, TypedDict

from jobq.clock import utc
from jobq.errors import InvalidValue, shown

LONGEST_S: Final = 100 * 365 * 86400.0
"""The longest duration that jobq takes, in seconds: a hundred years.

It keeps every sum of a clock and a duration far inside 64 bits of microseconds.
"""
MOST_COUNT: Final = 2**31 - 1
EPOCH: Final = utc(0)
LATEST: Final = datetime(9999, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)
LONGEST_NAME: Final = 255
LONGEST_PATH: Final = 4096
"""No system call of Linux takes a longer one."""
MOST_TAGS: Final = 32

UniqueFor = Literal["waiting", "unfinished"]
"""How long a job has its unique key: while it waits, or until it is finished."""

OnConflict = Literal["return", "replace", "raise"]
"""What becomes of a job whose unique key another one has."""


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
    group: str | None
    unique: str | None
    unique_for: UniqueFor | float | timedelta | None
    on_conflict: OnConflict | None
    deadline: datetime | None
    ttl: float | None


@dataclass(frozen=True)
class JobOptions:
    """How one job is treated. None means: not set here, the next one down decides.

    The order is: the job's own options, the service's, `DEFAULTS`. Without slots: so one can be
    made of what is set alone (`from_checked`), for each job that is read; nothing else stands in
    its `__dict__`.

    Attributes:
        lease: Seconds that a reservation lasts unless extended; more than 0.
        max_retries: How often `retry` may bring the job back; 0 means not at all. Crashes of
            holders never count.
        min_backoff: Seconds before the first retry; 0 or more.
        max_backoff: The longest wait before a retry, in seconds; at least `min_backoff`, wherever
            that is set.
        factor: By what the wait grows from retry to retry; 1 or more.
        jitter: The wait is varied by this fraction up and down; 0 to 1.
        max_crashes: How often a holder of the job may die or overrun its lease before the job
            is canceled as poison; 0 means without limit.
        retention: Seconds for which the finished job is kept; 0 forgets it at once. Unset, the
            store decides by how it ended.
        name: A label to find the job by; at most 255 UTF-8 bytes. Not unique.
        tags: Labels; at most 32, each at most 255 UTF-8 bytes.
        group: The group within its topic: groups are served in turn, and may be limited; at most
            255 UTF-8 bytes.
        unique: A key that no other job has at the same time, in the whole store; at most 255
            UTF-8 bytes.
        unique_for: How long the job has its key: `waiting` until it is handed out, `unfinished`
            until it is done or canceled, or seconds from the enqueue, whatever becomes of it.
        on_conflict: What to do if another job has the key: `return` its id and add nothing,
            `replace` its payload, weight, options and, if one is given, delay, or `raise`.
        deadline: When it is canceled as expired unless it was handed out; aware. What a holder
            has goes on, but is not retried after it.
        ttl: Seconds to that moment from the enqueue, or from the edit or the reset that gives it;
            the earlier of the two holds. More than 0.
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
    group: str | None = None
    unique: str | None = None
    unique_for: UniqueFor | float | None = None
    on_conflict: OnConflict | None = None
    deadline: datetime | None = None
    ttl: float | None = None

    def __post_init__(self) -> None:
        values = self.__dict__
        for name in [name for name, value in values.items() if value is None]:
            del values[name]  # its default is the class's

    # As generated, these two would look at every option, set or not.

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, JobOptions):
            return NotImplemented
        return self.__dict__ == other.__dict__

    def __hash__(self) -> int:
        return hash(frozenset(self.__dict__.items()))

    @classmethod
    def of(cls, args: Mapping[str, Any]) -> "JobOptions":
        """The options in *args*, checked.

        >>> JobOptions.of({"lease": 30}).lease
        30.0

        Raises:
            InvalidValue: An option is unknown, of the wrong type or out of range.
        """
        if type(args) is not dict and not issubclass(type(args), Mapping):
            raise InvalidValue(f"options are {shown(args)}: expected a dict of them")
        if not args:
            return UNSET
        checked: dict[str, Any] = {}
        for name, value in args.items():
            check = _CHECKS.get(name)
            if check is None:
                known = ", ".join(_CHECKS)
                raise InvalidValue(f"unknown option {shown(name)}: expected one of {known}")
            if value is not None:
                checked[name] = check(name, value)
        if len(checked) > 1:
            checked = {name: checked[name] for name in _CHECKS if name in checked}
        options = cls.from_checked(checked)
        check_backoff(options.min_backoff, options.max_backoff)
        return options

    @classmethod
    def from_checked(cls, values: Mapping[str, Any]) -> "JobOptions":
        """The options that have these values, in the order of the fields: checked, and no None.

        As `JobOptions(**values)`, in an eighth of the time.

        >>> JobOptions.from_checked({"group": "a"}) == JobOptions(group="a")
        True
        """
        options = object.__new__(cls)
        options.__dict__.update(values)  # what is not there has its default from the class
        return options

    def over(self, below: "JobOptions") -> "JobOptions":
        """These options, and where one is not set, that of *below*."""
        if below is UNSET or below == UNSET:
            return self
        if self is UNSET:
            return below
        chosen = below.given() | self.given()
        return self.from_checked({name: chosen[name] for name in _CHECKS if name in chosen})

    @property
    def lease_us(self) -> int | None:
        """The lease in microseconds, at least one; None if it is not set."""
        return None if self.lease is None else math.ceil(self.lease * 1_000_000)

    @property
    def retention_us(self) -> int | None:
        """The retention in microseconds; None if it is not set."""
        return None if self.retention is None else math.ceil(self.retention * 1_000_000)

    @property
    def deadline_us(self) -> int | None:
        """The deadline in microseconds UTC; None if it is not set."""
        return None if self.deadline is None else (self.deadline - EPOCH) // _MICROSECOND

    @property
    def has_terms(self) -> bool:
        """Whether the job has anything that its life has to be watched for beyond its state."""
        return not (self.group is None and self.unique is None and self.deadline is None)

    def given(self) -> dict[str, Any]:
        """The options that are set, by name, as they are."""
        return self.__dict__.copy()

    def as_dict(self) -> dict[str, Any]:
        """The options that are set, by name; the deadline as ISO 8601 text."""
        found = self.given()
        if self.deadline is not None:
            found["deadline"] = self.deadline.isoformat()
        return found


# What callers give may be of a subclass that answers differently from what it holds: an enum, a
# number of some library, a mock. So it is taken for what it holds, before it is looked at.


def number_in(value: object) -> int | float | None:
    """The number that *value* holds, as an int or float itself; None if it is none (as a bool).

    >>> number_in(5), number_in(True), number_in("5")
    (5, None, None)
    """
    kind = type(value)
    if kind is int or kind is float:
        return value  # type: ignore[return-value]
    if kind is not bool and issubclass(kind, int):
        return int.__index__(value)  # type: ignore[arg-type]
    return float.__float__(value) if issubclass(kind, float) else None  # type: ignore[arg-type]


def text_in(value: object) -> str | None:
    """The text that *value* holds, as a str itself; None if it is none.

    >>> text_in("mail"), text_in(b"mail")
    ('mail', None)
    """
    # Not `isinstance`, which believes what an object says of its class.
    return str.__str__(value) if issubclass(type(value), str) else None


def flag(name: str, value: object) -> bool:
    """*value* as a bool.

    Raises:
        InvalidValue: It is neither True nor False.
    """
    if value is not True and value is not False:
        raise InvalidValue(f"{name} is {shown(value)}: expected True or False")
    return value


def seconds(name: str, value: object, *, least: float = 0.0, above: bool = False) -> float:
    """*value* as a float number of seconds.

    Raises:
        InvalidValue: Not a number, NaN, infinite, below *least* (or, with *above*, not above
            it), or longer than `LONGEST_S`.
    """
    exact = number_in(value)
    if exact is None:
        raise InvalidValue(f"{name} is {shown(value)}: expected a number of seconds")
    try:
        number = float(exact)
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
    if type(values) is list:  # as mostly
        return values.copy()
    found: Iterator[Any] | None = None
    if isinstance(values, Iterable) and not isinstance(values, str | bytes | bytearray | Mapping):
        with contextlib.suppress(TypeError):  # it says that it is several, and is not
            found = iter(values)
    if found is None:
        raise InvalidValue(f"{name} is {shown(values)}: expected several {what}")
    return list(found)


def seconds_in(value: object) -> object:
    """The seconds of a timedelta; all else as it is.

    >>> seconds_in(timedelta(minutes=1)), seconds_in(5)
    (60.0, 5)
    """
    if issubclass(type(value), timedelta):
        return timedelta.total_seconds(value)  # type: ignore[arg-type]
    return value


def integer(name: str, value: object, low: int, high: int) -> int:
    """*value* as an int from *low* to *high*, both included.

    Raises:
        InvalidValue: Not an int (a bool is none), or out of range.
    """
    number = number_in(value)
    if type(number) is not int:
        raise InvalidValue(f"{name} is {shown(value)}: expected an integer")
    if not low <= number <= high:
        raise InvalidValue(f"{name} is {shown(value)}: expected {low} to {high}")
    return number


def text(name: str, value: object, *, longest: int = LONGEST_NAME) -> str:
    """*value* as text of 1 to *longest* UTF-8 bytes.

    Raises:
        InvalidValue: Not a str, empty, too long, or not encodable (lone surrogates).
    """
    held = text_in(value)
    if held is None:
        raise InvalidValue(f"{name} is {shown(value)}: expected text")
    try:
        size = len(held.encode())
    except UnicodeEncodeError as error:
        raise InvalidValue(
            f"{name} is {shown(value)}: expected text that UTF-8 can encode"
        ) from error
    if not 1 <= size <= longest:
        raise InvalidValue(
            f"{name} is {shown(value)} ({size} bytes of UTF-8): expected 1 to {longest}"
        )
    return held


def _lease(name: str, value: object) -> float:
    return seconds(name, value, above=True)


def _count(name: str, value: object) -> int:
    return integer(name, value, 0, MOST_COUNT)


def _ratio(name: str, value: object, low: float, high: float) -> float:
    number = number_in(value)
    if number is None:
        raise InvalidValue(f"{name} is {shown(value)}: expected a number")
    if not low <= number <= high:  # also refuses NaN, which compares false
        raise InvalidValue(f"{name} is {shown(value)}: expected {low:g} to {high:g}")
    return float(number)


def factor(name: str, value: object) -> float:
    """*value* as what a wait grows by.

    Raises:
        InvalidValue: No number, or not from 1 to 1000.
    """
    return _ratio(name, value, 1.0, 1000.0)


def jitter(name: str, value: object) -> float:
    """*value* as the fraction that a wait is varied by.

    Raises:
        InvalidValue: No number, or not from 0 to 1.
    """
    return _ratio(name, value, 0.0, 1.0)


def check_backoff(low: float | None, high: float | None) -> None:
    """That the first wait before a retry is no longer than the longest, where both are set.

    Raises:
        InvalidValue: It is.
    """
    if low is not None and high is not None and low > high:
        raise InvalidValue(f"min_backoff {low!r} is more than max_backoff {high!r}")


def _tags(name: str, value: object) -> tuple[str, ...]:
    if not issubclass(type(value), list | tuple | set | frozenset):
        raise InvalidValue(f"{name} is {shown(value)}: expected a list or tuple of texts")
    tags = several(name, value, "texts")
    if len(tags) > MOST_TAGS:
        raise InvalidValue(f"{name} has {len(tags)} entries: expected at most {MOST_TAGS}")
    return tuple(sorted({text("a tag", tag) for tag in tags}))


def _unique_for(name: str, value: object) -> UniqueFor | float:
    word = text_in(value)
    if word == "waiting":
        return "waiting"
    if word == "unfinished":
        return "unfinished"
    if word is not None:
        raise InvalidValue(
            f"{name} is {shown(value)}: expected 'waiting', 'unfinished' or a number of seconds"
        )
    return seconds(name, seconds_in(value), above=True)


def check_path(name: str, value: object, expected: str = "a path") -> str:
    """A path of a file or a directory.

    >>> check_path("path", "./queue")
    './queue'

    Raises:
        InvalidValue: It is none.
    """
    path = None
    with contextlib.suppress(TypeError):  # it says that it is one, and is not
        path = text_in(os.fspath(value))  # type: ignore[call-overload]
    if not path or "\0" in path or len(path) > LONGEST_PATH:
        raise InvalidValue(f"{name} is {shown(value)}: expected {expected}")
    try:
        os.fsencode(path)
    except UnicodeEncodeError as error:
        raise InvalidValue(
            f"{name} is {shown(value)}: expected {expected}, that the system can encode"
        ) from error
    return path


def one_of(name: str, value: object, known: Collection[str]) -> str:
    """*value*, if it is one of the texts in *known*.

    Raises:
        InvalidValue: It is not.
    """
    word = text_in(value)
    if word is None or word not in known:
        listed = ", ".join(repr(one) for one in known)
        raise InvalidValue(f"{name} is {shown(value)}: expected one of {listed}")
    return word


def _on_conflict(name: str, value: object) -> str:
    return one_of(name, value, ("return", "replace", "raise"))


def _deadline(name: str, value: object) -> datetime:
    """An aware moment that 64 bits of microseconds since 1970 can hold, in UTC."""
    since: timedelta | None = None
    if issubclass(type(value), datetime):
        # A naive one, or one whose zone, which is user code, fails in any way, cannot be told.
        with contextlib.suppress(Exception):
            since = datetime.__sub__(value, EPOCH)  # type: ignore[operator]
    if since is None:
        raise InvalidValue(f"{name} is {shown(value)}: expected a datetime with a time zone")
    if not timedelta(0) < since < LATEST - EPOCH:
        raise InvalidValue(f"{name} is {shown(value)}: expected one of the years 1970 to 9998")
    return EPOCH + since


_CHECKS: Final[Mapping[str, Callable[[str, object], object]]] = {
    "lease": _lease,
    "max_retries": _count,
    "min_backoff": seconds,
    "max_backoff": seconds,
    "factor": factor,
    "jitter": jitter,
    "max_crashes": _count,
    "retention": seconds,
    "name": text,
    "tags": _tags,
    "group": text,
    "unique": text,
    "unique_for": _unique_for,
    "on_conflict": _on_conflict,
    "deadline": _deadline,
    "ttl": _lease,
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
    unique_for="unfinished",
    on_conflict="return",
)
"""What holds where neither the job nor the service says otherwise.

`retention`, `name`, `tags`, `group`, `unique`, `deadline` and `ttl` have no default: unset
retention is the store's to decide.
"""
