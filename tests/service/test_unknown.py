"""A commit whose outcome is not known: the caller is told so, whatever else fails after it."""

from typing import Any, NoReturn

import pytest

from jobq import JobService
from jobq.errors import OutcomeUnknown, StoreUnavailable
from jobq.service import JobService as Service
from tests.service.coroutines import run


def fail_in_turn(monkeypatch: pytest.MonkeyPatch, svc: Service) -> None:
    """The next settlement is not known to be there, and those after it are not written."""
    calls = 0

    def settle(*_: Any, **__: Any) -> NoReturn:
        nonlocal calls
        calls += 1
        if calls == 1:
            raise OutcomeUnknown("it may be there")
        raise StoreUnavailable("nothing was written")

    monkeypatch.setattr(svc.store, "settle", settle)


def test_a_loop_that_ends_by_an_unknown_outcome_says_so(
    svc: JobService, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it tries at its end fails as well, and must not take the place of the first error."""
    svc.enqueue_many("a", [1, 2])

    def main() -> None:
        for job in svc.consume("a", n=2, timeout=0):
            with job:
                fail_in_turn(monkeypatch, svc)

    with pytest.raises(OutcomeUnknown):
        main()
    monkeypatch.undo()

    assert svc.stats("a").totals.reserved == 2


def test_so_does_a_loop_of_coroutines(svc: JobService, monkeypatch: pytest.MonkeyPatch) -> None:
    svc.enqueue_many("a", [1, 2])

    async def main() -> None:
        async for job in svc.aconsume("a", n=2, timeout=0):
            async with job:
                fail_in_turn(monkeypatch, svc)

    with pytest.raises(OutcomeUnknown):
        run(main())
    monkeypatch.undo()

    assert svc.stats("a").totals.reserved == 2
