"""Queues and agendas, in LMDB, over the records of topics: together all that topics are."""

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from itertools import pairwise
from typing import Final, cast

from jobq.errors import StoreCorrupt
from jobq.repo.lmdb.access import Raw, ascending
from jobq.repo.lmdb.keys import (
    SEQ,
    WEIGHT,
    agenda_key,
    queue_entries,
    queue_key,
    queue_prefix,
    queue_start,
    read_agenda_key,
    read_queue,
    read_queue_key,
)
from jobq.repo.lmdb.records import decode_place, encode_place, holder_of
from jobq.repo.lmdb.topic_records import TopicRecords
from jobq.repo.repositories import (
    FIRST_PLACE,
    WATCHED,
    Agenda,
    Front,
    Held,
    Place,
    Span,
    Waiting,
)

NEVER_US: Final = 2**64
"""Later than any time."""

_new: Final = tuple.__new__  # Waiting(…) comes down to this, in twice the time


class LmdbTopics(TopicRecords):
    """The topics, within one transaction."""

    __slots__ = ()

    # Queues.

    def push(self, topic: int, jobs: Sequence[Waiting]) -> None:
        access = self._access
        access.dirty = True
        if len(jobs) == 1:
            weight, seq, job_id = jobs[0]
            access.txn.put(queue_key(topic, weight, seq), job_id, db=access.db.queue)
            return
        with access.txn.cursor(access.db.queue) as cursor:
            cursor.putmulti(queue_entries(topic, jobs))

    def pop(self, topic: int, limit: int) -> list[Waiting]:
        prefix = queue_prefix(topic)
        taken: list[tuple[Raw, Raw]] = []
        with self._access.txn.cursor(self._access.db.queue) as cursor:
            found = cursor.set_range(prefix)
            while found and len(taken) < limit:
                entry = cursor.item()
                if entry[0][: len(prefix)] != prefix:
                    break
                taken.append(entry)
                found = cursor.delete()  # which leaves the cursor on the next one
        if taken:
            self._access.dirty = True
        return read_queue(taken)

    def pop_each(self, wanted: Sequence[tuple[int, int]]) -> list[list[Waiting]]:
        taken: list[tuple[Raw, Raw]] = []
        ends: list[int] = []
        with self._access.txn.cursor(self._access.db.queue) as cursor:
            for topic, limit in wanted:
                prefix = queue_prefix(topic)
                end = len(taken) + limit
                found = cursor.set_range(prefix)
                while found and len(taken) < end:
                    entry = cursor.item()  # empty beyond the end, where a deletion may lead too
                    if entry[0][: len(prefix)] != prefix:
                        break
                    taken.append(entry)
                    found = cursor.delete()  # which leaves the cursor on the next one
                ends.append(len(taken))
        if taken:
            self._access.dirty = True
        jobs = read_queue(taken)
        return [jobs[start:end] for start, end in pairwise((0, *ends))]

    def waiting(self, topic: int, weight: int, limit: int, seq: int = 0) -> list[Waiting]:
        found: list[Waiting] = []
        if limit <= 0:
            return found
        with self._access.txn.cursor(self._access.db.queue) as cursor:
            if cursor.set_range(queue_key(topic, weight, seq)):
                for key, job_id in ascending(cursor.iternext()):
                    number, of, seq = read_queue_key(bytes(key))
                    if number != topic:
                        break
                    found.append(_new(Waiting, (of, seq, bytes(job_id))))
                    if len(found) == limit:
                        break
        return found

    def take_fronts(self, wanted: Sequence[tuple[int, int, int]]) -> list[Front]:
        fronts: list[Front] = []
        self._access.dirty = True
        with self._access.txn.cursor(self._access.db.queue) as cursor:
            item = cast("Callable[[], tuple[bytes, bytes]]", cursor.item)
            for queue, weight, most in wanted:
                start = queue_start(queue, weight)
                prefix = start[:-WEIGHT]
                taken: list[Waiting] = []
                first: Waiting | None = None
                cursor.set_range(prefix)
                key, job_id = item()  # empty beyond the end
                while len(taken) < most and key[:-SEQ] == start:
                    taken.append(_new(Waiting, (weight, int.from_bytes(key[-SEQ:]), job_id)))
                    cursor.delete()  # which leaves the cursor on the next one
                    key, job_id = item()
                if key.startswith(prefix):
                    _, of, seq = read_queue_key(key)
                    first = _new(Waiting, (of, seq, job_id))
                fronts.append(_new(Front, (taken, first)))
        return fronts

    def last_waiting(self, topic: int) -> Iterator[Waiting]:
        with self._access.txn.cursor(self._access.db.queue) as cursor:
            behind = cursor.set_range(queue_prefix(topic + 1))
            found = cursor.prev() if behind else cursor.last()
            while found:
                raw, job_id = cursor.item()
                number, weight, seq = read_queue_key(bytes(raw))
                if number != topic:
                    return
                yield Waiting(weight, seq, bytes(job_id))
                found = cursor.prev()

    def remove(self, topic: int, jobs: Sequence[Waiting]) -> None:
        access = self._access
        for weight, seq, _ in jobs:
            access.txn.delete(queue_key(topic, weight, seq), db=access.db.queue)
        access.dirty = True

    def waits(self, topic: int) -> bool:
        prefix = queue_prefix(topic)
        with self._access.txn.cursor(self._access.db.queue) as cursor:
            return bool(cursor.set_range(prefix)) and bytes(cursor.key()).startswith(prefix)

    def queued_of(self, topics: Sequence[int], limit: int, start: int = 0) -> list[int]:
        found: list[int] = []
        at, end = start, len(topics)
        with self._access.txn.cursor(self._access.db.queue) as cursor:
            # From one queue that has jobs to the next: those between cost nothing.
            while at < end and len(found) < limit and cursor.set_range(queue_prefix(topics[at])):
                number = int.from_bytes(cursor.key()[:4])  # of a lane, more than any
                if number > topics[at]:
                    at = bisect_left(topics, number, at + 1)
                    if at == end or topics[at] != number:
                        continue
                elif number < topics[at]:
                    raise StoreCorrupt(f"the queue of number {number} comes too late: damaged tree")
                found.append(number)
                at += 1
        return found

    def queued(self) -> Iterator[tuple[int, Waiting]]:
        with self._access.txn.cursor(self._access.db.queue) as cursor:
            for key, job_id in ascending(cursor.iternext()):
                number, weight, seq = read_queue_key(bytes(key))
                yield number, Waiting(weight, seq, bytes(job_id))

    # Agendas.

    def hold_at(self, agenda: Agenda, held: Held, holder: bytes) -> None:
        access = self._access
        access.dirty = True
        key = agenda_key(agenda, held.at_us, held.slot)
        access.txn.put(key, encode_place(key, holder, held.id), db=access.db.agenda)
        self._lower(agenda, held.at_us)
        self._watch(agenda, 1)

    def _lower(self, agenda: Agenda, at_us: int) -> None:
        """Something stands in the agenda now that may be due before all that was there."""
        bounds = self._access.kept.bounds
        if at_us < bounds.get(agenda, at_us):
            bounds[agenda] = at_us

    def _watch(self, agenda: Agenda, change: int) -> None:
        if agenda in WATCHED:
            self._access.meta.watched[WATCHED.index(agenda)] += change

    def standing(self, agenda: Agenda) -> int:
        return self._access.meta.watched[WATCHED.index(agenda)]

    def is_watchful(self) -> bool:
        return any(self._access.meta.watched)

    def hold(self, agenda: Agenda, at_us: int, ids: Sequence[bytes], holder: bytes) -> list[int]:
        access = self._access
        slots: list[int] = []
        for slot, part in self.next_slots(ids):
            key = agenda_key(agenda, at_us, slot)
            access.txn.put(key, encode_place(key, holder, b"".join(part)), db=access.db.agenda)
            slots += [slot] * len(part)
        self._lower(agenda, at_us)
        if agenda in WATCHED:
            self._watch(agenda, len(ids))
        return slots

    def unhold(self, agenda: Agenda, jobs: Iterable[tuple[int, int, bytes]]) -> None:
        access = self._access
        places: dict[tuple[int, int], list[bytes]] = {}
        last_at_us = last_slot = -1
        leaving: list[bytes] = []
        for at_us, slot, job_id in jobs:
            if slot != last_slot or at_us != last_at_us:  # jobs of one place stand together mostly
                leaving = places.setdefault((at_us, slot), [])
                last_at_us, last_slot = at_us, slot
            leaving.append(job_id)
        for (at_us, slot), leaving in places.items():
            key = agenda_key(agenda, at_us, slot)
            data = access.txn.get(key, db=access.db.agenda)
            if data is None:
                raise StoreCorrupt(
                    f"{agenda.name} has no place {key.hex()}; `jobq check` lists what is wrong"
                )
            holder, ids = decode_place(key, bytes(data))
            staying: list[bytes] = []
            if ids != leaving:  # as they came, so they mostly go
                gone = set(leaving)
                staying = [job_id for job_id in ids if job_id not in gone]
            if agenda in WATCHED:
                self._watch(agenda, len(staying) - len(ids))
            if staying:
                access.txn.put(
                    key, encode_place(key, holder, b"".join(staying)), db=access.db.agenda
                )
            else:
                access.txn.delete(key, db=access.db.agenda)
            access.dirty = True

    def due(self, agenda: Agenda, until_us: int | None, limit: int) -> list[Held]:
        found: list[Held] = []
        if limit > 0:
            for held, _ in self._walk(agenda):
                if until_us is not None and held.at_us > until_us:
                    break
                found.append(held)
                if len(found) == limit:
                    break
        return found

    def first_due(self, agenda: Agenda) -> int | None:
        with self._access.txn.cursor(self._access.db.agenda) as cursor:
            if not cursor.set_range(bytes((agenda,))):
                return None
            key, data = cursor.item()
            of, at_us, _ = read_agenda_key(bytes(key))
            if of != agenda:
                return None
            decode_place(bytes(key), bytes(data))  # a time out of a damaged page is none
            return at_us

    def is_due(self, agenda: Agenda, now_us: int) -> bool:
        bounds = self._access.kept.bounds
        bound = bounds.get(agenda)
        if bound is not None and bound > now_us:
            return False
        first_us = self.first_due(agenda)
        bounds[agenda] = NEVER_US if first_us is None else first_us
        return first_us is not None and first_us <= now_us

    def holders(
        self, agenda: Agenda, start: Place, most: int
    ) -> tuple[dict[bytes, Place], Place | None, int]:
        found: dict[bytes, Place] = {}
        looked = 0
        for key, data in self._places(agenda, start):
            if looked == most:
                return found, read_agenda_key(key)[1:], looked
            looked += 1
            holder = holder_of(key, data)
            if holder not in found:
                found[holder] = read_agenda_key(key)[1:]
        return found, None, looked

    def held_by(
        self, holders: Collection[bytes], span: Span, limit: int
    ) -> tuple[list[Held], Place | None]:
        found: list[Held] = []
        end = None if span.end is None else agenda_key(span.agenda, *span.end)
        for key, data in self._places(span.agenda, span.start):
            if end is not None and key >= end:
                break
            if holder_of(key, data) in holders:
                _, at_us, slot = read_agenda_key(key)
                found += [Held(at_us, slot, job_id) for job_id in decode_place(key, data)[1]]
                if len(found) >= limit:
                    return found[:limit], (at_us, slot)
        return found, None

    def held(self, agenda: Agenda) -> Iterator[tuple[Held, bytes]]:
        return self._walk(agenda)

    def _walk(self, agenda: Agenda) -> Iterator[tuple[Held, bytes]]:
        for key, data in self._places(agenda):
            _, at_us, slot = read_agenda_key(key)
            holder, ids = decode_place(key, data)
            for job_id in ids:
                yield Held(at_us, slot, job_id), holder

    def _places(self, agenda: Agenda, start: Place = FIRST_PLACE) -> Iterator[tuple[bytes, bytes]]:
        """The keys and records of the agenda, from a place on."""
        with self._access.txn.cursor(self._access.db.agenda) as cursor:
            if not cursor.set_range(agenda_key(agenda, *start)):
                return
            for raw, data in ascending(cursor.iternext()):
                key = bytes(raw)
                if read_agenda_key(key)[0] != agenda:
                    return
                yield key, bytes(data)

    def restore(self, agenda: Agenda, entries: Iterable[tuple[Held, bytes]]) -> None:
        access = self._access
        access.dirty = True
        places: defaultdict[tuple[int, int, bytes], list[bytes]] = defaultdict(list)
        for (at_us, slot, job_id), holder in entries:
            places[at_us, slot, holder].append(job_id)
        for (at_us, slot, holder), ids in places.items():
            key = agenda_key(agenda, at_us, slot)
            data = access.txn.get(key, db=access.db.agenda)
            before = [] if data is None else decode_place(key, bytes(data))[1]
            record = encode_place(key, holder, b"".join([*before, *ids]))
            access.txn.put(key, record, db=access.db.agenda)
            self._lower(agenda, at_us)
            self._watch(agenda, len(ids))
