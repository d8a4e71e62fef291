"""The contract of every store: delays, leases, crashes, and clocks that jump."""

import random
from collections.abc import Callable
from itertools import pairwise

import pytest

from jobq.clock import ManualClock
from jobq.repo.base import Advanced
from jobq.selector import Selector
from jobq.states import Outcome, Reason, Status
from tests.repo.conftest import LEASE_S, Queue, done, release, spec

HOUR_S = 3600.0
YEAR_S = 365 * 86_400.0


# Delays.


@pytest.mark.parametrize("delay", [0.000001, 0.001, 0.25, 1.0, 59.999999, 100 * YEAR_S])
def test_a_delayed_job_is_ready_when_its_time_has_come_and_not_before(
    queue: Queue, clock: ManualClock, delay: float
) -> None:
    job_id = queue.add(delay=delay)
    due_us = queue.get(job_id).due_us
    assert due_us is not None

    clock.step_wall((due_us - clock.wall_us() - 1) / 1e6)
    assert queue.take() == []
    assert queue.status(job_id) is Status.DELAYED
    clock.step_wall(0.000001)
    assert [held.id for held in queue.take()] == [job_id]
    assert clock.wall_us() == due_us


@pytest.mark.parametrize("verb", ["advance", "reserve", "enqueue", "cancel", "settle", "extend"])
def test_every_writing_call_moves_time_first(queue: Queue, clock: ManualClock, verb: str) -> None:
    delayed, held_long = queue.add(delay=1), queue.add("other", lease=1.0)
    queue.take("other")
    clock.advance(1)

    calls: dict[str, Callable[[], object]] = {
        "advance": queue.store.advance,
        "reserve": lambda: queue.take("nowhere"),
        "enqueue": lambda: queue.add("another"),
        "cancel": lambda: queue.cancel(bytes(16)),
        "settle": lambda: queue.store.settle([]),
        "extend": lambda: queue.store.extend([]),
    }
    calls[verb]()
    assert queue.status(delayed) is Status.READY
    assert queue.status(held_long) is Status.READY


def test_delays_under_a_second_keep_their_order(queue: Queue, clock: ManualClock) -> None:
    delays = [0.3, 0.1, 0.2, 0.999999, 0.000001]
    ids = {queue.add(delay=delay): delay for delay in delays}
    seen = []
    for _ in range(1000):
        clock.advance(0.001)
        held = queue.take(n=9)
        seen += [ids[job.id] for job in held]
        queue.store.settle([done(job) for job in held])

    assert seen == sorted(delays)


def test_a_backlog_falls_due_in_order_step_by_step(queue: Queue, clock: ManualClock) -> None:
    delays = random.Random(3).sample(range(1, 2000), 700)
    ids = queue.store.enqueue([spec(delay=delay) for delay in delays])
    soonest = [job_id for _, job_id in sorted(zip(delays, ids, strict=True))]
    clock.advance(5000)

    promoted = 0
    while (step := queue.store.advance(100)).more:
        promoted += step.promoted
        assert step.promoted <= 100
        ready = {
            record.id
            for record in queue.store.find(Selector(statuses=frozenset({Status.READY})), None, 1000)
        }
        due = {queue.get(job_id).id for job_id in soonest[:promoted]}
        assert ready == due
    assert queue.counts() == {"ready": 700}
    assert queue.order() == ids  # they served in the order of enqueueing all the same


def test_one_call_moves_a_bounded_step_of_a_backlog(queue: Queue, clock: ManualClock) -> None:
    queue.store.enqueue([spec(delay=1)] * 2000)
    clock.advance(1)
    queue.add("other")

    assert 0 < queue.counts("mail")["ready"] < 2000
    while queue.store.advance(1000).more:
        pass
    assert queue.counts("mail") == {"ready": 2000}


def test_a_backlog_of_delayed_jobs_is_drained_by_reserving_alone(
    queue: Queue, clock: ManualClock
) -> None:
    ids = queue.store.enqueue([spec(delay=1 + at % 7) for at in range(1500)])
    clock.advance(10)
    taken = []
    while held := queue.take(n=100):
        taken += [job.id for job in held]

    assert sorted(taken) == ids


