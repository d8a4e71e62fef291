"""`jobq jobs enqueue`: payloads from everywhere, options from the one list."""

import json
import os
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

import jobq
from jobq.cli import enqueueing, options, payloads
from jobq.cli.payloads import WrongPayload, from_json
from jobq.job import JobRecord
from jobq.options import DEFAULTS, JobOptions, OptionArgs
from jobq.topic import SettingArgs
from tests.cli.conftest import (
    COMMAND,
    ROOT,
    TIME_LIMIT_S,
    call,
    environment,
    hung_up_on,
    run,
    words,
)
from tests.conftest import eventually


def jobs(queue: Path) -> list[JobRecord]:
    with jobq.open(queue, create=False) as svc:
        return svc.find(limit=10_000)


def enqueued(queue: Path, *args: str, stdin: bytes = b"") -> JobRecord:
    """The job that the call adds, which has to be the only one."""
    (job_id,) = words(call("--db", queue, "jobs", "enqueue", *args, stdin=stdin))
    (job,) = jobs(queue)
    assert job.id == job_id
    return job


# One payload.


@pytest.mark.parametrize(
    ("args", "stdin", "payload"),
    [
        (["mail"], b"", None),
        (["mail", '{"to": ["ann", 1.5, null]}'], b"", {"to": ["ann", 1.5, None]}),
        (["mail", "--", "-5"], b"", -5),
        (["mail", "plain words", "--text"], b"", "plain words"),
        (["mail", "--text", ""], b"", ""),
        (["mail", "plain", "--raw"], b"", b"plain"),
        (["mail", "-"], b'\xef\xbb\xbf{"with": "a mark"}\n', {"with": "a mark"}),
        (["mail", "-", "--text"], b"one\ntwo\n", "one\ntwo\n"),
        (["mail", "--file", "-", "--raw"], b"\x00\xff", b"\x00\xff"),
    ],
)
def test_a_payload_comes_from_the_argument_or_stdin(
    empty: Path, args: list[str], stdin: bytes, payload: Any
) -> None:
    job = enqueued(empty, *args, stdin=stdin)

    assert job.payload == payload
    assert type(job.payload) is type(payload)


def test_a_payload_comes_from_a_file(empty: Path, tmp_path: Path) -> None:
    (tmp_path / "payload").write_bytes(b'{"from": "a file"}')

    assert enqueued(empty, "mail", "--file", str(tmp_path / "payload")).payload == {
        "from": "a file"
    }


def test_arguments_may_have_any_bytes(empty: Path) -> None:
    odd = os.fsdecode(b"\xff\xfe")
    as_text = run("--db", empty, "jobs", "enqueue", "mail", "--text", odd)
    as_raw = run("--db", empty, "jobs", "enqueue", "mail", "--raw", odd)

    assert as_text.returncode == 1
    assert b"--raw" in as_text.stderr
    assert as_raw.returncode == 0
    assert [job.payload for job in jobs(empty)] == [b"\xff\xfe"]


