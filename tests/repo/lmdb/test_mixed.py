"""Durable jobs with topics in memory: one process at a time, and the same jobs either way."""

import contextlib
import logging
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import lmdb
import pytest
from click.testing import CliRunner

import jobq
from jobq import JobService, cli
from jobq.clock import ManualClock
from jobq.errors import (
    InvalidValue,
    OutcomeUnknown,
    StoreBusy,
    StoreCorrupt,
    StoreFull,
    StoreLocked,
    StoreUnavailable,
)
from jobq.ids import to_raw
from jobq.repo.base import Store
from jobq.repo.lmdb import LmdbStore, openfile, openlock, outcome
from jobq.repo.lmdb.filelock import FileLock
from jobq.repo.memory.topics import MemoryTopics
from jobq.repo.memory.undo import Undo
from jobq.repo.mixed import MixedStore
from jobq.selector import ALL_JOBS
from tests.conftest import DEADLINE_S, LONG_S, SOON_S
from tests.crash.test_group import failing_commit
from tests.repo.conftest import Queue
from tests.repo.lmdb.conftest import Start
from tests.repo.lmdb.processes import CANNOT, hear, outcome_of, say
from tests.repo.lmdb.raw import Raw, leaves_of, swap_leaves
from tests.repo.test_contract_repair import fill


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "queue"


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody waits for who has a queue open."""
    monkeypatch.setattr(openlock, "PATIENCE_S", 0.0)


def entries(path: Path, name: str) -> int:
    """How many records a database of a closed queue has."""
    with lmdb.open(str(path), max_dbs=20, lib_version=0) as env:
        db = env.open_db(name.encode(), create=False)
        with env.begin() as txn:
            return int(txn.stat(db)["entries"])


def index_of(svc: JobService) -> Any:
    store: Any = svc.store
    return store._env._transactions.index


# One queue, opened in either way.


def test_a_queue_is_the_same_whichever_way_it_is_opened(path: Path, clock: ManualClock) -> None:
    queue = Queue(LmdbStore(path, clock=clock), clock)
    order = fill(queue)
    queue.store.close()
    seen = []
    for kind in (LmdbStore, MixedStore, MixedStore, LmdbStore, MixedStore, LmdbStore):
        with kind(path, clock=clock) as store:
            assert store.check().problems == ()
            seen.append(picture(store))
            # So that each has written. The first one has made ready what was held, too.
            assert Queue(store, clock).order() == order

    assert seen == [seen[0]] * 6


def picture(store: Store) -> Any:
    """All that may not change although jobs are reserved and released."""
    jobs = [
        (job.id, job.topic, job.status, job.weight, job.attempt, job.due_us, job.ended_us)
        for job in store.find(ALL_JOBS, None, 1000)
    ]
    return jobs, store.stats().topics


def test_stats_say_where_the_topics_are(path: Path) -> None:
    with jobq.open(path, topics="memory") as svc:
        assert svc.stats().store["topics"] == "memory"
        assert svc.stats().store["kind"] == "lmdb"
    with jobq.open(path, topics="lmdb") as svc:
        assert svc.stats().store["topics"] == "lmdb"
    with jobq.open(":memory:", topics="memory") as svc:
        assert svc.stats().store["kind"] == "memory"


def test_volatile_jobs_cannot_have_durable_topics() -> None:
    with pytest.raises(InvalidValue, match=r"topics is 'lmdb', but the jobs .* are volatile"):
        jobq.open(":memory:", topics="lmdb")


def test_the_file_has_no_index_while_it_is_in_memory_so_nobody_can_read_a_stale_one(
    path: Path,
) -> None:
    with jobq.open(path) as svc:
        svc.enqueue_many("mail", range(100))
        svc.enqueue("mail", delay=3600)
    with jobq.open(path, topics="memory") as svc:
        assert svc.stats().totals.ready == 100
    only_read = (entries(path, "queue"), entries(path, "agenda"))
    with jobq.open(path, topics="memory") as svc:
        svc.done_many(svc.reserve("mail", 10))
    written = (entries(path, "queue"), entries(path, "agenda"))
    with jobq.open(path) as svc:
        assert svc.check().ok
    back = (entries(path, "queue"), entries(path, "agenda"))

    assert only_read == (100, 1)
    assert written == (0, 0)
    assert back == (90, 2)


def test_settings_and_names_of_topics_outlive_the_process(path: Path) -> None:
    with jobq.open(path, topics="memory") as svc:
        svc.configure("mail", keep_done=5)
        svc.enqueue("another")
    with jobq.open(path, topics="memory") as svc:
        assert svc.topics() == ["another", "mail"]
        assert svc.settings("mail").keep_done == 5


def test_places_go_on_after_those_of_jobs_that_are_forgotten(path: Path) -> None:
    with jobq.open(path, topics="memory") as svc:
        first, gone = svc.enqueue("mail", 1), svc.enqueue("mail", 2)
        svc.delete(gone)
    with jobq.open(path, topics="memory") as svc:
        last = svc.enqueue("mail", 3)
        assert last > gone > first
        assert [job.payload for job in svc.reserve("mail", 5)] == [1, 3]


def test_jobs_of_more_than_one_record_are_taken_back_in_records_that_are_not_too_long(
    path: Path,
) -> None:
    """A record of an agenda has at most 64 jobs, or finishing them one by one would be dear."""
    with jobq.open(path, topics="memory") as svc:
        svc.enqueue_many("mail", range(200), delay=3600)
    with jobq.open(path) as svc:
        assert svc.check().ok

    assert entries(path, "agenda") == 4


def test_a_call_that_finds_nothing_commits_nothing(path: Path) -> None:
    with jobq.open(path, topics="memory") as svc:
        svc.enqueue("mail")
        before = (path / "data.mdb").read_bytes()
        assert svc.reserve("nothing", timeout=0) == []
        assert svc.prune() == 0
        assert svc.store.settle([]).outcomes == []
        assert svc.store.extend([(bytes(16), 1, 5)]) != []

        assert (path / "data.mdb").read_bytes() == before


# The index and the file.


def test_an_index_of_another_commit_than_the_files_is_made_anew(path: Path) -> None:
    with jobq.open(path, topics="memory") as svc:
        svc.enqueue_many("mail", range(5))
        index_of(svc)._group -= 3

        assert svc.check().ok
        assert [job.payload for job in svc.reserve("mail", 5)] == [*range(5)]


def test_a_store_that_could_not_be_opened_again_does_not_lock_itself_out(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a commit of which nobody knows what became of it."""
    with jobq.open(path, topics="memory") as svc:
        svc.enqueue_many("mail", range(3))
        with monkeypatch.context() as patch, failing_commit(monkeypatch, effect=True):
            patch.setattr(openfile, "open_file", _cannot_open)
            # As after a panic of LMDB's, which wants to be opened again.
            patch.setattr(outcome, "_look_for", lambda file, _: file.reopen())
            with pytest.raises(OutcomeUnknown):
                svc.enqueue("mail", 3)

        assert [job.payload for job in svc.reserve("mail", 9)] == [*range(4)]
        assert svc.check().ok


