"""Backups: one state of the queue, whole or not there, whoever writes and whoever is killed."""

import errno
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

import jobq
from jobq.errors import InvalidValue, StoreCorrupt, StoreFull, StoreUnavailable
from jobq.repo.base import CopyProgress
from jobq.repo.lmdb import steps
from jobq.repo.lmdb.upkeep import child, copying
from jobq.repo.lmdb.upkeep.copying import NewFile
from tests.conftest import SOON_S, eventually
from tests.crash.processes import state_of
from tests.repo.lmdb.conftest import Start
from tests.repo.lmdb.processes import hear, outcome_of, put, say, striking_at

OnADisk = Callable[..., None]


def restored(backup: Path, path: Path) -> jobq.JobService:
    """A service over a queue made of a backup."""
    jobq.restore(backup, path)
    return jobq.open(path, durability="unsafe")


def fill(path: Path, jobs: int = 40) -> set[str]:
    """A queue with jobs in every state, closed; gives the ids."""
    with jobq.open(path, durability="unsafe") as svc:
        ids = svc.enqueue_many("mail", [os.urandom(300) for _ in range(jobs)])
        ids += svc.enqueue_many("later", range(5), delay=3600)
        done, canceled, *_ = svc.reserve("mail", 5, timeout=0)
        done.log("a line")
        done.done({"result": 1})
        canceled.cancel("rejected", "no")
    return set(ids)


def _names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


def states(svc: jobq.JobService) -> list[tuple[Any, ...]]:
    """Every job with all that matters of it."""
    return [
        (one.id, one.topic, one.status, one.payload, one.result, one.error, one.attempt)
        for one in svc.find(limit=10_000)
    ]


# What a backup is.


def test_a_backup_has_every_job_as_it_was(tmp_path: Path) -> None:
    fill(tmp_path / "queue")
    with jobq.open(tmp_path / "queue") as svc:
        done = svc.backup(tmp_path / "backup")
        before = states(svc)
        svc.enqueue("mail", "comes too late")

    assert (done.path, done.jobs) == (str(tmp_path / "backup"), 45)
    assert done.size == (tmp_path / "backup").stat().st_size <= done.before
    assert (tmp_path / "backup").stat().st_mode & 0o777 == 0o600
    with restored(tmp_path / "backup", tmp_path / "restored") as svc:
        assert states(svc) == before
        assert svc.check().ok


def test_a_backup_leaves_what_is_free_out(tmp_path: Path) -> None:
    with jobq.open(tmp_path / "queue", durability="unsafe") as svc:
        svc.enqueue_many("mail", [bytes(5000)] * 500)
        svc.purge("mail")
        done = svc.backup(tmp_path / "backup")

    assert done.before > 2_000_000
    assert done.size < 50_000


def test_progress_is_told_of_every_step(tmp_path: Path) -> None:
    told: list[CopyProgress] = []
    with jobq.open(tmp_path / "queue", durability="unsafe") as svc:
        svc.enqueue_many("mail", [bytes(100)] * 20_000)
        done = svc.backup(tmp_path / "backup", told.append)

    assert list(dict.fromkeys(step.step for step in told)) == ["copy", "pages", "records"]
    assert {step.total for step in told if step.step == "copy"} == {done.size}
    assert [step.done for step in told if step.step == "records"][:2] == [10_000, 20_000]
    assert all(step.done <= step.total for step in told)


def test_what_is_there_already_stays_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "backup").write_text("mine")
    (tmp_path / "link").symlink_to("nowhere")
    with jobq.open(tmp_path / "queue", durability="unsafe") as svc:
        for name in ("backup", "link", "queue"):
            with pytest.raises(InvalidValue, match=f"{name} is there already"):
                svc.backup(tmp_path / name)
        with pytest.raises(InvalidValue, match="no directory"):
            svc.backup(tmp_path / "nowhere" / "backup")

    assert (tmp_path / "backup").read_text() == "mine"


