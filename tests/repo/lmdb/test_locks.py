"""The gate, the file lock and the bell: who waits for whom, and that nobody waits for ever."""

import dis
import fcntl
import inspect
import mmap
import os
import random
import signal
import struct
import threading
import time
import weakref
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from statistics import median
from types import CodeType, FrameType, ModuleType
from typing import Any

import pytest

import jobq
from jobq import Job, JobService
from jobq.errors import InvalidValue, StoreBusy, StoreUnavailable
from jobq.repo import forking
from jobq.repo.entry import Mark
from jobq.repo.lmdb import LmdbStore, filelock, group, registry, steps
from jobq.repo.lmdb import gate as gate_module
from jobq.repo.lmdb.bell import COUNTERS, Bell
from jobq.repo.lmdb.filelock import FileLock
from jobq.repo.lmdb.gate import Gate
from tests.conftest import LONG_S, SOON_S, Crew, eventually, sleep_soundly
from tests.crash.processes import state_of
from tests.repo.lmdb.conftest import Start
from tests.repo.lmdb.processes import Child, asleep, hear, heard, put, say

# The gate: one thread of a process at a time inside LMDB.


def test_one_thread_at_a_time_is_inside_the_gate(crew: Crew) -> None:
    gate = Gate()
    inside, most = 0, 0

    def work() -> None:
        nonlocal inside, most
        for _ in range(300):
            gate.acquire()
            inside += 1
            most = max(most, inside)
            inside -= 1
            gate.release_if_mine()

    for _ in range(4):
        crew.start(work)
    crew.join()

    assert (inside, most) == (0, 1)


def test_threads_enter_in_the_order_in_which_they_came(crew: Crew) -> None:
    gate = Gate()
    order: list[int] = []

    def enter(number: int) -> None:
        gate.acquire()
        order.append(number)
        gate.release_if_mine()

    gate.acquire()
    for number in range(8):
        crew.start(enter, number)
        eventually(partial(_is_waited_for_by, gate, number + 1))
    gate.release_if_mine()
    crew.join()

    assert order == list(range(8))


def _is_waited_for_by(gate: Gate, threads: int) -> bool:
    return len(gate._queue) == threads + 1  # the one who is inside stands first


def test_who_is_not_inside_lets_nobody_in(crew: Crew) -> None:
    gate = Gate()
    entered = threading.Event()

    def enter() -> None:
        gate.acquire()
        entered.set()
        gate.release_if_mine()

    gate.acquire()
    crew.start(enter)
    eventually(partial(_is_waited_for_by, gate, 1))
    outsider = threading.Thread(target=gate.release_if_mine)
    outsider.start()
    outsider.join()

    assert not entered.is_set()
    gate.release_if_mine()
    assert entered.wait(LONG_S)


def test_a_writer_gets_its_turns_beside_threads_that_read_all_the_time(
    tmp_path: Path, crew: Crew
) -> None:
    """With an ordinary lock a reading thread had 222 296 turns while a writer had 149."""
    reads, writes = 0, 100
    ended = threading.Event()
    with jobq.open(tmp_path / "queue", durability="unsafe") as svc:

        def read() -> None:
            nonlocal reads
            while not ended.is_set():
                svc.status(jid)
                reads += 1

        jid = svc.enqueue("a", 0)
        for _ in range(3):
            crew.start(read)
        eventually(lambda: reads > 10)
        meanwhile: list[int] = []
        for number in range(writes):
            before = reads
            svc.enqueue("a", number)
            meanwhile.append(reads - before)
        ended.set()
        crew.join()

    # A write goes through the gate once, and lets each of the three readers pass before it. (Some
    # wait for a processor as well, which is not the gate's to say.)
    assert median(meanwhile) < 20


class Interrupts:
    """In a child: SIGUSR1, which the test sends all the time, raises an exception when armed."""

    def __init__(self, interrupt: type[BaseException] = KeyboardInterrupt) -> None:
        self.armed = False
        self._interrupt = interrupt
        signal.signal(signal.SIGUSR1, self._meet)

    def _meet(self, _number: int, _frame: FrameType | None) -> None:
        if self.armed:
            self.armed = False
            raise self._interrupt


def pester(child: Child) -> None:
    """Send a signal at odd times until the child says something."""
    dice = random.Random(1)
    done = threading.Event()

    def send() -> None:
        while not done.wait(dice.uniform(0, 0.0004)):
            child.signal(signal.SIGUSR1)

    sender = threading.Thread(target=send, daemon=True)
    sender.start()
    try:
        assert child.said() == "fine"
    finally:
        done.set()
        sender.join()


