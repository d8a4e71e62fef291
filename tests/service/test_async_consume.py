"""The consume loop of coroutines: what is committed when, and how a loop can end."""

import asyncio
import gc
import logging
import random
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing

import pytest

from jobq import Job, JobService, NewJob, Status
from jobq.clock import ManualClock, SystemClock
from jobq.errors import StoreUnavailable
from tests.conftest import DEADLINE_S, Opener, eventually
from tests.service.coroutines import (
    SHORT_S,
    NobodyWrites,
    cancel,
    commits,
    counts,
    run,
    ticks,
    until,
)


def test_a_loop_hands_out_all_jobs_in_order(svc: JobService) -> None:
    async def main() -> list[int]:
        await svc.aenqueue_many("mail", range(7))
        seen = []
        async for job in svc.aconsume("mail", n=3, timeout=0):
            async with job:
                seen.append(job.payload)
        return seen

    assert run(main()) == list(range(7))
    assert counts(svc) == {"done": 7}


@pytest.mark.parametrize("n", [1, 2, 10])
@pytest.mark.parametrize("pipeline", [True, False])
def test_a_crash_repeats_at_most_the_one_job_whose_block_has_just_ended(
    svc: JobService, n: int, pipeline: bool
) -> None:
    async def main() -> None:
        await svc.aenqueue_many("mail", range(6))
        ended = 0
        async for job in svc.aconsume("mail", n=n, timeout=0, pipeline=pipeline):
            assert counts(svc).get("done", 0) == ended
            async with job:
                pass
            ended += 1
            assert counts(svc).get("done", 0) == ended - (1 if pipeline else 0)
            assert svc.status(job.id) is (Status.RESERVED if pipeline else Status.DONE)

    run(main())
    assert counts(svc) == {"done": 6}


def test_a_plain_block_in_the_loop_does_the_same(svc: JobService) -> None:
    async def main() -> None:
        await svc.aenqueue_many("mail", range(4))
        async for job in svc.aconsume("mail", timeout=0):
            with job:
                if job.payload == 1:
                    raise ValueError
        async for job in svc.aconsume("mail", timeout=0, pipeline=False):
            with job:
                pass

    run(main())
    assert counts(svc) == {"done": 3, "delayed": 1}


def test_the_last_outcome_is_committed_before_any_waiting(live: JobService) -> None:
    async def work() -> None:
        async for job in live.aconsume("mail"):
            async with job:
                pass

    async def main() -> None:
        task = asyncio.ensure_future(work())
        job_id = await live.aenqueue("mail")
        await until(lambda: live.status(job_id) is Status.DONE)
        assert not task.done()
        live.stop()
        await task

    run(main())


def test_an_outcome_and_the_next_reservation_are_one_commit(durable_opener: Opener) -> None:
    svc = JobService(durable_opener())

    async def main() -> None:
        await svc.aenqueue_many("mail", range(50))
        loop = svc.aconsume("mail")
        async with await anext(loop):
            pass
        before = commits(svc.store)
        for _ in range(40):
            async with await anext(loop):
                pass
        assert commits(svc.store) - before == 40
        await loop.aclose()

    run(main())
    svc.close()


@pytest.mark.parametrize("pipeline", [True, False])
def test_break_commits_what_has_ended_and_releases_what_was_not_begun(
    svc: JobService, pipeline: bool
) -> None:
    async def main() -> None:
        ids = await svc.aenqueue_many("mail", range(6))
        async for job in svc.aconsume("mail", n=5, timeout=0, pipeline=pipeline):
            async with job:
                pass
            if job.payload == 1:
                break
        await until(lambda: counts(svc) == {"done": 2, "ready": 4})
        assert [svc.get(job_id).attempt for job_id in ids] == [1, 1, 0, 0, 0, 0]

    run(main())


def test_break_in_a_loop_that_is_closed_by_its_block_has_committed_after_that(
    svc: JobService,
) -> None:
    async def main() -> None:
        await svc.aenqueue_many("mail", range(6))
        async with aclosing(svc.aconsume("mail", n=5)) as jobs:
            async for job in jobs:
                async with job:
                    break
        assert counts(svc) == {"done": 1, "ready": 5}
        await jobs.aclose()
        with pytest.raises(StopAsyncIteration):
            await anext(jobs)

    run(main())


def test_an_exception_outside_the_block_ends_the_loop_and_commits_what_has_ended(
    svc: JobService,
) -> None:
    async def work() -> None:
        async for job in svc.aconsume("mail", n=3):
            async with job:
                pass
            raise LookupError("mine")

    async def main() -> None:
        await svc.aenqueue_many("mail", range(3))
        with pytest.raises(LookupError, match="mine"):
            await work()
        await until(lambda: counts(svc) == {"done": 1, "ready": 2})

    run(main())


