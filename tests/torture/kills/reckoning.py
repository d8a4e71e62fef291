"""The oracle of the storms: what the ledger says, held against what is left in the queue.

It knows nothing of jobq but its promises, and of what it takes for a violation it is sure: a verb
happened between its two notes, and a process was alive until it was noted that it would be killed.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from itertools import pairwise
from typing import Final, NamedTuple

from jobq import JobRecord, Status, ids
from tests.torture.kills.ledger import NOBODY, Kind, Note

Key = tuple[int, ...]
"""Who made a job, and its number there: process, thread, number. It is the job's payload."""

SETTLED: Final = {
    Kind.DONE: Kind.WILL_DONE,
    Kind.RETRIED: Kind.WILL_RETRY,
    Kind.RELEASED: Kind.WILL_RELEASE,
}
INTENTS: Final = frozenset(SETTLED.values())
MOST_REMEMBERED: Final = 200_000
FORGOTTEN: Final = 10
"""Every so many jobs of a thread, one is forgotten as soon as it is done."""


def forgotten(number: int) -> bool:
    """Whether a job is forgotten as soon as it is done, by its number."""
    return number % FORGOTTEN == 0


class Figures(NamedTuple):
    """What came of a storm.

    Attributes:
        added: Jobs whose adding was acknowledged.
        settled: Settlements that were.
        refused: Calls of holders that were not holders any more.
        amid: Kills of processes of which a thread was just adding or settling jobs.
        redelivered: How often a job was taken from a dead holder, or from one that overran its
            lease, as far as the queue still knows.
    """

    added: int
    settled: int
    refused: int
    amid: int
    redelivered: int


class Story:
    """What is known of one job, by the tokens of its reservations."""

    __slots__ = ("added", "began", "held", "intents", "settled")

    def __init__(self) -> None:
        self.added: Key | None = None
        self.held: dict[int, Note] = {}
        self.began: dict[int, int] = {}
        self.intents: dict[int, Note] = {}
        self.settled: dict[int, Kind] = {}


