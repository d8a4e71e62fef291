"""Processes that work for as long as a soak lasts, by all verbs, and what is measured of them."""

import asyncio
import os
import random
import statistics
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final, NamedTuple

from jobq import JobqError, JobService
from jobq.repo.lmdb.filelock import FileLock
from tests.crash.processes import Pipe
from tests.torture.kills.lives import GROUPS, Hand, Scene, be_quiet

THREADS: Final = 4
COROUTINES: Final = 16
REST_S: Final = 0.04
"""A thread rests for so long between two verbs, on average."""
TELL_S: Final = 0.5
SCRATCH: Final = "scratch"
"""A topic outside of the ledger: what may be canceled, dropped or deleted at any time."""
SCRATCH_JOBS: Final = 300
FIRST_NUMBER: Final = 1_000_000
"""The numbers of these processes in the ledger begin here."""


def work_in_threads(pipe: Pipe, scene: Scene, number: int, seed: int) -> None:
    """In a child: work in threads until told to end; tell how long each wait for the lock was."""
    be_quiet()
    waits = _note_waits()
    chance = random.Random(seed)
    with scene.open() as svc:
        threads = [
            threading.Thread(target=_work, args=(scene, svc, number, thread, chance.random()))
            for thread in range(THREADS)
        ]
        for thread in threads:
            thread.start()
        pipe.send(_taken(waits))
        while not pipe.poll(TELL_S):
            pipe.send(_taken(waits))
        svc.stop()
        for thread in threads:
            thread.join()
    pipe.send("ended")


def work_in_coroutines(pipe: Pipe, scene: Scene, number: int, seed: int) -> None:
    """In a child: the same, with coroutines."""
    be_quiet()
    waits = _note_waits()
    chance = random.Random(seed)

    async def live(svc: JobService, hand: Hand) -> None:
        while not svc.stopped:
            await hand.turn()
            await asyncio.sleep(hand.chance.expovariate(1 / REST_S))

    async def main() -> None:
        async with scene.open() as svc:
            hands = [
                Hand(scene, svc, number, thread, chance.randrange(2**32))
                for thread in range(COROUTINES)
            ]
            lives = [asyncio.create_task(live(svc, hand)) for hand in hands]
            while not pipe.poll(0):
                pipe.send(_taken(waits))
                await asyncio.wait(lives, timeout=TELL_S, return_when=asyncio.FIRST_EXCEPTION)
            svc.stop()
            await asyncio.gather(*lives)

    asyncio.run(main())
    pipe.send("ended")


def _work(scene: Scene, svc: JobService, number: int, thread: int, seed: float) -> None:
    try:
        hand = Hand(scene, svc, number, thread, hash(seed))
        jid = None
        while not svc.stopped:
            match hand.chance.randrange(6):
                case 0 | 1:
                    jid = hand.produce() or jid
                case 2:
                    hand.wait(jid)
                case 3:
                    hand.loop()
                case 4:
                    hand.consume()
                case _:
                    _scribble(svc, hand.chance)
            time.sleep(hand.chance.expovariate(1 / REST_S))
    except BaseException:  # noqa: BLE001 - a thread must not die alone: the process ends by it
        traceback.print_exc()
        os._exit(2)


def _scribble(svc: JobService, chance: random.Random) -> None:
    """Something of all the rest, in a topic where nothing is promised to anybody."""
    jids = [job.id for job in svc.find(topic=SCRATCH, limit=20)]
    some = chance.sample(jids, min(3, len(jids)))
    verbs: Sequence[Callable[[], object]] = (
        lambda: svc.enqueue_many(SCRATCH, range(5), group=chance.choice(GROUPS), ttl=600),
        lambda: svc.enqueue(SCRATCH, bytes(chance.randrange(20_000)), delay=chance.random()),
        lambda: svc.enqueue(SCRATCH, unique=chance.choice("abc"), unique_for=0.5),
        lambda: svc.cancel(some, error="why not"),
        lambda: svc.reset(some),
        lambda: svc.delete(some),
        lambda: svc.edit(some, weight=chance.randint(-3, 3), payload="edited"),
        lambda: svc.edit(some, delay=0.05),
        lambda: svc.configure(SCRATCH, concurrency=chance.choice((None, 3, 30))),
        lambda: svc.configure(SCRATCH, group_concurrency=chance.choice((None, 1))),
        lambda: svc.configure(SCRATCH, rate=chance.choice((None, (1_000, 1.0)))),
        lambda: svc.pause(SCRATCH),
        lambda: svc.resume(SCRATCH),
        lambda: svc.resume(SCRATCH),
        lambda: [svc.get(jid) for jid in some],
        lambda: (svc.stats(), svc.topics(), svc.limits(SCRATCH), svc.groups(SCRATCH)),
        svc.prune,
        lambda: _use_and_fail(svc, chance),
        lambda: _leave_a_topic(svc, chance),
    )
    with suppress(JobqError):  # a job that somebody else was quicker with
        chance.choice(verbs)()
    if svc.stats(SCRATCH).totals.unfinished + len(jids) > SCRATCH_JOBS:
        svc.purge(SCRATCH)


