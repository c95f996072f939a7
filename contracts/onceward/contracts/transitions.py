"""The state machine of a run, as pure functions of what is true, what is asked, and the store's now.

This is the reference of what every store does in its own language (SQL, Lua, pipelines). Stores that read and then
write under a guard (memory, and those with compare-and-set) use it as it stands. ``now`` is (elapsed_ms, wall_ms) of
the store: leases are judged by the first, due times and history by the second. ``token`` is called only when a token
is needed, since each call uses one up.

Each function answers with the record to write, or the very object it was given where nothing changes.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import NamedTuple

from msgspec.structs import replace

from onceward.contracts.records import ATTEMPTS_KEPT, Attempt, Ending, Failure, Lease, Record, Run, RunId, Status
from onceward.contracts.requests import (
    Cancelled,
    CheckIn,
    CheckInOutcome,
    CheckOut,
    OnAbandoned,
    OnFailed,
    Renewal,
    Renewed,
    RunSpec,
)
from onceward.contracts.times import due_ms, from_ms, span, span_ms, to_ms

NextToken = Callable[[], int]

ABANDONED = Failure(type="Abandoned", message="the lease lapsed and no further crash is forgiven")


class Now(NamedTuple):
    """The store's two clocks at one moment, in milliseconds."""

    elapsed: int
    wall: int


class Entry(Record, frozen=True, kw_only=True):
    """A run as a store keeps it: the record, and when its lease ends by the store's lease clock (None: never)."""

    run: Run
    until: int | None = None

    def lapsed(self, now: Now) -> bool:
        """True if it is running on a lease that is over."""
        return self.run.status is Status.RUNNING and self.until is not None and self.until <= now.elapsed

    def remaining(self, now: Now) -> timedelta | None:
        """How long the lease still lasts; None: there is none, or it never lapses."""
        if self.run.status is not Status.RUNNING or self.until is None:
            return None
        return span(self.until - now.elapsed)


def due(at: datetime | None, after: timedelta | None, now: Now) -> int:
    """When a run is due that was asked for ``at`` an instant, or ``after`` a while, or at once."""
    if at is not None:
        return due_ms(at)
    return now.wall + (span_ms(after) if after is not None else 0)


def submit(spec: RunSpec, now: Now, *, sequence: int) -> Entry:
    """The run that a spec makes when it is not known yet."""
    run = Run(
        id=spec.id,
        status=Status.SCHEDULED,
        run_at=from_ms(due(spec.run_at, spec.after, now)),
        created=from_ms(now.wall),
        sequence=sequence,
        payload=spec.payload,
        priority=spec.priority,
        max_crashes=spec.max_crashes,
        origin=spec.request,
    )
    return Entry(run=run)


def checkin(
    found: Entry | None, request: CheckIn, now: Now, *, token: NextToken, sequence: Callable[[], int]
) -> tuple[CheckInOutcome, Entry]:
    """May the caller run this? See ``Executor.checkin``."""
    if found is None:
        return CheckInOutcome.ADMITTED, _begin(request, now, token(), sequence())
    run = found.run
    if run.lease is not None and run.lease.request == request.request:
        takeover = bool(run.attempts) and run.attempts[-1].takeover
        return (CheckInOutcome.TAKEN_OVER if takeover else CheckInOutcome.ADMITTED), found
    late = any(attempt.request == request.request for attempt in run.attempts)
    match run.status:
        case Status.SUCCEEDED:
            return CheckInOutcome.DONE, found
        case Status.CANCELLED:
            return CheckInOutcome.CANCELLED, found
        case Status.FAILED:
            if request.on_failed is OnFailed.BLOCK or late:
                return CheckInOutcome.FAILED, found
            return CheckInOutcome.ADMITTED, _admit(found, request, now, token())
        case Status.SCHEDULED:
            if to_ms(run.run_at) > now.wall or late:
                return CheckInOutcome.SCHEDULED, found
            return CheckInOutcome.ADMITTED, _admit(found, request, now, token())
        case Status.RUNNING:
            return _checkin_running(found, request, now, token, late=late)


