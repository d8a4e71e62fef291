"""Sides that take turns in every round, so that a slow minute of the machine hits all of them."""

import statistics
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple


def turns(sides: Collection[str], rounds: int) -> Iterator[tuple[int, str]]:
    """The number of the round and the side whose turn it is; every second round goes backwards.

    >>> [side for _, side in turns(["a", "b"], 2)]
    ['a', 'b', 'b', 'a']
    """
    for number in range(rounds):
        for side in sides if number % 2 == 0 else reversed(list(sides)):
            yield number, side


def ratio(some: Iterable[float], others: Iterable[float]) -> float:
    """The median, over the rounds, of one side's figure divided by the other's.

    >>> ratio([2, 9, 8], [1, 3, 2])
    3.0
    """
    return statistics.median(one / other for one, other in zip(some, others, strict=True))


def by_batch(rounds: Mapping[int, Mapping[str, Sequence[NamedTuple]]]) -> list[dict[str, Any]]:
    """Rounds by batch size and side, as they are kept."""
    return [
        {"batch": batch, "side": side, "rounds": [run._asdict() for run in runs]}
        for batch, sides in rounds.items()
        for side, runs in sides.items()
    ]