def _use_and_fail(svc: JobService, chance: random.Random) -> None:
    """Jobs that are told of, and fail, are rejected, or given back."""
    for job in svc.reserve(SCRATCH, 4, timeout=0):
        job.log("a line of text")
        job.progress(1, 2, "half")
        match chance.randrange(4):
            case 0:
                job.retry(error=ValueError("no"))
            case 1:
                job.cancel("rejected", error="never")
            case 2:
                job.release(0.01)
            case _:
                job.done({"result": [1, 2, 3]})


def _leave_a_topic(svc: JobService, chance: random.Random) -> None:
    """A topic that is used and left again; jobq remembers their names for a while."""
    svc.delete([svc.enqueue(f"idle {chance.randrange(50)}")])


def _note_waits() -> list[float]:
    """From now on, the seconds that each wait for the lock between processes takes."""
    waits: list[float] = []
    acquire = FileLock.acquire

    def timed(self: FileLock, timeout: float) -> None:
        began = time.monotonic()
        acquire(self, timeout)
        waits.append(time.monotonic() - began)

    FileLock.acquire = timed  # type: ignore[method-assign] # in a process that ends by it
    return waits


def _taken(waits: list[float]) -> list[float]:
    count = len(waits)
    taken, waits[:count] = waits[:count], []
    return taken


class Sample(NamedTuple):
    """What there was at one moment; of processes the most that one of them had.

    Attributes:
        rss_mb: Anonymous memory, in MB.
        slots: Of LMDB's table of readers: as many as were ever used at a time.
        holders: Files of processes that hold jobs, or did.
        leftovers: Files in the queue's directory that have no business there.
        wait_p99_ms, wait_worst_ms: Waits for the lock since the sample before.
    """

    rss_mb: float
    fds: int
    threads: int
    slots: int
    holders: int
    leftovers: int
    file_mb: float
    wait_p99_ms: float
    wait_worst_ms: float


MOST: Final = Sample(
    rss_mb=150, fds=64, threads=40, slots=64, holders=40, leftovers=4, file_mb=100,
    wait_p99_ms=5_000, wait_worst_ms=29_000,
)  # fmt: skip
"""More than this there never is, however long it takes."""

SLACK: Final = Sample(
    rss_mb=6, fds=4, threads=3, slots=4, holders=4, leftovers=1, file_mb=8,
    wait_p99_ms=250, wait_worst_ms=5_000,
)  # fmt: skip
"""By so much the last third may be above the one before it, and by a tenth."""

KNOWN: Final = frozenset(
    {"data.mdb", "lock.mdb", "write.lock", "turn.lock", "bell", "ballast", "holders"}
)


def sample(queue: Path, svc: JobService, pids: Sequence[int], waits: list[float]) -> Sample:
    """Look at the queue's directory and at processes; *waits* in seconds, those since then."""
    names = {entry.name for entry in queue.iterdir()}
    holders: list[str] = []
    with suppress(FileNotFoundError):
        holders = [entry.name for entry in (queue / "holders").iterdir()]
    ordered = sorted(waits) or [0.0]
    return Sample(
        max(_status(pid, "RssAnon") / 1024 for pid in pids),
        max(len(list(Path(f"/proc/{pid}/fd").iterdir())) for pid in pids),
        max(_status(pid, "Threads") for pid in pids),
        int(svc.stats().store["readers"]),
        len(holders),
        len(names - KNOWN) + sum(name.endswith(".new") for name in holders),
        (queue / "data.mdb").stat().st_size / 2**20,
        1000 * ordered[int(0.99 * (len(ordered) - 1))],
        1000 * ordered[-1],
    )


def _status(pid: int, name: str) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1])
    raise AssertionError(f"no {name} of process {pid}")


def growing(samples: Sequence[Sample]) -> list[str]:
    """What is more than it may ever be, or more in the last third than in the one before it."""
    found = []
    third = len(samples) // 3
    for name, most, slack in zip(Sample._fields, MOST, SLACK, strict=True):
        values = [getattr(one, name) for one in samples]
        if max(values) > most:
            found.append(f"{name} came to {max(values):g}, more than {most:g}")
        if third >= FEWEST:
            before = statistics.median(values[third : 2 * third])
            after = statistics.median(values[-third:])
            if after > before * 1.1 + slack:
                found.append(f"{name} grows: {before:g} in the middle third, {after:g} in the last")
    return found


FEWEST: Final = 10
"""Samples in a third, below which it says nothing about growth."""
