"""What the state machines of check-in and queue have in common: every way in which a run goes on or ends."""

from __future__ import annotations

from datetime import datetime, timedelta

from hypothesis import strategies as st
from hypothesis.stateful import invariant, rule

from onceward.conformance.machine import Machine, picked, picks
from onceward.conformance.model.runs import Known
from onceward.conformance.trial import Trial
from onceward.conformance.verdicts import Violated
from onceward.contracts import (
    Admission,
    CheckIn,
    CheckInOutcome,
    CheckOut,
    Ending,
    Failure,
    Json,
    Lease,
    OnAbandoned,
    OnFailed,
    Progress,
    Renewal,
    Renewed,
    Run,
    RunId,
    Status,
)

#: Identities that a careless key would mix up.
RUNS = (RunId("orders", "a"), RunId("orders", "b"), RunId("orders", "a", '{"site":"x"}'), RunId("orders/a", "b"))
EXACT_LEASES = (timedelta(seconds=10), timedelta(seconds=1), timedelta(seconds=60), None)
PATIENT_LEASES = (timedelta(hours=1), timedelta(hours=2), None)
ENDINGS = (Ending.SUCCEEDED, Ending.FAILED, Ending.RETRY, Ending.RELEASED, Ending.CANCELLED)
PAYLOADS: tuple[Json, ...] = (None, {"n": 1}, [1, "two"])
FAR = timedelta(minutes=30)
#: Instants need not be whole milliseconds.
ODD = timedelta(microseconds=300)
ERROR = Failure(type="Oops", message="it broke")

runs = st.sampled_from(RUNS)


