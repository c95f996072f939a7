"""Mutants of the queue: what a claim takes, in which order, and how much."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from msgspec.structs import replace

from onceward.contracts import Claim, Run, RunId, RunSpec, Status, new_request
from onceward.contracts import transitions as t
from onceward.contracts.times import from_ms, span_ms, to_ms
from onceward.contracts.transitions import Entry

from .planted import planted
from .planted_store import Meddled


class QueueMutant(Meddled):
    """A store whose claims look at all runs, in an order and by a rule that subclasses change."""

    def claim(self, request: Claim) -> Sequence[Run]:
        with self._lock:
            again = [entry.run.id for entry in self._runs.held_by(request.request)]
            taken = self.repeated(again, request) if again else self.take(request)
            return [run for each in taken if (run := self.check(each)) is not None]

    def repeated(self, again: list[RunId], request: Claim) -> list[RunId]:
        """A claim that still holds something is answered with it."""
        return again

    def take(self, request: Claim) -> list[RunId]:
        """Walk through what may be claimed and hold the first ones."""
        taken: list[RunId] = []
        before = {entry.run.id: entry for entry in self._runs}
        for entry in sorted((entry for entry in self._runs if self.may(entry)), key=self.rank):
            if len(taken) == request.limit:
                break
            if not self.room(entry.run.job, request, taken, before):
                continue
            if self.spent(entry):
                self.write(t.bury(entry, self._now()))
            else:
                self.hold(entry, request)
                taken.append(entry.run.id)
        return taken

    def hold(self, entry: Entry, request: Claim) -> None:
        """The caller has it."""
        lease = next((want.lease for want in request.wants or () if want.job == entry.run.job), None) or request.lease
        now, token = self._now(), self._next_token()
        self.write(
            t.hold(
                entry,
                holder=request.holder,
                request=request.request,
                lease_ms=span_ms(lease),
                now=now,
                token=token,
            )
        )

    def may(self, entry: Entry) -> bool:
        """It is due, or has lapsed."""
        return t.claimable(entry, self._now())

    def spent(self, entry: Entry) -> bool:
        """No further crash is forgiven."""
        return t.exhausted(entry, self._now())

    def rank(self, entry: Entry) -> tuple[int, ...]:
        """Priority, then time, then submission."""
        return (-entry.run.priority, to_ms(entry.run.run_at), entry.run.sequence)

    def room(self, job: str, request: Claim, taken: list[RunId], before: dict[RunId, Entry]) -> bool:
        """The claim wants one more of the job, and may have it."""
        if request.wants is None:
            return True
        want = next((want for want in request.wants if want.job == job), None)
        if want is None or (want.limit is not None and sum(run.job == job for run in taken) >= want.limit):
            return False
        return want.max_running is None or self.running(job, before) < want.max_running

    def running(self, job: str, before: dict[RunId, Entry]) -> int:
        """Live leases of the job."""
        now = self._now()
        return sum(
            entry.run.status is Status.RUNNING and not entry.lapsed(now) for entry in self._runs if entry.run.job == job
        )


@planted("queue", "queue.model")
class PriorityIgnored(QueueMutant):
    """Many Redis lists: first come, first served, whatever the priority (G13)."""

    def rank(self, entry: Entry) -> tuple[int, ...]:
        return super().rank(entry)[1:]


@planted("queue", "queue.model")
class PriorityUpsideDown(QueueMutant):
    """Systems disagree about whether 1 or 10 is urgent; here the least urgent goes first."""

    def rank(self, entry: Entry) -> tuple[int, ...]:
        return (entry.run.priority, *super().rank(entry)[1:])


@planted("queue", "queue.model")
class LastInFirstOut(QueueMutant):
    """An index without a tie-breaker: of runs that are due at the same time, the newest goes first."""

    def rank(self, entry: Entry) -> tuple[int, ...]:
        return (*super().rank(entry)[:2], -entry.run.sequence)


@planted("queue", "queue.model")
class NotYetDueTaken(QueueMutant):
    """ShedLock, db-scheduler with skewed clocks (J4): a claim takes what is due in a second."""

    def may(self, entry: Entry) -> bool:
        soon = entry.run.status is Status.SCHEDULED and to_ms(entry.run.run_at) <= self._now().wall + 1_000
        return soon or super().may(entry)


@planted("queue", "queue.model")
class LapsedNeverTaken(QueueMutant):
    """huey, taskiq on lists: what was popped is nowhere else, and lost when its worker dies (G8)."""

    def may(self, entry: Entry) -> bool:
        return entry.run.status is Status.SCHEDULED and super().may(entry)


@planted("queue", "queue.model")
class RunningTaken(QueueMutant):
    """SAQ's sweeper: a living worker's run is taken by another one."""

    def may(self, entry: Entry) -> bool:
        now = self._now()
        late = entry.until is not None and entry.until - now.elapsed <= 1_000
        return super().may(entry) or (entry.run.status is Status.RUNNING and late)


@planted("queue", "queue.model")
class BatchPassesLimit(QueueMutant):
    """A limit on running jobs that is looked at before the batch, and not within it (G12)."""

    def running(self, job: str, before: dict[RunId, Entry]) -> int:
        now = self._now()
        held = (entry for entry in before.values() if entry.run.job == job and entry.run.status is Status.RUNNING)
        return sum(not entry.lapsed(now) for entry in held)


@planted("queue", "queue.model")
class LimitPerHolder(QueueMutant):
    """Agenda's concurrency: the limit is one of each process, and not of all together (G12)."""

    def take(self, request: Claim) -> list[RunId]:
        self.holder = request.holder
        return super().take(request)

    def running(self, job: str, before: dict[RunId, Entry]) -> int:
        now = self._now()
        mine = (
            entry
            for entry in self._runs
            if entry.run.job == job and entry.run.lease is not None and entry.run.lease.holder == self.holder
        )
        return sum(not entry.lapsed(now) for entry in mine)


