"""Looking for what dead processes hold, in bounded steps.

Who is dead can be told quickly, by the files of holders. What they hold cannot: reservations stand
in the order in which they end, and there may be millions, nearly all of the living. So there is a
walk through all of them, a *round*, of which each step reads no more than a few thousand records.
Where it stopped is remembered in the process; another process walks by itself.

- A round is made when a holder is found to be dead that has a file, from the first record to the
  last. Its files are removed after that: nobody reserves for the dead, so what is not found then is
  not there. Until it is over, each call of who waits or reserves makes a step.
- A round also finds those that have no file, whoever took it away: each holder that it comes to is
  probed. So each process makes one round after opening the queue (its first step at once, then one
  a second while it waits or reserves); and every call of `advance` makes a step of the next one.
"""

import os
import threading
import weakref
from collections.abc import Callable, Collection, Iterable
from typing import Final, NamedTuple

from jobq.repo.entry import Mark
from jobq.repo.repositories import FIRST_PLACE, Agenda, Lost, Place, Span, Transaction

STEP: Final = 4096
"""So many records a step reads when somebody is known to be dead: some 10 ms."""

FEW: Final = 256
"""And when nobody is, in a call that somebody waits for."""

AGENDAS: Final = (Agenda.LEASE, Agenda.LINGER)
"""In this order: when a reserved job is canceled, it goes from the first to the second."""


class At(NamedTuple):
    """How far a round has come: up to this place of the agenda."""

    agenda: Agenda
    place: Place


_START: Final = At(AGENDAS[0], FIRST_PLACE)


class Found(NamedTuple):
    """What a step has read.

    Attributes:
        lost: What dead processes hold there; None if nothing.
        after: Where the next step begins; None if the round is over.
    """

    lost: Lost | None
    after: At | None


class Search:
    """The rounds of one process. Not for several threads: who has `begin` a step is alone.

    Attributes:
        sought: The dead whose files go when the round is over.
        gone: The dead who hold nothing any more.
        at: How far the round has come; None if there is none.
    """

    def __init__(self) -> None:
        self._lock: Final = threading.Lock()
        self._step: weakref.ref[Mark] | None = None
        self.pid: Final = os.getpid()
        self.sought: frozenset[bytes] = frozenset()
        self.gone: frozenset[bytes] = frozenset()
        self.at: At | None = _START

    def begin(self, mark: Mark) -> bool:
        """Whether this step may be made: no other is under way. It lasts until `end`.

        Or until the frame that has the mark is gone: so an interrupt between the two ends it too.
        """
        with self._lock:
            if self._step is not None and self._step() is not None:
                return False
            self._step = weakref.ref(mark)
            return True

    def end(self) -> None:
        """Let others make steps; to be called by who has begun one."""
        self._step = None

    def is_for_a_round(self, dead: Collection[bytes]) -> bool:
        """Whether `seek` is to begin a round for the dead.

        Before that somebody has to write. What a process has committed that was killed before it
        could note so in the lock file, LMDB shows to readers only when the next one has written: a
        round that does not see that ends in vain, and nobody looks for the process any more.
        """
        return not self.gone.issuperset(dead) and not self.hurries

    def seek(self, dead: Collection[bytes], *, anybody: bool) -> None:
        """Begin a round for the dead, unless there is one that is for some already.

        Those who are not among these have to wait for the next one; what this one still comes to
        is found all the same. With *anybody* there is a round, if only for nobody in particular.
        """
        if self.is_for_a_round(dead):
            self.at, self.sought, self.gone = _START, frozenset(dead), frozenset()
        elif anybody and self.at is None:
            self.at, self.sought = _START, frozenset()

    @property
    def hurries(self) -> bool:
        """Whether somebody is sought."""
        return self.at is not None and bool(self.sought)

    def look(
        self, tx: Transaction, most: int, probe: Callable[[Iterable[bytes]], set[bytes]]
    ) -> Found:
        """The next *most* records."""
        spans: list[Span] = []
        lost: set[bytes] = set()
        at = self.at
        while at is not None:
            first, end, looked = tx.topics.holders(at.agenda, at.place, most)
            dead = (first.keys() & self.sought) | probe(first.keys() - self.sought)
            if dead:
                lost |= dead
                spans.append(Span(at.agenda, min(first[holder] for holder in dead), end))
            most -= looked
            at = _next(at.agenda) if end is None else At(at.agenda, end)
            if end is not None:
                break
        return Found(Lost(frozenset(lost), tuple(spans)) if lost else None, at)

    def go_on(self, found: Found, stopped: Span | None) -> None:
        """What was found is settled, but for what begins where it *stopped*."""
        self.at = found.after if stopped is None else At(stopped.agenda, stopped.start)
        if self.at is None:
            self.gone |= self.sought
            self.sought = frozenset()

    def forget(self) -> None:
        """Those that are gone have no files any more."""
        self.gone = frozenset()


def _next(agenda: Agenda) -> At | None:
    after = AGENDAS.index(agenda) + 1
    return At(AGENDAS[after], FIRST_PLACE) if after < len(AGENDAS) else None
