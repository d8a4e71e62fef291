"""The open environments of this process: one for each file."""

import os
import threading
from pathlib import Path
from typing import Final

from jobq.errors import InvalidValue, StoreLocked
from jobq.repo import forking
from jobq.repo.lmdb import files
from jobq.repo.lmdb.environment import Environment
from jobq.repo.lmdb.opening import Settings


class Registry:
    """The environments by the file they have open.

    LMDB must not open a file twice in one process: closing either would drop the locks of both.
    Whoever opens a queue again, by whatever name, shares the environment.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._open: dict[tuple[int, int], Environment] = {}
        forking.watch(self)

    def get(self, path: Path, settings: Settings) -> Environment:
        """The environment of the directory; `give_back` must follow.

        Raises:
            InvalidValue: It is open already, with other settings.
            StoreLocked: It is open already, and keeps its topics elsewhere.
            JobqError: It cannot be opened.
        """
        with self._lock:
            env = self._find(path)
            if env is None:
                env = Environment(path, settings)
                self._open[files.identity(path).data] = env
            else:
                _refuse_other(env, settings)
            env.users += 1
            return env

    def give_back(self, env: Environment) -> None:
        """One user less; the last one closes it."""
        with self._lock:
            env.users -= 1
            if env.users == 0:
                self._forget(env)
                env.close()

    def _forget(self, env: Environment) -> None:
        self._open = {key: other for key, other in self._open.items() if other is not env}

    def _find(self, path: Path) -> Environment | None:
        try:
            data = os.stat(path / files.DATA)
        except OSError:
            return None
        files.refuse_links(path, data)
        env = self._open.get((data.st_dev, data.st_ino))
        # One whose lock file was replaced has closed its file: it is of no use to anybody.
        return None if env is None or env.broken else env

    def before_fork(self) -> None:
        """Wait until nobody opens or closes."""
        self._lock.acquire()

    def after_fork_in_parent(self) -> None:
        """Go on."""
        self._lock.release()

    def after_fork_in_child(self) -> None:
        """Go on: the child's environments open their files anew."""
        self._lock.release()


def _refuse_other(env: Environment, settings: Settings) -> None:
    if env.settings.index is not settings.index:
        have, want = (one.index.kind if one.index else "lmdb" for one in (env.settings, settings))
        raise StoreLocked(
            f"{env.path} is open in this process with its topics in {have}: close that before it "
            f"is opened with its topics in {want}"
        )
    for name in ("durability", "max_size"):
        have, want = getattr(env.settings, name), getattr(settings, name)
        if have != want:
            raise InvalidValue(
                f"{env.path} is open in this process with {name} {have!r}: cannot open it again "
                f"with {want!r}"
            )
    if env.settings.clock is not settings.clock:
        raise InvalidValue(f"{env.path} is open in this process with another clock")


REGISTRY: Final = Registry()
