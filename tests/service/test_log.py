"""Log lines and progress: kept back a moment, written with the holder's next call or soon."""

import math
from collections.abc import Callable
from pathlib import Path

import pytest

import jobq
from jobq import Job, JobService, StoreFull, StoreUnavailable
from jobq.errors import InvalidValue, ReservationLost
from jobq.service import keeper
from jobq.service.reports import LONGEST_LINE, MOST_LINES
from tests.conftest import Crew, eventually


@pytest.fixture
def job(svc: JobService) -> Job:
    svc.enqueue("mail")
    return svc.reserve("mail", timeout=0)[0]


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is written but with the holder's calls."""
    monkeypatch.setattr(keeper, "REPORT_S", 3600.0)


def texts(svc: JobService, job: Job) -> list[str]:
    return [line.text for line in svc.get(job.id).log]


@pytest.mark.parametrize(
    "settle",
    [Job.done, Job.retry, Job.release, Job.cancel, lambda job: job.extend(60)],
    ids=["done", "retry", "release", "cancel", "extend"],
)
@pytest.mark.usefixtures("patient")
def test_what_was_logged_is_written_with_the_holders_next_call(
    svc: JobService, job: Job, settle: Callable[[Job], object]
) -> None:
    job.log("begun")
    job.progress(1, 3, "reading")
    job.progress(2, 3)
    job.log("half done")
    before = svc.get(job.id)
    settle(job)

    assert (before.log, before.progress) == ((), None)
    record = svc.get(job.id)
    assert texts(svc, job) == ["begun", "half done"]
    assert record.log[0].at <= record.log[1].at
    assert record.progress is not None
    assert record.progress[:3] == (2, 3, None)


@pytest.mark.usefixtures("patient")
def test_settling_many_writes_the_lines_of_each(svc: JobService) -> None:
    svc.enqueue_many("mail", range(3))
    jobs = svc.reserve("mail", 3, timeout=0)
    for job in jobs[:2]:
        job.log(f"of {job.payload}")
    svc.done_many(jobs)

    assert [texts(svc, job) for job in jobs] == [["of 0"], ["of 1"], []]


def test_what_was_logged_is_written_soon_without_any_call(
    svc: JobService, job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keeper, "REPORT_S", 0.01)
    for text in ("one", "two"):
        job.log(text)
        eventually(lambda: texts(svc, job)[-1:] == [text])  # noqa: B023 - waited for at once

    assert texts(svc, job) == ["one", "two"]


@pytest.mark.usefixtures("patient")
def test_a_consume_loop_writes_what_its_blocks_log(svc: JobService) -> None:
    svc.enqueue_many("mail", range(2))
    seen = []
    for job in svc.consume("mail", timeout=0):
        with job:
            job.log(f"of {job.payload}")
            seen.append(job)

    assert [texts(svc, job) for job in seen] == [["of 0"], ["of 1"]]


@pytest.mark.usefixtures("patient")
def test_a_block_that_raises_keeps_its_lines_and_its_traceback(svc: JobService, job: Job) -> None:
    with job:
        job.log("before")
        raise LookupError("no such user")

    record = svc.get(job.id)
    assert texts(svc, job) == ["before"]
    assert record.history[0].error == record.error
    assert "LookupError: no such user" in (record.error or "")


@pytest.mark.usefixtures("patient")
def test_closing_writes_what_is_left(tmp_path: Path) -> None:
    with jobq.open(tmp_path / "queue", durability="unsafe") as svc:
        svc.enqueue("mail")
        (job,) = svc.reserve("mail", timeout=0)
        job.log("last words")

    with jobq.open(tmp_path / "queue") as svc:
        assert texts(svc, job) == ["last words"]


@pytest.mark.usefixtures("patient")
def test_a_settlement_that_is_refused_keeps_the_lines_for_the_next(
    svc: JobService, job: Job
) -> None:
    job.log("one")
    with pytest.raises(InvalidValue):
        job.done(object())
    job.log("two")
    job.done()

    assert texts(svc, job) == ["one", "two"]


