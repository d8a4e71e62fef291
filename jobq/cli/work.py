"""`jobq work`: a worker whose jobs are runs of a command, in whatever language."""

import contextlib
import errno
import itertools
import json
import os
import select
import shutil
import signal
import sys
import threading
import time
from collections.abc import Generator, Iterator
from dataclasses import dataclass, replace
from types import FrameType
from typing import Any, Final, cast

import click

from jobq.cli.child import Ended, Orders, Why, run
from jobq.cli.context import (
    FAILED,
    NOT_FOUND,
    absolute,
    open_queue,
    point_to_nowhere,
    queue_path,
    refuse,
)
from jobq.cli.ending import SIGNALS
from jobq.cli.mix import shown_topics, topics_of
from jobq.cli.options import duration
from jobq.cli.plain import plain
from jobq.cli.render import count, printable, shortened
from jobq.cli.render import duration as shown_duration
from jobq.errors import InvalidValue, ReservationLost, StoreCorrupt
from jobq.service import Job, JobService
from jobq.shares import Topics

DONE: Final = 0
RELEASE: Final = 75
"""EX_TEMPFAIL of sysexits.h: not now, and not the job's fault."""

LONGEST_VARIABLE: Final = 128 * 1024 - len("JOBQ_PAYLOAD=") - 1
"""Bytes of an environment variable's value, from Linux's limit of 32 pages for each."""

LONGEST_LINE: Final = 500
LONGEST_TAIL: Final = 4000
"""Characters of a line, and of all, of the stderr that an error has. Of a longer error than 16 KiB
the store keeps the end only; how the command ended stands at its head."""

ECHO_S: Final = 1.0
"""Seconds within which the first signal that comes again is still the first one: `timeout` sends it
to the worker, and then to the group that the worker is in. Ctrl-C comes from somebody's fingers."""

LOST: Final = "canceled meanwhile, or its lease was over: nothing was said of it"

_MARKS: Final = ("--exec", "--")


class Work(click.Command):
    """A command line that ends with another one."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Cut off the other command line before the options are looked for."""
        mine = list(itertools.takewhile(lambda arg: arg not in _MARKS, args))
        rest = args[len(mine) + 1 :]
        if args[len(mine) : len(mine) + 1] == ["--exec"] and rest[:1] == ["--"]:
            rest = rest[1:]
        ctx.meta["jobq.vector"] = rest
        return super().parse_args(ctx, mine)

    def collect_usage_pieces(self, ctx: click.Context) -> list[str]:
        """The usage line."""
        return [*super().collect_usage_pieces(ctx), "--exec", "COMMAND", "[ARG]..."]


