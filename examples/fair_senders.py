"""Webhooks for many customers: nobody waits behind one who has more of them, or whose server fails.

Each customer is a group. Groups take turns, and each has one job running at most, so what a
customer gets is in order: a webhook that fails holds up its own customer's until it is retried, and
nobody else's. All of this is decided in the queue, so it holds for any number of threads and
processes together.

    python examples/fair_senders.py

Prints:
the same event again is the same job: True
ann 1, bob 1 is refused, eve 1, ann 2, ann 3, ann 4, bob 1, bob 2
1 webhook came too late: eve 2
"""

import logging

import jobq

TOPIC = "webhooks"
sent: list[str] = []


def main(svc: jobq.JobService) -> None:
    svc.configure(
        TOPIC,
        group_concurrency=1,  # to each customer one at a time, in order
        group_rate=(100, 1),  # and 100 a second at most
        concurrency=50,  # to all of them together 50 at once, whoever sends
        max_jobs=10_000,  # more wait until there is room (or `enqueue` raises QueueFull)
        ttl=3600,  # what could not be handed out in an hour is canceled
    )
    job_id = ""
    for customer, count in (("ann", 4), ("bob", 2), ("eve", 1)):
        for number in range(1, count + 1):
            job_id = announce(svc, customer, f"{customer} {number}")
    print("the same event again is the same job:", announce(svc, "eve", "eve 1") == job_id)
    late = svc.enqueue(TOPIC, "eve 2", group="eve", ttl=0.01, delay=0.1)

    for job in svc.consume(TOPIC, timeout=3):  # in as many processes as you like
        with job:  # clean end: done; exception: retried
            send(job)
    print(", ".join(sent))

    svc.wait(late)
    expired = svc.find(topic=TOPIC, reason="expired")
    print(len(expired), "webhook came too late:", *[record.payload for record in expired])


def announce(svc: jobq.JobService, customer: str, event: str) -> str:
    return svc.enqueue(TOPIC, event, group=customer, unique=event, timeout=10)


def send(job: jobq.Job) -> None:
    if job.payload == "bob 1" and job.attempt == 1:
        sent.append("bob 1 is refused")
        raise ConnectionError("bob's server is being restarted")
    sent.append(job.payload)


if __name__ == "__main__":
    logging.basicConfig(level=logging.ERROR)  # a retry is a warning; see it with WARNING
    with jobq.open(":memory:", min_backoff=0.5) as svc:  # or a directory
        main(svc)
