"""Deadlines: a job that has not been handed out by then is canceled as expired, by nobody.

Every job with a deadline that waits, ready or delayed, stands in the agenda DEADLINE, at a slot
that nobody else has: its first place. One that is reserved does not: it goes on after its deadline,
but ends instead of waiting again.
"""

from collections.abc import Iterable, Sequence
from datetime import datetime

from jobq.clock import utc
from jobq.options import JobOptions
from jobq.repo.operations.flow.uniques import options_of
from jobq.repo.repositories import NOBODY, TERMS, Agenda, Held, JobBody, JobState, Transaction
from jobq.topic import TopicSettings


def resolved(tx: Transaction, options: JobOptions, settings: TopicSettings) -> datetime | None:
    """The deadline of a job that is enqueued now: the earliest that it, or its topic, asks for."""
    ends = [] if options.deadline_us is None else [options.deadline_us]
    ends += [
        tx.wall_us + max(1, round(ttl * 1e6))
        for ttl in (options.ttl, settings.ttl)
        if ttl is not None
    ]
    return utc(min(ends)) if ends else None


def watch(tx: Transaction, jobs: Sequence[tuple[bytes, JobBody]]) -> None:
    """These jobs wait: look after their deadlines, if they have any."""
    for job_id, body in jobs:
        deadline_us = body.options.deadline_us
        if deadline_us is not None:
            tx.topics.hold_at(Agenda.DEADLINE, Held(deadline_us, body.seq, job_id), NOBODY)


def unwatch(tx: Transaction, jobs: Sequence[tuple[bytes, JobBody]]) -> None:
    """They do not wait any more."""
    places = [
        (deadline_us, body.seq, job_id)
        for job_id, body in jobs
        if (deadline_us := body.options.deadline_us) is not None
    ]
    if places:
        tx.topics.unhold(Agenda.DEADLINE, places)


def bodies_of(
    tx: Transaction, jobs: Iterable[tuple[bytes, JobState]]
) -> list[tuple[bytes, JobBody]]:
    """The bodies of those jobs that have terms; the others are not looked at."""
    ids = [job_id for job_id, state in jobs if state.notes & TERMS]
    if not ids:
        return []
    bodies = zip(ids, tx.jobs.bodies(ids), strict=True)
    return [(job_id, body) for job_id, body in bodies if body is not None]


def lapsed(tx: Transaction, jobs: Iterable[tuple[bytes, JobState]]) -> set[bytes]:
    """Those of the jobs whose deadlines have passed."""
    return {job_id for job_id, options in options_of(tx, jobs) if has_lapsed(tx, options)}


def has_lapsed(tx: Transaction, options: JobOptions) -> bool:
    """Whether the deadline has passed."""
    deadline_us = options.deadline_us
    return deadline_us is not None and deadline_us <= tx.wall_us
