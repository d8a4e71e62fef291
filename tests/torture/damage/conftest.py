"""What the tests of damage share: children, as those of the LMDB adapter."""

from tests.repo.lmdb.conftest import start

__all__ = ["start"]
