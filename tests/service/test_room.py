"""Topics that are full, and those that are to be emptied: who waits for that, and what wakes it."""

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable, Sequence
from datetime import timedelta
from functools import partial
from typing import Any, Final

import pytest

from jobq import JobService, NewJob, QueueFull, Status
from jobq.clock import utc
from jobq.errors import StoreUnavailable
from jobq.job import JobSpec
from tests.conftest import DEADLINE_S, SOON_S, Crew, eventually
from tests.repo.test_contract_threads import asleep, asleep_or_gone
from tests.service.coroutines import cancel, run, ticks, until

HOUR: Final = 3600.0


class Waiter:
    """A thread in a call that waits; what came of it, and when."""

    def __init__(self, crew: Crew, call: Callable[[], object], *, sleeps: bool = True) -> None:
        self.outcome: object = None
        self.came_at = 0.0

        def wait() -> None:
            try:
                self.outcome = call()
            except (QueueFull, StoreUnavailable) as error:
                self.outcome = error
            self.came_at = time.monotonic()

        self.thread = crew.start(wait)
        if sleeps:
            eventually(lambda: asleep_or_gone(self.thread))

    def end(self) -> object:
        self.thread.join(DEADLINE_S)
        assert not self.thread.is_alive()
        return self.outcome


# Room.


def test_a_full_topic_refuses_new_jobs_and_nothing_of_them_is_written(live: JobService) -> None:
    live.configure("mail", max_jobs=2)
    live.enqueue_many("mail", range(2))

    def both() -> None:
        with live.batch() as batch:
            batch.enqueue("other")
            batch.enqueue("mail")

    with pytest.raises(QueueFull, match="topic 'mail' is full"):
        live.enqueue("mail")
    with pytest.raises(QueueFull):
        both()
    assert live.stats("other").totals.total == 0
    live.reserve("mail")
    live.enqueue("mail")


def take(svc: JobService) -> object:
    return svc.reserve("mail", timeout=0)


ROOM: dict[str, Callable[[JobService, str], object]] = {
    "reserved": lambda svc, _: take(svc),
    "reserved in a loop": lambda svc, _: next(iter(svc.consume("mail"))),
    "canceled": lambda svc, job_id: svc.cancel(job_id),
    "deleted": lambda svc, job_id: svc.delete(job_id),
    "purged": lambda svc, _: svc.purge("mail"),
    "moved": lambda svc, job_id: svc.edit(job_id, topic="other"),
    "cap raised": lambda svc, _: svc.configure("mail", max_jobs=2),
    "cap unset": lambda svc, _: svc.configure("mail", max_jobs=None),
    "others go": lambda svc, _: svc.configure("mail", when_full="drop-oldest"),
}


@pytest.mark.usefixtures("sound_sleep")
@pytest.mark.parametrize("how", ROOM)
def test_a_producer_that_waits_for_room_is_called_when_there_is_some(
    live: JobService, crew: Crew, how: str
) -> None:
    live.configure("mail", max_jobs=1)
    job_id = live.enqueue("mail")
    waiter = Waiter(crew, lambda: live.enqueue("mail", "late", timeout=None))
    since = time.monotonic()
    ROOM[how](live, job_id)
    late = waiter.end()
    assert waiter.came_at - since < SOON_S
    assert isinstance(late, str)
    assert live.get(late).payload == "late"


def test_room_in_bytes_counts_too(live: JobService, crew: Crew) -> None:
    live.configure("mail", max_bytes=30)
    live.enqueue("mail", "x" * 20)
    waiter = Waiter(crew, lambda: live.enqueue("mail", "y" * 20, timeout=None))
    (job,) = live.reserve("mail")

    assert live.get(str(waiter.end())).payload == "y" * 20
    job.release()  # what comes back takes room, but is never refused
    with pytest.raises(QueueFull):
        live.enqueue("mail", "z")


