"""Mixed load for as long as is asked for, with kills and stops: nothing grows, nothing is lost.

JOBQ_SOAK_S says how many seconds, in the long form; an hour is `JOBQ_SOAK_S=3600`.
"""

import faulthandler
import os
import random
import shutil
import signal
import statistics
import time
from contextlib import suppress
from pathlib import Path
from typing import Final

import pytest

import jobq
from jobq import JobService, StoreLocked
from tests.conftest import eventually
from tests.crash.conftest import Say
from tests.crash.processes import Child, Start
from tests.torture.kills.lives import EMPTY, Hand, Scene
from tests.torture.kills.sea import Sea
from tests.torture.kills.soaking import (
    FIRST_NUMBER,
    MOST,
    SCRATCH,
    Sample,
    growing,
    sample,
    work_in_coroutines,
    work_in_threads,
)
from tests.torture.kills.zygote import Gale

SHORT_S: Final = 2.0
LONG_S: Final = float(os.environ.get("JOBQ_SOAK_S", "60"))
LEASE_S: Final = 7200.0
KEEP_S: Final = 5.0
STOP_S: Final = 0.4
"""A process that works all the time is stopped for so long at most, now and then."""
AFTERWARDS_S: Final = 240.0


@pytest.mark.parametrize(
    "for_s", [SHORT_S, pytest.param(LONG_S, id="long", marks=pytest.mark.storm)]
)
def test_nothing_grows_and_nothing_is_lost_in_a_long_time_of_mixed_work(
    for_s: float, start: Start, tmp_path: Path, seed: int, say: Say
) -> None:
    faulthandler.dump_traceback_later(for_s + AFTERWARDS_S, exit=True, file=2)
    soak = Soak(start, tmp_path, seed, for_s)
    while time.monotonic() < soak.ends or not soak.sea.kills or not soak.backups:
        soak.look()
    soak.end()
    say(soak.told())

    assert soak.sea.problems == []
    assert growing(soak.samples) == []
    assert soak.sea.kills > 0
    assert soak.backups > 0


@pytest.mark.parametrize("name", Sample._fields)
def test_what_grows_is_noticed_and_so_is_what_is_too_much(name: str) -> None:
    least, most = Sample(*(0 for _ in MOST)), getattr(MOST, name)
    steady = [least._replace(**{name: 0.3 * most + number % 2}) for number in range(60)]
    grows = [least._replace(**{name: 0.9 * most * number / 60}) for number in range(60)]
    too_much = [*steady, least._replace(**{name: most + 1})]

    assert growing(steady) == []
    assert growing(grows)[0].startswith(f"{name} grows")
    assert growing(too_much)[0].startswith(f"{name} came to")


def test_who_is_asked_to_end_while_it_waits_for_a_job_ends(tmp_path: Path, seed: int) -> None:
    scene = Scene(str(tmp_path / "queue"), tmp_path / "notes", tmp_path / "enough", LEASE_S, KEEP_S)
    with scene.open() as svc:
        jid = svc.enqueue(EMPTY)
        svc.stop()
        for number in range(20):  # half of them wait for another one
            Hand(scene, svc, 1, 0, seed + number).wait(jid)


