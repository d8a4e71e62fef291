"""A worker is gone: its jobs come back by themselves, soon, and nobody else's do."""

import os
import random
import signal
import statistics
import time
from pathlib import Path
from typing import Final

import pytest

import jobq
from jobq import Reason, Status
from tests.conftest import DEADLINE_S, SOON_S, eventually
from tests.crash.conftest import Say
from tests.crash.processes import (
    Child,
    Notebook,
    Pipe,
    Start,
    die_at,
    state_of,
)

LEASE_S: Final = 600.0
"""Long, so that it is not the lease's end that brings a job back."""

WORST_S: Final = 5.0
"""What jobq promises, on a machine that has time for it."""

SHORT_S: Final = 1.5
"""The lease of who is stopped for longer; whoever has the job then is quicker than that."""

TOPIC: Final = "work"
HELD: Final = 5
QUEUES: Final = 6
ROUNDS: Final = 2


# Dead workers.


def test_the_jobs_of_a_killed_worker_come_back_within_five_seconds(
    start: Start, tmp_path: Path, seed: int, say: Say
) -> None:
    """Several queues at once, each with one worker that waits through all rounds."""
    chance = random.Random(seed)
    paths = [str(tmp_path / str(number)) for number in range(QUEUES)]
    fillers = [jobq.open(path) for path in paths]
    waiters = [start(_wait, path) for path in paths]
    seconds: list[float] = []
    for _ in range(ROUNDS):
        for svc in fillers:
            svc.enqueue_many(TOPIC, range(HELD), lease=LEASE_S)
        holders = [start(_hold, path, HELD) for path in paths]
        for holder in holders:
            assert holder.hear() == HELD
        for waiter in waiters:
            waiter.tell("reserve")
        killed_ns = []
        for holder in holders:
            # No moment of the waiters' beat is preferred.
            time.sleep(chance.uniform(0.0, 0.3))
            killed_ns.append(time.monotonic_ns())
            holder.kill()
        seconds += [
            (waiter.hear() - since_ns) / 1e9
            for waiter, since_ns in zip(waiters, killed_ns, strict=True)
        ]
    problems = [problem for svc in fillers for problem in svc.check().problems]
    left = [svc.stats().totals.unfinished for svc in fillers]
    for svc in fillers:
        svc.close()
    say(
        f"redelivery after SIGKILL, {len(seconds)} rounds: median "
        f"{statistics.median(seconds):.2f} s, worst {max(seconds):.2f} s"
    )

    assert statistics.median(seconds) <= WORST_S
    assert max(seconds) <= SOON_S, "a machine that has much else to do"
    assert left == [0] * QUEUES
    assert problems == []


@pytest.mark.parametrize("how", ["idle", "in the store", "another program"])
def test_the_jobs_of_a_killed_parent_come_back_though_its_child_lives(
    how: str, start: Start, path: str
) -> None:
    with jobq.open(path) as svc:
        svc.enqueue_many(TOPIC, range(HELD), lease=LEASE_S)
        waiter = start(_wait, path)
        parent = start(_hold_and_fork, path, how)
        orphan: int = parent.hear()
        waiter.tell("reserve")
        killed_ns = time.monotonic_ns()
        parent.kill()
        seconds = (waiter.hear() - killed_ns) / 1e9
        orphan_state = state_of(orphan)
        report = svc.check()
    os.kill(orphan, signal.SIGKILL)

    assert orphan_state in "RSD"
    assert seconds <= SOON_S
    assert report.problems == ()


def test_a_waiter_for_another_topic_brings_the_jobs_back_too(start: Start, path: str) -> None:
    with jobq.open(path) as svc:
        svc.enqueue_many(TOPIC, range(HELD), lease=LEASE_S)
        holder = start(_hold, path, HELD)
        holder.hear()
        start(_wait_for, path, "something else")
        holder.kill()
        eventually(lambda: svc.stats(TOPIC).totals.ready == HELD)

        assert svc.stats(TOPIC).totals.reserved == 0
        assert svc.check().ok


@pytest.mark.parametrize("loop", ["reserve", "consume"])
def test_a_worker_that_always_finds_jobs_brings_the_jobs_back_too(
    loop: str, start: Start, path: str
) -> None:
    """Nobody waits: there is always enough to do."""
    with jobq.open(path) as svc:
        svc.enqueue_many(TOPIC, ["lost"] * HELD, lease=LEASE_S)
        holder = start(_hold, path, HELD)
        assert holder.hear() == HELD
        holder.kill()
        came: list[object] = []
        jobs = iter(svc.consume(TOPIC))
        end = time.monotonic() + SOON_S
        while came.count("lost") < HELD and time.monotonic() < end:
            svc.enqueue(TOPIC, "more", weight=1)
            svc.enqueue(TOPIC, "more", weight=1)
            with next(jobs) if loop == "consume" else svc.reserve(TOPIC, timeout=0)[0] as job:
                came.append(job.payload)
        assert came.count("lost") == HELD


