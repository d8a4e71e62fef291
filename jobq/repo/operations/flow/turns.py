"""Serving the groups of a topic in turn.

The first lane of the ring gives a job and goes to the back of its weight; so all lanes of one
weight give one each, round after round. Several rounds are worked out at once, as nothing else can
come between: each lane is read and written once for a call, however many jobs it gives. With
ageing, which `operations.flow.ageing` tells, jobs are taken one by one.
"""

from collections.abc import Sequence
from typing import NamedTuple

from jobq.errors import StoreCorrupt
from jobq.rate import Limit
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
    unlimited = settings.group_concurrency is None and settings.group_rate is None
    taken: list[Waiting] = []
    while (most := limit - len(taken)) > 0:
        seats = first = tx.topics.pop(ring(topic), most)
        if not first:
            break
        weight = first[0].weight
        if first[-1].weight != weight:  # the others' turn comes after these have had theirs
            seats = [seat for seat in first if seat.weight == weight]
            tx.topics.push(ring(topic), first[len(seats) :])
        rounds = most // len(seats)  # 1 if there may be more lanes of the weight than were read
        if unlimited:
            given = _serve_freely(tx, topic, seats, rounds)
        else:
            given = _serve_all(tx, topic, seats, rounds, settings)
        for number in range(rounds):
            of_round = [jobs[number] for jobs in given if number < len(jobs)]
            if not of_round:
                break
            taken += of_round
    return taken


def _serve_freely(
    tx: Transaction, topic: int, seats: Sequence[Waiting], most: int
) -> list[list[Waiting]]:
    """As `_serve_all` where groups have no limits: in one pass, as there may be many lanes."""
    weight = seats[0].weight
    numbers = [lane_of(member) for _, _, member in seats]
    lanes = groups.lanes_at(tx, numbers)
    fronts = tx.topics.take_fronts([(number, weight, most) for number in numbers])
    served = list(zip(seats, numbers, lanes, fronts, strict=True))
    if most > 1:
        served.sort(key=lambda it: len(it[3].taken))  # who gave last, goes last
    turn = tx.topics.next_seq(len(seats))
    again: list[Waiting] = []
    changed: list[tuple[int, Lane]] = []
    for (_, _, member), number, lane, (jobs, first) in served:
        of, ready, running, _, _, tat_ns, due_us, group = lane
        given = len(jobs)
        if not given:
            raise _not_matching(tx, topic)
        if number != topic:
            ready, running = ready - given, running + given
        if first is None:  # and it is kept: its jobs are running
            after = (of, ready, running, 0, 0, tat_ns, due_us, group)
        else:
            weight = first[0]
            after = (of, ready, running, weight, turn, tat_ns, due_us, group)
            again.append(tuple.__new__(Waiting, (weight, turn, member)))
            turn += 1
        changed.append((number, tuple.__new__(Lane, after)))
    tx.flow.put_lanes(changed)
    if again:
        tx.topics.push(ring(topic), again)
    return [jobs for jobs, _ in fronts]


def _serve_all(
    tx: Transaction, topic: int, seats: Sequence[Waiting], most: int, settings: TopicSettings
) -> list[list[Waiting]]:
    """Take the first jobs of lanes, which were taken out of the ring, that have its weight there.

    What they have at other weights has to wait until they stand there. Those that may be served
    once more go to the back of the ring.
    """
    numbers = [lane_of(seat.id) for seat in seats]
    lanes = groups.lanes_at(tx, numbers)
    limit = groups.rate_of(settings)
    wanted = [
        (number, seat.weight, _most(tx, number, lane, most, settings, limit))
        for number, seat, lane in zip(numbers, seats, lanes, strict=True)
    ]
    served = []
    for number, lane, (jobs, first), (_, weight, at_most) in zip(
        numbers, lanes, tx.topics.take_fronts(wanted), wanted, strict=True
    ):
        if not jobs and at_most and (first is None or first.weight != weight):
            raise _not_matching(tx, topic)
        served.append(_Served(number, _given(tx, number, lane, len(jobs), limit), jobs, first))
    given = [one.jobs for one in served]
    served.sort(key=lambda one: len(one.jobs))  # who gave last, goes last
    _seat_again(tx, topic, served, settings)
    return given


def _not_matching(tx: Transaction, topic: int) -> StoreCorrupt:
    return damaged(f"the ring of topic {tx.topics.name(topic)!r} does not match its lanes")


def _most(
    tx: Transaction,
    number: int,
    lane: Lane,
    most: int,
    settings: TopicSettings,
    limit: Limit | None,
) -> int:
    """How many of up to *most* jobs the lane may give now."""
    if number != lane.topic:  # groups' limits do not hold for jobs without a group
        if settings.group_concurrency is not None:
            most = max(0, min(most, settings.group_concurrency - lane.running))
        if limit is not None:
            most = min(most, limit.allowed(lane.tat_ns, tx.boot_us * 1000))
    return most


def _given(tx: Transaction, number: int, lane: Lane, jobs: int, limit: Limit | None) -> Lane:
    """The lane out of the ring, after it has given so many jobs."""
    topic, ready, running, _, _, tat_ns, due_us, group = lane
    if number != topic:
        ready, running = ready - jobs, running + jobs
        if limit is not None:
            tat_ns = limit.after(tat_ns, tx.boot_us * 1000, jobs)
    return tuple.__new__(Lane, (topic, ready, running, 0, 0, tat_ns, due_us, group))


def _serve(tx: Transaction, seat: Waiting, settings: TopicSettings) -> _Served:
    """Take the job of a lane that goes first by its age; the lane was taken out of the ring."""
    number = lane_of(seat.id)
    lane, limit = groups.lane_at(tx, number), groups.rate_of(settings)
    most = _most(tx, number, lane, 1, settings, limit)
    front = groups.front(tx, number, most + 1, settings)
    jobs = front[:most]
    tx.topics.remove(number, jobs)
    first = front[len(jobs)] if len(jobs) < len(front) else None
    return _Served(number, _given(tx, number, lane, len(jobs), limit), jobs, first)


def _seat_again(
    tx: Transaction, topic: int, served: Sequence[_Served], settings: TopicSettings
) -> None:
    """Those that may be served once more, at the back of the ring; in one go, as they are many."""
    seats = []
    turn = tx.topics.next_seq(len(served))
    for number, lane, _, first in served:
        if first is not None and (
            number == topic or groups.may_be_served(tx, lane, settings, has_jobs=True)[0]
        ):
            seats.append(Waiting(first.weight, turn, lane_member(number)))
            of, ready, running, _, _, tat_ns, due_us, group = lane
            seated = (of, ready, running, first.weight, turn, tat_ns, due_us, group)
            tx.flow.put_lane(number, tuple.__new__(Lane, seated))
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
        served = _serve(tx, seat, settings)
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
