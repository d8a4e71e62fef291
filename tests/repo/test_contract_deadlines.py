"""The contract of every store: deadlines, and times to live."""

import random
import time
from datetime import datetime
from typing import Any

import pytest

from jobq.clock import ManualClock, SystemClock, utc
from jobq.options import JobOptions
from jobq.repo.base import Store
from jobq.repo.repositories import Agenda, Transaction
from jobq.repo.transactional import STEP, TIMELESS
from jobq.states import Outcome, Reason, Status
from tests.conftest import LONG_S, SOON_S, Opener
from tests.repo.conftest import Queue, done, release, retry, spec
from tests.repo.test_contract_transfer import move
from tests.repo.test_contract_wait import wait_for_end


def after(clock: ManualClock, seconds: float) -> datetime:
    """That many seconds from now."""
    return utc(clock.wall_us() + round(seconds * 1e6))


def is_expired(queue: Queue, job_id: bytes) -> bool:
    """Whether the job is canceled as expired; if not, it waits."""
    record = queue.get(job_id)
    if record.status is Status.CANCELED:
        assert record.reason is Reason.EXPIRED
        return True
    assert record.status in {Status.READY, Status.DELAYED}
    return False


def expire_after(seconds: float, queue: Queue, *job_ids: bytes) -> None:
    """See that these jobs, which wait, expire after so many seconds from now, and not before."""
    last = 0.000001
    queue.clock.advance(seconds - last)
    queue.store.advance()
    assert not any(is_expired(queue, job_id) for job_id in job_ids)
    queue.clock.advance(last)
    queue.store.advance()
    assert all(is_expired(queue, job_id) for job_id in job_ids)


# When it passes.


@pytest.mark.parametrize(
    "options", [{"ttl": 5.0}, {"deadline": 5.0}, {"ttl": 9.0, "deadline": 5.0}]
)
@pytest.mark.parametrize("delay", [0.0, 3.0, 5.0, 50.0])
def test_a_job_that_waits_is_canceled_as_expired_when_its_deadline_has_passed_and_not_before(
    queue: Queue, clock: ManualClock, delay: float, options: dict[str, Any]
) -> None:
    if "deadline" in options:
        options = {**options, "deadline": after(clock, options["deadline"])}
    job_id = queue.add(delay=delay, payload=b"p", **options)
    expire_after(5.0, queue, job_id)
    record = queue.get(job_id)

    assert (record.ended_us, record.due_us) == (clock.wall_us(), None)
    assert (record.payload_bytes, record.attempt, record.history) == (b"p", 0, ())
    assert queue.counts() == {"canceled": 1}
    assert queue.take(n=9) == []


@pytest.mark.parametrize(
    ("topic_ttl", "ttl", "deadline", "earliest"),
    [
        (None, None, None, None),
        (7.0, None, None, 7.0),
        (7.0, 8.0, 9.0, 7.0),
        (8.0, 7.0, 9.0, 7.0),
        (9.0, 8.0, 7.0, 7.0),
        (None, 8.0, 7.0, 7.0),
        (7.0, None, 9.0, 7.0),
    ],
)
def test_the_earliest_of_a_jobs_deadline_its_ttl_and_its_topics_holds(
    queue: Queue, clock: ManualClock,
    topic_ttl: float | None, ttl: float | None, deadline: float | None, earliest: float | None,
) -> None:  # fmt: skip
    queue.store.configure("mail", {"ttl": topic_ttl})
    clock.advance(1000)
    moment = None if deadline is None else after(clock, deadline)
    job_id = queue.add(ttl=ttl, deadline=moment)

    expected = None if earliest is None else after(clock, earliest)
    assert queue.get(job_id).options.deadline == expected
    assert queue.get(job_id).options.ttl == ttl


