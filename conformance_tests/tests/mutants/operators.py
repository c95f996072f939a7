"""Mutants of what an operator does: purge, forced unlock, re-arm, cancel; and of what a store tells about itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta

from msgspec.structs import replace

from onceward.contracts import Cancelled, Lease, LockId, LockState, Purge, Rearm, Run, RunId, RunQuery, Status
from onceward.contracts import transitions as t
from onceward.contracts.transitions import Now

from .planted import planted
from .planted_store import Meddled


@planted("checkin", "checkin.model")
class PurgeTakesLapsed(Meddled):
    """Clean-up by time stamp alone (D50): a run whose holder is late, or still at it, is deleted."""

    def purge(self, request: Purge) -> int:
        with self._lock:
            late = [entry for entry in self._runs if entry.lapsed(self._now())]
            for entry in late:
                self.write(t.bury(entry, self._now()))
            return super().purge(request)


@planted("queue", "queue.model")
class PurgeTakesScheduled(Meddled):
    """Clean-up of whatever nobody works on (D50): what waits for its time is deleted."""

    def purge(self, request: Purge) -> int:
        with self._lock:
            for entry in [entry for entry in self._runs if entry.run.status is Status.SCHEDULED]:
                run = replace(entry.run, status=Status.CANCELLED, ended=self.now())
                self.write(replace(entry, run=run))
            return super().purge(request)


@planted("checkin", "checkin.model")
class PurgeIgnoresAge(Meddled):
    """A cut-off in seconds where the store has milliseconds: what has just ended is deleted, and may run again."""

    def purge(self, request: Purge) -> int:
        return super().purge(replace(request, older_than=timedelta(0)))


@planted("checkin", "checkin.model")
class PurgeKeepsNone(Meddled):
    """The latest runs of each job, which were to be kept, are deleted as well."""

    def purge(self, request: Purge) -> int:
        return super().purge(replace(request, keep_last=0))


@planted("checkin", "checkin.model")
class ForcedRunNotFenced(Meddled):
    """oJob Manager, clear (M39, M41): after a forced unlock the old holder can still check out."""

    def force_unlock(self, resource: RunId | LockId, *, token: int | None = None) -> Lease | None:
        with self._lock:
            found = self._runs.find(resource) if isinstance(resource, RunId) else None
            if found is None or found.run.lease is None or found.lapsed(self._now()):
                return super().force_unlock(resource, token=token)
            if token not in (None, found.run.token):
                return None
            self.write(replace(found, until=self._now().elapsed))
            return found.run.lease


@planted("checkin", "checkin.model")
class ForceIgnoresToken(Meddled):
    """An operator's late click takes the run from the one who has it now."""

    def force_unlock(self, resource: RunId | LockId, *, token: int | None = None) -> Lease | None:
        return super().force_unlock(resource)


@planted("checkin", "checkin.model")
class RearmUnguarded(Meddled):
    """A re-arm that was decided on an old listing undoes the outcome that came in meanwhile (S109)."""

    def _rearm(self, request: Rearm, now: Now) -> bool:
        found = self._runs.find(request.run)
        return super()._rearm(request if found is None else replace(request, token=found.run.token), now)


@planted("queue", "queue.model")
class CancelEndsRunning(Meddled):
    """Agenda, cancel: a run that somebody works on is removed under the worker's hands."""

    def cancel(self, run: RunId) -> Cancelled:
        with self._lock:
            found = self._runs.find(run)
            if found is not None and found.run.status is Status.RUNNING:
                ended = replace(found.run, status=Status.CANCELLED, lease=None, ended=self.now())
                self.write(replace(found, run=ended, until=None))
                return Cancelled.CANCELLED
            return super().cancel(run)


@planted("queue", "queue.model")
class CancelNeverTold(Meddled):
    """Many queues: a worker is not told that its running job should stop."""

    def cancel(self, run: RunId) -> Cancelled:
        with self._lock:
            answer = super().cancel(run)
            found = self._runs.find(run)
            if answer is Cancelled.REQUESTED and found is not None:
                self.write(replace(found, run=replace(found.run, cancel_requested=False)))
            return answer


@planted("checkin", "checkin.model")
class ListingForgetsLapsed(Meddled):
    """A listing by an index that a lapse does not update (S88): dead holders' runs are not among the lapsed."""

    def runs(self, query: RunQuery) -> Sequence[Run]:
        return [] if query.lapsed else super().runs(query)


@planted("checkin", "checkin.model")
class CountsDrift(Meddled):
    """Counters kept beside the records: what was purged is still counted."""

    def prepare(self) -> None:
        self.purged = 0

    def counts(self, job: str | None = None, *, stamp: str | None = None) -> Mapping[str, Mapping[Status, int]]:
        found = {name: dict(of_job) for name, of_job in super().counts(job, stamp=stamp).items()}
        if self.purged:
            of_job = found.setdefault("orders", {})
            of_job[Status.SUCCEEDED] = of_job.get(Status.SUCCEEDED, 0) + self.purged
        return found

    def purge(self, request: Purge) -> int:
        done = super().purge(request)
        self.purged += done
        return done


@planted("lock", "lock.model")
class FreeLocksListed(Meddled):
    """A listing shows locks that were let go of as held."""

    def locks(self) -> Sequence[LockState]:
        with self._lock:
            entries = self._locks._entries
            for lock, entry in list(entries.items()):
                entries[lock] = replace(entry, held=True)
            shown = self._locks.states(self._now())
            for lock, entry in list(entries.items()):
                entries[lock] = replace(entry, held=entry.held)
            return shown
