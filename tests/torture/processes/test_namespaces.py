"""Processes that share a queue and nothing else: each with a time since boot, a boot id and pids of
its own, as containers have them.

A lease is as long for all of them, a living holder is dead to none of them, and no reader loses
what it reads. Equal pids, which LMDB cannot tell apart, are a clear error to who comes second.
"""

import os
import random
import shutil
import time
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Final
from uuid import UUID

import lmdb
import pytest

import jobq
from jobq import JobqError, Status, StoreUnavailable
from jobq.clock import SystemClock
from jobq.repo.lmdb import LmdbStore, steps
from tests.conftest import DEADLINE_S, eventually
from tests.crash.conftest import Say
from tests.crash.processes import Child, Notebook, Pipe, Start, die_with_parent
from tests.torture.processes.namespaces import (
    BOOT_ID,
    HERE,
    Mount,
    Place,
    make_next_pid,
    make_time_namespace,
    within,
)

pytestmark = pytest.mark.usefixtures("places")

LONG_LEASE_S: Final = 600.0
FAR_S: Final = 1_000_000
"""How far namespaces are apart: much more than any lease."""
MOMENT_S: Final = 0.3


@pytest.fixture
def path(tmp_path: Path) -> str:
    """A queue."""
    path = tmp_path / "queue"
    jobq.open(path, durability="unsafe").close()
    return str(path)


def _hold(pipe: Pipe, path: str) -> None:
    """Enqueue and reserve a job; say so, and settle it when told to."""
    with jobq.open(path, durability="unsafe") as svc:
        svc.enqueue("a", lease=LONG_LEASE_S)
        [job] = svc.reserve("a", timeout=0)
        pipe.send((job.id, os.getpid()))
        pipe.recv()
        job.done()
        pipe.send("done")


def _look(pipe: Pipe, path: str, timeout: float = 0.0) -> None:
    """Try to reserve, and say what came of it, and when; again when told for how long."""
    try:
        with jobq.open(path, durability="unsafe") as svc:
            while True:
                before = svc.find(status="reserved")
                jobs = svc.reserve("a", 9, timeout=timeout)
                now = time.monotonic()
                leases = {record.id: record.lease_until for record in before}
                pipe.send(([job.id for job in jobs], now, leases))
                timeout = pipe.recv()
    except JobqError as error:
        pipe.send((type(error).__name__, str(error)))


def _kill(child: Child) -> None:
    """Kill a process with its namespace, and see it gone: its end of the pipe is closed then."""
    child.kill()
    with pytest.raises(AssertionError, match="ended with"):
        child.hear()


def _hold_two(pipe: Pipe, path: str) -> None:
    """Hold one job for long and one for a moment; settle the first when told to."""
    with jobq.open(path, durability="unsafe") as svc:
        svc.enqueue("a", lease=LONG_LEASE_S)
        svc.enqueue("a", lease=MOMENT_S)
        since = time.monotonic()
        lasting, brief = svc.reserve("a", 2, timeout=0)
        pipe.send((lasting.id, brief.id, since))
        pipe.recv()
        lasting.done()
        pipe.send("done")


AHEAD: Final = Place(ahead=(FAR_S,))
BEHIND: Final = Place(ahead=(-int(time.clock_gettime(time.CLOCK_BOOTTIME) / 2),))
"""Where the machine has been up for half of the time."""

PLACES: Final = {
    "ahead": (AHEAD, HERE),
    "of one that is ahead": (HERE, AHEAD),
    "behind": (BEHIND, HERE),
    "of one that is behind": (HERE, BEHIND),
    "far apart": (AHEAD, BEHIND),
    "nested": (Place(ahead=(FAR_S, FAR_S)), AHEAD),
}


@pytest.mark.parametrize("place", PLACES)
def test_a_lease_is_as_long_in_every_time_namespace(place: str, start: Start, path: str) -> None:
    holders, others = PLACES[place]
    holder, before = start(within, holders, _hold_two, path), time.time()
    lasting, brief, since = holder.hear()
    jobs, at, leases = start(within, others, _look, path, DEADLINE_S).hear()

    assert jobs == [brief]
    assert at - since >= MOMENT_S
    assert before < leases[lasting].timestamp() - LONG_LEASE_S + 1 < before + DEADLINE_S
    holder.tell()
    assert holder.hear() == "done"
    with jobq.open(path, durability="unsafe") as svc:
        assert (svc.status(lasting), svc.get(lasting).crashes) == (Status.DONE, 0)


