"""The contract of every store: batches, with answers by position."""

import random

import pytest

from jobq.errors import InvalidValue
from jobq.job import Settlement
from jobq.repo.base import ReserveRequest
from jobq.selector import ALL_JOBS
from jobq.states import Event, Outcome, Status
from tests.repo.conftest import Queue, done, release, retry, spec

NOBODYS_ID = bytes(15) + b"\x01"


def test_enqueue_gives_ids_in_the_order_of_its_jobs(queue: Queue) -> None:
    specs = [spec(topic, payload=topic.encode()) for topic in ("b", "a", "b", "c")]
    ids = queue.store.enqueue(specs)

    assert [queue.get(job_id).payload_bytes for job_id in ids] == [b"b", b"a", b"b", b"c"]


@pytest.mark.parametrize(
    ("verb", "outcomes"),
    [
        ("cancel", {"ready": "ok", "delayed": "ok", "reserved": "ok"}),
        ("reset", {"done": "ok", "canceled": "ok"}),
        ("delete", {"ready": "ok", "delayed": "ok", "done": "ok", "canceled": "ok"}),
    ],
)
def test_what_cannot_move_leaves_the_others_of_its_batch_standing(
    queue: Queue, verb: str, outcomes: dict[str, str]
) -> None:
    states = [Status.RESERVED, Status.DONE, Status.CANCELED, Status.DELAYED, Status.READY]
    ids = {status: queue.job_in(status)[0] for status in states}
    order = random.Random(verb).sample(states, 5)

    found = getattr(queue.store, verb)([*(ids[status] for status in order), NOBODYS_ID])
    assert [str(outcome) for outcome in found] == [
        *(outcomes.get(status, "invalid") for status in order),
        "missing",
    ]
    for status in states:
        changed = outcomes.get(status) == "ok"
        assert (queue.status(ids[status]) is not status) is changed


def test_settlements_of_one_batch_stand_or_fall_each_for_itself(queue: Queue) -> None:
    queue.add_many(6)
    held = queue.take(n=6)
    queue.cancel(held[1].id)
    queue.done(held[4])
    settled = queue.store.settle(
        [
            done(held[0]),
            done(held[1]),
            retry(held[2], 5.0),
            Settlement(NOBODYS_ID, 1, Event.DONE),
            done(held[4]),
            release(held[5]),
            done(held[3]._replace(token=7)),
        ]
    )

    assert [str(outcome) for outcome in settled.outcomes] == [
        "ok", "stale", "ok", "missing", "ok", "ok", "stale",
    ]  # fmt: skip
    assert [queue.status(job.id) for job in held] == [
        Status.DONE, Status.CANCELED, Status.DELAYED, Status.RESERVED, Status.DONE, Status.READY,
    ]  # fmt: skip


def test_a_call_that_fails_in_the_middle_has_changed_nothing(queue: Queue) -> None:
    queue.add_many(3)
    first, second, third = queue.take(n=3)
    before = queue.store.find(ALL_JOBS, None, 10), queue.counts(), queue.store.topics()
    senseless = Settlement(second.id, second.token, Event.PROMOTE, result=b"r", error="e")
    batch = [done(first, result=b"r", follow=(spec("new"),)), senseless, retry(third, 5.0)]
    for settlements in (batch, batch[::-1]):
        with pytest.raises(InvalidValue, match="promote"):
            queue.store.settle(settlements, ReserveRequest("mail", 1))

    assert (queue.store.find(ALL_JOBS, None, 10), queue.counts(), queue.store.topics()) == before
    assert queue.store.settle([done(first), retry(third)]).outcomes == [Outcome.OK, Outcome.OK]


def test_a_job_named_twice_is_canceled_or_reset_once(queue: Queue) -> None:
    job_id = queue.add()

    assert queue.store.cancel([job_id, job_id]) == [Outcome.OK, Outcome.INVALID]
    assert queue.store.reset([job_id, job_id]) == [Outcome.OK, Outcome.INVALID]
    assert queue.get(job_id).resets == 1
    assert queue.store.delete([job_id, job_id]) == [Outcome.OK, Outcome.MISSING]


def test_a_job_settled_twice_in_one_batch_is_a_repeat_or_comes_too_late(queue: Queue) -> None:
    job_id = queue.add()
    held = queue.take_one()
    settled = queue.store.settle([done(held, result=b"1"), done(held, result=b"2"), retry(held)])

    assert settled.outcomes == [Outcome.OK, Outcome.OK, Outcome.STALE]
    assert queue.get(job_id).result_bytes == b"1"
    assert queue.counts() == {"done": 1}


