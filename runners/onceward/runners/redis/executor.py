"""The right to run, each verb one script and one round trip."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

from onceward.contracts.executor import Executor
from onceward.contracts.payload import Json
from onceward.contracts.records import Ending, Lease, LockId, Run, RunId
from onceward.contracts.requests import (
    Admission,
    CheckIn,
    CheckInOutcome,
    CheckOut,
    Claim,
    LockAnswer,
    LockRequest,
    OnAbandoned,
    OnFailed,
    Renewal,
    Renewed,
    Want,
)
from onceward.contracts.times import due_ms, from_ms, span, span_ms, to_ms, whole_ms
from onceward.runners.encoding import decode
from onceward.runners.redis import rows
from onceward.runners.redis.base import Base
from onceward.runners.redis.names import escaped, run_text
from onceward.runners.redis.rows import budget_text, json_text, lease_text, listed, number, text

_RENEWED = (Renewed.LOST, Renewed.HELD, Renewed.CANCELLING)
_OUTCOME = {outcome.value: outcome for outcome in CheckInOutcome}


class ExecutorPart(Base, Executor):
    """``Executor`` on the server."""

    def checkin(self, request: CheckIn) -> Admission:
        lease_ms = "" if request.lease is None else span_ms(request.lease)
        options = _options(request)
        reply = self._run("checkin", run_text(request.run), request.holder, request.request, lease_ms, *options)
        if type(reply) is str:
            return _created(request, reply, decode(options[-1]) if options and options[-1] else None)
        outcome, now, fields = listed(reply)
        run = rows.make_run(request.run, rows.fields_of(listed(fields)))
        return Admission(outcome=_OUTCOME[text(outcome)], run=run, remaining=rows.remaining(run, number(now)))

    def claim(self, request: Claim) -> Sequence[Run]:
        which: list[str | int] = ["any"]
        if request.wants is not None:
            which = ["these"]
            for want in request.wants:
                which += _want(want, request)
        reply = self._run(
            "claim",
            request.holder,
            request.request,
            escaped(request.request),
            request.limit,
            span_ms(request.lease),
            *which,
        )
        moment, *runs = listed(reply)
        now = from_ms(number(moment))
        return [rows.claimed(listed(run), request, now) for run in runs]

    def renew(self, renewals: Sequence[Renewal]) -> Sequence[Renewed]:
        arguments: list[str | int] = []
        for renewal in renewals:
            arguments += _renewal(renewal)
        return [_RENEWED[number(answer)] for answer in self._batch("renew", arguments, 6)]

    def checkout(self, checkouts: Sequence[CheckOut]) -> Sequence[bool]:
        arguments: list[str | int] = []
        for checkout in checkouts:
            arguments += _checkout(checkout)
        return [answer == 1 for answer in self._batch("checkout", arguments, 8)]

    def check(self, run: RunId) -> Run | None:
        fields = rows.fields_of(listed(self._link.ask("HGETALL", f"{self._prefix}r:{run_text(run)}")))
        return rows.make_run(run, fields) if fields else None

    def lock(self, request: LockRequest) -> LockAnswer:
        reply = self._run(
            "lock",
            escaped(request.lock.name),
            request.holder,
            request.request,
            span_ms(request.lease),
            json_text(request.note, "note"),
        )
        if type(reply) is str:
            return _granted(request, reply)
        whose, *known = listed(reply)
        if whose == "late":
            return LockAnswer(acquired=False)
        lease = rows.lease_from(request.lock, known[1:])
        assert lease.expires is not None  # every lock has a lease that ends
        left = span(to_ms(lease.expires) - number(known[0]))
        return LockAnswer(acquired=whose == "mine", lease=lease, remaining=left)

    def unlock(self, lease: Lease) -> bool:
        if not isinstance(lease.resource, LockId):
            return False
        return self._run("unlock", escaped(lease.resource.name), str(lease.token), lease.request) == 1


def _options(request: CheckIn) -> tuple[str, ...]:
    """What a check-in wants besides; nothing where it is what most want."""
    usual = request.on_failed is OnFailed.BLOCK and request.on_abandoned is OnAbandoned.RERUN
    if usual and request.max_crashes is None and request.payload is None:
        return ()
    budget, payload = str(budget_text(request.max_crashes)), json_text(request.payload, "payload")
    return request.on_failed, request.on_abandoned, budget, payload


def _created(request: CheckIn, told: str, payload: Json) -> Admission:
    """The admission to a run that this request has made; the server only told when, and the token."""
    moment, token = _told(told)
    duration = None if request.lease is None else whole_ms(request.lease)
    run = rows.first_held(
        rows.new_lease(request.run, request, token, duration, moment),
        now=moment,
        run_at=moment,
        created=moment,
        sequence=token,
        payload=payload,
        max_crashes=request.max_crashes,
        origin=request.request,
    )
    return Admission(outcome=CheckInOutcome.ADMITTED, run=run, remaining=duration)


def _granted(request: LockRequest, told: str) -> LockAnswer:
    """The answer to a lock that this request has got; the server only told when, and the token."""
    moment, token = _told(told)
    duration = whole_ms(request.lease)
    lease = rows.new_lease(request.lock, request, token, duration, moment)
    return LockAnswer(acquired=True, lease=lease, remaining=duration)


def _told(text: str) -> tuple[datetime, int]:
    """Now by the server's clock, and the token that was given."""
    now, token = text.split(" ")
    return from_ms(int(now)), int(token)


def _want(want: Want, request: Claim) -> tuple[str | int, ...]:
    return (
        escaped(want.job),
        request.limit if want.limit is None else want.limit,
        budget_text(want.max_running),
        span_ms(want.lease or request.lease),
    )


def _renewal(renewal: Renewal) -> tuple[str | int, ...]:
    lease = renewal.lease
    is_lock = isinstance(lease.resource, LockId)
    return (
        "lock" if is_lock else "run",
        escaped(lease.resource.name) if isinstance(lease.resource, LockId) else run_text(lease.resource),
        str(lease.token),
        lease.request,
        lease_text(renewal.duration or lease.duration),
        rows.progress_text(renewal.progress),
    )


def _checkout(request: CheckOut) -> tuple[str | int, ...]:
    return (
        run_text(request.run),
        str(request.lease.token),
        request.lease.request,
        request.ending.value,
        json_text(request.result, "result"),
        rows.failure_text(request.error),
        _due(request),
        request.request,
    )


def _due(request: CheckOut) -> str:
    """When the run is due again; "": it has ended."""
    if request.ending not in (Ending.RETRY, Ending.RELEASED):
        return ""
    if request.at is not None:
        return str(due_ms(request.at))
    return f"+{span_ms(request.after or timedelta(0))}"
