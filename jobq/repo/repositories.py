"""The facets inside a transactional engine: jobs, and topics; `flow` has the third.

An engine that has transactions (memory, LMDB) supplies these two over its transaction;
`repo.transactional` writes the whole `Store` once on top of them. Everything is batch level,
because a batch is what engines are fast at.

`JobRepository` is the truth: what each job is. `TopicRepository` is an index over it: who comes
next, what falls due when, and how many there are. It can be rebuilt from the jobs.

A job is stored as two records. Its *body* is written at enqueue, holds payload and options, and is
rewritten only when these are edited. Its *state* is small and rewritten at each move; a job that
has not moved yet has none, and `initial_state` gives what it would be.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from enum import IntEnum
from typing import Final, NamedTuple

from jobq.job import LEAST_WEIGHT
from jobq.options import UNSET, JobOptions
from jobq.repo.flow import FlowRepository
from jobq.states import Event, Reason, Status
from jobq.topic import TopicSettings

NOBODY: Final = bytes(8)
"""The holder of what nobody holds."""


IDLE_US: Final = 3_600 * 1_000_000
"""An hour: a topic that has had neither jobs nor settings for so long is not listed any more."""


class Agenda(IntEnum):
    """What jobs wait for until a certain time; one ordered index each.

    A job stands in exactly one of the first four unless it is ready. The others are beside that:
    what has to be looked after at a certain time. LEASE, LINGER and LANE count in microseconds of
    the boot clock, the others in microseconds UTC.
    """

    DELAYED = 1  # becomes ready
    LEASE = 2  # its reservation is over
    DONE = 3  # its retention is over
    CANCELED = 4  # its retention is over
    DEADLINE = 5  # it expires if it waits; its slot is the `seq` of its body
    LINGER = 6  # a lingering hold is over
    LANE = 7  # a lane that was at its rate may be served again; stands under the lane's number


WATCHED: Final = (Agenda.DEADLINE, Agenda.LINGER, Agenda.LANE)
"""The agendas that most queues never use: how many entries they have is known without a look."""

BY_BOOT_CLOCK: Final = frozenset({Agenda.LEASE, Agenda.LINGER, Agenda.LANE})
"""The agendas whose times are of the boot clock; those of the others are UTC."""

AGENDA_OF: Final = {
    Status.DELAYED: Agenda.DELAYED,
    Status.RESERVED: Agenda.LEASE,
    Status.DONE: Agenda.DONE,
    Status.CANCELED: Agenda.CANCELED,
}
"""The agenda in which a job of each status stands; a ready one stands in its topic's queue."""


class JobBody(NamedTuple):
    """What does not change of a job when it moves. Only options and payload can be edited.

    Attributes:
        topic: Number of its first topic.
        weight: Its first weight.
        seq: Its first place in the order of its weight.
        due_us: When it becomes ready (UTC); 0 if it was ready at once.
        slot: Where in the DELAYED agenda it first stood; 0 if it was ready at once.
        lane: The queue in which it stood first if it was ready at once: its topic's number, or
            that of its group's lane; 0 if it was delayed and has a group.
    """

    topic: int
    weight: int
    seq: int
    created_us: int
    due_us: int
    slot: int
    options: JobOptions
    payload: bytes
    lane: int


class JobState(NamedTuple):
    """What changes of a job.

    Attributes:
        topic: Number of its topic.
        status: One of the five.
        reason: Why it is canceled; None unless it is.
        settled: What its last holder said of it, as long as nothing else has touched it since;
            with `token` it makes a repeated settlement a no-op.
        token: How many reservations it has had.
        at_us: What it stands under in its agenda: when it is due, when its lease is over (boot
            clock), or when its retention is over; 0 when ready.
        slot: The second half of its place in the agenda; 0 when ready.
        holder: Who holds it, or held it when it ended, 8 bytes; `NOBODY` if nobody.
        reserved_us: When it was last reserved (UTC); 0 if never.
        ended_us: When it was done or canceled (UTC); 0 unless it is.
        notes: Which `Note`s it has, as a sum of their bits; and `LISTED`, `TERMS`,
            `KEEPS_SLOT`, `KEYLESS`.
        lane: The queue in which it stands, or whose place it takes while it is reserved: its
            topic's number, or that of its group's lane; 0 if it has a group and neither.
        size: Bytes of its payload.
    """

    topic: int
    weight: int
    seq: int
    status: Status
    reason: Reason | None
    settled: Event | None
    attempt: int
    token: int
    retries: int
    crashes: int
    resets: int
    at_us: int
    slot: int
    holder: bytes
    reserved_us: int
    ended_us: int
    notes: int
    lane: int
    size: int


