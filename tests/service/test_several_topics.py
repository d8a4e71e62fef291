"""Jobs of several topics, from services: what can be asked for, in loops and in coroutines."""

import asyncio
import threading
from collections import Counter
from contextlib import aclosing
from typing import Any

import pytest

from jobq import Job, JobService, NewJob, Pattern
from jobq.errors import InvalidValue
from tests.conftest import DEADLINE_S, Crew
from tests.service.coroutines import counts, run, until


def names(jobs: list[Job]) -> str:
    return "".join(job.topic[0] for job in jobs)


def fill(svc: JobService, *topics: str, n: int = 20) -> None:
    for topic in topics:
        svc.enqueue_many(topic, range(n))


def test_reserve_takes_topics_in_all_their_forms(svc: JobService) -> None:
    fill(svc, "mail", "import", "report.a")

    assert names(svc.reserve("mail", 2)) == "mm"
    assert names(svc.reserve(["mail", "import"], 4)) == "mimi"
    assert names(svc.reserve({"mail": 3, "import": 1}, 4)) == "mimm"
    assert names(svc.reserve(("import", "mail"), 3, strict=True)) == "iii"
    assert names(svc.reserve(Pattern("rep*"), 2)) == "rr"
    assert names(svc.reserve([Pattern("rep*"), "never"], 2)) == "rr"
    assert svc.reserve(["never", Pattern("no?")], timeout=0) == []


@pytest.mark.parametrize("topics", [None, [], {"mail": 0}, ["mail", "mail"], {"mail"}, [7]])
def test_a_wrong_choice_of_topics_is_refused_before_anything_is_done(
    svc: JobService, topics: Any
) -> None:
    for call in (svc.reserve, svc.consume, svc.aconsume):
        with pytest.raises(InvalidValue):
            call(topics, timeout=0)
    with pytest.raises(InvalidValue):
        run(svc.areserve(topics, timeout=0))
    with pytest.raises(InvalidValue):
        svc.reserve("mail", strict=1, timeout=0)  # type: ignore[arg-type]


def test_consume_takes_several_topics_in_turns_and_in_one_commit_a_job(svc: JobService) -> None:
    fill(svc, "mail", "import", n=4)
    seen = []
    for job in svc.consume({"mail": 2, "import": 1}, timeout=0):
        with job:
            seen.append(job)

    assert names(seen) == "mimmimii"
    assert counts(svc) == {"done": 8}


def test_consume_drains_topics_in_a_strict_order_also_when_jobs_come_meanwhile(
    svc: JobService,
) -> None:
    fill(svc, "a", "b", n=2)
    seen = []
    for job in svc.consume(["a", "b"], strict=True, timeout=0):
        seen.append(job)
        job.done(then=[NewJob("a")] if len(seen) == 3 else [])

    assert names(seen) == "aabab"


def test_a_loop_over_a_pattern_gets_jobs_of_topics_that_its_own_jobs_make(svc: JobService) -> None:
    svc.enqueue("step.1", 1)
    seen = []
    for job in svc.consume(Pattern("step.*"), timeout=0):
        with job:
            seen.append(job.topic)
            if job.payload < 4:
                job.done(then=[NewJob(f"step.{job.payload + 1}", job.payload + 1)])

    assert seen == ["step.1", "step.2", "step.3", "step.4"]


def test_a_job_of_the_second_topic_ends_the_waiting(live: JobService, crew: Crew) -> None:
    got: list[Job] = []
    asked = threading.Event()

    def wait() -> None:
        asked.set()
        got.extend(live.reserve(["first", Pattern("second.*")], timeout=DEADLINE_S))

    thread = crew.start(wait)
    asked.wait()
    live.enqueue("second.a")
    thread.join(DEADLINE_S)

    assert [job.topic for job in got] == ["second.a"]


def test_coroutines_reserve_of_several_topics(svc: JobService) -> None:
    async def main() -> None:
        fill(svc, "mail", "import")
        assert names(await svc.areserve({"mail": 5, "import": 1}, 7, timeout=0)) == "mimmmmm"
        jobs = await svc.areserve(["mail", "import"], 3, strict=True, timeout=0)
        assert names(jobs) == "mmm"
        async with aclosing(svc.aconsume(Pattern("*"), timeout=0)) as loop:
            async for job in loop:
                async with job:
                    pass

    run(main())

    assert counts(svc) == {"done": 30, "reserved": 10}


def test_coroutines_that_wait_for_one_mix_share_a_thread_and_all_get_their_jobs(
    live: JobService,
) -> None:
    def threads() -> list[str]:
        return [name for one in threading.enumerate() if "jobq-waits" in (name := one.name)]

    async def main() -> list[Job]:
        mixes: list[Any] = [["a", "b"]] * 5 + [{"b": 1, "a": 1}] * 2 + ["a", Pattern("?")]
        tasks = [asyncio.ensure_future(live.areserve(mix)) for mix in mixes]
        await until(lambda: len(threads()) == 4)
        for number in range(len(tasks)):
            await live.aenqueue("ab"[number % 2])
        # Who waits for `a` alone may have to wait for what the others have left of it.
        await until(lambda: sum(task.done() for task in tasks) >= len(tasks) - 1)
        await live.aenqueue("a")
        jobs = [job for task in tasks for job in await task]
        await live.adone_many(jobs)
        return jobs

    jobs = run(main())

    assert len(jobs) == 9
    assert Counter(job.topic for job in jobs)["a"] >= 4


def test_a_thousand_coroutines_keep_the_shares(svc: JobService) -> None:
    async def work() -> str:
        ((job),) = await svc.areserve({"mail": 3, "import": 1}, timeout=0)
        await job.adone()
        return job.topic

    async def main() -> Counter[str]:
        fill(svc, "mail", "import", n=1000)
        return Counter(await asyncio.gather(*[work() for _ in range(1000)]))

    given = run(main())

    assert given == {"mail": 750, "import": 250}
