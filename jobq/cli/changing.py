"""`jobq jobs cancel`, `retry`, `delete` and `edit`: verbs on jobs that are named or selected."""

import json
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import wraps
from typing import Any, Final, cast

import click

from jobq import ids
from jobq.cli import payloads, render
from jobq.cli.context import (
    FAILED,
    NOT_FOUND,
    Verb,
    as_json_option,
    confirm,
    dry_run_option,
    jobs_of,
    known_topic,
    open_queue,
    refuse,
    say,
    set_and_unset,
    yes_option,
)
from jobq.cli.enqueueing import chosen_options, duration, job_options, reader_of
from jobq.cli.payloads import WrongPayload
from jobq.cli.selection import Selection, select_options
from jobq.errors import JobNotFound
from jobq.options import OptionArgs
from jobq.service import JobService
from jobq.states import Event, Outcome, Status, can_move

AT_ONCE: Final = 1000
"""Jobs that are changed in one commit."""

_RAW: Final = 16


@dataclass(frozen=True, slots=True)
class Change:
    """What a verb does to jobs.

    Attributes:
        verb: As it is called here: `cancel`.
        done: What is said of a job afterwards: `canceled`.
        possible: The states in which a job can be changed so.
        usual: The states that it changes where filters do not name any.
        apply: Does it to several.
    """

    verb: str
    done: str
    possible: frozenset[Status]
    usual: frozenset[Status]
    apply: Callable[[JobService, list[str]], list[Outcome]]


@dataclass(frozen=True, slots=True)
class Wanted:
    """What the command line says of a verb on jobs."""

    parts: tuple[str, ...]
    selection: Selection
    everything: bool
    yes: bool
    dry_run: bool
    as_json: bool


def wanted_options(command: Verb) -> Verb:
    """Ids or filters, and how to go about it; the verb gets them as one `wanted`."""

    @click.argument("parts", metavar="[ID]...", nargs=-1)
    @select_options
    @click.option("--all", "everything", is_flag=True, help="All jobs, without any filter.")
    @yes_option
    @dry_run_option
    @as_json_option("one JSON object a job")
    @wraps(command)
    def with_wanted(
        *args: Any,
        parts: tuple[str, ...],
        selection: Selection,
        everything: bool,
        yes: bool,
        dry_run: bool,
        as_json: bool,
        **more: Any,
    ) -> Any:
        wanted = Wanted(parts, selection, everything, yes, dry_run, as_json)
        return command(*args, wanted=wanted, **more)

    return cast("Verb", with_wanted)


@click.command()
@wanted_options
@click.option("--error", metavar="TEXT", help="Why; kept with the jobs.")
@click.pass_context
def cancel(ctx: click.Context, *, wanted: Wanted, error: str | None) -> None:
    """Cancel jobs that are not finished, whoever holds them.

    Filters select ready, delayed and reserved jobs. Several jobs take --yes where nobody can be
    asked.
    """
    possible = _from(Event.CANCEL)
    change = Change(
        "cancel", "canceled", possible, possible, lambda svc, jobs: svc.cancel(jobs, error=error)
    )
    run(ctx, change, wanted)


@click.command()
@wanted_options
@click.pass_context
def retry(ctx: click.Context, *, wanted: Wanted) -> None:
    """Make jobs ready: finished ones as if never tried, delayed ones without their delay.

    Finished jobs go to the back of their weight, delayed ones to the place that they had.
    Filters select canceled jobs unless --status says otherwise. Several jobs take --yes where
    nobody can be asked.
    """
    possible = _from(Event.RESET) | {Status.DELAYED}
    change = Change("retry", "ready", possible, frozenset({Status.CANCELED}), _retry)
    run(ctx, change, wanted)


def _retry(svc: JobService, jobs: list[str]) -> list[Outcome]:
    """Reset what is finished, and end the delay of what is delayed."""
    outcomes = svc.reset(jobs)
    delayed = [
        at
        for at, outcome in enumerate(outcomes)
        if outcome is Outcome.INVALID and _status(svc, jobs[at]) is Status.DELAYED
    ]
    if delayed:
        edited = svc.edit([jobs[at] for at in delayed], delay=0)
        for at, outcome in zip(delayed, edited, strict=True):
            outcomes[at] = outcome
    return outcomes


