"""The disk fails, and then the power goes: what was acknowledged is there, what failed is not.

What a failed sync was to put on the disk may never come there, although it can be read, and the
next sync succeeds without it. So the disks that are rebuilt here may lack, for ever, whatever was
being synced when it failed, unless its page was written again.
"""

import errno
import random
from collections import Counter
from pathlib import Path
from typing import Final

import pytest

from tests.crash.conftest import Say
from tests.crash.processes import Start
from tests.torture.disk.failing import Fault, How
from tests.torture.disk.stubborn import by_chance
from tests.torture.power import faults
from tests.torture.power.bench import judge, record_stubborn, record_troubled_story
from tests.torture.power.examiner import Sift
from tests.torture.power.faults import Fault as Break
from tests.torture.power.story import Plot
from tests.torture.power.verdict import Tally

PAGE: Final = 4096
WORKERS: Final = 2
JOBS: Final = 5
MOST_OF_A_COMMIT: Final = 3
"""Calls at its end that are not those of making a queue."""

WAYS: Final = [
    *[
        (code, lasting, how, 0)
        for code, how in (
            (errno.EIO, How.REFUSED),
            (errno.EIO, How.DONE),
            (errno.ENOSPC, How.REFUSED),
            (errno.ENOSPC, How.HALF),
        )
        for lasting in (False, True)
    ],
    (errno.EIO, True, How.DONE, 1),
]
"""The last one: LMDB can put the old head back, and then nothing can be done any more."""


def whole(tally: Tally) -> Tally:
    assert not tally.faults, f"{tally}\n" + "\n".join(tally.samples)
    return tally


# The short form.


@pytest.mark.parametrize("durability", ["full", "relaxed"])
def test_what_is_acknowledged_after_a_failed_sync_lasts(
    durability: str, start: Start, quick_path: Path, seed: int, say: Say
) -> None:
    """Faults by chance, in a story; the long form has more of them."""
    plot = Plot(seed, 14, durability=durability)
    recorded, errors = record_troubled_story(
        start, plot, quick_path / "recorded", by_chance(seed, 4)
    )
    tally = whole(judge(start, recorded, Sift(PAGE, 6, seed), quick_path / "judged"))
    say(f"a {durability} story on a disk that fails: {tally}; {errors}")


@pytest.mark.parametrize("durability", ["full", "relaxed"])
def test_who_opens_a_queue_after_a_failed_sync_makes_sure_of_the_disk_first(
    durability: str, start: Start, quick_path: Path, seed: int, say: Say
) -> None:
    chance = random.Random(seed)
    fault = Fault(chance.randint(1, 3 * JOBS), *chance.choice(WAYS))
    recorded, _, errors = record_stubborn(start, JOBS, durability, quick_path / "recorded", fault)
    tally = whole(judge(start, recorded, Sift(PAGE, 6, seed), quick_path / "judged"))
    say(f"{durability}, {fault}: {tally}; {errors}")


def test_a_queue_lasts_whose_maker_met_an_error(
    start: Start, quick_path: Path, seed: int, say: Say
) -> None:
    """The last sync of making one: its names, which whoever comes next has to sync in its stead."""
    path = quick_path / "well"
    _, calls, _ = record_stubborn(start, 1, "full", path, None, making=True)
    last = max(at for at, kind in enumerate(calls[:-MOST_OF_A_COMMIT], 1) if kind == "fsync")
    fault = Fault(random.Random(seed).randint(last - 1, last), errno.EIO)
    recorded, _, _ = record_stubborn(start, 1, "full", quick_path / "recorded", fault, making=True)
    tally = whole(judge(start, recorded, Sift(PAGE, 8, seed), quick_path / "judged"))
    say(f"{fault}: {tally}")


STUCK: Final = Fault(0, errno.EIO, lasting=True, how=How.DONE)
"""A write comes through and is reported as failed; then nothing works any more."""


