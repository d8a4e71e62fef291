"""Every verb that writes, as a case: what the queue holds, what the process holds, what it does.

A case runs in a process of its own, and something strikes it at its n-th named step
(`jobq.repo.lmdb.steps`). Another process, the witness, looks at the queue before and after.
"""

import multiprocessing
import os
import shutil
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, NamedTuple

import jobq
from jobq import Job, JobService, NewJob, Status
from jobq.clock import ManualClock, SystemClock
from jobq.job import Report
from jobq.repo.lmdb import LmdbStore, steps
from jobq.repo.mixed import MixedStore
from tests.conftest import DEADLINE_S
from tests.crash.flow import flow_in, flow_problems
from tests.crash.processes import Pipe, die_with_parent, kill_myself

AGO_S: Final = 3600.0
"""The queues of the cases were filled an hour ago, so that things can be due by now."""


class Case(NamedTuple):
    """One writing verb.

    Attributes:
        act: The verb; gets the service and what `hold` gave.
        hold: What the process does before, unharmed: it reserves a job of topic `held`, at least.
        fill: Adds to what the queue holds.
        victim: Runs in another process, which is killed before the verb.
        opens: The verb opens the queue itself, and gets its path instead of a service.
        new: There is no queue yet.
        topics: Where the process keeps the topics. In memory, nobody else can look meanwhile.
        before: Where they were kept by who filled the queue.
        afterwards: Where they are kept by who opens it when the process is dead.
        mends: The queue is broken beforehand, and the verb mends it. If it did not come to that,
            the same is wrong as before, nothing else, and a later repair makes of it what the
            verb would have.
    """

    act: Callable[[Any, Any], object]
    hold: Callable[[JobService], Any] = lambda svc: svc.reserve("held", timeout=0)
    fill: Callable[[JobService], object] = lambda _: None
    victim: Callable[[JobService], object] | None = None
    opens: bool = False
    new: bool = False
    topics: str = "lmdb"
    before: str = "lmdb"
    afterwards: str = "lmdb"
    mends: bool = False


def _tell_and_done(_: JobService, held: list[Job]) -> None:
    held[0].log("a line")
    held[0].progress(1, 2)
    held[0].done("result")


def _import(svc: JobService, _: object) -> None:
    with jobq.open(":memory:") as other:
        other.enqueue("mail", "i1", name="x")
        other.reserve("mail", timeout=0)[0].retry(0, error="no")
        other.enqueue("new", "i2", delay=1000)
        svc.import_jobs(other.export_jobs())


def hold_jobs(n: int, topic: str = "mail") -> Callable[[JobService], list[Job]]:
    """What a process holds before: jobs of a topic, and one of `held`."""

    def hold(svc: JobService) -> list[Job]:
        svc.reserve("held", timeout=0)
        return svc.reserve(topic, n, timeout=0)

    return hold


def _nothing(_: JobService) -> None:
    pass


def _batch(svc: JobService, _: object) -> None:
    with svc.batch() as batch:
        batch.enqueue("mail", "b1", weight=-3)
        batch.enqueue("new", "b2", name="x", tags=("y",))
        batch.enqueue("mail", "b3", delay=1000)


def _begin_loop(svc: JobService) -> Iterator[Job]:
    """A `consume` loop in which one block has ended, and one more job of the batch is used up."""
    svc.reserve("held", timeout=0)
    loop = svc.consume("mail", 1, timeout=0)
    with next(loop):
        pass
    return loop


def _a_second_later(svc: JobService) -> JobService:
    """The service when it looks for dead processes once more."""
    svc.store._probed = 0.0  # type: ignore[attr-defined]
    return svc


def _wait_for_no_end(svc: JobService) -> None:
    seen: dict[bytes, int | None] = {bytes(16): None}
    svc.store.wait_ended(seen, 0)  # asks; the next one waits, and looks after the dead
    svc.store.wait_ended(seen, 0.001)