class Soak:
    """Four processes that work all the time, two that are killed, and who watches them.

    Attributes:
        ends: When it is time to end it, on the clock of `time.monotonic`.
        backups: How many were made, and found whole.
    """

    def __init__(self, start: Start, directory: Path, seed: int, for_s: float) -> None:
        self.samples: list[Sample] = []
        self.backups = 0
        self._directory = directory
        self._chance = random.Random(seed)
        self._queue = directory / "queue"
        scene = Scene(str(self._queue), directory / "notes", directory / "enough", LEASE_S, KEEP_S)
        gale = Gale(crew=2, every_s=0.3, stops=0.3, stop_s=STOP_S)
        self.sea = Sea(scene, gale, start, self._chance.randrange(2**32))
        self._workers: list[Child] = [
            start(work, scene, FIRST_NUMBER + number, self._chance.randrange(2**32))
            for number, work in enumerate([work_in_threads] * 3 + [work_in_coroutines])
        ]
        for worker in self._workers:
            worker.hear()  # it has begun
        self._waits: list[float] = []
        self._waited = 0
        self._stops = 0
        self._every_s = min(1.0, for_s / 6)
        self._backup_every_s = max(self._every_s, min(20.0, for_s / 5))
        self._next_backup = time.monotonic()
        self.ends = time.monotonic() + for_s

    def look(self) -> None:
        """Watch for a while, stop somebody, and look at everything."""
        stopped = self._stop_somebody()
        until = time.monotonic() + self._every_s
        while time.monotonic() < until:
            time.sleep(min(self._every_s, self._chance.uniform(0.0, STOP_S)))
            if stopped is not None:
                stopped.signal(signal.SIGCONT)
                stopped = None
            self.sea.watch()
        self._listen()
        pids = [worker.pid for worker in self._workers]
        self.samples.append(sample(self._queue, self.sea.svc, pids, self._waits))
        self._waited += len(self._waits)
        self._waits = []
        if time.monotonic() >= self._next_backup:
            self._next_backup += self._backup_every_s
            self._back_up()

    def end(self) -> None:
        """Let all end by themselves, and judge."""
        for worker in self._workers:
            worker.tell("end")
        for worker in self._workers:
            while worker.hear() != "ended":
                pass
            assert worker.ended() == 0
        self.sea.calm()
        self.sea.svc.purge(SCRATCH)
        self.sea.settle()
        self.sea.svc.prune()
        self.sea.svc.close()
        self._must_be_tidy()

    def told(self) -> str:
        """The figures: of the first, the second and the last third."""
        lines = []
        for name in Sample._fields:
            values = [getattr(one, name) for one in self.samples]
            third = max(1, len(values) // 3)
            parts = (values[:third], values[third : 2 * third] or values, values[-third:])
            medians = ", ".join(f"{statistics.median(part):.4g}" for part in parts)
            lines.append(f"{name}: {medians}; at most {max(values):.4g}")
        head = f"{self._stops} long-lived ones stopped; {self.backups} backups; "
        waits = f"{self._waited} waits for the lock"
        return "\n  ".join([head + self.sea.told(), waits, *lines])

    def _stop_somebody(self) -> Child | None:
        if self._chance.random() < 0.3:
            worker = self._chance.choice(self._workers)
            worker.signal(signal.SIGSTOP)
            self._stops += 1
            return worker
        return None

    def _listen(self) -> None:
        for worker in self._workers:
            while worker.heard():
                self._waits += worker.hear()

    def _back_up(self) -> None:
        """Make a copy and look at it; nobody may put another file in the queue's place."""
        copy = self._directory / "copy"
        self.sea.svc.backup(copy)
        jobq.restore(copy, self._directory / "restored")
        with jobq.open(self._directory / "restored") as restored:
            self.sea.problems += restored.check().problems
        copy.unlink()
        shutil.rmtree(self._directory / "restored")
        with suppress(StoreLocked):
            jobq.compact(self._queue)
            self.sea.problems.append("a queue that is in use was compacted")
        self.backups += 1

    def _must_be_tidy(self) -> None:
        """Nothing is left of all who worked; and the file can be made small."""
        before = (self._queue / "data.mdb").stat().st_size
        jobq.compact(self._queue)
        after = (self._queue / "data.mdb").stat().st_size
        with jobq.open(self._queue) as svc:
            self.sea.problems += svc.check().problems
            eventually(lambda: not self._left_over(svc))
        if after > before:
            self.sea.problems.append(f"compacted, the file has {after} bytes, and had {before}")

    def _left_over(self, svc: JobService) -> int:
        """How many files there are of processes that are gone, when somebody has waited a while."""
        svc.reserve(EMPTY, timeout=0.1)
        last = sample(self._queue, svc, [os.getpid()], [])
        return last.holders + last.leftovers