def test_a_rate_holds_over_all_time_namespaces(start: Start, path: str) -> None:
    with jobq.open(path, durability="unsafe") as svc:
        svc.configure("a", rate=(2, FAR_S))
        svc.enqueue_many("a", range(9))

    # By the clock of who is ahead, all of that time has passed.
    taken = [len(start(within, place, _look, path).hear()[0]) for place in (HERE, AHEAD, BEHIND)]
    assert taken == [2, 0, 0]


def _make_namespace(pipe: Pipe, path: str, first: bool) -> None:
    """Make a time namespace for the children, before or after the queue is opened."""
    svc = None if first else jobq.open(path, durability="unsafe")
    make_time_namespace(FAR_S)
    outside = time.clock_gettime(time.CLOCK_BOOTTIME)
    if first:
        try:
            jobq.open(path, durability="unsafe")
        except StoreUnavailable as error:
            pipe.send(str(error))
    reading, writing = os.pipe()
    if not os.fork():
        die_with_parent()
        try:
            with jobq.open(path, durability="unsafe") if first else svc as child:  # type: ignore[union-attr]
                jobs = child.reserve("a", timeout=0)
            shift = time.clock_gettime(time.CLOCK_BOOTTIME) - outside
            drift = SystemClock().boot_us() / 1e6 - outside
            os.write(writing, repr((len(jobs), shift > FAR_S - 1, drift < FAR_S / 2)).encode())
        finally:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as child_said:
        pipe.send(child_said.read())
    if svc is not None:
        pipe.send(len(svc.reserve("a", timeout=0)))


def test_children_of_a_process_find_out_their_own_time_namespace(start: Start, path: str) -> None:
    holder = start(_hold, path)
    holder.hear()
    child = start(_make_namespace, path, False)

    assert child.hear() == repr((0, True, True))
    assert child.hear() == 0


def test_who_cannot_tell_its_own_time_namespace_any_more_is_refused(
    start: Start, path: str
) -> None:
    child = start(_make_namespace, path, True)

    assert "has made a time namespace for its children" in child.hear()
    assert child.hear() == repr((0, True, True))


# The id of the boot.


def _container(pid: int, tmp_path: Path, boot: int, *ahead: int) -> Place:
    """Where the boot has an id of its own."""
    file = tmp_path / f"boot {boot}"
    file.write_text(f"{UUID(int=boot)}\n")
    return Place(ahead, pid, (Mount(str(file), BOOT_ID),))


def test_holders_that_are_shown_different_boot_ids_are_alive_to_each_other(
    start: Start, path: str, tmp_path: Path
) -> None:
    """LXC and systemd-nspawn mount one of their own in each container."""
    holder = start(within, _container(40, tmp_path, 1), _hold, path)
    held, _ = holder.hear()
    other = start(within, _container(50, tmp_path, 2), _look, path, 1.2)
    assert other.hear()[0] == []  # it has looked for the dead meanwhile

    _kill(holder)
    other.tell(DEADLINE_S)
    assert other.hear()[0] == [held]


def test_in_a_copy_with_the_same_boot_id_nobody_holds_anything(
    start: Start, path: str, tmp_path: Path
) -> None:
    """A queue that is copied with its holders' files, to this machine or to one like it."""
    holder = start(_hold, path)
    jid, _ = holder.hear()
    copy = tmp_path / "copy"
    shutil.copytree(path, copy)

    with jobq.open(copy, durability="unsafe") as svc:
        [job] = svc.reserve("a", timeout=0)
        assert (job.id, job.crashes) == (jid, 1)
        assert svc.check().ok
    holder.tell()
    assert holder.hear() == "done"


@pytest.mark.parametrize(
    ("covered", "says"),
    [
        (Mount("/dev/null", BOOT_ID), "shows '': expected the id of a boot"),
        (Mount("", "/proc/sys/kernel/random"), "No such file"),
        (Mount("", "/proc"), "No such file"),
    ],
    ids=["not shown", "not there", "no proc"],
)
def test_without_a_boot_id_a_queue_is_refused(
    covered: Mount, says: str, start: Start, path: str, tmp_path: Path
) -> None:
    if not covered.source:
        (tmp_path / "empty").mkdir()
        covered = covered._replace(source=str(tmp_path / "empty"))
    name, message = start(within, Place(mounts=(covered,)), _look, path).hear()

    assert name == "StoreUnavailable"
    assert says in message


