"""All that is public of jobq and takes arguments: found by looking, so nothing new is left out.

Each function is called with good arguments, some of which are replaced by bad ones. What is good is
said by the name of the parameter, once for all functions: a parameter of another name has to be
added to `GOOD`, and a public class that is neither called nor a result to `CALLED` or `RESULTS`.
"""

import asyncio
import contextlib
import inspect
import math
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, NamedTuple

import jobq
from jobq import Batch, Job, JobOptions, JobService, NewJob, Pattern, Selection
from jobq.clock import ManualClock
from jobq.options import OptionArgs
from jobq.repo.base import Retention, Store
from jobq.repo.lmdb import LmdbStore
from jobq.repo.memory import MemoryStore
from jobq.repo.mixed import MixedStore
from jobq.selector import ALL_JOBS
from jobq.service.asynchronous import AsyncBatch
from jobq.service.filters import Filters
from jobq.topic import SettingArgs
from tests.conftest import Kind
from tests.torture.input.mischief import Mischief

CALLED: Final = (JobService, Job, Batch, AsyncBatch, Selection)
"""Classes whose objects callers get, and call."""

MADE: Final = (JobService, NewJob, Pattern, MemoryStore, LmdbStore, MixedStore)
"""Classes of which callers make objects."""

RESULTS: Final = frozenset(
    {
        *("Attempt", "BulkProgress", "BulkResult", "CheckReport", "Copied", "CopyProgress"),
        *("Diagnosis", "GroupStats", "JobRecord", "LogLine", "Progress", "Salvaged", "Stats"),
        *("TopicLimits", "TopicSettings", "TopicStats", "UniqueKey"),
        *("Event", "Outcome", "Reason", "Status", "KEEP"),
    }
)
"""What jobq makes and callers read: no way in."""

APART: Final = {
    "JobOptions": "its one way in, `of`, is called; the rest takes options that it has checked",
    "JobService.close": "ends what the others are called on",
    "JobService.aclose": "likewise",
    "JobService.stop": "likewise",
    "Job.lost": "makes an error, for the service",
}
"""What is not called here, and why not."""

KEYWORDS: Final[dict[str, Any]] = {
    "options": OptionArgs,
    "settings": SettingArgs,
    "filters": Filters,
}
"""What `**name` takes."""

WAITS: Final = frozenset({"timeout", "lock_timeout"})
CALLBACKS: Final = frozenset({"progress", "on_lost", "backoff"})
PATHS: Final = frozenset({"path", "backup"})
LONGEST_WAIT_S: Final = 0.001
LEAST_RATE: Final = 10_000.0


class World:
    """A service over a store with a job in every state, and what its verbs are called on."""

    def __init__(self, kind: Kind, directory: Path, runner: asyncio.Runner) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.directory = directory
        self.queue = directory / "queue"
        self.store: Store = kind.open(self.queue, clock=ManualClock())
        self.service = JobService(self.store)
        self.runner = runner
        self._held: list[Job] = []
        add = self.service.enqueue
        self.waiting = add("mail", {"to": "ann"}, name="a name", tags=["a", "b"], unique="key")
        self.service.enqueue_many("mail", [1, 2, 3])
        add("grouped", group="g")
        add("mail", delay=60)
        done, canceled = self.service.reserve("mail", 2, timeout=0)
        done.done("result")
        canceled.cancel("rejected", "broken")
        self.finished = done.id

    def close(self) -> None:
        self.service.close()

    def job(self) -> Job:
        """One that is held."""
        self.service.enqueue("held", 1)
        (job,) = self.service.reserve("held", timeout=0)
        self._held.append(job)
        return job

    def facts(self) -> Any:
        """All that a refused call must not change."""
        store = self.store
        store.advance()  # what is due moves with any write, also those of the service's own thread
        topics = store.topics()
        return (
            replace(store.stats(), store={}),  # the file may grow by what comes late, see below
            topics,
            [(name, store.settings(name), store.groups(name, None, 100)) for name in topics],
            store.settings(None),
            store.keys(None, 100),
            # Progress comes when the service has the time: it may be what was told before.
            [replace(job, progress=None) for job in store.find(ALL_JOBS, None, 1000)],
        )


