"""A wall clock that a test steps in all processes at once, at any moment; and one that never rests.

The time since boot is the machine's own: so leases and waits take real time.
"""

import mmap
import os
import random
from pathlib import Path
from typing import Final

from jobq.clock import EARLIEST_US, ManualClock, SystemClock

HOUR_S: Final = 3600.0
YEAR_S: Final = 365 * 86_400.0

LEAPS_S: Final = (
    0.001, 1.0, 60.0, HOUR_S, 2 * HOUR_S, 86_400.0, YEAR_S, 30 * YEAR_S, 180 * YEAR_S,
)  # fmt: skip
"""By so much clocks are set ahead or back: into another century, or to before 1970."""

DELAYS_S: Final = tuple(far for far in LEAPS_S if far < 100 * YEAR_S)
"""By so much jobs are delayed."""

_STEP, _PEAK, _LOOKS, _SIZE = 0, 1, 2, 128


class SteppedClock(SystemClock):
    """The system's, but for a wall clock that is ahead by what a file says.

    Args:
        path: The file; made if it is not there.
        number: Of the process that has this clock, 0 to 13.
    """

    def __init__(self, path: Path | str, number: int = 0) -> None:
        super().__init__()
        self._mine = _LOOKS + number
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            os.posix_fallocate(fd, 0, _SIZE)
            self._shared = memoryview(mmap.mmap(fd, _SIZE)).cast("q")
        finally:
            os.close(fd)

    def wall_us(self) -> int:
        """What all who share the file see."""
        self._shared[self._mine] += 1
        return max(EARLIEST_US, super().wall_us() + self._shared[_STEP])

    def looks(self) -> list[int]:
        """How often each process has asked what time it is."""
        return self._shared[_LOOKS:].tolist()

    def peak_us(self) -> int:
        """The latest time that anybody can have seen yet, or a second more."""
        return max(self._shared[_PEAK], self.wall_us())

    def step(self, seconds: float) -> None:
        """Step it for everybody; never to before 1970 by more than an hour. One process may."""
        now_us = super().wall_us()
        self._shared[_PEAK] = max(self._shared[_PEAK], now_us + self._shared[_STEP] + 1_000_000)
        least_us = -now_us - round(HOUR_S * 1e6)
        self._shared[_STEP] = max(least_us, self._shared[_STEP] + round(seconds * 1e6))

    def set_right(self) -> None:
        """Take all steps back."""
        self.step(-self._shared[_STEP] / 1e6)


def leap(chance: random.Random) -> float:
    """Some seconds, ahead or back."""
    return chance.choice((1, -1)) * chance.choice(LEAPS_S)


class RestlessClock(ManualClock):
    """One whose wall time is another each time that it is asked, years off either way."""

    def __init__(self, chance: random.Random) -> None:
        super().__init__()
        self._chance: random.Random | None = chance
        self.peak_us = 0

    def rest(self) -> None:
        """Show what it was set to from now on."""
        self._chance = None

    def wall_us(self) -> int:
        """Any time near to what it was set to, or far off."""
        away_s = 0.0 if self._chance is None else self._chance.choice((0, leap(self._chance)))
        now_us = max(EARLIEST_US, super().wall_us() + round(away_s * 1e6))
        self.peak_us = max(self.peak_us, now_us)
        return now_us