class Note(IntEnum):
    """What may be kept of a job beside body and state, under keys of their own.

    A note has parts, numbered from 0; only LOG has more than one. See `operations.history` and
    `operations.reports` for what stands in them.
    """

    RESULT = 1
    HISTORY = 2
    PROGRESS = 4
    LOG = 8


LISTED: Final = 0x80
"""A bit of `JobState.notes` that is no note: the job stands in the list of its topic's done jobs,
at its `seq`."""


TERMS: Final = 0x10
"""A bit of `JobState.notes` that is no note: the body's options have a group, a unique key or a
deadline. Without it nobody has to look there."""

KEEPS_SLOT: Final = 0x20
"""A bit of `JobState.notes` that is no note: the job is delayed, but goes on counting as reserved
in its lane."""

KEYLESS: Final = 0x40
"""A bit of `JobState.notes` that is no note: the job has not got the unique key that it has a right
to, because another job had it when it came (by an import, or to wait again), or an operator gave
the key away. So from its records alone it is known who has which key."""


class Figure(IntEnum):
    """Numbers that are kept of each topic, beside its counts."""

    BYTES = 0  # of the payloads of jobs that wait, ready and delayed
    LANES = 1  # of groups
    LINGERING = 2  # holds of canceled jobs
    PASS = 3  # in stride scheduling; see `jobq.shares`
    TAT_NS = 4  # the theoretical arrival time of its rate, boot clock; see `jobq.rate`


def done_list(topic: int) -> int:
    """The queue in which the done jobs of a topic are listed that has a limit for them.

    Its entries have weight 0, and places in the order in which the jobs were done.
    """
    return topic | 0x8000_0000


def is_done_list(queue: int) -> bool:
    """Whether the queue is a list of done jobs.

    >>> is_done_list(done_list(5)), is_done_list(5)
    (True, False)
    """
    return queue >> 31 == 1


def initial_state(body: JobBody) -> JobState:
    """The state of a job that nothing has happened to since it was enqueued."""
    topic, weight, seq, _, due_us, slot, options, payload, lane = body
    status = Status.DELAYED if due_us else Status.READY
    notes = 0 if options is UNSET else terms_of(options)
    # What JobState(…) comes down to, in half the time: every job is read so once.
    return tuple.__new__(
        JobState,
        (
            topic, weight, seq, status, None, None,
            0, 0, 0, 0, 0, due_us, slot, NOBODY, 0, 0, notes, lane, len(payload),
        ),
    )  # fmt: skip


class Move(NamedTuple):
    """What becomes of the states of jobs that go the same way, apart from their slots.

    Attributes:
        tries: Added to `attempt` and `token`: 1 if they are handed out, else 0.
        holder: None leaves it as it is.
        reserved_us: None leaves it as it is.

    The others are as in `JobState`.
    """

    status: Status
    reason: Reason | None
    settled: Event | None
    at_us: int
    tries: int = 0
    holder: bytes | None = None
    reserved_us: int | None = None
    ended_us: int = 0


def moved(state: JobState, slot: int, move: Move) -> JobState:
    """The state of a job that goes that way, to a slot of its agenda."""
    (
        topic, weight, seq, _, _, _, attempt, token, retries, crashes, resets,
        _, _, holder, reserved_us, _, notes, lane, size,
    ) = state  # fmt: skip
    status, reason, settled, at_us, tries, new_holder, new_reserved_us, ended_us = move
    return tuple.__new__(
        JobState,
        (
            topic, weight, seq, status, reason, settled,
            attempt + tries, token + tries, retries, crashes, resets, at_us, slot,
            holder if new_holder is None else new_holder,
            reserved_us if new_reserved_us is None else new_reserved_us,
            ended_us, notes, lane, size,
        ),
    )  # fmt: skip