def test_a_topics_ttl_holds_for_jobs_that_are_enqueued_from_then_on(
    queue: Queue, clock: ManualClock
) -> None:
    before = queue.add()
    queue.store.configure("mail", {"ttl": 5.0})
    mortal, other = queue.add(), queue.add("other")
    queue.store.configure("mail", {"ttl": None})
    later = queue.add()
    clock.advance(5)
    queue.store.advance()

    assert [is_expired(queue, job) for job in (before, mortal, other, later)] == [0, 1, 0, 0]


def test_follow_up_jobs_have_the_ttl_of_their_topic(queue: Queue, clock: ManualClock) -> None:
    queue.store.configure("next", {"ttl": 5.0})
    queue.add()
    settled = queue.store.settle([done(queue.take_one(), follow=(spec("next"),))])
    clock.advance(5)
    queue.store.advance()

    assert is_expired(queue, settled.follow_ids[0][0])


def test_a_deadline_that_has_passed_already_ends_the_job_at_once(
    queue: Queue, clock: ManualClock
) -> None:
    job_id = queue.add(deadline=after(clock, -1.0))
    assert queue.take() == []
    assert is_expired(queue, job_id)


@pytest.mark.parametrize("verb", ["reserve", "enqueue", "cancel", "settle", "extend"])
def test_every_writing_call_looks_at_deadlines_first(
    queue: Queue, clock: ManualClock, verb: str
) -> None:
    ids = [queue.add(ttl=1.0), queue.add(ttl=1.0, delay=9.0)]
    clock.advance(1)
    calls: dict[str, Any] = {
        "reserve": lambda: queue.take("nowhere"),
        "enqueue": lambda: queue.add("another"),
        "cancel": lambda: queue.cancel(ids[0]),
        "settle": lambda: queue.store.settle([]),
        "extend": lambda: queue.store.extend([]),
    }
    outcome = calls[verb]()

    assert verb != "cancel" or outcome is Outcome.INVALID
    assert all(is_expired(queue, job_id) for job_id in ids)


def test_deadlines_pass_in_their_order_and_in_bounded_steps(
    queue: Queue, clock: ManualClock
) -> None:
    ttls = random.Random(5).sample(range(1, 2000), 500)
    ids = queue.store.enqueue([spec(ttl=ttl, delay=ttl % 3, retention=9e6) for ttl in ttls])
    soonest = [job_id for _, job_id in sorted(zip(ttls, ids, strict=True))]
    clock.advance(5000)
    lapsed = 0
    more = True
    while more:
        more = queue.store.advance(100).more
        ended = set(queue.get_many(Status.CANCELED))
        assert len(ended) <= lapsed + 100
        lapsed = len(ended)
        assert ended == set(soonest[:lapsed])

    assert queue.counts() == {"canceled": 500}


def test_no_call_pays_for_a_backlog_of_deadlines(queue: Queue, clock: ManualClock) -> None:
    queue.store.enqueue([spec("other", ttl=1.0)] * 10_000)
    live = queue.add()
    clock.advance(1)
    before = 0
    for _ in range(3):
        queue.store.settle([release(job) for job in queue.take()])
        canceled = queue.counts().get("canceled", 0)
        assert 0 < canceled - before <= 2 * STEP
        before = canceled
    assert queue.take_one().id == live

    calls = 0
    while queue.counts("other").get("ready"):
        queue.store.advance()
        calls += 1
    assert calls <= 10
    assert queue.counts("other") == {"canceled": 10_000}


@pytest.mark.parametrize("n", [1, 7, 1000])
@pytest.mark.parametrize("options", [{}, {"group": "g"}])
def test_a_job_is_never_handed_out_after_its_deadline_whatever_is_due(
    queue: Queue, clock: ManualClock, n: int, options: dict[str, Any]
) -> None:
    mortal = [spec(ttl=1.0, **options)] * 1500
    queue.store.enqueue(mortal)
    live = queue.store.enqueue([spec(**options), spec(ttl=2.0, **options)])
    clock.advance(1)
    handed: list[bytes] = []
    for _ in range(20):
        handed += [job.id for job in queue.take(n=n)]

    assert sorted(handed) == live
    assert queue.counts() == {"reserved": 2, "canceled": 1500}


