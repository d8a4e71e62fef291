"""The contract of every store: jobs that leave one store and enter another stay what they are."""

from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest

from jobq.clock import ManualClock, utc
from jobq.errors import StoreFull
from jobq.job import JobRecord, Report
from jobq.options import MOST_COUNT
from jobq.repo.base import Store
from jobq.repo.flow import Key
from jobq.repo.memory import MemoryStore
from jobq.repo.operations.transfer import LATER_PLACES, MOST_PLACES
from jobq.states import Outcome, Reason, Status
from tests.conftest import Crew, Opener
from tests.repo.conftest import Queue, spec
from tests.repo.test_contract_threads import woken_after

PAGE = 3


def move(source: Store, target: Store) -> list[Outcome]:
    """Export everything and import it, in pages."""
    outcomes: list[Outcome] = []
    after, base, last_place = None, None, None
    while page := source.export_jobs(after, PAGE):
        if not page.copies:
            break
        last_place = page.last_place if last_place is None else last_place
        imported = target.import_jobs(page.copies, last_place, base)
        after, base = page.copies[-1].id, imported.base
        outcomes += imported.outcomes
    return outcomes


def jobs_of_all_kinds(queue: Queue) -> list[bytes]:
    """One in each state, fresh and used ones, with all that can be kept of a job."""
    for number in range(5):
        queue.add("mail", weight=number % 2, payload=b"%d" % number, name="n", tags=["b", "a"])
    queue.add("mail\0x", delay=60.0)
    queue.add("mail", delay=0.5, max_retries=3)
    first = queue.take_one()
    report = Report(first.id, first.token, ((5, "a line"),), (1, 2, "half", 7), 3)
    queue.retry(first, error="x", report=report)
    queue.done(queue.take_one(), result=b"\x01")
    queue.retry(queue.take_one(), 30.0, error="y\nz")
    queue.give_up(queue.take_one())
    queue.cancel(queue.add("other"))
    queue.reset(queue.get_many(Status.DONE)[0])
    queue.done(queue.take_one())
    return [found for status in Status for found in queue.get_many(status)]


def test_a_job_is_the_same_in_another_store(
    queue: Queue, opener: Opener, clock: ManualClock
) -> None:
    ids = jobs_of_all_kinds(queue)
    there = Queue(opener("there"), clock)
    outcomes = move(queue.store, there.store)

    assert outcomes == [Outcome.OK] * len(ids)
    assert [there.get(job_id) for job_id in ids] == [queue.get(job_id) for job_id in ids]
    assert there.counts() == queue.counts()
    assert there.order() == queue.order()
    assert there.store.check().problems == ()


def test_a_job_is_the_same_in_a_store_of_another_kind_and_back(
    queue: Queue, opener: Opener, clock: ManualClock
) -> None:
    ids = jobs_of_all_kinds(queue)
    before = [queue.get(job_id) for job_id in ids]
    with MemoryStore(clock=clock) as there:
        move(queue.store, there)
        back = Queue(opener("back"), clock)
        move(there, back.store)

    assert [back.get(job_id) for job_id in ids] == before


def test_a_reserved_job_arrives_ready_in_its_old_place(
    queue: Queue, opener: Opener, clock: ManualClock
) -> None:
    ids = queue.add_many(3)
    held = queue.take_one()
    there = Queue(opener("there"), clock)
    move(queue.store, there.store)

    assert held.id == ids[0]
    expected = replace(queue.get(held.id), status=Status.READY, holder=None, lease_until_us=None)
    assert there.get(held.id) == expected
    assert there.order() == ids


def test_the_old_holder_cannot_settle_the_copy_after_its_next_reservation(
    queue: Queue, opener: Opener, clock: ManualClock
) -> None:
    queue.add()
    stale = queue.take_one()
    there = Queue(opener("there"), clock)
    move(queue.store, there.store)

    assert there.done(stale) is Outcome.STALE
    assert there.take_one().token > stale.token


def test_jobs_that_come_in_stand_behind_those_that_are_there_and_before_later_ones(
    queue: Queue, opener: Opener, clock: ManualClock
) -> None:
    ids = queue.add_many(2 * PAGE + 1)
    there = Queue(opener("there"), clock)
    before = there.add_many(20)
    move(queue.store, there.store)
    after = there.add_many(2)

    assert there.order() == before + ids + after


def test_jobs_enqueued_while_an_import_runs_stand_behind_it_in_places_of_their_own(
    queue: Queue, opener: Opener, clock: ManualClock
) -> None:
    ids = queue.add_many(6)
    there = Queue(opener("there"), clock)
    page = queue.store.export_jobs(None, 3)
    imported = there.store.import_jobs(page.copies, page.last_place, None)
    meanwhile = there.add_many(9)
    rest = queue.store.export_jobs(page.copies[-1].id, 3)
    there.store.import_jobs(rest.copies, page.last_place, imported.base)

    assert there.order() == ids + meanwhile


