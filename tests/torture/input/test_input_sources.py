"""jobq runs nothing that it reads: its sources have nothing that could.

ruff's rules `S` say so too of `jobq/`, call by call, unless a line is excused. This looks at every
name and import, however it is spelt, and knows each exception by its place.
"""

import ast
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

import jobq

SOURCES = Path(jobq.__file__).parent
NO_MODULES = frozenset(
    {
        *("pickle", "cPickle", "_pickle", "cloudpickle", "dill", "marshal", "shelve", "copyreg"),
        *("code", "codeop", "runpy", "imp", "pkgutil", "importlib", "yaml", "jsonpickle", "joblib"),
        *("xml", "pty", "commands", "ctypes", "cffi"),
    }
)
"""What unpickles, runs or loads what it is given."""

NO_NAMES = frozenset({"eval", "exec", "compile", "__import__", "breakpoint", "input"})
"""Builtins that run or load what they are given."""

NO_ATTRIBUTES = frozenset(
    {
        *("system", "popen", "getstatusoutput", "getoutput", "loads_all", "__reduce__"),
        *("__reduce_ex__", "__globals__", "__subclasses__", "__builtins__", "__code__"),
        *("execl", "execle", "execlp", "execlpe", "execv", "execve", "execvp", "execvpe"),
        *("spawnl", "spawnv", "posix_spawn", "posix_spawnp", "import_module", "exec_module"),
    }
)

NO_METHODS = frozenset({"eval", "exec", "__import__"})

ALLOWED = Counter(
    {
        # Only the version that is installed.
        ("cli/bench.py", "from importlib.metadata"): 1,
        # The module of a verb, out of a table of jobq's own.
        ("cli/__init__.py", "from importlib"): 1,
        ("cli/__init__.py", "from importlib import import_module"): 1,
        # The futex of the bell: a call of the C library that the process has already.
        ("repo/lmdb/bell.py", "import ctypes"): 1,
        ("repo/lmdb/futex.py", "import ctypes"): 1,
        # The parent names one of jobq's own functions to its child, on a pipe of their own.
        ("repo/lmdb/upkeep/child.py", "import importlib"): 1,
        ("repo/lmdb/upkeep/child.py", ".import_module"): 1,
    }
)
"""(module, what): each exception by itself."""


def sources() -> dict[str, ast.Module]:
    return {
        str(path.relative_to(SOURCES)): ast.parse(path.read_text(), str(path))
        for path in sorted(SOURCES.rglob("*.py"))
    }


def faults(tree: ast.AST) -> Iterator[str]:
    """What could run or load something in a source."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [one.name for one in node.names]
            yield from (f"import {name}" for name in names if _root(name) in NO_MODULES)
        elif isinstance(node, ast.ImportFrom):
            if _root(node.module or "") in NO_MODULES:
                yield f"from {node.module}"
            for one in node.names:
                if one.name in NO_NAMES | NO_ATTRIBUTES:
                    yield f"from {node.module} import {one.name}"
        else:
            yield from _fault_in(node)


def _root(module: str) -> str:
    return module.partition(".")[0]


def _fault_in(node: ast.AST) -> Iterator[str]:
    if isinstance(node, ast.Name) and node.id in NO_NAMES | {"__builtins__"}:
        yield node.id
    elif isinstance(node, ast.Attribute) and node.attr in NO_ATTRIBUTES | NO_METHODS:
        yield f".{node.attr}"
    elif isinstance(node, ast.Constant) and node.value in {*NO_NAMES, "pickle"} - {"input"}:
        yield f"the text {node.value!r}"
    elif isinstance(node, ast.keyword) and node.arg == "shell":
        yield "shell="


def test_the_sources_are_all_there() -> None:
    found = sources()

    assert {"codec.py", "cli/work.py", "repo/lmdb/records.py", "service/service.py"} <= found.keys()
    assert len(found) > 100


def test_nothing_in_jobq_runs_what_it_reads() -> None:
    found = Counter((name, fault) for name, tree in sources().items() for fault in faults(tree))

    assert found == ALLOWED


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "import xml.etree.ElementTree as e",
        "from marshal import loads",
        "from importlib import import_module",
        "from os import system",
        "from builtins import eval as f",
        "import os; os.system('x')",
        "import os; os.execvp('x', [])",
        "x = eval",
        "f = [exec]",
        "import builtins; builtins.eval('1')",
        "getattr(b, '__import__')",
        "__builtins__['x']",
        "compile('1', '', 'eval')",
        "import subprocess; subprocess.run('x', shell=True)",
        "().__class__.__base__.__subclasses__()",
    ],
)
def test_what_would_be_a_fault_is_found(source: str) -> None:
    assert list(faults(ast.parse(source)))


def test_processes_are_started_with_lists_of_words_only() -> None:
    """A text would be split by nobody, and shells are told above."""
    calls = [
        (name, ast.unparse(node.args[0]) if node.args else "")
        for name, tree in sources().items()
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and isinstance(node.func.value, ast.Name)
        and node.func.value.id == "subprocess"
    ]

    assert {name for name, _ in calls} == STARTERS
    for _, first in calls:
        assert not first.startswith(("'", '"', "f'", 'f"'))


STARTERS = {"cli/measuring.py", "cli/child.py", "repo/lmdb/upkeep/child.py"}
"""Modules that start processes: `jobq bench`, `jobq work`, and upkeep, where a damaged file may
kill whoever looks."""


def test_packed_values_are_read_by_msgpack_alone_and_give_plain_types() -> None:
    """Whoever reads what is stored loads no module that could run it."""
    code = (
        "import sys, jobq\n"
        "svc = jobq.open(':memory:')\n"
        "job_id = svc.enqueue('a', {'k': [1, (2,)]})\n"
        "svc.reserve('a', timeout=0)[0].payload, svc.get(job_id), svc.check()\n"
        "print(*sorted({'pickle', 'marshal', 'shelve'} & sys.modules.keys()))\n"
    )
    ended = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=SOURCES.parent
    )

    assert set(ended.stdout.split()) <= {"marshal"}, "the interpreter's own, for its compiled files"
