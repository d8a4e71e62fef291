"""Fork with an open store: the parent goes on undisturbed, and the child starts as somebody else.

Each test runs in a process of its own, so that it may have threads, fork, and hang. The forks of
that process have a deadline of their own.
"""

import multiprocessing
import os
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, Final, NamedTuple

import pytest

import jobq
from jobq import Job, JobService, Status
from tests.conftest import DEADLINE_S
from tests.crash.conftest import Say
from tests.crash.processes import (
    Notebook,
    Pipe,
    Start,
    die_with_parent,
)

FORK_S: Final = 40
"""A fork that lives longer hangs, and is killed by SIGALRM."""

LEASE_S: Final = 2.5
"""So short that who works for longer needs the keeper of leases."""


class Account(NamedTuple):
    """What a process says of its forks and threads when it is through."""

    statuses: list[int]
    errors: list[str]
    rounds: int


@pytest.mark.parametrize("forks", [30, pytest.param(300, marks=pytest.mark.storm)])
def test_a_process_with_busy_threads_forks_children_that_work_in_the_queue(
    forks: int, start: Start, path: str, tmp_path: Path, say: Say
) -> None:
    """Two threads that write and two that read go on meanwhile; all jobs are accounted for."""
    added, finished = Notebook(tmp_path / "added"), Notebook(tmp_path / "finished")
    parent = start(_fork_often, path, str(tmp_path), forks)
    account: Account = parent.hear(120)
    with jobq.open(path) as svc:
        status_of = dict(_every(svc))
        report = svc.check()
    done = Counter(finished.read())
    say(f"{forks} forks, {len(status_of)} jobs, {account.rounds} rounds of the parent's threads")

    assert account.errors == []
    assert account.statuses == [0] * forks
    assert [jid for jid in added.read() if jid not in status_of] == []
    assert [jid for jid in done if status_of[jid] is not Status.DONE] == []
    assert [jid for jid, times in done.items() if times > 1] == []
    assert report.problems == ()


def test_what_a_forked_child_held_comes_back_when_it_ends(start: Start, path: str) -> None:
    with jobq.open(path) as svc:
        jids = svc.enqueue_many("mail", range(3), lease=600)
        account: Account = start(_fork_and_hold, path).hear()
        jobs: list[Job] = []
        while len(jobs) < 3:
            taken = svc.reserve("mail", 3, timeout=5)
            assert taken, "it does not come back"
            jobs += taken

        assert account == Account([0], [], 0)
        assert sorted(job.id for job in jobs) == sorted(jids)
        assert sorted(job.crashes for job in jobs) == [0, 0, 1], "the child held one"


def test_the_parent_keeps_what_it_held_when_it_forked(start: Start, path: str) -> None:
    with jobq.open(path) as svc:
        svc.enqueue_many("mail", range(4), lease=600)
        account: Account = start(_hold_and_fork, path).hear()

        assert account == Account([0] * 5, [], 4)
        assert svc.stats("mail").totals.done == 4
        assert svc.check().ok


@pytest.mark.parametrize("way", ["os._exit", "sys.exit", "an exception", "return"])
def test_a_fork_in_the_middle_of_consume_does_not_touch_the_parents_jobs(
    way: str, start: Start, path: str, tmp_path: Path
) -> None:
    """However the child leaves the loop that it was forked in: it does not hold them."""
    notebook = Notebook(tmp_path / "done")
    with jobq.open(path) as svc:
        jids = svc.enqueue_many("mail", range(6), lease=600)
        account: Account = start(_consume_and_fork, path, str(tmp_path / "done"), way).hear()
        records = [svc.get(jid) for jid in jids]

        assert account.errors == []
        assert notebook.read() == jids, "each block ran once, in the parent"
        assert [record.status for record in records] == [Status.DONE] * 6
        assert [record.attempt for record in records] == [1] * 6
        assert svc.check().ok


def test_a_fork_that_meets_the_lease_keeper_at_work_can_consume(start: Start, path: str) -> None:
    """The keeper's thread is not in the child, whatever it held at that moment."""
    account: Account = start(_fork_while_the_keeper_works, path).hear()

    assert account == Account([0] * 16, [], 16)


@pytest.mark.parametrize("busy", ["opening", "closing"])
def test_a_process_may_fork_while_a_thread_opens_or_closes_queues(
    busy: str, start: Start, tmp_path: Path
) -> None:
    account: Account = start(_fork_while_others_open, str(tmp_path), busy).hear()

    assert account.errors == []
    assert account.statuses == [0] * 40
    assert account.rounds > 0


