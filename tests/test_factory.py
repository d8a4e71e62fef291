"""`jobq.open`: from a path to a service, and every path that is none."""

import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import Any

import lmdb
import pytest

import jobq
from jobq import Status
from jobq.errors import (
    InvalidValue,
    JobqError,
    PayloadTooLarge,
    StoreCorrupt,
    StoreUnavailable,
)

HUGE = 10**5000  # past what Python writes out in decimal

NOBODY = 65534


@contextmanager
def as_somebody_without_rights() -> Iterator[None]:
    """Root may do everything, so what a permission forbids is tried as somebody else."""
    root = os.geteuid() == 0
    if root:
        os.seteuid(NOBODY)
    try:
        yield
    finally:
        if root:
            os.seteuid(0)


@pytest.fixture
def shared_path() -> Iterator[Path]:
    """A directory that everybody may enter; those of pytest are their owner's alone."""
    with tempfile.TemporaryDirectory() as name:
        path = Path(name)
        path.chmod(0o755)
        yield path


def everything_under(path: Path) -> list[str]:
    return sorted(str(found.relative_to(path)) for found in path.rglob("*"))


# Paths that are fine.


def test_a_path_is_made_into_a_queue_and_found_again(tmp_path: Path) -> None:
    path = tmp_path / "some" / "where" / "queue"
    with jobq.open(path) as svc:
        job_id = svc.enqueue("mail", {"n": 1})
    with jobq.open(str(path)) as svc:
        assert svc.get(job_id).payload == {"n": 1}
        assert svc.check().ok


def test_a_path_may_be_relative_and_then_stays_where_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with jobq.open("./queue") as svc:
        monkeypatch.chdir("/")
        job_id = svc.enqueue("mail")
        svc.reserve("mail")
    with jobq.open(tmp_path / "queue") as svc:
        assert svc.status(job_id) is Status.READY


@pytest.mark.parametrize("name", ["with space", "почта", "日本", "a'b\"c", "%41", "-", "new\nline"])
def test_a_directory_may_have_any_name(tmp_path: Path, name: str) -> None:
    with jobq.open(tmp_path / name) as svc:
        svc.enqueue("mail")

    assert (tmp_path / name).is_dir()


def test_an_empty_directory_becomes_a_queue(tmp_path: Path) -> None:
    with jobq.open(tmp_path) as svc:
        svc.enqueue("mail")
    with jobq.open(tmp_path, create=False) as svc:
        assert svc.stats().totals.ready == 1


def test_a_link_to_a_directory_leads_to_its_queue(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "queue")
    with jobq.open(tmp_path / "queue") as svc, jobq.open(tmp_path / "link") as same:
        job_id = svc.enqueue("mail")
        assert same.status(job_id) is Status.READY


def test_the_same_path_opened_twice_is_one_queue(tmp_path: Path) -> None:
    with jobq.open(tmp_path / "queue") as one:
        with jobq.open(tmp_path / "queue") as two:
            job_id = one.enqueue("mail")
            (job,) = two.reserve("mail", timeout=0)
            job.done()
        assert one.status(job_id) is Status.DONE
        assert one.check().ok


def test_what_is_volatile_belongs_to_its_service_alone() -> None:
    with jobq.open(":memory:") as one, jobq.open(":memory:") as two:
        one.enqueue("mail")
        assert two.topics() == []
        assert one.stats().store["kind"] == "memory"


def test_a_queue_is_its_owners_alone(tmp_path: Path) -> None:
    with jobq.open(tmp_path / "queue") as svc:
        svc.enqueue("mail")
        svc.reserve("mail")
        modes = {path.name: path.stat().st_mode & 0o077 for path in tmp_path.rglob("*")}

    assert modes == dict.fromkeys(modes, 0)


