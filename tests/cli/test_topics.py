"""`jobq topics`, `groups` and `keys`: what limits topics, who has what, how it is given back."""

import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import jobq
from jobq.cli import options
from jobq.topic import SettingArgs, TopicSettings
from tests.cli.conftest import call, words
from tests.conftest import DEADLINE_S, eventually

EVERY_SETTING = {
    "keep_done": ("1h", 3600.0),
    "keep_canceled": ("90", 90.0),
    "max_done": ("5", 5),
    "paused": ("true", True),
    "draining": ("yes", True),
    "concurrency": ("20", 20),
    "rate": ("100/60s", (100, 60.0)),
    "burst": ("10", 10),
    "group_concurrency": ("1", 1),
    "group_rate": ("5/s", (5, 1.0)),
    "group_burst": ("2", 2),
    "group_retries": ("pass", "pass"),
    "max_jobs": ("1000", 1000),
    "max_bytes": ("1000000", 1_000_000),
    "when_full": ("drop-oldest", "drop-oldest"),
    "max_lease": ("5m", 300.0),
    "max_retries": ("3", 3),
    "min_backoff": ("30s", 30.0),
    "max_backoff": ("2h", 7200.0),
    "factor": ("1.5", 1.5),
    "jitter": ("0", 0.0),
    "ttl": ("1d", 86400.0),
    "ageing": ("1m", 60.0),
}
"""Each setting as it is typed, and what it is then."""


def flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def settings(queue: Path, topic: str | None) -> dict[str, Any]:
    with jobq.open(queue, create=False) as svc:
        return svc.settings(topic).as_dict()


def records(printed: str) -> list[dict[str, Any]]:
    """JSON Lines."""
    return [json.loads(line) for line in printed.splitlines()]


@pytest.fixture
def grouped(empty: Path) -> Path:
    """Two groups with a place taken by a canceled job each, and a job ready in one."""
    with jobq.open(empty, durability="unsafe") as svc:
        svc.configure("sync", group_concurrency=1, concurrency=9)
        for name in ("ann", "bob"):
            svc.enqueue("sync", group=name, unique=f"key of {name}")
        svc.enqueue("sync", group="ann")
    return empty


@pytest.fixture
def lingering(grouped: Path) -> Iterator[Path]:
    """The same, while a process holds the first job of each group, canceled since."""
    with jobq.open(grouped) as holder, jobq.open(grouped) as other:
        assert len(holder.reserve("sync", 5, timeout=0)) == 2
        assert other.select(topic="sync", status="reserved").cancel().changed == 2
        yield grouped


# configure


def test_every_setting_is_an_option_and_is_read_shown_and_unset(queue: Path) -> None:
    typed = [word for name, (text, _) in EVERY_SETTING.items() for word in (flag(name), text)]
    shown = words(call("--db", queue, "topics", "configure", "mail", *typed))
    told = json.loads(call("--db", queue, "topics", "configure", "mail", "--json").stdout)

    assert set(EVERY_SETTING) == set(SettingArgs.__annotations__)
    assert settings(queue, "mail") == {name: value for name, (_, value) in EVERY_SETTING.items()}
    assert told == json.loads(json.dumps(settings(queue, "mail")))
    assert dict(line.split() for line in shown).keys() == EVERY_SETTING.keys()
    assert "rate               100/60s" in shown
    assert "paused             yes" in shown
    unset = [word for name in EVERY_SETTING for word in ("--unset", name)]
    assert words(call("--db", queue, "topics", "configure", "mail", *unset)) == []
    assert settings(queue, "mail") == {}


def test_help_says_what_each_setting_is() -> None:
    told = options.told_of(TopicSettings)

    assert set(told) == set(EVERY_SETTING)
    assert "`" not in " ".join(told.values())


def test_a_flag_can_be_taken_back(queue: Path) -> None:
    call("--db", queue, "topics", "configure", "mail", "--paused", "yes", "--concurrency", "2")
    call("--db", queue, "topics", "configure", "mail", "--paused", "no")

    assert settings(queue, "mail") == {"concurrency": 2}


