"""The mixed store: durable jobs with topics in memory, for one process at a time."""

from jobq.repo.mixed.store import MixedStore

__all__ = ["MixedStore"]
