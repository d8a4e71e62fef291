"""Who has a queue open, together with others or alone; and who is making or replacing its file."""

import fcntl
import os
import time
from functools import partial
from pathlib import Path
from typing import Final

from jobq.errors import StoreBusy, StoreLocked, StoreUnavailable
from jobq.repo.lmdb.flocks import NAMELESS, TRY, Flock, flock_holder

PATIENCE_S: Final = 1.0
"""Who finds a queue open in a way that excludes him looks again for so long: a look at it with
`jobq stats` must not keep a program from starting."""

PATIENCE_NAP_S: Final = 0.01
MAKING_NAP_S: Final = 0.001

_TOGETHER: Final = fcntl.LOCK_SH | fcntl.LOCK_NB


class OpenLock(Flock):
    """Having a queue open: together with others, or alone.

    A lock on the data file itself, so nobody can remove the lock and leave the queue. LMDB's own
    locks are POSIX locks on another file, and know nothing of this one.

    Raises:
        StoreLocked: Somebody else has it alone, or has it at all and it was to be had alone.
        OSError: The file cannot be opened.
    """

    def __init__(self, data: Path, *, alone: bool, patience: float) -> None:
        super().__init__(data)
        self._data = data
        try:
            self._wait(alone=alone, until=time.monotonic() + min(patience, PATIENCE_S))
        except BaseException:
            self.close()
            raise

    def refuse_other_than(self, file: tuple[int, int]) -> None:
        """Raise unless it is this file that is locked: device and inode.

        Raises:
            StoreUnavailable: Another one stands under its name.
        """
        found = os.fstat(self._fd)
        if (found.st_dev, found.st_ino) != file:
            raise StoreUnavailable(f"{self._data} was replaced while it was opened: open it again")

    def _wait(self, *, alone: bool, until: float) -> None:
        while not self.take(TRY if alone else _TOGETHER):
            if time.monotonic() >= until:
                raise StoreLocked(_says_who_is_in(self._data, alone=alone))
            time.sleep(PATIENCE_NAP_S)


class MakingLock(Flock):
    """Having a queue's directory alone: to make the data file, to put another one in its place, and
    to clear away what those have left who were killed while they did so.

    Whoever opens a queue has it for a moment.

    Raises:
        StoreLocked: The queue is compacted or restored meanwhile; the message says by whom.
        StoreBusy: Somebody else has it for as long as *patience* lasts; likewise.
        OSError: The directory cannot be opened.
    """

    def __init__(self, directory: Path, data: Path, patience: float) -> None:
        super().__init__(directory)
        self._directory = directory
        self._data = data
        try:
            self._wait(patience)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> None:
        """It is had already."""

    def __exit__(self, *_: object) -> None:
        self.close()

    def _wait(self, patience: float) -> None:
        start = time.monotonic()
        while not self.take():
            waited = time.monotonic() - start
            who = partial(flock_holder, self._directory)
            if waited >= min(patience, PATIENCE_S) and self._is_replaced():
                raise StoreLocked(
                    f"{self._directory} is being compacted or restored by {who() or NAMELESS}: "
                    "try again when that is done"
                )
            if waited >= patience:
                raise StoreBusy(
                    f"waited {waited:.1f} s for {self._directory}, which is being made or opened "
                    f"by {who() or NAMELESS}"
                )
            time.sleep(MAKING_NAP_S)

    def _is_replaced(self) -> bool:
        """Whether somebody has the queue open alone, as who has its directory for long."""
        try:
            OpenLock(self._data, alone=False, patience=0.0).close()
        except StoreLocked:
            return True
        except FileNotFoundError:
            return False  # it is being made
        return False


def _says_who_is_in(data: Path, *, alone: bool) -> str:
    who = flock_holder(data) or NAMELESS
    if alone:
        return (
            f"{data.parent} is open in {who}: with its topics in memory a queue is for one process "
            "alone; close it there first"
        )
    return (
        f"{data.parent} is open in {who}, alone, since its topics are in the memory of that "
        "process, or it is salvaged: use it there, or close it there first"
    )
