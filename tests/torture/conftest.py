"""What torture shares with the crash tests, and where it cannot be had."""

import pytest

from tests.crash.conftest import path, quick_path, say, seed, start
from tests.torture.calls import why_not

__all__ = ["pytest_collection_modifyitems", "path", "quick_path", "say", "seed", "start"]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Leave out what needs a record of LMDB's calls, where those cannot be diverted."""
    reason = why_not()
    for item in items:
        if reason and item.path.name.startswith("test_power"):
            item.add_marker(pytest.mark.skip(reason=reason))
