"""The contract of every store: who comes next."""

import random

from jobq.clock import ManualClock
from jobq.repo.base import ReserveRequest, Store
from jobq.states import Outcome
from tests.repo.conftest import Queue, done, spec


def test_jobs_of_one_weight_come_in_the_order_of_enqueueing(queue: Queue) -> None:
    ids = queue.add_many(3) + [queue.add() for _ in range(3)]

    assert [queue.take_one().id for _ in ids] == ids


def test_lower_weights_come_first_over_the_whole_of_int16(queue: Queue) -> None:
    weights = [0, 32_767, -32_768, 1, -1, 256, -256, 255, -255]
    for weight in weights:
        queue.add(weight=weight)

    assert [held.weight for held in queue.take(n=20)] == sorted(weights)


def test_weight_decides_before_age_and_age_within_a_weight(queue: Queue) -> None:
    # More than one commit and more than one batch, weights mixed within both.
    weights = [random.Random(1).randrange(-3, 3) for _ in range(60)]
    ids = queue.store.enqueue([spec(weight=weight) for weight in weights[:40]])
    ids += [queue.add(weight=weight) for weight in weights[40:]]
    expected = [job_id for _, job_id in sorted(zip(weights, ids, strict=True), key=lambda w: w[0])]

    assert [held.id for held in queue.take(n=25) + queue.take(n=100)] == expected


def test_a_reservation_takes_as_many_as_asked_for_or_as_there_are(queue: Queue) -> None:
    queue.add_many(5)

    assert [len(queue.take(n=n)) for n in (2, 10, 1)] == [2, 3, 0]


def test_a_released_retried_or_expired_job_keeps_its_place(queue: Queue) -> None:
    first, second, third, fourth = queue.add_many(4)
    queue.release(queue.take_one())
    assert queue.order() == [first, second, third, fourth]

    queue.retry(queue.take_one())
    assert queue.order() == [first, second, third, fourth]

    queue.expire_one_holder()
    assert queue.order() == [first, second, third, fourth]


def test_a_job_that_had_to_wait_takes_part_from_its_old_place(
    queue: Queue, clock: ManualClock
) -> None:
    delayed = queue.add(delay=5)
    ready = queue.add()
    snoozed, retried = queue.add(), queue.add()
    last = queue.add()
    held = {job.id: job for job in queue.take(n=10)}
    queue.release(held[snoozed], 5)
    queue.retry(held[retried], 5)
    queue.release(held[last])
    queue.release(held[ready])
    assert queue.order() == [ready, last]

    clock.advance(5)
    assert queue.order() == [delayed, ready, snoozed, retried, last]


def test_a_promoted_job_stands_by_its_weight(queue: Queue, clock: ManualClock) -> None:
    heavy = queue.add(weight=5)
    delayed = queue.add(weight=4, delay=1)
    light = queue.add(weight=3)
    clock.advance(1)

    assert queue.order() == [light, delayed, heavy]


def test_a_reset_job_goes_to_the_back_of_its_weight(queue: Queue) -> None:
    first = queue.add()
    queue.done(queue.take_one())
    second, heavy = queue.add(), queue.add(weight=1)
    queue.reset(first)

    assert queue.order() == [second, first, heavy]


def test_jobs_that_are_reset_together_line_up_as_they_were_named(queue: Queue) -> None:
    ids = queue.add_many(3)
    queue.store.settle([done(held) for held in queue.take(n=3)])
    queue.store.reset([ids[2], ids[0], ids[1]])

    assert queue.order() == [ids[2], ids[0], ids[1]]


def test_follow_up_jobs_line_up_behind_what_is_there(queue: Queue) -> None:
    queue.add()
    held = queue.take_one()
    other = queue.add()
    settled = queue.store.settle([done(held, follow=(spec(), spec(weight=-1), spec()))])
    ((first, urgent, second),) = settled.follow_ids

    assert queue.order() == [urgent, other, first, second]


def test_a_cancelled_job_leaves_the_order_of_the_others_alone(queue: Queue) -> None:
    ids = queue.add_many(5)
    queue.cancel(ids[2])
    queue.delete(ids[0])

    assert queue.order() == [ids[1], ids[3], ids[4]]


def test_a_settlement_can_reserve_in_the_same_commit(queue: Queue) -> None:
    first, second, third = queue.add_many(3)
    held = queue.take_one()
    settled = queue.store.settle([done(held)], ReserveRequest("mail", 2))

    assert settled.outcomes == [Outcome.OK]
    assert [job.id for job in settled.reserved] == [second, third]
    assert queue.counts() == {"reserved": 2, "done": 1}
    assert held.id == first


def test_what_is_settled_now_can_be_reserved_in_the_same_commit(queue: Queue) -> None:
    queue.add()
    settled = queue.store.settle(
        [done(queue.take_one(), follow=(spec(),))], ReserveRequest("mail", 1)
    )

    assert [job.id for job in settled.reserved] == settled.follow_ids[0]


def test_a_lost_settlement_reserves_all_the_same(queue: Queue) -> None:
    queue.add_many(2)
    stale = queue.take_one()
    queue.cancel(stale.id)
    settled = queue.store.settle([done(stale)], ReserveRequest("mail", 1))

    assert settled.outcomes == [Outcome.STALE]
    assert len(settled.reserved) == 1


def test_nothing_to_settle_and_nothing_to_reserve_is_no_error(store: Store) -> None:
    assert store.settle([]) == ([], [], [])
    assert store.enqueue([]) == []
    assert store.extend([]) == store.cancel([]) == store.reset([]) == store.delete([]) == []
    assert store.status([]) == []
    assert store.get([]) == []
    assert store.reserve(ReserveRequest("nowhere", 1)) == []
    assert store.topics() == []


def test_ids_grow_in_the_order_of_enqueueing_even_when_the_clock_steps_back(
    queue: Queue, clock: ManualClock
) -> None:
    ids = queue.add_many(3)
    for step in (3600, -7200, 0.001, -0.001, -86_400 * 365, 86_400 * 366):
        clock.step_wall(step)
        ids += queue.add_many(2)

    assert ids == sorted(ids)
    assert len(set(ids)) == len(ids)
    assert {len(job_id) for job_id in ids} == {16}


def test_places_grow_even_when_the_clock_steps_back(queue: Queue, clock: ManualClock) -> None:
    ids = [queue.add()]
    for step in (-3600, 7200, -86_400):
        clock.step_wall(step)
        ids.append(queue.add())

    assert queue.order() == ids


def test_a_deleted_id_is_not_given_again(queue: Queue) -> None:
    first = queue.add()
    queue.delete(first)

    assert queue.add() > first


def test_one_reservation_takes_no_more_than_64_mib_but_at_least_one_job(queue: Queue) -> None:
    payload = bytes(1024 * 1024)
    ids = queue.store.enqueue([spec(payload=payload)] * 70)
    first, second = queue.take(n=100), queue.take(n=100)

    assert [held.id for held in first] == ids[: len(first)]
    assert [held.id for held in second] == ids[len(first) :]
    assert sum(len(held.payload) for held in first) <= 64 * 1024 * 1024
    assert len(first) >= 32
