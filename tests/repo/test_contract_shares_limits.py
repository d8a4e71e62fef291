"""The contract of every store: several topics in one reservation, some of them at their limits."""

import time
from collections import Counter
from functools import partial
from typing import Any

import pytest

from jobq.clock import ManualClock, SystemClock
from jobq.repo.base import ReserveRequest, Retention, Store
from jobq.repo.operations.flow.shares import MOST_WINDOW
from jobq.shares import Pattern
from tests.conftest import Crew, Opener
from tests.repo.conftest import Queue, done, spec
from tests.repo.test_contract_shares import Waits, mix, passes, take, topics_of


@pytest.fixture
def waits(opener: Opener, crew: Crew, sound_sleep: None) -> Waits:  # noqa: ARG001
    return Waits(opener(clock=SystemClock(), retention=Retention(0, 0)), crew)


def test_turns_of_a_topic_at_its_limit_go_to_the_others(queue: Queue) -> None:
    queue.add_many(20, "a")
    queue.add_many(20, "b")
    queue.store.configure("a", {"concurrency": 3})
    held = take(queue.store, ["a", "b"], 10)
    assert topics_of(held) == "ababab" + "bbbb"
    assert topics_of(take(queue.store, ["a", "b"], 4)) == "bbbb"

    queue.store.settle([done(job) for job in held])
    assert topics_of(take(queue.store, ["a", "b"], 4)) == "aaba"


def test_a_topic_that_was_at_its_limit_does_not_make_up_for_it(
    queue: Queue, clock: ManualClock
) -> None:
    queue.add_many(60, "a")
    queue.add_many(60, "b")
    queue.store.configure("a", {"rate": (2, 60.0)})
    given = Counter(job.topic for _ in range(5) for job in take(queue.store, ["a", "b"], 6))
    assert given == {"a": 2, "b": 28}

    queue.store.configure("a", {"rate": None})
    clock.advance(60)
    assert topics_of(take(queue.store, ["a", "b"], 8)) == "a" + "ab" * 3 + "a"


def test_what_is_not_handed_out_is_no_turn(queue: Queue) -> None:
    for topic in "ab":
        queue.add_many(9, topic)
    take(queue.store, ["a", "b"], 2)
    before = passes(queue.store)
    queue.store.configure("a", {"paused": True})
    held = take(queue.store, ["a", "b"], 3)
    after = passes(queue.store)

    assert topics_of(held) == "bbb"
    assert after["a"] == before["a"]
    assert after["b"] > before["b"]


def test_a_paused_topic_is_passed_over_in_a_strict_order_too(queue: Queue) -> None:
    for topic in "abc":
        queue.add_many(2, topic)
    queue.store.configure("a", {"paused": True})

    assert topics_of(take(queue.store, ["a", "b", "c"], 3, strict=True)) == "bbc"
    queue.store.configure("a", {"paused": None})
    assert topics_of(take(queue.store, ["a", "b", "c"], 3, strict=True)) == "aac"


def test_many_topics_at_their_limits_do_not_hide_one_that_is_not(queue: Queue) -> None:
    names = [f"t{number}" for number in range(2 * MOST_WINDOW + 9)]
    queue.store.enqueue([spec(name) for name in names])
    for name in names:
        queue.store.configure(name, {"paused": True})
    for name in (names[0], names[MOST_WINDOW + 3], names[-1]):
        queue.store.configure(name, {"paused": None})
        assert [job.topic for job in take(queue.store, Pattern("t*"), 2)] == [name]
        assert take(queue.store, Pattern("t*"), 2) == []


def test_jobs_of_groups_have_their_turns_among_topics(queue: Queue) -> None:
    for number in range(3):
        for group in ("x", "y"):
            queue.add("a", group=group, payload=f"{group}{number}".encode())
    queue.add_many(6, "b")
    queue.store.configure("a", {"group_concurrency": 1})
    held = take(queue.store, ["a", "b"], 8)
    assert topics_of(held) == "abab" + "bbbb"
    assert take(queue.store, [Pattern("a*"), "c"], 9) == []

    queue.store.settle([done(job) for job in held])
    held += take(queue.store, [Pattern("a*"), "c"], 9)
    payloads = [job.payload for job in held if job.topic == "a"]
    assert payloads == [b"x0", b"y0", b"x1", b"y1"]


def test_a_job_that_is_settled_makes_place_for_one_in_the_same_commit(queue: Queue) -> None:
    queue.add_many(3, "a")
    queue.store.configure("a", {"concurrency": 1})
    (held,) = take(queue.store, ["a", "b"], 5)
    settled = queue.store.settle([done(held)], ReserveRequest(mix(["a", "b"]), 5))

    assert [job.topic for job in settled.reserved] == ["a"]


# Waiting.


def sleeps(store: Store, topics: Any, timeout: float = 0.3) -> float:
    start = time.monotonic()
    store.wait(mix(topics), timeout)
    return time.monotonic() - start


def test_who_waits_for_topics_at_their_limits_sleeps(waits: Waits) -> None:
    store = waits.store
    store.enqueue([spec(topic) for topic in "abc"])
    store.configure("a", {"paused": True})
    store.configure("b", {"rate": (1, 3600.0)})
    store.configure("c", {"concurrency": 1})
    store.enqueue([spec("b"), spec("c")])
    assert topics_of(take(store, ["a", "b", "c"], 9)) == "bc"
    for topics in (["a", "b", "c"], [Pattern("?")], ["a", Pattern("b*")]):
        assert sleeps(store, topics) >= 0.29

    for topic in "abc":
        store.configure(topic, {"paused": None, "rate": None, "concurrency": None})


def test_a_limit_that_is_lifted_ends_the_sleep(waits: Waits) -> None:
    store = waits.store
    store.enqueue([spec("b")])
    store.configure("b", {"paused": True})

    waits.until(["a", "b"], lambda: store.configure("b", {"paused": None}))


def test_a_job_that_ends_makes_place_and_ends_the_sleep(waits: Waits) -> None:
    store = waits.store
    store.configure("b", {"concurrency": 1})
    store.enqueue([spec("b"), spec("b")])
    (held,) = take(store, "b")

    waits.until(["a", "b"], partial(store.settle, [done(held)]))


def test_the_next_job_of_a_rate_comes_at_its_time(waits: Waits) -> None:
    store = waits.store
    store.configure("b", {"rate": (1, 0.2)})
    store.enqueue([spec("b")] * 4)
    assert len(take(store, ["a", "b"], 4)) == 1
    for _ in range(3):
        waits.until(["a", "b"], lambda: None)
