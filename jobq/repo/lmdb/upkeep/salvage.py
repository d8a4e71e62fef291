"""The jobs that can still be read out of a damaged data file.

The file is read page by page, without the engine: nothing in it can end the process, and what is
damaged is passed over. Leaves whose branch is damaged are found, too: they are the pages that are
neither free nor come by. What is read was written so once, since each record has its checksum; that
it is not an old one, on a page that was written in vain or has come from elsewhere, others have to
confirm. What they contradict is saved, and said to be unsure:

- a job whose state names a place where it does not stand, or that stands elsewhere
- the jobs of a topic that counts other ones
- all jobs, if the heads of the file contradict one another, or the newer one leads nowhere: then
  the last commit may be missing

| what cannot be read | what becomes of the job |
|---|---|
| its body | it is lost |
| its state | it is saved, as the queues and agendas have it, or if they do not, as ready |
| its result, history, progress or log | it is saved without |
| its topic's name | it is saved in the topic `lost-topic-N` |

Nothing contradicts an older progress, log or result on a page of its own, nor an older state where
the topics are kept in memory, if as many jobs of each status are counted as there are with it.

Where even the list of the databases is destroyed (a file that was cut short), there is no telling
which pages are in use. Then whatever page has a sound record is taken, the newest state of each
job, and jobs come back that were finished and forgotten long ago: all are said to be unsure.
"""

import contextlib
from bisect import bisect_right
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Final, cast

from jobq.errors import InvalidValue, StoreCorrupt, StoreLocked
from jobq.job import JobCopy
from jobq.repo.base import Exported, Salvaged
from jobq.repo.lmdb import files, keys
from jobq.repo.lmdb.faults import translating
from jobq.repo.lmdb.flocks import flock_holders
from jobq.repo.lmdb.holders import Holders
from jobq.repo.lmdb.openlock import OpenLock
from jobq.repo.lmdb.records import decode_note
from jobq.repo.lmdb.upkeep.finding import DAMAGE, Finding, Foreign
from jobq.repo.lmdb.upkeep.others import agenda_of
from jobq.repo.lmdb.upkeep.pages import Pages
from jobq.repo.operations import history
from jobq.repo.operations.reports import log_of, progress_of, result_of
from jobq.repo.operations.transfer import copy_of
from jobq.repo.repositories import (
    NOBODY,
    Agenda,
    JobBody,
    JobState,
    Note,
    Transaction,
)
from jobq.states import Reason, Status
from jobq.topic import NO_SETTINGS, TopicSettings

MOST_SAID: Final = 100
"""Problems that are told one by one."""

_STATUS_OF: Final = {
    Agenda.DELAYED: Status.DELAYED,
    Agenda.LEASE: Status.READY,  # nobody holds it any more
    Agenda.DONE: Status.DONE,
    Agenda.CANCELED: Status.CANCELED,
}


