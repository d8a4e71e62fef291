"""A job in the hands of its holder."""

import logging
import random
import traceback as tracebacks
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, NoReturn, Protocol, Self

from jobq import codec, ids
from jobq.backoff import wait_before_retry
from jobq.errors import InvalidValue, JobNotFound, JobqError, ReservationLost, shown
from jobq.job import Reservation, Settlement
from jobq.options import DEFAULTS, LONGEST_S, UNSET, JobOptions, seconds, several, text_in
from jobq.service.asynchronous import AsyncJob
from jobq.service.batch import NewJob
from jobq.service.specs import Delay, delay_us
from jobq.states import Event, Outcome, Reason

if TYPE_CHECKING:
    from jobq.service.holding import Holding

Backoff = Callable[[int, JobOptions], float]
"""Gives the wait before retry k = 1, 2, …, in seconds, from k and all options of the job."""

_log = logging.getLogger("jobq")

_UNREAD: Final = object()
_BY_HOLDER: Final = (Reason.CANCELED, Reason.REJECTED)


class Sink(Protocol):
    """The loop that a job belongs to, which may take care of what the end of a block says."""

    def take(self, job: "Job", settlement: Settlement, /) -> bool:
        """Whether it has taken care of it."""

    async def atake(self, job: "Job", settlement: Settlement, /) -> bool:
        """Whether it has taken care of it, without blocking the loop of the coroutines."""


def exponential(k: int, options: JobOptions) -> float:
    """The wait before retry *k*: exponential, capped, with jitter; see `jobq.backoff`.

    A first wait that is longer than the cap, which then comes from somewhere else, raises that.
    """
    first = _set(options.min_backoff)
    wait = wait_before_retry(
        k,
        min_backoff=first,
        max_backoff=max(first, _set(options.max_backoff)),
        factor=_set(options.factor),
        jitter=_set(options.jitter),
        random=random.random(),
    )
    return min(wait, LONGEST_S)  # a cap of a hundred years may be varied upwards, too


