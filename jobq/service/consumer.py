"""The loop over jobs: reserve in batches, settle each block's outcome with the next step."""

import logging
import os
import threading
from collections import deque
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from jobq.errors import JobqError, OutcomeUnknown, ReentrantCall
from jobq.job import Settlement
from jobq.repo.base import ReserveRequest
from jobq.service.job import Job
from jobq.states import Outcome

if TYPE_CHECKING:
    from jobq.service.service import JobService

OnLost = Callable[[Job], None]

_log = logging.getLogger("jobq")


class Consumer:
    """One run of `JobService.consume`.

    The outcome of a block waits here until the loop asks for the next job. Then it is committed,
    together with the next reservation when the batch is empty: one commit a job instead of two.
    It never waits longer than that: it is committed before any waiting, and when the loop ends,
    however it ends. A crash repeats at most the one job whose block has just ended.
    """

    def __init__(
        self,
        service: "JobService",
        request: ReserveRequest,
        *,
        pipeline: bool,
        on_lost: OnLost | None,
    ) -> None:
        self._service = service
        self._request = request
        self._pipeline = pipeline
        self._on_lost = on_lost
        self._batch: deque[Job] = deque()
        self._ended: tuple[Job, Settlement] | None = None
        self._current: Job | None = None
        self._thread = 0
        self._pid = os.getpid()

    def run(self, timeout: float | None) -> Iterator[Job]:
        """Jobs, until the service stops or no job came for *timeout* seconds."""
        service = self._service
        service._consumers.add(self)
        unknown = False
        try:
            while not service.stopped and self._pid == os.getpid():
                if self._batch:
                    self._commit(None)
                elif not self._fill(timeout):
                    return
                try:
                    job = self._current = self._batch.popleft()
                except IndexError:  # closed by another thread
                    return
                self._thread = threading.get_ident()
                job._sink = self
                yield job
                self._let_go(job)
        except OutcomeUnknown:
            unknown = True
            raise
        finally:
            service._consumers.discard(self)
            # Closing has ended it already; and in a fork's child it is the parent's.
            if not service.closed and self._pid == os.getpid():
                try:
                    self.end()
                except ReentrantCall:
                    # Collected as garbage in the middle of another call of this thread.
                    service._keeper.call_soon(self.end)
                except JobqError:
                    # It says that nothing was written, which is not known of what came before.
                    if not unknown:
                        raise

    def _fill(self, timeout: float | None) -> bool:
        """Settle what has ended and reserve the next batch, in one commit if there are jobs."""
        self._commit(self._request)
        if not self._batch:
            self._add(self._service._reserve(self._request, timeout))
        return bool(self._batch)

    def _add(self, jobs: list[Job]) -> None:
        if jobs:
            self._batch.extend(jobs)
            self._service._keeper.watch(jobs)

    def take(self, job: Job, settlement: Settlement) -> bool:
        """What the end of a block offers before it settles: true if it is taken care of.

        Only the job that the loop is at, on the loop's thread: another one's outcome might wait
        here for as long as the loop waits for its next job.
        """
        if self._pid != os.getpid():
            return True  # a fork's child came out of the parent's block: not its job to settle
        if not self._is_at(job):
            return False
        self._ended = (job, settlement)  # the lease is kept until this is committed
        if not self._pipeline:
            self._commit(None)
        return True

    async def atake(self, job: Job, settlement: Settlement) -> bool:
        """`take` for `async with`."""
        return self.take(job, settlement)

    def _is_at(self, job: Job) -> bool:
        return job is self._current and threading.get_ident() == self._thread

    def _commit(self, reserve: ReserveRequest | None) -> None:
        """Settle what has ended, and add to the batch what is reserved in the same commit."""
        if self._ended is None:
            return
        job, settlement = self._ended
        holding = self._service._holding
        (outcome,), _, jobs = holding.settle_and_reserve([job], [settlement], reserve)
        self._ended = None  # only now: after an error it is tried once more at the end
        self._add(jobs)
        self._judge(job, outcome)

    def _judge(self, job: Job, outcome: Outcome) -> None:
        """What became of the job that has ended."""
        self._service._keeper.forget(job)
        if outcome is not Outcome.OK:
            _log.warning("%s", job.lost(outcome), extra={"job_id": job.id, "topic": job.topic})
            if self._on_lost is not None:
                self._on_lost(job)

    def _let_go(self, job: Job) -> None:
        """The loop has moved on: what is still to be said of the job is said by itself."""
        job._sink = None
        self._current = None
        if self._ended is None:
            self._service._keeper.forget(job)

    def end(self) -> None:
        """Settle what has ended, and release what was not begun."""
        if self._current is not None:
            self._let_go(self._current)
        for job in self._batch:
            self._service._keeper.forget(job)
        try:
            self._commit(None)
        finally:
            unstarted = [job for job in self._batch if not job.settled]
            if unstarted:
                self._service._holding.settle(unstarted, [job._release(0) for job in unstarted])
            self._batch.clear()
