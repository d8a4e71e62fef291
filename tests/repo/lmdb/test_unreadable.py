"""A job whose records are damaged stops nobody, and can be got rid of.

A wrong payload is never handed out; but all others are, without a repair, and what goes through
many jobs passes it over.
"""

import itertools
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import jobq
from jobq import JobService, Outcome, Status
from jobq.errors import JobNotFound, StoreCorrupt
from jobq.ids import to_raw
from tests.repo.lmdb.raw import Raw, reserved
from tests.repo.test_contract_repair import damage

JOBS = 5


@pytest.fixture(params=[None, "memory"], ids=["lmdb", "mixed"])
def how(request: pytest.FixtureRequest) -> dict[str, Any]:
    """How the queue is opened: durable, with its topics in the file or in memory."""
    return {} if request.param is None else {"topics": request.param}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "queue"


@pytest.fixture(autouse=True)
def _the_log_is_read(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.ERROR, logger="jobq")


def spoil(path: Path, *jids: str, database: str = "jobs") -> None:
    """Turn a bit in a record of each of these jobs, which nobody has open."""
    for jid in jids:
        Raw(path).flip(database, to_raw(jid))


@pytest.fixture
def spoiled(path: Path, how: dict[str, Any]) -> Iterator[tuple[JobService, list[str]]]:
    """A queue of ready jobs, 0 to 4, of which the first and the third cannot be read."""
    with jobq.open(path) as svc:
        jids = svc.enqueue_many("mail", range(JOBS))
    spoil(path, jids[0], jids[2])
    with jobq.open(path, **how) as svc:
        yield svc, jids


