"""Order and limits hold exactly over processes that race, and are killed.

The oracles are independent of the queue: who works notes it in a file that outlives him, in the
order in which things happen; or the records of the jobs tell by their times, of which each is
that of a commit.
"""

import os
import random
import signal
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple

import pytest

import jobq
from jobq import Job, JobRecord, JobService, QueueFull, ReservationLost, Status, UniqueConflict
from jobq.options import OptionArgs
from jobq.states import Reason
from tests.conftest import SOON_S, eventually
from tests.crash.conftest import Say
from tests.crash.processes import Child, Notebook, Pipe, Start
from tests.crash.verbs import whole

PRODUCERS: Final = 8
WORKERS: Final = 6
MOST: Final = 3
PATIENCE_S: Final = 280.0

LASTING: Final[OptionArgs] = {"lease": 600.0, "max_crashes": 0, "max_retries": 1_000_000}
"""What jobs need to outlive a storm."""


def storm(short: int, long: int) -> list[Any]:
    """How often each thing is done: a little in every run, much in the long ones."""
    return [
        pytest.param(short, id="short"),
        pytest.param(long, id="long", marks=pytest.mark.storm),
    ]


def opened(path: str) -> JobService:
    """The queue. Processes die here, no machine does: nothing waits for the disk."""
    return jobq.open(path, durability="unsafe", **LASTING)


# Order.


@pytest.mark.parametrize("each", storm(150, 3_000))
def test_jobs_of_each_process_come_in_its_order_and_none_comes_twice(
    each: int, start: Start, path: str
) -> None:
    """To each consumer, while producers and consumers of several processes race."""
    opened(path).close()
    producers = [start(_enqueue_numbers, path, f"p{number}", each) for number in range(3)]
    consumers = [start(_note_numbers, path, 3 * each) for _ in range(3)]
    for child in (*producers, *consumers):
        assert child.hear() == "ready"
    for child in (*producers, *consumers):
        child.tell("go")
    taken: list[list[str]] = [child.hear(PATIENCE_S) for child in consumers]

    wrong = []
    for one in taken:
        last: defaultdict[str, int] = defaultdict(lambda: -1)
        for producer, _, number in (payload.partition(":") for payload in one):
            if int(number) <= last[producer]:
                wrong.append(f"{producer}:{number} after {last[producer]}")
            last[producer] = int(number)
    assert wrong == []
    assert sorted(payload for one in taken for payload in one) == sorted(
        f"p{producer}:{number}" for producer in range(3) for number in range(each)
    )


def _enqueue_numbers(pipe: Pipe, path: str, name: str, each: int) -> None:
    pick = random.Random(name)
    with opened(path) as svc:
        pipe.send("ready")
        pipe.recv()
        made = 0
        while made < each:
            size = min(pick.choice([1, 1, 1, 5, 20]), each - made)
            svc.enqueue_many("mail", [f"{name}:{number}" for number in range(made, made + size)])
            made += size


def _note_numbers(pipe: Pipe, path: str, all_of_them: int) -> None:
    taken: list[str] = []
    with opened(path) as svc:
        pipe.send("ready")
        pipe.recv()
        while svc.stats().totals.done < all_of_them:
            jobs = svc.reserve("mail", 5, timeout=0.05)
            taken += [job.payload for job in jobs]
            svc.done_many(jobs)
    pipe.send(taken)


# Unique keys.


class Call(NamedTuple):
    """An enqueue with the key: when it began and when it was over (UTC, µs), and its answer."""

    since_us: int
    until_us: int
    answer: str | None


@pytest.mark.parametrize("times", storm(500, 10_000))
@pytest.mark.parametrize("unique_for", ["unfinished", "waiting", 1000.0])
def test_one_of_many_enqueues_of_a_key_adds_a_job_and_all_get_its_id(
    unique_for: Any, times: int, start: Start, path: str
) -> None:
    calls = _race_for_key(start, path, times, unique_for, "return", consumers=0)

    assert len(calls) == PRODUCERS * times
    with opened(path) as svc:
        (job,) = svc.find(limit=1000)
        assert {call.answer for call in calls} == {job.id}
        assert whole(svc) == []


@pytest.mark.parametrize("times", storm(200, 10_000))
def test_one_of_many_enqueues_of_a_key_succeeds_and_all_others_raise(
    times: int, start: Start, path: str
) -> None:
    calls = _race_for_key(start, path, times, "unfinished", "raise", consumers=0)

    with opened(path) as svc:
        (job,) = svc.find(limit=1000)
    answers = Counter(call.answer for call in calls)
    assert answers == {job.id: 1, None: PRODUCERS * times - 1}


