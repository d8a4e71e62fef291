"""The contract of every store: pause, concurrency and rates of topics, and what lingers of them."""

import math
from collections.abc import Callable
from typing import Any

import pytest

from jobq.clock import ManualClock
from jobq.errors import InvalidValue
from jobq.job import Change, Report, Reservation
from jobq.repo.base import ReserveRequest, Retention, Store
from jobq.repo.operations.edit import edit
from jobq.repo.operations.enqueue import add
from jobq.repo.operations.flow import limits
from jobq.repo.operations.settle import settle
from jobq.repo.operations.topics import configure
from jobq.repo.repositories import Transaction
from jobq.repo.transactional import DRAINS, TransactionalStore
from jobq.states import Outcome
from tests.conftest import Opener
from tests.repo.conftest import LEASE_S, Queue, done, retry, spec


def ready_in(store: Store, topic: str = "mail") -> float:
    """In how many seconds a job may be handed out, as waiters are told."""
    assert isinstance(store, TransactionalStore)

    def look(tx: Transaction) -> float:
        number = tx.topics.known(topic)
        assert number is not None
        return limits.ready_in(tx, number)

    return store._read(look)


# Pause.


def test_a_paused_topic_hands_out_nothing_and_takes_jobs(queue: Queue) -> None:
    queue.store.configure("mail", {"paused": True})
    first = queue.add()
    queue.add("other")

    assert queue.take() == []
    assert ready_in(queue.store) == math.inf
    assert len(queue.take("other")) == 1

    queue.store.configure("mail", {"paused": None})
    assert ready_in(queue.store) == 0.0
    assert queue.take_one().id == first


def test_jobs_that_are_held_when_their_topic_is_paused_go_on(queue: Queue) -> None:
    queue.add()
    queue.add()
    held = queue.take_one()
    queue.store.configure("mail", {"paused": True})

    assert queue.extend(held) is Outcome.OK
    assert queue.retry(held) is Outcome.OK
    assert queue.take() == []
    assert queue.counts() == {"ready": 2}


# Concurrency.


def test_no_more_are_reserved_at_once_than_the_concurrency(queue: Queue) -> None:
    queue.store.configure("mail", {"concurrency": 3})
    queue.add_many(10)
    held = queue.take(n=2)

    assert len(held) == 2
    assert len(queue.take(n=10)) == 1
    assert queue.take(n=10) == []
    assert ready_in(queue.store) == math.inf

    queue.done(held[0])
    assert ready_in(queue.store) == 0.0
    assert len(queue.take(n=10)) == 1


@pytest.mark.parametrize("end", ["done", "retry", "release", "give_up", "expire"])
def test_whatever_ends_a_reservation_frees_its_slot(queue: Queue, end: str) -> None:
    queue.store.configure("mail", {"concurrency": 1})
    queue.add_many(2)
    held = queue.take_one()

    if end == "expire":
        queue.expire()
    elif end in {"retry", "release"}:
        getattr(queue, end)(held, 60.0)
    else:
        getattr(queue, end)(held)
    assert len(queue.take(n=2)) == 1


def test_a_slot_that_is_freed_is_taken_in_the_same_commit(queue: Queue) -> None:
    queue.store.configure("mail", {"concurrency": 1})
    queue.add_many(3)
    held = queue.take_one()
    settled = queue.store.settle([done(held)], ReserveRequest("mail", 5))

    assert len(settled.reserved) == 1


def test_concurrency_holds_over_all_stores_of_a_queue(shared_opener: Opener) -> None:
    one, other = (Queue(shared_opener(), shared_opener.clock) for _ in range(2))
    one.store.configure("mail", {"concurrency": 3})
    one.add_many(10)

    assert len(one.take(n=2)) == 2
    assert len(other.take(n=5)) == 1
    assert one.take() == []


def test_concurrency_that_is_raised_lowered_or_unset_holds_at_once(queue: Queue) -> None:
    queue.store.configure("mail", {"concurrency": 2})
    queue.add_many(10)
    held = queue.take(n=10)
    queue.store.configure("mail", {"concurrency": 4})
    held += queue.take(n=10)
    assert len(held) == 4

    queue.store.configure("mail", {"concurrency": 2})
    for job in held[:2]:
        queue.done(job)
        assert queue.take() == []
    queue.done(held[2])
    assert len(queue.take(n=10)) == 1

    queue.store.configure("mail", {"concurrency": None})
    assert len(queue.take(n=10)) == 5


