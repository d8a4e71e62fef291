"""Topics whose queues and agendas are in memory; the rest of them is in the file with the jobs.

Names and numbers are durable, because bodies name their topics by number; so are settings, which
nobody could find out from the jobs. Counts are, at the price of one small record for each topic
that a commit touches; and so are the counters of places, slots and ids, which stand in the record
that every commit writes anyway: after a restart they go on where they were, whatever has been
forgotten meanwhile. What is left to memory is what grows with the jobs: their places.
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

from jobq.clock import SystemClock
from jobq.repo.lmdb import steps
from jobq.repo.lmdb.access import Access
from jobq.repo.lmdb.clearing import clear_places
from jobq.repo.lmdb.index import Index, is_elsewhere, mark, warn_of_left_out
from jobq.repo.lmdb.topic_records import TopicRecords
from jobq.repo.memory.topics import MemoryTopics
from jobq.repo.memory.undo import Undo
from jobq.repo.operations.damage import damaged
from jobq.repo.operations.rebuild import rebuild
from jobq.repo.repositories import Agenda, Figure, Held, Place, Span, Transaction, Waiting
from jobq.states import Status

T = TypeVar("T")


class MemoryIndex(Index):
    """Queues and agendas as they are after one commit, and how to take back what followed.

    A transaction changes them at once, and notes the way back. What becomes of it is decided by
    the number of the last commit that the next transaction finds in the file: its own, and the
    changes stand; the one before, and they are taken back; any other, and all is rebuilt from the
    jobs. So nothing has to be done when a transaction fails, is interrupted, or ends nobody knows
    how.

    An interrupt may also strike in the middle of a change, within the sorted containers, and
    leave them torn. That is noted too, and they are rebuilt.

    Attributes:
        memory: The queues and agendas; its names and counts are not used.
        torn: A change has begun and not ended.
    """

    kind = "memory"

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._undo = Undo()
        self.memory = self._nothing()
        self.torn = False
        self._group: int | None = None
        self._next = 0

    def topics(self, access: Access, woken: dict[int, int], wall_us: int) -> "MixedTopics":
        return MixedTopics(self, access, woken, wall_us)

    def begin(self, tx: Transaction, access: Access) -> None:
        group = access.meta.group
        if group != self._group or self.torn or self._undo:
            self._become(group, tx, access)
        self._next = group + 1

    def _become(self, group: int, tx: Transaction, access: Access) -> None:
        """The index of commit *group*. May be interrupted at any point: then it begins anew."""
        if not self.torn and self._group is not None and group in {self._group, self._next}:
            if group == self._group:
                self.torn = True
                self._undo.roll_back()
                self.torn = False
            self.committed(group)
            return
        self._group = None
        self._undo.forget()
        self.memory = self._nothing()
        self._rebuild(tx, access)
        self.torn = False
        self.committed(group)

    def _rebuild(self, tx: Transaction, access: Access) -> None:
        topics, dirty = tx.topics, access.dirty
        tx.topics = _Places(self, access, tx.woken, tx.wall_us)
        try:
            warn_of_left_out(self.path, rebuild(tx))
        finally:
            tx.topics, access.dirty = topics, dirty  # nothing has changed for the file

    def _nothing(self) -> MemoryTopics:
        return MemoryTopics(SystemClock(), self._undo)  # which says when topics became empty

    def committed(self, group: int) -> None:
        # In this order: with the changes forgotten and the number of the commit before, the next
        # transaction finds that the commit was its own.
        self._undo.forget()
        self._group = group


class MixedTopics(TopicRecords):
    """The topics within one transaction: their records in the file, the rest in the index."""

    __slots__ = ("_index",)

    def __init__(
        self, index: MemoryIndex, access: Access, woken: dict[int, int], wall_us: int
    ) -> None:
        super().__init__(access, woken, wall_us)
        self._index = index

    # In the file, and what memory has to know of it.

    def forget_idle(self, since_us: int, look: int, most: int) -> list[int]:
        gone = super().forget_idle(since_us, look, most)
        for number in gone:
            self.forget_queue(number)
        return gone

    def clear(self) -> None:
        super().clear()
        self._change(self._index.memory.clear)

    def flush(self) -> None:
        if not is_elsewhere(self._access):
            clear_places(self._access)
            steps.reached("index cleared")
            mark(self._access, MemoryIndex.kind)
            steps.reached("index marked as elsewhere")
        super().flush()

    # In memory: changes.

    def _change(self, change: Callable[..., T], *args: object) -> T:
        self._access.dirty = True
        self._index.torn = True
        try:
            outcome = change(*args)
        except LookupError as error:  # it stays torn, and the next transaction rebuilds it
            raise damaged("the topics in memory do not match the jobs") from error
        self._index.torn = False
        return outcome

    def push(self, topic: int, jobs: Sequence[Waiting]) -> None:
        self._change(self._index.memory.push, topic, jobs)

    def pop(self, topic: int, limit: int) -> list[Waiting]:
        memory = self._index.memory
        return self._change(memory.pop, topic, limit) if memory.waits(topic) else []

    def remove(self, topic: int, jobs: Sequence[Waiting]) -> None:
        self._change(self._index.memory.remove, topic, jobs)

    def hold(self, agenda: Agenda, at_us: int, ids: Sequence[bytes], holder: bytes) -> list[int]:
        slots: list[int] = []
        for slot, part in self.next_slots(ids):
            self._change(self._index.memory.hold_all_at, agenda, at_us, slot, part, holder)
            slots += [slot] * len(part)
        return slots

    def hold_at(self, agenda: Agenda, held: Held, holder: bytes) -> None:
        self._change(self._index.memory.hold_at, agenda, held, holder)

    def unhold(self, agenda: Agenda, jobs: Iterable[tuple[int, int, bytes]]) -> None:
        if leaving := list(jobs):
            self._change(self._index.memory.unhold, agenda, leaving)

    def forget_queue(self, topic: int) -> None:
        self._change(self._index.memory.forget_queue, topic)

    def restore(self, agenda: Agenda, entries: Iterable[tuple[Held, bytes]]) -> None:
        self._change(self._index.memory.restore, agenda, entries)

    # In memory: looks.

    def waiting(self, topic: int, weight: int, limit: int, seq: int = 0) -> list[Waiting]:
        return self._index.memory.waiting(topic, weight, limit, seq)

    def last_waiting(self, topic: int) -> Iterator[Waiting]:
        return self._index.memory.last_waiting(topic)

    def waits(self, topic: int) -> bool:
        return self._index.memory.waits(topic)

    def queued_of(self, topics: Sequence[int], limit: int, start: int = 0) -> list[int]:
        return self._index.memory.queued_of(topics, limit, start)

    def due(self, agenda: Agenda, until_us: int | None, limit: int) -> list[Held]:
        return self._index.memory.due(agenda, until_us, limit)

    def first_due(self, agenda: Agenda) -> int | None:
        return self._index.memory.first_due(agenda)

    def holders(
        self, agenda: Agenda, start: Place, most: int
    ) -> tuple[dict[bytes, Place], Place | None, int]:
        return self._index.memory.holders(agenda, start, most)

    def held_by(
        self, holders: Collection[bytes], span: Span, limit: int
    ) -> tuple[list[Held], Place | None]:
        return self._index.memory.held_by(holders, span, limit)

    def is_watchful(self) -> bool:
        return self._index.memory.is_watchful()

    def standing(self, agenda: Agenda) -> int:
        return self._index.memory.standing(agenda)

    def queued(self) -> Iterator[tuple[int, Waiting]]:
        return self._index.memory.queued()

    def held(self, agenda: Agenda) -> Iterator[tuple[Held, bytes]]:
        return self._index.memory.held(agenda)


class _Places(MixedTopics):
    """The topics while only the index is made anew: what is in the file is right."""

    __slots__ = ()

    def count(self, topic: int, status: Status, change: int) -> None:
        pass

    def count_listed(self, topic: int, change: int) -> None:
        pass

    def add_size(self, topic: int, change: int) -> None:
        pass

    def set_figure(self, topic: int, figure: Figure, value: int) -> None:
        pass

    def skip_to(self, seq: int, slot: int) -> None:
        pass
