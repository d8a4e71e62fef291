"""`jobq jobs cancel`, `retry`, `delete` and `edit`: verbs on jobs that are named or selected."""

import sys
from collections.abc import Callable
from dataclasses import dataclass, fields
from datetime import datetime
from functools import partial, wraps
from typing import Any, Final, cast

import click

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
from jobq.cli.enqueueing import reader_of
from jobq.cli.options import EPILOG, chosen_options, duration, ends_options, job_options
from jobq.cli.payloads import WrongPayload
from jobq.cli.selection import NAMES, Filters, filter_options, selection_of, where_option
from jobq.cli.telling import Telling, outcome_as_json
from jobq.errors import JobNotFound
from jobq.options import OptionArgs
from jobq.selector import EVERY_STATUS
from jobq.service import BulkResult, JobService, Selection
from jobq.states import Event, Outcome, Status, can_move

Step = Callable[..., BulkResult]
"""A verb of `Selection`; it takes `dry_run` and `progress`."""


@dataclass(frozen=True, slots=True)
class Change:
    """What a verb does to jobs.

    Attributes:
        verb: As it is called here: `cancel`.
        done: What is said of a job afterwards: `canceled`.
        possible: The states in which a job can be changed so.
        usual: The states that it changes where filters do not name any.
        apply: Does it to several.
        bulk: Does it to a selection: jobs in which states, and how.
    """

    verb: str
    done: str
    possible: frozenset[Status]
    usual: frozenset[Status]
    apply: Callable[[JobService, list[str]], list[Outcome]]
    bulk: tuple[tuple[frozenset[Status], Callable[[Selection], Step]], ...]


@dataclass(frozen=True, slots=True)
class Wanted:
    """What the command line says of a verb on jobs."""

    parts: tuple[str, ...]
    filters: Filters
    everything: bool
    yes: bool
    dry_run: bool
    as_json: bool


all_option: Final = click.option(
    "--all", "everything", is_flag=True, help="All jobs, without any filter."
)
rate_option: Final = click.option(
    "--rate",
    type=float,
    metavar="JOBS",
    help="No more than so many jobs a second, of those that filters select.",
)


def wanted_options(command: Verb) -> Verb:
    """Ids or filters, and how to go about it; the verb gets them as one `wanted`."""

    @click.argument("parts", metavar="[ID]...", nargs=-1)
    @filter_options()
    @all_option
    @yes_option
    @dry_run_option
    @as_json_option("one JSON object a job")
    @wraps(command)
    def with_wanted(*args: Any, **more: Any) -> Any:
        wanted = Wanted(**{field.name: more.pop(field.name) for field in fields(Wanted)})
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
        "cancel",
        "canceled",
        possible,
        possible,
        lambda svc, jobs: svc.cancel(jobs, error=error),
        ((possible, lambda chosen: partial(chosen.cancel, error=error)),),
    )
    run(ctx, change, wanted)


@click.command(epilog=EPILOG)
@wanted_options
@ends_options
@rate_option
@click.pass_context
def retry(
    ctx: click.Context,
    *,
    wanted: Wanted,
    deadline: datetime | None,
    ttl: float | None,
    rate: float | None,
) -> None:
    """Make jobs ready: finished ones as if never tried, delayed ones without their delay.

    Finished jobs go to the back of their weight, delayed ones to the place that they had.
    Finished jobs lose the deadline that they had; --deadline and --ttl give all of them a new one.
    Filters select canceled jobs unless --status says otherwise. Several jobs take --yes where
    nobody can be asked.
    """
    run(ctx, retrying(rate, deadline, ttl), wanted)


def retrying(rate: float | None, deadline: datetime | None, ttl: float | None) -> Change:
    """To make jobs ready, no more than *rate* a second of those that are selected."""
    ends = chosen_options({"deadline": deadline, "ttl": ttl})
    return Change(
        "retry",
        "ready",
        _from(Event.RESET) | {Status.DELAYED},
        frozenset({Status.CANCELED}),
        lambda svc, jobs: _retry(svc, jobs, ends),
        (
            (_from(Event.RESET), lambda chosen: partial(chosen.reset, rate=rate, **ends)),
            (
                frozenset({Status.DELAYED}),
                lambda chosen: partial(chosen.edit, delay=0, rate=rate, **ends),
            ),
        ),
    )


def _retry(svc: JobService, jobs: list[str], ends: dict[str, Any]) -> list[Outcome]:
    """Reset what is finished, and end the delay of what is delayed; all of them with these ends."""
    outcomes = svc.reset(jobs, **ends)
    delayed = [
        at
        for at, outcome in enumerate(outcomes)
        if outcome is Outcome.INVALID and _status(svc, jobs[at]) is Status.DELAYED
    ]
    if delayed:
        edited = svc.edit([jobs[at] for at in delayed], delay=0, **ends)
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
    run(ctx, deleting("delete", "deleted"), wanted)


def deleting(verb: str, done: str) -> Change:
    """To forget jobs."""
    possible = _from(Event.DELETE)
    return Change(
        verb,
        done,
        possible,
        possible,
        lambda svc, jobs: svc.delete(jobs),
        ((possible, lambda chosen: chosen.delete),),
    )


@click.command()
@wanted_options
@click.option("--to", metavar="TOPIC", required=True, help="The topic to go to.")
@click.pass_context
def move(ctx: click.Context, *, wanted: Wanted, to: str) -> None:
    """Move jobs that wait, ready or delayed, to another topic, to the back of their weight there.

    Several jobs take --yes where nobody can be asked.
    """
    run(ctx, _editing("move", f"moved to {render.printable(to)}", {"topic": to}), wanted)