def test_limits_are_those_of_one_topic(queue: Queue) -> None:
    queue.store.configure("mail", {"concurrency": 1, "rate": (1, 60.0)})
    queue.add_many(2)
    queue.add_many(2, "mail-slow")

    assert len(queue.take("mail", 2)) == 1
    assert len(queue.take("mail-slow", 2)) == 2


# Rates.


def test_a_burst_goes_at_once_and_then_one_job_an_interval(queue: Queue) -> None:
    queue.store.configure("mail", {"rate": (10, 5.0), "burst": 3})
    queue.add_many(10)

    assert len(queue.take(n=10)) == 3
    assert queue.take() == []
    assert ready_in(queue.store) == 0.5
    queue.clock.advance(0.499)
    assert queue.take() == []
    queue.clock.advance(0.001)
    assert ready_in(queue.store) == 0.0
    assert len(queue.take(n=10)) == 1
    queue.clock.advance(1.0)
    assert len(queue.take(n=10)) == 2


def test_without_a_burst_as_many_go_at_once_as_in_a_period(queue: Queue) -> None:
    queue.store.configure("mail", {"rate": (4, 60.0)})
    queue.add_many(10)

    assert len(queue.take(n=10)) == 4
    queue.clock.advance(600.0)
    assert len(queue.take(n=10)) == 4


def test_over_a_long_time_no_more_go_than_rate_and_burst_allow(queue: Queue) -> None:
    queue.store.configure("mail", {"rate": (7, 3.0), "burst": 2})
    queue.add_many(100)
    came = 0
    for _ in range(100):
        came += len(queue.take(n=3))
        queue.clock.advance(0.13)

    assert came == 2 + math.floor(99 * 0.13 * 7 / 3.0)


def test_a_job_that_comes_back_counts_again(queue: Queue) -> None:
    queue.store.configure("mail", {"rate": (2, 60.0)})
    queue.add()
    for _ in range(2):
        queue.release(queue.take_one())

    assert queue.take() == []


def test_a_rate_that_is_changed_holds_at_once_and_remembers_what_it_can(queue: Queue) -> None:
    queue.store.configure("mail", {"rate": (1, 3600.0)})
    queue.add_many(20)
    assert len(queue.take(n=9)) == 1

    queue.store.configure("mail", {"rate": (1, 1.0)})
    assert queue.take() == []
    queue.clock.advance(1.0)
    assert len(queue.take(n=9)) == 1

    queue.store.configure("mail", {"rate": (5, 1.0)})
    queue.clock.advance(1.0)
    assert len(queue.take(n=9)) == 5
    queue.store.configure("mail", {"burst": 1})
    assert queue.take() == []
    queue.clock.advance(0.2)
    assert len(queue.take(n=9)) == 1

    queue.store.configure("mail", {"rate": None, "burst": None})
    assert len(queue.take(n=20)) == 12


def test_the_rate_is_counted_on_a_clock_that_nobody_steps(queue: Queue) -> None:
    queue.store.configure("mail", {"rate": (1, 10.0)})
    queue.add_many(5)
    queue.take_one()
    queue.clock.step_wall(3600.0)
    assert queue.take() == []

    queue.clock.step_wall(-7200.0)
    queue.clock.advance(10.0)
    assert len(queue.take(n=5)) == 1


def test_after_a_reboot_a_rate_is_wrong_by_one_burst_at_most(
    durable_opener: Opener, clock: ManualClock
) -> None:
    store = durable_opener()
    queue = Queue(store, clock)
    store.configure("mail", {"rate": (2, 10.0)})
    queue.add_many(20)
    assert len(queue.take(n=9)) == 2
    durable_opener.close(store)
    clock.reboot()

    again = Queue(durable_opener(), clock)
    assert len(again.take(n=9)) <= 2
    clock.advance(10.0)
    assert len(again.take(n=9)) == 2
    assert again.take() == []


