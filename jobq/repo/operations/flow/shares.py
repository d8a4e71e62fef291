"""Handing out jobs of several topics: by shares, or one after the other."""

import math
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final, overload

from jobq.job import Reservation
from jobq.repo.base import ReserveRequest, Retention
from jobq.repo.flow import ring, topic_of_ring
from jobq.repo.operations import reserve
from jobq.repo.operations.flow import groups, limits
from jobq.repo.operations.reserve import take_from, take_of_each
from jobq.repo.repositories import Figure, Transaction
from jobq.shares import Mix, Pattern
from jobq.states import Status
from jobq.stride import picks, share_out, started, stride_of

LEAST_WINDOW: Final = 16
MOST_WINDOW: Final = 128
"""How many of the topics that patterns stand for, and that have jobs, one call looks at: as many
as the jobs that are wanted, within these bounds. The next call looks at those that follow, all the
way round; so each of them has its turn as often as any other, whatever their number."""

AT_ONCE: Final = 2
LEAST_AT_ONCE: Final = 4
"""Where all topics have the same share, and there are more of them, a call takes so many jobs of
each at once, and first looks only at as many topics as that needs, but not at fewer than these. If
they have too few jobs, it looks at more, within the bounds above. That is because the first job of
a topic costs twice as much as the second one."""

BEHIND: Final = 128
"""By how many turns of another topic one may be behind while not all are looked at in each call:
those that wait for the window to come round have not been idle."""

MOST_KEPT: Final = 64
"""For how many mixes a store remembers which topics they stand for."""

RENEW: Final = 1000
"""After so many new topics, and as many as there were, a choice is made anew: without the numbers
of topics that are gone."""


def take(
    tx: Transaction, request: ReserveRequest, retention: Retention, choices: "Choices"
) -> list[Reservation]:
    """Reserve up to n jobs, of one topic or of several."""
    topic, n = request
    if isinstance(topic, str):
        return take_from(tx, topic, n, retention)
    taken: list[Reservation] = []
    if tx.topics.store_settings().paused:  # or each topic would be asked
        return taken
    groups.seat_all(tx)
    room = Room(tx, retention)
    for tier in choices.of(tx, topic).tiers:
        taken += _take_of(tx, tier, n - len(taken), room)
        if len(taken) == n or room.full:
            break
    return taken


def ready_in(tx: Transaction, choice: "Choice") -> float:
    """In how many seconds a job of one of the topics may be handed out.

    0 if one may be now; infinity if only a commit can change that.
    """
    soonest = math.inf
    if tx.topics.store_settings().paused:
        return soonest
    for part in [part for tier in choice.tiers for part in (tier.named, tier.matched)]:
        after = 0
        while topics := with_jobs(tx, part, MOST_WINDOW, after):
            for topic in topics:
                soonest = min(soonest, limits.ready_in(tx, topic))
                if soonest <= 0:
                    return 0.0
            after = bisect_right(part, topics[-1])
    return soonest


def with_ready(tx: Transaction, topics: Sequence[int]) -> list[int]:
    """Those of these topics of which a job may be handed out now."""
    there = with_jobs(tx, sorted(topics), len(topics))
    return [topic for topic in there if limits.ready_in(tx, topic) <= 0]


class Room:
    """What one reservation of several topics may still take, and how.

    Attributes:
        left: Bytes of payloads.
        full: A topic has jobs left that it could have given, but there was no room for them.
    """

    __slots__ = ("_retention", "_tx", "full", "left")

    def __init__(self, tx: Transaction, retention: Retention) -> None:
        self._tx = tx
        self._retention = retention
        self.left = reserve.MOST_BYTES
        self.full = False

    def take(self, wanted: Sequence[tuple[int, int]]) -> list[list[Reservation]]:
        """Take jobs of topics: of each up to as many as stand with it."""
        if self.full:
            return [[] for _ in wanted]
        taken = take_of_each(self._tx, wanted, self._retention, self.left)
        self.left -= sum([len(job.payload) for jobs in taken for job in jobs])
        self.full = any(
            len(jobs) < n and limits.ready_in(self._tx, topic) <= 0
            for jobs, (topic, n) in zip(taken, wanted, strict=True)
        )
        return taken