@click.command()
@wanted_options
@click.pass_context
def delete(ctx: click.Context, *, wanted: Wanted) -> None:
    """Forget jobs that nobody holds: nothing of them is left.

    Filters select jobs in every state but reserved. Several jobs take --yes where nobody can be
    asked.
    """
    possible = _from(Event.DELETE)
    change = Change("delete", "deleted", possible, possible, lambda svc, jobs: svc.delete(jobs))
    run(ctx, change, wanted)


@click.command()
@click.argument("parts", metavar="ID...", nargs=-1, required=True)
@click.option("--topic", "-t", help="Move them to the back of this topic.")
@click.option("--weight", type=int, help="Lower is served first; int16.")
@click.option(
    "--delay", type=duration, metavar="DURATION", help="How long until they are ready; 0 for now."
)
@click.option("--payload", help="The new payload, in JSON; - reads it from stdin.")
@click.option("--text", is_flag=True, help="The new payload is text, not JSON.")
@click.option("--raw", is_flag=True, help="The new payload is bytes, not JSON.")
@job_options
@click.option(
    "--unset",
    multiple=True,
    type=click.Choice(sorted(OptionArgs.__annotations__)),
    help="Take back an option, so that the default holds; may be given several times.",
)
@yes_option
@dry_run_option
@as_json_option("one JSON object a job")
@click.pass_context
def edit(
    ctx: click.Context,
    /,
    parts: tuple[str, ...],
    *,
    topic: str | None,
    weight: int | None,
    delay: float | None,
    payload: str | None,
    text: bool,
    raw: bool,
    unset: tuple[str, ...],
    yes: bool,
    dry_run: bool,
    as_json: bool,
    **options: Any,
) -> None:
    """Change jobs that wait, ready or delayed. What is not given stays as it is.

    Several jobs take --yes where nobody can be asked.
    """
    reader = reader_of(ctx, text=text, raw=raw)
    given = chosen_options({"topic": topic, "weight": weight, "delay": delay, **options})
    changes = set_and_unset(ctx, given, unset)
    try:
        if payload == payloads.STDIN:
            changes["payload"] = payloads.of_stream(sys.stdin.buffer, reader)
        elif payload is not None:
            changes["payload"] = payloads.of_argument(payload, reader)
    except WrongPayload as error:
        refuse(ctx, str(error))
    if not changes:
        raise click.UsageError("what is to change? Give at least one option", ctx)
    possible = _from(Event.EDIT)
    change = Change(
        "edit", "edited", possible, possible, lambda svc, jobs: svc.edit(jobs, **changes)
    )
    wanted = Wanted(parts, Selection(), everything=False, yes=yes, dry_run=dry_run, as_json=as_json)
    run(ctx, change, wanted)


def _from(event: Event) -> frozenset[Status]:
    """The states from which *event* leads."""
    return frozenset(status for status in Status if can_move(status, event))


def run(ctx: click.Context, change: Change, wanted: Wanted) -> None:
    """Look up what is wanted, ask if it is much, and do it."""
    filtered = wanted.everything or not wanted.selection.everything
    if wanted.parts and filtered:
        raise click.UsageError("give IDs, or filters, not both", ctx)
    if not wanted.parts and not filtered:
        raise click.UsageError(
            "which jobs? Give IDs, or --topic, --status, --name, --tag or --all", ctx
        )
    with open_queue(ctx) as svc:
        if wanted.parts:
            _run_on_named(ctx, svc, change, wanted)
        else:
            _run_on_selected(ctx, svc, change, wanted)


