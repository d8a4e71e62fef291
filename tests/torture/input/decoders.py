"""Everything in jobq that reads bytes, with sound bytes to damage, and what to hold it to."""

import io
import json
import random
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any, Final, NamedTuple
from uuid import UUID
from zlib import crc32

from jobq import codec
from jobq.cli import payloads
from jobq.cli.payloads import WrongPayload
from jobq.cli.plain import plain
from jobq.errors import InvalidValue, StoreCorrupt
from jobq.ids import to_raw
from jobq.job import Attempt, JobCopy, LogLine, Progress
from jobq.options import JobOptions
from jobq.repo.flow import Key, Lane, Lingering
from jobq.repo.lmdb import keys, records
from jobq.repo.operations import history
from jobq.repo.repositories import JobBody, JobState
from jobq.service import transfer
from jobq.states import Event, Reason, Status
from jobq.topic import TopicSettings
from tests.test_codec import exact

ID: Final = bytes(range(16))
LONGEST_MESSAGE: Final = 1500
_LIMIT: Final = 2**32
_LATE: Final = datetime(2030, 1, 1, tzinfo=UTC)
_OPTIONS: Final = JobOptions.of(
    {"lease": 5, "tags": ["a", "é"], "unique": "k", "deadline": _LATE, "unique_for": 7}
)
_HISTORY: Final = history.History(
    "it broke", 3, (Attempt(1, Event.RETRY, "host:1", 10**15, 10**15 + 5, "it broke"),)
)
_VALUES: Final = (
    {"user": 7, "tags": ["a", "é"], "at": _LATE, 3: (1, {2})},
    [UUID(int=5), Decimal("1.5"), timedelta(1, 2, 3), date.max, -1.5, b"x" * 40, 2**63],
    {(1, ("a", (2,))): [{None}, {"deep": [[[({}, (), set())]]]}], "t": "text" * 10},
    ["x" * 5000, {"k": list(range(400))}],
)


class Decoder(NamedTuple):
    """One of those that read bytes.

    Attributes:
        name: What it reads.
        sound: Bytes that it can read.
        read: Reads them.
        write: Writes what was read; None if nothing does.
        raises: The errors that it may raise.
        kind: The kind of a record that has a checksum; None if it has none.
        key: The key of that record.
        longest: The most bytes that come to it.
    """

    name: str
    sound: tuple[bytes, ...]
    read: Callable[[bytes], Any]
    write: Callable[[Any], bytes] | None = None
    raises: tuple[type[Exception], ...] = (StoreCorrupt,)
    kind: int | None = None
    key: bytes = ID
    longest: int = 100_002

    def try_on(self, data: bytes) -> bool:
        """Whether it can read *data*; if so, what it writes reads the same again.

        Raises:
            AssertionError: It does not, or a checksum that is wrong was passed over.
            Exception: One that it may not raise.
        """
        try:
            value = self.read(data)
        except self.raises as error:
            self._judge(str(error))
            return False
        if self.kind is not None:
            found = crc32(data[:-4], crc32(self.key, self.kind)).to_bytes(4, "little")
            assert data[-4:] == found, "read in spite of its checksum"
        if self.write is not None:
            written = self.write(value)
            again = self.read(written)
            assert self.write(again) == written or exact(again) == exact(value), "not the same"
        return True

    def _judge(self, message: str) -> None:
        assert len(message) < LONGEST_MESSAGE, f"a message of {len(message)} characters"

    def sealed(self, data: bytes) -> bytes:
        """*data*, its last four bytes replaced by a checksum that is right."""
        assert self.kind is not None
        return records.sealed(self.kind, self.key, data[:-4])


def _record(
    name: str,
    kind: int,
    value: Any,
    read: Callable[[bytes, bytes], Any],
    write: Callable[[bytes, Any], bytes],
    key: bytes = ID,
) -> Decoder:
    return Decoder(
        name,
        (write(key, value),),
        lambda data: read(key, data),
        lambda value: write(key, value),
        kind=kind,
        key=key,
    )


def _place(key: bytes, place: tuple[bytes, list[bytes]]) -> bytes:
    return records.encode_place(key, place[0], b"".join(place[1]))


_BODY: Final = JobBody(1, -5, 7, 10**15, 0, 0, _OPTIONS, codec.pack([1], limit=99), 1)
_STATE: Final = JobState(
    1, -5, 7, Status.CANCELED, Reason.REJECTED, Event.CANCEL, 2, 2, 1, 0, 0, 10**15, 4,
    b"holder 1", 10**15, 10**15, 3, 1, 9,
)  # fmt: skip
_META: Final = records.Meta.empty()

