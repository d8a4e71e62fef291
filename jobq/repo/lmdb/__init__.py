"""The durable store: jobs in an LMDB file, for any number of processes of one machine."""

from jobq.repo.lmdb.store import LmdbStore

__all__ = ["LmdbStore"]