def test_an_exception_inside_the_block_is_a_retry_and_the_loop_goes_on(svc: JobService) -> None:
    async def main() -> None:
        await svc.aenqueue_many("mail", range(4))
        async for job in svc.aconsume("mail", n=2, timeout=0):
            async with job:
                if job.payload % 2:
                    raise ValueError(job.payload)

    run(main())
    assert counts(svc) == {"done": 2, "delayed": 2}
    assert all("ValueError: " in (record.error or "") for record in svc.find(status="delayed"))


@pytest.mark.parametrize("where", ["block", "between", "waiting"])
@pytest.mark.parametrize("n", [1, 3])
def test_a_task_that_is_cancelled_ends_its_loop_and_releases_everything(
    live: JobService, where: str, n: int
) -> None:
    async def work() -> None:
        async for job in live.aconsume("mail", n=n):
            async with job:
                if job.payload == 1 and where == "block":
                    await asyncio.sleep(3600)
            if job.payload == 1 and where == "between":
                await asyncio.sleep(3600)

    async def main() -> None:
        ids = await live.aenqueue_many("mail", range(2 if where == "waiting" else 4))
        task = asyncio.ensure_future(work())
        done = {"block": 1, "between": 1, "waiting": 2}[where]
        await until(lambda: live.stats().totals.done == done)
        await asyncio.sleep(5 * SHORT_S)
        await cancel(task)
        assert task.cancelled()
        ended = done + (where == "between")
        await until(lambda: live.stats().totals.done == ended)
        await until(lambda: live.stats().totals.ready == len(ids) - ended)
        assert all(live.get(job_id).attempt == 0 for job_id in ids[ended:])

    run(main())


def test_cancelled_at_any_step_a_loop_loses_no_job(live: JobService) -> None:
    async def work(topic: str) -> None:
        async for job in live.aconsume(topic, n=2):
            async with job:
                await asyncio.sleep(0)

    async def main() -> None:
        chance = random.Random(3)
        for k in range(60):
            topic = f"topic-{k}"
            await live.aenqueue_many(topic, range(5))
            task = asyncio.ensure_future(work(topic))
            for _ in range(k):
                await asyncio.sleep(chance.choice([0, 0, SHORT_S / 5]))
            await cancel(task)
        await until(lambda: live.stats().totals.reserved == 0)

    run(main())
    totals = live.stats().totals
    assert (totals.ready + totals.done, totals.delayed, totals.canceled) == (300, 0, 0)
    assert all(record.crashes == 0 for record in live.find(limit=500))
    assert {record.attempt for record in live.find(status="ready", limit=500)} == {0}


def test_waiting_for_the_next_job_can_be_cancelled_and_repeated(live: JobService) -> None:
    async def main() -> None:
        _, second = await live.aenqueue_many("mail", range(2))
        jobs = live.aconsume("mail")
        async with await anext(jobs):
            pass
        async with await anext(jobs) as job:
            assert job.id == second
        for _ in range(3):
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(anext(jobs), 5 * SHORT_S)
        assert counts(live) == {"done": 2}
        third = await live.aenqueue("mail")
        async with await anext(jobs) as job:
            assert job.id == third
        await jobs.aclose()

    run(main())
    assert counts(live) == {"done": 3}


def test_two_tasks_cannot_wait_for_the_next_job_of_one_loop(live: JobService) -> None:
    async def main() -> None:
        jobs = live.aconsume("mail")
        task = asyncio.ensure_future(anext(jobs))
        await ticks()
        with pytest.raises(RuntimeError, match="another task"):
            await anext(jobs)
        await live.aenqueue("mail")
        await (await task).adone()
        await jobs.aclose()

    run(main())


def test_stop_ends_the_loop_after_its_block(svc: JobService) -> None:
    async def main() -> list[int]:
        await svc.aenqueue_many("mail", range(5))
        seen = []
        async for job in svc.aconsume("mail", n=3):
            async with job:
                seen.append(job.payload)
                svc.stop()
        return seen

    assert run(main()) == [0]
    assert counts(svc) == {"done": 1, "ready": 4}


def test_a_loop_ends_when_no_job_came_for_its_timeout(live: JobService) -> None:
    async def main() -> list[int]:
        await live.aenqueue("mail", 1)
        await live.aenqueue("mail", 2, delay=0.05)
        seen = []
        async for job in live.aconsume("mail", timeout=DEADLINE_S):
            seen.append(job.payload)
            if len(seen) == 2:
                break
        return seen + [job.payload async for job in live.aconsume("mail", timeout=0.1)]

    assert run(main()) == [1, 2]


