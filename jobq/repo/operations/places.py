"""Where jobs go: into the queue of their topic, into an agenda, or out of the store."""

from collections import defaultdict
from collections.abc import Sequence
from typing import Final

from jobq.errors import StoreCorrupt
from jobq.job import JobSpec, name_of
from jobq.options import JobOptions
from jobq.repo.base import Retention
from jobq.repo.repositories import (
    AGENDA_OF,
    NOBODY,
    Agenda,
    Held,
    JobBody,
    JobState,
    Transaction,
    Waiting,
)
from jobq.states import Event, Reason, Status

SOON_US: Final = 1_500_000
"""What falls due within this time wakes the waiters of its topic, so that they shorten their
sleep. A waiter looks at the clock at least once a second by itself; what is due later than this
it will see in time."""

MOST_ERROR: Final = 16 * 1024
"""How many bytes of an error's text are kept: its end, where a traceback names the exception."""


def make_ready(tx: Transaction, number: int, waiting: list[Waiting]) -> None:
    """Into the queue, counted, and whoever waits for the topic is to be woken."""
    tx.topics.push(number, waiting)
    tx.topics.count(number, Status.READY, len(waiting))
    tx.woken[number] = tx.woken.get(number, 0) + len(waiting)


def note_due(tx: Transaction, number: int, in_us: int) -> None:
    """Waiters of the topic may have to sleep shorter than they thought."""
    if in_us <= SOON_US:
        tx.soon.add(number)


def put_back(tx: Transaction, jobs: Sequence[tuple[bytes, JobState, int]]) -> None:
    """Jobs that nobody holds any more: ready in their old place, or delayed first."""
    queues: defaultdict[int, list[Waiting]] = defaultdict(list)
    moved = []
    for job_id, state, delay_us in jobs:
        if delay_us > 0:
            due_us = tx.wall_us + delay_us
            (slot,) = tx.topics.hold(Agenda.DELAYED, due_us, [job_id], NOBODY)
            status = Status.DELAYED
            tx.topics.count(state.topic, status, 1)
            note_due(tx, state.topic, delay_us)
        else:
            due_us, slot, status = 0, 0, Status.READY
            queues[state.topic].append(Waiting(state.weight, state.seq, job_id))
        moved.append(
            (job_id, state._replace(status=status, at_us=due_us, slot=slot, holder=NOBODY))
        )
    if moved:
        tx.jobs.update(moved)
    for number, waiting in queues.items():
        make_ready(tx, number, waiting)


def ended_state(
    tx: Transaction,
    state: JobState,
    status: Status,
    reason: Reason | None,
    settled: Event | None,
) -> JobState:
    """The state of a job that ends now; `finish` gives it its place."""
    return JobState(
        state.topic,
        state.weight,
        state.seq,
        status,
        reason,
        settled,
        state.attempt,
        state.token,
        state.retries,
        state.crashes,
        state.resets,
        0,
        0,
        NOBODY,
        state.reserved_us,
        tx.wall_us,
        state.notes,
    )


def finish(
    tx: Transaction, jobs: Sequence[tuple[bytes, JobState, int | None]], retention: Retention
) -> None:
    """Finished jobs into the agenda of their retention, or out of the store if it is nothing.

    Finishing k jobs forgets up to 2 k + 16 whose time is over: so what is finished faster than
    it is looked at does not pile up, and no single call pays for a backlog.
    """
    if not jobs:
        return
    ends: defaultdict[tuple[Agenda, int], list[tuple[bytes, JobState]]] = defaultdict(list)
    forgotten = []
    for job_id, state, keep_us in jobs:
        agenda = AGENDA_OF[state.status]
        if keep_us is None:
            done = agenda is Agenda.DONE
            keep_us = retention.done_us if done else retention.canceled_us
        if keep_us <= 0:
            forgotten.append((job_id, state))
        else:
            ends[agenda, tx.wall_us + keep_us].append((job_id, state))
            tx.topics.count(state.topic, state.status, 1)
    moved = []
    for (agenda, until_us), members in ends.items():
        slots = tx.topics.hold(agenda, until_us, [job_id for job_id, _ in members], NOBODY)
        for (job_id, was), slot in zip(members, slots, strict=True):
            moved.append((job_id, was._replace(at_us=until_us, slot=slot)))
    if moved:
        tx.jobs.update(moved)
    if forgotten:
        tx.jobs.delete(forgotten)
    prune(tx, 2 * len(jobs) + 16, retention)


def prune(tx: Transaction, limit: int, retention: Retention) -> int:
    """Forget finished jobs whose time is over, and done ones beyond the most that are kept."""
    pruned = 0
    for agenda in (Agenda.DONE, Agenda.CANCELED):
        first_us = tx.topics.first_due(agenda)
        if first_us is not None and first_us <= tx.wall_us:
            pruned += _forget(tx, agenda, tx.topics.due(agenda, tx.wall_us, limit - pruned))
    excess = min(tx.topics.total(Status.DONE) - retention.max_done, limit - pruned)
    if excess > 0:
        pruned += _forget(tx, Agenda.DONE, tx.topics.due(Agenda.DONE, None, excess))
    return pruned


def _forget(tx: Transaction, agenda: Agenda, held: list[Held]) -> int:
    if not held:
        return 0
    gone = []
    for place, state in zip(held, tx.jobs.states([place.id for place in held]), strict=True):
        if state is None or AGENDA_OF.get(state.status) is not agenda:
            raise damaged(f"{agenda.name} holds job {name_of(place.id)}, which is not finished")
        tx.topics.count(state.topic, state.status, -1)
        gone.append((place.id, state))
    tx.topics.unhold(agenda, held)
    tx.jobs.delete(gone)
    return len(gone)


def withdraw(tx: Transaction, jobs: dict[bytes, tuple[JobBody, JobState]]) -> None:
    """Take jobs out of wherever they stand: queue or agenda, and count."""
    queues: defaultdict[int, list[Waiting]] = defaultdict(list)
    agendas: defaultdict[Agenda, list[Held]] = defaultdict(list)
    for job_id, (_, state) in jobs.items():
        tx.topics.count(state.topic, state.status, -1)
        if state.status is Status.READY:
            queues[state.topic].append(Waiting(state.weight, state.seq, job_id))
        else:
            agendas[AGENDA_OF[state.status]].append(Held(state.at_us, state.slot, job_id))
    for number, waiting in queues.items():
        tx.topics.remove(number, waiting)
    for agenda, held in agendas.items():
        tx.topics.unhold(agenda, held)


def size_of(specs: Sequence[JobSpec]) -> int:
    """About how many bytes the jobs will take in a store."""
    return sum(len(spec.payload) for spec in specs) + 256 * len(specs)


def keep_us_of(options: JobOptions) -> int | None:
    """How long a finished job is kept by its own options; None leaves it to the store."""
    return None if options.retention is None else int(options.retention * 1_000_000)


def clipped(error: str) -> bytes:
    """What is kept of an error's text."""
    data = error.encode(errors="backslashreplace")
    return data if len(data) <= MOST_ERROR else "…".encode() + data[3 - MOST_ERROR :]


def damaged(what: str) -> StoreCorrupt:
    """The error for records that contradict each other."""
    return StoreCorrupt(f"{what}; `jobq check` lists what is wrong")
