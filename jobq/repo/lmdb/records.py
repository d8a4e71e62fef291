"""Records as bytes and back: fixed layouts, each with its version and a checksum.

Every record begins with the CRC-32 of its key and all that follows, begun with the number of its
kind. So a record that was scribbled on, or lies under another key or in another database (a page
that was not written leaves what was there before), is noticed when it is read: LMDB itself has no
checksums, and of 5 500 damaged files 36 % were read silently wrong without them. Then comes one
byte, the version of the layout.
"""

from functools import lru_cache
from struct import Struct
from typing import Any, Final, NamedTuple
from zlib import crc32

import msgpack

from jobq.errors import StoreCorrupt
from jobq.options import UNSET, JobOptions
from jobq.repo.repositories import JobBody, JobState
from jobq.states import Event, Reason, Status

FORMAT: Final = 1
"""The number of the on-disk format: raised by any change to keys or records."""

VERSION: Final = 1

IS_BODY: Final = 1
IS_STATE: Final = 2
IS_TOPIC: Final = 3
IS_META: Final = 4
IS_PLACE: Final = 5
IS_NOTE: Final = 6
IS_NUMBER: Final = 7

_CRC: Final = Struct(">I")
_BODY: Final = Struct(">BIhQQQQH")  # version topic weight seq created due slot len(options)
_STATE: Final = Struct(">BBBBIhQIIIIIQQ8sQQB")
_TOPIC: Final = Struct(">BQQQQQ")
_META: Final = Struct(">BQQQI16sQQQQQ")
_BODY_START: Final = _CRC.size + _BODY.size
_STATE_SIZE: Final = _CRC.size + _STATE.size

SMALL: Final = 4096

STATUSES: Final = (Status.READY, Status.DELAYED, Status.RESERVED, Status.DONE, Status.CANCELED)
STATUS_CODE: Final = {status: code for code, status in enumerate(STATUSES)}
_REASONS: Final = (None, Reason.CANCELED, Reason.REJECTED, Reason.EXHAUSTED, Reason.POISON)
_REASON_CODE: Final = {reason: code for code, reason in enumerate(_REASONS)}
_EVENTS: Final = (None, Event.DONE, Event.RETRY, Event.RELEASE, Event.CANCEL)
_EVENT_CODE: Final = {event: code for code, event in enumerate(_EVENTS)}


class Meta(NamedTuple):
    """What every write transaction changes.

    Attributes:
        group: The number of the commit; how a failed commit is looked up afterwards.
        seq: The last place given in any queue.
        slot: The last slot given in any agenda.
        topics: The last topic number given.
        last_id: The largest id minted.
        totals: How many jobs are in each status, in the order of `STATUSES`.
    """

    group: int = 0
    seq: int = 0
    slot: int = 0
    topics: int = 0
    last_id: bytes = bytes(16)
    totals: tuple[int, ...] = (0, 0, 0, 0, 0)


def encode_body(job_id: bytes, body: JobBody) -> bytes:
    """The body record of a job."""
    topic, weight, seq, created_us, due_us, slot, options, payload = body
    packed = encode_options(options)
    head = _BODY.pack(VERSION, topic, weight, seq, created_us, due_us, slot, len(packed)) + packed
    return _CRC.pack(crc32(payload, crc32(head, crc32(job_id, IS_BODY)))) + head + payload


def decode_body(job_id: bytes, data: bytes) -> JobBody:
    """The body in a record.

    Raises:
        StoreCorrupt: The record is damaged, or of another version.
    """
    _verify(IS_BODY, job_id, data, _BODY_START, "the body of a job")
    _, topic, weight, seq, created_us, due_us, slot, length = _BODY.unpack_from(data, 4)
    end = _BODY_START + length
    options = decode_options(data[_BODY_START:end]) if length else UNSET
    return JobBody(topic, weight, seq, created_us, due_us, slot, options, data[end:])


def encode_state(job_id: bytes, state: JobState) -> bytes:
    """The state record of a job."""
    (
        topic, weight, seq, status, reason, settled, attempt, token, retries, crashes, resets,
        at_us, slot, holder, reserved_us, ended_us, notes,
    ) = state  # fmt: skip
    data = _STATE.pack(
        VERSION, STATUS_CODE[status], _REASON_CODE[reason], _EVENT_CODE[settled],
        topic, weight, seq, attempt, token, retries, crashes, resets,
        at_us, slot, holder, reserved_us, ended_us, notes,
    )  # fmt: skip
    return _CRC.pack(crc32(data, crc32(job_id, IS_STATE))) + data


def decode_state(job_id: bytes, data: bytes) -> JobState:
    """The state in a record.

    Raises:
        StoreCorrupt: The record is damaged, or of another version.
    """
    _verify(IS_STATE, job_id, data, _STATE_SIZE, "the state of a job")
    (
        _, status, reason, settled, topic, weight, seq, attempt, token, retries, crashes, resets,
        at_us, slot, holder, reserved_us, ended_us, notes,
    ) = _STATE.unpack_from(data, 4)  # fmt: skip
    return JobState(
        topic, weight, seq, STATUSES[status], _REASONS[reason], _EVENTS[settled],
        attempt, token, retries, crashes, resets, at_us, slot, holder,
        reserved_us, ended_us, notes,
    )  # fmt: skip


def encode_place(key: bytes, holder: bytes, ids: bytes) -> bytes:
    """An agenda record: the holder, and the ids of all jobs that stand there."""
    return _CRC.pack(crc32(ids, crc32(holder, crc32(key, IS_PLACE)))) + holder + ids


