"""What pyright knows of jobq's types, as it reads them for a user's editor.

It infers less than mypy in a library that says `py.typed`: what has no annotation there is a guess
that another checker may make differently. So every name in `jobq.__all__`, and all that can be
reached from it, has to be annotated. `make check` brings pyright along; elsewhere this is skipped.
"""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import jobq

ROOT = Path(__file__).parents[2]


PYRIGHT = [sys.executable, "-m", "basedpyright"]
PUBLIC = [f"jobq.{name}" for name in jobq.__all__]
STORES = ["jobq.repo.lmdb.LmdbStore", "jobq.repo.memory.MemoryStore"]


@pytest.mark.skipif(
    importlib.util.find_spec("basedpyright") is None,
    reason="pyright is not installed here: `make check` has it",
)
def test_pyright_knows_the_type_of_every_public_name() -> None:
    # It looks for the package with the Python that comes first in PATH.
    path = os.pathsep.join((str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)))
    ended = subprocess.run(
        [*PYRIGHT, "--verifytypes", "jobq", "--ignoreexternal", "--outputjson"],
        cwd=ROOT,
        env={**os.environ, "PATH": path, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    symbols = json.loads(ended.stdout)["typeCompleteness"]["symbols"]
    known = {symbol["name"]: symbol["isTypeKnown"] for symbol in symbols}

    assert [name for name in PUBLIC + STORES if not known[name]] == [], guesses(symbols)


def guesses(symbols: list[dict[str, Any]]) -> str:
    """All that it has to guess, one a line; the public names reach only some of it."""
    return "\n".join(
        f"{symbol['name']}: {found['message'].splitlines()[0]}"
        for symbol in symbols
        for found in symbol["diagnostics"]
        if not symbol["isTypeKnown"]
    )
