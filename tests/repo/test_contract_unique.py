"""The contract of every store: unique keys, from the enqueue to whatever ends them."""

from typing import Any

import pytest

from jobq.clock import ManualClock, to_us
from jobq.errors import UniqueConflict
from jobq.ids import to_text
from jobq.job import Change, JobSpec, Report, Settlement
from jobq.repo.base import Retention
from jobq.repo.operations.flow.uniques import SWEPT
from jobq.states import Event, Outcome, Reason, Status
from tests.conftest import Opener
from tests.repo.conftest import LEASE_S, Queue, done, release, retry, spec
from tests.repo.test_contract_transfer import move

FOR = ["waiting", "unfinished", 100.0]
"""Each way to have a key. No test lets the period end unless it says so."""


def is_free(queue: Queue, key: str = "k", topic: str = "probe") -> bool:
    """Whether a new job could have the key. None is left of the question."""
    try:
        job_id = queue.add(topic, unique=key, on_conflict="raise")
    except UniqueConflict:
        return False
    assert queue.delete(job_id) is Outcome.OK
    return True


def has_key(queue: Queue, job_id: bytes, key: str = "k") -> bool:
    """Whether the job has the key."""
    try:
        queue.delete(queue.add("probe", unique=key, on_conflict="raise"))
    except UniqueConflict as conflict:
        return conflict.job_id == to_text(job_id)
    return False


# What a conflict does.


@pytest.mark.parametrize("unique_for", FOR)
def test_a_second_enqueue_gives_the_job_that_has_the_key(queue: Queue, unique_for: Any) -> None:
    first = queue.add(unique="k", unique_for=unique_for, payload=b"1", weight=2)
    before = queue.get(first)
    for topic in ("mail", "other"):  # one namespace for the whole store
        assert queue.add(topic, unique="k", unique_for=unique_for, payload=b"2") == first

    assert queue.get(first) == before
    assert queue.counts() == {"ready": 1}


def test_a_second_enqueue_may_be_refused_and_writes_nothing(queue: Queue) -> None:
    first = queue.add(unique="k", delay=5.0)
    with pytest.raises(UniqueConflict) as caught:
        queue.store.enqueue(
            [spec(), spec("new", unique="l"), spec(unique="k", on_conflict="raise"), spec()]
        )

    assert caught.value.job_id == to_text(first)
    assert queue.counts() == {"delayed": 1}
    assert queue.store.topics() == ["mail"]
    assert is_free(queue, "l")


@pytest.mark.parametrize("delay", [0.0, 9.0])
def test_a_second_enqueue_may_replace_what_the_first_brought(
    queue: Queue, clock: ManualClock, delay: float
) -> None:
    options: dict[str, Any] = {"unique": "k", "name": "first", "lease": 5.0, "max_retries": 3}
    first = queue.add(payload=b"1", weight=2, delay=delay, **options)
    before = queue.get(first)
    clock.advance(1)
    again = queue.add(
        payload=b"22", weight=-1, unique="k", on_conflict="replace", lease=7.0, tags=["t"]
    )
    record = queue.get(first)

    assert again == first
    assert (record.payload_bytes, record.weight) == (b"22", -1)
    assert record.options.as_dict() == {**options, "lease": 7.0, "tags": ("t",)}
    assert (record.status, record.due_us) == (before.status, before.due_us)  # its time stays
    assert queue.counts() == {before.status.value: 1}
    assert not is_free(queue)


def test_a_job_that_is_replaced_may_go_to_another_topic(queue: Queue) -> None:
    first = queue.add("mail", unique="k", payload=b"abc")
    assert queue.add("other", unique="k", on_conflict="replace", payload=b"d") == first

    assert queue.counts("mail") == {}
    assert queue.take_one("other").payload == b"d"


