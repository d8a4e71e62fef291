"""Signals at every moment: Ctrl-C, and handlers that use the queue.

An interrupted call raises `KeyboardInterrupt` and nothing else. It has happened or it has not, the
queue is clean, its process goes on, and no job stays reserved for a caller that never got it.
"""

import os
import random
import signal
import threading
import time
from collections.abc import Callable, Generator
from contextlib import closing, suppress
from itertools import count
from pathlib import Path
from typing import Any, Final, NamedTuple, NoReturn, cast

import pytest

import jobq
from jobq import JobqError, JobService, ReentrantCall, Status, StoreBusy, ids
from jobq.repo.lmdb.filelock import FileLock
from tests.conftest import DEADLINE_S
from tests.crash.anywhere import PACKAGE, STRUCK, Interrupter
from tests.crash.conftest import Say
from tests.crash.flow import flow_in
from tests.crash.flow_verbs import FLOW, FLOW_MIXED
from tests.crash.processes import Notebook, Pipe, Start
from tests.crash.repairs import REPAIRS
from tests.crash.verbs import (
    CASES,
    MIXED,
    Case,
    copy,
    fill,
    found_in,
    topics_of,
    whole,
    with_steps,
    without_steps,
)

ALL: Final = {**CASES, **MIXED, **FLOW, **FLOW_MIXED, **REPAIRS}
IN_CALL: Final = {name: case for name, case in ALL.items() if not case.victim and not case.opens}
"""The verbs of a process that has the queue open."""

IN_MEMORY: Final = {name for name in (*MIXED, *FLOW_MIXED) if name in IN_CALL}
"""Those that are the same again, of queues whose topics are kept in memory."""

RESERVING: Final = {name for name in ALL if "reserve" in name.split(",")[0]}

SAMPLE: Final = 6
"""Verbs that are looked at in the default run, by chance."""

STORM: Final = 300
"""Calls that a storm of interrupts has to meet."""

CRASHING: Final = ("expire", "close")
"""Verbs that take jobs from their holder, or that are the end of it."""


# Ctrl-C.


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=[pytest.mark.storm] * (name in IN_MEMORY)) for name in IN_CALL],
)
def test_a_verb_interrupted_at_any_step_is_whole_or_absent_and_its_process_goes_on(
    name: str, start: Start, quick_path: Path
) -> None:
    wrong: list[str] = start(_interrupt, name, str(quick_path)).hear()

    assert not wrong, "\n".join(wrong)


def test_some_verbs_interrupted_at_any_step_are_whole_or_absent_where_topics_are_in_memory(
    start: Start, quick_path: Path, seed: int
) -> None:
    for name in random.Random(seed).sample(sorted(IN_MEMORY), SAMPLE):
        wrong: list[str] = start(_interrupt, name, str(quick_path / name)).hear()

        assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("kind", ["lmdb", "mixed", "memory"])
@pytest.mark.parametrize(
    "every", [pytest.param(19, id="sampled"), pytest.param(1, id="all", marks=pytest.mark.storm)]
)
def test_a_call_can_be_interrupted_at_any_point_and_its_process_goes_on(
    every: int, kind: str, start: Start, quick_path: Path, seed: int, say: Say
) -> None:
    """Also between two instructions: no lock stays taken, no thread is left waiting."""
    first = random.Random(seed).randrange(every) + 1
    wrong: list[str] = []
    points = 0
    todo = {
        verb: start(_interrupt_anywhere, str(quick_path / verb), kind, verb, first, every)
        for verb in ANYWHERE
    }
    while todo:
        verb, child = todo.popitem()
        survey: Anywhere = child.hear(280)
        points += survey.points
        wrong += survey.wrong
        if survey.wrong and len(wrong) < MOST_WRONG:  # that process is beyond repair
            again = quick_path / f"{verb} {survey.next}"
            todo[verb] = start(_interrupt_anywhere, str(again), kind, verb, survey.next, every)
    say(f"interrupted at {points} points")

    assert not wrong, "\n".join(wrong)
    assert points * every > 500


@pytest.mark.parametrize("verb", ["enqueue", "reserve", "settle and reserve"])
def test_an_interrupt_that_is_kept_keeps_nothing_of_the_queue(
    verb: str, start: Start, quick_path: Path
) -> None:
    """As Python's shell keeps the last exception, with all that its frames refer to."""
    child = start(_keep_interrupts, verb, str(quick_path))

    assert child.hear() == []


