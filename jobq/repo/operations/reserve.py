"""Handing jobs out."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from itertools import compress
from typing import Final, NamedTuple

from jobq.errors import StoreCorrupt
from jobq.job import Reservation, name_of
from jobq.options import DEFAULTS, UNSET, JobOptions
from jobq.repo.base import Retention
from jobq.repo.operations.damage import SET_ASIDE, damaged, log_unreadable, read_taken
from jobq.repo.operations.flow import ageing, deadlines, groups, limits, room, terms, turns
from jobq.repo.operations.places import Ending, finish
from jobq.repo.operations.soon import note_due
from jobq.repo.repositories import (
    TERMS,
    Agenda,
    JobBody,
    JobState,
    Move,
    Transaction,
    Waiting,
)
from jobq.states import Event, Reason, Status, can_move
from jobq.topic import NO_SETTINGS, TopicSettings

MOST_BYTES: Final = 64 * 1024 * 1024
"""A reservation stops growing when its payloads reach this size."""

_RESERVABLE: Final = tuple(status for status in Status if can_move(status, Event.RESERVE))

LAPSED_LOOKS: Final = 8
"""How often a reservation looks for other jobs when it is too late for those that it has found.
What is due is moved at the head of each write anyway; this is for a backlog of it."""

_BACKOFF: Final = ("min_backoff", "max_backoff", "factor", "jitter")
"""Settings of topics that hold where neither the job nor its service has said something else."""

DEFAULT_LEASE_US: Final = DEFAULTS.lease_us or 0

_new: Final = tuple.__new__  # Reservation(…) comes down to this, in twice the time


def take_from(
    tx: Transaction, name: str, n: int, retention: Retention, most_bytes: int = MOST_BYTES
) -> list[Reservation]:
    """Reserve up to *n* jobs of a topic, as many as its settings allow, in the order of serving.

    It takes no more than *most_bytes* of payloads together; but if nobody has taken anything of
    `MOST_BYTES` yet, one job whatever its size.
    """
    number = tx.topics.known(name)
    if number is None:
        return []
    settings = tx.topics.settings(number)
    n = limits.admitted(tx, number, settings, n)
    reservations: list[Reservation] = []
    for _ in range(LAPSED_LOOKS):
        if n <= len(reservations):
            break
        taken = _pop(tx, number, n - len(reservations), settings)
        if not taken:
            break
        (found,), lapsed, short = _hand_out(
            tx, [_new(_Taken, (name, number, settings, taken))], most_bytes
        )
        reservations += found
        if not short:
            break
        finish(tx, lapsed, retention)
    if settings is not NO_SETTINGS:
        limits.charge(tx, number, settings, len(reservations))
    return reservations


def take_of_each(
    tx: Transaction,
    wanted: Sequence[tuple[int, int]],
    retention: Retention,
    most_bytes: int = MOST_BYTES,
) -> list[list[Reservation]]:
    """As `take_from` of each of these topics, by number, with how many jobs of it are wanted.

    In one go: of many topics a few jobs each cost little more than as many jobs of one.
    """
    if tx.topics.store_settings().paused:
        return [[] for _ in wanted]
    briefs = tx.topics.brief([number for number, _ in wanted])
    is_plain = [settings is NO_SETTINGS and not has_lanes for _, settings, has_lanes in briefs]
    popped = iter(tx.topics.pop_each(list(compress(wanted, is_plain))))
    parts = []
    for (name, settings, _), plain, (number, n) in zip(briefs, is_plain, wanted, strict=True):
        if plain:
            taken = next(popped)
        else:
            n = limits.admitted(tx, number, settings, n)
            taken = _pop(tx, number, n, settings) if n else []
        parts.append(_new(_Taken, (name, number, settings, taken)))
    reservations, lapsed, short = _hand_out(tx, parts, most_bytes)
    for (_, number, settings, _), found in zip(parts, reservations, strict=True):
        if settings is not NO_SETTINGS:
            limits.charge(tx, number, settings, len(found))
    if short:
        finish(tx, lapsed, retention)
        most_bytes -= sum(len(job.payload) for found in reservations for job in found)
        for (number, n), (name, *_), found in zip(wanted, parts, reservations, strict=True):
            if number in short:
                more = take_from(tx, name, n - len(found), retention, most_bytes)
                most_bytes -= sum(len(job.payload) for job in more)
                found += more
    return reservations


def _pop(tx: Transaction, number: int, n: int, settings: TopicSettings) -> list[Waiting]:
    """Take the next jobs out of their queues; of groups, they count as reserved."""
    if groups.has_lanes(tx, number):
        return turns.pop(tx, number, n)
    if settings.ageing is not None:
        return ageing.pop(tx, number, n, settings.ageing)
    return tx.topics.pop(number, n)


class _Taken(NamedTuple):
    """Jobs that were taken out of the queues of a topic."""

    name: str
    number: int
    settings: TopicSettings
    jobs: list[Waiting]


def _hand_out(
    tx: Transaction, parts: Sequence[_Taken], most_bytes: int
) -> tuple[list[list[Reservation]], list[Ending], set[int]]:
    """Reserve jobs that were taken out of their queues: gives those of each topic.

    And those, of all of them, that it is too late for; and the numbers of topics of which there
    may be more to take, as some that were taken cannot be handed out.
    """
    given: list[list[Reservation]] = []
    lapsed: list[Ending] = []
    short: set[int] = set()
    bound: list[tuple[bytes, JobBody]] = []
    leases: dict[int, list[tuple[bytes, JobState]]] = {}
    held: list[tuple[bytes, JobState]] = []
    last_lease_us = -1
    total = 0
    full = False
    both_of_each, why = read_taken(tx, [waiting[2] for part in parts for waiting in part.jobs])
    found = iter(both_of_each)
    for name, number, settings, taken in parts:
        reservations: list[Reservation] = []
        given.append(reservations)
        if full:
            _put_in_again(tx, number, taken)
            continue
        before = total
        usual = UNSET if settings is NO_SETTINGS else _backoff(settings)
        for waiting, both in zip(taken, found, strict=False):  # there are those of other topics
            if both is None:
                _set_aside(tx, name, number, waiting[2], why)
                short.add(number)
                continue
            body, state = both
            # Taken apart at once: ten fields by name cost twice as much, for each job.
            (
                topic, weight, seq, status, _, _, attempt, token, retries, crashes, _,
                _, _, _, _, _, notes, _, payload_size,
            ) = state  # fmt: skip
            job_id = waiting[2]
            in_place = topic == number and waiting == (weight, seq, job_id)
            if not in_place or status not in _RESERVABLE:
                raise damaged(f"topic {name!r} queues job {name_of(job_id)} in a wrong place")
            options = body[6]
            if notes & TERMS and deadlines.has_lapsed(tx, options):
                lapsed.append(_lapse(tx, job_id, body, state))
                short.add(number)
                continue
            total += payload_size
            if total > most_bytes and (any(given) or most_bytes < MOST_BYTES):
                total -= payload_size
                _put_in_again(tx, number, taken[taken.index(waiting) :])
                full = True
                break
            if notes & TERMS:
                bound.append((job_id, body))
            lease_us = (options is not UNSET and options.lease_us) or DEFAULT_LEASE_US
            if settings is not NO_SETTINGS:
                lease_us, options = _within(settings, lease_us, options.over(usual))
            if lease_us != last_lease_us:
                held = leases.setdefault(lease_us, [])
                last_lease_us = lease_us
            held.append((job_id, state))
            reservation = (
                job_id, token + 1, name, weight, attempt + 1,
                retries, crashes, lease_us, options, body[7],
            )  # fmt: skip
            reservations.append(_new(Reservation, reservation))
        tx.topics.hand_out(number, len(reservations), total - before)
    _hold_all(tx, [part.number for part in parts], leases)
    if bound:
        terms.hand_out(tx, bound)
    room.roomier(tx, [part.number for part in parts if part.settings is not NO_SETTINGS])
    return given, lapsed, short


def _set_aside(
    tx: Transaction, name: str, number: int, job_id: bytes, why: Mapping[bytes, StoreCorrupt]
) -> None:
    """Leave a job out that cannot be read: it stands nowhere then, and is not counted.

    Or nobody would get past it. Of its group it still counts as reserved, until a repair.

    Raises:
        StoreCorrupt: There is no such job.
    """
    if job_id not in why:
        raise damaged(f"the queue of topic {name!r} names a job that is not there")
    log_unreadable(job_id, why[job_id], f"it is ready in topic {name!r} and {SET_ASIDE}")
    tx.topics.count(number, Status.READY, -1)


def _hold_all(
    tx: Transaction,
    numbers: Sequence[int],
    leases: Mapping[int, list[tuple[bytes, JobState]]],
) -> None:
    """Hold jobs of these topics under their leases, by microseconds."""
    for lease_us, jobs in leases.items():
        if len(numbers) > 1:  # of each topic they mostly ascend; all together they take less room
            jobs.sort()
        end_us, holder = tx.boot_us + lease_us, tx.holder()
        slots = tx.topics.hold(Agenda.LEASE, end_us, [job_id for job_id, _ in jobs], holder)
        tx.jobs.move(jobs, slots, Move(Status.RESERVED, None, None, end_us, 1, holder, tx.wall_us))
        for number in numbers:
            note_due(tx, number, lease_us)


def _within(settings: TopicSettings, lease_us: int, options: JobOptions) -> tuple[int, JobOptions]:
    """The lease and the options that a job has within the bounds of its topic."""
    if settings.max_lease is not None:
        lease_us = min(lease_us, max(1, round(settings.max_lease * 1e6)))
    if settings.max_retries is not None:
        retries = DEFAULTS.max_retries if options.max_retries is None else options.max_retries
        if retries is None or retries > settings.max_retries:
            options = replace(options, max_retries=settings.max_retries)
    return lease_us, options


@lru_cache(maxsize=256)
def _backoff(settings: TopicSettings) -> JobOptions:
    """The options that a topic has for jobs which do not say themselves."""
    found = {name: getattr(settings, name) for name in _BACKOFF}
    given = {name: value for name, value in found.items() if value is not None}
    return JobOptions.from_checked(given) if given else UNSET


def _lapse(tx: Transaction, job_id: bytes, body: JobBody, state: JobState) -> Ending:
    """A job that was taken out of its queue too late: it waits no more, and is to be finished."""
    if groups.is_grouped(state):
        groups.pass_over(tx, state)
    tx.topics.count(state.topic, Status.READY, -1)
    tx.topics.add_size(state.topic, -state.size)
    deadlines.unwatch(tx, [(job_id, body)])
    keep_us = body.options.retention_us
    return Ending(job_id, state, Status.CANCELED, Reason.EXPIRED, None, keep_us)


def _put_in_again(tx: Transaction, number: int, jobs: list[Waiting]) -> None:
    """Jobs that were taken out of their queues and are not handed out stand there as before."""
    if not groups.has_lanes(tx, number):
        tx.topics.push(number, jobs)
        return
    for job, state in zip(jobs, tx.jobs.states([job.id for job in jobs]), strict=True):
        assert state is not None
        tx.topics.push(state.lane, [job])
        groups.take_back(tx, state)
