"""Between coroutines and the store: nothing here blocks a loop, and what may is done elsewhere."""

import asyncio
import contextlib
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, Final, TypeVar

from jobq.job import JobRecord, JobSpec, Settlement
from jobq.repo.base import ReserveRequest
from jobq.service.aio.requests import Ask, Awaiting, Enqueue, Extend, Request, Settle
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

    # Writes, merged with those of others.

    async def enqueue(self, specs: Sequence[JobSpec]) -> list[bytes]:
        """Add the jobs, all or none; gives their ids."""
        if not specs:
            return []
        request = Enqueue(asyncio.get_running_loop(), specs)
        ids: list[bytes] = await self._written(request)
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


async def in_thread(verb: Callable[[], T]) -> T:
    """Have a thread of the loop's own make a call, to its end even if this is cancelled."""
    loop = asyncio.get_running_loop()
    return await asyncio.shield(loop.run_in_executor(None, partial(verb)))
