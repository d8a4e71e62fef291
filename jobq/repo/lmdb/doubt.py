"""What a failed commit leaves in doubt, and how the doubt is ended.

What can be read comes from the page cache. A write or a sync that failed may leave there what the
disk does not have, and on the disk what can no longer be read; and the kernel reports it once: it
drops what it could not write, takes the pages for clean, and the next sync has nothing to do and
succeeds. So after an error neither reading nor syncing shows what the disk has.

With LMDB this concerns the two heads of the file (its meta pages). All other pages of a failed
transaction are pages that nothing leads to, unless its head does, and that was not written before
a sync of them had succeeded. But of the heads the disk may have

- the one of the failed transaction, although LMDB has put the old one back where it is read (the
  write was done, and only reported as failed). Then the next transaction would use the same pages
  again, under a head that leads to them: a power cut in the middle would leave a broken file;
- an older one than what is read, if LMDB could not put the old one back; or, with durability
  `relaxed`, of the transaction before, whose head was to be synced together with the pages of the
  failed one.

Writing both once more as they are read makes their pages dirty, so the next sync does write them;
and what it has synced is what is read.
"""

import errno
import os
from pathlib import Path
from typing import Final

HEAD: Final = 152
"""Bytes of a head: 16 of the page's and 136 of LMDB's. Within a sector, so never torn."""


def settle(data: Path, page_size: int) -> None:
    """Have the disk hold the heads of a data file that are read now. Under the write lock.

    Raises:
        OSError: They could not be written, or not synced; the doubt goes on.
    """
    fd = os.open(data, os.O_RDWR | os.O_CLOEXEC)
    try:
        for at in (0, page_size):
            head = os.pread(fd, HEAD, at)
            if os.pwrite(fd, head, at) != len(head):
                raise OSError(errno.EIO, "a head was written in part", str(data))
        os.fdatasync(fd)
    finally:
        os.close(fd)
