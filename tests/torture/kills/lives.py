"""What processes do until they are killed: produce, consume and wait, in threads and coroutines.

Each of them keeps the ledger. A job's payload is who made it and its number there, so that it can
be told which of those that somebody was about to add it is.
"""

import asyncio
import logging
import os
import random
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Final, NamedTuple, NoReturn

import jobq
from jobq import Job, JobService, NewJob, ReservationLost, StoreUnavailable, ids
from jobq.options import OptionArgs
from jobq.states import Event
from tests.torture.kills.ledger import NOBODY, Kind, Ledger
from tests.torture.kills.reckoning import forgotten
from tests.torture.kills.zygote import Life

TOPICS: Final = ("mail", "mail-slow", "mail\0x")
EMPTY: Final = "nobody enqueues here"
GROUPS: Final = (None, None, "a", "b", "c")
COROUTINES: Final = 6
NAP_S: Final = 0.02


class Scene(NamedTuple):
    """Where and how processes live.

    Attributes:
        path: Of the queue.
        notes: Of the ledger.
        enough: As long as this file is there, nobody produces.
        lease_s: Of all jobs.
        keep_s: How long done jobs are kept; None if it is until the end.
    """

    path: str
    notes: Path
    enough: Path
    lease_s: float
    keep_s: float | None = None

    @property
    def options(self) -> OptionArgs:
        """What lets jobs outlive their holders, however many."""
        return {
            "lease": self.lease_s, "max_crashes": 0, "max_retries": 10**9,
            "min_backoff": 0.01, "max_backoff": 0.05,
        }  # fmt: skip

    def open(self) -> JobService:
        """The queue."""
        if self.keep_s is None:
            return jobq.open(self.path, **self.options)
        return jobq.open(
            self.path, keep_done=self.keep_s, keep_canceled=self.keep_s, **self.options
        )


