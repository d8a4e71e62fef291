"""`with job:` outside of consume: what each way out of the block makes of the job."""

import asyncio
import logging
import sys
from collections.abc import Callable, Iterator

import pytest

from jobq import Job, JobService, Status
from jobq.clock import ManualClock
from jobq.errors import ReservationLost


class Unspeakable(Exception):
    """An exception that cannot be shown."""

    def __str__(self) -> str:
        raise RuntimeError("no")

    __repr__ = __str__


class Mine(BaseException):
    """Neither an Exception nor one of the interrupts that Python knows."""


class Deep(asyncio.CancelledError):
    """A child of the interrupt that asyncio raises."""


def reserve_one(svc: JobService, topic: str = "mail") -> Job:
    (job,) = svc.reserve(topic, timeout=0)
    return job


@pytest.fixture
def job(svc: JobService) -> Job:
    svc.enqueue("mail", {"n": 1})
    return reserve_one(svc)


def test_a_clean_end_is_done_and_durable(svc: JobService, job: Job) -> None:
    with job as same:
        assert same is job
        assert svc.status(job.id) is Status.RESERVED

    assert svc.status(job.id) is Status.DONE
    assert svc.get(job.id).result is None
    assert job.settled


def recursion() -> None:
    recursion()


def divide() -> None:
    1 / 0  # noqa: B018


FAILURES: list[tuple[str, Callable[[], object]]] = [
    ("ZeroDivisionError: division by zero", divide),
    ("RecursionError", recursion),
    ("OSError: [Errno 5] disk", lambda: throw(OSError(5, "disk"))),
    ("StopIteration", lambda: next(iter(()))),
    ("TimeoutError", lambda: throw(TimeoutError())),
    ("MemoryError", lambda: throw(MemoryError())),
    ("ExceptionGroup: two (2 sub-exceptions)", lambda: throw(
        ExceptionGroup("two", [ValueError("a"), TypeError("b")]))),
    ("Unspeakable", lambda: throw(Unspeakable())),
    ("UnicodeError: \\udc80", lambda: throw(UnicodeError("\udc80"))),
    ("AssertionError", lambda: throw(AssertionError())),
]  # fmt: skip


def throw(error: BaseException) -> None:
    raise error


