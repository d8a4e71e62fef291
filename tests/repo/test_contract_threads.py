"""The contract of every store: many threads at once, waiting, and the end."""

import random
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Callable
from functools import partial
from itertools import pairwise
from pathlib import Path

import pytest

from jobq.clock import ManualClock, SystemClock
from jobq.errors import StoreUnavailable
from jobq.repo.base import ReserveRequest, Store
from jobq.selector import ALL_JOBS
from jobq.states import Outcome, Status
from tests.conftest import DEADLINE_S, LONG_S, SOON_S, Crew, Opener, eventually
from tests.repo.conftest import Queue, done, spec

THREADS = 8

pytestmark = pytest.mark.usefixtures("sound_sleep")


def test_jobs_of_one_producer_come_in_its_order_and_none_comes_twice(
    store: Store, crew: Crew
) -> None:
    jobs_each, topics = 150, ["a", "b", "c", "d"]
    served: list[tuple[str, str, int]] = []
    left = threading.Semaphore(0)

    def produce(topic: str) -> None:
        pick, made = random.Random(topic), 0
        while made < jobs_each:
            size = min(pick.choice([1, 1, 1, 5, 20]), jobs_each - made)
            numbers = range(made, made + size)
            store.enqueue([spec(topic, payload=number.to_bytes(4, "big")) for number in numbers])
            made += size

    def consume(name: str) -> None:
        pick = random.Random(name)
        while len(served) < jobs_each * len(topics):
            topic = pick.choice(topics)
            held = store.reserve(ReserveRequest(topic, pick.choice([1, 3, 10])))
            served.extend((name, topic, int.from_bytes(job.payload, "big")) for job in held)
            outcomes = store.settle([done(job) for job in held]).outcomes
            assert outcomes == [Outcome.OK] * len(held)
        left.release()

    for topic in topics:
        crew.start(produce, topic)
    for number in range(THREADS - len(topics)):
        crew.start(consume, f"consumer {number}")
    crew.join()

    by_consumer = defaultdict(list)
    for name, topic, number in served:
        by_consumer[name, topic].append(number)
    for numbers in by_consumer.values():
        assert all(earlier < later for earlier, later in pairwise(numbers))
    assert sorted((topic, number) for _, topic, number in served) == [
        (topic, number) for topic in topics for number in range(jobs_each)
    ]
    assert store.stats().totals.done == jobs_each * len(topics)


def test_every_thread_gets_the_ids_of_its_own_jobs(store: Store, crew: Crew) -> None:
    ids: dict[int, list[bytes]] = {number: [] for number in range(THREADS)}

    def enqueue(number: int) -> None:
        for at in range(30):
            ids[number] += store.enqueue([spec(payload=bytes([number, at]))])

    for number in range(THREADS):
        crew.start(enqueue, number)
    crew.join()

    for number, mine in ids.items():
        assert mine == sorted(mine)
        payloads = [record.payload_bytes for record in store.get(mine) if record]
        assert payloads == [bytes([number, at]) for at in range(30)]
    assert len(set().union(*ids.values())) == THREADS * 30


def test_of_many_who_settle_one_job_at_once_all_agree_on_what_it_is(
    queue: Queue, crew: Crew
) -> None:
    for _ in range(15):
        job_id = queue.add()
        held = queue.take_one()
        verbs = [queue.done, queue.give_up, queue.release, queue.retry] * 2
        answers: list[tuple[str, Outcome]] = []
        start = threading.Barrier(len(verbs))

        def settle(
            verb: Callable[..., Outcome],
            held: object = held,
            answers: list[tuple[str, Outcome]] = answers,
            start: threading.Barrier = start,
        ) -> None:
            start.wait(DEADLINE_S)
            answers.append((verb.__name__, verb(held)))

        for verb in verbs:
            crew.start(settle, verb)
        crew.join()

        winners = {name for name, outcome in answers if outcome is Outcome.OK}
        losers = {name for name, outcome in answers if outcome is Outcome.STALE}
        assert len(winners) == 1  # both who said the same are right
        assert len(losers) == 3
        expected = {"done": Status.DONE, "give_up": Status.CANCELED}
        assert queue.status(job_id) is expected.get(winners.pop(), Status.READY)
        queue.cancel(job_id)


