"""Workloads that go on when the disk fails, recorded; their oracles are those of the power cut.

Whoever gets an error calls the verb again, until it returns. In between a verb that has failed must
not be there, power cut or not: so the record says that it has not begun yet. Only where its outcome
was not known it has, until somebody has looked.
"""

import os
import random
from collections.abc import Hashable
from functools import cached_property
from pathlib import Path
from typing import Any, Final

from jobq import JobService, ids
from jobq.clock import ManualClock
from jobq.errors import JobqError, OutcomeUnknown
from jobq.repo.base import Store
from jobq.repo.lmdb import LmdbStore
from jobq.selector import Selector
from tests.crash.processes import Pipe
from tests.model.model import Model
from tests.model.told import Told
from tests.torture.disk.failing import Fault, any_fault
from tests.torture.power.crowd import MAKER
from tests.torture.power.faults import Fault as Break
from tests.torture.power.recorder import Recorder
from tests.torture.power.states import Cut
from tests.torture.power.story import (
    ALL,
    RETENTION,
    Plot,
    StoryOracle,
    content,
    kind_of,
    place,
    told_by,
)

TOPIC: Final = "thread 1"
"""As the oracle of the crowd has it, who is alone here."""

PATIENCE: Final = 2
"""So many calls of a verb may fail; then the disk is made well."""


def act(
    pipe: Pipe,
    jobs: int,
    durability: str,
    root: Path,
    fault: Fault | None,
    broken: Break,
    making: bool,
) -> None:
    """In a child: enqueue so many jobs, and open the queue anew after each error.

    With *making*, the disk fails already while the queue is made.
    So what was left in doubt has to be known to whoever comes next. Says the record, the calls to
    the disk, and the errors that there were.
    """
    recorder = Recorder(root)
    broken(recorder)
    trouble = recorder.trouble

    def opened() -> JobService:
        clock = ManualClock()
        return JobService(LmdbStore(root / "queue", clock=clock, durability=durability))

    recorder.began(1, MAKER)
    if making:
        trouble.begin(fault)
    svc = _opened(opened, recorder)
    recorder.acked(1, MAKER)
    if not making:
        trouble.begin(fault)
    errors: dict[str, int] = {}
    for number in range(1, jobs + 1):
        tries = 0
        while True:
            recorder.began(number, 1)
            try:
                svc.enqueue(TOPIC, number)
            except JobqError as error:
                unknown = isinstance(error, OutcomeUnknown)
                errors[type(error).__name__] = errors.get(type(error).__name__, 0) + 1
            else:
                recorder.acked(number, 1)
                break
            if not unknown:
                recorder.began(number - 1, 1)
            tries += 1
            if tries == PATIENCE:
                trouble.end()
            svc.close()
            svc = _opened(opened, recorder)
            if unknown:
                if number in [job.payload for job in svc.find(topic=TOPIC, limit=1000)]:
                    break  # it lasts once the next commit has returned
                recorder.began(number - 1, 1)
    calls = list(trouble.kinds)
    trouble.end()
    svc.close()
    pipe.send((recorder.finish(), calls, errors))
    os._exit(0)


def _opened(opened: Any, recorder: Recorder) -> JobService:
    try:
        svc: JobService = opened()
    except JobqError:
        recorder.trouble.end()
        svc = opened()
    return svc


def tell_story(pipe: Pipe, plot: Plot, root: Path, faults: list[Fault], broken: Break) -> None:
    """In a child: tell a story; each fault begins when the trouble before it is over.

    Says the record, the ids of the jobs, and the errors that there were.
    """
    clock = ManualClock()
    recorder = Recorder(root)
    broken(recorder)
    trouble, left = recorder.trouble, list(faults)
    errors: dict[str, int] = {}
    recorder.began(1)
    store = Told(kind_of(plot), place(plot, root), clock, RETENTION)
    recorder.acked(1)
    model = Model(clock, RETENTION)
    trouble.begin(left.pop(0) if left else None)
    for number, step in enumerate(told_by(plot), 2):
        clock.advance(step.wait_s)
        unsure = _insist(number, step, store, model, recorder, errors)
        getattr(model, step.verb)(*step.arguments)
        if unsure:
            break  # it is there, and its tokens are not known
        if left and trouble.over:
            trouble.begin(left.pop(0))
    trouble.end()
    store.close()
    pipe.send((recorder.finish(), store._ids, errors))
    os._exit(0)


def _insist(
    number: int, step: Any, store: Told, model: Model, recorder: Recorder, errors: dict[str, int]
) -> bool:
    """Call a verb until it returns; whether it is there without having returned."""
    tries = 0
    while True:
        recorder.began(number)
        try:
            getattr(store, step.verb)(*step.arguments)
        except JobqError as error:
            errors[type(error).__name__] = errors.get(type(error).__name__, 0) + 1
            unknown = isinstance(error, OutcomeUnknown)
        else:
            recorder.acked(number)
            return False
        tries += 1
        if tries == PATIENCE:
            recorder.trouble.end()
        if unknown and _is_there(store, model):
            found = {ids.to_raw(job.id) for job in store.store.find(Selector(), None, ALL)}
            store._learn(sorted(found - set(store._ids)))
            return True
        recorder.began(number - 1)


def _is_there(store: Told, model: Model) -> bool:
    """Whether the queue is not as it was before the verb."""
    try:
        return bool(content(store) != content(model))
    except KeyError:
        return True  # a job that was not there


class StubbornOracle(StoryOracle):
    """Judges a story of which verbs were called again: each call makes jobs with ids of its own."""

    def moment(self, cut: Cut) -> Hashable:
        """Also which verb's jobs have ids of their own."""
        return super().moment(cut), cut.began.get(0), cut.acked.get(0)

    def open(self, path: Path, cut: Cut) -> Store:
        """The queue after the machine has booted again."""
        store = super().open(path, cut)
        made = {ids.to_raw(job.id) for job in store.find(Selector(), None, ALL)}
        made -= set(self._ids)
        if made and cut.began[0] > cut.acked[0]:  # by a call that was going to fail
            first = self._enqueued(cut.acked[0])
            told = [*self._ids[:first], *sorted(made), *self._ids[first + len(made) :]]
            self._told._ids = told
            self._told._numbers = {job_id: number for number, job_id in enumerate(told)}
        return store

    def _enqueued(self, number: int) -> int:
        """How many jobs there ever were after so many verbs."""
        return self._made[max(0, number - 1)]

    @cached_property
    def _made(self) -> list[int]:
        clock = ManualClock()
        model = Model(clock, RETENTION)
        made = [model.enqueued]
        for step in self._steps:
            clock.advance(step.wait_s)
            getattr(model, step.verb)(*step.arguments)
            made.append(model.enqueued)
        return made


def by_chance(seed: int, n: int) -> list[Fault]:
    """Faults of all kinds, each some calls after the one before."""
    chance = random.Random(seed)
    return [any_fault(chance, 12) for _ in range(n)]
