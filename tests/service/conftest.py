"""What the tests of the service share."""

from collections.abc import Iterator
from contextlib import suppress

import pytest

from jobq import JobService
from jobq.clock import SystemClock
from jobq.errors import StoreUnavailable
from tests.conftest import Opener


@pytest.fixture
def live(opener: Opener) -> Iterator[JobService]:
    """A service over an empty store of every kind, on the clocks of this machine."""
    with JobService(opener(clock=SystemClock())) as svc:
        yield svc
        with suppress(StoreUnavailable):  # the test closed it
            assert svc.check().problems == ()
