"""What a manager's records say: status, history, jobs that are stuck; and cleaning up."""

from __future__ import annotations

import enum
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timedelta

from msgspec.structs import replace

from onceward.contracts import (
    CheckIn,
    CheckOut,
    Interest,
    Json,
    LockId,
    Purge,
    Run,
    RunQuery,
    Status,
    WaitTimeout,
    checks,
)
from onceward.contracts.records import Record, stamp_text
from onceward.contracts.times import to_ms
from onceward.toolkit.manager_job import Stores
from onceward.toolkit.resend import resend

#: Keeps a manager's records apart from other runs in the same namespace.
STAMP = stamp_text({"type": "manager"})
STUCK_AFTER = timedelta(hours=1)
KEEP_FOR = timedelta(hours=24)
_PAGE = 500
_LOOK_AGAIN = 0.5
_RUNNING = frozenset({Status.RUNNING})
_RECORDED = frozenset({Status.RUNNING, Status.SUCCEEDED, Status.FAILED})


class JobState(enum.StrEnum):
    """What monitoring shows of a run."""

    RUNNING = "RUNNING"
    COMPLETED = "COMPLETED"
    ERROR = "ERROR"


class JobView(Record, frozen=True, kw_only=True):
    """One start of a job, as monitoring shows it. Times in milliseconds since 1970, by the store's clock."""

    name: str
    start_time: int
    end_time: int | None
    duration: timedelta
    """Until the end; while it runs, until this was read."""
    in_error: bool
    error: str | None
    run: Run

    @classmethod
    def of(cls, run: Run, *, now: datetime) -> JobView:
        """The view of a run that has started."""
        start = run.started or run.created
        return cls(
            name=run.job,
            start_time=to_ms(start),
            end_time=None if run.ended is None else to_ms(run.ended),
            duration=(run.ended or max(now, start)) - start,
            in_error=run.status is Status.FAILED,
            error=None if run.error is None else f"{run.error.type}: {run.error.message}",
            run=run,
        )

    @property
    def start_date(self) -> datetime:
        return self.run.started or self.run.created

    @property
    def end_date(self) -> datetime | None:
        return self.run.ended

    @property
    def state(self) -> JobState:
        if self.end_time is None:
            return JobState.RUNNING
        return JobState.ERROR if self.in_error else JobState.COMPLETED

    def fields(self) -> Mapping[str, Json]:
        """The record under the names that oJob Manager gives its fields."""
        return {
            "name": self.name,
            "startTime": self.start_time,
            "startDate": self.start_date,
            "endTime": self.end_time,
            "endDate": self.end_date,
            "inError": self.in_error,
            "error": self.error,
        }

    def line(self) -> str:
        """One line for a monitor."""
        return f"Job: {self.name} | Status: {self.state} | Duration: {round(self.duration.total_seconds())}s"

    def text(self) -> str:
        """Several lines for somebody who asks after this job."""
        ms = round(self.duration.total_seconds() * 1000)
        lines = [f"Job: {self.name}", f"Started: {self.start_date.isoformat()}"]
        if self.end_date is None:
            return "\n".join([*lines, "Status: Running", f"Running for: {ms}ms"])
        lines += [f"Ended: {self.end_date.isoformat()}", f"Duration: {ms}ms"]
        lines.append(f"Status: {'Failed' if self.in_error else 'Success'}")
        return "\n".join([*lines, f"Error: {self.error}"] if self.in_error else lines)


class JobReport(Record, frozen=True, kw_only=True):
    """All known runs of one job in numbers; ``avg_duration`` over those that have ended, None without one."""

    name: str
    total_runs: int
    successful_runs: int
    failed_runs: int
    running: int
    avg_duration: timedelta | None

    @classmethod
    def of(cls, name: str, views: Sequence[JobView]) -> JobReport:
        """The numbers of these runs."""
        ended = [view for view in views if view.state is not JobState.RUNNING]
        failed = sum(view.in_error for view in ended)
        return cls(
            name=name,
            total_runs=len(views),
            successful_runs=len(ended) - failed,
            failed_runs=failed,
            running=len(views) - len(ended),
            avg_duration=sum((view.duration for view in ended), timedelta()) / len(ended) if ended else None,
        )

    def fields(self) -> Mapping[str, Json]:
        """The report under oJob Manager's names; ``avgDuration`` in milliseconds."""
        average = None if self.avg_duration is None else self.avg_duration.total_seconds() * 1000
        return {
            "name": self.name,
            "totalRuns": self.total_runs,
            "successfulRuns": self.successful_runs,
            "failedRuns": self.failed_runs,
            "running": self.running,
            "avgDuration": average,
        }


