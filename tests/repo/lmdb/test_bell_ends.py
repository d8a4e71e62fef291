"""The ends of jobs at the bell: no order of steps of waiters and committers loses a call."""

import contextlib
import mmap
import os
import threading
import time
from pathlib import Path
from typing import Any, Final

import lmdb
import pytest

import jobq
from jobq import JobService, ids
from jobq.repo.lmdb import bell as bell_module
from jobq.repo.lmdb import store as store_module
from jobq.repo.lmdb import transactions as transactions_module
from jobq.repo.lmdb.bell import ANY, COUNTERS, PAGE, SIZE, SLOTS, Bell, slot_of
from jobq.repo.lmdb.transactions import Transactions
from tests.conftest import DEADLINE_S, LONG_S, SOON_S, Crew, sleep_soundly
from tests.repo.lmdb.bells import MOST_STEPS, Killed, stepped
from tests.repo.lmdb.conftest import Start
from tests.repo.lmdb.processes import asleep, hear, put, say

MINE: Final = bytes(15) + b"\x07"
SHARING: Final = bytes(12) + (SLOTS - 1 + 7).to_bytes(4)
"""Another job of the same slot."""
OTHER: Final = bytes(15) + b"\x08"


def end(bell: Bell, *job_ids: bytes) -> list[int]:
    """What a commit does that has ended these jobs; the slots that it wakes."""
    slots: list[int] = []
    bell.note_ends(job_ids, slots)
    for slot in slots:
        bell.wake_slot(slot)
    return slots


# Flags.


def test_jobs_share_slots_and_none_has_the_one_of_who_waits_for_several() -> None:
    assert slot_of(MINE) == slot_of(SHARING) != slot_of(OTHER)
    assert {slot_of(os.urandom(16)) for _ in range(20_000)} == set(range(SLOTS)) - {ANY}
    assert len({slot_of(number.to_bytes(16)) for number in range(SLOTS - 1)}) == SLOTS - 1


def test_an_end_that_nobody_waits_for_calls_nobody(bell: Bell, bell_path: Path) -> None:
    before = bell_path.read_bytes()
    assert end(bell, MINE, OTHER) == []
    bell.ask(OTHER)
    assert end(bell, MINE) == []

    assert bell_path.read_bytes()[: 2 * PAGE] == before[: 2 * PAGE]


def test_an_end_that_is_waited_for_calls_at_its_slot_once(bell: Bell, bell_path: Path) -> None:
    count = Bell(bell_path).ask(MINE)
    assert bell.stands(MINE, count)
    assert sorted(end(bell, OTHER, MINE, SHARING)) == [ANY, slot_of(MINE)]
    assert not bell.stands(MINE, count)
    assert end(bell, MINE) == []

    assert not bell.stands(MINE, bell.read_slot(slot_of(MINE)))  # nobody asks any more


def test_an_old_bell_of_one_page_grows_and_whoever_has_it_keeps_it(bell_path: Path) -> None:
    bell_path.write_bytes(b"\x01\x00\x00\x00" * COUNTERS)
    with bell_path.open("r+b") as file:
        old = mmap.mmap(file.fileno(), PAGE)
    bell = Bell(bell_path)
    bell.raise_counter(3)

    assert bell_path.stat().st_size == SIZE
    assert int.from_bytes(old[12:16], "little") == bell.read(3) == 2
    assert end(bell, MINE) == []


def test_a_flag_that_a_dead_waiter_left_costs_one_call(bell: Bell, bell_path: Path) -> None:
    bell_path.write_bytes(bytes(2 * PAGE) + b"\xff" * PAGE)

    assert len(end(bell, MINE)) == 2
    assert end(bell, MINE) == []


def test_where_there_is_no_futex_who_waits_for_an_end_looks_often(
    bell_path: Path, monkeypatch: pytest.MonkeyPatch, crew: Crew
) -> None:
    monkeypatch.setattr("jobq.repo.lmdb.futex.NUMBER", None)
    bell = Bell(bell_path)
    count = bell.ask(MINE)
    took: list[float] = []

    def wait() -> None:
        began = time.monotonic()
        bell.wait_slot(slot_of(MINE), count, LONG_S)
        took.append(time.monotonic() - began)

    crew.start(wait)
    end(bell, MINE)
    crew.join()

    assert took[0] < SOON_S


# Every order of steps. Each access to the file is a step; another process comes between any two.


def is_called(bell: Bell, count: int, *, others: bool = True) -> bool:
    """Whether a waiter who asked, got *count*, and has looked, notices when its job ends now.

    With *others*, somebody else asks at the slot after that, and hides that a flag was cleared.
    """
    woken = slot_of(MINE) in end(bell, MINE)
    if others:
        bell.ask(SHARING)
    return woken or not bell.stands(MINE, count)