def test_an_explicit_settlement_in_the_block_is_durable_at_once(svc: JobService) -> None:
    async def main() -> None:
        await svc.aenqueue_many("mail", range(3))
        async for job in svc.aconsume("mail", n=3, timeout=0):
            async with job:
                match job.payload:
                    case 0:
                        (then,) = await job.adone({"n": 0}, then=[NewJob("next")])
                        assert svc.get(job.id).result == {"n": 0}
                        assert svc.get(then).topic == "next"
                    case 1:
                        await job.aretry(50, "later")
                        assert svc.get(job.id).error == "later"
                    case 2:
                        await job.acancel("rejected")

    run(main())
    assert counts(svc, "mail") == {"done": 1, "delayed": 1, "canceled": 1}


def test_jobs_of_a_loop_can_be_handled_by_other_tasks(svc: JobService) -> None:
    async def handle(job: Job) -> None:
        async with job:
            await asyncio.sleep(0)

    async def main() -> None:
        await svc.aenqueue_many("mail", range(50))
        async with asyncio.TaskGroup() as group:
            async for job in svc.aconsume("mail", n=10, timeout=0):
                group.create_task(handle(job))

    run(main())
    assert counts(svc) == {"done": 50}


@pytest.mark.parametrize("pipeline", [True, False])
@pytest.mark.parametrize("n", [1, 3])
def test_a_reservation_found_lost_is_logged_and_given_to_on_lost_and_the_loop_goes_on(
    svc: JobService, pipeline: bool, n: int, caplog: pytest.LogCaptureFixture
) -> None:
    lost: list[tuple[str, int]] = []

    def on_lost(job: Job) -> None:
        lost.append((job.id, threading.get_ident()))

    async def main() -> list[str]:
        ids = await svc.aenqueue_many("mail", range(3))
        async for job in svc.aconsume("mail", n=n, timeout=0, pipeline=pipeline, on_lost=on_lost):
            async with job:
                if job.payload == 1:
                    svc.cancel(job.id)
        return ids

    with caplog.at_level(logging.WARNING, "jobq"):
        ids = run(main())
    assert lost == [(ids[1], threading.get_ident())]
    assert ids[1] in caplog.text
    assert counts(svc) == {"done": 2, "canceled": 1}


def test_a_reservation_found_lost_when_the_loop_is_left_is_given_to_on_lost(
    svc: JobService,
) -> None:
    lost: list[tuple[str, int]] = []

    async def main() -> None:
        job_id = await svc.aenqueue("mail")
        async for job in svc.aconsume(
            "mail", on_lost=lambda job: lost.append((job.id, threading.get_ident()))
        ):
            async with job:
                svc.cancel(job.id)
            break
        await until(lambda: lost)
        assert lost == [(job_id, threading.get_ident())]

    run(main())


@pytest.mark.parametrize("n", [1, 2])
def test_an_on_lost_that_fails_ends_the_loop_and_strands_no_job(svc: JobService, n: int) -> None:
    def complain(job: Job) -> None:
        raise LookupError(job.id)

    async def work() -> None:
        async for job in svc.aconsume("mail", n=n, on_lost=complain):
            async with job:
                svc.cancel(job.id)

    async def main() -> None:
        await svc.aenqueue_many("mail", range(4))
        with pytest.raises(LookupError):
            await work()

    run(main())
    eventually(lambda: counts(svc) == {"canceled": 1, "ready": 3})


def test_leases_are_kept_while_the_loop_is_at_a_job(
    svc: JobService, pass_time: Callable[[JobService, float], None]
) -> None:
    async def main() -> None:
        await svc.aenqueue_many("mail", range(2))
        async for job in svc.aconsume("mail", n=2, timeout=0):
            async with job:
                if job.payload == 0:
                    pass_time(svc, 1500)  # each lease is of ten minutes
                    assert await svc.areserve("mail", timeout=0) == []
            assert (job.attempt, job.crashes) == (1, 0)

    run(main())
    assert counts(svc) == {"done": 2}


def test_a_lease_that_ended_in_the_block_is_a_lost_reservation(
    svc: JobService, clock: ManualClock
) -> None:
    lost: list[int] = []

    async def main() -> None:
        await svc.aenqueue("mail", max_crashes=1)
        loop = svc.aconsume("mail", timeout=0, on_lost=lambda job: lost.append(job.attempt))
        async for job in loop:
            async with job:
                clock.advance(601)

    run(main())
    assert lost == [1, 2]


# Loops that are dropped or closed.


def test_a_loop_that_is_dropped_commits_and_releases(svc: JobService) -> None:
    async def main() -> None:
        await svc.aenqueue_many("mail", range(3))
        jobs = svc.aconsume("mail", n=3)
        async with await anext(jobs):
            pass
        del jobs
        gc.collect()
        await until(lambda: counts(svc) == {"done": 1, "ready": 2})

    run(main())


