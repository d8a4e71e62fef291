"""The loop over jobs for coroutines: `async for job in svc.aconsume("mail")`."""

import asyncio
import contextlib
import logging
import os
import threading
from collections.abc import AsyncIterator
from functools import partial
from typing import TYPE_CHECKING, Self

from jobq.errors import JobqError, OutcomeUnknown
from jobq.job import Settlement
from jobq.repo.base import ReserveRequest
from jobq.service.aio.requests import Loop, Settle
from jobq.service.consumer import Consumer, OnLost
from jobq.service.job import Job
from jobq.states import Outcome

if TYPE_CHECKING:
    from jobq.service.aio.bridge import Bridge
    from jobq.service.service import JobService

_log = logging.getLogger("jobq")


class AsyncJobs(AsyncIterator[Job]):
    """Jobs one after the other, for `async for`; see `JobService.aconsume`.

    Not an asynchronous generator, which nobody can finish in the middle of a loop that ends: when
    the last reference to it goes, at `break` for one, what is to be said of its jobs is handed to
    the service's own thread. `aclose` waits until that is written.
    """

    def __init__(self, consumer: "AsyncConsumer") -> None:
        self._consumer = consumer

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Job:
        """The next job.

        It can be cancelled, by `asyncio.wait_for` for one, and asked for again.

        Raises:
            RuntimeError: Another task is waiting for the next job of this very loop.
        """
        job = await self._consumer.next()
        if job is None:
            raise StopAsyncIteration
        return job

    async def aclose(self) -> None:
        """End the loop: commit what has ended, release what was not begun. Twice is harmless."""
        await self._consumer.finish()

    def __del__(self) -> None:
        self._consumer.end()


class AsyncConsumer(Consumer):
    """One run of `JobService.aconsume`."""

    def __init__(
        self,
        service: "JobService",
        bridge: "Bridge",
        request: ReserveRequest,
        *,
        timeout: float | None,
        pipeline: bool,
        on_lost: OnLost | None,
    ) -> None:
        super().__init__(service, request, pipeline=pipeline, on_lost=on_lost)
        self._bridge = bridge
        self._timeout = timeout
        self._loop: Loop | None = None
        self._asking = False
        self._over = False

    # The loop.

    async def next(self) -> Job | None:
        """The next job; None at the end."""
        if self._asking:
            raise RuntimeError("another task is waiting for the next job of this loop")
        self._asking = True
        try:
            job = await self._next()
            if job is None:
                await self.finish()
            return job
        except asyncio.CancelledError:
            raise  # it may be asked again
        except OutcomeUnknown:
            with contextlib.suppress(JobqError):  # as `Consumer.run` has it
                await self.finish()
            raise
        except Exception:
            await self.finish()
            raise
        finally:
            self._asking = False

    async def _next(self) -> Job | None:
        service = self._service
        if self._current is not None:
            self._let_go(self._current)
        if self._over or service.stopped or self._pid != os.getpid():
            return None
        service._consumers.add(self)
        self._loop, self._thread = asyncio.get_running_loop(), threading.get_ident()
        if self._batch:
            await self._settle()
        else:
            jobs = await self._settle_and_reserve(self._loop)
            if service.closed:  # meanwhile: it has been said what becomes of the jobs
                return None
            self._add(jobs)
        try:
            job = self._current = self._batch.popleft()
        except IndexError:  # none came, or it was closed meanwhile
            return None
        job._sink = self
        return job

    async def _settle_and_reserve(self, loop: Loop) -> list[Job]:
        """Settle what has ended and reserve the next batch, in one commit if there are jobs."""
        if self._ended is None:
            return await self._bridge.reserve(self._request, self._timeout)
        settle, ask = self._ending(loop), self._bridge.ask(self._request, self._timeout)
        self._bridge.submit(settle, ask)
        try:
            await self._committed(settle)
        except BaseException:
            self._bridge.turn_away(ask)
            raise
        return await self._bridge.taken(ask, self._timeout)

    # Outcomes.

    async def atake(self, job: Job, settlement: Settlement) -> bool:
        """`take` for `async with`; in its loop."""
        if self._pid != os.getpid():
            return True  # a fork's child came out of the parent's block: not its job to settle
        if not self._is_at(job):
            return False
        self._ended = (job, settlement)  # the lease is kept until this is committed
        if not self._pipeline:
            await self._settle()
        return True

    async def _settle(self) -> None:
        """Settle what has ended, if something has."""
        if self._ended is not None:
            settle = self._ending(asyncio.get_running_loop())
            self._bridge.submit(settle)
            await self._committed(settle)

    def _ending(self, loop: Loop) -> Settle:
        assert self._ended is not None
        job, settlement = self._ended
        return Settle(loop, [job], [settlement], last=True)

    async def _committed(self, settle: Settle) -> None:
        (outcome,), _ = await self._bridge.settled(settle)
        (job,) = settle.held
        self._ended = None  # only now: after an error it is tried once more at the end
        self._judge(job, outcome)

    # The end.

    def end(self) -> None:
        """Have settled what has ended, and released what was not begun; without waiting for it.

        From any thread and anywhere: in a finaliser, and when the service closes.
        """
        settle = self._last_words(None)
        if settle is not None:
            self._bridge.hand_in(settle)

    async def finish(self) -> None:
        """`end`, and wait for it. Cancelled, it goes on all the same."""
        settle = self._last_words(asyncio.get_running_loop())
        if settle is not None:
            self._bridge.submit(settle)
            await self._bridge.settled(settle)

    def _last_words(self, loop: Loop | None) -> Settle | None:
        """What is to be said of the jobs at the end, once."""
        self._over = True
        self._service._consumers.discard(self)
        if self._pid != os.getpid():
            return None  # the jobs are the parent's
        if self._current is not None:
            self._let_go(self._current)
        unstarted = [job for job in list(self._batch) if not job.settled]
        self._batch.clear()
        for job in unstarted:
            self._service._keeper.forget(job)
        release = [job._release(0) for job in unstarted]
        if self._ended is None:
            return Settle(loop, unstarted, release, last=True) if unstarted else None
        (job, settlement), self._ended = self._ended, None
        return Settle(
            loop,
            [job, *unstarted],
            [settlement, *release],
            last=True,
            then=partial(self._ended_by_last_words, job),
        )

    def _ended_by_last_words(self, job: Job, outcomes: list[Outcome] | Exception) -> None:
        """What became of the last block's job; in the thread that wrote it."""
        if isinstance(outcomes, Exception):
            self._service._keeper.forget(job)
            _log.warning("job %s was not settled: %s", job.id, outcomes)
        elif self._loop is None or outcomes[0] is Outcome.OK:
            self._judge(job, outcomes[0])
        else:
            # What the user gave to be called is called in the loop, if there still is one.
            with contextlib.suppress(RuntimeError):
                self._loop.call_soon_threadsafe(self._judge, job, outcomes[0])
