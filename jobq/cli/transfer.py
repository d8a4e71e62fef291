"""`jobq export` and `jobq import`: all jobs as JSON Lines, and back."""

import json
import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import IO, Any

import click

from jobq.cli.context import FAILED, open_queue, opened, refuse, say
from jobq.cli.payloads import STDIN
from jobq.cli.render import count


@click.command("export")
@click.argument("path", metavar="[FILE]", default=STDIN)
@click.pass_context
def export_(ctx: click.Context, path: str) -> None:
    """Write all jobs to a new FILE, or to stdout, as JSON Lines.

    With all that is known of them, for any queue of any later jobq. The queue may be in use.
    """
    jobs = 0
    with open_queue(ctx) as svc, _new_file(ctx, path) as out:
        for fields in svc.export_jobs():
            out.write(json.dumps(fields) + "\n")
            jobs += fields["kind"] == "job"
    say(f"exported {count(jobs, 'job')}")


@click.command("import")
@click.argument("path", metavar="[FILE]", default=STDIN)
@click.pass_context
def import_(ctx: click.Context, path: str) -> None:
    """Add the jobs that `jobq export` has written to FILE, or that come on stdin.

    They keep ids, order and all that is known of them; what was reserved is ready. Jobs that are
    there already are skipped, so an import that broke off can be repeated.
    """
    with open_queue(ctx) as svc, opened(ctx, path) as lines:
        done = svc.import_jobs(_values(lines))
    click.echo(f"imported {count(done.jobs, 'job')}, {done.skipped:,} were there already")


def _values(lines: Iterable[bytes]) -> Iterator[Any]:
    """Each line's value; of a line that is no JSON its text, which the import refuses."""
    for line in lines:
        try:
            yield json.loads(line)
        except (ValueError, RecursionError):
            yield line.decode(errors="backslashreplace").rstrip("\n")


def _new_file(ctx: click.Context, path: str) -> AbstractContextManager[IO[str]]:
    """A file that only its owner may read, as the queue's own; or stdout."""
    if path == STDIN:
        return nullcontext(sys.stdout)
    try:
        return open(path, "x", encoding="ascii", opener=_private)
    except FileExistsError:
        refuse(ctx, f"{path!r} is there already: give another name", FAILED)
    except OSError as error:
        refuse(ctx, f"cannot write {path!r}: {error.strerror}", FAILED)


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)
