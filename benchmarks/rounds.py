"""Sides that take turns in every round, so that a slow minute of the machine hits all of them.

How many rounds, and how long a turn, is the pace: quick unless `--full` is given.
"""

import argparse
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


class Pace(NamedTuple):
    """How many rounds, and how many seconds each side's turn takes."""

    rounds: int
    seconds: float


def add_pace(parser: argparse.ArgumentParser, quick: Pace, full: Pace) -> None:
    """The options that say how long a benchmark takes."""
    parser.add_argument(
        "--full",
        action="store_const",
        const=full,
        default=quick,
        dest="pace",
        help=f"{full.rounds} rounds of turns of {full.seconds} s, not {quick.rounds} of "
        f"{quick.seconds}",
    )
    parser.add_argument("--rounds", type=int, help="so many rounds")
    parser.add_argument("--seconds", type=float, help="so many seconds for each turn of a side")


def pace_of(options: argparse.Namespace) -> Pace:
    """What was asked for."""
    pace: Pace = options.pace
    return Pace(options.rounds or pace.rounds, options.seconds or pace.seconds)


def kept(
    names: Sequence[str], runs: Mapping[tuple[Any, ...], Sequence[NamedTuple]]
) -> list[dict[str, Any]]:
    """Rounds by case, as they are kept; *names* says what a case is made of.

    >>> kept(["workload", "side"], {("life", "jobq"): [Pace(1, 0.5)]})
    [{'workload': 'life', 'side': 'jobq', 'rounds': [{'rounds': 1, 'seconds': 0.5}]}]
    """
    return [
        {**dict(zip(names, case, strict=True)), "rounds": [run._asdict() for run in some]}
        for case, some in runs.items()
    ]


def print_rates(
    unit: str, rates: Mapping[str, Sequence[float]], against: Mapping[str, Sequence[float]]
) -> None:
    """A line for each side: median, least and most, and its ratio to others, round by round."""
    print(
        f"  {unit:22} {'median':>9} {'least':>9} {'most':>9}"
        + "".join(f"  / {name}" for name in against)
    )
    for side, mine in rates.items():
        print(
            f"  {side:22} {statistics.median(mine):9.0f} {min(mine):9.0f} {max(mine):9.0f}"
            + "".join(
                f"  {ratio(mine, others):{len(name) + 2}.2f}" for name, others in against.items()
            )
        )


def by_batch(rounds: Mapping[int, Mapping[str, Sequence[NamedTuple]]]) -> list[dict[str, Any]]:
    """Rounds by batch size and side, as they are kept."""
    return [
        {"batch": batch, "side": side, "rounds": [run._asdict() for run in runs]}
        for batch, sides in rounds.items()
        for side, runs in sides.items()
    ]
