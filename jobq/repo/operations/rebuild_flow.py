"""Rings, and the agendas of lanes and lingering holds, anew; and how many of these there are."""

from collections import Counter
from collections.abc import Collection, Iterable

from jobq.repo.flow import FIRST_LANE, Lane, lane_member, ring
from jobq.repo.operations.flow import groups
from jobq.repo.repositories import (
    KEEPS_SLOT,
    NOBODY,
    Agenda,
    Figure,
    Held,
    JobBody,
    JobState,
    Transaction,
    Waiting,
)
from jobq.states import Status


class FlowAnew:
    """What flow control takes up in the topics, which are being rebuilt.

    Args:
        tx: The transaction, whose topics have been cleared.
        topics: The numbers of the topics that have names.
    """

    def __init__(self, tx: Transaction, topics: Collection[int]) -> None:
        self._tx = tx
        self._topics = topics
        self._ready: Counter[int] = Counter()
        self._running: Counter[int] = Counter()
        self._seq = self._slot = 0

    def count(self, jobs: Iterable[tuple[bytes, JobBody, JobState]]) -> None:
        """Note where these jobs stand, which were placed."""
        for _, body, state in jobs:
            self._seq = max(self._seq, state.seq, body.seq)
            self._slot = max(self._slot, state.slot)
            if groups.is_grouped(state):
                self._ready[state.lane] += state.status is Status.READY
                self._running[state.lane] += groups.is_reserved(state) or bool(
                    state.notes & KEEPS_SLOT
                )

    def place(self, *, mend: bool) -> None:
        """Put lanes and lingering holds where they say; with *mend*, where they belong."""
        tx = self._tx
        if mend:
            tx.flow.flush()  # lanes that have been made meanwhile are among all
        self._place_lingering()
        lanes = dict(tx.flow.all_lanes())
        numbers = [number - FIRST_LANE for number in lanes if number >= FIRST_LANE]
        turns = [lane.turn for lane in lanes.values()]
        tx.topics.skip_to(max([self._seq, *turns, *numbers]), self._slot)
        if mend:
            lanes = self._mended(lanes)
        of_groups = Counter(lane.topic for number, lane in lanes.items() if number != lane.topic)
        for topic in self._topics:
            tx.topics.set_figure(topic, Figure.LANES, of_groups[topic])
        for number, lane in lanes.items():
            member = lane_member(number)
            if lane.turn:
                tx.topics.push(ring(lane.topic), [Waiting(lane.weight, lane.turn, member)])
            if lane.due_us:
                tx.topics.restore(Agenda.LANE, [(Held(lane.due_us, number, member), NOBODY)])
        if mend:
            tx.unseated.update((number, lane.topic) for number, lane in lanes.items())
            groups.seat_all(tx)
            tx.flow.flush()

    def _place_lingering(self) -> None:
        tx = self._tx
        counts: Counter[int] = Counter()
        for job_id, _, hold in tx.flow.all_lingering():
            place = Held(hold.until_us, hold.slot, job_id)
            tx.topics.restore(Agenda.LINGER, [(place, hold.holder)])
            counts[hold.topic] += 1
            self._running[hold.lane] += hold.lane != hold.topic
            self._slot = max(self._slot, hold.slot)
        for topic in self._topics:
            tx.topics.set_figure(topic, Figure.LINGERING, counts[topic])

    def _mended(self, lanes: dict[int, Lane]) -> dict[int, Lane]:
        """The lanes as they should be; those that came with no turn get one when seated."""
        tx = self._tx
        wanted: dict[int, Lane] = {}
        seats = set()
        for number, lane in lanes.items():
            if number >= FIRST_LANE and lane.topic in self._topics:
                counted = lane._replace(ready=self._ready[number], running=self._running[number])
                wanted[number] = counted
        for topic in sorted({lane.topic for lane in wanted.values()}):
            own = lanes.get(topic) or groups.EMPTY._replace(topic=topic)
            wanted[topic] = own._replace(topic=topic, ready=0, running=0, due_us=0)
        for number, lane in list(wanted.items()):
            seat = (lane.topic, lane.weight, lane.turn)
            if lane.turn and seat in seats:
                wanted[number] = lane._replace(turn=0, weight=0)
            seats.add(seat)
            if wanted[number] != lanes.get(number):
                tx.flow.put_lane(number, wanted[number])
        for number in lanes.keys() - wanted.keys():
            tx.flow.drop_lane(number)
        return wanted
