"""Verbs on the queue as a whole."""

import click

from jobq import factory
from jobq.cli import render
from jobq.cli.context import (
    STORE_UNUSABLE,
    absolute,
    as_json_option,
    known_topic,
    open_queue,
    queue_path,
)
from jobq.errors import InvalidValue


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
@as_json_option("one JSON object")
@click.pass_context
def check(ctx: click.Context, *, as_json: bool) -> None:
    """Compare every job with every index and counter; change nothing."""
    with open_queue(ctx) as svc:
        report = svc.check()

    click.echo(render.report_as_json(report) if as_json else render.report_as_lines(report))
    if not report.ok:
        ctx.exit(STORE_UNUSABLE)