@pytest.mark.parametrize(
    ("args", "stdin", "status", "told"),
    [
        (["mail", "{to: ann}"], b"", 1, "is no JSON"),
        (["mail", "NaN"], b"", 1, "NaN"),
        (["mail", "[" * 5000], b"", 1, "is no JSON"),
        (["mail", "9" * 5000], b"", 1, "is no JSON"),
        (["mail", "123456789012345678901"], b"", 1, "int past 64 bits"),
        (["mail", '"\\ud800"'], b"", 1, "surrogate"),
        (["mail", "-"], b"", 1, "is no JSON"),
        (["mail", "-"], b"\xff", 1, "is no JSON"),
        (["mail", "-", "--text"], b"\xff", 1, "is not UTF-8"),
        (["mail", "--raw", "-"], b"x" * (1024 * 1024 + 1), 1, "limit"),
        (["mail", "--file", "no-such-file"], b"", 3, "no-such-file"),
        (["mail", "--file", "/"], b"", 1, "cannot read '/'"),
        (["", "1"], b"", 1, "topic"),
        (["mail", "1", "--file", "x"], b"", 2, "one of them"),
        (["mail", "1", "--lines"], b"", 2, "--lines"),
        (["mail", "1", "--text", "--raw"], b"", 2, "one of them"),
        (["mail", "1", "--weight", "40000"], b"", 1, "weight is 40000"),
        (["mail", "1", "--weight", "high"], b"", 2, "--weight"),
        (["mail", "1", "--lease", "0"], b"", 1, "lease"),
        (["mail", "1", "--delay", "soon"], b"", 2, "no duration"),
        (["mail", "1", "--delay", "1000000d"], b"", 1, "delay"),
    ],
)
def test_what_is_wrong_is_said_and_nothing_is_enqueued(
    empty: Path, args: list[str], stdin: bytes, status: int, told: str
) -> None:
    result = call("--db", empty, "jobs", "enqueue", *args, stdin=stdin)

    assert result.exit_code == status
    assert result.stdout == ""
    assert told in result.stderr
    assert "Traceback" not in result.stderr
    assert jobs(empty) == []


def test_more_than_any_payload_is_not_read(monkeypatch: pytest.MonkeyPatch, empty: Path) -> None:
    monkeypatch.setattr(payloads, "LARGEST", 10)
    whole = call("--db", empty, "jobs", "enqueue", "mail", "-", "--text", stdin=b"x" * 11)
    line = call("--db", empty, "jobs", "enqueue", "mail", "--lines", "--text", stdin=b"x" * 11)
    ended = call("--db", empty, "jobs", "enqueue", "m", "--lines", "--raw", stdin=b"x" * 11 + b"\n")

    assert [whole.exit_code, line.exit_code, ended.exit_code] == [1, 1, 1]
    assert "longer than 10 bytes" in whole.stderr
    assert "line 1: longer than 10 bytes" in line.stderr
    assert "line 1: longer than 10 bytes" in ended.stderr
    assert jobs(empty) == []


# Options.


def test_every_option_of_jobs_is_one_of_the_command() -> None:
    there = {param.name for param in enqueueing.enqueue.params}
    told = options.told_of(JobOptions)

    assert set(OptionArgs.__annotations__) <= there
    assert set(told) >= set(OptionArgs.__annotations__)
    assert "call `extend`" not in " ".join(told.values())
    assert told["max_crashes"].endswith("0 means without limit.")


def test_options_are_set_on_the_job(empty: Path) -> None:
    job = enqueued(
        empty,
        *["mail", "1", "--weight", "-3", "--delay", "1h30m", "--lease", "2m", "--max-retries", "3"],
        *["--min-backoff", "500ms", "--max-backoff", "1d", "--factor", "1.5", "--jitter", "0"],
        *["--max-crashes", "2", "--retention", "0", "--name", "n", "--tag", "b", "--tag", "a"],
    )

    assert job.weight == -3
    assert job.due_us is not None
    assert job.due_us - job.created_us == 5400 * 1_000_000
    assert job.options == JobOptions(
        lease=120.0,
        max_retries=3,
        min_backoff=0.5,
        max_backoff=86400.0,
        factor=1.5,
        jitter=0.0,
        max_crashes=2,
        retention=0.0,
        name="n",
        tags=("a", "b"),
    )


def test_options_that_are_not_given_are_not_set(empty: Path) -> None:
    job = enqueued(empty, "mail")

    assert (job.weight, job.options, job.effective) == (0, JobOptions(), DEFAULTS)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("0", 0),
        ("1.5", 1.5),
        (".5", 0.5),
        ("90s", 90),
        ("250ms", 0.25),
        ("5m", 300),
        ("1h30m", 5400),
        ("2D", 172_800),
        ("1w1d", 8 * 86400),
        (" 3s ", 3),
    ],
)
def test_durations_have_units(text: str, seconds: float) -> None:
    assert options.duration(text) == seconds


