"""Coroutines that wait for jobs: who gets what, and what becomes of it when one turns away."""

import asyncio
import random
import threading
import time
from contextlib import suppress
from functools import partial

import pytest

from jobq import Job, JobService, Status
from jobq.clock import SystemClock
from jobq.errors import StoreUnavailable
from tests.conftest import DEADLINE_S, LONG_S, SOON_S, Crew, Opener, eventually
from tests.repo.test_contract_threads import asleep
from tests.service.coroutines import (
    SHORT_S,
    NobodyWrites,
    at_the_gate,
    cancel,
    commits,
    counts,
    run,
    ticks,
    until,
)


def waiting_threads() -> list[str]:
    return [name for thread in threading.enumerate() if "jobq-waits" in (name := thread.name)]


def test_timeout_0_never_waits_and_takes_what_is_there(svc: JobService) -> None:
    eventually(lambda: waiting_threads() == [])  # those of a test before may be about to end

    async def main() -> None:
        assert await svc.areserve("mail", timeout=0) == []
        await svc.aenqueue_many("mail", range(3))
        assert len(await svc.areserve("mail", timeout=0)) == 1
        assert len(await svc.areserve("mail", 5, timeout=0)) == 2
        assert waiting_threads() == []

    run(main())


@pytest.mark.parametrize("timeout", [1e-9, 3600, None])
def test_a_job_that_is_there_is_taken_whatever_the_timeout(
    svc: JobService, timeout: float | None
) -> None:
    async def main() -> None:
        await svc.aenqueue("mail")
        with NobodyWrites(svc.store):  # so that the time is over before anybody has looked
            task = asyncio.ensure_future(svc.areserve("mail", timeout=timeout))
            await asyncio.sleep(10 * SHORT_S)
        assert len(await task) == 1

    run(main())


def test_a_timeout_passes_without_a_job(live: JobService) -> None:
    async def main() -> None:
        start = time.monotonic()
        got = await asyncio.gather(
            *[live.areserve("mail", timeout=0.2) for _ in range(50)],
            live.areserve("mail", timeout=1.1),
        )
        assert got == [[]] * 51
        assert 1.1 <= time.monotonic() - start < DEADLINE_S

    run(main())


@pytest.mark.parametrize("timeout", [None, 3600])
def test_a_job_that_comes_ends_the_waiting(live: JobService, timeout: float | None) -> None:
    async def main() -> None:
        task = asyncio.ensure_future(live.areserve("mail", 5, timeout=timeout))
        await until(waiting_threads)
        job_id = live.enqueue("mail")
        assert [job.id for job in await task] == [job_id]

    run(main())


def test_a_delayed_a_retried_and_an_expired_job_come_to_who_waits(live: JobService) -> None:
    async def main() -> None:
        await live.aenqueue("mail", delay=0.1, min_backoff=0.05, jitter=0)
        (first,) = await live.areserve("mail")
        await first.aretry()
        (second,) = await live.areserve("mail")
        assert (second.id, second.retries) == (first.id, 1)
        await live.aenqueue("mail", lease=0.1)
        (third,) = await live.areserve("mail")
        (fourth,) = await live.areserve("mail")  # when the lease of the third is over
        assert (fourth.id, fourth.crashes) == (third.id, 1)
        assert await third.acanceled()

    run(main())


def test_who_came_first_is_served_first(live: JobService) -> None:
    async def main() -> None:
        tasks = []
        for n in (1, 2, 3):
            tasks.append(asyncio.ensure_future(live.areserve("mail", n)))
            await until(waiting_threads)
            await asyncio.sleep(10 * SHORT_S)
        ids = await live.aenqueue_many("mail", range(5))
        got = [[job.id for job in await task] for task in tasks]
        assert got == [ids[:1], ids[1:3], ids[3:]]

    run(main())


def test_a_thousand_who_wait_take_one_thread(live: JobService) -> None:
    async def main() -> None:
        tasks = [asyncio.ensure_future(live.areserve("mail")) for _ in range(1000)]
        await until(waiting_threads)
        assert len(waiting_threads()) == 1
        ids = await live.aenqueue_many("mail", range(600))
        ids += await asyncio.gather(*[live.aenqueue("mail") for _ in range(400)])
        got = [job.id for jobs in await asyncio.gather(*tasks) for job in jobs]
        assert sorted(got) == sorted(ids)

    run(main())


def test_the_thread_of_a_topic_ends_when_nobody_waits_any_more(live: JobService) -> None:
    async def main() -> None:
        tasks = [asyncio.ensure_future(live.areserve(f"topic-{n}")) for n in range(3)]
        await until(lambda: len(waiting_threads()) == 3)
        for task in tasks:
            await cancel(task)
        await until(lambda: waiting_threads() == [])
        await live.aenqueue("topic-1")
        (job,) = await live.areserve("topic-1")
        assert job.attempt == 1

    run(main())


