"""`jobq jobs`: listed, shown, canceled, retried, deleted."""

import json
import os
import pty
import subprocess
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

import jobq
from jobq import codec
from jobq.cli import record
from jobq.cli.plain import plain
from jobq.repo.lmdb import LmdbStore
from jobq.states import Status
from tests.cli.conftest import COMMAND, ROOT, call, environment, hung_up_on, run, words
from tests.conftest import DEADLINE_S

ODD = {
    1: (b"\xff", Decimal("1.1")),
    "text": "手紙\x1b[2J",
    "when": {datetime(2024, 1, 1, tzinfo=UTC)},
}


def ids_of(queue: Path, **filters: Any) -> list[str]:
    with jobq.open(queue, create=False) as svc:
        return [job.id for job in svc.find(limit=10_000, **filters)]


def statuses(queue: Path) -> dict[str, str]:
    with jobq.open(queue, create=False) as svc:
        return {job.id: str(job.status) for job in svc.find(limit=10_000)}


def records(printed: str) -> list[dict[str, Any]]:
    """JSON Lines."""
    return [json.loads(line) for line in printed.splitlines()]


# list


def test_list_shows_jobs_in_order_a_line_each(queue: Path) -> None:
    head, *lines = words(call("--db", queue, "jobs", "list"))

    assert head.split() == ["id", "topic", "status", "weight", "attempt", "when", "about"]
    assert [line.split()[0] for line in lines] == ids_of(queue)
    assert [head.split()] == [
        line.split() for line in words(call("--db", queue, "jobs", "list", "--name", "nobody"))
    ]
    assert lines[0].split()[1:7] == ["mail", "done", "0", "1", lines[0].split()[5], "ago"]
    assert "in 59m" in lines[6]
    assert lines[1].endswith(" ago"), "that it was canceled is said once"


@pytest.mark.parametrize(
    ("args", "found"),
    [
        (["--topic", "mail"], 7),
        (["--topic", "手紙"], 1),
        (["--status", "ready"], 5),
        (["--status", "done", "--status", "canceled"], 2),
        (["-t", "手紙", "-s", "done"], 0),
        (["--name", "nobody"], 0),
        (["--tag", "nobody"], 0),
        (["-n", "3"], 3),
        (["-n", "0"], 8),
        ([], 8),
    ],
)
def test_list_filters(queue: Path, args: list[str], found: int) -> None:
    told = records(call("--db", queue, "jobs", "list", *args, "--json").stdout)

    assert len(told) == found
    assert words(call("--db", queue, "jobs", "list", *args))[1:] != [] or not found


def test_list_finds_names_behind_many_others(empty: Path) -> None:
    with jobq.open(empty, durability="unsafe") as svc:
        svc.enqueue_many("mail", range(1000), name="a")
        wanted = [svc.enqueue("mail", name="b") for _ in range(2)]

    told = records(call("--db", empty, "jobs", "list", "--name", "b", "-n", "2", "--json").stdout)
    assert [job["id"] for job in told] == wanted


def test_tags_select_the_jobs_that_have_all_of_them(empty: Path) -> None:
    with jobq.open(empty, durability="unsafe") as svc:
        both = svc.enqueue("mail", tags=["a", "b"])
        svc.enqueue("mail", tags=["a"])
    found = call("--db", empty, "jobs", "list", "--tag", "b", "--tag", "a", "--json").stdout
    told = call("--db", empty, "jobs", "cancel", "--tag", "a", "--tag", "b", "--dry-run").stderr
    changed = words(call("--db", empty, "jobs", "cancel", "--tag", "b", "--yes"))

    assert [job["id"] for job in records(found)] == [both]
    assert "would cancel 1 job (ready, delayed, reserved jobs tagged 'a', 'b')" in told
    assert changed == ["canceled: 1 job"]
    assert ids_of(empty, status="canceled") == [both]


