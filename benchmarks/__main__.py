"""All benchmarks one after the other, in their quick forms, or those that are named.

python -m benchmarks [batches] [loops] [payloads] [enqueuers] [crews] [latency] [waiting]
    [redelivery] [contention] [coroutines] [shares] [groups] [uniques]
"""

import sys
from collections.abc import Callable, Sequence
from typing import Final

from benchmarks import (
    batches,
    contention,
    coroutines,
    crews,
    enqueuers,
    groups,
    latency,
    loops,
    payloads,
    redelivery,
    shares,
    uniques,
    waiting,
)

ALL: Final[dict[str, Callable[[Sequence[str]], int]]] = {
    "batches": batches.main,
    "loops": loops.main,
    "payloads": payloads.main,
    "enqueuers": enqueuers.main,
    "crews": crews.main,
    "latency": latency.main,
    "waiting": waiting.main,
    "redelivery": redelivery.main,
    "contention": contention.main,
    "coroutines": coroutines.main,
    "shares": shares.main,
    "groups": groups.main,
    "uniques": uniques.main,
}


def main() -> int:
    """Run; 1 if one of them found an error."""
    names = sys.argv[1:] or list(ALL)
    if unknown := [name for name in names if name not in ALL]:
        print(f"no such benchmark: {', '.join(unknown)}", file=sys.stderr)
        print(__doc__, file=sys.stderr)
        return 2
    status = 0
    for name in names:
        print(f"\n── {name} ──")
        status |= ALL[name]([])
    return status


if __name__ == "__main__":
    sys.exit(main())
