"""The contract of every store: waiting for the end of jobs."""

import time
from collections.abc import Callable

import pytest

from jobq.clock import ManualClock, SystemClock
from jobq.errors import StoreUnavailable
from jobq.repo.base import ReserveRequest, Retention, Store
from jobq.states import Outcome, Status
from tests.conftest import LONG_S, SOON_S, Crew, Opener, eventually
from tests.repo.conftest import Queue, done, release, retry, spec
from tests.repo.test_contract_threads import asleep

Seen = dict[bytes, int | None]

pytestmark = pytest.mark.usefixtures("sound_sleep")


@pytest.fixture
def live(opener: Opener) -> Store:
    """An empty store of every kind, on the clocks of this machine."""
    return opener(clock=SystemClock())


def noted(store: Store, *job_ids: bytes) -> Seen:
    """The jobs as one has them who has asked for their ends, and now looks at them."""
    seen: Seen = dict.fromkeys(job_ids)
    assert store.wait_ended(seen, 0) == list(job_ids)
    return seen


def wait_for_end(store: Store, job_id: bytes) -> Status | None:
    """Wait as services do, soundly asleep; the job's status then, None if it is gone."""
    seen: Seen = {job_id: None}
    while True:
        (status,) = store.status([job_id])
        if status in {None, Status.DONE, Status.CANCELED}:
            return status
        start = time.monotonic()
        store.wait_ended(seen, LONG_S)
        assert time.monotonic() - start < SOON_S, "a call was lost"


# What is returned.


def test_jobs_that_were_not_asked_for_before_are_returned_at_once(live: Store) -> None:
    ids = live.enqueue([spec()] * 3)
    seen: Seen = dict.fromkeys([*ids, bytes(16)])
    start = time.monotonic()
    assert live.wait_ended(seen, LONG_S) == [*ids, bytes(16)]

    assert time.monotonic() - start < SOON_S
    assert None not in seen.values()
    assert list(seen) == [*ids, bytes(16)]


def test_nothing_is_returned_when_nothing_ends(live: Store) -> None:
    ids = live.enqueue([spec()] * 2)
    for several in (ids, ids[:1], []):
        seen = noted(live, *several)
        start = time.monotonic()
        assert live.wait_ended(seen, 0.05) == []
        assert live.wait_ended(seen, 0) == []
        assert live.wait_ended(seen, -1.0) == []
        assert 0.04 < time.monotonic() - start < SOON_S


def _take_and_cancel(queue: Queue, job_id: bytes) -> Outcome:
    queue.take_one()
    return queue.cancel(job_id)


ENDS: dict[str, Callable[[Queue, bytes], Outcome]] = {
    "done": lambda queue, _: queue.done(queue.take_one()),
    "done, and its result kept": lambda queue, _: queue.done(queue.take_one(), result=b"\x01"),
    "done and forgotten at once": lambda queue, _: queue.done(queue.take_one(), keep_us=0),
    "rejected": lambda queue, _: queue.give_up(queue.take_one()),
    "exhausted": lambda queue, _: queue.retry(queue.take_one(), None),
    "canceled": lambda queue, job_id: queue.cancel(job_id),
    "canceled under its holder": _take_and_cancel,
    "deleted": lambda queue, job_id: queue.delete(job_id),
}


@pytest.mark.parametrize("together_with", [0, 2])
@pytest.mark.parametrize("how", ENDS)
def test_a_job_that_has_ended_since_the_call_before_is_returned_at_once(
    how: str, together_with: int, queue: Queue
) -> None:
    job_id = queue.add()
    others = queue.add_many(together_with, "other")
    seen = noted(queue.store, *others, job_id)
    assert ENDS[how](queue, job_id) is Outcome.OK

    assert queue.store.wait_ended(seen, 0) == [job_id]


@pytest.mark.parametrize("together_with", [0, 2])
@pytest.mark.parametrize("how", ENDS)
def test_a_job_that_ends_wakes_who_sleeps(
    how: str, together_with: int, live: Store, crew: Crew
) -> None:
    queue = Queue(live, ManualClock())
    job_id = queue.add()
    seen = noted(live, *queue.add_many(together_with, "other"), job_id)
    came: list[bytes] = []

    def wait() -> None:
        while not came:
            came.extend(live.wait_ended(seen, LONG_S))

    sleeper = crew.start(wait)
    eventually(lambda: asleep(sleeper))
    assert ENDS[how](queue, job_id) is Outcome.OK
    crew.join(SOON_S)

    assert job_id in came


def test_a_poisoned_job_ends(queue: Queue) -> None:
    job_id = queue.add(max_crashes=1)
    seen = noted(queue.store, job_id)
    queue.expire_one_holder()
    assert queue.store.wait_ended(seen, 0) == []
    queue.expire_one_holder()

    assert queue.store.wait_ended(seen, 0) == [job_id]
    assert queue.status(job_id) is Status.CANCELED


@pytest.mark.parametrize("keeps", ["nothing", "all"])
def test_a_job_ends_whatever_the_store_keeps(keeps: str, opener: Opener) -> None:
    queue = Queue(opener(retention=Retention(0, 0) if keeps == "nothing" else None), opener.clock)
    first, second = queue.add(), queue.add()
    seen = noted(queue.store, first, second)
    queue.done(queue.take_one())
    assert queue.store.wait_ended(seen, 0) == [first]
    queue.cancel(second)
    # Asked for anew, since it was returned; and now the second.
    assert queue.store.wait_ended(seen, 0) == [first, second]


