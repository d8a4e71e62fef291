"""What anybody may ask of jobs: cancel, reset, delete."""

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import reduce
from operator import or_
from typing import Final

from jobq.errors import StoreCorrupt
from jobq.options import UNSET, JobOptions
from jobq.repo.base import Retention
from jobq.repo.operations.damage import tried
from jobq.repo.operations.finding import meets
from jobq.repo.operations.flow import deadlines, groups, lingering, uniques
from jobq.repo.operations.history import keep_attempt, succeeded_at_once, with_attempt, with_error
from jobq.repo.operations.places import (
    Ending,
    finish,
    forget,
    make_ready,
    withdraw,
)
from jobq.repo.operations.rebuild import rebuild
from jobq.repo.repositories import (
    KEYLESS,
    LISTED,
    NOBODY,
    TERMS,
    JobBody,
    JobState,
    Note,
    Transaction,
    Waiting,
    initial_state,
    terms_of,
)
from jobq.selector import Selector
from jobq.states import Event, Outcome, Reason, Status, can_move
from jobq.topic import TopicSettings

Chosen = dict[bytes, tuple[JobBody, JobState]]
"""Jobs to which something happens, as they were before."""


def select(
    tx: Transaction,
    ids: Sequence[bytes],
    event: Event,
    again: Callable[[JobBody, JobState], Outcome],
    where: Selector | None,
    unreadable: set[bytes] | None = None,
) -> tuple[list[Outcome], Chosen]:
    """The jobs among *ids* to which *event* can happen, each once, and every outcome.

    Only those that match *where*, if there is one: their ids were read in another transaction.
    *again* gives the outcome for one of them that is named again, from what it was: the second
    mention meets what the first has left. To jobs that cannot be read nothing can happen: they are
    added to *unreadable*.

    Raises:
        StoreCorrupt: The only job cannot be read, and *unreadable* was not given.
    """
    outcomes: list[Outcome] = []
    chosen: Chosen = {}
    for job_id, both in zip(ids, tried(tx.jobs.both, ids), strict=True):
        if isinstance(both, StoreCorrupt):
            if unreadable is not None:
                unreadable.add(job_id)
            elif len(ids) == 1:
                raise both
            outcomes.append(Outcome.INVALID)
        elif both is None:
            outcomes.append(Outcome.MISSING)
        elif job_id in chosen:
            outcomes.append(again(*both))
        elif can_move(both[1].status, event) and (where is None or meets(tx, where, job_id, *both)):
            outcomes.append(Outcome.OK)
            chosen[job_id] = both
        else:
            outcomes.append(Outcome.INVALID)
    return outcomes, chosen


def states_of(chosen: Chosen) -> list[tuple[bytes, JobState]]:
    """The jobs with their states alone."""
    return [(job_id, state) for job_id, (_, state) in chosen.items()]


def cancel(
    tx: Transaction,
    ids: Sequence[bytes],
    error: str | None,
    retention: Retention,
    where: Selector | None = None,
) -> list[Outcome]:
    """Cancel jobs that are not finished, whoever holds them."""

    def again(body: JobBody, state: JobState) -> Outcome:
        keep_us = body.options.retention_us
        if keep_us is None:
            keep_us = tx.topics.settings(state.topic).keep_us(Status.CANCELED)
        if keep_us is None:
            keep_us = retention.canceled_us
        return Outcome.INVALID if keep_us else Outcome.MISSING

    outcomes, chosen = select(tx, ids, Event.CANCEL, again, where)
    withdraw(tx, states_of(chosen))
    endings: list[Ending] = []
    for job_id, (body, state) in chosen.items():
        if state.status is Status.RESERVED:
            lingering.begin(tx, job_id, state, body.options)
            state = state._replace(notes=with_attempt(tx, job_id, state, Event.CANCEL, error))
        elif error is not None:
            state = state._replace(notes=with_error(tx, job_id, state, error))
        keep_us = body.options.retention_us
        endings.append(Ending(job_id, state, Status.CANCELED, Reason.CANCELED, None, keep_us))
    finish(tx, endings, retention)
    return outcomes


def size_of_reset(ids: Sequence[bytes], ends: JobOptions) -> int:
    """About how many bytes the jobs may grow by: they do if they get deadlines."""
    return 0 if ends is UNSET else 256 * len(ids)


def reset(
    tx: Transaction,
    ids: Sequence[bytes],
    where: Selector | None = None,
    ends: JobOptions = UNSET,
) -> list[Outcome]:
    """Make finished jobs ready again, at the back of their weight, with fresh counts.

    Of *ends*, deadline and time to live are their new ones; the old ones go.
    """
    outcomes, chosen = select(tx, ids, Event.RESET, lambda *_: Outcome.INVALID, where)
    if any(state.notes & TERMS for _, state in chosen.values()):
        _refuse_without_key(tx, ids, outcomes, chosen)
    renewed = _with_new_ends(tx, chosen, ends)
    withdraw(tx, states_of(chosen))
    _rewrite(tx, chosen, renewed)
    seq = tx.topics.next_seq(len(chosen))
    queues: defaultdict[tuple[int, int], list[Waiting]] = defaultdict(list)
    sizes: defaultdict[int, int] = defaultdict(int)
    moved = []
    for place, (job_id, (_, state)) in enumerate(chosen.items(), start=seq):
        if job_id in renewed:
            options = renewed[job_id]
            group = options.group
            lane = state.topic if group is None else groups.lane_for(tx, state.topic, group)
            notes = (state.notes & ~(TERMS | KEYLESS)) | terms_of(options)
            state = state._replace(notes=notes, lane=lane)
            uniques.take(tx, job_id, options)
        new = state._replace(
            status=Status.READY, reason=None, settled=None, seq=place, retries=0, crashes=0,
            resets=state.resets + 1, at_us=0, slot=0, holder=NOBODY, ended_us=0,
            notes=_renewed(tx, job_id, state),
        )  # fmt: skip
        moved.append((job_id, new))
        queues[state.topic, new.lane].append(Waiting(state.weight, place, job_id))
        sizes[state.topic] += state.size
    tx.jobs.update(moved)
    for number, size in sizes.items():
        tx.topics.add_size(number, size)
    for (number, lane), waiting in queues.items():
        make_ready(tx, number, lane, waiting)
    return outcomes


