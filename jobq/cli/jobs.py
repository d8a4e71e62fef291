"""`jobq jobs`: what is known of jobs, and what anybody may do to them."""

import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Final

import click

from jobq.cli import record
from jobq.cli.changing import cancel, delete, edit, move, retry
from jobq.cli.context import (
    FAILED,
    Verb,
    Verbs,
    as_json_option,
    job_of,
    jobs_of,
    known_topic,
    open_queue,
    refuse,
    say,
)
from jobq.cli.enqueueing import enqueue
from jobq.cli.options import duration
from jobq.cli.render import Table
from jobq.cli.selection import Filters, filter_options, selection_of
from jobq.job import JobRecord, LogLine
from jobq.service import Selection
from jobq.states import Status

AT_ONCE: Final = 100
"""Jobs that are read and printed at a time: each may have a payload of a megabyte."""

FOLLOW_S: Final = 1.0
"""Seconds between two looks at a log that is followed; holders write no more often either."""


@click.group(cls=Verbs)
def jobs() -> None:
    """List, show, enqueue, edit, move, cancel, retry and delete jobs, wait for them, print logs.

    Wherever an ID is asked for, any part of it will do that no other job's id has.
    """


def listing_options(command: Verb) -> Verb:
    """How much is listed, and how."""
    limit = click.option(
        "--limit",
        "-n",
        type=click.IntRange(min=0),
        default=100,
        show_default=True,
        help="At most so many; 0 for all.",
    )
    after = click.option("--after", metavar="ID", help="Only jobs enqueued after this one.")
    return limit(after(as_json_option("one JSON object a job")(command)))


@click.command("list")
@filter_options()
@listing_options
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
        table = Table(record.TEXT_COLUMNS)
        head = [] if as_json else [list(record.COLUMNS)]
        last = None
        for page, more in pages(_found(selection_of(svc, filters), first), limit):
            if as_json:
                for job in page:
                    click.echo(record.as_json(job))
            else:
                for line in table.lines([*head, *map(record.as_row, page)]):
                    click.echo(line)
                head = []
            last = page[-1].id if more else None
        for line in table.lines(head):  # there are none
            click.echo(line)
        if last is not None:
            say(f"there are more: --after {last}, or --limit 0 for all")


def _found(selection: Selection, after: str | None) -> Iterator[JobRecord]:
    """The jobs, in the order of enqueueing; what comes or moves meanwhile may be missed."""
    while page := selection.find(after=after, limit=AT_ONCE):
        yield from page
        if len(page) < AT_ONCE:
            return
        after = page[-1].id


def pages(jobs: Iterator[JobRecord], limit: int) -> Iterator[tuple[list[JobRecord], bool]]:
    """At most *limit* jobs (0: all) a page at a time, each with whether the limit left some out."""
    page: list[JobRecord] = []
    for given, job in enumerate(jobs):
        if limit and given == limit:
            yield page, True
            return
        if len(page) == AT_ONCE:
            yield page, False
            page = []
        page.append(job)
    if page:
        yield page, False


@click.command()
@click.argument("job_id", metavar="ID")
@as_json_option("one JSON object")
@click.pass_context
def show(ctx: click.Context, job_id: str, *, as_json: bool) -> None:
    """Show all that is known of a job."""
    with open_queue(ctx) as svc:
        job = svc.get(job_of(ctx, svc, job_id))

    click.echo(record.as_json(job) if as_json else record.as_text(job))


@click.command()
@click.argument("job_id", metavar="ID")
@click.option("--follow", "-f", is_flag=True, help="Go on until the job is finished.")
@click.option("--tail", "-n", type=click.IntRange(min=0), help="Only the last so many lines.")
@as_json_option("one JSON object a line")
@click.pass_context
def logs(ctx: click.Context, job_id: str, *, follow: bool, tail: int | None, as_json: bool) -> None:
    """Print what holders of a job have logged, and what commands of `jobq work` have printed."""
    shown = record.log_line_as_json if as_json else record.log_line
    with open_queue(ctx) as svc:
        job = svc.get(job_of(ctx, svc, job_id))
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
