"""Jobs by the names of an in-process job manager: add a job now, later, by a schedule, or once for ever.

jobs = OneOffJobs("sqlite:///jobs.db")
jobs.add_one_off_job(migrate, name="members-migration")     # runs once, however many processes add it
jobs.await_one_off_completion("members-migration")
jobs.add_job(report, at="every 5 minutes")
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from onceward.contracts import InvalidRequest, Json, Rearm, Run, RunId, Runner, RunQuery, Status, WaitTimeout
from onceward.runners.factory import Source as RunnerSource
from onceward.toolkit.jobs.job import Job, job
from onceward.toolkit.jobs.settings import Where
from onceward.toolkit.leasetime import lease_time
from onceward.toolkit.resend import resend
from onceward.toolkit.schedules import Source
from onceward.toolkit.server.health import ShutdownReport
from onceward.toolkit.server.scanner import found_jobs
from onceward.toolkit.server.server import JobServer

_KEY = "one-off"
_LIVE = frozenset({Status.SCHEDULED, Status.RUNNING})
_LOOK_EVERY = timedelta(milliseconds=200)
#: A function that takes the ``JobContext`` or nothing, a job, or the path of a file with one job.
Work = Callable[..., Any] | Job | Path


class OneOffJobs:
    """A job server to which jobs are added while it runs. A context manager."""

    def __init__(self, runner: Runner | RunnerSource = None, **settings: Any) -> None:
        """The server has started; see ``JobServer.create`` for the settings."""
        self.server = JobServer.create(runner, **settings).start()
        self._removed: set[str] = set()
        """What was removed here: it is enabled again when it is added again."""

    def add_job(
        self,
        work: Work,
        *,
        name: str | None = None,
        at: Source | None = None,
        data: Json = None,
        offloaded: bool = False,
    ) -> str:
        """The job runs: now if ``at`` is None, else at that instant or by that schedule; the answer is its name.

        Args:
            work: what is done.
            name: by default the function's, or the file's.
            at: ``"every 5 minutes"``, ``"0 1/5 * * * *"``, an aware datetime.
            data: what it gets as ``ctx.data``.
            offloaded: in a process of its own; the function has to stand at the top of a module.
        """
        made = self._made(work, name, offloaded)
        made.schedule, made.data = at, data
        self._add(made)
        if at is None:
            self.server.launch(made.name, data)
        return made.name

    def add_one_off_job(self, work: Work, *, name: str, data: Json = None, offloaded: bool = False) -> RunId:
        """The job runs once, in one process, for as long as its record is kept; one that failed runs again.

        Raises:
            InvalidRequest: it has no name; or it runs, or has run, and did not fail.
        """
        if not name:
            raise InvalidRequest("name", name, "The name parameter is required for a one off job.")
        self._add(self._made(work, name, offloaded))
        launched = self.server.launch(name, data, key=_KEY)
        if not launched.new:
            found = self._find(name)
            rearm = [] if found is None else [Rearm(run=found.id, token=found.token)]
            failed = found is not None and found.status is Status.FAILED
            if not failed or not resend(lambda: self.server.runner.lifecycle.rearm(rearm))[0]:
                raise InvalidRequest("name", name, f'another: A "{name}" one off job has already been executed.')
        return launched.run

    def await_one_off_completion(self, name: str, timeout: timedelta = timedelta(minutes=1)) -> Run:
        """The one-off has ended, well or not; also if it had before.

        Raises:
            WaitTimeout: not in time.
        """
        return self.server.wait(RunId(name, _KEY), timeout)

    def has_executed_successfully(self, name: str, *, strict: bool = True) -> bool:
        """True: the one-off has ended well; without ``strict`` also while it waits or runs, as the seed has it."""
        found = self._find(name)
        if found is None:
            return False
        return found.status is Status.SUCCEEDED if strict else found.status is not Status.FAILED

    def await_completion(self, name: str, timeout: timedelta = timedelta(minutes=1)) -> Run:
        """The latest run of a job has ended.

        Raises:
            InvalidRequest: there is none.
            WaitTimeout: not in time.
        """
        latest = self.server.runner.lifecycle.runs(RunQuery(job=name, limit=1))
        if not latest:
            raise InvalidRequest("name", name, "a job that has a run")
        return self.server.wait(latest[0].id, timeout)

    def all_settled(self, timeout: timedelta = timedelta(minutes=1)) -> None:
        """Nothing of what was added here is due or runs any more.

        What is due later is not waited for, nor what cannot start since its job was removed or disabled.

        Raises:
            WaitTimeout: not in time.
        """
        end = lease_time() + timeout.total_seconds()
        while pending := self._pending():
            if lease_time() >= end:
                raise WaitTimeout(f"{pending[0]} and {len(pending) - 1} more have not ended in {timeout}")
            try:
                self.server.wait(pending[0], _LOOK_EVERY)
            except WaitTimeout:
                continue

    def remove_job(self, name: str) -> None:
        """No further run of the job starts, anywhere, until it is added here again.

        Runs of it that have not begun wait for that.

        Raises:
            InvalidRequest: no server has ever known the job.
        """
        self.server.manager.configs.disable(name)
        self._removed.add(name)
        self.server.follow()

    def shutdown(self, deadline: timedelta | None = None) -> ShutdownReport:
        """See ``JobServer.shutdown``."""
        return self.server.shutdown(deadline)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.shutdown()

    def _made(self, work: Work, name: str | None, offloaded: bool) -> Job:
        if isinstance(work, Path):
            jobs = found_jobs([work])
            if len(jobs) != 1:
                raise InvalidRequest("job", str(work), "a file with one job")
            made, default = jobs[0], work.stem
        else:
            made = work if isinstance(work, Job) else job(work)
            default = made.name
        if not name and default == "<lambda>":
            raise InvalidRequest("name", name, "Name parameter should be present if job is a function")
        if not offloaded:  # an offloaded one is found by its own name in the other process
            made.name = name or default
        elif name not in (None, made.name):
            raise InvalidRequest("name", name, f"the job's own name, {made.name!r}, for one that is offloaded")
        if offloaded:
            made.where = Where.PROCESS
        return made

    def _add(self, made: Job) -> None:
        self.server.wait_ready()
        self.server.manager.add([made])
        if made.name in self._removed:
            self.server.manager.configs.enable(made.name)
            self._removed.discard(made.name)
        self.server.follow()

    def _find(self, name: str) -> Run | None:
        return self.server.runner.executor.check(RunId(name, _KEY))

    def _pending(self) -> list[RunId]:
        now = self.server.runner.lifecycle.now()
        return [
            run.id
            for name, plan in self.server.manager.plans().items()
            for run in self.server.runner.lifecycle.runs(RunQuery(job=name, statuses=_LIVE))
            if run.status is Status.RUNNING or (plan.enabled and run.run_at <= now)
        ]