@pytest.mark.parametrize(
    ("args", "status", "told"),
    [
        (["mail", "--rate", "100"], 2, "'100' is no rate"),
        (["mail", "--rate", "1.5/s"], 2, "'1.5/s' is no rate"),
        (["mail", "--rate", "5/soon"], 2, "'soon' is no duration"),
        (["mail", "--rate", "5/"], 2, "'' is no duration"),
        (["mail", "--rate", "0/s"], 1, "rate is 0"),
        (["mail", "--rate", "5/0s"], 1, "rate is 0"),
        (["mail", "--burst", "0"], 1, "burst is 0"),
        (["mail", "--concurrency", "0"], 1, "concurrency is 0"),
        (["mail", "--concurrency", "many"], 2, "many"),
        (["mail", "--when-full", "explode"], 2, "explode"),
        (["mail", "--ttl", "0"], 1, "ttl is 0"),
        (["mail", "--ageing", "ever"], 2, "'ever' is no duration"),
        (["--all", "--concurrency", "3"], 1, "'concurrency' is for topics alone"),
        ([], 2, "which topic?"),
        (["mail", "--all"], 2, "not both"),
        (["", "--paused", "yes"], 1, "topic"),
    ],
)
def test_a_wrong_setting_is_named_and_changes_nothing(
    queue: Path, args: list[str], status: int, told: str
) -> None:
    result = call("--db", queue, "topics", "configure", *args)

    assert result.exit_code == status
    assert told in result.stderr
    assert (settings(queue, "mail"), settings(queue, None)) == ({}, {})


def test_the_queue_as_a_whole_has_settings_too(queue: Path) -> None:
    nothing = call("--db", queue, "topics", "configure", "--all")
    some = words(call("--db", queue, "topics", "configure", "--all", "--max-jobs", "9"))

    assert (nothing.exit_code, nothing.stdout) == (0, "")
    assert "no settings" in nothing.stderr
    assert [line.split() for line in some] == [["max_jobs", "9"]]
    assert settings(queue, None) == {"max_jobs": 9}
    assert "max_jobs 9" in words(call("--db", queue, "stats"))[0]


# pause, resume, drain


def test_topics_are_paused_and_resumed(queue: Path) -> None:
    paused = words(call("--db", queue, "topics", "pause", "mail", "手紙", "mail"))
    was = [settings(queue, topic) for topic in ("mail", "手紙")]
    resumed = words(call("--db", queue, "topics", "resume", "mail"))

    assert paused == ["mail paused", "手紙 paused"]
    assert was == [{"paused": True}] * 2
    assert resumed == ["mail resumed"]
    assert (settings(queue, "mail"), settings(queue, "手紙")) == ({}, {"paused": True})


def test_resume_of_all_says_which_topics_stay_closed_by_name(queue: Path) -> None:
    call("--db", queue, "topics", "pause", "mail")
    call("--db", queue, "topics", "drain", "手紙", "--timeout", "0")
    assert words(call("--db", queue, "topics", "pause", "--all")) == ["all topics paused"]
    one = call("--db", queue, "topics", "resume", "mail")
    call("--db", queue, "topics", "pause", "mail")
    every = call("--db", queue, "topics", "resume", "--all")

    assert (one.stdout, one.stderr) == (
        "mail resumed\n",
        "jobq: the queue as a whole is still paused: `jobq topics resume --all`\n",
    )
    assert every.stdout == "all topics resumed\n"
    assert every.stderr.splitlines() == [
        "jobq: topic 'mail' is still paused: `jobq topics resume` it by name",
        "jobq: topic '手紙' is still draining: `jobq topics resume` it by name",
    ]
    assert settings(queue, None) == {}


def test_drain_ends_when_nothing_is_unfinished_and_the_topic_stays_closed(queue: Path) -> None:
    ended = []
    waiter = threading.Thread(
        target=lambda: ended.append(call("--db", queue, "topics", "drain", "手紙"))
    )
    with jobq.open(queue) as svc:
        (held,) = svc.reserve("手紙", timeout=0)
        waiter.start()
        eventually(lambda: settings(queue, "手紙") == {"draining": True})
        assert ended == []
        held.done()
        waiter.join(DEADLINE_S)

    assert words(ended[0]) == ["手紙 drained"]
    refused = call("--db", queue, "jobs", "enqueue", "手紙")
    assert (refused.exit_code, refused.stdout) == (1, "")
    assert "draining" in refused.stderr


