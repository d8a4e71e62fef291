"""The contract of every store: tokens, repeated settlements, holders that come too late."""

from collections.abc import Callable

import pytest

from jobq.clock import ManualClock
from jobq.job import Reservation, Settlement
from jobq.repo.base import ReserveRequest
from jobq.repo.transactional import STEP
from jobq.states import Event, Outcome, Reason, Status
from tests.repo.conftest import LEASE_S, Queue, done, release, retry, spec

Settle = Callable[[Reservation], Settlement]


def give_up(held: Reservation) -> Settlement:
    return Settlement(held.id, held.token, Event.CANCEL, reason=Reason.REJECTED)


def retry_later(held: Reservation) -> Settlement:
    return retry(held, 60.0)


def release_later(held: Reservation) -> Settlement:
    return release(held, 60.0)


def exhaust(held: Reservation) -> Settlement:
    return retry(held, None)


SETTLEMENTS = [done, retry, retry_later, exhaust, release, release_later, give_up]

settlements = pytest.mark.parametrize("settle", SETTLEMENTS, ids=lambda settle: settle.__name__)


def test_a_token_grows_with_every_reservation_of_the_job(queue: Queue) -> None:
    queue.add()
    tokens = []
    for settle in (release, retry, exhaust, done):
        held = queue.take_one()
        tokens.append(held.token)
        queue.settle(settle(held))
        queue.store.reset([held.id])
    queue.expire_one_holder()
    tokens.append(queue.take_one().token)

    assert tokens == [1, 2, 3, 4, 6]


@settlements
def test_a_settlement_repeated_with_its_token_is_a_no_op(queue: Queue, settle: Settle) -> None:
    job_id = queue.add()
    settlement = settle(queue.take_one())
    first = queue.settle(settlement)
    after = queue.get(job_id), queue.counts()

    assert first is Outcome.OK
    assert [queue.settle(settlement) for _ in range(3)] == [Outcome.OK] * 3
    assert (queue.get(job_id), queue.counts()) == after


@settlements
def test_a_repeated_settlement_does_not_replace_result_error_or_delay(
    queue: Queue, settle: Settle
) -> None:
    job_id = queue.add()
    settlement = settle(queue.take_one())
    queue.settle(settlement._replace(result=b"first", error="first"))
    after = queue.get(job_id)
    delay_us = None if settlement.delay_us is None else 99
    other = settlement._replace(result=b"second", error="second", delay_us=delay_us, keep_us=1)

    assert queue.settle(other) is Outcome.OK
    assert queue.get(job_id) == after


@settlements
@pytest.mark.parametrize("other", SETTLEMENTS, ids=lambda settle: settle.__name__)
def test_another_settlement_after_the_first_comes_too_late(
    queue: Queue, settle: Settle, other: Settle
) -> None:
    job_id = queue.add()
    held = queue.take_one()
    queue.settle(settle(held))
    after = queue.get(job_id), queue.counts()
    same = settle(held).event is other(held).event

    assert queue.settle(other(held)) is (Outcome.OK if same else Outcome.STALE)
    assert (queue.get(job_id), queue.counts()) == after


@settlements
def test_a_holder_whose_lease_is_over_changes_nothing(queue: Queue, settle: Settle) -> None:
    job_id = queue.add()
    late = queue.take_one()
    queue.expire()
    after = queue.get(job_id)

    assert queue.settle(settle(late)) is Outcome.STALE
    assert queue.extend(late) is Outcome.STALE
    assert not queue.store.holds(late.id, late.token)
    assert queue.get(job_id) == after


@settlements
def test_a_holder_cannot_settle_what_somebody_else_holds_by_now(
    queue: Queue, settle: Settle
) -> None:
    job_id = queue.add()
    late = queue.take_one()
    queue.expire()
    now = queue.take_one()
    after = queue.get(job_id)

    assert queue.settle(settle(late)) is Outcome.STALE
    assert queue.extend(late) is Outcome.STALE
    assert queue.get(job_id) == after
    assert queue.store.holds(now.id, now.token)
    assert queue.settle(settle(now)) is Outcome.OK