@pytest.mark.parametrize("durability", ["full", "relaxed", "unsafe"])
def test_a_queue_may_be_opened_with_each_durability(tmp_path: Path, durability: str) -> None:
    with jobq.open(tmp_path / "queue", durability=durability) as svc:
        svc.enqueue("mail")
        assert svc.stats().store["durability"] == durability
    with jobq.open(tmp_path / "queue") as svc:
        assert svc.stats().totals.ready == 1


def test_options_are_those_of_the_services_jobs(tmp_path: Path) -> None:
    for path in (":memory:", tmp_path / "queue"):
        with jobq.open(path, lease=5, max_retries=0, tags=["t"]) as svc:
            record = svc.get(svc.enqueue("mail"))
            assert record.options.as_dict() == {"lease": 5.0, "max_retries": 0, "tags": ("t",)}


@pytest.mark.parametrize("path", [":memory:", "queue"])
def test_how_long_finished_jobs_are_kept_is_said_at_opening(tmp_path: Path, path: str) -> None:
    where = path if path == ":memory:" else tmp_path / path
    with jobq.open(where, keep_done=0, keep_canceled=0) as svc:
        svc.enqueue_many("mail", range(2))
        done, canceled = svc.reserve("mail", 2)
        done.done()
        canceled.cancel()
        assert svc.stats().totals.total == 0
    with jobq.open(where, max_done=1) as svc:
        svc.enqueue_many("mail", range(3))
        svc.done_many(svc.reserve("mail", 3))
        assert svc.stats().totals.done == 1


# Paths that are none.


NO_PATH: list[Any] = [
    *(None, 5, 1.5, True, b"queue", ["queue"], object(), HUGE, "", "a\0b"),
    *("postgresql://localhost/jobs", "sqlite:///jobs", "redis://localhost"),
]


@pytest.mark.parametrize(
    "path", NO_PATH, ids=lambda path: f"{path!s:.12}" if path is not HUGE else "huge"
)
def test_what_is_no_path_is_refused(
    path: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InvalidValue, match="path is "):
        jobq.open(path)

    assert everything_under(tmp_path) == []


def test_a_path_made_of_bytes_is_refused(tmp_path: Path) -> None:
    class Bytes(os.PathLike[bytes]):
        def __fspath__(self) -> bytes:
            return os.fsencode(tmp_path / "queue")

    with pytest.raises(InvalidValue, match="expected a directory"):
        jobq.open(Bytes())  # type: ignore[arg-type]

    assert everything_under(tmp_path) == []


def test_a_pure_path_is_a_path(tmp_path: Path) -> None:
    with jobq.open(PurePosixPath(tmp_path / "queue")) as svc:
        assert svc.topics() == []


def a_file(path: Path) -> None:
    path.write_text("mine")


def something_else(path: Path) -> None:
    path.mkdir()
    (path / "thesis.txt").write_text("mine")


def foreign_lmdb(path: Path) -> None:
    with lmdb.open(str(path)) as env, env.begin(write=True) as txn:
        txn.put(b"key", b"mine")


def rubbish(path: Path) -> None:
    path.mkdir()
    (path / "data.mdb").write_bytes(b"mine" * 5000)


def an_empty_data_file(path: Path) -> None:
    path.mkdir()
    (path / "data.mdb").touch()


def a_fifo(path: Path) -> None:
    os.mkfifo(path)


def a_link_that_leads_nowhere(path: Path) -> None:
    path.symlink_to(path.parent / "nowhere" / "at all")


def a_directory_as_data_file(path: Path) -> None:
    (path / "data.mdb").mkdir(parents=True)


