"""The file stays as small as its queue is short, and nobody who died keeps it from that."""

import os
import signal
from pathlib import Path

import lmdb
import pytest

import jobq
from jobq import JobService
from jobq.repo.lmdb import openfile
from tests.conftest import eventually
from tests.repo.lmdb.conftest import Start
from tests.repo.lmdb.processes import hear, say


def size(svc: JobService) -> int:
    return int(svc.stats().store["file_bytes"])


def churn(svc: JobService, batches: int, batch: int = 100) -> None:
    """Jobs in and out, through a queue that is never longer than one batch."""
    for _ in range(batches):
        svc.enqueue_many("churn", [b"x" * 200] * batch, retention=0)
        svc.done_many(svc.reserve("churn", batch, timeout=0))


def test_steady_churn_through_a_short_queue_does_not_make_the_file_grow(tmp_path: Path) -> None:
    with jobq.open(tmp_path / "queue", durability="unsafe") as svc:
        svc.enqueue_many("backlog", [b"x" * 200] * 500)
        churn(svc, 20)
        early = size(svc)
        churn(svc, 180)

        assert svc.stats().totals.total == 500
        assert size(svc) <= 1.1 * early
        assert (tmp_path / "queue" / "data.mdb").stat().st_size <= 1.1 * early


def test_churn_one_by_one_does_not_make_the_file_grow(tmp_path: Path) -> None:
    with jobq.open(tmp_path / "queue", durability="unsafe") as svc:
        churn(svc, 300, batch=1)
        early = size(svc)
        churn(svc, 2000, batch=1)

        assert size(svc) <= 1.1 * early


def test_jobs_that_are_kept_for_a_while_do_not_make_the_file_grow_beyond_their_number(
    tmp_path: Path,
) -> None:
    """At most 500 done jobs are kept, so 10 000 take no more room than 2 000."""
    with jobq.open(tmp_path / "queue", durability="unsafe", max_done=500) as svc:

        def work(batches: int) -> None:
            for _ in range(batches):
                svc.enqueue_many("a", [b"x" * 200] * 100)
                for job in svc.reserve("a", 50, timeout=0):
                    job.done(b"result")
                svc.done_many(svc.reserve("a", 50, timeout=0))

        work(10)
        early = size(svc)
        work(40)

        assert svc.stats().totals.done <= 600
        assert size(svc) <= 1.25 * early


def _dies_reading(path: str) -> None:
    """Be killed in the middle of a read transaction."""
    env = lmdb.open(path, max_dbs=20, lib_version=0)
    txn = env.begin()
    say(txn.id())
    hear()
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_killed_reader_pins_pages_until_the_next_look(
    tmp_path: Path, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody clears it away unasked: a queue of 0.45 MB grew to 597 MB."""
    path = tmp_path / "queue"
    with jobq.open(path, durability="unsafe") as svc:
        monkeypatch.setattr(openfile, "READER_CHECK_S", 1e9)  # not by itself, for now
        churn(svc, 20)
        small = size(svc)
        child = start(_dies_reading, str(path))
        child.said()
        child.tell()
        assert child.wait() == -signal.SIGKILL
        churn(svc, 20)
        pinned = size(svc)
        assert pinned > 1.5 * small

        monkeypatch.setattr(openfile, "READER_CHECK_S", 0.0)
        churn(svc, 2)
        freed = size(svc)
        churn(svc, 50)

        assert size(svc) <= 1.1 * freed


def test_a_killed_reader_is_cleared_away_by_whoever_opens_the_queue(
    tmp_path: Path, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(openfile, "READER_CHECK_S", 1e9)
    path = tmp_path / "queue"
    keeper = start(_keeps_open, str(path))  # so that LMDB does not begin a new table of readers
    assert keeper.said() == "open"
    child = start(_dies_reading, str(path))
    child.said()
    child.tell()
    assert child.wait() == -signal.SIGKILL

    with jobq.open(path, durability="unsafe") as svc:
        churn(svc, 5)
        early = size(svc)
        churn(svc, 50)

        assert size(svc) <= 1.1 * early


def _keeps_open(path: str) -> None:
    with jobq.open(path, durability="unsafe"):
        say("open")
        hear()


def test_a_store_that_writes_looks_for_killed_readers_by_itself(
    tmp_path: Path, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(openfile, "READER_CHECK_S", 0.3)
    path = tmp_path / "queue"
    with jobq.open(path, durability="unsafe") as svc:
        churn(svc, 5)
        child = start(_dies_reading, str(path))
        child.said()
        child.tell()
        assert child.wait() == -signal.SIGKILL

        def stops_growing() -> bool:
            before = size(svc)
            churn(svc, 20)
            return size(svc) == before

        eventually(stops_growing)
