import enum
import random
import struct
import threading
import tracemalloc
from collections import Counter, OrderedDict, defaultdict, namedtuple
from collections.abc import Callable, Hashable
from datetime import UTC, date, datetime, time, timedelta, timezone, tzinfo
from decimal import Context, Decimal, localcontext
from fractions import Fraction
from typing import Any
from uuid import UUID

import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jobq.codec import LIMIT, MAX_DEPTH, MAX_INNER_DEPTH, pack, unpack
from jobq.errors import InvalidValue, PayloadTooLarge, StoreCorrupt

NAIVE = datetime.fromisoformat("2024-10-27T02:30")
FIRST = datetime.fromisoformat("0001-01-01")
LAST = datetime.fromisoformat("9999-12-31T23:59:59.999999")


def packed(value: Any) -> bytes:
    return pack(value, limit=LIMIT)


def exact(value: Any) -> Hashable:
    """*value* in a form that is equal for another only if nothing at all tells the two apart."""
    kind = type(value)
    if kind in (list, tuple):
        return kind, tuple(exact(one) for one in value)
    if kind is dict:
        return kind, tuple((exact(key), exact(one)) for key, one in value.items())
    if kind is set:
        return kind, frozenset(Counter(exact(one) for one in value).items())
    if kind is float:
        return kind, struct.pack(">d", value)  # tells -0.0 from 0.0, and one NaN from another
    if kind is Decimal:
        return kind, value.as_tuple()
    if kind is datetime:
        return kind, value.replace(tzinfo=None), value.fold, value.utcoffset()
    assert isinstance(value, Hashable)
    return kind, value


def nested(depth: int, wrap: Callable[[Any], Any], value: Any) -> Any:
    for _ in range(depth):
        value = wrap(value)
    return value


def in_list(value: Any) -> Any:
    return [value]


def in_dict(value: Any) -> Any:
    return {"k": value}


def in_tuple(value: Any) -> Any:
    return (value,)


def is_hashable(value: Any) -> bool:
    try:
        hash(value)
    except TypeError:  # a signalling NaN
        return False
    return True


def datetimes() -> st.SearchStrategy[datetime]:
    day = timedelta(days=1) - timedelta.resolution
    zones = st.timedeltas(-day, day).map(timezone) | st.just(UTC)
    moments = st.datetimes() | st.datetimes(timezones=zones)
    return st.builds(lambda moment, fold: moment.replace(fold=fold), moments, st.integers(0, 1))


leaves = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**63), 2**64 - 1),
    st.floats(),
    st.text(max_size=40),
    st.binary(max_size=40),
    datetimes(),
    st.dates(),
    st.timedeltas(),
    st.uuids(),
    st.decimals(),
)
keys = st.recursive(
    leaves.filter(is_hashable), lambda inner: st.lists(inner, max_size=3).map(tuple), max_leaves=4
)
values = st.recursive(
    leaves | st.sets(keys, max_size=4),
    lambda inner: st.one_of(
        st.lists(inner, max_size=5),
        st.dictionaries(keys, inner, max_size=5),
        st.lists(inner, max_size=5).map(tuple),
    ),
    max_leaves=20,
)


@settings(max_examples=200, deadline=None)
@given(values)
def test_what_can_be_packed_comes_back_equal_and_of_the_same_types(value: Any) -> None:
    assert exact(unpack(packed(value))) == exact(value)


@pytest.mark.parametrize(
    "value",
    [
        *(None, True, False, 0, 1, -1, 2**63, -(2**63), 2**64 - 1),
        *(0.0, -0.0, 5e-324, float("inf"), float("-inf"), float("nan")),
        struct.unpack(">d", bytes.fromhex("fff8dead00000001"))[0],
        *("", "\0", "é", "日本", "😀", b"", b"\xc7\xff"),
        *([], {}, (), set(), [[]], {"": {}}, ((),), {()}),
        {True: 1, 2: 2, 3.5: 3, None: 4, b"k": 5, "k": 6, (1, (2,)): 7, date(2024, 2, 29): 8},
        {float("nan"): 1, -0.0: 2},
        {(1, "a"), (1, ("b", None)), UUID(int=7)},
        {float("nan"), Decimal("NaN")},
        [{"a": ({1, 2}, [NAIVE, {(): ()}])}],
        *(timedelta.min, timedelta.max, timedelta.resolution, -timedelta.resolution),
        *(date.min, date.max, FIRST, LAST, NAIVE.replace(fold=1)),
        FIRST.replace(tzinfo=timezone(timedelta(hours=14))),
        LAST.replace(tzinfo=timezone(timedelta(hours=-14, microseconds=1))),
        NAIVE.replace(tzinfo=timezone(timedelta(microseconds=1)), fold=1),
        FIRST.replace(tzinfo=timezone(-timedelta(microseconds=999_999))),
        *map(Decimal, ["0", "-0", "0E-30", "1E+999999", "Infinity", "-NaN12", "sNaN7", "1.50"]),
        Decimal("9" * 1000),
        {f"key {n}": n for n in range(70_000)},
    ],
    # A set has another order in every process, and tests need the same names in all of them.
    ids=lambda value: "a set" if isinstance(value, set) else f"{value!r:.40}",
)
def test_values_at_the_edges_come_back_exact(value: Any) -> None:
    assert exact(unpack(packed(value))) == exact(value)


