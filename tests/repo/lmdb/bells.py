"""A bell, every access to whose file is a step: another process comes between any two."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from jobq.repo.lmdb.bell import Bell

MOST_STEPS: Final = 12
"""More than anything here takes."""


class Killed(BaseException):
    """The process is killed at that step."""


def stepped(path: Path, at: int, act: Callable[[], None]) -> tuple[Bell, Callable[[], int]]:
    """A bell that calls *act* before its access number *at*; and how many there have been."""
    bell = Bell(path)
    count = 0

    def before() -> None:
        nonlocal count
        count += 1
        if count == at:
            act()

    plain: Any = bell
    plain._map, plain._counters = _Stepped(plain._map, before), _Stepped(plain._counters, before)
    return bell, lambda: count


class _Stepped:
    """A file's memory, before each access to which *before* is called."""

    def __init__(self, memory: Any, before: Callable[[], None]) -> None:
        self._memory = memory
        self._before = before

    def __getitem__(self, key: Any) -> Any:
        self._before()
        return self._memory[key]

    def __setitem__(self, key: Any, value: Any) -> None:
        self._before()
        self._memory[key] = value
