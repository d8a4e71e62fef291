"""Repairing a file: what is damaged in an index is made anew, what is damaged in a job is left out.

And where the trees themselves are damaged, nothing is written at all.
"""

import os
import random
import shutil
import signal
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import lmdb
import pytest

import jobq
from jobq.errors import JobqError, StoreCorrupt
from jobq.ids import to_raw
from jobq.repo.lmdb import steps
from jobq.repo.lmdb.keys import topic_name_key, topic_number_key, topic_settings_key
from jobq.repo.lmdb.records import Topic, decode_meta, encode_meta, encode_topic
from tests.crash.conftest import Say
from tests.repo.lmdb import processes
from tests.repo.lmdb.conftest import Start
from tests.repo.lmdb.processes import hear, outcome_of
from tests.repo.lmdb.raw import PAGE, Raw, leaves_of, reserved, swap_leaves
from tests.torture.damage.damaging import look_into, make, mutants


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "queue"


@pytest.fixture
def raw(path: Path) -> Raw:
    return Raw(path)


@pytest.mark.parametrize("lost", [["queue"], ["agenda"], ["queue", "agenda"]])
def test_a_lost_index_is_made_anew(path: Path, raw: Raw, lost: list[str]) -> None:
    with jobq.open(path) as svc:
        svc.enqueue_many("mail", range(200))
        svc.enqueue_many("mail", range(200, 300), delay=3600)
        svc.done_many(svc.reserve("mail", 100))
        before, stats = svc.find(limit=1000), svc.stats().topics
    for name in lost:
        raw.empty(name)
    with jobq.open(path) as svc:
        found = svc.check()
        report = svc.check(repair=True)

        assert not found.ok
        assert (report.ok, report.repaired) == (True, found.problems)
        assert svc.check().ok
        assert (svc.find(limit=1000), svc.stats().topics) == (before, stats)
        assert reserved(svc) == [*range(100, 200)]


def test_a_repair_counts_a_damaged_job_out(path: Path, raw: Raw) -> None:
    with jobq.open(path) as svc:
        jids = svc.enqueue_many("mail", range(5))
    raw.flip("jobs", to_raw(jids[0]))
    with jobq.open(path) as svc:
        report = svc.check(repair=True)

        assert len(report.problems) == 1
        assert f"job {jids[0]} cannot be read" in report.problems[0]
        assert len(report.repaired) == 1
        assert "until a repair takes it out" in report.repaired[0]
        assert svc.stats("mail").totals.ready == 4, "it is counted out"
        assert reserved(svc) == [1, 2, 3, 4]
        again = svc.check(repair=True)
        assert (again.problems, again.repaired) == (report.problems, ())
        with pytest.raises(StoreCorrupt):
            svc.get(jids[0])


@pytest.mark.parametrize("payload", ["late", "held", "done"])
def test_a_damaged_job_that_falls_due_no_longer_stops_the_others(
    path: Path, raw: Raw, payload: str
) -> None:
    jids = {}
    with jobq.open(path) as svc:
        jids["done"] = svc.enqueue("mail")
        svc.reserve("mail")[0].done()
        jids["late"] = svc.enqueue("mail", delay=3600)
        jids["held"] = svc.enqueue("held")
        svc.enqueue("held")
        svc.reserve("held", 2)
        # What is held stays so, as if the process had been killed.
        shutil.copytree(path, path.with_name("copy"), ignore=shutil.ignore_patterns("holders"))
    shutil.rmtree(path)
    path.with_name("copy").rename(path)
    raw.flip("jobs", to_raw(jids[payload]))
    with jobq.open(path) as svc:  # it makes ready what the dead held
        found = svc.check()
        report = svc.check(repair=True)

        advice = "it stands in no queue" if payload == "held" else "until a repair takes it out"
        assert any(advice in problem for problem in found.problems)
        assert len(report.problems) == 1
        assert reserved(svc, "held") == [None] * (1 if payload == "held" else 2)
        assert svc.prune() == 0


