"""Idle topics in LMDB: what their numbers leave behind, and who waits for them."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from jobq import JobService
from jobq.clock import ManualClock
from jobq.errors import StoreFull
from jobq.ids import to_raw
from jobq.repo.base import ReserveRequest
from jobq.repo.lmdb import LmdbStore, futex, topic_records
from jobq.repo.lmdb.bell import Bell
from tests.conftest import LONG_S, SOON_S, Crew, eventually
from tests.crash.processes import waits

HOUR_S = 3600.0


@pytest.fixture
def svc(tmp_path: Path, clock: ManualClock) -> Iterator[JobService]:
    with JobService(LmdbStore(tmp_path / "queue", durability="unsafe", clock=clock)) as svc:
        yield svc
        assert svc.check().problems == ()


def store_of(svc: JobService) -> LmdbStore:
    assert isinstance(svc.store, LmdbStore)
    return svc.store


def number_of(svc: JobService, name: str) -> int | None:
    return store_of(svc)._read(lambda tx: tx.topics.known(name))


def leave_idle(svc: JobService, clock: ManualClock, *names: str) -> None:
    svc.delete([svc.enqueue(name) for name in names])
    clock.advance(HOUR_S)


def test_a_name_that_comes_back_gets_another_number(svc: JobService, clock: ManualClock) -> None:
    leave_idle(svc, clock, "mail")
    before = number_of(svc, "mail")
    svc.prune()
    assert (before, number_of(svc, "mail")) == (1, None)

    svc.enqueue("mail")
    assert number_of(svc, "mail") == 2


@pytest.mark.parametrize("how", ["prune", "a new topic"])
def test_who_sleeps_at_the_number_of_a_topic_that_is_cleared_away_is_woken(
    svc: JobService, clock: ManualClock, how: str
) -> None:
    leave_idle(svc, clock, "mail")
    number = number_of(svc, "mail")
    assert number is not None
    bell = store_of(svc)._env.bell
    seen = bell.read(number)
    if how == "prune":
        svc.prune()
    else:
        svc.enqueue("new")

    assert number_of(svc, "mail") is None
    assert bell.read(number) != seen


@pytest.mark.usefixtures("sound_sleep")
@pytest.mark.parametrize("at_one_counter", [False, True])
def test_who_waits_for_a_topic_that_is_cleared_away_gets_its_next_job(
    at_one_counter: bool,
    svc: JobService,
    clock: ManualClock,
    crew: Crew,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if at_one_counter:
        monkeypatch.setattr(futex, "can_wait_for_any", lambda: False)
    slept: list[object] = []
    for name in ("wait", "wait_for_any"):
        monkeypatch.setattr(Bell, name, noting(getattr(Bell, name), slept))
    leave_idle(svc, clock, "mail")
    got: list[bytes] = []

    def take() -> None:
        while not got:
            got.extend(job.id for job in svc.store.reserve(ReserveRequest("mail", 1)))
            if not got:
                svc.store.wait("mail", LONG_S)

    thread = crew.start(take)
    eventually(lambda: slept and waits(thread.native_id or 0))
    assert slept[-1] in (1, [1])
    svc.prune()
    unknown = topic_records.UNKNOWN
    eventually(lambda: slept[-1] in (unknown, [unknown]) and waits(thread.native_id or 0), SOON_S)
    job_id = svc.enqueue("mail")
    crew.join(SOON_S)

    assert got == [to_raw(job_id)]
    assert store_of(svc)._numbers in ({}, {"mail": 2})


def noting(sleep: Callable[..., Any], slept: list[object]) -> Callable[..., Any]:
    """The same, and the topics of those who come to it are noted."""

    def note(bell: Bell, topics: object, *arguments: Any) -> Any:
        slept.append(topics)
        return sleep(bell, topics, *arguments)

    return note


def test_the_numbers_of_waited_for_topics_that_are_gone_are_forgotten(
    svc: JobService, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(futex, "can_wait_for_any", lambda: False)
    leave_idle(svc, clock, "mail")
    svc.store.wait("mail", 0)
    assert store_of(svc)._numbers == {"mail": 1}
    svc.prune()
    svc.store.wait("mail", 0)

    assert store_of(svc)._numbers == {}


def test_when_no_number_is_left_new_topics_are_refused_and_old_ones_go_on(
    svc: JobService, monkeypatch: pytest.MonkeyPatch
) -> None:
    svc.enqueue("one")
    monkeypatch.setattr(topic_records, "LAST_NUMBER", 1)

    with pytest.raises(StoreFull, match="no number is left"):
        svc.enqueue("two")
    svc.enqueue("one")
    assert svc.topics() == ["one"]
