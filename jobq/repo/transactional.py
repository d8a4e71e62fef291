"""The whole `Store`, written once over a job repository and a topic repository.

An engine supplies transactions over the two (`_write`, `_read`) and what depends on processes
(`wait`, `wait_ended`, `wake`, and who is dead); the state machine, fencing, retention and the
rules of time are here.

Each operation is a function of a `Transaction` in two halves: it reads and decides, and only
there may it refuse; then it writes. So a refused operation has written nothing, and an engine
may run several operations in one transaction (group commit): one that refuses does not disturb
the others.
"""

from abc import abstractmethod
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from itertools import islice
from typing import Any, Final, NamedTuple, TypeVar

from jobq import ids as job_ids
from jobq.errors import InvalidValue, StoreCorrupt, shown
from jobq.job import (
    Change,
    JobCopy,
    JobRecord,
    JobSpec,
    Report,
    Reservation,
    Settlement,
    UniqueKey,
)
from jobq.options import UNSET, JobOptions
from jobq.repo.base import (
    Advanced,
    CheckReport,
    Exported,
    Imported,
    Looked,
    LookFrom,
    Purged,
    PurgeFrom,
    ReserveRequest,
    Retention,
    Settled,
    Stats,
    Store,
)
from jobq.repo.operations import history
from jobq.repo.operations.change import cancel, delete, reset, size_of_reset
from jobq.repo.operations.checking import check
from jobq.repo.operations.damage import PASSED_OVER, log_unreadable
from jobq.repo.operations.due import expire, lapse, promote
from jobq.repo.operations.edit import edit, size_of_edit
from jobq.repo.operations.enqueue import add, is_plain
from jobq.repo.operations.finding import found_to_meet, look, may_meet, page
from jobq.repo.operations.flow import lingering, overview, room, uniques
from jobq.repo.operations.flow.groups import look_again, seat_all
from jobq.repo.operations.flow.shares import Choices, take
from jobq.repo.operations.flow.uniques import sweep
from jobq.repo.operations.passing import note_next, pass_on
from jobq.repo.operations.places import prune, size_of
from jobq.repo.operations.purging import purge
from jobq.repo.operations.rebuild import rebuild
from jobq.repo.operations.reports import log_of, progress_of, result_of
from jobq.repo.operations.settle import extend, is_held, report, settle
from jobq.repo.operations.topics import configure, forget_idle, listed_names, settings_of
from jobq.repo.operations.transfer import add_copies, copy_of, size_of_copies
from jobq.repo.repositories import (
    NOTHING_LOST,
    Agenda,
    JobBody,
    JobState,
    Lost,
    Span,
    Transaction,
)
from jobq.repo.watch import Owed
from jobq.selector import Selector
from jobq.states import Event, Outcome, Status
from jobq.topic import GroupStats, TopicLimits, TopicSettings

T = TypeVar("T")

STEP: Final = 256
"""How many due jobs a writing operation moves on its way. With a commit of some 100 µs, moving
256 jobs costs a few milliseconds: a caller does not feel it, and a backlog of 100 000 is gone
after 400 calls or one waiting process."""

SHORT_STEP: Final = 1
"""How many instead where room is short: each move copies some pages before it frees them. When 256
jobs fell due on a full disk, nothing at all could be written any more; with 4, one full disk of
1 600 was left with too few pages for that."""

FEW: Final = 16
"""So many jobs of one call may be added together with those of others: more cost little alone."""

PAGE: Final = 512
"""How many jobs `find` looks at in one read transaction."""


class Kind(NamedTuple):
    """What an engine needs to know of an operation before it runs it.

    Attributes:
        adds: About how many bytes of new jobs it brings; 0 for one that adds none. Adding is
            refused when there is no room, while all else goes on.
        moves_time: What is due is moved first.
        plain: If the operation does nothing but add these jobs, which ask for nothing: an engine
            may run several such operations as one, see `TransactionalStore._add_plain`.
    """

    adds: int = 0
    moves_time: bool = True
    plain: Sequence[JobSpec] | None = None


DRAINS: Final = Kind()
TIMELESS: Final = Kind(moves_time=False)


