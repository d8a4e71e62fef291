"""Waiting for jobs: for each topic a line of coroutines, and one thread that waits for them all.

Who asks for several topics at once stands in a line with those who ask for the same mix of them.
"""

import contextlib
import logging
import threading
from collections.abc import Callable, Sequence
from queue import Empty, SimpleQueue
from typing import Final

from jobq.errors import StoreUnavailable
from jobq.repo.base import ReserveRequest
from jobq.service.aio.requests import Ask, post
from jobq.service.holding import Holding
from jobq.service.job import Job
from jobq.shares import Mix

LONGEST_SLEEP_S: Final = 1.0
"""A line looks this often whether anybody still waits in it."""

LINGER_S: Final = 1.0
"""A line without anybody in it stays for so long: who comes next needs no new thread."""

MOST_RESERVED: Final = 10_000
"""Jobs of one reservation, whoever they are for."""

_log = logging.getLogger("jobq")


class Lines:
    """Gives asks their jobs, at once or when there are some. From any thread.

    Args:
        holding: Where jobs come from.
        give_back: What to do with jobs that nobody wants any more.
    """

    def __init__(self, holding: Holding, give_back: Callable[[list[Job]], None]) -> None:
        self.holding = holding
        self.give_back = give_back
        self._lock = threading.Lock()
        self._by_topic: dict[str | Mix, Line] = {}

    @property
    def stopped(self) -> bool:
        """Whether nothing is reserved any more."""
        return self.holding.stopped

    def request(self, asks: Sequence[Ask]) -> ReserveRequest:
        """What to reserve for these asks, all of one topic or mix."""
        wanted = sum([ask.request.n for ask in asks if not ask.unwanted])
        return ReserveRequest(asks[0].request.topic, max(1, min(wanted, MOST_RESERVED)))

    def look(self, asks: Sequence[Ask]) -> None:
        """Reserve for these asks, all of one topic or mix; who gets nothing waits if it can."""
        try:
            jobs = self.holding.reserve(self.request(asks))
        except Exception as error:  # noqa: BLE001 - it goes to who asked
            self.fail(asks, error)
            return
        self.hand_out(asks, jobs)

    def hand_out(self, asks: Sequence[Ask], jobs: list[Job], *, again: bool = False) -> None:
        """Give out what was reserved. With *again*, who cannot wait is looked for once more.

        Settling and reserving in one commit does not look for jobs of dead processes, while
        reserving alone does, or who never waits would never find them.
        """
        leaving: list[Ask] = []
        for ask in self.serve(asks, jobs):
            if not ask.put_off():
                leaving.append(ask)
            elif not self.stopped:
                self._wait(ask)
            else:
                self.send_away([ask])
        if leaving and again and not self.stopped:
            self.look(leaving)
        else:
            self.send_away(leaving)

    def serve(self, asks: Sequence[Ask], jobs: list[Job]) -> list[Ask]:
        """Give the jobs to who came first; gives who is left. Jobs that are left are given back."""
        place = 0
        served: list[Ask] = []
        left: list[Ask] = []
        for ask in asks:
            if place == len(jobs):
                left.append(ask)
                continue
            some = jobs[place : place + ask.request.n]
            if ask.answer(some):
                served.append(ask)
                place += len(some)
        post(served, self.give_back)
        self.give_back(jobs[place:])
        return left

    def send_away(self, asks: Sequence[Ask]) -> None:
        """Answer that there is no job."""
        post([ask for ask in asks if ask.answer([])], self.give_back)

    def fail(self, asks: Sequence[Ask], error: Exception) -> None:
        """Answer with an error; who asks a closed service is told that there is no job."""
        if isinstance(error, StoreUnavailable) and self.holding.closed:
            self.send_away(asks)
        else:
            post([ask for ask in asks if ask.answer(error, failed=True)], self.give_back)

    def close(self) -> None:
        """End the threads. The service is stopped, and the store's waiters were woken."""
        with self._lock:
            lines = list(self._by_topic.values())
        for line in lines:
            line.newcomers.put(None)
        for line in lines:
            if line.thread is not threading.current_thread():
                line.thread.join()

    def _wait(self, ask: Ask) -> None:
        topic = ask.request.topic
        with self._lock:
            line = self._by_topic.get(topic)
            if line is None:
                line = self._by_topic[topic] = Line(self, topic)
                line.thread.start()
            line.newcomers.put(ask)

    def end(self, line: "Line") -> bool:
        """Whether the line may end: nobody has come meanwhile."""
        with self._lock:
            if not line.newcomers.empty():
                return False
            del self._by_topic[line.topic]
            return True


class Line:
    """Who waits for jobs of one topic, or of one mix, first come first served."""

    def __init__(self, lines: Lines, topic: str | Mix) -> None:
        self.topic = topic
        self.newcomers: SimpleQueue[Ask | None] = SimpleQueue()
        self.thread = threading.Thread(target=self._run, name=f"jobq-waits-{topic}", daemon=True)
        self._lines = lines
        self._waiting: list[Ask] = []

    def _run(self) -> None:
        woken = False
        while True:
            self._let_in()
            if self._lines.stopped:
                self._lines.send_away(self._waiting)
                self._waiting = []
                if self._lines.end(self):
                    return
            elif self._waiting or woken:
                # Woken, it reserves even for nobody: the waking was for a job, and nobody else
                # was woken for it. Given back, the job wakes the next waiter, of any process.
                woken = self._serve()
            elif not self._linger():
                return

    def _let_in(self) -> None:
        self._waiting = [ask for ask in self._waiting if not ask.unwanted]
        with contextlib.suppress(Empty):
            while True:
                ask = self.newcomers.get_nowait()
                if ask is not None:
                    self._waiting.append(ask)

    def _serve(self) -> bool:
        """Reserve for all who wait, and sleep if there is no more. True after having slept."""
        lines, store = self._lines, self._lines.holding.store
        try:
            wanted = sum([ask.request.n for ask in self._waiting])
            request = ReserveRequest(self.topic, max(1, min(wanted, MOST_RESERVED)))
            self._waiting = lines.serve(self._waiting, lines.holding.reserve(request))
            if self._waiting:
                store.wait(self.topic, LONGEST_SLEEP_S)
                return True
        except Exception as error:  # noqa: BLE001 - it goes to who waits
            if not self._waiting:
                _log.warning("topic %r is not looked at: %s", str(self.topic), error)
            lines.fail(self._waiting, error)
            self._waiting = []
        return False

    def _linger(self) -> bool:
        """Wait for somebody to come; false if the line has ended, because nobody did."""
        try:
            ask = self.newcomers.get(timeout=LINGER_S)
        except Empty:
            return not self._lines.end(self)
        if ask is not None:
            self._waiting.append(ask)
        return True
