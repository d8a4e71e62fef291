"""One call at a time on one thread: what a signal handler must not do in the middle of a call."""

import threading

from jobq.errors import ReentrantCall


class Entry(threading.local):
    """Whether this thread is inside a call of the store.

    A signal handler or a finaliser runs on a thread in the middle of whatever that thread was
    doing. If that was a call of the store, the handler's own call could wait for a lock that only
    the interrupted call will release. It is refused instead. The mark is per thread and set
    before the first lock is touched, so there is no moment in which the two can meet.
    """

    inside = False

    def enter(self) -> None:
        """Mark this thread as inside; `leave` must follow.

        Raises:
            ReentrantCall: It is inside already.
        """
        if self.inside:
            raise ReentrantCall(
                "this thread is in the middle of a call of the same store: a signal handler or "
                "finaliser cannot make another; set a flag there and act on it later"
            )
        self.inside = True

    def leave(self) -> None:
        """Unmark this thread."""
        self.inside = False
