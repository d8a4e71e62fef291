"""A process that reads hostile bytes with everything that reads bytes, in little room.

    python -m tests.torture.input.decoding SEED PAYLOADS OTHERS

tries so many buffers as payloads, and so many with each of the other decoders. If all is well, it
prints a line of JSON with what came of it. A buffer that runs away with memory meets the limit of
the address space, and one that never ends that of processor time; the test sees that it died.
"""

import faulthandler
import json
import os
import random
import resource
import sys
import time
import traceback
from pathlib import Path
from typing import Any, Final

from tests.torture.input.buffers import Buffers
from tests.torture.input.decoders import DECODERS, PAYLOAD, Decoder, json_noise

ROOM: Final = 256 * 2**20
"""Bytes of address space that it may take more than at its beginning."""

MOST_CPU_S: Final = 3600

WARM: Final = 0.2
"""After this part of the buffers it should have all the memory that it will ever need."""


def size_of_process() -> tuple[int, int]:
    """Bytes of address space, and of memory, that this process has."""
    pages = [int(word) for word in Path("/proc/self/statm").read_text().split()[:2]]
    space, resident = (count * os.sysconf("SC_PAGE_SIZE") for count in pages)
    return space, resident


def run(decoder: Decoder, chance: random.Random, count: int) -> dict[str, Any]:
    """Try so many buffers; gives how many could be read, and how the memory went."""
    buffers = Buffers(chance, decoder.sound, decoder.longest)
    read, warm = 0, 0
    began = time.process_time()
    for number in range(count):
        if number == int(count * WARM):
            warm = size_of_process()[1]
        data = buffers.next()
        if decoder.name == "line of an import" and number % 2:
            data = json_noise(chance)
        if decoder.kind is not None and number % 2:
            data = decoder.sealed(data)
        try:
            read += decoder.try_on(data)
        except Exception as error:  # noqa: BLE001 - told, and the end
            told = "".join(traceback.format_exception(error)[-3:])
            raise SystemExit(f"{decoder.name}, buffer {number}: {data[:500]!r}\n{told}") from None
    return {
        "tried": count,
        "read": read,
        "grown": size_of_process()[1] - warm,
        "cpu_s": round(time.process_time() - began, 3),
    }


def main(seed: int, payloads: int, others: int) -> None:
    """Try all decoders."""
    faulthandler.enable()
    sys.setrecursionlimit(20_000)  # for the comparison; the decoders take no recursion
    room = size_of_process()[0] + ROOM
    resource.setrlimit(resource.RLIMIT_AS, (room, room))
    resource.setrlimit(resource.RLIMIT_CPU, (MOST_CPU_S, MOST_CPU_S))
    for decoder in DECODERS:
        for sound in decoder.sound:
            if not decoder.try_on(sound):
                raise SystemExit(f"{decoder.name}: it cannot even read {sound!r}")
    found = {}
    for decoder in DECODERS:
        chance = random.Random(f"{seed} {decoder.name}")
        found[decoder.name] = run(decoder, chance, payloads if decoder is PAYLOAD else others)
    print(json.dumps(found))


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
