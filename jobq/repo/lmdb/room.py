"""Room: when new jobs are refused, so that the old ones can always be worked off.

Working off a queue writes: LMDB copies each page that it changes before it frees the old one, so
on a map or a disk that is full to the last page not even deleting works (of 100 queues filled to
the brim none could be drained; with 8 pages more all could). So new jobs are refused while
there is still room for the rest:

- In the map: live pages are counted (`stat` of each database, no scan) against the limit, and 64
  pages are left to draining.
- On the disk: a file of 1 MiB, the ballast, stands in the directory. When a write of draining
  hits the end of the disk, the ballast is given up and its blocks go to the data file. Until there
  is room for a new ballast, new jobs have to fit into what the data file has already.
- What is worked off is kept for its retention, and takes more room than before. When only three
  times the 64 pages are left of such a file, finished jobs are forgotten before their time, the
  oldest first, and what falls due moves in small steps. Without that, of 20 000 jobs of 50 bytes
  on a full disk 7 000 could be done, and then nothing could be written, not even to forget them.
"""

import contextlib
import errno
import logging
import mmap
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import lmdb

from jobq.errors import StoreFull
from jobq.repo.lmdb.access import Databases
from jobq.repo.lmdb.beside import DATA, open_beside
from jobq.repo.lmdb.faults import of_system

DRAIN_PAGES: Final = 64
BALLAST: Final = 1024 * 1024
SHORT_PAGES: Final = 3 * DRAIN_PAGES
"""With fewer pages than these beside its jobs, a file on a full disk is short of room. Those that
the last two commits have freed cannot be taken yet; with 128, canceling a single job failed."""
SURE_PAGES: Final = 1024
"""So many pages at most are taken as there without another look."""

ALMOST_NOTHING: Final = 128 * 1024
"""Free bytes of a disk below which an I/O error of a write is taken for a full disk: a write that
ends in the middle of a page is reported as EIO."""


_log = logging.getLogger("jobq")


