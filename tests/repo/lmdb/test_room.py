"""Full quotas, full maps, full disks: new jobs are refused, and the old ones can be worked off.

On a map that is full to the last page LMDB cannot even delete: of 100 such queues none could be
drained.
"""

import contextlib
import errno
import os
import random
import shutil
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import lmdb
import pytest

import jobq
from jobq import JobService, NewJob
from jobq.clock import ManualClock
from jobq.errors import StoreFull, StoreUnavailable
from jobq.repo.lmdb import LmdbStore
from jobq.repo.lmdb.jobs import LmdbJobs
from jobq.repo.lmdb.room import BALLAST, Room
from tests.repo.lmdb.conftest import Start
from tests.repo.lmdb.disks import has_ballast, mount, stuff
from tests.repo.lmdb.processes import hear, outcome_of, say

MIB = 2**20

OnADisk = Callable[..., None]


def fill(svc: JobService, dice: random.Random, most: int = 100_000) -> dict[str, bytes]:
    """Enqueue jobs of a random shape until there is no room; what was acknowledged, by id."""
    jobs: dict[str, bytes] = {}
    largest = dice.choice((500, 2000, 10_000, 30_000))
    batch = dice.choice((1, 5, 50))
    for size in (batch, 1):  # at last, what fits into the gaps
        with contextlib.suppress(StoreFull):
            while len(jobs) < most:
                payloads = [dice.randbytes(dice.randrange(largest)) for _ in range(size)]
                jobs |= zip(svc.enqueue_many("a", payloads), payloads, strict=True)
    return jobs


