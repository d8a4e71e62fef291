"""What anybody may ask of a job: cancel, reset, delete."""

from collections import defaultdict
from collections.abc import Callable, Sequence

from jobq.repo.base import Retention
from jobq.repo.operations.history import keep_attempt, succeeded_at_once, with_attempt, with_error
from jobq.repo.operations.places import (
    Ending,
    finish,
    make_ready,
    withdraw,
)
from jobq.repo.repositories import NOBODY, JobBody, JobState, Note, Transaction, Waiting
from jobq.states import Event, Outcome, Reason, Status, can_move

Chosen = dict[bytes, tuple[JobBody, JobState]]
"""Jobs to which something happens, as they were before."""


def select(
    tx: Transaction,
    ids: Sequence[bytes],
    event: Event,
    again: Callable[[JobBody, JobState], Outcome],
) -> tuple[list[Outcome], Chosen]:
    """The jobs among *ids* to which *event* can happen, each once, and every outcome.

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
        elif can_move(both[1].status, event):
            outcomes.append(Outcome.OK)
            chosen[job_id] = both
        else:
            outcomes.append(Outcome.INVALID)
    return outcomes, chosen


def cancel(
    tx: Transaction, ids: Sequence[bytes], error: str | None, retention: Retention
) -> list[Outcome]:
    """Cancel jobs that are not finished, whoever holds them."""

    def again(body: JobBody, state: JobState) -> Outcome:
        keep_us = body.options.retention_us
        if keep_us is None:
            keep_us = tx.topics.settings(state.topic).keep_us(Status.CANCELED)
        if keep_us is None:
            keep_us = retention.canceled_us
        return Outcome.INVALID if keep_us else Outcome.MISSING

    outcomes, chosen = select(tx, ids, Event.CANCEL, again)
    withdraw(tx, chosen)
    endings: list[Ending] = []
    for job_id, (body, state) in chosen.items():
        if state.status is Status.RESERVED:
            state = state._replace(notes=with_attempt(tx, job_id, state, Event.CANCEL, error))
        elif error is not None:
            state = state._replace(notes=with_error(tx, job_id, state, error))
        keep_us = body.options.retention_us
        endings.append(Ending(job_id, state, Status.CANCELED, Reason.CANCELED, None, keep_us))
    finish(tx, endings, retention)
    return outcomes


def reset(tx: Transaction, ids: Sequence[bytes]) -> list[Outcome]:
    """Make finished jobs ready again, at the back of their weight, with fresh counts."""
    outcomes, chosen = select(tx, ids, Event.RESET, lambda *_: Outcome.INVALID)
    withdraw(tx, chosen)
    seq = tx.topics.next_seq(len(chosen))
    queues: defaultdict[int, list[Waiting]] = defaultdict(list)
    moved = []
    for place, (job_id, (_, state)) in enumerate(chosen.items(), start=seq):
        new = state._replace(
            status=Status.READY, reason=None, settled=None, seq=place, retries=0, crashes=0,
            resets=state.resets + 1, at_us=0, slot=0, holder=NOBODY, ended_us=0,
            notes=_renewed(tx, job_id, state),
        )  # fmt: skip
        moved.append((job_id, new))
        queues[state.topic].append(Waiting(state.weight, place, job_id))
    tx.jobs.update(moved)
    for number, waiting in queues.items():
        make_ready(tx, number, waiting)
    return outcomes


def _renewed(tx: Transaction, job_id: bytes, state: JobState) -> int:
    """The notes of a job that begins anew: its attempts and its log stay, what came of it goes."""
    for note in (Note.RESULT, Note.PROGRESS):
        if state.notes & note:
            tx.jobs.drop_note(job_id, note)
    # What stands in the state only has to be told now, or the next reservation would cover it.
    for attempt in succeeded_at_once(tx, state):
        state = state._replace(notes=keep_attempt(tx, job_id, state, attempt))
    notes = with_error(tx, job_id, state, None) if state.notes & Note.HISTORY else state.notes
    return notes & ~(Note.RESULT | Note.PROGRESS)


def delete(tx: Transaction, ids: Sequence[bytes]) -> list[Outcome]:
    """Forget jobs that nobody holds."""
    outcomes, chosen = select(tx, ids, Event.DELETE, lambda *_: Outcome.MISSING)
    withdraw(tx, chosen)
    tx.jobs.delete([(job_id, state) for job_id, (_, state) in chosen.items()])
    tx.ended += chosen
    return outcomes
