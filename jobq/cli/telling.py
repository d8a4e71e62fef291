"""What is told while many jobs are changed: each outcome as JSON, or how far it has come."""

import json
import sys
import time
from typing import ClassVar, Final, Self

import click

from jobq.cli.context import NOT_FOUND, say
from jobq.cli.render import printable, size
from jobq.repo.base import CopyProgress
from jobq.service import BulkProgress, BulkResult
from jobq.states import Outcome

SHOWN_EACH_S: Final = 0.1
"""Seconds between two looks at how far it has come, on a terminal."""


class Telling:
    """What is told while a selection is changed: outcomes as JSON, or on a terminal how far it is.

    Attributes:
        matched: How many jobs matched so far.
        changed: How many were changed so far.
        left: How many had moved on in the parts that are over.
        conflicts: How many could not be changed there because others have their unique keys.
    """

    def __init__(self, as_json: bool) -> None:  # noqa: FBT001 - as the command line has it
        self._as_json = as_json
        self._shows = sys.stderr.isatty() and not as_json
        self._next_s = time.monotonic() + SHOWN_EACH_S
        self._shown = ""
        self._before = (0, 0)
        self.matched = self.changed = self.left = self.conflicts = 0

    def __call__(self, step: BulkProgress) -> None:
        """A step was made."""
        matched, changed = self._before
        self.matched, self.changed = matched + step.matched, changed + step.changed
        if self._as_json:
            for job_id, outcome in step.outcomes.items():
                click.echo(outcome_as_json(job_id, outcome))
        elif self._shows and time.monotonic() >= self._next_s:
            self._next_s = time.monotonic() + SHOWN_EACH_S
            self._show(
                f"{step.looked:,} looked at, {self.matched:,} match, {self.changed:,} changed"
            )

    def of(self, result: BulkResult) -> None:
        """A part is over."""
        self._before = (self.matched, self.changed)
        conflicts = result.outcomes.get(Outcome.CONFLICT, 0)
        self.left += result.left - conflicts
        self.conflicts += conflicts

    def end(self) -> None:
        """Take away the line on the terminal."""
        if self._shown:
            self._show("")

    def _show(self, text: str) -> None:
        click.echo("\r" + text.ljust(len(self._shown)) + ("" if text else "\r"), nl=False, err=True)
        self._shown = text


class Copying:
    """On a terminal, how far a copy of a queue is: one line on stderr, taken away at the end."""

    _WORDS: ClassVar = {
        "copy": "copying, {} of {}",
        "pages": "verifying {1}",
        "records": "verifying, {} of {} records",
    }

    def __init__(self) -> None:
        self._shows = sys.stderr.isatty()
        self._width = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._width:
            click.echo(f"\r{'':<{self._width}}\r", nl=False, err=True)

    def __call__(self, step: CopyProgress) -> None:
        """So far it is."""
        if self._shows:
            show = "{:,}".format if step.step == "records" else size
            text = self._WORDS[step.step].format(show(step.done), show(step.total))
            click.echo(f"\r{text:<{self._width}}", nl=False, err=True)
            self._width = len(text)


def outcome_as_json(job_id: str, outcome: Outcome) -> str:
    """What became of a job, as one line."""
    return json.dumps({"id": job_id, "outcome": str(outcome)})


def tell_released(
    ctx: click.Context, outcomes: dict[str, Outcome], *, kind: str, missing: str, as_json: bool
) -> None:
    """A line for each name of a *kind* that was to be released; those not there decide the end."""
    for name, outcome in outcomes.items():
        if as_json:
            click.echo(json.dumps({kind: name, "outcome": str(outcome)}))
        elif outcome is Outcome.OK:
            click.echo(f"{printable(name)} released")
        if outcome is not Outcome.OK:
            say(missing.format(name))
    if set(outcomes.values()) != {Outcome.OK}:
        ctx.exit(NOT_FOUND)