@click.command(epilog=EPILOG)
@click.argument("parts", metavar="[ID]...", nargs=-1)
@where_option
@all_option
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
    filters: Filters,
    everything: bool,
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

    Jobs are named by ids, or selected: --where topic=mail --where older-than=1d. Several jobs take
    --yes where nobody can be asked.
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
    wanted = Wanted(parts, filters, everything, yes=yes, dry_run=dry_run, as_json=as_json)
    run(ctx, _editing("edit", "edited", changes), wanted, "--where or --all")


def _editing(verb: str, done: str, changes: dict[str, Any]) -> Change:
    """To change jobs that wait."""
    possible = _from(Event.EDIT)
    return Change(
        verb,
        done,
        possible,
        possible,
        lambda svc, jobs: svc.edit(jobs, **changes),
        ((possible, lambda chosen: partial(chosen.edit, **changes)),),
    )


def _from(event: Event) -> frozenset[Status]:
    """The states from which *event* leads."""
    return frozenset(status for status in Status if can_move(status, event))


def run(ctx: click.Context, change: Change, wanted: Wanted, names: str = NAMES) -> None:
    """Look up what is wanted, ask if it is much, and do it.

    *names* is what somebody is told who did not say which jobs.
    """
    filtered = wanted.everything or bool(wanted.filters)
    if wanted.parts and filtered:
        raise click.UsageError("give IDs, or filters, not both", ctx)
    if wanted.everything and wanted.filters:
        raise click.UsageError("--all takes no filters", ctx)
    if not wanted.parts and not filtered:
        raise click.UsageError(f"which jobs? Give IDs, or {names}", ctx)
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
            click.echo(outcome_as_json(job_id, outcome))
        elif outcome is Outcome.OK:
            click.echo(f"{job_id} {'would be ' if wanted.dry_run else ''}{change.done}")
        if outcome is not Outcome.OK:
            say(_why(svc, change, job_id, outcome))
    if Outcome.MISSING in outcomes:
        ctx.exit(NOT_FOUND)
    if set(outcomes) - {Outcome.OK}:
        ctx.exit(FAILED)


def _run_on_selected(ctx: click.Context, svc: JobService, change: Change, wanted: Wanted) -> None:
    """What is changed are jobs that were there when somebody was asked: none that come later.

    Some may have moved on when it comes to them. They are left as they are, and counted.
    """
    if "topic" in wanted.filters:
        known_topic(ctx, svc, wanted.filters["topic"])
    statuses = _statuses(ctx, svc, change, wanted.filters)
    text = str(svc.select(**{**wanted.filters, "status": statuses}))
    parts = [
        (svc.select(**{**wanted.filters, "status": some}).present(), verb)
        for possible, verb in change.bulk
        if (some := statuses & possible)
    ]
    if wanted.dry_run:
        told = Telling(wanted.as_json)
        for chosen, verb in parts:
            told.of(verb(chosen)(dry_run=True, progress=told))
        told.end()
        say(f"would {change.verb} {render.count(told.matched, 'job')} ({text})")
        return
    if not wanted.yes:
        number = sum(chosen.count() for chosen, _ in parts)
        if number:
            confirm(ctx, f"{change.verb} {render.count(number, 'job')} ({text})", yes=False)
    told = Telling(wanted.as_json)
    try:
        for chosen, verb in parts:
            told.of(verb(chosen)(progress=told))
    except OSError as error:
        gone = "nobody reads the outcomes any more; " if isinstance(error, BrokenPipeError) else ""
        did = f"{change.done}: {render.count(told.changed, 'job')}"
        say(f"{gone}{did}, the others are left as they are")
        raise
    told.end()
    left = f", {told.left:,} had moved on meanwhile" if told.left else ""
    if told.conflicts:
        left += f", {told.conflicts:,} stay as they are: other jobs have their unique keys"
    click.echo(f"{change.done}: {render.count(told.changed, 'job')}{left}", err=wanted.as_json)


def _statuses(
    ctx: click.Context, svc: JobService, change: Change, filters: Filters
) -> frozenset[Status]:
    """The states of jobs that are selected: those that the filters say, or the usual ones."""
    named = selection_of(svc, filters).statuses
    if named == EVERY_STATUS:
        return change.usual
    wrong = named - change.possible
    if wrong:
        raise click.UsageError(
            f"cannot {change.verb} {', '.join(sorted(wrong))} jobs (only {_only(change)} ones)", ctx
        )
    return named


def _would(svc: JobService, change: Change, job_id: str) -> Outcome:
    """What would become of it."""
    status = _status(svc, job_id)
    if status is None:
        return Outcome.MISSING
    return Outcome.OK if status in change.possible else Outcome.INVALID


def _why(svc: JobService, change: Change, job_id: str, outcome: Outcome) -> str:
    """Why a job was not changed."""
    status = _status(svc, job_id)
    if status is None:
        return f"no job {job_id}: it was deleted meanwhile, or its retention is over"
    if outcome is Outcome.CONFLICT:
        return f"job {job_id} stays {status}: another job has its unique key"
    return f"job {job_id} is {status}: cannot {change.verb} (only {_only(change)} jobs can)"


def _only(change: Change) -> str:
    return ", ".join(status for status in Status if status in change.possible)


def _status(svc: JobService, job_id: str) -> Status | None:
    try:
        return svc.status(job_id)
    except JobNotFound:
        return None
