"""Options of jobs and services, and what they do: retries, backoff, leases, crashes."""

from typing import Any

import pytest

from jobq import Job, JobOptions, JobService, NewJob, Reason, Status
from jobq.clock import ManualClock
from jobq.errors import InvalidValue
from jobq.options import LONGEST_S
from tests.conftest import Opener


def reserve_one(svc: JobService, topic: str = "mail") -> Job:
    (job,) = svc.reserve(topic, timeout=0)
    return job


def wait_us(svc: JobService, job_id: str, clock: ManualClock) -> int:
    due_us = svc.get(job_id).due_us
    assert due_us is not None
    return due_us - clock.wall_us()


def test_a_jobs_option_goes_before_the_services_and_that_before_the_default(
    opener: Opener,
) -> None:
    svc = JobService(opener(), lease=30, max_retries=3, name="service")
    svc.enqueue("mail", lease=5, max_retries=None)
    job = reserve_one(svc)

    assert (job.options.lease, job.options.max_retries) == (5.0, 3)
    assert (job.options.name, job.options.max_crashes) == ("service", 5)
    assert svc.get(job.id).options.as_dict() == {"lease": 5.0, "max_retries": 3, "name": "service"}
    assert svc.get(job.id).effective.factor == 2.0


def test_the_services_options_hold_however_a_job_is_enqueued(opener: Opener) -> None:
    svc = JobService(opener(), max_retries=7)
    ids = svc.enqueue_many("mail", [1])
    with svc.batch() as batch:
        batch.enqueue("mail")
    (job,) = svc.reserve("mail")
    ids += batch.ids + job.done(then=[NewJob("mail")])

    assert [svc.get(job_id).options.max_retries for job_id in ids] == [7, 7, 7]


def test_a_reader_without_those_options_sees_what_the_job_was_enqueued_with(
    opener: Opener,
) -> None:
    store = opener()
    job_id = JobService(store, lease=30).enqueue("mail", tags=["b", "a"])
    other = JobService(store, lease=99, max_retries=0)

    assert other.get(job_id).options.as_dict() == {"lease": 30.0, "tags": ("a", "b")}
    assert reserve_one(other).options.max_retries == 20


def test_the_wait_doubles_from_a_second_and_varies_by_a_tenth(
    svc: JobService, clock: ManualClock
) -> None:
    job_id = svc.enqueue("mail")
    waits = []
    for _ in range(20):
        reserve_one(svc).retry()
        waits.append(wait_us(svc, job_id, clock) / 1e6)
        clock.advance(5000)
    middle = [min(3600.0, 2.0**k) for k in range(20)]

    assert all(0.9 * m <= wait <= 1.1 * m for m, wait in zip(middle, waits, strict=True))
    reserve_one(svc).retry()
    assert svc.get(job_id).reason is Reason.EXHAUSTED


def test_the_wait_stays_at_the_cap(svc: JobService, clock: ManualClock) -> None:
    options = {"min_backoff": 1.0, "max_backoff": 10.0, "factor": 3.0, "jitter": 0.0}
    job_id = svc.enqueue("mail", max_retries=2000, **options)  # type: ignore[arg-type]
    waits = []
    for _ in range(1500):  # 3**1500 is far past the largest float
        reserve_one(svc).retry()
        waits.append(wait_us(svc, job_id, clock) / 1e6)
        clock.advance(10)

    assert waits == [1.0, 3.0, 9.0] + [10.0] * 1497


def test_a_first_wait_beyond_the_usual_cap_raises_that(svc: JobService, clock: ManualClock) -> None:
    job_id = svc.enqueue("mail", min_backoff=7200, jitter=0)
    for _ in range(2):
        reserve_one(svc).retry()
        assert wait_us(svc, job_id, clock) == 7200_000_000
        clock.advance(7200)


def test_a_topic_says_how_long_jobs_wait_before_a_retry_that_do_not_say_themselves(
    svc: JobService, clock: ManualClock
) -> None:
    svc.configure("mail", min_backoff=60, factor=3, jitter=0, max_backoff=300)
    plain, own = svc.enqueue("mail"), svc.enqueue("mail", min_backoff=5, factor=1)
    waits: dict[str, list[float]] = {plain: [], own: []}
    for _ in range(3):
        for job in svc.reserve("mail", 2):
            job.retry()
            waits[job.id].append(wait_us(svc, job.id, clock) / 1e6)
        clock.advance(300)

    assert waits == {plain: [60.0, 180.0, 300.0], own: [5.0, 5.0, 5.0]}


def test_the_backoff_counts_retries_and_neither_crashes_nor_releases(
    svc: JobService, clock: ManualClock
) -> None:
    job_id = svc.enqueue("mail", jitter=0, lease=1)
    reserve_one(svc)
    clock.advance(1)
    reserve_one(svc).release()
    reserve_one(svc).retry()
    assert wait_us(svc, job_id, clock) == 1_000_000

    clock.advance(1)
    reserve_one(svc)
    clock.advance(1)
    reserve_one(svc).retry()
    assert wait_us(svc, job_id, clock) == 2_000_000


@pytest.mark.parametrize("delay", [0, 0.5])
def test_a_delay_that_is_given_takes_the_place_of_the_backoff(
    svc: JobService, delay: float
) -> None:
    job_id = svc.enqueue("mail")
    reserve_one(svc).retry(delay)

    assert svc.status(job_id) is (Status.DELAYED if delay else Status.READY)
    assert svc.get(job_id).retries == 1


def test_max_retries_0_means_none(svc: JobService) -> None:
    for delay in (None, 0, 5):
        job_id = svc.enqueue("mail", max_retries=0)
        reserve_one(svc).retry(delay, error="no")
        record = svc.get(job_id)
        assert (record.status, record.reason, record.error) == (
            Status.CANCELED, Reason.EXHAUSTED, "no",
        )  # fmt: skip


