"""The contract of every store: who waits gets what falls due, and one looks for all of them.

Who waits sleeps soundly here: if nobody looks in time, it shows.
"""

import contextlib
import random
import threading
import time
from typing import Any, Final

import pytest

from jobq import Pattern
from jobq.clock import SystemClock
from jobq.repo.base import ReserveRequest, Store
from jobq.repo.watch import Left, Watch
from jobq.shares import Topics, mix_of
from tests.conftest import LONG_S, SOON_S, Crew, Opener, eventually
from tests.crash.conftest import say, seed
from tests.repo.conftest import done, spec
from tests.repo.test_contract_threads import asleep_or_gone

__all__ = ["say", "seed"]

TOPICS: Final = ("a", "b")
WAITED_FOR: Final[tuple[Topics, ...]] = ("a", ["b", "a"], Pattern("[ab]"), {"a": 3, "b": 1})


pytestmark = pytest.mark.usefixtures("sound_sleep")


@pytest.fixture
def live(opener: Opener) -> Store:
    """An empty store of every kind, on the clocks of this machine, that knows the topics."""
    store = opener(clock=SystemClock())
    store.delete(store.enqueue([spec(topic) for topic in TOPICS]))
    return store


class Crowd:
    """Threads that wait for jobs, and do them.

    Attributes:
        came: When jobs came, by their payloads.
        looks: How often somebody got up.
    """

    def __init__(self, store: Store, crew: Crew) -> None:
        self.came: dict[bytes, float] = {}
        self.looks = 0
        self._store = store
        self._crew = crew
        self._over = threading.Event()
        self._counting = threading.Lock()
        self._threads: list[threading.Thread] = []

    def start(
        self, topics: Topics = "a", count: int = 1, *, jobs: int = 1000, patience: float = 60.0
    ) -> None:
        """So many threads that leave after *jobs* jobs or *patience* seconds; returns when they
        sleep.
        """
        fresh = [self._crew.start(self._work, topics, jobs, patience) for _ in range(count)]
        self._threads += fresh
        eventually(lambda: all(map(asleep_or_gone, fresh)))

    def _work(self, topics: Topics, jobs: int, patience: float) -> None:
        mix, end = mix_of(topics), time.monotonic() + patience
        while jobs and not self._over.is_set():
            if held := self._store.reserve(ReserveRequest(mix, 1)):
                self.came[held[0].payload] = time.monotonic()
                self._store.settle([done(job) for job in held])
                jobs -= 1
            elif (left := end - time.monotonic()) <= 0:
                return
            else:
                self._store.wait(mix, min(left, LONG_S))
                with self._counting:
                    self.looks += 1

    def has(self, count: int) -> None:
        """So many jobs have come, long before anybody looks by itself."""
        eventually(lambda: len(self.came) >= count, SOON_S)

    def send_home(self) -> None:
        """Nobody waits any more."""
        self._over.set()
        eventually(self._are_home)  # one that was about to sleep has not heard it
        self._crew.join()

    def _are_home(self) -> bool:
        self._store.wake()
        return not any(thread.is_alive() for thread in self._threads)


@pytest.fixture
def crowd(live: Store, crew: Crew) -> Any:
    crowd = Crowd(live, crew)
    yield crowd
    crowd.send_home()


def add(store: Store, delay: float, topic: str = "a", **options: Any) -> float:
    """A job; gives when it is due."""
    at = time.monotonic() + delay
    store.enqueue([spec(topic, delay=delay, payload=str(at).encode(), **options)])
    return at


@pytest.mark.parametrize("topics", WAITED_FOR, ids=str)
def test_few_of_many_get_up_for_a_job_that_falls_due(
    topics: Topics, live: Store, crowd: Crowd
) -> None:
    """One to take the watch, one at the time, one in its stead; not all twelve, and twice."""
    at = add(live, 0.3)
    crowd.start(topics, 12)
    before = crowd.looks
    crowd.has(1)
    assert crowd.looks - before <= 6
    for number in range(8):
        add(live, 0.03)
        crowd.has(number + 2)

    assert crowd.looks - before <= 9 * 6
    assert min(crowd.came.values()) >= at


