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

Later versions share an object among threads, with a lock of their own. 0.9 has none, and says
nothing of threads: this one puts a lock in front of it. (An object for each thread, which SQLite
lets wait for one another, has a tenth of the rate with 32 threads.)
"""

import inspect
import json
import threading
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from sqlite3 import Connection
from typing import Any, Final, Protocol

import litequeue

from benchmarks.yardsticks.parts import Payload

FENCED: Final = "claim_id" in inspect.signature(litequeue.LiteQueue.done).parameters
"""Whether this version's `done` takes the claim, and threads may share an object."""

FORGET_EVERY: Final = 100
"""After how many messages `prune` deletes what is done: 0.9 searches it for the next message."""


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
    def qsize(self) -> int: ...
    def prune(self) -> None: ...
    def transaction(self, mode: str = ...) -> AbstractContextManager[None]: ...
    def close(self) -> None: ...


class LiteQueueFull:
    """The queue in the directory *path*; for all threads of a process."""

    def __init__(self, path: Path) -> None:
        path.mkdir(parents=True, exist_ok=True)
        self._queue: Peer = litequeue.LiteQueue(str(path / "queue.sqlite3"))
        self._queue.conn.execute("PRAGMA synchronous = FULL")
        self._finished = 0
        self._lock: AbstractContextManager[object] = nullcontext() if FENCED else threading.Lock()

    def enqueue_many(self, payloads: Sequence[Payload]) -> list[str]:
        bodies = [json.dumps(payload) for payload in payloads]
        queue = self._queue
        with self._lock:
            if len(bodies) == 1:  # as the README puts one message: a commit of its own
                return [queue.put(bodies[0]).message_id]
            with queue.transaction("IMMEDIATE"):
                return [queue.put(body).message_id for body in bodies]

    def reserve(self, n: int) -> list[Message]:
        """Locked, each in a commit of its own."""
        messages: list[Message] = []
        while len(messages) < n:
            with self._lock:
                message = self._queue.pop()
            if message is None:
                break
            messages.append(message)
        return messages

    def payload(self, job: Message) -> Payload:
        payload: Payload = json.loads(job.data)
        return payload

    def done_many(self, jobs: Sequence[Message]) -> int:
        with self._lock:
            if len(jobs) == 1:
                done = self._done(jobs[0])
            else:
                with self._queue.transaction("IMMEDIATE"):
                    done = sum(self._done(job) for job in jobs)
            self._finished += done
            if self._finished >= FORGET_EVERY:
                self._finished = 0
                self._queue.prune()
        return done

    def waiting(self) -> int:
        with self._lock:
            return self._queue.qsize()  # of 0.9: and those that are locked

    def close(self) -> None:
        self._queue.close()

    def _done(self, job: Any) -> int:
        if FENCED:
            done = self._queue.done(message_id=job.message_id, claim_id=job.claim_id)
            return int(bool(done))
        self._queue.done(message_id=job.message_id)  # and does not say whose the message is
        return 1
