"""What anybody may change of a job that waits: topic, weight, time, payload, options."""

from collections.abc import Sequence

from jobq.job import Change
from jobq.repo.operations.change import Chosen, select
from jobq.repo.operations.places import note_due, put_back, withdraw
from jobq.repo.operations.topics import numbers_of
from jobq.repo.repositories import JobState, Transaction
from jobq.states import Event, Outcome, Status


def size_of_edit(ids: Sequence[bytes], change: Change) -> int:
    """About how many bytes the jobs may grow by; 0 if they can only shrink."""
    options = [value for value in change.options.values() if value is not None]
    if change.payload is None and not options:
        return 0
    return len(ids) * (len(change.payload or b"") + 256 + len(repr(options)))


def edit(tx: Transaction, ids: Sequence[bytes], change: Change) -> list[Outcome]:
    """Change waiting jobs; where they stand changes only as far as it must."""
    outcomes, chosen = select(tx, ids, Event.EDIT, lambda *_: Outcome.OK)
    if chosen:
        _rewrite(tx, chosen, change)
        _place(tx, chosen, change)
    return outcomes


def _rewrite(tx: Transaction, chosen: Chosen, change: Change) -> None:
    """Payload and options stand in the bodies."""
    bodies = []
    for job_id, (old, _) in chosen.items():
        payload = old.payload if change.payload is None else change.payload
        new = old._replace(payload=payload, options=change.options_over(old.options))
        if new != old:
            bodies.append((job_id, new))
    if bodies:
        tx.jobs.rewrite(bodies)


def _place(tx: Transaction, chosen: Chosen, change: Change) -> None:
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
    for job_id, (_, old) in chosen.items():
        new = old._replace(settled=None)
        if job_id in places and number is not None:
            new = new._replace(topic=number, seq=places[job_id], lane=number)
        if change.weight is not None:
            new = new._replace(weight=change.weight)
        if _moves(old, new, change):
            moving.append((job_id, new, change.delay_us or 0))
        elif new != old:
            staying.append((job_id, new))
            if new.topic != old.topic:  # a delayed one: its agenda knows no topics
                tx.topics.count(old.topic, Status.DELAYED, -1)
                tx.topics.count(new.topic, Status.DELAYED, 1)
                note_due(tx, new.topic, new.at_us - tx.wall_us)
    tx.jobs.update(staying)
    withdraw(tx, [(job_id, chosen[job_id][1]) for job_id, _, _ in moving])
    put_back(tx, moving)


def _moves(old: JobState, new: JobState, change: Change) -> bool:
    """Whether the job has to leave its queue or its agenda."""
    if old.status is Status.DELAYED:
        return change.delay_us is not None
    return bool(change.delay_us) or old[:3] != new[:3]  # topic, weight, seq
