"""One thread that writes for all coroutines of a service: what waits together is one commit."""

import atexit
import logging
import os
import threading
import weakref
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from queue import Empty, SimpleQueue
from typing import Final, TypeVar

from jobq import ids
from jobq.errors import OutcomeUnknown, StoreBusy, StoreLocked, StoreUnavailable
from jobq.job import Settlement
from jobq.repo.base import ReserveRequest
from jobq.service.aio.ends import Ends
from jobq.service.aio.lines import Lines
from jobq.service.aio.requests import Ask, Awaiting, Enqueue, Extend, Request, Settle, Watch, post
from jobq.service.holding import Holding
from jobq.service.job import Job
from jobq.shares import Mix
from jobq.states import Outcome

R = TypeVar("R", bound=Request)

_log = logging.getLogger("jobq")

MOST_JOBS: Final = 10_000
"""Jobs in one commit: it bounds how long the write lock is held."""

MOST_BYTES: Final = 64 * 1024 * 1024
"""Bytes of payloads and results in one commit."""

LOOKERS: Final = 16
"""Threads that reserve at the same time when coroutines ask for several topics at once; the
store's group commit makes one commit of what they do."""

FLUSH_S: Final = 10.0
"""Seconds for which the end of the program waits for what is still to be written."""

NOT_ONES_OWN: Final = (StoreBusy, StoreUnavailable, StoreLocked, OutcomeUnknown)
"""Errors that say nothing of a single request: trying each alone would end the same, or worse."""


