"""The contract of every store: which moves a job can make, and what each of them changes."""

from dataclasses import replace

import pytest

from jobq.clock import ManualClock
from jobq.job import JobRecord, Settlement
from jobq.repo.base import Retention, Store
from jobq.selector import ALL_JOBS
from jobq.states import Event, Outcome, Reason, Status
from tests.conftest import Opener
from tests.moves import MOVES
from tests.repo.conftest import LEASE_S, Queue, done, spec

DAY_S = 86_400.0


def cause(  # noqa: C901 - one line or two for each event
    queue: Queue, event: Event, job_id: bytes, token: int
) -> Outcome | None:
    """Let *event* happen to a job as far as it may; the outcome where a verb gives one.

    Time passes no further than the event needs: a delay of 10 s, a lease of 10 min, a week, and for
    a deadline 5 s.
    """
    match event:
        case Event.PROMOTE:
            queue.clock.advance(10)
            queue.store.advance()
        case Event.RESERVE:
            queue.take("mail", 10)
        case Event.DONE | Event.RETRY | Event.RELEASE | Event.CANCEL if token:
            reason = Reason.REJECTED if event is Event.CANCEL else None
            return queue.settle(Settlement(job_id, token, event, reason=reason))
        case Event.DONE | Event.RETRY | Event.RELEASE:
            return queue.settle(Settlement(job_id, 1, event))  # a token that is not given yet
        case Event.EXTEND:
            (outcome,) = queue.store.extend([(job_id, token, 1_000_000)])
            return outcome
        case Event.EXPIRE:
            queue.expire()
        case Event.CANCEL:
            return queue.cancel(job_id)
        case Event.RESET:
            return queue.reset(job_id)
        case Event.EDIT:
            return queue.edit(job_id, delay=20)
        case Event.LAPSE:
            queue.clock.advance(5)
            queue.store.advance()
        case Event.DROP:
            queue.store.configure("mail", {"max_jobs": 1, "when_full": "drop-oldest"})
            queue.delete(queue.add())
        case Event.DELETE:
            return queue.delete(job_id)
        case Event.PRUNE:
            queue.clock.advance(8 * DAY_S)
            queue.store.prune()
        case _:
            raise AssertionError(event)
    return None


@pytest.mark.parametrize("event", [event for event in Event if event is not Event.ENQUEUE])
@pytest.mark.parametrize("status", Status)
def test_what_can_happen_to_a_job_in_each_state_and_what_cannot(
    queue: Queue, status: Status, event: Event
) -> None:
    # No lease or delay may end by the way, so that only the event in question happens.
    lease = LEASE_S if event is Event.EXPIRE else 100 * DAY_S
    options = {"ttl": 5.0} if event is Event.LAPSE else {}
    job_id, token = queue.job_in(status, lease=lease, **options)
    if status is Status.DELAYED and event in {Event.EXPIRE, Event.PRUNE}:
        queue.delete(job_id)
        job_id = queue.add(delay=100 * DAY_S)
    before, counted = queue.get(job_id), queue.counts()

    outcome = cause(queue, event, job_id, token)

    after = queue.find(job_id)
    targets = MOVES.get((status, event))
    if targets is None:
        repeated = (status, event) == (Status.DONE, Event.DONE)  # by the same holder: harmless
        assert outcome in ({Outcome.OK} if repeated else {None, Outcome.STALE, Outcome.INVALID})
        assert after is not None
        assert timeless(after) == timeless(before)
        assert queue.counts() == counted
    elif not targets:
        assert outcome in {None, Outcome.OK}
        assert after is None
        assert queue.counts() == {}
    else:
        assert outcome in {None, Outcome.OK}
        assert after is not None
        assert after.status in targets
        assert queue.counts() == {after.status.value: 1}


def timeless(record: JobRecord) -> JobRecord:
    """The record without the end of its lease, which is told on the wall clock of the reading."""
    return replace(record, lease_until_us=None)


def test_a_new_job_is_ready_and_has_no_history(queue: Queue, clock: ManualClock) -> None:
    record = queue.get(queue.add("mail", weight=-3, payload=b"x", name="n", tags=["b", "a"]))

    assert (record.topic, record.status, record.weight) == ("mail", Status.READY, -3)
    assert (record.attempt, record.retries, record.crashes, record.resets) == (0, 0, 0, 0)
    assert (record.reason, record.error, record.holder, record.result_bytes) == (None,) * 4
    assert (record.due_us, record.lease_until_us) == (None, None)
    assert (record.reserved_us, record.ended_us) == (None, None)
    assert record.created_us == clock.wall_us()
    assert record.payload_bytes == b"x"
    assert record.options.as_dict() == {"name": "n", "tags": ("a", "b")}