def test_list_goes_on_after_a_job(queue: Path) -> None:
    ids = ids_of(queue)
    first = call("--db", queue, "jobs", "list", "--limit", "3", "--json")
    rest = call("--db", queue, "jobs", "list", "--after", ids[2][-12:], "--json")

    assert [job["id"] for job in records(first.stdout) + records(rest.stdout)] == ids
    assert first.stderr == f"jobq: there are more: --after {ids[2]}, or --limit 0 for all\n"
    assert rest.stderr == ""


def test_a_limit_that_just_fits_does_not_speak_of_more(queue: Path) -> None:
    assert call("--db", queue, "jobs", "list", "-n", "8").stderr == ""


def test_list_streams_any_number_as_json_lines(empty: Path) -> None:
    with jobq.open(empty, durability="unsafe") as svc:
        ids = svc.enqueue_many("mail", range(1050))

    told = records(call("--db", empty, "jobs", "list", "--limit", "0", "--json").stdout)
    lines = words(call("--db", empty, "jobs", "list", "--limit", "1050"))
    assert [(job["id"], job["payload"]) for job in told] == list(zip(ids, range(1050), strict=True))
    assert [line.split()[0] for line in lines] == ["id", *ids]


def test_list_of_an_unknown_topic_is_not_found(queue: Path) -> None:
    result = call("--db", queue, "jobs", "list", "--topic", "mial")

    assert result.exit_code == 3
    assert "jobq topics" in result.stderr


def test_list_shows_the_last_line_of_an_error_and_steers_no_terminal(empty: Path) -> None:
    with jobq.open(empty, durability="unsafe") as svc:
        svc.enqueue("mail\x1b" + "l" * 50, name="a\x07name")
        (job,) = svc.reserve("mail\x1b" + "l" * 50)
        job.retry(error="Traceback\nValueError: no \x1b[31muser " + "x" * 100)

    line = words(call("--db", empty, "jobs", "list"))[1]
    assert "\\x1b" in line
    assert "a\\x07name: ValueError: no \\x1b[31muser xx" in line
    assert line.isprintable()
    assert line.endswith("x…")


def test_a_reader_that_hangs_up_in_the_middle_is_no_error(empty: Path) -> None:
    with jobq.open(empty, durability="unsafe") as svc:
        svc.enqueue_many("mail", ["x" * 1000] * 2000)

    for args in (["list", "-n", "0"], ["list", "-n", "0", "--json"]):
        ended = hung_up_on("--db", empty, "jobs", *args)
        assert ended.stderr == b""
        assert ended.stdout.count(b"\n") == 1


# show


def test_show_tells_all_of_a_job_as_json(queue: Path) -> None:
    with jobq.open(queue) as svc:
        job_id = svc.enqueue("odd", ODD, lease=30, tags=["b", "a"], delay=60)
        job = svc.get(job_id)
    result = call("--db", queue, "jobs", "show", job_id, "--json")
    (told,) = records(result.stdout)

    assert result.stdout.isascii()
    assert told["payload"] == plain(ODD)
    assert told["options"] == {"lease": 30.0, "tags": ["a", "b"]}
    assert told["effective"]["max_retries"] == 20
    assert told["due"] == job.due.isoformat() if job.due else None
    assert told.keys() == {*job.as_dict(), "effective"}


def test_show_tells_all_of_a_job_to_people(queue: Path) -> None:
    with jobq.open(queue) as svc:
        job_id = svc.enqueue("mail", {"to": "ann\x1b"}, name="greeting", weight=-9)
        (job,) = svc.reserve("mail")
        job.retry(error="Traceback:\n  there\nValueError: \x1bno")
    printed = words(call("--db", queue, "jobs", "show", job_id))
    text = "\n".join(printed)

    assert f"id           {job_id}" in printed
    assert "attempt      1, retries 1" in printed
    assert "status       delayed" in printed
    assert "  name         greeting" in printed
    assert "  lease        600.0  (default)" in printed
    assert '  "to": "ann\\u001b"' in text
    assert "    there" in printed
    assert "  ValueError: \\x1bno" in printed
    assert all(line.isprintable() for line in printed)
    assert "result" not in printed


