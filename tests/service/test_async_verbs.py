"""Every verb for coroutines: it does what the verb does, and the loop goes on meanwhile."""

import asyncio
import inspect
import threading
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from jobq import Job, JobService, NewJob, Outcome, Selection, Status
from jobq.clock import ManualClock, SystemClock
from jobq.errors import (
    InvalidTransition,
    InvalidValue,
    JobNotFound,
    PayloadTooLarge,
    ReservationLost,
    StoreCorrupt,
    StoreFull,
    StoreUnavailable,
)
from jobq.job import JobSpec
from jobq.repo.memory import MemoryStore
from tests.conftest import DEADLINE_S, Opener
from tests.service.coroutines import NobodyWrites, commits, counts, not_blocked, run

UNKNOWN = "01890000-0000-7000-8000-000000000000"


WITHOUT_TWIN = {"stop", "select", "log", "progress", "lost"}
"""What never blocks."""


def test_every_verb_has_its_twin_with_the_same_arguments() -> None:
    for kind in (JobService, Job, Selection):
        for name, verb in inspect.getmembers(kind, inspect.isfunction):
            twin = getattr(kind, "await_job" if name == "wait" else f"a{name}", None)
            if name.startswith("_") or name in WITHOUT_TWIN or verb.__qualname__[0] == "A":
                continue
            assert twin is not None, f"{kind.__name__}.{name} has no twin for coroutines"
            mine, theirs = (inspect.signature(one).parameters for one in (verb, twin))
            assert [str(one.replace(annotation=one.empty)) for one in mine.values()] == [
                str(one.replace(annotation=one.empty)) for one in theirs.values()
            ], name


def test_jobs_in(svc: JobService) -> None:
    async def main() -> None:
        one = await svc.aenqueue("mail", {"n": 1}, weight=-1, delay=5, name="first")
        some = await svc.aenqueue_many("mail", (n for n in range(3)), weight=2)
        none = await svc.aenqueue_many("mail", [])
        async with svc.abatch() as batch:
            batch.enqueue("a", 1)
            batch.enqueue("b", 2)
            assert len(batch) == 2

        record = svc.get(one)
        assert (record.payload, record.weight, record.status) == ({"n": 1}, -1, Status.DELAYED)
        assert record.options.name == "first"
        assert [svc.get(job_id).payload for job_id in some] == [0, 1, 2]
        assert none == []
        assert [svc.get(job_id).topic for job_id in batch.ids] == ["a", "b"]

    run(main())


def test_a_batch_whose_block_fails_leaves_nothing_behind(svc: JobService) -> None:
    async def main() -> None:
        batch = svc.abatch()
        with pytest.raises(InvalidValue, match=r"expected `async with svc\.abatch\(\) as batch:`"):
            batch.enqueue("mail")

        async def block() -> None:
            async with batch:
                batch.enqueue("mail")
                raise LookupError

        with pytest.raises(LookupError):
            await block()
        with pytest.raises(InvalidValue, match="this batch has ended"):
            batch.enqueue("mail")
        with pytest.raises(InvalidValue, match="this batch has ended"):
            async with batch:
                pass
        async with svc.abatch() as empty:
            pass
        assert (batch.ids, empty.ids) == ([], [])

    run(main())
    assert counts(svc) == {}


def test_jobs_out(svc: JobService, clock: ManualClock) -> None:
    async def main() -> None:
        ids = await svc.aenqueue_many("mail", range(8))
        jobs = await svc.areserve("mail", 7)
        assert [job.id for job in jobs] == ids[:7]
        done, retried, released, rejected, extended, lost, last = jobs

        (follower,) = await done.adone({"ok": 1}, then=[NewJob("next", "f")])
        await retried.aretry(7, ValueError("x"))
        await released.arelease(8)
        await rejected.acancel("rejected", "bad")
        await extended.aextend(1000)
        assert not await lost.acanceled()
        svc.cancel(lost.id)
        assert await lost.acanceled()
        await last.adone()
        assert not await last.acanceled()
        with pytest.raises(ReservationLost, match=lost.id):
            await lost.adone()
        with pytest.raises(ReservationLost):
            await lost.aextend(5)
        await done.adone({"ok": 1})  # again is a no-op

        assert svc.get(done.id).result == {"ok": 1}
        assert svc.get(follower).payload == "f"
        assert "ValueError: x" in (svc.get(retried.id).error or "")
        assert svc.status(released.id) is Status.DELAYED
        assert (svc.get(rejected.id).reason, svc.get(rejected.id).error) == ("rejected", "bad")
        clock.advance(700)
        assert not extended.canceled

    run(main())


