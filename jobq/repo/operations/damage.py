"""What to say when records contradict each other, and how to pass over those that are damaged.

Only a record that contradicts its checksum is passed over. What the engine itself says of its file
is not: it may be about all that comes after.
"""

import logging
from collections.abc import Callable, Iterator, Sequence
from typing import Final, TypeVar

from jobq.errors import StoreCorrupt
from jobq.job import name_of
from jobq.repo.repositories import Agenda, Held, JobBody, JobState, Transaction

T = TypeVar("T")

_log = logging.getLogger("jobq")


def damaged(what: str) -> StoreCorrupt:
    """The error for records that contradict each other."""
    return StoreCorrupt(f"{what}; `jobq check` lists what is wrong")


Both = tuple[JobBody, JobState]


SET_ASIDE: Final = "set aside; `jobq check` tells more"
PASSED_OVER: Final = "it is passed over; `jobq check` tells more"


def log_unreadable(job_id: bytes, error: StoreCorrupt, consequence: str) -> None:
    """Say in the log that a job cannot be read, why, and what that leads to."""
    _log.error("job %s cannot be read (%s): %s", name_of(job_id), error, consequence)


def readable(
    tx: Transaction, ids: Sequence[bytes], *, quiet: bool = False
) -> Iterator[tuple[bytes, JobBody, JobState]]:
    """Those of the jobs that can be read, with body and state; the log names the others."""
    return ((job_id, *both) for job_id, both in _those_readable(tx.jobs.both, ids, quiet=quiet))


def readable_states(tx: Transaction, ids: Sequence[bytes]) -> Iterator[tuple[bytes, JobState]]:
    """As `readable`, without the bodies of those that have moved."""
    return _those_readable(tx.jobs.states, ids, quiet=False)


def read_taken(
    tx: Transaction, ids: Sequence[bytes]
) -> tuple[Sequence[Both | None], dict[bytes, StoreCorrupt]]:
    """What there is of jobs that were taken out of queues, by position.

    None for those that are not there, and for those that cannot be read: also gives why.
    """
    try:
        return tx.jobs.both(ids), {}
    except StoreCorrupt:
        found = tried(tx.jobs.both, ids)
    why = {
        job_id: both
        for job_id, both in zip(ids, found, strict=True)
        if isinstance(both, StoreCorrupt)
    }
    return [None if isinstance(both, StoreCorrupt) else both for both in found], why


def tried(
    read: Callable[[Sequence[bytes]], Sequence[T]], ids: Sequence[bytes]
) -> list[T | StoreCorrupt]:
    """What *read* gives of each job, or why it cannot be read."""
    try:
        return list(read(ids))
    except StoreCorrupt as error:
        return [error] if len(ids) == 1 else [tried(read, [job_id])[0] for job_id in ids]


def _those_readable(
    read: Callable[[Sequence[bytes]], Sequence[T | None]], ids: Sequence[bytes], *, quiet: bool
) -> Iterator[tuple[bytes, T]]:
    for job_id, found in zip(ids, tried(read, ids), strict=True):
        if isinstance(found, StoreCorrupt):
            if not quiet:
                log_unreadable(job_id, found, PASSED_OVER)
        elif found is not None:
            yield job_id, found


def read_due(
    tx: Transaction,
    agenda: Agenda,
    held: Sequence[Held],
    read: Callable[[Sequence[bytes]], list[T]],
) -> list[tuple[Held, T]]:
    """What *read* gives of each job that is due in an agenda.

    A job that cannot be read is taken out of the agenda, and stands nowhere then, until a repair
    counts it out: or it would stop every write from now on.
    """
    found = []
    for place, one in zip(held, tried(read, [place.id for place in held]), strict=True):
        if isinstance(one, StoreCorrupt):
            log_unreadable(place.id, one, f"it is due in {agenda.name} and {SET_ASIDE}")
            tx.topics.unhold(agenda, [place])
        else:
            found.append((place, one))
    return found