class Hand:
    """One thread, or coroutine, of a process: it works in the queue, and keeps the ledger."""

    def __init__(self, scene: Scene, svc: JobService, process: int, thread: int, seed: int) -> None:
        self.chance = random.Random(seed)
        self._scene = scene
        self._svc = svc
        self._who = (process, thread)
        self._ledger = Ledger(scene.notes, process, thread)
        self._added = 0
        self._refused: set[tuple[bytes, int]] = set()

    def produce(self) -> str | None:
        """Add some jobs, in one of the ways in which that is done; gives one that is kept."""
        if self._scene.enough.exists():
            return None
        match self.chance.randrange(4):
            case 0:
                [new] = self._specs(1)
                new.delay = self.chance.choice((None, self.chance.uniform(0.001, 0.1)))
                return self._add([new], lambda svc: [_enqueue(svc, new)])
            case 1:
                specs = self._specs(self.chance.randint(1, 9), alike=True)
                return self._add(specs, lambda svc: _enqueue_many(svc, specs))
            case _:
                specs = self._specs(self.chance.randint(1, 5))
                return self._add(specs, lambda svc: _enqueue_in_a_batch(svc, specs))

    def consume(self) -> None:
        """Reserve some jobs, and settle them in one of the ways in which that is done."""
        began_ns = self._ledger.will(Kind.WILL_RESERVE)
        topics = self.chance.choice((*TOPICS, TOPICS))
        jobs = self._svc.reserve(topics, self.chance.randint(1, 4), timeout=NAP_S)
        if jobs:
            self._ledger.note(Kind.RESERVED, *_names(jobs), began_ns=began_ns)
            self._settle(jobs)

    def loop(self) -> None:
        """Consume in a loop, whose blocks' outcomes are committed later, or at once."""
        pipeline = self.chance.random() < 0.5
        before: Job | None = None
        began_ns = self._ledger.will(Kind.WILL_RESERVE)
        for job in self._svc.consume(
            self.chance.choice(TOPICS), 3, timeout=NAP_S, pipeline=pipeline, on_lost=self._lost
        ):
            self._note_ended(before)
            self._ledger.note(Kind.RESERVED, *_names([job]), began_ns=began_ns)
            with job:
                if self.chance.random() < 0.1:
                    self._ledger.note(Kind.WILL_RETRY, *_names([job]))
                    raise LookupError
                self._ledger.note(Kind.WILL_DONE, *_names([job]))
            before = job
        self._note_ended(before)

    def wait(self, jid: str | None) -> None:
        """Wait for the end of a job, or for one that does not come."""
        if jid is None or self.chance.random() < 0.5:
            self._svc.reserve(EMPTY, timeout=NAP_S)
        else:
            gone = (jobq.JobNotFound,) if self._scene.keep_s is not None else ()
            try:
                with suppress(TimeoutError, *gone):
                    self._svc.wait(jid, timeout=NAP_S)
            except StoreUnavailable:
                if not self._svc.stopped:  # then it is the end of who waits, as it was asked for
                    raise

    async def turn(self) -> None:
        """Produce and consume as a coroutine does."""
        if not self._scene.enough.exists():
            [new] = self._specs(1)
            self._will_add([new])
            jid = await self._svc.aenqueue(new.topic, new.payload, weight=new.weight, **new.options)
            self._note_added([new], [jid])
        began_ns = self._ledger.will(Kind.WILL_RESERVE)
        jobs = await self._svc.areserve(self.chance.choice(TOPICS), 2, timeout=NAP_S)
        if jobs:
            self._ledger.note(Kind.RESERVED, *_names(jobs), began_ns=began_ns)
        for job in jobs:
            self._ledger.note(Kind.WILL_DONE, *_names([job]))
            try:
                await job.adone("in a coroutine")
            except ReservationLost:
                self._lost(job)
            else:
                self._ledger.note(Kind.DONE, *_names([job]))

    # Adding.

    def _specs(self, count: int, *, alike: bool = False) -> list[NewJob]:
        """New jobs; *alike* gives them all but the payload in common."""
        specs: list[NewJob] = []
        topic, group = self.chance.choice(TOPICS), self.chance.choice(GROUPS)
        weight = self.chance.randint(-2, 2)
        for _ in range(count):
            self._added += 1
            if alike and forgotten(self._added):
                self._added += 1
            options: OptionArgs = {"group": group}
            if forgotten(self._added):
                options["retention"] = 0
            payload = [*self._who, self._added]
            specs.append(NewJob(topic, payload, weight=weight, **options))
            if not alike:
                topic, group = self.chance.choice(TOPICS), self.chance.choice(GROUPS)
        return specs

    def _add(self, specs: list[NewJob], how: Callable[[JobService], list[str]]) -> str | None:
        self._will_add(specs)
        jids = how(self._svc)
        self._note_added(specs, jids)
        pairs = zip(specs, jids, strict=True)
        return next((jid for new, jid in pairs if not forgotten(new.payload[2])), None)

    def _will_add(self, specs: Sequence[NewJob]) -> None:
        self._ledger.note(Kind.WILL_ADD, *((new.payload[2], NOBODY) for new in specs))

    def _note_added(self, specs: Sequence[NewJob], jids: Sequence[str]) -> None:
        raws = map(ids.to_raw, jids)
        pairs = zip([new.payload[2] for new in specs], raws, strict=True)
        self._ledger.note(Kind.ADDED, *pairs)

    # Settling.

    def _settle(self, jobs: list[Job]) -> None:
        match self.chance.randrange(8):
            case 0:
                self._many(Kind.WILL_RELEASE, jobs, self._svc.release_many)
            case 1:
                self._many(
                    Kind.WILL_RETRY, jobs, lambda jobs: self._svc.retry_many(jobs, delay=0.005)
                )
            case 2 | 3:
                self._many(Kind.WILL_DONE, jobs, self._svc.done_many)
            case 4:
                for job in jobs:
                    self._one(Kind.WILL_RETRY, job, lambda job: job.retry(error="again"))
            case _:
                for job in jobs:
                    self._finish(job)

    def _finish(self, job: Job) -> None:
        job.log("at work")
        if self.chance.random() < 0.2:
            self._extend(job)
        if self.chance.random() < 0.1 and not self._scene.enough.exists():
            follow = self._specs(1)
            jids: list[str] = []
            self._will_add(follow)
            self._one(Kind.WILL_DONE, job, lambda job: jids.extend(job.done("followed", follow)))
            if jids:
                self._note_added(follow, jids)
        else:
            self._one(Kind.WILL_DONE, job, lambda job: job.done("done"))

    def _extend(self, job: Job) -> None:
        began_ns = time.monotonic_ns()
        try:
            job.extend(self._scene.lease_s)
        except ReservationLost:
            self._lost(job)
        else:
            self._ledger.note(Kind.EXTENDED, *_names([job]), began_ns=began_ns)

    def _one(self, kind: Kind, job: Job, how: Callable[[Job], object]) -> None:
        self._ledger.note(kind, *_names([job]))
        try:
            how(job)
        except ReservationLost:
            self._lost(job)
        else:
            self._ledger.note(Kind(kind + 1), *_names([job]))

    def _many(
        self, kind: Kind, jobs: list[Job], how: Callable[[list[Job]], list[jobq.Outcome]]
    ) -> None:
        self._ledger.note(kind, *_names(jobs))
        for job, outcome in zip(jobs, how(jobs), strict=True):
            # One whom it is taken from may be done by another, and not be kept.
            assert outcome in {"ok", "stale", "missing"}, outcome
            self._ledger.note(Kind(kind + 1) if outcome == "ok" else Kind.LOST, *_names([job]))

    def _lost(self, job: Job) -> None:
        self._refused.add(job._reservation[:2])
        self._ledger.note(Kind.LOST, *_names([job]))

    def _note_ended(self, job: Job | None) -> None:
        """The outcome of a loop's last block is committed."""
        if job is not None and job._reservation[:2] not in self._refused:
            done = job.settled and job._settled is Event.DONE
            self._ledger.note(Kind.DONE if done else Kind.RETRIED, *_names([job]))


