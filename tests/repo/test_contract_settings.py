"""The contract of every store: settings of topics, and how they decide what is kept."""

from typing import Any

import pytest

from jobq.clock import ManualClock
from jobq.repo.base import Retention, Store
from jobq.states import Outcome, Reason, Status
from jobq.topic import NO_SETTINGS, TopicSettings
from tests.conftest import Opener
from tests.repo.conftest import Queue, done

DAY_S = 86_400.0
SECOND_US = 1_000_000


def finish(queue: Queue, count: int = 1, topic: str = "mail", **options: Any) -> list[bytes]:
    ids = queue.add_many(count, topic, **options)
    settlements = [
        done(held, keep_us=held.options.retention_us) for held in queue.take(topic, n=count)
    ]
    assert queue.store.settle(settlements).outcomes == [Outcome.OK] * count
    return ids


# Settings.


def test_a_topic_has_no_settings_at_first_whether_it_exists_or_not(queue: Queue) -> None:
    queue.add("mail")

    assert queue.store.settings("mail") == NO_SETTINGS
    assert queue.store.settings("nowhere") == NO_SETTINGS
    assert queue.store.topics() == ["mail"]


def test_settings_given_change_and_the_others_stay(store: Store) -> None:
    first = store.configure("mail", {"keep_done": 5.0})
    second = store.configure("mail", {"keep_canceled": 0.0})

    assert first == TopicSettings(keep_done=5.0)
    assert second == TopicSettings(keep_done=5.0, keep_canceled=0.0)
    assert store.settings("mail") == second


def test_none_unsets_a_setting(store: Store) -> None:
    store.configure("mail", {"keep_done": 5.0, "keep_canceled": 6.0})

    assert store.configure("mail", {"keep_done": None}) == TopicSettings(keep_canceled=6.0)
    assert store.configure("mail", {"keep_canceled": None}) == NO_SETTINGS
    assert store.settings("mail") == NO_SETTINGS
    assert store.configure("mail", {"keep_canceled": None}) == NO_SETTINGS


def test_settings_are_those_of_one_topic(queue: Queue) -> None:
    queue.store.configure("mail", {"keep_done": 5.0})
    queue.store.configure("mail-slow", {"keep_done": 6.0})
    queue.add("mai")

    assert [queue.store.settings(name).keep_done for name in ("mai", "mail", "mail-slow")] == [
        None, 5.0, 6.0,
    ]  # fmt: skip


def test_a_topic_can_have_settings_before_it_has_jobs(queue: Queue) -> None:
    queue.store.configure("mail", {"keep_done": 0.0})
    assert queue.store.topics() == ["mail"]
    assert queue.store.stats("mail").totals.total == 0

    (job_id,) = finish(queue)
    assert queue.find(job_id) is None


def test_unsetting_what_no_topic_has_makes_none(store: Store) -> None:
    store.configure("mail", {"keep_done": None})

    assert store.topics() == []


def test_settings_outlive_the_store(durable_opener: Opener) -> None:
    first = durable_opener()
    first.configure("mail", {"keep_done": 5.0})
    durable_opener.close(first)

    assert durable_opener().settings("mail") == TopicSettings(keep_done=5.0)


def test_all_who_have_a_store_open_see_a_change_of_settings(
    durable_opener: Opener, clock: ManualClock
) -> None:
    first, second = durable_opener(), durable_opener()
    queue = Queue(second, clock)
    finish(queue)
    first.configure("mail", {"keep_done": 0.0})
    (job_id,) = finish(queue)

    assert second.settings("mail") == TopicSettings(keep_done=0.0)
    assert queue.find(job_id) is None


# How long jobs are kept.


def test_a_topic_can_keep_done_jobs_longer_or_shorter(queue: Queue, clock: ManualClock) -> None:
    queue.store.configure("short", {"keep_done": 1.0})
    queue.store.configure("long", {"keep_done": 2 * DAY_S})
    ids = [finish(queue, topic=name)[0] for name in ("short", "long", "mail")]
    clock.advance(1)
    queue.store.prune()
    assert [queue.status(job_id) for job_id in ids] == [None, Status.DONE, Status.DONE]

    clock.advance(DAY_S)
    queue.store.prune()
    assert [queue.status(job_id) for job_id in ids] == [None, Status.DONE, None]
    clock.advance(DAY_S)
    queue.store.prune()
    assert queue.counts() == {}