def test_who_takes_the_name_while_a_backup_is_made_keeps_it(tmp_path: Path) -> None:
    new = NewFile(tmp_path / "backup")
    try:
        (tmp_path / "backup").write_text("mine")
        with pytest.raises(InvalidValue, match="is there already"):
            new.appear()
    finally:
        new.close()

    assert (tmp_path / "backup").read_text() == "mine"
    assert _names(tmp_path) == ["backup"]


def test_volatile_jobs_cannot_be_backed_up(tmp_path: Path) -> None:
    with jobq.open(":memory:") as svc, pytest.raises(InvalidValue, match=r"export_jobs\(\)"):
        svc.backup(tmp_path / "backup")


def test_a_queue_with_its_topics_in_memory_is_backed_up_by_its_process(tmp_path: Path) -> None:
    with jobq.open(tmp_path / "queue", topics="memory", durability="unsafe") as svc:
        ids = svc.enqueue_many("mail", range(10))
        svc.backup(tmp_path / "backup")

    with restored(tmp_path / "backup", tmp_path / "restored") as svc:
        assert [job.id for job in svc.reserve("mail", 20, timeout=0)] == ids
        assert svc.check().ok


def test_arguments_are_checked(tmp_path: Path) -> None:
    wrong: list[Any] = [None, 7, "", "a\0b", b"bytes"]
    with jobq.open(tmp_path / "queue", durability="unsafe") as svc:
        for path in wrong:
            with pytest.raises(InvalidValue, match="expected a path"):
                svc.backup(path)
        with pytest.raises(InvalidValue, match="expected a function"):
            svc.backup(tmp_path / "backup", "loud")  # type: ignore[arg-type]
        svc.close()
        with pytest.raises(StoreUnavailable, match="closed"):
            svc.backup(tmp_path / "backup")


# While others work.


def _write(path: str) -> None:
    """Enqueue pairs, one commit each, and say how many there are, until the test hears of it."""
    with jobq.open(path, durability="unsafe") as svc:
        pairs = 0
        say("at work")
        stop = threading.Event()

        def listen() -> None:
            hear()
            stop.set()

        threading.Thread(target=listen, daemon=True).start()
        while not stop.is_set():
            with svc.batch() as batch:
                batch.enqueue("left", pairs)
                batch.enqueue("right", pairs)
            pairs += 1
            for job in svc.reserve("work", 3, timeout=0):
                job.done()
            svc.enqueue_many("work", range(3))
        say(pairs)


def test_a_backup_is_one_moment_of_a_queue_that_others_write_to(
    start: Start, tmp_path: Path
) -> None:
    path = tmp_path / "queue"
    fill(path, 2000)
    writers = [start(_write, str(path)) for _ in range(2)]
    assert [writer.said() for writer in writers] == ["at work"] * 2
    with jobq.open(path, durability="unsafe") as svc:
        known = {record.id for record in svc.find(limit=10_000)}
        backups = [tmp_path / f"backup-{number}" for number in range(3)]
        sizes = [svc.backup(backup).jobs for backup in backups]
        for writer in writers:
            writer.tell()
        pairs = sum(writer.said() for writer in writers)
        for writer in writers:
            writer.join()
        later = svc.stats("left").totals.ready

    assert later == pairs
    assert sizes == sorted(sizes)
    for backup in backups:
        with restored(backup, tmp_path / f"restored-{backup.name}") as svc:
            assert svc.check().ok
            stats = {topic.name: topic for topic in svc.stats().topics}
            assert stats["left"].ready == stats["right"].ready > 0
            assert known <= {record.id for record in svc.find(limit=10_000)}


