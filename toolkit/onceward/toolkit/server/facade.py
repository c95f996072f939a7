"""The job runner by the names of the seed: create, enable, schedule and run jobs on any store."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import timedelta
from typing import Any

from onceward.contracts import Json, RunId, Runner
from onceward.runners.factory import Source
from onceward.toolkit.jobs.job import Job
from onceward.toolkit.jobs.retry import Retry
from onceward.toolkit.jobs.settings import read_schedule
from onceward.toolkit.server.health import ShutdownReport
from onceward.toolkit.server.scanner import JobSource, found_jobs
from onceward.toolkit.server.server import JobServer


class JobRunner:
    """A job server with one method per wish. Any runner will do; what it does for one, it does for all."""

    def __init__(self, runner: Runner | Source = None, **settings: Any) -> None:
        """The store is chosen, and not opened yet; see ``JobServer.create`` for the settings."""
        self.server = JobServer.create(runner, **settings)

    # -- jobs ---------------------------------------------------------------------------------------------------

    def create_job(self, name: str, job: type[Job] | Job) -> None:
        """The job is known under this name, in this process and in the store."""
        [made] = found_jobs([job])
        made.name = name
        self.server.manager.add([made])
        self._refresh()

    def enable_job(self, name: str) -> None:
        """Its runs start again, everywhere."""
        self.server.manager.configs.enable(name)
        self._refresh()

    def disable_job(self, name: str) -> None:
        """No further run of it starts, anywhere."""
        self.server.manager.configs.disable(name)
        self._refresh()

    def configure_retry(self, name: str, retry: Retry | Mapping[str, Json]) -> None:
        """Its retry policy is this one, everywhere."""
        document = retry.to_document() if isinstance(retry, Retry) else dict(retry)
        self.server.manager.configs.override(name, {"retry": document})
        self._refresh()

    # -- schedules ----------------------------------------------------------------------------------------------

    def schedule(self, name: str, schedule: object, data: Json = None) -> None:
        """It runs by this schedule, with this data: ``"0 * * * *"``, or ``{"type": …, "value": …}``."""
        self.server.manager.configs.override(name, {"schedule": _document(schedule), "data": data})
        self._refresh()

    def update_schedule(self, name: str, schedule: object) -> None:
        """It runs by this schedule from now on; its data stays."""
        self.server.manager.configs.override(name, {"schedule": _document(schedule)})
        self._refresh()

    def run_job_now(self, name: str, data: Json = None) -> RunId:
        """One run of it is due now; the answer says which, for ``server.wait``."""
        return self.server.launch(name, data).run

    # -- its life -----------------------------------------------------------------------------------------------

    def start(self, jobs: Iterable[JobSource] = ()) -> None:
        """It works, with these jobs besides those that were created before."""
        self.server.manager.add(found_jobs(jobs))
        self.server.start()
        self.server.wait_ready()

    def close(self, deadline: timedelta | None = None) -> ShutdownReport:
        """Claims nothing more, drains, gives back what is left, closes the store; in this order."""
        return self.server.shutdown(deadline)

    def _refresh(self) -> None:
        self.server.runner.open()
        self.server.follow()


def _document(schedule: object) -> Json:
    """A schedule as data; the zone of one that names none is the job's."""
    if isinstance(schedule, (str, Mapping)):
        return schedule
    found = read_schedule(schedule)
    return None if found is None else found.to_dict()
