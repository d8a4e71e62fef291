"""Keys that sort as jobs are served and as they fall due.

Integers are big-endian, so bytes compare as numbers do. Topics stand in keys by number: keys
stay short, and no topic's keys can be a prefix of another's.

| database | key | value |
|---|---|---|
| meta | a name | see `records` |
| topics | `n` name | number |
| topics | `i` number (4) | counts and name |
| topics | `s` number (4) | settings, if there are any |
| jobs | id (16) | body |
| states | id (16) | state |
| queue | topic (4) weight (2) seq (8) | id (16) |
| agenda | agenda (1) time (8) slot (8) | holder (8), ids (16 each) |
| notes | id (16) note (1) number (4) | bytes |
| flow | `k` unique key | who has it |
| flow | `o` time (8) unique key | nothing: its period is over then |
| flow | `l` number (8) | a lane |
| flow | `g` topic (4) group | the number of its lane (8) |
| flow | `h` id (16) token (4) | a lingering hold |

The queue of a group's lane, which has a number from 2**32 up, begins with four bytes 0xff and the
number (8) in place of the topic.
"""

from collections.abc import Iterable, Sequence
from struct import Struct
from typing import Final

from jobq.errors import StoreCorrupt
from jobq.repo.flow import FIRST_LANE
from jobq.repo.repositories import Waiting

SEQ: Final = 8
"""How many bytes a queue key ends with for the place within its weight."""
WEIGHT: Final = 2
"""How many it has for the weight, before that."""

STORE: Final = 0
"""No topic's number: under it stand the settings of the store as a whole."""

_QUEUE: Final = Struct(">IHQ")
_AGENDA: Final = Struct(">BQQ")
AGENDA_SIZE: Final = _AGENDA.size
"""How many bytes an agenda key has."""
_NOTE: Final = Struct(">16sBI")
_LANE_QUEUE: Final = Struct(">IQHQ")
_OF_LANE: Final = 0xFFFF_FFFF
_WEIGHT_BIAS: Final = 1 << 15  # int16 as uint16, so that negative weights sort first


def queue_key(topic: int, weight: int, seq: int) -> bytes:
    """A job's place in the queue.

    >>> queue_key(1, -5, 9) < queue_key(1, 3, 2) < queue_key(1, 3, 10) < queue_key(2, -9, 1)
    True
    """
    if topic < FIRST_LANE:
        return _QUEUE.pack(topic, weight + _WEIGHT_BIAS, seq)
    return _LANE_QUEUE.pack(_OF_LANE, topic, weight + _WEIGHT_BIAS, seq)


def queue_entries(topic: int, jobs: Iterable[tuple[int, int, bytes]]) -> list[tuple[bytes, bytes]]:
    """Entries of a queue, with their keys, of (weight, seq, id) each.

    >>> queue_entries(1, [(0, 7, b"id")]) == [(queue_key(1, 0, 7), b"id")]
    True
    """
    if topic >= FIRST_LANE:
        return [(queue_key(topic, weight, seq), job_id) for weight, seq, job_id in jobs]
    pack = _QUEUE.pack
    return [(pack(topic, weight + _WEIGHT_BIAS, seq), job_id) for weight, seq, job_id in jobs]


def read_queue_key(key: bytes) -> tuple[int, int, int]:
    """Topic, weight and seq of a queue key.

    >>> read_queue_key(queue_key(7, -32768, 1))
    (7, -32768, 1)
    >>> read_queue_key(queue_key(2**32 + 7, -1, 2)) == (2**32 + 7, -1, 2)
    True

    Raises:
        StoreCorrupt: It cannot be one.
    """
    topic, weight, seq = _unpacked(key)
    return topic, weight - _WEIGHT_BIAS, seq


def _unpacked(key: bytes) -> tuple[int, int, int]:
    if len(key) == _QUEUE.size:
        topic, weight, seq = _QUEUE.unpack(key)
    elif len(key) == _LANE_QUEUE.size and key[:4] == b"\xff\xff\xff\xff":
        _, topic, weight, seq = _LANE_QUEUE.unpack(key)
    else:
        raise StoreCorrupt(f"a queue has the key {key.hex()}; `jobq check` lists what is wrong")
    return topic, weight, seq


def read_queue(entries: Sequence[tuple[bytes | memoryview, bytes | memoryview]]) -> list[Waiting]:
    """What stands in the queue of one topic: its entries, taken apart in one go.

    >>> read_queue([(queue_key(7, -1, 5), b"id")])
    [Waiting(weight=-1, seq=5, id=b'id')]

    Raises:
        StoreCorrupt: A key cannot be one.
    """
    keys = [bytes(key) for key, _ in entries]
    if set(map(len, keys)) == {_QUEUE.size}:
        places = _QUEUE.iter_unpack(b"".join(keys))
    else:
        places = iter([_unpacked(key) for key in keys])
    return [
        tuple.__new__(Waiting, (weight - _WEIGHT_BIAS, seq, bytes(job_id)))
        for (_, weight, seq), (_, job_id) in zip(places, entries, strict=True)
    ]


