"""Runs a verb again and again, each time with a kill at another moment, and judges what is left.

Afterwards its effect is whole or absent, whole if the process had learnt of it; whatever it held is
ready again; the queue is clean, and goes on.
"""

import shutil
import sys
from collections.abc import Callable, Sequence
from enum import Enum
from pathlib import Path
from types import FrameType
from typing import Any, Final, NamedTuple

import jobq
from tests.crash.boundaries import BOUNDARIES, META_WRITTEN, at_its_calls
from tests.crash.flow_verbs import FLOW, FLOW_MIXED
from tests.crash.processes import Pipe, kill_myself
from tests.crash.repairs import LONG_REPAIRS, REPAIRS
from tests.crash.verbs import CASES, MIXED, Seen, copy, fill, is_mended, killed_at, run

ALL: Final = {**CASES, **MIXED, **FLOW, **FLOW_MIXED, **REPAIRS, **LONG_REPAIRS}

UNSEEN: Final = {
    f"{name}, topics in memory"
    for name in (
        *("extend", "promote", "expire", "lapse"),
        *("a call that comes too late", "a hold lingers no longer"),
    )
}
"""What opening does too; and where the topics are in memory, nobody can look before that."""

IN_MEMORY: Final = [name for name in (*MIXED, *FLOW_MIXED) if name not in UNSEEN]
"""Those that are the same again, of queues whose topics are kept in memory."""

SEEN: Final = [name for name in ALL if name not in UNSEEN and name not in LONG_REPAIRS]


class Survey(NamedTuple):
    """What became of one case, killed at each of its moments."""

    reached: list[str]
    changed: bool
    wrong: list[str]
    runs: int


class Moments(Enum):
    """When a verb is killed."""

    STEPS = "at each of its named steps"
    LINES = "at each line of jobq's code"
    CALLS = "before, within and after each call that changes a file or makes changes last"


def survey(
    pipe: Pipe,
    name: str,
    directory: str,
    moments: Moments = Moments.STEPS,
    part: int = 0,
    parts: int = 1,
) -> None:
    """In a child: run a case with a kill at every moment whose number falls to this *part*."""
    case = ALL[name]
    root = Path(directory)
    root.mkdir()
    queue = root / "full"
    if not case.new:
        fill(str(queue), case)
    if moments is Moments.CALLS:
        case = case._replace(act=at_its_calls(case.act))
    by_line = moments is Moments.LINES
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
    elif case.mends:
        wrong += is_mended(before.after, whole.after, (before.order, whole.order))
    if wrong:
        pipe.send(Survey(whole.reached, True, wrong, runs))
        return
    runs = 0
    for step in _numbers(moments, whole.reached)[part::parts]:
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


def _numbers(moments: Moments, reached: list[str]) -> Sequence[int]:
    """At which of the steps a verb is killed; its lines are counted as they come."""
    if moments is Moments.LINES:
        return range(1, sys.maxsize)
    numbered = enumerate(reached, 1)
    return [n for n, step in numbered if (step in BOUNDARIES) is (moments is Moments.CALLS)]


def _judge(seen: Seen, before: Seen, whole: Seen) -> list[str]:
    """What is wrong with the effect of a verb that was killed."""
    is_whole = (seen.dying, seen.after, seen.order) == (whole.dying, whole.after, whole.order)
    is_absent = (seen.dying, seen.after, seen.order) == (before.dying, before.after, before.order)
    if seen.reached[-1:] == [META_WRITTEN]:  # the commit is there, and only a writer looks for it
        is_whole |= (seen.dying, seen.after, seen.order) == (before.dying, whole.after, whole.order)
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
