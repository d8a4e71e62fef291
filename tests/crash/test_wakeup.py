"""Who waits for a job gets it when it is there, from whatever process it comes; nobody polls."""

import signal
import time
from collections.abc import Callable

import pytest

import jobq
from jobq.repo.lmdb import steps
from jobq.repo.lmdb.bell import COUNTERS
from tests.conftest import LONG_S, SOON_S, sleep_soundly
from tests.crash.conftest import Say
from tests.crash.processes import Pipe, Start
from tests.crash.waiters import (
    PATIENCE_S,
    asleep,
    at_the_one,
    call_of,
    enqueue_and_die,
    get,
    get_or_look,
    hesitate,
    make_topics,
    play,
    seconds,
    stop_threads,
)

Way = tuple[Callable[..., object], ...]

# Calls that must come through.


@pytest.mark.parametrize("topic_exists", [True, False])
def test_a_waiter_gets_a_job_that_another_process_enqueues(
    topic_exists: bool, start: Start, path: str
) -> None:
    with jobq.open(path) as svc:
        if topic_exists:
            make_topics(svc, "mail")
        waiter = asleep(start(get, path, "mail"))
        since_ns = time.monotonic_ns()
        svc.enqueue("mail", "now")

        assert seconds(waiter, since_ns) < SOON_S


def test_a_waiter_is_not_forgotten_for_one_of_another_topic_that_does_not_exist_yet(
    start: Start, path: str
) -> None:
    with jobq.open(path) as svc:
        for number in range(3):
            asleep(start(get, path, f"never {number}"))
        waiter = asleep(start(get, path, "mail"))
        since_ns = time.monotonic_ns()
        svc.enqueue("mail", "now")

        assert seconds(waiter, since_ns) < SOON_S


@pytest.mark.parametrize("topic_exists", [True, False])
def test_as_many_waiters_get_up_as_there_are_jobs(
    topic_exists: bool, start: Start, path: str
) -> None:
    with jobq.open(path) as svc:
        if topic_exists:
            make_topics(svc, "mail")
        waiters = [asleep(start(get, path, "mail")) for _ in range(5)]
        since_ns = time.monotonic_ns()
        svc.enqueue_many("mail", range(5))

        assert max(seconds(waiter, since_ns) for waiter in waiters) < SOON_S


def test_a_waiter_is_not_forgotten_for_one_of_another_topic_that_shares_its_counter(
    start: Start, path: str
) -> None:
    """There are more topics than counters: some of the last share one with some of the first."""
    with jobq.open(path, durability="unsafe") as svc:
        for number in range(COUNTERS + 8):
            make_topics(svc, f"topic {number}")
    with jobq.open(path) as svc:
        for number in range(COUNTERS - 2, COUNTERS + 3):
            asleep(start(get, path, f"topic {number}"))
        waiters = [asleep(start(get, path, f"topic {number}")) for number in range(4)]
        slept = []
        for number, waiter in enumerate(waiters):
            since_ns = time.monotonic_ns()
            svc.enqueue(f"topic {number}")
            slept.append(seconds(waiter, since_ns))

        assert max(slept) < SOON_S


WAYS = pytest.mark.parametrize("way", [(get,), (at_the_one, get)], ids=["usual", "at one counter"])


@WAYS
def test_a_delayed_job_comes_at_its_time_and_not_before(way: Way, start: Start, path: str) -> None:
    with jobq.open(path) as svc:
        waiter = asleep(start(*way, path, "mail"))
        since_ns = time.monotonic_ns()
        svc.enqueue("mail", delay=0.3)
        after = seconds(waiter, since_ns)

        assert 0.3 <= after < SOON_S


@WAYS
def test_an_earlier_due_time_shortens_a_sleep_that_has_begun(
    way: Way, start: Start, path: str
) -> None:
    with jobq.open(path) as svc:
        svc.enqueue("mail", "later", delay=LONG_S)
        waiter = asleep(start(*way, path, "mail"))
        since_ns = time.monotonic_ns()
        svc.enqueue("mail", "sooner", delay=0.1)
        after = seconds(waiter, since_ns)

        assert 0.1 <= after < SOON_S


