"""All benchmarks one after the other, or those that are named, and what of it was promised.

The quick form takes about three minutes on a machine that has nothing else to do. With --full, most
of an hour, and 10 GB of disk. The results are printed; with --keep they are kept as data too, in
`benchmarks/results/`, from where `python -m benchmarks.report` renders docs/benchmarks.md.
"""

import argparse
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, NamedTuple

from benchmarks import (
    batches,
    beside_python,
    churn,
    contention,
    coroutines,
    crews,
    enqueuers,
    falling_due,
    groups,
    latency,
    loops,
    payloads,
    promises,
    redelivery,
    scale,
    shares,
    uniques,
    waiters,
    waiting,
)
from benchmarks.kept import RESULTS, load


class Benchmark(NamedTuple):
    """Its `main`, and the options of its quick and its full form."""

    main: Callable[[Sequence[str]], int]
    quick: str = ""
    full: str = "--full"


ALL: Final = {
    "batches": Benchmark(batches.main, "--rounds 3 --scale 0.4", "--rounds 15"),
    "loops": Benchmark(loops.main, "--rounds 3 --seconds 0.2"),
    "payloads": Benchmark(payloads.main, "--rounds 2 --seconds 0.1"),
    "enqueuers": Benchmark(enqueuers.main, "--rounds 2"),
    "crews": Benchmark(crews.main, "--rounds 2"),
    "scale": Benchmark(scale.main),
    "churn": Benchmark(churn.main),
    "falling_due": Benchmark(falling_due.main, "--jobs 30000"),
    "waiters": Benchmark(waiters.main),
    "beside_python": Benchmark(beside_python.main, "--seconds 0.25"),
    "latency": Benchmark(latency.main, "--jobs 200 --idle 5", "--jobs 2000 --idle 60"),
    "waiting": Benchmark(waiting.main, "--jobs 200", "--jobs 2000"),
    "redelivery": Benchmark(redelivery.main, "--rounds 3", "--rounds 30"),
    "contention": Benchmark(contention.main, "--rounds 1 --processes 4"),
    "coroutines": Benchmark(coroutines.main, "--rounds 2 --scale 0.3", "--rounds 9"),
    "shares": Benchmark(shares.main, "--calls 60", "--calls 1000"),
    "groups": Benchmark(groups.main, "--calls 30 --waiting 10000", "--waiting 1000000"),
    "uniques": Benchmark(uniques.main, "--rounds 2 --scale 0.2", "--rounds 9"),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run; 1 if one of them found an error."""
    options = _options(arguments)
    status, taken = 0, {}
    today = datetime.now(UTC).date().isoformat()
    with tempfile.TemporaryDirectory(prefix="benchmarks-") as temporary:
        results = options.results if options.keep else Path(temporary)
        results.mkdir(exist_ok=True)
        for name in options.names or ALL:
            print(f"\n── {name} ──", flush=True)
            benchmark, start = ALL[name], time.monotonic()
            words = (benchmark.full if options.full else benchmark.quick).split()
            if options.dir:
                words += ["--dir", str(options.dir)]
            file = results / f"{name}-{today}.json"
            try:
                status |= benchmark.main([*words, "--json", str(file)])
            except Exception:  # noqa: BLE001 - a job is lost, or a machine too slow: on to the next
                traceback.print_exc()
                status = 1
            taken[name] = time.monotonic() - start
        print("\n── what was promised ──\n")
        print("\n".join(promises.as_text(promises.judge(load(results)))))
    print(f"\n{sum(taken.values()):.0f} s: " + ", ".join(f"{n} {s:.0f}" for n, s in taken.items()))
    return status


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"some of {', '.join(ALL)}")
    parser.add_argument("--full", action="store_true", help="the full forms")
    parser.add_argument("--keep", action="store_true", help="keep the results as data")
    parser.add_argument("--dir", type=Path, help="directory on the disk to be measured")
    parser.add_argument(
        "--results", type=Path, default=RESULTS, help="where they are kept; default: %(default)s"
    )
    options = parser.parse_args(arguments)
    if unknown := [name for name in options.names if name not in ALL]:
        parser.error(f"no such benchmark: {', '.join(unknown)}")
    return options


if __name__ == "__main__":
    sys.exit(main())
