"""The consume loop: what is committed when, and how a loop can end."""

import asyncio
import gc
import logging
import threading
import time
from collections.abc import Generator

import pytest

from jobq import Job, JobService, NewJob, Reason, Status
from jobq.clock import ManualClock, SystemClock
from jobq.errors import StoreUnavailable
from tests.conftest import DEADLINE_S, Crew, Opener, eventually


def counts(svc: JobService, topic: str | None = None) -> dict[str, int]:
    totals = svc.stats(topic).totals
    return {status.value: n for status in Status if (n := totals.of(status))}


def test_a_loop_hands_out_all_jobs_in_order(svc: JobService) -> None:
    svc.enqueue_many("mail", range(7))
    seen = []
    for job in svc.consume("mail", n=3, timeout=0):
        with job:
            seen.append(job.payload)

    assert seen == list(range(7))
    assert counts(svc) == {"done": 7}


@pytest.mark.parametrize("n", [1, 2, 10])
@pytest.mark.parametrize("pipeline", [True, False])
def test_a_crash_repeats_at_most_the_one_job_whose_block_has_just_ended(
    svc: JobService, n: int, pipeline: bool
) -> None:
    svc.enqueue_many("mail", range(6))
    for ended, job in enumerate(svc.consume("mail", n=n, timeout=0, pipeline=pipeline)):
        assert counts(svc).get("done", 0) == ended  # whoever crashed here lost nothing
        with job:
            pass
        behind = 1 if pipeline else 0
        assert counts(svc).get("done", 0) == ended + 1 - behind
        assert svc.status(job.id) is (Status.RESERVED if pipeline else Status.DONE)

    assert counts(svc) == {"done": 6}


def test_the_last_outcome_is_committed_before_any_waiting(opener: Opener, crew: Crew) -> None:
    svc = JobService(opener(clock=SystemClock()))
    job_id = svc.enqueue("mail")

    def work() -> None:
        for job in svc.consume("mail"):
            with job:
                pass

    crew.start(work)
    eventually(lambda: svc.status(job_id) is Status.DONE)  # while it waits for another job
    svc.stop()
    crew.join()


def test_an_outcome_and_the_next_reservation_are_one_commit(svc: JobService) -> None:
    svc.enqueue_many("mail", range(2))
    loop = svc.consume("mail", timeout=0)
    with next(loop):
        pass
    assert counts(svc) == {"reserved": 1, "ready": 1}

    next(loop)
    assert counts(svc) == {"done": 1, "reserved": 1}


@pytest.mark.parametrize("pipeline", [True, False])
def test_break_commits_what_has_ended_and_releases_what_was_not_begun(
    svc: JobService, pipeline: bool
) -> None:
    ids = svc.enqueue_many("mail", range(6))
    for job in svc.consume("mail", n=5, timeout=0, pipeline=pipeline):
        with job:
            pass
        if job.payload == 1:
            break

    assert counts(svc) == {"done": 2, "ready": 4}
    assert [svc.get(job_id).attempt for job_id in ids] == [1, 1, 0, 0, 0, 0]
    assert [job.id for job in svc.reserve("mail", 9)] == ids[2:]


def test_break_inside_the_block_is_a_clean_end_of_it(svc: JobService) -> None:
    svc.enqueue_many("mail", range(3))
    for job in svc.consume("mail", n=3, timeout=0):
        with job:
            break

    assert counts(svc) == {"done": 1, "ready": 2}


def test_an_exception_outside_the_block_ends_the_loop_and_commits_what_has_ended(
    svc: JobService,
) -> None:
    svc.enqueue_many("mail", range(3))

    def work() -> None:
        for job in svc.consume("mail", n=3, timeout=0):
            with job:
                pass
            raise LookupError("mine")

    with pytest.raises(LookupError, match="mine"):
        work()

    assert counts(svc) == {"done": 1, "ready": 2}


def test_an_exception_inside_the_block_is_a_retry_and_the_loop_goes_on(svc: JobService) -> None:
    svc.enqueue_many("mail", range(4))
    for job in svc.consume("mail", n=2, timeout=0):
        with job:
            if job.payload % 2:
                raise ValueError(job.payload)

    assert counts(svc) == {"done": 2, "delayed": 2}
    assert {record.retries for record in svc.find(status="delayed")} == {1}
    assert all("ValueError: " in (record.error or "") for record in svc.find(status="delayed"))


@pytest.mark.parametrize("interrupt", [KeyboardInterrupt, SystemExit, asyncio.CancelledError])
def test_an_interrupt_in_the_block_ends_the_loop_and_releases_everything(
    svc: JobService, interrupt: type[BaseException]
) -> None:
    ids = svc.enqueue_many("mail", range(3))

    def work() -> None:
        for job in svc.consume("mail", n=3, timeout=0):
            with job:
                if job.payload == 1:
                    raise interrupt

    with pytest.raises(interrupt):
        work()

    assert counts(svc) == {"done": 1, "ready": 2}
    assert [svc.get(job_id).attempt for job_id in ids] == [1, 0, 0]