def test_a_job_whose_holders_keep_dying_is_canceled_as_poison(start: Start, path: str) -> None:
    most = 3
    with jobq.open(path) as svc:
        poison = svc.enqueue(TOPIC, "poison", max_crashes=most, lease=LEASE_S)
        good = svc.enqueue(TOPIC, "good", weight=1, lease=LEASE_S)
        deaths = 0
        while svc.status(poison) is not Status.CANCELED:
            assert deaths <= most, "it goes on being handed out"
            holder = start(_hold, path, 1)
            holder.hear()
            assert svc.status(poison) is Status.RESERVED
            holder.kill()
            deaths += 1
            svc.store.advance()
        record = svc.get(poison)

        assert deaths == most + 1
        assert (record.reason, record.crashes, record.attempt) == (Reason.POISON, deaths, deaths)
        assert svc.status(good) is Status.READY
        assert svc.check().ok


def test_a_job_without_a_limit_of_crashes_outlives_all_its_holders(start: Start, path: str) -> None:
    with jobq.open(path) as svc:
        jid = svc.enqueue(TOPIC, max_crashes=0, lease=LEASE_S)
        for _ in range(8):
            holder = start(_hold, path, 1)
            holder.hear()
            holder.kill()
            svc.store.advance()
        [job] = svc.reserve(TOPIC, timeout=0)

        assert (job.id, job.crashes, job.attempt) == (jid, 8, 9)


def test_the_jobs_of_the_living_stay_with_them(start: Start, path: str) -> None:
    """Of many holders some die: nothing is taken from the others."""
    with jobq.open(path) as svc:
        svc.enqueue_many(TOPIC, range(6 * HELD), lease=LEASE_S)
        holders = [start(_hold, path, HELD, "settle when told") for _ in range(6)]
        for holder in holders:
            holder.hear()
        for holder in holders[:3]:
            holder.kill()
        start(_wait_for, path, "something else")
        eventually(lambda: svc.stats(TOPIC).totals.ready == 3 * HELD)
        for holder in holders[3:]:
            holder.tell("settle")
        outcomes = [holder.hear() for holder in holders[3:]]

        assert outcomes == [["ok"] * HELD] * 3
        assert svc.stats(TOPIC).totals.done == 3 * HELD
        assert svc.check().ok


# Files of the dead.


def test_the_files_of_dead_holders_go_when_their_jobs_are_back(start: Start, path: str) -> None:
    with jobq.open(path) as svc:
        svc.enqueue_many(TOPIC, range(8), lease=LEASE_S, max_crashes=0)
        for _ in range(8):
            holder = start(_hold, path, 1)
            holder.hear()
            holder.kill()
        start(_wait_for, path, "something else")

        eventually(lambda: not _holder_files(path))
        assert svc.stats(TOPIC).totals.ready == 8


@pytest.mark.parametrize("step", ["holder file made", "holder file locked", "holder file renamed"])
def test_a_death_in_becoming_a_holder_leaves_nothing_that_blocks_or_piles_up(
    step: str, start: Start, path: str
) -> None:
    with jobq.open(path) as svc:
        jid = svc.enqueue(TOPIC, lease=LEASE_S)
        for _ in range(8):
            assert start(_die_becoming_a_holder, path, step).ended() == -signal.SIGKILL
        start(_wait_for, path, "something else")
        eventually(lambda: not _holder_files(path))
        [job] = svc.reserve(TOPIC, timeout=0)
        job.done()

        assert (job.id, job.attempt, job.crashes) == (jid, 1, 0)
        assert svc.check().ok


# Stopped workers.


def test_a_worker_that_was_stopped_past_its_lease_cannot_finish_the_job(
    start: Start, path: str
) -> None:
    with jobq.open(path) as svc:
        jid = svc.enqueue(TOPIC, lease=SHORT_S)
        stopped = start(_work_when_told, path, "stopped")
        stopped.hear()
        _stop(stopped)
        other = start(_work_when_told, path, "other")
        other.hear()
        # Now the other one holds it, for long enough.
        stopped.signal(signal.SIGCONT)
        stopped.tell("go on")
        refused = stopped.hear()
        other.tell("go on")

        assert refused == "ReservationLost"
        assert other.hear() == "done"
        record = svc.get(jid)
        assert (record.status, record.result, record.attempt) == (Status.DONE, "other", 2)
        assert svc.check().ok


