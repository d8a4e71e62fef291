"""Who waits for the end of a job learns it, from whatever process it comes; nobody polls.

As in `test_wakeup`: who missed a call would sleep on until its next look, half a minute after it
fell asleep; the bounds here are below that, and far above what the busiest machine needs.
"""

import os
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Final

import pytest

import jobq
from jobq import JobNotFound, JobService, Reason, Status
from jobq.errors import StoreUnavailable
from jobq.repo.lmdb import steps
from tests.conftest import SOON_S, eventually, sleep_soundly
from tests.crash.conftest import Say
from tests.crash.processes import Pipe, Start, die_at, die_with_parent, kill_myself, waits
from tests.crash.waiters import PATIENCE_S, asleep, seconds

# Calls that must come through.


def test_a_job_of_one_process_is_waited_for_by_another_and_done_by_a_third(
    start: Start, path: str
) -> None:
    producer = start(_enqueue, path)
    jid = producer.hear()
    waiter = asleep(start(_wait, path, jid))
    worker = start(_work, path)
    done_ns = worker.hear()

    assert (waiter.hear() - done_ns) / 1e9 < SOON_S
    assert waiter.hear() == ("done", "by a third")


ENDS: Final[dict[str, Callable[[JobService, str], object]]] = {
    "done": lambda svc, _: svc.reserve("mail", timeout=0)[0].done(),
    "exhausted": lambda svc, _: svc.reserve("mail", timeout=0)[0].retry(),
    "canceled": lambda svc, jid: svc.cancel(jid),
    "deleted": lambda svc, jid: svc.delete(jid),
}


@pytest.mark.parametrize("keep", [None, 0])
@pytest.mark.parametrize("how", ENDS)
def test_every_end_wakes_who_waits(how: str, keep: float | None, start: Start, path: str) -> None:
    with jobq.open(path, max_retries=0) as svc:
        jid = svc.enqueue("mail", retention=keep)
        waiters = [asleep(start(_wait, path, jid)) for _ in range(3)]
        since_ns = time.monotonic_ns()
        ENDS[how](svc, jid)

        assert max(seconds(waiter, since_ns) for waiter in waiters) < SOON_S
        ended = {waiter.hear()[0] for waiter in waiters}
        assert ended == {"gone" if keep == 0 or how == "deleted" else svc.status(jid)}


def test_a_killed_waiter_harms_nobody(start: Start, path: str) -> None:
    with jobq.open(path) as svc:
        jid = svc.enqueue("mail")
        killed, other = (asleep(start(_wait, path, jid)) for _ in range(2))
        killed.kill()
        since_ns = time.monotonic_ns()
        svc.cancel(jid)

        assert seconds(other, since_ns) < SOON_S
        assert svc.check().ok


def test_a_killed_waiters_flag_lets_the_next_waiter_be_called(start: Start, path: str) -> None:
    with jobq.open(path) as svc:
        jid = svc.enqueue("mail")
        asleep(start(_wait, path, jid)).kill()
        waiter = asleep(start(_wait, path, jid))
        since_ns = time.monotonic_ns()
        svc.cancel(jid)

        assert seconds(waiter, since_ns) < SOON_S


@pytest.mark.parametrize("at", ["committed", "counters raised"])
def test_a_worker_that_dies_before_it_calls_costs_a_waiter_a_second_at_most(
    at: str, start: Start, path: str
) -> None:
    with jobq.open(path) as svc:
        jid = svc.enqueue("mail")
        waiter = asleep(start(_wait_or_look, path, jid))
        since_ns = time.monotonic_ns()
        worker = start(_done_and_die, path, at)
        after = seconds(waiter, since_ns)

        assert worker.ended() == -signal.SIGKILL
        assert after < SOON_S
        assert waiter.hear() == ("done", None)


