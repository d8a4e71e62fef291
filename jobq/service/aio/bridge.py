"""Between coroutines and the store: nothing here blocks a loop, and what may is done elsewhere."""

import asyncio
import contextlib
import threading
import time
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, Final, Self, TypeVar

from jobq.errors import QueueFull
from jobq.job import JobRecord, JobSpec, Settlement
from jobq.repo.base import ReserveRequest
from jobq.service.aio.requests import Ask, Awaiting, Enqueue, Extend, Request, Settle, Watch
from jobq.service.aio.writer import Writer
from jobq.service.holding import Holding
from jobq.service.job import Job
from jobq.states import Outcome

T = TypeVar("T")

CALLERS: Final = 16
"""Threads for the calls that are not merged: reads, and what people do to jobs."""


class Bridge:
    """What the coroutines of one service share, in one process; for any number of loops.

    Args:
        holding: What the service holds, and its way to the store.
    """

    def __init__(self, holding: Holding) -> None:
        self._holding = holding
        self._writer = Writer(holding)
        self._starting = threading.Lock()
        self._callers: ThreadPoolExecutor | None = None
        self._turns: dict[tuple[object, frozenset[str]], Turns] = {}

    @property
    def stopped(self) -> bool:
        """Whether the service was stopped."""
        return self._holding.stopped

    # Writes, merged with those of others.

    async def enqueue(self, specs: Sequence[JobSpec], seconds: float | None) -> list[bytes]:
        """Add the jobs, all or none; gives their ids. Waits so long for room if there is none."""
        if not specs:
            return []
        try:
            return await self._add(specs)
        except QueueFull as error:
            if seconds == 0:
                raise
            refused = error
        topics, store = frozenset(spec.topic for spec in specs), self._holding.store
        async with (
            self.patience(lambda: store.rooms(topics), seconds) as patience,
            self._turn(topics, patience.left) as come,
        ):
            if not come:
                raise refused
            while True:
                try:
                    return await self._add(specs)
                except QueueFull:
                    if not await patience.again():
                        raise

    @contextlib.asynccontextmanager
    async def _turn(self, topics: frozenset[str], seconds: float | None) -> AsyncIterator[bool]:
        """A turn to look for room in these topics; false if it did not come in time.

        One coroutine of a loop looks at a time, in the order of coming. If all looked whenever a
        job goes, each would be refused as often as others get in before it.
        """
        key = asyncio.get_running_loop(), topics
        turns = self._turns.setdefault(key, Turns())
        turns.users += 1
        come = False
        try:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    come = await turns.lock.acquire()
            yield come
        finally:
            if come:
                turns.lock.release()
            turns.users -= 1
            if not turns.users:
                del self._turns[key]

    async def _add(self, specs: Sequence[JobSpec]) -> list[bytes]:
        ids: list[bytes] = await self._written(Enqueue(asyncio.get_running_loop(), specs))
        return ids

    async def extend(self, holds: Sequence[tuple[bytes, int, int]]) -> list[Outcome]:
        """Let leases end so much later; gives outcomes by position."""
        outcomes: list[Outcome] = await self._written(Extend(asyncio.get_running_loop(), holds))
        return outcomes

    async def settle(
        self, jobs: list[Job], settlements: list[Settlement], *, last: bool = False
    ) -> tuple[list[Outcome], list[list[str]]]:
        """Settle; gives outcomes and ids of follow-up jobs by position.

        Args:
            jobs: The jobs.
            settlements: What is said of each.
            last: It is what the end of a block says: carried out even if this is cancelled.
        """
        if not jobs:
            return [], []
        request = Settle(asyncio.get_running_loop(), jobs, settlements, last=last)
        self._writer.submit(request)
        return await self.settled(request)

    async def settled(self, request: Settle) -> tuple[list[Outcome], list[list[str]]]:
        """Wait for a settling that was submitted; gives outcomes and ids of follow-up jobs."""
        answer: tuple[list[Outcome], list[list[str]]] = await self._answer(request)
        return answer

    def submit(self, *requests: Request) -> None:
        """Have the requests carried out together."""
        self._writer.submit(*requests)

    def hand_in(self, request: Settle) -> None:
        """Have jobs settled without waiting for it; from anywhere, a finaliser too."""
        self._writer.hand_in(request)

    async def _written(self, request: Request) -> Any:
        self._writer.submit(request)
        return await self._answer(request)

    async def _answer(self, request: Request) -> Any:
        assert request.future is not None
        try:
            return await request.future
        except BaseException:
            request.leave()
            if not (isinstance(request, Settle) and request.last):
                request.claim()  # withdrawn, unless it is being carried out already
            raise

    # Jobs.

    def ask(self, request: ReserveRequest, seconds: float | None) -> Ask:
        """A request for jobs, to be submitted; then `taken` waits for them."""
        loop = asyncio.get_running_loop()
        return Ask(loop, request, patient=seconds is None or seconds > 0)

    async def reserve(self, request: ReserveRequest, seconds: float | None) -> list[Job]:
        """Up to n jobs of a topic, as soon as there is one; none after so long, or `stop`."""
        if self._holding.stopped:
            return []
        ask = self.ask(request, seconds)
        self._writer.submit(ask)
        return await self.taken(ask, seconds)

    async def taken(self, ask: Ask, seconds: float | None) -> list[Job]:
        """Wait for the jobs of a request that was submitted.

        If this is cancelled, or its loop ends, jobs that were reserved for it are given back.
        """
        assert ask.future is not None
        timer = asyncio.get_running_loop().call_later(seconds, ask.expire) if seconds else None
        try:
            jobs: list[Job] = await ask.future
            return jobs
        except BaseException:
            self.turn_away(ask)
            raise
        finally:
            if timer is not None:
                timer.cancel()

    def turn_away(self, ask: Ask) -> None:
        """Nobody waits for these jobs any more."""
        self.give_back(ask.turn_away())

    def give_back(self, jobs: list[Job]) -> None:
        """Have jobs released that nobody will work on."""
        self._writer.give_back(jobs)

    async def ended(self, job_id: bytes, seconds: float | None) -> JobRecord | None:
        """The record of a job when it has ended; None if that was not in time, or after `stop`.

        Raises:
            JobNotFound: There is none, or it was forgotten meanwhile.
        """
        if self._holding.stopped:
            return None
        loop = asyncio.get_running_loop()
        request = Awaiting(loop, job_id)
        self._writer.submit(request)
        timer = None if seconds is None else loop.call_later(seconds, request.expire)
        try:
            record: JobRecord | None = await self._answer(request)
            return record
        finally:
            if timer is not None:
                timer.cancel()

    def patience(self, signs: Callable[[], list[bytes]], seconds: float | None) -> "AsyncPatience":
        """What a coroutine does between two looks at something; see `service.patience`."""
        return AsyncPatience(self, signs, seconds)

    # All else.

    async def call(self, verb: Callable[[], T]) -> T:
        """Have another thread make a call. Cancelled, it goes on there if it has begun."""
        with self._starting:
            if self._callers is None and not self._holding.closed:
                self._callers = ThreadPoolExecutor(CALLERS, thread_name_prefix="jobq-calls")
            callers = self._callers
        called: asyncio.Future[T] | None = None
        if callers is not None:
            with contextlib.suppress(RuntimeError):  # shut down
                called = asyncio.get_running_loop().run_in_executor(callers, verb)
        # After the end: a closed store refuses at once.
        return verb() if called is None else await called

    # The end.

    def close(self) -> None:
        """Write what was handed in, and end the threads that write and wait."""
        self._writer.close()

    def close_calls(self) -> None:
        """End the threads of `call`; when the store is closed, so that none goes on for long."""
        with self._starting:
            callers = self._callers
        if callers is not None:
            callers.shutdown()


