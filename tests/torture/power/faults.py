"""The store, broken on purpose: what the bench has to notice.

Each fault is a function that is called in the process to be recorded, once its recorder is at
work. What it breaks stays broken until that process ends.
"""

import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, TypeAlias

import lmdb

from jobq.repo.lmdb import files, openfile, opening, steps
from jobq.repo.lmdb.bell import Bell
from jobq.repo.lmdb.transactions import Transactions
from jobq.repo.lmdb.upkeep import backup, restore
from jobq.repo.lmdb.upkeep.copying import NewFile
from tests.model.told import Told
from tests.torture.power.recorder import Recorder

Fault: TypeAlias = Callable[[Recorder], None]


def none(recorder: Recorder) -> None:
    """All is well."""


# What syncs are for: they are called, and do nothing.


def lying_disk(recorder: Recorder) -> None:
    """A disk that says that it has flushed, and has not."""
    recorder.ignored |= {"fsync", "fdatasync", "dsync", "directory"}


def no_data_sync(recorder: Recorder) -> None:
    """Pages are not flushed before the meta page that counts them."""
    recorder.ignored |= {"fdatasync"}


def no_meta_sync(recorder: Recorder) -> None:
    """The meta page is not flushed before the verb returns."""
    recorder.ignored |= {"dsync"}


# Durability: another one than was promised.


def full_is_relaxed(recorder: Recorder) -> None:  # noqa: ARG001 - a fault's signature
    """`full` opens LMDB with `metasync=False`."""
    opening.LEVELS["full"] = opening.LEVELS["relaxed"]


def full_is_unsafe(recorder: Recorder) -> None:  # noqa: ARG001 - a fault's signature
    """`full` opens LMDB with `sync=False`."""
    opening.LEVELS["full"] = opening.LEVELS["unsafe"]


def relaxed_is_unsafe(recorder: Recorder) -> None:  # noqa: ARG001 - a fault's signature
    """`relaxed` opens LMDB with `sync=False`."""
    opening.LEVELS["relaxed"] = opening.LEVELS["unsafe"]


def synced_now_and_then(recorder: Recorder) -> None:  # noqa: ARG001 - a fault's signature
    """`full` opens LMDB with `sync=False`, and syncs after every fifth commit."""
    opening.LEVELS["full"] = opening.LEVELS["unsafe"]
    begin = Transactions._begin
    count = 0

    def begin_after_sync(self: Transactions) -> lmdb.Transaction:
        nonlocal count
        count += 1
        if not count % 5:
            self._file.open().sync(True)
        return begin(self)

    Transactions._begin = begin_after_sync  # type: ignore[method-assign]


# What a verb is.


def acknowledged_before_commit(recorder: Recorder) -> None:
    """A verb returns when its transaction is written, and not yet committed."""
    began, acked, current = recorder.began, recorder.acked, [0, 0]

    def note(number: int, strand: int = 0) -> None:
        current[:] = number, strand
        began(number, strand)

    def reached(step: str) -> None:
        if step == "counts written":
            acked(*current)

    recorder.began = note  # type: ignore[method-assign]
    recorder.acked = lambda *_: None  # type: ignore[method-assign]
    steps.reached = reached


def two_commits(recorder: Recorder) -> None:  # noqa: ARG001 - a fault's signature
    """Jobs of one verb are enqueued one by one."""
    enqueue = Told.enqueue

    def one_by_one(self: Told, specs: Any) -> list[int]:
        return [number for spec in specs for number in enqueue(self, [spec])]

    Told.enqueue = one_by_one  # type: ignore[method-assign]


# How a queue is made.


def _no_sync(path: Path) -> None:
    """Nothing is flushed."""


def no_directory_sync(recorder: Recorder) -> None:  # noqa: ARG001 - a fault's signature
    """The new name of the data file is not flushed."""
    files.sync_directory = _no_sync


def no_sync_above(recorder: Recorder) -> None:  # noqa: ARG001 - a fault's signature
    """The directories above that of the queue are not synced, though they are new."""
    files.sync_above = _no_sync


def built_without_sync(recorder: Recorder) -> None:  # noqa: ARG001 - a fault's signature
    """The data file is built without syncs, and flushed when it is whole: that is enough."""
    open_ = opening._open

    def unsynced(path: Path, map_size: int, durability: str) -> lmdb.Environment:
        making = path.name.startswith(files._NEW)
        return open_(path, map_size, "unsafe" if making else durability)

    opening._open = unsynced


