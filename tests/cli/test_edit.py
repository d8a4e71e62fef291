"""`jobq jobs edit`, `jobq purge` and `jobq topics configure`."""

import json
from pathlib import Path
from typing import Any

import pytest

import jobq
from jobq.job import JobRecord
from jobq.options import JobOptions
from tests.cli.conftest import call, run, words
from tests.cli.test_jobs import ids_of, records, statuses


def get(queue: Path, job_id: str) -> JobRecord:
    with jobq.open(queue, create=False) as svc:
        return svc.get(job_id)


# edit


@pytest.mark.parametrize(
    ("args", "field", "value"),
    [
        (["--topic", "sms"], "topic", "sms"),
        (["--weight", "-7"], "weight", -7),
        (["--payload", '{"n": 1}'], "payload", {"n": 1}),
        (["--payload", "null"], "payload", None),
        (["--payload", "words", "--text"], "payload", "words"),
        (["--payload", "words", "--raw"], "payload", b"words"),
        (["--payload", "-"], "payload", "from stdin"),
        (["--delay", "1h"], "status", "delayed"),
        (["--lease", "5m", "--tag", "x"], "options", JobOptions(lease=300.0, tags=("x",))),
    ],
)
def test_a_waiting_job_is_changed(empty: Path, args: list[str], field: str, value: Any) -> None:
    (job_id,) = words(call("--db", empty, "jobs", "enqueue", "mail", "7"))
    result = call("--db", empty, "jobs", "edit", job_id[-10:], *args, stdin='"from stdin"')
    job = get(empty, job_id)

    assert words(result) == [f"{job_id} edited"]
    assert getattr(job, field) == value


def test_what_is_not_given_stays_and_what_is_unset_goes(empty: Path) -> None:
    (job_id,) = words(
        call("--db", empty, "jobs", "enqueue", "mail", "7", "--lease", "5m", "--name", "n")
    )
    words(call("--db", empty, "jobs", "edit", job_id, "--unset", "lease", "--weight", "0"))
    job = get(empty, job_id)

    assert (job.topic, job.payload, job.options) == ("mail", 7, JobOptions(name="n"))


def test_a_delay_of_0_makes_a_job_ready_now(queue: Path) -> None:
    (job_id,) = ids_of(queue, status="delayed")
    words(call("--db", queue, "jobs", "edit", job_id, "--delay", "0"))

    assert statuses(queue)[job_id] == "ready"


def test_what_does_not_wait_is_not_edited(queue: Path) -> None:
    (done,) = ids_of(queue, status="done")
    (ready, *_) = ids_of(queue, status="ready")
    result = call("--db", queue, "jobs", "edit", "--yes", ready, done, "--weight", "5")
    dry = call("--db", queue, "jobs", "edit", "--dry-run", "--json", done, "--weight", "5")

    assert (result.exit_code, dry.exit_code) == (1, 1)
    assert f"job {done} is done: cannot edit (only ready, delayed jobs can)" in result.stderr
    assert get(queue, ready).weight == 5
    assert get(queue, done).weight == 0
    assert records(dry.stdout) == [{"id": done, "outcome": "invalid"}]


@pytest.mark.parametrize(
    ("args", "status"),
    [
        ([], 2),
        (["--payload", "{"], 1),
        (["--payload", "1", "--text", "--raw"], 2),
        (["--weight", "99999"], 1),
        (["--unset", "everything"], 2),
        (["--topic", ""], 1),
    ],
)
def test_a_wrong_edit_changes_nothing(empty: Path, args: list[str], status: int) -> None:
    (job_id,) = words(call("--db", empty, "jobs", "enqueue", "mail", "7"))
    before = get(empty, job_id)

    assert call("--db", empty, "jobs", "edit", job_id, *args).exit_code == status
    assert get(empty, job_id) == before


# retry of delayed jobs


def test_retry_ends_a_delay(queue: Path) -> None:
    (delayed,) = ids_of(queue, status="delayed")
    (done,) = ids_of(queue, status="done")

    assert words(call("--db", queue, "jobs", "retry", "--yes", done, delayed)) == [
        f"{done} ready",
        f"{delayed} ready",
    ]
    assert statuses(queue)[delayed] == statuses(queue)[done] == "ready"