def _overrun(svc: JobService) -> None:
    """Hold two jobs longer than their leases."""
    held = [job._reservation for job in svc.reserve("mail", 2, timeout=0)]
    svc.store.extend([(job.id, job.token, 1000) for job in held])  # at once, or one expires first
    let_pass(SystemClock().boot_us, 2000)


def _make_due(svc: JobService) -> None:
    """Two delayed jobs whose time has come, and nobody has moved them."""
    svc.enqueue_many("due", ["d1", "d2"], delay=0.001)
    let_pass(SystemClock().wall_us, 2000)


def let_pass(clock: Callable[[], int], us: int) -> None:
    """Return when so much time has passed, and a little more."""
    end = clock() + us
    while clock() <= end:
        time.sleep(0.001)


def _open_and_enqueue(path: str, topics: str) -> JobService:
    svc = jobq.open(path, topics=topics)
    svc.enqueue("mail", "e")
    return svc


def _ids(svc: JobService, *topics: str) -> list[str]:
    return [record.id for topic in topics for record in svc.find(topic=topic)]


def _crash_once(svc: JobService) -> None:
    """A job that may crash once, and has."""
    svc.enqueue("frail", "f", max_crashes=1, lease=10)
    svc.enqueue("frail", "g", lease=10)
    svc.reserve("frail", 1, timeout=0)
    clock = svc.store._clock  # type: ignore[attr-defined] # a test's own clock
    clock.advance(11)
    svc.store.advance()


def _limit_done(svc: JobService) -> None:
    """A topic that keeps two done jobs, and has them."""
    svc.configure("mail", max_done=2)
    svc.enqueue_many("mail", ["d1", "d2"], weight=-5)
    svc.done_many(svc.reserve("mail", 2, timeout=0), ["r1", "r2"])


def _leave_idle(svc: JobService) -> None:
    """Topics that had their last job when the queue was filled."""
    svc.delete([svc.enqueue(f"idle {number}") for number in range(3)])


