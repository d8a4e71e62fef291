"""The directory of a queue: what may be one, how one is made, and what is looked at before opening.

A directory holds `data.mdb` and `lock.mdb` (LMDB's), `turn.lock` and `write.lock` (`filelock`),
`bell` (`bell`), `ballast` (`room`) and `holders/` (`holders`).
"""

import contextlib
import errno
import logging
import os
import secrets
import shutil
import stat
import struct
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Final, NamedTuple

from lmdb import verify as lmdb_verify

from jobq.errors import InvalidValue, StoreCorrupt
from jobq.repo.lmdb import beside, steps
from jobq.repo.lmdb.beside import open_beside
from jobq.repo.lmdb.filelock import FileLock
from jobq.repo.lmdb.openlock import MakingLock

DATA: Final = beside.DATA
LOCK: Final = "lock.mdb"
LOCK_SIZE: Final = 8192
"""What LMDB makes of 126 readers, which is what it asks for by default."""

NETWORK: Final = frozenset(
    {"nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "afs", "ceph", "lustre", "gpfs", "ncpfs",
     "ocfs2", "gfs2", "beegfs", "orangefs", "coda"}
)  # fmt: skip
LONGEST_WAIT_S: Final = 30.0
_OURS: Final = frozenset(
    {DATA, LOCK, "turn.lock", "write.lock", "bell", "ballast", "holders", "lost+found"}
)
_NEW: Final = ".new-"

_log = logging.getLogger("jobq")


class Identity(NamedTuple):
    """Which files these are, whatever their path says by now."""

    data: tuple[int, int]
    lock: tuple[int, int]


def prepare(
    path: Path,
    *,
    create: bool,
    build: Callable[[Path], None],
    fuse: bool,
    patience: float = LONGEST_WAIT_S,
) -> None:
    """Make sure that a queue can be opened at *path*; make a new one if there is none.

    *build* makes the data file of an empty queue in the directory it is given. That is a
    temporary one; when its files are on disk, the data file is moved into place in one step. So
    a power cut leaves either no queue or a whole one (a half-made LMDB file can never be opened).
    Who else makes it, or puts another file in its place, is waited for for *patience* seconds.

    Raises:
        InvalidValue: The path is a file, or a directory with something else in it, or on a
            network file system; or the data file has another name beside this one.
        StoreCorrupt: The data file is damaged.
        StoreBusy, StoreLocked: Somebody else has the directory alone.
        OSError: No permission, read-only, a full disk, or another error of the file system.
    """
    if path.exists() and not path.is_dir():
        raise InvalidValue(f"{path} is a file: expected the directory of a queue")
    if not create and not (path / DATA).exists():
        raise InvalidValue(f"{path} holds no queue")
    _refuse_network(path, fuse=fuse)
    if not path.exists():
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        steps.reached("directory made")
    with MakingLock(path, path / DATA, patience):  # of several makers, one makes it
        # Of a maker that was killed; we have the lock.
        left = [path / name for name in os.listdir(path) if name.startswith(_NEW)]
        if left and (path / DATA).exists():
            _sync_names(path)  # it may have come no further than to the moving
        for directory_left in left:
            shutil.rmtree(directory_left, ignore_errors=True)
        if not (path / DATA).exists():
            _refuse_strangers(path)
            _make(path, build)
    refuse_links(path, os.stat(path / DATA))
    _look_at(path)


def lock_is_whole(path: Path) -> bool:
    """Whether LMDB's lock file is there, with blocks for all of it."""
    try:
        return os.stat(path / LOCK).st_blocks * 512 >= LOCK_SIZE
    except FileNotFoundError:
        return False


def identity(directory: Path) -> Identity:
    """Which files stand there now.

    Raises:
        OSError: One of them is gone.
    """
    data, lock = os.stat(f"{directory}/{DATA}"), os.stat(f"{directory}/{LOCK}")
    return Identity((data.st_dev, data.st_ino), (lock.st_dev, lock.st_ino))


def workshop(path: Path) -> Path:
    """A new directory inside of a queue's, to make a data file in.

    The lock on the queue's directory is to be held; whoever has that next clears it away if it is
    still there.
    """
    fresh = path / f"{_NEW}{secrets.token_hex(4)}"
    fresh.mkdir(mode=0o700)
    return fresh