@pytest.mark.parametrize("times", storm(300, 10_000))
@pytest.mark.parametrize("unique_for", ["unfinished", "waiting", 0.02, 1000.0])
def test_no_two_jobs_have_one_key_at_any_moment_while_they_are_finished(
    unique_for: Any, times: int, start: Start, path: str, say: Say
) -> None:
    calls = _race_for_key(start, path, times, unique_for, "return", consumers=2)

    with opened(path) as svc:
        jobs = {job.id: job for job in _all(svc)}
        assert whole(svc) == []
    say(f"{len(calls)} calls, {len(jobs)} jobs")
    spans = {job.id: _span_of_key(job, unique_for) for job in jobs.values()}
    in_order = sorted(spans.values())
    assert [(one, two) for one, two in pairwise(in_order) if two[0] < one[1]] == []
    # Each caller was told of the job that had the key at some moment of the call.
    wrong = [
        call
        for call in calls
        if call.answer is None
        or spans[call.answer][0] > call.until_us
        or spans[call.answer][1] < call.since_us
    ]
    assert wrong == []
    assert (len(jobs) == 1) is (unique_for == 1000.0)


def _span_of_key(job: JobRecord, unique_for: Any) -> tuple[int, int]:
    """From when to when the job has had the key."""
    never = 2**62
    if unique_for == "waiting":
        return job.created_us, job.reserved_us or never
    if unique_for == "unfinished":
        return job.created_us, job.ended_us or never
    return job.created_us, job.created_us + int(unique_for * 1e6)


def _race_for_key(
    start: Start,
    path: str,
    times: int,
    unique_for: Any,
    on_conflict: Literal["return", "raise"],
    consumers: int,
) -> list[Call]:
    """What came of so many enqueues of one key by each of the producers."""
    opened(path).close()
    crew = [start(_consume_until_stopped, path) for _ in range(consumers)]
    producers = [
        start(_enqueue_key, path, times, unique_for, on_conflict) for _ in range(PRODUCERS)
    ]
    for child in (*crew, *producers):
        assert child.hear() == "ready"
    for child in producers:
        child.tell("go")
    calls: list[Call] = [call for child in producers for call in child.hear(PATIENCE_S)]
    _stop(crew)
    return calls