GOOD: Final[Mapping[str, Callable[[World], Any]]] = {
    "topic": lambda _: "mail",
    "topics": lambda _: "mail",
    "payload": lambda _: {"a": [1, "b"]},
    "payloads": lambda _: [1, "b"],
    "weight": lambda _: 0,
    "delay": lambda _: 1,
    "timeout": lambda _: 0,
    "n": lambda _: 2,
    "strict": lambda _: False,
    "pipeline": lambda _: True,
    "on_lost": lambda _: None,
    "jobs": lambda world: [world.job()],
    "results": lambda _: None,
    "error": lambda _: "it broke",
    "job_id": lambda world: world.finished,
    "job_ids": lambda world: [world.waiting],
    "unique": lambda _: None,
    "after": lambda _: None,
    "limit": lambda _: 5,
    "everything": lambda _: False,
    "part": lambda world: world.finished[-8:],
    "repair": lambda _: False,
    "path": lambda world: world.queue,
    "backup": lambda world: world.directory / "backup",
    "replace": lambda _: False,
    "deep": lambda _: False,
    "progress": lambda _: None,
    "lines": lambda _: [
        {"kind": "queue", "version": 1, "last_place": 0},
        {"kind": "end", "jobs": 0},
    ],
    "status": lambda _: "ready",
    "groups": lambda _: ["g"],
    "keys": lambda _: ["key"],
    "result": lambda _: None,
    "then": lambda _: [NewJob("mail", 1)],
    "reason": lambda _: "canceled",
    "seconds": lambda _: 60,
    "deadline": lambda _: datetime(2100, 1, 1, tzinfo=UTC),
    "ttl": lambda _: 60,
    "text": lambda _: "half done",
    "done": lambda _: 1,
    "total": lambda _: 2.0,
    "rate": lambda _: None,
    "dry_run": lambda _: True,
    "glob": lambda _: "mail*",
    "store": lambda _: MemoryStore(),
    "max_payload": lambda _: 1000,
    "backoff": lambda _: lambda *_: 1.0,
    "durability": lambda _: "unsafe",
    "create": lambda _: True,
    "fuse": lambda _: False,
    "clock": lambda _: ManualClock(),
    "retention": lambda _: Retention(),
    "max_size": lambda _: 2**30,
    "map_size": lambda _: 2**30,
    "lock_timeout": lambda _: 1.0,
    "keep_done": lambda _: 60,
    "keep_canceled": lambda _: 60,
    "max_done": lambda _: 9,
    "args": lambda _: {"lease": 5},
    "name": lambda _: "mail.a",
}
"""A good value for each parameter of a public function."""

GOOD_FOR: Final[Mapping[str, Callable[[World], Any]]] = {
    "Job.progress.text": lambda _: None,
    "JobService.find.status": lambda _: None,
    "JobService.purge.topic": lambda _: "none",
    "JobService.apurge.topic": lambda _: "none",
    "JobService.drain.topic": lambda _: "none",
    "JobService.adrain.topic": lambda _: "none",
    "JobService.backup.path": lambda world: world.directory / "new",
    "JobService.abackup.path": lambda world: world.directory / "new",
    "open.topics": lambda _: None,
    "open.path": lambda world: world.directory / "other",
    "LmdbStore.path": lambda world: world.directory / "third",
    "MixedStore.path": lambda world: world.directory / "fourth",
}
"""Where another one is needed."""


class Entry(NamedTuple):
    """A public function.

    Attributes:
        name: As users call it.
        parameters: The names of what it takes, each keyword of `**` by itself.
        required: Those of them without a default, and those that say how long to wait.
        on: What it is called on, to be made first; None for one that stands alone.
        function: The function.
        several: What it takes by `*`.
    """

    name: str
    parameters: tuple[str, ...]
    required: frozenset[str]
    on: Callable[[World], Any] | None
    function: Callable[..., Any]

    def good(self, world: World, name: str) -> Any:
        """A value for a parameter that there is nothing wrong with; None for an option."""
        make = GOOD_FOR.get(f"{self.name}.{name}") or GOOD.get(name)
        return None if make is None else make(world)


def entries() -> list[Entry]:
    """Every public function that takes anything.

    Raises:
        AssertionError: There is something public that this does not know how to call.
    """
    found = []
    for name in jobq.__all__:
        thing = getattr(jobq, name)
        if name in RESULTS or name in APART or (isinstance(thing, type) and _is_error(thing)):
            continue
        if not isinstance(thing, type):
            found.append(entry_of(name, thing, None))
        else:
            assert thing in {*CALLED, *MADE}, f"{name} is public: say in surface.py what it is"
    found += [entry_of(kind.__name__, kind, None) for kind in MADE]
    for kind in CALLED:
        for name, member in inspect.getmembers(kind, inspect.isfunction):
            whole = f"{kind.__name__}.{name}"
            if not name.startswith("_") and whole not in APART:
                found.append(entry_of(whole, member, SUBJECTS[kind]))
    found.append(entry_of("JobOptions.of", JobOptions.of, None))
    found.append(entry_of("Pattern.matches", Pattern.matches, lambda _: Pattern("mail*")))
    return [one for one in found if one.parameters]


