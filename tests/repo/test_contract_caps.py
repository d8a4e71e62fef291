"""The contract of every store: how many jobs may wait, and what goes when there are more."""

from typing import Any

import pytest

from jobq.clock import ManualClock
from jobq.errors import QueueFull
from jobq.repo.base import Store
from jobq.repo.operations.flow import caps
from jobq.repo.transactional import DRAINS
from jobq.states import Outcome, Reason, Status
from tests.conftest import Opener
from tests.repo.conftest import Queue, done, release, retry, spec
from tests.repo.test_contract_transfer import move

POLICIES = ["drop-oldest", "drop-lowest"]


def cap(queue: Queue, topic: str = "mail", **settings: Any) -> None:
    """Configure a topic."""
    queue.store.configure(topic, settings)


def size(store: Store, topic: str | None = "mail") -> int:
    """The bytes that wait in a topic, or in the store, as it counts them."""

    def read(tx: Any) -> int:
        number = 0 if topic is None else tx.topics.known(topic)
        return 0 if number is None else tx.topics.size(number)

    return store._read(read)  # type: ignore[attr-defined, no-any-return]


def cap_store(store: Store, **settings: Any) -> None:
    """Configure the store as a whole."""

    def write(tx: Any) -> None:
        tx.topics.configure_store(tx.topics.store_settings().changed(settings))

    store._write(write, DRAINS)  # type: ignore[attr-defined]


def waiting(queue: Queue, topic: str = "mail") -> list[bytes]:
    """The jobs of the topic that wait, by id."""
    found = queue.get_many(Status.READY) + queue.get_many(Status.DELAYED)
    return sorted(job_id for job_id in found if queue.get(job_id).topic == topic)


def dropped(queue: Queue) -> list[bytes]:
    """The jobs that were dropped, by id."""
    found = queue.get_many(Status.CANCELED)
    return sorted(job_id for job_id in found if queue.get(job_id).reason is Reason.DROPPED)


# Refused.


def test_as_many_jobs_wait_as_may_and_not_one_more(queue: Queue) -> None:
    cap(queue, max_jobs=3)
    queue.add_many(2)
    queue.add(delay=9.0)
    with pytest.raises(QueueFull, match="max_jobs, 3"):
        queue.add()
    queue.add("other")
    queue.take_one()  # one that is held does not wait
    queue.add(delay=1.0)
    with pytest.raises(QueueFull):
        queue.add(delay=1.0)

    assert queue.counts("mail") == {"ready": 1, "delayed": 2, "reserved": 1}


def test_as_many_bytes_wait_as_may_and_not_one_more(queue: Queue) -> None:
    cap(queue, max_bytes=10)
    queue.add(payload=b"12345")
    with pytest.raises(QueueFull, match="max_bytes, 10"):
        queue.add(payload=b"123456")
    queue.add(payload=b"12345", delay=9.0)
    with pytest.raises(QueueFull):
        queue.add(payload=b"1")
    queue.add(payload=b"")

    assert size(queue.store) == 10


@pytest.mark.parametrize("settings", [{"max_jobs": 5}, {"max_bytes": 5}])
def test_a_batch_comes_as_a_whole_or_not_at_all(queue: Queue, settings: dict[str, Any]) -> None:
    cap(queue, **settings)
    queue.store.enqueue([spec(payload=b"x")] * 3)
    with pytest.raises(QueueFull):
        queue.store.enqueue([spec("other"), *[spec(payload=b"x")] * 3, spec("new")])
    assert queue.counts() == {"ready": 3}
    assert queue.store.topics() == ["mail"]

    queue.store.enqueue([spec("other"), *[spec(payload=b"x")] * 2])
    assert queue.counts() == {"ready": 6}


def test_nothing_may_wait_where_the_cap_is_0(queue: Queue) -> None:
    cap(queue, max_jobs=0)
    with pytest.raises(QueueFull):
        queue.add()
    cap(queue, max_jobs=None)
    queue.add()


