"""Jobs by filters: listed, and changed many at once; and dead letters."""

import json
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

import jobq
from jobq.cli.telling import Telling
from jobq.service.bulk import BulkProgress, BulkResult, Run
from tests.cli.conftest import call, words
from tests.cli.test_jobs import ids_of, on_a_terminal, records


@pytest.fixture
def mixed(empty: Path) -> Path:
    """A queue with a job for each filter, and one that fits none."""
    with jobq.open(empty, durability="unsafe") as svc:
        svc.enqueue_many("work", ["rejected", "exhausted", "by hand"], max_retries=0)
        rejected, exhausted, by_hand = svc.reserve("work", 3)
        rejected.cancel("rejected", "no such user")
        exhausted.retry(error="Traceback\nOSError: refused")
        by_hand.cancel()
        svc.enqueue("mail", "grouped", group="g", unique="k", name="n", tags=["a"])
        svc.enqueue("mail", "plain")
    return empty


def payloads(queue: Path, *args: str) -> list[Any]:
    printed = call("--db", queue, *args, "--json")
    assert printed.exit_code == 0, printed.stderr
    return [job["payload"] for job in records(printed.stdout)]


@pytest.mark.parametrize(
    ("args", "found"),
    [
        (["--group", "g"], ["grouped"]),
        (["--unique", "k"], ["grouped"]),
        (["--name", "n", "--tag", "a"], ["grouped"]),
        (["--reason", "rejected"], ["rejected"]),
        (["--reason", "rejected", "--reason", "canceled"], ["rejected", "by hand"]),
        (["--dead"], ["rejected", "exhausted"]),
        (["--dead", "--with-error", "refused"], ["exhausted"]),
        (["--with-error", "nothing like it"], []),
        (["--older-than", "1h"], []),
        (["--older-than", "0", "-t", "mail"], ["grouped", "plain"]),
        (["--dead", "-s", "ready"], []),
    ],
)
def test_filters_say_which_jobs_are_listed(mixed: Path, args: list[str], found: list[str]) -> None:
    assert payloads(mixed, "jobs", "list", *args) == found


def test_dead_letters_are_listed_retried_and_purged(mixed: Path) -> None:
    listed = payloads(mixed, "dead", "list")
    one = payloads(mixed, "dead", "list", "--reason", "exhausted")
    would = call("--db", mixed, "dead", "retry", "--with-error", "user", "--dry-run")
    retried = words(call("--db", mixed, "dead", "retry", "--with-error", "user", "--yes"))
    purged = words(call("--db", mixed, "dead", "purge", "--yes"))

    assert (listed, one) == (["rejected", "exhausted"], ["exhausted"])
    assert would.stderr == "jobq: would retry 1 job (dead letters with 'user' in their error)\n"
    assert (retried, purged) == (["ready: 1 job"], ["purged: 1 job"])
    assert payloads(mixed, "jobs", "list", "-t", "work") == ["rejected", "by hand"]


def test_dead_letters_are_not_touched_unasked(mixed: Path) -> None:
    for verb in ("retry", "purge"):
        refused = call("--db", mixed, "dead", verb)
        assert refused.exit_code == 2
        assert f"{verb} 2 jobs (dead letters)? Say so with --yes" in refused.stderr


