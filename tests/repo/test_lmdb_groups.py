"""What the LMDB store makes of many callers at once: one commit for all who came meanwhile."""

import fcntl
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import cast

import pytest

from jobq.clock import ManualClock
from jobq.errors import InvalidValue, QueueFull
from jobq.job import Settlement
from jobq.repo.base import ReserveRequest
from jobq.repo.lmdb import LmdbStore
from jobq.repo.lmdb.group import GroupCommit, Pending, _wake
from jobq.repo.lmdb.jobs import LmdbJobs
from jobq.repo.repositories import Transaction
from jobq.repo.transactional import DRAINS
from jobq.states import Event, Outcome
from tests.conftest import Crew, eventually
from tests.repo.conftest import done, spec

THREADS = 8


def no_parts(*_: object) -> list[object]:
    """Nothing is run together."""
    raise AssertionError("this operation adds no jobs")


@pytest.fixture
def lmdb(tmp_path: Path, clock: ManualClock) -> Iterator[LmdbStore]:
    with LmdbStore(tmp_path / "queue", clock=clock) as store:
        yield store
        assert store.check().problems == ()


@contextmanager
def writers_held_up(store: LmdbStore, waiting: int) -> Iterator[None]:
    """Another process writes, until in this one so many callers wait."""
    with (store._env.path / "write.lock").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
        eventually(lambda: len(store._env._group._queue) == waiting)


def test_who_leads_stays_first_until_all_of_its_group_are_finished(crew: Crew) -> None:
    """Or the next one would lead meanwhile, and run again what is being run."""
    taken: list[list[Pending]] = []

    def run(take: Callable[[], list[Pending]], _: float) -> None:
        eventually(lambda: len(queue) == 3)
        group = take()
        taken.append(group)
        leader, early, late = group
        for pending in (leader, early):  # one by one, as when one of them has failed
            pending.finish(None)
            _wake(pending)
        eventually(lambda: early not in queue)
        assert list(queue) == [leader, late]
        late.finish(None)

    commit = GroupCommit(run)
    queue = commit._queue
    for _ in range(3):
        crew.start(lambda: commit.submit(Pending(lambda _: None, DRAINS, lambda _: None, no_parts)))
    crew.join()

    assert len(taken) == 1
    assert not queue


def commits(store: LmdbStore) -> int:
    """How many there have been; each that changes something has a number."""

    def number(tx: Transaction) -> int:
        return cast("LmdbJobs", tx.jobs)._access.meta.group

    return store._read(number)


def test_callers_that_wait_share_one_commit(lmdb: LmdbStore, crew: Crew) -> None:
    before = commits(lmdb)
    with writers_held_up(lmdb, waiting=THREADS):
        for _ in range(THREADS):
            crew.start(lmdb.enqueue, [spec()] * 3)
    crew.join()

    assert commits(lmdb) == before + 1
    assert lmdb.stats().totals.ready == THREADS * 3


def test_callers_that_add_plain_jobs_together_get_each_the_ids_of_their_own(
    lmdb: LmdbStore, crew: Crew
) -> None:
    """Beside callers whose jobs are delayed, or have a group, or are many."""
    answers: dict[str, list[bytes]] = {}
    calls = {
        "one": [spec(payload=b"one")],
        "two": [spec(payload=b"two", weight=3), spec("other", payload=b"two")],
        "three": [spec(payload=b"three")] * 3,
        "late": [spec(payload=b"late", delay=5)],
        "grouped": [spec(payload=b"grouped", group="g")],
        "many": [spec(payload=b"many")] * 20,
    }

    def call(name: str) -> None:
        answers[name] = lmdb.enqueue(calls[name])

    with writers_held_up(lmdb, waiting=len(calls)):
        for name in calls:
            crew.start(call, name)
    crew.join()

    for name, specs in calls.items():
        records = lmdb.get(answers[name])
        assert [record and record.payload_bytes for record in records] == [
            one.payload for one in specs
        ]
        assert [record and record.topic for record in records] == [one.topic for one in specs]
    assert len({job_id for ids in answers.values() for job_id in ids}) == 28


def test_of_callers_that_add_jobs_together_only_those_are_refused_that_find_no_room(
    lmdb: LmdbStore, crew: Crew
) -> None:
    lmdb.configure("mail", {"max_jobs": 5})
    outcomes: list[object] = []

    def call() -> None:
        try:
            outcomes.append(lmdb.enqueue([spec()] * 2))
        except QueueFull as error:
            outcomes.append(error)

    with writers_held_up(lmdb, waiting=THREADS):
        for _ in range(THREADS):
            crew.start(call)
    crew.join()

    assert sum(isinstance(outcome, QueueFull) for outcome in outcomes) == THREADS - 2
    assert lmdb.stats().totals.ready == 4


def test_one_caller_alone_has_a_commit_of_its_own_each_time(lmdb: LmdbStore) -> None:
    before = commits(lmdb)
    for _ in range(3):
        lmdb.enqueue([spec()])

    assert commits(lmdb) == before + 3


def test_calls_that_change_nothing_commit_nothing(lmdb: LmdbStore) -> None:
    lmdb.enqueue([spec(delay=5)])
    before = commits(lmdb)
    lmdb.reserve(ReserveRequest("mail", 1))
    lmdb.cancel([bytes(16)])
    lmdb.settle([])
    lmdb.advance()
    lmdb.prune()

    assert commits(lmdb) == before


def test_verbs_of_all_kinds_share_a_commit_and_each_has_its_own_answer(
    lmdb: LmdbStore, crew: Crew
) -> None:
    ids = lmdb.enqueue([spec()] * 4)
    held = lmdb.reserve(ReserveRequest("mail", 2))
    answers: dict[str, object] = {}
    calls: dict[str, Callable[[], object]] = {
        "done": lambda: lmdb.settle([done(held[0])]).outcomes,
        "extend": lambda: lmdb.extend([(held[1].id, held[1].token, 1_000_000)]),
        "cancel": lambda: lmdb.cancel([ids[2], bytes(16)]),
        "reset": lambda: lmdb.reset([ids[3]]),
        "reserve": lambda: len(lmdb.reserve(ReserveRequest("other", 2))),
        "advance": lambda: lmdb.advance().more,
    }
    before = commits(lmdb)

    def call(name: str) -> None:
        answers[name] = calls[name]()

    with writers_held_up(lmdb, waiting=len(calls)):
        for name in calls:
            crew.start(call, name)
    crew.join()

    assert commits(lmdb) == before + 1
    assert answers == {
        "done": [Outcome.OK],
        "extend": [Outcome.OK],
        "cancel": [Outcome.OK, Outcome.MISSING],
        "reset": [Outcome.INVALID],
        "reserve": 0,
        "advance": False,
    }


def test_one_that_fails_does_not_touch_the_others_of_its_group(lmdb: LmdbStore, crew: Crew) -> None:
    (job_id,) = lmdb.enqueue([spec("held")])
    (held,) = lmdb.reserve(ReserveRequest("held", 1))
    senseless = Settlement(held.id, held.token, Event.PROMOTE, result=b"r")

    def fail() -> None:
        with pytest.raises(InvalidValue):
            lmdb.settle([senseless])

    with writers_held_up(lmdb, waiting=THREADS):
        crew.start(fail)
        for _ in range(THREADS - 1):
            crew.start(lmdb.enqueue, [spec()])
    crew.join()

    assert lmdb.stats("mail").totals.ready == THREADS - 1
    (record,) = lmdb.get([job_id])
    assert record is not None
    assert (record.status, record.result_bytes) == ("reserved", None)