@pytest.mark.parametrize(
    "text", ["", "s", "-1", "1 h", "1h30", "1e3", "nan", "inf", "1y", "1.", "٣s"]
)
def test_what_is_no_duration_is_refused(empty: Path, text: str) -> None:
    result = call("--db", empty, "jobs", "enqueue", "mail", f"--delay={text}")

    assert result.exit_code == 2
    assert "no duration" in result.stderr


def test_options_of_flow_control_are_set_on_the_job(empty: Path) -> None:
    job = enqueued(
        empty,
        *["mail", "1", "--group", "tenant-7", "--unique", "user-1", "--unique-for", "1h"],
        *["--on-conflict", "replace", "--deadline", "2100-01-31T12:00+01:00", "--ttl", "5200w"],
    )

    assert job.deadline == datetime(2100, 1, 31, 11, tzinfo=UTC)
    assert job.options.as_dict() == {
        "group": "tenant-7",
        "unique": "user-1",
        "unique_for": 3600.0,
        "on_conflict": "replace",
        "deadline": "2100-01-31T11:00:00+00:00",
        "ttl": 5200 * 7 * 86400.0,
    }


@pytest.mark.parametrize("word", ["waiting", "unfinished"])
def test_a_key_is_taken_while_a_job_is_in_a_state_or_for_a_time(empty: Path, word: str) -> None:
    assert enqueued(empty, "mail", "--unique", "k", "--unique-for", word).options.unique_for == word


@pytest.mark.parametrize("text", ["2130-01-31", "2130-01-31T12:00", "2130-01-31 12:00:00.5"])
def test_a_time_without_a_zone_is_of_this_machine(text: str) -> None:
    assert options.moment(text) == datetime.fromisoformat(text).astimezone()


@pytest.mark.parametrize(
    ("text", "rate"),
    [("100/60s", (100, 60.0)), ("5/m", (5, 60.0)), ("1/0.5", (1, 0.5)), ("1/1H30m", (1, 5400.0))],
)
def test_a_rate_is_so_many_jobs_in_so_much_time(text: str, rate: tuple[int, float]) -> None:
    assert options.rate(text) == rate


WRONG: list[tuple[list[str], str]] = [
    (["jobs", "enqueue", "mail", "--deadline", "tomorrow"], "no time"),
    (["jobs", "enqueue", "mail", "--deadline", "0001-01-01"], "deadline"),
    (["jobs", "enqueue", "mail", "--on-conflict", "ignore"], "'return', 'replace', 'raise'"),
    (["jobs", "enqueue", "mail", "--unique", "k", "--unique-for", "ever"], "no duration"),
    (["topics", "configure", "mail", "--rate", "5"], "no rate"),
    (["topics", "configure", "mail", "--rate", "x/s"], "no rate"),
    (["topics", "configure", "mail", "--group-rate", "5/ever"], "no duration"),
    (
        ["topics", "configure", "mail", "--when-full", "drop"],
        "'reject', 'drop-oldest', 'drop-lowest'",
    ),
    (["topics", "configure", "mail", "--paused", "perhaps"], "not a valid boolean"),
    (["topics", "configure", "mail", "--ageing", "soon"], "no duration"),
]


@pytest.mark.parametrize(("words", "why"), WRONG)
def test_a_wrong_value_is_told_before_anything_is_done(
    empty: Path, words: list[str], why: str
) -> None:
    result = call("--db", empty, *words)

    assert result.exit_code in {1, 2}
    assert why in result.stderr
    assert jobs(empty) == []


