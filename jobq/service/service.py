"""The service: jobs in and out, and what is known of them."""

import logging
import os
import time
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from types import TracebackType
from typing import Any, Final, NoReturn, Self, Unpack, overload

from jobq import codec, ids
from jobq.errors import InvalidValue, StoreUnavailable, UniqueConflict, shown
from jobq.job import KEEP, Change, JobRecord, JobSpec, Settlement
from jobq.options import JobOptions, OptionArgs, flag, integer, seconds, several, text
from jobq.repo.base import ReserveRequest, Store
from jobq.service import patience
from jobq.service.asynchronous import AsyncVerbs
from jobq.service.batch import Batch
from jobq.service.consumer import Consumer, OnLost
from jobq.service.filters import FILTERS, Filters, selector_of
from jobq.service.holding import Holding
from jobq.service.job import Backoff, Job, error_text, exponential, not_found
from jobq.service.keeper import Keeper
from jobq.service.matching import matching
from jobq.service.reports import Reports
from jobq.service.selection import MOST_FOUND, Selection
from jobq.service.specs import Delay, SpecMaker, check_weight, delay_us, ends_of
from jobq.service.topics import AsyncTopicVerbs, TopicVerbs, no_key
from jobq.service.upkeep import UpkeepVerbs
from jobq.shares import Topics, mix_of
from jobq.states import FINISHED, Event, Outcome, Status, invalid_transition
from jobq.topic import check_name

MOST_AT_ONCE: Final = 10_000
"""The most jobs of one reservation: it bounds how long the write lock is held."""

LARGEST_PAYLOAD: Final = 2**31 - 1
"""Bytes that the limit of payloads may be set to."""

_log = logging.getLogger("jobq")