def drain(svc: JobService, jobs: dict[str, bytes], dice: random.Random) -> None:
    """Work the jobs off one by one, in all ways that there are: all of them, as they went in."""
    left = dict(jobs)
    for jid in dice.sample(sorted(left), len(left) // 10):
        svc.cancel(jid)
        del left[jid]
    while reserved := svc.reserve("a", dice.choice((1, 7)), timeout=0):
        for job in reserved:
            way = dice.random()
            if way < 0.1 and not job.retries:
                job.retry(0, error="again" * 20)
                continue
            if way < 0.2:
                job.extend(60)
            assert left.pop(job.id) == job.payload
            if way < 0.3:
                job.cancel("rejected", error="no")
            else:
                job.done(b"result" if way < 0.8 else None)
    assert left == {}
    assert svc.stats().totals.unfinished == 0


def assert_it_goes_on(svc: JobService, dice: random.Random) -> None:
    """A queue that was worked off takes jobs again."""
    assert svc.check().problems == ()
    again = fill(svc, dice, most=200)
    assert len(again) > 5
    drain(svc, again, dice)
    assert svc.check().problems == ()


def test_a_refused_job_leaves_nothing(tmp_path: Path) -> None:
    store = LmdbStore(tmp_path / "queue", durability="unsafe", max_size=MIB)
    with JobService(store) as svc:
        jobs = fill(svc, random.Random(1))
        before = svc.stats().topics

        for refused in (
            lambda: svc.enqueue("a", b"x" * 100_000),
            lambda: svc.enqueue_many("b", [b"x" * 10_000] * 10),
            lambda: svc.enqueue("c", b"x" * 100_000, delay=60),
        ):
            with pytest.raises(StoreFull, match="no room"):
                refused()

        assert svc.stats().topics == before
        assert {record.id for record in svc.find(limit=10_000)} == set(jobs)


def test_a_full_queue_refuses_an_edit_that_may_need_room_and_allows_any_other(
    tmp_path: Path,
) -> None:
    with jobq.open(tmp_path / "q", max_size=2 * MIB) as svc:
        ids = sorted(fill(svc, random.Random(5)))
        before = svc.get(ids[0])
        for change in ({"payload": b"x" * 30_000}, {"name": "n" * 255}):
            with pytest.raises(StoreFull):
                svc.edit(ids[:50], **change)
        assert svc.get(ids[0]) == before

        svc.edit(ids[0], weight=3, lease=None)
        svc.edit(ids, topic="elsewhere")
        svc.edit(ids[:5], delay=5)
        svc.configure("elsewhere", keep_done=0)
        assert svc.stats("elsewhere").totals.unfinished == len(ids)
        assert svc.check().problems == ()


def test_a_full_queue_refuses_a_reset_that_gives_a_deadline_and_allows_any_other(
    tmp_path: Path,
) -> None:
    with jobq.open(tmp_path / "q", max_size=2 * MIB, durability="unsafe") as svc:
        ids = sorted(fill(svc, random.Random(5)))
        svc.cancel(ids)
        before = svc.get(ids[0])
        for deadline, ttl in ((None, 60), (datetime(2100, 1, 1, tzinfo=UTC), None)):
            with pytest.raises(StoreFull):
                svc.reset(ids, deadline=deadline, ttl=ttl)
        assert svc.get(ids[0]) == before
        assert svc.stats().totals.canceled == len(ids)

        half = len(ids) // 2
        assert svc.reset(ids[:half]) == ["ok"] * half
        svc.configure("a", ttl=5000)
        assert svc.reset(ids[half:]) == ["ok"] * (len(ids) - half)
        assert sum(job.deadline is not None for job in svc.find(limit=1000)) == len(ids) - half
        assert svc.check().problems == ()


def test_a_job_that_is_larger_than_the_whole_quota_is_refused(tmp_path: Path) -> None:
    store = LmdbStore(tmp_path / "queue", durability="unsafe", max_size=MIB)
    with JobService(store, max_payload=8 * MIB) as svc:
        with pytest.raises(StoreFull):
            svc.enqueue("a", b"x" * 4 * MIB)

        assert svc.check().problems == ()
        assert svc.enqueue("a", b"x")


def test_follow_up_jobs_that_do_not_fit_leave_their_parent_held(tmp_path: Path) -> None:
    store = LmdbStore(tmp_path / "queue", durability="unsafe", max_size=MIB)
    with JobService(store) as svc:
        fill(svc, random.Random(2))
        [job] = svc.reserve("a", timeout=0)
        follow = [NewJob("b", b"x" * 100_000)]

        with pytest.raises(StoreFull):
            job.done(then=follow)
        assert svc.status(job.id) == "reserved"
        assert svc.topics() == ["a"]

        job.done()
        assert svc.status(job.id) == "done"
        assert svc.check().problems == ()


def test_a_small_map_grows_with_its_queue(tmp_path: Path) -> None:
    store = LmdbStore(tmp_path / "queue", durability="unsafe", map_size=MIB, max_size=64 * MIB)
    with JobService(store) as svc:
        ids = [jid for _ in range(20) for jid in svc.enqueue_many("a", [b"x" * 10_000] * 20)]

        assert int(svc.stats().store["file_bytes"]) > 4 * MIB
        assert svc.stats().totals.ready == len(ids)
        assert svc.check().problems == ()


def test_a_queue_larger_than_the_map_asked_for_opens(tmp_path: Path) -> None:
    with jobq.open(tmp_path / "queue", durability="unsafe") as svc:
        svc.enqueue_many("a", [b"x" * 10_000] * 400)

    with JobService(LmdbStore(tmp_path / "queue", durability="unsafe", map_size=MIB)) as svc:
        assert svc.enqueue("a", b"more")
        assert len(svc.done_many(svc.reserve("a", 1000, timeout=0))) == 401


def _grows(path: str) -> None:
    """Fill the queue far beyond what the other process has mapped."""
    with jobq.open(path, durability="unsafe") as svc:
        say("open")
        hear()
        svc.enqueue_many("a", [b"x" * 10_000] * 400)


def test_a_process_follows_when_another_has_grown_the_file_beyond_its_map(
    tmp_path: Path, start: Start
) -> None:
    small = {"map_size": MIB, "max_size": 64 * MIB}
    with JobService(LmdbStore(tmp_path / "queue", durability="unsafe", **small)) as svc:  # type: ignore[arg-type]
        first = svc.enqueue("a", b"first")
        child = start(_grows, str(tmp_path / "queue"))
        assert child.said() == "open"
        child.tell()
        child.join()

        assert svc.status(first) == "ready"
        assert svc.stats().totals.ready == 401
        assert svc.enqueue("a", b"last")
        assert len(svc.done_many(svc.reserve("a", 1000, timeout=0))) == 402
        assert svc.check().problems == ()


# A disk of a few megabytes, which is really full.


def _full_by_jobq(disk: str, seed: int) -> None:
    path, dice = mount(disk), random.Random(seed)
    with jobq.open(path, keep_done=0, keep_canceled=0) as svc:
        jobs = fill(svc, dice)
        assert len(jobs) > 50
        with pytest.raises(StoreFull):
            svc.enqueue_many("a", [b"x" * 100_000] * 10)

        assert svc.stats().totals.ready == len(jobs)
        assert svc.get(min(jobs)).payload == jobs[min(jobs)]
        assert svc.check().problems == ()
        drain(svc, jobs, dice)
        # The file has grown over the whole disk and stays so, but it is all free inside.
        assert_it_goes_on(svc, dice)
    assert outcome_of(lambda: _opens(path)) == "0"


def test_a_disk_that_jobq_filled_can_be_worked_off(on_a_disk: OnADisk) -> None:
    on_a_disk(_full_by_jobq, random.getrandbits(32))


def _full_by_others(disk: str, seed: int) -> None:
    path, dice = mount(disk), random.Random(seed)
    with jobq.open(path, keep_done=0, keep_canceled=0) as svc:
        jobs = fill(svc, dice, most=300)
        stuff(Path(disk, "stuffing"))
        jobs |= fill(svc, dice)
        with pytest.raises(StoreFull):
            svc.enqueue("a", b"x" * 50_000)

        assert svc.stats().totals.ready == len(jobs)
        assert {record.id for record in svc.find(limit=10_000)} == set(jobs)
        assert svc.check().problems == ()
        drain(svc, jobs, dice)
        assert svc.check().problems == ()

        Path(disk, "stuffing").unlink()
        assert_it_goes_on(svc, dice)
        assert has_ballast(path)


def test_a_disk_that_others_filled_can_be_worked_off(on_a_disk: OnADisk) -> None:
    on_a_disk(_full_by_others, random.getrandbits(32))


def _use_the_ballast_up(path: Path) -> None:
    """Finish jobs with large results, which need room that is not there otherwise."""
    with jobq.open(path) as svc:
        while has_ballast(path):
            [job] = svc.reserve("a", timeout=0)
            job.done(bytes(200_000))


def _full_again_and_again(disk: str, seed: int) -> None:
    """Others take every block as soon as it is free, also what the ballast leaves over."""
    path, dice = mount(disk), random.Random(seed)
    with jobq.open(path) as svc:
        fill(svc, dice, most=300)
    stuff(Path(disk, "stuffing"))
    assert outcome_of(lambda: _use_the_ballast_up(path)) == "None"
    stuff(Path(disk, "stuffing"))

    with jobq.open(path, keep_done=0, keep_canceled=0) as svc:
        jobs = {record.id: record.payload for record in svc.find(status="ready", limit=1000)}
        assert jobs
        drain(svc, jobs, dice)
        assert svc.check().problems == ()


def test_a_disk_that_others_keep_full_can_be_worked_off(on_a_disk: OnADisk) -> None:
    on_a_disk(_full_again_and_again, random.getrandbits(32))


def _wants_what_the_last_commit_freed(disk: str) -> None:
    """More pages than the ballast has, and as many as have just come free."""
    path, large = mount(disk, 8), bytes(BALLAST + BALLAST // 4)
    with JobService(LmdbStore(path), max_payload=2 * len(large)) as svc:
        svc.enqueue("a")
        other = svc.enqueue("b", large)
        [job] = svc.reserve("a", timeout=0)
        stuff(Path(disk, "stuffing"))
        svc.delete(other)
        job.done(large)

        assert svc.stats().totals.unfinished == 0
        assert svc.check().problems == ()


def test_on_a_full_disk_what_the_last_commit_freed_can_be_used_at_once(
    on_a_disk: OnADisk,
) -> None:
    """LMDB takes such pages only after one more commit."""
    on_a_disk(_wants_what_the_last_commit_freed)


def _full_of_small_jobs(disk: str) -> None:
    """Finished jobs are kept, and take more room than those that wait."""
    path = mount(disk)
    with jobq.open(path, durability="unsafe") as svc:
        ids = svc.enqueue_many("a", [b"x" * 50] * 12_000)
        stuff(Path(disk, "stuffing"))
        done = 0
        while jobs := svc.reserve("a", 50, timeout=0):
            done += len(svc.done_many(jobs))
        assert done == len(ids)

        totals = svc.stats().totals
        assert totals.unfinished == 0
        assert 100 < totals.done < done  # the oldest have made room
        assert svc.status(ids[-1]) == "done"
        svc.purge("a", "done")
        assert svc.stats().totals.done == 0
        assert svc.check().problems == ()


def test_on_a_full_disk_finished_jobs_make_room_for_those_that_are_not(on_a_disk: OnADisk) -> None:
    on_a_disk(_full_of_small_jobs)


def _opens(path: Path) -> str:
    """Open the queue, look, and work one job off; how many are left."""
    with jobq.open(path, keep_done=0) as svc:
        for job in svc.reserve("a", timeout=0):
            job.done()
        assert svc.check().problems == ()
        return str(svc.stats().totals.ready)


def _comes_to_a_full_disk(disk: str, gone: list[str]) -> None:
    """A process opens a queue whose disk has filled up, and which has lost some files."""
    path = mount(disk)
    with jobq.open(path) as svc:
        svc.enqueue_many("a", [b"x" * 1000] * 50)
    for name in gone:
        if (path / name).is_dir():
            shutil.rmtree(path / name)
        (path / name).unlink(missing_ok=True)
    stuff(Path(disk, "stuffing"))

    outcome = outcome_of(lambda: _opens(path))
    assert outcome == "49" or outcome.startswith("StoreFull"), outcome

    Path(disk, "stuffing").unlink()
    outcome = outcome_of(lambda: _opens(path))
    assert outcome in {"48", "49"}, outcome


@pytest.mark.parametrize(
    "gone",
    [[], ["lock.mdb"], ["bell"], ["turn.lock", "write.lock"], ["ballast"],
     ["lock.mdb", "bell", "turn.lock", "write.lock", "ballast", "holders"]],
    ids=lambda gone: " ".join(gone) or "nothing",
)  # fmt: skip
def test_opening_a_queue_on_a_full_disk_works_or_is_a_clear_error(
    on_a_disk: OnADisk, gone: list[str]
) -> None:
    on_a_disk(_comes_to_a_full_disk, gone)


def _leave_free_pages_beyond_the_end(path: Path, pages: int) -> None:
    """A commit that takes pages and frees them again: LMDB counts them and never writes them."""
    with lmdb.open(str(path), max_dbs=20, map_size=2**26, lib_version=0) as env:
        db = env.open_db(b"notes")
        with env.begin(write=True) as txn:
            txn.put(b"large", bytes(4096 * pages), db=db)
            txn.put(b"larger", bytes(4096 * pages), db=db)
            txn.delete(b"large", db=db)
            txn.delete(b"larger", db=db)
        counted = (int(env.info()["last_pgno"]) + 1) * 4096
    assert counted > (path / "data.mdb").stat().st_size + 4096 * pages


def _comes_to_a_full_disk_with_a_file_that_ends_early(disk: str, pages: int, most: int) -> None:
    path = mount(disk, 8)
    with jobq.open(path) as svc:
        svc.enqueue_many("a", [b"x" * 1000] * 50)
    _leave_free_pages_beyond_the_end(path, pages)
    stuff(Path(disk, "stuffing"))

    assert outcome_of(lambda: _reads(path)) == "50"
    for left in range(49, 49 - most, -1):
        assert outcome_of(lambda: _opens(path)) == str(left)


def _reads(path: Path) -> str:
    """Open the queue and read every job; how many there are."""
    with jobq.open(path) as svc:
        found = svc.find(limit=1000)
        assert {record.payload for record in found} == {b"x" * 1000}
        return str(len(found))


# Of more free pages without blocks than the ballast has, LMDB takes those, and not its older ones:
# then the queue can be read, and worked off as far as the ballast goes.
@pytest.mark.parametrize(("pages", "most"), [(2, 50), (1000, 5)], ids=["little", "a lot"])
def test_a_file_that_ends_before_its_last_free_pages_opens_on_a_full_disk(
    on_a_disk: OnADisk, pages: int, most: int
) -> None:
    on_a_disk(_comes_to_a_full_disk_with_a_file_that_ends_early, pages, most)


def _comes_to_a_full_disk_with_its_ballast(disk: str) -> None:
    path = mount(disk)
    with jobq.open(path) as svc:
        svc.enqueue_many("a", [b"x" * 1000] * 50)
    stuff(Path(disk, "stuffing"))

    for left in range(49, -1, -1):  # each of them a new process, a new holder
        assert outcome_of(lambda: _opens(path)) == str(left)


def test_new_processes_can_work_a_full_disk_off(on_a_disk: OnADisk) -> None:
    on_a_disk(_comes_to_a_full_disk_with_its_ballast)


def _makes_on_a_full_disk(disk: str) -> None:
    """A new queue where there is no room for one, or nearly none."""
    path = mount(disk)
    stuff(Path(disk, "stuffing"))
    size = Path(disk, "stuffing").stat().st_size
    outcomes = []
    for pages in range(40):
        os.truncate(Path(disk, "stuffing"), size - 4096 * pages)
        outcomes.append(outcome_of(lambda: _opens(path)))
        assert outcomes[-1] == "0" or outcomes[-1].startswith("StoreFull"), f"{pages}: {outcomes}"
        shutil.rmtree(path, ignore_errors=True)
    assert outcomes[0] != "0"
    assert outcomes[-1] == "0"


def test_making_a_queue_on_a_full_disk_is_a_clear_error(on_a_disk: OnADisk) -> None:
    on_a_disk(_makes_on_a_full_disk)


def _fills_up_page_by_page(disk: str) -> None:
    """The disk is full at every possible moment of a first day: nothing is lost, nothing dies."""
    path = mount(disk)
    for pages in range(0, 400, 7):
        outcome = outcome_of(partial(_first_day, path, disk, pages))
        assert outcome == "fine", f"{pages} free pages: {outcome}"
        shutil.rmtree(path, ignore_errors=True)
        Path(disk, "stuffing").unlink(missing_ok=True)


def _first_day(path: Path, disk: str, pages: int) -> str:
    stuff(Path(disk, "stuffing"))
    os.truncate(Path(disk, "stuffing"), Path(disk, "stuffing").stat().st_size - 4096 * pages)
    try:
        svc = jobq.open(path)
    except StoreFull:
        return "fine"
    acknowledged: list[str] = []
    with contextlib.suppress(StoreFull):
        while len(acknowledged) < 20:
            acknowledged.append(svc.enqueue("a", bytes(3000)))
    there = [record.id for record in svc.find()]
    assert there == acknowledged, "acknowledged and refused are not what they were said to be"
    for jid in acknowledged:
        [job] = svc.reserve("a", timeout=0)
        assert job.id == jid
        job.done(b"result")
    assert svc.check().problems == ()
    svc.close()
    return "fine"


def test_whenever_a_disk_gets_full_what_was_said_is_true(on_a_disk: OnADisk) -> None:
    on_a_disk(_fills_up_page_by_page)


def _follows_up_on_a_full_disk(disk: str) -> None:
    path = mount(disk)
    with jobq.open(path) as svc:
        svc.enqueue_many("a", [b"x" * 1000] * 50)
        [job] = svc.reserve("a", timeout=0)
        stuff(Path(disk, "stuffing"))
        with pytest.raises(StoreFull):
            job.done(then=[NewJob("b", b"y" * 300_000)])
        assert svc.status(job.id) == "reserved"
        job.done()
        assert svc.status(job.id) == "done"

        Path(disk, "stuffing").unlink()
        [job] = svc.reserve("a", timeout=0)
        [follow] = job.done(then=[NewJob("b", b"y" * 300_000)])
        assert svc.status(follow) == "ready"


def test_follow_up_jobs_on_a_full_disk_leave_their_parent_held(on_a_disk: OnADisk) -> None:
    on_a_disk(_follows_up_on_a_full_disk)


def _calls_every_verb(disk: str) -> None:
    path = mount(disk)
    with jobq.open(path) as svc:
        ids = svc.enqueue_many("a", [b"x" * 1000] * 50)
        stuff(Path(disk, "stuffing"))
        bringing: dict[str, Callable[[], object]] = {
            "a large job": lambda: svc.enqueue("new topic", b"x" * 100_000),
            "a small job": lambda: svc.enqueue("a", delay=60),
        }
        others: dict[str, Callable[[], object]] = {
            "cancel": lambda: svc.cancel(ids[0]),
            "reset": lambda: svc.reset(ids[0]),
            "delete": lambda: svc.delete(ids[1]),
            "reserve": lambda: svc.reserve("a", 10, timeout=0.01),
            "prune": svc.prune,
            "topics": svc.topics,
        }
        refused = set()
        for name, call in (bringing | others).items():
            try:
                call()
            except StoreFull:
                refused.add(name)
        assert svc.check().problems == ()
        assert refused == bringing.keys()


def test_a_full_disk_refuses_what_brings_something_and_nothing_else(on_a_disk: OnADisk) -> None:
    on_a_disk(_calls_every_verb)


@pytest.mark.parametrize("number", [errno.EIO, errno.EACCES, errno.ENOSPC])
def test_no_finished_job_is_forgotten_for_a_ballast_that_fails_on_a_disk_with_room(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For a moment, or for want of names: only a disk that is full indeed costs finished jobs."""
    with jobq.open(tmp_path / "queue") as svc:
        first, second = svc.enqueue("a"), svc.enqueue("a")
        (tmp_path / "queue" / "ballast").unlink()

        def fail(*_: object) -> None:
            raise OSError(number, os.strerror(number))

        monkeypatch.setattr(os, "posix_fallocate", fail)
        svc.cancel(first)
        svc.cancel(second)

        assert [svc.status(jid) for jid in (first, second)] == ["canceled", "canceled"]


def test_where_room_is_short_one_job_after_the_other_falls_due(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As many as ever want more pages than a full disk may have left: then no verb works."""
    clock = ManualClock()
    with JobService(LmdbStore(tmp_path / "queue", clock=clock)) as svc:
        svc.enqueue_many("a", range(10), delay=60)
        clock.advance(60)
        monkeypatch.setattr(Room, "is_short", lambda *_: True)
        svc.enqueue("b")
        assert svc.stats("a").totals.delayed == 9

        monkeypatch.undo()
        svc.enqueue("b")
        assert svc.stats("a").totals.delayed == 0


@pytest.mark.parametrize("blocks", [0, 10_000])
def test_an_io_error_is_a_full_disk_only_where_there_is_no_room(
    blocks: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """LMDB calls so a write that ends in the middle of a page, and one that fails on a bad disk."""
    error = lmdb.Error("mdb_txn_commit")
    vars(error)["code"] = errno.EIO
    disk = SimpleNamespace(f_bavail=blocks, f_frsize=4096)

    def fail(*_: object) -> None:
        raise error

    with jobq.open(tmp_path / "queue") as svc:
        svc.enqueue("a")
        monkeypatch.setattr(LmdbJobs, "create", fail)
        monkeypatch.setattr(os, "statvfs", lambda _: disk)
        with pytest.raises(StoreUnavailable if blocks else StoreFull):
            svc.enqueue("a")
        monkeypatch.undo()

        assert svc.stats("a").totals.ready == 1