@pytest.mark.parametrize("at", ["committed", "counters raised", "file lock given back"])
def test_a_worker_that_is_interrupted_after_its_commit_still_calls(
    at: str, start: Start, path: str
) -> None:
    with jobq.open(path) as svc:
        jid = svc.enqueue("mail")
        waiter = asleep(start(_wait, path, jid))
        since_ns = time.monotonic_ns()
        worker = start(_done_and_be_interrupted, path, at)
        after = seconds(waiter, since_ns)

        assert worker.hear() == "KeyboardInterrupt"
        assert after < SOON_S


def test_who_alone_waits_sees_the_job_of_dead_processes_end(start: Start, path: str) -> None:
    """Nobody else is there to find out that its holders are dead."""
    with jobq.open(path) as svc:
        jid = svc.enqueue("mail", max_crashes=2)
        waiter = asleep(start(_wait_or_look, path, jid))
        for _ in range(3):
            eventually(lambda: svc.status(jid) is Status.READY)
            start(_reserve_and_die, path).ended()
        since_ns = time.monotonic_ns()

        assert seconds(waiter, since_ns) < SOON_S
        assert waiter.hear() == ("canceled", None)
        assert svc.get(jid).reason is Reason.POISON


@pytest.mark.usefixtures("sound_sleep")
def test_a_job_that_was_done_by_a_process_that_is_dead_by_then_has_ended(
    start: Start, path: str
) -> None:
    with jobq.open(path) as svc:
        jid = svc.enqueue("mail")
        assert start(_done_and_die, path, "waiters woken").ended() == -signal.SIGKILL
        since = time.monotonic()

        assert svc.wait(jid, PATIENCE_S).status is Status.DONE
        assert time.monotonic() - since < SOON_S


def test_a_forked_child_waits_too(start: Start, path: str) -> None:
    with jobq.open(path) as svc:
        jid = svc.enqueue("mail")
        parent = start(_fork_and_wait, path, jid)
        assert parent.hear() == "about to wait"
        child_pid = parent.hear()
        eventually(lambda: waits(child_pid))
        since_ns = time.monotonic_ns()
        svc.cancel(jid)
        after = seconds(parent, since_ns)

        assert after < SOON_S
        assert parent.hear() == 0


# Stopping.


def test_stop_in_a_signal_handler_ends_the_waiting(start: Start, path: str) -> None:
    with jobq.open(path) as svc:
        waiter = asleep(start(_wait_until_stopped, path, svc.enqueue("mail")))
        since_ns = time.monotonic_ns()
        waiter.signal(signal.SIGTERM)

        assert seconds(waiter, since_ns) < SOON_S


def test_ctrl_c_ends_the_waiting_at_once_and_harms_nothing(start: Start, path: str) -> None:
    with jobq.open(path) as svc:
        jid = svc.enqueue("mail")
        waiter = asleep(start(_wait_until_interrupted, path, jid))
        since_ns = time.monotonic_ns()
        waiter.signal(signal.SIGINT)

        assert seconds(waiter, since_ns) < SOON_S
        eventually(lambda: waits(waiter.pid))
        since_ns = time.monotonic_ns()
        svc.cancel(jid)
        assert seconds(waiter, since_ns) < SOON_S
        assert svc.check().ok


# No call is missed.


def test_no_end_is_missed_in_six_hundred_rounds(start: Start, path: str, say: Say) -> None:
    """Four processes enqueue and wait, two work; each waiter is nearly always asleep."""
    askers, rounds = 4, 150
    with jobq.open(path, retention=600) as svc:
        workers = [start(_answer, path) for _ in range(2)]
        children = [start(_ask, path, rounds) for _ in range(askers)]
        found = [child.hear(100) for child in children]
        for worker in workers:
            worker.signal(signal.SIGTERM)
        answered = [worker.hear() for worker in workers]
        report = svc.check()
    missed = sum(late for late, _ in found)
    slowest = max(slowest for _, slowest in found)
    say(f"{askers * rounds} ends, {missed} calls missed, the slowest took {slowest:.3f} s")

    assert sum(answered) == askers * rounds
    assert missed == 0
    assert report.problems == ()


# What the children do.


def _enqueue(pipe: Pipe, path: str) -> None:
    with jobq.open(path) as svc:
        pipe.send(svc.enqueue("mail"))


