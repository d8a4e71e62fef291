import uuid
from collections.abc import Callable
from typing import Any, TypeAlias

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from jobq.errors import InvalidValue
from jobq.ids import mint, to_raw, to_text

Entropy: TypeAlias = Callable[[int], bytes]

NONE = bytes(16)
NOW_MS = 1_700_000_000_000

raws = st.binary(min_size=16, max_size=16)
times = st.integers(-1000, 2**48 - 1000)


def zeros(count: int) -> bytes:
    return bytes(count)


def ones(count: int) -> bytes:
    return b"\xff" * count


def parts(raw: bytes) -> tuple[int, int]:
    """The millisecond and the tail of an id, read bit by bit from its 128."""
    bits = f"{int.from_bytes(raw):0128b}"
    return int(bits[:48], 2), int(bits[52:64] + bits[66:], 2)


def last_with(ms: int, tail: int) -> bytes:
    digits = f"{tail:074b}"
    bits = f"{ms:048b}" + "0111" + digits[:12] + "10" + digits[12:]
    return int(bits, 2).to_bytes(16)


@given(raws)
def test_the_text_of_an_id_is_that_of_its_uuid(raw: bytes) -> None:
    assert to_text(raw) == str(uuid.UUID(bytes=raw))


@given(raws)
def test_an_id_survives_the_way_through_text(raw: bytes) -> None:
    assert to_raw(to_text(raw)) == raw
    assert to_raw(to_text(raw).upper()) == raw


@given(raws, raws)
def test_ids_sort_the_same_as_text_and_as_bytes(one: bytes, other: bytes) -> None:
    assert (to_text(one) < to_text(other)) == (one < other)


GOOD = "018bcfe5-6800-7000-8000-000000000001"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "7",
        GOOD[:-1],
        GOOD + "0",
        GOOD.replace("-", ""),
        "{" + GOOD + "}",
        "urn:uuid:" + GOOD,
        " " + GOOD,
        GOOD + "\n",
        GOOD.replace("1", "g"),
        GOOD.replace("1", "१"),
        GOOD[:34] + "  ",
        GOOD[:9] + "  " + GOOD[11:],
        "018bcfe56-800-7000-8000-000000000001",
        "-018bcfe5-6800-7000-800-000000000001",
        "018bcfe5--6800-7000-800-000000000001",
        "x" * 100_000,
    ],
    ids=lambda text: f"{text!r:.40}",
)
def test_what_is_no_canonical_uuid_is_no_id(text: str) -> None:
    with pytest.raises(InvalidValue, match="expected a UUID") as caught:
        to_raw(text)

    assert repr(text)[:40] in str(caught.value)
    assert len(str(caught.value)) < 200


@pytest.mark.parametrize("value", [None, 7, 1.5, b"x", NONE, [GOOD], uuid.UUID(GOOD)])
def test_what_is_no_text_is_no_id(value: Any) -> None:
    with pytest.raises(InvalidValue, match=f"{type(value).__name__}: expected text"):
        to_raw(value)


@given(st.text(alphabet="0189abAB-{} xé", max_size=40))
@example(GOOD)
def test_any_text_is_an_id_or_is_refused(text: str) -> None:
    try:
        raw = to_raw(text)
    except InvalidValue:
        return
    assert str(uuid.UUID(bytes=raw)) == text.lower()


@settings(deadline=None)
@given(
    st.lists(
        st.tuples(
            st.integers(0, 40), times | st.integers(0, 3), st.sampled_from([zeros, ones, None])
        ),
        max_size=8,
    )
)
def test_every_id_is_larger_than_all_before_it_whatever_the_clock_does(
    calls: list[tuple[int, int, Entropy | None]],
) -> None:
    last, minted = NONE, []
    for count, now_ms, entropy in calls:
        ids = mint(count, now_ms, last, *([entropy] if entropy else []))
        assert len(ids) == count
        minted += ids
        last = ids[-1] if ids else last

    assert all(one < other for one, other in zip([NONE, *minted], minted, strict=False))
    for raw in minted:
        assert uuid.UUID(bytes=raw).version == 7
        assert uuid.UUID(bytes=raw).variant == uuid.RFC_4122


@given(st.integers(0, 2**48 - 2), st.integers(0, 2**74 - 1), st.integers(1, 200))
@example(0, 2**62 - 2, 5)
@example(7, 2**62 - 1, 1)
@example(7, 2**74 - 3, 5)
@example(7, 2**74 - 1, 1)
def test_a_clock_that_stands_continues_after_the_last_id(ms: int, tail: int, count: int) -> None:
    """Seen as one number, the tail carries into the millisecond when it overflows."""
    ids = mint(count, ms, last_with(ms, tail))

    numbers = [at << 74 | rest for at, rest in map(parts, ids)]
    first = (ms << 74 | tail) + 1
    assert numbers == list(range(first, first + count))


def test_a_clock_set_back_by_an_hour_does_not_bring_smaller_ids() -> None:
    [last] = mint(1, NOW_MS, NONE)

    [later] = mint(1, NOW_MS - 3_600_000, last)

    assert parts(later) == (NOW_MS, parts(last)[1] + 1)


def test_a_new_millisecond_begins_at_a_random_place() -> None:
    firsts = [mint(1, NOW_MS, NONE)[0] for _ in range(50)]

    assert {parts(raw)[0] for raw in firsts} == {NOW_MS}
    assert len({parts(raw)[1] for raw in firsts}) == 50


@pytest.mark.parametrize(("entropy", "tail"), [(zeros, 0), (ones, 2**73 - 1)])
def test_a_new_millisecond_leaves_half_of_its_tail_for_what_follows(
    entropy: Entropy, tail: int
) -> None:
    [raw] = mint(1, NOW_MS, last_with(NOW_MS - 1, 2**74 - 1), entropy)

    assert parts(raw) == (NOW_MS, tail)


def test_ids_of_one_call_count_up_by_one() -> None:
    ids = mint(1000, NOW_MS, NONE)

    tails = [parts(raw)[1] for raw in ids]
    assert tails == list(range(tails[0], tails[0] + 1000))


def test_the_first_id_of_all_may_be_minted_before_1970() -> None:
    [raw] = mint(1, -5, NONE)

    assert raw > NONE
    assert parts(raw) == (0, 1)


def test_minting_nothing_gives_nothing() -> None:
    assert mint(0, NOW_MS, NONE) == []


@pytest.mark.parametrize(
    "last", [b"", bytes(15), bytes(17), ones(16), b"\0" * 15 + b"\1", uuid.UUID(int=4).bytes]
)
def test_after_what_was_never_minted_no_order_is_promised(last: bytes) -> None:
    with pytest.raises(InvalidValue, match="last is"):
        mint(1, NOW_MS, last)


def test_ids_end_when_their_milliseconds_do() -> None:
    assert mint(1, 2**48 - 1, NONE)
    with pytest.raises(OverflowError):
        mint(1, 2**48, NONE)
    with pytest.raises(OverflowError):
        mint(2, NOW_MS, last_with(2**48 - 1, 2**74 - 2))
