"""A queue on the standard library's sqlite3, as a skilled person would write it instead of jobq.

It has what jobq has where that costs time: order by (weight, place), ids, tokens that are checked
when a job is finished, leases that run out, delayed jobs, finished jobs kept with their times. It
lacks what costs nothing here: backoff, reasons, results, statistics, pruning, wake-ups.

What makes it strong, each found by measuring:

- WAL with synchronous=FULL: a commit is one flush of one file, and it survives a power cut.
- One row a job, no other table: at 200 bytes, rewriting the payload costs less than a second
  b-tree. For large ones see `sqlite3_apart`.
- A partial index for each state, so that a job is in one of them at a time, and finished jobs
  weigh on nobody.
- Reserve is one statement, UPDATE … RETURNING. The transaction begins as a writer (BEGIN
  IMMEDIATE): one that began as a reader would fail where another process had written meanwhile.
- A connection for each thread, and a lock among the threads of a process: SQLite waits for its
  write lock by sleeping, a mutex hands it on.

Tried without gain: larger pages, a larger page cache, mmap, fewer checkpoints, and the id as
primary key of a table WITHOUT ROWID.
"""

import itertools
import sqlite3
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from benchmarks.yardsticks.parts import Ids, Payload, decode, encode

LEASE_US = 600 * 1_000_000

SCHEMA = """
PRAGMA journal_mode = WAL;

CREATE TABLE topic (
    id   INTEGER PRIMARY KEY,
    name TEXT NOT NULL UNIQUE
);

CREATE TABLE job (
    seq         INTEGER PRIMARY KEY,           -- its place: the order of commits
    id          BLOB    NOT NULL UNIQUE,
    topic       INTEGER NOT NULL,
    weight      INTEGER NOT NULL DEFAULT 0,
    state       INTEGER NOT NULL,              -- 0 ready, 1 delayed, 2 reserved, 3 done, 4 canceled
    at          INTEGER,                       -- µs: due, end of the lease, or when it ended
    created     INTEGER NOT NULL,              -- µs
    token       INTEGER NOT NULL DEFAULT 0,
    attempt     INTEGER NOT NULL DEFAULT 0,
    retries     INTEGER NOT NULL DEFAULT 0,
    crashes     INTEGER NOT NULL DEFAULT 0,
    max_retries INTEGER NOT NULL DEFAULT 20,
    max_crashes INTEGER NOT NULL DEFAULT 5,
    payload     BLOB    NOT NULL
);

CREATE INDEX job_ready ON job (topic, weight, seq) WHERE state = 0;
CREATE INDEX job_due   ON job (at) WHERE state = 1;
CREATE INDEX job_lease ON job (at) WHERE state = 2;
CREATE INDEX job_ended ON job (at) WHERE state >= 3;
"""

ENQUEUE = "INSERT INTO job (id, topic, state, created, payload) VALUES (?, ?, 0, ?, ?)"

PROMOTE = "UPDATE job SET state = 0, at = NULL WHERE state = 1 AND at <= ?"

EXPIRE = """
UPDATE job SET
    crashes = crashes + 1,
    state   = CASE WHEN crashes < max_crashes THEN 0 ELSE 4 END,
    at      = CASE WHEN crashes < max_crashes THEN NULL ELSE at END
WHERE state = 2 AND at <= ?
"""

RESERVE = """
UPDATE job SET state = 2, at = ?, token = token + 1, attempt = attempt + 1
WHERE seq IN (
    SELECT seq FROM job WHERE state = 0 AND topic = ? ORDER BY weight, seq LIMIT ?
)
RETURNING weight, seq, id, token, attempt, payload
"""

DONE = "UPDATE job SET state = 3, at = ? WHERE seq = ? AND token = ? AND state = 2"


Row = tuple[int, int, bytes, int, int, bytes]
"""What RESERVE returns."""


class SqliteJob(NamedTuple):
    seq: int
    id: bytes
    token: int
    attempt: int
    payload: Payload


