"""docs/cli.md and docs/operations.md: examples do what they say, and no verb is left out."""

import re
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from jobq.cli import context
from tests.cli.conftest import ROOT, all_verbs, environment

PAGE = ROOT / "docs" / "cli.md"
OPERATIONS = ROOT / "docs" / "operations.md"
MARK = "----- the next command"


def examples(markdown: str) -> list[tuple[str, list[str]]]:
    """The commands of all console blocks, each with the lines that it prints."""
    found: list[tuple[str, list[str]]] = []
    for block in re.findall(r"^```console\n(.*?)^```$", markdown, re.MULTILINE | re.DOTALL):
        for line in block.splitlines():
            if line.startswith("$ "):
                found.append((line[2:], []))
            else:
                found[-1][1].append(line)
    return found


def is_as_told(told: list[str], printed: list[str]) -> bool:
    """Whether the lines are the same, where `…` stands for anything and space for space."""
    patterns = [
        r"\s+".join(".*".join(map(re.escape, word.split("…"))) for word in line.split())
        for line in told
    ]
    return len(told) == len(printed) and all(
        re.fullmatch(pattern, line.strip()) for pattern, line in zip(patterns, printed, strict=True)
    )


@pytest.mark.parametrize(
    ("page", "least"), [(PAGE, 20), (OPERATIONS, 10)], ids=["cli", "operations"]
)
def test_the_examples_do_what_they_say(page: Path, least: int, tmp_path: Path) -> None:
    for name, words in (("jobq", f"{sys.executable} -m jobq"), ("python", sys.executable)):
        command = tmp_path / "bin" / name
        command.parent.mkdir(exist_ok=True)
        command.write_text(f'#!/bin/sh\nexec {words} "$@"\n')
        command.chmod(command.stat().st_mode | stat.S_IXUSR)
    told = examples(page.read_text())
    script = tmp_path / "script"
    script.write_text(
        "".join(f"{line}\nlast=$?; echo '{MARK}'; (exit $last)\n" for line, _ in told)
    )
    env = environment()
    env["PATH"] = f"{tmp_path / 'bin'}:{env['PATH']}"
    ended = subprocess.run(
        ["/bin/sh", str(script)],
        stdin=subprocess.DEVNULL,
        cwd=tmp_path,
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=280,  # there are many, and `faulthandler_timeout` ends all tests after 300
        check=False,
    )
    printed = [part.splitlines() for part in ended.stdout.split(f"{MARK}\n")][:-1]

    assert len(printed) == len(told) > least
    wrong = [
        (line, expected, got)
        for (line, expected), got in zip(told, printed, strict=True)
        if not is_as_told(expected, got)
    ]
    assert wrong == []


def test_three_dots_stand_for_anything_and_nothing_else_does() -> None:
    assert is_as_told(["a … c", "", "d…"], ["a b b  c", "", "d"])
    assert not is_as_told(["a … c"], ["a c"])
    assert not is_as_told(["a.c"], ["abc"])
    assert not is_as_told(["a"], ["a", "b"])


def test_the_page_has_every_verb_and_every_exit_status() -> None:
    text = PAGE.read_text()
    verbs = {word for verb in all_verbs() for word in verb.split()}
    statuses = {context.FAILED, context.WRONG_COMMAND, context.NOT_FOUND, context.STORE_UNUSABLE}

    assert [verb for verb in verbs if f"`{verb}" not in text and f"{verb}`" not in text] == []
    assert {int(row) for row in re.findall(r"^\| (\d) \|", text, re.MULTILINE)} == {0, *statuses}
