"""Facts as text for people and as JSON for programs: one line, one object, nothing left out.

JSON is ASCII throughout, so what is in it can steer no terminal either.
"""

import json
import unicodedata
from collections.abc import Iterable, Sequence
from typing import Final

from jobq.repo.base import CheckReport, Diagnosis, Salvaged

MOST_LINES: Final = 20
"""Problems of one kind that people are told one by one."""


def report_as_lines(report: CheckReport) -> str:
    """A line for each problem, and for each that was repaired, and a closing sentence."""
    found = count(len(report.problems), "problem")
    if len(report.problems) == report.MOST_PROBLEMS:
        found = f"at least {found}"
    closing = f"{count(report.jobs, 'job')} checked, "
    if report.repaired:
        closing += f"{count(len(report.repaired), 'problem')} repaired, "
    if report.ok:
        closing += "none left." if report.repaired else "no problem found."
    elif report.repaired:
        closing += f"{found} left."
    else:
        closing += f"{found} found: copy the directory before anything writes to it."
    lines = [f"repaired: {printable(problem)}" for problem in report.repaired]
    return "\n".join([*lines, *map(printable, report.problems), closing])


def report_as_json(report: CheckReport) -> str:
    """The same facts: `ok`, `jobs`, `problems`, `repaired`."""
    facts = {"ok": report.ok, "jobs": report.jobs}
    return json.dumps({**facts, "problems": report.problems, "repaired": report.repaired})


def salvaged_as_words(found: Salvaged) -> str:
    """What is not as it was with jobs that can be saved, to follow their number.

    >>> salvaged_as_words(Salvaged(9, 3, 1, 0, ()))
    '; 3 lost; 1 may have an old state'
    """
    parts = []
    if found.lost is None:
        parts.append("how many more there were cannot be read")
    elif found.lost:
        parts.append(f"{found.lost:,} lost")
    if found.unsure:
        parts.append(f"{found.unsure:,} may have an old state")
    if found.incomplete:
        parts.append(f"{found.incomplete:,} without their result, history, progress or log")
    return "".join(f"; {part}" for part in parts)


def diagnosis_as_lines(found: Diagnosis) -> str:
    """Steps, what is wrong, what can be saved, and what to do: a line each."""
    lines = [f"{name:<10}{'well' if well else 'damaged'}" for name, well in found.steps.items()]
    for what, sentences in (("problem", found.problems), ("note", found.notes)):
        lines += [f"{what}: {printable(sentence)}" for sentence in sentences[:MOST_LINES]]
        if (more := len(sentences) - MOST_LINES) > 0:
            lines.append(f"{what}: {more:,} more")
    if found.saved is not None:
        saved = f"{count(found.saved.jobs, 'job')}{salvaged_as_words(found.saved)}"
        lines.append(f"can be saved: {saved}")
    lines += [f"advice: {printable(sentence)}" for sentence in found.advice]
    jobs = found.facts.get("jobs")
    there = "" if jobs is None else f"{count(jobs, 'job')} in {size(found.facts['file_bytes'])}, "
    problems = len(found.problems)
    lines.append(there + (f"{count(problems, 'problem')} found." if problems else "all is well."))
    return "\n".join(lines)


def diagnosis_as_json(found: Diagnosis) -> str:
    """The same facts."""
    saved = None if found.saved is None else found.saved._asdict()
    return json.dumps(
        {
            "ok": found.ok,
            "steps": found.steps,
            "problems": found.problems,
            "notes": found.notes,
            "saved": saved,
            "advice": found.advice,
            "facts": found.facts,
        }
    )


class Table:
    r"""Rows as lines. Columns may grow from page to page, so that any number of rows can come.

    Args:
        left: The columns whose text stands to the left; numbers stand to the right.

    >>> print(*Table().lines([["topic", "ready"], ["mail", "1,204"], ["手紙", "7"]]), sep="|\n")
    topic  ready|
    mail   1,204|
    手紙       7
    """

    def __init__(self, left: Iterable[int] = (0,)) -> None:
        self._left = frozenset(left)
        self._widths: list[int] = []

    def lines(self, rows: Sequence[Sequence[str]]) -> list[str]:
        """The next rows; no line ends in spaces."""
        for row in rows:
            self._widths += [0] * (len(row) - len(self._widths))
        self._widths = [
            max([wide, *(width(row[at]) for row in rows)]) for at, wide in enumerate(self._widths)
        ]
        return ["  ".join(map(self._cell, range(len(row)), row)).rstrip() for row in rows]

    def _cell(self, at: int, text: str) -> str:
        pad = " " * (self._widths[at] - width(text))
        return text + pad if at in self._left else pad + text


def width(text: str) -> int:
    """How many cells of a terminal *text* takes.

    >>> width("mail"), width("手紙")
    (4, 4)
    """
    if text.isascii():
        return len(text)
    wide = sum(unicodedata.east_asian_width(character) in "WF" for character in text)
    return len(text) + wide - sum(unicodedata.combining(character) > 0 for character in text)


def printable(text: str) -> str:
    r"""*text* on one line, with nothing in it that could steer a terminal.

    >>> printable("mail\x00\x1b[2J")
    'mail\\x00\\x1b[2J'
    """
    if text.isprintable():
        return text
    return "".join(
        character if character.isprintable() else ascii(character)[1:-1] for character in text
    )


def size(number_of_bytes: int) -> str:
    """A number of bytes for people.

    >>> size(1000), size(35_000), size(3_400_000_000)
    ('1000 B', '34.2 KiB', '3.2 GiB')
    """
    if number_of_bytes < 1024:
        return f"{number_of_bytes} B"
    number, unit = float(number_of_bytes), "B"
    for unit in ("KiB", "MiB", "GiB", "TiB"):  # noqa: B007 - the unit that the loop ends with
        number /= 1024
        if number < 1024:
            break
    return f"{number:.1f} {unit}"


def duration(seconds: float) -> str:
    """A length of time for people, in its largest unit.

    >>> duration(0.25), duration(90), duration(7200), duration(86400 * 3.5)
    ('0.2s', '1m', '2h', '3d')
    """
    if seconds < 10:
        return f"{max(0.0, seconds):.1f}s"
    for unit, length in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds >= length:
            return f"{int(seconds // length)}{unit}"
    return f"{int(seconds)}s"


def count(number: int, noun: str) -> str:
    """A number of things.

    >>> count(1, "job"), count(1204, "job")
    ('1 job', '1,204 jobs')
    """
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def shortened(text: str, longest: int) -> str:
    """*text*, its end left out when it is long.

    >>> shortened("mail", 4), shortened("mails", 4)
    ('mail', 'mai…')
    """
    return text if len(text) <= longest else text[: longest - 1] + "…"