def test_advance_says_what_it_moved(queue: Queue) -> None:
    queue.store.enqueue([spec(delay=1)] * 3)
    queue.store.enqueue([spec("patient", lease=1.0)] * 2)
    poison = queue.add("poison", lease=1.0, max_crashes=1)
    queue.take("poison")
    queue.expire(1)
    queue.cancel(queue.take_one("poison").id)
    queue.reset(poison)
    assert queue.store.advance() == Advanced()

    queue.store.enqueue([spec(delay=1)] * 3)
    queue.take("patient", 2)
    queue.clock.advance(1)
    assert queue.store.advance() == Advanced(promoted=3, expired=2)


def test_advance_tells_poison_apart(queue: Queue) -> None:
    queue.add_many(3, max_crashes=1)
    for poisoned in (0, 3):
        queue.take(n=3)
        queue.clock.advance(LEASE_S)
        step = queue.store.advance()
        assert (step.expired, step.poisoned) == (3, poisoned)


def test_the_next_due_time_is_known(queue: Queue, clock: ManualClock) -> None:
    assert queue.store.stats().next_due_us is None
    queue.add(delay=9)
    soon = queue.add(delay=5)
    assert queue.store.stats().next_due_us == clock.wall_us() + 5_000_000

    queue.cancel(soon)
    assert queue.store.stats().next_due_us == clock.wall_us() + 9_000_000


def test_a_delayed_job_that_is_canceled_does_not_come_back(
    queue: Queue, clock: ManualClock
) -> None:
    job_id = queue.add(delay=1)
    queue.cancel(job_id)
    clock.advance(2)
    queue.store.advance()

    assert queue.take() == []
    assert queue.status(job_id) is Status.CANCELED


def test_a_reset_job_has_no_delay_any_more(queue: Queue) -> None:
    job_id = queue.add(delay=100)
    queue.cancel(job_id)
    queue.reset(job_id)

    assert queue.get(job_id).due_us is None
    assert queue.take_one().id == job_id


# Leases and crashes.


def test_an_expired_job_is_ready_at_once_and_one_crash_is_counted(queue: Queue) -> None:
    job_id = queue.add()
    queue.retry(queue.take_one())
    queue.take_one()
    queue.expire()
    record = queue.get(job_id)

    assert (record.status, record.crashes, record.retries) == (Status.READY, 1, 1)
    assert (record.holder, record.lease_until_us) == (None, None)
    assert queue.take_one().attempt == 3


def test_leases_end_each_at_its_own_time(queue: Queue) -> None:
    ids = {lease: queue.add(lease=lease) for lease in (5.0, 1.0, 3.0)}
    queue.take(n=3)
    ready = []
    for _ in range(6):
        queue.expire(1)
        ready.append([lease for lease in ids if queue.status(ids[lease]) is Status.READY])

    assert ready == [[1.0], [1.0], [1.0, 3.0], [1.0, 3.0], [5.0, 1.0, 3.0], [5.0, 1.0, 3.0]]


def test_settled_jobs_do_not_expire(queue: Queue) -> None:
    ids = queue.add_many(3)
    held = queue.take(n=3)
    queue.done(held[0])
    queue.retry(held[1], 10_000)
    queue.release(held[2])
    queue.expire()

    assert [queue.get(job_id).crashes for job_id in ids] == [0, 0, 0]


def test_a_lease_may_be_shorter_than_a_second(queue: Queue) -> None:
    job_id = queue.add(lease=0.2)
    queue.take_one()
    queue.expire(0.199)
    assert queue.status(job_id) is Status.RESERVED

    queue.expire(0.001)
    assert queue.status(job_id) is Status.READY


@pytest.mark.parametrize("most", [1, 2, 5])
def test_a_job_whose_holders_keep_dying_is_poison(queue: Queue, most: int) -> None:
    job_id = queue.add(max_crashes=most)
    for crashes in range(1, most + 1):
        queue.expire_one_holder()
        assert queue.get(job_id).crashes == crashes
        assert queue.status(job_id) is Status.READY
    queue.expire_one_holder()
    record = queue.get(job_id)

    assert (record.status, record.reason) == (Status.CANCELED, Reason.POISON)
    assert record.crashes == most + 1
    assert record.ended_us == queue.clock.wall_us()


def test_five_crashes_are_borne_unless_a_job_says_otherwise(queue: Queue) -> None:
    job_id = queue.add()
    for _ in range(5):
        queue.expire_one_holder()
    assert queue.status(job_id) is Status.READY

    queue.expire_one_holder()
    assert queue.get(job_id).reason is Reason.POISON


