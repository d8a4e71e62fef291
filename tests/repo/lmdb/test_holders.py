"""Holders: a process is dead to the others as soon as it is dead, and never before."""

import fcntl
import os
import resource
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

import jobq
from jobq.clock import ManualClock
from jobq.errors import JobqError
from jobq.repo.lmdb import LmdbStore, steps
from jobq.repo.lmdb.holders import Holders
from tests.conftest import DEADLINE_S, eventually
from tests.repo.lmdb.conftest import Start
from tests.repo.lmdb.processes import drop_privileges, hear, say

BOOT, OTHER_BOOT = bytes(16), bytes(15) + b"\1"


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "holders"


def _is_a_holder(directory: str) -> None:
    say(Holders(Path(directory), BOOT).get().hex())
    hear()


def test_a_package_that_is_run_is_called_by_its_own_name(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for word, name in (("/lib/jobq/__main__.py", "jobq"), ("/bin/worker.py", "worker.py")):
        monkeypatch.setattr("sys.argv", [word, "secret"])
        holders = Holders(directory, BOOT)

        assert holders.name(holders.get()) == f"pid {os.getpid()} {name}"
        holders.close()


# Dead or alive.


def test_a_holder_lives_as_long_as_its_process(directory: Path, start: Start) -> None:
    child = start(_is_a_holder, str(directory))
    holder = bytes.fromhex(child.said())
    here = Holders(directory, BOOT)

    assert here.dead([holder]) == set()
    assert here.abandoned() == set()
    child.kill()
    assert here.dead([holder]) == {holder}
    assert here.abandoned() == {holder}


def test_one_ends_well_and_is_dead_like_one_that_was_killed(directory: Path, start: Start) -> None:
    child = start(_is_a_holder, str(directory))
    holder = bytes.fromhex(child.said())
    child.tell()
    child.join()

    assert Holders(directory, BOOT).dead([holder]) == {holder}


def test_a_stopped_process_is_not_dead(directory: Path, start: Start) -> None:
    child = start(_is_a_holder, str(directory))
    holder = bytes.fromhex(child.said())

    child.signal(signal.SIGSTOP)

    assert Holders(directory, BOOT).dead([holder]) == set()


def test_a_process_is_never_dead_to_itself(directory: Path) -> None:
    here = Holders(directory, BOOT)
    mine = here.get()

    assert here.get() == here.mine == mine
    assert here.dead([mine]) == set()
    assert here.abandoned() == set()
    here.close()


def test_looking_at_a_holder_does_not_make_it_look_dead_to_others(directory: Path) -> None:
    """The look is a lock too, if a shared one."""
    holders = Holders(directory, BOOT)
    mine = holders.get()

    lookers = [Holders(directory, BOOT) for _ in range(3)]

    for _ in range(100):
        assert [looker.dead([mine]) for looker in lookers] == [set()] * 3
    holders.close()


def test_a_dead_holder_is_dead_to_all_who_look_at_the_same_time(
    directory: Path, start: Start
) -> None:
    child = start(_is_a_holder, str(directory))
    holder = bytes.fromhex(child.said())
    child.kill()

    with (directory / holder.hex()).open() as file:
        fcntl.flock(file, fcntl.LOCK_SH)  # somebody else is looking

        assert Holders(directory, BOOT).dead([holder]) == {holder}


def test_a_holder_that_closed_is_dead_and_gets_a_new_name(directory: Path) -> None:
    here, other = Holders(directory, BOOT), Holders(directory, BOOT)
    first = here.get()

    here.close()
    here.close()

    assert other.dead([first]) == {first}
    assert here.mine is None
    assert here.get() != first
    assert other.dead([here.get()]) == set()
    here.close()


def test_a_holder_that_was_shown_another_boot_id_lives_as_long_as_its_process(
    directory: Path, start: Start
) -> None:
    """Containers on one machine may each be shown a boot id of their own."""
    other = start(_is_a_holder, str(directory))
    holder = bytes.fromhex(other.said())
    here = Holders(directory, OTHER_BOOT)

    assert here.dead([holder]) == here.abandoned() == set()
    other.kill()
    assert here.dead([holder]) == here.abandoned() == {holder}


def test_a_holder_that_nobody_may_look_at_is_not_taken_for_dead(
    directory: Path, start: Start
) -> None:
    """Its lease says when its jobs are ready again."""
    other = start(_is_a_holder, str(directory))
    holder = bytes.fromhex(other.said())
    (directory / holder.hex()).chmod(0o000)

    assert start(_looks_without_rights, str(directory), holder.hex()).said() == []


def _looks_without_rights(directory: str, holder: str) -> None:
    drop_privileges()
    say([name.hex() for name in Holders(Path(directory), BOOT).dead([bytes.fromhex(holder)])])


def test_a_holder_without_a_file_is_dead(directory: Path) -> None:
    here = Holders(directory, BOOT)
    mine = here.get()
    unknown = mine[:4] + bytes(4)

    assert here.dead([mine, unknown]) == {unknown}
    here.close()


def test_a_queue_that_nobody_has_reserved_from_has_no_holders(directory: Path) -> None:
    here = Holders(directory, BOOT)

    assert here.abandoned() == set()
    here.remove([])
    assert not directory.exists()


def test_no_two_holders_have_one_name(directory: Path) -> None:
    here = Holders(directory, BOOT)
    names = set()
    for _ in range(100):
        names.add(here.get())
        here.close()

    assert len(names) == 100


# Files.


def test_a_removed_holder_has_no_file(directory: Path, start: Start) -> None:
    child = start(_is_a_holder, str(directory))
    holder = bytes.fromhex(child.said())
    child.kill()
    here = Holders(directory, BOOT)

    here.remove([holder])
    here.remove([holder])

    assert list(directory.iterdir()) == []
    assert here.dead([holder]) == {holder}


@pytest.mark.parametrize("step", ["holder file made", "holder file locked", "holder file renamed"])
def test_a_process_that_dies_while_it_becomes_a_holder_leaves_nothing_for_ever(
    directory: Path, start: Start, step: str
) -> None:
    assert start(_dies_at, str(directory), step).wait() == -signal.SIGKILL
    here = Holders(directory, BOOT)
    assert len(list(directory.iterdir())) == 1

    here.remove(here.abandoned())

    assert list(directory.iterdir()) == []


def _dies_at(directory: str, step: str) -> None:
    def reached(at: str) -> None:
        if at == step:
            os.kill(os.getpid(), signal.SIGKILL)

    setattr(steps, "reached", reached)  # noqa: B010 - mypy takes a module's function for final
    Holders(Path(directory), BOOT).get()


def test_other_files_beside_the_holders_do_no_harm(directory: Path) -> None:
    directory.mkdir()
    for name in ("notes.txt", "0", "zz", ".hidden"):
        (directory / name).touch()
    here = Holders(directory, BOOT)
    mine = here.get()

    assert here.abandoned() == set()
    assert here.dead([mine]) == set()
    here.close()


def test_a_holder_is_called_by_its_pid_and_program(directory: Path, start: Start) -> None:
    child = start(_is_a_holder, str(directory))
    holder = bytes.fromhex(child.said())
    here = Holders(directory, BOOT)

    assert here.name(holder).startswith(f"pid {child.pid} ")
    (directory / holder.hex()).unlink()
    assert here.name(holder).startswith(f"pid {child.pid} ")


@pytest.mark.parametrize("left", [None, b"\xff{"])
def test_a_holder_that_left_no_readable_file_is_called_by_its_pid(
    directory: Path, start: Start, left: bytes | None
) -> None:
    child = start(_is_a_holder, str(directory))
    holder = bytes.fromhex(child.said())
    (directory / holder.hex()).unlink()
    if left is not None:
        (directory / holder.hex()).write_bytes(left)
    here = Holders(directory, BOOT)

    assert here.name(holder) == f"pid {child.pid}"
    here.close()


# As the store uses them.


def _reserves(path: str, count: int) -> None:
    """Hold some jobs until the test is over."""
    svc = jobq.open(path, durability="unsafe")
    jobs = svc.reserve("a", count, timeout=0)
    say(len(jobs))
    hear()


def test_a_killed_holders_file_stays_until_its_jobs_are_back(tmp_path: Path, start: Start) -> None:
    path = tmp_path / "queue"
    with jobq.open(path, durability="unsafe") as svc:
        svc.enqueue_many("a", [1, 2, 3])
        child = start(_reserves, str(path), 3)
        assert child.said() == 3
        [file] = (path / "holders").iterdir()
        child.kill()
        assert file.exists()

        jobs = svc.reserve("a", 3, timeout=DEADLINE_S)

        assert [(job.payload, job.crashes) for job in jobs] == [(1, 1), (2, 1), (3, 1)]
        # The one who waits next sweeps it away.
        eventually(lambda: svc.reserve("b", timeout=0.1) == [] and not file.exists())
        assert len(list((path / "holders").iterdir())) == 1
        assert svc.check().problems == ()


def test_a_living_holder_keeps_its_jobs_while_others_wait(tmp_path: Path, start: Start) -> None:
    path = tmp_path / "queue"
    with jobq.open(path, durability="unsafe") as svc:
        svc.enqueue_many("a", [1, 2])
        child = start(_reserves, str(path), 2)
        assert child.said() == 2

        assert svc.reserve("a", timeout=1.2) == []  # long enough for one look for the dead
        assert svc.stats("a").totals.reserved == 2


def test_after_a_reboot_all_holders_are_dead(tmp_path: Path) -> None:
    clock = ManualClock()
    store = LmdbStore(tmp_path / "queue", durability="unsafe", clock=clock)
    svc = jobq.JobService(store)
    svc.enqueue("a", 1, lease=3600)
    svc.reserve("a", timeout=0)
    store.close()
    clock.reboot()

    with jobq.JobService(LmdbStore(tmp_path / "queue", durability="unsafe", clock=clock)) as again:
        [job] = again.reserve("a", timeout=0)
        assert (job.payload, job.crashes) == (1, 1)


def _reserves_and_starts_a_program(path: str) -> None:
    svc = jobq.open(path, durability="unsafe")
    svc.reserve("a", timeout=0)
    program = subprocess.Popen(["sleep", "600"], close_fds=False)
    say(program.pid)
    hear()


def _forks_and_dies(path: str) -> None:
    """A worker with a reservation forks a child, which lives on."""
    svc = jobq.open(path, durability="unsafe")
    svc.reserve("a", timeout=0)
    child = os.fork()
    if not child:
        signal.pause()
        os._exit(0)
    say(child)
    hear()


@pytest.mark.parametrize(
    "works",
    [
        pytest.param(_reserves_and_starts_a_program, id="a program"),
        pytest.param(_forks_and_dies, id="a forked child"),
    ],
)
def test_what_a_killed_worker_has_started_does_not_keep_its_jobs(
    works: Callable[[str], None], tmp_path: Path, start: Start
) -> None:
    """It does not have the lock of the holder, and so does not look like the worker alive."""
    path = tmp_path / "queue"
    with jobq.open(path, durability="unsafe") as svc:
        svc.enqueue("a", 1)
        worker = start(works, str(path))
        started = worker.said()
        try:
            worker.kill()
            os.kill(started, 0)  # it lives

            [job] = svc.reserve("a", timeout=DEADLINE_S)
            assert job.payload == 1
        finally:
            os.kill(started, signal.SIGKILL)


def _has_no_descriptors_left(path: str) -> None:
    """Look for dead processes, and wait, with as many files open as may be."""
    svc = jobq.open(path, durability="unsafe")
    svc.enqueue("b")
    [job] = svc.reserve("b", timeout=0)
    svc.reserve("a", timeout=0.01)
    resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
    taken = []
    try:
        while True:
            taken.append(os.open("/dev/null", os.O_RDONLY))
    except OSError:
        pass
    failures = []
    calls: tuple[Callable[[], object], ...] = (
        lambda: svc.reserve("a", timeout=1.1),
        lambda: svc.enqueue("a"),
        svc.stats,
        job.done,
    )
    for call in calls:
        try:
            call()
        except JobqError as error:
            failures.append(type(error).__name__)
    for fd in taken:
        os.close(fd)
    say(sorted(set(failures)))
    svc.enqueue("a", "after")
    [job] = svc.reserve("a", timeout=0)
    job.done()
    say([svc.check().ok, svc.stats("a").totals.done])


def test_a_process_without_descriptors_left_gets_clear_errors_and_goes_on_later(
    tmp_path: Path, start: Start
) -> None:
    child = start(_has_no_descriptors_left, str(tmp_path / "queue"))

    assert set(child.said()) <= {"StoreUnavailable", "StoreFull"}
    ok, done = child.said()
    assert ok
    assert done >= 1
    child.join()
