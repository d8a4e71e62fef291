"""Export and import as JSON Lines: what stands in the file, and what is refused."""

import json
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

import jobq
from jobq import InvalidValue, JobService, StoreFull
from jobq.service import transfer
from tests.test_codec import values

Line = dict[str, Any]


@pytest.fixture
def other() -> JobService:
    """An empty queue to import into."""
    return jobq.open(":memory:")


def through_a_file(svc: JobService) -> list[Line]:
    """The lines of an export as they come back from a file."""
    return [json.loads(json.dumps(line, allow_nan=False)) for line in svc.export_jobs()]


def filled(svc: JobService) -> JobService:
    """A job that was tried, one that is done, one that waits."""
    svc.enqueue_many("mail", [{"n": 1}, {"n": 2}, {"n": 3}], name="n", tags=["t"])
    one, two = svc.reserve("mail", 2, timeout=0)
    one.log("a line")
    one.progress(1, 2, "half")
    one.retry(0, error=ValueError("no"))
    two.done({"sent": True})
    svc.enqueue("later", delay=60)
    return svc


def test_an_export_has_a_head_a_line_for_each_job_and_an_end(svc: JobService) -> None:
    lines = through_a_file(filled(svc))

    assert [line["kind"] for line in lines] == ["queue", "job", "job", "job", "job", "end"]
    assert lines[0]["version"] == 1
    assert lines[-1]["jobs"] == 4
    assert datetime.fromisoformat(lines[0]["exported"]).tzinfo is not None


def test_a_line_can_be_read_by_people_and_other_programs(svc: JobService) -> None:
    first, second = through_a_file(filled(svc))[1:3]

    assert (first["topic"], first["status"], first["payload"]) == ("mail", "ready", {"n": 1})
    assert (first["options"], first["attempt"]) == ({"name": "n", "tags": ["t"]}, 1)
    assert [one["event"] for one in first["history"]] == ["retry"]
    assert first["error"].endswith("ValueError: no")
    assert [line["text"] for line in first["log"]] == ["a line"]
    assert first["progress"]["done"] == 1
    assert (second["status"], second["result"]) == ("done", {"sent": True})


def test_all_that_is_known_of_the_jobs_arrives(svc: JobService, other: JobService) -> None:
    lines = through_a_file(filled(svc))

    assert other.import_jobs(lines) == (4, 0)
    ids = [line["id"] for line in lines[1:-1]]
    assert [other.get(job_id) for job_id in ids] == [svc.get(job_id) for job_id in ids]
    assert other.check().ok
    assert through_a_file(other)[1:-1] == [
        line | {"place": placed["place"]}
        for line, placed in zip(lines[1:-1], through_a_file(other)[1:-1], strict=True)
    ]


def test_a_queue_on_disk_can_be_exported_and_imported_by_another(
    tmp_path: Path, svc: JobService
) -> None:
    lines = through_a_file(filled(svc))
    with jobq.open(tmp_path / "there", durability="unsafe") as there:
        there.import_jobs(lines)
        assert [job.payload for job in there.reserve("mail", 9, timeout=0)] == [{"n": 1}, {"n": 3}]


def test_an_import_that_is_repeated_skips_what_is_there(svc: JobService, other: JobService) -> None:
    lines = through_a_file(filled(svc))
    other.import_jobs(lines)

    assert other.import_jobs(lines) == transfer.Imported(jobs=0, skipped=4)


def test_many_jobs_keep_their_order_over_commits(
    svc: JobService, other: JobService, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transfer, "PAGE", 7)
    svc.enqueue_many("mail", range(40))
    other.import_jobs(through_a_file(svc))

    assert [job.payload for job in other.reserve("mail", 99, timeout=0)] == list(range(40))


def test_large_jobs_share_no_large_commit(
    svc: JobService, other: JobService, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transfer, "MOST_BYTES", 1000)
    svc.enqueue_many("mail", ["x" * 400] * 7)
    sizes = []
    write = other.store.import_jobs

    def watched(copies: Any, *rest: Any) -> Any:
        sizes.append(len(copies))
        return write(copies, *rest)

    monkeypatch.setattr(other.store, "import_jobs", watched)
    other.import_jobs(through_a_file(svc))

    assert sizes == [3, 3, 1]


