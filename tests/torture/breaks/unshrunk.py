"""A plugin of pytest: a story that fails is not made shorter, where only that it fails counts."""

import pytest

from tests.model import telling


def pytest_configure(config: pytest.Config) -> None:  # noqa: ARG001 - what pytest calls
    vars(telling)["SHRINKING_S"] = 0
