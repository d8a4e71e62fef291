"""Records come back as they went in, or not at all."""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, NamedTuple

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobq.errors import StoreCorrupt
from jobq.options import UNSET, JobOptions
from jobq.repo.flow import Key, Lane, Lingering
from jobq.repo.lmdb import records
from jobq.repo.lmdb.keys import (
    agenda_key,
    lane_key,
    lingering_key,
    note_key,
    topic_number_key,
    topic_settings_key,
    unique_key,
)
from jobq.repo.lmdb.records import (
    VERSION,
    Meta,
    Topic,
    decode_bodies,
    decode_body,
    decode_key,
    decode_lane,
    decode_lingering,
    decode_meta,
    decode_note,
    decode_options,
    decode_place,
    decode_settings,
    decode_state,
    decode_states,
    decode_topic,
    decode_topic_settings,
    encode_body,
    encode_key,
    encode_lane,
    encode_lingering,
    encode_meta,
    encode_moved,
    encode_note,
    encode_options,
    encode_place,
    encode_settings,
    encode_state,
    encode_topic,
    encode_topic_settings,
)
from jobq.repo.repositories import JobBody, JobState, Move, moved
from jobq.states import Event, Reason, Status
from jobq.topic import TopicSettings

ids = st.binary(min_size=16, max_size=16)
holders = st.binary(min_size=8, max_size=8)
u8, u32, u64 = (st.integers(0, 2**bits - 1) for bits in (8, 32, 64))
weights = st.integers(-(2**15), 2**15 - 1)
texts = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=255).filter(
    lambda text: len(text.encode()) <= 255
)
durations = st.floats(0, 3e9)
options = st.one_of(
    st.just(UNSET),
    st.builds(
        JobOptions,
        **{name: st.none() | durations for name in ("lease", "min_backoff", "retention")},
        max_retries=st.none() | st.integers(0, 2**31 - 1),
        name=st.none() | texts,
        tags=st.none() | st.lists(texts, max_size=4).map(tuple),
        group=st.none() | texts,
        unique=st.none() | texts,
        unique_for=st.sampled_from([None, "waiting", "unfinished"]) | durations,
        deadline=st.none() | st.datetimes(timezones=st.just(UTC), min_value=datetime(1970, 1, 2)),
    ),
)
bodies = st.builds(JobBody, u32, weights, u64, u64, u64, u64, options, st.binary(max_size=300), u64)
states = st.builds(
    JobState,
    u32,
    weights,
    u64,
    st.sampled_from(list(Status)),
    st.sampled_from([None, *Reason]),
    st.sampled_from([None, Event.DONE, Event.RETRY, Event.RELEASE, Event.CANCEL]),
    *(u32,) * 5,
    *(u64,) * 2,
    holders,
    *(u64,) * 2,
    st.integers(0, 2**16 - 1),
    u64,
    u32,
)
moves = st.builds(
    Move,
    st.sampled_from(list(Status)),
    st.sampled_from([None, *Reason]),
    st.sampled_from([None, Event.DONE, Event.RETRY, Event.RELEASE, Event.CANCEL]),
    u64,
    st.integers(0, 1),
    st.none() | holders,
    st.none() | u64,
    u64,
)
topics = st.builds(
    Topic,
    texts,
    st.lists(u64, min_size=5, max_size=5),
    u64,
    u64,
    configured=st.booleans(),
    figures=st.lists(u64, min_size=5, max_size=5),
)
topic_settings = st.builds(
    TopicSettings,
    keep_done=st.none() | durations,
    keep_canceled=st.none() | durations,
    max_done=st.none() | st.integers(0, 2**40),
    rate=st.none() | st.tuples(u32, durations),
    when_full=st.sampled_from([None, "reject"]),
)
metas = st.builds(
    Meta, u64, u64, u64, u32, ids,
    st.lists(u64, min_size=5, max_size=5), u64, st.lists(u64, min_size=3, max_size=3),
)  # fmt: skip
keys = st.builds(Key, ids, u64)
lanes = st.builds(Lane, u32, u64, u64, weights, u64, u64, u64, texts | st.just(""))
lingerings = st.builds(Lingering, u32, u64, u64, u64, holders, st.none() | texts)


