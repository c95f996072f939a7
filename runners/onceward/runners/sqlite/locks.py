"""Locks: exclusive rights to names. A row stays after its end, so that late copies of requests are recognised."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

from onceward.contracts.executor import Executor
from onceward.contracts.locking import LockEntry, known, state
from onceward.contracts.records import Lease, LockId, LockState
from onceward.contracts.requests import LockAnswer, LockRequest, Renewal, Renewed
from onceward.contracts.times import from_ms, span, span_ms
from onceward.contracts.transitions import Now
from onceward.runners.sqlite import rows
from onceward.runners.sqlite.base import Base

_COLUMNS = "name, holder, token, request, lease_ms, expires, until, acquired, held, note"

# Find a lock, held or not.   Params: ns, name.   Result: _COLUMNS, or no row.
FIND = f"SELECT {_COLUMNS} FROM locks WHERE ns = ? AND name = ?"

# Locks that are held, lapsed ones among them.   Params: ns.   Result: _COLUMNS, by name.
HELD = f"SELECT {_COLUMNS} FROM locks WHERE ns = ? AND held = 1 ORDER BY name"

# lock: the lock is the caller's, if nobody has a live lease on it and this is no late copy of an older request.
#   Params: see ``_take``.   Result: row count 1 acquired; 0 refused, nothing changed.   Guarantees G2, G3, G5.
LOCK = """
INSERT INTO locks (ns, name, holder, token, request, lease_ms, expires, until, acquired, held, note)
VALUES (:ns, :name, :holder, :token, :request, :lease_ms, :expires, :until, :wall, 1, :note)
ON CONFLICT (ns, name) DO UPDATE SET
    holder = excluded.holder, token = excluded.token, request = excluded.request, lease_ms = excluded.lease_ms,
    expires = excluded.expires, until = excluded.until, acquired = excluded.acquired, held = 1, note = excluded.note
WHERE (locks.held = 0 OR locks.until <= :elapsed) AND locks.request <> excluded.request
"""

# unlock: the lock is free, if this lease is its newest and live.
#   Params: ns, name, token, request, elapsed.   Result: row count 1 freed; 0 not, nothing changed.   Guarantee G4.
UNLOCK = """
UPDATE locks SET held = 0
WHERE ns = ? AND name = ? AND held = 1 AND token = ? AND request = ? AND until > ?
"""

# renew: a lock's lease ends later, if it is the newest and live.
#   Params: see ``renew``.   Result: row count 1 extended; 0 lost, nothing changed.   Guarantee G4.
RENEW = """
UPDATE locks SET
    until = :elapsed + coalesce(:lease_ms, lease_ms),
    expires = :wall + coalesce(:lease_ms, lease_ms),
    lease_ms = coalesce(:lease_ms, lease_ms)
