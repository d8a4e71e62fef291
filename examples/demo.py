"""A queue at work: four processes go through Python's standard library, and one of them is killed.

One job for each `.py` file: its SHA-256 and its number of lines. Large files are served first,
some jobs are delayed, some fail on their first attempt. Half way one of the four consumers gets
SIGKILL; nobody repairs anything, and its jobs go to the others. At the end every result is compared
with a direct computation, and what each consumer noted of its own with what the queue says.

    python examples/demo.py              all files
    python examples/demo.py --files 200  only so many

Exit status 1 if a job was lost, done twice, or has a wrong result.
"""

import argparse
import hashlib
import logging
import multiprocessing
import signal
import sys
import sysconfig
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from pathlib import Path

from tqdm import tqdm

import jobq

TOPIC = "files"
CONSUMERS = 4
BATCH = 16
PATIENCE_S = 60.0
"""If nothing at all happens for so long, the run is given up as failed."""


# The consumers: each is a process of its own, and all that they share is the directory.


class Stumble(Exception):
    """What some jobs do on their first attempt."""


def consume(queue: Path, notebook: Path, finished: Connection) -> None:
    """Work until the parent closes its end of *finished*; note every job that was done."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's; it ends us
    logging.getLogger("jobq").setLevel(logging.ERROR)  # or each stumble's traceback is shown
    with jobq.open(queue) as svc, notebook.open("a", buffering=1) as notes:
        while not finished.poll():
            for job in svc.reserve(TOPIC, BATCH, timeout=0.5):
                with job:  # an exception makes it a retry
                    if job.payload["stumbles"] and job.retries == 0:
                        raise Stumble(job.payload["path"])
                    job.done(examine(Path(job.payload["path"])))
                    notes.write(f"{job.id}\n")  # only now: `done` has returned


def examine(path: Path) -> dict[str, str | int]:
    """The result of one job."""
    content = path.read_bytes()
    return {"sha256": hashlib.sha256(content).hexdigest(), "lines": content.count(b"\n")}


# The parent: fills the queue, watches, kills, and counts.


def main() -> int:
    """Run it all; 0 if every job was done once and well."""
    options = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    options.add_argument("--files", type=int, metavar="N", help="only the first N files")
    limit = options.parse_args().files

    with tempfile.TemporaryDirectory(prefix="jobq-demo-") as scratch:
        queue = Path(scratch) / "queue"
        notebooks = [Path(scratch) / f"consumer-{number}" for number in range(CONSUMERS)]
        with jobq.open(queue) as svc:
            jobs = enqueue(svc, sorted(standard_library())[:limit])
            seconds = run(svc, queue, notebooks, len(jobs))
            count = audit(svc, jobs, notebooks)
            problems = svc.check().problems
    print(count.table(seconds))
    print(*problems, sep="\n", end="")
    return 0 if count.all_well and not problems else 1


def standard_library() -> Iterator[Path]:
    """Every `.py` file of this Python's standard library, and nothing that was installed later."""
    root = Path(sysconfig.get_path("stdlib"))
    for path in root.rglob("*.py"):
        installed = {"site-packages", "dist-packages"} & set(path.relative_to(root).parts)
        if not installed and path.is_file():
            yield path


def enqueue(svc: jobq.JobService, files: list[Path]) -> dict[str, Path]:
    """One job for each file, all in one commit: the files by the ids of their jobs."""
    with svc.batch() as batch:
        for number, path in enumerate(files):
            batch.enqueue(
                TOPIC,
                {"path": str(path), "stumbles": number % 15 == 7},
                weight=-min(path.stat().st_size // 1024, 1000),  # lower is served first
                delay=number % 9 / 10 if number % 5 == 0 else None,
                min_backoff=0.05,
                max_backoff=0.5,
            )
    return dict(zip(batch.ids, files, strict=True))


def run(svc: jobq.JobService, queue: Path, notebooks: list[Path], total: int) -> float:
    """Let the consumers work until nothing is left; give the seconds that it took."""
    spawn = multiprocessing.get_context("spawn")
    # A pipe says when to end: unlike an Event it has no lock that a killed process could keep.
    finished, running = spawn.Pipe(duplex=False)
    consumers = [
        spawn.Process(target=consume, args=(queue, notebook, finished)) for notebook in notebooks
    ]
    start = time.monotonic()
    for consumer in consumers:
        consumer.start()
    finished.close()
    try:
        watch(svc, consumers, total)
        return time.monotonic() - start
    finally:
        running.close()
        for consumer in consumers:
            consumer.join(10)
            consumer.kill()


def watch(svc: jobq.JobService, consumers: list[SpawnProcess], total: int) -> None:
    """Show how it goes, and kill a consumer half way. Returns when nothing is left to do."""
    victim: SpawnProcess | None = None
    last_change = time.monotonic()
    with tqdm(total=total, unit="job", desc="done", mininterval=0.1) as bar:
        while bar.n < total:
            counts = svc.stats(TOPIC).totals
            if victim is None and counts.done >= total // 2:
                victim = consumers[0]
                victim.kill()
                bar.write(f"{counts.done} of {total} done: consumer {victim.pid} gets SIGKILL")
            if counts.done > bar.n:
                last_change = time.monotonic()
            bar.set_postfix_str(
                f"ready={counts.ready}, delayed={counts.delayed}, reserved={counts.reserved}",
                refresh=False,
            )
            bar.update(counts.done - bar.n)
            if counts.unfinished == 0 or time.monotonic() - last_change > PATIENCE_S:
                return
            if not any(consumer.is_alive() for consumer in consumers):
                return
            time.sleep(0.05)


@dataclass(frozen=True)
class Count:
    """What became of the jobs."""

    jobs: int
    done: int
    redelivered: int
    retried: int
    lost: int
    done_twice: int
    wrong: int

    @property
    def all_well(self) -> bool:
        """Every job was done, once, with the right result."""
        return self.done == self.jobs and not (self.lost or self.done_twice or self.wrong)

    def table(self, seconds: float) -> str:
        """The counts, one a line."""
        rows = {
            "jobs": self.jobs,
            "done": self.done,
            "redelivered after the kill": self.redelivered,
            "retried": self.retried,
            "lost": self.lost,
            "done twice": self.done_twice,
            "wrong results": self.wrong,
            "rate (jobs per second)": round(self.done / seconds),
        }
        return "\n".join(f"{name:<27}{number:>7,}" for name, number in rows.items())


def audit(svc: jobq.JobService, jobs: dict[str, Path], notebooks: list[Path]) -> Count:
    """Compare what the queue says with the files themselves and with the consumers' notes."""
    records = {record.id: record for record in every_record(svc)}
    done = {jid: record for jid, record in records.items() if record.status is jobq.Status.DONE}
    noted = Counter(
        line for notebook in notebooks if notebook.exists() for line in notebook.read_text().split()
    )
    return Count(
        jobs=len(jobs),
        done=len(done.keys() & jobs.keys()),
        redelivered=sum(record.crashes > 0 for record in records.values()),
        retried=sum(record.retries > 0 for record in records.values()),
        # Also what a consumer was told is done, and the queue does not know as done.
        lost=len((jobs.keys() | noted.keys()) - done.keys()),
        done_twice=sum(times > 1 for times in noted.values()),
        wrong=sum(record.result != examine(jobs[jid]) for jid, record in done.items()),
    )


def every_record(svc: jobq.JobService) -> Iterator[jobq.JobRecord]:
    """All jobs, page by page."""
    after = None
    while page := svc.find(topic=TOPIC, after=after, limit=500):
        yield from page
        after = page[-1].id


if __name__ == "__main__":
    sys.exit(main())
