"""Every job against every index, every index entry against its job, and all the counts."""

from collections import Counter, defaultdict
from collections.abc import Iterator
from typing import Final

from jobq.job import name_of
from jobq.repo.base import CheckReport
from jobq.repo.operations.checking_flow import CheckedFlow
from jobq.repo.operations.checking_places import CheckedPlaces
from jobq.repo.operations.places import WAITS
from jobq.repo.operations.reports import log_of
from jobq.repo.repositories import (
    AGENDA_OF,
    LISTED,
    WATCHED,
    Agenda,
    Figure,
    JobBody,
    JobState,
    Note,
    Transaction,
    done_list,
)
from jobq.states import Status
from jobq.topic import TopicSettings

PAGE: Final = 512


Damage = tuple[type[Exception], ...]


def check(tx: Transaction, damage: Damage) -> CheckReport:
    """What is wrong with the store: nothing is changed, and damage is reported, not raised.

    *damage* are the exceptions by which the engine says that something cannot be read.
    """
    checker = Checker(tx, damage)
    problems: dict[str, None] = {}
    for problem in checker.problems():
        problems[problem] = None
        if len(problems) == CheckReport.MOST_PROBLEMS:
            break
    return CheckReport(checker.jobs, tuple(problems))


class Checker:
    """One check. Each job strikes out the index entries it accounts for; none may be left.

    Attributes:
        jobs: How many jobs were looked at so far.
    """

    def __init__(self, tx: Transaction, damage: Damage) -> None:
        self._tx = tx
        self._damage = damage
        self.jobs = 0
        self._topics: dict[int, str] = {}
        self._places = CheckedPlaces(tx, self._topics)
        self._settings: dict[int, TopicSettings] = {}
        self._flow = CheckedFlow(tx, self._topics, self._settings, self._places)
        self._counts: defaultdict[tuple[int, Status], int] = defaultdict(int)
        self._sizes: Counter[int] = Counter()
        self._listed: Counter[int] = Counter()
        self._unreadable: set[bytes] = set()

    def problems(self) -> Iterator[str]:
        """A sentence for each thing that is wrong."""
        for part in (
            self._read_topics,
            self._read_settings,
            self._places.read_queues,
            self._places.read_agendas,
            self._flow.read,
            self._compare_jobs,
            self._compare_flow,
            self._compare_rest,
            self._compare_counts,
            self._compare_size,
            self._tx.jobs.strays,
            self._tx.topics.strays,
            self._tx.flow.strays,
        ):
            try:
                yield from part()
            except self._damage as error:  # the rest of this part cannot be read
                yield str(error)

    def _read_topics(self) -> Iterator[str]:
        for name in self._tx.topics.names():
            number = self._tx.topics.known(name)
            if number is None or self._tx.topics.name(number) != name:
                yield f"topic {name!r} and its number do not name one another"
            else:
                self._topics[number] = name

    def _compare_jobs(self) -> Iterator[str]:
        after: bytes | None = None
        while ids := self._tx.jobs.ids(after, PAGE):
            after = ids[-1]
            for job_id in ids:
                self.jobs += 1
                try:
                    (both,) = self._tx.jobs.both([job_id])
                except self._damage as error:
                    self._unreadable.add(job_id)
                    advice = (
                        "others cannot pass it until a repair takes it out"
                        if self._places.stands(job_id)
                        else "it stands in no queue, and only a backup has it"
                    )
                    yield f"job {name_of(job_id)} cannot be read: {error}; {advice}"
                    continue
                if both is not None:
                    yield from self._compare_job(job_id, *both)

    def _compare_job(self, job_id: bytes, body: JobBody, state: JobState) -> Iterator[str]:
        job = f"job {name_of(job_id)}"
        self._counts[state.topic, state.status] += 1
        if state.topic not in self._topics:
            yield f"{job} is of topic number {state.topic}, which has no name"
        yield from self._compare_place(job, job_id, state)
        if state.status in WAITS:
            self._sizes[state.topic] += state.size
            yield from self._compare_deadline(job_id, body)
        if state.size != len(body.payload):
            yield f"{job} has a payload of {len(body.payload)} bytes, but says {state.size}"
        yield from self._flow.compare_job(job_id, body, state)
        if state.notes & LISTED:
            yield from self._compare_listed(job_id, state)
        yield from self._compare_notes(job, job_id, state)

    def _compare_place(self, job: str, job_id: bytes, state: JobState) -> Iterator[str]:
        if state.status is Status.READY:
            queue = state.lane or state.topic
            if self._places.strike_waiting(queue, state.weight, state.seq) != job_id:
                yield f"{job} is ready, but its topic does not queue it"
        else:
            agenda = AGENDA_OF[state.status]
            holder = self._places.strike_held(agenda, state.at_us, state.slot, job_id)
            if holder is None:
                yield f"{job} is {state.status}, but {agenda.name} does not hold it"
            elif agenda is Agenda.LEASE and holder != state.holder:
                yield f"{job} and {agenda.name} name different holders"

    def _compare_notes(self, job: str, job_id: bytes, state: JobState) -> Iterator[str]:
        for note in Note:
            if state.notes & note:
                try:
                    if self._tx.jobs.note(job_id, note) is None:
                        yield f"{job} should have a {note.name.lower()}, but has none"
                    elif note is Note.LOG:
                        log_of(self._tx, job_id, state)  # all its parts
                except self._damage as error:
                    yield f"the {note.name.lower()} of {job} cannot be read: {error}"

    def _compare_deadline(self, job_id: bytes, body: JobBody) -> Iterator[str]:
        deadline_us = body.options.deadline_us
        if deadline_us is not None:
            held = self._places.strike_held(Agenda.DEADLINE, deadline_us, body.seq, job_id)
            if held is None:
                yield f"job {name_of(job_id)} has a deadline, but DEADLINE does not hold it"

    def _compare_listed(self, job_id: bytes, state: JobState) -> Iterator[str]:
        job = f"job {name_of(job_id)}"
        self._listed[state.topic] += 1
        if self._places.strike_waiting(done_list(state.topic), 0, state.seq) != job_id:
            yield f"{job} says that it is listed as done, but its topic does not list it"
        if state.status is not Status.DONE:
            yield f"{job} is {state.status}, but says that it is listed as done"

    def _compare_flow(self) -> Iterator[str]:
        yield from self._flow.compare_lingering()
        yield from self._flow.compare_lanes(counted=not self._unreadable)
        yield from self._flow.compare_keys(self._unreadable)

    def _compare_rest(self) -> Iterator[str]:
        return self._places.rest(self._unreadable)

    def _compare_counts(self) -> Iterator[str]:
        topics = self._tx.topics
        for number, name in self._topics.items():
            yield from self._flow.compare_figures(number, name)
        for agenda in WATCHED:
            said, there = topics.standing(agenda), self._places.held_in[agenda]
            if said != there:
                yield f"the store counts {said} entries of {agenda.name}, but has {there}"
        if self._unreadable:
            return  # they cannot be counted, and it is known already that something is wrong
        for number, name in self._topics.items():
            yield from self._compare_topic(number, name)
        for status in Status:
            there = sum(count for (_, of), count in self._counts.items() if of is status)
            total = topics.total(status)
            if total != there:
                yield f"the store counts {total} {status} jobs, but has {there}"
        size, there = topics.size(0), self._sizes.total()
        if size != there:
            yield f"the store counts {size} waiting bytes, but has {there}"

    def _compare_topic(self, number: int, name: str) -> Iterator[str]:
        counts = self._tx.topics.counts(number)
        for status in Status:
            there = self._counts[number, status]
            if counts[status] != there:
                yield f"topic {name!r} counts {counts[status]} {status} jobs, but has {there}"
        listed = self._tx.topics.listed(number)
        if listed != self._listed[number]:
            yield f"topic {name!r} lists {listed} jobs, but has {self._listed[number]}"
        size = self._tx.topics.figure(number, Figure.BYTES)
        if size != self._sizes[number]:
            yield f"topic {name!r} counts {size} waiting bytes, but has {self._sizes[number]}"
        has = any(counts.values())
        if has is bool(self._tx.topics.empty_us(number)):
            yield f"topic {name!r} does {'' if has else 'not '}have jobs, but says otherwise"

    def _read_settings(self) -> Iterator[str]:
        for number, name in self._topics.items():
            try:
                self._settings[number] = self._tx.topics.settings(number)
            except self._damage as error:
                yield f"the settings of topic {name!r} cannot be read: {error}"
        try:
            self._tx.topics.store_settings()
        except self._damage as error:
            yield f"the settings of the store cannot be read: {error}"

    def _compare_size(self) -> Iterator[str]:
        size = self._tx.jobs.size()
        if self.jobs != size:
            yield f"of {size} jobs only {self.jobs} can be come by"
