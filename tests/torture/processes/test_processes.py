"""The same queue by several names, of several users, and on what cannot be written."""

import os
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import pytest

import jobq
from jobq import InvalidValue, JobqError
from tests.conftest import DEADLINE_S
from tests.crash.conftest import Say
from tests.crash.processes import Notebook, Pipe, Start, kill_myself
from tests.torture.processes.namespaces import HERE, Mount, Place, within

A, B, GROUP = 61_001, 61_002, 62_000

root_only: Final = pytest.mark.skipif(os.getuid() != 0, reason="only root can be other users")


def make(path: Path, jobs: int = 0) -> None:
    """A queue with jobs of topic a."""
    with jobq.open(path, durability="unsafe", lease=600.0) as svc:
        svc.enqueue_many("a", range(jobs))


# Names.


def _by_link(path: Path) -> tuple[str, Place]:
    link = path.parent / "link"
    link.symlink_to(path)
    return str(link), HERE


def _by_linked_parent(path: Path) -> tuple[str, Place]:
    link = path.parent.parent / "parent"
    link.symlink_to(path.parent)
    return str(link / path.name), HERE


def _by_relative_path(path: Path) -> tuple[str, Place]:
    return os.path.relpath(path, "/usr"), HERE


def _by_dots(path: Path) -> tuple[str, Place]:
    (path.parent / "beside").mkdir()
    return f"{path.parent}/beside/../{path.name}/.", HERE


def _by_mount(path: Path) -> tuple[str, Place]:
    point = path.parent / "point"
    point.mkdir()
    return str(point), Place(mounts=(Mount(str(path), str(point)),))


NAMES: Final[dict[str, Callable[[Path], tuple[str, Place]]]] = {
    "link": _by_link,
    "linked parent": _by_linked_parent,
    "relative": _by_relative_path,
    "dots": _by_dots,
    "mount": _by_mount,
}


def _work(pipe: Pipe, path: str, name: str, directory: str, rounds: int) -> None:
    """Produce and consume until all is done; by the plain path and the other name by turns."""
    os.chdir("/usr")  # for the relative one
    finished = Notebook(f"{directory}/finished")
    with jobq.open(path, lease=600.0) as svc, jobq.open(name, lease=600.0) as again:
        assert svc.store._env is again.store._env  # type: ignore[attr-defined]
        pipe.send("open")
        pipe.recv()
        for number in range(rounds):
            svc.enqueue("a", number)
            jobs = again.reserve("a", 2, timeout=0)
            again.done_many(jobs)
            finished.note(*(job.id for job in jobs))
        while jobs := svc.reserve("a", 2, timeout=0):
            svc.done_many(jobs)
            finished.note(*(job.id for job in jobs))
    pipe.send("done")


@pytest.mark.usefixtures("places")
@pytest.mark.parametrize("rounds", [15, pytest.param(1500, marks=pytest.mark.storm)])
def test_a_queue_by_five_names_in_five_processes_is_one(
    rounds: int, start: Start, tmp_path: Path, say: Say
) -> None:
    path = tmp_path / "files" / "queue"
    make(path)
    crew = []
    for how in NAMES.values():
        name, place = how(path)
        crew.append(start(within, place, _work, str(path), name, str(tmp_path), rounds))
    for child in crew:
        assert child.hear() == "open"
    for child in crew:
        child.tell()
    for child in crew:
        assert child.hear(120) == "done"
    done = Counter(Notebook(tmp_path / "finished").read())
    say(f"{len(done)} jobs by {len(NAMES)} names")

    assert len(done) == rounds * len(NAMES)
    assert max(done.values()) == 1
    with jobq.open(path) as svc:
        assert svc.stats().totals.done == len(done)
        assert svc.check().ok


def _open_by(pipe: Pipe, path: str) -> None:
    """Open, work a little, and say what came of it."""
    try:
        with jobq.open(path, durability="unsafe") as svc:
            svc.enqueue("a")
            svc.done_many(svc.reserve("a", timeout=0))
        pipe.send(("opened", ""))
    except JobqError as error:
        pipe.send((type(error).__name__, str(error)))


