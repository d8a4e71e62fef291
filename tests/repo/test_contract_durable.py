"""The contract of stores that outlive their process: closed and opened again, all is there."""

import pytest

from jobq.clock import ManualClock
from jobq.job import JobRecord, Reservation
from jobq.repo.base import Retention, Store
from jobq.selector import ALL_JOBS
from jobq.states import Outcome, Reason, Status
from tests.conftest import Opener
from tests.repo.conftest import LEASE_S, Queue, done, spec

NAMES = ["mail", "mail-slow", "mail\x00x", "почта", "邮件", "a" * 255]


@pytest.fixture
def queue(durable_opener: Opener, clock: ManualClock) -> Queue:
    """An empty store of every durable kind."""
    return Queue(durable_opener(), clock)


def reopened(queue: Queue, opener: Opener) -> Queue:
    """The queue as the next process finds it."""
    opener.close(queue.store)
    return Queue(opener(), queue.clock)


def records(store: Store) -> list[JobRecord]:
    return store.find(ALL_JOBS, None, 1000)


def test_topics_are_listed_after_reopening(queue: Queue, durable_opener: Opener) -> None:
    for name in NAMES:
        queue.delete(queue.add(name))
    queue.add("mail", delay=5)
    queue = reopened(queue, durable_opener)

    assert queue.store.topics() == sorted(NAMES)
    queue.add("new")
    assert queue.store.topics() == sorted([*NAMES, "new"])
    assert [queue.counts(name) for name in NAMES] == [{"delayed": 1}, {}, {}, {}, {}, {}]


def test_every_record_and_count_is_the_same_after_reopening(
    queue: Queue, durable_opener: Opener
) -> None:
    for status in (Status.DONE, Status.CANCELED, Status.DELAYED):
        queue.job_in(status, name="n", tags=["t"], retention=90_000.0)
    queue.retry(_taken(queue), 9.5, error="no route")
    queue.done(_taken(queue), result=b"r")
    queue.give_up(_taken(queue))
    queue.add_many(3, weight=-7)
    for held in queue.take("mail", 2):
        queue.release(held)
    before, counts = records(queue.store), queue.store.stats().topics
    queue = reopened(queue, durable_opener)

    assert records(queue.store) == before
    assert queue.store.stats().topics == counts


def _taken(queue: Queue) -> Reservation:
    queue.add("work")
    return queue.take_one("work")


def test_the_order_is_the_same_after_reopening(queue: Queue, durable_opener: Opener) -> None:
    ids = [queue.add(weight=weight) for weight in (3, -1, 3, 0)]
    queue.release(queue.take_one())
    queue = reopened(queue, durable_opener)
    last = queue.add(weight=3)

    assert queue.order() == [ids[1], ids[3], ids[0], ids[2], last]


def test_ids_and_tokens_go_on_growing_after_reopening(
    queue: Queue, durable_opener: Opener, clock: ManualClock
) -> None:
    first = queue.add()
    held = queue.take_one()
    queue.release(held)
    deleted = queue.add("gone")
    queue.delete(deleted)
    clock.step_wall(-86_400)
    queue = reopened(queue, durable_opener)

    assert queue.take_one().token == held.token + 1
    assert queue.add() > deleted > first


def test_delayed_jobs_fall_due_while_nobody_has_the_store_open(
    queue: Queue, durable_opener: Opener, clock: ManualClock
) -> None:
    soon, late = queue.add(delay=5), queue.add(delay=50)
    durable_opener.close(queue.store)
    clock.advance(5)
    queue = Queue(durable_opener(), clock)

    assert queue.take_one().id == soon
    assert queue.status(late) is Status.DELAYED


def test_what_a_closed_store_held_is_ready_for_the_next_who_opens_it(
    queue: Queue, durable_opener: Opener
) -> None:
    job_id = queue.add()
    late = queue.take_one()
    queue = reopened(queue, durable_opener)

    assert queue.get(job_id).crashes == 1
    assert queue.take_one().id == job_id
    assert queue.done(late) is Outcome.STALE


def test_a_boot_ends_all_leases(queue: Queue, durable_opener: Opener, clock: ManualClock) -> None:
    ids = queue.add_many(70, lease=LEASE_S) + queue.add_many(3, lease=10 * 365 * 86_400.0)
    poison = queue.add("poison", max_crashes=1)
    queue.expire_one_holder("poison")
    queue.take(n=100)
    late = queue.take_one("poison")
    durable_opener.close(queue.store)
    clock.reboot()
    queue = Queue(durable_opener(), clock)

    assert queue.order() == ids
    assert {record.crashes for record in records(queue.store) if record.topic == "mail"} == {1}
    assert queue.get(poison).reason is Reason.POISON
    assert queue.done(late) is Outcome.STALE


def test_leases_set_after_a_boot_hold_for_their_time(
    queue: Queue, durable_opener: Opener, clock: ManualClock
) -> None:
    queue.add()
    durable_opener.close(queue.store)
    clock.reboot()
    queue = Queue(durable_opener(), clock)
    held = queue.take_one()
    queue.expire(LEASE_S - 1)

    assert queue.done(held) is Outcome.OK


def test_more_reservations_than_one_step_takes_are_free_after_a_boot(
    queue: Queue, durable_opener: Opener, clock: ManualClock
) -> None:
    queue.store.enqueue([spec()] * 2500)
    queue.take(n=2500)
    durable_opener.close(queue.store)
    clock.reboot()
    queue = Queue(durable_opener(), clock)
    while queue.store.advance().more:
        pass

    assert queue.counts() == {"ready": 2500}


def test_a_repeated_settlement_is_a_no_op_after_reopening(
    queue: Queue, durable_opener: Opener
) -> None:
    queue.add()
    settlement = done(queue.take_one(), follow=(spec("next"),))
    queue.settle(settlement)
    queue = reopened(queue, durable_opener)

    assert queue.settle(settlement) is Outcome.OK
    assert queue.counts() == {"ready": 1, "done": 1}


def test_retention_is_the_openers_and_goes_on_while_closed(
    queue: Queue, durable_opener: Opener, clock: ManualClock
) -> None:
    queue.job_in(Status.DONE)
    durable_opener.close(queue.store)
    clock.advance(86_400)
    queue = Queue(durable_opener(retention=Retention(done_us=1_000_000)), clock)
    queue.job_in(Status.DONE)
    clock.advance(1)

    assert queue.store.prune() <= 1
    assert queue.store.prune() == 0
    assert queue.counts() == {}


def test_two_openings_of_one_path_are_one_store(
    queue: Queue, durable_opener: Opener, clock: ManualClock
) -> None:
    other = Queue(durable_opener(), clock)
    job_id = queue.add()
    held = other.take_one()
    assert queue.status(job_id) is Status.RESERVED

    durable_opener.close(queue.store)
    assert other.done(held) is Outcome.OK


def test_two_paths_are_two_stores(queue: Queue, durable_opener: Opener, clock: ManualClock) -> None:
    other = Queue(durable_opener("another"), clock)
    queue.add("mail")

    assert other.store.topics() == []
    assert other.take() == []
    assert len(queue.take()) == 1
