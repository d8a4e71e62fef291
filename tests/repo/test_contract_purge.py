"""The contract of every store: forgetting the jobs of a topic."""

import pytest

from jobq.clock import ManualClock
from jobq.job import Change
from jobq.repo.base import Purged, PurgeFrom
from jobq.states import Outcome, Status
from tests.conftest import Opener
from tests.repo.conftest import Queue, done

WAITING = frozenset({Status.READY, Status.DELAYED})
GONE = [status for status in Status if status is not Status.RESERVED]


def purge(
    queue: Queue, topic: str = "mail", statuses: frozenset[Status] = WAITING, limit: int = 1000
) -> list[int]:
    """All steps of a purge: how many jobs each has forgotten."""
    steps = []
    after: PurgeFrom | None = None
    while True:
        jobs, after = queue.store.purge(topic, statuses, after, limit)
        assert jobs <= limit
        steps.append(jobs)
        if after is None:
            return steps


def one_of_each(queue: Queue, topic: str) -> dict[Status, bytes]:
    """A job of a topic in every state."""
    ids = {}
    for status in (Status.DONE, Status.CANCELED, Status.RESERVED):
        ids[status] = queue.add(topic, payload=b"p")
        held = queue.take_one(topic)
        if status is Status.DONE:
            queue.done(held, result=b"r")
        elif status is Status.CANCELED:
            queue.store.cancel([held.id], "why")
    ids[Status.READY] = queue.add(topic)
    ids[Status.DELAYED] = queue.add(topic, delay=5)
    return ids


@pytest.mark.parametrize("status", GONE)
def test_the_jobs_of_one_topic_in_one_state_are_forgotten_and_no_others(
    queue: Queue, status: Status
) -> None:
    ids, others = one_of_each(queue, "mail"), one_of_each(queue, "mail-slow")

    assert sum(purge(queue, statuses=frozenset({status}))) == 1
    assert [status for status, job_id in ids.items() if queue.find(job_id) is None] == [status]
    assert queue.counts("mail-slow") == {status.value: 1 for status in others}


def test_what_waits_is_forgotten_and_what_is_held_or_finished_stays(queue: Queue) -> None:
    one_of_each(queue, "mail")
    queue.add_many(3, delay=9)

    assert sum(purge(queue)) == 5
    assert queue.counts() == {"reserved": 1, "done": 1, "canceled": 1}
    assert queue.take() == []


def test_a_topic_that_is_not_there_or_is_empty_has_nothing_to_forget(queue: Queue) -> None:
    assert queue.store.purge("nowhere", WAITING, None, 10) == Purged(0, None)
    queue.delete(queue.add())
    assert queue.store.purge("mail", WAITING, None, 10) == Purged(0, None)
    queue.add("other")
    assert queue.store.purge("mail", WAITING, None, 10) == Purged(0, None)
    assert queue.store.topics() == ["mail", "other"]


def test_a_purge_goes_in_steps_no_larger_than_asked_for(queue: Queue) -> None:
    queue.add_many(10)
    queue.add_many(7, delay=5)
    queue.add_many(5, "other")

    steps = purge(queue, limit=4)
    assert (sum(steps), max(steps)) == (17, 4)
    assert queue.counts() == {"ready": 5}


def test_a_purge_of_ready_jobs_looks_at_no_others(queue: Queue) -> None:
    queue.add_many(500, "crowd", delay=5)
    queue.add_many(3)

    assert purge(queue, limit=10) == [3]


def test_a_purge_ends_as_soon_as_the_topic_has_no_more(queue: Queue) -> None:
    queue.add_many(2, delay=5)
    queue.add_many(500, "crowd", delay=5)

    assert len(purge(queue, limit=100)) == 1


def test_jobs_of_all_weights_are_forgotten(queue: Queue) -> None:
    for weight in (-32_768, -1, 0, 0, 32_767, 32_767):
        queue.add(weight=weight)

    assert sum(purge(queue, limit=2)) == 6