def test_a_job_with_a_delay_says_when_it_is_due(queue: Queue, clock: ManualClock) -> None:
    record = queue.get(queue.add(delay=0.25))

    assert record.status is Status.DELAYED
    assert record.due_us == clock.wall_us() + 250_000


def test_a_reservation_says_all_that_its_holder_needs(queue: Queue) -> None:
    job_id = queue.add("mail", weight=4, payload=b"x", lease=30.0, max_retries=2)
    held = queue.take_one()

    assert (held.id, held.topic, held.weight, held.payload) == (job_id, "mail", 4, b"x")
    assert (held.token, held.attempt, held.retries, held.crashes) == (1, 1, 0, 0)
    assert held.lease_us == 30_000_000
    assert held.options.as_dict() == {"lease": 30.0, "max_retries": 2}


def test_a_reserved_job_says_who_holds_it_and_until_when(queue: Queue, clock: ManualClock) -> None:
    job_id = queue.add(lease=30.0)
    queue.take_one()
    record = queue.get(job_id)

    assert record.holder
    assert record.reserved_us == clock.wall_us()
    assert record.lease_until_us == clock.wall_us() + 30_000_000


def test_done_keeps_the_result_and_the_moment(queue: Queue, clock: ManualClock) -> None:
    job_id = queue.add()
    held = queue.take_one()
    clock.advance(5)
    queue.done(held, result=b"r")
    record = queue.get(job_id)

    assert (record.status, record.result_bytes, record.reason) == (Status.DONE, b"r", None)
    assert record.ended_us == clock.wall_us()
    assert (record.holder, record.lease_until_us) == (None, None)


def test_a_retry_counts_and_keeps_its_error(queue: Queue) -> None:
    job_id = queue.add()
    queue.retry(queue.take_one(), 7.0, error="no route")
    record = queue.get(job_id)

    assert (record.status, record.retries, record.attempt) == (Status.DELAYED, 1, 1)
    assert (record.error, record.holder) == ("no route", None)


def test_a_retry_after_no_time_is_ready_at_once(queue: Queue) -> None:
    job_id = queue.add()
    queue.retry(queue.take_one(), 0)

    assert queue.status(job_id) is Status.READY
    assert queue.take_one().retries == 1


def test_a_retry_that_gives_up_ends_the_job_as_exhausted(queue: Queue) -> None:
    job_id = queue.add()
    queue.retry(queue.take_one(), None, error="at last")
    record = queue.get(job_id)

    assert (record.status, record.reason) == (Status.CANCELED, Reason.EXHAUSTED)
    assert (record.error, record.retries) == ("at last", 0)


def test_a_released_job_was_not_tried_but_its_token_grew(queue: Queue) -> None:
    job_id = queue.add()
    queue.retry(queue.take_one())
    queue.expire_one_holder()
    before = queue.get(job_id)
    first = queue.take_one()
    queue.release(first)
    record, second = queue.get(job_id), queue.take_one()

    assert (record.attempt, record.retries, record.crashes) == (before.attempt, 1, 1)
    assert second.attempt == first.attempt
    assert second.token == first.token + 1


def test_release_with_a_delay_waits(queue: Queue, clock: ManualClock) -> None:
    job_id = queue.add()
    queue.release(queue.take_one(), 0.5)

    assert queue.get(job_id).due_us == clock.wall_us() + 500_000
    assert queue.take() == []
    clock.advance(0.5)
    assert queue.take_one().attempt == 1


@pytest.mark.parametrize("reason", [Reason.CANCELED, Reason.REJECTED])
def test_a_holder_cancels_for_its_reason(queue: Queue, reason: Reason) -> None:
    job_id = queue.add()
    queue.give_up(queue.take_one(), reason)

    assert queue.get(job_id).reason is reason


def test_whoever_cancels_may_say_why(queue: Queue) -> None:
    job_id = queue.add()
    queue.store.cancel([job_id], "not wanted any more")
    record = queue.get(job_id)

    assert (record.reason, record.error) == (Reason.CANCELED, "not wanted any more")


