"""What a program does with jobs: in, out, settled, looked at."""

import logging
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import pairwise
from uuid import UUID

import pytest

import jobq
from jobq import Job, JobService, NewJob, Outcome, Reason, Status
from jobq.clock import ManualClock
from jobq.errors import (
    InvalidTransition,
    InvalidValue,
    JobNotFound,
    PayloadTooLarge,
    ReservationLost,
)
from jobq.repo.base import Retention
from jobq.repo.memory import MemoryStore
from tests.conftest import Opener

PAYLOADS = [
    None,
    True,
    0,
    2**63,
    -1.5,
    "text",
    b"bytes",
    [1, [2, []]],
    {"a": {1: "x", None: b""}},
    (1, (2,)),
    {("a", 1)},
    datetime(2024, 2, 29, 12, tzinfo=UTC),
    timedelta(days=-1, microseconds=1),
    UUID(int=7),
    Decimal("1.10"),
]


def reserve_one(svc: JobService, topic: str = "mail") -> Job:
    (job,) = svc.reserve(topic, timeout=0)
    return job


# In.


def test_a_job_goes_from_enqueue_to_done(svc: JobService) -> None:
    job_id = svc.enqueue("mail", {"to": "ann"}, weight=-3)
    assert svc.status(job_id) is Status.READY

    job = reserve_one(svc)
    assert (job.id, job.topic, job.weight, job.attempt) == (job_id, "mail", -3, 1)
    assert (job.retries, job.crashes, job.canceled, job.settled) == (0, 0, False, False)
    assert job.payload == {"to": "ann"}
    assert svc.status(job_id) is Status.RESERVED

    job.done({"sent": True})
    assert job.settled
    assert svc.status(job_id) is Status.DONE
    assert svc.get(job_id).result == {"sent": True}


@pytest.mark.parametrize("payload", PAYLOADS, ids=repr)
def test_a_payload_has_the_same_shape_at_every_attempt(
    svc: JobService, clock: ManualClock, payload: object
) -> None:
    job_id = svc.enqueue("mail", payload)
    for settle in (Job.retry, Job.release, None, Job.done):
        job = reserve_one(svc)
        assert job.payload == payload
        assert type(job.payload) is type(payload)
        if settle is None:
            clock.advance(700)
        else:
            settle(job)
            clock.advance(2)

    assert svc.get(job_id).payload == payload


@pytest.mark.parametrize("result", PAYLOADS, ids=repr)
def test_a_result_is_kept_as_it_was_given(svc: JobService, result: object) -> None:
    job_id = svc.enqueue("mail")
    reserve_one(svc).done(result)

    assert svc.get(job_id).result == result


def test_a_payload_is_decoded_once_and_is_the_holders_own(svc: JobService) -> None:
    given = {"n": [1]}
    job_id = svc.enqueue("mail", given)
    given["n"].append(2)
    job = reserve_one(svc)
    job.payload["n"].append(3)

    assert job.payload == {"n": [1, 3]}
    assert svc.get(job_id).payload == {"n": [1]}


@pytest.mark.parametrize("delay", [0.5, 1, timedelta(milliseconds=500), timedelta(days=2)])
def test_a_delay_is_a_number_of_seconds_or_a_timedelta(
    svc: JobService, clock: ManualClock, delay: float | timedelta
) -> None:
    job_id = svc.enqueue("mail", delay=delay)
    seconds = delay.total_seconds() if isinstance(delay, timedelta) else delay

    assert svc.get(job_id).due_us == clock.wall_us() + int(seconds * 1e6)
    assert svc.reserve("mail", timeout=0) == []
    clock.advance(seconds)
    assert reserve_one(svc).id == job_id


@pytest.mark.parametrize("delay", [None, 0, 0.0, timedelta(0), -0.0])
def test_no_delay_is_ready_at_once(svc: JobService, delay: float | timedelta | None) -> None:
    assert svc.status(svc.enqueue("mail", delay=delay)) is Status.READY


def test_the_smallest_delay_is_a_delay(svc: JobService) -> None:
    assert svc.status(svc.enqueue("mail", delay=1e-9)) is Status.DELAYED


def test_enqueue_many_gives_an_id_for_each_payload_in_order(svc: JobService) -> None:
    ids = svc.enqueue_many("mail", (n * n for n in range(50)), weight=2, name="square")
    records = [svc.get(job_id) for job_id in ids]

    assert [record.payload for record in records] == [n * n for n in range(50)]
    assert {(record.weight, record.options.name) for record in records} == {(2, "square")}
    assert [job.id for job in svc.reserve("mail", 100)] == ids


