"""Jobs by id, in memory."""

from collections.abc import Iterator, Sequence
from itertools import islice

from sortedcontainers import SortedDict

from jobq import ids as job_ids
from jobq.clock import Clock
from jobq.repo.memory.undo import Undo
from jobq.repo.repositories import JobBody, JobRepository, JobState, Note, initial_state


class MemoryJobs(JobRepository):
    """Bodies in a sorted dict by id, states and notes in plain ones."""

    def __init__(self, clock: Clock, undo: Undo) -> None:
        self._clock = clock
        self._undo = undo
        self._last = bytes(16)
        self._bodies: SortedDict[bytes, JobBody] = SortedDict()
        self._states: dict[bytes, JobState] = {}
        self._notes: dict[tuple[bytes, Note], dict[int, bytes]] = {}

    def mint(self, count: int) -> list[bytes]:
        # Not undone: an id that nobody was given may be skipped, but none is given twice.
        minted = job_ids.mint(count, self._clock.wall_us() // 1000, self._last)
        if minted:
            self._last = minted[-1]
        return minted

    def create(self, jobs: Sequence[tuple[bytes, JobBody]]) -> None:
        self._undo.note(self._drop, [job_id for job_id, _ in jobs])
        for job_id, body in jobs:
            self._bodies[job_id] = body

    def bodies(self, ids: Sequence[bytes]) -> list[JobBody | None]:
        return [self._bodies.get(job_id) for job_id in ids]

    def states(self, ids: Sequence[bytes]) -> list[JobState | None]:
        return [self._state(job_id) for job_id in ids]

    def both(self, ids: Sequence[bytes]) -> list[tuple[JobBody, JobState] | None]:
        found: list[tuple[JobBody, JobState] | None] = []
        for job_id in ids:
            body = self._bodies.get(job_id)
            if body is None:
                found.append(None)
            else:
                found.append((body, self._states.get(job_id) or initial_state(body)))
        return found

    def update(self, jobs: Sequence[tuple[bytes, JobState]]) -> None:
        before = [(job_id, self._states.get(job_id)) for job_id, _ in jobs]
        self._undo.note(self._restore, before)
        self._states.update(jobs)

    def rewrite(self, jobs: Sequence[tuple[bytes, JobBody]]) -> None:
        self._undo.note(
            self._restore_bodies, [(job_id, self._bodies[job_id]) for job_id, _ in jobs]
        )
        self._restore_bodies(jobs)

    def delete(self, jobs: Sequence[tuple[bytes, JobState]]) -> None:
        for job_id, state in jobs:
            for note in Note:
                if state.notes & note:
                    self.drop_note(job_id, note)
            body, was = self._bodies[job_id], self._states.get(job_id)
            self._undo.note(self._bodies.__setitem__, job_id, body)
            self._undo.note(self._restore, [(job_id, was)])
            del self._bodies[job_id]
            self._states.pop(job_id, None)

    def put_note(self, job_id: bytes, note: Note, data: bytes, number: int = 0) -> None:
        parts = self._notes.get((job_id, note))
        if parts is None:
            self._undo.note(self._notes.pop, (job_id, note), None)
            self._notes[job_id, note] = {number: data}
        else:
            self._undo.note(self._restore_part, parts, number, parts.get(number))
            parts[number] = data

    def note(self, job_id: bytes, note: Note, number: int = 0) -> bytes | None:
        return self._notes.get((job_id, note), {}).get(number)

    def drop_part(self, job_id: bytes, note: Note, number: int) -> None:
        parts = self._notes.get((job_id, note), {})
        self._undo.note(self._restore_part, parts, number, parts.get(number))
        parts.pop(number, None)

    def drop_note(self, job_id: bytes, note: Note) -> None:
        parts = self._notes.get((job_id, note))
        if parts is not None:
            self._undo.note(self._notes.__setitem__, (job_id, note), parts)
            del self._notes[job_id, note]

    def ids(self, after: bytes | None, limit: int) -> list[bytes]:
        return list(islice(self._bodies.irange(after, inclusive=(False, False)), limit))

    def last_id(self) -> bytes | None:
        return self._bodies.keys()[-1] if self._bodies else None

    def size(self) -> int:
        return len(self._bodies)

    def strays(self) -> Iterator[str]:
        for job_id in self._states:
            if job_id not in self._bodies:
                yield f"a state record belongs to no job: {job_ids.to_text(job_id)}"
        for job_id, note in self._notes:
            state = self._state(job_id)
            if state is None or not state.notes & note:
                yield f"a {note.name.lower()} belongs to no job: {job_ids.to_text(job_id)}"

    def refuse_damage(self) -> None:
        pass

    def _state(self, job_id: bytes) -> JobState | None:
        state = self._states.get(job_id)
        if state is None:
            body = self._bodies.get(job_id)
            return None if body is None else initial_state(body)
        return state

    def _drop(self, ids: Sequence[bytes]) -> None:
        for job_id in ids:
            self._bodies.pop(job_id, None)

    def _restore_bodies(self, jobs: Sequence[tuple[bytes, JobBody]]) -> None:
        for job_id, body in jobs:
            self._bodies[job_id] = body

    def _restore(self, before: Sequence[tuple[bytes, JobState | None]]) -> None:
        for job_id, state in before:
            if state is None:
                self._states.pop(job_id, None)
            else:
                self._states[job_id] = state

    @staticmethod
    def _restore_part(parts: dict[int, bytes], number: int, data: bytes | None) -> None:
        if data is None:
            parts.pop(number, None)
        else:
            parts[number] = data
