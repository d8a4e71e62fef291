"""The system calls of a verb as steps of it: where it can be killed between any two of them.

A step is named before each call that changes a file, or makes changes last, and after it. What is
killed amid a long write leaves whole pages of it: there is a step within, too, when the first half
of the pages is written.
"""

import importlib
import mmap
import os
from collections.abc import Callable
from functools import partial
from typing import Any, Final

from jobq.repo.lmdb import steps
from tests.torture.calls import Hook, divert

OF_LMDB: Final = (
    *("write", "pwrite", "writev", "pwritev", "ftruncate"),
    *("fsync", "fdatasync", "msync", "sync_file_range"),
)
OF_JOBQ: Final = (
    *("write", "pwrite", "truncate", "ftruncate", "posix_fallocate", "fsync", "fdatasync"),
    *("mkdir", "rename", "replace", "link", "unlink", "rmdir"),
)
_PAGE: Final = mmap.PAGESIZE
_VECTOR: Final = 16
"""Bytes of an address and a length."""
_META: Final = "meta page"
_MOMENTS: Final = ("begins", "is half done", "ends")
BOUNDARIES: Final = frozenset(
    f"{call} {moment}"
    for call in (*OF_LMDB, f"pwrite of a {_META}", *(f"os.{name}" for name in OF_JOBQ))
    for moment in _MOMENTS
)
"""The names of these steps."""

META_WRITTEN: Final = f"pwrite of a {_META} ends"
"""The commit is there; then LMDB raises the number of the last one in its lock file, by which
readers go. Who dies in between leaves a commit that shows from the next write on, when the heir of
the mutex looks at the meta pages."""


def at_its_calls(act: Callable[[Any, Any], object]) -> Callable[[Any, Any], object]:
    """The same verb, with these steps: for a process that ends by it."""

    def acting(subject: Any, held: Any) -> object:
        found = divert(
            importlib.import_module("lmdb.cpython").__file__ or "",  # a name without stubs
            {name: _hook(name) for name in OF_LMDB},
        )
        assert {"pwrite", "fdatasync"} <= found, f"LMDB's calls are hidden: {found}"
        for name in OF_JOBQ:
            setattr(os, name, partial(_call, name, getattr(os, name)))
        return act(subject, held)

    return acting


def _hook(name: str) -> Hook:
    if name == "pwrite":
        return _pwrite
    return _writev if name == "writev" else partial(_other, name)


def _pwrite(real: Callable[..., int], fd: int, at: int, size: int, offset: int) -> int:
    name = f"pwrite of a {_META}" if offset < 2 * _PAGE and size < _PAGE else "pwrite"
    steps.reached(f"{name} begins")
    half = size // 2 // _PAGE * _PAGE
    if half:
        real(fd, at, half, offset)  # and once more with the rest, by who lives on
        steps.reached(f"{name} is half done")
    result = real(fd, at, size, offset)
    steps.reached(f"{name} ends")
    return result


def _writev(real: Callable[..., int], fd: int, at: int, count: int) -> int:
    steps.reached("writev begins")
    half = count // 2
    result = real(fd, at, half) if half else 0
    steps.reached("writev is half done")
    result += real(fd, at + half * _VECTOR, count - half)
    steps.reached("writev ends")
    return result


def _other(name: str, real: Callable[..., int], fd: int, *arguments: Any) -> int:
    steps.reached(f"{name} begins")
    result = real(fd, *arguments)
    steps.reached(f"{name} ends")
    return result


def _call(name: str, real: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
    steps.reached(f"os.{name} begins")
    result = real(*arguments, **options)
    steps.reached(f"os.{name} ends")
    return result
