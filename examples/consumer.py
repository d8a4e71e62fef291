"""A worker that runs until it is told to end: by SIGTERM (systemd, Docker, kill) or Ctrl-C.

It ends with the job at hand. What it has reserved beyond that goes back untried, to the next one.
Run without a directory it shows that: it gets five jobs, and SIGTERM in the third.

    python examples/consumer.py [DIRECTORY]

Prints:
a.png is 100 pixels wide now
b.txt can never be shrunk: rejected
SIGTERM
c.png is 100 pixels wide now
2 jobs wait for the next worker
"""

import os
import signal
import sys
import tempfile
from pathlib import Path

import jobq

TOPIC = "pictures"


def main(path: Path) -> None:
    with jobq.open(path) as svc:
        for number in (signal.SIGTERM, signal.SIGINT):
            # The one call that is meant for signal handlers.
            signal.signal(number, lambda _number, _frame: svc.stop())
        # Eight at a time: the loop keeps the leases of all of them, also if one takes hours.
        for job in svc.consume(TOPIC, n=8, on_lost=regret):
            with job:
                shrink(job)
        print(svc.stats(TOPIC).totals.ready, "jobs wait for the next worker")


def shrink(job: jobq.Job) -> None:
    """Handle one job. To return is done, an exception is a retry later, and this is for never."""
    name: str = job.payload["name"]
    if not name.endswith(".png"):
        job.cancel("rejected", error=f"{name} is no picture")
        print(name, "can never be shrunk: rejected")
        return
    for _part in range(10):
        if job.canceled:  # ask now and then in long work: somebody may have canceled it
            return
    if job.payload.get("sends SIGTERM"):
        print("SIGTERM")
        os.kill(os.getpid(), signal.SIGTERM)  # as if from outside
    print(name, "is 100 pixels wide now")


def regret(job: jobq.Job) -> None:
    """The work was done, but too late to say so: another worker has the job, or it was canceled."""
    print("lost", job.id)


if __name__ == "__main__":
    if len(sys.argv) > 1:
        main(Path(sys.argv[1]))
    else:
        with tempfile.TemporaryDirectory() as directory:
            queue = Path(directory, "queue")
            with jobq.open(queue) as svc:
                for name in ("a.png", "b.txt", "c.png", "d.png", "e.png"):
                    svc.enqueue(TOPIC, {"name": name, "sends SIGTERM": name == "c.png"})
            main(queue)
