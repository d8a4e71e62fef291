"""Bad input: each piece is an error of jobq's own that names it, and nothing is written."""

import copy
import math
import pickle
import re
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta, tzinfo
from enum import Enum, StrEnum
from fractions import Fraction
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest

import jobq
from jobq import Job, JobService, NewJob
from jobq.clock import ManualClock
from jobq.errors import InvalidValue, JobqError
from jobq.repo.base import Store
from jobq.repo.lmdb import LmdbStore
from jobq.repo.memory import MemoryStore
from jobq.selector import ALL_JOBS
from jobq.topic import SettingArgs
from tests.torture.input.mischief import Vague

NAN = float("nan")
HUGE = 10**5000  # past what Python writes out in decimal

NO_TEXT: list[Any] = [None, 5, b"mail", ["mail"], object(), True, type]
NO_TOPIC: list[Any] = [*NO_TEXT, "", "a" * 256, "é" * 128, "\ud800", "mail\udcff", HUGE]
NO_WEIGHT: list[Any] = [None, True, 1.0, NAN, "1", b"1", -32_769, 32_768, 2**64, HUGE, [1]]
NO_SECONDS: list[Any] = [
    *(True, "5", b"5", [5], 1j, object(), Fraction(1, 2)),
    *(-1, -0.001, NAN, math.inf, -math.inf, 1e300, 2**63, 10**12, HUGE),
]
NO_DELAY: list[Any] = [*NO_SECONDS, timedelta(microseconds=-1), timedelta.max, timedelta.min]
NO_ID: list[Any] = [
    *(None, 5, b"x" * 16, HUGE, object()),
    *("", "x", "0" * 32, "018bcfe5-6800-7000-8000-00000000000", "mail", "\ud800"),
    *(" 018bcfe5-6800-7000-8000-000000000001", "{018bcfe5-6800-7000-8000-000000000001}"),
]
NO_COUNT: list[Any] = [None, True, 0, -1, 10_001, 1.0, "1", NAN, HUGE]


def kind(value: object) -> str:
    """How a test with *value* is called: what it shows as may be long, or fail."""
    return type(value).__name__


@pytest.fixture
def svc() -> Iterator[JobService]:
    """A service in memory: what is refused here does not come as far as a store."""
    with JobService(MemoryStore(clock=ManualClock())) as svc:
        yield svc
        assert svc.check().problems == ()


class Subclassed(dict[str, int]):
    pass