# Pids of their own.


def test_a_process_whose_pid_is_that_of_another_one_elsewhere_is_refused_and_does_no_harm(
    start: Start, path: str
) -> None:
    first = start(within, Place(pid=1), _hold, path)
    jid, pid = first.hear()
    name, message = start(within, Place(pid=1), _look, path).hear()

    assert pid == 1
    assert name == "StoreUnavailable"
    assert "another process with the same pid (1) has the queue open" in message
    assert "must share a PID namespace" in message
    first.tell()
    assert first.hear() == "done"
    with jobq.open(path, durability="unsafe") as svc:
        assert svc.status(jid) is Status.DONE
        assert svc.check().ok


def _fork_into_a_twin(pipe: Pipe, path: str) -> None:
    """A fork's child that gets the pid of another one elsewhere."""
    svc = jobq.open(path, durability="unsafe")
    svc.enqueue("b")
    make_next_pid(77)
    if pid := os.fork():
        assert pid == 77
        os.waitpid(pid, 0)
        pipe.send(svc.stats("b").totals.ready)
    else:
        try:
            svc.enqueue("b")
        except JobqError as error:
            pipe.send((type(error).__name__, str(error)))
        os._exit(0)


def test_a_fork_whose_pid_is_that_of_another_one_elsewhere_is_refused(
    start: Start, path: str
) -> None:
    first = start(within, Place(pid=77), _hold, path)
    assert first.hear()[1] == 77
    second = start(within, Place(pid=70), _fork_into_a_twin, path)

    name, message = second.hear()
    assert name == "StoreUnavailable"
    assert "same pid (77)" in message
    assert second.hear() == 1
    first.tell()
    assert first.hear() == "done"


def _read_for_long(pipe: Pipe, path: str) -> None:
    """As a reader of jobq does in the middle of a page, but for longer."""
    env = lmdb.open(path, max_dbs=20, map_size=2**30, lib_version=0)
    with env.begin() as txn:
        before = {bytes(key): bytes(value) for key, value in txn.cursor()}
        pipe.send(os.getpid())
        pipe.recv()
        pipe.send(before == {bytes(key): bytes(value) for key, value in txn.cursor()})


def test_a_reader_in_another_pid_namespace_keeps_its_pages(start: Start, path: str) -> None:
    """Nor does one that is refused for its pid clear the slot of its twin."""
    reader = start(within, Place(pid=20), _read_for_long, path)
    assert reader.hear() == 20
    assert start(within, Place(pid=20), _look, path).hear()[0] == "StoreUnavailable"
    with jobq.open(path, durability="unsafe") as svc:
        env = svc.store._env._file.env  # type: ignore[attr-defined]
        for number in range(60):
            svc.enqueue("b", number, retention=0)
            env.reader_check()
            svc.done_many(svc.reserve("b", timeout=0))
        slots = [line.split()[0] for line in env.readers().splitlines()[1:]]

        assert "20" in slots
        reader.tell()
        assert reader.hear()


def test_a_container_that_is_started_again_takes_up_the_jobs_of_the_one_before(
    start: Start, path: str
) -> None:
    """With the same pids; the slot of a reader that was killed stays with nobody."""
    reader = start(within, Place(pid=1), _read_for_long, path)
    assert reader.hear() == 1
    _kill(reader)
    held = []
    for _ in range(2):
        holder = start(within, Place(pid=1), _hold, path)
        held.append(holder.hear())
        _kill(holder)
    again = start(within, Place(pid=1), _look, path, DEADLINE_S)
    jobs = again.hear()[0]

    assert [pid for _, pid in held] == [1, 1]
    assert held[-1][0] in jobs
    with jobq.open(path, durability="unsafe") as svc:
        assert sum(record.crashes for record in svc.find()) == 2
        assert svc.check().ok


def test_a_writer_that_no_pid_of_ours_names_is_said_to_have_none(start: Start, path: str) -> None:
    """Who is in another PID namespace has no name here; and never that of an innocent."""
    writer = start(_enqueue_when_told, path)
    writer.hear()
    other = start(within, Place(pid=30), _write_impatiently, path)
    other.hear()
    writer.tell("hold")
    assert writer.hear() == "held"
    other.tell()
    said = other.hear()

    assert "held by a process that cannot be named" in said
    writer.tell()


