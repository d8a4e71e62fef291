"""Verbs on the queue as a whole, and on its topics."""

import json
from typing import Any

import click

from jobq import factory
from jobq.cli import render
from jobq.cli.context import (
    STORE_UNUSABLE,
    absolute,
    as_json_option,
    confirm,
    dry_run_option,
    known_topic,
    open_queue,
    queue_path,
    say,
    set_and_unset,
    yes_option,
)
from jobq.cli.options import EPILOG, chosen_options, setting_options
from jobq.errors import InvalidValue
from jobq.states import Status
from jobq.topic import SettingArgs


@click.command()
@click.argument("path", required=False)
@click.pass_context
def init(ctx: click.Context, path: str | None) -> None:
    """Make a queue in the directory PATH, or where --db says.

    A queue that is there already is left as it is.
    """
    path = queue_path(ctx, path)
    try:
        factory.open(path, create=False).close()
    except InvalidValue:
        factory.open(path).close()
        click.echo(f"made a queue in {render.printable(absolute(path))}")
    else:
        click.echo(f"there is a queue in {render.printable(absolute(path))} already")


@click.command()
@click.argument("topic", required=False)
@as_json_option("one JSON object")
@click.pass_context
def stats(ctx: click.Context, topic: str | None, *, as_json: bool) -> None:
    """Count the jobs of TOPIC, or of every topic, by state."""
    with open_queue(ctx) as svc:
        counts = svc.stats(topic)
        if topic is not None:
            known_topic(ctx, svc, topic)

    click.echo(render.stats_as_json(counts) if as_json else render.stats_as_table(counts))


@click.command()
@as_json_option("one JSON object a topic")
@click.pass_context
def topics(ctx: click.Context, *, as_json: bool) -> None:
    """List the topics by name: how many jobs are unfinished, and how many there are."""
    with open_queue(ctx) as svc:
        counts = svc.stats().topics

    lines = map(render.topic_as_json, counts) if as_json else render.topics_as_lines(counts)
    for line in lines:
        click.echo(line)


@click.command()
@click.argument("topic")
@click.option(
    "--status",
    "-s",
    type=click.Choice([status.value for status in Status if status is not Status.RESERVED]),
    help="Forget jobs in this state instead of those that wait.",
)
@yes_option
@dry_run_option
@click.pass_context
def purge(ctx: click.Context, topic: str, *, status: str | None, yes: bool, dry_run: bool) -> None:
    """Forget all jobs of TOPIC that wait: ready and delayed ones."""
    statuses = (Status.READY, Status.DELAYED) if status is None else (Status(status),)
    with open_queue(ctx) as svc:
        known_topic(ctx, svc, topic)
        totals = svc.stats(topic).totals
        jobs = render.count(sum(map(totals.of, statuses)), "job")
        what = f"forget {jobs} of topic {topic!r} ({', '.join(statuses)})"
        if dry_run:
            say(f"would {what}")
            return
        confirm(ctx, what, yes=yes)
        purged = svc.purge(topic, status)
    click.echo(f"purged: {render.count(purged, 'job')}")


@click.command(epilog=EPILOG)
@click.argument("topic")
@setting_options
@click.option(
    "--unset",
    multiple=True,
    type=click.Choice(sorted(SettingArgs.__annotations__)),
    help="Take back a setting, so that the queue's own holds; may be given several times.",
)
@as_json_option("one JSON object")
@click.pass_context
def configure(
    ctx: click.Context, /, topic: str, *, unset: tuple[str, ...], as_json: bool, **given: Any
) -> None:
    """Change settings of TOPIC, for jobs that finish from now on, and print all that it has."""
    changes = set_and_unset(ctx, chosen_options(given), unset)
    with open_queue(ctx) as svc:
        if not changes:
            known_topic(ctx, svc, topic)
        settings = svc.configure(topic, **changes) if changes else svc.settings(topic)
    if as_json:
        click.echo(json.dumps(settings.as_dict()))
        return
    for name, value in settings.as_dict().items():
        click.echo(f"{name:<14}{value}")
    if not settings.as_dict():
        say(f"topic {topic!r} has no settings of its own: those of the queue hold")


@click.command()
@click.option("--repair", is_flag=True, help="Make indexes and counts anew where they are wrong.")
@yes_option
@as_json_option("one JSON object")
@click.pass_context
def check(ctx: click.Context, *, repair: bool, yes: bool, as_json: bool) -> None:
    """Compare every job with every index and counter; change nothing.

    With --repair, if anything is wrong, all queues, due times and counts are made anew out of the
    jobs, in one commit. Jobs are not changed: a damaged one stays damaged. That takes a
    confirmation, or --yes; copy the directory first, while nothing has it open.
    """
    with open_queue(ctx) as svc:
        report = svc.check()
        if repair and not report.ok:
            found = render.count(len(report.problems), "problem")
            what = f"repair indexes and counts ({found} found)"
            confirm(ctx, what, yes=yes, look="`jobq check`")
            report = svc.check(repair=True)

    click.echo(render.report_as_json(report) if as_json else render.report_as_lines(report))
    if not report.ok:
        ctx.exit(STORE_UNUSABLE)
