"""A warm process that forks others to be killed: it has jobq imported, and no queue open.

An interpreter takes 100 ms to start, and a fork of this one a millisecond: so processes can die by
the hundred in a second, and each has still worked before.
"""

import gc
import os
import random
import signal
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from tests.crash.processes import Failure, Pipe, die_with_parent
from tests.torture.kills.ledger import Kind, Ledger

Life = Callable[[int, random.Random], object]
"""What a process does: gets its number, and a chance of its own."""


class Gale(NamedTuple):
    """How hard it blows.

    Attributes:
        crew: So many processes live at a time.
        every_s: Seconds from one kill to the next, on average.
        stops: The chance that a process is stopped where it would be killed.
        stop_s: For so long at most.
    """

    crew: int
    every_s: float
    stops: float = 0.0
    stop_s: float = 0.0


class Blown(NamedTuple):
    """What was done to the crew."""

    kills: int
    stops: int


class Zygote:
    """Forks processes, kills and stops some, and notes the kills. One thread, no queue open."""

    def __init__(self, pipe: Pipe, notes: Path, seed: int) -> None:
        self._pipe = pipe
        self._chance = random.Random(seed)
        self._ledger = Ledger(notes)
        self._crew: dict[int, int] = {}
        self._dying: dict[int, int] = {}
        self._stopped: dict[int, float] = {}
        self._born = 0
        self._done = Blown(0, 0)
        gc.collect()
        gc.freeze()  # a child that collects garbage copies the pages of all that is older

    def blow(self, gale: Gale, lives: list[Life]) -> Blown:
        """Kill and stop until something comes through the pipe; then kill all that are left.

        Args:
            gale: How hard it blows.
            lives: What the processes do, each of them one by chance.
        """
        self._fill(gale.crew, lives)
        at = time.monotonic()
        while True:
            at = max(at + self._chance.expovariate(1 / gale.every_s), time.monotonic())
            if self._pipe.poll(max(0.0, at - time.monotonic())):
                break
            self._continue(time.monotonic())
            victim = self._chance.choice(list(self._crew))
            if self._chance.random() < gale.stops:
                self._stop(victim, gale.stop_s)
            else:
                self._kill([victim])
                self._fill(gale.crew, lives)
            self._look_after()
        self._kill_all()
        return self._done

    def rest(self, crew: int, lives: list[Life]) -> None:
        """Let some live undisturbed until something comes through the pipe; then kill them."""
        self._fill(crew, lives)
        while not self._pipe.poll(0.05):
            self._look_after()
        self._kill_all()

    def _fill(self, crew: int, lives: list[Life]) -> None:
        while len(self._crew) < crew:
            self._born += 1
            number, life = self._born, self._chance.choice(lives)
            seed = self._chance.randrange(2**32)
            pid = os.fork()
            if not pid:
                self._live(life, number, seed)
            self._crew[pid] = number

    def _live(self, life: Life, number: int, seed: int) -> None:
        try:
            die_with_parent()
            self._ledger.of(Kind.BORN, number, os.getpid())
            self._ledger.close()
            life(number, random.Random(seed))
        except BaseException:  # noqa: BLE001 - told to the test
            with suppress(OSError):
                self._pipe.send(Failure(traceback.format_exc()))
        finally:
            os._exit(1)

    def _kill(self, victims: list[int]) -> None:
        """Not waiting for their death: a busy machine takes its time with that."""
        for pid in victims:
            number = self._crew.pop(pid)
            self._ledger.of(Kind.KILL, number, pid)
            os.kill(pid, signal.SIGKILL)
            self._dying[pid] = number
            self._stopped.pop(pid, None)
        self._done = self._done._replace(kills=self._done.kills + len(victims))

    def _stop(self, pid: int, longest_s: float) -> None:
        os.kill(pid, signal.SIGSTOP)
        self._stopped[pid] = time.monotonic() + self._chance.uniform(0.0, longest_s)
        self._done = self._done._replace(stops=self._done.stops + 1)

    def _continue(self, now: float) -> None:
        for pid in [pid for pid, until in self._stopped.items() if until <= now]:
            os.kill(pid, signal.SIGCONT)
            del self._stopped[pid]

    def _look_after(self) -> None:
        """Reap who is dead. Nobody ends by himself: then jobq has raised, or worse."""
        while self._crew or self._dying:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if not pid:
                return
            code = os.waitstatus_to_exitcode(status)
            number = self._dying.pop(pid, None) or self._crew[pid]
            if code != -signal.SIGKILL:
                raise AssertionError(f"process {number} ended by itself with {code}")

    def _kill_all(self) -> None:
        self._kill(list(self._crew))
        while self._dying:
            self._look_after()
            time.sleep(0.001)
