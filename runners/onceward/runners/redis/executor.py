"""The right to run, each verb one script and one round trip."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

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
from onceward.contracts.times import due_ms, from_ms, span, span_ms, to_ms
from onceward.runners.encoding import decode
from onceward.runners.redis import rows
from onceward.runners.redis.base import Base
from onceward.runners.redis.names import escaped, run_text
from onceward.runners.redis.rows import budget_text, json_text, lease_text, listed, number, text

_RENEWED = (Renewed.LOST, Renewed.HELD, Renewed.CANCELLING)
#: What a check-in wants unless it says something else; then it is not sent.
_NO_OPTIONS = (OnFailed.BLOCK, OnAbandoned.RERUN, "", "")
_OUTCOME = {outcome.value: outcome for outcome in CheckInOutcome}


class ExecutorPart(Base, Executor):
    """``Executor`` on the server."""

    def checkin(self, request: CheckIn) -> Admission:
        lease_ms = None if request.lease is None else span_ms(request.lease)
        payload = json_text(request.payload, "payload")
        options = (request.on_failed, request.on_abandoned, budget_text(request.max_crashes), payload)
        answer = self._run(
            "checkin",
            run_text(request.run),
            request.holder,
            request.request,
            "" if lease_ms is None else lease_ms,
            *(() if options == _NO_OPTIONS else options),
        )
        reply = listed(answer)
        now = number(reply[1])
        if reply[2] is not None:
            return _created(request, lease_ms, now, number(reply[2]), decode(payload) if payload else None)
        run = rows.make_run(request.run, rows.fields_of(listed(reply[3])))
        return Admission(outcome=_OUTCOME[text(reply[0])], run=run, remaining=rows.remaining(run, now))

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
        reply = listed(
            self._run(
                "lock",
                escaped(request.lock.name),
                request.holder,
                request.request,
                span_ms(request.lease),
                json_text(request.note, "note"),
            )
        )
        if reply[0] == "late":
            return LockAnswer(acquired=False)
        lease = rows.lease_from(request.lock, reply[2:])
        assert lease.expires is not None  # every lock has a lease that ends
        left = span(to_ms(lease.expires) - number(reply[1]))
        return LockAnswer(acquired=reply[0] == "mine", lease=lease, remaining=left)

    def unlock(self, lease: Lease) -> bool:
        if not isinstance(lease.resource, LockId):
            return False
        return self._run("unlock", escaped(lease.resource.name), str(lease.token), lease.request) == 1


def _created(request: CheckIn, lease_ms: int | None, now: int, token: int, payload: Json) -> Admission:
    """The admission to a run that this request has made; the server only told what we could not know."""
    moment = from_ms(now)
    run = rows.first_held(
        request.run,
        holder=request.holder,
        request=request.request,
        token=token,
        duration=None if lease_ms is None else span(lease_ms),
        now=moment,
        run_at=moment,
        created=moment,
        sequence=token,
        payload=payload,
        max_crashes=request.max_crashes,
        origin=request.request,
    )
    return Admission(outcome=CheckInOutcome.ADMITTED, run=run, remaining=run.lease.duration if run.lease else None)


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
