"""Ageing: so much waiting counts as one weight less, so that old low jobs are served in the end.

A job's effective weight at any time t is weight - (t - born) / ageing. All jobs age alike, so which
of two comes first never changes while they wait: the one with the smaller weight * ageing + born.
Nothing has to be rewritten as time goes by. Within one weight the place decides, so only the first
job of each weight has to be compared: a reservation looks at as many jobs as there are different
weights, and as it takes.

With groups, that holds within each lane: its first job decides where it stands in the ring, as
always under its weight. Lanes of one weight go on taking turns, whatever the age of their jobs;
among the weights, the lane goes whose turn it is in its weight and whose first job comes first by
effective weight. So a group's low jobs are served in the end, and no group by its age alone.

A job's age is that of its id: from when it was enqueued, to the millisecond.
"""

from collections.abc import Iterator
from heapq import heapify, heappop, heapreplace
from typing import Final

from jobq.job import LEAST_WEIGHT, MOST_WEIGHT
from jobq.repo.repositories import Transaction, Waiting

CHUNK: Final = 32


def pop(tx: Transaction, lane: int, limit: int, ageing: float) -> list[Waiting]:
    """Take the first *limit* jobs out of a queue, by effective weight; ageing in seconds."""
    taken = first(tx, lane, limit, ageing)
    tx.topics.remove(lane, taken)
    return taken


def first(tx: Transaction, lane: int, limit: int, ageing: float) -> list[Waiting]:
    """The first *limit* jobs of a queue, by effective weight; they stay in it."""
    ageing_us = in_us(ageing)
    heap: list[tuple[int, Waiting, Iterator[Waiting]]] = []
    for head in heads(tx, lane):
        rest = _of_weight(tx, lane, head)
        heap.append((standing(head, ageing_us), head, rest))
    heapify(heap)
    found: list[Waiting] = []
    while heap and len(found) < limit:
        _, job, rest = heap[0]
        found.append(job)
        following = next(rest, None)
        if following is None:
            heappop(heap)
        else:
            heapreplace(heap, (standing(following, ageing_us), following, rest))
    return found


def in_us(ageing: float) -> int:
    """The setting in microseconds, at least one."""
    return max(1, round(ageing * 1e6))


def standing(job: Waiting, ageing_us: int) -> int:
    """What decides between jobs: lower is served first."""
    return job.weight * ageing_us + int.from_bytes(job.id[:6]) * 1000


def heads(tx: Transaction, lane: int) -> Iterator[Waiting]:
    """The first job of each weight in a queue."""
    weight = LEAST_WEIGHT
    while head := tx.topics.waiting(lane, weight, 1):
        yield head[0]
        if head[0].weight == MOST_WEIGHT:
            return
        weight = head[0].weight + 1


def _of_weight(tx: Transaction, lane: int, head: Waiting) -> Iterator[Waiting]:
    """The jobs behind the first one of its weight."""
    last = head
    while jobs := tx.topics.waiting(lane, last.weight, CHUNK, last.seq + 1):
        for job in jobs:
            if job.weight != head.weight:
                return
            yield job
        last = jobs[-1]