def _make(path: Path, build: Callable[[Path], None]) -> None:
    fresh = workshop(path)
    moved = False
    try:
        reserve_lock(fresh / LOCK)
        build(fresh)
        steps.reached("data file built")
        for name in (DATA, LOCK):
            sync_file(fresh / name)
        steps.reached("data file synced")
        os.rename(fresh / DATA, path / DATA)
        moved = True
        steps.reached("data file moved")
        _sync_names(path)
        moved = False
    finally:
        if not moved:  # else whoever comes next sees by it that the names were not synced
            shutil.rmtree(fresh, ignore_errors=True)


def _refuse_strangers(path: Path) -> None:
    there = sorted(name for name in os.listdir(path) if name not in _OURS)
    strangers = [name for name in there if not name.startswith(_NEW)]
    if strangers:
        shown = ", ".join(strangers[:3]) + (", …" if len(strangers) > 3 else "")
        raise InvalidValue(
            f"{path} is not a queue and not empty (it has {shown}): "
            "expected a queue, an empty directory, or a path that does not exist"
        )


def refuse_links(path: Path, data: os.stat_result) -> None:
    """Refuse a queue whose data file has more names than one, or is a link to one elsewhere.

    Either is the same file beside another lock file, other write locks and another bell: of
    two processes that come by different names, either would overwrite what the other has written.

    Raises:
        InvalidValue: So it is.
    """
    if os.path.islink(path / DATA):
        raise InvalidValue(
            f"{path / DATA} is a link to {os.path.realpath(path / DATA)}: expected the file "
            "itself, since its locks stand beside it; open that directory, or link to all of it"
        )
    if stat.S_ISREG(data.st_mode) and data.st_nlink > 1:
        raise InvalidValue(
            f"{path / DATA} has {data.st_nlink} names (hard links): expected one, since its locks "
            "stand beside it; remove the others, or put a copy in its place"
        )


def reserve_lock(path: Path) -> None:
    """Give the lock file its blocks: LMDB maps it, and on a full disk a hole in it is SIGBUS.

    Raises:
        OSError: There is no room for them.
    """
    # Safe although LMDB's locks on it are POSIX locks: this process does not have it open yet
    # (the registry of environments sees to that), so closing our descriptor drops none of ours.
    fd = open_beside(path, path.parent)
    try:
        os.posix_fallocate(fd, 0, LOCK_SIZE)
    finally:
        os.close(fd)


# Looking before mapping: what is past the end of a mapped file is SIGBUS, not an exception.

_META_AT: Final = 16  # after the page header
_PAGE_SIZE_AT: Final = _META_AT + 24
_LAST_PAGE_AT: Final = _META_AT + 120
_META_END: Final = _META_AT + 136
_MAGIC: Final = 0xBEEFC0DE
_LMDB_FORMAT: Final = 1
_PAGE_SIZES: Final = tuple(2**power for power in range(8, 17))
"""What LMDB makes of it is the page size of the machine, 32 KiB at most; smaller ones it reads."""


def _look_at(path: Path) -> None:
    """Refuse a data file that is not LMDB's, or shorter than its meta pages say.

    Others may be writing: what looks wrong is looked at again as long as it changes.
    """
    data = path / DATA
    seen = None
    while True:
        metas, size = _read_metas(data)
        if not metas:
            raise StoreCorrupt(f"{data} is not the data file of a queue, or its head is destroyed")
        if wrong := contradiction([meta.told for meta in metas]):
            if seen == metas:
                raise StoreCorrupt(
                    f"{data}: its head is damaged ({wrong}), so the last commit may be missing; "
                    "restore it from a backup, or see what `jobq doctor` says"
                )
            seen = metas
            continue
        newest = max(metas)
        needed = (newest.told.last_page + 1) * newest.page_size
        if size >= needed:
            return
        # Free pages at the end may be missing in a sound file; LMDB's own verifier can tell.
        try:
            problems = lmdb_verify.verify(str(data), subdir=False)  # type: ignore[no-untyped-call]
        except (lmdb_verify.VerifyError, OSError, struct.error, ValueError) as error:
            problems = [str(error)]
        if not problems:
            # It does not look into large payloads, which would still be SIGBUS. With zeros there,
            # the checksum of the payload says it.
            _lengthen(path, size, needed)
            return
        if seen == metas:
            raise StoreCorrupt(
                f"{data} is cut short: {size} bytes of at least {needed} ({problems[0]}); "
                "restore it from a backup"
            )
        seen = metas


