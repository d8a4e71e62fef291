"""What has to hold of groups, keys, deadlines and lingering holds, told by the jobs alone.

A second opinion beside `check`: written from the rules, not from the code that keeps the indexes.
"""

from collections import Counter
from collections.abc import Iterator
from typing import Any

from jobq import JobService, Status
from jobq.job import LEAST_WEIGHT, name_of
from jobq.rate import Limit
from jobq.repo.flow import lane_member, ring
from jobq.repo.repositories import KEEPS_SLOT, KEYLESS, TERMS, WATCHED, Agenda, Figure, Transaction
from jobq.states import FINISHED


def flow_problems(svc: JobService) -> list[str]:
    """Sentences about what does not hold; none if all is well."""
    read: Any = svc.store._read  # type: ignore[attr-defined]
    problems: list[str] = read(lambda tx: list(_Oracle(tx).problems()))
    return problems


def flow_in(svc: JobService) -> list[Any]:
    """Groups, keys and lingering holds, without what differs from run to run."""

    def look(tx: Transaction) -> list[Any]:
        lanes = [
            (tx.topics.name(lane.topic), lane.group, lane.ready, lane.running, bool(lane.turn))
            for _, lane in tx.flow.all_lanes()
        ]
        bodies = tx.jobs.bodies([key.job for _, key in tx.flow.keys(None, 1000)])
        keys = [
            (name, body and body.payload, bool(key.until_us))
            for (name, key), body in zip(tx.flow.keys(None, 1000), bodies, strict=True)
        ]
        holds = [(token, hold.unique) for _, token, hold in tx.flow.all_lingering()]
        standing = [tx.topics.standing(agenda) for agenda in WATCHED]
        return [sorted(lanes), sorted(keys, key=repr), sorted(holds, key=repr), standing]

    read: Any = svc.store._read  # type: ignore[attr-defined]
    found: list[Any] = read(look)
    return found


