"""What holds for all of the command, and its verbs on the queue as a whole."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import jobq
from jobq import errors
from jobq.cli import context, render
from jobq.repo.base import CheckReport
from tests.cli.conftest import COMMAND, MARK, ROOT, all_verbs, call, environment, run


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
    states = {"ready": 5, "delayed": 1, "reserved": 0, "done": 1, "canceled": 1}
    flow = {"bytes": stats.totals.bytes, "running": 0, "groups": 0, "paused": False}
    assert told["totals"] == states | flow
    assert [topic["settings"] for topic in told["topics"]] == [{}, {}]
    assert stats.next_due is not None
    assert told["next_due"] == stats.next_due.isoformat()
    assert told["store"].keys() == stats.store.keys()


def test_stats_counts_what_another_process_holds(queue: Path) -> None:
    with jobq.open(queue) as svc:
        held = svc.reserve("mail", 3, timeout=0)
        told = json.loads(run("--db", queue, "stats", "--json").stdout)
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
    assert json.loads(result.stdout) == {
        "ok": True,
        "jobs": 8,
        "problems": [],
        "repaired": [],
    }


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


VERBS = [
    ["stats"],
    ["topics"],
    ["topics", "list"],
    ["topics", "configure", "mail"],
    ["topics", "limits", "mail"],
    ["topics", "release", "mail"],
    ["topics", "pause", "mail"],
    ["topics", "resume", "mail"],
    ["topics", "drain", "mail"],
    ["groups", "list", "mail"],
    ["groups", "release", "mail", "ann"],
    ["keys", "list"],
    ["keys", "release", "ann"],
    ["check"],
    ["backup", "mail"],
    ["compact"],
    ["doctor"],
    ["jobs", "list"],
    ["jobs", "show", "1"],
    ["jobs", "logs", "1"],
    ["jobs", "wait", "1"],
    ["jobs", "enqueue", "mail", "1"],
    ["jobs", "edit", "1", "--weight", "1"],
    ["jobs", "move", "1", "--to", "sms"],
    ["jobs", "cancel", "1"],
    ["jobs", "retry", "1"],
    ["jobs", "delete", "1"],
    ["dead", "list"],
    ["dead", "retry"],
    ["dead", "purge"],
    ["work", "mail", "--drain", "--exec", "true"],
    ["purge", "mail"],
    ["export"],
    ["export", "--salvage"],
    ["import"],
]


@pytest.mark.parametrize("verb", VERBS, ids=" ".join)
def test_a_path_without_a_queue_is_refused_and_stays_as_it_was(
    verb: list[str], tmp_path: Path
) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("no queue")
    paths = [tmp_path / "nothing", tmp_path / "empty", tmp_path / "file", Path(":memory:")]
    results = [call("--db", path, *verb) for path in paths]

    for path, result in zip(paths, results, strict=True):
        assert result.exit_code == 1, path
        assert result.stdout == ""
        assert result.stderr.startswith("jobq: ")
        assert result.stderr.count("\n") == 1
        assert path.name in result.stderr
        assert "--db" in result.stderr
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["empty", "file"]
    assert (tmp_path / "file").read_text() == "no queue"


def test_init_makes_a_queue_and_leaves_one_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "queue"
    first = call("--db", path, "init")
    call("--db", path, "jobs", "enqueue", "mail")
    second = call("init", path)

    assert (first.exit_code, first.stdout) == (0, f"made a queue in {path}\n")
    assert (second.exit_code, second.stdout) == (0, f"there is a queue in {path} already\n")
    assert json.loads(call("--db", path, "stats", "--json").stdout)["totals"]["ready"] == 1


def test_init_does_not_take_what_is_no_queue_for_one(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no queue")
    for path in (tmp_path / "file", tmp_path, Path(":memory:")):
        result = call("init", path)

        assert result.exit_code == 1
        assert result.stderr.startswith("jobq: ")
    assert call("init", env={"JOBQ_DB": ""}).exit_code == 2


def test_init_takes_an_empty_name_for_no_other_queue(tmp_path: Path) -> None:
    result = call("--db", tmp_path / "queue", "init", "")

    assert result.exit_code == 2
    assert "which queue?" in result.stderr
    assert list(tmp_path.iterdir()) == []


def test_topics_are_listed_with_how_much_they_have(queue: Path) -> None:
    lines = call("--db", queue, "topics").stdout.splitlines()
    told = [
        json.loads(line) for line in call("--db", queue, "topics", "--json").stdout.splitlines()
    ]

    assert [line.split() for line in lines] == [
        ["topic", "unfinished", "total"],
        ["mail", "5", "7"],
        ["手紙", "1", "1"],
    ]
    assert [(one["name"], one["unfinished"], one["total"]) for one in told] == [
        ("mail", 5, 7),
        ("手紙", 1, 1),
    ]
    assert told[0]["delayed"] == 1


def test_topics_of_an_empty_queue_are_none(empty: Path) -> None:
    assert call("--db", empty, "topics", "--json").stdout == ""


def test_a_terminal_without_the_characters_is_no_error(queue: Path) -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "jobq", "--db", str(queue), "topics"],
        cwd=ROOT,
        env=environment(PYTHONIOENCODING="latin-1"),
        capture_output=True,
        check=True,
    )

    assert b"\\u624b\\u7d19" in ended.stdout


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


@pytest.mark.parametrize(
    "verb",
    [[], ["jobs"], ["dead"], ["topics"], ["groups"], ["keys"], *(verb[:2] for verb in VERBS)],
    ids=" ".join,
)
def test_help_needs_no_queue(verb: list[str]) -> None:
    verb = [word for word in verb if word not in {"mail", "--salvage"}]
    result = call(*verb, "--help", env={"JOBQ_DB": ""})

    assert result.exit_code == 0
    assert f"Usage: {' '.join(['jobq', *verb])}" in result.output


def test_every_verb_is_in_the_list_of_these_tests() -> None:
    need_no_queue = {"init", "bench", "restore"}
    verbs = [verb for verb in all_verbs() if verb not in need_no_queue]

    assert {verb for verb in verbs if not any(" ".join(one).startswith(verb) for one in VERBS)} == (
        set()
    )


def test_help_tells_the_exit_statuses() -> None:
    assert "Exit status: 0" in call("--help").stdout


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


def test_the_module_is_the_command(queue: Path) -> None:
    good = run("--db", queue, "check")
    bad = run("--db", queue / "nothing", "check")

    assert (good.returncode, good.stderr) == (0, b"")
    assert bad.returncode == 1
    assert bad.stderr.startswith(b"jobq: ")
    assert b"Traceback" not in bad.stderr


def test_a_reader_that_hangs_up_is_no_error(queue: Path) -> None:
    command = f"{sys.executable} -m jobq --db {queue} stats | true"
    ended = subprocess.run(
        ["/bin/sh", "-c", command], cwd=ROOT, capture_output=True, text=True, check=True
    )

    assert ended.stderr == ""


@pytest.mark.parametrize(
    "args",
    [
        ("--help",),
        ("stats",),
        ("check", "--json"),
        ("jobs", "list", "--json"),
        ("jobs", "enqueue", "mail", "7"),
        ("export",),
    ],
    ids=" ".join,
)
@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_what_cannot_be_printed_is_one_line(
    queue: Path, args: tuple[str, ...], unbuffered: str
) -> None:
    with Path("/dev/full").open("wb") as full:
        ended = subprocess.run(
            [*COMMAND, "--db", str(queue), *args],
            cwd=ROOT,
            env=environment(PYTHONUNBUFFERED=unbuffered),
            stdin=subprocess.DEVNULL,
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )

    assert (ended.returncode, ended.stderr.count("\n")) == (1, 1), ended.stderr
    assert ended.stderr.startswith("jobq: ")
    assert "No space left on device" in ended.stderr