def refuse_too_large_claim(path: Path) -> None:
    """Refuse a data file whose head counts more pages than there are, or is destroyed.

    A sound one may count free pages at its end that are not there: this is only for finding out
    why something went wrong.

    Raises:
        StoreCorrupt: So it is.
    """
    metas, size = _read_metas(path / DATA)
    if not metas or any((meta.told.last_page + 1) * meta.page_size > size for meta in metas):
        raise StoreCorrupt(
            f"{path / DATA} is shorter than its head says, or that is destroyed; restore it from "
            "a backup"
        )


def contradiction(metas: Sequence["Told"]) -> str:
    """Why what both meta pages say, in their order, cannot be of one sound file; empty if it can.

    LMDB writes that of a transaction to the page of its parity, over that of the one before the
    last, and never counts fewer pages than before. It trusts the larger transaction: with a wrong
    bit there it would go on from an older state.

    >>> contradiction([Told(8, 20), Told(7, 20)])
    ''
    >>> contradiction([Told(8, 20), Told(5, 20)])
    'the meta pages are of the transactions 8 and 5'
    """
    even, odd = metas
    old, new = sorted(metas)
    if new.txn and (new.txn - old.txn != 1 or even.txn % 2):
        return f"the meta pages are of the transactions {even.txn} and {odd.txn}"
    if new.last_page < old.last_page:
        return f"the newer meta page counts {new.last_page + 1} pages, the older one more"
    return ""


def _read_metas(data: Path) -> tuple[list["_Meta"], int]:
    """What both meta pages say, and the size of the file after they were read.

    In this order: LMDB writes pages before the meta page that counts them. The second meta page
    comes after the first, wherever the machine that made the file ends its pages; without either
    LMDB opens nothing.
    """
    with open(data, "rb") as file:
        first = _read_meta(file.read(_META_END))
        if first is not None:
            file.seek(first.page_size)
        second = _read_meta(file.read(_META_END))
        size = os.fstat(file.fileno()).st_size
    if first is None or second is None or first.page_size != second.page_size:
        return [], size
    return [first, second], size


def _lengthen(path: Path, size: int, needed: int) -> None:
    fd = os.open(path / DATA, os.O_RDWR | os.O_CLOEXEC)
    try:
        os.posix_fallocate(fd, size, needed - size)  # unlike truncating, it can never shorten
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        # A full disk, on which the queue is to be worked off: a hole reads as zeros, too.
        with _alone(path):
            if os.fstat(fd).st_size < needed:
                os.ftruncate(fd, needed)
    finally:
        os.close(fd)


@contextlib.contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Under the write lock: nobody else makes the file longer meanwhile."""
    lock = FileLock(path)
    try:
        lock.acquire(LONGEST_WAIT_S)
        yield
    finally:
        lock.release()
        lock.close()


class Told(NamedTuple):
    """What a meta page says of its transaction, and of the number of the file's last page then."""

    txn: int
    last_page: int


class _Meta(NamedTuple):
    told: Told
    page_size: int


def _read_meta(page: bytes) -> _Meta | None:
    """What a meta page says; None if it is none."""
    if len(page) < _META_END:
        return None
    magic, version = struct.unpack_from("=II", page, _META_AT)
    if magic != _MAGIC or version != _LMDB_FORMAT:
        return None
    (page_size,) = struct.unpack_from("=I", page, _PAGE_SIZE_AT)
    last_page, txn = struct.unpack_from("=QQ", page, _LAST_PAGE_AT)
    return _Meta(Told(txn, last_page), page_size) if page_size in _PAGE_SIZES else None


# Where the directory is.


class Mount(NamedTuple):
    """A line of /proc/self/mountinfo, as far as it matters here."""

    point: str
    kind: str


