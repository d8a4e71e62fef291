"""Hostile bytes: random ones, sound ones that were damaged, and such as claim more than they are.

All chance comes from one generator, so that a number repeats a run.
"""

import random
import struct
from collections.abc import Callable, Sequence
from typing import Final

HEADS: Final = bytes([*range(0x80, 0xA4), *range(0xC0, 0xE1)])
"""First bytes of everything that msgpack has but small numbers."""

CLAIMS: Final = (b"\xc6", b"\xc9", b"\xdb", b"\xdd", b"\xdf")
"""Heads that are followed by a length of 32 bits: bin, ext, str, array, map."""

LENGTHS: Final = (0, 1, 2**16, 2**20, 2**31 - 1, 2**31, 2**32 - 1)


def ext(code: int, data: bytes) -> bytes:
    """An extension type of msgpack."""
    return b"\xc9" + struct.pack(">IB", len(data), code & 0xFF) + data


def array(count: int) -> bytes:
    """The head of an array that says it has so many members."""
    return b"\xdd" + struct.pack(">I", count)


def _bombs() -> list[Callable[[random.Random], bytes]]:
    """What looks small and is not: lengths that are not there, and depth."""
    lists = (1, 31, 32, 33, 1023, 1024, 1025, 5000, 100_000)
    return [
        *(lambda chance, head=head: head + struct.pack(">I", chance.choice(LENGTHS)) + b"\x05" * 9
          for head in CLAIMS),
        *(lambda _, depth=depth: b"\x91" * depth + b"\x01" for depth in lists),
        *(lambda _, depth=depth: b"\x81\x01" * depth + b"\x01" for depth in lists),
        *(lambda _, depth=depth: b"\x81" * depth + b"\x01" * (depth + 1) for depth in lists),
        lambda chance: array(chance.choice(LENGTHS)) * chance.randrange(1, 1030),
        lambda chance: array(chance.choice(LENGTHS)) * 800 + b"\x90" * 4000,
        lambda _: array(60_000) * 1020 + b"\x90" * 60_000,  # claims no more than there are bytes
        lambda _: array(4000) * 800,
        lambda chance: _wrapped(chance, chance.choice((5, 31, 32, 33, 40, 300)), 0),
        lambda chance: _wrapped(chance, chance.choice((5, 31, 32)), chance.choice((10, 500, 1000))),
        lambda chance: ext(chance.choice((6, 7)), array(2**32 - 1) * 100 + b"\x91" * 5000),
        lambda chance: b"\x92" * chance.randrange(1, 1000) + b"\xc0",
        lambda _: ext(7, b"\x9f" + b"".join(ext(7, b"\x91" + bytes([n])) for n in range(15))),
        lambda chance: b"\xdc\xff\xff" + b"\xc0" * chance.randrange(65_536),
    ]  # fmt: skip


def _wrapped(chance: random.Random, depth: int, lists: int) -> bytes:
    """Tuples and sets within one another, so many lists between each two."""
    data = b"\x01"
    for _ in range(depth):
        data = ext(chance.choice((6, 6, 6, 7)), b"\x91" * (lists + 1) + data)
    return data