def _begin(request: CheckIn, now: Now, token: int, sequence: int) -> Entry:
    """A new run, held from its first moment: what ``submit`` and ``hold`` make of it together, made at once."""
    moment, lease_ms = from_ms(now.wall), _ms(request)
    lease = _lease(request.run, request.holder, request.request, lease_ms, now, token)
    attempt = Attempt(number=1, holder=request.holder, token=token, request=request.request, started=moment)
    run = Run(
        id=request.run,
        status=Status.RUNNING,
        run_at=moment,
        created=moment,
        sequence=sequence,
        payload=request.payload,
        max_crashes=request.max_crashes,
        origin=request.request,
        attempt=1,
        token=token,
        lease=lease,
        started=moment,
        attempts=(attempt,),
    )
    return Entry(run=run, until=None if lease_ms is None else now.elapsed + lease_ms)


def _lease(run: RunId, holder: str, request: str, lease_ms: int | None, now: Now, token: int) -> Lease:
    if lease_ms is None:
        return Lease(resource=run, holder=holder, token=token, request=request)
    return Lease(
        resource=run,
        holder=holder,
        token=token,
        request=request,
        duration=span(lease_ms),
        expires=from_ms(now.wall + lease_ms),
    )


def _checkin_running(
    found: Entry, request: CheckIn, now: Now, token: NextToken, *, late: bool
) -> tuple[CheckInOutcome, Entry]:
    if not found.lapsed(now):
        return CheckInOutcome.RUNNING, found
    if request.on_abandoned is OnAbandoned.HOLD or late:
        return CheckInOutcome.ABANDONED, found
    if request.max_crashes is not None and found.run.crashes >= request.max_crashes:
        return CheckInOutcome.FAILED, bury(found, now)
    return CheckInOutcome.TAKEN_OVER, _admit(found, request, now, token())


def _admit(found: Entry, request: CheckIn, now: Now, token: int) -> Entry:
    entry = hold(found, holder=request.holder, request=request.request, lease_ms=_ms(request), now=now, token=token)
    return replace(entry, run=replace(entry.run, max_crashes=request.max_crashes))


def _ms(request: CheckIn) -> int | None:
    return None if request.lease is None else span_ms(request.lease)


def claimable(found: Entry, now: Now) -> bool:
    """True if a claim may take it (or end it, if its crash budget is used up)."""
    run = found.run
    return found.lapsed(now) or (run.status is Status.SCHEDULED and to_ms(run.run_at) <= now.wall)


def exhausted(found: Entry, now: Now) -> bool:
    """True if it has lapsed and no further crash is forgiven: a claim ends it by ``bury`` instead of taking it."""
    run = found.run
    return found.lapsed(now) and run.max_crashes is not None and run.crashes >= run.max_crashes


def hold(found: Entry, *, holder: str, request: str, lease_ms: int | None, now: Now, token: int) -> Entry:
    """The caller holds the run: next attempt, new token, new lease. A lapsed attempt before it is written off."""
    takeover = found.run.status is Status.RUNNING
    run = _write_off(found.run, now) if takeover else found.run
    moment = from_ms(now.wall)
    lease = _lease(run.id, holder, request, lease_ms, now, token)
    attempt = Attempt(
        number=run.attempt + 1, holder=holder, token=token, request=request, started=moment, takeover=takeover
    )
    run = replace(
        run,
        status=Status.RUNNING,
        attempt=run.attempt + 1,
        token=token,
        lease=lease,
        started=moment,
        ended=None,
        result=None,
        error=None,
        progress=None,
        cancel_requested=takeover and run.cancel_requested,  # a crash does not make the wish to stop go away
        rearmed=False,
        attempts=(*run.attempts, attempt)[-ATTEMPTS_KEPT:],
    )
    return Entry(run=run, until=None if lease_ms is None else now.elapsed + lease_ms)


def bury(found: Entry, now: Now) -> Entry:
    """A lapsed run whose crash budget is used up has ended as FAILED."""
    run = _write_off(found.run, now)
    run = replace(run, status=Status.FAILED, lease=None, ended=from_ms(now.wall), error=ABANDONED)
    return Entry(run=replace(run, cancel_requested=False))


def _write_off(run: Run, now: Now) -> Run:
    """The open attempt is marked as abandoned and counted as a crash."""
    return replace(
        run, crashes=run.crashes + 1, attempts=_close_last(run, now, Ending.ABANDONED, checkout=None, error=None)
    )