@pytest.mark.parametrize("step", [-3600.0, 3600.0])
def test_a_deadline_is_a_time_of_the_wall_clock(
    queue: Queue, clock: ManualClock, step: float
) -> None:
    job_id = queue.add(ttl=10.0)
    clock.step_wall(step)
    queue.store.advance()
    assert is_expired(queue, job_id) is (step > 0)
    clock.advance(3609.999999)
    queue.store.advance()
    assert is_expired(queue, job_id) is (step > 0)
    clock.advance(0.000001)
    queue.store.advance()
    assert is_expired(queue, job_id)


# Jobs that somebody has.


def test_a_job_that_is_held_goes_on_after_its_deadline(queue: Queue, clock: ManualClock) -> None:
    job_id = queue.add(ttl=5.0)
    held = queue.take_one()
    assert held.options.deadline == after(clock, 5.0)
    clock.advance(100)
    queue.store.advance()
    assert queue.status(job_id) is Status.RESERVED
    assert queue.extend(held) is Outcome.OK
    assert queue.done(held) is Outcome.OK
    assert queue.status(job_id) is Status.DONE


@pytest.mark.parametrize("delay", [0.0, 3.0])
@pytest.mark.parametrize("back", [retry, release])
def test_a_job_that_is_given_back_after_its_deadline_ends_as_expired(
    queue: Queue, clock: ManualClock, back: Any, delay: float
) -> None:
    job_id = queue.add(ttl=5.0, unique="k", group="g")
    held = queue.take_one()
    clock.advance(5)
    settlement = back(held, delay)
    assert queue.settle(settlement) is Outcome.OK
    assert is_expired(queue, job_id)
    assert queue.settle(settlement) is Outcome.OK  # repeated, it is a no-op
    assert queue.settle(done(held)) is Outcome.STALE
    assert queue.add(unique="k") != job_id


def test_a_job_that_is_given_back_before_its_deadline_has_until_then(
    queue: Queue, clock: ManualClock
) -> None:
    ids = queue.add_many(2, ttl=5.0)
    held = queue.take(n=2)
    clock.advance(4)
    queue.store.settle([retry(held[0], 9.0, error="x"), release(held[1])])
    queue.store.advance()
    assert not any(is_expired(queue, job_id) for job_id in ids)
    clock.advance(1)
    queue.store.advance()

    assert all(is_expired(queue, job_id) for job_id in ids)
    assert queue.get(ids[0]).error == "x"


def test_a_lease_that_is_over_after_the_deadline_ends_the_job_as_expired(queue: Queue) -> None:
    late, poison, early = (
        queue.add(ttl=5.0, lease=6.0), queue.add(ttl=5.0, lease=6.0, max_crashes=1),
        queue.add(ttl=7.0, lease=6.0),
    )  # fmt: skip
    queue.clock.advance(0)
    queue.take(n=3)
    queue.expire(6.0)

    assert is_expired(queue, late)
    assert is_expired(queue, poison)
    assert not is_expired(queue, early)
    assert queue.get(late).crashes == 1
    queue.expire(1.0)
    assert is_expired(queue, early)


def test_a_retry_without_end_is_exhausted_rather_than_expired(
    queue: Queue, clock: ManualClock
) -> None:
    job_id = queue.add(ttl=5.0)
    held = queue.take_one()
    clock.advance(5)
    queue.retry(held, None)

    assert queue.get(job_id).reason is Reason.EXHAUSTED


# What comes after, and what changes it.


