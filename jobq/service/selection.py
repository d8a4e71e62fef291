"""Jobs by what is known of them: looked at, counted, and changed many at once."""

from collections.abc import AsyncIterator, Callable, Iterator
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final, TypeVar, Unpack, cast

from jobq import ids
from jobq.errors import InvalidValue
from jobq.job import KEEP, Change, JobRecord
from jobq.options import JobOptions, OptionArgs, integer
from jobq.repo.base import LookFrom
from jobq.selector import EVERY_STATUS, Selector
from jobq.service.asynchronous import bridge_of
from jobq.service.bulk import (
    ANYHOW,
    CHANGED,
    MOST_BYTES,
    BulkResult,
    How,
    OnProgress,
    Pause,
    Run,
    checked,
)
from jobq.service.job import error_text
from jobq.service.specs import Delay, ends_of
from jobq.states import Event, Status, can_move
from jobq.topic import check_name

if TYPE_CHECKING:
    from jobq.service.holding import Holding

T = TypeVar("T")

PAGE: Final = 100
"""Jobs that a loop over a selection reads at a time: each may have a payload of a megabyte."""

MOST_FOUND: Final = 10_000


class AsyncSelection:
    """The verbs of `Selection` for coroutines: never blocking the loop.

    They make one step after another, each in another thread; a coroutine that is cancelled makes
    no further ones. *progress* is called in the loop's own thread.
    """

    async def apresent(self) -> "Selection":
        """`present` for coroutines: the same, of the jobs only that are there now."""
        return await self._call(self._selection.present)

    async def acount(self) -> int:
        """`count` for coroutines: how many jobs match now."""
        return (await self._adrive(self._selection._counting())).matched

    async def afind(self, *, after: str | None = None, limit: int = 100) -> list[JobRecord]:
        """`find` for coroutines: the first *limit* jobs that match."""
        return await self._call(lambda: self._selection.find(after=after, limit=limit))

    async def __aiter__(self) -> AsyncIterator[JobRecord]:
        """All jobs that match, in the order of enqueueing; as a loop over it."""
        after = None
        while page := await self.afind(after=after, limit=PAGE):
            for record in page:
                yield record
            after = page[-1].id

    async def acancel(
        self,
        *,
        error: str | None = None,
        rate: float | None = None,
        dry_run: bool = False,
        progress: OnProgress | None = None,
    ) -> BulkResult:
        """`cancel` for coroutines."""
        return await self._adrive(
            self._selection._canceling(error, checked(rate, dry_run, progress))
        )

    async def areset(
        self,
        *,
        deadline: datetime | None = None,
        ttl: float | None = None,
        rate: float | None = None,
        dry_run: bool = False,
        progress: OnProgress | None = None,
    ) -> BulkResult:
        """`reset` for coroutines."""
        ends, how = ends_of(deadline, ttl), checked(rate, dry_run, progress)
        return await self._adrive(self._selection._resetting(ends, how))

    async def adelete(
        self,
        *,
        rate: float | None = None,
        dry_run: bool = False,
        progress: OnProgress | None = None,
    ) -> BulkResult:
        """`delete` for coroutines."""
        return await self._adrive(self._selection._deleting(checked(rate, dry_run, progress)))

    async def aedit(
        self,
        *,
        topic: str | None = None,
        weight: int | None = None,
        delay: Delay | None = None,
        payload: Any = KEEP,
        rate: float | None = None,
        dry_run: bool = False,
        progress: OnProgress | None = None,
        **options: Unpack[OptionArgs],
    ) -> BulkResult:
        """`edit` for coroutines."""
        selection = self._selection
        change = selection._holding.maker.change(topic, weight, delay, payload, options)
        return await self._adrive(selection._editing(change, checked(rate, dry_run, progress)))

    async def amove(
        self,
        topic: str,
        *,
        rate: float | None = None,
        dry_run: bool = False,
        progress: OnProgress | None = None,
    ) -> BulkResult:
        """`move` for coroutines."""
        change = Change(topic=check_name(topic))
        return await self._adrive(
            self._selection._editing(change, checked(rate, dry_run, progress))
        )

    @property
    def _selection(self) -> "Selection":
        return cast("Selection", self)

    async def _call(self, verb: Callable[[], T]) -> T:
        return await bridge_of(self._selection._holding).call(verb)

    async def _adrive(self, run: Run) -> BulkResult:
        while (step := await self._call(run.step)) is not None:
            if isinstance(step, Pause):
                if await self._stopped_within(step.seconds):
                    return run.result(complete=False)
            elif run.how.progress is not None:
                run.how.progress(step)
        return run.result()

    async def _stopped_within(self, seconds: float) -> bool:
        """Sleep so long, or until the service is stopped: that is noticed within a second."""
        import asyncio

        holding = self._selection._holding
        while seconds > 0 and not holding.stopped:
            await asyncio.sleep(min(seconds, 1.0))
            seconds -= 1.0
        return holding.stopped


