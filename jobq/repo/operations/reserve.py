"""Handing jobs out."""

from collections import defaultdict
from typing import Final

from jobq.job import Reservation, name_of
from jobq.options import DEFAULTS
from jobq.repo.base import ReserveRequest
from jobq.repo.operations.places import damaged, note_due
from jobq.repo.repositories import Agenda, JobState, Transaction
from jobq.states import Event, Status, can_move

MOST_BYTES: Final = 64 * 1024 * 1024
"""A reservation stops growing when its payloads reach this size."""

DEFAULT_LEASE_US: Final = DEFAULTS.lease_us or 0


def take(tx: Transaction, request: ReserveRequest) -> list[Reservation]:
    """Reserve the first jobs of a topic's queue."""
    number = tx.topics.known(request.topic)
    if number is None:
        return []
    taken = tx.topics.pop(number, request.n)
    if not taken:
        return []
    ids = [waiting.id for waiting in taken]
    reservations: list[Reservation] = []
    leases: defaultdict[int, list[int]] = defaultdict(list)
    states: list[JobState] = []
    size = 0
    for position, both in enumerate(tx.jobs.both(ids)):
        if both is None:
            raise damaged(f"the queue of topic {request.topic!r} names a job that is not there")
        body, state = both
        weight, seq, _ = taken[position]
        in_place = state.topic == number and state.weight == weight and state.seq == seq
        if not in_place or not can_move(state.status, Event.RESERVE):
            raise damaged(
                f"topic {request.topic!r} queues job {name_of(ids[position])} in a wrong place"
            )
        size += len(body.payload)
        if size > MOST_BYTES and reservations:
            tx.topics.push(number, taken[position:])
            break
        lease_us = body.options.lease_us or DEFAULT_LEASE_US
        leases[lease_us].append(position)
        states.append(state)
        reservation = (
            ids[position], state.token + 1, request.topic, weight, state.attempt + 1,
            state.retries, state.crashes, lease_us, body.options, body.payload,
        )  # fmt: skip
        reservations.append(tuple.__new__(Reservation, reservation))
    moved = []
    holder = tx.holder()
    for lease_us, positions in leases.items():
        end_us = tx.boot_us + lease_us
        held = [ids[position] for position in positions]
        slots = tx.topics.hold(Agenda.LEASE, end_us, held, holder)
        for position, slot in zip(positions, slots, strict=True):
            was = states[position]
            state = tuple.__new__(
                JobState,
                (
                    number, was.weight, was.seq, Status.RESERVED, None, None,
                    was.attempt + 1, was.token + 1, was.retries, was.crashes, was.resets,
                    end_us, slot, holder, tx.wall_us, 0, was.notes, was.lane, was.size,
                ),
            )  # fmt: skip
            moved.append((ids[position], state))
        note_due(tx, number, lease_us)
    tx.jobs.update(moved)
    tx.topics.count(number, Status.READY, -len(moved))
    tx.topics.count(number, Status.RESERVED, len(moved))
    return reservations