@pytest.mark.parametrize("record", ["name", "number"])
def test_a_damaged_record_of_a_topic_is_made_of_its_other_one(
    path: Path, raw: Raw, record: str
) -> None:
    with jobq.open(path) as svc:
        svc.configure("mail", keep_done=5)
        svc.enqueue_many("mail", range(3))
        svc.enqueue("another")
    key = topic_name_key("mail") if record == "name" else topic_number_key(1)
    raw.flip("topics", key)
    with jobq.open(path) as svc:
        found = svc.check()
        report = svc.check(repair=True)

        assert not found.ok
        assert report.ok
        assert svc.topics() == ["another", "mail"]
        assert svc.stats("mail").totals.ready == 3
        assert reserved(svc) == [0, 1, 2]
        assert svc.settings("mail").keep_done == 5


def test_a_topic_of_which_both_records_are_damaged_is_left_out_and_reported(
    path: Path, raw: Raw
) -> None:
    with jobq.open(path) as svc:
        jids = svc.enqueue_many("mail", range(3))
        svc.enqueue("another")
    raw.flip("topics", topic_name_key("mail"))
    raw.flip("topics", topic_number_key(1))
    with jobq.open(path) as svc:
        report = svc.check(repair=True)

        nameless = [problem for problem in report.problems if "which has no name" in problem]
        assert [jid in problem for jid, problem in zip(jids, nameless, strict=True)] == [True] * 3
        assert svc.topics() == ["another"]
        assert reserved(svc, "another") == [None]
        svc.enqueue("mail", "new")
        assert reserved(svc) == ["new"]


def test_damaged_settings_of_a_topic_are_dropped(path: Path, raw: Raw) -> None:
    with jobq.open(path) as svc:
        svc.configure("mail", keep_done=5)
        svc.enqueue_many("mail", range(3))
    raw.flip("topics", topic_settings_key(1))
    with jobq.open(path) as svc:
        assert not svc.check().ok
        assert svc.check(repair=True).ok
        assert svc.settings("mail").keep_done is None
        svc.done_many(svc.reserve("mail", 3))
        assert svc.stats("mail").totals.done == 3


def test_wrong_counts_are_counted_anew(path: Path, raw: Raw) -> None:
    with jobq.open(path) as svc:
        svc.enqueue_many("mail", range(3))
    key = topic_number_key(1)
    wrong = encode_topic(key, Topic("mail", [9, 0, 0, 1, 0]))
    raw.change("topics", lambda txn, db: txn.put(key, wrong, db=db))
    with jobq.open(path) as svc:
        assert svc.check(repair=True).ok
        assert svc.stats("mail").totals.ready == svc.stats("mail").totals.total == 3


def test_places_are_never_given_twice_although_the_counters_had_gone_back(
    path: Path, raw: Raw
) -> None:
    with jobq.open(path) as svc:
        svc.enqueue_many("mail", range(3))
        svc.enqueue("mail", "late", delay=3600)

    def turn_back(txn: lmdb.Transaction, db: lmdb._Database) -> None:
        meta = decode_meta(b"meta", bytes(txn.get(b"meta", db=db) or b""))
        meta.seq = meta.slot = 0
        txn.put(b"meta", encode_meta(b"meta", meta), db=db)

    raw.change("meta", turn_back)
    raw.empty("queue")  # or there would be nothing to repair
    with jobq.open(path) as svc:
        assert svc.check(repair=True).ok
        svc.enqueue("mail", 3)
        svc.enqueue("mail", "late", delay=3600)
        assert reserved(svc) == [0, 1, 2, 3]
        assert svc.check().ok


@pytest.mark.parametrize("what", ["size", "totals", "watched"])
def test_a_count_of_the_store_that_would_be_below_nothing_is_damage_and_is_mended(
    path: Path, raw: Raw, what: str
) -> None:
    with jobq.open(path) as svc:
        svc.enqueue("mail", "in time", ttl=3600)

    def forget(txn: lmdb.Transaction, db: lmdb._Database) -> None:
        meta = decode_meta(b"meta", bytes(txn.get(b"meta", db=db) or b""))
        setattr(meta, what, 0 if what == "size" else [0] * len(getattr(meta, what)))
        txn.put(b"meta", encode_meta(b"meta", meta), db=db)

    raw.change("meta", forget)
    with jobq.open(path) as svc:
        with pytest.raises(jobq.StoreCorrupt, match="would count"):
            svc.reserve("mail", timeout=0)
        assert svc.check(repair=True).ok
        assert reserved(svc) == ["in time"]


