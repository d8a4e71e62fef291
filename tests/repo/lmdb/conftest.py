"""What the tests of the LMDB adapter share: children, small disks, bells, and raw LMDB."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from jobq.repo.lmdb.bell import Bell
from tests.crash.conftest import say, seed
from tests.repo.lmdb.disks import may_mount
from tests.repo.lmdb.processes import CANNOT, Child

__all__ = ["bell", "bell_path", "on_a_disk", "say", "seed", "start"]

Start = Callable[..., Child]


@pytest.fixture
def start() -> Iterator[Start]:
    """Starts children, which are killed at the end of the test if they still live."""
    children: list[Child] = []

    def start(work: Callable[..., object], *args: Any, **how: Any) -> Child:
        children.append(Child(work, *args, **how))
        return children[-1]

    yield start
    for child in children:
        child.discard()


@pytest.fixture
def bell_path(tmp_path: Path) -> Path:
    """Where the test's bell is."""
    return tmp_path / "bell"


@pytest.fixture
def bell(bell_path: Path) -> Bell:
    """A bell."""
    return Bell(bell_path)


@pytest.fixture
def on_a_disk(start: Start, tmp_path: Path) -> Callable[..., None]:
    """Runs a function in a child that may mount file systems which nobody else sees.

    The function gets a directory to mount on. They are gone with the child.
    """
    wrap = may_mount()
    if wrap is None:
        pytest.skip("nobody may mount a file system here: needs root or user namespaces")

    def run(work: Callable[..., object], *args: Any) -> None:
        directory = tmp_path / "disk"
        directory.mkdir(exist_ok=True)
        child = start(work, str(directory), *args, wrap=wrap)
        if (status := child.wait()) == CANNOT:
            pytest.skip("this kernel has no such file system")
        assert status == 0, f"the child ended with status {status}"

    return run
