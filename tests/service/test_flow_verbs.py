"""The verbs of flow control, as users call them: pause, limits, groups, keys; and what is told."""

import asyncio
import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest

import jobq
from jobq import (
    BulkProgress,
    GroupStats,
    JobService,
    Outcome,
    Reason,
    Status,
    TopicLimits,
    TopicSettings,
)
from jobq.clock import ManualClock, SystemClock, utc
from jobq.errors import InvalidValue, JobNotFound, QueueFull, ReservationLost, UniqueConflict
from jobq.repo.memory import MemoryStore
from tests.conftest import DEADLINE_S, Crew, Opener, eventually
from tests.repo.test_contract_threads import asleep
from tests.service.coroutines import run


def take(svc: JobService, n: int = 1, topic: str = "mail") -> list[jobq.Job]:
    return svc.reserve(topic, n, timeout=0)


# Pause and resume.


def test_a_paused_topic_takes_jobs_in_and_hands_none_out(svc: JobService) -> None:
    svc.enqueue_many("mail", range(2))
    svc.enqueue("other")
    (held,) = take(svc)

    svc.pause("mail")
    svc.enqueue("mail")
    assert take(svc, 5) == []
    assert len(take(svc, 5, "other")) == 1
    held.done()  # what is reserved goes on
    assert [topic.paused for topic in svc.stats().topics] == [True, False]
    svc.resume("mail")
    assert len(take(svc, 5)) == 2
    assert svc.settings("mail") == TopicSettings()


def test_a_paused_store_hands_nothing_out_and_topics_that_were_paused_stay_so(
    svc: JobService,
) -> None:
    svc.enqueue("a")
    svc.enqueue("b")
    svc.pause("b")

    svc.pause()
    assert svc.settings(None) == TopicSettings(paused=True)
    assert take(svc, topic="a") == take(svc, topic="b") == []
    assert [topic.paused for topic in svc.stats().topics] == [True, True]
    assert svc.stats().totals.paused
    assert svc.stats().store["paused"] is True
    svc.resume()
    assert len(take(svc, topic="a")) == 1
    assert take(svc, topic="b") == []
    assert not svc.stats().totals.paused
    assert "paused" not in svc.stats().store


@pytest.mark.parametrize("topic", ["mail", None])
def test_resuming_wakes_who_waits_for_jobs(opener: Opener, crew: Crew, topic: str | None) -> None:
    with JobService(opener(clock=SystemClock())) as svc:
        svc.enqueue("mail")
        svc.pause(topic)
        got: list[jobq.Job] = []
        waiter = crew.start(lambda: got.extend(svc.reserve("mail")))
        eventually(lambda: asleep(waiter))
        svc.resume(topic)
        waiter.join(DEADLINE_S)

    assert len(got) == 1


def test_pausing_twice_or_resuming_what_goes_on_changes_nothing(svc: JobService) -> None:
    svc.resume("new")
    svc.resume()
    assert svc.topics() == []
    for _ in range(2):
        svc.pause("mail")
    assert svc.settings("mail").as_dict() == {"paused": True}


def test_settings_outlive_who_made_them(durable_opener: Opener) -> None:
    with JobService(durable_opener()) as svc:
        svc.configure("mail", rate=(5, 60), group_retries="pass", when_full="drop-lowest")
        svc.configure(None, max_jobs=7, paused=True)
    with JobService(durable_opener()) as svc:
        assert svc.settings("mail").as_dict() == {
            "rate": (5, 60.0),
            "group_retries": "pass",
            "when_full": "drop-lowest",
        }
        assert svc.settings(None).as_dict() == {"paused": True, "max_jobs": 7}
        assert svc.topics() == ["mail"]


# Limits.


def test_limits_say_how_near_a_topic_is_to_them(svc: JobService, clock: ManualClock) -> None:
    assert svc.limits("new") == TopicLimits(TopicSettings())

    settings = svc.configure("mail", concurrency=5, rate=(2, 60), max_jobs=10)
    svc.enqueue_many("mail", ["payload"] * 4)
    svc.enqueue("mail", delay=60)
    size = svc.limits("mail").bytes
    assert size == svc.stats("mail").totals.bytes > 4 * len("payload")
    assert svc.limits("mail") == TopicLimits(settings, allowed=2, jobs=5, bytes=size)

    assert len(take(svc, 4)) == 2
    limits = svc.limits("mail")
    assert (limits.running, limits.allowed, limits.jobs) == (2, 0, 3)
    assert limits.next_at == utc(clock.wall_us()) + timedelta(seconds=30)
    json.dumps(limits.as_dict())
    clock.advance(30)
    assert (svc.limits("mail").allowed, svc.limits("mail").next_at) == (1, None)


