"""Before topics are rebuilt: what is thrown away of them, and what stays of their names.

Queues, agendas and counts can be made anew out of the jobs; names and settings cannot.
"""

from jobq.errors import StoreCorrupt
from jobq.repo.lmdb.access import Access, ascending, refuse_damaged_tree
from jobq.repo.lmdb.keys import (
    STORE,
    read_agenda_key,
    read_queue_key,
    read_topic_key,
    topic_name_key,
)
from jobq.repo.lmdb.records import (
    STATUSES,
    Topic,
    decode_number,
    decode_topic,
    decode_topic_settings,
    encode_number,
)
from jobq.repo.repositories import WATCHED, Figure


def clear_places(access: Access) -> None:
    """Forget all queues and agendas; counts and names stay.

    Raises:
        StoreCorrupt: They are damaged so that nothing can be made of their room.
    """
    access.dirty = True
    for db, read in ((access.db.queue, read_queue_key), (access.db.agenda, read_agenda_key)):
        refuse_damaged_tree(access, db, read)
        access.txn.drop(db, delete=False)
    access.meta.watched[:] = [0] * len(WATCHED)
    access.kept.bounds.clear()


def mended_topics(access: Access, wall_us: int) -> dict[int, Topic]:
    """All topics by number, without counts: one of two records says what the other should.

    What is damaged is removed. A topic of which both records are has no name any more, and one
    whose settings are has none.
    """
    txn, db = access.txn, access.db.topics
    refuse_damaged_tree(access, db, bytes)  # what stands there is looked at below
    named: dict[int, str] = {}
    found: dict[int, Topic] = {}
    configured: set[int] = set()
    damaged: list[bytes] = []
    with txn.cursor(db) as cursor:
        for raw, value in ascending(cursor.iternext()):
            key, data = bytes(raw), bytes(value)
            try:
                if key[:1] == b"n":
                    named[decode_number(key, data)] = key[1:].decode()
                elif key[:1] == b"s":
                    decode_topic_settings(key, data)
                    configured.add(read_topic_key(key)[1])
                else:
                    found[read_topic_key(key)[1]] = decode_topic(key, data)
            except (StoreCorrupt, UnicodeDecodeError):
                damaged.append(key)
    for key in damaged:
        txn.delete(key, db=db)
    access.meta.configured = STORE in configured
    for number, topic in found.items():
        if number not in named:
            key = topic_name_key(topic.name)
            txn.put(key, encode_number(key, number), db=db)
    for number, name in named.items():
        found.setdefault(number, Topic(name, []))
    for number, topic in found.items():
        topic.counts, topic.listed = [0] * len(STATUSES), 0
        for figure in (Figure.BYTES, Figure.LANES, Figure.LINGERING):
            topic.figures[figure] = 0
        topic.empty_us = topic.empty_us or wall_us  # until it is found to have jobs
        topic.configured = number in configured
    return found