def test_one_who_waits_alone_costs_no_commit(durable_opener: Opener) -> None:
    svc = JobService(durable_opener(clock=SystemClock()))
    svc.enqueue("other")

    async def main() -> None:
        task = asyncio.ensure_future(svc.areserve("mail"))
        await until(waiting_threads)
        await asyncio.sleep(0.1)
        before, start = commits(svc.store), time.monotonic()
        await asyncio.sleep(1.5)
        took = time.monotonic() - start
        assert commits(svc.store) - before <= 4 * took / 1.5
        await cancel(task)

    run(main())


# Turning away.


def everything_is_there(svc: JobService, jobs: list[Job], ids: list[str]) -> None:
    """Each job is either among *jobs*, and held, or ready; soon, and none of them twice."""
    mine = [job.id for job in jobs]
    assert len(mine) == len(set(mine))
    expected = [(Status.RESERVED, 1) if one in mine else (Status.READY, 0) for one in ids]

    def as_expected() -> bool:
        records = [svc.get(job_id) for job_id in ids]
        totals = svc.stats().totals
        return (totals.ready, totals.reserved) == (len(ids) - len(mine), len(mine)) and [
            (record.status, record.attempt) for record in records
        ] == expected

    eventually(as_expected)
    assert not any(job.canceled for job in jobs)


def is_so(svc: JobService, topic: str, ready: int) -> bool:
    return svc.stats(topic).totals.ready == ready


@pytest.mark.parametrize("pause", [0.0, 0.00002])
@pytest.mark.parametrize("there", [True, False], ids=["there", "comes"])
def test_cancelled_at_any_step_it_loses_no_job(opener: Opener, there: bool, pause: float) -> None:
    """Cancelled after k rounds of its loop, for every k from before the first to after the end."""
    svc = JobService(opener(clock=SystemClock()))

    async def main() -> None:
        for k in range(60):
            topic = f"topic-{k}"
            ids = svc.enqueue_many(topic, range(2)) if there else []
            task = asyncio.ensure_future(svc.areserve(topic, 2))
            if not there:
                await asyncio.sleep(2 * SHORT_S)
                ids = svc.enqueue_many(topic, range(2))
            for _ in range(k):
                await asyncio.sleep(pause)
            await cancel(task)
            got = [] if task.cancelled() else task.result()
            assert [job.id for job in got] == ids[: len(got)]
            await until(partial(is_so, svc, topic, len(ids) - len(got)))
            assert [svc.get(job_id).crashes for job_id in ids] == [0, 0]
            await svc.adone_many(got)

    run(main())
    svc.close()


def test_a_thousand_tasks_of_which_many_are_cancelled_lose_no_job(live: JobService) -> None:
    chance = random.Random(5)
    got: list[Job] = []

    async def take() -> None:
        got.extend(await live.areserve("mail", chance.randint(1, 3)))

    async def main() -> None:
        ids: list[str] = []
        tasks = [asyncio.ensure_future(take()) for _ in range(1000)]
        while not all(task.done() for task in tasks):
            for task in chance.sample(tasks, 20):
                task.cancel()
            ids += await live.aenqueue_many("mail", range(chance.randint(0, 10)))
            await asyncio.sleep(chance.choice([0, 0, SHORT_S]))
        ids += await live.aenqueue_many("mail", range(5))
        everything_is_there(live, got, ids)

    run(main())
    assert got


def test_what_was_reserved_for_one_that_turned_away_goes_to_the_next(live: JobService) -> None:
    async def main() -> None:
        first = asyncio.ensure_future(live.areserve("mail"))
        await until(waiting_threads)
        second = asyncio.ensure_future(live.areserve("mail"))
        await asyncio.sleep(5 * SHORT_S)
        first.cancel()
        job_id = live.enqueue("mail")
        assert [job.id for job in await second] == [job_id]
        assert first.cancelled()

    run(main())


@pytest.mark.usefixtures("sound_sleep")
def test_what_came_for_nobody_goes_to_another_service_that_waits(
    durable_opener: Opener, crew: Crew
) -> None:
    """A commit wakes as many waiters as it has jobs: one that nobody wants is passed on.

    Otherwise the other waiter would find it at its next look, which is far away here.
    """
    clock = SystemClock()
    svc, other = (JobService(durable_opener(clock=clock)) for _ in range(2))
    svc.delete(svc.enqueue("mail"))  # the first job of a new topic calls everybody
    got: list[Job] = []

    def wait() -> None:
        while not got:
            got.extend(other.reserve("mail", timeout=0))
            if not got:
                other.store.wait("mail", LONG_S)

    async def main() -> None:
        task = asyncio.ensure_future(svc.areserve("mail"))
        await until(waiting_threads)
        (line,) = [one for one in threading.enumerate() if one.name in waiting_threads()]
        await until(lambda: asleep(line))  # it is the first who sleeps there
        waiter = crew.start(wait)
        await until(lambda: asleep(waiter))
        task.cancel()
        await svc.aenqueue("mail")
        async with asyncio.timeout(SOON_S):
            await until(lambda: got)
        await asyncio.to_thread(got[0].done)

    run(main())
    other.close()
    svc.close()