def test_several_threads_may_fork_at_the_same_time(start: Start, tmp_path: Path) -> None:
    """With several queues open, which other threads use."""
    account: Account = start(_fork_in_threads, str(tmp_path)).hear()

    assert account.errors == []
    assert account.statuses == [0] * 63
    assert account.rounds > 0


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_children_of_multiprocessing_work_in_the_queue_of_their_parent(
    method: str, start: Start, path: str
) -> None:
    account: Account = start(_use_multiprocessing, path, method).hear()
    with jobq.open(path) as svc:
        totals = svc.stats().totals

        assert account == Account([0] * 3, [], 3)
        assert (totals.done, totals.unfinished) == (30, 0)
        assert svc.check().ok


# What the children do: those that fork.


def _fork_often(pipe: Pipe, path: str, directory: str, forks: int) -> None:
    svc = jobq.open(path)
    svc.enqueue_many("mail", range(10))
    crew = _Crew()
    notes = _Notes(directory)
    for _ in range(2):
        crew.start(lambda: _live_a_job(svc, notes))
        crew.start(lambda: _read(svc))
    statuses = []
    running: list[int] = []
    for _ in range(forks):
        running.append(_fork(lambda: _live_jobs_in_a_fork(svc, notes)))
        if len(running) >= 4:
            statuses.append(_status(running.pop(0)))
    statuses += [_status(pid) for pid in running]
    rounds, errors = crew.end()
    svc.close()
    pipe.send(Account(statuses, errors, rounds))


def _live_a_job(svc: JobService, notes: "_Notes") -> None:
    notes.added.note(svc.enqueue("mail"))
    for job in svc.reserve("mail", 2, timeout=0):
        job.done()
        notes.finished.note(job.id)


def _read(svc: JobService) -> None:
    assert svc.stats("mail").totals.unfinished >= 0
    for record in svc.find(topic="mail", limit=5):
        with suppress(jobq.JobNotFound):
            svc.get(record.id)


def _live_jobs_in_a_fork(svc: JobService, notes: "_Notes") -> None:
    for _ in range(2):
        _live_a_job(svc, notes)
        _read(svc)
    jid = svc.enqueue("mail")
    notes.added.note(jid)
    assert svc.status(jid) in Status
    svc.reserve("mail", timeout=0)  # and dies with it


def _fork_and_hold(pipe: Pipe, path: str) -> None:
    svc = jobq.open(path)

    def hold() -> None:
        assert svc.reserve("mail", timeout=0)

    status = _status(_fork(hold))
    pipe.send(Account([status], [], 0))
    pipe.recv()


def _hold_and_fork(pipe: Pipe, path: str) -> None:
    """Forks live and die, and use the store or not; what this process holds stays its own."""
    svc = jobq.open(path)
    held = svc.reserve("mail", 4, timeout=0)

    def use() -> None:
        assert svc.stats().totals.reserved == 4
        assert svc.reserve("mail", timeout=0) == []

    def close() -> None:
        svc.close()

    statuses = [_status(_fork(work)) for work in (lambda: None, use, close, use)]
    other = jobq.open(path)
    assert other.store.advance().expired == 0
    statuses.append(_status(_fork(other.close)))
    pipe.send(Account(statuses, [], [str(one) for one in svc.done_many(held)].count("ok")))
    pipe.recv()


def _consume_and_fork(pipe: Pipe, path: str, notes: str, way: str) -> None:
    me = os.getpid()
    try:
        errors = _loop_and_fork(path, Notebook(notes), way)
    finally:
        if os.getpid() != me:
            os._exit(0)
    pipe.send(Account([], errors, 0))
    pipe.recv()


def _loop_and_fork(path: str, notebook: Notebook, way: str) -> list[str]:
    errors = []
    pid = None
    with jobq.open(path) as svc:
        for job in svc.consume("mail", 3, timeout=0):
            with job:
                if job.payload == 1 and pid is None:
                    pid = os.fork()
                    if not pid:
                        signal.alarm(FORK_S)
                        _leave(way)
                        return []
                    if (status := _status(pid)) < 0:
                        errors.append(f"the child was killed by {status}")
                notebook.note(job.id)
    return errors


def _leave(way: str) -> None:
    match way:
        case "os._exit":
            os._exit(0)
        case "sys.exit":
            sys.exit(0)
        case "an exception":
            raise KeyError(way)


