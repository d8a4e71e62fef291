"""Adding jobs."""

from collections import defaultdict
from collections.abc import Sequence

from jobq.job import JobSpec
from jobq.repo.operations.places import make_ready, note_due
from jobq.repo.operations.topics import numbers_of
from jobq.repo.repositories import NOBODY, Agenda, JobBody, Transaction, Waiting
from jobq.states import Status


def add(tx: Transaction, specs: Sequence[JobSpec]) -> list[bytes]:
    """New jobs: ready ones behind the others of their weight, the rest delayed."""
    ids = tx.jobs.mint(len(specs))
    seq = tx.topics.next_seq(len(specs))
    numbers = numbers_of(tx, {spec.topic for spec in specs})
    ready: defaultdict[int, list[Waiting]] = defaultdict(list)
    delayed: defaultdict[int, list[int]] = defaultdict(list)
    slots: dict[int, int] = {}
    for position, spec in enumerate(specs):
        if spec.delay_us > 0:
            delayed[tx.wall_us + spec.delay_us].append(position)
    for due_us, positions in delayed.items():
        held = [ids[position] for position in positions]
        slots.update(
            zip(positions, tx.topics.hold(Agenda.DELAYED, due_us, held, NOBODY), strict=True)
        )

    jobs = []
    place = seq
    for position, (topic, weight, delay_us, payload, options) in enumerate(specs):
        number, job_id = numbers[topic], ids[position]
        if delay_us > 0:
            due_us, slot = tx.wall_us + delay_us, slots[position]
            tx.topics.count(number, Status.DELAYED, 1)
            note_due(tx, number, delay_us)
        else:
            due_us = slot = 0
            ready[number].append(tuple.__new__(Waiting, (weight, place, job_id)))
        body = (number, weight, place, tx.wall_us, due_us, slot, options, payload, number)
        jobs.append((job_id, tuple.__new__(JobBody, body)))
        place += 1
    tx.jobs.create(jobs)
    for number, waiting in ready.items():
        make_ready(tx, number, waiting)
    return ids
