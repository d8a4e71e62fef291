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


_watched: "weakref.WeakSet[Forkable]" = weakref.WeakSet()
_stopped: list[Forkable] = []
_lock = threading.Lock()


def watch(forkable: Forkable) -> None:
    """Let *forkable* know of every fork from now on, for as long as it lives."""
    with _lock:
        _watched.add(forkable)


def _before() -> None:
    _lock.acquire()
    # Weak references, because the hooks of `register_at_fork` cannot be taken back.
    for forkable in list(_watched):
        forkable.before_fork()
        _stopped.append(forkable)


def _after_in_parent() -> None:
    while _stopped:
        _stopped.pop().after_fork_in_parent()
    _lock.release()


def _after_in_child() -> None:
    while _stopped:
        _stopped.pop().after_fork_in_child()
    _lock.release()


os.register_at_fork(
    before=_before, after_in_parent=_after_in_parent, after_in_child=_after_in_child
)