def test_debounce_runs_once_with_the_last_payload_after_the_last_delay(
    queue: Queue, clock: ManualClock
) -> None:
    ids = set()
    for number in range(20):
        ids.add(
            queue.add(
                unique="k", unique_for="waiting", on_conflict="replace",
                delay=2.0, payload=b"%d" % number,
            )
        )  # fmt: skip
        clock.advance(1.9)
        assert queue.take(n=9) == []
    clock.advance(0.1)
    held = queue.take(n=9)

    assert [(job.id, job.payload) for job in held] == [(*ids, b"19")]
    # While it runs the next one waits already.
    later = queue.add(unique="k", unique_for="waiting", on_conflict="replace", delay=2.0)
    assert later not in ids
    queue.done(held[0])
    clock.advance(2)
    assert queue.take_one().id == later


def test_what_is_due_already_is_put_off_by_a_replacement_with_a_delay(
    queue: Queue, clock: ManualClock
) -> None:
    first = queue.add(unique="k")
    assert queue.add(unique="k", on_conflict="replace", delay=3.0) == first
    assert queue.get(first).due_us == clock.wall_us() + 3_000_000
    assert queue.take() == []

    queue.add(unique="k", on_conflict="replace", delay=0.0)  # no delay: its time stays
    assert queue.status(first) is Status.DELAYED


@pytest.mark.parametrize("unique_for", ["unfinished", 100.0])
def test_a_job_that_does_not_wait_cannot_be_replaced(queue: Queue, unique_for: Any) -> None:
    first = queue.add(unique="k", unique_for=unique_for, payload=b"1")
    held = queue.take_one()
    with pytest.raises(UniqueConflict, match="reserved") as caught:
        queue.store.enqueue([spec(), spec(unique="k", on_conflict="replace", payload=b"2")])

    assert caught.value.job_id == to_text(first)
    assert queue.counts() == {"reserved": 1}
    assert queue.get(first).payload_bytes == b"1"
    if unique_for != "unfinished":
        queue.done(held)
        with pytest.raises(UniqueConflict, match="done"):
            queue.add(unique="k", on_conflict="replace")
        queue.delete(first)
        with pytest.raises(UniqueConflict, match="forgotten"):
            queue.add(unique="k", on_conflict="replace")


# Several at once.


def test_the_first_of_a_call_has_the_key_and_the_others_are_it(queue: Queue) -> None:
    ids = queue.store.enqueue(
        [spec(unique="k", payload=b"1"), spec(), spec("other", unique="k", payload=b"2")]
    )

    assert ids[0] == ids[2] != ids[1]
    assert queue.counts() == {"ready": 2}
    assert queue.get(ids[0]).payload_bytes == b"1"


def test_two_jobs_of_a_call_with_one_key_may_be_refused(queue: Queue) -> None:
    with pytest.raises(UniqueConflict):
        queue.store.enqueue([spec(unique="k"), spec(unique="k", on_conflict="raise")])

    assert queue.counts() == {}
    assert is_free(queue)


@pytest.mark.parametrize("there", [False, True])
def test_the_last_of_a_call_replaces_the_same_whether_the_first_was_there_before(
    queue: Queue, clock: ManualClock, there: bool
) -> None:
    first = spec("mail", 5, 9.0, b"1", unique="k", unique_for=50.0, name="n", ttl=5.0)
    second = spec("mail", 3, 0.0, b"2", unique="k", on_conflict="replace", lease=1.0)
    third = spec("other", 4, 7.0, b"3", unique="k", on_conflict="replace", ttl=8.0)
    if there:
        queue.store.enqueue([first])
    ids = queue.store.enqueue([second, third] if there else [first, second, third])
    assert len(set(ids)) == 1
    record = queue.get(ids[0])

    assert (record.topic, record.weight, record.payload_bytes) == ("other", 4, b"3")
    assert record.due_us == clock.wall_us() + 7_000_000
    assert record.options.deadline_us == clock.wall_us() + 8_000_000
    kept = {"unique": "k", "unique_for": 50.0, "name": "n", "lease": 1.0, "ttl": 8.0}
    assert {**record.options.as_dict(), **kept} == record.options.as_dict()
    assert queue.counts() == {"delayed": 1}


