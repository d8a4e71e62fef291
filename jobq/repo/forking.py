"""What stores do when their process forks: hold still, and start anew in the child."""

import os
import threading
import weakref
from typing import Protocol


class Forkable(Protocol):
    """Something that must not be forked in the middle of a change."""

    def before_fork(self) -> None:
        """Wait until no other thread is inside, and keep it so."""

    def after_fork_in_parent(self) -> None:
        """Go on."""

    def after_fork_in_child(self) -> None:
        """Start anew: the other threads are gone, and what they held with them."""


class _Watched:
    """Who is to be told of forks, in the order in which they asked.

    Held weakly, because the hooks of `register_at_fork` cannot be taken back. Stopped in order:
    who makes others (the registry of environments) comes before them, so while they are stopped
    no more are made.
    """

    def __init__(self) -> None:
        self.fork = threading.Lock()  # one fork at a time
        self.lock = threading.Lock()
        self.all: list[weakref.ref[Forkable]] = []
        self.stopped: list[Forkable] = []

    def running(self) -> list[Forkable]:
        """Those that live and are not stopped."""
        with self.lock:
            alive = self._alive()
        return [forkable for forkable in alive if forkable not in self.stopped]

    def _alive(self) -> list[Forkable]:
        self.all = [ref for ref in self.all if ref() is not None]
        return [forkable for ref in self.all if (forkable := ref()) is not None]


_watched = _Watched()


def watch(forkable: Forkable) -> None:
    """Let *forkable* know of every fork from now on, for as long as it lives."""
    with _watched.lock:
        _watched.all.append(weakref.ref(forkable))


def _before() -> None:
    _watched.fork.acquire()
    # Without `lock` while waiting: who is waited for may be about to watch another.
    while running := _watched.running():
        for forkable in running:
            forkable.before_fork()
            _watched.stopped.append(forkable)


def _after_in_parent() -> None:
    while _watched.stopped:
        _watched.stopped.pop().after_fork_in_parent()
    _watched.fork.release()


def _after_in_child() -> None:
    _watched.lock = threading.Lock()
    _watched.fork = threading.Lock()
    while _watched.stopped:
        _watched.stopped.pop().after_fork_in_child()


os.register_at_fork(
    before=_before, after_in_parent=_after_in_parent, after_in_child=_after_in_child
)
