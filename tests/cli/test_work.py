"""`jobq work`: a real worker process, real commands, real signals."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import jobq
from jobq import ids
from jobq.cli import child
from jobq.cli.child import Lines, Orders, Why
from jobq.job import JobRecord, JobSpec
from jobq.options import JobOptions
from jobq.states import Status
from tests.cli.conftest import (
    COMMAND,
    ROOT,
    TIME_LIMIT_S,
    call,
    environment,
    hung_up_on,
    run,
    start,
)
from tests.conftest import SOON_S, eventually

PYTHON = sys.executable
work: Any = import_module("jobq.cli.work")  # its command has the same name


def add(queue: Path, *payloads: Any, **options: Any) -> list[str]:
    with jobq.open(queue, durability="unsafe") as svc:
        return svc.enqueue_many("mail", payloads, **options)


def get(queue: Path, job_id: str) -> JobRecord:
    with jobq.open(queue, create=False) as svc:
        return svc.get(job_id)


def status(queue: Path, job_id: str) -> Status:
    with jobq.open(queue, create=False) as svc:
        return svc.status(job_id)


def log(queue: Path, job_id: str) -> list[str]:
    return [line.text for line in get(queue, job_id).log]


def drain(queue: Path, *command: str, options: tuple[str, ...] = ()) -> tuple[str, str]:
    """What a worker prints on stdout and stderr that does all that is ready."""
    ended = run("--db", queue, "work", "mail", "--drain", *options, "--exec", *command)
    assert ended.returncode == 0, ended.stderr
    return ended.stdout.decode(), ended.stderr.decode()


@contextmanager
def worker(
    queue: Path,
    *command: str,
    options: tuple[str, ...] = (),
    words: tuple[str, ...] = COMMAND,
) -> Iterator["subprocess.Popen[bytes]"]:
    """A worker that goes on until it is told to end."""
    process = start("--db", queue, "work", "mail", *options, "--exec", *command, words=words)
    with process:
        try:
            yield process
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
                process.send_signal(signal.SIGINT)  # two of one kind may arrive as one
            process.communicate(timeout=TIME_LIMIT_S)


def children(pid: int) -> list[int]:
    """The processes that a process has started and not reaped."""
    tasks = Path(f"/proc/{pid}/task").glob("*/children")
    return [int(number) for task in tasks for number in task.read_text().split()]


def is_alive(pid: int) -> bool:
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except FileNotFoundError:
        return False


# Several topics.


def add_to(queue: Path, *topics: str, n: int = 1) -> None:
    with jobq.open(queue, durability="unsafe") as svc:
        for topic in topics:
            svc.enqueue_many(topic, range(n))


def served(queue: Path, *arguments: str) -> tuple[str, list[str]]:
    """What a worker says first, and the topics of the jobs that it does, in their order."""
    ended = run("--db", queue, "work", *arguments, "--drain", "--exec", "printenv", "JOBQ_TOPIC")
    assert ended.returncode == 0, ended.stderr
    told = ended.stderr.decode().splitlines()[0]
    return told, [line.split(" | ")[1] for line in ended.stdout.decode().splitlines()]


def test_several_topics_are_served_in_turns_by_their_shares(empty: Path) -> None:
    add_to(empty, "mail", "import", "report.a", n=4)
    told, topics = served(empty, "mail=2", "import=1", "--pattern", "report.*=0.5")

    assert told.startswith("jobq: working on 'mail' (2), 'import' (1), 'report.*' (0.5) in")
    assert topics[:7].count("mail") == 4
    assert topics[:7].count("import") == 2
    assert len(topics) == 12


def test_topics_without_shares_have_equal_ones_and_strict_drains_the_first(empty: Path) -> None:
    add_to(empty, "a", "b", "c", n=2)
    assert served(empty, "b", "a")[1] == ["b", "a"] * 2

    add_to(empty, "a", "b", n=2)
    told, topics = served(empty, "a", "b", "-p", "*", "--strict")
    assert told.startswith("jobq: working on 'a', 'b', '*' in")
    assert topics == ["a", "a", "b", "b", "c", "c"]


def test_a_topic_that_looks_like_one_with_a_share_is_named_with_one(empty: Path) -> None:
    add_to(empty, "a=1", "a=b", "=2")

    assert served(empty, "a=1=1", "a=b", "=2")[1] == ["a=1", "a=b", "=2"]


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        ([], 2, "which topics? Name one or more, or give a --pattern"),
        (["a", "b=1", "a=2"], 2, "'a' is named twice"),
        (["-p", "a*", "-p", "a*=2"], 2, "'a*' is named twice"),
        (["a=2", "b", "--strict"], 2, "--strict: topics have no shares"),
        (["a=0", "b"], 1, "the share of topic 'a' is 0.0: expected a number from 0.01 to 1000"),
        (["-p", ""], 1, "a pattern is ''"),
        ([""], 1, "topic is ''"),
    ],
)
def test_a_wrong_choice_of_topics_is_refused(
    empty: Path, arguments: list[str], status: int, said: str
) -> None:
    ended = run("--db", empty, "work", *arguments, "--drain", "--exec", "true")

    assert ended.returncode == status
    assert said in ended.stderr.decode()


# What a command gets.


def test_a_command_gets_the_payload_and_its_job_in_the_environment(empty: Path) -> None:
    payload = {"to": "ann", "n": [1, None]}
    (job_id,) = add(empty, payload)
    out, _ = drain(
        empty,
        "sh",
        "-c",
        'cat; echo "$JOBQ_PAYLOAD"; echo "$JOBQ_ID $JOBQ_TOPIC $JOBQ_ATTEMPT"; echo "$JOBQ_DB"',
    )

    mark = f"{job_id[-8:]} | "
    on_stdin, in_env, about, where = [line.removeprefix(mark) for line in out.splitlines()]
    assert json.loads(on_stdin) == json.loads(in_env) == payload
    assert about == f"{job_id} mail 1"
    assert where == str(empty)
    assert status(empty, job_id) is Status.DONE


def test_arguments_are_a_vector_and_no_shell_sees_them(empty: Path) -> None:
    (job_id,) = add(empty, None)
    drain(empty, "printf", "%s\\n", "$HOME", "*", "a  b", "--drain", "--", "--exec")

    assert log(empty, job_id) == ["$HOME", "*", "a  b", "--drain", "--", "--exec"]


@pytest.mark.parametrize("mark", [["--exec"], ["--"], ["--exec", "--"]])
def test_the_command_stands_after_exec_or_two_dashes(empty: Path, mark: list[str]) -> None:
    (job_id,) = add(empty, None)
    ended = run("--db", empty, "work", "mail", "--drain", *mark, "echo", "-n", "hi")

    assert ended.returncode == 0
    assert log(empty, job_id) == ["hi"]


def test_payloads_that_json_has_not_are_written_as_documented(empty: Path) -> None:
    (job_id,) = add(empty, {1: b"\xff"})
    drain(empty, "cat")

    assert log(empty, job_id) == ['{"$dict": [[1, {"$bytes": "/w=="}]]}']


@pytest.mark.parametrize("length", [10, 128 * 1024 - 17, 128 * 1024 - 16, 1024 * 1024 - 10])
def test_a_payload_of_any_size_comes_on_stdin_and_a_small_one_in_the_environment(
    empty: Path, length: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JOBQ_PAYLOAD", "of another job")
    (job_id,) = add(empty, "x" * length)
    drain(empty, "sh", "-c", 'wc -c; printf %s "$JOBQ_PAYLOAD" | wc -c')

    fits = length + 2 < 128 * 1024 - len("JOBQ_PAYLOAD=")
    assert log(empty, job_id) == [str(length + 3), str(length + 2 if fits else 0)]


def test_a_command_need_not_read_its_payload(empty: Path) -> None:
    (job_id,) = add(empty, "x" * 1_000_000)
    drain(empty, "true")

    assert status(empty, job_id) is Status.DONE


def test_much_input_and_output_at_once_block_nothing(empty: Path) -> None:
    add(empty, "x" * 1_000_000)
    repeat = "import sys; text = sys.stdin.read(); [print(text) for _ in range(5)]"
    out, _ = drain(empty, PYTHON, "-c", repeat)

    assert out.count("x") == 5_000_000


# What its end says.


def test_exit_status_0_is_done(empty: Path) -> None:
    ids = add(empty, *range(5))
    drain(empty, "true")

    assert [status(empty, job_id) for job_id in ids] == [Status.DONE] * 5
    assert [get(empty, job_id).result for job_id in ids] == [None] * 5


def test_exit_status_75_releases_the_job_for_a_moment(empty: Path) -> None:
    (job_id,) = add(empty, None)
    drain(empty, "sh", "-c", "exit 75", options=("--release-delay", "1h"))
    job = get(empty, job_id)

    assert (job.status, job.attempt, job.retries, job.error) == (Status.DELAYED, 0, 0, None)
    assert job.due_us is not None
    assert 3590 < (job.due_us - job.created_us) / 1e6 < 3660


def test_any_other_exit_status_is_a_retry_with_the_tail_of_stderr(empty: Path) -> None:
    (job_id,) = add(empty, None, min_backoff=3600)
    drain(empty, "sh", "-c", "echo out; for n in $(seq 50); do echo e$n >&2; done; exit 3")
    job = get(empty, job_id)

    assert (job.status, job.attempt, job.retries) == (Status.DELAYED, 1, 1)
    assert job.error is not None
    assert job.error.splitlines() == ["exit status 3", *(f"e{n}" for n in range(31, 51))]


def test_long_lines_do_not_push_out_how_it_ended(empty: Path) -> None:
    (job_id,) = add(empty, None, min_backoff=3600)
    drain(
        empty,
        PYTHON,
        "-c",
        "import sys; [print('€' * 9999, file=sys.stderr) for _ in 'x' * 20]; 1/0",
    )
    error = get(empty, job_id).error

    assert error is not None
    assert error.startswith("exit status 1\n")
    assert error.endswith("ZeroDivisionError: division by zero")
    assert len(error) < 5000


@pytest.mark.parametrize(("name", "number"), [("SIGKILL", 9), ("SIGTERM", 15), ("signal 40", 40)])
def test_a_command_that_a_signal_kills_is_a_retry(empty: Path, name: str, number: int) -> None:
    (job_id,) = add(empty, None, min_backoff=3600)
    drain(empty, "sh", "-c", f"kill -{number} $$")

    assert get(empty, job_id).error == f"killed by {name}"


def test_retries_end_as_the_job_says(empty: Path) -> None:
    (job_id,) = add(empty, None, max_retries=2, min_backoff=0, jitter=0)
    drain(empty, "false")
    job = get(empty, job_id)

    assert (job.status, job.reason, job.attempt) == (Status.CANCELED, "exhausted", 3)


def test_a_payload_that_does_not_decode_is_rejected(empty: Path) -> None:
    with jobq.open(empty) as svc:
        (raw,) = svc.store.enqueue([JobSpec("mail", 0, 0, b"\xc1", JobOptions())])
    _, err = drain(empty, "true")
    job = get(empty, ids.to_text(raw))

    assert (job.status, job.reason) == (Status.CANCELED, "rejected")
    assert "rejected" in err


# Results.


@pytest.mark.parametrize(
    ("kind", "printed", "result"),
    [
        ("none", "x", None),
        ("text", "one\\ntwo\\n\\n", "two"),
        ("text", "", None),
        ("json", 'noise\\n{"n": [1, 2]}\\n', {"n": [1, 2]}),
        ("json", "no json", "no json"),
        ("json", "1" * 30, None),
    ],
)
def test_the_last_line_of_stdout_can_be_the_result(
    empty: Path, kind: str, printed: str, result: Any
) -> None:
    (job_id,) = add(empty, None)
    drain(empty, "printf", printed, options=("--result", kind))
    job = get(empty, job_id)

    assert (job.status, job.result) == (Status.DONE, result)
    if kind == "json" and printed == "no json":
        assert "no JSON" in job.log[-1].text
    if printed == "1" * 30:
        assert "the result is not kept" in job.log[-1].text


def test_a_result_that_is_too_large_is_not_kept_and_the_job_is_done(empty: Path) -> None:
    (job_id,) = add(empty, None)
    drain(empty, PYTHON, "-c", "print('x' * 2**20)", options=("--result", "text"))
    job = get(empty, job_id)

    assert (job.status, job.result) == (Status.DONE, None)
    assert "the result is not kept" in job.log[-1].text


# Output.


def test_output_is_kept_in_the_log_and_shown(empty: Path) -> None:
    (job_id,) = add(empty, None)
    out, err = drain(empty, "sh", "-c", "echo one; echo two >&2; printf three")

    assert sorted(log(empty, job_id)) == ["one", "three", "two"]
    assert out == f"{job_id[-8:]} | one\n{job_id[-8:]} | three\n"
    assert f"{job_id[-8:]} | two\n" in err
    assert f"{job_id[-8:]} done" in err


def test_a_quiet_worker_keeps_and_does_not_show(empty: Path) -> None:
    (job_id,) = add(empty, None)

    assert drain(empty, "echo", "hi", options=("--quiet",)) == ("", "")
    assert log(empty, job_id) == ["hi"]


def test_output_of_any_bytes_is_text_that_steers_no_terminal(empty: Path) -> None:
    (job_id,) = add(empty, None)
    out, _ = drain(empty, "printf", "\\033[2J\\377 \\303\\244\\r\\n\\000")

    assert log(empty, job_id) == ["\x1b[2J\ufffd ä", "\x00"]
    assert out == f"{job_id[-8:]} | \\x1b[2J\ufffd ä\n{job_id[-8:]} | \\x00\n"


def test_the_log_of_much_output_is_bounded(empty: Path) -> None:
    (job_id,) = add(empty, None)
    drain(empty, "seq", "100000", options=("--quiet",))
    job = get(empty, job_id)

    assert job.log[-1].text == "100000"
    assert job.log_dropped + len(job.log) == 100_000


def test_what_a_command_leaves_running_does_not_hold_up_its_job(empty: Path) -> None:
    (job_id,) = add(empty, None)
    drain(empty, "sh", "-c", f"sleep {5 * TIME_LIMIT_S} & echo $!")

    assert status(empty, job_id) is Status.DONE
    os.kill(int(log(empty, job_id)[0]), signal.SIGKILL)  # a daemon is the user's to end


def test_a_reader_of_the_output_that_hangs_up_ends_the_worker(empty: Path) -> None:
    job_ids = add(empty, *range(50))
    ended = hung_up_on("--db", empty, "work", "mail", "--exec", "seq", "1000")

    assert b"Broken" not in ended.stderr
    assert b"Traceback" not in ended.stderr
    left = {status(empty, job_id) for job_id in job_ids}
    assert left == {Status.DONE, Status.READY}  # none is left half done


@pytest.mark.parametrize("stream", ["stdout", "stderr"])
def test_a_full_disk_for_the_output_ends_the_worker_and_no_command(
    empty: Path, tmp_path: Path, stream: str
) -> None:
    """The command that runs goes on to its end; else it would begin again with each worker."""
    job_ids = add(empty, *range(3))
    command = f"echo hi; echo ran >> {tmp_path}/ran; echo hi >&2; exit 0"
    with Path("/dev/full").open("wb") as full:
        ended = subprocess.run(
            [*COMMAND, "--db", str(empty), "work", "mail", "--exec", "sh", "-c", command],
            cwd=ROOT,
            env=environment(),
            timeout=TIME_LIMIT_S,
            check=False,
            stdout=full if stream == "stdout" else subprocess.PIPE,
            stderr=full if stream == "stderr" else subprocess.PIPE,
        )
    begun = (tmp_path / "ran").read_text().count("ran") if (tmp_path / "ran").exists() else 0

    assert ended.returncode == 1
    assert stream == "stderr" or b"No space left on device" in ended.stderr
    assert b"cannot run" not in (ended.stderr or b"")
    assert begun == (stream == "stdout")
    states = [status(empty, job_id) for job_id in job_ids]
    assert states == [Status.DONE] * begun + [Status.READY] * (3 - begun)


# How many, how long.


def test_it_drains_what_is_ready_and_ends(empty: Path) -> None:
    ready = add(empty, *range(10))
    (delayed,) = add(empty, 1, delay=3600)
    drain(empty, "true", options=("-n", "4"))

    assert {status(empty, job_id) for job_id in ready} == {Status.DONE}
    assert status(empty, delayed) is Status.DELAYED


def test_it_ends_after_so_many_jobs(empty: Path) -> None:
    job_ids = add(empty, *range(10))
    ended = run("--db", empty, "work", "mail", "--max-jobs", "3", "-n", "2", "--exec", "true")

    assert ended.returncode == 0
    assert [status(empty, job_id) for job_id in job_ids].count(Status.DONE) == 3
    assert [status(empty, job_id) for job_id in job_ids].count(Status.READY) == 7


def test_several_commands_run_at_a_time(empty: Path, tmp_path: Path) -> None:
    """Each waits for the file of the other: one at a time they would never end."""
    script = (
        "import sys, time, pathlib\n"
        "mine = int(sys.stdin.read()); here = pathlib.Path(sys.argv[1])\n"
        "(here / str(mine)).touch()\n"
        "while not (here / str(1 - mine)).exists(): time.sleep(0.01)\n"
    )
    add(empty, 0, 1)

    drain(empty, PYTHON, "-c", script, str(tmp_path), options=("-n", "2", "--timeout", "60"))
    assert {job.status for job in records(empty)} == {Status.DONE}


def records(queue: Path) -> list[JobRecord]:
    with jobq.open(queue, create=False) as svc:
        return svc.find(limit=1000)


def timed_out(queue: Path, script: str, *options: str) -> tuple[JobRecord, int]:
    """A job of a command that takes too long, and the number that the command has printed.

    A machine that is busy may take longer than the first time limit to begin it at all.
    """
    for seconds in (0.5, 5, 50):
        (job_id,) = add(queue, None, min_backoff=3600)
        drain(queue, "sh", "-c", script, options=("--timeout", f"{seconds}s", *options))
        job = get(queue, job_id)
        assert (job.status, job.error) == (
            Status.DELAYED,
            f"timeout: ended after {seconds} seconds",
        )
        if job.log:
            return job, int(job.log[0].text)
    raise AssertionError("the command has not begun in time")


def test_a_command_that_takes_too_long_is_ended_with_all_that_it_has_started(empty: Path) -> None:
    _, pid = timed_out(empty, f"sleep {5 * TIME_LIMIT_S} & echo $!; wait")

    eventually(lambda: not is_alive(pid))


def test_a_command_that_does_not_want_to_end_is_killed(empty: Path) -> None:
    stubborn = "trap '' TERM; echo $$; while :; do sleep 0.1; done"
    _, pid = timed_out(empty, stubborn, "--grace", "0.3s")

    assert not is_alive(pid)


def held_until_us(queue: Path, job_id: str) -> int:
    until_us = get(queue, job_id).lease_until_us
    assert until_us is not None
    return until_us


def test_leases_are_kept_while_a_command_runs(empty: Path, tmp_path: Path) -> None:
    (job_id,) = add(empty, None, lease=6)  # kept after a third of that
    go = tmp_path / "go"
    with worker(empty, "sh", "-c", WAIT_FOR_FILE, str(go)):
        eventually(lambda: begun(go))
        later_us = held_until_us(empty, job_id) + 1_000_000
        eventually(lambda: held_until_us(empty, job_id) > later_us)
        go.touch()
        eventually(lambda: status(empty, job_id) is Status.DONE)

    assert (get(empty, job_id).attempt, get(empty, job_id).crashes) == (1, 0)


def test_canceling_a_job_ends_its_command(empty: Path) -> None:
    (job_id,) = add(empty, None)
    with worker(empty, "sh", "-c", f"echo $$; exec sleep {5 * TIME_LIMIT_S}"):
        eventually(lambda: log(empty, job_id))
        (pid,) = map(int, log(empty, job_id))
        call("--db", empty, "jobs", "cancel", job_id)
        eventually(lambda: not is_alive(pid))
        (other,) = add(empty, None)
        eventually(lambda: status(empty, other) is Status.RESERVED)  # the worker goes on

    assert get(empty, job_id).reason == "canceled"


# Signals.

WAIT_FOR_FILE = "touch $0.began; while [ ! -e $0 ]; do sleep 0.02; done"


def begun(path: Path) -> bool:
    return path.with_name(f"{path.name}.began").exists()


def ask_to_end(
    process: "subprocess.Popen[bytes]",
    number: signal.Signals = signal.SIGTERM,
    send: Callable[[int, int], None] = os.kill,
) -> None:
    """Send a worker its first signal; returns when it has said that it begins no more jobs."""
    send(process.pid, number)
    assert process.stderr is not None
    while b"no more jobs are begun" not in (line := process.stderr.readline()):
        assert line, "it has ended"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_the_first_signal_lets_running_commands_finish(
    empty: Path, tmp_path: Path, number: signal.Signals
) -> None:
    job_ids = add(empty, 1, 2, 3)
    go = tmp_path / "go"
    with worker(empty, "sh", "-c", WAIT_FOR_FILE, str(go)) as process:
        eventually(lambda: begun(go))
        ask_to_end(process, number)
        go.touch()

        assert process.wait(TIME_LIMIT_S) == 0
    assert [status(empty, job_id) for job_id in job_ids] == [
        Status.DONE,
        Status.READY,
        Status.READY,
    ]


def test_a_second_signal_ends_commands_and_releases_their_jobs(empty: Path, tmp_path: Path) -> None:
    job_ids = add(empty, 1, 2, 3)
    with worker(empty, "sh", "-c", WAIT_FOR_FILE, str(tmp_path / "go"), options=("-n", "2")) as one:
        eventually(
            lambda: [status(empty, job_id) for job_id in job_ids].count(Status.RESERVED) == 2
        )
        eventually(lambda: len(children(one.pid)) == 2)
        ask_to_end(one)
        one.send_signal(signal.SIGINT)

        assert one.wait(TIME_LIMIT_S) == 0
    jobs = [get(empty, job_id) for job_id in job_ids]
    assert [job.status for job in jobs] == [Status.READY] * 3
    assert [job.attempt for job in jobs] == [0, 0, 0]


def test_a_command_may_use_the_second_signal_to_finish(empty: Path, tmp_path: Path) -> None:
    (job_id,) = add(empty, 1)
    go = tmp_path / "go"
    script = f"trap 'exit 0' TERM; {WAIT_FOR_FILE}"
    with worker(empty, "sh", "-c", script, str(go)) as process:
        eventually(lambda: begun(go))
        ask_to_end(process)
        process.send_signal(signal.SIGINT)
        process.wait(TIME_LIMIT_S)

    assert status(empty, job_id) is Status.DONE


FOR_EVER_THE_SAME = """
from importlib import import_module
from jobq.cli import main

