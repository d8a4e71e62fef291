"""Several topics on the command line, with their shares."""

import re
from typing import Final

import click

from jobq.shares import Pattern, Topics

_SHARE: Final = re.compile(r"[0-9]+(\.[0-9]+)?|\.[0-9]+")


def topics_of(
    ctx: click.Context, named: tuple[str, ...], patterns: tuple[str, ...], *, strict: bool
) -> Topics:
    """The topics that a command line names, as `reserve` takes them.

    Raises:
        click.UsageError: There is none, one is there twice, or they have shares with `strict`.
        InvalidValue: A pattern is wrong.
    """
    shares: dict[str | Pattern, float | None] = {}
    given: list[tuple[str | Pattern, float | None]] = [*map(with_share, named)]
    given += [(Pattern(glob), share) for glob, share in map(with_share, patterns)]
    for topic, share in given:
        if topic in shares:
            shown = topic.glob if isinstance(topic, Pattern) else topic
            raise click.UsageError(f"{shown!r} is named twice", ctx)
        shares[topic] = share
    if not shares:
        raise click.UsageError("which topics? Name one or more, or give a --pattern", ctx)
    has_shares = any(share is not None for share in shares.values())
    if strict and has_shares:
        raise click.UsageError("--strict: topics have no shares, the first is drained first", ctx)
    if not has_shares:
        return list(shares)
    return {topic: 1.0 if share is None else share for topic, share in shares.items()}


def with_share(text: str) -> tuple[str, float | None]:
    """A name or pattern, and the share behind its last `=`, if a number stands there.

    >>> with_share("mail=5"), with_share("mail"), with_share("a=b"), with_share("a=1=0.5")
    (('mail', 5.0), ('mail', None), ('a=b', None), ('a=1', 0.5))
    """
    name, _, share = text.rpartition("=")
    if name and _SHARE.fullmatch(share):
        return name, float(share)
    return text, None


def shown_topics(topics: Topics) -> str:
    """What is worked on, for people.

    >>> shown_topics(["mail", Pattern("import.*")]), shown_topics({"mail": 5.0, "import": 1.0})
    ("'mail', 'import.*'", "'mail' (5), 'import' (1)")
    """
    if isinstance(topics, str | Pattern):
        topics = [topics]
    names = [topic.glob if isinstance(topic, Pattern) else topic for topic in topics]
    if isinstance(topics, dict):
        return ", ".join(
            f"{name!r} ({share:g})" for name, share in zip(names, topics.values(), strict=True)
        )
    return ", ".join(map(repr, names))
