"""Waiting for the ends of jobs in coroutines."""

import asyncio
import threading

import pytest

from jobq import JobService, Status
from jobq.errors import InvalidValue, JobNotFound, StoreUnavailable
from tests.conftest import SOON_S
from tests.service.coroutines import SHORT_S, cancel, run, ticks, until

UNKNOWN = "01890000-0000-7000-8000-000000000000"


@pytest.fixture
def svc(live: JobService) -> JobService:
    """Here all is on the clocks of this machine."""
    return live


def threads() -> int:
    return sum(thread.name == "jobq-ends" for thread in threading.enumerate())


def test_a_job_that_is_finished_is_given_at_once(svc: JobService) -> None:
    async def main() -> None:
        done, canceled = await svc.aenqueue_many("mail", range(2))
        (job,) = await svc.areserve("mail")
        await job.adone({"n": 1})
        await svc.acancel(canceled)
        for timeout in (0, 5, None):
            assert (await svc.await_job(done, timeout)).result == {"n": 1}
            assert (await svc.await_job(canceled, timeout)).status is Status.CANCELED

    run(main())


def test_the_end_of_a_job_wakes_all_who_wait_for_it(svc: JobService) -> None:
    async def main() -> None:
        ids = await svc.aenqueue_many("mail", range(100))
        tasks = [asyncio.ensure_future(svc.await_job(job_id)) for job_id in ids for _ in range(3)]
        await until(threads)
        assert threads() == 1
        for job in await svc.areserve("mail", 100):
            if job.payload % 2:
                await job.adone(job.payload)
            else:
                svc.cancel(job.id)  # by another way, on another thread's terms
        records = await asyncio.gather(*tasks)
        assert [record.id for record in records] == [job_id for job_id in ids for _ in range(3)]
        assert {record.result for record in records} == {None, *range(1, 100, 2)}

    run(main())


@pytest.mark.usefixtures("sound_sleep")
def test_who_comes_while_others_wait_is_told_without_delay(svc: JobService) -> None:
    """The thread sleeps on behalf of the first when the second comes: it has to hear of it."""

    async def main() -> None:
        forever = asyncio.ensure_future(svc.await_job(await svc.aenqueue("other")))
        for _ in range(20):
            await asyncio.sleep(2 * SHORT_S)
            job_id = await svc.aenqueue("mail")
            (job,) = await svc.areserve("mail")
            waiting = asyncio.ensure_future(svc.await_job(job_id))
            await asyncio.sleep(2 * SHORT_S)
            await job.adone()
            async with asyncio.timeout(SOON_S):  # much longer, if it slept on
                await waiting
        await cancel(forever)

    run(main())


def test_time_that_is_over_says_how_the_job_is(svc: JobService) -> None:
    async def main() -> None:
        job_id = await svc.aenqueue("mail")
        for timeout in (0, 0.05):
            with pytest.raises(TimeoutError, match=f"job {job_id} is still ready after {timeout}"):
                await svc.await_job(job_id, timeout)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await svc.await_job(job_id)

    run(main())


def test_a_job_that_is_not_there_or_forgotten_meanwhile_is_not_found(svc: JobService) -> None:
    async def main() -> None:
        for timeout in (0, None):
            with pytest.raises(JobNotFound, match=UNKNOWN):
                await svc.await_job(UNKNOWN, timeout)
        deleted = await svc.aenqueue("mail")
        gone = await svc.aenqueue("mail", retention=0)
        tasks = [asyncio.ensure_future(svc.await_job(job_id)) for job_id in (deleted, gone)]
        await until(threads)
        await svc.adelete(deleted)
        (job,) = await svc.areserve("mail")
        await job.adone()
        told = await asyncio.gather(*tasks, return_exceptions=True)
        assert [type(one) for one in told] == [JobNotFound] * 2
        with pytest.raises(InvalidValue):
            await svc.await_job("x")
        with pytest.raises(InvalidValue):
            await svc.await_job(deleted, -1)

    run(main())


@pytest.mark.parametrize("ending", ["stop", "close"])
def test_the_end_of_the_service_ends_the_waiting(svc: JobService, ending: str) -> None:
    async def main() -> None:
        job_id = await svc.aenqueue("mail")
        tasks = [asyncio.ensure_future(svc.await_job(job_id)) for _ in range(10)]
        await until(threads)
        await asyncio.to_thread(getattr(svc, ending))
        told = await asyncio.gather(*tasks, return_exceptions=True)
        assert [type(one) for one in told] == [StoreUnavailable] * 10
        with pytest.raises(StoreUnavailable):
            await svc.await_job(job_id)

    run(main())


def test_cancelled_at_any_step_it_leaves_nothing_behind(svc: JobService) -> None:
    async def main() -> None:
        ids = await svc.aenqueue_many("mail", range(30))
        for k, job_id in enumerate(ids):
            task = asyncio.ensure_future(svc.await_job(job_id))
            await ticks(k)
            await cancel(task)
            assert task.cancelled()
        await until(lambda: threads() == 0)

    run(main())


def test_an_error_of_the_store_reaches_all_who_wait(svc: JobService) -> None:
    async def main() -> None:
        ids = await svc.aenqueue_many("mail", range(3))
        tasks = [asyncio.ensure_future(svc.await_job(job_id)) for job_id in ids]
        await until(threads)
        svc.store.close()
        told = await asyncio.gather(*tasks, return_exceptions=True)
        assert [type(one) for one in told] == [StoreUnavailable] * 3

    run(main())
    svc.stop()
