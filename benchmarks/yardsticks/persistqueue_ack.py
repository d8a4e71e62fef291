"""persist-queue's SQLiteAckQueue: a `queue.Queue` on disk whose items are acknowledged.

As its README drives it: `multithreading=True` where threads share it, auto_commit, its default (an
ack queue has no other way), `put`, `get`, `ack`. Its durability: WAL, and no word of
`synchronous`, so what SQLite was built with, which is FULL with CPython's own and with most
distributions; here both of its connections are told FULL, so that every put, get and ack is
flushed before it returns. Its serializer for msgpack, in place of pickle, so that the codec is
that of the others.

What it does less than jobq: it is for the threads of one process. What was taken is known to the
object that took it: another process that opens the file takes such items again, from under a worker
that lives, and two processes that `get` may both have the same item. No leases, tokens, delays,
retry record, results, weights or batches: each call is a commit. Finished items are searched by
every `get` until `clear_acked_data` has removed them.
"""

from collections.abc import Sequence
from pathlib import Path
from sqlite3 import Connection
from typing import Any, Final, NamedTuple, Protocol

import persistqueue
import persistqueue.serializers.msgpack

from benchmarks.yardsticks.parts import Payload

FORGET_EVERY: Final = 100
"""After how many items `clear_acked_data` deletes what is acknowledged: every `get` searches it."""

MOST_CLEARED: Final = 100_000


class Peer(Protocol):
    """What is used of a `persistqueue.SQLiteAckQueue`."""

    _getter: Connection
    _putter: Connection

    def put(self, item: Any) -> int | None: ...
    def get(self, *, block: bool = ..., raw: bool = ...) -> dict[str, Any]: ...
    def ack(self, item: Any = ..., id: int | None = ...) -> int | None: ...  # noqa: A002
    def qsize(self) -> int: ...
    def clear_acked_data(self, max_delete: int = ..., keep_latest: int = ...) -> None: ...
    def close(self) -> None: ...


class AckJob(NamedTuple):
    id: int
    payload: Payload


class PersistQueueAck:
    """The queue in the directory *path*; for all threads of a process, and for one process."""

    def __init__(self, path: Path) -> None:
        self._queue: Peer = persistqueue.SQLiteAckQueue(
            str(path),
            multithreading=True,
            auto_commit=True,
            serializer=persistqueue.serializers.msgpack,
        )
        self._finished = 0  # threads may miscount it a little: it only says when to forget
        for connection in (self._queue._getter, self._queue._putter):
            connection.execute("PRAGMA synchronous = FULL")

    def enqueue_many(self, payloads: Sequence[Payload]) -> list[int | None]:
        """Each in a commit of its own."""
        return [self._queue.put(payload) for payload in payloads]

    def reserve(self, n: int) -> list[AckJob]:
        """Each in a commit of its own."""
        jobs: list[AckJob] = []
        while len(jobs) < n:
            try:
                item = self._queue.get(block=False, raw=True)
            except persistqueue.Empty:
                break
            jobs.append(AckJob(item["pqid"], item["data"]))
        return jobs

    def payload(self, job: AckJob) -> Payload:
        return job.payload

    def done_many(self, jobs: Sequence[AckJob]) -> int:
        """Each in a commit of its own."""
        done = sum(self._queue.ack(id=job.id) is not None for job in jobs)
        self._finished += done
        if self._finished >= FORGET_EVERY:
            self._finished = 0
            self._queue.clear_acked_data(max_delete=MOST_CLEARED, keep_latest=0)
        return done

    def waiting(self) -> int:
        return self._queue.qsize()

    def close(self) -> None:
        self._queue.close()
