"""The contract of every store: what is kept of a job's past, and how much of it."""

import sys

import pytest

from jobq.clock import ManualClock
from jobq.job import Attempt, LogLine, Progress, Report
from jobq.repo.operations.history import LONGEST_LINE, MOST_ATTEMPTS, MOST_ERRORS
from jobq.repo.operations.reports import MOST_BYTES, MOST_LINES
from jobq.selector import ALL_JOBS, Selector
from jobq.states import Event, Outcome, Status
from tests.conftest import Opener
from tests.repo.conftest import Queue


def told(held: object, *texts: str, **more: object) -> Report:
    """A report of these lines, of now."""
    return Report(held.id, held.token, tuple((0, text) for text in texts), **more)  # type: ignore[attr-defined, arg-type]


def events(queue: Queue, job_id: bytes) -> list[tuple[int, str]]:
    return [(attempt.attempt, attempt.event.value) for attempt in queue.get(job_id).history]


def texts(queue: Queue, job_id: bytes) -> list[str]:
    return [line.text for line in queue.get(job_id).log]


# Attempts.


def test_a_new_job_has_no_past(queue: Queue) -> None:
    record = queue.get(queue.add())

    assert (record.history, record.history_dropped) == ((), 0)
    assert (record.log, record.log_dropped, record.progress) == ((), 0, None)


def test_a_job_that_is_held_has_no_attempt_that_ended(queue: Queue) -> None:
    job_id = queue.add()
    queue.take_one()

    assert queue.get(job_id).history == ()


def test_a_first_attempt_that_succeeds_is_told_with_its_times_and_holder(
    queue: Queue, clock: ManualClock
) -> None:
    job_id = queue.add()
    reserved_us = clock.wall_us()
    held = queue.take_one()
    holder = queue.get(job_id).holder
    clock.advance(3)
    queue.done(held)

    assert holder
    assert queue.get(job_id).history == (
        Attempt(1, Event.DONE, holder, reserved_us, clock.wall_us(), None),
    )


def test_a_program_of_any_name_leaves_a_history(
    queue: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["/bin/caf\udce9"])  # as Python has the byte E9
    job_id = queue.add()
    queue.take_one()
    queue.expire()

    [attempt] = queue.get(job_id).history
    assert attempt.event is Event.EXPIRE
    assert attempt.holder.encode()


def test_every_way_in_which_a_reservation_ends_is_told_in_order(queue: Queue) -> None:
    job_id = queue.add()
    queue.retry(queue.take_one(), error="first")
    queue.release(queue.take_one())
    queue.expire_one_holder()
    queue.retry(queue.take_one())
    queue.done(queue.take_one())

    assert events(queue, job_id) == [
        (1, "retry"), (2, "release"), (2, "expire"), (3, "retry"), (4, "done"),
    ]  # fmt: skip


def test_each_attempt_keeps_what_was_said_of_it(queue: Queue, clock: ManualClock) -> None:
    job_id = queue.add()
    for error in ("one", "two"):
        queue.retry(queue.take_one(), error=error)
        clock.advance(1)
    queue.release(queue.take_one())

    record = queue.get(job_id)
    assert [attempt.error for attempt in record.history] == ["one", "two", None]
    assert record.error == "two"
    assert [attempt.ended_us - record.history[0].ended_us for attempt in record.history] == [
        0, 1_000_000, 2_000_000,
    ]  # fmt: skip


def test_a_held_job_that_somebody_cancels_has_an_attempt_more(queue: Queue) -> None:
    job_id = queue.add()
    queue.take_one()
    queue.store.cancel([job_id], "not needed")

    record = queue.get(job_id)
    assert [(one.event, one.error) for one in record.history] == [(Event.CANCEL, "not needed")]
    assert record.error == "not needed"


def test_a_waiting_job_that_somebody_cancels_has_an_error_but_no_attempt(queue: Queue) -> None:
    job_id = queue.add()
    queue.store.cancel([job_id], "not needed")

    assert (queue.get(job_id).history, queue.get(job_id).error) == ((), "not needed")


def test_an_error_may_be_an_empty_text(queue: Queue) -> None:
    one, other = queue.add(), queue.add()
    queue.retry(queue.take_one(), error="")
    queue.store.cancel([other], "")

    assert (queue.get(one).error, queue.get(one).history[0].error) == ("", "")
    assert queue.get(other).error == ""


def test_a_settlement_that_is_repeated_is_told_once(queue: Queue) -> None:
    job_id = queue.add()
    held = queue.take_one()
    assert [queue.retry(held, 10, error="x"), queue.retry(held, 10, error="y")] == [Outcome.OK] * 2

    assert [attempt.error for attempt in queue.get(job_id).history] == ["x"]


