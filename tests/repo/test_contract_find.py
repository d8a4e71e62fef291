"""Jobs by what is known of them: found, walked over, and changed only where they still match."""

from collections.abc import Callable
from typing import Any

import pytest

from jobq.ids import to_raw
from jobq.job import Change
from jobq.repo.base import LookFrom, Retention, Store
from jobq.selector import ALL_JOBS, Selector
from jobq.states import Outcome, Reason, Status
from tests.conftest import Opener
from tests.repo.conftest import Queue, retry, spec

EVERYTHING = 10_000


def found(store: Store, limit: int = EVERYTHING, **wanted: Any) -> list[bytes]:
    return [to_raw(job.id) for job in store.find(Selector(**wanted), None, limit)]


def walked(store: Store, selector: Selector, limit: int = 3) -> list[bytes]:
    """What all steps of a walk find, each at most *limit* jobs long."""
    seen: list[bytes] = []
    step = store.look(selector, None, limit)
    seen += step.ids
    while step.after is not None:
        step = store.look(selector, step.after, limit)
        assert step.jobs <= limit
        assert len(step.ids) <= step.jobs
        seen += step.ids
    return seen


# Filters.


def test_jobs_are_found_by_what_they_were_given(queue: Queue) -> None:
    named = queue.add("sms", name="n", tags=["a", "b"], group="g", unique="k")
    queue.add("sms", name="m", tags=["b"], group="h", unique="l")
    queue.add("mail", tags=["a"])

    for wanted in (
        {"name": "n"},
        {"tags": frozenset({"a", "b"})},
        {"group": "g"},
        {"unique": "k"},
        {"topic": "sms", "tags": frozenset({"a"})},
    ):
        assert found(queue.store, **wanted) == walked(queue.store, Selector(**wanted)) == [named]
    assert found(queue.store, topic="sms", name="nobody") == []


def test_an_option_that_was_edited_is_the_one_that_counts(queue: Queue) -> None:
    job_id = queue.add(name="old", tags=["a"])
    queue.edit(job_id, options={"name": "new", "tags": None})

    assert found(queue.store, name="new") == [job_id]
    assert found(queue.store, name="old") == found(queue.store, tags=frozenset({"a"})) == []


def test_jobs_are_found_by_why_they_were_canceled(queue: Queue) -> None:
    ids = queue.add_many(4)
    by_hand, rejected, exhausted, _ = ids
    queue.cancel(by_hand)
    (second, third) = queue.take(n=2)
    queue.give_up(second)
    queue.retry(third, None)

    assert found(queue.store, dead=True) == [rejected, exhausted]
    assert found(queue.store, dead=False) == [by_hand, ids[3]]
    assert found(queue.store, reasons=frozenset({Reason.EXHAUSTED})) == [exhausted]
    assert found(queue.store, reasons=frozenset({Reason.CANCELED, Reason.REJECTED})) == [
        by_hand, rejected,
    ]  # fmt: skip
    assert found(queue.store, dead=True, statuses=frozenset({Status.DONE})) == []


def test_jobs_are_found_by_what_was_said_of_their_failure(queue: Queue) -> None:
    silent, failed, quiet = queue.add_many(3)
    first, second, third = queue.take(n=3)
    queue.store.settle(
        [retry(first), retry(second, error="Traceback\nOSError: refused"), retry(third, 5.0)]
    )
    queue.store.cancel([quiet], "Refused by hand")

    assert (first.id, second.id) == (silent, failed)
    assert found(queue.store, error="refused") == [failed]
    assert found(queue.store, error="efused") == [failed, quiet]
    assert found(queue.store, error="nothing of it") == []


def test_age_is_told_from_the_enqueueing_whatever_happened_since(queue: Queue) -> None:
    old = queue.add(delay=1.0)
    queue.clock.advance(60)
    young = queue.add()
    queue.take(n=2)
    queue.store.cancel([old, young])
    queue.store.reset([old])

    assert found(queue.store, older_than_us=60_000_000) == [old]
    assert found(queue.store, older_than_us=60_000_001) == []
    assert found(queue.store, older_than_us=0) == [old, young]


def test_filters_come_before_the_limit(queue: Queue) -> None:
    wanted = []
    for _ in range(3):
        queue.add_many(600, "crowd")
        wanted.append(queue.add("crowd", name="n"))

    assert found(queue.store, limit=2, name="n") == wanted[:2]
    assert found(queue.store, limit=4, name="n") == wanted
    assert found(queue.store, limit=1, name="none") == []


# A walk.


@pytest.mark.parametrize("limit", [1, 2, 5, 7, 100])
def test_a_walk_sees_every_job_once(queue: Queue, limit: int) -> None:
    ids = queue.add_many(5) + queue.add_many(2, "sms")

    assert walked(queue.store, ALL_JOBS, limit) == ids
    assert walked(queue.store, Selector("sms"), limit) == ids[5:]


def test_a_walk_over_nothing_ends_at_once(queue: Queue) -> None:
    assert queue.store.look(ALL_JOBS, None, 10) == ([], 0, None)
    queue.add()

    for wanted in (Selector("nowhere"), Selector(statuses=frozenset({Status.DONE}))):
        assert queue.store.look(wanted, None, 10) == ([], 0, None)


def test_a_walk_sees_no_job_that_came_after_it_began(queue: Queue) -> None:
    ids = queue.add_many(4)
    step = queue.store.look(ALL_JOBS, None, 2)
    queue.add_many(3)
    rest = queue.store.look(ALL_JOBS, step.after, 100)

    assert (step.ids, rest.ids, rest.after) == (ids[:2], ids[2:], None)