def test_every_setting_of_topics_can_be_given(empty: Path) -> None:
    given = {
        "keep_done": ("1h", 3600.0),
        "keep_canceled": ("2d", 172800.0),
        "max_done": ("5", 5),
        "paused": ("true", True),
        "draining": ("yes", True),
        "concurrency": ("3", 3),
        "rate": ("100/60s", [100, 60.0]),
        "burst": ("7", 7),
        "group_concurrency": ("1", 1),
        "group_rate": ("5/m", [5, 60.0]),
        "group_burst": ("2", 2),
        "group_retries": ("pass", "pass"),
        "max_jobs": ("1000", 1000),
        "max_bytes": ("1000000", 1_000_000),
        "when_full": ("drop-oldest", "drop-oldest"),
        "max_lease": ("90s", 90.0),
        "max_retries": ("0", 0),
        "min_backoff": ("0", 0.0),
        "max_backoff": ("1d", 86400.0),
        "factor": ("3", 3.0),
        "jitter": ("0.5", 0.5),
        "ttl": ("1w", 604800.0),
        "ageing": ("250ms", 0.25),
    }
    assert set(given) == set(SettingArgs.__annotations__)
    words = [
        word for name, (text, _) in given.items() for word in (f"--{name.replace('_', '-')}", text)
    ]

    told = call("--db", empty, "topics", "configure", "mail", *words, "--json").stdout
    unpaused = call(
        "--db", empty, "topics", "configure", "mail", "--paused", "false", "--json"
    ).stdout

    assert json.loads(told) == {name: value for name, (_, value) in given.items()}
    assert "paused" not in json.loads(unpaused)


# Keys and room.


def test_a_job_that_has_the_key_is_told_from_a_new_one(empty: Path) -> None:
    args = ("--db", empty, "jobs", "enqueue", "mail", "1", "--unique", "k")
    first, second = call(*args), call(*args)
    quiet, told = call(*args, "--quiet"), json.loads(call(*args, "--json").stdout)
    replaced = call(*args, "--on-conflict", "replace", "--name", "new")
    other = json.loads(call(*args[:-1], "other", "--json").stdout)
    plain = json.loads(call(*args[:-2], "--json").stdout)

    assert (first.stderr, second.stdout) == ("", first.stdout)
    assert second.stderr == "jobq: there is a job with unique key 'k' already: none added\n"
    assert (quiet.exit_code, quiet.stdout, quiet.stderr) == (0, "", second.stderr)
    assert (told["id"], told["existing"]) == (first.stdout.strip(), True)
    assert replaced.stdout == first.stdout
    assert replaced.stderr == "jobq: there is a job with unique key 'k' already: it was replaced\n"
    assert other["existing"] is False
    assert plain.keys() == {"id", "topic"}
    assert [job.options.name for job in jobs(empty)] == ["new", None, None]


def test_lines_that_meet_the_key_are_counted_apart(empty: Path) -> None:
    args = ("--db", empty, "jobs", "enqueue", "mail", "--lines", "--unique", "k", "--json")
    first = call(*args, stdin="1\n2\n3\n")
    second = call(*args, stdin="4\n")

    assert [json.loads(line)["existing"] for line in first.stdout.splitlines()] == [
        False,
        True,
        True,
    ]
    assert first.stderr == "jobq: enqueued 1 job, 2 were there already\n"
    assert second.stderr == "jobq: enqueued 0 jobs, 1 were there already\n"
    assert [job.payload for job in jobs(empty)] == [1]


def test_a_conflict_can_be_an_error(empty: Path) -> None:
    args = ("--db", empty, "jobs", "enqueue", "mail", "--unique", "k", "--on-conflict", "raise")
    (job_id,) = words(call(*args))
    refused = call(*args)

    assert (refused.exit_code, refused.stdout) == (1, "")
    assert "'k'" in refused.stderr
    assert job_id in refused.stderr
    assert len(jobs(empty)) == 1


