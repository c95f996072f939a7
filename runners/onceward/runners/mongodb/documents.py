"""Between documents of ``runs`` and the entries that the transitions work on.

A field that is missing means what the record's default means. ``until`` is the end of the lease, NEVER for one that
does not lapse; ``queued`` is true for what a claim may take: SCHEDULED runs, and those whose lease was seen to have
lapsed; ``v`` grows with each write and guards those that were decided on what was read.
"""

from __future__ import annotations

from datetime import datetime
from typing import cast

import msgspec
from msgspec.structs import replace

from onceward.contracts.payload import Json
from onceward.contracts.records import Attempt, Ending, Failure, Lease, Progress, Run, RunId, Status
from onceward.contracts.times import from_ms, span, span_ms, to_ms
from onceward.contracts.transitions import Entry, Now
from onceward.runners.encoding import decode, encode
from onceward.runners.mongodb.terms import NEVER, Doc

#: Payload, result, and the errors of all attempts fit into one document of 16 MB.
MAX_PAYLOAD_BYTES = 6 * 1024 * 1024
_MAX_TOKEN = 2**63 - 1

_encode = msgspec.json.Encoder().encode
_decode_attempts = msgspec.json.Decoder(tuple[Attempt, ...]).decode
_decode_failure = msgspec.json.Decoder(Failure).decode
_decode_progress = msgspec.json.Decoder(Progress).decode
_STATUS = {status.value: status for status in Status}
_ENDING = {ending.value: ending for ending in Ending}


def text_of(value: Json, field: str) -> str | None:
    """A payload, result or document as it is stored."""
    return encode(value, field=field, most=MAX_PAYLOAD_BYTES)


def run_key(ns: str, run: RunId) -> Doc:
    """The ``_id`` of a run. The order of its fields is part of it."""
    return {"ns": ns, "job": run.job, "key": run.key, "stamp": run.stamp}


def guard(doc: Doc) -> Doc:
    """The condition that nobody has changed the run since it was read, nor purged it and made it anew."""
    return {"_id": doc["_id"], "v": doc["v"], "seq": doc["seq"]}


def next_token(doc: Doc) -> int:
    """The token of the run's next admission; see ``terms``."""
    newest = int(max(doc.get("token", 0), doc.get("floor", 0)))
    return newest + 1


def now_of(instant: datetime) -> Now:
    """The store's now: its only clock is the wall's."""
    ms = to_ms(instant)
    return Now(ms, ms)


def entry_of(doc: Doc) -> Entry:
    """The entry of a document. Payload and result stay canonical text; see ``public``."""
    key, get = doc["_id"], doc.get
    run = RunId(key["job"], key["key"], key["stamp"])
    status, token, attempt = _STATUS[doc["status"]], int(get("token", 0)), get("attempt", 0)
    error_text = get("error")
    error = None if error_text is None else _decode_failure(error_text)
    until = get("until")
    ends = None if until == NEVER else until
    lease = _lease_of(doc, run, ends) if status is Status.RUNNING else None
    progress = get("progress")
    return Entry(
        run=Run(
            id=run,
            status=status,
            run_at=doc["run_at"],
            created=doc["created"],
            sequence=int(doc["seq"]),
            payload=get("payload"),
            result=get("result"),
            error=error,
            progress=None if progress is None else _decode_progress(progress),
            priority=get("priority", 0),
            started=get("started"),
            ended=get("ended"),
            attempt=attempt,
            failures=get("failures", 0),
            crashes=get("crashes", 0),
            max_crashes=get("max_crashes"),
            token=token,
            lease=lease,
            origin=doc["origin"],
            cancel_requested=get("cancel_requested", False),
            rearmed=get("rearmed", False),
            attempts=_attempts_of(doc, attempt, token, error) if attempt else (),
        ),
        until=None if lease is None or ends is None else to_ms(ends),
    )


def _lease_of(doc: Doc, run: RunId, expires: datetime | None) -> Lease:
    lease_ms = doc.get("lease_ms")
    return Lease(
        resource=run,
        holder=doc["holder"],
        token=int(doc["token"]),
        request=doc["request"],
        duration=None if lease_ms is None else span(lease_ms),
        expires=expires,
    )


