"""Payloads and results: Python values to bytes and back, with msgpack and a few types more.

The promise is symmetry: what `pack` takes, `unpack` gives back, equal and of the same types.
So whatever could not come back (a subclass, a `bytearray`, an int past 64 bits) is refused when a
job is enqueued, not when a worker reads it. Nothing that decodes can run code.
"""

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator
from datetime import date, datetime, timedelta, timezone
from decimal import Context, Decimal, InvalidOperation
from functools import partial
from reprlib import repr as short_repr
from struct import Struct
from typing import Any, Final
from uuid import UUID

from msgpack import ExtType, Packer, Unpacker, unpackb

from jobq.errors import InvalidValue, PayloadTooLarge, StoreCorrupt, shown

LIMIT: Final = 1024 * 1024
"""The default size limit of a payload or a result, in bytes as packed."""

MAX_DEPTH: Final = 1024
"""So many lists and dicts can be nested in one another: msgpack's own limit."""

LONGEST_NAME: Final = 100
"""So much of the name of a type is told in errors."""

MAX_INNER_DEPTH: Final = 32
"""So many containers of any kind can be nested from a tuple or a set on, that one included.

Each of those is packed on its own, inside its parent: at 32 tuples with 1 020 lists between each
two of them, msgpack 1.2.4 overran an 8 MB stack and killed the process.
"""


MOST_ALIKE: Final = 64
"""So many keys of a dict, or members of a set, may have the same hash.

Each is compared with all that came before it: 58 000 UUIDs that somebody has chosen for it, 1 MiB,
took two minutes to read. Text and bytes cannot be chosen so, since Python salts their hashes.
"""


def pack(value: Any, *, limit: int) -> bytes:
    """*value* as bytes, from which `unpack` makes an equal value of the same types.

    Storable are None, bool, int (-2**63 to 2**64 - 1), float, str, bytes, list, dict, datetime,
    date, timedelta, UUID, Decimal, tuple and set: exactly these types, no subclasses, to any
    mixture and as dict keys too. An aware datetime comes back with the same time and offset, but
    with that offset fixed, whatever its tzinfo was. Nobody may change *value* meanwhile.

    >>> unpack(pack({"user": 7, (1, 2): {"a"}}, limit=LIMIT))
    {'user': 7, (1, 2): {'a'}}

    Args:
        value: Any mixture of storable values.
        limit: The largest size allowed, in bytes.

    Raises:
        InvalidValue: Something in *value* is not storable; the message says where and what.
        PayloadTooLarge: The bytes would be more than *limit*.
    """
    return packer(limit)(value)


def packer(limit: int) -> Callable[[Any], bytes]:
    """`pack` for many values, with a limit: a third faster.

    A function of it is for one thread, and for one value at a time: packers are not re-entrant,
    and a finaliser or a tzinfo may call back into here.
    """
    encode = _packer().pack

    def pack(value: Any) -> bytes:
        try:
            data = encode(value)
            size = len(data)
            # All four types that have to be looked for pack with one of these bytes at their
            # head, so nearly all values that hold none are told without a walk. Measured: 0.13 us
            # for 50 bytes, the walk 0.3 us a container.
            if size <= limit and (
                size > MAX_DEPTH or len(data.translate(None, _ODD_BYTES)) != size
            ):
                _verify(value, data)
        except MemoryError:
            raise
        except Exception as error:  # of any kind: a datetime asks its tzinfo, which is user code
            found = _fault(value) or f"cannot store this value: {shown(error)}"
            raise InvalidValue(found) from error
        if size > limit:
            raise PayloadTooLarge(f"the value takes {size} bytes: the limit is {limit}")
        return data

    return pack


def unpack(data: bytes) -> Any:
    """The value that *data* holds.

    Memory stays in proportion to *data*, whatever is in it: at most some 100 bytes for each of
    its own. Timestamps as other msgpack writers make them come as aware UTC datetimes.

    >>> unpack(bytes.fromhex("93010203"))
    [1, 2, 3]

    Raises:
        StoreCorrupt: *data* is not what `pack` makes: damaged, cut short, or of another writer.
    """
    try:
        return _unpack(0, data)
    except (MemoryError, RecursionError):
        raise  # these tell of the caller's stack and machine, not of the bytes
    except Exception as error:
        raise StoreCorrupt(
            f"{len(data)} bytes are not a packed value: {type(error).__name__}: {error!s:.200}"
        ) from error