def _close_last(
    run: Run, now: Now, ending: Ending, *, checkout: str | None, error: Failure | None
) -> tuple[Attempt, ...]:
    if not run.attempts:
        return ()
    last = replace(run.attempts[-1], ended=from_ms(now.wall), ending=ending, checkout=checkout, error=error)
    return (*run.attempts[:-1], last)


def renew(found: Entry | None, renewal: Renewal, now: Now) -> tuple[Renewed, Entry | None]:
    """Extend a run's lease; see ``Executor.renew``."""
    if found is None or not holds(found.run, renewal.lease) or found.lapsed(now):
        return Renewed.LOST, found
    duration = renewal.duration or renewal.lease.duration
    lease = found.run.lease
    assert lease is not None  # holds() saw it
    run, until = found.run, found.until
    if duration is not None and lease.duration is not None:
        ms = span_ms(duration)
        until = now.elapsed + ms
        run = replace(run, lease=replace(lease, duration=duration, expires=from_ms(now.wall + ms)))
    if renewal.progress is not None:
        run = replace(run, progress=renewal.progress)
    return (Renewed.CANCELLING if run.cancel_requested else Renewed.HELD), Entry(run=run, until=until)


def holds(run: Run, lease: Lease) -> bool:
    """True if this lease is the run's newest: token and request id both match."""
    return (
        run.status is Status.RUNNING
        and run.lease is not None
        and run.lease.token == lease.token
        and run.lease.request == lease.request
    )


def checkout(found: Entry | None, request: CheckOut, now: Now) -> tuple[bool, Entry | None]:
    """End the attempt; see ``Executor.checkout``."""
    if found is None:
        return False, None
    run = found.run
    if any(a.token == request.lease.token and a.checkout == request.request for a in run.attempts):
        return True, found
    if not holds(run, request.lease):
        return False, found
    run = replace(
        run,
        lease=None,
        cancel_requested=False,
        attempts=_close_last(run, now, request.ending, checkout=request.request, error=request.error),
        failures=run.failures + (request.ending in (Ending.FAILED, Ending.RETRY)),
        error=request.error,
    )
    if request.ending in (Ending.RETRY, Ending.RELEASED):
        run_at = from_ms(due(request.at, request.after, now))
        return True, Entry(run=replace(run, status=Status.SCHEDULED, run_at=run_at))
    status = Status(request.ending.value)
    return True, Entry(run=replace(run, status=status, ended=from_ms(now.wall), result=request.result))


def cancel(found: Entry | None, now: Now) -> tuple[Cancelled, Entry | None]:
    """Cancel or ask to stop; see ``Scheduler.cancel``."""
    if found is None:
        return Cancelled.ABSENT, None
    match found.run.status:
        case Status.SCHEDULED:
            run = replace(found.run, status=Status.CANCELLED, ended=from_ms(now.wall))
            return Cancelled.CANCELLED, Entry(run=run)
        case Status.RUNNING:
            return Cancelled.REQUESTED, replace(found, run=replace(found.run, cancel_requested=True))
        case Status.CANCELLED:
            return Cancelled.CANCELLED, found
        case _:
            return Cancelled.ENDED, found


def rearm(found: Entry | None, token: int, now: Now) -> tuple[bool, Entry | None]:
    """Make an ended run claimable again; see ``Lifecycle.rearm``."""
    if found is None or found.run.token != token:
        return False, found
    if found.run.status is Status.SCHEDULED and found.run.rearmed:
        return True, found
    if not found.run.status.ended:
        return False, found
    run = replace(
        found.run,
        status=Status.SCHEDULED,
        run_at=from_ms(now.wall),
        ended=None,
        failures=0,
        crashes=0,
        rearmed=True,
    )
    return True, Entry(run=run)


def force_lapse(found: Entry, now: Now, *, token: int) -> Entry:
    """Whoever held the run has lost it: its lease is over, and a larger token fences the old one off."""
    lease = found.run.lease
    assert lease is not None  # only a RUNNING run is forced
    fenced = replace(lease, token=token, request=f"forced:{token}", expires=from_ms(now.wall))
    return Entry(run=replace(found.run, token=token, lease=fenced), until=now.elapsed)
