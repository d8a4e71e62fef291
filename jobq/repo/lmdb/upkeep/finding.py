"""Where the records of jobs stand in a damaged file.

Page by page, and by the checksum of each record. A sound record may still be an old one, on a page
whose last write was lost, or that has come from elsewhere. So each job is compared with what else
knows of it: its place in a queue or an agenda, and how many of each status are counted; and the two
heads of the file with one another. What contradicts itself is *unsure*.
"""

import contextlib
from collections import Counter
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Final

from jobq.errors import StoreCorrupt
from jobq.repo.lmdb import keys
from jobq.repo.lmdb.access import META_KEY, SETTINGS_KEY
from jobq.repo.lmdb.index import ELSEWHERE_KEY
from jobq.repo.lmdb.records import (
    FORMAT,
    IS_NOTE,
    decode_body,
    decode_meta,
    decode_note,
    decode_number,
    decode_settings,
    decode_state,
    decode_topic,
    decode_topic_settings,
    opened,
)
from jobq.repo.lmdb.upkeep.heads import ID_SIZE, Head, find_heads
from jobq.repo.lmdb.upkeep.others import ALL, Others
from jobq.repo.lmdb.upkeep.pages import META_PAGES, Node, Pages, Tree, is_leaf
from jobq.repo.repositories import JobBody, JobState, initial_state
from jobq.states import Status
from jobq.topic import TopicSettings

DAMAGE: Final = (StoreCorrupt, ValueError, TypeError, KeyError, IndexError)
"""What decoding damaged bytes may raise, should a checksum match by chance."""

_ALL: Final = frozenset({"meta", "topics", "jobs", "states", "notes", "agenda"})
_OF_JOBS: Final = frozenset({"jobs", "states", "notes"})

Place = tuple[int, int]
"""A page, and where on it an entry begins."""


class Foreign(Exception):
    """Another format: nothing of it can be read."""