def test_jobs_that_come_to_the_topic_later_stay_and_do_not_keep_a_purge_from_its_end(
    queue: Queue,
) -> None:
    """Before each step more jobs come than it looks at, before and behind the old ones."""
    queue.add_many(9)
    queue.add_many(9, delay=5)
    elsewhere = queue.add_many(100, "elsewhere")
    queue.add_many(9, delay=5)
    new: list[bytes] = []
    total, after = queue.store.purge("mail", WAITING, None, 4)
    for _ in range(100):
        if after is None:
            break
        new += [queue.add(weight=-5), queue.add(), *queue.add_many(4, delay=7)]
        moved = elsewhere[len(new) // 6 :][:2]
        queue.store.edit(moved, Change(topic="mail"))
        new += moved
        jobs, after = queue.store.purge("mail", WAITING, after, 4)
        total += jobs

    assert after is None
    assert total == 27
    assert all(queue.find(job_id) for job_id in new)


def test_jobs_with_results_and_errors_leave_nothing_behind(queue: Queue) -> None:
    one_of_each(queue, "mail")
    for status in GONE:
        purge(queue, statuses=frozenset({status}))

    assert queue.counts() == {"reserved": 1}  # and `check` at the end finds no note left


def test_a_delayed_job_whose_time_has_come_is_purged_as_ready(
    queue: Queue, clock: ManualClock
) -> None:
    queue.add(delay=1)
    clock.advance(1)

    assert purge(queue, statuses=frozenset({Status.DELAYED})) == [0]
    assert purge(queue, statuses=frozenset({Status.READY})) == [1]


def test_a_purged_topic_goes_on(queue: Queue) -> None:
    queue.store.configure("mail", {"keep_done": 5.0})
    queue.add_many(3)
    held = queue.take_one()
    purge(queue)
    job_id = queue.add()

    assert queue.done(held) is Outcome.OK
    assert queue.take_one().id == job_id
    assert queue.store.settings("mail").keep_done == 5.0


def test_a_job_that_was_moved_is_purged_with_its_new_topic(queue: Queue) -> None:
    moved, late = queue.add("old"), queue.add("old", delay=5)
    queue.store.edit([moved, late], Change(topic="new"))

    assert sum(purge(queue, "old")) == 0
    assert sum(purge(queue, "new")) == 2


def test_a_purge_outlives_the_store(durable_opener: Opener, clock: ManualClock) -> None:
    first = durable_opener()
    queue = Queue(first, clock)
    queue.add_many(300)
    queue.store.settle([done(held) for held in queue.take(n=100)])
    purge(queue)
    purge(queue, statuses=frozenset({Status.DONE}), limit=70)
    durable_opener.close(first)

    assert durable_opener().stats().totals.total == 0


# Groups.


@pytest.mark.parametrize("limit", [1, 2, 5, 1000])
def test_ready_jobs_of_all_groups_are_forgotten_in_steps(queue: Queue, limit: int) -> None:
    for number in range(12):
        queue.add(group=f"g{number % 4}", weight=number % 3, payload=b"p")
    queue.add()
    queue.add(group="g0", delay=9)
    others = [queue.add("mail-slow", group="g0"), queue.add("mail-slow")]

    assert sum(purge(queue, statuses=frozenset({Status.READY}), limit=limit)) == 13
    assert queue.counts("mail") == {"delayed": 1}
    assert queue.order("mail-slow") == others


def test_a_purge_of_groups_comes_to_an_end_while_others_enqueue(queue: Queue) -> None:
    for number in range(9):
        queue.add(group=f"g{number}")
    gone = 0
    later: list[bytes] = []
    after: PurgeFrom | None = None
    while True:
        jobs, after = queue.store.purge("mail", WAITING, after, 2)
        gone += jobs
        if after is None:
            break
        later += [queue.add(group=f"g{len(later) % 12}"), queue.add(group=f"a{len(later)}")]

    assert gone == 9
    assert set(queue.order()) == set(later)


def test_a_purge_leaves_a_group_whose_job_is_held_as_it_was(queue: Queue) -> None:
    queue.store.configure("mail", {"group_concurrency": 1})
    first, *_ = [queue.add(group="g") for _ in range(3)]
    held = queue.take_one()
    assert held.id == first
    assert sum(purge(queue)) == 2

    last = queue.add(group="g")
    assert queue.take() == []
    queue.done(held)
    assert queue.take_one().id == last
