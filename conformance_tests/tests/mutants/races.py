"""Mutants that are right as long as one asks after the other: they look, and act later on what they saw."""

from __future__ import annotations

import time
from collections.abc import Sequence

from msgspec.structs import replace

from onceward.contracts import (
    Admission,
    CheckIn,
    CheckInOutcome,
    CheckOut,
    Claim,
    ConfigDoc,
    ConfigWrite,
    LockAnswer,
    LockRequest,
    Run,
    Status,
)
from onceward.contracts import transitions as t

from .planted import planted
from .planted_store import Meddled


def window() -> None:
    """The moment between the look and the act, in which others come by. It stands for a round trip."""
    time.sleep(0.0005)


@planted("checkin", "checkin.race")
class LooksThenCreates(Meddled):
    """oJob Director (D31), Ghost's addOneOffJob (G37), APScheduler 3 on Redis: get, compare, set."""

    def checkin(self, request: CheckIn) -> Admission:
        seen = self._runs.find(request.run)
        if seen is not None:
            return super().checkin(request)
        window()
        with self._lock:
            answer = super().checkin(request)
            return self.let_in(request) if answer.outcome is CheckInOutcome.RUNNING else answer


@planted("checkin", "checkin.race", "checkin.crash")
class LooksThenTakesOver(Meddled):
    """Sweepers on every node: all that see a dead holder at once take over from it."""

    def checkin(self, request: CheckIn) -> Admission:
        seen = self._runs.find(request.run)
        if seen is None or not seen.lapsed(self._now()):
            return super().checkin(request)
        window()
        with self._lock:
            answer = super().checkin(request)
            again = answer.outcome is CheckInOutcome.RUNNING
            return replace(self.let_in(request), outcome=CheckInOutcome.TAKEN_OVER) if again else answer


@planted("checkin", "checkin.race")
class LooksThenChecksOut(Meddled):
    """oJob Director (D35): of two check-outs at once both are told yes, and the later one stays."""

    def checkout(self, checkouts: Sequence[CheckOut]) -> Sequence[bool]:
        seen = [self._runs.find(each.run) for each in checkouts]
        window()
        with self._lock:
            for entry, each in zip(seen, checkouts, strict=True):
                now = self._runs.find(each.run)
                if entry is not None and now is not None and t.holds(entry.run, each.lease) and now.run.status.ended:
                    self.write(entry)
            return super().checkout(checkouts)


@planted("lock", "lock.race")
class LooksThenLocks(Meddled):
    """OpenAF's locks on files and tables (M40): read, compare, write; two read 'free', and both have it."""

    def lock(self, request: LockRequest) -> LockAnswer:
        entry = self.lock_entry(request.lock)
        free = entry is None or not entry.live(self._now())
        if free:
            window()
        with self._lock:
            found = self.lock_entry(request.lock)
            if free and found is not None and found.live(self._now()) and found.lease.request != request.request:
                self.write_lock(replace(found, held=False))
            return super().lock(request)


@planted("queue", "queue.race")
class LooksThenClaims(Meddled):
    """django-q, arq, togedo (T33): two workers see the same due runs, and both start them."""

    def claim(self, request: Claim) -> Sequence[Run]:
        with self._lock:
            jobs = None if request.wants is None else {want.job for want in request.wants}
            seen = [
                entry.run.id
                for entry in self._runs
                if t.claimable(entry, self._now()) and (jobs is None or entry.run.job in jobs)
            ]
        window()
        with self._lock:
            taken = list(super().claim(request))
            for run in seen[: request.limit - len(taken)]:
                entry = self.entry(run)
                if entry.run.status is Status.RUNNING and all(run != other.id for other in taken):
                    again = CheckIn(run=run, holder=request.holder, request=request.request, lease=request.lease)
                    taken.append(self.let_in(again).run)
            return taken


@planted("queue", "queue.race")
class LooksThenLimits(Meddled):
    """Counting first and claiming then: the limit on running jobs holds for each alone, not for all (G12)."""

    def claim(self, request: Claim) -> Sequence[Run]:
        wants = []
        for want in request.wants or ():
            running = self.counts(want.job).get(want.job, {}).get(Status.RUNNING, 0)
            room = request.limit if want.max_running is None else max(0, want.max_running - running)
            wants.append(replace(want, max_running=None, limit=min(room, request.limit)))
        window()
        return super().claim(request if request.wants is None else replace(request, wants=tuple(wants)))


@planted("queue", "queue.config_race")
class LooksThenEdits(Meddled):
    """Agenda's save() (S109): the version is compared before the write, and not by it; edits are lost (G11)."""

    def write_config(self, write: ConfigWrite) -> ConfigDoc | None:
        known = self.read_config(write.name)
        if (known.version if known is not None else 0) != write.expected_version:
            return super().write_config(write)
        window()
        with self._lock:
            newest = self.read_config(write.name)
            return super().write_config(replace(write, expected_version=newest.version if newest else 0))
