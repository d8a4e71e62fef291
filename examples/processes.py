"""Several processes share a queue, and one of them is killed with a job in its hands.

All that they share is a directory. There is no server, and nobody repairs anything: the jobs of a
process that dies are ready again within a few seconds.

    python examples/processes.py

Prints:
a worker died of SIGKILL
30 of 30 jobs are done
handed out again: orange 7, at attempt 2
"""

import multiprocessing
import os
import signal
import tempfile
from collections.abc import Callable
from multiprocessing.context import SpawnProcess
from pathlib import Path

import jobq

TOPIC = "fruit"
SPAWN = multiprocessing.get_context("spawn")
"""As separate programs would be; jobq goes along with `fork` as well."""


def produce(path: Path, fruit: str) -> None:
    with jobq.open(path) as svc:
        for number in range(10):
            svc.enqueue(TOPIC, f"{fruit} {number}")


def work(path: Path) -> None:
    with jobq.open(path) as svc:
        signal.signal(signal.SIGTERM, lambda _number, _frame: svc.stop())
        for job in svc.consume(TOPIC):
            with job:
                if job.payload == "orange 7" and job.crashes == 0:
                    os.kill(os.getpid(), signal.SIGKILL)  # the out-of-memory killer, say
                job.done(result=job.payload.upper())


def main(path: Path) -> None:
    workers = [start(work, path) for _ in range(3)]
    producers = [start(produce, path, fruit) for fruit in ("apple", "orange", "pear")]
    for producer in producers:
        producer.join()

    with jobq.open(path) as svc:
        records = [svc.wait(found.id, timeout=30) for found in svc.find(topic=TOPIC, limit=1000)]
        for worker in workers:
            worker.terminate()  # SIGTERM: it ends with the job at hand
            worker.join()
            if worker.exitcode == -signal.SIGKILL:
                print("a worker died of SIGKILL")
        done = [record for record in records if record.result == record.payload.upper()]
        print(len(done), "of", len(records), "jobs are done")
        for record in records:
            if record.crashes:
                print(f"handed out again: {record.payload}, at attempt {record.attempt}")


def start(function: Callable[..., None], *arguments: object) -> SpawnProcess:
    process = SPAWN.Process(target=function, args=arguments)
    process.start()
    return process


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as directory:
        main(Path(directory, "queue"))
