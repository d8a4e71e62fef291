"""Repairing what a file says of flow control: damaged records are dropped, or made anew."""

import shutil
from collections.abc import Callable
from pathlib import Path

import lmdb
import pytest

from jobq.clock import ManualClock
from jobq.errors import StoreCorrupt
from jobq.job import Reservation
from jobq.repo.flow import FIRST_LANE, Key
from jobq.repo.lmdb import LmdbStore
from jobq.repo.lmdb.keys import group_key, lane_key, over_key
from jobq.repo.lmdb.records import decode_note, encode_key, encode_lane, encode_note
from jobq.repo.operations import uniques
from jobq.repo.operations.groups import EMPTY
from tests.repo.conftest import Queue, done
from tests.repo.lmdb.test_repair import Raw


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "queue"


@pytest.fixture
def raw(path: Path) -> Raw:
    return Raw(path)


def fill(path: Path, clock: ManualClock) -> None:
    """Groups that had their turns, keys of all kinds, deadlines, a rate that is used up, and a hold
    that lingers; as a process leaves it that is killed.
    """
    there = path.with_name("before")
    with LmdbStore(there, clock=clock) as store:
        queue = Queue(store, clock)
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
        shutil.copytree(there, path, ignore=shutil.ignore_patterns("holders"))
    with LmdbStore(path, clock=clock) as store:
        assert store.check().problems == ()


def keys_of(raw: Raw, kind: bytes) -> list[bytes]:
    """The keys of all records of flow control that begin so."""
    found: list[bytes] = []

    def look(txn: lmdb.Transaction, db: lmdb._Database) -> None:
        with txn.cursor(db) as cursor:
            found.extend(bytes(key) for key, _ in cursor if bytes(key).startswith(kind))

    raw.change("flow", look)
    return found


def serve(path: Path, clock: ManualClock) -> list[tuple[str, list[Reservation]]]:
    """What is handed out from now on, until nothing is left."""
    with LmdbStore(path, clock=clock) as store:
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
    path: Path, raw: Raw, clock: ManualClock
) -> None:
    fill(path, clock)
    shutil.copytree(path, path.with_name("well"))
    raw.empty("queue")
    raw.empty("agenda")
    now = clock.wall_us()
    with LmdbStore(path, clock=clock) as store:
        found = store.check()
        report = store.check(repair=True)
        again = store.check()

    assert not found.ok
    assert (report.problems, report.repaired, again.problems) == ((), found.problems, ())
    served = serve(path, clock)
    back = ManualClock()
    back.advance((now - back.wall_us()) / 1e6)
    assert sum(len(jobs) for _, jobs in served) > 10
    assert served == serve(path.with_name("well"), back)


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
    path: Path, clock: ManualClock, kind: bytes, spoil: Callable[[Raw, bytes], None]
) -> None:
    fill(path, clock)
    keys = keys_of(Raw(path), kind)
    assert keys
    for number, key in enumerate(keys):
        copy = path.with_name(f"copy{number}")
        shutil.copytree(path, copy)
        spoil(Raw(copy), key)
        with LmdbStore(copy, clock=clock) as store:
            found = store.check()
            report = store.check(repair=True)

            assert found.problems, key
            assert (report.problems, report.repaired) == ((), found.problems)
            assert store.check().problems == ()
            assert Queue(store, clock).take(n=20)
            assert store.check().problems == ()


def test_damage_of_one_record_hides_no_other(path: Path, raw: Raw, clock: ManualClock) -> None:
    fill(path, clock)
    keys = [*keys_of(raw, b"k"), *keys_of(raw, b"l"), *keys_of(raw, b"h")]
    for key in keys:
        flip(raw, key)
    with LmdbStore(path, clock=clock) as store:
        said = "\n".join(store.check().problems)
        assert [key.hex() in said for key in keys] == [True] * len(keys)
        assert store.check(repair=True).ok
        assert len(Queue(store, clock).take(n=20)) > 10


def test_all_of_flow_control_can_be_lost(path: Path, raw: Raw, clock: ManualClock) -> None:
    fill(path, clock)
    raw.empty("flow")
    with LmdbStore(path, clock=clock) as store:
        assert not store.check().ok
        assert store.check(repair=True).ok
        holders = [
            store._read(lambda tx, name=name: uniques.holder(tx, name))  # type: ignore[misc]
            for name in ("mine", "while it waits", "for a time", "held")
        ]
        assert [holder is not None for holder in holders] == [True, True, False, False]
        assert len(Queue(store, clock).take(n=20)) > 10


def test_two_lanes_of_one_group_become_one(path: Path, raw: Raw, clock: ManualClock) -> None:
    fill(path, clock)
    number = FIRST_LANE + 10_000
    at = lane_key(number)
    wrong = encode_lane(at, EMPTY._replace(topic=1, group="a"))
    raw.change("flow", lambda txn, db: txn.put(at, wrong, db=db))
    with LmdbStore(path, clock=clock) as store:
        assert any(f"lane {number} is of group 'a'" in one for one in store.check().problems)
        assert store.check(repair=True).ok


def test_a_period_that_belongs_to_no_key_is_forgotten(
    path: Path, raw: Raw, clock: ManualClock
) -> None:
    fill(path, clock)
    at = over_key(5, "nobody's")
    raw.change("flow", lambda txn, db: txn.put(at, encode_note(at, b""), db=db))
    with LmdbStore(path, clock=clock) as store:
        assert len(store.check().problems) == 1
        assert store.check(repair=True).ok


def test_a_group_that_names_the_lane_of_another_is_put_right(
    path: Path, raw: Raw, clock: ManualClock
) -> None:
    fill(path, clock)

    def confuse(txn: lmdb.Transaction, db: lmdb._Database) -> None:
        one, other = group_key(2, "a"), group_key(2, "b")
        number = decode_note(other, bytes(txn.get(other, db=db) or b""))
        txn.put(one, encode_note(one, number), db=db)

    raw.change("flow", confuse)
    with LmdbStore(path, clock=clock) as store:
        assert any("which is not its own" in one for one in store.check().problems)
        assert store.check(repair=True).ok
        assert len(Queue(store, clock).take(n=20)) > 10


def test_a_key_of_a_kind_that_there_is_not_is_left_alone(
    path: Path, raw: Raw, clock: ManualClock
) -> None:
    """It may be anybody's: who gave its page away would damage more."""
    fill(path, clock)
    raw.change("flow", lambda txn, db: txn.put(b"x", b"y", db=db))
    with LmdbStore(path, clock=clock) as store:
        report = store.check(repair=True)

        assert "nothing was repaired" in report.problems[-1]


def test_keys_are_listed_up_to_one_that_is_damaged(
    path: Path, raw: Raw, clock: ManualClock
) -> None:
    fill(path, clock)
    at = b"k\xff"
    record = encode_key(b"k", Key(bytes(16), 0))
    raw.change("flow", lambda txn, db: txn.put(at, record, db=db))
    with LmdbStore(path, clock=clock) as store:
        assert len(store._read(lambda tx: tx.flow.keys(None, 4))) == 4
        with pytest.raises(StoreCorrupt):
            store._read(lambda tx: tx.flow.keys(None, 5))
        assert store.check(repair=True).ok
        assert len(store._read(lambda tx: tx.flow.keys(None, 5))) == 4