def test_enqueue_many_is_all_or_nothing_and_names_the_payload(svc: JobService) -> None:
    with pytest.raises(InvalidValue, match=r"payload 2: .*object"):
        svc.enqueue_many("mail", [1, 2, object(), 4])
    with pytest.raises(PayloadTooLarge, match=r"payload 1: "):
        svc.enqueue_many("mail", [1, bytes(2 * 1024 * 1024)])

    assert svc.stats().totals.total == 0


def test_enqueue_many_of_nothing_is_nothing(svc: JobService) -> None:
    assert svc.enqueue_many("mail", []) == []
    assert svc.topics() == []


def test_an_error_of_the_payloads_own_comes_through_and_nothing_is_written(
    svc: JobService,
) -> None:
    def payloads() -> object:
        yield 1
        raise LookupError("mine")

    with pytest.raises(LookupError, match="mine"):
        svc.enqueue_many("mail", payloads())  # type: ignore[arg-type]

    assert svc.stats().totals.total == 0


def test_ids_are_uuids_that_grow(svc: JobService, clock: ManualClock) -> None:
    ids = [svc.enqueue("mail")]
    for step in (3600, -7200):
        clock.step_wall(step)
        ids += svc.enqueue_many("mail", [1, 2])

    assert all(earlier < later for earlier, later in pairwise(ids))
    assert {UUID(job_id).version for job_id in ids} == {7}


def test_an_id_may_be_written_in_capitals(svc: JobService) -> None:
    job_id = svc.enqueue("mail")

    assert svc.status(job_id.upper()) is Status.READY


def test_a_payload_of_the_limit_is_taken_and_one_byte_more_is_not(svc: JobService) -> None:
    limit = 1024 * 1024
    head = 5  # of bytes as long as this, in msgpack
    largest = bytes(limit - head)
    job_id = svc.enqueue("mail", largest)
    assert svc.get(job_id).payload == largest

    before = svc.stats()
    for call in (
        lambda: svc.enqueue("mail", largest + b"\0"),
        lambda: svc.enqueue("mail", ["x"] * limit),
        lambda: svc.enqueue_many("mail", [1, largest + b"\0"]),
    ):
        with pytest.raises(PayloadTooLarge, match=rf"\d+ bytes: the limit is {limit}"):
            call()
    assert svc.stats() == before


def test_a_result_of_the_limit_is_taken_and_one_byte_more_leaves_the_job_held(
    svc: JobService,
) -> None:
    job_id = svc.enqueue("mail")
    (job,) = svc.reserve("mail")
    largest = "x" * (1024 * 1024 - 5)
    with pytest.raises(PayloadTooLarge):
        job.done(largest + "x")
    assert not job.settled

    job.done(largest)
    assert svc.get(job_id).result == largest


@pytest.mark.parametrize("payload", [b"", "", [], {}, 0, None, False, set(), ()], ids=repr)
def test_a_payload_of_nothing_is_a_payload(svc: JobService, payload: object) -> None:
    svc.enqueue("mail", payload)
    (job,) = svc.reserve("mail")

    assert job.payload == payload
    assert type(job.payload) is type(payload)


# The batch.


def test_a_batch_is_one_commit_of_jobs_of_any_topics(svc: JobService) -> None:
    with svc.batch() as batch:
        batch.enqueue("mail", 1)
        batch.enqueue("sms", 2, weight=5, delay=60, max_retries=3)
        assert svc.stats().totals.total == 0
        assert len(batch) == 2
    records = [svc.get(job_id) for job_id in batch.ids]

    assert [(record.topic, record.payload) for record in records] == [("mail", 1), ("sms", 2)]
    assert (records[1].weight, records[1].status) == (5, Status.DELAYED)
    assert records[1].options.max_retries == 3


def test_an_exception_in_the_block_leaves_nothing_of_a_batch(svc: JobService) -> None:
    batch = svc.batch()

    def work() -> None:
        with batch:
            batch.enqueue("mail")
            raise LookupError("mine")

    with pytest.raises(LookupError, match="mine"):
        work()
    assert batch.ids == []
    assert svc.stats().totals.total == 0