def test_a_job_that_moves_while_it_is_exported_comes_with_its_new_place(
    queue: Queue, opener: Opener, clock: ManualClock
) -> None:
    ids = queue.add_many(2)
    page = queue.store.export_jobs(None, 1)
    queue.cancel(ids[1])
    queue.add_many(50)
    queue.reset(ids[1])
    rest = queue.store.export_jobs(ids[0], 1)
    there = Queue(opener("there"), clock)
    imported = there.store.import_jobs(page.copies, page.last_place, None)
    there.store.import_jobs(rest.copies, page.last_place, imported.base)
    later = there.add()

    assert there.order() == [*ids, later]


def test_what_is_there_already_stays_as_it_is(
    queue: Queue, opener: Opener, clock: ManualClock
) -> None:
    ids = queue.add_many(4)
    there = Queue(opener("there"), clock)
    move(queue.store, there.store)
    there.done(there.take_one())
    before = there.get(ids[0])
    page = queue.store.export_jobs(None, 10)
    twice = [*page.copies, page.copies[0]]

    assert there.store.import_jobs(twice, page.last_place, None).outcomes == [Outcome.CONFLICT] * 5
    assert there.get(ids[0]) == before
    assert there.counts() == {"done": 1, "ready": 3}


def test_one_job_twice_in_a_call_comes_in_once(
    queue: Queue, opener: Opener, clock: ManualClock
) -> None:
    queue.add()
    page = queue.store.export_jobs(None, 10)
    there = Queue(opener("there"), clock)
    imported = there.store.import_jobs(page.copies * 2, page.last_place, None)

    assert imported.outcomes == [Outcome.OK, Outcome.CONFLICT]
    assert there.counts() == {"ready": 1}


def test_imported_ids_do_not_push_those_that_are_minted(
    queue: Queue, opener: Opener, clock: ManualClock
) -> None:
    clock.step_wall(86_400)
    job_id = queue.add()
    clock.step_wall(-86_400)
    there = Queue(opener("there"), clock)
    move(queue.store, there.store)

    assert there.add() < job_id


def test_times_stay_what_they_were(queue: Queue, opener: Opener, clock: ManualClock) -> None:
    due, kept = queue.add("due", delay=60.0), queue.add("kept")
    queue.done(queue.take_one("kept"), keep_us=120_000_000)
    there = Queue(opener("there"), clock)
    clock.advance(50)
    move(queue.store, there.store)
    clock.advance(10)
    there.store.advance()

    assert there.status(due) is Status.READY
    clock.advance(61)
    there.store.prune()
    assert there.status(kept) is None


@pytest.mark.parametrize("limit", [1, 2, 100])
def test_pages_go_by_id_and_each_job_is_on_one(queue: Queue, limit: int) -> None:
    ids = queue.add_many(5)
    found, after = [], None
    while page := queue.store.export_jobs(after, limit).copies:
        found += [copy.id for copy in page]
        after = page[-1].id

    assert found == ids


@pytest.mark.usefixtures("sound_sleep")
def test_an_imported_job_wakes_who_waits_for_its_topic(
    queue: Queue, opener: Opener, crew: Crew
) -> None:
    queue.store.enqueue([spec("mail")])
    there = opener("there")

    woken_after(there, crew, "mail", lambda: move(queue.store, there))


def test_a_record_says_nothing_of_where_it_was(queue: Queue) -> None:
    queue.add()
    (copy,) = queue.store.export_jobs(None, 1).copies

    assert isinstance(queue.get(copy.id), JobRecord)
    assert (copy.status, copy.until_us, copy.token) == (Status.READY, None, 0)


def test_places_beyond_those_of_an_import_are_no_other_jobs(
    queue: Queue, opener: Opener, clock: ManualClock
) -> None:
    """As they come when others are imported into a queue while it is exported."""
    ids = queue.add_many(3)
    page = queue.store.export_jobs(None, 3)
    first, second, third = page.copies
    beyond = page.last_place + LATER_PLACES
    copies = [
        first._replace(place=beyond + 2),
        second._replace(place=beyond + 1),
        third._replace(place=beyond),
    ]
    there = Queue(opener("there"), clock)
    there.store.import_jobs(copies, page.last_place, None)
    later = there.add_many(3)

    assert there.order() == [*reversed(ids), *later]
    assert there.store.check().ok


def test_an_import_for_which_there_are_no_places_left_is_refused_whole(
    queue: Queue, opener: Opener, clock: ManualClock
) -> None:
    queue.add()
    copies = queue.store.export_jobs(None, 1).copies
    there = Queue(opener("there"), clock)
    there.add()
    with pytest.raises(StoreFull, match="places"):
        there.store.import_jobs(copies, MOST_PLACES, None)
    there.add()

    assert there.counts() == {"ready": 2}