def nested(levels: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(levels):
        value = [value]
    return value


def cyclic() -> list[Any]:
    value: list[Any] = []
    value.append(value)
    return value


NO_PAYLOAD: list[Any] = [
    object(),
    bytearray(b"x"),
    memoryview(b"x"),
    2**64,
    -(2**63) - 1,
    HUGE,
    "\ud800",
    1j,
    frozenset({1}),
    Subclassed(a=1),
    {"deep": [{"here": object()}]},
    {object(): 1},
    nested(2000),
    cyclic(),
    ValueError("x"),
    print,
    iter([1]),
]


def table(name: str, values: list[Any]) -> list[Any]:
    """A row for each value, named by its kind."""
    return [
        pytest.param(name, value, id=f"{name}-{at}-{kind(value)}")
        for at, value in enumerate(values)
    ]


ENQUEUE = [
    *table("topic", NO_TOPIC),
    *table("weight", NO_WEIGHT),
    *table("delay", NO_DELAY),
    *table("payload", NO_PAYLOAD),
    *table("lease", [0, *NO_SECONDS]),
    *table("max_retries", [-1, 1.5, True, 2**31, HUGE]),
    *table("max_crashes", [-1, "1"]),
    *table("min_backoff", [-1, NAN]),
    *table("max_backoff", [math.inf]),
    *table("factor", [0.5, NAN, HUGE]),
    *table("jitter", [1.5, -0.5]),
    *table("retention", [-1, NAN]),
    *table("name", ["", "a" * 256, "\ud800", 5]),
    *table("tags", ["abc", 5, [5], [""], ["a"] * 33]),
    *table("leese", [5]),
    *table("deadline", [5, "2030-01-01", datetime(2030, 1, 1), datetime(1960, 1, 1, tzinfo=UTC)]),
    *table("ttl", [0, *NO_SECONDS]),
    *table("group", ["", "a" * 256, 5]),
    *table("unique", ["", "a" * 256, b"k"]),
    *table("unique_for", ["", "ever", 0, -1, NAN, HUGE, [], timedelta(0)]),
    *table("on_conflict", ["", "ignore", 5, []]),
]


def said(caught: pytest.ExceptionInfo[JobqError]) -> str:
    """The message, as far as anybody would read it."""
    text = str(caught.value)
    assert len(text) < 1000
    return text


def refused(store: Store, name: str, call: Callable[[], object]) -> None:
    """*call* raises an error of jobq that names the argument, and writes nothing."""
    before = store.stats(), store.topics(), store.find(ALL_JOBS, None, 100)
    with pytest.raises(InvalidValue) as caught:
        call()
    assert (store.stats(), store.topics(), store.find(ALL_JOBS, None, 100)) == before
    assert isinstance(caught.value, ValueError)
    assert name in said(caught)
    assert "expected" in said(caught)


def arguments(name: str, value: Any) -> dict[str, Any]:
    return {"topic": "mail", "payload": 1, name: value}


NAMES = {"payload": "store", "tags": "tag"}  # how the message names the argument


@pytest.mark.parametrize(("name", "value"), ENQUEUE)
def test_enqueue_refuses_it(svc: JobService, name: str, value: Any) -> None:
    refused(svc.store, NAMES.get(name, name), lambda: svc.enqueue(**arguments(name, value)))


@pytest.mark.parametrize(("name", "value"), ENQUEUE)
def test_enqueue_many_a_batch_and_a_follow_up_job_refuse_it_too(
    svc: JobService, name: str, value: Any
) -> None:
    args = arguments(name, value)
    svc.enqueue("parent")
    (parent,) = svc.reserve("parent")

    def many() -> None:
        payloads = [1, args["payload"]]
        rest = {key: item for key, item in args.items() if key != "payload"}
        svc.enqueue_many(payloads=payloads, **rest)

    def batch() -> None:
        with svc.batch() as batch:
            batch.enqueue("fine")
            batch.enqueue(**args)

    for call in (many, batch, lambda: parent.done(then=[NewJob("fine"), NewJob(**args)])):
        refused(svc.store, NAMES.get(name, name), call)
    parent.done()


@pytest.mark.parametrize("payloads", ["text", b"bytes", {"a": 1}, 5, None, object(), 1.5], ids=kind)
def test_enqueue_many_wants_several_payloads(svc: JobService, payloads: Any) -> None:
    refused(svc.store, "payloads", lambda: svc.enqueue_many("mail", payloads))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda svc: svc.enqueue(7), "topic is 7: expected"),
        (lambda svc: svc.enqueue(""), "topic is '' (0 bytes of UTF-8): expected 1 to 255"),
        (lambda svc: svc.enqueue("a", weight=99_999), "weight is 99999: expected -32768 to 32767"),
        (lambda svc: svc.enqueue("a", weight=True), "weight is True: expected an integer"),
        (lambda svc: svc.enqueue("a", delay=-2), "delay is -2: expected at least 0 seconds"),
        (lambda svc: svc.enqueue("a", delay="2"), "delay is '2': expected a number of seconds"),
        (lambda svc: svc.enqueue("a", {"b": [1j]}), "complex at $.b[0]: expected bool, int, float"),
        (lambda svc: svc.enqueue("a", lease=0), "lease is 0: expected more than 0 seconds"),
        (lambda svc: svc.reserve("a", 0), "n is 0: expected 1 to 10000"),
        (lambda svc: svc.find(status="x"), "status is 'x': expected one of ready, delayed"),
        (lambda svc: svc.get("x"), "'x' is no job id: expected a UUID"),
    ],
)
def test_an_error_names_the_value_and_what_was_expected(
    svc: JobService, call: Callable[[JobService], object], message: str
) -> None:
    with pytest.raises(InvalidValue, match=re.escape(message)):
        call(svc)


