"""What flow control keeps of jobs, made to say what the jobs do: for repairs.

What can be told from jobs is: which lane each is in, which key it has. What cannot be stays as long
as it can be read: keys that were taken for a period, lingering holds, rates.
"""

from collections.abc import Collection, Iterable, Sequence

from jobq.errors import StoreCorrupt
from jobq.repo.flow import FIRST_LANE, Key, Lingering
from jobq.repo.operations.flow import groups, uniques
from jobq.repo.operations.flow.uniques import has_right
from jobq.repo.repositories import (
    KEEPS_SLOT,
    KEYLESS,
    TERMS,
    JobBody,
    JobState,
    Transaction,
    terms_of,
)
from jobq.states import Status

Job = tuple[bytes, JobBody, JobState]


def begin(tx: Transaction, topics: Collection[int]) -> None:
    """Before the jobs are looked at: let go what cannot be read, or nobody has a right to."""
    tx.flow.mend()
    for number, lane in list(tx.flow.all_lanes()):
        if lane.topic not in topics:
            tx.flow.drop_lane(number)
    kept: set[tuple[bytes, str]] = set()
    for job_id, token, hold in list(tx.flow.all_lingering()):
        mended = _mended_hold(tx, topics, job_id, hold)
        if mended is None:
            tx.flow.drop_lingering(job_id, token)
            continue
        if mended != hold:
            tx.flow.put_lingering(job_id, token, mended)
        if mended.unique is not None:
            kept.add((job_id, mended.unique))
            if tx.flow.key(mended.unique) is None:
                tx.flow.put_key(mended.unique, Key(job_id, 0))
    for name, key in list(tx.flow.all_keys()):
        if not key.until_us and (key.job, name) not in kept and _right_of(tx, key.job) != name:
            tx.flow.drop_key(name)


def _mended_hold(
    tx: Transaction, topics: Collection[int], job_id: bytes, hold: Lingering
) -> Lingering | None:
    """The hold as it should be; None if nothing can be made of it."""
    if hold.topic not in topics:
        return None
    lane = tx.flow.lane(hold.lane)
    if hold.lane != hold.topic and (lane is None or lane.topic != hold.topic):
        body = _body_of(tx, job_id)
        group = None if body is None else body.options.group
        number = hold.topic if group is None else _lane_of(tx, hold.topic, group, hold.lane)
        hold = hold._replace(lane=number)
    if hold.unique is not None:
        key = tx.flow.key(hold.unique)
        if key is not None and key.job != job_id:
            hold = hold._replace(unique=None)
    return hold


def _body_of(tx: Transaction, job_id: bytes) -> JobBody | None:
    try:
        (body,) = tx.jobs.bodies([job_id])
    except StoreCorrupt:
        return None
    return body


def _right_of(tx: Transaction, job_id: bytes) -> str | None:
    """The key that a job should have; none if the job is not there, or cannot be read."""
    try:
        (both,) = tx.jobs.both([job_id])
    except StoreCorrupt:
        return None
    return None if both is None else has_right(both[0].options, both[1])


def mended(tx: Transaction, jobs: Sequence[Job]) -> list[Job]:
    """The jobs with states that go with their bodies; lanes and keys that they need are made."""
    page = [(job_id, body, _mended_state(tx, job_id, body, state)) for job_id, body, state in jobs]
    _update(tx, jobs, page)
    return page


def _update(tx: Transaction, before: Iterable[Job], after: Iterable[Job]) -> None:
    changed = [
        (job_id, new)
        for (_, _, old), (job_id, _, new) in zip(before, after, strict=True)
        if new != old
    ]
    if changed:
        tx.jobs.update(changed)


def _mended_state(tx: Transaction, job_id: bytes, body: JobBody, state: JobState) -> JobState:
    options = body.options
    notes = (state.notes & ~(TERMS | KEEPS_SLOT)) | terms_of(options)
    lane = state.topic
    if options.group is not None:
        keeps = state.notes & KEEPS_SLOT if state.status is Status.DELAYED else 0
        notes |= keeps
        lane = 0
        if keeps or state.status in {Status.READY, Status.RESERVED}:
            lane = _lane_of(tx, state.topic, options.group, state.lane)
    name = has_right(options, state)
    if name is not None:
        has = uniques.holder(tx, name)
        if has == job_id:
            notes &= ~KEYLESS
        elif not notes & KEYLESS:
            if has is None:
                tx.flow.put_key(name, Key(job_id, 0))
            else:
                notes |= KEYLESS
    if (notes, lane, len(body.payload)) == (state.notes, state.lane, state.size):
        return state
    return state._replace(notes=notes, lane=lane, size=len(body.payload))


def _lane_of(tx: Transaction, topic: int, group: str, number: int) -> int:
    """The lane of a group; if it has none, one is made, if possible of that number."""
    known = tx.flow.lane_number(topic, group)
    if known is not None:
        return known
    while number < FIRST_LANE or tx.flow.lane(number) is not None:
        number = FIRST_LANE + tx.topics.next_seq(1)
    tx.flow.put_lane(number, groups.EMPTY._replace(topic=topic, group=group))
    return number
