"""Waiting for the end of a job."""

import threading
import time
from collections.abc import Callable
from datetime import timedelta

import pytest

from jobq import Job, JobNotFound, JobService, Reason, Status
from jobq.clock import ManualClock, SystemClock
from jobq.errors import InvalidValue, StoreUnavailable
from jobq.job import JobRecord
from tests.conftest import DEADLINE_S, LONG_S, SOON_S, Crew, Opener, eventually
from tests.repo.test_contract_threads import asleep_or_gone


@pytest.fixture
def live(opener: Opener) -> JobService:
    """A service over an empty store of every kind, on the clocks of this machine."""
    return JobService(opener(clock=SystemClock()))


class Waiter:
    """A thread that waits for a job; what came of it."""

    def __init__(self, svc: JobService, crew: Crew, job_id: str, timeout: float | None) -> None:
        self.record: JobRecord | None = None
        self.error: Exception | None = None
        self.came_at = 0.0

        def wait() -> None:
            try:
                self.record = svc.wait(job_id, timeout)
            except (JobNotFound, StoreUnavailable, TimeoutError) as error:
                self.error = error
            self.came_at = time.monotonic()

        self._thread = crew.start(wait)
        eventually(lambda: asleep_or_gone(self._thread))

    def end(self) -> "Waiter":
        self._thread.join(DEADLINE_S)
        return self


def take(svc: JobService) -> Job:
    (job,) = svc.reserve("mail", timeout=0)
    return job


ENDS: dict[str, tuple[Callable[[JobService, str], object], Status, Reason | None]] = {
    "done": (lambda svc, _: take(svc).done({"a": 1}), Status.DONE, None),
    "done_many": (lambda svc, _: svc.done_many([take(svc)], [{"a": 1}]), Status.DONE, None),
    "canceled": (lambda svc, jid: svc.cancel(jid), Status.CANCELED, Reason.CANCELED),
    "rejected": (lambda svc, _: take(svc).cancel("rejected"), Status.CANCELED, Reason.REJECTED),
    "exhausted": (lambda svc, _: take(svc).retry(), Status.CANCELED, Reason.EXHAUSTED),
}


@pytest.mark.parametrize("timeout", [None, 60])
@pytest.mark.parametrize("how", ENDS)
def test_wait_returns_the_record_of_the_job_when_it_ends(
    how: str, timeout: float | None, live: JobService, crew: Crew
) -> None:
    act, status, reason = ENDS[how]
    jid = live.enqueue("mail", "hello", max_retries=0)
    waiter = Waiter(live, crew, jid, timeout)
    act(live, jid)
    record = waiter.end().record

    assert record == live.get(jid)
    assert (record.status, record.reason, record.payload) == (status, reason, "hello")
    assert record.result == ({"a": 1} if status is Status.DONE else None)


@pytest.mark.usefixtures("sound_sleep")
def test_wait_is_woken_and_does_not_look_every_second(
    live: JobService, crew: Crew, monkeypatch: pytest.MonkeyPatch
) -> None:
    wait_ended = live.store.wait_ended
    monkeypatch.setattr(live.store, "wait_ended", lambda seen, _: wait_ended(seen, LONG_S))
    waiter = Waiter(live, crew, live.enqueue("mail"), None)
    start = time.monotonic()
    take(live).done()

    assert waiter.end().came_at - start < SOON_S


@pytest.mark.parametrize("timeout", [None, 0, 0.0, 3600])
def test_the_end_of_a_finished_job_is_there_at_once(timeout: float | None, svc: JobService) -> None:
    done, canceled = svc.enqueue_many("mail", [1, 2])
    take(svc).done()
    svc.cancel(canceled)

    assert svc.wait(done, timeout).status is Status.DONE
    assert svc.wait(canceled, timeout).status is Status.CANCELED
    assert svc.wait(done.upper(), timeout).id == done


def test_a_timeout_of_0_only_looks(svc: JobService) -> None:
    jid = svc.enqueue("mail")
    start = time.monotonic()
    for _ in range(40):
        with pytest.raises(TimeoutError, match=f"job {jid} is still ready after 0 s"):
            svc.wait(jid, 0)

    assert time.monotonic() - start < 20  # 40 s if each of them slept a second


@pytest.mark.parametrize("timeout", [0.2, 1.2])
def test_a_timeout_that_passes_is_an_error_that_names_the_job(
    timeout: float, live: JobService
) -> None:
    jid = live.enqueue("mail")
    take(live)
    start = time.monotonic()
    with pytest.raises(TimeoutError, match=f"job {jid} is still reserved after {timeout} s"):
        live.wait(jid, timeout)

    assert timeout <= time.monotonic() - start < DEADLINE_S
    assert live.status(jid) is Status.RESERVED