def test_stop_ends_the_loop_after_its_block(svc: JobService) -> None:
    svc.enqueue_many("mail", range(5))
    seen = []
    for job in svc.consume("mail", n=3, timeout=0):
        with job:
            seen.append(job.payload)
            svc.stop()

    assert seen == [0]
    assert counts(svc) == {"done": 1, "ready": 4}


def test_stop_from_another_thread_ends_a_loop_that_waits(opener: Opener, crew: Crew) -> None:
    svc = JobService(opener(clock=SystemClock()))
    job_id = svc.enqueue("mail")
    ended = threading.Event()

    def work() -> None:
        for job in svc.consume("mail"):
            with job:
                pass
        ended.set()

    crew.start(work)
    eventually(lambda: svc.status(job_id) is Status.DONE)
    svc.stop()
    assert ended.wait(DEADLINE_S)


def test_a_loop_ends_when_no_job_came_for_its_timeout(opener: Opener) -> None:
    svc = JobService(opener(clock=SystemClock()))
    svc.enqueue("mail", 1)
    svc.enqueue("mail", 2, delay=0.05)
    seen = []
    for job in svc.consume("mail", timeout=DEADLINE_S):
        seen.append(job.payload)
        job.done()
        if len(seen) == 2:
            break
    start = time.monotonic()
    assert list(svc.consume("mail", timeout=0.1)) == []

    assert seen == [1, 2]
    assert 0.1 <= time.monotonic() - start < DEADLINE_S


def test_an_explicit_settlement_in_the_block_is_durable_at_once(svc: JobService) -> None:
    svc.enqueue_many("mail", range(4))
    then: list[str] = []
    for job in svc.consume("mail", n=4, timeout=0):
        with job:
            match job.payload:
                case 0:
                    then = job.done({"n": 0}, then=[NewJob("next")])
                    assert svc.get(job.id).result == {"n": 0}
                case 1:
                    job.retry(50, "later")
                    assert svc.get(job.id).error == "later"
                case 2:
                    job.cancel("rejected")
                    assert svc.get(job.id).reason is Reason.REJECTED
                case 3:
                    job.release(50)
                    assert svc.status(job.id) is Status.DELAYED

    assert counts(svc, "mail") == {"done": 1, "delayed": 2, "canceled": 1}
    assert svc.get(then[0]).topic == "next"


def test_a_job_can_be_settled_without_its_block(svc: JobService) -> None:
    svc.enqueue_many("mail", range(3))
    for job in svc.consume("mail", n=2, timeout=0):
        job.done(job.payload)

    assert counts(svc) == {"done": 3}


def test_jobs_of_a_loop_can_be_settled_together(svc: JobService) -> None:
    svc.enqueue_many("mail", range(4))
    jobs = list(svc.consume("mail", n=4, timeout=0))

    assert svc.done_many(jobs) == ["ok"] * 4


def test_a_job_that_a_loop_passed_over_is_still_held(svc: JobService) -> None:
    svc.enqueue("mail")
    (job,) = svc.consume("mail", timeout=0)

    assert not job.canceled
    job.done()


@pytest.mark.parametrize("pipeline", [True, False])
def test_a_reservation_found_lost_is_logged_and_given_to_on_lost_and_the_loop_goes_on(
    svc: JobService, pipeline: bool, caplog: pytest.LogCaptureFixture
) -> None:
    ids = svc.enqueue_many("mail", range(3))
    lost: list[Job] = []
    with caplog.at_level(logging.WARNING, "jobq"):
        for job in svc.consume("mail", timeout=0, pipeline=pipeline, on_lost=lost.append):
            with job:
                if job.payload == 1:
                    svc.cancel(job.id)

    assert [job.id for job in lost] == [ids[1]]
    assert ids[1] in caplog.text
    assert counts(svc) == {"done": 2, "canceled": 1}


def test_a_lost_reservation_raises_nothing_where_nobody_asked(svc: JobService) -> None:
    svc.enqueue_many("mail", range(2))
    for job in svc.consume("mail", n=2, timeout=0):
        with job:
            svc.cancel(job.id)

    assert counts(svc) == {"canceled": 2}


def test_a_lease_that_ended_in_the_block_is_a_lost_reservation(
    svc: JobService, clock: ManualClock
) -> None:
    job_id = svc.enqueue("mail", max_crashes=1)
    lost: list[int] = []
    for job in svc.consume("mail", timeout=0, on_lost=lambda job: lost.append(job.attempt)):
        with job:
            clock.advance(601)

    assert lost == [1, 2]
    assert svc.get(job_id).reason is Reason.POISON


@pytest.mark.parametrize("n", [1, 2])
def test_an_on_lost_that_fails_ends_the_loop_and_strands_no_job(svc: JobService, n: int) -> None:
    svc.enqueue_many("mail", range(4))

    def complain(job: Job) -> None:
        raise LookupError(job.id)

    def work() -> None:
        for job in svc.consume("mail", n=n, timeout=0, on_lost=complain):
            with job:
                svc.cancel(job.id)

    with pytest.raises(LookupError):
        work()

    assert counts(svc) == {"canceled": 1, "ready": 3}


