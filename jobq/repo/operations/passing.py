"""What a waiter owes to others that has been called, or was to look when something falls due.

It may have got up for one job and take another one, or any, and go: then someone else has to be
called in its stead.
"""

from collections.abc import Collection, Sequence

from jobq.job import Reservation
from jobq.repo.operations.flow import limits, shares
from jobq.repo.operations.soon import is_soon, note_due, seconds_to_next
from jobq.repo.repositories import Transaction
from jobq.repo.watch import LONGEST_SLEEP, STORE


def pass_on(tx: Transaction, owed: Sequence[int], taken: Sequence[Reservation]) -> None:
    """Have another waiter called for each topic that this one was called for, and has left jobs of.

    It was called once for each topic at most: so if that was for one, and it has a job of that, it
    owes nothing. If it has found nothing at all, there is nothing to be called for.
    """
    if (
        owed
        and taken
        and (len(owed) > 1 or all(tx.topics.known(job.topic) not in owed for job in taken))
    ):
        for topic in shares.with_ready(tx, owed):
            tx.woken[topic] = tx.woken.get(topic, 0) + 1


def note_next(tx: Transaction, topics: Collection[int]) -> None:
    """Who was to look when something falls due is gone: another waiter has to.

    And one for each of these topics that is at its rate. (For what may be handed out now one was
    called already.)
    """
    if is_soon(tx):
        note_due(tx, STORE, max(0, int(seconds_to_next(tx) * 1e6)))
    for topic in shares.with_jobs(tx, sorted(topics), len(topics)):
        if 0 < limits.ready_in(tx, topic) < LONGEST_SLEEP:
            tx.woken[topic] = tx.woken.get(topic, 0) + 1