def _cannot_open(*_: object) -> NoReturn:
    raise StoreUnavailable("injected: it cannot be opened again")


def test_a_torn_index_is_made_anew(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An interrupt in the middle of the sorted containers leaves who knows what."""
    with jobq.open(path, topics="memory") as svc:
        svc.enqueue_many("mail", range(5))
        queues = index_of(svc).memory._queues
        with monkeypatch.context() as patch:

            def tear(*_: object) -> NoReturn:
                queues.clear()
                raise KeyboardInterrupt

            patch.setattr(type(queues[1]), "update", tear)
            with pytest.raises(KeyboardInterrupt):
                svc.enqueue("mail", "interrupted")

        assert [job.payload for job in svc.reserve("mail", 9)] == [*range(5)]
        assert svc.check().ok


def test_an_index_that_does_not_match_the_jobs_is_an_error_once_and_then_made_anew(
    path: Path,
) -> None:
    with jobq.open(path, topics="memory") as svc:
        svc.enqueue_many("mail", range(2))
        first, second = svc.reserve("mail", 2)
        index_of(svc).memory = MemoryTopics(ManualClock(), Undo())
        with pytest.raises(StoreCorrupt, match="do not match"):
            first.done()

        first.done()
        second.done()
        assert svc.check().ok


def test_a_job_that_cannot_be_read_is_left_out_with_a_warning(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with jobq.open(path, topics="memory") as svc:
        jids = svc.enqueue_many("mail", range(3))
    Raw(path).flip("jobs", to_raw(jids[0]))
    with caplog.at_level(logging.WARNING, "jobq"), jobq.open(path, topics="memory") as svc:
        assert [job.payload for job in svc.reserve("mail", 3)] == [1, 2]
        report = svc.check(repair=True)

        assert f"job {jids[0]} cannot be read" in report.problems[0]
        assert len(report.problems) == 1
    assert "rebuilt from 2 jobs; 1 more cannot be read" in caplog.text


@pytest.mark.parametrize("before", ["lmdb", "memory"])
@pytest.mark.parametrize("after", ["lmdb", "memory"])
def test_a_queue_of_which_not_all_jobs_can_be_come_by_is_not_rebuilt_in_part(
    path: Path, before: str, after: str
) -> None:
    """Jobs that are in the file, but in no queue, would be lost without a word."""
    with jobq.open(path, topics=before) as svc:
        svc.enqueue_many("mail", [b"x" * 300] * 500)
    data = bytearray((path / "data.mdb").read_bytes())
    swap_leaves(data, leaves_of(path, "jobs"))
    (path / "data.mdb").write_bytes(data)
    if before == after == "lmdb":
        with jobq.open(path) as svc:
            assert not svc.check().ok
        return
    with pytest.raises(StoreCorrupt):
        jobq.open(path, topics=after)

    assert (path / "data.mdb").read_bytes() == data


# One process alone.


def _open_and_wait(path: str, topics: str) -> None:
    with jobq.open(path, topics=topics) as svc:
        svc.enqueue("mail", topics)
        say("open")
        hear()


@pytest.mark.parametrize(
    ("theirs", "ours"), [("memory", "lmdb"), ("lmdb", "memory"), ("memory",) * 2]
)
@pytest.mark.usefixtures("impatient")
def test_a_queue_with_topics_in_memory_is_for_one_process_alone(
    path: Path, start: Start, theirs: str, ours: str
) -> None:
    child = start(_open_and_wait, str(path), theirs)
    assert child.said() == "open"
    with pytest.raises(StoreLocked, match=f"process {child.pid} .*there"):
        jobq.open(path, topics=ours)
    child.tell()
    child.join()

    with jobq.open(path, topics=ours) as svc:
        assert svc.stats().totals.ready == 1


def test_a_killed_process_leaves_the_queue_free_and_its_jobs_ready(
    path: Path, start: Start
) -> None:
    child = start(_hold_and_wait, str(path))
    assert child.said() == "held"
    child.kill()

    for topics in ("memory", "lmdb"):
        with jobq.open(path, topics=topics) as svc:
            assert svc.stats().totals.ready == 3
            assert svc.check().ok


def _hold_and_wait(path: str) -> None:
    svc = jobq.open(path, topics="memory")
    svc.enqueue_many("mail", range(3), lease=9000)
    assert len(svc.reserve("mail", 2)) == 2
    say("held")
    hear()


def test_in_one_process_a_queue_is_open_in_one_way_only(path: Path) -> None:
    for first, second in (("memory", "lmdb"), ("lmdb", "memory")):
        with jobq.open(path, topics=first) as svc:
            with pytest.raises(
                StoreLocked, match=f"topics in {first}.* with its topics in {second}"
            ):
                jobq.open(path, topics=second)
            with jobq.open(path, topics=first) as same:
                jid = same.enqueue("mail")
            assert svc.status(jid) == "ready"


def test_who_comes_waits_a_moment_for_who_is_about_to_go(
    path: Path, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    child = start(_open_and_wait, str(path), "lmdb")
    assert child.said() == "open"
    monkeypatch.setattr(openlock, "PATIENCE_S", DEADLINE_S)
    child.tell()

    with jobq.open(path, topics="memory") as svc:
        assert svc.stats().totals.ready == 1


def test_how_long_is_waited_for_others_is_bounded_by_the_time_for_locks(
    path: Path, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(openlock, "PATIENCE_S", LONG_S)
    child = start(_open_and_wait, str(path), "lmdb")
    assert child.said() == "open"
    begun = time.monotonic()
    with pytest.raises(StoreLocked):
        MixedStore(path, lock_timeout=0)

    assert time.monotonic() - begun < SOON_S


@pytest.mark.usefixtures("impatient")
def test_the_command_line_says_who_has_the_queue(path: Path, start: Start) -> None:
    child = start(_open_and_wait, str(path), "memory")
    assert child.said() == "open"
    result = CliRunner().invoke(cli.main, ["--db", str(path), "stats"])

    assert result.exit_code == 5
    assert f"process {child.pid}" in result.output
    assert "use it there" in result.output


def test_several_processes_that_come_after_it_take_the_topics_back_once(
    path: Path, start: Start
) -> None:
    with jobq.open(path, topics="memory") as svc:
        svc.enqueue_many("mail", range(2000))
    children = [start(_open_and_wait, str(path), "lmdb") for _ in range(4)]
    assert [child.said() for child in children] == ["open"] * 4
    with jobq.open(path) as svc:
        assert svc.stats().totals.ready == 2004
        assert svc.check().ok


def test_who_cannot_get_the_write_lock_to_take_the_topics_back_says_so(path: Path) -> None:
    with jobq.open(path, topics="memory") as svc:
        svc.enqueue("mail")
    lock = FileLock(path)
    lock.acquire(1)
    with pytest.raises(StoreBusy):
        LmdbStore(path, lock_timeout=0.05)
    lock.release()
    lock.close()

    with jobq.open(path) as svc:
        assert svc.reserve("mail", timeout=0)


# Forks.


def test_a_fork_cannot_use_the_store_and_does_not_keep_it_locked(path: Path, start: Start) -> None:
    child = start(_fork, str(path))
    used, opened, afterwards, again = (child.said() for _ in range(4))
    child.join()

    assert used.startswith("StoreUnavailable: ")
    assert "a fork of that" in used
    assert opened.startswith("StoreLocked: ")
    assert afterwards == 2, "the parent goes on"
    assert again == 2, "while a fork of its last holder lives"


def _fork(path: str) -> None:
    openlock.PATIENCE_S = 0.0  # type: ignore[misc] # so that the test does not take so long
    svc = jobq.open(path, topics="memory")
    svc.enqueue("mail", 1)
    say(outcome_of(svc.stats))
    say(outcome_of(lambda: jobq.open(path, topics="memory")))
    svc.enqueue("mail", 2)
    say(svc.stats().totals.ready)
    fork = _Fork(lambda: "")
    svc.close()
    with jobq.open(path, topics="memory") as again:
        say(again.stats().totals.ready)
    fork.ask()


class _Fork:
    """A fork of this process: it has begun to run, and does nothing until it is asked to."""

    def __init__(self, work: Callable[[], object]) -> None:
        theirs, self._question = os.pipe()
        self._answer, mine = os.pipe()
        self._pid = os.fork()
        if not self._pid:
            try:
                signal.alarm(int(DEADLINE_S))
                os.write(mine, b".")
                os.read(theirs, 1)
                try:
                    said = str(work())
                except jobq.JobqError as error:
                    said = f"{type(error).__name__}: {error}"
                os.write(mine, said.encode() or b".")
            finally:
                os._exit(0)
        os.close(mine)
        os.close(theirs)
        os.read(self._answer, 1)

    def ask(self) -> str:
        """What it says of its work; it has ended then."""
        os.write(self._question, b".")
        said = os.read(self._answer, 4000).decode()
        os.waitpid(self._pid, 0)
        return said


def test_a_fork_of_a_process_that_shared_the_queue_keeps_nobody_out(
    path: Path, start: Start
) -> None:
    child = start(_share_and_fork, str(path))
    alone, said = child.said(), child.said()
    child.join()

    assert alone == 1
    assert said.startswith("StoreLocked: "), "it opens the queue anew, as everybody has to"


def _share_and_fork(path: str) -> None:
    openlock.PATIENCE_S = 0.0  # type: ignore[misc]
    svc = jobq.open(path)
    svc.enqueue("mail")
    fork = _Fork(svc.stats)
    svc.close()
    with jobq.open(path, topics="memory") as mixed:
        say(mixed.stats().totals.ready)
        say(fork.ask())


def test_a_fork_that_finds_the_topics_in_memory_since_takes_them_back(
    path: Path, start: Start
) -> None:
    child = start(_fork_and_mix, str(path))
    said = child.said()
    child.join()

    assert said == "3"


def _fork_and_mix(path: str) -> None:
    svc = jobq.open(path)
    svc.enqueue("mail")

    def work() -> int:
        assert svc.check().ok
        return len(svc.reserve("mail", 9, timeout=0))

    fork = _Fork(work)
    svc.close()
    with jobq.open(path, topics="memory") as mixed:
        mixed.enqueue_many("mail", range(2))
    say(fork.ask())


def test_a_program_that_was_started_meanwhile_does_not_keep_the_queue_locked(path: Path) -> None:
    with jobq.open(path, topics="memory") as svc:
        svc.enqueue("mail")
        program = subprocess.Popen(
            [sys.executable, "-c", "input()"], stdin=subprocess.PIPE, close_fds=False
        )
    try:
        with jobq.open(path) as svc:
            assert svc.stats().totals.ready == 1
    finally:
        program.send_signal(signal.SIGKILL)
        with program:
            program.wait()


# A random life, in which the queue is opened in either way by turns, and processes die.


def _live(path: str, topics: str, seed: int) -> None:
    chance = random.Random(seed)
    svc = jobq.open(path, topics=topics, max_crashes=0)
    for _ in range(chance.randrange(5, 60)):
        topic = chance.choice(["mail", "mail-slow", "thumbnails"])
        verb = chance.randrange(6)
        if verb < 2:
            svc.enqueue_many(topic, range(chance.randrange(1, 90)), weight=chance.randrange(-2, 3))
        elif verb == 2:
            svc.enqueue(topic, delay=chance.choice([0.001, 3600]))
        elif verb == 3:
            svc.done_many(svc.reserve(topic, chance.randrange(1, 80), timeout=0))
        elif verb == 4:
            svc.retry_many(svc.reserve(topic, 5, timeout=0), delay=chance.choice([0, 3600]))
        else:
            svc.reserve(topic, 3, timeout=0)
        if chance.random() < 0.02:
            break
    say(svc.stats().totals.total)
    if chance.random() < 0.5:
        os.kill(os.getpid(), signal.SIGKILL)
    svc.close()


@pytest.mark.parametrize("lives", [8, pytest.param(100, marks=pytest.mark.storm)])
def test_a_queue_lives_through_processes_of_both_kinds_that_die(
    path: Path, start: Start, lives: int
) -> None:
    seed = random.getrandbits(32)
    print(f"seed {seed}")
    chance = random.Random(seed)
    for number in range(lives):
        child = start(_live, str(path), chance.choice(["memory", "lmdb"]), seed + number)
        total = child.said()
        child.wait()
        if chance.random() < 0.3:
            with jobq.open(path, topics=chance.choice(["memory", "lmdb"])) as svc:
                assert svc.check().problems == ()
                assert svc.stats().totals.total == total
    with jobq.open(path) as svc:
        assert svc.check().problems == ()


# A full disk.


def _fill_a_disk(mount: str) -> None:
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "none", mount], check=False)
    if done.returncode:
        sys.exit(CANNOT)
    path = Path(mount) / "queue"
    with jobq.open(path, topics="memory") as svc, contextlib.suppress(StoreFull):
        while True:
            svc.enqueue_many("mail", ["x" * 180] * 100)
    with contextlib.suppress(OSError), (Path(mount) / "neighbour").open("wb", buffering=0) as file:
        while file.write(b"x" * 512):
            pass
    try:
        jobq.open(path).close()
    except StoreFull as error:
        assert "topics in memory" in str(error)  # noqa: PT017 - it may succeed as well
    with jobq.open(path, topics="memory") as svc:
        assert svc.done_many(svc.reserve("mail", 300)) == ["ok"] * 300
        assert svc.check().ok


def test_a_queue_on_a_full_disk_can_be_worked_off_with_its_topics_in_memory(
    on_a_disk: Callable[..., None],
) -> None:
    on_a_disk(_fill_a_disk)