@pytest.mark.parametrize(("said", "fail"), FAILURES, ids=[said for said, _ in FAILURES])
def test_an_exception_is_a_retry_with_its_traceback_and_goes_no_further(
    svc: JobService,
    job: Job,
    said: str,
    fail: Callable[[], object],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # What it logs may hold a text that the processes of a test run cannot tell one another.
    monkeypatch.setattr(logging.getLogger("jobq"), "disabled", True)
    with job:
        fail()
    record = svc.get(job.id)

    assert (record.status, record.retries) == (Status.DELAYED, 1)
    assert record.error is not None
    assert said in record.error
    assert job.settled


def test_the_error_of_a_cause_is_kept_too(svc: JobService, job: Job) -> None:
    with job:
        try:
            divide()
        except ZeroDivisionError as error:
            raise LookupError("no user") from error
    kept = svc.get(job.id).error or ""

    assert kept.index("ZeroDivisionError") < kept.index("LookupError: no user")


@pytest.mark.parametrize(
    "interrupt",
    [KeyboardInterrupt, SystemExit, GeneratorExit, asyncio.CancelledError, Deep],
)
def test_an_interrupt_releases_the_job_untried_and_goes_on(
    svc: JobService, job: Job, interrupt: type[BaseException]
) -> None:
    with pytest.raises(interrupt), job:
        raise interrupt
    record = svc.get(job.id)

    assert (record.status, record.attempt, record.retries) == (Status.READY, 0, 0)
    assert record.error is None


def test_sys_exit_keeps_its_status(job: Job) -> None:
    with pytest.raises(SystemExit) as caught, job:
        sys.exit(3)

    assert caught.value.code == 3


def test_a_base_exception_of_ones_own_is_a_retry_and_goes_on(svc: JobService, job: Job) -> None:
    with pytest.raises(Mine, match="stop"), job:
        raise Mine("stop")
    record = svc.get(job.id)

    assert (record.status, record.retries) == (Status.DELAYED, 1)
    assert (record.error or "").endswith("Mine: stop")


def test_a_generator_that_is_closed_in_the_block_releases_its_job(
    svc: JobService, job: Job
) -> None:
    def work() -> Iterator[int]:
        with job:
            yield 1
            yield 2

    steps = work()
    next(steps)
    del steps

    assert svc.status(job.id) is Status.READY


@pytest.mark.parametrize(
    ("settle", "status"),
    [
        (lambda job: job.done({"n": 2}), Status.DONE),
        (lambda job: job.retry(5, "later"), Status.DELAYED),
        (lambda job: job.release(5), Status.DELAYED),
        (lambda job: job.cancel("rejected"), Status.CANCELED),
    ],
    ids=["done", "retry", "release", "cancel"],
)
def test_a_block_that_settles_the_job_itself_is_left_at_that(
    svc: JobService, job: Job, settle: Callable[[Job], object], status: Status
) -> None:
    with job:
        settle(job)
        before = svc.get(job.id)
        assert before.status is status  # durable when the call returns

    assert svc.get(job.id) == before


def test_an_exception_after_the_job_was_settled_is_logged_and_goes_no_further(
    svc: JobService, job: Job, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, "jobq"), job:
        job.done("kept")
        raise ValueError("too late")

    assert svc.get(job.id).result == "kept"
    assert "too late" in caplog.text


def test_a_block_can_be_left_early(svc: JobService) -> None:
    svc.enqueue_many("mail", range(3))
    for job in svc.reserve("mail", 3):
        with job:
            if job.payload == 1:
                continue

    assert svc.stats().totals.done == 3


def test_a_block_whose_job_was_lost_says_so_at_its_end(
    svc: JobService, job: Job, clock: ManualClock
) -> None:
    with pytest.raises(ReservationLost, match=job.id), job:
        clock.advance(601)

    assert svc.get(job.id).crashes == 1


def test_an_exception_in_a_block_whose_job_was_lost_is_not_forgotten(
    svc: JobService, job: Job
) -> None:
    def work() -> None:
        with job:
            svc.cancel(job.id)
            raise ValueError("what really happened")

    with pytest.raises(ReservationLost) as caught:
        work()
    assert isinstance(caught.value.__context__, ValueError)
    assert svc.get(job.id).error is None


@pytest.mark.parametrize("interrupt", [KeyboardInterrupt, SystemExit, asyncio.CancelledError, Mine])
def test_an_interrupt_goes_on_even_if_the_job_was_lost_meanwhile(
    svc: JobService, job: Job, interrupt: type[BaseException]
) -> None:
    """Ctrl-C must not turn into an error that a loop catches to go on with the next job."""

    def work() -> None:
        with job:
            svc.cancel(job.id)
            raise interrupt

    with pytest.raises(interrupt):
        work()


def test_the_block_of_a_settled_job_does_nothing(svc: JobService, job: Job) -> None:
    job.done(1)
    with job:
        pass
    with job, job:
        pass

    assert svc.get(job.id).result == 1


def test_an_error_that_cannot_be_told_is_refused_and_the_job_is_still_held(
    svc: JobService, job: Job
) -> None:
    with pytest.raises(ValueError, match="error is 5: expected text or an exception"):
        job.retry(error=5)  # type: ignore[arg-type]

    assert svc.status(job.id) is Status.RESERVED


def test_an_error_that_cannot_be_shown_is_kept_by_its_name(svc: JobService, job: Job) -> None:
    job.retry(error=SyntaxError("odd", ("file.py", 1, 1, 5)))  # type: ignore[arg-type]  # traceback fails on it

    assert svc.get(job.id).error == "SyntaxError (which cannot be shown)"


def test_a_very_long_error_is_kept_by_its_end(svc: JobService, job: Job) -> None:
    with job:
        raise ValueError("x" * 100_000 + " the end")
    kept = svc.get(job.id).error or ""

    assert kept.endswith("the end")
    assert len(kept) <= 16 * 1024
