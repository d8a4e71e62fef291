"""Which jobs a verb is about: filters that `list` and the verbs on many jobs share.

The verbs get them as a dict, as `JobService.select` takes them: only those that were given.
"""

from collections.abc import Callable, Iterable
from functools import wraps
from typing import Any, Final, cast

import click

from jobq.cli.context import Verb
from jobq.cli.options import duration
from jobq.service import JobService, Selection
from jobq.states import Reason, Status

Filters = dict[str, Any]

_STATUS: Final = click.Choice([status.value for status in Status])
_REASON: Final = click.Choice([reason.value for reason in Reason])

_OPTIONS: Final = {
    "topic": click.option("--topic", "-t", help="Only jobs of this topic."),
    "status": click.option(
        "--status",
        "-s",
        type=_STATUS,
        multiple=True,
        help="Only jobs in this state; may be given several times.",
    ),
    "name": click.option("--name", help="Only jobs that were given this name."),
    "tag": click.option(
        "--tag",
        multiple=True,
        help="Only jobs that have this tag; given several times, those that have all of them.",
    ),
    "group": click.option("--group", help="Only jobs of this group."),
    "unique": click.option("--unique", help="Only jobs that were given this unique key."),
    "reason": click.option(
        "--reason",
        type=_REASON,
        multiple=True,
        help="Only jobs canceled for this reason; may be given several times.",
    ),
    "dead": click.option(
        "--dead", is_flag=True, default=None, help="Only dead letters: not canceled by somebody."
    ),
    "error": click.option(
        "--with-error", metavar="TEXT", help="Only jobs whose error has this in it."
    ),
    "older_than": click.option(
        "--older-than",
        type=duration,
        metavar="DURATION",
        help="Only jobs enqueued at least so long ago.",
    ),
}
"""By the filters of `JobService.select`."""

_ARGUMENT: Final = {"error": "with_error"}
"""What click calls the value of a filter, where it is not the filter's name: `--error` is what
`jobq jobs cancel` gives to jobs."""

_SEVERAL: Final = {"status": _STATUS, "tag": None, "reason": _REASON}
"""Filters that may be given several times, and what they may be."""

NAMES: Final = (
    ", ".join(f"--{_ARGUMENT.get(name, name).replace('_', '-')}" for name in _OPTIONS) + " or --all"
)
"""Filters as a person is told of them who has given none."""


def filter_options(*without: str) -> Callable[[Verb], Verb]:
    """An option for each filter but those; the verb gets them as one `filters`."""
    options = {name: option for name, option in _OPTIONS.items() if name not in without}

    def decorate(command: Verb) -> Verb:
        @wraps(command)
        def with_filters(*args: Any, **more: Any) -> Any:
            given = {name: more.pop(_ARGUMENT.get(name, name)) for name in options}
            return command(*args, filters=_given(given), **more)

        for option in reversed(options.values()):
            with_filters = option(with_filters)
        return cast("Verb", with_filters)

    return decorate


def where_option(command: Verb) -> Verb:
    """`--where`, for a verb whose options would be taken for filters; it gets `filters`."""

    @click.option(
        "--where",
        metavar="FILTER",
        multiple=True,
        help="Instead of IDs: topic=…, status=…, name=…, tag=…, group=…, unique=…, error=…, "
        "older-than=…; may be given several times.",
    )
    @wraps(command)
    def with_where(*args: Any, where: tuple[str, ...], **more: Any) -> Any:
        return command(*args, filters=_parsed(where), **more)

    return cast("Verb", with_where)


def selection_of(svc: JobService, filters: Filters) -> Selection:
    """The jobs that fit the filters; all without any."""
    return svc.select(**filters) if filters else svc.select(everything=True)


def _given(filters: Filters) -> Filters:
    return {name: value for name, value in filters.items() if value not in (None, ())}


def _parsed(where: Iterable[str]) -> Filters:
    """What texts like `topic=mail` say.

    Raises:
        click.BadParameter: A text is no filter, or one that stands once is there twice.
    """
    found: Filters = {}
    for text in where:
        field, is_given, value = text.partition("=")
        name = field.replace("-", "_")
        if name not in _OPTIONS or not (is_given or name == "dead"):
            known = ", ".join(name.replace("_", "-") for name in _OPTIONS)
            raise click.BadParameter(f"{text!r}: expected FILTER=VALUE, FILTER one of {known}")
        if name in _SEVERAL:
            kind = _SEVERAL[name]
            found[name] = (*found.get(name, ()), kind.convert(value, None, None) if kind else value)
            continue
        if name in found:
            raise click.BadParameter(f"{field} is given twice")
        found[name] = _value(name, value)
    return found


def _value(name: str, value: str) -> Any:
    if name == "dead":
        return click.BOOL.convert(value or "true", None, None)
    return duration(value) if name == "older_than" else value
