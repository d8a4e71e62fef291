"""A store, spoken to in the model's numbers; and an interrupt at a chosen point of a call."""

import inspect
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import Any, Final

from jobq import ids
from jobq.clock import Clock
from jobq.job import Change, JobRecord, JobSpec, Report, Reservation, Settlement
from jobq.repo.base import CheckReport, ReserveRequest, Retention, Store
from jobq.selector import Selector
from jobq.states import Outcome, Status
from jobq.topic import TopicSettings
from tests.conftest import Kind
from tests.model.model import SOMEBODY, Counted, Handed, Moved, Said, Say, Tell

NO_JOB: Final = -1
"""The number of a job that never existed."""


class Told:
    """A store that a story is told to: numbers go in, ids and tokens to it, numbers come out.

    What differs from store to store is checked here: ids only grow, and so do the tokens of a job.
    """

    def __init__(self, kind: Kind, path: Path, clock: Clock, retention: Retention) -> None:
        self.kind = kind
        self._open: Callable[[], Store] = lambda: kind.open(path, clock=clock, retention=retention)
        self.store = self._open()
        self._ids: list[bytes] = []
        self._numbers: dict[bytes, int] = {}
        self._tokens: dict[int, list[int]] = {NO_JOB: []}

    def __repr__(self) -> str:
        return f"the {self.kind.name} store"

    # The port.

    def enqueue(self, specs: Sequence[JobSpec]) -> list[int]:
        return self._learn(self.store.enqueue(specs))

    def reserve(self, topic: str, n: int) -> list[Handed]:
        return self._handed(self.store.reserve(ReserveRequest(topic, n)))

    def settle(self, says: Sequence[Say], reserve: tuple[str, int] | None = None) -> Said:
        settled = self.store.settle(
            [
                Settlement(
                    self._id(say.job),
                    self._token(say.job, say.token),
                    *say[2:-1],
                    report=None if say.tell is None else self._report(say.tell),
                )
                for say in says
            ],
            ReserveRequest(*reserve) if reserve else None,
        )
        follow = [self._learn(new) for new in settled.follow_ids]
        return Said(settled.outcomes, follow, self._handed(settled.reserved))

    def extend(self, holds: Sequence[tuple[int, int, int]]) -> list[Outcome]:
        return self.store.extend(
            [(self._id(job), self._token(job, token), us) for job, token, us in holds]
        )

    def report(self, tells: Sequence[Tell]) -> list[Outcome]:
        return self.store.report([self._report(tell) for tell in tells])

    def _report(self, tell: Tell) -> Report:
        return Report(self._id(tell.job), self._token(tell.job, tell.token), *tell[2:])

    def holds(self, job: int, token: int) -> bool:
        return self.store.holds(self._id(job), self._token(job, token))

    def cancel(
        self, jobs: Sequence[int], error: str | None = None, where: Selector | None = None
    ) -> list[Outcome]:
        return self.store.cancel([self._id(job) for job in jobs], error, where)

    def reset(self, jobs: Sequence[int], where: Selector | None = None) -> list[Outcome]:
        return self.store.reset([self._id(job) for job in jobs], where)

    def delete(self, jobs: Sequence[int], where: Selector | None = None) -> list[Outcome]:
        return self.store.delete([self._id(job) for job in jobs], where)

    def advance(self, limit: int) -> Moved:
        return Moved(*self.store.advance(limit))

    def prune(self, limit: int) -> int:
        return self.store.prune(limit)

    def status(self, jobs: Sequence[int]) -> list[Status | None]:
        return self.store.status([self._id(job) for job in jobs])

    def get(self, jobs: Sequence[int]) -> list[JobRecord | None]:
        records = self.store.get([self._id(job) for job in jobs])
        return [None if record is None else self._numbered(record) for record in records]

    def find(self, selector: Selector, after: int | None, limit: int) -> list[JobRecord]:
        beyond = None if after is None else self._id(after)
        return [self._numbered(job) for job in self.store.find(selector, beyond, limit)]

    def purge(self, topic: str, statuses: frozenset[Status], limit: int) -> int:
        total, after = self.store.purge(topic, statuses, None, limit)
        while after is not None:
            jobs, after = self.store.purge(topic, statuses, after, limit)
            assert jobs <= limit
            total += jobs
        return total

    def edit(
        self, jobs: Sequence[int], change: Change, where: Selector | None = None
    ) -> list[Outcome]:
        return self.store.edit([self._id(job) for job in jobs], change, where)

    def configure(self, topic: str, changes: Mapping[str, Any]) -> TopicSettings:
        return self.store.configure(topic, changes)

    def settings(self, topic: str) -> TopicSettings:
        return self.store.settings(topic)

    def topics(self) -> list[str]:
        return self.store.topics()

    def stats(self, topic: str | None = None) -> Counted:
        stats = self.store.stats(topic)
        return Counted(stats.topics, stats.next_due_us)

    # Its life.

    def reopen(self) -> None:
        """Close it and open it again, if it outlives that."""
        if self.kind.capabilities.durable:
            self.store.close()
            self.store = self._open()

    def check(self) -> CheckReport:
        return self.store.check()

    def close(self) -> None:
        self.store.close()

    # Numbers for ids, and back.

    def _learn(self, new: Sequence[bytes]) -> list[int]:
        for job_id in new:
            assert not self._ids or job_id > self._ids[-1], f"{self}: ids must grow"
            self._numbers[job_id] = len(self._ids)
            self._ids.append(job_id)
        return [self._numbers[job_id] for job_id in new]

    def _id(self, job: int) -> bytes:
        return bytes(16) if job == NO_JOB else self._ids[job]

    def _token(self, job: int, count: int) -> int:
        """The token of the job's *count*-th reservation: 0 if *count* is, ahead if none yet."""
        known = self._tokens.get(job, [])
        if 0 < count <= len(known):
            return known[count - 1]
        return 0 if count == 0 else max(known, default=0) + count - len(known)

    def _handed(self, reservations: Sequence[Reservation]) -> list[Handed]:
        handed = []
        for reservation in reservations:
            job = self._numbers[reservation.id]
            known = self._tokens.setdefault(job, [])
            assert reservation.token > max(known, default=0), f"{self}: tokens of a job must grow"
            known.append(reservation.token)
            handed.append(Handed(job, len(known), *reservation[2:]))
        return handed

    def _numbered(self, record: JobRecord) -> JobRecord:
        number = self._numbers[ids.to_raw(record.id)]
        assert all(attempt.holder for attempt in record.history)
        return replace(
            record,
            id=str(number),
            holder=SOMEBODY if record.holder else None,
            history=tuple(attempt._replace(holder=SOMEBODY) for attempt in record.history),
        )


class Interrupt(BaseException):
    """What a signal handler raises in the middle of a call."""


@contextmanager
def interrupt(after: int) -> Iterator[None]:
    """Raise `Interrupt` once an operation of a store has made *after* calls within jobq.

    It hits the operation at work, in its transaction: some of its changes are made already, others
    are not. If the operation is shorter than that, nothing is raised.
    """
    depth = left = 0

    def look(frame: FrameType, event: str, _: object) -> None:
        nonlocal depth, left
        module: str = frame.f_globals.get("__name__", "")
        operation = module.startswith("jobq.repo.operations.")
        # Not in a generator: one that is left unfinished is closed where nothing can be raised.
        generator = frame.f_code.co_flags & inspect.CO_GENERATOR
        at_work = operation or (depth and module.startswith("jobq."))
        if event == "call" and at_work and not generator:
            left += 1
            if left > after:
                sys.setprofile(None)
                raise Interrupt
        if operation and event in {"call", "return"}:
            depth += 1 if event == "call" else -1

    sys.setprofile(look)
    try:
        yield
    finally:
        sys.setprofile(None)