def _interrupts_in_the_gate(hits: int, contended: bool) -> None:
    put(gate_module, "HEAL_S", 0.02)  # the rest of the time is this test's
    interrupts, gate = Interrupts(), Gate()
    ended = threading.Event()

    def pass_through() -> None:
        gate.acquire()
        gate.release_if_mine()

    def contend() -> None:
        while not ended.is_set():
            pass_through()

    other = threading.Thread(target=contend if contended else pass_through, daemon=True)
    other.start()
    say("ready")

    def pass_through_again_and_again() -> None:
        while True:
            mark = Mark()  # as the environment does: it is gone with this call
            try:
                gate.acquire(weakref.ref(mark))
            finally:
                gate.release_if_mine()

    for hit in range(hits):
        try:
            interrupts.armed = True
            pass_through_again_and_again()
        except KeyboardInterrupt:
            pass
        passing = threading.Thread(target=pass_through, daemon=True)
        passing.start()
        passing.join(SOON_S)
        assert not passing.is_alive(), f"the gate is stuck after {hit + 1} interrupts"
    ended.set()
    other.join(SOON_S)
    assert not other.is_alive(), "a thread was left waiting at the gate"
    say("fine")


@pytest.mark.parametrize("contended", [False, True], ids=["alone", "contended"])
def test_whenever_an_interrupt_comes_the_gate_can_be_left(start: Start, contended: bool) -> None:
    child = start(_interrupts_in_the_gate, 300, contended)
    assert child.said() == "ready"

    pester(child)


class TimeLimit(Exception):
    """What a handler may raise that is not like KeyboardInterrupt."""


def _interrupts_in_the_store(path: str, hits: int, is_exception: bool) -> None:
    put(gate_module, "HEAL_S", 0.02)
    interrupt = TimeLimit if is_exception else KeyboardInterrupt
    interrupts = Interrupts(interrupt)
    svc = jobq.open(path, durability="unsafe")
    tried = acknowledged = refused = swallowed = 0
    say("ready")

    def work() -> None:
        """A function of its own: the `try` round a loop does not cover its jump back."""
        nonlocal tried, acknowledged, swallowed
        while interrupts.armed:
            tried += 1
            svc.enqueue("a", tried)
            acknowledged += 1
            svc.topics()
        swallowed += 1

    for hit in range(hits):
        try:
            interrupts.armed = True
            work()
        except interrupt:
            pass
        except InvalidValue:  # while the payload was packed: user code might have raised it
            refused += 1
        passing = threading.Thread(target=svc.topics, daemon=True)
        passing.start()
        passing.join(SOON_S)
        assert not passing.is_alive(), f"the store is stuck after {hit + 1} interrupts"
    there = svc.stats().totals.ready
    assert acknowledged <= there <= tried - refused, (acknowledged, there, tried, refused)
    assert not swallowed, f"of {hits} interrupts {swallowed} went nowhere"
    assert svc.check().problems == ()
    say("fine")


@pytest.mark.parametrize("is_exception", [False, True], ids=["like Ctrl-C", "an exception"])
def test_whenever_an_interrupt_comes_the_store_works_afterwards(
    tmp_path: Path, start: Start, is_exception: bool
) -> None:
    child = start(_interrupts_in_the_store, str(tmp_path / "queue"), 300, is_exception)
    assert child.said() == "ready"

    pester(child)


@pytest.mark.parametrize("module", [gate_module, group, registry, forking])
def test_no_interrupt_can_slip_out_between_two_rounds_of_a_loop(module: ModuleType) -> None:
    """From Python 3.12 on, `with` and `try` do not cover the jump back of a loop that ends with a
    condition (`while`, a filter, a last `if`), and an interrupt can come right there. It would
    leave the lock locked. So such loops stand in functions that are called inside.
    """
    slips = [
        f"line {jump.positions.lineno if jump.positions else '?'} in {code.co_qualname}"
        for code in code_in(compile(inspect.getsource(module), str(module.__file__), "exec"))
        if code.co_name != "<genexpr>"
        for jump in dis.Bytecode(code)
        if jump.opname == "JUMP_BACKWARD"
        and isinstance(jump.argval, int)
        and is_covered(code, jump.argval)
        and not is_covered(code, jump.offset)
    ]

    assert slips == []


