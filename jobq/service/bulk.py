"""One change of all jobs that a selector means, in steps: a read or a commit each.

A page of jobs is looked at in one read. Those that match are changed in commits of their own, in
each of which every job is looked at again. So nobody waits long for the write lock, and no job is
changed that is not meant any more when its turn comes.
"""

import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, NamedTuple

from jobq import ids
from jobq.errors import InvalidValue, StoreFull, shown
from jobq.options import flag, number_in
from jobq.repo.base import LookFrom, Store
from jobq.selector import Selector
from jobq.states import Outcome

LOOKED_AT: Final = 512
"""The most jobs that a step looks at: some milliseconds."""

CHANGED: Final = 256
"""The most jobs of one commit."""

MOMENT_S: Final = 0.1
"""Jobs that are due within such a time at their rate come in one commit."""

MOST_BYTES: Final = 16 * 1024 * 1024
"""The most bytes that a commit may add, unless one job alone takes more."""

HIGHEST_RATE: Final = 1_000_000

Verb = Callable[[list[bytes]], list[Outcome]]
"""Changes jobs in one commit; gives outcomes by position."""


class BulkProgress(NamedTuple):
    """How far a change of many jobs has come; told after each step.

    Attributes:
        looked: How many jobs have been looked at.
        matched: How many of them matched.
        changed: How many have been changed.
        outcomes: The jobs of this step by id, and what became of each: `ok`, or why it was left
            as it is, as in `BulkResult`. In a dry run all that match are `ok`. Often empty.
    """

    looked: int
    matched: int
    changed: int
    outcomes: Mapping[str, Outcome]


OnProgress = Callable[[BulkProgress], object]


@dataclass(frozen=True, slots=True)
class BulkResult:
    """What a change of many jobs did.

    Attributes:
        looked: How many jobs were looked at.
        matched: How many of them matched, and were in a state in which they could be changed.
        outcomes: How many of these came to which outcome: `ok`, or, for those that were left as
            they are, `missing` (forgotten before their turn came), `invalid` (they did not match
            any more then) or `conflict` (another job has their unique key). Empty in a dry run.
        complete: False if `svc.stop()` ended it before its end, while it waited for its rate.
    """

    looked: int
    matched: int
    outcomes: Mapping[Outcome, int]
    complete: bool = True

    @property
    def changed(self) -> int:
        """How many jobs were changed."""
        return self.outcomes.get(Outcome.OK, 0)

    @property
    def left(self) -> int:
        """How many jobs that matched were left as they are, for whatever reason."""
        return sum(self.outcomes.values()) - self.changed


class Pause(NamedTuple):
    """What a run wants before its next step: that so many seconds go by."""

    seconds: float


class How(NamedTuple):
    """How a change of many jobs is gone about, checked.

    Attributes:
        rate: The most jobs a second that are changed, on average; None for as fast as it goes.
        dry_run: Only look.
        progress: Called after each step by whoever drives it.
    """

    rate: float | None = None
    dry_run: bool = False
    progress: OnProgress | None = None


ANYHOW: Final = How()


class Run:
    """A change of many jobs that is going on; whoever drives it makes one `step` after another.

    Args:
        store: Where the jobs are.
        selector: Which jobs are meant.
        begin: Where the walk begins; None sees the jobs that are there at the first step.
        verb: Changes jobs; None only looks.
        how: How to go about it.
        at_once: The most jobs of one commit.
        now: A clock in seconds that nobody steps.
    """

    def __init__(
        self,
        store: Store,
        selector: Selector,
        begin: LookFrom | None,
        verb: Verb | None,
        how: How,
        at_once: int = CHANGED,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store = store
        self._selector = selector
        self._begin = begin
        self._verb = None if how.dry_run else verb
        self.how = how
        # So that they do not come in rushes: what is due in such a moment.
        due = at_once if how.rate is None else int(how.rate * MOMENT_S)
        self._at_once = max(1, min(at_once, due))
        self._now = now
        self._looked = 0
        self._matched = 0
        self._counts: Counter[Outcome] = Counter()
        self._steps = self._walk()

    def step(self) -> BulkProgress | Pause | None:
        """The next thing to come: a step that has been made, or a wish to wait; None at the end."""
        return next(self._steps, None)

    def result(self, *, complete: bool = True) -> BulkResult:
        """What has come of it."""
        return BulkResult(
            self._looked, self._matched, MappingProxyType(dict(self._counts)), complete
        )

    def _walk(self) -> Iterator[BulkProgress | Pause]:
        after = self._begin
        began, taken = self._now(), 0
        while True:
            found, looked, after = self._store.look(self._selector, after, LOOKED_AT)
            self._looked += looked
            self._matched += len(found)
            if self._verb is None or not found:
                yield self._progress(found, [Outcome.OK] * len(found))
            else:
                for at in range(0, len(found), self._at_once):
                    if self.how.rate is not None:
                        yield Pause(max(0.0, began + taken / self.how.rate - self._now()))
                    some = found[at : at + self._at_once]
                    outcomes = _in_halves(self._verb, some)
                    self._counts.update(outcomes)
                    taken += len(some)
                    yield self._progress(some, outcomes)
            if after is None:
                return

    def _progress(self, jobs: list[bytes], outcomes: list[Outcome]) -> BulkProgress:
        told = {ids.to_text(raw): one for raw, one in zip(jobs, outcomes, strict=True)}
        return BulkProgress(self._looked, self._matched, self._counts[Outcome.OK], told)


def _in_halves(verb: Verb, jobs: list[bytes]) -> list[Outcome]:
    """What *verb* gives for *jobs*, in smaller commits if there is no room for one.

    Raises:
        StoreFull: There is none for a single job.
    """
    try:
        return verb(jobs)
    except StoreFull:
        if len(jobs) == 1:
            raise
    half = len(jobs) // 2
    return _in_halves(verb, jobs[:half]) + _in_halves(verb, jobs[half:])


def checked(rate: object, dry_run: object, progress: object) -> How:
    """How to go about it, out of what a caller gives.

    Raises:
        InvalidValue: The rate is no number above 0 and up to 1 000 000, or another is wrong.
    """
    if rate is not None:
        number = number_in(rate)
        if number is None:
            raise InvalidValue(f"rate is {shown(rate)}: expected a number of jobs per second")
        if not 0 < number <= HIGHEST_RATE:  # also refuses NaN, which compares false
            raise InvalidValue(
                f"rate is {shown(rate)}: expected jobs per second, above 0, at most {HIGHEST_RATE}"
            )
        rate = float(number)
    only_looks = flag("dry_run", dry_run)
    if progress is not None and not callable(progress):
        raise InvalidValue(f"progress is {shown(progress)}: expected a function of a BulkProgress")
    return How(rate, only_looks, progress)
