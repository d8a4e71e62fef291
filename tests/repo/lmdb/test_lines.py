"""Standing in line for the write lock: who gives it back calls the next one, and no call is lost.

Naps are of ten minutes here: who is not called comes too late.
"""

import signal
import threading
import time
from functools import partial
from pathlib import Path

import pytest

from jobq.errors import StoreBusy
from jobq.repo.lmdb import filelock
from jobq.repo.lmdb.bell import Bell
from jobq.repo.lmdb.filelock import FileLock
from tests.conftest import LONG_S, Crew, eventually
from tests.crash.processes import state_of
from tests.repo.lmdb.conftest import Start
from tests.repo.lmdb.processes import hear, put, say

NAP_S = 600.0


@pytest.fixture(autouse=True)
def _long_naps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(filelock, "LINE_NAPS_S", (NAP_S, NAP_S))
    monkeypatch.setattr(filelock, "TURN_S", 0.0)


TURN, WRITE = 0, 1


class WatchedBell(Bell):
    """A bell that tells in which line its owner stands."""

    stands_in: int | None = None

    def wait_in_line(self, line: int, seen: int, timeout: float) -> None:
        self.stands_in = line
        super().wait_in_line(line, seen, timeout)


def lock_in(directory: Path) -> FileLock:
    """The write lock, by descriptors of its own: as another process has it."""
    lock = FileLock(directory)
    lock.bell = WatchedBell(directory / "bell")
    return lock


def stands_in(lock: FileLock, line: int) -> bool:
    return bell_of(lock).stands_in == line


def bell_of(lock: FileLock) -> WatchedBell:
    assert isinstance(lock.bell, WatchedBell)
    return lock.bell


def take_turns(lock: FileLock, turns: int = 1) -> None:
    """Wait for the lock as long as it takes, and give it back at once."""
    for _ in range(turns):
        lock.acquire(NAP_S)
        lock.release()


def put_long_naps() -> None:
    """In a child."""
    put(filelock, "LINE_NAPS_S", (NAP_S, NAP_S))
    put(filelock, "TURN_S", 0.0)


def _takes_turns(directory: str, turns: int) -> None:
    put_long_naps()
    lock = lock_in(Path(directory))
    say("ready")
    hear()
    take_turns(lock, turns)
    say("done")


def test_six_processes_that_want_the_lock_all_the_time_lose_no_call(
    tmp_path: Path, start: Start
) -> None:
    children = [start(_takes_turns, str(tmp_path), 500) for _ in range(6)]
    for child in children:
        assert child.said() == "ready"
    for child in children:
        child.tell("go")

    assert [child.said() for child in children] == ["done"] * 6


def _waits_for_the_lock(directory: str) -> None:
    put_long_naps()
    lock = lock_in(Path(directory))
    say("waiting")
    lock.acquire(NAP_S)
    say("held")
    hear()


def test_who_waits_sleeps_until_the_lock_is_given_back(tmp_path: Path, start: Start) -> None:
    lock = lock_in(tmp_path)
    lock.acquire(0)
    child = start(_waits_for_the_lock, str(tmp_path))
    assert child.said() == "waiting"
    eventually(lambda: in_line(lock, child.pid))
    lock.release()

    assert child.said() == "held"
    lock.close()


def in_line(lock: FileLock, pid: int) -> bool:
    """Whether somebody has asked to be called, and the process sleeps."""
    return bell_of(lock).is_line(WRITE) and state_of(pid) == "S"


def test_one_call_for_several_who_asked_reaches_them_all_in_the_end(
    tmp_path: Path, crew: Crew
) -> None:
    """Each call clears what they have asked for together, and wakes one of them."""
    held, first, *behind = (lock_in(tmp_path) for _ in range(5))
    held.acquire(0)
    crew.start(take_turns, first)
    eventually(partial(stands_in, first, WRITE))
    for lock in behind:
        crew.start(take_turns, lock)
        eventually(partial(stands_in, lock, TURN))
    held.release()
    crew.join()

    for lock in (held, first, *behind):
        lock.close()


class Gone(BaseException):
    """An interrupt."""


def test_who_is_interrupted_when_called_passes_the_call_on(
    tmp_path: Path, crew: Crew, monkeypatch: pytest.MonkeyPatch
) -> None:
    held, interrupted, behind = (lock_in(tmp_path) for _ in range(3))
    called = threading.Event()
    bell = bell_of(interrupted)
    sleep = bell.wait_in_line

    def wait_and_be_interrupted(line: int, seen: int, timeout: float) -> None:
        sleep(line, seen, timeout)
        called.set()
        raise Gone

    monkeypatch.setattr(bell, "wait_in_line", wait_and_be_interrupted)

    def stand_first() -> None:
        try:
            interrupted.acquire(NAP_S)
        except Gone:
            interrupted.release()

    held.acquire(0)
    crew.start(stand_first)
    eventually(partial(stands_in, interrupted, WRITE))
    crew.start(take_turns, behind)
    eventually(partial(stands_in, behind, TURN))
    held.release()
    crew.join()

    assert called.is_set()
    for lock in (held, interrupted, behind):
        lock.close()


def test_whoever_was_called_and_is_killed_keeps_nobody_from_the_lock_for_long(
    tmp_path: Path, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(filelock, "LINE_NAPS_S", (0.05, 0.05))
    held, behind = lock_in(tmp_path), lock_in(tmp_path)
    held.acquire(0)
    child = start(_waits_for_the_lock, str(tmp_path))
    assert child.said() == "waiting"
    eventually(lambda: in_line(held, child.pid))
    child.signal(signal.SIGSTOP)
    eventually(lambda: state_of(child.pid) == "T")
    held.release()  # the only call is for who can do nothing with it
    child.kill()

    behind.acquire(LONG_S)

    behind.release()
    held.close()
    behind.close()


def test_a_lock_that_nobody_waits_for_calls_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[int] = []
    lock = lock_in(tmp_path)
    monkeypatch.setattr(Bell, "_wake", lambda *call: calls.append(call[1]))
    for _ in range(3):
        lock.acquire(0)
        lock.release()

    assert calls == []
    lock.close()


@pytest.mark.parametrize("timeout", [0.0, 0.1])
def test_who_stands_in_line_waits_no_longer_than_asked(tmp_path: Path, timeout: float) -> None:
    lock, mine = lock_in(tmp_path), lock_in(tmp_path)
    lock.acquire(0)
    began = time.monotonic()
    with pytest.raises(StoreBusy):
        mine.acquire(timeout)
    mine.release()

    assert timeout <= time.monotonic() - began < LONG_S
    lock.release()
    for one in (lock, mine):
        one.close()


def test_within_its_turn_a_process_calls_nobody_and_may_have_the_lock_again(
    tmp_path: Path, crew: Crew, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To wake another process each time takes as long as a commit."""
    monkeypatch.setattr(filelock, "TURN_S", NAP_S)
    holder, other = lock_in(tmp_path), lock_in(tmp_path)
    holder.acquire(0)
    crew.start(take_turns, other)
    eventually(partial(stands_in, other, WRITE))
    for _ in range(3):
        holder.release()
        holder.acquire(0)
    assert bell_of(holder).is_line(WRITE)

    holder._turn_ends = 0.0
    holder.release()
    crew.join()
    holder.close()
    other.close()