def _refuse_without_key(
    tx: Transaction, ids: Sequence[bytes], outcomes: list[Outcome], chosen: Chosen
) -> None:
    """A finished job whose unique key another one has by now stays finished."""
    taken: set[str] = set()
    for job_id, (body, _) in list(chosen.items()):
        name = body.options.unique
        if name is None:
            continue
        if name in taken or uniques.holder(tx, name) not in {None, job_id}:
            del chosen[job_id]
            for position, other in enumerate(ids):
                if other == job_id:
                    outcomes[position] = Outcome.CONFLICT
        else:
            taken.add(name)


def _with_new_ends(tx: Transaction, chosen: Chosen, ends: JobOptions) -> dict[bytes, JobOptions]:
    """The options of jobs that begin anew, of those that have terms, had some, or get some."""
    numbers = {state.topic for _, state in chosen.values()}
    settings = {number: tx.topics.settings(number) for number in numbers}
    renewed = {}
    for job_id, (body, state) in chosen.items():
        options = _with_ends(tx, body.options, ends, settings[state.topic])
        if state.notes & TERMS or options.has_terms:
            renewed[job_id] = options
    return renewed


def _with_ends(
    tx: Transaction, old: JobOptions, ends: JobOptions, settings: TopicSettings
) -> JobOptions:
    """The options with a deadline as of a job that is enqueued now: the old one was of then."""
    if ends is UNSET and settings.ttl is None and old.deadline is None:
        return old
    new = replace(old, deadline=ends.deadline, ttl=ends.ttl)
    return replace(new, deadline=deadlines.resolved(tx, new, settings))


def _rewrite(tx: Transaction, chosen: Chosen, renewed: dict[bytes, JobOptions]) -> None:
    """Options stand in the body, and the body says where a deadline is looked after."""
    bodies = []
    changed = []
    for job_id, options in renewed.items():
        old, _ = chosen[job_id]
        bodies.append((job_id, old._replace(options=options)))
        if options != old.options:
            changed.append(bodies[-1])
    if changed:
        tx.jobs.rewrite(changed)
    deadlines.watch(tx, bodies)


def _renewed(tx: Transaction, job_id: bytes, state: JobState) -> int:
    """The notes of a job that begins anew: its attempts and its log stay, what came of it goes."""
    for note in (Note.RESULT, Note.PROGRESS):
        if state.notes & note:
            tx.jobs.drop_note(job_id, note)
    # What stands in the state only has to be told now, or the next reservation would cover it.
    for attempt in succeeded_at_once(tx, state):
        state = state._replace(notes=keep_attempt(tx, job_id, state, attempt))
    notes = with_error(tx, job_id, state, None) if state.notes & Note.HISTORY else state.notes
    return notes & ~(Note.RESULT | Note.PROGRESS | LISTED)


def delete(
    tx: Transaction, ids: Sequence[bytes], where: Selector | None = None
) -> tuple[list[Outcome], bool]:
    """Forget jobs that nobody holds; also such as cannot be read.

    Nobody can say in which queues, agendas and counts one of these stands: so all are made anew,
    which takes as long as a repair. The second value says whether they were.

    Raises:
        StoreCorrupt: They cannot be made anew.
    """
    lost: set[bytes] = set()
    outcomes, chosen = select(tx, ids, Event.DELETE, lambda *_: Outcome.MISSING, where, lost)
    forget(tx, states_of(chosen))
    free = {job_id for job_id in lost if not _is_held(tx, job_id)}
    if free:
        tx.jobs.delete([(job_id, _ANY_STATE) for job_id in sorted(free)])
        tx.topics.clear()
        rebuild(tx, mend=True)
    for place, job_id in enumerate(ids):
        if job_id in free:
            outcomes[place] = Outcome.MISSING if job_id in ids[:place] else Outcome.OK
    return outcomes, bool(free)


def _is_held(tx: Transaction, job_id: bytes) -> bool:
    """Whether a job of which not everything can be read is reserved, as far as one can tell."""
    try:
        (state,) = tx.jobs.states([job_id])
    except StoreCorrupt:
        return False
    return state is not None and state.status is Status.RESERVED


_ANY_STATE: Final = initial_state(JobBody(0, 0, 0, 0, 0, 0, UNSET, b"", 0))._replace(
    notes=reduce(or_, Note)
)
"""Stands for the state of a job that cannot be read, and may have notes of every kind."""