CASES: Final = {
    "create": Case(lambda path, _: jobq.open(path), opens=True, new=True),
    "open after a death": Case(
        lambda path, _: jobq.open(path),
        victim=lambda svc: svc.reserve("mail", 3, timeout=0),
        opens=True,
    ),
    "enqueue": Case(lambda svc, _: svc.enqueue("mail", "e", weight=5, name="n", tags=("t",))),
    "enqueue into a new topic": Case(lambda svc, _: svc.enqueue("new", "e")),
    "enqueue with a delay": Case(lambda svc, _: svc.enqueue("mail", "e", delay=0.9)),
    "enqueue_many": Case(lambda svc, _: svc.enqueue_many("mail", ["e1", "e2", "e3"])),
    "batch": Case(_batch),
    "reserve, the first of the process": Case(
        lambda svc, _: svc.reserve("mail", 2, timeout=0), hold=_nothing
    ),
    "reserve": Case(lambda svc, _: svc.reserve("mail", 2, timeout=0)),
    "reserve of several topics": Case(
        lambda svc, _: svc.reserve({"mail": 2, jobq.Pattern("s*"): 1}, 5, timeout=0),
        hold=hold_jobs(2, "other"),
        fill=lambda svc: svc.enqueue_many("side", ["s1", "s2", "s3"]),
    ),
    "done": Case(
        lambda _, held: held[0].done(
            {"a": 1}, then=[NewJob("mail", "then"), NewJob("new", "then", delay=1000)]
        ),
        hold=hold_jobs(1),
    ),
    "done and forgotten": Case(
        lambda _, held: held[0].done("gone"),
        hold=hold_jobs(1, "once"),
        fill=lambda svc: svc.enqueue("once", "o", retention=0),
    ),
    "done with a log": Case(_tell_and_done, hold=hold_jobs(1)),
    "report": Case(
        lambda svc, held: svc.store.report(
            [Report(job._reservation.id, 1, ((0, "a"), (0, "b")), (1, 2, None, 0)) for job in held]
        ),
        hold=hold_jobs(2),
    ),
    "import": Case(_import),
    "done_many": Case(lambda svc, held: svc.done_many(held, [1, None, 3]), hold=hold_jobs(3)),
    "settle and reserve": Case(lambda _, loop: next(loop), hold=_begin_loop),
    "retry": Case(lambda _, held: held[0].retry(error="again"), hold=hold_jobs(1)),
    "retry at once": Case(lambda _, held: held[0].retry(0), hold=hold_jobs(1)),
    "retry for the last time": Case(
        lambda _, held: held[0].retry(error=ValueError("enough")),
        hold=hold_jobs(1, "once"),
        fill=lambda svc: svc.enqueue("once", "o", max_retries=0),
    ),
    "retry_many": Case(lambda svc, held: svc.retry_many(held, delay=100), hold=hold_jobs(3)),
    "release": Case(lambda _, held: held[0].release(), hold=hold_jobs(1)),
    "release_many": Case(lambda svc, held: svc.release_many(held, delay=100), hold=hold_jobs(3)),
    "cancel by the holder": Case(
        lambda _, held: held[0].cancel("rejected", error="never"), hold=hold_jobs(1)
    ),
    "extend": Case(lambda _, held: held[0].extend(5000), hold=hold_jobs(1)),
    "cancel": Case(
        lambda svc, _: svc.cancel(_ids(svc, "mail", "late"), error="why"), hold=hold_jobs(1)
    ),
    "reset": Case(lambda svc, _: svc.reset(_ids(svc, "over"))),
    "delete": Case(lambda svc, _: svc.delete(_ids(svc, "mail", "late", "over"))),
    "edit": Case(
        lambda svc, _: svc.edit(
            _ids(svc, "mail", "late"), weight=3, payload="edited", lease=9, tags=None
        ),
        hold=hold_jobs(1),
    ),
    "edit moving to a new topic": Case(
        lambda svc, _: svc.edit(_ids(svc, "mail", "late"), topic="new", weight=-2)
    ),
    "edit putting off": Case(lambda svc, _: svc.edit(_ids(svc, "mail", "late"), delay=1000)),
    "edit making ready": Case(lambda svc, _: svc.edit(_ids(svc, "late"), delay=0)),
    "purge": Case(lambda svc, _: svc.purge("mail"), hold=hold_jobs(1)),
    "purge what is delayed": Case(lambda svc, _: svc.purge("late")),
    "purge what is done": Case(lambda svc, _: svc.purge("over", "done")),
    "configure": Case(lambda svc, _: svc.configure("mail", keep_done=5)),
    "configure a new topic": Case(lambda svc, _: svc.configure("new", keep_done=5)),
    "unset what was configured": Case(
        lambda svc, _: svc.configure("mail", keep_done=None),
        fill=lambda svc: svc.configure("mail", keep_done=5),
    ),
    "done beyond a topic's limit": Case(
        lambda svc, held: svc.done_many(held, ["r1", "r2", "r3"]),
        hold=hold_jobs(3),
        fill=_limit_done,
    ),
    "reset what a topic lists": Case(
        lambda svc, _: svc.reset([job.id for job in svc.find(topic="mail", status="done")]),
        fill=_limit_done,
    ),
    "promote": Case(lambda svc, _: svc.store.advance(), hold=_make_due),
    "expire": Case(lambda svc, _: svc.store.advance(), hold=_overrun),
    "recover": Case(
        lambda svc, _: svc.store.advance(),
        victim=lambda svc: svc.reserve("mail", 3, timeout=0),
    ),
    "recover while waiting": Case(
        lambda svc, _: _a_second_later(svc).store.wait("nothing", 0.001),
        victim=lambda svc: svc.reserve("mail", 3, timeout=0),
    ),
    "recover while waiting for an end": Case(
        lambda svc, _: _wait_for_no_end(_a_second_later(svc)),
        victim=lambda svc: svc.reserve("mail", 3, timeout=0),
    ),
    "cancel as poison": Case(
        lambda svc, _: svc.store.advance(),
        fill=_crash_once,
        victim=lambda svc: svc.reserve("frail", 2, timeout=0),
    ),
    "prune": Case(
        lambda svc, _: svc.prune(),
        fill=lambda svc: [
            svc.enqueue_many("short", ["s1", "s2"], retention=60),
            svc.done_many(svc.reserve("short", 2, timeout=0), ["r1", "r2"]),
        ],
    ),
    "prune an idle topic": Case(lambda svc, _: svc.prune(), fill=_leave_idle),
    "make a topic where two are idle": Case(
        lambda svc, _: svc.enqueue("new", "e"), fill=_leave_idle
    ),
    "use a topic that is idle": Case(lambda svc, _: svc.enqueue("idle 1", "e"), fill=_leave_idle),
    "close": Case(lambda svc, _: svc.close(), hold=hold_jobs(2)),
}