# Follow-up jobs.


@pytest.mark.parametrize("unique_for", ["waiting", "unfinished"])
def test_a_follow_up_job_may_have_the_key_of_the_job_that_is_done(
    queue: Queue, unique_for: Any
) -> None:
    own = {"unique": "k", "unique_for": unique_for, "on_conflict": "raise"}
    queue.add(**own)
    held = queue.take_one()
    settled = queue.store.settle([done(held, follow=(spec(**own),))])
    ((follow,),) = settled.follow_ids

    assert settled.outcomes == [Outcome.OK]
    assert follow != held.id
    assert has_key(queue, follow)


def test_a_period_outlives_the_job_that_is_done_for_its_follow_up_too(queue: Queue) -> None:
    queue.add(unique="k", unique_for=100.0)
    held = queue.take_one()
    with pytest.raises(UniqueConflict):
        queue.done(held, follow=(spec(unique="k", on_conflict="raise"),))
    assert queue.status(held.id) is Status.RESERVED

    settled = queue.store.settle([done(held, follow=(spec(unique="k"), spec()))])
    assert settled.follow_ids[0][0] == held.id
    assert queue.counts() == {"done": 1, "ready": 1}


@pytest.mark.parametrize("on_conflict", ["raise", "replace"])
def test_a_refused_follow_up_leaves_everything_as_it_was(queue: Queue, on_conflict: str) -> None:
    queue.add("other", unique="k")
    queue.take("other")
    queue.add_many(2)
    first, second = queue.take(n=2)
    with pytest.raises(UniqueConflict):
        queue.store.settle(
            [
                done(first, follow=(spec(unique="l"),), result=b"\x01"),
                done(second, follow=(spec(unique="k", on_conflict=on_conflict),)),
            ]
        )

    assert queue.counts() == {"reserved": 3}
    assert is_free(queue, "l")
    assert queue.get(first.id).result_bytes is None
    assert queue.done(first) is Outcome.OK


def test_a_follow_up_that_is_there_already_adds_nothing(queue: Queue) -> None:
    there = queue.add("other", unique="k")
    queue.add()
    settled = queue.store.settle([done(queue.take_one(), follow=(spec(unique="k"),))])

    assert settled.follow_ids == [[there]]
    assert queue.counts() == {"ready": 1, "done": 1}


def test_a_job_cannot_leave_its_key_to_the_follow_up_of_one_that_is_only_retried(
    queue: Queue,
) -> None:
    queue.add(unique="k")
    queue.add()
    mine, other = queue.take(n=2)
    with pytest.raises(UniqueConflict):
        queue.store.settle(
            [retry(mine), done(other, follow=(spec(unique="k", on_conflict="raise"),))]
        )
    assert queue.counts() == {"reserved": 2}


def test_a_job_that_waits_again_goes_without_the_key_of_a_follow_up_of_the_same_call(
    queue: Queue,
) -> None:
    queue.add(unique="k", unique_for="waiting")
    queue.add()
    mine, other = queue.take(n=2)
    settled = queue.store.settle([retry(mine), done(other, follow=(spec(unique="k"),))])
    ((), (follow,)) = settled.follow_ids
    assert has_key(queue, follow)

    queue.delete(follow)
    assert is_free(queue)
    assert queue.edit(mine.id, options={"unique": "k"}) is Outcome.OK  # asked for, it is had
    assert has_key(queue, mine.id)


# Until when a job has its key.


