"""What a power cut may leave of a record: pure, nothing is opened or written here.

At any moment the disk holds what was flushed, and of everything since any part: each piece of a
write is there or not, whatever became of the others, whichever was written first. A piece is what
lies in one block of `grain` bytes: 4096 (a page) or 512 (a sector, so pages are torn). Entries of
directories are pieces like any other. A file may be longer than what is left of its writes, with
zeros in between; and a block that was being overwritten may hold rubbish, unless it is one of the
two meta pages. That is the one thing taken on trust: 512 bytes are written whole or not at all.
"""

import random
from collections.abc import Iterable, Iterator
from itertools import pairwise, product
from typing import NamedTuple, TypeAlias

from tests.torture.power.record import (
    DATA,
    META_PAGES,
    PAGE,
    Acked,
    Began,
    Created,
    Dropped,
    Flush,
    FlushNames,
    FlushOne,
    Made,
    Nameless,
    Naming,
    Record,
    Removed,
    Renamed,
    Resize,
    Write,
    is_backup,
    is_of_queue,
    put,
)

LOST, KEPT, RUBBISH = 0, 1, 2
Piece: TypeAlias = Write | Resize | Naming


class Cut(NamedTuple):
    """The moment at which the power goes.

    Attributes:
        position: Before which event of the record.
        began: How many verbs were called by then, of each strand.
        acked: How many of them had returned.
        settled: How many had returned when the last commit was written: what `relaxed` promises.
        commits: How many commits had been written when so many had returned (of strand 0).
        names, files: What lasts.
        pending: What may or may not, in order.
    """

    position: int
    began: dict[int, int]
    acked: dict[int, int]
    settled: dict[int, int]
    commits: dict[int, int]
    names: dict[str, int | None]
    files: dict[int, bytes]
    pending: tuple[Piece, ...]


class State(NamedTuple):
    """A disk after the power cut.

    Attributes:
        data: The data file of the queue, or None if there is none.
        left: A data file that was being made, if it is there still.
        backups: What there is in the directory of backups under names that are not hidden.
    """

    data: bytes | None
    left: bytes | None
    backups: tuple[tuple[str, bytes], ...] = ()


def cuts(record: Record) -> Iterator[Cut]:
    """The moments worth looking at: before each flush takes effect, after each return, the end.

    Of two flushes the later has all the states before it: what is not flushed only grows.
    """
    disk = _Disk(record)
    for position, event in enumerate(record.events):
        if isinstance(event, Flush | FlushOne | FlushNames):
            yield disk.cut(position)
            disk.flush(event)
        elif isinstance(event, Dropped):
            disk.drop(event)
        elif isinstance(event, Began | Acked):
            disk.hear(event)
            if isinstance(event, Acked):
                yield disk.cut(position + 1)
        else:
            disk.take(position, event)
    yield disk.cut(len(record.events))


