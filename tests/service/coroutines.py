"""What the tests of the asynchronous verbs share."""

import asyncio
import fcntl
import os
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Self, TypeVar

from jobq import JobService, Status
from jobq.repo.base import Store
from jobq.repo.lmdb import LmdbStore
from jobq.repo.memory import MemoryStore
from tests.conftest import DEADLINE_S
from tests.repo.test_contract_threads import asleep

T = TypeVar("T")

SHORT_S = 0.001


def run(main: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine in a loop of its own; it fails if it takes too long."""

    async def bounded() -> T:
        async with asyncio.timeout(2 * DEADLINE_S):
            return await main

    return asyncio.run(bounded())


def counts(svc: JobService, topic: str | None = None) -> dict[str, int]:
    """How many jobs are in each state, without the states that have none."""
    totals = svc.stats(topic).totals
    return {status.value: n for status in Status if (n := totals.of(status))}


async def until(fact: Callable[[], object]) -> None:
    """Wait until *fact* holds, while the loop goes on."""
    async with asyncio.timeout(DEADLINE_S):
        while not fact():  # noqa: ASYNC110 - of what other threads and processes do, too
            await asyncio.sleep(SHORT_S)


async def ticks(loops: int = 20) -> None:
    """Let the loop go round so often."""
    for _ in range(loops):
        await asyncio.sleep(0)


async def cancel(task: asyncio.Task[Any]) -> None:
    """Cancel a task, and wait until it has ended."""
    task.cancel()
    await asyncio.wait([task])


async def at_the_gate(svc: JobService) -> None:
    """Wait until the thread that writes for coroutines has taken what was handed in so far.

    While `NobodyWrites`, it waits with that in the store.
    """
    writer = svc._holding.bridges[os.getpid()]._writer
    thread = writer._thread
    assert thread is not None
    await until(lambda: writer._queue.empty() and asleep(thread))


class NobodyWrites:
    """While this is entered, every write of the store has to wait, as for another process."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._fd = -1

    def __enter__(self) -> Self:
        if isinstance(self._store, MemoryStore):
            assert self._store._lock.acquire(timeout=DEADLINE_S)
        elif isinstance(self._store, LmdbStore):
            self._fd = os.open(self._store._env.path / "write.lock", os.O_RDWR)
            fcntl.flock(self._fd, fcntl.LOCK_EX)
        return self

    def end(self) -> None:
        """Let them write; twice is harmless."""
        if isinstance(self._store, MemoryStore):
            if self._store._lock.locked():
                self._store._lock.release()
        elif self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def __exit__(self, *_: object) -> None:
        self.end()


async def not_blocked(work: Awaitable[T], gate: NobodyWrites) -> T:
    """Await *work*, which needs the gate: the loop goes round while it waits there."""
    task = asyncio.ensure_future(work)
    for _ in range(30):
        await asyncio.sleep(SHORT_S)
    assert not task.done()
    gate.end()
    return await task


def commits(store: Store) -> int:
    """How many transactions were committed to the file so far."""
    assert isinstance(store, LmdbStore)
    assert store._env._file.env is not None
    return int(store._env._file.env.info()["last_txnid"])