def terms_of(options: JobOptions) -> int:
    """The bit of `JobState.notes` that a job with these options has."""
    return TERMS if options is not UNSET and options.has_terms else 0


class Waiting(NamedTuple):
    """A job's place in the queue of its topic; `tuple` order within a topic is serving order."""

    weight: int
    seq: int
    id: bytes


class Front(NamedTuple):
    """What was taken of a queue, and the job that is first in it then; None if it is empty."""

    taken: list[Waiting]
    first: Waiting | None


class Brief(NamedTuple):
    """What a reservation has to know of a topic.

    Attributes:
        has_lanes: It has lanes of groups, and so a ring.
    """

    name: str
    settings: TopicSettings
    has_lanes: bool


class Held(NamedTuple):
    """A job's place in an agenda."""

    at_us: int
    slot: int
    id: bytes


class JobRepository(ABC):
    """Jobs by id. Sequences in, lists out, by position."""

    @abstractmethod
    def mint(self, count: int) -> list[bytes]:
        """New ids, ascending, larger than all minted before."""

    @abstractmethod
    def create(self, jobs: Sequence[tuple[bytes, JobBody]]) -> None:
        """Store new jobs; ids ascending."""

    @abstractmethod
    def bodies(self, ids: Sequence[bytes]) -> list[JobBody | None]:
        """Each job's body; None where there is none."""

    @abstractmethod
    def states(self, ids: Sequence[bytes]) -> list[JobState | None]:
        """Each job's state, the initial one where it has not moved; None without a job."""

    @abstractmethod
    def both(self, ids: Sequence[bytes]) -> list[tuple[JobBody, JobState] | None]:
        """Body and state of each job in one go."""

    @abstractmethod
    def update(self, jobs: Sequence[tuple[bytes, JobState]]) -> None:
        """Replace states; an id stands once."""

    def move(
        self, jobs: Sequence[tuple[bytes, JobState]], slots: Sequence[int], move: Move
    ) -> None:
        """Replace the states of jobs that go the same way, by what `moved` says; as `update`."""
        self.update(
            [
                (job_id, moved(state, slot, move))
                for (job_id, state), slot in zip(jobs, slots, strict=True)
            ]
        )

    @abstractmethod
    def rewrite(self, jobs: Sequence[tuple[bytes, JobBody]]) -> None:
        """Replace bodies; an id stands once. States stay, also that of a job without a record."""

    @abstractmethod
    def delete(self, jobs: Sequence[tuple[bytes, JobState]]) -> None:
        """Remove jobs with all that is kept of them; the state says what there is."""

    @abstractmethod
    def put_note(self, job_id: bytes, note: Note, data: bytes, number: int = 0) -> None:
        """Keep *data* as a part of the job's note, in place of an earlier one."""

    @abstractmethod
    def note(self, job_id: bytes, note: Note, number: int = 0) -> bytes | None:
        """A part of the job's note; None without one."""

    @abstractmethod
    def drop_part(self, job_id: bytes, note: Note, number: int) -> None:
        """Remove a part of the job's note, if it has one."""

    @abstractmethod
    def drop_note(self, job_id: bytes, note: Note) -> None:
        """Remove all parts of the job's note, if it has one."""

    def scan(self, after: bytes | None, limit: int) -> list[tuple[bytes, JobBody, JobState]]:
        """The first *limit* jobs with ids beyond *after*, ascending."""
        ids = self.ids(after, limit)
        return [
            (job_id, *both)
            for job_id, both in zip(ids, self.both(ids), strict=True)
            if both is not None
        ]

    @abstractmethod
    def ids(self, after: bytes | None, limit: int) -> list[bytes]:
        """The first *limit* ids beyond *after*, ascending."""

    def moved_ids(self, after: bytes | None, limit: int) -> list[bytes]:
        """As `ids`, of jobs that have moved since they were enqueued, at least.

        An engine that would have to look for them gives all.
        """
        return self.ids(after, limit)

    @abstractmethod
    def last_id(self) -> bytes | None:
        """The largest id of a job; None if there is no job."""

    @abstractmethod
    def size(self) -> int:
        """How many jobs there are, as the engine counts them: not by looking at each."""

    @abstractmethod
    def strays(self) -> Iterator[str]:
        """Sentences about records that belong to no job, for `check`."""

    @abstractmethod
    def refuse_damage(self) -> None:
        """Before a repair: whether all that is kept of jobs can be come by, read or not.

        Raises:
            StoreCorrupt: Something cannot: what a repair made of the rest might undo what was done.
        """