def test_a_wrong_job_leaves_nothing_of_a_batch(svc: JobService) -> None:
    def work() -> None:
        with svc.batch() as batch:
            batch.enqueue("mail")
            batch.enqueue("mail", weight=99_999)

    with pytest.raises(InvalidValue, match="weight"):
        work()
    assert svc.stats().totals.total == 0


def test_a_wrong_job_that_is_caught_leaves_the_rest_of_a_batch(svc: JobService) -> None:
    with svc.batch() as batch:
        batch.enqueue("mail", 1)
        with pytest.raises(InvalidValue):
            batch.enqueue("")
        batch.enqueue("mail", 2)

    assert len(batch.ids) == 2


def test_an_empty_batch_is_nothing(svc: JobService) -> None:
    with svc.batch() as batch:
        pass

    assert batch.ids == []
    assert svc.topics() == []


def test_a_batch_that_has_ended_takes_no_more(svc: JobService) -> None:
    with svc.batch() as batch:
        batch.enqueue("mail")
    with pytest.raises(InvalidValue, match="ended"):
        batch.enqueue("mail")

    assert svc.stats().totals.total == 1


def test_a_batch_takes_no_jobs_before_its_block_which_nobody_might_ever_end(
    svc: JobService,
) -> None:
    batch = svc.batch()
    with pytest.raises(InvalidValue, match=r"not begun: expected `with svc\.batch\(\) as batch:`"):
        batch.enqueue("mail")
    with batch:
        batch.enqueue("sms")

    assert svc.topics() == ["sms"]


def test_a_batch_is_never_committed_twice(svc: JobService) -> None:
    batch = svc.batch()
    with batch:
        batch.enqueue("mail")
    with pytest.raises(InvalidValue, match="ended"), batch:
        pass

    assert svc.stats().totals.total == 1


# Settling.


def test_done_brings_follow_up_jobs_in_the_same_commit(svc: JobService) -> None:
    svc.enqueue("order")
    job = reserve_one(svc, "order")
    ids = job.done(then=[NewJob("bill", 1, weight=2, name="n"), NewJob("ship", 2, delay=60)])
    bill, ship = (svc.get(job_id) for job_id in ids)

    assert (bill.topic, bill.payload, bill.weight, bill.options.name) == ("bill", 1, 2, "n")
    assert (ship.topic, ship.status) == ("ship", Status.DELAYED)


def test_follow_up_jobs_need_no_result(svc: JobService) -> None:
    job_id = svc.enqueue("order")
    (next_id,) = reserve_one(svc, "order").done(None, [NewJob("bill")])

    assert svc.get(job_id).result is None
    assert svc.get(next_id).payload is None


def test_done_twice_is_harmless_and_brings_follow_up_jobs_once(svc: JobService) -> None:
    svc.enqueue("order")
    job = reserve_one(svc, "order")
    job.done(then=[NewJob("bill")])

    assert job.done(then=[NewJob("bill")]) == []
    assert svc.stats("bill").totals.total == 1


def test_a_wrong_follow_up_job_leaves_the_job_held(svc: JobService) -> None:
    job_id = svc.enqueue("order")
    job = reserve_one(svc, "order")
    for wrong in (NewJob(""), NewJob("bill", object()), NewJob("bill", lease=-1), "bill"):
        with pytest.raises(InvalidValue):
            job.done(then=[NewJob("fine"), wrong])  # type: ignore[list-item]
    with pytest.raises(PayloadTooLarge):
        job.done(bytes(2**21))

    assert svc.status(job_id) is Status.RESERVED
    assert svc.topics() == ["order"]
    job.done()


def test_a_handle_settled_one_way_cannot_be_settled_another(svc: JobService) -> None:
    verbs: dict[str, Callable[[Job], object]] = {
        "done": Job.done,
        "retry": Job.retry,
        "release": Job.release,
        "cancel": Job.cancel,
    }
    for first, settle in verbs.items():
        svc.enqueue(first)
        job = reserve_one(svc, first)
        settle(job)
        before = svc.get(job.id)
        for second, other in verbs.items():
            if second == first:
                other(job)
            else:
                with pytest.raises(ReservationLost, match=job.id):
                    other(job)
        with pytest.raises(ReservationLost):
            job.extend(60)
        assert svc.get(job.id) == before


