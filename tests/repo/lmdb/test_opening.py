"""What may be opened, what may not, and in which circumstances opening still works."""

import logging
import os
import resource
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import lmdb
import pytest

import jobq
from jobq.clock import ManualClock
from jobq.errors import InvalidValue, JobqError, StoreCorrupt, StoreUnavailable
from jobq.repo.lmdb import LmdbStore, files, steps
from jobq.repo.lmdb.files import NETWORK, Mount, kind_of, mounts
from jobq.repo.lmdb.records import FORMAT, encode_settings
from tests.repo.lmdb.conftest import Start
from tests.repo.lmdb.processes import CANNOT, drop_privileges, hear, outcome_of, say


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where the queue is to be; nothing is there yet."""
    return tmp_path / "queue"


def make(path: Path, *payloads: object) -> None:
    """A queue with jobs of topic a, closed."""
    with jobq.open(path, durability="unsafe") as svc:
        for payload in payloads:
            svc.enqueue("a", payload)


def drain(path: Path) -> list[Any]:
    """Open the queue; the payloads of topic a, all done now."""
    with jobq.open(path, durability="unsafe") as svc:
        jobs = svc.reserve("a", 10_000, timeout=0)
        svc.done_many(jobs)
        assert svc.check().problems == ()
        return [job.payload for job in jobs]


def tree(path: Path) -> dict[str, bytes]:
    """Every file below a directory, with its content."""
    return {
        str(file.relative_to(path)): file.read_bytes() if file.is_file() else b""
        for file in sorted(path.rglob("*"))
    }


def raw(path: Path, **settings: Any) -> lmdb.Environment:
    """The data file of a closed queue, as LMDB sees it."""
    return lmdb.open(str(path), max_dbs=20, map_size=2**24, lib_version=0, **settings)


# What is refused, and stays as it was.


def test_a_file_is_no_queue(path: Path) -> None:
    path.write_text("not a directory")

    with pytest.raises(InvalidValue, match="is a file"):
        LmdbStore(path)
    assert path.read_text() == "not a directory"


def test_what_lies_below_a_file_is_no_queue(path: Path) -> None:
    path.write_text("not a directory")

    with pytest.raises((InvalidValue, StoreUnavailable), match="queue"):
        LmdbStore(path / "queue")


@pytest.mark.parametrize("make_one", [os.mkfifo, lambda path: path.symlink_to("nowhere/at/all")])
def test_a_pipe_or_a_link_to_nowhere_is_no_queue(
    path: Path, make_one: Callable[[Path], None]
) -> None:
    make_one(path)

    with pytest.raises((InvalidValue, StoreUnavailable), match=str(path)):
        LmdbStore(path)


def test_a_name_that_is_too_long_is_a_clear_error(tmp_path: Path) -> None:
    with pytest.raises(StoreUnavailable, match="too long"):
        LmdbStore(tmp_path / ("q" * 300))


def test_a_directory_with_something_else_in_it_is_no_queue(path: Path) -> None:
    path.mkdir()
    (path / "letter.txt").write_text("dear")
    before = tree(path)

    with pytest.raises(InvalidValue, match=r"letter\.txt"):
        LmdbStore(path)
    assert tree(path) == before


def test_only_the_first_few_strangers_are_named(path: Path) -> None:
    path.mkdir()
    for number in range(9):
        (path / f"letter{number}").touch()

    with pytest.raises(InvalidValue, match="letter0, letter1, letter2, …"):
        LmdbStore(path)


def test_nothing_is_made_unless_asked_for(path: Path) -> None:
    with pytest.raises(InvalidValue, match="holds no queue"):
        LmdbStore(path, create=False)
    assert not path.exists()

    path.mkdir()
    with pytest.raises(InvalidValue, match="holds no queue"):
        LmdbStore(path, create=False)
    assert tree(path) == {}


def test_an_existing_queue_opens_without_leave_to_make_one(path: Path) -> None:
    make(path, 1)

    with jobq.open(path, create=False) as svc:
        assert svc.stats().totals.ready == 1


GARBAGE = {
    "empty": b"",
    "one byte": b"\0",
    "text": b"this is no database\n" * 1000,
    "zeros": bytes(65536),
    "noise": bytes((7 * at * at + at // 3) % 251 for at in range(65536)),
}


@pytest.mark.parametrize("what", GARBAGE)
def test_a_data_file_that_is_not_of_lmdb_is_refused(path: Path, what: str) -> None:
    path.mkdir()
    (path / "data.mdb").write_bytes(GARBAGE[what])
    before = tree(path)

    with pytest.raises(StoreCorrupt, match=r"data\.mdb"):
        LmdbStore(path)
    assert tree(path) == before


def test_a_directory_in_the_place_of_the_data_file_is_refused(path: Path) -> None:
    (path / "data.mdb").mkdir(parents=True)

    with pytest.raises(JobqError, match=str(path)):
        LmdbStore(path)


@pytest.mark.parametrize("names", [(), ("meta",), ("meta", "topics", "jobs", "states", "queue")])
def test_another_programs_lmdb_is_refused_and_left_as_it_was(
    path: Path, names: tuple[str, ...]
) -> None:
    path.mkdir()
    with raw(path) as env:
        for name in names:
            env.open_db(name.encode())
        with env.begin(write=True) as txn:
            txn.put(b"theirs", b"value")
    before = tree(path)

    with pytest.raises(StoreCorrupt, match="not the queue of a jobq"):
        LmdbStore(path)
    assert set(tree(path)) == set(before)
    assert tree(path)["data.mdb"] == before["data.mdb"]


def test_another_programs_keys_with_the_names_of_our_databases_are_refused(path: Path) -> None:
    path.mkdir()
    with raw(path) as env, env.begin(write=True) as txn:
        txn.put(b"meta", b"a plain value")

    with pytest.raises(StoreCorrupt, match="queue"):
        LmdbStore(path)


def test_a_file_of_lmdbs_newer_format_is_refused(path: Path) -> None:
    path.mkdir()
    lmdb.open(str(path), lib_version=1).close()

    with pytest.raises(StoreCorrupt, match=r"data\.mdb"):
        LmdbStore(path)


def put_settings(path: Path, value: bytes | None) -> None:
    """Write the settings record of a closed queue; None removes it."""
    with raw(path) as env:
        db = env.open_db(b"meta", create=False)
        with env.begin(write=True) as txn:
            if value is None:
                txn.delete(b"settings", db=db)
            else:
                txn.put(b"settings", value, db=db)


@pytest.mark.parametrize("number", [0, 99, "1", None])
def test_another_format_number_is_refused_and_named(path: Path, number: object) -> None:
    make(path, 1)
    put_settings(path, encode_settings(b"settings", {"format": number}))

    with pytest.raises(
        StoreCorrupt, match=f"has format {number!r}: this jobq reads format {FORMAT}"
    ):
        LmdbStore(path)


def test_settings_of_a_newer_version_beside_a_known_format_do_no_harm(path: Path) -> None:
    make(path, 1)
    put_settings(
        path, encode_settings(b"settings", {"format": FORMAT, "new": [1, 2], "created_us": 5})
    )

    assert drain(path) == [1]


@pytest.mark.parametrize("value", [None, b"", b"garbage", b"\0" * 40])
def test_a_queue_whose_settings_are_gone_or_scribbled_on_is_refused(
    path: Path, value: bytes | None
) -> None:
    make(path, 1)
    put_settings(path, value)

    with pytest.raises(StoreCorrupt, match=r"settings|damaged"):
        LmdbStore(path)


def test_after_a_refusal_the_same_process_opens_what_is_put_there_instead(path: Path) -> None:
    """The refused attempt keeps nothing open, neither in LMDB nor in jobq's list of open files."""
    make(path, "good")
    good = (path / "data.mdb").read_bytes()
    put_settings(path, encode_settings(b"settings", {"format": 99}))
    for _ in range(3):
        with pytest.raises(StoreCorrupt):
            LmdbStore(path)

    (path / "data.mdb").write_bytes(good)

    assert drain(path) == ["good"]


