"""The benchmarks whose sides take turns run, find no job missing, and keep regular data."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from benchmarks import batches, contention, crews, enqueuers, loops, payloads

Main = Callable[[Sequence[str]], int]

JOBQ = ["--sides", "jobq", "sqlite3_hand"]
SHORT = ["--rounds", "2", "--seconds", "0.02"]


@pytest.mark.parametrize(
    ("main", "options", "cases", "varied"),
    [
        (batches.main, [*JOBQ, "--rounds", "2", "--batches", "1", "10", "--scale", "0.01"],
         4, {"batch"}),
        (loops.main, [*JOBQ, *SHORT], 2, set()),
        (payloads.main, [*JOBQ, *SHORT, "--sizes", "0", "10000"], 4, {"payload_bytes", "batch"}),
        (enqueuers.main, [*JOBQ, *SHORT, "--threads", "3"], 5, {"callers"}),
        (crews.main, [*JOBQ, *SHORT, "--processes", "2"], 2, {"processes"}),
        (contention.main, ["--rounds", "2", "--seconds", "0.3", "--processes", "2"],
         1, {"processes"}),
    ],
    ids=["batches", "loops", "payloads", "enqueuers", "crews", "contention"],
)  # fmt: skip
def test_a_benchmark_keeps_every_case_with_the_figures_of_each_round(
    main: Main, options: list[str], cases: int, varied: set[str], tmp_path: Path
) -> None:
    file = tmp_path / "results.json"

    assert main([*options, "--dir", str(tmp_path), "--json", str(file)]) == 0

    kept: dict[str, Any] = json.loads(file.read_text())
    assert {"benchmark", "question", "date", "commit", "machine", "settings"} < kept.keys()
    assert len(kept["results"]) == cases
    for case in kept["results"]:
        assert case.keys() == {"workload", "side", "durability", "rounds"} | varied
        assert [run.keys() for run in case["rounds"]] == [case["rounds"][0].keys()] * 2
        for name in case["rounds"][0]:
            if "per_s" in name:  # for so short a time a side may not have had the processor at all
                assert any(run[name] > 0 for run in case["rounds"]), name


def test_loops_pipelined_by_hand_give_every_job_once_in_order(tmp_path: Path) -> None:
    for side in ("lmdb_bare pipelined", "sqlite3_hand pipelined"):
        loop = loops.SIDES[side](tmp_path / side)
        try:
            run = loops.live(loop, 0.01)  # raises if a job is missing or comes out of order
        finally:
            loop.close()

        assert run.consumed_per_s > run.lives_per_s > 0
