"""Repairs as cases: a queue whose indexes are broken beforehand, and `check(repair=True)`.

The jobs are as they should be; what they are found by is not. What is kept in the file is broken
when the queue is filled; where queues and agendas are in memory, these are broken by the process
that repairs, since whoever opens such a queue makes them anew.
"""

from collections.abc import Callable
from typing import Final

from jobq import Job, JobService
from jobq.repo.flow import Key, ring
from jobq.repo.repositories import NOBODY, Agenda, Figure, Held, Transaction, Waiting
from jobq.repo.transactional import TIMELESS
from jobq.states import Status
from tests.crash.verbs import Case

NO_JOB: Final = bytes(16)
FAR_US: Final = 10**16
"""A time that never comes."""

MANY: Final = 300


def break_indexes(svc: JobService, *ways: Callable[[Transaction], object]) -> None:
    """Change indexes behind the backs of the jobs."""

    def change(tx: Transaction) -> None:
        for way in ways:
            way(tx)

    svc.store._write(change, TIMELESS)  # type: ignore[attr-defined] # not to meet them at once


def _number(tx: Transaction, topic: str) -> int:
    number = tx.topics.known(topic)
    assert number is not None
    return number


# What is wrong, wherever queues and agendas are.


def queues(tx: Transaction) -> None:
    """A queue lacks two jobs, and has one that is done and one that is not there."""
    mail = _number(tx, "mail")
    tx.topics.pop(mail, 2)
    (done,) = tx.topics.due(Agenda.DONE, None, 1)
    tx.topics.push(mail, [Waiting(8, 10_000, NO_JOB), Waiting(9, 10_001, done.id)])


def agendas(tx: Transaction) -> None:
    """A delayed job would never be promoted, and one stands there that is not."""
    tx.topics.unhold(Agenda.DELAYED, tx.topics.due(Agenda.DELAYED, None, 1))
    tx.topics.hold_at(Agenda.DELAYED, Held(FAR_US, 10_000, NO_JOB), NOBODY)


def rings(tx: Transaction) -> None:
    """A group would never be served."""
    flow = ring(_number(tx, "flow"))
    tx.topics.remove(flow, tx.topics.waiting(flow, -9, 1))


def everything(tx: Transaction) -> None:
    """No queue, no agenda and no count is left."""
    tx.topics.clear()


# What is wrong in the file always.


def counts(tx: Transaction) -> None:
    """Too many, too few, and bytes that are not there."""
    tx.topics.count(_number(tx, "mail"), Status.READY, 7)
    tx.topics.count(_number(tx, "over"), Status.DONE, -1)
    tx.topics.add_size(_number(tx, "late"), 70)
    tx.topics.set_figure(_number(tx, "flow"), Figure.LANES, 9)


def flow(tx: Transaction) -> None:
    """A group that is miscounted, a key that is lost, and one that is in nobody's right."""
    number = tx.flow.lane_number(_number(tx, "flow"), "b")
    assert number is not None
    lane = tx.flow.lane(number)
    assert lane is not None
    tx.flow.put_lane(number, lane._replace(ready=99, running=2))
    tx.flow.drop_key("mine")
    tx.flow.put_key("nobody's", Key(NO_JOB, 0))


IN_FILE: Final = (counts, flow)
PLACES: Final = (queues, agendas, rings)


def _filled(*ways: Callable[[Transaction], object], many: int = 0) -> Callable[[JobService], None]:
    """Jobs of every kind that has an index, which is then broken."""

    def fill(svc: JobService) -> None:
        svc.configure("flow", group_concurrency=2)
        for group in ("a", "b"):
            svc.enqueue_many("flow", [f"{group}1", f"{group}2"], group=group)
        svc.enqueue("flow", "u", unique="mine", ttl=10**6)
        svc.enqueue_many("many", [bytes(500)] * many)
        break_indexes(svc, *ways)

    return fill


def _breaking(*ways: Callable[[Transaction], object]) -> Callable[[JobService], list[Job]]:
    """How a process breaks what it has in memory; and what it holds then."""

    def hold(svc: JobService) -> list[Job]:
        break_indexes(svc, *ways)
        return svc.reserve("held", timeout=0)

    return hold


_REPAIR: Final = Case(lambda svc, _: svc.check(repair=True), mends=True)

REPAIRS: Final = {
    "repair": _REPAIR._replace(fill=_filled(*PLACES, *IN_FILE)),
    "repair, topics in memory": _REPAIR._replace(
        hold=_breaking(*PLACES),
        fill=_filled(*IN_FILE),
        topics="memory",
        afterwards="memory",
    ),
}

LONG_REPAIRS: Final = {
    "repair of all indexes": _REPAIR._replace(fill=_filled(everything, many=MANY)),
    "repair of all indexes, topics in memory": _REPAIR._replace(
        hold=_breaking(everything),
        fill=_filled(*IN_FILE, many=MANY),
        topics="memory",
        afterwards="memory",
    ),
    "repair, topics in memory, and then in the file": _REPAIR._replace(
        hold=_breaking(*PLACES), fill=_filled(*IN_FILE), topics="memory"
    ),
}
"""For the long runs: of so many jobs that a commit is several writes; and a queue whose topics are
taken into the file by who comes after the repair, which mends what counts jobs, and no more."""