def test_limits_of_the_whole_store_count_all_topics(svc: JobService) -> None:
    svc.enqueue_many("a", range(2))
    svc.enqueue("b", delay=5)
    take(svc, 1, "a")
    svc.configure(None, max_jobs=2)

    limits = svc.limits(None)
    assert limits.settings == TopicSettings(max_jobs=2)
    assert (limits.running, limits.jobs, limits.allowed) == (1, 2, None)
    with pytest.raises(QueueFull):
        svc.enqueue("c")


def test_an_operator_ends_what_the_holder_of_a_canceled_job_takes_up(svc: JobService) -> None:
    svc.configure("mail", concurrency=1)
    first, second = svc.enqueue("mail", unique="k"), svc.enqueue("mail")
    (held,) = take(svc)
    svc.cancel(first)
    assert take(svc) == []
    assert (svc.limits("mail").running, svc.limits("mail").lingering) == (1, 1)
    assert svc.stats("mail").topics[0].running == 1
    assert [key.job_id for key in svc.keys(limit=9)] == [first]

    assert svc.release_limits("mail") == 1
    assert svc.release_limits("mail") == 0
    assert svc.release_limits("nowhere") == 0
    assert svc.keys() == []
    assert [job.id for job in take(svc)] == [second]
    with pytest.raises(ReservationLost):
        held.done()
    assert svc.limits("mail").running == 1


def test_an_operator_lets_a_rate_begin_anew(svc: JobService) -> None:
    svc.configure("mail", rate=(1, 3600))
    svc.enqueue_many("mail", range(3))
    assert (len(take(svc, 3)), len(take(svc, 3))) == (1, 0)

    assert svc.release_limits("mail") == 0
    assert len(take(svc, 3)) == 1


# Groups.


def test_groups_are_listed_by_name_with_what_they_have(svc: JobService, clock: ManualClock) -> None:
    svc.configure("mail", group_concurrency=1, group_rate=(1, 60))
    for group in ("b", "a", "é", "a"):
        svc.enqueue("mail", group=group)
    svc.enqueue("mail")
    assert svc.groups("mail") == [
        GroupStats(*one) for one in [("a", 2, 0), ("b", 1, 0), ("é", 1, 0)]
    ]
    assert [one.group for one in svc.groups("mail", after="a", limit=1)] == ["b"]
    assert svc.groups("mail", after="é") == svc.groups("nowhere") == []
    assert svc.stats("mail").topics[0].groups == 3

    held = {job.id: job for job in take(svc, 10)}
    assert len(held) == 4  # one of each group, and the one of none
    first = svc.groups("mail")[0]
    assert (first.ready, first.running, first.lingering) == (1, 1, 0)
    assert first.next_at == utc(clock.wall_us()) + timedelta(seconds=60)
    json.dumps(first.as_dict())


def test_an_operator_releases_groups(svc: JobService) -> None:
    svc.configure("mail", group_concurrency=1)
    ids = [svc.enqueue("mail", group=group) for group in ("a", "a", "b", "b")]
    take(svc, 4)
    svc.cancel([ids[0], ids[2]])
    assert take(svc, 4) == []
    assert [(one.running, one.lingering) for one in svc.groups("mail")] == [(1, 1), (1, 1)]

    assert svc.release_groups("mail", ["a", "c"]) == [Outcome.OK, Outcome.MISSING]
    assert [job.id for job in take(svc, 4)] == [ids[1]]
    svc.release_groups("mail", "b")
    assert [job.id for job in take(svc, 4)] == [ids[3]]
    with pytest.raises(JobNotFound, match="'c'"):
        svc.release_groups("mail", "c")
    with pytest.raises(JobNotFound):
        svc.release_groups("nowhere", "a")
    assert svc.release_groups("mail", []) == []


def test_a_released_group_is_forgotten_when_nothing_of_it_is_left(svc: JobService) -> None:
    svc.configure("mail", group_rate=(1, 3600))
    svc.enqueue("mail", group="a")
    take(svc)[0].done()
    assert [one.group for one in svc.groups("mail")] == ["a"]  # its rate remembers

    svc.release_groups("mail", "a")
    assert svc.groups("mail") == []


# Unique keys.


def test_a_job_is_found_by_its_key_as_long_as_it_has_it(svc: JobService) -> None:
    job_id = svc.enqueue("mail", {"n": 1}, unique="k")
    assert svc.get(unique="k") == svc.get(job_id)
    assert svc.enqueue("other", unique="k") == job_id

    take(svc)[0].done()
    with pytest.raises(JobNotFound, match="no job has the unique key 'k'"):
        svc.get(unique="k")


