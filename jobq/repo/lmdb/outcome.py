"""What became of a commit that has ended by an error or an interrupt: did it take effect?

It is found out by its number, which the meta record names. What that is read from may be other than
what the disk has: see `doubt`.
"""

from typing import Any

import lmdb

from jobq import ids
from jobq.errors import JobqError, OutcomeUnknown
from jobq.repo.lmdb.access import META_KEY
from jobq.repo.lmdb.faults import translating
from jobq.repo.lmdb.group import Pending
from jobq.repo.lmdb.openfile import OpenFile
from jobq.repo.lmdb.opening import open_databases
from jobq.repo.lmdb.records import decode_meta


def find_out(
    file: OpenFile,
    number: int,
    error: BaseException,
    group: list[Pending],
    outcomes: list[Any],
) -> bool | None:
    """Whether commit *number* took effect although it ended by an error or an interrupt.

    Under the file lock nobody else can have committed since. None, with the operations
    finished as `OutcomeUnknown`, if that cannot be found out either.
    """
    try:
        with translating(file.path):
            there, head_failed = _look_for(file, number)
            if head_failed or isinstance(error, lmdb.Error):
                file.doubt()
                try:
                    file.settle(file.open())
                except OSError:
                    # Without a head that was written before the failure it is not there.
                    if there or head_failed:
                        raise
            return there
    except JobqError as failure:
        for pending, outcome in zip(group, outcomes, strict=True):
            unknown = OutcomeUnknown(
                f"a commit failed ({error}) and it cannot be found out whether it took "
                f"effect ({failure}): look at the jobs, or repeat the call if that is harmless",
                _ids_in(outcome),
            )
            unknown.__cause__ = error
            pending.finish(None, unknown)
        return None


def _look_for(file: OpenFile, number: int) -> tuple[bool, bool]:
    """Whether commit *number* can be read, and whether it failed in writing its head.

    LMDB panics if that fails, and only then.
    """
    head_failed = False
    try:
        env = file.open()
        txn = env.begin()
    except lmdb.PanicError:
        head_failed = True
        env = file.reopen()
        txn = env.begin()
    try:
        db = file.db or open_databases(env, txn)
        data = txn.get(META_KEY, db=db.meta)
    finally:
        txn.abort()
    there = data is not None and decode_meta(META_KEY, bytes(data)).group >= number
    return there, head_failed


def _ids_in(outcome: Any) -> tuple[str, ...]:
    """The jobs that an operation added or reserved."""
    found = outcome if isinstance(outcome, list) else getattr(outcome, "reserved", [])
    raw = [getattr(one, "id", one) for one in found]
    return tuple(ids.to_text(one) for one in raw if isinstance(one, bytes))