# Packing. msgpack does the plain types and asks `default` for the rest.

_TUPLE: Final = 6
_SET: Final = 7

_DAYS_SECONDS_US: Final = Struct(">iII")
_EXACT: Final = Context(traps=[InvalidOperation])  # a caller's own context may not trap it
_FOLD: Final = "~"


def _extend(value: Any) -> ExtType:
    """*value* as one of the extension types."""
    kind = type(value)
    if kind is tuple or kind is set:
        if _is_deep(value):
            raise ValueError(f"nested deeper than {MAX_INNER_DEPTH} levels")
        return ExtType(_TUPLE if kind is tuple else _SET, _packer().pack(list(value)))
    code, encode = _ENCODERS[kind]
    return ExtType(code, encode(value))


def _encode_datetime(value: datetime) -> bytes:
    # isoformat leaves out the fold, which tells the two naive times of a clock set back apart.
    return (value.isoformat() + _FOLD if value.fold else value.isoformat()).encode()


def _decode_datetime(data: bytes) -> datetime:
    text = data.decode()
    if text.endswith(_FOLD):
        return _read_datetime(text[:-1]).replace(fold=1)
    return _read_datetime(text)


def _read_datetime(text: str) -> datetime:
    if text[-16:-7] in ("+00:00:00", "-00:00:00"):  # CPython reads +00:00:00.000001 as UTC
        offset = timedelta(microseconds=int(text[-16] + text[-6:]))
        return datetime.fromisoformat(text[:-16]).replace(tzinfo=timezone(offset))
    return datetime.fromisoformat(text)


def _decode_date(data: bytes) -> date:
    return date.fromisoformat(data.decode())


def _encode_timedelta(value: timedelta) -> bytes:
    return _DAYS_SECONDS_US.pack(value.days, value.seconds, value.microseconds)


def _decode_timedelta(data: bytes) -> timedelta:
    return timedelta(*_DAYS_SECONDS_US.unpack(data))


# Stored bytes depend on these codes, and on _TUPLE and _SET: a code never gets another meaning.
_TYPES: Final[tuple[tuple[int, type, Callable[[Any], bytes], Callable[[bytes], Any]], ...]] = (
    (1, datetime, _encode_datetime, _decode_datetime),
    (2, date, lambda value: value.isoformat().encode(), _decode_date),
    (3, timedelta, _encode_timedelta, _decode_timedelta),
    (4, UUID, lambda value: value.bytes, lambda data: UUID(bytes=data)),
    (5, Decimal, lambda value: str(value).encode(), lambda data: Decimal(data.decode(), _EXACT)),
)
_ENCODERS: Final = {kind: (code, encode) for code, kind, encode, _ in _TYPES}
_DECODERS: Final = {code: decode for code, _, _, decode in _TYPES}

_packer = partial(Packer, default=_extend, strict_types=True, buf_size=512)  # type: ignore[call-arg]  # missing in the stubs


# Checking. msgpack also takes bytearray, memoryview, ExtType and Timestamp, even when strict.


def _verify(value: Any, data: bytes) -> None:
    """Raise unless *data*, which *value* packed to, unpacks to the same again."""
    if len(data) > MAX_DEPTH:
        _read_through(data)  # 1 025 lists with the innermost one empty pack but do not unpack
    if len(data.translate(None, _ODD_BYTES)) != len(data) and not _is_storable(value):
        raise TypeError("it holds a type that would come back as another")


_ODD_BYTES: Final = bytes([*range(0xC4, 0xCA), *range(0xD4, 0xD9)])  # bin and ext headers

_HASHING: Final = frozenset({dict, set})
_ALIKE: Final = f"more than {MOST_ALIKE} keys or members have the same hash"
_CONTAINERS: Final = frozenset({dict, list, tuple, set})
_LEAVES: Final = frozenset({type(None), bool, int, float, str, bytes, *_ENCODERS})


