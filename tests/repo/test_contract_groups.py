"""The contract of every store: groups take turns, and no more of each run than may."""

import itertools
from typing import Any

import pytest

from jobq.clock import ManualClock
from jobq.job import Reservation
from jobq.repo.base import ReserveRequest, Retention
from jobq.repo.operations.reserve import take_from
from jobq.repo.repositories import Transaction
from jobq.repo.transactional import DRAINS, TransactionalStore
from jobq.states import Outcome, Status
from tests.conftest import Opener
from tests.repo.conftest import LEASE_S, Queue, done, release, retry, spec


def add_to(queue: Queue, groups: str, **more: Any) -> None:
    """A job to each of these groups, in this order; `-` is none. The payload names it."""
    of: dict[str, Any] = {group: {} if group == "-" else {"group": group} for group in groups}
    queue.store.enqueue([spec(payload=group.encode(), **more, **of[group]) for group in groups])


def served(queue: Queue, n: int = 100, topic: str = "mail") -> str:
    """The groups of the jobs that are handed out now, in order; they stay reserved."""
    return "".join(job.payload.decode() for job in queue.take(topic, n))


def finish(queue: Queue, n: int = 100) -> str:
    """As `served`, and the jobs are done."""
    held = queue.take(n=n)
    queue.store.settle([done(job) for job in held])
    return "".join(job.payload.decode() for job in held)


def strictly(queue: Queue, **more: object) -> None:
    queue.store.configure("mail", {"group_concurrency": 1, **more})


# Turns.


@pytest.mark.parametrize("n", [1, 2, 3, 7, 100])
def test_groups_take_turns_however_many_are_asked_for(queue: Queue, n: int) -> None:
    add_to(queue, "aaaaabbc")
    order = "".join(itertools.takewhile(bool, iter(lambda: served(queue, n), "")))

    assert order == "abcabaaa"


def test_two_stores_of_one_queue_serve_groups_in_turn(shared_opener: Opener) -> None:
    """What one knows of the groups does not outlive a change by the other."""
    stores = [shared_opener(), shared_opener()]
    order = ""
    for at in range(24):
        store, other = stores[at % 2], stores[at % 2 - 1]
        store.enqueue([spec(payload=group.encode(), group=group) for group in "abc"])
        held = other.reserve(ReserveRequest("mail", 2))
        order += "".join(job.payload.decode() for job in held)
        (other if at % 3 else store).settle([done(job) for job in held])

    assert order == "abc" * 16
    assert stores[0].check().problems == stores[1].check().problems == ()


def test_jobs_of_one_group_come_by_weight_and_then_as_they_were_enqueued(queue: Queue) -> None:
    ids = [queue.add(group="a", weight=weight) for weight in (2, 1, 2, 1)]

    assert queue.order() == [ids[1], ids[3], ids[0], ids[2]]


def test_lower_weights_come_first_in_the_whole_topic(queue: Queue) -> None:
    add_to(queue, "aaa", weight=1)
    add_to(queue, "bb", weight=0)
    add_to(queue, "cc-", weight=1)

    assert served(queue) == "bbac-aca"


def test_jobs_without_a_group_take_their_turn_as_one_group_does(queue: Queue) -> None:
    add_to(queue, "---ab--")

    # They were there first.
    assert served(queue) == "-ab----"


def test_a_new_group_joins_at_the_back(queue: Queue) -> None:
    add_to(queue, "aaabbb")
    assert served(queue, 1) == "a"
    add_to(queue, "cc")

    assert served(queue) == "bacbacb"[:7]


def test_turns_go_on_over_calls_and_stores(shared_opener: Opener) -> None:
    one, other = (Queue(shared_opener(), shared_opener.clock) for _ in range(2))
    add_to(one, "aaabbbccc")

    assert served(one, 2) == "ab"
    assert served(other, 2) == "ca"
    assert served(one, 9) == "bcabc"


def test_a_topic_is_plain_again_when_its_groups_have_gone(queue: Queue) -> None:
    add_to(queue, "ab")
    finish(queue)
    first, second = queue.add(weight=1), queue.add()

    assert queue.order() == [second, first]
    add_to(queue, "a")
    assert finish(queue, 3) == "a"


