"""What crash tests share: children, a directory for a queue, a seed, and a way to say figures."""

import os
import random
import shutil
import sys
import tempfile
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


_MEMORY = Path("/dev/shm")
_ROOM = 100 * 2**20


@pytest.fixture
def quick_path(tmp_path: Path, start: Start) -> Iterator[Path]:
    """A directory of files in memory, if this machine has room for them; else on its disk.

    What a killed process has written is there on both alike. Only who makes thousands of queues to
    kill somebody in them would wait for the disk most of the time.
    """
    if os.access(_MEMORY, os.W_OK) and shutil.disk_usage(_MEMORY).free > _ROOM:
        with tempfile.TemporaryDirectory(prefix="jobq-", dir=_MEMORY) as directory:
            yield Path(directory)
            start.discard_all()  # nobody may write there while it is cleared away
    else:
        yield tmp_path


Say = Callable[[str], None]


@pytest.fixture
def say(request: pytest.FixtureRequest, capsys: pytest.CaptureFixture[str]) -> Say:
    """Prints the figures of a test: at once in the long runs, else with what pytest captures.

    Where several tests run at once, whose figures they are stands before them; and they go to
    stderr, since nobody sees the stdout of pytest's workers.
    """
    loud = request.node.get_closest_marker("storm") is not None
    one_of_several = "PYTEST_XDIST_WORKER" in os.environ

    def say(text: str) -> None:
        if loud:
            with capsys.disabled():
                if one_of_several:
                    print(f"\n{request.node.name}: {text}", end="", file=sys.stderr, flush=True)
                else:
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