def test_a_storm_of_ctrl_c_raises_nothing_else_and_loses_nothing(
    start: Start, path: str, tmp_path: Path, seed: int, say: Say
) -> None:
    """Into the main thread of a process whose other threads use the queue as well."""
    chance = random.Random(seed)
    child = start(_use_in_a_storm, path, str(tmp_path), chance.randrange(2**32))
    assert child.hear() == "ready"
    struck = Notebook(tmp_path / "struck")
    end = time.monotonic() + DEADLINE_S
    sent = 0
    while len(struck) <= STORM and not child.heard() and time.monotonic() < end:
        child.signal(signal.SIGINT)
        sent += 1
        time.sleep(chance.uniform(0.0, 0.004))
    child.signal(signal.SIGTERM)
    said: Said = child.hear()
    with jobq.open(path) as svc:
        records = svc.find(limit=10_000)
        report = svc.check()
    status_of = {record.id: record.status for record in records}
    added, finished = Notebook(tmp_path / "added").read(), Notebook(tmp_path / "finished").read()
    say(
        f"{sent} interrupts, {said.interrupted} of {said.calls} calls interrupted, "
        f"{len(status_of)} jobs"
    )

    assert said.errors == []
    assert said.interrupted > STORM
    assert [jid for jid in added if jid not in status_of] == []
    assert [jid for jid in finished if status_of[jid] is not Status.DONE] == []
    assert Status.RESERVED not in status_of.values()
    # What `close` does not give back, because no caller ever got it, counts as a crash.
    assert [record.id for record in records if record.crashes] == []
    assert report.problems == ()


# Calls from a signal handler.


def test_a_handler_that_enqueues_in_the_middle_of_a_call_is_refused(
    start: Start, path: str
) -> None:
    refused, accepted, reached = start(_call_from_a_handler, path).hear()

    assert refused == reached > 5, "at each step of a call"
    assert accepted == 1, "and not between calls"
    with jobq.open(path) as svc:
        assert svc.stats("handler").totals.ready == 1
        assert svc.stats("mail").totals.ready == 1
        assert svc.check().ok


@pytest.mark.parametrize(
    "count", [SAMPLE, pytest.param(len(IN_CALL), id="all", marks=pytest.mark.storm)]
)
def test_a_handler_that_enqueues_in_the_middle_of_any_verb_is_refused_and_the_verb_is_whole(
    count: int, start: Start, quick_path: Path, seed: int
) -> None:
    names = random.Random(seed).sample(sorted(IN_CALL), count)

    assert start(_call_in_verbs, names, str(quick_path)).hear(280) == []


def test_handlers_that_use_the_queue_a_thousand_times_a_second_block_nothing(
    start: Start, path: str, say: Say
) -> None:
    said: Handled = start(_call_from_handlers, path).hear()
    say(f"{said.accepted} calls of handlers accepted, {said.refused} refused, {said.calls} calls")
    with jobq.open(path) as svc:
        totals = svc.stats("handler").totals

        assert said.errors == []
        assert totals.ready == said.accepted > 0
        assert said.refused > 0
        assert svc.check().ok


# In the child: an interrupt at each step of a verb.


def _interrupt(pipe: Pipe, name: str, directory: str) -> None:
    """Run a verb with an interrupt at each of its steps; say what was wrong."""
    case = ALL[name]
    root = Path(directory)
    fill(str(root / "full"), case)
    wrong: list[str] = []
    for step in count(1):
        once = Once(name, case, copy(root / "full", root / str(step)), step)
        wrong += [f"{name}, interrupted at {step}: {word}" for word in once.wrong]
        if once.hangs or not once.interrupted:
            break
    pipe.send(wrong)
    os._exit(0)  # even if a thread hangs


