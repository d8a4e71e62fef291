"""The plots of docs/benchmarks.md as SVG files. Needs matplotlib, from the extra `bench`."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import matplotlib as mpl

from benchmarks.kept import Cases, Result, Results

mpl.use("svg")
# The same data give the same file: no random ids, no date, text as text.
mpl.rcParams.update({
    "svg.hashsalt": "jobq", "svg.fonttype": "none", "axes.grid": True, "grid.alpha": 0.3,
    "axes.spines.top": False, "axes.spines.right": False, "figure.figsize": (7, 4),
    "legend.frameon": False, "legend.fontsize": "small",
})  # fmt: skip

from matplotlib import pyplot as plt  # noqa: E402 (after the choice of how to draw)

MIB: Final = 2**20


def draw(results: Results, directory: Path) -> dict[str, str]:
    """Draw what there are results for; file names by benchmark."""
    directory.mkdir(parents=True, exist_ok=True)
    drawn = {}
    for name, plot in PLOTS.items():
        if name in results:
            figure, axes = plt.subplots(layout="constrained")
            plot(axes, results[name])
            file = f"{name}.svg"
            figure.savefig(directory / file, metadata={"Date": None, "Creator": None})
            plt.close(figure)
            drawn[name] = file
    return drawn


def throughput_by_batch(axes: Any, result: Result) -> None:
    cases = Cases(result["results"])
    for side in cases.values("side"):
        _line(axes, side, {
            batch: cases.median("lives_per_s", side=side, batch=batch)
            for batch in cases.values("batch")
        })  # fmt: skip
    _label(axes, "jobs a batch", "lives/s", log="xy")


def throughput_by_threads(axes: Any, result: Result) -> None:
    cases = Cases(result["results"])
    for side in cases.values("side"):
        _line(axes, side, {
            callers: cases.median("jobs_per_s", workload="enqueue", side=side, callers=callers)
            for callers in cases.values("callers")
        })  # fmt: skip
    _label(axes, "threads (or coroutines) that enqueue one job at a time", "jobs/s", log="xy")


def latency_by_backlog(axes: Any, result: Result) -> None:
    ready = [one for one in result["results"] if one["status"] == "ready"]
    for verb in result["results"][0]["calls_us"]:
        p50, p99 = (
            {one["jobs"]: one["calls_us"][verb][figure] for one in ready}
            for figure in ("p50", "p99")
        )
        _line(axes, f"{verb}, p50", p50)
        _line(axes, f"{verb}, p99", p99, linestyle=":", color=axes.lines[-1].get_color())
    axes.set_ylim(bottom=0)
    _label(axes, "ready jobs", "µs a call", log="x")


def file_by_churn(axes: Any, result: Result) -> None:
    for run in result["results"]:
        points = run["points"]
        if run["growth"] is not None:
            jobs = [one["jobs"] for one in points]
            (line,) = axes.plot(jobs, [one["length"] / MIB for one in points], label=run["title"])
            used = [one["in_use"] / MIB for one in points]
            label = f"{run['title']}: in use"
            axes.plot(jobs, used, ":", color=line.get_color(), label=label)
    axes.set_ylim(bottom=0)
    _label(axes, "jobs that have gone through", "MiB", log="")


PLOTS: Final[dict[str, Callable[[Any, Result], None]]] = {
    "batches": throughput_by_batch,
    "enqueuers": throughput_by_threads,
    "scale": latency_by_backlog,
    "churn": file_by_churn,
}


def _line(axes: Any, label: str, points: dict[Any, float | None], **look: Any) -> None:
    known = {at: value for at, value in points.items() if value is not None}
    if known:
        axes.plot(list(known), list(known.values()), label=label, marker="o", markersize=4, **look)


def _label(axes: Any, x: str, y: str, log: str) -> None:
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    for name, axis, scale in (
        ("x", axes.xaxis, axes.set_xscale),
        ("y", axes.yaxis, axes.set_yscale),
    ):
        if name in log:
            scale("log")
        axis.set_major_formatter("{x:,.0f}" if name in log else "{x:,g}")
    if "x" not in log:
        axes.locator_params(axis="x", nbins=5)
    axes.legend(loc="upper left", bbox_to_anchor=(1, 1))
