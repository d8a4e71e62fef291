"""What the dead hold is found, however much the living hold, and in steps that do not grow."""

import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import pytest

import jobq
from jobq import Status
from jobq.repo.entry import Mark
from jobq.repo.lmdb import LmdbStore
from jobq.repo.lmdb.holders import Holders
from jobq.repo.lmdb.topics import LmdbTopics

STEP: Final = 8
FEW: Final = 3
LEASE_S: Final = 3600.0

BOOT: Final = bytes(16)


class Processes:
    """A queue whose jobs are reserved by many processes, as far as anybody can tell.

    Each is a locked file, and dead as soon as that is closed.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.store = LmdbStore(path, durability="unsafe")
        self.svc = jobq.JobService(self.store, retention=0)
        self.living: dict[int, Holders] = {}
        self.held: dict[int, list[str]] = {}
        self.dead: set[int] = set()

    def start(self) -> int:
        """One more process; its number."""
        number = len(self.held)
        self.living[number], self.held[number] = Holders(self.path / "holders", BOOT), []
        return number

    def reserve(self, number: int, *leases: float, topic: str | None = None) -> list[str]:
        """Let it hold jobs, each with a record of its own; if not told, of its own topic."""
        topic = topic or f"for {number}"
        file = self.store._env._file
        mine, file._holders = file.holders, self.living[number]
        ids = []
        for lease in leases:
            ids.append(self.svc.enqueue(topic, lease=lease, max_crashes=0))
            assert [job.id for job in self.svc.reserve(topic, timeout=0)] == ids[-1:]
        file._holders = mine
        self.held[number] += ids
        return ids

    def die(self, number: int, *, without_file: bool = False) -> None:
        """Let it die; *without_file* somebody has taken its file away as well."""
        holder = self.living.pop(number)
        mine = holder.mine
        holder.close()
        if mine is not None and without_file:
            (self.path / "holders" / mine.hex()).unlink()
        self.dead.add(number)

    def files(self) -> int:
        """How many of them have a file."""
        return len(list((self.path / "holders").iterdir()))

    def statuses(self, number: int) -> set[Status]:
        """Of the jobs that it held."""
        return {self.svc.status(job_id) for job_id in self.held[number]}

    def reopen(self) -> None:
        """Another process that has seen nothing yet."""
        self.store.close()
        self.store = LmdbStore(self.path, durability="unsafe")
        self.svc = jobq.JobService(self.store, retention=0)

    def advance(self, limit: int = 1000) -> int:
        """Until there is no more to do; in how many calls."""
        for calls in range(1, 1000):
            if not self.store.advance(limit).more:
                return calls
        raise AssertionError("it does not come to an end")

    def wait(self) -> None:
        """What who waits does once a second."""
        self.store._probed = 0.0
        self.store._recover()

    def close(self) -> None:
        for number in list(self.living):
            self.die(number)
        self.store.close()


@pytest.fixture
def crowd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Processes]:
    monkeypatch.setattr("jobq.repo.lmdb.store.STEP", STEP)
    monkeypatch.setattr("jobq.repo.lmdb.store.FEW", FEW)
    crowd = Processes(tmp_path / "queue")
    yield crowd
    assert crowd.svc.check().problems == ()
    crowd.close()


@pytest.fixture
def records_read(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The records that each walk through an agenda has read."""
    read: list[int] = []
    places = LmdbTopics._places

    def count(self: LmdbTopics, *arguments: Any) -> Iterator[tuple[bytes, bytes]]:
        at = len(read)
        read.append(0)
        for entry in places(self, *arguments):
            read[at] += 1
            yield entry

    monkeypatch.setattr(LmdbTopics, "_places", count)
    return read


def leases(count: int, shortest: float = LEASE_S) -> list[float]:
    return [shortest + number for number in range(count)]


