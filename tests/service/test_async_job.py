"""`async with job:` outside of aconsume: what each way out of the block makes of the job."""

import asyncio
import logging
from collections.abc import Awaitable, Callable

import pytest

from jobq import Job, JobService, Status
from jobq.clock import ManualClock
from jobq.errors import ReservationLost
from tests.service.coroutines import NobodyWrites, at_the_gate, cancel, counts, run, ticks, until


class Mine(BaseException):
    """Neither an Exception nor one of the interrupts that Python knows."""


@pytest.fixture
def job(svc: JobService) -> Job:
    svc.enqueue("mail", {"n": 1})
    (job,) = svc.reserve("mail", timeout=0)
    return job


async def fail(job: Job, error: BaseException) -> None:
    async with job:
        raise error


def test_a_clean_end_is_done_and_durable(svc: JobService, job: Job) -> None:
    async def main() -> None:
        async with job as same:
            assert same is job
            assert svc.status(job.id) is Status.RESERVED
        assert svc.status(job.id) is Status.DONE
        assert job.settled

    run(main())


@pytest.mark.parametrize(
    "error", [ValueError("x"), TimeoutError(), ExceptionGroup("two", [OSError(), KeyError()])]
)
def test_an_exception_is_a_retry_with_its_traceback_and_goes_no_further(
    svc: JobService, job: Job, error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, "jobq"):
        run(fail(job, error))
    record = svc.get(job.id)

    assert (record.status, record.retries) == (Status.DELAYED, 1)
    assert type(error).__name__ in (record.error or "")
    assert job.id in caplog.text


@pytest.mark.parametrize("error", [asyncio.CancelledError, GeneratorExit])
def test_an_interrupt_releases_the_job_untried_and_goes_on(
    svc: JobService, job: Job, error: type[BaseException]
) -> None:
    async def main() -> None:
        with pytest.raises(error):
            await fail(job, error())

    run(main())
    record = svc.get(job.id)
    assert (record.status, record.attempt, record.error) == (Status.READY, 0, None)


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_what_ends_the_loop_at_once_ends_the_block_as_well(
    svc: JobService, job: Job, error: type[BaseException]
) -> None:
    with pytest.raises(error):
        run(fail(job, error()))

    assert (svc.get(job.id).status, svc.get(job.id).attempt) == (Status.READY, 0)


def test_a_base_exception_of_ones_own_is_a_retry_and_goes_on(svc: JobService, job: Job) -> None:
    async def main() -> None:
        with pytest.raises(Mine):
            await fail(job, Mine("stop"))

    run(main())
    assert (svc.get(job.id).status, svc.get(job.id).retries) == (Status.DELAYED, 1)


@pytest.mark.parametrize(
    ("settle", "status"),
    [
        (lambda job: job.adone(2), Status.DONE),
        (lambda job: job.aretry(5, "later"), Status.DELAYED),
        (lambda job: job.arelease(5), Status.DELAYED),
        (lambda job: job.acancel("rejected"), Status.CANCELED),
    ],
    ids=["done", "retry", "release", "cancel"],
)
def test_a_block_that_settles_the_job_itself_is_left_at_that(
    svc: JobService, job: Job, settle: Callable[[Job], Awaitable[object]], status: Status
) -> None:
    async def main() -> None:
        async with job:
            await settle(job)
            before = svc.get(job.id)
            assert before.status is status
        async with job:
            pass
        assert svc.get(job.id) == before

    run(main())


def test_a_block_whose_job_was_lost_says_so_at_its_end(job: Job, clock: ManualClock) -> None:
    async def main() -> None:
        with pytest.raises(ReservationLost, match=job.id):
            async with job:
                clock.advance(601)

    run(main())


@pytest.mark.parametrize("error", [asyncio.CancelledError, Mine])
def test_an_interrupt_goes_on_even_if_the_job_was_lost_meanwhile(
    svc: JobService, job: Job, error: type[BaseException]
) -> None:
    async def work() -> None:
        async with job:
            svc.cancel(job.id)
            raise error

    async def main() -> None:
        with pytest.raises(error):
            await work()

    run(main())


# Cancelled in the block and at its end.


def test_a_task_that_is_cancelled_in_its_block_gives_the_job_back(
    svc: JobService, job: Job
) -> None:
    async def work() -> None:
        async with job:
            await asyncio.sleep(3600)

    async def main() -> None:
        task = asyncio.ensure_future(work())
        await ticks()
        await cancel(task)
        assert task.cancelled()
        assert svc.status(job.id) is Status.READY

    run(main())


@pytest.mark.parametrize("again", [2, 5, 20])
def test_cancelled_again_while_it_gives_the_job_back_it_gives_it_back(
    svc: JobService, job: Job, again: int
) -> None:
    async def work() -> None:
        async with job:
            await asyncio.sleep(3600)

    async def main() -> None:
        with NobodyWrites(svc.store) as gate:
            first = asyncio.ensure_future(svc.aenqueue("busy"))  # so that the thread waits
            await ticks()
            await at_the_gate(svc)
            task = asyncio.ensure_future(work())
            await ticks()
            task.cancel()
            await ticks(again)
            await cancel(task)
            assert task.cancelled()
            gate.end()
            await first
        await until(lambda: svc.status(job.id) is Status.READY)

    run(main())
    assert svc.get(job.id).attempt == 0


@pytest.mark.parametrize(("error", "status"), [(None, "done"), (ValueError(), "delayed")])
def test_cancelled_while_the_outcome_of_its_block_is_written_the_outcome_stands(
    svc: JobService, job: Job, error: Exception | None, status: str
) -> None:
    async def work() -> None:
        async with job:
            if error is not None:
                raise error

    async def main() -> None:
        with NobodyWrites(svc.store) as gate:
            first = asyncio.ensure_future(svc.aenqueue("busy"))
            await ticks()
            await at_the_gate(svc)
            task = asyncio.ensure_future(work())
            await ticks()
            await cancel(task)
            assert task.cancelled()
            gate.end()
            await first
        await until(lambda: svc.status(job.id) == status)

    run(main())


def test_cancelled_while_it_settles_on_purpose_the_job_is_settled_or_given_back(
    svc: JobService, caplog: pytest.LogCaptureFixture
) -> None:
    """Withdrawn it is released at the end of the block; on its way, it stands. Never neither."""

    async def work() -> None:
        (job,) = await svc.areserve("mail")
        async with job:
            await job.adone("kept")

    async def main() -> None:
        for k in range(60):
            job_id = await svc.aenqueue("mail")
            task = asyncio.ensure_future(work())
            await ticks(k)
            await cancel(task)
            for _ in range(2):  # whatever was on its way, and what that gave back
                await svc.aenqueue("other", retention=0)
            await until(lambda job_id=job_id: svc.status(job_id) != Status.RESERVED)  # type: ignore[misc]
            if svc.status(job_id) is Status.READY:
                svc.delete(job_id)
            else:
                assert svc.get(job_id).result == "kept"

    with caplog.at_level(logging.WARNING, "jobq"):
        run(main())
    assert caplog.text == ""
    assert set(counts(svc, "mail")) <= {"done"}
