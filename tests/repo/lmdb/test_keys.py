"""The order of keys is the order in which jobs are served and fall due."""

from hypothesis import example, given
from hypothesis import strategies as st

from jobq.repo.lmdb.keys import (
    agenda_key,
    group_key,
    lane_key,
    lingering_key,
    note_key,
    note_prefix,
    over_key,
    queue_key,
    queue_prefix,
    read_agenda_key,
    read_flow_kind,
    read_note_key,
    read_queue_key,
    topic_name_key,
    topic_number_key,
    unique_key,
)

topics = st.integers(0, 2**32 - 2)
lanes = st.integers(2**32, 2**64 - 1)
weights = st.integers(-(2**15), 2**15 - 1)
longs = st.integers(0, 2**64 - 1)
agendas = st.integers(1, 255)
ids = st.binary(min_size=16, max_size=16)
names = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=60)

places = st.tuples(topics | lanes, weights, longs)
times = st.tuples(agendas, longs, longs)


@given(places, places)
@example((1, -1, 0), (1, 0, 0))
@example((1, -32768, 2**64 - 1), (1, 32767, 0))
@example((255, 0, 0), (256, 0, 0))
@example((2**32 - 2, 5, 5), (2**32, 0, 0))
@example((1, 0, 255), (1, 0, 256))
def test_queue_keys_sort_by_topic_then_weight_then_place(
    one: tuple[int, int, int], other: tuple[int, int, int]
) -> None:
    assert (queue_key(*one) < queue_key(*other)) == (one < other)


@given(places)
def test_a_queue_key_says_what_it_was_made_of(place: tuple[int, int, int]) -> None:
    assert read_queue_key(queue_key(*place)) == place


@given(places, topics | lanes)
def test_a_queues_prefix_begins_its_own_keys_and_no_others(
    place: tuple[int, int, int], topic: int
) -> None:
    assert queue_key(*place).startswith(queue_prefix(topic)) == (place[0] == topic)
    assert queue_prefix(place[0]) <= queue_key(*place)


@given(times, times)
@example((1, 2**63, 0), (1, 2**63 - 1, 5))
@example((1, 255, 0), (1, 256, 0))
@example((1, 2**64 - 1, 2**64 - 1), (2, 0, 0))
def test_agenda_keys_sort_by_agenda_then_time_then_slot(
    one: tuple[int, int, int], other: tuple[int, int, int]
) -> None:
    assert (agenda_key(*one) < agenda_key(*other)) == (one < other)


@given(times)
def test_an_agenda_key_says_what_it_was_made_of(time: tuple[int, int, int]) -> None:
    assert read_agenda_key(agenda_key(*time)) == time


@given(times)
def test_an_agendas_own_byte_stands_before_all_its_keys(time: tuple[int, int, int]) -> None:
    agenda = time[0]

    assert (
        bytes((agenda,))
        <= agenda_key(*time)
        < bytes((agenda + 1,) if agenda < 255 else (255,) * 18)
    )


@given(st.lists(names, unique=True, min_size=2))
@example(["mail", "mail-slow", "mail\x00x", "mail\x00"])
@example(["é", "e\u0301"])
def test_topics_have_keys_of_their_own_whatever_their_names(these: list[str]) -> None:
    keys = {topic_name_key(name) for name in these}

    assert len(keys) == len(these)
    assert {key[1:].decode() for key in keys} == set(these)


@given(names, topics)
def test_a_topics_name_and_a_topics_number_never_share_a_key(name: str, number: int) -> None:
    assert topic_number_key(number) < b"n" <= topic_name_key(name)[:1]


@given(topics, topics)
def test_topics_numbers_sort_as_numbers(one: int, other: int) -> None:
    assert (topic_number_key(one) < topic_number_key(other)) == (one < other)


notes = st.tuples(ids, st.integers(0, 255), st.integers(0, 2**32 - 1))


@given(notes, notes)
def test_notes_stand_by_job_and_their_parts_by_number(
    one: tuple[bytes, int, int], other: tuple[bytes, int, int]
) -> None:
    first, second = note_key(*one), note_key(*other)

    assert (first < second) == (one < other)
    assert read_note_key(first) == one
    assert first.startswith(note_prefix(*one[:2]))
    assert second.startswith(note_prefix(*one[:2])) == (one[:2] == other[:2])


uniques = st.tuples(longs, names)
groups = st.tuples(topics, names)
holds = st.tuples(ids, st.integers(0, 2**32 - 1))


@given(uniques, uniques)
@example((255, "b"), (256, "a"))
def test_periods_of_unique_keys_stand_by_their_ends(
    one: tuple[int, str], other: tuple[int, str]
) -> None:
    before = (one[0], one[1].encode()) < (other[0], other[1].encode())
    assert (over_key(*one) < over_key(*other)) == before


@given(names, names)
@example("é", "e\u0301")
def test_unique_keys_stand_by_the_bytes_of_their_names(one: str, other: str) -> None:
    assert (unique_key(one) < unique_key(other)) == (one.encode() < other.encode())
    assert unique_key(one)[1:].decode() == one


@given(groups, groups)
@example((1, "b"), (2, "a"))
def test_groups_stand_by_topic_then_name(one: tuple[int, str], other: tuple[int, str]) -> None:
    before = (one[0], one[1].encode()) < (other[0], other[1].encode())
    assert (group_key(*one) < group_key(*other)) == before
    assert group_key(*one).startswith(group_key(other[0], "")) == (one[0] == other[0])


@given(topics | lanes, topics | lanes)
def test_lanes_stand_by_number(one: int, other: int) -> None:
    assert (lane_key(one) < lane_key(other)) == (one < other)


@given(holds, holds)
def test_lingering_holds_stand_by_job_and_token(
    one: tuple[bytes, int], other: tuple[bytes, int]
) -> None:
    assert (lingering_key(*one) < lingering_key(*other)) == (one < other)


@given(uniques, groups, holds)
def test_records_of_flow_control_say_of_which_kind_they_are(
    unique: tuple[int, str], group: tuple[int, str], hold: tuple[bytes, int]
) -> None:
    keys = [unique_key(unique[1]), over_key(*unique), group_key(*group), lingering_key(*hold)]

    assert [read_flow_kind(key) for key in keys] == [b"k", b"o", b"g", b"h"]


@given(names, places, times, ids)
def test_every_key_fits_into_lmdb(
    name: str, place: tuple[int, int, int], time: tuple[int, int, int], job_id: bytes
) -> None:
    most = "\N{PILE OF POO}" * 63 + "abc"  # 255 bytes, as many as a name may have
    longest = topic_name_key(most)
    keys = [
        topic_name_key(name),
        queue_key(*place),
        agenda_key(*time),
        note_key(job_id, 1, 0),
        lingering_key(job_id, 2**32 - 1),
        longest,
        unique_key(most),
        over_key(2**64 - 1, most),
        group_key(2**32 - 1, most),
    ]

    assert len(longest) == 256
    assert all(1 <= len(key) <= 511 for key in keys)
