"""The verbs that keep a whole queue in order: check, prune, purge; and take it elsewhere."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from os import PathLike
from typing import TYPE_CHECKING, Any, Final, cast

from jobq.errors import InvalidValue, shown
from jobq.options import check_path, flag
from jobq.repo.base import CheckReport, Copied, CopyProgress, Store
from jobq.service import transfer
from jobq.service.filters import one_of
from jobq.states import Status
from jobq.topic import check_name

if TYPE_CHECKING:
    from jobq.service.service import JobService

PRUNE_STEP: Final = 1_000

PURGE_STEP: Final = 1_000

WAITING: Final = frozenset({Status.READY, Status.DELAYED})


class UpkeepVerbs:
    """The verbs of `JobService` on all that there is, or on all jobs of a topic."""

    def check(self, *, repair: bool = False) -> CheckReport:
        """Compare every job with every index and counter; `.ok` if all is well.

        Reads the whole store. Damage is reported, not raised.

        Args:
            repair: If anything is wrong, make all queues, due times and counts anew out of the
                jobs, in one commit; other processes wait that long. `.repaired` says what was
                wrong. Jobs themselves are neither changed nor removed: one that cannot be read
                no longer stands in the way of the others, and is reported again at every check.

        Raises:
            InvalidValue: *repair* is not a bool.
            StoreFull: There is no room to repair; nothing was written.
        """
        return self._store.check(repair=flag("repair", repair))

    def prune(self) -> int:
        """Forget all finished jobs whose retention is over, in small steps; give how many.

        Topics that are not listed any more are cleared away too.

        Not needed for a busy queue: every finishing prunes a few.
        """
        total = 0
        while (pruned := self._store.prune(PRUNE_STEP)) > 0:
            total += pruned
        return total

    # To another place, another queue, or another format.

    def backup(
        self,
        path: str | PathLike[str],
        progress: Callable[[CopyProgress], object] | None = None,
    ) -> Copied:
        """Copy the whole queue, as it is at one moment, to a new file, while it is in use.

        The file appears under its name once it is whole, on the disk, and verified: all its pages
        and every record by its checksum. Whatever interrupts a backup, it leaves no such file.
        `jobq.restore` makes a queue of it. A process of its own does the work, so the threads of
        this one go on. As long as it copies, space that others free cannot be used again, so the
        file of a busy queue grows meanwhile.

        Args:
            path: The file; in a directory that is there, on any file system.
            progress: Called about ten times a second with how far it is; what it raises ends the
                backup.

        Raises:
            InvalidValue: There is something at *path* already; or the jobs are volatile.
            StoreCorrupt: The queue is damaged; `jobq doctor` says more.
            StoreFull: No room for the copy.
            StoreUnavailable: It cannot be read or written.
        """
        name = check_path("path", path)
        if progress is not None and not callable(progress):
            raise InvalidValue(f"progress is {shown(progress)}: expected a function")
        return self._store.backup(name, progress)

    def export_jobs(self) -> Iterator[dict[str, Any]]:
        """All jobs with all that is known of them, as dicts that JSON can hold, one after another.

        For a file of JSON Lines, and from there into any queue of any later jobq: see
        `import_jobs`. The first dict is a head, the last one says how many jobs there were. The
        queue may be in use meanwhile: each job comes once at most, as it is when its turn comes.

        Raises:
            StoreCorrupt: A job is damaged.
        """
        return transfer.export_jobs(self._store)

    def import_jobs(self, lines: Iterable[Mapping[str, Any]]) -> transfer.Imported:
        """Add the jobs that `export_jobs` gave, with their ids, states, results and history.

        They keep their order, behind the jobs that are there. What was reserved is ready: its
        holder does not hold it here. A job whose id is there already is skipped and counted, so
        an import that broke off can be repeated. In commits of 500 jobs. Settings of topics come
        along where the topic has none here.

        Args:
            lines: Dicts, as `json.loads` makes them of each line.

        Raises:
            InvalidValue: A line is wrong (the message names its number), or the end is missing;
                the jobs before it are imported.
            StoreFull: No room for more.
        """
        return transfer.import_jobs(self._store, lines)

    def purge(self, topic: str, status: Status | str | None = None) -> int:
        """Forget the jobs of a topic that wait, ready and delayed ones; give how many.

        In steps of at most 1 000 jobs, a commit each, so others go on meanwhile. Jobs that come to
        the topic meanwhile stay, and so does the topic. Ready jobs are found at once; for any
        other status the jobs of all topics are walked through.

        Args:
            topic: The topic's name; there is nothing to do for one that does not exist.
            status: Forget those in this state instead. Not `reserved`: cancel these first.

        Raises:
            InvalidValue: An argument is wrong; nothing was forgotten.
        """
        name = check_name(topic)
        statuses = WAITING if status is None else frozenset({one_of(Status, "status", status)})
        if Status.RESERVED in statuses:
            raise InvalidValue(
                "status is 'reserved': expected one of ready, delayed, done, canceled; what "
                "somebody holds has to be canceled first"
            )
        total, after = self._store.purge(name, statuses, None, PURGE_STEP)
        while after is not None:
            count, after = self._store.purge(name, statuses, after, PURGE_STEP)
            total += count
        return total

    @property
    def _store(self) -> Store:
        return cast("JobService", self).store