def test_drain_fails_if_jobs_are_unfinished_when_the_time_is_over(queue: Path) -> None:
    one = call("--db", queue, "topics", "drain", "mail", "手紙", "--timeout", "10ms")
    every = call("--db", queue, "topics", "drain", "--all", "--timeout", "0")

    assert (one.exit_code, every.exit_code) == (1, 1)
    assert one.stderr == (
        "jobq: 5 jobs of topic 'mail' unfinished: the time is over; no new ones come in until "
        "`jobq topics resume 'mail'`\n"
    )
    assert "6 jobs of all topics unfinished" in every.stderr
    assert [settings(queue, topic) for topic in ("mail", "手紙", None)] == [{"draining": True}] * 3


def test_drain_of_an_empty_queue_is_done_at_once(empty: Path) -> None:
    assert words(call("--db", empty, "topics", "drain", "--all")) == ["all topics drained"]


@pytest.mark.parametrize("verb", ["pause", "resume", "drain"])
def test_what_is_not_there_is_not_found_and_nothing_is_touched(queue: Path, verb: str) -> None:
    unknown = call("--db", queue, "topics", verb, "mail", "mial")
    none = call("--db", queue, "topics", verb)
    both = call("--db", queue, "topics", verb, "mail", "--all")

    assert [unknown.exit_code, none.exit_code, both.exit_code] == [3, 2, 2]
    assert "there is no topic 'mial'" in unknown.stderr
    assert "--all" in none.stderr
    assert "not both" in both.stderr
    assert (settings(queue, "mail"), settings(queue, None)) == ({}, {})


# What is shown.


def test_tables_have_columns_of_flow_control_only_where_it_is_used(lingering: Path) -> None:
    call("--db", lingering, "jobs", "enqueue", "mail")
    call(
        "--db", lingering, "topics", "configure", "mail", "--max-bytes", "2048", "--keep-done", "9"
    )
    call(
        "--db",
        lingering,
        "topics",
        "configure",
        "sync",
        "--paused",
        "yes",
        "--rate",
        "5/s",
        "--ttl",
        "1h",
    )
    listed = words(call("--db", lingering, "topics", "list"))
    stats = words(call("--db", lingering, "stats"))[2:]

    limits = "paused, concurrency 9, rate 5/1s, group_concurrency 1, ttl 3600s"
    assert listed[0].split() == [
        "topic",
        "unfinished",
        "total",
        "running",
        "groups",
        "bytes",
        "limits",
    ]
    assert listed[1].split(maxsplit=6) == ["mail", "1", "1", "0", "0", "1", "B  max_bytes 2048"]
    assert listed[2].split(maxsplit=3)[3].split(maxsplit=1)[0] == "2"
    assert listed[2].endswith(f" B  {limits}")
    assert stats[0].split()[6:] == ["running", "groups", "bytes", "limits"]
    assert stats[2].endswith(f" B  {limits}")
    assert stats[3].split()[:8] == ["total", "2", "0", "0", "0", "2", "2", "2"]


def test_json_has_all_of_it(lingering: Path) -> None:
    (topic,) = records(call("--db", lingering, "topics", "--json").stdout)
    told = json.loads(call("--db", lingering, "stats", "--json").stdout)

    assert (topic["running"], topic["groups"], topic["paused"]) == (2, 2, False)
    assert topic["settings"] == {"concurrency": 9, "group_concurrency": 1}
    assert told["topics"][0] == {key: topic[key] for key in told["topics"][0]}
    assert told["totals"]["running"] == 2


def test_json_of_topics_stands_after_the_verb(queue: Path) -> None:
    assert call("--db", queue, "topics", "list", "--json").exit_code == 0
    assert call("--db", queue, "topics", "--json", "list").exit_code == 2


def test_the_store_line_has_its_settings(queue: Path) -> None:
    args = ["--paused", "yes", "--max-bytes", "4096"]
    assert call("--db", queue, "topics", "configure", "--all", *args).exit_code == 0
    lines = words(call("--db", queue, "stats"))

    assert "  paused  max_bytes 4.0 KiB" in lines[0]
    assert lines[3].endswith("paused")