def test_waiters_sleep_until_the_rate_allows_a_job(queue: Queue) -> None:
    queue.store.configure("mail", {"rate": (1, 2.0)})
    assert ready_in(queue.store) == math.inf
    queue.add_many(2)
    assert ready_in(queue.store) == 0.0
    queue.take_one()

    assert ready_in(queue.store) == 2.0
    queue.clock.advance(1.5)
    assert ready_in(queue.store) == 0.5
    queue.store.configure("mail", {"concurrency": 1})
    assert ready_in(queue.store) == math.inf


def test_a_job_that_comes_back_by_an_import_is_another_one_to_its_holder(queue: Queue) -> None:
    queue.store.configure("mail", {"concurrency": 5})
    job_id = queue.add()
    exported = queue.store.export_jobs(None, 1)
    first = queue.take_one()
    queue.cancel(job_id)
    queue.delete(job_id)
    queue.store.import_jobs(exported.copies, exported.last_place, None)
    second = queue.take_one()
    assert first.token < second.token

    queue.cancel(job_id)
    assert queue.store.limits("mail").lingering == 2
    assert queue.done(first) is Outcome.STALE
    assert queue.store.limits("mail").lingering == 1
    queue.expire()
    assert queue.store.limits("mail").lingering == 0


@pytest.mark.parametrize("kind", ["", "group_"])
def test_a_burst_that_outlasts_the_clock_is_refused(queue: Queue, kind: str) -> None:
    century = 100 * 365 * 86_400.0
    rate, burst = f"{kind}rate", f"{kind}burst"
    for before, after in (({}, {rate: (1, century), burst: 2}), ({burst: 2}, {rate: (1, century)})):
        queue.store.configure("mail", {rate: None, burst: None, **before})
        with pytest.raises(InvalidValue, match=r"expected at most"):
            queue.store.configure("mail", after)
        assert queue.store.settings("mail").as_dict() == before

    queue.store.configure("mail", {rate: (1, century / 4), burst: 4})
    queue.add_many(9, group="a")
    assert len(queue.take(n=9)) == 4


# Who is woken.


def woken(store: Store, operation: Callable[[Transaction], object]) -> bool:
    """Whether the operation wakes those who wait for the topic."""
    return told(store, operation)[0] > 0


def told(store: Store, operation: Callable[[Transaction], object]) -> tuple[int, bool]:
    """How many of those who wait for the topic the operation wakes, and whether all look again."""
    assert isinstance(store, TransactionalStore)

    def run(tx: Transaction) -> tuple[Transaction, int | None]:
        operation(tx)
        return tx, tx.topics.known("mail")

    tx, number = store._write(run, DRAINS)
    assert number is not None
    return tx.woken.get(number, 0), number in tx.soon


@pytest.mark.parametrize("setting", ["concurrency", "group_concurrency"])
def test_a_slot_that_is_freed_wakes_who_waits_for_it(queue: Queue, setting: str) -> None:
    queue.store.configure("mail", {setting: 1})
    queue.add_many(2, group="a")
    held = queue.take_one()

    assert woken(queue.store, lambda tx: settle(tx, [done(held)], Retention()))


def test_each_slot_of_a_group_that_is_freed_wakes_another_one(queue: Queue) -> None:
    queue.store.configure("mail", {"group_concurrency": 2})
    queue.add_many(6, group="a")
    first, second = queue.take(n=2)

    assert told(queue.store, lambda tx: settle(tx, [done(first)], Retention()))[0] == 1
    # Whom that has woken has not come yet, so the group may be served already.
    assert told(queue.store, lambda tx: settle(tx, [done(second)], Retention()))[0] == 1


def test_a_job_that_comes_as_the_last_group_goes_wakes_who_waits(queue: Queue) -> None:
    queue.add(group="a")
    held = queue.take_one()
    follow = [done(held, follow=(spec(),), keep_us=0)]
    assert told(queue.store, lambda tx: settle(tx, follow, Retention()))[0] == 1
    assert queue.store.groups("mail", None, 1) == []

    job_id = queue.take_one().id
    queue.cancel(job_id)
    job_id = queue.add(group="a")
    alone = Change(options={"group": None})
    assert told(queue.store, lambda tx: edit(tx, [job_id], alone))[0] == 1


