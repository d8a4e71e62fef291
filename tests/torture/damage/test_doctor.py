"""The doctor: knows what is wrong, whatever it is, changes nothing, and does not die of it."""

import contextlib
import os
import random
from collections import Counter
from pathlib import Path

import pytest

import jobq
from jobq import Diagnosis, JobqError
from jobq.errors import InvalidValue, StoreCorrupt
from tests.crash.conftest import Say
from tests.repo.lmdb import processes
from tests.repo.lmdb.conftest import Start
from tests.repo.lmdb.processes import hear, outcome_of
from tests.repo.lmdb.raw import PAGE
from tests.torture.damage.damaging import look_through, make, mutants
from tests.torture.damage.test_salvage import (
    TXN_AT,
    make_queue,
    make_two_commits,
    roots,
    set_field,
    zero,
)

DEEP = ["head", "opening", "pages", "records", "indexes"]


def advice(found: Diagnosis) -> str:
    return "\n".join(found.advice)


@pytest.mark.parametrize("topics", ["lmdb", "memory"])
def test_with_a_sound_queue_all_is_well(tmp_path: Path, topics: str) -> None:
    path = tmp_path / "queue"
    with jobq.open(path, topics=topics, durability="unsafe") as svc:
        svc.enqueue_many("mail", range(100))
        while_open = jobq.doctor(path, deep=True)
    closed = jobq.doctor(path, deep=True)

    for found in (while_open, closed):
        assert found.ok
        assert found.problems == ()
        assert found.saved is None
        assert found.steps == dict.fromkeys(DEEP, True)
        assert (found.facts["jobs"], found.facts["topics"]) == (100, topics)
        assert found.facts["used_bytes"] < found.facts["file_bytes"]
    assert list(jobq.doctor(path).steps) == ["head", "opening"]
    assert "--deep" in advice(jobq.doctor(path))


def test_it_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "queue"
    make_queue(path)
    before = (path / "data.mdb").read_bytes(), sorted(at.name for at in path.iterdir())
    jobq.doctor(path, deep=True)

    assert ((path / "data.mdb").read_bytes(), sorted(at.name for at in path.iterdir())) == before