@given(values, values)
def test_any_payload_and_result_comes_back_equal_and_of_the_same_types(
    payload: object, result: object
) -> None:
    with jobq.open(":memory:") as svc, jobq.open(":memory:") as there:
        job_id = svc.enqueue("mail", payload)
        svc.reserve("mail", timeout=0)[0].done(result)
        there.import_jobs(through_a_file(svc))

        assert there.get(job_id).payload_bytes == svc.get(job_id).payload_bytes
        assert there.get(job_id).result_bytes == svc.get(job_id).result_bytes


@pytest.mark.parametrize(
    "value",
    [
        b"x", {1: 2}, (1, 2), {1, 2}, datetime(2026, 1, 1, tzinfo=UTC), date(2026, 1, 1),
        timedelta(1), UUID(int=1), Decimal(1), float("nan"), float("inf"), [{"a": (1,)}],
        {True: 1}, {None: 1},
    ],
)  # fmt: skip
def test_what_json_would_change_is_written_packed(value: object) -> None:
    assert not transfer.is_json(value)


def test_what_is_nested_deeply_is_written_packed(svc: JobService, other: JobService) -> None:
    deep: list[Any] = []
    for _ in range(500):
        deep = [deep]
    job_id = svc.enqueue("mail", deep)
    lines = through_a_file(svc)
    other.import_jobs(lines)

    assert "payload_msgpack" in lines[1]
    assert other.get(job_id).payload == deep


def test_settings_of_topics_come_along_where_there_are_none(
    svc: JobService, other: JobService
) -> None:
    svc.configure("mail", keep_done=5)
    svc.configure("news", keep_canceled=6)
    other.configure("news", keep_done=7)
    lines = through_a_file(filled(svc))
    other.import_jobs(lines)

    assert [line["kind"] for line in lines[:4]] == ["queue", "topic", "topic", "job"]
    assert other.settings("mail").as_dict() == {"keep_done": 5.0}
    assert other.settings("news").as_dict() == {"keep_done": 7.0}


def test_settings_of_flow_control_come_along(svc: JobService, other: JobService) -> None:
    svc.configure(None, max_jobs=100, max_bytes=5000)
    svc.configure(
        "mail", concurrency=3, rate=(10, 1.5), burst=4, group_rate=(1, 2), when_full="drop-oldest"
    )
    lines = through_a_file(svc)
    other.import_jobs(lines)

    assert [line["kind"] for line in lines] == ["queue", "store", "topic", "end"]
    assert lines[2]["settings"]["rate"] == [10, 1.5]
    assert other.settings(None) == svc.settings(None)
    assert other.settings("mail") == svc.settings("mail")


def test_settings_of_a_store_that_has_some_stay(svc: JobService, other: JobService) -> None:
    svc.configure(None, max_jobs=100)
    other.configure(None, paused=True)
    other.import_jobs(through_a_file(svc))

    assert other.settings(None).as_dict() == {"paused": True}


def test_groups_keys_and_deadlines_are_written_as_they_were_given(
    svc: JobService, other: JobService
) -> None:
    deadline = datetime(2100, 1, 2, 3, 4, 5, 6, tzinfo=UTC)
    job_id = svc.enqueue("mail", group="g", unique="k", unique_for="unfinished", deadline=deadline)
    (_, line, _) = lines = through_a_file(svc)
    other.import_jobs(lines)

    assert line["options"] == {
        "group": "g",
        "unique": "k",
        "unique_for": "unfinished",
        "deadline": "2100-01-02T03:04:05.000006+00:00",
    }
    assert other.get(job_id).options == svc.get(job_id).options
    assert other.enqueue("mail", unique="k") == job_id


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ({"kind": "topic", "settings": {"keep_done": 5}}, "name is missing"),
        ({"kind": "topic", "name": "", "settings": {"keep_done": 5}}, "topic is ''"),
        ({"kind": "topic", "name": "mail", "settings": 3}, "settings is 3"),
        ({"kind": "topic", "name": "mail", "settings": {"speed": 9}}, "unknown setting"),
        ({"kind": "topic", "name": "mail", "settings": {"rate": [0, 1]}}, "the jobs of rate"),
        ({"kind": "store", "settings": {"ttl": 9}}, "'ttl' is for topics alone"),
        ({"kind": "store"}, "settings is missing"),
    ],
)
def test_a_wrong_topic_is_refused(
    svc: JobService, other: JobService, line: Line, message: str
) -> None:
    with pytest.raises(InvalidValue, match=f"line 2: .*{message}"):
        other.import_jobs([*through_a_file(svc)[:1], line])


