"""Cleaning up to the end, even if a signal handler raises in the middle of it."""

from collections.abc import Callable
from typing import Final

MOST_TRIES: Final = 100
"""An interrupt comes once or a few times; what fails this often is a fault, not an interrupt."""


def surely(clean_up: Callable[[], None]) -> None:
    """Call *clean_up*, which must be harmless to repeat, until it has run to its end.

    A signal handler may raise between any two steps. Then *clean_up* is called again, and the
    exception is raised when it is done.
    """
    try:  # first of all: in between, an interrupt would find nothing cleaned up
        clean_up()
        return
    except BaseException as error:  # noqa: BLE001 - whatever the handler raised
        interrupt = error
    for _ in range(MOST_TRIES):
        try:
            clean_up()
            break
        except BaseException as error:  # noqa: BLE001 - and again
            interrupt = error
    raise interrupt
