"""From a path to a service: the one module that names the adapters."""

import os
from collections.abc import Callable
from os import PathLike
from typing import Any, Final, Unpack

from jobq.clock import to_us
from jobq.errors import InvalidValue, StoreUnavailable, shown
from jobq.options import JobOptions, OptionArgs, integer, seconds
from jobq.repo.base import Retention, Store
from jobq.service import JobService

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
    **options: Unpack[OptionArgs],
) -> JobService:
    """A service over the queue in a directory, or over a volatile one.

    Args:
        path: A directory, made if there is none; or `:memory:` for jobs that live and die with
            the returned service.
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
        max_size: The most bytes that the data file may grow to; 64 GiB by default.
        **options: Defaults for the jobs that this service enqueues; see `JobOptions`.

    Raises:
        InvalidValue: An argument is wrong, or the path cannot hold a queue: a file, a directory
            with something else in it, a network file system, a queue that hard links share.
        StoreUnavailable: The path cannot be read or written.
        StoreCorrupt: What is there is damaged, or of another format.
        StoreFull: There is no room for a new queue.
        StoreLocked: Another process has the queue open with its topics in memory; or has it open
            at all, and *topics* is `memory`.
    """
    JobOptions.of(options)  # before anything is made
    if durability not in DURABILITIES:
        known = ", ".join(DURABILITIES)
        raise InvalidValue(f"durability is {shown(durability)}: expected one of {known}")
    if topics is not None and (not isinstance(topics, str) or topics not in {IN_FILE, IN_MEMORY}):
        raise InvalidValue(f"topics is {shown(topics)}: expected {IN_FILE!r} or {IN_MEMORY!r}")
    if not isinstance(create, bool):
        raise InvalidValue(f"create is {shown(create)}: expected True or False")
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
        return JobService(store, **options)
    except BaseException:
        store.close()
        raise


def _store(
    path: str | PathLike[str], topics: str | None, retention: Retention, settings: dict[str, Any]
) -> Store:
    if not isinstance(path, str | PathLike):
        raise InvalidValue(f"path is {shown(path)}: expected a directory, or {MEMORY!r}")
    name = os.fspath(path)
    if not isinstance(name, str) or not name or "\0" in name:
        raise InvalidValue(f"path is {shown(name)}: expected a directory, or {MEMORY!r}")
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
    try:
        adapter = _adapter(topics)
    except ImportError as error:
        raise StoreUnavailable(
            f"cannot open {name!r}: {error}; a queue in a directory needs Linux with glibc, "
            f"{MEMORY!r} works everywhere"
        ) from error
    return adapter(name, retention=retention, **settings)


def _adapter(topics: str | None) -> Callable[..., Store]:
    if topics == IN_MEMORY:
        from jobq.repo.mixed import MixedStore

        return MixedStore
    from jobq.repo.lmdb import LmdbStore

    return LmdbStore
