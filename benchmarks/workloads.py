"""The payloads that every benchmark uses, and the figures that they print."""

import math
import statistics
from collections.abc import Mapping, Sequence

from benchmarks.yardsticks.parts import Payload, encode

_FILLER = "the quick brown fox jumps over the lazy dog; "


def payloads(count: int, size: int = 200) -> list[Payload]:
    """*count* different payloads, each *size* bytes as msgpack, at least 20; with 0, empty ones."""
    if size == 0:
        return [{}] * count
    return [_payload(number, size) for number in range(count)]


def percentile(values: Sequence[float], percent: float) -> float:
    """The value that *percent* of the values do not exceed (nearest rank).

    >>> percentile([3, 1, 2, 4], 50), percentile([3, 1, 2, 4], 99)
    (2, 4)
    """
    ranked = sorted(values)
    return ranked[max(0, math.ceil(len(ranked) * percent / 100) - 1)]


def print_percentiles(unit: str, width: int, lines: Mapping[str, Sequence[float]]) -> None:
    """A table of p50, p90, p99 and worst, with titles as wide as that."""
    print(f"\n  {unit:{width}} {'p50':>7} {'p90':>7} {'p99':>7} {'worst':>7}")
    for title, values in lines.items():
        print(
            f"  {title:{width}} {statistics.median(values):7.2f} {percentile(values, 90):7.2f} "
            f"{percentile(values, 99):7.2f} {max(values):7.2f}"
        )


def _payload(number: int, size: int) -> Payload:
    text = f"{number} " + _FILLER * (size // len(_FILLER) + 1)
    length = size
    while True:
        payload = {"n": number, "text": text[:length]}
        over = len(encode(payload)) - size
        if over <= 0:
            return payload
        length -= over
