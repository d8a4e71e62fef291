"""Where jobs go: into the queue of their topic, into an agenda, or out of the store."""

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Final, NamedTuple

from jobq.job import JobSpec, name_of
from jobq.repo.base import Retention
from jobq.repo.operations.damage import damaged, read_due
from jobq.repo.operations.flow import groups, limits, room, terms, uniques
from jobq.repo.operations.soon import note_due
from jobq.repo.repositories import (
    AGENDA_OF,
    KEEPS_SLOT,
    LISTED,
    NOBODY,
    TERMS,
    Agenda,
    Held,
    JobState,
    Move,
    Transaction,
    Waiting,
    done_list,
)
from jobq.states import Event, Reason, Status
from jobq.topic import NO_SETTINGS, TopicSettings


def make_ready(tx: Transaction, number: int, lane: int, waiting: list[Waiting]) -> None:
    """Into the queue of a lane, counted, and whoever waits for the topic is to be woken."""
    tx.topics.push(lane, waiting)
    tx.topics.count(number, Status.READY, len(waiting))
    if groups.has_lanes(tx, number):
        groups.count(tx, number, lane, ready=len(waiting))
    else:
        tx.woken[number] = tx.woken.get(number, 0) + len(waiting)


WAITS: Final = frozenset({Status.READY, Status.DELAYED})
"""The statuses in which a job waits: its payload counts among the bytes of its topic."""


class Ending(NamedTuple):
    """A job that ends: its state before, how it ends, and for how long it is kept (None: as usual).

    `settled` is what its holder said, if the end is a holder's.
    """

    id: bytes
    before: JobState
    status: Status
    reason: Reason | None
    settled: Event | None
    keep_us: int | None


class End(NamedTuple):
    """How jobs end; see `Ending`."""

    status: Status
    reason: Reason | None
    settled: Event | None
    keep_us: int | None


Endings = defaultdict[End, list[tuple[bytes, JobState]]]
"""Jobs that end, with their states before."""

Kept = tuple[End, int, list[tuple[bytes, JobState]]]
"""Jobs that end so, for how many microseconds they are kept, and they with their states before."""


def put_back(tx: Transaction, jobs: Sequence[tuple[bytes, JobState, int]]) -> None:
    """Jobs that nobody holds any more: ready in their old place, or delayed first.

    Those with a deadline still have time until then.
    """
    if not jobs:
        return
    queues: defaultdict[tuple[int, int], list[Waiting]] = defaultdict(list)
    delays: defaultdict[int, list[tuple[bytes, JobState]]] = defaultdict(list)
    sizes: defaultdict[int, int] = defaultdict(int)
    again: list[tuple[bytes, JobState]] = []
    moved = []
    for job_id, state, delay_us in jobs:
        sizes[state.topic] += state.size
        if state.notes & TERMS:
            if state.status is Status.RESERVED:
                again.append((job_id, state))
            if groups.is_grouped(state):
                state = terms.place(tx, job_id, state, delay_us)
        if delay_us > 0:
            delays[delay_us].append((job_id, state))
        else:
            queues[state.topic, state.lane].append(Waiting(state.weight, state.seq, job_id))
            ready = state._replace(status=Status.READY, at_us=0, slot=0, holder=NOBODY)
            moved.append((job_id, ready))
    for delay_us, members in delays.items():
        due_us = tx.wall_us + delay_us
        slots = tx.topics.hold(Agenda.DELAYED, due_us, [job_id for job_id, _ in members], NOBODY)
        for (job_id, state), slot in zip(members, slots, strict=True):
            tx.topics.count(state.topic, Status.DELAYED, 1)
            note_due(tx, state.topic, delay_us)
            delayed = state._replace(status=Status.DELAYED, at_us=due_us, slot=slot, holder=NOBODY)
            moved.append((job_id, delayed))
    tx.jobs.update(moved)
    for topic, size in sizes.items():
        tx.topics.add_size(topic, size)
    for (number, lane), waiting in queues.items():
        make_ready(tx, number, lane, waiting)
    if again:
        terms.wait_again(tx, again)


def leave(tx: Transaction, states: Sequence[JobState]) -> None:
    """Jobs are not reserved any more; they do not linger."""
    for topic, jobs in _by_topic(states).items():
        tx.topics.count(topic, Status.RESERVED, -jobs)
        if tx.topics.settings(topic) is not NO_SETTINGS:
            limits.freed(tx, topic, jobs)
    grouped = [state for state in states if state.notes & TERMS and groups.is_grouped(state)]
    if grouped:
        groups.leave(tx, grouped)


def _by_topic(states: Sequence[JobState]) -> Mapping[int, int]:
    """How many jobs there are of each topic."""
    numbers = [state[0] for state in states]
    if numbers and numbers.count(numbers[0]) == len(numbers):  # as mostly
        return {numbers[0]: len(numbers)}
    return Counter(numbers)


