"""Restoring and compacting: another data file in a queue's place, in one step, and only alone."""

import os
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lmdb
import pytest

import jobq
from jobq.errors import InvalidValue, StoreCorrupt, StoreFull, StoreLocked, StoreUnavailable
from jobq.repo.base import CopyProgress
from jobq.repo.lmdb import steps
from jobq.repo.lmdb.upkeep import child
from tests.conftest import SOON_S
from tests.repo.lmdb.conftest import Start
from tests.repo.lmdb.processes import Child, hear, outcome_of, put, say, striking_at

OnADisk = Callable[..., None]


def make(path: Path, payload: Any, jobs: int = 50) -> list[str]:
    """A closed queue; gives the ids."""
    with jobq.open(path, durability="unsafe") as svc:
        ids = svc.enqueue_many("mail", [payload] * jobs)
        svc.reserve("mail", timeout=0)[0].done()
    return ids


def back_up(path: Path, target: Path) -> Path:
    with jobq.open(path, durability="unsafe") as svc:
        svc.backup(target)
    return target


def payloads(path: Path) -> set[Any]:
    """What the jobs of a sound queue have as their payloads; it goes on, too."""
    with jobq.open(path, durability="unsafe") as svc:
        found = {record.payload for record in svc.find(limit=10_000)}
        assert svc.check().problems == ()
        jid = svc.enqueue("new")
        svc.reserve("new", timeout=0)[0].done()
        svc.delete([jid])
    return found


def names(directory: Path) -> set[str]:
    return {path.name for path in directory.iterdir()}


# Restoring.


@pytest.mark.parametrize("there", ["nothing", "an empty directory", "what was left of a queue"])
def test_a_queue_is_made_of_a_backup(there: str, tmp_path: Path) -> None:
    ids = make(tmp_path / "old", "old")
    backup = back_up(tmp_path / "old", tmp_path / "backup")
    kept = backup.read_bytes()
    path = tmp_path / "some" / "queue"
    if there != "nothing":
        path.mkdir(parents=True)
    if there == "what was left of a queue":
        for name in ("lock.mdb", "write.lock", "ballast"):
            (path / name).write_text("left")
    told: list[CopyProgress] = []
    done = jobq.restore(backup, path, progress=told.append)

    assert (done.path, done.jobs, done.before) == (str(path), 50, 0)
    assert done.size == backup.stat().st_size
    assert list(dict.fromkeys(step.step for step in told)) == ["copy", "pages"]
    assert (path / "data.mdb").stat().st_mode & 0o777 == 0o600
    assert backup.read_bytes() == kept
    with jobq.open(path) as svc:
        assert [record.id for record in svc.find()] == ids
    assert payloads(path) == {"old"}


def test_what_was_reserved_is_ready_again(tmp_path: Path) -> None:
    with jobq.open(tmp_path / "old", durability="unsafe") as svc:
        svc.enqueue("mail")
        [held] = svc.reserve("mail", timeout=0)
        svc.backup(tmp_path / "backup")
        held.done()
    jobq.restore(tmp_path / "backup", tmp_path / "queue")

    with jobq.open(tmp_path / "queue", durability="unsafe") as svc:
        [again] = svc.reserve("mail", timeout=5)
        assert (again.id, again.attempt) == (held.id, 2)


def test_a_queue_is_replaced_only_if_that_is_said(tmp_path: Path) -> None:
    make(tmp_path / "old", "old")
    backup = back_up(tmp_path / "old", tmp_path / "backup")
    make(tmp_path / "queue", "new", 500)

    with pytest.raises(InvalidValue, match="there is a queue"):
        jobq.restore(backup, tmp_path / "queue")
    assert payloads(tmp_path / "queue") == {"new"}
    done = jobq.restore(backup, tmp_path / "queue", replace=True)
    assert (done.jobs, done.before > done.size) == (50, True)
    assert payloads(tmp_path / "queue") == {"old"}


def test_a_damaged_queue_is_replaced(tmp_path: Path) -> None:
    make(tmp_path / "queue", "old")
    backup = back_up(tmp_path / "queue", tmp_path / "backup")
    (tmp_path / "queue" / "data.mdb").write_bytes(b"scribbled" * 100)

    jobq.restore(backup, tmp_path / "queue", replace=True)
    assert payloads(tmp_path / "queue") == {"old"}


