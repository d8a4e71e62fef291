"""The entries of queues, rings and agendas, of which each has to be accounted for."""

from collections import Counter
from collections.abc import Collection, Iterator, Mapping

from jobq.job import name_of
from jobq.repo.flow import FIRST_LANE, lane_of, topic_if_ring
from jobq.repo.repositories import Agenda, Transaction, done_list, is_done_list


class CheckedPlaces:
    """What stands in queues and agendas, and was not struck out yet.

    Attributes:
        first: The weight of the first entry of each queue.
        held_in: How many entries each agenda has.
    """

    def __init__(self, tx: Transaction, topics: Mapping[int, str]) -> None:
        self._tx = tx
        self._topics = topics
        self._waiting: dict[tuple[int, int, int], bytes] = {}
        self._held: dict[tuple[Agenda, int, int, bytes], bytes] = {}
        self.first: dict[int, int] = {}
        self.held_in: Counter[Agenda] = Counter()

    def read_queues(self) -> Iterator[str]:
        """Read all queues."""
        for queue, entry in self._tx.topics.queued():
            self._waiting[queue, entry.weight, entry.seq] = entry.id
            self.first.setdefault(queue, entry.weight)
        yield from ()

    def read_agendas(self) -> Iterator[str]:
        """Read all agendas."""
        for agenda in Agenda:
            for place, holder in self._tx.topics.held(agenda):
                self._held[agenda, *place] = holder
                self.held_in[agenda] += 1
        yield from ()

    def strike_waiting(self, queue: int, weight: int, place: int) -> bytes | None:
        """Strike out an entry of a queue, and give its member; None if it is not there."""
        return self._waiting.pop((queue, weight, place), None)

    def strike_held(self, agenda: Agenda, at_us: int, slot: int, member: bytes) -> bytes | None:
        """Strike out an entry of an agenda, and give its holder; None if it is not there."""
        return self._held.pop((agenda, at_us, slot, member), None)

    def stands(self, job_id: bytes) -> bool:
        """Whether a job stands anywhere."""
        return job_id in self._waiting.values() or any(place[3] == job_id for place in self._held)

    def rest(self, unreadable: Collection[bytes]) -> Iterator[str]:
        """Sentences about entries that nobody accounts for, but for those of *unreadable* jobs."""
        for (queue, weight, place), member in self._waiting.items():
            if member not in unreadable:
                yield self._unaccounted(queue, weight, place, member)
        for agenda, at_us, _, member in self._held:
            if agenda is Agenda.LANE:
                yield f"LANE holds lane {lane_of(member)} at {at_us}, but it does not say so"
            elif member not in unreadable:
                what = "nothing of it lingers" if agenda is Agenda.LINGER else "no such job stands"
                yield f"{agenda.name} holds job {name_of(member)} at {at_us}, but {what} there"

    def _unaccounted(self, queue: int, weight: int, place: int, member: bytes) -> str:
        if queue >= FIRST_LANE:
            return (
                f"lane {queue} queues job {name_of(member)} at weight {weight}, place {place}, "
                "but no such job is ready there"
            )
        if is_done_list(queue):
            return (
                f"the list of topic number {queue - done_list(0)} names job {name_of(member)} "
                f"at {place}, but no such job is listed there"
            )
        if (topic := topic_if_ring(queue)) is not None:
            return (
                f"the ring of topic {self._topics.get(topic, topic)!r} has lane {lane_of(member)} "
                f"at weight {weight}, turn {place}, but it does not say so"
            )
        return (
            f"topic {self._topics.get(queue, queue)!r} queues job {name_of(member)} at "
            f"weight {weight}, place {place}, but no such job is ready there"
        )
