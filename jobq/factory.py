"""From a path to a service: the one module that names the adapters."""

import contextlib
import os
import sys
from collections.abc import Callable, Iterator
from os import PathLike
from pathlib import Path
from typing import Any, Final, Unpack

from jobq import codec
from jobq.clock import to_us
from jobq.errors import InvalidValue, StoreUnavailable, shown
from jobq.options import OptionArgs, check_path, flag, integer, one_of, seconds
from jobq.repo.base import Copied, CopyProgress, Diagnosis, Retention, Salvaged, Store
from jobq.service import JobService
from jobq.service.job import Backoff, exponential
from jobq.service.service import maker_of
from jobq.service.transfer import export_jobs

MEMORY: Final = ":memory:"
DURABILITIES: Final = ("full", "relaxed", "unsafe")
IN_FILE: Final = "lmdb"
IN_MEMORY: Final = "memory"


def open(  # noqa: A001 - jobq.open is the name that users expect
    path: str | PathLike[str],
    *,
    durability: str = "full",
    topics: str | None = None,
    create: bool = True,
    keep_done: float = 86_400.0,
    keep_canceled: float = 7 * 86_400.0,
    max_done: int = 1_000_000,
    max_size: int | None = None,
    max_payload: int = codec.LIMIT,
    backoff: Backoff = exponential,
    **options: Unpack[OptionArgs],
) -> JobService:
    """A service over the queue in a directory, or over a volatile one.

    Args:
        path: A directory, made if there is none; or `:memory:` for jobs that live and die with
            the returned service, and for which *durability*, *create* and *max_size* mean nothing.
        durability: `full` (default): what a call acknowledged survives power loss. `relaxed`:
            the file stays intact, the last commit may be lost. `unsafe`: survives the death of
            the process; after a power cut the file may be unreadable.
        topics: Where it is kept who comes next and what falls due. `lmdb` (default for a
            directory): with the jobs, for all processes. `memory`: in this process, which then has
            the queue alone; jobs stay as durable as they are, commits take less, and opening takes
            longer, because it reads all jobs. A queue may be opened in either way, by turns.
        create: False: an error if there is no queue, instead of a new one.
        keep_done: Seconds for which done jobs are kept unless they say otherwise; 0 for none.
        keep_canceled: Seconds for which canceled jobs are kept likewise.
        max_done: The most done jobs that are kept.
        max_size: The most bytes that the data file may grow to by new jobs; 64 GiB by default. To
            work jobs off may take some 64 pages more.
        max_payload: The most bytes of a payload or a result, encoded; 1 MiB by default. It holds
            for what this service enqueues, not for what it reads.
        backoff: Gives the wait before a retry in seconds, from k = 1, 2, … and the job's options;
            by default exponential, from the options.
        **options: Defaults for the jobs that this service enqueues; see `JobOptions`.

    Raises:
        InvalidValue: An argument is wrong, or the path cannot hold a queue: a file, a directory
            with something else in it, a network file system, a queue that hard links share.
        StoreUnavailable: The path cannot be read or written.
        StoreCorrupt: What is there is damaged, or of another format.
        StoreFull: There is no room for a new queue.
        StoreLocked: Another process has the queue open with its topics in memory, or compacts or
            restores it; or has it open at all, and *topics* is `memory`.
        StoreBusy: Another process is about to make or open the queue, and comes to no end.
    """
    maker_of(max_payload, backoff, options)  # to check them, before anything is made
    durability = one_of("durability", durability, DURABILITIES)
    topics = None if topics is None else one_of("topics", topics, (IN_FILE, IN_MEMORY))
    flag("create", create)
    retention = Retention(
        to_us(seconds("keep_done", keep_done)),
        to_us(seconds("keep_canceled", keep_canceled)),
        integer("max_done", max_done, 0, 2**40),
    )
    settings: dict[str, Any] = {"durability": durability, "create": create}
    if max_size is not None:
        settings["max_size"] = integer("max_size", max_size, 2**20, 2**46)
    store = _store(path, topics, retention, settings)
    try:
        return JobService(store, max_payload=max_payload, backoff=backoff, **options)
    except BaseException:
        store.close()
        raise


def restore(
    backup: str | PathLike[str],
    path: str | PathLike[str],
    *,
    replace: bool = False,
    progress: Callable[[CopyProgress], object] | None = None,
) -> Copied:
    """Make a queue in the directory *path* out of the file that `JobService.backup` has made.

    It is copied and verified beside what is there, and then moved into place in one step: whatever
    interrupts it, there is the old queue (or none) or the new one. The backup stays as it is. What
    was reserved when it was made is ready again at the next open.

    Args:
        backup: The file.
        path: The directory; made if there is none.
        replace: Whether a queue that is there is replaced, with all jobs in it.
        progress: Called with how far it is.

    Raises:
        InvalidValue: There is no such backup; there is a queue, and *replace* is not given; or the
            path cannot hold a queue.
        StoreLocked: A process has the queue open that is to be replaced; the message names it.
        StoreCorrupt: The backup is damaged, or no backup, or of another format.
        StoreFull: There is no room for it.
        StoreUnavailable: Something cannot be read or written.
    """
    flag("replace", replace)
    source, directory = check_path("backup", backup), _directory(path)
    _check_progress(progress)
    with _needing_lmdb(directory):
        from jobq.repo.lmdb.upkeep.restore import restore
    return restore(Path(source), Path(directory), replace=replace, progress=progress)