def test_a_loop_that_was_stopped_past_its_leases_learns_what_it_has_lost(
    start: Start, path: str, tmp_path: Path
) -> None:
    """`consume` extends leases, but not while its process stands still."""
    with jobq.open(path) as svc:
        jids = svc.enqueue_many(TOPIC, range(4), lease=SHORT_S)
        stopped = start(_loop, path, str(tmp_path / "done"))
        stopped.hear()
        first_us = svc.get(jids[0]).lease_until_us
        assert first_us is not None
        # While it runs, the leases are extended again and again.
        eventually(lambda: (svc.get(jids[0]).lease_until_us or 0) > first_us + 800_000)
        assert {svc.status(jid) for jid in jids} == {Status.RESERVED}
        _stop(stopped)
        jobs: list[jobq.Job] = []
        while len(jobs) < 4:
            taken = svc.reserve(TOPIC, 4, timeout=DEADLINE_S)
            assert taken, "they do not come back"
            jobs += taken
        assert svc.done_many(jobs, ["other"] * 4) == ["ok"] * 4
        stopped.signal(signal.SIGCONT)
        stopped.tell("go on")

        lost: list[str] = stopped.hear()
        assert lost == jids[:1]
        assert Notebook(tmp_path / "done").read() == []
        assert [svc.get(jid).result for jid in jids] == ["other"] * 4
        assert svc.check().ok


# What the children do.


def _wait(pipe: Pipe, path: str) -> None:
    """Told to, reserve and finish `HELD` jobs; say when the last one came."""
    with jobq.open(path) as svc:
        while True:
            pipe.recv()
            came: set[str] = set()
            last_ns = 0
            while len(came) < HELD:
                jobs = svc.reserve(TOPIC, HELD, timeout=DEADLINE_S)
                last_ns = time.monotonic_ns()
                came.update(job.id for job in jobs)
                svc.done_many(jobs)
            pipe.send(last_ns)


def _wait_for(_: Pipe, path: str, topic: str) -> None:
    with jobq.open(path) as svc:
        svc.reserve(topic)


def _hold(pipe: Pipe, path: str, n: int, then: str = "hold on") -> None:
    with jobq.open(path) as svc:
        jobs = svc.reserve(TOPIC, n, timeout=DEADLINE_S)
        pipe.send(len(jobs))
        pipe.recv()
        if then == "settle when told":
            pipe.send([str(outcome) for outcome in svc.done_many(jobs)])


def _hold_and_fork(pipe: Pipe, path: str, how: str) -> None:
    """Hold jobs, and have a child that inherits what it can; it ends when the test does."""
    svc = jobq.open(path)
    svc.reserve(TOPIC, HELD, timeout=DEADLINE_S)
    pid = os.fork() if how != "another program" else _spawn_cat(pipe)
    if not pid:
        if how == "in the store":
            svc.stats()
            svc.enqueue("child")
        pipe.recv()
        os._exit(0)
    pipe.send(pid)
    signal.pause()


def _spawn_cat(pipe: Pipe) -> int:
    """Another program, which inherits all descriptors that may be inherited."""
    fd = pipe.fileno()
    actions = [(os.POSIX_SPAWN_DUP2, fd, 0)]  # so that it ends when the test does
    return os.posix_spawn("/bin/cat", ["cat"], os.environ, file_actions=actions)


def _die_becoming_a_holder(_: Pipe, path: str, at: str) -> None:
    die_at(at)
    with jobq.open(path) as svc:
        svc.reserve(TOPIC, timeout=0)


def _work_when_told(pipe: Pipe, path: str, name: str) -> None:
    with jobq.open(path) as svc:
        [job] = svc.reserve(TOPIC, timeout=DEADLINE_S)
        if job.attempt > 1:
            job.extend(LEASE_S)
        pipe.send("reserved")
        pipe.recv()
        try:
            job.done(name)
        except jobq.ReservationLost:
            pipe.send("ReservationLost")
        else:
            pipe.send("done")


def _loop(pipe: Pipe, path: str, notes: str) -> None:
    notebook = Notebook(notes)
    lost: list[str] = []
    with jobq.open(path) as svc:
        for job in svc.consume(
            TOPIC, 4, timeout=0, pipeline=False, on_lost=lambda job: lost.append(job.id)
        ):
            with job:
                pipe.send("in the block")
                pipe.recv()
            if not lost:
                notebook.note(job.id)
            svc.stop()
    pipe.send(lost)


def _stop(child: Child) -> None:
    child.signal(signal.SIGSTOP)
    eventually(lambda: state_of(child.pid) == "T")


def _holder_files(path: str) -> list[str]:
    """What stands in the directory of holders, of which none is alive."""
    return [file.name for file in (Path(path) / "holders").glob("*")]
