"""Between the hashes that the server keeps and the records of the contracts."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

import msgspec

from onceward.contracts.payload import Json
from onceward.contracts.records import (
    ATTEMPTS_KEPT,
    Attempt,
    Ending,
    Failure,
    Lease,
    LockId,
    Progress,
    Run,
    RunId,
    Status,
)
from onceward.contracts.requests import CheckIn, Claim, LockRequest
from onceward.contracts.times import from_ms, span, span_ms, to_ms
from onceward.contracts.transitions import ABANDONED
from onceward.runners.encoding import decode, encode
from onceward.runners.redis.names import run_of
from onceward.runners.redis.wire import Reply

MAX_PAYLOAD_BYTES = 16 * 1024 * 1024
SEPARATOR = "\x1f"

_encode = msgspec.json.Encoder().encode
_failure = msgspec.json.Decoder(Failure).decode
_progress = msgspec.json.Decoder(Progress).decode
_STATUS = {status.value: status for status in Status}
_ENDING = {ending.value: ending for ending in Ending}


def listed(reply: Reply) -> list[Reply]:
    """A reply that is a list."""
    assert isinstance(reply, list)
    return reply


def number(reply: Reply) -> int:
    """A reply that is a whole number."""
    assert isinstance(reply, (int, str))
    return int(reply)


def text(reply: Reply) -> str:
    """A reply that is a text."""
    assert isinstance(reply, str)
    return reply


def run_from(id_and_fields: Sequence[Reply]) -> Run:
    """A run, from its text and its fields one after the other."""
    return make_run(run_of(text(id_and_fields[0])), fields_of(id_and_fields[1:]))


def fields_of(flat: Sequence[Reply]) -> dict[str, str]:
    """Fields by name, from names and values in turn."""
    names = iter(flat)
    return dict(zip(names, names, strict=True))  # type: ignore[arg-type]


def make_run(run: RunId, f: dict[str, str]) -> Run:
    """The run whose hash has these fields; what a check-in leaves out is as in ``facts.lua``."""
    status = _STATUS[f["status"]]
    if "holder" in f:
        f = _by_checkin(f) | f
    attempts = _attempts(f)
    last = attempts[-1] if attempts else None
    return Run(
        id=run,
        status=status,
        run_at=from_ms(int(f.get("run_at") or f["created"])),
        created=from_ms(int(f["created"])),
        sequence=int(f["sequence"]),
        payload=decode(f.get("payload") or None),
        result=decode(f.get("result") or None),
        error=_error(f.get("error")),
        progress=_progress(f["progress"]) if f.get("progress") else None,
        priority=int(f.get("priority", 0)),
        started=last.started if last else None,
        ended=_moment(f.get("ended")),
        attempt=last.number if last else 0,
        failures=int(f.get("failures", 0)),
        crashes=int(f.get("crashes", 0)),
        max_crashes=int(f["max_crashes"]) if f.get("max_crashes") else None,
        token=int(f.get("token", 0)),
        lease=_lease(run, f, last) if last and status is Status.RUNNING else None,
        origin=f["origin"],
        cancel_requested="cancel_requested" in f,
        rearmed="rearmed" in f,
        attempts=attempts,
    )


def _by_checkin(f: dict[str, str]) -> dict[str, str]:
    """What a check-in that makes a run leaves out."""
    created = f["created"]
    left = {"attempt": "1", "token": f["sequence"], "request": f["origin"], "started": created}
    if f.get("lease_ms"):
        left["until"] = str(int(created) + int(f["lease_ms"]))
    return left


def claimed(reply: Sequence[Reply], claim: Claim, now: datetime) -> Run:
    """A run as ``claim.lua`` tells it."""
    if reply[1] != "":
        return run_from(reply)
    name, _, token, lease_ms, run_at, created, sequence, priority, origin, budget, payload = reply
    lease = new_lease(run_of(text(name)), claim, number(token), span(number(lease_ms)), now)
    return first_held(
        lease,
        now=now,
        run_at=from_ms(number(run_at)),
        created=from_ms(number(created)),
        sequence=number(sequence),
        priority=number(priority),
        payload=decode(text(payload) or None),
        max_crashes=number(budget) if budget else None,
        origin=text(origin),
    )


def new_lease(
    resource: RunId | LockId,
    request: CheckIn | Claim | LockRequest,
    token: int,
    duration: timedelta | None,
    now: datetime,
) -> Lease:
    """The lease that a request got ``now``; the server only told what its caller could not know."""
    return Lease(
        resource=resource,
        holder=request.holder,
        token=token,
        request=request.request,
        duration=duration,
        expires=None if duration is None else now + duration,
    )


def first_held(
    lease: Lease,
    *,
    now: datetime,
    run_at: datetime,
    created: datetime,
    sequence: int,
    payload: Json,
    max_crashes: int | None,
    origin: str,
    priority: int = 0,
) -> Run:
    """A run that nobody had before it was leased ``now``."""
    run, holder, token, request = lease.resource, lease.holder, lease.token, lease.request
    assert isinstance(run, RunId)  # locks are not asked about
    return Run(
        id=run,
        status=Status.RUNNING,
        run_at=run_at,
        created=created,
        sequence=sequence,
        payload=payload,
        priority=priority,
        started=now,
        attempt=1,
        max_crashes=max_crashes,
        token=token,
        lease=lease,
        origin=origin,
        attempts=(Attempt(number=1, holder=holder, token=token, request=request, started=now),),
    )


def _error(packed: str | None) -> Failure | None:
    if not packed:
        return None
    return ABANDONED if packed == "abandoned" else _failure(packed)


def _lease(run: RunId, f: dict[str, str], last: Attempt) -> Lease:
    return make_lease(run, last.holder, f["token"], f["request"], f.get("lease_ms"), f.get("until"))


def make_lease(
    resource: RunId | LockId, holder: str, token: str, request: str, lease_ms: str | None, until: str | None
) -> Lease:
    """A lease as the server keeps it; without ``lease_ms`` it never lapses by itself."""
    return Lease(
        resource=resource,
        holder=holder,
        token=int(token),
        request=request,
        duration=span(int(lease_ms)) if lease_ms else None,
        expires=_moment(until),
    )


def lease_from(resource: RunId | LockId, fields: Sequence[Reply]) -> Lease:
    """A lease from holder, token, request, lease_ms, until."""
    holder, token, request, lease_ms, until = (str(field) for field in fields)
    return make_lease(resource, holder, token, request, lease_ms, until)


def _attempts(f: dict[str, str]) -> tuple[Attempt, ...]:
    if "attempt" not in f:
        return ()
    newest = int(f["attempt"])
    earlier = range(max(1, newest - ATTEMPTS_KEPT + 1), newest)
    return (*(_archived(f[f"a{number}"]) for number in earlier), _newest(newest, f))


def _newest(attempt: int, f: dict[str, str]) -> Attempt:
    ended, failure = f.get("attempt_ended"), f.get("error")
    return Attempt(
        number=attempt,
        holder=f["holder"],
        token=int(f.get("attempt_token") or f["token"]),
        request=f.get("attempt_request") or f["request"],
        started=from_ms(int(f["started"])),
        takeover=bool(f.get("takeover")),
        ended=_moment(ended),
        ending=_ENDING[f["ending"]] if ended else None,
        checkout=f.get("checkout") or None,
        error=_failure(failure) if ended and failure and failure != "abandoned" else None,
    )


def _archived(packed: str) -> Attempt:
    number, holder, token, request, started, takeover, ended, ending, checkout, error = packed.split(SEPARATOR)
    return Attempt(
        number=int(number),
        holder=holder,
        token=int(token),
        request=request,
        started=from_ms(int(started)),
        takeover=takeover == "1",
        ended=from_ms(int(ended)),
        ending=_ENDING[ending],
        checkout=checkout or None,
        error=_failure(error) if error else None,
    )


def remaining(run: Run, now: int) -> timedelta | None:
    """How long the run's lease lasts; None: there is none, or it never lapses."""
    if run.lease is None or run.lease.expires is None:
        return None
    return span(to_ms(run.lease.expires) - now)


def json_text(value: Json, field: str) -> str:
    """A payload, result or document as it is sent; "" for none."""
    return "" if value is None else encode(value, field=field, most=MAX_PAYLOAD_BYTES) or ""


def failure_text(error: Failure | None) -> str:
    """An error as it is sent."""
    return "" if error is None else _encode(error).decode()


def progress_text(progress: Progress | None) -> str:
    """A progress as it is sent."""
    return "" if progress is None else _encode(progress).decode()


def lease_text(lease: timedelta | None) -> str | int:
    """A duration in milliseconds as it is sent; "" for none."""
    return "" if lease is None else span_ms(lease)


def budget_text(budget: int | None) -> str | int:
    """A count as it is sent; "" for unlimited."""
    return "" if budget is None else budget


def _moment(ms: str | None) -> datetime | None:
    return None if not ms else from_ms(int(ms))