def test_a_worker_that_overran_its_lease_cannot_finish_the_job(
    svc: JobService, clock: ManualClock
) -> None:
    job_id = svc.enqueue("mail", lease=30)
    late = reserve_one(svc)
    clock.advance(31)
    for call in (late.done, late.retry, late.release, late.cancel, lambda: late.extend(60)):
        with pytest.raises(ReservationLost, match=r"attempt 1.*not held any more"):
            call()

    assert late.canceled
    assert svc.get(job_id).crashes == 1
    assert reserve_one(svc).attempt == 2


def test_a_holder_learns_that_its_job_was_canceled(svc: JobService) -> None:
    job_id = svc.enqueue("mail")
    job = reserve_one(svc)
    seen = [job.canceled]
    svc.cancel(job_id)
    seen.append(job.canceled)

    assert seen == [False, True]
    assert svc.get(job_id).reason is Reason.CANCELED
    with pytest.raises(ReservationLost):
        job.done()


def test_a_holder_of_a_job_that_is_gone_is_told_so(svc: JobService) -> None:
    job_id = svc.enqueue("mail")
    job = reserve_one(svc)
    svc.cancel(job_id)
    svc.delete(job_id)

    assert job.canceled
    with pytest.raises(ReservationLost, match="gone"):
        job.done()


def test_canceled_asks_nothing_of_a_settled_job(svc: JobService) -> None:
    svc.enqueue("mail")
    job = reserve_one(svc)
    job.done()

    assert not job.canceled


@pytest.mark.parametrize("retention", [Retention(done_us=0), Retention(max_done=0)])
def test_with_retention_0_a_repeated_done_on_the_same_handle_is_still_a_no_op(
    opener: Opener, retention: Retention
) -> None:
    svc = JobService(opener(retention=retention))
    job_id = svc.enqueue("mail")
    job = reserve_one(svc)
    job.done(then=[NewJob("next")])
    job.done(then=[NewJob("next")])

    assert svc.done_many([job, job]) == [Outcome.OK, Outcome.OK]
    with pytest.raises(JobNotFound):
        svc.get(job_id)
    assert svc.stats().totals.total == 1
    with pytest.raises(ReservationLost):
        job.retry()


def test_a_job_with_retention_0_is_forgotten_however_it_ends(svc: JobService) -> None:
    svc.enqueue_many("mail", range(4), retention=0, max_retries=0)
    done, retried, canceled, rejected = svc.reserve("mail", 4)
    done.done()
    retried.retry()
    canceled.cancel()
    rejected.cancel("rejected")
    for job, again in ((retried, Job.retry), (canceled, Job.cancel), (rejected, Job.cancel)):
        again(job)

    assert svc.stats().totals.total == 0


@pytest.mark.parametrize("reason", ["canceled", "rejected", Reason.CANCELED, Reason.REJECTED])
def test_a_holder_cancels_with_a_reason_and_an_error(svc: JobService, reason: str) -> None:
    job_id = svc.enqueue("mail")
    reserve_one(svc).cancel(reason, error="no such address")
    record = svc.get(job_id)

    assert (record.reason, record.error) == (reason, "no such address")


def test_an_exception_is_kept_with_its_traceback(svc: JobService) -> None:
    job_id = svc.enqueue("mail")
    try:
        int("x")
    except ValueError as error:
        reserve_one(svc).retry(error=error)
    kept = svc.get(job_id).error

    assert kept is not None
    assert "Traceback" in kept
    assert kept.endswith("ValueError: invalid literal for int() with base 10: 'x'")


def test_extend_lengthens_the_lease_from_now(svc: JobService, clock: ManualClock) -> None:
    svc.enqueue("mail", lease=30)
    job = reserve_one(svc)
    clock.advance(29)
    job.extend(30)
    clock.advance(29)
    job.extend(0.5)
    clock.advance(0.5)

    assert job.canceled


def test_settling_many_answers_by_position(svc: JobService) -> None:
    svc.enqueue_many("mail", range(4))
    jobs = svc.reserve("mail", 4)
    svc.cancel(jobs[1].id)
    svc.cancel(jobs[2].id)
    svc.delete(jobs[2].id)

    assert svc.done_many(jobs, ["a", "b", "c", None]) == ["ok", "stale", "missing", "ok"]
    assert [svc.get(jobs[at].id).result for at in (0, 3)] == ["a", None]
    assert [job.settled for job in jobs] == [True, False, False, True]
    assert svc.done_many(jobs) == ["ok", "stale", "missing", "ok"]