def test_a_retry_keeps_to_its_rate(mixed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rates: list[float | None] = []
    result = Run.result

    def noted(run: Run, *, complete: bool = True) -> BulkResult:
        rates.append(run.how.rate)
        return result(run, complete=complete)

    monkeypatch.setattr(Run, "result", noted)
    told = words(call("--db", mixed, "dead", "retry", "--rate", "5000", "--yes"))
    wrong = call("--db", mixed, "dead", "retry", "--rate", "0", "--yes")

    assert told == ["ready: 2 jobs"]
    assert rates == [5000.0]
    assert (wrong.exit_code, wrong.stdout) == (1, "")
    assert "rate is 0.0: expected jobs per second" in wrong.stderr


def test_retry_resets_what_is_finished_and_ends_delays(queue: Path) -> None:
    told = call("--db", queue, "jobs", "retry", "-s", "delayed", "-s", "done", "--yes", "--json")

    assert told.stderr == "ready: 2 jobs\n"
    assert {one["outcome"] for one in records(told.stdout)} == {"ok"}
    assert ids_of(queue, status=["delayed", "done"]) == []


def deadlines(path: Path, **filters: Any) -> dict[Any, datetime | None]:
    with jobq.open(path, create=False) as svc:
        return {job.payload: job.deadline for job in svc.find(**filters)}


def test_retry_gives_a_new_deadline_by_ids_and_by_filters(mixed: Path) -> None:
    first, second, third = ids_of(mixed, topic="work")
    late = datetime(2100, 1, 31, 11, tzinfo=UTC)
    with jobq.open(mixed, create=False) as svc:
        svc.enqueue("work", "late", delay=1000)
        later = svc.enqueue("work", "later", delay=1000, ttl=5000)
    begin = datetime.now(UTC)
    args = ["--deadline", "2100-01-31T12:00+01:00", "--yes"]
    named = call("--db", mixed, "jobs", "retry", first, later, *args)
    dead = call("--db", mixed, "dead", "retry", "--ttl", "1h", "--yes")
    args = ["-s", "canceled", "-s", "delayed", "--ttl", "5200w", "--deadline", late.isoformat()]
    rest = call("--db", mixed, "jobs", "retry", "-t", "work", *args, "--yes")
    end = datetime.now(UTC)

    assert words(named) == [f"{first} ready", f"{later} ready"]
    assert (words(dead), words(rest)) == (["ready: 1 job"], ["ready: 2 jobs"])
    found = deadlines(mixed, topic="work", status="ready")
    soon = found.pop("exhausted")
    assert soon is not None
    assert begin <= soon - timedelta(hours=1) <= end
    assert found == {"rejected": late, "by hand": late, "late": late, "later": late}
    assert {first, second, third} < set(ids_of(mixed, status="ready"))


def test_retry_without_a_deadline_drops_those_of_finished_jobs_alone(empty: Path) -> None:
    with jobq.open(empty, durability="unsafe") as svc:
        svc.cancel(svc.enqueue("mail", "canceled", ttl=5000))
        jobs = [svc.enqueue("mail", "late", ttl=5000, delay=1000)]
        jobs += [job.id for job in svc.find(status="canceled")]
        soon = svc.get(jobs[0]).deadline
    told = call("--db", empty, "jobs", "retry", *jobs, "--yes")

    assert words(told) == [f"{job} ready" for job in jobs]
    assert deadlines(empty) == {"canceled": None, "late": soon}


@pytest.mark.parametrize(
    ("args", "said", "status"),
    [
        (["--ttl", "0"], "ttl is 0.0: expected more than 0 seconds", 1),
        (["--ttl", "soon"], "no duration", 2),
        (["--deadline", "tomorrow"], "no time", 2),
        (["--deadline", "1960-01-01T12:00Z"], "deadline is", 1),
    ],
)
def test_a_wrong_deadline_of_a_retry_changes_nothing(
    mixed: Path, args: list[str], said: str, status: int
) -> None:
    canceled = ids_of(mixed, status="canceled")
    for verb in (["jobs", "retry", *canceled], ["jobs", "retry", "-t", "work"], ["dead", "retry"]):
        told = call("--db", mixed, *verb, *args, "--yes")
        assert (told.exit_code, told.stdout) == (status, "")
        assert said in told.stderr
    assert ids_of(mixed, status="canceled") == canceled


def test_jobs_are_moved_by_filters_or_ids(mixed: Path) -> None:
    (grouped,) = ids_of(mixed, group="g")
    one = words(call("--db", mixed, "jobs", "move", grouped, "--to", "sms"))
    rest = words(call("--db", mixed, "jobs", "move", "-t", "mail", "--to", "sms", "--yes"))
    wrong = call("--db", mixed, "jobs", "move", "--dead", "--to", "sms", "--yes")

    assert (one, rest) == ([f"{grouped} moved to sms"], ["moved to sms: 1 job"])
    assert payloads(mixed, "jobs", "list", "-t", "sms") == ["grouped", "plain"]
    assert wrong.exit_code == 2
    assert "cannot move canceled jobs (only ready, delayed ones)" in wrong.stderr


def test_edit_takes_its_filters_apart_from_what_is_to_become_of_jobs(mixed: Path) -> None:
    where = ["--where", "topic=mail", "--where", "tag=a", "--where", "older-than=0s"]
    would = call("--db", mixed, "jobs", "edit", *where, "--name", "new", "--dry-run")
    told = words(call("--db", mixed, "jobs", "edit", *where, "--name", "new", "--yes"))

    assert "would edit 1 job (ready, delayed jobs of topic 'mail' tagged 'a' older than 0 s)" in (
        would.stderr
    )
    assert told == ["edited: 1 job"]
    assert payloads(mixed, "jobs", "list", "--name", "new") == ["grouped"]


@pytest.mark.parametrize(
    ("args", "told"),
    [
        (["--where", "colour=red"], "'colour=red': expected FILTER=VALUE, FILTER one of topic"),
        (["--where", "topic"], "'topic': expected FILTER=VALUE"),
        (["--where", "status=lost"], "'lost' is not one of 'ready'"),
        (["--where", "topic=a", "--where", "topic=b"], "topic is given twice"),
        (["--where", "older-than=soon"], "'soon' is no duration"),
        (["--where", "dead"], "cannot edit canceled jobs"),
        (["--where", "status=done"], "cannot edit done jobs"),
        (["--where", "topic=mail", "--all"], "--all takes no filters"),
        (["12", "--where", "topic=mail"], "not both"),
        ([], "which jobs? Give IDs, or --where or --all"),
    ],
)
def test_a_wrong_where_is_a_wrong_command(mixed: Path, args: list[str], told: str) -> None:
    result = call("--db", mixed, "jobs", "edit", *args, "--weight", "1", "--yes")

    assert result.exit_code == 2, result.stderr
    assert told in result.stderr


def test_jobs_that_come_while_somebody_is_asked_are_not_changed(empty: Path) -> None:
    with jobq.open(empty, durability="unsafe") as svc:
        svc.enqueue_many("mail", range(3))
        status, seen = on_a_terminal(
            b"y",
            *("--db", str(empty), "jobs", "cancel", "-t", "mail"),
            meanwhile=lambda: svc.enqueue("mail", "late"),
        )
        left = [job.payload for job in svc.find(status="ready")]

    assert status == 0
    assert b"canceled: 3 jobs" in seen
    assert left == ["late"]


def test_a_terminal_is_told_how_far_it_has_come(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jobq.cli.telling.SHOWN_EACH_S", 0.0)
    shown: list[str] = []
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    monkeypatch.setattr("click.echo", lambda text, **_: shown.append(text))
    told = Telling(as_json=False)
    told(BulkProgress(1024, 3, 2, {}))
    told.of(BulkResult(1024, 3, {}))
    told(BulkProgress(512, 1, 1, {}))
    told.end()

    assert shown[:2] == [
        "\r1,024 looked at, 3 match, 2 changed",
        "\r512 looked at, 4 match, 3 changed  ",
    ]
    assert shown[2].strip() == ""
    assert (told.matched, told.changed) == (4, 3)


def test_a_job_whose_unique_key_is_taken_stays_as_it_is_and_it_is_said_why(empty: Path) -> None:
    with jobq.open(empty, durability="unsafe") as svc:
        first = svc.enqueue("mail", unique="k")
        svc.cancel(first)
        svc.enqueue("mail", unique="k")
    named = call("--db", empty, "jobs", "retry", first)
    selected = words(call("--db", empty, "jobs", "retry", "-t", "mail", "--yes"))

    assert named.exit_code == 1
    assert named.stderr == f"jobq: job {first} stays canceled: another job has its unique key\n"
    assert selected == ["ready: 0 jobs, 1 stay as they are: other jobs have their unique keys"]


def test_outcomes_of_a_selection_come_as_json(mixed: Path) -> None:
    ids = ids_of(mixed, dead=True)
    told = call("--db", mixed, "jobs", "delete", "--dead", "--yes", "--json")

    assert [json.loads(line) for line in told.stdout.splitlines()] == [
        {"id": job_id, "outcome": "ok"} for job_id in ids
    ]
    assert told.stderr == "deleted: 2 jobs\n"
