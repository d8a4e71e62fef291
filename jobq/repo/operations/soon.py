"""Telling who waits for a topic that something falls due before it looks again."""

import math
from typing import Final

from jobq.repo.repositories import BY_BOOT_CLOCK, WATCHED, Agenda, Transaction

SOON_US: Final = 1_500_000
"""What falls due within this time wakes a waiter of its topic, so that it sleeps no longer than
until then. Waiters look at the clock at least once a second by themselves: what is due later than
this they see in time."""


def note_due(tx: Transaction, number: int, in_us: int) -> None:
    """A waiter of the topic may have to look sooner than any of them means to."""
    if in_us <= SOON_US:
        tx.soon[number] = min(in_us, tx.soon.get(number, in_us))


def seconds_to_next(tx: Transaction) -> float:
    """In how many seconds something falls due, not above 0 if it has; infinity if nothing will."""
    waits = [math.inf]
    for agenda in _agendas(tx):
        at_us = tx.topics.first_due(agenda)
        if at_us is not None:
            waits.append((at_us - _now_us(tx, agenda)) / 1e6)
    return min(waits)


def is_soon(tx: Transaction) -> bool:
    """Whether something falls due within `SOON_US`.

    Mostly nothing is due for long, and that is remembered: a tenth of the time that looking takes.
    """
    return any(tx.topics.is_due(one, _now_us(tx, one) + SOON_US) for one in _agendas(tx))


def _agendas(tx: Transaction) -> list[Agenda]:
    """The agendas in which something may stand that falls due."""
    return [Agenda.DELAYED, Agenda.LEASE, *(one for one in WATCHED if tx.topics.standing(one))]


def _now_us(tx: Transaction, agenda: Agenda) -> int:
    return tx.boot_us if agenda in BY_BOOT_CLOCK else tx.wall_us
