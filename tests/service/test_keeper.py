"""Leases during consume: kept while the holder is alive, however long a job takes."""

import gc
import logging
from collections.abc import Callable, Iterator
from functools import partial

import pytest

from jobq import Job, JobService
from jobq.clock import ManualClock
from tests.conftest import Opener, eventually

LEASE_S = 600.0
LONGER_S = 1.5 * LEASE_S

PassTime = Callable[[JobService, float], None]


@pytest.fixture
def svc(opener: Opener) -> Iterator[JobService]:
    """A service whose jobs are held for ten minutes of the test's clock."""
    svc = JobService(opener(), lease=LEASE_S)
    yield svc
    assert svc.check().problems == ()
    svc.close()


def others_find_nothing(svc: JobService) -> bool:
    """Whether there is no job for another consumer of the topic."""
    return JobService(svc.store).reserve("mail", timeout=0) == []


def test_leases_are_kept_on_the_clocks_of_this_machine(opener: Opener, clock: ManualClock) -> None:
    """The keeper's is; that of the store stands still, so that nothing runs out meanwhile."""
    with JobService(opener(), lease=0.15) as svc:
        job_id = svc.enqueue("mail")
        for job in svc.consume("mail", timeout=0):
            with job:
                for _ in range(3):
                    clock.advance(0.1)
                    until_us = clock.wall_us() + 150_000
                    eventually(lambda until_us=until_us: svc.get(job_id).lease_until_us == until_us)  # type: ignore[misc]

        assert svc.status(job_id) == "done"  # else the block failed


def test_consume_keeps_the_leases_of_its_whole_batch(svc: JobService, pass_time: PassTime) -> None:
    svc.enqueue_many("mail", range(3))
    for job in svc.consume("mail", n=3, timeout=0):
        with job:
            if job.payload == 0:
                pass_time(svc, LONGER_S)
                assert others_find_nothing(svc)
            assert not job.canceled
            assert (job.attempt, job.crashes) == (1, 0)

    assert svc.stats().totals.done == 3


def test_a_lease_is_kept_until_the_outcome_of_its_block_is_committed(
    svc: JobService, pass_time: PassTime
) -> None:
    """The loop may take its time between two blocks: the job is still its own."""
    job_id = svc.enqueue("mail")
    lost: list[Job] = []
    for job in svc.consume("mail", timeout=0, on_lost=lost.append):
        with job:
            pass
        pass_time(svc, LONGER_S)
        assert others_find_nothing(svc)

    assert lost == []
    assert svc.get(job_id).attempt == 1


def test_jobs_with_short_and_long_leases_are_kept_side_by_side(
    svc: JobService, pass_time: PassTime
) -> None:
    svc.enqueue("mail", lease=3600)
    svc.enqueue("mail")
    loop = svc.consume("mail", n=2, timeout=0)
    first = next(loop)
    pass_time(svc, LONGER_S)
    assert others_find_nothing(svc)

    first.done()
    next(loop).done()
    assert svc.stats().totals.done == 2


def test_leases_are_kept_when_their_topic_allows_only_shorter_ones_meanwhile(
    svc: JobService,
    pass_time: PassTime,
) -> None:
    svc.enqueue("mail", lease=4 * LEASE_S)
    for job in svc.consume("mail", timeout=0):
        with job:
            svc.configure("mail", max_lease=LEASE_S)
            pass_time(svc, 3 * LEASE_S)
            assert others_find_nothing(svc)
            assert not job.canceled

    assert svc.stats().totals.done == 1


def test_the_lease_of_a_job_that_the_loop_has_left_runs_out(
    svc: JobService, pass_time: PassTime
) -> None:
    svc.enqueue("mail")
    for _ in svc.consume("mail", timeout=0):
        pass  # neither settled nor released: it is held, and nobody works on it
    pass_time(svc, LONGER_S)
    (again,) = JobService(svc.store).reserve("mail", timeout=0)

    assert again.crashes == 1


def test_reserve_leaves_leases_to_its_caller(svc: JobService, pass_time: PassTime) -> None:
    svc.enqueue("mail")
    svc.enqueue("other", lease=3600)
    (mine,) = svc.reserve("mail")
    loop = svc.consume("other", timeout=0)  # so that there is somebody who could keep leases
    next(loop)
    pass_time(svc, LONGER_S)
    (again,) = JobService(svc.store).reserve("mail", timeout=0)

    assert (again.id, mine.canceled) == (mine.id, True)


def test_a_job_that_was_lost_is_not_kept_any_more(
    svc: JobService, caplog: pytest.LogCaptureFixture, pass_time: PassTime
) -> None:
    job_id = svc.enqueue("mail")
    with caplog.at_level(logging.ERROR, "jobq"):
        for job in svc.consume("mail", timeout=0):
            with job:
                svc.cancel(job_id)
                pass_time(svc, LEASE_S)
                assert others_find_nothing(svc)

    assert caplog.records == []
    assert svc.status(job_id) == "canceled"


def test_a_store_that_is_closed_under_the_keeper_ends_in_peace(
    opener: Opener, caplog: pytest.LogCaptureFixture
) -> None:
    svc = JobService(opener(), lease=0.15)
    svc.enqueue("mail")
    loop = svc.consume("mail", timeout=0)
    job = next(loop)
    svc.store.close()
    eventually(lambda: "leases of 1 jobs are not extended: the store is gone" in caplog.text)

    assert not job.settled
    svc._keeper.stop()


def test_loops_that_are_collected_while_leases_are_looked_through_do_no_harm(
    svc: JobService,
) -> None:
    """Reading the jobs makes objects, and making objects may collect a loop, which forgets its."""
    svc.enqueue_many("mail", range(2000), lease=3600)
    jobs = svc.reserve("mail", 2000)
    keeper = svc._keeper
    keeper.watch(jobs)
    threshold = gc.get_threshold()
    gc.set_threshold(5)
    try:
        for start in range(0, 2000, 100):
            for job in jobs[start : start + 100]:
                Dropped(partial(keeper.forget, job))
            keeper._extend()
    finally:
        gc.set_threshold(*threshold)
    gc.collect()

    assert keeper._due == {}


class Dropped:
    """Only the collector of garbage gets rid of it; then it makes a call."""

    def __init__(self, call: Callable[[], None]) -> None:
        self._me = self
        self._call = call

    def __del__(self) -> None:
        self._call()
