"""A run of a benchmark: its options, a directory to measure in, its heading, and what it keeps."""

import argparse
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks import machine


class Session:
    """One run.

    Args:
        benchmark: The name of its module.
        about: The docstring of its module; the first line is the question that it answers.
        add_options: Adds what only this benchmark can be told.
        arguments: Those of the command line, if None.
    """

    def __init__(
        self,
        benchmark: str,
        about: str,
        add_options: Callable[[argparse.ArgumentParser], None],
        arguments: Sequence[str] | None,
    ) -> None:
        parser = argparse.ArgumentParser(prog=f"benchmarks.{benchmark}", description=about)
        add_options(parser)
        parser.add_argument("--dir", type=Path, help="directory on the disk to be measured")
        parser.add_argument("--json", type=Path, metavar="FILE", help="keep the results as data")
        self.options = parser.parse_args(arguments)
        self._benchmark = benchmark
        self._question = about.splitlines()[0]
        self._machine: machine.Facts = {}

    @contextmanager
    def measuring(self, *, idle: bool = False) -> Iterator[Path]:
        """A directory to measure in; says before what the question is, and on which machine.

        With *idle* the machine should have nothing else to do: warns if it has.
        """
        with machine.workspace(self.options.dir) as directory:
            self._machine = machine.facts(directory)
            print(self._question)
            print(machine.describe(self._machine))
            if idle:
                machine.warn_if_busy()
            yield directory

    def keep(self, settings: Mapping[str, Any], results: Any) -> None:
        """Write the result file, if one is asked for."""
        if file := self.options.json:
            machine.keep(file, self._benchmark, self._question, self._machine, settings, results)
