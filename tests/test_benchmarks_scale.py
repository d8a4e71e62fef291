"""The benchmarks of backlogs, of waiting and of what else goes on run, at a small size."""

import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from benchmarks import beside_python, churn, facts, falling_due, filling, scale, waiters
from benchmarks.processes import Child
from benchmarks.tables import TABLES
from benchmarks.waiters import Crowd

Main = Callable[[Sequence[str]], int]


def results(main: Main, tmp_path: Path, *options: str) -> Any:
    """What a benchmark keeps; it has gone well, and left nothing else."""
    (tmp_path / "queues").mkdir()
    file = tmp_path / "results.json"
    assert main([*options, "--dir", str(tmp_path / "queues"), "--json", str(file)]) == 0
    assert list((tmp_path / "queues").iterdir()) == []
    kept = json.loads(file.read_text())
    assert len(TABLES[kept["benchmark"]](kept)) > 2  # its part of the page
    return kept["results"]


def test_every_backlog_has_figures_of_each_verb(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scale, "CALLS", 3)
    found = results(scale.main, tmp_path, "--sizes", "100", "--other", "200", "--rounds", "1")

    titles = ["100 ready", "200 delayed", "200 done", "200 reserved"]
    assert [one["backlog"] for one in found] == titles
    for one in found:
        assert one["calls_us"].keys() == {"reserve", "done", "enqueue", "promote"}
        assert min(figures["p50"] for figures in one["calls_us"].values()) > 0
        assert one["file_bytes"] > 200 * 100
        assert one["rss_anon_kib"] > 1000


def test_the_series_of_churn_goes_to_its_last_job_and_a_drained_file_is_empty(
    tmp_path: Path,
) -> None:
    nothing, some, backlog = results(churn.main, tmp_path, "--jobs", "30000", "--backlog", "3000")

    assert nothing["points"][-1]["jobs"] == some["points"][-1]["jobs"] == 30_000
    assert some["points"][-1]["in_use"] > 5 * nothing["points"][-1]["in_use"]
    assert max(point["waiting"] for point in backlog["points"]) > 2000
    last = backlog["points"][-1]
    assert (last["jobs"], last["waiting"]) == (4500, 0)
    assert last["in_use"] < 100_000 < last["length"]


def test_growth_is_counted_from_where_the_file_has_settled() -> None:
    points = [churn.Point(jobs, 0, 1.0, length, 0)
              for jobs, length in ((0, 1), (10, 2), (500, 4), (1000, 6))]  # fmt: skip

    assert churn.growth(points, kept=0) == 3.0
    assert churn.growth(points, kept=250) == 1.5


@pytest.mark.parametrize("kind", ["deadlines", "jobs of a killed holder"])
def test_all_that_falls_due_is_moved_while_others_go_on(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(falling_due, "BEFORE_S", 0.2)
    monkeypatch.setattr(falling_due, "SET_UP_S", 1.0)
    found = results(falling_due.main, tmp_path, "--jobs", "300", "--kinds", kind)

    assert {one["waiters"] for one in found} == ({1} if "killed" in kind else {0, 1})
    for one in found:
        assert one["during"]["lives"] > 0
        assert one["during"]["worst_ms"] >= one["during"]["p50_ms"] > 0


def test_a_crowd_has_every_job_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waiters, "BURSTS", 2)
    found = waiters.measure(tmp_path / "queue", Crowd("a few", 2, 2), 10, 0.2)

    assert len(found["ms"]) == 10
    assert len(found["burst_ms"]) == 2
    assert found["idle_percent"] >= 0


def test_a_crowd_that_waits_for_another_topic_has_none(tmp_path: Path) -> None:
    found = waiters.measure(tmp_path / "queue", Crowd("others", 1, 2, ("other", "more")), 5, 0.2)

    assert not found["jobs_are_theirs"]
    assert "ms" not in found


def test_who_computes_beside_is_counted(tmp_path: Path) -> None:
    found = results(beside_python.main, tmp_path, "--rounds", "1", "--seconds", "0.05")

    computed = {(one["whose"], one["batch"], one["way"]): one["computed"] for one in found}
    assert computed["the process itself", 1, beside_python.ALONE] == 0
    assert computed["the process itself", 100, "beside one, 5 ms"] > 0
    assert ("another process", 1, "and computes, 5 ms") in computed


def test_the_interval_of_switches_is_as_before() -> None:
    before = sys.getswitchinterval()
    with beside_python.computing(0.0001):
        assert sys.getswitchinterval() == pytest.approx(0.0001)

    assert sys.getswitchinterval() == before


def test_the_file_of_a_full_queue_is_nearly_all_in_use(tmp_path: Path) -> None:
    filling.ready(tmp_path / "queue", 2_000)
    with Child(scale.look, str(tmp_path / "queue")) as child:
        file = facts.FileFacts(*child.hear())

    assert file.length >= file.taken >= file.in_use > 0.9 * file.length
    assert file.length == (tmp_path / "queue" / "data.mdb").stat().st_size
