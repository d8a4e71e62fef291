"""Files that are pulled away under a running store: an error at once, not lost acknowledgements.

A process that has a file open goes on with it whatever its path says: a bare LMDB queue
acknowledged 279 760 commits to a file that had been replaced.
"""

import contextlib
import errno
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NoReturn

import pytest

import jobq
from jobq import JobService
from jobq.errors import JobqError, StoreBusy, StoreUnavailable
from jobq.repo.lmdb import LmdbStore, steps
from tests.repo.lmdb.conftest import Start
from tests.repo.lmdb.processes import hear, say


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "queue"


@pytest.fixture
def svc(path: Path) -> Iterator[JobService]:
    """A store with one job, open while its files are pulled away."""
    svc = jobq.open(path, durability="unsafe")
    svc.enqueue("a", "before")
    yield svc
    with contextlib.suppress(StoreUnavailable):
        svc.close()


def make(path: Path, payload: object) -> None:
    """Another queue, closed."""
    with jobq.open(path, durability="unsafe") as svc:
        svc.enqueue("a", payload)


def ready(path: Path) -> list[Any]:
    """The payloads that whoever opens the directory now finds."""
    with jobq.open(path, durability="unsafe", create=False) as svc:
        assert svc.check().problems == ()
        return [record.payload for record in svc.find(status="ready")]


def data_is_removed(path: Path) -> None:
    (path / "data.mdb").unlink()


def data_is_replaced(path: Path) -> None:
    make(path.with_name("other"), "other")
    (path.with_name("other") / "data.mdb").replace(path / "data.mdb")


def data_is_replaced_by_a_copy_of_itself(path: Path) -> None:
    shutil.copy(path / "data.mdb", path / "copy")
    (path / "copy").replace(path / "data.mdb")


def lock_is_removed(path: Path) -> None:
    (path / "lock.mdb").unlink()


def lock_is_replaced(path: Path) -> None:
    (path / "copy").write_bytes(bytes(8192))
    (path / "copy").replace(path / "lock.mdb")


def directory_is_moved_away(path: Path) -> None:
    path.rename(path.with_name("moved"))


def directory_is_replaced(path: Path) -> None:
    path.rename(path.with_name("moved"))
    make(path.with_name("other"), "other")
    path.with_name("other").rename(path)


def directory_is_removed(path: Path) -> None:
    shutil.rmtree(path)


WAYS = (
    data_is_removed,
    data_is_replaced,
    data_is_replaced_by_a_copy_of_itself,
    lock_is_removed,
    lock_is_replaced,
    directory_is_moved_away,
    directory_is_replaced,
    directory_is_removed,
)

pulled_away = pytest.mark.parametrize("pull", WAYS, ids=lambda way: str(way.__name__))


