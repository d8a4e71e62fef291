"""What is said of a disk after a power cut, and of many."""

from collections import Counter
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final, NamedTuple, Self

SAMPLES: Final = 5
"""So many states of each kind of fault are described."""


class Kind(StrEnum):
    """What became of the queue."""

    SOUND = "sound"
    LOST = "lost"  # it is as it was before a verb that had returned
    WRONG = "wrong"  # it is as it never was
    SHUT = "shut"  # it does not open, or cannot be read
    UNSOUND = "unsound"  # `check` finds something
    STUCK = "stuck"  # three more operations do not work
    DIED = "died"  # the process that looked was killed by it (SIGBUS, SIGABRT)


class Verdict(NamedTuple):
    """One state judged.

    Attributes:
        missing: How many commits of verbs that had returned are not there.
    """

    kind: Kind
    text: str = ""
    missing: int = 0


@dataclass
class Tally:
    """Many states judged.

    Attributes:
        states: How many disks were judged; no two of one cut were the same.
        opened: How many of them were opened; others were the same as one of a cut shortly before,
            and what had been found in that was judged again.
        repeated: How many were the same as one of the same cut, and not judged again.
        missing: How many sound states lacked so many commits of verbs that had returned.
        samples: What was wrong with the first few of each kind.
        seconds: How long a core was at it.
    """

    cuts: int = 0
    states: int = 0
    opened: int = 0
    repeated: int = 0
    kinds: Counter[Kind] = field(default_factory=Counter)
    missing: Counter[int] = field(default_factory=Counter)
    samples: list[str] = field(default_factory=list)
    seconds: float = 0.0

    def add(self, verdict: Verdict, where: str) -> None:
        """Count one state."""
        self.states += 1
        self.kinds[verdict.kind] += 1
        if verdict.kind is Kind.SOUND:
            self.missing[verdict.missing] += 1
        elif self.kinds[verdict.kind] <= SAMPLES:
            self.samples.append(f"{where}: {verdict.kind}: {verdict.text}")

    def __iadd__(self, other: "Tally") -> Self:
        self.cuts += other.cuts
        self.states += other.states
        self.opened += other.opened
        self.repeated += other.repeated
        self.kinds += other.kinds
        self.missing += other.missing
        self.samples = (self.samples + other.samples)[: 2 * SAMPLES]
        self.seconds += other.seconds
        return self

    @property
    def faults(self) -> int:
        """How many states were not as promised."""
        return self.states - self.kinds[Kind.SOUND]

    def __str__(self) -> str:
        kinds = ", ".join(f"{count} {kind}" for kind, count in sorted(self.kinds.items()))
        lacking = sum(count for commits, count in self.missing.items() if commits)
        missing = f" ({lacking} without up to {max(self.missing)} commits)" if lacking else ""
        rate = self.states / self.seconds if self.seconds else 0.0
        return (
            f"{self.states} states ({self.opened} opened) at {self.cuts} cuts: {kinds or 'none'}"
            + missing
            + f"; {rate:.0f} a second and core"
        )