def code_in(code: CodeType) -> Iterator[CodeType]:
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from code_in(constant)


def is_covered(code: CodeType, offset: int) -> bool:
    """Whether an exception at this instruction meets a `with`, `except` or `finally`."""
    read: Any = dis.Bytecode(code)
    begins = {step.offset: step.opname for step in read}
    for entry in read.exception_entries:
        if entry.start <= offset < entry.end:
            # A comprehension has a handler of its own, which only tidies up its variable.
            return begins[entry.target] == "PUSH_EXC_INFO" or is_covered(code, entry.target)
    return False


# The file lock: one process at a time writes.


def _holds_the_lock(directory: str) -> None:
    FileLock(Path(directory)).acquire(LONG_S)
    say("held")
    hear()


def test_who_has_waited_long_looks_for_the_lock_as_often_as_who_comes_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else he would be shut out by them, where commits take long."""
    naps: list[float] = []
    monkeypatch.setattr(filelock, "time", SlowTime(naps))
    lock, mine = FileLock(tmp_path), FileLock(tmp_path)
    lock.acquire(0)
    with pytest.raises(StoreBusy, match=r"waited 5\.0 s"):
        mine.acquire(5.0)

    assert sum(naps) == pytest.approx(5.0)
    assert max(naps) <= filelock.LONGEST_TURN_NAP_S
    lock.close()
    mine.close()


class SlowTime:
    """Time that passes only where somebody sleeps, which is noted."""

    def __init__(self, naps: list[float]) -> None:
        self._naps = naps
        self._now = 0.0

    def monotonic(self) -> float:
        return self._now

    def sleep(self, seconds: float) -> None:
        self._naps.append(seconds)
        self._now += seconds


def test_a_lock_that_another_process_holds_is_waited_for_no_longer_than_asked(
    tmp_path: Path, start: Start
) -> None:
    child = start(_holds_the_lock, str(tmp_path))
    assert child.said() == "held"
    lock = FileLock(tmp_path)
    began = time.monotonic()

    with pytest.raises(StoreBusy, match=rf"held by process {child.pid} \(python"):
        lock.acquire(0.2)
    lock.release()

    assert 0.2 <= time.monotonic() - began < LONG_S
    lock.close()


def test_a_lock_whose_holder_was_killed_is_free(tmp_path: Path, start: Start) -> None:
    child = start(_holds_the_lock, str(tmp_path))
    assert child.said() == "held"
    lock = FileLock(tmp_path)
    child.kill()

    lock.acquire(0)

    lock.release()
    lock.close()


def test_a_lock_can_be_had_again_and_again_and_released_twice(tmp_path: Path) -> None:
    lock, other = FileLock(tmp_path), FileLock(tmp_path)
    for _ in range(3):
        lock.acquire(0)
        with pytest.raises(StoreBusy):
            other.acquire(0)
        other.release()
        lock.release()
        lock.release()
        other.acquire(0)
        other.release()
    lock.close()
    other.close()


def test_a_lock_that_was_closed_is_refused_and_touches_no_other_file(tmp_path: Path) -> None:
    """A thread that was about to take it, when another closed the store."""
    lock = FileLock(tmp_path)
    lock.close()
    with (tmp_path / "a").open("w") as first, (tmp_path / "b").open("w") as second:
        with pytest.raises(StoreUnavailable, match="closed"):
            lock.acquire(LONG_S)
        lock.release()

        for name in ("a", "b"):  # they have the descriptors that the lock had
            with (tmp_path / name).open("w") as other:
                fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
        assert first.fileno() != second.fileno()


def test_who_gave_up_waiting_keeps_nobody_else_from_the_lock(tmp_path: Path, start: Start) -> None:
    """Giving up in the turnstile leaves it open."""
    child = start(_holds_the_lock, str(tmp_path))
    assert child.said() == "held"
    late = FileLock(tmp_path)
    with pytest.raises(StoreBusy):
        late.acquire(0)
    late.release()
    child.kill()

    other = FileLock(tmp_path)
    other.acquire(0)

    other.release()
    other.close()
    late.close()


def _stops_in_a_transaction(path: str) -> None:
    """Be stopped by SIGSTOP while writing, then finish."""
    with jobq.open(path, durability="unsafe") as svc:

        def stop(step: str) -> None:
            if step == "operation run":
                say("stopping")
                os.kill(os.getpid(), signal.SIGSTOP)

        put(steps, "reached", stop)
        svc.enqueue("a", "late")
        say("done")
        hear()


def test_a_stopped_process_in_a_transaction_lets_others_read_and_is_named_to_writers(
    tmp_path: Path, start: Start
) -> None:
    path = tmp_path / "queue"
    with jobq.open(path, durability="unsafe") as svc:
        svc.enqueue("a", "first")
    child = start(_stops_in_a_transaction, str(path))
    assert child.said() == "stopping"
    eventually(lambda: state_of(child.pid) == "T")

    with jobq.JobService(LmdbStore(path, durability="unsafe", lock_timeout=0.2)) as svc:
        with pytest.raises(StoreBusy, match=rf"process {child.pid} .*stopped"):
            svc.enqueue("a", "refused")
        assert svc.stats().totals.ready == 1
        assert [record.payload for record in svc.find()] == ["first"]

        child.signal(signal.SIGCONT)
        assert child.said() == "done"
        assert [record.payload for record in svc.find()] == ["first", "late"]
        assert svc.enqueue("a", "last")
        assert svc.check().problems == ()


def _is_interrupted_while_it_waits(path: str) -> None:
    interrupts = Interrupts()
    svc = jobq.open(path, durability="unsafe")
    try:
        interrupts.armed = True
        say("waiting")
        svc.enqueue("a", "never")
    except KeyboardInterrupt:
        say("interrupted")
    hear()
    svc.enqueue("a", "after")
    assert [record.payload for record in svc.find()] == ["after"]


def test_waiting_for_the_lock_can_be_interrupted(tmp_path: Path, start: Start) -> None:
    """LMDB's own lock cannot: not by Ctrl-C, and no handler of a signal runs."""
    path = tmp_path / "queue"
    jobq.open(path).close()
    holder = start(_holds_the_lock, str(path))
    assert holder.said() == "held"
    child = start(_is_interrupted_while_it_waits, str(path))
    assert child.said() == "waiting"
    eventually(partial(_is_locked, path / "turn.lock"))  # it stands first in line

    child.signal(signal.SIGUSR1)

    assert child.said() == "interrupted"
    holder.kill()
    child.tell()
    child.join()


