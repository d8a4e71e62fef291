"""One fair lock round every LMDB call of the process.

py-lmdb is not safe to call from several threads at once in all the ways that it seems to be:
aborting a write transaction waits until no other thread is inside any call, and with three
reading threads that was never; resizing the map invalidates the transactions of others; a fork
in the middle of a call hangs the child. With one lock round every call all of that is gone. It
has to be fair: with `threading.Lock` a thread that reads in a loop had 222 296 turns while
another had 149.
"""

import threading
from collections import deque


class Gate:
    """A first-come, first-served lock that knows which thread has it.

    Interrupts (an exception raised by a signal handler) may come between any two steps. So
    `acquire` belongs inside the `try` whose `finally` calls `release_if_mine`: whatever has
    happened by then, that leaves the gate free of this thread.
    """

    __slots__ = ("_mutex", "_owner", "_queue")

    def __init__(self) -> None:
        self._mutex = threading.Lock()
        self._owner: int | None = None
        self._queue: deque[tuple[int, threading.Lock]] = deque()

    def acquire(self) -> None:
        """Wait for this thread's turn; not reentrant."""
        me = threading.get_ident()
        with self._mutex:
            if self._owner is None:
                self._owner = me
                return
            turn = threading.Lock()
            turn.acquire()
            self._queue.append((me, turn))
        turn.acquire()  # the one who leaves makes us the owner and lets us in

    def release_if_mine(self) -> None:
        """Let the next one in if this thread is inside; step out of the queue if it is there."""
        me = threading.get_ident()
        with self._mutex:
            if self._owner != me:
                self._queue = deque(entry for entry in self._queue if entry[0] != me)
            elif self._queue:
                self._owner, turn = self._queue.popleft()
                turn.release()
            else:
                self._owner = None
