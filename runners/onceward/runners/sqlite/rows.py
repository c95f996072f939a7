"""Between rows of ``runs`` and the entries that the transitions work on."""

from __future__ import annotations

import sqlite3
from datetime import datetime
from typing import Any, TypeAlias

import msgspec
from msgspec.structs import replace

from onceward.contracts.payload import Json
from onceward.contracts.records import Attempt, Ending, Failure, Lease, LockId, Progress, Run, RunId, Status
from onceward.contracts.times import from_ms, span, span_ms, to_ms
from onceward.contracts.transitions import Entry
from onceward.runners.encoding import decode

#: A row as the driver gives it: the one place where its untyped values come in.
Row: TypeAlias = tuple[Any, ...]

COLUMNS = (
    "id, job, key, stamp, status, priority, run_at, created, payload, result, error, progress, origin, max_crashes, "
    "attempt, failures, crashes, token, request, holder, lease_ms, expires, until, started, ended, cancel_requested, "
    "rearmed, takeover, attempt_ended, ending, checkout, attempt_token, attempt_request, earlier"
)

_PAYLOAD, _RESULT, _UNTIL = (COLUMNS.split(", ").index(name) for name in ("payload", "result", "until"))

# Find a run.
#   Params: ns, job, key, stamp.   Result: COLUMNS, or no row.
FIND = f"SELECT {COLUMNS} FROM runs WHERE ns = ? AND job = ? AND key = ? AND stamp = ?"

# A run by its number.   Params: id.   Result: COLUMNS.
GET = f"SELECT {COLUMNS} FROM runs WHERE id = ?"

# Is there such a run?   Params: ns, job, key, stamp.   Result: (1), or no row; from the index alone.
EXISTS = "SELECT 1 FROM runs WHERE ns = ? AND job = ? AND key = ? AND stamp = ?"

# Write a run after any transition but its creation, if nobody changed it since it was read (in the same transaction).
#   Params: see ``write``.   Result: the row count, 1.   Guarantees G2, G4: the token that was read is still the newest.
WRITE = """
UPDATE runs SET
    status = ?, queue = ?, run_at = ?, result = ?, error = ?, progress = ?, max_crashes = ?, attempt = ?, failures = ?,
    crashes = ?, token = ?, request = ?, claimed = ?, holder = ?, lease_ms = ?, expires = ?, until = ?, started = ?,
    ended = ?, cancel_requested = ?, rearmed = ?, takeover = ?, attempt_ended = ?, ending = ?, checkout = ?,
    attempt_token = ?, attempt_request = ?, earlier = ?
WHERE id = ? AND token = ?
"""

# The next number of the file's one counter; see schema.
NEXT = "(SELECT max(value, (SELECT ifnull(max(id), 0) FROM runs)) + 1 FROM counter WHERE one = 1)"

# Draw tokens from the file's one counter.
#   Params: how many.   Result: the last of them.   Guarantees G2: none of them was ever given before.
DRAW = f"UPDATE counter SET value = {NEXT} - 1 + ? WHERE one = 1 RETURNING value"

_encode = msgspec.json.Encoder().encode
_decode_attempts = msgspec.json.Decoder(tuple[Attempt, ...]).decode
_decode_failure = msgspec.json.Decoder(Failure).decode
_decode_progress = msgspec.json.Decoder(Progress).decode
_STATUS = {status.value: status for status in Status}
_ENDING = {ending.value: ending for ending in Ending}


def find(connection: sqlite3.Connection, ns: int, run: RunId) -> Entry | None:
    """The run as it stands in the file, or None."""
    row = connection.execute(FIND, (ns, run.job, run.key, run.stamp)).fetchone()
    return None if row is None else entry_of(row)


def get(connection: sqlite3.Connection, number: int) -> Entry:
    """The run with this number, which there is."""
    return entry_of(connection.execute(GET, (number,)).fetchone())


def exists(connection: sqlite3.Connection, ns: int, run: RunId) -> bool:
    """True if there is such a run: cheaper than ``find``, which most check-ins of new runs need not pay."""
    return connection.execute(EXISTS, (ns, run.job, run.key, run.stamp)).fetchone() is not None


def draw(connection: sqlite3.Connection, count: int = 1) -> int:
    """The last of ``count`` new tokens."""
    row = connection.execute(DRAW, (count,)).fetchall()[0]
    token: int = row[0]
    return token


def entry_of(row: Row) -> Entry:
    """The entry of a row. Payload and result stay canonical text, since transitions only carry them; see ``public``."""
    return Entry(run=_run(row, row[_PAYLOAD], row[_RESULT]), until=row[_UNTIL])


def run_of(row: Row) -> Run:
    """The run of a row as callers get it."""
    return _run(row, decode(row[_PAYLOAD]), decode(row[_RESULT]))