def test_an_expired_job_is_kept_as_other_canceled_ones(queue: Queue, clock: ManualClock) -> None:
    queue.store.configure("short", {"keep_canceled": 2.0})
    queue.store.configure("never", {"keep_canceled": 0.0})
    ids = {
        "as usual": queue.add(ttl=1.0),
        "its own": queue.add(ttl=1.0, retention=3.0),
        "its topic's": queue.add("short", ttl=1.0),
        "not at all": queue.add("never", ttl=1.0),
    }
    kept = []
    for _ in range(4):
        clock.advance(1)
        queue.store.prune()
        kept.append([name for name, job_id in ids.items() if queue.find(job_id)])

    assert kept == [
        ["as usual", "its own", "its topic's"],
        ["as usual", "its own", "its topic's"],
        ["as usual", "its own"],
        ["as usual"],
    ]


@pytest.mark.parametrize("end", ["expired", "done", "canceled"])
def test_a_reset_drops_the_deadline(queue: Queue, clock: ManualClock, end: str) -> None:
    job_id = queue.add(ttl=5.0, deadline=after(clock, 9.0), name="n")
    if end == "canceled":
        queue.cancel(job_id)
    elif end == "done":
        queue.done(queue.take_one())
    clock.advance(5)
    queue.store.advance()
    assert queue.reset(job_id) is Outcome.OK
    assert queue.get(job_id).options.as_dict() == {"name": "n"}
    clock.advance(1000)
    queue.store.advance()

    assert queue.take_one().id == job_id


def test_a_reset_job_may_get_a_new_deadline_by_an_edit(queue: Queue, clock: ManualClock) -> None:
    job_id = queue.add(ttl=5.0)
    queue.cancel(job_id)
    queue.reset(job_id)
    queue.edit(job_id, options={"ttl": 3.0})
    clock.advance(3)
    queue.store.advance()

    assert is_expired(queue, job_id)


def finished(queue: Queue, end: str, **options: Any) -> bytes:
    """A job that has ended so; 2 s have gone by since its enqueue."""
    job_id = queue.add(**options)
    if end in {"done", "canceled while held"}:
        held = queue.take_one()
        if end == "done":
            queue.done(held)
    if end.startswith("canceled"):
        queue.cancel(job_id)
    queue.clock.advance(2)
    queue.store.advance()
    assert queue.get(job_id).finished
    return job_id


@pytest.mark.parametrize(
    ("topic_ttl", "ttl", "deadline", "earliest"),
    [
        (None, 7.0, None, 7.0),
        (None, None, 7.0, 7.0),
        (None, 7.0, 8.0, 7.0),
        (None, 8.0, 7.0, 7.0),
        (7.0, None, None, 7.0),
        (7.0, 8.0, 9.0, 7.0),
        (9.0, 8.0, 7.0, 7.0),
        (9.0, 7.0, None, 7.0),
    ],
)
def test_the_earliest_of_what_a_reset_gives_and_its_topics_ttl_holds(
    queue: Queue, clock: ManualClock,
    topic_ttl: float | None, ttl: float | None, deadline: float | None, earliest: float,
) -> None:  # fmt: skip
    job_id = finished(queue, "done", name="n")
    queue.store.configure("mail", {"ttl": topic_ttl})
    moment = None if deadline is None else after(clock, deadline)
    assert queue.reset(job_id, ttl=ttl, deadline=moment) is Outcome.OK

    given = {} if ttl is None else {"ttl": ttl}
    ends = {"deadline": after(clock, earliest).isoformat(), **given}
    assert queue.get(job_id).options.as_dict() == {"name": "n", **ends}
    assert watched(queue) == 1


@pytest.mark.parametrize(
    "options", [{}, {"ttl": 1.5}, {"ttl": 90.0, "group": "g"}, {"unique": "k", "group": "g"}]
)
@pytest.mark.parametrize("end", ["done", "canceled", "canceled while held", "expired"])
def test_a_reset_job_has_its_new_deadline_however_it_ended_and_whatever_it_had(
    queue: Queue, clock: ManualClock, end: str, options: dict[str, Any]
) -> None:
    options = {**options, "ttl": 1.5} if end == "expired" else options
    job_id = finished(queue, end, **options)
    assert queue.reset(job_id, ttl=7.0) is Outcome.OK
    record = queue.get(job_id)
    assert record.status is Status.READY
    assert record.options.given() == {**options, "ttl": 7.0, "deadline": after(clock, 7.0)}
    assert queue.store.check().problems == ()

    expire_after(7.0, queue, job_id)
    assert watched(queue) == 0
    assert queue.take() == []
    assert queue.store.check().problems == ()