@pytest.mark.usefixtures("patient")
def test_a_settlement_that_fails_keeps_the_lines_in_their_order(
    svc: JobService, job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    job.log("one")
    job.progress(1)
    with monkeypatch.context() as patch:
        patch.setattr(svc.store, "settle", _raise(StoreFull("no room")))
        with pytest.raises(StoreFull):
            job.done()
    job.log("two")
    job.done()

    assert texts(svc, job) == ["one", "two"]
    assert (svc.get(job.id).progress or (None,))[0] == 1


def test_a_store_without_room_gets_the_lines_later(
    svc: JobService, job: Job, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(keeper, "REPORT_S", 0.01)
    monkeypatch.setattr(keeper, "AGAIN_S", 0.01)
    with monkeypatch.context() as patch:
        patch.setattr(svc.store, "report", _raise(StoreFull("no room")))
        job.log("one")
        eventually(lambda: "written later" in caplog.text)
    job.log("two")

    eventually(lambda: texts(svc, job) == ["one", "two"])


def test_a_store_that_is_gone_loses_the_lines_and_says_so(
    svc: JobService, job: Job, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(keeper, "REPORT_S", 0.01)
    with monkeypatch.context() as patch:
        patch.setattr(svc.store, "report", _raise(StoreUnavailable("gone")))
        job.log("one")
        eventually(lambda: "is lost" in caplog.text)

    assert texts(svc, job) == []


@pytest.mark.usefixtures("patient")
def test_lines_that_are_too_many_to_keep_back_are_counted(svc: JobService, job: Job) -> None:
    for number in range(MOST_LINES + 4):
        job.log(str(number))
    job.done()

    assert texts(svc, job) == [str(number) for number in range(4, MOST_LINES + 4)]
    assert svc.get(job.id).log_dropped == 4


@pytest.mark.usefixtures("patient")
def test_a_line_is_cut_to_what_is_kept_of_one(svc: JobService, job: Job) -> None:
    job.log("ä" * LONGEST_LINE)
    job.log("half a \ud83d face")
    job.progress(1, text="b" * LONGEST_LINE * 2)
    job.done()

    long, odd = texts(svc, job)
    assert len(long.encode()) <= LONGEST_LINE
    assert long.endswith("ä…")
    assert odd == "half a \\ud83d face"
    progress = svc.get(job.id).progress
    assert progress is not None
    assert progress.text is not None
    assert len(progress.text.encode()) == LONGEST_LINE


@pytest.mark.usefixtures("patient")
def test_several_threads_may_log_for_one_job(svc: JobService, job: Job, crew: Crew) -> None:
    def chatter(name: str) -> None:
        for number in range(100):
            job.log(f"{name} {number}")

    for name in "abcd":
        crew.start(chatter, name)
    crew.join()
    job.done()

    found = texts(svc, job)
    assert len(found) == 400
    for name in "abcd":
        assert [text for text in found if text[0] == name] == [f"{name} {n}" for n in range(100)]


def test_a_settled_job_cannot_log(job: Job) -> None:
    job.done()

    with pytest.raises(ReservationLost, match="settled already"):
        job.log("late")
    with pytest.raises(ReservationLost, match="settled already"):
        job.progress(1)


def test_a_job_that_was_lost_loses_what_it_logs(svc: JobService, job: Job) -> None:
    svc.cancel(job.id)
    job.log("nobody will read this")
    with pytest.raises(ReservationLost):
        job.done()

    assert texts(svc, job) == []


@pytest.mark.parametrize("wrong", [None, 3, b"x", ["x"]])
def test_a_line_that_is_no_text_is_refused(job: Job, wrong: object) -> None:
    with pytest.raises(InvalidValue, match="expected text"):
        job.log(wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize("wrong", ["3", None, True, -1, math.nan, math.inf, 2**63, 10**400])
def test_a_progress_that_is_no_amount_is_refused(job: Job, wrong: object) -> None:
    with pytest.raises(InvalidValue, match="done is "):
        job.progress(wrong)  # type: ignore[arg-type]
    if wrong is not None:
        with pytest.raises(InvalidValue, match="total is "):
            job.progress(1, wrong)  # type: ignore[arg-type]
    with pytest.raises(InvalidValue, match="text is "):
        job.progress(1, 2, 3)  # type: ignore[arg-type]


@pytest.mark.usefixtures("patient")
def test_the_record_in_plain_values_has_it_all(svc: JobService, job: Job) -> None:
    job.log("a line")
    job.progress(1, 2, "half")
    job.retry(0, error="x")

    found = svc.get(job.id).as_dict()
    assert [(one["event"], one["error"], one["attempt"]) for one in found["history"]] == [
        ("retry", "x", 1)
    ]
    assert [line["text"] for line in found["log"]] == ["a line"]
    assert (found["progress"]["done"], found["progress"]["text"]) == (1, "half")


def _raise(error: Exception) -> Callable[..., object]:
    def fail(*_: object) -> object:
        raise error

    return fail
