"""The limit: the same key writes that a life of a job needs in jobq, straight into py-lmdb.

| call    | puts and deletes                                                                     |
|---------|--------------------------------------------------------------------------------------|
| enqueue | a body (msgpack and crc32) and a queue entry for each job                            |
| reserve | the queue entry away, a state record of fixed layout with crc32 for each job; one    |
|         | lease record for the batch                                                           |
| done    | the state record again for each job; the lease record away; one record of what ended |

and one meta record for each transaction. Opened as jobq opens a queue that is `full`.

It is no queue: no token is checked, nothing expires, no two callers may meet. What jobq takes
longer than this is what jobq's rules cost.

Tried without gain: MDB_APPEND for the keys that only grow, and one database for all small records.
"""

import struct
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple
from zlib import crc32

import lmdb

from benchmarks.yardsticks.parts import Ids, Payload, decode, encode

MAP_SIZE = 64 << 30
LEASE_US = 600 * 1_000_000
READY, RESERVED, DONE = 0, 2, 3

CRC = struct.Struct(">I")
TOPIC = struct.Struct(">I")
PLACE = struct.Struct(">IhQ")  # topic, weight, seq
AT = struct.Struct(">QQ")  # µs, number of the transaction: unique
META = struct.Struct(">QQ16s4Q")  # transaction, seq, last id, counters
STATE = struct.Struct(">BBhIQQQQQIIIII16s16s")
"""Format, status, weight, topic, seq; created, reserved, ended and lease in µs; token, attempt,
retries, crashes, resets; holder, id. With its crc32, 100 bytes or so: see `STATE.size`."""

HOLDER = b"a-holder-process"


class BareJob(NamedTuple):
    id: bytes
    seq: int
    token: int
    lease: bytes
    created_us: int
    payload: Payload


class BareLmdb:
    """One topic in the directory *path*; for one thread."""

    def __init__(self, path: Path) -> None:
        self._env = lmdb.open(
            str(path),
            map_size=MAP_SIZE,
            max_dbs=6,
            sync=True,
            metasync=True,
            writemap=False,
            lib_version=0,
        )
        self._body = self._env.open_db(b"body")
        self._queue = self._env.open_db(b"queue")
        self._state = self._env.open_db(b"state")
        self._lease = self._env.open_db(b"lease")
        self._ended = self._env.open_db(b"ended")
        self._meta = self._env.open_db(b"meta")
        self._ids = Ids()
        self._transaction = 0
        self._seq = 0
        self._last_id = bytes(16)

    def enqueue_many(self, payloads: Sequence[Payload]) -> list[bytes]:
        bodies = [_sealed(encode(payload)) for payload in payloads]
        ids = self._ids.mint(len(bodies))
        places = [(PLACE.pack(1, 0, seq), job_id) for seq, job_id in enumerate(ids, self._seq + 1)]
        self._seq += len(ids)
        self._last_id = ids[-1]
        with self._env.begin(write=True) as txn:
            _put_all(txn, self._body, list(zip(ids, bodies, strict=True)))
            _put_all(txn, self._queue, places)
            self._put_meta(txn)
        return ids

    def reserve(self, n: int) -> list[BareJob]:
        now = _now_us()
        with self._env.begin(write=True) as txn:
            jobs = self._reserve(txn, n, now)
            self._put_meta(txn)
        return jobs

    def payload(self, job: BareJob) -> Payload:
        return job.payload

    def done_many(self, jobs: Sequence[BareJob]) -> int:
        now = _now_us()
        with self._env.begin(write=True) as txn:
            self._finish(txn, jobs, now)
            self._put_meta(txn)
        return len(jobs)

    def turn(self, jobs: Sequence[BareJob], n: int) -> list[BareJob]:
        """Finish *jobs* and reserve up to *n*, in one commit: for a loop."""
        now = _now_us()
        with self._env.begin(write=True) as txn:
            if jobs:
                self._finish(txn, jobs, now)
            next_jobs = self._reserve(txn, n, now)
            self._put_meta(txn)
        return next_jobs

    def waiting(self) -> int:
        with self._env.begin() as txn:
            return int(txn.stat(self._queue)["entries"])

    def close(self) -> None:
        self._env.close()

    def _reserve(self, txn: "lmdb.Transaction[bytes]", n: int, now: int) -> list[BareJob]:
        taken = self._take(txn, n)
        lease = AT.pack(now + LEASE_US, self._transaction + 1)
        with txn.cursor(self._body) as cursor:
            bodies = cursor.getmulti([job_id for job_id, _ in taken])
        jobs = [
            BareJob(job_id, seq, 1, lease, now, decode(_opened(body)))
            for (job_id, seq), (_, body) in zip(taken, bodies, strict=True)
        ]
        if jobs:
            states = [(job.id, _state(RESERVED, job, now, 0)) for job in jobs]
            _put_all(txn, self._state, states)
            txn.put(lease, _sealed(b"".join([job.id for job in jobs])), db=self._lease)
        return jobs

    def _finish(self, txn: "lmdb.Transaction[bytes]", jobs: Sequence[BareJob], now: int) -> None:
        _put_all(txn, self._state, [(job.id, _state(DONE, job, now, now)) for job in jobs])
        for lease in {job.lease for job in jobs}:
            txn.delete(lease, db=self._lease)
        ended = AT.pack(now, self._transaction + 1)
        txn.put(ended, _sealed(b"".join([job.id for job in jobs])), db=self._ended)

    def _take(self, txn: "lmdb.Transaction[bytes]", n: int) -> list[tuple[bytes, int]]:
        """The first *n* entries of the queue, deleted: (id, seq)."""
        taken: list[tuple[bytes, int]] = []
        with txn.cursor(self._queue) as cursor:
            found = cursor.set_range(TOPIC.pack(1))
            while found and len(taken) < n:
                place, job_id = cursor.item()
                taken.append((job_id, PLACE.unpack(place)[2]))
                cursor.delete()  # and the cursor stands on the next one
                found = bool(cursor.key())
        return taken

    def _put_meta(self, txn: "lmdb.Transaction[bytes]") -> None:
        self._transaction += 1
        meta = META.pack(self._transaction, self._seq, self._last_id, 0, 0, 0, 0)
        txn.put(b"meta", _sealed(meta), db=self._meta)


def _put_all(
    txn: "lmdb.Transaction[bytes]", db: "lmdb._Database", records: list[tuple[bytes, bytes]]
) -> None:
    with txn.cursor(db) as cursor:
        cursor.putmulti(records)


def _state(status: int, job: BareJob, reserved_us: int, ended_us: int) -> bytes:
    lease_us = reserved_us + LEASE_US
    packed = STATE.pack(
        1, status, 0, 1, job.seq, job.created_us, reserved_us, ended_us, lease_us,
        job.token, 1, 0, 0, 0, HOLDER, job.id,
    )  # fmt: skip
    return _sealed(packed)


def _sealed(record: bytes) -> bytes:
    return record + CRC.pack(crc32(record))


def _opened(sealed: bytes) -> bytes:
    record = sealed[:-4]
    if CRC.unpack(sealed[-4:])[0] != crc32(record):
        raise ValueError("a record fails its checksum")
    return record


def _now_us() -> int:
    return time.time_ns() // 1000