@pytest.mark.parametrize("is_open", [False, True], ids=["closed", "open"])
def test_a_link_to_the_data_file_alone_is_refused(
    is_open: bool, start: Start, tmp_path: Path
) -> None:
    """Its locks would be others. Two processes wrote into one file at the same time so."""
    path, other = tmp_path / "queue", tmp_path / "other"
    make(path, 1)
    other.mkdir()
    (other / "data.mdb").symlink_to(path / "data.mdb")

    refusal = pytest.raises(InvalidValue, match=r"is a link to .*expected the file itself")

    if is_open:
        with jobq.open(path, durability="unsafe"), refusal:
            jobq.open(other, durability="unsafe")
    else:
        with refusal:
            jobq.compact(other)
    assert start(_open_by, str(other)).hear()[0] == "InvalidValue"
    assert start(_open_by, str(path)).hear()[0] == "opened"


@pytest.mark.usefixtures("places")
@pytest.mark.parametrize("name", ["data.mdb", "lock.mdb"])
def test_a_file_of_a_queue_that_is_mounted_by_itself_is_refused(
    name: str, start: Start, tmp_path: Path
) -> None:
    path, other = tmp_path / "queue", tmp_path / "other"
    make(path, 1)
    make(other, 2)
    place = Place(mounts=(Mount(str(path / name), str(other / name)),))
    kind, message = start(within, place, _open_by, str(other)).hear()

    assert kind == "InvalidValue"
    assert f"{other / name} is mounted by itself" in message
    assert start(within, place, _open_by, str(path)).hear()[0] == "opened"


# Users.


@pytest.fixture
def common() -> Iterator[Path]:
    """A directory that every user may enter."""
    directory = Path(tempfile.mkdtemp(prefix="jobq-users-", dir="/tmp"))
    directory.chmod(0o755)
    yield directory
    shutil.rmtree(directory)


def _be(user: int, umask: int = 0o022) -> None:
    """Be that user from now on, having imported all that may stand where only root can read."""
    with (
        tempfile.TemporaryDirectory() as directory,
        jobq.open(f"{directory}/queue", durability="unsafe") as svc,
    ):
        svc.done_many([svc.reserve("a", timeout=0)[0] for _ in [svc.enqueue("a")]])
        assert svc.check().ok
    os.umask(umask)
    if user:
        os.setgroups([GROUP])
        os.setgid(GROUP)
        os.setuid(user)


def _make_as(pipe: Pipe, user: int, path: str, jobs: int, umask: int = 0o022) -> None:
    _be(user, umask)
    make(Path(path), jobs)
    pipe.send("made")


def _hold_as(pipe: Pipe, user: int, path: str, umask: int = 0o022) -> None:
    """Hold a job until told to settle it, or killed."""
    _be(user, umask)
    svc = jobq.open(path, durability="unsafe")
    [job] = svc.reserve("a", timeout=0)
    pipe.send(job.id)
    pipe.recv()
    job.done()
    pipe.send("done")


def _wait_as(pipe: Pipe, user: int, path: str) -> None:
    """Wait for what others held; settle it, and look whether all is well."""
    _be(user)
    with jobq.open(path, durability="unsafe", lease=600.0) as svc:
        pipe.send("open")
        jobs = svc.reserve("a", 9, timeout=DEADLINE_S)
        svc.done_many(jobs)
        pipe.send(([job.id for job in jobs], svc.check().ok))


def share_with_group(path: Path) -> None:
    """As an administrator does: `chmod -R g+rwX`, `chmod g+s`."""
    path.chmod(0o2770)
    for file in path.rglob("*"):
        file.chmod(0o770 if file.is_dir() else 0o660)


def meddle_as_root(path: Path, how: str) -> None:
    """What an administrator may do in another's queue, and what loses files that are made anew."""
    if how == "compacts":
        jobq.compact(path)
    elif how == "restores":
        with jobq.open(path) as svc:
            svc.backup(path.parent / "backup")
        jobq.restore(path.parent / "backup", path, replace=True)
    elif how == "makes lost files":
        for name in ("lock.mdb", "bell", "ballast", "turn.lock", "write.lock"):
            (path / name).unlink(missing_ok=True)
    with jobq.open(path, durability="unsafe") as svc:
        svc.enqueue("a", 0)
        if how != "enqueues":
            svc.reserve("a", 1, timeout=0)


def _meddle(pipe: Pipe, path: str, how: str) -> None:
    meddle_as_root(Path(path), how)
    pipe.send("done")
    kill_myself()


