"""Every error that jobq raises, as one tree under `JobqError`.

A caller who wants to be safe catches `JobqError`; nothing of an engine (LMDB, the operating
system) comes through. Only a `wait` whose time is over raises Python's own `TimeoutError`. Each
class is something that a caller may want to handle differently; its message is a sentence with the
values in it.
"""

from typing import Final

LONGEST_SHOWN: Final = 60


class JobqError(Exception):
    """The root: anything that jobq refuses or cannot do."""


class InvalidValue(JobqError, ValueError):
    """An argument of the wrong type, out of range, or not storable. Nothing was written."""


class PayloadTooLarge(InvalidValue):
    """A payload or result is larger than the limit. Nothing was written."""


class InvalidTransition(JobqError):
    """The job is in a state from which this move does not exist. Nothing changed."""


class ReservationLost(JobqError):
    """The caller no longer holds the job: lease over, canceled, or already settled otherwise.

    Nothing changed. Somebody else may be working on the job by now.
    """


class JobNotFound(JobqError):
    """No job has this id: it never existed, was deleted, or its retention is over.

    Likewise for what else a caller names that is not there: a unique key, a group.
    """


class StoreFull(JobqError):
    """No room for new jobs: the map, the quota or the disk is full. Nothing was written.

    Reserve, done and cancel go on working, so a full queue can be drained.
    """


class QueueFull(JobqError):
    """A topic or the store has as many jobs waiting as its settings allow, or takes no new ones.

    Nothing was written.
    """


class UniqueConflict(JobqError):
    """Another job has the unique key. Nothing was written.

    Attributes:
        job_id: The job that has it, in text; empty if it is not known any more.
    """

    def __init__(self, message: str, job_id: str = "") -> None:
        super().__init__(message)
        self.job_id = job_id


class StoreCorrupt(JobqError):
    """A file or a record is damaged, or is not of a format that this jobq reads."""


class StoreLocked(JobqError):
    """Another process holds the store in a way that excludes this one."""


class StoreBusy(JobqError):
    """The write lock was not to be had in time; the message names the process that holds it.

    Likewise the directory of a queue that another process is about to make.

    Nothing was written.
    """


class StoreUnavailable(JobqError):
    """The store cannot be reached or written: closed, moved away, read-only, no permission, I/O.

    Nothing was written by the call that raised it.
    """


class OutcomeUnknown(JobqError):
    """A commit failed and it could not be found out whether it took effect.

    Attributes:
        ids: The jobs that the call was about, as far as they are known.
    """

    def __init__(self, message: str, ids: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.ids = ids


class ReentrantCall(JobqError):
    """A call into the store from a signal handler or finaliser that interrupted one.

    The interrupted call on the same thread has to end first; nothing was written.
    """


def shown(value: object) -> str:
    """*value* as error messages show it: its repr, cut short, or its type if it has none.

    >>> shown("mail"), shown("x" * 100)
    ("'mail'", "'xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx…")
    """
    try:
        text = str.__str__(repr(value))
    except Exception:  # noqa: BLE001 - a repr may fail in any way, that of a huge int does
        text = f"a {type(value).__qualname__}"
    return text if len(text) <= LONGEST_SHOWN else text[:LONGEST_SHOWN] + "…"
