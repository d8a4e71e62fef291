"""One thread for what has to be done while holders work: leases extended, reports written."""

import contextlib
import logging
import os
import threading
import time
from collections.abc import Callable, Iterable
from queue import Empty, SimpleQueue
from typing import Final

from jobq.errors import JobqError, StoreUnavailable
from jobq.repo.base import Store
from jobq.service.job import Job
from jobq.service.reports import Reports
from jobq.states import Outcome

PART: Final = 1 / 3
"""A lease is extended when this part of it is over: two more tries before it ends."""

REPORT_S: Final = 1.0
"""Seconds for which log lines and progress are kept back, where the holder makes no call."""

AGAIN_S: Final = 1.0
"""Seconds until the next try when the store could not be written."""

LONGEST_SLEEP_S: Final = 3600.0

_log = logging.getLogger("jobq")


class Keeper:
    """Extends leases and writes reports in the background. Its thread starts with the first job."""

    def __init__(self, store: Store, reports: Reports) -> None:
        self._store = store
        self._reports = reports
        self._report_at = float("inf")
        self._due: dict[Job, float] = {}
        self._soonest = float("inf")
        # May be put into from a finaliser in the middle of anything, unlike a condition.
        self._calls: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._thread: threading.Thread | None = None
        self._starting: dict[int, threading.RLock] = {}
        self._pid = 0
        self._stopped = False

    def watch(self, jobs: Iterable[Job]) -> None:
        """Keep these jobs' leases until `forget`."""
        self._start()
        now = time.monotonic()
        soonest = float("inf")
        for job in jobs:
            self._due[job] = due = now + job._reservation.lease_us / 1e6 * PART
            soonest = min(soonest, due)
        if soonest < self._soonest:
            self._calls.put(None)

    def forget(self, job: Job) -> None:
        """Let this job's lease run."""
        self._due.pop(job, None)

    def report_soon(self) -> None:
        """Have what holders tell written within `REPORT_S`."""
        self._start()
        if self._report_at == float("inf"):
            self._report_at = time.monotonic() + REPORT_S
            self._calls.put(None)

    def call_soon(self, call: Callable[[], None]) -> None:
        """Have the thread make a call that this one cannot, being inside another."""
        self._start()
        self._calls.put(call)

    def stop(self) -> None:
        """End the thread; what it was asked to call before is called first."""
        self._stopped = True
        self._calls.put(None)
        thread = self._thread
        ours = thread is not None and self._pid == os.getpid()
        if thread is not None and ours and thread is not threading.current_thread():
            thread.join()

    def _start(self) -> None:
        pid = os.getpid()
        if self._pid == pid:
            return
        # At first, and in a fork's child: the thread is not there, the jobs are the parent's.
        # The lock is the process's own, and a finaliser may come here in the middle of it.
        with self._starting.setdefault(pid, threading.RLock()):
            due: dict[Job, float] = {}
            calls: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
            thread = threading.Thread(target=self._run, name="jobq-keeper", daemon=True)
            if self._pid != pid:
                self._due, self._calls, self._thread = due, calls, thread
                self._soonest = self._report_at = float("inf")
                self._pid = pid
                thread.start()

    def _run(self) -> None:
        while True:
            # First as if nothing were due, so that a `watch` in between puts in a call.
            self._soonest = float("inf")
            self._soonest = min(self._due.copy().values(), default=float("inf"))
            sleep = min(min(self._soonest, self._report_at) - time.monotonic(), LONGEST_SLEEP_S)
            call = None
            with contextlib.suppress(Empty):
                call = self._calls.get(timeout=max(0.0, sleep))
            if call is not None:
                self._call(call)
            elif self._stopped and self._calls.empty():
                return
            self._extend()
            self._report()

    def _call(self, call: Callable[[], None]) -> None:
        try:
            call()
        except JobqError:
            _log.exception("what a finaliser left to do could not be done")

    def _extend(self) -> None:
        now = time.monotonic()
        # A copy, made in one step: reading the items makes tuples, making tuples may collect
        # garbage, and a loop that is collected takes its jobs out of here.
        due = [job for job, at in self._due.copy().items() if at <= now]
        if not due:
            return
        try:
            outcomes = self._store.extend(
                [(job._reservation.id, job._reservation.token, job._reservation.lease_us)
                 for job in due]
            )  # fmt: skip
            # Afterwards: what a topic allows may have changed since these jobs were reserved, and
            # what it allows by now is no longer than what they were given, or will be next.
            topics = {job._reservation.topic for job in due}
            longest = {topic: self._store.settings(topic).max_lease for topic in topics}
        except StoreUnavailable:
            for job in due:
                self._due.pop(job, None)
            _log.warning("leases of %d jobs are not extended: the store is gone", len(due))
            return
        except JobqError as error:
            _log.warning("leases of %d jobs are extended later: %s", len(due), error)
            for job in due:
                self._put_off(job, now + AGAIN_S)
            return
        for job, outcome in zip(due, outcomes, strict=True):
            if outcome is Outcome.OK:
                lease, most = job._reservation.lease_us / 1e6, longest[job._reservation.topic]
                self._put_off(job, now + (lease if most is None else min(lease, most)) * PART)
            else:  # lost: its holder learns it at its next call
                self._due.pop(job, None)

    def _report(self) -> None:
        if time.monotonic() < self._report_at:
            return
        self._report_at = float("inf")  # first, so that what is told from now on asks again
        reports = self._reports.take_all()
        if not reports:
            return
        try:
            self._store.report(reports)
        except StoreUnavailable:
            _log.warning("what %d jobs logged is lost: the store is gone", len(reports))
        except JobqError as error:
            _log.warning("what %d jobs logged is written later: %s", len(reports), error)
            for report in reports:
                self._reports.put_back(report)
            self._report_at = time.monotonic() + AGAIN_S

    def _put_off(self, job: Job, until: float) -> None:
        if job in self._due:
            self._due[job] = until
