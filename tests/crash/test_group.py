"""Group commit: who comes together is committed together, and what befalls one befalls nobody else.

What is done to the engine here is done through LMDB's own objects: a commit that fails, a write
that fails. Everything else is real.
"""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, NoReturn

import lmdb
import pytest

import jobq
from jobq import JobService, OutcomeUnknown, Status, StoreFull, StoreUnavailable
from jobq.job import JobSpec
from jobq.options import UNSET
from jobq.repo.base import Retention
from jobq.repo.lmdb import LmdbStore, outcome, steps
from jobq.repo.lmdb.filelock import FileLock
from jobq.repo.lmdb.jobs import LmdbJobs
from jobq.repo.lmdb.transactions import Transactions
from jobq.repo.repositories import Transaction
from jobq.repo.transactional import DRAINS
from tests.conftest import DEADLINE_S, SOON_S, eventually
from tests.crash.processes import waits

THREADS: Final = 12


class Commits:
    """Counts commits."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.count = 0
        monkeypatch.setattr(steps, "reached", self._reached)

    def _reached(self, step: str) -> None:
        self.count += step == "committed"


@pytest.fixture(params=["lmdb", "memory"], ids="topics in {}".format)
def svc(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[JobService]:
    """A queue that is clean at the end, and that another opening finds clean, too."""
    with jobq.open(tmp_path / "queue", topics=request.param) as svc:
        svc.enqueue("mail", "first")
        yield svc
        assert svc.check().problems == ()
    with jobq.open(tmp_path / "queue") as again:
        assert again.check().problems == ()


# Together.


def test_threads_that_enqueue_one_by_one_share_commits(
    svc: JobService, monkeypatch: pytest.MonkeyPatch
) -> None:
    commits = Commits(monkeypatch)
    each = 50

    def enqueue() -> list[str]:
        return [svc.enqueue("mail", number) for number in range(each)]

    jids = [jid for mine in at_once(THREADS, enqueue) for jid in mine]

    assert len(set(jids)) == THREADS * each
    assert svc.stats("mail").totals.ready == THREADS * each + 1
    assert commits.count < THREADS * each * 0.8


def test_what_waits_for_the_lock_is_committed_in_one_group(
    svc: JobService, monkeypatch: pytest.MonkeyPatch
) -> None:
    commits = Commits(monkeypatch)
    with lock_taken(svc) as release:
        calls = begin(THREADS, lambda: svc.enqueue("mail"), svc)
        release()
        jids = calls()

    assert len(set(jids)) == THREADS
    assert commits.count == 1


def test_every_verb_may_be_in_a_group_and_gets_its_own_answer(svc: JobService) -> None:
    svc.enqueue_many("mail", range(5))
    held = svc.reserve("mail", 3, timeout=0)
    with lock_taken(svc) as release:
        done = begin(1, held[0].done, svc)
        lost = begin(1, lambda: error_of(held[0].retry), svc)
        added = begin(1, lambda: svc.enqueue("mail"), svc)
        canceled = begin(1, lambda: svc.cancel([held[1].id, held[0].id]), svc)
        taken = begin(1, lambda: svc.reserve("mail", 1, timeout=0), svc)
        reset = begin(1, lambda: svc.reset([held[0].id]), svc)
        release()

        assert done() == [[]]
        assert isinstance(lost()[0], jobq.ReservationLost)
        assert svc.status(added()[0]) is Status.READY
        assert canceled() == [["ok", "invalid"]]
        assert [len(jobs) for jobs in taken()] == [1]
        assert reset() == [["ok"]]


# One of them fails.


def test_an_operation_that_fails_takes_nobody_along(svc: JobService) -> None:
    """Even after it has written: what it wrote is gone, the others' jobs are there once."""

    def fail() -> object:
        return error_of(lambda: store_of(svc)._write(_write_and_fail, DRAINS))

    with lock_taken(svc) as release:
        before = begin(4, lambda: svc.enqueue("good"), svc)
        failing = begin(1, fail, svc)
        after = begin(4, lambda: svc.enqueue("good"), svc)
        release()
        jids = before() + after()

    assert isinstance(failing()[0], ZeroDivisionError)
    assert svc.stats("bad").totals.unfinished == 0
    assert [svc.status(jid) for jid in jids] == [Status.READY] * 8
    assert svc.stats("good").totals.ready == 8


