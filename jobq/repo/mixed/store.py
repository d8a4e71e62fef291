"""The LMDB store with its topics in memory."""

from jobq.repo.base import Capabilities
from jobq.repo.lmdb import LmdbStore
from jobq.repo.mixed.topics import MemoryIndex


class MixedStore(LmdbStore):
    """Jobs in a directory, as durable as in `LmdbStore`; queues, agendas and counts in memory.

    A commit writes less, so it takes less; opening takes longer, since the topics are rebuilt from
    all the jobs. Only one process at a time can have the queue open, and its forks cannot use it.
    Arguments and errors are those of `LmdbStore`.

    Raises:
        StoreLocked: Another process has the queue open.
    """

    capabilities = Capabilities(durable=True, shared=False)
    _index = MemoryIndex
