"""Group commit: whoever comes first commits for all who came meanwhile.

A commit costs two flushes of the disk, whether it holds one operation or a hundred. So callers
hand in their operations; one of them, the leader, takes all that are waiting, runs them in one
transaction and commits it, while new ones gather for the next. Each caller returns only when its
own operation is on disk. Without concurrency the only caller leads at once and pays next to
nothing.
"""

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Final

from jobq.repo.lmdb.gate import HEAL_S, Alive
from jobq.repo.repositories import Transaction
from jobq.repo.surely import surely
from jobq.repo.transactional import Kind

LARGEST_GROUP: Final = 256
"""Operations in one commit: bounds how long the last of them waits for its turn."""


class Pending:
    """An operation on its way, and what became of it.

    Attributes:
        since: When it was handed in, on the monotonic clock.
        moves_time: What to call before the group's operations, to move what is due.
        together: What to call instead of several operations that are `plain`.
        alive: Gives None when the caller's call is over, whatever became of it.
        taken: It is in a group that is being run: it can no longer be withdrawn.
        finished: `outcome` or `error` is set, and will not change.
        left: It is finished, and no longer in the queue.
    """

    __slots__ = (
        "alive",
        "error",
        "finished",
        "kind",
        "left",
        "moves_time",
        "operation",
        "outcome",
        "since",
        "taken",
        "thread",
        "together",
        "turn",
    )

    def __init__(
        self,
        operation: Callable[[Transaction], Any],
        kind: Kind,
        moves_time: Callable[[Transaction], None],
        together: Callable[[Transaction, Sequence[Any]], Sequence[Any]],
    ) -> None:
        self.operation = operation
        self.kind = kind
        self.moves_time = moves_time
        self.together = together
        self.alive: Alive = object
        self.since = time.monotonic()
        self.thread = threading.get_ident()
        self.outcome: Any = None
        self.error: BaseException | None = None
        self.taken = False
        self.finished = False
        self.left = False
        self.turn = threading.Lock()
        self.turn.acquire()

    def finish(self, outcome: Any, error: BaseException | None = None) -> None:
        """Say what became of it."""
        self.outcome = outcome
        self.error = error
        self.finished = True


class GroupCommit:
    """The queue of operations of one process. Who stands first leads.

    An operation stays in the queue until it is finished or withdrawn. Interrupts may come between
    any two steps; `_leave` puts everything right whatever has happened, and may be repeated.

    Args:
        run: Gets what it needs to write, calls its first argument for the operations to run
            (once, as late as it can), and finishes each. The second argument is since when the
            leader has been waiting. It may raise instead, for operations that it did not finish:
            the leader's fails with the exception, the others are run by the next leader.
    """

    def __init__(self, run: Callable[[Callable[[], list[Pending]], float], None]) -> None:
        self._run = run
        self._mutex = threading.Lock()
        self._queue: deque[Pending] = deque()

    def submit(self, mine: Pending) -> None:
        """Have *mine* run; returns when it is finished.

        Raises:
            BaseException: An interrupt, raised by a signal handler. If the operation was not yet
                taken into a group, it never will be (`mine.finished` is false). Otherwise the
                interrupt comes after it is finished.
        """
        try:
            with self._mutex:
                self._step_in(mine)
            self._wait(mine)
        finally:
            surely(lambda: self._leave(mine))

    def _wait(self, mine: Pending) -> None:
        while not mine.finished:
            if self._queue[0] is mine:
                self._run(self._take, mine.since)
            elif not mine.turn.acquire(timeout=HEAL_S):  # until it is finished, or the first
                self._heal()

    def _take(self) -> list[Pending]:
        with self._mutex:
            return self._take_first()

    def _leave(self, mine: Pending) -> None:
        """Out of the queue with *mine*, however its call has ended, and with all that is finished.

        One that another leader has taken is waited for.
        """
        # Mostly its leader has taken it out of the queue: with 32 threads, to go through all that
        # wait there took a seventh of a call.
        while not (mine.left or self._has_left(mine)):
            mine.turn.acquire()

    def _has_left(self, mine: Pending) -> bool:
        with self._mutex:
            leads = bool(self._queue) and self._queue[0] is mine
            if not leads and not mine.finished and mine.taken:
                return False
            self._clear(mine, leads=leads)
            return True

    def _heal(self) -> None:
        """Clear away a first one whose call is over: an interrupt kept it from leaving."""
        with self._mutex:
            if self._queue and self._queue[0].alive() is None:
                self._clear(self._queue[0], leads=True)

    # Under the mutex. Loops stand in functions of their own: from CPython 3.12 on the jump back
    # of a loop is not always covered by the `with` round it, and a signal handler may raise there.

    def _step_in(self, mine: Pending) -> None:
        if self._queue:
            for left in [other for other in self._queue if other.thread == mine.thread]:
                # An interrupt kept this thread's last call from leaving.
                self._clear(left, leads=self._queue[0] is left)
        self._queue.append(mine)

    def _take_first(self) -> list[Pending]:
        group = [self._queue[place] for place in range(min(LARGEST_GROUP, len(self._queue)))]
        for pending in group:
            pending.taken = True
        return group

    def _clear(self, mine: Pending, *, leads: bool) -> None:
        if leads and len(self._queue) == 1 and self._queue[0] is mine:  # alone, as mostly
            mine.taken = mine.finished
            self._queue.clear()
            return
        first = self._queue[0] if self._queue else None
        for pending in list(self._queue):
            if leads and not pending.finished:
                pending.taken = False  # the run has ended without it
            if pending.finished or leads:
                _wake(pending)
            # The first one may be leading still, though its own operation is finished: others of
            # its group come later. As long as it is there, nobody else begins to lead, and runs
            # what it is running.
            if pending is mine or (pending.finished and (leads or pending is not first)):
                self._queue.remove(pending)
                pending.left = True
        if self._queue:
            _wake(self._queue[0])

    def drop_all(self) -> None:
        """In a fork's child: the threads that waited do not exist here."""
        self._mutex = threading.Lock()
        self._queue.clear()


def _wake(pending: Pending) -> None:
    if pending.turn.locked():
        pending.turn.release()