def test_a_stale_holder_tells_nothing(queue: Queue) -> None:
    job_id = queue.add()
    stale = queue.take_one()
    queue.expire()
    queue.take_one()

    assert queue.retry(stale, error="late") is Outcome.STALE
    assert queue.store.report([told(stale, "late")]) == [Outcome.STALE]
    assert events(queue, job_id) == [(1, "expire")]
    assert queue.get(job_id).log == ()


def test_a_reset_keeps_the_attempts_and_the_log_and_forgets_what_came_of_them(
    queue: Queue,
) -> None:
    job_id = queue.add()
    queue.store.report([told(queue.take_one(), "a line", progress=(1, 2, None, 0))])
    queue.expire()
    queue.retry(queue.take_one(), None, error="enough")
    queue.reset(job_id)

    record = queue.get(job_id)
    assert events(queue, job_id) == [(1, "expire"), (2, "retry")]
    assert (record.error, record.progress, texts(queue, job_id)) == (None, None, ["a line"])


def test_the_only_success_of_a_job_is_not_forgotten_by_its_reset(queue: Queue) -> None:
    job_id = queue.add()
    queue.done(queue.take_one(), result=b"\x01")
    (success,) = queue.get(job_id).history
    queue.reset(job_id)
    queue.take_one()

    assert queue.get(job_id).history == (success,)


def test_a_hundred_attempts_are_kept_and_the_older_ones_counted(queue: Queue) -> None:
    job_id = queue.add(max_crashes=0)
    for number in range(MOST_ATTEMPTS + 3):
        queue.retry(queue.take_one(), error=f"error {number}")

    record = queue.get(job_id)
    assert (len(record.history), record.history_dropped) == (MOST_ATTEMPTS, 3)
    assert record.history[0].error == "error 3"
    assert record.history[-1].attempt == MOST_ATTEMPTS + 3


def test_of_long_errors_the_newest_are_whole_and_of_older_ones_the_last_line_is_left(
    queue: Queue,
) -> None:
    job_id = queue.add()
    long = MOST_ERRORS // 2 - 20
    for number in range(4):
        queue.retry(queue.take_one(), error="x" * long + f"\nValueError: {number}")

    errors = [attempt.error or "" for attempt in queue.get(job_id).history]
    assert errors[:2] == ["ValueError: 0", "ValueError: 1"]
    assert [len(error) > long for error in errors] == [False, False, True, True]


def test_of_an_error_that_is_too_long_the_end_is_kept(queue: Queue) -> None:
    job_id = queue.add()
    queue.retry(queue.take_one(), error="ä" * MOST_ERRORS + " the end")

    kept = queue.get(job_id).error or ""
    assert kept.endswith("ä the end")
    assert kept.startswith("…ä")
    assert MOST_ERRORS - 3 < len(kept.encode()) <= MOST_ERRORS


def test_what_is_kept_of_a_job_that_always_fails_stays_small(queue: Queue) -> None:
    job_id = queue.add()
    for _ in range(MOST_ATTEMPTS + 10):
        queue.retry(queue.take_one(), error="no newline " * MOST_ERRORS)

    errors = [(attempt.error or "").encode() for attempt in queue.get(job_id).history]
    assert sum(map(len, errors)) <= MOST_ERRORS + MOST_ATTEMPTS * LONGEST_LINE


def test_an_error_that_utf8_cannot_encode_is_kept_readable(queue: Queue) -> None:
    job_id = queue.add()
    queue.retry(queue.take_one(), error="half a \ud83d face")

    assert queue.get(job_id).error == "half a \\ud83d face"


# The log.


def test_lines_are_kept_in_order_with_the_times_at_which_they_were_written(
    queue: Queue, clock: ManualClock
) -> None:
    job_id = queue.add()
    held = queue.take_one()
    now_us = clock.wall_us()
    two = Report(held.id, held.token, ((900, "a"), (100, "b")))
    assert queue.store.report([two, told(held, "c")]) == [Outcome.OK] * 2

    assert queue.get(job_id).log == (
        LogLine(now_us - 900, "a"), LogLine(now_us - 100, "b"), LogLine(now_us, "c"),
    )  # fmt: skip


def test_a_report_may_come_with_the_settlement(queue: Queue) -> None:
    job_id = queue.add()
    held = queue.take_one()
    queue.done(held, report=told(held, "last words", progress=(10, 10, "all", 0)))

    record = queue.get(job_id)
    assert texts(queue, job_id) == ["last words"]
    assert record.progress == Progress(10, 10, "all", record.ended_us or 0)


