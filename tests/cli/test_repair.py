"""`jobq check --repair`."""

import json
from pathlib import Path

import lmdb
import pytest

import jobq
from tests.cli.conftest import MARK, call, run, words


@pytest.fixture
def unsorted(queue: Path) -> Path:
    """The queue after the index of its ready jobs was lost."""
    with lmdb.open(str(queue), max_dbs=20, lib_version=0) as env:
        db = env.open_db(b"queue", create=False)
        with env.begin(write=True) as txn:
            txn.drop(db, delete=False)
    return queue


def test_lost_indexes_are_made_anew(unsorted: Path) -> None:
    before = call("--db", unsorted, "check")
    lines = words(call("--db", unsorted, "check", "--repair", "--yes"))

    assert before.exit_code == 5
    assert all(line.startswith("repaired: ") for line in lines[:-1])
    assert lines[-1] == f"8 jobs checked, {len(lines) - 1} problems repaired, none left."
    assert words(call("--db", unsorted, "check")) == ["8 jobs checked, no problem found."]
    with jobq.open(unsorted) as svc:
        assert [job.payload for job in svc.reserve("mail", 10)] == [3, 4, 5, 6]


def test_what_was_repaired_comes_as_json(unsorted: Path) -> None:
    result = call("--db", unsorted, "check", "--repair", "-y", "--json")
    told = json.loads(result.stdout)

    assert result.exit_code == 0
    assert (told["ok"], told["problems"]) == (True, [])
    assert told["repaired"]


def test_it_takes_a_yes_where_nobody_can_be_asked(unsorted: Path) -> None:
    ended = run("--db", unsorted, "check", "--repair")

    assert ended.returncode == 2
    assert b"--yes" in ended.stderr
    assert b"--dry-run" not in ended.stderr
    assert call("--db", unsorted, "check").exit_code == 5


def test_where_nothing_is_wrong_there_is_nothing_to_ask(queue: Path) -> None:
    assert words(call("--db", queue, "check", "--repair")) == ["8 jobs checked, no problem found."]


def test_a_damaged_job_stays_reported(unsorted: Path) -> None:
    data = unsorted / "data.mdb"
    data.write_bytes(data.read_bytes().replace(MARK, bytes([MARK[0] ^ 1]) + MARK[1:]))
    result = call("--db", unsorted, "check", "--repair", "--yes")

    assert result.exit_code == 5
    assert "repaired, 1 problem left." in result.stdout
    assert "damaged" in result.stdout
