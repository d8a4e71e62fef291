"""What all verbs share: the queue they work on, how they ask, and how they end.

Facts go to stdout, all else to stderr: errors as one line, and what was done where it is no fact
to work with. A path without a queue is refused by every verb but `init`: looking creates
nothing. The exit status:

    0  it went well
    1  jobq refused, or could not do it
    2  the command line is wrong, or needs --yes
    3  what was named is not there
    5  the store cannot be used, or `check` found damage
"""

import contextlib
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import IO, Any, Final, NoReturn, TypeVar

import click

from jobq import factory
from jobq.cli import render
from jobq.cli.payloads import STDIN
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
from jobq.job import JobRecord
from jobq.service import JobService

FAILED: Final = 1
WRONG_COMMAND: Final = 2
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

STATUSES_SHOWN: Final = (
    "Exit status: 0 it went well, 1 jobq refused, 2 wrong command line or --yes is missing, "
    "3 not found, 5 the store cannot be used or is damaged."
)

NAME_IT: Final = "name the directory of a queue with --db or JOBQ_DB, or make one with `jobq init`"

LONGEST_SAID: Final = 4000
"""Characters of a line for people."""

MOST_SHOWN: Final = 5
"""How many jobs an error names when a part of an id could mean several."""

Verb = TypeVar("Verb", bound=Callable[..., Any])


# How verbs end.


def exit_status(error: JobqError) -> int:
    """The exit status for *error*."""
    known = (status for kind, status in EXIT_STATUS.items() if isinstance(error, kind))
    return next(known, FAILED)


def say(message: str) -> None:
    """A line for people, on stderr: one line whatever is in it."""
    click.echo(f"jobq: {_one_line(message)}", err=True)


def _one_line(message: str) -> str:
    """A message on one line, which may repeat what somebody has given: its middle left out then."""
    text = render.printable(" ".join(message.split()))
    if len(text) > LONGEST_SAID:
        text = f"{text[: LONGEST_SAID // 2]} … {text[-LONGEST_SAID // 2 :]}"
    return text


def refuse(ctx: click.Context, message: str, status: int = FAILED) -> NoReturn:
    """End with *status* and one line on stderr."""
    say(message)
    ctx.exit(status)


def cannot_print(error: OSError) -> str:
    """Why there is no output, or no input, any more."""
    where = "" if error.filename is None else f" {error.filename!r}"
    return f"cannot print or read{where} any more: {error.strerror or error}"


def point_to_nowhere(stream: Any) -> None:
    """Let what is still buffered for who cannot take it go nowhere, instead of failing at exit."""
    with contextlib.suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)


@contextmanager
def _readable() -> Iterator[None]:
    """What is said of a wrong command line repeats its words, whatever is in them."""
    try:
        yield
    except click.UsageError as error:
        vars(error)["message"] = _one_line(error.message or "")  # click says that it is final
        raise


