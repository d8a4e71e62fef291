"""Something that happens once, and that threads can sleep until."""

import threading
import time
from contextlib import suppress
from typing import Final

SLICE_S: Final = 1.0
"""The longest sleep at a stretch. A signal that the system gives to another thread does not wake
the main one, which alone runs handlers: it has to look."""


class Latch:
    """Closed at first; `open` wakes all who wait, for good.

    Unlike `threading.Event`, whose `set` takes a lock that the thread a signal has interrupted may
    hold, it can be opened in a signal handler.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._lock.acquire()

    def open(self) -> None:
        """Let everybody through. Twice is harmless."""
        with suppress(RuntimeError):  # it is open
            self._lock.release()

    def wait(self, seconds: float) -> bool:
        """Sleep until it is open, or for so long; whether it is open.

        If a signal handler opens it, that is noticed within a second.
        """
        end = time.monotonic() + seconds
        while True:
            left = end - time.monotonic()
            if self._lock.acquire(timeout=max(0.0, min(left, SLICE_S))):
                self.open()
                return True
            if left <= 0:
                return False