def _run(row: Row, payload: Json, result: Json) -> Run:
    (
        number, job, key, stamp, status_text, priority, run_at, created, _, _, error_text, progress, origin,
        max_crashes, attempt, failures, crashes, token, request, holder, lease_ms, expires, _, started, ended,
        cancel_requested, rearmed, takeover, attempt_ended, ending, checkout, attempt_token, attempt_request, earlier,
    ) = row  # fmt: skip
    run = RunId(job, key, stamp)
    status = _STATUS[status_text]
    error = None if error_text is None else _decode_failure(error_text)
    lease = None
    if status is Status.RUNNING:
        lease = Lease(
            resource=run,
            holder=holder,
            token=token,
            request=request,
            duration=None if lease_ms is None else span(lease_ms),
            expires=moment(expires),
        )
    attempts: tuple[Attempt, ...] = ()
    if attempt:
        last = Attempt(
            number=attempt,
            holder=holder,
            token=token if attempt_token is None else attempt_token,
            request=request if attempt_request is None else attempt_request,
            started=from_ms(started),
            takeover=bool(takeover),
            ended=moment(attempt_ended),
            ending=None if ending is None else _ENDING[ending],
            checkout=checkout,
            error=None if checkout is None else error,
        )
        attempts = (last,) if earlier is None else (*_decode_attempts(earlier), last)
    return Run(
        id=run,
        status=status,
        run_at=from_ms(run_at),
        created=from_ms(created),
        sequence=number,
        payload=payload,
        result=result,
        error=error,
        progress=None if progress is None else _decode_progress(progress),
        priority=priority,
        started=moment(started),
        ended=moment(ended),
        attempt=attempt,
        failures=failures,
        crashes=crashes,
        max_crashes=max_crashes,
        token=token,
        lease=lease,
        origin=origin,
        cancel_requested=bool(cancel_requested),
        rearmed=bool(rearmed),
        attempts=attempts,
    )


def write(connection: sqlite3.Connection, found: Entry, entry: Entry, *, claimed: bool = False) -> None:
    """The entry that a transition made of ``found`` stands in the file, if the two differ."""
    if entry is found:
        return
    run, lease = entry.run, entry.run.lease
    last = run.attempts[-1] if run.attempts else None
    forced = lease is not None and last is not None and lease.token != last.token
    connection.execute(
        WRITE,
        (
            run.status.value,
            0 if run.status is Status.SCHEDULED else None,
            to_ms(run.run_at),
            run.result,
            failure_text(run.error),
            progress_text(run.progress),
            run.max_crashes,
            run.attempt,
            run.failures,
            run.crashes,
            run.token,
            lease.request if lease is not None else last.request if last is not None else None,
            claimed,
            last.holder if last is not None else None,
            span_ms(lease.duration) if lease is not None and lease.duration is not None else None,
            ms(lease.expires) if lease is not None else None,
            entry.until,
            ms(run.started),
            ms(run.ended),
            run.cancel_requested,
            run.rearmed,
            last is not None and last.takeover,
            ms(last.ended) if last is not None else None,
            last.ending.value if last is not None and last.ending is not None else None,
            last.checkout if last is not None else None,
            last.token if last is not None and last.token != run.token else None,
            last.request if last is not None and forced else None,
            _encode(run.attempts[:-1]).decode() if len(run.attempts) > 1 else None,
            run.sequence,
            found.run.token,
        ),
    )


def public(entry: Entry) -> Run:
    """The run as callers get it, with payload and result decoded."""
    run = entry.run
    if run.payload is None and run.result is None:
        return run
    return replace(run, payload=decode(_text(run.payload)), result=decode(_text(run.result)))


def _text(value: object) -> str | None:
    assert value is None or isinstance(value, str)  # entry_of leaves the canonical text
    return value


def batch(values: object) -> str:
    """What one statement is to do to many rows, as JSON."""
    return _encode(values).decode()


def failure_text(error: Failure | None) -> str | None:
    """An error as it is stored."""
    return None if error is None else _encode(error).decode()


def progress_text(progress: Progress | None) -> str | None:
    """A progress as it is stored."""
    return None if progress is None else _encode(progress).decode()


def moment(ms: int | None) -> datetime | None:
    """An instant that may be absent."""
    return None if ms is None else from_ms(ms)


def ms(instant: datetime | None) -> int | None:
    """Milliseconds of an instant that may be absent."""
    return None if instant is None else to_ms(instant)


def proof(lease: Lease) -> tuple[int, str]:
    """Token and request of a lease, for a guard. What SQLite cannot hold was never given: none matches."""
    known = -(2**63) <= lease.token < 2**63 and "\0" not in lease.request
    return (lease.token if known else -1), lease.request


def named(lock: LockId | RunId) -> str:
    """The name of a lock."""
    assert isinstance(lock, LockId)
    return lock.name
