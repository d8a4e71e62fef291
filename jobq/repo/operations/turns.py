"""Serving the groups of a topic in turn.

The first lane of the ring gives a job and goes to the back of its weight; so all lanes of one
weight give one each, round after round. Several rounds are worked out at once, as nothing else can
come between: each lane is read and written once for a call, however many jobs it gives. With
ageing, which `operations.ageing` tells, jobs are taken one by one.
"""

from collections.abc import Sequence
from typing import NamedTuple

from jobq.job import LEAST_WEIGHT
from jobq.repo.flow import lane_of, ring
from jobq.repo.operations import ageing, groups
from jobq.repo.operations.damage import damaged
from jobq.repo.repositories import Transaction, Waiting
from jobq.topic import TopicSettings


class _Served(NamedTuple):
    """What a lane gives, and the job that is first in it then."""

    number: int
    jobs: list[Waiting]
    first: Waiting | None


def pop(tx: Transaction, topic: int, limit: int) -> list[Waiting]:
    """Take up to *limit* jobs, lane by lane in their turn; they count as reserved there."""
    groups.seat_all(tx)
    settings = tx.topics.settings(topic)
    if settings.ageing is not None:
        return _pop_one_by_one(tx, topic, limit, settings)
    taken: list[Waiting] = []
    while (most := limit - len(taken)) > 0:
        first = tx.topics.waiting(ring(topic), LEAST_WEIGHT, most)
        if not first:
            break
        seats = [seat for seat in first if seat.weight == first[0].weight]
        rounds = most // len(seats)  # 1 if there may be more lanes of the weight than were read
        tx.topics.remove(ring(topic), seats)
        served = [_serve(tx, topic, seat, rounds, settings) for seat in seats]
        taken += _in_turn(served, rounds)
        for lane in sorted(served, key=lambda lane: len(lane.jobs)):  # who gave last, goes last
            groups.seat(tx, lane.number, groups.lane_at(tx, lane.number), lane.first, settings)
    return taken


def _in_turn(served: Sequence[_Served], rounds: int) -> list[Waiting]:
    return [
        lane.jobs[number] for number in range(rounds) for lane in served if number < len(lane.jobs)
    ]


def _serve(
    tx: Transaction, topic: int, seat: Waiting, most: int, settings: TopicSettings
) -> _Served:
    """Take the first jobs of a lane, which was taken out of the ring, that have its weight there.

    What it has at other weights has to wait until it stands there.
    """
    number = lane_of(seat.id)
    lane = groups.lane_at(tx, number)
    limit, now_ns = groups.rate_of(settings), tx.boot_us * 1000
    if number != topic:  # groups' limits do not hold for jobs without a group
        if settings.group_concurrency is not None:
            most = min(most, settings.group_concurrency - lane.running)
        if limit is not None:
            most = min(most, limit.allowed(lane.tat_ns, now_ns))
    most = max(0, most)
    front = groups.front(tx, number, most + 1, settings)
    if not front or front[0].weight != seat.weight:
        raise damaged(f"the ring of topic {tx.topics.name(topic)!r} does not match its lanes")
    jobs = [job for job in front[:most] if job.weight == seat.weight]
    tx.topics.remove(number, jobs)
    lane = lane._replace(turn=0, weight=0)
    if number != topic:
        lane = lane._replace(ready=lane.ready - len(jobs), running=lane.running + len(jobs))
        if limit is not None:
            lane = lane._replace(tat_ns=limit.after(lane.tat_ns, now_ns, len(jobs)))
    tx.flow.put_lane(number, lane)
    return _Served(number, jobs, front[len(jobs)] if len(jobs) < len(front) else None)


def _pop_one_by_one(
    tx: Transaction, topic: int, limit: int, settings: TopicSettings
) -> list[Waiting]:
    """As `pop`; among the first lanes of all weights the one goes whose job has to go first."""
    taken: list[Waiting] = []
    heads = {head.weight: _standing(tx, head, settings) for head in ageing.heads(tx, ring(topic))}
    while heads and len(taken) < limit:
        weight = min(heads, key=lambda weight: (heads[weight][0], weight))
        _, seat = heads.pop(weight)
        tx.topics.remove(ring(topic), [seat])
        served = _serve(tx, topic, seat, 1, settings)
        taken += served.jobs
        lane = groups.lane_at(tx, served.number)
        lane = groups.seat(tx, served.number, lane, served.first, settings)
        for changed in {weight, lane.weight} - heads.keys():
            following = tx.topics.waiting(ring(topic), changed, 1)
            if following and following[0].weight == changed:
                heads[changed] = _standing(tx, following[0], settings)
    return taken


def _standing(tx: Transaction, seat: Waiting, settings: TopicSettings) -> tuple[int, Waiting]:
    """What decides between the first lanes of two weights: how their first jobs stand."""
    jobs = groups.front(tx, lane_of(seat.id), 1, settings)
    if not jobs or settings.ageing is None:
        raise damaged(f"the ring names lane {lane_of(seat.id)}, which has no job")
    return ageing.standing(jobs[0], ageing.in_us(settings.ageing)), seat
