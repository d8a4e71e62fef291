"""Who waits for jobs in this process: each is called by itself, first come first served."""

import threading
import time
from collections.abc import Collection
from itertools import chain, count
from operator import attrgetter
from typing import Final

from jobq.repo.repositories import Transaction
from jobq.repo.watch import SLACK_NS, STORE

UNKNOWN: Final = 0
"""Stands for the topics that do not exist yet."""


class Waiter:
    """One who waits for jobs of some topics.

    Attributes:
        number: The how-manieth it is.
        topics: Their numbers.
        called: For which of them it was called; `STORE` to look when something falls due.
    """

    __slots__ = ("called", "changed", "number", "topics")

    def __init__(self, number: int, topics: Collection[int], lock: threading.Lock) -> None:
        self.number = number
        self.topics = topics
        self.called: list[int] = []
        self.changed = threading.Condition(lock)


class Waiters:
    """All of them, and who of them has the watch; everything under the store's lock.

    Who waits for one topic stands in the line of that; the others, who may wait for thousands,
    stand in a line of their own.
    """

    def __init__(self, lock: threading.Lock) -> None:
        self._lock = lock
        self._numbers = count()
        self._lines: dict[int, dict[Waiter, None]] = {}
        self._for_several: dict[Waiter, None] = {}
        self._watches: dict[int, int] = {}
        self._stamp: int | None = None

    def waiter(self, topics: Collection[int]) -> Waiter:
        """Somebody who will wait for these."""
        return Waiter(next(self._numbers), topics, self._lock)

    def enter(self, waiter: Waiter) -> None:
        """It waits, from now on until it is called, or leaves."""
        self._line_of(waiter)[waiter] = None

    def sleep(self, waiter: Waiter, seconds: float) -> None:
        """Sleep until called; the lock is free meanwhile."""
        end = time.monotonic() + seconds
        while not waiter.called and (left := end - time.monotonic()) > 0:
            waiter.changed.wait(left)

    def leave(self, waiter: Waiter) -> None:
        """It waits no longer; harmless to repeat."""
        line = self._line_of(waiter)
        line.pop(waiter, None)
        if not line and len(waiter.topics) == 1:
            for topic in waiter.topics:
                self._lines.pop(topic, None)

    def call(self, tx: Transaction) -> None:
        """Call who waits for what was committed."""
        stamp = tx.topics.stamp()
        if stamp != self._stamp:  # there are new topics
            self._stamp = stamp
            self.wake(UNKNOWN)
        if tx.soon:
            by_ns = time.monotonic_ns() + 1000 * min(tx.soon.values()) + SLACK_NS
            if not self.is_watched(STORE, by_ns):
                self.relieve(STORE)
        for topic in tx.gone:
            self.wake(topic)
        for topic, jobs in tx.woken.items():
            self.wake(topic, jobs)

    def wake(self, topic: int, waiters: int | None = None) -> None:
        """Wake up to so many who wait for the topic, or all."""
        woken = 0
        while (waiters is None or woken < waiters) and (waiter := self._first(topic)):
            self._call(waiter, topic)
            woken += 1

    def wake_all(self) -> None:
        """Wake everybody; nobody has the watch then."""
        self._watches.clear()
        for waiter in self._everybody():
            self._call(waiter, STORE)

    # Watches; see `jobq.repo.watch`.

    def is_watched(self, desk: int, by_ns: int) -> bool:
        """Whether somebody at the desk will look between now and then."""
        return time.monotonic_ns() < self._watches.get(desk, 0) <= by_ns

    def watch(self, desk: int, until_ns: int) -> None:
        """Say that the caller will look at that time."""
        self._watches[desk] = until_ns

    def leave_watch(self, desk: int, until_ns: int) -> None:
        """Take that back, if nobody has said something else since."""
        if self._watches.get(desk) == until_ns:
            del self._watches[desk]

    def relieve(self, desk: int) -> None:
        """Call one of those who wait, to look when something falls due; or one of the topic."""
        if desk != STORE:
            self.wake(desk, 1)
        elif everybody := self._everybody():
            self._call(min(everybody, key=attrgetter("number")), STORE)

    def _everybody(self) -> list[Waiter]:
        return [*self._for_several, *chain.from_iterable(self._lines.values())]

    def _call(self, waiter: Waiter, desk: int) -> None:
        waiter.called.append(desk)
        self.leave(waiter)
        waiter.changed.notify()

    def _line_of(self, waiter: Waiter) -> dict[Waiter, None]:
        if len(waiter.topics) != 1:
            return self._for_several
        (topic,) = waiter.topics
        return self._lines.setdefault(topic, {})

    def _first(self, topic: int) -> Waiter | None:
        """Who has waited longest for the topic."""
        line = self._lines.get(topic)
        alone = next(iter(line)) if line else None
        for waiter in self._for_several:
            if alone is not None and alone.number < waiter.number:
                break
            if topic in waiter.topics:
                return waiter
        return alone
