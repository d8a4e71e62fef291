"""The contract of `check`: what is wrong with an index is found, and mended out of the jobs."""

import time
from collections.abc import Callable
from typing import Any, Final

import pytest

from jobq.clock import ManualClock
from jobq.errors import StoreCorrupt
from jobq.job import Report
from jobq.repo.base import CheckReport, Store
from jobq.repo.repositories import IDLE_US, NOBODY, Agenda, Held, Note, Transaction, Waiting
from jobq.repo.transactional import TIMELESS
from jobq.selector import ALL_JOBS
from jobq.states import Event, Outcome, Status
from tests.conftest import LONG_S, SOON_S, Opener
from tests.repo.conftest import Queue


def damage(store: Any, how: Callable[[Transaction], object]) -> None:
    """Change an index behind the back of its jobs."""
    store._write(lambda tx: how(tx) and None, TIMELESS)


def mended(store: Store, wrong: Callable[[Transaction], str]) -> CheckReport:
    """The report of a repair, which has found what is *wrong*, as the check before it."""
    words: list[str] = []
    damage(store, lambda tx: words.append(wrong(tx)))
    found = store.check()
    mended = store.check(repair=True)

    assert any(words[0] in problem for problem in found.problems), found.problems
    assert (mended.problems, mended.repaired) == ((), found.problems)
    assert mended.jobs == found.jobs
    return mended


def number_of(tx: Transaction, topic: str = "mail") -> int:
    number = tx.topics.known(topic)
    assert number is not None
    return number


def everything(store: Store) -> Any:
    """Records and counts, as anybody sees them."""
    return store.find(ALL_JOBS, None, 1000), store.stats().topics


def fill(queue: Queue) -> list[bytes]:
    """Jobs in every state; gives the ready ones of topic mail, in their order."""
    for status in (Status.DONE, Status.CANCELED, Status.DELAYED):
        queue.job_in(status)
    queue.add_many(5, "held")
    queue.take("held", 3)
    queue.add("work", delay=3)
    late, *rest = queue.add_many(4)
    first = queue.add(weight=-3)
    return [first, late, *rest]


# What may be wrong. Each gives a word that the report must have.


def a_queue_lacks_jobs(tx: Transaction) -> str:
    tx.topics.pop(number_of(tx), 2)
    return "does not queue it"


def a_queue_names_a_job_that_is_not_there(tx: Transaction) -> str:
    tx.topics.push(number_of(tx), [Waiting(-9, 10_000, bytes(16))])
    return "no such job is ready there"


def a_queue_names_a_job_that_is_not_ready(tx: Transaction) -> str:
    (held,) = tx.topics.due(Agenda.DONE, None, 1)
    tx.topics.push(number_of(tx), [Waiting(-9, 10_000, held.id)])
    return "no such job is ready there"


def an_agenda_lacks_a_job(tx: Transaction) -> str:
    tx.topics.unhold(Agenda.LEASE, tx.topics.due(Agenda.LEASE, None, 2))
    return "LEASE does not hold it"


def an_agenda_holds_a_job_that_is_not_there(tx: Transaction) -> str:
    tx.topics.hold(Agenda.DELAYED, tx.wall_us + 5, [bytes(16)], NOBODY)
    return "no such job stands there"


def a_lease_is_anothers(tx: Transaction) -> str:
    found = list(tx.topics.held(Agenda.LEASE))
    tx.topics.unhold(Agenda.LEASE, [held for held, _ in found])
    tx.topics.restore(Agenda.LEASE, [(held, b"somebody") for held, _ in found])
    return "different holders"


def a_count_is_too_high(tx: Transaction) -> str:
    tx.topics.count(number_of(tx), Status.READY, 7)
    return "counts"


def everything_is_gone(tx: Transaction) -> str:
    tx.topics.clear()
    return "does not queue it"


WRONG: Final = (
    a_queue_lacks_jobs,
    a_queue_names_a_job_that_is_not_there,
    a_queue_names_a_job_that_is_not_ready,
    an_agenda_lacks_a_job,
    an_agenda_holds_a_job_that_is_not_there,
    a_lease_is_anothers,
    a_count_is_too_high,
    everything_is_gone,
)


@pytest.mark.parametrize("wrong", WRONG)
def test_what_is_wrong_with_an_index_is_mended_and_said(
    queue: Queue, wrong: Callable[[Transaction], str]
) -> None:
    order = fill(queue)
    before = everything(queue.store)
    assert mended(queue.store, wrong).jobs == len(before[0])
    assert queue.store.check().problems == ()
    assert everything(queue.store) == before
    assert queue.order() == order


