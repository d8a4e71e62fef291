"""What the coroutines of a service share: threads that do for all of them what may block.

Nothing here is imported before the first asynchronous call: `import jobq` does not load asyncio.
"""

from jobq.service.aio.bridge import Bridge
from jobq.service.aio.consumer import AsyncConsumer, AsyncJobs

__all__ = ["AsyncConsumer", "AsyncJobs", "Bridge"]
