"""The port: what a store promises, in words and types.

A `Store` is operation level. Each method is one atomic operation on a batch: it takes effect
whole or not at all, and when it returns, what it did is as durable as the store was opened to
be. No transaction, cursor or iterator leaves an adapter. Durations go in; the store's own clock
decides what they mean. Policy (backoff, retries, defaults) is decided above and comes in as
plain values.

Rules that hold for every method:

- Answers come by position: the n-th answer is about the n-th job asked for, and a job may be
  named twice in one call.
- A refused call has written nothing.
- Every call of a holder names the token of its reservation; it is checked in the operation.
- A settlement repeated with the same token, while nothing else has touched the job, is `OK` and
  changes nothing. So a caller that got `OutcomeUnknown` may simply call again.
- Ids are 16 bytes here. The text form belongs to the API above.
- Time moves at the head of every writing method, in bounded steps (`advance`).

Errors: `JobqError` and its children only; see `jobq.errors`. `StoreFull` only comes from what
adds jobs, or may make them larger; `QueueFull` and `UniqueConflict` only from what adds jobs.
`StoreUnavailable`, `StoreBusy`, `StoreCorrupt` may come from any method.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from types import TracebackType
from typing import Any, Final, NamedTuple, Protocol, Self

from jobq.clock import utc
from jobq.errors import InvalidValue
from jobq.job import (
    Change,
    JobCopy,
    JobRecord,
    JobSpec,
    Report,
    Reservation,
    Settlement,
    UniqueKey,
)
from jobq.options import UNSET, JobOptions
from jobq.selector import Selector
from jobq.shares import Mix
from jobq.states import Outcome, Status
from jobq.topic import GroupStats, TopicLimits, TopicSettings, TopicStats

DAY_US: Final = 86_400 * 1_000_000


@dataclass(frozen=True, slots=True)
class Retention:
    """How long finished jobs are kept where neither the job nor its topic says so.

    Attributes:
        done_us: Microseconds for done jobs; 0 forgets at once.
        canceled_us: Microseconds for canceled jobs; 0 forgets at once.
        max_done: The most done jobs that a store keeps; those whose time is over soonest go
            first.
    """

    done_us: int = DAY_US
    canceled_us: int = 7 * DAY_US
    max_done: int = 1_000_000

    def keep_us(self, status: Status) -> int:
        """For how long a job that ends as *status* is kept, in microseconds."""
        return self.done_us if status is Status.DONE else self.canceled_us


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What a store can do; callers and tests ask this instead of its class.

    Attributes:
        durable: Jobs outlive the process.
        shared: Several processes may use it at the same time.
        exact_order: Ready jobs come exactly by (weight, order of enqueueing).
        injectable_clock: It was given its clock, rather than using a server's.
    """

    durable: bool
    shared: bool
    exact_order: bool = True
    injectable_clock: bool = True


class ReserveRequest(NamedTuple):
    """Up to *n* jobs of *topic*, or of several; n is at least 1."""

    topic: str | Mix
    n: int


class Settled(NamedTuple):
    """What `settle` did.

    Attributes:
        outcomes: By position: `OK`, `STALE` or `MISSING`.
        follow_ids: By position: the ids of the follow-up jobs that were enqueued.
        reserved: The jobs reserved in the same commit.
    """

    outcomes: list[Outcome]
    follow_ids: list[list[bytes]]
    reserved: list[Reservation]


class Advanced(NamedTuple):
    """What `advance` moved.

    Attributes:
        expired: Reservations that were over, those of poisoned jobs included.
        poisoned: Jobs that were canceled as poison.
        more: Something due may be left for the next step.
    """

    promoted: int = 0
    expired: int = 0
    poisoned: int = 0
    more: bool = False


class Exported(NamedTuple):
    """A page of jobs on their way out.

    Attributes:
        last_place: The last place that the queue had given when the page was read.
    """

    copies: list[JobCopy]
    last_place: int