def test_a_draining_topic_takes_no_new_jobs_and_serves_the_others(queue: Queue) -> None:
    ids = [queue.add(unique="k"), queue.add()]
    for policy in (None, "drop-oldest"):
        cap(queue, draining=True, when_full=policy)
        with pytest.raises(QueueFull, match="draining"):
            queue.store.enqueue([spec("other"), spec()])
    queue.add("other")
    assert queue.add(unique="k", on_conflict="replace", payload=b"new") == ids[0]
    assert [job.id for job in queue.take(n=5)] == ids

    cap(queue, draining=None)
    queue.add()


# The store as a whole.


def test_the_store_has_caps_over_all_topics(queue: Queue) -> None:
    cap_store(queue.store, max_jobs=3, max_bytes=10)
    queue.add("a", payload=b"1234")
    queue.add("b", delay=5.0)
    with pytest.raises(QueueFull, match="the store"):
        queue.store.enqueue([spec("a"), spec("c")])
    with pytest.raises(QueueFull, match="max_bytes, 10"):
        queue.add("c", payload=b"1234567")
    queue.add("c", payload=b"123456")
    with pytest.raises(QueueFull, match="max_jobs, 3"):
        queue.add("c")

    assert size(queue.store, None) == 10
    held = queue.take_one("a")
    queue.add("c")
    assert queue.retry(held) is Outcome.OK


def test_a_draining_store_takes_no_new_jobs(queue: Queue) -> None:
    there = queue.add(unique="k")
    cap_store(queue.store, draining=True)
    with pytest.raises(QueueFull, match="draining"):
        queue.add("never seen")
    assert queue.add(unique="k") == there
    queue.done(queue.take_one())
    cap_store(queue.store, draining=None)
    queue.add()


# What comes back.


def test_what_comes_back_is_never_refused(queue: Queue, opener: Opener, clock: ManualClock) -> None:
    ids = queue.store.enqueue([spec(payload=b"x", lease=50.0)] * 6)
    held = queue.take(n=6)
    queue.cancel(held[0].id)
    queue.done(held[1])
    delayed = queue.add(delay=10.0)
    cap(queue, max_jobs=1, max_bytes=1, draining=True)
    assert (
        queue.store.settle([retry(held[2]), release(held[3]), retry(held[4], 5.0)]).outcomes
        == [Outcome.OK] * 3
    )
    assert queue.store.reset(ids[:2]) == [Outcome.OK] * 2
    queue.expire(50.0)

    assert queue.counts("mail") == {"ready": 7}
    assert size(queue.store) == 6
    assert delayed in waiting(queue)
    there = Queue(opener("there"), clock)
    cap(there, max_jobs=1, draining=True)
    assert move(queue.store, there.store) == [Outcome.OK] * 7


def test_an_edit_is_never_refused_and_what_is_moved_counts(queue: Queue) -> None:
    cap(queue, max_jobs=1, max_bytes=2)
    cap(queue, "other", max_jobs=1)
    job_id, other = queue.add(payload=b"xx"), queue.add("other", payload=b"y")
    assert queue.edit(job_id, payload=b"xxxx") is Outcome.OK
    assert queue.edit(other, topic="mail") is Outcome.OK

    assert (size(queue.store), size(queue.store, "other")) == (5, 0)
    queue.add("other")
    with pytest.raises(QueueFull):
        queue.add()


# Follow-up jobs.


@pytest.mark.parametrize("settings", [{"max_jobs": 1}, {"max_bytes": 3}, {"draining": True}])
def test_follow_up_jobs_are_refused_before_anything_is_settled(
    queue: Queue, settings: dict[str, Any]
) -> None:
    queue.store.enqueue([spec()] * 3)
    first, second, third = queue.take(n=3)
    cap(queue, "next", **settings)
    follow = (spec("next", payload=b"12"), spec("next", payload=b"12"))
    before = queue.get(first.id)
    with pytest.raises(QueueFull):
        queue.store.settle([done(first, result=b"\x01"), retry(second), done(third, follow=follow)])

    assert queue.get(first.id) == before
    assert queue.counts() == {"reserved": 3}
    assert queue.done(third) is Outcome.OK


