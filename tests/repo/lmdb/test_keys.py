"""The order of keys is the order in which jobs are served and fall due."""

from hypothesis import example, given
from hypothesis import strategies as st

from jobq.repo.lmdb.keys import (
    agenda_key,
    note_key,
    note_prefix,
    queue_key,
    queue_prefix,
    read_agenda_key,
    read_note_key,
    read_queue_key,
    topic_name_key,
    topic_number_key,
)

topics = st.integers(0, 2**32 - 1)
weights = st.integers(-(2**15), 2**15 - 1)
longs = st.integers(0, 2**64 - 1)
agendas = st.integers(1, 255)
ids = st.binary(min_size=16, max_size=16)
names = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=60)

places = st.tuples(topics, weights, longs)
times = st.tuples(agendas, longs, longs)


@given(places, places)
@example((1, -1, 0), (1, 0, 0))
@example((1, -32768, 2**64 - 1), (1, 32767, 0))
@example((255, 0, 0), (256, 0, 0))
@example((1, 0, 255), (1, 0, 256))
def test_queue_keys_sort_by_topic_then_weight_then_place(
    one: tuple[int, int, int], other: tuple[int, int, int]
) -> None:
    assert (queue_key(*one) < queue_key(*other)) == (one < other)


@given(places)
def test_a_queue_key_says_what_it_was_made_of(place: tuple[int, int, int]) -> None:
    assert read_queue_key(queue_key(*place)) == place


@given(places, topics)
def test_a_topics_prefix_begins_its_own_keys_and_no_others(
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


@given(names, places, times, ids)
def test_every_key_fits_into_lmdb(
    name: str, place: tuple[int, int, int], time: tuple[int, int, int], job_id: bytes
) -> None:
    longest = topic_name_key(
        "\N{PILE OF POO}" * 63 + "abc"
    )  # 255 bytes, as many as a name may have
    keys = [
        topic_name_key(name),
        queue_key(*place),
        agenda_key(*time),
        note_key(job_id, 1, 0),
        longest,
    ]

    assert len(longest) == 256
    assert all(1 <= len(key) <= 511 for key in keys)