@pytest.mark.parametrize("status", Status)
@pytest.mark.parametrize("unique_for", FOR)
def test_a_job_has_its_key_as_long_as_it_says(
    queue: Queue, unique_for: Any, status: Status
) -> None:
    job_id, token = queue.job_in(status, unique="k", unique_for=unique_for)
    if status is Status.CANCELED:  # its holder has to know
        queue.store.extend([(job_id, token, 1)])
    expected = {
        "waiting": status in {Status.READY, Status.DELAYED},
        "unfinished": status in {Status.READY, Status.DELAYED, Status.RESERVED},
        100.0: True,
    }
    assert has_key(queue, job_id) is expected[unique_for]
    assert is_free(queue) is not expected[unique_for]


@pytest.mark.parametrize("unique_for", FOR)
@pytest.mark.parametrize("back", ["retry", "retry later", "release", "expire", "promote"])
def test_a_job_that_waits_again_has_its_key(queue: Queue, unique_for: Any, back: str) -> None:
    job_id = queue.add(unique="k", unique_for=unique_for, lease=9.0)
    held = queue.take_one()
    match back:
        case "retry":
            queue.retry(held)
        case "retry later":
            queue.retry(held, 5.0)
        case "release":
            queue.release(held)
        case "expire":
            queue.expire(9.0)
        case "promote":
            queue.retry(held, 5.0)
            queue.expire(5.0)

    assert has_key(queue, job_id)


def test_a_job_that_waits_again_goes_without_a_key_that_another_has_by_then(
    queue: Queue,
) -> None:
    first = queue.add(unique="k", unique_for="waiting")
    held = queue.take_one()
    second = queue.add(unique="k", unique_for="waiting")
    assert second != first
    queue.release(held)
    assert has_key(queue, second)

    assert queue.take_one().id == first  # who has no key gives none up
    assert has_key(queue, second)
    assert queue.cancel(first) is Outcome.OK
    assert has_key(queue, second)
    queue.delete(second)
    assert is_free(queue)


ENDS: dict[str, Any] = {
    "done": lambda queue, held: queue.done(held),
    "done and forgotten": lambda queue, held: queue.done(held, keep_us=0),
    "exhausted": lambda queue, held: queue.retry(held, None),
    "given up": lambda queue, held: queue.give_up(held),
    "canceled": lambda queue, held: (queue.release(held), queue.cancel(held.id)),
    "canceled while delayed": lambda queue, held: (queue.retry(held, 5), queue.cancel(held.id)),
    "deleted": lambda queue, held: (queue.release(held), queue.delete(held.id)),
    "purged": lambda queue, held: (
        queue.release(held),
        queue.store.purge("mail", frozenset({Status.READY}), None, 100),
    ),
    "poison": lambda queue, _: queue.expire(),
    "expired": lambda queue, held: (
        queue.release(held),
        queue.edit(held.id, options={"ttl": 1.0}),
        queue.expire(1.0),
    ),
    "dropped": lambda queue, held: (
        queue.release(held),
        queue.store.configure("mail", {"max_jobs": 1, "when_full": "drop-oldest"}),
        queue.add(),
    ),
}


@pytest.mark.parametrize("unique_for", ["waiting", "unfinished"])
@pytest.mark.parametrize("end", ENDS)
def test_the_key_is_free_when_its_job_has_ended(queue: Queue, unique_for: Any, end: str) -> None:
    queue.add(unique="k", unique_for=unique_for, max_crashes=1)
    queue.expire_one_holder()
    held = queue.take_one()
    ENDS[end](queue, held)
    record = queue.find(held.id)
    assert record is None or record.status in {Status.DONE, Status.CANCELED}

    assert is_free(queue)


@pytest.mark.parametrize("end", ENDS)
def test_a_period_goes_on_whatever_becomes_of_the_job(queue: Queue, end: str) -> None:
    queue.add(unique="k", unique_for=3 * LEASE_S, max_crashes=1)
    began_us = queue.clock.wall_us()
    queue.expire_one_holder()
    held = queue.take_one()
    ENDS[end](queue, held)
    assert has_key(queue, held.id)
    queue.clock.advance((began_us - queue.clock.wall_us()) / 1e6 + 3 * LEASE_S - 0.000001)
    assert has_key(queue, held.id)

    queue.clock.advance(0.000001)
    assert is_free(queue)


