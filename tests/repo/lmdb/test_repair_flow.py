"""Repairing what a file says of flow control: damaged records are dropped, or made anew."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import lmdb
import pytest

from jobq.clock import ManualClock
from jobq.errors import StoreCorrupt
from jobq.job import Reservation
from jobq.repo.flow import FIRST_LANE, Key
from jobq.repo.lmdb import LmdbStore
from jobq.repo.lmdb.keys import group_key, lane_key, over_key
from jobq.repo.lmdb.records import decode_note, encode_key, encode_lane, encode_note
from jobq.repo.operations.flow.groups import EMPTY
from jobq.repo.transactional import TIMELESS
from tests.repo.conftest import Queue, done
from tests.repo.lmdb.raw import Raw


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "queue"


class Live(Raw):
    """A queue that is open, with holders that live, as bare LMDB sees it."""

    def __init__(self, store: Any) -> None:
        self._store = store

    def change(
        self, name: str, change: Callable[[lmdb.Transaction, lmdb._Database], object]
    ) -> None:
        def operation(tx: Any) -> None:
            access = tx.flow._access
            access.dirty = True
            change(access.txn, getattr(access.db, name))

        self._store._write(operation, TIMELESS)


@pytest.fixture
def store(path: Path, clock: ManualClock) -> Iterator[LmdbStore]:
    """A queue with all that flow control keeps."""
    with LmdbStore(path, clock=clock) as store:
        fill(Queue(store, clock))
        assert store.check().problems == ()
        yield store


@pytest.fixture
def raw(store: LmdbStore) -> Raw:
    return Live(store)


def fill(queue: Queue) -> None:
    """Groups that had their turns, keys of all kinds, deadlines, a rate that is used up, and a hold
    that lingers.
    """
    store = queue.store
    store.configure("slow", {"group_rate": (1, 60.0)})
    store.configure("mail", {"group_concurrency": 3})
    for group in "abc":
        queue.add_many(4, group=group)
    queue.add_many(2, "slow", group="a")
    queue.add_many(2)
    store.settle([done(job) for job in [*queue.take(n=2), *queue.take("slow")]])
    queue.add(unique="mine", group="b", weight=-1)
    queue.add(unique="while it waits", unique_for="waiting", ttl=60)
    queue.add(unique="for a time", unique_for=600.0)
    queue.add(group="late", delay=5, ttl=60)
    held = queue.add("held", unique="held", group="h")
    queue.take("held")
    queue.cancel(held)


def keys_of(raw: Raw, kind: bytes) -> list[bytes]:
    """The keys of all records of flow control that begin so."""
    found: list[bytes] = []

    def look(txn: lmdb.Transaction, db: lmdb._Database) -> None:
        with txn.cursor(db) as cursor:
            found.extend(bytes(key) for key, _ in cursor if bytes(key).startswith(kind))

    raw.change("flow", look)
    return found


def serve(store: LmdbStore, clock: ManualClock) -> list[tuple[str, list[Reservation]]]:
    """What is handed out from now on, until nothing is left."""
    queue = Queue(store, clock)
    served = []
    for _ in range(4):
        for topic in ("mail", "slow", "held"):
            taken = queue.take(topic, 3)
            store.settle([done(job) for job in taken])
            served.append((topic, taken))
        clock.advance(20)
    assert store.check().problems == ()
    return served


def test_a_lost_index_is_made_anew_with_the_same_order_of_serving(
    store: LmdbStore, path: Path, raw: Raw, clock: ManualClock
) -> None:
    shutil.copytree(path, path.with_name("well"), ignore=shutil.ignore_patterns("holders"))
    raw.empty("queue")
    raw.empty("agenda")
    found = store.check()
    report = store.check(repair=True)

    assert not found.ok
    assert (report.problems, report.repaired) == ((), found.problems)
    assert store.check().problems == ()
    now = clock.wall_us()
    served = serve(store, clock)
    assert sum(len(jobs) for _, jobs in served) > 10
    back = ManualClock()
    back.advance((now - back.wall_us()) / 1e6)
    with LmdbStore(path.with_name("well"), clock=back) as well:
        assert serve(well, back) == served


def drop(raw: Raw, key: bytes) -> None:
    raw.change("flow", lambda txn, db: txn.delete(key, db=db))


def flip(raw: Raw, key: bytes) -> None:
    raw.flip("flow", key)


def swap(raw: Raw, key: bytes) -> None:
    """Another record of the kind stands there too, as after a write that went astray."""
    other = next(one for one in reversed(keys_of(raw, b"")) if one != key)
    raw.change("flow", lambda txn, db: txn.put(key, bytes(txn.get(other, db=db) or b""), db=db))


@pytest.mark.parametrize("spoil", [flip, drop, swap])
@pytest.mark.parametrize("kind", [b"k", b"o", b"l", b"g", b"h"])
def test_each_record_of_flow_control_that_is_damaged_is_found_and_mended(
    store: LmdbStore, raw: Raw, clock: ManualClock, kind: bytes, spoil: Callable[[Raw, bytes], None]
) -> None:
    keys = keys_of(raw, kind)
    assert keys
    for key in keys:
        if key not in keys_of(raw, kind):
            continue  # what cannot be told from the jobs was dropped with one before
        spoil(raw, key)
        found = store.check()
        report = store.check(repair=True)

        assert found.problems, key
        assert (report.problems, report.repaired) == ((), found.problems)
        assert store.check().problems == ()
    assert len(Queue(store, clock).take(n=20)) > 10
    assert store.check().problems == ()


def test_damage_of_one_record_hides_no_other(
    store: LmdbStore, raw: Raw, clock: ManualClock
) -> None:
    keys = [*keys_of(raw, b"k"), *keys_of(raw, b"l"), *keys_of(raw, b"h")]
    for key in keys:
        flip(raw, key)
    said = "\n".join(store.check().problems)

    assert [key.hex() in said for key in keys] == [True] * len(keys)
    assert store.check(repair=True).ok
    assert len(Queue(store, clock).take(n=20)) > 10


def test_all_of_flow_control_can_be_lost(store: LmdbStore, raw: Raw, clock: ManualClock) -> None:
    raw.empty("flow")

    assert not store.check().ok
    assert store.check(repair=True).ok
    keys = [name for name, _ in store._read(lambda tx: list(tx.flow.all_keys()))]
    assert keys == ["mine", "while it waits"]
    assert len(Queue(store, clock).take(n=20)) > 10


def test_two_lanes_of_one_group_become_one(store: LmdbStore, raw: Raw) -> None:
    number = FIRST_LANE + 10_000
    at = lane_key(number)
    wrong = encode_lane(at, EMPTY._replace(topic=1, group="a"))
    raw.change("flow", lambda txn, db: txn.put(at, wrong, db=db))

    assert any(f"lane {number} is of group 'a'" in one for one in store.check().problems)
    assert store.check(repair=True).ok


def test_a_period_that_belongs_to_no_key_is_forgotten(store: LmdbStore, raw: Raw) -> None:
    at = over_key(5, "nobody's")
    raw.change("flow", lambda txn, db: txn.put(at, encode_note(at, b""), db=db))

    assert len(store.check().problems) == 1
    assert store.check(repair=True).ok


def test_a_group_that_names_the_lane_of_another_is_put_right(
    store: LmdbStore, raw: Raw, clock: ManualClock
) -> None:
    def confuse(txn: lmdb.Transaction, db: lmdb._Database) -> None:
        one, other = group_key(2, "a"), group_key(2, "b")
        number = decode_note(other, bytes(txn.get(other, db=db) or b""))
        txn.put(one, encode_note(one, number), db=db)

    raw.change("flow", confuse)

    assert any("which is not its own" in one for one in store.check().problems)
    assert store.check(repair=True).ok
    assert len(Queue(store, clock).take(n=20)) > 10


def test_a_key_of_a_kind_that_there_is_not_is_left_alone(store: LmdbStore, raw: Raw) -> None:
    """It may be anybody's: who gave its page away would damage more."""
    raw.change("flow", lambda txn, db: txn.put(b"x", b"y", db=db))

    assert "nothing was repaired" in store.check(repair=True).problems[-1]


