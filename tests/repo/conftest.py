"""The port in few words: seconds and names instead of records, one job where one is meant."""

from typing import Any

import pytest

from jobq.clock import ManualClock, to_us
from jobq.ids import to_raw
from jobq.job import Change, JobRecord, JobSpec, Reservation, Settlement
from jobq.options import UNSET, JobOptions
from jobq.repo.base import ReserveRequest, Store
from jobq.selector import Selector
from jobq.states import Event, Outcome, Reason, Status

LEASE_S = 600.0


class Queue:
    """A store, spoken to as tests speak. Adds nothing: each method is one call of the port."""

    def __init__(self, store: Store, clock: ManualClock) -> None:
        self.store = store
        self.clock = clock

    # In.

    def add(
        self,
        topic: str = "mail",
        *,
        weight: int = 0,
        delay: float = 0.0,
        payload: bytes = b"",
        **options: Any,
    ) -> bytes:
        (job_id,) = self.store.enqueue([spec(topic, weight, delay, payload, **options)])
        return job_id

    def add_many(self, count: int, topic: str = "mail", **options: Any) -> list[bytes]:
        return self.store.enqueue([spec(topic, **options) for _ in range(count)])

    # Out.

    def take(self, topic: str = "mail", n: int = 1) -> list[Reservation]:
        return self.store.reserve(ReserveRequest(topic, n))

    def take_one(self, topic: str = "mail") -> Reservation:
        (held,) = self.take(topic)
        return held

    def order(self, topic: str = "mail") -> list[bytes]:
        """The ids of all ready jobs as they are served; they are put back where they were."""
        held = self.take(topic, 10_000)
        self.store.settle([release(job) for job in held])
        return [job.id for job in held]

    def done(self, held: Reservation, **more: Any) -> Outcome:
        return self.settle(Settlement(held.id, held.token, Event.DONE, **more))

    def retry(self, held: Reservation, delay: float | None = 0.0, **more: Any) -> Outcome:
        return self.settle(retry(held, delay, **more))

    def release(self, held: Reservation, delay: float = 0.0) -> Outcome:
        return self.settle(release(held, delay))

    def give_up(self, held: Reservation, reason: Reason = Reason.REJECTED) -> Outcome:
        """Cancel by the holder."""
        return self.settle(Settlement(held.id, held.token, Event.CANCEL, reason=reason))

    def settle(self, settlement: Settlement) -> Outcome:
        (outcome,) = self.store.settle([settlement]).outcomes
        return outcome

    def extend(self, held: Reservation, seconds: float = LEASE_S) -> Outcome:
        (outcome,) = self.store.extend([(held.id, held.token, to_us(seconds))])
        return outcome

    # By anybody.

    def cancel(self, job_id: bytes) -> Outcome:
        (outcome,) = self.store.cancel([job_id])
        return outcome

    def reset(self, job_id: bytes, **ends: Any) -> Outcome:
        (outcome,) = self.store.reset([job_id], ends=JobOptions(**ends) if ends else UNSET)
        return outcome

    def delete(self, job_id: bytes) -> Outcome:
        (outcome,) = self.store.delete([job_id])
        return outcome

    def edit(self, job_id: bytes, *, delay: float | None = None, **more: Any) -> Outcome:
        delay_us = None if delay is None else to_us(delay)
        (outcome,) = self.store.edit([job_id], Change(delay_us=delay_us, **more))
        return outcome

    def expire(self, seconds: float = LEASE_S) -> None:
        """Let the leases end that are as long as this, or shorter."""
        self.clock.advance(seconds)
        self.store.advance()

    def expire_one_holder(self, topic: str = "mail") -> None:
        """Reserve a job and overrun its lease: it has one crash more."""
        held = self.take_one(topic)
        self.expire(held.lease_us / 1e6)

    # Reads.

    def status(self, job_id: bytes) -> Status | None:
        (status,) = self.store.status([job_id])
        return status

    def find(self, job_id: bytes) -> JobRecord | None:
        (record,) = self.store.get([job_id])
        return record

    def get(self, job_id: bytes) -> JobRecord:
        record = self.find(job_id)
        assert record is not None, "the job is gone"
        return record

    def get_many(self, status: Status) -> list[bytes]:
        """The ids of all jobs in *status*."""
        return [
            to_raw(job.id)
            for job in self.store.find(Selector(statuses=frozenset({status})), None, 10_000)
        ]

    def counts(self, topic: str | None = None) -> dict[str, int]:
        """The numbers that are not 0, by status."""
        totals = self.store.stats(topic).totals
        return {status.value: n for status in Status if (n := totals.of(status))}

    # Jobs in every state.

    def job_in(self, status: Status, **options: Any) -> tuple[bytes, int]:
        """A job in *status*, and the token of its last reservation (0: it never had one).

        A canceled one was canceled by somebody while it was held.
        """
        if status is Status.DELAYED:
            return self.add(delay=10.0, **options), 0
        job_id = self.add(**options)
        if status is Status.READY:
            return job_id, 0
        held = self.take_one()
        if status is Status.DONE:
            assert self.done(held) is Outcome.OK
        elif status is Status.CANCELED:
            assert self.cancel(job_id) is Outcome.OK
        return job_id, held.token


def spec(
    topic: str = "mail",
    weight: int = 0,
    delay: float = 0.0,
    payload: bytes = b"",
    **options: Any,
) -> JobSpec:
    return JobSpec(topic, weight, to_us(delay), payload, JobOptions.of(options))


def done(held: Reservation, **more: Any) -> Settlement:
    return Settlement(held.id, held.token, Event.DONE, **more)


def retry(held: Reservation, delay: float | None = 0.0, **more: Any) -> Settlement:
    """A retry after *delay* seconds; None gives up."""
    delay_us = None if delay is None else to_us(delay)
    return Settlement(held.id, held.token, Event.RETRY, delay_us, **more)


def release(held: Reservation, delay: float = 0.0) -> Settlement:
    return Settlement(held.id, held.token, Event.RELEASE, to_us(delay))


@pytest.fixture
def queue(store: Store, clock: ManualClock) -> Queue:
    """An empty store of every kind."""
    return Queue(store, clock)