def finish(tx: Transaction, endings: Sequence[Ending], retention: Retention) -> None:
    """Finish jobs; see `finish_all`."""
    if endings:
        jobs: Endings = defaultdict(list)
        for job_id, before, status, reason, settled, keep_us in endings:
            jobs[End(status, reason, settled, keep_us)].append((job_id, before))
        finish_all(tx, jobs, retention, [ending.id for ending in endings])


def finish_all(
    tx: Transaction, endings: Endings, retention: Retention, order: Sequence[bytes]
) -> None:
    """Finished jobs into the agenda of their retention, or out of the store if it is nothing.

    They end in the *order* of their ids, in which there may be others.

    Finishing k jobs forgets up to 2 k + 16 others whose time is over, or that are too many: so what
    is finished faster than it is looked at does not pile up, and no single call pays for a backlog.
    """
    if not endings:
        return
    count = 0
    own: dict[int, TopicSettings] = {}
    forgotten: list[tuple[bytes, JobState]] = []
    for jobs in endings.values():
        count += len(jobs)
        for number in _by_topic([state for _, state in jobs]):
            if (settings := tx.topics.settings(number)) is not NO_SETTINGS:
                own[number] = settings
        bound = [job for job in jobs if job[1].notes & TERMS]
        if bound:
            uniques.give_up(tx, bound)
    limited = [number for number, settings in own.items() if settings.max_done is not None]
    kept: list[Kept] = []
    for end, jobs in endings.items():
        for keep_us, members in _by_retention(end, jobs, own, retention).items():
            if keep_us > 0:
                kept.append((end, keep_us, members))
            else:
                forgotten += members
    if limited:
        kept = _list_done(tx, kept, limited, order)
    for end, keep_us, members in kept:
        _keep(tx, end, keep_us, members)
    if forgotten:
        tx.ended += [job_id for job_id, _ in forgotten]
        tx.jobs.delete(forgotten)
    room.emptier(tx, own)
    prune(tx, 2 * count + 16, retention, limited)
    make_room(tx, 2 * count)


def _by_retention(
    end: End,
    jobs: list[tuple[bytes, JobState]],
    own: Mapping[int, TopicSettings],
    retention: Retention,
) -> Mapping[int, list[tuple[bytes, JobState]]]:
    """Jobs that end so, by microseconds of retention: as they say, or their topics, or as all."""
    if end.keep_us is not None:
        return {end.keep_us: jobs}
    usual_us = retention.keep_us(end.status)
    if not own:
        return {usual_us: jobs}
    found: defaultdict[int, list[tuple[bytes, JobState]]] = defaultdict(list)
    for job in jobs:
        keep_us = own.get(job[1].topic, NO_SETTINGS).keep_us(end.status)
        found[usual_us if keep_us is None else keep_us].append(job)
    return found


def _keep(tx: Transaction, end: End, keep_us: int, jobs: list[tuple[bytes, JobState]]) -> None:
    """Jobs that end so into the agenda of their retention."""
    until_us = tx.wall_us + keep_us
    ids = [job_id for job_id, _ in jobs]
    tx.ended += ids
    slots = tx.topics.hold(AGENDA_OF[end.status], until_us, ids, NOBODY)
    states = [state for _, state in jobs]
    for topic, members in _by_topic(states).items():
        tx.topics.count(topic, end.status, members)
    if any(state.notes & TERMS for state in states):
        jobs = [(job_id, _without_place(state)) for job_id, state in jobs]
    move = Move(end.status, end.reason, end.settled, until_us, ended_us=tx.wall_us)
    tx.jobs.move(jobs, slots, move)


def _without_place(state: JobState) -> JobState:
    """The state of a job that has no place in a group any more, if it has a group."""
    lane = state.topic if state.lane == state.topic else 0
    return state._replace(notes=state.notes & ~KEEPS_SLOT, lane=lane)


def _list_done(
    tx: Transaction, kept: list[Kept], topics: Collection[int], order: Sequence[bytes]
) -> list[Kept]:
    """List the done jobs of these topics, in the order in which they end; gives them so listed."""
    done = {
        job_id: state
        for end, _, jobs in kept
        for job_id, state in jobs
        if end.status is Status.DONE and state.topic in topics
    }
    lists: defaultdict[int, list[Waiting]] = defaultdict(list)
    in_order = [job_id for job_id in dict.fromkeys(order) if job_id in done]
    for place, job_id in enumerate(in_order, start=tx.topics.next_seq(len(done))):
        state = done[job_id]
        done[job_id] = state._replace(seq=place, notes=state.notes | LISTED)
        lists[state.topic].append(Waiting(0, place, job_id))
    for number, listed in lists.items():
        tx.topics.push(done_list(number), listed)
        tx.topics.count_listed(number, len(listed))
    return [
        (end, keep_us, [(job_id, done.get(job_id, state)) for job_id, state in jobs])
        for end, keep_us, jobs in kept
    ]


def _unlist(tx: Transaction, jobs: Iterable[tuple[bytes, JobState]]) -> None:
    """Take jobs out of the lists of done ones."""
    lists: defaultdict[int, list[Waiting]] = defaultdict(list)
    for job_id, state in jobs:
        lists[state.topic].append(Waiting(0, state.seq, job_id))
    for number, listed in lists.items():
        tx.topics.remove(done_list(number), listed)
        tx.topics.count_listed(number, -len(listed))