class Imported(NamedTuple):
    """What `import_jobs` did.

    Attributes:
        outcomes: By position: `OK`, or `CONFLICT` where a job of that id is there already.
        base: To be given to the next call of the same import.
    """

    outcomes: list[Outcome]
    base: int


class CopyProgress(NamedTuple):
    """How far a copy of a queue is.

    Attributes:
        step: `copy`, then `pages` (all of them are verified) and `records` (likewise).
        done: Bytes that were copied, or records that were read, so far; 0 during `pages`.
        total: How many there are; during `copy` nearly.
    """

    step: str
    done: int
    total: int


class Copied(NamedTuple):
    """What a backup, a restoration or a compaction did.

    Attributes:
        path: The file or the directory that it made.
        jobs: How many jobs are in it.
        size: Bytes of the data file that it made.
        before: Bytes of the data file that was there before, or was copied; 0 if there was none.
    """

    path: str
    jobs: int
    size: int
    before: int


class Salvaged(NamedTuple):
    """What can be read out of a damaged store.

    Attributes:
        jobs: How many jobs can be saved.
        lost: How many there are beside these; None if that cannot be known.
        unsure: Of how many that are saved the state is lost, or contradicted by what else is
            there: it may be an old one, and jobs ready again that were done.
        incomplete: How many that are saved have lost their result, history, progress or log.
        problems: What is damaged, in words.
    """

    jobs: int
    lost: int | None
    unsure: int
    incomplete: int
    problems: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """What a look at a queue has found; see `jobq.doctor`.

    Attributes:
        problems: What is wrong, a sentence each; empty if all is well.
        notes: What is good to know, but no damage.
        advice: What to do, in this order.
        facts: What there is to say: `path`, `file_bytes`, `open_in` (processes), and as far as it
            can be read `format`, `jobs`, `topics`, `used_bytes`, `free_bytes`, `readers`, ….
        steps: Which steps were made, in their order, and whether all was well there.
        saved: If anything is damaged: what can be saved of the jobs.
    """

    problems: tuple[str, ...]
    notes: tuple[str, ...]
    advice: tuple[str, ...]
    facts: dict[str, Any]
    steps: dict[str, bool]
    saved: Salvaged | None

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong."""
        return not self.problems


class Exportable(Protocol):
    """What jobs can be exported from: a store, or what is left of one."""

    def topics(self) -> list[str]:
        """The names of its topics."""

    def settings(self, topic: str | None) -> TopicSettings:
        """What is set for a topic, or for the store as a whole."""

    def export_jobs(self, after: bytes | None, limit: int) -> Exported:
        """The first *limit* jobs by id beyond *after*."""


class PurgeFrom(NamedTuple):
    """How far a `purge` has come: what its next step goes on from.

    Attributes:
        seq: The last place that was given in any queue when it began.
        last: The largest id that there was then.
        weight: Ready jobs of lower weights are purged; None when all are.
        id: Jobs up to this id are purged; empty if none is yet.
        group: The group to which that weight belongs, others before it being purged; empty for
            jobs without a group, which come first.
    """

    seq: int
    last: bytes
    weight: int | None
    id: bytes = b""
    group: str = ""


class LookFrom(NamedTuple):
    """How far a walk over jobs has come: what its next step goes on from.

    Attributes:
        seq: The last place that was given in any queue when it began.
        last: The largest id that there was then; empty if there was no job.
        id: Jobs up to this id have been looked at; empty if none has.
    """

    seq: int
    last: bytes
    id: bytes


class Looked(NamedTuple):
    """What a step of `look` saw.

    Attributes:
        ids: The jobs that match, ascending.
        jobs: How many jobs it looked at.
        after: What to give to the next step; None if there is nothing left to look at.
    """

    ids: list[bytes]
    jobs: int
    after: LookFrom | None


class Purged(NamedTuple):
    """What a step of `purge` did.

    Attributes:
        jobs: How many jobs it forgot.
        after: What to give to the next step; None if there is nothing left to do.
    """

    jobs: int
    after: PurgeFrom | None


@dataclass(frozen=True, slots=True)
class Stats:
    """Counts of a store, each topic's from one moment.

    Attributes:
        topics: By name.
        next_due_us: When the next delayed job of the store becomes ready (UTC), whichever topics
            were asked for; None if there is none.
        store: Facts about the store itself: `kind`, and for a file its path, size and such; and
            its settings as a whole, those that are set.
    """

    topics: tuple[TopicStats, ...]
    next_due_us: int | None = None
    store: dict[str, int | str] = field(default_factory=dict)

    @property
    def totals(self) -> TopicStats:
        """All topics together, under the name `*`."""
        counted = [status.value for status in Status] + ["bytes", "running", "groups"]
        sums = {name: sum(getattr(topic, name) for topic in self.topics) for name in counted}
        paused = bool(self.topics) and all(topic.paused for topic in self.topics)
        return TopicStats("*", **sums, paused=paused)

    @property
    def next_due(self) -> datetime | None:
        """When the next delayed job becomes ready; None if there is none."""
        return None if self.next_due_us is None else utc(self.next_due_us)


@dataclass(frozen=True, slots=True)
class CheckReport:
    """What `check` found.

    Attributes:
        jobs: How many jobs were looked at.
        problems: What is wrong, one sentence each; at most `MOST_PROBLEMS`, empty if all is well.
            After a repair: what still is.
        repaired: What was wrong before a repair and no longer is, likewise.
    """

    MOST_PROBLEMS = 1000

    jobs: int
    problems: tuple[str, ...] = ()
    repaired: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong, or nothing is any more."""
        return not self.problems


