"""Telling those who wait for room in a topic, or until one is empty, that it may be so.

What they wait for stands in `Transaction.ended` as the ids of jobs do whose ends are waited for: it
has 16 bytes, and no job has such an id. Topic 0 stands for the store as a whole.
"""

from collections.abc import Collection, Iterable
from typing import Final

from jobq.repo.repositories import Transaction
from jobq.states import UNFINISHED
from jobq.topic import TopicSettings

_CAPS: Final = ("draining", "max_jobs", "max_bytes", "when_full")
"""The settings by which new jobs are refused."""


def room_id(topic: int) -> bytes:
    """Stands for: there is room in the topic."""
    return b"room" + bytes(8) + topic.to_bytes(4)


def empty_id(topic: int) -> bytes:
    """Stands for: the topic, which is draining, has no unfinished job left."""
    return b"none" + bytes(8) + topic.to_bytes(4)


def rooms(tx: Transaction, names: Collection[str]) -> list[bytes]:
    """What stands for room in these topics, as far as they exist, and in the store."""
    numbers = {tx.topics.known(name) for name in names} - {None}
    return [room_id(0), *(room_id(number) for number in sorted(filter(None, numbers)))]


def emptied(tx: Transaction, name: str | None) -> list[bytes]:
    """What stands for an empty topic, or store; nothing for a topic that does not exist."""
    number = 0 if name is None else tx.topics.known(name)
    return [] if number is None else [empty_id(number)]


def roomier(tx: Transaction, topics: Iterable[int]) -> None:
    """Fewer jobs wait in these topics: tell those who wait for room."""
    for number in topics:
        settings = tx.topics.settings(number)
        if settings.max_jobs is not None or settings.max_bytes is not None:
            tx.ended.append(room_id(number))
    store = tx.topics.store_settings()
    if store.max_jobs is not None or store.max_bytes is not None:
        tx.ended.append(room_id(0))


def emptier(tx: Transaction, topics: Iterable[int]) -> None:
    """Jobs of these topics have ended: tell those who wait for the last one."""
    for number in topics:
        if tx.topics.settings(number).draining:
            counts = tx.topics.counts(number)
            if not any(counts[status] for status in UNFINISHED):
                tx.ended.append(empty_id(number))
    if tx.topics.store_settings().draining and not any(map(tx.topics.total, UNFINISHED)):
        tx.ended.append(empty_id(0))


def reconfigured(tx: Transaction, topic: int, old: TopicSettings, new: TopicSettings) -> None:
    """Settings have changed: there may be room for what was refused before."""
    if any(getattr(old, name) != getattr(new, name) for name in _CAPS):
        tx.ended.append(room_id(topic))
