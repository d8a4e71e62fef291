"""README, pages of docs/, examples: they are run as they stand, and print what their heads say."""

import ast
import itertools
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PROGRAMS = sorted(path for path in (ROOT / "examples").iterdir() if path.suffix in {".py", ".sh"})
TIME_LIMIT_S = 120


def run(script: Path, where: Path) -> str:
    """What *script* prints when it is run in *where*; a warning is an error there too."""
    python = [sys.executable, "-W", "error"]
    # `jobq` and `python` as they are after `pip install`, whether the environment is active or not.
    path = os.pathsep.join((str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)))
    ended = subprocess.run(
        [*(["sh"] if script.suffix == ".sh" else python), str(script)],
        cwd=where,
        env={
            **os.environ,
            "PATH": path,
            "PYTHONPATH": str(ROOT),
            "PYTHONIOENCODING": "utf-8",
        },
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=TIME_LIMIT_S,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


def python_blocks(markdown: str) -> str:
    """The Python of *markdown* as one module, each line where it stands in the text."""
    lines = []
    inside = False
    for line in markdown.splitlines():
        fence = line.startswith("```")
        lines.append(line if inside and not fence else "")
        if fence:
            inside = line.strip() == "```python"
    return "\n".join(lines)


@pytest.mark.parametrize("page", ["README.md", "docs/flow.md", "docs/operations.md"])
def test_the_python_of_a_page_runs(page: str, tmp_path: Path) -> None:
    code = python_blocks((ROOT / page).read_text())
    assert "import jobq" in code

    script = tmp_path / "page.py"
    script.write_text(code)
    run(script, tmp_path)


def head_of(program: Path) -> str:
    """What stands at the top of it for its reader."""
    text = program.read_text()
    if program.suffix == ".py":
        return ast.get_docstring(ast.parse(text)) or ""
    comment = itertools.takewhile(lambda line: line.startswith("#"), text.splitlines())
    return "\n".join(line[1:].removeprefix(" ") for line in comment)


@pytest.mark.parametrize(
    "example",
    [path for path in PROGRAMS if path.name != "demo.py"],  # which has a test of its own
    ids=lambda path: path.name,
)
def test_an_example_prints_what_it_says(example: Path, tmp_path: Path) -> None:
    _, promise, printed = head_of(example).partition("Prints:\n")
    assert promise, f"{example.name} does not say what it prints"

    assert run(example, tmp_path).rstrip() == printed.rstrip()


def test_the_index_of_the_examples_names_every_one() -> None:
    index = (ROOT / "examples" / "README.md").read_text()

    named = set(re.findall(r"\]\((\w+\.\w+)\)", index))
    assert sorted(named) == [path.name for path in PROGRAMS]


def test_blocks_of_other_languages_are_not_run() -> None:
    markdown = "a\n```console\n$ x\n```\n```python\nb = 1\n```\nc\n"

    assert python_blocks(markdown).split() == ["b", "=", "1"]
    assert python_blocks(markdown).splitlines()[5] == "b = 1"
