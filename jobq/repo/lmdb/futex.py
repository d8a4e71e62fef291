"""Sleeping on a word of shared memory until somebody calls: the system calls of futexes.

The kernel lets a thread sleep on a word only if it still has the value that was seen, and whoever
changes the word calls. Words are told apart by file and place, so it does not matter which process
calls, and nobody has to be registered. Where the number of the system call is not known nobody
sleeps for long, and looks often instead.

Since Linux 5.16 a thread may sleep on many words at once, and is called at any of them. Where the
kernel has not got that, or a sandbox refuses it, there is none: see `can_wait_for_any`.
"""

import ctypes
import errno
import itertools
import os
import platform
import struct
import time
from collections.abc import Callable, Sequence
from functools import cache
from typing import Final, cast

EVERYBODY: Final = 2**31 - 1

MOST_WORDS: Final = 128
"""On so many one thread may sleep at once."""

NUMBERS: Final = {
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
"""Of the system call `futex`, by the machine."""

NUMBER: Final = NUMBERS.get(platform.machine())

WAITV: Final = 449
"""The number of `futex_waitv` on all of these."""

WAIT: Final = 0
WAKE: Final = 1
_OF_32_BITS: Final = 2
_NAP_S: Final = 0.02
_USUAL: Final = (errno.EAGAIN, errno.EINTR, errno.ETIMEDOUT)

_WORD: Final = struct.Struct("=QQII")  # value, address, flags, nothing
_TIME: Final = struct.Struct("=qq")  # of 64 bits, also where a word has 32


class _Timespec(ctypes.Structure):
    _fields_ = (("seconds", ctypes.c_long), ("nanoseconds", ctypes.c_long))


class Word:
    """A word of this process alone, with which it can be called out of a sleep.

    It never has a value twice: who has read it notices any later call.
    """

    def __init__(self) -> None:
        self._word = ctypes.c_uint32()
        self._values = itertools.count(1)
        self.address: Final = ctypes.addressof(self._word)

    def read(self) -> int:
        """Its value, to be seen by who sleeps."""
        return self._word.value

    def call(self) -> None:
        """Wake all who sleep on it, and let nobody sleep who has read it before."""
        self._word.value = next(self._values) & 0xFFFFFFFF
        wake(self.address, EVERYBODY)


def wait(address: int, seen: int, timeout: float) -> None:
    """Sleep until called, at most *timeout* seconds; not at all if the word is not *seen*.

    Returns early for a signal, so that its handler runs.
    """
    if NUMBER is None:
        word = ctypes.c_uint32.from_address(address)
        end = time.monotonic() + timeout
        while word.value == seen and (left := end - time.monotonic()) > 0:
            time.sleep(min(left, _NAP_S))
        return
    nanoseconds = max(0, int(timeout * 1e9))
    pause = _Timespec(nanoseconds // 10**9, nanoseconds % 10**9)
    _check(_releasing_gil(NUMBER, address, WAIT, seen, ctypes.byref(pause), None, 0))


def wake(address: int, waiters: int) -> int:
    """Wake up to so many who sleep on the word; gives how many did."""
    if NUMBER is None:
        return 0
    woken = _keeping_gil(NUMBER, address, WAKE, waiters, None, None, 0)
    _check(woken)
    return woken


@cache
def can_wait_for_any() -> bool:
    """Whether `wait_for_any` is there; asked when it is needed for the first time."""
    if NUMBER is None:
        return False
    _keeping_gil(WAITV, None, 0, 0, None, None, 0)  # nothing to sleep on is an invalid value
    return ctypes.get_errno() == errno.EINVAL


def wait_for_any(words: Sequence[tuple[int, int]], end: float) -> int | None:
    """Sleep on up to 128 words, by address and the value seen, until called or the time *end*.

    Not at all if one of them has another value. Time is that of `time.monotonic`.

    Returns:
        The place of a word at which this thread was called; then it may have been called at others
        too, where nobody else was in its stead. None if it was called nowhere: the time is over, a
        word had another value, or a signal has come.
    """
    list_ = b"".join([_WORD.pack(seen, address, _OF_32_BITS, 0) for address, seen in words])
    nanoseconds = max(0, int(end * 1e9))
    until = _TIME.pack(nanoseconds // 10**9, nanoseconds % 10**9)
    place = _releasing_gil(WAITV, list_, len(words), 0, until, time.CLOCK_MONOTONIC, 0)
    _check(place)
    return None if place == -1 else place


def _check(result: int) -> None:
    if result == -1 and (code := ctypes.get_errno()) not in _USUAL:
        raise OSError(code, os.strerror(code))


def _syscall_of(library: ctypes.CDLL) -> Callable[..., int]:
    """The function `syscall`, for the arguments of a futex."""
    syscall = library.syscall
    syscall.restype = ctypes.c_long
    syscall.argtypes = (
        ctypes.c_long, ctypes.c_void_p, ctypes.c_int, ctypes.c_uint32,
        ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int,
    )  # fmt: skip
    return cast("Callable[..., int]", syscall)


_releasing_gil: Final = _syscall_of(ctypes.CDLL(None, use_errno=True))
_keeping_gil: Final = _syscall_of(ctypes.PyDLL(None, use_errno=True))
"""For calls that return at once: to give the interpreter away for them may cost 5 ms, until another
thread gives it back."""