def test_pruning_an_old_job_leaves_the_key_to_who_has_it_now(
    queue: Queue, clock: ManualClock
) -> None:
    queue.add(unique="k")
    queue.done(queue.take_one(), keep_us=1_000_000)
    second = queue.add(unique="k")
    clock.advance(1)
    assert queue.store.prune() == 1

    assert has_key(queue, second)


def test_retention_0_frees_the_key_at_once(opener: Opener, clock: ManualClock) -> None:
    queue = Queue(opener(retention=Retention(done_us=0, canceled_us=0)), clock)
    queue.add(unique="k")
    queue.done(queue.take_one())
    assert is_free(queue)
    queue.cancel(queue.add(unique="k"))
    assert is_free(queue)


# Canceled under its holder.


HEARD: dict[str, Any] = {
    "done": lambda queue, held: queue.done(held),
    "extend": lambda queue, held: queue.extend(held),
    "report": lambda queue, held: queue.store.report([Report(held.id, held.token)]),
    "the end of the lease": lambda queue, _: queue.expire(),
}


@pytest.mark.parametrize("retention", [None, 0.0])
@pytest.mark.parametrize("how", HEARD)
def test_a_key_stays_taken_until_the_holder_of_a_canceled_job_knows(
    queue: Queue, how: str, retention: float | None
) -> None:
    job_id = queue.add(unique="k", retention=retention)
    held = queue.take_one()
    queue.cancel(job_id)
    assert has_key(queue, job_id)
    if retention is None:
        queue.delete(job_id)
    assert has_key(queue, job_id)
    HEARD[how](queue, held)

    assert is_free(queue)


def test_a_holder_that_learns_late_does_not_take_the_key_from_the_job_that_lives_again(
    queue: Queue,
) -> None:
    job_id = queue.add(unique="k")
    held = queue.take_one()
    queue.cancel(job_id)
    assert queue.reset(job_id) is Outcome.OK
    assert queue.done(held) is Outcome.STALE

    assert has_key(queue, job_id)


def test_a_key_that_was_edited_away_stays_taken_while_an_old_holder_works_on(
    queue: Queue,
) -> None:
    job_id = queue.add(unique="k")
    held = queue.take_one()
    queue.cancel(job_id)
    queue.reset(job_id)
    assert queue.edit(job_id, options={"unique": "l"}) is Outcome.OK
    assert has_key(queue, job_id, "l")
    assert not is_free(queue, "k")

    queue.done(held)
    assert is_free(queue, "k")
    assert has_key(queue, job_id, "l")


def test_a_key_is_free_only_when_the_last_of_its_old_holders_knows(queue: Queue) -> None:
    job_id = queue.add(unique="k")
    first = queue.take_one()
    queue.cancel(job_id)
    queue.reset(job_id)
    second = queue.take_one()
    queue.cancel(job_id)
    queue.done(first)
    assert not is_free(queue)

    queue.done(second)
    assert is_free(queue)


def test_a_follow_up_does_not_get_a_key_with_which_an_old_holder_works_on(queue: Queue) -> None:
    job_id = queue.add(unique="k")
    queue.take_one()
    queue.cancel(job_id)
    queue.reset(job_id)
    held = queue.take_one()

    with pytest.raises(UniqueConflict):
        queue.done(held, follow=(spec(unique="k", on_conflict="raise"),))
    assert queue.status(job_id) is Status.RESERVED


# Reset.


@pytest.mark.parametrize("unique_for", FOR)
def test_a_reset_takes_the_key_again(queue: Queue, clock: ManualClock, unique_for: Any) -> None:
    job_id = queue.add(unique="k", unique_for=unique_for)
    queue.done(queue.take_one())
    clock.advance(60)
    assert queue.reset(job_id) is Outcome.OK
    clock.advance(60)

    assert has_key(queue, job_id)  # a period begins anew