def _values() -> list[Callable[[random.Random], bytes]]:
    """What cannot be a value, or only just."""

    def text(code: int, *texts: str) -> Callable[[random.Random], bytes]:
        return lambda chance: ext(code, chance.choice(texts).encode())

    def number(chance: random.Random) -> bytes:
        kind = chance.choice("bBhHiIqQfd")
        return {"b": b"\xd0", "B": b"\xcc", "h": b"\xd1", "H": b"\xcd", "i": b"\xd2", "I": b"\xce",
                "q": b"\xd3", "Q": b"\xcf", "f": b"\xca", "d": b"\xcb"}[kind] + chance.randbytes(
            struct.calcsize(kind))  # fmt: skip

    nan = b"\xcb\x7f\xf8" + bytes(6)
    return [
        number,
        text(1, "9999-12-31T23:59:59.999999-23:59", "0001-01-01T00:00+14:00", "yesterday", "~",
             "2024-01-01T24:00", "2024-W01-1", "20240101T000000Z", "2024-01-01T00:00:00+00:00:00.5",
             "٢٠٢٤-٠١-٠١", "2024-01-01" + "0" * 9000, "2024-02-30T00:00", "1" * 26),
        text(2, "0000-00-00", "10000-01-01", "2024-02-30", "", "2024-W53-7"),
        lambda chance: ext(3, struct.pack(">iII", chance.choice((-(2**31), 0, 2**31 - 1)),
                                          chance.choice((0, 2**32 - 1)), chance.randrange(2**32))),
        lambda chance: ext(chance.choice((3, 4)), chance.randbytes(chance.randrange(20))),
        text(5, "1e999999999", "1E-999999999999999999", "9" * 20_000, "sNaN123", "-Infinity", "0x1",
             "1_000", "NaN" + "1" * 60, "1e" + "9" * 30, "٣", " 1", "."),
        lambda chance: ext(-1, struct.pack(">Iq", chance.choice((0, 10**9, 2**32 - 1)),
                                           chance.choice((0, -(2**62), 2**40, 2**63 - 1)))),
        lambda chance: ext(-1, struct.pack(">Q", chance.randrange(2**64))),
        lambda chance: ext(-1, chance.randbytes(chance.randrange(16))),
        lambda chance: ext(chance.randrange(-128, 128), chance.randbytes(chance.randrange(9))),
        lambda chance: bytes([0xA0 + 4]) + chance.choice(
            (b"\xff\xff\xff\xff", b"\xed\xa0\x80a", b"\xc0\x80ab", b"\xf4\x90\x80\x80")),
        lambda _: b"\x82\xa1k\x01\xa1k\x02",  # a key twice
        lambda _: b"\x82" + nan + b"\x01" + nan + b"\x02",
        lambda _: b"\x83\x01\x01\xcb\x3f\xf0" + bytes(6) + b"\x02\xc3\x03",  # 1, 1.0 and True
        lambda chance: b"\x81" + chance.choice((b"\x90", b"\x80", ext(7, b"\x90"), ext(5, b"sNaN")))
        + b"\x01",
        lambda chance: ext(7, b"\x93" + nan + nan + chance.choice((b"\x90", ext(5, b"sNaN")))),
        lambda _: ext(6, b"\x90\x90"),
        lambda _: ext(6, b"\xc0"),
        lambda _: b"cos\nsystem\n(S'true'\ntR.",
        lambda _: b"\x80\x04\x95" + bytes(8) + b"\x8c\x02os\x8c\x06system\x93.",
    ]  # fmt: skip


MADE: Final = (*_bombs(), *_values())
"""Makers of buffers that somebody has thought of."""


class Buffers:
    """Hostile buffers without end.

    Args:
        chance: Where they come from.
        sound: Good ones, which are damaged.
        longest: Buffers are cut to so many bytes.
    """

    def __init__(self, chance: random.Random, sound: Sequence[bytes], longest: int) -> None:
        self._chance = chance
        self._sound = sound
        self._longest = longest
        self._kinds = (self._noise, self._heads, *(4 * (self._damaged,)), self._made, self._mixed)

    def next(self) -> bytes:
        """One more."""
        return self._chance.choice(self._kinds)()[: self._longest]

    def _noise(self) -> bytes:
        return self._chance.randbytes(self._chance.randrange(60))

    def _heads(self) -> bytes:
        """Nothing but beginnings."""
        return bytes(self._chance.choices(HEADS, k=self._chance.randrange(1, 60)))

    def _made(self) -> bytes:
        return self._chance.choice(MADE)(self._chance)

    def _mixed(self) -> bytes:
        """Several values one after another, or as members of one."""
        few = [self._made()[:2000] for _ in range(self._chance.randrange(1, 5))]
        return self._chance.choice((b"", bytes([0x90 + len(few)]))) + b"".join(few)

    def _damaged(self) -> bytes:
        """A good one with up to three wounds."""
        data = bytearray(self._chance.choice(self._sound))
        for _ in range(self._chance.randrange(1, 4)):
            self._chance.choice(self._WOUNDS)(self, data)
            data = data or bytearray(b"\0")
        return bytes(data)

    def _flip(self, data: bytearray) -> None:
        data[self._chance.randrange(len(data))] ^= 1 << self._chance.randrange(8)

    def _overwrite(self, data: bytearray) -> None:
        data[self._chance.randrange(len(data))] = self._chance.randrange(256)

    def _cut(self, data: bytearray) -> None:
        del data[self._chance.randrange(len(data)) :]

    def _take_out(self, data: bytearray) -> None:
        at = self._chance.randrange(len(data))
        del data[at : at + self._chance.randrange(1, 9)]

    def _splice(self, data: bytearray) -> None:
        other = self._chance.choice(self._sound)
        at = self._chance.randrange(len(other)) if other else 0
        data[self._chance.randrange(len(data)) :] = other[at:]

    def _put_in(self, data: bytearray) -> None:
        at = self._chance.randrange(len(data))
        data[at:at] = self._made()[:200]

    def _enlarge(self, data: bytearray) -> None:
        """Have four bytes say a length that is not there."""
        at = self._chance.randrange(len(data))
        data[at : at + 4] = struct.pack(">I", self._chance.choice(LENGTHS))

    def _claim(self, data: bytearray) -> None:
        at = self._chance.randrange(len(data))
        claimed = struct.pack(">I", self._chance.choice(LENGTHS))
        data[at : at + 5] = self._chance.choice(CLAIMS) + claimed

    _WOUNDS = (_flip, _overwrite, _cut, _take_out, _splice, _put_in, _enlarge, _claim)
