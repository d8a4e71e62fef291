"""Groups, limits, rates and ageing as a plain model: who is served next, in ordinary lists.

Written from the words of the design: each question goes through all jobs. A lane is (topic, group),
None for the jobs without a group; `turns` has those that may be served now, `made` the groups that
are remembered at all, each with the number of its coming. Time never passes over an event: whoever
lets it pass stops `until_next` something happens. The wall clock may be stepped beside that: what
is delayed follows it; leases and rates count on the boot clock.
"""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from jobq.states import FINISHED, Outcome, Status

Lane = tuple[str, str | None]
WAITS: Final = frozenset({Status.READY, Status.DELAYED})


@dataclass
class Job:
    """A job; its number is its place in `FlowModel.jobs`.

    Attributes:
        at_us: If it is delayed, when it is due on the wall clock; if it is reserved, when its lease
            is over on the boot clock.
    """

    topic: str
    group: str | None
    weight: int
    seq: int
    born_us: int
    lease_us: int
    status: Status = Status.READY
    at_us: int = 0
    token: int = 0
    settled: str | None = None
    keeps: bool = False  # it waits for its retry, and counts as running

    @property
    def lane(self) -> Lane:
        return self.topic, self.group


class Hold(NamedTuple):
    """A canceled job's holder does not know of it."""

    job: int
    token: int
    lane: Lane
    until_us: int


