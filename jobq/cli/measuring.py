"""What a disk and a machine give a queue: the measurements of `jobq bench`.

Each works in a queue of its own for about as long as it is told, so that a slow disk is measured
with fewer calls and not for longer. Every call is on the disk before it returns, as the queue's
durability has it. Payloads have about 200 bytes.

Each looks between its calls whether a signal has come, and raises SystemExit then, as `Ending` has
it, when it has put away what it made.
"""

import contextlib
import json
import math
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from jobq import factory
from jobq.cli.ending import Ending
from jobq.errors import JobqError, StoreUnavailable
from jobq.service import Job, JobService
from jobq.states import Outcome

BLOCK: Final = 4096
TOPIC: Final = "bench"
PAYLOAD: Final = {"n": 1, "text": "the quick brown fox jumps over the lazy dog; " * 4}
PAUSE_S: Final = 0.01
"""Between two jobs of `wake_up`, so that the receiver is asleep when one comes."""

NO_FLUSH_MS: Final = 0.02
"""A flush that takes less has reached no disk: those of the fastest ones take some 20 µs."""

_PATIENCE_S: Final = 10.0
_NOT_COUNTED: Final = 5
_RECEIVER: Final = "import sys; from jobq.cli.measuring import receive; receive(*sys.argv[1:])"


@dataclass(frozen=True, slots=True)
class Times:
    """How long calls took, in milliseconds."""

    calls: int
    p50_ms: float
    p99_ms: float
    worst_ms: float

    @classmethod
    def of(cls, taken_ns: Sequence[int]) -> "Times":
        """Of at least one call: the median, the nearest rank of 99 %, and the longest.

        >>> Times.of([3_000_000, 1_000_000, 2_000_000])
        Times(calls=3, p50_ms=2.0, p99_ms=3.0, worst_ms=3.0)
        """
        ranked = sorted(taken_ns)
        p50, p99 = (ranked[math.ceil(len(ranked) * part) - 1] / 1e6 for part in (0.5, 0.99))
        return cls(len(ranked), p50, p99, ranked[-1] / 1e6)


@dataclass(frozen=True, slots=True)
class Lives:
    """Jobs through enqueue, reserve and done, *batch* of them in each commit; times of a call."""

    batch: int
    lives_per_s: float
    enqueue_ms: float
    reserve_ms: float
    done_ms: float


def flushes(ending: Ending, directory: Path, seconds: float) -> Times:
    """How long the disk takes for one flush: 4 KiB of a file in place, then `fdatasync`.

    Raises:
        OSError: The file cannot be written.
    """
    path = directory / "flush"
    block = os.urandom(BLOCK)
    taken: list[int] = []
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        os.pwrite(descriptor, block * 16, 0)
        os.fsync(descriptor)  # that the file has grown is no part of what follows
        end = time.monotonic() + seconds
        while not taken or time.monotonic() < end:
            start = time.perf_counter_ns()
            os.pwrite(descriptor, block, BLOCK * (len(taken) % 16))
            os.fdatasync(descriptor)
            taken.append(time.perf_counter_ns() - start)
            ending.look()
    finally:
        os.close(descriptor)
        path.unlink()
    return Times.of(taken)


def lives(ending: Ending, path: Path, durability: str, batch: int, seconds: float) -> Lives:
    """One thread and a short queue: *batch* jobs come, are reserved, and done, again and again.

    Raises:
        JobqError: The queue cannot be used.
    """
    spent = [0, 0, 0]
    cycles = 0
    with factory.open(path, durability=durability) as svc:
        _cycle(svc, batch)  # opens handles, makes the topic
        end = time.monotonic() + seconds
        while not cycles or time.monotonic() < end:
            ending.look()
            spent = [sum(pair) for pair in zip(spent, _cycle(svc, batch), strict=True)]
            cycles += 1
    enqueue, reserve, done = (part / cycles / 1e6 for part in spent)
    return Lives(batch, cycles * batch * 1e9 / sum(spent), enqueue, reserve, done)


