"""A program as users write it, for the type checker: `assert_type` says what they get.

mypy --strict reads this file with all others, and pyright in its strict mode (`make check`);
running it shows that the types are true. A `type: ignore` here is a fact too: both have to complain
in that line.
"""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import aclosing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, assert_type

import pytest

import jobq
from jobq import (
    BulkResult,
    Job,
    JobRecord,
    JobService,
    NewJob,
    Outcome,
    Pattern,
    Progress,
    Reason,
    Selection,
    Stats,
    Status,
)


def test_jobs_in(tmp_path: Path) -> None:
    with jobq.open(tmp_path / "queue", durability="unsafe", lease=30, tags=["t"]) as svc:
        assert_type(svc, JobService)
        assert_type(svc.enqueue("mail", {"n": 1}, weight=1, delay=0.5), str)
        assert_type(svc.enqueue("mail", delay=timedelta(seconds=1), max_retries=0), str)
        assert_type(svc.enqueue_many("mail", (n for n in range(2)), name="n"), list[str])
        with svc.batch() as batch:
            assert_type(batch.enqueue("mail", None, retention=0), None)
        assert_type(batch.ids, list[str])


def test_jobs_out() -> None:
    with jobq.open(":memory:") as svc:
        svc.enqueue_many("mail", range(9))
        jobs = svc.reserve("mail", 5, timeout=0)
        assert_type(jobs, list[Job])
        with jobs[0] as job:
            assert_type(job, Job)
            assert_type(job.id, str)
            assert_type(job.payload, Any)
            assert_type(job.attempt, int)
            assert_type(job.log("a line"), None)
            assert_type(job.progress(1, 2.5, text="x"), None)
            assert_type(job.canceled, bool)
            assert_type(job.options.lease, float | None)
            assert_type(job.done([1], then=[NewJob("next", weight=1)]), list[str])
        job.retry() if not job.settled else None
        jobs[1].retry(timedelta(seconds=1), error=ValueError("x"))
        jobs[2].release(0.5)
        jobs[3].cancel("rejected", error="x")
        jobs[4].extend(5)
        assert_type(svc.done_many(jobs[4:], [None]), list[Outcome])
        for job in svc.consume("mail", n=2, timeout=0, pipeline=True, on_lost=print):
            assert_type(job, Job)
            job.done()


def test_jobs_of_several_topics() -> None:
    with jobq.open(":memory:") as svc:
        shares = {"mail": 5, "import": 1}
        names = ["mail", "import"]
        both: list[str | Pattern] = ["mail", Pattern("import.*")]
        assert_type(svc.reserve(["mail", "import"], 5, timeout=0), list[Job])
        assert_type(svc.reserve(("mail", Pattern("import.*")), strict=True, timeout=0), list[Job])
        assert_type(svc.reserve(Pattern("mail.*"), timeout=0), list[Job])
        assert_type(svc.reserve({"mail": 5, Pattern("import.*"): 0.5}, timeout=0), list[Job])
        assert_type(svc.reserve({Pattern("mail.*"): 2}, timeout=0), list[Job])
        assert_type(
            [svc.reserve(shares, timeout=0), svc.reserve(names, timeout=0)], list[list[Job]]
        )
        assert_type(svc.consume(both, 2, strict=True, timeout=0), Iterator[Job])
        assert_type(Pattern("mail.*").matches("mail.a"), bool)
        with pytest.raises(jobq.InvalidValue):
            svc.reserve(7)  # type: ignore[arg-type]
        with pytest.raises(jobq.InvalidValue):
            svc.reserve({"mail": "5"})  # type: ignore[dict-item]


def test_the_code_after_a_block_is_reached() -> None:
    """`with job:` swallows exceptions, and mypy has to know, or it calls what follows dead."""
    with jobq.open(":memory:") as svc:
        assert_type(handled(svc), str)


def handled(svc: JobService) -> str:
    svc.enqueue("mail")
    for job in svc.reserve("mail"):
        with job:
            raise LookupError
    return "handled"


def test_what_is_known() -> None:
    with jobq.open(":memory:") as svc:
        job_id = svc.enqueue("mail")
        assert_type(svc.status(job_id), Status)
        record = svc.get(job_id)
        assert_type(record, JobRecord)
        assert_type(record.created, datetime)
        assert_type(record.due, datetime | None)
        assert_type([attempt.error for attempt in record.history], list[str | None])
        assert_type([line.at for line in record.log], list[datetime])
        assert_type(record.progress, Progress | None)
        assert_type(record.reason, Reason | None)
        assert_type(svc.find(status="ready", topic="mail", limit=5), list[JobRecord])
        assert_type(svc.find(status=Status.READY, after=job_id), list[JobRecord])
        assert_type(svc.find(dead=True, reason=["poison", Reason.REJECTED]), list[JobRecord])
        selection = svc.select(topic="mail", tag=["a"], older_than=timedelta(days=1))
        assert_type(selection, Selection)
        assert_type(selection.count(), int)
        assert_type(list(selection), list[JobRecord])
        assert_type(selection.present(), Selection)
        result = selection.edit(weight=1, lease=5, progress=lambda step: step.outcomes)
        assert_type(result, BulkResult)
        assert_type(result.outcomes.get(Outcome.OK), int | None)
        assert_type(svc.select(dead=True).reset(rate=50), BulkResult)
        assert_type(svc.select(dead=True).reset(ttl=60, deadline=None), BulkResult)
        assert_type(svc.topics(), list[str])
        assert_type(svc.stats(), Stats)
        assert_type(svc.stats("mail").totals.ready, int)
        assert_type(svc.check().problems, tuple[str, ...])
        assert_type(svc.prune(), int)
        assert_type(svc.stop(), None)


