"""A process is killed at every named step of every verb that writes.

Afterwards the verb's effect is whole or absent, whole if the process had learnt of it; whatever it
held is ready again; the queue is clean, and goes on.
"""

import random
from pathlib import Path
from typing import Final

import pytest

from tests.crash.conftest import Say
from tests.crash.processes import Start
from tests.crash.survey import IN_MEMORY, SEEN, Moments, Survey, survey
from tests.crash.verbs import ALWAYS

WORKERS: Final = 2
"""Processes that share the lines of a verb. Its steps are few: one goes through all of them."""

SAMPLE: Final = 10
"""Verbs that are looked at in the default run, by chance."""

MAKING: Final = {"directory made", "data file built", "data file synced", "data file moved"}
TAKING: Final = {"index cleared", "index marked as elsewhere"}
TAKING_BACK: Final = {
    *("file lock taken to rebuild", "topics cleared", "topics rebuilt"),
    "rebuilt topics committed",
}
HOLDING: Final = {"holder file made", "holder file locked", "holder file renamed"}


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=[pytest.mark.storm] * (name in IN_MEMORY)) for name in SEEN],
)
def test_a_verb_killed_at_any_step_is_whole_or_absent(
    name: str, start: Start, quick_path: Path
) -> None:
    _is_whole_or_absent(start(survey, name, str(quick_path / "0")).hear())


def test_some_verbs_killed_at_any_step_are_whole_or_absent_where_topics_are_in_memory(
    start: Start, quick_path: Path, seed: int
) -> None:
    for name in random.Random(seed).sample(IN_MEMORY, SAMPLE):
        _is_whole_or_absent(start(survey, name, str(quick_path / name)).hear())


def _is_whole_or_absent(found: Survey) -> None:
    assert not found.wrong, "\n".join(found.wrong)
    assert found.changed, "the case has no effect, so it shows nothing"
    assert found.runs == len(found.reached) > 0


def test_the_steps_are_those_of_making_a_queue_of_holding_and_of_committing(
    start: Start, quick_path: Path
) -> None:
    reached = {}
    for name in (
        *("create", "enqueue", "reserve, the first of the process"),
        *("take topics into memory", "take topics from memory into the file"),
    ):
        child = start(survey, name, str(quick_path / name))
        reached[name] = set(child.hear().reached)

    assert reached["create"] >= MAKING
    assert reached["enqueue"] >= ALWAYS | {"jobs written"}
    assert reached["take topics into memory"] >= ALWAYS | TAKING
    assert reached["take topics from memory into the file"] >= ALWAYS | TAKING_BACK
    assert reached["reserve, the first of the process"] >= ALWAYS | HOLDING


@pytest.mark.storm
@pytest.mark.parametrize("name", SEEN)
def test_a_verb_killed_at_any_line_is_whole_or_absent(
    name: str, start: Start, quick_path: Path, say: Say
) -> None:
    children = [
        start(survey, name, str(quick_path / str(part)), Moments.LINES, part, WORKERS)
        for part in range(WORKERS)
    ]
    surveys: list[Survey] = [child.hear(280) for child in children]
    say(f"{name}: killed at {sum(one.runs for one in surveys)} lines")

    wrong = [line for one in surveys for line in one.wrong]
    assert not wrong, "\n".join(wrong)
