"""`jobq bench`: how fast jobq is on the disk in front of you."""

import contextlib
import json
import math
import os
import platform
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

import click

from jobq.cli import measuring
from jobq.cli.context import FAILED, NOT_FOUND, absolute, as_json_option, refuse, say
from jobq.cli.ending import Ending
from jobq.cli.measuring import Lives, Times
from jobq.cli.render import Table, printable
from jobq.factory import DURABILITIES

BATCHES: Final = (1, 10, 100, 1000)
THREADS: Final = 8
MEASUREMENTS: Final = 3 + len(BATCHES)

_LEAST_S: Final = 0.1
_MOST_S: Final = 3600.0


@dataclass(frozen=True, slots=True)
class Measured:
    """What was measured. Times of `lives` and `wake_up` hold whole calls, commits and all."""

    directory: str
    durability: str
    flush: Times
    lives: list[Lives]
    enqueues_per_s: float
    wake_up: Times


def _refuse_nan(_: click.Context, __: click.Parameter, value: float) -> float:
    """NaN, which no range refuses, as it compares false."""
    if math.isnan(value):
        raise click.BadParameter(f"{value} is not in the range {_LEAST_S:g}<=x<={_MOST_S:g}.")
    return value


@click.command()
@click.argument("directory", metavar="[DIR]", default=".")
@click.option(
    "--durability",
    type=click.Choice(DURABILITIES),
    default=DURABILITIES[0],
    show_default=True,
    help="What a commit waits for: the disk, most of the disk, or nothing.",
)
@click.option(
    "--seconds",
    type=click.FloatRange(_LEAST_S, _MOST_S),
    callback=_refuse_nan,
    default=14,
    show_default=True,
    help="About how long it takes.",
)
@as_json_option("one JSON object")
@click.pass_context
def bench(
    ctx: click.Context, directory: str, *, durability: str, seconds: float, as_json: bool
) -> None:
    """Measure how fast a queue would be in DIR, or in the current directory.

    In a new queue inside of it, which is removed at the end and after an interrupt too. Other
    queues are not touched, and take part of the disk and the processors if they are used meanwhile.
    """
    with Ending() as ending, _place(ctx, directory) as place:
        where = printable(absolute(directory))
        say(f"measuring in {where}, for about {seconds:g} s")
        try:
            measured = _measure(
                ending, place, absolute(directory), durability, seconds / MEASUREMENTS
            )
        except OSError as error:
            refuse(ctx, f"cannot measure in {directory!r}: {error.strerror}")

    click.echo(_as_json(measured) if as_json else _as_text(measured))
    if measured.flush.p50_ms < measuring.NO_FLUSH_MS:
        say("a flush this fast reaches no disk: what is kept here may not outlive a power cut")


def _measure(
    ending: Ending, place: Path, directory: str, durability: str, seconds: float
) -> Measured:
    return Measured(
        directory,
        durability,
        measuring.flushes(ending, place, seconds),
        [
            measuring.lives(ending, place / f"lives-{batch}", durability, batch, seconds)
            for batch in BATCHES
        ],
        measuring.enqueues(ending, place / "enqueues", durability, THREADS, seconds),
        measuring.wake_up(ending, place / "wake-up", durability, seconds),
    )


@contextlib.contextmanager
def _place(ctx: click.Context, directory: str) -> Iterator[Path]:
    """A new directory inside of it; removed at the end."""
    try:
        made = tempfile.TemporaryDirectory(prefix=".jobq-bench-", dir=directory)
    except OSError as error:
        missing = isinstance(error, FileNotFoundError | NotADirectoryError)
        reason = f"cannot measure in {directory!r}: {error.strerror}"
        refuse(ctx, reason, NOT_FOUND if missing else FAILED)
    with made as path:
        yield Path(path)


# What was measured, for people and for programs.


def _as_text(measured: Measured) -> str:
    head = ["jobs at a time", "lives/s", "enqueue", "reserve", "done"]
    rows = [
        [
            f"{one.batch:,}",
            f"{one.lives_per_s:,.0f}",
            *map(_ms, (one.enqueue_ms, one.reserve_ms, one.done_ms)),
        ]
        for one in measured.lives
    ]
    facts = [
        ["", "p50", "p99", "worst"],
        ["one flush of 4 KiB", *_times(measured.flush)],
        ["enqueue to reserve in a process that waits", *_times(measured.wake_up)],
    ]
    durability, rate = measured.durability, f"{measured.enqueues_per_s:,.0f} jobs/s"
    lines = [
        f"durability {durability}; a life is enqueue, reserve and done, times are of a call",
        "",
        *Table(()).lines([head, *rows]),
        "",
        f"{rate} enqueued by {THREADS} threads, each one at a time",
        "",
        *Table({0}).lines(facts),
    ]
    return "\n".join(lines)


def _times(times: Times) -> list[str]:
    return [_ms(times.p50_ms), _ms(times.p99_ms), _ms(times.worst_ms)]


def _ms(milliseconds: float) -> str:
    return f"{milliseconds:.2f} ms"


def _as_json(measured: Measured) -> str:
    # Slow to import, and all other verbs would pay for it.
    from importlib.metadata import version

    machine = {
        "cpus": os.cpu_count(),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "jobq": version("jobq"),
    }
    return json.dumps({**asdict(measured), "threads": THREADS, "machine": machine})
