"""`jobq jobs enqueue`: its options are those of jobs, whatever they are."""

import json
import re
import time
from collections.abc import Iterator
from typing import Any

import click

from jobq import ids
from jobq.cli import payloads, render
from jobq.cli.context import (
    as_json_option,
    exit_status,
    open_queue,
    opened,
    refuse,
    say,
)
from jobq.cli.options import EPILOG, chosen_options, duration, job_options
from jobq.cli.payloads import Lines, WrongPayload
from jobq.errors import JobqError
from jobq.service import JobService


@click.command(epilog=EPILOG)
@click.argument("topic")
@click.argument("payload", required=False)
@click.option(
    "--file", "-f", "path", metavar="FILE", help="Read the payload from FILE; - is stdin."
)
@click.option("--lines", is_flag=True, help="Enqueue one job for each line of FILE, or of stdin.")
@click.option("--text", is_flag=True, help="The payload is text, not JSON.")
@click.option("--raw", is_flag=True, help="The payload is bytes, not JSON.")
@click.option(
    "--weight", type=int, default=0, show_default=True, help="Lower is served first; int16."
)
@click.option("--delay", type=duration, metavar="DURATION", help="How long until it becomes ready.")
@job_options
@click.option(
    "--timeout",
    type=duration,
    metavar="DURATION",
    default=0,
    help="Wait so long for room if the topic is full or draining.",
)
@click.option("--quiet", "-q", is_flag=True, help="Do not print ids.")
@as_json_option("one JSON object a job")
@click.pass_context
def enqueue(
    ctx: click.Context,
    /,
    topic: str,
    payload: str | None,
    *,
    path: str | None,
    lines: bool,
    text: bool,
    raw: bool,
    weight: int,
    delay: float | None,
    timeout: float,
    quiet: bool,
    as_json: bool,
    **options: Any,
) -> None:
    """Add a job to TOPIC and print its id.

    PAYLOAD is JSON, or - for stdin; without it and without --file the payload is null. If another
    job has its unique key, the id is that of the other one, and stderr says so.

    With --lines up to 1000 jobs are added in one commit, in the order of the lines. If a line is
    wrong, the jobs of its commit are not added and it ends; the error says how many lines before
    it are in the queue.
    """
    if payload is not None and path is not None:
        raise click.UsageError("PAYLOAD and --file: give one of them", ctx)
    if payload is not None and lines and payload != payloads.STDIN:
        raise click.UsageError("--lines reads a --file or stdin, no PAYLOAD", ctx)
    reader = reader_of(ctx, text=text, raw=raw)
    if payload == payloads.STDIN or (lines and path is None):
        path = payloads.STDIN
    chosen = chosen_options(options)
    common = {"weight": weight, "delay": delay, "timeout": timeout, **chosen}
    printer = _Printer(topic, unique=chosen.get("unique"), as_json=as_json, quiet=quiet)

    with open_queue(ctx) as svc:
        if lines:
            assert path is not None
            with opened(ctx, path) as stream:
                _enqueue_lines(ctx, svc, printer, payloads.of_lines(stream, reader), common)
            return
        try:
            if path is not None:
                with opened(ctx, path) as stream:
                    value = payloads.of_stream(stream, reader)
            else:
                value = None if payload is None else payloads.of_argument(payload, reader)
        except WrongPayload as error:
            refuse(ctx, str(error))
        printer.begin()
        printer.show([svc.enqueue(topic, value, **common)])
        if printer.existing:
            replaced = "it was replaced" if chosen.get("on_conflict") == "replace" else "none added"
            say(f"there is a job with unique key {printer.unique!r} already: {replaced}")


def reader_of(ctx: click.Context, *, text: bool, raw: bool) -> payloads.Reader:
    """How a payload is read."""
    if text and raw:
        raise click.UsageError("--text and --raw: give one of them", ctx)
    return payloads.from_text if text else payloads.from_raw if raw else payloads.from_json


class _Printer:
    """Prints ids, one a line, and tells jobs that were added from those that were there.

    Attributes:
        topic: Their topic.
        unique: The unique key that all of them want; None if none does.
        added: How many jobs were added.
        existing: How many payloads met a job that has the key.
    """

    def __init__(self, topic: str, *, unique: str | None, as_json: bool, quiet: bool) -> None:
        self.topic = topic
        self.unique = unique
        self.added = self.existing = 0
        self._as_json = as_json
        self._quiet = quiet
        self._begun_ms = 0
        self._last = ""

    def begin(self) -> None:
        """The next jobs are enqueued now."""
        self._begun_ms = time.time_ns() // 1_000_000

    def show(self, job_ids: list[str]) -> None:
        """Print the ids of jobs that are in the queue now."""
        for job_id in job_ids:
            existing = self.unique is not None and self._was_there(job_id)
            self.existing += existing
            self.added += not existing
            if self._quiet:
                continue
            if self._as_json:
                told = {} if self.unique is None else {"existing": existing}
                click.echo(json.dumps({"id": job_id, "topic": self.topic, **told}))
            else:
                click.echo(job_id)

    def _was_there(self, job_id: str) -> bool:
        """Whether another one was given in place of a new job; ids begin with the time."""
        last, self._last = self._last, job_id
        return job_id == last or int.from_bytes(ids.to_raw(job_id)[:6]) < self._begun_ms


def _enqueue_lines(
    ctx: click.Context,
    svc: JobService,
    printer: _Printer,
    batches: Iterator[Lines],
    common: dict[str, Any],
) -> None:
    """A commit a batch. What is in the queue when it fails is told."""
    jobs = last = 0
    lines = None
    try:
        for lines in batches:
            printer.begin()
            job_ids = svc.enqueue_many(printer.topic, lines.payloads, **common)
            jobs, last = jobs + len(job_ids), lines.last
            printer.show(job_ids)
    except OSError as error:
        gone = "nobody reads the ids any more; " if isinstance(error, BrokenPipeError) else ""
        say(f"{gone}{_so_far(jobs, last)}")
        raise
    except WrongPayload as error:
        refuse(ctx, f"{error}; {_so_far(jobs, last)}")
    except JobqError as error:
        refuse(ctx, f"{_by_line(str(error), lines)}; {_so_far(jobs, last)}", exit_status(error))
    there = f", {printer.existing:,} were there already" if printer.existing else ""
    say(f"enqueued {render.count(printer.added, 'job')}{there}")


def _by_line(message: str, lines: Lines | None) -> str:
    """An error of `enqueue_many`, which names payloads by position, by the line instead."""
    found = re.match(r"payload (\d+): ", message)
    if found is None or lines is None:
        return message
    return f"line {lines.numbers[int(found[1])]}: {message[found.end() :]}"


def _so_far(jobs: int, last: int) -> str:
    if not last:
        return "nothing was enqueued"
    return (
        f"the {render.count(jobs, 'job')} of the lines up to {last} are in the queue, none after: "
        f"go on with line {last + 1}"
    )
