"""What `check` says of topics whose records contradict each other, for every store."""

from collections.abc import Callable
from typing import Any

import pytest

from jobq.clock import ManualClock
from jobq.repo.lmdb.keys import topic_name_key, topic_settings_key
from jobq.repo.repositories import LISTED, Transaction, Waiting, done_list
from jobq.repo.transactional import TIMELESS
from jobq.states import Status
from tests.conftest import DURABLE, STORES, Kind
from tests.repo.conftest import Queue, done

Tamper = Callable[[Transaction, bytes, bytes], object]
"""Gets a done job, which is listed, and a ready one; the topic has number 1."""


def _list_no_more(tx: Transaction, listed: bytes, _: bytes) -> None:
    (state,) = tx.jobs.states([listed])
    assert state is not None
    tx.topics.remove(done_list(1), [Waiting(0, state.seq, listed)])


def _say_listed(tx: Transaction, _: bytes, ready: bytes) -> None:
    (state,) = tx.jobs.states([ready])
    assert state is not None
    tx.jobs.update([(ready, state._replace(notes=LISTED))])


def _raw(change: str, key: bytes, *data: bytes) -> Tamper:
    def tamper(tx: Any, *_: bytes) -> None:
        access = tx.topics._access
        access.dirty = True
        getattr(access.txn, change)(key, *data, db=access.db.topics)

    return tamper


def _miscount_empty(tx: Any, *_: bytes) -> None:
    tx.topics._touch(1).empty_us = 5


EVERYWHERE: list[tuple[str, Tamper, list[str]]] = [
    ("a listed job that no list names", _list_no_more, ["its topic does not list it"]),
    (
        "a list that names no listed job",
        lambda tx, _, ready: tx.topics.push(done_list(1), [Waiting(0, 99, ready)]),
        ["the list of topic number 1 names job", "at 99"],
    ),
    (
        "a ready job that says it is listed",
        _say_listed,
        ["is ready, but says that it is listed", "says that it is listed as done, but its topic"],
    ),
]
IN_LMDB: list[tuple[str, Tamper, list[str]]] = [
    (
        "a wrong number of listed jobs",
        lambda tx, *_: tx.topics.count_listed(1, 1),
        ["topic 'mail' lists 2 jobs, but has 1"],
    ),
    (
        "settings that are not there",
        _raw("delete", topic_settings_key(1)),
        ["topic 'mail' should have settings, but has none"],
    ),
    (
        "settings that are damaged",
        _raw("put", topic_settings_key(1), b"x" * 9),
        ["the settings of topic 'mail' cannot be read"],
    ),
    (
        "settings of no topic",
        _raw("put", topic_settings_key(7), b"x" * 9),
        ["topic number 7 has no record"],
    ),
    ("a topic without its name", _raw("delete", topic_name_key("mail")), ["that is no name of it"]),
    ("a topic that says it is empty", _miscount_empty, ["does have jobs, but says otherwise"]),
]


@pytest.mark.parametrize(
    ("kind", "tamper", "words"),
    [
        pytest.param(kind, tamper, words, id=f"{kind}-{name}")
        for kinds, table in ((STORES, EVERYWHERE), (DURABLE, IN_LMDB))
        for kind in kinds
        for name, tamper, words in table
    ],
)
def test_check_says_what_is_wrong(
    tmp_path: Any, clock: ManualClock, kind: Kind, tamper: Tamper, words: list[str]
) -> None:
    with kind.open(tmp_path / "queue", clock=clock) as store:
        queue = Queue(store, clock)
        store.configure("mail", {"max_done": 5})
        listed = queue.add()
        store.settle([done(queue.take_one())])
        ready = queue.add()
        assert store.check().problems == ()
        store._write(lambda tx: tamper(tx, listed, ready), TIMELESS)  # type: ignore[attr-defined]

        problems = store.check().problems
        assert problems
        for word in words:
            assert any(word in problem for problem in problems), problems
        assert queue.status(ready) is Status.READY
