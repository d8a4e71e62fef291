"""What tests share: the stores under test, on clocks that only move when told to.

A store joins every test of the contract by one line in `STORES`.
"""

import faulthandler
import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final, NamedTuple

import pytest
from _pytest.faulthandler import fault_handler_stderr_fd_key
from hypothesis import HealthCheck, settings

from jobq import JobService
from jobq.clock import ManualClock
from jobq.errors import StoreUnavailable
from jobq.repo import watch
from jobq.repo.base import Capabilities, Store
from jobq.repo.lmdb import LmdbStore
from jobq.repo.memory import MemoryStore
from jobq.repo.mixed import MixedStore
from jobq.repo.operations import passing
from jobq.service import patience
from jobq.service.aio import ends, lines

DEADLINE_S = 60.0
"""How long a test waits for another thread or process before it fails: what takes longer hangs. A
busy machine must stay far below."""

LONG_S: Final = 30.0
"""Between two looks of who waits and is called by nobody, where a test has them sleep soundly."""

SOON_S: Final = LONG_S / 2
"""Whoever sleeps soundly and comes later than this has missed a call. No machine is so slow that
one who was called comes later."""

# What takes long says something of the machine, which may have much else to do.
settings.register_profile("patient", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("patient")

LONGEST_S = 3600.0
"""How long a test of the long runs may take: `faulthandler_timeout` is for the others. A part of
them has minutes of work to do, and on a busy machine a small share of a processor to do it with."""


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Let long runs be long: what ends a test that hangs ends all tests that follow as well."""
    stderr = item.config.stash.get(fault_handler_stderr_fd_key, None)
    if stderr is not None and item.get_closest_marker("storm"):
        faulthandler.dump_traceback_later(LONGEST_S, exit=True, file=stderr)


def pytest_configure(config: pytest.Config) -> None:
    """Let the processes of tests, which are thousands, find jobq compiled.

    Where Python may not write beside the sources, each of them would compile jobq anew: that takes
    longer than all else that most of them do.
    """
    if os.environ.pop("PYTHONDONTWRITEBYTECODE", ""):
        bytecode = config.rootpath / ".pytest_cache" / "bytecode"
        os.environ.setdefault("PYTHONPYCACHEPREFIX", str(bytecode))


def sleep_soundly(put: Callable[[Any, str, Any], None] = setattr) -> None:
    """Have all who wait in this process look by themselves each `LONG_S`, instead of each second.

    So a call that was missed is told apart from a busy machine. Children of a test call it
    themselves; a test has the fixture `sound_sleep`. (The loops of `JobService.reserve` and `wait`
    sleep for a second at most, as ever: where a call is to be told from that, tests wait by the
    store.)
    """
    for module in (watch, passing):  # the latter has a copy
        put(module, "LONGEST_SLEEP", LONG_S)
    for module in (patience, ends, lines):
        put(module, "LONGEST_SLEEP_S", LONG_S)


@pytest.fixture
def sound_sleep(monkeypatch: pytest.MonkeyPatch) -> None:
    """In this process, who waits sleeps until called."""
    sleep_soundly(monkeypatch.setattr)


class Kind(NamedTuple):
    """How to open one kind of store, in a directory of the test, and what it promises."""

    name: str
    open: Callable[..., Store]
    capabilities: Capabilities

    def __repr__(self) -> str:
        return self.name


STORES = (
    Kind("memory", lambda _, **settings: MemoryStore(**settings), MemoryStore.capabilities),
    # What a power cut leaves is not the contract's subject, so nothing here waits for the disk.
    Kind("lmdb", lambda path, **settings: LmdbStore(path, durability="unsafe", **settings),
         LmdbStore.capabilities),
    Kind("mixed", lambda path, **settings: MixedStore(path, durability="unsafe", **settings),
         MixedStore.capabilities),
)  # fmt: skip

DURABLE = tuple(kind for kind in STORES if kind.capabilities.durable)
SHARED = tuple(kind for kind in STORES if kind.capabilities.shared)


class Opener:
    """Opens stores of one kind for a test; its end checks and closes all that are still open.

    Every one of them works on the test's clock, unless it is given another.
    """

    def __init__(self, kind: Kind, directory: Path, clock: ManualClock) -> None:
        self.kind = kind
        self.directory = directory
        self.clock = clock
        self._open: list[Store] = []

    def __call__(self, name: str = "queue", **settings: Any) -> Store:
        """A store; a durable one is the same again under the same name."""
        store = self.kind.open(self.directory / name, **{"clock": self.clock, **settings})
        self._open.append(store)
        return store

    def close(self, store: Store) -> None:
        """Check and close one now."""
        self._open.remove(store)
        try:
            problems = store.check().problems
        except StoreUnavailable:  # the test closed it
            return
        store.close()
        assert problems == ()

    def close_all(self) -> None:
        """Check and close the rest."""
        for store in list(self._open):
            self.close(store)


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


def _opener(kind: Kind, tmp_path: Path, clock: ManualClock) -> Iterator[Opener]:
    opener = Opener(kind, tmp_path, clock)
    yield opener
    opener.close_all()


@pytest.fixture(params=STORES, ids=repr)
def opener(request: pytest.FixtureRequest, tmp_path: Path, clock: ManualClock) -> Iterator[Opener]:
    """Opens stores of every kind."""
    yield from _opener(request.param, tmp_path, clock)


@pytest.fixture(params=DURABLE, ids=repr)
def durable_opener(
    request: pytest.FixtureRequest, tmp_path: Path, clock: ManualClock
) -> Iterator[Opener]:
    """Opens stores of the kinds whose jobs outlive the process."""
    yield from _opener(request.param, tmp_path, clock)


@pytest.fixture(params=SHARED, ids=repr)
def shared_opener(
    request: pytest.FixtureRequest, tmp_path: Path, clock: ManualClock
) -> Iterator[Opener]:
    """Opens stores of the kinds that several processes may have open."""
    yield from _opener(request.param, tmp_path, clock)


@pytest.fixture
def store(opener: Opener) -> Store:
    """An empty store of every kind; clean at the end of the test."""
    return opener()


@pytest.fixture
def svc(store: Store) -> Iterator[JobService]:
    """A service over an empty store of every kind; clean at the end of the test, then closed."""
    with JobService(store) as svc:
        yield svc
        if not svc.stopped:
            assert svc.check().problems == ()


def eventually(fact: Callable[[], object], timeout: float = DEADLINE_S) -> None:
    """Wait until *fact* holds; for what another thread or process does in its own time."""
    end = time.monotonic() + timeout
    while not fact():
        assert time.monotonic() < end, f"it did not come about in {timeout:g} s"
        time.sleep(0.002)


class Crew:
    """Threads of a test: `start` them, and `join` raises what one of them raised."""

    def __init__(self) -> None:
        self._threads: list[threading.Thread] = []
        self._errors: list[BaseException] = []

    def start(self, work: Callable[..., object], *args: object) -> threading.Thread:
        """Run *work* in a thread."""

        def run() -> None:
            try:
                work(*args)
            except BaseException as error:  # noqa: BLE001 - handed to the test by `join`
                self._errors.append(error)

        thread = threading.Thread(target=run, daemon=True)
        self._threads.append(thread)
        thread.start()
        return thread

    def join(self, timeout: float = DEADLINE_S) -> None:
        """Wait for all of them; *timeout* is for each, or `SOON_S` where none may miss a call."""
        for thread in self._threads:
            thread.join(timeout)
            assert not thread.is_alive(), f"a thread does not end in {timeout:g} s"
        for error in self._errors:
            raise error


@pytest.fixture
def crew() -> Iterator[Crew]:
    """Threads that are waited for at the end of the test."""
    crew = Crew()
    yield crew
    crew.join()
