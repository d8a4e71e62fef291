"""`jobq jobs logs`, what `show` tells of a job's past, and `export` and `import`."""

import json
import re
from datetime import datetime
from pathlib import Path

import pytest

import jobq
from jobq.cli import record
from jobq.job import Progress
from tests.cli.conftest import TIME_LIMIT_S, call, run, start, words
from tests.cli.test_jobs import ids_of, records
from tests.conftest import eventually

STAMP = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3}Z  ")


@pytest.fixture
def told(empty: Path) -> str:
    """A job that was tried twice and has a log of 30 lines."""
    with jobq.open(empty, durability="unsafe") as svc:
        job_id = svc.enqueue("mail", max_retries=1)
        (job,) = svc.reserve("mail")
        for number in range(29):
            job.log(f"line {number}")
        job.progress(29, 58, "half\x1b way")
        job.retry(0, error="Traceback\nValueError: no")
        (job,) = svc.reserve("mail")
        job.log("last \x1b[2J line")
        job.retry(error="Traceback\nKeyError: 'x'")
    return job_id


def test_logs_are_printed_with_their_times(empty: Path, told: str) -> None:
    lines = words(call("--db", empty, "jobs", "logs", told[-10:]))

    assert all(STAMP.match(line) for line in lines)
    assert [STAMP.sub("", line) for line in lines] == [
        *(f"line {number}" for number in range(29)),
        "last \\x1b[2J line",
    ]


def test_logs_come_as_json_and_as_their_end(empty: Path, told: str) -> None:
    result = call("--db", empty, "jobs", "logs", told, "--json", "--tail", "2")
    lines = records(result.stdout)

    assert [line["text"] for line in lines] == ["line 28", "last \x1b[2J line"]
    assert datetime.fromisoformat(lines[0]["at"]).tzinfo is not None
    assert words(call("--db", empty, "jobs", "logs", told, "-n", "0")) == []


def test_who_waits_is_told_how_each_job_has_ended(empty: Path) -> None:
    with jobq.open(empty, durability="unsafe") as svc:
        first, second = svc.enqueue_many("mail", [1, 2])
        with start("--db", empty, "jobs", "wait", second, first[-12:]) as process:
            one, two = svc.reserve("mail", 2)
            two.done({"sent": 2})
            assert process.stdout is not None
            assert process.stdout.readline().decode() == f"{second} done\n"
            assert process.poll() is None
            one.cancel("rejected")
            assert process.stdout.read().decode() == f"{first} canceled (rejected)\n"
            assert process.wait(TIME_LIMIT_S) == 1

    (told,) = records(call("--db", empty, "jobs", "wait", second, "--json").stdout)
    assert (told["status"], told["result"]) == ("done", {"sent": 2})


def test_waiting_has_an_end(empty: Path) -> None:
    with jobq.open(empty, durability="unsafe") as svc:
        kept = svc.enqueue("mail")
        forgotten = svc.enqueue("other", retention=0)
        with start("--db", empty, "jobs", "wait", forgotten) as process:
            (job,) = svc.reserve("other")
            job.done()
            status = process.wait(TIME_LIMIT_S)
    late = call("--db", empty, "jobs", "wait", kept, "--timeout", "50ms")

    assert late.exit_code == 1
    assert late.stderr == f"jobq: job {kept} is still ready: the time is over\n"
    assert status == 3
    assert call("--db", empty, "jobs", "wait", "ffffffff").exit_code == 3


def test_a_log_is_followed_to_the_end_of_the_job(empty: Path) -> None:
    with jobq.open(empty, durability="unsafe") as svc:
        job_id = svc.enqueue("mail")
        (job,) = svc.reserve("mail")
        job.log("first")
        with start("--db", empty, "jobs", "logs", job_id, "--follow") as process:
            assert process.stdout is not None
            assert process.stdout.readline().endswith(b"first\n")
            job.log("second")
            assert process.stdout.readline().endswith(b"second\n")
            job.log("third")
            job.done()
            rest = process.stdout.read()

    assert rest.endswith(b"third\n")
    assert rest.count(b"\n") == 1
    assert process.returncode == 0


def test_a_log_whose_job_is_deleted_ends(empty: Path) -> None:
    with jobq.open(empty, durability="unsafe") as svc:
        job_id = svc.enqueue("mail")
        with start("--db", empty, "jobs", "logs", job_id, "--follow") as process:
            eventually(lambda: svc.find(limit=1) and process.poll() is None)
            svc.delete(job_id)
            assert process.wait(TIME_LIMIT_S) == 3