def test_a_full_topic_refuses_at_once_or_when_the_time_is_over(empty: Path) -> None:
    with jobq.open(empty) as svc:
        svc.configure("mail", max_jobs=1)
        svc.enqueue("mail")
    args = ("--db", empty, "jobs", "enqueue", "mail")
    results = [call(*args), call(*args, "--timeout", "10ms"), call(*args, "--lines", stdin="1\n")]

    assert [result.exit_code for result in results] == [1, 1, 1]
    assert all("'mail'" in result.stderr for result in results)
    assert results[2].stderr.endswith("; nothing was enqueued\n")
    assert call(*args, "--timeout", "soon").exit_code == 2
    assert len(jobs(empty)) == 1


def test_it_waits_for_room(empty: Path) -> None:
    with jobq.open(empty) as svc:
        svc.configure("mail", max_jobs=1)
        svc.enqueue("mail", 1)
        command = [*COMMAND, "--db", str(empty), "jobs", "enqueue", "mail", "2", "--timeout", "1h"]
        waiter = subprocess.Popen(
            command, cwd=ROOT, env=environment(), stdout=subprocess.PIPE, text=True
        )
        (held,) = svc.reserve("mail", timeout=0)
        printed, _ = waiter.communicate(timeout=TIME_LIMIT_S)

        assert waiter.returncode == 0
        assert svc.get(printed.strip()).payload == 2
        held.done()


# What is printed.


def test_the_id_is_printed_and_nothing_else(empty: Path) -> None:
    ended = run("--db", empty, "jobs", "enqueue", "mail", "1")

    assert (ended.returncode, ended.stderr) == (0, b"")
    assert ended.stdout.decode().split() == [jobs(empty)[0].id]


def test_ids_come_as_json_or_not_at_all(empty: Path) -> None:
    told = call("--db", empty, "jobs", "enqueue", "mail\x1b", "1", "--json").stdout
    quiet = call("--db", empty, "jobs", "enqueue", "mail", "1", "--quiet")

    assert json.loads(told) == {"id": jobs(empty)[0].id, "topic": "mail\x1b"}
    assert "\x1b" not in told
    assert (quiet.exit_code, quiet.stdout, quiet.stderr) == (0, "", "")


# Lines.


def test_each_line_is_a_job_in_order(empty: Path) -> None:
    lines = b"".join(b'{"n": %d}\n' % number for number in range(2500))
    result = call("--db", empty, "jobs", "enqueue", "mail", "--lines", "--name", "n", stdin=lines)

    assert words(result) == [job.id for job in jobs(empty)]
    assert result.stderr == "jobq: enqueued 2,500 jobs\n"
    assert [job.payload for job in jobs(empty)] == [{"n": number} for number in range(2500)]
    assert {job.options.name for job in jobs(empty)} == {"n"}


@pytest.mark.parametrize(
    ("args", "stdin", "expected"),
    [
        ([], b"", []),
        ([], b"1\n\n  \n2", [1, 2]),
        ([], b"1\r\n2\r\n", [1, 2]),
        (["--text"], b"one\n\n three", ["one", "", " three"]),
        (["--raw"], b"\xff\r\n\x00\n", [b"\xff\r", b"\x00"]),
        (["-"], b"1\n2\n", [1, 2]),
    ],
)
def test_what_a_line_is(empty: Path, args: list[str], stdin: bytes, expected: list[Any]) -> None:
    words(call("--db", empty, "jobs", "enqueue", "mail", "--lines", *args, stdin=stdin))

    assert [job.payload for job in jobs(empty)] == expected


def test_lines_come_from_a_file(empty: Path, tmp_path: Path) -> None:
    (tmp_path / "lines").write_text("1\n2\n")
    path = str(tmp_path / "lines")
    printed = words(call("--db", empty, "jobs", "enqueue", "mail", "--lines", "-f", path, "--json"))

    assert [json.loads(line)["id"] for line in printed] == [job.id for job in jobs(empty)]