def test_what_is_no_sound_backup_is_refused_and_nothing_changes(tmp_path: Path) -> None:
    make(tmp_path / "queue", "new")
    data = (tmp_path / "queue" / "data.mdb").read_bytes()
    backup = back_up(tmp_path / "queue", tmp_path / "backup").read_bytes()
    bad: dict[str, bytes] = {
        "empty": b"",
        "text": b"no backup" * 1000,
        "short": backup[:-5000],
        "odd": backup.replace(b"new", b"odd"),
    }
    for name, content in bad.items():
        (tmp_path / name).write_bytes(content)
        for path in (tmp_path / "queue", tmp_path / "none"):
            with pytest.raises(StoreCorrupt, match=str(tmp_path / name)):
                jobq.restore(tmp_path / name, path, replace=True)
    (tmp_path / "directory").mkdir()
    with pytest.raises(InvalidValue, match="is no file"):
        jobq.restore(tmp_path / "directory", tmp_path / "queue", replace=True)
    with pytest.raises(InvalidValue, match="there is no backup"):
        jobq.restore(tmp_path / "nowhere", tmp_path / "queue", replace=True)
    with pytest.raises(InvalidValue, match="is a file"):
        jobq.restore(tmp_path / "backup", tmp_path / "text")

    assert (tmp_path / "queue" / "data.mdb").read_bytes() == data
    assert names(tmp_path / "none") == set()


def test_arguments_are_checked(tmp_path: Path) -> None:
    wrong: list[Any] = [None, 7, "", "a\0b", ":memory:", "postgres://there"]
    for path in wrong:
        for call in (jobq.compact, jobq.doctor, lambda path: jobq.restore("b", path)):
            with pytest.raises(InvalidValue, match="path is"):
                call(path)
    with pytest.raises(InvalidValue, match="replace is"):
        jobq.restore("b", tmp_path, replace="yes")  # type: ignore[arg-type]
    with pytest.raises(InvalidValue, match="deep is"):
        jobq.doctor(tmp_path, deep=1)  # type: ignore[arg-type]
    with pytest.raises(InvalidValue, match="progress is"):
        jobq.compact(tmp_path, "loud")  # type: ignore[arg-type]


# Compacting.


def test_compacting_gives_free_pages_back(tmp_path: Path) -> None:
    ids = make(tmp_path / "queue", "old")
    with jobq.open(tmp_path / "queue", durability="unsafe") as svc:
        svc.enqueue_many("gone", [bytes(5000)] * 1000)
        svc.purge("gone")
    before = (tmp_path / "queue" / "data.mdb").stat().st_size
    done = jobq.compact(tmp_path / "queue")

    assert (done.jobs, done.before) == (50, before)
    assert done.size == (tmp_path / "queue" / "data.mdb").stat().st_size < before / 10
    with jobq.open(tmp_path / "queue") as svc:
        assert [record.id for record in svc.find()] == ids
    assert payloads(tmp_path / "queue") == {"old"}


def test_order_and_states_stand_when_a_queue_is_compacted(tmp_path: Path) -> None:
    with jobq.open(tmp_path / "queue", durability="unsafe") as svc:
        for number in range(30):
            svc.enqueue("mail", number, weight=-number % 3)
        held = svc.reserve("mail", 3, timeout=0)
        held[0].retry(3600)
        held[1].done()
        held[2].release()
        lines = list(svc.export_jobs())
    jobq.compact(tmp_path / "queue")

    with jobq.open(tmp_path / "queue", durability="unsafe") as svc:
        after = list(svc.export_jobs())
        assert after[1:] == lines[1:]
        served = [job.payload for job in svc.reserve("mail", 40, timeout=0)]
        assert served == sorted(served, key=lambda number: (-number % 3, number))


def test_there_is_nothing_to_compact_without_a_queue(tmp_path: Path) -> None:
    with pytest.raises(InvalidValue, match="holds no queue"):
        jobq.compact(tmp_path / "nowhere")
    with pytest.raises(InvalidValue, match="holds no queue"):
        jobq.compact(tmp_path)


def test_a_damaged_queue_is_not_compacted(tmp_path: Path) -> None:
    make(tmp_path / "queue", "find this one", jobs=1)
    data = (tmp_path / "queue" / "data.mdb").read_bytes()
    damaged = data.replace(b"find this", b"find that")
    (tmp_path / "queue" / "data.mdb").write_bytes(damaged)

    with pytest.raises(StoreCorrupt, match="damaged"):
        jobq.compact(tmp_path / "queue")
    assert (tmp_path / "queue" / "data.mdb").read_bytes() == damaged


# Only alone.


def _have_open(path: str, topics: str) -> None:
    with jobq.open(path, topics=topics, durability="unsafe") as svc:
        say(os.getpid())
        while hear() == "work":
            say(svc.enqueue("mail", "from there"))