@pytest.mark.parametrize("how", ["prune", "a new topic"])
def test_no_topic_that_has_jobs_is_cleared_away_though_it_is_not_counted_to_have_any(
    queue: Queue, clock: ManualClock, how: str
) -> None:
    """Without their names no repair could tell whose they are."""
    ids = queue.add_many(3)
    damage(queue.store, everything_is_gone)
    clock.advance(2 * IDLE_US / 1e6)
    if how == "prune":
        queue.store.prune()
    else:
        queue.add("another")

    assert queue.store.check(repair=True).ok
    assert queue.order() == ids


def test_a_queue_that_is_well_is_left_alone(queue: Queue) -> None:
    order = fill(queue)
    before = everything(queue.store)

    report = queue.store.check(repair=True)

    assert (report.ok, report.repaired) == (True, ())
    assert everything(queue.store) == before
    assert queue.order() == order


def test_an_empty_queue_can_be_repaired(queue: Queue) -> None:
    damage(queue.store, a_new_topic_with_a_job_too_many)

    report = queue.store.check(repair=True)

    assert (report.jobs, report.ok, len(report.repaired) > 0) == (0, True, True)
    assert queue.store.topics() == ["mail"]
    assert queue.take() == []


def a_new_topic_with_a_job_too_many(tx: Transaction) -> None:
    tx.topics.push(tx.topics.number("mail"), [Waiting(0, 1, bytes(16))])


def test_a_count_of_jobs_in_an_empty_topic_is_mended(queue: Queue) -> None:
    damage(queue.store, lambda tx: tx.topics.number("mail"))
    damage(queue.store, a_count_is_too_high)

    report = queue.store.check(repair=True)

    assert (report.problems, len(report.repaired)) == ((), 2)
    assert queue.store.check().ok


def test_who_holds_jobs_goes_on_holding_them_through_a_repair(queue: Queue) -> None:
    queue.add_many(3)
    held = queue.take(n=3)
    damage(queue.store, everything_is_gone)
    queue.store.check(repair=True)

    assert queue.extend(held[0]) is Outcome.OK
    assert [queue.done(job) for job in held] == [Outcome.OK] * 3
    assert queue.counts() == {"done": 3}


def test_times_are_kept_through_a_repair(queue: Queue, clock: ManualClock) -> None:
    soon, late = queue.add(delay=5), queue.add(delay=50)
    held = queue.add("held", lease=7.0)
    queue.take("held")
    kept = queue.add("kept")
    queue.done(queue.take_one("kept"), keep_us=9_000_000)
    damage(queue.store, everything_is_gone)
    queue.store.check(repair=True)

    clock.advance(5)
    queue.store.advance()
    assert [queue.status(job_id) for job_id in (soon, late)] == [Status.READY, Status.DELAYED]
    clock.advance(2)
    queue.store.advance()
    assert queue.get(held).crashes == 1
    clock.advance(2)
    assert queue.store.prune() == 1
    assert queue.status(kept) is None


def test_jobs_that_fall_due_together_do_so_in_the_order_of_their_ids_after_a_repair(
    queue: Queue, clock: ManualClock
) -> None:
    ids = queue.add_many(5, delay=5)
    damage(queue.store, everything_is_gone)
    queue.store.check(repair=True)

    clock.advance(5)
    queue.store.advance(limit=2)

    assert queue.store.status(ids) == [Status.READY] * 2 + [Status.DELAYED] * 3


def test_more_jobs_than_a_page_or_a_record_takes_are_repaired(queue: Queue) -> None:
    ids = queue.add_many(700)
    delayed = queue.add_many(200, delay=5)
    held = queue.take(n=150)
    damage(queue.store, everything_is_gone)

    assert queue.store.check(repair=True).ok
    assert queue.order() == ids[150:]
    assert [queue.done(job) for job in held] == [Outcome.OK] * 150
    queue.clock.advance(5)
    assert queue.order() == ids[150:] + delayed


def test_done_jobs_are_listed_as_before_after_a_repair(queue: Queue) -> None:
    queue.store.configure("mail", {"max_done": 3})
    ids = queue.add_many(5)
    first, *rest = queue.take(n=5)
    for job in (*rest[:2], first):
        queue.done(job)
    damage(queue.store, everything_is_gone)
    assert queue.store.check(repair=True).ok
    queue.done(rest[2])

    left = [ids[2], ids[0], ids[3]]
    assert queue.status(ids[1]) is None, "the first one that was done"
    assert queue.store.status(left) == [Status.DONE] * 3


def test_places_given_after_a_repair_are_new(queue: Queue) -> None:
    """Even if it was forgotten which were given."""
    ids = queue.add_many(3)
    damage(queue.store, everything_is_gone)
    queue.store.check(repair=True)
    last = queue.add()

    assert queue.order() == [*ids, last]