class Writer:
    """Takes requests from any thread and carries them out in one of its own, merged.

    Args:
        holding: What the service holds, and its way to the store.
    """

    def __init__(self, holding: Holding) -> None:
        self._holding = holding
        self._lines = Lines(holding, self.give_back)
        self._ends = Ends(holding)
        self._pid = os.getpid()
        # May be put into from a finaliser in the middle of anything, unlike a condition.
        self._queue: SimpleQueue[tuple[Request, ...] | None] = SimpleQueue()
        self._starting = threading.Lock()
        self._thread: threading.Thread | None = None
        self._lookers: ThreadPoolExecutor | None = None
        self._ended = False

    # What coroutines and finalisers call.

    def submit(self, *requests: Request) -> None:
        """Have the requests carried out, all in the same round."""
        if self._thread is None:
            self._start()
        self.hand_in(*requests)

    def hand_in(self, *requests: Request) -> None:
        """`submit` for a finaliser, which must not start a thread: one is there already."""
        self._queue.put(requests)
        if self._ended:  # after putting: either it was still seen, or this is seen here
            self._refuse()

    def give_back(self, jobs: list[Job]) -> None:
        """Release jobs that no coroutine will ever get."""
        if jobs:
            self.hand_in(Settle(None, jobs, [job._release(0) for job in jobs], last=True))

    def flush(self, timeout: float) -> None:
        """Wait until what was handed in so far is written."""
        if self._thread is not None and not self._ended and self._pid == os.getpid():
            written = threading.Event()
            self.hand_in(Settle(None, [], [], then=lambda _: written.set()))
            written.wait(timeout)

    def close(self) -> None:
        """Write what was handed in, and end the thread. What comes later is refused."""
        self._lines.close()  # first: what they give back is still written
        self._ends.close()
        with self._starting:
            thread = self._thread
            if thread is None:
                self._ended = True
        self._queue.put(None)
        if thread is not None and thread is not threading.current_thread():
            thread.join()
        if self._lookers is not None:
            self._lookers.shutdown()
        self._refuse()

    def _start(self) -> None:
        with self._starting:
            if self._holding.closed:  # nobody will close this any more
                self._ended = True
            elif self._thread is None and not self._ended:
                self._thread = threading.Thread(target=self._run, name="jobq-writes", daemon=True)
                self._thread.start()
                _writers.add(self)

    def _refuse(self) -> None:
        """Answer what came after the end: the service is closed by then."""
        late: list[Request] = []
        self._drain(late)
        closed = StoreUnavailable("this service is closed: open another")
        answered: list[Request] = []
        for request in late:
            if isinstance(request, Ask):
                self._lines.send_away([request])
            elif request.claim():
                if not isinstance(request, Awaiting):
                    request.fail(closed)
                answered.append(request)
        self._answered(answered)

    # The thread.

    def _run(self) -> None:
        while self._go_on():
            pass
        self._ended = True
        rest: list[Request] = []
        self._drain(rest)
        self._surely_answer(rest)

    def _go_on(self) -> bool:
        """One round; false if it was the last. It keeps nothing of it while it waits for more:
        a coroutine whose loop is gone can only be cleared away when nobody refers to it.
        """
        requests, going = self._gather()
        self._surely_answer(requests)
        return going

    def _surely_answer(self, requests: list[Request]) -> None:
        """A round; should it fail in a way nobody thought of, no coroutine waits for ever."""
        try:
            self._round(requests)
        except Exception as error:  # noqa: BLE001 - it goes to who asked, whatever it is
            _log.exception("the requests of %d coroutines failed", len(requests))
            for request in requests:
                if not isinstance(request, Ask) or request.answer(error, failed=True):
                    request.fail(error)
            post(requests, self.give_back)

    def _gather(self) -> tuple[list[Request], bool]:
        """What waits, up to the bounds; and whether there is to be another round."""
        requests: list[Request] = []
        jobs = size = 0
        unit = self._queue.get()
        try:
            while unit is not None:
                for request in unit:
                    requests.append(request)
                    jobs += request.jobs
                    size += request.size
                if jobs >= MOST_JOBS or size >= MOST_BYTES:
                    return requests, True
                unit = self._queue.get_nowait()
        except Empty:
            return requests, True
        return requests, False

    def _drain(self, requests: list[Request]) -> None:
        try:
            while True:
                requests.extend(self._queue.get_nowait() or ())
        except Empty:
            return

    def _round(self, requests: list[Request]) -> None:
        """Carry out all of them: one commit for each kind."""
        enqueues: list[Enqueue] = []
        extends: list[Extend] = []
        settles: list[Settle] = []
        asks: dict[str | Mix, list[Ask]] = {}
        awaiting: list[Awaiting | Watch] = []
        for request in requests:
            if isinstance(request, Ask):
                if not request.unwanted:
                    asks.setdefault(request.request.topic, []).append(request)
            elif isinstance(request, Awaiting | Watch):
                awaiting.append(request)
            elif request.unwanted or not request.claim():
                pass  # withdrawn
            elif isinstance(request, Settle):
                settles.append(request)
            elif isinstance(request, Enqueue):
                enqueues.append(request)
            elif isinstance(request, Extend):
                extends.append(request)
        if awaiting:
            self._ends.tell(awaiting)
        # What was given back or settled is to be seen by who asks, and what was enqueued too.
        self._merged(extends, self._extend)
        self._merged(enqueues, self._enqueue)
        self._settle_and_reserve(settles, asks)

    def _merged(self, requests: list[R], carry_out: Callable[[list[R]], object]) -> None:
        """Carry out all at once; if that is refused, halves, down to the one that it is about."""
        if not requests:
            return
        try:
            carry_out(requests)
        except Exception as error:  # noqa: BLE001 - whatever it is, it goes to who asked
            if len(requests) > 1 and not isinstance(error, NOT_ONES_OWN):
                half = len(requests) // 2
                self._merged(requests[:half], carry_out)
                self._merged(requests[half:], carry_out)
                return
            _fail(requests, error)
        self._answered(requests)

    def _answered(self, requests: Sequence[Request]) -> None:
        for request in requests:
            if isinstance(request, Settle) and request.then is not None:
                request.then(request.value if request.failed else request.value[0])
        post(requests, self.give_back)

    def _enqueue(self, requests: list[Enqueue]) -> None:
        added = self._holding.store.enqueue([spec for one in requests for spec in one.specs])
        start = 0
        for one in requests:
            one.value = added[start : start + one.jobs]
            start += one.jobs

    def _extend(self, requests: list[Extend]) -> None:
        outcomes = self._holding.extend_many([hold for one in requests for hold in one.holds])
        start = 0
        for one in requests:
            one.value = outcomes[start : start + one.jobs]
            start += one.jobs

    def _settle_and_reserve(self, settles: list[Settle], asks: dict[str | Mix, list[Ask]]) -> None:
        """Settle, and reserve of the topic or mix that most ask for in the same commit."""
        lines = self._lines
        if not asks or lines.stopped:
            self._merged(settles, self._settle)
            for some in asks.values():
                lines.send_away(some)
            return
        topics = sorted(asks, key=lambda topic: len(asks[topic]))
        chosen = asks[topics.pop()]
        for topic in topics:
            self._elsewhere(asks[topic])
        if not settles:
            lines.look(chosen)
            return
        try:
            jobs = self._settle(settles, lines.request(chosen))
        except Exception as error:  # noqa: BLE001 - it goes to whom it is about
            if isinstance(error, NOT_ONES_OWN):
                _fail(settles, error)
                self._answered(settles)
                lines.fail(chosen, error)
            else:
                self._merged(settles, self._settle)
                lines.look(chosen)
            return
        self._answered(settles)
        lines.hand_out(chosen, jobs, again=True)

    def _settle(self, requests: list[Settle], reserve: ReserveRequest | None = None) -> list[Job]:
        """Settle; gives the jobs reserved in the same commit."""
        held: list[Job] = []
        settlements: list[Settlement] = []
        places: list[tuple[Settle, int]] = []
        for one in requests:
            one.value = ([Outcome.OK] * one.jobs, [[] for _ in one.held])
            for place, job in enumerate(one.held):
                if not (one.last and job.settled):
                    held.append(job)
                    settlements.append(one.settlements[place])
                    places.append((one, place))
        if not held:
            return self._holding.reserve(reserve) if reserve else []
        outcomes, follow_ids, jobs = self._holding.settle_and_reserve(held, settlements, reserve)
        for position, (one, place) in enumerate(places):
            one.value[0][place] = outcomes[position]
            one.value[1][place] = [ids.to_text(raw) for raw in follow_ids[position]]
        return jobs

    def _elsewhere(self, asks: list[Ask]) -> None:
        """Look for jobs in another thread: then several topics are one commit of the store."""
        if self._lookers is None:
            self._lookers = ThreadPoolExecutor(LOOKERS, thread_name_prefix="jobq-reserves")
        self._lookers.submit(self._lines.look, asks)


def _fail(requests: Sequence[Request], error: Exception) -> None:
    for request in requests:
        request.fail(error)


_writers: "weakref.WeakSet[Writer]" = weakref.WeakSet()


def _flush_all() -> None:
    """At the end of a program that does not close its services: what was handed in is written."""
    for writer in list(_writers):
        writer.flush(FLUSH_S)


atexit.register(_flush_all)
