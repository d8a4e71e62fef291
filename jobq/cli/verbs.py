"""One function a verb. Each calls one method of the service and one renderer.

A verb only reads here, and a path without a queue is refused: looking creates nothing. Facts go to
stdout, errors as one line to stderr. The exit status:

    0  it went well
    1  jobq refused, or could not do it
    2  the command line is wrong
    3  what was named is not there
    5  the store cannot be used, or `check` found damage
"""

from typing import Any, Final, NoReturn

import click

from jobq import factory
from jobq.cli import render
from jobq.errors import (
    InvalidValue,
    JobNotFound,
    JobqError,
    StoreBusy,
    StoreCorrupt,
    StoreFull,
    StoreLocked,
    StoreUnavailable,
)
from jobq.service import JobService

FAILED: Final = 1
NOT_FOUND: Final = 3
STORE_UNUSABLE: Final = 5

EXIT_STATUS: Final[dict[type[JobqError], int]] = {
    JobNotFound: NOT_FOUND,
    StoreBusy: STORE_UNUSABLE,
    StoreCorrupt: STORE_UNUSABLE,
    StoreFull: STORE_UNUSABLE,
    StoreLocked: STORE_UNUSABLE,
    StoreUnavailable: STORE_UNUSABLE,
}
"""What an error means to a script; those that are not listed are `FAILED`."""

NAME_IT: Final = "name the directory of a queue with --db or JOBQ_DB"


def exit_status(error: JobqError) -> int:
    """The exit status for *error*."""
    known = (status for kind, status in EXIT_STATUS.items() if isinstance(error, kind))
    return next(known, FAILED)


def refuse(ctx: click.Context, message: str, status: int) -> NoReturn:
    """End with *status* and one line on stderr."""
    click.echo(f"jobq: {render.printable(' '.join(message.split()))}", err=True)
    ctx.exit(status)


class Verbs(click.Group):
    """A group whose verbs may raise any `JobqError`."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the verb that the command line names."""
        try:
            return super().invoke(ctx)
        except JobqError as error:
            refuse(ctx, str(error), exit_status(error))


@click.group(
    cls=Verbs,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Exit status: 0 it went well, 1 jobq refused, 2 wrong command line, 3 not found, "
    "5 the store cannot be used or is damaged.",
)
@click.option(
    "--db", metavar="PATH", envvar="JOBQ_DB", show_envvar=True, help="The queue's directory."
)
@click.version_option(package_name="jobq", message="jobq %(version)s")
@click.pass_context
def main(ctx: click.Context, db: str | None) -> None:
    """Look into the queue in a directory: counts by state, and whether all is sound."""
    ctx.obj = db


as_json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")


@main.command()
@click.argument("topic", required=False)
@as_json_option
@click.pass_context
def stats(ctx: click.Context, topic: str | None, *, as_json: bool) -> None:
    """Count the jobs of TOPIC, or of every topic, by state."""
    with open_queue(ctx) as svc:
        counts = svc.stats(topic)
        if topic is not None and topic not in svc.topics():
            refuse(ctx, f"there is no topic {topic!r}: `jobq stats` lists them", NOT_FOUND)

    click.echo(render.stats_as_json(counts) if as_json else render.stats_as_table(counts))


@main.command()
@as_json_option
@click.pass_context
def check(ctx: click.Context, *, as_json: bool) -> None:
    """Compare every job with every index and counter; change nothing."""
    with open_queue(ctx) as svc:
        report = svc.check()

    click.echo(render.report_as_json(report) if as_json else render.report_as_lines(report))
    if not report.ok:
        ctx.exit(STORE_UNUSABLE)


def open_queue(ctx: click.Context) -> JobService:
    """The queue that the command line or the environment names."""
    path = ctx.find_root().obj
    if not path:
        raise click.UsageError("which queue? Give --db PATH before the verb, or set JOBQ_DB", ctx)
    if path == factory.MEMORY:
        refuse(ctx, f"{path} belongs to one process and cannot be looked into; {NAME_IT}", FAILED)
    try:
        return factory.open(path, create=False)
    except InvalidValue as error:
        refuse(ctx, f"{error}; {NAME_IT}", FAILED)
