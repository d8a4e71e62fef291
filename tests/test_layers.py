"""Who may import whom: the arrows of ARCHITECTURE.md as a table, and the few lines that read it.

A new module gets a row in `MAY_IMPORT`; until it has one, the test fails. An import counts
wherever it stands: at the top, inside a function, or for the type checker only.
"""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "jobq"

LEAVES = (
    "errors",
    "states",
    "clock",
    "options",
    "backoff",
    "ids",
    "codec",
    "topic",
    "rate",
    "shares",
    "stride",
    "job",
    "selector",
)
"""The modules under all others. Each may import those before it: so they have no cycle."""

ADAPTERS = {"repo.memory.*", "repo.lmdb.*", "repo.mixed.*"}
BELOW_ADAPTERS = {
    *(
        "repo.base",
        "repo.flow",
        "repo.repositories",
        "repo.transactional",
        "repo.entry",
        "repo.forking",
        "repo.surely",
        "repo.watch",
    ),
    *LEAVES,
}

# A row `name.*` stands for a package and all that is in it, and these may import one another.
MAY_IMPORT: dict[str, set[str]] = {
    **{leaf: set(LEAVES[:at]) for at, leaf in enumerate(LEAVES)},
    "repo": set(),  # only makes a package of the folder
    "repo.base": {*LEAVES},
    "repo.entry": {"errors"},
    "repo.surely": set(),
    "repo.forking": set(),
    "repo.flow": set(),  # values and what keeps them, by number and name
    "repo.repositories": {"repo.base", "repo.flow", *LEAVES},
    "repo.watch": set(),
    "repo.operations.*": {"repo.base", "repo.flow", "repo.repositories", "repo.watch", *LEAVES},
    "repo.transactional": {
        "repo.base",
        "repo.repositories",
        "repo.operations.*",
        "repo.watch",
        *LEAVES,
    },
    "repo.memory.*": {"repo.operations.*", *BELOW_ADAPTERS},
    # Never the other one. An index that was kept elsewhere is rebuilt as the file is opened.
    "repo.lmdb.*": {"repo.operations.*", *BELOW_ADAPTERS},
    # The one place where two adapters meet: the jobs of one, the topics of the other.
    "repo.mixed.*": {"repo.memory.*", "repo.lmdb.*", "repo.operations.*", *BELOW_ADAPTERS},
    "service.*": {"repo.base", *LEAVES},  # never an adapter
    "factory": {"repo.base", *ADAPTERS, "service.*", *LEAVES},
    "cli.*": {"factory", "service.*", "repo.base", *LEAVES},  # repo.base: what reads return
    "__init__": {"factory", "service.*", "repo.base", *LEAVES},
    "__main__": {"cli.*"},
}


def modules() -> dict[str, Path]:
    """Every module of jobq by its dotted name below `jobq`; a package has its folder's name."""
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        if len(parts) > 1 and parts[-1] == "__init__":
            parts = parts[:-1]
        found[".".join(parts)] = path
    return found


MODULES = modules()


def row_of(module: str) -> str | None:
    """The row of the table that *module* falls under, if there is one."""
    if module in MAY_IMPORT:
        return module
    parts = module.split(".")
    packages = (".".join(parts[:end]) + ".*" for end in range(len(parts), 0, -1))
    return next((package for package in packages if package in MAY_IMPORT), None)


def imported(source: str) -> Iterator[str]:
    """The modules of jobq that *source* imports, `__init__` for the package itself."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            # `from jobq.repo import base` imports a module, `from jobq.repo.base import Store` not.
            inside = [f"{node.module}.{alias.name}" for alias in node.names]
            names = [
                name if name.removeprefix("jobq.") in MODULES else str(node.module)
                for name in inside
            ]
        else:
            continue
        for name in names:
            if name == "jobq":
                yield "__init__"
            elif name.startswith("jobq."):
                yield name.removeprefix("jobq.")


@pytest.mark.parametrize("module", MODULES)
def test_a_module_imports_only_what_its_row_allows(module: str) -> None:
    row = row_of(module)
    assert row is not None, f"jobq.{module} has no row in MAY_IMPORT of {__file__}"

    used = {row_of(name) or name for name in imported(MODULES[module].read_text())}
    assert used - MAY_IMPORT[row] <= {row}


@pytest.mark.parametrize("row", MAY_IMPORT)
def test_a_row_of_the_table_has_its_module(row: str) -> None:
    assert row.removesuffix(".*") in MODULES


def test_only_the_factory_names_adapters_and_they_meet_in_the_mixed_one_alone() -> None:
    knowing = {row for row, allowed in MAY_IMPORT.items() if allowed & ADAPTERS}

    assert knowing == {"factory", "repo.mixed.*"}


def test_an_import_counts_wherever_it_stands() -> None:
    source = """
from typing import TYPE_CHECKING
import jobq.errors as wrong
import os.path, jobq
if TYPE_CHECKING:
    from jobq.repo.base import Store
def late():
    from jobq import states
    from jobq.repo import base, Unknown
"""

    assert set(imported(source)) == {"errors", "__init__", "repo.base", "states", "repo"}


@pytest.mark.parametrize(
    ("module", "unwanted"),
    [
        ("jobq", ["asyncio", "click", "multiprocessing", "concurrent.futures"]),
        ("jobq.cli", ["asyncio", "multiprocessing", "concurrent.futures", "lmdb"]),
    ],
)
def test_importing_stays_light(module: str, unwanted: list[str]) -> None:
    loaded = subprocess.run(
        [sys.executable, "-c", f"import {module}, sys; print(*sys.modules)"],
        capture_output=True,
        text=True,
        check=True,
        cwd=PACKAGE.parent,
    ).stdout.split()

    assert module in loaded
    assert set(loaded) & set(unwanted) == set()
