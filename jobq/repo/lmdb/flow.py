"""Unique keys, lanes and lingering holds, in LMDB."""

from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar, cast

from jobq.errors import StoreCorrupt
from jobq.repo.flow import FIRST_LANE, FlowRepository, Key, Lane, Lingering
from jobq.repo.lmdb.access import Access, ascending, refuse_damaged_tree
from jobq.repo.lmdb.keys import (
    group_key,
    lane_key,
    lingering_key,
    over_key,
    read_flow_kind,
    unique_key,
)
from jobq.repo.lmdb.records import (
    decode_key,
    decode_lane,
    decode_lanes,
    decode_lingering,
    decode_note,
    encode_key,
    encode_lane,
    encode_lingering,
    encode_note,
)

T = TypeVar("T")


class LmdbFlow(FlowRepository):
    """What flow control keeps, within one transaction.

    Lanes change several times in one transaction and are written once, by `flush`. What is known
    of them as they are in the file stands in `Access.kept`.
    """

    __slots__ = ("_access", "_lanes")

    def __init__(self, access: Access) -> None:
        self._access = access
        self._lanes: dict[int, Lane | None] = {}  # those that have changed; None: dropped

    # Unique keys.

    def key(self, name: str) -> Key | None:
        at = unique_key(name)
        data = self._get(at)
        return None if data is None else decode_key(at, data)

    def put_key(self, name: str, key: Key) -> None:
        self.drop_key(name)
        at = unique_key(name)
        self._put(at, encode_key(at, key))
        if key.until_us:
            over = over_key(key.until_us, name)
            self._put(over, encode_note(over, b""))

    def drop_key(self, name: str) -> None:
        key = self.key(name)
        if key is not None:
            self._delete(unique_key(name))
            if key.until_us:
                self._delete(over_key(key.until_us, name))

    def keys(self, after: str | None, limit: int) -> list[tuple[str, Key]]:
        found: list[tuple[str, Key]] = []
        for at, data in self._under(b"k", None if after is None else unique_key(after)):
            key = decode_key(at, data)  # first: the name of a damaged one may be no text
            found.append((at[1:].decode(), key))
            if len(found) == limit:
                break
        return found

    def keys_over(self, until_us: int, limit: int) -> list[str]:
        found: list[str] = []
        for at, data in self._under(b"o"):
            decode_note(at, data)
            if int.from_bytes(at[1:9]) > until_us or len(found) == limit:
                break
            found.append(at[9:].decode())
        return found

    # Lanes.

    def lane(self, number: int) -> Lane | None:
        if number in self._lanes:
            return self._lanes[number]
        known = self._access.kept.lanes
        lane = known.get(number)
        if lane is None:
            at = lane_key(number)
            data = self._get(at)
            if data is not None:
                lane = known[number] = decode_lane(at, data)
        return lane

    def lanes_at(self, numbers: Sequence[int]) -> list[Lane | None]:
        changed, known = self._lanes, self._access.kept.lanes
        keys = [lane_key(number) for number in numbers if number not in known]
        if keys:
            with self._access.txn.cursor(self._access.db.flow) as cursor:
                # Without `buffers`, lmdb gives bytes; its types say that it might give views.
                found = cast("list[tuple[bytes, bytes]]", cursor.getmulti(keys))
            for (at, _), lane in zip(found, decode_lanes(found), strict=True):
                known[int.from_bytes(at[1:])] = lane
        if not changed:  # as mostly
            return [known.get(number) for number in numbers]
        return [self.lane(number) for number in numbers]

    def lane_number(self, topic: int, group: str) -> int | None:
        at = group_key(topic, group)
        data = self._get(at)
        return None if data is None else int.from_bytes(decode_note(at, data))

    def put_lane(self, number: int, lane: Lane) -> None:
        if not self._lanes.get(number) and self.lane(number) is None and lane.group:
            at = group_key(lane.topic, lane.group)
            self._put(at, encode_note(at, number.to_bytes(8)))
        self._lanes[number] = lane
        self._access.dirty = True

    def put_lanes(self, lanes: Sequence[tuple[int, Lane]]) -> None:
        self._lanes.update(lanes)
        self._access.dirty = True

    def drop_lane(self, number: int) -> None:
        lane = self.lane(number)
        if lane is not None:
            if lane.group:
                self._delete(group_key(lane.topic, lane.group))
            self._delete(lane_key(number))
            self._lanes[number] = None
            self._access.kept.lanes.pop(number, None)

    def lanes(self, topic: int, after: str | None, limit: int) -> list[tuple[int, Lane]]:
        prefix = group_key(topic, "")
        found: list[tuple[int, Lane]] = []
        for at, data in self._under(prefix, None if after is None else group_key(topic, after)):
            number = int.from_bytes(decode_note(at, data))
            lane = self.lane(number)
            if lane is None:
                raise StoreCorrupt(
                    f"group {at[len(prefix) :].decode()!r} has no lane; "
                    "`jobq check` lists what is wrong"
                )
            found.append((number, lane))
            if len(found) == limit:
                break
        return found

    def flush(self) -> None:
        """Write the lanes that changed."""
        known = self._access.kept.lanes if self._lanes else {}
        written = []
        for number, lane in self._lanes.items():
            if lane is not None and known.get(number) != lane:
                at = lane_key(number)
                if lane[1] < 0 or lane[2] < 0:
                    raise StoreCorrupt(
                        f"group {lane.group!r} would count {lane.ready} ready and {lane.running} "
                        "reserved jobs; `jobq check` lists what is wrong"
                    )
                written.append((at, encode_lane(at, lane)))
                known[number] = lane
        if written:
            self._access.dirty = True
            with self._access.txn.cursor(self._access.db.flow) as cursor:
                cursor.putmulti(written)

    # Lingering holds.

    def lingering(self, job_id: bytes, token: int) -> Lingering | None:
        at = lingering_key(job_id, token)
        data = self._get(at)
        return None if data is None else decode_lingering(at, data)

    def put_lingering(self, job_id: bytes, token: int, lingering: Lingering) -> None:
        at = lingering_key(job_id, token)
        self._put(at, encode_lingering(at, lingering))

    def drop_lingering(self, job_id: bytes, token: int) -> None:
        self._delete(lingering_key(job_id, token))

    def lingering_of(self, job_id: bytes) -> list[tuple[bytes, int, Lingering]]:
        return [
            (job_id, int.from_bytes(at[17:]), decode_lingering(at, data))
            for at, data in self._under(b"h" + job_id)
        ]

    def all_lingering(self) -> Iterator[tuple[bytes, int, Lingering]]:
        for at, lingering in self._readable(b"h", decode_lingering):
            yield at[1:17], int.from_bytes(at[17:]), lingering

    # For check and rebuild.

    def all_keys(self) -> Iterator[tuple[str, Key]]:
        for at, key in self._readable(b"k", decode_key):
            yield at[1:].decode(), key

    def all_lanes(self) -> Iterator[tuple[int, Lane]]:
        for at, lane in self._readable(b"l", decode_lane):
            number = int.from_bytes(at[1:])
            yield number, self._lanes.get(number) or lane

    def _readable(
        self, prefix: bytes, decode: Callable[[bytes, bytes], T]
    ) -> Iterator[tuple[bytes, T]]:
        """The records that begin so, without the damaged ones, which are strays."""
        for at, data in self._under(prefix):
            try:
                record = decode(at, data)
            except StoreCorrupt:
                continue
            yield at, record

    def strays(self) -> Iterator[str]:
        records = 0
        for at, data in self._under(b""):
            records += 1
            wrong = self._wrong_with(at, data) or self._missing_for(at, data)
            if wrong:
                yield wrong
        there = self._access.txn.stat(self._access.db.flow)["entries"]
        if records != there:
            yield f"of {there} records of flow control only {records} can be come by"

    def _wrong_with(self, at: bytes, data: bytes) -> str:
        """Why a record should not be there; empty if it should."""
        kind = at[:1]
        try:
            if kind == b"k":
                decode_key(at, data)
            elif kind == b"h":
                decode_lingering(at, data)
            elif kind == b"l":
                return self._wrong_with_lane(at, decode_lane(at, data))
            elif kind == b"g":
                return self._wrong_with_group(at, int.from_bytes(decode_note(at, data)))
            elif kind == b"o":
                decode_note(at, data)
                until_us, name = int.from_bytes(at[1:9]), at[9:].decode()
                key = self._intact(unique_key(name), decode_key)
                if key is None or key.until_us != until_us:
                    return f"unique key {name!r} has a period that it does not know of"
            else:
                read_flow_kind(at)
        except StoreCorrupt as error:
            return str(error)
        return ""

    def _wrong_with_lane(self, at: bytes, lane: Lane) -> str:
        number = int.from_bytes(at[1:])
        if bool(lane.group) is not (number >= FIRST_LANE):
            return f"lane {number} cannot be that of group {lane.group!r}"
        named = self._intact(group_key(lane.topic, lane.group), decode_note)
        if not lane.group or named is None or int.from_bytes(named) == number:
            return ""
        return f"lane {number} is of group {lane.group!r}, which has lane {int.from_bytes(named)}"

    def _wrong_with_group(self, at: bytes, number: int) -> str:
        lane = self._intact(lane_key(number), decode_lane)
        if lane is not None and group_key(lane.topic, lane.group) == at:
            return ""
        return f"group {at[5:].decode()!r} has lane {number}, which is not its own"

    def _missing_for(self, at: bytes, data: bytes) -> str:
        """Which record is not there that an intact one asks for; empty if all are."""
        if at[:1] == b"k":
            until_us, name = decode_key(at, data).until_us, at[1:].decode()
            if until_us and self._get(over_key(until_us, name)) is None:
                return f"the period of unique key {name!r} is not noted"
        elif at[:1] == b"l":
            lane = decode_lane(at, data)
            if lane.group and self._get(group_key(lane.topic, lane.group)) is None:
                number = int.from_bytes(at[1:])
                return f"lane {number} is of group {lane.group!r}, which does not name it"
        return ""

    def _intact(self, at: bytes, decode: Callable[[bytes, bytes], T]) -> T | None:
        """What stands there, if it can be read."""
        data = self._get(at)
        try:
            return None if data is None else decode(at, data)
        except StoreCorrupt:
            return None

    def mend(self) -> None:
        refuse_damaged_tree(self._access, self._access.db.flow, read_flow_kind)
        self._lanes.clear()
        self._access.kept.lanes.clear()
        for at in [at for at, data in self._under(b"") if self._wrong_with(at, data)]:
            self._delete(at)
        for at, data in [it for it in self._under(b"") if self._missing_for(*it)]:
            if at[:1] == b"k":
                over = over_key(decode_key(at, data).until_us, at[1:].decode())
                self._put(over, encode_note(over, b""))
            else:
                lane = decode_lane(at, data)
                of = group_key(lane.topic, lane.group)
                self._put(of, encode_note(of, at[1:]))

    # The database.

    def _get(self, at: bytes) -> bytes | None:
        data = self._access.txn.get(at, db=self._access.db.flow)
        return None if data is None else bytes(data)

    def _put(self, at: bytes, data: bytes) -> None:
        self._access.dirty = True
        self._access.txn.put(at, data, db=self._access.db.flow)

    def _delete(self, at: bytes) -> None:
        self._access.dirty = True
        self._access.txn.delete(at, db=self._access.db.flow)

    def _under(self, prefix: bytes, after: bytes | None = None) -> Iterator[tuple[bytes, bytes]]:
        """What stands under keys that begin so, beyond *after*."""
        with self._access.txn.cursor(self._access.db.flow) as cursor:
            if cursor.set_range(prefix if after is None else after + b"\0"):
                for key, data in ascending(cursor.iternext()):
                    at = bytes(key)
                    if not at.startswith(prefix):
                        return
                    yield at, bytes(data)
