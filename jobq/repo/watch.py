"""Who of those that wait looks when something falls due: one of them, not all.

A delayed job that is due, a lease that is over, or a rate that allows the next job: no commit tells
of these, somebody has to look at the time. If all who wait did so, a hundred of them would get up
for each job that is tried again after a second. So one of them has the *watch*: it notes, where all
see it, until when it sleeps, and the others, who find that somebody will look no later than they
would have to, sleep on. They look once a second by themselves, as ever.

There is one watch for what falls due in the store: whoever looks moves all that is due, and that
calls who waits for it. And there is one for each topic with a rate, as only who waits for the topic
can take its next job. (Who waits for several topics looks for their rates by itself, and calls
others when it goes, too.)

Nobody may rely on who has gone:

- Who gets up no longer has the watch. If it has had it, or takes jobs, it looks in the commit in
  which it takes them whether something falls due shortly, and has another one called if nobody has
  the watch by then (`operations.passing`).
- A commit by which something falls due before the watch ends has one waiter called, which takes it.
- Who cannot stay until then, as its caller waits no longer, calls another one when it leaves.
- One that is killed leaves a time that passes; the others look by themselves, within a second.

Who is called may wait for any topic. There is no lock: two may have the watch, and then one of them
looks in vain. Nobody misses anything by that: who is about to sleep has read a counter before it
looked, and a commit that calls raises that, and ends the sleep before it begins.
"""

import threading
import time
from collections.abc import Collection, Sequence
from typing import Final, NamedTuple, Protocol

LONGEST_SLEEP: Final = 1.0
"""Seconds: a waiter looks at clocks and processes this often."""

SLACK_NS: Final = 2_000_000
"""So much later than it is due something may be looked at: two who read the clock one after the
other for the same job differ by some microseconds, and would both take the watch."""

STORE: Final = 0
"""The desk of what falls due in the store; those of topics are their numbers."""


class Board(Protocol):
    """Where it stands who has the watch. Times are those of `time.monotonic_ns`."""

    def is_watched(self, desk: int, by_ns: int) -> bool:
        """Whether somebody at the desk will look between now and then."""

    def watch(self, desk: int, until_ns: int) -> None:
        """Say that the caller will look at that time."""

    def leave_watch(self, desk: int, until_ns: int) -> None:
        """Take that back, if nobody has said something else since."""

    def relieve(self, desk: int) -> None:
        """Call one of those who wait, to look when something falls due; or one of the topic."""


class Watch:
    """One waiter's part in it: for one sleep, which begins with a look.

    Args:
        topics: The numbers of those that it waits for.
        has_desk: Whether it waits for one topic, and has a desk of its own there.
    """

    __slots__ = ("_began_ns", "_board", "_ends_ns", "_has_desk", "_left_alone", "_mine", "_topics")

    def __init__(self, board: Board, topics: Collection[int], *, has_desk: bool) -> None:
        self._board = board
        self._topics = topics
        self._has_desk = has_desk
        self._began_ns = time.monotonic_ns()
        self._ends_ns = 0
        self._mine: dict[int, int] = {}  # desks, and until when
        self._left_alone: set[int] = set()

    def begin(self, due: float, ready: float, timeout: float) -> float:
        """How long to sleep; everything in seconds.

        Args:
            due: After so long something falls due in the store.
            ready: After so long a job may be handed out that is there.
            timeout: The sleep is no longer than that.
        """
        timeout = min(timeout, LONGEST_SLEEP)
        self._ends_ns = self._began_ns + int(timeout * 1e9)
        sleep = self._take(STORE, due, timeout)
        if ready >= LONGEST_SLEEP:
            return sleep
        if self._has_desk:
            (topic,) = self._topics
            return min(sleep, self._take(topic, ready, timeout))
        self._left_alone.update(self._topics)  # as soon as it leaves
        return min(sleep, ready)

    def _take(self, desk: int, due: float, timeout: float) -> float:
        """Take the watch of a desk if it is free; gives how long to sleep then."""
        if due >= LONGEST_SLEEP:
            return timeout
        due_ns = self._began_ns + int(due * 1e9)
        if self._board.is_watched(desk, due_ns + SLACK_NS):
            return timeout
        if due > timeout:
            self._left_alone.add(desk)
            return timeout
        self._mine[desk] = due_ns
        self._board.watch(desk, due_ns)
        return due

    def end(self, *, called: bool) -> "Left":
        """It has got up, and will look; *called* says whether it was called to relieve others.

        When its time is over it may leave after that look.
        """
        for desk, until_ns in self._mine.items():
            self._board.leave_watch(desk, until_ns)
        if time.monotonic_ns() >= self._ends_ns:
            for desk in {*self._mine, *self._left_alone, *([STORE] if called else [])}:
                self._board.relieve(desk)
        return Left(self._topics, bool(self._mine))

    def give_up(self) -> None:
        """It has got up, and will not look: others have to."""
        for desk, until_ns in self._mine.items():
            self._board.leave_watch(desk, until_ns)
        for desk in {*self._mine, *self._left_alone}:
            self._board.relieve(desk)


class Left(NamedTuple):
    """What others may have relied on of one who has slept.

    Attributes:
        topics: The numbers of those that it waited for.
        had_watch: Whether it had a watch.
    """

    topics: Collection[int]
    had_watch: bool


class Owed(threading.local):
    """What a thread owes to others that has slept, and has not looked for jobs since.

    Attributes:
        topics: For which topics, of several, it was called.
        left: Where others may rely on it.
    """

    topics: Sequence[int] = ()
    left: Left | None = None