def test_lines_that_were_dropped_are_counted(empty: Path) -> None:
    with jobq.open(empty, durability="unsafe") as svc:
        job_id = svc.enqueue("mail")
        (job,) = svc.reserve("mail")
        for number in range(1500):
            job.log(str(number))
        job.done()
        kept = svc.get(job_id)
    shown = words(call("--db", empty, "jobs", "show", job_id))

    assert words(call("--db", empty, "jobs", "logs", job_id))[-1].endswith("1499")
    assert kept.log_dropped > 0
    assert f"  … {len(kept.log) - 20:,} more lines before: `jobq jobs logs` has them" in shown


def test_show_tells_the_history_the_progress_and_the_end_of_the_log(empty: Path, told: str) -> None:
    lines = words(call("--db", empty, "jobs", "show", told))
    history = lines[lines.index("history") + 1 :][:2]
    log = lines[lines.index("log") + 1 :]

    assert [line.split()[:2] for line in history] == [["1", "retry"], ["2", "retry"]]
    assert history[0].endswith("ValueError: no")
    assert history[1].endswith("KeyError: 'x'")
    assert "pid " in history[0]
    assert len(log) == 21
    assert log[0] == "  … 10 more lines before: `jobq jobs logs` has them"
    assert "progress     29 of 58 (50%) half\\x1b way" in "\n".join(lines)
    assert all(line.isprintable() for line in lines)


def test_show_as_json_has_history_log_and_progress(empty: Path, told: str) -> None:
    (job,) = records(call("--db", empty, "jobs", "show", told, "--json").stdout)

    assert [attempt["error"][-9:] for attempt in job["history"]] == ["Error: no", "rror: 'x'"]
    assert len(job["log"]) == 30
    assert job["progress"]["total"] == 58


def test_progress_is_told_with_what_is_known() -> None:
    def shown(done: float, total: float | None, text: str | None) -> str:
        return record._progress(Progress(done, total, text, 0), lambda: 90.0)

    assert shown(3, None, None) == "3  1m ago"
    assert shown(0.5, 0, "x") == "0.5 of 0 x  1m ago"
    assert shown(3, 10, None) == "3 of 10 (30%)  1m ago"


# export, import


def test_all_jobs_move_to_another_queue(queue: Path, empty: Path, tmp_path: Path) -> None:
    path = tmp_path / "jobs.jsonl"
    exported = call("--db", queue, "export", path)
    imported = call("--db", empty, "import", path)
    again = call("--db", empty, "import", path)

    assert (exported.exit_code, exported.stdout) == (0, "")
    assert exported.stderr == "jobq: exported 8 jobs\n"
    assert path.stat().st_mode & 0o777 == 0o600
    assert words(imported) == ["imported 8 jobs, 0 were there already"]
    assert words(again) == ["imported 0 jobs, 8 were there already"]
    assert ids_of(empty) == ids_of(queue)


def test_jobs_go_through_a_pipe(queue: Path, empty: Path) -> None:
    exported = run("--db", queue, "export")
    imported = run("--db", empty, "import", stdin=exported.stdout)

    assert imported.stdout == b"imported 8 jobs, 0 were there already\n"
    assert all(json.loads(line) for line in exported.stdout.splitlines())


def test_a_file_that_is_there_is_not_written_over(queue: Path, tmp_path: Path) -> None:
    path = tmp_path / "precious"
    path.write_text("data")
    result = call("--db", queue, "export", path)

    assert result.exit_code == 1
    assert "is there already" in result.stderr
    assert path.read_text() == "data"
    assert call("--db", queue, "export", tmp_path / "no" / "directory").exit_code == 1


@pytest.mark.parametrize(
    ("end", "told"),
    [(b"{oops\n", "line 3: "), (b"\xff\n", "line 3: "), (b"\n", "line 3: "), (b"", "cut short")],
)
def test_a_wrong_export_is_named_by_line_and_what_is_before_it_stands(
    queue: Path, empty: Path, end: bytes, told: str
) -> None:
    lines = run("--db", queue, "export").stdout.splitlines(keepends=True)
    ended = run("--db", empty, "import", stdin=b"".join(lines[:2]) + end)

    assert ended.returncode == 1
    assert told in ended.stderr.decode()
    assert ids_of(empty) == ids_of(queue)[:1]


def test_a_file_that_is_not_there_is_not_found(empty: Path, tmp_path: Path) -> None:
    assert call("--db", empty, "import", tmp_path / "nothing").exit_code == 3
    assert call("--db", empty, "import", tmp_path).exit_code == 1
