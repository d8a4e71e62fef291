"""Beside a thread that only computes: how not to lose a slice of time at every call of LMDB.

py-lmdb gives the interpreter away for each of its calls. If another thread of the process only
computes, it takes the interpreter each time, and keeps it for a *slice*: `sys.setswitchinterval`,
5 ms unless somebody has changed it. A transaction of a batch makes hundreds of calls, and holds the
write lock all the while: measured, 0.2 s for 100 jobs.

So when transactions are found to lose slices, the next ones shorten them, and put back what was
there when they are over. Not always, because threads that all want to write hand the interpreter on
by themselves, and shorter slices cost them a third.
"""

import sys
import threading
import time
from collections.abc import Callable
from functools import partial
from typing import Final, TypeVar

from jobq.repo.surely import surely

T = TypeVar("T")

SHORT_S: Final = 0.0005
"""Shorter ones gain next to nothing: a life of 100 jobs took 22 ms with 5 ms, 4.0 ms with this, and
3.6 ms with 0.1 ms."""

LOST_S: Final = 0.004
"""What took so much longer than it computed has lost a slice; work itself waits for nothing."""

WHILE_S: Final = 1.0
"""So long slices are shortened, until it is looked again."""


class Slices:
    """Whether the transactions of one environment lose slices.

    Args:
        now: Seconds on a clock that only goes on.
        computed: Seconds for which this thread has computed.
    """

    def __init__(
        self,
        now: Callable[[], float] = time.monotonic,
        computed: Callable[[], float] = time.thread_time,
    ) -> None:
        self._now = now
        self._computed = computed
        self._short_until = 0.0
        self._suspicious = False

    def run(self, work: Callable[[], T]) -> T:
        """Do what waits for nothing but the interpreter."""
        start = self._now()
        if start < self._short_until:
            return _in_short_slices(work)
        before = self._computed() if self._suspicious else None  # which is a system call
        outcome = work()
        took = self._now() - start
        slow = took > LOST_S
        if slow and before is not None and took - (self._computed() - before) > LOST_S:
            self._short_until = start + took + WHILE_S
        self._suspicious = slow and before is None
        return outcome


class _Interval:
    """The interpreter's switch interval, which is one for the whole process."""

    def __init__(self) -> None:
        self._mutex = threading.Lock()
        self._shortening: set[object] = set()
        self._usual_s = 0.0

    def shorten(self, who: object) -> None:
        """Until `put_back`; who shortens it, and others do already, changes nothing."""
        with self._mutex:
            if not self._shortening:
                self._usual_s = sys.getswitchinterval()
            self._shortening.add(who)
            if self._usual_s > SHORT_S:
                sys.setswitchinterval(SHORT_S)

    def put_back(self, who: object) -> None:
        """As it was, if nobody else shortens it; harmless to repeat."""
        with self._mutex:
            last = who in self._shortening and len(self._shortening) == 1
            # Unless somebody else has set it meanwhile.
            if last and abs(sys.getswitchinterval() - SHORT_S) < SHORT_S / 100:
                sys.setswitchinterval(max(self._usual_s, SHORT_S))
            self._shortening.discard(who)


_INTERVAL: Final = _Interval()


def _in_short_slices(work: Callable[[], T]) -> T:
    me = object()
    try:
        _INTERVAL.shorten(me)
        return work()
    finally:
        surely(partial(_INTERVAL.put_back, me))