def test_a_follow_up_job_makes_others_go_as_any_does(queue: Queue) -> None:
    queue.add()
    cap(queue, "next", max_jobs=1, when_full="drop-oldest")
    old = queue.add("next")
    settled = queue.store.settle([done(queue.take_one(), follow=(spec("next"),))])

    assert waiting(queue, "next") == settled.follow_ids[0]
    assert dropped(queue) == [old]


# Others go.


def test_the_oldest_ready_jobs_go_whatever_they_weigh(queue: Queue) -> None:
    cap(queue, max_jobs=3, when_full="drop-oldest")
    ids = [queue.add(weight=weight) for weight in (0, -5, 7)]
    for gone, weight in enumerate((3, -9, 0), start=1):
        ids.append(queue.add(weight=weight))
        assert dropped(queue) == ids[:gone]
        assert waiting(queue) == ids[gone:]


def test_the_jobs_that_would_be_served_last_go_the_new_one_too(queue: Queue) -> None:
    cap(queue, max_jobs=3, when_full="drop-lowest")
    low, middle, high = (queue.add(weight=weight) for weight in (5, 3, 1))
    lowest = queue.add(weight=5)  # behind the other of its weight
    assert dropped(queue) == [lowest]
    assert waiting(queue) == [low, middle, high]

    higher = queue.add(weight=0)
    assert dropped(queue) == sorted([lowest, low])
    assert queue.order() == [higher, high, middle]


def test_what_is_dropped_is_canceled_and_kept_as_other_canceled_jobs(
    queue: Queue, clock: ManualClock
) -> None:
    cap(queue, max_jobs=1, when_full="drop-oldest", keep_canceled=5.0)
    first = queue.add(payload=b"p", name="n", unique="k", deadline=None, ttl=99.0)
    held = queue.take_one()
    queue.retry(held, error="it broke")
    own = queue.add(retention=1.0)
    record = queue.get(first)

    assert (record.status, record.reason) == (Status.CANCELED, Reason.DROPPED)
    assert (record.payload_bytes, record.error) == (b"p", "it broke")
    assert (len(record.history), record.ended_us) == (1, clock.wall_us())
    assert queue.settle(done(held)) is Outcome.STALE
    gone = queue.store.enqueue([spec(retention=0.0), spec()])[0]  # the first of two is too many
    assert queue.find(gone) is None
    assert queue.get(own).reason is Reason.DROPPED
    clock.advance(1)
    queue.store.prune()
    assert queue.find(own) is None
    assert queue.reset(first) is Outcome.OK
    assert queue.get(first).options.unique == "k"


@pytest.mark.parametrize("policy", POLICIES)
def test_a_batch_that_is_larger_than_the_topic_drops_some_of_itself(
    queue: Queue, policy: str
) -> None:
    cap(queue, max_jobs=3, when_full=policy)
    old = queue.add_many(2)
    new = queue.add_many(5)
    everything = [*old, *new]

    assert waiting(queue) == (everything[-3:] if policy == "drop-oldest" else everything[:3])
    assert len(dropped(queue)) == 4


@pytest.mark.parametrize("policy", POLICIES)
def test_so_many_jobs_go_that_the_bytes_fit(queue: Queue, policy: str) -> None:
    cap(queue, max_bytes=10, when_full=policy)
    ids = [queue.add(payload=b"1234") for _ in range(2)]
    ids.append(queue.add(payload=b"123"))
    expected = {"drop-oldest": ids[1:], "drop-lowest": ids[:2]}[policy]
    assert waiting(queue) == expected
    assert size(queue.store) <= 10

    with pytest.raises(QueueFull, match="max_bytes, 10"):
        queue.add(payload=b"x" * 11, delay=1.0)
    assert waiting(queue) == expected


@pytest.mark.parametrize("policy", POLICIES)
def test_both_caps_hold_at_once(queue: Queue, policy: str) -> None:
    cap(queue, max_jobs=3, max_bytes=10, when_full=policy)
    for length in (1, 9, 2, 0, 0, 5, 10, 3, 3, 4, 8):
        queue.add(payload=b"x" * length)
        assert len(waiting(queue)) <= 3
        assert size(queue.store) <= 10
    assert len(waiting(queue)) + len(dropped(queue)) == 11


