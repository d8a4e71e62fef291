"""Lanes, unique keys and lingering holds against jobs, rings and agendas."""

from collections import Counter
from collections.abc import Collection, Iterator, Mapping

from jobq.job import name_of
from jobq.repo.flow import FIRST_LANE, Key, Lane, Lingering, lane_member, ring
from jobq.repo.operations.checking_places import CheckedPlaces
from jobq.repo.operations.flow import groups, uniques
from jobq.repo.repositories import (
    KEEPS_SLOT,
    KEYLESS,
    TERMS,
    Agenda,
    Figure,
    JobBody,
    JobState,
    Transaction,
    terms_of,
)
from jobq.states import Status
from jobq.topic import TopicSettings


class CheckedFlow:
    """What flow control keeps, and how much of it the jobs account for so far."""

    def __init__(
        self,
        tx: Transaction,
        topics: Mapping[int, str],
        settings: Mapping[int, TopicSettings],
        places: CheckedPlaces,
    ) -> None:
        self._tx = tx
        self._topics = topics
        self._settings = settings
        self._places = places
        self._lanes: dict[int, Lane] = {}
        self._holds: list[tuple[bytes, int, Lingering]] = []
        self._keys: dict[str, Key] = {}
        self._accounted: set[str] = set()
        self._ready: Counter[int] = Counter()
        self._running: Counter[int] = Counter()
        self._lingering: Counter[int] = Counter()
        self._groups: Counter[int] = Counter()

    def read(self) -> Iterator[str]:
        """Read all that can be read: what cannot is among the strays."""
        self._lanes.update(self._tx.flow.all_lanes())
        self._holds.extend(self._tx.flow.all_lingering())
        self._keys.update(self._tx.flow.all_keys())
        yield from ()

    # A job.

    def compare_job(self, job_id: bytes, body: JobBody, state: JobState) -> Iterator[str]:
        """A job's lane and key, and the bits that say what it has."""
        job = f"job {name_of(job_id)}"
        if state.notes & TERMS != terms_of(body.options):
            yield f"{job} says wrongly whether it has a group, a unique key or a deadline"
        if state.notes & KEEPS_SLOT and state.status is not Status.DELAYED:
            yield f"{job} is {state.status}, but says that it waits and counts as reserved"
        yield from self._compare_lane_of(job, body.options.group, state)
        name = uniques.has_right(body.options, state)
        if name is None or state.notes & KEYLESS:
            return
        key = self._keys.get(name)
        if key == Key(job_id, 0):
            self._accounted.add(name)
        else:
            yield f"{job} should have the unique key {name!r}, but {_whose(key)} has it"

    def _compare_lane_of(self, job: str, group: str | None, state: JobState) -> Iterator[str]:
        if group is None:
            if groups.is_grouped(state):
                yield f"{job} has no group, but is in lane {state.lane}"
            return
        keeps = state.status is Status.DELAYED and state.notes & KEEPS_SLOT
        if not keeps and state.status not in {Status.READY, Status.RESERVED}:
            if state.lane:
                yield f"{job} is {state.status}, but is in lane {state.lane}"
            return
        lane = self._lanes.get(state.lane)
        if lane is None or (lane.topic, lane.group) != (state.topic, group):
            yield f"{job} is in lane {state.lane}, which is not that of its group {group!r}"
        self._ready[state.lane] += state.status is Status.READY
        self._running[state.lane] += state.status is not Status.READY

    # Lingering holds.

    def compare_lingering(self) -> Iterator[str]:
        """Each hold's place in its agenda, its topic, its lane and its key."""
        for job_id, token, hold in self._holds:
            held = f"a hold of job {name_of(job_id)}, token {token}, lingers"
            self._lingering[hold.topic] += 1
            holder = self._places.strike_held(Agenda.LINGER, hold.until_us, hold.slot, job_id)
            if holder is None:
                yield f"{held}, but LINGER does not hold it"
            elif holder != hold.holder:
                yield f"{held}, of which LINGER names another holder"
            if hold.topic not in self._topics:
                yield f"{held} in topic number {hold.topic}, which has no name"
            if hold.lane != hold.topic:
                self._running[hold.lane] += 1
                lane = self._lanes.get(hold.lane)
                if lane is None or lane.topic != hold.topic:
                    yield f"{held} in lane {hold.lane}, which is none of its topic"
            if hold.unique is not None:
                key = self._keys.get(hold.unique)
                self._accounted.add(hold.unique)
                if key is None or key.job != job_id:
                    yield f"{held} with the unique key {hold.unique!r}, but {_whose(key)} has it"

    # Lanes.

    def compare_lanes(self, *, counted: bool) -> Iterator[str]:
        """Each lane's counts, if all jobs were *counted*; its place in ring and agenda."""
        for number, lane in self._lanes.items():
            name = f"group {lane.group!r} of " if lane.group else "the own lane of "
            name += f"topic {self._topics.get(lane.topic, lane.topic)!r}"
            self._groups[lane.topic] += number >= FIRST_LANE
            if lane.topic not in self._topics:
                yield f"{name} is in use, but the topic has no name"
                continue
            if counted:
                yield from self._compare_counts(number, lane, name)
            if lane.turn:
                seat = (ring(lane.topic), lane.weight, lane.turn)
                if self._places.strike_waiting(*seat) != lane_member(number):
                    yield f"{name} has turn {lane.turn}, but the ring does not have it there"
            if lane.due_us:
                at = (Agenda.LANE, lane.due_us, number, lane_member(number))
                if self._places.strike_held(*at) is None:
                    yield f"{name} is to be looked at again, but LANE does not hold it"
            yield from self._compare_seat(number, lane, name)

    def _compare_counts(self, number: int, lane: Lane, name: str) -> Iterator[str]:
        ready, running = self._ready[number], self._running[number]
        if lane.ready != ready:
            yield f"{name} counts {lane.ready} ready jobs, but has {ready}"
        if lane.running != running:
            yield f"{name} counts {lane.running} reserved jobs, but has {running}"

    def _compare_seat(self, number: int, lane: Lane, name: str) -> Iterator[str]:
        """Whether it stands in the ring if it may be served, and only then."""
        if lane.topic not in self._settings:
            return  # they cannot be read, which is known already
        settings = self._settings[lane.topic]
        most = settings.group_concurrency if lane.group else None
        first = self._places.first.get(number)
        if first is not None and settings.ageing is not None:  # not the lowest weight
            (job,) = groups.front(self._tx, number, 1, settings)
            first = job.weight
        may = first is not None and (most is None or lane.running < most)
        if lane.turn and not may:
            yield f"{name} may not be served, but has turn {lane.turn}"
        elif lane.turn and lane.weight != first:
            yield f"{name} stands in the ring at weight {lane.weight}, its first job at {first}"
        elif may and not (lane.turn or lane.due_us):  # a rate is looked at when it is due
            yield f"{name} may be served, but has no turn"
        elif lane.group and first is None and not (lane.running or lane.due_us):
            yield f"{name} has no jobs, but is kept"

    def compare_figures(self, number: int, name: str) -> Iterator[str]:
        """How many lanes and lingering holds a topic has."""
        lanes = self._groups[number]
        if (lanes > 0) is not (number in self._lanes):
            yield f"topic {name!r} has groups, or an own lane, but not both"
        for figure, what, there in (
            (Figure.LANES, "groups in use", lanes),
            (Figure.LINGERING, "lingering holds", self._lingering[number]),
        ):
            said = self._tx.topics.figure(number, figure)
            if said != there:
                yield f"topic {name!r} counts {said} {what}, but has {there}"

    # Unique keys.

    def compare_keys(self, unreadable: Collection[bytes]) -> Iterator[str]:
        """Keys that are taken until their jobs end, though these have no right to them."""
        for name, key in self._keys.items():
            if not key.until_us and name not in self._accounted and key.job not in unreadable:
                yield f"{_whose(key)} has the unique key {name!r}, but no right to it"


def _whose(key: Key | None) -> str:
    return "nobody" if key is None else f"job {name_of(key.job)}"
