"""The queues that benchmarks drive beside one another, by name: jobq in its ways, and yardsticks.

A yardstick whose package is not installed is left out of a run, with a line that says so; those
packages are jobq's extra `bench`.
"""

import sys
from collections.abc import Callable, Sequence
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

import jobq
from benchmarks.yardsticks.parts import Payload, Queue

TOPIC: Final = "work"

Opener = Callable[[Path], Queue[Any]]


class JobqQueue:
    """jobq as a user drives it."""

    def __init__(self, path: str, durability: str = "full", topics: str | None = None) -> None:
        self.service = jobq.open(path, durability=durability, topics=topics)

    def enqueue_many(self, payloads: Sequence[Payload]) -> list[str]:
        if len(payloads) == 1:
            return [self.service.enqueue(TOPIC, payloads[0])]
        return self.service.enqueue_many(TOPIC, payloads)

    def reserve(self, n: int) -> list[jobq.Job]:
        return self.service.reserve(TOPIC, n, timeout=0)

    def payload(self, job: jobq.Job) -> Payload:
        payload: Payload = job.payload
        return payload

    def done_many(self, jobs: Sequence[jobq.Job]) -> int:
        if len(jobs) == 1:
            jobs[0].done()
            return 1
        return self.service.done_many(jobs).count(jobq.Outcome.OK)

    def waiting(self) -> int:
        return self.service.stats(TOPIC).totals.ready

    def close(self) -> None:
        self.service.close()


def _sqlite3_hand(path: Path) -> Queue[Any]:
    from benchmarks.yardsticks.sqlite3_hand import SqliteQueue

    return SqliteQueue(path)


def _sqlite3_by_statement(path: Path) -> Queue[Any]:
    from benchmarks.yardsticks.sqlite3_hand import SqliteQueueByStatement

    return SqliteQueueByStatement(path)


def _sqlite3_apart(path: Path) -> Queue[Any]:
    from benchmarks.yardsticks.sqlite3_apart import SqliteQueueApart

    return SqliteQueueApart(path)


def _lmdb_bare(path: Path) -> Queue[Any]:
    from benchmarks.yardsticks.lmdb_bare import BareLmdb

    return BareLmdb(path)


def _huey(path: Path) -> Queue[Any]:
    from benchmarks.yardsticks.huey_sqlite import HueyStorage

    return HueyStorage(path)


def _litequeue(path: Path) -> Queue[Any]:
    from benchmarks.yardsticks.litequeue_full import LiteQueueFull

    return LiteQueueFull(path)


def _persist_queue(path: Path) -> Queue[Any]:
    from benchmarks.yardsticks.persistqueue_ack import PersistQueueAck

    return PersistQueueAck(path)


SIDES: Final[dict[str, Opener]] = {
    "jobq": lambda path: JobqQueue(str(path)),
    "jobq mixed": lambda path: JobqQueue(str(path), topics="memory"),
    "jobq relaxed": lambda path: JobqQueue(str(path), durability="relaxed"),
    "jobq memory": lambda _: JobqQueue(":memory:"),
    "lmdb_bare": _lmdb_bare,
    "sqlite3_hand": _sqlite3_hand,
    "sqlite3_by_statement": _sqlite3_by_statement,
    "sqlite3_apart": _sqlite3_apart,
    "huey": _huey,
    "litequeue": _litequeue,
    "persist-queue": _persist_queue,
}
"""How to open each: in a directory of its own, made if there is none."""

WEAKER: Final = {"jobq relaxed": "relaxed", "jobq memory": "memory"}
"""Sides where an acknowledged call need not be on disk."""

PEERS: Final = {
    "huey": ("huey", "huey"),
    "huey tasks": ("huey", "huey"),
    "litequeue": ("litequeue", "litequeue"),
    "persist-queue": ("persistqueue", "persist-queue"),
}
"""Sides that need a package of the extra: its module and its name as a distribution."""


def durability(side: str) -> str:
    """What a call of this side promises when it returns: `full`, `relaxed` or `memory`."""
    return WEAKER.get(side, "full")


def installed(side: str) -> bool:
    """Whether the side can run here."""
    return side not in PEERS or find_spec(PEERS[side][0]) is not None


def present(sides: Sequence[str]) -> list[str]:
    """Those that can run; says on stderr which are left out, and why."""
    for side in sides:
        if not installed(side):
            distribution = PEERS[side][1]
            print(
                f"left out: {side}: {distribution} is not installed (pip install -e '.[bench]')",
                file=sys.stderr,
            )
    return [side for side in sides if installed(side)]


def versions(sides: Sequence[str]) -> dict[str, str]:
    """The installed version of each side that is a package of the extra."""
    return {side: metadata.version(PEERS[side][1]) for side in sides if side in PEERS}