class JobService(TopicVerbs, UpkeepVerbs, AsyncTopicVerbs, AsyncVerbs):
    """A queue of jobs over a store. Safe to use from any number of threads and event loops.

    Every verb has a twin for coroutines, named `a` + verb; see `docs/asyncio.md`.

    Args:
        store: Where the jobs are; the service closes it when it is closed.
        max_payload: The most bytes of a payload or a result, encoded.
        backoff: Gives the wait before a retry in seconds, from k = 1, 2, … and the job's options;
            by default exponential, from the options.
        **options: Defaults for the jobs that this service enqueues; see `JobOptions`.

    Raises:
        InvalidValue: An option is unknown or wrong.
    """

    def __init__(
        self,
        store: Store,
        *,
        max_payload: int = codec.LIMIT,
        backoff: Backoff = exponential,
        **options: Unpack[OptionArgs],
    ) -> None:
        if not isinstance(store, Store):
            raise InvalidValue(
                f"store is {shown(store)}: expected a Store; jobq.open() takes a path"
            )
        maker = maker_of(max_payload, backoff, options)
        self.store = store
        self._maker = maker
        reports = Reports()
        self._keeper = Keeper(store, reports)
        self._holding = Holding(store, self._maker, backoff, reports, self._keeper)
        self._consumers: set[Consumer] = set()

    def __getstate__(self) -> NoReturn:
        raise TypeError(
            "a JobService cannot be copied or sent to another process: send the path of the queue, "
            "and open it there with jobq.open(path)"
        )

    # Jobs in.

    def enqueue(
        self,
        topic: str,
        payload: Any = None,
        *,
        weight: int = 0,
        delay: Delay | None = None,
        timeout: float | None = 0,
        **options: Unpack[OptionArgs],
    ) -> str:
        """Add a job and give its id. When this returns, the job is as durable as the store.

        If its unique key is another job's, the id of that one is given; see `JobOptions`.

        Args:
            topic: Its topic's name: 1 to 255 UTF-8 bytes, any character. Topics need no making.
            payload: None, bool, int (64 bits), float, str, bytes, list, dict, tuple, set,
                datetime, date, timedelta, UUID or Decimal, nested at will.
            weight: -32768 to 32767; lower is served first, equal ones in the order of enqueueing.
            delay: Seconds, or a timedelta, until it becomes ready; None or 0 for at once.
            timeout: Seconds to wait for room where settings let no more jobs wait, or for the end
                of draining: 0 does not wait, None waits until `stop`.
            **options: See `JobOptions`.

        Raises:
            InvalidValue: An argument is wrong; nothing was written.
            PayloadTooLarge: The payload is larger than the limit.
            QueueFull: The topic, or the store, has as many jobs waiting as its settings allow, or
                is draining, and that did not change in time; nothing was written.
            UniqueConflict: Its unique key is another job's, and `on_conflict` is `raise`; or it is
                `replace` and that one does not wait. Nothing was written.
            StoreFull: No room in the file or on the disk; nothing was written.
        """
        spec = self._maker.one(topic, payload, weight, delay, options)
        limit = self._timeout(timeout)
        return ids.to_text(self._holding.enqueue([spec], limit)[0])

    def enqueue_many(
        self,
        topic: str,
        payloads: Iterable[Any],
        *,
        weight: int = 0,
        delay: Delay | None = None,
        timeout: float | None = 0,
        **options: Unpack[OptionArgs],
    ) -> list[str]:
        """Add a job for each payload in one commit, all or none, and give their ids in order.

        Arguments and errors as for `enqueue`; a wrong payload is named by its position. It waits
        for room for all of them: in vain if they are more than its topic may ever have. Options
        are those of each job, so that only one job is added if they have a unique key; use
        `batch` to give each its own.
        """
        specs = self._specs(topic, payloads, weight, delay, options)
        limit = self._timeout(timeout)
        return ids.to_texts(self._holding.enqueue(specs, limit))

    def batch(self, *, timeout: float | None = 0) -> Batch:
        """A context manager that enqueues jobs of several topics in one commit at its end.

        Args:
            timeout: Seconds that the end waits for room for all of them, as for `enqueue`.

        Raises:
            InvalidValue: The timeout is wrong.
        """
        return Batch(self._holding, self._timeout(timeout))

    # Jobs out.

    def reserve(
        self,
        topics: Topics,
        n: int = 1,
        *,
        strict: bool = False,
        timeout: float | None = None,
    ) -> list[Job]:
        """Take up to *n* ready jobs of a topic, in order; returns as soon as there is one.

        Of several topics they come in turns: `["mail", "import"]` in equal shares,
        `{"mail": 5, "import": 1}` five of `mail` to one of `import` as long as both have jobs. All
        callers share the turns, in whatever process and with whatever *n*. What one topic cannot
        give, the others do; a topic that had no job for a while does not make up for it.

        Args:
            topics: A topic's name, or a `jobq.Pattern` for all topics whose names are like it;
                or several of these: a list or tuple, or a dict of their shares, 0.01 to 1000.
                Each topic that a pattern stands for has that share for itself. One that does not
                exist yet is waited for. At most 1 000.
            strict: Drain the first topic before the second: shares do not matter.
            n: 1 to 10 000. It does not wait for more when it has some.
            timeout: Seconds to wait for the first one: 0 does not wait, None waits until `stop`.

        Returns:
            The jobs, or an empty list after the timeout or `stop`. Each has to be settled before
            its lease is over (10 minutes unless the job says otherwise); this call does not
            extend leases, `consume` does.

        Raises:
            InvalidValue: An argument is wrong.
        """
        request = self._request(topics, n, strict)
        return self._reserve(request, self._timeout(timeout))

    def consume(
        self,
        topics: Topics,
        n: int = 1,
        *,
        strict: bool = False,
        timeout: float | None = None,
        pipeline: bool = True,
        on_lost: OnLost | None = None,
    ) -> Iterator[Job]:
        """Loop over jobs: `for job in svc.consume("mail"): with job: …`.

        The leases of the job that the loop is at, however long that takes, and of those that it
        has not begun are extended. One that is left unsettled when the loop goes on, as for
        another thread, is held until its own lease is over. A block's outcome is committed when
        the loop asks for the next job (in the same commit as the next reservation, when one is
        needed), before any waiting, and when the loop ends, by `break`, an exception, `stop` or
        `close`. Jobs that were reserved and not begun are released then.

        Args:
            topics: A topic's name, or several topics as for `reserve`.
            n: How many jobs are reserved at once, 1 to 10 000.
            strict: Drain the first topic before the second, as for `reserve`.
            timeout: End when no job came for so many seconds; None goes on until `stop`.
            pipeline: False commits each block's outcome when the block ends.
            on_lost: Called with a job whose reservation was found lost when its outcome was to
                be committed; that is logged too.

        Raises:
            InvalidValue: An argument is wrong.
        """
        request, wait = self._request(topics, n, strict), self._timeout(timeout)
        self._check_on_lost(on_lost)
        at_once = flag("pipeline", pipeline)
        return Consumer(self, request, pipeline=at_once, on_lost=on_lost).run(wait)

    def done_many(self, jobs: Iterable[Job], results: Sequence[Any] | None = None) -> list[Outcome]:
        """Each job succeeded, in one commit. Outcomes by position: `ok`, `stale` or `missing`.

        Args:
            jobs: Reserved jobs.
            results: One for each job, in the same order; None keeps none.

        Raises:
            InvalidValue: The results are not as many as the jobs, or cannot be stored.
        """
        return self._settle_many(*self._all_done(jobs, results))

    def retry_many(
        self,
        jobs: Iterable[Job],
        *,
        delay: Delay | None = None,
        error: str | BaseException | None = None,
    ) -> list[Outcome]:
        """Each job failed, in one commit; as `Job.retry`. Outcomes by position."""
        return self._settle_many(*self._all_retried(jobs, delay, error))

    def release_many(self, jobs: Iterable[Job], *, delay: Delay = 0) -> list[Outcome]:
        """Give the jobs back untried, in one commit; as `Job.release`. Outcomes by position."""
        return self._settle_many(*self._all_released(jobs, delay))

    # What is known.

    def status(self, job_id: str) -> Status:
        """The job's status.

        Raises:
            JobNotFound: No job has this id.
            InvalidValue: It is no id.
        """
        (status,) = self.store.status([ids.to_raw(job_id)])
        if status is None:
            raise not_found(job_id)
        return status

    @overload
    def get(self, job_id: str) -> JobRecord: ...
    @overload
    def get(self, *, unique: str) -> JobRecord: ...
    def get(self, job_id: str | None = None, *, unique: str | None = None) -> JobRecord:
        """All that is known of the job: `svc.get(job_id)` or `svc.get(unique="user-7")`.

        Args:
            job_id: Its id.
            unique: The unique key that it has.

        Raises:
            JobNotFound: No job has this id, or this key.
            InvalidValue: It is no id, or no key; or not one of the two is given.
        """
        if unique is not None and job_id is None:
            (record,) = self.store.with_keys([text("unique", unique)])
            if record is None:
                raise no_key(unique)
            return record
        if job_id is None or unique is not None:
            raise InvalidValue(
                f"job_id is {shown(job_id)} and unique is {shown(unique)}: expected one of the two"
            )
        (record,) = self.store.get([ids.to_raw(job_id)])
        if record is None:
            raise not_found(job_id)
        return record

    def wait(self, job_id: str, timeout: float | None = None) -> JobRecord:
        """Wait until the job is done or canceled, whoever does it, and give its record.

        It is woken by the commit that finishes the job, in whatever process that is. One that was
        reset before the waiter came to look is waited for again. A stopped service still gives
        the record of a job that is finished.

        Args:
            job_id: The job; it may be finished already.
            timeout: Seconds to wait: 0 only looks, None waits until `stop`.

        Raises:
            TimeoutError: The time is over; the job goes on.
            JobNotFound: No job has this id, or it was forgotten meanwhile: deleted, or finished
                without being kept (`retention` 0).
            StoreUnavailable: The service was stopped or closed, and the job is not finished.
            InvalidValue: An argument is wrong.
        """
        limit = self._timeout(timeout)
        end = None if limit is None else time.monotonic() + limit
        seen: dict[bytes, int | None] = {ids.to_raw(job_id): None}
        while True:
            left = patience.LONGEST_SLEEP_S if end is None else end - time.monotonic()
            record = self._ended(job_id, limit if left <= 0 else None)
            if record is not None:
                return record
            self.store.wait_ended(seen, min(left, patience.LONGEST_SLEEP_S))

    def find(
        self, *, after: str | None = None, limit: int = 100, **filters: Unpack[Filters]
    ) -> list[JobRecord]:
        """The first *limit* jobs that match, in the order of enqueueing.

        `svc.find(dead=True)` lists dead letters; `svc.find(topic="mail", status="ready")` what
        waits there.

        Args:
            after: Only jobs enqueued after the one with this id: the last of the page before.
            limit: 1 to 10 000.
            **filters: topic, status, name, tag, group, unique, reason, dead, error, older_than:
                only jobs that fit all of them. See `jobq.service.filters.Filters`.

        Raises:
            InvalidValue: An argument is wrong.
        """
        return Selection(self._holding, selector_of(filters)).find(after=after, limit=limit)

    def select(self, *, everything: bool = False, **filters: Unpack[Filters]) -> Selection:
        """Jobs by what is known of them, to be counted, looked at, and changed many at once.

        `svc.select(topic="mail", status="ready", older_than=86_400).cancel()`;
        `svc.select(dead=True, error="refused").reset(rate=50)`. Reads nothing yet.

        Args:
            everything: Select all jobs, without any filter.
            **filters: As for `find`; at least one has to be given, lest a slip wipes a queue.

        Raises:
            InvalidValue: An argument is wrong, or no filter is given without *everything*.
        """
        flag("everything", everything)
        given = any(value is not None for value in filters.values())
        selector = selector_of(filters)
        if everything and given:
            raise InvalidValue("everything is True, and there are filters: expected one of the two")
        if not everything and not given:
            raise InvalidValue(
                f"no filter is given: expected at least one of {', '.join(FILTERS)}, or "
                "everything=True"
            )
        return Selection(self._holding, selector)

    def match(self, part: str, *, limit: int = 2) -> list[str]:
        """The first *limit* ids that have *part* in them: one if it is a unique part of an id.

        Args:
            part: Hexadecimal digits from any place in an id; case and dashes do not matter. Eight
                or more that some ids begin with stand for those only, and are looked up; all
                others are searched for in every id, which takes about 0.3 s for a million jobs.
            limit: 1 to 10 000; 2 tell whether it is unique.

        Raises:
            InvalidValue: An argument is wrong.
        """
        return matching(self.store, part, integer("limit", limit, 1, MOST_FOUND))

    # What anybody may do to a job.

    @overload
    def cancel(self, job_ids: str, *, error: str | None = None) -> None: ...  # type: ignore[overload-overlap] # a str is one id
    @overload
    def cancel(self, job_ids: Iterable[str], *, error: str | None = None) -> list[Outcome]: ...
    def cancel(
        self, job_ids: str | Iterable[str], *, error: str | None = None
    ) -> list[Outcome] | None:
        """Cancel jobs that are not finished, whoever holds them.

        A holder learns it at its next call, or through `Job.canceled`. One id: raises if it
        cannot be. Several: gives outcomes by position, `ok`, `missing` or `invalid`.

        Raises:
            JobNotFound: One id was given, and no job has it.
            InvalidTransition: One id was given, and the job is finished.
            InvalidValue: It is no id.
        """
        why = error_text(error)
        return self._on(job_ids, Event.CANCEL, lambda raw: self.store.cancel(raw, why))

    @overload
    def reset(  # type: ignore[overload-overlap] # a str is one id
        self, job_ids: str, *, deadline: datetime | None = None, ttl: float | None = None
    ) -> None: ...
    @overload
    def reset(
        self, job_ids: Iterable[str], *, deadline: datetime | None = None, ttl: float | None = None
    ) -> list[Outcome]: ...
    def reset(
        self,
        job_ids: str | Iterable[str],
        *,
        deadline: datetime | None = None,
        ttl: float | None = None,
    ) -> list[Outcome] | None:
        """Make finished jobs ready again, at the back of their weight, as if never tried.

        One id or several as for `cancel`; only done and canceled jobs can be reset. A job takes its
        unique key again; of several, those whose key another job has are a `conflict`.

        The deadline that a job had is dropped. It gets the earliest of those that are given here
        and of the `ttl` of its topic, as a new job does; none if there is none of them.

        Args:
            job_ids: One id, or several.
            deadline: When the jobs are canceled as expired unless they were handed out; aware.
            ttl: Seconds from the reset to that moment; more than 0.

        Raises:
            JobNotFound: One id was given, and no job has it.
            InvalidTransition: One id was given, and the job is not finished.
            UniqueConflict: One id was given, and another job has its unique key; nothing changed.
            InvalidValue: An argument is wrong; nothing changed.
            StoreFull: There is no room for the new deadlines; nothing changed.
        """
        ends = ends_of(deadline, ttl)
        return self._on(job_ids, Event.RESET, lambda raw: self.store.reset(raw, ends=ends))

    @overload
    def delete(self, job_ids: str) -> None: ...  # type: ignore[overload-overlap] # a str is one id
    @overload
    def delete(self, job_ids: Iterable[str]) -> list[Outcome]: ...
    def delete(self, job_ids: str | Iterable[str]) -> list[Outcome] | None:
        """Forget jobs that nobody holds. One id or several as for `cancel`.

        A reserved job is refused: cancel it first. A job whose records are damaged, as `check`
        says, is forgotten too; that takes as long as `check(repair=True)`.

        Raises:
            StoreCorrupt: More is damaged than jobs, so that no repair can be made.
        """
        return self._on(job_ids, Event.DELETE, self.store.delete)

    @overload
    def edit(  # type: ignore[overload-overlap] # a str is one id
        self,
        job_ids: str,
        *,
        topic: str | None = None,
        weight: int | None = None,
        delay: Delay | None = None,
        payload: Any = KEEP,
        **options: Unpack[OptionArgs],
    ) -> None: ...
    @overload
    def edit(
        self,
        job_ids: Iterable[str],
        *,
        topic: str | None = None,
        weight: int | None = None,
        delay: Delay | None = None,
        payload: Any = KEEP,
        **options: Unpack[OptionArgs],
    ) -> list[Outcome]: ...
    def edit(
        self,
        job_ids: str | Iterable[str],
        *,
        topic: str | None = None,
        weight: int | None = None,
        delay: Delay | None = None,
        payload: Any = KEEP,
        **options: Unpack[OptionArgs],
    ) -> list[Outcome] | None:
        """Change jobs that wait: ready and delayed ones. What is not given stays as it is.

        One id or several as for `cancel`; of several, those that are reserved or finished are
        `invalid`. All of it is one commit.

        Args:
            job_ids: One id, or several. One that is named twice is edited once.
            topic: Moves jobs to another topic, to the back of their weight there; those that are
                in it already keep their place.
            weight: -32768 to 32767. Among the jobs of this weight a job stands where it would if
                it had been enqueued with it.
            delay: Seconds, or a timedelta, from now until the jobs become ready; 0 makes delayed
                ones ready at once, in the place that they had all along. None changes nothing.
            payload: The new payload, the same for all; None is one. `KEEP` changes nothing.
            **options: Replaced; None unsets one, so that the default holds. See `JobOptions`.

        Raises:
            JobNotFound: One id was given, and no job has it.
            InvalidTransition: One id was given, and the job does not wait.
            UniqueConflict: One id was given, and another job has the unique key. Of several, those
                that cannot have it are a `conflict`.
            InvalidValue: An argument is wrong, or there is nothing to change.
            PayloadTooLarge: The payload is larger than the limit.
            StoreFull: A payload or an option was given, and there is no room; nothing changed.
        """
        change = self._maker.change(topic, weight, delay, payload, options)
        return self._edit(job_ids, change)

    # The end.

    @property
    def stopped(self) -> bool:
        """Whether `stop` or `close` was called."""
        return self._holding.stopped

    @property
    def closed(self) -> bool:
        """Whether `close` was called."""
        return self._holding.closed

    def stop(self) -> None:
        """Reserve no more: `reserve` returns an empty list, `consume` ends after its block.

        Safe in a signal handler; waiters notice within a second at most. Held jobs can still be
        settled, and jobs enqueued. There is no way back: open another service.
        """
        self._reserve_no_more()
        self.store.wake()

    def close(self) -> None:
        """Stop, release the jobs that are still held, and close the store. Twice is harmless."""
        if self.closed:
            return
        self.stop()
        self._holding.closed = True
        bridge = self._holding.bridges.get(os.getpid())
        try:
            for consumer in list(self._consumers):
                consumer.end()
            if bridge is not None:
                bridge.close()
            self._holding.release_all()
        except StoreUnavailable as error:
            # Its files are gone or moved: nothing can be given back there, and nothing needs to be.
            _log.warning("held jobs were not released: %s", error)
        finally:
            self._keeper.stop()
            self.store.close()
            if bridge is not None:
                bridge.close_calls()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    # Inside: what the verbs and their twins for coroutines share.

    def _specs(
        self,
        topic: str,
        payloads: Iterable[Any],
        weight: int,
        delay: Delay | None,
        options: OptionArgs,
    ) -> list[JobSpec]:
        name, checked = check_name(topic), check_weight(weight)
        wait_us, chosen = delay_us(delay), self._maker.options(options)
        values = several("payloads", payloads, "payloads")
        return self._maker.many(name, values, checked, wait_us, chosen)

    def _reserve_no_more(self) -> None:
        self._holding.stopped = True
        self._holding.stopping.open()

    def _request(self, topics: object, n: int, strict: object) -> ReserveRequest:
        chosen = mix_of(topics, strict=strict)
        return ReserveRequest(chosen, integer("n", n, 1, MOST_AT_ONCE))

    def _timeout(self, timeout: float | None) -> float | None:
        if timeout is None or (type(timeout) is int and not timeout):  # as mostly
            return timeout
        return seconds("timeout", timeout)

    def _ended(self, job_id: str, over: float | None = None) -> JobRecord | None:
        """The record of a finished job; None if it may be waited for.

        Raises:
            TimeoutError: It is not finished, and *over* seconds of waiting for that are over.
            JobNotFound: There is no such job.
            StoreUnavailable: It is not finished, and the service is stopped.
        """
        status = self.status(job_id)
        if status in FINISHED:
            record = self.get(job_id)
            if record.finished:
                return record
        if self.stopped:
            raise StoreUnavailable(
                f"job {job_id} is {status}: waiting for its end has ended, because the "
                "service was stopped"
            )
        if over is not None:
            raise TimeoutError(f"job {job_id} is still {status} after {over:g} s")
        return None

    def _check_on_lost(self, on_lost: object) -> None:
        if on_lost is not None and not callable(on_lost):
            raise InvalidValue(f"on_lost is {shown(on_lost)}: expected a function of a job")

    def _reserve(self, request: ReserveRequest, timeout: float | None) -> list[Job]:
        end = None if timeout is None else time.monotonic() + timeout
        while not self._holding.stopped:
            # Always once more after waiting: a waiter that was woken for a job has to take it,
            # or nobody does until the next look.
            try:
                jobs = self._holding.reserve(request)
                if jobs:
                    return jobs
                left = patience.LONGEST_SLEEP_S if end is None else end - time.monotonic()
                if left <= 0 or self._holding.stopped:
                    break
                self.store.wait(request.topic, min(left, patience.LONGEST_SLEEP_S))
            except StoreUnavailable:
                if self.closed:  # by another thread, meanwhile
                    break
                raise
        return []

    def _all_done(
        self, jobs: Iterable[Job], results: Sequence[Any] | None
    ) -> tuple[list[Job], list[Settlement]]:
        held = _jobs(jobs)
        if results is None:
            return held, [job._done(None, ()) for job in held]
        given = several("results", results, "results")
        if len(given) != len(held):
            raise InvalidValue(f"there are {len(given)} results for {len(held)} jobs")
        return held, [job._done(result, ()) for job, result in zip(held, given, strict=True)]

    def _all_retried(
        self, jobs: Iterable[Job], delay: Delay | None, error: str | BaseException | None
    ) -> tuple[list[Job], list[Settlement]]:
        held = _jobs(jobs)
        return held, [job._retry(delay, error) for job in held]

    def _all_released(
        self, jobs: Iterable[Job], delay: Delay
    ) -> tuple[list[Job], list[Settlement]]:
        held = _jobs(jobs)
        return held, [job._release(delay) for job in held]

    def _settle_many(self, jobs: list[Job], settlements: list[Settlement]) -> list[Outcome]:
        if not jobs:
            return []
        return self._holding.settle_many(jobs, settlements)

    def _edit(self, job_ids: str | Iterable[str], change: Change) -> list[Outcome] | None:
        unique = change.options.get("unique")
        return self._on(job_ids, Event.EDIT, lambda raw: self.store.edit(raw, change), unique)

    def _on(
        self, job_ids: str | Iterable[str], event: Event, verb: Any, unique: str | None = None
    ) -> list[Outcome] | None:
        """One id raises, several give outcomes. *unique* is the key that the job is to have."""
        if isinstance(job_ids, str):
            raw = ids.to_raw(job_ids)
            (outcome,) = verb([raw])
            if outcome is Outcome.MISSING:
                raise not_found(job_ids)
            if outcome is Outcome.INVALID:
                (status,) = self.store.status([raw])
                if status is None:
                    raise not_found(job_ids)
                raise invalid_transition(job_ids, status, event)
            if outcome is Outcome.CONFLICT:
                raise self._conflict(job_ids, raw, unique)
            return None
        given = several("job_ids", job_ids, "ids")
        outcomes: list[Outcome] = verb([ids.to_raw(job_id) for job_id in given]) if given else []
        return outcomes

    def _conflict(self, job_id: str, raw: bytes, unique: str | None) -> UniqueConflict:
        """What to raise for a job that cannot have its unique key."""
        if unique is None:
            (record,) = self.store.get([raw])
            unique = None if record is None else record.options.unique
        other = None if unique is None else self.store.with_keys([unique])[0]
        has = "another job" if other is None else f"job {other.id}"
        return UniqueConflict(
            f"job {job_id} cannot have the unique key {unique!r}: {has} has it",
            "" if other is None else other.id,
        )


def maker_of(max_payload: object, backoff: object, options: OptionArgs) -> SpecMaker:
    """What makes the jobs of a service, out of the arguments for one.

    Raises:
        InvalidValue: One of them is wrong.
    """
    if not callable(backoff):
        raise InvalidValue(f"backoff is {shown(backoff)}: expected a function of k and options")
    return SpecMaker(
        JobOptions.of(options), integer("max_payload", max_payload, 1, LARGEST_PAYLOAD)
    )


_JUST_JOBS: Final = frozenset({Job})


def _jobs(jobs: Iterable[Job]) -> list[Job]:
    held = several("jobs", jobs, "jobs")
    if set(map(type, held)) <= _JUST_JOBS:  # as mostly
        return held
    for job in held:
        if not isinstance(job, Job):
            raise InvalidValue(f"jobs has {shown(job)}: expected reserved jobs")
    return held
