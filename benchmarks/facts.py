"""What the kernel says of a process, and LMDB of a file."""

import os
from pathlib import Path
from typing import Any, NamedTuple

import lmdb

PAGE = 4096


class FileFacts(NamedTuple):
    """Bytes of a data file: its length, what LMDB has ever taken of it, and what trees hold."""

    length: int
    taken: int
    in_use: int


def rss_anon_kib(pid: int | None = None) -> int:
    """Memory of a process that no file stands behind; a mapped queue is not in it."""
    return _of_status("RssAnon", pid)


def switches(pid: int | None = None) -> int:
    """How often the threads of a process, as many as live now, have gone to sleep."""
    tasks = Path(f"/proc/{pid or os.getpid()}/task")
    return sum(_of_file(task / "status", "voluntary_ctxt_switches") for task in tasks.iterdir())


def of_file(path: Path) -> FileFacts:
    """The data file of the queue at *path*: not open in this process, written to by no other."""
    with lmdb.open(
        str(path), readonly=True, lock=False, max_dbs=32, map_size=2**40, lib_version=0
    ) as env:
        pages = _tree_pages(env.stat())
        with env.begin() as txn:
            for name, _ in txn.cursor():
                pages += _tree_pages(txn.stat(env.open_db(bytes(name), txn, create=False)))
        taken = int(env.info()["last_pgno"]) + 1
    return FileFacts((path / "data.mdb").stat().st_size, taken * PAGE, (pages + 2) * PAGE)


def _tree_pages(stat: Any) -> int:
    pages: int = stat["branch_pages"] + stat["leaf_pages"] + stat["overflow_pages"]
    return pages


def _of_status(name: str, pid: int | None) -> int:
    return _of_file(Path(f"/proc/{pid or os.getpid()}/status"), name)


def _of_file(file: Path, name: str) -> int:
    for line in file.read_text().splitlines():
        key, _, value = line.partition(":")
        if key == name:
            return int(value.split()[0])
    raise LookupError(f"{file} has no {name}")