# What is taken.


def test_a_directory_is_made_with_its_parents(tmp_path: Path) -> None:
    path = tmp_path / "of" / "several" / "levels"

    make(path, 1)

    assert drain(path) == [1]


def test_an_empty_directory_becomes_a_queue(path: Path) -> None:
    path.mkdir()

    make(path, 1)

    assert drain(path) == [1]


def test_the_top_of_a_disk_becomes_a_queue_although_it_has_lost_and_found(path: Path) -> None:
    (path / "lost+found").mkdir(parents=True)

    make(path, 1)

    assert drain(path) == [1]
    assert (path / "lost+found").is_dir()


def _on_the_top_of_a_disk(disk: str) -> None:
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "none", disk], check=True)

    make(Path(disk), 1)

    assert drain(Path(disk)) == [1]


def test_a_mount_point_becomes_a_queue(on_a_disk: Callable[..., None]) -> None:
    on_a_disk(_on_the_top_of_a_disk)


def test_names_are_synced_up_to_the_mount_point_from_a_relative_path_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[Path] = []
    monkeypatch.setattr(files, "sync_directory", synced.append)
    monkeypatch.chdir(tmp_path)
    files._sync_names(Path("queue"))
    assert synced[:2] == [tmp_path / "queue", tmp_path]
    assert synced[-1].is_mount()


