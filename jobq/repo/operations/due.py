"""What time does: delayed jobs become ready, reservations end, deadlines pass."""

from collections.abc import Sequence

from jobq.job import name_of
from jobq.options import DEFAULTS
from jobq.repo.base import Retention
from jobq.repo.operations.damage import damaged, read_due
from jobq.repo.operations.flow import deadlines
from jobq.repo.operations.history import with_attempt
from jobq.repo.operations.places import Ending, finish, leave, put_back, withdraw
from jobq.repo.repositories import Agenda, Held, JobState, Transaction
from jobq.states import Event, Reason, Status, can_move


def promote(tx: Transaction, limit: int) -> tuple[int, bool]:
    """Delayed jobs whose time has come become ready, in the place that they had all along."""
    due = tx.topics.due(Agenda.DELAYED, tx.wall_us, limit)
    if not due:
        return 0, False
    back = []
    found = read_due(tx, Agenda.DELAYED, due, tx.jobs.states)
    for held, state in found:
        if state is None or not can_move(state.status, Event.PROMOTE):
            raise damaged(f"DELAYED holds job {name_of(held.id)}, which is not delayed")
        tx.topics.count(state.topic, Status.DELAYED, -1)
        tx.topics.add_size(state.topic, -state.size)
        back.append((held.id, state, 0))
    tx.topics.unhold(Agenda.DELAYED, [held for held, _ in found])
    put_back(tx, back)
    return len(due), len(due) == limit


def expire(tx: Transaction, held: Sequence[Held], retention: Retention) -> tuple[int, int]:
    """Reservations that are over: the jobs are ready at once, or poison. Gives how many of each."""
    if not held:
        return 0, 0
    back: list[tuple[bytes, JobState, int]] = []
    endings: list[Ending] = []
    over: list[JobState] = []
    found = read_due(tx, Agenda.LEASE, held, tx.jobs.both)
    for place, both in found:
        if both is None or not can_move(both[1].status, Event.EXPIRE):
            raise damaged(f"LEASE holds job {name_of(place.id)}, which is not reserved")
        body, state = both
        over.append(state)
        notes = with_attempt(tx, place.id, state, Event.EXPIRE, None)
        state = state._replace(crashes=state.crashes + 1, settled=None, notes=notes)
        most = body.options.max_crashes
        most = DEFAULTS.max_crashes if most is None else most
        if most and state.crashes > most:
            keep_us = body.options.retention_us
            endings.append(Ending(place.id, state, Status.CANCELED, Reason.POISON, None, keep_us))
        elif deadlines.has_lapsed(tx, body.options):
            keep_us = body.options.retention_us
            endings.append(Ending(place.id, state, Status.CANCELED, Reason.EXPIRED, None, keep_us))
        else:
            back.append((place.id, state, 0))
    tx.topics.unhold(Agenda.LEASE, [place for place, _ in found])
    leave(tx, over)
    put_back(tx, back)
    finish(tx, endings, retention)
    return len(back), len(endings)


def lapse(tx: Transaction, held: Sequence[Held], retention: Retention) -> None:
    """Deadlines that have passed: the jobs, which wait, are canceled as expired."""
    endings: list[Ending] = []
    for place, both in read_due(tx, Agenda.DEADLINE, held, tx.jobs.both):
        if both is None or not can_move(both[1].status, Event.LAPSE):
            raise damaged(f"DEADLINE holds job {name_of(place.id)}, which does not wait")
        body, state = both
        keep_us = body.options.retention_us
        endings.append(Ending(place.id, state, Status.CANCELED, Reason.EXPIRED, None, keep_us))
    withdraw(tx, [(ending.id, ending.before) for ending in endings])
    finish(tx, endings, retention)