def test_topics_with_the_same_groups_know_nothing_of_each_other(queue: Queue) -> None:
    strictly(queue)
    queue.add("mail", group="a")
    queue.add("mail-slow", group="a")
    queue.add("mail", group="a")

    assert len(queue.take("mail", 5)) == 1
    assert len(queue.take("mail-slow", 5)) == 1


def test_groups_of_any_name_are_distinct(queue: Queue) -> None:
    strictly(queue)
    names = ["a", "a\0", "\0", "ä", "a" * 255, "\N{PILE OF POO}", "A"]
    for name in names * 2:
        queue.add(group=name)

    assert [job.options.group for job in queue.take(n=100)] == names


def test_delayed_jobs_of_groups_join_them_when_they_are_due(queue: Queue) -> None:
    queue.add(group="a", payload=b"a", delay=5.0)
    add_to(queue, "bb")
    queue.clock.advance(5.0)

    assert served(queue) == "bab"


# At most k of a group.


@pytest.mark.parametrize("n", [1, 2, 100])
def test_no_more_of_a_group_are_reserved_than_its_concurrency(queue: Queue, n: int) -> None:
    queue.store.configure("mail", {"group_concurrency": 2})
    add_to(queue, "aaaabb-----")
    order = "".join(itertools.takewhile(bool, iter(lambda: served(queue, n), "")))

    assert sorted(order) == sorted("aabb-----")


def test_group_concurrency_holds_over_all_stores_of_a_queue(shared_opener: Opener) -> None:
    one, other = (Queue(shared_opener(), shared_opener.clock) for _ in range(2))
    one.store.configure("mail", {"group_concurrency": 2})
    add_to(one, "aaaa")

    assert served(one, 1) == "a"
    assert served(other) == "a"
    assert served(one) == ""


def test_a_job_that_is_done_lets_the_next_of_its_group_go(queue: Queue) -> None:
    strictly(queue)
    ids = [queue.add(group="a") for _ in range(3)]
    order = []
    while held := queue.take(n=5):
        assert len(held) == 1
        order.append(held[0].id)
        queue.done(held[0])

    assert order == ids


def test_the_next_of_a_group_is_reserved_in_the_commit_that_settles_the_former(
    queue: Queue,
) -> None:
    strictly(queue)
    add_to(queue, "aa")
    held = queue.take_one()
    settled = queue.store.settle([done(held)], ReserveRequest("mail", 5))

    assert len(settled.reserved) == 1


@pytest.mark.parametrize("way", ["retry", "release", "expire"])
def test_a_job_that_is_ready_again_comes_before_the_rest_of_its_group(
    queue: Queue, way: str
) -> None:
    strictly(queue)
    first = queue.add(group="a")
    queue.add(group="a")
    held = queue.take_one()
    assert held.id == first
    if way == "expire":
        queue.expire()
    else:
        getattr(queue, way)(held)

    assert [job.id for job in queue.take(n=5)] == [first]


@pytest.mark.parametrize("way", ["retry", "release"])
@pytest.mark.parametrize("concurrency", [1, 2])
def test_a_job_that_waits_for_its_retry_blocks_a_group_in_strict_order_only(
    queue: Queue, way: str, concurrency: int
) -> None:
    queue.store.configure("mail", {"group_concurrency": concurrency})
    first = queue.add(group="a")
    rest = [queue.add(group="a") for _ in range(3)]
    getattr(queue, way)(queue.take_one(), 10.0)

    came = [job.id for job in queue.take(n=5)]
    assert came == ([] if concurrency == 1 else rest[:2])
    queue.clock.advance(10.0)
    assert [job.id for job in queue.take(n=5)] == ([first] if concurrency == 1 else [])


def test_a_retry_lets_others_by_if_the_topic_says_so(queue: Queue) -> None:
    strictly(queue, group_retries="pass")
    first, second = queue.add(group="a"), queue.add(group="a")
    queue.retry(queue.take_one(), 10.0)

    held = queue.take_one()
    assert held.id == second
    queue.clock.advance(10.0)
    assert queue.take() == []
    queue.done(held)
    assert queue.take_one().id == first


