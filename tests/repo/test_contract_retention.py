"""The contract of every store: how long finished jobs are kept, and that no other is pruned."""

from typing import Any

import pytest

from jobq.clock import ManualClock
from jobq.repo.base import ReserveRequest, Retention
from jobq.states import Outcome, Reason, Status
from tests.conftest import Opener
from tests.repo.conftest import Queue, done, retry, spec

DAY_S = 86_400.0
SECOND_US = 1_000_000


def finish(queue: Queue, count: int = 1, **more: Any) -> list[bytes]:
    ids = queue.add_many(count)
    settled = queue.store.settle([done(held, **more) for held in queue.take(n=count)])
    assert settled.outcomes == [Outcome.OK] * count
    return ids


def test_a_done_job_is_kept_for_a_day(queue: Queue, clock: ManualClock) -> None:
    (job_id,) = finish(queue)
    clock.advance(DAY_S - 0.000001)
    assert queue.store.prune() == 0
    assert queue.status(job_id) is Status.DONE

    clock.advance(0.000001)
    assert queue.store.prune() == 1
    assert queue.find(job_id) is None


def test_a_canceled_job_is_kept_for_a_week(queue: Queue, clock: ManualClock) -> None:
    job_id = queue.add()
    queue.cancel(job_id)
    clock.advance(7 * DAY_S - 0.000001)
    assert queue.store.prune() == 0

    clock.advance(0.000001)
    assert queue.store.prune() == 1
    assert queue.find(job_id) is None


def test_a_store_can_keep_them_longer_or_shorter(opener: Opener, clock: ManualClock) -> None:
    store = opener(retention=Retention(done_us=2 * SECOND_US, canceled_us=SECOND_US))
    queue = Queue(store, clock)
    (kept,) = finish(queue)
    gone = queue.add()
    queue.cancel(gone)
    clock.advance(1)

    assert queue.store.prune() == 1
    assert (queue.status(kept), queue.status(gone)) == (Status.DONE, None)
    clock.advance(1)
    assert queue.store.prune() == 1


@pytest.mark.parametrize("keep_s", [0.5, 30 * DAY_S])
def test_a_job_can_say_how_long_it_is_kept(queue: Queue, clock: ManualClock, keep_s: float) -> None:
    (job_id,) = finish(queue, keep_us=int(keep_s * SECOND_US))
    clock.advance(keep_s - 0.1)
    queue.store.prune()
    assert queue.status(job_id) is Status.DONE

    clock.advance(0.1)
    queue.store.prune()
    assert queue.status(job_id) is None


def test_a_jobs_own_retention_holds_when_others_cancel_it_or_it_is_poison(
    queue: Queue, clock: ManualClock
) -> None:
    canceled = queue.add(retention=1.0)
    queue.cancel(canceled)
    poison = queue.add(retention=1.0, max_crashes=1)
    for _ in range(2):
        queue.expire_one_holder()
    assert queue.get(poison).reason is Reason.POISON

    clock.advance(1)
    queue.store.prune()
    assert queue.counts() == {}


def test_retention_0_forgets_at_once(queue: Queue) -> None:
    (finished,) = finish(queue, keep_us=0)
    canceled = queue.add(retention=0.0)
    queue.cancel(canceled)
    poison = queue.add(retention=0.0, max_crashes=1)
    for _ in range(2):
        queue.expire_one_holder()

    assert [queue.find(job_id) for job_id in (finished, canceled, poison)] == [None] * 3
    assert queue.counts() == {}


def test_retention_0_does_not_wait_behind_a_backlog_of_others(
    queue: Queue, clock: ManualClock
) -> None:
    finish(queue, 200)
    clock.advance(DAY_S)
    (job_id,) = finish(queue, keep_us=0)

    assert queue.find(job_id) is None


def test_retention_0_keeps_neither_result_nor_error(queue: Queue) -> None:
    queue.add_many(2, retention=0.0)
    first, second = queue.take(n=2)
    queue.retry(first, error="once")
    queue.done(queue.take_one(), keep_us=0, result=b"r", error="e")
    queue.settle(retry(second, None, keep_us=0, error="x"))

    assert queue.counts() == {}  # and `check` at the end finds no note that belongs to nobody


def test_a_repeated_done_of_a_forgotten_job_finds_nothing_and_does_nothing(queue: Queue) -> None:
    queue.add()
    settlement = done(queue.take_one(), keep_us=0, follow=(spec("next"),))

    assert queue.store.settle([settlement, settlement]).outcomes == [Outcome.OK, Outcome.OK]
    assert queue.settle(settlement) is Outcome.MISSING
    assert queue.counts() == {"ready": 1}


