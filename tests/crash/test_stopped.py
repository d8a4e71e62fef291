"""A process that is stopped with the write lock in its hands, and processes that end in a hurry.

Nobody else may hang for it: writers are told who has the lock, and can be interrupted; readers and
newcomers do not notice.
"""

import os
import signal
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Final, NoReturn

import pytest

import jobq
from jobq import JobqError, JobService, Status, StoreBusy
from jobq.repo.lmdb import LmdbStore
from tests.conftest import DEADLINE_S, SOON_S, eventually
from tests.crash.processes import Child, Notebook, Pipe, Start, state_of
from tests.crash.verbs import with_steps

LOCK_TIMEOUT_S: Final = 0.5
"""How long who is not patient waits for the lock; others wait for half a minute."""


# A process that was stopped while it had the write lock.


def test_a_writer_that_cannot_get_the_lock_is_told_who_has_it(start: Start, path: str) -> None:
    stopped = _stop_with_the_lock(start, path)
    with _short(path) as svc:
        since = time.monotonic()
        with pytest.raises(StoreBusy, match=rf"process {stopped.pid} .*stopped"):
            svc.enqueue("mail")
        waited = time.monotonic() - since

        assert LOCK_TIMEOUT_S <= waited < SOON_S

        stopped.signal(signal.SIGCONT)
        assert stopped.hear() == "enqueued"
        svc.enqueue("mail")
        assert svc.stats("mail").totals.ready == 2
        assert svc.check().ok


def test_reading_and_opening_go_on_while_a_stopped_process_has_the_write_lock(
    start: Start, path: str
) -> None:
    with jobq.open(path) as before:
        jid = before.enqueue("other")
        _stop_with_the_lock(start, path)
        since = time.monotonic()
        seen = [before.status(jid), before.get(jid).status, before.find(topic="other")[0].status]
        counts = before.stats("other").totals.ready
        topics, report = before.topics(), before.check()
        in_a_new_process = start(_read_only, path, jid).hear()
        waited = time.monotonic() - since

        assert seen == [Status.READY] * 3
        assert (counts, topics, report.ok) == (1, ["other"], True)
        assert in_a_new_process == "ready"
        assert waited < SOON_S


def test_all_threads_that_wait_for_the_lock_give_up_in_time(start: Start, path: str) -> None:
    """Not one after the other: that would take twice as long as they have."""
    _stop_with_the_lock(start, path)
    with _short(path) as svc:
        outcomes: list[str] = []

        def enqueue() -> None:
            try:
                svc.enqueue("mail")
            except StoreBusy:
                outcomes.append("StoreBusy")

        threads = [threading.Thread(target=enqueue, daemon=True) for _ in range(60)]
        since = time.monotonic()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(DEADLINE_S)
        waited = time.monotonic() - since

        assert outcomes == ["StoreBusy"] * 60
        assert waited < SOON_S


def test_ctrl_c_and_sigterm_end_the_wait_for_the_lock(start: Start, path: str) -> None:
    stopped = _stop_with_the_lock(start, path)
    for number, said in ((signal.SIGINT, "KeyboardInterrupt"), (signal.SIGTERM, "SystemExit")):
        child = start(_enqueue_and_be_signalled, path)
        assert child.hear() == "about to enqueue"
        eventually(lambda pid=child.pid: state_of(pid) == "S")  # type: ignore[misc]
        since = time.monotonic()
        child.signal(number)

        assert child.hear() == said
        assert time.monotonic() - since < SOON_S
    stopped.signal(signal.SIGCONT)
    assert stopped.hear() == "enqueued"
    with jobq.open(path) as svc:
        assert svc.stats("mail").totals.ready == 1, "what was interrupted was not done"
        assert svc.check().ok


def test_the_death_of_a_stopped_process_frees_its_lock(start: Start, path: str) -> None:
    stopped = _stop_with_the_lock(start, path)
    stopped.kill()
    with _short(path) as svc:
        svc.enqueue("mail")

        assert svc.stats("mail").totals.ready == 1
        assert svc.check().ok


