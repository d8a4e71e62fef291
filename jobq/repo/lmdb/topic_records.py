"""Topics themselves, in LMDB: their names, settings, counts and figures.

They are in the file wherever queues and agendas are, and so are the numbers by which places in
these are given: `topics` has queues and agendas in the file, `repo.mixed` has them in memory.
"""

from collections.abc import Iterator, Sequence
from itertools import chain, islice, takewhile
from typing import Final, cast

from jobq.errors import StoreCorrupt, StoreFull
from jobq.repo.lmdb.access import Access, ascending
from jobq.repo.lmdb.clearing import clear_places, mended_topics
from jobq.repo.lmdb.keys import (
    STORE,
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
    decode_topic,
    decode_topic_settings,
    encode_number,
    encode_topic,
    encode_topic_settings,
)
from jobq.repo.repositories import Brief, Figure, TopicRepository
from jobq.states import Status
from jobq.topic import NO_SETTINGS, TopicSettings

PLACE: Final = 64
"""The most jobs that stand under one agenda key.

Jobs that are held by one commit fall due together and stand in one record: a batch of 100 costs
two records to reserve and two to finish instead of 200. A holder that finishes them one by one
rewrites the record each time, so it must stay well inside a page (64 ids are 1 036 bytes).
"""

LAST_NUMBER: Final = 2**30 - 1
"""Numbers are not used again, and the two highest bits are not a topic's."""

UNKNOWN: Final = 0
"""No topic's number: who waits for a topic that does not exist yet, waits for this one."""

_BY_NUMBER: Final = topic_number_key(0)[:1]

_READY: Final = STATUS_CODE[Status.READY]
_RESERVED: Final = STATUS_CODE[Status.RESERVED]
_LANES: Final = int(Figure.LANES)

_SPREAD: Final = 0x9E3779B1
"""Times the number of a commit, modulo any size: where to look, now here, now there."""

_new: Final = tuple.__new__  # Brief(…) comes down to this, in twice the time


class TopicRecords(TopicRepository):
    """The topics within one transaction, without what stands in their queues and agendas."""

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

    # The numbers of places in queues and agendas.

    def next_seq(self, count: int) -> int:
        meta = self._access.meta
        first = meta.seq + 1
        meta.seq += count
        self._access.dirty = True
        return first

    def last_seq(self) -> int:
        return self._access.meta.seq

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

    def skip_to(self, seq: int, slot: int) -> None:
        meta = self._access.meta
        meta.seq, meta.slot = max(meta.seq, seq), max(meta.slot, slot)
        self._access.dirty = True

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

    # For check and rebuild.

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

    def clear(self) -> None:
        access = self._access
        clear_places(access)
        kept = access.kept
        kept.settings.clear()
        kept.topics = self._changed = mended_topics(access, self._wall_us)
        kept.numbers = {topic.name: number for number, topic in kept.topics.items()}
        access.meta.totals[:] = [0] * len(STATUSES)
        access.meta.size = 0