class _Disk:
    """What lasts and what does not, as the events of a record go by."""

    def __init__(self, record: Record) -> None:
        self._names = dict(record.names)
        self._files = {file: bytearray(data) for file, data in record.files.items()}
        self._pending: dict[int, Piece] = {}
        self._dropped: list[Write] = []
        self._began: dict[int, int] = {}
        self._acked: dict[int, int] = {}
        self._settled: dict[int, int] = {}
        self._commits = {0: 0}
        self._written = 0

    def cut(self, position: int) -> Cut:
        return Cut(
            position,
            dict(self._began),
            dict(self._acked),
            dict(self._settled),
            dict(self._commits),
            dict(self._names),
            {file: bytes(image) for file, image in self._files.items()},
            (*self._dropped, *self._pending.values()),
        )

    def hear(self, event: Began | Acked) -> None:
        if isinstance(event, Began):
            self._began[event.strand] = event.number
            return
        self._acked[event.strand] = event.number
        if not event.strand:
            self._commits[event.number] = self._written

    def take(self, position: int, event: Piece | Nameless) -> None:
        if isinstance(event, Created | Nameless):
            self._files.setdefault(event.file, bytearray())
        if isinstance(event, Nameless):
            return
        if isinstance(event, Write) and event.is_meta:
            self._settled = dict(self._acked)
            self._written += 1
        self._pending[position] = event

    def drop(self, event: Dropped) -> None:
        """No flush is for these any more: they are pending for ever."""
        for index, piece in list(self._pending.items()):
            if not isinstance(piece, Write) or piece.file != event.file:
                continue
            if event.since <= index < event.upto:
                del self._pending[index]
                self._dropped += _parts(piece, PAGE)

    def flush(self, event: Flush | FlushOne | FlushNames) -> None:
        """Have last what the flush is of, in the order in which it was done."""
        lasting = {i: piece for i, piece in self._pending.items() if _lasts(event, i, piece)}
        if isinstance(event, FlushOne) and isinstance(one := self._pending[event.at], Write):
            # The whole page is flushed, with what was written to it before.
            older = {i: piece for i, piece in self._pending.items() if i < event.at}
            lasting = {i: it for i, it in older.items() if _shares_page(it, one)} | lasting
        self._flush_dropped(piece for piece in lasting.values() if isinstance(piece, Write))
        for index, piece in lasting.items():
            del self._pending[index]
            if isinstance(piece, Write | Resize):
                put(self._files[piece.file], piece)
            else:
                name(self._names, piece)

    def _flush_dropped(self, written: Iterable[Write]) -> None:
        """Have last what was dropped of the pages that are flushed: they are flushed whole."""
        if not self._dropped:
            return
        pages = {(part.file, part.offset // PAGE) for one in written for part in _parts(one, PAGE)}
        for part in self._dropped:
            if (part.file, part.offset // PAGE) in pages:
                put(self._files[part.file], part)
        self._dropped = [
            part for part in self._dropped if (part.file, part.offset // PAGE) not in pages
        ]


def _lasts(flush: Flush | FlushOne | FlushNames, index: int, piece: Piece) -> bool:
    if isinstance(flush, FlushOne):
        return index == flush.at
    if isinstance(flush, Flush):
        return index < flush.upto and _is_of(piece, flush.file)
    return index < flush.upto and _is_in(piece, flush.path)


def name(names: dict[str, int | None], event: Naming) -> None:
    """Do to the entries of directories what was done to them."""
    if isinstance(event, Removed):
        names.pop(event.path, None)
        return
    if isinstance(event, Renamed):
        names.pop(event.source, None)
    names[event.path] = None if isinstance(event, Made) else event.file


def states(cut: Cut, grain: int, most: int, chance: random.Random) -> Iterator[State]:
    """At most so many of the disks that a cut may leave; all of them if they are not more.

    Of too many: nothing and everything of what was pending, each beginning of it, each piece alone
    and each one missing, as far as there is room for that, and by chance any others.
    """
    pieces: list[Piece] = []
    for piece in cut.pending:
        pieces += _parts(piece, grain) if isinstance(piece, Write) else [piece]
    for fates in _fates(len(pieces), most, chance):
        yield _build(cut, pieces, fates, chance)


def _fates(n: int, most: int, chance: random.Random) -> Iterator[tuple[int, ...]]:
    if n < 20 and 2**n <= most:
        yield from product((LOST, KEPT), repeat=n)
        return
    yield (LOST,) * n
    yield (KEPT,) * n
    chosen = [(KEPT,) * k + (LOST,) * (n - k) for k in range(1, n)]
    chosen += [tuple(int(i == k) for i in range(n)) for k in range(1, n)]
    chosen += [tuple(int(i != k) for i in range(n)) for k in range(n - 1)]
    if len(chosen) > most // 2:
        chosen = chance.sample(chosen, max(0, most // 2))
    yield from chosen
    for _ in range(most - 2 - len(chosen)):
        density = chance.choice((0.1, 0.5, 0.9))
        rubbish = chance.choice((0.0, 0.0, 0.3, 1.0))
        yield tuple(
            KEPT if chance.random() < density else RUBBISH if chance.random() < rubbish else LOST
            for _ in range(n)
        )


def _parts(piece: Write, grain: int) -> list[Write]:
    start, end = piece.offset, piece.offset + len(piece.data)
    edges = [start, *range((start // grain + 1) * grain, end, grain), end]
    return [
        Write(piece.file, at, piece.data[at - start : to - start]) for at, to in pairwise(edges)
    ]


def _build(cut: Cut, pieces: list[Piece], fates: tuple[int, ...], chance: random.Random) -> State:
    names = dict(cut.names)
    images = {file: bytearray(data) for file, data in cut.files.items()}
    longest = dict.fromkeys(images, 0)
    for piece, fate in zip(pieces, fates, strict=True):
        if isinstance(piece, Write):
            longest[piece.file] = max(longest[piece.file], piece.offset + len(piece.data))
            if fate == RUBBISH and piece.offset >= META_PAGES * PAGE:
                piece = piece._replace(data=chance.randbytes(len(piece.data)))
                fate = KEPT
        if fate != KEPT:
            continue
        if isinstance(piece, Write | Resize):
            put(images[piece.file], piece)
        else:
            name(names, piece)
    for file, image in images.items():  # the length may last where the blocks do not
        if len(image) < longest[file] and chance.random() < 0.5:
            image.extend(bytes(longest[file] - len(image)))
    return _found(names, images)


def _found(names: dict[str, int | None], images: dict[int, bytearray]) -> State:
    data = left = None
    backups: dict[str, bytes] = {}
    for path, found in names.items():
        if found is None or not _is_reachable(path, names):
            continue
        if is_backup(path):
            backups[path.rpartition("/")[2]] = bytes(images[found])
        elif is_of_queue(path):
            data = bytes(images[found])
        elif path.endswith(f"/{DATA}"):
            left = bytes(images[found])
    return State(data, left, tuple(sorted(backups.items())))


def _is_reachable(path: str, names: dict[str, int | None]) -> bool:
    parts = path.split("/")
    return all("/".join(parts[:depth]) in names for depth in range(1, len(parts)))


def _shares_page(piece: Piece, other: Write) -> bool:
    if not isinstance(piece, Write) or piece.file != other.file:
        return False
    last = (piece.offset + len(piece.data) - 1) // PAGE
    return piece.offset // PAGE == last == other.offset // PAGE


def _is_of(piece: Piece, file: int) -> bool:
    return isinstance(piece, Write | Resize) and piece.file == file


def _is_in(piece: Piece, directory: str) -> bool:
    if isinstance(piece, Write | Resize):
        return False
    parent, _, _ = piece.path.rpartition("/")
    return (parent or ".") == directory


def all_of(record: Record, upto: int) -> State:
    """The disk if all that was done before event *upto* lasts."""
    everything = Record(record.names, record.files, record.events[:upto])
    *_, end = cuts(everything)
    pieces = list(end.pending)
    return _build(end, pieces, (KEPT,) * len(pieces), random.Random(0))
