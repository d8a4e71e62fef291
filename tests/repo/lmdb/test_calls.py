"""Who is called: not before the commit, not too late for a sleep, and no more than have to be."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import CodeType, FrameType
from typing import Any, NamedTuple

import pytest

from jobq.clock import ManualClock
from jobq.repo.lmdb import LmdbStore, futex
from jobq.repo.lmdb.bell import EVERYBODY, Bell
from jobq.shares import mix_of
from jobq.states import Status
from tests.conftest import LONG_S, SOON_S
from tests.repo.conftest import Queue, spec


@pytest.fixture
def queue(tmp_path: Path) -> Iterator[Queue]:
    """An empty queue on the clocks of this machine, in which the topic `mail` is known."""
    with LmdbStore(tmp_path / "queue", durability="unsafe") as store:
        queue = Queue(store, ManualClock())  # which nothing here moves
        queue.delete(queue.add())
        yield queue
        assert store.check().problems == ()


# The order of steps of who waits. `test_bell_of_several` and `test_bell_ends` go through those
# within the bell.


class Wait(NamedTuple):
    """A wait, the functions that it goes through, and what ends it."""

    codes: frozenset[CodeType]
    call: Callable[[float], object]
    end: Callable[[], object]


OF_JOBS = frozenset(
    function.__code__
    for function in (
        LmdbStore.wait,
        LmdbStore._wait_for_any,
        LmdbStore._wait_alone,
        LmdbStore._wait_for_several,
    )
)


def for_a_topic(queue: Queue) -> Wait:
    return Wait(OF_JOBS, lambda timeout: queue.store.wait("mail", timeout), queue.add)


def for_several_topics(queue: Queue) -> Wait:
    mix = mix_of(["mail", "other"])
    return Wait(OF_JOBS, lambda timeout: queue.store.wait(mix, timeout), queue.add)


def for_an_end(queue: Queue) -> Wait:
    job_id = queue.add(delay=3600)
    seen: dict[bytes, int | None] = {job_id: None}
    queue.store.wait_ended(seen, 0)  # now it is asked for
    return Wait(
        frozenset([LmdbStore.wait_ended.__code__]),
        lambda timeout: queue.store.wait_ended(seen, timeout),
        lambda: queue.cancel(job_id),
    )


class AsleepError(Exception):
    """It has come to its sleep."""


@pytest.mark.usefixtures("sound_sleep")
@pytest.mark.parametrize(
    ("wait_for", "can_wait_for_any"),
    [
        pytest.param(for_a_topic, True, id="for_a_topic"),
        pytest.param(for_a_topic, False, id="for_a_topic at one counter"),
        pytest.param(for_several_topics, True, id="for_several_topics"),
        pytest.param(for_several_topics, False, id="for_several_topics at one counter"),
        pytest.param(for_an_end, True, id="for_an_end"),
    ],
)
def test_what_comes_before_any_line_of_a_wait_ends_it(
    wait_for: Callable[[Queue], Wait],
    can_wait_for_any: bool,
    queue: Queue,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Between the look and the sleep, too: the counter has to be read before the look."""
    if not can_wait_for_any:
        monkeypatch.setattr(futex, "can_wait_for_any", lambda: False)
        queue.store.wait("mail", 0)  # so that it knows the number by the next time
    lines: list[int] = []
    way: list[int] = []

    def fall_asleep(*_: object) -> None:
        way.extend(lines)
        raise AsleepError

    with monkeypatch.context() as patch:
        patch.setattr(Bell, "_wait", fall_asleep)
        patch.setattr(Bell, "_wait_for_any", fall_asleep)
        wait = wait_for(queue)
        with pytest.raises(AsleepError), before_line(0, wait, lines):
            wait.call(LONG_S)

    assert len(way) > 5
    for at, line in enumerate(way, start=1):
        wait = wait_for(queue)
        began = time.monotonic()
        passed: list[int] = []
        with before_line(at, wait, passed):
            wait.call(LONG_S)

        assert len(passed) >= at
        assert time.monotonic() - began < SOON_S, f"it was missed before line {line}"
        for held in queue.take(n=9):
            queue.done(held)


@contextmanager
def before_line(at: int, wait: Wait, lines: list[int]) -> Iterator[None]:
    """Ends the wait before so many of its lines, never for 0; adds those that it comes to."""

    def begin(frame: FrameType, _event: str, _: object) -> Any:
        return step if frame.f_code in wait.codes else None

    def step(frame: FrameType, event: str, _: object) -> Any:
        if event == "line":
            lines.append(frame.f_lineno)
            if len(lines) == at:
                wait.end()
        return step

    before = sys.gettrace()
    sys.settrace(begin)
    try:
        yield
    finally:
        sys.settrace(before)


# The order of steps of who calls.


def test_nobody_is_called_before_there_is_something_to_find(
    queue: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who is called too early looks, finds nothing, and sleeps on."""
    store = queue.store
    assert isinstance(store, LmdbStore)
    file = store._env._file
    found: list[int] = []

    def look(_bell: Bell, _place: int, *_: object) -> None:
        assert file.env is not None
        assert file.db is not None
        with file.env.begin() as txn:  # what any process sees at that moment
            found.append(txn.stat(file.db.jobs)["entries"])

    monkeypatch.setattr(Bell, "_raise", look)
    monkeypatch.setattr(Bell, "_wake", look)
    for count in range(1, 4):
        queue.add()
        assert set(found) == {count}
        found.clear()


def test_a_commit_calls_as_many_as_it_has_jobs_for_and_no_more(
    queue: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or all who wait would get up for each job, and but one of them in vain."""
    called: list[int] = []
    monkeypatch.setattr(Bell, "wake", lambda _bell, _topic, most=EVERYBODY: called.append(most))
    queue.store.enqueue([spec()])
    queue.store.enqueue([spec()] * 3)
    held = queue.take(n=4)
    queue.release(held[0])
    queue.done(held[1])

    assert called == [1, 3, 1]
    assert queue.counts() == {Status.READY: 1, Status.RESERVED: 2, Status.DONE: 1}
