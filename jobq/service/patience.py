"""Waiting for what happens to topics: room for new jobs, the end of the last job."""

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from jobq.service.holding import Holding

LONGEST_SLEEP_S: Final = 1.0
"""A look this often, should a call have been lost because its process was killed, or who was to
call not know of this one yet."""


class Patience:
    """What one caller does between two looks, as long as its time lasts.

    The order is: ask to be called, look again, and only then sleep. So what comes about between a
    look and the sleep is not missed.

    Args:
        holding: The service's way to the store.
        signs: Gives what is called in `Store.wait_ended` when another look is worth it.
        seconds: How long; None until the service is stopped.
    """

    def __init__(
        self, holding: "Holding", signs: Callable[[], list[bytes]], seconds: float | None
    ) -> None:
        self._holding = holding
        self._signs = signs
        self._end = None if seconds is None else time.monotonic() + seconds
        self._seen: dict[bytes, int | None] = {}

    def again(self) -> bool:
        """Whether to look again: after a call, a second at the latest, and at first at once.

        False when the time is over, or the service was stopped.
        """
        left = LONGEST_SLEEP_S if self._end is None else self._end - time.monotonic()
        if left <= 0 or self._holding.stopped:
            return False
        for sign in self._signs():
            self._seen.setdefault(sign, None)
        # One that is new, or was called before, is asked for, and it returns at once.
        self._holding.store.wait_ended(self._seen, min(left, LONGEST_SLEEP_S))
        return not self._holding.stopped
