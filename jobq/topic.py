"""Topics: their names and their counts."""

from dataclasses import dataclass
from typing import Final

from jobq.options import text
from jobq.states import Status

LONGEST_NAME: Final = 255


def check_name(name: object) -> str:
    """*name*, if it can name a topic: 1 to 255 bytes of UTF-8, any character.

    >>> check_name("mail")
    'mail'

    Raises:
        InvalidValue: It is not text, empty, too long, or not encodable (lone surrogates).
    """
    if type(name) is str and name.isascii() and 0 < len(name) <= LONGEST_NAME:
        return name
    return text("topic", name, longest=LONGEST_NAME)


@dataclass(frozen=True, slots=True)
class TopicStats:
    """How many jobs of one topic are in each state; kept with every change, never scanned."""

    name: str
    ready: int = 0
    delayed: int = 0
    reserved: int = 0
    done: int = 0
    canceled: int = 0

    @property
    def total(self) -> int:
        """All jobs of the topic that the store still has."""
        return self.ready + self.delayed + self.reserved + self.done + self.canceled

    @property
    def unfinished(self) -> int:
        """Jobs that are neither done nor canceled."""
        return self.ready + self.delayed + self.reserved

    def of(self, status: Status) -> int:
        """The number of jobs in *status*."""
        return int(getattr(self, status.value))
