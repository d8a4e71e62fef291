"""Unique keys, deadlines and caps as a plain model: which jobs wait, and who has which key.

It knows nothing of anything else: no results, history or retention, and one job is settled at a
time. Every question goes through all jobs. Jobs are numbered 0, 1, 2, … as they are enqueued.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from jobq.clock import Clock
from jobq.states import FINISHED, Event, Outcome, Reason, Status

WAITING: Final = (Status.READY, Status.DELAYED)


class New(NamedTuple):
    """A job to enqueue; times in microseconds."""

    topic: str = "mail"
    weight: int = 0
    delay_us: int = 0
    size: int = 0
    ttl_us: int | None = None
    unique: str | None = None
    unique_for: str | int = "unfinished"
    on_conflict: str = "return"


@dataclass
class Caps:
    """What may wait in one topic."""

    max_jobs: int | None = None
    max_bytes: int | None = None
    when_full: str | None = None


@dataclass
class Job:
    """One job; `until_us` is when it is due, or its lease is over."""

    number: int
    topic: str
    weight: int
    place: int
    size: int
    deadline_us: int | None
    unique: str | None
    unique_for: str | int
    status: Status | None = Status.READY
    reason: Reason | None = None
    until_us: int = 0
    token: int = 0
    taken: int = 0

    @property
    def has_period(self) -> bool:
        return not isinstance(self.unique_for, str)

    @property
    def has_right(self) -> bool:
        """Whether its key is its own as long as it is so, if it has one."""
        if self.status is None or self.status in FINISHED or self.has_period:
            return False
        return not (self.unique_for == "waiting" and self.status is Status.RESERVED)


class Refused(Exception):
    """QueueFull or UniqueConflict: nothing has changed."""


class TermsModel:
    """A queue of which every answer is obvious."""

    def __init__(self, clock: Clock, lease_us: int) -> None:
        self._clock = clock
        self._lease_us = lease_us
        self.jobs: list[Job] = []
        self.caps: dict[str, Caps] = {}
        self.ttls_us: dict[str, int | None] = {}
        self._keys: dict[str, tuple[int, int | None]] = {}
        self._lingering: dict[tuple[int, int], tuple[str, int]] = {}
        self._count = 0

    # Keys.

    def holder(self, name: str) -> int | None:
        """Who has the key now."""
        job, until_us = self._keys.get(name, (None, None))
        over = until_us is not None and until_us <= self._clock.wall_us()
        return None if over else job

    def sweep(self) -> None:
        """Forget the keys whose periods are over."""
        self._keys = {
            name: key for name, key in self._keys.items() if self.holder(name) is not None
        }

    def _take(self, job: Job) -> None:
        if job.unique is not None:
            period = None if isinstance(job.unique_for, str) else job.unique_for
            until_us = None if period is None else self._clock.wall_us() + period
            self._keys[job.unique] = job.number, until_us

    def _lose(self, job: Job, name: str | None) -> None:
        if name is not None and self.holder(name) == job.number and not self._lingers(job, name):
            del self._keys[name]

    def _lingers(self, job: Job, name: str) -> bool:
        return any(
            number == job.number and kept == name
            for (number, _), (kept, _) in self._lingering.items()
        )

    def _heard(self, number: int, token: int) -> None:
        """The holder of a canceled job has called."""
        name, _ = self._lingering.pop((number, token), (None, 0))
        if name is not None and self._keys.get(name) == (number, None):
            job = self.jobs[number]
            if not (job.unique == name and job.has_right):
                self._lose(job, name)

    # Anybody.

    def enqueue(  # noqa: C901 - the whole of what a conflict may do, in one place
        self, specs: Sequence[New], leaving: int | None = None
    ) -> list[int]:
        """The numbers of the jobs. *leaving* is the job that is done in the same call."""
        new: list[New] = []
        answers: list[tuple[bool, int]] = []
        first: dict[str, int] = {}
        replaced: dict[int, list[New]] = {}
        for spec in specs:
            name = spec.unique
            has = None if name is None else self.holder(name)
            if name is not None and name in first:
                if spec.on_conflict == "raise":
                    raise Refused
                if spec.on_conflict == "replace":
                    new[first[name]] = _over(spec, new[first[name]])
                answers.append((True, first[name]))
            elif name is None or has is None or (has == leaving and self._ends_with(has, name)):
                if name is not None:
                    first[name] = len(new)
                answers.append((True, len(new)))
                new.append(spec)
            else:
                if spec.on_conflict == "raise":
                    raise Refused
                if spec.on_conflict == "replace":
                    if self.jobs[has].status not in WAITING:
                        raise Refused
                    replaced.setdefault(has, []).append(spec)
                answers.append((False, has))
        full = self._refuse(new, {number: many[-1] for number, many in replaced.items()})
        if leaving is not None:
            self._end(self.jobs[leaving], Status.DONE, None)
        for number, many in replaced.items():
            for spec in many:
                self._replace(self.jobs[number], spec)
        numbers = [self._add(spec) for spec in new]
        for topic in full:
            self._drop(topic)
        return [numbers[at] if is_new else at for is_new, at in answers]

    def _ends_with(self, number: int, name: str) -> bool:
        return self._keys[name][1] is None and not self._lingers(self.jobs[number], name)

    def _add(self, spec: New) -> int:
        job = Job(
            len(self.jobs), spec.topic, spec.weight, self._next(), spec.size,
            self._end_of(spec.topic, spec.ttl_us),
            spec.unique, spec.unique_for,
        )  # fmt: skip
        self._wait(job, spec.delay_us)
        self.jobs.append(job)
        self._take(job)
        return job.number

    def _end_of(self, topic: str, ttl_us: int | None) -> int | None:
        """The deadline of a job that begins now."""
        ttls_us = [one for one in (ttl_us, self.ttls_us.get(topic)) if one is not None]
        return self._clock.wall_us() + min(ttls_us) if ttls_us else None

    def _replace(self, job: Job, spec: New) -> None:
        if job.topic != spec.topic:
            job.topic, job.place = spec.topic, self._next()
        job.weight, job.size = spec.weight, spec.size
        deadline_us = self._end_of(spec.topic, spec.ttl_us)
        if deadline_us is not None:
            job.deadline_us = deadline_us
        if spec.delay_us:
            self._wait(job, spec.delay_us)

    def cancel(self, number: int) -> Outcome:
        job = self.jobs[number]
        if job.status is None:
            return Outcome.MISSING
        if job.status in FINISHED:
            return Outcome.INVALID
        name = job.unique
        held = job.status is Status.RESERVED and not job.has_period
        if held and name is not None and self.holder(name) == number:
            self._lingering[number, job.token] = name, job.until_us
        self._end(job, Status.CANCELED, Reason.CANCELED)
        return Outcome.OK

    def delete(self, number: int) -> Outcome:
        job = self.jobs[number]
        if job.status is None:
            return Outcome.MISSING
        if job.status is Status.RESERVED:
            return Outcome.INVALID
        self._end(job, None, None)
        return Outcome.OK

    def reset(self, number: int, ttl_us: int | None = None) -> Outcome:
        job = self.jobs[number]
        if job.status is None:
            return Outcome.MISSING
        if job.status not in FINISHED:
            return Outcome.INVALID
        if job.unique is not None and self.holder(job.unique) not in {None, number}:
            return Outcome.CONFLICT
        job.status, job.reason = Status.READY, None
        job.deadline_us = self._end_of(job.topic, ttl_us)
        job.place = self._next()
        self._take(job)
        return Outcome.OK

    def edit_key(self, number: int, name: str | None) -> Outcome:
        job = self.jobs[number]
        if job.status is None:
            return Outcome.MISSING
        if job.status not in WAITING:
            return Outcome.INVALID
        if name is not None and self.holder(name) not in {None, number}:
            return Outcome.CONFLICT
        if name != job.unique:
            self._lose(job, job.unique)
            job.unique = name
            self._take(job)
        elif name is not None and not job.has_period and self.holder(name) is None:
            self._take(job)
        return Outcome.OK

    def edit_ttl(self, number: int, ttl_us: int | None, delay_us: int | None) -> Outcome:
        job = self.jobs[number]
        if job.status is None:
            return Outcome.MISSING
        if job.status not in WAITING:
            return Outcome.INVALID
        job.deadline_us = None if ttl_us is None else self._clock.wall_us() + ttl_us
        if delay_us is not None:
            self._wait(job, delay_us)
        return Outcome.OK

    # Caps.

    def waiting(self, topic: str, *statuses: Status) -> list[Job]:
        """The jobs of the topic that wait, in the order of serving."""
        found = [
            job for job in self.jobs if job.topic == topic and job.status in (statuses or WAITING)
        ]
        return sorted(found, key=lambda job: (job.weight, job.place))

    def _refuse(self, new: Sequence[New], replaced: dict[int, New]) -> list[str]:
        """Refuse what there is no room for; gives the topics in which others have to go."""
        full = []
        for topic, caps in self.caps.items():
            more = [spec for spec in new if spec.topic == topic]
            moved = [
                spec._replace(delay_us=1) if was_delayed and not spec.delay_us else spec
                for number, spec in replaced.items()
                if spec.topic == topic != self.jobs[number].topic
                for was_delayed in [self.jobs[number].status is Status.DELAYED]
            ]
            grown = {
                number: max(0, spec.size - self.jobs[number].size)
                for number, spec in replaced.items()
                if spec.topic == topic == self.jobs[number].topic
            }
            more += moved
            there = self.waiting(topic)
            size = sum(job.size for job in there)
            more_size = sum(spec.size for spec in more) + sum(grown.values())
            jobs_over = size_over = 0
            if caps.max_jobs is not None and more:
                jobs_over = len(there) + len(more) - caps.max_jobs
            if caps.max_bytes is not None and more_size:
                size_over = size + more_size - caps.max_bytes
            if jobs_over <= 0 and size_over <= 0:
                continue
            if caps.when_full in {None, "reject"}:
                raise Refused
            delayed = len(self.waiting(topic, Status.DELAYED))
            delayed += sum(spec.delay_us > 0 for spec in more)
            if caps.max_jobs is not None and delayed > caps.max_jobs:
                raise Refused
            if caps.max_bytes is not None:
                can_go = sum(job.size for job in self.waiting(topic, Status.READY))
                can_go += sum(spec.size for spec in more if spec.delay_us == 0)
                can_go += sum(
                    grown[number]
                    for number in grown
                    if self.jobs[number].status is Status.READY and not replaced[number].delay_us
                )
                if size + more_size - can_go > caps.max_bytes:
                    raise Refused
            full.append(topic)
        return full

    def _drop(self, topic: str) -> None:
        caps = self.caps[topic]
        while True:
            there = self.waiting(topic)
            ready = self.waiting(topic, Status.READY)
            many = caps.max_jobs is not None and len(there) > caps.max_jobs
            large = caps.max_bytes is not None and sum(job.size for job in there) > caps.max_bytes
            if not ready or not (many or large):
                return
            if caps.when_full == "drop-oldest":
                job = min(ready, key=lambda job: job.place)
            else:
                job = ready[-1]
            self._end(job, Status.CANCELED, Reason.DROPPED)

    # Holders.

    def reserve(self, topic: str, n: int) -> list[int]:
        taken = self.waiting(topic, Status.READY)[:n]
        for job in taken:
            job.status = Status.RESERVED
            job.token += 1
            job.taken = self._next()
            job.until_us = self._clock.boot_us() + self._lease_us
            if job.unique_for == "waiting":
                self._lose(job, job.unique)
        return [job.number for job in taken]

    def settle(
        self, number: int, token: int, event: Event, delay_us: int, follow: Sequence[New]
    ) -> Outcome:
        """By a holder that was not the last to speak of the job."""
        job = self.jobs[number]
        if job.status is not Status.RESERVED or job.token != token:
            self._heard(number, token)
            return Outcome.MISSING if job.status is None else Outcome.STALE
        late = job.deadline_us is not None and job.deadline_us <= self._clock.wall_us()
        if event is Event.DONE:
            self.enqueue(follow, number)
        elif event is Event.CANCEL:
            self._end(job, Status.CANCELED, Reason.REJECTED)
        elif late:
            self._end(job, Status.CANCELED, Reason.EXPIRED)
        else:
            self._back(job, delay_us)
        return Outcome.OK

    # Time.

    def let_time_pass(self) -> None:
        """Promote, expire, look at deadlines, let holds end: in this order, each by time."""
        wall_us, boot_us = self._clock.wall_us(), self._clock.boot_us()
        for job in self.jobs:
            if job.status is Status.DELAYED and job.until_us <= wall_us:
                job.status = Status.READY
        over = [
            job for job in self.jobs if job.status is Status.RESERVED and job.until_us <= boot_us
        ]
        late = [job for job in over if job.deadline_us is not None and job.deadline_us <= wall_us]
        for job in sorted(over, key=lambda job: (job.until_us, job.taken)):
            if job not in late:
                self._back(job, 0)
        for job in late:
            self._end(job, Status.CANCELED, Reason.EXPIRED)
        for job in self.jobs:
            passed = job.deadline_us is not None and job.deadline_us <= wall_us
            if job.status in WAITING and passed:
                self._end(job, Status.CANCELED, Reason.EXPIRED)
        for (number, token), (_, until_us) in list(self._lingering.items()):
            if until_us <= boot_us:
                self._heard(number, token)

    # Small things.

    def _next(self) -> int:
        self._count += 1
        return self._count

    def _wait(self, job: Job, delay_us: int) -> None:
        job.status = Status.DELAYED if delay_us > 0 else Status.READY
        job.until_us = self._clock.wall_us() + delay_us

    def _back(self, job: Job, delay_us: int) -> None:
        self._wait(job, delay_us)
        if job.unique_for == "waiting" and job.unique and self.holder(job.unique) is None:
            self._take(job)

    def _end(self, job: Job, status: Status | None, reason: Reason | None) -> None:
        job.status, job.reason = status, reason
        if not job.has_period:
            self._lose(job, job.unique)


def _over(spec: New, first: New) -> New:
    """A later job of the call in the place of the first."""
    return spec._replace(
        delay_us=spec.delay_us or first.delay_us,
        ttl_us=first.ttl_us if spec.ttl_us is None else spec.ttl_us,
        unique_for=first.unique_for,
    )
