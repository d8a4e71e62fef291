"""`jobq keys`: unique keys that are taken."""

import json
from typing import Final

import click

from jobq.cli.context import Verbs, as_json_option, confirm, open_queue, yes_option
from jobq.cli.listing import Listed, listing_options, read_on, show_listed
from jobq.cli.record import moment
from jobq.cli.render import count, printable
from jobq.cli.telling import tell_released
from jobq.job import UniqueKey


def _row(key: UniqueKey) -> list[str]:
    return [printable(key.key), key.job_id, moment(key.until) or "-"]


AS_LISTED: Final[Listed[UniqueKey]] = Listed(
    ("key", "job", "until"),
    (0, 1, 2),
    _row,
    lambda key: json.dumps(key.as_dict()),
    lambda key: key.key,
)


@click.group(cls=Verbs)
def keys() -> None:
    """List unique keys that are taken, and release them."""


@keys.command("list")
@listing_options("key", "Only keys beyond this one.", "KEY")
@click.pass_context
def list_(ctx: click.Context, *, limit: int, after: str | None, as_json: bool) -> None:
    """List keys by name: the job that has each, and until when if it is for a period."""
    with open_queue(ctx) as svc:
        found = read_on(lambda after, n: svc.keys(after=after, limit=n), AS_LISTED.name, after)
        show_listed(found, AS_LISTED, limit=limit, as_json=as_json)


@keys.command()
@click.argument("names", metavar="KEY...", nargs=-1, required=True)
@yes_option
@as_json_option("one JSON object a key")
@click.pass_context
def release(ctx: click.Context, names: tuple[str, ...], *, yes: bool, as_json: bool) -> None:
    """Let nobody have these keys: the next job that wants one gets it.

    The jobs that had them go on without. Several keys take --yes where nobody can be asked.
    """
    chosen = list(dict.fromkeys(names))
    with open_queue(ctx) as svc:
        if len(chosen) > 1:
            confirm(ctx, f"release {count(len(chosen), 'key')}", yes=yes, look="`jobq keys list`")
        outcomes = svc.release_keys(chosen)
    tell_released(
        ctx,
        dict(zip(chosen, outcomes, strict=True)),
        kind="key",
        missing="no job has the unique key {!r}: `jobq keys list` shows those that are taken",
        as_json=as_json,
    )
