"""The volatile store: jobs live in this process and end with it. For tests and for scratch."""

from jobq.repo.memory.store import MemoryStore

__all__ = ["MemoryStore"]
