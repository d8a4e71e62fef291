"""What anybody may change of a job that waits: topic, weight, time, payload, options."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from jobq.job import Change
from jobq.repo.operations.change import Chosen, select
from jobq.repo.operations.flow import deadlines, groups, room, uniques
from jobq.repo.operations.places import put_back, withdraw
from jobq.repo.operations.soon import note_due
from jobq.repo.operations.topics import numbers_of
from jobq.repo.repositories import (
    KEEPS_SLOT,
    KEYLESS,
    TERMS,
    JobBody,
    JobState,
    Transaction,
    terms_of,
)
from jobq.selector import Selector
from jobq.states import Event, Outcome, Status
from jobq.topic import NO_SETTINGS

_KEY: Final = frozenset({"unique", "unique_for"})
_ENDS: Final = frozenset({"deadline", "ttl"})


def size_of_edit(ids: Sequence[bytes], change: Change) -> int:
    """About how many bytes the jobs may grow by; 0 if they can only shrink."""
    options = [value for value in change.options.values() if value is not None]
    if change.payload is None and not options:
        return 0
    return len(ids) * (len(change.payload or b"") + 256 + len(repr(options)))


def edit(
    tx: Transaction, ids: Sequence[bytes], change: Change, where: Selector | None = None
) -> list[Outcome]:
    """Change waiting jobs; where they stand changes only as far as it must.

    One that would get a key which another job has is a `CONFLICT`, and stays as it is.
    """
    outcomes, chosen = select(tx, ids, Event.EDIT, lambda *_: Outcome.OK, where)
    if not _KEY.isdisjoint(change.options):
        _keep_without_key(tx, ids, outcomes, chosen, change)
    if chosen:
        _change(tx, chosen, change)
    return outcomes


def change_waiting(tx: Transaction, job_id: bytes, change: Change) -> None:
    """Change one job that waits and keeps its key, whatever else becomes of it."""
    (both,) = tx.jobs.both([job_id])
    assert both is not None
    _change(tx, {job_id: both}, change)


def _keep_without_key(
    tx: Transaction, ids: Sequence[bytes], outcomes: list[Outcome], chosen: Chosen, change: Change
) -> None:
    """Leave out the jobs that would get a key, or have it otherwise, which is another job's."""
    taken: set[str] = set()
    refused: set[bytes] = set()
    for job_id, (body, _) in chosen.items():
        old, new = body.options, change.options_over(body.options)
        if new.unique is None:
            continue
        if "unique" not in change.options and new.unique_for == old.unique_for:
            continue
        if new.unique in taken or uniques.holder(tx, new.unique) not in {None, job_id}:
            refused.add(job_id)
        else:
            taken.add(new.unique)
    if not refused:
        return
    for position, job_id in enumerate(ids):
        if job_id in refused:
            outcomes[position] = Outcome.CONFLICT
    for job_id in refused:
        del chosen[job_id]


def _change(tx: Transaction, chosen: Chosen, change: Change) -> None:
    bodies = {job_id: _rewritten(tx, old, change) for job_id, (old, _) in chosen.items()}
    _change_keys(tx, chosen, bodies, change)
    _place(tx, chosen, bodies, change)


def _rewritten(tx: Transaction, old: JobBody, change: Change) -> JobBody:
    """Payload and options stand in the body.

    Deadline and time to live are one thing: naming one of them takes the place of both.
    """
    payload = old.payload if change.payload is None else change.payload
    options = change.options_over(old.options)
    if not _ENDS.isdisjoint(change.options):
        given = {name: change.options.get(name) for name in _ENDS}
        options = replace(options, **given)
        options = replace(options, deadline=deadlines.resolved(tx, options, NO_SETTINGS))
    return old._replace(payload=payload, options=options)


def _change_keys(
    tx: Transaction, chosen: Chosen, bodies: dict[bytes, JobBody], change: Change
) -> None:
    if _KEY.isdisjoint(change.options):
        return
    for job_id, (body, _) in chosen.items():
        old, new = body.options, bodies[job_id].options
        asked = "unique" in change.options and uniques.is_keyless(tx, job_id, new)
        if asked or (old.unique, old.unique_for) != (new.unique, new.unique_for):
            if old.unique is not None:
                uniques.lose(tx, job_id, old.unique)
            uniques.take(tx, job_id, new)