def test_reads_go_on_beside_writes_and_see_whole_commits(store: Store, crew: Crew) -> None:
    stop = threading.Event()

    def write() -> None:
        try:
            for _ in range(60):
                store.enqueue([spec("a"), spec("b")])
                held = [
                    *store.reserve(ReserveRequest("a", 1)),
                    *store.reserve(ReserveRequest("b", 1)),
                ]
                store.settle([done(job) for job in held])
        finally:
            stop.set()

    def read() -> None:
        while not stop.is_set():
            stats = {topic.name: topic for topic in store.stats().topics}
            if stats:
                assert stats["a"].total == stats["b"].total
                assert stats["a"].done == stats["b"].done
            page = store.find(ALL_JOBS, None, 1000)
            assert len({record.id for record in page}) == len(page)

    crew.start(write)
    for _ in range(3):
        crew.start(read)
    crew.join()

    assert store.stats().totals.done == 120


# Waiting. Here threads sleep for real, so the clock is the system's.


@pytest.fixture
def live(opener: Opener) -> Store:
    """An empty store of every kind, on the clocks of this machine."""
    return opener(clock=SystemClock())


def wait_for_job(store: Store, topic: str, reached: threading.Event | None = None) -> None:
    """Wait as services do, until there is a job."""
    start = time.monotonic()
    while not store.reserve(ReserveRequest(topic, 1)):
        if reached is not None:
            reached.set()
        store.wait(topic, LONG_S)
        assert time.monotonic() - start < DEADLINE_S


def asleep(thread: threading.Thread) -> bool:
    """Whether the kernel shows the thread sleeping, some looks in a row."""
    if sys.platform != "linux":
        return True
    if thread.native_id is None:  # it is about to begin
        return False
    for _ in range(5):
        time.sleep(0.001)
        if Path(f"/proc/self/task/{thread.native_id}/stat").read_text().split()[2] != "S":
            return False
    return True


def asleep_or_gone(thread: threading.Thread) -> bool:
    """Whether the thread sleeps, or has ended, which it may at any moment."""
    try:
        return asleep(thread)
    except (FileNotFoundError, ProcessLookupError):
        return True


def woken_after(store: Store, crew: Crew, topic: str, wakes: Callable[[], object]) -> float:
    """Seconds from a call until a waiter that slept has its job; fewer than if it was missed."""
    waiter = crew.start(wait_for_job, store, topic)
    eventually(lambda: asleep(waiter))
    start = time.monotonic()
    wakes()
    waiter.join(DEADLINE_S)
    took = time.monotonic() - start
    assert took < SOON_S
    return took


@pytest.mark.parametrize("known", [True, False])
def test_a_waiter_returns_when_a_job_of_its_topic_is_enqueued(
    live: Store, crew: Crew, known: bool
) -> None:
    if known:
        live.delete(live.enqueue([spec("mail")]))
    reached, ended = threading.Event(), threading.Event()

    def wait() -> None:
        wait_for_job(live, "mail", reached)
        ended.set()

    crew.start(wait)
    assert reached.wait(DEADLINE_S)
    live.enqueue([spec("other")])
    assert not ended.is_set()
    live.enqueue([spec("mail")])
    assert ended.wait(SOON_S)


Readying = Callable[[Queue], Callable[[], object]]
"""Prepares a job of the topic `mail` that is not ready; gives the call that makes it so."""


def enqueue(queue: Queue) -> Callable[[], object]:
    return queue.add


def follow_up(queue: Queue) -> Callable[[], object]:
    queue.add()
    held = queue.take_one()
    return lambda: queue.done(held, follow=(spec(),))


def give_back(queue: Queue) -> Callable[[], object]:
    queue.add()
    held = queue.take_one()
    return lambda: queue.release(held)


def try_again(queue: Queue) -> Callable[[], object]:
    queue.add()
    held = queue.take_one()
    return lambda: queue.retry(held)


def reset(queue: Queue) -> Callable[[], object]:
    job_id, _ = queue.job_in(Status.DONE)
    return lambda: queue.reset(job_id)


def hurry(queue: Queue) -> Callable[[], object]:
    job_id = queue.add(delay=3600)
    return lambda: queue.edit(job_id, delay=0)


def move(queue: Queue) -> Callable[[], object]:
    job_id = queue.add("other")
    return lambda: queue.edit(job_id, topic="mail")


def resume(queue: Queue) -> Callable[[], object]:
    queue.store.configure("mail", {"paused": True})
    queue.add()
    return lambda: queue.store.configure("mail", {"paused": None})


@pytest.mark.parametrize(
    "readying",
    [enqueue, follow_up, give_back, try_again, reset, hurry, move, resume],
    ids=lambda readying: readying.__name__,
)
def test_whatever_makes_a_job_ready_wakes_a_waiter_at_once(
    live: Store, crew: Crew, readying: Readying
) -> None:
    queue = Queue(live, ManualClock())  # which nothing here moves
    for _ in range(2):  # at first the topic may be new
        woken_after(live, crew, "mail", readying(queue))

    assert live.stats().totals.reserved == 2


