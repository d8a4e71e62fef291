"""Who waits for room, or until a topic is empty, learns of it from whatever process makes it so.

As in `test_waiting`: who missed a call would sleep on until its next look, half a minute later.
"""

import time
from collections.abc import Callable
from typing import Final

import pytest

import jobq
from jobq import JobService
from tests.conftest import SOON_S, sleep_soundly
from tests.crash.processes import Pipe, Start, kill_myself
from tests.crash.waiters import PATIENCE_S, asleep, seconds

PRODUCERS: Final = 4
EACH: Final = 50


ROOM: Final[dict[str, Callable[[JobService, str], object]]] = {
    "reserved": lambda svc, _: svc.reserve("mail", timeout=0),
    "canceled": lambda svc, jid: svc.cancel(jid),
    "cap raised": lambda svc, _: svc.configure("mail", max_jobs=2),
    "resumed": lambda svc, _: svc.resume("mail"),
}


@pytest.mark.parametrize("how", ROOM)
def test_a_producer_is_called_by_the_process_that_makes_room(
    how: str, start: Start, path: str
) -> None:
    with jobq.open(path) as svc:
        jid = svc.enqueue("mail")
        if how == "resumed":
            svc.configure("mail", draining=True)
        else:
            svc.configure("mail", max_jobs=1)
        producer = asleep(start(_produce, path))
        since_ns = time.monotonic_ns()
        ROOM[how](svc, jid)

        assert seconds(producer, since_ns) < SOON_S
        assert svc.get(producer.hear()).payload == "late"


def test_producers_of_many_processes_all_get_in(start: Start, path: str) -> None:
    with jobq.open(path, durability="unsafe") as svc:
        svc.configure("mail", max_jobs=3)
        producers = [start(_produce_many, path, number) for number in range(PRODUCERS)]
        got = []
        for job in svc.consume("mail", timeout=PATIENCE_S):
            with job:
                got.append(job.payload)
                if len(got) == PRODUCERS * EACH:
                    break
                assert svc.stats("mail").totals.ready <= 3

        assert [producer.hear() for producer in producers] == ["all in"] * PRODUCERS
        assert sorted(got) == sorted([a, b] for a in range(PRODUCERS) for b in range(EACH))


def test_a_producer_that_is_killed_while_it_waits_leaves_nothing_behind(
    start: Start, path: str
) -> None:
    with jobq.open(path) as svc:
        svc.configure("mail", max_jobs=0)
        killed, other = (asleep(start(_produce, path)) for _ in range(2))
        killed.kill()
        since_ns = time.monotonic_ns()
        svc.configure("mail", max_jobs=5)

        assert seconds(other, since_ns) < SOON_S
        assert [job.id for job in svc.find()] == [other.hear()]


@pytest.mark.parametrize("topic", ["mail", None])
def test_who_drains_is_called_by_the_process_that_ends_the_last_job(
    topic: str | None, start: Start, path: str
) -> None:
    with jobq.open(path) as svc:
        svc.enqueue("mail")
        drainers = [asleep(start(_drain, path, topic)) for _ in range(2)]
        (job,) = svc.reserve("mail")
        since_ns = time.monotonic_ns()
        job.done()

        assert max(seconds(drainer, since_ns) for drainer in drainers) < SOON_S
        assert [drainer.hear() for drainer in drainers] == [True, True]


def test_who_drains_alone_sees_the_end_of_what_dead_processes_held(start: Start, path: str) -> None:
    with jobq.open(path) as svc:
        svc.enqueue("mail", max_crashes=1)
        for _ in range(2):
            start(_reserve_and_die, path).ended()

        assert svc.drain("mail", timeout=PATIENCE_S)


def _produce(pipe: Pipe, path: str) -> None:
    sleep_soundly()
    with jobq.open(path) as svc:
        pipe.send("about to wait")
        pipe.recv()
        jid = svc.enqueue("mail", "late", timeout=None)
        pipe.send(time.monotonic_ns())
        pipe.send(jid)


def _produce_many(pipe: Pipe, path: str, number: int) -> None:
    sleep_soundly()
    with jobq.open(path, durability="unsafe") as svc:
        for each in range(EACH):
            svc.enqueue("mail", [number, each], timeout=None)
        pipe.send("all in")


def _drain(pipe: Pipe, path: str, topic: str | None) -> None:
    sleep_soundly()
    with jobq.open(path) as svc:
        pipe.send("about to wait")
        pipe.recv()
        drained = svc.drain(topic)
        pipe.send(time.monotonic_ns())
        pipe.send(drained)


def _reserve_and_die(_: Pipe, path: str) -> None:
    jobq.open(path).reserve("mail", timeout=PATIENCE_S)
    kill_myself()
