"""The topics anew, out of jobs and flow control: queues, agendas and counts say nothing else."""

from collections import Counter, defaultdict
from typing import Final, NamedTuple

from jobq.errors import StoreCorrupt
from jobq.repo.operations import mending
from jobq.repo.operations.damage import readable
from jobq.repo.operations.places import WAITS
from jobq.repo.operations.rebuild_flow import FlowAnew
from jobq.repo.repositories import (
    AGENDA_OF,
    LISTED,
    NOBODY,
    Agenda,
    Held,
    JobBody,
    JobState,
    Transaction,
    Waiting,
    done_list,
)
from jobq.states import Status

PAGE: Final = 64
"""How many jobs are read at once. Their payloads are read with them, so that no queue names a job
that cannot be handed out: at most 64 MiB at a time."""

Job = tuple[bytes, JobBody, JobState]


class Rebuilt(NamedTuple):
    """What `rebuild` did.

    Attributes:
        placed: Jobs that stand in their queue or agenda now.
        left_out: Jobs that stand nowhere: they cannot be read, or their topic has no name.
    """

    placed: int
    left_out: int


def rebuild(tx: Transaction, *, mend: bool = False) -> Rebuilt:
    """Put every job where its state says; the topics must be clear.

    Ready jobs come back in their old order, and lanes in their old turns. Jobs of one place in an
    agenda stand there in the order of their ids: an engine that keeps places in that order has them
    all as they were.

    Lanes, keys, lingering holds and states are taken as they are. With *mend*, they too are made to
    say what jobs and settings do.

    Raises:
        StoreCorrupt: Not all jobs can be come by. What was placed until then is worth nothing.
    """
    topics = _numbers(tx)
    if mend:
        tx.jobs.refuse_damage()
        mending.begin(tx, topics)
    flow = FlowAnew(tx, topics)
    left_out = met = 0
    after: bytes | None = None
    while ids := tx.jobs.ids(after, PAGE):
        after = ids[-1]
        met += len(ids)
        page = [job for job in readable(tx, ids, quiet=True) if job[2].topic in topics]
        left_out += len(ids) - len(page)
        if mend:
            page = mending.mended(tx, page)
        _place(tx, page)
        flow.count(page)
    if met != tx.jobs.size():
        raise StoreCorrupt(f"of {tx.jobs.size()} jobs only {met} can be come by")
    flow.place(mend=mend)
    return Rebuilt(met - left_out, left_out)


def _numbers(tx: Transaction) -> set[int]:
    numbers = set()
    for name in tx.topics.names():
        number = tx.topics.known(name)
        if number is not None:
            numbers.add(number)
    return numbers


def _place(tx: Transaction, jobs: list[Job]) -> None:
    queues: defaultdict[int, list[Waiting]] = defaultdict(list)
    lists: defaultdict[int, list[Waiting]] = defaultdict(list)
    agendas: defaultdict[Agenda, list[tuple[Held, bytes]]] = defaultdict(list)
    counts: Counter[tuple[int, Status]] = Counter()
    sizes: Counter[int] = Counter()
    for job_id, body, state in jobs:
        counts[state.topic, state.status] += 1
        if state.status in WAITS:
            sizes[state.topic] += state.size
            deadline_us = body.options.deadline_us
            if deadline_us is not None:
                place = Held(deadline_us, body.seq, job_id)
                agendas[Agenda.DEADLINE].append((place, NOBODY))
        if state.status is Status.READY:
            lane = state.lane or state.topic
            queues[lane].append(Waiting(state.weight, state.seq, job_id))
            tx.woken[state.topic] = tx.woken.get(state.topic, 0) + 1
            continue
        agenda = AGENDA_OF[state.status]
        holder = state.holder if agenda is Agenda.LEASE else NOBODY
        agendas[agenda].append((Held(state.at_us, state.slot, job_id), holder))
        if agenda is Agenda.DONE and state.notes & LISTED:
            lists[state.topic].append(Waiting(0, state.seq, job_id))
    for lane, waiting in queues.items():
        tx.topics.push(lane, sorted(waiting))
    for number, listed in lists.items():
        tx.topics.push(done_list(number), sorted(listed))
        tx.topics.count_listed(number, len(listed))
    for agenda, entries in agendas.items():
        tx.topics.restore(agenda, entries)
    for (number, status), jobs_there in counts.items():
        tx.topics.count(number, status, jobs_there)
    for number, size in sizes.items():
        tx.topics.add_size(number, size)