def _wait(pipe: Pipe, path: str, jid: str) -> None:
    sleep_soundly()
    _wait_or_look(pipe, path, jid)


def _wait_or_look(pipe: Pipe, path: str, jid: str) -> None:
    with jobq.open(path) as svc:
        pipe.send("about to wait")
        pipe.recv()
        try:
            record = svc.wait(jid, PATIENCE_S)
        except JobNotFound:
            pipe.send(time.monotonic_ns())
            pipe.send(("gone", None))
        else:
            pipe.send(time.monotonic_ns())
            pipe.send((str(record.status), record.result))


def _work(pipe: Pipe, path: str) -> None:
    with jobq.open(path) as svc:
        [job] = svc.reserve("mail", timeout=PATIENCE_S)
        job.done("by a third")
        pipe.send(time.monotonic_ns())


def _done_and_die(_: Pipe, path: str, at: str) -> None:
    svc = jobq.open(path)
    [job] = svc.reserve("mail", timeout=PATIENCE_S)
    die_at(at)
    job.done()


def _done_and_be_interrupted(pipe: Pipe, path: str, at: str) -> None:
    svc = jobq.open(path)
    [job] = svc.reserve("mail", timeout=PATIENCE_S)

    def reached(step: str) -> None:
        if step == at:
            steps.reached = plain
            signal.raise_signal(signal.SIGINT)

    plain, steps.reached = steps.reached, reached
    try:
        job.done()
    except KeyboardInterrupt:
        pipe.send("KeyboardInterrupt")
    else:
        pipe.send("no interrupt")
    pipe.recv()  # alive, so that nothing but its call wakes anybody


def _reserve_and_die(_: Pipe, path: str) -> None:
    svc = jobq.open(path)
    assert svc.reserve("mail", timeout=PATIENCE_S)
    kill_myself()


def _fork_and_wait(pipe: Pipe, path: str, jid: str) -> None:
    sleep_soundly()
    with jobq.open(path) as svc:
        with suppress(TimeoutError):
            svc.wait(jid, 0.01)
        pipe.send("about to wait")
        pid = os.fork()
        if not pid:
            die_with_parent()
            svc.wait(jid, PATIENCE_S)
            pipe.send(time.monotonic_ns())
            os._exit(0)
        pipe.send(pid)
        _, status = os.waitpid(pid, 0)
        pipe.send(status)


def _wait_until_stopped(pipe: Pipe, path: str, jid: str) -> None:
    with jobq.open(path) as svc:
        signal.signal(signal.SIGTERM, lambda *_: svc.stop())
        pipe.send("about to wait")
        pipe.recv()
        with pytest.raises(StoreUnavailable, match="stopped"):
            svc.wait(jid)
        pipe.send(time.monotonic_ns())


def _wait_until_interrupted(pipe: Pipe, path: str, jid: str) -> None:
    with jobq.open(path) as svc:
        pipe.send("about to wait")
        pipe.recv()
        with pytest.raises(KeyboardInterrupt):
            svc.wait(jid)
        pipe.send(time.monotonic_ns())
        svc.wait(jid)
        pipe.send(time.monotonic_ns())


def _ask(pipe: Pipe, path: str, rounds: int) -> None:
    """Have jobs done, one after the other: how many calls were missed, and the longest wait."""
    missed, slowest = 0, 0.0
    sleep_soundly()
    with jobq.open(path) as svc:
        for number in range(rounds):
            record = svc.wait(svc.enqueue("questions", number), PATIENCE_S)
            # From before the call of `done`: what a busy disk takes is in it too.
            took = (time.monotonic_ns() - record.result) / 1e9
            missed += took > SOON_S
            slowest = max(slowest, took)
    pipe.send((missed, slowest))


def _answer(pipe: Pipe, path: str) -> None:
    sleep_soundly()
    with jobq.open(path) as svc:
        signal.signal(signal.SIGTERM, lambda *_: svc.stop())
        count = 0
        while jobs := svc.reserve("questions"):
            for job in jobs:
                job.done(time.monotonic_ns())
                count += 1
        pipe.send(count)
