"""What torture shares with the crash tests, and where it cannot be had."""

import pytest

from tests.crash.conftest import path, quick_path, say, seed, start
from tests.torture.calls import why_not

__all__ = ["path", "pytest_collection_modifyitems", "quick_path", "say", "seed", "start"]


DIVERTED = ("test_power", "test_io.py", "test_io_power")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Leave out what needs a record of LMDB's calls, where those cannot be diverted."""
    reason = why_not()
    for item in items:
        if reason and item.path.name.startswith(DIVERTED):
            item.add_marker(pytest.mark.skip(reason=reason))