def test_show_has_sections_for_what_there_is(queue: Path) -> None:
    with jobq.open(queue) as svc:
        (job,) = svc.reserve("手紙")
        held = words(call("--db", queue, "jobs", "show", job.id))
        job.done(result=[1, 2])
    done = words(call("--db", queue, "jobs", "show", job.id))

    assert any(line.startswith("holder ") for line in held)
    assert any(line.startswith("lease until ") for line in held)
    assert "result" in done
    assert any(line.startswith("ended ") for line in done)
    assert not any(line.startswith("holder ") for line in done)


def test_show_cuts_what_is_long_and_says_so(empty: Path) -> None:
    with jobq.open(empty, durability="unsafe") as svc:
        job_id = svc.enqueue("mail", list(range(1000)))

    assert "  … 902 more lines: --json has all of it" in words(
        call("--db", empty, "jobs", "show", job_id)
    )


def test_show_tells_why_a_job_is_canceled(queue: Path) -> None:
    (job_id,) = ids_of(queue, status="canceled")

    assert "status       canceled" in words(call("--db", queue, "jobs", "show", job_id))
    with jobq.open(queue) as svc:
        (job,) = svc.reserve("mail", timeout=0)
        job.cancel("rejected", error="no such user")

    shown = words(call("--db", queue, "jobs", "show", job.id))
    assert "status       canceled (rejected)" in shown
    (line,) = [line for line in words(call("--db", queue, "jobs", "list")) if job.id in line]
    assert line.endswith("rejected: no such user")


def test_a_payload_that_does_not_decode_is_shown_as_it_is_stored(queue: Path) -> None:
    with jobq.open(queue) as svc:
        job = svc.find(limit=1)[0]
    odd = replace(job, payload_bytes=b"\xc1", result_bytes=b"\xc1")

    fields = record.as_fields(odd)
    assert fields["payload"] == fields["result"] == {"$packed": "wQ=="}
    assert '  "$packed": "wQ=="' in record.as_text(odd)


def test_times_are_told_from_now(queue: Path) -> None:
    with jobq.open(queue) as svc:
        (delayed,) = svc.find(status="delayed")
        (reserved,) = svc.reserve("mail")
        held = svc.get(reserved.id)
        reserved.release()
    created = delayed.created.timestamp()

    assert record.when(delayed, lambda: created) == "in 1h"
    assert record.when(delayed, lambda: created + 3601).endswith("s ago")
    assert held.reserved_at is not None
    since = held.reserved_at.timestamp()
    assert record.when(held, lambda: since + 65) == "since 1m"
    assert record.relative(None) == "-"


# Ids.


def test_any_unique_part_of_an_id_names_a_job(queue: Path) -> None:
    for job_id in ids_of(queue, topic="手紙"):
        for part in (job_id, job_id.upper(), job_id[-12:], job_id[9:], job_id.replace("-", "")):
            (told,) = records(call("--db", queue, "jobs", "show", part, "--json").stdout)
            assert told["id"] == job_id


@pytest.mark.parametrize("verb", ["show", "cancel", "retry", "delete"])
def test_what_names_no_job_or_several_is_refused(queue: Path, verb: str) -> None:
    ids = ids_of(queue)
    before = statuses(queue)
    none = call("--db", queue, "jobs", verb, "f" * 12)
    several = call("--db", queue, "jobs", verb, ids[0][:4])
    no_part = call("--db", queue, "jobs", verb, "mail")

    assert (none.exit_code, several.exit_code, no_part.exit_code) == (3, 2, 1)
    assert "jobq jobs list" in none.stderr
    assert ", ".join(ids[:5]) + ", …" in several.stderr
    assert "is no part of a job id" in no_part.stderr
    assert statuses(queue) == before