@pytest.mark.parametrize("policy", POLICIES)
def test_delayed_jobs_do_not_go_and_what_they_leave_no_room_for_is_refused(
    queue: Queue, policy: str
) -> None:
    cap(queue, max_jobs=3, when_full=policy)
    delayed = queue.add_many(2, delay=9.0)
    ready = queue.add()
    last = queue.add(delay=9.0)
    assert dropped(queue) == [ready]
    assert waiting(queue) == sorted([*delayed, last])

    with pytest.raises(QueueFull, match="delayed"):
        queue.add(delay=1.0)
    new = queue.add()  # ready, and so the one that can go
    assert queue.get(new).reason is Reason.DROPPED


@pytest.mark.parametrize("policy", POLICIES)
def test_nothing_goes_for_bytes_that_would_not_fit_all_the_same(queue: Queue, policy: str) -> None:
    cap(queue, max_bytes=10, when_full=policy)
    queue.add(payload=b"12345678", delay=9.0)
    ready = [queue.add(payload=b"1"), queue.add(payload=b"1")]
    with pytest.raises(QueueFull, match="ready jobs"):
        queue.add(payload=b"123", delay=9.0)
    assert dropped(queue) == []

    queue.add(payload=b"12", delay=9.0)
    assert dropped(queue) == ready
    assert size(queue.store) == 10


@pytest.mark.parametrize("policy", POLICIES)
def test_jobs_of_all_groups_go_as_if_there_were_none(queue: Queue, policy: str) -> None:
    cap(queue, max_jobs=6, when_full=policy)
    ids = [
        queue.add(group=group, weight=weight)
        for weight, group in ((3, "a"), (1, "b"), (2, None), (3, "c"), (1, "a"), (2, "b"))
    ]
    queue.add(group="d", weight=0)
    queue.add(weight=0)
    by_age, by_weight = ids[:2], [ids[3], ids[0]]

    assert dropped(queue) == sorted(by_age if policy == "drop-oldest" else by_weight)
    handed = []
    while held := queue.take(n=2):
        handed += [job.weight for job in held]
        queue.store.settle([done(job) for job in held])
    assert len(handed) == 6
    assert handed == sorted(handed)


def test_jobs_that_are_held_are_not_dropped(queue: Queue) -> None:
    cap(queue, max_jobs=1, when_full="drop-oldest")
    queue.add()
    held = queue.take_one()
    second = queue.add()
    third = queue.add()

    assert queue.done(held) is Outcome.OK
    assert (dropped(queue), waiting(queue)) == ([second], [third])


