"""An interrupt at any point of a call, one after the other, exactly where a signal could strike.

CPython runs signal handlers between instructions, at these points only: at the start of a Python
function, after a call of a C function has returned, and when a loop jumps back. A trace function
stops at each of them and raises `KeyboardInterrupt` there, as the handler of Ctrl-C would.
"""

import dis
import os
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from types import CodeType, FrameType
from typing import Any, Final

import sortedcontainers

import jobq

PACKAGE: Final = str(Path(jobq.__file__).parent)
STRUCK: Final = (PACKAGE, str(Path(sortedcontainers.__file__).parent))
"""Where the interrupts come: in jobq, and in what it keeps in memory, which is Python as well."""

_CALLS: Final = {"CALL", "CALL_KW", "CALL_FUNCTION_EX"}


class Interrupter:
    """Interrupts a call at its *n*-th point, counted from 1, in the code under *struck*."""

    def __init__(self, n: int, struck: tuple[str, ...] = STRUCK) -> None:
        self.where: str | None = None
        self._n = n
        self._struck = struck
        self._count = 0
        self._last: tuple[int, str] | None = None

    def call(self, function: Callable[[], Any]) -> Any:
        """What the function returns.

        Raises:
            KeyboardInterrupt: It was interrupted; `where` says where.
        """
        sys.settrace(self._trace)
        try:
            return function()
        finally:
            sys.settrace(None)

    def _trace(self, frame: FrameType, event: str, _: object) -> Any:
        if not frame.f_code.co_filename.startswith(self._struck):
            return None
        if event == "call":
            self._last = None
            frame.f_trace_opcodes = True
            # Generators are left out: they "start" for being closed, too, when nobody can catch.
            if not frame.f_code.co_flags & 0x20:
                self._point(frame, "start")
        elif event == "opcode":
            # An instruction after one that calls, in the same frame with nothing in between: a C
            # function has returned. After a Python function there was an event of its return.
            if self._last is not None and self._last[0] == id(frame):
                self._point(frame, self._last[1])
            kind = _pauses(frame.f_code).get(frame.f_lasti)
            self._last = (id(frame), kind) if kind else None
        elif event == "return":
            self._last = None
        return self._trace

    def _point(self, frame: FrameType, kind: str) -> None:
        self._count += 1
        if self._count == self._n:
            file = os.path.relpath(frame.f_code.co_filename, PACKAGE)
            self.where = f"{file}:{frame.f_lineno} in {frame.f_code.co_name}, {kind}"
            sys.settrace(None)
            raise KeyboardInterrupt


@cache
def _pauses(code: CodeType) -> dict[int, str]:
    """The instructions of a function after which a signal handler may run, by their offsets."""
    found = {}
    for instruction in dis.get_instructions(code):
        if instruction.opname in _CALLS:
            found[instruction.offset] = "after a call"
        elif instruction.opname == "JUMP_BACKWARD":
            found[instruction.offset] = "in a loop"
    return found
