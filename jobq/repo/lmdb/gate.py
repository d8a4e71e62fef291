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
from collections.abc import Callable
from typing import Final

from jobq.repo.surely import surely

HEAL_S: Final = 1.0
"""Who waits longer than this looks whether the first in the queue is still there."""

Alive = Callable[[], object | None]
"""Gives None when the call that it stands for has ended."""


class _Turn:
    """A thread at the gate; it waits at the lock, which begins locked."""

    __slots__ = ("alive", "lock", "thread")

    def __init__(self, alive: Alive) -> None:
        self.alive = alive
        self.thread = threading.get_ident()
        self.lock = threading.Lock()
        self.lock.acquire()


class Gate:
    """A first-come, first-served lock: who stands first in the queue has it.

    Interrupts (an exception raised by a signal handler) may come between any two steps. So
    `acquire` belongs inside the `try` whose `finally` calls `release_if_mine`: whatever has
    happened by then, that takes this thread out of the queue, and lets the first one in. Should
    an interrupt keep even that from being called, those who wait notice that the call is over.
    """

    __slots__ = ("_mutex", "_queue")

    def __init__(self) -> None:
        self._mutex = threading.Lock()
        self._queue: deque[_Turn] = deque()

    def acquire(self, alive: Alive = object) -> None:
        """Wait for this thread's turn; not reentrant.

        Args:
            alive: Gives None once the caller's call is over without `release_if_mine`.
        """
        turn = _Turn(alive)
        with self._mutex:
            first = self._step_in(turn)
        while not first and not turn.lock.acquire(timeout=HEAL_S):
            with self._mutex:
                self._drop_dead()

    def release_if_mine(self) -> None:
        """Let the next one in if this thread has the gate, or step out of the queue."""
        surely(self._leave)

    def _leave(self) -> None:
        with self._mutex:
            self._drop_mine()

    # Under the mutex. Loops stand in functions of their own: from CPython 3.12 on the jump back
    # of a loop is not always covered by the `with` round it, and a signal handler may raise there.

    def _step_in(self, turn: _Turn) -> bool:
        if self._queue:
            self._drop_mine()  # one that is still there was left behind by an interrupt
        self._queue.append(turn)
        return self._queue[0] is turn

    def _drop_mine(self) -> None:
        me = threading.get_ident()
        self._drop([turn for turn in self._queue if turn.thread == me])

    def _drop_dead(self) -> None:
        self._drop([turn for turn in self._queue if turn.alive() is None])

    def _drop(self, turns: list[_Turn]) -> None:
        for turn in turns:
            self._queue.remove(turn)
        if self._queue and self._queue[0].lock.locked():
            # Letting in one that is in already does no harm: nobody waits at its lock any more.
            self._queue[0].lock.release()