def test_a_wrong_line_is_named_and_its_commit_is_left_out(empty: Path) -> None:
    lines = [b"%d" % number for number in range(1500)]
    lines[1234] = b"{oops"
    result = call("--db", empty, "jobs", "enqueue", "mail", "--lines", stdin=b"\n".join(lines))

    assert result.exit_code == 1
    assert result.stderr.startswith("jobq: line 1235: '{oops' is no JSON")
    assert "the 1,000 jobs of the lines up to 1000 are in the queue" in result.stderr
    assert "go on with line 1001" in result.stderr
    assert result.stdout.split() == [job.id for job in jobs(empty)]
    assert len(jobs(empty)) == 1000


def test_a_line_that_cannot_be_stored_is_named_too(empty: Path) -> None:
    lines = b"1\n\n\n99999999999999999999999\n"
    result = call("--db", empty, "jobs", "enqueue", "mail", "--lines", stdin=lines)

    assert result.exit_code == 1
    assert "line 4: cannot store int past 64 bits" in result.stderr
    assert "nothing was enqueued" in result.stderr
    assert jobs(empty) == []


def test_an_option_that_is_wrong_for_all_names_no_line(empty: Path) -> None:
    result = call(
        "--db", empty, "jobs", "enqueue", "mail", "--lines", "--weight", "40000", stdin=b"1\n"
    )

    assert result.exit_code == 1
    assert "line" not in result.stderr
    assert "weight is 40000" in result.stderr


def test_a_slow_writers_lines_do_not_wait_for_a_full_batch(empty: Path) -> None:
    process = subprocess.Popen(
        [*COMMAND, "--db", str(empty), "jobs", "enqueue", "mail", "--lines"],
        cwd=ROOT,
        env=environment(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(b"1\n2\n")
    process.stdin.flush()
    eventually(lambda: len(jobs(empty)) == 2)
    process.stdin.write(b"3")
    process.stdin.close()

    with process:
        assert len(process.stdout.read().split()) == 3
    assert process.returncode == 0
    assert len(jobs(empty)) == 3


def test_a_full_queue_says_how_far_it_came(empty: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    enqueue_many = jobq.JobService.enqueue_many
    calls = []

    def full_at_the_second(svc: jobq.JobService, *args: Any, **more: Any) -> list[str]:
        calls.append(args)
        if len(calls) == 2:
            raise jobq.StoreFull("the queue is full")
        return enqueue_many(svc, *args, **more)

    monkeypatch.setattr(jobq.JobService, "enqueue_many", full_at_the_second)
    result = call("--db", empty, "jobs", "enqueue", "mail", "--lines", stdin=b"1\n" * 1500)

    assert result.exit_code == 5
    assert "the queue is full; the 1,000 jobs of the lines up to 1000 are in" in result.stderr


@pytest.mark.parametrize("data", [b"", b"nul", b"[1,]", b'{"a": Infinity}', b"-NaN", b"'a'"])
def test_only_json_is_json(data: bytes) -> None:
    with pytest.raises(WrongPayload, match="is no JSON"):
        from_json(data)


def test_who_stops_reading_the_ids_is_told_how_far_it_came(empty: Path) -> None:
    ended = hung_up_on("--db", empty, "jobs", "enqueue", "mail", "--lines", feed="seq 1 20000")
    there = len(jobs(empty))

    assert 0 < there < 20_000
    assert ended.stdout.count(b"\n") == 1
    assert ended.stderr.count(b"\n") == 1
    assert f"go on with line {there + 1}".encode() in ended.stderr


def test_ids_that_cannot_be_printed_are_jobs_all_the_same(empty: Path) -> None:
    with Path("/dev/full").open("wb") as full:
        ended = subprocess.run(
            [*COMMAND, "--db", str(empty), "jobs", "enqueue", "mail", "--lines"],
            cwd=ROOT,
            env=environment(),
            input=b"1\n2\n3\n",
            stdout=full,
            stderr=subprocess.PIPE,
            check=False,
        )

    assert ended.returncode == 1
    assert b"the 3 jobs of the lines up to 3 are in the queue" in ended.stderr
    with jobq.open(empty) as svc:
        assert svc.stats().totals.ready == 3
