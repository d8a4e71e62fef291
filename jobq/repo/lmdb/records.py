"""Records as bytes and back: fixed layouts, each with its version and a checksum.

Every record ends with the CRC-32 of its key and all that stands before it, begun with the number
of its kind. So a record that was scribbled on, or lies under another key or in another database (a
page that was not written leaves what was there before), is noticed when it is read: LMDB itself
has no checksums, and of 5 500 damaged files 36 % were read silently wrong without them. Records of
a fixed layout begin with one byte, the version of the layout.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from struct import Struct
from typing import Any, Final
from zlib import crc32

import msgpack

from jobq.clock import utc
from jobq.errors import StoreCorrupt, shown
from jobq.options import UNSET, JobOptions
from jobq.repo.flow import Key, Lane, Lingering
from jobq.repo.repositories import WATCHED, Figure, JobBody, JobState, Move
from jobq.states import Event, Reason, Status
from jobq.topic import NO_SETTINGS, TopicSettings

FORMAT: Final = 3
"""The number of the on-disk format: raised by any change to keys or records."""

VERSION: Final = 1

IS_BODY: Final = 1
IS_STATE: Final = 2
IS_TOPIC: Final = 3
IS_META: Final = 4
IS_PLACE: Final = 5
IS_NOTE: Final = 6
IS_NUMBER: Final = 7
IS_TOPIC_SETTINGS: Final = 8
IS_KEY: Final = 9
IS_LANE: Final = 10
IS_LINGERING: Final = 11

CRC: Final = 4
INTACT: Final = 0x2144DF1C
"""The CRC-32 of anything followed by its own CRC-32, little-endian: so a record is verified in one
call, without cutting it up."""

_BODY: Final = Struct(">BIhQQQQHQ")  # version topic weight seq created due slot len(options) lane
_STATE: Final = Struct(">BBBBIhQIIIIIQQ8sQQHQI")
_TOPIC: Final = Struct(">BBQQQQQQQQQQQQ")  # version flags counts listed empty figures
_META: Final = Struct(">BQQQI16sQQQQQQQQQ?")
_KEY: Final = Struct(">B16sQ")
_LANE: Final = Struct(">BIQQhQQQ")
_LINGERING: Final = Struct(">BIQQQ8s")
_BODY_SIZE: Final = _BODY.size
_LEAST_BODY: Final = _BODY.size + CRC
_TOPIC_SIZE: Final = _TOPIC.size
_LANE_SIZE: Final = _LANE.size
_LEAST_LANE: Final = _LANE.size + CRC
_STATE_SIZE: Final = _STATE.size + CRC

_CONFIGURED: Final = 1  # a flag of a topic

STATUSES: Final = (Status.READY, Status.DELAYED, Status.RESERVED, Status.DONE, Status.CANCELED)
STATUS_CODE: Final = {status: code for code, status in enumerate(STATUSES)}
_REASONS: Final = (
    None, Reason.CANCELED, Reason.REJECTED, Reason.EXHAUSTED, Reason.POISON, Reason.EXPIRED,
    Reason.DROPPED,
)  # fmt: skip
_REASON_CODE: Final = {reason: code for code, reason in enumerate(_REASONS)}
_EVENTS: Final = (None, Event.DONE, Event.RETRY, Event.RELEASE, Event.CANCEL)
_EVENT_CODE: Final = {event: code for code, event in enumerate(_EVENTS)}

_LISTED: Final = 2 + len(STATUSES)
"""Where what follows the counts of a topic stands."""

_NUMBER: Final = frozenset({int, float})
_COUNT: Final = frozenset({int})
_TEXT: Final = frozenset({str})
_OPTIONS: Final = {
    **dict.fromkeys(("lease", "min_backoff", "max_backoff", "factor", "jitter"), _NUMBER),
    **dict.fromkeys(("retention", "ttl"), _NUMBER),
    **dict.fromkeys(("max_retries", "max_crashes", "deadline"), _COUNT),
    **dict.fromkeys(("name", "group", "unique", "on_conflict"), _TEXT),
    "unique_for": _NUMBER | _TEXT,
    "tags": frozenset({list}),
}
"""The types that options have in a record. Whoever reads one relies on it."""


@dataclass(slots=True)
class Meta:
    """What every write transaction changes.

    Attributes:
        group: The number of the commit; how a failed commit is looked up afterwards.
        seq: The last place given in any queue.
        slot: The last slot given in any agenda.
        topics: The last topic number given.
        last_id: The largest id minted.
        totals: How many jobs are in each status, in the order of `STATUSES`.
        size: How many bytes the payloads of waiting jobs have.
        watched: How many entries each of `WATCHED` has.
        configured: The store as a whole has a record of settings.
    """

    group: int
    seq: int
    slot: int
    topics: int
    last_id: bytes
    totals: list[int]
    size: int
    watched: list[int]
    configured: bool = False

    @classmethod
    def empty(cls) -> "Meta":
        """That of an empty queue."""
        return cls(0, 0, 0, 0, bytes(16), [0] * len(STATUSES), 0, [0] * len(WATCHED))


@dataclass(slots=True)
class Topic:
    """What is kept of a topic under its number, but for its settings.

    Attributes:
        counts: How many of its jobs are in each status, in the order of `STATUSES`.
        listed: How many of its done jobs are listed.
        empty_us: Since when it has had no job, or its last settings (UTC); 0 if it has a job.
        configured: It has a record of settings.
        figures: By `Figure`.
    """

    name: str
    counts: list[int]
    listed: int = 0
    empty_us: int = 0
    configured: bool = False
    figures: list[int] = field(default_factory=lambda: [0] * len(Figure))

    def is_idle(self, since_us: int) -> bool:
        """Whether it has had neither jobs nor settings since then, or longer.

        Nor anything that would be left behind: lanes, lingering holds.
        """
        if not 0 < self.empty_us <= since_us or self.configured:
            return False
        return not (self.figures[Figure.LANES] or self.figures[Figure.LINGERING])


def sealed(kind: int, key: bytes, data: bytes) -> bytes:
    """A record: the data, and its checksum."""
    return data + crc32(data, crc32(key, kind)).to_bytes(CRC, "little")


def opened(kind: int, key: bytes, record: bytes, what: str) -> bytes:
    """The data of a record without a fixed layout.

    Raises:
        StoreCorrupt: It is damaged.
    """
    if len(record) < CRC or crc32(record, crc32(key, kind)) != INTACT:
        raise _damaged(what, key)
    return record[:-CRC]


def encode_bodies(jobs: Iterable[tuple[bytes, JobBody]]) -> list[tuple[bytes, bytes]]:
    """The body records of jobs, by id."""
    pack, crc = _BODY.pack, crc32
    records = []
    last, packed = UNSET, b""
    for job_id, body in jobs:
        topic, weight, seq, created_us, due_us, slot, options, payload, lane = body
        if options is not last:  # mostly they are the same
            last, packed = options, b"" if options is UNSET else encode_options(options)
        data = b"%b%b%b" % (
            pack(VERSION, topic, weight, seq, created_us, due_us, slot, len(packed), lane),
            packed,
            payload,
        )
        check = crc(data, crc(job_id, IS_BODY))
        records.append((job_id, data + check.to_bytes(CRC, "little")))
    return records


def encode_body(job_id: bytes, body: JobBody) -> bytes:
    """The body record of a job."""
    return encode_bodies([(job_id, body)])[0][1]


def decode_body(job_id: bytes, record: bytes) -> JobBody:
    """The body in a record.

    Raises:
        StoreCorrupt: The record is damaged, or of another version.
    """
    (body,) = decode_bodies((job_id,), (record,))
    assert body is not None
    return body


def decode_bodies(
    job_ids: Sequence[bytes], records: Sequence[bytes | None]
) -> list[JobBody | None]:
    """The bodies in records; None where there is no record. In one go: a third faster.

    Raises:
        StoreCorrupt: A record is damaged, or of another version.
    """
    unpack, crc, new = _BODY.unpack_from, crc32, tuple.__new__
    bodies: list[JobBody | None] = []
    for job_id, record in zip(job_ids, records, strict=True):
        if record is None:
            bodies.append(None)
            continue
        if len(record) < _LEAST_BODY or crc(record, crc(job_id, IS_BODY)) != INTACT:
            raise _damaged("the body of a job", job_id)
        version, topic, weight, seq, created_us, due_us, slot, length, lane = unpack(record)
        if version != VERSION:
            raise _foreign("the body of a job", job_id, version)
        if length:
            end = _BODY_SIZE + length
            if end > len(record) - CRC:
                raise _damaged("the body of a job", job_id)
            options, payload = decode_options(record[_BODY_SIZE:end]), record[end:-CRC]
        else:
            options, payload = UNSET, record[_BODY_SIZE:-CRC]
        body = (topic, weight, seq, created_us, due_us, slot, options, payload, lane)
        bodies.append(new(JobBody, body))  # what JobBody(…) comes down to, in half the time
    return bodies


def encode_state(job_id: bytes, state: JobState) -> bytes:
    """The state record of a job."""
    (
        topic, weight, seq, status, reason, settled, attempt, token, retries, crashes, resets,
        at_us, slot, holder, reserved_us, ended_us, notes, lane, size,
    ) = state  # fmt: skip
    data = _STATE.pack(
        VERSION, STATUS_CODE[status], _REASON_CODE[reason], _EVENT_CODE[settled],
        topic, weight, seq, attempt, token, retries, crashes, resets,
        at_us, slot, holder, reserved_us, ended_us, notes, lane, size,
    )  # fmt: skip
    return data + crc32(data, crc32(job_id, IS_STATE)).to_bytes(CRC, "little")


def encode_moved(
    jobs: Sequence[tuple[bytes, JobState]], slots: Sequence[int], move: Move
) -> list[tuple[bytes, bytes]]:
    """The state records of jobs that go the same way, by id: as `encode_state` makes them.

    In one go, without what stands in between: two thirds of the time.
    """
    status, reason, settled, at_us, tries, new_holder, new_reserved_us, ended_us = move
    codes = STATUS_CODE[status], _REASON_CODE[reason], _EVENT_CODE[settled]
    status_code, reason_code, event_code = codes
    keeps_holder, keeps_reserved = new_holder is None, new_reserved_us is None
    pack, crc = _STATE.pack, crc32
    records = []
    for (job_id, state), slot in zip(jobs, slots, strict=True):
        (
            topic, weight, seq, _, _, _, attempt, token, retries, crashes, resets,
            _, _, holder, reserved_us, _, notes, lane, size,
        ) = state  # fmt: skip
        data = pack(
            VERSION, status_code, reason_code, event_code, topic, weight, seq,
            attempt + tries, token + tries, retries, crashes, resets, at_us, slot,
            holder if keeps_holder else new_holder,
            reserved_us if keeps_reserved else new_reserved_us,
            ended_us, notes, lane, size,
        )  # fmt: skip
        check = crc(data, crc(job_id, IS_STATE))
        records.append((job_id, data + check.to_bytes(CRC, "little")))
    return records


def decode_state(job_id: bytes, record: bytes) -> JobState:
    """The state in a record.

    Raises:
        StoreCorrupt: The record is damaged, or of another version.
    """
    (state,) = decode_states((job_id,), (record,))
    assert state is not None
    return state


def decode_states(
    job_ids: Sequence[bytes], records: Sequence[bytes | None]
) -> list[JobState | None]:
    """The states in records; None where there is no record. In one go: a third faster.

    Raises:
        StoreCorrupt: A record is damaged, or of another version.
    """
    unpack, crc, new = _STATE.unpack_from, crc32, tuple.__new__
    states: list[JobState | None] = []
    for job_id, record in zip(job_ids, records, strict=True):
        if record is None:
            states.append(None)
            continue
        if len(record) != _STATE_SIZE or crc(record, crc(job_id, IS_STATE)) != INTACT:
            raise _damaged("the state of a job", job_id)
        (
            version, status, reason, settled, topic, weight, seq, attempt, token, retries, crashes,
            resets, at_us, slot, holder, reserved_us, ended_us, notes, lane, size,
        ) = unpack(record)  # fmt: skip
        if version != VERSION:
            raise _foreign("the state of a job", job_id, version)
        try:
            state = (
                topic, weight, seq, STATUSES[status], _REASONS[reason], _EVENTS[settled],
                attempt, token, retries, crashes, resets, at_us, slot, holder,
                reserved_us, ended_us, notes, lane, size,
            )  # fmt: skip
        except IndexError as error:  # of a later jobq, which knows more of them
            raise _damaged("the state of a job", job_id) from error
        states.append(new(JobState, state))
    return states


def encode_place(key: bytes, holder: bytes, ids: bytes) -> bytes:
    """An agenda record: the holder, and the ids of all jobs that stand there."""
    return sealed(IS_PLACE, key, holder + ids)


def decode_place(key: bytes, record: bytes) -> tuple[bytes, list[bytes]]:
    """Holder and ids of an agenda record.

    Raises:
        StoreCorrupt: The record is damaged.
    """
    data = opened(IS_PLACE, key, record, "an agenda record")
    if len(data) < 24 or (len(data) - 8) % 16:
        raise _damaged("an agenda record", key)
    return data[:8], [data[at : at + 16] for at in range(8, len(data), 16)]


def holder_of(key: bytes, record: bytes) -> bytes:
    """The holder of an agenda record alone: there may be very many records.

    Raises:
        StoreCorrupt: The record is damaged.
    """
    if len(record) < 8 + CRC or crc32(record, crc32(key, IS_PLACE)) != INTACT:
        raise _damaged("an agenda record", key)
    return record[:8]


def encode_topic(key: bytes, topic: Topic) -> bytes:
    """The record of a topic."""
    flags = _CONFIGURED if topic.configured else 0
    head = _TOPIC.pack(VERSION, flags, *topic.counts, topic.listed, topic.empty_us, *topic.figures)
    return sealed(IS_TOPIC, key, head + topic.name.encode())


def decode_topic(key: bytes, record: bytes) -> Topic:
    """The topic in a record.

    Raises:
        StoreCorrupt: The record is damaged, or of another version.
    """
    if len(record) <= _TOPIC_SIZE + CRC or crc32(record, crc32(key, IS_TOPIC)) != INTACT:
        raise _damaged("a topic", key)
    numbers = _TOPIC.unpack_from(record)
    if numbers[0] != VERSION:
        raise _foreign("a topic", key, numbers[0])
    counts, figures = list(numbers[2:_LISTED]), list(numbers[_LISTED + 2 :])
    listed, empty_us, is_configured = numbers[_LISTED], numbers[_LISTED + 1], numbers[1]
    name = _text(record[_TOPIC_SIZE:-CRC], "a topic", key)
    return Topic(name, counts, listed, empty_us, bool(is_configured & _CONFIGURED), figures)


def encode_topic_settings(key: bytes, settings: TopicSettings) -> bytes:
    """The settings of a topic that has any."""
    packed = msgpack.packb(settings.as_dict())
    assert isinstance(packed, bytes)
    return sealed(IS_TOPIC_SETTINGS, key, packed)


def decode_topic_settings(key: bytes, record: bytes) -> TopicSettings:
    """The settings in a record. What this version does not know is left out.

    Raises:
        StoreCorrupt: The record is damaged.
    """
    what = "the settings of a topic"
    data = opened(IS_TOPIC_SETTINGS, key, record, what)
    try:
        found = msgpack.unpackb(data)
        known = {name: found[name] for name in TopicSettings.__dataclass_fields__ if name in found}
        for name in ("rate", "group_rate"):
            if name in known:
                known[name] = tuple(known[name])
    except Exception as error:  # of any kind: msgpack has many, and then it may be no map
        raise _damaged(what, key) from error
    return TopicSettings(**known) if known else NO_SETTINGS


def encode_number(key: bytes, number: int) -> bytes:
    """The number of a topic, under its name."""
    return sealed(IS_NUMBER, key, number.to_bytes(4, "big"))


def decode_number(key: bytes, record: bytes) -> int:
    """The number in a record.

    Raises:
        StoreCorrupt: The record is damaged.
    """
    data = opened(IS_NUMBER, key, record, "the number of a topic")
    if len(data) != 4:
        raise _damaged("the number of a topic", key)
    return int.from_bytes(data, "big")


def encode_meta(key: bytes, meta: Meta) -> bytes:
    """The record that every write transaction changes."""
    data = _META.pack(
        VERSION,
        meta.group,
        meta.seq,
        meta.slot,
        meta.topics,
        meta.last_id,
        *meta.totals,
        meta.size,
        *meta.watched,
        meta.configured,
    )
    return sealed(IS_META, key, data)


def decode_meta(key: bytes, record: bytes) -> Meta:
    """The meta record.

    Raises:
        StoreCorrupt: The record is damaged, or of another version.
    """
    data = opened(IS_META, key, record, "the meta record")
    if len(data) != _META.size:
        raise _damaged("the meta record", key)
    version, group, seq, slot, topics, last_id, *numbers = _META.unpack(data)
    if version != VERSION:
        raise _foreign("the meta record", key, version)
    states = len(STATUSES)
    totals, (size, *watched, configured) = numbers[:states], numbers[states:]
    return Meta(group, seq, slot, topics, last_id, totals, size, watched, configured)


def encode_key(at: bytes, key: Key) -> bytes:
    """The record of a unique key."""
    return sealed(IS_KEY, at, _KEY.pack(VERSION, *key))


def decode_key(at: bytes, record: bytes) -> Key:
    """The unique key in a record.

    Raises:
        StoreCorrupt: The record is damaged, or of another version.
    """
    data = opened(IS_KEY, at, record, "a unique key")
    return Key(*_unpacked(_KEY, data, "a unique key", at))


def encode_lane(at: bytes, lane: Lane) -> bytes:
    """The record of a lane."""
    topic, ready, running, weight, turn, tat_ns, due_us, group = lane
    data = _LANE.pack(VERSION, topic, ready, running, weight, turn, tat_ns, due_us) + group.encode()
    return data + crc32(data, crc32(at, IS_LANE)).to_bytes(CRC, "little")


def decode_lane(at: bytes, record: bytes) -> Lane:
    """The lane in a record.

    Raises:
        StoreCorrupt: The record is damaged, or of another version.
    """
    return decode_lanes([(at, record)])[0]


def decode_lanes(records: Iterable[tuple[bytes, bytes]]) -> list[Lane]:
    """The lanes in records with their keys. In one go: a third faster.

    Raises:
        StoreCorrupt: A record is damaged, or of another version.
    """
    unpack, crc, new = _LANE.unpack_from, crc32, tuple.__new__
    lanes = []
    for at, record in records:
        if len(record) < _LEAST_LANE or crc(record, crc(at, IS_LANE)) != INTACT:
            raise _damaged("a lane", at)
        version, topic, ready, running, weight, turn, tat_ns, due_us = unpack(record)
        if version != VERSION:
            raise _foreign("a lane", at, version)
        group = _text(record[_LANE_SIZE:-CRC], "a lane", at)
        lane = (topic, ready, running, weight, turn, tat_ns, due_us, group)
        lanes.append(new(Lane, lane))
    return lanes


def encode_lingering(at: bytes, lingering: Lingering) -> bytes:
    """The record of a lingering hold."""
    unique = (lingering.unique or "").encode()
    return sealed(IS_LINGERING, at, _LINGERING.pack(VERSION, *lingering[:-1]) + unique)


def decode_lingering(at: bytes, record: bytes) -> Lingering:
    """The lingering hold in a record.

    Raises:
        StoreCorrupt: The record is damaged, or of another version.
    """
    data = opened(IS_LINGERING, at, record, "a lingering hold")
    fields = _unpacked(_LINGERING, data[: _LINGERING.size], "a lingering hold", at)
    unique = _text(data[_LINGERING.size :], "a lingering hold", at)
    return Lingering._make((*fields, unique or None))


def _unpacked(layout: Struct, data: bytes, what: str, key: bytes) -> tuple[Any, ...]:
    """The fields of a fixed layout, without its version."""
    if len(data) != layout.size:
        raise _damaged(what, key)
    version, *found = layout.unpack(data)
    if version != VERSION:
        raise _foreign(what, key, version)
    return tuple(found)


def encode_note(key: bytes, note: bytes) -> bytes:
    """A note, with its checksum."""
    return sealed(IS_NOTE, key, note)


def decode_note(key: bytes, record: bytes) -> bytes:
    """The note in a record.

    Raises:
        StoreCorrupt: The record is damaged.
    """
    return opened(IS_NOTE, key, record, "a note of a job")


def encode_settings(key: bytes, settings: dict[str, Any]) -> bytes:
    """What is fixed when the queue is made; its `format` says how to read all the rest."""
    return encode_note(key, msgpack.packb(settings))


def decode_settings(key: bytes, record: bytes) -> dict[str, Any]:
    """The settings of the queue.

    Raises:
        StoreCorrupt: The record is damaged.
    """
    data = decode_note(key, record)
    try:
        settings = msgpack.unpackb(data)
    except Exception as error:  # of any kind: msgpack has many
        raise _damaged("the settings of the queue", key) from error
    if not isinstance(settings, dict):
        raise StoreCorrupt(f"the settings of the queue are {shown(settings)}: expected a map")
    return settings


@lru_cache(maxsize=512)
def encode_options(options: JobOptions) -> bytes:
    """Options as bytes; nothing for none. Most jobs of a program have the same few."""
    found = options.given()
    if "deadline" in found:
        found["deadline"] = options.deadline_us
    packed = msgpack.packb(found) if found else b""
    assert isinstance(packed, bytes)
    return packed


@lru_cache(maxsize=512)
def decode_options(data: bytes) -> JobOptions:
    """Options from bytes. What this version does not know is left out.

    Raises:
        StoreCorrupt: They cannot be read.
    """
    try:
        found = msgpack.unpackb(data)
        if not _OPTIONS.keys() >= found.keys():
            found = {name: value for name, value in found.items() if name in _OPTIONS}
        _refuse_wrong_types(found)
        if "tags" in found:
            found["tags"] = tuple(found["tags"])
        if "deadline" in found:
            found["deadline"] = utc(found["deadline"])
        return JobOptions.from_checked(found)
    except Exception as error:  # of any kind: msgpack has many, and then it may be no map
        raise StoreCorrupt(f"the options of a job are damaged ({len(data)} bytes)") from error


def _refuse_wrong_types(options: dict[str, Any]) -> None:
    for name, value in options.items():
        if type(value) not in _OPTIONS[name]:
            raise TypeError(f"{name} is a {type(value).__name__}")
    if not _TEXT.issuperset(map(type, options.get("tags", ()))):
        raise TypeError("a tag is no text")


def _text(data: bytes, what: str, key: bytes) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise _damaged(what, key) from error


def _damaged(what: str, key: bytes) -> StoreCorrupt:
    return StoreCorrupt(f"{what} (key {key.hex()}) is damaged")


def _foreign(what: str, key: bytes, version: int) -> StoreCorrupt:
    return StoreCorrupt(
        f"{what} (key {key.hex()}) is of version {version}: this jobq reads {VERSION}"
    )