def test_a_loop_that_was_never_begun_holds_nothing_and_starts_nothing(svc: JobService) -> None:
    before = threading.active_count()
    svc.enqueue("mail")
    svc.aconsume("mail")

    assert counts(svc) == {"ready": 1}
    assert threading.active_count() == before


def test_closing_the_service_commits_the_block_that_has_ended(durable_opener: Opener) -> None:
    svc = JobService(durable_opener())

    async def main() -> None:
        ids = await svc.aenqueue_many("mail", range(4))
        jobs = svc.aconsume("mail", n=3)
        async with await anext(jobs):
            pass
        await svc.aclose()
        again = JobService(durable_opener())
        assert [again.status(job_id) for job_id in ids] == ["done", "ready", "ready", "ready"]
        assert [again.get(job_id).attempt for job_id in ids] == [1, 0, 0, 0]
        with pytest.raises(StopAsyncIteration):
            await anext(jobs)
        await jobs.aclose()
        again.close()

    run(main())


def test_a_loop_in_a_closed_service_ends(svc: JobService) -> None:
    async def main() -> int:
        await svc.aenqueue_many("mail", range(3))
        seen = 0
        async for job in svc.aconsume("mail", n=2, pipeline=False):
            async with job:
                seen += 1
            await svc.aclose()
        return seen

    assert run(main()) == 1


def test_an_error_of_the_store_comes_through_the_loop(opener: Opener) -> None:
    svc = JobService(opener())

    async def work() -> None:
        async for job in svc.aconsume("mail"):
            async with job:
                svc.store.close()

    async def main() -> None:
        await svc.aenqueue_many("mail", range(3))
        with pytest.raises(StoreUnavailable):
            await work()

    run(main())


@pytest.mark.parametrize("ended", [True, False])
def test_the_end_of_the_program_s_loop_commits_what_has_ended(
    live: JobService, ended: bool
) -> None:
    """`asyncio.run` cancels the task that is left, and is over at once."""
    ids = live.enqueue_many("mail", range(4))
    begun: list[str] = []

    async def work() -> None:
        async for job in live.aconsume("mail", n=3):
            async with job:
                begun.append(job.id)
                if not ended:
                    await asyncio.sleep(3600)
            await asyncio.sleep(3600)

    async def main() -> None:
        asyncio.ensure_future(work()).add_done_callback(lambda _: None)
        await until(lambda: begun)
        await ticks(5)

    run(main())
    eventually(lambda: live.stats().totals.ready == (3 if ended else 4))
    assert live.get(ids[0]).status is (Status.DONE if ended else Status.READY)


def test_a_generator_of_ones_own_round_the_loop_is_finished_too(live: JobService) -> None:
    async def mine() -> AsyncIterator[int]:
        async for job in live.aconsume("mail", n=2):
            async with job:
                yield job.payload

    async def main() -> None:
        await live.aenqueue_many("mail", range(4))
        async for payload in mine():
            if payload == 1:
                break

    run(main())
    # The block of the second was ended by the generator's end, as an interrupt.
    eventually(lambda: counts(live) == {"done": 1, "ready": 3})


# Many.


@pytest.mark.parametrize("n", [1, 3])
def test_a_thousand_loops_share_the_jobs_and_the_commits(durable_opener: Opener, n: int) -> None:
    svc = JobService(durable_opener(clock=SystemClock()))
    seen: list[int] = []

    async def work() -> None:
        async for job in svc.aconsume("mail", n=n):
            async with job:
                seen.append(job.payload)
                await asyncio.sleep(0)

    async def main() -> None:
        loops = [asyncio.ensure_future(work()) for _ in range(1000)]
        await ticks(50)
        before = commits(svc.store)
        for start in range(0, 4000, 1000):
            await svc.aenqueue_many("mail", range(start, start + 1000))
        await until(lambda: svc.stats().totals.done == 4000)
        assert commits(svc.store) - before < 2000  # 4 000 and more one by one
        svc.stop()
        await asyncio.gather(*loops)

    run(main())
    assert sorted(seen) == list(range(4000))
    assert counts(svc) == {"done": 4000}
    svc.close()


def test_the_loop_of_the_program_goes_round_while_outcomes_wait(svc: JobService) -> None:
    async def main() -> None:
        await svc.aenqueue_many("mail", range(3))
        async with aclosing(svc.aconsume("mail")) as jobs:
            async with await anext(jobs):
                pass
            with NobodyWrites(svc.store) as gate:
                task = asyncio.ensure_future(anext(jobs))
                for _ in range(30):
                    await asyncio.sleep(SHORT_S)
                assert not task.done()
                gate.end()
                await (await task).adone()

    run(main())
