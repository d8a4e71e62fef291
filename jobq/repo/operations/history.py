"""What happened to a job so far: its attempts, bounded, and the last thing said of its failure.

All of it is one note: the last error, how many attempts were dropped, and the attempts that are
kept, oldest first. A job that was done at its first attempt has none: its times and its holder
stand in its state.
"""

import logging
from typing import Any, Final, NamedTuple

import msgpack

from jobq.errors import StoreCorrupt
from jobq.job import Attempt, name_of
from jobq.repo.operations.damage import damaged
from jobq.repo.repositories import JobState, Note, Transaction
from jobq.states import Event, Status

MOST_ATTEMPTS: Final = 100
"""So many attempts are kept of a job: the newest; the others are counted."""

MOST_ERRORS: Final = 16 * 1024
"""How many bytes of errors are kept of a job in all. The newest attempts keep theirs whole (or its
end, where a traceback names the exception); of those that do not fit the last line is left."""

LONGEST_LINE: Final = 200
"""Bytes that are left of an error that does not fit."""

_log = logging.getLogger("jobq")


class History(NamedTuple):
    """The history of a job.

    Attributes:
        error: What was last said of its failure; None since the last reset if nothing was.
        dropped: How many attempts are not kept any more.
        attempts: Those that are, oldest first.
    """

    error: str | None = None
    dropped: int = 0
    attempts: tuple[Attempt, ...] = ()

    def with_error(self, error: str | None) -> "History":
        """This history with another last error, of no attempt."""
        return self._replace(error=None if error is None else clipped(error, MOST_ERRORS))

    def after(self, attempt: Attempt) -> "History":
        """This history with one more attempt, within the bounds."""
        error = self.error if attempt.error is None else attempt.error
        attempts = (*self.attempts, attempt)
        excess = max(0, len(attempts) - MOST_ATTEMPTS)
        return History(error, self.dropped + excess, _shortened(attempts[excess:]))


def of_job(tx: Transaction, job_id: bytes, state: JobState) -> History:
    """What is kept of the job's history.

    Raises:
        StoreCorrupt: It is missing, or damaged.
    """
    if not state.notes & Note.HISTORY:
        return History()
    data = tx.jobs.note(job_id, Note.HISTORY)
    if data is None:
        raise damaged(f"the history of job {name_of(job_id)} is missing")
    return _unpack(data)


def with_attempt(
    tx: Transaction, job_id: bytes, state: JobState, event: Event, error: str | None
) -> int:
    """Note how the reservation in *state* ended; gives the bits of the notes then."""
    most = LONGEST_LINE if tx.is_short() else MOST_ERRORS
    text = None if error is None else clipped(error, most)
    holder = tx.holder_name(state.holder)
    attempt = Attempt(state.attempt, event, holder, state.reserved_us, tx.wall_us, text)
    return keep_attempt(tx, job_id, state, attempt)


def keep_attempt(tx: Transaction, job_id: bytes, state: JobState, attempt: Attempt) -> int:
    """Add an attempt to the job's history; gives the bits of the notes that there are then."""
    return put(tx, job_id, state, _to_go_on(tx, job_id, state).after(attempt))


def with_error(tx: Transaction, job_id: bytes, state: JobState, error: str | None) -> int:
    """Note what was said of a failure without an attempt; None forgets it. Gives the bits."""
    return put(tx, job_id, state, _to_go_on(tx, job_id, state).with_error(error))


def _to_go_on(tx: Transaction, job_id: bytes, state: JobState) -> History:
    """The job's history, to be added to. One that cannot be read begins anew, all of it dropped.

    Who refused here would keep the job from ever leaving its holder; and since leases end at the
    head of every write, all others from being written.
    """
    try:
        return of_job(tx, job_id, state)
    except StoreCorrupt as error:
        _log.warning("%s; it begins anew", error)
        # Every reservation that has ended is an attempt of the history.
        return History(dropped=state.token - (state.status is Status.RESERVED))


def succeeded_at_once(tx: Transaction, state: JobState) -> tuple[Attempt, ...]:
    """The only attempt of a job that was done without a history; nothing for any other job."""
    if state.status is not Status.DONE or state.notes & Note.HISTORY:
        return ()
    holder = tx.holder_name(state.holder)
    return (Attempt(state.attempt, Event.DONE, holder, state.reserved_us, state.ended_us, None),)


def put(tx: Transaction, job_id: bytes, state: JobState, history: History) -> int:
    """Keep a history in place of an earlier one; gives the bits of the notes then."""
    if history == History():
        if state.notes & Note.HISTORY:
            tx.jobs.drop_note(job_id, Note.HISTORY)
        return state.notes & ~Note.HISTORY
    tx.jobs.put_note(job_id, Note.HISTORY, _pack(history))
    return state.notes | Note.HISTORY


def clipped(text: str, most: int) -> str:
    """At most *most* bytes of a text, its end; without what UTF-8 cannot encode.

    >>> clipped("Traceback: it broke", 12)
    '… it broke'
    """
    data = text.encode(errors="backslashreplace")
    if len(data) <= most:
        return data.decode()
    return "…" + data[3 - most :].decode(errors="ignore")


def _shortened(attempts: tuple[Attempt, ...]) -> tuple[Attempt, ...]:
    """The attempts with no more than `MOST_ERRORS` of errors that are longer than a line."""
    kept = []
    left = MOST_ERRORS
    for attempt in reversed(attempts):
        if attempt.error is not None:
            left -= len(attempt.error.encode())
            if left < 0:
                line = clipped(attempt.error.rstrip().rpartition("\n")[2], LONGEST_LINE)
                attempt = attempt._replace(error=line)
        kept.append(attempt)
    return tuple(reversed(kept))


def _pack(history: History) -> bytes:
    # The last error mostly is that of an attempt: then it is not written twice.
    said = [attempt.error for attempt in history.attempts if attempt.error is not None]
    again = bool(said) and said[-1] == history.error
    rows = [
        (attempt, event.value, holder, reserved_us, ended_us, error)
        for attempt, event, holder, reserved_us, ended_us, error in history.attempts
    ]
    data = msgpack.packb((True if again else history.error, history.dropped, rows))
    assert isinstance(data, bytes)
    return data


def _unpack(data: bytes) -> History:
    # A checksum stands round it, so what it holds is what was written: if not by this jobq, then
    # by a later one, or by somebody who can calculate checksums.
    try:
        error, dropped, rows = msgpack.unpackb(data, use_list=False)
        attempts = tuple([_attempt(*row) for row in rows])
        if error is True:
            error = next(one.error for one in reversed(attempts) if one.error is not None)
    except Exception as error:  # of any kind: msgpack has many
        raise damaged(f"the history of a job cannot be read ({len(data)} bytes)") from error
    return History(error, dropped, attempts)


def _attempt(attempt: int, event: str, *rest: Any) -> Attempt:
    return Attempt(attempt, Event(event), *rest)
