"""What the options of some jobs ask for beyond their state: groups, unique keys, deadlines.

Jobs that have such terms bear a bit in their state (`TERMS`); for the others nothing here looks at
anything. A job's deadline is watched, and a key that it has while it waits is its own, exactly as
long as it waits, ready or delayed.
"""

from collections.abc import Sequence

from jobq.repo.operations.flow import deadlines, groups, uniques
from jobq.repo.operations.soon import note_due
from jobq.repo.repositories import JobBody, JobState, Transaction


def stop_waiting(tx: Transaction, jobs: Sequence[tuple[bytes, JobState]]) -> None:
    """Jobs are taken out of queues and delays; of groups' lanes too, if they stood there."""
    bodies = deadlines.bodies_of(tx, jobs)
    if bodies:
        deadlines.unwatch(tx, bodies)


def hand_out(tx: Transaction, jobs: Sequence[tuple[bytes, JobBody]]) -> None:
    """Jobs with terms have been reserved."""
    deadlines.unwatch(tx, jobs)
    for job_id, body in jobs:
        uniques.handed_out(tx, job_id, body.options)


def wait_again(tx: Transaction, jobs: Sequence[tuple[bytes, JobState]]) -> None:
    """Jobs that were reserved, or finished, wait again; their deadlines have not passed."""
    bodies = deadlines.bodies_of(tx, jobs)
    if bodies:
        deadlines.watch(tx, bodies)
        uniques.wait_again(tx, jobs)
        topics = {job_id: state.topic for job_id, state in jobs}
        for job_id, body in bodies:
            deadline_us = body.options.deadline_us
            if deadline_us is not None:  # it may free a place of its group
                note_due(tx, topics[job_id], deadline_us - tx.wall_us)


def place(tx: Transaction, job_id: bytes, state: JobState, delay_us: int) -> JobState:
    """A job of a group on its way to its lane, or to a delay: with the lane that it has there."""
    if delay_us <= 0:
        state = groups.lose_slot(tx, state)
        return state._replace(lane=groups.find_lane(tx, job_id, state))
    if groups.keeps_slot(state):  # it is put off once more
        return state
    if groups.is_reserved(state) and tx.topics.settings(state.topic).blocks_group:
        return groups.keep_slot(tx, state)
    return state._replace(lane=0)
