"""Queues, agendas and counts, in LMDB."""

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from itertools import chain, islice, pairwise, takewhile
from typing import Final, cast

from jobq.errors import StoreCorrupt, StoreFull
from jobq.repo.lmdb.access import Access, Raw, ascending, refuse_damaged_tree
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
    read_topic_key,
    topic_name_key,
    topic_number_key,
    topic_settings_key,
)
from jobq.repo.lmdb.records import (
    STATUS_CODE,
    STATUSES,
    Topic,
    decode_number,
    decode_place,
    decode_topic,
    decode_topic_settings,
    encode_number,
    encode_place,
    encode_topic,
    encode_topic_settings,
    holder_of,
)
from jobq.repo.repositories import (
    FIRST_PLACE,
    WATCHED,
    Agenda,
    Brief,
    Figure,
    Front,
    Held,
    Place,
    Span,
    TopicRepository,
    Waiting,
)
from jobq.states import Status
from jobq.topic import NO_SETTINGS, TopicSettings

PLACE: Final = 64
"""The most jobs that stand under one agenda key.

Jobs that are held by one commit fall due together and stand in one record: a batch of 100 costs
two records to reserve and two to finish instead of 200. A holder that finishes them one by one
rewrites the record each time, so it must stay well inside a page (64 ids are 1 036 bytes).
"""

_BY_NUMBER: Final = topic_number_key(0)[:1]

_READY: Final = STATUS_CODE[Status.READY]
_RESERVED: Final = STATUS_CODE[Status.RESERVED]
_LANES: Final = int(Figure.LANES)

_SPREAD: Final = 0x9E3779B1
"""Times the number of a commit, modulo any size: where to look, now here, now there."""

LAST_NUMBER: Final = 2**30 - 1
"""Numbers are not used again, and the two highest bits are not a topic's."""

STORE: Final = 0
"""No topic's number: under it stand the settings of the store as a whole."""

NEVER_US: Final = 2**64
"""Later than any time."""

_new: Final = tuple.__new__  # Waiting(…) comes down to this, in twice the time

UNKNOWN: Final = 0
"""No topic's number: who waits for a topic that does not exist yet, waits for this one."""