def enqueues(ending: Ending, path: Path, durability: str, threads: int, seconds: float) -> float:
    """Jobs a second that *threads* threads enqueue, each one after the other.

    Raises:
        JobqError: The queue cannot be used.
    """
    counts = [0] * threads
    errors: list[BaseException] = []
    begin = threading.Event()
    over = threading.Event()
    with factory.open(path, durability=durability) as svc:
        svc.enqueue(TOPIC, PAYLOAD)

        def work(number: int) -> None:
            try:
                begin.wait()
                while not over.is_set():
                    svc.enqueue(TOPIC, PAYLOAD)
                    counts[number] += 1
            except BaseException as error:  # noqa: BLE001 - raised below
                errors.append(error)

        crew = [threading.Thread(target=work, args=(n,), daemon=True) for n in range(threads)]
        try:
            for thread in crew:
                thread.start()
            start = time.perf_counter_ns()
            begin.set()
            ending.sleep(seconds)
        finally:
            over.set()
            begin.set()
            for thread in crew:
                if thread.ident is not None:
                    thread.join()
        taken = time.perf_counter_ns() - start
    if errors:
        raise errors[0]
    return sum(counts) * 1e9 / taken


def wake_up(ending: Ending, path: Path, durability: str, seconds: float) -> Times:
    """From the call of `enqueue` to the return of `reserve` in another process that waits for it.

    That holds both commits. The receiver sleeps when a job comes.

    Raises:
        JobqError: The queue cannot be used.
        StoreUnavailable: The other process cannot be started, or has not had every job.
    """
    with factory.open(path, durability=durability) as svc, _receiver(path, durability) as other:
        assert other.stdout is not None
        ending.wait_for(other.stdout.fileno())
        if not other.stdout.readline():
            raise _failed(other)
        sent = 0
        end = time.monotonic() + seconds
        while sent <= _NOT_COUNTED or time.monotonic() < end:
            ending.sleep(PAUSE_S)
            svc.enqueue(TOPIC, time.monotonic_ns())
            sent += 1
        svc.enqueue(TOPIC, 0)
        ending.wait_for(other.stdout.fileno())
        said = other.stdout.readline()
        taken = json.loads(said) if said else []
        if len(taken) != sent:
            raise _failed(other)
    return Times.of(taken[_NOT_COUNTED:])


def receive(path: str, durability: str) -> None:
    """The other process of `wake_up`: says when it is ready, and at the end what it measured."""
    taken = []
    with contextlib.suppress(KeyboardInterrupt), factory.open(path, durability=durability) as svc:
        print("ready", flush=True)
        while jobs := svc.reserve(TOPIC, timeout=_PATIENCE_S):
            now = time.monotonic_ns()
            sent = jobs[0].payload
            jobs[0].done()
            if not sent:
                break
            taken.append(now - sent)
    print(json.dumps(taken), flush=True)


@contextlib.contextmanager
def _receiver(path: Path, durability: str) -> "Iterator[subprocess.Popen[bytes]]":
    command = [sys.executable, "-c", _RECEIVER, str(path), durability]
    try:
        # In a session of its own: Ctrl-C is for this process, which then ends the other.
        process = subprocess.Popen(  # noqa: S603 - this Python, no shell
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
    except OSError as error:
        raise StoreUnavailable(f"cannot start {sys.executable!r}: {error}") from error
    with process:
        try:
            yield process
        finally:
            process.kill()


def _failed(process: "subprocess.Popen[bytes]") -> JobqError:
    """Why the other process has not done its part; it is ended."""
    process.kill()
    assert process.stderr is not None
    last = process.stderr.read().decode(errors="replace").strip().rpartition("\n")[2]
    return StoreUnavailable(f"the process that waits for jobs has failed: {last or 'killed'}")


def _cycle(svc: JobService, batch: int) -> tuple[int, int, int]:
    """The nanoseconds of each call, for one batch of jobs."""
    payloads = [PAYLOAD] * batch
    start = time.perf_counter_ns()
    if batch == 1:
        svc.enqueue(TOPIC, PAYLOAD)
    else:
        svc.enqueue_many(TOPIC, payloads)
    enqueued = time.perf_counter_ns()
    jobs = svc.reserve(TOPIC, batch, timeout=0)
    came = [job.payload for job in jobs]
    reserved = time.perf_counter_ns()
    finished = _done(svc, jobs)
    done = time.perf_counter_ns()
    if came != payloads or finished != batch:
        raise StoreUnavailable(
            f"{batch} jobs were enqueued, {len(came)} reserved, {finished} done: somebody else "
            "works in the queue"
        )
    return enqueued - start, reserved - enqueued, done - reserved


def _done(svc: JobService, jobs: Sequence[Job]) -> int:
    if len(jobs) == 1:
        jobs[0].done()
        return 1
    return svc.done_many(jobs).count(Outcome.OK)
