"""What is known of jobs beside their own records, to be compared with these.

A job's state names its place: a ready job stands in a queue, any other in one agenda. And each
topic counts its jobs by status, as does the queue as a whole. Where the topics are kept in memory
there are no places, only counts.
"""

from collections import Counter
from typing import Final

from jobq.errors import StoreCorrupt
from jobq.repo.flow import topic_if_ring
from jobq.repo.lmdb import keys
from jobq.repo.lmdb.records import STATUSES, decode_place
from jobq.repo.repositories import AGENDA_OF, Agenda, JobState, is_done_list
from jobq.states import Status

PLACES: Final = frozenset(AGENDA_OF.values())
"""The agendas in which a job stands by its state."""

ALL: Final = 0
"""The number under which the counts of all topics together stand."""


class Others:
    """What the rest of the file says of jobs.

    Attributes:
        stands: Under which key of a queue or an agenda each job stands.
        twice: Those that stand under several, or have several states.
        are_elsewhere: Queues and agendas are kept in the memory of a process.
        counts: How many jobs of each status a topic has, by its number, in the order of `STATUSES`.
    """

    def __init__(self) -> None:
        self.stands: dict[bytes, bytes] = {}
        self.twice: set[bytes] = set()
        self.are_elsewhere = False
        self.counts: dict[int, list[int]] = {}

    def note_queued(self, key: bytes, job_id: bytes) -> None:
        """Note an entry of a queue, unless it is of a ring or of a list of done jobs.

        Raises:
            StoreCorrupt: It is no such entry.
        """
        queue, _, _ = keys.read_queue_key(key)
        if topic_if_ring(queue) is None and not is_done_list(queue):
            self._note(key, job_id)

    def note_held(self, key: bytes, record: bytes) -> None:
        """Note an entry of an agenda, if it is one in which jobs stand by their states.

        Raises:
            StoreCorrupt: It is no such entry.
        """
        _, ids = decode_place(key, record)
        if agenda_of(key) in PLACES:
            for job_id in ids:
                self._note(key, job_id)

    def _note(self, key: bytes, job_id: bytes) -> None:
        if self.stands.setdefault(job_id, key) != key:
            self.twice.add(job_id)

    def contradict(self, job_id: bytes, state: JobState) -> bool | None:
        """Whether a job stands elsewhere than its state says; None if it stands nowhere."""
        there = self.stands.get(job_id)
        if there is None:
            return None
        return there != place_of(state)

    def wrong_counts(self, jobs: Counter[tuple[int, Status]], unknown: int) -> set[int]:
        """The topics, or `ALL`, that cannot have these jobs beside so many that are not known."""
        there = {number: [jobs[number, of] for of in STATUSES] for number in self.counts}
        there[ALL] = [
            sum(count for (_, its), count in jobs.items() if its is of) for of in STATUSES
        ]
        wrong = set()
        for number, counts in self.counts.items():
            too_many = any(found > said for found, said in zip(there[number], counts, strict=True))
            if too_many or sum(counts) - sum(there[number]) > unknown:
                wrong.add(number)
        return wrong


def place_of(state: JobState) -> bytes:
    """The key under which a job with this state stands."""
    if state.status is Status.READY:
        return keys.queue_key(state.lane or state.topic, state.weight, state.seq)
    return keys.agenda_key(AGENDA_OF[state.status], state.at_us, state.slot)


def agenda_of(key: bytes) -> Agenda | None:
    """The agenda that a key is of; None if it is of a queue."""
    if len(key) != keys.AGENDA_SIZE:
        return None
    try:
        return Agenda(keys.read_agenda_key(key)[0])
    except ValueError as error:
        raise StoreCorrupt(f"there is no agenda with the key {key.hex()}") from error