def test_few_candidates_are_all_named(empty: Path) -> None:
    with jobq.open(empty, durability="unsafe") as svc:
        ids = svc.enqueue_many("mail", range(3))

    assert f": {', '.join(ids)}; give more" in call("--db", empty, "jobs", "show", "0").stderr


# cancel, retry, delete: named jobs


def test_a_job_is_canceled_with_a_reason(queue: Path) -> None:
    (first, *_) = ids_of(queue, status="ready")
    result = call("--db", queue, "jobs", "cancel", first[-12:], "--error", "no more needed")

    assert words(result) == [f"{first} canceled"]
    with jobq.open(queue) as svc:
        assert (svc.get(first).status, svc.get(first).error) == ("canceled", "no more needed")


def test_a_reserved_job_is_canceled_under_its_holder(queue: Path) -> None:
    with jobq.open(queue) as svc:
        (job,) = svc.reserve("mail")
        words(call("--db", queue, "jobs", "cancel", job.id))

        assert job.canceled


def test_a_finished_job_is_retried(queue: Path) -> None:
    (canceled,) = ids_of(queue, status="canceled")
    (done,) = ids_of(queue, status="done")

    assert words(call("--db", queue, "jobs", "retry", canceled)) == [f"{canceled} ready"]
    assert words(call("--db", queue, "jobs", "retry", done)) == [f"{done} ready"]
    assert statuses(queue)[canceled] == statuses(queue)[done] == "ready"


def test_a_job_is_deleted(queue: Path) -> None:
    (job_id, *_) = ids_of(queue)

    assert words(call("--db", queue, "jobs", "delete", job_id)) == [f"{job_id} deleted"]
    assert job_id not in ids_of(queue)


def test_what_cannot_be_is_said_and_fails(queue: Path) -> None:
    (done,) = ids_of(queue, status="done")
    ready, *_ = ids_of(queue, status="ready")
    cancel = call("--db", queue, "jobs", "cancel", done)
    retry = call("--db", queue, "jobs", "retry", ready)
    with jobq.open(queue) as svc:
        (held,) = svc.reserve("手紙")
        delete = call("--db", queue, "jobs", "delete", held.id)

    assert [cancel.exit_code, retry.exit_code, delete.exit_code] == [1, 1, 1]
    assert f"job {done} is done: cannot cancel" in cancel.stderr
    assert (
        f"job {ready} is ready: cannot retry (only delayed, done, canceled jobs can)"
        in retry.stderr
    )
    assert f"job {held.id} is reserved: cannot delete" in delete.stderr
    assert cancel.stdout == retry.stdout == delete.stdout == ""


def test_several_named_jobs_each_get_their_line(queue: Path) -> None:
    (done,) = ids_of(queue, status="done")
    first, second, *_ = ids_of(queue, status="ready")
    named = [first, done, second, first[-12:]]
    result = call("--db", queue, "jobs", "cancel", "--yes", *named)

    assert result.exit_code == 1
    assert result.stdout.splitlines() == [f"{first} canceled", f"{second} canceled"]
    assert f"job {done} is done" in result.stderr


def test_one_that_is_not_there_leaves_the_others_as_they_are(queue: Path) -> None:
    first, *_ = ids_of(queue, status="ready")
    result = call("--db", queue, "jobs", "cancel", "--yes", first, "f" * 12)

    assert result.exit_code == 3
    assert statuses(queue)[first] == "ready"


def test_outcomes_come_as_json(queue: Path) -> None:
    (done,) = ids_of(queue, status="done")
    first, *_ = ids_of(queue, status="ready")
    result = call("--db", queue, "jobs", "cancel", "--yes", "--json", first, done)

    assert result.exit_code == 1
    assert records(result.stdout) == [
        {"id": first, "outcome": "ok"},
        {"id": done, "outcome": "invalid"},
    ]