def test_who_cannot_be_called_to_look_for_others_does_not_rely_on_them(
    start: Start, path: str
) -> None:
    with jobq.open(path) as svc:
        make_topics(svc, "mail", "other")
        other = asleep(start(get, path, "other"))
        waiter = asleep(start(at_the_one, get, path, "mail"))
        since_ns = time.monotonic_ns()
        svc.enqueue("mail", delay=0.3)
        svc.enqueue("other", delay=0.1)

        assert 0.1 <= seconds(other, since_ns) < SOON_S
        assert 0.3 <= seconds(waiter, since_ns) < SOON_S


def test_a_waiter_that_is_killed_when_it_was_to_look_costs_others_a_second_at_most(
    start: Start, path: str
) -> None:
    with jobq.open(path) as svc:
        make_topics(svc, "mail")
        first = asleep(start(get_or_look, path, "mail"))
        waiter = asleep(start(get_or_look, path, "mail"))
        since_ns = time.monotonic_ns()
        svc.enqueue("mail", delay=1.5)
        first.signal(signal.SIGKILL)
        after = seconds(waiter, since_ns)

        assert first.ended() == -signal.SIGKILL
        assert 1.5 <= after < SOON_S


def test_the_end_of_a_short_lease_is_not_slept_through(start: Start, path: str) -> None:
    with jobq.open(path) as svc:
        svc.enqueue("mail", lease=0.3)
        waiter = asleep(start(get, path, "mail"), after=lambda: svc.reserve("mail", timeout=0))
        since_ns = time.monotonic_ns()

        assert seconds(waiter, since_ns) < SOON_S


@pytest.mark.parametrize("how", ["retry", "release", "reset", "follow-up", "close"])
def test_a_job_that_comes_back_wakes_a_waiter(how: str, start: Start, path: str) -> None:
    with jobq.open(path) as svc:
        svc.enqueue("mail")
        giver = start(_give_back, path, how)
        giver.hear()
        held = svc.stats("mail").totals
        waiter = asleep(start(get, path, "mail"))
        since_ns = time.monotonic_ns()
        giver.tell("now")

        assert held.ready == 0
        assert seconds(waiter, since_ns) < SOON_S


def test_a_producer_that_dies_before_it_calls_costs_a_waiter_a_second_at_most(
    start: Start, path: str
) -> None:
    with jobq.open(path) as svc:
        make_topics(svc, "mail")
        producer, after = call_of(
            start, get_or_look, path, enqueue_and_die, path, "mail", "committed"
        )

        assert producer.ended() == -signal.SIGKILL
        assert after < SOON_S


def test_a_producer_that_is_interrupted_after_its_commit_still_calls(
    start: Start, path: str
) -> None:
    """Ctrl-C at an unlucky moment: the job is there, and its waiter must not sleep on."""
    with jobq.open(path) as svc:
        make_topics(svc, "mail")
        producer, after = call_of(start, get, path, _enqueue_and_be_interrupted, path, "committed")

        assert producer.hear() == "KeyboardInterrupt"
        assert after < SOON_S


def test_a_call_between_a_waiters_last_look_and_its_sleep_is_not_missed(
    start: Start, path: str
) -> None:
    """Also where the kernel cannot sleep at several counters."""
    with jobq.open(path) as svc:
        make_topics(svc, "mail")
        for way, step in (((hesitate,), "wait_for_any"), ((at_the_one, hesitate), "wait")):
            waiter = start(*way, path, "mail", step)
            assert waiter.hear() == step
            svc.enqueue("mail")
            since_ns = time.monotonic_ns()
            waiter.tell("sleep")

            assert seconds(waiter, since_ns) < SOON_S


# Stopping.


@pytest.mark.parametrize("how", ["reserve", "consume"])
def test_stop_in_a_signal_handler_ends_a_wait(how: str, start: Start, path: str) -> None:
    with jobq.open(path) as svc:
        svc.enqueue("begun")
        waiter = asleep(start(_wait_until_stopped, path, how))
        since_ns = time.monotonic_ns()
        waiter.signal(signal.SIGTERM)
        after = seconds(waiter, since_ns)
        waiter.ended()

        assert after < SOON_S
        assert svc.stats().totals.reserved == 0
        assert svc.check().ok


def test_ctrl_c_ends_a_wait_and_harms_nothing(start: Start, path: str) -> None:
    with jobq.open(path) as svc:
        waiter = asleep(start(_wait_until_interrupted, path))
        since_ns = time.monotonic_ns()
        waiter.signal(signal.SIGINT)
        after = seconds(waiter, since_ns)
        jid = svc.enqueue("mail", "after")

        assert after < SOON_S
        assert waiter.hear() == [jid], "the same process goes on"
        assert svc.check().ok