class Store(ABC):
    """Jobs and topics behind atomic operations. See the module for the rules of all of them."""

    capabilities: Capabilities

    @abstractmethod
    def enqueue(self, specs: Sequence[JobSpec]) -> list[bytes]:
        """Add the jobs, all or none, and give their ids in the same order.

        Each id is larger than every one that this store has given before. Jobs without a delay
        are ready, behind all jobs of their topic and weight; the others are delayed. For a job
        whose unique key another one has, the id of that one is given, which is left as it is or
        becomes what the new one would be, as `JobOptions.on_conflict` says.

        Raises:
            StoreFull: No room; nothing was added.
            QueueFull: A topic, or the store, has as many jobs waiting as its settings allow, or
                is draining. `rooms` tells when there may be room.
            UniqueConflict: Another job has a unique key, and that was to be refused.
        """

    @abstractmethod
    def reserve(self, request: ReserveRequest) -> list[Reservation]:
        """Hand out up to n ready jobs of one topic, lowest weight first, then oldest place first.

        Of several topics they come in the order of turns: by shares as `jobq.stride` has it, with
        passes that all callers of the store share; a strict mix drains one topic after the other.
        What a topic cannot give, others do.

        Never blocks for jobs: the list is empty when none is ready. Each job is the caller's
        until it is settled, its lease is over, or this process is dead.
        """

    @abstractmethod
    def settle(
        self, settlements: Sequence[Settlement], reserve: ReserveRequest | None = None
    ) -> Settled:
        """Settle jobs that the caller holds, and reserve anew, in one commit.

        A settlement that is not `OK` changes nothing and leaves the others standing. Follow-up
        jobs are enqueued only with a settlement that took effect now, not with a repeated one.

        Raises:
            StoreFull: There are follow-up jobs and no room for them; nothing was settled.
        """

    @abstractmethod
    def extend(self, holds: Sequence[tuple[bytes, int, int]]) -> list[Outcome]:
        """Let each lease end the given time from now: (id, token, microseconds).

        Outcomes: `OK`, `STALE`, `MISSING`.
        """

    @abstractmethod
    def report(self, reports: Sequence[Report]) -> list[Outcome]:
        """Keep log lines and progress of jobs that the caller holds, or has settled itself.

        The newest lines of each job are kept within the bounds of `JobRecord.log`, the others
        counted. Outcomes: `OK`; `STALE` when somebody else has touched the job since, then
        nothing of it is kept; `MISSING`.

        Raises:
            StoreFull: No room; nothing was kept.
        """

    @abstractmethod
    def holds(self, job_id: bytes, token: int) -> bool:
        """Whether the job is still held under *token* and its lease is not over."""

    @abstractmethod
    def cancel(
        self, ids: Sequence[bytes], error: str | None = None, where: Selector | None = None
    ) -> list[Outcome]:
        """Cancel ready, delayed and reserved jobs, whoever holds them.

        Outcomes: `OK`, `MISSING`, `INVALID` (finished already). A job named twice is `MISSING` the
        second time if it is not kept, else `INVALID`.

        With *where*, here and in the other verbs that have it, a job that does not match when its
        turn comes is `INVALID`, and left as it is.
        """

    @abstractmethod
    def reset(
        self, ids: Sequence[bytes], where: Selector | None = None, ends: JobOptions = UNSET
    ) -> list[Outcome]:
        """Make finished jobs ready again, at the back of their weight, with fresh counts.

        Retries and crashes start at 0, the result and the error are cleared; attempt and token
        go on counting. A deadline, and a time to live, are those that are given, or none: what the
        job had was of then. The earliest holds: the deadline of *ends*, its ttl from now, or that
        of the settings of its topic, as for a job that is enqueued now. Outcomes: `OK`, `MISSING`,
        `INVALID` (not finished), `CONFLICT` (another job has its unique key).

        Raises:
            StoreFull: There is no room for the new deadlines; nothing was changed.
        """

    @abstractmethod
    def delete(self, ids: Sequence[bytes], where: Selector | None = None) -> list[Outcome]:
        """Forget jobs that nobody holds. Outcomes: `OK`, `MISSING`, `INVALID` (reserved).

        A job whose records are damaged is forgotten too. That takes as long as a repair, for it is
        one: `StoreCorrupt` if it cannot be made.
        """

    @abstractmethod
    def purge(
        self, topic: str, statuses: frozenset[Status], after: PurgeFrom | None, limit: int
    ) -> Purged:
        """One step of forgetting a topic's jobs in these *statuses*, which cannot be reserved.

        Called with None first, then with what the step before gave, until that is None. A step
        looks at no more than *limit* jobs. All jobs that were in the topic when the first step
        began are forgotten, save those that change their state while it goes on, which may be.
        Jobs that come to the topic later stay. The topic stays too, with its settings.
        """

    @abstractmethod
    def edit(
        self, ids: Sequence[bytes], change: Change, where: Selector | None = None
    ) -> list[Outcome]:
        """Change jobs that wait: ready and delayed ones.

        Where a job stands changes only as far as it must. Another topic gives it a new place at
        the back of its weight there; jobs that come together keep the order of *ids*. A job that
        is in the topic already stays in its place, and so does every job that only gets another
        weight, payload or options. A delayed job stays delayed until its old time, unless a delay
        is given. A job named twice is edited once. Outcomes: `OK`, `MISSING`, `INVALID` (reserved
        or finished).

        Raises:
            StoreFull: There is a payload or an option, and no room; nothing was changed.
        """

    @abstractmethod
    def configure(self, topic: str | None, changes: Mapping[str, Any]) -> TopicSettings:
        """Change settings of a topic (None: of the store as a whole), and give all of them.

        *changes* are checked values of fields of `TopicSettings`, for the store only those in
        `STORE_SETTINGS`; None unsets one, and those not named stay. A topic that does not exist
        yet is made if anything is set. Settings hold for everybody at once, and whoever waits for
        jobs or for room is woken if they may let something go that could not before. How long
        jobs are kept is decided when they finish. No room for new jobs is no reason to refuse it.

        Raises:
            InvalidValue: They do not go together with those that are there.
        """

    @abstractmethod
    def release_keys(self, keys: Sequence[str]) -> list[Outcome]:
        """Let nobody have these unique keys; the jobs that had them go on without.

        Outcomes: `OK`, `MISSING` (nobody has it).
        """

    @abstractmethod
    def release_groups(self, topic: str, groups: Sequence[str]) -> list[Outcome]:
        """End what lingers of these groups' canceled jobs, and let their rates begin anew.

        Outcomes: `OK`, `MISSING` (the group has no job to serve, and no rate to remember).
        """

    @abstractmethod
    def release_limits(self, topic: str) -> int:
        """End all that lingers of a topic's canceled jobs, and let its rate begin anew.

        Gives how many holds have ended. The rates of groups stay.
        """

    @abstractmethod
    def advance(self, limit: int = 1000) -> Advanced:
        """Promote delayed jobs that are due, and expire leases, at most about *limit* of each.

        A lease is over when its time has passed or its holder's process is dead. An expired job
        is ready at once in its old place, or canceled as poison when its crashes exceed its
        `max_crashes`. Runs at the head of every writing method too.
        """

    @abstractmethod
    def prune(self, limit: int = 1000) -> int:
        """Forget at most *limit* finished jobs whose retention is over; give how many.

        Topics that are not listed any more are cleared away too.
        """

    @abstractmethod
    def wait(self, topic: str | Mix, timeout: float) -> None:
        """Return when a job of *topic* may be ready, or something falls due, or *timeout* is over.

        A hint: it may return early for no reason and never sleeps longer than *timeout* seconds.
        It does return without delay when a commit of any process makes a job of the topic ready,
        or of one of several; also of one that is made by that commit.
        """

    @abstractmethod
    def wait_ended(self, seen: dict[bytes, int | None], timeout: float) -> list[bytes]:
        """Return when one of the jobs may have ended, or *timeout* seconds are over.

        A job ends when it is done, canceled or forgotten. A hint, as `wait` is: the jobs that are
        returned may have ended since the call before and have to be looked at, and one that is
        not returned may have ended too if a process was killed at an unlucky moment. So look at
        all of them now and then.

        Args:
            seen: The jobs, each with what the store noted of it at the last call; None for one
                that has not been asked for yet, which is returned at once. Updated in place: one
                that may have ended is None again, and returned once more by the next call.
                Another thread may add a job to it meanwhile, and call `wake` then.
            timeout: Seconds to sleep at most. It never sleeps longer than one second, and sees
                to it that time moves: what falls due and what dead processes hold is looked
                after, so a process that only waits sees poisoned jobs end.

        Returns:
            The jobs that may have ended, in the order of *seen*; often none when it ended for
            another reason (time, `wake`, a signal).
        """

    @abstractmethod
    def rooms(self, topics: Collection[str]) -> list[bytes]:
        """What stands in `wait_ended`, like ids of jobs, for: there may be room for new jobs.

        In these topics, or in the store as a whole. To be asked for anew now and then: a topic
        that did not exist has one when it does.
        """

    @abstractmethod
    def emptied(self, topic: str | None) -> list[bytes]:
        """What stands in `wait_ended` for: nothing unfinished may be left, see `unfinished`.

        Only while the topic (None: the store as a whole) is draining does anybody tell that.
        """

    @abstractmethod
    def wake(self) -> None:
        """Make every `wait` and `wait_ended` of this process return now."""

    @abstractmethod
    def status(self, ids: Sequence[bytes]) -> list[Status | None]:
        """Each job's status; None where there is no such job."""

    @abstractmethod
    def get(self, ids: Sequence[bytes]) -> list[JobRecord | None]:
        """Each job's whole record; None where there is no such job."""

    @abstractmethod
    def with_keys(self, keys: Sequence[str]) -> list[JobRecord | None]:
        """The whole records of the jobs that have these unique keys.

        None where nobody has it, or its job is forgotten.
        """

    @abstractmethod
    def find(self, selector: Selector, after: bytes | None, limit: int) -> list[JobRecord]:
        """The first *limit* matching jobs by id, those beyond *after*; filters come before limit.

        Ids grow in the order of enqueueing. A page is consistent in itself; a job that changes
        between two pages is on none or one of them. A job that cannot be read is on none; the log
        names it, and so does `check`.
        """

    @abstractmethod
    def look(self, selector: Selector, after: LookFrom | None, limit: int) -> Looked:
        """One step of a walk over all jobs, for the ids of those that match.

        Called with None first, then with what the step before gave, until that is None. A step
        looks at no more than *limit* jobs; 0 looks at none, and gives where a walk begins that is
        to see the jobs of now. Jobs that are enqueued after the walk began are not seen.
        """

    @abstractmethod
    def ids(self, after: bytes | None, limit: int) -> list[bytes]:
        """The first *limit* ids in order, those beyond *after*; reads nothing but ids."""

    @abstractmethod
    def topics(self) -> list[str]:
        """The names of all topics that have jobs or settings, or had some an hour ago, sorted.

        A topic that is not listed any more is as one that never was.
        """

    @abstractmethod
    def settings(self, topic: str | None) -> TopicSettings:
        """The settings of a topic (None: of the store as a whole).

        Those of an unknown topic are all unset.
        """

    @abstractmethod
    def unfinished(self, topic: str | None) -> int:
        """How many jobs of a topic (None: of the store) are neither done nor canceled."""

    @abstractmethod
    def keys(self, after: str | None, limit: int) -> list[UniqueKey]:
        """The first *limit* unique keys that are taken, beyond *after*, by their UTF-8 bytes."""

    @abstractmethod
    def groups(self, topic: str, after: str | None, limit: int) -> list[GroupStats]:
        """The first *limit* groups of a topic beyond *after*, by the UTF-8 bytes of their names.

        Those that have jobs which are ready or running, or a rate to remember.
        """

    @abstractmethod
    def limits(self, topic: str | None) -> TopicLimits:
        """What limits a topic (None: the store as a whole), and how near it is to that."""

    @abstractmethod
    def stats(self, topic: str | None = None) -> Stats:
        """Counts of one topic, or of all that `topics` lists, without scanning.

        An unknown topic counts nothing.
        """

    @abstractmethod
    def export_jobs(self, after: bytes | None, limit: int) -> Exported:
        """The first *limit* jobs by id beyond *after*, with all that is known of them.

        A page is consistent in itself, and each job is on one page at most.
        """

    @abstractmethod
    def import_jobs(self, copies: Sequence[JobCopy], last_place: int, base: int | None) -> Imported:
        """Add jobs that were exported, with their ids, states and history, all or none.

        Their order among one another is kept; they stand behind the jobs that were there when
        the import began, and before those that come after it. *last_place* is what the export's
        first page said, in every call of one import; *base* is what the first call gave, and None
        there. Jobs of one import differ in their places. Those whose places lie more than 2**32
        beyond *last_place* stand at the back. Ids that are given later need not be larger than
        theirs.

        Raises:
            StoreFull: No room, or *last_place* is more than there are places left; nothing was
                added.
        """

    @abstractmethod
    def check(self, *, repair: bool = False) -> CheckReport:
        """Compare every job with every index and counter. Reads everything; changes nothing.

        With *repair*, and if anything is wrong, all queues, agendas and counts are made anew out of
        the jobs, in one commit. Jobs are not changed: one that cannot be read is left out, so that
        it does not stop its topic, and stays reported. Where that cannot be done because the engine
        does not come by all that is kept of jobs, nothing is written, and a problem says so.
        """

    def backup(
        self,
        path: str,
        progress: Callable[[CopyProgress], object] | None = None,
    ) -> Copied:
        """Copy the whole store, as it is at one moment, to the new file *path*, while it is used.

        Raises:
            InvalidValue: There is something at *path* already; or a store of this kind has
                nothing that outlives it.
            StoreFull: No room for the copy.
        """
        raise InvalidValue(
            "this store is volatile, so it cannot be backed up: export_jobs() gives its jobs"
        )

    @abstractmethod
    def close(self) -> None:
        """Let go of its resources; jobs stay as they are. Twice is harmless.

        Every later call raises `StoreUnavailable`.
        """

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()