def _attempts_of(doc: Doc, attempt: int, token: int, error: Failure | None) -> tuple[Attempt, ...]:
    get = doc.get
    ending, checkout, earlier = get("ending"), get("checkout"), get("earlier")
    last = Attempt(
        number=attempt,
        holder=doc["holder"],
        token=int(get("attempt_token") or token),
        request=get("attempt_request") or doc["request"],
        started=doc["started"],
        takeover=get("takeover", False),
        ended=get("attempt_ended"),
        ending=None if ending is None else _ENDING[ending],
        checkout=checkout,
        error=None if checkout is None else error,
    )
    return (last,) if earlier is None else (*_decode_attempts(earlier), last)


def changes(entry: Entry, before: Entry | None = None) -> Doc:
    """The update that makes a document this entry, whatever it was; what never changes is left alone.

    What a claim has noted with its lease goes with it, unless the lease is still that of ``before``.
    """
    run, lease = entry.run, entry.run.lease
    last = run.attempts[-1] if run.attempts else None
    forced = lease is not None and last is not None and lease.token != last.token
    fields: Doc = {
        "status": run.status.value,
        "queued": run.status is Status.SCHEDULED,
        "run_at": run.run_at,
        "result": run.result,
        "error": failure_text(run.error),
        "progress": progress_text(run.progress),
        "max_crashes": run.max_crashes,
        "attempt": run.attempt,
        "failures": run.failures,
        "crashes": run.crashes,
        "token": run.token,
        "started": run.started,
        "ended": run.ended,
        "cancel_requested": run.cancel_requested,
        "rearmed": run.rearmed,
        "until": _until(entry),
    }
    if lease is not None:
        fields["lease_ms"] = None if lease.duration is None else span_ms(lease.duration)
    if last is not None:
        fields |= {
            "holder": last.holder,
            "request": lease.request if lease is not None else last.request,
            "takeover": last.takeover,
            "attempt_ended": last.ended,
            "ending": None if last.ending is None else last.ending.value,
            "checkout": last.checkout,
            "attempt_token": last.token if last.token != run.token else None,
            "attempt_request": last.request if forced else None,
            "earlier": _encode(run.attempts[:-1]).decode() if len(run.attempts) > 1 else None,
        }
    same = before is not None and lease is not None and before.run.lease == lease
    gone = [name for name, value in fields.items() if value is None] + ([] if same else ["claim", "slot"])
    absent = dict.fromkeys(gone, "")
    return {
        "$set": {name: value for name, value in fields.items() if value is not None},
        "$inc": {"v": 1},
        **({"$unset": absent} if absent else {}),
    }


def first_held(entry: Entry) -> Doc:
    """What makes a SCHEDULED run that nobody had before this entry; the same for all that one claim takes."""
    run, lease = entry.run, entry.run.lease
    assert lease is not None  # it is held
    return {
        "status": run.status.value,
        "queued": False,
        "attempt": run.attempt,
        "token": run.token,
        "started": run.started,
        "until": _until(entry),
        "lease_ms": None if lease.duration is None else span_ms(lease.duration),
        "holder": lease.holder,
        "request": lease.request,
    }


def _until(entry: Entry) -> datetime | None:
    if entry.run.lease is None:
        return None
    return NEVER if entry.until is None else from_ms(entry.until)


def public(entry: Entry) -> Run:
    """The run as callers get it, with payload and result decoded."""
    run = entry.run
    if run.payload is None and run.result is None:
        return run
    # entry_of leaves the canonical text
    return replace(run, payload=decode(cast("str | None", run.payload)), result=decode(cast("str | None", run.result)))


def failure_text(error: Failure | None) -> str | None:
    """An error as it is stored."""
    return None if error is None else _encode(error).decode()


def progress_text(progress: Progress | None) -> str | None:
    """A progress as it is stored."""
    return None if progress is None else _encode(progress).decode()


def proof(lease: Lease) -> Doc:
    """The condition that this lease is the newest."""
    return {"token": storable(lease.token), "request": lease.request}


def storable(token: int) -> int:
    """A token for a condition. One that cannot be stored was never given: none matches."""
    return token if -_MAX_TOKEN <= token <= _MAX_TOKEN else -1
