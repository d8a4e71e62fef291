"""What the tests of the service share."""

import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from types import SimpleNamespace

import pytest

from jobq import JobService
from jobq.clock import ManualClock, SystemClock
from jobq.errors import StoreUnavailable
from jobq.service import keeper
from tests.conftest import DEADLINE_S, Opener

STEPS = 20


@pytest.fixture
def live(opener: Opener) -> Iterator[JobService]:
    """A service over an empty store of every kind, on the clocks of this machine."""
    with JobService(opener(clock=SystemClock())) as svc:
        yield svc
        with suppress(StoreUnavailable):  # the test closed it
            assert svc.check().problems == ()


@pytest.fixture
def pass_time(
    clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> Callable[[JobService, float], None]:
    """Lets so many seconds go by on the test's clock, for the store and who keeps leases alike.

    The keeper of the service looks at every step, and the step ends when it has done what is due:
    so a machine that stands still for a while makes no lease run out.
    """
    monkeypatch.setattr(keeper, "time", SimpleNamespace(monotonic=lambda: clock.boot_us() / 1e6))

    def pass_time(svc: JobService, seconds: float) -> None:
        for _ in range(STEPS):
            clock.advance(seconds / STEPS)
            for _ in range(2):  # it looks after each call: the second comes after a whole look
                called = threading.Event()
                svc._keeper.call_soon(called.set)
                assert called.wait(DEADLINE_S)

    return pass_time
