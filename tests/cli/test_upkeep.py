"""`jobq backup`, `restore`, `compact`, `doctor` and `export --salvage`."""

import json
import os
import pty
import signal
import subprocess
from pathlib import Path

import pytest

import jobq
from tests.cli.conftest import (
    COMMAND,
    MARK,
    ROOT,
    TIME_LIMIT_S,
    call,
    environment,
    run,
    start,
    words,
)
from tests.conftest import eventually


@pytest.fixture
def file(queue: Path, tmp_path: Path) -> Path:
    """A backup of the queue."""
    assert call("--db", queue, "backup", tmp_path / "backup").exit_code == 0
    return tmp_path / "backup"


@pytest.fixture
def damaged(queue: Path) -> Path:
    """The queue after a bit of a payload has flipped."""
    data = (queue / "data.mdb").read_bytes()
    (queue / "data.mdb").write_bytes(data.replace(MARK, bytes([MARK[0] ^ 1]) + MARK[1:]))
    return queue


def test_a_backup_says_what_it_has(queue: Path, tmp_path: Path) -> None:
    told = words(call("--db", queue, "backup", tmp_path / "one"))
    as_json = json.loads(call("--db", queue, "backup", tmp_path / "two", "--json").stdout)

    assert told[0].startswith(f"backed up 8 jobs to {tmp_path / 'one'}: ")
    assert as_json["jobs"] == 8
    assert as_json["size"] == (tmp_path / "two").stat().st_size
    assert call("--db", queue, "backup").exit_code == 2


def test_a_backup_takes_no_name_that_is_taken(queue: Path, file: Path) -> None:
    before = file.read_bytes()
    result = call("--db", queue, "backup", file)

    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == f"jobq: {file} is there already: give another name\n"
    assert file.read_bytes() == before


def test_a_queue_is_restored_where_the_command_or_the_environment_says(
    file: Path, tmp_path: Path
) -> None:
    for args in (
        (call("restore", file, tmp_path / "first", env={"JOBQ_DB": ""}), tmp_path / "first"),
        (call("--db", tmp_path / "second", "restore", file), tmp_path / "second"),
        (call("restore", file, env={"JOBQ_DB": str(tmp_path / "third")}), tmp_path / "third"),
    ):
        result, path = args
        assert words(result)[0].startswith(f"restored 8 jobs to {path}: ")
        assert words(call("--db", path, "check")) == ["8 jobs checked, no problem found."]
    assert call("restore", file, env={"JOBQ_DB": ""}).exit_code == 2


def test_a_queue_is_replaced_with_a_confirmation_only(queue: Path, file: Path) -> None:
    call("--db", queue, "purge", "mail", "--yes")
    refused = call("--db", queue, "restore", file)
    asked = call("--db", queue, "restore", file, "--replace")
    assert (refused.exit_code, asked.exit_code) == (1, 2)
    assert "--replace" in refused.stderr
    assert "--yes" in asked.stderr
    with jobq.open(queue) as svc:
        assert svc.stats().totals.ready == 1
        in_use = call("--db", queue, "restore", file, "--replace", "--yes")
    assert in_use.exit_code == 5
    assert "open in this process" in in_use.stderr

    done = json.loads(call("--db", queue, "restore", file, "--replace", "-y", "--json").stdout)
    assert (done["jobs"], done["path"]) == (8, str(queue))
    with jobq.open(queue) as svc:
        assert svc.stats().totals.ready == 5


def test_what_is_no_backup_is_refused(queue: Path, tmp_path: Path) -> None:
    (tmp_path / "text").write_text("no backup\n" * 1000)
    for name, status in (("text", 5), ("nowhere", 3), ("queue", 1)):
        result = call("--db", tmp_path / "new", "restore", tmp_path / name)
        assert (result.exit_code, result.stdout) == (status, ""), result.stderr
        assert str(tmp_path / name) in result.stderr
    assert call("--db", queue, "check").exit_code == 0


def test_compact_says_what_it_gave_back(queue: Path) -> None:
    with jobq.open(queue, durability="unsafe") as svc:
        svc.enqueue_many("gone", [bytes(5000)] * 200)
        svc.purge("gone")
    result = call("--db", queue, "compact", "--json")
    told = json.loads(result.stdout)

    assert told["jobs"] == 8
    assert told["size"] == (queue / "data.mdb").stat().st_size < told["before"] / 10
    assert words(call("--db", queue, "compact"))[0].startswith("compacted 8 jobs: ")
    with jobq.open(queue):
        assert call("--db", queue, "compact").exit_code == 5