def test_a_reset_is_a_conflict_if_another_job_has_the_key_and_changes_nothing(
    queue: Queue,
) -> None:
    first = queue.add(unique="k", ttl=500.0)
    queue.done(queue.take_one(), result=b"\x07")
    second = queue.add(unique="k")
    before = queue.get(first)

    free = queue.add(delay=1.0)
    queue.cancel(free)
    assert queue.store.reset([first, free, first, second, bytes(16)]) == [
        Outcome.CONFLICT, Outcome.OK, Outcome.CONFLICT, Outcome.INVALID, Outcome.MISSING,
    ]  # fmt: skip
    assert queue.get(first) == before
    assert has_key(queue, second)

    queue.cancel(second)
    assert queue.reset(first) is Outcome.OK
    assert has_key(queue, first)


def test_of_several_that_are_reset_the_first_gets_the_key(queue: Queue) -> None:
    ids = []
    for _ in range(3):
        ids.append(queue.add(unique="k"))
        queue.done(queue.take_one())

    assert queue.store.reset(ids) == [Outcome.OK, Outcome.CONFLICT, Outcome.CONFLICT]
    assert has_key(queue, ids[0])
    assert queue.counts() == {"ready": 1, "done": 2}


# Edit and move.


def test_a_moved_job_takes_its_key_along(queue: Queue) -> None:
    job_id = queue.add(unique="k")
    queue.edit(job_id, topic="other")
    assert has_key(queue, job_id)
    queue.done(queue.take_one("other"))
    assert is_free(queue)


def test_an_edited_key_is_taken_and_the_old_one_is_free(queue: Queue) -> None:
    job_id = queue.add(unique="k")
    assert queue.edit(job_id, options={"unique": "l"}) is Outcome.OK
    assert is_free(queue, "k")
    assert has_key(queue, job_id, "l")

    assert queue.edit(job_id, options={"unique": None}) is Outcome.OK
    assert is_free(queue, "l")
    assert queue.get(job_id).options.unique is None


def test_an_edit_to_a_key_that_another_job_has_is_a_conflict_and_changes_nothing(
    queue: Queue,
) -> None:
    has = queue.add(unique="k")
    others = queue.add_many(2, delay=5.0)
    before = [queue.get(job_id) for job_id in [has, *others]]
    change = Change(weight=5, payload=b"new", options={"unique": "k"})
    assert queue.store.edit([others[0], others[1], others[0]], change) == [Outcome.CONFLICT] * 3
    assert [queue.get(job_id) for job_id in [has, *others]] == before

    assert queue.store.edit([*others, has], change)[2] is Outcome.OK
    assert queue.get(has).weight == 5


def test_of_several_that_are_edited_to_one_key_the_first_gets_it(queue: Queue) -> None:
    ids = queue.add_many(3)
    outcomes = queue.store.edit([*ids, ids[0]], Change(options={"unique": "k"}))

    assert outcomes == [Outcome.OK, Outcome.CONFLICT, Outcome.CONFLICT, Outcome.OK]
    assert has_key(queue, ids[0])


def test_an_edited_period_begins_at_the_edit_and_one_that_is_not_edited_goes_on(
    queue: Queue, clock: ManualClock
) -> None:
    job_id = queue.add(unique="k", unique_for=10.0)
    clock.advance(5)
    queue.edit(job_id, options={"unique_for": 10.0, "name": "n"})
    queue.edit(job_id, payload=b"x")
    clock.advance(5)
    assert is_free(queue)

    queue.edit(job_id, options={"unique_for": 20.0})
    clock.advance(19)
    assert has_key(queue, job_id)
    queue.edit(job_id, options={"unique_for": None})
    clock.advance(1000)
    assert has_key(queue, job_id)
    queue.cancel(job_id)
    assert is_free(queue)