import_module("jobq.cli.work").ECHO_S = float("inf")
main(prog_name="jobq")
"""
"""The command, for which a signal that comes again is the same one however late it comes."""


def has_taken_all_signals(pid: int) -> bool:
    """Whether none is on its way to a process, and its main thread sleeps again."""
    told = Path(f"/proc/{pid}/status").read_text()
    return not int(told.partition("\nShdPnd:")[2].split()[0], 16) and "\nState:\tS" in told


def test_the_same_signal_at_once_is_no_second_one(empty: Path, tmp_path: Path) -> None:
    """`timeout` sends its signal to the worker, and then to the group that the worker is in."""
    (job_id,) = add(empty, 1)
    go = tmp_path / "go"
    words = (sys.executable, "-W", "error", "-c", FOR_EVER_THE_SAME)
    with worker(empty, "sh", "-c", WAIT_FOR_FILE, str(go), words=words) as process:
        eventually(lambda: begun(go))
        ask_to_end(process)
        process.send_signal(signal.SIGTERM)
        for _ in range(5):
            eventually(lambda: has_taken_all_signals(process.pid))
        go.touch()
        _, told = process.communicate(timeout=TIME_LIMIT_S)

    assert b"running commands are ended" not in told
    assert status(empty, job_id) is Status.DONE


@pytest.mark.parametrize(
    ("number", "after_s", "is_second"),
    [
        (signal.SIGTERM, 0.0, False),
        (signal.SIGTERM, 0.999, False),
        (signal.SIGTERM, 1.0, True),
        (signal.SIGHUP, 0.999, False),
        (signal.SIGINT, 0.0, True),  # from somebody's fingers
    ],
)
def test_a_signal_counts_again_after_a_second_and_ctrl_c_at_once(
    number: signal.Signals,
    after_s: float,
    is_second: bool,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    now = 100.0
    monkeypatch.setattr(work, "time", SimpleNamespace(monotonic=lambda: now))
    how = work.How(["true"], None, 1.0, 1.0, "none")
    with jobq.open(":memory:") as svc:
        asked = work.Worker(svc, "mail", how, where="here")
        asked._asked_to_end(number, None)
        assert (svc.stopped, asked._hurry) == (True, False)
        now += after_s
        asked._asked_to_end(number, None)

    assert asked._hurry is is_second
    assert capfd.readouterr().err.count(number.name) == 1 + is_second
    for descriptor in (asked._wake, asked._waker, asked._rung, asked._bell):
        os.close(descriptor)


def test_a_waiting_worker_ends_at_once(empty: Path) -> None:
    with worker(empty, "true") as process:
        assert process.stderr is not None
        assert b"working on 'mail'" in process.stderr.readline()
        began = time.monotonic()
        process.send_signal(signal.SIGTERM)

        assert process.wait(TIME_LIMIT_S) == 0
        assert time.monotonic() - began < SOON_S


def test_ctrl_c_reaches_the_worker_and_not_its_commands(empty: Path, tmp_path: Path) -> None:
    (job_id,) = add(empty, 1)
    go = tmp_path / "go"
    process = subprocess.Popen(
        [
            *COMMAND,
            "--db",
            str(empty),
            "work",
            "mail",
            "--exec",
            "sh",
            "-c",
            WAIT_FOR_FILE,
            str(go),
        ],
        cwd=ROOT,
        env=environment(),
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    with process:
        eventually(lambda: begun(go))
        ask_to_end(process, signal.SIGINT, os.killpg)  # what a terminal does
        go.touch()

        assert process.wait(TIME_LIMIT_S) == 0
    assert status(empty, job_id) is Status.DONE


def test_a_killed_workers_job_is_done_by_another(empty: Path, tmp_path: Path) -> None:
    (job_id,) = add(empty, 1)
    go = tmp_path / "go"
    with worker(empty, "sh", "-c", WAIT_FOR_FILE, str(go)) as first:
        eventually(lambda: begun(go))
        (left_behind,) = children(first.pid)
        first.kill()
        first.wait()
        with worker(empty, "true"):
            eventually(lambda: status(empty, job_id) is Status.DONE)  # its lease is far longer
    os.kill(left_behind, signal.SIGKILL)
    job = get(empty, job_id)
    assert (job.attempt, job.crashes) == (2, 1)


def test_no_zombie_is_left_while_a_worker_waits(empty: Path) -> None:
    job_ids = add(empty, *range(3))
    with worker(empty, "true") as process:
        eventually(lambda: {status(empty, job_id) for job_id in job_ids} == {Status.DONE})
        eventually(lambda: children(process.pid) == [])


# What cannot be.


def test_a_command_that_is_not_there_is_told_before_any_job_is_taken(
    empty: Path, tmp_path: Path
) -> None:
    (job_id,) = add(empty, 1)
    script = tmp_path / "script.sh"
    script.write_text("#!/bin/sh\n")
    missing = run("--db", empty, "work", "mail", "--drain", "--exec", "no-such-command")
    no_path = run("--db", empty, "work", "mail", "--drain", "--exec", str(tmp_path / "none"))
    no_mode = run("--db", empty, "work", "mail", "--drain", "--exec", str(script))
    nothing = run("--db", empty, "work", "mail", "--drain")

    assert [missing.returncode, no_path.returncode] == [3, 3]
    assert b"there is no command 'no-such-command'" in missing.stderr
    assert (no_mode.returncode, b"chmod +x" in no_mode.stderr) == (1, True)
    assert (nothing.returncode, b"--exec" in nothing.stderr) == (2, True)
    assert get(empty, job_id).reserved_at is None


def test_a_script_that_cannot_be_run_ends_the_worker_and_costs_no_try(
    empty: Path, tmp_path: Path
) -> None:
    (job_id,) = add(empty, 1)
    script = tmp_path / "script"
    script.write_bytes(b"\x00\x01 no program")
    script.chmod(0o755)
    ended = run("--db", empty, "work", "mail", "--exec", str(script))
    job = get(empty, job_id)

    assert ended.returncode == 1
    assert b"cannot run" in ended.stderr
    assert (job.status, job.attempt) == (Status.READY, 0)


def test_a_script_whose_interpreter_is_missing_is_told_from_one_that_is(
    empty: Path, tmp_path: Path
) -> None:
    add(empty, 1)
    script = tmp_path / "script"
    script.write_text("#!/nowhere/at/all\n")
    script.chmod(0o755)
    ended = run("--db", empty, "work", "mail", "--exec", str(script))

    assert ended.returncode == 1
    assert b"interpreter" in ended.stderr


def test_a_queue_that_is_pulled_away_ends_the_worker(empty: Path, tmp_path: Path) -> None:
    add(empty, 1)
    go = tmp_path / "go"
    with worker(empty, "sh", "-c", WAIT_FOR_FILE, str(go)) as process:
        eventually(lambda: begun(go))
        shutil.rmtree(empty)
        go.touch()

        assert process.wait(TIME_LIMIT_S) == 5


@pytest.mark.parametrize(
    "option",
    [["-n", "0"], ["--timeout", "soon"], ["--max-jobs", "0"], ["--result", "xml"], ["--no-such"]],
)
def test_wrong_options_are_a_wrong_command(empty: Path, option: list[str]) -> None:
    assert call("--db", empty, "work", "mail", *option, "--exec", "true").exit_code == 2


# A run by itself.


def orders(*vector: str, **more: Any) -> Orders:
    lines: list[tuple[str, str]] = more.pop("lines", [])
    defaults: dict[str, Any] = {
        "env": dict(os.environ),
        "stdin": b"",
        "timeout": None,
        "grace": 5.0,
        "on_line": lambda stream, line: lines.append((stream, line)),
        "look": lambda: None,
    }
    return Orders(vector, **{**defaults, **more})


@pytest.fixture
def silent() -> Iterator[int]:
    """A descriptor that never becomes readable."""
    reader, writer = os.pipe()
    yield reader
    os.close(reader)
    os.close(writer)


def test_without_pidfds_the_end_is_noticed_all_the_same(
    silent: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_pidfd(_: int) -> int:
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr(os, "pidfd_open", no_pidfd)
    lines: list[tuple[str, str]] = []
    ended = child.run(
        orders("sh", "-c", "exec 1>&- 2>&-; sleep 0.2; exit 7", wake=silent, lines=lines)
    )

    assert (ended.status, ended.why) == (7, None)


def test_a_run_that_fails_inside_leaves_no_process(silent: int) -> None:
    pids: list[int] = []

    def fail(_: str, line: str) -> None:
        pids.append(int(line))
        raise RuntimeError("the log cannot be written")

    with pytest.raises(RuntimeError):
        child.run(orders("sh", "-c", "echo $$; sleep 60", wake=silent, on_line=fail))
    assert not is_alive(pids[0])


def test_the_reason_of_an_end_from_outside_is_told(silent: int) -> None:
    ended = child.run(orders("sleep", "60", wake=silent, look=lambda: Why.LOST))

    assert (ended.status, ended.why) == (-signal.SIGTERM, Why.LOST)


def test_lines_that_are_too_long_come_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(child, "LONGEST_LINE", 4)
    lines = Lines()

    assert list(lines.add(b"123456789\n12\n\n1234")) == [b"1234", b"5678", b"9", b"12", b""]
    assert list(lines.add(b"5")) == [b"1234"]
    assert list(lines.rest()) == [b"5"]
