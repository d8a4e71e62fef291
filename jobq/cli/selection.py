"""Which jobs a verb is about: filters that `list` and the verbs on many jobs share."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import wraps
from typing import Any, cast

import click

from jobq.cli.context import Verb
from jobq.job import JobRecord
from jobq.service import JobService
from jobq.states import Status


@dataclass(frozen=True, slots=True)
class Selection:
    """Jobs by what is known of them; what is None, or empty, does not matter."""

    topic: str | None = None
    statuses: frozenset[Status] = frozenset()
    name: str | None = None
    tags: frozenset[str] = frozenset()

    @property
    def everything(self) -> bool:
        """Whether no filter is set."""
        return self == Selection()

    def found(self, svc: JobService, after: str | None, at_once: int) -> Iterator[JobRecord]:
        """The jobs that match, in the order of enqueueing, read *at_once* by *at_once*.

        Each page is read when it is needed; what comes or moves meanwhile may be missed.
        """
        one = next(iter(self.statuses)) if len(self.statuses) == 1 else None
        while page := svc.find(status=one, topic=self.topic, after=after, limit=at_once):
            yield from filter(self._matches, page)
            if len(page) < at_once:
                return
            after = page[-1].id

    def _matches(self, job: JobRecord) -> bool:
        return (
            (not self.statuses or job.status in self.statuses)
            and (self.name is None or job.options.name == self.name)
            and self.tags.issubset(job.options.tags or ())
        )

    def __str__(self) -> str:
        parts = [", ".join(status for status in Status if status in self.statuses), "jobs"]
        if self.topic is not None:
            parts.append(f"of topic {self.topic!r}")
        if self.name is not None:
            parts.append(f"named {self.name!r}")
        if self.tags:
            parts.append(f"tagged {', '.join(map(repr, sorted(self.tags)))}")
        return " ".join(filter(None, parts))


def select_options(command: Verb) -> Verb:
    """`--topic`, `--status`, `--name` and `--tag`; the verb gets them as one `selection`."""

    @click.option("--topic", "-t", help="Only jobs of this topic.")
    @click.option(
        "--status",
        "-s",
        "statuses",
        type=click.Choice([status.value for status in Status]),
        multiple=True,
        help="Only jobs in this state; may be given several times.",
    )
    @click.option("--name", help="Only jobs that were given this name.")
    @click.option(
        "--tag",
        "tags",
        multiple=True,
        help="Only jobs that have this tag; given several times, those that have all of them.",
    )
    @wraps(command)
    def with_selection(
        *args: Any,
        topic: str | None,
        statuses: tuple[str, ...],
        name: str | None,
        tags: tuple[str, ...],
        **more: Any,
    ) -> Any:
        chosen = Selection(topic, frozenset(map(Status, statuses)), name, frozenset(tags))
        return command(*args, selection=chosen, **more)

    return cast("Verb", with_selection)
