"""The port as a plain model: what a store must answer, in ordinary lists and dicts.

It is written from the words of the design and of `jobq.repo.base`, slow and obvious: every
question goes through all jobs, nothing is indexed, counted or cached. Jobs are numbered 0, 1, 2, …
in the order in which they were enqueued, and the reservations of a job 1, 2, 3, …; a store's own
ids and tokens are translated to these by whoever compares the two.

Where the words leave the order of equals open (jobs that fall due in the same microsecond), the
model takes those first that came to wait first; where they do not say which finished jobs a limit
lets go first, it takes the done ones before the canceled ones. Every store so far does the same.
"""

import itertools
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import wraps
from typing import Any, Concatenate, Final, NamedTuple, ParamSpec, Protocol, TypeVar

from jobq.clock import Clock
from jobq.errors import InvalidValue
from jobq.job import Attempt, Change, JobRecord, JobSpec, LogLine, Progress
from jobq.options import DEFAULTS, JobOptions
from jobq.repo.base import Retention
from jobq.repo.repositories import IDLE_US
from jobq.selector import Selector
from jobq.states import FINISHED, Event, Outcome, Reason, Status
from jobq.topic import NO_SETTINGS, TopicSettings, TopicStats

P = ParamSpec("P")
T = TypeVar("T")

STEP: Final = 256
"""How many due jobs of each kind a writing verb moves on its way."""

RECOVERY: Final = 1000
"""How many jobs of dead holders are taken back at once; stories stay below."""

SOMEBODY: Final = "somebody"
"""The holder of every reserved job: who it is differs from store to store."""

UNFINISHED: Final = frozenset(Status) - FINISHED
WAITING: Final = UNFINISHED - {Status.RESERVED}


class Tell(NamedTuple):
    """What a holder tells of its work: a `Report` in the model's numbers."""

    job: int
    token: int
    lines: tuple[tuple[int, str], ...] = ()
    progress: tuple[float, float | None, str | None, int] | None = None
    dropped: int = 0


class Bounds(NamedTuple):
    """How much is kept of a job's past."""

    attempts: int = 100
    lines: int = 1000
    bytes: int = 64 * 1024


class Say(NamedTuple):
    """What a holder says of a job: a `Settlement` in the model's numbers."""

    job: int
    token: int
    event: Event
    delay_us: int | None = 0
    keep_us: int | None = None
    result: bytes | None = None
    error: str | None = None
    reason: Reason | None = None
    follow: tuple[JobSpec, ...] = ()
    tell: Tell | None = None


class Handed(NamedTuple):
    """A `Reservation` in the model's numbers."""

    job: int
    token: int
    topic: str
    weight: int
    attempt: int
    retries: int
    crashes: int
    lease_us: int
    options: JobOptions
    payload: bytes


class Said(NamedTuple):
    """A `Settled` in the model's numbers."""

    outcomes: list[Outcome]
    follow: list[list[int]]
    reserved: list[Handed]


class Moved(NamedTuple):
    """An `Advanced`; `more` may also be said when the limit was just reached."""

    promoted: int
    expired: int
    poisoned: int
    more: bool


class Counted(NamedTuple):
    """What `stats` says of jobs."""

    topics: tuple[TopicStats, ...]
    next_due_us: int | None


