"""The twins of all verbs for coroutines, `a` + verb: never blocking the loop.

They do the same as the verbs, with the same arguments, promises and errors. What many coroutines
write at the same time is one commit. `jobq.service.aio` does it, and is imported at the first
call: `import jobq` does not load asyncio.

Cancelling a coroutine that writes withdraws what it was about to write, unless that was on its
way to the store already: then it stands. Cancelling one that reserves never loses a job: what
was reserved for it goes to the next who asks, or is released.
"""

import os
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from datetime import datetime
from itertools import islice
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Self, Unpack, cast, overload

from jobq import ids
from jobq.errors import JobqError
from jobq.job import KEEP, JobRecord, Settlement
from jobq.options import OptionArgs, flag, several
from jobq.repo.base import CheckReport
from jobq.service.batch import Gathering, NewJob
from jobq.service.filters import Filters
from jobq.service.specs import Delay
from jobq.shares import Topics
from jobq.states import Outcome, Reason, Status

if TYPE_CHECKING:
    from collections.abc import Callable
    from os import PathLike

    from jobq.repo.base import Copied, CopyProgress
    from jobq.service.aio import AsyncJobs, Bridge
    from jobq.service.consumer import OnLost
    from jobq.service.holding import Holding
    from jobq.service.job import Job
    from jobq.service.service import JobService
    from jobq.service.transfer import Imported

PAGE: Final = 200
"""Jobs of an export that are read at a time."""


def bridge_of(holding: "Holding") -> "Bridge":
    """What the coroutines of a service share in this process; made at the first call."""
    bridge = holding.bridges.get(os.getpid())
    if bridge is None:
        from jobq.service.aio import Bridge

        bridge = holding.bridges.setdefault(os.getpid(), Bridge(holding))
    return bridge


class AsyncBatch(Gathering):
    """Jobs of any topics that are enqueued in one commit when the `async with` block ends.

    All of them or none: an exception in the block, or one in the commit, leaves nothing behind.

    Attributes:
        ids: After the block: the ids, in the order of the calls.
    """

    def __init__(self, holding: "Holding", seconds: float | None) -> None:
        super().__init__(holding.maker, "async with svc.abatch() as batch:")
        self._holding = holding
        self._seconds = seconds

    async def __aenter__(self) -> Self:
        self._begin()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._ended = True
        if kind is None and self._specs:
            added = await bridge_of(self._holding).enqueue(self._specs, self._seconds)
            self.ids: list[str] = [ids.to_text(raw) for raw in added]


class Twins:
    """What the verbs for coroutines work with."""

    @property
    def _service(self) -> "JobService":
        return cast("JobService", self)

    @property
    def _bridge(self) -> "Bridge":
        return bridge_of(self._service._holding)


