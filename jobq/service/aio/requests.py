"""What coroutines ask the threads for, and how the answers come back into their loops."""

import asyncio
import contextlib
import threading
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from jobq.job import JobSpec, Settlement
from jobq.repo.base import ReserveRequest
from jobq.service.job import Job
from jobq.states import Outcome

Loop = asyncio.AbstractEventLoop


class Request:
    """One request. Whoever claims it first decides what becomes of it.

    A thread claims it before it acts on it, and its coroutine when it is cancelled: so it is
    either withdrawn or carried out, never both. Claiming waits for nothing and may happen
    anywhere, in a finaliser too.

    Args:
        loop: Where the answer goes; None if nobody waits for one.

    Attributes:
        jobs: How many jobs it is about.
        size: Bytes that it brings.
        future: Of its loop; resolved there.
        value: The answer; an exception to be raised if `failed`.
    """

    __slots__ = ("_unclaimed", "failed", "future", "jobs", "loop", "size", "value")

    def __init__(self, loop: Loop | None, jobs: int = 1, size: int = 0) -> None:
        self.loop: Loop | None = loop
        self.future: asyncio.Future[Any] | None = None if loop is None else loop.create_future()
        self.jobs: int = jobs
        self.size: int = size
        self.value: Any = None
        self.failed: bool = False
        self._unclaimed = threading.Lock()

    def claim(self) -> bool:
        """Whether the caller is the first to claim it."""
        return self._unclaimed.acquire(blocking=False)

    @property
    def unwanted(self) -> bool:
        """Whether nobody wants it any more; a look, only `claim` decides."""
        return self._unclaimed.locked() or (self.future is not None and self.future.cancelled())

    def leave(self) -> None:
        """Nobody waits for the answer any more: whatever it is, it is not to be told."""
        future = self.future
        if future is None:
            return
        if future.done() and not future.cancelled():
            future.exception()  # asked for: asyncio complains of those that nobody saw
        with contextlib.suppress(RuntimeError):  # its loop is closed
            future.cancel()

    def fail(self, error: Exception) -> None:
        """Answer with an error."""
        self.value = error
        self.failed = True

    def deliver(self) -> None:
        """Give the answer to the coroutine; in its loop."""
        future = self.future
        if future is None or future.done():  # cancelled on the way
            return
        if self.failed:
            future.set_exception(self.value)
        else:
            future.set_result(self.value)


class Enqueue(Request):
    """Add jobs, all or none of this request. The answer: their ids, as bytes."""

    __slots__ = ("specs",)

    def __init__(self, loop: Loop, specs: Sequence[JobSpec]) -> None:
        super().__init__(loop, len(specs), sum([len(spec.payload) for spec in specs]))
        self.specs: Sequence[JobSpec] = specs


class Extend(Request):
    """Let leases end so much later: (id, token, microseconds). The answer: outcomes."""

    __slots__ = ("holds",)

    def __init__(self, loop: Loop, holds: Sequence[tuple[bytes, int, int]]) -> None:
        super().__init__(loop, len(holds))
        self.holds: Sequence[tuple[bytes, int, int]] = holds


class Settle(Request):
    """Settle jobs. The answer: outcomes, and the ids of follow-up jobs, by position.

    Attributes:
        last: It is what the end of a block says: it is never withdrawn, and has no effect on a
            job that was settled on purpose before.
        then: Called with the outcomes, or with the error, by the thread that carries it out.
    """

    __slots__ = ("held", "last", "settlements", "then")

    def __init__(
        self,
        loop: Loop | None,
        held: list[Job],
        settlements: list[Settlement],
        *,
        last: bool = False,
        then: "Callable[[list[Outcome] | Exception], None] | None" = None,
    ) -> None:
        size = 0
        for settlement in settlements:
            size += len(settlement.result or b"")
            if settlement.follow:
                size += sum([len(spec.payload) for spec in settlement.follow])
        super().__init__(loop, len(held), size)
        self.held: list[Job] = held
        self.settlements: list[Settlement] = settlements
        self.last: bool = last
        self.then: Callable[[list[Outcome] | Exception], None] | None = then

    @property
    def unwanted(self) -> bool:
        """Never so, if it is what the end of a block says."""
        return not self.last and super().unwanted