def test_delayed_jobs_are_retried_where_a_filter_names_them(queue: Path) -> None:
    (delayed,) = ids_of(queue, status="delayed")

    assert words(call("--db", queue, "jobs", "retry", "--yes", "--all")) == ["ready: 1 job"]
    assert statuses(queue)[delayed] == "delayed"
    assert words(call("--db", queue, "jobs", "retry", "--yes", "-s", "delayed")) == ["ready: 1 job"]
    assert statuses(queue)[delayed] == "ready"


# purge


@pytest.mark.parametrize(
    ("args", "purged"),
    [
        (["mail"], 5),
        (["手紙"], 1),
        (["mail", "--status", "done"], 1),
        (["mail", "-s", "ready"], 4),
        (["手紙", "-s", "canceled"], 0),
    ],
)
def test_purge_forgets_the_jobs_of_a_topic(queue: Path, args: list[str], purged: int) -> None:
    dry = call("--db", queue, "purge", *args, "--dry-run")
    assert len(statuses(queue)) == 8
    told = words(call("--db", queue, "purge", *args, "--yes"))

    noun = "job" if purged == 1 else "jobs"
    assert f"would forget {purged} {noun} of topic {args[0]!r}" in dry.stderr
    assert told == [f"purged: {purged} {noun}"]
    assert len(statuses(queue)) == 8 - purged


def test_purge_takes_a_yes_where_nobody_can_be_asked(queue: Path) -> None:
    ended = run("--db", queue, "purge", "mail")

    assert ended.returncode == 2
    assert b"--yes" in ended.stderr
    assert len(statuses(queue)) == 8


def test_purge_refuses_what_is_held_and_what_is_not_there(queue: Path) -> None:
    assert call("--db", queue, "purge", "mail", "-s", "reserved", "--yes").exit_code == 2
    assert call("--db", queue, "purge", "mial", "--yes").exit_code == 3


# configure


def test_settings_of_a_topic_are_changed_shown_and_unset(queue: Path) -> None:
    nothing = words(call("--db", queue, "topics", "configure", "mail"))
    some = words(
        call("--db", queue, "topics", "configure", "mail", "--keep-done", "1h", "--max-done", "5")
    )
    told = call(
        "--db", queue, "topics", "configure", "mail", "--unset", "keep_done", "--json"
    ).stdout

    assert nothing == []
    assert "no settings" in call("--db", queue, "topics", "configure", "手紙").stderr
    assert [line.split() for line in some] == [["keep_done", "3600.0"], ["max_done", "5"]]
    assert json.loads(told) == {"max_done": 5}
    with jobq.open(queue) as svc:
        assert svc.settings("mail").as_dict() == {"max_done": 5}


def test_a_wrong_setting_changes_nothing(queue: Path) -> None:
    assert call("--db", queue, "topics", "configure", "mail", "--max-done", "-1").exit_code == 1
    assert call("--db", queue, "topics", "configure", "mail", "--keep-done", "ever").exit_code == 2
    assert words(call("--db", queue, "topics", "configure", "mail")) == []


def test_settings_of_a_topic_that_is_not_there_can_be_made_but_not_looked_at(queue: Path) -> None:
    assert call("--db", queue, "topics", "configure", "mial").exit_code == 3
    assert call("--db", queue, "topics", "configure", "mial", "--max-done", "5").exit_code == 0
    (line,) = words(call("--db", queue, "topics", "configure", "mial"))
    assert line.split() == ["max_done", "5"]


def test_what_is_set_cannot_be_unset_as_well(queue: Path) -> None:
    job_id = min(statuses(queue))
    for verb, name in (
        (["topics", "configure", "mail"], "max_done"),
        (["jobs", "edit", job_id], "tags"),
    ):
        flag = f"--{name.replace('_', '-')}".removesuffix("s")
        result = call("--db", queue, *verb, flag, "5", "--unset", name)

        assert result.exit_code == 2, verb
        assert "not both" in result.stderr
