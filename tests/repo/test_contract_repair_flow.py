"""The contract of `check` for flow control: lanes, unique keys, deadlines and lingering holds."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any, Final

import pytest

from jobq.clock import ManualClock, utc
from jobq.job import Reservation
from jobq.repo.base import Store
from jobq.repo.flow import Key, Lane, lane_member, ring
from jobq.repo.operations.flow import uniques
from jobq.repo.operations.flow.groups import EMPTY
from jobq.repo.repositories import (
    KEEPS_SLOT,
    KEYLESS,
    NOBODY,
    TERMS,
    Agenda,
    Figure,
    Held,
    JobState,
    Transaction,
    Waiting,
)
from jobq.repo.transactional import TIMELESS
from jobq.states import Outcome, Status
from tests.conftest import Opener
from tests.repo.conftest import Queue, done
from tests.repo.test_contract_repair import damage, mended, number_of


def fill(queue: Queue) -> None:
    """Groups that are served, at their limits and at their rates, keys, deadlines, a hold that
    lingers; gives the jobs that may be served now, in their order.
    """
    soon = utc(queue.clock.wall_us()) + timedelta(seconds=60)
    queue.store.configure("mail", {"group_concurrency": 2, "concurrency": 50})
    queue.store.configure("slow", {"group_rate": (1, 60.0)})
    for group in "abc":
        queue.add_many(4, group=group)
    queue.add_many(2)
    queue.add_many(2, "slow", group="a")
    queue.take("slow")
    queue.take(n=2)
    queue.cancel(queue.take_one().id)
    queue.add(unique="mine", group="a")
    queue.add(unique="passing", unique_for="waiting", deadline=soon)
    queue.add(unique="for a time", unique_for=3600.0)
    queue.add(unique="late", delay=5, deadline=soon, group="b")
    queue.add("held", unique="held")
    queue.cancel(queue.take_one("held").id)


def everything(store: Any) -> Any:
    """All that is kept beside jobs."""

    def look(tx: Transaction) -> Any:
        numbers = [number_of(tx, name) for name in tx.topics.names()]
        return (
            sorted(tx.topics.queued()),
            [sorted(tx.topics.held(agenda)) for agenda in Agenda],
            [tx.topics.figure(number, figure) for number in numbers for figure in Figure],
            list(tx.flow.all_keys()),
            list(tx.flow.all_lanes()),
            list(tx.flow.all_lingering()),
            tx.jobs.scan(None, 1000),
        )

    return store._read(look)


def lane_of_group(tx: Transaction, group: str, topic: str = "mail") -> tuple[int, Lane]:
    number = tx.flow.lane_number(number_of(tx, topic), group)
    assert number is not None
    lane = tx.flow.lane(number)
    assert lane is not None
    return number, lane


def change_lane(tx: Transaction, group: str, topic: str = "mail", **fields: Any) -> None:
    number, lane = lane_of_group(tx, group, topic)
    tx.flow.put_lane(number, lane._replace(**fields))


def change_state(tx: Transaction, which: Callable[[JobState], object], **fields: Any) -> None:
    """Change the state of the first job of which *which* is true."""
    job_id, state = next(
        (job_id, state) for job_id, _, state in tx.jobs.scan(None, 1000) if which(state)
    )
    tx.jobs.update([(job_id, state._replace(**fields))])


def is_grouped(state: JobState) -> bool:
    return state.status is Status.READY and state.lane != state.topic


# What may be wrong. Each gives words that the report must have.


def a_lane_counts_too_many_ready_jobs(tx: Transaction) -> str:
    change_lane(tx, "b", ready=99)
    return "group 'b' of topic 'mail' counts 99 ready jobs"


def a_lane_counts_too_few_reserved_jobs(tx: Transaction) -> str:
    change_lane(tx, "a", running=0)
    return "counts 0 reserved jobs"


def a_lane_is_lost(tx: Transaction) -> str:
    tx.flow.drop_lane(lane_of_group(tx, "b")[0])
    return "which is not that of its group 'b'"


def an_own_lane_is_lost(tx: Transaction) -> str:
    tx.flow.drop_lane(number_of(tx))
    return "topic 'mail' has groups, or an own lane, but not both"


def a_lane_of_a_group_without_jobs_is_kept(tx: Transaction) -> str:
    tx.flow.put_lane(2**32 + 10_000, EMPTY._replace(topic=number_of(tx), group="new"))
    return "group 'new' of topic 'mail' has no jobs, but is kept"


def the_ring_lacks_a_lane(tx: Transaction) -> str:
    topic = ring(number_of(tx))
    tx.topics.remove(topic, tx.topics.waiting(topic, -9, 1))
    return "but the ring does not have it there"


def the_ring_has_a_lane_twice(tx: Transaction) -> str:
    number, _ = lane_of_group(tx, "c")
    tx.topics.push(ring(number_of(tx)), [Waiting(7, 10_000, lane_member(number))])
    return "at weight 7, turn 10000, but it does not say so"


def a_lane_that_may_be_served_has_no_turn(tx: Transaction) -> str:
    number, lane = lane_of_group(tx, "c")
    seat = Waiting(lane.weight, lane.turn, lane_member(number))
    tx.topics.remove(ring(number_of(tx)), [seat])
    tx.flow.put_lane(number, lane._replace(turn=0, weight=0))
    return "group 'c' of topic 'mail' may be served, but has no turn"


def a_rate_is_not_looked_after(tx: Transaction) -> str:
    tx.topics.unhold(Agenda.LANE, tx.topics.due(Agenda.LANE, None, 1))
    return "is to be looked at again, but LANE does not hold it"


def the_agenda_of_rates_has_one_too_many(tx: Transaction) -> str:
    number, _ = lane_of_group(tx, "c")
    tx.topics.hold_at(Agenda.LANE, Held(tx.boot_us + 9, number, lane_member(number)), NOBODY)
    return f"LANE holds lane {number} at"


def groups_are_miscounted(tx: Transaction) -> str:
    tx.topics.set_figure(number_of(tx), Figure.LANES, 7)
    return "counts 7 groups in use, but has 3"


def bytes_are_miscounted(tx: Transaction) -> str:
    tx.topics.add_size(number_of(tx), 7)
    return "the store counts 7 waiting bytes, but has 0"


def holds_are_miscounted(tx: Transaction) -> str:
    tx.topics.set_figure(number_of(tx), Figure.LINGERING, 7)
    return "counts 7 lingering holds, but has 1"


def a_hold_is_in_no_agenda(tx: Transaction) -> str:
    tx.topics.unhold(Agenda.LINGER, tx.topics.due(Agenda.LINGER, None, 1))
    return "lingers, but LINGER does not hold it"


def the_agenda_of_holds_has_one_too_many(tx: Transaction) -> str:
    tx.topics.hold(Agenda.LINGER, tx.boot_us + 9, [bytes(16)], NOBODY)
    return "but nothing of it lingers there"


def a_hold_is_in_a_wrong_lane(tx: Transaction) -> str:
    job_id, token, hold = next(it for it in tx.flow.all_lingering() if it[2].lane >= 2**32)
    tx.flow.put_lingering(job_id, token, hold._replace(lane=2**32 + 10_000))
    return "which is none of its topic"


def the_key_of_a_hold_is_lost(tx: Transaction) -> str:
    tx.flow.drop_key("held")
    return "lingers with the unique key 'held', but nobody has it"


def a_key_is_lost(tx: Transaction) -> str:
    tx.flow.drop_key("mine")
    return "should have the unique key 'mine', but nobody has it"


def a_key_is_had_by_a_job_that_is_not_there(tx: Transaction) -> str:
    tx.flow.put_key("passing", Key(bytes(16), 0))
    return "should have the unique key 'passing', but job 00000000-"


def a_key_is_had_without_a_right(tx: Transaction) -> str:
    tx.flow.put_key("nobody's", Key(bytes(16), 0))
    return 'has the unique key "nobody\'s", but no right to it'


def a_deadline_is_not_looked_after(tx: Transaction) -> str:
    tx.topics.unhold(Agenda.DEADLINE, tx.topics.due(Agenda.DEADLINE, None, 1))
    return "has a deadline, but DEADLINE does not hold it"


def a_deadline_is_looked_after_for_nobody(tx: Transaction) -> str:
    tx.topics.hold_at(Agenda.DEADLINE, Held(tx.wall_us + 9, 10_000, bytes(16)), NOBODY)
    return "DEADLINE holds job 00000000-"


def a_job_is_in_the_lane_of_another_group(tx: Transaction) -> str:
    number, _ = lane_of_group(tx, "c")
    other, _ = lane_of_group(tx, "b")
    change_state(tx, lambda state: state.lane == other, lane=number)
    return f"is in lane {number}, which is not that of its group 'b'"


def a_job_does_not_say_that_it_has_a_group(tx: Transaction) -> str:
    change_state(tx, is_grouped, notes=0)
    return "says wrongly whether it has a group"


def a_job_without_a_group_says_that_it_has_one(tx: Transaction) -> str:
    change_state(tx, lambda state: not state.notes, notes=TERMS)
    return "says wrongly whether it has a group"


def a_ready_job_counts_as_reserved(tx: Transaction) -> str:
    change_state(tx, is_grouped, notes=TERMS | KEEPS_SLOT)
    return "says that it waits and counts as reserved"


def a_job_is_said_to_be_larger(tx: Transaction) -> str:
    change_state(tx, is_grouped, size=9)
    return "has a payload of 0 bytes, but says 9"


def everything_is_gone(tx: Transaction) -> str:
    tx.topics.clear()
    return "counts 0 groups in use, but has 3"


WRONG: Final = (
    a_lane_counts_too_many_ready_jobs,
    a_lane_counts_too_few_reserved_jobs,
    a_lane_of_a_group_without_jobs_is_kept,
    the_ring_lacks_a_lane,
    the_ring_has_a_lane_twice,
    a_rate_is_not_looked_after,
    the_agenda_of_rates_has_one_too_many,
    groups_are_miscounted,
    bytes_are_miscounted,
    holds_are_miscounted,
    a_hold_is_in_no_agenda,
    the_agenda_of_holds_has_one_too_many,
    a_hold_is_in_a_wrong_lane,
    the_key_of_a_hold_is_lost,
    a_key_is_lost,
    a_key_is_had_by_a_job_that_is_not_there,
    a_key_is_had_without_a_right,
    a_deadline_is_not_looked_after,
    a_deadline_is_looked_after_for_nobody,
    a_job_does_not_say_that_it_has_a_group,
    a_job_without_a_group_says_that_it_has_one,
    a_ready_job_counts_as_reserved,
    a_job_is_said_to_be_larger,
    a_job_is_in_the_lane_of_another_group,
    everything_is_gone,
)

TURN_IS_LOST: Final = (
    a_lane_is_lost,
    an_own_lane_is_lost,
    a_lane_that_may_be_served_has_no_turn,
)


@pytest.mark.parametrize("wrong", WRONG)
def test_what_is_wrong_with_flow_control_is_mended_and_said(
    queue: Queue, wrong: Callable[[Transaction], str]
) -> None:
    fill(queue)
    before = everything(queue.store)
    mended(queue.store, wrong)

    assert queue.store.check().problems == ()
    if wrong is not a_hold_is_in_a_wrong_lane:  # of a job that is finished: its lane is not known
        assert everything(queue.store) == before


@pytest.mark.parametrize("wrong", TURN_IS_LOST)
def test_a_lane_whose_turn_is_lost_goes_to_the_back(
    queue: Queue, wrong: Callable[[Transaction], str]
) -> None:
    fill(queue)
    mended(queue.store, wrong)

    assert len(queue.take(n=100)) == 7


def test_what_cannot_be_told_from_the_jobs_stays_through_a_repair(
    queue: Queue, clock: ManualClock
) -> None:
    queue.store.configure("mail", {"rate": (1, 10.0), "group_rate": (1, 100.0), "concurrency": 1})
    queue.delete(queue.add(unique="gone", unique_for=60.0))
    first = queue.add(group="a")
    second, third = queue.add(group="a"), queue.add(group="b")
    held = queue.take_one()
    queue.cancel(held.id)
    damage(queue.store, everything_is_gone_but_figures)

    assert queue.store.check(repair=True).ok
    assert held.id == first
    assert queue.take() == [], "the hold lingers"
    assert queue.extend(held) is Outcome.STALE
    assert queue.take() == [], "the rate does not allow it"
    clock.advance(10)
    assert [job.id for job in queue.take(n=2)] == [third], "nor that of the group"
    assert second in queue.get_many(Status.READY)
    assert key_of(queue.store, "gone") is not None


def everything_is_gone_but_figures(tx: Transaction) -> str:
    tx.topics.clear()
    return ""


# Who has a key, and who has a right to one that another has.


def key_of(store: Any, name: str) -> bytes | None:
    found: bytes | None = store._read(lambda tx: uniques.holder(tx, name))
    return found


def release_key(store: Any, name: str) -> bool:
    released: bool = store._write(lambda tx: uniques.release(tx, name), TIMELESS)
    return released


def is_keyless(store: Any, job_id: bytes) -> bool:
    (state,) = store._read(lambda tx: tx.jobs.states([job_id]))
    return bool(state.notes & KEYLESS)


def test_a_job_whose_key_another_took_while_it_was_held_goes_without(queue: Queue) -> None:
    first = queue.add(unique="k", unique_for="waiting")
    held = queue.take_one()
    second = queue.add(unique="k", unique_for="waiting")
    queue.retry(held)
    damage(queue.store, lambda tx: tx.topics.clear())

    assert queue.store.check(repair=True).ok
    assert (key_of(queue.store, "k"), is_keyless(queue.store, first)) == (second, True)
    queue.delete(second)
    assert queue.store.check().ok
    damage(queue.store, lambda tx: tx.topics.clear())
    assert queue.store.check(repair=True).ok
    assert key_of(queue.store, "k") is None, "a repair gives nobody a key that was free"
    queue.release(queue.take_one())
    assert (key_of(queue.store, "k"), is_keyless(queue.store, first)) == (first, False)


def test_an_edit_takes_a_key_or_goes_without(queue: Queue) -> None:
    first, second = queue.add(unique="k"), queue.add(unique="k", unique_for=5.0, on_conflict=None)
    assert first == second
    other = queue.add(unique="other")

    assert queue.edit(other, options={"unique": "k"}) is Outcome.CONFLICT
    assert queue.edit(first, options={"unique": "new"}) is Outcome.OK
    assert queue.edit(other, options={"unique": "k"}) is Outcome.OK
    assert (key_of(queue.store, "k"), key_of(queue.store, "new")) == (other, first)


def test_who_releases_a_key_leaves_its_job_without_and_no_hold_with_it(queue: Queue) -> None:
    job_id = queue.add(unique="k")
    held = queue.take_one()
    canceled = queue.add("other", unique="c")
    lingering = queue.take_one("other")
    queue.cancel(canceled)

    assert [release_key(queue.store, name) for name in ("k", "c", "nobody's")] == [
        True,
        True,
        False,
    ]
    assert queue.store.check().problems == ()
    assert key_of(queue.store, "k") is None
    assert queue.add(unique="k") != job_id
    queue.extend(lingering)
    assert queue.release(held) is Outcome.OK


# What was wrong once.


def hold_back(queue: Queue, **options: Any) -> tuple[bytes, Reservation]:
    """A job that waits for its retry, and keeps its group waiting."""
    queue.store.configure("mail", {"group_concurrency": 1})
    job_id = queue.add(group="a", **options)
    held = queue.take_one()
    queue.retry(held, 5.0)
    return job_id, held


def test_a_job_that_was_canceled_while_it_held_its_group_back_begins_anew(queue: Queue) -> None:
    job_id, _ = hold_back(queue)
    queue.cancel(job_id)
    queue.reset(job_id)

    assert queue.store.check().problems == ()
    queue.retry(queue.take_one(), 5.0)
    assert queue.store.check().problems == ()


@pytest.mark.parametrize("delay", [0.0, 9.0, None])
def test_a_job_that_holds_its_group_back_can_be_edited(
    queue: Queue, delay: float | None, clock: ManualClock
) -> None:
    job_id, _ = hold_back(queue)
    other = queue.add(group="a")

    assert queue.edit(job_id, delay=delay, weight=3) is Outcome.OK
    assert queue.store.check().problems == ()
    expected = [] if delay != 0.0 else [other]
    assert [job.id for job in queue.take(n=5)] == expected
    clock.advance(10)
    queue.store.advance()
    assert queue.store.check().problems == ()


@pytest.mark.parametrize("more", [{}, {"topic": "other"}, {"weight": 5}, {"delay": 3.0}])
@pytest.mark.parametrize("after", [30, None])
def test_a_deadline_can_be_edited_whether_the_job_moves_or_not(
    queue: Queue, clock: ManualClock, more: dict[str, Any], after: int | None
) -> None:
    now = utc(clock.wall_us())
    job_id = queue.add(deadline=now + timedelta(seconds=10))
    deadline = None if after is None else now + timedelta(seconds=after)

    assert queue.edit(job_id, options={"deadline": deadline}, **more) is Outcome.OK
    clock.advance(15)
    queue.store.advance()
    assert queue.status(job_id) is Status.READY
    clock.advance(20)
    queue.store.advance()
    assert queue.status(job_id) is (Status.READY if after is None else Status.CANCELED)


def test_a_key_stays_with_the_later_of_two_holds_of_one_job(
    queue: Queue, clock: ManualClock
) -> None:
    job_id = queue.add(unique="k", lease=10.0)
    for _ in range(2):
        queue.take_one()
        queue.cancel(job_id)
        queue.reset(job_id)
        clock.advance(6)
    queue.cancel(job_id)
    queue.store.advance()

    assert key_of(queue.store, "k") == job_id
    clock.advance(6)
    queue.store.advance()
    assert key_of(queue.store, "k") is None


def test_a_store_that_is_opened_again_serves_groups_in_their_turns(durable_opener: Opener) -> None:
    store = durable_opener()
    queue = Queue(store, durable_opener.clock)
    queue.store.configure("slow", {"group_rate": (1, 60.0)})
    for group in "abc":
        queue.add_many(4, group=group)
        queue.add_many(2, "slow", group=group)
    queue.add(group="late", delay=5, unique="late", ttl=60)
    for topic in ("slow", "mail"):  # some have had their turn
        queue.store.settle([done(job) for job in queue.take(topic, 2)])
    before = everything(store)
    durable_opener.close(store)
    again = durable_opener()

    assert everything(again) == before


def test_a_queue_with_groups_that_is_well_is_left_alone(queue: Queue) -> None:
    fill(queue)
    before = everything(queue.store)

    assert rebuilt(queue.store) == before


def rebuilt(store: Store) -> Any:
    damage(store, lambda tx: tx.topics.clear())
    assert store.check(repair=True).ok
    return everything(store)


def test_settings_of_the_store_stay_through_a_repair(queue: Queue) -> None:
    def pause(tx: Transaction) -> None:
        tx.topics.configure_store(tx.topics.store_settings().changed({"paused": True}))

    queue.add()
    damage(queue.store, pause)
    damage(queue.store, lambda tx: tx.topics.clear())

    assert queue.store.check(repair=True).ok
    assert queue.take() == []


def test_a_lane_stands_by_the_job_that_has_aged_most(queue: Queue, clock: ManualClock) -> None:
    queue.store.configure("mail", {"ageing": 1.0})
    for group in ("a", None):
        queue.add(weight=5, group=group)
    clock.advance(60)
    for group in ("a", None):
        queue.add(weight=0, group=group)
    before = everything(queue.store)

    assert queue.store.check().problems == ()
    assert rebuilt(queue.store) == before
