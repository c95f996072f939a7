"""How records are kept in nodes: JSON, in which times and tokens may stand relative to the write that stored them.

Some writes need no look before them: a new run, a free lock, a check-out. Such a write cannot know the server's time,
nor its own zxid. It says "now" and "my zxid" instead, and whoever reads the node finds both in the node's stat:
``mtime`` and ``mzxid`` are those of the very write that stored what is read. So the pure transitions are used as they
stand, with ``UNKNOWN`` as their now and ``mine()`` as their token, wherever they need not compare times.
"""

from __future__ import annotations

from datetime import datetime
from typing import NamedTuple

import msgspec
from msgspec.structs import replace

from onceward.contracts.locking import LockEntry
from onceward.contracts.payload import Json
from onceward.contracts.records import Attempt, ConfigDoc, Ending, Failure, Lease, LockId, Progress, Run, RunId, Status
from onceward.contracts.times import from_ms, span, span_ms, to_ms
from onceward.contracts.transitions import Entry, Now
from onceward.runners.encoding import decode as decoded
from onceward.runners.encoding import encode as encoded
from onceward.runners.zookeeper.tickets import Stamp

#: Less than a quarter of what a message may hold, since a record has a payload, a result, and its last attempts.
MAX_PAYLOAD_BYTES = 256 * 1024
#: ZooKeeper refuses messages of one MiB; the rest is for paths and for what goes with the record in its transaction.
_MAX_NODE_BYTES = 960_000

#: A time before all times: what is after it by so much, is after the write by so much.
_WRITTEN = -60_000_000_000_000
UNKNOWN = Now(_WRITTEN, _WRITTEN)
#: So many records may be changed by one transaction.
MOST_TOGETHER = 128
#: Behind every place that a change has: what comes after a transaction, and before all that comes after it.
LAST = MOST_TOGETHER - 1
_PLACE_BITS = 7


def number(zxid: int, place: int) -> int:
    """A token or sequence: by transaction, then by place in it. Has 53 bits up to the 16,384th leader election."""
    return zxid << _PLACE_BITS | place


def mine(place: int) -> int:
    """The number that the transaction which stores it will give, to what has this place in it."""
    return -1 - place % MOST_TOGETHER


class _Attempt(msgspec.Struct, omit_defaults=True):
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


class _Lease(msgspec.Struct, omit_defaults=True):
    holder: str
    token: int
    request: str
    ms: int | None = None
    expires: int | None = None


class _Run(msgspec.Struct, omit_defaults=True):
    job: str
    key: str
    stamp: str
    status: Status
    run_at: int
    created: int
    sequence: int
    place: str = ""
    payload: str | None = None
    result: str | None = None
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
    lease: _Lease | None = None
    until: int | None = None
    origin: str = ""
    cancel_requested: bool = False
    rearmed: bool = False
    attempts: list[_Attempt] = []


class _Lock(msgspec.Struct, omit_defaults=True):
    name: str
    lease: _Lease
    until: int
    acquired: int
    held: bool
    note: str | None = None
    released: int | None = None
    """When it was let go of; that counts if the lease had not lapsed by then."""


class _Config(msgspec.Struct, omit_defaults=True):
    name: str
    version: int
    updated: int
    request: str
    document: str | None = None
    deleted: bool = False


class Kept(NamedTuple):
    """A run as it is kept, and the node that lists it (below ``live`` or ``queue``; "" once it has ended)."""

    entry: Entry
    place: str


class Config(NamedTuple):
    """A configuration as it is kept; the latest document stays when it is deleted."""

    name: str
    version: int
    updated: int
    request: str
    document: str | None
    deleted: bool

    def public(self) -> ConfigDoc:
        """As callers get it."""
        return ConfigDoc(
            name=self.name, version=self.version, document=decoded(self.document), updated=from_ms(self.updated)
        )


_encode = msgspec.json.Encoder().encode
_decode_run = msgspec.json.Decoder(_Run).decode
_decode_lock = msgspec.json.Decoder(_Lock).decode
_decode_config = msgspec.json.Decoder(_Config).decode


class _Reading:
    """Makes times and tokens of a node absolute."""

    def __init__(self, stamp: Stamp) -> None:
        self._stamp = stamp

    def ms(self, kept: int) -> int:
        return kept if kept >= 0 else self._stamp.wall + kept - _WRITTEN

    def time(self, kept: int | None) -> datetime | None:
        return None if kept is None else from_ms(self.ms(kept))

    def number(self, kept: int) -> int:
        return kept if kept >= 0 else number(self._stamp.zxid, -1 - kept)

    def request(self, kept: str) -> str:
        """Of a holder, or of who forced it out: that names the token."""
        forced, colon, token = kept.partition(":-")
        return f"{forced}:{self.number(-int(token))}" if colon and forced == "forced" and token.isdecimal() else kept

    def lease(self, resource: RunId | LockId, kept: _Lease) -> Lease:
        return Lease(
            resource=resource,
            holder=kept.holder,
            token=self.number(kept.token),
            request=self.request(kept.request),
            duration=None if kept.ms is None else span(kept.ms),
            expires=self.time(kept.expires),
        )

    def attempt(self, kept: _Attempt) -> Attempt:
        return Attempt(
            number=kept.number,
            holder=kept.holder,
            token=self.number(kept.token),
            request=kept.request,
            started=from_ms(self.ms(kept.started)),
            takeover=kept.takeover,
            ended=self.time(kept.ended),
            ending=kept.ending,
            checkout=kept.checkout,
            error=kept.error,
        )