@pytest.mark.parametrize(
    ("make", "kinds"),
    [
        (a_file, InvalidValue),
        (something_else, InvalidValue),
        (foreign_lmdb, (StoreCorrupt, InvalidValue)),
        (rubbish, (StoreCorrupt, InvalidValue)),
        (an_empty_data_file, (StoreCorrupt, InvalidValue)),
        (a_fifo, InvalidValue),
        (a_link_that_leads_nowhere, (StoreUnavailable, InvalidValue)),
        (a_directory_as_data_file, (StoreCorrupt, StoreUnavailable, InvalidValue)),
    ],
)
@pytest.mark.parametrize("create", [True, False])
def test_what_holds_no_queue_is_refused_and_left_as_it_was(
    tmp_path: Path,
    make: Callable[[Path], None],
    kinds: type[JobqError] | tuple[type[JobqError], ...],
    create: bool,
) -> None:
    path = tmp_path / "queue"
    make(path)
    before = contents(tmp_path)

    with pytest.raises(kinds) as caught:
        jobq.open(path, create=create)

    assert str(path) in str(caught.value)
    assert contents(tmp_path) == before


def contents(path: Path) -> dict[str, bytes | None]:
    """All files and what is in them, but for LMDB's lock file: every opening writes into that."""
    return {
        str(found.relative_to(path)): found.read_bytes() if found.is_file() else None
        for found in path.rglob("*")
        if found.name != "lock.mdb"
    }


def test_a_path_through_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(JobqError, match="file"):
        jobq.open(tmp_path / "file" / "queue")


@pytest.mark.parametrize("name", ["q" * 300, "/".join(["q" * 100] * 50)], ids=["long", "deep"])
def test_a_path_longer_than_the_system_takes_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(JobqError):
        jobq.open(tmp_path / name)


ELSEWHERE: dict[str, tuple[Any, str, Any]] = {
    "this is darwin": (sys, "platform", "darwin"),
    "this Python is not built for glibc": (os, "confstr_names", {}),
    "this is pypy": (sys.implementation, "name", "pypy"),
}


@pytest.mark.parametrize("why", ELSEWHERE)
def test_a_machine_that_takes_no_queue_says_so_and_memory_works_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, why: str
) -> None:
    monkeypatch.setattr(*ELSEWHERE[why])
    path = tmp_path / "queue"
    calls: list[Callable[[], object]] = [
        lambda: jobq.open(path),
        lambda: jobq.open(path, topics="memory"),
        lambda: jobq.doctor(path),
        lambda: jobq.compact(path),
        lambda: jobq.restore(tmp_path / "backup", path),
        lambda: jobq.salvage(path).__enter__(),
    ]
    for call in calls:
        with pytest.raises(StoreUnavailable, match=f"{why}; .* needs CPython on Linux with glibc"):
            call()
    with jobq.open(":memory:") as svc:
        svc.enqueue("mail")

    assert everything_under(tmp_path) == []


def test_a_loop_of_links_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to(tmp_path / "b")
    (tmp_path / "b").symlink_to(tmp_path / "a")
    with pytest.raises(JobqError):
        jobq.open(tmp_path / "a")


def test_no_queue_is_made_when_none_was_to_be_made(tmp_path: Path) -> None:
    for path in (tmp_path / "nowhere", tmp_path):
        with pytest.raises(InvalidValue, match="holds no queue"):
            jobq.open(path, create=False)

    assert everything_under(tmp_path) == []


def test_a_place_where_nothing_can_be_written_is_refused(shared_path: Path) -> None:
    shared_path.chmod(0o555)
    with as_somebody_without_rights(), pytest.raises(StoreUnavailable, match="ermission"):
        jobq.open(shared_path / "queue")

    assert everything_under(shared_path) == []


def test_a_queue_that_may_not_be_read_is_refused(shared_path: Path) -> None:
    path = shared_path / "queue"
    with jobq.open(path) as svc:
        job_id = svc.enqueue("mail")
    path.chmod(0)
    with as_somebody_without_rights(), pytest.raises(StoreUnavailable, match="ermission"):
        jobq.open(path)

    path.chmod(0o700)
    with jobq.open(path) as svc:
        assert svc.status(job_id) is Status.READY