def test_a_job_that_finds_no_room_takes_nobody_along(tmp_path: Path) -> None:
    with JobService(LmdbStore(tmp_path / "small", max_size=2 * 1024**2)) as svc:
        svc.enqueue_many("mail", range(3))
        [held] = svc.reserve("mail", timeout=0)
        with lock_taken(svc) as release:
            small = begin(4, lambda: svc.enqueue("small"), svc)
            large = begin(1, lambda: error_of(lambda: svc.enqueue("large", bytes(900_000))), svc)
            huge = begin(
                1, lambda: error_of(lambda: svc.enqueue_many("huge", [bytes(900_000)] * 3)), svc
            )
            done = begin(1, held.done, svc)
            release()

            assert done() == [[]]
            assert isinstance(huge()[0], StoreFull)
            assert len(set(small())) == 4
            assert isinstance(large()[0], str | StoreFull)
        assert svc.stats("small").totals.ready == 4
        assert svc.stats("huge").totals.ready == 0
        assert svc.check().ok


def test_an_engine_that_fails_while_a_group_is_written_gets_another_try(
    svc: JobService, monkeypatch: pytest.MonkeyPatch
) -> None:
    create = LmdbJobs.create
    calls_of_create = 0

    def failing_once(*args: Any) -> None:
        nonlocal calls_of_create
        calls_of_create += 1
        if calls_of_create == 1:
            raise lmdb.Error("injected")
        create(*args)

    monkeypatch.setattr(LmdbJobs, "create", failing_once)
    with lock_taken(svc) as release:
        calls = begin(THREADS, lambda: svc.enqueue("mail"), svc)
        release()
        jids = calls()

    assert calls_of_create == 1 + THREADS, "once for the whole group, then each alone"
    assert len(set(jids)) == THREADS
    assert svc.stats("mail").totals.ready == THREADS + 1


def test_an_engine_that_goes_on_failing_is_an_error_of_jobq_and_no_effect(
    svc: JobService, monkeypatch: pytest.MonkeyPatch
) -> None:
    def create(*_: object) -> NoReturn:
        raise lmdb.Error("injected")

    with monkeypatch.context() as patch:
        patch.setattr(LmdbJobs, "create", create)
        with lock_taken(svc) as release:
            adding = begin(3, lambda: error_of(lambda: svc.enqueue("mail")), svc)
            taking = begin(1, lambda: svc.reserve("mail", timeout=0), svc)
            release()
            errors, taken = adding(), taking()

    assert [type(error) for error in errors] == [StoreUnavailable] * 3
    assert [job.payload for jobs in taken for job in jobs] == ["first"]
    assert svc.stats("mail").totals.unfinished == 1


# A commit fails.


class FailingCommit:
    """An LMDB transaction whose commit raises: after it took effect, or instead."""

    def __init__(self, txn: lmdb.Transaction, *, effect: bool) -> None:
        self._txn = txn
        self._effect = effect

    def __getattr__(self, name: str) -> Any:
        return getattr(self._txn, name)

    def commit(self) -> NoReturn:
        if self._effect:
            self._txn.commit()
        else:
            self._txn.abort()
        raise lmdb.Error("injected: the commit failed")


@contextmanager
def failing_commit(
    monkeypatch: pytest.MonkeyPatch, *, effect: bool, times: int = 1
) -> Iterator[None]:
    """The next commits fail, with or without an effect."""
    begin_txn = Transactions._begin
    left = times

    def failing(transactions: Transactions) -> Any:
        nonlocal left
        txn = begin_txn(transactions)
        if left:
            left -= 1
            return FailingCommit(txn, effect=effect)
        return txn

    with monkeypatch.context() as patch:
        patch.setattr(Transactions, "_begin", failing)
        yield
    assert left == 0, "there was no such commit"