def test_a_dict_keeps_its_order() -> None:
    value = {"z": 1, 2: 2, "a": 3, (): 4}

    assert list(unpack(packed(value))) == ["z", 2, "a", ()]


class Zone(tzinfo):
    """A zone made of a function."""

    def __init__(self, offset: Callable[[datetime], timedelta]) -> None:
        self._offset = offset

    def utcoffset(self, moment: datetime | None) -> timedelta:
        assert moment is not None
        return self._offset(moment)

    def dst(self, moment: datetime | None) -> None:
        pass

    def tzname(self, moment: datetime | None) -> None:
        pass


def test_an_aware_datetime_comes_back_with_its_offset_fixed() -> None:
    berlin = Zone(lambda moment: timedelta(hours=1 if moment.fold else 2))

    for fold, hours in ((0, 2), (1, 1)):
        value = NAIVE.replace(tzinfo=berlin, fold=fold)
        back = unpack(packed(value))

        assert type(back.tzinfo) is timezone
        assert back.utcoffset() == timedelta(hours=hours)
        assert exact(back) == exact(value)


class Level(enum.IntEnum):
    HIGH = 1


class Colour(enum.StrEnum):
    RED = "red"


class Moment(datetime):
    pass


class Cents(Decimal):
    pass


Point = namedtuple("Point", "x y")  # noqa: PYI024 - what users have


@pytest.mark.parametrize(
    ("value", "what"),
    [
        (object(), "object"),
        (Fraction(1, 2), "fractions.Fraction"),
        (1j, "complex"),
        (time(12), "datetime.time"),
        (frozenset(), "frozenset"),
        (range(3), "range"),
        (int, "type"),
        (bytearray(b"x"), "bytearray"),
        (memoryview(b"x"), "memoryview"),
        (msgpack.Timestamp(1), "msgpack.ext.Timestamp"),
        (msgpack.ExtType(1, b"2024-01-01"), "msgpack.ext.ExtType"),
        (Level.HIGH, "Level .* int itself"),
        (Colour.RED, "Colour .* str itself"),
        (Point(1, 2), "Point .* tuple itself"),
        (Moment(2024, 1, 1), "Moment .* datetime itself"),
        (Cents(1), "Cents .* Decimal itself"),
        (OrderedDict(a=1), "collections.OrderedDict .* dict itself"),
        (defaultdict(list), "collections.defaultdict .* dict itself"),
        (2**64, "int past 64 bits .* -2\\*\\*63 to 2\\*\\*64 - 1"),
        (-(2**63) - 1, "int past 64 bits"),
        (10**10_000, "int past 64 bits"),
        ("a\ud800", "str with a lone surrogate .* UTF-8"),
    ],
    ids=lambda value: f"{type(value).__name__}",
)
def test_what_could_not_come_back_is_refused_wherever_it_is(value: Any, what: str) -> None:
    places = [value, [value], {"k": value}, (value,), ([1, {2: (value,)}],), [NAIVE, value]]
    if is_hashable(value):
        places += [{value: 1}, {value}, {(1, value): 1}]
    for place in places:
        with pytest.raises(InvalidValue, match=what) as caught:
            packed(place)
        assert len(str(caught.value)) < 400