def _fork_while_the_keeper_works(pipe: Pipe, path: str) -> None:
    """Leases so short that their keeper never rests; each fork has a loop, so a keeper, too."""
    svc = jobq.open(path)
    svc.enqueue_many("mine", range(20), lease=0.1)
    loop = svc.consume("mine", 20, timeout=0)
    next(loop)

    def consume(topic: str) -> None:
        for job in svc.consume(topic, timeout=0):
            with job:
                until = time.monotonic() + 1.2 * LEASE_S
                while time.monotonic() < until and not job.canceled:
                    time.sleep(0.01)
                assert not job.canceled, "nobody has extended its lease"

    pids = []
    for number in range(16):
        topic = f"of fork {number}"
        svc.enqueue(topic, lease=LEASE_S)
        pids.append(_fork(partial(consume, topic)))
    statuses = [_status(pid) for pid in pids]
    done = svc.stats().totals.done
    pipe.send(Account(statuses, [], done))
    pipe.recv()


def _fork_while_others_open(pipe: Pipe, directory: str, busy: str) -> None:
    """Forks in the middle of opening, or closing, a queue in another thread."""
    crew = _Crew()
    count = 0
    kept = [jobq.open(f"{directory}/kept {number}") for number in range(2)]

    def work() -> None:
        nonlocal count
        count += 1
        # New queues take long to open; many users of one take turns in closing it.
        svc = jobq.open(f"{directory}/{count if busy == 'opening' else 'one'}")
        svc.stats()
        svc.close()

    crew.start(work)
    statuses = [_status(_fork(lambda: _live_in_a_fork(kept[0]))) for _ in range(40)]
    rounds, errors = crew.end()
    pipe.send(Account(statuses, errors, rounds))


def _fork_in_threads(pipe: Pipe, directory: str) -> None:
    services = [jobq.open(f"{directory}/{number}") for number in range(3)]
    crew = _Crew()
    for svc in services:
        crew.start(partial(_live_in_a_fork, svc))
    statuses: list[int] = []

    def fork() -> None:
        for svc in services * 7:
            pid = _fork(partial(_live_in_a_fork, svc))
            statuses.append(_status(pid))

    threads = [threading.Thread(target=fork, daemon=True) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(DEADLINE_S)
    rounds, errors = crew.end()
    pipe.send(Account(statuses, errors, rounds))


def _live_in_a_fork(svc: JobService) -> None:
    jid = svc.enqueue("mail")
    assert svc.status(jid) is Status.READY


def _use_multiprocessing(pipe: Pipe, path: str, method: str) -> None:
    svc = jobq.open(path)
    svc.enqueue_many("mail", range(30))
    context: Any = multiprocessing.get_context(method)
    processes = [context.Process(target=_work_off, args=(path,)) for _ in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(DEADLINE_S)
    statuses = [process.exitcode for process in processes]
    rounds = svc.stats("mail").totals.unfinished == 0 and svc.check().ok and 3
    pipe.send(Account(statuses, [], int(rounds)))
    svc.close()


def _work_off(path: str) -> None:
    with jobq.open(path) as svc:
        for job in svc.consume("mail", 2, timeout=0):
            with job:
                pass


# Small things.


class _Notes:
    """What was acknowledged, by the parent and its forks."""

    def __init__(self, directory: str) -> None:
        self.added = Notebook(f"{directory}/added")
        self.finished = Notebook(f"{directory}/finished")


class _Crew:
    """Threads that do the same over and over until the end, and their errors."""

    def __init__(self) -> None:
        self._ended = False
        self._errors: list[str] = []
        self._rounds = 0
        self._threads: list[threading.Thread] = []

    def start(self, work: Callable[[], object]) -> None:
        def run() -> None:
            while not self._ended:
                try:
                    work()
                except Exception as error:  # noqa: BLE001 - told to the test
                    self._errors.append(f"{type(error).__name__}: {error}")
                    return
                self._rounds += 1

        thread = threading.Thread(target=run, daemon=True)
        self._threads.append(thread)
        thread.start()

    def end(self) -> tuple[int, list[str]]:
        self._ended = True
        for thread in self._threads:
            thread.join(DEADLINE_S)
            if thread.is_alive():
                self._errors.append("a thread hangs")
        return self._rounds, self._errors


def _fork(work: Callable[[], object]) -> int:
    pid = os.fork()
    if pid:
        return pid
    status = 1
    try:
        die_with_parent()
        signal.alarm(FORK_S)
        work()
        status = 0
    except BaseException:  # noqa: BLE001 - shown, and told by the status
        sys.excepthook(*sys.exc_info())
    finally:
        sys.stderr.flush()
        os._exit(status)


def _status(pid: int) -> int:
    """The exit status of a fork, or minus the signal that killed it."""
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def _every(svc: JobService) -> list[tuple[str, Status]]:
    found: list[tuple[str, Status]] = []
    after = None
    while page := svc.find(after=after, limit=1000):
        found += [(record.id, record.status) for record in page]
        after = page[-1].id
    return found
