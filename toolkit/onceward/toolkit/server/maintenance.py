"""What keeps a store tidy: old records go, and what nobody will ever run is reported."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Mapping
from datetime import timedelta

from onceward.contracts import Purge, Runner, RunQuery, Status
from onceward.toolkit.jobs.once import ONCE_JOB
from onceward.toolkit.server.settings import Retention

log = logging.getLogger("onceward.server")

_AT_ONCE = 500
#: So many batches per job and round, so that a round never takes long.
_BATCHES = 20
_LAPSED = RunQuery(statuses=frozenset({Status.RUNNING}), lapsed=True, limit=1_000)
_GOOD = frozenset({Status.SUCCEEDED, Status.CANCELLED})
_BAD = frozenset({Status.FAILED})


class Maintenance:
    """Cleans up after the jobs of this server; records of anybody else in the namespace are left alone.

    Attributes:
        parked: how many runs wait of each job that no server of the namespace has ever known. They stay as they are.
        lapsed: how many runs of this server's jobs are held on leases that are over, and nobody has taken them yet.
    """

    def __init__(self, runner: Runner, retention: Retention | None, jobs: Callable[[], Collection[str]]) -> None:
        self._runner, self._retention, self._jobs = runner, retention, jobs
        self._warned: set[str] = set()
        self.parked: Mapping[str, int] = {}
        self.lapsed = 0

    def round(self, configured: Collection[str]) -> int:
        """Old records of this server's jobs are gone, and what is parked is known; the number of records."""
        counts = self._runner.lifecycle.counts()
        known = {*self._jobs(), *configured}
        self.parked = {
            job: states[Status.SCHEDULED]
            for job, states in counts.items()
            if states.get(Status.SCHEDULED) and job not in known and not job.startswith("onceward:")
        }
        for job in sorted(set(self.parked) - self._warned):
            log.warning("%d runs of the unknown job %r are parked until a server knows it", self.parked[job], job)
        self._warned = set(self.parked)
        self.lapsed = sum(run.job in self._jobs() for run in self._runner.lifecycle.runs(_LAPSED))
        if self._retention is None:
            return 0
        mine = [job for job in counts if job in self._jobs() or job == ONCE_JOB]
        return sum(self._clean(job, counts[job], self._retention) for job in mine)

    def _clean(self, job: str, counts: Mapping[Status, int], retention: Retention) -> int:
        gone = 0
        for statuses, age in ((_GOOD, retention.succeeded), (_BAD, retention.failed)):
            ended = sum(counts.get(status, 0) for status in statuses)
            if not ended:
                continue
            gone += self._purge(job, statuses, max(age, retention.at_least), 0)
            if retention.keep_last is not None and ended > retention.keep_last:
                gone += self._purge(job, statuses, retention.at_least, retention.keep_last)
        if gone:
            log.info("%d old records of job %r deleted", gone, job)
        return gone

    def _purge(self, job: str, statuses: frozenset[Status], age: timedelta, keep_last: int) -> int:
        request = Purge(older_than=age, job=job, statuses=statuses, keep_last=keep_last, limit=_AT_ONCE)
        total = 0
        for _ in range(_BATCHES):
            gone = self._runner.lifecycle.purge(request)
            total += gone
            if gone < _AT_ONCE:
                break
        return total