def test_files_that_cannot_be_looked_at_for_a_moment_are_not_taken_for_gone(
    svc: JobService, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> NoReturn:
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as now:
        now.setattr("jobq.repo.lmdb.openfile.os.stat", fail)
        with pytest.raises(StoreUnavailable, match="Input/output error"):
            svc.enqueue("a", "meanwhile")

    assert svc.enqueue("a", "afterwards")
    assert [job.payload for job in svc.find()] == ["before", "afterwards"]


@pulled_away
def test_the_next_write_is_an_error(
    path: Path, svc: JobService, pull: Callable[[Path], None]
) -> None:
    pull(path)

    with pytest.raises(StoreUnavailable, match="removed or replaced while it was open"):
        svc.enqueue("a", "after")


@pulled_away
def test_every_later_call_is_an_error_until_the_store_is_closed(
    path: Path, svc: JobService, pull: Callable[[Path], None]
) -> None:
    pull(path)
    for _ in range(3):
        with pytest.raises(StoreUnavailable, match="close it and open it again"):
            svc.enqueue("a", "after")

    for call in (
        lambda: svc.reserve("a", timeout=0),
        lambda: svc.reserve("a", timeout=5),
        svc.stats,
        svc.topics,
        svc.prune,
    ):
        with pytest.raises(StoreUnavailable):
            call()


@pulled_away
def test_a_holder_cannot_settle_into_a_file_that_nobody_will_read(
    path: Path, svc: JobService, pull: Callable[[Path], None]
) -> None:
    [job] = svc.reserve("a", timeout=0)
    pull(path)

    with pytest.raises(StoreUnavailable):
        job.done()


@pulled_away
@pytest.mark.parametrize("noticed", [True, False], ids=["noticed", "unnoticed"])
def test_closing_needs_no_files(path: Path, pull: Callable[[Path], None], noticed: bool) -> None:
    """Also with a job in hand: it is ready again when its holder is seen to be gone."""
    svc = jobq.open(path, durability="unsafe")
    svc.enqueue("a", "before")
    svc.reserve("a", timeout=0)
    pull(path)
    if noticed:
        with pytest.raises(StoreUnavailable):
            svc.enqueue("a", "after")

    svc.close()


def test_closing_what_was_never_used_needs_no_files(path: Path) -> None:
    svc = jobq.open(path, durability="unsafe")
    shutil.rmtree(path)

    svc.close()

    make(path, "after")
    assert ready(path) == ["after"]


@pulled_away
def test_closing_and_opening_again_works(path: Path, pull: Callable[[Path], None]) -> None:
    with jobq.open(path, durability="unsafe") as svc:
        svc.enqueue("a", "before")
        pull(path)
        with pytest.raises(StoreUnavailable):
            svc.enqueue("a", "lost")

    with jobq.open(path, durability="unsafe") as svc:
        svc.enqueue("a", "after")

    assert ready(path)[-1] == "after"
    assert "lost" not in ready(path)


@pulled_away
def test_opening_again_works_before_the_old_one_is_closed(
    path: Path, svc: JobService, pull: Callable[[Path], None]
) -> None:
    pull(path)
    with pytest.raises(StoreUnavailable):
        svc.enqueue("a", "lost")

    with jobq.open(path, durability="unsafe") as again:
        again.enqueue("a", "after")
        [*_, last] = again.find(status="ready")

    assert last.payload == "after"


def test_what_was_moved_away_keeps_what_was_acknowledged(path: Path, svc: JobService) -> None:
    path.rename(path.with_name("moved"))
    with pytest.raises(StoreUnavailable):
        svc.enqueue("a", "after")
    svc.close()

    assert ready(path.with_name("moved")) == ["before"]


def test_a_directory_that_comes_back_must_be_opened_again(path: Path, svc: JobService) -> None:
    path.rename(path.with_name("moved"))
    with pytest.raises(StoreUnavailable):
        svc.enqueue("a", "after")
    path.with_name("moved").rename(path)

    with pytest.raises(StoreUnavailable):
        svc.enqueue("a", "after")
    svc.close()
    assert ready(path) == ["before"]


def test_a_directory_that_was_away_between_two_writes_is_still_the_same(
    path: Path, svc: JobService
) -> None:
    path.rename(path.with_name("moved"))
    path.with_name("moved").rename(path)

    svc.enqueue("a", "after")

    assert [record.payload for record in svc.find(status="ready")] == ["before", "after"]


def _writes_on(path: str) -> None:
    """Enqueue numbers, acknowledging each, until that is refused."""
    svc = jobq.open(path, durability="unsafe")
    say("open")
    number = 0
    try:
        while True:
            svc.enqueue("a", number)
            number += 1
            if number == 50:
                say("writing")
    except StoreUnavailable:
        say(number)
    hear()


@pytest.mark.parametrize("pull", [lock_is_removed, data_is_removed], ids=["lock", "data"])
def test_two_processes_never_write_side_by_side_after_a_file_was_removed(
    path: Path, start: Start, pull: Callable[[Path], None]
) -> None:
    """The second to come makes the file anew; the first must not go on beside it."""
    first = start(_writes_on, str(path))
    assert first.said() == "open"
    assert first.said() == "writing"
    pull(path)
    with jobq.open(path, durability="unsafe") as svc:
        for number in range(100):
            svc.enqueue("b", number)
        acknowledged = first.said()
        there = [record.payload for record in svc.select(topic="a")]
        assert len(svc.find(topic="b", limit=10_000)) == 100
        assert svc.check().problems == ()

    if pull is lock_is_removed:  # and perhaps one more, of which nothing was said
        assert there in (list(range(acknowledged)), list(range(acknowledged + 1)))
    else:
        assert there == []
    first.tell()
    first.join()


def _pauses_before_its_commit(path: str) -> None:
    """Enqueue, but let the test act in the moment before the commit."""
    svc = jobq.open(path, durability="unsafe")

    def reached(step: str) -> None:
        if step == "counts written":
            say("paused")
            hear()

    setattr(steps, "reached", reached)  # noqa: B010 - mypy takes a module's function for final
    try:
        svc.enqueue("a", "during")
        say("acknowledged")
    except JobqError:
        say("refused")
    hear()


def test_what_is_committed_while_the_lock_is_removed_and_made_anew_is_kept_or_refused(
    path: Path, start: Start
) -> None:
    """The new lock knows of no commit that was under way, and the next one would undo it."""
    make(path, "before")
    first = start(_pauses_before_its_commit, str(path))
    assert first.said() == "paused"
    lock_is_removed(path)
    second = None
    with contextlib.suppress(StoreBusy):  # one way to be safe
        second = JobService(LmdbStore(path, durability="unsafe", lock_timeout=0.2))
    first.tell()
    answer = first.said()
    second = second or jobq.open(path, durability="unsafe")
    second.enqueue("a", "after")
    there = [record.payload for record in second.find()]
    problems = second.check().problems
    second.close()

    assert problems == ()
    assert answer == "refused" or "during" in there
    assert [payload for payload in there if payload != "during"] == ["before", "after"]


def test_jobs_of_a_reading_process_are_not_mixed_up_with_those_of_another_queue(
    path: Path, svc: JobService
) -> None:
    """A read goes on in the old file: what it says was true, and no write follows from it."""
    data_is_replaced(path)

    assert [record.payload for record in svc.find()] == ["before"]
    with pytest.raises(StoreUnavailable):
        svc.reserve("a", timeout=0)
    assert ready(path) == ["other"]