@dataclass
class FlowModel:
    """What a store must answer."""

    now_us: int
    boot_us: int
    youngest_us: int = 0  # no job is born before this: ids grow though the clock goes back
    jobs: list[Job] = field(default_factory=list)
    settings: dict[str, dict[str, Any]] = field(default_factory=dict)
    gone: set[int] = field(default_factory=set)
    lingering: list[Hold] = field(default_factory=list)
    turns: dict[Lane, int] = field(default_factory=dict)
    made: dict[Lane, int] = field(default_factory=dict)
    tats: dict[Lane | str, int] = field(default_factory=dict)
    changed: list[Lane] = field(default_factory=list)
    counter: Iterator[int] = field(default_factory=lambda: itertools.count(1))

    # Questions.

    def setting(self, topic: str, name: str) -> Any:
        return self.settings.get(topic, {}).get(name)

    def ready(self, lane: Lane) -> list[Job]:
        """The ready jobs of a lane in the order of serving.

        Within one weight the place decides; the first jobs of the weights are compared by age.
        """
        jobs = [job for job in self.jobs if job.status is Status.READY and job.lane == lane]
        jobs.sort(key=lambda job: (job.weight, job.seq))
        order: list[Job] = []
        while jobs:
            heads = {job.weight: job for job in reversed(jobs)}
            order.append(min(heads.values(), key=self.standing))
            jobs.remove(order[-1])
        return order

    def standing(self, job: Job) -> tuple[float, int]:
        ageing = self.setting(job.topic, "ageing")
        effective = job.weight if ageing is None else job.weight * ageing + job.born_us / 1e6
        return effective, job.weight

    def running(self, lane: Lane) -> int:
        held = [job for job in self.jobs if job.lane == lane]
        held = [job for job in held if job.status is Status.RESERVED or job.keeps]
        return len(held) + len([hold for hold in self.lingering if hold.lane == lane])

    def running_in(self, topic: str) -> int:
        held = [job for job in self.jobs if job.topic == topic and job.status is Status.RESERVED]
        return len(held) + len([hold for hold in self.lingering if hold.lane[0] == topic])

    def groups(self, topic: str) -> list[Lane]:
        return [lane for lane in self.made if lane[0] == topic]

    # Rates: a bucket of `burst` that one job each interval flows out of, kept as the time when it
    # is empty.

    def _rate(self, topic: str, kind: str) -> tuple[int, int] | None:
        rate = self.setting(topic, f"{kind}rate")
        if rate is None:
            return None
        jobs, period = rate
        burst = self.setting(topic, f"{kind}burst") or jobs
        return -(-int(period * 1e9) // jobs), burst

    def _full_us(self, of: Lane | str) -> int:
        """From when on another job may go, on the boot clock."""
        topic, kind = (of, "") if isinstance(of, str) else (of[0], "group_")
        rate = self._rate(topic, kind)
        if rate is None or (not isinstance(of, str) and of[1] is None):
            return 0
        interval, burst = rate
        return -(-(self.tats.get(of, 0) - (burst - 1) * interval) // 1000)

    def _pour(self, of: Lane | str) -> None:
        topic, kind = (of, "") if isinstance(of, str) else (of[0], "group_")
        rate = self._rate(topic, kind)
        if rate is not None and (isinstance(of, str) or of[1] is not None):
            self.tats[of] = max(self.tats.get(of, 0), self.boot_us * 1000) + rate[0]

    def _keep_of_rate(self, of: Lane | str) -> None:
        topic, kind = (of, "") if isinstance(of, str) else (of[0], "group_")
        rate = self._rate(topic, kind)
        latest = 0 if rate is None else self.boot_us * 1000 + rate[0] * rate[1]
        self.tats[of] = min(self.tats.get(of, 0), latest)

    # Lanes.

    def may_be_served(self, lane: Lane) -> bool:
        if not self.ready(lane):
            return False
        if lane[1] is None:
            return True
        most = self.setting(lane[0], "group_concurrency")
        if most is not None and self.running(lane) >= most:
            return False
        return self._full_us(lane) <= self.boot_us

    def touch(self, lane: Lane) -> None:
        """Something changes in a lane, which is made if it is a group's."""
        topic, group = lane
        own = (topic, None)
        if group is not None and lane not in self.made:
            if not self.groups(topic) and self.ready(own) and own not in self.changed:
                self.changed.append(own)
            self.made[lane] = next(self.counter)
        if lane not in self.changed:
            self.changed.append(lane)

    def settle_lanes(self) -> None:
        """Lanes that may be served come in at the back, in the order of what happened to them."""
        for lane in self.changed:
            if self.groups(lane[0]):
                self._seat(lane)
        self.changed.clear()

    def _seat(self, lane: Lane) -> None:
        if not self.may_be_served(lane):
            self.turns.pop(lane, None)
        elif lane not in self.turns:
            self.turns[lane] = next(self.counter)
        remembered = self._rate(lane[0], "group_") and self.tats.get(lane, 0) > self.boot_us * 1000
        if lane[1] is not None and not (self.ready(lane) or self.running(lane) or remembered):
            del self.made[lane]
            self.tats.pop(lane, None)
            if not self.groups(lane[0]):
                self.turns.pop((lane[0], None), None)

    def _next_lane(self, topic: str) -> Lane | None:
        if not self.groups(topic):
            return (topic, None) if self.ready((topic, None)) else None
        heads: dict[int, Lane] = {}
        lanes = [lane for lane in self.turns if lane[0] == topic]
        for lane in sorted(lanes, key=lambda lane: self.turns[lane]):
            heads.setdefault(self.ready(lane)[0].weight, lane)
        by_first = {self.standing(self.ready(lane)[0]): lane for lane in heads.values()}
        return by_first[min(by_first)] if by_first else None

    # Verbs; jobs by number.

    def enqueue(
        self, topic: str, group: str | None, weight: int, delay_us: int, lease_us: int
    ) -> None:
        self.youngest_us = max(self.youngest_us, self.now_us // 1000 * 1000)
        job = Job(topic, group, weight, next(self.counter), self.youngest_us, lease_us)
        self._wait(job, delay_us)
        self.jobs.append(job)
        self.settle_lanes()

    def _wait(self, job: Job, delay_us: int) -> None:
        job.status = Status.DELAYED if delay_us else Status.READY
        job.at_us = self.now_us + delay_us
        if not delay_us:
            job.status = Status.DELAYED  # its lane is made before it comes
            self.touch(job.lane)
            job.status = Status.READY

    def reserve(self, topic: str, n: int) -> list[tuple[int, int]]:
        taken: list[tuple[int, int]] = []
        while len(taken) < n:
            most = self.setting(topic, "concurrency")
            if self.setting(topic, "paused") or (
                most is not None and self.running_in(topic) >= most
            ):
                break
            if self._full_us(topic) > self.boot_us:
                break
            lane = self._next_lane(topic)
            if lane is None:
                break
            job = self.ready(lane)[0]
            job.status, job.token, job.settled = Status.RESERVED, job.token + 1, None
            job.at_us = self.boot_us + job.lease_us
            taken.append((self.jobs.index(job), job.token))
            self._pour(topic)
            if self.groups(topic):
                self._pour(lane)
                self.turns.pop(lane)
                self._seat(lane)
        return taken

    def _hears(self, number: int, token: int) -> bool:
        """Whether the job is held so; if not, its holder knows now."""
        job = self.jobs[number]
        if job.token == token and job.status is Status.RESERVED:
            return True
        for hold in [one for one in self.lingering if (one.job, one.token) == (number, token)]:
            self._end(hold)
        return False

    def _end(self, hold: Hold) -> None:
        self.lingering.remove(hold)
        if hold.lane[1] is not None:
            self.touch(hold.lane)

    def settle(self, number: int, token: int, event: str, delay_us: int) -> Outcome:
        """Events: done, retry, release, cancel."""
        job = self.jobs[number]
        lost = Outcome.MISSING if number in self.gone else Outcome.STALE
        if number not in self.gone and (job.token, job.settled) == (token, event):
            return Outcome.OK
        if not self._hears(number, token):
            self.settle_lanes()
            return lost
        self.touch(job.lane)
        if event in {"done", "cancel"}:
            job.status = Status.DONE if event == "done" else Status.CANCELED
        else:
            self._wait(job, delay_us)
            job.keeps = bool(delay_us) and job.group is not None and self._blocks(job.topic)
        job.settled = event
        self.settle_lanes()
        return Outcome.OK

    def _blocks(self, topic: str) -> bool:
        retries = self.setting(topic, "group_retries")
        if retries is None:
            return bool(self.setting(topic, "group_concurrency") == 1)
        return bool(retries == "block")

    def extend(self, number: int, token: int, lease_us: int) -> Outcome:
        held = self._hears(number, token)
        if held:
            self.jobs[number].at_us = self.boot_us + lease_us
        self.settle_lanes()
        lost = Outcome.MISSING if number in self.gone else Outcome.STALE
        return Outcome.OK if held else lost

    def cancel(self, number: int) -> Outcome:
        if number in self.gone:
            return Outcome.MISSING
        job = self.jobs[number]
        if job.status in FINISHED:
            return Outcome.INVALID
        limited = self.setting(job.topic, "concurrency") is not None
        if job.status is Status.RESERVED and (limited or job.group is not None):
            self.lingering.append(Hold(number, job.token, job.lane, job.at_us))
        self._leave(job)
        job.status, job.settled = Status.CANCELED, None
        self.settle_lanes()
        return Outcome.OK

    def _leave(self, job: Job) -> None:
        """A job that waits leaves its lane, and its slot there."""
        if job.status is Status.READY or job.keeps:
            self.touch(job.lane)
        job.keeps = False

    def reset(self, number: int) -> Outcome:
        if number in self.gone:
            return Outcome.MISSING
        job = self.jobs[number]
        if job.status not in FINISHED:
            return Outcome.INVALID
        job.seq, job.settled = next(self.counter), None
        self._wait(job, 0)
        self.settle_lanes()
        return Outcome.OK

    def edit(self, number: int, change: dict[str, Any]) -> Outcome:
        """Of topic, group, weight, delay_us, what is in *change*."""
        if number in self.gone:
            return Outcome.MISSING
        job = self.jobs[number]
        if job.status not in WAITS:
            return Outcome.INVALID
        names = ("topic", "group", "weight")
        place = {name: change[name] for name in names if name in change}
        place = {name: value for name, value in place.items() if getattr(job, name) != value}
        stays = place.keys() <= {"weight"}
        delay_us, lane = change.get("delay_us"), job.lane
        job.settled = None
        moves = bool(delay_us or place) if job.status is Status.READY else delay_us is not None
        if job.status is Status.READY and moves:
            self.touch(lane)
        if job.keeps and not (stays and (delay_us or not moves)):
            self.touch(lane)
            job.keeps = False
        if moves:
            job.status = Status.DELAYED
        if "topic" in place:
            job.seq = next(self.counter)
        for name, value in place.items():
            setattr(job, name, value)
        if moves:
            self._wait(job, delay_us or 0)
        self.settle_lanes()
        return Outcome.OK

    def delete(self, number: int) -> Outcome:
        if number in self.gone:
            return Outcome.MISSING
        job = self.jobs[number]
        if job.status is Status.RESERVED:
            return Outcome.INVALID
        self._leave(job)
        job.status = Status.CANCELED
        self.gone.add(number)
        self.settle_lanes()
        return Outcome.OK

    def configure(self, topic: str, changes: dict[str, Any]) -> None:
        before = dict(self.settings.get(topic, {}))
        self.settings.setdefault(topic, {}).update(changes)
        self._keep_of_rate(topic)
        names = ("group_concurrency", "group_rate", "group_burst", "ageing")
        if any(before.get(name) != self.setting(topic, name) for name in names):
            for lane in sorted(self.groups(topic), key=lambda lane: lane[1] or ""):
                self._keep_of_rate(lane)
                self.touch(lane)
            if self.groups(topic):
                self.touch((topic, None))
        self.settle_lanes()

    # Time.

    def until_next(self) -> int | None:
        """How long it takes until something falls due, if nobody sets the clock."""
        ahead = self.boot_us - self.now_us
        times = [job.at_us + ahead for job in self.jobs if job.status is Status.DELAYED]
        times += [job.at_us for job in self.jobs if job.status is Status.RESERVED]
        times += [hold.until_us for hold in self.lingering]
        times += [self._full_us(lane) for lane in self.made if lane not in self.turns]
        times += [-(-self.tats.get(lane, 0) // 1000) for lane in self.made]
        return min((at_us - self.boot_us for at_us in times if at_us > self.boot_us), default=None)

    def let_pass(self, us: int) -> None:
        self.boot_us += us
        self.step(us)

    def step(self, us: int) -> None:
        """Set the wall clock ahead, or with a negative number back; what falls due then, does."""
        self.now_us += us
        for job in self._due(Status.DELAYED) + self._due(Status.RESERVED):
            self.touch(job.lane)
            job.keeps = False
            if job.status is Status.RESERVED:
                job.settled = None
            self._wait(job, 0)
        for hold in [one for one in self.lingering if one.until_us <= self.boot_us]:
            self._end(hold)
        for lane in sorted(self.made, key=lambda lane: (self._full_us(lane), self.made[lane])):
            if lane not in self.turns and lane not in self.changed:
                self.changed.append(lane)
        self.settle_lanes()

    def holder_dies(self) -> None:
        """Who holds all that is held is dead."""
        held = [job for job in self.jobs if job.status is Status.RESERVED]
        held.sort(key=lambda job: job.at_us)
        for job in sorted(held, key=lambda job: job.group is None):
            self.touch(job.lane)
        for job in held:
            job.settled = None
            self._wait(job, 0)
        for hold in sorted(self.lingering, key=lambda hold: hold.until_us):
            self._end(hold)
        self.settle_lanes()

    def _due(self, status: Status) -> list[Job]:
        now_us = self.now_us if status is Status.DELAYED else self.boot_us
        due = [job for job in self.jobs if job.status is status and job.at_us <= now_us]
        return sorted(due, key=lambda job: job.at_us)