class Ask(Request):
    """Reserve jobs. The answer: a list of them, empty if none came in time.

    Unlike the others it is claimed when there is an answer: until then its coroutine may turn
    away at any time, and the jobs go to the next one.

    Attributes:
        patient: It waits if there is no job.
        tried: A job was looked for, and there was none.
    """

    __slots__ = ("_expired", "patient", "request", "tried")

    value: Any
    failed: bool

    def __init__(self, loop: Loop, request: ReserveRequest, *, patient: bool) -> None:
        super().__init__(loop, 0)
        self.request: ReserveRequest = request
        self.patient: bool = patient
        self.tried: bool = False
        self._expired = False

    def answer(self, value: Any, *, failed: bool = False) -> bool:
        """Answer it; false if its coroutine has turned away."""
        self.value, self.failed = value, failed  # first: who finds it claimed finds its answer
        return self.claim()

    def put_off(self) -> bool:
        """There was no job: whether it waits for one."""
        self.tried = True  # before looking whether it is patient: `expire` does it the other way
        return self.patient

    def expire(self) -> None:
        """Its time is over; in its loop. A first look it gets in any case."""
        self.patient = False
        if self.tried and self.claim():
            self._expired = True
            if self.future is not None and not self.future.done():
                self.future.set_result([])

    def turn_away(self) -> list[Job]:
        """Its coroutine does not want it any more: gives the jobs that it was given all the same.

        In its loop, or where nothing of that loop runs any more.
        """
        self.leave()
        if self.claim() or self._expired or self.failed:
            return []
        jobs: list[Job] = self.value
        self.value = []
        return jobs


class Awaiting(Request):
    """Wait until a job has ended. The answer: its record; None if the service was stopped.

    It is claimed when there is an answer, or its time is over.
    """

    __slots__ = ("job_id",)

    def __init__(self, loop: Loop, job_id: bytes) -> None:
        super().__init__(loop, 0)
        self.job_id: bytes = job_id

    def expire(self) -> None:
        """Its time is over; in its loop."""
        if self.claim():
            self.deliver()


class Watch(Request):
    """Tell a coroutine, again and again, that one of several signs may have been given.

    A sign is what `Store.wait_ended` knows beside jobs. It is claimed when its coroutine does not
    want to be told any more, or cannot be.

    Attributes:
        signs: Which ones.
        called: Set in its loop each time; also when `failed` says that nobody will tell it.
    """

    __slots__ = ("called", "signs", "watching")

    def __init__(self, loop: Loop, signs: list[bytes]) -> None:
        super().__init__(None, 0)
        self.watching: Loop = loop
        self.signs: list[bytes] = signs
        self.called: asyncio.Event = asyncio.Event()

    def tell(self) -> None:
        """Tell it; from any thread."""
        try:
            self.watching.call_soon_threadsafe(self.called.set)
        except RuntimeError:  # its loop is closed
            self.claim()

    def fail(self, error: Exception) -> None:
        """Nobody will tell it any more."""
        super().fail(error)
        self.tell()


def post(requests: Iterable[Request], undelivered: Callable[[list[Job]], None]) -> None:
    """Have the answers delivered: one call into each loop. Jobs for a closed loop come back."""
    by_loop: dict[Loop, list[Request]] = {}
    for request in requests:
        if request.loop is not None:
            by_loop.setdefault(request.loop, []).append(request)
    for loop, some in by_loop.items():
        try:
            loop.call_soon_threadsafe(_deliver, some)
        except RuntimeError:  # it is closed: no coroutine of it will ever run again
            undelivered([
                job for request in some if isinstance(request, Ask) for job in request.turn_away()
            ])  # fmt: skip


def _deliver(requests: list[Request]) -> None:
    for request in requests:
        request.deliver()