def test_a_waiter_returns_at_once_when_there_is_a_job_already(live: Store) -> None:
    live.enqueue([spec()])
    start = time.monotonic()
    live.wait("mail", LONG_S)

    assert time.monotonic() - start < SOON_S


def test_a_waiter_wakes_for_the_next_due_time(live: Store) -> None:
    start = time.monotonic()
    live.enqueue([spec(delay=0.15)])
    wait_for_job(live, "mail")

    assert 0.14 < time.monotonic() - start < SOON_S


def test_a_waiter_notices_an_earlier_due_time_that_comes_while_it_sleeps(
    live: Store, crew: Crew
) -> None:
    live.enqueue([spec(delay=3600)])
    took = woken_after(live, crew, "mail", lambda: live.enqueue([spec(delay=0.05)]))

    assert took > 0.04
    assert live.stats().totals.reserved == 1


def test_a_waiter_gets_a_job_whose_lease_ends(live: Store, crew: Crew) -> None:
    live.enqueue([spec(lease=0.15)])
    live.reserve(ReserveRequest("mail", 1))
    crew.start(wait_for_job, live, "mail")
    crew.join(SOON_S)

    (record,) = live.find(ALL_JOBS, None, 1)
    assert (record.attempt, record.crashes) == (2, 1)


def test_each_of_several_waiters_gets_one_of_several_jobs(live: Store, crew: Crew) -> None:
    reached = [threading.Event() for _ in range(5)]
    for event in reached:
        crew.start(wait_for_job, live, "mail", event)
    for event in reached:
        assert event.wait(DEADLINE_S)
    live.enqueue([spec()] * 3)
    live.enqueue([spec()] * 2)
    crew.join(SOON_S)

    assert live.stats().totals.reserved == 5


def test_a_job_of_a_new_topic_wakes_its_waiter_whatever_others_wait_for(
    live: Store, crew: Crew
) -> None:
    stop = threading.Event()

    def wait_in_vain(topic: str) -> None:
        while not stop.is_set():
            live.wait(topic, LONG_S)

    others = [crew.start(wait_in_vain, f"never {number}") for number in range(3)]
    for other in others:
        eventually(partial(asleep, other))
    for topic in ("new", "newer", "newest"):
        woken_after(live, crew, topic, partial(live.enqueue, [spec(topic)]))
    stop.set()

    def are_home() -> bool:
        live.wake()  # one that was about to sleep has not heard the last one
        return not any(other.is_alive() for other in others)

    eventually(are_home, SOON_S)


def test_waiting_sleeps_no_longer_than_it_was_told_to(live: Store) -> None:
    start = time.monotonic()
    live.wait("mail", 0.05)
    live.wait("mail", 0)

    assert time.monotonic() - start < SOON_S


# The end.


def test_every_call_of_a_closed_store_says_that_it_is_closed(store: Store) -> None:
    store.enqueue([spec()])
    (held,) = store.reserve(ReserveRequest("mail", 1))
    store.close()
    store.close()

    calls: list[Callable[[], object]] = [
        lambda: store.enqueue([spec()]),
        lambda: store.reserve(ReserveRequest("mail", 1)),
        lambda: store.settle([done(held)]),
        lambda: store.extend([(held.id, held.token, 1)]),
        lambda: store.holds(held.id, held.token),
        lambda: store.cancel([held.id]),
        lambda: store.reset([held.id]),
        lambda: store.delete([held.id]),
        store.advance,
        store.prune,
        lambda: store.wait("mail", 1.0),
        lambda: store.status([held.id]),
        lambda: store.get([held.id]),
        lambda: store.find(ALL_JOBS, None, 1),
        store.topics,
        store.stats,
        store.check,
    ]
    for call in calls:
        with pytest.raises(StoreUnavailable, match="closed"):
            call()
    store.wake()  # comes from signal handlers, at any moment


def test_a_store_closes_at_the_end_of_its_block(opener: Opener) -> None:
    with opener() as store:
        store.enqueue([spec()])

    with pytest.raises(StoreUnavailable):
        store.topics()


def test_closing_wakes_who_waits(live: Store, crew: Crew) -> None:
    def wait() -> None:
        while True:
            live.wait("mail", LONG_S)

    waiter = crew.start(pytest.raises, StoreUnavailable, wait)
    eventually(lambda: asleep(waiter))
    live.close()
    crew.join(SOON_S)