@pytest.mark.parametrize("timeout", [-1, float("nan"), float("inf"), "1", True, timedelta(1)])
def test_a_wrong_timeout_is_refused(timeout: object, svc: JobService) -> None:
    with pytest.raises(InvalidValue, match="timeout"):
        svc.wait(svc.enqueue("mail"), timeout)  # type: ignore[arg-type]


def test_who_waits_for_no_job_is_told(svc: JobService) -> None:
    with pytest.raises(JobNotFound):
        svc.wait("018bcfe5-6800-7000-8000-000000000001")
    with pytest.raises(InvalidValue, match="no job id"):
        svc.wait("7")


FORGOTTEN: dict[str, Callable[[JobService, str], object]] = {
    "deleted": lambda svc, jid: svc.delete(jid),
    "done, and not kept": lambda svc, _: take(svc).done("result"),
    "canceled, and not kept": lambda svc, jid: svc.cancel(jid),
}


@pytest.mark.parametrize("how", FORGOTTEN)
def test_a_job_that_is_forgotten_meanwhile_is_not_found(
    how: str, live: JobService, crew: Crew
) -> None:
    jid = live.enqueue("mail", retention=0)
    waiter = Waiter(live, crew, jid, None)
    FORGOTTEN[how](live, jid)

    assert isinstance(waiter.end().error, JobNotFound)


def test_a_job_that_kills_its_holders_ends_as_poison(live: JobService) -> None:
    jid = live.enqueue("mail", lease=0.1, max_crashes=1)
    for _ in range(2):
        assert live.reserve("mail", timeout=DEADLINE_S)
    record = live.wait(jid, DEADLINE_S)

    assert (record.status, record.reason) == (Status.CANCELED, Reason.POISON)


def test_retries_and_resets_are_waited_through(live: JobService, crew: Crew) -> None:
    jid = live.enqueue("mail")
    waiter = Waiter(live, crew, jid, None)
    take(live).retry(0)
    take(live).release()
    job = take(live)
    job.done("first")
    record = waiter.end().record
    assert record is not None
    assert record.attempt == 2

    live.reset(jid)
    again = Waiter(live, crew, jid, None)
    take(live).done("second")
    last = again.end().record
    assert last is not None
    assert (last.result, last.resets) == ("second", 1)


@pytest.mark.parametrize("ending", ["stop", "close"])
@pytest.mark.parametrize("timeout", [None, 3600])
def test_the_end_of_the_service_ends_the_waiting(
    ending: str, timeout: float | None, live: JobService, crew: Crew
) -> None:
    jid = live.enqueue("mail")
    waiters = [Waiter(live, crew, jid, timeout) for _ in range(3)]
    getattr(live, ending)()

    for waiter in waiters:
        assert isinstance(waiter.end().error, StoreUnavailable)


def test_a_stopped_service_still_says_what_has_ended(svc: JobService) -> None:
    done, left = svc.enqueue_many("mail", [1, 2])
    take(svc).done()
    svc.stop()

    assert svc.wait(done).status is Status.DONE
    with pytest.raises(StoreUnavailable, match=f"job {left} is ready: .* the service was stopped"):
        svc.wait(left)


def test_a_closed_service_says_that_it_is_closed(svc: JobService) -> None:
    jid = svc.enqueue("mail")
    svc.close()

    with pytest.raises(StoreUnavailable, match="closed"):
        svc.wait(jid, 0)


def test_waiting_moves_time(durable_opener: Opener, clock: ManualClock) -> None:
    """Nobody else is there to see that the lease is over."""
    svc = JobService(durable_opener())
    jid = svc.enqueue("mail", max_crashes=1)
    for _ in range(2):
        take(svc)
        clock.advance(600)

    assert svc.wait(jid, DEADLINE_S).reason is Reason.POISON


def test_many_wait_for_one_job(live: JobService, crew: Crew) -> None:
    jid = live.enqueue("mail")
    waiters = [Waiter(live, crew, jid, None) for _ in range(8)]
    take(live).done(7)

    assert [record.result for waiter in waiters if (record := waiter.end().record)] == [7] * 8


def test_a_worker_waits_for_the_job_that_it_has_enqueued(live: JobService, crew: Crew) -> None:
    stop = threading.Event()

    def work() -> None:
        while not stop.is_set():
            for job in live.reserve("double", timeout=0.5):
                job.done(2 * job.payload)

    crew.start(work)
    results = [live.wait(live.enqueue("double", n), DEADLINE_S).result for n in range(20)]
    stop.set()

    assert results == [2 * n for n in range(20)]
