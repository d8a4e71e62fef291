"""The life of a job: five states, the events that move it, and the reasons of a canceled one.

Rules of this module:

1. Everything that says which move exists stands in `TRANSITIONS`. The stores ask it before
   every change; the documents draw themselves from it.
2. A move that is not in the table raises `InvalidTransition` and changes nothing.
3. Where an event has several targets (a retry may make a job delayed, ready or canceled), the
   caller's arguments choose among them, never the state that the job was in.
4. Holding is not a state of its own: who may settle a reserved job is decided by its token.
"""

from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType

from jobq.errors import InvalidTransition


class Status(StrEnum):
    """Where a job is. Exactly these five."""

    __hash__ = str.__hash__  # as equal as the texts are; and it is no function of Python's

    READY = "ready"
    DELAYED = "delayed"
    RESERVED = "reserved"
    DONE = "done"
    CANCELED = "canceled"


class Event(StrEnum):
    """What can happen to a job."""

    __hash__ = str.__hash__  # as equal as the texts are; and it is no function of Python's

    ENQUEUE = "enqueue"
    PROMOTE = "promote"
    RESERVE = "reserve"
    DONE = "done"
    RETRY = "retry"
    RELEASE = "release"
    EXTEND = "extend"
    EXPIRE = "expire"
    CANCEL = "cancel"
    RESET = "reset"
    EDIT = "edit"
    LAPSE = "lapse"
    DROP = "drop"
    DELETE = "delete"
    PRUNE = "prune"


class Reason(StrEnum):
    """Why a job is canceled: a closed set. Free text is kept apart, as the job's error."""

    __hash__ = str.__hash__  # as equal as the texts are; and it is no function of Python's

    CANCELED = "canceled"  # by somebody
    REJECTED = "rejected"  # its holder said that it can never succeed
    EXHAUSTED = "exhausted"  # its retries are used up
    EXPIRED = "expired"  # its deadline passed before it ran
    POISON = "poison"  # its holders kept dying
    DROPPED = "dropped"  # its topic was full, and it had to go


class Outcome(StrEnum):
    """What became of one job in a verb on several; answers come by position."""

    __hash__ = str.__hash__  # as equal as the texts are; and it is no function of Python's

    OK = "ok"
    STALE = "stale"  # the caller does not hold the job any more
    MISSING = "missing"  # no such job
    INVALID = "invalid"  # the job is in a state without this move
    CONFLICT = "conflict"  # the job's unique key is held by another job


FINISHED = frozenset({Status.DONE, Status.CANCELED})

UNFINISHED = frozenset(Status) - FINISHED

TRANSITIONS: Mapping[tuple[Status | None, Event], frozenset[Status]] = MappingProxyType(
    {
        (None, Event.ENQUEUE): frozenset({Status.READY, Status.DELAYED}),
        (Status.DELAYED, Event.PROMOTE): frozenset({Status.READY}),
        (Status.READY, Event.RESERVE): frozenset({Status.RESERVED}),
        (Status.RESERVED, Event.DONE): frozenset({Status.DONE}),
        (Status.RESERVED, Event.RETRY): frozenset({Status.DELAYED, Status.READY, Status.CANCELED}),
        (Status.RESERVED, Event.RELEASE): frozenset({Status.DELAYED, Status.READY}),
        (Status.RESERVED, Event.EXTEND): frozenset({Status.RESERVED}),
        (Status.RESERVED, Event.EXPIRE): frozenset({Status.READY, Status.CANCELED}),
        (Status.READY, Event.CANCEL): frozenset({Status.CANCELED}),
        (Status.DELAYED, Event.CANCEL): frozenset({Status.CANCELED}),
        (Status.RESERVED, Event.CANCEL): frozenset({Status.CANCELED}),
        (Status.READY, Event.LAPSE): frozenset({Status.CANCELED}),
        (Status.DELAYED, Event.LAPSE): frozenset({Status.CANCELED}),
        (None, Event.DROP): frozenset({Status.CANCELED}),
        (Status.READY, Event.DROP): frozenset({Status.CANCELED}),
        (Status.DONE, Event.RESET): frozenset({Status.READY}),
        (Status.CANCELED, Event.RESET): frozenset({Status.READY}),
        (Status.READY, Event.EDIT): frozenset({Status.READY, Status.DELAYED}),
        (Status.DELAYED, Event.EDIT): frozenset({Status.READY, Status.DELAYED}),
        # Gone: the job has no state afterwards. A reserved job is canceled first.
        (Status.READY, Event.DELETE): frozenset(),
        (Status.DELAYED, Event.DELETE): frozenset(),
        (Status.DONE, Event.DELETE): frozenset(),
        (Status.CANCELED, Event.DELETE): frozenset(),
        (Status.DONE, Event.PRUNE): frozenset(),
        (Status.CANCELED, Event.PRUNE): frozenset(),
    }
)


ENDS = tuple(
    event for was, event in TRANSITIONS if was is Status.RESERVED and event is not Event.EXTEND
)
"""The events that end a reservation."""


def can_move(status: Status | None, event: Event) -> bool:
    """Whether *event* can happen to a job in *status* (None: a job that is not there yet).

    >>> can_move(Status.READY, Event.RESERVE)
    True
    >>> can_move(Status.DONE, Event.CANCEL)
    False
    """
    return (status, event) in TRANSITIONS


def invalid_transition(job_id: str, status: Status, event: Event) -> InvalidTransition:
    """The error for a move that the table does not have.

    >>> print(invalid_transition("7", Status.DONE, Event.CANCEL))
    job 7 is done: cannot cancel (only ready, delayed, reserved jobs can)
    """
    possible = [str(was) for was in Status if (was, event) in TRANSITIONS]
    only = f" (only {', '.join(possible)} jobs can)"
    return InvalidTransition(f"job {job_id} is {status}: cannot {event}{only}")
