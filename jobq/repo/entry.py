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
    interrupt comes between setting it and the call's `try`, it is gone with its call. It is
    cleared by an assignment, `entry.mark = None`: between two of those no handler runs.

    Attributes:
        mark: The call under way; also to ask later whether it still is.
    """

    mark: "weakref.ref[Mark] | None" = None

    @property
    def inside(self) -> bool:
        """Whether a call of this thread is under way."""
        return self.mark is not None and self.mark() is not None

    def enter(self, mark: Mark) -> None:
        """Begin a call; at its end `mark` has to be set to None.

        Raises:
            ReentrantCall: One is under way on this thread.
        """
        if self.inside:
            raise ReentrantCall(
                "this thread is in the middle of a call of the same store: a signal handler or "
                "finaliser cannot make another; set a flag there and act on it later"
            )
        self.mark = weakref.ref(mark)
