"""How many jobs of a topic may be handed out now: pause, concurrency, rate; and when the next may.

A topic that is at a limit is not looked into. Its waiters sleep until a commit lifts the limit,
which wakes them, or until its rate allows the next job.
"""

import math

from jobq.job import LEAST_WEIGHT
from jobq.rate import Limit
from jobq.repo.flow import ring
from jobq.repo.operations.flow import groups
from jobq.repo.repositories import Figure, Transaction
from jobq.states import Status
from jobq.topic import NO_SETTINGS, TopicSettings


def rate_of(settings: TopicSettings) -> Limit | None:
    """The rate of a topic; None if it has none."""
    return None if settings.rate is None else Limit.of(settings.rate, settings.burst)


def running(tx: Transaction, topic: int) -> int:
    """How many jobs count against the topic's concurrency."""
    counts = tx.topics.counts(topic)
    return counts[Status.RESERVED] + tx.topics.figure(topic, Figure.LINGERING)


def admitted(tx: Transaction, topic: int, settings: TopicSettings, n: int) -> int:
    """How many of up to *n* jobs may be handed out now, as far as the topic's settings go."""
    if settings.paused or tx.topics.store_settings().paused:
        return 0
    if settings is NO_SETTINGS:
        return n
    if settings.concurrency is not None:
        n = min(n, settings.concurrency - running(tx, topic))
    limit = rate_of(settings)
    if limit is not None and n > 0:
        tat_ns = tx.topics.figure(topic, Figure.TAT_NS)
        n = min(n, limit.allowed(tat_ns, tx.boot_us * 1000))
    return max(0, n)


def charge(tx: Transaction, topic: int, settings: TopicSettings, jobs: int) -> None:
    """Jobs have been handed out: count them against the rate."""
    limit = rate_of(settings)
    if limit is not None and jobs:
        tat_ns = tx.topics.figure(topic, Figure.TAT_NS)
        after = limit.after(tat_ns, tx.boot_us * 1000, jobs)
        tx.topics.set_figure(topic, Figure.TAT_NS, after)


def freed(tx: Transaction, topic: int, jobs: int) -> None:
    """Jobs do not count as reserved any more: others may go in their place."""
    settings = tx.topics.settings(topic)
    if settings.concurrency is not None:
        waiting = tx.topics.counts(topic)[Status.READY]
        if waiting:
            tx.woken[topic] = tx.woken.get(topic, 0) + min(jobs, waiting)


def changed(tx: Transaction, topic: int, old: TopicSettings, new: TopicSettings) -> None:
    """The settings of a topic have changed, and hold from now on: whoever waits has to look again.

    What was handed out before counts against the new rate, as far as that can remember it.
    """
    if (old.rate, old.burst) != (new.rate, new.burst):
        limit, tat_ns = rate_of(new), tx.topics.figure(topic, Figure.TAT_NS)
        kept = 0 if limit is None else min(tat_ns, limit.latest(tx.boot_us * 1000))
        tx.topics.set_figure(topic, Figure.TAT_NS, kept)
    if any(getattr(old, name) != getattr(new, name) for name in groups.SETTINGS):
        groups.reseat(tx, topic)
    wake(tx, topic)


def wake(tx: Transaction, topic: int) -> None:
    """Whoever waits for jobs of the topic has to look again."""
    waiting = tx.topics.counts(topic)[Status.READY]
    tx.woken[topic] = tx.woken.get(topic, 0) + max(1, waiting)


def ready_in(tx: Transaction, topic: int) -> float:
    """In how many seconds a job of the topic may be handed out.

    0 if one may be now; infinity if only a commit can change that. Jobs whose group is at its rate
    are looked after by the agenda LANE.
    """
    if groups.has_lanes(tx, topic):
        if not tx.topics.waiting(ring(topic), LEAST_WEIGHT, 1):
            return math.inf
    elif not tx.topics.waits(topic):
        return math.inf
    settings = tx.topics.settings(topic)
    if admitted(tx, topic, settings, 1):
        return 0.0
    limit = rate_of(settings)
    if limit is None or not admitted(tx, topic, _without_rate(settings), 1):
        return math.inf
    now_ns = tx.boot_us * 1000
    next_ns = limit.next_ns(tx.topics.figure(topic, Figure.TAT_NS), now_ns)
    return (next_ns - now_ns) / 1e9


def _without_rate(settings: TopicSettings) -> TopicSettings:
    return settings.changed({"rate": None})