def test_retries_block_wider_groups_too_if_the_topic_says_so(queue: Queue) -> None:
    queue.store.configure("mail", {"group_concurrency": 2, "group_retries": "block"})
    queue.add_many(4, group="a")
    queue.retry(queue.take_one(), 10.0)

    assert len(queue.take(n=5)) == 1
    queue.clock.advance(10.0)
    assert len(queue.take(n=5)) == 1


@pytest.mark.parametrize("end", ["give_up", "exhausted", "poison"])
def test_a_job_that_has_failed_for_good_lets_the_next_of_its_group_go(
    queue: Queue, end: str
) -> None:
    strictly(queue)
    queue.add(group="a", max_crashes=1)
    second = queue.add(group="a")
    if end == "poison":
        queue.expire_one_holder()
        queue.expire_one_holder()
    elif end == "exhausted":
        queue.retry(queue.take_one(), None)
    else:
        queue.give_up(queue.take_one())

    assert queue.take_one().id == second


def blocked(queue: Queue) -> tuple[bytes, bytes]:
    """A job that waits for its retry and keeps its group's place, and the one behind it."""
    strictly(queue)
    first, second = queue.add(group="a"), queue.add(group="a")
    queue.retry(queue.take_one(), 10.0)
    assert queue.take() == []
    return first, second


@pytest.mark.parametrize("fate", ["canceled", "deleted", "moved", "regrouped", "ungrouped"])
def test_a_blocking_job_that_goes_lets_its_group_go_on(queue: Queue, fate: str) -> None:
    first, second = blocked(queue)
    if fate == "canceled":
        queue.cancel(first)
    elif fate == "deleted":
        queue.delete(first)
    elif fate == "moved":
        queue.edit(first, topic="other")
    else:
        queue.edit(first, options={"group": "b" if fate == "regrouped" else None})

    assert queue.take_one().id == second
    queue.clock.advance(10.0)
    queue.store.advance()
    assert len(queue.take(n=5)) == (0 if fate in {"canceled", "deleted", "moved"} else 1)


def test_a_blocking_job_that_is_put_off_goes_on_blocking(queue: Queue) -> None:
    first, _ = blocked(queue)
    assert queue.edit(first, delay=60.0) is Outcome.OK
    queue.clock.advance(59.0)
    assert queue.take() == []

    assert queue.edit(first, weight=3) is Outcome.OK
    queue.clock.advance(1.0)
    assert len(queue.take(n=5)) == 1


def test_a_blocking_job_that_is_to_go_at_once_takes_its_place_in_its_group(queue: Queue) -> None:
    first, second = blocked(queue)
    assert queue.edit(first, delay=0.0) is Outcome.OK

    held = queue.take_one()
    assert held.id == first
    assert queue.take() == []
    queue.done(held)
    assert queue.take_one().id == second


def test_a_blocking_job_that_was_canceled_and_reset_stands_in_its_group_as_others_do(
    queue: Queue,
) -> None:
    first, second = blocked(queue)
    queue.cancel(first)
    assert queue.reset(first) is Outcome.OK
    held = queue.take_one()
    assert held.id == second
    assert queue.take() == []
    queue.done(held)

    assert queue.edit(first, weight=4) is Outcome.OK
    queue.cancel(first)
    queue.reset(first)
    assert queue.done(queue.take_one()) is Outcome.OK


def test_a_blocking_job_whose_deadline_passes_lets_its_group_go_on(queue: Queue) -> None:
    strictly(queue)
    first, second = queue.add(group="a", ttl=5.0), queue.add(group="a")
    queue.retry(queue.take_one(), 10.0)
    queue.clock.advance(5.0)

    held = queue.take_one()
    assert held.id == second
    assert queue.status(first) is Status.CANCELED
    queue.done(held)
    assert queue.reset(first) is Outcome.OK
    assert queue.edit(first, weight=1) is Outcome.OK
    assert queue.take_one().id == first


def test_ready_jobs_of_a_blocked_group_may_be_canceled_deleted_and_edited(queue: Queue) -> None:
    strictly(queue)
    ids = queue.add_many(6, group="a")
    held = queue.take_one()
    queue.cancel(ids[1])
    queue.delete(ids[2])
    queue.edit(ids[3], weight=5)
    queue.edit(ids[4], options={"group": "b"})

    assert [job.id for job in queue.take(n=5)] == [ids[4]]
    queue.done(held)
    assert queue.take_one().id == ids[5]


