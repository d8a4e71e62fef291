"""Topics: their names, their settings and their counts."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, Final, TypedDict

from jobq.errors import InvalidValue, shown
from jobq.options import integer, seconds, text
from jobq.states import Status

LONGEST_NAME: Final = 255
MOST_DONE: Final = 2**40


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
    """

    keep_done: float | None = None
    keep_canceled: float | None = None
    max_done: int | None = None

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


_CHECKS: Final[Mapping[str, Callable[[str, object], object]]] = {
    "keep_done": seconds,
    "keep_canceled": seconds,
    "max_done": lambda name, value: integer(name, value, 0, MOST_DONE),
}


@dataclass(frozen=True, slots=True)
class TopicStats:
    """How many jobs of one topic are in each state; kept with every change, never scanned."""

    name: str
    ready: int = 0
    delayed: int = 0
    reserved: int = 0
    done: int = 0
    canceled: int = 0

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