def test_a_cap_that_is_lowered_refuses_until_there_is_room_and_drops_at_the_next_enqueue(
    queue: Queue,
) -> None:
    ids = queue.add_many(6)
    cap(queue, max_jobs=2)
    with pytest.raises(QueueFull):
        queue.add()
    assert waiting(queue) == ids

    cap(queue, when_full="drop-oldest")
    ids.append(queue.add())
    assert waiting(queue) == ids[-2:]
    assert dropped(queue) == ids[:-2]


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("settings", [{"max_jobs": 3}, {"max_bytes": 30}])
def test_a_backlog_beyond_a_cap_that_is_lowered_goes_in_bounded_steps(
    queue: Queue, policy: str, settings: dict[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(caps, "SURPLUS", 4)
    queue.add_many(20, payload=bytes(10))
    queue.store.configure("mail", {"when_full": policy, **settings})
    left = []
    for new in (1, 1, 6, 1, 1, 1):  # at least as many go as come
        queue.add_many(new, payload=bytes(10))
        left.append(len(waiting(queue)))

    assert left == [17, 14, 14, 11, 8, 5]
    queue.add(payload=bytes(10))
    assert len(waiting(queue)) == 3


def test_a_topic_that_drops_is_refused_by_a_full_store(queue: Queue) -> None:
    cap_store(queue.store, max_jobs=2)
    cap(queue, max_jobs=2, when_full="drop-oldest")
    queue.add_many(2)
    with pytest.raises(QueueFull, match="the store"):
        queue.add()
    assert dropped(queue) == []


# Replaced jobs.


def test_what_replaces_a_payload_by_a_larger_one_is_weighed_as_what_is_new(queue: Queue) -> None:
    cap(queue, max_bytes=5)
    job_id = queue.add(unique="k", payload=b"123")
    queue.add(payload=b"1")
    with pytest.raises(QueueFull):
        queue.add(unique="k", on_conflict="replace", payload=b"12345")
    assert queue.get(job_id).payload_bytes == b"123"
    for payload in (b"1234", b"", b"1234"):
        assert queue.add(unique="k", on_conflict="replace", payload=payload) == job_id
    assert size(queue.store) == 5

    cap(queue, "other", max_jobs=0)
    with pytest.raises(QueueFull):
        queue.add("other", unique="k", on_conflict="replace")
    with pytest.raises(QueueFull):
        queue.store.enqueue(
            [spec(unique="k", on_conflict="replace", payload=b"1234"), spec(payload=b"1")]
        )


def test_a_job_that_is_replaced_by_one_of_another_topic_is_not_new_to_the_store(
    queue: Queue,
) -> None:
    queue.add("other", unique="k", payload=bytes(5))
    cap_store(queue.store, max_jobs=1, max_bytes=6, draining=True)
    new: dict[str, Any] = {"unique": "k", "on_conflict": "replace"}
    job_id = queue.add(payload=bytes(6), **new)
    assert queue.get(job_id).topic == "mail"
    with pytest.raises(QueueFull, match="the store is full"):
        queue.add("other", payload=bytes(7), **new)

    cap(queue, "other", max_jobs=0)
    with pytest.raises(QueueFull, match="topic 'other' is full"):
        queue.add("other", payload=bytes(6), **new)


def test_a_job_that_is_replaced_by_a_larger_one_makes_others_go(queue: Queue) -> None:
    cap(queue, max_bytes=5, when_full="drop-oldest")
    old = queue.add(payload=b"12")
    queue.add(unique="k", payload=b"123")
    queue.add(unique="k", on_conflict="replace", payload=b"1234")

    assert dropped(queue) == [old]
    assert size(queue.store) == 4


# What is counted.


def test_the_bytes_that_wait_are_exact_after_every_verb(queue: Queue, clock: ManualClock) -> None:
    def expect(mail: int, other: int = 0) -> None:
        assert (size(queue.store), size(queue.store, "other")) == (mail, other)
        assert size(queue.store, None) == mail + other

    ids = queue.store.enqueue([spec(payload=b"x" * n, delay=n % 2) for n in range(1, 7)])
    expect(21)
    clock.advance(1)
    queue.store.advance()
    expect(21)
    held = queue.take(n=3)
    expect(15)
    queue.store.settle([done(held[0]), retry(held[1]), release(held[2], 5.0)])
    expect(20)
    queue.edit(ids[2], payload=b"x" * 10)
    expect(27)
    queue.edit(ids[1], payload=b"", delay=3.0)
    expect(25)
    queue.edit(ids[3], topic="other", payload=b"y" * 7)
    expect(21, 7)
    queue.cancel(ids[3])
    expect(21)
    queue.store.reset([ids[3], ids[0]])
    expect(22, 7)
    queue.delete(ids[4])
    expect(17, 7)
    queue.take("other")
    expect(17)
    queue.expire()
    expect(17, 7)
    queue.edit(ids[5], options={"ttl": 1.0})
    clock.advance(1)
    queue.store.advance()
    expect(11, 7)
    queue.store.purge("mail", frozenset({Status.READY, Status.DELAYED}), None, 1000)
    expect(0, 7)


def test_what_has_no_caps_is_never_full(queue: Queue) -> None:
    cap(queue, when_full="drop-oldest", keep_done=5.0)
    queue.store.enqueue([spec(payload=b"x" * 1000)] * 300)

    assert queue.counts() == {"ready": 300}
