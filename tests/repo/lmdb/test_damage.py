"""Damaged data files: what is read from one is right, or there is an error.

LMDB has no checksums, and it trusts its file: of such files a bare LMDB queue read 36 % silently
wrong, and a truncated one kills its reader by SIGBUS. Here each damaged file is opened in a process
of its own, since LMDB's own assertions may still end it.
"""

import contextlib
import gc
import random
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import lmdb
import pytest

import jobq
from jobq import Job, JobService
from jobq.errors import JobNotFound, JobqError, StoreCorrupt
from tests.crash.conftest import Say
from tests.repo.lmdb import processes
from tests.repo.lmdb.conftest import Start
from tests.repo.lmdb.processes import outcome_of

PAGE = 4096
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


def _try_mutants(path: str, seed: int, count: int) -> None:
    """Damage a queue *count* times, and say what came of each: the way, and the outcome."""
    original = make(Path(path, "original"), random.Random(seed))
    mutant = Path(path, "mutant")
    gc.freeze()  # forks are cheaper if they do not touch what is there already
    for number, way in mutants(mutant, original, seed, count):
        processes.say([way, number, outcome_of(lambda: look_through(mutant, original))])
    processes.say(None)


def _try_mutants_under(path: str, seed: int, count: int) -> None:
    """The same, but the file gets damaged while it is open, and the map shows it at once."""
    original = make(Path(path, "original"), random.Random(seed))
    mutant = Path(path, "mutant")
    gc.freeze()
    for number in range(count):
        dice = random.Random(f"{seed}/{number}")
        way = WAYS[number % len(WAYS)]
        shutil.rmtree(mutant, ignore_errors=True)
        mutant.mkdir()
        (mutant / "data.mdb").write_bytes(original.data)
        outcome = outcome_of(lambda: _damaged_while_open(mutant, original, way, dice))  # noqa: B023
        processes.say([way.__name__, number, outcome])
    processes.say(None)


def _damaged_while_open(path: Path, original: Original, way: Way, dice: random.Random) -> str:
    data = bytearray(original.data)
    way(data, dice, original)
    svc = jobq.open(path, durability="unsafe")
    try:
        with (path / "data.mdb").open("r+b") as file:
            file.write(data)
            file.truncate()
        return look_into(svc, original)
    except StoreCorrupt:  # whatever verb meets it first
        return "corrupt"
    finally:
        with contextlib.suppress(JobqError):
            svc.close()


def count_outcomes(
    start: Start, tmp_path: Path, count: int, seed: int, tell: Say, *, is_open: bool = False
) -> tuple[Counter[Any], list[str]]:
    """How often each way led to each outcome, and what must not have been among them."""
    work = _try_mutants_under if is_open else _try_mutants
    child = start(work, str(tmp_path), seed, count, deadline_s=60 + count)
    outcomes: Counter[Any] = Counter()
    wrong = []
    while (answer := child.said()) is not None:
        way, number, outcome = answer
        outcomes[way, outcome.split(":")[0]] += 1
        # What LMDB finds wrong in the middle of a tree may still end the process.
        # So may the end of a file that gets lost while it is mapped.
        died = {"SIGABRT", "SIGBUS", "SIGSEGV"} if is_open or way != cut_short.__name__ else set()
        if outcome not in {"ok", "corrupt", "corrupt, refused"} | died:
            wrong.append(f"number {number}, {way}: {outcome}")
    child.join()
    for (way, outcome), times in sorted(outcomes.items()):
        tell(f"{way:24} {outcome:20} {times:5}")
    return outcomes, wrong


def test_no_damaged_file_is_read_wrong(start: Start, tmp_path: Path, seed: int, say: Say) -> None:
    outcomes, wrong = count_outcomes(start, tmp_path, 300, seed, say)

    assert not wrong, "\n".join(wrong)
    assert outcomes.total() == 300
    assert sum(times for (_, outcome), times in outcomes.items() if "corrupt" in outcome) > 100


@pytest.mark.parametrize("count", [90, pytest.param(2500, marks=pytest.mark.storm)])
def test_a_file_that_gets_damaged_while_it_is_open_is_not_read_wrong(
    count: int, start: Start, tmp_path: Path, seed: int, say: Say
) -> None:
    outcomes, wrong = count_outcomes(start, tmp_path, count, seed, say, is_open=True)

    assert not wrong, "\n".join(wrong)
    assert outcomes.total() == count


