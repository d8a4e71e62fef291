"""A disk that fails: the calls by which this process writes below a directory, made to fail.

LMDB's calls are diverted (`calls`); those that jobq makes itself go through `os`, where functions
of the same name take their place. Calls are counted from 1 on, and a fault says which of them
fail, how, and with which error.
"""

import ctypes
import enum
import errno
import importlib
import io
import os
import random
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Final, NamedTuple

from jobq.repo.lmdb.upkeep import restore
from tests.torture.calls import SIGNATURES, divert, failures

WRITES: Final = frozenset({"write", "pwrite", "writev", "pwritev"})
SYNCS: Final = frozenset({"fsync", "fdatasync"})

_MAKING: Final = os.O_CREAT | os.O_TMPFILE
_BY_PATH: Final = ("mkdir", "rename", "replace", "link", "unlink", "truncate")
_BY_FD: Final = ("fsync", "fdatasync", "ftruncate", "posix_fallocate", "write", "pwrite")


class How(enum.StrEnum):
    """What a call that fails has done by then."""

    REFUSED = "refused"
    """Nothing."""
    HALF = "half"
    """Half of the bytes were written, and that is what it says, without an error."""
    DONE = "done"
    """All of it; only the error is true, or half true, as of a sync that came no further."""


class Fault(NamedTuple):
    """Which calls fail.

    Attributes:
        at: The first of them.
        code: Their error, by `errno`.
        lasting: All after it fail too, and do nothing; else it is the only one.
        spared: So many right after the first one do not fail all the same.
    """

    at: int
    code: int
    lasting: bool = False
    how: How = How.REFUSED
    spared: int = 0

    def __str__(self) -> str:
        often = "and all after" if self.lasting else "alone"
        often += f" but {self.spared}" if self.spared else ""
        return f"call {self.at} {often}, {os.strerror(self.code)}, {self.how}"


def any_fault(chance: random.Random, most: int) -> Fault:
    """A fault of one of the first *most* calls."""
    return Fault(
        chance.randint(1, most),
        chance.choice((errno.EIO, errno.EIO, errno.ENOSPC)),
        lasting=chance.random() < 0.5,
        how=chance.choice(tuple(How)),
        spared=chance.choice((0, 0, 1, 2)),
    )


class Trouble:
    """Which of the calls that change something below *root* fail; none at first.

    Attributes:
        calls: Those since the last `begin`, in words.
        kinds: The names of the functions, likewise.
    """

    def __init__(self, root: Path) -> None:
        self._root = str(root.resolve())
        self._fault: Fault | None = None
        self.calls: list[str] = []
        self.kinds: list[str] = []

    def begin(self, fault: Fault | None) -> None:
        """Count from 1 on, and fail as *fault* says."""
        self.calls.clear()
        self.kinds.clear()
        self._fault = fault

    def end(self) -> None:
        """The disk is well again."""
        assert not failures, failures
        self._fault = None

    @property
    def over(self) -> bool:
        """Whether nothing fails any more."""
        fault = self._fault
        return fault is None or (len(self.calls) > fault.at and not fault.lasting)

    def strikes(self, name: str, place: str) -> Fault | None:
        """Note a call; gives the fault that it meets."""
        if not place.startswith(self._root):
            return None
        self.calls.append(f"{name} {os.path.relpath(place, self._root)}")
        self.kinds.append(name)
        fault, number = self._fault, len(self.calls)
        if fault is None or number < fault.at:
            return None
        if number > fault.at and (not fault.lasting or number <= fault.at + fault.spared):
            return None
        return fault if number == fault.at else fault._replace(how=How.REFUSED)