def test_what_a_holder_logs_is_written_with_its_next_call(svc: JobService) -> None:
    async def main() -> None:
        await svc.aenqueue_many("mail", range(2))
        first, second = await svc.areserve("mail", 2)
        for job in (first, second):
            job.log("begun")
            job.progress(1, 3)
        await first.adone()
        await second.aextend(60)

    run(main())
    for record in svc.find():
        assert [line.text for line in svc.get(record.id).log] == ["begun"]
        assert record.progress is not None


def test_many_at_once_give_outcomes(svc: JobService) -> None:
    async def main() -> None:
        await svc.aenqueue_many("mail", range(9))
        jobs = await svc.areserve("mail", 9)
        svc.cancel(jobs[0].id)

        done = await svc.adone_many(jobs[:3], [None, 1, 2])
        retried = await svc.aretry_many(jobs[3:6], delay=5, error="e")
        released = await svc.arelease_many(iter(jobs[6:]), delay=5)

        assert done == [Outcome.STALE, Outcome.OK, Outcome.OK]
        assert retried == released == [Outcome.OK] * 3
        assert svc.get(jobs[2].id).result == 2
        assert await svc.adone_many([]) == []

    run(main())
    assert counts(svc) == {"canceled": 1, "done": 2, "delayed": 6}


def test_what_is_known_and_what_anybody_may_do(svc: JobService) -> None:
    async def main() -> None:
        first, second, third = await svc.aenqueue_many("mail", range(3))
        assert await svc.astatus(first) is Status.READY
        assert (await svc.aget(first)).payload == 0
        assert [job.id for job in await svc.afind(topic="mail", limit=2)] == [first, second]
        assert await svc.afind(status="done", after=first) == []
        assert await svc.atopics() == ["mail"]
        assert (await svc.astats("mail")).totals.ready == 3
        assert (await svc.acheck()).ok

        await svc.acancel(first, error="not wanted")
        assert await svc.acancel(iter([first, second])) == [Outcome.INVALID, Outcome.OK]
        await svc.areset(first)
        assert await svc.areset([first, second]) == [Outcome.INVALID, Outcome.OK]
        await svc.adelete(third)
        assert await svc.adelete([third, first]) == [Outcome.MISSING, Outcome.OK]
        assert await svc.aprune() == 0
        assert await svc.amatch(second[:20]) == [second]

        await svc.aedit(second, weight=3)
        assert await svc.aedit([second, first], payload={"n": 2}) == [Outcome.OK, Outcome.MISSING]
        assert (svc.get(second).weight, svc.get(second).payload) == (3, {"n": 2})
        assert (await svc.aconfigure("mail", keep_done=5)).keep_done == 5
        assert (await svc.asettings("mail")).keep_done == 5
        lines = [line async for line in svc.aexport_jobs()]
        assert await svc.apurge("mail") == 1
        assert (await svc.aimport_jobs(lines)).jobs == 1

    run(main())
    assert counts(svc) == {"ready": 1}


def test_bad_input_is_refused_in_the_coroutine(svc: JobService) -> None:
    def wrong(job: Job) -> list[Callable[[], Awaitable[Any]]]:
        return [
            lambda: svc.aenqueue(""),
            lambda: svc.aenqueue("mail", object()),
            lambda: svc.aenqueue("mail", weight=2**15),
            lambda: svc.aenqueue("mail", leese=5),  # type: ignore[call-arg]
            lambda: svc.aenqueue_many("mail", 5),  # type: ignore[arg-type]
            lambda: svc.areserve("mail", 0),
            lambda: svc.areserve("mail", timeout=-1),
            lambda: svc.areserve("mail", timeout=float("nan")),
            lambda: svc.adone_many([job], []),
            lambda: svc.adone_many([1]),  # type: ignore[list-item]
            lambda: svc.astatus("x"),
            lambda: svc.afind(limit=0),
            lambda: svc.acancel(5),  # type: ignore[call-overload]
            lambda: svc.areset(["x"]),
            lambda: job.adone(object()),
            lambda: job.aretry(-1),
            lambda: job.arelease(-1),
            lambda: job.acancel("poison"),
            lambda: job.aextend(0),
        ]

    async def main() -> None:
        await svc.aenqueue("mail")
        (job,) = await svc.areserve("mail")
        for call in wrong(job):
            with pytest.raises(InvalidValue):
                await call()
        with pytest.raises(PayloadTooLarge):
            await svc.aenqueue("mail", b"x" * 2**20)
        with pytest.raises(InvalidValue):
            svc.aconsume("mail", 0)
        with pytest.raises(InvalidValue):
            svc.aconsume("mail", on_lost=5)  # type: ignore[arg-type]
        for verb in (svc.astatus, svc.aget, svc.acancel, svc.areset, svc.adelete):
            with pytest.raises(JobNotFound):
                await verb(UNKNOWN)
        with pytest.raises(InvalidTransition):
            await svc.areset(job.id)

    run(main())
    assert counts(svc) == {"reserved": 1}


