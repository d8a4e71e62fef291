"""What flow control keeps, listed for an operator, and released by one: keys, groups, limits."""

from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Final

from jobq.clock import utc
from jobq.job import UniqueKey, name_of
from jobq.rate import Limit
from jobq.repo.flow import Lingering
from jobq.repo.operations.flow import caps, groups, limits, lingering, uniques
from jobq.repo.operations.topics import settings_of
from jobq.repo.repositories import Agenda, Figure, Transaction
from jobq.states import UNFINISHED, Outcome, Status
from jobq.topic import GroupStats, TopicLimits, TopicStats

PAGE: Final = 512


def topic_stats(tx: Transaction, name: str) -> TopicStats:
    """The counts of a topic; zeros if it does not exist."""
    number = tx.topics.known(name)
    if number is None:
        return TopicStats(name)
    counts = tx.topics.counts(number)
    return TopicStats(
        name,
        **{status.value: counts[status] for status in Status},
        bytes=tx.topics.size(number),
        running=limits.running(tx, number),
        groups=tx.topics.figure(number, Figure.LANES),
        paused=bool(tx.topics.settings(number).paused or tx.topics.store_settings().paused),
    )


def unfinished(tx: Transaction, name: str | None) -> int:
    """How many jobs of a topic, or of the store, are neither done nor canceled."""
    if name is None:
        return sum(tx.topics.total(status) for status in UNFINISHED)
    number = tx.topics.known(name)
    counts = {} if number is None else tx.topics.counts(number)
    return sum(counts.get(status, 0) for status in UNFINISHED)


# Unique keys.


def keys(tx: Transaction, after: str | None, limit: int) -> list[UniqueKey]:
    """The first *limit* keys beyond *after* that are taken: those whose period is over are not."""
    found: list[UniqueKey] = []
    while len(found) < limit and (page := tx.flow.keys(after, PAGE)):
        after = page[-1][0]
        found += [
            UniqueKey(name, name_of(key.job), utc(key.until_us) if key.until_us else None)
            for name, key in page
            if not key.until_us or key.until_us > tx.wall_us
        ]
    return found[:limit]


def release_keys(tx: Transaction, names: Sequence[str]) -> list[Outcome]:
    """Let nobody have these keys."""
    return [Outcome.OK if uniques.release(tx, name) else Outcome.MISSING for name in names]


# Groups.


def groups_of(tx: Transaction, topic: str, after: str | None, limit: int) -> list[GroupStats]:
    """The first *limit* groups of a topic that have a lane, beyond *after*."""
    number = tx.topics.known(topic)
    if number is None:
        return []
    settings = tx.topics.settings(number)
    rate = groups.rate_of(settings)
    held = Counter(hold.lane for _, _, hold in _lingering(tx, number))
    return [
        GroupStats(
            lane.group, lane.ready, lane.running, held[lane_number], _next_at(tx, rate, lane.tat_ns)
        )
        for lane_number, lane in tx.flow.lanes(number, after, limit)
    ]


def release_groups(tx: Transaction, topic: str, names: Sequence[str]) -> list[Outcome]:
    """End what lingers in these groups, and let their rates begin anew."""
    number = tx.topics.known(topic)
    lanes = [None if number is None else tx.flow.lane_number(number, name) for name in names]
    outcomes = [Outcome.MISSING if lane is None else Outcome.OK for lane in lanes]
    if number is None:
        return outcomes
    for job_id, token, hold in list(_lingering(tx, number)):
        if hold.lane in lanes:
            lingering.end(tx, job_id, token, hold)
    for lane_number in lanes:
        lane = None if lane_number is None else tx.flow.lane(lane_number)
        if lane_number is not None and lane is not None:
            tx.flow.put_lane(lane_number, lane._replace(tat_ns=0))
            tx.unseated[lane_number] = number
    return outcomes


# Limits.


def limits_of(tx: Transaction, topic: str | None) -> TopicLimits:
    """What limits a topic, or the store, and how near it is to that."""
    settings = settings_of(tx, topic)
    number = 0 if topic is None else tx.topics.known(topic)
    if number is None:
        return TopicLimits(settings)
    if number:
        running, held = limits.running(tx, number), tx.topics.figure(number, Figure.LINGERING)
    else:
        held = tx.topics.standing(Agenda.LINGER)
        running = tx.topics.total(Status.RESERVED) + held
    rate = limits.rate_of(settings)
    tat_ns = tx.topics.figure(number, Figure.TAT_NS) if rate is not None else 0
    return TopicLimits(
        settings,
        running=running,
        lingering=held,
        allowed=None if rate is None else rate.allowed(tat_ns, tx.boot_us * 1000),
        next_at=_next_at(tx, rate, tat_ns),
        jobs=caps.waiting(tx, number),
        bytes=tx.topics.size(number),
    )


def release_limits(tx: Transaction, topic: str) -> int:
    """End what lingers in a topic, and let its rate begin anew; gives how many holds ended."""
    number = tx.topics.known(topic)
    if number is None:
        return 0
    holds = list(_lingering(tx, number))
    for job_id, token, hold in holds:
        lingering.end(tx, job_id, token, hold)
    if tx.topics.figure(number, Figure.TAT_NS):
        tx.topics.set_figure(number, Figure.TAT_NS, 0)
        limits.wake(tx, number)
    return len(holds)


def _lingering(tx: Transaction, topic: int) -> Iterator[tuple[bytes, int, Lingering]]:
    """What lingers of a topic's jobs: most often nothing, which is seen without a look."""
    if not tx.topics.figure(topic, Figure.LINGERING):
        return iter(())
    return (held for held in tx.flow.all_lingering() if held[2].topic == topic)


def _next_at(tx: Transaction, rate: Limit | None, tat_ns: int) -> datetime | None:
    """When a rate lets the next job go; None if one may go now."""
    if rate is None:
        return None
    now_ns = tx.boot_us * 1000
    next_ns = rate.next_ns(tat_ns, now_ns)
    return None if next_ns <= now_ns else utc(tx.wall_us + -(-(next_ns - now_ns) // 1000))