class Selection(AsyncSelection):
    """Jobs by what is known of them, as `JobService.select` gives it: a description, not a list.

    Nothing is read before a method is called, and each call looks anew. **The verbs** (`cancel`,
    `reset`, `delete`, `edit`, `move`) change all jobs that match and are in a state in which they
    can be changed so. They go through the jobs of the queue in the order of enqueueing: steps
    look at 512 jobs at most, and change 256 of them at most in a commit, so others go on
    meanwhile. In that commit each job is looked at again; one that does not match any more, or is
    gone, is left as it is and counted. Jobs that are enqueued after the verb began are not
    touched. If one fails (`StoreFull`, `StoreBusy`, …), what it has changed so far stays so; it
    can be called again.

    All jobs of the queue are looked at, some 300 000 a second with small payloads, unless the
    counts say that the topic (or the queue) has no job in such a state. Changing one takes as
    long as the verb on ids does.

    All verbs take:

    Args:
        rate: The most jobs per second that are changed, on average, above 0: they come evenly,
            so that workers are not overrun. None for as fast as it goes. `svc.stop()` ends the
            waiting for it, and so the verb; other verbs go on to their end.
        dry_run: Change nothing, and only look: `matched` says how many would be.
        progress: Called after each step with a `BulkProgress`, outside of any transaction; what
            it raises ends the verb.

    Returns:
        A `BulkResult`: how many were looked at, how many matched, how many were changed.

    Raises:
        InvalidValue: An argument is wrong, or the selection names a state in which jobs cannot be
            changed so; nothing was changed.
    """

    def __init__(
        self, holding: "Holding", selector: Selector, begin: LookFrom | None = None
    ) -> None:
        self._holding = holding
        self._selector = selector
        self._begin = begin

    @property
    def statuses(self) -> frozenset[Status]:
        """The states in which jobs can match."""
        return self._selector.possible

    def __str__(self) -> str:
        """What it selects, for people: `ready jobs of topic 'mail'`."""
        return str(self._selector)

    def __repr__(self) -> str:
        return f"<Selection of {self}>"

    # Looking.

    def present(self) -> "Selection":
        """The same, of the jobs only that are in the queue now, whatever becomes of them.

        For two calls about the same jobs: count, ask somebody, and then change.
        """
        begin = self._holding.store.look(self._selector, self._begin, 0).after
        return Selection(self._holding, self._selector, begin)

    def count(self) -> int:
        """How many jobs match now; what a verb would say in a dry run."""
        return self._drive(self._counting()).matched

    def find(self, *, after: str | None = None, limit: int = 100) -> list[JobRecord]:
        """The first *limit* jobs that match, in the order of enqueueing.

        Also those that were enqueued after `present` was called.

        Args:
            after: Only jobs enqueued after the one with this id: the last of the page before.
            limit: 1 to 10 000.

        Raises:
            InvalidValue: An argument is wrong.
        """
        raw = None if after is None else ids.to_raw(after)
        most = integer("limit", limit, 1, MOST_FOUND)
        return self._holding.store.find(self._selector, raw, most)

    def __iter__(self) -> Iterator[JobRecord]:
        """All jobs that match, in the order of enqueueing; a page is read when it is needed."""
        after = None
        while page := self.find(after=after, limit=PAGE):
            yield from page
            if len(page) < PAGE:
                return
            after = page[-1].id

    # Changing.

    def cancel(
        self,
        *,
        error: str | None = None,
        rate: float | None = None,
        dry_run: bool = False,
        progress: OnProgress | None = None,
    ) -> BulkResult:
        """Cancel those that are not finished, whoever holds them.

        Args:
            error: Why; kept with the jobs.
            rate: See the class, for this and what follows.
            dry_run: Likewise.
            progress: Likewise.
        """
        return self._drive(self._canceling(error, checked(rate, dry_run, progress)))

    def reset(
        self,
        *,
        deadline: datetime | None = None,
        ttl: float | None = None,
        rate: float | None = None,
        dry_run: bool = False,
        progress: OnProgress | None = None,
    ) -> BulkResult:
        """Make those that are finished, done and canceled ones, ready again, as if never tried.

        `svc.select(dead=True).reset(rate=50)` gives dead letters another try, 50 a second.

        Args:
            deadline: When they are canceled as expired unless they were handed out; see
                `JobService.reset`.
            ttl: Seconds to that moment, of each from its own reset.
            rate: See the class, for this and what follows.
            dry_run: Likewise.
            progress: Likewise.

        Raises:
            InvalidValue: An argument is wrong.
            StoreFull: There is no room for the new deadlines; the steps before it stand.
        """
        ends, how = ends_of(deadline, ttl), checked(rate, dry_run, progress)
        return self._drive(self._resetting(ends, how))

    def delete(
        self,
        *,
        rate: float | None = None,
        dry_run: bool = False,
        progress: OnProgress | None = None,
    ) -> BulkResult:
        """Forget those that nobody holds: nothing of them is left."""
        return self._drive(self._deleting(checked(rate, dry_run, progress)))

    def edit(
        self,
        *,
        topic: str | None = None,
        weight: int | None = None,
        delay: Delay | None = None,
        payload: Any = KEEP,
        rate: float | None = None,
        dry_run: bool = False,
        progress: OnProgress | None = None,
        **options: Unpack[OptionArgs],
    ) -> BulkResult:
        """Change those that wait, ready and delayed ones; see `JobService.edit` for what.

        Raises:
            InvalidValue: An argument is wrong, or there is nothing to change.
            PayloadTooLarge: The payload is larger than the limit.
            StoreFull: There is no room; the steps before it stand.
        """
        change = self._holding.maker.change(topic, weight, delay, payload, options)
        return self._drive(self._editing(change, checked(rate, dry_run, progress)))

    def move(
        self,
        topic: str,
        *,
        rate: float | None = None,
        dry_run: bool = False,
        progress: OnProgress | None = None,
    ) -> BulkResult:
        """Move those that wait to another topic, to the back of their weight there.

        They keep the order of their enqueueing among one another; their weights stay.

        Args:
            topic: The topic to go to. Those that are in it already stay in their place.
            rate: See the class, for this and what follows.
            dry_run: Likewise.
            progress: Likewise.
        """
        change = Change(topic=check_name(topic))
        return self._drive(self._editing(change, checked(rate, dry_run, progress)))

    # Inside: what the verbs and their twins for coroutines share.

    def _counting(self) -> Run:
        return Run(self._holding.store, self._selector, self._begin, None, ANYHOW)

    def _canceling(self, error: str | None, how: How) -> Run:
        store, where = self._holding.store, self._where(Event.CANCEL)
        why = error_text(error)
        return Run(store, where, self._begin, lambda raw: store.cancel(raw, why, where), how)

    def _resetting(self, ends: JobOptions, how: How) -> Run:
        store, where = self._holding.store, self._where(Event.RESET)
        return Run(store, where, self._begin, lambda raw: store.reset(raw, where, ends), how)

    def _deleting(self, how: How) -> Run:
        store, where = self._holding.store, self._where(Event.DELETE)
        return Run(store, where, self._begin, lambda raw: store.delete(raw, where), how)

    def _editing(self, change: Change, how: How) -> Run:
        store, where = self._holding.store, self._where(Event.EDIT)
        at_once = max(1, min(CHANGED, MOST_BYTES // max(1, len(change.payload or b""))))
        return Run(
            store, where, self._begin, lambda raw: store.edit(raw, change, where), how, at_once
        )

    def _where(self, event: Event) -> Selector:
        """The selector, of jobs to which this can happen.

        Raises:
            InvalidValue: It names states in which that cannot be.
        """
        possible = frozenset(status for status in Status if can_move(status, event))
        named = self._selector.possible
        if named != EVERY_STATUS and (wrong := named - possible):
            raise InvalidValue(
                f"cannot {event} {', '.join(sorted(wrong))} jobs: expected only "
                f"{', '.join(status for status in Status if status in possible)} ones"
            )
        return self._selector.within(possible)

    def _drive(self, run: Run) -> BulkResult:
        while (step := run.step()) is not None:
            if isinstance(step, Pause):
                if self._holding.stopping.wait(step.seconds):
                    return run.result(complete=False)
            elif run.how.progress is not None:
                run.how.progress(step)
        return run.result()