# The loop goes on.


@pytest.mark.parametrize(
    "verb",
    [
        lambda svc, _: svc.aenqueue("mail"),
        lambda svc, _: svc.aenqueue_many("mail", range(3)),
        lambda svc, _: svc.areserve("mail"),
        lambda svc, _: svc.areserve("mail", timeout=0),
        lambda svc, job: svc.adone_many([job]),
        lambda svc, job: svc.aretry_many([job]),
        lambda svc, job: svc.arelease_many([job]),
        lambda svc, job: svc.acancel(job.id),
        lambda svc, job: svc.adelete([job.id]),
        lambda svc, job: svc.areset([job.id]),
        lambda svc, _: svc.aprune(),
        lambda _, job: job.adone(),
        lambda _, job: job.aretry(),
        lambda _, job: job.arelease(),
        lambda _, job: job.acancel(),
        lambda _, job: job.aextend(5),
        lambda svc, _: anext(svc.aconsume("mail")),
        lambda svc, _: svc.aclose(),
    ],
)
def test_the_loop_goes_round_while_others_have_the_write_lock(
    opener: Opener, verb: Callable[[JobService, Job], Awaitable[object]]
) -> None:
    svc = JobService(opener())
    svc.enqueue_many("mail", range(2))
    (job,) = svc.reserve("mail")

    async def main() -> None:
        with NobodyWrites(svc.store) as gate:
            await not_blocked(verb(svc, job), gate)

    run(main())


def test_the_end_of_a_block_and_of_a_batch_do_not_block_the_loop(svc: JobService) -> None:
    async def block() -> None:
        async with job:
            pass

    async def batch() -> None:
        async with svc.abatch() as batch:
            batch.enqueue("mail")

    async def main() -> None:
        for work in (block, batch):
            with NobodyWrites(svc.store) as gate:
                await not_blocked(work(), gate)

    svc.enqueue("mail")
    (job,) = svc.reserve("mail")
    run(main())
    assert counts(svc) == {"done": 1, "ready": 1}


# Merging.


def test_a_thousand_coroutines_share_a_few_commits(durable_opener: Opener) -> None:
    svc = JobService(durable_opener())

    async def life(number: int) -> None:
        await svc.aenqueue("mail", number)
        (job,) = await svc.areserve("mail")
        await job.adone()

    async def main() -> None:
        await svc.aenqueue("warm up")
        before, threads = commits(svc.store), threading.active_count()
        await asyncio.gather(*[life(number) for number in range(1000)])

        assert commits(svc.store) - before < 300  # 3 000 one by one
        assert threading.active_count() <= threads + 2

    run(main())
    assert counts(svc, "mail") == {"done": 1000}
    svc.close()


def test_what_is_handed_in_at_the_same_time_keeps_its_order(svc: JobService) -> None:
    async def main() -> None:
        with NobodyWrites(svc.store):
            tasks = [asyncio.ensure_future(svc.aenqueue("mail", n)) for n in range(500)]
            await asyncio.sleep(0.01)
        ids = await asyncio.gather(*tasks)
        assert ids == sorted(ids)
        assert [job.payload for job in await svc.areserve("mail", 500)] == list(range(500))

    run(main())


