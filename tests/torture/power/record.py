"""What a process did to the files of a queue, in order: values, nothing else.

A file goes by its inode, so it stays the same under another name. Names are relative to the
directory in which the queue's own directory stands.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, NamedTuple, TypeAlias

META_PAGES: Final = 2
PAGE: Final = 4096
DATA: Final = "data.mdb"
"""The name of a queue's file."""

BACKUPS: Final = "backups"
"""The directory of its backups."""


class Write(NamedTuple):
    """Bytes given to the system; they last once a flush says so."""

    file: int
    offset: int
    data: bytes

    @property
    def is_meta(self) -> bool:
        """Whether it is what makes a transaction count: a part of one of the first two pages.

        What begins with such a page is a head that is written once more as it is (`doubt`).
        """
        end = self.offset + len(self.data)
        return len(self.data) < PAGE and end <= META_PAGES * PAGE and self.offset % PAGE > 0


class Resize(NamedTuple):
    """A new length of a file (`truncate`, `fallocate`); what is gained is zeros."""

    file: int
    size: int


class Flush(NamedTuple):
    """A sync has returned: all of that file before event *upto* lasts."""

    file: int
    upto: int


class FlushOne(NamedTuple):
    """A write through a descriptor with O_DSYNC has returned: event *at* lasts."""

    at: int


class Dropped(NamedTuple):
    """A sync of a file, or a write with O_DSYNC, has failed: the kernel takes for done what it had.

    What was written to it from event *since* on and before *upto* may be on the disk or not, and no
    sync changes that, unless something is written to the same page again.
    """

    file: int
    since: int
    upto: int


class Made(NamedTuple):
    """A directory."""

    path: str


class Created(NamedTuple):
    """A file."""

    path: str
    file: int


class Nameless(NamedTuple):
    """A file without a name (O_TMPFILE): gone after a cut, unless it is given one."""

    file: int


class Linked(NamedTuple):
    """The file has one name more."""

    path: str
    file: int


class Removed(NamedTuple):
    """A name is taken away."""

    path: str


class Renamed(NamedTuple):
    """The file has another name."""

    source: str
    path: str
    file: int


class FlushNames(NamedTuple):
    """A sync of a directory has returned: its entries from before event *upto* last."""

    path: str
    upto: int


class Began(NamedTuple):
    """A verb was called: the *number*-th of its strand, from 1 on."""

    strand: int
    number: int


class Acked(NamedTuple):
    """That verb has returned."""

    strand: int
    number: int


Event: TypeAlias = (
    Write
    | Resize
    | Flush
    | FlushOne
    | Dropped
    | Made
    | Created
    | Nameless
    | Linked
    | Removed
    | Renamed
    | FlushNames
    | Began
    | Acked
)
Naming: TypeAlias = Made | Created | Linked | Removed | Renamed


@dataclass
class Record:
    """All of it.

    Attributes:
        names: What stood there in the beginning: a file, or None for a directory.
        files: The bytes of those files. All of it lasts.
        events: What was done then.
        final: The bytes of the data file when the recording ended.
    """

    names: dict[str, int | None] = field(default_factory=dict)
    files: dict[int, bytes] = field(default_factory=dict)
    events: list[Event] = field(default_factory=list)
    final: bytes = b""


def joined(first: Record, then: Record) -> Record:
    """What two processes did, one after the other."""
    shift = len(first.events)
    events = [*first.events, *(moved(event, lambda at: at + shift) for event in then.events)]
    return Record(first.names, first.files, events, then.final)


def moved(event: Event, place: Callable[[int], int]) -> Event:
    """An event in another record, in which the others that it speaks of have other places."""
    if isinstance(event, Flush | FlushNames):
        return event._replace(upto=place(event.upto))
    if isinstance(event, FlushOne):
        return FlushOne(place(event.at))
    if isinstance(event, Dropped):
        return Dropped(event.file, place(event.since), place(event.upto))
    return event


def is_of_queue(path: str) -> bool:
    """Whether that is a queue's file, and not one that is being made."""
    parent, _, name = path.rpartition("/")
    return name == DATA and not is_being_made(parent.split("/")[-1])


def is_backup(path: str) -> bool:
    """Whether that is a backup, and not one that is being made under a hidden name."""
    return path.startswith(f"{BACKUPS}/") and not path.startswith(f"{BACKUPS}/.")


def is_being_made(directory: str) -> bool:
    """Whether that is the name of a directory in which jobq makes the file of a new queue."""
    return directory.startswith(".new-")


def put(image: bytearray, event: Write | Resize) -> None:
    """Do to the bytes of a file what was done to it."""
    if isinstance(event, Resize):
        del image[event.size :]
        image.extend(bytes(event.size - len(image)))
        return
    end = event.offset + len(event.data)
    if len(image) < event.offset:
        image.extend(bytes(event.offset - len(image)))
    image[event.offset : end] = event.data


def replay(record: Record, upto: int | None = None) -> bytes:
    """The data file with all that was done to it before event *upto*, lasting or not.

    With all of it, this is `final`, byte by byte: or something was done that was not recorded.
    """
    files = {file: bytearray(data) for file, data in record.files.items()}
    last = next(iter(files), None)
    for event in record.events[:upto]:
        if isinstance(event, Created | Nameless):
            files[event.file] = bytearray()
        if isinstance(event, Created | Renamed) and is_of_queue(event.path):
            last = event.file
        if isinstance(event, Write | Resize):
            put(files[event.file], event)
    return bytes(files[last]) if last is not None else b""


def commits(record: Record) -> list[int]:
    """The positions right behind each write that makes a transaction count."""
    return [
        position + 1
        for position, event in enumerate(record.events)
        if isinstance(event, Write) and event.is_meta
    ]