class _Oracle:
    """One look at everything."""

    def __init__(self, tx: Transaction) -> None:
        self._tx = tx
        self._jobs = {job_id: (body, state) for job_id, body, state in tx.jobs.scan(None, 10**6)}
        self._lanes = dict(tx.flow.all_lanes())
        self._lingering = list(tx.flow.all_lingering())
        self._keys = dict(tx.flow.keys(None, 10**6))

    def problems(self) -> Iterator[str]:
        for part in (self._states, self._figures, self._counts, self._rings, self._agendas):
            yield from part()
        yield from self._unique()

    def _states(self) -> Iterator[str]:
        for job_id, (body, state) in self._jobs.items():
            job, group = f"job {name_of(job_id)}, {state.status}", body.options.group
            if bool(state.notes & TERMS) is not body.options.has_terms:
                yield f"{job}: TERMS does not match its options"
            if state.size != len(body.payload):
                yield f"{job}: size {state.size} is not {len(body.payload)}"
            if state.notes & KEEPS_SLOT and (state.status is not Status.DELAYED or group is None):
                yield f"{job}: KEEPS_SLOT"
            if state.status in FINISHED or not self._has_place(job_id):
                continue
            lane = self._lanes.get(state.lane)
            if group is None and state.lane != state.topic:
                yield f"{job}: has lane {state.lane}, but no group"
            elif group is not None and (lane is None or lane[0] != state.topic):
                yield f"{job}: its lane {state.lane} is not there, or of another topic"
            elif group is not None and lane is not None and lane.group != group:
                yield f"{job}: its lane is of group {lane.group!r}, not {group!r}"

    def _has_place(self, job_id: bytes) -> bool:
        """Whether the job counts in a lane."""
        _, state = self._jobs[job_id]
        if state.status is Status.DELAYED:
            return bool(state.notes & KEEPS_SLOT)
        return state.status in {Status.READY, Status.RESERVED}

    def _figures(self) -> Iterator[str]:
        topics = self._tx.topics
        sizes: Counter[int] = Counter()
        for _, state in self._jobs.values():
            if state.status in {Status.READY, Status.DELAYED}:
                sizes[state.topic] += state.size
                sizes[0] += state.size
        lanes = Counter(lane.topic for number, lane in self._lanes.items() if number != lane.topic)
        lingering = Counter(hold.topic for _, _, hold in self._lingering)
        numbers = {name: topics.known(name) or 0 for name in topics.names()}
        if topics.size(0) != sizes[0]:
            yield f"the store counts {topics.size(0)} bytes, but has {sizes[0]}"
        for name, number in numbers.items():
            for figure, there in (
                (Figure.BYTES, sizes[number]),
                (Figure.LANES, lanes[number]),
                (Figure.LINGERING, lingering[number]),
            ):
                said = topics.figure(number, figure)
                if said != there:
                    yield f"topic {name!r}: {figure.name} is {said}, but there are {there}"

    def _counts(self) -> Iterator[str]:
        ready: Counter[int] = Counter()
        running: Counter[int] = Counter()
        for job_id, (_, state) in self._jobs.items():
            if self._has_place(job_id):
                counter = ready if state.status is Status.READY else running
                counter[state.lane] += 1
        for _, _, hold in self._lingering:
            running[hold.lane] += 1
        for number, lane in self._lanes.items():
            if number == lane.topic:
                continue
            name = f"lane {lane.group!r}"
            if (lane.ready, lane.running) != (ready[number], running[number]):
                yield (
                    f"{name} says ready {lane.ready}, running {lane.running}, but has "
                    f"{ready[number]}, {running[number]}"
                )
            if not (lane.ready or lane.running or lane.due_us):
                yield f"{name} is empty"
            if self._tx.flow.lane_number(lane.topic, lane.group) != number:
                yield f"{name} is not found by its group"
            queue = {entry.id for entry in self._tx.topics.waiting(number, LEAST_WEIGHT, 10**6)}
            there = {
                job_id
                for job_id, (_, state) in self._jobs.items()
                if state.status is Status.READY and state.lane == number
            }
            if queue != there:
                yield f"the queue of {name} has not the jobs that are ready in it"

    def _rings(self) -> Iterator[str]:
        topics = self._tx.topics
        with_lanes = {lane.topic for lane in self._lanes.values()}
        for name in topics.names():
            topic = topics.known(name) or 0
            there = {tuple(entry) for entry in topics.waiting(ring(topic), LEAST_WEIGHT, 10**6)}
            lanes = {number: lane for number, lane in self._lanes.items() if lane.topic == topic}
            stand = {
                (lane.weight, lane.turn, lane_member(number))
                for number, lane in lanes.items()
                if lane.turn
            }
            if there != stand:
                yield f"the ring of topic {name!r} has {there}, but by its lanes {stand}"
            if topic in with_lanes and (topic not in lanes or len(lanes) == 1):
                yield f"topic {name!r} has no lane of its own beside others, or only that"
            for number, lane in lanes.items():
                yield from self._seat(number, lane)

    def _seat(self, number: int, lane: Any) -> Iterator[str]:
        """Whether a lane stands in the ring just if it may be served."""
        topics, now_ns = self._tx.topics, self._tx.boot_us * 1000
        settings = topics.settings(lane.topic)
        first = topics.waiting(number, LEAST_WEIGHT, 1)
        may, next_ns = bool(first), now_ns
        if may and number != lane.topic:
            most = settings.group_concurrency
            may = most is None or lane.running < most
            if may and settings.group_rate is not None:
                limit = Limit.of(settings.group_rate, settings.group_burst)
                next_ns = limit.next_ns(lane.tat_ns, now_ns)
        name = f"lane {lane.group!r} of topic {lane.topic}"
        if not may and lane.turn:
            yield f"{name} stands in the ring and may not be served: {lane}"
        elif may and next_ns > now_ns and (lane.turn or not lane.due_us):
            yield f"{name} is at its rate, and nobody looks at it again: {lane}"
        elif may and next_ns <= now_ns and not lane.turn and not lane.due_us:
            yield f"{name} may be served and does not stand in the ring: {lane}"
        elif lane.turn and lane.weight != first[0].weight:
            yield f"{name} stands at {lane.weight}, its first job at {first[0].weight}"

    def _agendas(self) -> Iterator[str]:
        wanted = {
            Agenda.DEADLINE: {
                (body.options.deadline_us, body.seq, job_id)
                for job_id, (body, state) in self._jobs.items()
                if state.status in {Status.READY, Status.DELAYED}
                and body.options.deadline_us is not None
            },
            Agenda.LINGER: {
                (hold.until_us, hold.slot, job_id) for job_id, _, hold in self._lingering
            },
            Agenda.LANE: {
                (lane.due_us, number, lane_member(number))
                for number, lane in self._lanes.items()
                if lane.due_us
            },
        }
        for agenda, places in wanted.items():
            held = {tuple(place) for place, _ in self._tx.topics.held(agenda)}
            if held != places:
                yield f"{agenda.name} holds {held - places} too many, {places - held} too few"
            if self._tx.topics.standing(agenda) != len(places):
                yield f"{agenda.name} counts {self._tx.topics.standing(agenda)}, not {len(places)}"

    def _unique(self) -> Iterator[str]:
        owners: dict[str, set[bytes]] = {}
        for job_id, (body, state) in self._jobs.items():
            name, span = body.options.unique, body.options.unique_for or "unfinished"
            if name is None or state.status in FINISHED or not isinstance(span, str):
                continue
            owners.setdefault(name, set())
            if span == "unfinished" or state.status is not Status.RESERVED:
                owners[name].add(job_id)
            key = self._keys.get(name)
            has = key is not None and key.job == job_id
            if span == "unfinished" and has is bool(state.notes & KEYLESS):
                job = f"job {name_of(job_id)}, {state.status},"
                yield f"{job} says otherwise of its key {name!r}: {key}"
        for job_id, _, hold in self._lingering:
            if hold.unique is not None:
                owners.setdefault(hold.unique, set()).add(job_id)
                key = self._keys.get(hold.unique)
                if key is None or key.job != job_id:
                    yield f"a lingering hold has not its key {hold.unique!r}, but {key}"
        for name, key in self._keys.items():
            if not key.until_us and key.job not in owners.get(name, set()):
                yield f"job {name_of(key.job)} has key {name!r} and no right to it"