@pytest.mark.usefixtures("sound_sleep")
def test_a_waiter_learns_of_the_jobs_that_a_repair_brings_back(queue: Queue, crew: Any) -> None:
    queue.add()
    damage(queue.store, everything_is_gone)
    start = time.monotonic()
    crew.start(lambda: queue.store.check(repair=True))
    while not queue.take():
        queue.store.wait("mail", LONG_S)

    assert time.monotonic() - start < SOON_S


def test_a_repair_in_a_closed_store_is_refused(opener: Opener) -> None:
    store = opener()
    store.close()

    with pytest.raises(Exception, match="closed"):
        store.check(repair=True)


def test_restored_jobs_share_a_place_in_the_order_in_which_they_come(queue: Queue) -> None:
    ids = queue.add_many(4, delay=5)
    found: list[bytes] = []

    def turn(tx: Transaction) -> None:
        places = tx.topics.due(Agenda.DELAYED, None, 10)
        tx.topics.unhold(Agenda.DELAYED, places)
        for held in reversed(places):
            place = Held(places[0].at_us, places[0].slot, held.id)
            tx.topics.restore(Agenda.DELAYED, [(place, NOBODY)])
        found.extend(held.id for held in tx.topics.due(Agenda.DELAYED, None, 10))

    damage(queue.store, turn)

    assert found == ids[::-1]
    assert queue.store.check(repair=True).ok


# What is kept of a job, and no repair brings back.


def lose(queue: Queue, job_id: bytes, note: Note) -> None:
    damage(queue.store, lambda tx: tx.jobs.drop_note(job_id, note))


def test_a_lease_ends_though_the_history_of_its_job_is_lost(queue: Queue) -> None:
    job_id = queue.add()
    queue.retry(queue.take_one(), error="x")
    queue.take_one()
    lose(queue, job_id, Note.HISTORY)
    queue.expire()
    record = queue.get(job_id)

    assert record.status is Status.READY
    assert [attempt.event for attempt in record.history] == [Event.EXPIRE]
    assert (record.error, record.history_dropped) == (None, 1)
    assert queue.store.check().ok


def test_a_job_whose_history_is_lost_can_be_settled_canceled_and_reset(queue: Queue) -> None:
    job_id = queue.add()
    queue.retry(queue.take_one(), error="x")
    lose(queue, job_id, Note.HISTORY)
    assert queue.retry(queue.take_one(), error="y") is Outcome.OK
    lose(queue, job_id, Note.HISTORY)
    assert queue.store.cancel([job_id], "z") == [Outcome.OK]
    assert (queue.get(job_id).error, queue.get(job_id).history_dropped) == ("z", 2)
    lose(queue, job_id, Note.HISTORY)
    assert queue.reset(job_id) is Outcome.OK
    assert queue.done(queue.take_one()) is Outcome.OK
    assert queue.get(job_id).history_dropped == 2
    assert queue.store.check().ok


def test_a_job_whose_log_is_lost_can_be_settled_and_logs_on(queue: Queue) -> None:
    queue.add()
    held = queue.take_one()
    queue.store.report([Report(held.id, held.token, ((0, "lost"),))])
    lose(queue, held.id, Note.LOG)
    report = Report(held.id, held.token, ((0, "kept"),))

    assert queue.done(held, report=report) is Outcome.OK
    assert [line.text for line in queue.get(held.id).log] == ["kept"]
    assert queue.store.check().ok


def test_a_log_of_which_a_part_is_lost_begins_anew_and_counts_its_lines(queue: Queue) -> None:
    queue.add()
    held = queue.take_one()
    for text in ("one", "two"):
        queue.store.report([Report(held.id, held.token, ((0, text),))])
    damage(queue.store, lambda tx: tx.jobs.drop_part(held.id, Note.LOG, 1))
    many = tuple((0, "x") for _ in range(999))

    assert queue.store.report([Report(held.id, held.token, many)]) == [Outcome.OK]
    assert (len(queue.get(held.id).log), queue.get(held.id).log_dropped) == (999, 2)
    assert queue.store.check().ok


def test_a_lost_result_is_never_passed_off_as_none(queue: Queue) -> None:
    queue.add()
    held = queue.take_one()
    queue.done(held, result=b"\x01")
    lose(queue, held.id, Note.RESULT)

    for read in (lambda: queue.get(held.id), lambda: queue.store.export_jobs(None, 1)):
        with pytest.raises(StoreCorrupt, match="the result of job"):
            read()
    queue.delete(held.id)
