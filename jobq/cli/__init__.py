"""The command `jobq`: looking into a queue from a terminal or a script."""

from jobq.cli.verbs import main

__all__ = ["main"]