class Job(AsyncJob):
    """A reserved job: the caller's until it is settled, its lease is over, or the process ends.

    Settle it with `done`, `retry`, `release` or `cancel`; or use it as a context manager: a clean
    end of the block is `done`, an exception is `retry` with the traceback as its error (logged
    and not raised again), and an interrupt (`KeyboardInterrupt`, `SystemExit`, `GeneratorExit`,
    `asyncio.CancelledError`) is `release`, and goes on. A block that settled the job itself is
    left at that.

    Every call raises `ReservationLost` if the job is not the caller's any more; then nothing has
    changed. Calling the same settlement twice is harmless.
    """

    __slots__ = ("_holding", "_id", "_payload", "_reservation", "_settled", "_sink")

    def __init__(self, holding: "Holding", reservation: Reservation) -> None:
        self._holding = holding
        self._reservation = reservation
        self._id: str | None = None
        self._payload: Any = _UNREAD
        self._settled: Event | None = None
        self._sink: Sink | None = None

    def __repr__(self) -> str:
        state = "reserved" if self._settled is None else f"settled: {self._settled}"
        return f"<Job {self.id} of {self.topic!r}, attempt {self.attempt}, {state}>"

    def __getstate__(self) -> NoReturn:
        raise TypeError(
            "a Job cannot be copied or sent to another process: its holder is this one; send its "
            "id and its payload, or reserve it there"
        )

    @property
    def id(self) -> str:
        """Its name."""
        if self._id is None:
            self._id = ids.to_text(self._reservation.id)
        return self._id

    @property
    def topic(self) -> str:
        """Its topic's name."""
        return self._reservation.topic

    @property
    def weight(self) -> int:
        """Its weight in the topic: lower is served first."""
        return self._reservation.weight

    @property
    def attempt(self) -> int:
        """How often it has been tried, this time included: 1 at first."""
        return self._reservation.attempt

    @property
    def retries(self) -> int:
        """How often `retry` brought it back so far."""
        return self._reservation.retries

    @property
    def crashes(self) -> int:
        """How often a holder died with it or overran its lease."""
        return self._reservation.crashes

    @property
    def deadline(self) -> datetime | None:
        """When it was to be begun at the latest; retries after it end it. None if there is none."""
        return self._reservation.options.deadline

    @property
    def options(self) -> JobOptions:
        """Its options, with defaults where none were given."""
        return self._reservation.options.over(DEFAULTS)

    @property
    def payload(self) -> Any:
        """The value that was enqueued; decoded at the first look, the same object afterwards.

        Raises:
            StoreCorrupt: The stored bytes do not decode.
        """
        if self._payload is _UNREAD:
            self._payload = codec.unpack(self._reservation.payload)
        return self._payload

    @property
    def settled(self) -> bool:
        """Whether the caller has settled it."""
        return self._settled is not None

    @property
    def canceled(self) -> bool:
        """Whether it was canceled, or the reservation lost otherwise, while the caller works on it.

        Asks the store. False once the caller has settled it.
        """
        if self._settled is not None:
            return False
        return not self._holding.holds(self._reservation)

    # Settling.

    def done(self, result: Any = None, then: Iterable[NewJob] = ()) -> list[str]:
        """It succeeded. Gives the ids of the follow-up jobs.

        Args:
            result: Kept with the job for its retention; any value that a payload can be.
            then: Jobs to enqueue in the same commit: they exist exactly if the job is done.

        Raises:
            ReservationLost: It is not the caller's any more; nothing has changed.
            InvalidValue: The result or a follow-up cannot be stored; the job is still held.
            QueueFull: The topic of a follow-up is full or draining; the job is still held. (At the
                end of a `with` block this counts as a failure of the job, as any exception does.)
            UniqueConflict: A follow-up may not be added; the job is still held.
            StoreFull: No room for the follow-up jobs; the job is still held.
        """
        return self._settle(self._done(result, several("then", then, "jobq.NewJob(…)")))

    def retry(self, delay: Delay | None = None, error: str | BaseException | None = None) -> None:
        """It failed; try it again later, or give it up if its retries are used up.

        Args:
            delay: Seconds until it is ready again; 0 for at once, None for the backoff.
            error: What went wrong; kept with the job, an exception with its traceback.

        Raises:
            ReservationLost: It is not the caller's any more; nothing has changed.
            InvalidValue: The delay is wrong.
        """
        self._settle(self._retry(delay, error))

    def release(self, delay: Delay = 0) -> None:
        """Give it back as if it had not been tried.

        Args:
            delay: Seconds until it is ready again; 0 for at once, in its old place.

        Raises:
            ReservationLost: It is not the caller's any more; nothing has changed.
            InvalidValue: The delay is wrong.
        """
        self._settle(self._release(delay))

    def cancel(
        self,
        reason: str | Reason = Reason.CANCELED,
        error: str | BaseException | None = None,
    ) -> None:
        """End it without success and without another try.

        Args:
            reason: `canceled`, or `rejected` if it can never succeed.
            error: What went wrong; kept with the job.

        Raises:
            ReservationLost: It is not the caller's any more; nothing has changed.
            InvalidValue: The reason is neither of the two.
        """
        self._settle(self._cancel(reason, error))

    def extend(self, seconds: float) -> None:
        """Let the reservation last this many seconds from now.

        Raises:
            ReservationLost: It is not the caller's any more; nothing has changed.
            InvalidValue: Not a positive number of seconds.
        """
        self._holding.extend(self, self._extension(seconds))

    def log(self, text: str) -> None:
        """Add a line to the job's log; `JobService.get` shows it.

        It is written with the holder's next call, and within a second at the latest: so a kill
        may cost what was logged last. The last 1 000 lines or 64 KiB of a job are kept, over all
        its attempts.

        Args:
            text: At most 4 096 bytes of it are kept.

        Raises:
            ReservationLost: The caller has settled the job already.
            InvalidValue: It is not text.
        """
        self._refuse_if_settled()
        self._holding.reports.log(self._reservation, text)
        self._holding.keeper.report_soon()

    def progress(self, done: float, total: float | None = None, text: str | None = None) -> None:
        """Say how far the work is; `JobService.get` shows what was said last. Written as `log` is.

        Args:
            done: So much, 0 or more.
            total: Out of so much; None if that is not known.
            text: What it is at; at most 4 096 bytes of it are kept.

        Raises:
            ReservationLost: The caller has settled the job already.
            InvalidValue: A number is none or below 0, or the text is not text.
        """
        self._refuse_if_settled()
        self._holding.reports.progress(self._reservation, done, total, text)
        self._holding.keeper.report_soon()

    def _refuse_if_settled(self) -> None:
        if self._settled is not None:
            raise ReservationLost(f"job {self.id} of topic {self.topic!r} is settled already")

    # As a context manager.

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool:
        if self._settled is None:
            self._hand_in(error)
        return self._has_failed(error)

    def _has_failed(self, error: BaseException | None) -> bool:
        """Whether the block ended with an exception that goes no further; that is logged."""
        if isinstance(error, Exception):
            _log.warning(
                "job %s of topic %r failed at attempt %d",
                self.id,
                self.topic,
                self.attempt,
                exc_info=error,
                extra={"job_id": self.id, "topic": self.topic},
            )
        return isinstance(error, Exception)

    def _hand_in(self, error: BaseException | None) -> None:
        """Settle at the end of a block, or have the loop do it."""
        try:
            settlement = self._outcome(error)
            if self._sink is None or not self._sink.take(self, settlement):
                self._settle(settlement)
        except JobqError:
            if error is None or isinstance(error, Exception):
                raise
            self._was_not_given_back()

    def _was_not_given_back(self) -> None:
        # Nothing that goes wrong with the job may hold up an interrupt.
        _log.warning("job %s was not given back", self.id, exc_info=True)

    def _outcome(self, error: BaseException | None) -> Settlement:
        """What the end of a block says of the job."""
        if error is None:
            return self._done(None, ())
        return self._release(0) if _is_interrupt(error) else self._retry(None, error)

    # Settlements, decided here and written by the store.

    def _done(self, result: Any, then: Sequence[NewJob]) -> Settlement:
        job, maker = self._reservation, self._holding.maker
        follow = tuple([NewJob.spec(new, maker) for new in then]) if then else ()
        encoded = None if result is None else maker.result(result)
        keep_us = None if job.options is UNSET else job.options.retention_us
        return tuple.__new__(
            Settlement,
            (job.id, job.token, Event.DONE, 0, keep_us, encoded, None, None, follow, None),
        )

    def _retry(self, delay: Delay | None, error: str | BaseException | None) -> Settlement:
        job = self._reservation
        chosen: int | None = delay_us(delay)
        options = self.options
        if options.max_retries is not None and job.retries >= options.max_retries:
            chosen = None
        elif delay is None:
            wait = self._holding.backoff(job.retries + 1, options)
            chosen = delay_us(seconds("the wait that backoff gave", wait))
        return Settlement(
            job.id,
            job.token,
            Event.RETRY,
            chosen,
            keep_us=job.options.retention_us,
            error=error_text(error),
        )

    def _release(self, delay: Delay) -> Settlement:
        job = self._reservation
        return Settlement(job.id, job.token, Event.RELEASE, delay_us(delay))

    def _extension(self, seconds: float) -> tuple[bytes, int, int]:
        job = self._reservation
        return job.id, job.token, _positive_us(seconds)

    def _cancel(self, reason: str | Reason, error: str | BaseException | None) -> Settlement:
        word = text_in(reason)
        if word not in _BY_HOLDER:
            raise InvalidValue(f"reason is {shown(reason)}: expected 'canceled' or 'rejected'")
        job = self._reservation
        return Settlement(
            job.id,
            job.token,
            Event.CANCEL,
            keep_us=job.options.retention_us,
            error=error_text(error),
            reason=Reason(word),
        )

    def _settle(self, settlement: Settlement) -> list[str]:
        outcomes, follow_ids = self._holding.settle([self], [settlement])
        if outcomes[0] is not Outcome.OK:
            raise self.lost(outcomes[0])
        return follow_ids[0]

    def lost(self, outcome: Outcome) -> ReservationLost:
        """The error for a call that came too late."""
        why = "it is gone" if outcome is Outcome.MISSING else "it was not held any more"
        return ReservationLost(
            f"job {self.id} of topic {self.topic!r}, attempt {self.attempt}: {why} "
            "(lease over, canceled, or settled otherwise)"
        )


