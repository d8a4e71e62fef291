"""One call at a time on one thread: what a signal handler must not do in the middle of a call."""

import threading
import weakref

from jobq.errors import ReentrantCall


class Mark:
    """Stands for one call, for as long as the call's frame holds it."""

    __slots__ = ("__weakref__",)


class Entry(threading.local):
    """Whether this thread is inside a call of the store.

    A signal handler or a finaliser runs on a thread in the middle of whatever that thread was
    doing. If that was a call of the store, the handler's own call could wait for a lock that only
    the interrupted call will release. It is refused instead. The mark is per thread and set
    before the first lock is touched, so there is no moment in which the two can meet.

    The mark lives in the frame of the call and is only referred to from here. So even if an
    interrupt comes between two steps of setting or clearing it, it is gone with its call.
    """

    _mark: "weakref.ref[Mark] | None" = None

    @property
    def mark(self) -> "weakref.ref[Mark] | None":
        """The call under way, to ask later whether it still is."""
        return self._mark

    @property
    def inside(self) -> bool:
        """Whether a call of this thread is under way."""
        return self._mark is not None and self._mark() is not None

    def enter(self, mark: Mark) -> None:
        """Begin a call; `leave` must follow.

        Raises:
            ReentrantCall: One is under way on this thread.
        """
        if self.inside:
            raise ReentrantCall(
                "this thread is in the middle of a call of the same store: a signal handler or "
                "finaliser cannot make another; set a flag there and act on it later"
            )
        self._mark = weakref.ref(mark)

    def leave(self) -> None:
        """End the call; may be repeated."""
        self._mark = None