@pytest.mark.storm
def test_a_backup_is_one_moment_of_a_queue_whose_writers_are_killed(
    start: Start, tmp_path: Path
) -> None:
    path = tmp_path / "queue"
    fill(path, 500)
    dice = random.Random(seed := random.getrandbits(32))
    writers = [start(_write, str(path)) for _ in range(3)]
    killed = backups = least = 0
    end = time.monotonic() + 60
    while time.monotonic() < end:
        strike = threading.Timer(dice.uniform(0, 1), writers[killed % 3].kill)
        strike.start()
        with jobq.open(path, durability="unsafe") as svc:
            pairs = svc.stats("left").totals.ready
            svc.backup(tmp_path / "backup")
        strike.join()
        writers[killed % 3] = start(_write, str(path))
        killed, backups = killed + 1, backups + 1

        with restored(tmp_path / "backup", tmp_path / "restored") as svc:
            assert svc.check().problems == (), f"seed {seed}"
            stats = {topic.name: topic for topic in svc.stats().topics}
            assert stats["left"].ready == stats["right"].ready >= pairs >= least, f"seed {seed}"
            least = stats["left"].ready
        (tmp_path / "backup").unlink()
        shutil.rmtree(tmp_path / "restored")
    for writer in writers:
        writer.kill()
    print(f"{backups} backups, {killed} writers killed, {least} pairs")
    with jobq.open(path, durability="unsafe") as svc:
        assert svc.check().problems == ()


def test_a_backup_holds_no_pages_back_once_it_is_over(tmp_path: Path) -> None:
    with jobq.open(tmp_path / "queue", durability="unsafe") as svc:
        svc.enqueue_many("mail", range(100))
        svc.backup(tmp_path / "backup")
        size = 0
        for _ in range(3):
            size = (tmp_path / "queue" / "data.mdb").stat().st_size
            for _ in range(300):
                svc.enqueue("mail", bytes(100))
                for job in svc.reserve("mail", 1, timeout=0):
                    job.done()
            svc.purge("mail", "done")
        grown = (tmp_path / "queue" / "data.mdb").stat().st_size - size

    assert grown < 300 * 4096  # one page that is held back a commit would be three times that


def test_other_threads_go_on_while_a_backup_is_made(tmp_path: Path) -> None:
    seen: list[int] = []
    with jobq.open(tmp_path / "queue", durability="unsafe") as svc:
        svc.enqueue_many("mail", [bytes(100)] * 1000)

        def work(step: CopyProgress) -> None:
            thread = threading.Thread(
                target=lambda: seen.append(len(svc.enqueue("new", step.total)))
            )
            thread.start()
            thread.join(SOON_S)

        svc.backup(tmp_path / "backup", lambda step: work(step) if step.step == "pages" else None)

    assert len(seen) == 1


# Whoever is killed.


def _die_at_each_step(path: str) -> None:
    """Copy a queue and die at each step; say what is left each time, and which step it was."""
    queue, target = Path(path, "queue"), Path(path, "backup")
    request = {"source": str(queue), "target": str(target)}
    number = 0
    while True:
        number += 1
        put(steps, "reached", striking_at(number, Path(path, "last")))
        outcome = outcome_of(lambda: copying.copy(request, lambda _: None)["jobs"])
        left = [name for name in _names(Path(path)) if name not in {"queue", "last"}]
        say([outcome, Path(path, "last").read_text(), left])
        if target.exists():
            say(
                outcome_of(
                    lambda: copying.verify({"path": path + "/backup", "words": "it"}, put_by)
                )
            )
            target.unlink()
        if outcome != "SIGKILL":
            return


def put_by(_: Any) -> None:
    """Tell nobody."""


