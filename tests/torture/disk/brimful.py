"""Queues of random shapes that are full to the brim, with a ledger of what was acknowledged.

    full = Brimful(svc, clock, shape_by(dice), dice)
    full.fill()
    full.is_refused()
    full.drain()

Everything that a call has acknowledged is in the ledger, and nothing else may be in the queue. What
may be refused for want of room is only what brings something: no verb that works one job off.
"""

import random
from collections.abc import Callable
from typing import Any, Final, NamedTuple

import pytest

from jobq import Job, JobService, NewJob
from jobq.clock import ManualClock, to_us
from jobq.errors import StoreFull
from jobq.job import JobRecord
from jobq.repo.base import Retention
from jobq.states import FINISHED, Outcome, Status

PAGE: Final = 10_000
LEASE_S: Final = 600.0
TTL_S: Final = 3_000.0
KEPT_S: Final = 1e8
LARGE: Final = bytes(200_000)
MOST_LEAPS: Final = 4
"""A job whose lease is over more than five times is poison."""
WAITS: Final = frozenset({Status.READY, Status.DELAYED})


KEEPING: Final = Retention(to_us(KEPT_S), to_us(KEPT_S))
FORGETTING: Final = Retention(0, 0)


class Shape(NamedTuple):
    """What a queue is filled with, and how it is worked off.

    Attributes:
        topics: Their names.
        largest: Bytes of a payload at most.
        batch: So many jobs are enqueued in one call.
        delayed, terms: The parts of the jobs that wait for a time; that have a group, a unique key,
            tags or a deadline.
        churn: So many calls work jobs off while it fills up: the file has holes, some jobs a
            history, and others are reserved.
        gait: So many jobs at most are worked off in one call.
        kept: Whether finished jobs stay.
    """

    topics: tuple[str, ...]
    largest: int
    batch: int
    delayed: float
    terms: float
    churn: int
    gait: int
    kept: bool


def shape_by(dice: random.Random) -> Shape:
    """A shape by chance."""
    topics = dice.choice((1, 1, 3, 20))
    return Shape(
        tuple(dice.choice(("t", "topic" * 40)) + str(number) for number in range(topics)),
        dice.choice((300, 1500, 5000, 15_000, 60_000)),
        dice.choice((1, 5, 50)),
        dice.choice((0.0, 0.0, 0.3)),
        dice.choice((0.0, 0.0, 0.5)),
        dice.choice((0, 0, 30)),
        dice.choice((1, 7, 60)),
        dice.random() < 0.5,
    )