@click.command(
    cls=Work,
    epilog="The worker ends with 0 when it was told to end, or has done all it should; with 1 "
    "when the command cannot be run, 3 when there is none, 5 when the queue cannot be used.",
)
@click.argument("named", metavar="[TOPIC[=SHARE]]...", nargs=-1)
@click.option(
    "--pattern",
    "-p",
    "patterns",
    metavar="GLOB[=SHARE]",
    multiple=True,
    help="All topics whose names are like this, also new ones: 'mail.*'. Several times at will.",
)
@click.option(
    "--strict", is_flag=True, help="Drain the first topic before the second, patterns last."
)
@click.option(
    "--concurrency",
    "-n",
    type=click.IntRange(1, 1000),
    default=1,
    show_default=True,
    help="How many jobs are worked on at a time.",
)
@click.option(
    "--timeout", type=duration, metavar="DURATION", help="End a command that takes longer: retry."
)
@click.option(
    "--grace",
    type=duration,
    metavar="DURATION",
    default="10s",
    show_default=True,
    help="From SIGTERM to SIGKILL when a command is ended.",
)
@click.option("--drain", is_flag=True, help="End when no job is ready.")
@click.option("--max-jobs", type=click.IntRange(min=1), help="End after so many jobs.")
@click.option(
    "--release-delay",
    type=duration,
    metavar="DURATION",
    default="1s",
    show_default=True,
    help="Until a job is ready again whose command ended with 75.",
)
@click.option(
    "--result",
    type=click.Choice(["none", "text", "json"]),
    default="none",
    show_default=True,
    help="Keep the last line of stdout as the job's result.",
)
@click.option("--quiet", "-q", is_flag=True, help="Print no output of commands, and no progress.")
@click.pass_context
def work(
    ctx: click.Context,
    /,
    named: tuple[str, ...],
    *,
    patterns: tuple[str, ...],
    strict: bool,
    concurrency: int,
    timeout: float | None,
    grace: float,
    drain: bool,
    max_jobs: int | None,
    release_delay: float,
    result: str,
    quiet: bool,
) -> None:
    """Run COMMAND for each job of the topics.

    Several topics are served in turns: as often one as the other, or by their shares, which stand
    behind their names: mail=5 import=1. What one has not, the others get.

    All that follows --exec (or --) is the command and its arguments; no shell looks at them. It
    gets the payload as JSON on stdin, and in JOBQ_PAYLOAD if that has less than 128 KiB; JOBQ_ID,
    JOBQ_TOPIC, JOBQ_ATTEMPT and JOBQ_DB tell the rest. What it prints is kept in the job's log.

    Exit status 0 means done, 75 release (again in a moment, not counted as a try); with any
    other, and when a signal kills it, the job is retried with the tail of stderr as its error.

    SIGINT, SIGTERM or SIGHUP: no more jobs are begun, and the worker ends with its last running
    command. A second one ends the commands too, and their jobs are released.
    """
    vector = ctx.meta["jobq.vector"]
    if not vector:
        raise click.UsageError("which command? Give it after --exec, with its arguments", ctx)
    topics = topics_of(ctx, named, patterns, strict=strict)
    _look_for(ctx, vector[0])
    how = How(vector, timeout, grace, release_delay, result)
    with open_queue(ctx) as svc:
        worker = Worker(
            svc,
            topics,
            how,
            strict=strict,
            where=absolute(queue_path(ctx)),
            drain=drain,
            most=max_jobs,
            quiet=quiet,
        )
        try:
            worker.run(concurrency)
        except CannotRun as error:
            refuse(ctx, str(error))


@dataclass(frozen=True, slots=True)
class How:
    """How each job is worked on: the options of `work` of the same names."""

    vector: list[str]
    timeout: float | None
    grace: float
    release_delay: float
    result: str


class CannotRun(Exception):
    """The command cannot be started: no job can be worked on."""