@settlements
def test_a_holder_is_too_late_even_if_its_successor_said_the_same(
    queue: Queue, settle: Settle
) -> None:
    job_id = queue.add()
    late = queue.take_one()
    queue.expire()
    now = queue.take_one()
    queue.settle(settle(now))
    after = queue.get(job_id)

    assert queue.settle(settle(late)) is Outcome.STALE
    assert queue.get(job_id) == after
    assert queue.settle(settle(now)) is Outcome.OK


def test_a_lease_is_over_when_its_time_has_passed_even_if_nobody_looked(
    queue: Queue, clock: ManualClock
) -> None:
    queue.add()
    held = queue.take_one()
    clock.advance(LEASE_S - 0.000001)
    assert queue.store.holds(held.id, held.token)

    clock.advance(0.000001)
    assert not queue.store.holds(held.id, held.token)
    assert queue.done(held) is Outcome.STALE


def test_a_lease_is_over_when_its_time_has_passed_even_behind_a_backlog_of_others(
    queue: Queue, clock: ManualClock
) -> None:
    """Each call moves a bounded step of what is due: whether it came to a job decides nothing."""
    queue.add_many(2 * STEP + 2)
    held = queue.take(n=2 * STEP + 2)
    clock.advance(LEASE_S)

    assert queue.extend(held[-1]) is Outcome.STALE
    assert queue.done(held[-2]) is Outcome.STALE
    assert queue.counts()["reserved"] == 2  # neither was moved by these two calls


@settlements
def test_a_repeat_is_too_late_once_the_job_was_reserved_again(queue: Queue, settle: Settle) -> None:
    job_id = queue.add()
    first = queue.take_one()
    queue.settle(settle(first))
    queue.store.cancel([job_id])  # where it is not finished yet ...
    queue.store.reset([job_id])  # ... so that it can be ready again
    second = queue.take_one()

    assert queue.settle(settle(first)) is Outcome.STALE
    assert queue.store.holds(second.id, second.token)


@settlements
def test_a_repeat_is_too_late_once_the_job_was_canceled_or_reset(
    queue: Queue, settle: Settle
) -> None:
    job_id = queue.add()
    held = queue.take_one()
    queue.settle(settle(held))
    touched = queue.cancel(job_id)
    if touched is Outcome.INVALID:  # it is finished
        touched = queue.reset(job_id)
    after = queue.get(job_id)

    assert touched is Outcome.OK
    assert queue.settle(settle(held)) is Outcome.STALE
    assert queue.get(job_id) == after


@pytest.mark.parametrize("settle", [retry_later, release_later], ids=lambda f: f.__name__)
def test_a_repeat_is_still_a_no_op_when_the_job_has_become_ready_by_itself(
    queue: Queue, clock: ManualClock, settle: Settle
) -> None:
    job_id = queue.add()
    settlement = settle(queue.take_one())
    queue.settle(settlement)
    clock.advance(60)
    queue.store.advance()

    assert queue.settle(settlement) is Outcome.OK
    assert queue.status(job_id) is Status.READY


@settlements
def test_a_canceled_job_cannot_be_settled_by_the_holder_it_was_taken_from(
    queue: Queue, settle: Settle
) -> None:
    job_id = queue.add()
    held = queue.take_one()
    assert queue.store.holds(held.id, held.token)
    queue.cancel(job_id)
    after = queue.get(job_id)

    assert not queue.store.holds(held.id, held.token)
    assert queue.settle(settle(held)) is Outcome.STALE
    assert queue.get(job_id) == after
    assert after.reason is Reason.CANCELED


def test_a_job_that_is_done_cannot_be_canceled(queue: Queue) -> None:
    job_id = queue.add()
    held = queue.take_one()
    queue.done(held, result=b"r")
    after = queue.get(job_id)

    assert queue.cancel(job_id) is Outcome.INVALID
    assert queue.give_up(held) is Outcome.STALE
    assert queue.get(job_id) == after