def _is_storable(value: Any) -> bool:
    """Whether all types in *value*, which packed and so has no cycle, are storable ones."""
    pending = [value]
    while pending:
        item = pending.pop()
        if type(item) in _CONTAINERS:
            if type(item) in _HASHING and _are_alike(item):
                raise ValueError(_ALIKE)
            for members in _members(item):
                if not _LEAVES.issuperset(map(type, members)):  # a loop in C
                    pending += [one for one in members if type(one) not in _LEAVES]
        elif type(item) not in _LEAVES:
            return False
    return True


def _are_alike(keys: Collection[Any]) -> bool:
    """Whether too many of *keys* have the same hash."""
    if len(keys) <= MOST_ALIKE or len(keys) - len(set(map(hash, keys))) < MOST_ALIKE:
        return False
    return max(Counter(map(hash, keys)).values()) > MOST_ALIKE


def _is_deep(value: Any) -> bool:
    """Whether containers are nested in *value* deeper than the inner limit, *value* included."""
    level = [value]
    for _ in range(MAX_INNER_DEPTH):
        inner: dict[int, Any] = {}  # by identity, else what is shared would double at each level
        for item in level:
            for members in _members(item):
                if not _LEAVES.issuperset(map(type, members)):
                    inner |= {id(one): one for one in members if type(one) in _CONTAINERS}
        if not inner:
            return False
        level = list(inner.values())
    return True


def _members(container: Any) -> tuple[Iterable[Any], ...]:
    return (container, container.values()) if type(container) is dict else (container,)


# Refusing. This walk looks for what the packer met; it is taken only once something is wrong.


def _fault(value: Any) -> str | None:
    """What in *value* cannot be stored, where it is and what was expected; None if not found.

    Goes in the order of the packer, so through a cycle it comes to the depth limit and ends.
    """
    walk = [iter([("$", value)])]
    path: list[str] = []  # the steps to what is looked at ...
    around: list[Any] = []  # ... and the containers that they lead through
    try:
        while walk:
            for step, item in walk[-1]:
                wrong = _wrong(item, around)
                if wrong:
                    what, expected = wrong
                    return f"cannot store {what} at {_joined([*path, step])}: expected {expected}"
                if type(item) in _CONTAINERS:
                    path.append(step)
                    around.append(item)
                    walk.append(_steps(item))
                    break
            else:
                walk.pop()
                del path[-1:], around[-1:]
    except RuntimeError:  # a dict or set changed its size under the walk
        return None
    return None


def _wrong(item: Any, around: list[Any]) -> tuple[str, str] | None:
    """What *item* is and what was expected in its place; None if nothing is wrong with it."""
    kind = type(item)
    if kind in _CONTAINERS:
        expected = _depth_expected(kind, around)
        return None if expected is None else (f"{kind.__name__} nested so deep", expected)
    if kind is int and not -(2**63) <= item < 2**64:
        return "int past 64 bits", "-2**63 to 2**64 - 1"
    if kind is str:
        try:
            item.encode()
        except UnicodeEncodeError:
            return "str with a lone surrogate", "text that UTF-8 can encode"
    if kind is datetime:
        try:
            item.isoformat()
        except Exception as error:  # noqa: BLE001 - of any kind: its tzinfo is user code
            return f"datetime whose tzinfo fails ({shown(error)})", "one that tells its offset"
    if kind in _LEAVES:
        return None
    name = kind.__qualname__ if kind.__module__ == "builtins" else _full_name(kind)
    name = name[:LONGEST_NAME]
    for known in _STORABLE:
        if issubclass(kind, known):
            return name, f"{known.__name__} itself, no subclass of it"
    return name, ", ".join(known.__name__ for known in _STORABLE) + " or None"


_STORABLE: Final = (
    *(bool, int, float, str, bytes, list, dict),
    *(datetime, date, timedelta, UUID, Decimal, tuple, set),
)  # as the documents have it; datetime comes before date, its base


