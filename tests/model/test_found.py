"""What stories found: each fault in the fewest words that show it."""

import multiprocessing
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import pytest

from jobq import ids
from jobq.clock import ManualClock
from jobq.errors import InvalidValue
from jobq.job import JobSpec, Reservation, Settlement
from jobq.options import JobOptions
from jobq.repo.base import Advanced, ReserveRequest, Store
from jobq.selector import ALL_JOBS, Selector
from jobq.states import Event, Status
from tests.conftest import STORES, Opener
from tests.model.told import Interrupt, interrupt

PLAIN = JobSpec("mail", 0, 0, b"", JobOptions())
SOON = JobSpec("mail", 0, 1_000_000, b"", JobOptions())
TOUCHY = JobSpec("mail", 0, 0, b"", JobOptions(lease=1.0, max_crashes=1))
"""Poison at the second crash."""

ALL = 1000


class Scene(NamedTuple):
    """A store in which every writing verb has something to do, and time has too."""

    store: Store
    held: list[Reservation]
    canceled: list[bytes]
    waiting: list[bytes]


def take(store: Store, n: int = 1) -> list[Reservation]:
    return store.reserve(ReserveRequest("mail", n))


def say(job: Reservation, event: Event) -> Settlement:
    return Settlement(job.id, job.token, event)


def set_up(store: Store, clock: ManualClock) -> Scene:
    store.enqueue([TOUCHY, TOUCHY])
    take(store, 2)
    clock.advance(1)
    take(store, 2)
    *_, canceled, soon = store.enqueue([PLAIN] * 7 + [SOON])
    store.cancel([canceled], "not wanted")
    held = take(store, 5)
    short_lived = held.pop()
    store.settle([say(short_lived, Event.DONE)._replace(keep_us=1)])
    clock.advance(1)
    waiting = store.find(Selector(statuses=frozenset({Status.READY})), None, ALL)
    return Scene(store, held, [canceled], [soon, *(ids.to_raw(job.id) for job in waiting)])


def everything(store: Store) -> tuple[object, ...]:
    return store.find(ALL_JOBS, None, ALL), store.topics(), store.stats().topics, store.check()


def settle(scene: Scene) -> object:
    done, kept, retried, released = scene.held
    follow = (PLAIN, SOON, PLAIN._replace(topic="new"))
    return scene.store.settle(
        [
            say(done, Event.DONE)._replace(keep_us=0, follow=follow),
            say(kept, Event.DONE)._replace(result=b"result"),
            say(retried, Event.RETRY)._replace(delay_us=1, error="it broke"),
            say(released, Event.RELEASE),
        ],
        ReserveRequest("mail", 3),
    )


VERBS: dict[str, Callable[[Scene], object]] = {
    "enqueue": lambda scene: scene.store.enqueue([PLAIN, SOON, PLAIN._replace(topic="new")]),
    "reserve": lambda scene: take(scene.store, ALL),
    "settle": settle,
    "extend": lambda scene: scene.store.extend([(job.id, job.token, 1) for job in scene.held]),
    "cancel": lambda scene: scene.store.cancel([job.id for job in scene.held] + scene.waiting),
    "reset": lambda scene: scene.store.reset(scene.canceled),
    "delete": lambda scene: scene.store.delete(scene.canceled + scene.waiting),
    "advance": lambda scene: scene.store.advance(),
    "prune": lambda scene: scene.store.prune(),
}


@pytest.mark.parametrize(
    "every", [pytest.param(3, id="sampled"), pytest.param(1, id="all", marks=pytest.mark.storm)]
)
@pytest.mark.parametrize("verb", VERBS)
def test_a_call_that_is_interrupted_at_work_has_changed_nothing(
    opener: Opener, clock: ManualClock, verb: str, every: int
) -> None:
    """The memory store counted jobs twice if it was interrupted just before it counted them."""
    if opener.kind.name == "memory":
        every = 1  # it takes back what it did, where the others drop a transaction
    scene = set_up(opener(), clock)
    before = everything(scene.store)

    points, whole = 0, False
    while not whole:
        with suppress(Interrupt), interrupt(after=points):
            VERBS[verb](scene)
            whole = True
        assert whole or everything(scene.store) == before, f"after {points} calls"
        points += every

    assert points > 3
    assert everything(scene.store) != before


def test_a_refused_call_leaves_jobs_that_fall_due_together_in_their_order(
    opener: Opener, clock: ManualClock
) -> None:
    """The memory store put what it took back behind the others of the same moment."""
    store = opener()
    store.enqueue([PLAIN] * 3)
    held = take(store, 3)
    with pytest.raises(InvalidValue):
        store.settle([say(held[0], Event.PRUNE)])

    clock.advance(600)
    store.advance(limit=1)

    expected = [Status.READY, Status.RESERVED, Status.RESERVED]
    assert store.status([job.id for job in held]) == expected


def test_opening_a_store_promotes_what_fell_due_meanwhile(
    durable_opener: Opener, clock: ManualClock
) -> None:
    """It did so only where there were reservations too."""
    store = durable_opener()
    soon = store.enqueue([SOON])
    durable_opener.close(store)
    clock.advance(1)

    store = durable_opener()

    assert store.status(soon) == [Status.READY]


def test_pruning_moves_time_as_every_writing_verb_does(opener: Opener, clock: ManualClock) -> None:
    store = opener()
    soon = store.enqueue([SOON])
    clock.advance(1)

    store.prune()

    assert store.status(soon) == [Status.READY]


def test_a_poisoned_job_counts_as_expired_whether_its_lease_is_over_or_its_holder_dead(
    shared_opener: Opener, clock: ManualClock
) -> None:
    """It counted only where the lease was over."""
    store = shared_opener()
    store.enqueue([TOUCHY, TOUCHY])
    take(store, 2)
    clock.advance(1)
    take(store, 1)
    clock.advance(0.5)
    reserve_in_a_process_that_dies(shared_opener, clock)

    dead = store.advance()
    clock.advance(0.5)
    over = store.advance()

    assert dead == over == Advanced(expired=1, poisoned=1)


def reserve_in_a_process_that_dies(opener: Opener, clock: ManualClock) -> None:
    now = (clock.wall_us(), clock.boot_us())
    process = multiprocessing.get_context("spawn").Process(
        target=_reserve_and_die, args=(opener.kind.name, opener.directory / "queue", now)
    )
    process.start()
    process.join()
    assert process.exitcode == 0


def _reserve_and_die(kind_name: str, path: Path, now: tuple[int, int]) -> None:
    (kind,) = (kind for kind in STORES if kind.name == kind_name)
    store = kind.open(path, clock=ManualClock(wall_us=now[0], boot_us=now[1]))
    assert len(take(store)) == 1
    os._exit(0)
