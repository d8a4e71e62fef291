"""The beginning and the end of what coroutines share: threads, loops, forks, programs."""

import asyncio
import gc
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

import jobq
from jobq import Job, JobService
from jobq.clock import SystemClock
from jobq.errors import StoreUnavailable
from tests.conftest import DEADLINE_S, Opener
from tests.service.coroutines import SHORT_S, NobodyWrites, counts, run, ticks, until

ROOT = Path(__file__).parent.parent.parent


def test_a_service_that_is_used_without_coroutines_has_none_of_their_threads(
    svc: JobService,
) -> None:
    before = threading.active_count()
    svc.enqueue("mail")
    (job,) = svc.reserve("mail")
    job.done()
    svc.aconsume("mail")
    svc.abatch()

    assert threading.active_count() == before


@pytest.mark.parametrize("asynchronous", [True, False])
def test_close_ends_all_threads_and_releases_what_is_held(
    opener: Opener, asynchronous: bool
) -> None:
    before = set(threading.enumerate())
    store = opener(clock=SystemClock())
    svc = JobService(store)
    svc.enqueue_many("mail", range(5))

    async def main() -> list[Job]:
        (first,) = await svc.areserve("mail")
        (second,) = await svc.areserve("mail")
        loop = svc.aconsume("mail", n=2)
        await anext(loop)
        waiting = asyncio.ensure_future(svc.areserve("other"))
        await svc.astats()
        asyncio.ensure_future(svc.await_job(first.id)).add_done_callback(lambda t: t.exception())
        await until(lambda: len(set(threading.enumerate()) - before) >= 5)
        if asynchronous:
            await svc.aclose()
            await svc.aclose()
        else:
            svc.close()
        assert await waiting == []
        await ticks()
        return [first, second]

    jobs = run(main())
    assert set(threading.enumerate()) - before == set()
    with pytest.raises(StoreUnavailable):
        jobs[0].done()


def test_close_releases_what_coroutines_hold(durable_opener: Opener) -> None:
    svc = JobService(durable_opener())

    async def main() -> None:
        async with svc:
            await svc.aenqueue_many("mail", range(4))
            await svc.areserve("mail", 2)
            await anext(svc.aconsume("mail", n=2))

    run(main())
    again = JobService(durable_opener())
    assert counts(again) == {"ready": 4}
    assert {record.attempt for record in again.find()} == {0}


def test_what_was_handed_in_before_the_close_is_written(durable_opener: Opener) -> None:
    svc = JobService(durable_opener())

    async def main() -> None:
        await svc.aenqueue("warm up")
        tasks = [asyncio.ensure_future(svc.aenqueue("mail", n)) for n in range(100)]
        await ticks(2)
        svc.close()
        assert len(set(await asyncio.gather(*tasks))) == 100

    run(main())
    assert JobService(durable_opener()).stats("mail").totals.ready == 100


def test_a_closed_service_says_so(svc: JobService) -> None:
    async def main() -> None:
        job_id = await svc.aenqueue("mail")
        (job,) = await svc.areserve("mail")
        await svc.aclose()
        for work in (
            svc.aenqueue("mail"),
            svc.aenqueue_many("mail", [1]),
            svc.astatus(job_id),
            svc.aget(job_id),
            svc.afind(),
            svc.acancel(job_id),
            svc.areset([job_id]),
            svc.adelete([job_id]),
            svc.atopics(),
            svc.astats(),
            svc.aprune(),
            svc.acheck(),
            svc.await_job(job_id),
            svc.adone_many([job]),
            job.adone(),
            job.aextend(5),
            job.acanceled(),
        ):
            with pytest.raises(StoreUnavailable):
                await work
        assert await svc.areserve("mail") == []
        assert [job async for job in svc.aconsume("mail")] == []

    run(main())


def test_a_service_that_is_closed_before_its_first_coroutine_says_so(opener: Opener) -> None:
    svc = JobService(opener())
    svc.close()
    before = threading.active_count()

    async def main() -> None:
        with pytest.raises(StoreUnavailable):
            await svc.aenqueue("mail")
        with pytest.raises(StoreUnavailable):
            await svc.astats()
        assert await svc.areserve("mail") == []

    run(main())
    assert threading.active_count() == before


