"""Unique keys: at most one job has a key at a time, decided in the transaction that enqueues it.

A key is taken at the enqueue, and given up as `unique_for` says: when the job is handed out
(`waiting`; it is taken back when the job has to wait again, if nobody else has it by then), when it
is finished or forgotten (`unfinished`), or when its period is over, whatever becomes of the job.
"""

from collections.abc import Iterable, Mapping
from typing import Final

from jobq.options import DEFAULTS, JobOptions
from jobq.repo.flow import Key
from jobq.repo.repositories import KEYLESS, TERMS, Agenda, JobBody, JobState, Transaction
from jobq.states import FINISHED, Status

SWEPT: Final = 4
"""So many keys whose periods are over are given up with each one that is taken for a period: so
those that are never asked for again do not pile up."""


def period_us(options: JobOptions) -> int:
    """For how long a key is taken whatever becomes of its job, in microseconds; 0 if not so."""
    period = options.unique_for or DEFAULTS.unique_for
    return 0 if isinstance(period, str) or period is None else max(1, round(period * 1e6))


def is_while_waiting(options: JobOptions) -> bool:
    """Whether a job has its key only while it waits."""
    return options.unique_for == "waiting"


def holder(tx: Transaction, name: str) -> bytes | None:
    """The job that has the key now; None if nobody has."""
    key = tx.flow.key(name)
    if key is None or (key.until_us and key.until_us <= tx.wall_us):
        return None
    return key.job


def held_key(tx: Transaction, job_id: bytes, options: JobOptions) -> str | None:
    """The key that a job has as long as it is not finished; None if it has none so."""
    if options.unique is None or period_us(options):
        return None
    return options.unique if holder(tx, options.unique) == job_id else None


def take(tx: Transaction, job_id: bytes, options: JobOptions) -> None:
    """Let a job have its key, which nobody else has.

    Or one that waits again since that was decided, in the same call: it goes without.
    """
    if options.unique is None:
        return
    has = tx.flow.key(options.unique)
    if has is not None and not has.until_us and has.job != job_id:
        _note_keyless(tx, {has.job: True})
    until_us = 0
    if period := period_us(options):
        until_us = tx.wall_us + period
        sweep(tx, SWEPT)
    tx.flow.put_key(options.unique, Key(job_id, until_us))


def sweep(tx: Transaction, limit: int) -> None:
    """Give up keys whose periods are over."""
    for name in tx.flow.keys_over(tx.wall_us, limit):
        tx.flow.drop_key(name)


def lose(tx: Transaction, job_id: bytes, name: str) -> None:
    """Let a job have the key no longer, unless a holder works on with it."""
    if holder(tx, name) == job_id and not _lingers(tx, job_id, name):
        tx.flow.drop_key(name)


def ends_with(tx: Transaction, job_id: bytes, name: str) -> bool:
    """Whether the key, which the job has, is free as soon as the job is finished."""
    key = tx.flow.key(name)
    return key is not None and not key.until_us and not _lingers(tx, job_id, name)


def take_over(tx: Transaction, job_id: bytes, body: JobBody, status: Status) -> bool:
    """A job comes from another store: it has its key, if nobody else has; whether it has not.

    A period is that from the enqueue there.
    """
    options = body.options
    if options.unique is None or holder(tx, options.unique) not in {None, job_id}:
        return is_keyless(tx, job_id, options) and status not in FINISHED
    if period := period_us(options):
        if body.created_us + period > tx.wall_us:
            tx.flow.put_key(options.unique, Key(job_id, body.created_us + period))
    elif status not in FINISHED:
        tx.flow.put_key(options.unique, Key(job_id, 0))
    return False


def give_up(tx: Transaction, jobs: Iterable[tuple[bytes, JobState]]) -> None:
    """Finished or forgotten jobs have their keys no longer, save for a period."""
    for job_id, options in options_of(tx, jobs):
        if options.unique is not None and not period_us(options):
            lose(tx, job_id, options.unique)