MIXED: Final = {
    **{
        f"{name}, topics in memory": CASES[name]._replace(topics="memory")
        for name in (
            *("enqueue", "enqueue into a new topic", "enqueue with a delay", "enqueue_many"),
            *("reserve, the first of the process", "reserve", "reserve of several topics"),
            *("done", "done and forgotten"),
            *("done_many", "settle and reserve", "retry", "release_many", "extend", "cancel"),
            *("reset", "delete", "promote", "expire", "prune", "close"),
        )
    },
    "take topics into memory": Case(
        lambda path, _: _open_and_enqueue(path, "memory"), opens=True, topics="memory"
    ),
    "take topics from memory into the file": Case(
        lambda path, _: _open_and_enqueue(path, "lmdb"), opens=True, before="memory"
    ),
}
"""The same of queues whose topics are kept in memory, before or now."""

KINDS: Final = {"lmdb": LmdbStore, "memory": MixedStore}

ALWAYS: Final = {
    "file lock taken",
    "transaction begun",
    "operation run",
    "counts written",
    "committed",
    "counters raised",
    "file lock given back",
    "waiters woken",
}
"""The steps of every commit."""


def fill(path: str, case: Case) -> None:
    """Make the queue that the case begins with: jobs in all states, and what is the case's own."""
    now_us = SystemClock().wall_us()
    clock = ManualClock(wall_us=now_us - int(AGO_S * 1e6), boot_us=SystemClock().boot_us())
    with JobService(KINDS[case.before](path, clock=clock)) as svc:
        svc.enqueue_many("mail", ["m1", "m2", "m3"])
        svc.enqueue("mail", "m0", weight=-1)
        svc.enqueue_many("held", ["h1"])
        svc.enqueue_many("late", ["l1", "l2"], delay=AGO_S * 10)
        svc.enqueue_many("over", ["o1", "o2", "o3"])
        done, wrong, canceled = svc.reserve("over", 3, timeout=0)
        done.done("fine")
        wrong.cancel("rejected", error="bad")
        svc.cancel(canceled.id)
        case.fill(svc)


class Seen(NamedTuple):
    """What a witness saw.

    Attributes:
        dying: Jobs and topics right after the strike, before anybody recovers anything.
        after: The same after the next opening.
        order: The ready jobs then, topic by topic, as they are served.
        problems: What was wrong with the queue whatever the verb had done.
        reached: The names of the steps, in order.
        acknowledged: Whether the verb had returned.
    """

    dying: list[Any]
    after: list[Any]
    order: dict[str, list[Any]]
    problems: list[str]
    reached: list[str]
    acknowledged: bool


Strike = Callable[[int, str], None]
"""Called at each step, with its number from 1 on and its name, in the process of the case."""


def killed_at(step: int) -> Strike:
    """A strike that kills at one step; at none if it is 0."""

    def strike(number: int, _: str) -> None:
        if number == step:
            kill_myself()

    return strike


