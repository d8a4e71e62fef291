"""Eight processes produce and consume, and every moment one of them is killed: nothing is lost.

The oracle is independent of the queue: producers note the ids that `enqueue` gave them, consumers
those for which `done` returned, in files that outlive them.
"""

import asyncio
import logging
import random
import signal
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Final, NamedTuple

import pytest

import jobq
from jobq import JobService, NewJob, Status, StoreUnavailable
from jobq.options import OptionArgs
from tests.crash.conftest import Say
from tests.crash.processes import Child, Notebook, Pipe, Start
from tests.crash.verbs import whole

PROCESSES: Final = 8
TOPICS: Final = ("mail", "mail-slow", "mail\0x")
GROUPS: Final = (None, "a", "b", "c")
KEYS: Final = tuple(f"key {number}" for number in range(8))
LASTING: Final[OptionArgs] = {
    "lease": 600.0, "max_crashes": 0, "max_retries": 1_000_000, "max_backoff": 0.01,
    "min_backoff": 0.01,
}  # fmt: skip
"""What jobs need to outlive a storm."""
COROUTINES: Final = 20


class Storm(NamedTuple):
    """How hard it blows.

    Attributes:
        jobs: Produced until so many are acknowledged.
        every_s: Seconds between two kills.
        patience_s: It has to be over by then.
    """

    jobs: int
    every_s: float
    patience_s: float


@pytest.mark.parametrize(
    "storm",
    [
        pytest.param(Storm(2_000, 0.1, 240.0), id="short"),
        pytest.param(Storm(50_000, 0.5, 280.0), id="long", marks=pytest.mark.storm),
        pytest.param(Storm(50_000, 0.05, 280.0), id="wild", marks=pytest.mark.storm),
    ],
)
def test_every_acknowledged_job_is_done_and_none_twice_though_processes_are_killed(
    storm: Storm, start: Start, path: str, tmp_path: Path, seed: int, say: Say
) -> None:
    chance = random.Random(seed)
    added, finished = Notebook(tmp_path / "added"), Notebook(tmp_path / "finished")
    enough = tmp_path / "enough"

    def another() -> Child:
        live = chance.choice((_live, _live, _live, _live_in_coroutines))
        return start(live, path, str(tmp_path), chance.randrange(2**32))

    began = time.monotonic()
    crew = [another() for _ in range(PROCESSES)]
    kills = 0
    with jobq.open(path) as svc:
        noted = -1
        while not (enough.exists() and svc.stats().totals.unfinished == 0):
            assert time.monotonic() - began < storm.patience_s, svc.stats()
            time.sleep(storm.every_s)
            if len(added) >= storm.jobs:
                enough.touch()
            # Where processes come up slower than they are killed, nothing would ever be done.
            before, noted = noted, len(added) + len(finished)
            if noted == before:
                continue
            victim = chance.choice(crew)
            assert victim.alive, f"a process ended by itself: {victim.hear()}"
            victim.kill()
            kills += 1
            crew[crew.index(victim)] = another()
        took = time.monotonic() - began
        for child in crew:
            child.signal(signal.SIGTERM)
        for child in crew:
            child.ended()
        status_of, crashes = _every(svc)
        problems = whole(svc)
    acknowledged, done = added.read(), Counter(finished.read())
    say(
        f"{len(status_of)} jobs ({len(acknowledged)} acknowledged), {kills} kills, "
        f"{crashes} redelivered, {took:.1f} s, {len(status_of) / took:.0f} jobs/s"
    )

    assert [jid for jid in acknowledged if status_of.get(jid) is not Status.DONE] == []
    assert [jid for jid, times in done.items() if times > 1] == []
    assert [jid for jid in done if status_of.get(jid) is not Status.DONE] == []
    assert set(status_of.values()) == {Status.DONE}
    assert len(acknowledged) >= storm.jobs
    assert kills > 0
    assert crashes > 0, "no job was held by a victim: the storm shows nothing"
    assert problems == []


# What the processes do.


def _live(pipe: Pipe, path: str, directory: str, seed: int) -> None:
    """Produce and consume in many ways, until told to stop."""
    chance = random.Random(seed)
    added, finished = Notebook(f"{directory}/added"), Notebook(f"{directory}/finished")
    enough = Path(directory) / "enough"
    with jobq.open(path, **LASTING) as svc:
        signal.signal(signal.SIGTERM, lambda *_: svc.stop())
        while not svc.stopped:
            if not enough.exists():
                ids = _produce(svc, chance)
                added.note(*ids)
                if chance.random() < 0.1:
                    with suppress(TimeoutError, StoreUnavailable):
                        svc.wait(ids[-1], timeout=0.02)
            if chance.random() < 0.1:
                _edit(svc, chance)
            if chance.random() < 0.02:
                _configure(svc, chance)
            _consume(svc, chance, added, finished)
    pipe.send("stopped")