@pytest.mark.parametrize(
    ("broken", "durability", "call", "fault"),
    [
        (faults.never_settled, "full", "head", STUCK._replace(lasting=False)),
        (faults.never_settled, "relaxed", "sync", Fault(0, errno.EIO)),
        pytest.param(*(faults.never_settled, "full", "head", STUCK), marks=pytest.mark.storm),
        pytest.param(
            *(faults.only_synced, "relaxed", "sync", Fault(0, errno.EIO)),
            marks=pytest.mark.storm,
        ),
        pytest.param(
            *(faults.doubt_of_one_process, "full", "head", STUCK._replace(spared=1)),
            marks=pytest.mark.storm,
        ),
    ],
)
def test_the_bench_notices_what_is_not_done_about_a_failed_commit(
    broken: Break,
    durability: str,
    call: str,
    fault: Fault,
    start: Start,
    quick_path: Path,
    say: Say,
) -> None:
    tally, told = judge_second_commit(start, quick_path, durability, call, fault, broken)
    say(f"{broken.__name__}, {durability}, {told}")

    assert tally.faults


@pytest.mark.parametrize(
    ("durability", "call", "fault"),
    [("full", "head", STUCK._replace(lasting=False)), ("relaxed", "sync", Fault(0, errno.EIO))],
)
def test_after_a_commit_that_failed_the_heads_are_made_sure_of(
    durability: str, call: str, fault: Fault, start: Start, quick_path: Path, say: Say
) -> None:
    """With the faults by which the bench notices that they are not."""
    tally, told = judge_second_commit(start, quick_path, durability, call, fault)
    say(f"{durability}, {told}")
    whole(tally)


def judge_second_commit(
    start: Start,
    path: Path,
    durability: str,
    call: str,
    fault: Fault,
    broken: Break = faults.none,
) -> tuple[Tally, str]:
    """What power cuts leave of two commits, where the sync or the head of the second one fails."""
    _, calls, _ = record_stubborn(start, 2, durability, path / "well", None, broken)
    second = [at for at, kind in enumerate(calls, 1) if kind == "fdatasync"][1]
    fault = fault._replace(at=second + (call == "head"))
    recorded, _, errors = record_stubborn(start, 2, durability, path / "recorded", fault, broken)
    tally = judge(start, recorded, Sift(PAGE, 256, 1), path / "judged")
    return tally, f"{fault}: {tally}; {errors}"


# The long form.


@pytest.mark.storm
@pytest.mark.parametrize("part", range(6))
@pytest.mark.parametrize("durability", ["full", "relaxed"])
def test_long_stories_on_a_failing_disk(
    durability: str, part: int, start: Start, quick_path: Path, seed: int, say: Say
) -> None:
    own = seed + part
    recorded, errors = record_troubled_story(
        start, Plot(own, 40, durability=durability), quick_path / "recorded", by_chance(own, 10)
    )
    tally = whole(judge(start, recorded, Sift(PAGE, 24, own), quick_path / "judged", WORKERS))
    say(f"a {durability} story on a failing disk: {tally}; {errors}")


@pytest.mark.storm
@pytest.mark.parametrize("way", WAYS, ids=lambda way: "-".join(map(str, way)))
@pytest.mark.parametrize("durability", ["full", "relaxed"])
def test_every_write_and_sync_fails_and_then_the_power_goes(
    durability: str,
    way: tuple[int, bool, How, int],
    start: Start,
    quick_path: Path,
    seed: int,
    say: Say,
) -> None:
    total, raised = Tally(), Counter[str]()
    at, calls = 1, 1
    while at <= calls + 1:
        path = quick_path / f"{at}"
        recorded, made, errors = record_stubborn(
            start, JOBS, durability, path / "recorded", Fault(at, *way)
        )
        calls = len(made)
        raised.update(errors)
        total += whole(judge(start, recorded, Sift(PAGE, 6, seed), path / "judged", WORKERS))
        at += 1
    say(f"{durability}, each of {at - 1} calls, {way}: {total}; {dict(raised)}")