class Sort(NamedTuple):
    """One sort of record: two keys that it may stand under, a value, the way there and back."""

    name: str
    keys: tuple[bytes, bytes]
    value: Any
    encode: Callable[[bytes, Any], bytes]
    decode: Callable[[bytes, bytes], Any]

    def __repr__(self) -> str:
        return self.name


JOB, OTHER_JOB = bytes(range(16)), bytes(range(1, 17))
SORTS = (
    Sort(
        "body",
        (JOB, OTHER_JOB),
        JobBody(3, -7, 9, 10, 0, 0, JobOptions(lease=30.0, tags=("a",)), b"payload" * 20, 3),
        encode_body,
    decode_body,
    ),
    Sort(
        "body without options or payload",
        (JOB, OTHER_JOB),
        JobBody(3, -7, 9, 10, 11, 12, UNSET, b"", 2**32 + 1),
        encode_body,
    decode_body,
    ),
    Sort(
        "state",
        (JOB, OTHER_JOB),
        JobState(3, -7, 9, Status.CANCELED, Reason.POISON, Event.RETRY, 2, 3, 4, 5, 6, 7, 8,
                 b"12345678", 10, 11, 3, 2**32 + 1, 70),
        encode_state,
        decode_state,
    ),
    Sort(
        "place in an agenda",
        (agenda_key(1, 77, 1), agenda_key(1, 77, 2)),
        (b"12345678", [JOB, OTHER_JOB]),
        lambda key, value: encode_place(key, value[0], b"".join(value[1])),
        decode_place,
    ),
    Sort(
        "topic",
        (topic_number_key(1), topic_number_key(2)),
        Topic("mail", [1, 2, 3, 4, 5], 3, 0, configured=True),
        encode_topic,
        decode_topic,
    ),
    Sort(
        "settings of a topic",
        (topic_settings_key(1), topic_settings_key(2)),
        TopicSettings(keep_done=2.5, max_done=7),
        encode_topic_settings,
        decode_topic_settings,
    ),
    Sort(
        "meta",
        (b"meta", b"atem"),
        Meta(1, 2, 3, 4, JOB, [5, 6, 7, 8, 9], 10, [11, 12, 13]),
        encode_meta,
        decode_meta,
    ),
    Sort("unique key", (unique_key("a"), unique_key("b")), Key(JOB, 5), encode_key, decode_key),
    Sort(
        "lane",
        (lane_key(1), lane_key(2)),
        Lane(3, 1, 2, -7, 9, 10, 11, "tenant-7"),
        encode_lane,
        decode_lane,
    ),
    Sort(
        "lingering hold",
        (lingering_key(JOB, 1), lingering_key(JOB, 2)),
        Lingering(3, 2**32, 5, 6, b"12345678", "user:7"),
        encode_lingering,
        decode_lingering,
    ),
    Sort("note", (note_key(JOB, 1, 0), note_key(JOB, 2, 0)), b"a result", encode_note, decode_note),
    Sort(
        "empty note",
        (note_key(JOB, 1, 0), note_key(OTHER_JOB, 1, 0)),
        b"",
        encode_note,
        decode_note,
    ),
    Sort(
        "settings",
        (b"settings", b"setting"),
        {"format": 1, "created_us": 5},
        encode_settings,
        decode_settings,
    ),
)  # fmt: skip

sort_by_sort = pytest.mark.parametrize("sort", SORTS, ids=repr)


@given(ids, bodies)
def test_a_body_comes_back_as_it_was(job_id: bytes, body: JobBody) -> None:
    assert decode_body(job_id, encode_body(job_id, body)) == body


@given(ids, states)
def test_a_state_comes_back_as_it_was(job_id: bytes, state: JobState) -> None:
    assert decode_state(job_id, encode_state(job_id, state)) == state


