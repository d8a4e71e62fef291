"""What a holder tells of its work: log lines and progress, bounded; and its result.

The log is a note of many parts: part 0 is its head, and each other part holds the lines of one
write. So a line costs what it is long, however long the log has become.
"""

import logging
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import msgpack

from jobq.errors import StoreCorrupt
from jobq.job import LogLine, Progress, Report, name_of
from jobq.repo.operations.damage import damaged
from jobq.repo.repositories import JobState, Note, Transaction

MOST_LINES: Final = 1000
MOST_BYTES: Final = 64 * 1024
"""So many log lines, and bytes of their texts, are kept of a job: the newest; the others are
counted."""

_log = logging.getLogger("jobq")


class Head(NamedTuple):
    """Where the log stands: parts *first* to *last*, with so many lines and bytes in all.

    Attributes:
        dropped: How many lines are not kept any more.
    """

    first: int = 1
    last: int = 0
    lines: int = 0
    size: int = 0
    dropped: int = 0


def keep(tx: Transaction, told: Report, state: JobState) -> int:
    """Write a report; gives the bits of the notes that there are then."""
    notes = state.notes
    if told.progress is not None:
        done, total, text, age_us = told.progress
        tx.jobs.put_note(told.id, Note.PROGRESS, _packed((done, total, text, tx.wall_us - age_us)))
        notes |= Note.PROGRESS
    if told.lines or told.dropped:
        _append_or_begin(tx, told, state)
        notes |= Note.LOG
    return notes


def result_of(tx: Transaction, job_id: bytes, state: JobState) -> bytes | None:
    """What its holder gave to `done`, packed; None if nothing.

    Raises:
        StoreCorrupt: It is missing, or damaged: a lost result is never passed off as none.
    """
    if not state.notes & Note.RESULT:
        return None
    data = tx.jobs.note(job_id, Note.RESULT)
    if data is None:
        raise damaged(f"the result of job {name_of(job_id)} is missing")
    return data


def progress_of(tx: Transaction, job_id: bytes, state: JobState) -> Progress | None:
    """How far the holder said it was; None if it said nothing.

    Raises:
        StoreCorrupt: It is missing, or damaged.
    """
    if not state.notes & Note.PROGRESS:
        return None
    try:
        return Progress(*_part(tx, job_id, Note.PROGRESS, 0))
    except TypeError as error:
        raise damaged(f"the progress of job {name_of(job_id)} cannot be read") from error


def log_of(tx: Transaction, job_id: bytes, state: JobState) -> tuple[tuple[LogLine, ...], int]:
    """The log lines that are kept, oldest first, and how many are not any more.

    Raises:
        StoreCorrupt: A part is missing, or damaged.
    """
    head = _head(tx, job_id, state)
    lines = tuple(
        LogLine(*line)
        for number in range(head.first, head.last + 1)
        for line in _part(tx, job_id, Note.LOG, number)
    )
    return lines, head.dropped


def _append_or_begin(tx: Transaction, told: Report, state: JobState) -> None:
    """Add to the log; one that cannot be read begins anew, so that its job can be settled."""
    head = Head()
    try:
        head = _head(tx, told.id, state)
        _append(tx, told, head)
    except StoreCorrupt as error:
        _log.warning("%s; the log begins anew", error)
        tx.jobs.drop_note(told.id, Note.LOG)
        _append(tx, told, Head(dropped=head.dropped + head.lines))


def _append(tx: Transaction, told: Report, head: Head) -> None:
    new = [(tx.wall_us - age_us, text) for age_us, text in told.lines]
    first = _first_that_fits(new)
    dropped = told.dropped + first
    new = new[first:]  # what is kept is the end of the log: if some of these go, so do all older
    lines, size = head.lines + len(new), head.size + _size(new)
    oldest = head.first
    while oldest <= head.last and (first or lines > MOST_LINES or size > MOST_BYTES):
        part = _part(tx, told.id, Note.LOG, oldest)
        fits = _first_that_fits(part, lines - len(part), size - _size(part))
        gone = len(part) if first else fits
        lines, size = lines - gone, size - _size(part[:gone])
        dropped += gone
        if gone < len(part):
            tx.jobs.put_note(told.id, Note.LOG, _packed(part[gone:]), oldest)
            break
        tx.jobs.drop_part(told.id, Note.LOG, oldest)
        oldest += 1
    last = head.last
    if new:
        last += 1
        tx.jobs.put_note(told.id, Note.LOG, _packed(new), last)
    tx.jobs.put_note(
        told.id, Note.LOG, _packed(Head(oldest, last, lines, size, head.dropped + dropped))
    )


def _first_that_fits(lines: Sequence[tuple[int, str]], others: int = 0, size: int = 0) -> int:
    """How many lines have to go from the front, with so many other lines and bytes after them."""
    for place in reversed(range(len(lines))):
        others += 1
        size += len(lines[place][1].encode())
        if others > MOST_LINES or size > MOST_BYTES:
            return place + 1
    return 0


def _size(lines: Sequence[tuple[int, str]]) -> int:
    return sum(len(text.encode()) for _, text in lines)


def _head(tx: Transaction, job_id: bytes, state: JobState) -> Head:
    return Head(*_part(tx, job_id, Note.LOG, 0)) if state.notes & Note.LOG else Head()


def _part(tx: Transaction, job_id: bytes, note: Note, number: int) -> list[Any]:
    data = tx.jobs.note(job_id, note, number)
    if data is None:
        what = f"part {number} of the {note.name.lower()}"
        raise damaged(f"{what} of job {name_of(job_id)} is missing")
    try:
        return list(msgpack.unpackb(data, use_list=False))
    except Exception as error:  # of any kind: msgpack has many
        what = f"part {number} of the {note.name.lower()}"
        raise damaged(f"{what} of job {name_of(job_id)} cannot be read") from error


def _packed(value: object) -> bytes:
    data = msgpack.packb(value)
    assert isinstance(data, bytes)
    return data