class Reckoning:
    """Takes notes as they come, and judges at the end.

    Args:
        lease_s: For how many seconds a job is held from the last time that this was said.
        kept: Whether jobs that are done are there until the end, all but those that are forgotten
            at once. If not, only what is not known to be done is remembered here, too.

    Attributes:
        amid: Kills so far of processes of which a thread was just adding or settling jobs.
        killed: When each dead process was killed, by its pid.
    """

    def __init__(self, lease_s: float, *, kept: bool = True) -> None:
        self._kept = kept
        self._over: dict[bytes, int] = {}
        self._lease_ns = int(lease_s * 1e9)
        self._announced: set[Key] = set()
        self._stories: defaultdict[bytes, Story] = defaultdict(Story)
        self._last: defaultdict[int, dict[int, Kind]] = defaultdict(dict)
        self._problems: list[str] = []
        self._killed_ns: dict[int, int] = {}
        self._counts: Counter[Kind] = Counter()
        self.amid = 0
        self.killed: dict[int, int] = {}

    @property
    def kills(self) -> int:
        """How many processes were killed so far."""
        return len(self._killed_ns)

    def take(self, notes: Iterable[Note]) -> None:
        """Take notes, in the order in which they were written."""
        for note in notes:
            self._counts[note.kind] += 1
            if note.kind is Kind.BORN:
                self.killed.pop(note.number, None)
            elif note.kind is Kind.KILL:
                self._take_kill(note)
            else:
                self._last[note.process][note.thread] = note.kind
                if note.job in self._over:
                    self._must_be_over(note)
                else:
                    self._take(note, self._stories[note.job])
        if not self._kept:
            self._close_stories()

    def _take_kill(self, note: Note) -> None:
        self.killed[note.number] = self._killed_ns[note.process] = note.at_ns
        last = self._last.pop(note.process, {}).values()
        self.amid += any(kind in INTENTS or kind is Kind.WILL_ADD for kind in last)

    def _take(self, note: Note, story: Story) -> None:
        """A note of one job, or of none yet."""
        kind, number = note.kind, note.number
        if kind is Kind.WILL_ADD:
            self._announced.add((note.process, note.thread, number))
        elif kind is Kind.ADDED:
            story.added = (note.process, note.thread, number)
        elif kind is Kind.RESERVED:
            if number in story.held:
                self._note(note.job, f"reservation {number} was handed out twice")
            story.held[number] = note
            story.began[number] = note.began_ns
        elif kind is Kind.EXTENDED:
            story.began[number] = note.began_ns
        elif kind in INTENTS:
            story.intents[number] = note
        elif kind in SETTLED:
            story.settled[number] = kind

    def judge(self, records: Iterable[JobRecord]) -> tuple[list[str], Figures]:
        """What is wrong with a queue in which all jobs are finished; and the figures."""
        self._stories.pop(NOBODY, None)
        seen: dict[Key, str] = {}
        left = set()
        redelivered = 0
        for record in records:
            raw, key = ids.to_raw(record.id), tuple(record.payload)
            redelivered += record.crashes
            left.add(raw)
            if raw in self._over:
                if record.status is not Status.DONE:
                    self._note(raw, f"it was done, and is {record.status}")
                continue
            if key not in self._announced:
                self._note(raw, f"nobody was about to add {key}")
            if key in seen:
                self._note(raw, f"{key} was added twice, as {seen[key]} too")
            seen[key] = record.id
            for problem in _of_record(record, key, self._stories[raw]):
                self._note(raw, problem)
        for raw, story in self._stories.items():
            if raw not in left:
                self._must_be_forgotten(raw, story)
            self._must_be_fenced(raw, story)
        counts = self._counts
        settled = sum(counts[kind] for kind in SETTLED)
        return self._problems, Figures(
            counts[Kind.ADDED], settled, counts[Kind.LOST], self.amid, redelivered
        )

    def _close_stories(self) -> None:
        """Judge the jobs that are done, and remember no more of them than that."""
        for raw, story in list(self._stories.items()):
            done = [token for token, kind in story.settled.items() if kind is Kind.DONE]
            if story.added is not None and done:
                self._must_be_fenced(raw, story)
                self._announced.discard(story.added)
                self._over[raw] = max(done)
                del self._stories[raw]
        while len(self._over) > MOST_REMEMBERED:
            del self._over[next(iter(self._over))]

    def _must_be_over(self, note: Note) -> None:
        """Of a job that was acknowledged as done."""
        done = self._over[note.job]
        later = note.kind in {Kind.RESERVED, *SETTLED} and note.number > done
        twice = note.kind is Kind.DONE and note.number != done
        if later or twice:
            self._note(
                note.job, f"{note.kind.name} {note.number} after reservation {done} was done"
            )

    def _must_be_forgotten(self, raw: bytes, story: Story) -> None:
        """Of a job that is not there any more."""
        finished = any(note.kind is Kind.WILL_DONE for note in story.intents.values())
        if not finished:
            self._note(raw, f"it is lost, and nobody was about to finish it: {story.added}")
        elif self._kept and story.added is not None and not forgotten(story.added[2]):
            self._note(raw, f"it is lost, and was to be kept: {story.added}")

    def _must_be_fenced(self, raw: bytes, story: Story) -> None:
        """No two hold it at a time, none settles what is another's, none gets what is done."""
        for token, next_token in pairwise(sorted(story.held)):
            one, other = story.held[token], story.held[next_token]
            if other.at_ns < self._free_ns(story, token):
                self._note(
                    raw,
                    f"process {other.process} got it while {one.process} held it "
                    f"(reservations {token} and {next_token})",
                )
            settled, intent = story.settled.get(token), story.intents.get(token)
            if settled and intent and other.at_ns < intent.at_ns:
                self._note(raw, f"{settled.name} of reservation {token} after {next_token} began")
        done = [token for token, kind in story.settled.items() if kind is Kind.DONE]
        if len(done) > 1:
            self._note(raw, f"it was done {len(done)} times, by reservations {sorted(done)}")
        if done and max(story.held, default=0) > min(done):
            self._note(raw, f"it was handed out again after reservation {min(done)} was done")

    def _free_ns(self, story: Story, token: int) -> int:
        """Before this time the holder of a reservation had it for certain."""
        holder = story.held[token].process
        ends = [story.began[token] + self._lease_ns]
        if holder in self._killed_ns:
            ends.append(self._killed_ns[holder])
        if token in story.intents:
            ends.append(story.intents[token].at_ns)
        return min(ends)

    def _note(self, raw: bytes, problem: str) -> None:
        self._problems.append(f"{ids.to_text(raw)}: {problem}")


def _of_record(record: JobRecord, key: Key, story: Story) -> Iterator[str]:
    """What does not fit a job that is there at the end."""
    if story.added is not None and story.added != key:
        yield f"it was acknowledged as {story.added}, and is {key}"
    if record.status is not Status.DONE:
        yield f"it is {record.status}"
    retried = list(story.settled.values()).count(Kind.RETRIED)
    about = [note.kind for note in story.intents.values()].count(Kind.WILL_RETRY)
    if not retried <= record.retries <= about:
        yield f"it has {record.retries} retries: {retried} were acknowledged, {about} asked for"
    crashed = sum(token not in story.intents for token in story.held)
    if record.crashes < crashed:
        yield f"it has {record.crashes} crashes, and {crashed} holders ended without a word"
    if record.attempt != record.retries + record.crashes + 1:
        yield (
            f"it was tried {record.attempt} times: {record.retries} retries, "
            f"{record.crashes} crashes and one that was done do not make that"
        )