def test_a_key_for_a_time_outlives_its_job(svc: JobService, clock: ManualClock) -> None:
    job_id = svc.enqueue("mail", unique="k", unique_for=60, retention=0)
    take(svc)[0].done()

    (key,) = svc.keys()
    assert (key.key, key.job_id) == ("k", job_id)
    assert key.until == utc(clock.wall_us()) + timedelta(seconds=60)
    json.dumps(key.as_dict())
    with pytest.raises(JobNotFound):  # it is gone, though the key is taken
        svc.get(unique="k")
    assert svc.enqueue("mail", unique="k") == job_id
    clock.advance(60)
    assert svc.keys() == []
    assert svc.release_keys(["k"]) == [Outcome.MISSING]
    assert svc.enqueue("mail", unique="k") != job_id


def test_keys_are_listed_in_pages(svc: JobService, clock: ManualClock) -> None:
    svc.enqueue_many("mail", range(2))
    names = [f"{n:04}" for n in range(1200)]
    with svc.batch() as batch:
        for n, name in enumerate(names):
            batch.enqueue("mail", unique=name, unique_for=5 if n % 100 else 1000)
    assert [key.key for key in svc.keys(limit=10_000)] == names
    assert [key.key for key in svc.keys(after="0007", limit=2)] == ["0008", "0009"]
    assert svc.keys(after="1199") == []

    clock.advance(5)  # those whose time is over are passed by, however many they are
    assert [key.key for key in svc.keys(limit=3)] == ["0000", "0100", "0200"]
    assert [key.key for key in svc.keys(after="1000")] == ["1100"]


def test_an_operator_frees_a_key_and_its_job_goes_on_without(svc: JobService) -> None:
    first = svc.enqueue("mail", unique="k")
    (held,) = take(svc)

    assert svc.release_keys(["k", "k", "other"]) == [
        Outcome.OK, Outcome.MISSING, Outcome.MISSING,
    ]  # fmt: skip
    second = svc.enqueue("mail", unique="k")
    assert second != first
    held.done()
    assert svc.get(unique="k").id == second
    svc.release_keys("k")
    with pytest.raises(JobNotFound, match="'k'"):
        svc.release_keys("k")
    assert svc.release_keys(iter([])) == []


def test_a_conflict_names_the_job_that_has_the_key(svc: JobService) -> None:
    job_id = svc.enqueue("mail", unique="k")

    with pytest.raises(UniqueConflict, match="'k'") as caught:
        svc.enqueue("mail", unique="k", on_conflict="raise")
    assert caught.value.job_id == job_id


# Deadlines, and bounds of the topic.


def test_a_job_that_cannot_have_its_key_again_says_who_has_it(svc: JobService) -> None:
    first = svc.enqueue("mail", unique="k")
    svc.cancel(first)
    second = svc.enqueue("mail", unique="k")
    other = svc.enqueue("mail")

    verbs: list[Callable[[], object]] = [
        lambda: svc.reset(first),
        lambda: svc.edit(other, unique="k"),
    ]
    for verb in verbs:
        with pytest.raises(UniqueConflict, match=second) as conflict:
            verb()
        assert conflict.value.job_id == second
    assert svc.reset([first]) == [Outcome.CONFLICT]
    assert svc.edit([other], unique="k") == [Outcome.CONFLICT]
    assert svc.status(first) is Status.CANCELED


def test_a_job_and_its_record_say_its_deadline(svc: JobService, clock: ManualClock) -> None:
    at = datetime(2030, 1, 1, tzinfo=UTC)
    by_time, by_age = svc.enqueue("mail", deadline=at), svc.enqueue("mail", ttl=60)
    svc.enqueue("mail")
    soon = utc(clock.wall_us()) + timedelta(seconds=60)

    assert (svc.get(by_time).deadline, svc.get(by_age).deadline) == (at, soon)
    assert [job.deadline for job in take(svc, 3)] == [at, soon, None]
    assert json.loads(json.dumps(svc.get(by_time).as_dict()))["options"] == {
        "deadline": at.isoformat()
    }


def canceled(svc: JobService, **options: Any) -> str:
    job_id = svc.enqueue("mail", **options)
    svc.cancel(job_id)
    return job_id


def test_a_reset_gives_a_new_deadline_to_all_that_are_named(
    svc: JobService, clock: ManualClock
) -> None:
    first, second, third = canceled(svc, ttl=5), canceled(svc), canceled(svc, ttl=7)
    clock.advance(10)
    now = utc(clock.wall_us())
    at = now.astimezone(timezone(timedelta(hours=3))) + timedelta(seconds=60)

    svc.reset(first, ttl=60)
    assert svc.reset([first, second], ttl=90.5, deadline=at) == [Outcome.INVALID, Outcome.OK]
    svc.reset(third)
    assert [svc.get(one).deadline for one in (first, second, third)] == [at, at, None]
    assert [svc.get(one).options.ttl for one in (first, second, third)] == [60.0, 90.5, None]


