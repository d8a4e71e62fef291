"""litequeue: messages in an SQLite table, taken by `pop` and finished by `done`.

As its README drives it: text in JSON, `put`, `pop`, `done` with what `pop` gave, `prune` from time
to time. It opens its file with WAL and synchronous=NORMAL, where a power cut loses the last
commits though they were acknowledged; here its connection is set to FULL, to keep what the others
keep.

What it does less than jobq: a message that was popped stays locked until somebody calls `retry`:
there are no leases, and nobody notices that a worker has died. In 0.9, the last version for Python
3.11, `done` is not fenced: it takes the message's id alone, so a worker that was given up can
finish another one's work; later versions have claims. No delays, backoff, results, weights or
wake-up: who waits has to ask again. `pop` takes one message, so a batch of n is n commits; `put`
and `done` of several share one by its `transaction`.

Versions differ in their threads too: 0.14 shares an object among them, with a lock of its own; one
of 0.9 has no lock, and a transaction of one thread is in another's way, so each thread has its own
there, and SQLite lets them wait for one another.
"""

import inspect
import json
import threading
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from sqlite3 import Connection
from typing import Any, Final, Protocol

import litequeue

from benchmarks.yardsticks.parts import Payload

FENCED: Final = "claim_id" in inspect.signature(litequeue.LiteQueue.done).parameters
"""Whether this version's `done` takes the claim, and threads may share an object."""

WAIT_S: Final = 60.0
"""How long SQLite lets a connection wait for another's commit: its default of 5 s is too short for
32 threads, and an error is no figure."""


class Message(Protocol):
    @property
    def data(self) -> str: ...
    @property
    def message_id(self) -> str: ...


class Peer(Protocol):
    """What is used of a `litequeue.LiteQueue`."""

    conn: Connection

    def put(self, data: str) -> Message: ...
    def pop(self) -> Message | None: ...
    def done(self, *, message_id: str, claim_id: int = ...) -> object: ...
    def prune(self) -> None: ...
    def transaction(self, mode: str = ...) -> AbstractContextManager[None]: ...
    def close(self) -> None: ...


class LiteQueueFull:
    """The queue in the directory *path*; for all threads of a process."""

    def __init__(self, path: Path) -> None:
        path.mkdir(parents=True, exist_ok=True)
        self._file = path / "queue.sqlite3"
        self._mine = threading.local()
        self._opening = threading.Lock()
        self._opened: list[Peer] = []
        self._open()

    def enqueue_many(self, payloads: Sequence[Payload]) -> list[str]:
        queue = self._queue()
        if len(payloads) == 1:  # as the README puts one message: a commit of its own
            return [queue.put(json.dumps(payloads[0])).message_id]
        with queue.transaction("IMMEDIATE"):
            return [queue.put(json.dumps(payload)).message_id for payload in payloads]

    def reserve(self, n: int) -> list[Message]:
        """Locked, each in a commit of its own."""
        queue = self._queue()
        messages: list[Message] = []
        while len(messages) < n and (message := queue.pop()) is not None:
            messages.append(message)
        return messages

    def payload(self, job: Message) -> Payload:
        payload: Payload = json.loads(job.data)
        return payload

    def done_many(self, jobs: Sequence[Message]) -> int:
        queue = self._queue()
        if len(jobs) == 1:
            return self._done(queue, jobs[0])
        with queue.transaction("IMMEDIATE"):
            return sum(self._done(queue, job) for job in jobs)

    def forget(self) -> None:
        """Delete what is done: version 0.9 searches it for the next message otherwise."""
        self._queue().prune()

    def close(self) -> None:
        for queue in self._opened:
            queue.close()

    def _done(self, queue: Peer, job: Any) -> int:
        if FENCED:
            return int(bool(queue.done(message_id=job.message_id, claim_id=job.claim_id)))
        queue.done(
            message_id=job.message_id
        )  # and says nothing of use: the message may be anybody's
        return 1

    def _queue(self) -> Peer:
        """The object of this thread, or of all."""
        if FENCED:
            return self._opened[0]
        queue: Peer | None = getattr(self._mine, "queue", None)
        return queue or self._open()

    def _open(self) -> Peer:
        with self._opening:
            queue: Peer = litequeue.LiteQueue(str(self._file), timeout=WAIT_S)
            queue.conn.execute("PRAGMA synchronous = FULL")
            self._opened.append(queue)
        self._mine.queue = queue
        return queue
