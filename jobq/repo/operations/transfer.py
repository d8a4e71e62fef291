"""Jobs out of a store and into another, with all that is known of them."""

from collections import defaultdict
from collections.abc import Collection, Sequence
from typing import Final

from jobq.errors import StoreFull
from jobq.job import JobCopy, Progress, Report
from jobq.repo.operations import history
from jobq.repo.operations.flow import deadlines, groups, lingering, uniques
from jobq.repo.operations.places import make_ready
from jobq.repo.operations.reports import keep, log_of, progress_of, result_of
from jobq.repo.operations.soon import note_due
from jobq.repo.operations.topics import numbers_of
from jobq.repo.repositories import (
    AGENDA_OF,
    KEYLESS,
    NOBODY,
    TERMS,
    Agenda,
    JobBody,
    JobState,
    Note,
    Transaction,
    Waiting,
    initial_state,
    terms_of,
)
from jobq.states import FINISHED, Outcome, Status

LATER_PLACES: Final = 2**32
"""How many places a queue may give while it is being exported: jobs that move meanwhile come with
places behind the last one that the export has noted at its beginning."""

MOST_PLACES: Final = 2**62
"""Places that imports may use up: far below 64 bits, so that jobs can be enqueued ever after."""


def size_of_copies(copies: Sequence[JobCopy]) -> int:
    """About how many bytes the jobs will take in a store."""
    size = 0
    for copy in copies:
        size += 512 + len(copy.payload) + len(copy.result or b"") + len(copy.error or "")
        size += sum(len(line.text) for line in copy.log)
        size += sum(64 + len(attempt.error or "") for attempt in copy.history)
    return size


def copy_of(tx: Transaction, job_id: bytes, body: JobBody, state: JobState) -> JobCopy:
    """All that is known of a job.

    Raises:
        StoreCorrupt: Something of it is missing, or damaged.
    """
    past = history.of_job(tx, job_id, state)
    lines, dropped = log_of(tx, job_id, state)
    status = Status.READY if state.status is Status.RESERVED else state.status
    return JobCopy(
        id=job_id,
        topic=tx.topics.name(state.topic),
        status=status,
        reason=state.reason,
        weight=state.weight,
        place=state.seq,
        attempt=state.attempt,
        token=state.token,
        retries=state.retries,
        crashes=state.crashes,
        resets=state.resets,
        created_us=body.created_us,
        until_us=None if status is Status.READY else state.at_us,
        reserved_us=state.reserved_us or None,
        ended_us=state.ended_us or None,
        options=body.options,
        payload=body.payload,
        result=result_of(tx, job_id, state),
        error=past.error,
        history=past.attempts or history.succeeded_at_once(tx, state),
        history_dropped=past.dropped,
        progress=progress_of(tx, job_id, state),
        log=lines,
        log_dropped=dropped,
    )


def add_copies(
    tx: Transaction, copies: Sequence[JobCopy], last_place: int, base: int | None
) -> tuple[list[Outcome], int]:
    """Add jobs that were exported; gives outcomes, and the base of their places.

    The places of one import lie between those that were given before it and those that are given
    after: *base* is what its first call gave, None in that call.

    Raises:
        StoreFull: There are not so many places left.
    """
    if base is None:
        if tx.topics.last_seq() + last_place + LATER_PLACES > MOST_PLACES:
            raise StoreFull(
                f"no room for {last_place} more places: {tx.topics.last_seq()} were given already"
            )
        base = tx.topics.next_seq(last_place + LATER_PLACES) - 1
    there = tx.jobs.bodies([copy.id for copy in copies])
    outcomes: list[Outcome] = []
    chosen: dict[bytes, JobCopy] = {}
    for copy, body in zip(copies, there, strict=True):
        if body is not None or copy.id in chosen:
            outcomes.append(Outcome.CONFLICT)
        else:
            outcomes.append(Outcome.OK)
            chosen[copy.id] = copy
    numbers = numbers_of(tx, {copy.topic for copy in chosen.values()})
    places = _places(tx, chosen.values(), last_place, base)
    bodies, states = [], []
    bound: list[tuple[bytes, JobBody]] = []
    queues: defaultdict[tuple[int, int], list[Waiting]] = defaultdict(list)
    for job_id, copy in sorted(chosen.items()):
        body, state = _placed(tx, copy, numbers[copy.topic], places[job_id])
        bodies.append((job_id, body))
        keyless = KEYLESS if uniques.take_over(tx, job_id, body, state.status) else 0
        state = state._replace(notes=_with_notes(tx, copy, state) | keyless)
        if state != initial_state(body):
            states.append((job_id, state))
        if state.status is Status.READY:
            queues[state.topic, state.lane].append(Waiting(state.weight, state.seq, job_id))
        else:
            tx.topics.count(state.topic, state.status, 1)
        if state.status not in FINISHED:
            tx.topics.add_size(state.topic, state.size)
            if state.notes & TERMS:
                bound.append((job_id, body))
    tx.jobs.create(bodies)
    tx.jobs.update(states)
    for (number, lane), waiting in queues.items():
        make_ready(tx, number, lane, waiting)
    deadlines.watch(tx, bound)
    return outcomes, base


