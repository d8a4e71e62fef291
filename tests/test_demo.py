"""`make demo` in small: the same program with fewer files."""

import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent


def test_the_demo_survives_the_kill_and_says_so() -> None:
    ended = subprocess.run(
        [sys.executable, str(ROOT / "examples" / "demo.py"), "--files", "200"],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    rows = dict(re.findall(r"^(\w[\w ]*?) +(\d+)$", ended.stdout, re.MULTILINE))

    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "SIGKILL" in ended.stdout
    assert rows["jobs"] == rows["done"] == "200"
    assert rows["retried"] == "13"
    assert (rows["lost"], rows["done twice"], rows["wrong results"]) == ("0", "0", "0")