class Worker:
    """Threads that each run one command at a time."""

    def __init__(
        self,
        svc: JobService,
        topics: Topics,
        how: How,
        *,
        strict: bool = False,
        where: str,
        drain: bool = False,
        most: int | None = None,
        quiet: bool = False,
    ) -> None:
        self._svc = svc
        self._topics = topics
        self._strict = strict
        self._how = how
        self._where = where
        self._drain = drain
        self._left = most
        self._quiet = quiet
        self._lock = threading.Lock()
        self._echo: tuple[int, float] = (0, 0.0)  # of which signal, until when
        self._errors: list[BaseException] = []
        self._running = 0
        self._hurry = False
        # Becomes readable, and stays so, when running commands have to be ended.
        self._wake, self._waker = os.pipe()
        # What the main thread waits at: signals and ending threads ring. To join a thread would
        # not do: a signal that comes just before the wait for its lock is noticed at the next one.
        self._rung, self._bell = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)

    def run(self, concurrency: int) -> None:
        """Work until told to end, or until there is nothing to do any more.

        Raises:
            CannotRun: The command cannot be started.
            JobqError: The queue cannot be used.
            OSError: What there is to say cannot be printed.
        """
        threads = [
            threading.Thread(target=self._loop, name=f"jobq-work-{number}", daemon=True)
            for number in range(concurrency)
        ]
        at_a_time = f"{count(concurrency, 'job')} at a time"
        try:
            with self._signals():
                self._tell(f"working on {shown_topics(self._topics)} in {self._where}, {at_a_time}")
                self._running = concurrency
                for thread in threads:
                    thread.start()
                while self._running:
                    select.select([self._rung], [], [])
                    os.read(self._rung, 4096)
                for thread in threads:
                    thread.join()
        finally:
            for descriptor in (self._wake, self._waker, self._rung, self._bell):
                os.close(descriptor)
        if self._errors:
            raise self._errors[0]

    # Ending.

    @contextlib.contextmanager
    def _signals(self) -> Iterator[None]:
        """Take signals as requests to end; those that are ignored (nohup, `&`) stay ignored."""
        before = {}
        bell = signal.set_wakeup_fd(self._bell, warn_on_full_buffer=False)
        for number in SIGNALS:
            if signal.getsignal(number) is not signal.SIG_IGN:
                before[number] = signal.signal(number, self._asked_to_end)
        try:
            yield
        finally:
            signal.set_wakeup_fd(bell)
            for number, handler in before.items():
                signal.signal(number, handler)

    def _asked_to_end(self, number: int, _: FrameType | None) -> None:
        name = signal.Signals(number).name
        kind, until = self._echo
        if number == kind and time.monotonic() < until:
            return
        if not kind and number != signal.SIGINT:
            self._echo = (number, time.monotonic() + ECHO_S)
        if not self._svc.stopped:
            self._svc.stop()
            said = f"jobq: {name}: no more jobs are begun; once more ends running commands\n"
        else:
            self._hurry = True
            os.write(self._waker, b"!")
            said = f"jobq: {name}: running commands are ended, and their jobs released\n"
        with contextlib.suppress(OSError):  # not through sys.stderr: it may be in use right now
            os.write(2, said.encode())

    # A thread.

    def _loop(self) -> None:
        try:
            self._work_on_jobs()
        except BaseException as error:  # noqa: BLE001 - `run` raises it
            self._errors.append(error)
            self._svc.stop()
        finally:
            with self._lock:
                self._running -= 1
            with contextlib.suppress(BlockingIOError):  # full: it is rung already
                os.write(self._bell, b"!")

    def _work_on_jobs(self) -> None:
        timeout = 0 if self._drain else None
        jobs = self._svc.consume(self._topics, strict=self._strict, timeout=timeout)
        with contextlib.closing(cast("Generator[Job, None, None]", jobs)):
            while self._may_begin():
                job = next(jobs, None)
                if job is None:
                    self._not_begun()
                    return
                self._work_on(job)

    def _may_begin(self) -> bool:
        with self._lock:
            if self._left is None:
                return True
            self._left -= 1
            return self._left >= 0

    def _not_begun(self) -> None:
        with self._lock:
            if self._left is not None:
                self._left += 1

    def _work_on(self, job: Job) -> None:
        try:
            payload = json.dumps(plain(job.payload))
        except StoreCorrupt as error:
            job.cancel("rejected", error=error)
            self._tell_of(job, f"rejected: {error}")
            return
        began = time.monotonic()
        try:
            ended = self._run(job, payload)
        except OSError as error:
            job.release()
            raise CannotRun(_why_not_run(self._how.vector[0], error)) from error
        try:
            became = self._settle(job, ended)
        except ReservationLost:
            became = LOST
        self._tell_of(job, f"{became} ({shown_duration(time.monotonic() - began)})")

    def _run(self, job: Job, payload: str) -> Ended:
        def look() -> Why | None:
            if self._hurry:
                return Why.STOPPED
            return Why.LOST if job.canceled else None

        orders = Orders(
            self._how.vector,
            self._environment(job, payload),
            f"{payload}\n".encode(),
            self._how.timeout,
            self._how.grace,
            lambda stream, line: self._heard(job, stream, line),
            look,
            self._wake,
        )
        try:
            return run(orders)
        except OSError as error:
            if error.errno != errno.E2BIG:
                raise
            # All of the environment has a limit too: what is on stdin need not be there.
            env = {name: value for name, value in orders.env.items() if name != "JOBQ_PAYLOAD"}
            return run(replace(orders, env=env))

    def _environment(self, job: Job, payload: str) -> dict[str, str]:
        env = {
            **os.environ,
            "JOBQ_DB": self._where,
            "JOBQ_ID": job.id,
            "JOBQ_TOPIC": job.topic.replace("\0", "\N{REPLACEMENT CHARACTER}"),  # it cannot hold it
            "JOBQ_ATTEMPT": str(job.attempt),
        }
        env.pop("JOBQ_PAYLOAD", None)
        if len(payload) <= LONGEST_VARIABLE:  # ASCII
            env["JOBQ_PAYLOAD"] = payload
        return env

    def _settle(self, job: Job, ended: Ended) -> str:
        """Say of the job what its command has said; gives that in a word for people."""
        by_itself = ended.why is None or ended.why is Why.STOPPED  # it may still have finished
        if ended.why is Why.LOST:
            return LOST
        if by_itself and ended.status == DONE:
            return self._done(job, ended.last)
        if by_itself and ended.status == RELEASE:
            job.release(self._how.release_delay)
            return "released"
        if ended.why is Why.STOPPED:
            job.release()
            return "released: the worker ends"
        error = _what_went_wrong(ended, self._how.timeout)
        job.retry(error=error)
        return f"retry: {error.splitlines()[0]}"

    def _done(self, job: Job, last: str | None) -> str:
        if self._how.result == "none" or last is None:
            with job:  # committed together with the next reservation
                pass
            return "done"
        result: Any = last
        if self._how.result == "json":
            try:
                result = json.loads(last)
            except (ValueError, RecursionError):
                self._note(job, "the last line of stdout is no JSON: it is kept as text")
        try:
            job.done(result)
        except InvalidValue as error:  # the work is done all the same
            self._note(job, f"the result is not kept: {error}")
            job.done()
        return "done"

    # Telling.

    def _heard(self, job: Job, stream: str, line: str) -> None:
        """A line of a command's output: into the job's log, and onto the terminal."""
        job.log(line)
        if not self._quiet:
            self._print(f"{_short(job)} | {printable(line)}", to_stderr=stream == "stderr")

    def _note(self, job: Job, text: str) -> None:
        """What the worker itself has to say of a job."""
        job.log(f"jobq: {text}")
        self._tell_of(job, text)

    def _tell_of(self, job: Job, text: str) -> None:
        self._tell(f"{_short(job)} {text}")

    def _tell(self, text: str) -> None:
        if not self._quiet:
            self._print(f"jobq: {printable(text)}", to_stderr=True)

    def _print(self, line: str, *, to_stderr: bool) -> None:
        try:
            with self._lock:
                click.echo(line, err=to_stderr)
        except OSError as error:
            # The reader of our output has gone, or its disk is full: so should we, without leaving
            # jobs half done.
            self._quiet = True
            self._svc.stop()
            point_to_nowhere(sys.stderr if to_stderr else sys.stdout)
            if not isinstance(error, BrokenPipeError):
                self._errors.append(error)  # `run` raises it


