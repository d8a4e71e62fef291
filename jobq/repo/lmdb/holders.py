"""Who holds reservations: one locked file for each process, and how others see that it is dead.

A process that reserves creates a file under a temporary name, locks it with `flock`, and renames
it to its holder's name, which stands in each of its reservations. The kernel releases the lock
when the process ends, however it ends. So a holder whose file can be locked by somebody else, or
is not there, is dead, and what it held is ready again. A name is never used twice: it is made of a
mark of the boot, the process's pid, by which people know it when it is long dead, and chance.

Rules: a file is made, and removed, only under the write lock; removed only once the reservations
of its holder are gone. A fork's child closes its copy of the descriptor first thing, since the
lock lasts as long as any copy is open.
"""

import contextlib
import fcntl
import json
import os
import secrets
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Final
from zlib import crc32

from jobq.repo.lmdb import steps
from jobq.repo.lmdb.beside import make_directory, open_beside

MARK: Final = 2
"""The bytes of a holder's name that tell the boot, so that names do not come again. Nobody is dead
for being of another boot: containers that share a queue may be shown different ids of one (LXC,
systemd-nspawn), while nothing is locked any more after a reboot."""
PID: Final = 3
CHANCE: Final = 3
_NEW: Final = ".new"
MOST_NAMES: Final = 256


class Holders:
    """The holders of one queue directory, this process's own included."""

    def __init__(self, directory: Path, boot_id: bytes) -> None:
        self._directory = directory
        self._mark = crc32(boot_id).to_bytes(4, "big")[:MARK]
        self._mine: bytes | None = None
        self._fd: int | None = None
        self._names: dict[bytes, str] = {}

    @property
    def mine(self) -> bytes | None:
        """This process's holder, if it has one yet."""
        return self._mine

    def get(self) -> bytes:
        """This process's holder; made at the first call, which must be under the write lock.

        Raises:
            OSError: The file cannot be made.
        """
        if self._mine is None:
            make_directory(self._directory, self._directory.parent)
            path = self._unused()
            holder = bytes.fromhex(path.name)
            fresh = path.with_suffix(_NEW)
            fd = open_beside(fresh, self._directory.parent, os.O_EXCL)
            steps.reached("holder file made")
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                with contextlib.suppress(OSError):  # only for people; a full disk may refuse it
                    os.write(fd, json.dumps({"pid": os.getpid(), "program": sys.argv[:1]}).encode())
                steps.reached("holder file locked")
                fresh.rename(path)
                steps.reached("holder file renamed")
            except BaseException:
                os.close(fd)
                with contextlib.suppress(OSError):
                    fresh.unlink()
                raise
            self._mine, self._fd = holder, fd
        return self._mine

    def _unused(self) -> Path:
        pid = (os.getpid() % 256**PID).to_bytes(PID, "big")
        while True:
            path = self._directory / (self._mark + pid + secrets.token_bytes(CHANCE)).hex()
            if not path.exists():
                return path

    def dead(self, holders: Iterable[bytes]) -> set[bytes]:
        """Those of *holders* whose processes are dead."""
        return {holder for holder in holders if holder != self._mine and self._is_dead(holder)}

    def abandoned(self) -> set[bytes]:
        """The dead holders that still have a file.

        Raises:
            OSError: They cannot be looked at.
        """
        found = set()
        with contextlib.suppress(FileNotFoundError):
            for entry in os.listdir(self._directory):
                with contextlib.suppress(ValueError):
                    holder = bytes.fromhex(entry)
                    if holder != self._mine and self._is_dead(holder):
                        found.add(holder)
        return found

    def half_made(self) -> bool:
        """Whether there is a file that was not renamed yet: being made, or left by a death."""
        with contextlib.suppress(
            FileNotFoundError
        ):  # not by `glob`: every waiter looks each second
            return any(name.endswith(_NEW) for name in os.listdir(self._directory))
        return False

    def remove(self, holders: Iterable[bytes]) -> None:
        """Remove the files of dead holders that hold nothing; under the write lock.

        Also what a process left that died between making its file and renaming it: under the
        write lock nobody else is about to.
        """
        for holder in holders:
            (self._directory / holder.hex()).unlink(missing_ok=True)
        for fresh in self._directory.glob(f"*{_NEW}"):
            fresh.unlink(missing_ok=True)

    def name(self, holder: bytes) -> str:
        """What people call a holder: its pid, and its program as long as it is alive."""
        name = self._names.get(holder)
        if name is None:
            if len(self._names) >= MOST_NAMES:
                self._names.clear()
            name = self._names[holder] = self._read_name(holder)
        return name

    def _read_name(self, holder: bytes) -> str:
        try:
            facts = json.loads((self._directory / holder.hex()).read_bytes())
            program = " ".join(_short(word) for word in facts["program"])
            # A file may have any name, and a history is kept as UTF-8.
            program = program.encode(errors="backslashreplace").decode()
            return f"pid {facts['pid']} {program}".rstrip()
        except (OSError, ValueError, KeyError, TypeError):
            return f"pid {int.from_bytes(holder[MARK : MARK + PID], 'big')}"

    def close(self) -> None:
        """Stop holding: from now on this process is dead to the others. For close and fork."""
        fd, self._fd, self._mine = self._fd, None, None
        if fd is not None:
            with contextlib.suppress(OSError):
                os.close(fd)

    def _is_dead(self, holder: bytes) -> bool:
        try:
            fd = os.open(self._directory / holder.hex(), os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return True
        except PermissionError:
            return False  # another user's: nobody can tell, and its lease counts
        try:
            fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        else:
            return True
        finally:
            os.close(fd)


def _short(program: str) -> str:
    """A program's name without its directory; that of a package run by `python -m` is its own."""
    path = Path(program)
    return path.parent.name if path.name == "__main__.py" else path.name
