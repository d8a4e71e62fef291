"""Full quotas, maps and disks of random shapes: nothing is lost, and all can be worked off.

What brings something is refused with `StoreFull` and leaves nothing; every verb that works a job
off goes on, to the last one; and when there is room, so does all else. Single facts about full
queues stand in `tests/repo/lmdb/test_room.py`.
"""

import random
import shutil
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import pytest

from jobq import JobService
from jobq.clock import ManualClock
from jobq.repo.lmdb import LmdbStore
from jobq.repo.lmdb.room import DRAIN_PAGES
from tests.crash.conftest import Say
from tests.crash.processes import Child, Pipe
from tests.repo.lmdb.disks import enlarge, has_ballast, may_mount, mount, stuff, unmount
from tests.torture.disk.brimful import FORGETTING, KEEPING, Brimful, Shape, shape_by

KIB: Final = 2**10
LARGE: Final = 2**36
PATIENCE_S: Final = 600.0
KEPT_FULL: Final = "disk kept full"
LIMITS: Final = {
    "quota": 50,
    "map": 50,
    "disk filled by jobq": 20,
    "disk filled by others": 20,
    KEPT_FULL: 50,
}
"""What makes a queue full, and how many shapes the long form has of it."""
DURABILITIES: Final = ("full", "relaxed", "unsafe")


def work_off(pipe: Pipe, limit: str, root: str, seeds: list[int]) -> None:
    """In a child: fill a queue of each seed's shape and work it off; says what that took."""
    for seed in seeds:
        dice = random.Random(f"{limit} {seed}")
        pipe.send(f"{limit}, seed {seed}")
        if limit in {"quota", "map"}:
            figures = _in_bounds(limit, Path(root, f"{seed}"), dice)
            shutil.rmtree(Path(root, f"{seed}"))
        else:
            path = mount(root, dice.choice((3, 4)))
            figures = _on_a_disk(limit, path, dice)
            unmount(root)
        pipe.send(figures)


def _in_bounds(limit: str, path: Path, dice: random.Random) -> Counter[str]:
    """A quota, or a map: beyond it LMDB itself has no page to give."""
    size = dice.randint(160, 320) * 4 * KIB
    with _queue(path, dice, shape_by(dice), size, size if limit == "map" else LARGE) as full:
        full.fill()
        full.is_refused()
        full.is_sound()
        # Jobs were worked off meanwhile, which may take the pages that are left to that.
        most = size + DRAIN_PAGES * 4 * KIB
        assert int(full.svc.stats().store["file_bytes"]) <= most
        full.drain()
        assert not full.forgotten
        return _goes_on(full)


def _on_a_disk(limit: str, path: Path, dice: random.Random) -> Counter[str]:
    """A really full one; filled by this queue, by another program, or by that again and again."""
    stuffing, shape = path.parent / "stuffing", shape_by(dice)
    if limit == KEPT_FULL:
        shape = shape._replace(kept=True)
    with _queue(path, dice, shape) as full:
        if limit != "disk filled by jobq":
            full.fill(most=dice.randint(50, 400))
            stuff(stuffing)
        full.fill()
        full.is_refused()
        full.is_sound()
        if limit == KEPT_FULL:
            full.use_up(lambda: has_ballast(path))
            stuff(stuffing)
        full.drain()
        stuffing.unlink(missing_ok=True)
        enlarge(str(path.parent), 12)
        return _goes_on(full)


@contextmanager
def _queue(
    path: Path,
    dice: random.Random,
    shape: Shape,
    max_size: int = LARGE,
    map_size: int = LARGE,
) -> Iterator[Brimful]:
    clock = ManualClock()
    store = LmdbStore(
        path,
        durability=dice.choice(DURABILITIES),
        clock=clock,
        retention=KEEPING if shape.kept else FORGETTING,
        max_size=max_size,
        map_size=map_size,
    )
    with JobService(store) as svc:
        yield Brimful(svc, clock, shape, dice)


def _goes_on(full: Brimful) -> Counter[str]:
    """There is room again: the queue takes jobs as ever."""
    figures = Counter(jobs=full.most, calls=full.calls, halved=full.split, early=full.forgotten)
    full.forget()
    full.fill(most=100)
    assert len(full.jobs) >= 5
    full.drain()
    full.forget()
    return figures


def shapes(say: Say, limit: str, seeds: list[int], root: Path, processes: int) -> None:
    """Work so many shapes off in some processes."""
    wrap = may_mount() if limit.startswith("disk") else ()
    if wrap is None:
        pytest.skip("nobody may mount a file system here: needs root or user namespaces")
    total = Counter[str]()
    children = []
    try:
        for number in range(processes):
            place = root / f"{number}"
            place.mkdir()
            mine = seeds[number::processes]
            children.append((Child(work_off, limit, str(place), mine, wrap=wrap), mine))
        for child, mine in children:
            for _ in mine:
                shape = child.hear(PATIENCE_S)
                try:
                    total += child.hear(PATIENCE_S)
                except AssertionError as error:
                    error.add_note(shape)
                    raise
            assert child.ended() == 0
    finally:
        for child, _ in children:
            child.discard()
    say(f"{limit}: {len(seeds)} shapes, {dict(total)}")


@pytest.mark.parametrize("limit", LIMITS)
def test_a_full_queue_refuses_new_jobs_and_can_be_worked_off(
    limit: str, quick_path: Path, seed: int, say: Say
) -> None:
    shapes(say, limit, [seed], quick_path, 1)


@pytest.mark.storm
@pytest.mark.parametrize(("limit", "count"), LIMITS.items())
def test_a_hundred_full_shapes_each_can_be_worked_off(
    limit: str, count: int, quick_path: Path, seed: int, say: Say
) -> None:
    shapes(say, limit, [seed + number for number in range(count)], quick_path, 2)
