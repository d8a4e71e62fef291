"""Arguments that nobody should pass: past every range, of every wrong type, and objects that lie.

What such an object raises by itself is `Mischief`, so that a test can tell the caller's own errors,
which come through as they are, from what jobq should have refused.
"""

import enum
import math
import threading
from collections import UserString, deque
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime, time, timedelta, timezone, tzinfo
from decimal import Decimal
from fractions import Fraction
from pathlib import PurePosixPath
from types import SimpleNamespace
from typing import Any, Final, NoReturn
from uuid import UUID

import msgpack
from hypothesis import strategies as st


class Mischief(Exception):
    """Raised by an argument, not by jobq."""


def refuse(*_: object, **__: object) -> NoReturn:
    raise Mischief


def always(value: object) -> Any:
    """A method that gives *value* whatever it is asked."""
    return lambda *_, **__: value


_COMPARISONS: Final = ("__eq__", "__ne__", "__lt__", "__le__", "__gt__", "__ge__")


def _kind(base: type, name: str, methods: dict[str, Any]) -> type:
    return type(name, (base,), {"__hash__": base.__hash__, **methods})


def _liars(base: type) -> list[type]:
    """Subclasses of a number or of str whose answers are not what they hold."""
    asks = [one for one in ("__len__", "__iter__", "__int__", "__index__", "__float__", "__bool__",
                            "__repr__", "__str__", "__format__", "encode", "replace", "lower",
                            "total_seconds", "isascii", "__contains__")
            if hasattr(base, one)]  # fmt: skip
    return [
        _kind(base, "Agrees", dict.fromkeys(_COMPARISONS, always(True))),
        _kind(base, "Disagrees", dict.fromkeys(_COMPARISONS, always(False))),
        _kind(base, "Incomparable", dict.fromkeys(_COMPARISONS, refuse)),
        _kind(base, "Unhashable", {"__hash__": None}),
        _kind(base, "HashRaises", {"__hash__": refuse}),
        _kind(base, "AnswersNot", dict.fromkeys(asks, refuse)),
        _kind(base, "AnswersNonsense", {**dict.fromkeys(asks, always(2**70)), "__len__": always(3),
                                        "__repr__": always("nonsense"), "__str__": always("no")}),
    ]  # fmt: skip


LYING_TEXTS: Final = _liars(str)
LYING_INTS: Final = _liars(int)
LYING_FLOATS: Final = _liars(float)
LYING_SPANS: Final = _liars(timedelta)


class Mute:
    """Has no repr, as half-built objects have."""

    __repr__ = refuse


class Wordy:
    def __repr__(self) -> str:
        return "word " * 200_000


class Steers:
    """Its repr would clear the screen."""

    def __repr__(self) -> str:
        return "\x1b[2J\x1b]0;owned\x07\u202e"


class Vague:
    """Compares as arrays do: to something that is neither true nor false."""

    __hash__ = object.__hash__

    def __eq__(self, other: object) -> Any:
        return self

    def __bool__(self) -> bool:
        raise ValueError("the truth value of an array is ambiguous")


class Impostor:
    """Passes for another type wherever `isinstance` is asked, as mocks do."""

    def __init__(self, kind: type) -> None:
        self._kind = kind

    def __getattribute__(self, name: str) -> Any:
        return object.__getattribute__(self, "_kind" if name == "__class__" else name)


class Path:
    def __init__(self, path: Callable[[], Any]) -> None:
        self._path = path

    def __fspath__(self) -> Any:
        return self._path()


class Iterates:
    def __init__(self, items: Callable[[], Any]) -> None:
        self._items = items

    def __iter__(self) -> Any:
        return self._items()


class Zone(tzinfo):
    """A time zone that answers with what it was given, or fails."""

    def __init__(self, offset: Callable[[], Any]) -> None:
        self._offset = offset

    def utcoffset(self, _: datetime | None) -> Any:
        return self._offset()

    dst = tzname = utcoffset


class Silent(Exception):
    __str__ = __repr__ = refuse


class Level(enum.IntEnum):
    HIGH = 2**40


class Word(enum.StrEnum):
    READY = "ready"
    OTHER = "other\x1b[2J"


class Old(str, enum.Enum):  # noqa: UP042 - what older programs have
    MAIL = "mail"