class Refusing(MemoryStore):
    """Refuses some jobs, as a store does whose room is used up, or whose records are damaged."""

    def enqueue(self, specs: Any) -> list[bytes]:
        refuse(list(specs))
        return super().enqueue(specs)

    def settle(self, settlements: Any, reserve: Any = None) -> Any:
        refuse([spec for settlement in settlements for spec in settlement.follow])
        return super().settle(settlements, reserve)


def refuse(specs: list[JobSpec]) -> None:
    if any(spec.topic == "full" for spec in specs):
        raise StoreFull("no room")
    if any(spec.topic == "damaged" for spec in specs):
        raise StoreCorrupt("damaged")
    if any(spec.topic == "odd" for spec in specs):
        raise ArithmeticError("odd")


def test_one_that_is_refused_does_not_touch_the_others() -> None:
    svc = JobService(Refusing())
    topics = [{7: "full", 40: "damaged", 41: "odd"}.get(n, "mail") for n in range(100)]

    async def main() -> None:
        added = await asyncio.gather(
            *[svc.aenqueue(topic) for topic in topics], return_exceptions=True
        )
        errors = {n: type(one) for n, one in enumerate(added) if not isinstance(one, str)}
        assert errors == {7: StoreFull, 40: StoreCorrupt, 41: ArithmeticError}

        jobs = await svc.areserve("mail", 97)
        settled = await asyncio.gather(
            *[
                job.adone(then=[NewJob({3: "full", 90: "odd"}.get(n, "next"))])
                for n, job in enumerate(jobs)
            ],
            svc.areserve("other", timeout=0),
            return_exceptions=True,
        )
        refused = {n: type(one) for n, one in enumerate(settled) if not isinstance(one, list)}
        assert refused == {3: StoreFull, 90: ArithmeticError}
        assert not jobs[3].settled

    run(main())
    assert counts(svc) == {"done": 95, "reserved": 2, "ready": 95}
    svc.close()


def test_an_error_that_is_nobodys_own_goes_to_all_at_once(svc: JobService) -> None:
    async def main() -> None:
        await svc.aenqueue_many("mail", range(3))
        jobs = await svc.areserve("mail", 3)
        svc.store.close()
        told = await asyncio.gather(
            svc.aenqueue("mail"),
            svc.aenqueue("mail"),
            svc.areserve("mail"),
            svc.areserve("mail", timeout=0),
            *[job.adone() for job in jobs],
            jobs[0].aextend(5),
            svc.astats(),
            return_exceptions=True,
        )
        assert {type(one) for one in told} == {StoreUnavailable}

    run(main())
    svc.stop()


def test_settlements_of_one_job_at_the_same_time_agree_on_one(svc: JobService) -> None:
    async def main() -> None:
        await svc.aenqueue("mail")
        (job,) = await svc.areserve("mail")
        with NobodyWrites(svc.store):
            same = [asyncio.ensure_future(job.adone(1)) for _ in range(3)]
            other = asyncio.ensure_future(job.aretry())
            await asyncio.sleep(0.01)
        told = await asyncio.gather(*same, other, return_exceptions=True)
        assert told[:3] == [[], [], []]
        assert isinstance(told[3], ReservationLost)

    run(main())
    assert counts(svc) == {"done": 1}


def test_several_topics_asked_for_at_once_are_all_served(opener: Opener) -> None:
    svc = JobService(opener(clock=SystemClock()))
    topics = [f"topic-{number}" for number in range(40)]

    async def main() -> None:
        for topic in topics:
            await svc.aenqueue(topic)
        got = await asyncio.gather(
            *[svc.areserve(topic, timeout=0) for topic in topics],
            *[svc.areserve("none", timeout=0) for _ in topics],
        )
        assert [job.topic for jobs in got for job in jobs] == topics

    run(main())
    svc.close()


def test_loops_of_several_threads_share_a_service(svc: JobService) -> None:
    seen: list[list[int]] = [[], [], []]

    async def main(mine: list[int]) -> None:
        async def live(number: int) -> None:
            await svc.aenqueue("mail", number)
            (job,) = await svc.areserve("mail", timeout=DEADLINE_S)
            async with job:
                mine.append(job.payload)

        await asyncio.gather(*[live(number) for number in range(100)])

    threads = [threading.Thread(target=lambda mine=mine: run(main(mine))) for mine in seen]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sorted(number for mine in seen for number in mine) == sorted(list(range(100)) * 3)
    assert counts(svc) == {"done": 300}
