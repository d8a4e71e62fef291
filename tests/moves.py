"""The moves of a job as the design lists them, written down once more.

`jobq.states.TRANSITIONS` is what the stores themselves ask. A test that asked it too would agree
with every mistake in it.
"""

from collections.abc import Mapping
from typing import Final

from jobq.states import Event, Status

_READY, _DELAYED, _RESERVED, _DONE, _CANCELED = Status

MOVES: Final[Mapping[tuple[Status | None, Event], frozenset[Status]]] = {
    (None, Event.ENQUEUE): frozenset({_READY, _DELAYED}),
    (_DELAYED, Event.PROMOTE): frozenset({_READY}),
    (_READY, Event.RESERVE): frozenset({_RESERVED}),
    (_RESERVED, Event.DONE): frozenset({_DONE}),
    (_RESERVED, Event.RETRY): frozenset({_DELAYED, _READY, _CANCELED}),
    (_RESERVED, Event.RELEASE): frozenset({_READY, _DELAYED}),
    (_RESERVED, Event.EXTEND): frozenset({_RESERVED}),
    (_RESERVED, Event.EXPIRE): frozenset({_READY, _CANCELED}),
    (_READY, Event.CANCEL): frozenset({_CANCELED}),
    (_DELAYED, Event.CANCEL): frozenset({_CANCELED}),
    (_RESERVED, Event.CANCEL): frozenset({_CANCELED}),
    (_READY, Event.LAPSE): frozenset({_CANCELED}),
    (_DELAYED, Event.LAPSE): frozenset({_CANCELED}),
    (None, Event.DROP): frozenset({_CANCELED}),
    (_READY, Event.DROP): frozenset({_CANCELED}),
    (_DONE, Event.RESET): frozenset({_READY}),
    (_CANCELED, Event.RESET): frozenset({_READY}),
    (_READY, Event.EDIT): frozenset({_READY, _DELAYED}),
    (_DELAYED, Event.EDIT): frozenset({_READY, _DELAYED}),
    # An empty set: the job is gone afterwards.
    (_READY, Event.DELETE): frozenset(),
    (_DELAYED, Event.DELETE): frozenset(),
    (_DONE, Event.DELETE): frozenset(),
    (_CANCELED, Event.DELETE): frozenset(),
    (_DONE, Event.PRUNE): frozenset(),
    (_CANCELED, Event.PRUNE): frozenset(),
}