def test_a_walk_over_an_empty_store_stays_empty(queue: Queue) -> None:
    begin = queue.store.look(ALL_JOBS, None, 0)
    queue.add()

    assert begin.after is not None
    assert queue.store.look(ALL_JOBS, begin.after, 10) == ([], 0, None)


def test_a_walk_of_no_steps_says_where_it_begins(queue: Queue) -> None:
    ids = queue.add_many(3)
    begin = queue.store.look(Selector("nowhere"), None, 0)
    queue.add_many(3)

    assert (begin.ids, begin.jobs) == ([], 0)
    assert isinstance(begin.after, LookFrom)
    assert queue.store.look(ALL_JOBS, begin.after, 10).ids == ids


def test_newcomers_are_told_apart_also_where_an_import_has_higher_ids(queue: Queue) -> None:
    """Imported jobs keep their ids, which may be larger than those that are given later."""
    first = queue.add()
    copies = queue.store.export_jobs(None, 1).copies
    far = b"\xff" * 16
    queue.store.import_jobs([copies[0]._replace(id=far)], 1, None)
    step = queue.store.look(ALL_JOBS, None, 1)
    late = queue.add()
    rest = queue.store.look(ALL_JOBS, step.after, 100)

    assert first < late < far
    assert (step.ids, rest.ids) == ([first], [far])


def test_jobs_that_are_reset_moved_or_edited_meanwhile_are_no_newcomers(queue: Queue) -> None:
    ids = queue.add_many(4)
    step = queue.store.look(ALL_JOBS, None, 1)
    queue.edit(ids[1], topic="sms")
    queue.edit(ids[2], payload=b"\xc0")
    queue.cancel(ids[3])
    queue.reset(ids[3])

    assert queue.store.look(ALL_JOBS, step.after, 100).ids == ids[1:]


# Changed only where they still match.

VERBS: list[tuple[str, Status, Callable[[Store, list[bytes], Selector], list[Outcome]]]] = [
    ("cancel", Status.READY, lambda store, ids, where: store.cancel(ids, "why", where)),
    ("reset", Status.CANCELED, lambda store, ids, where: store.reset(ids, where)),
    ("delete", Status.CANCELED, lambda store, ids, where: store.delete(ids, where)),
    ("edit", Status.READY, lambda store, ids, where: store.edit(ids, Change(weight=3), where)),
]


@pytest.mark.parametrize(
    ("status", "verb"), [verb[1:] for verb in VERBS], ids=[verb[0] for verb in VERBS]
)
def test_a_verb_leaves_alone_what_does_not_match(
    queue: Queue,
    status: Status,
    verb: Callable[[Store, list[bytes], Selector], list[Outcome]],
) -> None:
    meant = [queue.job_in(status, name="n")[0] for _ in range(2)]
    other = queue.job_in(status, name="m")[0]
    nobody = bytes(16)
    before = queue.get(other)
    outcomes = verb(queue.store, [meant[0], other, nobody, meant[1]], Selector(name="n"))

    assert outcomes == [Outcome.OK, Outcome.INVALID, Outcome.MISSING, Outcome.OK]
    assert queue.get(other) == before


def test_a_job_that_changed_since_it_was_looked_at_is_left_alone(queue: Queue) -> None:
    """Every way in which a job of a page can stop to match before its turn comes."""
    where = Selector("mail", frozenset({Status.READY}), name="n", older_than_us=0)
    stays, moved, renamed, taken, gone, canceled = queue.add_many(6, name="n")
    step = queue.store.look(where, None, 100)
    queue.edit(moved, topic="sms")
    queue.edit(renamed, options={"name": "m"})
    queue.delete(gone)
    queue.cancel(canceled)
    queue.edit(stays, weight=-1)
    (held,) = queue.take(n=1)
    queue.release(held)
    queue.edit(taken, weight=-9)
    (held,) = queue.take(n=1)
    outcomes = queue.store.cancel(step.ids, None, where)

    assert held.id == taken
    assert dict(zip(step.ids, outcomes, strict=True)) == {
        stays: Outcome.OK,
        moved: Outcome.INVALID,
        renamed: Outcome.INVALID,
        taken: Outcome.INVALID,
        gone: Outcome.MISSING,
        canceled: Outcome.INVALID,
    }
    assert queue.counts() == {"ready": 2, "reserved": 1, "canceled": 2}


def test_a_job_whose_error_changed_is_left_alone(queue: Queue) -> None:
    ids = queue.add_many(2)
    for held in queue.take(n=2):
        queue.retry(held, None, error="refused")
    queue.reset(ids[0])
    (held,) = queue.take()
    queue.retry(held, None, error="timed out")

    assert queue.store.reset(ids, Selector(error="refused")) == [Outcome.INVALID, Outcome.OK]
    assert queue.get(ids[0]).error == "timed out"


def test_the_second_mention_of_a_job_meets_what_the_first_has_left(opener: Opener) -> None:
    queue = Queue(opener(retention=Retention(canceled_us=0)), opener.clock)
    job_id = queue.add(name="n")
    where = Selector(name="n")

    assert queue.store.edit([job_id] * 2, Change(weight=1), where) == [Outcome.OK] * 2
    assert queue.store.cancel([job_id] * 2, None, where) == [Outcome.OK, Outcome.MISSING]


def test_everything_is_as_one_without_filters(queue: Queue) -> None:
    ids = queue.store.enqueue([spec(), spec("sms", delay=5.0)])

    assert queue.store.cancel(ids, None, ALL_JOBS) == [Outcome.OK] * 2