@pytest.mark.parametrize("asked_before", [False, True])
def test_whoever_ends_a_job_of_the_slot_between_the_steps_of_asking_does_not_unask(
    asked_before: bool, bell_path: Path, bell: Bell
) -> None:
    steps = 0
    for at in range(1, MOST_STEPS):
        if asked_before:
            bell.ask(SHARING)
        mine, reached = stepped(bell_path, at, lambda: bell.note_ends([SHARING], []))
        count = mine.ask(MINE)
        steps = max(steps, reached())

        assert is_called(bell, count), f"not called when another ended before step {at}"
    assert 1 < steps < MOST_STEPS - 1


@pytest.mark.parametrize("dies", [False, True])
def test_whoever_asks_between_the_steps_of_a_commit_is_called_for_its_own_end(
    dies: bool, bell_path: Path, bell: Bell
) -> None:
    """Also if the committer is killed right there, and never wakes anybody."""
    steps = 0
    for at in range(1, MOST_STEPS):
        bell.ask(SHARING)
        counts: list[int] = []

        def act(counts: list[int] = counts) -> None:
            counts.append(bell.ask(MINE))
            if dies:
                raise Killed

        committer, reached = stepped(bell_path, at, act)
        with contextlib.suppress(Killed):
            committer.note_ends([SHARING], [])
        steps = max(steps, reached())

        for count in counts:
            assert is_called(bell, count, others=not dies), (
                f"not called when it asked before step {at}"
            )
    assert 3 < steps < MOST_STEPS - 1


@pytest.mark.parametrize("at", range(1, MOST_STEPS))
def test_who_asked_before_a_commit_that_is_killed_looks_again_or_is_asking_still(
    at: int, bell_path: Path, bell: Bell
) -> None:
    count = bell.ask(MINE)

    def die() -> None:
        raise Killed

    committer, _ = stepped(bell_path, at, die)
    with contextlib.suppress(Killed):
        committer.note_ends([SHARING], [])

    assert is_called(bell, count, others=False)


# The whole store: with a safety net of half a minute instead of a second, a lost call shows.


def end_of(svc: JobService, job_id: str) -> Any:
    """The result of a job, by one who looks only when called, not once a second besides."""
    seen: dict[bytes, int | None] = {ids.to_raw(job_id): None}
    while not svc.get(job_id).finished:
        began = time.monotonic()
        svc.store.wait_ended(seen, LONG_S)
        assert time.monotonic() - began < SOON_S, "a call was lost"
    return svc.get(job_id).result


def _share_one_slot() -> None:
    put(bell_module, "slot_of", lambda _: 1)
    put(store_module, "slot_of", lambda _: 1)


