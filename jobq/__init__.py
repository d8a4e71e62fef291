"""A durable job queue in one directory, for the processes of one machine, with no server.

import jobq

svc = jobq.open("./queue")
svc.enqueue("mail", {"to": "ann@example.org"})
for job in svc.consume("mail", timeout=0):
    with job:
        print(job.payload)
"""

from jobq.errors import (
    InvalidTransition,
    InvalidValue,
    JobNotFound,
    JobqError,
    OutcomeUnknown,
    PayloadTooLarge,
    QueueFull,
    ReentrantCall,
    ReservationLost,
    StoreBusy,
    StoreCorrupt,
    StoreFull,
    StoreLocked,
    StoreUnavailable,
    UniqueConflict,
)
from jobq.factory import (
    compact,
    doctor,
    open,  # noqa: A004 - jobq.open is the name that users expect
    restore,
    salvage,
)
from jobq.job import KEEP, Attempt, JobRecord, LogLine, Progress, UniqueKey
from jobq.options import JobOptions
from jobq.repo.base import CheckReport, Copied, CopyProgress, Diagnosis, Salvaged, Stats
from jobq.service import (
    Batch,
    BulkProgress,
    BulkResult,
    Job,
    JobService,
    NewJob,
    Selection,
)
from jobq.shares import Pattern
from jobq.states import Event, Outcome, Reason, Status
from jobq.topic import GroupStats, TopicLimits, TopicSettings, TopicStats

__all__ = [
    "Attempt",
    "KEEP",
    "Batch",
    "BulkProgress",
    "BulkResult",
    "CheckReport",
    "Copied",
    "CopyProgress",
    "Diagnosis",
    "Event",
    "GroupStats",
    "InvalidTransition",
    "InvalidValue",
    "Job",
    "JobNotFound",
    "JobOptions",
    "JobRecord",
    "JobService",
    "JobqError",
    "LogLine",
    "NewJob",
    "Outcome",
    "OutcomeUnknown",
    "Pattern",
    "PayloadTooLarge",
    "Progress",
    "QueueFull",
    "Reason",
    "ReentrantCall",
    "ReservationLost",
    "Salvaged",
    "Selection",
    "Stats",
    "Status",
    "StoreBusy",
    "StoreCorrupt",
    "StoreFull",
    "StoreLocked",
    "StoreUnavailable",
    "TopicLimits",
    "TopicSettings",
    "TopicStats",
    "UniqueConflict",
    "UniqueKey",
    "compact",
    "doctor",
    "open",
    "restore",
    "salvage",
]
