"""The contract of every store: settings of topics, and how they decide what is kept."""

from typing import Any

import pytest

from jobq.clock import ManualClock
from jobq.job import Change
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


# How many done jobs are kept.


def test_the_jobs_that_were_done_first_go_when_a_topic_has_too_many(queue: Queue) -> None:
    queue.store.configure("mail", {"max_done": 3})
    ids = [finish(queue)[0] for _ in range(5)]
    others = finish(queue, 5, "other")

    assert [queue.status(job_id) for job_id in ids] == [None, None, *[Status.DONE] * 3]
    assert queue.store.status(others) == [Status.DONE] * 5


def test_jobs_that_are_done_together_go_in_the_order_in_which_they_were_named(
    queue: Queue,
) -> None:
    queue.store.configure("mail", {"max_done": 2})
    ids = queue.add_many(4)
    held = {job.id: job for job in queue.take(n=4)}
    order = [ids[2], ids[0], ids[3], ids[1]]
    keeps = [None, 9 * SECOND_US, None, 5 * SECOND_US]  # of no account
    queue.store.settle(
        [done(held[job_id], keep_us=keep) for job_id, keep in zip(order, keeps, strict=True)]
    )

    assert queue.store.status(order) == [None, None, Status.DONE, Status.DONE]


def test_a_topic_counts_done_jobs_whatever_their_retention(
    queue: Queue, clock: ManualClock
) -> None:
    """Not as the limit of the store, which takes those first whose time is over soonest."""
    queue.store.configure("mail", {"max_done": 2})
    (old,) = finish(queue, retention=100 * DAY_S)
    (short,) = finish(queue, retention=1.0)
    (new,) = finish(queue)
    assert queue.store.status([old, short, new]) == [None, Status.DONE, Status.DONE]

    clock.advance(1)
    queue.store.prune()
    assert queue.store.status([short, new]) == [None, Status.DONE]
    (newer,) = finish(queue)
    assert queue.store.status([new, newer]) == [Status.DONE] * 2


def test_canceled_jobs_and_those_that_are_not_kept_do_not_count(queue: Queue) -> None:
    queue.store.configure("mail", {"max_done": 1})
    (first,) = finish(queue)
    queue.cancel(queue.add())
    finish(queue, 3, retention=0.0)

    assert queue.counts() == {"done": 1, "canceled": 1}
    assert queue.status(first) is Status.DONE


def test_a_limit_of_0_keeps_no_done_job(queue: Queue) -> None:
    queue.store.configure("mail", {"max_done": 0})
    queue.add()
    assert queue.done(queue.take_one(), result=b"r") is Outcome.OK
    finish(queue, 5)

    assert queue.counts() == {}


def test_only_jobs_that_are_done_while_a_limit_is_set_are_counted(queue: Queue) -> None:
    before = finish(queue, 3)
    queue.store.configure("mail", {"max_done": 1})
    first, second = finish(queue)[0], finish(queue)[0]
    assert queue.store.status([*before, first, second]) == [*[Status.DONE] * 3, None, Status.DONE]

    queue.store.configure("mail", {"max_done": None})
    between = finish(queue, 3)
    queue.store.configure("mail", {"max_done": 1})
    (third,) = finish(queue)
    assert queue.store.status([*before, *between, second, third]) == [
        *[Status.DONE] * 6, None, Status.DONE,
    ]  # fmt: skip


@pytest.mark.parametrize("way", ["reset", "delete", "purge", "prune"])
def test_a_job_that_leaves_in_another_way_makes_room_for_the_next(
    queue: Queue, clock: ManualClock, way: str
) -> None:
    queue.store.configure("mail", {"max_done": 2})
    kept, leaving = finish(queue, retention=100 * DAY_S)[0], finish(queue)[0]
    if way == "reset":
        queue.reset(leaving)
        queue.store.edit([leaving], Change(topic="other"))
    elif way == "delete":
        queue.delete(leaving)
    elif way == "purge":
        queue.store.purge("mail", frozenset({Status.DONE}), None, 100)
        (kept,) = finish(queue)
    else:
        clock.advance(DAY_S)
        assert queue.store.prune() == 1
    (new,) = finish(queue)

    assert queue.store.status([kept, new]) == [Status.DONE] * 2


