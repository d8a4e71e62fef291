"""Unique keys, lanes and lingering holds, in memory."""

from collections.abc import Callable, Iterator
from itertools import islice
from typing import TypeVar

from sortedcontainers import SortedDict, SortedSet

from jobq.repo.flow import FlowRepository, Key, Lane, Lingering
from jobq.repo.memory.undo import Undo

K = TypeVar("K")
V = TypeVar("V")


class MemoryFlow(FlowRepository):
    """What flow control keeps, in sorted containers: names in the order of their UTF-8 bytes."""

    def __init__(self, undo: Undo) -> None:
        self._undo = undo
        self._keys: SortedDict[bytes, Key] = SortedDict()
        self._over: SortedSet[tuple[int, bytes]] = SortedSet()
        self._lanes: dict[int, Lane] = {}
        self._groups: SortedDict[tuple[int, bytes], int] = SortedDict()
        self._lingering: SortedDict[tuple[bytes, int], Lingering] = SortedDict()

    # Unique keys.

    def key(self, name: str) -> Key | None:
        found: Key | None = self._keys.get(name.encode())
        return found

    def put_key(self, name: str, key: Key) -> None:
        self._set_key(name, key)

    def drop_key(self, name: str) -> None:
        self._set_key(name, None)

    def _set_key(self, name: str, key: Key | None) -> None:
        before = self.key(name)
        self._undo.note(self._become, name, key, before)
        self._become(name, before, key)

    def _become(self, name: str, before: Key | None, key: Key | None) -> None:
        raw = name.encode()
        if before is not None and before.until_us:
            self._over.discard((before.until_us, raw))
        if key is None:
            self._keys.pop(raw, None)
            return
        self._keys[raw] = key
        if key.until_us:
            self._over.add((key.until_us, raw))

    def keys(self, after: str | None, limit: int) -> list[tuple[str, Key]]:
        names = self._beyond(self._keys, None if after is None else after.encode())
        return [(name.decode(), self._keys[name]) for name in islice(names, limit)]

    def keys_over(self, until_us: int, limit: int) -> list[str]:
        return [name.decode() for at, name in self._over[:limit] if at <= until_us]

    # Lanes.

    def lane(self, number: int) -> Lane | None:
        return self._lanes.get(number)

    def lane_number(self, topic: int, group: str) -> int | None:
        found: int | None = self._groups.get((topic, group.encode()))
        return found

    def put_lane(self, number: int, lane: Lane) -> None:
        before = self._lanes.get(number)
        self._undo.note(self._set_lane, number, before, lane)
        self._set_lane(number, lane, None)

    def drop_lane(self, number: int) -> None:
        before = self._lanes.get(number)
        if before is not None:
            self._undo.note(self._set_lane, number, before, None)
            self._set_lane(number, None, before)

    def _set_lane(self, number: int, lane: Lane | None, instead: Lane | None) -> None:
        if lane is None:
            self._lanes.pop(number, None)
            if instead is not None and instead.group:
                self._groups.pop((instead.topic, instead.group.encode()), None)
            return
        self._lanes[number] = lane
        if lane.group:
            self._groups[lane.topic, lane.group.encode()] = number

    def lanes(self, topic: int, after: str | None, limit: int) -> list[tuple[int, Lane]]:
        start = (topic, b"") if after is None else (topic, after.encode())
        keys = self._groups.irange(start, (topic + 1, b""), inclusive=(False, False))
        return [
            (number, self._lanes[number])
            for number in (self._groups[key] for key in islice(keys, limit))
        ]

    # Lingering holds.

    def lingering(self, job_id: bytes, token: int) -> Lingering | None:
        found: Lingering | None = self._lingering.get((job_id, token))
        return found

    def put_lingering(self, job_id: bytes, token: int, lingering: Lingering) -> None:
        self._undo.note(self._set_lingering, (job_id, token), self.lingering(job_id, token))
        self._lingering[job_id, token] = lingering

    def drop_lingering(self, job_id: bytes, token: int) -> None:
        before = self.lingering(job_id, token)
        if before is not None:
            self._undo.note(self._set_lingering, (job_id, token), before)
            self._lingering.pop((job_id, token), None)

    def _set_lingering(self, key: tuple[bytes, int], lingering: Lingering | None) -> None:
        if lingering is None:
            self._lingering.pop(key, None)
        else:
            self._lingering[key] = lingering

    def lingering_of(self, job_id: bytes) -> list[tuple[bytes, int, Lingering]]:
        keys = self._lingering.irange((job_id, 0), (job_id, 2**32))
        return [(job_id, token, self._lingering[job_id, token]) for _, token in keys]

    def all_lingering(self) -> Iterator[tuple[bytes, int, Lingering]]:
        for (job_id, token), lingering in self._lingering.items():
            yield job_id, token, lingering

    # For check and rebuild.

    def all_keys(self) -> Iterator[tuple[str, Key]]:
        for name, key in self._keys.items():
            yield name.decode(), key

    def all_lanes(self) -> Iterator[tuple[int, Lane]]:
        for number in sorted(self._lanes):
            yield number, self._lanes[number]

    def strays(self) -> Iterator[str]:
        yield from ()  # nothing here can contradict itself

    def mend(self) -> None:
        pass

    @staticmethod
    def _beyond(found: SortedDict[K, V], after: K | None) -> Iterator[K]:
        walk: Callable[..., Iterator[K]] = found.irange
        return iter(found) if after is None else walk(minimum=after, inclusive=(False, True))