# What lingers.


@pytest.mark.parametrize("learns", ["done", "lease", "extend"])
def test_a_group_stays_blocked_until_the_holder_of_a_canceled_job_knows(
    queue: Queue, learns: str
) -> None:
    strictly(queue)
    first = queue.add(group="a")
    second = queue.add(group="a")
    held = queue.take_one()
    queue.cancel(first)
    queue.delete(first)
    assert queue.take() == []

    if learns == "lease":
        queue.clock.advance(LEASE_S)
    else:
        getattr(queue, learns)(held)
    assert queue.take_one().id == second


def test_a_job_reset_while_its_hold_lingers_waits_for_its_group(queue: Queue) -> None:
    strictly(queue)
    job_id = queue.add(group="a")
    held = queue.take_one()
    queue.cancel(job_id)
    assert queue.reset(job_id) is Outcome.OK
    assert queue.take() == []

    assert queue.done(held) is Outcome.STALE
    again = queue.take_one()
    assert again.id == job_id
    assert queue.done(again) is Outcome.OK


def test_a_hold_lingers_in_the_group_that_the_job_was_reserved_from(queue: Queue) -> None:
    strictly(queue)
    job_id = queue.add(group="a")
    held = queue.take_one()
    queue.cancel(job_id)
    queue.reset(job_id)
    assert queue.edit(job_id, options={"group": "b"}) is Outcome.OK
    queue.add(group="a")

    assert [job.id for job in queue.take(n=5)] == [job_id]
    queue.done(held)
    assert len(queue.take(n=5)) == 1


# Edits, moves, resets.


def test_a_job_that_gets_a_group_leaves_the_jobs_without_one_and_back(queue: Queue) -> None:
    ids = queue.add_many(4)
    queue.edit(ids[3], options={"group": "a"})
    assert queue.order() == [ids[0], ids[3], ids[1], ids[2]]

    queue.edit(ids[3], options={"group": None})
    assert queue.order() == ids


def test_a_moved_job_of_a_group_stands_in_the_same_group_of_its_new_topic(queue: Queue) -> None:
    queue.store.configure("other", {"group_concurrency": 1})
    queue.add("other", group="a")
    held = queue.take_one("other")
    job_id = queue.add(group="a")
    assert queue.edit(job_id, topic="other") is Outcome.OK

    assert queue.take() == []
    assert queue.take("other") == []
    queue.done(held)
    assert queue.take_one("other").id == job_id


def test_a_job_of_a_group_may_be_given_a_delay(queue: Queue) -> None:
    strictly(queue)
    ids = queue.add_many(2, group="a")
    assert queue.edit(ids[0], delay=5.0) is Outcome.OK

    queue.done(queue.take_one())
    assert queue.status(ids[1]) is Status.DONE
    queue.clock.advance(5.0)
    assert queue.take_one().id == ids[0]


def test_a_reset_job_joins_its_group_at_the_back(queue: Queue) -> None:
    strictly(queue)
    first = queue.add(group="a")
    queue.done(queue.take_one())
    second = queue.add(group="a")
    assert queue.reset(first) is Outcome.OK

    held = queue.take_one()
    assert held.id == second
    assert queue.take() == []
    queue.done(held)
    assert queue.take_one().id == first


def test_a_purge_takes_the_jobs_of_groups_too(queue: Queue) -> None:
    add_to(queue, "aab-")
    queue.add(group="c", delay=5.0)
    held = queue.take_one()
    after = None
    jobs = 0
    while True:
        statuses = frozenset(Status) - {Status.RESERVED}
        step = queue.store.purge("mail", statuses, after, 2)
        jobs, after = jobs + step.jobs, step.after
        if after is None:
            break

    assert jobs == 4
    assert queue.counts() == {"reserved": 1}
    queue.done(held)


def test_a_purge_of_ready_jobs_takes_those_of_groups_too(queue: Queue) -> None:
    strictly(queue)
    add_to(queue, "aab-")
    held = queue.take_one()
    after = None
    while True:
        step = queue.store.purge("mail", frozenset({Status.READY}), after, 2)
        after = step.after
        if after is None:
            break

    assert queue.counts() == {"reserved": 1}
    queue.done(held)