class Bits(enum.IntFlag):
    ONE = 1


LONG_NAME: Final = type("Long" * 250_000, (), {"__init__": always(None), "__repr__": refuse})


def broken_off() -> Iterator[Any]:
    """Gives a value, and then fails."""
    yield "mail"
    raise Mischief


def nested(levels: int, wrap: Callable[[Any], Any]) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = wrap(value)
    return value


def in_itself() -> list[Any]:
    value: list[Any] = [1]
    value.append(value)
    return value


def holds_itself() -> dict[Any, Any]:
    value: dict[Any, Any] = {}
    value["me"] = (value, [value])
    return value


TEXTS: Final[list[Any]] = [
    *("", " ", "a" * 255, "a" * 256, "é" * 127, "é" * 128, "\ud800", "mail\udcff"),
    *("x" * 1_000_000, "é" * 500_000),
    *("\0", "a\0b", "\n", "a\nb", "\r", "\t", "\x7f"),
    *("\x1b[2J\x1b]0;owned\x07", "\u202eliam", "\u200f"),
    *("/", "..", ".", "../../etc/passwd", "~", "*", "**", "[", "[!", "[z-a]", "[[a]&&b]"),
    *("(?i)x", "{0}"),
    *("%s%n", "%(x)s", "nan", "1e999", "None", "true"),
    *(":memory:", "postgresql://", "file:///tmp", "C:\\"),
    *("𝕞𝕒𝕚𝕝", "مرحبا", "手紙", "e\u0301" * 60, "\U0010ffff", "\ufeffmail", "K", "ſ", "İ"),
    *("ready", "READY", "done", "canceled", "poison", "waiting", "return", "full", "reject"),
    *("0" * 32, "018bcfe5-6800-7000-8000-000000000001", "018BCFE5-6800-7000-8000-000000000001"),
    *("FFFFFFFF-FFFF-FFFF-FFFF-FFFFFFFFFFFF", "{018bcfe5-6800-7000-8000-000000000001}", "٣" * 36),
]  # fmt: skip

NUMBERS: Final[list[Any]] = [
    *(True, False, 0, 1, -1, 2, 255, 256, 32_767, 32_768, -32_768, -32_769),
    *(2**31 - 1, 2**31, 2**32),
    *(2**53, 2**62, 2**63 - 1, 2**63, 2**64 - 1, 2**64, -(2**63), -(2**63) - 1, 10**400),
    -(10**400),
    *(0.0, -0.0, 0.5, 1.0, 5e-324, 1e-7, 3153600000.0, 3153600000.1, 1e300),
    *(math.inf, -math.inf, math.nan),
    *(Decimal(1), Decimal("sNaN"), Decimal("1e999999"), Fraction(1, 3), 1j, Level.HIGH, Bits.ONE),
]  # fmt: skip

TIMES: Final[list[Any]] = [
    *(timedelta(0), timedelta(1), timedelta.min, timedelta.max, -timedelta.resolution),
    *(datetime.min, datetime.max, datetime(2030, 1, 1), datetime(2030, 1, 1, tzinfo=UTC)),
    *(datetime.min.replace(tzinfo=timezone(timedelta(hours=h))) for h in (14, -14)),
    *(datetime.max.replace(tzinfo=timezone(timedelta(hours=h))) for h in (14, -14)),
    *(datetime(9998, 12, 31, 23, 59, tzinfo=UTC), datetime(1970, 1, 1, tzinfo=UTC)),
    *(date.max, time.max, UTC),
    *(datetime(2030, 1, 1, tzinfo=Zone(offset)) for offset in
      (refuse, always(None), always(7), always("x"), always(timedelta(hours=25)))),
]  # fmt: skip