def _run_on_named(ctx: click.Context, svc: JobService, change: Change, wanted: Wanted) -> None:
    """All parts are looked up before anything changes; a line a job, and the worst decides."""
    jobs = jobs_of(ctx, svc, wanted.parts)
    if wanted.dry_run:
        outcomes = [_would(svc, change, job_id) for job_id in jobs]
    else:
        if len(jobs) > 1:
            confirm(ctx, f"{change.verb} {render.count(len(jobs), 'job')}", yes=wanted.yes)
        outcomes = change.apply(svc, jobs)
    for job_id, outcome in zip(jobs, outcomes, strict=True):
        if wanted.as_json:
            click.echo(_as_json(job_id, outcome))
        elif outcome is Outcome.OK:
            click.echo(f"{job_id} {'would be ' if wanted.dry_run else ''}{change.done}")
        if outcome is not Outcome.OK:
            say(_why(svc, change, job_id))
    if Outcome.MISSING in outcomes:
        ctx.exit(NOT_FOUND)
    if set(outcomes) - {Outcome.OK}:
        ctx.exit(FAILED)


def _run_on_selected(ctx: click.Context, svc: JobService, change: Change, wanted: Wanted) -> None:
    """What is confirmed is what is changed: jobs that come later are not.

    Some may have moved on when it comes to them. They are left as they are, and counted.
    """
    selection = _possible(ctx, change, wanted.selection)
    if selection.topic is not None:
        known_topic(ctx, svc, selection.topic)
    chosen = bytearray()  # 16 bytes a job: there may be millions
    for job in selection.found(svc, None, AT_ONCE):
        chosen += ids.to_raw(job.id)
    number = len(chosen) // _RAW
    if wanted.dry_run:
        if wanted.as_json:
            for page in _pages(chosen):
                for job_id in page:
                    click.echo(_as_json(job_id, Outcome.OK))
        what = render.count(number, "job")
        say(f"would {change.verb} {what} ({selection})")
        return
    if number:
        what = f"{change.verb} {render.count(number, 'job')} ({selection})"
        confirm(ctx, what, yes=wanted.yes)
    counts: Counter[Outcome] = Counter()
    try:
        for page in _pages(chosen):
            outcomes = change.apply(svc, page)
            counts.update(outcomes)
            if wanted.as_json:
                for job_id, outcome in zip(page, outcomes, strict=True):
                    click.echo(_as_json(job_id, outcome))
    except BrokenPipeError:
        did = f"{change.done}: {render.count(counts[Outcome.OK], 'job')}"
        say(f"nobody reads the outcomes any more; {did}, the others are left as they are")
        raise
    moved = number - counts[Outcome.OK]
    left = f", {moved:,} had moved on meanwhile" if moved else ""
    click.echo(
        f"{change.done}: {render.count(counts[Outcome.OK], 'job')}{left}", err=wanted.as_json
    )


def _possible(ctx: click.Context, change: Change, selection: Selection) -> Selection:
    """The selection, of jobs that can be changed so."""
    wrong = selection.statuses - change.possible
    if wrong:
        raise click.UsageError(
            f"cannot {change.verb} {', '.join(sorted(wrong))} jobs (only {_only(change)} ones)", ctx
        )
    return replace(selection, statuses=selection.statuses or change.usual)


def _pages(chosen: bytearray) -> Iterator[list[str]]:
    for start in range(0, len(chosen), AT_ONCE * _RAW):
        page = chosen[start : start + AT_ONCE * _RAW]
        yield [ids.to_text(bytes(page[at : at + _RAW])) for at in range(0, len(page), _RAW)]


def _would(svc: JobService, change: Change, job_id: str) -> Outcome:
    """What would become of it."""
    status = _status(svc, job_id)
    if status is None:
        return Outcome.MISSING
    return Outcome.OK if status in change.possible else Outcome.INVALID


def _why(svc: JobService, change: Change, job_id: str) -> str:
    """Why a job was not changed."""
    status = _status(svc, job_id)
    if status is None:
        return f"no job {job_id}: it was deleted meanwhile, or its retention is over"
    return f"job {job_id} is {status}: cannot {change.verb} (only {_only(change)} jobs can)"


def _only(change: Change) -> str:
    return ", ".join(status for status in Status if status in change.possible)


def _status(svc: JobService, job_id: str) -> Status | None:
    try:
        return svc.status(job_id)
    except JobNotFound:
        return None


def _as_json(job_id: str, outcome: Outcome) -> str:
    return json.dumps({"id": job_id, "outcome": str(outcome)})
