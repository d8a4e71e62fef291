"""The oracle of the storms notices what it is there for; told of storms that did not happen."""

import uuid
from collections.abc import Iterator
from typing import Any, Final

import pytest

from jobq import JobOptions, JobRecord, Status, codec
from tests.torture.kills.ledger import NOBODY, Kind, Note
from tests.torture.kills.reckoning import Reckoning

LEASE_S: Final = 10.0
JOB: Final = uuid.UUID(int=7)
PID: Final = 1000
"""Process 1 has the pid 1001, and so on."""


class Tale:
    """Notes, a second apart."""

    def __init__(self) -> None:
        self._notes: list[Note] = []

    def __call__(self, process: int, kind: Kind, number: int = 1, job: bytes = JOB.bytes) -> "Tale":
        """One more note."""
        at_ns = 10**9 * (len(self._notes) + 1)
        if kind is Kind.WILL_ADD:
            job = NOBODY
        self._notes.append(Note(at_ns, at_ns, process, 0, number, kind, job))
        return self

    def killed(self, process: int) -> "Tale":
        """A process is killed."""
        return self(process, Kind.KILL, PID + process, NOBODY)

    def judged(self, *records: JobRecord, kept: bool = True) -> list[str]:
        """What the oracle says of it; it gets the notes one by one."""
        reckoning = Reckoning(LEASE_S, kept=kept)
        for note in self._notes:
            reckoning.take([note])
        problems, _ = reckoning.judge(iter(records))
        return problems


def added(number: int = 1) -> Tale:
    """A job was added, number 1 of process 1."""
    return Tale()(1, Kind.WILL_ADD, number)(1, Kind.ADDED, number)


def done(tale: Tale, process: int, token: int) -> Tale:
    """It is done, by this reservation."""
    return tale(process, Kind.WILL_DONE, token)(process, Kind.DONE, token)


def record(**differs: Any) -> JobRecord:
    """The job as it is when it was done at once."""
    facts: dict[str, Any] = {
        "id": str(JOB), "topic": "mail", "status": Status.DONE, "weight": 0, "attempt": 1,
        "retries": 0, "crashes": 0, "resets": 0, "reason": None, "error": None,
        "options": JobOptions(), "holder": None, "created_us": 0, "due_us": None,
        "lease_until_us": None, "reserved_us": 1, "ended_us": 2, "result_bytes": None,
        "payload_bytes": codec.pack([1, 0, 1], limit=99),
    }  # fmt: skip
    return JobRecord(**{**facts, **differs})


def test_a_job_that_was_added_reserved_and_done_is_as_it_should_be() -> None:
    tale = done(added()(2, Kind.RESERVED), 2, 1)

    assert tale.judged(record()) == []


def test_what_a_killed_process_was_doing_may_have_happened_or_not() -> None:
    """It may have added a job, reserved it, and finished it; nobody knows."""
    only_announced = Tale()(1, Kind.WILL_ADD).killed(1)
    assert only_announced.judged() == []
    assert only_announced.judged(record(attempt=2, crashes=1)) == []

    about_to_finish = added()(2, Kind.RESERVED)(2, Kind.WILL_DONE).killed(2)
    assert about_to_finish.judged(record()) == []
    again = about_to_finish(3, Kind.RESERVED, 2)
    assert done(again, 3, 2).judged(record(attempt=2, crashes=1)) == []


