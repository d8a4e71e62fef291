"""Serving the groups of a topic in turn.

The first lane of the ring gives a job and goes to the back of its weight; so all lanes of one
weight give one each, round after round. Several rounds are worked out at once, as nothing else can
come between: each lane is read and written once for a call, however many jobs it gives. With
ageing, which `operations.flow.ageing` tells, jobs are taken one by one.
"""

from collections.abc import Sequence
from typing import NamedTuple

from jobq.job import LEAST_WEIGHT
from jobq.repo.flow import Lane, lane_member, lane_of, ring
from jobq.repo.operations.damage import damaged
from jobq.repo.operations.flow import ageing, groups
from jobq.repo.repositories import Transaction, Waiting
from jobq.topic import TopicSettings


class _Served(NamedTuple):
    """What a lane gives: the lane as it is then, out of the ring, and its first job."""

    number: int
    lane: Lane
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
        for number in range(rounds):
            given = [lane.jobs[number] for lane in served if number < len(lane.jobs)]
            if not given:
                break
            taken += given
        served.sort(key=lambda lane: len(lane.jobs))  # who gave last, goes last
        _seat_again(tx, topic, served, settings)
    return taken


def _serve(
    tx: Transaction, topic: int, seat: Waiting, most: int, settings: TopicSettings
) -> _Served:
    """Take the first jobs of a lane, which was taken out of the ring, that have its weight there.

    What it has at other weights has to wait until it stands there.
    """
    number = lane_of(seat.id)
    _, ready, running, _, _, tat_ns, due_us, group = groups.lane_at(tx, number)
    limit, now_ns = None, tx.boot_us * 1000
    if number != topic:  # groups' limits do not hold for jobs without a group
        if settings.group_concurrency is not None:
            most = max(0, min(most, settings.group_concurrency - running))
        limit = groups.rate_of(settings)
        if limit is not None:
            most = min(most, limit.allowed(tat_ns, now_ns))
    front = groups.front(tx, number, most + 1, settings)
    weight = seat.weight
    if not front or front[0].weight != weight:
        raise damaged(f"the ring of topic {tx.topics.name(topic)!r} does not match its lanes")
    jobs = [job for job in front[:most] if job.weight == weight]
    tx.topics.remove(number, jobs)
    count = len(jobs)
    if limit is not None:
        tat_ns = limit.after(tat_ns, now_ns, count)
    if number != topic:
        ready, running = ready - count, running + count
    lane = Lane(topic, ready, running, 0, 0, tat_ns, due_us, group)
    return _Served(number, lane, jobs, front[count] if count < len(front) else None)


def _seat_again(
    tx: Transaction, topic: int, served: Sequence[_Served], settings: TopicSettings
) -> None:
    """Those that may be served once more, at the back of the ring; in one go, as they are many."""
    unlimited = settings.group_concurrency is None and settings.group_rate is None
    seats = []
    turn = tx.topics.next_seq(len(served))
    for number, lane, _, first in served:
        free = number == topic or unlimited
        if first is not None and (
            free or groups.may_be_served(tx, lane, settings, has_jobs=True)[0]
        ):
            seats.append(Waiting(first.weight, turn, lane_member(number)))
            tx.flow.put_lane(number, lane._replace(weight=first.weight, turn=turn))
            turn += 1
        else:
            tx.flow.put_lane(number, lane)
            groups.seat(tx, number, lane, first, settings)
    if seats:
        tx.topics.push(ring(topic), seats)


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
        tx.flow.put_lane(served.number, served.lane)
        lane = groups.seat(tx, served.number, served.lane, served.first, settings)
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