def test_a_reset_job_that_is_done_again_counts_as_the_last_one(queue: Queue) -> None:
    queue.store.configure("mail", {"max_done": 2})
    first, second = finish(queue)[0], finish(queue)[0]
    queue.reset(first)
    queue.done(queue.take_one())
    (third,) = finish(queue)

    assert queue.store.status([first, second, third]) == [Status.DONE, None, Status.DONE]


def test_a_repeated_done_of_a_listed_job_is_harmless(queue: Queue) -> None:
    queue.store.configure("mail", {"max_done": 1})
    queue.add()
    held = queue.take_one()

    assert [queue.done(held), queue.done(held)] == [Outcome.OK] * 2
    assert queue.counts() == {"done": 1}
    finish(queue)
    assert queue.done(held) is Outcome.MISSING


def test_a_limit_that_is_lowered_takes_effect_step_by_step_or_at_once_by_prune(
    queue: Queue,
) -> None:
    queue.store.configure("mail", {"max_done": 100})
    finish(queue, 100)
    queue.store.configure("mail", {"max_done": 10})
    assert queue.counts() == {"done": 100}
    finish(queue)
    assert queue.counts() == {"done": 101 - 18}

    assert [queue.store.prune(50) for _ in range(3)] == [50, 23, 0]
    assert queue.counts() == {"done": 10}


def test_finishing_jobs_of_one_topic_forgets_none_of_another(queue: Queue) -> None:
    for name in ("a", "b"):
        queue.store.configure(name, {"max_done": 5})
        finish(queue, 5, name)
        queue.store.configure(name, {"max_done": 1})
    finish(queue, 1, "a")

    assert (queue.counts("a"), queue.counts("b")) == ({"done": 1}, {"done": 5})
    assert queue.store.prune() == 4


def test_finishing_jobs_forgets_no_more_than_twice_as_many_and_a_few_whatever_is_too_many(
    opener: Opener, clock: ManualClock
) -> None:
    """Too many of a topic, too many of the store, and too old: together no more."""
    queue = Queue(opener(retention=Retention(max_done=50)), clock)
    queue.store.configure("mail", {"max_done": 40})
    finish(queue, 20, "old", retention=1.0)
    finish(queue, 20, "old")
    finish(queue, 10)
    clock.advance(1)
    queue.store.configure("mail", {"max_done": 1})
    finish(queue, 2)
    assert queue.counts("mail") == {"done": 1}  # 11 were too many
    assert queue.counts("old") == {"done": 40 - (2 * 2 + 16 - 11)}

    queue.store.configure("mail", {"max_done": 30})
    finish(queue, 29)
    queue.store.configure("mail", {"max_done": 0})
    before = queue.counts()["done"]
    finish(queue)
    assert queue.counts()["done"] == before + 1 - 18


def test_the_stores_limit_holds_for_topics_with_one_of_their_own(
    opener: Opener, clock: ManualClock
) -> None:
    queue = Queue(opener(retention=Retention(max_done=3)), clock)
    queue.store.configure("mail", {"max_done": 10})
    ids = [finish(queue)[0] for _ in range(5)]

    assert queue.store.status(ids) == [None, None, *[Status.DONE] * 3]


def test_lists_of_done_jobs_outlive_the_store(durable_opener: Opener, clock: ManualClock) -> None:
    first = durable_opener()
    first.configure("mail", {"max_done": 3})
    ids = finish(Queue(first, clock), 3)
    durable_opener.close(first)

    queue = Queue(durable_opener(), clock)
    finish(queue)
    assert queue.store.status(ids) == [None, Status.DONE, Status.DONE]
