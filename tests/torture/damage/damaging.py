"""Queues that get damaged: what was in them, the ways, and what must be read of what is left."""

import contextlib
import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import jobq
from jobq import Job, JobService
from jobq.errors import JobNotFound, JobqError, StoreCorrupt
from tests.repo.lmdb.raw import PAGE

TOPICS = ("mail", "mail-slow", "thumbnails")


class Known(NamedTuple):
    """What was enqueued."""

    topic: str
    weight: int
    payload: bytes
    result: bytes


class Original(NamedTuple):
    """A queue on disk, closed: its jobs, its file, and the file as it was earlier."""

    jobs: dict[str, Known]
    data: bytes
    earlier: tuple[bytes, ...]
    foreign: bytes


def make(path: Path, dice: random.Random) -> Original:
    """A queue with jobs in every state and payloads from nothing to several pages."""
    jobs: dict[str, Known] = {}
    files: list[bytes] = []
    for stage in range(3):
        with jobq.open(path, durability="unsafe") as svc:
            for topic in TOPICS:
                for _ in range(5):
                    weight = dice.randrange(-2, 3)
                    size = dice.choice((0, 20, 300, 1500, 2500, 9000))
                    payload, result = dice.randbytes(size), dice.randbytes(20)
                    delay = dice.choice((None, None, 3600))
                    jid = svc.enqueue(topic, payload, weight=weight, delay=delay, tags=["a"])
                    jobs[jid] = Known(topic, weight, payload, result)
                svc.cancel(svc.enqueue(topic, b""))
                for job in svc.reserve(topic, 5, timeout=0):
                    if dice.random() < 0.3:
                        job.retry(0, error="again")
                    elif dice.random() < 0.8:
                        job.done(jobs[job.id].result)
            assert svc.check().ok
        files.append((path / "data.mdb").read_bytes())
        assert stage < 3
    with jobq.open(path.with_name("foreign"), durability="unsafe") as svc:
        svc.enqueue_many(TOPICS[0], [dice.randbytes(300) for _ in range(100)])
    foreign = (path.with_name("foreign") / "data.mdb").read_bytes()
    return Original(jobs, files[-1], tuple(files[:-1]), foreign)


def look_through(path: Path, original: Original) -> str:
    """Read the queue whole, work it off, and say what came of it: `ok`, or `corrupt` for errors.

    Raises:
        AssertionError: Something wrong was read, or something is missing and nothing says so.
    """
    try:
        svc = jobq.open(path, durability="unsafe")
    except StoreCorrupt:
        return "corrupt, refused"
    try:
        return look_into(svc, original)
    finally:
        with contextlib.suppress(JobqError):
            svc.close()


def look_into(svc: JobService, original: Original) -> str:
    """The same, of an open queue."""
    report = svc.check()
    noticed = not report.ok
    seen = set()
    for jid, known in original.jobs.items():
        try:
            record = svc.get(jid)
        except StoreCorrupt:
            noticed = True
            continue
        except JobNotFound:
            continue
        assert record.payload == known.payload, "a wrong payload was read"
        assert (record.topic, record.weight) == known[:2], "a wrong topic or weight was read"
        if record.status == "done":
            assert record.result == known.result, "a wrong result was read"
        seen.add(jid)
    for topic in TOPICS:
        try:
            svc.stats(topic)
            while jobs := svc.reserve(topic, timeout=0):
                for job in jobs:
                    assert_as_enqueued(job, original)
                    job.done(b"x")
            new = svc.enqueue(topic, b"new", weight=-9)
            reserved = svc.reserve(topic, timeout=0)
            if [job.id for job in reserved] == [new]:
                assert reserved[0].payload == b"new", "a wrong payload was handed out"
            else:
                # A damaged tree may hide a job and give another: it is right, and check knows.
                for job in reserved:
                    assert_as_enqueued(job, original)
                noticed = noticed or not svc.check().ok
                assert noticed, "a new job did not come back and check says all is well"
        except JobqError:  # what LMDB meets on its way may be anything: EIO, lost reservations
            noticed = True
    assert noticed or len(seen) == len(original.jobs), "jobs are missing and check says all is well"
    return "corrupt" if noticed else "ok"