def test_an_edit_that_would_prolong_a_key_which_another_job_has_by_now_is_a_conflict(
    queue: Queue, clock: ManualClock
) -> None:
    first = queue.add(unique="k", unique_for=10.0)
    clock.advance(10)
    second = queue.add(unique="k")
    before = queue.get(first)

    assert queue.edit(first, options={"unique_for": "unfinished"}) is Outcome.CONFLICT
    assert queue.get(first) == before
    assert queue.edit(first, options={"lease": 5.0}) is Outcome.OK
    assert has_key(queue, second)


# Time.


def test_throttle_adds_one_job_in_each_period(queue: Queue, clock: ManualClock) -> None:
    ids = []
    for _ in range(40):
        ids.append(queue.add(unique="k", unique_for=10.0))
        queue.store.settle([done(job) for job in queue.take(n=5)])
        clock.advance(1)

    assert [ids.count(job_id) for job_id in dict.fromkeys(ids)] == [10, 10, 10, 10]


def test_a_wall_clock_that_is_stepped_moves_the_end_of_a_period(
    queue: Queue, clock: ManualClock
) -> None:
    first = queue.add(unique="k", unique_for=10.0)
    clock.step_wall(-3600)
    clock.advance(3609)
    assert has_key(queue, first)
    clock.advance(1)
    assert is_free(queue)

    queue.add(unique="k", unique_for=3000.0)
    clock.step_wall(3600)
    assert is_free(queue)


@pytest.mark.parametrize("step", [-7200.0, 7200.0])
def test_a_stepped_wall_clock_leaves_keys_without_a_period_alone(
    queue: Queue, clock: ManualClock, step: float
) -> None:
    job_id = queue.add(unique="k")
    clock.step_wall(step)
    assert has_key(queue, job_id)
    queue.done(queue.take_one())
    assert is_free(queue)


def keys_kept(queue: Queue) -> int:
    """How many keys the store keeps, those whose periods are over too."""
    return len(queue.store._read(lambda tx: tx.flow.keys(None, 100_000)))  # type: ignore[attr-defined]


def test_periods_that_are_over_do_not_pile_up(queue: Queue, clock: ManualClock) -> None:
    for number in range(60):
        queue.store.enqueue([spec(unique=f"{number}-{n}", unique_for=1.0) for n in range(10)])
        clock.advance(1)
        assert keys_kept(queue) <= 10 + 10
    queue.store.enqueue([spec(unique=f"last-{n}", unique_for=1.0) for n in range(SWEPT)])
    clock.advance(1)
    queue.store.prune()

    assert keys_kept(queue) == 0


# Names.

NAMES = ["k", "kk", "k\0", "k\0x", "ключ", "鍵", "🔑", "k" * 255, "k" * 254, "é" * 127, " ", "\x7f"]


def test_keys_that_begin_alike_and_of_any_script_are_distinct(queue: Queue) -> None:
    ids = {name: queue.add(unique=name) for name in NAMES}
    periods = {name: queue.add(unique=f"{name[:200]}!", unique_for=50.0) for name in NAMES[:5]}
    assert len({*ids.values(), *periods.values()}) == len(NAMES) + 5
    for name, job_id in ids.items():
        assert queue.add(unique=name) == job_id

    queue.delete(ids["k"])
    assert is_free(queue, "k")
    assert not any(is_free(queue, name) for name in NAMES if name != "k")


# Export and import.


@pytest.mark.parametrize("unique_for", FOR)
@pytest.mark.parametrize("status", Status)
def test_an_imported_job_has_its_key_as_it_had_before(
    queue: Queue, opener: Opener, clock: ManualClock, status: Status, unique_for: Any
) -> None:
    job_id, _ = queue.job_in(status, unique="k", unique_for=unique_for)
    clock.advance(5)
    there = Queue(opener("there"), clock)
    move(queue.store, there.store)
    waits = status not in {Status.DONE, Status.CANCELED}  # one that was reserved is ready there

    assert has_key(there, job_id) is (waits or unique_for == 100.0)
    if unique_for == 100.0:
        clock.advance(94.9)
        assert has_key(there, job_id)
        clock.advance(0.1)
        assert is_free(there)