def test_the_jobs_of_a_dead_holder_come_back_though_many_others_stand_before_them(
    crowd: Processes, records_read: list[int]
) -> None:
    living, other = crowd.start(), crowd.start()
    crowd.reserve(living, *leases(50))
    crowd.reserve(other, *leases(5, 2 * LEASE_S))
    crowd.reserve(living, *leases(20, 3 * LEASE_S))
    crowd.die(other)
    records_read.clear()
    calls = crowd.advance()

    assert crowd.statuses(other) == {Status.READY}
    assert crowd.statuses(living) == {Status.RESERVED}
    assert calls > 5
    assert max(records_read) <= STEP + 1


@pytest.mark.parametrize("limit", [1, 2, 1000])
def test_a_step_goes_on_where_the_one_before_has_stopped(crowd: Processes, limit: int) -> None:
    """However few jobs it may move, and whoever of the dead stands first."""
    first, second = crowd.start(), crowd.start()
    for number in range(3):
        crowd.reserve(first, LEASE_S + 10 * number)
        crowd.reserve(second, *leases(2, LEASE_S + 10 * number + 1))
    crowd.die(first)
    crowd.die(second)
    crowd.advance(limit)

    assert crowd.statuses(first) == crowd.statuses(second) == {Status.READY}


def test_who_waits_does_not_rest_before_all_jobs_of_the_dead_are_back(crowd: Processes) -> None:
    living, other = crowd.start(), crowd.start()
    crowd.reserve(living, *leases(50))
    crowd.reserve(other, *leases(5, 2 * LEASE_S))
    crowd.die(other)
    crowd.wait()
    assert crowd.statuses(other) == {Status.RESERVED}
    for _ in range(55 // STEP + 1):
        crowd.store._recover()

    assert crowd.statuses(other) == {Status.READY}


def test_opening_reads_no_more_for_many_reservations(
    crowd: Processes, records_read: list[int]
) -> None:
    crowd.reserve(crowd.start(), *leases(60))
    records_read.clear()
    crowd.reopen()

    assert 0 < max(records_read) <= STEP + 1


def test_who_waits_finds_what_is_held_without_a_file_too(crowd: Processes) -> None:
    """Once round after opening: each who opens the queue finds what nobody else has."""
    living, other = crowd.start(), crowd.start()
    crowd.reserve(living, *leases(50))
    crowd.reserve(other, *leases(5, 2 * LEASE_S))
    crowd.die(other, without_file=True)
    crowd.reopen()
    assert crowd.statuses(other) == {Status.RESERVED}
    for _ in range(60 // STEP + 1):
        crowd.wait()

    assert crowd.statuses(other) == {Status.READY}
    assert crowd.statuses(living) == {Status.RESERVED}


def test_advance_goes_round_again_and_again(crowd: Processes) -> None:
    living = crowd.start()
    crowd.reserve(living, *leases(20))
    for _ in range(3):
        other = crowd.start()
        crowd.reserve(other, *leases(2, 2 * LEASE_S))
        crowd.die(other, without_file=True)
        for _ in range(2 * (22 // FEW + 2)):
            crowd.store.advance()
        assert crowd.statuses(other) == {Status.READY}

    assert crowd.statuses(living) == {Status.RESERVED}


def test_the_file_of_a_dead_holder_stays_until_all_of_its_jobs_are_back(crowd: Processes) -> None:
    living, other = crowd.start(), crowd.start()
    for number in range(8):
        crowd.reserve(living, *leases(5, LEASE_S + 100 * number))
        crowd.reserve(other, LEASE_S + 100 * number + 50)
    crowd.die(other)
    files = crowd.files()
    steps = 0
    while crowd.statuses(other) != {Status.READY}:
        assert crowd.files() == files
        crowd.wait()
        steps += 1
    for _ in range(48 // STEP + 2):
        crowd.wait()

    assert steps > 3
    assert crowd.files() == files - 1


def test_who_dies_in_the_middle_of_a_round_has_one_of_its_own(crowd: Processes) -> None:
    living, first, second = crowd.start(), crowd.start(), crowd.start()
    crowd.reserve(second, *leases(3))
    crowd.reserve(living, *leases(30, LEASE_S + 100))
    crowd.reserve(first, *leases(3, 2 * LEASE_S))
    files = crowd.files()
    crowd.die(first)
    crowd.wait()
    crowd.wait()
    crowd.die(second)
    for _ in range(4 * (36 // STEP + 2)):
        crowd.wait()

    assert crowd.statuses(first) == crowd.statuses(second) == {Status.READY}
    assert crowd.statuses(living) == {Status.RESERVED}
    assert crowd.files() == files - 2


def test_canceled_jobs_of_the_dead_give_up_what_they_take_up(crowd: Processes) -> None:
    crowd.svc.configure("narrow", concurrency=12)
    living, other = crowd.start(), crowd.start()
    crowd.reserve(living, *leases(20))
    for job_id in (
        *crowd.reserve(living, *leases(9), topic="narrow"),
        *crowd.reserve(other, *leases(3, 2 * LEASE_S), topic="narrow"),
    ):
        crowd.svc.cancel(job_id)
    crowd.svc.enqueue_many("narrow", range(12))
    assert crowd.svc.reserve("narrow", 12, timeout=0) == []
    crowd.die(other)
    crowd.advance()

    assert len(crowd.svc.reserve("narrow", 12, timeout=0)) == 3


def test_a_call_in_another_threads_step_leaves_it_to_that(crowd: Processes) -> None:
    other = crowd.start()
    crowd.reserve(other, *leases(3))
    crowd.die(other)
    step = Mark()
    assert crowd.store._search.begin(step)
    assert crowd.store.advance().more
    assert crowd.statuses(other) == {Status.RESERVED}
    crowd.store._search.end()
    crowd.store.advance()

    assert crowd.statuses(other) == {Status.READY}


def test_a_step_that_was_interrupted_before_anything_could_end_it_is_over(
    crowd: Processes,
) -> None:
    other = crowd.start()
    crowd.reserve(other, *leases(3))
    crowd.die(other)
    assert crowd.store._search.begin(Mark())  # which nobody keeps: its frame is gone
    crowd.store.advance()

    assert crowd.statuses(other) == {Status.READY}


# Anything in any order.


def story(crowd: Processes, chance: random.Random, steps: int) -> None:
    """Processes reserve, lose jobs, die and wait; at the end all jobs of the dead are back."""

    def someone() -> int:
        return chance.choice([*crowd.living]) if crowd.living else crowd.start()

    def reserve() -> None:
        some = [LEASE_S + chance.random() * 1000 for _ in range(chance.randint(1, 6))]
        crowd.reserve(someone(), *some)

    def lose() -> None:
        number = someone()
        if crowd.held[number]:
            job_id = crowd.held[number].pop(chance.randrange(len(crowd.held[number])))
            crowd.svc.cancel(job_id)

    def die() -> None:
        crowd.die(someone(), without_file=chance.random() < 0.3)

    acts: list[Callable[[], object]] = [
        *(reserve,) * 6, *(lose,) * 3, *(die,) * 2, *(crowd.start,) * 2,
        *(crowd.wait,) * 6, *(lambda: crowd.store.advance(chance.randint(1, 5)),) * 3, crowd.reopen,
    ]  # fmt: skip
    for _ in range(steps):
        chance.choice(acts)()
    records = crowd.svc.stats().totals.reserved
    for _ in range(3 * (records // FEW + 2) + records + 30):
        crowd.store.advance()
        crowd.wait()

    for number, held in crowd.held.items():
        status = {Status.READY} if number in crowd.dead else {Status.RESERVED}
        assert crowd.statuses(number) == (status if held else set())


def test_nothing_that_the_dead_hold_is_missed(crowd: Processes, seed: int) -> None:
    story(crowd, random.Random(seed), 120)


@pytest.mark.storm
def test_nothing_that_the_dead_hold_is_missed_in_long_stories(crowd: Processes, seed: int) -> None:
    story(crowd, random.Random(seed), 4000)