def test_a_follow_up_job_of_the_same_group_is_next(queue: Queue) -> None:
    strictly(queue)
    queue.add(group="a")
    held = queue.take_one()
    queue.done(held, follow=[spec(group="a", payload=b"2")])

    assert queue.take_one().payload == b"2"


def test_an_import_puts_jobs_into_their_groups(opener: Opener, clock: ManualClock) -> None:
    one, other = Queue(opener("one"), clock), Queue(opener("other"), clock)
    strictly(one)
    strictly(other)
    add_to(one, "aab-")
    add_to(one, "a", delay=5.0)
    copies, last_place = one.store.export_jobs(None, 100)
    assert other.store.import_jobs(copies, last_place, None).outcomes == [Outcome.OK] * 5

    assert sorted(served(other)) == ["-", "a", "b"]
    clock.advance(5.0)
    assert served(other) == ""


# Settings at run time.


def test_group_concurrency_that_is_raised_lowered_or_unset_holds_at_once(queue: Queue) -> None:
    queue.store.configure("mail", {"group_concurrency": 1})
    queue.add_many(10, group="a")
    held = queue.take(n=10)
    queue.store.configure("mail", {"group_concurrency": 3})
    held += queue.take(n=10)
    assert len(held) == 3

    queue.store.configure("mail", {"group_concurrency": 2})
    queue.done(held[0])
    assert queue.take(n=10) == []
    queue.done(held[1])
    assert len(queue.take(n=10)) == 1

    queue.store.configure("mail", {"group_concurrency": None})
    assert len(queue.take(n=10)) == 6


def test_a_paused_topic_with_groups_hands_out_nothing(queue: Queue) -> None:
    add_to(queue, "ab-")
    queue.store.configure("mail", {"paused": True})
    assert served(queue) == ""

    queue.store.configure("mail", {"paused": None})
    assert served(queue) == "ab-"


def test_topic_and_group_concurrency_hold_together(queue: Queue) -> None:
    queue.store.configure("mail", {"group_concurrency": 2, "concurrency": 3})
    add_to(queue, "aaabbb")

    assert served(queue) == "aba"


# Rates of groups.


def test_each_group_has_its_own_rate(queue: Queue) -> None:
    queue.store.configure("mail", {"group_rate": (1, 10.0), "group_burst": 2})
    add_to(queue, "aaaaab--")

    assert served(queue) == "ab-a-"
    assert served(queue) == ""
    queue.clock.advance(10.0)
    assert served(queue) == "a"
    queue.clock.advance(20.0)
    assert served(queue) == "aa"


def test_the_rate_of_a_group_is_counted_on_a_clock_that_nobody_steps(queue: Queue) -> None:
    queue.store.configure("mail", {"group_rate": (1, 10.0)})
    add_to(queue, "aaa")
    assert served(queue) == "a"
    queue.clock.step_wall(3600.0)
    assert served(queue) == ""

    queue.clock.step_wall(-7200.0)
    queue.clock.advance(10.0)
    assert served(queue) == "a"


@pytest.mark.parametrize("n", [1, 100])
def test_a_group_that_was_empty_meanwhile_has_not_a_new_burst(queue: Queue, n: int) -> None:
    queue.store.configure("mail", {"group_rate": (1, 10.0)})
    add_to(queue, "a")
    assert finish(queue, n) == "a"
    add_to(queue, "aa")

    assert served(queue) == ""
    queue.clock.advance(10.0)
    assert finish(queue, n) == "a"


def test_a_group_is_forgotten_when_its_rate_is_as_if_it_had_never_been(queue: Queue) -> None:
    queue.store.configure("mail", {"group_rate": (1, 10.0)})
    add_to(queue, "ab")
    finish(queue)
    queue.clock.advance(10.0)
    queue.store.advance()

    queue.store.configure("mail", {"group_rate": None})
    assert queue.store.settings("mail").as_dict() == {}
    queue.clock.advance(2 * 86_400.0)
    queue.store.prune()
    queue.clock.advance(3600.0)
    queue.add("new")
    assert queue.store.topics() == ["new"]


