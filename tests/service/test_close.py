"""The end of a service: what it holds goes back, and nothing runs on."""

import threading
from collections.abc import Callable

import pytest

from jobq import JobService, Status
from jobq.clock import ManualClock
from jobq.errors import StoreUnavailable
from tests.conftest import Opener


def test_close_releases_what_is_held_untried(durable_opener: Opener) -> None:
    svc = JobService(durable_opener())
    ids = svc.enqueue_many("mail", range(4))
    done, *_ = svc.reserve("mail", 3)
    done.done()
    svc.close()
    again = JobService(durable_opener())

    assert [again.status(job_id) for job_id in ids] == ["done", "ready", "ready", "ready"]
    assert [again.get(job_id).attempt for job_id in ids] == [1, 0, 0, 0]
    assert [again.get(job_id).crashes for job_id in ids] == [0, 0, 0, 0]
    assert [job.id for job in again.reserve("mail", 9)] == ids[1:]


def test_close_leaves_alone_what_others_hold(durable_opener: Opener, clock: ManualClock) -> None:
    svc, other = JobService(durable_opener()), JobService(durable_opener())
    svc.enqueue_many("mail", range(3), lease=10)
    lost, kept = svc.reserve("mail", 2)
    clock.advance(10)
    (theirs,) = other.reserve("mail")
    assert theirs.id == lost.id
    svc.close()

    assert not theirs.canceled
    assert other.status(kept.id) is Status.READY
    assert other.stats().totals.reserved == 1


def test_close_twice_is_harmless(svc: JobService) -> None:
    svc.close()
    svc.close()

    assert svc.stopped


def test_a_closed_service_says_so(svc: JobService) -> None:
    job_id = svc.enqueue("mail")
    (job,) = svc.reserve("mail")
    svc.close()
    calls: list[Callable[[], object]] = [
        lambda: svc.enqueue("mail"),
        lambda: svc.enqueue_many("mail", [1]),
        lambda: svc.status(job_id),
        lambda: svc.get(job_id),
        svc.find,
        lambda: svc.cancel(job_id),
        lambda: svc.reset([job_id]),
        lambda: svc.delete([job_id]),
        svc.topics,
        svc.stats,
        svc.prune,
        svc.check,
        lambda: svc.done_many([job]),
        job.done,
        lambda: job.extend(5),
        lambda: job.canceled,
    ]
    for call in calls:
        with pytest.raises(StoreUnavailable, match="closed"):
            call()
    assert svc.reserve("mail") == []
    assert list(svc.consume("mail")) == []
    svc.stop()


def test_a_service_closes_at_the_end_of_its_block(durable_opener: Opener) -> None:
    svc = JobService(durable_opener())
    job_id = svc.enqueue("mail")

    def work() -> None:
        with svc:
            svc.reserve("mail")
            raise LookupError("mine")

    with pytest.raises(LookupError, match="mine"):
        work()
    assert svc.stopped
    assert JobService(durable_opener()).status(job_id) is Status.READY


def test_close_ends_the_threads_of_the_service(opener: Opener) -> None:
    before = set(threading.enumerate())
    svc = JobService(opener())
    svc.enqueue_many("mail", range(2))
    for job in svc.consume("mail", timeout=0):
        with job:
            pass
    assert set(threading.enumerate()) > before
    svc.close()

    assert set(threading.enumerate()) == before


def test_a_service_that_never_consumed_has_no_thread(opener: Opener) -> None:
    before = threading.active_count()
    svc = JobService(opener())
    svc.enqueue("mail")
    (job,) = svc.reserve("mail")
    job.done()

    assert threading.active_count() == before
