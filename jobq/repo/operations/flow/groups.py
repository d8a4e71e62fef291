"""Groups: their lanes, and the ring in which those stand that may be served.

Lanes of one topic are served in turn: the first of the ring gives a job and goes to the back of its
weight, with a new turn. Since the ring is ordered by the weight of each lane's first job, lower
weights come first in the whole topic, and groups take turns among equal ones. The topic's own lane,
for jobs without a group, takes its turn as a group does, and has no limits of groups.

A lane that may not be served is not in the ring, so nobody looks at it: it is *seated* again when
something changes for it. Changes of one operation are gathered in `Transaction.unseated`, and each
lane is looked at once, at the end or before the ring is read.
"""

from collections.abc import Iterable, Sequence
from typing import Final

from jobq.job import LEAST_WEIGHT, name_of
from jobq.rate import Limit
from jobq.repo.flow import FIRST_LANE, Lane, lane_member, lane_of, ring
from jobq.repo.operations.damage import damaged
from jobq.repo.operations.flow import ageing
from jobq.repo.operations.soon import note_due
from jobq.repo.repositories import (
    KEEPS_SLOT,
    NOBODY,
    Agenda,
    Figure,
    Held,
    JobState,
    Transaction,
    Waiting,
)
from jobq.states import Status
from jobq.topic import TopicSettings

EMPTY: Final = Lane(0, 0, 0, 0, 0, 0, 0, "")
"""A lane that has nothing; its topic and its group have to be put in."""
SETTINGS: Final = ("group_concurrency", "group_rate", "group_burst", "ageing")
"""The settings that decide where lanes stand."""


def is_reserved(state: JobState) -> bool:
    """Whether somebody holds the job."""
    return state.status is Status.RESERVED


def is_grouped(state: JobState) -> bool:
    """Whether the job has a group."""
    return state.lane != state.topic


def lane_for(tx: Transaction, topic: int, group: str) -> int:
    """The number of a group's lane, which is made if there is none."""
    number = tx.flow.lane_number(topic, group)
    if number is None:
        number = FIRST_LANE + tx.topics.next_seq(1)
        tx.flow.put_lane(number, EMPTY._replace(topic=topic, group=group))
        lanes = tx.topics.figure(topic, Figure.LANES)
        tx.topics.set_figure(topic, Figure.LANES, lanes + 1)
        if not lanes:  # from now on the topic's own lane takes its turn
            tx.flow.put_lane(topic, EMPTY._replace(topic=topic))
            if tx.topics.waits(topic):
                tx.unseated[topic] = topic
    return number


def count(tx: Transaction, topic: int, number: int, *, ready: int = 0, running: int = 0) -> None:
    """Jobs have come to a lane, or gone, ready ones or those that count as reserved."""
    lane = lane_at(tx, number)
    if number != topic:
        new = lane._replace(ready=lane.ready + ready, running=lane.running + running)
        tx.flow.put_lane(number, new)
    tx.unseated[number] = topic
    if lane.turn:  # one that does not stand in the ring wakes when it is seated
        _wake_more(tx, topic, lane, ready, -running)
    elif ready > 0 and not lane.ready and lane.due_us:  # nobody has been told of that time yet
        note_due(tx, topic, lane.due_us - tx.boot_us)


def _wake_more(tx: Transaction, topic: int, lane: Lane, ready: int, freed: int) -> None:
    """Wake as many waiters as a lane that could be served before has more jobs for."""
    more = max(0, ready)
    if freed > more and lane.ready and tx.topics.settings(topic).group_concurrency is not None:
        more = min(freed, lane.ready + more)
    if more:
        tx.woken[topic] = tx.woken.get(topic, 0) + more


def take_back(tx: Transaction, state: JobState) -> None:
    """A job that `turns.pop` gave stands in its lane again."""
    if is_grouped(state):
        _refund(tx, state)
        count(tx, state.topic, state.lane, ready=1, running=-1)
    else:
        count(tx, state.topic, state.topic)


def pass_over(tx: Transaction, state: JobState) -> None:
    """A job of a group that `turns.pop` gave is finished, and was not handed out."""
    _refund(tx, state)
    count(tx, state.topic, state.lane, running=-1)


def _refund(tx: Transaction, state: JobState) -> None:
    limit = rate_of(tx.topics.settings(state.topic))
    if limit is not None:
        lane = lane_at(tx, state.lane)
        tx.flow.put_lane(state.lane, lane._replace(tat_ns=lane.tat_ns - limit.interval_ns))


