"""The contract of every store: what can be changed of a waiting job, and where it stands then."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from jobq.clock import ManualClock
from jobq.job import Change
from jobq.states import Event, Outcome, Status
from tests.conftest import STORES, Kind, Opener
from tests.repo.conftest import Queue, done, retry

WAITING = [Status.READY, Status.DELAYED]


# Payload and options.


@pytest.mark.parametrize("status", WAITING)
def test_a_payload_is_replaced_and_all_else_stays(queue: Queue, status: Status) -> None:
    job_id, _ = queue.job_in(status, payload=b"old", weight=3, lease=5.0)
    before = queue.get(job_id)

    assert queue.edit(job_id, payload=b"new" * 1000) is Outcome.OK
    assert queue.get(job_id) == replace(before, payload_bytes=b"new" * 1000)


def test_a_holder_gets_the_edited_payload_and_options(queue: Queue) -> None:
    job_id = queue.add(payload=b"old", lease=5.0, name="n")
    queue.edit(job_id, payload=b"", options={"lease": 7.0, "max_crashes": 1, "name": None})
    held = queue.take_one()

    assert (held.payload, held.lease_us) == (b"", 7_000_000)
    assert held.options.as_dict() == {"lease": 7.0, "max_crashes": 1}


def test_options_that_are_not_named_stay_and_none_unsets_one(queue: Queue) -> None:
    job_id = queue.add(lease=5.0, tags=["a"], retention=9.0)
    queue.edit(job_id, options={"tags": ("b", "c"), "retention": None})

    assert queue.get(job_id).options.as_dict() == {"lease": 5.0, "tags": ("b", "c")}


def test_an_edited_retention_holds_when_the_job_ends(queue: Queue) -> None:
    job_id = queue.add(retention=100.0)
    queue.edit(job_id, options={"retention": 0.0})
    queue.cancel(job_id)

    assert queue.find(job_id) is None


def test_an_edit_of_what_a_job_has_changes_nothing(queue: Queue) -> None:
    job_id = queue.add(payload=b"p", lease=5.0, weight=2)
    before = queue.get(job_id)

    assert queue.edit(job_id, payload=b"p", options={"lease": 5.0}, weight=2) is Outcome.OK
    assert queue.edit(job_id, topic="mail") is Outcome.OK
    assert queue.get(job_id) == before


# Weight.


def test_an_edited_weight_gives_the_place_that_the_job_would_have_had_with_it(
    queue: Queue,
) -> None:
    first, second, third, fourth = (queue.add(weight=weight) for weight in (0, 5, 0, 5))
    queue.edit(third, weight=5)
    assert queue.order() == [first, second, third, fourth]

    queue.edit(fourth, weight=-32_768)
    assert queue.order() == [fourth, first, second, third]


def test_a_delayed_job_has_its_edited_weight_when_it_is_due(
    queue: Queue, clock: ManualClock
) -> None:
    late = queue.add(delay=5)
    due_us = queue.get(late).due_us
    ready = queue.add()
    queue.edit(late, weight=1)
    assert (queue.get(late).due_us, queue.get(late).weight) == (due_us, 1)

    clock.advance(5)
    assert queue.order() == [ready, late]


# Time.


def test_a_ready_job_can_be_put_off(queue: Queue, clock: ManualClock) -> None:
    first, second = queue.add_many(2)
    queue.edit(first, delay=0.25)
    assert queue.counts() == {"ready": 1, "delayed": 1}
    assert queue.get(first).due_us == clock.wall_us() + 250_000
    assert queue.order() == [second]

    clock.advance(0.25)
    assert queue.order() == [first, second]  # in its old place


def test_a_delayed_job_can_be_made_ready_at_once_in_its_old_place(queue: Queue) -> None:
    late = queue.add(delay=5)
    ready = queue.add()
    queue.edit(late, delay=0)

    assert queue.get(late).due_us is None
    assert queue.order() == [late, ready]


@pytest.mark.parametrize("delay", [0.001, 100.0])
def test_a_delayed_job_can_be_due_earlier_or_later(
    queue: Queue, clock: ManualClock, delay: float
) -> None:
    job_id = queue.add(delay=5)
    clock.advance(1)
    queue.edit(job_id, delay=delay)
    assert queue.store.stats().next_due_us == clock.wall_us() + round(delay * 1e6)

    clock.advance(delay - 0.000001)
    assert queue.take() == []
    clock.advance(0.000001)
    assert queue.take_one().id == job_id


def test_a_delay_of_0_leaves_a_ready_job_in_its_place(queue: Queue) -> None:
    ids = queue.add_many(3)
    queue.edit(ids[0], delay=0)

    assert queue.order() == ids


# Topic.


def test_a_job_goes_to_the_back_of_its_weight_in_another_topic(queue: Queue) -> None:
    moved = queue.add("old")
    there = [queue.add("new"), queue.add("new", weight=1), queue.add("new")]
    queue.edit(moved, topic="new")

    assert queue.get(moved).topic == "new"
    assert queue.order("new") == [there[0], there[2], moved, there[1]]
    assert (queue.counts("old"), queue.counts("new")) == ({}, {"ready": 4})


def test_jobs_that_are_moved_together_keep_the_order_in_which_they_are_named(
    queue: Queue,
) -> None:
    a, b, c = queue.add_many(3)
    queue.store.edit([c, a, c, b], Change(topic="new"))

    assert queue.order("new") == [c, a, b]


def test_a_job_that_is_in_the_topic_already_keeps_its_place(queue: Queue) -> None:
    other = queue.add("other")
    first, second = queue.add_many(2)
    queue.store.edit([first, other], Change(topic="mail"))

    assert queue.order() == [first, second, other]


def test_a_delayed_job_that_is_moved_stays_delayed_until_its_time(
    queue: Queue, clock: ManualClock
) -> None:
    job_id = queue.add("old", delay=5)
    due_us = queue.get(job_id).due_us
    queue.edit(job_id, topic="new", weight=-1)
    assert queue.get(job_id).due_us == due_us
    assert (queue.counts("old"), queue.counts("new")) == ({}, {"delayed": 1})

    clock.advance(5)
    there = queue.add("new")
    assert queue.order("new") == [job_id, there]


def test_a_topic_is_made_by_moving_a_job_there_but_not_by_a_refused_move(queue: Queue) -> None:
    finished, _ = queue.job_in(Status.DONE)
    assert queue.edit(finished, topic="never") is Outcome.INVALID
    assert queue.edit(bytes(16), topic="never") is Outcome.MISSING

    assert queue.edit(queue.add(), topic="new") is Outcome.OK
    assert queue.store.topics() == ["mail", "new"]


def test_everything_can_be_edited_at_once(queue: Queue, clock: ManualClock) -> None:
    job_id = queue.add(payload=b"old")
    change = Change("new", -7, 2_000_000, b"new", {"lease": 3.0})
    assert queue.store.edit([job_id], change) == [Outcome.OK]

    record = queue.get(job_id)
    assert (record.topic, record.weight, record.status) == ("new", -7, Status.DELAYED)
    assert (record.due_us, record.payload_bytes) == (clock.wall_us() + 2_000_000, b"new")
    clock.advance(2)
    assert queue.take_one("new").lease_us == 3_000_000


# Who can be edited.


@pytest.mark.parametrize("status", [Status.RESERVED, Status.DONE, Status.CANCELED])
@pytest.mark.parametrize(
    "change",
    [{"payload": b"x"}, {"topic": "new"}, {"weight": 1}, {"delay": 1.0}, {"options": {"lease": 1}}],
    ids=lambda change: next(iter(change)),
)
def test_a_job_that_does_not_wait_is_refused_and_stays_as_it_was(
    queue: Queue, status: Status, change: dict[str, Any]
) -> None:
    job_id, _ = queue.job_in(status)
    before = queue.get(job_id)

    assert queue.edit(job_id, **change) is Outcome.INVALID
    assert queue.get(job_id) == before
    assert queue.store.topics() == ["mail"]


def test_outcomes_come_by_position_and_the_others_stand(queue: Queue) -> None:
    reserved, _ = queue.job_in(Status.RESERVED)
    ready, late = queue.add(), queue.add(delay=1)

    assert queue.store.edit([ready, bytes(16), reserved, late, ready], Change(weight=4)) == [
        Outcome.OK, Outcome.MISSING, Outcome.INVALID, Outcome.OK, Outcome.OK,
    ]  # fmt: skip
    assert [queue.get(job_id).weight for job_id in (ready, reserved, late)] == [4, 0, 4]


def test_nothing_is_edited_in_an_empty_call(queue: Queue) -> None:
    assert queue.store.edit([], Change(weight=1)) == []


def test_a_delayed_job_whose_time_has_come_is_edited_as_the_ready_job_that_it_is(
    queue: Queue, clock: ManualClock
) -> None:
    job_id = queue.add(delay=1)
    clock.advance(1)
    queue.edit(job_id, weight=5)

    assert queue.get(job_id).status is Status.READY


def test_a_job_can_be_edited_after_a_retry_a_release_and_a_reset(queue: Queue) -> None:
    job_id = queue.add(payload=b"1")
    queue.retry(queue.take_one(), 5)
    assert queue.edit(job_id, delay=0, payload=b"2") is Outcome.OK
    queue.release(queue.take_one())
    assert queue.edit(job_id, topic="new") is Outcome.OK
    queue.done(queue.take_one("new"))
    queue.reset(job_id)
    assert queue.edit(job_id, weight=-1) is Outcome.OK

    record = queue.get(job_id)
    assert (record.topic, record.retries, record.resets, record.attempt) == ("new", 0, 1, 2)
    assert queue.take_one("new").payload == b"2"


@pytest.mark.parametrize("event", [Event.RETRY, Event.RELEASE])
def test_a_settlement_repeated_after_an_edit_is_stale(queue: Queue, event: Event) -> None:
    job_id = queue.add()
    settlement = retry(queue.take_one())._replace(event=event)
    assert queue.settle(settlement) is Outcome.OK
    assert queue.settle(settlement) is Outcome.OK
    queue.edit(job_id, payload=b"x")

    assert queue.settle(settlement) is Outcome.STALE


def test_edits_outlive_the_store(durable_opener: Opener, clock: ManualClock) -> None:
    first = durable_opener()
    queue = Queue(first, clock)
    moved, late, changed = queue.add_many(3)
    queue.edit(moved, topic="new", weight=2)
    queue.edit(late, delay=60)
    queue.edit(changed, payload=b"new", options={"lease": 1.0})
    before = first.get([moved, late, changed])
    durable_opener.close(first)

    queue = Queue(durable_opener(), clock)
    assert queue.store.get([moved, late, changed]) == before
    assert queue.order("new") == [moved]
    assert queue.take_one().payload == b"new"


# Any edits.


@pytest.mark.parametrize("kind", STORES, ids=repr)
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_jobs_are_served_as_if_they_had_been_enqueued_as_they_were_edited(
    tmp_path_factory: pytest.TempPathFactory, kind: Kind, data: st.DataObject
) -> None:
    """As long as they stay in their topic, whatever is done to weights and delays meanwhile."""
    clock = ManualClock()
    weights = st.integers(-2, 2)
    with kind.open(tmp_path_factory.mktemp("edit") / "queue", clock=clock) as store:
        queue = Queue(store, clock)
        last = {queue.add(weight=data.draw(weights), delay=at % 2): 0 for at in range(8)}
        last = {job_id: queue.get(job_id).weight for job_id in last}
        for _ in range(data.draw(st.integers(1, 12))):
            job_id = data.draw(st.sampled_from(sorted(last)))
            weight = data.draw(st.none() | weights)
            delay = data.draw(st.sampled_from([None, 0.0, 0.5, 1.0]))
            payload = data.draw(st.none() | st.binary(max_size=3))
            assert queue.edit(job_id, weight=weight, delay=delay, payload=payload) is Outcome.OK
            last[job_id] = last[job_id] if weight is None else weight
        assert store.check().problems == ()
        clock.advance(1)
        store.advance()

        assert queue.order() == sorted(last, key=lambda job_id: (last[job_id], job_id))
        held = queue.take(n=8)
        assert store.settle([done(job) for job in held]).outcomes == [Outcome.OK] * 8
        assert store.check().problems == ()
