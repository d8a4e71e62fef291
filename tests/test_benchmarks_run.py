"""`python -m benchmarks`: all of them by one command, which keeps results only when asked to."""

import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from benchmarks import __main__ as command
from benchmarks.__main__ import ALL, Benchmark


def test_results_are_kept_only_when_asked_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    quick = ALL["crews"]._replace(quick="--rounds 1 --seconds 0.02 --processes 1 --sides jobq")
    monkeypatch.setitem(ALL, "crews", quick)
    where = ["--dir", str(tmp_path), "--results", str(tmp_path / "results")]

    assert command.main(["crews", *where]) == 0
    assert not (tmp_path / "results").exists()
    assert command.main(["crews", *where, "--keep"]) == 0
    (file,) = (tmp_path / "results").iterdir()
    assert json.loads(file.read_text())["benchmark"] == "crews"
    assert "what was promised" in capsys.readouterr().out


def test_one_that_fails_does_not_stop_the_others(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    ran = []

    def lost(_: Sequence[str]) -> int:
        raise AssertionError("3 jobs sent, 2 came")

    def good(words: Sequence[str]) -> int:
        ran.append(list(words[:2]))
        return 0

    monkeypatch.setitem(ALL, "crews", Benchmark(lost))
    monkeypatch.setitem(ALL, "loops", Benchmark(good, "--rounds 1", "--rounds 9"))

    assert command.main(["crews", "loops"]) == 1
    assert command.main(["loops", "--full"]) == 0
    assert ran == [["--rounds", "1"], ["--rounds", "9"]]
    assert "3 jobs sent, 2 came" in capsys.readouterr().err


def test_a_name_that_is_no_benchmark_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        command.main(["speed"])

    assert "no such benchmark: speed" in capsys.readouterr().err


@pytest.mark.parametrize("name", ALL)
def test_both_forms_of_a_benchmark_are_options_that_it_has(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """`--help` at the end is only reached if all before it are known and make sense."""
    for form in (ALL[name].quick, ALL[name].full):
        with pytest.raises(SystemExit, match="0"):
            ALL[name].main([*form.split(), "--help"])
    assert name in capsys.readouterr().out
