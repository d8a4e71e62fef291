"""Waking waiters in any process, with a futex in a small shared file.

The file is five pages. The first is an array of counters, one for each topic (by number; number
0 stands for topics that do not exist yet). A commit that makes jobs of a topic ready raises its
counter and calls FUTEX_WAKE; a waiter reads the counter, looks whether there is a job, and calls
FUTEX_WAIT with the value it read: the kernel lets it sleep only if the counter is still the same,
so no wake-up can be missed. It costs nothing when nobody waits, wakes as many as there are jobs,
needs no registration, and a killed waiter leaves no trace.

The second page has counters for the ends of jobs: a job has one of 1 023 *slots*, by the end of
its id. Nearly every commit ends jobs, and hardly any of them is waited for; so the third page has
a flag for each slot, "somebody waits", and a commit that finds none raises nothing and calls
nobody. The order of steps is what matters:

- who waits reads the counter, then sets the flag, then looks at the job, then sleeps on the
  counter that it read;
- who commits clears the flag, then raises the counter, and when the locks are given back wakes
  all who sleep at the slot.

So whoever finds the flag that another has set loses nothing when it is cleared for that other:
the counter has been raised too, and it looks again and asks again. If the counter were read after
setting the flag, the flag could be cleared and the counter raised between the two: then nobody
would be called for the job. A waiter that is gone leaves its flag behind, which costs a later
commit one call to nobody. A committer that is killed between clearing and raising would leave
waiters without a flag: each sees to it, before every sleep, that it is still set (and looks at
its job once a second anyway).

Between setting a flag and looking at the job, and between the commit and reading the flags, lie
locks and system calls: processors do not reorder the two sides of these.

Slot 0 is no job's: who waits for several jobs sleeps there, and every call to a slot calls there
too.

Who waits for several topics sleeps at the counters of all of them at once (and at that of topics
that do not exist yet, if one of those may be waited for). It notes all counters, a copy of the
first page, then looks for jobs, then sleeps if the counters of its topics are as noted. So a job
wakes one waiter here too, and no job of another topic does. But one thread may be called at
several counters before it gets up, for one job each, and then takes only one of them; or it is
called for a job of one topic, and takes one of another. Nobody else would be called for what is
left. So whoever was called looks, in the commit in which it takes jobs, whether there are more of
the topics whose counters had moved, and wakes one more for each of these (`LmdbStore.reserve`).
One that is killed in between leaves the others to look by themselves, within a second.

The kernel cannot always do that: not before Linux 5.16, not in every sandbox, and for no more than
128 counters. Behind the flags of slots the third page has one more counter and one more flag for
all who wait for several topics then:

- who waits notes all topics' counters, then looks for jobs, then reads the one counter, sets the
  flag, sees that the counters of its own topics are still as noted, and sleeps on the one counter;
  woken, it does the same from the reading on, and does not look for jobs as long as the counters
  of its own topics have not moved;
- who commits raises the counters of topics, calls who waits for these, then finds the flag set,
  clears it, changes the one counter and calls all who sleep there.

So either the waiter sees the topic's counter raised, or the committer sees the flag set. Each has
a futex call between its two sides, which makes processors keep their order too. That is when the
locks have been given back, and a committer that is held up may write to the one counter long after
it has read it. So this one is not counted up, or it might have an old value again that a waiter is
about to sleep on: each time it gets a random one.

Only the holder of the write lock raises a counter for a commit, so none is lost.

Behind all these stands one more flag, which wakes nobody: `doubt`. This file is the one thing that
processes share without a disk, and what a failed sync leaves in doubt has to be known to all.

Behind that are two lines for the locks of `filelock`, a counter and a flag each. Who waits for a
lock reads the counter, sets the flag, tries the lock once more, and sleeps on the counter; who has
given it back finds the flag set, clears it, changes the counter (to a random one, for the reason
above) and calls one. So either the waiter finds the lock free, or the other finds the flag. It was
set for all who stand there: so whoever gets up, for whatever reason, sets it again before it does
anything else. If nobody stood behind, that costs one call to nobody.

Behind those is a counter for whoever waits, for jobs of whatever topic: `relieve` calls one of them
to look when something falls due, if nobody is to do so; see `jobq.repo.watch`. The last two pages
have a time for each topic, and for the store: until then somebody has the watch. At the end of the
third page stands until when there may be *loners*, who cannot sleep at several counters: they hear
no `relieve`, rely on nobody, and are called as the others were before there was a watch.
"""