def test_a_relative_path_stays_the_same_queue_when_the_process_changes_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "elsewhere").mkdir()
    with jobq.open("queue") as svc:
        monkeypatch.chdir(tmp_path / "elsewhere")
        svc.enqueue("a", 1)
        [job] = svc.reserve("a", timeout=0)
        job.release()

    assert drain(tmp_path / "queue") == [1]


@pytest.fixture
def umask_022() -> Iterator[None]:
    before = os.umask(0o022)
    yield
    os.umask(before)


def test_a_closed_queue_is_let_go_of(path: Path) -> None:
    """Nothing stays open or mapped: its disk can be unmounted while the process goes on."""
    svc = jobq.open(path)
    svc.enqueue("a", 1)
    svc.reserve("a", timeout=0)
    svc.close()

    links = [link for link in Path("/proc/self/fd").iterdir() if link.is_symlink()]
    mapped = Path("/proc/self/maps").read_text().splitlines()
    assert [name for link in links if str(path) in (name := str(link.readlink()))] == []
    assert [line for line in mapped if str(path) in line] == []


@pytest.mark.usefixtures("umask_022")
def test_nobody_else_can_read_a_queue(path: Path) -> None:
    with jobq.open(path) as svc:
        svc.enqueue("a", 1)
        svc.reserve("a", timeout=0)
        modes = {
            str(file.relative_to(path)): file.stat().st_mode & 0o777 for file in path.rglob("*")
        }

    assert path.stat().st_mode & 0o777 == 0o700
    assert modes.pop("holders") == 0o700
    assert {"data.mdb", "lock.mdb", "bell", "ballast", "turn.lock", "write.lock"} < set(modes)
    assert {name: oct(mode) for name, mode in modes.items() if mode != 0o600} == {}


def test_a_queue_that_was_made_leaves_nothing_half_made(path: Path) -> None:
    make(path, 1)

    assert [file.name for file in path.iterdir() if file.name.startswith(".")] == []


def _opens_and_drains(path: str) -> None:
    say(drain(Path(path)))


def test_the_environment_cannot_choose_another_file_format(path: Path, start: Start) -> None:
    """LMDB_DEFAULT_LIB_VERSION=1 makes py-lmdb write files that others cannot read."""
    other = {"env": {"LMDB_DEFAULT_LIB_VERSION": "1"}}
    maker = start(_makes, str(path), 0, **other)
    assert maker.said() == "open"
    maker.tell()
    maker.join()

    assert start(_opens_and_drains, str(path), **other).said() == [0]
    make(path, 1)
    assert drain(path) == [1]


# Permissions, and disks that cannot be written.


def _is_refused(path: str, drop: bool) -> None:
    """Say the error that opening gives."""
    if drop:
        drop_privileges()
    try:
        LmdbStore(path).close()
        say(["opened", ""])
    except JobqError as error:
        say([type(error).__name__, str(error)])


@pytest.mark.parametrize(
    ("mode", "there"),
    [(0o000, True), (0o000, False), (0o500, False), (0o400, True)],
    ids=["unreadable", "unreadable and empty", "empty and read-only", "cannot be entered"],
)
def test_a_directory_without_permission_is_a_clear_error(
    path: Path, start: Start, mode: int, there: bool
) -> None:
    make(path, 1) if there else path.mkdir()
    before = set(tree(path))
    path.chmod(mode)
    try:
        child = start(_is_refused, str(path), True)

        assert child.said() == ["StoreUnavailable", f"{path}: Permission denied"]
        child.join()
    finally:
        path.chmod(0o700)
    assert set(tree(path)) == before