@pytest.mark.parametrize(
    ("value", "path"),
    [
        (1j, "$"),
        ([0, [1, 1j]], "$[1][1]"),
        ({"user": [1, 2, 3, 1j]}, "$.user[3]"),
        ({"a b": {7: {b"k": {None: 1j}}}}, "$['a b'][7][b'k'][None]"),
        ({(1, 2): {date.max: 1j}}, "$[tuple][date]"),
        ({"a": {1j: 2}}, "$.a{key}"),
        ({"a": {(1, 1j): 2}}, "$.a{key}[1]"),
        ({"a": {1j}}, "$.a{element}"),
        ({"a": (1, [1j])}, "$.a[1][0]"),
        (["fine", {"x" * 500: 1j}], "$[1]['xxxxxxxxxxxx...xxxxxxxxxxxxx']"),
        (nested(40, in_dict, 1j), "$" + ".k" * 9 + "..." + ".k" * 9),
    ],
)
def test_a_refusal_says_where_it_is(value: Any, path: str) -> None:
    with pytest.raises(InvalidValue) as caught:
        packed(value)

    assert f"cannot store complex at {path}: expected bool, int, " in str(caught.value)


def test_a_refusal_does_not_show_what_the_value_is() -> None:
    class Secret:
        def __repr__(self) -> str:
            return "hunter2"

    with pytest.raises(InvalidValue) as caught:
        packed({"password": Secret(), "n": [Secret()]})

    assert "hunter2" not in str(caught.value)
    assert "Secret at $.password" in str(caught.value)


@pytest.mark.parametrize("depth", range(MAX_DEPTH - 2, MAX_DEPTH + 3))
@pytest.mark.parametrize("wrap", [in_list, in_dict])
@pytest.mark.parametrize("inside", [1, [], {}, (), NAIVE, (1, [2])], ids=repr)
def test_a_deep_value_is_refused_at_once_or_comes_back(
    depth: int, wrap: Callable[[Any], Any], inside: Any
) -> None:
    value = nested(depth, wrap, inside)

    if depth < MAX_DEPTH or (depth == MAX_DEPTH and not isinstance(inside, list | dict)):
        assert packed(unpack(packed(value))) == packed(value)
        with pytest.raises(InvalidValue, match=r"cannot store complex at \$\[1\]:"):
            packed([value[0] if wrap is in_list else value["k"], 1j])
    else:
        with pytest.raises(InvalidValue, match="at most 1024 levels"):
            packed(value)


@pytest.mark.parametrize("wrap", [in_tuple, in_list, in_dict])
def test_inside_a_tuple_or_set_less_depth_is_allowed(wrap: Callable[[Any], Any]) -> None:
    fits = (nested(MAX_INNER_DEPTH - 1, wrap, NAIVE),)
    deep = (nested(MAX_INNER_DEPTH - 1, wrap, []),)

    for lists in (0, 500):  # the lists around a tuple do not count
        assert unpack(packed(nested(lists, in_list, fits))) == nested(lists, in_list, fits)
        with pytest.raises(InvalidValue, match="at most 32 levels from a tuple or set on"):
            packed(nested(lists, in_list, deep))


def test_many_levels_of_lists_between_tuples_are_refused_not_a_crash() -> None:
    """Each tuple is packed by a packer of its own: these many overran the C stack."""
    value = nested(32, lambda inner: (nested(1020, in_list, inner),), 1)

    with pytest.raises(InvalidValue, match="list nested so deep"):
        packed(value)


def test_a_value_that_contains_itself_is_refused() -> None:
    in_itself: list[Any] = []
    in_itself.append(in_itself)
    twice: list[Any] = []
    twice += [twice, twice]  # doubles with every level
    member: dict[str, Any] = {"me": ()}
    member["me"] = (member,)

    for value in (in_itself, twice, (twice,), member, [1, {"a": in_itself}]):
        with pytest.raises(InvalidValue, match="no cycle"):
            packed(value)


def test_what_is_shared_inside_a_tuple_is_looked_at_once_per_level() -> None:
    shared: Any = []
    for _ in range(12):
        shared = [shared, shared]

    assert unpack(packed((shared,))) == (shared,)


def test_a_value_of_the_limit_fits_and_one_byte_more_does_not() -> None:
    size = len(packed(b"x" * 5000))

    assert len(pack(b"x" * 5000, limit=size)) == size
    with pytest.raises(PayloadTooLarge, match=f"takes {size} bytes: the limit is {size - 1}"):
        pack(b"x" * 5000, limit=size - 1)


