"""Unique keys, lanes and lingering holds, in LMDB."""

from collections.abc import Iterator

from jobq.errors import StoreCorrupt
from jobq.repo.flow import FlowRepository, Key, Lane, Lingering
from jobq.repo.lmdb.access import Access, ascending
from jobq.repo.lmdb.keys import group_key, lane_key, lingering_key, over_key, unique_key
from jobq.repo.lmdb.records import (
    decode_key,
    decode_lane,
    decode_lingering,
    decode_note,
    encode_key,
    encode_lane,
    encode_lingering,
    encode_note,
)


class LmdbFlow(FlowRepository):
    """What flow control keeps, within one transaction.

    Lanes change several times in one transaction and are written once, by `flush`.
    """

    __slots__ = ("_access", "_lanes", "_written")

    def __init__(self, access: Access) -> None:
        self._access = access
        self._lanes: dict[int, Lane | None] = {}
        self._written: dict[int, Lane] = {}

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
            found.append((at[1:].decode(), decode_key(at, data)))
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
        at = lane_key(number)
        data = self._get(at)
        lane = None if data is None else decode_lane(at, data)
        self._lanes[number] = lane
        if lane is not None:
            self._written[number] = lane
        return lane

    def lane_number(self, topic: int, group: str) -> int | None:
        at = group_key(topic, group)
        data = self._get(at)
        return None if data is None else int.from_bytes(decode_note(at, data))

    def put_lane(self, number: int, lane: Lane) -> None:
        if self.lane(number) is None and lane.group:
            at = group_key(lane.topic, lane.group)
            self._put(at, encode_note(at, number.to_bytes(8)))
        self._lanes[number] = lane
        self._access.dirty = True

    def drop_lane(self, number: int) -> None:
        lane = self.lane(number)
        if lane is not None:
            if lane.group:
                self._delete(group_key(lane.topic, lane.group))
            self._delete(lane_key(number))
            self._lanes[number] = None
            self._written.pop(number, None)

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
        for number, lane in self._lanes.items():
            if lane is not None and self._written.get(number) != lane:
                at = lane_key(number)
                if lane.ready < 0 or lane.running < 0:
                    raise StoreCorrupt(
                        f"group {lane.group!r} would count {lane.ready} ready and {lane.running} "
                        "reserved jobs; `jobq check` lists what is wrong"
                    )
                self._put(at, encode_lane(at, lane))

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
        return list(self._lingering_under(b"h" + job_id))

    def all_lingering(self) -> Iterator[tuple[bytes, int, Lingering]]:
        return self._lingering_under(b"h")

    def _lingering_under(self, prefix: bytes) -> Iterator[tuple[bytes, int, Lingering]]:
        for at, data in self._under(prefix):
            yield at[1:17], int.from_bytes(at[17:]), decode_lingering(at, data)

    # For check and rebuild.

    def all_lanes(self) -> Iterator[tuple[int, Lane]]:
        for at, data in self._under(b"l"):
            number = int.from_bytes(at[1:])
            lane = self._lanes.get(number) or decode_lane(at, data)
            yield number, lane

    def strays(self) -> Iterator[str]:
        for at, data in self._under(b"g"):
            number = int.from_bytes(decode_note(at, data))
            lane = self.lane(number)
            if lane is None or group_key(lane.topic, lane.group) != at:
                yield f"group key {at.hex()} names lane {number}, which is not its own"
        for number, lane in self.all_lanes():
            if lane.group and self.lane_number(lane.topic, lane.group) != number:
                yield f"lane {number} is of group {lane.group!r}, which does not name it"
        for at, _ in self._under(b"o"):
            name = at[9:].decode()
            key = self.key(name)
            if key is None or key.until_us != int.from_bytes(at[1:9]):
                yield f"unique key {name!r} has a period that it does not know of"
        for at, data in self._under(b"k"):
            name, key = at[1:].decode(), decode_key(at, data)
            if key.until_us and self._get(over_key(key.until_us, name)) is None:
                yield f"the period of unique key {name!r} is not noted"

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
