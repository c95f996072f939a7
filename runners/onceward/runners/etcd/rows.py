"""Runs, locks and configurations as they stand in values: JSON, readable with etcdctl.

A token is a revision, and behind it a number that tells apart what one transaction has written. A value cannot hold
the revision that writes it, so a negative token means just that: the revision that wrote the key last. Whoever writes
the value again writes the token out.
"""

from __future__ import annotations

import msgspec
from msgspec.structs import replace

from onceward.contracts.payload import Json
from onceward.contracts.records import Attempt, Ending, Failure, Lease, LockId, Progress, Run, RunId, Status
from onceward.contracts.times import from_ms, span, span_ms, to_ms
from onceward.contracts.transitions import Entry, Now
from onceward.runners.encoding import decode, encode
from onceward.runners.etcd.leases import ends
from onceward.runners.etcd.wire import Kv

#: The token that stands for the transaction that writes it, where that writes but one.
OWN = -1
#: A transaction has room for fewer.
_PER_REVISION = 128
#: etcd takes requests of 1.5 MiB; a run holds a payload and a result.
MAX_PAYLOAD_BYTES = 512 * 1024
#: What else a run holds is cut to this: first the traces of its earlier attempts go, then their errors.
_MAX_HISTORY_BYTES = 256 * 1024

_NULL = msgspec.Raw(b"null")


class _Try(msgspec.Struct, omit_defaults=True):
    number: int
    holder: str
    token: int
    request: str
    started: int
    takeover: bool = False
    ended: int | None = None
    ending: Ending | None = None
    checkout: str | None = None
    error: Failure | None = None


class _Run(msgspec.Struct, omit_defaults=True):
    status: Status
    run_at: int
    created: int
    sequence: int
    payload: msgspec.Raw = _NULL
    result: msgspec.Raw = _NULL
    error: Failure | None = None
    progress: Progress | None = None
    priority: int = 0
    started: int | None = None
    ended: int | None = None
    attempt: int = 0
    failures: int = 0
    crashes: int = 0
    max_crashes: int | None = None
    token: int = 0
    holder: str | None = None
    request: str = ""
    lease_ms: int | None = None
    expires: int | None = None
    origin: str = ""
    cancel_requested: bool = False
    rearmed: bool = False
    attempts: tuple[_Try, ...] = ()


class Lock(msgspec.Struct, omit_defaults=True):
    """A lock's newest lease, and when it was let go of (None: nobody did)."""

    holder: str
    request: str
    token: int
    lease_ms: int
    expires: int
    acquired: int
    note: str | None = None
    freed: int | None = None


class Config(msgspec.Struct, omit_defaults=True):
    """A configuration document, or what is left of it: its version, so that none comes back."""

    version: int
    updated: int
    request: str
    document: msgspec.Raw
    deleted: bool = False


_encode = msgspec.json.Encoder().encode
_decode_run = msgspec.json.Decoder(_Run).decode
_decode_lock = msgspec.json.Decoder(Lock).decode
_decode_config = msgspec.json.Decoder(Config).decode


def own(index: int) -> int:
    """The token that stands for the transaction that writes it, for the one of its runs with this number."""
    return OWN - index


def token_of(token: int, revision: int) -> int:
    """The token as callers know it, of a value that this revision has written."""
    return token if token >= 0 else revision * _PER_REVISION + OWN - token


def json_text(value: Json, field: str) -> str | None:
    """The text to store for ``value``, checked for its size."""
    return encode(value, field=field, most=MAX_PAYLOAD_BYTES)


def _raw(text: Json) -> msgspec.Raw:
    assert text is None or isinstance(text, str)  # within the runner, payloads are canonical text
    return _NULL if text is None else msgspec.Raw(text.encode())


def _text(raw: msgspec.Raw) -> str | None:
    text = bytes(raw)
    return None if text == b"null" else text.decode()


def write_run(run: Run) -> bytes:
    """The value for a run whose payload and result are canonical text."""
    lease = run.lease
    stored = _Run(
        status=run.status,
        run_at=to_ms(run.run_at),
        created=to_ms(run.created),
        sequence=run.sequence,
        payload=_raw(run.payload),
        result=_raw(run.result),
        error=run.error,
        progress=run.progress,
        priority=run.priority,
        started=None if run.started is None else to_ms(run.started),
        ended=None if run.ended is None else to_ms(run.ended),
        attempt=run.attempt,
        failures=run.failures,
        crashes=run.crashes,
        max_crashes=run.max_crashes,
        token=run.token,
        origin=run.origin,
        cancel_requested=run.cancel_requested,
        rearmed=run.rearmed,
        attempts=tuple(map(_try, run.attempts)),
    )
    if lease is not None:
        stored.holder, stored.request = lease.holder, lease.request
        stored.lease_ms = None if lease.duration is None else span_ms(lease.duration)
        stored.expires = None if lease.expires is None else to_ms(lease.expires)
    value = _encode(stored)
    return value if len(value) <= _MAX_HISTORY_BYTES else _trimmed(stored)