@pytest.mark.parametrize("without_names", [True, False])
def test_a_backup_that_is_killed_at_any_step_is_whole_or_not_there(
    start: Start, tmp_path: Path, without_names: bool
) -> None:
    fill(tmp_path / "queue")
    child = start(_die_at_each_step if without_names else _die_with_names, str(tmp_path))
    seen = {}
    while True:
        outcome, step, left = child.said()
        if "backup" in left:
            assert child.said() == "45", f"damaged, killed at {step}"
        hidden = [name for name in left if name != "backup"]
        assert len(hidden) <= (0 if without_names else 1), left
        assert all(name.startswith(".backup.part-") for name in hidden)
        seen[step] = "backup" in left
        if outcome != "SIGKILL":
            break

    assert outcome == "45"
    assert seen == {
        "copy begun": False,
        "copied": False,
        "copy verified": False,
        "copy synced": False,
        "copy named": True,
        "copy's directory synced": True,
    }
    assert hidden == [], "what was left by those who were killed is not cleared away"


def _die_with_names(path: str) -> None:
    """The same on a file system that cannot make files without a name."""
    refuse_tmpfile()
    _die_at_each_step(path)


def refuse_tmpfile() -> None:
    """In a child: as on NFS, or an old overlayfs."""
    real = os.open

    def open_(path: Any, flags: int, *rest: Any, **more: Any) -> int:
        if flags & os.O_TMPFILE == os.O_TMPFILE:
            raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))
        return real(path, flags, *rest, **more)

    put(os, "open", open_)


def _without_links(path: str) -> None:
    refuse_tmpfile()

    def link(*_: Any, **__: Any) -> None:
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    put(os, "link", link)
    request = {"source": path + "/queue", "target": path + "/backup"}
    say(copying.copy(request, put_by)["jobs"])
    say(outcome_of(lambda: copying.copy(request, put_by)))


def test_a_backup_can_be_made_where_there_are_no_links(start: Start, tmp_path: Path) -> None:
    fill(tmp_path / "queue")
    child = start(_without_links, str(tmp_path))

    assert child.said() == 45
    assert child.said().startswith("InvalidValue")
    assert _names(tmp_path) == ["backup", "queue"]


def test_when_the_program_is_killed_its_backup_ends_with_it(tmp_path: Path) -> None:
    with jobq.open(tmp_path / "queue", durability="unsafe") as svc:
        svc.enqueue_many("mail", [bytes(200)] * 30_000)
    code = (
        "import jobq, sys; svc = jobq.open(sys.argv[1]); "
        "svc.backup(sys.argv[2], lambda step: print(step.step, flush=True))"
    )
    for last in ("copy", "pages", "records"):
        target = tmp_path / f"backup-{last}"
        program = subprocess.Popen(
            [sys.executable, "-c", code, str(tmp_path / "queue"), str(target)],
            stdout=subprocess.PIPE,
            text=True,
        )
        assert program.stdout is not None
        with program:
            while program.stdout.readline().strip() != last:
                pass
            children = Path(f"/proc/{program.pid}/task/{program.pid}/children").read_text().split()
            program.kill()
        for pid in children:
            eventually(partial(has_ended, int(pid)))

        if target.exists():  # it was just through
            copying.verify({"path": str(target), "words": "it"}, put_by)
        assert [name for name in _names(tmp_path) if name.startswith(".")] == []


def has_ended(pid: int) -> bool:
    """Whether a process has ended; nobody may have asked for it yet."""
    try:
        return state_of(pid) == "Z"
    except (FileNotFoundError, ProcessLookupError):  # or it went while it was looked at
        return True


def test_an_interrupt_ends_a_backup_and_leaves_nothing(tmp_path: Path) -> None:
    def interrupt(step: CopyProgress) -> None:
        if step.step == "pages":
            os.kill(os.getpid(), signal.SIGINT)

    with jobq.open(tmp_path / "queue", durability="unsafe") as svc:
        svc.enqueue_many("mail", [bytes(200)] * 20_000)
        with pytest.raises(KeyboardInterrupt):
            svc.backup(tmp_path / "backup", interrupt)

        assert _names(tmp_path) == ["queue"]
        assert svc.backup(tmp_path / "backup").jobs == 20_000


# What goes wrong.