def _places(
    tx: Transaction, copies: Collection[JobCopy], last_place: int, base: int
) -> dict[bytes, int]:
    """The new place of each copy.

    A queue into which others were imported while it was exported has given more places than there
    is room for between *base* and the next import: those get new ones, or other jobs would too.
    """
    places = {copy.id: base + copy.place for copy in copies}
    most = base + last_place + LATER_PLACES
    late = sorted((place, job_id) for job_id, place in places.items() if place > most)
    if late:
        first = tx.topics.next_seq(len(late))
        places.update((job_id, first + at) for at, (_, job_id) in enumerate(late))
    return places


def _placed(tx: Transaction, copy: JobCopy, number: int, place: int) -> tuple[JobBody, JobState]:
    """Body and state of a copy, which stands in its agenda then, unless it is ready."""
    at_us, slot = copy.until_us or 0, 0
    if copy.status is not Status.READY:
        (slot,) = tx.topics.hold(AGENDA_OF[copy.status], at_us, [copy.id], NOBODY)
    due_us = at_us if copy.status is Status.DELAYED else 0
    if due_us:
        note_due(tx, number, due_us - tx.wall_us)
    lane, keeps = number, False
    if copy.options.group is not None:
        keeps = _holds_back(tx, copy, number)
        in_lane = keeps or copy.status is Status.READY
        lane = groups.lane_for(tx, number, copy.options.group) if in_lane else 0
    body = JobBody(
        number, copy.weight, place, copy.created_us, due_us, slot if due_us else 0,
        copy.options, copy.payload, 0 if keeps else lane,
    )  # fmt: skip
    state = JobState(
        number, copy.weight, place, copy.status, copy.reason, None,
        copy.attempt, _last_token(tx, copy), copy.retries, copy.crashes, copy.resets,
        at_us, slot, NOBODY, copy.reserved_us or 0, copy.ended_us or 0,
        terms_of(copy.options), lane, len(copy.payload),
    )  # fmt: skip
    return body, groups.keep_slot(tx, state) if keeps else state


def _last_token(tx: Transaction, copy: JobCopy) -> int:
    """The token from which the job's go on: also beyond those of holders that it had here."""
    tokens = [copy.token]
    if tx.topics.standing(Agenda.LINGER):
        tokens += [token for _, token, _ in lingering.of_job(tx, copy.id)]
    return max(tokens)


def _holds_back(tx: Transaction, copy: JobCopy, number: int) -> bool:
    """Whether a job of a group that waits for its retry lets no others of the group by."""
    waits = copy.status is Status.DELAYED and copy.reserved_us is not None
    return waits and tx.topics.settings(number).blocks_group


def _with_notes(tx: Transaction, copy: JobCopy, state: JobState) -> int:
    """Write what is kept beside body and state; gives the bits of the notes."""
    if copy.result is not None:
        tx.jobs.put_note(copy.id, Note.RESULT, copy.result)
        state = state._replace(notes=state.notes | Note.RESULT)
    past = history.History(dropped=copy.history_dropped)
    for attempt in copy.history:
        past = past.after(attempt)
    notes = history.put(tx, copy.id, state, past.with_error(copy.error))
    told = Report(
        copy.id,
        copy.token,
        tuple((tx.wall_us - line.at_us, line.text) for line in copy.log),
        None if copy.progress is None else _told(tx, copy.progress),
        copy.log_dropped,
    )
    return keep(tx, told, state._replace(notes=notes))


def _told(tx: Transaction, progress: Progress) -> tuple[float, float | None, str | None, int]:
    return progress.done, progress.total, progress.text, tx.wall_us - progress.at_us