# What is refused.

WRONG: list[tuple[str, Callable[[Line], Any], str]] = [
    ("no kind", lambda line: line.pop("kind"), "kind is missing"),
    ("another kind", lambda line: line.update(kind="x"), "kind is 'x'"),
    ("no id", lambda line: line.pop("id"), "id is missing"),
    ("an id that is none", lambda line: line.update(id="7"), "7"),
    ("a topic that is none", lambda line: line.update(topic=""), "topic is ''"),
    ("a topic that is no text", lambda line: line.update(topic=3), "topic is 3"),
    ("a sixth status", lambda line: line.update(status="lost"), "status is 'lost'"),
    ("held", lambda line: line.update(status="reserved"), "nobody can hold"),
    ("a reason without an end", lambda line: line.update(reason="poison"), "reason is"),
    ("canceled for nothing", lambda line: line.update(status="canceled"), "reason is None"),
    ("done for ever", lambda line: line.update(status="done", until=None), "until is None"),
    ("a heavy one", lambda line: line.update(weight=2**15), "weight is 32768"),
    ("no place", lambda line: line.update(place=0), "place is 0"),
    ("a place that is none", lambda line: line.update(place=1.5), "place is 1.5"),
    ("a token below 0", lambda line: line.update(token=-1), "token is -1"),
    ("a token too large", lambda line: line.update(token=2**31), "token is 2147483648"),
    ("too many attempts", lambda line: line.update(attempt=2**31), "attempt is 2147483648"),
    ("the place of another", lambda line: line.update(place=1), "place is 1: a job before it"),
    ("a time that is none", lambda line: line.update(created="now"), "created is 'now'"),
    ("a time without zone", lambda line: line.update(created="2026-01-01"), "with its zone"),
    ("before time", lambda line: line.update(created="1969-01-01T00:00:00Z"), "since 1970"),
    (
        "after the last year",
        lambda line: line.update(created="9999-12-31T23:59:59-14:00"),
        "since 1970, up to 9999",
    ),
    (
        "a deadline after the last year",
        lambda line: line.update(options={"deadline": "9999-12-31T23:59:59-14:00"}),
        "deadline is",
    ),
    ("a late one", lambda line: line.update(options={"deadline": 5}), "deadline is 5"),
    ("a key too long", lambda line: line.update(options={"unique": "x" * 256}), "unique is"),
    ("no payload", lambda line: line.pop("payload"), "payload is missing"),
    ("no base64", lambda line: line.update(payload_msgpack="%"), "payload_msgpack is '%'"),
    ("packed trash", lambda line: line.update(payload_msgpack="wQ=="), "no packed value"),
    ("an unknown option", lambda line: line.update(options={"speed": 9}), "speed"),
    ("options that are none", lambda line: line.update(options=[]), "options is"),
    ("a history that is none", lambda line: line.update(history={}), "history is"),
    ("an attempt that is none", lambda line: line.update(history=[3]), "history is"),
    ("an end that is none", lambda line: line["history"][0].update(event="prune"), "event is"),
    ("an error that is none", lambda line: line.update(error=3), "error is 3"),
    ("a log that is none", lambda line: line.update(log=["x"]), "log is"),
    ("a progress that is none", lambda line: line.update(progress=3), "progress is 3"),
    ("negative progress", lambda line: line["progress"].update(done=-1), "done is -1"),
]


