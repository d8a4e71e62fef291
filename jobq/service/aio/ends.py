"""Waiting for the ends of jobs, and for other signs: one thread for all coroutines of a service."""

import contextlib
import threading
import time
from queue import Empty, SimpleQueue
from typing import Final

from jobq.errors import StoreUnavailable
from jobq.job import name_of
from jobq.service.aio.requests import Awaiting, Watch, post
from jobq.service.holding import Holding
from jobq.service.job import Job, not_found
from jobq.states import FINISHED

LONGEST_SLEEP_S: Final = 1.0
LINGER_S: Final = 1.0
"""Without anybody who waits the thread stays for so long."""

LOOK_S: Final = 2.0
"""All jobs are looked at this often, should a call have been lost: its process may be killed."""


class Ends:
    """Tells coroutines of the ends of jobs.

    Args:
        holding: The service's way to the store.
    """

    def __init__(self, holding: Holding) -> None:
        self._holding = holding
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._newcomers: SimpleQueue[Awaiting | Watch | None] = SimpleQueue()
        self._waiting: dict[bytes, list[Awaiting]] = {}
        self._watching: dict[bytes, list[Watch]] = {}
        self._seen: dict[bytes, int | None] = {}
        self._look_at = 0.0

    def tell(self, requests: list[Awaiting | Watch]) -> None:
        """Tell these when their jobs have ended, or their signs are given.

        Called by the thread that writes.
        """
        with self._lock:
            for request in requests:
                self._newcomers.put(request)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="jobq-ends", daemon=True)
                self._thread.start()
        # The thread may be about to sleep, or asleep. It looks at what it has not seen before it
        # sleeps, and is woken if it has looked already: so these are looked at now.
        for request in requests:
            for one in request.signs if isinstance(request, Watch) else (request.job_id,):
                self._seen.setdefault(one, None)
        with contextlib.suppress(StoreUnavailable):  # closed: then it does not sleep
            self._holding.store.wake()

    def close(self) -> None:
        """End the thread. The service is stopped, and the store's waiters were woken."""
        with self._lock:
            thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            self._newcomers.put(None)
            thread.join()

    # The thread.

    def _run(self) -> None:
        while True:
            self._let_in()
            if self._holding.stopped:
                self._answer(list(self._waiting), None)
                self._dismiss()
                if self._end():
                    return
            elif self._waiting or self._watching:
                self._look()
            elif not self._linger():
                return

    def _let_in(self) -> None:
        with contextlib.suppress(Empty):
            while True:
                self._add(self._newcomers.get_nowait())

    def _add(self, request: Awaiting | Watch | None) -> None:
        if isinstance(request, Watch):
            for sign in request.signs:
                self._watching.setdefault(sign, []).append(request)
                if self._seen.setdefault(sign, None) is not None:
                    # Asked for already, for others: it may have been given since this one looked.
                    request.tell()
        elif request is not None:
            self._waiting.setdefault(request.job_id, []).append(request)
            self._seen.setdefault(request.job_id, None)

    def _look(self) -> None:
        """Sleep until a job may have ended, and answer for those that have."""
        store = self._holding.store
        try:
            called = store.wait_ended(self._seen, LONGEST_SLEEP_S)
            self._let_in()
            if time.monotonic() >= self._look_at:
                self._forget_unwanted()
                self._look_at = time.monotonic() + LOOK_S
                called = [*self._waiting, *self._watching]
            called = self._tell(called)
            if not called:
                return
            statuses = store.status(called)
            ended = [
                job_id
                for job_id, status in zip(called, statuses, strict=True)
                if status is None or status in FINISHED
            ]
            for job_id, record in zip(ended, store.get(ended), strict=True):
                if record is None:
                    self._answer([job_id], not_found(name_of(job_id)), failed=True)
                elif record.finished:  # not reset meanwhile
                    self._answer([job_id], record)
        except Exception as error:  # noqa: BLE001 - it goes to who waits
            # Who waits in a closed service is told so where it looks for the last time.
            closed = isinstance(error, StoreUnavailable) and self._holding.closed
            self._answer(list(self._waiting), None if closed else error, failed=not closed)
            self._dismiss(None if closed else error)

    def _tell(self, called: list[bytes]) -> list[bytes]:
        """Tell those whose signs were given; gives the jobs among what was called."""
        told = {id(watch): watch for one in called for watch in self._watching.get(one, ())}
        for watch in told.values():
            watch.tell()
        return [one for one in called if one not in self._watching]

    def _dismiss(self, error: Exception | None = None) -> None:
        """Tell all who watch for the last time: the service is stopped, or something is wrong."""
        watches = {id(watch): watch for some in self._watching.values() for watch in some}
        for sign in self._watching:
            self._seen.pop(sign, None)
        self._watching.clear()
        for watch in watches.values():
            if error is not None:
                watch.fail(error)
            else:
                watch.tell()

    def _answer(self, job_ids: list[bytes], value: object, *, failed: bool = False) -> None:
        answered: list[Awaiting] = []
        for job_id in job_ids:
            self._seen.pop(job_id, None)
            for request in self._waiting.pop(job_id, ()):
                if request.claim():
                    request.value, request.failed = value, failed
                    answered.append(request)
        post(answered, _nothing)

    def _forget_unwanted(self) -> None:
        for job_id, requests in self._waiting.copy().items():
            requests[:] = [request for request in requests if not request.unwanted]
            if not requests:
                self._answer([job_id], None)
        for sign, watches in self._watching.copy().items():
            watches[:] = [watch for watch in watches if not watch.unwanted]
            if not watches:
                del self._watching[sign]
                self._seen.pop(sign, None)

    def _linger(self) -> bool:
        """Wait for somebody to come; false if the thread has ended, because nobody did."""
        try:
            self._add(self._newcomers.get(timeout=LINGER_S))
        except Empty:
            return not self._end()
        return True

    def _end(self) -> bool:
        with self._lock:
            if not self._newcomers.empty():
                return False
            self._thread = None
            return True


def _nothing(jobs: list[Job]) -> None:
    """There are no jobs to be given back in these answers."""