def test_the_deadline_of_a_reset_may_be_the_one_that_the_job_had(
    queue: Queue, clock: ManualClock
) -> None:
    moment = after(clock, 9.0)
    job_id = finished(queue, "canceled", deadline=moment)
    assert queue.reset(job_id, deadline=moment) is Outcome.OK
    assert (queue.get(job_id).options.deadline, watched(queue)) == (moment, 1)
    clock.advance(7)
    queue.store.advance()

    assert is_expired(queue, job_id)


def test_a_deadline_of_a_reset_that_has_passed_already_ends_the_job_at_once(
    queue: Queue, clock: ManualClock
) -> None:
    job_id = finished(queue, "done")
    assert queue.reset(job_id, deadline=after(clock, -1.0)) is Outcome.OK
    assert queue.take() == []
    assert is_expired(queue, job_id)


def test_jobs_that_are_reset_together_get_the_same_deadline_each_by_the_settings_of_its_topic(
    queue: Queue, clock: ManualClock
) -> None:
    queue.store.configure("short", {"ttl": 3.0})
    ids = [queue.add(topic, **options) for topic, options in (
        ("mail", {}), ("short", {}), ("mail", {"group": "g"}), ("mail", {"ttl": 1.0}),
    )]  # fmt: skip
    queue.store.cancel(ids)
    clock.advance(10)
    waiting = queue.add()
    nobody = bytes(16)
    asked = [ids[0], waiting, *ids[1:], nobody, ids[0]]
    outcomes = queue.store.reset(asked, ends=JobOptions(ttl=5.0))

    ok, invalid, missing = Outcome.OK, Outcome.INVALID, Outcome.MISSING
    assert outcomes == [ok, invalid, ok, ok, ok, missing, invalid]
    assert [queue.get(job_id).options.deadline for job_id in ids] == [
        after(clock, seconds) for seconds in (5.0, 3.0, 5.0, 5.0)
    ]
    assert queue.get(waiting).options.deadline is None
    assert watched(queue) == 4


def test_a_reset_that_is_refused_leaves_the_old_deadline(queue: Queue) -> None:
    job_id = finished(queue, "canceled", unique="k", ttl=90.0)
    other = queue.add(unique="k")
    before = queue.get(job_id)
    assert queue.reset(job_id, ttl=3.0) is Outcome.CONFLICT
    assert queue.get(job_id) == before
    assert (queue.get(other).options.deadline, watched(queue)) == (None, 0)


def test_a_reset_job_that_is_given_back_has_until_its_new_deadline(
    queue: Queue, clock: ManualClock
) -> None:
    job_id = finished(queue, "done", ttl=3.0)
    queue.reset(job_id, ttl=10.0)
    held = queue.take_one()
    assert (held.options.ttl, held.options.deadline) == (10.0, after(clock, 10.0))
    assert watched(queue) == 0
    clock.advance(6)
    queue.retry(held, 1.0)

    expire_after(4.0, queue, job_id)


def test_a_reset_job_takes_its_new_deadline_along_to_another_store(
    queue: Queue, opener: Opener, clock: ManualClock
) -> None:
    job_id = finished(queue, "expired", ttl=1.0)
    queue.reset(job_id, ttl=5.0)
    there = Queue(opener("there"), clock)
    clock.advance(2)
    move(queue.store, there.store)
    assert there.get(job_id).options == queue.get(job_id).options

    expire_after(3.0, there, job_id)


