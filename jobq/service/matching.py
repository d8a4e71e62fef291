"""Jobs by a part of their id: what a person reads off a screen and types."""

from typing import Final

from jobq import ids
from jobq.errors import InvalidValue, shown
from jobq.options import text_in
from jobq.repo.base import Store

DIGITS: Final = 32
"""Hexadecimal digits of an id, without its dashes."""

LEADING: Final = 8
"""So many digits are looked for at the head of ids first. Shorter ones are as likely inside one."""

PAGE: Final = 10_000
"""How many ids are read at a time: some milliseconds."""

_HEX: Final = frozenset("0123456789abcdef")


def matching(store: Store, part: object, limit: int) -> list[str]:
    """The first *limit* ids that have *part* in them; see `JobService.match`.

    Raises:
        InvalidValue: *part* can be no part of an id.
    """
    digits = (text_in(part) or "").replace("-", "").lower()
    if not 1 <= len(digits) <= DIGITS or not _HEX.issuperset(digits):
        raise InvalidValue(
            f"{shown(part)} is no part of a job id: expected hexadecimal digits and dashes"
        )
    found = _leading(store, digits, limit) if len(digits) >= LEADING else []
    if not found and len(digits) < DIGITS:
        found = _anywhere(store, digits, limit)
    return [ids.to_text(raw) for raw in found]


def _leading(store: Store, digits: str, limit: int) -> list[bytes]:
    """Ids that begin so: they stand together in the order of ids."""
    first = int(digits.ljust(DIGITS, "0"), 16)
    after = (first - 1).to_bytes(16) if first else None
    return [raw for raw in store.ids(after, limit) if raw.hex().startswith(digits)]


def _anywhere(store: Store, digits: str, limit: int) -> list[bytes]:
    """Ids that have it anywhere: all are looked at, a page of them as one text."""
    found: list[bytes] = []
    after: bytes | None = None
    while page := store.ids(after, PAGE):
        text = b"".join(page).hex()
        at = text.find(digits)
        while at >= 0 and len(found) < limit:
            job, offset = divmod(at, DIGITS)
            if offset + len(digits) <= DIGITS:  # within one id
                found.append(page[job])
                at = (job + 1) * DIGITS - 1
            at = text.find(digits, at + 1)
        if len(page) < PAGE or len(found) == limit:
            break
        after = page[-1]
    return found
