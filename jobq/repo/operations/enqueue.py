"""Adding jobs: decided first, with unique keys and caps; then written."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import reduce
from typing import Final

from jobq.errors import UniqueConflict
from jobq.job import Change, JobSpec, name_of
from jobq.options import DEFAULTS, UNSET, JobOptions
from jobq.repo.base import Retention
from jobq.repo.operations.edit import change_waiting
from jobq.repo.operations.flow import caps, deadlines, groups, uniques
from jobq.repo.operations.places import make_ready
from jobq.repo.operations.soon import note_due
from jobq.repo.operations.topics import numbers_of, settings_of
from jobq.repo.repositories import NOBODY, Agenda, JobBody, JobState, Transaction, Waiting
from jobq.states import FINISHED, Event, Status, can_move
from jobq.topic import NO_SETTINGS, TopicSettings

_NOBODY_LEAVES: Final[frozenset[bytes]] = frozenset()

_new: Final = tuple.__new__  # what a NamedTuple comes down to, in twice the time

_OF_THE_CALL: Final = frozenset({"unique", "unique_for", "on_conflict"})
"""Options that say what to do about a conflict, not what becomes of the job."""


@dataclass(slots=True)
class Plan:
    """What an enqueue will do, decided and not yet done.

    Attributes:
        new: The jobs to add, in order.
        replaced: Jobs that are there already, what they are, and what to make of them.
        answers: By position: the id of a job that is there, or where in *new* its own is.
        trimmed: What is to be added to topics in which others have to go for it.
    """

    new: Sequence[JobSpec]
    replaced: list[tuple[bytes, JobState, Change]] = field(default_factory=list)
    answers: list[bytes | int] | None = None
    trimmed: dict[str, caps.Coming] = field(default_factory=dict)


def add(tx: Transaction, specs: Sequence[JobSpec], retention: Retention) -> list[bytes]:
    """New jobs: ready ones behind the others of their weight, the rest delayed. Gives their ids.

    Raises:
        QueueFull: There is no room in a topic, or in the store.
        UniqueConflict: Another job has a key, and that was to be refused.
    """
    number = _free_topic(tx, specs)
    if number is not None:
        return _create_plain(tx, number, specs)
    return carry_out(tx, plan(tx, specs), retention)


def _free_topic(tx: Transaction, specs: Sequence[JobSpec]) -> int | None:
    """The topic of jobs of which nothing has to be decided, as of most; None if these are others.

    They are ready at once, without options, of one topic that is there; and no settings could
    refuse them, or make them expire.
    """
    topic = specs[0].topic
    for name, _, delay_us, _, options in specs:
        if name != topic or delay_us > 0 or options is not UNSET:
            return None
    number = tx.topics.known(topic)
    if number is None or not _takes_all(tx.topics.store_settings()):
        return None
    return number if _takes_all(tx.topics.settings(number)) else None


def _takes_all(settings: TopicSettings) -> bool:
    """Whether any job is taken, and as it is."""
    return settings is NO_SETTINGS or not (
        settings.draining
        or settings.max_jobs is not None
        or settings.max_bytes is not None
        or settings.ttl is not None
    )


def is_plain(specs: Sequence[JobSpec]) -> bool:
    """Whether the jobs are ready at once and have no options."""
    return all(spec[4] is UNSET and spec[2] <= 0 for spec in specs)


def plan(
    tx: Transaction, specs: Sequence[JobSpec], leaving: frozenset[bytes] = _NOBODY_LEAVES
) -> Plan:
    """Decide what becomes of new jobs. *leaving* are jobs that are finished in this operation."""
    made = Plan(specs)
    given = [spec[4] for spec in specs]
    if given.count(UNSET) < len(given) and any(one.unique is not None for one in given):
        _resolve(tx, made, specs, leaving)
    _refuse(tx, made)
    return made


def _refuse(tx: Transaction, made: Plan) -> None:
    """Refuse what there is no room for. Costs a look at each topic, if nothing is configured."""
    names = {spec[0] for spec in made.new}
    if made.replaced:
        names.update(str(change.topic) for _, _, change in made.replaced)
    if tx.topics.store_settings() is NO_SETTINGS:
        numbers = [tx.topics.known(name) for name in names]
        if all(number is None or tx.topics.settings(number) is NO_SETTINGS for number in numbers):
            return
    coming = [
        (spec.topic, caps.Coming.of(len(spec.payload), ready=spec.delay_us <= 0))
        for spec in made.new
    ]
    everything = [more for _, more in coming]
    last = {job_id: (state, change) for job_id, state, change in made.replaced}
    for state, change in last.values():
        growth, more = _growth(tx, state, change)
        everything.append(growth)
        coming.append((str(change.topic), more))
    if coming:
        made.trimmed = caps.refuse(tx, caps.by_topic(coming), reduce(caps.Coming.and_, everything))


def _growth(tx: Transaction, state: JobState, change: Change) -> tuple[caps.Coming, caps.Coming]:
    """What a job that is replaced adds to the store, and to its topic of from now on."""
    size = len(change.payload or b"")
    ready = state.status is Status.READY and not change.delay_us
    growth = caps.Coming.of(max(0, size - state.size), jobs=0, ready=ready)
    if tx.topics.known(str(change.topic)) == state.topic:
        return growth, growth
    return growth, caps.Coming.of(size, ready=ready)


def _resolve(
    tx: Transaction, made: Plan, specs: Sequence[JobSpec], leaving: frozenset[bytes]
) -> None:
    """Which jobs are new, and which are there already, by their unique keys."""
    new: list[JobSpec] = []
    answers: list[bytes | int] = []
    first: dict[str, int] = {}
    for spec in specs:
        name = spec.options.unique
        if name is None:
            answers.append(len(new))
            new.append(spec)
            continue
        policy = spec.options.on_conflict or DEFAULTS.on_conflict
        if name in first:  # earlier in the same call
            if policy == "raise":
                raise UniqueConflict(f"two jobs of one call have the unique key {name!r}")
            at = first[name]
            if policy == "replace":
                new[at] = _over(spec, new[at])
            answers.append(at)
            continue
        has = uniques.holder(tx, name)
        if has is None or (has in leaving and uniques.ends_with(tx, has, name)):
            first[name] = len(new)
            answers.append(len(new))
            new.append(spec)
            continue
        if policy == "raise":
            raise UniqueConflict(f"job {name_of(has)} has the unique key {name!r}", name_of(has))
        if policy == "replace":
            state = _waiting_state(tx, has, name)
            made.replaced.append((has, state, _change_to(tx, spec)))
        answers.append(has)
    made.new, made.answers = new, answers


def _waiting_state(tx: Transaction, job_id: bytes, name: str) -> JobState:
    """The state of the job that has the key and is to be replaced.

    Raises:
        UniqueConflict: It does not wait.
    """
    (state,) = tx.jobs.states([job_id])
    if state is not None and can_move(state.status, Event.EDIT):
        return state
    what = "was forgotten" if state is None else f"is {state.status}"
    what += " already" if state is not None and state.status not in FINISHED else ""
    raise UniqueConflict(
        f"job {name_of(job_id)} has the unique key {name!r} and {what}: it cannot be replaced",
        name_of(job_id),
    )


def _over(spec: JobSpec, first: JobSpec) -> JobSpec:
    """The job of *first*, replaced by a later one of the call as if it were there already."""
    options, below = spec.options, first.options
    if options.deadline is not None or options.ttl is not None:
        below = replace(below, deadline=None, ttl=None)
    options = replace(
        options.over(below), unique_for=below.unique_for, on_conflict=below.on_conflict
    )
    return spec._replace(delay_us=spec.delay_us or first.delay_us, options=options)


def _change_to(tx: Transaction, spec: JobSpec) -> Change:
    """What makes a waiting job what a new one would be; its time stays if there is no delay.

    A time to live begins anew, that of its topic too: it counts from the last enqueue.
    """
    options = {
        name: getattr(spec.options, name)
        for name in spec.options.as_dict()
        if name not in _OF_THE_CALL
    }
    settings = settings_of(tx, spec.topic)
    if settings.ttl is not None:
        options["deadline"] = deadlines.resolved(tx, spec.options, settings)
    return Change(spec.topic, spec.weight, spec.delay_us or None, spec.payload, options)


def carry_out(tx: Transaction, made: Plan, retention: Retention) -> list[bytes]:
    """Write what was decided; gives the ids by position."""
    for job_id, _, change in made.replaced:
        change_waiting(tx, job_id, change)
    ids = _create(tx, made.new)
    if made.trimmed:
        caps.trim(tx, made.trimmed, retention)
    if made.answers is None:
        return ids
    return [ids[answer] if isinstance(answer, int) else answer for answer in made.answers]


def _create(tx: Transaction, specs: Sequence[JobSpec]) -> list[bytes]:
    if not specs:
        return []
    ids = tx.jobs.mint(len(specs))
    place = tx.topics.next_seq(len(specs))
    names = dict.fromkeys([spec.topic for spec in specs])
    numbers = numbers_of(tx, names)  # new ones by their order: as the ids
    mortal = _topics_with_ttl(tx, numbers.values())
    slots = _delay(tx, specs, ids)
    ready: defaultdict[tuple[int, int], list[Waiting]] = defaultdict(list)
    sizes = dict.fromkeys(numbers.values(), 0)
    jobs: list[tuple[bytes, JobBody]] = []
    bound: list[tuple[bytes, JobBody]] = []
    for position, (topic, weight, delay_us, payload, wanted) in enumerate(specs):
        number, job_id = numbers[topic], ids[position]
        lane, has_terms = number, False
        if wanted is not UNSET or mortal:
            wanted = _settled(tx, wanted, mortal.get(number, NO_SETTINGS))
            has_terms = wanted.has_terms
            if wanted.group is not None:
                lane = 0 if delay_us > 0 else groups.lane_for(tx, number, wanted.group)
        if delay_us > 0:
            due_us, slot = tx.wall_us + delay_us, slots[position]
            tx.topics.count(number, Status.DELAYED, 1)
            note_due(tx, number, delay_us)
        else:
            due_us = slot = 0
            ready[number, lane].append(_new(Waiting, (weight, place, job_id)))
        body = (number, weight, place, tx.wall_us, due_us, slot, wanted, payload, lane)
        jobs.append((job_id, _new(JobBody, body)))
        if has_terms:
            bound.append(jobs[-1])
        sizes[number] += len(payload)
        place += 1
    tx.jobs.create(jobs)
    for number, size in sizes.items():
        tx.topics.add_size(number, size)
    for (number, lane), waiting in ready.items():
        make_ready(tx, number, lane, waiting)
    for job_id, body in bound:
        uniques.take(tx, job_id, body.options)
    deadlines.watch(tx, bound)
    return ids


def _create_plain(tx: Transaction, number: int, specs: Sequence[JobSpec]) -> list[bytes]:
    """What `_create` does for any jobs, in half the time for those of `_free_topic`."""
    ids = tx.jobs.mint(len(specs))
    place = tx.topics.next_seq(len(specs))
    now_us = tx.wall_us
    jobs: list[tuple[bytes, JobBody]] = []
    waiting: list[Waiting] = []
    size = 0
    for job_id, (_, weight, _, payload, _) in zip(ids, specs, strict=True):
        body = (number, weight, place, now_us, 0, 0, UNSET, payload, number)
        jobs.append((job_id, _new(JobBody, body)))
        waiting.append(_new(Waiting, (weight, place, job_id)))
        size += len(payload)
        place += 1
    tx.jobs.create(jobs)
    tx.topics.add_size(number, size)
    make_ready(tx, number, number, waiting)
    return ids


def _delay(tx: Transaction, specs: Sequence[JobSpec], ids: Sequence[bytes]) -> dict[int, int]:
    """Put jobs with a delay into their agenda; gives their slots by position."""
    delayed: defaultdict[int, list[int]] = defaultdict(list)
    slots: dict[int, int] = {}
    for position, spec in enumerate(specs):
        if spec.delay_us > 0:
            delayed[tx.wall_us + spec.delay_us].append(position)
    for due_us, positions in delayed.items():
        held = [ids[position] for position in positions]
        slots.update(
            zip(positions, tx.topics.hold(Agenda.DELAYED, due_us, held, NOBODY), strict=True)
        )
    return slots


def _topics_with_ttl(tx: Transaction, numbers: Iterable[int]) -> dict[int, TopicSettings]:
    """The settings of those topics whose jobs have a time to live."""
    found: dict[int, TopicSettings] = {}
    for number in numbers:
        settings = tx.topics.settings(number)
        if settings.ttl is not None:
            found[number] = settings
    return found


def _settled(tx: Transaction, options: JobOptions, settings: TopicSettings) -> JobOptions:
    """The options that are kept: the moment of the deadline in place of times to live."""
    if options.ttl is None and settings.ttl is None:
        return options
    return replace(options, deadline=deadlines.resolved(tx, options, settings))
