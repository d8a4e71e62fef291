"""Group commit: whoever comes first commits for all who came meanwhile.

A commit costs two flushes of the disk, whether it holds one operation or a hundred. So callers
hand in their operations; one of them, the leader, takes all that are waiting, runs them in one
transaction and commits it, while new ones gather for the next. Each caller returns only when its
own operation is on disk. Without concurrency the only caller leads at once and pays next to
nothing.
"""

import threading
from collections import deque
from collections.abc import Callable
from typing import Any, Final

from jobq.repo.repositories import Transaction
from jobq.repo.transactional import Kind

LARGEST_GROUP: Final = 256
"""Operations in one commit: bounds how long the last of them waits for its turn."""


class Pending:
    """An operation on its way, and what became of it.

    Attributes:
        finished: `outcome` or `error` is set, and will not change.
        moves_time: What to call before the group's operations, to move what is due.
    """

    __slots__ = ("error", "finished", "kind", "moves_time", "operation", "outcome", "turn")

    def __init__(
        self,
        operation: Callable[[Transaction], Any],
        kind: Kind,
        moves_time: Callable[[Transaction], None],
    ) -> None:
        self.operation = operation
        self.kind = kind
        self.moves_time = moves_time
        self.outcome: Any = None
        self.error: BaseException | None = None
        self.finished = False
        self.turn: threading.Lock | None = None

    def finish(self, outcome: Any, error: BaseException | None = None) -> None:
        """Say what became of it."""
        self.outcome = outcome
        self.error = error
        self.finished = True


class GroupCommit:
    """The queue of waiting operations of one process, and who leads.

    Args:
        run: Gets what it needs to write, calls its argument for the operations to run (once,
            as late as it can), and finishes each. It may raise instead, for an operation that
            it did not finish: if the exception is an interrupt of the leader, the others are run
            by the next leader; whatever else it is, the leader's operation fails with it.
    """

    def __init__(self, run: Callable[[Callable[[], list[Pending]]], None]) -> None:
        self._run = run
        self._mutex = threading.Lock()
        self._queue: deque[Pending] = deque()
        self._leader: Pending | None = None
        self._taken: list[Pending] = []

    def submit(self, mine: Pending) -> None:
        """Have *mine* run; returns when it is finished.

        Raises:
            BaseException: An interrupt, raised by a signal handler. If the operation was not yet
                taken into a group, it never will be (`mine.finished` is false). Otherwise the
                interrupt comes after it is finished.
        """
        try:
            with self._mutex:
                self._queue.append(mine)
                if self._leader is None:
                    self._leader = mine
                else:
                    mine.turn = threading.Lock()
                    mine.turn.acquire()
            while not mine.finished:
                if self._leader is mine:
                    self._lead(mine)
                elif mine.turn is not None:
                    mine.turn.acquire()
        except BaseException:
            while True:
                try:
                    self._withdraw(mine)
                    break
                except BaseException:  # noqa: BLE001, S112 - another interrupt meanwhile
                    continue
            raise

    def _lead(self, mine: Pending) -> None:
        try:
            self._run(self._take)
        finally:
            self._step_down(mine)

    def _take(self) -> list[Pending]:
        with self._mutex:
            while self._queue and len(self._taken) < LARGEST_GROUP:
                self._taken.append(self._queue.popleft())
        return self._taken

    def _step_down(self, mine: Pending) -> None:
        """Let the group go, and make the next one lead. Harmless if done already."""
        with self._mutex:
            if self._leader is not mine:
                return
            for pending in reversed(self._taken):
                if not pending.finished and pending is not mine and pending not in self._queue:
                    self._queue.appendleft(pending)
            if mine in self._queue:
                self._queue.remove(mine)
            mine.turn = None
            for pending in self._taken:
                if pending.finished:
                    _let_go(pending)
            self._taken = []
            self._leader = self._queue[0] if self._queue else None
            if self._leader is not None:
                _let_go(self._leader)

    def _withdraw(self, mine: Pending) -> None:
        """After an interrupt: out of the queue, or wait for the outcome if it is too late."""
        while True:
            self._step_down(mine)
            with self._mutex:
                if mine in self._queue:
                    self._queue.remove(mine)
                    return
                if mine.finished or mine.turn is None:
                    return
            mine.turn.acquire()

    def drop_all(self) -> None:
        """In a fork's child: the threads that waited do not exist here."""
        self._mutex = threading.Lock()
        self._queue.clear()
        self._taken = []
        self._leader = None


def _let_go(pending: Pending) -> None:
    if pending.turn is not None and pending.turn.locked():
        pending.turn.release()
