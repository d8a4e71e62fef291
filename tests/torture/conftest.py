"""What torture shares with the crash tests, and where it cannot be had."""

from functools import cache

import pytest

from tests.crash.conftest import path, quick_path, say, seed, start
from tests.crash.processes import Child, Pipe
from tests.torture.calls import why_not
from tests.torture.processes.namespaces import Place, within

__all__ = ["path", "pytest_collection_modifyitems", "quick_path", "say", "seed", "start"]

DIVERTED = ("test_power", "test_io.py", "test_io_power")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Leave out what needs a record of LMDB's calls, where those cannot be diverted."""
    reason = why_not()
    for item in items:
        if reason and item.path.name.startswith(DIVERTED):
            item.add_marker(pytest.mark.skip(reason=reason))


@pytest.fixture
def places() -> None:
    """Skips the test where nobody may make places of their own for processes."""
    if refusal := _cannot_be_made():
        pytest.skip(f"needs root, and time and PID namespaces and mounts of its own: {refusal}")


@cache
def _cannot_be_made() -> str:
    child = Child(within, Place(ahead=(100,), pid=7), _is_there)
    try:
        child.hear()
    except AssertionError as error:
        return str(error).strip().splitlines()[-1]
    finally:
        child.discard()
    return ""


def _is_there(pipe: Pipe) -> None:
    pipe.send("here")
