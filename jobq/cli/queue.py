"""Verbs on the queue as a whole."""

import click

from jobq import factory
from jobq.cli import counts, render
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
    yes_option,
)
from jobq.errors import InvalidValue
from jobq.states import Status


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
    """Count the jobs of TOPIC, or of every topic, by state, and tell what limits them."""
    with open_queue(ctx) as svc:
        found = svc.stats(topic)
        if topic is not None:
            known_topic(ctx, svc, topic)
        settings = counts.settings_of(svc, found)

    shown = counts.stats_as_json if as_json else counts.stats_as_table
    click.echo(shown(found, settings))


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
