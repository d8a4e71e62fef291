"""Writes and syncs of a disk that fails: a verb happens or raises, and what it says is true.

Each call by which a verb changes a file fails: alone, and with all that follow; with EIO and
ENOSPC, before it has done anything, when it has done half of it, or all. The verb returns and has
happened, or it raises an error of jobq's and has not (`OutcomeUnknown`: either); what was there
is there;
another process reads and writes meanwhile; and when the disk is well again the same service goes
on. A story and a power cut on top of it are in `test_io_power`.
"""

import random
from collections import Counter
from pathlib import Path

import pytest

from tests.crash.conftest import Say
from tests.crash.processes import Start
from tests.crash.repairs import REPAIRS
from tests.torture.disk.troubled import ALL, Survey, survey

PATIENCE_S = 600.0
"""A case has some hundred runs at most, of 20 to 30 ms each on an idle machine."""

SHORT = 6
"""Cases of the short form."""


def test_a_verb_whose_disk_fails_happens_or_raises_and_says_which(
    start: Start, quick_path: Path, seed: int, say: Say
) -> None:
    """Some by chance; the long form has all."""
    chance = random.Random(seed)
    names = [*chance.sample(sorted(ALL), SHORT), chance.choice(sorted(REPAIRS))]
    children = {
        name: start(survey, name, str(quick_path / f"{number}"), 0, 1, seed)
        for number, name in enumerate(["create", *names])
    }
    wrong = []
    for name, child in children.items():
        found: Survey = child.hear(PATIENCE_S)
        say(f"{name}: {found.outcomes}")
        wrong += found.wrong

    assert not wrong, "\n".join(wrong)


@pytest.mark.storm
@pytest.mark.parametrize("name", ALL)
def test_every_write_and_sync_of_every_verb_fails_in_every_way(
    name: str, start: Start, quick_path: Path, say: Say
) -> None:
    parts = [start(survey, name, str(quick_path / f"{part}"), part, 2) for part in range(2)]
    surveys: list[Survey] = [part.hear(PATIENCE_S) for part in parts]
    outcomes = sum((Counter(one.outcomes) for one in surveys), Counter[str]())
    say(f"{name}: {len(surveys[0].calls)} calls, {outcomes.total()} faults: {dict(outcomes)}")

    wrong = [line for one in surveys for line in one.wrong]
    assert not wrong, "\n".join(wrong)
    assert outcomes.total() >= 4 * len(surveys[0].calls)