NO_TOPICS: list[Any] = [[], {}, {"mail"}, [5], ["mail", "mail"], {"mail": 0}, {"mail": None}]

RESERVE = [
    *table("topics", [*NO_TOPICS, *(one for one in NO_TOPIC if one != ["mail"])]),
    *table("n", NO_COUNT),
    *table("timeout", NO_SECONDS),
]


@pytest.mark.parametrize(("name", "value"), RESERVE)
def test_reserve_and_consume_refuse_it_at_the_call(svc: JobService, name: str, value: Any) -> None:
    svc.enqueue("mail")
    args: dict[str, Any] = {"topics": "mail", "timeout": 0, name: value}
    said = name.removesuffix("s")  # of several topics it says which one is wrong

    refused(svc.store, said, lambda: svc.reserve(**args))
    refused(svc.store, said, lambda: svc.consume(**args))


def test_consume_refuses_what_it_cannot_call_at_the_call(svc: JobService) -> None:
    refused(svc.store, "on_lost", lambda: svc.consume("mail", timeout=0, on_lost=5))  # type: ignore[arg-type]


def calls(name: str, verb: str, call: Callable[[Job, Any], object], values: list[Any]) -> list[Any]:
    """A row for each value: what the error names, and the call."""
    return [
        pytest.param(name, call, value, id=f"{verb}-{name}-{at}-{kind(value)}")
        for at, value in enumerate(values)
    ]


SETTLE = [
    *calls("delay", "retry", Job.retry, NO_DELAY),
    *calls("delay", "release", Job.release, NO_DELAY),
    *calls("seconds", "extend", Job.extend, [0, None, *NO_SECONDS]),
    *calls("reason", "cancel", Job.cancel, [*NO_TEXT, "", "poison", "exhausted", "Rejected", HUGE]),
    *calls(
        "error", "retry", lambda job, value: job.retry(0, value), [5, b"x", ValueError, [], HUGE]
    ),
    *calls("error", "cancel", lambda job, value: job.cancel(error=value), [5, b"x", HUGE]),
    *calls(
        "then", "done", lambda job, value: job.done(then=value), [5, None, NewJob("x"), ["x"], "x"]
    ),
    *calls("store", "done", Job.done, NO_PAYLOAD),
]


@pytest.mark.parametrize(("name", "call", "value"), SETTLE)
def test_a_settlement_with_it_leaves_the_job_held(
    svc: JobService, name: str, call: Callable[[Job, Any], object], value: Any
) -> None:
    svc.enqueue("mail", max_retries=0)  # so that a delay is judged even where it is not needed
    (job,) = svc.reserve("mail")

    refused(svc.store, name, lambda: call(job, value))
    assert not job.settled
    job.done()


@pytest.mark.parametrize("copied", [pickle.dumps, copy.copy, copy.deepcopy])
def test_what_belongs_to_one_process_says_what_to_send_another_instead(
    svc: JobService, copied: Callable[[object], object]
) -> None:
    svc.enqueue("mail")
    (job,) = svc.reserve("mail")
    with pytest.raises(TypeError, match=r"a JobService cannot .* jobq\.open\(path\)"):
        copied(svc)
    with pytest.raises(TypeError, match=r"a Job cannot .* its id and its payload"):
        copied(job)

    assert pickle.loads(pickle.dumps(svc.get(job.id))).id == job.id
    job.done()


@pytest.mark.parametrize("jobs", [5, None, [5], ["x"], [None], object()], ids=kind)
def test_settling_many_wants_jobs(svc: JobService, jobs: Any) -> None:
    for verb in (svc.done_many, svc.retry_many, svc.release_many):
        refused(svc.store, "jobs", lambda verb=verb: verb(jobs))  # type: ignore[misc]


