"""The pages of a data file, read without the engine: what is damaged is passed over, not died of.

A file of LMDB 0.9 on a 64-bit machine, in its byte order:

- page: number u64, u16, flags u16, lower u16, upper u16 (of an overflow page: pages u32), and the
  offsets of its nodes, u16 each
- node of a leaf: size u32 (as two u16), flags u16, size of key u16, key, value (or its page, u64)
- node of a branch: page (48 bits), size of key u16, key
- tree: u32, flags u16, depth u16, then u64: branch, leaf, overflow pages, entries, root
- meta page: magic u32, version u32, u64, map size u64, tree of free pages (its first u32 is the
  page size), main tree, last page u64, transaction u64
"""

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from struct import Struct
from typing import Final, NamedTuple

from jobq.repo.lmdb.files import Told, contradiction

META_PAGES: Final = 2
DEEPEST: Final = 32
"""LMDB's own limit for the depth of a tree."""

_MAGIC: Final = 0xBEEFC0DE
_FORMAT: Final = 1
_HEAD: Final = Struct("=QHHHH")
_OVERFLOW: Final = Struct("=QHHI")
_NODE: Final = Struct("=HHHH")
_TREE: Final = Struct("=IHHQQQQQ")
_META: Final = Struct("=IIQQ")
_TAIL: Final = Struct("=QQ")
_HEAD_SIZE: Final = _HEAD.size
_META_SIZE: Final = _HEAD_SIZE + _META.size + 2 * _TREE.size + _TAIL.size
_PAGE_SIZES: Final = frozenset(2**power for power in range(8, 17))
_NO_PAGE: Final = 2**64 - 1

_BRANCH: Final = 1
_LEAF: Final = 2
_IS_OVERFLOW: Final = 4

_BIG: Final = 1  # flags of a node
_SUBTREE: Final = 2


class Tree(NamedTuple):
    """Where the pages of a database begin."""

    entries: int
    root: int

    @property
    def is_empty(self) -> bool:
        """Whether it has no page."""
        return self.root == _NO_PAGE


class Meta(NamedTuple):
    """What a meta page says. The newer has the larger transaction."""

    txn: int
    page_size: int
    last_page: int
    free: Tree
    main: Tree


class Node(NamedTuple):
    """An entry of a leaf.

    Attributes:
        page, at: Where it stands.
        size: Bytes of its value.
        overflow: The page where its value begins, if it is not here; else 0.
    """

    page: int
    at: int
    key: bytes
    size: int
    flags: int
    overflow: int

    @property
    def is_subtree(self) -> bool:
        """Whether it is a database."""
        return bool(self.flags & _SUBTREE)