def test_closing_cancelled_in_the_middle_goes_on(opener: Opener) -> None:
    svc = JobService(opener())

    async def main() -> None:
        await svc.aenqueue("mail")
        await svc.areserve("mail")
        with NobodyWrites(svc.store):
            task = asyncio.ensure_future(svc.aclose())
            await asyncio.sleep(10 * SHORT_S)
            task.cancel()
            await asyncio.wait([task])
            assert task.cancelled()
        await until(lambda: svc.closed)

    run(main())
    with pytest.raises(StoreUnavailable):
        svc.stats()


def test_one_service_serves_one_loop_after_another(svc: JobService) -> None:
    async def main() -> None:
        await svc.aenqueue("mail")
        (job,) = await svc.areserve("mail")
        async with job:
            pass

    for _ in range(20):
        run(main())
    assert counts(svc) == {"done": 20}


# Programs. Each is a process of its own, that ends without closing its service.

HEAD = """
import asyncio, gc, os, sys, jobq
svc = jobq.open(sys.argv[1], durability="unsafe")
"""


def python(path: Path, source: str) -> str:
    """Run a program; gives what it printed. It must end in peace."""
    done = subprocess.run(
        [sys.executable, "-W", "default", "-c", HEAD + source, str(path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=2 * DEADLINE_S,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def test_the_program_in_the_documentation_does_what_it_says(tmp_path: Path) -> None:
    text = (ROOT / "docs" / "asyncio.md").read_text()
    program = text.split("```python\n")[1].split("```")[0]
    program = program.replace("./queue", str(tmp_path / "documented"))

    assert python(tmp_path / "queue", program) == "{'to': 'ann@example.org'}\n"


def test_a_program_that_ends_at_once_has_committed_what_its_loops_said(tmp_path: Path) -> None:
    python(
        tmp_path / "queue",
        """
svc.enqueue_many("mail", range(200))
async def work():
    async for job in svc.aconsume("mail", n=4):
        async with job:
            pass
        break
async def main():
    await asyncio.gather(*[work() for _ in range(50)])
asyncio.run(main())
""",
    )
    with jobq.open(tmp_path / "queue", durability="unsafe") as svc:
        assert counts(svc) == {"done": 50, "ready": 150}
        assert {record.crashes for record in svc.find(limit=200)} == {0}


def test_a_program_whose_tasks_are_cancelled_at_its_end_loses_no_job(tmp_path: Path) -> None:
    python(
        tmp_path / "queue",
        """
svc.enqueue_many("mail", range(150))
async def work():
    async for job in svc.aconsume("mail", n=2):
        async with job:
            await asyncio.sleep(3600)
async def reserve():
    await svc.areserve("mail")
async def main():
    tasks = [asyncio.ensure_future(work()) for _ in range(50)]
    await asyncio.sleep(0.1)
    tasks += [asyncio.ensure_future(reserve()) for _ in range(50)]
    await asyncio.sleep(0.001)
asyncio.run(main())
""",
    )
    with jobq.open(tmp_path / "queue", durability="unsafe") as svc:
        totals = svc.stats().totals
        # A task may have got its job before it was cancelled, and nobody settled that.
        held = {record.id for record in svc.find(limit=200) if record.crashes}
        assert (totals.ready, totals.reserved) == (150, 0)
        assert len(held) <= 50


def test_a_child_of_a_fork_has_threads_of_its_own(tmp_path: Path) -> None:
    told = python(
        tmp_path / "queue",
        """
async def live(topic, n):
    async def one(number):
        await svc.aenqueue(topic, number)
        (job,) = await svc.areserve(topic, timeout=60)
        async with job:
            pass
    await asyncio.gather(*[one(number) for number in range(n)])
asyncio.run(live("parent", 10))
loop = svc.aconsume("parent")
async def first():
    await svc.aenqueue("parent", "held")
    return await anext(loop)
job = asyncio.run(first())
import warnings
warnings.simplefilter("ignore", DeprecationWarning)  # a fork of a process with threads
pid = os.fork()
if pid == 0:
    asyncio.run(live("child", 100))
    async def leave():  # the parent's block and loop: nothing of theirs is this process's to say
        async with job:
            pass
        assert [one async for one in loop] == []
    asyncio.run(leave())
    gc.collect()
    svc.close()
    os._exit(0)
assert os.waitpid(pid, 0)[1] == 0
asyncio.run(live("parent", 10))
assert not job.canceled
job.done()
print("fine")
""",
    )
    assert told == "fine\n"
    with jobq.open(tmp_path / "queue", durability="unsafe") as svc:
        assert counts(svc) == {"done": 121}


def test_a_fork_of_a_busy_loop_is_harmless(tmp_path: Path) -> None:
    told = python(
        tmp_path / "queue",
        """
import warnings
warnings.simplefilter("ignore", DeprecationWarning)
async def one(number):
    await svc.aenqueue("mail", number)
    (job,) = await svc.areserve("mail", timeout=60)
    async with job:
        pass
async def main():
    for _ in range(20):
        tasks = [asyncio.ensure_future(one(number)) for number in range(20)]
        await asyncio.sleep(0.002)
        pid = os.fork()
        if pid == 0:
            gc.collect()
            os._exit(svc.stats().totals.canceled)
        assert os.waitpid(pid, 0)[1] == 0
        await asyncio.gather(*tasks)
asyncio.run(main())
print("fine")
""",
    )
    assert told == "fine\n"
    with jobq.open(tmp_path / "queue", durability="unsafe") as svc:
        assert counts(svc) == {"done": 400}
        assert svc.check().ok


def test_a_killed_program_s_jobs_come_to_coroutines_that_wait(shared_opener: Opener) -> None:
    svc = JobService(shared_opener(clock=SystemClock()))
    ids = svc.enqueue_many("mail", range(3))
    path = shared_opener.directory / "queue"
    code = HEAD + "svc.reserve('mail', 3)\nprint('held', flush=True)\nsys.stdin.read()"
    holder = subprocess.Popen(
        [sys.executable, "-c", code, str(path)],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONWARNINGS": "ignore"},
    )

    async def main() -> None:
        tasks = [asyncio.ensure_future(svc.areserve("mail")) for _ in range(3)]
        await asyncio.sleep(0.05)
        holder.kill()
        got = [job for jobs in await asyncio.gather(*tasks) for job in jobs]
        assert sorted(job.id for job in got) == sorted(ids)
        assert [job.crashes for job in got] == [1, 1, 1]

    assert holder.stdout is not None
    assert holder.stdout.readline() == b"held\n"
    run(main())
    holder.communicate()
    svc.close()


# Now and then Python finalises an outer coroutine while its inner one is being closed in another
# thread, and says so; the inner one is closed all the same.
@pytest.mark.filterwarnings(
    "ignore:Exception ignored in. <coroutine object:pytest.PytestUnraisableExceptionWarning"
)
def test_what_is_left_when_a_loop_ends_in_the_middle_is_nobodys_loss(svc: JobService) -> None:
    """A loop that is stopped and closed with coroutines in every state; they are dropped."""

    async def life() -> None:
        await svc.aenqueue("mail")
        async for job in svc.aconsume("mail", n=2):
            async with job:
                await asyncio.sleep(0)

    async def main() -> list[asyncio.Task[None]]:
        tasks = [asyncio.ensure_future(life()) for _ in range(100)]
        await asyncio.sleep(10 * SHORT_S)
        return tasks

    loop = asyncio.new_event_loop()
    tasks = loop.run_until_complete(main())
    loop.close()
    for task in tasks:
        task._log_destroy_pending = False  # type: ignore[attr-defined]
    del tasks, task

    run(until_nothing_is_held(svc))
    assert svc.stats().totals.canceled == 0


async def until_nothing_is_held(svc: JobService) -> None:
    def nothing_is_held() -> bool:
        gc.collect()
        return svc.stats().totals.reserved == 0

    await until(nothing_is_held)