def _is_locked(path: Path) -> bool:
    with path.open() as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        return False


def _writes_until_told(path: str, number: int) -> None:
    """Write, from when the test says so until it says more; how often."""
    with jobq.open(path) as svc:
        say("ready")
        hear()
        times = 0
        while not heard():
            svc.enqueue(f"writer {number}")
            times += 1
        say(times)
        hear()


def test_four_writing_processes_all_get_their_share(tmp_path: Path, start: Start) -> None:
    path = tmp_path / "queue"
    children = [start(_writes_until_told, str(path), number) for number in range(4)]
    for child in children:
        assert child.said() == "ready"
    with jobq.open(path) as svc:

        def all_have_theirs() -> bool:
            """One that does not get to the lock has none for as long as the others write."""
            shares = [topic.ready for topic in svc.stats().topics]
            return len(shares) == 4 and sum(shares) > 500 and min(shares) > 0.05 * sum(shares)

        for child in children:
            child.tell("go")
        eventually(all_have_theirs)
        for child in children:
            child.tell("end")
        shares = [child.said() for child in children]
        print(f"writes of each: {shares}")

        assert svc.stats().totals.ready == sum(shares)
        assert svc.check().problems == ()


# The bell: waiters sleep, and are woken in whatever process they are.


def ring(bell: Bell, topic: int, waiters: int | None = None) -> int:
    """What a commit does that has made jobs ready; gives how many it has woken."""
    bell.raise_counter(topic)
    return bell.wake(topic) if waiters is None else bell.wake(topic, waiters)


def _waits(path: str, topic: int, timeout: float) -> None:
    """Wait once; how long it took."""
    bell = Bell(Path(path))
    seen = bell.read(topic)
    say("waiting")
    began = time.monotonic()
    bell.wait(topic, seen, timeout)
    say(time.monotonic() - began)
    hear()


def test_a_waiter_in_another_process_is_woken(bell: Bell, tmp_path: Path, start: Start) -> None:
    child = start(_waits, str(tmp_path / "bell"), 7, LONG_S)
    asleep(child)

    ring(bell, 7)

    assert child.said() < SOON_S