class Room:
    """The limits of one queue directory.

    Args:
        limit: The most bytes that the data file may grow to; jobq's own quota.
    """

    def __init__(self, directory: Path, limit: int) -> None:
        self._directory = directory
        self._ballast = directory / "ballast"
        self._limit = limit
        self._sure = 0
        self._warned = self._failed = self._lacks_blocks = False

    def refuse_if_full(
        self, env: lmdb.Environment, txn: lmdb.Transaction, db: Databases, size: int, *, alone: bool
    ) -> None:
        """Raise if *size* bytes of new jobs would take the room that draining needs.

        If *alone*, nobody but this process has written since it was last asked: room that was sure
        to be there then need not be looked for again.

        Raises:
            StoreFull: So it is.
            lmdb.MapFullError: There is room below the limit, once the map has grown.
        """
        need = 16 + 2 * size // mmap.PAGESIZE
        if alone and self._sure > need:
            self._sure -= need
            return
        self._sure = 0
        info = env.info()
        page = int(env.stat()["psize"])
        # What a job takes beside its bytes: half-filled pages, index entries, copies of inner
        # pages; measured at up to 1.6 times for payloads of 200 bytes.
        need = 16 + 2 * size // page
        end = int(info["last_pgno"]) + 1
        held = self._hold_ballast()
        if held and end + need <= self._limit // page - DRAIN_PAGES:
            map_pages = int(info["map_size"]) // page
            if end + need > map_pages - DRAIN_PAGES:
                self._refuse_map(txn, db, need, map_pages)
            else:
                most = min(self._limit // page, map_pages) - DRAIN_PAGES
                self._sure = min(SURE_PAGES, most - end - need)
            return
        most = self._limit
        if not held:
            # Nothing more is to be had from the disk: only what the file has already.
            most = min(most, self._bytes_of_file())
        live = _live_pages(txn, db)
        if live + need > most // page - DRAIN_PAGES:
            what = f"its limit is {self._limit} bytes" if held else "the disk is full"
            raise StoreFull(
                f"the queue {self._directory} has {live * page} bytes of jobs and {what}: no room "
                f"for {size} more; work some off, or purge finished ones, first"
            )

    @staticmethod
    def _refuse_map(txn: lmdb.Transaction, db: Databases, need: int, map_pages: int) -> None:
        if _live_pages(txn, db) + need > map_pages - DRAIN_PAGES:
            raise lmdb.MapFullError("the map has to grow first")

    def is_short(self, env: lmdb.Environment, txn: lmdb.Transaction, db: Databases) -> bool:
        """Whether draining itself is about to run out of room: then it has to make some."""
        if self._hold_ballast():
            self._warned = self._failed = False
            return False
        if not self._lacks_blocks:
            return False
        pages = self._bytes_of_file() // int(env.stat()["psize"])
        short = self._failed or _live_pages(txn, db) > pages - SHORT_PAGES
        if short and not self._warned:  # once, until there is room again
            self._warned = True
            _log.warning(
                "%s: the disk is full, so finished jobs are forgotten before their time: else the "
                "others could not be worked off",
                self._directory,
            )
        return short

    def give_up_ballast(self) -> None:
        """Turn the ballast into room for the data file, as far as that is possible."""
        self._sure = 0
        try:
            self._ballast.unlink()
        except OSError:
            self._failed = True  # without it, too
        with contextlib.suppress(OSError):
            # At once, before anybody else takes the blocks. LMDB does not mind a longer file.
            fd = os.open(self._directory / DATA, os.O_RDWR | os.O_CLOEXEC)
            try:
                size = os.fstat(fd).st_size
                # First what it has no blocks for: LMDB never writes pages that one transaction
                # takes and frees again, and would meet the end of the disk when it takes them anew.
                os.posix_fallocate(fd, 0, size)
                for part in (4, 3, 2, 1):  # the rest is for the other files
                    with contextlib.suppress(OSError):
                        os.posix_fallocate(fd, size, BALLAST * part // 5)
                        break
            finally:
                os.close(fd)

    @contextlib.contextmanager
    def set_aside(self) -> Iterator[bool]:
        """Keep from what is written meanwhile so much of the disk as draining needs afterwards.

        Gives whether there is so much.
        """
        with contextlib.ExitStack() as stack:
            try:
                file = stack.enter_context(tempfile.TemporaryFile(dir=self._directory))
                os.posix_fallocate(file.fileno(), 0, DRAIN_PAGES * mmap.PAGESIZE)
            except OSError:
                yield False
            else:
                yield True

    def is_full_disk(self, error: Exception) -> bool:
        """Whether that is what a write has met, which LMDB may also call an I/O error."""
        if isinstance(error, lmdb.DiskError):
            return True
        if isinstance(error, OSError):
            return isinstance(of_system(error, self._directory), StoreFull)
        return getattr(error, "code", None) == errno.EIO and self._free_bytes() < ALMOST_NOTHING

    def full(self, error: Exception) -> StoreFull:
        """What is said then to who adds jobs."""
        full = StoreFull(
            f"{self._directory}: no room for more jobs ({error}); work some off, or purge finished "
            "ones, first"
        )
        full.__cause__ = error
        return full

    def _free_bytes(self) -> int:
        """What is left of the disk; very much if that cannot be told."""
        try:
            disk = os.statvfs(self._directory)
        except OSError:
            return sys.maxsize
        return disk.f_bavail * disk.f_frsize

    def _bytes_of_file(self) -> int:
        """So much of the disk the data file has, without its holes."""
        file = os.stat(self._directory / DATA)
        return min(file.st_size, file.st_blocks * 512)

    def _hold_ballast(self) -> bool:
        """Whether the ballast is there; made if it is not, and there is room for it."""
        with contextlib.suppress(FileNotFoundError):
            if os.stat(self._ballast).st_size == BALLAST:
                return True
        fd = None
        try:
            fd = open_beside(self._ballast, self._directory)
            os.posix_fallocate(fd, 0, BALLAST)
        except OSError as error:
            with contextlib.suppress(OSError):
                self._ballast.unlink()
            self._lacks_blocks = self._is_for_want_of_blocks(error)
            return False
        finally:
            if fd is not None:
                os.close(fd)
        return True

    def _is_for_want_of_blocks(self, error: OSError) -> bool:
        """Whether the ballast could not be made because the disk is full indeed, or a user's share.

        What fails only for a moment, or for want of names, must cost no finished job.
        """
        if error.errno == errno.EDQUOT:
            return True
        return error.errno == errno.ENOSPC and self._free_bytes() < BALLAST


def _live_pages(txn: lmdb.Transaction, db: Databases) -> int:
    """The pages in use, without those of the list of free ones."""
    live = 2  # the meta pages
    for handle in db:
        stat = txn.stat(handle)
        live += stat["branch_pages"] + stat["leaf_pages"] + stat["overflow_pages"]
    return live
