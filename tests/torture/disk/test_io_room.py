"""A map that begins small and grows while several processes are busy in it: nothing is lost."""

import random
import signal
import threading
from pathlib import Path

import pytest

from jobq import JobService
from jobq.repo.lmdb import LmdbStore
from tests.crash.conftest import Say
from tests.crash.processes import Pipe, Start

MIB = 2**20
PATIENCE_S = 300.0


def busy(pipe: Pipe, path: str, seed: int, number: int, grown: int) -> None:
    """Work in a topic of its own until the file is so large; says what is left to be done."""
    dice, topic = random.Random(f"{seed} {number}"), f"of {number}"
    store = LmdbStore(path, durability="unsafe", map_size=MIB, max_size=1024 * MIB)
    left: dict[str, bytes] = {}
    with JobService(store) as svc:
        pipe.send("open")
        pipe.recv()
        while Path(path, "data.mdb").stat().st_size < grown:
            largest = dice.choice((100, 5_000, 60_000))
            payloads = [dice.randbytes(dice.randrange(largest)) for _ in range(dice.randint(1, 20))]
            left |= zip(svc.enqueue_many(topic, payloads), payloads, strict=True)
            for job in svc.reserve(topic, dice.randint(1, 8), timeout=0):
                assert left[job.id] == job.payload
                if dice.random() < 0.3:
                    job.release()
                else:
                    job.done(dice.randbytes(dice.randrange(2_000)))
                    del left[job.id]
            for some in dice.sample(sorted(left), min(2, len(left))):
                assert svc.get(some).payload == left[some]
    pipe.send(left)


def read_meanwhile(pipe: Pipe, path: str, seed: int, number: int, grown: int) -> None:
    """As `busy`, in a process whose other threads read all the while."""
    store = LmdbStore(path, durability="unsafe", map_size=MIB, max_size=1024 * MIB)
    over, reads, wrong = threading.Event(), [0], list[BaseException]()

    def read(svc: JobService, jid: str) -> None:
        try:
            while not over.is_set():
                assert svc.get(jid).payload == b"first"
                assert svc.find(limit=50)
                reads[0] += 1
        except BaseException as error:  # noqa: BLE001 - raised below
            wrong.append(error)

    with JobService(store) as svc:
        jid = svc.enqueue(f"read by {number}", b"first")
        threads = [threading.Thread(target=read, args=(svc, jid)) for _ in range(3)]
        for thread in threads:
            thread.start()
        try:
            busy(pipe, path, seed, number, grown)
        finally:
            over.set()
            for thread in threads:
                thread.join()
        if wrong:
            raise wrong[0]
        assert reads[0]


def come_late(pipe: Pipe, path: str) -> None:
    """Open the queue while it is small, and work only when it has grown by far."""
    store = LmdbStore(path, durability="unsafe", map_size=MIB, max_size=1024 * MIB)
    with JobService(store) as svc:
        first = svc.enqueue("early", b"early")
        pipe.send("open")
        pipe.recv()
        assert svc.get(first).payload == b"early"
        last = svc.enqueue("late", bytes(100_000))
        [early] = svc.reserve("early", timeout=0)
        early.done()
        assert svc.get(last).payload == bytes(100_000)
        pipe.send("done")


def grow(start: Start, path: str, seed: int, processes: int, grown: int) -> int:
    """Let processes fill one queue; gives how many jobs were left, which are all there.

    The first of them has threads that read. Two more have the file open as it was at the beginning;
    one of them is stopped, and both work when it has grown.
    """
    late = [start(come_late, path) for _ in range(2)]
    children = [
        start(busy if number else read_meanwhile, path, seed, number, grown)
        for number in range(processes)
    ]
    for child in (*late, *children):
        assert child.hear() == "open"
    late[0].signal(signal.SIGSTOP)
    for child in children:
        child.tell()
    left = [child.hear(PATIENCE_S) for child in children]
    late[0].signal(signal.SIGCONT)
    for child in late:
        child.tell()
        assert child.hear() == "done"
    with JobService(LmdbStore(path, durability="unsafe", map_size=MIB)) as svc:
        for number, jobs in enumerate(left):
            found = {}
            while batch := svc.reserve(f"of {number}", 500, timeout=0):
                found.update({job.id: job.payload for job in batch})
            assert found == jobs
        assert svc.check().problems == ()
    return sum(map(len, left))


def test_a_map_grows_under_busy_processes(start: Start, path: str, seed: int, say: Say) -> None:
    jobs = grow(start, path, seed, 3, 6 * MIB)
    say(f"a map of 1 MiB, 3 processes, a file of 6 MiB: {jobs} jobs, none lost")


@pytest.mark.storm
@pytest.mark.parametrize("mib", [100] * 2 + [250])
def test_a_map_grows_by_far_under_many_busy_processes(
    mib: int, start: Start, path: str, seed: int, say: Say
) -> None:
    jobs = grow(start, path, seed, 6, mib * MIB)
    say(f"a map of 1 MiB, 6 processes, a file of {mib} MiB: {jobs} jobs, none lost")