def test_a_slot_of_a_group_without_jobs_wakes_nobody(queue: Queue) -> None:
    queue.store.configure("mail", {"group_concurrency": 2})
    queue.add_many(3, group="a")
    first, second = queue.take(n=2)
    assert told(queue.store, lambda tx: settle(tx, [done(first)], Retention()))[0] == 1
    queue.take_one()

    assert told(queue.store, lambda tx: settle(tx, [done(second)], Retention()))[0] == 0


def test_the_first_job_of_a_group_at_its_rate_lets_waiters_sleep_shorter(queue: Queue) -> None:
    queue.store.configure("mail", {"group_rate": (1, 1.0)})
    queue.add(group="a")
    held = queue.take_one()
    # The group has no jobs: that it is looked at again then concerns nobody.
    assert told(queue.store, lambda tx: settle(tx, [done(held)], Retention())) == (0, False)

    new = [spec(group="a")]
    assert told(queue.store, lambda tx: add(tx, new, Retention())) == (0, True)
    assert told(queue.store, lambda tx: add(tx, new, Retention())) == (0, False)


def test_a_deadline_that_frees_a_slot_lets_waiters_sleep_shorter(queue: Queue) -> None:
    queue.store.configure("mail", {"group_concurrency": 1})
    queue.add(group="a", ttl=1.0)
    queue.add(group="a")
    held = queue.take_one()
    later = [retry(held, 60.0)]

    assert told(queue.store, lambda tx: settle(tx, later, Retention())) == (0, True)
    queue.clock.advance(1.0)
    assert queue.take_one().id != held.id


def test_a_slot_that_lingered_wakes_who_waits_for_it(queue: Queue) -> None:
    held = held_and_canceled(queue)
    queue.add()

    assert woken(queue.store, lambda tx: settle(tx, [done(held)], Retention()))


def test_a_slot_that_nobody_can_use_wakes_nobody(queue: Queue) -> None:
    queue.store.configure("mail", {"concurrency": 1})
    queue.add()
    held = queue.take_one()

    assert not woken(queue.store, lambda tx: settle(tx, [done(held)], Retention()))


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ({"paused": True}, {"paused": None}),
        ({"concurrency": 1}, {"concurrency": 2}),
        ({"rate": (1, 60.0)}, {"rate": None}),
        ({"group_concurrency": 1}, {"group_concurrency": None}),
        ({"group_rate": (1, 60.0)}, {"group_rate": (1, 30.0)}),
    ],
)
def test_settings_that_change_wake_who_waits(
    queue: Queue, before: dict[str, Any], after: dict[str, Any]
) -> None:
    queue.store.configure("mail", before)
    queue.add_many(2, group="a")
    queue.take()

    assert woken(queue.store, lambda tx: configure(tx, "mail", after))


# Bounds of leases and retries.


def test_a_topic_caps_leases_whoever_asks_for_them(queue: Queue) -> None:
    queue.store.configure("mail", {"max_lease": 10.0})
    queue.add(lease=60.0)
    held = queue.take_one()
    assert held.lease_us == 10_000_000

    assert queue.extend(held, 60.0) is Outcome.OK
    queue.clock.advance(9.9)
    assert queue.store.holds(held.id, held.token)
    queue.clock.advance(0.1)
    assert not queue.store.holds(held.id, held.token)


def test_a_shorter_lease_than_the_topic_allows_stays(queue: Queue) -> None:
    queue.store.configure("mail", {"max_lease": 10.0})
    queue.add(lease=3.0)

    assert queue.take_one().lease_us == 3_000_000


@pytest.mark.parametrize(("job", "topic", "holds"), [(None, 3, 3), (2, 3, 2), (5, 3, 3), (5, 0, 0)])
def test_the_smaller_most_of_retries_holds(
    queue: Queue, job: int | None, topic: int, holds: int
) -> None:
    queue.store.configure("mail", {"max_retries": topic})
    queue.add(max_retries=job)

    assert queue.take_one().options.max_retries == holds


