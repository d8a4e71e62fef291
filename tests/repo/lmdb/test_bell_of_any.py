"""Sleeping at the counters of several topics at once: a job calls one, and whoever was called for
more than it takes calls another one.

Who waits sleeps soundly here: a lost call shows.
"""

import random
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import pytest

import jobq
from jobq import Job, JobService, Pattern
from jobq.job import Reservation
from jobq.repo.base import ReserveRequest
from jobq.repo.lmdb import LmdbStore, futex
from jobq.repo.lmdb.bell import COUNTERS, PAGE, Bell
from jobq.shares import Mix, Topics, mix_of
from tests.conftest import DEADLINE_S, LONG_S, SOON_S, Crew, eventually
from tests.crash.processes import waits

TOPICS: Final = ("a", "b", "c")

pytestmark = [
    pytest.mark.usefixtures("sound_sleep"),
    pytest.mark.skipif(not futex.can_wait_for_any(), reason="this kernel cannot sleep at several"),
]


class CountingStore(LmdbStore):
    """Counts who came back from a wait, and who then found nothing."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, durability="unsafe")
        self.woken: list[str] = []
        self.in_vain: list[str] = []
        self._came = threading.local()

    def wait(self, topic: str | Mix, timeout: float) -> None:
        super().wait(topic, timeout)
        self._came.back = True
        self.woken.append(str(topic))

    def reserve(self, request: ReserveRequest) -> list[Reservation]:
        taken = super().reserve(request)
        if not taken and getattr(self._came, "back", False):
            self.in_vain.append(str(request.topic))
        self._came.back = False
        return taken


@pytest.fixture
def store(tmp_path: Path) -> CountingStore:
    return CountingStore(tmp_path / "queue")


@pytest.fixture
def svc(store: CountingStore) -> Any:
    with jobq.JobService(store, retention=0) as service:
        with service.batch() as batch:
            for topic in TOPICS:
                batch.enqueue(topic)
        service.delete(batch.ids)
        for topic in TOPICS:
            store.wait(topic, 0)  # so that it knows the number by the next time
        store.woken.clear()
        yield service


def take(svc: JobService, topics: Topics) -> Job | None:
    """A job, by one who looks only when it is called; None if the service was stopped."""
    while not svc.stopped:
        if jobs := svc.reserve(topics, timeout=0):
            return jobs[0]
        svc.store.wait(mix_of(topics), LONG_S)
    return None


class Waiters:
    """Threads that each take one job, and say which."""

    def __init__(self, svc: JobService, crew: Crew) -> None:
        self._svc = svc
        self._crew = crew
        self.threads: list[threading.Thread] = []
        self.took: list[tuple[str, str]] = []

    def start(self, topics: Topics, count: int = 1) -> None:
        """So many who wait for these topics; returns when they sleep."""
        fresh = [self._crew.start(self._take, topics) for _ in range(count)]
        self.threads += fresh
        eventually(lambda: all(thread.native_id and waits(thread.native_id) for thread in fresh))

    def _take(self, topics: Topics) -> None:
        job = take(self._svc, topics)
        if job is not None:
            job.done()
            self.took.append((str(topics), job.topic))

    def took_soon(self, count: int) -> None:
        """So many have a job, long before anybody looks by itself."""
        eventually(lambda: len(self.took) >= count, SOON_S)


@pytest.fixture
def waiters(svc: JobService, crew: Crew) -> Any:
    waiters = Waiters(svc, crew)
    yield waiters
    svc.stop()
    for thread in waiters.threads:
        thread.join(DEADLINE_S)


# Who is called.


@pytest.mark.parametrize("topics", [["a", "b"], {"b": 2, "a": 1}, [Pattern("[ab]"), "never"]])
def test_each_job_calls_one_of_those_who_wait_for_its_topic_and_several_more(
    topics: Topics, waiters: Waiters, svc: JobService, store: CountingStore
) -> None:
    waiters.start(topics, 6)
    for number in range(6):
        svc.enqueue("ab"[number % 2], number)
        waiters.took_soon(number + 1)

    assert len(store.woken) == 6
    assert store.in_vain == []


def test_nobody_is_called_for_a_topic_that_it_does_not_wait_for(
    waiters: Waiters, svc: JobService, store: CountingStore
) -> None:
    """Nor for a new one, if there are all that it names."""
    waiters.start(["a", "b"], 3)
    waiters.start("c")
    for number in range(20):
        svc.enqueue("d" if number % 2 else f"new {number}")
    svc.enqueue("c")
    waiters.took_soon(1)

    assert store.woken == ["c"]


@pytest.mark.parametrize("topics", [["a", "new"], [Pattern("n*"), "a"]])
def test_a_topic_that_comes_into_being_calls_who_may_wait_for_it(
    topics: Topics, waiters: Waiters, svc: JobService
) -> None:
    waiters.start(topics)
    svc.enqueue("new")
    waiters.took_soon(1)


def test_a_name_that_comes_back_under_another_number_is_waited_for(
    waiters: Waiters, svc: JobService, store: CountingStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    waiters.start(["a", "b"])
    monkeypatch.setattr("jobq.repo.operations.topics.IDLE_US", -1)
    store.prune()
    assert svc.topics() == []
    eventually(lambda: store.woken != [], SOON_S)
    (thread,) = waiters.threads
    eventually(lambda: waits(thread.native_id or 0))
    svc.enqueue("b")
    waiters.took_soon(1)


def test_a_job_calls_one_waiter_be_it_for_one_topic_or_for_several(
    waiters: Waiters, svc: JobService, store: CountingStore
) -> None:
    for topics in ("a", ["a", "b"], "a", ["c", "a"]):
        waiters.start(topics)
    for number in range(4):
        svc.enqueue("a", number)
        waiters.took_soon(number + 1)

    assert store.in_vain == []


def test_stop_calls_all_waiters_of_this_store_and_no_other(
    waiters: Waiters, svc: JobService, tmp_path: Path, crew: Crew
) -> None:
    other = CountingStore(tmp_path / "queue")
    with jobq.JobService(other) as another:
        others = Waiters(another, crew)
        others.start(["a", "b"])
        waiters.start(["a", "b"], 3)
        svc.stop()
        for thread in waiters.threads:
            thread.join(SOON_S)
        assert not any(thread.is_alive() for thread in waiters.threads)
        assert other.woken == []


# Who was called for more than it takes.


def call_at(
    monkeypatch: pytest.MonkeyPatch, svc: JobService, calls: tuple[str, ...], before: str = ""
) -> None:
    """The next one who goes to sleep at several counters is called for jobs of all these topics.

    As happens where commits are quicker than a thread gets up. So nobody else is called for them.
    It is told of the last one. A job of the topic *before* may be handed out by then too, because
    time has passed: for that there is no call.
    """
    wait_for_any, thread = Bell._wait_for_any, threading.current_thread()

    def be_called(bell: Bell, words: list[tuple[int, int]], end: float) -> int | None:
        if threading.current_thread() is not thread:
            return wait_for_any(bell, words, end)
        monkeypatch.setattr(Bell, "_wait_for_any", wait_for_any)
        with monkeypatch.context() as patch:
            patch.setattr(futex, "wake", lambda *_: None)
            for topic in calls:
                svc.enqueue(topic)
            if before:
                patch.setattr(Bell, "_raise", lambda *_: None)
                svc.enqueue(before)
        return next(
            place
            for place, (address, _) in enumerate(words)
            if address == bell._address + 4 * (1 + TOPICS.index(calls[-1]))
        )

    monkeypatch.setattr(Bell, "_wait_for_any", be_called)


@pytest.mark.parametrize("other", ["b", ["a", "b"], ["b", "c"], Pattern("b*")])
def test_who_was_called_for_two_jobs_and_takes_one_calls_another_waiter(
    other: Topics, waiters: Waiters, svc: JobService, monkeypatch: pytest.MonkeyPatch
) -> None:
    waiters.start(other)
    call_at(monkeypatch, svc, ("b", "a"))
    store = svc.store
    store.wait(mix_of(["a", "b"], strict=True), LONG_S)
    [mine] = svc.reserve(["a", "b"], strict=True, timeout=0)

    assert mine.topic == "a"
    waiters.took_soon(1)
    assert waiters.took == [(str(other), "b")]


def test_who_was_called_for_one_topic_and_takes_of_another_calls_another_waiter(
    waiters: Waiters, svc: JobService, monkeypatch: pytest.MonkeyPatch
) -> None:
    waiters.start("a")
    call_at(monkeypatch, svc, ("a",), before="b")
    svc.store.wait(mix_of(["b", "a"], strict=True), LONG_S)
    [mine] = svc.reserve(["b", "a"], strict=True, timeout=0)

    assert mine.topic == "b"
    waiters.took_soon(1)


def test_who_takes_all_that_it_was_called_for_calls_nobody(
    waiters: Waiters, svc: JobService, store: CountingStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    waiters.start(["a", "b"], 2)
    call_at(monkeypatch, svc, ("a", "b"))
    store.wait(mix_of(["a", "b"]), LONG_S)
    assert len(svc.reserve(["a", "b"], 2, timeout=0)) == 2
    woken = store.woken.copy()
    for number in range(2):
        svc.enqueue("a")
        waiters.took_soon(number + 1)

    assert len(woken) == 1
    assert store.in_vain == []


def test_who_was_called_while_it_was_told_to_stop_calls_another_waiter(
    svc: JobService, tmp_path: Path, crew: Crew, monkeypatch: pytest.MonkeyPatch
) -> None:
    with jobq.JobService(CountingStore(tmp_path / "queue")) as another:
        others = Waiters(another, crew)
        others.start("b")
        call_at(monkeypatch, svc, ("b", "a"))
        be_called = Bell._wait_for_any

        def be_called_and_stop(*arguments: Any) -> int | None:
            place = be_called(*arguments)
            svc.stop()
            return place

        monkeypatch.setattr(Bell, "_wait_for_any", be_called_and_stop)
        svc.store.wait(mix_of(["a", "b"]), LONG_S)

        others.took_soon(1)


def test_no_job_is_left_while_somebody_sleeps_who_waits_for_it(
    svc: JobService, waiters: Waiters, crew: Crew, seed: int
) -> None:
    run_rounds(svc, waiters, crew, seed, 25)


@pytest.mark.storm
def test_no_job_is_left_in_very_many_rounds(
    svc: JobService, waiters: Waiters, crew: Crew, seed: int
) -> None:
    run_rounds(svc, waiters, crew, seed, 3000)


def run_rounds(svc: JobService, waiters: Waiters, crew: Crew, seed: int, rounds: int) -> None:
    """Commits quicker than threads get up; who has a job is busy until all jobs are taken.

    There are as many who wait for all topics as jobs in a round. So if one is left, there is a
    waiter for it who was not called.
    """
    chance = random.Random(seed)
    most = 5
    busy, over = threading.Semaphore(0), threading.Semaphore(0)

    def work(topics: Topics) -> None:
        while (job := take(svc, topics)) is not None:
            job.done()
            busy.release()
            over.acquire()

    kinds: list[Topics] = [["a", "b", "c"], ["c", "a", "b"], {"b": 5, "c": 1, "a": 1}, Pattern("?")]
    crowd: list[Topics] = [chance.choice(kinds) for _ in range(most)] + [*TOPICS]
    waiters.threads += [crew.start(work, topics) for topics in crowd]
    for number in range(rounds):
        jobs = chance.randint(1, most)
        for _ in range(jobs):
            svc.enqueue(chance.choice(TOPICS), number)
        for _ in range(jobs):
            assert busy.acquire(timeout=SOON_S), f"a job is left in round {number}"
        for _ in range(jobs):
            over.release()
    svc.stop()


# The words.


def test_a_word_of_ones_own_never_has_a_value_twice() -> None:
    word = futex.Word()
    seen = {word.read()}
    for _ in range(100):
        word.call()
        seen.add(word.read())

    assert len(seen) == 101


@pytest.mark.parametrize("moved", ["first", "second", "own"])
def test_who_has_seen_another_value_does_not_sleep(moved: str, bell: Bell) -> None:
    word, page = futex.Word(), bell.page()
    seen = word.read()
    if moved == "own":
        word.call()
    else:
        bell.raise_counter(1 if moved == "first" else 2)
    began = time.monotonic()

    assert bell.wait_for_any([1, 2], page, (word, seen), began + LONG_S) == []
    assert time.monotonic() - began < SOON_S


def test_who_is_woken_late_for_what_it_has_seen_already_knows_for_which_topic(
    bell: Bell, crew: Crew
) -> None:
    word, page, called = futex.Word(), bell.page(), list[list[int]]()

    def sleep() -> None:
        end = time.monotonic() + LONG_S
        called.append(bell.wait_for_any([1, 2, 3], page, (word, word.read()), end))

    sleeper = crew.start(sleep)
    eventually(lambda: waits(sleeper.native_id or 0))
    bell.wake(2, 1)
    sleeper.join(SOON_S)

    assert called == [[2]]


def test_a_sleep_ends_in_its_time(bell: Bell) -> None:
    word = futex.Word()
    for end in (time.monotonic() + 0.01, time.monotonic(), -1.0):
        assert bell.wait_for_any([1, 2], bell.page(), (word, word.read()), end) == []
        assert time.monotonic() >= end


def test_one_can_sleep_at_as_many_counters_as_the_kernel_takes(bell: Bell, crew: Crew) -> None:
    topics = range(1, futex.MOST_WORDS - 1)  # one is the process's own, and one for relief
    word, page, called = futex.Word(), bell.page(), list[list[int]]()
    assert bell.may_wait_for(topics)
    assert not bell.may_wait_for([0, *topics])

    def sleep() -> None:
        end = time.monotonic() + LONG_S
        called.append(bell.wait_for_any(topics, page, (word, word.read()), end))

    sleeper = crew.start(sleep)
    eventually(lambda: waits(sleeper.native_id or 0))
    bell.raise_counter(topics[-1])
    bell.wake(topics[-1], 1)
    sleeper.join(SOON_S)

    assert called == [[topics[-1]]]


@pytest.mark.parametrize("refuses", [lambda: -1, None])
def test_where_the_kernel_refuses_it_nobody_tries(
    refuses: Callable[[], int] | None, bell: Bell, monkeypatch: pytest.MonkeyPatch
) -> None:
    if refuses is None:
        monkeypatch.setattr(futex, "NUMBER", None)
    else:
        monkeypatch.setattr(futex, "WAITV", 9999)  # no such call
    futex.can_wait_for_any.cache_clear()
    try:
        assert not bell.may_wait_for([1, 2])
    finally:
        futex.can_wait_for_any.cache_clear()


def test_the_counters_that_are_slept_at_are_those_of_the_first_page(bell: Bell) -> None:
    """All of them lie there, whatever the topic's number."""
    words: list[tuple[int, int]] = []
    bell._wait_for_any = lambda given, _: words.extend(given)  # type: ignore[method-assign, assignment]
    bell.wait_for_any([1, COUNTERS - 1, COUNTERS, 5 * COUNTERS], bell.page(), (futex.Word(), 0), 0)

    assert len(words) == 5
    assert all(0 <= address - bell._address < PAGE for address, _ in words[:-1])
