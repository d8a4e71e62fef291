"""A process is killed at every named step of every verb that writes.

Afterwards the verb's effect is whole or absent, whole if the process had learnt of it; whatever it
held is ready again; the queue is clean, and goes on.
"""

import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any, Final, NamedTuple

import pytest

import jobq
from tests.crash.conftest import Say
from tests.crash.flow_verbs import FLOW, FLOW_MIXED
from tests.crash.processes import Pipe, Start, kill_myself
from tests.crash.verbs import ALWAYS, CASES, MIXED, Seen, copy, fill, killed_at, run

WORKERS: Final = 2
"""Processes that share the lines of a verb. Its steps are few: one goes through all of them."""

MAKING: Final = {"directory made", "data file built", "data file synced", "data file moved"}
TAKING: Final = {"index cleared", "index marked as elsewhere"}
TAKING_BACK: Final = {
    *("file lock taken to rebuild", "topics cleared", "topics rebuilt"),
    "rebuilt topics committed",
}
HOLDING: Final = {"holder file made", "holder file locked", "holder file renamed"}


class Survey(NamedTuple):
    """What became of one case, killed at each of its steps."""

    reached: list[str]
    changed: bool
    wrong: list[str]
    runs: int


ALL: Final = {**CASES, **MIXED, **FLOW, **FLOW_MIXED}

UNSEEN: Final = {
    f"{name}, topics in memory"
    for name in (
        *("extend", "promote", "expire", "lapse"),
        *("a call that comes too late", "a hold lingers no longer"),
    )
}
"""What opening does too; and where the topics are in memory, nobody can look before that."""


@pytest.mark.parametrize("name", [name for name in ALL if name not in UNSEEN])
def test_a_verb_killed_at_any_step_is_whole_or_absent(
    name: str, start: Start, quick_path: Path
) -> None:
    survey: Survey = start(_survey, name, str(quick_path / "0")).hear()

    assert not survey.wrong, "\n".join(survey.wrong)
    assert survey.changed, "the case has no effect, so it shows nothing"
    assert survey.runs == len(survey.reached) > 0


def test_the_steps_are_those_of_making_a_queue_of_holding_and_of_committing(
    start: Start, quick_path: Path
) -> None:
    reached = {}
    for name in (
        *("create", "enqueue", "reserve, the first of the process"),
        *("take topics into memory", "take topics from memory into the file"),
    ):
        child = start(_survey, name, str(quick_path / name))
        reached[name] = set(child.hear().reached)

    assert reached["create"] >= MAKING
    assert reached["enqueue"] >= ALWAYS | {"jobs written"}
    assert reached["take topics into memory"] >= ALWAYS | TAKING
    assert reached["take topics from memory into the file"] >= ALWAYS | TAKING_BACK
    assert reached["reserve, the first of the process"] >= ALWAYS | HOLDING


@pytest.mark.storm
@pytest.mark.parametrize("name", [name for name in ALL if name not in UNSEEN])
def test_a_verb_killed_at_any_line_is_whole_or_absent(
    name: str, start: Start, quick_path: Path, say: Say
) -> None:
    children = [
        start(_survey, name, str(quick_path / str(part)), part, WORKERS, True)
        for part in range(WORKERS)
    ]
    surveys: list[Survey] = [child.hear(280) for child in children]
    say(f"{name}: killed at {sum(survey.runs for survey in surveys)} lines")

    wrong = [line for survey in surveys for line in survey.wrong]
    assert not wrong, "\n".join(wrong)


# In the child.


def _survey(
    pipe: Pipe, name: str, directory: str, part: int = 0, parts: int = 1, by_line: bool = False
) -> None:
    """Run a case with a kill at every step, or line, whose number falls to this *part*."""
    case = ALL[name]
    root = Path(directory)
    root.mkdir()
    queue = root / "full"
    if not case.new:
        fill(str(queue), case)
    runs = 0

    def once(step: int, *, acts: bool = True) -> Seen:
        nonlocal runs
        runs += 1
        path = root / str(runs)
        place = str(path) if case.new else copy(queue, path)
        acting = case._replace(act=_by_line(case.act, step)) if by_line and step else case
        seen = run(acting, place, killed_at(0 if by_line else step), acts=acts)
        if not seen.problems:
            shutil.rmtree(place)
        return seen

    before, whole = once(0, acts=False), once(0)
    wrong = [*before.problems, *whole.problems]
    if not whole.acknowledged:
        wrong.append("unharmed, it was not acknowledged")
    if wrong:
        pipe.send(Survey(whole.reached, True, wrong, runs))
        return
    runs = 0
    last = sys.maxsize if by_line else len(whole.reached)
    for step in range(1 + part, last + 1, parts):
        seen = once(step)
        where = f"{name}, killed at {step} after {seen.reached[-1:]}"
        wrong += [f"{where}: {problem}" for problem in seen.problems]
        wrong += [f"{where}: {word}" for word in _judge(seen, before, whole)]
        if by_line and seen.acknowledged:
            break
        if not by_line and seen.acknowledged:
            wrong.append(f"{where}: it was not killed")
    changed = before.dying != whole.dying or before.after != whole.after or case.new
    pipe.send(Survey(whole.reached, changed, wrong, runs))


def _judge(seen: Seen, before: Seen, whole: Seen) -> list[str]:
    """What is wrong with the effect of a verb that was killed."""
    is_whole = (seen.dying, seen.after, seen.order) == (whole.dying, whole.after, whole.order)
    is_absent = (seen.dying, seen.after, seen.order) == (before.dying, before.after, before.order)
    if seen.acknowledged and not is_whole:
        return [f"it was acknowledged, but not whole: {_differences(seen, whole)}"]
    if is_whole or is_absent:
        return []
    return [f"neither whole: {_differences(seen, whole)}\nnor absent: {_differences(seen, before)}"]


def _differences(seen: Seen, other: Seen) -> list[Any]:
    pairs = ((seen.dying, other.dying), (seen.after, other.after))
    return [
        ([job for job in mine if job not in theirs], [job for job in theirs if job not in mine])
        for mine, theirs in pairs
    ] + [(seen.order, other.order)]


def _by_line(act: Callable[[Any, Any], object], at: int) -> Callable[[Any, Any], object]:
    """The verb, killed when it comes to its *at*-th line of jobq's code; each line counts once."""
    package = str(Path(jobq.__file__).parent)
    seen: set[tuple[str, int]] = set()

    def trace(frame: FrameType, event: str, _: object) -> Any:
        if not frame.f_code.co_filename.startswith(package):
            return None
        if event == "line":
            seen.add((frame.f_code.co_filename, frame.f_lineno))
            if len(seen) == at:
                kill_myself()
        return trace

    def acting(subject: Any, held: Any) -> object:
        sys.settrace(trace)
        try:
            return act(subject, held)
        finally:
            sys.settrace(None)

    return acting