def test_keys_are_listed_up_to_one_that_is_damaged(store: LmdbStore, raw: Raw) -> None:
    at = b"k\xff"
    record = encode_key(b"k", Key(bytes(16), 0))
    raw.change("flow", lambda txn, db: txn.put(at, record, db=db))

    assert len(store._read(lambda tx: tx.flow.keys(None, 4))) == 4
    with pytest.raises(StoreCorrupt):
        store._read(lambda tx: tx.flow.keys(None, 5))
    assert store.check(repair=True).ok
    assert len(store._read(lambda tx: tx.flow.keys(None, 5))) == 4


def test_a_queue_whose_lanes_are_damaged_can_be_opened_to_be_repaired(
    store: LmdbStore, path: Path, raw: Raw, clock: ManualClock
) -> None:
    for key in keys_of(raw, b"l"):
        flip(raw, key)
    store.close()
    with LmdbStore(path, clock=clock) as again:
        assert again.check(repair=True).ok
        assert len(Queue(again, clock).take(n=20)) > 10


@pytest.mark.parametrize("database", ["jobs", "states"])
def test_a_damaged_job_that_falls_due_is_set_aside_and_stops_nobody(
    path: Path, clock: ManualClock, database: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Its delay, its lease, its deadline, its retention: whatever is over."""
    with LmdbStore(path, clock=clock) as store:
        queue = Queue(store, clock)
        held, late = queue.add("held", lease=5.0), queue.add(delay=5)
        mortal, done_one = queue.add("mortal", ttl=5), queue.add("done", retention=5.0)
        due = queue.add(delay=5)
        queue.take("held")
        queue.retry(queue.take_one("mortal"), 60.0)
        queue.done(queue.take_one("done"), keep_us=5_000_000)
        queue.edit(late, delay=5.0, weight=1)
        shutil.copytree(path, path.with_name("copy"), ignore=shutil.ignore_patterns("holders"))
    copy = path.with_name("copy")
    broken = [held, late, mortal, done_one]
    for job_id in broken:
        Raw(copy).flip(database, job_id)
    clock.advance(6)
    with LmdbStore(copy, clock=clock) as store:
        queue = Queue(store, clock)
        store.advance()
        new = queue.add(weight=-1)
        assert [job.id for job in queue.take(n=1)] == [new]
        store.prune()
        assert len([one for one in caplog.messages if "set aside" in one]) >= 2
        report = store.check(repair=True)
        # One that is done goes without a look at its body.
        assert len(report.problems) == len(broken) - (database == "jobs")
        assert all("cannot be read" in problem for problem in report.problems)
        assert [job.id for job in queue.take(n=9)] == [due]
