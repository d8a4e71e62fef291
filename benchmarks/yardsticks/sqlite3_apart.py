"""The queue of `sqlite3_hand` with the payloads in a table of their own: for large ones.

SQLite writes a whole row again when a column of it changes. At 200 bytes that costs less than a
second b-tree; at 10 kB and more, a skilled person would keep the payload where reserving and
finishing do not touch it.
"""

import sqlite3
from typing import Final

from benchmarks.yardsticks.sqlite3_hand import LEASE_US, RESERVE, SCHEMA, Row, SqliteQueue

BODIES: Final = """
CREATE TABLE body (
    seq     INTEGER PRIMARY KEY,  -- of its job
    payload BLOB    NOT NULL
);
"""
NEXT: Final = "SELECT coalesce(max(seq), 0) + 1 FROM job"
ENQUEUE: Final = (
    "INSERT INTO job (seq, id, topic, state, created, payload) VALUES (?, ?, ?, 0, ?, x'')"
)
BODY: Final = "INSERT INTO body (seq, payload) VALUES (?, ?)"
READ: Final = "SELECT payload FROM body WHERE seq = ?"


class SqliteQueueApart(SqliteQueue):
    """One topic of a queue in the directory *path*; for all threads of a process."""

    schema = SCHEMA + BODIES

    def _insert(
        self, connection: sqlite3.Connection, ids: list[bytes], bodies: list[bytes], now: int
    ) -> None:
        connection.execute("BEGIN IMMEDIATE")  # before the look at the last place
        first = connection.execute(NEXT).fetchone()[0]
        topic = self._topic
        connection.executemany(
            ENQUEUE, [(seq, job_id, topic, now) for seq, job_id in enumerate(ids, first)]
        )
        connection.executemany(BODY, list(enumerate(bodies, first)))

    def _take(self, connection: sqlite3.Connection, n: int, now: int) -> list[Row]:
        self._advance(connection, now)
        rows = connection.execute(RESERVE, (now + LEASE_US, self._topic, n)).fetchall()
        return [(*row[:5], connection.execute(READ, (row[1],)).fetchone()[0]) for row in rows]
