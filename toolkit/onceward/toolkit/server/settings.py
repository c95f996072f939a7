"""What holds for a server: how much it runs at a time, how often it looks, how long it keeps records."""

from __future__ import annotations

from datetime import timedelta

from onceward.contracts import Status, checks
from onceward.contracts.records import Record
from onceward.toolkit.jobs.settings import MAX_CONCURRENCY, JobSettings


class Retention(Record, frozen=True, kw_only=True):
    """How long records of ended runs are kept. How long they are kept is how long duplicates are known.

    Attributes:
        succeeded: those that ended well, or were cancelled.
        failed: the dead letters.
        keep_last: of each job, at most about so many of either; the oldest go first. None: any number.
        at_least: nothing younger than this goes, however many there are.
    """

    succeeded: timedelta = timedelta(days=7)
    failed: timedelta = timedelta(days=30)
    keep_last: int | None = 10_000
    at_least: timedelta = timedelta(hours=1)

    def __post_init__(self) -> None:
        for name in ("succeeded", "failed", "at_least"):
            checks.delay(f"retention.{name}", getattr(self, name))
        if self.keep_last is not None:
            checks.whole("retention.keep_last", self.keep_last, 0, 2**53)

    def age(self, status: Status) -> timedelta:
        """How long records in this status are kept."""
        return max(self.failed if status is Status.FAILED else self.succeeded, self.at_least)


class ServerSettings(Record, frozen=True, kw_only=True):
    """What holds for one server process.

    Attributes:
        process_every: how often it looks for work where nothing wakes it.
        max_concurrency: so many runs at a time, of all jobs together.
        default_concurrency: so many runs of one job at a time, unless the job says otherwise.
        lock_limit: at most so many held leases; None: as many as runs. It never holds what it cannot start.
        default_lock_limit: the same for one job that says nothing.
        default_lock_lifetime: how long a run outlives a process that died. It is renewed while the process lives, so
            it can be short; but a store that is away for less than two thirds of it costs no running body its lease.
        shutdown_deadline: how long a shutdown may take unless it is told otherwise.
        reconcile_every: how often configurations are read again, even if no change was heard of.
        clean_every: how often old records are looked for.
        retention: how long records are kept; None: for ever.
        submit_schedules: whether it submits what schedules say; any number of servers may.
    """

    process_every: timedelta = timedelta(seconds=3)
    max_concurrency: int = 1
    default_concurrency: int = 1
    lock_limit: int | None = None
    default_lock_limit: int | None = None
    default_lock_lifetime: timedelta = timedelta(minutes=2)
    shutdown_deadline: timedelta = timedelta(seconds=30)
    reconcile_every: timedelta = timedelta(seconds=30)
    clean_every: timedelta = timedelta(minutes=5)
    retention: Retention | None = Retention()
    submit_schedules: bool = True

    def __post_init__(self) -> None:
        checks.whole("max_concurrency", self.max_concurrency, 1, MAX_CONCURRENCY)
        checks.whole("default_concurrency", self.default_concurrency, 1, MAX_CONCURRENCY)
        for name in ("lock_limit", "default_lock_limit"):
            if getattr(self, name) is not None:
                checks.whole(name, getattr(self, name), 1, MAX_CONCURRENCY)
        checks.required_lease("default_lock_lifetime", self.default_lock_lifetime)
        for name in ("process_every", "reconcile_every", "clean_every"):
            checks.required_lease(name, getattr(self, name))
        checks.delay("shutdown_deadline", self.shutdown_deadline)

    @property
    def most_held(self) -> int:
        """So many runs at a time."""
        return min(self.max_concurrency, self.lock_limit or self.max_concurrency)

    def most_of(self, job: JobSettings) -> int:
        """So many runs of one job at a time."""
        most = job.concurrency or self.default_concurrency
        return min(most, job.lock_limit or self.default_lock_limit or most, self.most_held)

    def lifetime_of(self, job: JobSettings) -> timedelta:
        """The lease of one job's runs."""
        return job.lock_lifetime or self.default_lock_lifetime
