"""Results as they were kept: the newest of each benchmark, and what is asked of them."""

import json
import statistics
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from benchmarks.rounds import ratio

RESULTS = Path(__file__).parent / "results"

Result = dict[str, Any]
Results = Mapping[str, Result]


def load(directory: Path) -> Results:
    """The newest result of each benchmark, by its name."""
    found: dict[str, Result] = {}
    for file in sorted(directory.glob("*.json")):
        result = json.loads(file.read_text())
        name = result["benchmark"]
        if name not in found or result["date"] >= found[name]["date"]:
            found[name] = result
    return found


class Cases:
    """The cases of a benchmark whose sides take turns.

    >>> cases = Cases([{"side": "a", "batch": 1, "rounds": [{"per_s": 2}, {"per_s": 6}]},
    ...                {"side": "b", "batch": 1, "rounds": [{"per_s": 1}, {"per_s": 2}]}])
    >>> cases.median("per_s", side="a", batch=1), cases.ratio("per_s", "a", "b", batch=1)
    (4.0, 2.5)
    >>> cases.median("per_s", side="c") is None
    True
    """

    def __init__(self, cases: Iterable[Mapping[str, Any]]) -> None:
        self._cases = list(cases)

    def rounds(self, figure: str, **which: Any) -> list[float]:
        """The figure in each round of the only case that is like that; none if there is none."""
        for case in self._cases:
            if all(case.get(name) == value for name, value in which.items()):
                return [one[figure] for one in case["rounds"]]
        return []

    def median(self, figure: str, **which: Any) -> float | None:
        """The median of its rounds."""
        values = self.rounds(figure, **which)
        return statistics.median(values) if values else None

    def ratio(self, figure: str, one: str, other: str, **which: Any) -> float | None:
        """The median of the ratios of two sides, round by round."""
        mine = self.rounds(figure, side=one, **which)
        theirs = self.rounds(figure, side=other, **which)
        return ratio(mine, theirs) if mine and len(mine) == len(theirs) else None

    def values(self, name: str) -> list[Any]:
        """All values that a case has under that name, in the order in which they come."""
        return list(dict.fromkeys(case[name] for case in self._cases if name in case))
