"""Queues, agendas and counts, in memory."""

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Sequence
from itertools import islice

from sortedcontainers import SortedDict, SortedList

from jobq.clock import Clock
from jobq.repo.flow import ring
from jobq.repo.memory.undo import Undo
from jobq.repo.repositories import (
    Agenda,
    Figure,
    Held,
    Place,
    Span,
    TopicRepository,
    Waiting,
    done_list,
)
from jobq.states import Status
from jobq.topic import NO_SETTINGS, TopicSettings

Members = dict[bytes, int]
"""Jobs that fall due together, in their order: each with its position, so that it can be put back
where it was."""

Entries = SortedDict[tuple[int, int], tuple[bytes, Members]]
"""An agenda: by time and slot, who holds the jobs there, and which they are."""


class MemoryTopics(TopicRepository):
    """A sorted list a queue; a sorted dict an agenda, whose entries are all jobs of one commit."""

    def __init__(self, clock: Clock, undo: Undo) -> None:
        self._clock = clock
        self._undo = undo
        self._numbers: dict[str, int] = {}
        self._last = 0
        self._names: dict[int, str] = {}
        self._seq = 0
        self._slot = 0
        self._queues: defaultdict[int, SortedList[Waiting]] = defaultdict(SortedList)
        # The queues that have jobs, and some that had: taking out does not note it.
        self._filled: SortedList[int] = SortedList()
        self._is_filled: set[int] = set()
        self._agendas: dict[Agenda, Entries] = {agenda: SortedDict() for agenda in Agenda}
        self._settings: dict[int, TopicSettings] = {}
        self._of_store = NO_SETTINGS
        self._empty: dict[int, int] = {}  # topics without jobs and since when, oldest first
        self._counts: defaultdict[tuple[int, Status], int] = defaultdict(int)
        self._totals: defaultdict[Status, int] = defaultdict(int)
        self._figures: defaultdict[tuple[int, Figure], int] = defaultdict(int)

    # Names.

    def number(self, name: str) -> int:
        number = self._numbers.get(name)
        if number is None:
            number = self._last = self._last + 1  # not undone, like places
            self._undo.note(self._unname, name, number)
            self._empty[number] = self._clock.wall_us()
            self._names[number] = name
            self._numbers[name] = number
        return number

    def known(self, name: str) -> int | None:
        return self._numbers.get(name)

    def name(self, number: int) -> str:
        return self._names[number]

    def names(self, since_us: int | None = None) -> list[str]:
        return sorted(
            name
            for name, number in self._numbers.items()
            if since_us is None or not self._is_idle(number, since_us)
        )

    def numbered(self, after: int) -> list[tuple[int, str]]:
        return sorted(item for item in self._names.items() if item[0] > after)

    def stamp(self) -> int | None:
        return self._last  # numbers are not given again, even if a transaction is undone

    def forget_idle(self, since_us: int, look: int, most: int) -> list[int]:
        oldest = islice((one for one in self._empty if one not in self._settings), look)
        idle = [number for number in oldest if self._is_idle(number, since_us)][:most]
        for number in idle:
            name = self._names[number]
            self._undo.note(self._name_again, name, number, self._empty[number])
            self._unname(name, number)
        return idle

    def _is_idle(self, number: int, since_us: int) -> bool:
        if not 0 < self.empty_us(number) <= since_us or number in self._settings:
            return False
        return not (self.figure(number, Figure.LANES) or self.figure(number, Figure.LINGERING))

    def _name_again(self, name: str, number: int, empty_us: int) -> None:
        self._numbers[name] = number
        self._names[number] = name
        self._empty[number] = empty_us

    def _unname(self, name: str, number: int) -> None:
        self._numbers.pop(name, None)
        self._names.pop(number, None)
        for queue in (number, done_list(number), ring(number)):
            self._queues.pop(queue, None)
            self._let_go_of(queue)
        self._empty.pop(number, None)
        for status in Status:
            self._counts.pop((number, status), None)  # nothing: it has no jobs
        for figure in Figure:
            self._figures.pop((number, figure), None)

    # Settings.

    def settings(self, topic: int) -> TopicSettings:
        return self._settings.get(topic, NO_SETTINGS)

    def configure(self, topic: int, settings: TopicSettings) -> None:
        empty_us = self._empty.get(topic)
        self._undo.note(self._set_settings, topic, self.settings(topic), empty_us)
        self._set_settings(topic, settings, None if empty_us is None else self._clock.wall_us())

    def _set_settings(self, topic: int, settings: TopicSettings, empty_us: int | None) -> None:
        if empty_us is not None:
            self._empty.pop(topic, None)
            self._empty[topic] = empty_us
        if settings == NO_SETTINGS:
            self._settings.pop(topic, None)
        else:
            self._settings[topic] = settings

    def store_settings(self) -> TopicSettings:
        return self._of_store

    def configure_store(self, settings: TopicSettings) -> None:
        self._undo.note(self._set_store, self._of_store)
        self._set_store(settings)

    def _set_store(self, settings: TopicSettings) -> None:
        self._of_store = NO_SETTINGS if settings == NO_SETTINGS else settings

    def configured(self) -> list[int]:
        return list(self._settings)

    # Queues.

    def next_seq(self, count: int) -> int:
        first = self._seq + 1
        self._seq += count  # not undone: places may be skipped, but none is given twice
        return first

    def last_seq(self) -> int:
        return self._seq

    def push(self, topic: int, jobs: Sequence[Waiting]) -> None:
        queue = self._queues[topic]
        self._undo.note(self._take_out, queue, jobs)
        self._note_filled(topic)
        queue.update(jobs)

    def pop(self, topic: int, limit: int) -> list[Waiting]:
        queue = self._queues[topic]
        taken = list(queue.islice(0, limit))
        self._undo.note(self._put_in, queue, taken)
        del queue[: len(taken)]
        return taken

    def waiting(self, topic: int, weight: int, limit: int, seq: int = 0) -> list[Waiting]:
        first = Waiting(weight, seq, b"")
        return list(islice(self._queues[topic].irange(first), max(0, limit)))

    def last_waiting(self, topic: int) -> Iterator[Waiting]:
        return reversed(self._queues[topic])

    def remove(self, topic: int, jobs: Sequence[Waiting]) -> None:
        queue = self._queues[topic]
        self._undo.note(self._put_in, queue, jobs)
        self._take_out(queue, jobs)

    def forget_queue(self, topic: int) -> None:
        for number in (topic, done_list(topic), ring(topic)):
            queue = self._queues.get(number)
            if queue is not None and not queue:
                self._undo.note(self._have_queue, number, queue)
                del self._queues[number]
                self._let_go_of(number)

    def _have_queue(self, topic: int, queue: SortedList[Waiting]) -> None:
        self._queues[topic] = queue
        self._note_filled(topic)  # perhaps: jobs may be put in again where they were

    def _note_filled(self, topic: int) -> None:
        if topic not in self._is_filled:
            self._filled.add(topic)
            self._is_filled.add(topic)

    def _let_go_of(self, topic: int) -> None:
        if topic in self._is_filled:
            self._is_filled.discard(topic)
            self._filled.discard(topic)

    def waits(self, topic: int) -> bool:
        return bool(self._queues[topic])

    def queued_of(self, topics: Sequence[int], limit: int, start: int = 0) -> list[int]:
        filled = self._filled
        found: list[int] = []
        empty: list[int] = []
        at, end = start, len(topics)
        while at < end and len(found) < limit:
            place = filled.bisect_left(topics[at])
            if place == len(filled):
                break
            number = filled[place]
            if number > topics[at]:
                at = bisect_left(topics, number, at + 1)
                continue
            at += 1
            if self._queues.get(number):
                found.append(number)
            else:
                empty.append(number)
        if not self._undo:  # else a job may be put in again where it was
            for number in empty:
                self._let_go_of(number)
        return found

    @staticmethod
    def _take_out(queue: SortedList[Waiting], jobs: Sequence[Waiting]) -> None:
        for job in jobs:
            queue.discard(job)

    @staticmethod
    def _put_in(queue: SortedList[Waiting], jobs: Sequence[Waiting]) -> None:
        for job in jobs:
            queue.discard(job)  # an interrupted change may have left some in
            queue.add(job)

    # Agendas.

    def hold(self, agenda: Agenda, at_us: int, ids: Sequence[bytes], holder: bytes) -> list[int]:
        self._slot += 1
        self.hold_all_at(agenda, at_us, self._slot, ids, holder)
        return [self._slot] * len(ids)

    def hold_at(self, agenda: Agenda, held: Held, holder: bytes) -> None:
        self.hold_all_at(agenda, held.at_us, held.slot, [held.id], holder)

    def hold_all_at(
        self, agenda: Agenda, at_us: int, slot: int, ids: Sequence[bytes], holder: bytes
    ) -> None:
        """Put jobs into the agenda under a slot that is new, and somebody else's to give."""
        entries, key = self._agendas[agenda], (at_us, slot)
        self._undo.note(entries.pop, key, None)
        entries[key] = (holder, {job_id: position for position, job_id in enumerate(ids)})

    def unhold(self, agenda: Agenda, jobs: Iterable[tuple[int, int, bytes]]) -> None:
        entries = self._agendas[agenda]
        places: defaultdict[tuple[int, int], list[bytes]] = defaultdict(list)
        for at_us, slot, job_id in jobs:
            places[at_us, slot].append(job_id)
        for key, leaving in places.items():
            holder, members = entries[key]
            if members.keys() == set(leaving):  # as they came, so they mostly go
                self._undo.note(entries.__setitem__, key, (holder, members))
                del entries[key]
                continue
            for job_id in leaving:
                self._undo.note(self._hold_again, entries, key, holder, job_id, members[job_id])
                del members[job_id]

    @staticmethod
    def _hold_again(
        entries: Entries,
        key: tuple[int, int],
        holder: bytes,
        job_id: bytes,
        position: int,
    ) -> None:
        _, members = entries.get(key, (holder, {}))
        members = {**members, job_id: position}
        entries[key] = (holder, dict(sorted(members.items(), key=lambda member: member[1])))

    def due(self, agenda: Agenda, until_us: int | None, limit: int) -> list[Held]:
        return list(islice(self._until(agenda, until_us), max(0, limit)))

    def _until(self, agenda: Agenda, until_us: int | None) -> Iterator[Held]:
        for (at_us, slot), (_, members) in self._agendas[agenda].items():
            if until_us is not None and at_us > until_us:
                return
            for job_id in members:
                yield Held(at_us, slot, job_id)

    def first_due(self, agenda: Agenda) -> int | None:
        entries = self._agendas[agenda]
        return entries.keys()[0][0] if entries else None

    def holders(
        self, agenda: Agenda, start: Place, most: int
    ) -> tuple[dict[bytes, Place], Place | None, int]:
        entries, found = self._agendas[agenda], dict[bytes, Place]()
        places = list(islice(entries.irange(start), most + 1))
        for place in places[:most]:
            found.setdefault(entries[place][0], place)
        return found, places[most] if len(places) > most else None, min(len(places), most)

    def held_by(
        self, holders: Collection[bytes], span: Span, limit: int
    ) -> tuple[list[Held], Place | None]:
        entries, found = self._agendas[span.agenda], list[Held]()
        for place in entries.irange(span.start, span.end, inclusive=(True, False)):
            holder, members = entries[place]
            if holder in holders:
                found += [Held(*place, job_id) for job_id in members]
                if len(found) >= limit:
                    return found[:limit], place
        return found, None

    # Counts.

    def count(self, topic: int, status: Status, change: int) -> None:
        count, total = self._counts[topic, status], self._totals[status]
        self._undo.note(self._set_count, topic, status, count, total, self._empty.get(topic))
        others = sum(self._counts[topic, other] for other in Status if other is not status)
        empty_us = None if count + change or others else self._clock.wall_us()
        self._set_count(topic, status, count + change, total + change, empty_us)

    def _set_count(
        self, topic: int, status: Status, count: int, total: int, empty_us: int | None
    ) -> None:
        self._counts[topic, status] = count
        self._totals[status] = total
        self._empty.pop(topic, None)
        if empty_us is not None:
            self._empty[topic] = empty_us

    def counts(self, topic: int) -> dict[Status, int]:
        return {status: self._counts[topic, status] for status in Status}

    def total(self, status: Status) -> int:
        return self._totals[status]

    def listed(self, topic: int) -> int:
        return len(self._queues[done_list(topic)])

    def count_listed(self, topic: int, change: int) -> None:
        pass  # a list knows its length

    def size(self, topic: int) -> int:
        return self._figures[topic, Figure.BYTES]

    def add_size(self, topic: int, change: int) -> None:
        for number in (topic, 0):  # 0 has that of the store
            self._set(number, Figure.BYTES, self._figures[number, Figure.BYTES] + change)

    def figure(self, topic: int, figure: Figure) -> int:
        return self._figures[topic, figure]

    def set_figure(self, topic: int, figure: Figure, value: int) -> None:
        self._set(topic, figure, value)

    def _set(self, topic: int, figure: Figure, value: int) -> None:
        key = (topic, figure)
        self._undo.note(self._figures.__setitem__, key, self._figures[key])
        self._figures[key] = value

    def standing(self, agenda: Agenda) -> int:
        return len(self._agendas[agenda])

    def empty_us(self, topic: int) -> int:
        return self._empty.get(topic, 0)

    # For check.

    def queued(self) -> Iterator[tuple[int, Waiting]]:
        for number, queue in self._queues.items():
            for waiting in queue:
                yield number, waiting

    def held(self, agenda: Agenda) -> Iterator[tuple[Held, bytes]]:
        for (at_us, slot), (holder, members) in self._agendas[agenda].items():
            for job_id in members:
                yield Held(at_us, slot, job_id), holder

    def strays(self) -> Iterator[str]:
        for number in self._settings:
            if number not in self._names:
                yield f"settings belong to no topic: number {number}"

    # For rebuild.

    def clear(self) -> None:
        self._undo.note(
            self._have_again,
            self._queues,
            self._agendas,
            (self._counts, self._totals, self._empty, self._figures),
        )
        now_us = self._clock.wall_us()
        empty = {number: self._empty.get(number, now_us) for number in self._names}
        self._have_again(
            defaultdict(SortedList),
            {agenda: SortedDict() for agenda in Agenda},
            (defaultdict(int), defaultdict(int), empty, self._kept_figures()),
        )

    def _kept_figures(self) -> defaultdict[tuple[int, Figure], int]:
        """The figures that cannot be told from the jobs."""
        kept = {Figure.PASS, Figure.TAT_NS}
        return defaultdict(int, {key: it for key, it in self._figures.items() if key[1] in kept})

    def _have_again(
        self,
        queues: defaultdict[int, SortedList[Waiting]],
        agendas: dict[Agenda, Entries],
        counts: tuple[
            defaultdict[tuple[int, Status], int],
            defaultdict[Status, int],
            dict[int, int],
            defaultdict[tuple[int, Figure], int],
        ],
    ) -> None:
        self._queues, self._agendas = queues, agendas
        self._filled, self._is_filled = SortedList(queues), set(queues)
        self._counts, self._totals, self._empty, self._figures = counts

    def restore(self, agenda: Agenda, entries: Iterable[tuple[Held, bytes]]) -> None:
        places = self._agendas[agenda]
        for (at_us, slot, job_id), holder in entries:
            key = (at_us, slot)
            self._undo.note(self._let_go, places, key, job_id)
            there = places.get(key)
            if there is None:
                places[key] = (holder, {job_id: 0})
            else:
                members = there[1]
                members[job_id] = next(reversed(members.values()), -1) + 1

    @staticmethod
    def _let_go(entries: Entries, key: tuple[int, int], job_id: bytes) -> None:
        if key in entries:
            members = entries[key][1]
            members.pop(job_id, None)
            if not members:
                del entries[key]

    def skip_to(self, seq: int, slot: int) -> None:
        self._seq, self._slot = max(self._seq, seq), max(self._slot, slot)