RECORDS: Final = (
    _record("body", records.IS_BODY, _BODY, records.decode_body, records.encode_body),
    _record("state", records.IS_STATE, _STATE, records.decode_state, records.encode_state),
    _record("meta", records.IS_META, _META, records.decode_meta, records.encode_meta),
    _record("place", records.IS_PLACE, (b"holder 1", [ID, ID[::-1]]), records.decode_place, _place),
    _record("topic", records.IS_TOPIC, records.Topic("手紙", [1, 2, 3, 4, 5]),
            records.decode_topic, records.encode_topic),
    _record("settings of a topic", records.IS_TOPIC_SETTINGS, TopicSettings(rate=(5, 1.5)),
            records.decode_topic_settings, records.encode_topic_settings),
    _record("number", records.IS_NUMBER, 7, records.decode_number, records.encode_number),
    _record("key", records.IS_KEY, Key(ID, 5), records.decode_key, records.encode_key),
    _record("lane", records.IS_LANE, Lane(1, 2, 3, -4, 5, 6, 7, "groupé"), records.decode_lane,
            records.encode_lane),
    _record("lingering", records.IS_LINGERING, Lingering(1, 2, 3, 4, b"holder 1", "k"),
            records.decode_lingering, records.encode_lingering),
    _record("note", records.IS_NOTE, b"note", records.decode_note, records.encode_note),
    _record("settings", records.IS_NOTE, {"format": 3}, records.decode_settings,
            records.encode_settings),
)  # fmt: skip

PAYLOAD: Final = Decoder(
    "payload",
    tuple(codec.pack(value, limit=_LIMIT) for value in _VALUES),
    codec.unpack,
    lambda value: codec.pack(value, limit=_LIMIT),
)


def _shown(data: bytes) -> str:
    """A payload as `jobq jobs show` writes it."""
    return json.dumps(plain(codec.unpack(data)))


def _key(name: str, read: Callable[[bytes], Any], *sound: bytes) -> Decoder:
    return Decoder(name, sound, read, longest=511)  # LMDB has no longer ones


def _lines(data: bytes) -> Any:
    return [list(one) for one in payloads.of_lines(io.BytesIO(data), payloads.from_json)]


def _imported(data: bytes) -> Any:
    """A line of an import, as the command reads it."""
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        value = data.decode(errors="backslashreplace")
    return transfer.from_line(value)


_COPY: Final = JobCopy(
    id=ID, topic="mail", status=Status.CANCELED, reason=Reason.REJECTED, weight=-5, place=7,
    attempt=2, token=2, retries=1, crashes=0, resets=0, created_us=10**15, until_us=10**15,
    reserved_us=10**15, ended_us=10**15, options=_OPTIONS, payload=PAYLOAD.sound[0], result=b"\x01",
    error="it broke", history=_HISTORY.attempts, history_dropped=0,
    progress=Progress(1, 2.5, "half", 10**15), log=(LogLine(10**15, "a line"),), log_dropped=0,
)  # fmt: skip
_LINE: Final = json.dumps(transfer.to_line(_COPY)).encode()
_WRONG: Final = (WrongPayload,)

OTHERS: Final = (
    Decoder("payload as JSON", PAYLOAD.sound, _shown),
    Decoder("options", (records.encode_options(_OPTIONS),), records.decode_options),
    Decoder("history", (history._pack(_HISTORY),), history._unpack),
    _key("queue key", keys.read_queue_key, keys.queue_key(1, -5, 9), keys.queue_key(2**32, 1, 9)),
    _key("queue", lambda data: keys.read_queue([(data, ID)]), keys.queue_key(1, -5, 9)),
    _key("agenda key", keys.read_agenda_key, keys.agenda_key(1, 255, 9)),
    _key("topic key", keys.read_topic_key, keys.topic_settings_key(7)),
    _key("note key", keys.read_note_key, keys.note_key(ID, 2, 3)),
    _key("flow key", keys.read_flow_kind, keys.lane_key(7)),
    Decoder("JSON", (b'{"to": ["ann", 1.5e3, null]}',), payloads.from_json, None, _WRONG),
    Decoder("lines of JSON", (b'{"a": 1}\n\n[2]\n"x"', _LINE), _lines, None, _WRONG),
    Decoder("text", ("手紙".encode(),), payloads.from_text, None, _WRONG),
    Decoder("line of an import", (_LINE,), _imported,
            lambda copy: json.dumps(transfer.to_line(copy)).encode(), (InvalidValue,)),
    Decoder("id", (b"018bcfe5-6800-7000-8000-000000000001",),
            lambda data: to_raw(data.decode("latin-1")), None, (InvalidValue,)),
)  # fmt: skip


DECODERS: Final = (PAYLOAD, *RECORDS, *OTHERS)


def json_noise(chance: random.Random) -> bytes:
    """A line of an import with one of its fields replaced."""
    line = json.loads(_LINE)
    values: tuple[Any, ...] = (None, True, -1, 0, 2**62, 2**63, 10**40, 1.5, "", "x",
              "9999-12-31T23:59:59-14:00", "1970-01-01T00:00+14:00",
              "0001-01-01T00:00Z", [], {}, [[]], [{}], [{"at": 5}],
              "\ud800", "reserved", "ready", {"lease": -1}, {"deadline": "9999-12-31T23:59-14:00"},
              {"tags": [5]}, "gaR" * 100, [{"attempt": 1, "event": "promote"}])  # fmt: skip
    for _ in range(chance.randrange(1, 3)):
        line[chance.choice(list(line))] = chance.choice(values)
    for name in chance.sample(list(line), chance.randrange(2)):
        del line[name]
    return json.dumps(line).encode()