class Port(Protocol):
    """What a story can be told to: the model, and every store in the model's numbers."""

    def enqueue(self, specs: Sequence[JobSpec]) -> list[int]: ...
    def reserve(self, topic: str, n: int) -> list[Handed]: ...
    def settle(self, says: Sequence[Say], reserve: tuple[str, int] | None = None) -> Said: ...
    def extend(self, holds: Sequence[tuple[int, int, int]]) -> list[Outcome]: ...
    def report(self, tells: Sequence[Tell]) -> list[Outcome]: ...
    def holds(self, job: int, token: int) -> bool: ...
    def cancel(
        self, jobs: Sequence[int], error: str | None = None, where: Selector | None = None
    ) -> list[Outcome]: ...
    def reset(self, jobs: Sequence[int], where: Selector | None = None) -> list[Outcome]: ...
    def delete(self, jobs: Sequence[int], where: Selector | None = None) -> list[Outcome]: ...
    def advance(self, limit: int) -> Moved: ...
    def prune(self, limit: int) -> int: ...
    def status(self, jobs: Sequence[int]) -> list[Status | None]: ...
    def get(self, jobs: Sequence[int]) -> list[JobRecord | None]: ...
    def find(self, selector: Selector, after: int | None, limit: int) -> list[JobRecord]: ...
    def purge(self, topic: str, statuses: frozenset[Status], limit: int) -> int: ...
    def edit(
        self, jobs: Sequence[int], change: Change, where: Selector | None = None
    ) -> list[Outcome]: ...
    def configure(self, topic: str, changes: Mapping[str, Any]) -> TopicSettings: ...
    def settings(self, topic: str) -> TopicSettings: ...
    def topics(self) -> list[str]: ...
    def stats(self, topic: str | None = None) -> Counted: ...
    def reopen(self) -> None: ...


@dataclass
class Job:
    """One job of the model.

    Attributes:
        number: 0, 1, 2, … in the order of enqueueing.
        place: Where it stands among the jobs of its weight; the lowest is served first.
        said: What its last holder said of it, unless anybody has touched it since.
        until_us: When it is due, when its lease is over (boot clock), or when it may be
            forgotten; only the status tells which.
        since: Grows with whatever begins to wait; tells equals apart.
        listed: It was done while its topic had a limit for done jobs.
    """

    number: int
    topic: str
    weight: int
    place: int
    options: JobOptions
    payload: bytes
    created_us: int
    status: Status = Status.READY
    reason: Reason | None = None
    said: Event | None = None
    attempt: int = 0
    token: int = 0
    retries: int = 0
    crashes: int = 0
    resets: int = 0
    error: str | None = None
    result: bytes | None = None
    until_us: int = 0
    since: int = 0
    listed: bool = False
    reserved_us: int | None = None
    ended_us: int | None = None
    past: list[Attempt] = field(default_factory=list)
    past_dropped: int = 0
    progress: Progress | None = None
    log: list[LogLine] = field(default_factory=list)
    log_dropped: int = 0


def writes(verb: Callable[Concatenate["Model", P], T]) -> Callable[Concatenate["Model", P], T]:
    """A verb that writes: what it did may fill topics, and may empty some."""

    @wraps(verb)
    def told(self: "Model", /, *args: P.args, **kwargs: P.kwargs) -> T:
        answer = verb(self, *args, **kwargs)
        self._look_at_topics()
        return answer

    return told


