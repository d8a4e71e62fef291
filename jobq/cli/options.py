"""Options of jobs and settings of topics as options of the command line, drawn from their types."""

import inspect
import re
from collections.abc import Callable
from datetime import datetime
from types import NoneType
from typing import Any, Final, Literal, get_args, get_origin, get_type_hints

import click

from jobq.cli.context import Verb
from jobq.options import SECONDS, JobOptions, OptionArgs
from jobq.topic import SECONDS as SETTING_SECONDS
from jobq.topic import Rate, SettingArgs, TopicSettings

EPILOG: Final = (
    "A DURATION is a number of seconds, or one with units: 250ms, 90s, 5m, 1h30m, 2d, 1w. "
    "JOBS/DURATION is a rate: 100/60s, 5/m. A TIME is ISO 8601, of this machine's time zone "
    "unless it names another."
)

UNITS: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0}

_PART: Final = re.compile(r"([0-9]+(?:\.[0-9]+)?|\.[0-9]+)(ms|[smhdw])")


def duration(value: str | float) -> float:
    """A number of seconds, or parts with units, in seconds.

    >>> duration("90"), duration("1h30m"), duration("250ms"), duration("2d")
    (90.0, 5400.0, 0.25, 172800.0)

    Raises:
        click.BadParameter: It is neither.
    """
    text = str(value).strip().lower()
    if re.fullmatch(r"[0-9]+(\.[0-9]+)?|\.[0-9]+", text):
        return float(text)
    if not re.fullmatch(f"({_PART.pattern})+", text):
        raise click.BadParameter(
            f"{value!r} is no duration: give seconds, or 250ms, 90s, 5m, 1h30m, 2d, 1w"
        )
    return sum(float(number) * UNITS[unit] for number, unit in _PART.findall(text))


def rate(value: str) -> Rate:
    """So many jobs in so much time.

    >>> rate("100/60s"), rate("5/m")
    ((100, 60.0), (5, 60.0))

    Raises:
        click.BadParameter: It is none.
    """
    jobs, slash, period = value.strip().lower().partition("/")
    if not slash or not re.fullmatch("[0-9]{1,10}", jobs):
        raise click.BadParameter(f"{value!r} is no rate: give jobs and a time, as 100/60s or 5/m")
    return int(jobs), UNITS[period] if period in UNITS else duration(period)


def moment(value: str) -> datetime:
    """A time in ISO 8601, of this machine's time zone unless it names another.

    >>> moment("2030-01-31T12:00Z").isoformat()
    '2030-01-31T12:00:00+00:00'

    Raises:
        click.BadParameter: It is none.
    """
    try:
        at = datetime.fromisoformat(value.strip())
        return at if at.tzinfo is not None else at.astimezone()
    except (ValueError, OverflowError) as error:
        raise click.BadParameter(
            f"{value!r} is no time: give ISO 8601, as 2030-01-31T12:00+01:00"
        ) from error


def told_of(kind: type) -> dict[str, str]:
    """What the docstring of *kind* says of each attribute, in one line each."""
    text = inspect.getdoc(kind) or ""
    found = re.findall(r"^    (\w+): (.+(?:\n        .+)*)", text, re.MULTILINE)
    return {name: " ".join(what.split()).replace("`", "") for name, what in found}


def job_options(command: Verb) -> Verb:
    """An option of the command line for each option of jobs."""
    return _options(command, OptionArgs, told_of(JobOptions))


def ends_options(command: Verb) -> Verb:
    """`--deadline` and `--ttl`, for a verb that gives jobs new ones."""
    command = click.option(
        "--ttl",
        type=duration,
        metavar="DURATION",
        help="How long until that moment, for each from now; the earlier of the two holds.",
    )(command)
    return click.option(
        "--deadline",
        type=moment,
        metavar="TIME",
        help="When they are canceled as expired unless they were handed out.",
    )(command)


def setting_options(command: Verb) -> Verb:
    """An option of the command line for each setting of topics."""
    return _options(command, SettingArgs, told_of(TopicSettings))


def _options(command: Verb, args: type, told: dict[str, str]) -> Verb:
    for name, hint in reversed(get_type_hints(args).items()):
        kinds = [kind for kind in get_args(hint) if kind is not NoneType]
        command = _option(name, kinds, told.get(name, ""))(command)
    return command


def _option(name: str, kinds: list[Any], told: str) -> Callable[[Verb], Verb]:
    """The option of the command line for values of these types."""
    flag = f"--{name.replace('_', '-')}"
    words = [word for kind in kinds if get_origin(kind) is Literal for word in get_args(kind)]
    kind: Any
    if words and float in kinds:
        kind, metavar = _word_or_duration(words), "|".join([*words, "DURATION"])
    elif words:
        kind, metavar = click.Choice(words), None
    elif Rate in kinds:
        kind, metavar = rate, "JOBS/DURATION"
    elif any(get_origin(one) is tuple for one in kinds):  # one by one, under the name of one
        return click.option(flag.removesuffix("s"), name, multiple=True, help=told)
    elif name in SECONDS | SETTING_SECONDS:
        kind, metavar = duration, "DURATION"
    elif datetime in kinds:
        kind, metavar = moment, "TIME"
    else:
        kind, metavar = kinds[0], "true|false" if kinds[0] is bool else None
    return click.option(flag, name, type=kind, metavar=metavar, help=told)


def _word_or_duration(words: list[str]) -> Callable[[str], str | float]:
    def word_or_duration(value: str) -> str | float:
        return value if value in words else duration(value)

    return word_or_duration


def chosen_options(args: dict[str, Any]) -> dict[str, Any]:
    """The options that were given, as `enqueue` takes them."""
    return {name: value for name, value in args.items() if value not in (None, ())}