def error_text(error: str | BaseException | None) -> str | None:
    """What is kept of an error: a text as it is, an exception with its traceback.

    Raises:
        InvalidValue: It is neither.
    """
    if error is None or issubclass(type(error), str):
        return text_in(error)
    if isinstance(error, BaseException):
        try:
            return "".join(tracebacks.format_exception(error)).rstrip()
        except Exception:  # noqa: BLE001 - the exception's own __str__ may fail in any way
            return f"{type(error).__qualname__} (which cannot be shown)"
    raise InvalidValue(f"error is {shown(error)}: expected text or an exception")


def not_found(job_id: str) -> JobNotFound:
    """The error for an id that no job has."""
    return JobNotFound(f"no job {job_id}: it never existed, was deleted, or its retention is over")


def _is_interrupt(error: BaseException) -> bool:
    """Whether it says "stop" rather than "this job failed"."""
    if isinstance(error, KeyboardInterrupt | SystemExit | GeneratorExit):
        return True
    # By name, so that asyncio need not be imported to tell.
    return any(
        kind.__name__ == "CancelledError" and kind.__module__ == "asyncio.exceptions"
        for kind in type(error).__mro__
    )


def _positive_us(value: object) -> int:
    return delay_us(seconds("seconds", value, above=True), "seconds")


def _set(value: float | None) -> float:
    assert value is not None  # `Job.options` has all defaults
    return value
