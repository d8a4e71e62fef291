"""A process that keeps a queue busy until it ends: `python -m tests.cli.crowd PATH ROLE`."""

import contextlib
import random
import signal
import sys
import time
from collections.abc import Callable
from types import FrameType

import jobq
from jobq import JobService

TOPICS = ("crowd", "mail", "手紙")
MOST_WAITING = 500
PAUSE_S = 0.02
"""Between two calls: the crowd keeps the write lock in demand and leaves time for others."""


def enqueue(svc: JobService, pick: random.Random) -> None:
    """Enqueue some jobs, as long as there are not too many."""
    if svc.stats().totals.unfinished < MOST_WAITING:
        topic = pick.choice(TOPICS)
        svc.enqueue_many(topic, [{"n": pick.random()}] * pick.randrange(1, 20), name="crowd")
        svc.enqueue(topic, "later", delay=pick.random())


def work(svc: JobService, pick: random.Random) -> None:
    """Reserve some jobs and end them in all ways that there are."""
    for job in svc.reserve(pick.choice(TOPICS), pick.randrange(1, 30), timeout=0):
        job.log("seen")
        with contextlib.suppress(jobq.ReservationLost):
            ends: list[Callable[[], object]] = [job.done, job.retry, job.release, job.cancel]
            pick.choice(ends)()


def meddle(svc: JobService, pick: random.Random) -> None:
    """Do to jobs what anybody may do."""
    ids = [job.id for job in svc.find(limit=50, topic=pick.choice(TOPICS))]
    verbs: list[Callable[[list[str]], object]] = [svc.cancel, svc.reset, svc.delete]
    pick.choice(verbs)(ids)


def main(path: str, role: str) -> None:
    """Do one of these until SIGTERM."""
    going = True

    def end(_: int, __: FrameType | None) -> None:
        nonlocal going
        going = False

    signal.signal(signal.SIGTERM, end)
    pick = random.Random(role)
    with jobq.open(path, durability="unsafe", create=False, min_backoff=0.01) as svc:
        print("at work", flush=True)
        rounds = 0
        while going:
            {"enqueue": enqueue, "work": work, "meddle": meddle}[role](svc, pick)
            rounds += 1
            time.sleep(PAUSE_S)
    print(rounds)


if __name__ == "__main__":
    main(*sys.argv[1:])