def test_a_refused_value_leaves_nothing_behind_in_the_next() -> None:
    for value in ([1, 2, object()], (1, object()), "x" * 100):
        with pytest.raises(InvalidValue):
            pack(value, limit=50)

        assert pack([1], limit=50) == bytes.fromhex("9101")


def test_packing_within_packing_disturbs_neither() -> None:
    seen = []

    def nosy(_: datetime) -> timedelta:
        seen.append(unpack(packed([(1, 2), "inner"])))
        return timedelta(hours=1)

    value = ["outer", (NAIVE.replace(tzinfo=Zone(nosy)), 3)]

    back = unpack(packed(value))

    assert exact(back) == exact(value)
    assert seen
    assert seen[0] == [(1, 2), "inner"]


def test_a_datetime_whose_zone_fails_is_refused() -> None:
    def broken(_: datetime) -> timedelta:
        raise KeyError("no such zone")

    with pytest.raises(InvalidValue, match=r"datetime whose tzinfo fails .* at \$\.at") as caught:
        packed({"at": NAIVE.replace(tzinfo=Zone(broken))})

    assert isinstance(caught.value.__cause__, KeyError)


def test_threads_do_not_disturb_one_another() -> None:
    wrong = []

    def work(number: int) -> None:
        for turn in range(300):
            value = {"n": number, "turn": (turn, {number}), "text": "x" * turn}
            if unpack(packed(value)) != value:
                wrong.append(value)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert wrong == []


def ext(code: int, data: bytes) -> bytes:
    return msgpack.packb(msgpack.ExtType(code, data))


def head(count: int) -> bytes:
    return b"\xdd" + struct.pack(">I", count)


HOSTILE = {
    "nothing": b"",
    "cut short": packed({"key": "value"})[:-1],
    "more after the end": packed(1) + b"\0",
    "a byte that begins nothing": b"\xc1",
    "bad utf-8": b"\xa2\xff\xff",
    "a surrogate": b"\xa3\xed\xa0\x80",
    "a list as key": b"\x81\x90\x01",
    "a dict as key": b"\x81\x80\x01",
    "a set as key": b"\x81" + ext(7, b"\x90") + b"\x01",
    "a set of lists": ext(7, b"\x91\x90"),
    "a set of a dict": ext(7, b"\x80"),
    "a tuple of an int": ext(6, b"\x01"),
    "a tuple of nothing": ext(6, b""),
    "a tuple and more": ext(6, b"\x90\x90"),
    "an unknown extension": ext(99, b"x"),
    "a negative extension": b"\xd4\x80x",
    "a timestamp of another size": b"\xd4\xffx",
    "a timestamp far off": b"\xc7\x0c\xff" + struct.pack(">Iq", 0, 2**62),
    "no datetime": ext(1, b"yesterday"),
    "no datetime at all": ext(1, b"~"),
    "a datetime in no text": ext(1, b"\xff"),
    "a long datetime": ext(1, b"2" * 100_000),
    "no date": ext(2, b"2023-02-29"),
    "a short timedelta": ext(3, b"x"),
    "a timedelta past the last": ext(3, struct.pack(">iII", 2**31 - 1, 0, 0)),
    "a short uuid": ext(4, bytes(15)),
    "no decimal": ext(5, b"1.2.3"),
    "a decimal past the last": ext(5, b"1E+99999999999999999999"),
    "too many tuples": nested(MAX_INNER_DEPTH + 1, lambda data: ext(6, b"\x91" + data), b"\x01"),
    "very many tuples": nested(3000, lambda data: ext(6, b"\x91" + data), b"\x01"),
    "too many lists": b"\x91" * 1_000_000 + b"\x01",
    "a list of 4 billion": head(2**32 - 1),
    "a dict of 4 billion": b"\xdf" + b"\xff" * 4,
    "bytes of 4 GB": b"\xc6" + b"\xff" * 4,
    "a text of 4 GB": b"\xdb" + b"\xff" * 4,
    "an extension of 4 GB": b"\xc9" + b"\xff" * 4 + b"\x06",
    "a pickle": b"cos\nsystem\n(S'true'\ntR.",
}


@pytest.mark.parametrize("data", HOSTILE.values(), ids=HOSTILE.keys())
def test_damage_is_told_as_damage(data: bytes) -> None:
    with pytest.raises(StoreCorrupt, match=f"{len(data)} bytes are not a packed value") as caught:
        unpack(data)

    assert caught.value.__cause__ is not None
    assert len(str(caught.value)) < 400