@pytest.mark.parametrize("wait", [0.0, SHORT_S / 4, SHORT_S])
def test_wait_for_loses_no_job(live: JobService, wait: float) -> None:
    async def main() -> None:
        ids: list[str] = []
        got: list[Job] = []
        for _ in range(60):
            ids += await live.aenqueue_many("mail", [1])
            with suppress(TimeoutError):
                got += await asyncio.wait_for(live.areserve("mail"), wait)
        everything_is_there(live, got, ids)

    run(main())


def test_a_loop_that_is_closed_in_the_middle_gives_back_what_it_was_about_to_get(
    live: JobService,
) -> None:
    """No coroutine of it runs again, and none is cancelled: they are only dropped."""
    ids = live.enqueue_many("mail", range(50))

    async def main() -> list[asyncio.Task[list[Job]]]:
        gate = NobodyWrites(live.store)
        gate.__enter__()
        tasks = [asyncio.ensure_future(live.areserve("mail")) for _ in range(50)]
        await asyncio.sleep(5 * SHORT_S)
        threading.Timer(0.02, gate.end).start()
        return tasks

    loop = asyncio.new_event_loop()
    tasks = loop.run_until_complete(main())
    loop.close()
    try:
        everything_is_there(live, [], ids)
    finally:
        for task in tasks:
            task._log_destroy_pending = False  # type: ignore[attr-defined]


def test_a_coroutine_that_is_closed_gives_back_what_it_was_about_to_get(live: JobService) -> None:
    ids = live.enqueue_many("mail", range(3))

    async def main() -> None:
        for steps in range(3):
            reserving = live.areserve("mail", 3)
            reserving.send(None)
            await asyncio.sleep(steps * 10 * SHORT_S)
            reserving.close()
            await until(lambda: live.stats().totals.ready == 3)

    run(main())
    everything_is_there(live, [], ids)


# Writes that are cancelled.


def test_a_write_that_is_cancelled_before_it_is_taken_never_happens(svc: JobService) -> None:
    async def main() -> None:
        await svc.aenqueue("mail")
        (job,) = await svc.areserve("mail")
        with NobodyWrites(svc.store) as gate:
            first = asyncio.ensure_future(svc.aenqueue("taken"))
            await ticks()
            await at_the_gate(svc)
            tasks = [
                asyncio.ensure_future(verb)
                for verb in (svc.aenqueue("withdrawn"), job.adone(), job.aextend(5))
            ]
            await ticks()
            for task in [first, *tasks]:
                await cancel(task)
            gate.end()
            await svc.aenqueue("last")
        assert all(task.cancelled() for task in [first, *tasks])
        assert svc.topics() == ["last", "mail", "taken"]  # what was on its way stands
        assert svc.status(job.id) is Status.RESERVED

    run(main())


def test_cancelled_at_any_step_a_write_has_happened_or_not(svc: JobService) -> None:
    async def main() -> None:
        for k in range(40):
            task = asyncio.ensure_future(svc.aenqueue(f"topic-{k}"))
            await ticks(k)
            await cancel(task)
            if not task.cancelled():
                assert svc.get(task.result()).topic == f"topic-{k}"
        await svc.aenqueue("last")

    run(main())
    assert svc.stats().totals.ready <= 41


# Stopping.


@pytest.mark.parametrize("ending", ["stop", "close", "aclose"])
@pytest.mark.parametrize("timeout", [None, 3600])
def test_the_end_of_the_service_ends_the_waiting(
    live: JobService, ending: str, timeout: float | None
) -> None:
    async def main() -> None:
        tasks = [asyncio.ensure_future(live.areserve("mail", timeout=timeout)) for _ in range(100)]
        tasks += [asyncio.ensure_future(live.areserve(f"topic-{n}")) for n in range(5)]
        await until(lambda: len(waiting_threads()) == 6)
        end = getattr(live, ending)()
        if end is not None:
            await end
        assert await asyncio.gather(*tasks) == [[]] * 105
        assert await live.areserve("mail") == []
        await until(lambda: waiting_threads() == [])

    run(main())


def test_stop_at_any_step_ends_the_waiting(opener: Opener) -> None:
    async def main() -> None:
        for k in range(30):
            svc = JobService(opener(f"queue-{k}", clock=SystemClock()))
            tasks = [asyncio.ensure_future(svc.areserve("mail")) for _ in range(3)]
            await ticks(k)
            svc.stop()
            assert await asyncio.gather(*tasks) == [[]] * 3
            svc.close()

    run(main())


def test_an_error_of_the_store_reaches_all_who_wait(live: JobService) -> None:
    async def main() -> None:
        tasks = [asyncio.ensure_future(live.areserve("mail")) for _ in range(3)]
        await until(waiting_threads)
        live.store.close()
        told = await asyncio.gather(*tasks, return_exceptions=True)
        assert [type(one) for one in told] == [StoreUnavailable] * 3

    run(main())
    live.stop()


def test_a_reservation_counts_as_held_by_the_service(live: JobService) -> None:
    """So `close` releases it, like any other."""
    live.enqueue_many("mail", range(3))

    async def main() -> None:
        assert len(await live.areserve("mail", 2)) == 2

    run(main())
    assert counts(live) == {"reserved": 2, "ready": 1}
    live._holding.release_all()
    assert counts(live) == {"ready": 3}
