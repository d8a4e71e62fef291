"""Hostile arguments to every public function: an error of jobq's own, and nothing has changed.

What an argument raises by itself when it is looked at (a generator that breaks off, a `__fspath__`
that fails) is the caller's own, and comes through as it is; then, too, nothing has changed.
"""

import asyncio
import itertools
import json
import random
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from jobq import JobService, Pattern
from jobq.errors import JobqError
from tests.conftest import STORES, Kind
from tests.crash.conftest import Say
from tests.torture.input.decoders import json_noise
from tests.torture.input.mischief import FIXED, SEVERAL, Given, Mischief, hostile, told
from tests.torture.input.surface import PATHS, Entry, World, call, entries, entry_of

ENTRIES = entries()
SLOW = frozenset(
    {"backup", "JobService.backup", "JobService.abackup", "compact", "restore", "doctor"}
)
"""What starts a process: looked at less often."""

LONGEST_MESSAGE = 1000
LONGEST_WITH_A_PATH = 3 * 4096
MAY_TIME_OUT = frozenset({"JobService.wait", "JobService.await_job"})
DRAINS = frozenset({"JobService.drain", "JobService.adrain"})
MAY_BE_TYPE_ERROR = frozenset({"Pattern.matches"})
AT_ONCE = 40
"""Calls that were let through, after which a queue is put away and another one made."""


class Attempts:
    """Calls with hostile arguments, on one queue after another.

    Attributes:
        outcomes: How many calls came to what.
        longest: How long the message of the last error is.
    """

    def __init__(self, kind: Kind, directory: Path) -> None:
        self.outcomes: Counter[str] = Counter()
        self.longest = 0
        self._kind = kind
        self._directory = directory
        self._runner = asyncio.Runner()
        self._world: World | None = None
        self._numbers = itertools.count()
        self._let_through = 0

    def attempt(self, entry: Entry, wrong: dict[str, Any]) -> None:
        """Call it with these arguments, and good ones where it needs more, and judge it."""
        world = self._in_order()
        needed = entry.required - wrong.keys()
        arguments = {name: entry.good(world, name) for name in needed} | wrong
        subject = None if entry.on is None else entry.on(world)
        before = world.facts()
        outcome = self._called(entry, world, subject, arguments)
        self.outcomes[outcome] += 1
        assert self.longest <= (LONGEST_WITH_A_PATH if PATHS & wrong.keys() else LONGEST_MESSAGE)
        self.longest = 0
        if entry.name in DRAINS:
            world.service.resume()  # or it takes no jobs any more
        if outcome == "done":
            self._let_through += 1
        else:
            assert world.facts() == before, f"refused ({outcome}), but something has changed"
        still_works(world)

    def _called(self, entry: Entry, world: World, subject: Any, arguments: dict[str, Any]) -> str:
        try:
            call(entry, world, subject, arguments)
        except Mischief:
            return "mischief"
        except JobqError as error:
            self.longest = max(self.longest, len(str(error)))
            return type(error).__name__
        except TimeoutError:
            assert entry.name in MAY_TIME_OUT
            return "TimeoutError"
        except TypeError:
            if entry.name not in MAY_BE_TYPE_ERROR:
                raise
            return "TypeError"
        return "done"

    def _in_order(self) -> World:
        if self._world is not None and self._let_through >= AT_ONCE:
            self.end()
        if self._world is None:
            place = self._directory / "a" / "b" / str(next(self._numbers))
            self._world = World(self._kind, place, self._runner)
            self._let_through = 0
        return self._world

    def end(self) -> None:
        """Check the queue that was worked on, and put it away."""
        world, self._world = self._world, None
        if world is not None:
            assert world.service.check().problems == ()
            world.close()

    def close(self) -> None:
        self._world = None
        self._runner.close()


def still_works(world: World) -> None:
    """A job goes in and comes out, whatever was said to the service before, `pause` among it."""
    world.service.resume()
    job_id = world.service.enqueue("works", 1, retention=0)
    (job,) = world.service.reserve("works", timeout=0)
    assert (job.id, job.payload) == (job_id, 1)
    job.done()