OBJECTS: Final[list[Any]] = [
    *(None, object(), NotImplemented, ..., type, int, str, print, refuse, math, Mischief),
    *(b"", b"mail", b"\xff" * 16, bytearray(b"mail"), memoryview(b"mail"), UserString("mail")),
    *(Mute(), Wordy(), Steers(), Vague(), LONG_NAME(), LONG_NAME, threading.Lock()),
    *(Impostor(kind) for kind in (str, int, float, bool, list, dict, tuple, datetime, timedelta)),
    *(Path(path) for path in (always(7), always(b"x"), always("a\0b"), refuse)),
    *(Iterates(items) for items in (always(7), refuse, broken_off)),
    *(Word.READY, Word.OTHER, Old.MAIL, Word, UUID(int=7), PurePosixPath("x")),
    *(ValueError("x" * 1_000_000), Mischief(), Silent("x"), Silent, KeyboardInterrupt()),
    *(ExceptionGroup("many", [ValueError(1), Silent()]), SimpleNamespace(topic="mail")),
    *(msgpack.ExtType(1, b"x"), msgpack.Timestamp(2**33, 5)),
    *(kind("mail") for kind in LYING_TEXTS), *(kind("\ud800") for kind in LYING_TEXTS),
    *(kind("x" * 300) for kind in LYING_TEXTS),
    *(kind(1) for kind in LYING_INTS), *(kind(10**30) for kind in LYING_INTS),
    *(kind(-1) for kind in LYING_INTS),
    *(kind(1) for kind in LYING_FLOATS), *(kind("nan") for kind in LYING_FLOATS),
    *(kind(-1) for kind in LYING_FLOATS), *(kind("inf") for kind in LYING_FLOATS),
    *(kind(1) for kind in LYING_SPANS), *(kind(-1) for kind in LYING_SPANS),
]  # fmt: skip

SEVERAL: Final[list[Callable[[], Any]]] = [
    *(list, tuple, set, dict, broken_off, in_itself, holds_itself, lambda: iter([1])),
    lambda: nested(100_000, lambda value: [value]),
    lambda: nested(50_000, lambda value: (value,)),
    lambda: nested(2_000, lambda value: {"k": value}),
    lambda: ["mail"], lambda: ["mail", "mail"], lambda: ["", None], lambda: [1, "a"], lambda: [[]],
    lambda: ["a"] * 33, lambda: ["a"] * 2_000, lambda: {"mail"}, lambda: frozenset({"a", 1}),
    lambda: {"mail": 1}, lambda: {"mail": math.nan}, lambda: {1: 1}, lambda: {"mail": Vague()},
    lambda: range(3), lambda: deque(["a"]), {"a": 1}.keys, lambda: map(refuse, [1]),
    lambda: [Mute()], lambda: [Mischief()], lambda: (1, 60), lambda: (1, 0), lambda: (2**31, 1e-9),
    lambda: [b"mail"], lambda: {b"k": {(): object()}}, lambda: [{1: [Vague()]}], lambda: [10**400],
    lambda: {Vague(): 1}, lambda: [LONG_NAME()], lambda: {"x" * 1_000_000: object()},
    lambda: [LYING_TEXTS[0]("x")], lambda: (LYING_INTS[0](10**30), LYING_FLOATS[0](-1)),
    lambda: {"kind": "queue", "version": 1, "last_place": 0},
    lambda: [{"kind": "queue", "version": 1, "last_place": 2**62}],
]  # fmt: skip

FIXED: Final[list[Any]] = [*TEXTS, *NUMBERS, *TIMES, *OBJECTS]


class Given:
    """A value to be passed; shows as something whatever it is, in what hypothesis reports."""

    def __init__(self, value: Any) -> None:
        self.value = value

    def __repr__(self) -> str:
        return told(self.value)


def told(value: object) -> str:
    """What *value* is, for the report of a test."""
    kind = f"{type(value).__name__:.40}"
    try:
        return f"{kind} {value!r:.80}"
    except Exception:  # noqa: BLE001 - that is what some of them are for
        return f"{kind} without a repr"


_plain = st.one_of(
    st.text(st.characters(), max_size=300),  # lone surrogates too
    st.integers(),
    st.floats(),
    st.binary(max_size=40),
    st.datetimes(timezones=st.none() | st.just(UTC)),
    st.timedeltas(),
)
_fixed = st.integers(0, len(FIXED) - 1).map(lambda at: FIXED[at])
_shaped = st.recursive(
    _plain | _fixed,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(_plain, inner, max_size=3),
    max_leaves=6,
)

hostile: Final[st.SearchStrategy[Given]] = st.one_of(
    _fixed.map(Given),
    st.integers(0, len(SEVERAL) - 1).map(lambda at: Given(SEVERAL[at]())),
    _plain.map(Given),
    _shaped.map(Given),
)
"""Whatever a caller may come up with; a new object each time where one is used up by a look."""
