"""What a service holds: its jobs' way to the store, and giving back what is left at the end."""

import os
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

from jobq import ids
from jobq.errors import QueueFull
from jobq.job import JobSpec, Reservation, Settlement
from jobq.repo.base import ReserveRequest, Settled, Store
from jobq.service.job import Backoff, Job
from jobq.service.keeper import Keeper
from jobq.service.latch import Latch
from jobq.service.patience import Patience
from jobq.service.reports import Reports
from jobq.service.specs import SpecMaker
from jobq.states import Event, Outcome

if TYPE_CHECKING:
    from jobq.service.aio import Bridge


class Holding:
    """The jobs that a service has reserved and not settled.

    Attributes:
        stopped: The service reserves no more.
        stopping: Opened when it is stopped, for those who sleep until then.
        closed: The service is closed.
        bridges: For coroutines, by process: a fork's child needs one of its own.
    """

    def __init__(
        self,
        store: Store,
        maker: SpecMaker,
        backoff: Backoff,
        reports: Reports,
        keeper: Keeper,
    ) -> None:
        self.store = store
        self.reports = reports
        self.keeper = keeper
        self.maker = maker
        self.backoff = backoff
        self.stopped = False
        self.stopping: Latch = Latch()
        self.closed = False
        self.bridges: dict[int, Bridge] = {}
        self._pid = os.getpid()
        self._held: dict[tuple[bytes, int], None] = {}

    def enqueue(self, specs: Sequence[JobSpec], seconds: float | None) -> list[bytes]:
        """Add the jobs; waits so long for room if there is none (None: until the service stops).

        Raises:
            QueueFull: There is no room, or has not been in time.
        """
        patience = None
        while True:
            try:
                return self.store.enqueue(specs)
            except QueueFull:
                if seconds == 0:
                    raise
                if patience is None:
                    rooms = partial(self.store.rooms, {spec.topic for spec in specs})
                    patience = Patience(self, rooms, seconds)
                if not patience.again():
                    raise

    def reserve(self, request: ReserveRequest) -> list[Job]:
        """Reserve; the jobs are in the hands of this service."""
        taken: list[Reservation] = []
        try:
            taken = self.store.reserve(request)
            return self._take(taken)
        except BaseException:
            self._give_back(taken)
            raise

    def _take(self, reservations: list[Reservation]) -> list[Job]:
        held = self._held
        jobs = []
        for reservation in reservations:
            held[reservation.id, reservation.token] = None
            jobs.append(Job(self, reservation))
        return jobs

    def _give_back(self, reservations: list[Reservation]) -> None:
        """After an interrupt: the caller does not get them, so nobody would ever settle them."""
        for job in reservations:
            self._held.pop((job.id, job.token), None)
        if reservations:
            release = [Settlement(job.id, job.token, Event.RELEASE) for job in reservations]
            self.store.settle(release)

    def settle(
        self, jobs: list[Job], settlements: list[Settlement]
    ) -> tuple[list[Outcome], list[list[str]]]:
        """Settle; gives outcomes and ids of follow-up jobs by position."""
        settled = self._write(settlements)
        self._note(jobs, settlements, settled.outcomes)
        return settled.outcomes, [
            [ids.to_text(raw) for raw in follow] for follow in settled.follow_ids
        ]

    def settle_many(self, jobs: list[Job], settlements: list[Settlement]) -> list[Outcome]:
        """Settle without follow-up jobs; gives outcomes by position."""
        outcomes = self._write(settlements).outcomes
        self._note(jobs, settlements, outcomes)
        return outcomes

    def settle_and_reserve(
        self, jobs: list[Job], settlements: list[Settlement], request: ReserveRequest | None
    ) -> tuple[list[Outcome], list[list[bytes]], list[Job]]:
        """Settle, and reserve in the same commit; gives the jobs reserved as well."""
        taken: list[Reservation] = []
        try:
            settled = self._write(settlements, request)
            taken = settled.reserved
            self._note(jobs, settlements, settled.outcomes)
            return settled.outcomes, settled.follow_ids, self._take(taken)
        except BaseException:
            self._give_back(taken)
            raise

    def _write(
        self, settlements: list[Settlement], request: ReserveRequest | None = None
    ) -> Settled:
        """Settle, with what was told of the jobs since the last time."""
        if not self.reports:
            return self.store.settle(settlements, request)
        told = [self.reports.take(one.id, one.token) for one in settlements]
        try:
            return self.store.settle(
                [
                    one._replace(report=report)
                    for one, report in zip(settlements, told, strict=True)
                ],
                request,
            )
        except BaseException:
            for report in told:
                if report is not None:
                    self.reports.put_back(report)
            raise

    def _note(
        self, jobs: list[Job], settlements: list[Settlement], outcomes: list[Outcome]
    ) -> None:
        ok, let_go = Outcome.OK, self._held.pop
        for position, job in enumerate(jobs):
            settlement = settlements[position]
            event = settlement[2]
            let_go(settlement[:2], None)
            if outcomes[position] is ok:
                job._settled = event
            elif outcomes[position] is Outcome.MISSING and job._settled is event:
                # Settled before by this very handle, and forgotten since (retention 0).
                outcomes[position] = ok

    def extend(self, job: Job, hold: tuple[bytes, int, int]) -> None:
        """Let the job's lease end later: (id, token, microseconds from now).

        Raises:
            ReservationLost: It is not held any more.
        """
        (outcome,) = self.extend_many([hold])
        if outcome is not Outcome.OK:
            raise job.lost(outcome)

    def extend_many(self, holds: list[tuple[bytes, int, int]]) -> list[Outcome]:
        """Let leases end later; gives outcomes by position."""
        outcomes = self.store.extend(holds)
        if self.reports:
            told = [
                self.reports.take(job_id, token)
                for (job_id, token, _), outcome in zip(holds, outcomes, strict=True)
                if outcome is Outcome.OK
            ]
            reports = [report for report in told if report is not None]
            if reports:
                self.store.report(reports)
        return outcomes

    def holds(self, reservation: Reservation) -> bool:
        """Whether the reservation stands."""
        return self.store.holds(reservation.id, reservation.token)

    def release_all(self) -> None:
        """Give back what is held. Not in a fork's child: there it is the parent's."""
        held = [key for key in list(self._held) if self._held.pop(key, self) is None]
        if self._pid != os.getpid():
            return
        reports = self.reports.take_all()
        if reports:
            self.store.report(reports)
        if held:
            self.store.settle([Settlement(raw, token, Event.RELEASE) for raw, token in held])
