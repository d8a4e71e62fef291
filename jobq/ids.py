"""The names of jobs: UUIDs of version 7 (RFC 9562), text in the API and 16 bytes in the store.

A version 7 UUID is, from the top: 48 bits of Unix milliseconds, the version (4 bits), `rand_a`
(12), the variant (2), `rand_b` (62). `rand_a` and `rand_b` together are the *tail* here: a
counter of 74 bits that begins at a random place in each millisecond (RFC 9562, section 6.2,
methods 1 and 2), so ids sort as they were minted, as bytes and as text.
"""

import os
from collections.abc import Callable, Iterable
from struct import Struct
from typing import TypeAlias

from jobq.errors import InvalidValue, shown

JobId: TypeAlias = str
"""The name of a job: a UUID in canonical text, 36 characters."""

_RAND_B_BITS = 62
_TAIL_BITS = 12 + _RAND_B_BITS
_RAND_B = (1 << _RAND_B_BITS) - 1
_VERSION = 0x7000
_VARIANT = 0b10 << _RAND_B_BITS

_half = Struct(">Q").pack


def to_text(raw: bytes) -> JobId:
    """The canonical text, in lower case, of the 16 bytes *raw*.

    >>> to_text(bytes.fromhex("018bcfe5680070008000000000000001"))
    '018bcfe5-6800-7000-8000-000000000001'
    """
    upper = raw[:8].hex("-", 2)
    return f"{upper[:4]}{upper[5:]}-{raw[8:].hex('-', 6)}"


def to_texts(raws: Iterable[bytes]) -> list[JobId]:
    """As `to_text` for each; ids that were minted together cost a third of that.

    >>> to_texts([bytes(16), bytes.fromhex("018bcfe5680070008000000000000001")])
    ['00000000-0000-0000-0000-000000000000', '018bcfe5-6800-7000-8000-000000000001']
    """
    texts = []
    upper, prefix = b"", ""
    for raw in raws:
        if raw[:8] != upper:
            upper, prefix = raw[:8], to_text(raw)[:19]
        texts.append(prefix + raw[8:].hex("-", 6))
    return texts


def to_raw(text: JobId) -> bytes:
    """The 16 bytes that *text*, a UUID of any version, stands for. Case does not matter.

    >>> to_raw("018bcfe5-6800-7000-8000-000000000001").hex()
    '018bcfe5680070008000000000000001'

    Raises:
        InvalidValue: *text* is not the canonical text of a UUID, or no text.
    """
    if type(text) is not str:
        if not issubclass(type(text), str):  # not `isinstance`: a mock says that it is a str
            kind = f"{type(text).__name__:.60}"
            raise InvalidValue(f"job id {shown(text)} is a {kind}: expected text")
        text = str.__str__(text)  # of a subclass, what it holds
    try:
        raw = bytes.fromhex(text.replace("-", ""))
    except ValueError:
        raw = b""
    # The way back is the check: `fromhex` and `replace` take spaces, and hyphens anywhere.
    if len(raw) != 16 or to_text(raw) != text.lower():
        raise InvalidValue(f"{shown(text)} is no job id: expected a UUID in its canonical text")
    return raw


def mint(
    count: int, now_ms: int, last: bytes, entropy: Callable[[int], bytes] = os.urandom
) -> list[bytes]:
    """*count* new ids, each larger than the one before it, the first larger than *last*.

    >>> first, second = mint(2, 1_700_000_000_000, bytes(16), entropy=bytes)
    >>> to_text(first), to_text(second)
    ('018bcfe5-6800-7000-8000-000000000000', '018bcfe5-6800-7000-8000-000000000001')
    >>> to_text(*mint(1, 0, second))  # the clock was set back
    '018bcfe5-6800-7000-8000-000000000002'

    In a millisecond after that of *last* the tail begins at a random number; its top bit is 0,
    which leaves room for 2**73 more. Otherwise, as when the clock stands or was set back, the
    ids go on from *last*. Within one call they count up by 1. A tail that overflows carries into
    the millisecond.

    Args:
        count: How many; 0 or more.
        now_ms: Milliseconds of UTC since 1970.
        last: The largest id minted before; 16 zero bytes if there is none.
        entropy: Gives so many random bytes.

    Raises:
        InvalidValue: *last* is neither zero nor a UUID of version 7: nothing could be promised.
        OverflowError: Past the year 10889, where 48 bits of milliseconds end.
    """
    if count < 1:
        return []
    last_ms, last_tail = _parts(last)
    if now_ms > last_ms:
        first = now_ms << _TAIL_BITS | int.from_bytes(entropy(10)) >> 7  # 73 of the 80 bits
    else:
        first = (last_ms << _TAIL_BITS | last_tail) + 1
    rand_b = first & _RAND_B
    if rand_b + count > _RAND_B:
        return [_join(number) for number in range(first, first + count)]
    head = first >> _RAND_B_BITS
    upper = (head >> 12 << 16 | _VERSION | head & 0xFFF).to_bytes(8)
    lower = _VARIANT | rand_b
    return [upper + _half(number) for number in range(lower, lower + count)]


def _parts(raw: bytes) -> tuple[int, int]:
    """The millisecond and the tail of a minted id; zero for zero bytes."""
    upper, lower = int.from_bytes(raw[:8]), int.from_bytes(raw[8:])
    is_v7 = upper & 0xF000 == _VERSION and lower >> _RAND_B_BITS == 0b10
    if len(raw) != 16 or not (is_v7 or upper == lower == 0):
        raise InvalidValue(f"last is {raw.hex():.60}: expected 16 zero bytes or a UUIDv7")
    return upper >> 16, (upper & 0xFFF) << _RAND_B_BITS | lower & _RAND_B


def _join(number: int) -> bytes:
    """The id of a millisecond and a tail written as one number of 122 bits."""
    upper = number >> _TAIL_BITS << 16 | _VERSION | number >> _RAND_B_BITS & 0xFFF
    return (upper << 64 | _VARIANT | number & _RAND_B).to_bytes(16)