def _enqueue_when_told(pipe: Pipe, path: str) -> None:
    svc = jobq.open(path, durability="unsafe")

    def reached(step: str) -> None:
        if step == "operation run":
            pipe.send("held")
            pipe.recv()

    pipe.send("open")
    pipe.recv()
    steps.reached = reached
    svc.enqueue("a")


def _write_impatiently(pipe: Pipe, path: str) -> None:
    store = LmdbStore(path, durability="unsafe", lock_timeout=0.2)
    pipe.send("open")
    pipe.recv()
    try:
        jobq.JobService(store).enqueue("a")
    except JobqError as error:
        pipe.send(str(error))


def _open_alone(pipe: Pipe, path: str) -> None:
    with jobq.open(path, topics="memory", durability="unsafe"):
        pipe.send("open")
        pipe.recv()


def test_topics_in_memory_keep_out_the_processes_of_other_containers(
    start: Start, path: str
) -> None:
    owner = start(within, Place(pid=30), _open_alone, path)
    assert owner.hear() == "open"
    assert start(within, Place(pid=31), _look, path).hear()[0] == "StoreLocked"
    assert start(_look, path).hear()[0] == "StoreLocked"


# A crowd of containers.


@pytest.mark.parametrize(
    ("containers", "kills", "jobs"),
    [(3, 6, 120), pytest.param(6, 100, 4_000, marks=pytest.mark.storm)],
)
def test_containers_that_are_killed_lose_nothing_and_do_nothing_twice(
    containers: int, kills: int, jobs: int,
    start: Start, path: str, tmp_path: Path, seed: int, say: Say,
) -> None:  # fmt: skip
    """Each has a boot id, a time since boot and pids of its own; some come back with old pids."""
    chance = random.Random(seed)
    added, finished = Notebook(tmp_path / "added"), Notebook(tmp_path / "finished")
    enough = tmp_path / "enough"

    def another(place: int) -> Child:
        ahead = chance.choice(((), (FAR_S,), BEHIND.ahead, (10 * FAR_S, -FAR_S)))
        where = _container(100 * (1 + place), tmp_path, chance.randrange(5), *ahead)
        return start(within, where, _work_in_a_container, path, str(tmp_path))

    crew = [another(place) for place in range(containers)]
    for child in crew:
        child.hear()
    killed = 0
    since = time.monotonic()
    with jobq.open(path) as svc:
        while not (enough.exists() and svc.stats().totals.unfinished == 0):
            assert time.monotonic() - since < 280, svc.stats()
            if len(added) >= jobs and killed >= kills:
                enough.touch()
            if killed < kills:
                place = chance.randrange(containers)
                eventually(partial(_more, added, len(added) + jobs // (2 * kills + 2)))
                crew[place].kill()
                crew[place] = _hear_one(partial(another, place))
                killed += 1
            else:
                time.sleep(0.05)
        statuses = {record.id: record for record in _every(svc)}
        assert svc.check().ok
    for child in crew:
        child.kill()
    acknowledged, done = set(added.read()), Counter(finished.read())
    crashes = sum(record.crashes for record in statuses.values())
    say(
        f"{containers} containers, {killed} killed, {len(acknowledged)} jobs acknowledged, "
        f"{crashes} redelivered"
    )

    assert acknowledged <= {jid for jid, one in statuses.items() if one.status is Status.DONE}
    assert max(done.values()) == 1
    assert killed == kills


def _more(notebook: Notebook, notes: int) -> bool:
    return len(notebook) >= notes


def _hear_one(another: Callable[[], Child]) -> Child:
    """One that has opened the queue: the one before it may still be dying, with its pid."""
    while True:
        child = another()
        if child.hear() == "open":
            return child
        child.discard()


def _work_in_a_container(pipe: Pipe, path: str, directory: str) -> None:
    added, finished = Notebook(f"{directory}/added"), Notebook(f"{directory}/finished")
    enough = Path(directory) / "enough"
    try:
        svc = jobq.open(path, lease=LONG_LEASE_S, max_crashes=0)
    except StoreUnavailable as error:
        if "same pid" not in str(error):
            raise
        pipe.send("refused")
        return
    pipe.send("open")
    while True:
        if not enough.exists():
            added.note(*svc.enqueue_many("a", [0, 1]))
        for job in svc.reserve("a", 3, timeout=0.5):
            job.extend(LONG_LEASE_S)
            job.done()
            finished.note(job.id)


def _every(svc: jobq.JobService) -> Any:
    after = None
    while page := svc.find(after=after, limit=1000):
        yield from page
        after = page[-1].id