def test_settling_many_wants_several_jobs(svc: JobService) -> None:
    svc.enqueue("mail")
    (job,) = svc.reserve("mail")
    for verb in (svc.done_many, svc.retry_many, svc.release_many):
        refused(svc.store, "jobs", lambda verb=verb: verb(job))  # type: ignore[misc]
    refused(svc.store, "results", lambda: svc.done_many([job], results=5))  # type: ignore[arg-type]


@pytest.mark.parametrize("job_id", NO_ID, ids=kind)
@pytest.mark.parametrize("verb", ["status", "get", "cancel", "reset", "delete"])
def test_what_is_no_id_is_refused_as_such(svc: JobService, verb: str, job_id: Any) -> None:
    refused(svc.store, "id", lambda: getattr(svc, verb)(job_id))


@pytest.mark.parametrize("job_id", NO_ID, ids=kind)
@pytest.mark.parametrize("verb", ["cancel", "reset", "delete"])
def test_one_that_is_no_id_refuses_all_of_several(svc: JobService, verb: str, job_id: Any) -> None:
    fine = svc.enqueue("mail")
    if verb == "reset":
        svc.cancel(fine)

    refused(svc.store, "id", lambda: getattr(svc, verb)([fine, job_id]))


RESET = [row for row in ENQUEUE if row.values[0] in {"deadline", "ttl"}]


@pytest.mark.parametrize(("name", "value"), RESET)
def test_a_wrong_deadline_of_a_reset_is_refused(svc: JobService, name: str, value: Any) -> None:
    job_id = svc.enqueue("mail")
    svc.cancel(job_id)

    refused(svc.store, name, lambda: svc.reset(job_id, **{name: value}))
    refused(svc.store, name, lambda: svc.reset([], **{name: value}))
    refused(svc.store, name, lambda: svc.select(dead=True).reset(**{name: value}))


FIND = [
    *table("status", ["Ready", "", 5, b"ready", [], "poison", HUGE]),
    *table("topic", NO_TOPIC[1:]),
    *table("after", NO_ID[1:]),
    *table("limit", NO_COUNT),
    *(row for name in ("name", "group", "unique") for row in table(name, NO_TOPIC[1:])),
    *table("tag", [5, b"a", "", [""], [5], [], {"a": 1}, "a" * 256, HUGE]),
    *table("reason", ["Poison", "", 5, [], ["poison", 5], HUGE]),
    *table("dead", [1, "yes", [], HUGE]),
    *table("error", [5, b"x", "", "\ud800", "x" * 4097, ["x"]]),
    *table("older_than", NO_DELAY),
    *table("everything", [True]),
    *table("color", ["red", None]),
]


@pytest.mark.parametrize(("name", "value"), FIND)
def test_find_refuses_it(svc: JobService, name: str, value: Any) -> None:
    svc.enqueue("mail")

    named = "id" if name == "after" else name
    refused(svc.store, named, lambda: svc.find(**{name: value}))
    if name not in {"after", "limit", "everything"}:
        refused(svc.store, named, lambda: svc.select(**{name: value}))


@pytest.mark.parametrize("topic", NO_TOPIC[1:], ids=kind)
def test_stats_refuse_what_is_no_topic(svc: JobService, topic: Any) -> None:
    refused(svc.store, "topic", lambda: svc.stats(topic))


EDIT = [
    *table("topic", NO_TOPIC[1:]),
    *table("weight", NO_WEIGHT[1:]),
    *table("delay", NO_DELAY),
    *table("payload", NO_PAYLOAD),
    *(row for row in ENQUEUE if row.values[0] not in {"topic", "weight", "delay", "payload"}),
]


@pytest.mark.parametrize(("name", "value"), EDIT)
def test_edit_refuses_it(svc: JobService, name: str, value: Any) -> None:
    job_id = svc.enqueue("mail", 1)
    named = NAMES.get(name, name)

    refused(svc.store, named, lambda: svc.edit(job_id, **{name: value}))
    refused(svc.store, named, lambda: svc.edit([job_id], **{"weight": 1, name: value}))
    refused(svc.store, named, lambda: svc.edit([], **{"weight": 1, name: value}))