def test_a_queue_cannot_be_made_in_a_directory_that_cannot_be_written(
    path: Path, start: Start
) -> None:
    path.mkdir(mode=0o500)

    child = start(_is_refused, str(path / "queue"), True)

    assert child.said() == ["StoreUnavailable", f"{path}/queue: Permission denied"]


@pytest.mark.parametrize("name", ["data.mdb", "lock.mdb", "turn.lock", "write.lock"])
def test_a_queue_whose_files_cannot_be_written_is_a_clear_error(
    path: Path, start: Start, name: str
) -> None:
    make(path, 1)
    (path / name).chmod(0o400)

    child = start(_is_refused, str(path), True)

    name, message = child.said()
    assert name == "StoreUnavailable"
    assert str(path) in message
    assert "ermission denied" in message


def _on_a_read_only_disk(disk: str) -> None:
    mount = ["mount", "-t", "tmpfs", "-o", "size=8m"]
    subprocess.run([*mount, "none", disk], check=True)
    path, empty = Path(disk, "queue"), Path(disk, "empty")
    assert outcome_of(lambda: make(path, 1)) == "None"  # in a process that has it open no longer
    empty.mkdir()
    subprocess.run(["mount", "-o", "remount,ro", disk], check=True)

    for where in (path, empty, Path(disk, "new")):
        with pytest.raises(StoreUnavailable, match="Read-only file system"):
            LmdbStore(where)

    subprocess.run(["mount", "-o", "remount,rw", disk], check=True)
    assert drain(path) == [1]


def test_a_read_only_disk_is_a_clear_error_and_later_the_queue_opens(
    on_a_disk: Callable[..., None],
) -> None:
    on_a_disk(_on_a_read_only_disk)


# Where the directory may be.


LOCAL = [Mount("/", "ext4"), Mount("/tmp", "tmpfs"), Mount("/home", "btrfs")]


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/", "ext4"),
        ("/queue", "ext4"),
        ("/tmp", "tmpfs"),
        ("/tmp/queue", "tmpfs"),
        ("/tmpfoo/queue", "ext4"),
        ("/home/me/queue", "btrfs"),
    ],
)
def test_the_kind_of_a_file_system_is_that_of_the_nearest_mount(path: str, kind: str) -> None:
    assert kind_of(path, LOCAL) == kind
    assert kind_of(path, LOCAL[::-1]) == kind


def test_of_two_mounts_on_one_point_the_later_covers_the_earlier() -> None:
    assert kind_of("/data/q", [Mount("/data", "ext4"), Mount("/data", "nfs4")]) == "nfs4"


def test_a_mount_table_is_read_with_its_escapes_and_optional_fields() -> None:
    table = (
        "21 1 8:1 / / rw,relatime - ext4 /dev/sda1 rw\n"
        "36 21 98:0 /mnt1 /with\\040space rw,noatime master:1 shared:7 - cifs //host/x rw\n"
        "37 21 98:1 / /back\\134slash\\011tab rw - 9p host rw\n"
        "not a line of a mount table\n"
        "\n"
    )

    assert mounts(table) == [
        Mount("/", "ext4"),
        Mount("/with space", "cifs"),
        Mount("/back\\slash\ttab", "9p"),
    ]


def test_this_machines_mount_table_is_understood() -> None:
    found = mounts(Path("/proc/self/mountinfo").read_text())

    assert kind_of("/proc/self/fd", found) == "proc"
    assert any(mount.point == "/" for mount in found)


def mounted_as(monkeypatch: pytest.MonkeyPatch, point: Path, kind: str) -> None:
    """Let *point* look like a mount point of that kind."""
    monkeypatch.setattr(files, "mounts", lambda _: [Mount("/", "ext4"), Mount(str(point), kind)])