def test_many_are_retried_each_by_its_own_options(svc: JobService, clock: ManualClock) -> None:
    svc.enqueue("mail", 1, max_retries=0)
    svc.enqueue("mail", 2, min_backoff=8, jitter=0)
    jobs = svc.reserve("mail", 2)

    assert svc.retry_many(iter(jobs), error="both") == ["ok", "ok"]
    first, second = (svc.get(job.id) for job in jobs)
    assert (first.status, first.reason, first.error) == ("canceled", "exhausted", "both")
    assert (second.status, second.error) == ("delayed", "both")
    assert second.due_us == clock.wall_us() + 8_000_000


def test_many_are_retried_after_one_delay_when_it_is_given(
    svc: JobService, clock: ManualClock
) -> None:
    svc.enqueue_many("mail", range(3))
    jobs = svc.reserve("mail", 3)
    svc.retry_many(jobs, delay=timedelta(seconds=3))

    assert {svc.get(job.id).due_us for job in jobs} == {clock.wall_us() + 3_000_000}


def test_many_are_released_untried(svc: JobService, clock: ManualClock) -> None:
    ids = svc.enqueue_many("mail", range(3))
    jobs = svc.reserve("mail", 3)

    assert svc.release_many(jobs[:2]) == ["ok", "ok"]
    assert svc.release_many(jobs[2:], delay=5) == ["ok"]
    assert [job.id for job in svc.reserve("mail", 3)] == ids[:2]
    clock.advance(5)
    (last,) = svc.reserve("mail", 3)
    assert (last.id, last.attempt) == (ids[2], 1)


def test_settling_none_is_nothing(svc: JobService) -> None:
    assert svc.done_many([]) == svc.retry_many([]) == svc.release_many([]) == []


def test_results_must_be_as_many_as_the_jobs(svc: JobService) -> None:
    svc.enqueue_many("mail", range(2))
    jobs = svc.reserve("mail", 2)
    with pytest.raises(InvalidValue, match="1 results for 2 jobs"):
        svc.done_many(jobs, [1])
    with pytest.raises(InvalidValue, match="0 results for 2 jobs"):
        svc.done_many(jobs, [])

    assert svc.stats().totals.reserved == 2


def test_one_bad_result_settles_none_of_many(svc: JobService) -> None:
    svc.enqueue_many("mail", range(2))
    jobs = svc.reserve("mail", 2)
    with pytest.raises(InvalidValue):
        svc.done_many(jobs, [1, object()])
    with pytest.raises(PayloadTooLarge):
        svc.done_many(jobs, [1, bytes(2**21)])

    assert svc.stats().totals.reserved == 2
    assert [job.settled for job in jobs] == [False, False]


# By anybody, on one id or several.


def test_a_verb_on_one_id_raises(svc: JobService) -> None:
    job_id = svc.enqueue("mail")
    with pytest.raises(InvalidTransition, match=rf"job {job_id} is ready: cannot reset"):
        svc.reset(job_id)
    svc.cancel(job_id)
    with pytest.raises(InvalidTransition, match="is canceled: cannot cancel"):
        svc.cancel(job_id)
    svc.delete(job_id)
    for verb in (svc.cancel, svc.reset, svc.delete, svc.status, svc.get):
        with pytest.raises(JobNotFound, match=job_id):
            verb(job_id)


def test_a_reserved_job_is_canceled_before_it_is_deleted(svc: JobService) -> None:
    job_id = svc.enqueue("mail")
    reserve_one(svc)
    for verb in (svc.delete, svc.reset):
        with pytest.raises(InvalidTransition, match="is reserved"):
            verb(job_id)
    svc.cancel(job_id)
    svc.delete(job_id)

    assert svc.stats().totals.total == 0


@pytest.mark.parametrize("state", ["ready", "delayed", "reserved"])
def test_reset_of_an_unfinished_job_is_refused(svc: JobService, state: str) -> None:
    job_id = svc.enqueue("mail", delay=5 if state == "delayed" else None)
    if state == "reserved":
        reserve_one(svc)
    with pytest.raises(InvalidTransition, match=f"is {state}: cannot reset"):
        svc.reset(job_id)

    assert svc.status(job_id) == state
    assert svc.get(job_id).resets == 0


