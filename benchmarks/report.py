"""Render the newest kept results into docs/benchmarks.md, with plots in docs/img.

python -m benchmarks.report [--results DIR] [--page FILE]

The plots need matplotlib (the extra `bench`, which `make bench` installs); without it the page is
rendered with those that are there already.
"""

import argparse
import sys
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from benchmarks import promises
from benchmarks.kept import RESULTS, Result, Results, load
from benchmarks.tables import TABLES, markdown

PAGE: Final = Path(__file__).parent.parent / "docs" / "benchmarks.md"
IMAGES: Final = "img"
SIZES: Final = {"churn"}
"""Benchmarks of lengths of files, which are the same on a busy machine."""
BUSY: Final = 0.7
"""From so much load a processor on, figures are partly those of other programs."""

HEAD: Final = """# How fast jobq is

Rendered by `python -m benchmarks.report` from what `make bench ARGS=--keep` has measured: do not
edit. [benchmarks/README.md](../benchmarks/README.md) says how, and what the sides are; `jobq bench`
measures your own disk. Compare ratios rather than rates: another disk has other rates. A *life* is
enqueue, reserve and done; payloads have 200 bytes, and every call of every side is on the disk
before it returns, unless something else is said.
"""

ALTERNATIVES: Final = {
    "batches": "Lives a second by batch size",
    "enqueuers": "Jobs a second by the number of threads that enqueue",
    "scale": "Microseconds of a call by the number of ready jobs",
    "churn": "Length of the file by the number of jobs that have gone through",
}
"""What stands in for the plots."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Render; 1 if there is nothing to render."""
    parser = argparse.ArgumentParser(prog="benchmarks.report", description=__doc__)
    parser.add_argument("--results", type=Path, default=RESULTS, help="default: %(default)s")
    parser.add_argument("--page", type=Path, default=PAGE, help="default: %(default)s")
    options = parser.parse_args(arguments)
    results = load(options.results)
    if not results:
        print(f"no results in {options.results}", file=sys.stderr)
        return 1
    images = options.page.parent / IMAGES
    if find_spec("matplotlib"):
        from benchmarks import plots

        drawn = plots.draw(results, images)
    else:
        print("without matplotlib, plots are left as they are", file=sys.stderr)
        drawn = {name: f"{name}.svg" for name in ALTERNATIVES if (images / f"{name}.svg").exists()}
    options.page.write_text(page(results, drawn))
    print(f"rendered {options.page}")
    return 0


def page(results: Results, plots: Mapping[str, str]) -> str:
    """The page; *plots* are the files of those that were drawn, by benchmark."""
    parts = [HEAD, *_caution(results), "## What was promised\n", *_promises(results)]
    for name, table in TABLES.items():
        if name in results:
            parts += [f"\n## {_question(results[name])}\n", _about(name, results[name])]
            if name in plots:
                parts.append(f"![{ALTERNATIVES[name]}]({IMAGES}/{plots[name]})\n")
            parts += table(results[name])
    parts += ["\n## Where and when\n", *_runs(results)]
    return "\n".join(parts) + "\n"


def _promises(results: Results) -> list[str]:
    rows = [
        [one.workload, one.least, one.goal, one.measured, one.verdict]
        for one in promises.judge(results)
    ]
    table = markdown(["workload", "at least", "goal", "measured", "reached"], rows)
    # Sentences stand to the left.
    return [table[0], "|---|---|---|---|---|", *table[2:]]


def _caution(results: Results) -> list[str]:
    """Which of it measures the machine's other work too."""
    busy = [
        name for name, result in sorted(results.items())
        if result["machine"]["load"] > BUSY * result["machine"]["cpus"] and name not in SIZES
    ]  # fmt: skip
    if not busy:
        return []
    names = ", ".join(busy)
    return [f"**The machine had other work to do** while these ran, so do not trust: {names}.\n"]


def _question(result: Result) -> str:
    question: str = result["question"]
    return question


def _about(name: str, result: Result) -> str:
    told = ", ".join(f"{key} {value}" for key, value in result["settings"].items()
                     if isinstance(value, int | float | str))  # fmt: skip
    return f"`python -m benchmarks.{name}`" + (f": {told}" if told else "") + "\n"


def _runs(results: Results) -> list[str]:
    rows = []
    for name, result in sorted(results.items()):
        machine = result["machine"]
        rows.append([
            name, result["date"][:16].replace("T", " "), str(result["commit"]),
            f"{machine['cpus']} × {machine['cpu']}", machine["file_system"],
            f"{machine['flush_us']:.0f}", f"{machine['load']:.1f}", machine["python"],
        ])  # fmt: skip
    head = ["benchmark", "date (UTC)", "commit", "machine", "file system", "a flush, µs", "load",
            "Python"]  # fmt: skip
    return markdown(head, rows)


if __name__ == "__main__":
    sys.exit(main())