def test_a_rate_that_is_changed_or_unset_holds_for_all_groups_at_once(queue: Queue) -> None:
    queue.store.configure("mail", {"group_rate": (1, 3600.0)})
    add_to(queue, "aaaabb")
    assert served(queue) == "ab"
    queue.store.configure("mail", {"group_rate": (1, 10.0)})
    assert served(queue) == ""
    queue.clock.advance(10.0)
    assert served(queue) == "ab"

    queue.store.configure("mail", {"group_rate": None})
    assert served(queue) == "aa"


def test_an_idle_group_goes_when_its_rate_is_unset(queue: Queue) -> None:
    queue.store.configure("mail", {"group_rate": (1, 86_400.0)})
    add_to(queue, "a")
    finish(queue)
    queue.store.configure("mail", {"group_rate": None})

    queue.store.configure("mail", {"group_rate": (1, 86_400.0)})
    add_to(queue, "a")
    assert served(queue) == "a"


def test_after_a_reboot_no_group_waits_for_its_rate_longer_than_a_burst_takes(
    durable_opener: Opener, clock: ManualClock
) -> None:
    store = durable_opener()
    queue = Queue(store, clock)
    store.configure("mail", {"group_rate": (1, 60.0)})
    add_to(queue, "aab")
    assert served(queue) == "ab"
    add_to(queue, "b")
    durable_opener.close(store)
    clock.reboot()

    again = Queue(durable_opener(), clock)
    clock.advance(60.0)
    assert sorted(served(again)) == ["a", "b"]


def test_after_a_reboot_no_idle_group_is_kept_for_its_rate_longer_than_a_burst_takes(
    durable_opener: Opener, clock: ManualClock
) -> None:
    store = durable_opener()
    queue = Queue(store, clock)
    store.configure("mail", {"group_rate": (1, 60.0)})
    add_to(queue, "ab")
    assert finish(queue) == "ab"
    assert [group.group for group in store.groups("mail", None, 9)] == ["a", "b"]
    durable_opener.close(store)
    clock.reboot()

    assert durable_opener().groups("mail", None, 9) == []


def test_a_job_that_is_too_late_takes_nothing_of_its_groups_rate(queue: Queue) -> None:
    queue.store.configure("mail", {"group_rate": (1, 60.0)})
    for _ in range(260):  # more than a call cancels on its way
        queue.add(group="a", ttl=1.0)
    add_to(queue, "a")
    queue.clock.advance(1.0)

    assert [served(queue, 1) for _ in range(2)] == ["a", ""]


def test_jobs_that_are_too_large_together_go_back_to_their_groups(queue: Queue) -> None:
    queue.store.configure("mail", {"group_rate": (2, 60.0), "group_concurrency": 2})
    add_to(queue, "ab-ab-")
    assert isinstance(queue.store, TransactionalStore)
    most = 4  # bytes: as many jobs

    def take(tx: Transaction) -> list[Reservation]:
        return take_from(tx, "mail", 6, Retention(), most)

    first = "".join(job.payload.decode() for job in queue.store._write(take, DRAINS))
    assert first == "ab-a"
    assert served(queue) == "b-"


# Retention, and what is forgotten.


def test_groups_of_jobs_that_are_not_kept_go_with_them(opener: Opener, clock: ManualClock) -> None:
    queue = Queue(opener(retention=Retention(done_us=0, canceled_us=0)), clock)
    strictly(queue)
    add_to(queue, "aabb")
    held = queue.take(n=5)
    queue.store.settle([done(held[0]), release(held[1])])
    queue.cancel(held[1].id)

    assert len(queue.take(n=5)) == 2
    assert queue.counts() == {"reserved": 2}


def test_groups_work_on_after_the_store_was_closed(
    durable_opener: Opener, clock: ManualClock
) -> None:
    store = durable_opener()
    queue = Queue(store, clock)
    strictly(queue)
    add_to(queue, "aab-")
    held = queue.take(n=1)
    queue.store.settle([retry(job, 5.0) for job in held])
    durable_opener.close(store)

    again = Queue(durable_opener(), clock)
    assert sorted(served(again)) == ["-", "b"]
    clock.advance(5.0)
    assert served(again) == "a"
