"""Undo lists: what makes an operation in memory take effect whole or not at all.

Every change of a repository notes how to take it back before it makes it. An operation that
ends by an exception (an interrupt, a fault of ours) is taken back step by step, last first.

An interrupt may come between the note and the change, so a step back must be right whether the
change was made, half made or not made: it restores what was, and never adds or subtracts.
"""

from collections.abc import Callable
from typing import Any


class Undo:
    """The steps back of one operation."""

    __slots__ = ("_steps",)

    def __init__(self) -> None:
        self._steps: list[tuple[Callable[..., Any], tuple[Any, ...]]] = []

    def note(self, step: Callable[..., Any], *args: Any) -> None:
        """Remember a step back."""
        self._steps.append((step, args))

    def __len__(self) -> int:
        return len(self._steps)

    def roll_back(self) -> None:
        """Take all noted steps back, last first."""
        while self._steps:
            step, args = self._steps[-1]
            step(*args)
            self._steps.pop()  # only now: an interrupt between the two repeats the step

    def forget(self) -> None:
        """The operation stands."""
        self._steps.clear()