class Finding:
    """What stands where in the file of a queue.

    Attributes:
        bodies, states, notes: Where sound records stand, by their keys.
        names, settings: Of topics, by number; 0 is the store.
        gone: Jobs whose body cannot be read, as far as something else names them.
        unsure: Jobs whose state cannot be read, or may be an old one.
        others: What else knows of them: where they stand, and how many there are.
        expected: How many jobs the queue has counted; None if that cannot be read.
        last_place: The last place that it has given.
        problems: What is damaged, in words.
        is_current: Whether it is the state after the last commit, as far as it can be read.

    Raises:
        StoreCorrupt: Both heads of the file are destroyed.
        Foreign: It is of another format.
    """

    def __init__(self, pages: Pages, path: Path) -> None:
        self._file = pages
        self._path = path
        self.bodies: dict[bytes, Place] = {}
        self.states: dict[bytes, Place] = {}
        self.notes: dict[bytes, Place] = {}
        self.names: dict[int, str] = {}
        self.settings: dict[int, TopicSettings] = {}
        self.gone: set[bytes] = set()
        self.unsure: set[bytes] = set()
        self.others = Others()
        self.expected: int | None = None
        self.last_place = 0
        self.problems: list[str] = []
        self._last_commit = 0
        self._last_id = bytes(ID_SIZE)
        self.is_current = True
        self._versions: dict[bytes, tuple[int, ...]] | None = None  # if old states may be met
        self._read()

    def value(self, place: Place) -> bytes:
        """The value of the entry that stands there."""
        return self._file.value(self._file.node(*place))

    def body(self, job_id: bytes) -> JobBody:
        """The body of a job that was found."""
        return decode_body(job_id, self.value(self.bodies[job_id]))

    def _read(self) -> None:
        pages = self._file
        if not pages.metas:
            raise StoreCorrupt(f"{self._path}: both heads of the file are destroyed")
        heads, doubt = find_heads(pages)
        if not heads:
            self._read_everything()
            return
        if doubt:
            self.is_current, self._versions = False, {}
            self.problems.append(f"the last commit may be missing: {doubt}")
        whole = self._read_databases(heads[0])
        if not self.is_current:
            self._read_newer()
        self.gone |= self.states.keys() | self.others.stands.keys()
        self.gone -= self.bodies.keys()
        if self.is_current:
            self._compare(whole)
        else:
            self.unsure = set(self.bodies)

    def _read_databases(self, head: Head) -> dict[str, bool]:
        """Read what a head leads to; says of which databases all could be read."""
        pages, trees = self._file, head.trees
        pages.metas = [head.meta]
        whole: dict[str, bool] = {}
        for name in ("meta", "topics", "jobs", "states", "notes", "agenda"):
            whole[name] = name in trees and self._read_tree(name, trees[name])
        self.expected = max(self.expected or 0, trees["jobs"].entries)
        for name in ("queue", "flow"):
            whole[name] = name in trees and self._pass_through(trees[name]) == trees[name].entries
        self._read_lost(whole)
        return whole

    def _read_everything(self) -> None:
        """The last resort: take what stands in any leaf."""
        self.problems.append(
            "the list of the databases is destroyed: jobs of all pages are taken, those in use and "
            "those that are not any more"
        )
        self.is_current, self._versions = False, {}
        for node in self._leaves():
            self._take_as_whatever_it_is(node, _ALL - {"agenda"})
        self.unsure = set(self.bodies)

    def _read_newer(self) -> None:
        """Take the jobs that came with the last commit, known by their ids, which only grow."""
        last_id = max([self._last_id, *self.bodies])
        for node in self._leaves():
            if node.key[:ID_SIZE] > last_id:
                self._take_as_whatever_it_is(node, _OF_JOBS)

    def _leaves(self) -> Iterator[Node]:
        """What stands in any leaf, in use or not."""
        pages = self._file
        for number in range(META_PAGES, pages.count):
            if number not in pages.visited and is_leaf(pages.page(number), number):
                yield from pages.leaf(number)

    def _read_tree(self, name: str, tree: Tree) -> bool:
        """Take the records of a database; says whether all of them were there."""
        entries = problems = 0
        for node in self._file.walk(tree):
            entries += 1
            if not self._take(name, node):
                problems += 1
                self._take_as_whatever_it_is(node)
        if entries != tree.entries:
            self.problems.append(f"{name}: of {tree.entries} records {entries} can be come by")
        return entries == tree.entries and not problems

    def _pass_through(self, tree: Tree) -> int:
        """Walk through a database without checksums; gives how many sound entries it has."""
        entries = 0
        for node in self._file.walk(tree):
            entries += 1
            if node.size == ID_SIZE:  # what a queue has is never anything else
                with contextlib.suppress(StoreCorrupt):
                    self.others.note_queued(node.key, self._file.value(node))
            else:
                self._take_as_whatever_it_is(node)
        return entries

    def _take_as_whatever_it_is(self, node: Node, of: Collection[str] = _ALL) -> bool:
        """Take a record that stands where it does not belong: its checksum says what it is."""
        kinds = [name for name in _kinds(node.key) if name in of]
        return any(self._take(name, node, quiet=True) for name in kinds)

    def _read_lost(self, whole: dict[str, bool]) -> None:
        """Take what stands in leaves that nothing leads to any more."""
        lost = [] if all(whole.values()) else self._file.lost()
        for number in (*lost, *self._file.suspects):
            for node in self._file.leaf(number):
                self._take_as_whatever_it_is(node, [name for name in _ALL if not whole[name]])

    def _take(self, name: str, node: Node, *, quiet: bool = False) -> bool:
        """Note where a record stands, if it is sound and of this database."""
        try:
            self._note(name, node, self._file.value(node))
        except DAMAGE as error:
            if not quiet:
                self.problems.append(f"{name}: {error}")
                if name == "jobs" and len(node.key) == ID_SIZE:
                    self.gone.add(node.key)
                if name == "states" and len(node.key) == ID_SIZE:
                    self.unsure.add(node.key)
            return False
        return True

    def _note(self, name: str, node: Node, value: bytes) -> None:
        key, place = node.key, (node.page, node.at)
        if name == "jobs":
            body = decode_body(_id(key), value)
            self.last_place = max(self.last_place, body.seq)
            self.bodies.setdefault(key, place)
        elif name == "states":
            state = decode_state(_id(key), value)
            self.last_place = max(self.last_place, state.seq)
            if self._versions is None and key in self.states:
                self.others.twice.add(key)
            elif self._is_newest(key, state):
                self.states[key] = place
        elif name == "notes":
            opened(IS_NOTE, key, value, "a note of a job")
            self.notes.setdefault(key, place)
        elif name == "agenda":
            self.others.note_held(key, value)
        elif name == "topics":
            self._note_topic(key, value)
        else:
            self._note_meta(key, value)

    def _note_meta(self, key: bytes, value: bytes) -> None:
        if key == META_KEY:
            meta = decode_meta(key, value)
            if meta.group >= self._last_commit:
                self._last_commit, self.expected = meta.group, sum(meta.totals)
                self._last_id, self.others.counts[ALL] = meta.last_id, meta.totals
            self.last_place = max(self.last_place, meta.seq)
        elif key == SETTINGS_KEY:
            found = decode_settings(key, value).get("format")
            if found != FORMAT:
                raise Foreign(f"{self._path} has format {found!r}: this jobq reads format {FORMAT}")
        elif key == ELSEWHERE_KEY:
            decode_note(key, value)
            self.others.are_elsewhere = True

    def _is_newest(self, job_id: bytes, state: JobState) -> bool:
        """Whether a state is the one to take: of several, as far as that can be told."""
        if self._versions is None:
            return True
        tries = state.crashes + state.retries
        version = state.resets, state.token, tries, state.ended_us, state.at_us
        if version <= self._versions.get(job_id, ()):
            return False
        self._versions[job_id] = version
        return True

    def _note_topic(self, key: bytes, value: bytes) -> None:
        if key[:1] == b"n":
            number = decode_number(key, value)
            self.names.setdefault(number, key[1:].decode())
            return
        kind, number = keys.read_topic_key(key)
        if kind == b"i":
            topic = decode_topic(key, value)
            self.names[number], self.others.counts[number] = topic.name, topic.counts
        else:
            self.settings[number] = decode_topic_settings(key, value)

    # What the rest of the file says of jobs.

    def state(self, job_id: bytes, body: JobBody) -> JobState:
        """The state of a job by its own record, or if it has none, as it was enqueued."""
        place = self.states.get(job_id)
        return initial_state(body) if place is None else decode_state(job_id, self.value(place))

    def _compare(self, whole: dict[str, bool]) -> None:
        """Find out of which jobs the state is not known, or contradicted."""
        self.unsure -= self.states.keys()  # found in a lost leaf after all
        self.unsure &= self.bodies.keys()
        counted: Counter[tuple[int, Status]] = Counter()
        for job_id in self.bodies:
            body = self.body(job_id)
            state = self.state(job_id, body)
            if self._is_doubtful(job_id, body, state, whole):
                self.unsure.add(job_id)
            if job_id not in self.unsure:
                counted[state.topic, state.status] += 1
        unknown = len(self.unsure) + max(len(self.gone), (self.expected or 0) - len(self.bodies))
        wrong = self.others.wrong_counts(counted, unknown)
        for number in sorted(wrong):
            what = "the queue" if number == ALL else f"topic number {number}"
            self.problems.append(f"{what} does not count the jobs that are there")
        if wrong:
            self.unsure |= {job_id for job_id in self.bodies if self._is_of(job_id, wrong)}
            if self.others.are_elsewhere:  # some may be another queue's, and as many missing
                self.expected = None

    def _is_doubtful(
        self, job_id: bytes, body: JobBody, state: JobState, whole: dict[str, bool]
    ) -> bool:
        if state.size != len(body.payload) or job_id in self.others.twice:
            return True
        contradicted = self.others.contradict(job_id, state)
        if contradicted is not None:
            return contradicted
        # It stands nowhere. With damage there, that says nothing, and its own state has to do.
        index = "queue" if state.status is Status.READY else "agenda"
        if whole[index] and not self.others.are_elsewhere:
            return True
        return job_id not in self.states and not whole["states"]

    def _is_of(self, job_id: bytes, topics: Collection[int]) -> bool:
        return ALL in topics or self.state(job_id, self.body(job_id)).topic in topics


def _id(key: bytes) -> bytes:
    if len(key) != ID_SIZE:
        raise StoreCorrupt(f"a job has the key {key.hex()}")
    return key


def _kinds(key: bytes) -> tuple[str, ...]:
    """The databases that a record with this key may be of; its checksum tells which."""
    if len(key) == ID_SIZE:
        return "jobs", "states"
    if len(key) == ID_SIZE + 5:
        return "notes", "topics"
    return "agenda", "topics", "meta"