def test_a_head_that_claims_more_than_can_be_mapped_while_the_queue_is_open_is_damage(
    tmp_path: Path,
) -> None:
    make_small(tmp_path / "queue")
    with jobq.open(tmp_path / "queue", durability="unsafe") as svc:
        with (tmp_path / "queue" / "data.mdb").open("r+b") as file:
            for page in (0, PAGE):
                file.seek(page + 16 + 120)  # where the number of the last page stands
                file.write((2**50).to_bytes(8, "little"))
        for verb in (svc.stats, lambda: svc.enqueue(TOPICS[0], 1), lambda: svc.reserve(TOPICS[0])):
            with pytest.raises(StoreCorrupt, match="restore it from a backup"):
                verb()


def test_databases_that_are_gone_while_the_queue_is_open_are_damage(tmp_path: Path) -> None:
    make_small(tmp_path / "queue")
    with jobq.open(tmp_path / "queue", durability="unsafe") as svc:
        with (tmp_path / "queue" / "data.mdb").open("r+b") as file:
            for page in (0, PAGE):
                file.seek(page + 128)  # where the list of the databases begins
                file.write(b"\xff" * 8)
        for verb in (svc.stats, lambda: svc.enqueue(TOPICS[0], 1), lambda: svc.reserve(TOPICS[0])):
            with pytest.raises(StoreCorrupt, match="restore it from a backup"):
                verb()


@pytest.mark.storm
def test_no_damaged_file_is_read_wrong_in_many(
    start: Start, tmp_path: Path, seed: int, say: Say
) -> None:
    outcomes, wrong = count_outcomes(start, tmp_path, 5000, seed, say)

    assert not wrong, "\n".join(wrong)
    assert outcomes.total() == 5000


PAGE_SIZE_AT = 40
"""Where a meta page says how large pages are; LMDB divides by it and maps accordingly."""