def test_what_is_not_an_end_is_not_returned(queue: Queue) -> None:
    job_id = queue.add(max_crashes=0)
    seen = noted(queue.store, job_id)
    queue.release(queue.take_one())
    queue.retry(queue.take_one())
    held = queue.take_one()
    queue.extend(held, 5)
    queue.retry(held, 5.0)
    queue.clock.advance(5)
    queue.store.advance()
    queue.expire_one_holder()
    queue.add_many(3)

    assert queue.store.wait_ended(seen, 0) == []
    assert queue.status(job_id) is Status.READY


def test_a_refused_call_ends_nothing(queue: Queue) -> None:
    job_id = queue.add()
    held = queue.take_one()
    seen = noted(queue.store, job_id)
    assert queue.delete(job_id) is Outcome.INVALID
    queue.store.settle([done(held._replace(token=held.token + 1))])

    assert queue.store.wait_ended(seen, 0) == []


def test_of_several_jobs_those_that_have_ended_are_returned(queue: Queue) -> None:
    ids = queue.add_many(6)
    seen = noted(queue.store, *ids)
    held = queue.take(n=5)
    queue.store.settle([done(held[1]), retry(held[2], None), release(held[0]), done(held[4])])

    assert queue.store.wait_ended(seen, 0) == [ids[1], ids[2], ids[4]]


def test_a_job_that_is_returned_is_asked_for_anew_by_the_next_call(
    queue: Queue,
) -> None:
    """The call that returns it does not ask again: most often nobody comes back."""
    job_id = queue.add()
    seen = noted(queue.store, job_id)
    queue.cancel(job_id)

    assert queue.store.wait_ended(seen, 0) == [job_id]
    assert seen == {job_id: None}
    assert queue.store.wait_ended(seen, 0) == [job_id]
    assert queue.store.wait_ended(seen, 0) == []


def test_a_job_that_was_reset_is_waited_for_again(queue: Queue) -> None:
    job_id = queue.add()
    seen = noted(queue.store, job_id)
    queue.cancel(job_id)
    queue.reset(job_id)
    while queue.store.wait_ended(seen, 0):
        assert queue.status(job_id) is Status.READY
    queue.done(queue.take_one())

    assert queue.store.wait_ended(seen, 0) == [job_id]


def test_the_ends_of_many_others_hide_no_end(queue: Queue) -> None:
    """There are more jobs than counters, so others share one with the jobs that are waited for."""
    mine, *others = queue.add_many(2500, retention=0)
    seen = noted(queue.store, mine)
    for first in range(0, len(others), 100):
        queue.store.delete(others[first : first + 100])
        while queue.store.wait_ended(seen, 0):
            assert queue.status(mine) is Status.READY
    queue.delete(mine)

    assert queue.store.wait_ended(seen, 0) == [mine]


def test_all_who_wait_for_one_job_see_its_end(queue: Queue) -> None:
    job_id, other = queue.add(), queue.add()
    seen = [
        noted(queue.store, job_id),
        noted(queue.store, job_id, other),
        noted(queue.store, other),
    ]
    queue.cancel(job_id)

    assert [queue.store.wait_ended(one, 0) for one in seen] == [[job_id], [job_id], []]


# Time, and the end of waiting.


def test_many_threads_wait_for_a_job_each_and_miss_no_end(live: Store, crew: Crew) -> None:
    ids = live.enqueue([spec()] * 40)
    ended: list[bytes] = []

    def wait(job_id: bytes) -> None:
        assert wait_for_end(live, job_id) is Status.DONE
        ended.append(job_id)

    def work() -> None:
        while held := live.reserve(ReserveRequest("mail", 1)):
            live.settle([done(job) for job in held])

    for job_id in ids:
        crew.start(wait, job_id)
    for _ in range(3):
        crew.start(work)
    crew.join()

    assert sorted(ended) == sorted(ids)


def test_who_only_waits_makes_a_job_poison_whose_lease_is_over(live: Store) -> None:
    (job_id,) = live.enqueue([spec(lease=0.1, max_crashes=1)])
    for _ in range(2):
        eventually(lambda: live.reserve(ReserveRequest("mail", 1)))

    assert wait_for_end(live, job_id) is Status.CANCELED


def test_who_only_waits_promotes_what_is_due(live: Store) -> None:
    job_id, waited_for = live.enqueue([spec(delay=0.1), spec("other")])
    seen = noted(live, waited_for)

    def is_ready() -> bool:
        live.wait_ended(seen, 0.2)  # which may move time as it begins
        return live.status([job_id]) == [Status.READY]

    eventually(is_ready)


@pytest.mark.parametrize("several", [0, 1, 2])
def test_wake_ends_a_wait(several: int, live: Store, crew: Crew) -> None:
    seen = noted(live, *live.enqueue([spec()] * several))
    sleeper = crew.start(live.wait_ended, seen, LONG_S)
    eventually(lambda: asleep(sleeper))
    live.wake()
    crew.join(SOON_S)


def test_closing_ends_a_wait(live: Store, crew: Crew) -> None:
    seen = noted(live, *live.enqueue([spec()]))

    def wait() -> None:
        while True:
            live.wait_ended(seen, LONG_S)

    sleeper = crew.start(pytest.raises, StoreUnavailable, wait)
    eventually(lambda: asleep(sleeper))
    live.close()
    crew.join(SOON_S)
