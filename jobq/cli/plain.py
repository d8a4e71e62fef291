"""Payloads as values of JSON: for people, for other programs, for other languages.

JSON has less than a payload can hold, so what it has not is written as an object with one key
that says what it is. What JSON has is written as it is, and no two payloads look the same.

| payload | JSON |
|---|---|
| None, bool, int, str, list | the same; integers may have 64 bits |
| float | a number; `{"$float": "nan"}`, `"inf"` or `"-inf"` where JSON has none |
| dict with text as keys | an object |
| dict with other keys | `{"$dict": [[key, value], …]}` |
| bytes | `{"$bytes": "<base64>"}` |
| datetime, date | `{"$datetime": "<ISO 8601>"}`, `{"$date": "<ISO 8601>"}` |
| timedelta | `{"$timedelta": "<seconds>"}` |
| UUID, Decimal | `{"$uuid": "…"}`, `{"$decimal": "…"}` |
| tuple, set | `{"$tuple": […]}`, `{"$set": […]}` |
| what is nested deeper than `DEEPEST` levels | `{"$packed": "<base64 of its msgpack>"}` |

A dict that would be taken for one of these, such as `{"$uuid": 1}`, is written as `$dict`.
"""

import json
import math
from base64 import b64encode
from collections.abc import Callable
from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import Any, Final, TypeAlias
from uuid import UUID

from jobq import codec

Plain: TypeAlias = "bool | int | float | str | list[Plain] | dict[str, Plain] | None"

DEEPEST: Final = 64
"""So many containers are written in one another: at most 192 levels of JSON. Payloads may be deeper
than readers of JSON go: `jq` 1.6 ends at 256, Python's own at about 990."""

_NO_LIMIT: Final = 2**32


def plain(value: Any) -> Plain:
    """*value*, which a payload or a result can be, as a value of JSON. Never fails for those.

    >>> plain({"id": 7, "tags": ("a", b"b")})
    {'id': 7, 'tags': {'$tuple': ['a', {'$bytes': 'Yg=='}]}}
    """
    return _plain(value, 0)


def packed(data: bytes) -> Plain:
    """Packed bytes that cannot be, or are better not, unpacked."""
    return {"$packed": _base64(data)}


def _plain(value: Any, depth: int) -> Plain:
    kind = type(value)
    if kind in _AS_IT_IS:
        return value  # type: ignore[no-any-return] # None, bool, int or str
    if kind is float:
        return value if math.isfinite(value) else {"$float": str(value)}
    tagged = _TAGGED.get(kind)
    if tagged is not None:
        tag, write = tagged
        return {tag: write(value)}
    if kind is datetime:
        # ISO 8601 cannot tell the two naive times of a clock set back apart.
        return _pack(value) if value.fold else {"$datetime": value.isoformat()}
    if depth == DEEPEST:
        return _pack(value)
    if kind is dict:
        return _object(value, depth + 1)
    members = [_plain(member, depth + 1) for member in value]
    if kind is tuple:
        return {"$tuple": members}
    if kind is set:
        return {"$set": sorted(members, key=json.dumps)}
    return members


def _object(value: dict[Any, Any], depth: int) -> Plain:
    if all(type(key) is str for key in value) and not (len(value) == 1 and value.keys() <= _TAGS):
        return {key: _plain(member, depth) for key, member in value.items()}
    pairs = [[_plain(key, depth), _plain(member, depth)] for key, member in value.items()]
    return {"$dict": pairs}  # type: ignore[dict-item] # lists are invariant


def _pack(value: Any) -> Plain:
    return packed(codec.pack(value, limit=_NO_LIMIT))


def _base64(data: bytes) -> str:
    return b64encode(data).decode()


def _seconds(value: timedelta) -> str:
    """In seconds, exact.

    >>> _seconds(timedelta(microseconds=-1)), _seconds(timedelta(days=1))
    ('-0.000001', '86400')
    """
    us = value // timedelta(microseconds=1)
    whole, part = divmod(abs(us), 1_000_000)
    return f"{'-' if us < 0 else ''}{whole}{f'.{part:06}' if part else ''}"


_AS_IT_IS: Final = frozenset({type(None), bool, int, str})
_TAGGED: Final[dict[type, tuple[str, Callable[[Any], str]]]] = {
    bytes: ("$bytes", _base64),
    date: ("$date", date.isoformat),
    timedelta: ("$timedelta", _seconds),
    UUID: ("$uuid", str),
    Decimal: ("$decimal", str),
}
_TAGS: Final = frozenset(
    {tag for tag, _ in _TAGGED.values()}
    | {"$float", "$datetime", "$tuple", "$set", "$dict", "$packed"}
)