@root_only
@pytest.mark.parametrize("how", ["reserves", "compacts", "restores", "makes lost files"])
def test_after_root_was_in_it_a_queue_is_its_owners_as_before(
    how: str, start: Start, common: Path
) -> None:
    """`sudo jobq compact` left a lock file of root's, which nobody else could open."""
    path = common / "home" / "queue"
    path.parent.mkdir()
    os.chown(path.parent, A, GROUP)
    start(_make_as, A, str(path), 1).hear()
    root = start(_meddle, str(path), how)
    root.hear()
    owner = start(_wait_as, A, str(path))

    assert owner.hear() == "open"
    jobs, is_sound = owner.hear()
    assert jobs
    assert is_sound
    owners = {file.name: file.stat().st_uid for file in (path, *path.rglob("*"))}
    assert {name: user for name, user in owners.items() if user != A} == {}


@root_only
def test_a_queue_that_a_group_may_write_is_worked_on_by_all_of_it(
    start: Start, common: Path
) -> None:
    """The files that each makes can be looked at by the others, whatever their umasks."""
    path = common / "queue"
    common.chmod(0o777)
    start(_make_as, A, str(path), 2, 0o077).hear()
    share_with_group(path)
    for name in ("bell", "turn.lock", "write.lock"):
        (path / name).unlink()  # B makes them anew
    one, other = (start(_hold_as, user, str(path), 0o077) for user in (B, A))
    held, held_by_other = one.hear(), other.hear()
    other.tell()
    assert other.hear() == "done"
    waiter = start(_wait_as, A, str(path))
    assert waiter.hear() == "open"
    one.kill()

    jobs, is_sound = waiter.hear()
    assert jobs == [held]
    assert is_sound
    assert held_by_other != held


@root_only
@pytest.mark.parametrize(
    ("closed", "stops"),
    [
        ("data.mdb", "open"),
        ("lock.mdb", "open"),
        ("turn.lock", "open"),
        ("write.lock", "open"),
        ("bell", "enqueue"),
        ("holders", "reserve"),
        ("ballast", None),
        (".", None),
    ],
)
def test_a_file_that_a_user_may_not_write_is_a_clear_error_and_nothing_happens(
    closed: str, stops: str | None, start: Start, common: Path
) -> None:
    path = common / "queue"
    common.chmod(0o777)
    start(_make_as, A, str(path), 1).hear()
    holder = start(_hold_as, A, str(path))
    jid = holder.hear()
    share_with_group(path)
    (path / closed).chmod(0o2750 if closed == "." else 0o700 if closed == "holders" else 0o640)
    last, said = start(_try_as, B, str(path)).hear()

    assert last == stops
    if stops is not None:  # LMDB does not say which of its two files it is
        named = path if closed in {"data.mdb", "lock.mdb"} else path / closed
        assert said == ("StoreUnavailable", f"{named}: Permission denied")
    holder.tell()
    assert holder.hear() == "done"
    with jobq.open(path, durability="unsafe") as svc:
        assert svc.status(jid) == "done"
        assert svc.stats().totals.reserved == 0
        assert svc.check().ok


def _try_as(pipe: Pipe, user: int, path: str) -> None:
    """Say which verb was refused, and how."""
    _be(user)
    verb = "open"
    try:
        with jobq.open(path, durability="unsafe") as svc:
            verb = "enqueue"
            svc.enqueue("b")
            verb = "reserve"
            svc.done_many(svc.reserve("b", timeout=0))
        pipe.send((None, None))
    except JobqError as error:
        pipe.send((verb, (type(error).__name__, str(error))))


# What cannot be written.


@pytest.mark.usefixtures("places")
def test_a_read_only_mount_of_a_queue_is_a_clear_error_while_others_work_on(
    start: Start, tmp_path: Path
) -> None:
    path, point = tmp_path / "queue", tmp_path / "point"
    make(path, 1)
    point.mkdir()
    place = Place(mounts=(Mount(str(path), str(point), read_only=True),))
    reader = start(within, place, _read_by, str(point))

    assert reader.hear() == ("StoreUnavailable", f"{point}: Read-only file system")
    findings, saved = reader.hear()
    assert (findings, saved) == (True, 1)
    assert start(within, place, _open_by, str(path)).hear()[0] == "opened"


def _read_by(pipe: Pipe, path: str) -> None:
    _open_by(pipe, path)
    with jobq.salvage(path) as (found, _):
        pipe.send((not found.problems, found.jobs))