def test_edit_wants_something_to_change(svc: JobService) -> None:
    job_id = svc.enqueue("mail")

    refused(svc.store, "nothing to change", lambda: svc.edit(job_id))
    refused(svc.store, "nothing to change", lambda: svc.edit([job_id]))
    refused(svc.store, "nothing to change", lambda: svc.edit(job_id, topic=None, delay=None))


@pytest.mark.parametrize("job_id", NO_ID, ids=kind)
def test_edit_refuses_what_is_no_id(svc: JobService, job_id: Any) -> None:
    fine = svc.enqueue("mail")

    refused(svc.store, "id", lambda: svc.edit(job_id, weight=1))
    refused(svc.store, "id", lambda: svc.edit([fine, job_id], weight=1))


PURGE = [
    *table("topic", NO_TOPIC),
    *table("status", ["Ready", "", 5, b"ready", [], "reserved", HUGE, ["ready"]]),
]


@pytest.mark.parametrize(("name", "value"), PURGE)
def test_purge_refuses_it(svc: JobService, name: str, value: Any) -> None:
    svc.enqueue("mail")

    refused(svc.store, name, lambda: svc.purge(**{"topic": "mail", name: value}))


CONFIGURE = [
    *table("keep_done", NO_SECONDS),
    *table("keep_canceled", NO_SECONDS),
    *table("max_done", [-1, True, 1.0, "5", 2**40 + 1, HUGE, [1]]),
    *table("keep", [5]),
    *table("paused", [1, "yes"]),
    *table("draining", [0]),
    *table("concurrency", [0, -1, 1.0, True, HUGE]),
    *table("rate", [5, (0, 1), (1, 0), (1, NAN), (1,), (1, 2, 3), "5/s", (10**9, 1), {1: 2}]),
    *table("burst", [0, 1.5]),
    *table("group_concurrency", [0]),
    *table("group_rate", [(1, -1)]),
    *table("group_burst", [0]),
    *table("group_retries", ["wait", 1, []]),
    *table("max_jobs", [-1, 1.0]),
    *table("max_bytes", [-1, HUGE]),
    *table("when_full", ["drop", []]),
    *table("max_lease", [0, *NO_SECONDS]),
    *table("max_retries", [-1, True]),
    *table("min_backoff", NO_SECONDS),
    *table("max_backoff", NO_SECONDS),
    *table("factor", [0.9, 1001, NAN, "2", True, HUGE]),
    *table("jitter", [-0.1, 1.1, NAN, "0"]),
    *table("ttl", [0, *NO_SECONDS]),
    *table("ageing", [0, *NO_SECONDS]),
    *table("lease", [5]),
]


@pytest.mark.parametrize(("name", "value"), CONFIGURE)
def test_configure_refuses_it(svc: JobService, name: str, value: Any) -> None:
    settings = svc.configure("mail", keep_done=7)

    refused(svc.store, name, lambda: svc.configure("mail", **{name: value}))
    refused(svc.store, name, lambda: svc.configure("new", **{name: value}))
    assert svc.settings("mail") == settings


@pytest.mark.parametrize("topic", [topic for topic in NO_TOPIC if topic is not None], ids=kind)
def test_settings_and_limits_are_refused_for_what_is_no_topic(svc: JobService, topic: Any) -> None:
    for call in (
        lambda: svc.configure(topic, keep_done=5),
        lambda: svc.settings(topic),
        lambda: svc.pause(topic),
        lambda: svc.resume(topic),
        lambda: svc.drain(topic),
        lambda: svc.limits(topic),
        lambda: svc.release_limits(topic),
        lambda: svc.groups(topic),
        lambda: svc.release_groups(topic, "g"),
    ):
        refused(svc.store, "topic", call)