class Once:
    """A verb that is interrupted at one step, and what was wrong with it or afterwards.

    Attributes:
        interrupted: There was such a step.
        hangs: Nothing more can be done in this process.
    """

    def __init__(self, name: str, case: Case, path: str, step: int) -> None:
        self.wrong: list[str] = []
        self.interrupted = False
        self.hangs = False
        self._name = name.removesuffix(", topics in memory")
        self._step = step
        self._reached: list[str] = []
        svc = jobq.open(path, topics=case.topics)
        held = case.hold(svc)
        look = _damage if case.mends else _picture
        before = look(svc)
        self._act(lambda: case.act(svc, held))
        if not svc.stopped:
            self._judge(before, look(svc))
            if case.mends and not svc.check(repair=True).ok:
                self._note("it cannot be repaired any more")
            self._go_on(svc)
        if self.hangs:
            return
        svc.close()
        with jobq.open(path) as again:
            if self._name not in CRASHING and any(
                record.crashes for record in again.find(limit=1000)
            ):
                self._note("close did not give back all jobs that were held")
            self.wrong += whole(again)

    def _act(self, act: Callable[[], object]) -> None:
        with_steps(self._strike, self._reached.append)
        try:
            act()
            if self.interrupted:
                self._note("the interrupt was swallowed")
        except KeyboardInterrupt:
            pass
        except Exception as error:  # noqa: BLE001 - told to the test
            self._note(f"it raised {type(error).__name__}: {error}")
        without_steps()

    def _strike(self, number: int, _: str) -> None:
        if number == self._step:
            self.interrupted = True
            signal.raise_signal(signal.SIGINT)

    def _judge(self, before: "Picture | Damage", after: "Picture | Damage") -> None:
        committed = "committed" in self._reached
        if isinstance(before, Picture) and isinstance(after, Picture) and self._name in RESERVING:
            if self.interrupted and after.reserved - before.reserved:
                self._note("jobs stay reserved that nobody got")
        elif not committed and after != before:
            self._note("it has an effect, but nothing was committed")
        elif committed and after == before:
            self._note("it was committed, but has no effect")

    def _go_on(self, svc: JobService) -> None:
        """Another thread and the same one can use the queue as before."""
        went_on = threading.Event()

        def go_on() -> None:
            svc.enqueue("mail", "from a thread")
            svc.stats()
            went_on.set()

        threading.Thread(target=go_on, daemon=True).start()
        if not went_on.wait(DEADLINE_S):
            self._note("another thread hangs")
            self.hangs = True
            return
        try:
            svc.enqueue("mail", "after")
            self.wrong += whole(svc)
        except JobqError as error:
            self._note(f"the same thread gets {type(error).__name__}: {error}")
            self.hangs = True

    def _note(self, word: str) -> None:
        self.wrong.append(f"after {self._reached}: {word}")


Damage = tuple[str, ...]
"""What is wrong with a queue."""


def _damage(svc: JobService) -> Damage:
    return tuple(sorted(svc.check().problems))


class Picture(NamedTuple):
    """What there is, as far as verbs change it."""

    jobs: frozenset[Any]
    reserved: frozenset[str]


def _picture(svc: JobService) -> Picture:
    jobs: set[Any] = {(name, svc.settings(name)) for name in (None, *topics_of(svc))}
    jobs.add(repr(flow_in(svc)))
    reserved = set()
    for record in map(svc.get, [found.id for found in svc.find(limit=1000)]):
        # In tens of seconds: the verb that extends adds thousands.
        lease = (record.lease_until_us or 0) // 10_000_000
        moves = (record.attempt, record.retries, record.resets, len(record.log))
        place = (record.topic, record.weight, record.payload_bytes, record.options)
        jobs.add((record.id, record.status, *place, *moves, lease))
        if record.status is Status.RESERVED:
            reserved.add(record.id)
    return Picture(frozenset(jobs), frozenset(reserved))


def _keep_interrupts(pipe: Pipe, name: str, directory: str) -> None:
    """Interrupt a verb at each step, keep the exceptions, and see whether anybody hangs."""
    case = CASES[name]
    fill(f"{directory}/full", case)
    kept: list[KeyboardInterrupt] = []
    wrong: list[str] = []
    step = 0
    while len(kept) == step:
        step += 1
        path = copy(Path(directory) / "full", Path(directory) / str(step))
        svc = jobq.open(path)
        held = case.hold(svc)

        def strike(number: int, _: str, at: int = step) -> None:
            if number == at:
                signal.raise_signal(signal.SIGINT)

        reached: list[str] = []
        with_steps(strike, reached.append)
        try:
            case.act(svc, held)
        except KeyboardInterrupt as error:
            kept.append(error)
        except Exception as error:  # noqa: BLE001 - told to the test
            wrong.append(f"interrupted after {reached}: {type(error).__name__}: {error}")
            break
        without_steps()
        if words := _impaired(svc, path):
            wrong.append(f"interrupted after {reached}: {words}")
            break
        svc.close()
    pipe.send(wrong)
    os._exit(0)


# In the child: an interrupt at each point of the code.


