"""Lists of any length, read and printed a page at a time."""

import shlex
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

import click

from jobq.cli.context import Verb, as_json_option, say
from jobq.cli.render import Table

AT_ONCE: Final = 100
"""How many are read and printed at a time: each may be a job with a payload of a megabyte."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Listed(Generic[T]):
    """How things of a kind are listed.

    Attributes:
        columns: What stands above the table.
        left: The columns whose text stands to the left.
        row: What stands in them.
        as_json: One as a line of JSON.
        name: What `--after` takes to go on after one.
    """

    columns: Sequence[str]
    left: Iterable[int]
    row: Callable[[T], list[str]]
    as_json: Callable[[T], str]
    name: Callable[[T], str]


def listing_options(what: str, beyond: str, metavar: str) -> Callable[[Verb], Verb]:
    """How much is listed of *what*, and how; `beyond` is the help of `--after`."""

    def decorate(command: Verb) -> Verb:
        limit = click.option(
            "--limit",
            "-n",
            type=click.IntRange(min=0),
            default=100,
            show_default=True,
            help="At most so many; 0 for all.",
        )
        after = click.option("--after", metavar=metavar, help=beyond)
        return limit(after(as_json_option(f"one JSON object a {what}")(command)))

    return decorate


def show_listed(found: Iterator[T], kind: Listed[T], *, limit: int, as_json: bool) -> None:
    """Print at most *limit* (0: all) of those found, and say how to go on if there are more."""
    table = Table(kind.left)
    head = [] if as_json else [list(kind.columns)]
    last = None
    for page, more in pages(found, limit):
        if as_json:
            for one in page:
                click.echo(kind.as_json(one))
        else:
            for line in table.lines([*head, *map(kind.row, page)]):
                click.echo(line)
            head = []
        last = page[-1] if more else None
    for line in table.lines(head):  # there are none
        click.echo(line)
    if last is not None:
        say(f"there are more: --after {shlex.quote(kind.name(last))}, or --limit 0 for all")


def read_on(
    read: Callable[[str | None, int], list[T]], name: Callable[[T], str], after: str | None
) -> Iterator[T]:
    """All that *read* gives beyond *after*, so many at a time."""
    while page := read(after, AT_ONCE):
        yield from page
        if len(page) < AT_ONCE:
            return
        after = name(page[-1])


def pages(found: Iterator[T], limit: int) -> Iterator[tuple[list[T], bool]]:
    """At most *limit* (0: all), a page at a time, each with whether the limit left some out."""
    page: list[T] = []
    for given, one in enumerate(found):
        if limit and given == limit:
            yield page, True
            return
        if len(page) == AT_ONCE:
            yield page, False
            page = []
        page.append(one)
    if page:
        yield page, False
