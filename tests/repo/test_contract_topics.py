"""The contract of every store: topics, counts, and finding jobs."""

import random

import pytest

from jobq.clock import ManualClock
from jobq.job import JobRecord
from jobq.repo.base import Store
from jobq.selector import ALL_JOBS, Selector
from jobq.states import Outcome, Status
from tests.repo.conftest import Queue, done, spec

RELATED = [
    "mail",
    "mail-slow",
    "mail\x00x",
    "mail\x00",
    "mai",
    "m",
    "mail ",
    " mail",
    "Mail",
    "mail/x",
]
SCRIPTS = [
    "почта",
    "邮件",
    "البريد",
    "δοκιμή",
    "✉️",
    "🚀" * 63,
    "\x00",
    "\x7f",
    "\n",
    "e\u0301",
    "é",
]
NAMES = [
    *RELATED,
    *SCRIPTS,
    "a" * 255,
    "a" * 254,
    "é" * 127,
    "\x00" * 255,
    ":memory:",
    "*",
    "mail.*",
]


def test_topics_never_see_each_others_jobs(queue: Queue) -> None:
    ids = {name: queue.add(name, weight=at) for at, name in enumerate(NAMES)}
    pick = random.Random(5).sample(NAMES, len(NAMES))

    for name in pick:
        held = queue.take(name, 10)
        assert [(job.id, job.topic) for job in held] == [(ids[name], name)]
        assert queue.take(name, 10) == []
        assert queue.counts(name) == {"reserved": 1}
        assert queue.get(ids[name]).topic == name


def test_topics_that_begin_alike_are_drained_each_alone(queue: Queue) -> None:
    for name in RELATED:
        queue.add_many(3, name)
    queue.store.settle([done(held) for held in queue.take("mail", 100)])

    assert queue.counts("mail") == {"done": 3}
    assert [queue.counts(name) for name in RELATED[1:]] == [{"ready": 3}] * (len(RELATED) - 1)


def test_topics_are_listed_by_name_once_they_had_a_job(queue: Queue) -> None:
    for name in NAMES:
        queue.delete(queue.add(name))
    queue.take("never")
    queue.store.stats("never")

    assert queue.store.topics() == sorted(NAMES)


def test_a_topic_appears_with_a_delayed_or_a_follow_up_job_too(queue: Queue) -> None:
    queue.add("first", delay=1)
    queue.add("second")
    queue.store.settle([done(queue.take_one("second"), follow=(spec("third"),))])

    assert queue.store.topics() == ["first", "second", "third"]


def test_thousands_of_topics(queue: Queue) -> None:
    names = [f"tenant-{number}" for number in range(3000)]
    ids = queue.store.enqueue([spec(name, weight=number % 5) for number, name in enumerate(names)])
    queue.store.enqueue([spec(name) for name in names[::100]])

    assert queue.store.topics() == sorted(names)
    assert queue.counts() == {"ready": 3030}
    for at in (0, 1, 999, 1500, 2999):
        held = queue.take(names[at], 5)
        assert {job.topic for job in held} == {names[at]}
        assert ids[at] in {job.id for job in held}
    assert queue.counts("tenant-2999") == {"reserved": 1}
    assert queue.counts("tenant-0") == {"reserved": 2}
    assert queue.counts("tenant-2998") == {"ready": 1}


# Idle topics.

HOUR_S = 3600.0


def names_of_all(store: Store) -> list[str]:
    """The topics that a store has not forgotten, idle ones too."""
    names: list[str] = store._read(lambda tx: tx.topics.names())  # type: ignore[attr-defined]
    return names


def test_a_topic_without_jobs_leaves_the_listings_after_an_hour(
    queue: Queue, clock: ManualClock
) -> None:
    queue.add("busy")
    job_id = queue.add("mail")
    clock.advance(5)
    queue.delete(job_id)
    clock.advance(HOUR_S - 0.000001)
    assert queue.store.topics() == ["busy", "mail"]
    assert [topic.name for topic in queue.store.stats().topics] == ["busy", "mail"]

    clock.advance(0.000001)
    assert queue.store.topics() == ["busy"]
    assert [topic.name for topic in queue.store.stats().topics] == ["busy"]
    assert queue.store.stats("mail").totals.total == 0


@pytest.mark.parametrize("status", Status)
def test_a_topic_that_has_any_job_stays_listed(
    queue: Queue, clock: ManualClock, status: Status
) -> None:
    queue.job_in(status, lease=1e8, retention=1e8)
    clock.advance(100 * HOUR_S)
    queue.store.prune()

    assert queue.store.topics() == ["mail"]


def test_a_topic_with_settings_stays_listed_until_an_hour_after_they_are_unset(
    queue: Queue, clock: ManualClock
) -> None:
    queue.store.configure("mail", {"keep_done": 5.0})
    clock.advance(9 * HOUR_S)
    queue.store.prune()
    assert queue.store.topics() == ["mail"]

    queue.store.configure("mail", {"keep_done": None})
    clock.advance(HOUR_S - 1)
    assert queue.store.topics() == ["mail"]
    clock.advance(1)
    assert queue.store.topics() == []