def test_all_waiters_are_woken_unless_so_many_are_named(
    bell: Bell, tmp_path: Path, start: Start
) -> None:
    children = [start(_waits, str(tmp_path / "bell"), 7, LONG_S) for _ in range(3)]
    for child in children:
        asleep(child)

    ring(bell, 7)

    for child in children:
        assert child.said() < SOON_S


def test_who_waits_for_another_topic_sleeps_on(bell: Bell, tmp_path: Path, start: Start) -> None:
    child = start(_waits, str(tmp_path / "bell"), 7, LONG_S)
    asleep(child)

    assert [ring(bell, topic) for topic in (0, 1, 6, 8, 700)] == [0] * 5
    assert state_of(child.pid) == "S"
    assert ring(bell, 7) == 1
    assert child.said() < SOON_S


def test_who_comes_after_the_ring_does_not_sleep(bell: Bell) -> None:
    seen = bell.read(7)
    ring(bell, 7)
    began = time.monotonic()

    bell.wait(7, seen, LONG_S)

    assert time.monotonic() - began < SOON_S


def test_a_wait_ends_by_itself(bell: Bell) -> None:
    began = time.monotonic()

    bell.wait(7, bell.read(7), 0.05)

    assert 0.04 <= time.monotonic() - began < SOON_S


@pytest.mark.parametrize("timeout", [0.0, -1.0, 1e-9])
def test_no_time_is_no_wait(bell: Bell, timeout: float) -> None:
    began = time.monotonic()

    bell.wait(7, bell.read(7), timeout)

    assert time.monotonic() - began < SOON_S


def _waits_and_has_a_handler(path: str) -> None:
    handled = []
    signal.signal(signal.SIGUSR1, lambda *_: handled.append(1))
    _waits(path, 7, LONG_S)


def test_a_signal_ends_a_wait(tmp_path: Path, start: Start) -> None:
    child = start(_waits_and_has_a_handler, str(tmp_path / "bell"))
    asleep(child)

    child.signal(signal.SIGUSR1)

    assert child.said() < SOON_S


def test_a_killed_waiter_does_not_take_the_wake_up_of_another(
    bell: Bell, tmp_path: Path, start: Start
) -> None:
    killed, other = (start(_waits, str(tmp_path / "bell"), 7, LONG_S) for _ in range(2))
    asleep(killed)
    asleep(other)
    killed.kill()

    ring(bell, 7, waiters=1)

    assert other.said() < SOON_S


def test_a_counter_that_is_at_its_end_goes_on(tmp_path: Path, start: Start) -> None:
    (tmp_path / "bell").write_bytes(struct.pack("=I", 2**32 - 1) * COUNTERS)
    bell = Bell(tmp_path / "bell")
    child = start(_waits, str(tmp_path / "bell"), 7, LONG_S)
    asleep(child)

    ring(bell, 7)

    assert child.said() < SOON_S
    assert bell.read(7) == 0


def test_where_there_is_no_futex_waiters_look_often(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, crew: Crew
) -> None:
    monkeypatch.setattr("jobq.repo.lmdb.futex.NUMBER", None)
    bell = Bell(tmp_path / "bell")
    took: list[float] = []
    seen = bell.read(7)

    def wait() -> None:
        began = time.monotonic()
        bell.wait(7, seen, LONG_S)
        took.append(time.monotonic() - began)

    crew.start(wait)
    ring(bell, 7)
    crew.join()
    bell.wait(7, bell.read(7), 0.01)

    assert took[0] < SOON_S


def _plays(bell_path: str, table_path: str, rounds: int) -> None:
    play(Path(bell_path), Path(table_path), rounds, me=1)
    say("played")


def play(bell_path: Path, table_path: Path, rounds: int, me: int) -> None:
    """Wait until it is my turn, then make it the other's; sleep as the store's waiters do."""
    bell = Bell(bell_path)
    with table_path.open("r+b") as file, mmap.mmap(file.fileno(), 8) as table:
        for number in range(me, 2 * rounds, 2):
            while True:
                seen = bell.read(me)
                if int.from_bytes(table[:8], "little") == number:
                    break
                began = time.monotonic()
                bell.wait(me, seen, LONG_S)
                assert time.monotonic() - began < SOON_S, f"a wake-up was lost in {number}"
            table[:8] = (number + 1).to_bytes(8, "little")
            ring(bell, 1 - me, waiters=1)


def test_no_wake_up_is_lost_in_two_thousand_exchanges(tmp_path: Path, start: Start) -> None:
    bell, table = tmp_path / "bell", tmp_path / "table"
    table.write_bytes(bytes(8))
    child = start(_plays, str(bell), str(table), 2000)

    play(bell, table, 2000, me=0)

    assert child.said() == "played"


