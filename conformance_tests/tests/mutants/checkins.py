"""Mutants of check-in: who is let in, when, and with which token."""

from __future__ import annotations

from datetime import timedelta

from msgspec.structs import replace

from onceward.contracts import Admission, CheckIn, CheckInOutcome, Purge, Run, RunId, RunQuery
from onceward.contracts.times import to_ms

from .planted import planted
from .planted_store import Meddled


@planted("checkin", "checkin.model")
class RunningAdmittedAgain(Meddled):
    """oJob Director (D32): a check-in of a run that is running is admitted as well."""

    def checkin(self, request: CheckIn) -> Admission:
        with self._lock:
            answer = super().checkin(request)
            return self.let_in(request) if answer.outcome is CheckInOutcome.RUNNING else answer


@planted("checkin", "checkin.model")
class DoneAdmittedAgain(Meddled):
    """Pulse, resumeOnRestart (S107): what has finished is run once more."""

    def checkin(self, request: CheckIn) -> Admission:
        with self._lock:
            answer = super().checkin(request)
            return self.let_in(request) if answer.outcome is CheckInOutcome.DONE else answer


@planted("checkin", "checkin.model")
class TokensRestartAfterPurge(Meddled):
    """A fencing counter kept in the record that it guards: deleting the record resets it (MongoDB with a TTL index)."""

    def purge(self, request: Purge) -> int:
        with self._lock:
            purged = super().purge(request)
            self._token = max((entry.run.token for entry in self._runs), default=0)
            return purged


@planted("checkin", "checkin.model")
class TakeoverKeepsToken(Meddled):
    """Locks without fencing (M39, Agenda's lockedAt): whoever takes over has the token of the one that it replaced."""

    def checkin(self, request: CheckIn) -> Admission:
        with self._lock:
            before = self._runs.find(request.run)
            answer = super().checkin(request)
            if before is not None and answer.outcome is CheckInOutcome.TAKEN_OVER and before.run.lease is not None:
                taken, old = self.entry(request.run), before.run.token
                if taken.run.lease is not None and taken.run.token != old:
                    lease = replace(taken.run.lease, token=old)
                    last = replace(taken.run.attempts[-1], token=old)
                    run = replace(taken.run, token=old, lease=lease, attempts=(*taken.run.attempts[:-1], last))
                    self.write(replace(taken, run=run))
                    return self.admission(answer.outcome, request.run)
            return answer


@planted("checkin", "checkin.model")
class LapsesAtHalf(Meddled):
    """Agenda and others that judge leases by a clock that is ahead (S111): a living holder is taken over."""

    def checkin(self, request: CheckIn) -> Admission:
        with self._lock:
            found, now = self._runs.find(request.run), self._now()
            lease = None if found is None else found.run.lease
            if found is not None and found.until is not None and lease is not None and lease.duration is not None:
                half = lease.duration // timedelta(milliseconds=2)
                if lease.request != request.request and 0 < found.until - now.elapsed <= half:
                    self.write(replace(found, until=now.elapsed))
            return super().checkin(request)


@planted("checkin", "checkin.model")
class NeverLapses(Meddled):
    """redis-py without a timeout, Ghost's one-off jobs (G36): what a dead holder had is never available again."""

    def checkin(self, request: CheckIn) -> Admission:
        with self._lock:
            answer = super().checkin(request)
            if answer.outcome.admitted:
                entry = self.entry(request.run)
                self._runs.extend(replace(entry, until=None))
            return answer


@planted("checkin", "checkin.model")
class RepeatedCheckinRefused(Meddled):
    """redis-py, python-redis-lock: after a lost reply the holder is told that somebody else has it."""

    def checkin(self, request: CheckIn) -> Admission:
        with self._lock:
            found = self._runs.find(request.run)
            answer = super().checkin(request)
            if found is not None and found.run.lease is not None and found.run.lease.request == request.request:
                return replace(answer, outcome=CheckInOutcome.RUNNING)
            return answer


@planted("checkin", "checkin.model")
class LateCopyAdmitted(Meddled):
    """A copy of a request, stuck in a dead connection, is let in after its run was given back: an orphan hold."""

    def checkin(self, request: CheckIn) -> Admission:
        with self._lock:
            answer = super().checkin(request)
            due = to_ms(answer.run.run_at) <= self._now().wall
            return self.let_in(request) if answer.outcome is CheckInOutcome.SCHEDULED and due else answer


@planted("checkin", "checkin.model")
class NotDueAdmitted(Meddled):
    """togedo: nothing spaces retries out (T39); a check-in does not look at when the run is due."""

    def checkin(self, request: CheckIn) -> Admission:
        with self._lock:
            answer = super().checkin(request)
            known = any(attempt.request == request.request for attempt in answer.run.attempts)
            return self.let_in(request) if answer.outcome is CheckInOutcome.SCHEDULED and not known else answer


@planted("checkin", "checkin.model")
class RefusedCheckinWritesPayload(Meddled):
    """oJob Director (D35): every check-in writes the whole record, also the one that is refused (G5)."""

    def checkin(self, request: CheckIn) -> Admission:
        with self._lock:
            answer = super().checkin(request)
            if not answer.outcome.admitted and request.payload is not None:
                entry = self.entry(request.run)
                self.write(replace(entry, run=replace(entry.run, payload=self._text(request.payload, "payload"))))
                return self.admission(answer.outcome, request.run)
            return answer


@planted("checkin", "checkin.model")
class RefusedCheckinExtends(Meddled):
    """tooz, etcd3gw: asking again overwrites the lease of whoever has it."""

    def checkin(self, request: CheckIn) -> Admission:
        with self._lock:
            answer = super().checkin(request)
            entry = self.entry(request.run)
            if answer.outcome is CheckInOutcome.RUNNING and entry.until is not None:
                self._runs.extend(replace(entry, until=entry.until + 1_000))
            return answer


@planted("checkin", "checkin.model")
class CrashBudgetIgnored(Meddled):
    """togedo (T35): abandoned jobs bypass the limit of tries, and a poisonous one goes round for ever."""

    def checkin(self, request: CheckIn) -> Admission:
        with self._lock:
            answer = super().checkin(replace(request, max_crashes=None))
            entry = self.entry(request.run)
            if answer.outcome.admitted and entry.run.max_crashes is None:
                self.write(replace(entry, run=replace(entry.run, max_crashes=request.max_crashes)))
                return self.admission(answer.outcome, request.run)
            return answer


@planted("checkin", "checkin.model")
class FailedRunsAgain(Meddled):
    """Ghost's one-offs (G21): a failed run is admitted again, also where the caller asked for a block."""

    def checkin(self, request: CheckIn) -> Admission:
        with self._lock:
            answer = super().checkin(request)
            known = any(attempt.request == request.request for attempt in answer.run.attempts)
            return self.let_in(request) if answer.outcome is CheckInOutcome.FAILED and not known else answer


@planted("checkin", "checkin.model")
class StampsIgnored(Meddled):
    """A key built without all of its parts: runs under different stamps are one (D20)."""

    def checkin(self, request: CheckIn) -> Admission:
        return super().checkin(replace(request, run=RunId(request.run.job, request.run.key)))


@planted("checkin", "checkin.model")
class PagesRepeatTheirLast(Meddled):
    """Paging by 'at most' where it must be 'less than': the last run of a page is the first of the next."""

    def runs(self, query: RunQuery) -> list[Run]:
        step = 0 if query.after is None else -1 if query.oldest_first else 1
        shifted = query if query.after is None else replace(query, after=max(0, query.after + step))
        return list(super().runs(shifted))