def test_max_crashes_0_bears_any_number(queue: Queue) -> None:
    job_id = queue.add(max_crashes=0)
    for _ in range(40):
        queue.expire_one_holder()

    assert queue.status(job_id) is Status.READY
    assert queue.get(job_id).crashes == 40


def test_crashes_leave_the_retries_alone_and_retries_the_crashes(queue: Queue) -> None:
    job_id = queue.add(max_crashes=2, max_retries=3)
    for retries in (1, 2, 3):
        queue.retry(queue.take_one())
        assert queue.get(job_id).retries == retries
    for crashes in (1, 2):
        queue.expire_one_holder()
        assert queue.get(job_id).crashes == crashes
    record = queue.get(job_id)

    assert (record.status, record.retries, record.crashes) == (Status.READY, 3, 2)


def test_expired_jobs_of_one_step_are_judged_each_for_itself(queue: Queue) -> None:
    tough = queue.add(max_crashes=0)
    weak = queue.add(max_crashes=1)
    for _ in range(2):
        queue.take(n=2)
        queue.expire()

    assert queue.status(tough) is Status.READY
    assert queue.get(weak).reason is Reason.POISON


def test_more_leases_than_one_step_takes_end_after_some_steps(queue: Queue) -> None:
    queue.add_many(1000)
    queue.take(n=1000)
    queue.clock.advance(LEASE_S)
    steps = []
    while (step := queue.store.advance(300)).expired:
        steps.append(step.expired)

    assert sum(steps) == 1000
    assert max(steps) <= 300
    assert queue.counts() == {"ready": 1000}


# The clocks.


@pytest.mark.parametrize("step", [HOUR_S, 48 * HOUR_S, -HOUR_S, -48 * HOUR_S])
def test_a_step_of_the_wall_clock_leaves_leases_untouched(
    queue: Queue, clock: ManualClock, step: float
) -> None:
    job_id = queue.add()
    held = queue.take_one()
    clock.step_wall(step)
    queue.expire(LEASE_S - 1)
    assert queue.status(job_id) is Status.RESERVED
    assert queue.store.holds(held.id, held.token)

    clock.step_wall(-step)
    queue.expire(1)
    assert queue.status(job_id) is Status.READY
    assert queue.get(job_id).crashes == 1


@pytest.mark.parametrize("step", [HOUR_S, -HOUR_S])
def test_a_lease_that_is_set_after_a_step_is_as_long_as_any(
    queue: Queue, clock: ManualClock, step: float
) -> None:
    queue.add()
    clock.step_wall(step)
    held = queue.take_one()
    queue.expire(LEASE_S - 1)
    assert queue.extend(held) is Outcome.OK

    clock.step_wall(-step)
    queue.expire(LEASE_S - 1)
    assert queue.done(held) is Outcome.OK


def test_delayed_jobs_follow_the_wall_clock(queue: Queue, clock: ManualClock) -> None:
    job_id = queue.add(delay=HOUR_S)
    clock.step_wall(-2 * HOUR_S)
    clock.advance(HOUR_S)
    assert queue.take() == []

    clock.step_wall(2 * HOUR_S)
    assert queue.take_one().id == job_id


def test_a_clock_that_steps_back_and_forth_loses_and_doubles_nothing(
    queue: Queue, clock: ManualClock
) -> None:
    pick = random.Random(11)
    ids, finished = [], []
    for _ in range(60):
        clock.step_wall(pick.uniform(-9, 9) * HOUR_S)
        clock.advance(pick.uniform(0, 2))
        ids += queue.store.enqueue([spec(delay=pick.choice([0, 0.5, HOUR_S]), max_crashes=0)])
        for held in queue.take(n=2):
            if pick.random() < 0.7:
                assert queue.done(held) is Outcome.OK
                finished.append(held.id)
            else:
                queue.settle(release(held, pick.choice([0.0, 0.3])))
    clock.step_wall(1000 * HOUR_S)
    while held_last := queue.take(n=10):
        finished += [job.id for job in held_last]
        queue.store.settle([done(job) for job in held_last])

    assert sorted(finished) == sorted(ids)
    assert all(earlier < later for earlier, later in pairwise(ids))