def test_a_repair_finds_the_new_deadline_of_a_reset_job(queue: Queue, clock: ManualClock) -> None:
    job_id = finished(queue, "done")
    queue.reset(job_id, ttl=5.0)

    def forget(tx: Transaction) -> None:
        tx.topics.unhold(Agenda.DEADLINE, tx.topics.due(Agenda.DEADLINE, None, 1))

    queue.store._write(forget, TIMELESS)  # type: ignore[attr-defined]
    assert not queue.store.check().ok
    assert queue.store.check(repair=True).ok
    assert watched(queue) == 1
    clock.advance(5)
    queue.store.advance()

    assert is_expired(queue, job_id)


@pytest.mark.parametrize("end", ["done", "cancel", "delete", "purge"])
def test_nothing_is_left_of_the_deadline_of_a_job_that_ended_before(
    queue: Queue, clock: ManualClock, end: str
) -> None:
    job_id = queue.add(ttl=5.0)
    match end:
        case "done":
            queue.done(queue.take_one())
        case "cancel":
            queue.cancel(job_id)
        case "delete":
            queue.delete(job_id)
        case "purge":
            queue.store.purge("mail", frozenset({Status.READY}), None, 10)
    clock.advance(5)
    queue.store.advance()
    record = queue.find(job_id)

    assert record is None or record.reason is not Reason.EXPIRED
    assert watched(queue) == 0


def watched(queue: Queue) -> int:
    """How many deadlines the store looks after."""
    return queue.store._read(  # type: ignore[attr-defined, no-any-return]
        lambda tx: tx.topics.standing(Agenda.DEADLINE)
    )


@pytest.mark.parametrize("before", [None, 5.0, 20.0])
@pytest.mark.parametrize("new", ["ttl", "deadline", "unset", "stays"])
def test_an_edited_deadline_takes_the_place_of_the_old_one(
    queue: Queue, clock: ManualClock, before: float | None, new: str
) -> None:
    """Of jobs that are ready and of delayed ones, whatever else of them is edited."""
    others: tuple[dict[str, Any], ...] = (
        *({}, {"weight": 5, "payload": b"new"}, {"topic": "other"}),
        *({"delay": 0.0}, {"delay": 60.0}),
    )
    jobs = {queue.add(delay=delay, ttl=before): more for delay in (0.0, 60.0) for more in others}
    clock.advance(1)
    edits: dict[str, dict[str, Any]] = {
        "ttl": {"ttl": 10.0},
        "deadline": {"deadline": after(clock, 10.0)},
        "unset": {"deadline": None},
        "stays": {"name": "n"},
    }
    for job_id, more in jobs.items():
        assert queue.edit(job_id, options=edits[new], **more) is Outcome.OK
    if new == "stays":
        left = None if before is None else before - 1
    else:
        left = None if new == "unset" else 10.0
    deadline = None if left is None else after(clock, left)
    assert [queue.get(job_id).options.deadline for job_id in jobs] == [deadline] * len(jobs)
    assert watched(queue) == (0 if left is None else len(jobs))
    if left is not None:
        expire_after(left, queue, *jobs)
    else:
        clock.advance(50)
        queue.store.advance()
        assert not any(is_expired(queue, job_id) for job_id in jobs)


def test_an_edited_payload_leaves_the_deadline_of_a_job_that_moves(
    queue: Queue, clock: ManualClock
) -> None:
    ids = queue.add_many(3, ttl=5.0)
    for number, job_id in enumerate(ids):
        queue.edit(job_id, topic="other", weight=number, payload=b"x", delay=float(number))
    clock.advance(5)
    queue.store.advance()

    assert queue.counts("other") == {"canceled": 3}


def test_a_job_that_is_replaced_lives_as_long_as_a_new_one(
    queue: Queue, clock: ManualClock
) -> None:
    queue.store.configure("mail", {"ttl": 5.0})
    ids = set()
    for _ in range(5):
        ids.add(queue.add(unique="k", on_conflict="replace", delay=4.0))
        clock.advance(3)
    clock.advance(1)

    assert [job.id for job in queue.take(n=9)] == [*ids]


