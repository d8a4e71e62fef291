"""`jobq jobs enqueue`: its options are those of jobs, whatever they are."""

import json
import re
from collections.abc import Iterator
from typing import Any

import click

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
    quiet: bool,
    as_json: bool,
    **options: Any,
) -> None:
    """Add a job to TOPIC and print its id.

    PAYLOAD is JSON, or - for stdin; without it and without --file the payload is null.

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
    common = {"weight": weight, "delay": delay, **chosen_options(options)}
    printer = _Printer(topic, as_json=as_json, quiet=quiet)

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
        printer.show([svc.enqueue(topic, value, **common)])


def reader_of(ctx: click.Context, *, text: bool, raw: bool) -> payloads.Reader:
    """How a payload is read."""
    if text and raw:
        raise click.UsageError("--text and --raw: give one of them", ctx)
    return payloads.from_text if text else payloads.from_raw if raw else payloads.from_json


class _Printer:
    """Prints ids, one a line."""

    def __init__(self, topic: str, *, as_json: bool, quiet: bool) -> None:
        self.topic = topic
        self._as_json = as_json
        self._quiet = quiet

    def show(self, job_ids: list[str]) -> None:
        """Print the ids of jobs that are in the queue now."""
        if self._quiet:
            return
        for job_id in job_ids:
            line = json.dumps({"id": job_id, "topic": self.topic}) if self._as_json else job_id
            click.echo(line)


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
            job_ids = svc.enqueue_many(printer.topic, lines.payloads, **common)
            jobs, last = jobs + len(job_ids), lines.last
            printer.show(job_ids)
    except BrokenPipeError:
        say(f"nobody reads the ids any more; {_so_far(jobs, last)}")
        raise
    except WrongPayload as error:
        refuse(ctx, f"{error}; {_so_far(jobs, last)}")
    except JobqError as error:
        refuse(ctx, f"{_by_line(str(error), lines)}; {_so_far(jobs, last)}", exit_status(error))
    say(f"enqueued {render.count(jobs, 'job')}")


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