def run_of(data: bytes, stamp: Stamp) -> Kept:
    """The run that a node holds, stored by the write with that stamp."""
    row, reading = _decode_run(data), _Reading(stamp)
    identity = RunId(row.job, row.key, row.stamp)
    run = Run(
        id=identity,
        status=row.status,
        run_at=from_ms(reading.ms(row.run_at)),
        created=from_ms(reading.ms(row.created)),
        sequence=reading.number(row.sequence),
        payload=row.payload,
        result=row.result,
        error=row.error,
        progress=row.progress,
        priority=row.priority,
        started=reading.time(row.started),
        ended=reading.time(row.ended),
        attempt=row.attempt,
        failures=row.failures,
        crashes=row.crashes,
        max_crashes=row.max_crashes,
        token=reading.number(row.token),
        lease=None if row.lease is None else reading.lease(identity, row.lease),
        origin=row.origin,
        cancel_requested=row.cancel_requested,
        rearmed=row.rearmed,
        attempts=tuple(map(reading.attempt, row.attempts)),
    )
    return Kept(Entry(run=run, until=None if row.until is None else reading.ms(row.until)), row.place)


def run_bytes(kept: Kept) -> bytes:
    """What a node holds of a run. Where that is too long, the oldest attempts' traces and messages go first."""
    run = kept.entry.run
    row = _Run(
        job=run.job,
        key=run.key,
        stamp=run.id.stamp,
        status=run.status,
        run_at=to_ms(run.run_at),
        created=to_ms(run.created),
        sequence=run.sequence,
        place=kept.place,
        payload=_text(run.payload),
        result=_text(run.result),
        error=run.error,
        progress=run.progress,
        priority=run.priority,
        started=_ms(run.started),
        ended=_ms(run.ended),
        attempt=run.attempt,
        failures=run.failures,
        crashes=run.crashes,
        max_crashes=run.max_crashes,
        token=run.token,
        lease=None if run.lease is None else _lease(run.lease),
        until=kept.entry.until,
        origin=run.origin,
        cancel_requested=run.cancel_requested,
        rearmed=run.rearmed,
        attempts=[_attempt(attempt) for attempt in run.attempts],
    )
    return _short(row)


def _short(row: _Run) -> bytes:
    data = _encode(row)
    for attempt in row.attempts:
        if len(data) <= _MAX_NODE_BYTES:
            break
        if attempt.error is not None:
            attempt.error = Failure(type=attempt.error.type, message="(left out: the record would be too long)")
            data = _encode(row)
    return data


def _lease(lease: Lease) -> _Lease:
    return _Lease(
        holder=lease.holder,
        token=lease.token,
        request=lease.request,
        ms=None if lease.duration is None else span_ms(lease.duration),
        expires=_ms(lease.expires),
    )


def _attempt(attempt: Attempt) -> _Attempt:
    return _Attempt(
        number=attempt.number,
        holder=attempt.holder,
        token=attempt.token,
        request=attempt.request,
        started=to_ms(attempt.started),
        takeover=attempt.takeover,
        ended=_ms(attempt.ended),
        ending=attempt.ending,
        checkout=attempt.checkout,
        error=attempt.error,
    )


def _ms(moment: datetime | None) -> int | None:
    return None if moment is None else to_ms(moment)


def _text(value: Json) -> str | None:
    assert value is None or isinstance(value, str)  # inside the store, payloads are canonical text
    return value


def lock_of(data: bytes, stamp: Stamp) -> LockEntry:
    """The lock that a node holds, stored by the write with that stamp."""
    row, reading = _decode_lock(data), _Reading(stamp)
    until = reading.ms(row.until)
    return LockEntry(
        lease=reading.lease(LockId(row.name), row.lease),
        until=until,
        acquired=reading.ms(row.acquired),
        held=row.held and (row.released is None or reading.ms(row.released) >= until),
        note=row.note,
    )


def lock_bytes(entry: LockEntry, *, released: bool = False) -> bytes:
    """What a node holds of a lock.

    With ``released`` it is let go of by this write, if its lease has not lapsed by then: whoever reads it will know.
    """
    assert isinstance(entry.lease.resource, LockId)  # made by a lock request
    return _encode(
        _Lock(
            name=entry.lease.resource.name,
            lease=_lease(entry.lease),
            until=entry.until,
            acquired=entry.acquired,
            held=entry.held,
            note=entry.note,
            released=_WRITTEN if released else None,
        )
    )


def config_of(data: bytes, stamp: Stamp) -> Config:
    """The configuration that a node holds, stored by the write with that stamp."""
    row = _decode_config(data)
    updated = _Reading(stamp).ms(row.updated)
    return Config(row.name, row.version, updated, row.request, row.document, row.deleted)


def config_bytes(config: Config) -> bytes:
    """What a node holds of a configuration."""
    return _encode(
        _Config(
            name=config.name,
            version=config.version,
            updated=config.updated,
            request=config.request,
            document=config.document,
            deleted=config.deleted,
        )
    )


def payload_text(value: Json, field: str) -> str | None:
    """A payload, result or document as it is kept.

    Raises:
        InvalidRequest: not JSON types and aware datetimes, or too long for this store.
    """
    return encoded(value, field=field, most=MAX_PAYLOAD_BYTES)


def public(run: Run) -> Run:
    """The run as callers get it."""
    if run.payload is None and run.result is None:
        return run
    return replace(run, payload=decoded(_text(run.payload)), result=decoded(_text(run.result)))