def test_an_imported_job_goes_without_a_key_that_another_has_there(
    queue: Queue, opener: Opener, clock: ManualClock
) -> None:
    mine = queue.add(unique="k")
    there = Queue(opener("there"), clock)
    theirs = there.add(unique="k", delay=100.0)

    assert move(queue.store, there.store) == [Outcome.OK]
    assert has_key(there, theirs)
    there.done(there.take_one())
    assert there.status(mine) is Status.DONE
    assert has_key(there, theirs)


# Interplay of several calls.


def test_what_one_call_frees_the_next_may_take(queue: Queue) -> None:
    ids = []
    for _ in range(50):
        ids.append(queue.add(unique="k", on_conflict="raise"))
        queue.done(queue.take_one())

    assert len(set(ids)) == 50


def test_settling_and_reserving_in_one_call_gives_keys_up_and_takes_none(queue: Queue) -> None:
    queue.store.enqueue([spec(unique=f"k{n}", unique_for="waiting") for n in range(4)])
    held = queue.take(n=2)
    queue.store.settle([done(held[0]), release(held[1])])

    assert [is_free(queue, f"k{n}") for n in range(4)] == [True, False, False, False]


def test_a_job_is_dropped_with_its_reason_and_its_key_goes_to_the_next(queue: Queue) -> None:
    queue.store.configure("mail", {"max_jobs": 1, "when_full": "drop-oldest"})
    first = queue.add(unique="k")
    second = queue.add(unique="l")

    assert queue.get(first).reason is Reason.DROPPED
    assert queue.add(unique="k") not in {first, second}
    assert queue.get(second).reason is Reason.DROPPED


def test_a_call_whose_jobs_are_all_there_already_is_never_refused(queue: Queue) -> None:
    queue.store.configure("mail", {"max_jobs": 1, "max_bytes": 10})
    first = queue.add(unique="k", payload=b"0123456789")
    assert queue.store.enqueue([spec(unique="k")] * 3) == [first] * 3


def test_specs_are_taken_as_they_come(queue: Queue) -> None:
    plain = JobSpec("mail", 0, to_us(0.0), b"", spec().options)
    ids = queue.store.enqueue([plain, spec(unique="k"), plain, spec(unique="k"), spec(name="n")])

    assert len(set(ids)) == 4
    assert ids == [*sorted(ids[:3]), ids[1], ids[4]]


@pytest.mark.parametrize("unique_for", ["waiting", "unfinished", 100.0])
def test_a_key_that_an_operator_has_released_is_another_job_s(
    queue: Queue, unique_for: Any
) -> None:
    first = queue.add(unique="k", unique_for=unique_for)

    assert queue.store.release_keys(["k", "k", "l"]) == ["ok", "missing", "missing"]
    assert queue.store.check().problems == ()
    second = queue.add(unique="k", unique_for=unique_for)
    assert second != first
    for job_id in (first, second):
        held = queue.take_one()
        assert held.id == job_id
        assert queue.done(held) is Outcome.OK
    assert is_free(queue, "k") is (unique_for != 100.0)


def test_a_key_that_an_operator_has_released_is_not_held_up_by_what_lingers(queue: Queue) -> None:
    held = queue.job_in(Status.CANCELED, unique="k")
    assert not is_free(queue, "k")

    assert queue.store.release_keys(["k"]) == ["ok"]
    assert queue.store.check().problems == ()
    second = queue.add(unique="k")
    queue.settle(Settlement(*held, Event.DONE))
    assert queue.add(unique="k") == second