class SqliteQueue:
    """One topic of a queue in the directory *path*; for all threads of a process."""

    schema = SCHEMA

    def __init__(self, path: Path, topic: str = "work") -> None:
        if sqlite3.sqlite_version_info < (3, 35):
            raise RuntimeError(f"SQLite {sqlite3.sqlite_version} has no RETURNING: 3.35 is needed")
        path.mkdir(parents=True, exist_ok=True)
        self._file = path / "queue.sqlite3"
        self._lock = threading.Lock()
        self._mine = threading.local()
        self._connections: list[sqlite3.Connection] = []
        self._ids = Ids()
        connection = self._connection()
        if not connection.execute("SELECT 1 FROM sqlite_master").fetchone():
            connection.executescript(self.schema)
        with self._lock, connection:
            connection.execute("INSERT OR IGNORE INTO topic (name) VALUES (?)", (topic,))
        found = connection.execute("SELECT id FROM topic WHERE name = ?", (topic,)).fetchone()
        self._topic = int(found[0])

    def enqueue_many(self, payloads: Sequence[Payload]) -> list[bytes]:
        now = _now_us()
        bodies = [encode(payload) for payload in payloads]
        with self._lock, self._connection() as connection:
            # Minted under the lock: in the order of commits.
            ids = self._ids.mint(len(bodies))
            self._insert(connection, ids, bodies, now)
        return ids

    def reserve(self, n: int) -> list[SqliteJob]:
        now = _now_us()
        with self._lock, self._connection() as connection:
            rows = self._take(connection, n, now)
        return _jobs(rows)

    def payload(self, job: SqliteJob) -> Payload:
        return job.payload

    def done_many(self, jobs: Sequence[SqliteJob]) -> int:
        now = _now_us()
        with self._lock, self._connection() as connection:
            return self._finish(connection, jobs, now)

    def turn(self, jobs: Sequence[SqliteJob], n: int) -> list[SqliteJob]:
        """Finish *jobs* and reserve up to *n*, in one commit: for a loop."""
        now = _now_us()
        with self._lock, self._connection() as connection:
            if self._finish(connection, jobs, now) != len(jobs):
                raise RuntimeError("a job was finished that is not held")
            rows = self._take(connection, n, now)
        return _jobs(rows)

    def waiting(self) -> int:
        count = "SELECT count(*) FROM job WHERE state = 0 AND topic = ?"
        with self._lock:
            return int(self._connection().execute(count, (self._topic,)).fetchone()[0])

    def close(self) -> None:
        for connection in self._connections:
            connection.close()

    def _insert(
        self, connection: sqlite3.Connection, ids: list[bytes], bodies: list[bytes], now: int
    ) -> None:
        topic = self._topic
        connection.executemany(
            ENQUEUE, [(job_id, topic, now, body) for job_id, body in zip(ids, bodies, strict=True)]
        )

    def _take(self, connection: sqlite3.Connection, n: int, now: int) -> list[Row]:
        self._advance(connection, now)
        return connection.execute(RESERVE, (now + LEASE_US, self._topic, n)).fetchall()

    def _advance(self, connection: sqlite3.Connection, now: int) -> None:
        connection.execute(PROMOTE, (now,))
        connection.execute(EXPIRE, (now,))

    def _finish(self, connection: sqlite3.Connection, jobs: Sequence[SqliteJob], now: int) -> int:
        return connection.executemany(DONE, [(now, job.seq, job.token) for job in jobs]).rowcount

    def _connection(self) -> sqlite3.Connection:
        """The connection of this thread."""
        connection: sqlite3.Connection | None = getattr(self._mine, "connection", None)
        if connection is None:
            connection = sqlite3.connect(
                self._file,
                timeout=60,
                isolation_level="IMMEDIATE",  # how `with connection` begins before a change
                check_same_thread=False,  # `close` closes the connections of all threads
            )
            connection.execute("PRAGMA synchronous = FULL")
            connection.execute("PRAGMA temp_store = MEMORY")
            self._mine.connection = connection
            self._connections.append(connection)
        return connection


class SqliteQueueByStatement(SqliteQueue):
    """The same with one long statement for a whole batch, where the other runs executemany.

    Fewer calls into SQLite, at the price of statements with thousands of parameters, which few
    people write. It shows how far the file and the schema go.
    """

    MOST_ROWS = 1000  # SQLite takes 32 766 parameters a statement

    def _insert(
        self, connection: sqlite3.Connection, ids: list[bytes], bodies: list[bytes], now: int
    ) -> None:
        topic = self._topic
        for start in range(0, len(ids), self.MOST_ROWS):
            some = slice(start, start + self.MOST_ROWS)
            rows = [
                (job_id, topic, now, body)
                for job_id, body in zip(ids[some], bodies[some], strict=True)
            ]
            connection.execute(
                "INSERT INTO job (id, topic, state, created, payload) VALUES "
                + ",".join(["(?,?,0,?,?)"] * len(rows)),
                list(itertools.chain.from_iterable(rows)),
            )

    def _finish(self, connection: sqlite3.Connection, jobs: Sequence[SqliteJob], now: int) -> int:
        finished = 0
        for start in range(0, len(jobs), self.MOST_ROWS):
            some = jobs[start : start + self.MOST_ROWS]
            held = [(job.seq, job.token) for job in some]
            finished += connection.execute(
                "UPDATE job SET state = 3, at = ? FROM (VALUES "
                + ",".join(["(?,?)"] * len(held))
                + ") AS held WHERE seq = held.column1 AND token = held.column2 AND state = 2",
                [now, *itertools.chain.from_iterable(held)],
            ).rowcount
        return finished


def _jobs(rows: list[Row]) -> list[SqliteJob]:
    return [
        SqliteJob(seq, job_id, token, attempt, decode(body))
        for _, seq, job_id, token, attempt, body in sorted(rows)  # RETURNING promises no order
    ]


def _now_us() -> int:
    return time.time_ns() // 1000