# limits and release


def test_limits_say_how_near_a_topic_is_to_them(lingering: Path) -> None:
    args = ["--max-jobs", "1000", "--max-bytes", "2048", "--rate", "3/h"]
    call("--db", lingering, "topics", "configure", "sync", *args)
    lines = words(call("--db", lingering, "topics", "limits", "sync"))
    told = json.loads(call("--db", lingering, "topics", "limits", "sync", "--json").stdout)

    assert lines[:5] == [
        "running            2 of 9",
        "lingering          2 (canceled, still held)",
        "may go now         3",
        "jobs waiting       1 of 1,000",
        "bytes waiting      1 B of 2.0 KiB",
    ]
    assert lines[5:7] == ["", "settings"]
    assert "  rate               3/3600s" in lines
    assert (told["running"], told["lingering"], told["jobs"]) == (2, 2, 1)
    assert told["settings"]["rate"] == [3, 3600.0]


def test_limits_of_a_topic_without_any_are_what_it_has(queue: Path) -> None:
    assert words(call("--db", queue, "topics", "limits", "mail"))[:2] == [
        "running            0",
        "jobs waiting       5",
    ]
    assert (
        json.loads(call("--db", queue, "topics", "limits", "--all", "--json").stdout)["jobs"] == 6
    )


def test_a_rate_that_is_used_up_says_when_the_next_may_go(queue: Path) -> None:
    call("--db", queue, "topics", "configure", "mail", "--rate", "1/h")
    call("--db", queue, "work", "mail", "--max-jobs", "1", "--quiet", "--exec", "true")
    lines = words(call("--db", queue, "topics", "limits", "mail"))
    released = call("--db", queue, "topics", "release", "mail")

    assert "may go now         0, the next in 59m" in lines
    assert released.stdout == "released: 0 places\n"
    assert "may go now         1" in words(call("--db", queue, "topics", "limits", "mail"))


def test_release_of_a_topic_gives_its_places_back(lingering: Path) -> None:
    asked = call("--db", lingering, "topics", "release", "sync")
    done = call("--db", lingering, "topics", "release", "sync", "--yes")

    assert asked.exit_code == 2
    assert "release 2 places of topic 'sync'? Say so with --yes" in asked.stderr
    assert done.stdout == "released: 2 places\n"
    with jobq.open(lingering) as svc:
        assert svc.limits("sync").running == 0


@pytest.mark.parametrize("verb", ["limits", "release"])
def test_limits_of_what_is_not_there(queue: Path, verb: str) -> None:
    assert call("--db", queue, "topics", verb, "mial").exit_code == 3
    assert call("--db", queue, "topics", verb).exit_code == 2


# groups


def test_groups_are_listed_by_name_a_page_at_a_time(lingering: Path) -> None:
    lines = words(call("--db", lingering, "groups", "list", "sync"))
    first = call("--db", lingering, "groups", "list", "sync", "-n", "1", "--json")
    rest = call("--db", lingering, "groups", "list", "sync", "--after", "ann", "--json")

    assert [line.split() for line in lines] == [
        ["group", "ready", "running", "lingering", "next"],
        ["ann", "1", "1", "1"],
        ["bob", "0", "1", "1"],
    ]
    assert records(first.stdout)[0] == {
        "group": "ann",
        "ready": 1,
        "running": 1,
        "lingering": 1,
        "next_at": None,
    }
    assert first.stderr == "jobq: there are more: --after ann, or --limit 0 for all\n"
    assert [group["group"] for group in records(rest.stdout)] == ["bob"]
    assert rest.stderr == ""


def test_more_groups_than_are_read_at_a_time(empty: Path) -> None:
    with jobq.open(empty, durability="unsafe") as svc, svc.batch() as batch:
        for number in range(250):
            batch.enqueue("sync", group=f"g{number:03}")
    found = records(call("--db", empty, "groups", "list", "sync", "-n", "0", "--json").stdout)

    assert [group["group"] for group in found] == [f"g{number:03}" for number in range(250)]
    assert len(words(call("--db", empty, "groups", "list", "sync"))) == 101