WHERE ns = :ns AND name = :name AND held = 1 AND token = :token AND request = :request AND until > :elapsed
"""

# force: whoever held the lock has lost it, fenced off by a larger token.
#   Params: fence, its request, ns, name, token that was read.   Result: row count 1.   Guarantee G2.
FORCE = "UPDATE locks SET token = ?, request = ?, held = 0 WHERE ns = ? AND name = ? AND token = ?"

# purge: forget locks whose last lease was over so long ago; tokens go on behind them.
#   Params: ns, elapsed - age.   Result: row count.
PURGE = "DELETE FROM locks WHERE ns = ? AND until <= ?"


class LockPart(Base, Executor):
    """The part of ``Executor`` that is about locks."""

    def lock(self, request: LockRequest) -> LockAnswer:
        """See ``Executor.lock``. A refusal is a read: it neither writes nor waits for other processes."""
        refusal = self._database.glance(lambda connection: self._refusal(connection, request))
        if refusal is not None:
            return refusal
        with self._database.write() as connection:
            return self._refusal(connection, request) or self._take(connection, request, self._now())

    def _refusal(self, connection: sqlite3.Connection, request: LockRequest) -> LockAnswer | None:
        found = find(connection, self._ns, request.lock)
        return None if found is None else known(found, request, self._now())

    def _take(self, connection: sqlite3.Connection, request: LockRequest, now: Now) -> LockAnswer:
        lease_ms, token = span_ms(request.lease), rows.draw(connection)
        cursor = connection.execute(
            LOCK,
            {
                "ns": self._ns, "name": request.lock.name, "holder": request.holder, "token": token,
                "request": request.request, "lease_ms": lease_ms, "expires": now.wall + lease_ms,
                "until": now.elapsed + lease_ms, "wall": now.wall, "note": request.note, "elapsed": now.elapsed,
            },
        )  # fmt: skip
        assert cursor.rowcount == 1  # it was free a moment ago, in this transaction
        lease = Lease(
            resource=request.lock,
            holder=request.holder,
            token=token,
            request=request.request,
            duration=span(lease_ms),
            expires=from_ms(now.wall + lease_ms),
        )
        return LockAnswer(acquired=True, lease=lease, remaining=span(lease_ms))

    def unlock(self, lease: Lease) -> bool:
        if not isinstance(lease.resource, LockId):
            return False
        name, (token, request) = lease.resource.name, rows.proof(lease)
        with self._database.write() as connection:
            freed = connection.execute(UNLOCK, (self._ns, name, token, request, self._now().elapsed)).rowcount
            found = None if freed else find(connection, self._ns, lease.resource)
        if found is None:
            return freed == 1
        return not found.held and (found.lease.token, found.lease.request) == (token, request)  # freed before


def find(connection: sqlite3.Connection, ns: int, lock: LockId) -> LockEntry | None:
    """The lock as it stands in the file, or None."""
    row = connection.execute(FIND, (ns, lock.name)).fetchone()
    return None if row is None else _entry_of(row)


def _entry_of(row: rows.Row) -> LockEntry:
    name, holder, token, request, lease_ms, expires, until, acquired, held, note = row
    lease = Lease(
        resource=LockId(name),
        holder=holder,
        token=token,
        request=request,
        duration=span(lease_ms),
        expires=from_ms(expires),
    )
    return LockEntry(lease=lease, until=until, acquired=acquired, held=bool(held), note=note)


def renew(connection: sqlite3.Connection, ns: int, renewal: Renewal, now: Now) -> Renewed:
    """Extend a lock's lease; see ``Executor.renew``."""
    duration = renewal.duration or renewal.lease.duration
    token, request = rows.proof(renewal.lease)
    cursor = connection.execute(
        RENEW,
        {
            "ns": ns, "name": rows.named(renewal.lease.resource), "token": token, "request": request,
            "lease_ms": None if duration is None else span_ms(duration), "elapsed": now.elapsed, "wall": now.wall,
        },
    )  # fmt: skip
    return Renewed.HELD if cursor.rowcount == 1 else Renewed.LOST


def force(connection: sqlite3.Connection, ns: int, lock: LockId, token: int | None, now: Now) -> Lease | None:
    """Nobody holds the lock any more; see ``Lifecycle.force_unlock``."""
    found = find(connection, ns, lock)
    if found is None or not found.live(now) or token not in (None, found.lease.token):
        return None
    fence = rows.draw(connection)
    connection.execute(FORCE, (fence, f"forced:{fence}", ns, lock.name, found.lease.token))
    return found.lease


def held(connection: sqlite3.Connection, ns: int, now: Now) -> Sequence[LockState]:
    """Locks that are held; see ``Lifecycle.locks``."""
    return [state(_entry_of(row), now) for row in connection.execute(HELD, (ns,))]


def purge(connection: sqlite3.Connection, ns: int, now: Now, *, older_than_ms: int) -> None:
    """Locks that ended so long ago are forgotten."""
    connection.execute(PURGE, (ns, now.elapsed - older_than_ms))