def _look_for(ctx: click.Context, command: str) -> None:
    """Refuse a command that is not there before any job is taken."""
    if shutil.which(command) is not None:
        return
    if os.path.sep in command and os.path.exists(command):  # noqa: PTH110 - as `which` looks
        refuse(ctx, f"{command!r} is no executable file: `chmod +x` makes one of a script", FAILED)
    refuse(
        ctx,
        f"there is no command {command!r}: give --exec a program on PATH, or the path of an "
        "executable file",
        NOT_FOUND,
    )


def _why_not_run(command: str, error: OSError) -> str:
    """Why a command cannot be started that was there when the worker was."""
    why = f"cannot run {command!r}: {error.strerror}"
    if isinstance(error, FileNotFoundError) and shutil.which(command) is not None:
        why += "; it is there, so its first line (#!) names an interpreter that is not"
    return why


def _what_went_wrong(ended: Ended, timeout: float | None) -> str:
    """The error of a job whose command has failed: how it ended, and the tail of its stderr."""
    if ended.why is Why.TIMEOUT:
        assert timeout is not None
        how = f"timeout: ended after {timeout:g} seconds"
    elif ended.status < 0:
        try:
            name = signal.Signals(-ended.status).name
        except ValueError:  # a real-time signal
            name = f"signal {-ended.status}"
        how = f"killed by {name}"
    else:
        how = f"exit status {ended.status}"
    tail = "\n".join(shortened(line, LONGEST_LINE) for line in ended.errors)
    return f"{how}\n{tail[-LONGEST_TAIL:]}".rstrip()


def _short(job: Job) -> str:
    """Enough of an id to tell the jobs of a moment apart: its end."""
    return job.id[-8:]
