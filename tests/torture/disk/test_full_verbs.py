"""Every verb in a queue that is full to its quota, or whose map is full: it returns, or is refused.

What is refused is `StoreFull`, and has changed nothing; what returns is what brings nothing. Really
full disks are in `test_full`, and in `test_io`, where every call to the disk fails.
"""

import random
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import pytest

from jobq import JobService, StoreFull
from jobq.repo.lmdb import LmdbStore
from tests.crash.conftest import Say
from tests.crash.flow_verbs import FLOW
from tests.crash.processes import Pipe, Start
from tests.crash.repairs import LONG_REPAIRS, REPAIRS
from tests.crash.verbs import CASES, Case, fill, seen_in, whole

ALL: Final = {
    name: case
    for name, case in {**CASES, **FLOW, **REPAIRS, **LONG_REPAIRS}.items()
    if case.topics == "lmdb" and not case.victim and not case.opens and name != "close"
}
BRINGING: Final = ("enqueue", "enqueue_many", "batch", "done", "import", "edit", "report")
"""Verbs of which the case brings something: they have to be refused. (`done` has follow-ups.)"""

PAGES: Final = 200
LARGE: Final = 2**36
SHORT: Final = 10
PATIENCE_S: Final = 120.0


def try_when_full(pipe: Pipe, names: list[str], limit: str, directory: str) -> None:
    """In a child: call each verb in a full queue; say what came of it, and what was wrong."""
    for number, name in enumerate(names):
        path = Path(directory, f"{number}")
        fill(str(path), ALL[name])
        with _full(path, ALL[name], limit) as (svc, held):
            before = seen_in(svc, ALL[name])
            refused = False
            try:
                ALL[name].act(svc, held)
            except StoreFull:
                refused = True
            changed = seen_in(svc, ALL[name]) != before
            wrong = [] if refused and ALL[name].mends else whole(svc)
        if refused and changed:
            wrong.append("it was refused, and has changed something")
        if not refused and name in BRINGING:
            wrong.append("it was not refused")
        pipe.send((name, refused, wrong))


@contextmanager
def _full(path: Path, case: Case, limit: str) -> Iterator[tuple[JobService, object]]:
    """The queue of a case, filled until there is no room for a job of nothing."""
    size = (path / "data.mdb").stat().st_size + PAGES * 4096
    map_size = size if limit == "map" else LARGE
    store = LmdbStore(path, durability="unsafe", max_size=size, map_size=map_size)
    with JobService(store) as svc:
        held = case.hold(svc)
        for large in (20_000, 3_000, 1):
            while _takes(svc, large):
                pass
        yield svc, held


def _takes(svc: JobService, large: int) -> bool:
    try:
        svc.enqueue("filler", bytes(large), delay=5_000)
    except StoreFull:
        return False
    return True


def look(start: Start, names: list[str], limit: str, path: Path, say: Say) -> None:
    """Have a child try them; nothing may be wrong."""
    child = start(try_when_full, names, limit, str(path))
    found = [child.hear(PATIENCE_S) for _ in names]
    say(f"{limit}: {len(names)} verbs, {sum(refused for _, refused, _ in found)} refused")

    assert [(name, wrong) for name, _, wrong in found if wrong] == []


@pytest.mark.parametrize("limit", ["quota", "map"])
def test_a_verb_in_a_full_queue_returns_or_is_refused(
    limit: str, start: Start, quick_path: Path, seed: int, say: Say
) -> None:
    """Those that bring something, a repair, and others by chance; the long form has all."""
    others = random.Random(seed).sample(sorted(ALL.keys() - {*BRINGING, *REPAIRS}), SHORT)
    look(start, [*BRINGING, "repair", *others], limit, quick_path, say)


@pytest.mark.storm
@pytest.mark.parametrize("limit", ["quota", "map"])
def test_every_verb_in_a_full_queue_returns_or_is_refused(
    limit: str, start: Start, quick_path: Path, say: Say
) -> None:
    look(start, list(ALL), limit, quick_path, say)