def test_a_group_that_waits_for_its_rate_says_when_the_next_may_go(grouped: Path) -> None:
    call("--db", grouped, "topics", "configure", "sync", "--group-rate", "1/h")
    call("--db", grouped, "work", "sync", "--max-jobs", "2", "--quiet", "--exec", "true")

    assert words(call("--db", grouped, "groups", "list", "sync"))[1].endswith("in 59m")


def test_release_of_groups_gives_their_places_back(lingering: Path) -> None:
    asked = call("--db", lingering, "groups", "release", "sync", "ann", "bob")
    one = call("--db", lingering, "groups", "release", "sync", "ann")
    some = call("--db", lingering, "groups", "release", "sync", "bob", "eve", "--yes", "--json")

    assert (asked.exit_code, asked.stdout) == (2, "")
    assert "release 2 groups of topic 'sync'" in asked.stderr
    assert one.stdout == "ann released\n"
    assert some.exit_code == 3
    assert records(some.stdout) == [
        {"group": "bob", "outcome": "ok"},
        {"group": "eve", "outcome": "missing"},
    ]
    assert "'eve'" in some.stderr
    with jobq.open(lingering) as svc:
        assert [(one.group, one.running) for one in svc.groups("sync")] == [("ann", 0)]


def test_groups_of_what_is_not_there(queue: Path) -> None:
    assert words(call("--db", queue, "groups", "list", "mail"))[1:] == []
    assert call("--db", queue, "groups", "list", "mial").exit_code == 3
    assert call("--db", queue, "groups", "release", "mial", "ann").exit_code == 3
    assert call("--db", queue, "groups", "release", "mail").exit_code == 2
    assert call("--db", queue, "groups", "list", "mail", "--limit", "-1").exit_code == 2


# keys


def test_keys_are_listed_by_name_a_page_at_a_time(grouped: Path) -> None:
    args = ("--unique", "ping", "--unique-for", "1h")
    (ping,) = words(call("--db", grouped, "jobs", "enqueue", "other", *args))
    lines = words(call("--db", grouped, "keys", "list"))
    first = call("--db", grouped, "keys", "list", "-n", "1", "--json")
    rest = call("--db", grouped, "keys", "list", "--after", "key of bob", "--json")

    assert lines[0].split() == ["key", "job", "until"]
    assert [line[:10].strip() for line in lines[1:]] == ["key of ann", "key of bob", "ping"]
    assert lines[1].endswith("  -")
    assert lines[3].endswith("in 59m")
    assert first.stderr == "jobq: there are more: --after 'key of ann', or --limit 0 for all\n"
    (last,) = records(rest.stdout)
    assert (last["key"], last["job_id"]) == ("ping", ping)
    assert last["until"].endswith("+00:00")


def test_keys_are_released(grouped: Path) -> None:
    asked = call("--db", grouped, "keys", "release", "key of ann", "key of bob")
    one = call("--db", grouped, "keys", "release", "key of ann")
    some = call("--db", grouped, "keys", "release", "key of ann", "key of bob", "-y", "--json")

    assert (asked.exit_code, asked.stdout) == (2, "")
    assert "release 2 keys? Say so with --yes, or look first with `jobq keys list`" in asked.stderr
    assert one.stdout == "key of ann released\n"
    assert some.exit_code == 3
    assert [told["outcome"] for told in records(some.stdout)] == ["missing", "ok"]
    assert "no job has the unique key 'key of ann'" in some.stderr
    assert words(call("--db", grouped, "keys", "list"))[1:] == []


def test_keys_that_are_none_are_refused(queue: Path) -> None:
    assert call("--db", queue, "keys", "release").exit_code == 2
    assert call("--db", queue, "keys", "release", "").exit_code == 1
    assert call("--db", queue, "keys", "release", "k" * 256).exit_code == 1
    assert call("--db", queue, "keys", "list", "--json").stdout == ""


def test_names_cannot_steer_the_terminal(empty: Path) -> None:
    with jobq.open(empty, durability="unsafe") as svc:
        svc.enqueue("sync", group="g\x1b[2J", unique="k\x1b[2J")
    for args in (
        ["groups", "list", "sync"],
        ["keys", "list"],
        ["groups", "release", "sync", "g\x1b"],
    ):
        result = call("--db", empty, *args)
        assert "\x1b" not in result.output
