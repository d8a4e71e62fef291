"""Queues in memory: what is gone leaves nothing behind, and what is undone was never made."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from jobq.clock import ManualClock
from jobq.repo.base import ReserveRequest, Retention
from jobq.repo.flow import Lingering
from jobq.repo.memory import MemoryStore
from jobq.repo.memory.flow import MemoryFlow
from jobq.repo.memory.topics import MemoryTopics
from jobq.repo.memory.undo import Undo
from jobq.repo.mixed import MixedStore
from jobq.repo.operations.topics import LOOK
from jobq.repo.repositories import IDLE_US, Waiting
from tests.repo.conftest import Queue, done, spec


def memory_of(queue: Queue) -> MemoryTopics:
    """The queues of a store that has them in memory."""
    if isinstance(queue.store, MemoryStore):
        return queue.store._topics
    assert isinstance(queue.store, MixedStore)
    memory = getattr(queue.store._env._transactions.index, "memory", None)
    assert isinstance(memory, MemoryTopics)
    return memory


@pytest.fixture(params=[MemoryStore, MixedStore], ids=["memory", "mixed"])
def forgetful(
    request: pytest.FixtureRequest, tmp_path: Path, clock: ManualClock
) -> Iterator[Queue]:
    """An empty store with queues in memory, which keeps nothing of what is finished."""
    kind, retention = request.param, Retention(0, 0)
    path = [] if kind is MemoryStore else [tmp_path / "queue"]
    with kind(*path, clock=clock, retention=retention) as store:
        yield Queue(store, clock)
        assert store.check().problems == ()


def size_of(memory: MemoryTopics) -> tuple[int, ...]:
    return len(memory._queues), len(memory._filled), len(memory._is_filled)


def test_groups_that_are_gone_leave_nothing_behind(forgetful: Queue) -> None:
    memory = memory_of(forgetful)
    sizes = set()
    for number in range(40):
        forgetful.add(group=f"customer {number}")
        forgetful.done(forgetful.take_one())
        sizes.add(size_of(memory))

    assert len(sizes) == 1


def test_topics_that_are_gone_leave_nothing_behind(forgetful: Queue) -> None:
    memory = memory_of(forgetful)
    topics = 4 * LOOK
    for number in range(topics):
        name = f"one of {number}"
        forgetful.store.configure(name, {"max_done": 5})
        forgetful.store.enqueue([spec(name, group="a"), spec(name)])
        held = forgetful.store.reserve(ReserveRequest(name, 2))
        forgetful.store.settle([done(job) for job in held])
        forgetful.store.configure(name, {"max_done": None})
    forgetful.clock.advance(IDLE_US / 1e6 + 1)
    forgetful.store.prune(10 * topics)
    forgetful.store.prune(10 * topics)

    assert forgetful.store.topics() == []
    assert size_of(memory) == (0, 0, 0)


def test_a_queue_that_is_had_again_is_found() -> None:
    undo = Undo()
    topics = MemoryTopics(ManualClock(), undo)
    job = Waiting(0, 1, bytes(16))
    topics.push(7, [job])
    undo.forget()
    topics.remove(7, [job])
    topics.forget_queue(7)
    undo.roll_back()

    assert topics.queued_of([7], 1) == [7]


def test_a_hold_that_was_replaced_is_had_again() -> None:
    undo = Undo()
    flow = MemoryFlow(undo)
    hold = Lingering(1, 1, 5, 2, bytes(8), "key")
    flow.put_lingering(bytes(16), 3, hold)
    undo.forget()
    flow.put_lingering(bytes(16), 3, hold._replace(unique=None))
    undo.roll_back()
    assert flow.lingering(bytes(16), 3) == hold

    flow.drop_lingering(bytes(16), 3)
    flow.put_lingering(bytes(16), 3, hold._replace(unique=None))
    undo.roll_back()
    assert flow.lingering(bytes(16), 3) == hold
