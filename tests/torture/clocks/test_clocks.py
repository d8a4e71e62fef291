"""The wall clock is stepped by hours, years and lives, while jobs wait, run, and fall due.

No lease is shorter or longer for it, ids grow, delayed jobs follow the wall clock and nothing else,
and who waits for a due time notices, without looking round more often than it should.
"""

import asyncio
import random
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Final

import pytest

from jobq import Job, JobService
from jobq.clock import Clock
from jobq.repo.lmdb import LmdbStore
from tests.conftest import STORES, Crew, Kind, eventually
from tests.crash.conftest import Say
from tests.crash.processes import Notebook, Pipe, Start, threads_of, waits
from tests.torture.clocks.clocks import DELAYS_S, HOUR_S, YEAR_S, SteppedClock, leap

LONG_LEASE_S: Final = 600.0


@pytest.fixture
def path(tmp_path: Path) -> str:
    """Where the queue is to be."""
    return str(tmp_path / "queue")


# Waiters of every kind, in processes of their own.


def _service(path: str, clock: Clock) -> JobService:
    return JobService(LmdbStore(path, durability="unsafe", clock=clock), lease=LONG_LEASE_S)


def _done(svc: JobService, jobs: list[Job]) -> object:
    svc.done_many(jobs)
    return [job.payload for job in jobs]


def _wait_for_job(svc: JobService) -> object:
    return _done(svc, svc.reserve("job"))


def _wait_for_several(svc: JobService) -> object:
    return _done(svc, svc.reserve(["several", "none"]))


def _wait_for_deadline(svc: JobService) -> object:
    [jid] = [record.id for record in svc.find(topic="deadline")]
    return str(svc.wait(jid).reason)


def _wait_in_coroutine(svc: JobService) -> object:
    async def wait() -> object:
        return _done(svc, await svc.areserve("coroutine"))

    return asyncio.run(wait())


WAITS: Final[tuple[Callable[[JobService], object], ...]] = (
    _wait_for_job, _wait_for_several, _wait_for_deadline, _wait_in_coroutine,
)  # fmt: skip

LOOKS_A_SECOND: Final = 30
"""What a waiter may need that looks round once a second, several times over; one that spins asks
for the time some ten thousand times."""


def _wait(pipe: Pipe, path: str, clock_path: str, number: int) -> None:
    with _service(path, SteppedClock(clock_path, 1 + number)) as svc:
        pipe.send("waiting")
        pipe.send(WAITS[number](svc))


@pytest.mark.parametrize("leaps", [8, pytest.param(400, marks=pytest.mark.storm)])
def test_who_waits_for_the_wall_clock_notices_that_it_was_stepped_and_never_spins(
    leaps: int, start: Start, path: str, tmp_path: Path, seed: int, say: Say
) -> None:
    """Nobody calls them: that an administrator sets the clock is no commit."""
    chance = random.Random(seed)
    clock = SteppedClock(tmp_path / "clock")
    with _service(path, clock) as svc:
        for topic in ("job", "several", "coroutine"):
            svc.enqueue(topic, topic, delay=HOUR_S)
        svc.enqueue("deadline", ttl=HOUR_S)
    waiters = [start(_wait, path, str(tmp_path / "clock"), number) for number in range(len(WAITS))]
    for waiter in waiters:
        assert waiter.hear() == "waiting"
        eventually(partial(_is_asleep, waiter.pid))
    before, since = clock.looks(), time.monotonic()
    for _ in range(leaps):  # back and forth, but never as far as the hour
        clock.set_right()
        clock.step(-abs(leap(chance)))
        time.sleep(0.05)
    # All of them have looked since the clock was set back for the last time.
    at_rest = clock.looks()
    eventually(lambda: all(now > then for now, then in _pairs(clock.looks(), at_rest)))
    looks = max(now - then for now, then in _pairs(clock.looks(), before))
    seconds = time.monotonic() - since
    assert not any(waiter.heard() for waiter in waiters)
    stepped = time.monotonic()
    clock.set_right()
    clock.step(HOUR_S + 1)
    came = [waiter.hear() for waiter in waiters]
    late = time.monotonic() - stepped
    assert [waiter.ended() for waiter in waiters] == [0] * len(WAITS)
    say(f"{leaps} leaps: {looks} looks in {seconds:.1f} s; noticed after {late:.2f} s at most")

    assert came == [["job"], ["several"], "expired", ["coroutine"]]
    assert looks <= LOOKS_A_SECOND * (seconds + 1)


def _is_asleep(pid: int) -> bool:
    return any(waits(thread) for thread in threads_of(pid))


def _pairs(after: list[int], before: list[int]) -> list[tuple[int, int]]:
    """Those of the waiters."""
    return list(zip(after, before, strict=True))[1 : 1 + len(WAITS)]