def test_a_dry_run_of_named_jobs_changes_nothing_and_ends_the_same_way(queue: Path) -> None:
    (done,) = ids_of(queue, status="done")
    first, *_ = ids_of(queue, status="ready")
    before = statuses(queue)
    good = call("--db", queue, "jobs", "cancel", "--dry-run", first)
    bad = call("--db", queue, "jobs", "cancel", "--dry-run", first, done)

    assert words(good) == [f"{first} would be canceled"]
    assert (bad.exit_code, bad.stdout) == (1, good.stdout)
    assert f"job {done} is done: cannot cancel" in bad.stderr
    assert statuses(queue) == before


# cancel, retry, delete: selected jobs


@pytest.mark.parametrize(
    ("args", "changed", "left"),
    [
        (["cancel", "--all"], 6, {"canceled": 7, "done": 1}),
        (["cancel", "-t", "mail"], 5, {"canceled": 6, "done": 1, "ready": 1}),
        (["cancel", "-s", "delayed"], 1, {"canceled": 2, "done": 1, "ready": 5}),
        (["retry", "--all"], 1, {"ready": 6, "done": 1, "delayed": 1}),
        (["retry", "-s", "done"], 1, {"ready": 6, "canceled": 1, "delayed": 1}),
        (["retry", "-t", "手紙"], 0, {"ready": 5, "canceled": 1, "delayed": 1, "done": 1}),
        (["delete", "--all"], 8, {}),
        (["delete", "-s", "ready", "-s", "done"], 6, {"delayed": 1, "canceled": 1}),
        (["delete", "--name", "x"], 0, {"ready": 5, "canceled": 1, "delayed": 1, "done": 1}),
    ],
)
def test_filters_select_what_is_changed(
    queue: Path, args: list[str], changed: int, left: dict[str, int]
) -> None:
    told = words(call("--db", queue, "jobs", *args, "--yes"))
    with jobq.open(queue) as svc:
        totals = svc.stats().totals

    noun = "job" if changed == 1 else "jobs"
    assert [line.partition(": ")[2] for line in told] == [f"{changed} {noun}"]
    assert {name: totals.of(Status(name)) for name in left} == left
    assert totals.total == sum(left.values())


def test_more_than_a_commit_takes_is_changed_too(empty: Path) -> None:
    with jobq.open(empty, durability="unsafe") as svc:
        ids = svc.enqueue_many("mail", range(2300))
    told = call("--db", empty, "jobs", "cancel", "--all", "--yes", "--json")

    assert [one["id"] for one in records(told.stdout)] == ids
    assert {one["outcome"] for one in records(told.stdout)} == {"ok"}
    assert set(statuses(empty).values()) == {"canceled"}


def test_a_dry_run_counts_and_changes_nothing(queue: Path) -> None:
    before = statuses(queue)
    result = call("--db", queue, "jobs", "delete", "--topic", "mail", "--dry-run")
    told = call("--db", queue, "jobs", "delete", "--topic", "mail", "--dry-run", "--json")

    assert (result.exit_code, result.stdout) == (0, "")
    assert "would delete 7 jobs (ready, delayed, done, canceled jobs of topic 'mail')" in (
        result.stderr
    )
    assert [one["id"] for one in records(told.stdout)] == ids_of(queue, topic="mail")
    assert statuses(queue) == before


