"""Which jobs are meant: what `find`, `select` and the verbs on many jobs at once go by.

A `Selector` is a plain value, checked by the service. `matches` alone says what it means: the
store asks it when it looks for jobs, and again, in the transaction of a change, for each job that
is about to be changed.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final

from jobq.options import JobOptions
from jobq.states import Reason, Status

EVERY_STATUS: Final = frozenset(Status)

CANCELED: Final = frozenset({Status.CANCELED})
"""The only jobs that have a reason."""


@dataclass(frozen=True, slots=True)
class Selector:
    """Jobs by what is known of them: those that have all of it. What is None does not matter.

    Attributes:
        topic: They are in the topic of this name.
        statuses: They are in one of these states.
        name: They were given this name.
        tags: They have all of these tags.
        group: They belong to this group.
        unique: They were given this unique key, whether or not they hold it now.
        reasons: They are canceled for one of these reasons; None does not ask for the reason.
        dead: They are dead letters, canceled for another reason than `canceled`; False: they are
            none.
        error: The last thing said of their failure has this text in it, in the same case.
        older_than_us: They were enqueued at least so many microseconds ago.
    """

    topic: str | None = None
    statuses: frozenset[Status] = EVERY_STATUS
    name: str | None = None
    tags: frozenset[str] = frozenset()
    group: str | None = None
    unique: str | None = None
    reasons: frozenset[Reason] | None = None
    dead: bool | None = None
    error: str | None = None
    older_than_us: int | None = None

    @property
    def possible(self) -> frozenset[Status]:
        """The states in which jobs can match.

        >>> sorted(Selector(dead=True).possible)
        [<Status.CANCELED: 'canceled'>]
        """
        return self.statuses & CANCELED if self.reasons is not None or self.dead else self.statuses

    def within(self, statuses: frozenset[Status]) -> "Selector":
        """The same, of jobs in these states only."""
        return replace(self, statuses=self.possible & statuses)

    def matches(
        self,
        topic: str,
        status: Status,
        reason: Reason | None,
        options: JobOptions,
        age_us: int,
        error: Callable[[], str | None],
    ) -> bool:
        """Whether a job is meant of which this is known.

        >>> Selector(topic="mail").matches("mail", Status.READY, None, JobOptions(), 0, str)
        True
        >>> Selector(dead=True).matches("mail", Status.READY, None, JobOptions(), 0, str)
        False

        Args:
            topic: The name of its topic.
            status: Its state.
            reason: Why it is canceled; None unless it is.
            options: Those it was enqueued with, or edited to.
            age_us: Microseconds since it was enqueued.
            error: Gives what was last said of its failure; called only if all else fits.
        """
        return (
            status in self.statuses
            and (self.topic is None or topic == self.topic)
            and (self.reasons is None or reason in self.reasons)
            and (self.dead is None or self.dead is (reason not in (None, Reason.CANCELED)))
            and (self.name is None or options.name == self.name)
            and (not self.tags or self.tags.issubset(options.tags or ()))
            and (self.group is None or options.group == self.group)
            and (self.unique is None or options.unique == self.unique)
            and (self.older_than_us is None or age_us >= self.older_than_us)
            and (self.error is None or self.error in (error() or ""))
        )

    def __str__(self) -> str:
        """What it selects, for people.

        >>> str(Selector(topic="mail", statuses=frozenset({Status.READY}), error="refused"))
        "ready jobs of topic 'mail' with 'refused' in their error"
        >>> str(Selector(dead=True)), str(Selector())
        ('dead letters', 'jobs')
        """
        parts = ["dead letters" if self.dead else "jobs"]
        if self.possible != EVERY_STATUS and not self.dead:
            parts.insert(0, ", ".join(status for status in Status if status in self.possible))
        if self.reasons is not None:
            parts.append(f"({', '.join(why for why in Reason if why in self.reasons)})")
        if self.dead is False:
            parts.append("that are no dead letters")
        if self.topic is not None:
            parts.append(f"of topic {self.topic!r}")
        if self.name is not None:
            parts.append(f"named {self.name!r}")
        if self.tags:
            parts.append(f"tagged {', '.join(map(repr, sorted(self.tags)))}")
        if self.group is not None:
            parts.append(f"of group {self.group!r}")
        if self.unique is not None:
            parts.append(f"with unique key {self.unique!r}")
        if self.error is not None:
            parts.append(f"with {self.error!r} in their error")
        if self.older_than_us is not None:
            parts.append(f"older than {self.older_than_us / 1_000_000:g} s")
        return " ".join(parts)


ALL_JOBS: Final = Selector()
"""Selects every job."""