class AsyncVerbs(Twins):
    """The verbs of `JobService` for coroutines; those on topics and limits are elsewhere."""

    # Jobs in.

    async def aenqueue(
        self,
        topic: str,
        payload: Any = None,
        *,
        weight: int = 0,
        delay: Delay | None = None,
        timeout: float | None = 0,  # noqa: ASYNC109 - as for `enqueue`: it ends with QueueFull
        **options: Unpack[OptionArgs],
    ) -> str:
        """`enqueue` for coroutines: add a job and give its id."""
        service = self._service
        spec = service._maker.one(topic, payload, weight, delay, options)
        limit = service._timeout(timeout)
        return ids.to_text((await self._bridge.enqueue([spec], limit))[0])

    async def aenqueue_many(
        self,
        topic: str,
        payloads: Iterable[Any],
        *,
        weight: int = 0,
        delay: Delay | None = None,
        timeout: float | None = 0,  # noqa: ASYNC109 - as for `enqueue`: it ends with QueueFull
        **options: Unpack[OptionArgs],
    ) -> list[str]:
        """`enqueue_many` for coroutines: a job for each payload, all or none."""
        service = self._service
        specs = service._specs(topic, payloads, weight, delay, options)
        limit = service._timeout(timeout)
        return [ids.to_text(raw) for raw in await self._bridge.enqueue(specs, limit)]

    def abatch(self, *, timeout: float | None = 0) -> AsyncBatch:
        """`batch` for coroutines: `async with svc.abatch() as b: b.enqueue(…)`."""
        return AsyncBatch(self._service._holding, self._service._timeout(timeout))

    # Jobs out.

    async def areserve(
        self,
        topics: Topics,
        n: int = 1,
        *,
        strict: bool = False,
        timeout: float | None = None,  # noqa: ASYNC109 - as for `reserve`: it ends with no jobs
    ) -> list["Job"]:
        """`reserve` for coroutines: up to *n* ready jobs, as soon as there is one.

        A thread waits for all coroutines that want jobs of the topic, or of the same topics in the
        same shares; they are served in the order in which they came. If this one is cancelled,
        what it was about to get is given to the next one, or released.
        """
        service = self._service
        request, wait = service._request(topics, n, strict), service._timeout(timeout)
        return await self._bridge.reserve(request, wait)

    def aconsume(
        self,
        topics: Topics,
        n: int = 1,
        *,
        strict: bool = False,
        timeout: float | None = None,
        pipeline: bool = True,
        on_lost: "OnLost | None" = None,
    ) -> "AsyncJobs":
        """`consume` for coroutines: `async for job in svc.aconsume("mail"): async with job: …`.

        The leases of the job that the loop is at, however long that takes, and of those that it
        has not begun are extended. One that is left unsettled when the loop goes on, as for
        another task, is held until its own lease is over. A block's outcome is committed when the
        loop asks for the next job (in the same commit as the next reservation, when one is
        needed), before any waiting, and when the loop ends, by `break`, an exception,
        cancellation, `stop` or `close`. Jobs that were reserved and not begun are released then. A
        loop that is left by `break` does not wait for that: use
        `contextlib.aclosing(svc.aconsume(…))` to wait.

        Args:
            topics: A topic's name, or several topics as for `reserve`.
            n: How many jobs are reserved at once, 1 to 10 000.
            strict: Drain the first topic before the second, as for `reserve`.
            timeout: End when no job came for so many seconds; None goes on until `stop`.
            pipeline: False commits each block's outcome when the block ends.
            on_lost: Called in the loop's thread with a job whose reservation was found lost when
                its outcome was to be committed; that is logged too.

        Raises:
            InvalidValue: An argument is wrong.
        """
        from jobq.service.aio import AsyncConsumer, AsyncJobs

        service = self._service
        request, wait = service._request(topics, n, strict), service._timeout(timeout)
        service._check_on_lost(on_lost)
        at_once = flag("pipeline", pipeline)
        consumer = AsyncConsumer(
            service, self._bridge, request, timeout=wait, pipeline=at_once, on_lost=on_lost
        )
        return AsyncJobs(consumer)

    async def adone_many(
        self, jobs: "Iterable[Job]", results: Sequence[Any] | None = None
    ) -> list[Outcome]:
        """`done_many` for coroutines: each job succeeded; outcomes by position."""
        held, settlements = self._service._all_done(jobs, results)
        return (await self._bridge.settle(held, settlements))[0]

    async def aretry_many(
        self,
        jobs: "Iterable[Job]",
        *,
        delay: Delay | None = None,
        error: str | BaseException | None = None,
    ) -> list[Outcome]:
        """`retry_many` for coroutines: each job failed; outcomes by position."""
        held, settlements = self._service._all_retried(jobs, delay, error)
        return (await self._bridge.settle(held, settlements))[0]

    async def arelease_many(self, jobs: "Iterable[Job]", *, delay: Delay = 0) -> list[Outcome]:
        """`release_many` for coroutines: give the jobs back untried; outcomes by position."""
        held, settlements = self._service._all_released(jobs, delay)
        return (await self._bridge.settle(held, settlements))[0]

    # What is known.

    async def astatus(self, job_id: str) -> Status:
        """`status` for coroutines."""
        return await self._bridge.call(lambda: self._service.status(job_id))

    @overload
    async def aget(self, job_id: str) -> JobRecord: ...
    @overload
    async def aget(self, *, unique: str) -> JobRecord: ...
    async def aget(self, job_id: str | None = None, *, unique: str | None = None) -> JobRecord:
        """`get` for coroutines: all that is known of the job."""
        get: Any = self._service.get
        record: JobRecord = await self._bridge.call(lambda: get(job_id, unique=unique))
        return record

    async def await_job(
        self,
        job_id: str,
        timeout: float | None = None,  # noqa: ASYNC109 - as for `wait`
    ) -> JobRecord:
        """`wait` for coroutines: the record of the job when it is done or canceled.

        One thread waits for all jobs that coroutines of the service wait for.

        Raises:
            TimeoutError: The time is over; the job goes on.
            JobNotFound: No job has this id, or it was forgotten meanwhile.
            StoreUnavailable: The service was stopped or closed, and the job is not finished.
            InvalidValue: An argument is wrong.
        """
        service = self._service
        raw, limit = ids.to_raw(job_id), service._timeout(timeout)
        record: JobRecord | None = None
        while record is None:
            if limit != 0:
                record = await self._bridge.ended(raw, limit)
            if record is None:
                record = await self._bridge.call(lambda: service._ended(job_id, limit))
        return record

    async def afind(
        self, *, after: str | None = None, limit: int = 100, **filters: Unpack[Filters]
    ) -> list[JobRecord]:
        """`find` for coroutines: the first *limit* jobs that match.

        `select` needs no twin: it reads nothing, and what it gives has verbs for coroutines
        (`await svc.select(dead=True).areset(rate=50)`).
        """
        return await self._bridge.call(
            lambda: self._service.find(after=after, limit=limit, **filters)
        )

    async def amatch(self, part: str, *, limit: int = 2) -> list[str]:
        """`match` for coroutines: the first *limit* ids that have *part* in them."""
        return await self._bridge.call(lambda: self._service.match(part, limit=limit))

    async def acheck(self, *, repair: bool = False) -> CheckReport:
        """`check` for coroutines: compare every job with every index and counter."""
        return await self._bridge.call(lambda: self._service.check(repair=repair))

    # What anybody may do to a job.

    @overload
    async def acancel(self, job_ids: str, *, error: str | None = None) -> None: ...  # type: ignore[overload-overlap] # a str is one id
    @overload
    async def acancel(
        self, job_ids: Iterable[str], *, error: str | None = None
    ) -> list[Outcome]: ...
    async def acancel(
        self, job_ids: str | Iterable[str], *, error: str | None = None
    ) -> list[Outcome] | None:
        """`cancel` for coroutines: one id raises, several give outcomes."""
        given = _given(job_ids)
        return await self._bridge.call(lambda: self._service.cancel(given, error=error))

    @overload
    async def areset(  # type: ignore[overload-overlap] # a str is one id
        self, job_ids: str, *, deadline: datetime | None = None, ttl: float | None = None
    ) -> None: ...
    @overload
    async def areset(
        self, job_ids: Iterable[str], *, deadline: datetime | None = None, ttl: float | None = None
    ) -> list[Outcome]: ...
    async def areset(
        self,
        job_ids: str | Iterable[str],
        *,
        deadline: datetime | None = None,
        ttl: float | None = None,
    ) -> list[Outcome] | None:
        """`reset` for coroutines: one id raises, several give outcomes."""
        given = _given(job_ids)
        return await self._bridge.call(
            lambda: self._service.reset(given, deadline=deadline, ttl=ttl)
        )

    @overload
    async def adelete(self, job_ids: str) -> None: ...  # type: ignore[overload-overlap] # a str is one id
    @overload
    async def adelete(self, job_ids: Iterable[str]) -> list[Outcome]: ...
    async def adelete(self, job_ids: str | Iterable[str]) -> list[Outcome] | None:
        """`delete` for coroutines: one id raises, several give outcomes."""
        given = _given(job_ids)
        return await self._bridge.call(lambda: self._service.delete(given))

    @overload
    async def aedit(  # type: ignore[overload-overlap] # a str is one id
        self,
        job_ids: str,
        *,
        topic: str | None = None,
        weight: int | None = None,
        delay: Delay | None = None,
        payload: Any = KEEP,
        **options: Unpack[OptionArgs],
    ) -> None: ...
    @overload
    async def aedit(
        self,
        job_ids: Iterable[str],
        *,
        topic: str | None = None,
        weight: int | None = None,
        delay: Delay | None = None,
        payload: Any = KEEP,
        **options: Unpack[OptionArgs],
    ) -> list[Outcome]: ...
    async def aedit(
        self,
        job_ids: str | Iterable[str],
        *,
        topic: str | None = None,
        weight: int | None = None,
        delay: Delay | None = None,
        payload: Any = KEEP,
        **options: Unpack[OptionArgs],
    ) -> list[Outcome] | None:
        """`edit` for coroutines: change jobs that wait; one id raises, several give outcomes."""
        service, given = self._service, _given(job_ids)
        change = service._maker.change(topic, weight, delay, payload, options)
        return await self._bridge.call(lambda: service._edit(given, change))

    async def apurge(self, topic: str, status: Status | str | None = None) -> int:
        """`purge` for coroutines: forget the jobs of a topic that wait, or are in *status*."""
        return await self._bridge.call(lambda: self._service.purge(topic, status))

    async def aprune(self) -> int:
        """`prune` for coroutines: forget all finished jobs whose retention is over."""
        return await self._bridge.call(self._service.prune)

    # To another queue, or another format.

    async def aexport_jobs(self) -> AsyncIterator[dict[str, Any]]:
        """`export_jobs` for coroutines: all jobs, one after another; 200 are read at a time."""
        lines = self._service.export_jobs()
        while page := await self._bridge.call(lambda: list(islice(lines, PAGE))):
            for line in page:
                yield line

    async def abackup(
        self,
        path: "str | PathLike[str]",
        progress: "Callable[[CopyProgress], object] | None" = None,
    ) -> "Copied":
        """`backup` for coroutines. *progress* is called in another thread."""
        return await self._bridge.call(lambda: self._service.backup(path, progress))

    async def aimport_jobs(self, lines: Iterable[Mapping[str, Any]]) -> "Imported":
        """`import_jobs` for coroutines: add what `export_jobs` gave.

        The lines are read in another thread.
        """
        return await self._bridge.call(lambda: self._service.import_jobs(lines))

    # The end.

    async def aclose(self) -> None:
        """`close` for coroutines. Cancelled, it goes on in its thread."""
        from jobq.service.aio.bridge import in_thread

        # Before a thread is asked for: all that the loop has may be waiting in `reserve`.
        self._service._reserve_no_more()
        await in_thread(self._service.close)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()


