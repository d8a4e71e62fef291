"""`jobq export` and `jobq import`: all jobs as JSON Lines, and back."""

import json
import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import IO, Any

import click

from jobq import factory
from jobq.cli.context import (
    FAILED,
    NAME_IT,
    STORE_UNUSABLE,
    open_queue,
    opened,
    queue_path,
    refuse,
    say,
)
from jobq.cli.payloads import STDIN
from jobq.cli.render import count, salvaged_as_words
from jobq.errors import InvalidValue


@click.command("export")
@click.argument("path", metavar="[FILE]", default=STDIN)
@click.option("--salvage", is_flag=True, help="Write what can still be read of a damaged queue.")
@click.pass_context
def export_(ctx: click.Context, path: str, *, salvage: bool) -> None:
    """Write all jobs to a new FILE, or to stdout, as JSON Lines.

    With all that is known of them, for any queue of any later jobq. The queue may be in use.

    With --salvage the file of the queue is read without its engine, page by page: what is damaged
    is passed over, and the rest is written. Nobody may have the queue open then. If anything is
    lost, or not sure, stderr says how much, and the exit status is 5.
    """
    if salvage:
        _salvage(ctx, path)
        return
    with open_queue(ctx) as svc, _new_file(ctx, path) as out:
        jobs = _write(out, svc.export_jobs())
    say(f"exported {count(jobs, 'job')}")


def _salvage(ctx: click.Context, path: str) -> None:
    try:
        with factory.salvage(queue_path(ctx)) as (found, lines), _new_file(ctx, path) as out:
            jobs = _write(out, lines)
    except InvalidValue as error:
        refuse(ctx, f"{error}; {NAME_IT}")
    for problem in found.problems:
        say(problem)
    say(f"saved {count(jobs, 'job')}{salvaged_as_words(found)}")
    if found.lost != 0 or found.unsure or found.incomplete:
        ctx.exit(STORE_UNUSABLE)


def _write(out: IO[str], lines: Iterable[dict[str, Any]]) -> int:
    """Write them all; gives how many of them are jobs."""
    jobs = 0
    for fields in lines:
        out.write(json.dumps(fields) + "\n")
        jobs += fields["kind"] == "job"
    out.flush()  # before it is said that it went well
    return jobs


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
