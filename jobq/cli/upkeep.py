"""`jobq backup`, `restore`, `compact` and `doctor`: the file of a queue as a whole."""

import json
import os

import click

from jobq import factory
from jobq.cli.context import (
    NAME_IT,
    NOT_FOUND,
    STORE_UNUSABLE,
    absolute,
    as_json_option,
    confirm,
    open_queue,
    queue_path,
    refuse,
    yes_option,
)
from jobq.cli.render import count, diagnosis_as_json, diagnosis_as_lines, printable, size
from jobq.cli.telling import Copying
from jobq.errors import InvalidValue
from jobq.repo.base import Copied


@click.command()
@click.argument("path", metavar="FILE")
@as_json_option("one JSON object")
@click.pass_context
def backup(ctx: click.Context, path: str, *, as_json: bool) -> None:
    """Copy the queue, which may be in use, to a new FILE.

    The file is one state of the queue, compact, and verified. It appears once it is whole:
    whatever interrupts a backup, it leaves no such file. `jobq restore` makes a queue of it.
    """
    with open_queue(ctx) as svc, Copying() as telling:
        done = svc.backup(path, telling)
    _tell(done, f"backed up {count(done.jobs, 'job')} to {printable(path)}", as_json=as_json)


@click.command()
@click.argument("backup", metavar="FILE")
@click.argument("path", required=False)
@click.option("--replace", is_flag=True, help="Replace a queue that is there, with all its jobs.")
@yes_option
@as_json_option("one JSON object")
@click.pass_context
def restore(
    ctx: click.Context, backup: str, path: str | None, *, replace: bool, yes: bool, as_json: bool
) -> None:
    """Make a queue in the directory PATH, or where --db says, out of a backup in FILE.

    A queue that is there is replaced with --replace only, after a confirmation or with --yes, and
    if nobody has it open. The backup is verified first; the new queue takes its place in one step.
    """
    path = queue_path(ctx, path)
    if not os.path.lexists(backup):
        refuse(ctx, f"there is no backup {backup}", NOT_FOUND)
    if replace:
        what = f"replace the queue in {absolute(path)}, with all its jobs"
        confirm(ctx, what, yes=yes, look="`jobq stats`")
    with Copying() as telling:
        done = factory.restore(backup, path, replace=replace, progress=telling)
    made = f"restored {count(done.jobs, 'job')} to {printable(absolute(path))}"
    _tell(done, made, as_json=as_json)


@click.command()
@click.argument("path", required=False)
@as_json_option("one JSON object")
@click.pass_context
def compact(ctx: click.Context, path: str | None, *, as_json: bool) -> None:
    """Give what is free in the file of the queue in PATH, or where --db says, back to the disk.

    Free space is used again anyway: this is for a queue that was once much larger. Nobody may have
    it open. A verified copy takes the place of the file in one step.
    """
    try:
        with Copying() as telling:
            done = factory.compact(queue_path(ctx, path), telling)
    except InvalidValue as error:
        refuse(ctx, f"{error}; {NAME_IT}")
    _tell(done, f"compacted {count(done.jobs, 'job')}", as_json=as_json)


@click.command()
@click.argument("path", required=False)
@click.option("--deep", is_flag=True, help="Read every page, every record and every index.")
@as_json_option("one JSON object")
@click.pass_context
def doctor(ctx: click.Context, path: str | None, *, deep: bool, as_json: bool) -> None:
    """Say what is wrong with the queue in PATH, or where --db says, and what to do.

    And, if anything is damaged, what can be saved. It changes nothing, and the queue may be in use.
    It works on any damage: what may kill a process is done in another one.
    """
    try:
        found = factory.doctor(queue_path(ctx, path), deep=deep)
    except InvalidValue as error:
        refuse(ctx, f"{error}; {NAME_IT}")
    click.echo(diagnosis_as_json(found) if as_json else diagnosis_as_lines(found))
    if not found.ok:
        ctx.exit(STORE_UNUSABLE)


def _tell(done: Copied, words: str, *, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps(done._asdict()))
    elif done.before:
        click.echo(f"{words}: {size(done.size)}, before {size(done.before)}")
    else:
        click.echo(f"{words}: {size(done.size)}")
