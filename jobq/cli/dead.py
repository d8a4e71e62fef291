"""`jobq dead`: jobs that ended without success and that nobody canceled."""

from datetime import datetime

import click

from jobq.cli.changing import Wanted, deleting, rate_option, retrying, run
from jobq.cli.context import Verb, Verbs, as_json_option, dry_run_option, yes_option
from jobq.cli.jobs import list_jobs
from jobq.cli.listing import listing_options
from jobq.cli.options import EPILOG, ends_options
from jobq.cli.selection import Filters, filter_options

_filters = filter_options("status", "dead")


def _how(command: Verb) -> Verb:
    """How to go about it."""
    json = as_json_option("one JSON object a job")
    return yes_option(dry_run_option(json(command)))


@click.group(cls=Verbs)
def dead() -> None:
    """List, retry and purge dead letters: jobs that are canceled, but not by somebody.

    Their retries are used up, or they were rejected, say; --reason tells these apart.
    """


@dead.command("list")
@_filters
@listing_options("job", "Only jobs enqueued after this one.", "ID")
@click.pass_context
def list_(
    ctx: click.Context, filters: Filters, *, limit: int, after: str | None, as_json: bool
) -> None:
    """List dead letters in the order of their enqueueing."""
    list_jobs(ctx, {**filters, "dead": True}, limit=limit, after=after, as_json=as_json)


@dead.command(epilog=EPILOG)
@_filters
@ends_options
@rate_option
@_how
@click.pass_context
def retry(
    ctx: click.Context,
    filters: Filters,
    *,
    deadline: datetime | None,
    ttl: float | None,
    rate: float | None,
    yes: bool,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Make dead letters ready as if never tried: all of them, or those that filters select.

    They lose the deadline that they had; --deadline and --ttl give them a new one.
    """
    change = retrying(rate, deadline, ttl)
    run(ctx, change, _wanted(filters, yes=yes, dry_run=dry_run, as_json=as_json))


@dead.command()
@_filters
@_how
@click.pass_context
def purge(ctx: click.Context, filters: Filters, *, yes: bool, dry_run: bool, as_json: bool) -> None:
    """Forget dead letters: all of them, or those that filters select."""
    change = deleting("purge", "purged")
    run(ctx, change, _wanted(filters, yes=yes, dry_run=dry_run, as_json=as_json))


def _wanted(filters: Filters, *, yes: bool, dry_run: bool, as_json: bool) -> Wanted:
    dead_ones = {**filters, "dead": True}
    return Wanted((), dead_ones, everything=False, yes=yes, dry_run=dry_run, as_json=as_json)