def test_without_a_queue_there_is_nothing_to_look_at(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(InvalidValue, match="holds no queue"):
            jobq.doctor(path)


def _write(path: str) -> None:
    with jobq.open(path, durability="unsafe") as svc:
        processes.say(os.getpid())
        number = 0
        while number <= 10 or not (Path(path).parent / "stop").exists():
            svc.enqueue_many("mail", [bytes(300)] * 20)
            for job in svc.reserve("mail", 20, timeout=0):
                job.done()
            number += 1
            if number % 10 == 0:
                svc.purge("mail", "done")
        processes.say(number)
        hear()


def _have_open(path: str) -> None:
    with jobq.open(path, durability="unsafe"):
        processes.say("open")
        hear()


def test_it_takes_no_writer_for_damage(start: Start, tmp_path: Path) -> None:
    path = tmp_path / "queue"
    make_queue(path)
    writer = start(_write, str(path))
    pid = writer.said()
    found = [jobq.doctor(path, deep=True) for _ in range(2)]
    (tmp_path / "stop").touch()

    assert [one.problems for one in found] == [()] * 2
    assert all(f"process {pid} (" in one.facts["open_in"][0] for one in found)
    assert writer.said() > 10


# Damage.


@pytest.mark.parametrize(
    ("name", "steps"),
    [
        ("jobs", {"pages", "records"}),
        ("states", {"pages", "records"}),
        ("queue", {"pages", "records"}),
        ("meta", {"opening", "pages", "records"}),
    ],
)
def test_a_damaged_page_is_found_and_what_can_be_saved_is_said(
    name: str, steps: set[str], tmp_path: Path
) -> None:
    path = tmp_path / "queue"
    make_queue(path)
    zero(path, roots(path)[name])
    found = jobq.doctor(path, deep=True)

    assert not found.ok
    assert {step for step, well in found.steps.items() if not well} >= steps
    assert found.saved is not None
    assert found.saved.jobs == 220
    assert "jobq export --salvage" in advice(found)
    assert "jobq restore" in advice(found)


def test_a_damaged_record_is_found(tmp_path: Path) -> None:
    path = tmp_path / "queue"
    with jobq.open(path, durability="unsafe") as svc:
        svc.enqueue_many("mail", ["first", "find this one"])
    data = (path / "data.mdb").read_bytes()
    (path / "data.mdb").write_bytes(data.replace(b"find this", b"find that"))
    found = jobq.doctor(path, deep=True)

    assert found.steps == {**dict.fromkeys(DEEP[:3], True), "records": False}
    assert "the body of a job" in found.problems[0]
    assert found.saved is not None
    assert (found.saved.jobs, found.saved.lost) == (1, 1)
    assert jobq.doctor(path).ok, "which only a look at all records can know"


def test_a_wrong_index_is_for_a_repair(tmp_path: Path) -> None:
    path = tmp_path / "queue"
    make_queue(path)
    import lmdb

    with lmdb.open(str(path), max_dbs=20, lib_version=0) as env:
        db = env.open_db(b"queue", create=False)
        with env.begin(write=True) as txn, txn.cursor(db) as cursor:
            assert cursor.first()
            cursor.delete()
    found = jobq.doctor(path, deep=True)

    assert found.steps == {**dict.fromkeys(DEEP, True), "indexes": False}
    assert found.saved is None
    assert advice(found).count("jobq check --repair") == 1
    with jobq.open(path) as svc:
        assert svc.check(repair=True).ok
    assert jobq.doctor(path, deep=True).ok


def test_a_file_that_was_cut_short_is_known(tmp_path: Path) -> None:
    path = tmp_path / "queue"
    make_queue(path)
    data = (path / "data.mdb").read_bytes()
    (path / "data.mdb").write_bytes(data[: len(data) // 2])
    found = jobq.doctor(path)

    assert not found.ok
    assert any("SIGBUS" in problem for problem in found.problems)
    assert any("cut short" in note for note in found.notes)


@pytest.mark.parametrize("content", [b"", b"garbage" * 10_000, bytes(40_000)])
def test_a_file_that_is_no_queue_is_known(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "data.mdb").write_bytes(content)
    found = jobq.doctor(tmp_path, deep=True)

    assert not found.ok
    assert not found.steps["head"]
    assert found.saved is None


def test_a_destroyed_head_is_known(tmp_path: Path) -> None:
    path = tmp_path / "queue"
    make_queue(path)
    zero(path, 0)
    found = jobq.doctor(path)

    assert "head 0 of 2 is destroyed" in found.problems
    assert found.saved is not None
    assert found.saved.jobs == 220


@pytest.mark.parametrize("change", [-8, 1, 2, 4096])
def test_heads_that_contradict_one_another_are_known(tmp_path: Path, change: int) -> None:
    path = tmp_path / "queue"
    older = make_two_commits(path) ^ 1
    set_field(path, older, TXN_AT, lambda txn: txn + change)
    found = jobq.doctor(path, deep=True)

    # With the number of the next transaction, only what stands there says which came later.
    assert not found.steps["pages" if change == 2 else "head"]
    assert found.saved is not None
    assert (found.saved.jobs, found.saved.lost, found.saved.unsure) == (2, None, 2)
    with contextlib.suppress(StoreCorrupt), jobq.open(path) as svc:
        assert change == 2, "which nobody can know beforehand"
        assert svc.stats().totals.done == 0


def _try_mutants(path: str, seed: int, count: int) -> None:
    """Damage a queue, ask the doctor, and say whether it knew what others meet."""
    original = make(Path(path, "original"), random.Random(seed))
    mutant = Path(path, "mutant")
    for number, way in mutants(mutant, original, seed, count):
        knew = not jobq.doctor(mutant, deep=True).ok
        processes.say([way, number, knew, outcome_of(lambda: look_through(mutant, original))])
    processes.say(None)


def count_known(
    start: Start, path: Path, count: int, seed: int, tell: Say
) -> Counter[tuple[str, str]]:
    """What was known of so many damaged files, by how they were damaged."""
    child = start(_try_mutants, str(path), seed, count, deadline_s=60 + 3 * count)
    known: Counter[tuple[str, str]] = Counter()
    while (answer := child.said()) is not None:
        way, number, knew, met = answer
        assert knew or met == "ok", f"number {number}, {way}: {met}"
        known[way, "known" if knew else "sound"] += 1
    child.join()
    for (way, what), times in sorted(known.items()):
        tell(f"{way:24} {what:6} {times:5}")
    return known


def test_what_anybody_meets_in_a_damaged_file_the_doctor_knows(
    start: Start, tmp_path: Path, seed: int, say: Say
) -> None:
    assert count_known(start, tmp_path, 9, seed, say).total() == 9


@pytest.mark.storm
def test_what_anybody_meets_in_a_damaged_file_the_doctor_knows_of_many(
    start: Start, tmp_path: Path, seed: int, say: Say
) -> None:
    known = count_known(start, tmp_path, 180, seed, say)
    assert sum(times for (_, what), times in known.items() if what == "known") > 100


# Around the file.


def test_what_stands_beside_the_file_is_noted(tmp_path: Path) -> None:
    path = tmp_path / "queue"
    make_queue(path)
    (path / "data.mdb").chmod(0o644)
    (path / "ballast").write_bytes(b"")
    found = jobq.doctor(path)

    assert found.ok
    notes = "\n".join(found.notes)
    for word in ("others than its owner", "ballast"):
        assert word in notes


def test_a_lock_file_that_was_removed_is_a_problem_only_while_somebody_has_the_queue_open(
    start: Start, tmp_path: Path
) -> None:
    path = tmp_path / "queue"
    make_queue(path)
    (path / "lock.mdb").unlink()
    assert jobq.doctor(path, deep=True).ok
    assert not (path / "lock.mdb").exists()

    child = start(_have_open, str(path))
    assert child.said() == "open"
    (path / "lock.mdb").unlink()
    assert any("lock.mdb was removed" in problem for problem in jobq.doctor(path).problems)


def test_hard_links_are_a_problem(tmp_path: Path) -> None:
    path = tmp_path / "queue"
    make_queue(path)
    os.link(path / "data.mdb", tmp_path / "other-name")

    assert any("hard links" in problem for problem in jobq.doctor(path).problems)


def test_a_file_that_is_mostly_free_may_be_compacted(tmp_path: Path) -> None:
    path = tmp_path / "queue"
    with jobq.open(path, durability="unsafe") as svc:
        for _ in range(5):
            svc.enqueue_many("mail", [bytes(50_000)] * 100)
        svc.purge("mail")
    found = jobq.doctor(path)

    assert found.ok
    assert "jobq compact" in advice(found)


def test_nothing_that_it_does_is_in_the_way_of_others(tmp_path: Path) -> None:
    path = tmp_path / "queue"
    make_queue(path)
    data = (path / "data.mdb").read_bytes()
    (path / "data.mdb").write_bytes(data[: 20 * PAGE])
    jobq.doctor(path, deep=True)
    (path / "data.mdb").write_bytes(data)

    with contextlib.closing(jobq.open(path)) as svc:
        assert svc.check().ok


def test_damage_is_raised_by_nothing_but_verbs_that_need_what_is_damaged(tmp_path: Path) -> None:
    path = tmp_path / "queue"
    make_queue(path)
    zero(path, roots(path)["jobs"])

    with pytest.raises((StoreCorrupt, JobqError)):
        jobq.compact(path)
    assert not jobq.doctor(path, deep=True).ok
