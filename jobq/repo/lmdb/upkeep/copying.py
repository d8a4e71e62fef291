"""A copy of a data file: made while others write, verified, and there as a whole or not at all.

LMDB copies in a read transaction, so what is copied is one state of the queue, and leaves free
pages out. As long as it copies, the pages that writers free cannot be used again: the file of a
busy queue grows by what is written meanwhile.
"""

import contextlib
import errno
import fcntl
import os
import secrets
import struct
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import lmdb
from lmdb import verify as lmdb_verify

from jobq.errors import InvalidValue, StoreCorrupt
from jobq.repo.lmdb import files, steps
from jobq.repo.lmdb.access import META_KEY, Databases
from jobq.repo.lmdb.faults import translating
from jobq.repo.lmdb.records import STATUSES, decode_meta
from jobq.repo.lmdb.upkeep import records
from jobq.repo.lmdb.upkeep.child import Tell

TELL_S: Final = 0.1
"""Seconds between two words on how far the copy is."""

_NO_TMPFILE: Final = frozenset(
    {errno.EOPNOTSUPP, errno.EISDIR, errno.EINVAL, errno.ENOENT, errno.ENOSYS}
)
_NO_LINKS: Final = frozenset({errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK})
_PART: Final = ".part-"


class NewFile:
    """A file that appears under its name once it is whole; until then there is none.

    Where the file system can, it has no name at all before that, so whoever dies leaves nothing.
    Elsewhere it has a hidden one, under which the next who makes this file removes it.

    Raises:
        InvalidValue: There is something under its name already, or no directory to put it in.
        OSError: It cannot be made.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._part: Path | None = None
        if os.path.lexists(path):
            raise _is_there(path)
        try:
            self._directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except (FileNotFoundError, NotADirectoryError) as error:
            raise InvalidValue(f"there is no directory {path.parent} for {path.name}") from error
        try:
            self.fd = self._make()
        except BaseException:
            os.close(self._directory)
            raise

    def _make(self) -> int:
        try:
            return os.open(self.path.parent, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600)
        except OSError as error:
            if error.errno not in _NO_TMPFILE:
                raise
        _remove_abandoned(self.path)
        self._part = self.path.with_name(f".{self.path.name}{_PART}{secrets.token_hex(4)}")
        fd = os.open(self._part, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)  # as long as we live it is not abandoned
        return fd

    @property
    def readable(self) -> Path:
        """Where it can be opened meanwhile, in this process."""
        return self._part or Path(f"/proc/self/fd/{self.fd}")

    def appear(self) -> None:
        """Put it on the disk, give it its name, and put that and those above it on the disk.

        Raises:
            InvalidValue: There is something under its name by now.
            OSError: It cannot be written.
        """
        os.fsync(self.fd)
        steps.reached("copy synced")
        try:
            self._link()
        except FileExistsError as error:
            raise _is_there(self.path) from error
        steps.reached("copy named")
        try:
            os.fsync(self._directory)
            files.sync_above(self.path.parent)
        except OSError:
            # Whole, but nobody knows for how long: who is told of an error expects no file.
            with contextlib.suppress(OSError):
                os.unlink(self.path.name, dir_fd=self._directory)
            raise
        steps.reached("copy's directory synced")

    def _link(self) -> None:
        name = self.path.name
        if self._part is None:
            # With a directory given, Python follows the link that /proc has: linkat(2).
            source = f"/proc/self/fd/{self.fd}"
            os.link(source, name, dst_dir_fd=self._directory, follow_symlinks=True)
            return
        try:
            os.link(self._part, self.path)
        except OSError as error:
            if error.errno not in _NO_LINKS:
                raise
            if os.path.lexists(self.path):
                raise _is_there(self.path) from error
            os.rename(self._part, self.path)  # nothing else works there: two at once may collide

    def close(self) -> None:
        """Forget it, unless it has appeared."""
        os.close(self.fd)
        os.close(self._directory)
        if self._part is not None:
            self._part.unlink(missing_ok=True)


def _is_there(path: Path) -> InvalidValue:
    return InvalidValue(f"{path} is there already: give another name")


def _remove_abandoned(path: Path) -> None:
    """Remove what others have left that died while they made this file."""
    for left in path.parent.glob(f".{path.name}{_PART}*"):
        with contextlib.suppress(OSError):
            fd = os.open(left, os.O_RDONLY | os.O_CLOEXEC)
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                left.unlink()
            finally:
                os.close(fd)


# Tasks for a child.


def copy(request: dict[str, Any], tell: Tell) -> dict[str, Any]:
    """Copy the data file of the directory `source` to the new file `target`, and verify that.

    Raises:
        InvalidValue: There is something at the target already.
        StoreCorrupt: The file, or the copy, is damaged; there is no copy then.
        StoreFull: No room for it; there is none then.
        StoreUnavailable: It cannot be read or written.
    """
    source, target = Path(request["source"]), Path(request["target"])
    with translating(target):
        new = NewFile(target)
    try:
        steps.reached("copy begun")
        with translating(source):
            env = records.open_to_read(source, file=False, lock=True)
        try:
            total = _copy_into(env, new, source, tell)
        finally:
            env.close()  # and its slot: from here on no page is kept from the writers
        steps.reached("copied")
        jobs = verify_file(new.readable, target, tell, in_words=f"the copy of {source}")
        with translating(target):
            new.appear()
        return {"jobs": jobs, "bytes": os.fstat(new.fd).st_size, "total": total}
    finally:
        new.close()


def _copy_into(env: lmdb.Environment, new: NewFile, source: Path, tell: Tell) -> int:
    with translating(source):
        txn = env.begin()
    try:
        with translating(source):
            total = _live_bytes(env, txn, records.databases(env, txn, source))
        with translating(new.path), _telling(new.fd, total, tell):
            try:
                env.copyfd(new.fd, compact=True, txn=txn)
            except lmdb.IncompatibleError as error:
                raise StoreCorrupt(
                    f"{source}: the tree of pages is damaged ({error}); `jobq doctor --deep` "
                    "says more"
                ) from error
    finally:
        txn.abort()
    return total


def verify(request: dict[str, Any], tell: Tell) -> int:
    """How many jobs the data file at `path` has, which is called `words` where it is damaged.

    Raises:
        StoreCorrupt: It is damaged, or of another format.
        StoreUnavailable: It cannot be read.
    """
    path = Path(request["path"])
    return verify_file(path, path, tell, in_words=request["words"])


def verify_file(readable: Path, path: Path, tell: Tell, *, in_words: str) -> int:
    """Read all pages and all records of a data file that nobody writes; gives how many jobs.

    Raises:
        StoreCorrupt: It is damaged, or of another format.
        StoreUnavailable: It cannot be read.
    """
    with translating(path):
        tell(["pages", 0, os.stat(readable).st_size])
        problems = structure(readable)
        if problems:
            raise StoreCorrupt(f"{in_words} is damaged: {'; '.join(problems[:3])}")
        env = records.open_to_read(readable, file=True, lock=False)
        try:
            txn = env.begin()
            try:
                db = records.databases(env, txn, path)
                total = records.entries_of(txn, db)
                problems = records.verify(txn, db, lambda seen: tell(["records", seen, total]))
                if problems:
                    raise StoreCorrupt(f"{in_words} is damaged: {'; '.join(problems[:3])}")
                data = txn.get(META_KEY, db=db.meta)
                assert data is not None
                jobs = sum(decode_meta(META_KEY, bytes(data)).totals[: len(STATUSES)])
            finally:
                txn.abort()
        finally:
            env.close()
    steps.reached("copy verified")
    return jobs


def structure(path: Path) -> list[str]:
    """What is wrong with the pages of a data file, whatever stands in them.

    Without the engine, so it cannot die of it.

    Raises:
        OSError: It cannot be read.
    """
    try:
        found = lmdb_verify.verify(str(path), subdir=False)  # type: ignore[no-untyped-call]
    except lmdb_verify.VerifyError as error:
        return [str(error)]
    except (ValueError, IndexError, struct.error) as error:
        return [f"the verifier of LMDB cannot read it: {error}"]
    return [str(problem) for problem in found]


def _live_bytes(env: lmdb.Environment, txn: lmdb.Transaction, db: Databases) -> int:
    """The size that a copy without free pages will have."""
    main = env.stat()
    pages = 2 + main["branch_pages"] + main["leaf_pages"] + main["overflow_pages"]
    for handle in db:
        stat = txn.stat(handle)
        pages += stat["branch_pages"] + stat["leaf_pages"] + stat["overflow_pages"]
    return int(pages) * int(main["psize"])


@contextlib.contextmanager
def _telling(fd: int, total: int, tell: Tell) -> Iterator[None]:
    """Say how far the copy is, as long as it goes on: LMDB does not."""
    over = threading.Event()

    def watch() -> None:
        while not over.wait(TELL_S):
            tell(["copy", os.fstat(fd).st_size, total])

    tell(["copy", 0, total])
    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