def _try_page_sizes(path: str) -> None:
    original = make(Path(path, "original"), random.Random(1))
    mutant = Path(path, "mutant")
    for start in (0, PAGE):
        for bit in range(32):
            data = bytearray(original.data)
            data[start + PAGE_SIZE_AT + bit // 8] ^= 1 << bit % 8
            shutil.rmtree(mutant, ignore_errors=True)
            mutant.mkdir()
            (mutant / "data.mdb").write_bytes(data)
            processes.say([start, bit, outcome_of(lambda: look_through(mutant, original))])
    processes.say(None)


def test_a_file_that_is_wrong_about_the_size_of_its_pages_is_refused_or_read_right(
    start: Start, tmp_path: Path
) -> None:
    child = start(_try_page_sizes, str(tmp_path))
    wrong = []
    while (answer := child.said()) is not None:
        if answer[2] not in {"ok", "corrupt", "corrupt, refused"}:
            wrong.append("meta page at {}, bit {}: {}".format(*answer))

    assert not wrong, "\n".join(wrong)


# Files that were cut short: past their end, a page of the map is SIGBUS.


def _try_lengths(path: str) -> None:
    """Cut a queue at every page, and once inside each, and say what came of it."""
    original = make(Path(path, "original"), random.Random(1))
    with jobq.open(Path(path, "original"), durability="unsafe") as svc:
        # Too large for any gap: its pages are the last of the file.
        payload = random.Random(2).randbytes(50_000)
        original.jobs[svc.enqueue(TOPICS[0], payload)] = Known(TOPICS[0], 0, payload, b"x")
    data = Path(path, "original", "data.mdb").read_bytes()
    mutant = Path(path, "mutant")
    mutant.mkdir()
    for page in range(len(data) // PAGE):
        for length in (page * PAGE, page * PAGE + 1 + 41 * page % (PAGE - 1)):
            for left in mutant.iterdir():
                shutil.rmtree(left) if left.is_dir() else left.unlink()
            (mutant / "data.mdb").write_bytes(data[:length])
            processes.say([length, outcome_of(lambda: look_through(mutant, original))])
    processes.say([len(data), None])


def test_a_file_that_was_cut_short_is_noticed_at_open_wherever_it_was_cut(
    start: Start, tmp_path: Path
) -> None:
    child = start(_try_lengths, str(tmp_path))
    outcomes = {}
    while (answer := child.said())[1] is not None:
        outcomes[answer[0]] = answer[1]

    # The end of the last page may be missing, where nothing stands.
    harmless = range(answer[0] - PAGE + 1, answer[0])
    wrong = {
        length: outcome
        for length, outcome in outcomes.items()
        if "corrupt" not in outcome and not (outcome == "ok" and length in harmless)
    }
    refused = [length for length, outcome in outcomes.items() if outcome == "corrupt, refused"]
    assert wrong == {}, f"of {answer[0]} bytes"
    assert len(outcomes) >= 2 * 60
    assert len(refused) >= 0.7 * len(outcomes)


# Single records, in a file that is sound as LMDB sees it.


def flip(data: bytes, bit: int) -> bytes:
    flipped = bytearray(data)
    flipped[bit // 8] ^= 1 << bit % 8
    return bytes(flipped)


def bits_to_flip(
    name: str, in_key: int, in_value: int, dice: random.Random
) -> list[tuple[bool, int]]:
    """Some bits of a record of so many: whether in the key, and which."""
    bits = [(True, bit) for bit in dice.sample(range(in_key), 6)]
    bits += [(False, bit) for bit in dice.sample(range(in_value), 6)]
    if name in {"topics", "queue"}:  # the last bits of a topic's number: they make it another's
        bits += [(name == "queue", bit) for bit in (24, 25)]
    return bits


def make_small(path: Path) -> Original:
    """A queue with a few jobs, one of each sort."""
    jobs: dict[str, Known] = {}
    with jobq.open(path, durability="unsafe") as svc:
        for topic in TOPICS:
            for weight, delay in ((0, None), (1, None), (0, 3600)):
                payload = f"{topic} {weight} {delay}".encode()
                jid = svc.enqueue(topic, payload, weight=weight, delay=delay)
                jobs[jid] = Known(topic, weight, payload, b"result")
        [job] = svc.reserve(TOPICS[0], timeout=0)
        job.done(b"result")
        [job] = svc.reserve(TOPICS[1], timeout=0)
        job.retry(0, error="again")
        [job] = svc.reserve(TOPICS[2], timeout=0)  # its holder is dead when the file is opened
    return Original(jobs, (path / "data.mdb").read_bytes(), (), b"")


def records_of(path: Path) -> list[tuple[str, bytes, bytes]]:
    """Every record of a closed queue: database, key, value."""
    found = []
    with lmdb.open(str(path), max_dbs=20, lib_version=0) as env:
        with env.begin() as txn:
            names = [bytes(key).decode() for key, _ in txn.cursor()]
        for name in names:
            db = env.open_db(name.encode(), create=False)
            with env.begin() as txn:
                found += [(name, bytes(key), bytes(value)) for key, value in txn.cursor(db)]
    return found


def test_no_damaged_record_is_read_wrong(tmp_path: Path, seed: int) -> None:
    """Whichever bit of whichever record has flipped, in its key or in its value."""
    dice = random.Random(seed)
    original = make_small(tmp_path / "original")
    mutant = tmp_path / "mutant"
    outcomes: Counter[str] = Counter()
    for name, key, value in records_of(tmp_path / "original"):
        for in_key, bit in bits_to_flip(name, 8 * len(key), 8 * len(value), dice):
            shutil.rmtree(mutant, ignore_errors=True)
            mutant.mkdir()
            (mutant / "data.mdb").write_bytes(original.data)
            with lmdb.open(str(mutant), max_dbs=20, sync=False, lib_version=0) as env:
                db = env.open_db(name.encode(), create=False)
                with env.begin(write=True) as txn:
                    txn.delete(key, db=db)
                    put = (flip(key, bit), value) if in_key else (key, flip(value, bit))
                    txn.put(*put, db=db)

            outcome = look_through(mutant, original)

            outcomes[outcome] += 1
            what = f"bit {bit} of the {'key' if in_key else 'value'} of {key!r} in {name}"
            assert outcome in {"corrupt", "corrupt, refused"}, f"{what}: {outcome}"

    assert outcomes.total() > 300
