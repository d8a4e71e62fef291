"""Records what this process does to the data file of a queue, and to the names round it.

LMDB's calls are diverted (`calls`); those that jobq makes itself go through `os`, where functions
of the same name take their place. What was missed would show: a replay of the record has to give
the data file byte by byte.
"""

import ctypes
import fcntl
import importlib
import os
import stat
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Final

from tests.torture.calls import divert, failures
from tests.torture.disk.failing import Fault, How, Trouble
from tests.torture.power.record import (
    DATA,
    Acked,
    Began,
    Created,
    Dropped,
    Event,
    Flush,
    FlushNames,
    FlushOne,
    Made,
    Record,
    Renamed,
    Resize,
    Write,
    is_being_made,
)

SYNCS: Final = frozenset({"fsync", "fdatasync", "msync"})
Real = Callable[..., int]


class Recorder:
    """Records from now on, for as long as the process lives.

    Args:
        root: The directory in which the queue's directory is, or will be.

    Attributes:
        ignored: Syncs that are recorded as if they had not been called: `fsync`, `fdatasync`,
            `dsync` (the flag of a descriptor), `directory`. So a bench can show what they are for.
        last: The event at which `struck` is called, in place of what was to be done.
        trouble: Which writes and syncs of data files fail.
    """

    def __init__(self, root: Path) -> None:
        self._root = root.resolve()
        self.ignored: set[str] = set()
        self.trouble = Trouble(root)
        self.last = 0
        self._noting = threading.Lock()
        self.struck: Callable[[], None] = lambda: None
        self.restart()
        self._calls = divert(
            importlib.import_module("lmdb.cpython").__file__ or "",  # a name without stubs
            {
                "open": self._open,
                "write": self._write,
                "pwrite": self._pwrite,
                "writev": self._writev,
                "pwritev": self._writev,
                "ftruncate": self._ftruncate,
                "fsync": lambda real, fd: self._sync("fsync", real, fd),
                "fdatasync": lambda real, fd: self._sync("fdatasync", real, fd),
                "msync": _refuse,
                "sync_file_range": _refuse,
            },
        )
        assert {"pwrite", "fdatasync"} <= self._calls, f"LMDB's calls are hidden: {self._calls}"
        self._wrap_os()

    def restart(self) -> None:
        """Forget what was recorded: all that stands there now lasts."""
        self.record = Record()
        self._events: list[Event] = self.record.events
        for path in sorted(self._root.rglob("*")):
            if path.is_dir():
                self.record.names[self._name(path)] = None
            elif path.name == DATA:
                self.record.names[self._name(path)] = file = path.stat().st_ino
                self.record.files[file] = path.read_bytes()

    def began(self, number: int, strand: int = 0) -> None:
        """Note that a verb is called now."""
        self._note(Began(strand, number))

    def acked(self, number: int, strand: int = 0) -> None:
        """Note that it has returned."""
        self._note(Acked(strand, number))

    def finish(self) -> Record:
        """The record, with what stands in the data file now."""
        assert not failures, failures
        found = [path for path in self._root.rglob(DATA) if not is_being_made(path.parent.name)]
        self.record.final = found[0].read_bytes()
        return self.record

    def _note(self, event: Event) -> int:
        """Note what is about to be done; gives where it stands in the record."""
        with self._noting:  # threads note that they begin while another one writes
            self._before()
            self._events.append(event)
            return len(self._events) - 1

    def _before(self) -> None:
        """Called before what is noted once it is done."""
        if self.last and len(self._events) + 1 >= self.last:
            self.struck()

    # LMDB's calls. A write is noted before it is made: from then on any part of it may last.

    def _open(self, real: Real, path: bytes, flags: int, mode: int) -> int:
        new = (
            flags & os.O_CREAT
            and path.endswith(DATA.encode())
            and not Path(os.fsdecode(path)).exists()
        )
        if new:
            self._before()
        fd = real(path, flags, mode)
        if new and fd >= 0:
            name = self._name(Path(os.fsdecode(path)))
            self._events.append(Created(name, os.fstat(fd).st_ino))
        return fd

    def _write(self, real: Real, fd: int, at: int, size: int) -> int:
        return self._writes(
            "write", fd, None, ctypes.string_at(at, size), lambda: real(fd, at, size)
        )

    def _pwrite(self, real: Real, fd: int, at: int, size: int, offset: int) -> int:
        data = ctypes.string_at(at, size)
        return self._writes("pwrite", fd, offset, data, lambda: real(fd, at, size, offset))

    def _writev(self, real: Real, fd: int, at: int, count: int, *offset: int) -> int:
        vector = (ctypes.c_size_t * (2 * count)).from_address(at)
        pairs = zip(vector[::2], vector[1::2], strict=True)
        data = b"".join(ctypes.string_at(start, size) for start, size in pairs)
        where = offset[0] if offset else None
        return self._writes("writev", fd, where, data, lambda: real(fd, at, count, *offset))

    def _writes(
        self, name: str, fd: int, offset: int | None, data: bytes, call: Callable[[], int]
    ) -> int:
        file = self._file(fd)
        if file is None:
            return call()
        fault = self.trouble.strikes(name, str(_path_of(fd)))
        if fault is not None and fault.how is How.REFUSED:
            return _fails(fault)
        if offset is None:
            offset = os.lseek(fd, 0, os.SEEK_CUR)
        if fault is not None and fault.how is How.HALF:
            data = data[: len(data) // 2]
            call = partial(_REAL_PWRITE, fd, data, offset)
        index = self._note(Write(file, offset, data))
        written = call()
        lasts = fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_DSYNC and "dsync" not in self.ignored
        if fault is not None and fault.how is How.DONE:
            if lasts:
                self._events.append(Dropped(file, index, index + 1))
            return _fails(fault)
        if lasts and written == len(data):
            self._events.append(FlushOne(index))
        return written

    def _ftruncate(self, real: Real, fd: int, size: int) -> int:
        file = self._file(fd)
        if file is not None:
            self._note(Resize(file, size))
        return real(fd, size)

    def _sync(self, name: str, real: Real, fd: int) -> int:
        self._before()
        upto = len(self._events)  # what is written while it runs may or may not last
        file = self._file(fd)
        fault = self.trouble.strikes(name, str(_path_of(fd)))
        if fault is not None:
            if file is not None:
                self._events.append(Dropped(file, 0, upto))
            return _fails(fault)
        result = real(fd)
        if not result:
            self._synced(name, fd, upto)
        return result

    def _synced(self, name: str, fd: int, upto: int) -> None:
        if stat.S_ISDIR(os.fstat(fd).st_mode):
            if "directory" not in self.ignored:
                self._events.append(FlushNames(self._name(_path_of(fd)), upto))
            return
        file = self._file(fd)
        if file is not None and name not in self.ignored:
            if self._adopt(_path_of(fd), file):
                upto = len(self._events)  # whoever wrote it had ended before
            self._events.append(Flush(file, upto))

    def _adopt(self, path: Path, file: int) -> bool:
        """Note a file that another process has written, or Python itself, as far as it is new.

        So are those which replace that of a queue: nobody else looks at one until it is flushed.
        """
        known = {*self.record.files, *(e.file for e in self._events if isinstance(e, Created))}
        if file in known:
            return False
        self._events.append(Created(self._name(path), file))
        self._events.append(Write(file, 0, path.read_bytes()))
        return True

    # jobq's own calls.

    def _wrap_os(self) -> None:
        own = (self._mkdir, self._rename, self._posix_fallocate, self._os_ftruncate)
        for call in own:
            name = call.__name__.removeprefix("_").removeprefix("os_")
            setattr(os, name, partial(call, getattr(os, name)))
        for name in ("fsync", "fdatasync"):
            setattr(os, name, partial(self._os_sync, name, getattr(os, name)))
        for name in ("write", "truncate", "replace", "link"):
            setattr(os, name, partial(self._no, name, getattr(os, name)))
        vars(os)["pwrite"] = self._os_pwrite

    def _mkdir(self, real: Real, path: Any, *args: Any, **kwargs: Any) -> None:
        self._before()
        real(path, *args, **kwargs)
        name = self._name(Path(path))
        # Nothing is promised of what is in `holders`, nor of what is elsewhere.
        if Path(path).name != "holders" and not name.startswith(".."):
            self._events.append(Made(name))

    def _rename(self, real: Real, source: Any, path: Any, **kwargs: Any) -> None:
        if Path(path).name == DATA:
            file = Path(source).stat().st_ino
            self._adopt(Path(source), file)
            self._note(Renamed(self._name(Path(source)), self._name(Path(path)), file))
        real(source, path, **kwargs)

    def _posix_fallocate(self, real: Real, fd: int, offset: int, length: int) -> None:
        file, size = self._file(fd), max(os.fstat(fd).st_size, offset + length)
        if file is not None:
            self._note(Resize(file, size))
        real(fd, offset, length)

    def _os_ftruncate(self, real: Real, fd: int, size: int) -> None:
        self._ftruncate(lambda *args: real(*args) or 0, fd, size)

    def _os_pwrite(self, fd: int, data: bytes, offset: int) -> int:
        call = partial(_REAL_PWRITE, fd, data, offset)
        return _raised(self._writes("pwrite", fd, offset, bytes(data), call))

    def _os_sync(self, name: str, real: Real, fd: Any) -> None:
        _raised(self._sync(name, lambda fd: real(fd) or 0, fd))

    def _no(self, name: str, real: Real, where: Any, *args: Any, **kwargs: Any) -> Any:
        """What jobq does not do to a data file today: it would have to be recorded."""
        data = self._file(where) is not None if isinstance(where, int) else _is_data(where)
        assert not data, f"{name} of the data file is not recorded"
        return real(where, *args, **kwargs)

    def _file(self, fd: int) -> int | None:
        """The data file that a descriptor is of; None if it is of something else."""
        if _path_of(fd).name != DATA:
            return None
        return os.fstat(fd).st_ino

    def _name(self, path: Path) -> str:
        return os.path.relpath(path.resolve(), self._root)


_REAL_PWRITE: Final = os.pwrite


def _fails(fault: Fault) -> int:
    """What a call gives that fails."""
    ctypes.set_errno(fault.code)
    return -1


def _raised(given: int) -> int:
    """What a function of `os` gives; it raises where a system call gives -1."""
    if given < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return given


def _is_data(path: Any) -> bool:
    return Path(path).name == DATA


def _path_of(fd: int) -> Path:
    return Path(f"/proc/self/fd/{fd}").readlink()


def _refuse(_: Real, *__: int) -> int:
    raise AssertionError("LMDB maps its file for writing: stores to memory are not recorded")