def _trimmed(stored: _Run) -> bytes:
    """The value, with less history if that is what makes it too long."""
    room = 2 * MAX_PAYLOAD_BYTES + _MAX_HISTORY_BYTES
    for index in range(len(stored.attempts) - 1):
        value = _encode(stored)
        if len(value) <= room:
            return value
        tried = stored.attempts[index]
        if tried.error is not None:
            slim = Failure(type=tried.error.type, message=tried.error.message[:200])
            stored.attempts = (*stored.attempts[:index], replace(tried, error=slim), *stored.attempts[index + 1 :])
    return _encode(stored)


def _try(attempt: Attempt) -> _Try:
    return _Try(
        attempt.number,
        attempt.holder,
        attempt.token,
        attempt.request,
        to_ms(attempt.started),
        attempt.takeover,
        None if attempt.ended is None else to_ms(attempt.ended),
        attempt.ending,
        attempt.checkout,
        attempt.error,
    )


def read_run(run: RunId, record: Kv, hold: Kv | None) -> Run:
    """The run that is stored so; payload and result stay canonical text."""
    stored = _decode_run(record.value)
    token = token_of(stored.token, record.modified)
    duration = None if stored.lease_ms is None else span(stored.lease_ms)
    lease = None
    if stored.holder is not None:
        expires = ends(hold.lease) if hold is not None and hold.lease else stored.expires
        lease = Lease(
            resource=run,
            holder=stored.holder,
            token=token,
            request=stored.request,
            duration=duration,
            expires=None if expires is None else from_ms(expires),
        )
    return Run(
        id=run,
        status=stored.status,
        run_at=from_ms(stored.run_at),
        created=from_ms(stored.created),
        sequence=stored.sequence,
        payload=_text(stored.payload),
        result=_text(stored.result),
        error=stored.error,
        progress=stored.progress,
        priority=stored.priority,
        started=None if stored.started is None else from_ms(stored.started),
        ended=None if stored.ended is None else from_ms(stored.ended),
        attempt=stored.attempt,
        failures=stored.failures,
        crashes=stored.crashes,
        max_crashes=stored.max_crashes,
        token=token,
        lease=lease,
        origin=stored.origin,
        cancel_requested=stored.cancel_requested,
        rearmed=stored.rearmed,
        attempts=tuple(_attempt(each, record.modified) for each in stored.attempts),
    )


def _attempt(tried: _Try, revision: int) -> Attempt:
    return Attempt(
        number=tried.number,
        holder=tried.holder,
        token=token_of(tried.token, revision),
        request=tried.request,
        started=from_ms(tried.started),
        takeover=tried.takeover,
        ended=None if tried.ended is None else from_ms(tried.ended),
        ending=tried.ending,
        checkout=tried.checkout,
        error=tried.error,
    )


def entry(run: RunId, record: Kv, hold: Kv | None, now: Now) -> Entry:
    """The run, and when its lease ends by our clock. It is the hold that says whether it has: see ``left``."""
    found = read_run(run, record, hold)
    if found.status is not Status.RUNNING:
        return Entry(run=found)
    rest = left(hold, now)
    return Entry(run=found, until=None if rest is None else now.elapsed + rest)


def left(hold: Kv | None, now: Now) -> int | None:
    """Milliseconds until a hold ends; None: never; 0 exactly if it is gone, whatever our clock says."""
    if hold is None:
        return 0
    return max(1, ends(hold.lease) - now.wall) if hold.lease else None


def stamped(run: Run, revision: int) -> Run:
    """The run after its value was written by this revision."""
    if run.token >= 0:
        return run
    token, lease, attempts = token_of(run.token, revision), run.lease, run.attempts
    if lease is not None:
        lease = replace(lease, token=token)
    if attempts and attempts[-1].token < 0:
        attempts = (*attempts[:-1], replace(attempts[-1], token=token))
    return replace(run, token=token, lease=lease, attempts=attempts)


def public(run: Run) -> Run:
    """The run as callers get it: payload and result are values."""
    if run.payload is None and run.result is None:
        return run
    return replace(run, payload=_value(run.payload), result=_value(run.result))


def _value(text: Json) -> Json:
    assert text is None or isinstance(text, str)  # within the runner, payloads are canonical text
    return decode(text)


def write_lock(lock: Lock) -> bytes:
    """The value for a lock."""
    return _encode(lock)


def read_lock(record: Kv) -> Lock:
    """The lock that is stored so."""
    lock = _decode_lock(record.value)
    lock.token = token_of(lock.token, record.modified)
    return lock


def lock_lease(name: LockId, lock: Lock, hold: Kv | None) -> Lease:
    """The lease that a lock was taken with."""
    expires = ends(hold.lease) if hold is not None else lock.expires
    return Lease(
        resource=name,
        holder=lock.holder,
        token=lock.token,
        request=lock.request,
        duration=span(lock.lease_ms),
        expires=from_ms(expires),
    )


def write_config(config: Config) -> bytes:
    """The value for a configuration."""
    return _encode(config)


def read_config(record: Kv) -> Config:
    """The configuration that is stored so."""
    return _decode_config(record.value)


def document_of(config: Config) -> Json:
    """The document itself."""
    return decode(_text(config.document))