def test_the_doctor_ends_well_or_with_status_5(queue: Path) -> None:
    assert words(call("--db", queue, "doctor"))[-1].endswith("all is well.")
    assert words(call("--db", queue, "doctor", "--deep"))[:5] == [
        f"{step:<10}well" for step in ("head", "opening", "pages", "records", "indexes")
    ]


def test_the_doctor_names_what_is_damaged_and_what_to_do(damaged: Path) -> None:
    result = call("--db", damaged, "doctor", "--deep")
    told = json.loads(call("--db", damaged, "doctor", "--deep", "--json").stdout)

    assert result.exit_code == 5
    lines = result.stdout.splitlines()
    assert "records   damaged" in lines
    assert "can be saved: 7 jobs; 1 lost" in lines
    assert lines[-1].endswith("1 problem found.")
    assert sum(line.startswith("advice: ") for line in lines) == 3
    assert told["ok"] is False
    assert told["saved"]["jobs"] == 7
    assert told["steps"]["records"] is False
    assert len(told["problems"]) == 1


def test_the_doctor_outlives_what_kills_others(queue: Path) -> None:
    data = (queue / "data.mdb").read_bytes()
    (queue / "data.mdb").write_bytes(data[: 3 * 4096])
    ended = run("--db", queue, "doctor", "--deep")

    assert ended.returncode == 5
    assert b"SIGBUS" in ended.stdout
    assert ended.stderr == b""


def test_what_can_be_read_is_saved_and_what_was_lost_is_said(damaged: Path, tmp_path: Path) -> None:
    result = call("--db", damaged, "export", tmp_path / "jobs", "--salvage")
    assert result.exit_code == 5
    assert result.stderr.splitlines()[-1] == "jobq: saved 7 jobs; 1 lost"
    assert call("--db", damaged, "export", tmp_path / "jobs", "--salvage").exit_code == 1

    call("--db", tmp_path / "new", "init")
    imported = words(call("--db", tmp_path / "new", "import", tmp_path / "jobs"))
    assert imported == ["imported 7 jobs, 0 were there already"]
    assert call("--db", tmp_path / "new", "check").exit_code == 0


def test_a_salvage_of_a_sound_queue_is_an_export(queue: Path) -> None:
    saved = call("--db", queue, "export", "--salvage")
    exported = call("--db", queue, "export")

    assert saved.exit_code == 0
    assert saved.stderr == "jobq: saved 8 jobs\n"
    assert saved.stdout.splitlines()[1:] == exported.stdout.splitlines()[1:]


def test_on_a_terminal_it_is_shown_how_far_a_backup_is(queue: Path, tmp_path: Path) -> None:
    ours, theirs = pty.openpty()
    ended = subprocess.run(
        [*COMMAND, "--db", str(queue), "backup", str(tmp_path / "backup")],
        cwd=ROOT,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=theirs,
        check=True,
    )
    shown = os.read(ours, 10_000).decode()
    for fd in (ours, theirs):
        os.close(fd)

    assert ended.stdout.startswith(b"backed up 8 jobs")
    assert shown.startswith("\rcopying, 0 B of ")
    assert "\rverifying " in shown
    assert shown.endswith(" \r"), "the line is taken away"


def interrupted(queue: Path, backup: Path, stop: signal.Signals) -> int:
    """How a backup ends that gets a signal while the copy is under way."""
    with start("--db", queue, "backup", backup) as process:
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
        eventually(lambda: process.poll() is not None or children.read_text())
        process.send_signal(stop)
        process.communicate(timeout=TIME_LIMIT_S)
        return process.returncode


def test_a_backup_that_is_interrupted_leaves_nothing(queue: Path, tmp_path: Path) -> None:
    with jobq.open(queue, durability="unsafe") as svc:
        svc.enqueue_many("mail", [bytes(200)] * 30_000)
    for stop, status in ((signal.SIGINT, 1), (signal.SIGTERM, -signal.SIGTERM)):
        while (ended := interrupted(queue, tmp_path / "backup", stop)) == 0:
            (tmp_path / "backup").unlink()  # the signal came when all was done
        assert ended == status

    assert [path.name for path in tmp_path.iterdir()] == ["queue"]