@pytest.mark.parametrize("effect", [True, False])
@pytest.mark.parametrize("calls", [1, 5])
def test_what_a_failed_commit_did_is_found_out(
    effect: bool, calls: int, svc: JobService, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each job is there once if its caller got an id, and not at all if it got an error."""
    with failing_commit(monkeypatch, effect=effect), lock_taken(svc) as release:
        begun = begin(calls, lambda: error_of(lambda: svc.enqueue("mail", "x")), svc)
        release()
        answers = begun()
    jids = [answer for answer in answers if isinstance(answer, str)]
    errors = [answer for answer in answers if isinstance(answer, StoreUnavailable)]

    assert len(set(jids)) + len(errors) == calls
    assert len(errors) <= (calls == 1 and not effect), "in a group each is tried again alone"
    assert [svc.status(jid) for jid in jids] == [Status.READY] * len(jids)
    assert svc.stats("mail").totals.ready == 1 + len(jids)


def test_what_a_failed_commit_reserved_and_settled_is_found_out(
    svc: JobService, monkeypatch: pytest.MonkeyPatch
) -> None:
    svc.enqueue("mail", "second")
    with failing_commit(monkeypatch, effect=True):
        [job] = svc.reserve("mail", timeout=0)
    job.extend(60)
    with failing_commit(monkeypatch, effect=True):
        [follow] = job.done("result", then=[jobq.NewJob("mail", "third")])

    assert (svc.get(job.id).result, svc.get(job.id).attempt) == ("result", 1)
    assert svc.status(follow) is Status.READY
    assert svc.stats("mail").totals.ready == 2


def test_a_settlement_whose_commit_failed_can_be_repeated(
    svc: JobService, monkeypatch: pytest.MonkeyPatch
) -> None:
    [job] = svc.reserve("mail", timeout=0)
    with failing_commit(monkeypatch, effect=False):
        refused = error_of(job.done)
    job.extend(60)
    job.done("second try")

    assert isinstance(refused, StoreUnavailable)
    assert svc.get(job.id).result == "second try"


@pytest.mark.usefixtures("sound_sleep")
def test_a_failed_commit_wakes_waiters_if_it_took_effect(
    svc: JobService, monkeypatch: pytest.MonkeyPatch
) -> None:
    svc.delete([record.id for record in svc.find()])
    came: list[float] = []

    def wait() -> None:
        assert svc.reserve("mail", timeout=DEADLINE_S)
        came.append(time.monotonic())

    thread = threading.Thread(target=wait, daemon=True)
    thread.start()
    eventually(lambda: thread.native_id and waits(thread.native_id))
    with failing_commit(monkeypatch, effect=True):
        since = time.monotonic()
        svc.enqueue("mail")
    thread.join(DEADLINE_S)

    assert came[0] - since < SOON_S


@pytest.mark.parametrize("effect", [True, False])
@pytest.mark.parametrize("calls", [1, 5])
def test_an_outcome_that_cannot_be_found_out_is_unknown_and_not_tried_again(
    effect: bool, calls: int, svc: JobService, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A second try could make every job twice. The ids are told, so the caller can look."""

    def look_for(*_: object) -> NoReturn:
        raise StoreUnavailable("injected: it cannot be opened again")

    with monkeypatch.context() as patch, failing_commit(monkeypatch, effect=effect):
        patch.setattr(outcome, "_look_for", look_for)
        with lock_taken(svc) as release:
            begun = begin(calls, lambda: error_of(lambda: svc.enqueue("mail", "x")), svc)
            release()
            errors = begun()

    assert [type(error) for error in errors] == [OutcomeUnknown] * calls
    jids = [jid for error in errors if isinstance(error, OutcomeUnknown) for jid in error.ids]
    assert len(set(jids)) == calls
    known = {record.id for record in svc.find(topic="mail")}
    assert [jid in known for jid in jids] == [effect] * calls
    assert len(known) == 1 + calls * effect


@pytest.mark.parametrize("effect", [True, False])
def test_a_reservation_whose_outcome_is_unknown_names_its_jobs(
    effect: bool, svc: JobService, monkeypatch: pytest.MonkeyPatch
) -> None:
    [first] = svc.find(topic="mail")

    def look_for(*_: object) -> NoReturn:
        raise StoreUnavailable("injected: it cannot be opened again")

    with monkeypatch.context() as patch, failing_commit(monkeypatch, effect=effect):
        patch.setattr(outcome, "_look_for", look_for)
        error = error_of(lambda: svc.reserve("mail", timeout=0))

    assert isinstance(error, OutcomeUnknown)
    assert error.ids == (first.id,)
    assert svc.status(first.id) is (Status.RESERVED if effect else Status.READY)


def test_a_broken_engine_is_opened_anew(svc: JobService, monkeypatch: pytest.MonkeyPatch) -> None:
    """LMDB's `PanicError`: nothing works until the file is closed and opened."""
    begin_txn = Transactions._begin
    panics = 1

    def panicking(transactions: Transactions) -> Any:
        nonlocal panics
        if panics:
            panics -= 1
            raise lmdb.PanicError("injected")
        return begin_txn(transactions)

    before = store_of(svc)._env._file.env
    monkeypatch.setattr(Transactions, "_begin", panicking)
    jid = svc.enqueue("mail")

    assert svc.status(jid) is Status.READY
    assert store_of(svc)._env._file.env is not before


# Helpers.


def store_of(svc: JobService) -> LmdbStore:
    assert isinstance(svc.store, LmdbStore)
    return svc.store


def _write_and_fail(tx: Transaction) -> NoReturn:
    from jobq.repo.operations.enqueue import add

    add(tx, [JobSpec("bad", 0, 0, b"\xc0", UNSET)], Retention())
    raise ZeroDivisionError("injected")


def error_of(call: Callable[[], object]) -> object:
    """The exception that a call raises, or what it returned."""
    try:
        return call()
    except Exception as error:  # noqa: BLE001 - it is what is asked for
        return error


@contextmanager
def lock_taken(svc: JobService) -> Iterator[Callable[[], None]]:
    """As if another process were writing, until the callable that this gives is called."""
    lock = FileLock(store_of(svc)._env.path)
    lock.acquire(DEADLINE_S)
    try:
        yield lock.release
    finally:
        lock.release()
        lock.close()


def begin(n: int, call: Callable[[], Any], svc: JobService) -> Callable[[], list[Any]]:
    """Have *n* threads make a call; returns when all of them wait. Then: what they returned."""
    waiting = store_of(svc)._env._group._queue
    before = len(waiting)
    results = at_once(n, call, join=False)
    eventually(lambda: len(waiting) == before + n)
    return lambda: list(results)


def at_once(n: int, call: Callable[[], Any], *, join: bool = True) -> Any:
    """What *n* threads return that make the same call at the same time."""
    results: list[Any] = [None] * n
    errors: list[BaseException] = []
    barrier = threading.Barrier(n)

    def run(number: int) -> None:
        try:
            barrier.wait(DEADLINE_S)
            results[number] = call()
        except BaseException as error:  # noqa: BLE001 - raised by the test
            errors.append(error)

    threads = [threading.Thread(target=run, args=(number,), daemon=True) for number in range(n)]
    for thread in threads:
        thread.start()

    def collect() -> Iterator[Any]:
        for thread in threads:
            thread.join(DEADLINE_S)
            assert not thread.is_alive(), "a call does not return"
        if errors:
            raise errors[0]
        yield from results

    return list(collect()) if join else collect()
