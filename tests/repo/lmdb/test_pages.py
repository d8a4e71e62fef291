"""Machines whose pages are not of 4 KiB: LMDB makes a file of the pages of its machine."""

import os
import shutil
import struct
import subprocess
from pathlib import Path

import lmdb
import pytest

import jobq
from jobq.errors import StoreCorrupt
from jobq.repo.lmdb import LmdbStore
from tests.repo.lmdb.conftest import Start
from tests.repo.lmdb.processes import outcome_of, say

SIZES = (4096, 8192, 16384, 32768)
LARGEST = 32768
"""What LMDB takes for larger ones."""


# Files that begin like a queue's of such a machine: what is seen before LMDB maps them.


def meta(page_size: int, txn: int, last_page: int) -> bytes:
    """A meta page as LMDB writes it, but for its trees."""
    head = struct.pack("=QHHHH", txn % 2, 0, 0x08, 0, 0)
    head += struct.pack("=II", 0xBEEFC0DE, 1) + bytes(16)  # magic, format, address, size of the map
    trees = struct.pack("=I", page_size) + bytes(44) + bytes(48)
    return head + trees + struct.pack("=QQ", last_page, txn)


def head(path: Path, page_size: int, txns: tuple[int, int], pages: int) -> Path:
    """A file of so many pages, of which the newer meta page counts ten and the other four."""
    path.mkdir()
    last = [9 if txn == max(txns) else 3 for txn in txns]
    metas = [meta(page_size, *one) for one in zip(txns, last, strict=True)]
    data = b"".join(page.ljust(page_size, b"\0") for page in metas)
    (path / "data.mdb").write_bytes(data.ljust(pages * page_size, b"\0"))
    return path


@pytest.mark.parametrize("page_size", SIZES)
@pytest.mark.parametrize("txns", [(6, 7), (8, 7)], ids=["second newer", "first newer"])
def test_a_file_that_is_shorter_than_its_newest_meta_page_says_is_refused(
    tmp_path: Path, page_size: int, txns: tuple[int, int]
) -> None:
    with pytest.raises(StoreCorrupt, match=f"cut short.* of at least {10 * page_size}"):
        LmdbStore(head(tmp_path / "queue", page_size, txns, pages=6))


@pytest.mark.parametrize("txns", [(6, 9), (8, 5), (7, 8), (6, 4), (6, 6), (2**40 + 6, 7)])
def test_a_file_whose_newest_commit_cannot_be_told_is_refused(
    tmp_path: Path, txns: tuple[int, int]
) -> None:
    with pytest.raises(StoreCorrupt, match=r"the last commit may be missing.*jobq doctor"):
        LmdbStore(head(tmp_path / "queue", 4096, txns, pages=10))


def test_a_file_that_counts_fewer_pages_than_before_is_refused(tmp_path: Path) -> None:
    """LMDB would use pages again on which something stands."""
    metas = meta(4096, 6, 3).ljust(4096, b"\0") + meta(4096, 5, 9).ljust(4096, b"\0")
    (tmp_path / "data.mdb").write_bytes(metas.ljust(10 * 4096, b"\0"))
    with pytest.raises(StoreCorrupt, match="counts 4 pages, the older one more"):
        LmdbStore(tmp_path)


@pytest.mark.parametrize("page_size", SIZES)
def test_a_file_with_half_a_head_is_refused(tmp_path: Path, page_size: int) -> None:
    for name, length in (("one", page_size), ("half", page_size + 100), ("less", 100)):
        os.truncate(head(tmp_path / name, page_size, (6, 7), 10) / "data.mdb", length)
        with pytest.raises(StoreCorrupt, match="its head is destroyed"):
            LmdbStore(tmp_path / name)


@pytest.mark.parametrize("page_size", [0, 1, 128, 4095, 4097, 12288, 2**17, 2**32 - 1])
def test_a_size_that_no_page_has_is_damage(tmp_path: Path, page_size: int) -> None:
    (tmp_path / "data.mdb").write_bytes(meta(page_size, 6, 1).ljust(4096, b"\0") * 2)

    with pytest.raises(StoreCorrupt, match="its head is destroyed"):
        LmdbStore(tmp_path)


# The same with LMDB itself, in a process that is told of other pages.

ANOTHER_MACHINE = """
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdlib.h>
#include <unistd.h>
long sysconf(int name) {
    long (*real)(int) = (long (*)(int))dlsym(RTLD_NEXT, "sysconf");
    return name == _SC_PAGESIZE ? atol(getenv("JOBQ_TEST_PAGE")) : real(name);
}
"""


@pytest.fixture(scope="module")
def another_machine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A library that says what the environment says of the size of pages."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("there is no C compiler here to make a machine with other pages")
    source = tmp_path_factory.mktemp("machine") / "machine.c"
    source.write_text(ANOTHER_MACHINE)
    library = source.with_suffix(".so")
    command = [compiler, "-shared", "-fPIC", "-o", str(library), str(source), "-ldl"]
    subprocess.run(command, check=True)
    return library


def _lives_there(path: str) -> None:
    """A queue from its making on: small and large payloads, half of them done."""
    with jobq.open(path, durability="unsafe") as svc:
        svc.enqueue_many("a", [bytes([n]) * 700 * n for n in range(100)])
        svc.done_many(svc.reserve("a", 50, timeout=0), range(50))
        assert svc.check().problems == ()
    with jobq.open(path, durability="unsafe") as svc:
        assert svc.stats().totals.ready == 50
    with lmdb.open(path, max_dbs=20, lib_version=0) as env:
        say(env.stat()["psize"])


def _works_off(path: Path) -> str:
    with jobq.open(path, durability="unsafe") as svc:
        for n, job in enumerate(svc.reserve("a", 100, timeout=0), start=50):
            assert job.payload == bytes([n]) * 700 * n
            job.done()
        assert svc.check().problems == ()
        return str(svc.stats().totals.done)


def _is_cut(path: str, page_size: int) -> None:
    data = Path(path, "data.mdb")
    whole = data.read_bytes()
    for length in range(0, len(whole) - page_size, 7 * page_size + 512):
        data.write_bytes(whole[:length])
        say(outcome_of(lambda: _works_off(Path(path))))
    data.write_bytes(whole)
    say(outcome_of(lambda: _works_off(Path(path))))
    say(None)


@pytest.mark.parametrize("page_size", [16384, 65536])
def test_a_queue_made_on_a_machine_with_larger_pages_can_be_used_here_too(
    tmp_path: Path, start: Start, another_machine: Path, page_size: int
) -> None:
    env = {"LD_PRELOAD": str(another_machine), "JOBQ_TEST_PAGE": str(page_size)}
    there = start(_lives_there, str(tmp_path), env=env)
    assert there.said() == min(page_size, LARGEST)
    there.join()

    here = start(_is_cut, str(tmp_path), min(page_size, LARGEST))
    outcomes = list(iter(here.said, None))
    assert outcomes.pop() == "100"
    assert [outcome.partition(":")[0] for outcome in outcomes] == ["StoreCorrupt"] * len(outcomes)
