"""Jobs: what is done, when it is tried again, and what a body can do while it runs."""

from onceward.toolkit.jobs.context import JobContext, current_job_context
from onceward.toolkit.jobs.errors import Cancel, FatalError, RetryableError, Snooze
from onceward.toolkit.jobs.job import FunctionJob, Job, job
from onceward.toolkit.jobs.launch import Launched, Launcher
from onceward.toolkit.jobs.once import Once, StepTaken
from onceward.toolkit.jobs.retry import Backoff, Retry
from onceward.toolkit.jobs.settings import JobSettings, Priority, Where
from onceward.toolkit.schedules import Misfire, MisfirePolicy, Overlap

__all__ = [
    "Backoff", "Cancel", "FatalError", "FunctionJob", "Job", "JobContext", "JobSettings", "Launched", "Launcher",
    "Misfire", "MisfirePolicy", "Once", "Overlap", "Priority", "Retry", "RetryableError", "Snooze", "StepTaken",
    "Where", "current_job_context", "job",
]  # fmt: skip
