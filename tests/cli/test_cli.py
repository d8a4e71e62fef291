"""The command as people and scripts use it, on queues that are really there."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

import jobq
from jobq import cli, errors
from jobq.cli import context, render
from jobq.repo.base import CheckReport

ROOT = Path(__file__).parent.parent.parent
MARK = b"a payload that is easy to find in a file"


@pytest.fixture
def queue(tmp_path: Path) -> Path:
    """The directory of a queue with a few jobs in each state."""
    path = tmp_path / "queue"
    with jobq.open(path) as svc:
        svc.enqueue_many("mail", [1, 2, 3, 4, 5, 6])
        svc.enqueue("mail", "later", delay=3600)
        svc.enqueue("手紙", MARK)
        done, canceled = svc.reserve("mail", 2, timeout=0)
        done.done()
        canceled.cancel()
    return path


def call(*args: str | Path, env: dict[str, str] | None = None) -> Result:
    """What `jobq` with these arguments prints, and its exit status."""
    return CliRunner().invoke(cli.main, [str(arg) for arg in args], env=env, prog_name="jobq")


def test_stats_shows_each_topic_by_state_and_the_totals(queue: Path) -> None:
    result = call("--db", queue, "stats")
    lines = result.stdout.splitlines()

    assert result.exit_code == 0
    assert str(queue) in lines[0]
    assert "next due" in lines[0]
    assert lines[2].split() == ["topic", "ready", "delayed", "reserved", "done", "canceled"]
    assert sorted(line.split() for line in lines[3:5]) == [
        ["mail", "4", "1", "0", "1", "1"],
        ["手紙", "1", "0", "0", "0", "0"],
    ]
    assert [line.split() for line in lines[5:]] == [["total", "5", "1", "0", "1", "1"]]


def test_stats_of_one_topic_leaves_the_others_out(queue: Path) -> None:
    result = call("--db", queue, "stats", "手紙")

    assert result.exit_code == 0
    assert "mail" not in result.stdout
    assert "手紙" in result.stdout


def test_stats_as_json_has_what_the_service_says(queue: Path) -> None:
    result = call("--db", queue, "stats", "--json")
    told = json.loads(result.stdout)

    with jobq.open(queue) as svc:
        stats = svc.stats()
    assert result.exit_code == 0
    assert {topic["name"]: topic["ready"] for topic in told["topics"]} == {"mail": 4, "手紙": 1}
    assert told["totals"] == {"ready": 5, "delayed": 1, "reserved": 0, "done": 1, "canceled": 1}
    assert stats.next_due is not None
    assert told["next_due"] == stats.next_due.isoformat()
    assert told["store"].keys() == stats.store.keys()


def test_stats_counts_what_another_process_holds(queue: Path) -> None:
    with jobq.open(queue) as svc:
        held = svc.reserve("mail", 3, timeout=0)
        told = json.loads(run("--db", str(queue), "stats", "--json").stdout)
        svc.release_many(held)

    assert told["totals"]["reserved"] == 3
    assert told["totals"]["ready"] == 2


def test_an_unknown_topic_is_not_found_rather_than_empty(queue: Path) -> None:
    result = call("--db", queue, "stats", "mial")

    assert result.exit_code == 3
    assert result.stdout == ""
    assert result.stderr.startswith("jobq: there is no topic 'mial'")


def test_check_of_a_sound_queue_says_how_many_jobs_it_looked_at(queue: Path) -> None:
    result = call("--db", queue, "check")

    assert result.exit_code == 0
    assert result.stdout == "8 jobs checked, no problem found.\n"


def test_check_as_json(queue: Path) -> None:
    result = call("--db", queue, "check", "--json")

    assert result.exit_code == 0
    assert json.loads(result.stdout) == {"ok": True, "jobs": 8, "problems": []}


@pytest.fixture
def damaged(queue: Path) -> Path:
    """The same queue after one bit of a payload has flipped on the disk."""
    data = queue / "data.mdb"
    content = data.read_bytes()
    assert MARK in content
    data.write_bytes(content.replace(MARK, bytes([MARK[0] ^ 1]) + MARK[1:]))
    return queue


def test_check_names_what_is_damaged_and_fails(damaged: Path) -> None:
    result = call("--db", damaged, "check")
    *problems, closing = result.stdout.splitlines()

    assert result.exit_code == 5
    assert len(problems) == 1
    assert "damaged" in problems[0]
    assert "1 problem found: " in closing


def test_check_as_json_fails_the_same_way(damaged: Path) -> None:
    result = call("--db", damaged, "check", "--json")
    told = json.loads(result.stdout)

    assert result.exit_code == 5
    assert not told["ok"]
    assert len(told["problems"]) == 1


@pytest.mark.parametrize("verb", ["stats", "check"])
def test_a_file_that_is_no_database_makes_the_store_unusable(verb: str, queue: Path) -> None:
    (queue / "data.mdb").write_bytes(b"scribbled over " * 1000)
    result = call("--db", queue, verb)

    assert result.exit_code == 5
    assert result.stdout == ""
    assert result.stderr.startswith(f"jobq: {queue}")


@pytest.mark.parametrize("verb", ["stats", "check"])
def test_a_path_without_a_queue_is_refused_and_stays_as_it_was(verb: str, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("no queue")
    paths = [tmp_path / "nothing", tmp_path / "empty", tmp_path / "file", Path(":memory:")]
    results = [call("--db", path, verb) for path in paths]

    for path, result in zip(paths, results, strict=True):
        assert result.exit_code == 1, path
        assert result.stdout == ""
        assert result.stderr.startswith("jobq: ")
        assert result.stderr.count("\n") == 1
        assert path.name in result.stderr
        assert "--db" in result.stderr
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["empty", "file"]
    assert (tmp_path / "file").read_text() == "no queue"


def test_the_environment_can_name_the_queue_and_the_option_wins(
    queue: Path, tmp_path: Path
) -> None:
    named = {"JOBQ_DB": str(queue)}
    wrong = {"JOBQ_DB": str(tmp_path / "nothing")}

    assert call("check", env=named).exit_code == 0
    assert call("--db", queue, "check", env=wrong).exit_code == 0
    assert call("check", env=wrong).exit_code == 1


def test_without_a_queue_the_user_is_told_how_to_name_one() -> None:
    result = call("stats", env={"JOBQ_DB": ""})

    assert result.exit_code == 2
    assert "--db PATH" in result.stderr
    assert "JOBQ_DB" in result.stderr


@pytest.mark.parametrize("args", [["--help"], ["stats", "--help"], ["check", "--help"], []])
def test_help_needs_no_queue(args: list[str]) -> None:
    result = call(*args, env={"JOBQ_DB": ""})

    assert "Usage: jobq" in result.output


def test_every_error_ends_in_a_status_of_the_list() -> None:
    def below(kind: type[jobq.JobqError]) -> Iterator[type[jobq.JobqError]]:
        yield kind
        for child in kind.__subclasses__():
            yield from below(child)

    ends = {kind: context.exit_status(kind("why")) for kind in below(jobq.JobqError)}

    assert set(ends.values()) == {1, 3, 5}
    assert ends[jobq.JobqError] == ends[errors.InvalidTransition] == 1
    assert ends[errors.JobNotFound] == 3
    assert ends[errors.StoreCorrupt] == ends[errors.StoreUnavailable] == 5


def test_an_error_is_one_line_whatever_the_path_is() -> None:
    result = call("--db", "nothing\nat \x1b[2J all", "check")

    assert result.exit_code == 1
    assert result.stderr.count("\n") == 1
    assert "\x1b" not in result.stderr


def test_a_topic_cannot_steer_the_terminal(tmp_path: Path) -> None:
    with jobq.open(tmp_path / "queue") as svc:
        svc.enqueue("mail\x1b[2J\nnext")
    result = call("--db", tmp_path / "queue", "stats")

    assert "mail\\x1b[2J\\nnext" in result.stdout


def test_a_report_that_was_cut_off_says_so() -> None:
    problems = tuple("problem" for _ in range(CheckReport.MOST_PROBLEMS))

    assert "at least 1,000 problems" in render.report_as_lines(CheckReport(5000, problems))
    assert "at least" not in render.report_as_lines(CheckReport(5000, problems[1:]))


def run(*args: str) -> "subprocess.CompletedProcess[str]":
    """The command as a process of its own."""
    return subprocess.run(
        [sys.executable, "-W", "error", "-m", "jobq", *args],
        cwd=ROOT,
        env={**os.environ, "JOBQ_DB": ""},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_the_module_is_the_command(queue: Path) -> None:
    good = run("--db", str(queue), "check")
    bad = run("--db", str(queue / "nothing"), "check")

    assert (good.returncode, good.stderr) == (0, "")
    assert bad.returncode == 1
    assert bad.stderr.startswith("jobq: ")
    assert "Traceback" not in bad.stderr


def test_a_reader_that_hangs_up_is_no_error(queue: Path) -> None:
    command = f"{sys.executable} -m jobq --db {queue} stats | true"
    ended = subprocess.run(
        ["/bin/sh", "-c", command], cwd=ROOT, capture_output=True, text=True, check=True
    )

    assert ended.stderr == ""
