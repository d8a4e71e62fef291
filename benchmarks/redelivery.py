"""How long after a worker is killed does another process get its jobs?

A process reserves jobs under a lease of ten minutes and is killed with SIGKILL at a random moment.
Another process waits in `reserve` all the while, with nothing else to do. The time runs from the
signal to the return of the `reserve` that has the first (and the last) of these jobs.
"""

import argparse
import random
import statistics
import sys
import time
from collections.abc import Sequence
from typing import NamedTuple

import jobq
from benchmarks.processes import Child, Pipe
from benchmarks.session import Session

TOPIC = "work"
LEASE_S = 600.0
HELD = 10
PATIENCE_S = 60.0


class Round(NamedTuple):
    """Seconds from the kill to the return of the first and of the last job."""

    first_s: float
    last_s: float


def main(arguments: Sequence[str] | None = None) -> int:
    """Run and print; the exit status."""
    session = Session("redelivery", __doc__, _add_options, arguments)
    options = session.options
    with session.measuring(idle=True) as directory:
        rounds = redeliver(str(directory / "queue"), options.rounds)
    print(f"\n  {'s, of ' + str(len(rounds)) + ' rounds':20} {'median':>7} {'worst':>7}")
    for name in Round._fields:
        values = [getattr(one, name) for one in rounds]
        print(f"  {name.removesuffix('_s') + ' job':20} "
              f"{statistics.median(values):7.2f} {max(values):7.2f}")  # fmt: skip
    session.keep(
        {"lease_s": LEASE_S, "held": HELD, "durability": "full"}, [one._asdict() for one in rounds]
    )
    return 0


def redeliver(path: str, rounds: int) -> list[Round]:
    """Kill a holder in each round; one waiting process lives through all of them."""
    results = []
    with jobq.open(path) as service, Child(wait, path) as waiter:
        waiter.hear()
        for _ in range(rounds):
            with Child(hold, path) as holder:
                holder.hear()
                sent = service.enqueue_many(TOPIC, range(HELD), lease=LEASE_S)
                holder.tell("reserve")
                held = holder.hear()
                if sorted(held) != sorted(sent):
                    raise AssertionError(f"{len(sent)} jobs sent, {len(held)} held")
                waiter.tell("reserve")
                time.sleep(random.uniform(1.0, 2.0))  # no phase in common with a beat of a second
                killed_ns = holder.kill()
                came: dict[str, int] = waiter.hear(PATIENCE_S)
            if sorted(came) != sorted(sent):
                raise AssertionError(f"{len(sent)} jobs were held, {len(came)} came back")
            results.append(
                Round(
                    (min(came.values()) - killed_ns) / 1e9, (max(came.values()) - killed_ns) / 1e9
                )
            )
        if problems := service.check().problems:
            raise AssertionError(problems)
    return results


def hold(pipe: Pipe, path: str) -> None:
    """The process to be killed: reserves, says so, and does nothing more."""
    with jobq.open(path) as service:
        pipe.send("ready")
        pipe.recv()
        jobs = service.reserve(TOPIC, HELD, timeout=PATIENCE_S)
        pipe.send([job.id for job in jobs])
        time.sleep(PATIENCE_S * 10)


def wait(pipe: Pipe, path: str) -> None:
    """The other process: told to, it reserves until it has the jobs, and says when each came."""
    with jobq.open(path) as service:
        pipe.send("ready")
        while True:
            pipe.recv()
            came: dict[str, int] = {}
            while len(came) < HELD:
                jobs = service.reserve(TOPIC, HELD, timeout=PATIENCE_S)
                now = time.monotonic_ns()
                came.update((job.id, now) for job in jobs)
                service.done_many(jobs)
            pipe.send(came)


def _add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--rounds", type=int, default=15, help="default: %(default)s")


if __name__ == "__main__":
    sys.exit(main())