def test_a_job_with_the_largest_counts_goes_on_counting(
    queue: Queue, opener: Opener, clock: ManualClock
) -> None:
    queue.add()
    page = queue.store.export_jobs(None, 1)
    (copy,) = page.copies
    used: dict[str, Any] = dict.fromkeys(
        ("attempt", "token", "retries", "crashes", "resets"), MOST_COUNT
    )
    there = Queue(opener("there"), clock)
    there.store.import_jobs([copy._replace(**used)], page.last_place, None)
    there.retry(there.take_one())
    there.expire_one_holder()
    job = there.get(copy.id)

    assert job.status is Status.CANCELED
    assert (job.attempt, job.retries) == (MOST_COUNT + 2, MOST_COUNT + 1)
    assert there.reset(copy.id) is Outcome.OK
    assert there.take_one().token == MOST_COUNT + 3


# What flow control keeps of jobs.


def jobs_with_terms(queue: Queue, soon: datetime) -> list[bytes]:
    """Jobs of groups that have had turns, some with keys, some with deadlines; gives them by id."""
    for weight in (0, 3):
        for group in ("a", "b", None):
            queue.add_many(2, group=group, weight=weight)
    queue.add(unique="mine", deadline=soon)
    queue.add(unique="passing", unique_for="waiting", group="b")
    queue.add(unique="for a time", unique_for=3600.0, delay=5, group="c", deadline=soon)
    queue.done(queue.take_one())
    queue.cancel(queue.take_one().id)
    queue.retry(queue.take_one(), 30.0)
    return sorted(found for status in Status for found in queue.get_many(status))


def keys_of(store: Any) -> list[tuple[str, Key]]:
    found: list[tuple[str, Key]] = store._read(lambda tx: list(tx.flow.all_keys()))
    return found


def test_groups_keys_and_deadlines_arrive(queue: Queue, opener: Opener, clock: ManualClock) -> None:
    ids = jobs_with_terms(queue, utc(clock.wall_us()) + timedelta(seconds=60))
    there = Queue(opener("there"), clock)
    with MemoryStore(clock=clock) as between:
        move(queue.store, between)
        assert between.check().problems == ()
        assert move(between, there.store) == [Outcome.OK] * len(ids)

    assert [there.get(job_id) for job_id in ids] == [queue.get(job_id) for job_id in ids]
    assert keys_of(there.store) == keys_of(queue.store)
    assert there.store.check().problems == ()
    clock.advance(70)
    there.store.advance()
    queue.store.advance()
    lapsed = [job_id for job_id in ids if there.get(job_id).reason is Reason.EXPIRED]
    assert len(lapsed) == 2
    assert [queue.get(job_id).reason for job_id in lapsed] == [Reason.EXPIRED] * 2


def test_groups_take_turns_where_they_arrive(
    queue: Queue, opener: Opener, clock: ManualClock
) -> None:
    for group in ("a", "a", "a", "b"):
        queue.add(group=group)
    there = Queue(opener("there"), clock)
    move(queue.store, there.store)

    assert [job.options.group for job in there.take(n=4)] == ["a", "b", "a", "a"]


def test_a_key_that_another_has_stays_with_that(
    queue: Queue, opener: Opener, clock: ManualClock
) -> None:
    coming = queue.add(unique="k")
    there = Queue(opener("there"), clock)
    has = there.add(unique="k")
    move(queue.store, there.store)

    assert keys_of(there.store) == [("k", Key(has, 0))]
    assert there.store.check().problems == ()
    there.done(there.take_one())
    assert keys_of(there.store) == []
    there.done(there.take_one())
    assert there.status(coming) is Status.DONE


@pytest.mark.parametrize(("after", "keys"), [(0, 1), (20, 0)])
def test_a_period_of_a_key_goes_on_where_its_job_arrives_finished_or_not(
    queue: Queue, opener: Opener, clock: ManualClock, after: int, keys: int
) -> None:
    queue.add(unique="k", unique_for=10.0)
    before = keys_of(queue.store)
    queue.done(queue.take_one())
    clock.advance(after)
    there = Queue(opener("there"), clock)
    move(queue.store, there.store)

    assert keys_of(there.store) == before[:keys]


def test_a_job_that_waits_for_its_retry_holds_its_group_back_where_it_arrives(
    queue: Queue, opener: Opener, clock: ManualClock
) -> None:
    there = Queue(opener("there"), clock)
    for one in (queue, there):
        one.store.configure("mail", {"group_concurrency": 1})
    first, second = queue.add_many(2, group="a")
    queue.retry(queue.take_one(), 5.0)
    move(queue.store, there.store)

    assert there.take() == []
    assert there.store.check().problems == ()
    clock.advance(5)
    held = there.take(n=2)
    assert [job.id for job in held] == [first]
    there.done(held[0])
    assert [job.id for job in there.take(n=2)] == [second]
