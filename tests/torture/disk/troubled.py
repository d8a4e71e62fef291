"""A verb in a process whose disk fails, and what it, others and those who come later find then.

A run is: a process opens a queue and calls the verb, of whose calls to the disk some fail; while
they still do, it reads and writes more, and so does another process, whose disk is well; then the
disk is well for both, and the first one goes on with the service that it has.
"""

import errno
import random
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, NamedTuple

import jobq
from jobq import JobService
from jobq.errors import JobqError, OutcomeUnknown
from jobq.repo.lmdb.upkeep import child, copying
from tests.crash.processes import Pipe, kill_myself
from tests.crash.verbs import (
    Case,
    _be_victim,
    _Fork,
    copy,
    fill,
    found_in,
    is_mended,
    mended,
    seen_in,
    whole,
)
from tests.torture.disk.failing import WRITES, Failing, Fault, How
from tests.torture.power import cases

TOPIC: Final = "held"
"""A topic of every case, which no verb of a case fills."""

DURING: Final = "while it fails"
LAST: Final = "when it is well again"
OTHER: Final = "by the witness"

LATER: Final = 50
"""Tens of seconds, in which `found_in` tells times: longer ones count from an hour ago, and so grow
while a case is run again and again, by less than `DRIFT`. No two verbs differ by so little."""

DRIFT: Final = 10

FEW: Final = 6
"""Faults of a case that are tried in the short form."""


def _back_up(path: str, _: object) -> None:
    copying.copy({"source": path, "target": f"{path}.backup"}, lambda _: None)


def _restore(path: str, *, replace: bool) -> None:
    """Of a backup that was made beforehand: a new queue beside the old one, or in its place."""
    jobq.restore(f"{path}.kept", path if replace else f"{path}.restored", replace=replace)


UPKEEP: Final = {
    "back up": Case(_back_up, opens=True),
    "compact": Case(lambda path, _: jobq.compact(path), opens=True),
    "restore in place": Case(lambda path, _: _restore(path, replace=True), opens=True),
    "restore into a new queue": Case(lambda path, _: _restore(path, replace=False), opens=True),
}

ALL: Final = {
    **{name: case for name, case in cases.ALL.items() if name not in cases.UPKEEP},
    **UPKEEP,
}


IN_PARTS: Final = {
    f"settle and reserve{where}": lambda _, loop: loop.close()
    for where in ("", ", topics in memory")
}
"""Verbs that may have done a part of it when they raise, and what does that part: a loop that ends
by an error still settles the block that has ended well."""


class Seen(NamedTuple):
    """What was found of one run.

    Attributes:
        outcome: `ok`, or the name of the error that the verb raised.
        now, others, later: What the queue held when the disk was well again: for the process
            itself, for another one, and for one that opened it when both were gone.
        order: The ready jobs then, topic by topic, as they are served.
        problems: What was wrong whatever the verb had done.
        calls, kinds: The verb's calls to the disk, in words, and the functions.
        closed: The verb has closed the queue.
    """

    outcome: str
    now: Any
    others: Any
    later: Any
    order: Any
    problems: list[str]
    calls: list[str]
    kinds: list[str]
    closed: bool


class Survey(NamedTuple):
    """What became of one case, with every call failing in every way."""

    calls: list[str]
    runs: int
    outcomes: dict[str, int]
    wrong: list[str]


def survey(
    pipe: Pipe, name: str, directory: str, part: int = 0, parts: int = 1, seed: int | None = None
) -> None:
    """In a child: run a case with all faults that fall to this part, or with one by chance."""
    case = ALL[name]
    root = Path(directory)
    root.mkdir()
    queue = root / "full"
    if not case.new:
        fill(str(queue), case)
        if name.startswith("restore"):
            copying.copy({"source": str(queue), "target": f"{queue}.kept"}, lambda _: None)
            with jobq.open(queue) as svc:
                svc.enqueue("mail", "not in the backup")
    disk = Failing(root)
    child.run = lambda task, request, tell=None: task(request, tell or (lambda _: None))
    count = 0

    def once(fault: Fault | None, *, acts: bool = True, act: Any = case.act) -> Seen:
        nonlocal count
        count += 1
        place = root / str(count) / "queue"
        place.parent.mkdir()
        if not case.new:
            copy(queue, place)
        if name.startswith("restore"):
            shutil.copy(f"{queue}.kept", f"{place}.kept")
        seen = _run(case._replace(act=act), str(place), disk, fault, acts=acts)
        if not seen.problems:
            shutil.rmtree(place.parent)
        return seen

    before, after = once(None, acts=False), once(None)
    partly = IN_PARTS.get(name)
    some = None if partly is None else once(None, act=partly)
    count, outcomes = 0, {"ok": 0}
    wrong = [*before.problems, *after.problems]
    if after.outcome != "ok":
        wrong.append(f"unharmed, it ended with {after.outcome}")
    elif case.mends:
        wrong += is_mended(before.later, after.later, (before.order, after.order))
    faults = list(_faults(after.kinds)) if not wrong else []
    if seed is not None and faults:
        faults = random.Random(f"{seed} {name}").sample(faults, min(len(faults), FEW))
    for fault in faults[part::parts]:
        seen = once(fault)
        outcomes[seen.outcome] = outcomes.get(seen.outcome, 0) + 1
        where = f"{name}, {fault} [{', '.join(after.calls[fault.at - 1 : fault.at])}]"
        wrong += [f"{where}: {seen.outcome}: {one}" for one in seen.problems]
        wrong += [f"{where}: {one}" for one in _judge(seen, before, after, some)]
    pipe.send(Survey(after.calls, count, outcomes, wrong))


