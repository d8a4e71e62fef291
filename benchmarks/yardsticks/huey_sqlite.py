"""huey on SQLite: a task queue that many would pick, as its documentation says, with `fsync=True`.

Two yardsticks: `HueyStorage` is its storage alone, bytes in and bytes out; `HueyTasks` is what its
users see, a decorated function and a worker of its consumer that calls it.

What it does less than jobq: taking a task deletes it. There is no reservation, so nothing has to be
finished, and a life is two commits where others have three; a worker that is killed takes its task
with it, whatever `retries` says. A finished task leaves nothing behind unless it returned
something. There are no leases, no tokens and no wake-up: a worker that found nothing sleeps 0.1 to
10 s. It has no batches: each task is a commit. What it has too and is not used here: a schedule,
retries after an exception, priorities, results, locks.

`fsync=True` is `PRAGMA synchronous = FULL`, over WAL, its default: a task is on disk when
`enqueue` returns. One connection serves all threads of a process, behind a lock.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple, Protocol

import huey

from benchmarks.yardsticks.parts import Payload, decode, encode

NAME: Final = "work"


class Storage(Protocol):
    """What is used of `huey.SqliteHuey(…).storage`."""

    def enqueue(self, data: bytes, priority: float | None = ...) -> None: ...
    def dequeue(self) -> bytes | None: ...
    def queue_size(self) -> int: ...
    def close(self) -> bool: ...


class HueyJob(NamedTuple):
    payload: Payload


class HueyStorage:
    """The storage in the directory *path*, with the benchmarks' codec; for all threads."""

    def __init__(self, path: Path) -> None:
        self._storage: Storage = _open(path).storage

    def enqueue_many(self, payloads: Sequence[Payload]) -> list[None]:
        """Each in a commit of its own."""
        for payload in payloads:
            self._storage.enqueue(encode(payload))
        return [None] * len(payloads)

    def reserve(self, n: int) -> list[HueyJob]:
        """Taken for good: each in a commit of its own."""
        jobs: list[HueyJob] = []
        while len(jobs) < n and (packed := self._storage.dequeue()) is not None:
            jobs.append(HueyJob(decode(packed)))
        return jobs

    def payload(self, job: HueyJob) -> Payload:
        return job.payload

    def done_many(self, jobs: Sequence[HueyJob]) -> int:
        """Nothing is left to do: who took a task has finished it, as far as huey knows."""
        return len(jobs)

    def waiting(self) -> int:
        return self._storage.queue_size()

    def close(self) -> None:
        self._storage.close()


class HueyTasks:
    """A task and a consumer's worker, in one process; `handle` is called with each payload.

    The worker's `loop` is what its thread runs until it is stopped: dequeue, look whether the task
    is revoked, run it, forget a revocation. Here the caller runs it, in its own thread, and there
    is no scheduler beside it, which would look at the schedule once a second.
    """

    def __init__(self, path: Path, handle: Callable[[Payload], None]) -> None:
        self._huey = _open(path)
        self._task = self._huey.task()(handle)
        consumer = self._huey.create_consumer(workers=1, periodic=False)
        ((self._worker, _thread),) = consumer.worker_threads

    def enqueue(self, payload: Payload) -> None:
        """Call the decorated function: huey packs the call with pickle and puts it on disk."""
        self._task(payload)

    def work(self, count: int) -> None:
        """Let the worker go round so many times: a task each while there are any."""
        for _ in range(count):
            self._worker.loop()

    def waiting(self) -> int:
        """How many tasks are on disk."""
        size: int = self._huey.storage.queue_size()
        return size

    def close(self) -> None:
        self._huey.storage.close()


def _open(path: Path) -> Any:
    path.mkdir(parents=True, exist_ok=True)
    return huey.SqliteHuey(NAME, filename=str(path / "huey.db"), fsync=True)
