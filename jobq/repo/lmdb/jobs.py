"""Jobs by id, in LMDB: a body, a state once the job has moved, and notes."""

from collections.abc import Iterator, Sequence
from typing import Any, Final, cast

import lmdb

from jobq import ids as job_ids
from jobq.errors import StoreCorrupt
from jobq.repo.lmdb import steps
from jobq.repo.lmdb.access import Access, refuse_damaged_tree, walked
from jobq.repo.lmdb.keys import note_key, note_prefix, read_note_key
from jobq.repo.lmdb.records import (
    decode_bodies,
    decode_note,
    decode_states,
    encode_bodies,
    encode_moved,
    encode_note,
    encode_state,
)
from jobq.repo.repositories import JobBody, JobRepository, JobState, Move, Note, initial_state

ID_SIZE: Final = 16


class LmdbJobs(JobRepository):
    """The jobs, within one transaction."""

    __slots__ = ("_access", "_wall_us")

    def __init__(self, access: Access, wall_us: int) -> None:
        self._access = access
        self._wall_us = wall_us

    def mint(self, count: int) -> list[bytes]:
        access = self._access
        minted = job_ids.mint(count, self._wall_us // 1000, access.meta.last_id)
        if minted:
            access.meta.last_id = minted[-1]
            access.dirty = True
        return minted

    def create(self, jobs: Sequence[tuple[bytes, JobBody]]) -> None:
        self._put(self._access.db.jobs, encode_bodies(jobs))

    def bodies(self, ids: Sequence[bytes]) -> list[JobBody | None]:
        return decode_bodies(ids, self._get(self._access.db.jobs, ids))

    def states(self, ids: Sequence[bytes]) -> list[JobState | None]:
        states = decode_states(ids, self._get(self._access.db.states, ids))
        if None in states:
            unmoved = [position for position, state in enumerate(states) if state is None]
            bodies = self.bodies([ids[position] for position in unmoved])
            for position, body in zip(unmoved, bodies, strict=True):
                if body is not None:
                    states[position] = initial_state(body)
        return states

    def both(self, ids: Sequence[bytes]) -> list[tuple[JobBody, JobState] | None]:
        states = decode_states(ids, self._get(self._access.db.states, ids))
        return [
            None if body is None else (body, initial_state(body) if state is None else state)
            for body, state in zip(self.bodies(ids), states, strict=True)
        ]

    def update(self, jobs: Sequence[tuple[bytes, JobState]]) -> None:
        self._put(
            self._access.db.states,
            [(job_id, encode_state(job_id, state)) for job_id, state in jobs],
        )

    def move(
        self, jobs: Sequence[tuple[bytes, JobState]], slots: Sequence[int], move: Move
    ) -> None:
        self._put(self._access.db.states, encode_moved(jobs, slots, move))

    def rewrite(self, jobs: Sequence[tuple[bytes, JobBody]]) -> None:
        self.create(jobs)  # a put replaces

    def delete(self, jobs: Sequence[tuple[bytes, JobState]]) -> None:
        txn, db = self._access.txn, self._access.db
        self._access.dirty = True
        for job_id, state in jobs:
            txn.delete(job_id, db=db.jobs)
            txn.delete(job_id, db=db.states)
            if state.notes:
                for note in Note:
                    if state.notes & note:
                        self.drop_note(job_id, note)

    def put_note(self, job_id: bytes, note: Note, data: bytes, number: int = 0) -> None:
        key = note_key(job_id, note, number)
        self._access.dirty = True
        self._access.txn.put(key, encode_note(key, data), db=self._access.db.notes)

    def note(self, job_id: bytes, note: Note, number: int = 0) -> bytes | None:
        key = note_key(job_id, note, number)
        data = self._access.txn.get(key, db=self._access.db.notes)
        return None if data is None else decode_note(key, bytes(data))

    def drop_part(self, job_id: bytes, note: Note, number: int) -> None:
        self._access.dirty = True
        self._access.txn.delete(note_key(job_id, note, number), db=self._access.db.notes)

    def drop_note(self, job_id: bytes, note: Note) -> None:
        if note is not Note.LOG:
            self.drop_part(job_id, note, 0)
            return
        self._access.dirty = True
        prefix = note_prefix(job_id, note)
        with self._access.txn.cursor(self._access.db.notes) as cursor:
            found = cursor.set_range(prefix)
            while found and bytes(cursor.key()).startswith(prefix):
                found = cursor.delete()

    def ids(self, after: bytes | None, limit: int) -> list[bytes]:
        return self._keys(self._access.db.jobs, after, limit)

    def moved_ids(self, after: bytes | None, limit: int) -> list[bytes]:
        return self._keys(self._access.db.states, after, limit)

    def _keys(self, db: Any, after: bytes | None, limit: int) -> list[bytes]:
        """The ids under which something stands in *db*."""
        found: list[bytes] = []
        with self._access.txn.cursor(db) as cursor:
            if cursor.first() if after is None else cursor.set_range(after + b"\0"):
                for key in cursor.iternext(keys=True, values=False):
                    _check_id(key)
                    last = found[-1] if found else after or b""
                    if bytes(key) <= last:  # in a damaged tree a walk may never end
                        raise StoreCorrupt(f"job {bytes(key).hex()} comes after {last.hex()}")
                    found.append(bytes(key))
                    if len(found) == limit:
                        break
        return found

    def last_id(self) -> bytes | None:
        with self._access.txn.cursor(self._access.db.jobs) as cursor:
            return bytes(cursor.key()) if cursor.last() else None

    def size(self) -> int:
        return int(self._access.txn.stat(self._access.db.jobs)["entries"])

    def strays(self) -> Iterator[str]:
        txn, db = self._access.txn, self._access.db
        for key in walked(self._access, db.states):
            _check_id(key)
            if txn.get(key, db=db.jobs) is None:
                yield f"a state record belongs to no job: {job_ids.to_text(key)}"
        for key in walked(self._access, db.notes):
            try:
                job_id, note, _ = read_note_key(key)
            except StoreCorrupt as error:
                yield str(error)
                continue
            try:
                (state,) = self.states([job_id])
            except StoreCorrupt:
                continue  # reported as what it is by the scan of the jobs
            if state is None or not state.notes & note:
                yield f"a note belongs to no job: {key.hex()}"

    def refuse_damage(self) -> None:
        db = self._access.db
        for tree in (db.jobs, db.states):
            refuse_damaged_tree(self._access, tree, _check_id)
        refuse_damaged_tree(self._access, db.notes, bytes)  # a key that is none is a stray

    def _put(self, db: lmdb._Database, items: Sequence[tuple[bytes, bytes]]) -> None:
        if not items:
            return
        self._access.dirty = True
        if len(items) == 1:
            self._access.txn.put(*items[0], db=db)
            steps.reached("jobs written")
            return
        with self._access.txn.cursor(db) as cursor:
            cursor.putmulti(items)
        steps.reached("jobs written")

    def _get(self, db: lmdb._Database, ids: Sequence[bytes]) -> list[bytes | None]:
        if len(ids) == 1:
            data = self._access.txn.get(ids[0], db=db)
            return [None if data is None else bytes(data)]
        with self._access.txn.cursor(db) as cursor:
            # Without `buffers`, lmdb gives bytes; its types say that it might give views.
            found = cast("list[tuple[bytes, bytes]]", cursor.getmulti(ids))
        if len(found) == len(ids):
            return [data for _, data in found]
        by_id = dict(found)
        return [by_id.get(job_id) for job_id in ids]


def _check_id(key: bytes | memoryview) -> None:
    if len(key) != ID_SIZE:
        raise StoreCorrupt(f"a job has a key of {len(key)} bytes: the tree is damaged")
