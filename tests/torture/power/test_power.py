"""The power goes while jobq works: nothing that it has acknowledged is missing afterwards.

Every write and sync is recorded, the disks that a cut may leave are rebuilt, and each is opened
through jobq: it opens, holds what the plain model says, `check` finds nothing, and three more
operations work. The short form looks at more than a thousand disks, whatever the seed: each of its
tests asks for its part. The long one (`make torture`) looks at more than a hundred thousand.
docs/reliability.md has the figures.
"""

import random
import shutil
from pathlib import Path
from typing import Final

import pytest

from tests.crash.conftest import Say
from tests.crash.processes import Child, Start
from tests.crash.repairs import REPAIRS
from tests.torture.power import faults
from tests.torture.power.bench import (
    Recorded,
    judge,
    record_backups,
    record_case,
    record_crowd,
    record_killed_maker,
    record_story,
    tell_story,
)
from tests.torture.power.cases import ALL as CASES
from tests.torture.power.cases import UPKEEP
from tests.torture.power.copier import WAYS
from tests.torture.power.examiner import Sift
from tests.torture.power.record import Flush, Resize, Write
from tests.torture.power.story import Plot
from tests.torture.power.verdict import Kind, Tally

PAGE, SECTOR = 4096, 512
WORKERS: Final = 2
LONG: Final = 60
"""Verbs of a long story."""

MAKING: Final = 48
"""Events of making a queue, more or less: with the directories above it there are a few more."""


COPIED: Final = [
    "copy begun",
    "copied",
    "copy verified",
    "copy synced",
    "copy named",
    "copy's directory synced",
    "closed",
]
"""The steps of a backup."""


def look(start: Start, recorded: Recorded, sift: Sift, path: Path, workers: int = 1) -> Tally:
    """Judge what cuts leave; all of it has to be sound."""
    tally = judge(start, recorded, sift, path, workers)
    assert not tally.faults, f"{tally}\n" + "\n".join(tally.samples)
    return tally


# The short form.


@pytest.mark.parametrize("grain", [PAGE, SECTOR])
def test_nothing_acknowledged_is_missing_after_a_power_cut(
    grain: int, start: Start, quick_path: Path, seed: int, say: Say
) -> None:
    recorded = record_story(start, Plot(seed, 16), quick_path / "recorded")
    tally = look(start, recorded, Sift(grain, 8, seed), quick_path / "judged")
    say(f"a story in pieces of {grain} bytes: {tally}")

    assert tally.states > 200
    assert not tally.missing.keys() - {0}


def test_nothing_acknowledged_is_missing_where_topics_are_in_memory(
    start: Start, quick_path: Path, seed: int, say: Say
) -> None:
    recorded = record_story(start, Plot(seed, 15, topics="memory"), quick_path / "recorded")
    tally = look(start, recorded, Sift(PAGE, 6, seed), quick_path / "judged")
    say(f"a story with topics in memory: {tally}")

    assert tally.states > 160
    assert not tally.missing.keys() - {0}


def test_relaxed_loses_the_last_commit_at_most(
    start: Start, quick_path: Path, seed: int, say: Say
) -> None:
    plot = Plot(seed, 15, durability="relaxed")
    recorded = record_story(start, plot, quick_path / "recorded")
    tally = look(start, recorded, Sift(PAGE, 8, seed), quick_path / "judged")
    say(f"a relaxed story: {tally}")

    assert tally.states > 160
    assert tally.missing.keys() == {0, 1}


@pytest.mark.parametrize("durability", ["full", "relaxed"])
def test_no_thread_misses_what_was_acknowledged_to_it(
    durability: str, start: Start, quick_path: Path, seed: int, say: Say
) -> None:
    recorded = record_crowd(start, 4, durability, quick_path / "recorded")
    tally = look(start, recorded, Sift(PAGE, 4, seed), quick_path / "judged")
    say(f"threads that share commits, {durability}: {tally}")


def test_a_verb_cut_off_by_the_power_is_whole_or_absent(
    start: Start, quick_path: Path, seed: int, say: Say
) -> None:
    """Some by chance, a repair, and all that put a file in place; the long form has all."""
    total, chance = Tally(), random.Random(seed)
    always = ["create", *UPKEEP, chance.choice(sorted(REPAIRS))]
    for name in (*always, *chance.sample(sorted(CASES.keys() - {*always, *REPAIRS}), 3)):
        recorded = record_case(start, name, quick_path / f"{name}, recorded")
        total += look(start, recorded, Sift(PAGE, 8, seed), quick_path / name)
    say(f"verbs by themselves: {total}")

    assert total.states > 75


def test_a_backup_is_whole_or_absent_and_lasts_once_it_is_acknowledged(
    start: Start, quick_path: Path, seed: int, say: Say
) -> None:
    """And the queue is as safe as ever, though it is written to meanwhile."""
    way = random.Random(seed).choice(WAYS)
    plot = Plot(seed, 14)
    recorded, steps = record_backups(start, plot, quick_path / "recorded", way)
    tally = look(start, recorded, Sift(PAGE, 4, seed), quick_path / "judged")
    say(f"a story with a backup, {way}: {tally}")

    assert tally.states > 120
    assert steps == COPIED


@pytest.mark.parametrize("depth", [0, 2])
def test_a_queue_lasts_whose_first_maker_was_killed(
    depth: int, start: Start, quick_path: Path, seed: int, say: Say
) -> None:
    """Whoever comes next makes sure that the names last which the first one has made."""
    last = random.Random(seed).randrange(2, MAKING + depth)
    for event in (last, MAKING + 2 * depth):
        recorded = record_killed_maker(
            start, Plot(7, 1, depth=depth), quick_path / f"{event}", event
        )
        tally = look(start, recorded, Sift(PAGE, 3, seed), quick_path / f"judged {event}")
        say(f"killed at event {event} of making a queue, {depth} directories deep: {tally}")

        assert tally.states > 40