@pytest.mark.parametrize("name", sorted(SettingArgs.__annotations__))
def test_the_store_as_a_whole_has_four_settings(svc: JobService, name: str) -> None:
    known = {"paused": True, "draining": True, "max_jobs": 5, "max_bytes": 5}
    if name in known:
        assert svc.configure(None, **{name: known[name]}).as_dict() == {name: known[name]}  # type: ignore[arg-type]
    else:
        refused(svc.store, name, lambda: svc.configure(None, **{name: None}))
    assert svc.topics() == []


@pytest.mark.parametrize("timeout", [-1, NAN, math.inf, "1", [1], True], ids=kind)
def test_a_time_to_wait_for_room_is_checked_before_anything_is_written(
    svc: JobService, timeout: Any
) -> None:
    for call in (
        lambda: svc.enqueue("mail", timeout=timeout),
        lambda: svc.enqueue_many("mail", [1], timeout=timeout),
        lambda: svc.batch(timeout=timeout),
        lambda: svc.drain("mail", timeout=timeout),
    ):
        refused(svc.store, "timeout", call)


@pytest.mark.parametrize("name", ["", "a" * 256, "\ud800", 5, b"k", None], ids=kind)
def test_what_is_released_has_a_name(svc: JobService, name: Any) -> None:
    refused(svc.store, "key", lambda: svc.release_keys([name]))
    refused(svc.store, "group", lambda: svc.release_groups("mail", [name]))
    if name is not None:
        refused(svc.store, "unique", lambda: svc.get(unique=name))
        refused(svc.store, "after", lambda: svc.keys(after=name))
        refused(svc.store, "after", lambda: svc.groups("mail", after=name))


@pytest.mark.parametrize("limit", [0, -1, 10_001, 1.5, True, "5", None], ids=kind)
def test_what_is_listed_has_a_bound(svc: JobService, limit: Any) -> None:
    refused(svc.store, "limit", lambda: svc.keys(limit=limit))
    refused(svc.store, "limit", lambda: svc.groups("mail", limit=limit))


def test_a_job_is_got_by_its_id_or_its_key_but_not_by_both_or_neither(svc: JobService) -> None:
    job_id = svc.enqueue("mail", unique="k")
    get: Any = svc.get

    refused(svc.store, "job_id is None and unique is None: expected one of the two", get)
    both = f"job_id is '{job_id}' and unique is 'k': expected one of the two"
    refused(svc.store, both, lambda: get(job_id, unique="k"))


@pytest.mark.parametrize("rate", [5, "5/s", (5,), (5, 60, 1), {5, 60}, {5: 60, 6: 60}], ids=kind)
def test_a_rate_is_two_values(svc: JobService, rate: Any) -> None:
    refused(svc.store, "expected two values", lambda: svc.configure("mail", rate=rate))


class Agreeing(int):
    """Says that it is in every range."""

    __lt__ = __le__ = __gt__ = __ge__ = __eq__ = lambda *_: True
    __hash__ = int.__hash__


def nested_tuple(levels: int) -> tuple[Any, ...]:
    value: tuple[Any, ...] = ()
    for _ in range(levels):
        value = (value,)
    return value


def test_what_a_number_holds_counts_and_not_what_it_says(svc: JobService) -> None:
    huge, job_id = Agreeing(10**30), svc.enqueue("mail")
    (job,) = svc.reserve("mail")

    for name, call in (
        ("weight", lambda: svc.enqueue("mail", weight=huge)),
        ("max_retries", lambda: svc.enqueue("mail", max_retries=huge)),
        ("limit", lambda: svc.find(limit=huge)),
        ("rate", lambda: svc.select(topic="mail").cancel(rate=huge)),
        ("done", lambda: job.progress(huge)),
        ("burst", lambda: svc.configure("mail", burst=huge)),
    ):
        refused(svc.store, name, call)
    assert svc.status(job_id) == "reserved"