def take(svc: JobService, topic: str) -> Job:
    """A job of the topic, by one who looks only when woken, not once a second besides."""
    while not (jobs := svc.reserve(topic, timeout=0)):
        began = time.monotonic()
        svc.store.wait(topic, LONG_S)
        assert time.monotonic() - began < SOON_S, "a wake-up was lost"
    return jobs[0]


def _answers(path: str, rounds: int) -> None:
    sleep_soundly()
    with jobq.open(path, durability="unsafe") as svc:
        for number in range(rounds):
            job = take(svc, "ping")
            assert job.payload == number
            job.done(then=[jobq.NewJob("pong", number)])
    say("answered")


@pytest.mark.usefixtures("sound_sleep")
def test_every_commit_wakes_who_waits_for_its_jobs(tmp_path: Path, start: Start) -> None:
    rounds = 200
    child = start(_answers, str(tmp_path / "queue"), rounds)
    with jobq.open(tmp_path / "queue", durability="unsafe") as svc:
        for number in range(rounds):
            svc.enqueue("ping", number)
            job = take(svc, "pong")
            assert job.payload == number
            job.done()

    assert child.said() == "answered"


@pytest.mark.usefixtures("sound_sleep")
def test_a_job_that_comes_between_the_look_and_the_sleep_is_not_missed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with jobq.open(tmp_path / "queue", durability="unsafe") as svc:
        wait = Bell.wait_for_any
        svc.enqueue("a", "first")
        svc.reserve("a", timeout=0)

        def wait_late(*arguments: Any) -> list[int]:
            svc.enqueue("a", "second")
            return wait(*arguments)

        monkeypatch.setattr(Bell, "wait_for_any", wait_late)

        assert take(svc, "a").payload == "second"


def _takes_one(path: str, topic: str) -> None:
    sleep_soundly()
    with jobq.open(path, durability="unsafe") as svc:
        say("waiting")
        job = take(svc, topic)
        say(job.payload)
        hear()
        job.done()


def test_one_commit_wakes_as_many_waiters_as_it_has_jobs(tmp_path: Path, start: Start) -> None:
    path = tmp_path / "queue"
    with jobq.open(path, durability="unsafe") as svc:
        svc.cancel(svc.enqueue("a"))
        children = [start(_takes_one, str(path), "a") for _ in range(4)]
        for child in children:
            asleep(child)

        svc.enqueue_many("a", [0, 1, 2, 3])

        assert sorted(child.said() for child in children) == [0, 1, 2, 3]
        for child in children:
            child.tell()
            child.join()


def test_of_topics_that_share_a_counter_the_right_ones_waiter_is_woken(
    tmp_path: Path, start: Start
) -> None:
    """There may be more topics than counters: a wake-up must not go to another's waiter."""
    path = tmp_path / "queue"
    with jobq.open(path, durability="unsafe") as svc:
        for number in range(1, COUNTERS + 2):  # the number that the topic gets
            svc.delete(svc.enqueue(str(number)))
        other = next(number for number in range(1, COUNTERS) if shares(path, number, COUNTERS))
        for first, second in ((other, COUNTERS), (COUNTERS, other)):
            wrong = start(_takes_one, str(path), str(first))
            asleep(wrong)
            right = start(_takes_one, str(path), str(second))
            asleep(right)

            svc.enqueue(str(second), "for the second")

            assert right.said() == "for the second"
            wrong.kill()
            right.kill()


def shares(path: Path, one: int, other: int) -> bool:
    """Whether two topics have the same counter."""
    bell = Bell(path / "bell")
    before = bell.read(other)
    bell.raise_counter(one)
    return bell.read(other) != before


def test_the_first_job_of_a_topic_wakes_those_who_wait_for_that_topic(
    tmp_path: Path, start: Start
) -> None:
    """Workers are often there before the first job is, and for several topics."""
    path = tmp_path / "queue"
    topics = ["a", "b", "c"]
    with jobq.open(path, durability="unsafe") as svc:
        children = [start(_takes_one, str(path), topic) for topic in topics]
        for child in children:
            asleep(child)

        for topic, child in reversed([*zip(topics, children, strict=True)]):
            svc.enqueue(topic, topic)
            assert child.said() == topic

        for child in children:
            child.tell()
            child.join()
