"""What crash tests share: children, a directory for a queue, a seed, and a way to say figures."""

import os
import random
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.crash.processes import Start


@pytest.fixture
def start() -> Iterator[Start]:
    """Starts processes; they are killed and reaped at the end of the test, however it ends."""
    start = Start()
    yield start
    start.discard_all()


@pytest.fixture
def path(tmp_path: Path) -> str:
    """Where the test's queue is to be."""
    return str(tmp_path / "queue")


Say = Callable[[str], None]


@pytest.fixture
def say(request: pytest.FixtureRequest, capsys: pytest.CaptureFixture[str]) -> Say:
    """Prints the figures of a test: at once in the long runs, else with what pytest captures."""
    loud = request.node.get_closest_marker("storm") is not None

    def say(text: str) -> None:
        if loud:
            with capsys.disabled():
                print(f"\n{text}", end="", flush=True)
        else:
            print(text)

    return say


@pytest.fixture
def seed(say: Say) -> int:
    """The number that all chance in the test comes from; JOBQ_SEED repeats a run."""
    seed = int(os.environ.get("JOBQ_SEED") or random.randrange(2**32))
    say(f"JOBQ_SEED={seed}")
    return seed