def _faults(kinds: list[str]) -> Iterator[Fault]:
    """Every call, alone and with all that follow; and one more, for what a retry does."""
    for at, kind in enumerate([*kinds, "write"], 1):
        ways = [(errno.EIO, How.REFUSED), (errno.ENOSPC, How.REFUSED)]
        if kind in WRITES:
            ways += [(errno.EIO, How.DONE), (errno.ENOSPC, How.HALF)]
        for code, how in ways:
            for lasting in (False, True):
                yield Fault(at, code, lasting, how)


def _judge(seen: Seen, before: Seen, after: Seen, part: Seen | None) -> list[str]:
    """What is wrong with the effect."""
    if seen.closed:  # it has let go of its jobs, or is dead for others: `close` does not raise
        well = any(_alike(seen[3:5], one[3:5]) for one in (before, after))
        return [] if well else [f"closed, and neither: {_off(seen, after)}"]
    is_whole, is_absent = _alike(seen[1:5], after[1:5]), _alike(seen[1:5], before[1:5])
    if seen.outcome == "ok":
        return [] if is_whole else [f"it returned, and is not whole: {_off(seen, after)}"]
    if seen.outcome == OutcomeUnknown.__name__:
        both = is_whole or is_absent
        return [] if both else [f"unknown, and neither: {_off(seen, after)} {_off(seen, before)}"]
    if part is not None and _alike(seen[1:5], part[1:5]):
        return []
    return [] if is_absent else [f"{seen.outcome}, and not absent: {_off(seen, before)}"]


def _alike(mine: Any, theirs: Any) -> bool:
    """Whether two things that were found are the same but for the time that has passed."""
    if isinstance(mine, list | tuple) and isinstance(theirs, list | tuple):
        return len(mine) == len(theirs) and all(map(_alike, mine, theirs))
    if type(mine) is int and type(theirs) is int and min(mine, theirs) > LATER:
        return abs(mine - theirs) < DRIFT
    return bool(mine == theirs)


def _off(seen: Seen, other: Seen) -> list[Any]:
    names = ("now", "others", "later", "order")
    found: list[Any] = []
    for name, mine, theirs in zip(names, seen[1:5], other[1:5], strict=True):
        if mine != theirs and isinstance(mine, list) and isinstance(theirs, list):
            more = [one for one in mine if one not in theirs]
            less = [one for one in theirs if one not in mine]
            found.append((name, "more", more, "less", less))
        elif mine != theirs:
            found.append((name, mine, theirs))
    return found


def _run(case: Case, path: str, disk: Failing, fault: Fault | None, *, acts: bool) -> Seen:
    """One run; this process, which is the witness, must have no queue open, and no threads."""
    victim = _Fork(_be_victim, case, path) if case.victim else None
    troubled = _Fork(_be_troubled, case, path, disk, fault, acts)
    alone = case.opens or "memory" in {case.topics, case.before}
    witness = None if alone else jobq.open(path)
    problems: list[str] = []
    others = None
    try:
        troubled.go()
        troubled.hear()
        if victim is not None:
            victim.go()
            victim.hear()
            victim.end()
        troubled.go()
        troubled.hear()
        if witness is not None:
            problems += _writes_and_reads(witness)
        troubled.go()
        outcome, now, calls, kinds, closed, wrong = troubled._pipe.recv()
        problems += wrong
        if witness is not None:
            others = seen_in(witness, case)
    finally:
        if witness is not None:
            witness.close()
        troubled.end()
        if victim is not None:
            victim.end()
    later, order = None, {}
    try:
        with jobq.open(path, topics=case.afterwards) as svc:
            later = seen_in(svc, case)
            problems += mended(svc, case, later)
            for topic in svc.topics():
                jobs = svc.reserve(topic, 1000, timeout=0)
                order[topic] = [job.payload for job in jobs]
                if any(one != "ok" for one in svc.done_many(jobs)):
                    problems.append(f"jobs of {topic!r} could not be finished afterwards")
    except JobqError as error:
        problems.append(f"a new process: {type(error).__name__}: {error}")
    problems += _left(Path(path), outcome, lasting=fault is not None and fault.lasting)
    return Seen(outcome, now, others, later, order, problems, calls, kinds, closed)


