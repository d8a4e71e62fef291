"""The two clocks of a store: the wall for due times, the time since boot for leases.

A wall clock can be stepped, so no lease may depend on it. The boot clock cannot, and it counts
suspended time too, but it starts again with every boot. Both are the same in all processes of a
machine: what a time namespace adds to the boot clock of its processes is taken off again. Values
are whole microseconds.
"""

import math
import os
import sys
import threading
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final, Protocol
from uuid import UUID

from jobq.errors import InvalidValue, shown

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_NO_BOOT_ID: Final = bytes(16)

EARLIEST_US: Final = 1
"""What a wall clock shows that was set to before 1970, or to its first instant, as 0 is "never" in
records. Linux refuses to set one so; what stands in for it in tests may not."""


class Clock(Protocol):
    """What a store needs to know of the time."""

    def wall_us(self) -> int:
        """Microseconds of UTC since 1970, at least 1. May jump either way."""
        ...

    def boot_us(self) -> int:
        """Microseconds since this boot, time asleep included. Never goes back within a boot, and
        is the same for all who share a queue.
        """
        ...

    def boot_id(self) -> bytes:
        """16 bytes that identify this boot. Another id: `boot_us` may have begun again."""
        ...


class SystemClock:
    """The clocks of this machine."""

    def __init__(self) -> None:
        self._boot_id: bytes | None = None

    def wall_us(self) -> int:
        """Microseconds of UTC since 1970, as the system has it."""
        return max(EARLIEST_US, time.time_ns() // 1000)

    if sys.platform == "linux":

        def boot_us(self) -> int:
            """Microseconds on CLOCK_BOOTTIME, as it is outside of all time namespaces.

            Raises:
                OSError: What this process's namespace adds to it cannot be found out.
            """
            ahead_ns = _NAMESPACE.ahead_ns
            if ahead_ns is None:
                ahead_ns = _NAMESPACE.look()
            return (time.clock_gettime_ns(time.CLOCK_BOOTTIME) - ahead_ns) // 1000

        def boot_id(self) -> bytes:
            """The kernel's id of this boot. Read once: it cannot change under a process.

            Raises:
                OSError: /proc does not show it, or not this process: then it would not show its
                    time namespace either.
            """
            if self._boot_id is None:
                path = Path("/proc/sys/kernel/random/boot_id")
                text = path.read_text(encoding="utf-8", errors="replace").strip()
                try:
                    boot_id = UUID(text).bytes
                except ValueError:
                    raise OSError(
                        f"{path} shows {text[:40]!r}: expected the id of a boot"
                    ) from None
                Path("/proc/self").stat()
                self._boot_id = boot_id
            return self._boot_id

    else:
        # Only stores in memory exist here. Their reservations end with the process, so any clock
        # that does not go back will do, and no boot but this one is ever seen.

        def boot_us(self) -> int:
            """Microseconds on the monotonic clock."""
            return time.monotonic_ns() // 1000

        def boot_id(self) -> bytes:
            """16 zero bytes."""
            return _NO_BOOT_ID


class _Namespace:
    """How far this process's time namespace puts the boot clock ahead (Linux 5.6, `unshare -T`).

    Processes of two containers may share a queue, so that their leases have to mean the same.
    Found out once in a process: only its children can be in another namespace.
    """

    def __init__(self) -> None:
        self.ahead_ns: int | None = None

    def look(self) -> int:
        """Nanoseconds, negative if it is behind.

        Raises:
            OSError: This process has left its namespace to its children, and cannot see by how
                much its own clock is ahead any more.
        """
        try:
            text = Path("/proc/self/timens_offsets").read_text(encoding="utf-8")
        except FileNotFoundError:  # a kernel without, or no /proc: then there is no `boot_id`
            self.ahead_ns = 0
            return 0
        # What is shown there is true of the children.
        links = {Path("/proc/self/ns", of).readlink() for of in ("time", "time_for_children")}
        if len(links) > 1:
            raise OSError(
                "this process has made a time namespace for its children, so it cannot tell the "
                "time of its leases: open the queue before, or in a child"
            )
        offsets = {clock: numbers for clock, *numbers in map(str.split, text.splitlines())}
        seconds, nanoseconds = map(int, offsets["boottime"])
        self.ahead_ns = seconds * 10**9 + nanoseconds
        return self.ahead_ns

    def forget(self) -> None:
        """In a fork's child: it may be in another one."""
        self.ahead_ns = None


_NAMESPACE: Final = _Namespace()
if sys.platform == "linux":
    os.register_at_fork(after_in_child=_NAMESPACE.forget)


class ManualClock:
    """A clock for tests, which moves only when told to. Threads may share it.

    >>> clock = ManualClock(wall_us=0, boot_us=0)
    >>> clock.advance(1.5)
    >>> clock.step_wall(-1)
    >>> clock.wall_us(), clock.boot_us()
    (500000, 1500000)
    """

    JUST_BOOTED_US: Final = 1_000_000
    """What `boot_us` shows after `reboot`: a machine takes a moment until anything runs."""

    def __init__(
        self, *, wall_us: int = 1_700_000_000_000_000, boot_us: int = 3_600_000_000
    ) -> None:
        self._moving = threading.Lock()
        self._wall_us = wall_us
        self._boot_us = boot_us
        self._boot = 1

    def wall_us(self) -> int:
        """Microseconds of UTC since 1970, as set; `EARLIEST_US` as long as that is before."""
        return max(EARLIEST_US, self._wall_us)

    def boot_us(self) -> int:
        """Microseconds since the last `reboot`, as set."""
        return self._boot_us

    def boot_id(self) -> bytes:
        """The number of this boot, as 16 bytes."""
        return self._boot.to_bytes(16)

    def advance(self, seconds: float) -> None:
        """Let *seconds* pass on both clocks.

        Raises:
            InvalidValue: *seconds* is negative or not finite.
        """
        passed_us = to_us(seconds)
        if passed_us < 0:
            raise InvalidValue(f"{seconds} seconds cannot pass: use step_wall to go back")
        with self._moving:
            self._wall_us += passed_us
            self._boot_us += passed_us

    def step_wall(self, seconds: float) -> None:
        """Set the wall clock forward, or with a negative number back, as an administrator does."""
        step_us = to_us(seconds)
        with self._moving:
            self._wall_us += step_us

    def reboot(self) -> None:
        """Begin another boot: a new id, and the boot clock near 0. The wall clock goes on."""
        with self._moving:
            self._boot += 1
            self._boot_us = self.JUST_BOOTED_US


def check_clock(clock: object) -> None:
    """That *clock* can tell the time.

    Raises:
        InvalidValue: It cannot.
    """
    if not all(callable(getattr(clock, name, None)) for name in ("wall_us", "boot_us", "boot_id")):
        raise InvalidValue(f"clock is {shown(clock)}: expected a clock of jobq")


def utc(us: int) -> datetime:
    """The aware UTC datetime of *us* microseconds since 1970, exact.

    >>> utc(1_700_000_000_000_001).isoformat()
    '2023-11-14T22:13:20.000001+00:00'

    Raises:
        OverflowError: Before the year 1 or after 9999.
    """
    return _EPOCH + timedelta(microseconds=us)


def to_us(seconds: float) -> int:
    """*seconds* in microseconds, to the nearest.

    >>> to_us(0.25)
    250000

    Raises:
        InvalidValue: NaN or infinite.
    """
    if not math.isfinite(seconds):
        raise InvalidValue(f"{seconds} seconds: expected a finite number")
    return round(seconds * 1_000_000)