class Salvage:
    """What can be read out of a damaged queue, as far as an export asks for it.

    Some 700 bytes of memory a job are taken by where it stands in the file.

    Args:
        directory: The queue's.
        alone: Keep all others out meanwhile, and refuse if there are any. If not, and somebody
            writes meanwhile, sound jobs may be taken for damaged.

    Raises:
        StoreLocked: Somebody has the queue open.
        StoreCorrupt: Nothing at all can be read, or it is no queue of this format.
        OSError: The file cannot be opened.
    """

    def __init__(self, directory: Path, *, alone: bool = True) -> None:
        data = directory / files.DATA
        self._lock = OpenLock(data, alone=True, patience=0.0) if alone else None
        self._pages: Pages | None = None
        try:
            self._pages = Pages(data)
            self._directory = directory
            self._holders = Holders(directory / "holders", b"")
            self._found = Finding(self._pages, directory)
            self._places: dict[int, bytes] = {}
            self._ids = sorted(self._found.bodies)
        except Foreign as error:
            self.close()
            raise StoreCorrupt(str(error)) from error
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Close the file, and let others in."""
        if self._pages is not None:
            self._pages.close()
            self._pages = None
        if self._lock is not None:
            self._lock.close()

    # What an export asks for; see `Store`.

    def topics(self) -> list[str]:
        """The topics whose names can be read."""
        return sorted(set(self._found.names.values()))

    def settings(self, topic: str | None) -> TopicSettings:
        """What is set for a topic, or for the store, as far as it can be read."""
        if topic is None:
            return self._found.settings.get(keys.STORE, NO_SETTINGS)
        found = [number for number, name in self._found.names.items() if name == topic]
        known = (self._found.settings[number] for number in found if number in self._found.settings)
        return next(known, NO_SETTINGS)

    def export_jobs(self, after: bytes | None, limit: int) -> Exported:
        """The first *limit* jobs by id beyond *after*, with what can be read of them."""
        first = 0 if after is None else bisect_right(self._ids, after)
        copies = [self._copy(job_id) for job_id in self._ids[first : first + limit]]
        return Exported(copies, self._found.last_place)

    def survey(self) -> Salvaged:
        """What there is; reads all of it once."""
        incomplete = 0
        for job_id in self._ids:
            _, state = self._both(job_id)
            incomplete += self._without_unreadable(job_id, state) != state
        lost: int | None = None
        if self._found.is_current and self._found.expected is not None:
            lost = max(len(self._found.gone), self._found.expected - len(self._ids))
        unsure = len(self._found.unsure)
        return Salvaged(len(self._ids), lost, unsure, incomplete, tuple(self._said()))

    def _said(self) -> Iterator[str]:
        assert self._pages is not None
        yield from self._found.problems[:MOST_SAID]
        damaged = sorted(self._pages.damaged.items())
        for number, why in damaged[:MOST_SAID]:
            yield f"page {number} is passed over: {why}"
        if len(damaged) > MOST_SAID:
            yield f"{len(damaged) - MOST_SAID} more pages are passed over"

    # Reading jobs.

    def _both(self, job_id: bytes) -> tuple[JobBody, JobState]:
        body = self._found.body(job_id)
        state = self._found.state(job_id, body)
        if job_id in self._found.unsure and job_id not in self._found.states:
            state = self._guessed(job_id, state)
        return body, state

    def _guessed(self, job_id: bytes, state: JobState) -> JobState:
        """The state of a job whose own record is lost, as the agenda has it."""
        key = self._found.others.stands.get(job_id, b"")
        agenda = agenda_of(key)
        notes = state.notes
        for note in (Note.HISTORY, Note.RESULT, Note.PROGRESS, Note.LOG):
            if keys.note_key(job_id, note, 0) in self._found.notes:
                notes |= note
        status = Status.READY if agenda is None else _STATUS_OF[agenda]
        at_us = 0 if status is Status.READY else keys.read_agenda_key(key)[1]
        ended = status in (Status.DONE, Status.CANCELED)
        return state._replace(
            status=status,
            reason=Reason.CANCELED if status is Status.CANCELED else None,
            at_us=at_us,
            holder=NOBODY,
            ended_us=at_us if ended else 0,
            notes=notes,
        )

    def _copy(self, job_id: bytes) -> JobCopy:
        body, state = self._both(job_id)
        if self._places.setdefault(state.seq, job_id) != job_id:  # a page of another queue has it
            self._found.last_place += 1
            state = state._replace(seq=self._found.last_place)
        return copy_of(self._tx, job_id, body, self._without_unreadable(job_id, state))

    def _without_unreadable(self, job_id: bytes, state: JobState) -> JobState:
        """The state without those notes that cannot be read."""
        tx = self._tx
        for note, read in (
            (Note.RESULT, result_of),
            (Note.HISTORY, history.of_job),
            (Note.PROGRESS, progress_of),
            (Note.LOG, log_of),
        ):
            try:
                read(tx, job_id, state)
            except DAMAGE:
                state = state._replace(notes=state.notes & ~note)
        return state

    @property
    def _tx(self) -> Transaction:
        """As much of a transaction as it takes to copy a job out of it."""
        some: Any = SimpleNamespace(
            jobs=SimpleNamespace(note=self._note_of),
            topics=SimpleNamespace(name=self._name_of),
            holder_name=self._holders.name,
        )
        return cast(Transaction, some)

    def _note_of(self, job_id: bytes, note: Note, number: int = 0) -> bytes | None:
        key = keys.note_key(job_id, note, number)
        place = self._found.notes.get(key)
        if place is None:
            return None
        return decode_note(key, self._found.value(place))

    def _name_of(self, number: int) -> str:
        return self._found.names.get(number) or f"lost-topic-{number}"


@contextlib.contextmanager
def open_salvage(directory: Path) -> Iterator[Salvage]:
    """What can be read out of a queue, which nobody else can open meanwhile.

    Raises:
        InvalidValue: There is no queue.
        StoreLocked: Somebody has it open.
        StoreCorrupt: Nothing at all can be read.
        StoreUnavailable: The file cannot be opened.
    """
    data = directory / files.DATA
    with translating(directory):
        if not data.exists():
            raise InvalidValue(f"{directory} holds no queue")
        try:
            salvage = Salvage(directory)
        except StoreLocked as error:
            who = ", ".join(flock_holders(data)) or "this process"
            raise StoreLocked(
                f"cannot salvage {directory}: it is open in {who}; close it there first"
            ) from error
    try:
        yield salvage
    finally:
        salvage.close()