def test_a_store_that_is_full_has_room_when_any_job_goes(live: JobService, crew: Crew) -> None:
    live.configure(None, max_jobs=2)
    live.enqueue("a")
    live.enqueue("b")

    with pytest.raises(QueueFull, match="the store is full"):
        live.enqueue("c")
    waiter = Waiter(crew, lambda: live.enqueue("c", timeout=None))
    live.reserve("b")
    assert isinstance(waiter.end(), str)
    waiter = Waiter(crew, lambda: live.enqueue("c", timeout=None))
    live.configure(None, max_jobs=3)
    assert isinstance(waiter.end(), str)


@pytest.mark.parametrize("topic", ["mail", None])
def test_who_waits_while_a_topic_is_drained_gets_in_when_it_is_resumed(
    live: JobService, crew: Crew, topic: str | None
) -> None:
    assert live.drain(topic, timeout=0)
    waiter = Waiter(crew, lambda: live.enqueue("mail", timeout=None))
    live.resume(topic)

    assert isinstance(waiter.end(), str)


def test_many_who_wait_all_get_in_in_the_end(live: JobService, crew: Crew) -> None:
    live.configure("mail", max_jobs=2)
    waiters = [
        Waiter(crew, partial(live.enqueue, "mail", n, timeout=None), sleeps=False)
        for n in range(12)
    ]
    got = [job.payload for _, job in zip(range(12), live.consume("mail"), strict=False)]

    assert sorted(got) == list(range(12))
    assert all(isinstance(waiter.end(), str) for waiter in waiters)


def test_several_jobs_wait_until_there_is_room_for_all_of_them(
    live: JobService, crew: Crew
) -> None:
    live.configure("mail", max_jobs=3)
    live.enqueue_many("mail", range(3))

    def batch() -> list[str]:
        with live.batch(timeout=None) as batch:
            batch.enqueue("other")
            batch.enqueue("mail")
        return batch.ids

    many = Waiter(crew, lambda: live.enqueue_many("mail", range(2), timeout=None))
    live.reserve("mail")
    eventually(lambda: asleep(many.thread))  # it has looked, and found room for one only
    assert many.outcome is None
    live.reserve("mail")
    assert len(many.end()) == 2  # type: ignore[arg-type]
    together = Waiter(crew, batch)
    live.reserve("mail")
    assert len(together.end()) == 2  # type: ignore[arg-type]


def test_who_waits_for_room_gives_up_in_time_and_when_the_service_stops(
    live: JobService, crew: Crew
) -> None:
    live.configure("mail", max_jobs=0)
    before = time.monotonic()
    with pytest.raises(QueueFull):
        live.enqueue("mail", timeout=0.05)
    assert time.monotonic() - before >= 0.05

    waiters = [Waiter(crew, lambda: live.enqueue("mail", timeout=None)) for _ in range(2)]
    live.stop()
    assert [type(waiter.end()) for waiter in waiters] == [QueueFull] * 2
    with pytest.raises(QueueFull):
        live.enqueue("mail", timeout=None)
    live.configure("mail", max_jobs=1)
    live.enqueue("mail", timeout=None)  # a stopped service goes on taking jobs in


def test_follow_up_jobs_do_not_wait(live: JobService) -> None:
    live.enqueue("mail")
    live.configure("next", max_jobs=0)
    (job,) = live.reserve("mail")

    with pytest.raises(QueueFull):
        job.done(then=[NewJob("next")])
    assert not job.canceled
    job.done()


# Room, for coroutines.


def test_coroutines_wait_for_room_while_their_loop_goes_on(live: JobService) -> None:
    async def main() -> None:
        live.configure("mail", max_jobs=1)
        live.enqueue("mail", "first")
        tasks = [asyncio.ensure_future(live.aenqueue("mail", n, timeout=None)) for n in range(40)]
        tasks.append(asyncio.ensure_future(live.aenqueue_many("mail", [40], timeout=None)))  # type: ignore[arg-type]
        await ticks()
        assert await live.atopics() == ["mail"]  # no thread is taken up by who waits
        got = [(await live.areserve("mail"))[0].payload for _ in range(42)]
        await asyncio.gather(*tasks)
        assert got[0] == "first"
        assert sorted(got[1:]) == list(range(41))

    run(main())