def prune(tx: Transaction, limit: int, retention: Retention, limited: Collection[int] = ()) -> int:
    """Forget done jobs beyond the most that are kept, and finished ones whose time is over.

    First those beyond the limits of the topics in *limited*, then by time, and at last those beyond
    the limit of the store.
    """
    pruned = 0
    for number in sorted(limited, key=tx.topics.name):
        most = tx.topics.settings(number).max_done
        excess = 0 if most is None else min(tx.topics.listed(number) - most, limit - pruned)
        if excess > 0:
            pruned += _forget_first_done(tx, number, excess)
    for status, agenda in ((Status.DONE, Agenda.DONE), (Status.CANCELED, Agenda.CANCELED)):
        if tx.topics.total(status) and tx.topics.is_due(agenda, tx.wall_us):
            pruned += _forget(tx, agenda, tx.topics.due(agenda, tx.wall_us, limit - pruned))
    excess = min(tx.topics.total(Status.DONE) - retention.max_done, limit - pruned)
    if excess > 0:
        pruned += _forget(tx, Agenda.DONE, tx.topics.due(Agenda.DONE, None, excess))
    return pruned


def make_room(tx: Transaction, limit: int) -> None:
    """Where room is short, forget finished jobs before their time, the oldest ones first.

    Else working a full queue off would fill it, until not even forgetting works.
    """
    if tx.is_short():
        for agenda in (Agenda.DONE, Agenda.CANCELED):
            limit -= _forget(tx, agenda, tx.topics.due(agenda, None, limit)) if limit else 0


def _forget_first_done(tx: Transaction, number: int, count: int) -> int:
    ids = [listed.id for listed in tx.topics.waiting(done_list(number), 0, count)]
    jobs = []
    for job_id, state in zip(ids, tx.jobs.states(ids), strict=True):
        if state is None or state.status is not Status.DONE or not state.notes & LISTED:
            raise damaged(f"job {name_of(job_id)} is listed as done, but is not")
        jobs.append((job_id, state))
    forget(tx, jobs)
    return len(jobs)


def _forget(tx: Transaction, agenda: Agenda, held: list[Held]) -> int:
    if not held:
        return 0
    gone = []
    found = read_due(tx, agenda, held, tx.jobs.states)
    for place, state in found:
        if state is None or AGENDA_OF.get(state.status) is not agenda:
            raise damaged(f"{agenda.name} holds job {name_of(place.id)}, which is not finished")
        tx.topics.count(state.topic, state.status, -1)
        gone.append((place.id, state))
    _unlist(tx, [(job_id, state) for job_id, state in gone if state.notes & LISTED])
    tx.topics.unhold(agenda, [place for place, _ in found])
    tx.jobs.delete(gone)
    return len(gone)


def withdraw(tx: Transaction, jobs: Iterable[tuple[bytes, JobState]]) -> None:
    """Take jobs out of wherever they stand: queue or agenda, and count.

    What is reserved goes on taking its place among the running ones of its topic and group.
    """
    queues: defaultdict[tuple[int, int], list[Waiting]] = defaultdict(list)
    agendas: defaultdict[Agenda, list[Held]] = defaultdict(list)
    listed: list[tuple[bytes, JobState]] = []
    sizes: defaultdict[int, int] = defaultdict(int)
    watched: list[tuple[bytes, JobState]] = []
    for job_id, state in jobs:
        tx.topics.count(state.topic, state.status, -1)
        if state.status in WAITS:
            sizes[state.topic] += state.size
            if state.notes & TERMS:
                watched.append((job_id, state))
                groups.lose_slot(tx, state)
        if state.status is Status.READY:
            queues[state.topic, state.lane].append(Waiting(state.weight, state.seq, job_id))
        else:
            agendas[AGENDA_OF[state.status]].append(Held(state.at_us, state.slot, job_id))
            if state.notes & LISTED:
                listed.append((job_id, state))
    for (number, lane), waiting in queues.items():
        tx.topics.remove(lane, waiting)
        if groups.has_lanes(tx, number):
            groups.count(tx, number, lane, ready=-len(waiting))
    _unlist(tx, listed)
    for agenda, held in agendas.items():
        tx.topics.unhold(agenda, held)
    if watched:
        terms.stop_waiting(tx, watched)
    for number, size in sizes.items():
        tx.topics.add_size(number, -size)
    room.roomier(tx, sizes)


def forget(tx: Transaction, jobs: Sequence[tuple[bytes, JobState]]) -> None:
    """Out of the store with jobs, whatever is kept of them."""
    if jobs:
        withdraw(tx, jobs)
        uniques.give_up(tx, jobs)
        tx.jobs.delete(jobs)
        tx.ended += [job_id for job_id, _ in jobs]
        room.emptier(tx, {state.topic for _, state in jobs})


def size_of(specs: Sequence[JobSpec]) -> int:
    """About how many bytes the jobs will take in a store."""
    return sum([len(spec[3]) for spec in specs]) + 256 * len(specs)