_ESCAPED: Final = (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\"))
"""What stands for some characters in the names of mounts."""


def mounts(text: str) -> list[Mount]:
    r"""The mounts in the text of a mountinfo file.

    >>> mounts("36 35 98:0 / /mnt\\040x rw,noatime master:1 - ext3 /dev/root rw")
    [Mount(point='/mnt x', kind='ext3')]
    """
    found = []
    for line in text.splitlines():
        left, separator, right = line.partition(" - ")
        fields = left.split()
        if separator and len(fields) > 4 and right.split():
            point = fields[4]
            if "\\" in point:  # hardly ever; and there may be hundreds of mounts
                for code, char in _ESCAPED:
                    point = point.replace(code, char)
            found.append(Mount(point, right.split()[0]))
    return found


def kind_of(path: str, all_mounts: list[Mount]) -> str:
    """The kind of file system that an absolute path without links is on.

    >>> kind_of("/data/q", [Mount("/", "ext4"), Mount("/data", "nfs4"), Mount("/dat", "tmpfs")])
    'nfs4'
    """
    best = Mount("", "")
    for mount in all_mounts:
        inside = path == mount.point or path.startswith(mount.point.rstrip("/") + "/")
        if inside and len(mount.point) >= len(best.point):  # of equals the later covers the earlier
            best = mount
    return best.kind


def _refuse_network(path: Path, *, fuse: bool) -> None:
    try:
        text = Path("/proc/self/mountinfo").read_text(errors="replace")
    except OSError:
        return  # a system without it: nothing can be known
    where = os.path.realpath(path)
    all_mounts = mounts(text)
    kind = kind_of(where, all_mounts)
    places = {mount.point for mount in all_mounts}
    if apart := sorted(name for name in _OURS if os.path.join(where, name) in places):
        raise InvalidValue(
            f"{path / apart[0]} is mounted by itself: expected the whole directory to be, since "
            "those who come by another one would not meet its locks"
        )
    if kind in NETWORK or (kind.startswith("fuse") and kind != "fuseblk" and not fuse):
        raise InvalidValue(
            f"{path} is on a {kind} file system: expected a local one, since locks and memory "
            "maps of several processes do not work there"
        )
    if kind == "overlay" and not (path / DATA).exists():
        _log.warning(
            "the queue %s is made on overlayfs: it is gone with its container; use a volume", path
        )
    elif kind == "overlay" and in_image_layer(where, text):
        raise InvalidValue(
            f"{path} lies in an image layer of overlayfs, where writing replaces files: expected "
            "a directory on a volume"
        )


def in_image_layer(path: str, text: str) -> bool:
    """Whether the data file of the directory is only in a lower layer of an overlay.

    The first write would copy it, and whoever has it open goes on with the old one. Only the
    upper layer itself can tell, since the file shows the same inode before and after; where that
    cannot be seen (inside a container), nothing is known.
    """
    for line in reversed(text.splitlines()):
        left, separator, right = line.partition(" - overlay ")
        point = left.split()[4] if separator else ""
        if not separator or not (path + "/").startswith(point.rstrip("/") + "/"):
            continue
        options = dict(option.partition("=")[::2] for option in right.split()[-1].split(","))
        upper = options.get("upperdir", "")
        if not upper or not os.path.isdir(upper):
            return False
        return not os.path.exists(os.path.join(upper, os.path.relpath(path, point), DATA))
    return False


def sync_file(path: Path) -> None:
    """Put a file on the disk."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _sync_names(path: Path) -> None:
    """Have the data file's name last, and those of the directories above it."""
    path = path.absolute()
    sync_directory(path)
    sync_above(path)


def sync_above(path: Path) -> None:
    """Have the name of a directory last, and those of the directories above it.

    Which of them are new, nobody knows: who has made them may have been killed before it came to
    this, or never syncs. Those above the mount point stand on another file system, and were there
    before.
    """
    path = path.absolute()  # the parent of "." is "."
    while not os.path.ismount(path):
        path = path.parent
        try:
            sync_directory(path)
        except OSError as error:
            # Who may not read a directory has hardly made it.
            if error.errno not in (errno.EACCES, errno.EPERM):
                raise


def sync_directory(path: Path) -> None:
    """Put the names of a directory on the disk."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