def _is_error(thing: type) -> bool:
    return issubclass(thing, BaseException)


def entry_of(
    name: str, function: Callable[..., Any], on: Callable[[World], Any] | None = None
) -> Entry:
    """The entry of a function.

    Raises:
        AssertionError: It has a parameter of which nobody has said what is good for it.
    """
    parameters: dict[str, bool] = {}
    for parameter in list(inspect.signature(function).parameters.values())[on is not None :]:
        if parameter.kind is inspect.Parameter.VAR_KEYWORD:
            assert parameter.name in KEYWORDS, f"{name}: say in KEYWORDS what **{parameter.name} is"
            parameters.update(dict.fromkeys(KEYWORDS[parameter.name].__annotations__, False))
        else:
            assert parameter.kind is not inspect.Parameter.VAR_POSITIONAL, name
            known = parameter.name in GOOD or f"{name}.{parameter.name}" in GOOD_FOR
            assert known, f"{name}: say in GOOD what is good for {parameter.name}"
            needed = parameter.default is inspect.Parameter.empty or parameter.name in WAITS
            parameters[parameter.name] = needed
    required = frozenset(one for one, needed in parameters.items() if needed)
    return Entry(name, tuple(parameters), required, on, function)


def _batch(world: World) -> Batch:
    return world.service.batch().__enter__()


def _abatch(world: World) -> AsyncBatch:
    batch = world.service.abatch()
    with contextlib.suppress(StopIteration):  # it waits for nothing
        batch.__aenter__().send(None)
    return batch


SUBJECTS: Final[Mapping[type, Callable[[World], Any]]] = {
    JobService: lambda world: world.service,
    Job: World.job,
    Batch: _batch,
    AsyncBatch: _abatch,
    Selection: lambda world: world.service.select(topic="mail"),
}


def call(entry: Entry, world: World, subject: Any, arguments: dict[str, Any]) -> object:
    """Call it, and use up what it gives: loops are run, contexts entered, coroutines awaited."""
    given = {name: bounded(name, value, world) for name, value in arguments.items()}
    on = () if entry.on is None else (subject,)
    return _used(entry.function(*on, **given), world)


def bounded(name: str, value: Any, world: World) -> Any:
    """*value*, unless it is good and would make the call last, or reach out of the directory."""
    number = _number(value)
    if name in WAITS and (value is None or number > LONGEST_WAIT_S):
        return value if number > 10**12 else LONGEST_WAIT_S
    if name == "rate" and 0 < number < LEAST_RATE:
        return LEAST_RATE
    if name in CALLBACKS and callable(value):
        return _CallersOwn(value)
    if name in PATHS and isinstance(value, str) and type(value) is str and len(value) > 1:
        return value if value == ":memory:" or "://" in value else f"{world.directory}/{value}"
    return value


class _CallersOwn:
    """A function whose errors are the caller's, whatever they are."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function

    def __call__(self, *args: Any) -> Any:
        try:
            return self._function(*args)
        except Exception as error:
            raise Mischief from error


def _number(value: Any) -> float:
    """What a number is worth, whatever it says itself; NaN for all else."""
    if issubclass(type(value), int):
        return float(max(-(2**80), min(int.__index__(value), 2**80)))
    return float.__float__(value) if issubclass(type(value), float) else math.nan


def _used(result: Any, world: World) -> object:
    if inspect.iscoroutine(result):
        return _used(world.runner.run(result), world)
    if isinstance(result, JobService | Store):
        result.close()
    elif isinstance(result, Batch):
        with result:
            result.enqueue("mail")
    elif isinstance(result, AsyncBatch):
        world.runner.run(_one_in(result))
    elif isinstance(result, AsyncIterator):
        world.runner.run(_some_of(result))
    elif isinstance(result, Iterator):
        for _ in zip(range(3), result, strict=False):
            pass
        result.close()  # type: ignore[attr-defined] # all of them are generators
    elif isinstance(result, AbstractContextManager) and not isinstance(result, Job | JobService):
        with result:
            pass
    return result


async def _one_in(batch: AsyncBatch) -> None:
    async with batch:
        batch.enqueue("mail")


async def _some_of(found: Any) -> None:
    try:
        for _ in range(3):
            await anext(found)
    except StopAsyncIteration:
        pass
    finally:
        await found.aclose()