def test_waits_before_a_retry_are_the_jobs_own_or_else_its_topics(queue: Queue) -> None:
    topic = {"min_backoff": 9.0, "factor": 3.0, "max_backoff": 60.0, "jitter": 0.0}
    queue.store.configure("mail", topic)
    queue.add()
    queue.add(min_backoff=5.0, jitter=0.5, name="own")
    plain, own = queue.take(n=2)

    assert plain.options.as_dict() == topic
    assert own.options.as_dict() == {**topic, "min_backoff": 5.0, "jitter": 0.5, "name": "own"}
    queue.store.configure("mail", dict.fromkeys(topic))
    queue.add()
    assert queue.take_one().options.as_dict() == {}


# Lingering holds.


def held_and_canceled(queue: Queue, **options: Any) -> Reservation:
    """A job whose holder does not know that it is canceled, in a topic with one slot."""
    queue.store.configure("mail", {"concurrency": 1})
    queue.add(**options)
    held = queue.take_one()
    assert queue.cancel(held.id) is Outcome.OK
    return held


CALLS = {
    "done": lambda queue, held: queue.done(held),
    "retry": lambda queue, held: queue.retry(held),
    "release": lambda queue, held: queue.release(held),
    "give up": lambda queue, held: queue.give_up(held),
    "extend": lambda queue, held: queue.extend(held),
    "report": lambda queue, held: queue.store.report([Report(held.id, held.token, ((0, "x"),))])[0],
}


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("fate", ["kept", "deleted", "reset", "retention 0"])
def test_a_canceled_jobs_slot_stays_taken_until_its_holder_calls(
    queue: Queue, call: str, fate: str
) -> None:
    held = held_and_canceled(queue, **({"retention": 0.0} if fate == "retention 0" else {}))
    if fate == "deleted":
        queue.delete(held.id)
    if fate == "reset":
        queue.reset(held.id)
    queue.add()
    assert queue.take() == []
    assert ready_in(queue.store) == math.inf

    assert CALLS[call](queue, held) in {Outcome.STALE, Outcome.MISSING}
    assert len(queue.take(n=3)) == 1


def test_a_canceled_jobs_slot_is_free_when_its_lease_is_over(queue: Queue) -> None:
    held_and_canceled(queue)
    queue.add()
    queue.clock.advance(LEASE_S - 1)
    assert queue.take() == []

    queue.clock.advance(1.0)
    assert len(queue.take()) == 1


def test_a_job_that_is_reset_and_held_again_takes_a_slot_beside_the_one_that_lingers(
    queue: Queue,
) -> None:
    held = held_and_canceled(queue)
    queue.store.configure("mail", {"concurrency": 2})
    queue.reset(held.id)
    again = queue.take_one()
    queue.add()
    assert queue.take() == []

    assert queue.cancel(again.id) is Outcome.OK
    assert queue.take() == []
    assert queue.done(held) is Outcome.STALE
    assert len(queue.take(n=3)) == 1
    assert queue.done(again) is Outcome.STALE
    queue.add()
    assert len(queue.take(n=3)) == 1


def test_a_holder_that_calls_twice_frees_one_slot(queue: Queue) -> None:
    held = held_and_canceled(queue)
    queue.store.configure("mail", {"concurrency": 2})
    queue.add_many(5)
    assert len(queue.take(n=5)) == 1

    for _ in range(2):
        assert queue.done(held) is Outcome.STALE
    assert len(queue.take(n=5)) == 1


def test_what_lingers_outlives_the_process_but_not_the_lease(
    durable_opener: Opener, clock: ManualClock
) -> None:
    store = durable_opener()
    queue = Queue(store, clock)
    held_and_canceled(queue)
    queue.add()
    other = durable_opener("queue") if store.capabilities.shared else store
    assert Queue(other, clock).take() == []

    clock.advance(LEASE_S)
    assert len(Queue(other, clock).take()) == 1


def test_a_topic_that_falls_idle_while_a_hold_lingers_stays_until_it_ends(queue: Queue) -> None:
    queue.add(group="a", lease=2 * 86_400.0, retention=0.0)
    held = queue.take_one()
    queue.cancel(held.id)
    queue.clock.advance(86_400.0)
    queue.store.prune()
    queue.add("other")
    queue.clock.advance(86_400.0)
    queue.store.advance()

    queue.add(group="a")
    assert len(queue.take()) == 1
