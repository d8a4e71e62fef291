"""What the holder of a job says: done, retry, release, cancel; extend, and report."""

from collections import defaultdict
from collections.abc import Sequence
from typing import Any, Final

from jobq.errors import InvalidValue
from jobq.job import Report, Settlement
from jobq.repo.base import Retention
from jobq.repo.operations.enqueue import carry_out, plan
from jobq.repo.operations.flow import deadlines, lingering
from jobq.repo.operations.history import with_attempt
from jobq.repo.operations.places import End, Endings, finish_all, leave, make_room, put_back
from jobq.repo.operations.reports import keep
from jobq.repo.operations.soon import note_due
from jobq.repo.repositories import TERMS, Agenda, JobState, Note, Transaction
from jobq.states import Event, Outcome, Reason, Status

Settling = tuple[int, Settlement, JobState]
"""A settlement that is to be done: its position in the call, and the job's state before."""


_BACK: Final = frozenset({Event.RETRY, Event.RELEASE})
"""After these a job waits again."""

_FAILURES: Final = frozenset({Event.RETRY, Event.RELEASE, Event.CANCEL})
"""What makes a history; an attempt that succeeds is only added to one that is there."""


def is_held(tx: Transaction, state: JobState, token: int) -> bool:
    """Whether the reservation with this token stands.

    A lease whose time has passed is over even if nobody has expired it yet: whether a sweep was
    due a moment earlier must not decide.
    """
    return state.token == token and state.status is Status.RESERVED and state.at_us > tx.boot_us


def settle(
    tx: Transaction, settlements: Sequence[Settlement], retention: Retention
) -> tuple[list[Outcome], list[list[bytes]]]:
    """Settle jobs; gives outcomes, and the ids of follow-up jobs, by position."""
    outcomes, plain, chosen = _judge_all(tx, settlements)
    follow_ids: list[list[bytes]] = [[] for _ in settlements]
    follow = [(position, spec) for position, job, _ in chosen for spec in job.follow]
    planned = None
    if follow:  # may be refused, and then nothing is settled
        done = [job.id for _, job, _ in chosen if job.event is Event.DONE]
        leaving = frozenset((*done, *(job_id for jobs in plain.values() for job_id, _ in jobs)))
        planned = plan(tx, [spec for _, spec in follow], leaving)
    if Outcome.STALE in outcomes or Outcome.MISSING in outcomes:
        heard(tx, settlements, outcomes)
    if plain or chosen:
        held = [job for jobs in plain.values() for job in jobs]
        held += [(job.id, state) for _, job, state in chosen]
        tx.topics.unhold(Agenda.LEASE, [(state[11], state[12], job_id) for job_id, state in held])
        leave(tx, [state for _, state in held])
        order = [job[0] for job in settlements]
        if chosen:
            _move(tx, chosen, plain)
            place = {job_id: position for position, job_id in enumerate(order)}
            for jobs in plain.values():
                jobs.sort(key=lambda job: place[job[0]])
        finish_all(tx, plain, retention, order)
        if not plain:  # what comes back has a longer history
            make_room(tx, 2 * len(chosen))
        if planned is not None:
            added = carry_out(tx, planned, retention)
            for (position, _), new_id in zip(follow, added, strict=True):
                follow_ids[position].append(new_id)
    return outcomes, follow_ids


def heard(
    tx: Transaction,
    calls: Sequence[tuple[Any, ...]],
    outcomes: Sequence[Outcome],
) -> None:
    """Holders have called of jobs that they do not hold: what they still took up is free.

    Each call begins with the job's id and the token.
    """
    lost = {Outcome.STALE, Outcome.MISSING}
    both = zip(calls, outcomes, strict=True)
    lingering.heard(tx, [(call[0], call[1]) for call, outcome in both if outcome in lost])


def _judge_all(
    tx: Transaction, settlements: Sequence[Settlement]
) -> tuple[list[Outcome], Endings, list[Settling]]:
    """Every settlement's outcome, and those that are to be done, each job once.

    The jobs that are simply done, as nearly all are, and the others apart.
    """
    ids = [job[0] for job in settlements]
    outcomes: list[Outcome] = []
    chosen: list[Settling] = []
    plain: Endings = defaultdict(list)
    last_keep_us: object = plain  # which is no number
    members: list[tuple[bytes, JobState]] = []
    first: dict[bytes, Event] | None = None if len(set(ids)) == len(ids) else {}
    boot_us = tx.boot_us
    for position, (job, state) in enumerate(zip(settlements, tx.jobs.states(ids), strict=True)):
        if state is None:
            outcomes.append(Outcome.MISSING)
            continue
        job_id, token, event, _, keep_us, result, _, _, follow, report = job
        # As `is_held` has it; calling that would take as long as all the rest here.
        if state[7] != token or state[3] is not Status.RESERVED or state[11] <= boot_us:
            # Repeated by a caller that did not get the answer, with nothing in between: fine.
            repeated = state.token == token and state.settled is event
            outcomes.append(Outcome.OK if repeated else Outcome.STALE)
            continue
        if first is not None:
            if job_id in first:  # named twice in one call: the same again, or too late
                outcomes.append(Outcome.OK if first[job_id] is event else Outcome.STALE)
                continue
            first[job_id] = event
        outcomes.append(Outcome.OK)
        if event is Event.DONE and result is None and report is None and not (state[16] or follow):
            if keep_us != last_keep_us:
                members = plain[End(Status.DONE, None, event, keep_us)]
                last_keep_us = keep_us
            members.append((job_id, state))
        else:
            chosen.append((position, job, state))
    return outcomes, plain, chosen