def test_jobs_that_moved_on_meanwhile_are_left_and_counted(
    queue: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cancel = LmdbStore.cancel

    def with_another_first(store: LmdbStore, job_ids: list[bytes], *more: Any) -> Any:
        store.delete([job_ids[0]])
        return cancel(store, job_ids, *more)

    monkeypatch.setattr(LmdbStore, "cancel", with_another_first)
    told = words(call("--db", queue, "jobs", "cancel", "--all", "--yes"))

    assert told == ["canceled: 5 jobs, 1 had moved on meanwhile"]


@pytest.mark.parametrize("verb", ["cancel", "retry", "delete"])
def test_several_jobs_take_a_yes_where_nobody_can_be_asked(queue: Path, verb: str) -> None:
    first, second, *_ = ids_of(queue)
    before = statuses(queue)
    selected = run("--db", queue, "jobs", verb, "--all")
    named = run("--db", queue, "jobs", verb, first, second)

    for result in (selected, named):
        assert result.returncode == 2
        assert result.stdout == b""
        assert b"--yes" in result.stderr
        assert b"--dry-run" in result.stderr
    assert statuses(queue) == before


def on_a_terminal(
    answer: bytes, *args: str, meanwhile: Callable[[], object] = lambda: None
) -> tuple[int, bytes]:
    """The exit status of the command, and what a user who answers sees."""
    terminal, theirs = pty.openpty()
    process = subprocess.Popen(
        [*COMMAND, *args],
        cwd=ROOT,
        env=environment(),
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
    )
    os.close(theirs)
    seen = b""
    while b"[y/N]" not in seen:
        seen += os.read(terminal, 1000)
    meanwhile()
    os.write(terminal, answer + b"\n")
    try:
        while data := os.read(terminal, 1000):
            seen += data
    except OSError:  # how a terminal says that nobody is there any more
        pass
    os.close(terminal)
    return process.wait(), seen


def test_on_a_terminal_it_asks(queue: Path) -> None:
    before = statuses(queue)
    args = ["--db", str(queue), "jobs", "delete", "--topic", "mail"]

    status, seen = on_a_terminal(b"n", *args)
    assert status == 1
    assert b"delete 7 jobs (ready, delayed, done, canceled jobs of topic 'mail')?" in seen
    assert statuses(queue) == before

    status, seen = on_a_terminal(b"y", *args)
    assert status == 0
    assert b"deleted: 7 jobs" in seen
    assert len(statuses(queue)) == 1


@pytest.mark.parametrize(
    ("args", "told"),
    [
        (["cancel"], "--group, --unique, --reason, --dead, --with-error, --older-than or --all"),
        (["delete", "--yes"], "which jobs?"),
        (["cancel", "12", "--topic", "mail"], "not both"),
        (["cancel", "12", "--all"], "not both"),
        (["cancel", "-s", "done"], "cannot cancel done jobs (only ready, delayed, reserved ones)"),
        (["retry", "-s", "ready"], "cannot retry ready jobs"),
        (["delete", "-s", "reserved", "-s", "done"], "cannot delete reserved jobs"),
        (["delete", "-s", "lost"], "lost"),
    ],
)
def test_a_wrong_selection_is_a_wrong_command(queue: Path, args: list[str], told: str) -> None:
    before = statuses(queue)
    result = call("--db", queue, "jobs", *args)

    assert result.exit_code == 2
    assert told in result.stderr
    assert statuses(queue) == before


def test_an_unknown_topic_is_not_an_empty_selection(queue: Path) -> None:
    assert call("--db", queue, "jobs", "delete", "-t", "mial", "--yes").exit_code == 3


def test_payloads_of_the_cli_are_those_of_python(queue: Path) -> None:
    text = json.dumps({"to": [None, True, 1, 1.5, "x", {"deep": []}]})
    (job_id,) = words(call("--db", queue, "jobs", "enqueue", "mail", text))
    with jobq.open(queue) as svc:
        stored = svc.get(job_id)

    assert codec.unpack(stored.payload_bytes) == json.loads(text)


def test_who_stops_reading_the_outcomes_is_told_how_many_there_were(empty: Path) -> None:
    with jobq.open(empty, durability="unsafe") as svc:
        svc.enqueue_many("mail", range(9000))
    ended = hung_up_on("--db", empty, "jobs", "cancel", "--all", "--yes", "--json")
    canceled = len(ids_of(empty, status="canceled"))

    assert 0 < canceled < 9000
    assert ended.stderr.count(b"\n") == 1
    assert f"canceled: {canceled:,} jobs, the others are left".encode() in ended.stderr


def test_outcomes_that_cannot_be_printed_came_about_all_the_same(empty: Path) -> None:
    with jobq.open(empty, durability="unsafe") as svc:
        svc.enqueue_many("mail", range(900))
    with Path("/dev/full").open("wb") as full:
        ended = subprocess.run(
            [*COMMAND, "--db", str(empty), "jobs", "cancel", "--all", "--yes", "--json"],
            cwd=ROOT,
            env=environment(),
            stdout=full,
            stderr=subprocess.PIPE,
            check=False,
        )
    canceled = len(ids_of(empty, status="canceled"))

    assert 0 < canceled < 900
    assert ended.returncode == 1
    assert f"canceled: {canceled:,} jobs, the others are left".encode() in ended.stderr
    assert b"Traceback" not in ended.stderr


# Flow control.


def test_a_job_can_be_named_by_its_unique_key(empty: Path) -> None:
    with jobq.open(empty, durability="unsafe") as svc:
        job_id = svc.enqueue("mail", unique="user 7")
        (held,) = svc.reserve("mail", timeout=0)
        held.log("hello")
        held.retry()
    told = json.loads(call("--db", empty, "jobs", "show", "--unique", "user 7", "--json").stdout)
    (line,) = words(call("--db", empty, "jobs", "logs", "--unique", "user 7"))

    assert told["id"] == job_id
    assert line.endswith("  hello")


@pytest.mark.parametrize("verb", ["show", "logs"])
def test_a_unique_key_that_nobody_has_is_not_found(queue: Path, verb: str) -> None:
    missing = call("--db", queue, "jobs", verb, "--unique", "user 7")
    none = call("--db", queue, "jobs", verb)
    both = call("--db", queue, "jobs", verb, "1", "--unique", "user 7")

    assert [missing.exit_code, none.exit_code, both.exit_code] == [3, 2, 2]
    assert "'user 7'" in missing.stderr
    assert "--unique KEY" in none.stderr
    assert call("--db", queue, "jobs", verb, "--unique", "").exit_code == 1


def test_show_has_group_key_and_deadline_among_the_facts(empty: Path) -> None:
    with jobq.open(empty, durability="unsafe") as svc:
        job_id = svc.enqueue("mail", group="ann", unique="user 7", ttl=3600.5)
        plain_id = svc.enqueue("mail")
    lines = words(call("--db", empty, "jobs", "show", job_id))
    bare = words(call("--db", empty, "jobs", "show", plain_id))

    assert "group        ann" in lines
    assert "unique key   user 7" in lines
    (deadline,) = (line for line in lines if line.startswith("deadline"))
    assert deadline.endswith("Z  in 1h")
    assert [line for line in lines if line.split()[:1] == ["unique_for"]] == [
        "  unique_for   unfinished  (default)"
    ]
    heads = {line.split()[0] for line in bare if line}
    assert not heads & {"group", "unique", "unique_for", "on_conflict", "deadline"}


def test_jobs_that_expired_or_were_dropped_say_so(empty: Path) -> None:
    with jobq.open(empty, durability="unsafe") as svc:
        svc.configure("mail", max_jobs=1, when_full="drop-oldest")
        dropped = svc.enqueue("mail")
        svc.enqueue("mail")
        expired = svc.enqueue("other", ttl=0.001)
        assert svc.wait(expired, DEADLINE_S).reason == "expired"
    lines = words(call("--db", empty, "jobs", "list", "--status", "canceled"))

    assert [line.split()[-1] for line in lines[1:]] == ["dropped", "expired"]
    assert "status       canceled (dropped)" in words(call("--db", empty, "jobs", "show", dropped))
    assert "status       canceled (expired)" in words(call("--db", empty, "jobs", "show", expired))
    dead = words(call("--db", empty, "dead", "list"))
    assert len(dead) == 3