@given(st.lists(st.tuples(ids, states, u64), max_size=5), moves)
def test_states_that_are_written_as_moved_are_those_of_moved_jobs(
    jobs: list[tuple[bytes, JobState, int]], move: Move
) -> None:
    jobs = [
        (job_id, state._replace(attempt=state.attempt >> 1, token=state.token >> 1), slot)
        for job_id, state, slot in jobs  # room to count on
    ]
    written = encode_moved(
        [(job_id, state) for job_id, state, _ in jobs], [j[2] for j in jobs], move
    )
    assert written == [
        (job_id, encode_state(job_id, moved(state, slot, move))) for job_id, state, slot in jobs
    ]


@given(st.lists(st.tuples(ids, st.none() | bodies, st.none() | states), max_size=5))
def test_several_records_are_read_as_each_of_them_is(
    jobs: list[tuple[bytes, JobBody | None, JobState | None]],
) -> None:
    names = [job_id for job_id, _, _ in jobs]
    of_bodies = [body and encode_body(job_id, body) for job_id, body, _ in jobs]
    of_states = [state and encode_state(job_id, state) for job_id, _, state in jobs]
    assert decode_bodies(names, of_bodies) == [body for _, body, _ in jobs]
    assert decode_states(names, of_states) == [state for _, _, state in jobs]


@given(st.binary(min_size=17, max_size=17), holders, st.lists(ids, min_size=1, max_size=64))
def test_a_place_comes_back_as_it_was(key: bytes, holder: bytes, jobs: list[bytes]) -> None:
    assert decode_place(key, encode_place(key, holder, b"".join(jobs))) == (holder, jobs)


@given(st.binary(max_size=5), topics)
def test_a_topic_comes_back_as_it_was(key: bytes, topic: Topic) -> None:
    assert decode_topic(key, encode_topic(key, topic)) == topic


@given(st.binary(max_size=5), topic_settings)
def test_settings_of_a_topic_come_back_as_they_were(key: bytes, these: TopicSettings) -> None:
    assert decode_topic_settings(key, encode_topic_settings(key, these)) == these


@given(topic_settings, st.dictionaries(texts, u32, max_size=3))
def test_settings_of_newer_versions_are_left_out(
    these: TopicSettings, newer: dict[str, int]
) -> None:
    newer = {f"newer_{name}": value for name, value in newer.items()}
    packed = msgpack.packb({**newer, **these.as_dict()})
    record = records.sealed(records.IS_TOPIC_SETTINGS, b"s", packed)

    assert decode_topic_settings(b"s", record) == these


@given(metas)
def test_the_meta_record_comes_back_as_it_was(meta: Meta) -> None:
    assert decode_meta(b"meta", encode_meta(b"meta", meta)) == meta


@given(st.binary(max_size=20), keys)
def test_a_unique_key_comes_back_as_it_was(at: bytes, key: Key) -> None:
    assert decode_key(at, encode_key(at, key)) == key


@given(st.binary(max_size=20), lanes)
def test_a_lane_comes_back_as_it_was(at: bytes, lane: Lane) -> None:
    assert decode_lane(at, encode_lane(at, lane)) == lane


@given(st.binary(max_size=20), lingerings)
def test_a_lingering_hold_comes_back_as_it_was(at: bytes, lingering: Lingering) -> None:
    assert decode_lingering(at, encode_lingering(at, lingering)) == lingering


@given(st.binary(min_size=17, max_size=17), st.binary(max_size=300))
def test_a_note_comes_back_as_it_was(key: bytes, note: bytes) -> None:
    assert decode_note(key, encode_note(key, note)) == note


@given(options.filter(lambda these: these != UNSET))
def test_options_come_back_as_they_were(these: JobOptions) -> None:
    assert decode_options(encode_options(these)) == these


def test_no_options_take_no_room() -> None:
    assert encode_options(UNSET) == b""


@given(options, st.dictionaries(texts, u32, max_size=3))
def test_options_of_newer_versions_are_left_out(these: JobOptions, newer: dict[str, int]) -> None:
    newer = {f"newer_{name}": value for name, value in newer.items()}

    packed = encode_options(these)
    mine = msgpack.unpackb(packed) if packed else {}
    found = decode_options(msgpack.packb({**newer, **mine}))

    assert found == these


