"""From the filters that callers name to a selector: checked before anything is looked for."""

from collections.abc import Callable, Iterable, Mapping
from enum import StrEnum
from typing import Any, Final, TypedDict, TypeVar

from jobq.errors import InvalidValue, shown
from jobq.options import flag, several, text, text_in
from jobq.selector import ALL_JOBS, Selector
from jobq.service.specs import Delay, delay_us
from jobq.states import Reason, Status
from jobq.topic import check_name

Kind = TypeVar("Kind", bound=StrEnum)

LONGEST_ERROR: Final = 4096
"""Bytes of UTF-8 that can be looked for in errors."""


class Filters(TypedDict, total=False):
    """Which jobs are meant: those that fit all that is given. None is as if it were not given.

    Attributes:
        topic: Only jobs of this topic.
        status: Only jobs in this state, or in one of these.
        name: Only jobs that were given this name.
        tag: Only jobs that have this tag, or all of these.
        group: Only jobs of this group.
        unique: Only jobs that were given this unique key, whether or not they hold it now.
        reason: Only jobs that are canceled for this reason, or for one of these.
        dead: Only dead letters: jobs that are canceled for any reason but `canceled`. False:
            only jobs that are none.
        error: Only jobs whose error has this text in it: what was said last of a failure, as
            `JobRecord.error` has it, traceback and all; in the same case.
        older_than: Only jobs that were enqueued at least so many seconds ago (or a timedelta), by
            the wall clock; a reset or a move does not make a job younger.
    """

    topic: str | None
    status: Status | str | Iterable[Status | str] | None
    name: str | None
    tag: str | Iterable[str] | None
    group: str | None
    unique: str | None
    reason: Reason | str | Iterable[Reason | str] | None
    dead: bool | None
    error: str | None
    older_than: Delay | None


def selector_of(filters: Mapping[str, Any]) -> Selector:
    """The selector for what callers give.

    Raises:
        InvalidValue: A filter is unknown or wrong.
    """
    checked: dict[str, Any] = {}
    for name, value in filters.items():
        known = _CHECKS.get(name)
        if known is None:
            raise InvalidValue(
                f"unknown filter {shown(name)}: expected one of {', '.join(_CHECKS)}"
            )
        if value is not None:
            field, check = known
            checked[field] = check(name, value)
    return Selector(**checked) if checked else ALL_JOBS


def one_of(kind: type[Kind], name: str, value: Any) -> Kind:
    """*value* as a member of *kind*, which its text may stand for.

    Raises:
        InvalidValue: There is no such member.
    """
    word = text_in(value)
    if word is None or word not in kind.__members__.values():
        raise InvalidValue(f"{name} is {shown(value)}: expected one of {', '.join(kind)}")
    return kind(word)


def _some_of(kind: type[Kind]) -> Callable[[str, object], frozenset[Kind]]:
    def check(name: str, value: object) -> frozenset[Kind]:
        if isinstance(value, str) or not isinstance(value, Iterable):
            return frozenset({one_of(kind, name, value)})
        found = frozenset(one_of(kind, name, one) for one in several(name, value, "of them"))
        if not found:
            raise InvalidValue(f"{name} is empty: expected one of {', '.join(kind)}")
        return found

    return check


def _tags(name: str, value: object) -> frozenset[str]:
    if isinstance(value, str) or not isinstance(value, Iterable):
        return frozenset({text(name, value)})
    found = frozenset(text(name, one) for one in several(name, value, "tags"))
    if not found:
        raise InvalidValue(f"{name} is empty: expected a tag, or several")
    return found


_CHECKS: Final[Mapping[str, tuple[str, Callable[[str, Any], object]]]] = {
    "topic": ("topic", lambda _, value: check_name(value)),
    "status": ("statuses", _some_of(Status)),
    "name": ("name", text),
    "tag": ("tags", _tags),
    "group": ("group", text),
    "unique": ("unique", text),
    "reason": ("reasons", _some_of(Reason)),
    "dead": ("dead", flag),
    "error": ("error", lambda name, value: text(name, value, longest=LONGEST_ERROR)),
    "older_than": ("older_than_us", lambda name, value: delay_us(value, name)),
}
"""By what callers call it: the field of the selector, and what checks its value."""

FILTERS: Final = tuple(_CHECKS)
"""The names of all filters."""