def _move(tx: Transaction, chosen: Sequence[Settling], endings: Endings) -> None:
    """Each job to where its holder sends it; those that end are added to *endings*."""
    back: list[tuple[bytes, JobState, int]] = []
    late = deadlines.lapsed(
        tx,
        [
            (job.id, before)
            for _, job, before in chosen
            if before.notes & TERMS and job.event in _BACK
        ],
    )
    for _, job, before in chosen:
        event = job.event
        state = _with_notes(tx, job, before)
        if event is Event.DONE:
            end = End(Status.DONE, None, event, job.keep_us)
        elif event is Event.CANCEL:
            end = End(Status.CANCELED, job.reason or Reason.CANCELED, event, job.keep_us)
        elif event is Event.RETRY and job.delay_us is None:
            end = End(Status.CANCELED, Reason.EXHAUSTED, event, job.keep_us)
        elif job.id in late:
            end = End(Status.CANCELED, Reason.EXPIRED, event, job.keep_us)
        elif event is Event.RETRY:
            new = state._replace(retries=state.retries + 1, settled=event)
            back.append((job.id, new, job.delay_us or 0))
            continue
        elif event is Event.RELEASE:
            new = state._replace(attempt=state.attempt - 1, settled=event)
            back.append((job.id, new, job.delay_us or 0))
            continue
        else:
            raise InvalidValue(f"event is {event!r}: expected done, retry, release or cancel")
        endings[end].append((job.id, state))
    put_back(tx, back)


def _with_notes(tx: Transaction, job: Settlement, state: JobState) -> JobState:
    notes = state.notes
    if job.result is not None:
        tx.jobs.put_note(job.id, Note.RESULT, job.result)
        notes |= Note.RESULT
    if job.event in _FAILURES or (notes & Note.HISTORY and job.event is Event.DONE):
        notes |= with_attempt(tx, job.id, state, job.event, job.error)
    if job.report is not None:
        notes |= keep(tx, job.report, state)
    return state if notes == state.notes else state._replace(notes=notes)


def extend(tx: Transaction, holds: Sequence[tuple[bytes, int, int]]) -> list[Outcome]:
    """Let each lease end the given time from now, or as late as its topic allows."""
    states = tx.jobs.states([job_id for job_id, _, _ in holds])
    outcomes: list[Outcome] = []
    chosen: dict[bytes, tuple[JobState, int]] = {}
    for (job_id, token, lease_us), state in zip(holds, states, strict=True):
        if state is None:
            outcomes.append(Outcome.MISSING)
        elif not is_held(tx, state, token):
            outcomes.append(Outcome.STALE)
        else:
            outcomes.append(Outcome.OK)
            most = tx.topics.settings(state.topic).max_lease
            if most is not None:
                lease_us = min(lease_us, max(1, round(most * 1e6)))
            chosen[job_id] = (state, tx.boot_us + lease_us)  # named twice: the last one holds
    heard(tx, holds, outcomes)
    tx.topics.unhold(
        Agenda.LEASE,
        [(state.at_us, state.slot, job_id) for job_id, (state, _) in chosen.items()],
    )
    ends: defaultdict[tuple[int, bytes], list[bytes]] = defaultdict(list)
    for job_id, (state, end_us) in chosen.items():
        ends[end_us, state.holder].append(job_id)
    moved = []
    for (end_us, holder), ids in ends.items():
        slots = tx.topics.hold(Agenda.LEASE, end_us, ids, holder)
        for job_id, slot in zip(ids, slots, strict=True):
            state = chosen[job_id][0]
            moved.append((job_id, state._replace(at_us=end_us, slot=slot)))
            note_due(tx, state.topic, end_us - tx.boot_us)
    tx.jobs.update(moved)
    return outcomes


def report(tx: Transaction, reports: Sequence[Report]) -> list[Outcome]:
    """Keep what holders tell. Also what comes late: after the settlement by the same holder."""
    states = tx.jobs.states([told.id for told in reports])
    outcomes = []
    moved: dict[bytes, JobState] = {}
    for told, state in zip(reports, states, strict=True):
        if state is None:
            outcomes.append(Outcome.MISSING)
        elif not is_held(tx, state, told.token) and not (
            state.token == told.token and state.settled is not None
        ):
            outcomes.append(Outcome.STALE)
        else:
            outcomes.append(Outcome.OK)
            before = moved.get(told.id, state)
            notes = keep(tx, told, before)
            if notes != before.notes:
                moved[told.id] = before._replace(notes=notes)
    heard(tx, reports, outcomes)
    tx.jobs.update(list(moved.items()))
    return outcomes