def test_extension_types_nest_no_deeper_when_read_than_when_packed() -> None:
    fits = nested(MAX_INNER_DEPTH, lambda data: ext(6, b"\x91" + data), b"\x01")

    assert packed(unpack(fits)) == fits
    with pytest.raises(StoreCorrupt, match="nested deeper than 32 levels"):
        unpack(ext(7, b"\x91" + fits))


@pytest.mark.parametrize("inside", [False, True], ids=["alone", "inside a tuple"])
def test_heads_that_claim_much_get_no_memory_for_it(inside: bool) -> None:
    data = head(1_000_000) * 1023 + b"\x90" * (LIMIT - 1024 * 5)
    data = ext(6, data) if inside else data
    small = (head(4000) * 700)[:4000]

    tracemalloc.start()
    try:
        for bomb in (data, small):
            with pytest.raises(StoreCorrupt):
                unpack(bomb)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()

    assert peak < 64 * LIMIT


def test_random_and_damaged_bytes_decode_or_are_told_as_damage() -> None:
    seed = random.SystemRandom().randrange(2**32)
    print("seed", seed)  # shown when the test fails
    chance = random.Random(seed)
    whole = [
        packed(value)
        for value in (
            {"user": 7, "tags": ["a", "é"], "at": datetime(2024, 1, 1, tzinfo=UTC), 3: (1, {2})},
            [UUID(int=5), Decimal("1.5"), timedelta(1, 2, 3), date.max, -1.5, b"x" * 40, 2**63],
            {(1, ("a", (2,))): [{None}, {"deep": [[[({}, (), set())]]]}], "t": "text" * 10},
        )
    ]
    heads = bytes([*range(0x80, 0xA4), *range(0xC0, 0xE1), *range(8)])

    def buffer() -> bytes:
        kind = chance.randrange(4)
        if kind == 0:
            return chance.randbytes(chance.randrange(40))
        if kind == 1:
            return bytes(chance.choices(heads, k=chance.randrange(1, 40)))
        data = bytearray(chance.choice(whole))
        for _ in range(chance.randrange(1, 4)):
            at = chance.randrange(len(data))
            if kind == 2:
                data[at] = chance.choice(
                    [chance.randrange(256), data[at] ^ 1 << chance.randrange(8)]
                )
            else:
                data[at : at + chance.randrange(3)] = chance.randbytes(chance.randrange(3))
            data = data or bytearray(b"\0")
        return bytes(data)

    decoded = 0
    for _ in range(20_000):
        data = buffer()
        try:
            value = unpack(data)
        except StoreCorrupt:
            continue
        decoded += 1
        packed(value)  # what decodes is storable: nothing of another type comes out

    assert 1000 < decoded < 19_000, "the buffers are all good or all bad: they test nothing"


def test_a_decimal_is_read_strictly_whatever_the_callers_context() -> None:
    with localcontext(Context(prec=2, Emax=9, Emin=-9, traps=[])):
        assert unpack(packed(Decimal("123456E+50"))).as_tuple() == Decimal("123456E+50").as_tuple()
        with pytest.raises(StoreCorrupt):
            unpack(ext(5, b"garbage"))


def test_timestamps_of_other_writers_are_read_as_utc() -> None:
    moment = datetime(2024, 5, 6, 7, 8, 9, 250_000, tzinfo=UTC)

    assert unpack(msgpack.packb([moment], datetime=True)) == [moment]


def test_the_bytes_of_a_value_stay_as_they_are_on_disk() -> None:
    """A change here is a change of the stored format."""
    value = [
        datetime(2024, 1, 2, tzinfo=UTC),
        date(2024, 1, 2),
        timedelta(-1, 2, 3),
        UUID(int=1),
        Decimal("1.50"),
        (1,),
        {2},
    ]

    assert packed(value) == (
        b"\x97"
        b"\xc7\x19\x012024-01-02T00:00:00+00:00"
        b"\xc7\x0a\x022024-01-02"
        b"\xc7\x0c\x03\xff\xff\xff\xff\0\0\0\x02\0\0\0\x03"
        b"\xd8\x04" + bytes(15) + b"\x01"
        b"\xd6\x051.50"
        b"\xd5\x06\x91\x01"
        b"\xd5\x07\x91\x02"
    )
