"""From `queue.Queue` to jobq in four steps. Each is a whole program; what is new has a comment.

    python examples/from_queue.py

Prints:
1. queue.Queue
mail to ann
mail to bob
mail to eve
2. jobq, in memory
mail to ann
mail to bob
mail to eve
3. jobq, in a directory: the program ends in the middle, and is started again
mail to ann
started again
mail to bob
mail to eve
4. jobq, with retries and two workers
ann: mail to ann, at attempt 1
bob: mail to bob, at attempt 2
eve: mail to eve, at attempt 1
"""

import logging
import queue
import tempfile
import threading
from pathlib import Path

import jobq

NAMES = ["ann", "bob", "eve"]


def step_1() -> None:
    print("1. queue.Queue")
    work: queue.Queue[str | None] = queue.Queue()
    for name in [*NAMES, None]:
        work.put(name)
    while (name := work.get()) is not None:
        print("mail to", name)
        work.task_done()


def step_2() -> None:
    print("2. jobq, in memory")
    with jobq.open(":memory:") as svc:
        svc.enqueue_many("mail", NAMES)  # a queue has many topics; "mail" is one
        for job in svc.consume("mail", timeout=0):  # ends when there is nothing: no None is needed
            with job:  # at its end the job is done
                print("mail to", job.payload)


def step_3(path: Path) -> None:
    print("3. jobq, in a directory: the program ends in the middle, and is started again")
    with jobq.open(path) as svc:  # a directory; made if it is not there
        svc.enqueue_many("mail", NAMES)  # on the disk when this returns
        for job in svc.consume("mail", timeout=0):
            with job:
                print("mail to", job.payload)
            break  # a deployment, a crash, a power cut

    print("started again")
    with jobq.open(path) as svc:  # what was not done is still there
        for job in svc.consume("mail", timeout=0):
            with job:
                print("mail to", job.payload)


def step_4(path: Path) -> None:
    print("4. jobq, with retries and two workers")
    # A failed job comes back up to three times, after 0.01, 0.02 and 0.04 s.
    with jobq.open(path, max_retries=3, min_backoff=0.01) as svc:
        svc.enqueue_many("mail", NAMES)
        workers = [threading.Thread(target=work, args=(svc,)) for _ in range(2)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        for record in svc.find(status="done"):  # finished jobs and results are kept for a day
            print(f"{record.payload}: {record.result}, at attempt {record.attempt}")


def work(svc: jobq.JobService) -> None:
    for job in svc.consume("mail", timeout=0.5):  # ends when no job came for half a second
        with job:  # an exception is logged and kept, and the job is tried again later
            if job.payload == "bob" and job.attempt == 1:
                raise ConnectionError("no route to bob")
            job.done(result=f"mail to {job.payload}")


if __name__ == "__main__":
    logging.basicConfig(level=logging.ERROR)  # a retry is a warning; see it with WARNING
    step_1()
    step_2()
    with tempfile.TemporaryDirectory() as directory:
        step_3(Path(directory, "step 3"))
        step_4(Path(directory, "step 4"))
