"""Forgetting the jobs of a topic, in bounded steps."""

from itertools import takewhile
from typing import Final

from jobq.job import LEAST_WEIGHT, MOST_WEIGHT
from jobq.repo.base import Purged, PurgeFrom
from jobq.repo.operations.damage import damaged, readable_states
from jobq.repo.operations.flow import groups
from jobq.repo.operations.places import forget
from jobq.repo.repositories import Transaction, Waiting
from jobq.states import Status

PAGE: Final = 64
"""How many jobs a purge reads at once: those that have not moved come with their payloads."""


def purge(
    tx: Transaction, topic: str, statuses: frozenset[Status], after: PurgeFrom | None, limit: int
) -> Purged:
    """A step of forgetting a topic's jobs: first its queues, which cost no look at any other job.

    For the other statuses all jobs of the store are looked at, by id, until the topic counts none
    of them. That the jobs of then are told from later ones by their places, and that the walk has
    an end, lets it come to one while others enqueue.
    """
    number = tx.topics.known(topic)
    last = tx.jobs.last_id()
    if number is None or last is None:
        return Purged(0, None)
    after = after or PurgeFrom(tx.topics.next_seq(0) - 1, last, LEAST_WEIGHT)
    seq, last, weight, job_id, _ = after
    count = 0
    if weight is not None and Status.READY in statuses:
        ready, weight, group, limit = _ready(tx, number, after, limit)
        states = tx.jobs.states([waiting.id for waiting in ready])
        if not all(states):
            raise damaged(f"the queue of topic {topic!r} names a job that is not there")
        forget(tx, [(job.id, state) for job, state in zip(ready, states, strict=True) if state])
        count += len(ready)
        if weight is not None:
            return Purged(count, PurgeFrom(seq, last, weight, job_id, group))
    while limit > 0:
        counts = tx.topics.counts(number)
        if job_id >= last or not any(counts[status] for status in statuses - {Status.READY}):
            return Purged(count, None)
        ids = tx.jobs.ids(job_id, min(PAGE, limit))
        found = [
            (one, state)
            for one, state in readable_states(tx, ids)
            if state.topic == number
            and state.status in statuses
            and state.seq <= seq
            and one <= last
        ]
        forget(tx, found)
        count += len(found)
        limit -= len(ids)
        job_id = ids[-1] if ids else last
    return Purged(count, PurgeFrom(seq, last, None, job_id))


def _ready(
    tx: Transaction, number: int, after: PurgeFrom, limit: int
) -> tuple[list[Waiting], int | None, str, int]:
    """The topic's ready jobs with places of then, lane by lane; no more than *limit*.

    Also gives the weight and the group to go on from, and what is left of the limit. Looking at a
    lane takes from it too, so that a step ends however many groups have only later jobs.
    """
    found: list[Waiting] = []
    weight, group = after.weight, after.group
    while limit > 0 and weight is not None:
        lane = tx.flow.lane_number(number, group) if group else number
        if lane is None:  # it had no other jobs
            weight = None
        else:
            jobs, weight, limit = _ready_of_lane(tx, lane, after.seq, weight, limit)
            found += jobs
        if weight is None and groups.has_lanes(tx, number):
            for _, following in tx.flow.lanes(number, group or None, 1):
                weight, group, limit = LEAST_WEIGHT, following.group, limit - 1
    return found, weight, group, limit


def _ready_of_lane(
    tx: Transaction, lane: int, seq: int, weight: int, limit: int
) -> tuple[list[Waiting], int | None, int]:
    """The lane's ready jobs with places up to *seq*, from a weight on; no more than *limit*.

    Also gives the weight to go on from, None if there is no other, and what is left of the limit.
    """
    found: list[Waiting] = []
    while limit > 0:
        waiting = tx.topics.waiting(lane, weight, limit)
        old = list(takewhile(lambda job: job.seq <= seq, waiting))
        found += old
        if len(old) < len(waiting):  # all behind it in its weight came later, too
            weight = waiting[len(old)].weight + 1
        elif len(waiting) < limit:
            return found, None, limit - len(waiting)
        else:
            weight = waiting[-1].weight
        limit -= len(waiting)
        if weight > MOST_WEIGHT:
            return found, None, limit
    return found, weight, 0
