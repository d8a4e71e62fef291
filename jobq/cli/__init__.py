"""The command `jobq`: a queue from a terminal, a script, or another language.

Each verb is a function that calls the service and one renderer; its docstring is its help.
"""

import io
import sys

import click

from jobq.cli import queue
from jobq.cli.bench import bench
from jobq.cli.context import STATUSES_SHOWN, Verbs
from jobq.cli.dead import dead
from jobq.cli.groups import groups
from jobq.cli.jobs import jobs
from jobq.cli.keys import keys
from jobq.cli.topics import topics
from jobq.cli.transfer import export_, import_
from jobq.cli.upkeep import backup, compact, doctor, restore
from jobq.cli.work import work

__all__ = ["main"]


@click.group(
    cls=Verbs,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog=STATUSES_SHOWN,
)
@click.option(
    "--db", metavar="PATH", envvar="JOBQ_DB", show_envvar=True, help="The queue's directory."
)
@click.version_option(package_name="jobq", message="jobq %(version)s")
@click.pass_context
def main(ctx: click.Context, db: str | None) -> None:
    """A durable job queue in a directory: look into it, fill it, work on it."""
    ctx.obj = db
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # A terminal that cannot show a topic's name is no reason to fail.
            stream.reconfigure(errors="backslashreplace")


for verb in (
    *(queue.init, queue.stats, topics, groups, keys, jobs, dead, work),
    *(queue.purge, export_, import_, backup, restore, compact, queue.check, doctor, bench),
):
    main.add_command(verb)