@pytest.mark.parametrize("kind", [*sorted(NETWORK), "fuse", "fuse.sshfs"])
@pytest.mark.parametrize("there", [True, False], ids=["existing", "new"])
def test_network_file_systems_are_refused(
    path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, there: bool
) -> None:
    if there:
        make(path, 1)
    mounted_as(monkeypatch, path.parent, kind)

    with pytest.raises(InvalidValue, match=rf"is on a {kind} file system: expected a local one"):
        LmdbStore(path)
    assert path.exists() == there


def test_a_link_to_a_network_file_system_is_refused(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "share").mkdir()
    path.symlink_to(tmp_path / "share")
    mounted_as(monkeypatch, tmp_path / "share", "nfs4")

    with pytest.raises(InvalidValue, match="nfs4"):
        LmdbStore(path)


def test_fuse_is_taken_when_it_is_asked_for(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mounted_as(monkeypatch, path.parent, "fuse.portal")

    with LmdbStore(path, fuse=True) as store:
        assert store.topics() == []


def test_nfs_stays_refused_when_fuse_is_asked_for(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mounted_as(monkeypatch, path.parent, "nfs")

    with pytest.raises(InvalidValue, match="nfs"):
        LmdbStore(path, fuse=True)


@pytest.mark.parametrize("kind", ["ext4", "xfs", "btrfs", "tmpfs", "zfs", "f2fs", "fuseblk"])
def test_local_file_systems_are_taken(
    path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    mounted_as(monkeypatch, path.parent, kind)

    with LmdbStore(path, durability="unsafe") as store:
        assert store.topics() == []


def test_a_new_queue_on_overlayfs_is_warned_of_once(
    path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    mounted_as(monkeypatch, path.parent, "overlay")
    with caplog.at_level(logging.WARNING, "jobq"):
        make(path, 1)
        assert drain(path) == [1]

    assert [record.getMessage() for record in caplog.records if "overlayfs" in record.getMessage()]
    assert len(caplog.records) == 1


def _in_an_image_layer(disk: str) -> None:
    lower, above = Path(disk, "lower"), Path(disk, "above")
    for directory in (lower, above):  # two disks, as images and containers often have
        directory.mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16m", "none", directory], check=True)
    upper, work, merged = (above / name for name in ("upper", "work", "merged"))
    for directory in (upper, work, merged):
        directory.mkdir()
    make(lower / "queue", 1)
    layers = f"lowerdir={lower},upperdir={upper},workdir={work},xino=off"
    mount = ["mount", "-t", "overlay", "overlay", "-o", layers, str(merged)]
    if subprocess.run(mount, check=False).returncode:
        sys.exit(CANNOT)

    make(merged / "new", 2)
    assert drain(merged / "new") == [2]
    with pytest.raises(InvalidValue, match="image layer"):
        LmdbStore(merged / "queue")
    assert drain(lower / "queue") == [1]


def test_a_queue_in_an_image_layer_is_refused(on_a_disk: Callable[..., None]) -> None:
    on_a_disk(_in_an_image_layer)


# The same queue twice in one process.


def by_symlink(path: Path) -> Path:
    other = path.parent / "link"
    other.symlink_to(path)
    return other


def by_dots(path: Path) -> Path:
    return path / ".." / path.name


@pytest.mark.parametrize("again", [Path, by_symlink, by_dots])
def test_a_queue_opened_twice_in_a_process_is_one(
    path: Path, again: Callable[[Path], Path]
) -> None:
    first = jobq.open(path, durability="unsafe")
    second = jobq.open(again(path), durability="unsafe")

    first.enqueue("a", 1)
    [job] = second.reserve("a", timeout=0)
    first.close()
    job.done()

    assert second.stats().totals.done == 1
    second.close()
    assert drain(path) == []


def by_hard_link(path: Path) -> Path:
    """A copy as `cp --link` or a backup program makes it: other names of the same files."""
    other = path.parent / "other"
    other.mkdir()
    (other / "data.mdb").hardlink_to(path / "data.mdb")
    return other


def test_a_data_file_with_two_names_is_refused_by_either_until_it_has_one(path: Path) -> None:
    make(path, 1, 2)
    other = by_hard_link(path)

    for name in (path, other):
        with pytest.raises(InvalidValue, match=r"2 names \(hard links\)"):
            jobq.open(name)
    (path / "data.mdb").unlink()
    assert drain(other) == [1, 2]


def test_a_link_to_an_open_queue_is_refused_and_does_the_open_one_no_harm(path: Path) -> None:
    with jobq.open(path, durability="unsafe") as svc:
        other = by_hard_link(path)
        with pytest.raises(InvalidValue, match="hard links"):
            jobq.open(other, durability="unsafe")
        svc.enqueue("a", 1)
        (other / "data.mdb").unlink()
        assert drain(path) == [1]


@pytest.mark.parametrize(
    ("name", "value"), [("durability", "relaxed"), ("max_size", 2**30), ("clock", ManualClock())]
)
def test_a_queue_cannot_be_opened_twice_in_a_process_with_other_settings(
    path: Path, name: str, value: object
) -> None:
    with LmdbStore(path) as store:
        with pytest.raises(InvalidValue, match=f"open in this process with (another )?{name}"):
            LmdbStore(path, **{name: value})  # type: ignore[arg-type]

        assert store.topics() == []

    LmdbStore(path, **{name: value}).close()  # type: ignore[arg-type]


def test_threads_that_open_a_new_queue_at_once_share_it(path: Path, crew: Any) -> None:
    stores: list[LmdbStore] = []
    for _ in range(8):
        crew.start(lambda: stores.append(LmdbStore(path, durability="unsafe")))
    crew.join()

    assert len({id(store._env) for store in stores}) == 1
    for store in stores:
        store.close()


# Several processes.


def _makes(path: str, payload: object) -> None:
    """Open, say so, and add a job when told to."""
    svc = jobq.open(path)
    say("open")
    hear()
    svc.enqueue("a", payload)


def _makes_at_once(path: str, payload: object) -> None:
    say("here")
    hear()
    with jobq.open(path, durability="unsafe") as svc:
        svc.enqueue("a", payload)


def test_eight_processes_that_make_a_queue_at_once_make_one(path: Path, start: Start) -> None:
    makers = [start(_makes_at_once, str(path), number) for number in range(8)]
    for maker in makers:
        assert maker.said() == "here"
    for maker in makers:
        maker.tell()
    for maker in makers:
        maker.join()

    assert sorted(drain(path)) == list(range(8))


def _grows_until_told(path: str) -> None:
    """Make the file larger with every commit, and now and then free its last pages."""
    told = threading.Event()

    def listen() -> None:
        hear()
        told.set()

    threading.Thread(target=listen, daemon=True).start()
    with jobq.open(path, durability="unsafe") as svc:
        say("open")
        while not told.is_set():
            ids = [svc.enqueue("a", bytes(20_000)) for _ in range(20)]
            svc.delete(ids[-10:])


def test_a_queue_opens_while_others_write_and_make_it_grow(path: Path, start: Start) -> None:
    """What is looked at before opening may change while it is looked at."""
    child = start(_grows_until_told, str(path))
    assert child.said() == "open"

    for _ in range(300):
        LmdbStore(path, durability="unsafe").close()

    child.tell()
    child.join()


def _makes_until(path: str, step: str) -> None:
    """Be killed at a step."""

    def die(reached: str) -> None:
        if reached == step:
            os.kill(os.getpid(), signal.SIGKILL)

    setattr(steps, "reached", die)  # noqa: B010 - mypy takes a module's function for final
    LmdbStore(path)


@pytest.mark.parametrize(
    "step", ["directory made", "data file built", "data file synced", "data file moved"]
)
def test_a_killed_maker_leaves_nothing_that_blocks(path: Path, start: Start, step: str) -> None:
    assert start(_makes_until, str(path), step).wait() == -signal.SIGKILL

    make(path, 1)
    assert drain(path) == [1]


def test_what_killed_makers_left_is_cleared_away(path: Path, start: Start) -> None:
    for _ in range(3):
        start(_makes_until, str(path), "data file synced").wait()

    make(path, 1)

    assert [file.name for file in path.iterdir() if file.name.startswith(".")] == []


# Little address space, and what became of lock.mdb.


def _opens_in_little_room(path: str, room: int) -> None:
    resource.setrlimit(resource.RLIMIT_AS, (room, room))
    with jobq.open(path, durability="unsafe") as svc:
        ids = svc.enqueue_many("a", [b"x" * 1000] * 2000)
        assert svc.status(ids[-1]) == "ready"


def test_a_process_with_little_address_space_opens_with_a_smaller_map(
    path: Path, start: Start
) -> None:
    start(_opens_in_little_room, str(path), 2**29).join()

    assert len(drain(path)) == 2000


LOCKS: dict[str, bytes | None] = {
    "missing": None,
    "empty": b"",
    "short": b"\x01",
    "garbage": bytes(range(256)) * 32,
    "long garbage": b"\xff" * 100_000,
}


@pytest.mark.parametrize("what", LOCKS)
def test_a_lock_file_that_is_gone_or_garbage_is_made_anew(path: Path, what: str) -> None:
    make(path, 1)
    content = LOCKS[what]
    if content is None:
        (path / "lock.mdb").unlink()
    else:
        (path / "lock.mdb").write_bytes(content)

    assert drain(path) == [1]
    assert (path / "lock.mdb").stat().st_blocks > 0


def test_the_lock_file_of_another_queue_does_no_harm(path: Path) -> None:
    make(path.with_name("other"), *range(20))
    make(path, 1)
    with jobq.open(path.with_name("other"), durability="unsafe") as other:
        other.reserve("a", timeout=0)
        content = (path.with_name("other") / "lock.mdb").read_bytes()  # with readers, and its count
    (path / "lock.mdb").write_bytes(content)
    make(path, 2)

    assert drain(path) == [1, 2]


@pytest.mark.parametrize("name", ["lock.mdb", "turn.lock", "write.lock", "bell"])
def test_a_directory_in_the_place_of_a_helper_file_is_a_clear_error(path: Path, name: str) -> None:
    make(path, 1)
    (path / name).unlink()
    (path / name).mkdir()

    with pytest.raises(StoreUnavailable, match=r"s a directory"):
        drain(path)
    (path / name).rmdir()
    assert drain(path) == [1]


@pytest.mark.parametrize("name", ["turn.lock", "write.lock", "bell", "ballast"])
def test_a_lost_helper_file_is_made_anew(path: Path, name: str) -> None:
    make(path, 1)
    (path / name).unlink()
    make(path, 2)

    assert (path / name).exists()
    assert drain(path) == [1, 2]


@pytest.mark.parametrize("content", [b"", b"short", b"\xff" * 9000])
def test_a_scribbled_bell_does_no_harm(path: Path, content: bytes) -> None:
    make(path, 1)
    (path / "bell").write_bytes(content)
    make(path, 2)

    assert drain(path) == [1, 2]


# A reader slot with our own pid: a container that was killed in a read and started again.


def _keeps_open(path: str) -> None:
    """Keep the lock file in use, so that LMDB does not begin a new one."""
    with LmdbStore(path):
        say("open")
        hear()


def _is_killed_in_a_read(path: str) -> None:
    env = raw(Path(path))
    txn = env.begin()
    say(txn.id())
    os.kill(os.getpid(), signal.SIGKILL)


def _takes_over_a_slot(path: str, dead: int) -> None:
    """Make the slot of a dead reader look like one of ours; then open, and work for a while."""
    lock = Path(path, "lock.mdb")
    ours, theirs = (pid.to_bytes(4, sys.byteorder) for pid in (os.getpid(), dead))
    table = lock.read_bytes()[128:]  # past the header; each slot: transaction (8), pid (4), …
    at = next(at for at in range(0, len(table), 64) if table[at + 8 : at + 12] == theirs)
    with lock.open("r+b") as file:
        file.seek(128 + at + 8)
        file.write(ours)

    with jobq.open(path, durability="unsafe") as svc:
        before = int(svc.stats().store["file_bytes"])
        for _ in range(200):
            svc.enqueue("b", b"x" * 500, retention=0)
            [job] = svc.reserve("b", timeout=0)
            job.done()
        say(int(svc.stats().store["file_bytes"]) - before)


def test_the_slot_of_a_dead_reader_with_our_own_pid_does_not_pin_pages(
    path: Path, start: Start
) -> None:
    make(path, 1)
    keeper = start(_keeps_open, str(path))
    assert keeper.said() == "open"
    reader = start(_is_killed_in_a_read, str(path))
    reader.said()
    assert reader.wait() == -signal.SIGKILL

    growth = start(_takes_over_a_slot, str(path), reader.pid).said()

    assert growth < 500_000  # pinned, it grows by 28 KB with each of 600 transactions
