"""The command as people and scripts call it."""

import os
import shlex
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from click import Context, Group
from click.testing import CliRunner, Result

import jobq
from jobq import cli
from tests.crash.conftest import say, seed

__all__ = ["empty", "queue", "say", "seed"]

ROOT = Path(__file__).parent.parent.parent
COMMAND = (sys.executable, "-W", "error", "-m", "jobq")
MARK = b"a payload that is easy to find in a file"
TIME_LIMIT_S = 120
"""What takes longer hangs, on the slowest machine."""


@pytest.fixture
def queue(tmp_path: Path) -> Path:
    """The directory of a queue with a few jobs in each state."""
    path = tmp_path / "queue"
    with jobq.open(path, durability="unsafe") as svc:
        svc.enqueue_many("mail", [1, 2, 3, 4, 5, 6])
        svc.enqueue("mail", "later", delay=3600)
        svc.enqueue("手紙", MARK)
        done, canceled = svc.reserve("mail", 2, timeout=0)
        done.done()
        canceled.cancel()
    return path


@pytest.fixture
def empty(tmp_path: Path) -> Path:
    """The directory of a queue without jobs."""
    path = tmp_path / "empty-queue"
    jobq.open(path, durability="unsafe").close()
    return path


def all_verbs() -> list[str]:
    """Every verb that there is, those of groups with their group's name: `jobs list`."""
    found = []
    ctx = Context(cli.main)
    for name in cli.main.list_commands(ctx):
        command = cli.main.get_command(ctx, name)
        inside = command.commands if isinstance(command, Group) else {}
        found += [f"{name} {verb}" for verb in inside] or [name]
    return found


def call(
    *args: str | Path, env: dict[str, str] | None = None, stdin: bytes | str | None = None
) -> Result:
    """What `jobq` with these arguments prints, and its exit status; in this process."""
    words = [str(arg) for arg in args]
    return CliRunner().invoke(cli.main, words, input=stdin, env=env, prog_name="jobq")


def environment(**more: str) -> dict[str, str]:
    """That of a process whose working directory may be any."""
    return {**os.environ, "JOBQ_DB": "", "PYTHONPATH": str(ROOT), **more}


def run(
    *args: str | Path, stdin: bytes = b"", where: Path = ROOT
) -> "subprocess.CompletedProcess[bytes]":
    """The command as a process of its own."""
    return subprocess.run(
        [*COMMAND, *map(str, args)],
        cwd=where,
        env=environment(),
        input=stdin,
        capture_output=True,
        timeout=TIME_LIMIT_S,
        check=False,
    )


def hung_up_on(*args: str | Path, feed: str = "true") -> "subprocess.CompletedProcess[bytes]":
    """The command in a pipe, fed by another one, whose reader goes after the first line."""
    command = shlex.join([*COMMAND, *map(str, args)])
    return subprocess.run(
        ["/bin/sh", "-c", f"{feed} | {command} | head -n 1"],
        cwd=ROOT,
        env=environment(),
        capture_output=True,
        timeout=TIME_LIMIT_S,
        check=True,
    )


def start(*args: str | Path, words: Sequence[str] = COMMAND) -> "subprocess.Popen[bytes]":
    """The command as a process of its own that goes on."""
    return subprocess.Popen(
        [*words, *map(str, args)],
        cwd=ROOT,
        env=environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def words(result: Result) -> list[str]:
    """The lines of stdout of a call that went well."""
    assert result.exit_code == 0, result.stderr
    return result.stdout.splitlines()
