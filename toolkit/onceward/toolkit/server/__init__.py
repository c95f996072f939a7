"""The job server: schedules, workers, configurations, on any runner."""

from onceward.toolkit.server.events import Event, JobEvent
from onceward.toolkit.server.facade import JobRunner
from onceward.toolkit.server.health import ServerHealth, ShutdownReport
from onceward.toolkit.server.manager import JobManager
from onceward.toolkit.server.oneoff import OneOffJobs
from onceward.toolkit.server.queue import JobQueue
from onceward.toolkit.server.server import JobServer
from onceward.toolkit.server.settings import Retention, ServerSettings
from onceward.toolkit.server.status import JobStatus

__all__ = [
    "Event", "JobEvent", "JobManager", "JobQueue", "JobRunner", "JobServer", "JobStatus", "OneOffJobs",
    "Retention",    "ServerHealth", "ServerSettings", "ShutdownReport",
]  # fmt: skip