class Anywhere(NamedTuple):
    """What became of the interrupts of one verb, until something went wrong; and where to go on."""

    points: int
    wrong: list[str]
    next: int


MOST_WRONG: Final = 40


def _consume(svc: JobService) -> None:
    """Each block's outcome is committed with the reservation of the next job."""
    with closing(cast(Generator[jobq.Job], svc.consume("mail", 1, timeout=0))) as loop:
        for job in loop:
            with job:
                pass


def _replace(svc: JobService) -> None:
    """A key of its own, and one that another job has, in one commit."""
    with svc.batch() as batch:
        batch.enqueue("flow", group="g", unique="k", on_conflict="replace", ttl=1000)
        batch.enqueue("flow", group="h", unique="l", unique_for=0.001)


def _serve_groups(svc: JobService) -> None:
    svc.enqueue_many("flow", range(2), group="g")
    svc.done_many(svc.reserve("flow", 2, timeout=0))


def _cancel_while_held(svc: JobService) -> None:
    """A hold lingers, until its holder calls."""
    jobs = svc.reserve("flow", 2, timeout=0)
    svc.cancel([job.id for job in jobs])
    svc.done_many(jobs)


ANYWHERE: Final[dict[str, Callable[[JobService], object]]] = {
    "stats": lambda svc: svc.stats(),
    "enqueue": lambda svc: svc.enqueue("mail"),
    "reserve": lambda svc: svc.reserve("mail", 1, timeout=0),
    "reserve of several": lambda svc: svc.reserve(["mail", jobq.Pattern("m?")], 2, timeout=0),
    "done": lambda svc: svc.done_many(svc.reserve("mail", 2, timeout=0)),
    "wait": lambda svc: svc.reserve("nothing", timeout=0.002),
    "wait for several": lambda svc: svc.reserve(["nothing", "never"], timeout=0.002),
    "consume": _consume,
    "replace": _replace,
    "serve groups": _serve_groups,
    "cancel while held": _cancel_while_held,
}


