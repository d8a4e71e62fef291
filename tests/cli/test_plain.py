"""Payloads as values of JSON: always possible, and nothing is lost or mixed up."""

import json
import math
from base64 import b64decode
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any, Final
from uuid import UUID

import pytest
from hypothesis import given

from jobq import codec
from jobq.cli.plain import DEEPEST, packed, plain
from tests.test_codec import exact, values

READERS: Final[dict[str, Callable[[Any], Any]]] = {
    "$float": float,
    "$bytes": b64decode,
    "$datetime": datetime.fromisoformat,
    "$date": date.fromisoformat,
    "$timedelta": lambda text: timedelta(microseconds=int(Decimal(text).scaleb(6))),
    "$uuid": UUID,
    "$decimal": Decimal,
    "$tuple": lambda members: tuple(map(read, members)),
    "$set": lambda members: set(map(read, members)),
    "$dict": lambda pairs: {read(key): read(member) for key, member in pairs},
    "$packed": lambda text: codec.unpack(b64decode(text)),
}


def read(value: Any) -> Any:
    """The way back: if there is one, nothing was lost."""
    if isinstance(value, list):
        return [read(member) for member in value]
    if not isinstance(value, dict):
        return value
    if len(value) == 1:
        ((tag, inner),) = value.items()
        if tag in READERS:
            return READERS[tag](inner)
    return {key: read(member) for key, member in value.items()}


@given(values)
def test_every_payload_is_written_and_nothing_is_lost(value: Any) -> None:
    value = codec.unpack(codec.pack(value, limit=codec.LIMIT))
    text = json.dumps(plain(value), allow_nan=False)
    again = read(json.loads(text))

    if "+00:00:00." in text or "-00:00:00." in text:  # CPython reads these offsets as UTC
        return
    if '"nan"' in text:  # which of the many NaNs it was is not written
        assert json.dumps(plain(again)) == text
    else:
        assert exact(again) == exact(value)


@pytest.mark.parametrize(
    ("value", "written"),
    [
        (None, None),
        (2**64 - 1, 2**64 - 1),
        ("手紙\x1b", "手紙\x1b"),
        (-0.0, -0.0),
        (math.nan, {"$float": "nan"}),
        (-math.inf, {"$float": "-inf"}),
        (b"\xff", {"$bytes": "/w=="}),
        (datetime(2024, 2, 29, 12, tzinfo=UTC), {"$datetime": "2024-02-29T12:00:00+00:00"}),
        (date(2024, 2, 29), {"$date": "2024-02-29"}),
        (timedelta(days=1, microseconds=500), {"$timedelta": "86400.000500"}),
        (UUID(int=7), {"$uuid": "00000000-0000-0000-0000-000000000007"}),
        (Decimal("1.10"), {"$decimal": "1.10"}),
        ((1, (2,)), {"$tuple": [1, {"$tuple": [2]}]}),
        ({"b", "a"}, {"$set": ["a", "b"]}),
        ({"a": {"b": []}}, {"a": {"b": []}}),
        ({1: "x"}, {"$dict": [[1, "x"]]}),
        ({"$set": 1}, {"$dict": [["$set", 1]]}),
        ({"$set": 1, "more": 2}, {"$set": 1, "more": 2}),
        ({"$other": 1}, {"$other": 1}),
    ],
)
def test_what_a_value_looks_like(value: Any, written: Any) -> None:
    assert plain(value) == written
    assert exact(read(plain(value))) == exact(value)


def test_the_two_times_of_a_clock_set_back_stay_apart() -> None:
    second = datetime(2024, 10, 27, 2, 30, fold=1)

    assert plain(second) != plain(second.replace(fold=0))
    assert read(plain(second)).fold == 1


def test_an_offset_with_seconds_is_kept() -> None:
    moment = datetime(1890, 1, 1, tzinfo=timezone(timedelta(seconds=3208)))

    assert read(plain(moment)) == moment


def nested(wrap: Callable[[Any], Any], times: int) -> Any:
    value: Any = 1
    for _ in range(times):
        value = wrap(value)
    return value


@pytest.mark.parametrize(
    "wrap",
    [lambda value: [value], lambda value: {"a": value}, lambda value: {1: value}],
    ids=["list", "dict", "odd dict"],
)
def test_what_is_nested_as_deep_as_can_be_is_written_too(wrap: Callable[[Any], Any]) -> None:
    value = nested(wrap, codec.MAX_DEPTH)
    text = json.dumps(plain(value))

    assert text.count("$packed") == 1
    assert codec.pack(read(json.loads(text)), limit=codec.LIMIT) == codec.pack(
        value, limit=codec.LIMIT
    )
    assert "$packed" not in json.dumps(plain(nested(wrap, DEEPEST)))


def test_packed_bytes_can_be_shown_without_being_unpacked() -> None:
    assert packed(b"\xc1") == {"$packed": "wQ=="}