def test_a_job_calls_one_of_those_who_wait(live: Store, crowd: Crowd) -> None:
    crowd.start("a", 6)
    crowd.start(["a", "b"], 6)
    before = crowd.looks
    for number in range(10):
        add(live, 0.0)
        crowd.has(number + 1)

    assert crowd.looks - before <= 2 * 10


def test_who_has_the_watch_and_takes_a_job_has_another_one_look(live: Store, crowd: Crowd) -> None:
    add(live, 0.3)
    for _ in range(3):
        crowd.start("a", jobs=1)
    for number in range(2):  # who has slept longest takes it, and that has the watch
        add(live, 0.0)
        crowd.has(number + 1)

    crowd.has(3)


def test_who_cannot_stay_until_something_is_due_has_another_one_look(
    live: Store, crowd: Crowd
) -> None:
    crowd.start("a", patience=0.4)
    crowd.start("a")
    add(live, 0.8)  # calls the one that has waited longest

    crowd.has(1)


class Gone(BaseException):
    """An interrupt."""


def test_who_is_interrupted_when_it_gets_up_has_another_one_look(
    live: Store, crowd: Crowd, crew: Crew, monkeypatch: pytest.MonkeyPatch
) -> None:
    struck = threading.Event()
    end = Watch.end

    def strike(mine: Watch, *, called: bool) -> Left:
        if mine._mine and threading.current_thread().name == "victim":
            struck.set()
            raise Gone
        return end(mine, called=called)

    def wait() -> None:
        threading.current_thread().name = "victim"
        with contextlib.suppress(Gone):
            while True:  # a store may have other things to do at first
                live.wait("a", LONG_S)

    add(live, 0.1)
    monkeypatch.setattr(Watch, "end", strike)
    victim = crew.start(wait)
    eventually(lambda: asleep_or_gone(victim))
    crowd.start("a")
    add(live, 0.3)
    crowd.has(2)

    assert struck.is_set()


def test_jobs_of_a_topic_at_its_rate_come_when_it_allows_them(live: Store, crowd: Crowd) -> None:
    live.configure("a", {"rate": (20, 1.0), "burst": 1})
    crowd.start("a", 4, jobs=2)
    crowd.start(["b", "a"], 2, jobs=1)
    began = time.monotonic()
    for _ in range(8):
        add(live, 0.0)
    crowd.has(8)

    assert max(crowd.came.values()) - began >= 7 / 20 - 0.01


def test_leases_that_end_are_seen_in_time(live: Store, crowd: Crowd) -> None:
    add(live, 0.0, lease=0.3)
    assert live.reserve(ReserveRequest("a", 1))
    crowd.start("a", 3)
    crowd.start("b", 3)

    crowd.has(1)


def run_rounds(live: Store, crowd: Crowd, seed: int, rounds: int) -> None:
    """As many who take one job each and leave as there are jobs, at all kinds of times."""
    chance = random.Random(seed)
    for _ in range(rounds):
        jobs = chance.randint(1, 6)
        live.configure("b", {"rate": chance.choice((None, None, (40, 1.0))), "burst": 1})
        for topics in chance.sample([*WAITED_FOR[1:]] * 2, jobs):
            crowd.start(topics, jobs=1)
        for _ in range(chance.randrange(3)):
            crowd.start("a", jobs=1, patience=chance.uniform(0, 0.1))
        delays = [chance.choice((0.0, 0.02, 0.05, 0.1)) for _ in range(jobs)]
        for delay in delays:
            add(live, delay, chance.choice(TOPICS))
        eventually(lambda: live.stats().totals.unfinished == 0, SOON_S)


def test_no_job_is_late_whoever_leaves(live: Store, crowd: Crowd, seed: int) -> None:
    run_rounds(live, crowd, seed, 3)


@pytest.mark.storm
def test_no_job_is_late_in_very_many_rounds(live: Store, crowd: Crowd, seed: int) -> None:
    run_rounds(live, crowd, seed, 400)


def test_all_who_wait_can_be_stopped_at_once(live: Store, crowd: Crowd) -> None:
    add(live, 60.0)
    for topics in WAITED_FOR:
        crowd.start(topics, 3)
    began = time.monotonic()
    crowd.send_home()

    assert time.monotonic() - began < SOON_S