def test_a_verb_on_several_ids_answers_by_position(svc: JobService) -> None:
    ready, finished = svc.enqueue("mail"), svc.enqueue("other")
    reserve_one(svc, "other").done()
    nobody = "018bcfe5-6800-7000-8000-000000000001"

    assert svc.cancel([ready, finished, nobody, ready]) == ["ok", "invalid", "missing", "invalid"]
    assert svc.reset((ready, finished, nobody)) == ["ok", "ok", "missing"]
    assert svc.delete(iter([ready, nobody, finished, ready])) == [
        "ok", "missing", "ok", "missing",
    ]  # fmt: skip
    assert svc.cancel([]) == svc.reset([]) == svc.delete([]) == []


def test_several_may_be_one(svc: JobService) -> None:
    assert svc.cancel([svc.enqueue("mail")]) == [Outcome.OK]


def test_canceling_says_why_if_asked_to(svc: JobService) -> None:
    one, two = svc.enqueue_many("mail", range(2))
    svc.cancel(one, error="not wanted")
    svc.cancel([two], error="nor this")

    assert [svc.get(job_id).error for job_id in (one, two)] == ["not wanted", "nor this"]


# Looking.


def test_find_filters_by_state_and_topic_and_pages(svc: JobService) -> None:
    mail = svc.enqueue_many("mail", range(5))
    svc.enqueue_many("sms", range(2), delay=5)

    assert [job.id for job in svc.find(topic="mail", limit=2)] == mail[:2]
    assert [job.id for job in svc.find(topic="mail", after=mail[1], limit=2)] == mail[2:4]
    assert len(svc.find(status=Status.DELAYED)) == len(svc.find(status="delayed")) == 2
    assert svc.find(status="delayed", topic="mail") == svc.find(topic="nowhere") == []
    assert len(svc.find()) == 7


def test_a_record_shows_itself_as_plain_values(svc: JobService, clock: ManualClock) -> None:
    svc.enqueue("mail", {"n": 1}, name="n", delay=1)
    clock.advance(1)
    job = reserve_one(svc)
    held = svc.get(job.id).as_dict()
    job.done([2])
    record = svc.get(job.id).as_dict()

    assert held["lease_until"].endswith("+00:00")
    assert held["holder"]
    assert (record["status"], record["payload"], record["result"]) == ("done", {"n": 1}, [2])
    assert (record["options"], record["due"], record["holder"]) == ({"name": "n"}, None, None)
    assert record["created"] == "2023-11-14T22:13:20+00:00"
    assert record["reserved_at"] == record["ended_at"] == "2023-11-14T22:13:21+00:00"


def test_a_jobs_text_says_what_it_is(svc: JobService) -> None:
    svc.enqueue("mail")
    job = reserve_one(svc)

    assert repr(job) == f"<Job {job.id} of 'mail', attempt 1, reserved>"
    job.done()
    assert repr(job).endswith("settled: done>")


def test_stats_count_one_topic_or_all(svc: JobService, clock: ManualClock) -> None:
    svc.enqueue_many("mail", range(3))
    svc.enqueue("sms", delay=5)

    assert svc.topics() == ["mail", "sms"]
    assert svc.stats("mail").totals.ready == 3
    assert svc.stats().totals.unfinished == 4
    due = svc.stats().next_due
    assert due is not None
    assert due.timestamp() * 1e6 == clock.wall_us() + 5_000_000


def test_prune_forgets_all_that_is_over(svc: JobService, clock: ManualClock) -> None:
    svc.enqueue_many("mail", range(2500))
    while jobs := svc.reserve("mail", 1000, timeout=0):
        svc.done_many(jobs)
    assert svc.prune() == 0
    clock.advance(86_400)

    assert svc.prune() == 2500
    assert svc.prune() == 0


def test_check_says_that_all_is_well(svc: JobService) -> None:
    svc.enqueue_many("mail", range(3))
    report = svc.check()

    assert (report.ok, report.problems, report.jobs) == (True, (), 3)


def test_a_failed_job_is_logged_with_its_error_and_its_name(
    svc: JobService, caplog: pytest.LogCaptureFixture
) -> None:
    job_id = svc.enqueue("mail")
    with caplog.at_level(logging.WARNING, "jobq"), reserve_one(svc):
        raise ValueError("no route")
    (entry,) = caplog.records

    assert job_id in entry.getMessage()
    assert "no route" in caplog.text
    assert (entry.__dict__["job_id"], entry.__dict__["topic"]) == (job_id, "mail")


def test_a_service_stands_on_any_store() -> None:
    with jobq.JobService(MemoryStore()) as svc:
        job_id = svc.enqueue("mail")
        assert svc.status(job_id) is Status.READY