def test_a_reset_job_is_as_if_never_tried_but_goes_on_counting(queue: Queue) -> None:
    job_id = queue.add()
    queue.retry(queue.take_one(), error="once")
    queue.expire_one_holder()
    held = queue.take_one()
    queue.done(held, result=b"r")
    queue.reset(job_id)
    record, again = queue.get(job_id), queue.take_one()

    assert (record.status, record.retries, record.crashes, record.resets) == (
        Status.READY, 0, 0, 1,
    )  # fmt: skip
    assert (record.result_bytes, record.error, record.reason, record.ended_us) == (None,) * 4
    assert again.attempt == held.attempt + 1
    assert again.token == held.token + 1


def test_a_reset_job_can_be_used_up_again(queue: Queue) -> None:
    job_id = queue.add()
    for resets in range(3):
        queue.retry(queue.take_one(), None)
        assert queue.get(job_id).reason is Reason.EXHAUSTED
        queue.reset(job_id)
        assert queue.get(job_id).resets == resets + 1


def test_a_deleted_job_leaves_nothing_behind(queue: Queue) -> None:
    job_id = queue.add()
    queue.done(queue.take_one(), result=b"r", error="e")
    queue.delete(job_id)

    assert queue.find(job_id) is None
    assert queue.store.find(ALL_JOBS, None, 10) == []


@pytest.mark.parametrize("verb", ["cancel", "reset", "delete"])
def test_a_job_that_never_was_is_missing(queue: Queue, verb: str) -> None:
    job_id = queue.add()
    queue.delete(job_id)

    assert getattr(queue, verb)(job_id) is Outcome.MISSING
    assert getattr(queue, verb)(bytes(16)) is Outcome.MISSING
    assert queue.counts() == {}


def test_a_holder_whose_job_is_gone_is_told_so(queue: Queue) -> None:
    job_id = queue.add()
    held = queue.take_one()
    queue.cancel(job_id)
    queue.delete(job_id)

    assert queue.done(held) is Outcome.MISSING
    assert queue.extend(held) is Outcome.MISSING
    assert not queue.store.holds(held.id, held.token)


def test_dead_jobs_stay_dead_until_they_are_reset(queue: Queue) -> None:
    job_id = queue.add(lease=1.0, max_crashes=1)
    for _ in range(2):
        queue.take_one()
        queue.expire(1)
    queue.expire(3600)

    assert queue.get(job_id).reason is Reason.POISON
    assert queue.take() == []
    assert queue.reset(job_id) is Outcome.OK
    assert queue.take_one().crashes == 0


def test_a_refused_verb_leaves_the_whole_record_as_it_was(queue: Queue) -> None:
    job_id = queue.add()
    held = queue.take_one()
    before = queue.get(job_id)

    assert queue.reset(job_id) is Outcome.INVALID
    assert queue.delete(job_id) is Outcome.INVALID
    late = done(held._replace(token=2), result=b"r", error="e", follow=(spec("next"),))
    assert queue.settle(late) is Outcome.STALE
    assert queue.get(job_id) == before
    assert queue.counts() == {"reserved": 1}


def test_an_error_text_is_kept_up_to_its_last_16_kib(queue: Queue) -> None:
    text = "first line\n" + "é" * 20_000 + "\nValueError: the end \udc80"
    job_id = queue.add()
    queue.retry(queue.take_one(), error=text)
    kept = queue.get(job_id).error

    assert kept is not None
    assert kept.endswith("ValueError: the end \\udc80")
    assert len(kept.encode()) <= 16 * 1024 + 3  # a character cut in two is shown as one of 3 bytes
    assert "first line" not in kept


def test_reading_changes_nothing(opener: Opener, clock: ManualClock) -> None:
    store: Store = opener(retention=Retention(done_us=1_000_000))
    queue = Queue(store, clock)
    queue.job_in(Status.DONE)
    queue.job_in(Status.DELAYED)
    queue.add(lease=1.0)
    queue.take_one()
    clock.advance(100)
    before = queue.counts()
    for _ in range(2):
        store.find(ALL_JOBS, None, 10)
        store.topics()
        store.stats("mail")
        store.check()

    assert queue.counts() == before == {"delayed": 1, "reserved": 1, "done": 1}
    store.enqueue([spec()])  # what writes moves time first
    assert queue.counts() == {"ready": 3, "done": 1}