def has_lanes(tx: Transaction, topic: int) -> bool:
    """Whether the topic has lanes of groups, and so a ring."""
    return tx.topics.figure(topic, Figure.LANES) > 0


def leave(tx: Transaction, states: Iterable[JobState]) -> None:
    """Jobs of groups do not count as reserved any more."""
    for state in states:
        count(tx, state.topic, state.lane, running=-1)


def keep_slot(tx: Transaction, state: JobState) -> JobState:
    """A job that waits for its retry goes on counting as reserved in its lane."""
    count(tx, state.topic, state.lane, running=1)
    return state._replace(notes=state.notes | KEEPS_SLOT)


def keeps_slot(state: JobState) -> bool:
    """Whether it does."""
    return bool(state.notes & KEEPS_SLOT)


def lose_slot(tx: Transaction, state: JobState) -> JobState:
    """It does not any more."""
    if not keeps_slot(state):
        return state
    count(tx, state.topic, state.lane, running=-1)
    return state._replace(notes=state.notes & ~KEEPS_SLOT, lane=0)


def find_lane(tx: Transaction, job_id: bytes, state: JobState) -> int:
    """The lane in which a job stands when it is ready; made if there is none."""
    if state.lane:
        return state.lane
    (body,) = tx.jobs.bodies([job_id])
    if body is None:
        raise damaged(f"job {name_of(job_id)} has no body")
    group = body.options.group
    return state.topic if group is None else lane_for(tx, state.topic, group)


def seat_all(tx: Transaction) -> None:
    """Let every lane for which something has changed stand where it belongs.

    In the order of the changes, which is that of their turns.
    """
    while tx.unseated:
        number = next(iter(tx.unseated))
        _look_and_seat(tx, tx.unseated.pop(number), number)


def _look_and_seat(tx: Transaction, topic: int, number: int) -> None:
    before = tx.flow.lane(number)
    if before is None:  # forgotten meanwhile
        return
    settings = tx.topics.settings(topic)
    first = next(iter(front(tx, number, 1, settings)), None)
    lane = seat(tx, number, before, first, settings)
    if lane.turn and not before.turn:
        _wake(tx, topic, number, lane, settings)


def front(tx: Transaction, number: int, limit: int, settings: TopicSettings) -> list[Waiting]:
    """The jobs of a lane that come first; they stay in it."""
    if settings.ageing is None:
        return tx.topics.waiting(number, LEAST_WEIGHT, limit)
    return ageing.first(tx, number, limit, settings.ageing)


def seat(
    tx: Transaction, number: int, lane: Lane, first: Waiting | None, settings: TopicSettings
) -> Lane:
    """Let a lane stand where it belongs, by its first job; gives it as it is then."""
    topic = lane.topic
    may, due_us = first is not None, 0
    if number != topic:  # groups' limits do not hold for jobs without a group
        may, due_us = may_be_served(tx, lane, settings, has_jobs=may)
    new = _placed(tx, topic, number, lane, first.weight if may and first else None)
    if new.due_us != due_us:
        if new.due_us:
            tx.topics.unhold(Agenda.LANE, [(new.due_us, number, lane_member(number))])
        if due_us:
            tx.topics.hold_at(Agenda.LANE, Held(due_us, number, lane_member(number)), NOBODY)
            if first:
                note_due(tx, topic, due_us - tx.boot_us)
        new = new._replace(due_us=due_us)
    if number != topic and not (first or new.running or due_us):
        _drop(tx, topic, number)
    elif new != lane:
        tx.flow.put_lane(number, new)
    return new


