"""Reserving with a timeout, and stopping who waits."""

import threading
import time

import pytest

from jobq import JobService
from jobq.clock import ManualClock, SystemClock
from tests.conftest import DEADLINE_S, Crew, Opener


@pytest.fixture
def live(opener: Opener) -> JobService:
    """A service over an empty store of every kind, on the clocks of this machine."""
    return JobService(opener(clock=SystemClock()))


def test_timeout_0_never_waits(svc: JobService) -> None:
    start = time.monotonic()
    for _ in range(40):
        assert svc.reserve("mail", timeout=0) == []

    assert time.monotonic() - start < 20  # 40 s if each of them slept a second


def test_a_job_that_is_there_is_taken_whatever_the_timeout(svc: JobService) -> None:
    svc.enqueue_many("mail", range(4))

    assert len(svc.reserve("mail", timeout=0)) == 1
    assert len(svc.reserve("mail", timeout=0.0)) == 1
    assert len(svc.reserve("mail", timeout=3600)) == 1
    assert len(svc.reserve("mail")) == 1


def test_a_reservation_takes_up_to_n_and_does_not_wait_for_more(svc: JobService) -> None:
    ids = svc.enqueue_many("mail", range(5))

    assert [job.id for job in svc.reserve("mail", 3)] == ids[:3]
    assert [job.id for job in svc.reserve("mail", 3)] == ids[3:]


def test_a_timeout_passes_without_a_job(live: JobService) -> None:
    live.enqueue("other")
    start = time.monotonic()
    assert live.reserve("mail", timeout=0.2) == []

    assert 0.2 <= time.monotonic() - start < DEADLINE_S


def test_a_timeout_longer_than_a_second_is_kept(live: JobService) -> None:
    start = time.monotonic()
    assert live.reserve("mail", timeout=1.2) == []

    assert 1.2 <= time.monotonic() - start < DEADLINE_S


@pytest.mark.parametrize("timeout", [None, 3600])
def test_a_job_that_comes_ends_the_waiting(
    live: JobService, crew: Crew, timeout: float | None
) -> None:
    got: list[str] = []

    def wait() -> None:
        got.extend(job.id for job in live.reserve("mail", 5, timeout=timeout))

    crew.start(wait)
    job_id = live.enqueue("mail")
    crew.join()

    assert got == [job_id]


@pytest.mark.parametrize("timeout", [None, 3600])
@pytest.mark.parametrize("ending", ["stop", "close"])
def test_stop_from_another_thread_ends_the_waiting(
    live: JobService, crew: Crew, timeout: float | None, ending: str
) -> None:
    ended = threading.Event()

    def wait() -> None:
        assert live.reserve("mail", timeout=timeout) == []
        ended.set()

    for _ in range(3):
        crew.start(wait)
    getattr(live, ending)()

    assert ended.wait(DEADLINE_S)


def test_a_stopped_service_reserves_no_more_but_settles_and_enqueues(svc: JobService) -> None:
    svc.enqueue_many("mail", range(2))
    (job,) = svc.reserve("mail")
    svc.stop()

    assert svc.stopped
    assert svc.reserve("mail") == []
    assert list(svc.consume("mail")) == []
    job.done()
    svc.enqueue("mail")
    assert svc.stats().totals.ready == 2


def test_a_delayed_job_ends_the_waiting_when_it_is_due(live: JobService) -> None:
    start = time.monotonic()
    live.enqueue("mail", delay=0.2)
    (job,) = live.reserve("mail", timeout=DEADLINE_S)

    assert time.monotonic() - start > 0.15
    assert job.attempt == 1


def test_a_retried_job_comes_back_to_who_waits(live: JobService) -> None:
    live.enqueue("mail", min_backoff=0.1, jitter=0)
    (job,) = live.reserve("mail")
    job.retry()
    (again,) = live.reserve("mail", timeout=DEADLINE_S)

    assert (again.id, again.retries) == (job.id, 1)


def test_a_job_whose_lease_ends_comes_to_who_waits(live: JobService) -> None:
    live.enqueue("mail", lease=0.2)
    (job,) = live.reserve("mail")
    (again,) = live.reserve("mail", timeout=DEADLINE_S)

    assert (again.id, again.crashes) == (job.id, 1)


def test_reserve_extends_no_lease(svc: JobService, clock: ManualClock) -> None:
    svc.enqueue("mail")
    (job,) = svc.reserve("mail")
    clock.advance(600)

    assert svc.reserve("mail", timeout=0)[0].id == job.id


def test_many_threads_that_wait_get_each_its_job(live: JobService, crew: Crew) -> None:
    got: list[str] = []

    def wait() -> None:
        for job in live.reserve("mail", timeout=DEADLINE_S):
            got.append(job.id)
            job.done()

    for _ in range(8):
        crew.start(wait)
    ids = [live.enqueue("mail") for _ in range(8)]
    crew.join()

    assert sorted(got) == ids
