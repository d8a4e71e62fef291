"""What holders tell of their work, kept back until their next call, or for a second."""

import threading
import time
from collections import deque
from typing import Any, Final, NamedTuple

from jobq.errors import InvalidValue, shown
from jobq.job import Report, Reservation
from jobq.options import number_in, text_in

MOST_LINES: Final = 1000
"""So many lines of one job are kept back; the store keeps no more either."""

LONGEST_LINE: Final = 4096
"""Bytes of UTF-8 that are kept of a log line, or of the text of a progress."""


class _Told(NamedTuple):
    """What was told of one job; times by the monotonic clock, in nanoseconds."""

    lines: deque[tuple[int, str]]
    progress: tuple[float, float | None, str | None, int] | None
    dropped: int


class Reports:
    """Log lines and progress of a service's jobs that are not written yet."""

    def __init__(self) -> None:
        # Reentrant, as a signal handler on this thread may want to log a line too.
        self._lock = threading.RLock()
        self._told: dict[tuple[bytes, int], _Told] = {}

    def __bool__(self) -> bool:
        return bool(self._told)

    def log(self, job: Reservation, text: object) -> None:
        """Keep a line back.

        Raises:
            InvalidValue: It is not text.
        """
        line = (time.monotonic_ns(), clipped("text", text))
        with self._lock:
            told = self._of(job)
            full = len(told.lines) == MOST_LINES
            told.lines.append(line)
            if full:
                self._told[job.id, job.token] = told._replace(dropped=told.dropped + 1)

    def progress(self, job: Reservation, done: object, total: object, text: object) -> None:
        """Keep a progress back, in place of an earlier one.

        Raises:
            InvalidValue: A number is none, or below 0; the text is not text.
        """
        progress = (
            amount("done", done),
            None if total is None else amount("total", total),
            None if text is None else clipped("text", text),
            time.monotonic_ns(),
        )
        with self._lock:
            self._told[job.id, job.token] = self._of(job)._replace(progress=progress)

    def take(self, job_id: bytes, token: int) -> Report | None:
        """What was told of a job and is not written yet, to be written now; None if nothing."""
        if not self._told:
            return None
        with self._lock:
            told = self._told.pop((job_id, token), None)
        return None if told is None else _report(job_id, token, told)

    def take_all(self) -> list[Report]:
        """What was told of all jobs and is not written yet, to be written now."""
        with self._lock:
            told, self._told = self._told, {}
        return [_report(*job, about) for job, about in told.items()]

    def put_back(self, report: Report) -> None:
        """Keep what could not be written for the next time, before what was told since."""
        now = time.monotonic_ns()
        lines = [(now - age_us * 1000, text) for age_us, text in report.lines]
        progress = report.progress
        with self._lock:
            since = self._told.get((report.id, report.token), _nothing())
            merged = [*lines, *since.lines]
            if since.progress is None and progress is not None:
                since = since._replace(progress=(*progress[:3], now - progress[3] * 1000))
            self._told[report.id, report.token] = _Told(
                deque(merged, MOST_LINES),
                since.progress,
                report.dropped + since.dropped + max(0, len(merged) - MOST_LINES),
            )

    def _of(self, job: Reservation) -> _Told:
        told = self._told.get((job.id, job.token))
        if told is None:
            told = self._told[job.id, job.token] = _nothing()
        return told


def clipped(name: str, text: object) -> str:
    """A text, cut to `LONGEST_LINE`; what UTF-8 cannot encode is written out.

    >>> clipped("text", "half done")
    'half done'

    Raises:
        InvalidValue: It is not text.
    """
    held = text_in(text)
    if held is None:
        raise InvalidValue(f"{name} is {shown(text)}: expected text")
    data = held.encode(errors="backslashreplace")
    if len(data) > LONGEST_LINE:
        return data[: LONGEST_LINE - 3].decode(errors="ignore") + "…"
    return data.decode()


def amount(name: str, value: object) -> float:
    """A number that can be a part or a whole of something.

    >>> amount("done", 3)
    3

    Raises:
        InvalidValue: It is not a number, or it is below 0, or not finite.
    """
    number = number_in(value)
    if number is None:
        raise InvalidValue(f"{name} is {shown(value)}: expected a number")
    if not 0 <= number < 2**63:  # also refuses NaN, which compares false
        raise InvalidValue(f"{name} is {shown(value)}: expected 0 or more, below 2**63")
    return number


def _nothing() -> _Told:
    return _Told(deque(maxlen=MOST_LINES), None, 0)


def _report(job_id: bytes, token: int, told: _Told) -> Report:
    now = time.monotonic_ns()
    lines = tuple((max(0, now - at) // 1000, text) for at, text in told.lines)
    progress: Any = told.progress
    if progress is not None:
        progress = (*progress[:3], max(0, now - progress[3]) // 1000)
    return Report(job_id, token, lines, progress, told.dropped)