class Verbs(click.Group):
    """A group whose verbs may raise any `JobqError`; help lists them as they were added."""

    def main(self, *args: Any, **how: Any) -> Any:
        """Run the command line; what it cannot print, or read, is an error like others.

        A reader that has hung up is click's to deal with.
        """
        try:
            return super().main(*args, **how)
        except OSError as error:
            with contextlib.suppress(OSError):  # stderr may be what cannot be written
                say(f"{cannot_print(error)}; what was done by then stands")
            for stream in (sys.stdout, sys.stderr):
                point_to_nowhere(stream)
            sys.exit(FAILED)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Take the group's own options off the command line."""
        with _readable():
            return super().parse_args(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the verb that the command line names."""
        try:
            with _readable():
                return super().invoke(ctx)
        except JobqError as error:
            refuse(ctx, str(error), exit_status(error))

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's
        """Verbs in the order of their addition: what is needed first comes first."""
        return list(self.commands)


# What verbs take.


def as_json_option(what: str) -> Callable[[Verb], Verb]:
    """`--json`, with its help."""
    return click.option("--json", "as_json", is_flag=True, help=f"Print {what}.")


unique_option: Final = click.option(
    "--unique", metavar="KEY", help="The job that has this unique key, instead of an ID."
)
yes_option: Final = click.option("--yes", "-y", is_flag=True, help="Do not ask.")
dry_run_option: Final = click.option(
    "--dry-run", is_flag=True, help="Say what would be done, and do nothing."
)


def open_queue(ctx: click.Context) -> JobService:
    """The queue that the command line or the environment names."""
    path = queue_path(ctx)
    try:
        return factory.open(path, create=False)
    except InvalidValue as error:
        refuse(ctx, f"{error}; {NAME_IT}")


def queue_path(ctx: click.Context, path: str | None = None) -> str:
    """Where the queue is: *path*, or what `--db` or `JOBQ_DB` say."""
    if path is None:
        path = ctx.find_root().obj
    if not path:
        raise click.UsageError("which queue? Give --db PATH before the verb, or set JOBQ_DB", ctx)
    if path == factory.MEMORY:
        refuse(ctx, f"{path} belongs to one process and cannot be looked into; {NAME_IT}")
    return path


def job_of(ctx: click.Context, svc: JobService, part: str) -> str:
    """The id that *part* is a unique part of."""
    found = svc.match(part, limit=MOST_SHOWN + 1)
    if not found:
        refuse(ctx, f"no job has {part!r} in its id: `jobq jobs list` shows them", NOT_FOUND)
    if len(found) > 1:
        more = ", …" if len(found) > MOST_SHOWN else ""
        refuse(
            ctx,
            f"{part!r} is in the ids of several jobs: {', '.join(found[:MOST_SHOWN])}{more}; "
            "give more of the one you mean",
            WRONG_COMMAND,
        )
    return found[0]


def record_of(
    ctx: click.Context, svc: JobService, part: str | None, unique: str | None
) -> JobRecord:
    """The job that a part of its id, or its unique key, names: one of them has to be given."""
    if (part is None) == (unique is None):
        raise click.UsageError("which job? Give an ID or --unique KEY, one of them", ctx)
    if unique is not None:
        return svc.get(unique=unique)
    assert part is not None
    return svc.get(job_of(ctx, svc, part))


def jobs_of(ctx: click.Context, svc: JobService, parts: Iterable[str]) -> list[str]:
    """The ids that *parts* name, each once, in their order."""
    return list(dict.fromkeys(job_of(ctx, svc, part) for part in parts))


def known_topic(ctx: click.Context, svc: JobService, *topics: str) -> None:
    """Refuse topics that never had a job: most likely they are misspelt."""
    known = set(svc.topics())
    for topic in topics:
        if topic not in known:
            refuse(ctx, f"there is no topic {topic!r}: `jobq topics` lists them", NOT_FOUND)


def confirm(ctx: click.Context, what: str, *, yes: bool, look: str = "--dry-run") -> None:
    """Go on only if *what* is wanted: a terminal is asked, elsewhere it takes --yes.

    *look* is how to see before what would be done.
    """
    if yes:
        return
    if not sys.stdin.isatty():
        refuse(ctx, f"{what}? Say so with --yes, or look first with {look}", WRONG_COMMAND)
    click.confirm(render.printable(f"{what}?"), abort=True, err=True)


def opened(ctx: click.Context, path: str) -> AbstractContextManager[IO[bytes]]:
    """The file at *path* to read; `-` is stdin, which stays open."""
    if path == STDIN:
        return nullcontext(sys.stdin.buffer)
    try:
        return Path(path).open("rb")
    except OSError as error:
        status = NOT_FOUND if isinstance(error, FileNotFoundError) else FAILED
        refuse(ctx, f"cannot read {path!r}: {error.strerror}", status)


def set_and_unset(
    ctx: click.Context, given: dict[str, Any], unset: Iterable[str]
) -> dict[str, Any]:
    """What was given, and None for what is to be unset."""
    both = [f"--{name.replace('_', '-')}" for name in unset if name in given]
    if both:
        raise click.UsageError(f"{', '.join(both)}: set it or unset it, not both", ctx)
    return {**given, **dict.fromkeys(unset)}


def absolute(path: str) -> str:
    """*path* from the root, as another directory's process needs it."""
    return str(Path(path).absolute())
