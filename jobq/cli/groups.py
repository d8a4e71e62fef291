"""`jobq groups`: the groups of a topic that have jobs to serve."""

import json
from typing import Final

import click

from jobq.cli.context import Verbs, as_json_option, confirm, known_topic, open_queue, yes_option
from jobq.cli.listing import Listed, listing_options, read_on, show_listed
from jobq.cli.record import relative
from jobq.cli.render import count, printable
from jobq.cli.telling import tell_released
from jobq.topic import GroupStats


def _row(group: GroupStats) -> list[str]:
    counts = [f"{number:,}" for number in (group.ready, group.running, group.lingering)]
    return [
        printable(group.group),
        *counts,
        "" if group.next_at is None else relative(group.next_at),
    ]


AS_LISTED: Final[Listed[GroupStats]] = Listed(
    ("group", "ready", "running", "lingering", "next"),
    (0, 4),
    _row,
    lambda group: json.dumps(group.as_dict()),
    lambda group: group.group,
)


@click.group(cls=Verbs)
def groups() -> None:
    """List the groups of a topic, and release what canceled jobs still take up in them."""


@groups.command("list")
@click.argument("topic")
@listing_options("group", "Only groups beyond this one.", "GROUP")
@click.pass_context
def list_(ctx: click.Context, topic: str, *, limit: int, after: str | None, as_json: bool) -> None:
    """List groups of TOPIC that have jobs ready or running, by name.

    Jobs are lingering that were canceled under a holder who may not know it yet: they count as
    running too. If the group's rate lets none go now, it is said when the next may.
    """
    with open_queue(ctx) as svc:
        known_topic(ctx, svc, topic)
        found = read_on(
            lambda after, n: svc.groups(topic, after=after, limit=n), AS_LISTED.name, after
        )
        show_listed(found, AS_LISTED, limit=limit, as_json=as_json)


@groups.command()
@click.argument("topic")
@click.argument("names", metavar="GROUP...", nargs=-1, required=True)
@yes_option
@as_json_option("one JSON object a group")
@click.pass_context
def release(
    ctx: click.Context, topic: str, names: tuple[str, ...], *, yes: bool, as_json: bool
) -> None:
    """Give places back that canceled jobs' holders still take up, and begin the rates anew.

    They would come back by themselves at the holder's next call, the end of its lease, or its
    death: release a group if you know that nobody works on these jobs any more. Several groups
    take --yes where nobody can be asked.
    """
    chosen = list(dict.fromkeys(names))
    with open_queue(ctx) as svc:
        known_topic(ctx, svc, topic)
        if len(chosen) > 1:
            what = f"release {count(len(chosen), 'group')} of topic {topic!r}"
            confirm(ctx, what, yes=yes, look="`jobq groups list`")
        outcomes = svc.release_groups(topic, chosen)
    tell_released(
        ctx,
        dict(zip(chosen, outcomes, strict=True)),
        kind="group",
        missing="no job of group {!r} is ready or running: `jobq groups list` shows the others",
        as_json=as_json,
    )
