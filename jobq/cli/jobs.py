"""`jobq jobs`: what is known of jobs, and what anybody may do to them."""

import time
from collections.abc import Callable
from contextlib import suppress
from typing import Final

import click

from jobq.cli import record
from jobq.cli.changing import cancel, delete, edit, move, retry
from jobq.cli.context import (
    FAILED,
    Verbs,
    as_json_option,
    job_of,
    jobs_of,
    known_topic,
    open_queue,
    record_of,
    refuse,
    say,
    unique_option,
)
from jobq.cli.enqueueing import enqueue
from jobq.cli.listing import Listed, listing_options, read_on, show_listed
from jobq.cli.options import duration
from jobq.cli.selection import Filters, filter_options, selection_of
from jobq.job import JobRecord, LogLine
from jobq.states import Status

AS_LISTED: Final[Listed[JobRecord]] = Listed(
    record.COLUMNS, record.TEXT_COLUMNS, record.as_row, record.as_json, lambda job: job.id
)

FOLLOW_S: Final = 1.0
"""Seconds between two looks at a log that is followed; holders write no more often either."""


@click.group(cls=Verbs)
def jobs() -> None:
    """List, show, enqueue, edit, move, cancel, retry and delete jobs, wait for them, print logs.

    Wherever an ID is asked for, any part of it will do that no other job's id has.
    """


@click.command("list")
@filter_options()
@listing_options("job", "Only jobs enqueued after this one.", "ID")
@click.pass_context
def list_(
    ctx: click.Context, filters: Filters, *, limit: int, after: str | None, as_json: bool
) -> None:
    """List jobs in the order of their enqueueing."""
    list_jobs(ctx, filters, limit=limit, after=after, as_json=as_json)


def list_jobs(
    ctx: click.Context, filters: Filters, *, limit: int, after: str | None, as_json: bool
) -> None:
    """Print the jobs that fit the filters, read a page at a time."""
    with open_queue(ctx) as svc:
        if "topic" in filters:
            known_topic(ctx, svc, filters["topic"])
        first = None if after is None else job_of(ctx, svc, after)
        chosen = selection_of(svc, filters)
        found = read_on(lambda after, n: chosen.find(after=after, limit=n), AS_LISTED.name, first)
        show_listed(found, AS_LISTED, limit=limit, as_json=as_json)


@click.command()
@click.argument("job_id", metavar="[ID]", required=False)
@unique_option
@as_json_option("one JSON object")
@click.pass_context
def show(ctx: click.Context, job_id: str | None, *, unique: str | None, as_json: bool) -> None:
    """Show all that is known of a job."""
    with open_queue(ctx) as svc:
        job = record_of(ctx, svc, job_id, unique)

    click.echo(record.as_json(job) if as_json else record.as_text(job))


@click.command()
@click.argument("job_id", metavar="[ID]", required=False)
@unique_option
@click.option("--follow", "-f", is_flag=True, help="Go on until the job is finished.")
@click.option("--tail", "-n", type=click.IntRange(min=0), help="Only the last so many lines.")
@as_json_option("one JSON object a line")
@click.pass_context
def logs(
    ctx: click.Context,
    job_id: str | None,
    *,
    unique: str | None,
    follow: bool,
    tail: int | None,
    as_json: bool,
) -> None:
    """Print what holders of a job have logged, and what commands of `jobq work` have printed."""
    shown = record.log_line_as_json if as_json else record.log_line
    with open_queue(ctx) as svc:
        job = record_of(ctx, svc, job_id, unique)
        seen = job.log_dropped
        if tail is not None:
            seen += max(0, len(job.log) - tail)
        while True:
            seen = _print_log(job, seen, shown)
            if not follow or job.finished:
                return
            with suppress(TimeoutError):
                svc.wait(job.id, FOLLOW_S)
            job = svc.get(job.id)


def _print_log(job: JobRecord, seen: int, shown: Callable[[LogLine], str]) -> int:
    """Print the lines after the first *seen* that were ever logged; gives how many there are."""
    if job.log_dropped > seen:
        say(f"{job.log_dropped - seen:,} lines were dropped: only the last ones are kept")
    for line in job.log[max(0, seen - job.log_dropped) :]:
        click.echo(shown(line))
    return job.log_dropped + len(job.log)


@click.command()
@click.argument("parts", metavar="ID...", nargs=-1, required=True)
@click.option(
    "--timeout", type=duration, metavar="DURATION", help="Wait so long for all of them together."
)
@as_json_option("one JSON object a job, with its result")
@click.pass_context
def wait(
    ctx: click.Context, parts: tuple[str, ...], *, timeout: float | None, as_json: bool
) -> None:
    """Wait until jobs are done or canceled, whoever works on them.

    A line for each, in their order. It ends with 0 if all are done; with 1 if one is canceled, or
    not finished when the time is over; with 3 if one is not there, or is not kept when it ends.
    """
    end = None if timeout is None else time.monotonic() + timeout
    with open_queue(ctx) as svc:
        all_done = True
        for job_id in jobs_of(ctx, svc, parts):
            left = None if end is None else max(0.0, end - time.monotonic())
            try:
                job = svc.wait(job_id, left)
            except TimeoutError:
                refuse(ctx, f"job {job_id} is still {svc.status(job_id)}: the time is over")
            click.echo(record.as_json(job) if as_json else f"{job.id} {record.status(job)}")
            all_done = all_done and job.status is Status.DONE
    if not all_done:
        ctx.exit(FAILED)


for verb in (list_, show, logs, wait, enqueue, edit, move, cancel, retry, delete):
    jobs.add_command(verb)
