"""How many jobs may wait in a topic and in the store, and what goes when there are more.

Caps hold for jobs that are enqueued. What comes back (retries, resets, imports) is never refused.
"""

from collections.abc import Iterable, Iterator, Mapping
from heapq import merge
from itertools import islice
from operator import add
from typing import Final, NamedTuple

from jobq.errors import QueueFull
from jobq.repo.base import Retention
from jobq.repo.operations import places
from jobq.repo.operations.damage import damaged
from jobq.repo.operations.flow import ageing, groups
from jobq.repo.repositories import Transaction
from jobq.states import Reason, Status
from jobq.topic import NO_SETTINGS, TopicSettings

PAGE: Final = 256

SURPLUS: Final = 1000
"""How many jobs go in one call, unless it brings more. There may be any number of them beyond a cap
that has been lowered: these go with the calls that follow."""


class Coming(NamedTuple):
    """What is to be added to a topic.

    Attributes:
        jobs: How many jobs.
        ready: How many of them are ready at once.
        size: Bytes of their payloads; of jobs that are there already, by how much they grow.
        ready_size: Bytes of those that are ready at once.
    """

    jobs: int
    ready: int
    size: int
    ready_size: int

    @classmethod
    def of(cls, size: int, *, jobs: int = 1, ready: bool) -> "Coming":
        """One new job; or none, and one that is there grows."""
        return cls(jobs, jobs if ready else 0, size, size if ready else 0)

    def and_(self, more: "Coming") -> "Coming":
        """Both together."""
        return Coming(*map(add, self, more))


def waiting(tx: Transaction, topic: int) -> int:
    """How many jobs of the topic wait; of topic 0, of the store."""
    if not topic:
        return tx.topics.total(Status.READY) + tx.topics.total(Status.DELAYED)
    counts = tx.topics.counts(topic)
    return counts[Status.READY] + counts[Status.DELAYED]


def refuse(tx: Transaction, coming: Mapping[str, Coming], everything: Coming) -> dict[str, Coming]:
    """Refuse jobs for which there is no room; gives the part for which others have to go, by topic.

    *everything* is what is to be added to the store: a job that is replaced by one of another topic
    is new to that topic alone.

    Raises:
        QueueFull: A topic, or the store, is full or takes no new jobs.
    """
    trimmed: dict[str, Coming] = {}
    _refuse_by(tx, "the store", 0, tx.topics.store_settings(), everything)
    for name, more in coming.items():
        number = tx.topics.known(name)
        settings = NO_SETTINGS if number is None else tx.topics.settings(number)
        if number is not None and settings is not NO_SETTINGS:
            what = f"topic {name!r}"
            if settings.when_full in {None, "reject"}:
                _refuse_by(tx, what, number, settings, more)
                continue
            _refuse_if_draining(what, settings, more)
            if _excess(tx, number, settings, more):
                _refuse_what_cannot_go(tx, what, number, settings, more)
                trimmed[name] = more
    return trimmed


def _refuse_by(
    tx: Transaction, what: str, number: int, settings: TopicSettings, more: Coming
) -> None:
    if settings is NO_SETTINGS:
        return
    _refuse_if_draining(what, settings, more)
    if excess := _excess(tx, number, settings, more):
        raise QueueFull(f"{what} is full: {excess}")


def _refuse_if_draining(what: str, settings: TopicSettings, more: Coming) -> None:
    if settings.draining and more.jobs:
        raise QueueFull(f"{what} is draining: it takes no new jobs")


def _excess(tx: Transaction, number: int, settings: TopicSettings, more: Coming) -> str:
    """What would be too much; empty if nothing is."""
    jobs, size = waiting(tx, number), tx.topics.size(number)
    if settings.max_jobs is not None and more.jobs and jobs + more.jobs > settings.max_jobs:
        return (
            f"{jobs} jobs wait, and {more.jobs} more would pass its max_jobs, {settings.max_jobs}"
        )
    if settings.max_bytes is not None and more.size and size + more.size > settings.max_bytes:
        return (
            f"{size} bytes wait, and {more.size} more would pass its max_bytes, "
            f"{settings.max_bytes}"
        )
    return ""