import ctypes
import mmap
import os
import sys
import time
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Final

from jobq.repo.lmdb import futex
from jobq.repo.lmdb.beside import open_beside
from jobq.repo.lmdb.futex import EVERYBODY, Word
from jobq.repo.watch import STORE

PAGE: Final = 4096
COUNTERS: Final = PAGE // 4
SLOTS: Final = PAGE // 4
SIZE: Final = 5 * PAGE

ANY: Final = 0
"""The slot of those who wait for the end of several jobs."""

_FLAGS_AT: Final = 2 * PAGE
_SEVERAL: Final = COUNTERS + SLOTS + SLOTS // 4
"""The place of the counter of those who wait for several topics; behind it is their flag."""
_SEVERAL_FLAG_AT: Final = 4 * (_SEVERAL + 1)
_DOUBT_AT: Final = _SEVERAL_FLAG_AT + 4
_LINES: Final = _SEVERAL + 3
_LINE_FLAGS_AT: Final = 4 * (_LINES + 2)
_RELIEF: Final = _LINES + 3
_WATCHES_AT: Final = 3 * PAGE
_LONERS_AT: Final = _WATCHES_AT - 8
_NOBODY_WAITS: Final = bytes(SLOTS)

_Counters = ctypes.c_uint32 * (_WATCHES_AT // 4)
_Watches = ctypes.c_uint64 * COUNTERS


class Bell:
    """The counters of one queue directory."""

    def __init__(self, path: Path) -> None:
        fd = open_beside(path, path.parent)
        try:
            # Blocks on disk for the whole of it: touching a hole on a full disk is SIGBUS. One
            # that is shorter grows, and others who have it mapped keep what they have.
            os.posix_fallocate(fd, 0, SIZE)
            self._map = mmap.mmap(fd, SIZE)
        finally:
            os.close(fd)
        self._counters = _Counters.from_buffer(self._map)
        self._watches = _Watches.from_buffer(self._map, _WATCHES_AT)
        self._loners = ctypes.c_uint64.from_buffer(self._map, _LONERS_AT)
        self._address = ctypes.addressof(self._counters)

    # Topics.

    def read(self, topic: int) -> int:
        """The topic's counter, to be given to `wait`."""
        return self._read(_place(topic))

    def raise_counter(self, topic: int) -> None:
        """Note that something has changed for the topic; under the write lock."""
        self._raise(_place(topic))

    def wake(self, topic: int, waiters: int = EVERYBODY) -> int:
        """Wake up to so many who wait for the topic, or for one that shares its counter.

        Gives how many that were.
        """
        return self._wake(_place(topic), waiters)

    def wait(self, topic: int, seen: int, timeout: float) -> None:
        """Sleep until woken, at most *timeout* seconds; not at all if the counter is not *seen*.

        Returns early for a signal, so that its handler runs.
        """
        self._wait(_place(topic), seen, timeout)

    # Watches, each at a desk: that of the store, or of a topic. Times are those of
    # `time.monotonic_ns`, which all processes have.

    def is_watched(self, desk: int, by_ns: int) -> bool:
        """Whether somebody at the desk will look between now and then."""
        return time.monotonic_ns() < self._watches[_place(desk)] <= by_ns

    def watch(self, desk: int, until_ns: int) -> None:
        """Say that the caller will look at that time."""
        self._watches[_place(desk)] = until_ns

    def leave_watch(self, desk: int, until_ns: int) -> None:
        """Take that back, if nobody has said something else since."""
        if self._watches[_place(desk)] == until_ns:
            self._watches[_place(desk)] = 0

    def relieve(self, desk: int) -> None:
        """Call one of those who wait, to look when something falls due; or one of the topic."""
        place = _RELIEF if desk == STORE else _place(desk)
        self._raise(place)  # two at once may raise it once: it has changed for both
        self._wake(place, 1)

    def read_relief(self) -> int:
        """The counter of calls to look for all, to be given to `wait_for_any`."""
        return self._read(_RELIEF)

    def has_loners(self) -> bool:
        """Whether there may be somebody who cannot be called by `relieve`."""
        return time.monotonic_ns() < self._loners.value

    def is_loner(self, seconds: float) -> None:
        """Say that there is one, who will sleep no longer; to be done before it looks."""
        self._loners.value = time.monotonic_ns() + int((seconds + 1) * 1e9)

    # Several topics.

    def page(self) -> bytes:
        """All topics' counters, to be given to `wait_for_any` or `stand`."""
        return self._map[:PAGE]

    def may_wait_for(self, topics: Collection[int]) -> bool:
        """Whether one thread can sleep at the counters of all of these, for `wait_for_any`."""
        return len(topics) < futex.MOST_WORDS - 1 and futex.can_wait_for_any()

    def wait_for_any(
        self,
        topics: Collection[int],
        page: bytes,
        own: tuple[Word, int],
        end: float,
        relief: int | None = None,
    ) -> list[int]:
        """Sleep until woken for one of the topics, at the caller's own word, or to relieve others.

        Not at all if a counter is not as it is on the page, or the word or the counter of relief
        not as it was seen (None: it is not looked at); and no longer than until *end*, a time of
        `time.monotonic`.

        Returns:
            For which topics this one may have been woken while others sleep on; none if it was
            not woken. If jobs of these are left when it has taken what it wants, it has to wake
            another one. `STORE` is among them if it may have been to relieve others.
        """
        word, seen = own
        places = sorted({_place(topic) for topic in topics})
        words = [(self._address + 4 * place, _on(page, place)) for place in places]
        words.append((word.address, seen))
        if relief is not None:
            words.append((self._address + 4 * _RELIEF, relief))
        at = self._wait_for_any(words, end)
        if at is None:
            return []
        now = self.page()
        moved = {place for place in places if _on(now, place) != _on(page, place)}
        moved.update(places[at : at + 1])
        # For a new topic, and for those that share a counter, everybody was woken.
        called = [topic for topic in topics if topic and _place(topic) in moved]
        return called if relief in {None, self.read_relief()} else [STORE, *called]

    # Several topics, where one cannot sleep at the counters of all.

    def stand(self, page: bytes, topics: Iterable[int]) -> bool:
        """Whether the counters of these topics are as they were on that page."""
        now = self.page()
        if now == page:  # a quarter of a microsecond
            return True
        return all(_on(now, place) == _on(page, place) for place in map(_place, topics))

    def ask_for_several(self) -> int:
        """Ask to be called for jobs of any topic; gives the counter, for `wait_for_several`."""
        count = self._read(_SEVERAL)
        self._map[_SEVERAL_FLAG_AT] = 1
        # No sleep, but what it takes for the flag to be set before what follows is read.
        futex.wait(self._address + 4 * _SEVERAL, ~count & 0xFFFFFFFF, 0)
        return count

    def wake_several(self) -> None:
        """Wake who waits for several topics, if somebody does; after `wake` of the topics."""
        if self._map[_SEVERAL_FLAG_AT]:
            self._map[_SEVERAL_FLAG_AT] = 0
            self.call_several()

    def call_several(self) -> None:
        """Let all who wait for several topics look again, whether they sleep yet or not."""
        self._counters[_SEVERAL] = int.from_bytes(os.urandom(4))
        self._wake(_SEVERAL, EVERYBODY)

    def wait_for_several(self, seen: int, timeout: float) -> None:
        """Sleep as `wait` does, until woken for any topic."""
        self._wait(_SEVERAL, seen, timeout)

    # The ends of jobs.

    def ask(self, job_id: bytes) -> int:
        """Ask to be called when the job ends; to be done before looking at it.

        Gives the counter of its slot, for `stands`.
        """
        slot = slot_of(job_id)
        count = self._read(COUNTERS + slot)
        self._map[_FLAGS_AT + slot] = 1
        return count

    def stands(self, job_id: bytes, count: int) -> bool:
        """Whether what was asked for with *count* has not been answered yet.

        If not, the job may have ended, or another one of its slot has.
        """
        slot = slot_of(job_id)
        return self._read(COUNTERS + slot) == count and self._map[_FLAGS_AT + slot] != 0

    def note_ends(self, job_ids: Iterable[bytes], slots: list[int]) -> None:
        """Note that jobs have ended; under the write lock, after the commit.

        Adds to *slots* those that have to be woken, each before anything is done about it: so
        they can be woken even if an interrupt comes meanwhile.
        """
        flags = self._map[_FLAGS_AT : _FLAGS_AT + SLOTS]
        if flags == _NOBODY_WAITS:  # two tenths of a microsecond
            return
        asked = {slot for slot in map(slot_of, job_ids) if flags[slot]}
        if asked:
            slots += (*asked, ANY)
            for slot in asked:
                self._map[_FLAGS_AT + slot] = 0
                self._raise(COUNTERS + slot)
            self._raise(COUNTERS + ANY)

    def read_slot(self, slot: int) -> int:
        """The slot's counter, to be given to `wait_slot`."""
        return self._read(COUNTERS + slot)

    def wake_slot(self, slot: int) -> None:
        """Wake all who wait at the slot."""
        self._wake(COUNTERS + slot, EVERYBODY)

    def call_slot(self, slot: int) -> None:
        """Let all who wait at the slot look again, whether they sleep yet or not."""
        self._raise(COUNTERS + slot)
        self.wake_slot(slot)

    def wait_slot(self, slot: int, seen: int, timeout: float) -> None:
        """Sleep as `wait` does, until woken at the slot."""
        self._wait(COUNTERS + slot, seen, timeout)

    # Standing in line for a lock; *line* is 0 or 1.

    def ask_in_line(self, line: int) -> int:
        """Ask to be called when the lock may be free; to be done before looking whether it is.

        Gives the counter, for `wait_in_line`.
        """
        count = self._read(_LINES + line)
        self._map[_LINE_FLAGS_AT + line] = 1
        return count

    def wait_in_line(self, line: int, seen: int, timeout: float) -> None:
        """Sleep as `wait` does, until called."""
        try:
            self._wait(_LINES + line, seen, timeout)
        finally:  # others may stand behind, and the flag was cleared for all of them
            self._map[_LINE_FLAGS_AT + line] = 1

    def is_line(self, line: int) -> bool:
        """Whether somebody may stand there."""
        return self._map[_LINE_FLAGS_AT + line] != 0

    def call_in_line(self, line: int) -> None:
        """Call who has stood longest, if somebody stands there; the lock is free."""
        if self.is_line(line):
            self._map[_LINE_FLAGS_AT + line] = 0
            self._counters[_LINES + line] = int.from_bytes(os.urandom(4))
            if self._wake(_LINES + line, 1):
                self._map[_LINE_FLAGS_AT + line] = 1

    # What a failed commit has left.

    @property
    def doubt(self) -> bool:
        """Whether the disk may have something else than what is read; see `doubt.settle`.

        Set and cleared under the write lock. It is as old as the page cache that it is about: after
        a power cut it is gone, or means nothing.
        """
        return self._map[_DOUBT_AT] != 0

    @doubt.setter
    def doubt(self, value: bool) -> None:
        self._map[_DOUBT_AT] = value

    # Places of counters in the file.

    def _read(self, place: int) -> int:
        return int(self._counters[place])

    def _raise(self, place: int) -> None:
        self._counters[place] = (self._counters[place] + 1) & 0xFFFFFFFF

    def _wake(self, place: int, waiters: int) -> int:
        return futex.wake(self._address + 4 * place, waiters)

    def _wait(self, place: int, seen: int, timeout: float) -> None:
        futex.wait(self._address + 4 * place, seen, timeout)

    def _wait_for_any(self, words: list[tuple[int, int]], end: float) -> int | None:
        return futex.wait_for_any(words, end)


def slot_of(job_id: bytes) -> int:
    """The slot of a job's end, 1 to 1 023; neighbours in the order of enqueueing differ.

    >>> slot_of(bytes(16)), slot_of(bytes(15) + bytes([5]))
    (1, 6)
    """
    return 1 + int.from_bytes(job_id[-4:]) % (SLOTS - 1)


def _on(page: bytes, place: int) -> int:
    """The counter of a place on a page."""
    return int.from_bytes(page[4 * place : 4 * place + 4], sys.byteorder)


def _place(topic: int) -> int:
    return topic if topic < COUNTERS else 1 + topic % (COUNTERS - 1)


__all__ = ["ANY", "COUNTERS", "EVERYBODY", "SIZE", "SLOTS", "Bell", "slot_of"]