def _damage(path: Path) -> None:
    """Zero the page with the most of the jobs: a leaf in the middle of the file."""
    data = bytearray((path / "data.mdb").read_bytes())
    page = next(
        at
        for at in range(2 * 4096, len(data), 4096)
        if data[at + 10] == 2 and data[at : at + 4096].count(b"a payload") > 3
    )
    data[page : page + 4096] = bytes(4096)
    (path / "data.mdb").write_bytes(data)


def test_there_is_no_backup_of_a_damaged_queue(tmp_path: Path) -> None:
    with jobq.open(tmp_path / "queue", durability="unsafe") as svc:
        svc.enqueue_many("mail", [f"a payload {number}" for number in range(500)])
    _damage(tmp_path / "queue")

    with jobq.open(tmp_path / "queue", durability="unsafe") as svc:
        with pytest.raises(StoreCorrupt):
            svc.backup(tmp_path / "backup")
        assert svc.status(svc.enqueue("other")) == "ready", "this process goes on"

    assert _names(tmp_path) == ["queue"]


def test_there_is_no_backup_of_a_damaged_record(tmp_path: Path) -> None:
    with jobq.open(tmp_path / "queue", durability="unsafe") as svc:
        svc.enqueue("mail", "find this one")
    data = (tmp_path / "queue" / "data.mdb").read_bytes()
    assert data.count(b"find this one") == 1
    (tmp_path / "queue" / "data.mdb").write_bytes(data.replace(b"find this", b"find that"))

    with (
        jobq.open(tmp_path / "queue", durability="unsafe") as svc,
        pytest.raises(StoreCorrupt, match="body of a job"),
    ):
        svc.backup(tmp_path / "backup")

    assert _names(tmp_path) == ["queue"]


def _to_a_full_disk(disk: str, path: str) -> None:
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "none", disk], check=True)
    with jobq.open(path, durability="unsafe") as svc:
        svc.enqueue_many("mail", [bytes(5000)] * 500)
        with pytest.raises(StoreFull, match="disk is full"):
            svc.backup(Path(disk, "backup"))
        assert _names(Path(disk)) == []
        svc.enqueue("mail", "the queue does not mind")
        svc.purge("mail")
        assert svc.backup(Path(disk, "backup")).jobs == 0


def test_a_backup_to_a_full_disk_is_refused_and_leaves_nothing(
    on_a_disk: OnADisk, tmp_path: Path
) -> None:
    on_a_disk(_to_a_full_disk, str(tmp_path / "queue"))


# Children.


def _ask(request: dict[str, Any], tell: child.Tell) -> Any:
    tell("so far")
    if request["do"] == "die":
        os.kill(os.getpid(), request["signal"])
    if request["do"] == "fail":
        raise RuntimeError("a fault")
    return request["do"]


def test_how_a_child_dies_is_told() -> None:
    told: list[str] = []

    assert child.run(_ask, {"do": "well"}, told.append) == "well"
    assert told == ["so far"]
    with pytest.raises(child.EngineDied, match="SIGBUS"):
        child.run(_ask, {"do": "die", "signal": signal.SIGBUS})
    with pytest.raises(StoreUnavailable, match="killed by SIGKILL"):
        child.run(_ask, {"do": "die", "signal": signal.SIGKILL})
    with pytest.raises(StoreUnavailable, match=r"status 1 \(RuntimeError: a fault\)"):
        child.run(_ask, {"do": "fail"})


def test_without_a_python_there_is_no_child(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "")
    with pytest.raises(StoreUnavailable, match="has no Python"):
        child.run(_ask, {"do": "well"})
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    with pytest.raises(StoreUnavailable, match="cannot start a helper"):
        child.run(_ask, {"do": "well"})
    monkeypatch.undo()
    monkeypatch.setattr(sys, "frozen", True, raising=False)
    with pytest.raises(StoreUnavailable, match="has no Python"):
        child.run(_ask, {"do": "well"})