def _refuse_what_cannot_go(
    tx: Transaction, what: str, number: int, settings: TopicSettings, more: Coming
) -> None:
    """Only ready jobs go: refuse if without all of them there would be no room."""
    counts = tx.topics.counts(number)
    staying = counts[Status.DELAYED] + more.jobs - more.ready
    if settings.max_jobs is not None and staying > settings.max_jobs:
        raise QueueFull(
            f"{what} is full: {staying} delayed jobs alone would pass its max_jobs, "
            f"{settings.max_jobs}"
        )
    if settings.max_bytes is None:
        return
    excess = tx.topics.size(number) + more.size - settings.max_bytes
    if excess > more.ready_size and not _can_let_go(tx, number, excess - more.ready_size):
        raise QueueFull(
            f"{what} is full: without all of its ready jobs {more.size} more bytes would still "
            f"pass its max_bytes, {settings.max_bytes}"
        )


def _can_let_go(tx: Transaction, topic: int, size: int) -> bool:
    """Whether the topic has ready jobs of that size together; costs less than letting them go."""
    for lane in _lanes(tx, topic):
        jobs = tx.topics.last_waiting(lane)
        while size > 0 and (page := list(islice(jobs, PAGE))):
            found = tx.jobs.states([job.id for job in page])
            size -= sum(state.size for state in found if state is not None)
    return size <= 0


def trim(tx: Transaction, came: Mapping[str, Coming], retention: Retention) -> None:
    """Let ready jobs go, as canceled, until each topic has no more than it may.

    If it had more than that before these came, then at least as many go as came, see `SURPLUS`.
    """
    for name, more in came.items():
        number = tx.topics.known(name)
        assert number is not None
        settings = tx.topics.settings(number)
        jobs = size = 0
        if settings.max_jobs is not None:
            jobs = waiting(tx, number) - settings.max_jobs
        if settings.max_bytes is not None:
            size = tx.topics.size(number) - settings.max_bytes
        if settings.when_full == "drop-oldest":
            leaving = _oldest(tx, number)
        else:
            leaving = _lowest(tx, number)
        chosen = _chosen(tx, leaving, jobs, size, more)
        places.withdraw(tx, [(ending.id, ending.before) for ending in chosen])
        places.finish(tx, chosen, retention)


def _chosen(
    tx: Transaction, leaving: Iterator[bytes], jobs: int, size: int, came: Coming
) -> list[places.Ending]:
    """Which of those that are leaving go now: there are so many jobs and bytes too much."""
    before, size_before = max(0, jobs - came.jobs), max(0, size - came.size)
    chosen: list[places.Ending] = []
    while jobs > 0 or size > 0:
        if len(chosen) >= SURPLUS and jobs <= before and size <= size_before:
            break
        job_id = next(leaving, None)
        if job_id is None:
            break  # delayed jobs are as large as that
        (both,) = tx.jobs.both([job_id])
        if both is None:
            raise damaged("a queue names a job that is not there")
        body, state = both
        chosen.append(
            places.Ending(
                job_id, state, Status.CANCELED, Reason.DROPPED, None, body.options.retention_us
            )
        )
        jobs -= 1
        size -= state.size
    return chosen


def _lanes(tx: Transaction, topic: int) -> list[int]:
    """All lanes of the topic that may have jobs."""
    found = [topic]
    after: str | None = None
    if groups.has_lanes(tx, topic):
        while lanes := tx.flow.lanes(topic, after, 1000):
            after = lanes[-1][1].group
            found += [number for number, lane in lanes if lane.ready]
    return found


def _oldest(tx: Transaction, topic: int) -> Iterator[bytes]:
    """Ready jobs by place: those that were enqueued first, first. Weights make no difference."""
    places_of = [
        _by_place(tx, lane, head.weight)
        for lane in _lanes(tx, topic)
        for head in ageing.heads(tx, lane)
    ]
    return (job_id for _, job_id in merge(*places_of))


def _by_place(tx: Transaction, lane: int, weight: int) -> Iterator[tuple[int, bytes]]:
    """The jobs of one weight in a lane."""
    seq = 0
    while jobs := tx.topics.waiting(lane, weight, PAGE, seq):
        for job in jobs:
            if job.weight != weight:
                return
            yield job.seq, job.id
        seq = jobs[-1].seq + 1


def _lowest(tx: Transaction, topic: int) -> Iterator[bytes]:
    """Ready jobs in the reverse of the order of serving, groups apart."""
    tails = [tx.topics.last_waiting(lane) for lane in _lanes(tx, topic)]
    return (job.id for job in merge(*tails, reverse=True))


def by_topic(parts: Iterable[tuple[str, Coming]]) -> dict[str, Coming]:
    """What is to be added to each topic, all in all."""
    found: dict[str, Coming] = {}
    for topic, more in parts:
        before = found.get(topic)
        found[topic] = more if before is None else before.and_(more)
    return found