class Turns:
    """The coroutines of one loop that wait for room in the same topics.

    Attributes:
        lock: Held by the one that looks.
        users: How many they are.
    """

    def __init__(self) -> None:
        self.lock = asyncio.Lock()
        self.users = 0


class AsyncPatience:
    """`service.patience.Patience` for coroutines: as long as it is entered, it is told of signs.

    Args:
        bridge: What tells it.
        signs: Gives what is called in `Store.wait_ended`; called in another thread.
        seconds: How long; None until the service is stopped.
    """

    def __init__(
        self, bridge: Bridge, signs: Callable[[], list[bytes]], seconds: float | None
    ) -> None:
        self._bridge = bridge
        self._signs = signs
        self._end = None if seconds is None else time.monotonic() + seconds
        self._watch: Watch | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._watch is not None:
            self._watch.claim()

    @property
    def left(self) -> float | None:
        """Seconds until its time is over; None if it has no end."""
        return None if self._end is None else self._end - time.monotonic()

    async def again(self) -> bool:
        """Whether to look again: after a call, now and then, and at first at once.

        False when the time is over, or the service was stopped.
        """
        left = self.left
        if (left is not None and left <= 0) or self._bridge.stopped:
            return False
        if self._watch is None:
            # Who is told of signs is told at once when they have been asked for.
            signs = await self._bridge.call(self._signs)
            self._watch = Watch(asyncio.get_running_loop(), signs)
            self._bridge.submit(self._watch)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(left):
                await self._watch.called.wait()
        self._watch.called.clear()
        if self._watch.failed:
            raise self._watch.value
        return not self._bridge.stopped


async def in_thread(verb: Callable[[], T]) -> T:
    """Have a thread of the loop's own make a call, to its end even if this is cancelled."""
    loop = asyncio.get_running_loop()
    return await asyncio.shield(loop.run_in_executor(None, partial(verb)))