Place = tuple[int, int]
"""Where something stands in an agenda: a time in microseconds, and a slot."""

FIRST_PLACE: Final[Place] = (0, 0)


class Span(NamedTuple):
    """The places of an agenda from *start* on, up to *end*; to the last one if that is None."""

    agenda: Agenda
    start: Place
    end: Place | None


class Lost(NamedTuple):
    """What is to be taken from dead holders: all that they have in these parts of agendas."""

    holders: frozenset[bytes]
    spans: tuple[Span, ...]


NOTHING_LOST: Final = Lost(frozenset(), ())


class TopicRepository(ABC):
    """Topics: their numbers, settings, queues, agendas and counts.

    What takes a topic for its queue also takes a `done_list`.
    """

    @abstractmethod
    def number(self, name: str) -> int:
        """The topic's number; a new one for a new name."""

    @abstractmethod
    def known(self, name: str) -> int | None:
        """The topic's number; None if the name is new."""

    @abstractmethod
    def name(self, number: int) -> str:
        """The topic's name."""

    @abstractmethod
    def names(self, since_us: int | None = None) -> list[str]:
        """All names, sorted; with *since_us*, without topics that have been idle since then."""

    @abstractmethod
    def numbered(self, after: int) -> list[tuple[int, str]]:
        """All topics with numbers above *after*, ascending, with their names."""

    @abstractmethod
    def stamp(self) -> int | None:
        """What changes whenever a topic is made: the same stamp, no new number.

        None while this transaction has made one: it may still come to nothing.
        """

    @abstractmethod
    def forget_idle(self, since_us: int, look: int, most: int) -> list[int]:
        """Remove topics that have been idle since then, and give their numbers.

        No more than *most*; and no more than *look* are looked at, now these, now those.
        """

    @abstractmethod
    def settings(self, topic: int) -> TopicSettings:
        """The topic's settings; `NO_SETTINGS` itself if none is set."""

    def brief(self, topics: Sequence[int]) -> list[Brief]:
        """What a reservation has to know of each of several topics."""
        return [
            Brief(self.name(topic), self.settings(topic), self.figure(topic, Figure.LANES) > 0)
            for topic in topics
        ]

    @abstractmethod
    def configure(self, topic: int, settings: TopicSettings) -> None:
        """Replace the topic's settings."""

    @abstractmethod
    def store_settings(self) -> TopicSettings:
        """The settings of the store as a whole, likewise."""

    @abstractmethod
    def configure_store(self, settings: TopicSettings) -> None:
        """Replace the settings of the store as a whole."""

    @abstractmethod
    def configured(self) -> list[int]:
        """The numbers of all topics that have settings."""

    @abstractmethod
    def next_seq(self, count: int) -> int:
        """The first of *count* new places at the back of every queue."""

    @abstractmethod
    def last_seq(self) -> int:
        """The last place that was given; 0 if none was."""

    @abstractmethod
    def push(self, topic: int, jobs: Sequence[Waiting]) -> None:
        """Put jobs into the topic's queue."""

    @abstractmethod
    def pop(self, topic: int, limit: int) -> list[Waiting]:
        """Take the first *limit* jobs out of the topic's queue."""

    def pop_each(self, wanted: Sequence[tuple[int, int]]) -> list[list[Waiting]]:
        """`pop` of several topics, of each as many as stand with it; engines may do it in one go.

        A topic stands once.
        """
        return [self.pop(topic, limit) for topic, limit in wanted]

    @abstractmethod
    def waiting(self, topic: int, weight: int, limit: int, seq: int = 0) -> list[Waiting]:
        """The first *limit* jobs of the topic's queue from a weight and place on; they stay."""

    @abstractmethod
    def last_waiting(self, topic: int) -> Iterator[Waiting]:
        """The jobs of the topic's queue, the last one first; it must not change meanwhile."""

    def take_fronts(self, wanted: Sequence[tuple[int, int, int]]) -> list[Front]:
        """Take the first jobs of several queues: (queue, weight, how many at most) of each.

        Those that have another weight than that stay. Engines may do it in one go.
        """
        fronts = []
        for queue, weight, most in wanted:
            jobs = self.waiting(queue, LEAST_WEIGHT, most + 1)
            taken = [job for job in jobs[:most] if job.weight == weight]
            self.remove(queue, taken)
            fronts.append(Front(taken, jobs[len(taken)] if len(taken) < len(jobs) else None))
        return fronts

    @abstractmethod
    def remove(self, topic: int, jobs: Sequence[Waiting]) -> None:
        """Take these jobs out of the topic's queue."""

    def forget_queue(self, topic: int) -> None:  # noqa: B027 - most engines have nothing to do
        """Let go of what the queue of a lane takes that is no more; it is empty."""

    @abstractmethod
    def waits(self, topic: int) -> bool:
        """Whether the topic's queue has a job."""

    @abstractmethod
    def queued_of(self, topics: Sequence[int], limit: int, start: int = 0) -> list[int]:
        """The first *limit* of these topics, which ascend, whose queues have a job.

        Beginning with the one at the position *start*.

        Costs little for each that is found, and next to nothing for the others.
        """

    @abstractmethod
    def hold(self, agenda: Agenda, at_us: int, ids: Sequence[bytes], holder: bytes) -> list[int]:
        """Put jobs into the agenda, and give their slots."""

    @abstractmethod
    def unhold(self, agenda: Agenda, jobs: Iterable[tuple[int, int, bytes]]) -> None:
        """Take these jobs out of the agenda: (time, slot, id) as in `Held`."""

    @abstractmethod
    def hold_at(self, agenda: Agenda, held: Held, holder: bytes) -> None:
        """Put one job or lane into the agenda at a place of its own, which nobody else has."""

    @abstractmethod
    def due(self, agenda: Agenda, until_us: int | None, limit: int) -> list[Held]:
        """The first *limit* jobs of the agenda at or before *until_us* (None: at any time)."""

    @abstractmethod
    def first_due(self, agenda: Agenda) -> int | None:
        """The earliest time in the agenda; None if it is empty."""

    def is_due(self, agenda: Agenda, now_us: int) -> bool:
        """Whether something in the agenda is due by now."""
        first_us = self.first_due(agenda)
        return first_us is not None and first_us <= now_us

    @abstractmethod
    def holders(
        self, agenda: Agenda, start: Place, most: int
    ) -> tuple[dict[bytes, Place], Place | None, int]:
        """Who has something in the first *most* places of the agenda from *start* on.

        Returns:
            Each of them with its first place; where the places go on, None if these were the last;
            and how many there were.
        """

    @abstractmethod
    def held_by(
        self, holders: Collection[bytes], span: Span, limit: int
    ) -> tuple[list[Held], Place | None]:
        """The first *limit* jobs that these have in a part of an agenda.

        Returns:
            Them, and from which place on there may be more; None if these are all.
        """

    @abstractmethod
    def count(self, topic: int, status: Status, change: int) -> None:
        """Add *change* to the number of the topic's jobs in *status*."""

    def hand_out(self, topic: int, jobs: int, size: int) -> None:
        """Count jobs that were ready as reserved, and the bytes of their payloads as gone."""
        self.count(topic, Status.READY, -jobs)
        self.count(topic, Status.RESERVED, jobs)
        self.add_size(topic, -size)

    @abstractmethod
    def counts(self, topic: int) -> dict[Status, int]:
        """How many jobs of the topic are in each status."""

    @abstractmethod
    def total(self, status: Status) -> int:
        """How many jobs of the store are in *status*."""

    @abstractmethod
    def listed(self, topic: int) -> int:
        """How many jobs stand in the topic's `done_list`."""

    @abstractmethod
    def count_listed(self, topic: int, change: int) -> None:
        """Add *change* to that number."""

    @abstractmethod
    def size(self, topic: int) -> int:
        """How many bytes the payloads of the topic's waiting jobs have; of topic 0, of all."""

    @abstractmethod
    def add_size(self, topic: int, change: int) -> None:
        """Add *change* to that number, and to that of the store."""

    @abstractmethod
    def figure(self, topic: int, figure: Figure) -> int:
        """A number that is kept of the topic; 0 at first."""

    def figures(self, topics: Sequence[int], figure: Figure) -> list[int]:
        """That number of each of several topics; engines may read them in one go."""
        return [self.figure(topic, figure) for topic in topics]

    @abstractmethod
    def set_figure(self, topic: int, figure: Figure, value: int) -> None:
        """Keep that number; not BYTES, which `add_size` changes."""

    @abstractmethod
    def standing(self, agenda: Agenda) -> int:
        """How many entries an agenda of `WATCHED` has, without a look at it."""

    def is_watchful(self) -> bool:
        """Whether an agenda of `WATCHED` has an entry."""
        return any(self.standing(agenda) for agenda in WATCHED)

    @abstractmethod
    def empty_us(self, topic: int) -> int:
        """Since when the topic has had no job, or its last settings; 0 if it has a job."""

    @abstractmethod
    def queued(self) -> Iterator[tuple[int, Waiting]]:
        """All queues' entries, for `check`: (topic, entry), each topic's in order."""

    @abstractmethod
    def held(self, agenda: Agenda) -> Iterator[tuple[Held, bytes]]:
        """All of the agenda's entries and their holders, for `check`."""

    @abstractmethod
    def strays(self) -> Iterator[str]:
        """Sentences about records that belong to no topic, for `check`."""

    # For `rebuild`.

    @abstractmethod
    def clear(self) -> None:
        """Forget all queues, agendas and counts; names and their numbers stay.

        Raises:
            StoreCorrupt: They are damaged so that nothing can be made of their room.
        """

    @abstractmethod
    def restore(self, agenda: Agenda, entries: Iterable[tuple[Held, bytes]]) -> None:
        """Put jobs into the agenda at exactly these places, with holders, as `held` gives them.

        Several jobs may share a place: they stand there in the order in which they come.
        """

    @abstractmethod
    def skip_to(self, seq: int, slot: int) -> None:
        """Give no place of a queue up to *seq*, and no slot up to *slot*, from now on."""


