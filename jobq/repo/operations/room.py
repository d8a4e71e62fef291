"""Telling those who wait for room in a topic, or in the store, that there is some."""

from collections.abc import Iterable

from jobq.repo.repositories import Transaction


def room_id(topic: int) -> bytes:
    """What stands in `Transaction.ended` for "there is room in the topic": no job has such an id.

    Topic 0 stands for the store.
    """
    return b"room" + bytes(8) + topic.to_bytes(4)


def roomier(tx: Transaction, topics: Iterable[int]) -> None:
    """Fewer jobs wait in these topics: tell those who wait for room."""
    for number in topics:
        settings = tx.topics.settings(number)
        if settings.max_jobs is not None or settings.max_bytes is not None:
            tx.ended.append(room_id(number))
    store = tx.topics.store_settings()
    if store.max_jobs is not None or store.max_bytes is not None:
        tx.ended.append(room_id(0))