@pytest.mark.parametrize("how", ["listed no more", "cleared away"])
def test_an_idle_topic_that_gets_a_job_is_a_topic_like_any_other(
    queue: Queue, clock: ManualClock, how: str
) -> None:
    queue.delete(queue.add())
    queue.add("other", delay=8 * HOUR_S)
    clock.advance(HOUR_S)
    if how == "cleared away":
        queue.store.prune()
        assert names_of_all(queue.store) == ["other"]
    ids = [queue.add(weight=1), queue.add(), queue.add(delay=5)]

    assert queue.store.topics() == ["mail", "other"]
    assert queue.counts("mail") == {"ready": 2, "delayed": 1}
    assert queue.order() == [ids[1], ids[0]]
    queue.store.delete(ids)
    clock.advance(HOUR_S - 1)
    assert queue.store.topics() == ["mail", "other"]


def test_prune_clears_idle_topics_away(queue: Queue, clock: ManualClock) -> None:
    names = [f"reply-{number}" for number in range(100)]
    queue.store.delete(queue.store.enqueue([spec(name) for name in names]))
    queue.add("mail")
    clock.advance(HOUR_S)
    queue.delete(queue.add("young"))

    assert queue.store.prune() == 0
    assert names_of_all(queue.store) == ["mail", "young"]


def test_topics_that_come_and_go_do_not_pile_up(queue: Queue, clock: ManualClock) -> None:
    """A topic for each request, and nobody who prunes."""
    queue.store.configure("kept", {"keep_done": 5.0})
    for number in range(300):
        queue.add(f"long-lived-{number}")
    most = 0
    for number in range(1500):
        queue.delete(queue.add(f"reply-{number}"))
        clock.advance(HOUR_S / 100)
        most = max(most, len(names_of_all(queue.store)))

    assert most < 301 + 100 + 400 / 7 + 100  # what is there, the last hour's, and what is left over
    assert len(queue.store.topics()) <= 301 + 100


def test_a_topic_that_is_cleared_away_by_the_call_that_uses_it_again_is_there(
    queue: Queue, clock: ManualClock
) -> None:
    """The new topic of the batch clears away idle ones, among them another one of the batch."""
    for name in ("a", "b"):
        queue.delete(queue.add(name))
    clock.advance(HOUR_S)
    ids = queue.store.enqueue([spec(name) for name in ("a", "new", "b")])
    moved = queue.add("c")

    assert [queue.take_one(name).id for name in ("a", "new", "b")] == ids
    assert queue.store.topics() == ["a", "b", "c", "new"]
    clock.advance(HOUR_S)
    assert queue.edit(moved, topic="d") is Outcome.OK
    assert queue.get(moved).topic == "d"


def test_a_step_of_the_clock_back_lists_a_topic_that_is_not_forgotten_yet(
    queue: Queue, clock: ManualClock
) -> None:
    queue.delete(queue.add())
    clock.advance(HOUR_S)
    assert queue.store.topics() == []

    clock.step_wall(-60)
    assert queue.store.topics() == ["mail"]


# Counts.


def test_counts_equal_what_is_there_after_any_story(queue: Queue, clock: ManualClock) -> None:
    pick = random.Random(13)
    topics = ["a", "b", "c"]
    for _ in range(150):
        topic = pick.choice(topics)
        queue.store.enqueue(
            [
                spec(topic, delay=pick.choice([0, 0, 3]), lease=pick.choice([2.0, 9.0]))
                for _ in range(pick.randrange(3))
            ]
        )
        clock.advance(pick.choice([0, 1]))
        for held in queue.take(topic, pick.randrange(1, 4)):
            verb = pick.choice([queue.done, queue.retry, queue.release, queue.give_up, None])
            if verb is not None:
                verb(held)
        some = [queue.get(job_id) for job_id in pick.sample(all_ids(queue.store), 1)]
        for record in some:
            pick.choice([queue.cancel, queue.reset, queue.delete])(raw(record))

    records = everything(queue.store)
    for topic in topics:
        there = [record.status for record in records if record.topic == topic]
        assert queue.counts(topic) == {
            status.value: there.count(status) for status in Status if status in there
        }
    assert queue.store.stats().totals.total == len(records)
    assert len(set(queue.counts())) == 5  # the story came to every state


def test_counts_of_a_topic_that_is_not_there_are_zero(queue: Queue) -> None:
    stats = queue.store.stats("nowhere")

    assert (stats.totals.total, [topic.name for topic in stats.topics]) == (0, ["nowhere"])