def _asks(path: str, me: int, rounds: int, shared: bool) -> None:
    sleep_soundly()
    if shared:
        _share_one_slot()
    with jobq.open(path, durability="unsafe") as svc:
        for number in range(rounds):
            assert end_of(svc, svc.enqueue("double", [me, number])) == [me, 2 * number]
    say("asked")
    hear()


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.usefixtures("sound_sleep")
def test_no_end_is_missed_by_three_processes_in_six_hundred_rounds(
    shared: bool, tmp_path: Path, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    rounds, askers = 200, 3
    if shared:
        monkeypatch.setattr(bell_module, "slot_of", lambda _: 1)
        monkeypatch.setattr(store_module, "slot_of", lambda _: 1)
    with jobq.open(tmp_path / "queue", durability="unsafe") as svc:
        children = [
            start(_asks, str(tmp_path / "queue"), me, rounds, shared) for me in range(askers)
        ]
        for _ in range(rounds * askers):
            [job] = svc.reserve("double", timeout=LONG_S)
            me, number = job.payload
            job.done([me, 2 * number])

        assert [child.said() for child in children] == ["asked"] * askers


def _waits_for(path: str, job_ids: list[str]) -> None:
    sleep_soundly()
    with jobq.open(path, durability="unsafe") as svc:
        seen: dict[bytes, int | None] = dict.fromkeys(map(ids.to_raw, job_ids))
        svc.store.wait_ended(seen, 0)
        say("waiting")
        began = time.monotonic()
        while not (ended := svc.store.wait_ended(seen, LONG_S)):
            pass  # who waits for several is called for every end that is waited for
        say([[ids.to_text(job_id) for job_id in ended], time.monotonic() - began])
        hear()


@pytest.mark.usefixtures("sound_sleep")
def test_one_end_calls_all_who_wait_for_it_and_nobody_else(tmp_path: Path, start: Start) -> None:
    path = tmp_path / "queue"
    with jobq.open(path, durability="unsafe") as svc:
        first, second, third = svc.enqueue_many("a", range(3))
        children = [
            start(_waits_for, str(path), several)
            for several in ([first], [first], [first, second], [second], [second, third])
        ]
        for child in children:
            asleep(child)
        svc.cancel(first)
        for child in children[:3]:
            ended, took = child.said()
            assert ended == [first]
            assert took < SOON_S
        svc.cancel(second)
        for child in children[3:]:
            ended, took = child.said()
            assert ended == [second]
            assert took < SOON_S


@pytest.mark.parametrize("several", [1, 2])
@pytest.mark.parametrize("step", ["stands", "wait_slot"])
@pytest.mark.parametrize("what", ["end", "wake"])
@pytest.mark.usefixtures("sound_sleep")
def test_what_comes_after_the_last_look_and_before_the_sleep_is_not_missed(
    what: str, step: str, several: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with jobq.open(tmp_path / "queue", durability="unsafe") as svc:
        job_ids = svc.enqueue_many("a", range(several))
        seen: dict[bytes, int | None] = dict.fromkeys(map(ids.to_raw, job_ids))
        svc.store.wait_ended(seen, 0)
        plain = getattr(Bell, step)

        def act() -> None:
            monkeypatch.setattr(Bell, step, plain)
            if what == "end":
                svc.cancel(job_ids[-1])
            else:
                svc.store.wake()

        def look_then_act(*arguments: Any) -> Any:
            stands = plain(*arguments)
            if arguments[1] == ids.to_raw(job_ids[-1]):
                act()
            return stands

        def act_then_sleep(*arguments: Any) -> Any:
            act()
            return plain(*arguments)

        monkeypatch.setattr(Bell, step, look_then_act if step == "stands" else act_then_sleep)
        began = time.monotonic()
        ended = svc.store.wait_ended(seen, LONG_S)

    assert time.monotonic() - began < SOON_S
    if what == "end":
        assert ended == [ids.to_raw(job_ids[-1])]


@pytest.mark.usefixtures("sound_sleep")
def test_a_commit_whose_outcome_was_found_out_afterwards_calls_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, start: Start
) -> None:
    path = tmp_path / "queue"
    with jobq.open(path, durability="unsafe") as svc:
        job_id = svc.enqueue("a")
        child = start(_waits_for, str(path), [job_id])
        asleep(child)
        finish = transactions_module._finish

        def fail(*_: Any) -> None:
            monkeypatch.setattr(transactions_module, "_finish", finish)
            raise lmdb.Error("the commit took effect, and then this")

        monkeypatch.setattr(transactions_module, "_finish", fail)
        svc.cancel(job_id)
        ended, took = child.said()

    assert ended == [job_id]
    assert took < SOON_S


@pytest.mark.usefixtures("sound_sleep")
def test_closing_by_another_thread_wakes_at_once(tmp_path: Path, crew: Crew) -> None:
    svc = jobq.open(tmp_path / "queue", durability="unsafe")
    job_ids = [ids.to_raw(job_id) for job_id in svc.enqueue_many("a", range(2))]
    waiting = threading.Event()
    wait = Bell.wait_slot

    def wait_now(self: Bell, slot: int, seen: int, timeout: float) -> None:
        waiting.set()
        wait(self, slot, seen, timeout)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Bell, "wait_slot", wait_now)
        for several in (job_ids[:1], job_ids):
            seen: dict[bytes, int | None] = dict.fromkeys(several)
            svc.store.wait_ended(seen, 0)
            waiting.clear()
            began = time.monotonic()
            waiter = crew.start(svc.store.wait_ended, seen, LONG_S)
            assert waiting.wait(DEADLINE_S)
            if len(several) == 1:
                svc.store.wake()
            else:
                svc.close()
            waiter.join(DEADLINE_S)
            assert time.monotonic() - began < SOON_S


def test_who_waits_is_not_kept_by_a_process_that_is_stopped_with_the_lock(
    tmp_path: Path, start: Start
) -> None:
    """Something is due, and cannot be moved: the wait ends in its time all the same."""
    path = tmp_path / "queue"
    with jobq.open(path, durability="unsafe") as svc:
        job_id = svc.enqueue("a")
        svc.enqueue("a", delay=0.01)
        holder = start(_has_the_lock, str(path))
        assert holder.said() == "has the lock"
        began = time.monotonic()
        with pytest.raises(TimeoutError):
            svc.wait(job_id, 0.3)
        took = time.monotonic() - began
        holder.kill()

    assert 0.3 <= took < SOON_S


def _has_the_lock(path: str) -> None:
    def stand_still(*_: Any) -> None:
        say("has the lock")
        hear()

    put(Transactions, "run_group", stand_still)
    with jobq.open(path, durability="unsafe") as svc:
        svc.enqueue("a")