def test_a_queue_that_may_not_be_written_is_refused(shared_path: Path) -> None:
    path = shared_path / "queue"
    with jobq.open(path) as svc:
        job_id = svc.enqueue("mail")
    for found in [path, *path.rglob("*")]:
        found.chmod(0o555 if found.is_dir() else 0o444)
    with as_somebody_without_rights(), pytest.raises(StoreUnavailable):
        jobq.open(path)

    for found in [path, *path.rglob("*")]:
        found.chmod(0o700 if found.is_dir() else 0o600)
    with jobq.open(path) as svc:
        assert svc.status(job_id) is Status.READY
        assert svc.check().ok


@pytest.mark.parametrize("path", ["/proc/jobq", "/sys/jobq", "/dev/null", "/dev/null/queue"])
def test_a_file_system_that_takes_no_queue_is_refused(path: str) -> None:
    with pytest.raises(JobqError, match=path):
        jobq.open(path)


@pytest.mark.parametrize("path", [":memory:", "queue"])
@pytest.mark.parametrize("topics", [None, "memory"])
def test_the_limit_of_payloads_and_the_backoff_are_said_at_opening(
    tmp_path: Path, path: str, topics: str | None
) -> None:
    where = path if path == ":memory:" else tmp_path / path
    with jobq.open(where, topics=topics, max_payload=10, backoff=lambda k, _: k * 1000.0) as svc:
        with pytest.raises(PayloadTooLarge, match="the limit is 10"):
            svc.enqueue("mail", bytes(9))
        job_id = svc.enqueue("mail", bytes(8))
        svc.reserve("mail")[0].retry()
        due = svc.get(job_id).due
        assert due is not None
        assert 900 < (due - datetime.now(UTC)).total_seconds() <= 1000


# Arguments.


BAD: list[Any] = [
    *(("durability", value) for value in ["none", "", "Full", None, 5, ["full"], True, HUGE]),
    *(
        (name, value)
        for name in ("keep_done", "keep_canceled")
        for value in [-1, float("nan"), float("inf"), None, "5", True, 10**12, HUGE]
    ),
    *(("max_done", value) for value in [-1, 1.5, None, "5", True, 2**63, HUGE]),
    *(("max_size", value) for value in [-1, 0, 100, 1.5, "5", True, 2**63, HUGE]),
    *(("create", value) for value in [None, 5, "no"]),
    *(("max_payload", value) for value in [-1, 0, 1.5, None, "5", True, 2**31, HUGE]),
    *(("backoff", value) for value in [5, None, "exponential", [1, 2]]),
    *(("lease", value) for value in [0, -1, "5", HUGE]),
    ("leese", 5),
    *(("topics", value) for value in ["disk", "", "Memory", 5, True, ["memory"], HUGE]),
    ("clock", None),
]


@pytest.mark.parametrize("path", ["queue", ":memory:"])
@pytest.mark.parametrize(
    ("name", "value"), BAD, ids=[f"{name}-{type(value).__name__}" for name, value in BAD]
)
def test_a_bad_argument_is_refused_before_anything_is_made(
    tmp_path: Path, path: str, name: str, value: Any
) -> None:
    where = path if path == ":memory:" else tmp_path / path
    with pytest.raises(InvalidValue, match=name):
        jobq.open(where, **{name: value})

    assert everything_under(tmp_path) == []


@pytest.mark.parametrize(("name", "value"), [("durability", "relaxed"), ("max_size", 2**30)])
def test_one_queue_cannot_be_open_in_two_ways(tmp_path: Path, name: str, value: Any) -> None:
    with jobq.open(tmp_path / "queue") as svc:
        with pytest.raises(InvalidValue, match=name):
            jobq.open(tmp_path / "queue", **{name: value})
        svc.enqueue("mail")  # and the first is none the worse

    assert svc.stopped


def test_a_refused_opening_leaves_the_queue_free_for_the_next(tmp_path: Path) -> None:
    with pytest.raises(InvalidValue):
        jobq.open(tmp_path / "queue", lease=-1)
    with jobq.open(tmp_path / "queue", durability="relaxed") as svc:
        svc.enqueue("mail")