def test_counts_come_for_one_topic_or_for_all_by_name(queue: Queue) -> None:
    queue.add_many(2, "b")
    queue.add("a", delay=1)

    assert [topic.name for topic in queue.store.stats().topics] == ["a", "b"]
    assert [topic.ready for topic in queue.store.stats("b").topics] == [2]
    assert (queue.store.stats().totals.ready, queue.store.stats().totals.delayed) == (2, 1)
    assert queue.store.stats().totals.unfinished == 3


# Finding.


def raw(record: JobRecord) -> bytes:
    return bytes.fromhex(record.id.replace("-", ""))


def everything(store: Store, limit: int = 7) -> list[JobRecord]:
    """All jobs, page by page."""
    found: list[JobRecord] = []
    while page := store.find(ALL_JOBS, raw(found[-1]) if found else None, limit):
        found += page
    return found


def all_ids(store: Store) -> list[bytes]:
    return [raw(record) for record in store.find(ALL_JOBS, None, 10_000)] or [bytes(16)]


def test_jobs_are_found_in_the_order_of_enqueueing(queue: Queue) -> None:
    ids = [queue.add(weight=-at, delay=at % 2) for at in range(20)]

    assert [raw(record) for record in everything(queue.store)] == ids


def test_ids_come_in_order_and_page_by_page(queue: Queue) -> None:
    ids = [queue.add(delay=at % 2) for at in range(20)]
    queue.delete(ids[3])
    left = ids[:3] + ids[4:]

    assert queue.store.ids(None, 100) == left
    assert queue.store.ids(None, 5) == left[:5]
    assert queue.store.ids(left[4], 3) == left[5:8]
    assert queue.store.ids(ids[3], 1) == [ids[4]]  # beyond one that is not there
    assert queue.store.ids(left[-1], 5) == []


def test_filters_come_before_the_limit(queue: Queue) -> None:
    # What is looked for stands behind more others than are read at a time.
    queue.add_many(1500, "crowd")
    wanted = queue.add_many(3, "few")
    queue.add_many(10, "crowd")
    queue.take("few")

    assert len(queue.store.find(Selector("few"), None, 10)) == 3
    assert [
        raw(job) for job in queue.store.find(Selector("few", frozenset({Status.READY})), None, 1)
    ] == [wanted[1]]
    assert [
        raw(job)
        for job in queue.store.find(Selector(statuses=frozenset({Status.RESERVED})), None, 5)
    ] == [wanted[0]]
    assert queue.store.find(Selector("crowd", frozenset({Status.DONE})), None, 5) == []
    assert queue.store.find(Selector("nowhere"), None, 5) == []


@pytest.mark.parametrize("limit", [1, 2, 3, 100, 511, 512, 513])
def test_paging_shows_every_job_that_matches_exactly_once(queue: Queue, limit: int) -> None:
    ids = queue.store.enqueue([spec("ab"[at % 3 == 0]) for at in range(520 if limit > 3 else 30)])
    found: list[bytes] = []
    while page := queue.store.find(
        Selector("a", frozenset({Status.READY})), found[-1] if found else None, limit
    ):
        assert len(page) <= limit
        found += [raw(record) for record in page]

    assert found == [job_id for at, job_id in enumerate(ids) if at % 3]


def test_paging_goes_on_from_a_job_that_is_gone(queue: Queue) -> None:
    ids = queue.add_many(5)
    queue.delete(ids[2])

    assert [raw(record) for record in queue.store.find(ALL_JOBS, ids[2], 10)] == ids[3:]
    assert queue.store.find(ALL_JOBS, ids[4], 10) == []
    assert queue.store.find(ALL_JOBS, b"\xff" * 16, 10) == []


def test_a_page_shows_jobs_as_they_are_now(queue: Queue) -> None:
    ids = queue.add_many(4)
    queue.done(queue.take_one(), result=b"r")
    queue.cancel(ids[1])
    queue.take_one()
    records = queue.store.find(ALL_JOBS, None, 10)

    assert records == queue.store.get(ids)
    assert [record.status for record in records] == [
        Status.DONE, Status.CANCELED, Status.RESERVED, Status.READY,
    ]  # fmt: skip


# Payloads.


@pytest.mark.parametrize("size", [0, 1, 2000, 4096, 100_000, 1024 * 1024])
def test_a_payload_of_any_size_comes_back_as_it_was(queue: Queue, size: int) -> None:
    payload, result = random.Random(size).randbytes(size), random.Random(-size - 1).randbytes(size)
    job_id = queue.add(payload=payload)
    held = queue.take_one()
    assert held.payload == payload

    queue.retry(held)
    assert queue.take_one().payload == payload
    queue.expire()
    held = queue.take_one()
    assert held.payload == payload
    queue.done(held, result=result)
    record = queue.get(job_id)
    assert (record.payload_bytes, record.result_bytes) == (payload, result)


def test_an_empty_result_is_a_result(queue: Queue) -> None:
    job_id = queue.add()
    queue.done(queue.take_one(), result=b"")

    assert queue.get(job_id).result_bytes == b""