class TransactionalStore(Store):
    """A store whose engine has transactions over a `JobRepository` and a `TopicRepository`."""

    _damage: tuple[type[Exception], ...] = (StoreCorrupt,)
    """By which exceptions the repositories say that something cannot be read."""

    def __init__(self, retention: Retention) -> None:
        if not isinstance(retention, Retention):
            raise InvalidValue(f"retention is {shown(retention)}: expected a Retention")
        self._retention = retention
        self._choices = Choices()
        self._owed = Owed()

    # What the engine supplies.

    @abstractmethod
    def _write(
        self,
        operation: Callable[[Transaction], T],
        kind: Kind,
        undo: Callable[[T], None] | None = None,
    ) -> T:
        """Run *operation* in a write transaction, alone or in a group, and commit it.

        *undo* is called with the outcome if the caller was interrupted and cannot get it.
        """

    @abstractmethod
    def _read(self, operation: Callable[[Transaction], T]) -> T:
        """Run *operation* in a read transaction."""

    @abstractmethod
    def _facts(self) -> dict[str, int | str]:
        """What `stats` says of the store itself."""

    @abstractmethod
    def _holder_name(self, holder: bytes) -> str:
        """What a record calls a holder."""

    # The verbs.

    def enqueue(self, specs: Sequence[JobSpec]) -> list[bytes]:
        if not specs:
            return []
        plain = specs if len(specs) <= FEW and is_plain(specs) else None
        kind = Kind(adds=size_of(specs), plain=plain)
        return self._write(lambda tx: add(tx, specs, self._retention), kind)

    def _add_plain(self, tx: Transaction, calls: Sequence[Sequence[JobSpec]]) -> list[list[bytes]]:
        """Add the jobs of several calls as if they were one; gives the ids of each."""
        ids = iter(add(tx, [spec for specs in calls for spec in specs], self._retention))
        if tx.unseated:
            seat_all(tx)
        return [list(islice(ids, len(specs))) for specs in calls]

    def reserve(self, request: ReserveRequest) -> list[Reservation]:
        return self._write(self._taking(request), DRAINS, self._give_back)

    def _taking(self, request: ReserveRequest) -> Callable[[Transaction], list[Reservation]]:
        """The operation that reserves; who has waited before it calls others whom it owes that."""
        topics, left = self._owed.topics, self._owed.left
        if left is None:
            return lambda tx: take(tx, request, self._retention, self._choices)
        self._owed.topics, self._owed.left = (), None

        def take_and_pass_on(tx: Transaction) -> list[Reservation]:
            taken = take(tx, request, self._retention, self._choices)
            pass_on(tx, topics, taken)
            if taken or left.had_watch:
                note_next(tx, left.topics)
            return taken

        return take_and_pass_on

    def settle(
        self, settlements: Sequence[Settlement], reserve: ReserveRequest | None = None
    ) -> Settled:
        taking = None if reserve is None else self._taking(reserve)

        def operation(tx: Transaction) -> Settled:
            outcomes, follow_ids = settle(tx, settlements, self._retention)
            return Settled(outcomes, follow_ids, [] if taking is None else taking(tx))

        adds = sum(size_of(settlement.follow) for settlement in settlements if settlement.follow)
        return self._write(
            operation,
            Kind(adds=adds) if adds else DRAINS,
            lambda done: self._give_back(done.reserved),
        )

    def extend(self, holds: Sequence[tuple[bytes, int, int]]) -> list[Outcome]:
        return self._write(lambda tx: extend(tx, holds), DRAINS)

    def report(self, reports: Sequence[Report]) -> list[Outcome]:
        size = sum(len(text) for told in reports for _, text in told.lines)
        return self._write(lambda tx: report(tx, reports), Kind(adds=size + 256 * len(reports)))

    def holds(self, job_id: bytes, token: int) -> bool:
        def operation(tx: Transaction) -> bool:
            (state,) = tx.jobs.states([job_id])
            return state is not None and is_held(tx, state, token)

        return self._read(operation)

    def cancel(
        self, ids: Sequence[bytes], error: str | None = None, where: Selector | None = None
    ) -> list[Outcome]:
        return self._write(lambda tx: cancel(tx, ids, error, self._retention, where), DRAINS)

    def reset(
        self, ids: Sequence[bytes], where: Selector | None = None, ends: JobOptions = UNSET
    ) -> list[Outcome]:
        return self._write(
            lambda tx: reset(tx, ids, where, ends), Kind(adds=size_of_reset(ids, ends))
        )

    def delete(self, ids: Sequence[bytes], where: Selector | None = None) -> list[Outcome]:
        def operation(tx: Transaction) -> list[Outcome]:
            outcomes, repaired = delete(tx, ids, where)
            if repaired:
                self._choices.forget()
            return outcomes

        return self._write(operation, DRAINS)

    def purge(
        self, topic: str, statuses: frozenset[Status], after: PurgeFrom | None, limit: int
    ) -> Purged:
        return self._write(lambda tx: purge(tx, topic, statuses, after, _step(tx, limit)), DRAINS)

    def edit(
        self, ids: Sequence[bytes], change: Change, where: Selector | None = None
    ) -> list[Outcome]:
        return self._write(
            lambda tx: edit(tx, ids, change, where), Kind(adds=size_of_edit(ids, change))
        )

    def configure(self, topic: str | None, changes: Mapping[str, Any]) -> TopicSettings:
        return self._write(lambda tx: configure(tx, topic, changes), DRAINS)

    def release_keys(self, keys: Sequence[str]) -> list[Outcome]:
        return self._write(lambda tx: overview.release_keys(tx, keys), DRAINS)

    def release_groups(self, topic: str, groups: Sequence[str]) -> list[Outcome]:
        return self._write(lambda tx: overview.release_groups(tx, topic, groups), DRAINS)

    def release_limits(self, topic: str) -> int:
        return self._write(lambda tx: overview.release_limits(tx, topic), DRAINS)

    def advance(self, limit: int = 1000) -> Advanced:
        return self._write(lambda tx: self._advance(tx, limit)[0], TIMELESS)

    def prune(self, limit: int = 1000) -> int:
        def operation(tx: Transaction) -> int:
            step = _step(tx, limit)
            pruned = prune(tx, step, self._retention, tx.topics.configured())
            sweep(tx, step)
            if pruned < step:
                forget_idle(tx, step, step)
            return pruned

        return self._write(operation, DRAINS)

    # Reads.

    def status(self, ids: Sequence[bytes]) -> list[Status | None]:
        def operation(tx: Transaction) -> list[Status | None]:
            return [None if state is None else state.status for state in tx.jobs.states(ids)]

        return self._read(operation)

    def get(self, ids: Sequence[bytes]) -> list[JobRecord | None]:
        def operation(tx: Transaction) -> list[JobRecord | None]:
            return [
                None if both is None else self._whole_record(tx, job_id, *both)
                for job_id, both in zip(ids, tx.jobs.both(ids), strict=True)
            ]

        return self._read(operation)

    def with_keys(self, keys: Sequence[str]) -> list[JobRecord | None]:
        def operation(tx: Transaction) -> list[JobRecord | None]:
            holders = [uniques.holder(tx, key) for key in keys]
            return [
                None if job_id is None or both is None else self._whole_record(tx, job_id, *both)
                for job_id in holders
                for both in (tx.jobs.both([job_id] if job_id else []) or [None])
            ]

        return self._read(operation)

    def find(self, selector: Selector, after: bytes | None, limit: int) -> list[JobRecord]:
        found: list[JobRecord] = []

        def step(tx: Transaction) -> bytes | None:
            if not may_meet(tx, selector):
                return None
            jobs, last = page(tx, selector, after, PAGE)
            for job_id, body, state in jobs:
                if not found_to_meet(tx, selector, job_id, body, state):
                    continue
                try:
                    found.append(self._record(tx, job_id, body, state))
                except StoreCorrupt as error:
                    log_unreadable(job_id, error, PASSED_OVER)
                    continue
                if len(found) == limit:
                    return None
            return last

        while (after := self._read(step)) is not None:
            pass
        return found

    def look(self, selector: Selector, after: LookFrom | None, limit: int) -> Looked:
        return self._read(lambda tx: look(tx, selector, after, limit))

    def ids(self, after: bytes | None, limit: int) -> list[bytes]:
        return self._read(lambda tx: tx.jobs.ids(after, limit))

    def topics(self) -> list[str]:
        return self._read(listed_names)

    def settings(self, topic: str | None) -> TopicSettings:
        return self._read(lambda tx: settings_of(tx, topic))

    def unfinished(self, topic: str | None) -> int:
        return self._read(lambda tx: overview.unfinished(tx, topic))

    def rooms(self, topics: Collection[str]) -> list[bytes]:
        return self._read(lambda tx: room.rooms(tx, topics))

    def emptied(self, topic: str | None) -> list[bytes]:
        return self._read(lambda tx: room.emptied(tx, topic))

    def keys(self, after: str | None, limit: int) -> list[UniqueKey]:
        return self._read(lambda tx: overview.keys(tx, after, limit))

    def groups(self, topic: str, after: str | None, limit: int) -> list[GroupStats]:
        return self._read(lambda tx: overview.groups_of(tx, topic, after, limit))

    def limits(self, topic: str | None) -> TopicLimits:
        return self._read(lambda tx: overview.limits_of(tx, topic))

    def stats(self, topic: str | None = None) -> Stats:
        def operation(tx: Transaction) -> Stats:
            names = listed_names(tx) if topic is None else [topic]
            return Stats(
                tuple(overview.topic_stats(tx, name) for name in names),
                tx.topics.first_due(Agenda.DELAYED),
                tx.topics.store_settings().as_dict(),
            )

        stats = self._read(operation)
        return Stats(stats.topics, stats.next_due_us, {**self._facts(), **stats.store})

    def export_jobs(self, after: bytes | None, limit: int) -> Exported:
        def operation(tx: Transaction) -> Exported:
            try:
                copies = [copy_of(tx, *job) for job in tx.jobs.scan(after, limit)]
            except StoreCorrupt as error:
                raise StoreCorrupt(
                    f"{error}; `jobq export --salvage` writes what can be read, and no export "
                    "misses a job that was deleted"
                ) from error
            return Exported(copies, tx.topics.last_seq())

        return self._read(operation)

    def import_jobs(self, copies: Sequence[JobCopy], last_place: int, base: int | None) -> Imported:
        return self._write(
            lambda tx: Imported(*add_copies(tx, copies, last_place, base)),
            Kind(adds=size_of_copies(copies)),
        )

    def check(self, *, repair: bool = False) -> CheckReport:
        found = self._read(lambda tx: check(tx, self._damage))
        if found.ok or not repair:
            return found

        def operation(tx: Transaction) -> None:
            tx.topics.clear()
            rebuild(tx, mend=True)
            check(tx, (StoreCorrupt,))  # what the engine itself says ends the repair
            tx.jobs.refuse_damage()  # it may have written over them

        self._choices.forget()
        try:
            self._write(operation, TIMELESS)  # moving time would meet what is damaged
        except StoreCorrupt as error:
            return replace(found, problems=(*found.problems, f"nothing was repaired: {error}"))
        # As it is now: an engine that does not know which pages are free may have met others at
        # the very end, in its commit.
        left = self._read(lambda tx: check(tx, self._damage))
        repaired = tuple(problem for problem in found.problems if problem not in left.problems)
        return replace(left, repaired=repaired)

    # Time.

    def _advance(
        self, tx: Transaction, limit: int, lost: Lost | None = None
    ) -> tuple[Advanced, Span | None]:
        """Move what is due, and what is lost with dead processes; and where more of that begins."""
        limit = _step(tx, limit)
        promoted, more = promote(tx, limit)
        expired, poisoned, more_expired = self._expire_due(tx, limit)
        stopped = None
        holders, spans = lost or NOTHING_LOST
        for span in spans:
            held, place = tx.topics.held_by(holders, span, max(1, limit - expired))
            if span.agenda is Agenda.LEASE:
                again, poisoned_too = expire(tx, held, self._retention)
                expired, poisoned = expired + again + poisoned_too, poisoned + poisoned_too
            else:
                lingering.over(tx, held)
            if place is not None:
                stopped = span._replace(start=place)
                break
        more = self._look_at_watched(tx, limit) or more or more_expired or stopped is not None
        return Advanced(promoted, expired, poisoned, more), stopped

    def _move_time(self, tx: Transaction) -> None:
        """What every writing operation does first: a bounded step of what is due by the clocks.

        When nothing is due it costs two looks at the head of an index; when nothing waits, none.
        """
        topics = tx.topics
        if topics.total(Status.DELAYED) and topics.is_due(Agenda.DELAYED, tx.wall_us):
            promote(tx, _step(tx, STEP))
        if topics.total(Status.RESERVED) and topics.is_due(Agenda.LEASE, tx.boot_us):
            self._expire_due(tx, _step(tx, STEP))
        if topics.is_watchful():
            self._look_at_watched(tx, _step(tx, STEP))
        if tx.unseated:
            seat_all(tx)

    def _look_at_watched(self, tx: Transaction, limit: int) -> bool:
        """What is due of deadlines, lingering holds and rates; whether something may be left."""
        topics, more = tx.topics, False
        if topics.standing(Agenda.DEADLINE):
            held = topics.due(Agenda.DEADLINE, tx.wall_us, limit)
            if held:
                lapse(tx, held, self._retention)
                more = len(held) == limit
        if topics.standing(Agenda.LINGER):
            held = topics.due(Agenda.LINGER, tx.boot_us, limit)
            if held:
                lingering.over(tx, held)
                more = more or len(held) == limit
        if topics.standing(Agenda.LANE):
            more = look_again(tx, limit) == limit or more
        return more

    def _whole(self, operation: Callable[[Transaction], T]) -> Callable[[Transaction], T]:
        """The operation, with what has to be done at the end of each."""

        def whole(tx: Transaction) -> T:
            outcome = operation(tx)
            if tx.unseated:
                seat_all(tx)
            return outcome

        return whole

    def _expire_due(self, tx: Transaction, limit: int) -> tuple[int, int, bool]:
        due = tx.topics.due(Agenda.LEASE, tx.boot_us, limit)
        ready, poisoned = expire(tx, due, self._retention)
        return ready + poisoned, poisoned, len(due) == limit

    def _give_back(self, reservations: list[Reservation]) -> None:
        """Release what a caller was interrupted in reserving: it can never settle it."""
        if reservations:
            self.settle([Settlement(job.id, job.token, Event.RELEASE) for job in reservations])

    def _record(self, tx: Transaction, job_id: bytes, body: JobBody, state: JobState) -> JobRecord:
        reserved = state.status is Status.RESERVED
        past = history.of_job(tx, job_id, state)
        return JobRecord(
            id=job_ids.to_text(job_id),
            topic=tx.topics.name(state.topic),
            status=state.status,
            weight=state.weight,
            attempt=state.attempt,
            retries=state.retries,
            crashes=state.crashes,
            resets=state.resets,
            reason=state.reason,
            error=past.error,
            options=body.options,
            holder=self._holder_name(state.holder) if reserved else None,
            created_us=body.created_us,
            due_us=state.at_us if state.status is Status.DELAYED else None,
            lease_until_us=tx.wall_us + state.at_us - tx.boot_us if reserved else None,
            reserved_us=state.reserved_us or None,
            ended_us=state.ended_us or None,
            payload_bytes=body.payload,
            result_bytes=result_of(tx, job_id, state),
            history=past.attempts or history.succeeded_at_once(tx, state),
            history_dropped=past.dropped,
            progress=progress_of(tx, job_id, state),
        )

    def _whole_record(
        self, tx: Transaction, job_id: bytes, body: JobBody, state: JobState
    ) -> JobRecord:
        lines, dropped = log_of(tx, job_id, state)
        return replace(self._record(tx, job_id, body, state), log=lines, log_dropped=dropped)


def _step(tx: Transaction, limit: int) -> int:
    """How many jobs one commit is to move: so many, or fewer where room is short."""
    return min(limit, SHORT_STEP) if tx.is_short() else limit