class AsyncJob:
    """What the holder of a job says of it, for coroutines."""

    __slots__ = ()

    async def adone(self, result: Any = None, then: Iterable[NewJob] = ()) -> list[str]:
        """`done` for coroutines: it succeeded. Gives the ids of the follow-up jobs."""
        return await self._asettle(self._job._done(result, several("then", then, "jobq.NewJob(…)")))

    async def aretry(
        self, delay: Delay | None = None, error: str | BaseException | None = None
    ) -> None:
        """`retry` for coroutines: it failed; try it again later, or give it up."""
        await self._asettle(self._job._retry(delay, error))

    async def arelease(self, delay: Delay = 0) -> None:
        """`release` for coroutines: give it back as if it had not been tried."""
        await self._asettle(self._job._release(delay))

    async def acancel(
        self,
        reason: str | Reason = Reason.CANCELED,
        error: str | BaseException | None = None,
    ) -> None:
        """`cancel` for coroutines: end it without success and without another try."""
        await self._asettle(self._job._cancel(reason, error))

    async def aextend(self, seconds: float) -> None:
        """`extend` for coroutines: let the reservation last this many seconds from now."""
        job = self._job
        (outcome,) = await bridge_of(job._holding).extend([job._extension(seconds)])
        if outcome is not Outcome.OK:
            raise job.lost(outcome)

    async def acanceled(self) -> bool:
        """`canceled` for coroutines: whether it was canceled or lost while one works on it."""
        job = self._job
        return await bridge_of(job._holding).call(lambda: job.canceled)

    # As a context manager.

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool:
        """As the end of `with job:`. What it says is carried out even if this is cancelled."""
        job = self._job
        if job._settled is None:
            try:
                settlement = job._outcome(error)
                if job._sink is None or not await job._sink.atake(job, settlement):
                    await self._asettle(settlement, last=True)
            except JobqError:
                if error is None or isinstance(error, Exception):
                    raise
                job._was_not_given_back()
        return job._has_failed(error)

    async def _asettle(self, settlement: Settlement, *, last: bool = False) -> list[str]:
        job = self._job
        bridge = bridge_of(job._holding)
        outcomes, follow_ids = await bridge.settle([job], [settlement], last=last)
        if outcomes[0] is not Outcome.OK:
            raise job.lost(outcomes[0])
        return follow_ids[0]

    @property
    def _job(self) -> "Job":
        return cast("Job", self)


def _given(job_ids: str | Iterable[str]) -> Any:
    """The ids, read here: an iterator of the caller's is not to run in another thread."""
    return job_ids if isinstance(job_ids, str) else several("job_ids", job_ids, "ids")
