"""What anybody may ask of jobs: cancel, reset, delete, purge."""

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import takewhile
from typing import Final

from jobq.job import LEAST_WEIGHT, MOST_WEIGHT
from jobq.options import JobOptions
from jobq.repo.base import Purged, PurgeFrom, Retention
from jobq.repo.operations import groups, lingering, uniques
from jobq.repo.operations.damage import damaged
from jobq.repo.operations.finding import meets
from jobq.repo.operations.history import keep_attempt, succeeded_at_once, with_attempt, with_error
from jobq.repo.operations.places import (
    Ending,
    finish,
    forget,
    make_ready,
    withdraw,
)
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
    terms_of,
)
from jobq.selector import Selector
from jobq.states import Event, Outcome, Reason, Status, can_move

Chosen = dict[bytes, tuple[JobBody, JobState]]
"""Jobs to which something happens, as they were before."""

PAGE: Final = 64
"""How many jobs a purge reads at once: those that have not moved come with their payloads."""


def select(
    tx: Transaction,
    ids: Sequence[bytes],
    event: Event,
    again: Callable[[JobBody, JobState], Outcome],
    where: Selector | None,
) -> tuple[list[Outcome], Chosen]:
    """The jobs among *ids* to which *event* can happen, each once, and every outcome.

    Only those that match *where*, if there is one: their ids were read in another transaction.
    *again* gives the outcome for one of them that is named again, from what it was: the second
    mention meets what the first has left.
    """
    outcomes: list[Outcome] = []
    chosen: Chosen = {}
    for job_id, both in zip(ids, tx.jobs.both(ids), strict=True):
        if both is None:
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


def reset(tx: Transaction, ids: Sequence[bytes], where: Selector | None = None) -> list[Outcome]:
    """Make finished jobs ready again, at the back of their weight, with fresh counts."""
    outcomes, chosen = select(tx, ids, Event.RESET, lambda *_: Outcome.INVALID, where)
    bound = {job_id: both for job_id, both in chosen.items() if both[1].notes & TERMS}
    if bound:
        _refuse_without_key(tx, ids, outcomes, chosen, bound)
    withdraw(tx, states_of(chosen))
    renewed = _without_deadlines(tx, bound)
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
    tx: Transaction, ids: Sequence[bytes], outcomes: list[Outcome], chosen: Chosen, bound: Chosen
) -> None:
    """A finished job whose unique key another one has by now stays finished."""
    taken: set[str] = set()
    for job_id in list(bound):
        name = bound[job_id][0].options.unique
        if name is None:
            continue
        if name in taken or uniques.holder(tx, name) not in {None, job_id}:
            del bound[job_id], chosen[job_id]
            for position, other in enumerate(ids):
                if other == job_id:
                    outcomes[position] = Outcome.CONFLICT
        else:
            taken.add(name)


def _without_deadlines(tx: Transaction, bound: Chosen) -> dict[bytes, JobOptions]:
    """The options of jobs with terms that begin anew: their time to live was that of then."""
    options = {}
    rewritten = []
    for job_id, (body, _) in bound.items():
        new = body.options
        if new.deadline is not None:
            new = replace(new, deadline=None, ttl=None)
            rewritten.append((job_id, body._replace(options=new)))
        options[job_id] = new
    if rewritten:
        tx.jobs.rewrite(rewritten)
    return options


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


def delete(tx: Transaction, ids: Sequence[bytes], where: Selector | None = None) -> list[Outcome]:
    """Forget jobs that nobody holds."""
    outcomes, chosen = select(tx, ids, Event.DELETE, lambda *_: Outcome.MISSING, where)
    forget(tx, states_of(chosen))
    return outcomes


def purge(
    tx: Transaction, topic: str, statuses: frozenset[Status], after: PurgeFrom | None, limit: int
) -> Purged:
    """A step of forgetting a topic's jobs: first its queue, which costs no look at any other job.

    For the other statuses all jobs of the store are looked at, by id, until the topic counts none
    of them. That the jobs of then are told from later ones by their places, and that the walk has
    an end, lets it come to one while others enqueue.
    """
    number = tx.topics.known(topic)
    last = tx.jobs.last_id()
    if number is None or last is None:
        return Purged(0, None)
    seq, last, weight, job_id = after or PurgeFrom(tx.topics.next_seq(0) - 1, last, LEAST_WEIGHT)
    count = 0
    if Status.READY not in statuses:
        weight = None
    if weight is not None:
        ready, weight, limit = _ready(tx, number, seq, weight, limit)
        states = tx.jobs.states([waiting.id for waiting in ready])
        if not all(states):
            raise damaged(f"the queue of topic {topic!r} names a job that is not there")
        forget(tx, [(job.id, state) for job, state in zip(ready, states, strict=True) if state])
        count += len(ready)
    if weight is not None:
        return Purged(count, PurgeFrom(seq, last, weight, job_id))
    # Jobs of groups stand in queues of their own: they are found by the walk as well.
    walked = statuses if groups.has_lanes(tx, number) else statuses - {Status.READY}
    while limit > 0:
        counts = tx.topics.counts(number)
        if job_id >= last or not any(counts[status] for status in walked):
            return Purged(count, None)
        ids = tx.jobs.ids(job_id, min(PAGE, limit))
        found = [
            (one, state)
            for one, state in zip(ids, tx.jobs.states(ids), strict=True)
            if state is not None
            and state.topic == number
            and state.status in statuses
            and state.seq <= seq
            and one <= last
        ]
        forget(tx, found)
        count += len(found)
        limit -= len(ids)
        job_id = ids[-1] if ids else last
    return Purged(count, PurgeFrom(seq, last, None, job_id))


def _ready(
    tx: Transaction, number: int, seq: int, weight: int, limit: int
) -> tuple[list[Waiting], int | None, int]:
    """The topic's ready jobs with places up to *seq*, from a weight on; no more than *limit*.

    Also gives the weight to go on from, None if there is no other, and what is left of the limit.
    """
    found: list[Waiting] = []
    while limit > 0:
        waiting = tx.topics.waiting(number, weight, limit)
        old = list(takewhile(lambda job: job.seq <= seq, waiting))
        found += old
        if len(old) < len(waiting):  # all behind it in its weight came later, too
            weight = waiting[len(old)].weight + 1
        elif len(waiting) < limit:
            return found, None, limit - len(waiting)
        else:
            weight = waiting[-1].weight
        limit -= len(waiting)
        if weight > MOST_WEIGHT:
            return found, None, limit
    return found, weight, 0
