"""The same queue from asyncio: every verb has a twin with an `a` in front, which blocks no loop.

    python examples/asyncio_workers.py

Prints:
/home has 5 links
/about has 6 links
/contact has 8 links
4 pages done
"""

import asyncio
import logging

import jobq


async def main() -> None:
    async with jobq.open(":memory:", max_retries=3, min_backoff=0.01) as svc:  # or a directory
        async with asyncio.TaskGroup() as workers:
            for _ in range(10):  # as many as should be on their way at a time
                workers.create_task(work(svc))

            ids = [await svc.aenqueue("pages", page) for page in ("/home", "/about", "/contact")]
            for job_id in ids:
                record = await svc.await_job(job_id, timeout=10)  # until it is done, or canceled
                print(record.payload, "has", record.result, "links")

            async with svc.abatch() as batch:  # one commit
                batch.enqueue("pages", "/news")
            await svc.await_job(batch.ids[0])
            svc.stop()  # the loops end after their job
        print((await svc.astats("pages")).totals.done, "pages done")


async def work(svc: jobq.JobService) -> None:
    async for job in svc.aconsume("pages"):
        async with job:  # done, or a retry, or given back if the task is canceled
            links = await fetch(job.payload, job.attempt)
            await job.adone(links)


async def fetch(page: str, attempt: int) -> int:
    """How many links a page has."""
    await asyncio.sleep(0.01)
    if page == "/about" and attempt == 1:
        raise TimeoutError(page)
    return len(page)


if __name__ == "__main__":
    logging.basicConfig(level=logging.ERROR)  # a retry is a warning; see it with WARNING
    asyncio.run(main())