def queue_prefix(topic: int) -> bytes:
    """What all queue keys of the topic begin with.

    >>> queue_key(5, 0, 1).startswith(queue_prefix(5))
    True
    """
    if topic < FIRST_LANE:
        return topic.to_bytes(4, "big")
    return _OF_LANE.to_bytes(4) + topic.to_bytes(8)


def queue_start(topic: int, weight: int) -> bytes:
    """What all queue keys of the topic begin with that have this weight.

    >>> queue_key(5, 7, 1).startswith(queue_start(5, 7))
    True
    >>> queue_start(2**32, 7).startswith(queue_prefix(2**32))
    True
    """
    return queue_key(topic, weight, 0)[:-SEQ]


def agenda_key(agenda: int, at_us: int, slot: int) -> bytes:
    """A place in an agenda.

    >>> agenda_key(1, 255, 9) < agenda_key(1, 256, 1) < agenda_key(2, 0, 0)
    True
    """
    return _AGENDA.pack(agenda, at_us, slot)


def read_agenda_key(key: bytes) -> tuple[int, int, int]:
    """Agenda, time and slot of an agenda key.

    >>> read_agenda_key(agenda_key(2, 1_700_000_000_000_000, 3))
    (2, 1700000000000000, 3)

    Raises:
        StoreCorrupt: It cannot be one.
    """
    if len(key) != _AGENDA.size:
        raise StoreCorrupt(f"an agenda has the key {key.hex()}; `jobq check` lists what is wrong")
    agenda, at_us, slot = _AGENDA.unpack(key)
    return agenda, at_us, slot


def topic_name_key(name: str) -> bytes:
    """Where a topic's number stands.

    >>> topic_name_key("mail")
    b'nmail'
    """
    return b"n" + name.encode()


def topic_number_key(number: int) -> bytes:
    r"""Where a topic's counts and name stand.

    >>> topic_number_key(258)
    b'i\x00\x00\x01\x02'
    """
    return b"i" + number.to_bytes(4, "big")


def topic_settings_key(number: int) -> bytes:
    r"""Where a topic's settings stand.

    >>> topic_settings_key(258)
    b's\x00\x00\x01\x02'
    """
    return b"s" + number.to_bytes(4, "big")


def read_topic_key(key: bytes) -> tuple[bytes, int]:
    """Kind and number of a key under a topic's number.

    >>> read_topic_key(topic_settings_key(7))
    (b's', 7)

    Raises:
        StoreCorrupt: It cannot be one.
    """
    if len(key) != 5:
        raise StoreCorrupt(f"a topic has the key {key.hex()}; `jobq check` lists what is wrong")
    return key[:1], int.from_bytes(key[1:], "big")


def note_key(job_id: bytes, note: int, number: int) -> bytes:
    r"""Where a part of a note of a job stands.

    >>> note_key(bytes(16), 2, 3)[-6:]
    b'\x00\x02\x00\x00\x00\x03'
    """
    return _NOTE.pack(job_id, note, number)


def note_prefix(job_id: bytes, note: int) -> bytes:
    """What the keys of all parts of a note begin with.

    >>> note_key(bytes(16), 2, 3).startswith(note_prefix(bytes(16), 2))
    True
    """
    return job_id + bytes((note,))


def read_note_key(key: bytes) -> tuple[bytes, int, int]:
    """Job, note and number of a note key.

    >>> read_note_key(note_key(bytes(16), 8, 70))[1:]
    (8, 70)

    Raises:
        StoreCorrupt: It cannot be one.
    """
    if len(key) != _NOTE.size:
        raise StoreCorrupt(f"a note has the key {key.hex()}; `jobq check` lists what is wrong")
    job_id, note, number = _NOTE.unpack(key)
    return job_id, note, number


def unique_key(name: str) -> bytes:
    """Where a unique key stands.

    >>> unique_key("user:7")
    b'kuser:7'
    """
    return b"k" + name.encode()


def over_key(until_us: int, name: str) -> bytes:
    """Where it stands that the period of a unique key is over at a time.

    >>> over_key(255, "b") < over_key(256, "a")
    True
    """
    return b"o" + until_us.to_bytes(8) + name.encode()


def lane_key(number: int) -> bytes:
    """Where a lane stands.

    >>> lane_key(255) < lane_key(256)
    True
    """
    return b"l" + number.to_bytes(8)


def group_key(topic: int, group: str) -> bytes:
    """Where the number of a group's lane stands.

    >>> group_key(1, "b") < group_key(2, "a")
    True
    """
    return b"g" + topic.to_bytes(4) + group.encode()


def lingering_key(job_id: bytes, token: int) -> bytes:
    r"""Where a lingering hold stands.

    >>> lingering_key(bytes(16), 3)[-5:]
    b'\x00\x00\x00\x00\x03'
    """
    return b"h" + job_id + token.to_bytes(4)


def read_flow_kind(key: bytes) -> bytes:
    """What kind of record of flow control stands under a key: its first byte.

    >>> read_flow_kind(lane_key(7))
    b'l'

    Raises:
        StoreCorrupt: It cannot be one.
    """
    if key[:1] not in {b"k", b"o", b"l", b"g", b"h"}:
        raise StoreCorrupt(
            f"flow control has the key {key.hex()}; `jobq check` lists what is wrong"
        )
    return key[:1]