def no_file_sync(recorder: Recorder) -> None:
    """The data file is built without syncs, and moved into place before it is flushed."""
    built_without_sync(recorder)
    files.sync_file = _no_sync


def made_in_place(recorder: Recorder) -> None:  # noqa: ARG001 - a fault's signature
    """The data file is built where it is to stand."""

    def make(path: Path, build: Callable[[Path], None]) -> None:
        files.reserve_lock(path / files.LOCK)
        build(path)
        files.sync_directory(path)

    files._make = make


# What is done about a failed commit.


def never_settled(recorder: Recorder) -> None:  # noqa: ARG001 - a fault's signature
    """After a failed commit what is read is taken for what the disk has."""
    vars(openfile)["settle"] = lambda *_: None


def only_synced(recorder: Recorder) -> None:  # noqa: ARG001 - a fault's signature
    """After a failed commit the file is synced once more, without being written."""

    def settle(data: Path, _: int) -> None:
        fd = os.open(data, os.O_RDWR | os.O_CLOEXEC)
        try:
            os.fdatasync(fd)
        finally:
            os.close(fd)

    vars(openfile)["settle"] = settle


def doubt_of_one_process(recorder: Recorder) -> None:  # noqa: ARG001 - a fault's signature
    """Who opens a queue does not know what those before have left in doubt."""
    doubts: dict[int, bool] = {}
    Bell.doubt = property(  # type: ignore[assignment, method-assign]
        lambda self: doubts.get(id(self), False),
        lambda self, value: doubts.__setitem__(id(self), value),
    )


# What takes the place of a queue's file.


def no_sync_of_what_replaces(recorder: Recorder) -> None:  # noqa: ARG001 - a fault's signature
    """Compaction and restoration put a file in place that was not flushed."""
    files.sync_file = _no_sync
    vars(restore)["os"] = SimpleNamespace(**{**vars(os), "fsync": _no_sync})


# How a backup is made; the first five are called in the child that copies.


def copy_not_synced(recorder: Recorder) -> None:
    """The copy is named before it is flushed."""
    recorder.ignored |= {"fsync"}


def copy_named_first(recorder: Recorder) -> None:  # noqa: ARG001 - a fault's signature
    """The copy is flushed, but only once it has its name."""

    def appear(self: NewFile) -> None:
        self._link()
        os.fsync(self.fd)
        os.fsync(self._directory)

    NewFile.appear = appear  # type: ignore[method-assign]


def copy_made_in_place(recorder: Recorder) -> None:  # noqa: ARG001 - a fault's signature
    """The copy has its name from the beginning."""
    NewFile._make = lambda self: os.open(  # type: ignore[method-assign]
        self.path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600
    )
    NewFile._link = lambda self: None  # type: ignore[method-assign]  # noqa: ARG005


def copy_name_not_synced(recorder: Recorder) -> None:
    """The name of the copy is not flushed."""
    recorder.ignored |= {"directory"}


def names_above_copy_not_synced(recorder: Recorder) -> None:  # noqa: ARG001 - a fault's signature
    """The name of the copy is flushed, but not that of the new directory in which it is."""
    files.sync_above = _no_sync


def backup_acknowledged_at_once(recorder: Recorder) -> None:
    """A backup returns while it is being made."""
    began, acked = recorder.began, recorder.acked

    def note(number: int, strand: int = 0) -> None:
        began(number, strand)
        if strand:
            acked(number, strand)

    recorder.began = note  # type: ignore[method-assign]


def backup_of_long_ago(recorder: Recorder) -> None:  # noqa: ARG001 - a fault's signature
    """The second backup is of the queue as it was when the first one had been made."""
    older, real = Path(tempfile.mkdtemp()), backup.backup

    def late(directory: Path, target: Path, progress: backup.Told = None) -> Any:
        data = older / files.DATA
        if data.exists():
            return real(older, target, progress)
        made = real(directory, target, progress)
        data.write_bytes((directory / files.DATA).read_bytes())
        return made

    backup.backup = late


def unrecorded(recorder: Recorder) -> None:
    """Something is written that the recorder does not see."""
    finish = recorder.finish

    def write_first() -> Any:
        record = finish()
        record.final += b"more"
        return record

    recorder.finish = write_first  # type: ignore[method-assign]