@pytest.mark.parametrize("token", [0, 2, 2**31])
def test_a_token_that_was_never_given_settles_nothing(queue: Queue, token: int) -> None:
    queue.add()
    held = queue.take_one()
    forged = held._replace(token=token)

    assert queue.done(forged) is queue.extend(forged) is Outcome.STALE
    assert not queue.store.holds(forged.id, forged.token)
    assert queue.counts() == {"reserved": 1}


def test_a_token_of_one_job_is_none_for_another(queue: Queue) -> None:
    queue.add_many(2)
    first = queue.take_one()
    queue.release(first)
    first, second = queue.take(n=2)
    assert (first.token, second.token) == (2, 1)

    assert queue.done(second._replace(token=first.token)) is Outcome.STALE


def test_extend_lets_the_lease_end_so_much_from_now(queue: Queue, clock: ManualClock) -> None:
    job_id = queue.add(lease=10.0)
    held = queue.take_one()
    clock.advance(9)
    assert queue.extend(held, 30) is Outcome.OK
    queue.expire(29)
    assert queue.status(job_id) is Status.RESERVED

    queue.expire(1)
    assert queue.status(job_id) is Status.READY


def test_extend_can_shorten_a_lease_too(queue: Queue) -> None:
    job_id = queue.add()
    queue.extend(queue.take_one(), 1)
    queue.expire(1)

    assert queue.status(job_id) is Status.READY


def test_extend_changes_nothing_but_the_lease(queue: Queue, clock: ManualClock) -> None:
    job_id = queue.add()
    held = queue.take_one()
    before = queue.get(job_id)
    clock.advance(1)
    queue.extend(held)
    after = queue.get(job_id)

    assert after.lease_until_us == clock.wall_us() + int(LEASE_S * 1e6)
    assert (after.status, after.attempt, after.reserved_us) == (
        before.status, before.attempt, before.reserved_us,
    )  # fmt: skip
    assert queue.done(held) is Outcome.OK


def test_follow_up_jobs_come_with_done_and_never_twice(queue: Queue) -> None:
    queue.add()
    settlement = done(queue.take_one(), follow=(spec("next"), spec("later", delay=5)))
    first = queue.store.settle([settlement])
    again = queue.store.settle([settlement, settlement])

    assert first.outcomes == [Outcome.OK]
    assert [queue.get(job_id).topic for job_id in first.follow_ids[0]] == ["next", "later"]
    assert again.outcomes == [Outcome.OK, Outcome.OK]
    assert again.follow_ids == [[], []]
    assert queue.counts() == {"ready": 1, "delayed": 1, "done": 1}


def test_a_stale_holder_brings_no_follow_up_jobs(queue: Queue) -> None:
    queue.add()
    late = queue.take_one()
    queue.expire()
    settled = queue.store.settle([done(late, follow=(spec("next"),))])

    assert settled.follow_ids == [[]]
    assert queue.counts("next") == {}


def test_follow_up_jobs_of_a_batch_are_told_by_position(queue: Queue) -> None:
    queue.add_many(4)
    held = queue.take(n=4)
    queue.cancel(held[1].id)
    settled = queue.store.settle(
        [
            done(held[0], follow=(spec("a"), spec("b"))),
            done(held[1], follow=(spec("lost"),)),
            done(held[2]),
            done(held[3], follow=(spec("c"),)),
        ]
    )
    topics = [[queue.get(job_id).topic for job_id in ids] for ids in settled.follow_ids]

    assert settled.outcomes == [Outcome.OK, Outcome.STALE, Outcome.OK, Outcome.OK]
    assert topics == [["a", "b"], [], [], ["c"]]


def test_no_job_is_handed_out_twice_while_it_is_held(queue: Queue) -> None:
    ids = queue.add_many(20)
    held = queue.take(n=5)
    taken = list(held)
    while held:
        settled = queue.store.settle([done(job) for job in held], ReserveRequest("mail", 5))
        held = settled.reserved
        taken += held

    assert [job.id for job in taken] == ids
    assert {job.token for job in taken} == {1}