class Failing(Trouble):
    """The calls of this process below *root*, made to fail."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        found = divert(
            importlib.import_module("lmdb.cpython").__file__ or "",  # a name without stubs
            {name: partial(self._libc, name) for name in SIGNATURES if name != "msync"},
        )
        assert {"pwrite", "fdatasync", "open"} <= found, f"LMDB's calls are hidden: {found}"
        for name in _BY_PATH:
            setattr(os, name, partial(self._by_path, name, getattr(os, name)))
        for name in _BY_FD:
            setattr(os, name, partial(self._by_fd, name, getattr(os, name)))
        vars(os)["open"] = partial(self._os_open, os.open)
        vars(restore)["open"] = self._open_file

    # LMDB's calls.

    def _libc(self, name: str, real: Callable[..., int], first: Any, *rest: Any) -> int:
        if name == "open":
            path, flags = os.fsdecode(first), rest[0]
            place = path if flags & os.O_CREAT and not Path(path).exists() else ""
        else:
            place = _path_of(first)
        fault = self.strikes(name, place)
        if fault is None:
            return real(first, *rest)
        if name in WRITES and fault.how is How.HALF:
            return self._half(name, real, first, *rest)
        if fault.how is How.DONE and name in WRITES | SYNCS:
            real(first, *rest)
        ctypes.set_errno(fault.code)
        return -1

    @staticmethod
    def _half(name: str, real: Callable[..., int], fd: int, at: int, *rest: int) -> int:
        if name in {"write", "pwrite"}:
            size, *offset = rest
            return real(fd, at, size // 2, *offset)
        count, *offset = rest
        if count > 1:
            return real(fd, at, count // 2, *offset)
        start, size = (ctypes.c_size_t * 2).from_address(at)
        one = (ctypes.c_size_t * 2)(start, size // 2)
        return real(fd, ctypes.addressof(one), 1, *offset)

    # jobq's own calls.

    def _os_open(self, real: Any, path: Any, flags: int, *args: Any, **kwargs: Any) -> int:
        if flags & _MAKING:  # O_TMPFILE has the bits of O_DIRECTORY, too, which makes nothing
            made = flags & os.O_CREAT and not Path(path).exists()
            made = made or flags & _MAKING == os.O_TMPFILE
            fault = self.strikes("open", os.fspath(path)) if made else None
            if fault is not None:
                raise _error(fault, path)
        fd: int = real(path, flags, *args, **kwargs)
        return fd

    def _by_path(self, name: str, real: Any, path: Any, *args: Any, **kwargs: Any) -> Any:
        where = args[0] if name == "link" and "dst_dir_fd" in kwargs else path
        if "dst_dir_fd" in kwargs or kwargs.get("dir_fd") is not None:
            directory: Any = kwargs.get("dst_dir_fd", kwargs.get("dir_fd"))
            place = f"{_path_of(directory)}/{where}"
        else:
            place = _path_of(where) if isinstance(where, int) else str(Path(where).absolute())
        fault = self.strikes(name, place)
        if fault is not None:
            raise _error(fault, path)
        return real(path, *args, **kwargs)

    def _by_fd(self, name: str, real: Any, fd: Any, *args: Any) -> Any:
        number = fd if isinstance(fd, int) else fd.fileno()
        fault = self.strikes(name, _path_of(number))
        if fault is None:
            return real(fd, *args)
        if name in WRITES and fault.how is How.HALF:
            data, *rest = args
            return real(fd, bytes(data)[: len(data) // 2], *rest)
        if fault.how is How.DONE and name in WRITES | SYNCS:
            real(fd, *args)
        raise _error(fault, _path_of(number))

    def _open_file(self, path: Any, mode: str, opener: Any = None) -> Any:
        """What `open` gives to whoever writes by files of Python's."""
        if mode == "rb":
            return open(path, mode, opener=opener)
        raw = io.FileIO(path, mode.replace("b", ""), opener=opener)
        return io.BufferedWriter(_File(raw, partial(self._by_fd, "write", _write)))


class _File(io.RawIOBase):
    """A file that writes through the hook."""

    def __init__(self, raw: io.FileIO, write: Callable[[int, Any], int]) -> None:
        self._raw, self._write = raw, write

    def fileno(self) -> int:
        return self._raw.fileno()

    def writable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = 0) -> int:
        return self._raw.seek(offset, whence)

    def write(self, data: Any) -> int:
        return self._write(self.fileno(), data)

    def close(self) -> None:
        if not self.closed:
            super().close()
            self._raw.close()


_write: Final = os.write


def _error(fault: Fault, path: Any) -> OSError:
    return OSError(fault.code, os.strerror(fault.code), path)


def _path_of(fd: int) -> str:
    try:
        return str(Path(f"/proc/self/fd/{fd}").readlink())
    except OSError:
        return ""
