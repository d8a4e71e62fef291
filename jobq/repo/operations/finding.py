"""Which jobs a selector means: one job, and a walk over all of them."""

from typing import Final

from jobq.errors import StoreCorrupt
from jobq.repo.base import Looked, LookFrom
from jobq.repo.operations import history
from jobq.repo.operations.damage import PASSED_OVER, log_unreadable, readable
from jobq.repo.repositories import JobBody, JobState, Transaction
from jobq.selector import ALL_JOBS, EVERY_STATUS, Selector
from jobq.states import Status

UNMOVED: Final = frozenset({Status.READY, Status.DELAYED})
"""The states of jobs to which nothing has happened yet."""

NOWHERE: Final = b""
"""Before the first id, and beyond the last one of a store that has no jobs."""


def meets(
    tx: Transaction, selector: Selector, job_id: bytes, body: JobBody, state: JobState
) -> bool:
    """Whether the selector means this job, as it is now."""
    return selector is ALL_JOBS or selector.matches(
        tx.topics.name(state.topic),
        state.status,
        state.reason,
        body.options,
        tx.wall_us - body.created_us,
        lambda: history.of_job(tx, job_id, state).error,
    )


def found_to_meet(
    tx: Transaction, selector: Selector, job_id: bytes, body: JobBody, state: JobState
) -> bool:
    """As `meets`, for a walk: a job of which what is looked for cannot be read is passed over."""
    try:
        return meets(tx, selector, job_id, body, state)
    except StoreCorrupt as error:
        log_unreadable(job_id, error, PASSED_OVER)
        return False


def may_meet(tx: Transaction, selector: Selector) -> bool:
    """Whether there can be such a job at all, told from the counts: no job is looked at."""
    if selector.topic is None:
        if selector.possible == EVERY_STATUS:
            return True
        return any(tx.topics.total(status) for status in selector.possible)
    number = tx.topics.known(selector.topic)
    if number is None:
        return False
    counts = tx.topics.counts(number)
    return any(counts[status] for status in selector.possible)


def page(
    tx: Transaction, selector: Selector, after: bytes | None, limit: int
) -> tuple[list[tuple[bytes, JobBody, JobState]], bytes | None]:
    """Up to *limit* jobs beyond *after* among which those that the selector means are, by id.

    And the id after which the next page begins; None if there is none. Jobs that are canceled,
    say, have moved: a backlog of others that have not is not looked at. Jobs that cannot be read
    are passed over, and the log says so.
    """
    some = tx.jobs.ids if selector.possible & UNMOVED else tx.jobs.moved_ids
    ids = some(after, limit)
    jobs = list(readable(tx, ids))
    return jobs, ids[-1] if len(ids) == limit else None


def look(tx: Transaction, selector: Selector, after: LookFrom | None, limit: int) -> Looked:
    """A step of the walk: see `Store.look`.

    Jobs of before its beginning are told from later ones by their first places, and that it ends
    at the id that was the last then lets it come to an end while others enqueue: as `purge` does.
    """
    if after is None:
        after = LookFrom(tx.topics.last_seq(), tx.jobs.last_id() or NOWHERE, NOWHERE)
    if limit == 0:
        return Looked([], 0, after)
    if after.id >= after.last or not may_meet(tx, selector):
        return Looked([], 0, None)
    jobs, last = page(tx, selector, after.id or None, limit)
    found = [
        job_id
        for job_id, body, state in jobs
        if job_id <= after.last
        and body.seq <= after.seq
        and found_to_meet(tx, selector, job_id, body, state)
    ]
    if last is None or last >= after.last:
        return Looked(found, len(jobs), None)
    return Looked(found, len(jobs), after._replace(id=last))