@pytest.mark.parametrize("kind", [kind for kind in STORES if kind.name != "lmdb"], ids=repr)
def test_a_thread_that_waits_notices_that_the_wall_clock_was_stepped(
    kind: Kind, tmp_path: Path, crew: Crew
) -> None:
    clock = SteppedClock(tmp_path / "clock")
    came: list[object] = []
    with JobService(kind.open(tmp_path / "queue", clock=clock)) as svc:
        svc.enqueue("job", "job", delay=30 * YEAR_S)
        crew.start(lambda: came.append(_wait_for_job(svc)))
        looks = clock.looks()[0]
        eventually(lambda: clock.looks()[0] > looks)
        clock.step(30 * YEAR_S)
        crew.join()

    assert came == [["job"]]


# Several processes at work.


BRIEF_S: Final = 0.3


def _live(pipe: Pipe, path: str, directory: str, number: int, seed: int) -> None:
    """Produce, and work off, until told to stop; what is found wrong is raised, and so heard."""
    chance = random.Random(seed)
    added, taken = Notebook(f"{directory}/added"), Notebook(f"{directory}/taken")
    finished = Notebook(f"{directory}/finished")
    clock = SteppedClock(f"{directory}/clock", number)
    with _service(path, clock) as svc:
        pipe.send("open")
        while not pipe.poll():
            _produce(svc, chance, added)
            before = time.monotonic()
            for job in svc.reserve("lasting", 2, timeout=0):
                record = svc.get(job.id)
                due_us = record.created_us + round(job.payload * 1e6)
                assert due_us <= clock.peak_us(), "a job came before its time"
                assert job.crashes == 0, "a lease of ten minutes was over"
                if chance.random() < 0.5:
                    assert not job.canceled
                    job.extend(LONG_LEASE_S)
                job.done()
                finished.note(job.id)
            for job in svc.reserve("brief", 1, timeout=0):  # and let the lease run out
                taken.note(f"{job.id} {before:.3f} {time.monotonic():.3f}")
        pipe.recv()
        pipe.send("stopped")
        pipe.recv()  # before it closes, which gives back what it holds


def _produce(svc: JobService, chance: random.Random, added: Notebook) -> None:
    *_, last = added.read() or [""]
    delay = chance.choice((0.0, 0.0, 0.0, *DELAYS_S))
    jid = svc.enqueue("lasting", delay, delay=delay)
    assert jid > last, "ids must grow, whatever the clock says"
    added.note(jid)


@pytest.mark.parametrize(
    ("processes", "leaps"), [(3, 25), pytest.param(6, 1000, marks=pytest.mark.storm)]
)
def test_processes_at_work_do_not_mind_a_clock_that_is_stepped_all_the_time(
    processes: int, leaps: int, start: Start, path: str, tmp_path: Path, seed: int, say: Say
) -> None:
    chance = random.Random(seed)
    clock = SteppedClock(tmp_path / "clock")
    with _service(path, clock) as svc:
        svc.enqueue_many("brief", range(2 * processes), lease=BRIEF_S, max_crashes=0)
        arguments = (path, str(tmp_path))
        crew = [
            start(_live, *arguments, 1 + number, chance.randrange(2**32))
            for number in range(processes)
        ]
        for child in crew:
            assert child.hear() == "open"
        for _ in range(leaps):
            clock.step(leap(chance))
            if chance.random() < 0.3:
                clock.set_right()
            time.sleep(chance.uniform(0, 0.05))
            for child in crew:
                if child.heard():
                    child.hear()  # which raises what it has found
        # However slowly they come to it: a lease has ended, and its job was taken again.
        eventually(lambda: _between_two(Notebook(tmp_path / "taken").read()))
        for said in ("stopped", None):
            for child in crew:
                child.tell()
            for child in crew:
                assert said is None or child.hear() == said
        for child in crew:
            assert child.ended() == 0
        clock.set_right()
        latest_us = clock.peak_us()  # some are due only after that
        clock.step((latest_us - clock.wall_us()) / 1e6 + max(DELAYS_S) + YEAR_S)
        assert svc.check().ok
        left = _work_off(svc)
    added = Notebook(tmp_path / "added").read()
    spans = _between_two(Notebook(tmp_path / "taken").read())
    say(
        f"{processes} processes, {leaps} leaps: {len(added)} jobs, "
        f"{len(spans)} leases of {BRIEF_S} s over, the shortest after {min(spans):.3f} s"
    )

    done = Notebook(tmp_path / "finished").read()
    assert sorted(done + left) == sorted(added)
    assert min(spans) >= BRIEF_S - 1e-6  # of floats; the store counts microseconds


def _work_off(svc: JobService) -> list[str]:
    """Do what is left; gives all of the lasting ones."""
    left: list[str] = []
    while jobs := svc.reserve(["lasting", "brief"], 100, timeout=2 * BRIEF_S):
        svc.done_many(jobs)
        left += [job.id for job in jobs if job.topic == "lasting"]
    return left


def _between_two(notes: list[str]) -> list[float]:
    """Seconds from before a job was taken until after it was taken again."""
    spans = []
    since: dict[str, float] = {}
    for jid, before, after in sorted((line.split() for line in notes), key=lambda note: note[2]):
        if jid in since:
            spans.append(float(after) - since[jid])
        since[jid] = float(before)
    return spans
