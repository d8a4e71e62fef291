"""What is asked of a topic as a whole: its number, its settings; and which topics there are."""

from collections.abc import Collection, Mapping
from typing import Any, Final

from jobq.repo.operations.flow import limits, room
from jobq.repo.repositories import IDLE_US, Transaction
from jobq.states import Status
from jobq.topic import NO_SETTINGS, TopicSettings, check_together

LOOK: Final = 16
"""How many topics are looked at for each new one, to find two that are idle. Where they are made as
fast as they fall idle, no more than about one in eight stays behind."""

MOST_LOOK: Final = 1000


def listed_names(tx: Transaction) -> list[str]:
    """The names of the topics that are not idle, sorted."""
    return tx.topics.names(tx.wall_us - IDLE_US)


def numbers_of(tx: Transaction, names: Collection[str]) -> dict[str, int]:
    """The numbers of topics by name; those that do not exist are made.

    Making one clears away up to two idle ones: before any number is given, for one of *names* may
    be among them.
    """
    found: dict[str, int] = {}
    for name in names:
        number = tx.topics.known(name)
        if number is not None:
            found[name] = number
    new = len(names) - len(found)
    if not new:
        return found
    forget_idle(tx, min(LOOK * new, MOST_LOOK), 2 * new)
    return {name: tx.topics.number(name) for name in names}


def forget_idle(tx: Transaction, look: int, most: int) -> None:
    """Clear away topics that are not listed any more.

    Not where fewer jobs are counted than there are: a topic may have some then, though its counts
    say otherwise, and without its name no repair could put them back.
    """
    if tx.jobs.size() > sum(map(tx.topics.total, Status)):
        return
    tx.gone += tx.topics.forget_idle(tx.wall_us - IDLE_US, look, most)


def settings_of(tx: Transaction, name: str | None) -> TopicSettings:
    """The settings of a topic, also of one that does not exist; None stands for the store."""
    if name is None:
        return tx.topics.store_settings()
    number = tx.topics.known(name)
    return NO_SETTINGS if number is None else tx.topics.settings(number)


def configure(tx: Transaction, name: str | None, changes: Mapping[str, Any]) -> TopicSettings:
    """Change settings of a topic, or of the store; whoever waits for what they allow looks again.

    A topic is made only if there is something to be kept of it.

    Raises:
        InvalidValue: They do not go together with those that are there.
    """
    old = settings_of(tx, name)
    new = old.changed(changes)
    if new == old:
        return old
    check_together(new)
    number = 0 if name is None else numbers_of(tx, [name])[name]
    if number:
        tx.topics.configure(number, new)
        limits.changed(tx, number, old, new)
    else:
        tx.topics.configure_store(new)
        if old.paused and not new.paused:
            _wake_all(tx)
    room.reconfigured(tx, number, old, new)
    return new


def _wake_all(tx: Transaction) -> None:
    """Whoever waits for a topic that has ready jobs looks again."""
    for name in tx.topics.names():
        number = tx.topics.known(name)
        if number is not None and tx.topics.counts(number)[Status.READY]:
            limits.wake(tx, number)