class RunsMachine(Machine):
    """Knows every run, asks anything at any time, and compares."""

    def __init__(self, trial: Trial) -> None:
        super().__init__(trial)
        self.known: dict[RunId, Known] = {}
        self.newest: dict[RunId, int] = {}
        self.issued: list[Lease] = []
        self.checkins: list[CheckIn] = []
        self.checkouts: list[CheckOut] = []
        self.made = 0
        self.leases = EXACT_LEASES if self.exact else PATIENT_LEASES

    # -- check-in -----------------------------------------------------------------------------------------------

    def enter(self, request: CheckIn) -> None:
        """Somebody checks in, and is answered as the model says."""
        found = self.known.get(request.run)
        before = self.look(request.run)
        wall = self.wall()
        expected = CheckInOutcome.ADMITTED if found is None else found.answer(request, self.now_ms, wall)
        repeated = found is not None and found.asked_by(request.request)
        answer = self.ask(
            f"{request.holder}.checkin({request.run}, {request.request}, lease={brief(request.lease, 'for ever')}"
            + _policy(request)
            + ")",
            lambda: self.client(request.holder).executor.checkin(request),
        )
        self.expect(
            self._law(expected, answer.outcome, request),
            answer.outcome is expected,
            lambda: f"{request.holder} was told {answer.outcome.value!r}, must be {expected.value!r}",
        )
        if expected.admitted and not repeated:
            self._begin(request, found, answer.run)
        elif expected is CheckInOutcome.FAILED and found is not None and found.status is Status.RUNNING:
            found.bury(self.now_ms)
        else:
            after = self.look(request.run)
            self.expect("G5", after == before, lambda: f"a refused or repeated check-in changed {before} into {after}")
        if repeated:
            self.tally_repeat(found)
        self.agrees(request.run, answer.run)
        self._remaining(request.run, answer)

    def _law(self, expected: CheckInOutcome, got: CheckInOutcome, request: CheckIn) -> str:
        """Which promise an answer is evidence for."""
        if any(each.request == request.request for each in self.checkins[:-1]):
            return "G7"
        if expected in (CheckInOutcome.TAKEN_OVER, CheckInOutcome.ABANDONED) or got is CheckInOutcome.TAKEN_OVER:
            return "G8"
        if expected in (CheckInOutcome.DONE, CheckInOutcome.FAILED, CheckInOutcome.CANCELLED):
            return "G6"
        return "J4" if expected is CheckInOutcome.SCHEDULED else "G1"

    def tally_repeat(self, found: Known | None) -> None:
        """A repetition was answered like the first time (checked by the caller)."""
        self.expect("G7", found is not None, "a repeated check-in found no run")

    def _begin(self, request: CheckIn, found: Known | None, run: Run) -> None:
        if found is None:
            found = self.create(
                request.run, request.request, run, payload=request.payload, max_crashes=request.max_crashes
            )
        found.max_crashes = request.max_crashes
        self.begin(found, run, request.lease, holder=request.holder, request=request.request)

    def _remaining(self, run: RunId, answer: Admission) -> None:
        """The time that is left, where the model knows it to the millisecond."""
        found = self.known[run]
        if not self.exact or found.status is not Status.RUNNING:
            return
        left = None if found.until is None else timedelta(milliseconds=found.until - self.now_ms)
        told = answer.remaining
        right = (told is None) == (left is None) and (
            left is None or told is None or told == left or (left <= timedelta(0) and told <= timedelta(0))
        )
        self.expect("C2", right, lambda: f"the lease on {run} has {left} left, the answer said {told}")

    def create(
        self,
        run: RunId,
        origin: str,
        record: Run,
        *,
        payload: Json = None,
        priority: int = 0,
        max_crashes: int | None = None,
    ) -> Known:
        """A run exists that did not before; its due time is learned from the record."""
        self.made += 1
        self.known[run] = Known(
            run, origin, record.run_at, self.made, payload=payload, priority=priority, max_crashes=max_crashes
        )
        return self.known[run]

    def begin(self, found: Known, record: Run, lease: timedelta | None, *, holder: str, request: str) -> None:
        """A holder was admitted: its token is larger than every earlier one, and the lease says what was asked."""
        got = record.lease
        if got is None:
            raise self.trial.keep(Violated("C2", f"{holder} was admitted to {found.id} without a lease"))
        newest = self.newest.get(found.id, 0)
        self.expect("G2", got.token > newest, lambda: f"token {got.token} of {found.id} does not exceed {newest}")
        right = (got.resource, got.holder, got.request) == (found.id, holder, request)
        self.expect("C2", right, lambda: f"the lease {got} is not the one that {holder} asked for with {request}")
        if self.exact:
            self.expect("C2", got.duration == lease, lambda: f"asked for a lease of {lease}, got {got.duration}")
        self.newest[found.id] = got.token
        found.start(got, self.ends(lease))
        self.issued.append(got)

    def ends(self, lease: timedelta | None) -> int | None:
        """When a lease that begins now ends, in the model's time; where time is not ours, it never does by itself."""
        if lease is None or not self.exact:
            return None if lease is None else 2**60
        return self.now_ms + lease // timedelta(milliseconds=1)

    # -- the ways to go on --------------------------------------------------------------------------------------

    @rule(
        pick=picks,
        ending=st.sampled_from(ENDINGS),
        how=st.integers(0, 3),
        payload=st.sampled_from(PAYLOADS),
        together=st.booleans(),
    )
    def checkout(self, pick: int, ending: Ending, how: int, payload: Json, together: bool) -> None:
        """Some leases' holders, perhaps of long ago, check out; one or several in one batch."""
        chosen = picked(self.issued[-4:] if how % 2 else self.issued, pick)
        if chosen is None:
            return
        batch = [chosen]
        if together:
            others = {lease.resource: lease for lease in self.issued if lease.resource != chosen.resource}
            batch = [chosen, *others.values()][:: 1 if pick % 2 else -1]
        requests = [self._checkout(lease, ending, how, payload) for lease in batch]
        self.checkouts.extend(requests)
        self.leave(requests)

    def _checkout(self, lease: Lease, ending: Ending, how: int, payload: Json) -> CheckOut:
        again = ending in (Ending.RETRY, Ending.RELEASED)
        return CheckOut(
            lease=lease,
            ending=ending,
            result=payload if ending in (Ending.SUCCEEDED, Ending.FAILED) else None,
            error=ERROR if ending in (Ending.FAILED, Ending.RETRY) else None,
            after=FAR if again and how == 1 else None,
            at=self.wall() + FAR + ODD if again and how == 2 else None,
            request=self.request(),
        )

    @rule(pick=picks)
    def repeat_checkout(self, pick: int) -> None:
        """A check-out of earlier arrives again."""
        request = picked(self.checkouts, pick)
        if request is not None:
            self.leave([request])

    def leave(self, requests: list[CheckOut]) -> None:
        """Each check-out is recorded exactly if its token is the newest, or it was recorded before."""
        before = {request.run: self.look(request.run) for request in requests}
        early = self.wall()
        shown = ", ".join(f"{r.run} token {r.lease.token} {r.ending.value} {r.request}" for r in requests)
        holder = requests[0].lease.holder
        answers = self.ask(f"{holder}.checkout({shown})", lambda: list(self.client(holder).executor.checkout(requests)))
        self.expect("C2", len(answers) == len(requests), lambda: f"{len(requests)} asked, answered {answers}")
        for request, answer in zip(requests, answers, strict=True):
            self._left(request, answer, before[request.run], early)

    def _left(self, request: CheckOut, answer: bool, before: Run | None, early: datetime) -> None:
        found = self.known.get(request.run)
        repeated = found is not None and found.recorded(request)
        newest = found is not None and found.held_by(request.lease) and not repeated
        law = "G7" if repeated else "G6" if newest else "G4"
        right = answer is (newest or repeated)
        self.expect(law, right, lambda: f"the check-out of {request.run} was answered {answer}")
        after = self.look(request.run)
        if newest and found is not None and after is not None:
            found.finish(request, self._due_after(request, after, early), self.now_ms)
            self.agrees(request.run, after)
        else:
            self.expect(law, after == before, lambda: f"a stale or repeated check-out changed {before} into {after}")

    def _due_after(self, request: CheckOut, after: Run, early: datetime) -> datetime | None:
        if request.ending not in (Ending.RETRY, Ending.RELEASED):
            return None
        if request.at is not None:
            return kept(request.at)
        return self.due_now(after, early, request.after or timedelta(0))

    def due_now(self, record: Run, early: datetime, after: timedelta = timedelta(0)) -> datetime:
        """The record's due time, which must be so long after some moment of the call that ends now."""
        slack = timedelta(0) if self.exact else timedelta(milliseconds=50)
        right = floored(early) + after - slack <= record.run_at <= self.wall() + after + slack
        self.expect("C2", right, lambda: f"{record.id} is due at {record.run_at}, asked {after} after {early}")
        return record.run_at

    @rule(pick=picks, lease=st.integers(0, 2), done=st.integers(0, 2), together=st.booleans())
    def renew(self, pick: int, lease: int, done: int, together: bool) -> None:
        """Some leases' holders renew them, perhaps all in one batch."""
        held = picked(self.issued, pick)
        if held is None:
            return
        duration = None if lease == 0 else self.leases[lease % (len(self.leases) - 1)]
        progress = Progress(done=done) if done else None
        batch = [held] if not together else list({each.resource: each for each in self.issued}.values())
        self.extend(batch, duration, progress)

    def extend(self, batch: list[Lease], duration: timedelta | None = None, progress: Progress | None = None) -> None:
        """Each lease that is still held goes on; the others change nothing."""
        holder = batch[0].holder
        renewals = [Renewal(lease=each, duration=duration, progress=progress) for each in batch]
        before = {each.lease.resource: self._look_at(each.lease) for each in renewals}
        shown = ", ".join(f"{each.resource} token {each.token}" for each in batch)
        answers = self.ask(
            f"{holder}.renew({shown}, {brief(duration)})",
            lambda: list(self.client(holder).executor.renew(renewals)),
        )
        self.expect("C2", len(answers) == len(batch), lambda: f"{len(batch)} asked, answered {answers}")
        for renewal, answer in zip(renewals, answers, strict=True):
            self._renewed(renewal, answer, before[renewal.lease.resource])

    def _look_at(self, lease: Lease) -> Run | None:
        assert isinstance(lease.resource, RunId)  # this machine has no locks
        return self.look(lease.resource)

    def _renewed(self, renewal: Renewal, answer: Renewed, before: Run | None) -> None:
        """A live lease goes on from now; a stale one changes nothing."""
        held = renewal.lease
        assert isinstance(held.resource, RunId)  # this machine has no locks
        found = self.known.get(held.resource)
        live = found is not None and found.held_by(held) and not found.lapsed(self.now_ms)
        stopping = found is not None and found.cancel_requested
        expected = Renewed.LOST if not live else Renewed.CANCELLING if stopping else Renewed.HELD
        law = "L7" if live else "G4"
        self.expect(law, answer is expected, lambda: f"the renewal was answered {answer.value}, must be {expected}")
        after = self._look_at(held)
        if found is None or not live:
            self.expect("G4", after == before, lambda: f"a stale renewal changed {before} into {after}")
            return
        if found.until is not None:
            found.until = self.ends(renewal.duration or held.duration)
        progress = renewal.progress
        kept = after is not None and (progress is None or after.progress == progress)
        self.expect("C2", kept, lambda: f"the progress {progress} was not kept: {after}")
        self.agrees(held.resource, after)

    # -- time ---------------------------------------------------------------------------------------------------

    @rule(ms=st.sampled_from((1, 999, 1_000, 10_000, 61_000)))
    def time_passes(self, ms: int) -> None:
        """Where the clock is ours, any lease may lapse; else nothing happens."""
        self.pass_ms(ms)

    @rule(pick=picks, short=st.booleans())
    def lease_ends(self, pick: int, short: bool) -> None:
        """A live lease comes to its very end, or to the last millisecond before it."""
        self.lapse(pick, short)

    def lapse(self, pick: int, short: bool) -> RunId | None:
        """One of the live leases lapses, or nearly; on which run, if there was one."""
        live = [found for found in self.known.values() if found.live(self.now_ms) and found.until is not None]
        found = picked(live, pick)
        if found is None or found.until is None:
            return None
        if self.exact:
            self.pass_ms(found.until - self.now_ms - short)
            return found.id
        lease = next(x for x in reversed(self.issued) if (x.resource, x.token) == (found.id, found.token))
        self.trial.harness.lapse(self.runner, lease)
        self.trial.say(f"-- the lease {lease.token} of {lease.holder} on {found.id} lapses --")
        found.until = self.now_ms
        return found.id

    # -- looking ------------------------------------------------------------------------------------------------

    def look(self, run: RunId) -> Run | None:
        """The run's record; not part of the history."""
        try:
            return self.runner.executor.check(run)
        except Exception as error:
            raise self.trial.blame(error, f"check({run})") from error

    def agrees(self, run: RunId, record: Run | None) -> None:
        """The record is what the model knows."""
        found = self.known.get(run)
        if found is None or record is None:
            self.expect("C2", found is None and record is None, lambda: f"{run}: {record}, must be {found}")
            return
        self.expect("C2", record.id == run and not found.differences(record), lambda: found.differences(record))

    @invariant()
    def nothing_else_changed(self) -> None:
        """Every run is as the model knows it, also those that were not asked for."""
        for run in RUNS:
            self.agrees(run, self.look(run))


def floored(instant: datetime) -> datetime:
    """Down to whole milliseconds."""
    return instant.replace(microsecond=instant.microsecond // 1000 * 1000)


def kept(instant: datetime) -> datetime:
    """Up to whole milliseconds, as stores keep due times, so that nothing starts before the instant that was asked."""
    return floored(instant + timedelta(microseconds=999))


def brief(span: timedelta | None, without: str = "its own") -> str:
    """A duration in a few letters."""
    return without if span is None else f"{span.total_seconds():g}s"


def _policy(request: CheckIn) -> str:
    """What is unusual about a check-in."""
    parts = [f", {request.on_failed.value}"] if request.on_failed is OnFailed.RERUN else []
    parts += [", hold"] if request.on_abandoned is OnAbandoned.HOLD else []
    parts += [f", max_crashes={request.max_crashes}"] if request.max_crashes is not None else []
    return "".join(parts)
