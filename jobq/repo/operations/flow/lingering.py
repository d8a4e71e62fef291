"""What a canceled job's holder goes on taking up until it knows.

Canceling a reserved job takes effect at once, but its holder works on until its next call. If its
place were given away meanwhile, more would run at once than a limit allows, or two with one key. So
a hold lingers, until the holder's next call, the end of the lease or the holder's death. It does
not need the job any more, which may be forgotten meanwhile, or ready again.
"""

from collections.abc import Iterable, Sequence

from jobq.job import name_of
from jobq.options import JobOptions
from jobq.repo.flow import Lingering
from jobq.repo.operations.damage import damaged
from jobq.repo.operations.flow import groups, limits, uniques
from jobq.repo.repositories import Agenda, Figure, Held, JobState, Transaction


def begin(tx: Transaction, job_id: bytes, state: JobState, options: JobOptions) -> None:
    """A reserved job is canceled, of which the state was so: keep what its holder takes up."""
    settings = tx.topics.settings(state.topic)
    grouped = groups.is_grouped(state)
    unique = uniques.held_key(tx, job_id, options)
    if settings.concurrency is None and not grouped and unique is None:
        return
    (slot,) = tx.topics.hold(Agenda.LINGER, state.at_us, [job_id], state.holder)
    lingering = Lingering(state.topic, state.lane, state.at_us, slot, state.holder, unique)
    tx.flow.put_lingering(job_id, state.token, lingering)
    _add(tx, state.topic, 1)


def heard(tx: Transaction, holds: Iterable[tuple[bytes, int]]) -> None:
    """Holders have called that do not hold these jobs (id, token) any more: now they know."""
    if not tx.topics.standing(Agenda.LINGER):
        return
    for job_id, token in holds:
        lingering = tx.flow.lingering(job_id, token)
        if lingering is not None:
            end(tx, job_id, token, lingering)


def end(tx: Transaction, job_id: bytes, token: int, lingering: Lingering) -> None:
    """Give up what is taken up."""
    place = (lingering.until_us, lingering.slot, job_id)
    tx.topics.unhold(Agenda.LINGER, [place])
    tx.flow.drop_lingering(job_id, token)
    _add(tx, lingering.topic, -1)
    if lingering.lane != lingering.topic:
        groups.count(tx, lingering.topic, lingering.lane, running=-1)
    limits.freed(tx, lingering.topic, 1)
    if lingering.unique is not None:
        uniques.free_after(tx, lingering.unique, job_id)


def over(tx: Transaction, held: Sequence[Held]) -> None:
    """These places of the agenda LINGER are over."""
    for place in held:
        for job_id, token, lingering in of_job(tx, place.id):
            if (lingering.until_us, lingering.slot) == (place.at_us, place.slot):
                end(tx, job_id, token, lingering)
                break
        else:
            raise damaged(f"LINGER holds job {name_of(place.id)}, of which nothing lingers")


def of_job(tx: Transaction, job_id: bytes) -> list[tuple[bytes, int, Lingering]]:
    """All that lingers of one job; most often one hold."""
    return tx.flow.lingering_of(job_id)


def _add(tx: Transaction, topic: int, change: int) -> None:
    count = tx.topics.figure(topic, Figure.LINGERING)
    tx.topics.set_figure(topic, Figure.LINGERING, count + change)
