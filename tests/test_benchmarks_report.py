"""docs/benchmarks.md is rendered from kept results, and says what of the promises was reached."""

import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from benchmarks import kept, promises, report
from benchmarks.tables import TABLES

MACHINE = {"cpus": 2, "cpu": "a processor", "file_system": "ext4", "flush_us": 30.0, "load": 0.1,
           "python": "3.11.7"}  # fmt: skip


def result(benchmark: str, results: Any, date: str = "2026-11-22", **settings: Any) -> Any:
    return {
        "benchmark": benchmark,
        "question": f"What of {benchmark}?",
        "date": f"{date}T10:00:00+00:00",
        "commit": "0123456789ab",
        "machine": MACHINE,
        "settings": settings,
        "results": results,
    }


def batches(jobq: float, sqlite3: float = 1000.0, bare: float = 1500.0) -> Any:
    """As many lives a second with every batch size."""
    rates = {"jobq": jobq, "sqlite3_hand": sqlite3, "lmdb_bare": bare, "jobq memory": 60_000.0}
    return result("batches", [
        {"workload": "life", "batch": batch, "durability": "full", "side": side,
         "rounds": [{"lives_per_s": rate}] * 3}
        for batch in (1, 10, 100, 1000)
        for side, rate in rates.items()
    ])  # fmt: skip


def churned(growth: float) -> Any:
    points = [{"jobs": jobs, "waiting": 1000, "seconds": jobs / 10, "length": 2**20 + jobs,
               "in_use": 2**19} for jobs in range(0, 1001, 100)]  # fmt: skip
    runs = [{"title": "nothing kept", "growth": growth, "points": points}]
    return result("churn", runs, jobs=1000)


def keep(directory: Path, *results: Any) -> Path:
    directory.mkdir()
    for number, one in enumerate(results):
        (directory / f"{number}.json").write_text(json.dumps(one))
    return directory


def reached(*results: Any) -> dict[str, promises.Judged]:
    """What is said of each promise."""
    return {one.workload: one for one in promises.judge({one["benchmark"]: one for one in results})}


def render(tmp_path: Path, *results: Any) -> tuple[Path, str]:
    page = tmp_path / "docs" / "benchmarks.md"
    page.parent.mkdir()
    kept_in = keep(tmp_path / "results", *results)
    assert report.main(["--results", str(kept_in), "--page", str(page)]) == 0
    return page, page.read_text()


def test_a_page_has_what_was_promised_and_a_table_of_each_benchmark(tmp_path: Path) -> None:
    _, text = render(tmp_path, batches(jobq=1400), churned(1.1))

    assert "| batches of 100, one thread |" in text
    assert "1.40 × sqlite3_hand; 0.93 × lmdb_bare | goal |" in text
    assert "| jobq | 1 400 | 1 400 | 1 400 | 1 400 |" in text
    assert "## What of churn?" in text
    assert text.count("| 0123456789ab |") == 2


def test_a_page_says_which_benchmarks_ran_beside_other_work(tmp_path: Path) -> None:
    timed, sizes = batches(jobq=1400), churned(1.1)
    timed["machine"] = sizes["machine"] = {**MACHINE, "load": 5.0}
    _, text = render(tmp_path, timed, sizes)

    assert "so do not trust: batches.\n" in text  # what files grow to is the same


def test_a_promise_is_missed_kept_or_exceeded() -> None:
    workload = "batches of 100, one thread"

    assert reached(batches(jobq=700))[workload].verdict == "missed"
    assert reached(batches(jobq=900))[workload].verdict == "at least"
    assert reached(batches(jobq=1400))[workload].verdict == "goal"
    # Fast enough beside one yardstick is not enough.
    assert reached(batches(jobq=1400, bare=9000))[workload].verdict == "missed"


def test_a_promise_without_a_result_says_so() -> None:
    judged = reached(churned(2.5))

    assert judged["steady churn through a short queue"].verdict == "missed"
    assert judged["idle waiting worker"].measured == promises.NOT_MEASURED
    assert judged["idle waiting worker"].verdict == "-"


def test_a_promise_that_needs_two_benchmarks_waits_for_both() -> None:
    assert reached(batches(jobq=1400))["one at a time, one thread"].verdict == "-"


def test_the_newest_result_of_a_benchmark_counts(tmp_path: Path) -> None:
    old, new = churned(9.0), churned(1.0)
    old["date"] = "2026-11-21T23:59:59+00:00"
    found = kept.load(keep(tmp_path / "results", new, old))

    assert found["churn"]["results"][0]["growth"] == 1.0


def test_nothing_to_render_is_an_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert report.main(["--results", str(tmp_path), "--page", str(tmp_path / "page.md")]) == 1
    assert "no results" in capsys.readouterr().err
    assert not (tmp_path / "page.md").exists()


@pytest.mark.skipif(not find_spec("matplotlib"), reason="the extra `bench` is not installed")
@pytest.mark.filterwarnings("default")  # what matplotlib and its fonts warn of is not jobq's
def test_plots_are_drawn_and_the_same_results_give_the_same_files(tmp_path: Path) -> None:
    page, text = render(tmp_path, batches(jobq=1400), churned(1.1))
    images = {path.name: path.read_bytes() for path in (page.parent / "img").iterdir()}
    assert report.main(["--results", str(tmp_path / "results"), "--page", str(page)]) == 0

    assert images.keys() == {"batches.svg", "churn.svg"}
    assert "(img/batches.svg)" in text
    assert page.read_text() == text
    assert {path.name: path.read_bytes() for path in (page.parent / "img").iterdir()} == images


def test_the_page_in_the_docs_is_what_the_kept_results_render() -> None:
    """After `make bench ARGS=--keep` comes `python -m benchmarks.report`."""
    found = kept.load(kept.RESULTS)
    images = report.PAGE.parent / report.IMAGES
    drawn = {name: f"{name}.svg" for name in report.ALTERNATIVES if name in found}

    assert [file for file in drawn.values() if not (images / file).exists()] == []
    assert report.PAGE.read_text() == report.page(found, drawn)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("batches", "--rounds 1 --batches 10 --scale 0.01 --sides jobq sqlite3_hand"),
        ("loops", "--rounds 1 --seconds 0.02 --sides jobq sqlite3_hand"),
        ("enqueuers", "--rounds 1 --seconds 0.02 --threads 2 --sides jobq sqlite3_hand"),
        ("payloads", "--rounds 1 --seconds 0.02 --sizes 0 200 --sides jobq"),
        ("crews", "--rounds 1 --seconds 0.05 --processes 2 --sides jobq"),
        ("contention", "--rounds 1 --seconds 0.3 --processes 2"),
    ],
)
def test_what_a_benchmark_keeps_has_its_table_and_can_be_judged(
    tmp_path: Path, name: str, options: str
) -> None:
    from benchmarks.__main__ import ALL

    file = tmp_path / "results.json"
    assert ALL[name].main([*options.split(), "--dir", str(tmp_path), "--json", str(file)]) == 0
    kept_so = json.loads(file.read_text())

    table = TABLES[name](kept_so)
    assert len(table) > 2
    assert len({line.count("|") for line in table if line}) <= 2
    assert promises.judge({name: kept_so})


def test_every_benchmark_that_has_a_table_or_a_promise_is_run_by_the_one_command() -> None:
    from benchmarks.__main__ import ALL

    promised = {name for promise in promises.PROMISES for name in promise.benchmarks}
    assert TABLES.keys() | promised <= ALL.keys()
