"""What a power cut may leave, by records written down by hand."""

import random
from typing import Final

from tests.torture.power.record import (
    Acked,
    Began,
    Created,
    Event,
    Flush,
    FlushNames,
    FlushOne,
    Made,
    Record,
    Renamed,
    Resize,
    Write,
    replay,
)
from tests.torture.power.states import Cut, cuts, states

FILE: Final = 1
PAGE: Final = 4096
OLD, NEW, NEWER = b"o" * PAGE, b"n" * PAGE, b"r" * PAGE
AT: Final = 2 * PAGE
"""Where the first page is that is no meta page."""


def recorded(*events: Event) -> Record:
    """A queue with three pages, and what was done to it."""
    names: dict[str, int | None] = {"queue": None, "queue/data.mdb": FILE}
    return Record(names, {FILE: OLD * 3}, list(events))


def last_cut(record: Record) -> Cut:
    *_, cut = cuts(record)
    return cut


def left_of(record: Record, grain: int = PAGE, most: int = 64) -> set[bytes | None]:
    """The data files that a cut at the end may leave."""
    return {state.data for state in states(last_cut(record), grain, most, random.Random(1))}


def test_what_was_not_flushed_is_there_or_not() -> None:
    assert left_of(recorded(Write(FILE, AT, NEW))) == {OLD * 3, OLD * 2 + NEW}


def test_what_was_flushed_is_there() -> None:
    assert left_of(recorded(Write(FILE, AT, NEW), Flush(FILE, upto=1))) == {OLD * 2 + NEW}


def test_what_was_written_while_a_flush_ran_is_there_or_not() -> None:
    record = recorded(Write(FILE, AT, NEW), Write(FILE, AT, NEWER), Flush(FILE, upto=1))

    assert left_of(record) == {OLD * 2 + NEW, OLD * 2 + NEWER}


def test_a_flush_of_one_write_is_none_of_those_before() -> None:
    record = recorded(Write(FILE, AT, NEW), Write(FILE, 0, b"meta"), FlushOne(1))

    meta = b"meta" + OLD[4:] + OLD
    assert left_of(record) == {meta + OLD, meta + NEW}


def test_a_later_write_may_last_without_an_earlier_one() -> None:
    record = recorded(Write(FILE, AT, NEW), Write(FILE, PAGE, b"meta"))

    assert OLD + b"meta" + OLD[4:] + OLD in left_of(record)


def test_a_page_may_be_torn_between_any_two_sectors() -> None:
    left = left_of(recorded(Write(FILE, AT, NEW)), grain=512, most=256)

    assert len(left) == 256
    assert OLD * 2 + NEW[:512] + OLD[512:1024] + NEW[1024:] in left


def test_of_a_page_that_is_being_written_there_may_be_rubbish_but_not_of_a_meta_page() -> None:
    events = [Write(FILE, PAGE * page, NEW) for page in range(1, 8)]
    cut = last_cut(recorded(*events))

    left = [state.data or b"" for state in states(cut, PAGE, 100, random.Random(1))]
    assert {data[PAGE:AT] for data in left} == {OLD, NEW}
    assert any(data[AT : AT + PAGE] not in {OLD, NEW} for data in left if len(data) > AT + PAGE)


def test_what_lies_between_survivors_is_zeros() -> None:
    record = recorded(Write(FILE, AT + 2 * PAGE, NEW))

    assert OLD * 3 + bytes(PAGE) + NEW in left_of(record)


def test_a_new_length_is_there_or_not() -> None:
    assert left_of(recorded(Resize(FILE, 4 * PAGE))) == {OLD * 3, OLD * 3 + bytes(PAGE)}


def test_a_file_whose_name_was_not_flushed_is_there_or_not() -> None:
    making = (
        Made("queue/.new-1"),
        Created("queue/.new-1/data.mdb", FILE),
        Write(FILE, 0, NEW),
        Flush(FILE, upto=3),
        Renamed("queue/.new-1/data.mdb", "queue/data.mdb", FILE),
    )
    names: dict[str, int | None] = {"queue": None}

    assert left_of(Record(names, {}, [*making])) == {None, NEW}
    assert left_of(Record(names, {}, [*making, FlushNames("queue", upto=5)])) == {NEW}


def test_a_file_is_gone_with_the_directory_above_it() -> None:
    made = (Made("queue"), Created("queue/data.mdb", FILE), FlushNames("queue", upto=2))

    assert left_of(Record({}, {}, [*made])) == {None, b""}
    assert left_of(Record({}, {}, [*made, FlushNames(".", upto=3)])) == {b""}


def test_a_cut_knows_what_had_been_acknowledged() -> None:
    record = recorded(Began(0, 1), Write(FILE, AT, NEW), Flush(FILE, 2), Acked(0, 1), Began(0, 2))
    before, after, end = cuts(record)

    assert (before.began, before.acked) == ({0: 1}, {})
    assert (after.began, after.acked) == ({0: 1}, {0: 1})
    assert (end.began, end.acked) == ({0: 2}, {0: 1})


def test_a_replay_is_all_that_was_written() -> None:
    record = recorded(Write(FILE, AT, NEW), Write(FILE, 3 * PAGE, NEWER), Resize(FILE, 3 * PAGE))

    assert replay(record, 2) == OLD * 2 + NEW + NEWER
    assert replay(record) == OLD * 2 + NEW
