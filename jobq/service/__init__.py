"""The service: what programs call. Policy is here; how jobs are kept is the store's business."""

from jobq.service.batch import Batch, NewJob
from jobq.service.job import Job
from jobq.service.service import JobService

__all__ = ["Batch", "Job", "JobService", "NewJob"]