def test_done_jobs_beyond_the_most_that_are_kept_go_the_soonest_to_go_first(
    opener: Opener, clock: ManualClock
) -> None:
    queue = Queue(opener(retention=Retention(max_done=3)), clock)
    ids = []
    for _ in range(5):
        ids += finish(queue)
        clock.advance(1)

    assert [queue.status(job_id) for job_id in ids] == [None, None, *[Status.DONE] * 3]


def test_a_short_retention_goes_before_an_older_long_one_when_there_are_too_many(
    opener: Opener, clock: ManualClock
) -> None:
    queue = Queue(opener(retention=Retention(max_done=2)), clock)
    (old,) = finish(queue)
    (short,) = finish(queue, keep_us=SECOND_US)
    (new,) = finish(queue)

    assert [queue.status(job_id) for job_id in (old, short, new)] == [
        Status.DONE, None, Status.DONE,
    ]  # fmt: skip


def test_max_done_0_keeps_none(opener: Opener, clock: ManualClock) -> None:
    queue = Queue(opener(retention=Retention(max_done=0)), clock)
    finish(queue, 3)
    canceled = queue.add()
    queue.cancel(canceled)

    assert queue.counts() == {"canceled": 1}


def test_finishing_jobs_prunes_twice_as_many_and_a_few(queue: Queue, clock: ManualClock) -> None:
    finish(queue, 200)
    clock.advance(DAY_S)
    finish(queue, 5)
    assert queue.counts() == {"done": 200 - (2 * 5 + 16) + 5}

    queue.cancel(queue.add())
    assert queue.counts() == {"done": 205 - 26 - 18, "canceled": 1}


def test_a_lowered_limit_of_the_store_takes_effect_step_by_step(
    durable_opener: Opener, clock: ManualClock
) -> None:
    first = durable_opener()
    finish(Queue(first, clock), 100)
    durable_opener.close(first)
    queue = Queue(durable_opener(retention=Retention(max_done=10)), clock)
    assert queue.counts() == {"done": 100}

    finish(queue, 3)
    assert queue.counts() == {"done": 103 - (2 * 3 + 16)}
    assert queue.store.prune() == 71


def test_prune_takes_steps_no_larger_than_asked_for(queue: Queue, clock: ManualClock) -> None:
    finish(queue, 10)
    queue.store.cancel(queue.add_many(10))
    clock.advance(8 * DAY_S)

    assert [queue.store.prune(8) for _ in range(4)] == [8, 8, 4, 0]
    assert queue.counts() == {}


@pytest.mark.parametrize("retention", [Retention(0, 0, 0), Retention(1, 1, 1)])
def test_nothing_unfinished_is_ever_pruned(
    opener: Opener, clock: ManualClock, retention: Retention
) -> None:
    queue = Queue(opener(retention=retention), clock)
    options: dict[str, Any] = {"retention": 0.0, "lease": 100 * 365 * DAY_S}
    queue.add_many(3, **options)
    queue.take(n=2)
    queue.add(delay=50 * 365 * DAY_S, **options)
    retried = queue.add("other", **options)
    queue.retry(queue.take_one("other"), 50 * 365 * DAY_S)
    clock.advance(10 * 365 * DAY_S)
    for _ in range(20):
        queue.add("churn")
        queue.done(queue.take_one("churn"))
    while queue.store.prune():
        pass

    assert queue.counts("mail") == {"ready": 1, "delayed": 1, "reserved": 2}
    assert queue.status(retried) is Status.DELAYED


def test_a_reset_job_is_not_pruned_when_its_old_time_comes(
    queue: Queue, clock: ManualClock
) -> None:
    (job_id,) = finish(queue)
    queue.reset(job_id)
    clock.advance(8 * DAY_S)

    assert queue.store.prune() == 0
    assert queue.status(job_id) is Status.READY


def test_a_backlog_of_finished_jobs_shrinks_while_the_queue_is_used(
    opener: Opener, clock: ManualClock
) -> None:
    queue = Queue(opener(retention=Retention(done_us=SECOND_US)), clock)
    for _ in range(50):
        finish(queue, 10)
        clock.advance(0.5)

    assert queue.counts()["done"] <= 30


def test_a_step_of_the_wall_clock_prunes_nothing_unfinished(
    queue: Queue, clock: ManualClock
) -> None:
    finish(queue)
    queue.add_many(2)
    queue.take()
    queue.add(delay=10)
    clock.step_wall(-9 * DAY_S)
    assert queue.store.prune() == 0

    clock.step_wall(99 * DAY_S)
    assert queue.store.prune() == 1
    queue.store.reserve(ReserveRequest("nowhere", 1))
    assert queue.counts() == {"ready": 2, "reserved": 1}