@planted("queue", "queue.model")
class CountsDead(QueueMutant):
    """Counters that drift (G12): a dead worker's run takes up a place under the limit for ever."""

    def running(self, job: str, before: dict[RunId, Entry]) -> int:
        return sum(entry.run.status is Status.RUNNING for entry in self._runs if entry.run.job == job)


@planted("queue", "queue.model")
class PoisonGoesRound(QueueMutant):
    """togedo (T35): abandoned runs bypass the limit of tries when they are claimed."""

    def spent(self, entry: Entry) -> bool:
        return False


@planted("queue", "queue.model")
class RepeatedClaimTakesMore(QueueMutant):
    """A pop from a list, sent again after a lost reply: the first runs are held by nobody who knows."""

    def repeated(self, again: list[RunId], request: Claim) -> list[RunId]:
        return self.take(replace(request, request=new_request()))


@planted("queue", "queue.model")
class WrongRunReturned(QueueMutant):
    """togedo (T33): after the pick, any run that this worker holds is loaded, and not the one picked."""

    def take(self, request: Claim) -> list[RunId]:
        taken = super().take(request)
        mine = sorted(
            (entry.run.token, entry.run.id)
            for entry in self._runs
            if entry.run.lease is not None and entry.run.lease.holder == request.holder
        )
        return [run for _, run in mine[: len(taken)]]


@planted("queue", "queue.model")
class LimitOfWantIgnored(QueueMutant):
    """A claim takes more of a job than was asked for of it."""

    def room(self, job: str, request: Claim, taken: list[RunId], before: dict[RunId, Entry]) -> bool:
        wants = request.wants and tuple(replace(want, limit=None) for want in request.wants)
        return super().room(job, replace(request, wants=wants), taken, before)


@planted("queue", "queue.model")
class RepeatedSubmitIsNo(Meddled):
    """togedo (T32): after a lost reply, the job that was just made is reported as known already."""

    def _submit(self, spec: RunSpec, now: t.Now) -> bool:
        return self._runs.find(spec.id) is None and super()._submit(spec, now)


@planted("queue", "queue.model")
class SubmitOverwrites(Meddled):
    """An upsert by key: submitting a known key replaces what waits under it (G5)."""

    def _submit(self, spec: RunSpec, now: t.Now) -> bool:
        found = self._runs.find(spec.id)
        made = super()._submit(spec, now)
        if found is not None and not made and found.run.status is Status.SCHEDULED:
            self.write(replace(found, run=replace(found.run, payload=spec.payload, priority=spec.priority)))
        return made


@planted("queue", "queue.model")
class HeldRunRescheduled(Meddled):
    """Agenda (S109): a save of the whole document moves a job that somebody works on."""

    def reschedule(self, run: RunId, *, run_at: datetime) -> bool:
        with self._lock:
            found = self._runs.find(run)
            if found is not None and found.run.status is Status.RUNNING:
                self.write(replace(found, run=replace(found.run, run_at=from_ms(to_ms(run_at)))))
                return True
            return super().reschedule(run, run_at=run_at)