def decode_place(key: bytes, data: bytes) -> tuple[bytes, list[bytes]]:
    """Holder and ids of an agenda record.

    Raises:
        StoreCorrupt: The record is damaged.
    """
    sized = len(data) >= 28 and (len(data) - 12) % 16 == 0
    if not sized or _CRC.unpack_from(data)[0] != _checksum(IS_PLACE, key, data):
        raise StoreCorrupt(f"an agenda record (key {key.hex()}) is damaged")
    return data[4:12], [data[at : at + 16] for at in range(12, len(data), 16)]


def encode_topic(key: bytes, counts: list[int], name: str) -> bytes:
    """A topic's counts, in the order of `STATUSES`, and its name."""
    data = _TOPIC.pack(VERSION, *counts) + name.encode()
    return _CRC.pack(crc32(data, crc32(key, IS_TOPIC))) + data


def decode_topic(key: bytes, data: bytes) -> tuple[list[int], str]:
    """Counts and name of a topic record.

    Raises:
        StoreCorrupt: The record is damaged, or of another version.
    """
    _verify(IS_TOPIC, key, data, 4 + _TOPIC.size, "a topic")
    _, *counts = _TOPIC.unpack_from(data, 4)
    return list(counts), data[4 + _TOPIC.size :].decode()


def encode_number(key: bytes, number: int) -> bytes:
    """The number of a topic, under its name."""
    data = number.to_bytes(4, "big")
    return _CRC.pack(crc32(data, crc32(key, IS_NUMBER))) + data


def decode_number(key: bytes, data: bytes) -> int:
    """The number in a record.

    Raises:
        StoreCorrupt: The record is damaged.
    """
    if len(data) != 8 or _CRC.unpack_from(data)[0] != _checksum(IS_NUMBER, key, data):
        raise StoreCorrupt(f"the number of a topic (key {key!r}) is damaged")
    return int.from_bytes(data[4:], "big")


def encode_meta(key: bytes, meta: Meta) -> bytes:
    """The record that every write transaction changes."""
    group, seq, slot, topics, last_id, totals = meta
    data = _META.pack(VERSION, group, seq, slot, topics, last_id, *totals)
    return _CRC.pack(crc32(data, crc32(key, IS_META))) + data


def decode_meta(key: bytes, data: bytes) -> Meta:
    """The meta record.

    Raises:
        StoreCorrupt: The record is damaged, or of another version.
    """
    _verify(IS_META, key, data, 4 + _META.size, "the meta record")
    _, group, seq, slot, topics, last_id, *totals = _META.unpack_from(data, 4)
    return Meta(group, seq, slot, topics, last_id, tuple(totals))


def encode_note(key: bytes, note: bytes) -> bytes:
    """A note, with its checksum."""
    return _CRC.pack(crc32(note, crc32(key, IS_NOTE))) + note


def decode_note(key: bytes, data: bytes) -> bytes:
    """The note in a record.

    Raises:
        StoreCorrupt: The record is damaged.
    """
    if len(data) < 4 or _CRC.unpack_from(data)[0] != _checksum(IS_NOTE, key, data):
        raise StoreCorrupt(f"a note of job {key[:16].hex()} is damaged")
    return data[4:]


def encode_settings(key: bytes, settings: dict[str, Any]) -> bytes:
    """What is fixed when the queue is made; its `format` says how to read all the rest."""
    return encode_note(key, msgpack.packb(settings))


def decode_settings(key: bytes, data: bytes) -> dict[str, Any]:
    """The settings of the queue.

    Raises:
        StoreCorrupt: The record is damaged.
    """
    settings = msgpack.unpackb(decode_note(key, data))
    if not isinstance(settings, dict):
        raise StoreCorrupt(f"the settings of the queue are {settings!r}: expected a map")
    return settings


@lru_cache(maxsize=512)
def encode_options(options: JobOptions) -> bytes:
    """Options as bytes; nothing for none. Most jobs of a program have the same few."""
    if options is UNSET:
        return b""
    packed = msgpack.packb(options.as_dict())
    assert isinstance(packed, bytes)
    return packed


@lru_cache(maxsize=512)
def decode_options(data: bytes) -> JobOptions:
    """Options from bytes. What this version does not know is left out."""
    found = msgpack.unpackb(data)
    known = {name: found[name] for name in JobOptions.__dataclass_fields__ if name in found}
    if "tags" in known:
        known["tags"] = tuple(known["tags"])
    return JobOptions(**known)


def _verify(kind: int, key: bytes, data: bytes, least: int, what: str) -> None:
    """Refuse a record whose checksum or version is wrong.

    Raises:
        StoreCorrupt: So it is.
    """
    if len(data) < least or int.from_bytes(data[:4], "big") != _checksum(kind, key, data):
        raise StoreCorrupt(f"{what} (key {key.hex()}) is damaged")
    if data[4] != VERSION:
        raise StoreCorrupt(
            f"{what} (key {key.hex()}) is of version {data[4]}: this jobq reads {VERSION}"
        )


def _checksum(kind: int, key: bytes, data: bytes) -> int:
    """What the first four bytes of the record should say."""
    # Copying a small record is cheaper than a view of it, copying a large one is not.
    rest = data[4:] if len(data) < SMALL else memoryview(data)[4:]
    return crc32(rest, crc32(key, kind))