def test_a_selection_is_reset_each_job_with_its_time_from_then_on(
    svc: JobService, clock: ManualClock
) -> None:
    for ttl in (5, None, 7):
        canceled(svc, ttl=ttl)
    clock.advance(10)
    at = utc(clock.wall_us()) + timedelta(seconds=60)
    everything = svc.select(topic="mail")
    assert everything.reset(ttl=60, dry_run=True).matched == 3
    assert {job.status for job in everything} == {Status.CANCELED}

    def tell(step: BulkProgress) -> None:
        clock.advance(len(step.outcomes))

    assert everything.reset(ttl=60, rate=10, progress=tell).changed == 3
    assert {job.status for job in everything} == {Status.READY}
    assert [job.deadline for job in everything] == [
        at + timedelta(seconds=passed) for passed in range(3)
    ]
    svc.select(status="ready").cancel()
    assert everything.reset(deadline=at + timedelta(days=1), ttl=10**6).changed == 3
    assert [job.deadline for job in everything] == [at + timedelta(days=1)] * 3


def test_coroutines_reset_with_a_deadline_too(svc: JobService, clock: ManualClock) -> None:
    first, second, third = (canceled(svc) for _ in range(3))
    at = utc(clock.wall_us()) + timedelta(seconds=60)

    async def main() -> None:
        await svc.areset(first, ttl=60)
        assert await svc.areset([second], deadline=at) == [Outcome.OK]
        assert (await svc.select(status="canceled").areset(ttl=90, deadline=at)).changed == 1
        for call in (
            lambda: svc.areset([first], ttl=0),
            lambda: svc.select(status="canceled").areset(deadline=datetime(2030, 1, 1)),
        ):
            with pytest.raises(InvalidValue):
                await call()

    run(main())
    assert [svc.get(one).deadline for one in (first, second, third)] == [at] * 3


def test_the_deadline_that_a_service_gives_new_jobs_is_none_for_those_that_are_reset(
    clock: ManualClock,
) -> None:
    with JobService(MemoryStore(clock=clock), ttl=60) as svc:
        job_id = canceled(svc)
        svc.reset(job_id)
        assert svc.get(job_id).deadline is None


def test_a_job_whose_deadline_has_passed_is_canceled_without_a_worker(
    svc: JobService, clock: ManualClock
) -> None:
    job_id = svc.enqueue("mail", ttl=60)
    clock.advance(60)
    assert take(svc) == []

    record = svc.get(job_id)
    assert (record.status, record.reason) == (Status.CANCELED, Reason.EXPIRED)


def test_a_topic_bounds_retries_and_leases(svc: JobService) -> None:
    svc.configure("mail", max_retries=1, max_lease=5)
    job_id = svc.enqueue("mail", max_retries=9, lease=60)
    for _ in range(2):
        (job,) = take(svc)
        assert job.options.max_retries == 1
        job.retry(0)

    assert svc.get(job_id).reason is Reason.EXHAUSTED


def test_a_first_wait_of_a_topic_is_no_longer_than_its_longest(svc: JobService) -> None:
    svc.configure("mail", max_backoff=60)

    with pytest.raises(InvalidValue, match=r"min_backoff 90\.0 is more than max_backoff 60\.0"):
        svc.configure("mail", min_backoff=90)
    assert svc.settings("mail").min_backoff is None


# For coroutines.


def test_all_of_it_has_twins_for_coroutines(svc: JobService) -> None:
    async def main() -> None:
        assert (await svc.aconfigure("mail", group_concurrency=1)).group_concurrency == 1
        job_id = await svc.aenqueue("mail", group="g", unique="k")
        await svc.apause("mail")
        assert await svc.areserve("mail", timeout=0) == []
        await svc.aresume("mail")
        await svc.areserve("mail")
        assert (await svc.aget(unique="k")).id == job_id
        assert [key.key for key in await svc.akeys()] == ["k"]
        assert [group.group for group in await svc.agroups("mail")] == ["g"]
        assert (await svc.alimits("mail")).running == 1
        await svc.acancel(job_id)
        assert await svc.arelease_groups("mail", iter(["g", "h"])) == [
            Outcome.OK, Outcome.MISSING,
        ]  # fmt: skip
        assert await svc.arelease_limits("mail") == 0
        assert await svc.arelease_keys(iter(["k"])) == [Outcome.MISSING]
        assert (await svc.asettings(None)) == TopicSettings()
        for call in (svc.arelease_keys("k"), svc.arelease_groups("mail", "g")):
            with pytest.raises(JobNotFound):
                await call
        with pytest.raises(InvalidValue):
            await svc.adrain("")
        assert await asyncio.wait_for(svc.adrain("mail"), 10)

    run(main())