def test_max_retries_is_how_often_a_job_comes_back(svc: JobService) -> None:
    job_id = svc.enqueue("mail", max_retries=2)
    for retries in (0, 1, 2):
        job = reserve_one(svc)
        assert job.retries == retries
        job.retry(0)

    assert svc.get(job_id).reason is Reason.EXHAUSTED
    assert svc.get(job_id).attempt == 3


def test_crashes_never_use_up_retries(svc: JobService, clock: ManualClock) -> None:
    job_id = svc.enqueue("mail", max_retries=1, max_crashes=0, lease=1)
    for _ in range(10):
        reserve_one(svc)
        clock.advance(1)
    reserve_one(svc).retry(0)
    assert svc.status(job_id) is Status.READY

    reserve_one(svc).retry(0)
    assert svc.get(job_id).reason is Reason.EXHAUSTED


def test_a_reset_gives_all_retries_back(svc: JobService) -> None:
    job_id = svc.enqueue("mail", max_retries=1)
    for _ in range(3):
        reserve_one(svc).retry(0)
        reserve_one(svc).retry(0)
        assert svc.get(job_id).reason is Reason.EXHAUSTED
        svc.reset(job_id)

    assert svc.get(job_id).resets == 3


def test_a_service_may_have_a_backoff_of_its_own(opener: Opener, clock: ManualClock) -> None:
    asked = []

    def backoff(k: int, options: JobOptions) -> float:
        asked.append((k, options.factor))
        return k * 7.0

    svc = JobService(opener(), backoff=backoff, factor=5)
    job_id = svc.enqueue("mail")
    for k in (1, 2):
        reserve_one(svc).retry()
        assert wait_us(svc, job_id, clock) == k * 7_000_000
        clock.advance(k * 7)
    reserve_one(svc).retry(1)

    assert asked == [(1, 5.0), (2, 5.0)]


@pytest.mark.parametrize("wait", [0, 0.0, -0.0])
def test_a_backoff_of_nothing_is_ready_at_once(opener: Opener, wait: float) -> None:
    svc = JobService(opener(), backoff=lambda _k, _options: wait)
    job_id = svc.enqueue("mail")
    reserve_one(svc).retry()

    assert svc.status(job_id) is Status.READY


@pytest.mark.parametrize("wait", [-1, float("nan"), "5", None, True, [5]], ids=repr)
def test_a_backoff_that_gives_nonsense_is_told_so_and_the_job_is_still_held(
    opener: Opener, wait: Any
) -> None:
    svc = JobService(opener(), backoff=lambda _k, _options: wait)
    svc.enqueue("mail")
    job = reserve_one(svc)
    with pytest.raises(InvalidValue, match="backoff"):
        job.retry()
    with pytest.raises(InvalidValue, match="backoff"):
        svc.retry_many([job])

    assert not job.canceled
    job.retry(5)


def test_the_longest_backoff_can_be_varied_upwards(svc: JobService) -> None:
    # Half of the waits lie above the longest duration that jobq takes.
    options = {"min_backoff": LONGEST_S, "max_backoff": LONGEST_S, "jitter": 1.0}
    svc.enqueue_many("mail", range(30), **options)  # type: ignore[arg-type]

    assert svc.retry_many(svc.reserve("mail", 30)) == ["ok"] * 30


def test_a_lease_is_an_option(svc: JobService, clock: ManualClock) -> None:
    svc.enqueue("mail", lease=0.5)
    job = reserve_one(svc)
    clock.advance(0.499)
    assert not job.canceled

    clock.advance(0.001)
    assert job.canceled


def test_a_lease_of_next_to_nothing_is_a_lease(svc: JobService) -> None:
    svc.enqueue("mail", lease=1e-9)
    job = reserve_one(svc)

    assert not job.canceled  # no time has passed
    job.done()


def test_retention_is_an_option(svc: JobService, clock: ManualClock) -> None:
    kept, gone = svc.enqueue("mail", retention=3 * 86_400), svc.enqueue("mail", retention=5)
    svc.done_many(svc.reserve("mail", 2))
    clock.advance(2 * 86_400)
    svc.prune()

    assert svc.status(kept) is Status.DONE
    assert [record.id for record in svc.find()] == [kept]
    assert gone != kept


def test_name_and_tags_are_kept_with_the_job(svc: JobService) -> None:
    job_id = svc.enqueue("mail", name="welcome", tags=["b", "a", "b"])
    job = reserve_one(svc)

    assert (job.options.name, job.options.tags) == ("welcome", ("a", "b"))
    assert svc.get(job_id).options.tags == ("a", "b")


def test_a_service_with_a_wrong_option_is_not_made(opener: Opener) -> None:
    store = opener()
    with pytest.raises(InvalidValue, match="lease is -1"):
        JobService(store, lease=-1)
    with pytest.raises(InvalidValue, match="unknown option 'leese'"):
        JobService(store, leese=1)  # type: ignore[call-arg]
    with pytest.raises(InvalidValue, match="max_payload is 0"):
        JobService(store, max_payload=0)
    with pytest.raises(InvalidValue, match=r"expected a Store; jobq\.open\(\) takes a path"):
        JobService("./queue")  # type: ignore[arg-type]


def test_the_limit_of_payloads_is_the_services(opener: Opener) -> None:
    svc = JobService(opener(), max_payload=10)
    svc.enqueue("mail", bytes(8))  # and two bytes that say so
    with pytest.raises(InvalidValue, match="11 bytes: the limit is 10"):
        svc.enqueue("mail", bytes(9))
    with pytest.raises(InvalidValue, match="the limit is 10"):
        reserve_one(svc).done(bytes(9))