def wrong() -> Iterator[Any]:
    """Tales, what is left in the queue after them, and what is wrong with that."""

    def case(name: str, tale: Tale, left: list[JobRecord], problem: str) -> Any:
        return pytest.param(tale, left, problem, id=name)

    held = added()(2, Kind.RESERVED)
    yield case("lost before it was reserved", added(), [], "it is lost, and nobody")
    yield case("lost when it was done", done(added()(2, Kind.RESERVED), 2, 1), [], "was to be kept")
    yield case(
        "lost when its holder died", added(10)(2, Kind.RESERVED).killed(2), [], "it is lost, and"
    )
    yield case("not done", held, [record(status=Status.READY, attempt=0)], "it is ready")
    yield case("never added", Tale(), [record()], "nobody was about to add")
    yield case(
        "added twice", done(held, 2, 1), [record(), record(id=str(uuid.UUID(int=8)))], "added twice"
    )
    yield case(
        "another payload",
        done(added()(1, Kind.WILL_ADD, 2)(2, Kind.RESERVED), 2, 1),
        [record(payload_bytes=codec.pack([1, 0, 2], limit=99))],
        "it was acknowledged as",
    )
    yield case(
        "one reservation for two",
        done(added()(2, Kind.RESERVED)(3, Kind.RESERVED), 2, 1),
        [record()],
        "handed out twice",
    )
    yield case(
        "taken from the living",
        done(added()(2, Kind.RESERVED)(3, Kind.RESERVED, 2).killed(2), 3, 2),
        [record(attempt=2, crashes=1)],
        "process 3 got it while 2 held it",
    )
    extended = added()(2, Kind.RESERVED)
    for _ in range(12):
        extended(2, Kind.EXTENDED)
    yield case(
        "taken though it was extended",
        done(extended(3, Kind.RESERVED, 2), 3, 2),
        [record(attempt=2, crashes=1)],
        "process 3 got it while 2 held it",
    )
    late = added()(2, Kind.RESERVED)
    for number in range(12):
        late(4, Kind.WILL_ADD, number)
    yield case(
        "settled by a stale holder",
        late(3, Kind.RESERVED, 2)(2, Kind.WILL_RETRY)(2, Kind.RETRIED),
        [record(attempt=3, crashes=1, retries=1)],
        "RETRIED of reservation 1 after 2 began",
    )
    yield case(
        "done twice",
        done(done(added()(2, Kind.RESERVED), 2, 1)(3, Kind.RESERVED, 2), 3, 2),
        [record()],
        "it was done 2 times",
    )
    yield case(
        "handed out when it was done",
        done(added()(2, Kind.RESERVED), 2, 1)(3, Kind.RESERVED, 2).killed(3),
        [record(attempt=2, crashes=1)],
        "handed out again after reservation 1 was done",
    )
    yield case(
        "a retry is not counted",
        done(
            added()(2, Kind.RESERVED)(2, Kind.WILL_RETRY)(2, Kind.RETRIED)(3, Kind.RESERVED, 2),
            3,
            2,
        ),
        [record()],
        "it has 0 retries: 1 were acknowledged",
    )
    yield case(
        "a retry is counted twice",
        done(held, 2, 1),
        [record(retries=1, attempt=2)],
        "it has 1 retries: 0 were acknowledged, 0 asked for",
    )
    yield case(
        "a crash is not counted",
        done(added()(2, Kind.RESERVED).killed(2)(3, Kind.RESERVED, 2), 3, 2),
        [record()],
        "it has 0 crashes, and 1 holders ended",
    )
    yield case("an attempt too many", done(held, 2, 1), [record(attempt=2)], "it was tried 2 times")


@pytest.mark.parametrize(("tale", "left", "problem"), list(wrong()))
def test_what_jobq_promises_not_to_do_is_noticed(
    tale: Tale, left: list[JobRecord], problem: str
) -> None:
    assert any(problem in found for found in tale.judged(*left)), tale.judged(*left)


def test_where_done_jobs_are_not_kept_they_are_remembered_as_done() -> None:
    tale = done(added()(2, Kind.RESERVED), 2, 1)

    assert tale.judged(kept=False) == tale.judged(record(), kept=False) == []
    assert "it was done, and is ready" in tale.judged(record(status=Status.READY), kept=False)[0]
    again = tale(3, Kind.RESERVED, 2)
    assert "RESERVED 2 after reservation 1 was done" in again.judged(kept=False)[0]
    assert "it is lost, and nobody" in added().judged(kept=False)[0]


def test_a_note_that_is_written_late_is_no_new_reservation() -> None:
    """Its writer was stopped between his retry and the note of it, until others were done."""
    tale = added()(2, Kind.RESERVED, 1)(2, Kind.WILL_RETRY, 1)(3, Kind.RESERVED, 2)
    late = done(tale, 3, 2)(2, Kind.RETRIED, 1)

    assert late.judged(record(attempt=2, retries=1)) == []
    assert late.judged(kept=False) == []
