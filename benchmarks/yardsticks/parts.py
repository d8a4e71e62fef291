"""What every yardstick needs and jobq has too: the payload codec, ids, the shape of a queue.

None of it comes from jobq, so that a change there cannot move the yardsticks with it.
"""

import os
import time
from collections.abc import Callable, Sequence
from typing import Any, Final, Protocol, TypeVar

import msgpack

Payload = dict[str, Any]
Job = TypeVar("Job")

encode: Final[Callable[[Payload], bytes]] = msgpack.Packer().pack
"""The payload as msgpack.

One Packer serves all calls: `msgpack.packb` makes a new one each time and takes twice as long.
It runs no Python code for plain values, so threads cannot meet inside it.
"""


def decode(packed: bytes) -> Payload:
    """The payload that `encode` packed."""
    payload: Payload = msgpack.unpackb(packed)
    return payload


class Ids:
    """Mints ids like UUIDv7: 16 bytes, milliseconds first, each larger than the one before."""

    def __init__(self) -> None:
        self._last = 0

    def mint(self, count: int) -> list[bytes]:
        """*count* new ids, ascending, from one reading of the clock and of randomness."""
        first = (
            (time.time_ns() // 1_000_000) << 80
            | 0x7 << 76  # version
            | 0x2 << 62  # variant
            | int.from_bytes(os.urandom(7))
        )
        first = max(first, self._last + 1)
        self._last = first + count - 1
        return [number.to_bytes(16) for number in range(first, first + count)]


class Queue(Protocol[Job]):
    """What the benchmarks drive: one life of a job in three calls, each durable on return."""

    def enqueue_many(self, payloads: Sequence[Payload]) -> Sequence[object]:
        """The ids of new jobs, one for each payload, all in one commit."""

    def reserve(self, n: int) -> list[Job]:
        """Up to *n* ready jobs, first come first served, held from now on; one commit."""

    def payload(self, job: Job) -> Payload:
        """What was enqueued, decoded."""

    def done_many(self, jobs: Sequence[Job]) -> int:
        """How many of the jobs were still held; these are finished, in one commit."""

    def waiting(self) -> int:
        """How many jobs are ready."""

    def close(self) -> None:
        """Lets go of the files."""
