"""Telling those who wait for a topic that something falls due before they look again."""

from typing import Final

from jobq.repo.repositories import Transaction

SOON_US: Final = 1_500_000
"""What falls due within this time wakes the waiters of its topic, so that they shorten their
sleep. A waiter looks at the clock at least once a second by itself; what is due later than this
it will see in time."""


def note_due(tx: Transaction, number: int, in_us: int) -> None:
    """Waiters of the topic may have to sleep shorter than they thought."""
    if in_us <= SOON_US:
        tx.soon.add(number)