class Transaction:
    """What one operation works on: the repositories, the time, and who is calling.

    Attributes:
        wall_us: UTC microseconds, read once when the transaction began.
        boot_us: Microseconds of the boot clock, read once likewise.
        holder: Gives who reserves: this process, 8 bytes. Called only where it is needed.
        holder_name: Gives what people call a holder.
        woken: Numbers of topics that got ready jobs, with how many; filled by the store.
        soon: Numbers of topics of which something falls due shortly, with in how many microseconds;
            filled by the store.
        gone: Numbers of topics that were cleared away: their waiters have to wait for their names.
        ended: Jobs that were finished, or forgotten before they were; filled by the store. Also
            `caps.room_id`s.
        unseated: Lanes for which something has changed, and the topics of each, in the order of
            the changes; see `operations.flow.groups`. Empty at the end of each operation.
        is_short: Whether there is next to no room left, so that what is finished has to make some
            before its time, and errors are kept short.
    """

    __slots__ = (
        "boot_us",
        "ended",
        "flow",
        "gone",
        "holder",
        "holder_name",
        "is_short",
        "jobs",
        "soon",
        "topics",
        "unseated",
        "wall_us",
        "woken",
    )

    def __init__(
        self,
        jobs: JobRepository,
        topics: TopicRepository,
        flow: FlowRepository,
        wall_us: int,
        boot_us: int,
        holder: Callable[[], bytes],
        holder_name: Callable[[bytes], str],
    ) -> None:
        self.jobs = jobs
        self.topics = topics
        self.flow = flow
        self.wall_us = wall_us
        self.boot_us = boot_us
        self.holder = holder
        self.holder_name = holder_name
        self.woken: dict[int, int] = {}
        self.soon: dict[int, int] = {}
        self.gone: list[int] = []
        self.ended: list[bytes] = []
        self.unseated: dict[int, int] = {}
        self.is_short: Callable[[], bool] = bool  # which is False, as nearly always