def test_a_topic_can_keep_canceled_jobs_for_a_time_of_their_own(
    queue: Queue, clock: ManualClock
) -> None:
    queue.store.configure("mail", {"keep_canceled": 1.0})
    ids = [*finish(queue), queue.add(), queue.add(max_crashes=1)]
    queue.cancel(ids[1])
    for _ in range(2):
        queue.expire_one_holder()
    assert queue.get(ids[2]).reason is Reason.POISON

    clock.advance(1)
    queue.store.prune()
    assert [queue.status(job_id) for job_id in ids] == [Status.DONE, None, None]


def test_a_jobs_own_retention_comes_before_its_topics(queue: Queue, clock: ManualClock) -> None:
    queue.store.configure("mail", {"keep_done": 0.0, "keep_canceled": 0.0})
    kept = finish(queue, retention=5.0)
    kept.append(queue.add(retention=5.0))
    queue.cancel(kept[1])
    queue.add()
    queue.done(queue.take_one())
    queue.cancel(queue.add())

    assert queue.counts() == {"done": 1, "canceled": 1}
    clock.advance(5)
    assert queue.store.prune() == 2


def test_a_topics_settings_come_before_the_stores(opener: Opener, clock: ManualClock) -> None:
    queue = Queue(opener(retention=Retention(done_us=0, canceled_us=0)), clock)
    queue.store.configure("mail", {"keep_done": 5.0})
    finish(queue)
    finish(queue, topic="other")
    queue.cancel(queue.add("mail"))

    assert queue.counts() == {"done": 1}


def test_jobs_of_several_topics_that_end_in_one_commit_are_each_kept_as_their_topic_says(
    queue: Queue, clock: ManualClock
) -> None:
    queue.store.configure("none", {"keep_done": 0.0})
    queue.store.configure("short", {"keep_done": 1.0})
    names = ["mail", "none", "short", "mail", "short", "none"]
    ids = [queue.add(name) for name in names]
    held = [job for name in ("none", "short", "mail") for job in queue.take(name, 9)]
    queue.store.settle([done(job) for job in held])
    clock.advance(1)
    queue.store.prune()

    assert [queue.status(job_id) is Status.DONE for job_id in ids] == [
        name == "mail" for name in names
    ]


def test_a_job_named_twice_in_a_cancel_is_missing_the_second_time_if_it_is_not_kept(
    opener: Opener, clock: ManualClock
) -> None:
    queue = Queue(opener(), clock)
    queue.store.configure("none", {"keep_canceled": 0.0})
    kept, own, topics = queue.add(), queue.add(retention=0.0), queue.add("none")
    kept_too = queue.add("none", retention=1.0)
    ids = [kept, own, topics, kept_too]

    assert queue.store.cancel([*ids, *ids]) == [
        *[Outcome.OK] * 4,
        Outcome.INVALID, Outcome.MISSING, Outcome.MISSING, Outcome.INVALID,
    ]  # fmt: skip
    stores = Queue(opener("brief", retention=Retention(canceled_us=0)), clock)
    job_id = stores.add()
    assert stores.store.cancel([job_id, job_id]) == [Outcome.OK, Outcome.MISSING]


@pytest.mark.parametrize("keep_s", [0.0, 5.0])
def test_a_change_holds_for_jobs_that_finish_from_then_on(
    queue: Queue, clock: ManualClock, keep_s: float
) -> None:
    (before,) = finish(queue)
    queue.store.configure("mail", {"keep_done": keep_s})
    finish(queue)
    queue.store.configure("mail", {"keep_done": None})
    (after,) = finish(queue)
    clock.advance(keep_s)
    queue.store.prune()

    assert queue.counts() == {"done": 2}
    assert [queue.status(job_id) for job_id in (before, after)] == [Status.DONE] * 2