@pytest.mark.parametrize(
    ("spoil", "message"), [row[1:] for row in WRONG], ids=[r[0] for r in WRONG]
)
def test_a_wrong_line_is_named_and_what_stands_before_it_is_imported(
    svc: JobService, other: JobService, spoil: Callable[[Line], Any], message: str
) -> None:
    first = svc.enqueue("first")
    lines = through_a_file(filled(svc))
    spoil(lines[2])
    with pytest.raises(InvalidValue, match=message) as caught:
        other.import_jobs(lines)

    assert "line 3: " in str(caught.value)
    assert [job.id for job in other.find()] == [first]
    assert other.check().ok


@pytest.mark.parametrize("line", [None, 3, "x", [], {}])
def test_a_line_that_is_no_object_is_refused(other: JobService, line: Any) -> None:
    with pytest.raises(InvalidValue, match="line 1: "):
        other.import_jobs([line])


@pytest.mark.parametrize(
    ("head", "message"),
    [
        ({"kind": "job"}, "begins with 'queue'"),
        ({"kind": "queue", "version": 2, "last_place": 1}, "version is 2: this jobq reads 1"),
        ({"kind": "queue", "version": 1}, "last_place is missing"),
    ],
)
def test_a_file_that_does_not_begin_as_an_export_is_refused(
    other: JobService, head: Line, message: str
) -> None:
    with pytest.raises(InvalidValue, match=message):
        other.import_jobs([head])


def test_a_file_that_was_cut_short_is_noticed_after_its_jobs(
    svc: JobService, other: JobService
) -> None:
    with pytest.raises(InvalidValue, match="cut short"):
        other.import_jobs(through_a_file(filled(svc))[:-2])

    assert len(other.find()) == 3


def test_a_file_with_lines_missing_in_the_middle_is_noticed(
    svc: JobService, other: JobService
) -> None:
    lines = through_a_file(filled(svc))
    with pytest.raises(InvalidValue, match="jobs is 4, but 3 were there"):
        other.import_jobs(lines[:2] + lines[3:])


def test_nothing_may_come_after_the_end(svc: JobService, other: JobService) -> None:
    lines = through_a_file(filled(svc))
    with pytest.raises(InvalidValue, match="after the end"):
        other.import_jobs(lines + lines[:1])


def test_an_empty_export_is_an_import_of_nothing(svc: JobService, other: JobService) -> None:
    assert other.import_jobs(svc.export_jobs()) == (0, 0)
    with pytest.raises(InvalidValue, match="cut short"):
        other.import_jobs([])


def test_an_import_into_a_full_queue_says_so_and_can_go_on(svc: JobService, tmp_path: Path) -> None:
    svc.enqueue_many("mail", ["x" * 100_000] * 30)
    lines = through_a_file(svc)
    with jobq.open(tmp_path / "there", durability="unsafe", max_size=2**21) as small:
        with pytest.raises(StoreFull):
            small.import_jobs(lines)
        assert small.check().ok


hostile = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=5,
)


@given(st.data())
def test_no_line_raises_anything_but_what_is_documented(data: st.DataObject) -> None:
    with jobq.open(":memory:") as svc, jobq.open(":memory:") as there:
        lines = through_a_file(filled(svc))
        field = data.draw(st.sampled_from(sorted(lines[1])))
        lines[1][field] = data.draw(hostile)
        try:
            there.import_jobs(lines)
        except InvalidValue as error:
            assert str(error).startswith("line ")  # noqa: PT017 - either way is fine
        assert there.check().ok
        through_a_file(there)


@pytest.mark.parametrize("lines", [None, 5, "jobs.jsonl", b"{}", {"kind": "queue"}])
def test_what_are_no_lines_is_refused(svc: JobService, lines: Any) -> None:
    with pytest.raises(InvalidValue, match="lines is "):
        svc.import_jobs(lines)