def may_be_served(
    tx: Transaction, lane: Lane, settings: TopicSettings, *, has_jobs: bool
) -> tuple[bool, int]:
    """Whether a group's lane may be served now, and when it has to be looked at again, or 0."""
    now_ns = tx.boot_us * 1000
    limit = rate_of(settings)
    if not has_jobs:
        # An empty lane is kept for as long as its rate is not as if it had never been.
        if limit is None or lane.running:
            return False, 0
        tat_ns = limit.after(lane.tat_ns, now_ns, 0)  # one of an earlier boot counts as none
        return False, -(-tat_ns // 1000) if tat_ns > now_ns else 0
    if settings.group_concurrency is not None and lane.running >= settings.group_concurrency:
        return False, 0
    next_ns = now_ns if limit is None else limit.next_ns(lane.tat_ns, now_ns)
    return next_ns <= now_ns, -(-next_ns // 1000) if next_ns > now_ns else 0


def _placed(tx: Transaction, topic: int, number: int, lane: Lane, weight: int | None) -> Lane:
    """The lane in the ring at that weight, or out of it if there is none."""
    if lane.turn and lane.weight == weight:
        return lane
    member = lane_member(number)
    turn = lane.turn
    if turn:
        tx.topics.remove(ring(topic), [Waiting(lane.weight, turn, member)])
    if weight is None:
        return lane._replace(turn=0, weight=0)
    if not turn:
        turn = tx.topics.next_seq(1)
    tx.topics.push(ring(topic), [Waiting(weight, turn, member)])
    return lane._replace(turn=turn, weight=weight)


def _wake(tx: Transaction, topic: int, number: int, lane: Lane, settings: TopicSettings) -> None:
    """Wake as many waiters as the lane, which could not be served before, has jobs for."""
    jobs = lane.ready if number != topic else tx.topics.counts(topic)[Status.READY]
    if number != topic and settings.group_concurrency is not None:
        jobs = min(jobs, settings.group_concurrency - lane.running)
    tx.woken[topic] = tx.woken.get(topic, 0) + jobs


def _drop(tx: Transaction, topic: int, number: int) -> None:
    tx.flow.drop_lane(number)
    tx.topics.forget_queue(number)
    lanes = tx.topics.figure(topic, Figure.LANES) - 1
    tx.topics.set_figure(topic, Figure.LANES, lanes)
    if not lanes:  # the topic has no ring any more
        own = lane_at(tx, topic)
        if own.turn:
            seat = Waiting(own.weight, own.turn, lane_member(topic))
            tx.topics.remove(ring(topic), [seat])
        elif tx.topics.waits(topic):  # jobs have come in this operation, and there is no seat
            _wake(tx, topic, topic, own, tx.topics.settings(topic))
        tx.flow.drop_lane(topic)


def look_again(tx: Transaction, limit: int) -> int:
    """Seat lanes whose rates allow a job again; gives how many were looked at."""
    due = tx.topics.due(Agenda.LANE, tx.boot_us, limit)
    for place in due:
        number = lane_of(place.id)
        tx.unseated[number] = lane_at(tx, number).topic
    seat_all(tx)
    return len(due)


def left_behind(tx: Transaction) -> list[int]:
    """Lanes that are to be looked at again later than any rate asks for: the clock began anew."""
    found = []
    if tx.topics.standing(Agenda.LANE):
        for held, _ in tx.topics.held(Agenda.LANE):
            number = lane_of(held.id)
            limit = rate_of(tx.topics.settings(lane_at(tx, number).topic))
            if limit is None or held.at_us * 1000 > limit.latest(tx.boot_us * 1000) + 1000:
                found.append(number)
    return found


def catch_up(tx: Transaction) -> None:
    """Look at these lanes now; to be done when a boot is over."""
    tx.unseated.update((number, lane_at(tx, number).topic) for number in left_behind(tx))


def reseat(tx: Transaction, topic: int) -> None:
    """Look at all lanes of a topic again, because its settings have changed."""
    if not has_lanes(tx, topic):
        return
    limit = rate_of(tx.topics.settings(topic))
    latest_ns = 0 if limit is None else limit.latest(tx.boot_us * 1000)
    after: str | None = None
    while lanes := tx.flow.lanes(topic, after, 1000):
        after = lanes[-1][1].group
        for number, lane in lanes:
            tx.unseated[number] = topic
            if lane.tat_ns > latest_ns:
                tx.flow.put_lane(number, lane._replace(tat_ns=latest_ns))
    tx.unseated[topic] = topic


def rate_of(settings: TopicSettings) -> Limit | None:
    """The rate of each group of a topic; None if it has none."""
    rate = settings.group_rate
    return None if rate is None else Limit.of(rate, settings.group_burst)


def lane_at(tx: Transaction, number: int) -> Lane:
    """A lane that has to be there."""
    lane = tx.flow.lane(number)
    if lane is None:
        raise damaged(f"lane {number} is not there")
    return lane


def lanes_at(tx: Transaction, numbers: Sequence[int]) -> list[Lane]:
    """Lanes that have to be there."""
    found = []
    for number, lane in zip(numbers, tx.flow.lanes_at(numbers), strict=True):
        if lane is None:
            raise damaged(f"lane {number} is not there")
        found.append(lane)
    return found
