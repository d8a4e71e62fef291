"""The service: what programs call. Policy is here; how jobs are kept is the store's business."""

from jobq.service.batch import Batch, NewJob
from jobq.service.bulk import BulkProgress, BulkResult
from jobq.service.job import Job
from jobq.service.selection import Selection
from jobq.service.service import JobService

__all__ = ["Batch", "BulkProgress", "BulkResult", "Job", "JobService", "NewJob", "Selection"]
