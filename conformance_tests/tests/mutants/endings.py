"""Mutants of renewal and check-out: who may go on, and who may say that it is over."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec.structs import replace

from onceward.contracts import CheckOut, Ending, Renewal, Renewed, RunId, RunSpec, Status
from onceward.contracts import transitions as t
from onceward.contracts.times import span_ms
from onceward.contracts.transitions import Now

from .planted import planted
from .planted_store import Meddled


@planted("checkin", "checkin.model")
class StaleCheckoutAccepted(Meddled):
    """togedo (T36), Agenda (S109): the check-out of one that was taken over overwrites its successor's."""

    def _checkout(self, request: CheckOut, now: Now) -> bool:
        found = self._runs.find(request.run)
        if found is not None and found.run.lease is not None:
            request = replace(request, lease=found.run.lease)
        return super()._checkout(request, now)


@planted("checkin", "checkin.model")
class PurgedRunComesBack(Meddled):
    """togedo (T36): a check-out is an upsert, so a run that was deleted is there again."""

    def _checkout(self, request: CheckOut, now: Now) -> bool:
        if self._runs.find(request.run) is None:
            spec = RunSpec(id=request.run, request=request.request)
            self.write(t.submit(spec, now, sequence=self._next_sequence()))
            return True
        return super()._checkout(request, now)


@planted("checkin", "checkin.model")
class CheckoutOfEndedOverwrites(Meddled):
    """oJob Director (D35): checking out again, with another result, replaces the one that was acknowledged (G6)."""

    def _checkout(self, request: CheckOut, now: Now) -> bool:
        found = self._runs.find(request.run)
        if found is not None and found.run.status is Status.SUCCEEDED and request.lease.token == found.run.token:
            self.write(replace(found, run=replace(found.run, result=request.result)))
            return True
        return super()._checkout(request, now)


@planted("checkin", "checkin.model")
class RepeatedCheckoutStale(Meddled):
    """redis-py, pottery: after a lost reply, the release that worked is reported as lost."""

    def _checkout(self, request: CheckOut, now: Now) -> bool:
        found = self._runs.find(request.run)
        if found is not None and any(attempt.checkout == request.request for attempt in found.run.attempts):
            return False
        return super()._checkout(request, now)


@planted("checkin", "checkin.model")
class LapsedCheckoutRefused(Meddled):
    """The work is done and nobody took over, but what was done late is thrown away, and done again."""

    def _checkout(self, request: CheckOut, now: Now) -> bool:
        found = self._runs.find(request.run)
        late = found is not None and found.lapsed(now)
        return False if late else super()._checkout(request, now)


@planted("checkin", "checkin.model")
class RetryDueAtOnce(Meddled):
    """togedo (T39): no backoff; when a retry is due again is not written."""

    def _checkout(self, request: CheckOut, now: Now) -> bool:
        return super()._checkout(replace(request, after=None, at=None), now)


@planted("checkin", "checkin.model")
class ReleasedCountsAsFailure(Meddled):
    """Tries counted when they start: a run that was given back in a shutdown has used up one of its tries."""

    def _checkout(self, request: CheckOut, now: Now) -> bool:
        recorded = super()._checkout(request, now)
        found = self._runs.find(request.run)
        if recorded and found is not None and request.ending is Ending.RELEASED and not found.run.failures:
            self.write(replace(found, run=replace(found.run, failures=1)))
        return recorded


@planted("checkin", "checkin.model")
class RenewalAdds(Meddled):
    """redis-py, extend: a renewal adds to the lease, and twice if its reply was lost."""

    def _renew(self, renewal: Renewal, now: Now) -> Renewed:
        if not isinstance(renewal.lease.resource, RunId):
            return super()._renew(renewal, now)
        before = self._runs.find(renewal.lease.resource)
        answer = super()._renew(renewal, now)
        duration = renewal.duration or renewal.lease.duration
        if answer is not Renewed.LOST and before is not None and before.until is not None and duration is not None:
            self._runs.extend(replace(self.entry(before.run.id), until=before.until + span_ms(duration)))
        return answer


@planted("checkin", "checkin.model")
class LapsedLeaseRenewed(Meddled):
    """kazoo, tooz: one whose lease is over is told that it still has it, and gets it back."""

    def _renew(self, renewal: Renewal, now: Now) -> Renewed:
        found = self._runs.find(renewal.lease.resource) if isinstance(renewal.lease.resource, RunId) else None
        if found is not None and found.lapsed(now) and t.holds(found.run, renewal.lease):
            self._runs.extend(replace(found, until=now.elapsed + 1))
        return super()._renew(renewal, now)


@planted("checkin", "checkin.model")
class RenewalByHolderName(Meddled):
    """ShedLock on MongoDB, mongolock: a renewal looks at the holder's name only, and not at the token."""

    def _renew(self, renewal: Renewal, now: Now) -> Renewed:
        found = self._runs.find(renewal.lease.resource) if isinstance(renewal.lease.resource, RunId) else None
        newest = None if found is None else found.run.lease
        if newest is not None and newest.holder == renewal.lease.holder:
            renewal = replace(renewal, lease=newest)
        return super()._renew(renewal, now)


@planted("checkin", "checkin.model")
class RenewalRefreshesOne(Meddled):
    """togedo (T34): of all the runs that a worker holds, a heartbeat refreshes the first only."""

    def renew(self, renewals: Sequence[Renewal]) -> Sequence[Renewed]:
        answers = list(super().renew(renewals[:1]))
        return answers + [Renewed.HELD] * (len(renewals) - 1)
