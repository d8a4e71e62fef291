"""What processes were about to do, and what they know to be done: a file that outlives them all.

Each thread of each process appends a note before a verb, and one after it. The clock is that of the
machine, so notes of different processes can be put in order: what a verb did, it did between its
two notes; of a process that was killed between them, nobody knows whether it did.
"""

import os
import struct
import time
from collections.abc import Iterator
from enum import IntEnum
from pathlib import Path
from typing import Final, NamedTuple

_FORM: Final = struct.Struct("<QQIIIB3x16s16x")
_BLOCK: Final = 2**20

NOBODY: Final = bytes(16)


class Kind(IntEnum):
    """What a note says. Those that begin with `WILL` stand before a verb, the others after it."""

    WILL_ADD = 1
    ADDED = 2
    WILL_RESERVE = 3
    RESERVED = 4
    WILL_DONE = 5
    DONE = 6
    WILL_RETRY = 7
    RETRIED = 8
    WILL_RELEASE = 9
    RELEASED = 10
    LOST = 11
    """A settlement was refused: the reservation was not its caller's any more."""
    KILL = 12
    """A process is about to be killed; so it may have lived until then, and no longer."""
    EXTENDED = 13
    BORN = 14
    """A process was forked."""


class Note(NamedTuple):
    """One note.

    Attributes:
        began_ns, at_ns: When the verb was called, and when this was written, on CLOCK_MONOTONIC.
        process: Which process it is of, by its number in this test; for `BORN` and `KILL`
            the one that is meant.
        thread: Which of its threads.
        number: Of the job as its producer counts, for notes of adding; the pid, for those of a
            process; else the token.
        job: Its id; `NOBODY` if it has none yet.
    """

    began_ns: int
    at_ns: int
    process: int
    thread: int
    number: int
    kind: Kind
    job: bytes = NOBODY


class Ledger:
    """A file of notes, 64 bytes each.

    Who is killed while he writes leaves whole pages of what he wrote, so whole notes.
    """

    SIZE: Final = _FORM.size

    def __init__(self, path: Path | str, process: int = 0, thread: int = 0) -> None:
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        self._process = process
        self._thread = thread
        self._read = 0

    def note(self, kind: Kind, *jobs: tuple[int, bytes], began_ns: int = 0) -> int:
        """Append a note for each of *jobs*, numbers and ids; gives the time that they bear."""
        at_ns = time.monotonic_ns()
        who = (self._process, self._thread)
        notes = [
            _FORM.pack(began_ns or at_ns, at_ns, *who, number, kind, job) for number, job in jobs
        ]
        os.write(self._fd, b"".join(notes))
        return at_ns

    def will(self, kind: Kind) -> int:
        """Append a note of a verb that names no job yet; gives the time that it bears."""
        return self.note(kind, (0, NOBODY))

    def of(self, kind: Kind, process: int, pid: int) -> None:
        """Append a note of what becomes of a process: `BORN`, `KILL`."""
        at_ns = time.monotonic_ns()
        os.write(self._fd, _FORM.pack(at_ns, at_ns, process, 0, pid, kind, NOBODY))

    def unread(self) -> Iterator[Note]:
        """The notes that this object has not given yet, in the order in which they were written."""
        while block := os.pread(self._fd, _BLOCK, self._read):
            block = block[: len(block) // self.SIZE * self.SIZE]
            if not block:
                return
            self._read += len(block)
            for began_ns, at_ns, process, thread, number, kind, job in _FORM.iter_unpack(block):
                yield Note(began_ns, at_ns, process, thread, number, KINDS[kind], job)

    def close(self) -> None:
        """Let go of the file."""
        os.close(self._fd)


KINDS: Final = {int(kind): kind for kind in Kind}