def _enqueue_key(
    pipe: Pipe, path: str, times: int, unique_for: Any, on_conflict: Literal["return", "raise"]
) -> None:
    calls = []
    with opened(path) as svc:
        pipe.send("ready")
        pipe.recv()
        for _ in range(times):
            since_us = time.time_ns() // 1000
            answer = None
            with suppress(UniqueConflict):
                answer = svc.enqueue(
                    "mail", unique="key", unique_for=unique_for, on_conflict=on_conflict
                )
            calls.append(Call(since_us, time.time_ns() // 1000, answer))
    pipe.send(calls)


def _consume_until_stopped(pipe: Pipe, path: str) -> None:
    with opened(path) as svc:
        signal.signal(signal.SIGTERM, lambda *_: svc.stop())
        pipe.send("ready")
        while not svc.stopped:
            svc.done_many(svc.reserve("mail", 5, timeout=0.02))
    pipe.send("stopped")


# How many run at once.


class Notes:
    """What workers have noted: who began and ended which job, in the order of the file.

    A worker notes a beginning after the job was handed to it, and an end before it tells the
    queue: so never more run than are noted to. One that is to be killed counts as gone from the
    moment of that decision, whatever it may note afterwards.
    """

    def __init__(self, lines: Iterable[str]) -> None:
        self.lines = [line.split() for line in lines]

    def most_at_once(self, key: Callable[[str], object]) -> int:
        """The most jobs that ran at once of any one *key*, which is made of a job's payload."""
        running: dict[tuple[str, str], object] = {}
        counts: Counter[object] = Counter()
        most = 0
        dead: set[str] = set()
        for event, pid, *job in self.lines:
            if event == "kill":
                dead.add(pid)
                for at in [one for one in running if one[0] == pid]:
                    counts[running.pop(at)] -= 1
            elif pid in dead:
                continue
            elif event == "begin":
                running[pid, job[0]] = key(job[0])
                counts[key(job[0])] += 1
                most = max(most, counts[key(job[0])])
            elif event == "end" and (pid, job[0]) in running:
                counts[running.pop((pid, job[0]))] -= 1
        return most


@pytest.mark.parametrize("jobs", storm(400, 20_000))
@pytest.mark.parametrize("kills", [False, True])
def test_no_more_jobs_of_a_topic_run_at_once_than_its_concurrency(
    kills: bool, jobs: int, start: Start, path: str, tmp_path: Path, seed: int, say: Say
) -> None:
    chance = random.Random(seed)
    with opened(path) as svc:
        svc.configure("mail", concurrency=MOST)
        svc.enqueue_many("mail", [f"j{number}" for number in range(jobs)])
        killed = _work_off(svc, start, path, tmp_path, chance, kills=kills)
        report = whole(svc)
        statuses = Counter(job.status for job in _all(svc))
    notes = Notes(Notebook(tmp_path / "notes").read())
    most = notes.most_at_once(lambda _: "topic")
    say(f"{jobs} jobs, {killed} kills, {most} at once")

    assert most <= MOST
    assert kills or most > 1, "nothing raced"
    assert statuses == {Status.DONE: jobs}
    assert report == []


@pytest.mark.parametrize("each", storm(30, 1_000))
@pytest.mark.parametrize("kills", [False, True])
def test_each_group_of_one_at_a_time_is_served_in_strict_order(
    kills: bool, each: int, start: Start, path: str, tmp_path: Path, seed: int, say: Say
) -> None:
    """Over processes, with retries at once and later, releases, and deaths of holders."""
    chance = random.Random(seed)
    groups = [f"g{number}" for number in range(6)]
    with opened(path) as svc:
        svc.configure("mail", group_concurrency=1)
        with svc.batch() as batch:
            for number in range(each):
                for group in groups:
                    batch.enqueue("mail", f"{group}:{number}", group=group)
        killed = _work_off(svc, start, path, tmp_path, chance, kills=kills, fails=0.2)
        report = whole(svc)
        statuses = Counter(job.status for job in _all(svc))
    lines = Notebook(tmp_path / "notes").read()
    say(f"{each * len(groups)} jobs, {killed} kills, {len(lines)} notes")

    assert _out_of_order(lines) == []
    assert statuses == {Status.DONE: each * len(groups)}
    assert report == []


def _out_of_order(lines: Iterable[str]) -> list[str]:
    """Beginnings of jobs whose predecessors in their groups nobody had brought to an end."""
    wrong = []
    dead: set[str] = set()
    last: defaultdict[str, int] = defaultdict(lambda: -1)
    finished: defaultdict[str, int] = defaultdict(lambda: -1)
    for event, pid, *job in map(str.split, lines):
        if event == "kill":
            dead.add(pid)
            continue
        group, _, number = job[0].partition(":")
        if event == "finish":  # also by one who is to be killed: he has done so
            finished[group] = max(finished[group], int(number))
        elif event == "begin" and pid not in dead:
            if int(number) not in {last[group], finished[group] + 1}:
                wrong.append(f"{job[0]} began after {last[group]}, finished {finished[group]}")
            last[group] = int(number)
    return wrong


@pytest.mark.parametrize("jobs", storm(400, 20_000))
def test_what_a_canceled_job_s_holder_takes_up_is_given_to_nobody_else(
    jobs: int, start: Start, path: str, tmp_path: Path, seed: int, say: Say
) -> None:
    """Cancels in a storm: the holders work on, and the limits hold until they know."""
    chance = random.Random(seed)
    with opened(path) as svc:
        svc.configure("mail", concurrency=MOST, group_concurrency=2)
        producer = start(_enqueue_with_keys, path, jobs, chance.randrange(2**32))
        canceler = start(_cancel_what_runs, path, chance.randrange(2**32))
        killed = _work_off(svc, start, path, tmp_path, chance, kills=True, until=producer)
        _stop([canceler])
        report = whole(svc)
        records = _all(svc)
    notes = Notes(Notebook(tmp_path / "notes").read())
    by_topic = notes.most_at_once(lambda _: "topic")
    by_group = notes.most_at_once(lambda job: job.split(":")[0])
    by_key = notes.most_at_once(lambda job: job.split(":")[1])
    statuses = Counter(job.status for job in records)
    say(f"{statuses}, {killed} kills; at once {by_topic}, of a group {by_group}, key {by_key}")

    assert by_topic <= MOST
    assert by_group <= 2
    assert by_key == 1
    assert statuses.keys() <= {Status.DONE, Status.CANCELED}
    assert statuses[Status.CANCELED] > 0
    assert report == []


def _enqueue_with_keys(pipe: Pipe, path: str, jobs: int, seed: int) -> None:
    """Jobs of two groups that share a few keys; not faster than they are worked off."""
    chance = random.Random(seed)
    ids: set[str] = set()
    with opened(path) as svc:
        while len(ids) < jobs:
            key = f"k{chance.randrange(8)}"
            payload = f"{chance.choice('ab')}:{key}"
            ids.add(svc.enqueue("mail", payload, group=payload[0], unique=key))
            if svc.stats("mail").totals.ready > 6:
                time.sleep(0.001)
    pipe.send("enough")


def _cancel_what_runs(pipe: Pipe, path: str, seed: int) -> None:
    chance = random.Random(seed)
    with opened(path) as svc:
        signal.signal(signal.SIGTERM, lambda *_: svc.stop())
        pipe.send("ready")
        while not svc.stopped:
            running = [job.id for job in svc.find(status="reserved", limit=20)]
            chosen = [job_id for job_id in running if chance.random() < 0.3]
            svc.cancel(chosen)
            if chosen and chance.random() < 0.3:
                svc.delete(chosen)
            elif chosen and chance.random() < 0.3:
                # A job that is reset may run beside its former holder: its key is its own.
                svc.pause("mail")
                svc.reset(chosen)
                svc.cancel(chosen)
                svc.resume("mail")
            time.sleep(0.003)
    pipe.send("stopped")


# Workers who note what they do.


def _work_off(
    svc: JobService,
    start: Start,
    path: str,
    tmp_path: Path,
    chance: random.Random,
    *,
    kills: bool,
    fails: float = 0.0,
    until: Child | None = None,
) -> int:
    """Let workers do all jobs, and kill now this one, now that one; gives how many were killed.

    At every look no more jobs are reserved than may be. *until*: somebody still brings jobs.
    """
    notes = Notebook(tmp_path / "notes")

    def another() -> Child:
        return start(_work, path, str(tmp_path), chance.randrange(2**32), fails)

    crew = [another() for _ in range(WORKERS)]
    most = svc.settings("mail").concurrency or 10**6
    killed = 0
    brought = until is None
    end = time.monotonic() + PATIENCE_S
    since, noted = time.monotonic(), 0
    while not brought or svc.stats("mail").totals.unfinished:
        assert time.monotonic() < end, svc.stats("mail")
        assert svc.stats("mail").totals.reserved <= most
        if until is not None and not brought and until.heard():
            assert until.hear() == "enough"
            brought = True
        time.sleep(0.005)
        # Where processes come up slower than they are killed, nothing would ever be done.
        if kills and time.monotonic() - since > 0.1 and len(notes) > noted:
            since = time.monotonic()
            victim = chance.choice(crew)
            assert victim.alive, f"a worker ended by itself: {victim.hear()}"
            notes.note(f"kill {victim.pid}")
            victim.kill()
            killed, noted = killed + 1, len(notes)
            crew[crew.index(victim)] = another()
    _stop(crew)
    assert killed > 0 or not kills
    return killed


def _work(pipe: Pipe, path: str, directory: str, seed: int, fails: float) -> None:
    """Reserve and finish jobs until told to stop, noting each step."""
    chance = random.Random(seed)
    notes = Notebook(f"{directory}/notes")
    with opened(path) as svc:
        signal.signal(signal.SIGTERM, lambda *_: svc.stop())
        pid = os.getpid()
        while not svc.stopped:
            jobs = svc.reserve("mail", chance.choice((1, 1, 2, 5)), timeout=0.05)
            notes.note(*(f"begin {pid} {job.payload}" for job in jobs))
            for job in jobs:
                time.sleep(chance.choice((0.0, 0.0, 0.002)))
                with suppress(ReservationLost):
                    _settle(job, chance, notes, pid, fails)
    pipe.send("stopped")


def _settle(job: Job, chance: random.Random, notes: Notebook, pid: int, fails: float) -> None:
    if chance.random() < fails:
        notes.note(f"end {pid} {job.payload}")
        match chance.randrange(3):
            case 0:
                job.retry(0)
            case 1:
                job.retry(0.005)
            case _:
                job.release()
    else:
        notes.note(f"finish {pid} {job.payload}", f"end {pid} {job.payload}")
        job.done()


# Rates.


@pytest.mark.parametrize("jobs", storm(250, 3_000))
@pytest.mark.parametrize("grouped", [False, True])
def test_no_more_jobs_are_handed_out_in_any_time_than_the_rate_allows(
    grouped: bool, jobs: int, start: Start, path: str, say: Say
) -> None:
    rate, burst = 300, 20
    with opened(path) as svc:
        if grouped:
            svc.configure("mail", group_rate=(rate, 1.0), group_burst=burst)
        else:
            svc.configure("mail", rate=(rate, 1.0), burst=burst)
        group = "g" if grouped else None
        svc.enqueue_many("mail", list(range(jobs)), group=group)
        since = time.monotonic()
        crew = [start(_take_what_may_be, path) for _ in range(4)]
        eventually(lambda: not svc.stats("mail").totals.unfinished, PATIENCE_S)
        took = time.monotonic() - since
        _stop(crew)
        times = sorted(job.reserved_us or 0 for job in _all(svc))
        assert whole(svc) == []
    allowed = burst + rate * took
    say(f"{jobs} jobs in {took:.2f} s, at {rate} a second and {burst} at once")

    # Over any span: how many, less what the rate gives in it, is never more than a burst. Wall
    # clock and boot clock may drift apart a little.
    ahead = [number - rate * at_us / 1e6 for number, at_us in enumerate(times)]
    least, worst = ahead[0], 0.0
    for one in ahead:
        least = min(least, one)
        worst = max(worst, one - least + 1)
    assert worst <= burst + 1
    assert jobs <= allowed
    assert took < 2 * (jobs - burst) / rate + SOON_S, "it took more time than the rate asks for"


def _take_what_may_be(pipe: Pipe, path: str) -> None:
    chance = random.Random()
    with opened(path) as svc:
        signal.signal(signal.SIGTERM, lambda *_: svc.stop())
        while not svc.stopped:
            svc.done_many(svc.reserve("mail", chance.randint(1, 30), timeout=0.1))
    pipe.send("stopped")


# Caps.


@pytest.mark.parametrize("jobs", storm(300, 10_000))
@pytest.mark.parametrize("when_full", ["reject", "drop-oldest", "drop-lowest"])
def test_no_more_jobs_wait_than_may_and_none_is_lost_silently(
    when_full: Any, jobs: int, start: Start, path: str, say: Say
) -> None:
    most = 20
    with opened(path) as svc:
        svc.configure("mail", max_jobs=most, when_full=when_full)
        crew = [start(_consume_until_stopped, path) for _ in range(2)]
        producers = [start(_fill_up, path, jobs, number) for number in range(4)]
        assert [child.hear() for child in crew] == ["ready"] * 2
        seen = 0
        while not all(child.heard() for child in producers):
            totals = svc.stats("mail").totals
            seen = max(seen, totals.ready + totals.delayed)
        told = [child.hear() for child in producers]
        accepted = [job_id for ids, _ in told for job_id in ids]
        refused = sum(count for _, count in told)
        eventually(lambda: not svc.stats("mail").totals.unfinished, PATIENCE_S)
        _stop(crew)
        records = {job.id: job for job in _all(svc)}
        assert whole(svc) == []
    ends = Counter((records[job_id].status, records[job_id].reason) for job_id in accepted)
    say(f"{len(accepted)} accepted, {refused} refused, {seen} waiting at most; {ends}")

    assert 0 < seen <= most
    assert len(records) == len(accepted) == len(set(accepted))
    dropped = (Status.CANCELED, Reason.DROPPED)
    assert ends.keys() <= {(Status.DONE, None), dropped}
    if when_full == "reject":
        assert refused > 0
        assert dropped not in ends
    else:
        assert ends[dropped] > 0


def _fill_up(pipe: Pipe, path: str, jobs: int, number: int) -> None:
    chance = random.Random(number)
    accepted: list[str] = []
    refused = 0
    with opened(path) as svc:
        while len(accepted) < jobs:
            more: OptionArgs = {"group": chance.choice((None, "a", "b"))}
            weight, payload = chance.randrange(3), bytes(chance.randrange(50))
            try:
                if chance.random() < 0.5:
                    delay = chance.choice((None, None, 0.003))
                    one = svc.enqueue("mail", payload, weight=weight, delay=delay, **more)
                    accepted.append(one)
                else:
                    several = [payload] * chance.randint(1, 8)
                    accepted += svc.enqueue_many("mail", several, weight=weight, **more)
            except QueueFull:
                refused += 1
                time.sleep(0.001)
    pipe.send((accepted, refused))


# What they share.


def _stop(crew: Iterable[Child]) -> None:
    """Let processes come to their end, and be sure that they did."""
    crew = list(crew)
    for child in crew:
        child.signal(signal.SIGTERM)
    for child in crew:
        assert child.ended() in {0, -signal.SIGTERM}  # that if it has only just begun


def _all(svc: JobService) -> list[JobRecord]:
    found: list[JobRecord] = []
    while page := svc.find(after=found[-1].id if found else None, limit=10_000):
        found += page
    return found
