"""Waiting for several topics at the bell: no order of steps loses a call."""

import contextlib
from pathlib import Path
from typing import Final

import pytest

from jobq.repo.lmdb.bell import _SEVERAL, COUNTERS, PAGE, Bell
from tests.repo.lmdb.bells import MOST_STEPS, Killed, stepped

MINE: Final = 7
ALSO_MINE: Final = 9
OTHER: Final = 8


class Queue:
    """What a waiter looks for."""

    def __init__(self) -> None:
        self.jobs: set[int] = set()


def commit(bell: Bell, queue: Queue, topic: int) -> None:
    """What a commit does that makes a job ready."""
    queue.jobs.add(topic)
    bell.raise_counter(topic)
    bell.wake(topic, 1)
    bell.wake_several()


def fall_asleep(bell: Bell, queue: Queue) -> int | None:
    """What a waiter for two topics does; the value on which it sleeps, None if it does not."""
    page = bell.page()
    if MINE in queue.jobs:
        return None
    count = bell.ask_for_several()
    return count if bell.stand(page, [MINE, ALSO_MINE]) else None


def is_awake(bell: Bell, count: int | None) -> bool:
    return count is None or bell._read(_SEVERAL) != count


@pytest.mark.parametrize("others_wait", [False, True])
def test_a_job_that_comes_between_the_steps_of_a_waiter_is_not_missed(
    others_wait: bool, bell_path: Path, bell: Bell
) -> None:
    steps = 0
    for at in range(1, MOST_STEPS):
        queue = Queue()
        if others_wait:
            bell.ask_for_several()
        waiter, reached = stepped(bell_path, at, lambda queue=queue: commit(bell, queue, MINE))  # type: ignore[misc]
        count = fall_asleep(waiter, queue)
        steps = max(steps, reached())
        if not queue.jobs:  # it was quicker
            commit(bell, queue, MINE)

        assert is_awake(bell, count), f"a job before step {at} was missed"
    assert 3 < steps < MOST_STEPS - 1


def test_a_job_of_another_topic_between_the_steps_of_a_waiter_does_not_hide_its_own(
    bell_path: Path, bell: Bell
) -> None:
    for at in range(1, MOST_STEPS):
        queue = Queue()
        bell.ask_for_several()
        waiter, _ = stepped(bell_path, at, lambda queue=queue: commit(bell, queue, OTHER))  # type: ignore[misc]
        count = fall_asleep(waiter, queue)
        commit(bell, queue, MINE)

        assert is_awake(bell, count), f"not called when another commit came before step {at}"


@pytest.mark.parametrize("topic", [MINE, OTHER])
@pytest.mark.parametrize("dies", [False, True])
def test_who_falls_asleep_between_the_steps_of_a_commit_is_called_for_its_own_job(
    dies: bool, topic: int, bell_path: Path, bell: Bell
) -> None:
    """Also if the committer is killed right there: then by the next commit for it."""
    steps = 0
    for at in range(1, MOST_STEPS):
        queue = Queue()
        counts: list[int | None] = []
        bell.ask_for_several()

        def act(queue: Queue = queue, counts: list[int | None] = counts) -> None:
            counts.append(fall_asleep(bell, queue))
            if dies:
                raise Killed

        committer, reached = stepped(bell_path, at, act)
        with contextlib.suppress(Killed):
            commit(committer, queue, topic)
        steps = max(steps, reached())
        if dies or topic is OTHER:
            commit(bell, queue, MINE)

        for count in counts:
            assert is_awake(bell, count), f"not called when it fell asleep before step {at}"
    assert 4 < steps < MOST_STEPS - 1


def test_a_committer_that_is_held_up_does_not_take_back_what_others_have_called(
    bell_path: Path, bell: Bell
) -> None:
    for at in range(1, MOST_STEPS):
        queue = Queue()
        counts: list[int | None] = []
        bell.ask_for_several()

        def act(queue: Queue = queue, counts: list[int | None] = counts) -> None:
            counts.append(fall_asleep(bell, queue))
            commit(bell, queue, MINE)

        slow, _ = stepped(bell_path, at, act)
        commit(slow, queue, OTHER)

        for count in counts:
            assert is_awake(bell, count), f"called back from step {at}"


def test_a_commit_that_nobody_waits_for_changes_nothing_but_its_topics_counter(
    bell_path: Path, bell: Bell
) -> None:
    before = bell_path.read_bytes()
    commit(bell, Queue(), MINE)
    after = bell_path.read_bytes()

    assert after[PAGE:] == before[PAGE:]
    assert after[4 * MINE : 4 * MINE + 4] != before[4 * MINE : 4 * MINE + 4]


def test_only_the_counters_of_its_own_topics_matter_to_a_waiter(bell: Bell) -> None:
    page = bell.page()
    bell.raise_counter(OTHER)
    assert bell.stand(page, [MINE, ALSO_MINE])
    assert not bell.stand(page, [MINE, OTHER])

    page = bell.page()
    bell.raise_counter(COUNTERS - 1 + MINE - 1)  # of another topic in the same place
    assert not bell.stand(page, [MINE, ALSO_MINE])
