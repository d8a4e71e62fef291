"""What to say when records contradict each other, and how to pass over those that are damaged."""

import logging
from collections.abc import Callable, Sequence
from typing import TypeVar

from jobq.errors import StoreCorrupt
from jobq.job import name_of
from jobq.repo.repositories import Agenda, Held, Transaction

T = TypeVar("T")

_log = logging.getLogger("jobq")


def damaged(what: str) -> StoreCorrupt:
    """The error for records that contradict each other."""
    return StoreCorrupt(f"{what}; `jobq check` lists what is wrong")


def read_due(
    tx: Transaction,
    agenda: Agenda,
    held: Sequence[Held],
    read: Callable[[Sequence[bytes]], list[T]],
) -> list[tuple[Held, T]]:
    """What *read* gives of each job that is due in an agenda.

    A job that cannot be read is taken out of the agenda, and stands nowhere then, until a repair
    counts it out: or it would stop every write from now on.
    """
    try:
        return list(zip(held, read([place.id for place in held]), strict=True))
    except StoreCorrupt:
        found = []
        for place in held:
            try:
                (one,) = read([place.id])
            except StoreCorrupt as error:
                _log.error(
                    "job %s is due in %s and cannot be read (%s): it is set aside; `jobq check` "
                    "tells more",
                    name_of(place.id), agenda.name, error,
                )  # fmt: skip
                tx.topics.unhold(agenda, [place])
            else:
                found.append((place, one))
        return found