@pytest.mark.parametrize("topics", ["lmdb", "memory"])
def test_nobody_may_have_the_queue_open_and_who_has_is_named(
    start: Start, tmp_path: Path, topics: str
) -> None:
    make(tmp_path / "queue", "old")
    backup = back_up(tmp_path / "queue", tmp_path / "backup")
    others = [start(_have_open, str(tmp_path / "queue"), topics)]
    if topics == "lmdb":
        others.append(start(_have_open, str(tmp_path / "queue"), topics))
    pids = [other.said() for other in others]

    calls: list[Callable[[], object]] = [
        lambda: jobq.compact(tmp_path / "queue"),
        lambda: jobq.restore(backup, tmp_path / "queue", replace=True),
    ]
    for call in calls:
        with pytest.raises(StoreLocked) as refused:
            call()
        for pid in pids:
            assert f"process {pid} (" in str(refused.value)
    for other in others:
        other.tell("work")
        assert other.said(), "it goes on"
        other.tell("stop")
        other.join()
    jobq.compact(tmp_path / "queue")
    assert payloads(tmp_path / "queue") == {"old", "from there"}


def test_this_process_may_not_have_it_open_either(tmp_path: Path) -> None:
    with jobq.open(tmp_path / "queue", durability="unsafe") as svc:
        with pytest.raises(StoreLocked, match="this process"):
            jobq.compact(tmp_path / "queue")
        svc.enqueue("mail")


def _open_meanwhile(path: str) -> None:
    """Try to open the queue until it works; say what happened until then."""
    met: list[str] = []
    say("ready")
    while True:
        try:
            with jobq.open(path, durability="unsafe") as svc:
                say([met, svc.stats().totals.ready])
                return
        except (StoreLocked, StoreUnavailable) as error:
            met.append(type(error).__name__)


def test_who_opens_the_queue_meanwhile_waits_or_is_refused_and_gets_the_new_file(
    start: Start, tmp_path: Path
) -> None:
    make(tmp_path / "queue", "old")
    others: list[Child] = []

    def let_others_come(step: CopyProgress) -> None:
        if step.step == "pages":
            others.extend(start(_open_meanwhile, str(tmp_path / "queue")) for _ in range(3))
            for other in others:
                assert other.said() == "ready"

    jobq.compact(tmp_path / "queue", let_others_come)
    for other in others:
        met, ready = other.said()
        assert set(met) <= {"StoreLocked", "StoreUnavailable"}
        assert ready == 49
        other.join()
    assert len(others) == 3


def _open_once(path: str) -> None:
    """Try to open the queue, and to compact it; say what came of either."""
    for attempt in (jobq.open, jobq.compact):
        since = time.monotonic()
        try:
            attempt(path)
        except StoreLocked as error:
            say([str(error), time.monotonic() - since])


def test_nobody_waits_for_the_end_of_a_long_compaction(start: Start, tmp_path: Path) -> None:
    make(tmp_path / "queue", "old")
    said: list[tuple[str, float]] = []

    def let_another_come(step: CopyProgress) -> None:
        if step.step == "pages" and not said:
            other = start(_open_once, str(tmp_path / "queue"))
            said.extend(tuple(other.said()) for _ in range(2))
            other.join()

    jobq.compact(tmp_path / "queue", let_another_come)

    for error, waited in said:
        assert f"compacted or restored by process {os.getpid()} " in error
        assert 0.9 < waited < SOON_S
    assert len(said) == 2


def test_who_still_has_the_old_files_learns_it_at_the_next_write(tmp_path: Path) -> None:
    """Nobody can, unless somebody replaces the files by hand; then no acknowledged call is lost."""
    make(tmp_path / "queue", "old")
    backup = back_up(tmp_path / "queue", tmp_path / "backup")
    with jobq.open(tmp_path / "queue", durability="unsafe") as svc:
        backup.rename(tmp_path / "queue" / "data.mdb")
        with pytest.raises(StoreUnavailable, match="removed or replaced"):
            svc.enqueue("mail")
    assert payloads(tmp_path / "queue") == {"old"}


def _read_without_a_word(path: str) -> None:
    """Have the file mapped as LMDB's own tools do, or a helper whose parent was just killed."""
    with lmdb.open(path, readonly=True, max_dbs=20, lib_version=0) as env, env.begin():
        say("reading")
        hear()


@pytest.mark.parametrize("commits", [0, 1])
def test_the_new_file_is_not_read_by_the_count_of_transactions_of_the_old_one(
    start: Start, tmp_path: Path, commits: int
) -> None:
    """LMDB's lock file keeps that count while anybody has it open, and chooses the head by it."""
    path = tmp_path / "queue"
    make(path, "old")
    with jobq.open(path, durability="unsafe") as svc:
        for _ in range(40 + commits):
            svc.enqueue("mail", "old")
    reader = start(_read_without_a_word, str(path))
    assert reader.said() == "reading"
    assert jobq.compact(path).jobs == 90 + commits

    with jobq.open(path, durability="unsafe") as svc:
        svc.enqueue("mail", "new")
        assert svc.stats().totals.ready == 90 + commits
    assert payloads(path) == {"old", "new"}
    reader.tell("stop")
    reader.join()