def assert_as_enqueued(job: Job, original: Original) -> None:
    """What is handed out is what was enqueued."""
    if job.id in original.jobs:
        known = original.jobs[job.id]
        assert job.payload == known.payload, "a wrong payload was handed out"
        assert job.topic == known.topic, "handed out in a wrong topic"
        assert job.weight == known.weight, "handed out with a wrong weight"
    else:
        assert job.payload == b"", "an unknown payload was handed out"


# The ways in which files get damaged: each takes the file and gives another.

Way = Callable[[bytearray, random.Random, Original], None]


def one_bit(data: bytearray, dice: random.Random, _: Original) -> None:
    at = dice.randrange(2 * PAGE, len(data))
    data[at] ^= 1 << dice.randrange(8)


def a_bit_of_a_meta_page(data: bytearray, dice: random.Random, _: Original) -> None:
    at = dice.choice((0, PAGE)) + dice.randrange(152)
    data[at] ^= 1 << dice.randrange(8)


def bytes_of_a_page_header(data: bytearray, dice: random.Random, _: Original) -> None:
    start = dice.randrange(len(data) // PAGE) * PAGE
    for _unused in range(3):
        data[start + dice.randrange(40)] = dice.randrange(256)


def a_block_of_noise(data: bytearray, dice: random.Random, _: Original) -> None:
    start = dice.randrange(4, len(data) // 512) * 512
    data[start : start + 512] = dice.randbytes(512)


def a_page_of_zeros(data: bytearray, dice: random.Random, _: Original) -> None:
    start = dice.randrange(len(data) // PAGE) * PAGE
    data[start : start + PAGE] = bytes(PAGE)


def two_pages_swapped(data: bytearray, dice: random.Random, _: Original) -> None:
    one, other = (at * PAGE for at in dice.sample(range(2, len(data) // PAGE), 2))
    data[one : one + PAGE], data[other : other + PAGE] = (
        data[other : other + PAGE],
        data[one : one + PAGE],
    )
    if dice.random() < 0.5:  # each with the right number, as if they had always been there
        data[one : one + 8], data[other : other + 8] = (
            data[other : other + 8],
            data[one : one + 8],
        )


def a_lost_write(data: bytearray, dice: random.Random, original: Original) -> None:
    earlier = dice.choice(original.earlier)
    changed = [
        at
        for at in range(0, min(len(data), len(earlier)), PAGE)
        if data[at : at + PAGE] != earlier[at : at + PAGE]
    ]
    start = dice.choice(changed)
    data[start : start + PAGE] = earlier[start : start + PAGE]


def a_page_of_another_queue(data: bytearray, dice: random.Random, original: Original) -> None:
    start = dice.randrange(2, min(len(data), len(original.foreign)) // PAGE) * PAGE
    data[start : start + PAGE] = original.foreign[start : start + PAGE]


def cut_short(data: bytearray, dice: random.Random, _: Original) -> None:
    del data[dice.randrange(len(data)) :]


WAYS: tuple[Way, ...] = (
    one_bit,
    a_bit_of_a_meta_page,
    bytes_of_a_page_header,
    a_block_of_noise,
    a_page_of_zeros,
    two_pages_swapped,
    a_lost_write,
    a_page_of_another_queue,
    cut_short,
)


# Whole files.


def mutants(path: Path, original: Original, seed: int, count: int) -> Iterator[tuple[int, str]]:
    """Put a damaged copy of a queue at *path*, *count* times; gives the number and the way."""
    for number in range(count):
        dice = random.Random(f"{seed}/{number}")
        way = WAYS[number % len(WAYS)]
        data = bytearray(original.data)
        way(data, dice, original)
        shutil.rmtree(path, ignore_errors=True)
        path.mkdir()
        (path / "data.mdb").write_bytes(data)
        yield number, way.__name__
