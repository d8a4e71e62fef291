"""Threads that enqueue at the same time, so that many verbs share a commit."""

import os
import threading
from collections.abc import Hashable
from pathlib import Path
from typing import Any, Final

from jobq.clock import ManualClock
from jobq.repo.base import Store
from jobq.repo.lmdb import LmdbStore
from jobq.service import JobService
from tests.crash.processes import Pipe
from tests.torture.power.faults import Fault
from tests.torture.power.record import Record
from tests.torture.power.recorder import Recorder
from tests.torture.power.states import Cut
from tests.torture.power.verdict import Kind, Verdict

THREADS: Final = 8
MAKER: Final = 0
"""The strand of the making of the queue; the threads are strands from 1 on."""


class CrowdOracle:
    """Judges the topics of the threads, each by itself."""

    def __init__(self, durability: str) -> None:
        self._durability = durability

    def prepare(self, record: Record, directory: Path) -> None:
        """What has to be there is plain."""

    def open(self, path: Path, cut: Cut) -> Store:  # noqa: ARG002 - an oracle's signature
        """The queue after the machine has booted again."""
        clock = ManualClock()
        clock.reboot()
        self._store = LmdbStore(path, clock=clock, durability=self._durability)
        return self._store

    def nothing_may_be_lost(self, cut: Cut) -> bool:
        """Whether there has to be a queue by now."""
        return MAKER in cut.acked

    def moment(self, cut: Cut) -> Hashable:  # noqa: ARG002 - an oracle's signature
        """Time stands still."""
        return None

    def look(self) -> Any:
        """The payloads of each thread."""
        svc = JobService(self._store)
        return {
            thread: [job.payload for job in svc.find(topic=f"thread {thread}", limit=1000)]
            for thread in range(1, THREADS + 1)
        }

    def judge(self, cut: Cut, seen: Any) -> Verdict:
        """Whether each topic has the first so many jobs of its thread, and enough of them."""
        promised = cut.settled if self._durability == "relaxed" else cut.acked
        for thread, found in seen.items():
            if found != list(range(1, len(found) + 1)) or len(found) > cut.began.get(thread, 0):
                return Verdict(Kind.WRONG, f"jobs {found} of thread {thread}")
            if len(found) < promised.get(thread, 0):
                text = f"{len(found)} jobs of thread {thread}, {promised[thread]} were promised"
                return Verdict(Kind.LOST, text)
        return Verdict(Kind.SOUND)


def act(pipe: Pipe, jobs: int, durability: str, root: Path, fault: Fault) -> None:
    """In a child: let every thread enqueue so many jobs, one after the other."""
    recorder = Recorder(root)
    fault(recorder)
    recorder.began(1, MAKER)
    svc = JobService(LmdbStore(root / "queue", clock=ManualClock(), durability=durability))
    recorder.acked(1, MAKER)
    together = threading.Barrier(THREADS)

    def enqueue(thread: int) -> None:
        together.wait()
        for number in range(1, jobs + 1):
            recorder.began(number, thread)
            svc.enqueue(f"thread {thread}", number)
            recorder.acked(number, thread)

    crew = [threading.Thread(target=enqueue, args=(n,)) for n in range(1, THREADS + 1)]
    for thread in crew:
        thread.start()
    for thread in crew:
        thread.join()
    svc.close()
    pipe.send(recorder.finish())
    os._exit(0)