def test_an_imported_job_has_its_deadline(queue: Queue, opener: Opener, clock: ManualClock) -> None:
    ready, delayed = queue.add(ttl=5.0), queue.add(ttl=5.0, delay=9.0)
    over = queue.add(ttl=1.0)
    queue.take(n=1)
    there = Queue(opener("there"), clock)
    clock.advance(2)
    move(queue.store, there.store)
    there.store.advance()
    assert [is_expired(there, job_id) for job_id in (ready, delayed, over)] == [0, 0, 1]
    clock.advance(3)
    there.store.advance()

    assert is_expired(there, ready)
    assert is_expired(there, delayed)


def test_a_group_goes_on_without_the_jobs_whose_deadlines_pass(
    queue: Queue, clock: ManualClock
) -> None:
    queue.store.configure("mail", {"group_concurrency": 1})
    first, second, third = (
        queue.add(group="g"), queue.add(group="g", ttl=5.0), queue.add(group="g"),
    )  # fmt: skip
    held = queue.take_one()
    clock.advance(5)
    queue.store.advance()
    assert queue.take() == []
    queue.done(held)

    assert held.id == first
    assert is_expired(queue, second)
    assert queue.take_one().id == third


@pytest.mark.parametrize("delay", [0.0, 7.0])
def test_a_job_that_waits_for_its_retry_in_its_group_frees_it_when_its_deadline_passes(
    queue: Queue, clock: ManualClock, delay: float
) -> None:
    queue.store.configure("mail", {"group_concurrency": 1})
    first, second = queue.add(group="g", ttl=5.0), queue.add(group="g")
    held = queue.take_one()
    queue.retry(held, 6.0)
    assert queue.take() == []
    queue.edit(first, delay=delay)
    if delay:
        assert queue.take() == []
    clock.advance(5)

    assert queue.take_one().id == second
    assert is_expired(queue, first)
    queue.reset(first)
    queue.cancel(first)
    queue.delete(first)
    assert queue.take() == []


# Who waits sees it.


@pytest.fixture
def live(opener: Opener, sound_sleep: None) -> Store:  # noqa: ARG001
    """An empty store of every kind, on the clocks of this machine, whose waiters sleep soundly."""
    return opener(clock=SystemClock())


@pytest.mark.parametrize("delay", [0.0, 60.0])
def test_a_deadline_passes_in_time_for_who_only_waits_for_the_end(
    live: Store, delay: float
) -> None:
    (job_id,) = live.enqueue([spec(delay=delay, ttl=0.2)])

    assert wait_for_end(live, job_id) is Status.CANCELED  # and no sleep was long


def test_who_waits_for_jobs_sleeps_no_longer_than_to_the_next_deadline(live: Store) -> None:
    live.enqueue([spec("other", ttl=0.2)])
    start = time.monotonic()
    while not live.stats("other").totals.canceled:
        live.wait("mail", LONG_S)
        live.advance()
        assert time.monotonic() - start < SOON_S


def _deadline(queue: Queue) -> None:
    queue.add("other", ttl=1.0)


def _lingering_hold(queue: Queue) -> None:
    job_id = queue.add("other", unique="k", lease=1.0)
    queue.take("other")
    queue.cancel(job_id)


def _rate_of_a_group(queue: Queue) -> None:
    queue.store.configure("other", {"group_rate": (1, 1.0)})
    queue.add("other", group="g")
    queue.add("other", group="g")
    queue.done(queue.take_one("other"))
    assert queue.take("other") == []


@pytest.mark.usefixtures("sound_sleep")
@pytest.mark.parametrize("what", [_deadline, _lingering_hold, _rate_of_a_group])
def test_nobody_sleeps_while_something_is_due(queue: Queue, clock: ManualClock, what: Any) -> None:
    what(queue)
    queue.store.wait("mail", 0.0)  # from now on the name is known
    clock.advance(1.0)
    start = time.monotonic()
    for _ in range(2):
        queue.store.wait("mail", LONG_S)

    assert time.monotonic() - start < SOON_S