class Model:
    """A queue of which every answer is obvious.

    Args:
        clock: The clock that the stores have.
        retention: The retention that the stores have.
        step: How many due jobs of each kind a writing verb moves on its way.
        bounds: How much is kept of a job's past.

    Attributes:
        enqueued: How many jobs there ever were: the number of the next one.
    """

    def __init__(
        self, clock: Clock, retention: Retention, step: int = STEP, bounds: Bounds | None = None
    ) -> None:
        self._clock = clock
        self._retention = retention
        self._step = step
        self._bounds = bounds or Bounds()
        self.enqueued = 0
        self._jobs: dict[int, Job] = {}
        self._topics: dict[str, int | None] = {}  # since when they have had no job
        self._forgettable: set[str] = set()
        self._settings: dict[str, TopicSettings] = {}
        self._places = itertools.count()
        self._ticks = itertools.count()

    # What anybody does.

    @writes
    def enqueue(self, specs: Sequence[JobSpec]) -> list[int]:
        self._let_time_pass()
        return [self._add(spec) for spec in specs]

    @writes
    def cancel(
        self, jobs: Sequence[int], error: str | None = None, where: Selector | None = None
    ) -> list[Outcome]:
        self._let_time_pass()
        outcomes, ended = [], []
        for job in map(self._jobs.get, jobs):
            if job is None:
                outcomes.append(Outcome.MISSING)
            elif job.status in FINISHED:
                forgotten = job in ended and job.until_us == job.ended_us
                outcomes.append(Outcome.MISSING if forgotten else Outcome.INVALID)
            elif not self._meant(where, job):
                outcomes.append(Outcome.INVALID)
            else:
                job.said = None
                job.error = job.error if error is None else error
                if job.status is Status.RESERVED:
                    self._remember(job, Event.CANCEL, error)
                self._end(job, Status.CANCELED, Reason.CANCELED, _retention(job.options))
                ended.append(job)
                outcomes.append(Outcome.OK)
        self._tidy_after(ended)
        return outcomes

    @writes
    def reset(self, jobs: Sequence[int], where: Selector | None = None) -> list[Outcome]:
        self._let_time_pass()
        outcomes = []
        for job in map(self._jobs.get, jobs):
            if job is None:
                outcomes.append(Outcome.MISSING)
            elif job.status not in FINISHED or not self._meant(where, job):
                outcomes.append(Outcome.INVALID)
            else:
                job.status = Status.READY
                job.listed = False
                job.place = next(self._places)
                job.retries = job.crashes = 0
                job.resets += 1
                job.reason = job.said = job.result = job.error = job.ended_us = None
                job.progress = None
                outcomes.append(Outcome.OK)
        return outcomes

    @writes
    def delete(self, jobs: Sequence[int], where: Selector | None = None) -> list[Outcome]:
        self._let_time_pass()
        outcomes = []
        for number in jobs:
            job = self._jobs.get(number)
            if job is None:
                outcomes.append(Outcome.MISSING)
            elif job.status is Status.RESERVED or not self._meant(where, job):
                outcomes.append(Outcome.INVALID)
            else:
                del self._jobs[number]
                outcomes.append(Outcome.OK)
        return outcomes

    @writes
    def purge(self, topic: str, statuses: frozenset[Status], limit: int) -> int:
        """All steps of it: nobody else comes between them, so they do not show."""
        assert limit > 0
        self._let_time_pass()
        gone = [job for job in self._jobs.values() if job.topic == topic and job.status in statuses]
        self._forget(gone)
        return len(gone)

    @writes
    def edit(
        self, jobs: Sequence[int], change: Change, where: Selector | None = None
    ) -> list[Outcome]:
        self._let_time_pass()
        outcomes = []
        edited: set[int] = set()
        for number in jobs:
            job = self._jobs.get(number)
            if job is None:
                outcomes.append(Outcome.MISSING)
            elif job.status not in WAITING or (
                number not in edited and not self._meant(where, job)
            ):
                outcomes.append(Outcome.INVALID)
            else:
                outcomes.append(Outcome.OK)
                if number not in edited:
                    self._edit(job, change)
                edited.add(number)
        return outcomes

    def _edit(self, job: Job, change: Change) -> None:
        job.said = None
        if change.topic not in (None, job.topic):
            job.topic = str(change.topic)
            job.place = next(self._places)
        if change.weight is not None:
            job.weight = change.weight
        if change.payload is not None:
            job.payload = change.payload
        job.options = replace(job.options, **change.options)
        if change.delay_us is not None:
            self._wait(job, change.delay_us)

    @writes
    def configure(self, topic: str, changes: Mapping[str, Any]) -> TopicSettings:
        self._let_time_pass()
        new = self.settings(topic).changed(changes)
        if new != self.settings(topic):
            self._topics[topic] = self._clock.wall_us()  # or `_look_at_topics` finds a job
            self._settings[topic] = new
        return new

    # What holders do.

    @writes
    def reserve(self, topic: str, n: int) -> list[Handed]:
        self._let_time_pass()
        return self._hand_out(topic, n)

    @writes
    def settle(self, says: Sequence[Say], reserve: tuple[str, int] | None = None) -> Said:
        if any(say.event not in SETTLEMENTS for say in says):
            raise InvalidValue("this is no settlement")
        self._let_time_pass()
        outcomes, ended, follow = [], [], []
        for say in says:
            job = self._jobs.get(say.job)
            if job is None:
                outcomes.append(Outcome.MISSING)
            elif self.holds(say.job, say.token):
                outcomes.append(Outcome.OK)
                self._settle(job, say)
                if job.status in FINISHED:
                    ended.append(job)
                follow.append(say.follow)
                continue
            elif job.token == say.token and job.said is say.event:
                outcomes.append(Outcome.OK)  # repeated, and nothing happened in between
            else:
                outcomes.append(Outcome.STALE)
            follow.append(())
        self._tidy_after(ended)
        new = [[self._add(spec) for spec in specs] for specs in follow]
        return Said(outcomes, new, self._hand_out(*reserve) if reserve else [])

    def _settle(self, job: Job, say: Say) -> None:
        job.said = say.event
        job.error = job.error if say.error is None else say.error
        self._remember(job, say.event, say.error)
        if say.tell is not None:
            self._keep(job, say.tell)
        match say.event:
            case Event.DONE:
                job.result = say.result
                self._end(job, Status.DONE, None, say.keep_us)
            case Event.CANCEL:
                self._end(job, Status.CANCELED, say.reason or Reason.CANCELED, say.keep_us)
            case Event.RETRY if say.delay_us is None:
                self._end(job, Status.CANCELED, Reason.EXHAUSTED, say.keep_us)
            case Event.RETRY:
                job.retries += 1
                self._wait(job, say.delay_us or 0)
            case Event.RELEASE:
                job.attempt -= 1
                self._wait(job, say.delay_us or 0)

    @writes
    def extend(self, holds: Sequence[tuple[int, int, int]]) -> list[Outcome]:
        self._let_time_pass()
        outcomes = []
        ends: dict[int, int] = {}
        for number, token, lease_us in holds:
            if number not in self._jobs:
                outcomes.append(Outcome.MISSING)
            elif not self.holds(number, token):
                outcomes.append(Outcome.STALE)
            else:
                outcomes.append(Outcome.OK)
                ends[number] = self._clock.boot_us() + lease_us  # the last word counts
        for number, end_us in ends.items():
            self._jobs[number].until_us = end_us
            self._jobs[number].since = next(self._ticks)
        return outcomes

    @writes
    def report(self, tells: Sequence[Tell]) -> list[Outcome]:
        self._let_time_pass()
        outcomes = []
        for tell in tells:
            job = self._jobs.get(tell.job)
            if job is None:
                outcomes.append(Outcome.MISSING)
            elif self.holds(tell.job, tell.token) or (job.token == tell.token and job.said):
                self._keep(job, tell)
                outcomes.append(Outcome.OK)
            else:
                outcomes.append(Outcome.STALE)
        return outcomes

    def _keep(self, job: Job, tell: Tell) -> None:
        now_us = self._clock.wall_us()
        if tell.progress is not None:
            done, total, text, age_us = tell.progress
            job.progress = Progress(done, total, text, now_us - age_us)
        job.log += [LogLine(now_us - age_us, text) for age_us, text in tell.lines]
        job.log_dropped += tell.dropped
        while (
            len(job.log) > self._bounds.lines
            or sum(len(line.text.encode()) for line in job.log) > self._bounds.bytes
        ):
            job.log.pop(0)
            job.log_dropped += 1

    def _remember(self, job: Job, event: Event, error: str | None) -> None:
        now_us, reserved_us = self._clock.wall_us(), job.reserved_us or 0
        job.past.append(Attempt(job.attempt, event, SOMEBODY, reserved_us, now_us, error))
        if len(job.past) > self._bounds.attempts:
            job.past.pop(0)
            job.past_dropped += 1

    def holds(self, job: int, token: int) -> bool:
        held = self._jobs.get(job)
        return (
            held is not None
            and held.status is Status.RESERVED
            and held.token == token
            and held.until_us > self._clock.boot_us()
        )

    # What time does.

    @writes
    def advance(self, limit: int) -> Moved:
        promoted = self._promote(limit)
        over = self._over()
        poisoned = self._expire(over[:limit])
        more = bool(self._due() or self._over())
        return Moved(promoted, min(limit, len(over)), poisoned, more)

    @writes
    def prune(self, limit: int) -> int:
        """Forget finished jobs: those that their topic has too many of, those whose time is over,
        then done ones that are too many for the store.
        """
        return self._prune(limit, self._topics)

    def _prune(self, limit: int, topics: Iterable[str]) -> int:
        beyond = self._beyond(topics)[:limit]
        self._forget(beyond)
        limit -= len(beyond)
        late = [
            job
            for status in (Status.DONE, Status.CANCELED)
            for job in self._waiting(status)
            if job.until_us <= self._clock.wall_us()
        ][:limit]
        self._forget(late)
        done = self._waiting(Status.DONE)
        too_many = done[: max(0, min(len(done) - self._retention.max_done, limit - len(late)))]
        self._forget(too_many)
        return len(beyond) + len(late) + len(too_many)

    def _beyond(self, topics: Iterable[str]) -> list[Job]:
        """The listed jobs of these topics that are too many, the first ones, topic by topic."""
        found = []
        for name in sorted(topics):
            most = self.settings(name).max_done
            listed = [job for job in self._jobs.values() if job.listed and job.topic == name]
            if most is not None:
                listed.sort(key=lambda job: job.since)
                found += listed[: max(0, len(listed) - most)]
        return found

    @writes
    def reopen(self) -> None:
        """Time moves, and the holders of all reserved jobs are dead: these are ready, or poison."""
        self.advance(RECOVERY)
        self._expire(self._waiting(Status.RESERVED)[:RECOVERY])

    def _let_time_pass(self) -> None:
        """The bounded step at the head of every writing verb."""
        self._promote(self._step)
        self._expire(self._over()[: self._step])

    def _promote(self, limit: int) -> int:
        due = self._due()[:limit]
        for job in due:
            job.status = Status.READY
        return len(due)

    def _expire(self, jobs: Iterable[Job]) -> int:
        poisoned = []
        for job in jobs:
            job.crashes += 1
            self._remember(job, Event.EXPIRE, None)
            most = job.options.max_crashes
            most = DEFAULTS.max_crashes if most is None else most
            if most and job.crashes > most:
                self._end(job, Status.CANCELED, Reason.POISON, _retention(job.options))
                poisoned.append(job)
            else:
                job.status = Status.READY
        self._tidy_after(poisoned)
        return len(poisoned)

    def _due(self) -> list[Job]:
        delayed = self._waiting(Status.DELAYED)
        return [job for job in delayed if job.until_us <= self._clock.wall_us()]

    def _over(self) -> list[Job]:
        reserved = self._waiting(Status.RESERVED)
        return [job for job in reserved if job.until_us <= self._clock.boot_us()]

    # What anybody may read.

    def status(self, jobs: Sequence[int]) -> list[Status | None]:
        return [None if record is None else record.status for record in self.get(jobs)]

    def get(self, jobs: Sequence[int]) -> list[JobRecord | None]:
        return [self._record(self._jobs[job]) if job in self._jobs else None for job in jobs]

    def find(self, selector: Selector, after: int | None, limit: int) -> list[JobRecord]:
        return [
            replace(self._record(job), log=(), log_dropped=0)
            for number, job in sorted(self._jobs.items())
            if self._meant(selector, job) and (after is None or number > after)
        ][:limit]

    def _meant(self, where: Selector | None, job: Job) -> bool:
        """Whether a job has all that is asked for."""
        if where is None:
            return True
        dead = job.status is Status.CANCELED and job.reason is not Reason.CANCELED
        asked = (
            (where.topic, job.topic),
            (where.name, job.options.name),
            (where.group, job.options.group),
            (where.unique, job.options.unique),
            (where.dead, dead),
        )
        age_us = self._clock.wall_us() - job.created_us
        return (
            job.status in where.statuses
            and all(wanted in (None, has) for wanted, has in asked)
            and all(tag in (job.options.tags or ()) for tag in where.tags)
            and (where.reasons is None or job.reason in where.reasons)
            and (where.error is None or where.error in (job.error or ""))
            and (where.older_than_us is None or age_us >= where.older_than_us)
        )

    def settings(self, topic: str) -> TopicSettings:
        return self._settings.get(topic, NO_SETTINGS)

    def topics(self) -> list[str]:
        return sorted(name for name in self._topics if not self._is_idle(name))

    def forgettable(self) -> set[str]:
        """Topics that were idle at some time, so that a store may have forgotten them for good.

        When it does is its own affair. It shows only when the wall clock steps back: then one that
        is not forgotten is listed again.
        """
        return self._forgettable

    def stats(self, topic: str | None = None) -> Counted:
        counted = []
        for name in self.topics() if topic is None else [topic]:
            jobs = [job for job in self._jobs.values() if job.topic == name]
            counts = Counter(job.status for job in jobs)
            waiting = [job for job in jobs if job.status in {Status.READY, Status.DELAYED}]
            stats = TopicStats(
                name,
                **{status.value: counts[status] for status in Status},
                bytes=sum(len(job.payload) for job in waiting),
                running=counts[Status.RESERVED],
                paused=False,
            )
            counted.append(stats)
        delayed = self._waiting(Status.DELAYED)
        return Counted(tuple(counted), delayed[0].until_us if delayed else None)

    # What a story wants to know of its own past.

    def numbers(self, *statuses: Status) -> list[int]:
        """The jobs in one of these states, by number."""
        return [number for number, job in sorted(self._jobs.items()) if job.status in statuses]

    def held(self) -> list[tuple[int, int]]:
        """Job and token of each reservation, whether its lease is over or not."""
        return [(job.number, job.token) for job in self._waiting(Status.RESERVED)]

    def next_us(self, status: Status) -> int | None:
        """When the first job in *status* is due, over, or may be forgotten."""
        waiting = self._waiting(status)
        return waiting[0].until_us if waiting else None

    def last_us(self, status: Status) -> int | None:
        """When the last job in *status* is due, over, or may be forgotten."""
        waiting = self._waiting(status)
        return waiting[-1].until_us if waiting else None

    # Small things.

    def _look_at_topics(self) -> None:
        """What every writing verb leaves: which topics have jobs, and which have none from now."""
        for job in self._jobs.values():
            self._topics[job.topic] = None
            self._forgettable.discard(job.topic)
        having = {job.topic for job in self._jobs.values()}
        for name, since_us in self._topics.items():
            if name not in having and since_us is None:
                self._topics[name] = self._clock.wall_us()
            if self.settings(name) != NO_SETTINGS:
                self._forgettable.discard(name)
            elif self._is_idle(name):
                self._forgettable.add(name)

    def _is_idle(self, name: str) -> bool:
        since_us = self._topics[name]
        return (
            since_us is not None
            and since_us + IDLE_US <= self._clock.wall_us()
            and self.settings(name) == NO_SETTINGS
        )

    def _add(self, spec: JobSpec) -> int:
        job = Job(
            self.enqueued, spec.topic, spec.weight, next(self._places),
            spec.options, spec.payload, self._clock.wall_us(),
        )  # fmt: skip
        self._wait(job, spec.delay_us)
        self.enqueued += 1
        self._jobs[job.number] = job
        return job.number

    def _hand_out(self, topic: str, n: int) -> list[Handed]:
        ready = [
            job for job in self._jobs.values() if job.topic == topic and job.status is Status.READY
        ]
        handed = []
        for job in sorted(ready, key=lambda job: (job.weight, job.place))[:n]:
            lease = job.options.lease if job.options.lease is not None else DEFAULTS.lease
            assert lease is not None
            lease_us = round(lease * 1_000_000)
            job.status = Status.RESERVED
            job.said = None
            job.attempt += 1
            job.token += 1
            job.reserved_us = self._clock.wall_us()
            job.until_us = self._clock.boot_us() + lease_us
            job.since = next(self._ticks)
            handed.append(
                Handed(
                    job.number, job.token, job.topic, job.weight, job.attempt, job.retries,
                    job.crashes, lease_us, job.options, job.payload,
                )
            )  # fmt: skip
        return handed

    def _wait(self, job: Job, delay_us: int) -> None:
        """Ready at once, in its place; or only after the delay."""
        job.status = Status.DELAYED if delay_us > 0 else Status.READY
        job.until_us = self._clock.wall_us() + delay_us
        job.since = next(self._ticks)

    def _end(self, job: Job, status: Status, reason: Reason | None, keep_us: int | None) -> None:
        if keep_us is None:
            keep_us = self.settings(job.topic).keep_us(status)
        if keep_us is None:
            done = status is Status.DONE
            keep_us = self._retention.done_us if done else self._retention.canceled_us
        job.status = status
        job.reason = reason
        job.listed = status is Status.DONE and self.settings(job.topic).max_done is not None
        job.ended_us = self._clock.wall_us()
        job.until_us = job.ended_us + keep_us
        job.since = next(self._ticks)

    def _tidy_after(self, ended: Sequence[Job]) -> None:
        """A verb that finishes k jobs forgets those that are not kept, and up to 2 k + 16 more."""
        if ended:
            self._forget(job for job in ended if job.until_us == job.ended_us)
            self._prune(2 * len(ended) + 16, {job.topic for job in ended})

    def _forget(self, jobs: Iterable[Job]) -> None:
        for job in jobs:
            del self._jobs[job.number]

    def _waiting(self, status: Status) -> list[Job]:
        """The jobs in *status*, those first whose time comes first."""
        jobs = [job for job in self._jobs.values() if job.status is status]
        return sorted(jobs, key=lambda job: (job.until_us, job.since))

    def _record(self, job: Job) -> JobRecord:
        reserved = job.status is Status.RESERVED
        lease_left_us = job.until_us - self._clock.boot_us()
        return JobRecord(
            id=str(job.number),
            topic=job.topic,
            status=job.status,
            weight=job.weight,
            attempt=job.attempt,
            retries=job.retries,
            crashes=job.crashes,
            resets=job.resets,
            reason=job.reason,
            error=job.error,
            options=job.options,
            holder=SOMEBODY if reserved else None,
            created_us=job.created_us,
            due_us=job.until_us if job.status is Status.DELAYED else None,
            lease_until_us=self._clock.wall_us() + lease_left_us if reserved else None,
            reserved_us=job.reserved_us,
            ended_us=job.ended_us,
            payload_bytes=job.payload,
            result_bytes=job.result,
            history=tuple(job.past),
            history_dropped=job.past_dropped,
            progress=job.progress,
            log=tuple(job.log),
            log_dropped=job.log_dropped,
        )


SETTLEMENTS: Final = frozenset({Event.DONE, Event.RETRY, Event.RELEASE, Event.CANCEL})


def _retention(options: JobOptions) -> int | None:
    """How long a job wants to be kept once it is finished; None leaves it to the store."""
    return None if options.retention is None else round(options.retention * 1_000_000)