def _depth_expected(kind: type, around: list[Any]) -> str | None:
    """What limit a container of *kind* inside *around* is past; None if within all."""
    apart = next((at for at, item in enumerate(around) if type(item) in (tuple, set)), None)
    if apart is not None:
        within = len(around) - apart < MAX_INNER_DEPTH
        limit = f"at most {MAX_INNER_DEPTH} levels from a tuple or set on, and no cycle"
    else:
        within = kind in (tuple, set) or len(around) < MAX_DEPTH
        limit = f"at most {MAX_DEPTH} levels of lists and dicts, and no cycle"
    return None if within else limit


def _full_name(kind: type) -> str:
    return f"{kind.__module__}.{kind.__qualname__}"


def _steps(container: Any) -> Iterator[tuple[str, Any]]:
    """What is in *container*, each with how a path writes the step to it."""
    if type(container) is dict:
        for key, member in container.items():
            yield "{key}", key
            yield _step(key), member  # asked for only when the key was found storable
    elif type(container) is set:
        for one in container:
            yield "{element}", one
    else:
        for at, one in enumerate(container):
            yield f"[{at}]", one


def _step(key: Any) -> str:
    if type(key) is str and key.isidentifier() and len(key) <= 60:
        return f".{key}"
    if type(key) in _SHOWN:
        return f"[{short_repr(key)}]"
    return f"[{type(key).__name__}]"


_SHOWN: Final = frozenset({type(None), bool, int, float, str, bytes})


def _joined(steps: list[str]) -> str:
    """The path, its middle left out when it is long."""
    return "".join(steps if len(steps) <= 20 else [*steps[:10], "...", *steps[-9:]])


# Unpacking.


def _unpack(depth: int, data: bytes) -> Any:
    pairs = None
    if len(data) > _TRUSTED:
        _read_through(data)
        if len(data.translate(None, _ODD_BYTES)) != len(data):
            pairs = _dict_of
    return unpackb(
        data,
        strict_map_key=False,
        timestamp=3,
        ext_hook=_HOOKS[depth],
        object_pairs_hook=pairs,
    )


def _dict_of(pairs: list[tuple[Any, Any]]) -> dict[Any, Any]:
    """The dict of these keys and values, of which only extension types can be alike."""
    if len(pairs) > MOST_ALIKE and _are_alike([key for key, _ in pairs]):
        raise ValueError(_ALIKE)
    return dict(pairs)


def _decode(depth: int, code: int, data: bytes) -> Any:
    """The value of an extension type that is inside *depth* others."""
    if code in (_TUPLE, _SET):
        if depth == MAX_INNER_DEPTH:
            raise ValueError(f"extension types nested deeper than {MAX_INNER_DEPTH} levels")
        items = _unpack(depth + 1, data)
        if type(items) is not list:
            raise ValueError(f"a tuple or set made of a {type(items).__name__}")
        # As when it is packed, else what decodes could not be packed again. So few bytes are too
        # few for that, and from the outermost tuple or set on all that is inside is counted.
        if depth == 0 and len(data) > MAX_INNER_DEPTH and _is_deep(items):
            raise ValueError(f"nested deeper than {MAX_INNER_DEPTH} levels in a tuple or set")
        if code == _TUPLE:
            return tuple(items)
        if _are_alike(items):
            raise ValueError(_ALIKE)
        return set(items)
    decode = _DECODERS.get(code)
    if decode is None:
        raise ValueError(f"unknown extension type {code}")
    return decode(data)


def _read_through(data: bytes) -> None:
    """Raise what `unpackb` would of the structure of *data*, without building anything.

    An array is allocated at the length that it claims: for 1 MB of nothing but the heads of
    nested arrays, msgpack 1.2.4 allocates 8 GB before it finds the end. This costs a tenth of
    unpacking.
    """
    reader = Unpacker(max_buffer_size=len(data))
    reader.feed(data)
    reader.skip()


# Bytes. All heads of nested arrays in so few claim 32 MB at most, and as many keys of one hash as
# there can be are read in 5 ms.
_TRUSTED: Final = 4096

_HOOKS: Final = [partial(_decode, depth) for depth in range(MAX_INNER_DEPTH + 1)]