def spoil_a_leaf(data: bytearray, leaves: list[int]) -> None:
    """A page that is neither leaf nor branch: LMDB itself refuses to go on there."""
    data[leaves[0] + 10 : leaves[0] + 12] = bytes(2)


def lose_a_record(data: bytearray, leaves: list[int]) -> None:
    """A leaf whose head says that it has one record less: without a state, a job is ready again."""
    at = leaves[1] + 12
    data[at : at + 2] = (int.from_bytes(data[at : at + 2], "little") - 2).to_bytes(2, "little")


def lengthen_a_key(data: bytearray, leaves: list[int]) -> None:
    """A key that goes on far beyond its page, where something else is found at each look."""
    first = leaves[0] + int.from_bytes(data[leaves[0] + 16 : leaves[0] + 18], "little")
    data[first + 6 : first + 8] = (40_000).to_bytes(2, "little")


@pytest.mark.parametrize(
    ("name", "spoil"),
    [
        *((name, swap_leaves) for name in ("queue", "agenda", "jobs", "states", "notes")),
        *((name, spoil_a_leaf) for name in ("queue", "jobs", "states", "notes")),
        *((name, lose_a_record) for name in ("queue", "agenda", "jobs", "states", "notes")),
        *((name, lengthen_a_key) for name in ("queue", "agenda", "jobs", "states", "notes")),
    ],
)
def test_a_damaged_tree_is_reported_and_nothing_is_written(
    path: Path, name: str, spoil: Callable[[bytearray, list[int]], None]
) -> None:
    """Its pages may be anybody's: who gave them away would damage more."""
    with jobq.open(path) as svc:
        svc.enqueue_many("mail", [b"x" * 300] * 1000)
        with svc.batch() as batch:
            for at in range(300):
                batch.enqueue("late", delay=3600 + at)
        svc.done_many(svc.reserve("mail", 300), [b"y" * 100] * 300)
    leave_no_copies_of_pages(path)
    leaves = leaves_of(path, name)
    data = bytearray((path / "data.mdb").read_bytes())
    spoil(data, leaves)
    (path / "data.mdb").write_bytes(data)
    with jobq.open(path) as svc:
        before = (path / "data.mdb").read_bytes()
        found = svc.check()
        report = svc.check(repair=True)

        assert not found.ok
        assert report.problems[:-1] == found.problems
        assert "nothing was repaired" in report.problems[-1]
        assert report.repaired == ()
        assert (path / "data.mdb").read_bytes() == before


def test_a_repair_that_was_led_over_other_pages_says_so(path: Path, raw: Raw) -> None:
    """A damaged list of free pages has one of the jobs: it is met early, late, or by the commit."""
    with jobq.open(path) as svc:
        svc.enqueue_many("mail", [b"x" * 300] * 100)
    leave_no_copies_of_pages(path)
    raw.empty("queue")
    with jobq.open(path) as svc:  # what one commit frees, the next but one may use
        svc.enqueue_many("another", range(100))
        svc.done_many(svc.reserve("another", 100))
        svc.prune()
    leaf = leaves_of(path, "jobs")[1] // PAGE
    data = (path / "data.mdb").read_bytes()
    outcomes = Counter[str]()
    for place in free_places(data):
        damaged = bytearray(data)
        damaged[place : place + 8] = leaf.to_bytes(8, "little")
        (path / "data.mdb").write_bytes(damaged)
        with jobq.open(path, durability="unsafe") as svc:
            report = svc.check(repair=True)
            left = svc.check()
        if report.repaired:
            outcomes["whole" if report.ok else "damage told"] += 1
            assert report.problems == left.problems
        else:
            outcomes["refused"] += 1
            assert "nothing was repaired" in report.problems[-1]
            assert report.problems[:-1] == left.problems

    # Early: nothing is written; late: it is told; or it does not come to that number.
    assert outcomes.keys() == {"refused", "damage told", "whole"}