def _edit(svc: JobService, chance: random.Random) -> None:
    """Jobs that wait go to another topic, weight or time; those that are taken meanwhile do not."""
    waiting = [job.id for job in svc.find(status="ready", limit=3)]
    match chance.randrange(5):
        case 0:
            outcomes = svc.edit(waiting, topic=chance.choice(TOPICS), payload="moved")
        case 1:
            outcomes = svc.edit(waiting, group=chance.choice(GROUPS), ttl=3600)
        case 2:
            outcomes = svc.edit(waiting, unique=chance.choice(KEYS))
        case 3:
            outcomes = svc.edit(waiting, weight=chance.randint(-2, 2), name="edited")
        case _:
            outcomes = svc.edit(waiting, delay=0.01)
    assert set(outcomes) <= {"ok", "invalid", "missing", "conflict"}, outcomes


def _configure(svc: JobService, chance: random.Random) -> None:
    """Limits that come and go, each of them low enough to hold somebody up."""
    svc.configure(
        chance.choice(TOPICS),
        concurrency=chance.choice((None, 5, 50)),
        group_concurrency=chance.choice((None, 1, 3)),
        group_retries=chance.choice((None, "block", "pass")),
        rate=chance.choice((None, None, (10_000, 1.0))),
        group_rate=chance.choice((None, None, (1_000, 1.0))),
    )


def _live_in_coroutines(pipe: Pipe, path: str, directory: str, seed: int) -> None:
    """Produce and consume in many coroutines at once, until told to stop."""
    chance = random.Random(seed)
    added, finished = Notebook(f"{directory}/added"), Notebook(f"{directory}/finished")
    enough = Path(directory) / "enough"

    async def live(svc: JobService) -> None:
        while not svc.stopped:
            topic = chance.choice(TOPICS)
            if not enough.exists():
                added.note(await svc.aenqueue(topic, "one"))
            with suppress(TimeoutError):  # cancelled: what it had taken is given back
                async with asyncio.timeout(chance.choice((0.001, 1.0))):
                    jobs = await svc.areserve(topic, 2, timeout=0.02)
                for job in jobs:
                    fails = chance.random() < 0.1
                    async with job:
                        job.log("in a coroutine")
                        if fails:
                            raise LookupError
                    if not fails:
                        finished.note(job.id)

    async def main() -> None:
        async with jobq.open(path, **LASTING) as svc:
            asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, svc.stop)
            await asyncio.gather(*(live(svc) for _ in range(COROUTINES)))

    logging.disable(logging.WARNING)  # of blocks that raise
    asyncio.run(main())
    pipe.send("stopped")


def _produce(svc: JobService, chance: random.Random) -> list[str]:
    topic, weight = chance.choice(TOPICS), chance.randint(-2, 2)
    match chance.randrange(6):
        case 0:
            return [svc.enqueue(topic, "one", weight=weight)]
        case 4:
            group = chance.choice(GROUPS)
            return svc.enqueue_many(topic, range(chance.randint(1, 9)), group=group, weight=weight)
        case 5:
            return [_enqueue_with_key(svc, topic, chance)]
        case 1:
            return [svc.enqueue(topic, "late", delay=chance.uniform(0.001, 0.2))]
        case 2:
            return svc.enqueue_many(topic, range(chance.randint(1, 15)), weight=weight)
        case _:
            with svc.batch() as batch:
                for _ in range(chance.randint(1, 5)):
                    batch.enqueue(chance.choice(TOPICS), bytes(chance.randrange(300)))
            return batch.ids


def _enqueue_with_key(svc: JobService, topic: str, chance: random.Random) -> str:
    """A job with a key, or the one that has it already."""
    return svc.enqueue(
        topic,
        "keyed",
        group=chance.choice(GROUPS),
        ttl=3600,
        unique=chance.choice(KEYS),
        unique_for=chance.choice(("waiting", "unfinished", 0.05)),
    )


def _consume(svc: JobService, chance: random.Random, added: Notebook, finished: Notebook) -> None:
    jobs = svc.reserve(chance.choice(TOPICS), chance.randint(1, 8), timeout=0.02)
    match chance.randrange(8):
        case 0:
            svc.release_many(jobs)
        case 1:
            svc.retry_many(jobs, delay=chance.choice([0, 0.01]))
        case 2 | 3:
            outcomes = svc.done_many(jobs)
            assert set(outcomes) <= {"ok"}, outcomes
            finished.note(*(job.id for job in jobs))
        case 4:
            for job in jobs:
                with job:
                    job.log("at work")
                    job.progress(1, 2)
                finished.note(job.id)
        case _:
            for job in jobs:
                then = [NewJob(job.topic, "then")] if chance.random() < 0.1 else []
                follow = job.done(chance.random(), then)
                finished.note(job.id)
                added.note(*follow)


def _every(svc: JobService) -> tuple[dict[str, Status], int]:
    """All jobs' statuses, and how often a job came back from a dead holder."""
    statuses, crashes = {}, 0
    after = None
    while page := svc.find(after=after, limit=1000):
        for record in page:
            statuses[record.id] = record.status
            crashes += record.crashes
        after = page[-1].id
    return statuses, crashes