def test_the_jobs_behind_it_are_handed_out(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with jobq.open(path) as svc:
        jids = svc.enqueue_many("mail", range(JOBS))
    spoil(path, jids[0], jids[2])
    with jobq.open(path) as svc:
        first = svc.reserve("mail", 1, timeout=0)

        assert [job.payload for job in first] == [1], "not none, and not one too many"
        assert reserved(svc) == [3, 4]
        assert svc.stats("mail").totals.ready == 0, "what is set aside is not waited for"
        assert [jid in caplog.text for jid in jids] == [True, False, True, False, False]
        assert len(svc.check().problems) == 2
        assert len(svc.check(repair=True).problems) == 2


@pytest.mark.parametrize("patterns", [["mail*"], ["mail", "post"]])
def test_nor_does_it_stop_who_takes_of_several_topics(path: Path, patterns: list[str]) -> None:
    with jobq.open(path) as svc:
        jids = svc.enqueue_many("mail", range(3))
        svc.enqueue("post", "post")
    spoil(path, *jids[:2])
    with jobq.open(path) as svc:
        topics = [jobq.Pattern(one) if "*" in one else one for one in patterns]
        jobs = svc.reserve(topics, 10, timeout=0)

        assert {job.payload for job in jobs} == ({2} if len(patterns) == 1 else {2, "post"})


@pytest.mark.parametrize("settings", [{"ageing": 1.0}, {"concurrency": 10}, {"paused": False}])
def test_nor_where_the_topic_has_settings(path: Path, settings: dict[str, Any]) -> None:
    with jobq.open(path) as svc:
        svc.configure("mail", **settings)
        jids = svc.enqueue_many("mail", range(3))
    spoil(path, jids[0])
    with jobq.open(path) as svc:
        assert reserved(svc) == [1, 2]


def test_of_a_group_the_others_are_handed_out(path: Path) -> None:
    with jobq.open(path) as svc:
        jids = [svc.enqueue("mail", number, group="g") for number in range(3)]
    spoil(path, jids[0])
    with jobq.open(path) as svc:
        assert reserved(svc) == [1, 2]
        for jid in jids[1:]:
            svc.cancel(jid)
        assert len(svc.check(repair=True).problems) == 1


def test_listings_pass_it_over(
    spoiled: tuple[JobService, list[str]], caplog: pytest.LogCaptureFixture
) -> None:
    svc, jids = spoiled

    assert [record.id for record in svc.find()] == [jids[1], jids[3], jids[4]]
    assert jids[0] in caplog.text
    assert [record.id for record in svc.find(topic="mail", limit=1)] == [jids[1]]


def test_so_does_what_is_done_to_many(spoiled: tuple[JobService, list[str]]) -> None:
    svc, jids = spoiled

    done = svc.select(topic="mail").cancel()

    assert done.changed == 3
    assert svc.cancel(jids) == [Outcome.INVALID] * JOBS
    assert svc.reset(jids[:2]) == [Outcome.INVALID, Outcome.OK]


def test_one_job_that_cannot_be_read_is_an_error(spoiled: tuple[JobService, list[str]]) -> None:
    svc, jids = spoiled

    for verb in (svc.get, svc.status, svc.cancel, svc.reset):
        with pytest.raises(StoreCorrupt, match="damaged"):
            verb(jids[0])


def test_an_export_says_that_it_would_miss_something(
    spoiled: tuple[JobService, list[str]],
) -> None:
    svc, jids = spoiled

    with pytest.raises(StoreCorrupt, match="--salvage"):
        list(svc.export_jobs())
    svc.delete([jids[0], jids[2]])
    assert [line["payload"] for line in svc.export_jobs() if line["kind"] == "job"] == [1, 3, 4]


def test_it_can_be_deleted_and_then_nothing_is_wrong(
    spoiled: tuple[JobService, list[str]],
) -> None:
    svc, jids = spoiled

    svc.delete(jids[0])
    outcomes = svc.delete([jids[2], jids[2], jids[3]])

    assert outcomes == [Outcome.OK, Outcome.MISSING, Outcome.OK]
    assert svc.check().problems == ()
    assert svc.stats("mail").totals.ready == 2
    with pytest.raises(JobNotFound):
        svc.get(jids[0])
    assert reserved(svc) == [1, 4]


def test_it_is_deleted_with_all_that_was_kept_of_it(path: Path, how: dict[str, Any]) -> None:
    with jobq.open(path) as svc:
        jid = svc.enqueue("mail", 1)
        (job,) = svc.reserve("mail", timeout=0)
        job.log("one")
        job.progress(1, 2)
        job.retry(0, error="no")
        (job,) = svc.reserve("mail", timeout=0)
        job.done("result")
    spoil(path, jid, database="states")
    with jobq.open(path, **how) as svc:
        svc.delete(jid)

        assert svc.check().problems == ()
        assert svc.stats("mail").totals.done == 0


def test_what_somebody_holds_is_not_deleted_as_far_as_that_can_be_told(path: Path) -> None:
    with jobq.open(path) as svc:
        jid = svc.enqueue("mail", 1)
        (job,) = svc.reserve("mail", timeout=0)
        damage(svc.store, lambda tx: _spoil_body(tx, to_raw(jid)))

        assert svc.delete([jid]) == [Outcome.INVALID]
        job.done()
        assert svc.status(jid) is Status.DONE


def _spoil_body(tx: Any, job_id: bytes) -> None:
    access = tx.jobs._access
    access.dirty = True
    access.txn.put(job_id, b"spoiled", db=access.db.jobs)


def test_a_purge_passes_it_over(path: Path, how: dict[str, Any]) -> None:
    with jobq.open(path) as svc:
        jids = svc.enqueue_many("mail", range(JOBS))
        for job in svc.reserve("mail", JOBS, timeout=0):
            job.done()
    spoil(path, jids[1], database="states")
    with jobq.open(path, **how) as svc:
        assert svc.purge("mail", status=Status.DONE) == JOBS - 1
        svc.delete(jids[1])
        assert svc.check().problems == ()


def test_whichever_records_are_damaged_the_rest_of_the_queue_works(path: Path) -> None:
    """Each subset of the jobs in turn: bodies, or states, or both."""
    for number, (count, database) in enumerate(
        itertools.product(range(1, JOBS + 1), ["jobs", "states"])
    ):
        where = path.with_name(f"queue-{number}")
        with jobq.open(where, durability="unsafe") as svc:
            jids = svc.enqueue_many("mail", range(JOBS))
            for job in svc.reserve("mail", JOBS, timeout=0):
                job.retry(0)
        spoil(where, *jids[:count], database=database)
        with jobq.open(where, durability="unsafe") as svc:
            assert reserved(svc) == list(range(count, JOBS))
            assert svc.delete(jids[:count]) == [Outcome.OK] * count
            assert svc.check().problems == ()
