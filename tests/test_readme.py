"""README and examples are run as they stand; what an example prints stands in its docstring."""

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
EXAMPLES = sorted(set((ROOT / "examples").glob("*.py")) - {ROOT / "examples" / "demo.py"})
TIME_LIMIT_S = 60


def run(script: Path, where: Path) -> str:
    """What *script* prints when it is run in *where*; a warning is an error there too."""
    ended = subprocess.run(
        [sys.executable, "-W", "error", str(script)],
        cwd=where,
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONIOENCODING": "utf-8"},
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


def test_the_python_of_the_readme_runs(tmp_path: Path) -> None:
    code = python_blocks((ROOT / "README.md").read_text())
    assert "import jobq" in code

    script = tmp_path / "README.py"
    script.write_text(code)
    run(script, tmp_path)


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_prints_what_it_says(example: Path, tmp_path: Path) -> None:
    docstring = ast.get_docstring(ast.parse(example.read_text())) or ""
    _, promise, printed = docstring.partition("Prints:\n")
    assert promise, f"{example.name} does not say what it prints"

    assert run(example, tmp_path).rstrip() == printed.rstrip()


def test_the_index_of_the_examples_names_every_one() -> None:
    index = (ROOT / "examples" / "README.md").read_text()
    programs = [
        path.name for path in (ROOT / "examples").iterdir() if path.suffix in {".py", ".sh"}
    ]

    assert sorted(set(re.findall(r"\]\((\w+\.\w+)\)", index))) == sorted(programs)


def test_blocks_of_other_languages_are_not_run() -> None:
    markdown = "a\n```console\n$ x\n```\n```python\nb = 1\n```\nc\n"

    assert python_blocks(markdown).split() == ["b", "=", "1"]
    assert python_blocks(markdown).splitlines()[5] == "b = 1"