def _writes_and_reads(witness: JobService) -> list[str]:
    """What is wrong with the queue for a process whose disk is well."""
    try:
        jid = witness.enqueue(TOPIC, OTHER)
        read = witness.get(jid).payload
        witness.delete([jid])
    except JobqError as error:
        return [f"another process: {type(error).__name__}: {error}"]
    return [] if read == OTHER else ["another process reads something else"]


def _left(path: Path, outcome: str, *, lasting: bool) -> list[str]:
    """Files that nobody will ever look at again, or that are not what they seem."""
    problems = [f"{file.name} is left over" for file in path.glob(".*")]
    backup = Path(f"{path}.backup")
    if backup.exists():
        if outcome != "ok" and not lasting:  # else it could not be removed
            problems.append("there is a backup that was not said to be there")
        copying.verify({"path": str(backup), "words": "the backup"}, lambda _: None)
    restored = Path(f"{path}.restored")
    if restored.exists() and outcome == "ok":
        with jobq.open(restored) as svc:
            problems += whole(svc)
    return problems


def _be_troubled(
    pipe: Pipe, case: Case, path: str, disk: Failing, fault: Fault | None, acts: bool
) -> None:
    pipe.recv()
    svc = None if case.opens else jobq.open(path, topics=case.topics)
    held = None if svc is None else case.hold(svc)
    pipe.send(None)
    pipe.recv()
    disk.begin(fault)
    outcome, kept = "ok", None
    problems: list[str] = []
    try:
        if acts:
            kept = case.act(path if svc is None else svc, held)
    except JobqError as error:
        outcome = type(error).__name__
    calls, kinds = list(disk.calls), list(disk.kinds)
    if isinstance(kept, JobService):
        svc = kept
    closed = svc is not None and svc.stopped
    if svc is None or closed:
        svc = _again(path, case, problems)
    during = None if svc is None else _go_on(svc, problems)
    pipe.send(None)
    pipe.recv()  # the witness has done its part
    disk.end()
    if svc is None:
        svc = jobq.open(path, topics=case.topics)
    try:
        _end_well(svc, during, problems)
    except JobqError as error:
        problems.append(f"it does not go on: {type(error).__name__}: {error}")
    now = seen_in(svc, case)
    problems += [] if case.mends else whole(svc)  # what was seen says it
    pipe.send((outcome, now, calls, kinds, closed, problems))
    assert held is not pipe  # it lives until here
    kill_myself()


def _again(path: str, case: Case, problems: list[str]) -> JobService | None:
    """Open the queue while the disk may still fail."""
    try:
        return jobq.open(path, topics=case.topics)
    except JobqError:
        return None
    except Exception as error:  # noqa: BLE001 - that is what must not be
        problems.append(f"opening: {type(error).__name__}: {error}")
        return None


def _go_on(svc: JobService, problems: list[str]) -> str:
    """Read and write while the disk may still fail; what became of a job that was added."""
    try:
        found_in(svc)
    except JobqError as error:
        problems.append(f"it cannot be read: {type(error).__name__}: {error}")
    try:
        svc.enqueue(TOPIC, DURING)
    except JobqError as error:
        return type(error).__name__
    return "ok"


def _end_well(svc: JobService, during: str | None, problems: list[str]) -> None:
    """The disk is well again, and so is everything else."""
    svc.delete([svc.enqueue(TOPIC, LAST)])
    there = [job.id for job in svc.find(topic=TOPIC, limit=1000) if job.payload == DURING]
    expected = {"ok": {1}, OutcomeUnknown.__name__: {0, 1}}.get(during or "", {0})
    if len(there) not in expected:
        problems.append(f"enqueue while it failed: {during}, and there are {len(there)}")
    svc.delete(there)
