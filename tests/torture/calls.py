"""The system calls of one shared library, handed to Python functions: without a compiler.

A library calls libc through a table of addresses, which the loader fills (the GOT). `divert` finds
the entries of some functions and puts callbacks there. Only that library is diverted, only in this
process, for as long as it lives; no ptrace, no preloading, nothing to build.
"""

import ctypes
import mmap
import platform
import struct
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

LIBC: Final = ctypes.CDLL(None, use_errno=True)

_SLOTS: Final = {"x86_64": (6, 7), "aarch64": (1025, 1026)}
"""The kinds of relocation that are one address of a function: GLOB_DAT and JUMP_SLOT."""

_PT_DYNAMIC: Final = 2
_JMPREL, _PLTRELSZ, _RELA, _RELASZ, _SYMTAB, _STRTAB = 23, 2, 7, 8, 6, 5
_SIZE, _FD, _AT = ctypes.c_ssize_t, ctypes.c_int, ctypes.c_int64
_PLACE = ctypes.c_void_p


class Signature(NamedTuple):
    """What a function of libc gives and takes."""

    gives: Any
    takes: tuple[Any, ...]


SIGNATURES: Final = {
    "open": Signature(_FD, (ctypes.c_char_p, ctypes.c_int, ctypes.c_int)),
    "write": Signature(_SIZE, (_FD, _PLACE, ctypes.c_size_t)),
    "pwrite": Signature(_SIZE, (_FD, _PLACE, ctypes.c_size_t, _AT)),
    "writev": Signature(_SIZE, (_FD, _PLACE, ctypes.c_int)),
    "pwritev": Signature(_SIZE, (_FD, _PLACE, ctypes.c_int, _AT)),
    "ftruncate": Signature(ctypes.c_int, (_FD, _AT)),
    "fsync": Signature(ctypes.c_int, (_FD,)),
    "fdatasync": Signature(ctypes.c_int, (_FD,)),
    "msync": Signature(ctypes.c_int, (_PLACE, ctypes.c_size_t, ctypes.c_int)),
    "sync_file_range": Signature(ctypes.c_int, (_FD, _AT, _AT, ctypes.c_uint)),
}
"""All by which LMDB changes a file, or makes changes last. The 64 of large files is left out."""

Hook = Callable[..., int]
"""Stands for a function: gets the real one, then its arguments; gives what it is to give."""

failures: list[BaseException] = []
"""What hooks have raised: it cannot be raised through a library, which gets -1 instead."""

_kept: list[Any] = []
"""Callbacks: the library holds their addresses until the process ends."""


def why_not() -> str | None:
    """Why calls cannot be diverted on this machine; None if they can."""
    if platform.machine() not in _SLOTS or struct.calcsize("P") != 8:
        return f"calls of a library are diverted on {' and '.join(_SLOTS)} only"
    if not Path("/proc/self/maps").exists():
        return "calls of a library are diverted where /proc/self/maps shows where it is"
    return None


def divert(library: str, hooks: Mapping[str, Hook]) -> set[str]:
    """Have *library*, which is loaded, call *hooks* in place of functions of libc.

    Gives the names that it does call; the others are no concern of it.

    Raises:
        OSError: It is not loaded, or its table cannot be written.
    """
    base = _base_of(library)
    found = set()
    for slot, symbol in _slots(library, base):
        name = symbol.removesuffix("64")
        if name in hooks:
            _put(slot, _callback(name, hooks[name]))
            found.add(name)
    return found


def _callback(name: str, hook: Hook) -> int:
    signature = SIGNATURES[name]
    # use_errno: what the real function left in errno is there again when the library looks.
    kind = ctypes.CFUNCTYPE(signature.gives, *signature.takes, use_errno=True)
    real = kind((name, LIBC))

    def call(*arguments: Any) -> int:
        try:
            return hook(real, *arguments)
        except BaseException as error:  # noqa: BLE001 - kept for whoever has put the hook there
            failures.append(error)
            return -1

    callback = kind(call)
    _kept.append((callback, real))
    return ctypes.cast(callback, ctypes.c_void_p).value or 0


def _base_of(library: str) -> int:
    for line in Path("/proc/self/maps").read_text().splitlines():
        fields = line.split(maxsplit=5)
        if len(fields) == 6 and fields[5] == library and int(fields[2], 16) == 0:
            return int(fields[0].partition("-")[0], 16)
    raise OSError(f"{library} is not loaded")


def _slots(library: str, base: int) -> Iterator[tuple[int, str]]:
    """Where the library keeps addresses of functions, and which."""
    elf = Path(library).read_bytes()
    (headers,) = struct.unpack_from("<Q", elf, 32)
    size, count = struct.unpack_from("<HH", elf, 54)
    tags: dict[int, int] = {}
    for at in range(headers, headers + size * count, size):
        kind, _, offset, _, _, length = struct.unpack_from("<IIQQQQ", elf, at)
        if kind == _PT_DYNAMIC:
            for entry in range(offset, offset + length, 16):
                tag, value = struct.unpack_from("<QQ", elf, entry)
                tags.setdefault(tag, value)
    kinds = _SLOTS[platform.machine()]
    for table, length in ((_JMPREL, _PLTRELSZ), (_RELA, _RELASZ)):
        relocations = ctypes.string_at(base + tags[table], tags[length]) if table in tags else b""
        for where, info, _ in struct.iter_unpack("<QQq", relocations):
            if info & 0xFFFFFFFF in kinds:
                symbol = ctypes.string_at(base + tags[_SYMTAB] + 24 * (info >> 32), 4)
                (name,) = struct.unpack("<I", symbol)
                yield base + where, ctypes.string_at(base + tags[_STRTAB] + name).decode()


def _put(slot: int, address: int) -> None:
    page = slot & -mmap.PAGESIZE
    length = ctypes.c_size_t(slot + 8 - page)
    if LIBC.mprotect(ctypes.c_void_p(page), length, mmap.PROT_READ | mmap.PROT_WRITE):
        raise OSError(ctypes.get_errno(), "mprotect of the table of a library")
    ctypes.c_uint64.from_address(slot).value = address
