"""Several topics at once: patterns of names, and which share of the jobs each topic gets."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import translate
from typing import Any, Final

from jobq.errors import InvalidValue, shown
from jobq.options import flag, number_in, text
from jobq.topic import check_name

LEAST_SHARE: Final = 0.01
MOST_SHARE: Final = 1000.0

MOST_NAMED: Final = 1000
"""How many names and patterns one call may give: each is looked at in each reservation."""

_MOST_SHOWN: Final = 5


@dataclass(frozen=True, slots=True)
class Pattern:
    """All topics whose names are like this, also those that are made later.

    As in file names: `*` stands for any text, `?` for one character, `[abc]` and `[a-z]` for one
    of these, `[!abc]` for any other one. Upper and lower case differ. Everything else stands for
    itself; a `*` is written `[*]`.

    >>> pattern = Pattern("mail.*")
    >>> [name for name in ("mail", "mail.a", "mail.b.c", "Mail.a") if pattern.matches(name)]
    ['mail.a', 'mail.b.c']

    Attributes:
        glob: What names are compared with; 1 to 255 UTF-8 bytes.

    Raises:
        InvalidValue: It is not text, empty, too long, or not encodable.
    """

    glob: str
    _compiled: "re.Pattern[str]" = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        glob = text("a pattern", self.glob)
        object.__setattr__(self, "glob", glob)
        object.__setattr__(self, "_compiled", re.compile(translate(glob)))

    def matches(self, name: str) -> bool:
        """Whether the topic of this name is one of them."""
        return self._compiled.match(name) is not None


Topics = str | Pattern | Sequence[str | Pattern] | Mapping[Any, float]
"""What jobs may be reserved of: a topic, topics by a pattern, several of these, or their shares.

The keys of shares are names and patterns. Type checkers would take no dict that has both if that
were said here.
"""


@dataclass(frozen=True, slots=True)
class Mix:
    """Several topics, as a store is asked for their jobs.

    A topic that is named and is like a pattern too has the share that stands with its name; one
    that is like several patterns, that of the first.

    Attributes:
        shares: Names and patterns in their order, each with its share of the jobs as long as all
            of them have some; each topic that a pattern stands for has this share for itself.
        strict: Topics that come first are drained first, and shares do not matter; those that one
            pattern stands for share alike.
    """

    shares: tuple[tuple[str | Pattern, float], ...]
    strict: bool = False

    def __str__(self) -> str:
        names = [one.glob if isinstance(one, Pattern) else one for one, _ in self.shares]
        more = ["…"] if len(names) > _MOST_SHOWN else []
        return ", ".join(names[:_MOST_SHOWN] + more)


def mix_of(topics: object, *, strict: object = False) -> str | Mix:
    """What a caller has given, checked: one topic by its name, or several.

    >>> mix_of("mail"), mix_of(["mail"]), mix_of({"mail": 5})
    ('mail', 'mail', 'mail')
    >>> mix_of({"mail": 5, Pattern("import.*"): 1}).shares
    (('mail', 5.0), (Pattern(glob='import.*'), 1.0))
    >>> mix_of(("mail", "import"), strict=True)
    Mix(shares=(('mail', 1.0), ('import', 1.0)), strict=True)

    Raises:
        InvalidValue: It is none of these, empty, too much, or names one twice; or a share is no
            number from 0.01 to 1000.
    """
    if type(topics) is str and strict is False:
        return check_name(topics)
    strictly = flag("strict", strict)
    shares: dict[str | Pattern, float] = {}
    for one, share in _given(topics):
        key = one if isinstance(one, Pattern) else check_name(one)
        if key in shares:
            raise InvalidValue(f"topics names {shown(one)} twice: expected each topic once")
        shares[key] = _share(one, share)
    if not shares:
        raise InvalidValue("topics is empty: expected at least one topic")
    if len(shares) > MOST_NAMED:
        raise InvalidValue(f"topics names {len(shares)}: expected at most {MOST_NAMED}")
    if len(shares) == 1:
        (key,) = shares
        if isinstance(key, str):
            return key
    if strictly or len(shares) == 1:
        shares = dict.fromkeys(shares, 1.0)
    return Mix(tuple(shares.items()), strictly and len(shares) > 1)


def _given(topics: object) -> Iterator[tuple[object, object]]:
    kind = type(topics)  # not what it says of its class
    if issubclass(kind, str | Pattern):
        yield topics, 1.0
    elif isinstance(topics, Mapping) and issubclass(kind, Mapping):
        yield from topics.items()
    elif isinstance(topics, list | tuple) and issubclass(kind, list | tuple):
        for topic in topics:
            yield topic, 1.0
    else:
        raise InvalidValue(
            f"topics is {shown(topics)}: expected a topic, a jobq.Pattern, a list or tuple of "
            "these, or a dict of their shares"
        )


def _share(topic: object, share: object) -> float:
    number = number_in(share)
    # Also refuses NaN, which compares false.
    if number is None or not LEAST_SHARE <= number <= MOST_SHARE:
        raise InvalidValue(
            f"the share of topic {shown(topic)} is {shown(share)}: "
            f"expected a number from {LEAST_SHARE:g} to {MOST_SHARE:g}"
        )
    return float(number)
