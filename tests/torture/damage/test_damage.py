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
from pathlib import Path
from typing import Any

import lmdb
import pytest

import jobq
from jobq.errors import JobqError, StoreCorrupt
from tests.crash.conftest import Say
from tests.repo.lmdb import processes
from tests.repo.lmdb.conftest import Start
from tests.repo.lmdb.processes import outcome_of
from tests.repo.lmdb.raw import PAGE, records_of
from tests.torture.damage.damaging import (
    TOPICS,
    WAYS,
    Known,
    Original,
    Way,
    cut_short,
    look_into,
    look_through,
    make,
    mutants,
)

# Whole files.


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
    outcomes, wrong = count_outcomes(start, tmp_path, 126, seed, say)

    assert not wrong, "\n".join(wrong)
    assert outcomes.total() == 126
    assert sum(times for (_, outcome), times in outcomes.items() if "corrupt" in outcome) > 40


@pytest.mark.parametrize("count", [45, pytest.param(900, marks=pytest.mark.storm)])
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


@pytest.mark.parametrize("has_written", [False, True])
def test_databases_that_are_gone_while_the_queue_is_open_are_damage(
    has_written: bool, tmp_path: Path
) -> None:
    """Who has written keeps them open, and finds nothing in them; who has not finds none."""
    with jobq.open(tmp_path / "queue", durability="unsafe") as svc:
        svc.enqueue(TOPICS[0])
    with jobq.open(tmp_path / "queue", durability="unsafe") as svc:
        if has_written:
            svc.enqueue(TOPICS[0])
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
    """Cut a queue at every page, at its beginning or inside it, and say what came of it."""
    original = make(Path(path, "original"), random.Random(1))
    with jobq.open(Path(path, "original"), durability="unsafe") as svc:
        # Too large for any gap: its pages are the last of the file.
        payload = random.Random(2).randbytes(50_000)
        original.jobs[svc.enqueue(TOPICS[0], payload)] = Known(TOPICS[0], 0, payload, b"x")
    data = Path(path, "original", "data.mdb").read_bytes()
    mutant = Path(path, "mutant")
    mutant.mkdir()
    for page in range(len(data) // PAGE):
        length = page * PAGE + page % 2 * (1 + 41 * page % (PAGE - 1))
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
    assert len(outcomes) >= 60
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
    bits = [(True, bit) for bit in dice.sample(range(in_key), 3)]
    bits += [(False, bit) for bit in dice.sample(range(in_value), 3)]
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

    assert outcomes.total() > 150
