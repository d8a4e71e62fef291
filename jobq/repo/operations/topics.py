"""What is asked of a topic as a whole: its settings."""

from collections.abc import Mapping
from typing import Any

from jobq.repo.repositories import Transaction
from jobq.topic import NO_SETTINGS, TopicSettings


def settings_of(tx: Transaction, name: str) -> TopicSettings:
    """The settings of a topic, also of one that does not exist."""
    number = tx.topics.known(name)
    return NO_SETTINGS if number is None else tx.topics.settings(number)


def configure(tx: Transaction, name: str, changes: Mapping[str, Any]) -> TopicSettings:
    """Change settings of a topic; it is made only if there is something to be kept of it."""
    old = settings_of(tx, name)
    new = old.changed(changes)
    if new != old:
        tx.topics.configure(tx.topics.number(name), new)
    return new