def _take_of(tx: Transaction, tier: "Tier", n: int, room: Room) -> list[Reservation]:
    """Up to *n* jobs of the topics of one tier, in the order of their turns."""
    named = with_jobs(tx, tier.named, len(tier.named))
    if tier.alone:
        return room.take([(named[0], n)])[0] if named else []
    most = size = min(max(n, LEAST_WINDOW), MOST_WINDOW)
    if tier.is_even:
        size = min(max(n // AT_ONCE, LEAST_AT_ONCE), MOST_WINDOW)
    first = looked = 0
    taken: list[Reservation] = []
    while True:
        window, is_all = _window(tx, tier, size)
        behind = 1 if is_all else BEHIND
        taken += _take_in_turns(tx, tier, named + window, n - len(taken), room, behind)
        looked += len(window)
        if is_all or first in window or len(taken) == n or room.full or (taken and looked >= most):
            return taken
        if not taken:  # these may all be at their limits, while others could give jobs
            size = most
        first = first or window[0]


def _window(tx: Transaction, tier: "Tier", size: int) -> tuple[list[int], bool]:
    """Topics that patterns stand for and that have jobs; and whether these are all."""
    matched = tier.matched
    if not matched:
        return [], True
    start = bisect_right(matched, tier.at)
    found = with_jobs(tx, matched, size + 1, start)
    if len(found) <= size and start:
        found += with_jobs(tx, matched[:start], size + 1 - len(found))
    if len(found) <= size:
        return found, True
    tier.at = found[size - 1]
    return found[:size], False


def with_jobs(tx: Transaction, topics: Sequence[int], limit: int, start: int = 0) -> list[int]:
    """The first *limit* of these topics, which ascend, that have jobs in a queue of theirs.

    From the one at the position *start* on.
    """
    if start >= len(topics):
        return []
    own = tx.topics.queued_of(topics, limit, start)
    in_groups = tx.topics.queued_of(_Rings(topics), limit, start)
    if not in_groups:  # as mostly
        return own
    return sorted({*own, *map(topic_of_ring, in_groups)})[:limit]


class _Rings(Sequence[int]):
    """The rings of topics; a view, because there may be thousands and hardly any has one."""

    def __init__(self, topics: Sequence[int]) -> None:
        self._topics = topics

    def __len__(self) -> int:
        return len(self._topics)

    @overload
    def __getitem__(self, at: int) -> int: ...
    @overload
    def __getitem__(self, at: slice) -> Sequence[int]: ...
    def __getitem__(self, at: int | slice) -> int | Sequence[int]:
        if isinstance(at, slice):
            return _Rings(self._topics[at])
        return ring(self._topics[at])


def _take_in_turns(
    tx: Transaction, tier: "Tier", topics: list[int], n: int, room: Room, behind: int
) -> list[Reservation]:
    turns = tier.turns
    topics.sort(key=lambda topic: (turns[topic][0], topic))
    strides = [turns[topic][1] for topic in topics]
    before = tx.topics.figures(topics, Figure.PASS)
    passes = started(before, strides, behind)
    jobs: list[list[Reservation]] = [[] for _ in topics]

    def give(turns: Mapping[int, int]) -> dict[int, int]:
        taken = room.take([(topics[place], wanted) for place, wanted in turns.items()])
        for place, some in zip(turns, taken, strict=True):
            jobs[place] += some
        return {place: len(some) for place, some in zip(turns, taken, strict=True)}

    if tx.topics.size(0) > room.left:  # all payloads that wait in the store
        n = _fitting(tx, topics, picks(passes, strides, [n] * len(topics), n), room)
    # How many jobs each of them has at most costs more to find out than to be told by shortfalls.
    order = share_out(passes, strides, [n] * len(topics), n, give)
    given = Counter(order)
    for place, topic in enumerate(topics):
        if place in given or (order and not before[place]):
            after = passes[place] + given[place] * strides[place]
            tx.topics.set_figure(topic, Figure.PASS, after)
    in_turn = [iter(some) for some in jobs]
    return [next(in_turn[place]) for place in order]


def _fitting(tx: Transaction, topics: list[int], order: list[int], room: Room) -> int:
    """For how many turns there is room if payloads are as large as the topics' are on average.

    Without this a topic with large payloads would have its turns cut off at the end of the room,
    after others have had theirs, in every call.
    """
    counts = [tx.topics.counts(topic) for topic in topics]
    sizes = [
        tx.topics.size(topic) / max(1, count[Status.READY] + count[Status.DELAYED])
        for topic, count in zip(topics, counts, strict=True)
    ]
    left = float(room.left)
    for turns, place in enumerate(order):
        left -= sizes[place]
        if left < 0:
            return max(1, turns)
    return len(order)


# Which topics a mix stands for.


class Tier:
    """Topics that share jobs among them.

    Attributes:
        named: Numbers of those that are named, ascending.
        matched: Numbers of those that patterns stand for, ascending.
        turns: By number: where it stands in the mix, and its stride.
        at: The last of `matched` that was looked at when not all were.
        alone: It is one topic, named, and shares with nobody.
        is_even: All of its topics have the same share, and none is named.
    """

    __slots__ = ("alone", "at", "is_even", "matched", "named", "turns")

    def __init__(self, *, alone: bool, is_even: bool) -> None:
        self.named: list[int] = []
        self.matched: list[int] = []
        self.turns: dict[int, tuple[int, int]] = {}
        self.at = 0
        self.alone = alone
        self.is_even = is_even

    def copy(self) -> "Tier":
        """Another one that is like this."""
        other = Tier(alone=self.alone, is_even=self.is_even)
        other.named, other.matched = self.named.copy(), self.matched.copy()
        other.turns, other.at = self.turns.copy(), self.at
        return other


class Choice:
    """The topics that a mix stands for, as of some moment.

    Numbers are not used again. So topics that are gone meanwhile do no harm: they have no jobs.

    Attributes:
        tiers: In the order in which they are drained; without `strict` there is one.
        stamp: That of the moment.
        renewed: At which stamp it is to be made from the ground again.
    """

    def __init__(self, mix: Mix) -> None:
        self.stamp = self.renewed = 0
        self._strides = [stride_of(share) for _, share in mix.shares]
        self._named = {one: at for at, (one, _) in enumerate(mix.shares) if isinstance(one, str)}
        self._patterns = [
            (one, at) for at, (one, _) in enumerate(mix.shares) if isinstance(one, Pattern)
        ]
        self._strict = mix.strict
        if mix.strict:
            self.tiers = [
                Tier(alone=isinstance(one, str), is_even=isinstance(one, Pattern))
                for one, _ in mix.shares
            ]
        else:
            is_even = not self._named and len({share for _, share in mix.shares}) == 1
            self.tiers = [Tier(alone=False, is_even=is_even)]

    def among(self, tx: Transaction) -> "Choice":
        """This one, made from the ground."""
        if self._patterns:
            self._add(tx.topics.numbered(0))
        else:
            known = [(tx.topics.known(name), name) for name in self._named]
            self._add(sorted((number, name) for number, name in known if number is not None))
        return self

    def grown(self, tx: Transaction) -> "Choice":
        """Another one, with the topics that were made since."""
        other = object.__new__(Choice)
        other.__dict__.update(self.__dict__)
        other.tiers = [tier.copy() for tier in self.tiers]
        other._add(tx.topics.numbered(self.stamp))
        return other

    def is_whole(self, tx: Transaction) -> bool:
        """Whether no topic that is made from now on can be one of them."""
        # What it knew of may be gone since, and would come back under another number.
        return not self._patterns and all(tx.topics.known(name) is not None for name in self._named)

    def __len__(self) -> int:
        return sum(len(tier.turns) for tier in self.tiers)

    def __iter__(self) -> Iterator[int]:
        """The numbers of all of the topics."""
        for tier in self.tiers:
            yield from tier.turns

    def _add(self, topics: Iterable[tuple[int, str]]) -> None:
        for number, name in topics:
            place = self._named.get(name)
            is_named = place is not None
            if place is None:
                place = next((at for pattern, at in self._patterns if pattern.matches(name)), None)
            if place is not None:
                tier = self.tiers[place if self._strict else 0]
                (tier.named if is_named else tier.matched).append(number)
                if is_named and tier.alone:
                    tier.named = [number]  # the one before is gone
                tier.turns[number] = (place, self._strides[place])


class Choices:
    """The choices of one store: made once, and kept up to date."""

    def __init__(self) -> None:
        self._kept: dict[Mix, Choice] = {}

    def of(self, tx: Transaction, mix: Mix) -> Choice:
        """The topics that *mix* stands for now."""
        stamp = tx.topics.stamp()
        kept = self._kept.get(mix)
        if kept is not None and kept.stamp == stamp:
            return kept
        if kept is None or (stamp or 0) > kept.renewed:
            choice = Choice(mix).among(tx)
            choice.renewed = (stamp or 0) + len(choice) + RENEW
            if kept is not None:
                for tier, before in zip(choice.tiers, kept.tiers, strict=True):
                    tier.at = before.at
        else:
            choice = kept.grown(tx)
        if stamp is not None:  # else some of the topics may come to nothing
            choice.stamp = stamp
            while len(self._kept) >= MOST_KEPT and mix not in self._kept:
                del self._kept[next(iter(self._kept))]
            self._kept[mix] = choice
        return choice

    def forget(self) -> None:
        """Make all anew: names have been mended."""
        self._kept = {}
