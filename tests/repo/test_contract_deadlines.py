"""The contract of every store: deadlines, and times to live."""

import time
from datetime import datetime
from typing import Any

import pytest

from jobq.clock import ManualClock, SystemClock, utc
from jobq.repo.base import Store
from jobq.states import Outcome, Reason, Status
from tests.conftest import Crew, Opener
from tests.repo.conftest import LEASE_S, Queue, done, spec
from tests.repo.test_contract_wait import wait_for_end


def after(clock: ManualClock, seconds: float) -> datetime:
    """That many seconds from now."""
    return utc(clock.wall_us() + round(seconds * 1e6))


def is_expired(queue: Queue, job_id: bytes) -> bool:
    """Whether the job is canceled as expired; if not, it waits."""
    record = queue.get(job_id)
    if record.status is Status.CANCELED:
        assert record.reason is Reason.EXPIRED
        return True
    assert record.status in {Status.READY, Status.DELAYED}
    return False


# Who waits sees it.


@pytest.fixture
def live(opener: Opener) -> Store:
    """An empty store of every kind, on the clocks of this machine."""
    return opener(clock=SystemClock())


@pytest.mark.parametrize("delay", [0.0, 60.0])
def test_a_deadline_passes_in_time_for_who_only_waits_for_the_end(
    live: Store, delay: float
) -> None:
    took = []
    for _ in range(3):  # the best of some rounds: the machine may be busy
        (job_id,) = live.enqueue([spec(delay=delay, ttl=0.2)])
        start = time.monotonic()
        assert wait_for_end(live, job_id) is Status.CANCELED
        took.append(time.monotonic() - start)

    assert min(took) < 0.7


def test_who_waits_for_jobs_sleeps_no_longer_than_to_the_next_deadline(
    live: Store, crew: Crew
) -> None:
    live.enqueue([spec("other", ttl=0.2)])
    took = []
    for _ in range(3):
        start = time.monotonic()
        live.wait("mail", 1.0)
        took.append(time.monotonic() - start)
        live.advance()
        if live.stats("other").totals.canceled:
            break

    assert live.stats("other").totals.canceled == 1
    assert sum(took) < 0.9


def _deadline(queue: Queue) -> None:
    queue.add("other", ttl=1.0)


def _lingering_hold(queue: Queue) -> None:
    job_id = queue.add("other", unique="k", lease=1.0)
    queue.take("other")
    queue.cancel(job_id)


def _rate_of_a_group(queue: Queue) -> None:
    queue.store.configure("other", {"group_rate": (1, 1.0)})
    queue.add("other", group="g")
    queue.add("other", group="g")
    queue.done(queue.take_one("other"))
    assert queue.take("other") == []


@pytest.mark.parametrize("what", [_deadline, _lingering_hold, _rate_of_a_group])
def test_nobody_sleeps_while_something_is_due(
    queue: Queue, clock: ManualClock, what: Any
) -> None:
    what(queue)
    queue.store.wait("mail", 0.0)  # from now on the name is known
    clock.advance(1.0)
    start = time.monotonic()
    for _ in range(2):
        queue.store.wait("mail", 1.0)

    assert time.monotonic() - start < 0.9
