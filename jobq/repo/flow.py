"""What flow control keeps beside jobs and topics: unique keys, lanes of groups, lingering holds.

A *lane* is a queue within a topic. Each topic has its own, under its own number; each group of it
that has jobs to serve has another. A *ring* is a queue of lanes: those that may be served now, in
their turn. Only topics that have lanes of groups have a ring.

A *lingering hold* is what remains of a reservation whose job was canceled: its holder does not
know it yet and works on. So its place among the running jobs of topic and group, and its unique
key, stay taken until it learns it, its lease is over, or it dies.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

FIRST_LANE: Final = 2**32
"""Numbers of groups' lanes begin here; below are those of topics."""

_RING: Final = 0x4000_0000


def ring(topic: int) -> int:
    """The queue in which a topic's lanes stand that may be served now.

    Its entries are `Waiting`: the weight of the lane's first job, the lane's turn, and the lane
    as `lane_member` gives it.
    """
    return topic | _RING


def topic_of_ring(number: int) -> int:
    """The topic whose ring has this number, which is that of a ring.

    >>> topic_of_ring(ring(7))
    7
    """
    return number & ~_RING


def topic_if_ring(queue: int) -> int | None:
    """The topic whose ring the queue is; None if it is none.

    >>> topic_if_ring(ring(5)), topic_if_ring(5)
    (5, None)
    """
    return queue ^ _RING if queue & _RING and queue < 2 * _RING else None


def lane_member(lane: int) -> bytes:
    """A lane as a member of a queue or an agenda: 16 bytes, as an id is.

    >>> lane_of(lane_member(2**32 + 5)) == 2**32 + 5
    True
    """
    return lane.to_bytes(16)


def lane_of(member: bytes) -> int:
    """The number of the lane that is such a member."""
    return int.from_bytes(member)


class Key(NamedTuple):
    """A unique key that is taken.

    Attributes:
        job: The job that has it, or had it when its period began; 16 bytes.
        until_us: When its period is over (UTC); 0 if the job has it, as long as it does.
    """

    job: bytes
    until_us: int


class Lane(NamedTuple):
    """A queue within a topic.

    Attributes:
        topic: The topic's number.
        ready: How many jobs stand in it.
        running: How many of its jobs count as reserved.
        weight: The weight under which it stands in the ring.
        turn: Its turn there; 0 if it does not stand in the ring.
        tat_ns: When its rate would allow the next job if there were no burst, in nanoseconds of
            the boot clock; see `jobq.rate`.
        due_us: When it has to be looked at again, on the boot clock, because its rate allows a job
            then; 0 if it need not. It stands in the agenda LANE then, its number being the slot.
        group: The group's name; empty for the topic's own lane.
    """

    topic: int
    ready: int
    running: int
    weight: int
    turn: int
    tat_ns: int
    due_us: int
    group: str


class Lingering(NamedTuple):
    """What a canceled job's holder still takes up.

    Attributes:
        topic: Number of the topic that the job was reserved from.
        lane: Number of its lane.
        until_us: When the lease is over, on the boot clock: its place in the agenda LINGER.
        slot: The second half of that place.
        holder: Who held it; 8 bytes.
        unique: The unique key that stays taken; None if none does.
    """

    topic: int
    lane: int
    until_us: int
    slot: int
    holder: bytes
    unique: str | None


class FlowRepository(ABC):
    """Keys, lanes and lingering holds, within one transaction."""

    # Unique keys.

    @abstractmethod
    def key(self, name: str) -> Key | None:
        """Who has the unique key; None if nobody has. Its period may be over."""

    @abstractmethod
    def put_key(self, name: str, key: Key) -> None:
        """Let the unique key be taken so, whoever has had it."""

    @abstractmethod
    def drop_key(self, name: str) -> None:
        """Let nobody have the unique key."""

    @abstractmethod
    def keys(self, after: str | None, limit: int) -> list[tuple[str, Key]]:
        """The first *limit* keys beyond *after*, in the order of their UTF-8 bytes."""

    @abstractmethod
    def keys_over(self, until_us: int, limit: int) -> list[str]:
        """The first *limit* keys whose periods are over at that time, the earliest first."""

    # Lanes.

    @abstractmethod
    def lane(self, number: int) -> Lane | None:
        """The lane of that number, if it is there."""

    def lanes_at(self, numbers: Sequence[int]) -> list[Lane | None]:
        """The lanes of these numbers; engines may read them in one go."""
        return [self.lane(number) for number in numbers]

    @abstractmethod
    def lane_number(self, topic: int, group: str) -> int | None:
        """The number of a group's lane; None if it has none now."""

    @abstractmethod
    def put_lane(self, number: int, lane: Lane) -> None:
        """Keep the lane, in place of what was kept of it."""

    def put_lanes(self, lanes: Sequence[tuple[int, Lane]]) -> None:
        """Keep lanes, by number, each of which is there and of the same group; likewise."""
        for number, lane in lanes:
            self.put_lane(number, lane)

    @abstractmethod
    def drop_lane(self, number: int) -> None:
        """Forget the lane."""

    @abstractmethod
    def lanes(self, topic: int, after: str | None, limit: int) -> list[tuple[int, Lane]]:
        """The first *limit* lanes of a topic's groups beyond *after*, by the bytes of their names.

        The topic's own is not among them.
        """

    # Lingering holds.

    @abstractmethod
    def lingering(self, job_id: bytes, token: int) -> Lingering | None:
        """What the holder of the job under *token* still takes up; None if nothing."""

    @abstractmethod
    def put_lingering(self, job_id: bytes, token: int, lingering: Lingering) -> None:
        """Keep what it takes up."""

    @abstractmethod
    def drop_lingering(self, job_id: bytes, token: int) -> None:
        """It takes nothing up any more."""

    @abstractmethod
    def lingering_of(self, job_id: bytes) -> list[tuple[bytes, int, Lingering]]:
        """What lingers of one job: as `all_lingering` gives it."""

    @abstractmethod
    def all_lingering(self) -> Iterator[tuple[bytes, int, Lingering]]:
        """Job, token and hold of all that can be read, in the order of ids and tokens."""

    def flush(self) -> None:  # noqa: B027 - most engines keep nothing back
        """Write what was kept back until the end of the transaction."""

    # For check and rebuild.

    @abstractmethod
    def all_keys(self) -> Iterator[tuple[str, Key]]:
        """All unique keys that can be read, in the order of their UTF-8 bytes."""

    @abstractmethod
    def all_lanes(self) -> Iterator[tuple[int, Lane]]:
        """All lanes that can be read, the topics' own ones included that have one, by number."""

    @abstractmethod
    def strays(self) -> Iterator[str]:
        """Sentences about records that cannot be read or contradict one another."""

    @abstractmethod
    def mend(self) -> None:
        """Remove records that cannot be read, and let the others not contradict one another.

        Raises:
            StoreCorrupt: They are damaged so that nothing can be made of their room.
        """