# The long form.


@pytest.mark.storm
@pytest.mark.skipif(shutil.which("strace") is None, reason="there is no strace")
def test_strace_sees_what_the_recorder_sees(tmp_path: Path, seed: int) -> None:
    """Every write and every sync of the data file, counted by another observer."""
    seen = tmp_path / "seen"
    calls = "write,pwrite64,writev,pwritev,fsync,fdatasync,ftruncate,fallocate,msync"
    wrap = ["strace", "-f", "-y", "-e", f"trace={calls}", "-o", str(seen)]
    root = tmp_path / "root"
    root.mkdir()
    child = Child(tell_story, Plot(seed, 20), root, faults.none, wrap=wrap)
    record, _ = child.hear(60)
    child.ended()
    child.discard()

    lines = [line for line in seen.read_text().splitlines() if "/data.mdb>" in line]
    counted = {name: sum(f" {name}(" in line for line in lines) for name in calls.split(",")}
    events = [type(event) for event in record.events]
    syncs = counted["fsync"] + counted["fdatasync"]
    assert syncs == events.count(Flush) > 20
    assert sum(counted.values()) - syncs == events.count(Write) + events.count(Resize) > 20


@pytest.mark.storm
@pytest.mark.parametrize("number", range(3))
@pytest.mark.parametrize("grain", [PAGE, SECTOR])
@pytest.mark.parametrize("topics", ["lmdb", "memory"])
@pytest.mark.parametrize("durability", ["full", "relaxed"])
def test_long_stories(
    number: int,
    grain: int,
    topics: str,
    durability: str,
    start: Start,
    quick_path: Path,
    seed: int,
    say: Say,
) -> None:
    plot = Plot(seed + number, LONG, topics, durability)
    recorded = record_story(start, plot, quick_path / "recorded")
    sift = Sift(grain, 68 if durability == "full" else 34, seed)
    tally = look(start, recorded, sift, quick_path / "judged", WORKERS)
    say(f"story, {durability}, topics in {topics}, pieces of {grain}: {tally}")

    assert tally.missing.keys() <= ({0} if durability == "full" else {0, 1})


@pytest.mark.storm
@pytest.mark.parametrize("grain", [PAGE, SECTOR])
@pytest.mark.parametrize("durability", ["full", "relaxed"])
def test_long_crowds(
    grain: int, durability: str, start: Start, quick_path: Path, seed: int, say: Say
) -> None:
    recorded = record_crowd(start, 20, durability, quick_path / "recorded")
    tally = look(start, recorded, Sift(grain, 64, seed), quick_path / "judged", WORKERS)
    say(f"threads that share commits, {durability}, pieces of {grain}: {tally}")


@pytest.mark.storm
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    ("durability", "topics"),
    [("full", "lmdb"), ("full", "memory"), ("relaxed", "lmdb"), ("unsafe", "lmdb")],
)
def test_backups_in_long_stories(
    durability: str,
    topics: str,
    way: str,
    start: Start,
    quick_path: Path,
    seed: int,
    say: Say,
) -> None:
    # What is never synced makes each disk a patchwork of all writes so far.
    plot = Plot(seed, 24 if durability == "unsafe" else LONG, topics, durability)
    recorded, _ = record_backups(start, plot, quick_path / "recorded", way)
    total = Tally()
    for grain in (PAGE, SECTOR):
        path = quick_path / f"judged {grain}"
        total += look(start, recorded, Sift(grain, 6, seed), path, WORKERS)
    say(f"backups, {way}, in a story, {durability}, topics in {topics}: {total}")


@pytest.mark.storm
@pytest.mark.parametrize("grain", [PAGE, SECTOR])
@pytest.mark.parametrize("part", range(4))
def test_every_verb(
    part: int, grain: int, start: Start, quick_path: Path, seed: int, say: Say
) -> None:
    total = Tally()
    names = sorted(CASES)[part::4]
    for name in names:
        recorded = record_case(start, name, quick_path / f"{name}, recorded")
        total += look(start, recorded, Sift(grain, 112, seed), quick_path / name, WORKERS)
    say(f"{len(names)} verbs by themselves, pieces of {grain}: {total}")


@pytest.mark.storm
@pytest.mark.parametrize("depth", [0, 2])
def test_every_moment_of_making_a_queue(
    depth: int, start: Start, quick_path: Path, seed: int, say: Say
) -> None:
    total = Tally()
    for event in range(2, MAKING + 2 * depth + 4):
        recorded = record_killed_maker(
            start, Plot(7, 2, depth=depth), quick_path / f"{event}", event
        )
        path = quick_path / f"judged {event}"
        total += look(start, recorded, Sift(PAGE, 24, seed), path, WORKERS)
    say(f"makers killed at every event, {depth} directories deep: {total}")


@pytest.mark.storm
@pytest.mark.parametrize("grain", [PAGE, SECTOR])
def test_what_unsafe_loses(grain: int, start: Start, quick_path: Path, seed: int, say: Say) -> None:
    """It promises nothing after a power cut: this says how much that is."""
    plot = Plot(seed, LONG, durability="unsafe")
    recorded = record_story(start, plot, quick_path / "recorded")
    tally = judge(start, recorded, Sift(grain, 64, seed), quick_path / "judged", WORKERS)
    say(f"story, unsafe, pieces of {grain}: {tally}")

    assert tally.kinds[Kind.SHUT] > tally.states // 10
