"""Where and when a benchmark ran, and its results as data.

A result file is one JSON object: `benchmark`, `question`, `date`, `commit`, `machine`, `settings`
and `results`. Files of several runs can be compared without this program.
"""

import json
import os
import platform
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import lmdb

Facts = dict[str, Any]


@contextmanager
def workspace(parent: Path | None) -> Iterator[Path]:
    """A new directory under *parent* (or under the current one), removed at the end.

    Not under the system's temporary directory: where that is memory, nothing is durable and
    every figure is wrong.
    """
    with tempfile.TemporaryDirectory(prefix=".bench-", dir=parent or Path.cwd()) as path:
        yield Path(path)


def facts(directory: Path) -> Facts:
    """What a figure depends on: processors, versions, the file system and one flush of it."""
    return {
        "cpus": os.cpu_count(),
        "cpu": _cpu_model(),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "lmdb": ".".join(map(str, lmdb.version())),
        "sqlite": sqlite3.sqlite_version,
        "file_system": _file_system(directory),
        "flush_us": round(flush_us(directory), 1),
        "load": os.getloadavg()[0],
    }


def describe(machine: Facts) -> str:
    """One line for people."""
    return (
        f"{machine['cpus']} of {machine['cpu']}, {machine['file_system']}, "
        f"a flush of 4 KiB {machine['flush_us']:.0f} µs, load {machine['load']:.1f}; "
        f"Python {machine['python']}, LMDB {machine['lmdb']}, SQLite {machine['sqlite']}, "
        f"Linux {machine['kernel']}"
    )


def flush_us(directory: Path, times: int = 200) -> float:
    """The median time of writing 4 KiB of a file in place and `fdatasync`, in microseconds."""
    path = directory / "flush"
    block = os.urandom(4096)
    taken = []
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        os.pwrite(descriptor, block * 16, 0)
        os.fsync(descriptor)
        for number in range(times):
            start = time.perf_counter_ns()
            os.pwrite(descriptor, block, 4096 * (number % 16))
            os.fdatasync(descriptor)
            taken.append(time.perf_counter_ns() - start)
    finally:
        os.close(descriptor)
        path.unlink()
    return statistics.median(taken) / 1000


def keep(
    file: Path,
    module: str,
    question: str,
    machine: Facts,
    settings: Mapping[str, Any],
    results: Any,
) -> None:
    """Write the result file."""
    record = {
        "benchmark": module,
        "question": question,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": _commit(),
        "machine": machine,
        "settings": dict(settings),
        "results": results,
    }
    file.write_text(json.dumps(record, indent=2, ensure_ascii=False) + "\n")
    print(f"\nkept in {file}")


def warn_if_busy() -> None:
    """Say on stderr that others use the processors: latencies are then partly of their making."""
    load = os.getloadavg()[0]
    if load > 0.3 * (os.cpu_count() or 1):
        print(f"warning: the machine is busy (load {load:.1f})", file=sys.stderr)


def _cpu_model() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _file_system(directory: Path) -> str:
    """The type of the file system that holds *directory*: the longest mount point above it."""
    here = str(directory.resolve())
    best, kind = "", "unknown"
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        left, _, right = line.partition(" - ")
        point = left.split()[4]
        inside = here == point or here.startswith(point.rstrip("/") + "/")
        if inside and len(point) >= len(best):
            best, kind = point, right.split()[0]
    return kind


def _commit() -> str | None:
    """The commit that ran, with a + where files have changed since; None outside of git."""
    here = Path(__file__).parent
    try:
        commit = _git(here, "rev-parse", "--short=12", "HEAD")
        changed = _git(here, "status", "--porcelain", "--untracked-files=no")
    except (OSError, subprocess.CalledProcessError):
        return None
    return commit + ("+" if changed else "")


def _git(directory: Path, *arguments: str) -> str:
    return subprocess.run(
        ["git", *arguments],
        cwd=directory,
        check=True,
        capture_output=True,
        text=True,
    ).stdout.strip()
