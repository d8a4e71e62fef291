"""A job that ends and the job that follows it, in one commit: neither is ever there alone.

Prints:
fetched https://example.org/a
fetched https://example.org/b
indexed 21 characters
indexed 21 characters
{'fetch': 2, 'index': 2}
"""

import jobq

with jobq.open(":memory:") as svc:
    svc.enqueue_many("fetch", ["https://example.org/a", "https://example.org/b"])

    for job in svc.reserve("fetch", 10, timeout=0):
        print("fetched", job.payload)
        job.done(then=[jobq.NewJob("index", {"text": job.payload})])

    for job in svc.reserve("index", 10, timeout=0):
        with job:
            print("indexed", len(job.payload["text"]), "characters")

    print({topic.name: topic.done for topic in svc.stats().topics})
