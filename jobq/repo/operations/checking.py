"""Every job against every index, every index entry against its job, and all the counts."""

from collections import Counter, defaultdict
from collections.abc import Iterator
from typing import Final

from jobq.job import name_of
from jobq.repo.base import CheckReport
from jobq.repo.operations.reports import log_of
from jobq.repo.repositories import (
    AGENDA_OF,
    LISTED,
    Agenda,
    JobState,
    Note,
    Transaction,
    done_list,
)
from jobq.states import Status

PAGE: Final = 512


Damage = tuple[type[Exception], ...]


def check(tx: Transaction, damage: Damage) -> CheckReport:
    """What is wrong with the store: nothing is changed, and damage is reported, not raised.

    *damage* are the exceptions by which the engine says that something cannot be read.
    """
    checker = Checker(tx, damage)
    problems = []
    for problem in checker.problems():
        problems.append(problem)
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
        self._waiting: dict[tuple[int, int, int], bytes] = {}
        self._held: dict[tuple[Agenda, int, int, bytes], bytes] = {}
        self._counts: defaultdict[tuple[int, Status], int] = defaultdict(int)
        self._listed: Counter[int] = Counter()
        self._topics: dict[int, str] = {}
        self._unreadable: set[bytes] = set()

    def problems(self) -> Iterator[str]:
        """A sentence for each thing that is wrong."""
        for part in (
            self._read_topics,
            self._read_queues,
            self._read_agendas,
            self._compare_jobs,
            self._compare_rest,
            self._compare_counts,
            self._compare_size,
            self._read_settings,
            self._tx.jobs.strays,
            self._tx.topics.strays,
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

    def _read_queues(self) -> Iterator[str]:
        for topic, entry in self._tx.topics.queued():
            self._waiting[topic, entry.weight, entry.seq] = entry.id
        yield from ()

    def _read_agendas(self) -> Iterator[str]:
        for agenda in Agenda:
            for place, holder in self._tx.topics.held(agenda):
                self._held[agenda, *place] = holder
        yield from ()

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
                    stands = job_id in self._waiting.values() or any(
                        place[3] == job_id for place in self._held
                    )
                    advice = (
                        "others cannot pass it until a repair takes it out"
                        if stands
                        else "it stands in no queue, and only a backup has it"
                    )
                    yield f"job {name_of(job_id)} cannot be read: {error}; {advice}"
                    continue
                if both is not None:
                    yield from self._compare_job(job_id, both[1])

    def _compare_job(self, job_id: bytes, state: JobState) -> Iterator[str]:
        job = f"job {name_of(job_id)}"
        self._counts[state.topic, state.status] += 1
        if state.topic not in self._topics:
            yield f"{job} is of topic number {state.topic}, which has no name"
        if state.status is Status.READY:
            if self._waiting.pop((state.topic, state.weight, state.seq), None) != job_id:
                yield f"{job} is ready, but its topic does not queue it"
        else:
            agenda = AGENDA_OF[state.status]
            holder = self._held.pop((agenda, state.at_us, state.slot, job_id), None)
            if holder is None:
                yield f"{job} is {state.status}, but {agenda.name} does not hold it"
            elif agenda is Agenda.LEASE and holder != state.holder:
                yield f"{job} and {agenda.name} name different holders"
        if state.notes & LISTED:
            yield from self._compare_listed(job_id, state)
        for note in Note:
            if state.notes & note:
                try:
                    if self._tx.jobs.note(job_id, note) is None:
                        yield f"{job} should have a {note.name.lower()}, but has none"
                    elif note is Note.LOG:
                        log_of(self._tx, job_id, state)  # all its parts
                except self._damage as error:
                    yield f"the {note.name.lower()} of {job} cannot be read: {error}"

    def _compare_listed(self, job_id: bytes, state: JobState) -> Iterator[str]:
        job = f"job {name_of(job_id)}"
        self._listed[state.topic] += 1
        if self._waiting.pop((done_list(state.topic), 0, state.seq), None) != job_id:
            yield f"{job} says that it is listed as done, but its topic does not list it"
        if state.status is not Status.DONE:
            yield f"{job} is {state.status}, but says that it is listed as done"

    def _compare_rest(self) -> Iterator[str]:
        for (topic, weight, seq), job_id in self._waiting.items():
            if job_id not in self._unreadable and topic == done_list(topic):
                yield (
                    f"the list of topic number {topic - done_list(0)} names job {name_of(job_id)} "
                    f"at {seq}, but no such job is listed there"
                )
            elif job_id not in self._unreadable:
                yield (
                    f"topic {self._topics.get(topic, topic)!r} queues job {name_of(job_id)} at "
                    f"weight {weight}, place {seq}, but no such job is ready there"
                )
        for agenda, at_us, _, job_id in self._held:
            if job_id not in self._unreadable:
                yield (
                    f"{agenda.name} holds job {name_of(job_id)} at {at_us}, "
                    "but no such job stands there"
                )

    def _compare_counts(self) -> Iterator[str]:
        if self._unreadable:
            return  # they cannot be counted, and it is known already that something is wrong
        for number, name in self._topics.items():
            said = self._tx.topics.counts(number)
            for status in Status:
                there = self._counts[number, status]
                if said[status] != there:
                    yield f"topic {name!r} counts {said[status]} {status} jobs, but has {there}"
            listed = self._tx.topics.listed(number)
            if listed != self._listed[number]:
                yield f"topic {name!r} lists {listed} jobs, but has {self._listed[number]}"
            has = any(said.values())
            if has is bool(self._tx.topics.empty_us(number)):
                yield f"topic {name!r} does {'' if has else 'not '}have jobs, but says otherwise"
        for status in Status:
            there = sum(count for (_, of), count in self._counts.items() if of is status)
            total = self._tx.topics.total(status)
            if total != there:
                yield f"the store counts {total} {status} jobs, but has {there}"

    def _read_settings(self) -> Iterator[str]:
        for number, name in self._topics.items():
            try:
                self._tx.topics.settings(number)
            except self._damage as error:
                yield f"the settings of topic {name!r} cannot be read: {error}"

    def _compare_size(self) -> Iterator[str]:
        size = self._tx.jobs.size()
        if self.jobs != size:
            yield f"of {size} jobs only {self.jobs} can be come by"