# Whoever is killed.


def _die_at_each_step(path: str, what: str) -> None:
    """Compact or restore, all of it in one process, and die at each step; say what is left."""
    queue, backup, original = Path(path, "queue"), Path(path, "backup"), Path(path, "original")
    put(child, "run", lambda task, request, tell=None: task(request, tell or (lambda _: None)))
    number = 0
    while True:
        number += 1
        subprocess.run(["rm", "-rf", str(queue)], check=True)
        if what != "restore to nothing":
            subprocess.run(["cp", "-r", str(original), str(queue)], check=True)

        def act() -> int:
            if what == "compact":
                return jobq.compact(queue).jobs
            return jobq.restore(backup, queue, replace=True).jobs

        def struck(number: int = number) -> int:
            put(steps, "reached", striking_at(number, Path(path, "last")))
            return act()

        outcome = outcome_of(struck)
        there = (queue / "data.mdb").exists()
        left = outcome_of(lambda: sorted(payloads(queue))) if there else "nothing"
        leavings = [name for name in names(queue) if name.startswith(".new")] if there else []
        say([outcome, Path(path, "last").read_text(), left, leavings])
        if outcome != "SIGKILL":
            return


@pytest.mark.parametrize("what", ["compact", "restore", "restore to nothing"])
def test_killed_at_any_step_there_is_the_old_queue_or_the_new_one(
    start: Start, tmp_path: Path, what: str
) -> None:
    make(tmp_path / "other", "from the backup")
    back_up(tmp_path / "other", tmp_path / "backup")
    make(tmp_path / "original", "old")
    striker = start(_die_at_each_step, str(tmp_path), what)
    before = "nothing" if what == "restore to nothing" else "['old']"
    after = "['old']" if what == "compact" else "['from the backup']"
    seen = []
    while True:
        outcome, step, left, leavings = striker.said()
        assert leavings == [], f"the next who opens it clears away, killed at {step}"
        seen.append((step, left))
        if outcome != "SIGKILL":
            break

    assert outcome == "50"
    last_before = "data file synced" if what == "restore to nothing" else "lock file removed"
    turn = [step for step, _ in seen].index(last_before) + 1
    assert {left for _, left in seen[:turn]} == {before}, seen
    assert {left for _, left in seen[turn:]} == {after}, seen


# Room.


def _on_a_full_disk(disk: str) -> None:
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "none", disk], check=True)
    queue = Path(disk, "queue")
    with jobq.open(queue, durability="unsafe") as svc:
        svc.enqueue_many("mail", [bytes(5000)] * 500)  # 4 of 8 MiB
        jobs = svc.stats().totals.ready
    with pytest.raises(StoreFull):
        jobq.compact(queue)
    with jobq.open(queue, durability="unsafe") as svc:
        assert svc.stats().totals.ready == jobs
        svc.select(topic="mail").delete()
    assert not [name for name in names(queue) if name.startswith(".new")]
    assert jobq.compact(queue).size < 100_000


def test_without_room_for_the_copy_a_queue_stays_as_it_is(on_a_disk: OnADisk) -> None:
    on_a_disk(_on_a_full_disk)


def _restore_to_a_full_disk(disk: str, backup: str) -> None:
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "none", disk], check=True)
    for path in (Path(disk, "queue"), Path(disk, "old")):
        if path.name == "old":
            jobq.open(path, durability="unsafe").close()
        with pytest.raises(StoreFull):
            jobq.restore(Path(backup), path, replace=True)
        assert not [name for name in names(path) if name.startswith(".new") or name == "queue"]
    assert not Path(disk, "queue", "data.mdb").exists()
    assert payloads(Path(disk, "old")) == set()


def test_without_room_for_what_is_restored_nothing_changes(
    on_a_disk: OnADisk, tmp_path: Path
) -> None:
    make(tmp_path / "large", bytes(5000), 1000)
    backup = back_up(tmp_path / "large", tmp_path / "backup")
    on_a_disk(_restore_to_a_full_disk, str(backup))


def test_who_owned_the_file_owns_the_new_one(tmp_path: Path) -> None:
    if os.getuid() != 0:
        pytest.skip("only root can give files away")
    make(tmp_path / "queue", "old")
    os.chown(tmp_path / "queue" / "data.mdb", 1234, 2345)
    (tmp_path / "queue" / "data.mdb").chmod(0o640)
    jobq.compact(tmp_path / "queue")

    now = (tmp_path / "queue" / "data.mdb").stat()
    assert (now.st_uid, now.st_gid, now.st_mode & 0o777) == (1234, 2345, 0o640)
