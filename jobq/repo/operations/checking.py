"""Every job against every index, every index entry against its job, and all the counts."""

from collections import defaultdict
from typing import Final

from jobq.errors import JobqError
from jobq.job import name_of
from jobq.repo.base import CheckReport
from jobq.repo.repositories import AGENDA_OF, Agenda, JobState, Note, Transaction
from jobq.states import Status

PAGE: Final = 512


def check(tx: Transaction) -> CheckReport:
    """Every job against every index, every index entry against its job, and all the counts."""
    problems: list[str] = []
    waiting: dict[tuple[int, int, int], bytes] = {}
    held: dict[tuple[Agenda, int, int, bytes], bytes] = {}
    for topic, entry in tx.topics.queued():
        waiting[topic, entry.weight, entry.seq] = entry.id
    for agenda in Agenda:
        for place, holder in tx.topics.held(agenda):
            held[agenda, *place] = holder
    counts: defaultdict[tuple[int, Status], int] = defaultdict(int)
    names = {number for name in tx.topics.names() if (number := tx.topics.known(name))}
    jobs = 0
    after: bytes | None = None
    while page := tx.jobs.scan(after, PAGE):
        after = page[-1][0]
        for job_id, _, state in page:
            jobs += 1
            counts[state.topic, state.status] += 1
            problems += _check_job(tx, job_id, state, waiting, held, names)
    problems += [
        f"topic {_named(tx, number)!r} queues job {name_of(job_id)} at weight {weight}, place "
        f"{seq}, but no such job is ready there"
        for (number, weight, seq), job_id in waiting.items()
    ]
    problems += [
        f"{agenda.name} holds job {name_of(job_id)} at {at_us}, but no such job stands there"
        for agenda, at_us, _, job_id in held
    ]
    for number in sorted(names):
        said = tx.topics.counts(number)
        for status in Status:
            if said[status] != counts[number, status]:
                problems.append(
                    f"topic {_named(tx, number)!r} counts {said[status]} {status} jobs, "
                    f"but has {counts[number, status]}"
                )
    for status in Status:
        there = sum(count for (_, of), count in counts.items() if of is status)
        if tx.topics.total(status) != there:
            problems.append(
                f"the store counts {tx.topics.total(status)} {status} jobs, but has {there}"
            )
    problems += tx.jobs.strays()
    return CheckReport(jobs, tuple(problems[: CheckReport.MOST_PROBLEMS]))


def _named(tx: Transaction, number: int) -> str:
    try:
        return tx.topics.name(number)
    except JobqError:  # check reports what is wrong rather than stop at it
        return f"number {number}"


def _check_job(
    tx: Transaction,
    job_id: bytes,
    state: JobState,
    waiting: dict[tuple[int, int, int], bytes],
    held: dict[tuple[Agenda, int, int, bytes], bytes],
    names: set[int],
) -> list[str]:
    """What is wrong with one job; what it accounts for is taken out of *waiting* and *held*."""
    problems = []
    job = f"job {name_of(job_id)}"
    if state.topic not in names:
        problems.append(f"{job} is of topic number {state.topic}, which has no name")
    if state.status is Status.READY:
        if waiting.pop((state.topic, state.weight, state.seq), None) != job_id:
            problems.append(f"{job} is ready, but its topic does not queue it")
    else:
        agenda = AGENDA_OF[state.status]
        holder = held.pop((agenda, state.at_us, state.slot, job_id), None)
        if holder is None:
            problems.append(f"{job} is {state.status}, but {agenda.name} does not hold it")
        elif holder != state.holder:
            problems.append(f"{job} and {agenda.name} name different holders")
    problems += [
        f"{job} should have a {note.name.lower()}, but has none"
        for note in Note
        if state.notes & note and tx.jobs.note(job_id, note) is None
    ]
    return problems