def compact(
    path: str | PathLike[str], progress: Callable[[CopyProgress], object] | None = None
) -> Copied:
    """Give what is free in the file of a queue back to the disk; nobody may have it open.

    Free space is used again anyway, so this is for a queue that was once much larger than it will
    be. A compact copy is made and verified beside the file, and takes its place in one step.

    Args:
        path: The directory of the queue.
        progress: Called with how far it is.

    Raises:
        InvalidValue: There is no queue.
        StoreLocked: A process has it open; the message names it.
        StoreCorrupt: It is damaged, and stays as it is.
        StoreFull: There is no room for the copy.
        StoreUnavailable: It cannot be read or written.
    """
    directory = _directory(path)
    _check_progress(progress)
    with _needing_lmdb(directory):
        from jobq.repo.lmdb.upkeep.compact import compact
    return compact(Path(directory), progress)


def doctor(path: str | PathLike[str], *, deep: bool = False) -> Diagnosis:
    """Say what is wrong with the queue in a directory, what can be saved, and what to do.

    Changes nothing, and may be called while the queue is in use. Damage is reported, not raised,
    and cannot end this process: what might is done in another one.

    Args:
        path: The directory.
        deep: Read every page, every record, and compare every job with every index and count.

    Raises:
        InvalidValue: There is no queue.
        StoreUnavailable: It cannot even be looked at.
    """
    flag("deep", deep)
    directory = _directory(path)
    with _needing_lmdb(directory):
        from jobq.repo.lmdb.upkeep.doctor import diagnose
    return diagnose(Path(directory), deep=deep)


@contextlib.contextmanager
def salvage(path: str | PathLike[str]) -> Iterator[tuple[Salvaged, Iterator[dict[str, Any]]]]:
    """What can still be read out of a damaged queue: how much, and the jobs for `import_jobs`.

    Nobody else may have the queue open, or can open it as long as this goes on. Nothing is changed.

    Raises:
        InvalidValue: There is no queue.
        StoreLocked: A process has it open; the message names it.
        StoreCorrupt: Nothing at all can be read, or it is of another format.
        StoreUnavailable: It cannot be read.
    """
    directory = _directory(path)
    with _needing_lmdb(directory):
        from jobq.repo.lmdb.upkeep.salvage import open_salvage
    with open_salvage(Path(directory)) as found:
        yield found.survey(), export_jobs(found)


def _directory(path: str | PathLike[str]) -> str:
    """The path of a directory of a queue, as far as that can be said without a look."""
    name = check_path("path", path)
    if name == MEMORY or "://" in name:
        raise InvalidValue(f"path is {shown(name)}: expected the directory of a queue")
    return name


def _check_progress(progress: object) -> None:
    if progress is not None and not callable(progress):
        raise InvalidValue(f"progress is {shown(progress)}: expected a function")


@contextlib.contextmanager
def _needing_lmdb(name: str) -> Iterator[None]:
    """What cannot be imported inside cannot be had on this machine."""
    if why := _lacking():
        raise _cannot_open(name, why)
    try:
        yield
    except ImportError as error:
        raise _cannot_open(name, error) from error


def _lacking() -> str:
    """Why this machine can hold no queue in a directory; empty if it can.

    What is missing elsewhere would not always be missed: a queue might be made there, and the locks
    in its files be of another kind than those of the next process.
    """
    kernel = sys.platform
    if kernel != "linux":
        return f"this is {kernel}"
    if "CS_GNU_LIBC_VERSION" not in os.confstr_names:
        return "this Python is not built for glibc"
    if sys.implementation.name != "cpython":
        return f"this is {sys.implementation.name}"
    return ""


def _cannot_open(name: str, why: object) -> StoreUnavailable:
    return StoreUnavailable(
        f"cannot open {name!r}: {why}; a queue in a directory needs CPython on Linux with glibc, "
        f"{MEMORY!r} works everywhere"
    )


def _store(
    path: str | PathLike[str], topics: str | None, retention: Retention, settings: dict[str, Any]
) -> Store:
    name = check_path("path", path, f"a directory, or {MEMORY!r}")
    if name == MEMORY:
        if topics == IN_FILE:
            raise InvalidValue(
                f"topics is {IN_FILE!r}, but the jobs of {MEMORY!r} are volatile: their topics "
                "cannot outlive them"
            )
        from jobq.repo.memory import MemoryStore

        return MemoryStore(retention=retention)
    if "://" in name:
        raise InvalidValue(
            f"path is {shown(name)}: this jobq opens directories and {MEMORY!r} only"
        )
    with _needing_lmdb(name):
        adapter = _adapter(topics)
    return adapter(name, retention=retention, **settings)


def _adapter(topics: str | None) -> Callable[..., Store]:
    if topics == IN_MEMORY:
        from jobq.repo.mixed import MixedStore

        return MixedStore
    from jobq.repo.lmdb import LmdbStore

    return LmdbStore