def run(case: Case, path: str, strike: Strike, *, acts: bool = True) -> Seen:
    """Run a case in a fork of this process, which ends by SIGKILL at the latest; and look.

    This process must have no queue open, and no threads. With *acts* false the child dies before
    the verb begins.
    """
    victim = _Fork(_be_victim, case, path) if case.victim else None
    child = _Fork(_be_struck, case, path, strike, acts)
    alone = case.new or "memory" in {case.topics, case.before}
    witness = None if alone else jobq.open(path)
    try:
        child.go()
        child.hear()
        if victim is not None:
            victim.go()
            victim.hear()
            victim.end()
        child.go()
        reached, acknowledged = child.last_words()
        dying = [] if witness is None else seen_in(witness, case)
    finally:
        if witness is not None:
            witness.close()
        child.end()
        if victim is not None:
            victim.end()
    problems: list[str] = []
    with jobq.open(path, topics=case.afterwards) as svc:
        after = seen_in(svc, case)
        if reserved := svc.find(status=Status.RESERVED):
            problems.append(f"{len(reserved)} jobs of the dead are still reserved")
        problems += mended(svc, case, after)
        order = _go_on(svc, problems)
    problems += _leftovers(path)
    return Seen(dying, after, order, problems, reached, acknowledged)


def found_in(svc: JobService) -> list[Any]:
    """All jobs and topics, without what differs from run to run."""
    found: list[Any] = [(name, svc.settings(name).as_dict()) for name in topics_of(svc)]
    for record in map(svc.get, [job.id for job in svc.find(limit=1000)]):
        seen = record.created_us
        if record.reserved_us is not None and record.reserved_us > seen:
            seen = record.reserved_us
        due_us, lease_us = record.due_us, record.lease_until_us
        options, late_us = record.options.as_dict(), record.options.deadline_us
        if late_us is not None:
            options["deadline"] = round((late_us - record.created_us) / 1e7)
        found.append(
            (
                (record.topic, record.payload, record.status.value, record.weight),
                (record.attempt, record.retries, record.crashes, record.resets),
                (record.reason, record.error, record.result, options),
                [(one.attempt, one.event.value, one.error) for one in record.history],
                ([line.text for line in record.log], record.progress and record.progress[:3]),
                # In tens of seconds: the verbs differ by hundreds.
                due_us and round((due_us - seen) / 1e7),
                lease_us and round((lease_us - seen) / 1e7),
            )
        )
    return [*sorted(found, key=repr), svc.settings(None).as_dict(), *flow_in(svc)]


def seen_in(svc: JobService, case: Case) -> list[Any]:
    """The same, and what is wrong with a queue that the verb mends."""
    return [*found_in(svc), whole(svc)] if case.mends else found_in(svc)


def mended(svc: JobService, case: Case, seen: list[Any]) -> list[str]:
    """What is wrong with the queue, whatever the verb has done.

    One that the verb mends is repaired first, and what there is then is added to what was *seen*.
    """
    if not case.mends:
        return whole(svc)
    report = svc.check(repair=True)
    seen.append(found_in(svc))
    wrong = [f"repaired again, it is not whole: {problem}" for problem in whole(svc)]
    if bool(report.repaired) is not bool(seen[-2]):
        wrong.append(f"repaired again was {report.repaired}, and wrong was {seen[-2]}")
    return wrong


def is_mended(before: list[Any], after: list[Any], orders: Sequence[Any]) -> list[str]:
    """What is wrong with a verb that mends, unharmed: it was seen *before* and *after* it.

    To both, `mended` has added what there was in the end; *orders* are those in which the jobs were
    served then.
    """
    wrong = []
    if not before[-2]:
        wrong.append("nothing was wrong before, so it shows nothing")
    if after[-2]:
        wrong.append(f"unharmed, it leaves {after[-2]}")
    if before[-1] != after[-1] or orders[0] != orders[1]:
        wrong.append("a later repair makes something else of it")
    jobs, left = ([one for one in found if type(one) is tuple] for found in (before, after))
    if jobs != left:
        wrong.append("it changes jobs or topics, not only what they are found by")
    return wrong


def topics_of(svc: JobService) -> list[str]:
    """The names of all topics, those included that are not listed any more."""
    names: list[str] = svc.store._read(lambda tx: tx.topics.names())  # type: ignore[attr-defined]
    return names


