"""How a job is, in one record: what it did last, what it does now, when it runs next."""

from __future__ import annotations

from datetime import datetime, timedelta

from onceward.contracts import Progress, Run, Runner, RunQuery, Status
from onceward.contracts.records import Record
from onceward.toolkit.server.configs import Configs

#: So many of the latest runs are looked at.
_LATEST = 50


class JobStatus(Record, frozen=True, kw_only=True):
    """How a job is, by the records that are kept of it.

    Attributes:
        enabled: whether its runs start; None: no server has ever known it.
        status: of the run that started last; None: none ever did.
        progress: how far that run said it is.
        last_run_at: when it started.
        duration: how long it took, or has taken so far.
        locked_at: when it was taken, if it runs now.
        next_run_at: when the next one is due: submitted already, or by its schedule.
        fail_count: so many runs have failed for good.
        last_error: of the latest run that has one.
        failed_at: when the latest one failed for good.
    """

    job: str
    enabled: bool | None
    status: Status | None
    progress: Progress | None
    last_run_at: datetime | None
    duration: timedelta | None
    locked_at: datetime | None
    next_run_at: datetime | None
    fail_count: int
    last_error: str | None
    failed_at: datetime | None


def job_status(runner: Runner, job: str) -> JobStatus:
    """How the job is now; a few round trips."""
    config, now = Configs(runner).get(job), runner.lifecycle.now()
    runs = runner.lifecycle.runs(RunQuery(job=job, limit=_LATEST))
    failed = runner.lifecycle.runs(RunQuery(job=job, statuses=frozenset({Status.FAILED}), limit=1))
    last = max((run for run in runs if run.started is not None), key=_started, default=None)
    waiting = [run.run_at for run in runs if run.status is Status.SCHEDULED]
    schedule = config.settings().schedule if config is not None and config.enabled else None
    if not waiting and schedule is not None and (following := schedule.next_after(now)) is not None:
        waiting = [following]
    wrong = next((run.error for run in [*runs, *failed] if run.error is not None), None)
    return JobStatus(
        job=job,
        enabled=None if config is None else config.enabled,
        status=None if last is None else last.status,
        progress=None if last is None else last.progress,
        last_run_at=None if last is None else last.started,
        duration=None if last is None or last.started is None else (last.ended or now) - last.started,
        locked_at=last.started if last is not None and last.status is Status.RUNNING else None,
        next_run_at=min(waiting, default=None),
        fail_count=runner.lifecycle.counts(job).get(job, {}).get(Status.FAILED, 0),
        last_error=None if wrong is None else wrong.message,
        failed_at=failed[0].ended if failed else None,
    )


def _started(run: Run) -> datetime:
    assert run.started is not None  # the others were left out
    return run.started