@pytest.mark.parametrize("name", JobOptions.__dataclass_fields__)
@pytest.mark.parametrize("value", [None, [], [7.0], {"a": 1}, b"x", True, [["a"]]], ids=repr)
def test_options_of_a_wrong_type_are_damage_whatever_the_checksum_says(
    name: str, value: object
) -> None:
    if name == "tags" and value == []:
        assert decode_options(msgpack.packb({name: value})).tags == ()
        return
    with pytest.raises(StoreCorrupt, match="the options of a job are damaged"):
        decode_options(msgpack.packb({"factor": 2.0, name: value}))


@sort_by_sort
def test_every_sort_comes_back_as_it_was(sort: Sort) -> None:
    key = sort.keys[0]

    assert sort.decode(key, sort.encode(key, sort.value)) == sort.value


@sort_by_sort
def test_any_single_flipped_bit_is_noticed(sort: Sort) -> None:
    key = sort.keys[0]
    data = sort.encode(key, sort.value)

    for bit in range(8 * len(data)):
        flipped = bytearray(data)
        flipped[bit // 8] ^= 1 << bit % 8
        with pytest.raises(StoreCorrupt):
            sort.decode(key, bytes(flipped))


@sort_by_sort
def test_any_single_flipped_bit_of_its_key_is_noticed(sort: Sort) -> None:
    key = sort.keys[0]
    data = sort.encode(key, sort.value)

    for bit in range(8 * len(key)):
        flipped = bytearray(key)
        flipped[bit // 8] ^= 1 << bit % 8
        with pytest.raises(StoreCorrupt):
            sort.decode(bytes(flipped), data)


@sort_by_sort
def test_a_record_under_another_key_is_noticed(sort: Sort) -> None:
    with pytest.raises(StoreCorrupt):
        sort.decode(sort.keys[1], sort.encode(sort.keys[0], sort.value))


@sort_by_sort
def test_a_record_that_is_cut_short_or_too_long_is_noticed(sort: Sort) -> None:
    key = sort.keys[0]
    data = sort.encode(key, sort.value)

    for length in range(len(data)):
        with pytest.raises(StoreCorrupt):
            sort.decode(key, data[:length])
    with pytest.raises(StoreCorrupt):
        sort.decode(key, data + b"\0")


@given(st.sampled_from(SORTS), st.binary(max_size=200))
def test_what_is_no_record_is_noticed(sort: Sort, data: bytes) -> None:
    with pytest.raises(StoreCorrupt):
        sort.decode(sort.keys[0], data)


@sort_by_sort
def test_a_record_of_one_sort_is_not_read_as_another(sort: Sort) -> None:
    """Nor under its own key: of a page in another's place, every key fits."""
    key = sort.keys[0]
    data = sort.encode(key, sort.value)
    notes = {decode_note, decode_settings}  # settings are a note, of the queue

    for other in SORTS:
        if other.decode is not sort.decode and not {other.decode, sort.decode} <= notes:
            with pytest.raises(StoreCorrupt):
                other.decode(key, data)


@pytest.mark.parametrize(
    "sort", [sort for sort in SORTS if sort.name in {"body", "state", "topic", "meta"}], ids=repr
)
def test_a_record_of_another_version_is_refused_although_it_is_intact(
    sort: Sort, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = sort.keys[0]
    with monkeypatch.context() as newer:
        newer.setattr(records, "VERSION", VERSION + 1)
        data = sort.encode(key, sort.value)

    with pytest.raises(StoreCorrupt, match=f"of version {VERSION + 1}"):
        sort.decode(key, data)


@pytest.mark.parametrize("value", [None, 5, b"format", ["format", 1]])
def test_settings_that_are_no_map_are_refused(value: object) -> None:
    data = encode_note(b"settings", msgpack.packb(value))

    with pytest.raises(StoreCorrupt, match="settings"):
        decode_settings(b"settings", data)