def _interrupt_anywhere(
    pipe: Pipe, path: str, kind: str, verb: str, first: int, every: int
) -> None:
    """Interrupt a verb at every so many points; after each, all has to be as if nothing was."""
    opened: dict[str, Callable[[], JobService]] = {
        "lmdb": lambda: jobq.open(path),
        "mixed": lambda: jobq.open(path, topics="memory"),
        "memory": lambda: jobq.open(":memory:"),
    }
    svc = opened[kind]()
    svc.configure("flow", concurrency=10**6, group_concurrency=10**6)
    for warm_up in ANYWHERE.values():  # the first calls of a process have more points
        svc.enqueue_many("mail", range(2))
        warm_up(svc)
    n = first
    # The containers are torn by an interrupt within. What has the jobs elsewhere makes them anew.
    struck = (PACKAGE,) if kind == "memory" else STRUCK
    interrupter = Interrupter(n, struck)

    def report(words: str) -> NoReturn:
        wrong = [f"{verb}, interrupted at {interrupter.where}: {words}"]
        pipe.send(Anywhere((n - first) // every, wrong, n + every))
        os._exit(0)

    signal.signal(signal.SIGALRM, lambda *_: report("its own thread hangs"))
    while True:
        signal.alarm(6)
        interrupter = Interrupter(n, struck)
        svc.enqueue_many("mail", range(2))
        try:
            interrupter.call(lambda: ANYWHERE[verb](svc))
        except KeyboardInterrupt:
            pass
        except Exception as error:  # noqa: BLE001 - told to the test
            report(f"it raises {type(error).__name__}: {error}")
        if interrupter.where is None:
            break
        if words := _impaired(svc, None if kind == "memory" else path):
            report(words)
        # An index that differs from its jobs goes on doing so: it need not be looked at each time.
        looks = kind != "lmdb" and (every > 1 or n % 20 == 0)
        if looks and (problems := whole(svc)):
            report(str(problems))
        n += every
    signal.alarm(0)
    if problems := whole(svc):
        report(str(problems))
    pipe.send(Anywhere((n - first) // every, [], n))
    svc.close()


def _impaired(svc: JobService, path: str | None) -> str:
    """What does not work any more; empty if all is well. A queue in memory has no path."""
    said: list[str] = []

    def use() -> None:
        try:
            svc.enqueue("another thread")
            svc.stats()
            said.append("")
        except JobqError as error:
            said.append(f"another thread gets {type(error).__name__}")

    thread = threading.Thread(target=use, daemon=True)
    thread.start()
    thread.join(DEADLINE_S)
    if not said:
        return "another thread hangs"
    if path is not None and not _is_free(Path(path)):
        return "the lock between processes is still taken"
    try:
        reserved = {record.id for record in svc.find(status=Status.RESERVED)}
    except JobqError as error:
        return f"the same thread gets {type(error).__name__}"
    # What the service knows that it holds, it gives back when it is closed.
    if reserved - {ids.to_text(raw) for raw, _ in svc._holding._held}:
        return "a job stays reserved, and nobody knows"
    return said[0]


def _is_free(path: Path) -> bool:
    """Whether another process could write."""
    lock = FileLock(path)
    try:
        lock.acquire(DEADLINE_S)
        lock.release()
    except StoreBusy:
        return False
    finally:
        lock.close()
    return True


# In the child: a storm.


class Said(NamedTuple):
    """What a process says of the storm it was in."""

    calls: int
    interrupted: int
    errors: list[str]


def _use_in_a_storm(pipe: Pipe, path: str, directory: str, seed: int) -> None:
    user = User(path, directory, random.Random(seed))
    threads = [threading.Thread(target=user.work, daemon=True) for _ in range(2)]
    for thread in threads:
        thread.start()
    pipe.send("ready")
    said = user.stand_the_storm()
    for thread in threads:
        thread.join(DEADLINE_S)
        if thread.is_alive():
            said.errors.append("a thread hangs")
            pipe.send(said)
            os._exit(1)
    user.svc.close()
    pipe.send(said)


class User:
    """Who uses a queue by all verbs, in the main thread while it is interrupted, and in others."""

    def __init__(self, path: str, directory: str, chance: random.Random) -> None:
        self.svc = jobq.open(path, max_retries=1_000_000)
        self._chance = chance
        self._added = Notebook(f"{directory}/added")
        self._finished = Notebook(f"{directory}/finished")
        self._struck = Notebook(f"{directory}/struck")
        self._held: dict[str, jobq.Job] = {}
        self._errors: list[str] = []
        self._ended = False
        self._armed = False
        signal.signal(signal.SIGTERM, self._end)
        signal.signal(signal.SIGINT, self._interrupt)

    def stand_the_storm(self) -> Said:
        """Make calls until told to end; what they raised."""
        calls = interrupted = 0
        while not self._ended:
            verb = self._chance.choice(self._verbs())
            calls += 1
            try:
                self._armed = True
                verb()
                self._armed = False
            except KeyboardInterrupt:
                self._armed = False
                interrupted += 1
                self._struck.note(verb.__name__)
            except JobqError as error:
                self._armed = False
                self._errors.append(f"{verb.__name__}: {type(error).__name__}: {error}")
                self._ended = True
        return Said(calls, interrupted, self._errors)

    def work(self) -> None:
        """What another thread does meanwhile, uninterrupted."""
        mine = f"thread {threading.get_ident()}"
        while not self._ended:
            try:
                self._added.note(self.svc.enqueue(mine))
                for job in self.svc.reserve(mine, 3, timeout=0):
                    job.done()
                    self._finished.note(job.id)
                self.svc.stats()
            except Exception as error:  # noqa: BLE001 - told to the test
                self._errors.append(f"in a thread: {type(error).__name__}: {error}")
                return

    def _end(self, *_: object) -> None:
        self._ended = True

    def _interrupt(self, *_: object) -> None:
        if self._armed:  # as Python's own handler does, but not between calls
            self._armed = False  # and not twice in one: that would be two impatient people
            raise KeyboardInterrupt

    def _verbs(self) -> list[Callable[[], object]]:
        return [
            self._enqueue,
            self._enqueue_many,
            self._reserve,
            self._done,
            self._retry,
            self._release,
            self._extend,
            self._consume,
            self.svc.stats,
            self.svc.topics,
        ]

    def _enqueue(self) -> None:
        self._added.note(self.svc.enqueue("mail", self._chance.random()))

    def _enqueue_many(self) -> None:
        self._added.note(*self.svc.enqueue_many("mail", range(3)))

    def _reserve(self) -> None:
        self._held.update((job.id, job) for job in self.svc.reserve("mail", 3, timeout=0))

    def _done(self) -> None:
        def done(job: jobq.Job) -> None:
            job.done()
            self._finished.note(job.id)

        self._settle(done)

    def _retry(self) -> None:
        self._settle(lambda job: job.retry(0))

    def _release(self) -> None:
        self._settle(jobq.Job.release)

    def _extend(self) -> None:
        self._settle(lambda job: job.extend(100))

    def _settle(self, how: Callable[[jobq.Job], object]) -> None:
        if self._held:
            jid, job = next(iter(self._held.items()))
            # A call for it may have been interrupted after it had taken effect.
            with suppress(jobq.ReservationLost):
                how(job)
            self._held.pop(jid, None)

    def _consume(self) -> None:
        loop = cast(Generator[jobq.Job], self.svc.consume("mail", 2, timeout=0))
        with closing(loop):
            for job in loop:
                with job:
                    break


# In the child: handlers that make calls.


def _enqueue_in_a_handler(svc: JobService, answers: list[str]) -> None:
    """From now on SIGUSR1 has its handler enqueue; *answers* gets what became of it."""

    def handler(*_: object) -> None:
        try:
            svc.enqueue("handler")
        except ReentrantCall:
            answers.append("refused")
        else:
            answers.append("accepted")

    signal.signal(signal.SIGUSR1, handler)


def _call_from_a_handler(pipe: Pipe, path: str) -> None:
    svc = jobq.open(path)
    answers: list[str] = []
    reached: list[str] = []

    _enqueue_in_a_handler(svc, answers)
    with_steps(lambda *_: signal.raise_signal(signal.SIGUSR1), reached.append)
    svc.enqueue("mail")
    without_steps()
    signal.raise_signal(signal.SIGUSR1)
    svc.close()
    pipe.send((answers.count("refused"), answers.count("accepted"), len(reached)))


def _call_in_verbs(pipe: Pipe, names: list[str], directory: str) -> None:
    """Each verb twice: left alone, and with a call from a handler at each of its steps."""
    wrong: list[str] = []
    for number, name in enumerate(names):
        case = ALL[name]
        full = Path(directory) / f"{number} full"
        fill(str(full), case)
        effects = [
            _effect(name, case, copy(full, full.with_name(f"{number} {calls}")), wrong, calls=calls)
            for calls in (False, True)
        ]
        if effects[0] != effects[1]:
            wrong.append(f"{name}: {effects[0]} by itself, and {effects[1]} with a handler")
    pipe.send(wrong)


def _effect(name: str, case: Case, path: str, wrong: list[str], *, calls: bool) -> Any:
    """What the queue holds after a verb, without what differs from run to run."""
    answers: list[str] = []
    reached: list[str] = []
    svc = jobq.open(path, topics=case.topics)
    held = case.hold(svc)

    _enqueue_in_a_handler(svc, answers)
    with_steps(lambda *_: signal.raise_signal(signal.SIGUSR1) if calls else None, reached.append)
    result = case.act(svc, held)
    without_steps()
    if calls and (len(answers) != len(reached) or "accepted" in answers or not reached):
        wrong.append(f"{name}: a handler called at {reached}, and was {answers}")
    if svc.stopped:
        svc = jobq.open(path, topics=case.topics)
    wrong += [f"{name}: {problem}" for problem in whole(svc)]
    found = found_in(svc)
    assert result is not wrong  # it lives until here
    svc.close()
    return found


class Handled(NamedTuple):
    """What became of calls from signal handlers."""

    calls: int
    accepted: int
    refused: int
    errors: list[str]


def _call_from_handlers(pipe: Pipe, path: str) -> None:
    svc = jobq.open(path)
    answers: list[str] = []
    errors: list[str] = []
    calls = 0
    end = time.monotonic() + 1.2

    def handler(*_: object) -> None:
        try:
            svc.enqueue("handler")
            answers.append("accepted")
            svc.stats()
        except ReentrantCall:
            answers.append("refused")

    def work() -> None:
        while time.monotonic() < end:
            svc.enqueue("thread")
            svc.done_many(svc.reserve("thread", 5, timeout=0))

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    signal.signal(signal.SIGALRM, handler)
    signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)
    try:
        while time.monotonic() < end:
            svc.enqueue("mail")
            for job in svc.reserve("mail", 5, timeout=0):
                with job:
                    pass
            svc.reserve("nothing", timeout=0.003)
            calls += 1
    except JobqError as error:
        errors.append(f"{type(error).__name__}: {error}")
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
    thread.join(DEADLINE_S)
    if thread.is_alive():
        errors.append("a thread hangs")
    svc.close()
    pipe.send(Handled(calls, answers.count("accepted"), answers.count("refused"), errors))