class Brimful:
    """One queue, and what it has to have.

    Attributes:
        svc: Its service.
        jobs: Payloads of the jobs that are not finished, by id.
        most: How many there were of them when it was full.
        calls: How many calls worked jobs off.
        split: How many of them were refused for want of room, and done in two halves.
        forgotten: How many finished jobs went before their time.
    """

    def __init__(
        self, svc: JobService, clock: ManualClock, shape: Shape, dice: random.Random
    ) -> None:
        self.jobs: dict[str, bytes] = {}
        self.most = self.calls = self.split = self.forgotten = 0
        self.svc, self._clock, self._shape, self._dice = svc, clock, shape, dice
        self._held: dict[str, Job] = {}
        self._over: dict[str, tuple[Status, Any]] = {}
        self._lapsing: dict[str, int] = {}
        self._leaps = self._enqueued = 0

    # Filling it.

    def fill(self, most: int = 100_000) -> None:
        """Enqueue until there is no room, at last not even for a job of nothing."""
        churn = self._shape.churn
        for batch, largest in ((self._shape.batch, self._shape.largest), (1, 300), (1, 1)):
            while len(self.jobs) < most and self._has_room(batch, largest):
                if churn and len(self.jobs) > 20 and self._dice.random() < 0.3:
                    churn -= 1
                    self._work(20)

    def _has_room(self, batch: int, largest: int) -> bool:
        try:
            self._enqueue(batch, largest)
        except StoreFull:
            return False
        return True

    def _enqueue(self, batch: int, largest: int) -> None:
        chance, shape = self._dice, self._shape
        payloads = [chance.randbytes(chance.randrange(largest)) for _ in range(batch)]
        lapses = chance.random() < shape.terms / 8
        with self.svc.batch() as adding:
            for payload in payloads:
                options: dict[str, Any] = {"lease": LEASE_S}
                if chance.random() < shape.terms:
                    self._enqueued += 1
                    options |= {
                        "group": f"g{chance.randrange(9)}",
                        "unique": f"u{self._enqueued}",
                        "tags": [f"tag{chance.randrange(5)}"],
                    }
                if lapses:
                    options["ttl"] = TTL_S
                delay = 300 if chance.random() < shape.delayed else None
                topic = chance.choice(shape.topics)
                weight = chance.randint(-3, 3)
                adding.enqueue(topic, payload, weight=weight, delay=delay, **options)
        self.jobs |= zip(adding.ids, payloads, strict=True)
        if lapses:
            at_us = self._clock.wall_us() + to_us(TTL_S)
            self._lapsing |= dict.fromkeys(adding.ids, at_us)

    # Looking at it.

    def is_sound(self) -> None:
        """All that was acknowledged is there, as it was, and nothing else."""
        found = self._found()
        there = {jid: job.payload for jid, job in found.items() if not job.finished}
        assert there == self.jobs
        assert self.svc.stats().totals.unfinished == len(self.jobs)
        self._finished_are_right(found)
        assert self.svc.check().problems == ()

    def _found(self) -> dict[str, JobRecord]:
        found: dict[str, JobRecord] = {}
        last = None
        while page := self.svc.find(after=last, limit=PAGE):
            found |= {job.id: job for job in page}
            last = page[-1].id
        return found

    def _finished_are_right(self, found: dict[str, JobRecord]) -> None:
        finished = {jid: job for jid, job in found.items() if job.finished}
        assert finished.keys() <= self._over.keys()
        for jid, job in finished.items():
            assert (job.status, job.result) == self._over[jid]
        self.forgotten += len(self._over) - len(finished)
        self._over = {jid: self._over[jid] for jid in finished}

    def is_refused(self) -> None:
        """Whatever brings something is refused, and has left nothing."""
        svc, waiting = self.svc, self._waiting()
        topics = svc.stats().topics
        refused: list[Callable[[], object]] = [
            lambda: svc.enqueue(self._shape.topics[0], LARGE),
            lambda: svc.enqueue_many("new", [b"x" * 10_000] * 20),
            lambda: svc.enqueue("new", LARGE, delay=60),
            lambda: svc.edit(waiting[:20], payload=LARGE),
        ]
        if self._held:
            job = self._dice.choice(list(self._held.values()))
            refused.append(lambda: job.done(b"result", then=[NewJob("new", LARGE)]))
        for call in refused:
            with pytest.raises(StoreFull):
                call()
        assert svc.stats().topics == topics

    def _waiting(self) -> list[str]:
        return [jid for jid in self.jobs if jid not in self._held]

    # Working it off.

    def use_up(self, is_left: Callable[[], bool]) -> None:
        """Finish jobs with large results, which need room that is there only once."""
        while is_left() and self.jobs:
            self._reserve(1)
            for job in self._some_held(1):
                job.done(LARGE)
                self._end(job.id, Status.DONE, LARGE)

    def forget(self) -> None:
        """Forget what is finished; nothing is left then."""
        if self._dice.random() < 0.5:
            self._clock.advance(KEPT_S)
            self.svc.prune()
        else:
            self.svc.select(status=list(FINISHED)).delete()
        self._over.clear()
        self.is_sound()

    def drain(self) -> None:
        """Work the jobs off, by all verbs there are."""
        self.most = len(self.jobs)
        while self.jobs:
            self._work(self._shape.gait)
        assert self.svc.stats().totals.unfinished == 0
        self.is_sound()

    def _work(self, gait: int) -> None:
        n = self._dice.randint(1, gait)
        way = self._dice.choices(WAYS, WEIGHTS)[0]
        self.calls += 1
        way(self, n)

    def _reserve(self, n: int) -> None:
        jobs: list[Job] = []
        self._by_halves(lambda m: jobs.extend(self.svc.reserve(self._topics(), m, timeout=0)), n)
        for job in jobs:
            assert job.payload == self.jobs[job.id]
            assert job.id not in self._held
            self._held[job.id] = job
        if not jobs and not self._held and self.jobs:
            self._leap(n)

    def _topics(self) -> list[str]:
        some = self._dice.randint(1, len(self._shape.topics))
        return self._dice.sample(self._shape.topics, some)

    def _done(self, n: int) -> None:
        result = self._dice.choice((None, b"result"))

        def call(ids: list[str]) -> None:
            jobs = [self._held[jid] for jid in ids]
            if len(jobs) == 1:
                jobs[0].log("a line")
                jobs[0].done(result)
            else:
                results = [result] * len(jobs)
                assert set(self.svc.done_many(jobs, results)) == {Outcome.OK}
            for jid in ids:
                self._end(jid, Status.DONE, result)

        self._by_halves_of(call, [job.id for job in self._some_held(n)])

    def _give_up(self, n: int) -> None:
        for job in self._some_held(min(n, 3)):
            job.cancel("rejected", error="no" * 50)
            self._end(job.id, Status.CANCELED)

    def _retry(self, n: int) -> None:
        for job in self._some_held(min(n, 3)):
            if job.retries < 5 and job.id not in self._lapsing:
                job.retry(self._dice.choice((0, 5)), error="again, and at length: " * 200)
                del self._held[job.id]

    def _release(self, n: int) -> None:
        for job in self._some_held(min(n, 3)):
            job.release()
            del self._held[job.id]

    def _extend(self, n: int) -> None:
        for job in self._some_held(min(n, 3)):
            job.extend(LEASE_S)

    def _cancel(self, n: int) -> None:
        self._bulk(lambda ids: self.svc.cancel(ids, error="nobody wants it"), self._some(n))

    def _cancel_selected(self, n: int) -> None:
        if len(self.jobs) < 3 * n:
            tag = f"tag{self._dice.randrange(5)}"
            found = {job.id for job in self.svc.find(tag=tag, limit=PAGE) if not job.finished}
            self.svc.select(tag=tag, status=list(WAITS)).cancel()
            for jid in found - self._held.keys():
                self._end(jid, Status.CANCELED)

    def _delete(self, n: int) -> None:
        ids = [jid for jid in self._some(n) if jid not in self._held]
        self._bulk(self.svc.delete, ids, gone=True)

    def _purge(self, n: int) -> None:
        if len(self.jobs) < 4 * n:
            topic = self._dice.choice(self._shape.topics)
            found = {job.id for job in self.svc.find(topic=topic, limit=PAGE)}
            self.svc.purge(topic)
            for jid in found & set(self._waiting()):
                del self.jobs[jid]
                self._lapsing.pop(jid, None)

    def _move(self, n: int) -> None:
        """An edit that brings nothing is no enqueue."""
        if ids := self._dice.sample(self._waiting(), min(n, len(self._waiting()))):
            self._by_halves_of(
                lambda some: self.svc.edit(some, topic=self._topics()[0], weight=2), ids
            )

    def _prune(self, _: int) -> None:
        self.svc.prune()

    def _leap(self, _: int) -> None:
        """So long that leases are over, what waited for its time is due, and deadlines pass."""
        if self._held and self._leaps >= MOST_LEAPS:
            return
        for jid in self._held.keys() & self._lapsing:  # a late holder's job is no lapsed one
            self._held[jid].done()
            self._end(jid, Status.DONE)
        self._leaps += bool(self._held)
        self._clock.advance(LEASE_S + 1)
        if self._leaps == MOST_LEAPS or self._dice.random() < 0.3:
            self._clock.advance(TTL_S)
        while self.svc.store.advance(100).more:
            pass
        self._held.clear()
        for jid, at_us in list(self._lapsing.items()):
            if at_us <= self._clock.wall_us():
                self._end(jid, Status.CANCELED)

    # What they share.

    def _some(self, n: int) -> list[str]:
        return self._dice.sample(list(self.jobs), min(n, len(self.jobs)))

    def _some_held(self, n: int) -> list[Job]:
        return self._dice.sample(list(self._held.values()), min(n, len(self._held)))

    def _bulk(
        self, verb: Callable[[list[str]], list[Outcome]], ids: list[str], *, gone: bool = False
    ) -> None:
        def call(some: list[str]) -> None:
            assert set(verb(some)) <= {Outcome.OK}
            for jid in some:
                self._end(jid, Status.CANCELED)
                if gone:
                    self._over.pop(jid, None)

        self._by_halves_of(call, ids)

    def _by_halves(self, call: Callable[[int], object], n: int) -> None:
        self._by_halves_of(lambda some: call(len(some)), ["?"] * n)

    def _by_halves_of(self, call: Callable[[list[str]], object], ids: list[str]) -> None:
        """On a full disk a call for many may be refused; one for a single job may not."""
        if not ids:
            return
        try:
            call(ids)
        except StoreFull:
            if len(ids) == 1:
                raise
            self.split += 1
            self._by_halves_of(call, ids[: len(ids) // 2])
            self._by_halves_of(call, ids[len(ids) // 2 :])

    def _end(self, jid: str, status: Status, result: Any = None) -> None:
        del self.jobs[jid]
        self._held.pop(jid, None)
        self._lapsing.pop(jid, None)
        if self._shape.kept:
            self._over[jid] = status, result


WAYS: Final[tuple[Callable[[Brimful, int], None], ...]] = (
    Brimful._reserve,
    Brimful._done,
    Brimful._give_up,
    Brimful._retry,
    Brimful._release,
    Brimful._extend,
    Brimful._cancel,
    Brimful._cancel_selected,
    Brimful._delete,
    Brimful._purge,
    Brimful._move,
    Brimful._prune,
    Brimful._leap,
)
WEIGHTS: Final = (12, 24, 3, 2, 1, 1, 3, 1, 2, 1, 1, 1, 1)
