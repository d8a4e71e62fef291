"""Hostile bytes to everything that reads bytes: the documented error, or a value that is sound."""

import json
import random
import subprocess
import sys
import tracemalloc
from collections.abc import Callable
from decimal import Decimal
from typing import Any, Final
from uuid import UUID

import pytest

from jobq.codec import LIMIT, MAX_INNER_DEPTH, MOST_ALIKE, pack, unpack
from jobq.errors import InvalidValue, StoreCorrupt
from tests.cli.conftest import ROOT, environment
from tests.crash.conftest import Say
from tests.torture.input.buffers import MADE, Buffers, ext
from tests.torture.input.decoders import PAYLOAD, RECORDS

MOST_GROWTH = 32 * 2**20
"""Bytes by which a process may grow over any number of buffers: what the allocator has not given
back of the largest of them."""

PARTS = 10
"""Processes that try them all, one after another: none takes long enough to look as if it hung."""

MOST_FOR_SMALL = 34 * 2**20
MOST_FOR_A_BYTE = 120


def tried(seed: int, payloads: int, others: int) -> dict[str, Any]:
    """What a process of its own says of so many buffers."""
    words = [sys.executable, "-W", "error", "-m", "tests.torture.input.decoding"]
    ended = subprocess.run(
        [*words, str(seed), str(payloads), str(others)],
        cwd=ROOT,
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    found: dict[str, Any] = json.loads(ended.stdout)
    return found


def test_hostile_bytes_are_read_soundly_or_told_as_damage(seed: int) -> None:
    found = tried(seed, 3000, 150)

    assert found["payload"]["read"] > 50, "the buffers are all bad: they test nothing"
    assert max(one["grown"] for one in found.values()) < MOST_GROWTH


@pytest.mark.storm
@pytest.mark.parametrize("part", range(PARTS))
def test_a_million_hostile_payloads_and_many_records(part: int, seed: int, say: Say) -> None:
    found = tried(seed + part, 1_000_000 // PARTS, 10_000 // PARTS)

    for name, one in found.items():
        rate = one["tried"] / one["cpu_s"]
        say(
            f"{name:<20} {one['tried']:>9,} tried, {one['read']:>7,} read, {rate:>8,.0f} a second, "
            f"{one['grown'] / 2**20:+.1f} MiB"
        )
    assert sum(one["tried"] for one in found.values()) * PARTS >= 1_250_000
    assert max(one["grown"] for one in found.values()) < MOST_GROWTH


def peak_of(data: bytes) -> int:
    """The most bytes of memory that reading it as a payload takes."""
    tracemalloc.reset_peak()
    before = tracemalloc.get_traced_memory()[0]
    PAYLOAD.try_on(data)
    return tracemalloc.get_traced_memory()[1] - before


@pytest.mark.parametrize("rounds", [1, pytest.param(60, marks=pytest.mark.storm)])
def test_no_payload_takes_more_memory_than_a_multiple_of_itself(
    rounds: int, seed: int, say: Say
) -> None:
    chance = random.Random(seed)
    buffers = Buffers(chance, PAYLOAD.sound, 100_002)
    limit, most = sys.getrecursionlimit(), 0
    sys.setrecursionlimit(20_000)  # for the comparison
    tracemalloc.start()
    try:
        for _ in range(rounds):
            for data in [*(make(chance) for make in MADE), *(buffers.next() for _ in range(50))]:
                peak = peak_of(data)
                most = max(most, peak)
                assert peak < MOST_FOR_SMALL + MOST_FOR_A_BYTE * len(data), data[:200]
    finally:
        tracemalloc.stop()
        sys.setrecursionlimit(limit)

    say(f"at most {most / 2**20:.1f} MiB for one of {rounds * (len(MADE) + 50):,}")


@pytest.mark.parametrize("code", [6, 7])
def test_a_tuple_is_nested_no_deeper_when_read_than_when_packed(code: int) -> None:
    """Else what is read could not be packed again, and `jobq jobs show` could not show it."""
    lists = b"\x91" * (MAX_INNER_DEPTH - 1) + b"\x01"
    fits = ext(6, b"\x91" * (MAX_INNER_DEPTH - 1) + b"\x90")

    assert unpack(pack(unpack(fits), limit=10_000)) == unpack(fits)
    for deep in (ext(6, b"\x91\x91" + lists), ext(code, b"\x91" + ext(6, b"\x91" + lists))):
        with pytest.raises(StoreCorrupt, match="nested deeper than 32 levels in a tuple or set"):
            unpack(deep)


@pytest.mark.parametrize("at", [1, 2, 3])
def test_a_state_of_a_later_jobq_is_told_as_damage(at: int) -> None:
    """It may know more states, reasons or events: its checksum is right, its codes are unknown."""
    (state,) = [one for one in RECORDS if one.name == "state"]
    (sound,) = state.sound

    assert not state.try_on(state.sealed(sound[:at] + b"\x63" + sound[at + 1 :]))


@pytest.mark.parametrize("decoder", RECORDS, ids=lambda one: one.name)
def test_a_record_whose_checksum_is_wrong_is_never_read(decoder: Any) -> None:
    """However it was damaged: each byte in turn, and each length."""
    (sound,) = decoder.sound

    assert decoder.try_on(sound)
    for at in range(len(sound)):
        flipped = sound[:at] + bytes([sound[at] ^ 0x10]) + sound[at + 1 :]
        assert not decoder.try_on(flipped)
        assert not decoder.try_on(sound[:at])
        assert not decoder.try_on(sound + sound[: at + 1])


ALIKE: Final[dict[str, Callable[[int], Any]]] = {
    "UUID": lambda n: UUID(int=n * (2**61 - 1)),
    "Decimal": lambda n: Decimal(n * (2**61 - 1)),
    "tuple": lambda n: tuple(-1 - (n >> bit & 1) for bit in range(16)),  # hash(-1) is hash(-2)
}
"""Values of one hash, which anybody can choose."""


def _map(keys: list[Any]) -> bytes:
    return (
        b"\xdf" + len(keys).to_bytes(4) + b"".join(pack(key, limit=LIMIT) + b"\xc0" for key in keys)
    )


def _set(keys: list[Any]) -> bytes:
    items = pack(keys, limit=10 * LIMIT)
    return b"\xc9" + len(items).to_bytes(4) + b"\x07" + items


@pytest.mark.parametrize("packed", [_map, _set])
@pytest.mark.parametrize("kind", ALIKE)
def test_keys_of_one_hash_are_refused_before_they_are_compared(
    kind: str, packed: Callable[[list[Any]], bytes]
) -> None:
    """It would take minutes, and the whole process waits."""
    keys = [ALIKE[kind](number) for number in range(1, 50_001)]

    with pytest.raises(StoreCorrupt, match="the same hash"):
        unpack(packed(keys))


@pytest.mark.parametrize("kind", ALIKE)
def test_what_has_few_keys_of_one_hash_is_stored(kind: str) -> None:
    keys = [ALIKE[kind](number) for number in range(1, MOST_ALIKE + 2)]
    few = {*keys[1:], *range(1, 5000)}  # 0 has the same one
    stored: tuple[Any, ...] = (few, dict.fromkeys(few), (few,))
    for value in stored:
        assert unpack(pack(value, limit=LIMIT)) == value

    refused: tuple[Any, ...] = ({*few, keys[0]}, dict.fromkeys([*few, keys[0]]), [{*keys}])
    for value in refused:
        with pytest.raises(InvalidValue, match="the same hash"):
            pack(value, limit=LIMIT)