def test_one_id_or_several() -> None:
    """A str is one id, which raises; several ids give outcomes."""
    with jobq.open(":memory:") as svc:
        first, second = svc.enqueue_many("mail", range(2))
        assert_type(svc.cancel([first], error="x"), list[Outcome])
        svc.cancel(second)
        assert_type(svc.reset(one for one in (first, second)), list[Outcome])
        assert_type(svc.reset([second], ttl=60, deadline=datetime.now(UTC)), list[Outcome])
        svc.delete(first)
        svc.delete((second,))


def test_a_loop_is_an_iterator() -> None:
    with jobq.open(":memory:") as svc:
        loop: Iterator[Job] = svc.consume("mail", timeout=0)
        assert list(loop) == []


def test_coroutines() -> None:
    async def main() -> None:
        async with jobq.open(":memory:") as svc:
            assert_type(svc, JobService)
            job_id = await svc.aenqueue("mail", {"n": 1}, weight=1, delay=0.0, lease=30)
            assert_type(job_id, str)
            assert_type(await svc.aenqueue_many("mail", range(9)), list[str])
            async with svc.abatch() as batch:
                assert_type(batch.enqueue("mail", None, retention=0), None)
            assert_type(batch.ids, list[str])

            jobs = await svc.areserve("mail", 6, timeout=0)
            assert_type(jobs, list[Job])
            async with jobs[0] as job:
                assert_type(job, Job)
                assert_type(await job.acanceled(), bool)
                assert_type(await job.adone([1], then=[NewJob("next")]), list[str])
                assert_type(await svc.await_job(job.id, 5), JobRecord)
            await jobs[1].aretry(timedelta(seconds=1), error=ValueError("x"))
            await jobs[2].arelease(0.5)
            await jobs[3].acancel("rejected", error="x")
            await jobs[4].aextend(5)
            assert_type(await svc.adone_many(jobs[4:]), list[Outcome])
            async for job in svc.aconsume("mail", n=2, timeout=0, on_lost=print):
                assert_type(job, Job)
                async with job:
                    raise LookupError
            async with aclosing(svc.aconsume("mail", timeout=0)) as loop:
                jobs = [job async for job in loop]

            assert_type(await svc.astatus(job_id), Status)
            assert_type(await svc.aget(job_id), JobRecord)
            assert_type(await svc.afind(status="ready", limit=5), list[JobRecord])
            assert_type(await svc.select(everything=True).acancel(rate=5), BulkResult)
            assert_type([job async for job in svc.select(dead=True)], list[JobRecord])
            assert_type(await svc.astats(), Stats)
            assert_type(await svc.acancel([job_id]), list[Outcome])
            assert_type(await svc.apurge("mail"), int)
            wrong = [
                lambda: svc.aenqueue(5),  # type: ignore[arg-type]
                lambda: svc.aenqueue("mail", lease="5"),  # type: ignore[arg-type]
                lambda: svc.areserve("mail", "5"),  # type: ignore[arg-type]
                lambda: jobs[5].adone(then=["mail"]),  # type: ignore[list-item]
            ]
            assert len(wrong) == 4

    asyncio.run(main())


def test_a_backoff_of_ones_own() -> None:
    def backoff(k: int, options: jobq.JobOptions) -> float:
        return min(options.max_backoff or 0, k)

    with jobq.open(":memory:") as svc:
        JobService(svc.store, backoff=backoff, jitter=0.0)


def test_what_is_wrong_is_told_before_it_runs() -> None:
    with jobq.open(":memory:") as svc:
        (job_id,) = svc.enqueue_many("mail", [1])
        (job,) = svc.reserve("mail")
        wrong: list[Callable[[], object]] = [
            lambda: svc.enqueue(5),  # type: ignore[arg-type]
            lambda: svc.enqueue("mail", leese=5),  # type: ignore[call-arg]
            lambda: svc.enqueue("mail", lease="5"),  # type: ignore[arg-type]
            lambda: svc.enqueue("mail", weight=1.5),  # type: ignore[arg-type]
            lambda: svc.reserve("mail", "5"),  # type: ignore[arg-type]
            lambda: svc.cancel(5),  # type: ignore[call-overload]
            lambda: svc.get(None),  # type: ignore[call-overload]
            lambda: job.done(then=["mail"]),  # type: ignore[list-item]
            lambda: job.cancel(5),  # type: ignore[arg-type]
            lambda: svc.done_many([job_id]),  # type: ignore[list-item]
        ]
        for call in wrong:
            with pytest.raises(jobq.InvalidValue):
                call()
        with pytest.raises(AttributeError):
            job.payload = 5  # type: ignore[misc]


def test_every_public_name_can_be_named_from_jobq() -> None:
    names = [getattr(jobq, name) for name in jobq.__all__]

    assert len(names) == len(set(jobq.__all__))
    assert {name for name in vars(jobq) if not name.startswith("_")} >= set(jobq.__all__)