@pytest.mark.parametrize("value", [Vague(), Mock(spec=str), Mock(spec=list)], ids=["a", "b", "c"])
def test_what_passes_for_another_type_is_refused(svc: JobService, value: Any) -> None:
    job_id = svc.enqueue("mail")
    for name, call in (
        ("topic", lambda: svc.enqueue(value)),
        ("unique_for", lambda: svc.enqueue("mail", unique="k", unique_for=value)),
        ("tags", lambda: svc.enqueue("mail", tags=value)),
        ("status", lambda: svc.find(status=value)),
        ("id", lambda: svc.get(value)),
        ("id", lambda: svc.cancel(value)),
        ("rate", lambda: svc.configure("mail", rate=value)),
        ("pipeline", lambda: svc.consume("mail", pipeline=value)),
        ("durability", lambda: jobq.open("nowhere", durability=value)),
    ):
        refused(svc.store, name, call)
    assert svc.status(job_id) == "ready"


def test_a_status_is_not_asked_for_its_hash(svc: JobService) -> None:
    """That of a tuple nested so deep overruns the stack, and the process dies."""
    for call in (
        lambda: svc.find(status=nested_tuple(100_000)),
        lambda: svc.purge("mail", status=nested_tuple(100_000)),  # type: ignore[arg-type]
    ):
        refused(svc.store, "status", call)


class BrokenZone(tzinfo):
    def utcoffset(self, _: datetime | None) -> timedelta:
        raise KeyError("no such zone")

    dst = tzname = utcoffset  # type: ignore[assignment]


def test_a_deadline_whose_zone_fails_is_refused(svc: JobService) -> None:
    late = datetime(2030, 1, 1, tzinfo=BrokenZone())

    refused(svc.store, "deadline", lambda: svc.enqueue("mail", deadline=late))


@pytest.mark.parametrize(
    "path", ["x" * 5000, "\ud800", 5, b"x", "", "a\0b", Mock(spec=str)], ids=kind
)
def test_what_is_no_path_is_refused(svc: JobService, path: Any) -> None:
    for call in (
        lambda: jobq.open(path),
        lambda: jobq.doctor(path),
        lambda: jobq.compact(path),
        lambda: jobq.restore(path, "x"),
        lambda: LmdbStore(path),
        lambda: svc.backup(path),
    ):
        refused(svc.store, "expected", call)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("clock", 5),
        ("retention", 5),
        ("max_size", "1"),
        ("map_size", math.inf),
        ("lock_timeout", -1),
        ("create", 1),
        ("fuse", "yes"),
    ],
)
def test_a_store_is_made_with_checked_values(
    svc: JobService, tmp_path: Path, name: str, value: Any
) -> None:
    refused(svc.store, name, lambda: LmdbStore(tmp_path / "queue", **{name: value}))
    if name in {"clock", "retention"}:
        refused(svc.store, name, lambda: MemoryStore(**{name: value}))
    assert not (tmp_path / "queue").exists()


def test_configure_wants_a_setting(svc: JobService) -> None:
    refused(svc.store, "setting", lambda: svc.configure("mail"))


# What is not bad.


class Topic(StrEnum):
    MAIL = "mail"


class OldTopic(str, Enum):  # noqa: UP042 - many programs still have them, and str() shows another text
    MAIL = "mail"


class Text(str):
    __slots__ = ()

    def __str__(self) -> str:
        return "something else"


@pytest.mark.parametrize("name", [Topic.MAIL, OldTopic.MAIL, Text("mail")], ids=repr)
def test_a_topic_of_a_child_of_str_is_the_text_that_it_equals(svc: JobService, name: str) -> None:
    assert name == "mail"
    job_id = svc.enqueue(name, name=name, tags=[name])
    record = svc.get(job_id)

    assert svc.topics() == ["mail"]
    assert type(record.topic) is str
    assert (record.options.name, record.options.tags) == ("mail", ("mail",))
    assert [job.id for job in svc.reserve("mail", timeout=0)] == [job_id]
    assert svc.stats(name).totals.reserved == 1


@pytest.mark.parametrize("weight", [-32_768, 32_767, 0])
def test_the_ends_of_int16_are_weights(svc: JobService, weight: int) -> None:
    assert svc.get(svc.enqueue("mail", weight=weight)).weight == weight