def crew(scene: Scene) -> list[Life]:
    """What processes may do in a scene."""
    return [partial(life, scene) for life in (_in_threads, _in_threads, _in_coroutines)]


def consumers(scene: Scene) -> list[Life]:
    """Processes that only finish what is there."""
    return [partial(_finish_all, scene)]


def _in_threads(scene: Scene, process: int, chance: random.Random) -> NoReturn:
    """One to three threads, each of which does mostly one thing."""
    be_quiet()
    svc = scene.open()
    hands = [
        Hand(scene, svc, process, thread, chance.randrange(2**32))
        for thread in range(chance.randint(1, 3))
    ]
    for hand in hands[1:]:
        threading.Thread(target=_work, args=(hand,), daemon=True).start()
    _work(hands[0])


def _work(hand: Hand) -> NoReturn:
    try:
        produces, waits, loops = hand.chance.choice(
            ((0.5, 0.05, 0.1), (1.0, 0.5, 0.0), (0.0, 0.0, 0.0), (0.0, 0.0, 1.0), (0.0, 0.8, 0.0))
        )
        jid = None
        while True:
            if hand.chance.random() < produces:
                jid = hand.produce() or jid
            if hand.chance.random() < waits:
                hand.wait(jid)
            if hand.chance.random() < loops:
                hand.loop()
            elif produces < 1.0:
                hand.consume()
    except BaseException:  # noqa: BLE001 - a thread must not die alone: the process ends by it
        traceback.print_exc()
        os._exit(2)


def _finish_all(scene: Scene, process: int, chance: random.Random) -> NoReturn:
    be_quiet()
    hand = Hand(scene, scene.open(), process, 0, chance.randrange(2**32))
    while True:
        hand.consume()


def _in_coroutines(scene: Scene, process: int, chance: random.Random) -> None:
    """Many coroutines of one loop."""
    be_quiet()

    async def live(hand: Hand) -> None:
        while True:
            await hand.turn()

    async def main() -> None:
        svc = scene.open()
        hands = (
            Hand(scene, svc, process, thread, chance.randrange(2**32))
            for thread in range(COROUTINES)
        )
        await asyncio.gather(*map(live, hands))

    asyncio.run(main())


def be_quiet() -> None:
    """Log nothing of jobq's in this process."""
    logging.disable(logging.WARNING)  # of blocks that raise, and of reservations that are lost


def _names(jobs: Sequence[Job]) -> Iterator[tuple[int, bytes]]:
    """The tokens and ids of reservations."""
    return ((job._reservation.token, job._reservation.id) for job in jobs)


def _enqueue(svc: JobService, new: NewJob) -> str:
    return svc.enqueue(new.topic, new.payload, weight=new.weight, delay=new.delay, **new.options)


def _enqueue_many(svc: JobService, specs: Sequence[NewJob]) -> list[str]:
    """Jobs that differ in nothing but their payloads."""
    one, payloads = specs[0], [new.payload for new in specs]
    return svc.enqueue_many(one.topic, payloads, weight=one.weight, **one.options)


def _enqueue_in_a_batch(svc: JobService, specs: Sequence[NewJob]) -> list[str]:
    with svc.batch() as batch:
        for new in specs:
            batch.enqueue(new.topic, new.payload, weight=new.weight, **new.options)
    return batch.ids