@pytest.fixture(params=STORES, ids=repr)
def attempts(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Attempts]:
    """Calls on queues of every kind."""
    monkeypatch.chdir(tmp_path)  # some of the values are paths
    attempts = Attempts(request.param, tmp_path)
    yield attempts
    attempts.close()


def wrong_arguments(data: st.DataObject, entry: Entry) -> dict[str, Given]:
    names = data.draw(
        st.lists(st.sampled_from(entry.parameters), min_size=1, max_size=3, unique=True)
    )
    return {name: data.draw(hostile, label=name) for name in names}


def hypothetical(attempts: Attempts, examples: int, among: list[Entry]) -> None:
    """Try what hypothesis comes up with."""

    @settings(
        max_examples=examples,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
        # A queue is used for many examples: what fails may not fail again on another one.
        phases=[Phase.generate],
    )
    @given(st.data(), st.integers(0, len(among) - 1))
    def attempt(data: st.DataObject, at: int) -> None:
        entry = among[at]
        wrong = wrong_arguments(data, entry)
        one(attempts, entry, {name: given.value for name, given in wrong.items()})

    attempt()
    attempts.end()


def one(attempts: Attempts, entry: Entry, wrong: dict[str, Any]) -> None:
    """An attempt that tells what it was, if it fails."""
    try:
        attempts.attempt(entry, wrong)
    except BaseException as error:
        shown = ", ".join(f"{name} = {told(value)}" for name, value in wrong.items())
        raise AssertionError(f"{entry.name} with {shown}") from error


def test_hostile_arguments_are_refused_with_an_error_of_jobqs_own(attempts: Attempts) -> None:
    hypothetical(attempts, 120, [one for one in ENTRIES if one.name not in SLOW])

    assert attempts.outcomes["InvalidValue"] > 30, attempts.outcomes


def test_a_parameter_that_is_not_known_here_is_noticed() -> None:
    def verb(what: int) -> None: ...

    with pytest.raises(AssertionError, match="say in GOOD what is good for what"):
        entry_of("JobService.verb", verb)


@pytest.mark.parametrize("rounds", [40, pytest.param(2_000, marks=pytest.mark.storm)])
def test_hostile_lines_of_an_import_leave_a_sound_queue(
    rounds: int, svc: JobService, seed: int
) -> None:
    chance = random.Random(seed)
    svc.enqueue("sound", "sound")
    for _ in range(rounds):
        line = json.loads(json_noise(chance))
        if chance.random() < 0.9:
            line["id"] = str(UUID(bytes=chance.randbytes(16)))
        last = chance.choice((0, 7, 2**32))
        head = {"kind": "queue", "version": 1, "last_place": last}
        with suppress(JobqError):
            svc.import_jobs([head, line, {"kind": "end", "jobs": 1}])

    assert svc.check().problems == ()
    records = [record.as_dict() for record in svc.find(limit=10_000)]
    exported = [json.dumps(line) for line in svc.export_jobs()]
    assert len(records) == sum('"kind": "job"' in line for line in exported) > 0
    for job in svc.reserve(Pattern("*"), 10_000, timeout=0):
        job.done()


@pytest.mark.storm
def test_hostile_arguments_are_refused_however_many(attempts: Attempts, say: Say) -> None:
    hypothetical(attempts, 2_000, [one for one in ENTRIES if one.name not in SLOW])

    say(f"{attempts.outcomes.total()} calls: {dict(attempts.outcomes)}")


@pytest.mark.storm
@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.name)
def test_hostile_values_in_every_place(
    entry: Entry, attempts: Attempts, seed: int, say: Say
) -> None:
    chance = random.Random(seed)
    makers: list[Callable[[], Any]] = [*SEVERAL, *(lambda value=value: value for value in FIXED)]
    for name in entry.parameters:
        for make in chance.sample(makers, 5 if entry.name in SLOW else 60):
            one(attempts, entry, {name: make()})
    attempts.end()

    say(f"{attempts.outcomes.total()} calls: {dict(attempts.outcomes)}")
