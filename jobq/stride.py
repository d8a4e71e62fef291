"""Stride scheduling: which topic's turn it is, by integers and without chance.

Each topic has a *pass*, its virtual time. The topic with the smallest pass is next, and its pass
grows by its *stride*, which is inverse to its share: a topic with five times the share has five
times as many turns. After any number of turns nobody is more than one turn away from its share.

    C. A. Waldspurger and W. E. Weihl, "Stride Scheduling: Deterministic Proportional-Share
    Resource Management", MIT/LCS/TM-528, 1995.

What a topic leaves out while it has no job must not be made up for later: it would keep all
others from their turns. The paper has clients tell when they leave and join. Topics do not tell,
and what they hold is looked at only when somebody asks; but as long as a topic takes part, it is
never more than one turn of any other topic behind that one. So who is further behind has not
taken part, and is moved up to there (`started`).
"""

import heapq
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Final

SCALE: Final = 1_000_000
"""The stride of share 1. A pass fits into 63 bits for 9 * 10**12 turns of share 1; rounding makes
an error below 0.05 % for the largest share, 1000, and much less for smaller ones."""

FIRST: Final = 1
"""Where the first topics start: 0 is that of a topic that has never taken part."""


def stride_of(share: float) -> int:
    """By how much a turn raises the pass of a topic with this share.

    >>> stride_of(1), stride_of(5), stride_of(0.01), stride_of(1000)
    (1000000, 200000, 100000000, 1000)
    """
    return max(1, round(SCALE / share))


def started(passes: Sequence[int], strides: Sequence[int], behind: int = 1) -> list[int]:
    """The passes with which topics take part: all of them have jobs now.

    A new topic (pass 0) starts at the smallest pass of the others; that has to be kept even if it
    gets no turn, or it would start with every call. One that is further behind another than
    *behind* turns of that one is moved up to there; that need not be kept.

    >>> started([0, 700, 800], [100, 100, 100])
    [700, 700, 800]
    >>> started([0, 0], [100, 500])
    [1, 1]
    >>> started([10, 700, 800], [100, 100, 100])
    [700, 700, 800]
    """
    old = [at for at in passes if at]
    if not old:
        return [FIRST] * len(passes)
    first = min(old)
    floor = max([at - behind * stride for at, stride in zip(passes, strides, strict=True) if at])
    return [max(at or first, floor) for at in passes]


def picks(
    passes: Sequence[int], strides: Sequence[int], available: Sequence[int], n: int
) -> list[int]:
    """The topics of the next *n* turns in order, by position; fewer if there are not so many jobs.

    Of topics with the same pass the first one is next.

    >>> picks([0, 0], [100, 500], [99, 99], 7)
    [0, 1, 0, 0, 0, 0, 0]
    >>> picks([0, 0], [100, 500], [2, 3], 7)
    [0, 1, 0, 1, 1]
    """
    left = list(available)
    heap = [(at, place) for place, at in enumerate(passes) if left[place] > 0]
    heapq.heapify(heap)
    order: list[int] = []
    while len(order) < n and len(heap) > 1:
        at, place = heap[0]
        order.append(place)
        left[place] -= 1
        if left[place]:
            heapq.heapreplace(heap, (at + strides[place], place))
        else:
            heapq.heappop(heap)
    if heap:
        ((_, place),) = heap[:1]
        order += [place] * min(n - len(order), left[place])
    return order


def share_out(
    passes: Sequence[int],
    strides: Sequence[int],
    available: Sequence[int],
    n: int,
    give: Callable[[Mapping[int, int]], Mapping[int, int]],
) -> list[int]:
    """Have up to *n* jobs given, and tell in which order of topics, by position.

    The same as asking for one job after the other, but topics are asked for all of their jobs at
    once.

    Args:
        passes: Where topics start.
        strides: By how much each turn raises a pass.
        available: How many jobs each topic has at most.
        n: How many jobs are wanted.
        give: Called with how many jobs each of some topics is to give, first the one whose turn
            comes first; returns how many each did give. One that gives fewer than that has no
            more, and its turns go to the others.
    """
    at, left, given = list(passes), list(available), [0] * len(passes)
    while n > 0:
        order = picks(at, strides, left, n)
        turns = dict(Counter(order))
        if not turns:
            break
        got = give(turns)
        if got == turns and not any(given):  # as mostly
            return order  # if it is shorter than n, there are no more
        for place, wanted in turns.items():
            given[place] += got[place]
            at[place] += got[place] * strides[place]
            left[place] = left[place] - got[place] if got[place] == wanted else 0
            n -= got[place]
    return picks(passes, strides, given, sum(given))
