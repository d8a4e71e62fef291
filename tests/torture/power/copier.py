"""The child that makes the copy of a backup, recorded: it and the process that asked take turns.

It is the one that jobq starts, with jobq's own code; only that a recorder is at work in it, and
that at each named step it tells what it has done since the last one, and waits for leave to go on.
So what two processes do is one record, in one order, and the other one can write meanwhile.
"""

import errno
import os
from collections.abc import Callable
from functools import partial
from multiprocessing.connection import Client
from pathlib import Path
from typing import Any, Final, TypeAlias

from jobq.repo.lmdb import steps
from jobq.repo.lmdb.upkeep import child
from jobq.repo.lmdb.upkeep.copying import NewFile
from tests.torture.calls import failures
from tests.torture.power.record import BACKUPS, Created, Event, Linked, Nameless, Removed, Renamed
from tests.torture.power.recorder import Recorder

Break: TypeAlias = Callable[[Recorder], None]

WAYS: Final = ("nameless", "hidden", "renamed")
"""How a file comes into being as a whole: without a name until it is whole; under a hidden name,
which then becomes a second one; or, where there are no links, is changed."""

CODE: Final = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); "
    f"from {__name__} import main; main({{}})"
)
"""What the child runs, with the arguments of `main` in place of the braces."""


def none(recorder: Recorder) -> None:
    """All is well."""


class CopyRecorder(Recorder):
    """Records what is done to the files of backups, too."""

    def __init__(self, root: Path, way: str) -> None:
        self._way = way
        self._made: set[int] = set()
        super().__init__(root)

    def since(self, number: int) -> list[Event]:
        """All but the first so many events."""
        assert not failures, failures
        return self._events[number:]

    def _wrap_os(self) -> None:
        real = {name: getattr(os, name) for name in ("open", "link", "unlink")}
        super()._wrap_os()
        for name, call in real.items():
            setattr(os, name, partial(getattr(self, f"_os_{name}"), call))

    def _os_open(self, real: Any, path: Any, flags: int, *args: Any, **kwargs: Any) -> int:
        nameless = flags & os.O_TMPFILE == os.O_TMPFILE
        if nameless and self._way != "nameless":  # as on NFS, or an old overlayfs
            raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))
        fd: int = real(path, flags, *args, **kwargs)
        if nameless or (flags & os.O_CREAT and self._is_of_backup(path)):
            self._made.add(file := os.fstat(fd).st_ino)
            self._note(Nameless(file) if nameless else Created(self._name(Path(path)), file))
        return fd

    def _os_link(self, real: Any, source: Any, path: Any, **kwargs: Any) -> None:
        if self._way == "renamed":
            raise OSError(errno.EPERM, os.strerror(errno.EPERM))
        file = Path(source).stat().st_ino
        name = self._name_in(path, kwargs.get("dst_dir_fd"))
        if file in self._made and not (self._root / name).exists():
            self._note(Linked(name, file))
        real(source, path, **kwargs)

    def _os_unlink(self, real: Any, path: Any, **kwargs: Any) -> None:
        real(path, **kwargs)
        name = self._name_in(path, kwargs.get("dir_fd"))
        if name.startswith(f"{BACKUPS}/"):
            self._note(Removed(name))

    def _rename(self, real: Any, source: Any, path: Any, **kwargs: Any) -> None:
        if self._is_of_backup(path):
            file = Path(source).stat().st_ino
            self._note(Renamed(self._name(Path(source)), self._name(Path(path)), file))
        super()._rename(real, source, path, **kwargs)

    def _file(self, fd: int) -> int | None:
        file = os.fstat(fd).st_ino
        return file if file in self._made else super()._file(fd)

    def _adopt(self, path: Path, file: int) -> bool:
        return file not in self._made and super()._adopt(path, file)

    def _is_of_backup(self, path: Any) -> bool:
        return self._name(Path(path)).startswith(f"{BACKUPS}/")

    def _name_in(self, path: Any, directory: int | None) -> str:
        above = Path() if directory is None else Path(f"/proc/self/fd/{directory}").readlink()
        return self._name(above / path)


def main(root: str, way: str, broken: Break, address: str) -> None:
    """Be the child of a backup."""
    recorder = CopyRecorder(Path(root), way)
    broken(recorder)
    other = Client(address)
    told = 0

    def turn(step: str) -> None:
        nonlocal told
        events = recorder.since(told)
        told += len(events)
        other.send((step, events))
        other.recv()

    close = NewFile.close

    def close_and_tell(self: NewFile) -> None:
        close(self)
        turn("closed")

    steps.reached = turn
    NewFile.close = close_and_tell  # type: ignore[method-assign]
    child.main()


def code(root: Path, way: str, broken: Break, address: str) -> str:
    """What `child` is to run in place of its own."""
    return CODE.format(
        f"{str(root)!r}, {way!r}, __import__('importlib').import_module({broken.__module__!r})"
        f".{broken.__qualname__}, {address!r}"
    )
