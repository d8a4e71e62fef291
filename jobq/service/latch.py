"""Something that happens once, and that threads can sleep until."""

import threading
from contextlib import suppress


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
        """Sleep until it is open, or for so long; whether it is open."""
        is_open = self._lock.acquire(timeout=min(seconds, threading.TIMEOUT_MAX))
        if is_open:
            self.open()
        return is_open
