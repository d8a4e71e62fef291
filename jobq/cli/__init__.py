"""The command `jobq`: a queue from a terminal, a script, or another language.

Each verb is a function that calls the service and one renderer; its docstring is its help.
"""

import io
import sys
from importlib import import_module
from typing import Final, cast

import click

from jobq.cli.context import STATUSES_SHOWN, Verbs

__all__ = ["main"]


_PLACES: Final = {
    "init": "queue.init",
    "stats": "queue.stats",
    "topics": "topics.topics",
    "groups": "groups.groups",
    "keys": "keys.keys",
    "jobs": "jobs.jobs",
    "dead": "dead.dead",
    "work": "work.work",
    "purge": "queue.purge",
    "export": "transfer.export_",
    "import": "transfer.import_",
    "backup": "upkeep.backup",
    "restore": "upkeep.restore",
    "compact": "upkeep.compact",
    "check": "queue.check",
    "doctor": "upkeep.doctor",
    "bench": "bench.bench",
}
"""The verbs, as help lists them, and where they are: each is read when it is called for, since a
script calls one after the other, and reading all of them takes longer than most of them."""


class Main(Verbs):
    """All verbs."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's
        """What is needed first comes first."""
        return list(_PLACES)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:  # noqa: ARG002
        """The verb of that name, if there is one."""
        if name not in _PLACES:
            return None
        module, _, verb = _PLACES[name].partition(".")
        return cast("click.Command", getattr(import_module(f"jobq.cli.{module}"), verb))


@click.group(
    cls=Main,
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