def test_a_stale_settlement_in_front_does_not_spoil_the_right_one_of_the_same_job(
    queue: Queue,
) -> None:
    queue.add()
    held = queue.take_one()
    stale = done(held._replace(token=0))

    assert queue.store.settle([stale, done(held), stale]).outcomes == [
        Outcome.STALE, Outcome.OK, Outcome.STALE,
    ]  # fmt: skip


def test_a_job_that_is_settled_and_reserved_in_one_commit_has_a_new_token(queue: Queue) -> None:
    queue.add()
    held = queue.take_one()
    settled = queue.store.settle([release(held), release(held)], ReserveRequest("mail", 1))
    (again,) = settled.reserved

    assert settled.outcomes == [Outcome.OK, Outcome.OK]
    assert (again.id, again.token, again.attempt) == (held.id, 2, 1)
    assert queue.done(held) is Outcome.STALE
    assert queue.done(again) is Outcome.OK


def test_of_two_extensions_in_one_batch_the_last_one_holds(queue: Queue) -> None:
    queue.add()
    held = queue.take_one()
    holds = [(held.id, held.token, 1_000_000), (held.id, held.token, 5_000_000)]

    assert queue.store.extend(holds) == [Outcome.OK, Outcome.OK]
    queue.expire(4)
    assert queue.status(held.id) is Status.RESERVED
    queue.expire(1)
    assert queue.status(held.id) is Status.READY


def test_extensions_are_judged_by_position(queue: Queue) -> None:
    queue.add_many(2)
    mine, lost = queue.take(n=2)
    queue.cancel(lost.id)

    assert queue.store.extend(
        [(lost.id, lost.token, 1), (NOBODYS_ID, 1, 1), (mine.id, mine.token, 1_000_000)]
    ) == [Outcome.STALE, Outcome.MISSING, Outcome.OK]


def test_reads_answer_by_position_and_may_name_a_job_twice(queue: Queue) -> None:
    first, second = queue.add(payload=b"1"), queue.add(payload=b"2", delay=1)
    records = queue.store.get([second, NOBODYS_ID, first, second])

    assert [record and record.payload_bytes for record in records] == [b"2", None, b"1", b"2"]
    assert queue.store.status([second, NOBODYS_ID, first, second]) == [
        Status.DELAYED, None, Status.READY, Status.DELAYED,
    ]  # fmt: skip


@pytest.mark.parametrize("size", [1, 2, 63, 64, 65, 200, 1000])
def test_a_batch_of_any_size_goes_all_the_way_through_a_life(queue: Queue, size: int) -> None:
    ids = queue.store.enqueue([spec(delay=1)] * size)
    queue.clock.advance(1)
    while queue.store.advance().more:
        pass
    held = queue.take(n=size)
    assert [job.id for job in held] == ids
    queue.store.extend([(job.id, job.token, 9_000_000) for job in held])
    queue.store.settle([release(job, 1) for job in held])
    queue.clock.advance(1)
    while queue.store.advance().more:
        pass
    held = queue.take(n=size)
    for half in (held[::2], held[1::2]):
        queue.store.settle([done(job) for job in half])

    assert queue.counts() == {"done": size}


def test_a_batch_of_jobs_of_every_kind_keeps_each_as_it_was(queue: Queue) -> None:
    pick = random.Random(7)
    specs = [
        spec(
            pick.choice(["a", "b", "c"]),
            weight=pick.randrange(-9, 9),
            delay=pick.choice([0, 0, 0.5, 7]),
            payload=pick.randbytes(pick.choice([0, 1, 100, 5000])),
            lease=pick.choice([None, 5.0]),
            name=pick.choice([None, "n"]),
        )
        for _ in range(300)
    ]
    ids = queue.store.enqueue(specs)

    for job, record in zip(specs, queue.store.get(ids), strict=True):
        assert record is not None
        assert (record.topic, record.weight, record.options) == (
            job.topic, job.weight, job.options,
        )  # fmt: skip
        assert record.payload_bytes == job.payload
        assert (record.status is Status.DELAYED) is (job.delay_us > 0)

    queue.clock.advance(7)
    held = [job for topic in "abc" for job in queue.take(topic, 300)]
    assert sorted((job.id, job.payload) for job in held) == [
        (job_id, job.payload) for job_id, job in zip(ids, specs, strict=True)
    ]