class Pages:
    """The pages of one data file.

    Attributes:
        metas: What can be read of the meta pages; the first is the one to go by, the newest unless
            somebody knows better.
        disagreement: Why the newest of them may not be the last one; empty if it is.
        damaged: Why pages were passed over, by their number.
        visited: The pages that were come by.
        suspects: Those of them that are no page as they should be; entries may be left on them.

    Raises:
        OSError: The file cannot be opened.
    """

    def __init__(self, path: Path) -> None:
        self._fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        self.size = os.fstat(self._fd).st_size
        self.damaged: dict[int, str] = {}
        self.visited: set[int] = set()
        self.suspects: list[int] = []
        self._last: tuple[int, bytes] = (-1, b"")
        self.disagreement = ""
        self.metas = self._metas()
        self.page_size = self.metas[0].page_size if self.metas else 0

    def close(self) -> None:
        """Close the file."""
        os.close(self._fd)

    @property
    def count(self) -> int:
        """How many pages the file has, the last of them perhaps not whole."""
        return -(-self.size // self.page_size) if self.metas else 0

    # Walking.

    def walk(self, tree: Tree) -> Iterator[Node]:
        """The entries of all leaves of a tree that can be come by, in the order of keys.

        Each page once: in a damaged tree one may stand in several places.
        """
        if tree.is_empty:
            return
        waiting = [(tree.root, 0)]
        while waiting:
            number, depth = waiting.pop()
            if not META_PAGES <= number < self.count or depth > DEEPEST:
                self.damaged.setdefault(number, "it lies outside of the file")
                continue
            if number in self.visited:
                self.damaged.setdefault(number, "two pages lead to it")
                continue
            self.visited.add(number)
            page = self.page(number)
            found, _, flags, _, _ = _HEAD.unpack_from(page) if page else (0, 0, 0, 0, 0)
            if found != number or flags not in (_BRANCH, _LEAF):
                self.damaged[number] = f"page {found} with flags {flags:#x} stands there"
                self.suspects.append(number)
            elif flags == _LEAF:
                yield from self.leaf(number)
            else:
                children = self._children(number, page)
                waiting += [(child, depth + 1) for child in reversed(children)]

    def begin_anew(self) -> None:
        """Forget what was come by, and what was passed over."""
        self.visited.clear()
        self.suspects.clear()
        self.damaged = {at: why for at, why in self.damaged.items() if at < META_PAGES}

    def leaf(self, number: int) -> Iterator[Node]:
        """The entries of a page that is taken for a leaf; those that cannot be are left out."""
        page = self.page(number)
        for at in self._offsets(page):
            low, high, flags, key_size = _NODE.unpack_from(page, at)
            start, size = at + _NODE.size, low | high << 16
            end = start + key_size
            if flags & _BIG:
                if end + 8 > len(page):
                    continue
                overflow = int.from_bytes(page[end : end + 8], sys.byteorder)
                run = range(overflow, overflow + self._pages_of(size))
                if run.start < META_PAGES or run.stop > self.count:
                    continue
                self.visited.update(run)
            elif end + size > len(page):
                continue
            else:
                overflow = 0
            yield Node(number, at, page[start:end], size, flags, overflow)

    def value(self, node: Node) -> bytes:
        """The value of an entry; shorter than its size if that cannot be read."""
        if node.overflow:
            return self._read(node.overflow * self.page_size + _HEAD_SIZE, node.size)
        start = node.at + _NODE.size + len(node.key)
        return self.page(node.page)[start : start + node.size]

    def node(self, page: int, at: int) -> Node:
        """An entry that was come by before, by where it stands."""
        return next(node for node in self._only(page, at))

    def _only(self, number: int, at: int) -> Iterator[Node]:
        page = self.page(number)
        low, high, flags, key_size = _NODE.unpack_from(page, at)
        end = at + _NODE.size + key_size
        overflow = int.from_bytes(page[end : end + 8], sys.byteorder) if flags & _BIG else 0
        key = page[at + _NODE.size : end]
        yield Node(number, at, key, low | high << 16, flags, overflow)

    def tree_in(self, node: Node) -> Tree | None:
        """The database that an entry of the main tree names."""
        value = self.value(node)
        if not node.is_subtree or len(value) != _TREE.size:
            return None
        return _tree(value, 0)

    def lost(self) -> list[int]:
        """The pages that hold something, but are not come by: leaves whose branch is damaged.

        Those are the ones that are neither free nor visited. With a damaged list of free pages
        there are none, since what was forgotten long ago would come back.
        """
        free = self._free()
        if free is None:
            return []
        found, number = [], META_PAGES
        while number < min(self.count, self.metas[0].last_page + 1):
            if number in self.visited or number in free:
                number += 1
                continue
            page = self.page(number)
            there, _, flags, pages = _OVERFLOW.unpack_from(page) if page else (0, 0, 0, 0)
            if there == number and flags == _IS_OVERFLOW:
                number += max(1, pages)  # what follows is a payload: it may look like anything
                continue
            if is_leaf(page, number):
                found.append(number)
            number += 1
        return found

    def _free(self) -> set[int] | None:
        """The pages that are free; None if they cannot be known."""
        damaged = len(self.damaged)
        free: set[int] = set()
        entries = 0
        for node in self.walk(self.metas[0].free):
            entries += 1
            value = self.value(node)
            numbers = [
                int.from_bytes(value[at : at + 8], sys.byteorder) for at in range(0, len(value), 8)
            ]
            if not numbers or numbers[0] != len(numbers) - 1:
                # LMDB reserves room for more than it writes.
                if not numbers or numbers[0] > len(numbers) - 1:
                    return None
                numbers = numbers[: numbers[0] + 1]
            free.update(numbers[1:])
        if len(self.damaged) > damaged or entries != self.metas[0].free.entries:
            return None
        return free

    # Pages.

    def page(self, number: int) -> bytes:
        """A page; empty if it cannot be read whole. The last one is kept."""
        if self._last[0] != number:
            page = self._read(number * self.page_size, self.page_size)
            self._last = number, page if len(page) == self.page_size else b""
        return self._last[1]

    def _read(self, at: int, size: int) -> bytes:
        try:
            return os.pread(self._fd, size, at)
        except (OSError, OverflowError):  # a bad sector, for one
            return b""

    def _pages_of(self, size: int) -> int:
        return (_HEAD_SIZE + size + self.page_size - 1) // self.page_size

    @staticmethod
    def _offsets(page: bytes) -> list[int]:
        """Where nodes begin, as far as the page says so plausibly."""
        if len(page) < _HEAD_SIZE:
            return []
        lower = _HEAD.unpack_from(page)[3]
        sound = _HEAD_SIZE <= lower <= len(page)
        end = lower if sound else len(page)
        found = []
        for place in range(_HEAD_SIZE, end - 1, 2):
            at = int.from_bytes(page[place : place + 2], sys.byteorder)
            if _HEAD_SIZE < at <= len(page) - _NODE.size:
                found.append(at)
            elif not sound:
                break
        return found

    def _children(self, number: int, page: bytes) -> list[int]:
        found = []
        for at in self._offsets(page):
            low, high, more, _ = _NODE.unpack_from(page, at)
            found.append(low | high << 16 | more << 32)
        if not found:
            self.damaged[number] = "a branch that leads nowhere"
        return found

    # Meta pages.

    def _metas(self) -> list[Meta]:
        first = self._meta(0)
        others = (self._meta(size) for size in sorted(_PAGE_SIZES))
        second = next((meta for meta in others if meta is not None), None)
        if first and second and first.page_size != second.page_size:
            first = None  # the other one stands where it says
        sound = [meta for meta in (first, second) if meta is not None]
        if len(sound) < META_PAGES:
            number = 0 if first is None else 1
            self.damaged[number] = self.disagreement = f"head {number} of 2 is destroyed"
        else:
            self.disagreement = contradiction([Told(meta.txn, meta.last_page) for meta in sound])
        return sorted(sound, reverse=True)

    def _meta(self, at: int) -> Meta | None:
        page = self._read(at, _META_SIZE)
        if len(page) < _META_SIZE:
            return None
        magic, version, _, _ = _META.unpack_from(page, _HEAD_SIZE)
        start = _HEAD_SIZE + _META.size
        page_size = _TREE.unpack_from(page, start)[0]
        last_page, txn = _TAIL.unpack_from(page, start + 2 * _TREE.size)
        if (magic, version) != (_MAGIC, _FORMAT) or page_size not in _PAGE_SIZES:
            return None
        if at not in (0, page_size):
            return None
        trees = _tree(page, start), _tree(page, start + _TREE.size)
        return Meta(txn, page_size, last_page, *trees)


def is_leaf(page: bytes, number: int) -> bool:
    """Whether a page says that it is a leaf, and of this number."""
    there, _, flags, _, _ = _HEAD.unpack_from(page) if page else (0, 0, 0, 0, 0)
    return bool(there == number and flags == _LEAF)


def _tree(data: bytes, at: int) -> Tree:
    _, _, _, _, _, _, entries, root = _TREE.unpack_from(data, at)
    return Tree(entries, root)