def test_what_a_holder_told_before_it_settled_may_come_after(queue: Queue) -> None:
    job_id = queue.add()
    held = queue.take_one()
    queue.done(held)

    assert queue.store.report([told(held, "late")]) == [Outcome.OK]
    assert texts(queue, job_id) == ["late"]


def test_what_comes_after_somebody_else_has_touched_the_job_is_refused(queue: Queue) -> None:
    job_id = queue.add()
    held = queue.take_one()
    queue.cancel(job_id)

    assert queue.store.report([told(held, "late")]) == [Outcome.STALE]
    assert queue.get(job_id).log == ()


def test_a_report_of_a_job_that_is_gone_is_missing(queue: Queue) -> None:
    queue.add()
    held = queue.take_one()
    queue.done(held, keep_us=0)

    assert queue.store.report([told(held, "late")]) == [Outcome.MISSING]


def test_a_log_goes_on_over_attempts(queue: Queue) -> None:
    job_id = queue.add()
    for text in ("one", "two"):
        held = queue.take_one()
        queue.retry(held, report=told(held, text))

    assert texts(queue, job_id) == ["one", "two"]


@pytest.mark.parametrize("at_once", [1, 7, MOST_LINES + 5])
def test_the_newest_thousand_lines_are_kept_and_the_others_counted(
    queue: Queue, at_once: int
) -> None:
    job_id = queue.add()
    held = queue.take_one()
    every = [str(number) for number in range(MOST_LINES + 25)]
    for start in range(0, len(every), at_once):
        queue.store.report([told(held, *every[start : start + at_once])])

    assert texts(queue, job_id) == every[-MOST_LINES:]
    assert queue.get(job_id).log_dropped == 25


def test_the_newest_64_kilobytes_are_kept(queue: Queue) -> None:
    job_id = queue.add()
    held = queue.take_one()
    for number in range(80):
        queue.store.report([told(held, f"{number:02}" + "ü" * 511)])

    assert texts(queue, job_id) == [f"{number:02}" + "ü" * 511 for number in range(16, 80)]
    assert sum(len(line.encode()) for line in texts(queue, job_id)) == MOST_BYTES
    assert queue.get(job_id).log_dropped == 16


def test_lines_that_were_dropped_before_they_came_are_counted(queue: Queue) -> None:
    job_id = queue.add()
    queue.store.report([told(queue.take_one(), "x", dropped=7)])

    assert queue.get(job_id).log_dropped == 7


def test_the_last_progress_stands(queue: Queue, clock: ManualClock) -> None:
    job_id = queue.add()
    held = queue.take_one()
    queue.store.report([told(held, progress=(1, 4, "one", 0))])
    queue.store.report([told(held, progress=(2.5, None, None, 1000))])

    assert queue.get(job_id).progress == Progress(2.5, None, None, clock.wall_us() - 1000)


def test_a_page_of_jobs_comes_with_their_attempts_but_without_their_logs(queue: Queue) -> None:
    queue.add()
    held = queue.take_one()
    queue.retry(held, error="x", report=told(held, "a line", progress=(1, 2, None, 0)))

    (found,) = queue.store.find(ALL_JOBS, None, 10)
    assert (len(found.history), found.error) == (1, "x")
    assert found.progress is not None
    assert (found.log, found.log_dropped) == ((), 0)


def test_nothing_of_a_forgotten_job_is_left(queue: Queue, clock: ManualClock) -> None:
    for _ in range(2):
        queue.add()
        held = queue.take_one()
        queue.store.report([told(held, "a line", progress=(1, 2, None, 0))])
        queue.retry(held, error="x", report=told(held, "another"))
        queue.done(queue.take_one(), result=b"\x01", keep_us=60_000_000)
    (kept,) = queue.store.find(Selector(statuses=frozenset({Status.DONE})), None, 1)
    clock.advance(61)
    queue.store.prune()

    assert kept.history
    assert queue.store.find(ALL_JOBS, None, 10) == []
    assert queue.store.check().problems == ()  # it knows of notes without a job


def test_the_past_of_a_job_outlives_its_store(durable_opener: Opener, clock: ManualClock) -> None:
    store = durable_opener()
    queue = Queue(store, clock)
    job_id = queue.add()
    held = queue.take_one()
    queue.retry(held, error="x", report=told(held, "a line", progress=(1, 2, None, 0)))
    before = queue.get(job_id)
    durable_opener.close(store)

    assert Queue(durable_opener(), clock).get(job_id) == before