def _place(tx: Transaction, chosen: Chosen, bodies: dict[bytes, JobBody], change: Change) -> None:
    """Topic, weight and time stand in the states. A job's body goes on saying where it began."""
    number = None
    if change.topic is not None:
        number = numbers_of(tx, [change.topic])[change.topic]
    leaving = [
        job_id
        for job_id, (_, state) in chosen.items()
        if number is not None and state.topic != number
    ]
    first = tx.topics.next_seq(len(leaving))
    places = {job_id: place for place, job_id in enumerate(leaving, start=first)}
    moving: list[tuple[bytes, JobState, int]] = []
    staying: list[tuple[bytes, JobState]] = []
    for job_id, (body, old) in chosen.items():
        new = old._replace(settled=None)
        if job_id in places and number is not None:
            new = new._replace(topic=number, seq=places[job_id])
        if change.weight is not None:
            new = new._replace(weight=change.weight)
        new = _with_terms(tx, job_id, (body, bodies[job_id]), old, new)
        if _moves(old, new, change):
            moving.append((job_id, new, change.delay_us or 0))
        elif new != old:
            staying.append((job_id, new))
            _count_again(tx, old, new)
    gone = [(job_id, _as_it_leaves(chosen[job_id][1], new)) for job_id, new, _ in moving]
    withdraw(tx, gone)  # by the old bodies, which say where deadlines are watched
    watched = [job_id for job_id, _, _ in moving]
    watched += _unwatch_changed(tx, chosen, bodies, set(watched))
    rewritten = [(job_id, body) for job_id, body in bodies.items() if body != chosen[job_id][0]]
    if rewritten:
        tx.jobs.rewrite(rewritten)
    tx.jobs.update(staying)
    put_back(tx, moving)
    deadlines.watch(tx, [(job_id, bodies[job_id]) for job_id in watched])
    if leaving:
        room.emptier(tx, {chosen[job_id][1].topic for job_id in leaving})


def _as_it_leaves(old: JobState, new: JobState) -> JobState:
    """What is taken out of its place: a job that stays in its group keeps its slot there."""
    return old._replace(notes=old.notes & ~KEEPS_SLOT) if new.notes & KEEPS_SLOT else old


def _with_terms(
    tx: Transaction, job_id: bytes, bodies: tuple[JobBody, JobBody], old: JobState, new: JobState
) -> JobState:
    """The state with the bits, the lane and the size that it has by its new body."""
    before, after = bodies
    notes = (new.notes & ~(TERMS | KEEPS_SLOT | KEYLESS)) | terms_of(after.options)
    group = after.options.group
    lane = new.topic if group is None else 0
    if group is not None and group == before.options.group and new.topic == old.topic:
        lane = old.lane
        notes |= old.notes & KEEPS_SLOT
    if uniques.is_keyless(tx, job_id, after.options):
        notes |= KEYLESS
    return new._replace(notes=notes, lane=lane, size=len(after.payload))


def _count_again(tx: Transaction, old: JobState, new: JobState) -> None:
    """A job that stays where it stands: a delayed one, whose agenda knows no topics or lanes."""
    if new.topic != old.topic:
        tx.topics.count(old.topic, Status.DELAYED, -1)
        tx.topics.count(new.topic, Status.DELAYED, 1)
        note_due(tx, new.topic, new.at_us - tx.wall_us)
    if old.notes & KEEPS_SLOT and not new.notes & KEEPS_SLOT:
        groups.lose_slot(tx, old)
    if (old.topic, old.size) != (new.topic, new.size):
        tx.topics.add_size(old.topic, -old.size)
        tx.topics.add_size(new.topic, new.size)
        room.roomier(tx, (old.topic,))


def _unwatch_changed(
    tx: Transaction, chosen: Chosen, bodies: dict[bytes, JobBody], moving: set[bytes]
) -> list[bytes]:
    """Those of the jobs that stay where they stand which have other deadlines now."""
    changed = [
        job_id
        for job_id, (old, _) in chosen.items()
        if job_id not in moving and old.options.deadline_us != bodies[job_id].options.deadline_us
    ]
    deadlines.unwatch(tx, [(job_id, chosen[job_id][0]) for job_id in changed])
    return changed


def _moves(old: JobState, new: JobState, change: Change) -> bool:
    """Whether the job has to leave its queue or its agenda."""
    if old.status is Status.DELAYED:
        return change.delay_us is not None
    return bool(change.delay_us) or old[:3] != new[:3] or old.lane != new.lane