class LmdbTopics(TopicRepository):
    """The topics, within one transaction."""

    __slots__ = ("_access", "_changed", "_made", "_wall_us", "woken")

    def __init__(self, access: Access, woken: dict[int, int], wall_us: int) -> None:
        self._access = access
        self._wall_us = wall_us
        self._changed: dict[int, Topic] = {}
        self._made: list[int] = []
        self.woken = woken

    # Names.

    def number(self, name: str) -> int:
        number = self.known(name)
        if number is None:
            access = self._access
            if access.meta.topics == LAST_NUMBER:
                raise StoreFull(f"there were {LAST_NUMBER} topics already: no number is left")
            number = access.meta.topics = access.meta.topics + 1
            access.dirty = True
            key = topic_name_key(name)
            access.txn.put(key, encode_number(key, number), db=access.db.topics)
            access.kept.numbers[name] = number
            entry = Topic(name, [0] * len(STATUSES))
            access.kept.topics[number] = self._changed[number] = entry
            self._made.append(number)
            self.woken[UNKNOWN] = 1
        return number

    def known(self, name: str) -> int | None:
        number = self._access.kept.numbers.get(name)
        if number is None:
            key = topic_name_key(name)
            data = self._access.txn.get(key, db=self._access.db.topics)
            if data is None:
                return None
            number = decode_number(key, bytes(data))
            self._access.kept.numbers[name] = number
        return number

    def name(self, number: int) -> str:
        return self._topic(number).name

    def names(self, since_us: int | None = None) -> list[str]:
        if since_us is not None:
            everyone = self._from(1)
            return sorted(topic.name for _, topic in everyone if not topic.is_idle(since_us))
        found = []
        for key, _ in self._under(b"n"):
            try:
                found.append(key[1:].decode())
            except UnicodeDecodeError as error:
                raise StoreCorrupt(f"a topic has the key {key!r}") from error
        return sorted(found)

    def numbered(self, after: int) -> list[tuple[int, str]]:
        there = [(number, topic.name) for number, topic in self._from(after + 1)]
        topics = self._access.kept.topics
        made = [number for number in self._made if number > after and number in topics]
        return there + [(number, topics[number].name) for number in made]

    def stamp(self) -> int | None:
        return None if self._made else self._access.meta.topics

    def forget_idle(self, since_us: int, look: int, most: int) -> list[int]:
        access = self._access
        if not access.meta.topics:
            return []
        start = 1 + access.meta.group * _SPREAD % access.meta.topics
        round_about = chain(self._from(start), takewhile(lambda it: it[0] < start, self._from(1)))
        idle = [
            (number, topic)
            for number, topic in islice(round_about, look)
            if topic.is_idle(since_us)
        ][:most]
        for number, topic in idle:
            access.dirty = True
            access.txn.delete(topic_number_key(number), db=access.db.topics)
            access.txn.delete(topic_name_key(topic.name), db=access.db.topics)
            access.kept.topics.pop(number, None)
            access.kept.numbers.pop(topic.name, None)
            self._changed.pop(number, None)
        return [number for number, _ in idle]

    def _from(self, number: int) -> Iterator[tuple[int, Topic]]:
        """All topics from a number on, as this transaction has them."""
        with self._access.txn.cursor(self._access.db.topics) as cursor:
            if cursor.set_range(topic_number_key(number)):
                for raw, data in ascending(cursor.iternext()):
                    key = bytes(raw)
                    if key[:1] != _BY_NUMBER:
                        return
                    _, number = read_topic_key(key)
                    known = self._access.kept.topics.get(number)
                    yield number, known or decode_topic(key, bytes(data))

    def _under(self, kind: bytes) -> Iterator[tuple[bytes, bytes]]:
        """The keys of the database that begin with *kind*, and what stands there."""
        with self._access.txn.cursor(self._access.db.topics) as cursor:
            if cursor.set_range(kind):
                for key, data in ascending(cursor.iternext()):
                    if bytes(key[:1]) != kind:
                        return
                    yield bytes(key), bytes(data)

    # Settings.

    def settings(self, topic: int) -> TopicSettings:
        return self._settings(topic) if self._topic(topic).configured else NO_SETTINGS

    def brief(self, topics: Sequence[int]) -> list[Brief]:
        found = []
        for number in topics:
            topic = self._topic(number)
            settings = self.settings(number) if topic.configured else NO_SETTINGS
            found.append(_new(Brief, (topic.name, settings, topic.figures[_LANES] > 0)))
        return found

    def configure(self, topic: int, settings: TopicSettings) -> None:
        access, key = self._access, topic_settings_key(topic)
        access.dirty = True
        entry = self._touch(topic)
        access.kept.settings[topic] = settings
        entry.configured = settings != NO_SETTINGS
        entry.empty_us = 0  # if it has no jobs, it is so from now on
        if entry.configured:
            access.txn.put(key, encode_topic_settings(key, settings), db=access.db.topics)
        else:
            access.txn.delete(key, db=access.db.topics)

    def store_settings(self) -> TopicSettings:
        return self._settings(STORE) if self._access.meta.configured else NO_SETTINGS

    def _settings(self, number: int) -> TopicSettings:
        """The settings that stand under a topic's number, or the store's."""
        known = self._access.kept.settings
        if number in known:
            return known[number]
        key = topic_settings_key(number)
        data = self._access.txn.get(key, db=self._access.db.topics)
        if data is None:
            who = "the store" if number == STORE else f"topic {self.name(number)!r}"
            raise StoreCorrupt(
                f"{who} should have settings, but has none; `jobq check` lists what is wrong"
            )
        settings = known[number] = decode_topic_settings(key, bytes(data))
        return settings

    def configure_store(self, settings: TopicSettings) -> None:
        access, key = self._access, topic_settings_key(STORE)
        access.dirty = True
        access.kept.settings[STORE] = settings
        access.meta.configured = settings != NO_SETTINGS
        if access.meta.configured:
            access.txn.put(key, encode_topic_settings(key, settings), db=access.db.topics)
        else:
            access.txn.delete(key, db=access.db.topics)

    def configured(self) -> list[int]:
        numbers = (read_topic_key(key)[1] for key, _ in self._under(b"s"))
        return [number for number in numbers if number != STORE]

    # Queues.

    def next_seq(self, count: int) -> int:
        meta = self._access.meta
        first = meta.seq + 1
        meta.seq += count
        self._access.dirty = True
        return first

    def last_seq(self) -> int:
        return self._access.meta.seq

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

    def next_slots(self, ids: Sequence[bytes]) -> list[tuple[int, Sequence[bytes]]]:
        """The slots in which jobs are held, here or elsewhere: each, and which of *ids* are there.

        Jobs of one slot ascend. Mostly all do; where they do not, another slot begins. So the
        order in which they stand can be told from the jobs, when an index is made anew.
        """
        meta = self._access.meta
        self._access.dirty = True
        if len(ids) == 1:
            meta.slot += 1
            return [(meta.slot, ids)]
        parts = []
        ends = [len(ids)]
        if sorted(ids) != ids:
            ends = [at for at in range(1, len(ids)) if ids[at] < ids[at - 1]] + ends
        start = 0
        for end in ends:
            while start < end:
                part = ids[start : min(end, start + PLACE)]
                start += len(part)
                meta.slot += 1
                parts.append((meta.slot, part))
        return parts

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

    # Counts.

    def count(self, topic: int, status: Status, change: int) -> None:
        entry = self._changed.get(topic) or self._touch(topic)
        code = STATUS_CODE[status]
        entry.counts[code] += change
        if change > 0:
            entry.empty_us = 0
        self._access.meta.totals[code] += change

    def hand_out(self, topic: int, jobs: int, size: int) -> None:
        entry, meta = self._changed.get(topic) or self._touch(topic), self._access.meta
        for counts in (entry.counts, meta.totals):
            counts[_READY] -= jobs
            counts[_RESERVED] += jobs
        entry.figures[Figure.BYTES] -= size
        meta.size -= size
        if jobs:
            entry.empty_us = 0

    def counts(self, topic: int) -> dict[Status, int]:
        return dict(zip(STATUSES, self._topic(topic).counts, strict=True))

    def total(self, status: Status) -> int:
        return self._access.total(status)

    def listed(self, topic: int) -> int:
        return self._topic(topic).listed

    def count_listed(self, topic: int, change: int) -> None:
        self._touch(topic).listed += change

    def size(self, topic: int) -> int:
        return self._topic(topic).figures[Figure.BYTES] if topic else self._access.meta.size

    def add_size(self, topic: int, change: int) -> None:
        entry = self._changed.get(topic) or self._touch(topic)
        entry.figures[Figure.BYTES] += change
        self._access.meta.size += change

    def figure(self, topic: int, figure: Figure) -> int:
        return self._topic(topic).figures[figure]

    def figures(self, topics: Sequence[int], figure: Figure) -> list[int]:
        known, db = self._access.kept.topics, self._access.db.topics
        missing = [number for number in topics if number not in known]
        if missing:
            with self._access.txn.cursor(db) as cursor:
                keys = [topic_number_key(number) for number in missing]
                found = cast("list[tuple[bytes, bytes]]", cursor.getmulti(keys))
            for key, data in found:
                known[int.from_bytes(key[1:])] = decode_topic(key, data)
            if len(found) < len(missing):
                self._refuse_missing(missing)
        return [known[number].figures[figure] for number in topics]

    def _refuse_missing(self, numbers: Sequence[int]) -> None:
        for number in numbers:
            self._topic(number)

    def set_figure(self, topic: int, figure: Figure, value: int) -> None:
        entry = self._changed.get(topic)
        if entry is None:
            if self._topic(topic).figures[figure] == value:
                return
            entry = self._touch(topic)
        entry.figures[figure] = value

    def empty_us(self, topic: int) -> int:
        return self._topic(topic).empty_us

    def flush(self) -> None:
        """Write the topics that changed."""
        access = self._access
        written = []
        for number, topic in self._changed.items():
            key = topic_number_key(number)
            if min(*topic.counts, topic.listed, *topic.figures) < 0:
                raise StoreCorrupt(
                    f"topic {topic.name!r} would count {topic.counts} jobs, {topic.listed} listed, "
                    f"{topic.figures} of flow control; "
                    "`jobq check` lists what is wrong"
                )
            if not topic.empty_us and not any(topic.counts):
                topic.empty_us = self._wall_us
            written.append((key, encode_topic(key, topic)))
        if len(written) == 1:
            access.txn.put(*written[0], db=access.db.topics)
        elif written:
            with access.txn.cursor(access.db.topics) as cursor:
                cursor.putmulti(written)

    def _topic(self, number: int) -> Topic:
        return self._access.kept.topics.get(number) or self._load(number)

    def _touch(self, number: int) -> Topic:
        """The topic, which is about to be changed."""
        self._access.dirty = True
        topic = self._changed[number] = self._topic(number)
        return topic

    def _load(self, number: int) -> Topic:
        key = topic_number_key(number)
        data = self._access.txn.get(key, db=self._access.db.topics)
        if data is None:
            raise StoreCorrupt(
                f"topic number {number} has no record; `jobq check` lists what is wrong"
            )
        topic = self._access.kept.topics[number] = decode_topic(key, bytes(data))
        return topic

    # For check.

    def queued(self) -> Iterator[tuple[int, Waiting]]:
        with self._access.txn.cursor(self._access.db.queue) as cursor:
            for key, job_id in ascending(cursor.iternext()):
                number, weight, seq = read_queue_key(bytes(key))
                yield number, Waiting(weight, seq, bytes(job_id))

    def held(self, agenda: Agenda) -> Iterator[tuple[Held, bytes]]:
        return self._walk(agenda)

    def strays(self) -> Iterator[str]:
        for number, topic in self._from(0):
            if self.known(topic.name) != number:
                yield f"topic number {number} is named {topic.name!r}, but that is no name of it"
        for key, _ in self._under(b"s"):
            _, number = read_topic_key(key)
            if number == STORE:
                if not self._access.meta.configured:
                    yield "the store has settings that it does not know of"
            elif not self._topic(number).configured:
                yield f"topic {self.name(number)!r} has settings that it does not know of"

    # For rebuild.

    def clear_places(self) -> None:
        """Forget all queues and agendas; counts and names stay.

        Raises:
            StoreCorrupt: They are damaged so that nothing can be made of their room.
        """
        access = self._access
        access.dirty = True
        for db, read in ((access.db.queue, read_queue_key), (access.db.agenda, read_agenda_key)):
            refuse_damaged_tree(access, db, read)
            access.txn.drop(db, delete=False)
        access.meta.watched[:] = [0] * len(WATCHED)
        access.kept.bounds.clear()

    def clear(self) -> None:
        access = self._access
        self.clear_places()
        kept = access.kept
        kept.settings.clear()
        kept.topics = self._changed = self._mend_names()
        kept.numbers = {topic.name: number for number, topic in kept.topics.items()}
        access.meta.totals[:] = [0] * len(STATUSES)
        access.meta.size = 0

    def _mend_names(self) -> dict[int, Topic]:
        """All topics by number, without counts: one of two records says what the other should.

        What is damaged is removed. A topic of which both records are has no name any more, and one
        whose settings are has none.
        """
        txn, db = self._access.txn, self._access.db.topics
        refuse_damaged_tree(self._access, db, bytes)  # what stands there is looked at below
        named: dict[int, str] = {}
        found: dict[int, Topic] = {}
        configured: set[int] = set()
        damaged: list[bytes] = []
        with txn.cursor(db) as cursor:
            for raw, value in ascending(cursor.iternext()):
                key, data = bytes(raw), bytes(value)
                try:
                    if key[:1] == b"n":
                        named[decode_number(key, data)] = key[1:].decode()
                    elif key[:1] == b"s":
                        decode_topic_settings(key, data)
                        configured.add(read_topic_key(key)[1])
                    else:
                        found[read_topic_key(key)[1]] = decode_topic(key, data)
                except (StoreCorrupt, UnicodeDecodeError):
                    damaged.append(key)
        for key in damaged:
            txn.delete(key, db=db)
        self._access.meta.configured = STORE in configured
        for number, topic in found.items():
            if number not in named:
                key = topic_name_key(topic.name)
                txn.put(key, encode_number(key, number), db=db)
        for number, name in named.items():
            found.setdefault(number, Topic(name, []))
        for number, topic in found.items():
            topic.counts, topic.listed = [0] * len(STATUSES), 0
            for figure in (Figure.BYTES, Figure.LANES, Figure.LINGERING):
                topic.figures[figure] = 0
            topic.empty_us = topic.empty_us or self._wall_us  # until it is found to have jobs
            topic.configured = number in configured
        return found

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

    def skip_to(self, seq: int, slot: int) -> None:
        meta = self._access.meta
        meta.seq, meta.slot = max(meta.seq, seq), max(meta.slot, slot)
        self._access.dirty = True
