"""The bench proves itself: jobq is broken on purpose, and each time its own tests say so.

The tests that find nothing wrong with jobq are run once more, on a copy in which one thing is
broken, and those that are there to notice it have to fail: for each kind of store that is broken,
and for no other. `test_power_faults.py` does the same for power cuts.

The short form tries a few breaks, others in every run; `pytest -m storm` all of them.
"""

import random
from pathlib import Path
from typing import Final

import pytest

from tests.crash.conftest import Say
from tests.torture.breaks import (
    breaks_of_files,
    breaks_of_flow,
    breaks_of_jobs,
    breaks_of_machines,
    breaks_of_stores,
)
from tests.torture.breaks.broken import (
    LMDB,
    ROOT,
    Break,
    Cut,
    Said,
    broken_in,
    cannot_tell,
    copy_of_all,
    misses,
    run,
    with_cut,
)

BREAKS: Final = {
    **breaks_of_jobs.ALL,
    **breaks_of_flow.ALL,
    **breaks_of_stores.ALL,
    **breaks_of_files.ALL,
    **breaks_of_machines.ALL,
}

LASTING: Final = "repo/test_contract_watch.py"
"""Who is not called there sleeps for long; and on a busy machine some look in time all the same."""

QUICK: Final = [
    name
    for name, broken in BREAKS.items()
    if all(test.startswith("repo/test_contract") for test in broken.caught_by)
    and not any(test.startswith(LASTING) for test in broken.caught_by)
]
"""Those that no process has to be started for, and no random story be told."""

SOME: Final = 2
"""Breaks that the short form tries."""


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of jobq and its tests."""
    return copy_of_all(tmp_path_factory.mktemp("broken") / "tree")


def look(tree: Path, broken: Break) -> list[str]:
    """What the tests have missed of a break."""
    with broken_in(tree, broken.cuts):
        said = run(tree, broken.caught_by)
    if cannot := cannot_tell(broken, said):
        pytest.skip(f"cannot be run here: {', '.join(cannot)}")
    return misses(broken, said)


@pytest.mark.parametrize("name", BREAKS)
def test_every_break_has_its_place_in_jobq_and_tests_that_are_to_notice_it(name: str) -> None:
    """If this fails, jobq or a test was changed: change the break with it."""
    broken = BREAKS[name]
    sources: dict[str, str] = {}
    for cut in broken.cuts:
        source = sources.get(cut.file) or (ROOT / "jobq" / cut.file).read_text()
        sources[cut.file] = with_cut(cut, source)

    for file, source in sources.items():
        compile(source, file, "exec")
    for test in broken.caught_by:
        file, _, function = test.partition("[")[0].partition("::")
        assert f"\ndef {function}(" in (ROOT / "tests" / file).read_text()


def test_some_breaks_are_noticed(tree: Path, seed: int, say: Say) -> None:
    for name in random.Random(seed).sample(QUICK, SOME):
        say(name)
        assert look(tree, BREAKS[name]) == [], name


@pytest.mark.storm
@pytest.mark.parametrize("name", BREAKS)
def test_every_break_is_noticed(name: str, tree: Path) -> None:
    assert look(tree, BREAKS[name]) == []


CATCHERS: Final = sorted({test for broken in BREAKS.values() for test in broken.caught_by})


@pytest.mark.storm
@pytest.mark.parametrize("file", sorted({test.partition("::")[0] for test in CATCHERS}))
def test_what_notices_breaks_finds_nothing_where_nothing_is_broken(file: str, tree: Path) -> None:
    tests = [test for test in CATCHERS if test.startswith(f"{file}::")]
    said = run(tree, tests)

    assert not said.failed, said.output
    assert len(said.passed) + len(said.skipped) >= len(tests)


# And who judges the judge.

FENCING: Final = "repo/test_contract_fencing.py::test_a_token_that_was_never_given_settles_nothing"
NOTHING: Final = Break((), (FENCING,))


def test_it_is_told_what_the_tests_have_missed() -> None:
    unseen = Said({}, {f"{FENCING}[memory-0]", f"{FENCING}[lmdb-0]"}, "")
    half_seen = Said({f"{FENCING}[memory-0]": "assert 1 == 2"}, {f"{FENCING}[lmdb-0]"}, "")
    seen = Said({f"{FENCING}[memory-0]": "assert 1 == 2", f"{FENCING}[lmdb-0]": "no"}, set(), "")

    assert misses(NOTHING, unseen) == [f"{FENCING} has not noticed it"]
    assert misses(NOTHING, half_seen) == [
        f"{FENCING} has noticed it for ['memory'], not ['lmdb', 'memory']"
    ]
    assert misses(NOTHING, seen) == []
    assert misses(NOTHING._replace(kinds=LMDB), seen) == [
        f"{FENCING} has noticed it for ['lmdb', 'memory'], not ['lmdb']"
    ]


def test_only_a_parameter_that_is_a_kind_of_store_is_taken_for_one() -> None:
    seen = Said({f"{FENCING}[topics in memory-1]": "assert 1 == 2"}, set(), "")

    assert misses(NOTHING._replace(kinds=LMDB), seen) == []


def test_nobody_is_asked_to_notice_what_cannot_be_tried_on_this_machine() -> None:
    seen = Said({f"{FENCING}[lmdb-0]": "assert 1 == 2"}, set(), "")

    assert cannot_tell(NOTHING, seen) == []
    assert cannot_tell(NOTHING, seen._replace(skipped={f"{FENCING}[memory-0]"})) == []
    assert cannot_tell(NOTHING, Said({}, set(), "", {f"{FENCING}[lmdb-0]"})) == [FENCING]


def test_a_break_that_does_not_run_is_none() -> None:
    """What breaks everything shows nothing: any test would notice it."""
    why = "NameError: name 'token' is not defined\njobq/repo/operations/settle.py:99: in settle"

    assert "does not run" in misses(NOTHING, Said({f"{FENCING}[lmdb-0]": why}, set(), ""))[0]


@pytest.mark.storm
def test_a_change_that_breaks_nothing_is_not_noticed(tree: Path) -> None:
    cut = Cut("repo/operations/settle.py", "boot_us = tx.boot_us\n", "boot_us = tx.boot_us + 0\n")

    assert look(tree, Break((cut,), (FENCING,))) == [f"{FENCING} has not noticed it"]