def free_places(data: bytes) -> list[int]:
    """Where the numbers of free pages stand, oldest first, and then as they are used."""

    def number(at: int, size: int) -> int:
        return int.from_bytes(data[at : at + size], "little")

    newest = max(0, PAGE, key=lambda head: number(head + 144, 8))
    leaf = number(newest + 80, 8) * PAGE
    found = []
    for record in range((number(leaf + 12, 2) - 16) // 2):
        value = leaf + number(leaf + 16 + 2 * record, 2) + 16  # behind head and key of the node
        found += [value + 8 * place for place in range(number(value, 8), 0, -1)]
    return found


def leave_no_copies_of_pages(path: Path) -> None:
    """Of a page that was written again, the one before would be found as well."""
    copy = path.with_name("copy")
    copy.mkdir()
    with lmdb.open(str(path), max_dbs=20, lib_version=0) as env:
        env.copy(str(copy), compact=True)
    (copy / "data.mdb").replace(path / "data.mdb")


def test_others_wait_for_the_end_of_a_repair(path: Path, raw: Raw, start: Start) -> None:
    with jobq.open(path) as svc:
        svc.enqueue_many("mail", range(2000))
    raw.empty("queue")
    child = start(_take_all, str(path))
    assert child.said() == "ready"
    with jobq.open(path) as svc:
        child.tell()
        report = svc.check(repair=True)
        taken = child.said()
        child.join()
        left = svc.reserve("mail", 2000, timeout=0)

        assert report.ok
        assert taken + len(left) == 2000
        assert svc.check().ok


def _take_all(path: str) -> None:
    svc = jobq.open(path)
    processes.say("ready")
    hear()
    taken = 0
    for _ in range(200):
        jobs = svc.reserve("mail", 10, timeout=0)
        svc.done_many(jobs)
        taken += len(jobs)
    processes.say(taken)
    svc.close()


@pytest.mark.parametrize("step", ["operation run", "counts written", "committed"])
def test_a_repair_that_is_killed_can_be_made_again(
    path: Path, raw: Raw, start: Start, step: str
) -> None:
    with jobq.open(path) as svc:
        svc.enqueue_many("mail", range(300))
        before = svc.find(limit=1000)
    raw.empty("queue")
    assert start(_repair_and_die, str(path), step).wait() == -signal.SIGKILL
    with jobq.open(path) as svc:
        report = svc.check(repair=True)

        assert report.ok
        assert bool(report.repaired) == (step != "committed")
        assert svc.find(limit=1000) == before
        assert reserved(svc) == [*range(100)]


def _repair_and_die(path: str, step: str) -> None:
    svc = jobq.open(path)
    wanted = step

    def reached(step: str) -> None:
        if step == wanted:
            os.kill(os.getpid(), signal.SIGKILL)

    steps.reached = reached
    svc.check(repair=True)


# Files damaged in any way.


def _try_mutants(path: str, seed: int, count: int) -> None:
    original = make(Path(path, "original"), random.Random(seed))
    mutant = Path(path, "mutant")

    def repair_and_look() -> str:
        try:
            svc = jobq.open(mutant, durability="unsafe")
        except StoreCorrupt:
            return "refused"
        try:
            found = svc.check(repair=True)
            again = svc.check()
            new = set(again.problems) - set(found.problems)
            assert not new, f"it was not repaired as it was said: {new} beside {found}"
            assert not found.repaired or len(again.problems) == len(found.problems)
            look_into(svc, original)
        except JobqError:
            return "corrupt"
        return "repaired" if found.repaired else "not repaired"

    for _, way in mutants(mutant, original, seed, count):
        processes.say([way, outcome_of(repair_and_look)])
    processes.say(None)


@pytest.mark.parametrize("count", [72, pytest.param(1800, marks=pytest.mark.storm)])
def test_no_damaged_file_is_made_worse_by_a_repair(
    start: Start, tmp_path: Path, seed: int, say: Say, count: int
) -> None:
    child = start(_try_mutants, str(tmp_path), seed, count, deadline_s=60 + count)
    wrong, outcomes = [], []
    while (answer := child.said()) is not None:
        way, outcome = answer
        outcomes.append(outcome)
        # What LMDB finds wrong in the middle of a tree may still end the process.
        died = {"SIGABRT", "SIGBUS", "SIGSEGV"} if way != "cut_short" else set()
        if outcome not in {"repaired", "not repaired", "corrupt", "refused"} | died:
            wrong.append(f"{way}: {outcome}")
    child.join()
    for outcome, times in sorted(Counter(outcomes).items()):
        say(f"{outcome:24} {times:5}")

    assert not wrong, "\n".join(wrong)
    assert outcomes.count("repaired") > count // 50
