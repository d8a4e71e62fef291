"""`jobq bench`: what it tells of a disk, and that it leaves nothing there."""

import json
import signal
import sys
from pathlib import Path

import pytest

from jobq import codec
from jobq.cli import measuring
from jobq.cli.measuring import Times
from tests.cli.conftest import TIME_LIMIT_S, call, start, words
from tests.conftest import eventually

QUICK = ("--seconds", "0.1")


def test_it_measures_flushes_lives_threads_and_the_wake_up(tmp_path: Path) -> None:
    (told,) = words(call("bench", tmp_path, *QUICK, "--json"))
    measured = json.loads(told)

    assert (measured["directory"], measured["durability"]) == (str(tmp_path), "full")
    for times in (measured["flush"], measured["wake_up"]):
        assert 0 < times["p50_ms"] <= times["p99_ms"] <= times["worst_ms"]
        assert times["calls"] > 0
    assert [one["batch"] for one in measured["lives"]] == [1, 10, 100, 1000]
    for one in measured["lives"]:
        calls_ms = one["enqueue_ms"] + one["reserve_ms"] + one["done_ms"]
        assert one["lives_per_s"] == pytest.approx(1000 * one["batch"] / calls_ms)
    assert measured["enqueues_per_s"] > 0
    assert measured["threads"] == 8


def test_it_leaves_nothing_in_the_directory(tmp_path: Path) -> None:
    words(call("bench", tmp_path, *QUICK))

    assert list(tmp_path.iterdir()) == []


def test_people_get_two_tables_and_a_sentence(tmp_path: Path) -> None:
    lines = words(call("bench", tmp_path, *QUICK, "--durability", "relaxed"))

    assert "durability relaxed" in lines[0]
    assert [line.split()[0] for line in lines[3:7]] == ["1", "10", "100", "1,000"]
    assert lines[8].endswith("enqueued by 8 threads, each one at a time")
    assert lines[-2].startswith("one flush of 4 KiB")
    assert lines[-1].count(" ms") == 3


STRETCHED = """
from jobq.cli import main, measuring

def measure(*args, real=measuring.{stage}):
    return real(*args[:-1], 600.0)

measuring.{stage} = measure
main(prog_name="jobq")
"""
"""The command, which does not get past one of its measurements before it is told to end."""


def stretched(stage: str) -> tuple[str, ...]:
    return (sys.executable, "-W", "error", "-c", STRETCHED.format(stage=stage))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_it_and_it_leaves_nothing(tmp_path: Path, number: signal.Signals) -> None:
    with start("bench", tmp_path, "--seconds", "0.7", words=stretched("lives")) as process:
        eventually(lambda: list(tmp_path.glob(".jobq-bench-*/lives-1/data.mdb")))
        process.send_signal(number)
        out, error = process.communicate(timeout=TIME_LIMIT_S)

    assert (process.returncode, out) == (128 + number, b"")
    assert b"Traceback" not in error, error.decode()
    assert list(tmp_path.iterdir()) == []


STRUCK = """
import os, pathlib, signal
from jobq.cli import main

def open_and_strike(path, *args, real=pathlib.Path.open, **kwargs):
    opened = real(path, *args, **kwargs)
    os.kill(os.getpid(), signal.SIGHUP)
    return opened

pathlib.Path.open = open_and_strike
main(prog_name="jobq")
"""
"""The command, and a signal each time that a file was opened: before anybody can close it."""


def test_a_signal_strikes_nowhere_in_the_middle_of_what_is_done(tmp_path: Path) -> None:
    command = (sys.executable, "-W", "error", "-c", STRUCK)
    with start("bench", tmp_path, "--seconds", "3.5", words=command) as process:
        out, error = process.communicate(timeout=TIME_LIMIT_S)

    assert (process.returncode, out) == (128 + signal.SIGHUP, b"")
    assert [line.split(" in ")[0] for line in error.decode().splitlines()] == ["jobq: measuring"]
    assert list(tmp_path.iterdir()) == []


def test_an_interrupt_while_the_other_process_waits_ends_that_too(tmp_path: Path) -> None:
    with start("bench", tmp_path, "--seconds", "0.7", words=stretched("wake_up")) as process:
        eventually(lambda: list(tmp_path.glob(".jobq-bench-*/wake-up/bell")))
        process.terminate()
        out, error = process.communicate(timeout=TIME_LIMIT_S)  # the other one holds it no longer

    assert (process.returncode, out) == (128 + signal.SIGTERM, b"")
    assert b"Traceback" not in error, error.decode()
    assert list(tmp_path.iterdir()) == []


def test_a_directory_that_is_not_there_is_not_made(tmp_path: Path) -> None:
    missing = call("bench", tmp_path / "missing")
    (tmp_path / "file").touch()
    file = call("bench", tmp_path / "file")

    assert (missing.exit_code, file.exit_code) == (3, 3)
    assert "cannot measure in" in missing.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_flush_that_reaches_no_disk_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(measuring, "NO_FLUSH_MS", float("inf"))
    fast = call("bench", tmp_path, *QUICK)
    monkeypatch.setattr(measuring, "NO_FLUSH_MS", 0)
    slow = call("bench", tmp_path, *QUICK)

    assert "reaches no disk" in fast.stderr
    assert "reaches no disk" not in slow.stderr


def test_another_process_that_cannot_run_is_an_error_of_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    failed = call("bench", tmp_path, *QUICK)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "missing"))
    missing = call("bench", tmp_path, *QUICK)

    assert (failed.exit_code, missing.exit_code) == (5, 5)
    assert "the process that waits for jobs has failed" in failed.stderr
    assert "cannot start" in missing.stderr
    assert failed.stdout == missing.stdout == ""
    assert list(tmp_path.iterdir()) == []


def test_payloads_have_about_200_bytes() -> None:
    assert 180 <= len(codec.pack(measuring.PAYLOAD, limit=codec.LIMIT)) <= 220


def test_the_worst_of_a_hundred_is_no_p99() -> None:
    assert Times.of([1_000_000] * 99 + [9_000_000]) == Times(100, 1.0, 1.0, 9.0)
