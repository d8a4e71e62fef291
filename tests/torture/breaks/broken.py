"""A copy of jobq and its tests in which one thing is broken, and what the tests say of it.

A break is a few lines of jobq's source in place of others. It is made in a tree of its own, and
pytest runs there as it does here: so it holds in every thread and process that a test starts,
however it starts it; and who judges is the suite itself, not something made for the purpose.
"""

import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final, NamedTuple
from xml.etree import ElementTree

ROOT: Final = Path(__file__).parents[3]

MEMORY: Final = frozenset({"memory"})
LMDB: Final = frozenset({"lmdb"})
MIXED: Final = frozenset({"mixed"})
DURABLE: Final = LMDB | MIXED
EVERY: Final = MEMORY | LMDB | MIXED
"""Kinds of stores, as the parameters of tests name them."""

PATIENCE_S: Final = 240.0
"""A break may make tests hang, each until it gives up; and what hangs for ever has no verdict.
Below the `faulthandler_timeout` of pytest, which would end all tests."""

_OURS: Final = {
    *("PYTEST_ADDOPTS", "PYTEST_CURRENT_TEST", "PYTEST_XDIST_WORKER", "PYTEST_XDIST_TESTRUNUID"),
    *("PYTHONDONTWRITEBYTECODE", "PYTHONPYCACHEPREFIX", "JOBQ_SEED"),
}
"""What the environment says of this run alone. What is compiled in a tree stays in it."""

_BLUNDERS: Final = re.compile(
    r"^\W*(NameError|UnboundLocalError|AttributeError|ImportError|SyntaxError|IndentationError)\b",
    re.MULTILINE,
)
"""What fails so is the break itself, which does not run: anything would notice that."""


class Cut(NamedTuple):
    """Lines of a file, and what takes their place.

    Attributes:
        file: Below `jobq/`.
        old: Stands there once.
    """

    file: str
    old: str
    new: str


class Break(NamedTuple):
    """One thing that is broken on purpose.

    Attributes:
        cuts: What makes it so.
        caught_by: The tests below `tests/` that have to fail, each of them.
        kinds: The kinds of stores that are broken: a test of all of them fails for these, and
            passes for the others.
    """

    cuts: tuple[Cut, ...]
    caught_by: tuple[str, ...]
    kinds: frozenset[str] = EVERY


class Said(NamedTuple):
    """What a run of tests said.

    Attributes:
        failed: The tests that failed, with why.
        passed: Those that passed.
        output: All that pytest wrote.
        skipped: Those that this machine does not allow.
    """

    failed: Mapping[str, str]
    passed: Collection[str]
    output: str
    skipped: Collection[str] = ()


def copy_of_all(path: Path) -> Path:
    """jobq and its tests, at *path*."""
    path.mkdir()
    for part in ("jobq", "tests"):
        shutil.copytree(ROOT / part, path / part, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy2(ROOT / "pyproject.toml", path)
    return path


@contextmanager
def broken_in(tree: Path, cuts: Sequence[Cut]) -> Iterator[None]:
    """These cuts are made in a tree; at the end it is as it was, times included.

    So what was compiled there of all other files, and what is compiled of these, stays right.
    """
    try:
        for cut in cuts:
            file = tree / "jobq" / cut.file
            file.write_text(with_cut(cut, file.read_text()))
        yield
    finally:
        for cut in cuts:
            shutil.copy2(ROOT / "jobq" / cut.file, tree / "jobq" / cut.file)


def with_cut(cut: Cut, source: str) -> str:
    """The source with a cut in it."""
    assert source.count(cut.old) == 1, (
        f"jobq/{cut.file} has changed: it is to hold this once, so that it can be broken there:\n"
        f"{cut.old}"
    )
    assert cut.old != cut.new
    return source.replace(cut.old, cut.new)


def run(tree: Path, tests: Collection[str]) -> Said:
    """Run tests in a tree; no process of theirs is left at the end."""
    report = tree / "report.xml"
    report.unlink(missing_ok=True)  # whoever ends by a signal or a deadline writes none
    ids = [f"tests/{test}" for test in tests]
    env = {name: value for name, value in os.environ.items() if name not in _OURS}
    process = subprocess.Popen(
        [sys.executable, "-m", "pytest", "-q", "-p", "tests.torture.breaks.unshrunk",
         "-p", "no:cacheprovider", "--tb=short", "--basetemp", str(tree / "tmp"),
         f"--junitxml={report}", *ids],
        cwd=tree, env={**env, "PYTHONPATH": str(tree)}, start_new_session=True, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    try:
        output, _ = process.communicate(timeout=PATIENCE_S)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    # 0: all passed. 1: tests failed. All else is no verdict.
    assert process.returncode in {0, 1}, f"the tests did not run:\n{output}"
    return _read(report, output)


def _read(report: Path, output: str) -> Said:
    failed: dict[str, str] = {}
    passed: set[str] = set()
    skipped: set[str] = set()
    for case in ElementTree.parse(report).iter("testcase"):
        place = case.get("classname", "").removeprefix("tests.").replace(".", "/")
        name = f"{place}.py::{case.get('name')}"
        for end in case:
            if end.tag in {"failure", "error"}:
                failed[name] = f"{end.get('message')}\n{end.text}"
        if name not in failed:
            (passed if case.find("skipped") is None else skipped).add(name)
    return Said(failed, passed - failed.keys(), output, skipped)


def cannot_tell(broken: Break, said: Said) -> list[str]:
    """The tests that should have noticed it, and cannot be run on this machine."""
    ran = [*said.failed, *said.passed]
    return [
        test
        for test in broken.caught_by
        if any(_is_of(test, name) for name in said.skipped)
        and not any(_is_of(test, name) for name in ran)
    ]


def misses(broken: Break, said: Said) -> list[str]:
    """What the tests should have noticed, and did not; or noticed for a wrong reason."""
    wrong = [
        f"{name} failed because the break does not run: {blunder.group()}"
        for name, why in said.failed.items()
        if (blunder := _BLUNDERS.search(why))
    ]
    for test in broken.caught_by:
        failed = {name for name in said.failed if _is_of(test, name)}
        if not failed:
            wrong.append(f"{test} has not noticed it")
            continue
        seen = _kinds(failed)
        expected = broken.kinds & _kinds(
            [name for name in (*said.failed, *said.passed) if _is_of(test, name)]
        )
        if seen != expected:
            wrong.append(f"{test} has noticed it for {sorted(seen)}, not {sorted(expected)}")
    return wrong


def _is_of(test: str, name: str) -> bool:
    return name == test or name.startswith(f"{test}[")


def _kinds(names: Collection[str]) -> frozenset[str]:
    """The kinds of stores in the parameters of these tests."""
    return frozenset(
        part
        for name in names
        for part in name.partition("[")[2].rstrip("]").split("-")
        if part in EVERY
    )