def test_coroutines_get_room_in_the_order_in_which_they_came(
    live: JobService, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main() -> None:
        live.configure("mail", max_jobs=1)
        live.enqueue("mail", -1)
        tasks = [asyncio.ensure_future(live.aenqueue("mail", n, timeout=None)) for n in range(40)]
        late = asyncio.ensure_future(live.aenqueue("mail", "late", timeout=0.05))
        with pytest.raises(QueueFull):
            await late
        looks = []
        enqueue = live.store.enqueue

        def counted(specs: Sequence[JobSpec]) -> list[bytes]:
            looks.append(len(specs))
            return enqueue(specs)

        monkeypatch.setattr(live.store, "enqueue", counted)
        got = [(await live.areserve("mail"))[0].payload for _ in range(41)]
        await asyncio.gather(*tasks)
        assert got == list(range(-1, 40))
        assert len(looks) < 5 * len(tasks)  # one at a time, not each whenever a job goes

    run(main())


def test_a_coroutine_that_is_cancelled_before_its_turn_for_room_lets_others_by(
    live: JobService,
) -> None:
    async def main() -> None:
        live.configure("mail", max_jobs=0)
        tasks = [asyncio.ensure_future(live.aenqueue("mail", n, timeout=None)) for n in range(4)]
        await until(waits(tasks[0]))
        await ticks()
        for task in tasks[:2]:  # one that looks, and one that waits for its turn
            await cancel(task)
        live.configure("mail", max_jobs=None)
        await asyncio.gather(*tasks[2:])
        assert [job.payload for job in await live.areserve("mail", 9)] == [2, 3]

    run(main())


def test_a_batch_of_a_coroutine_waits_for_room_and_ends_in_time(live: JobService) -> None:
    async def batch(seconds: float | None) -> list[str]:
        async with live.abatch(timeout=seconds) as batch:
            batch.enqueue("mail")
        return batch.ids

    async def main() -> None:
        live.configure("mail", max_jobs=0)
        with pytest.raises(QueueFull):
            await batch(0)
        with pytest.raises(QueueFull):
            await batch(0.05)
        task = asyncio.ensure_future(batch(None))
        await ticks()
        live.configure("mail", max_jobs=1)
        assert len(await task) == 1

    run(main())


def waits(task: asyncio.Task[Any]) -> Callable[[], bool]:
    """Whether the thread that calls coroutines knows of the one that waits in *task*."""
    return lambda: task.done() or any(one.name == "jobq-ends" for one in threading.enumerate())


def test_a_coroutine_that_waits_for_room_can_be_cancelled(live: JobService) -> None:
    async def main() -> None:
        live.configure("mail", max_jobs=0)
        task = asyncio.ensure_future(live.aenqueue("mail", timeout=None))
        await until(waits(task))
        await cancel(task)
        assert task.cancelled()
        live.configure("mail", max_jobs=5)
        assert live.stats("mail").totals.total == 0

    run(main())


@pytest.mark.parametrize("end", ["stop", "close"])
def test_coroutines_that_wait_give_up_when_the_service_ends(live: JobService, end: str) -> None:
    async def main() -> None:
        live.configure("mail", max_jobs=0)
        live.enqueue("other")
        producer = asyncio.ensure_future(live.aenqueue("mail", timeout=None))
        drainer = asyncio.ensure_future(live.adrain("other"))
        await until(waits(producer))
        await ticks()
        if end == "stop":
            live.stop()
        else:
            await live.aclose()
        ended = await asyncio.gather(producer, drainer, return_exceptions=True)
        assert isinstance(ended[0], QueueFull | StoreUnavailable)
        assert ended[1] is False or isinstance(ended[1], StoreUnavailable)

    run(main())


# Draining.


def test_a_topic_without_jobs_is_drained_at_once_and_takes_none_until_it_is_resumed(
    live: JobService,
) -> None:
    assert live.drain("mail")
    assert live.settings("mail").draining
    with pytest.raises(QueueFull, match="topic 'mail' is draining"):
        live.enqueue("mail")
    live.enqueue("other")

    live.resume("mail")
    live.enqueue("mail")


LAST: dict[str, Callable[[JobService, str], object]] = {
    "done": lambda svc, _: svc.reserve("mail")[0].done(),
    "exhausted": lambda svc, _: svc.reserve("mail")[0].retry(),
    "rejected": lambda svc, _: svc.reserve("mail")[0].cancel("rejected"),
    "canceled": lambda svc, job_id: svc.cancel(job_id),
    "canceled under its holder": lambda svc, job_id: (take(svc), svc.cancel(job_id)),
    "deleted": lambda svc, job_id: svc.delete(job_id),
    "purged": lambda svc, _: svc.purge("mail"),
    "moved": lambda svc, job_id: svc.edit(job_id, topic="other"),
    "moved while delayed": lambda svc, job_id: (
        svc.edit(job_id, delay=HOUR),
        svc.edit(job_id, topic="other"),
    ),
    "expired": lambda svc, job_id: svc.edit(
        job_id, deadline=utc(time.time_ns() // 1000) + timedelta(seconds=0.05)
    ),
}


@pytest.mark.parametrize("keep", [None, 0])
@pytest.mark.parametrize("how", LAST)
def test_draining_waits_for_the_end_of_the_last_job_whatever_it_is(
    live: JobService,
    crew: Crew,
    how: str,
    keep: float | None,
    request: pytest.FixtureRequest,
) -> None:
    if how != "expired":  # by the clock: nobody calls, who waits looks at it often enough
        request.getfixturevalue("sound_sleep")
    job_id = live.enqueue("mail", retention=keep, max_retries=0)
    waiter = Waiter(crew, lambda: live.drain("mail"))
    since = time.monotonic()
    LAST[how](live, job_id)
    assert waiter.end() is True
    assert waiter.came_at - since < SOON_S


def test_the_whole_store_is_drained_when_its_last_job_has_ended(
    live: JobService, crew: Crew
) -> None:
    ids = [live.enqueue(topic) for topic in ("a", "b", "c")]
    waiter = Waiter(crew, live.drain)
    with pytest.raises(QueueFull, match="the store is draining"):
        live.enqueue("new")
    for job_id in ids[:2]:
        live.cancel(job_id)
    eventually(lambda: asleep(waiter.thread))
    assert waiter.outcome is None
    live.reserve("c")[0].done()

    assert waiter.end() is True
    live.resume()
    live.enqueue("new")


def test_draining_serves_what_is_there(live: JobService) -> None:
    live.enqueue("mail", 1)
    live.enqueue("mail", 2, delay=HOUR)
    (job,) = live.reserve("mail")

    assert live.drain("mail", timeout=0) is False
    job.retry(0)
    assert live.drain("mail", timeout=0.02) is False
    live.done_many(live.reserve("mail"))
    (delayed,) = live.find(status="delayed")
    live.edit(delayed.id, delay=0)
    live.done_many(live.reserve("mail"))
    assert live.drain("mail", timeout=0) is True
    assert live.stats("mail").totals.of(Status.DONE) == 2


def test_who_drains_gives_up_when_the_service_stops(live: JobService, crew: Crew) -> None:
    live.enqueue("mail")
    waiter = Waiter(crew, lambda: live.drain("mail"))
    live.stop()

    assert waiter.end() is False
    assert live.settings("mail").draining


def test_coroutines_wait_until_a_topic_is_empty(live: JobService) -> None:
    async def main() -> None:
        live.enqueue_many("mail", range(2))
        tasks: list[Awaitable[bool]] = [
            asyncio.ensure_future(live.adrain(topic)) for topic in ("mail", None, "mail")
        ]
        assert await live.adrain("mail", timeout=0) is False
        assert await live.adrain(timeout=0.02) is False
        for job in await live.areserve("mail", 2):
            await job.adone()
        assert await asyncio.gather(*tasks) == [True] * 3
        await live.aresume()
        await live.aresume("mail")
        await live.aenqueue("mail")

    run(main())
