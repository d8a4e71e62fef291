"""What anybody may change of a job that waits: topic, weight, time, payload, options."""

from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import Final

from jobq.clock import utc
from jobq.job import Change
from jobq.repo.operations import deadlines, groups, uniques
from jobq.repo.operations.change import Chosen, select
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

_KEY: Final = frozenset({"unique", "unique_for"})


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
    if "unique" in change.options and change.options["unique"] is not None:
        _keep_without_key(tx, ids, outcomes, chosen, change.options["unique"])
    if chosen:
        _change(tx, chosen, change)
    return outcomes


def change_waiting(tx: Transaction, job_id: bytes, change: Change) -> None:
    """Change one job that waits and keeps its key, whatever else becomes of it."""
    (both,) = tx.jobs.both([job_id])
    assert both is not None
    _change(tx, {job_id: both}, change)


def _keep_without_key(
    tx: Transaction, ids: Sequence[bytes], outcomes: list[Outcome], chosen: Chosen, name: str
) -> None:
    """A key is one job's: the one that has it, or the first that can get it."""
    has = uniques.holder(tx, name)
    if has is None:
        has = next(iter(chosen), None)
    for position, job_id in enumerate(ids):
        if job_id in chosen and job_id != has:
            outcomes[position] = Outcome.CONFLICT
    for job_id in [one for one in chosen if one != has]:
        del chosen[job_id]


def _change(tx: Transaction, chosen: Chosen, change: Change) -> None:
    bodies = _rewritten(tx, chosen, change)
    if not _KEY.isdisjoint(change.options):
        _change_keys(tx, chosen, bodies)
    _place(tx, chosen, bodies, change)


def _rewritten(tx: Transaction, chosen: Chosen, change: Change) -> dict[bytes, JobBody]:
    """Payload and options stand in the bodies."""
    bodies = {}
    for job_id, (old, _) in chosen.items():
        payload = old.payload if change.payload is None else change.payload
        options = change.options_over(old.options)
        if change.options.get("ttl") is not None:  # from now, as if it were enqueued now
            least = tx.wall_us + max(1, round(change.options["ttl"] * 1e6))
            given = change.options.get("deadline")
            options = replace(options, deadline=min(given or utc(least), utc(least)))
        bodies[job_id] = old._replace(payload=payload, options=options)
    return bodies


def _change_keys(tx: Transaction, chosen: Chosen, bodies: dict[bytes, JobBody]) -> None:
    for job_id, (old, _) in chosen.items():
        name = old.options.unique
        if name is not None and uniques.holder(tx, name) == job_id:
            uniques.let_go(tx, name, job_id)
        new = bodies[job_id].options
        if new.unique is not None and uniques.holder(tx, new.unique) is None:
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
    _watch_again(tx, chosen, bodies, chosen.keys() - {job_id for job_id, _, _ in moving})
    withdraw(tx, [(job_id, chosen[job_id][1]) for job_id, _, _ in moving])
    changed = [(job_id, body) for job_id, body in bodies.items() if body != chosen[job_id][0]]
    if changed:  # not before they have left: where they stand, they stand by what was there
        tx.jobs.rewrite(changed)
    tx.jobs.update(staying)
    for _, new, _ in moving:
        if new.notes & KEEPS_SLOT:
            groups.keep_slot(tx, new)  # which it has lost by leaving
    put_back(tx, moving)
    deadlines.watch(tx, [(job_id, bodies[job_id]) for job_id, _, _ in moving])


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


def _watch_again(
    tx: Transaction, chosen: Chosen, bodies: dict[bytes, JobBody], staying: Collection[bytes]
) -> None:
    """Jobs that stay where they stand may have other deadlines."""
    changed = [
        job_id
        for job_id in staying
        if chosen[job_id][0].options.deadline_us != bodies[job_id].options.deadline_us
    ]
    deadlines.unwatch(tx, [(job_id, chosen[job_id][0]) for job_id in changed])
    deadlines.watch(tx, [(job_id, bodies[job_id]) for job_id in changed])


def _moves(old: JobState, new: JobState, change: Change) -> bool:
    """Whether the job has to leave its queue or its agenda."""
    if old.status is Status.DELAYED:
        return change.delay_us is not None
    return bool(change.delay_us) or old[:3] != new[:3] or old.lane != new.lane
