"""Waking waiters in any process, with a futex in a small shared file.

The file is an array of counters, one for each topic (by number; number 0 stands for topics that
do not exist yet). A commit that makes jobs of a topic ready raises its counter and calls
FUTEX_WAKE; a waiter reads the counter, looks whether there is a job, and calls FUTEX_WAIT with
the value it read: the kernel lets it sleep only if the counter is still the same, so no wake-up
can be missed. It costs nothing when nobody waits, wakes as many as there are jobs, needs no
registration, and a killed waiter leaves no trace.

Only the holder of the write lock raises a counter for a commit, so none is lost.
"""

import ctypes
import errno
import mmap
import os
import platform
import time
from pathlib import Path
from typing import Final

SIZE: Final = 4096
COUNTERS: Final = SIZE // 4
EVERYBODY: Final = 2**31 - 1

_FUTEX_WAIT: Final = 0
_FUTEX_WAKE: Final = 1
_SYSCALL: Final = {
    "x86_64": 202,
    "aarch64": 98,
    "riscv64": 98,
    "loongarch64": 98,
    "armv7l": 240,
    "armv6l": 240,
    "i386": 240,
    "i686": 240,
    "ppc64le": 221,
    "s390x": 238,
}
_NAP_WITHOUT_FUTEX: Final = 0.02

_Counters = ctypes.c_uint32 * COUNTERS


class _Timespec(ctypes.Structure):
    _fields_ = (("seconds", ctypes.c_long), ("nanoseconds", ctypes.c_long))


class Bell:
    """The counters of one queue directory."""

    def __init__(self, path: Path) -> None:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            # Blocks on disk for the whole of it: touching a hole on a full disk is SIGBUS.
            os.posix_fallocate(fd, 0, SIZE)
            self._map = mmap.mmap(fd, SIZE)
        finally:
            os.close(fd)
        self._counters = _Counters.from_buffer(self._map)
        self._syscall = ctypes.CDLL(None, use_errno=True).syscall
        self._number = _SYSCALL.get(platform.machine())

    def read(self, topic: int) -> int:
        """The topic's counter, to be given to `wait`."""
        return int(self._counters[self._place(topic)])

    def raise_counter(self, topic: int) -> None:
        """Note that something has changed for the topic; under the write lock."""
        place = self._place(topic)
        self._counters[place] = (self._counters[place] + 1) & 0xFFFFFFFF

    def wake(self, topic: int, waiters: int = EVERYBODY) -> None:
        """Wake up to so many who wait for the topic, or for one that shares its counter."""
        self._futex(self._place(topic), _FUTEX_WAKE, waiters, None)

    def wait(self, topic: int, seen: int, timeout: float) -> None:
        """Sleep until woken, at most *timeout* seconds; not at all if the counter is not *seen*.

        Returns early for a signal, so that its handler runs.
        """
        if self._number is None:
            # An architecture whose system call number is not known here: look often instead.
            end = time.monotonic() + timeout
            while self.read(topic) == seen and (left := end - time.monotonic()) > 0:
                time.sleep(min(left, _NAP_WITHOUT_FUTEX))
            return
        nanoseconds = max(0, int(timeout * 1e9))
        pause = _Timespec(nanoseconds // 10**9, nanoseconds % 10**9)
        self._futex(self._place(topic), _FUTEX_WAIT, seen, ctypes.byref(pause))

    def _futex(self, place: int, operation: int, value: int, timeout: object) -> None:
        if self._number is None:
            return
        address = ctypes.byref(self._counters, place * 4)
        result = self._syscall(
            ctypes.c_long(self._number),
            address,
            ctypes.c_int(operation),
            ctypes.c_uint32(value),
            timeout,
            None,
            ctypes.c_int(0),
        )
        if result == -1:
            code = ctypes.get_errno()
            if code not in (errno.EAGAIN, errno.EINTR, errno.ETIMEDOUT):
                raise OSError(code, os.strerror(code))

    def _place(self, topic: int) -> int:
        return topic if topic < COUNTERS else 1 + topic % (COUNTERS - 1)


__all__ = ["COUNTERS", "EVERYBODY", "SIZE", "Bell"]