@pytest.mark.parametrize("step", ["data file synced", "data file moved"])
def test_who_opens_a_queue_that_a_stopped_process_is_making_is_told_so(
    step: str, start: Start, path: str
) -> None:
    stopped = start(_make_and_stop, path, step)
    assert stopped.hear() == "about to stop"
    eventually(lambda: state_of(stopped.pid) == "T")
    since = time.monotonic()
    with pytest.raises(StoreBusy, match=rf"process {stopped.pid} .*stopped"):
        _short(path)
    waited = time.monotonic() - since

    assert LOCK_TIMEOUT_S <= waited < SOON_S

    stopped.signal(signal.SIGCONT)
    assert stopped.hear() == "made"
    with _short(path) as svc:
        svc.enqueue("mail")
        assert svc.check().ok


# Sudden exits.


@pytest.mark.parametrize("way", ["os._exit", "sys.exit", "end", "exception", "close"])
@pytest.mark.parametrize("daemon", [True, False])
def test_a_process_with_busy_threads_can_end(
    way: str, daemon: bool, start: Start, path: str, tmp_path: Path
) -> None:
    """Whatever its threads are doing; what they were told of is done."""
    added, finished = Notebook(tmp_path / "added"), Notebook(tmp_path / "finished")
    child = start(_end_with_busy_threads, path, str(tmp_path), way, daemon)
    assert child.hear() == "busy"
    status = child.ended()
    with jobq.open(path) as svc:
        status_of = {record.id: record.status for record in svc.find(limit=10_000)}

        assert status == (1 if way == "exception" else 0)
        assert len(added.read()) > 0
        assert [jid for jid in added.read() if jid not in status_of] == []
        assert [jid for jid in finished.read() if status_of[jid] is not Status.DONE] == []
        assert Status.RESERVED not in status_of.values()
        assert svc.check().ok


# In the test.


def _short(path: str) -> JobService:
    """A service that does not wait long for the lock."""
    return JobService(LmdbStore(path, lock_timeout=LOCK_TIMEOUT_S))


def _stop_with_the_lock(start: Start, path: str) -> Child:
    stopped = start(_enqueue_and_stop, path)
    assert stopped.hear() == "about to stop"
    eventually(lambda: state_of(stopped.pid) == "T")
    return stopped


# What the children do.


def _enqueue_and_stop(pipe: Pipe, path: str) -> None:
    svc = jobq.open(path)

    def strike(_: int, step: str) -> None:
        if step == "file lock taken":
            pipe.send("about to stop")
            os.kill(os.getpid(), signal.SIGSTOP)

    with_steps(strike)
    svc.enqueue("mail")
    pipe.send("enqueued")
    pipe.recv()


def _make_and_stop(pipe: Pipe, path: str, step: str) -> None:
    def strike(_: int, reached: str) -> None:
        if reached == step:
            pipe.send("about to stop")
            os.kill(os.getpid(), signal.SIGSTOP)

    with_steps(strike)
    jobq.open(path).close()
    pipe.send("made")
    pipe.recv()


def _read_only(pipe: Pipe, path: str, jid: str) -> None:
    with jobq.open(path) as svc:
        pipe.send(str(svc.status(jid)))


def _enqueue_and_be_signalled(pipe: Pipe, path: str) -> None:
    def leave(*_: object) -> NoReturn:
        raise SystemExit

    signal.signal(signal.SIGTERM, leave)
    svc = jobq.open(path)
    pipe.send("about to enqueue")
    try:
        svc.enqueue("mail")
    except BaseException as error:  # noqa: BLE001 - told to the test
        pipe.send(type(error).__name__)


def _end_with_busy_threads(pipe: Pipe, path: str, directory: str, way: str, daemon: bool) -> None:
    svc = jobq.open(path)
    added, finished = Notebook(f"{directory}/added"), Notebook(f"{directory}/finished")
    over = threading.Event()

    def work(topic: str) -> None:
        with suppress(JobqError):  # what a closed store says
            while daemon or not over.is_set():
                added.note(svc.enqueue(topic))
                for job in svc.reserve(topic, 2, timeout=0.01):
                    job.done()
                    finished.note(job.id)
                svc.stats()

    for number in range(4):
        threading.Thread(target=work, args=(f"thread {number % 2}",), daemon=daemon).start()
    eventually(lambda: len(finished) > 20)
    pipe.send("busy")
    threading.Timer(0.3, over.set).start()  # threads that are no daemons go on for a while
    sys.stderr = open(os.devnull, "w")  # noqa: PTH123, SIM115 - what an exception would print
    match way:
        case "os._exit":
            os._exit(0)
        case "sys.exit":
            sys.exit(0)
        case "exception":
            raise KeyError(way)
        case "close":
            svc.close()