def test_with_retention_0_a_done_after_the_block_is_still_a_no_op(svc: JobService) -> None:
    svc.enqueue_many("mail", range(2), retention=0)
    lost: list[Job] = []
    for job in svc.consume("mail", timeout=0, on_lost=lost.append):
        with job:
            pass
        job.done()

    assert lost == []
    assert counts(svc) == {}


# Loops that are dropped or closed.


def test_a_loop_that_is_dropped_commits_and_releases(svc: JobService) -> None:
    svc.enqueue_many("mail", range(3))
    loop = svc.consume("mail", n=3, timeout=0)
    with next(loop):
        pass
    del loop
    gc.collect()

    eventually(lambda: counts(svc) == {"done": 1, "ready": 2})


def test_a_loop_that_was_never_begun_holds_nothing(svc: JobService) -> None:
    svc.enqueue("mail")
    svc.consume("mail", timeout=0)

    assert counts(svc) == {"ready": 1}


def test_a_loop_can_be_closed_by_hand(svc: JobService) -> None:
    svc.enqueue_many("mail", range(3))
    loop = svc.consume("mail", n=3, timeout=0)
    with next(loop):
        pass
    assert isinstance(loop, Generator)
    loop.close()

    assert counts(svc) == {"done": 1, "ready": 2}


def test_a_loop_that_is_dropped_in_its_block_releases_that_job_when_the_service_closes(
    durable_opener: Opener,
) -> None:
    svc = JobService(durable_opener())
    svc.enqueue_many("mail", range(3))
    loop = svc.consume("mail", n=2, timeout=0)
    next(loop).__enter__()
    del loop
    gc.collect()
    eventually(lambda: counts(svc) == {"reserved": 1, "ready": 2})
    svc.close()

    assert durable_opener().stats().totals.ready == 3


def test_closing_the_service_commits_the_block_that_has_ended(durable_opener: Opener) -> None:
    svc = JobService(durable_opener())
    ids = svc.enqueue_many("mail", range(3))
    loop = svc.consume("mail", n=3, timeout=0)
    with next(loop):
        pass
    svc.close()

    again = JobService(durable_opener())
    assert [again.status(job_id) for job_id in ids] == ["done", "ready", "ready"]
    assert [again.get(job_id).attempt for job_id in ids] == [1, 0, 0]
    del loop


@pytest.mark.filterwarnings("error::pytest.PytestUnraisableExceptionWarning")
def test_a_loop_that_outlives_its_service_ends_in_peace(svc: JobService) -> None:
    svc.enqueue_many("mail", range(3))
    loop = svc.consume("mail", n=2, timeout=0)
    with next(loop):
        pass
    svc.close()

    assert list(loop) == []
    del loop
    gc.collect()


def test_a_loop_in_a_closed_service_ends(svc: JobService) -> None:
    svc.enqueue_many("mail", range(3))
    seen = 0
    for job in svc.consume("mail", n=2, timeout=0, pipeline=False):
        with job:
            seen += 1
        svc.close()

    assert seen == 1


def test_an_error_of_the_store_comes_through_the_loop(opener: Opener) -> None:
    svc = JobService(opener())
    svc.enqueue_many("mail", range(3))

    def work() -> None:
        for job in svc.consume("mail", timeout=0):
            with job:
                svc.store.close()

    with pytest.raises(StoreUnavailable):
        work()


# Several loops.


def test_loops_of_many_threads_share_the_jobs(svc: JobService, crew: Crew) -> None:
    svc.enqueue_many("mail", range(400))
    seen: list[int] = []

    def work(n: int) -> None:
        for job in svc.consume("mail", n=n, timeout=0):
            with job:
                seen.append(job.payload)

    for number in range(8):
        crew.start(work, 1 + number)
    crew.join()

    assert sorted(seen) == list(range(400))
    assert counts(svc) == {"done": 400}


def test_a_job_may_be_handed_to_another_thread_whose_block_commits_by_itself(
    svc: JobService, crew: Crew
) -> None:
    svc.enqueue_many("mail", range(10))

    def handle(job: Job) -> None:
        with job:
            if job.payload % 2:
                raise ValueError(job.payload)
        assert svc.status(job.id) is (Status.DELAYED if job.payload % 2 else Status.DONE)

    for job in svc.consume("mail", n=3, timeout=0):
        crew.start(handle, job)
        if job.payload == 4:
            crew.join()  # the loop is still at this one
    crew.join()

    assert counts(svc) == {"done": 5, "delayed": 5}


def test_a_loop_may_enqueue_and_run_another_loop(svc: JobService) -> None:
    svc.enqueue_many("outer", range(3))
    seen = []
    for outer in svc.consume("outer", n=2, timeout=0):
        with outer:
            svc.enqueue("inner", outer.payload)
            for inner in svc.consume("inner", timeout=0):
                with inner:
                    seen.append(inner.payload)

    assert seen == [0, 1, 2]
    assert counts(svc) == {"done": 6}