def _lingers(tx: Transaction, job_id: bytes, name: str) -> bool:
    """Whether the job's last holder works on with the key, and does not know of the end."""
    if not tx.topics.standing(Agenda.LINGER):
        return False
    return any(hold.unique == name for _, _, hold in tx.flow.lingering_of(job_id))


def handed_out(tx: Transaction, job_id: bytes, options: JobOptions) -> None:
    """A job waits no longer."""
    if options.unique is not None and is_while_waiting(options):
        lose(tx, job_id, options.unique)


def wait_again(tx: Transaction, jobs: Iterable[tuple[bytes, JobState]]) -> None:
    """Jobs have to wait again: those that have keys while they wait get them back if they can."""
    without: dict[bytes, bool] = {}
    for job_id, options in options_of(tx, jobs):
        name = options.unique
        if name is not None and is_while_waiting(options):
            has = holder(tx, name)
            without[job_id] = has is not None and has != job_id
            if has is None:
                tx.flow.put_key(name, Key(job_id, 0))
    if without:
        _note_keyless(tx, without)


def _note_keyless(tx: Transaction, without: Mapping[bytes, bool]) -> None:
    """Write into the states of jobs whether they are without their keys."""
    changed = []
    for job_id, state in zip(without, tx.jobs.states(list(without)), strict=True):
        if state is not None:
            notes = (state.notes & ~KEYLESS) | (KEYLESS if without[job_id] else 0)
            if notes != state.notes:
                changed.append((job_id, state._replace(notes=notes)))
    tx.jobs.update(changed)


def is_keyless(tx: Transaction, job_id: bytes, options: JobOptions) -> bool:
    """Whether a job that waits has a right to a key, and has not got it."""
    if options.unique is None or period_us(options):
        return False
    return holder(tx, options.unique) != job_id


def let_go(tx: Transaction, name: str, job_id: bytes) -> None:
    """A job's key is free from now on, whatever lingers of the job."""
    if tx.topics.standing(Agenda.LINGER):
        for _, token, lingering in tx.flow.lingering_of(job_id):
            if lingering.unique == name:
                tx.flow.put_lingering(job_id, token, lingering._replace(unique=None))
    tx.flow.drop_key(name)


def release(tx: Transaction, name: str) -> bool:
    """An operator gives a key away, whoever has it; whether anybody had."""
    key = tx.flow.key(name)
    if key is None:
        return False
    let_go(tx, name, key.job)
    (both,) = tx.jobs.both([key.job])
    if both is not None and not key.until_us and has_right(both[0].options, both[1]) == name:
        _note_keyless(tx, {key.job: True})
    return not key.until_us or key.until_us > tx.wall_us


def free_after(tx: Transaction, name: str, job_id: bytes) -> None:
    """A lingering hold has ended: the key is free, unless its job has come to life again."""
    key = tx.flow.key(name)
    if key is None or key.job != job_id or key.until_us:
        return
    (both,) = tx.jobs.both([job_id])
    has = both is not None and has_right(both[0].options, both[1]) == name
    if not (has or _lingers(tx, job_id, name)):  # of an earlier reservation
        tx.flow.drop_key(name)


def has_right(options: JobOptions, state: JobState) -> str | None:
    """The key that a job should have as it is now; not one that it has for a period."""
    if options.unique is None or period_us(options) or state.status in FINISHED:
        return None
    if is_while_waiting(options) and state.status is Status.RESERVED:
        return None
    return options.unique


def options_of(
    tx: Transaction, jobs: Iterable[tuple[bytes, JobState]]
) -> list[tuple[bytes, JobOptions]]:
    """The options of those jobs that have terms; the others are not looked at."""
    ids = [job_id for job_id, state in jobs if state.notes & TERMS]
    if not ids:
        return []
    return [
        (job_id, body.options)
        for job_id, body in zip(ids, tx.jobs.bodies(ids), strict=True)
        if body is not None
    ]