class History:
    """The records of a manager's jobs. Everybody's, not only those of this process."""

    def __init__(self, stores: Stores, *, holder: str) -> None:
        self._stores = stores
        self._holder = holder

    def jobs(self, name: str | None = None, *, running: bool = False) -> Sequence[JobView]:
        """All known starts of a job (None: of all jobs), the latest first; optionally only those that run now."""
        now = self._stores.jobs.lifecycle.now()
        statuses = _RUNNING if running else _RECORDED
        query = RunQuery(job=name, stamp=STAMP, statuses=statuses, limit=_PAGE)
        return [JobView.of(run, now=now) for run in self._runs(query)]

    def last(self, name: str) -> JobView | None:
        """The latest start of a job; None: nothing is known of it."""
        query = RunQuery(job=name, stamp=STAMP, statuses=_RECORDED, limit=1)
        found = self._stores.jobs.lifecycle.runs(query)
        return JobView.of(found[0], now=self._stores.jobs.lifecycle.now()) if found else None

    def status(self, name: str) -> str:
        """What there is to say of the latest start of a job, as text for people."""
        view = self.last(name)
        return view.text() if view is not None else "Job not found or not running"

    def report(self) -> Sequence[JobReport]:
        """The known runs in numbers, one report per job, by name."""
        groups: dict[str, list[JobView]] = defaultdict(list)
        for view in self.jobs():
            groups[view.name].append(view)
        return [JobReport.of(name, groups[name]) for name in sorted(groups)]

    def stuck(self, longer_than: timedelta = STUCK_AFTER) -> Sequence[JobView]:
        """Jobs that have been running for longer than this, the dead among them that nobody has reaped yet."""
        return [view for view in self.jobs(running=True) if view.duration > longer_than]

    def cleanup(self, older_than: timedelta = KEEP_FOR, *, name: str | None = None) -> int:
        """Records that ended at least so long ago are gone; answers with their number. Those that run stay."""
        removed = 0
        while True:
            gone = self._stores.jobs.lifecycle.purge(Purge(older_than=older_than, job=name, stamp=STAMP, limit=_PAGE))
            removed += gone
            if gone < _PAGE:
                return removed

    def reap(self, name: str | None = None) -> Sequence[Run]:
        """Records whose process died are ended as failed, and are the answer; a job that still has its lock is left.

        A start of a job does this for its own name.
        """
        query = RunQuery(job=name, stamp=STAMP, statuses=_RUNNING, lapsed=True, limit=_PAGE)
        dead = list(self._runs(query))
        if not dead:
            return []
        locks = self._stores.locks.lifecycle.locks()
        alive = {
            (lock.lease.resource, lock.lease.token)
            for lock in locks
            if lock.remaining is None or lock.remaining > timedelta(0)
        }
        ended = [self._bury(run) for run in dead if (LockId(run.job), lock_token(run)) not in alive]
        return [run for run in ended if run is not None]

    def wait_for(self, name: str, *, timeout: timedelta, since: datetime | None = None) -> JobView:
        """The latest start of a job has ended, well or not, and is the answer.

        Args:
            name: the job.
            timeout: how long to wait for it, also for its first start.
            since: only starts from this instant on count (by the jobs store's clock); None: any.

        Raises:
            WaitTimeout: it did not end, or not start, in time.
        """
        checks.delay("timeout", timeout)
        checks.instant("since", since)
        end = time.monotonic() + timeout.total_seconds()
        with self._stores.locks.scheduler.watch(Interest(locks=frozenset({name}))) as watch:
            while True:
                view = self.last(name)
                if view is not None and view.end_time is not None and (since is None or view.start_date >= since):
                    return view
                left = end - time.monotonic()
                if left <= 0:
                    known = "is still running" if view is not None and view.end_time is None else "has not run"
                    raise WaitTimeout(f"job {name!r} {known} after {timeout.total_seconds():g} s of waiting")
                if not watch.wait(min(left, _LOOK_AGAIN)) and view is not None and view.end_time is None:
                    self.reap(name)

    def _runs(self, query: RunQuery) -> Iterator[Run]:
        while True:
            page = self._stores.jobs.lifecycle.runs(query)
            yield from page
            if len(page) < query.limit:
                return
            query = replace(query, after=page[-1].sequence)

    def _bury(self, run: Run) -> Run | None:
        """The store ends a lapsed run without a crash to spare as FAILED when anybody checks it in."""
        request = CheckIn(run=run.id, holder=self._holder, lease=timedelta(seconds=30), max_crashes=0)
        admission = resend(lambda: self._stores.jobs.executor.checkin(request))
        if admission.outcome.admitted:  # it ended and was purged since we looked: undo
            assert admission.run.lease is not None
            undo = CheckOut.cancelled(admission.run.lease)
            resend(lambda: self._stores.jobs.executor.checkout([undo]))
            return None
        return admission.run if admission.run.status is Status.FAILED else None


def lock_token(run: Run) -> int | None:
    """The token of the lock under which a record was written."""
    token = run.payload.get("lock_token") if isinstance(run.payload, Mapping) else None
    return token if isinstance(token, int) else None