def _go_on(svc: JobService, problems: list[str]) -> dict[str, list[Any]]:
    """Three more operations: add a job, take all, finish all."""
    svc.enqueue("mail", "last")
    order = {}
    for topic in svc.topics():
        jobs = svc.reserve(topic, 1000, timeout=0)
        order[topic] = [job.payload for job in jobs]
        if any(outcome != "ok" for outcome in svc.done_many(jobs)):
            problems.append(f"jobs of {topic!r} could not be finished afterwards")
    if order["mail"][-1:] != ["last"] and "last" not in order["mail"]:
        problems.append("a job that was enqueued afterwards was not served")
    problems += whole(svc)
    return order


def whole(svc: JobService) -> list[str]:
    """What is wrong with the queue, by `check` and by the rules of flow control."""
    return [*svc.check().problems, *flow_problems(svc)]


def _leftovers(path: str) -> list[str]:
    """Files that nobody will ever look at again."""
    return [f"{file.name} is left over" for file in Path(path).glob(".*")]


class _Fork:
    """A fork of this process that waits for a word before each of its acts."""

    def __init__(self, work: Callable[..., object], *arguments: Any) -> None:
        self._pipe, theirs = multiprocessing.Pipe()
        self._pid = os.fork()
        if not self._pid:
            die_with_parent()
            signal.alarm(int(DEADLINE_S))
            self._pipe.close()
            try:
                work(theirs, *arguments)
            except BaseException as error:  # noqa: BLE001 - told to the parent
                with suppress(OSError):
                    theirs.send(f"{type(error).__name__}: {error}")
            finally:
                os._exit(1)
        theirs.close()

    def go(self) -> None:
        self._pipe.send(None)

    def hear(self) -> None:
        said = self._pipe.recv()
        assert said is None, said

    def last_words(self) -> tuple[list[str], bool]:
        """The steps that it reached, and whether it acknowledged; once it is dead."""
        reached: list[str] = []
        acknowledged = False
        with suppress(EOFError):
            while True:
                kind, word = self._pipe.recv()
                if kind == "step":
                    reached.append(word)
                elif kind == "ack":
                    acknowledged = True
                else:
                    raise AssertionError(word)
        return reached, acknowledged

    def end(self) -> None:
        """Kill and reap it, unless that is done."""
        if self._pid:
            with suppress(ProcessLookupError):
                os.kill(self._pid, signal.SIGKILL)
            os.waitpid(self._pid, 0)
            self._pid = 0
            self._pipe.close()


def _be_victim(pipe: Pipe, case: Case, path: str) -> None:
    pipe.recv()
    svc = jobq.open(path)
    assert case.victim is not None
    case.victim(svc)
    pipe.send(None)
    pipe.recv()


def _be_struck(pipe: Pipe, case: Case, path: str, strike: Strike, acts: bool) -> None:
    pipe.recv()
    subject = path if case.opens else jobq.open(path, topics=case.topics)
    held = None if isinstance(subject, str) else case.hold(subject)
    pipe.send(None)
    pipe.recv()
    if acts:
        with_steps(strike, lambda step: pipe.send(("step", step)))
        result = case.act(subject, held)
        pipe.send(("ack", None))
        assert result is not pipe  # it lives until here
    kill_myself()


def with_steps(strike: Strike, say: Callable[[str], object] = lambda _: None) -> None:
    """From now on, say each named step of this process, and strike there."""
    count = 0

    def reached(step: str) -> None:
        nonlocal count
        count += 1
        say(step)
        strike(count, step)

    steps.reached = reached


def without_steps() -> None:
    """From now on, nothing happens at the steps."""
    with_steps(lambda *_: None)


def copy(queue: Path, to: Path) -> str:
    """A copy of a queue that nobody has open, without its ballast, which is large and empty."""
    shutil.copytree(queue, to, ignore=shutil.ignore_patterns("ballast"))
    return str(to)