@pytest.mark.usefixtures("sound_sleep")
def test_stop_wakes_all_threads_that_wait(path: str) -> None:
    with jobq.open(path) as svc:
        make_topics(svc, "mail")

        assert stop_threads(svc, "mail", 6) < SOON_S


# No call is missed.


@pytest.mark.usefixtures("sound_sleep")
def test_no_call_is_missed_in_a_thousand_passes(start: Start, path: str, say: Say) -> None:
    """Four processes pass jobs on in a ring, each with a waiter that is nearly always asleep."""
    n, passes, balls = 4, 1000, 4
    players = [(f"player {me}", [f"player {(me + 1) % n}"]) for me in range(n)]
    count, slowest = play(start, path, players, passes=passes, balls=balls)
    say(f"{count} passes between {n} processes, the slowest took {slowest:.3f} s")

    assert count >= passes - balls
    assert slowest < SOON_S


@pytest.mark.usefixtures("sound_sleep")
def test_no_call_is_missed_when_all_wait_for_the_same_topic(
    start: Start, path: str, say: Say
) -> None:
    """Each question is answered before the next one is asked, by any of three processes."""
    questions = 200
    with jobq.open(path, retention=0) as svc:
        make_topics(svc, "questions", "answers")
        children = [start(_answer, path) for _ in range(3)]
        for child in children:
            child.hear()
        slowest = 0.0
        for number in range(questions):
            since = time.monotonic()
            svc.enqueue("questions", number)
            [answer] = svc.reserve("answers", timeout=PATIENCE_S)
            slowest = max(slowest, time.monotonic() - since)
            assert answer.payload == number
            answer.done()
        for child in children:
            child.signal(signal.SIGTERM)
        answered = [child.hear() for child in children]
        report = svc.check()
    say(f"{questions} questions to 3 processes ({answered}), the slowest took {slowest:.3f} s")

    assert sum(answered) == questions
    assert slowest < SOON_S
    assert report.problems == ()


# What the children do.


def _give_back(pipe: Pipe, path: str, how: str) -> None:
    with jobq.open(path) as svc:
        [job] = svc.reserve("mail", timeout=0)
        if how == "reset":
            job.done()
        if how == "follow-up":
            job.done()
            svc.enqueue("first")
            [job] = svc.reserve("first", timeout=0)
        pipe.send("holding")
        pipe.recv()
        match how:
            case "retry":
                job.retry(0)
            case "release":
                job.release()
            case "reset":
                svc.reset(job.id)
            case "follow-up":
                job.done(then=[jobq.NewJob("mail")])
            case "close":
                svc.close()


def _enqueue_and_be_interrupted(pipe: Pipe, path: str, at: str) -> None:
    svc = jobq.open(path)

    def reached(step: str) -> None:
        if step == at:
            signal.raise_signal(signal.SIGINT)

    steps.reached = reached
    try:
        svc.enqueue("mail")
    except KeyboardInterrupt:
        pipe.send("KeyboardInterrupt")
    else:
        pipe.send("no interrupt")
    pipe.recv()  # alive, so that nothing but its call wakes anybody


def _wait_until_stopped(pipe: Pipe, path: str, how: str) -> None:
    with jobq.open(path) as svc:
        signal.signal(signal.SIGTERM, lambda *_: svc.stop())
        if how == "consume":
            for job in svc.consume("begun", 1):
                with job:
                    pipe.send("about to wait")
                    pipe.recv()
        else:
            pipe.send("about to wait")
            pipe.recv()
            assert svc.reserve("mail") == []
        pipe.send(time.monotonic_ns())


def _wait_until_interrupted(pipe: Pipe, path: str) -> None:
    with jobq.open(path) as svc:
        pipe.send("about to wait")
        pipe.recv()
        with pytest.raises(KeyboardInterrupt):
            svc.reserve("mail")
        pipe.send(time.monotonic_ns())
        jobs = svc.reserve("mail", timeout=PATIENCE_S)
        pipe.send([job.id for job in jobs])


def _answer(pipe: Pipe, path: str) -> None:
    sleep_soundly()
    with jobq.open(path, retention=0) as svc:
        signal.signal(signal.SIGTERM, lambda *_: svc.stop())
        count = 0
        pipe.send("ready")
        while jobs := svc.reserve("questions"):
            for job in jobs:
                job.done(then=[jobq.NewJob("answers", job.payload)])
                count += 1
        pipe.send(count)
