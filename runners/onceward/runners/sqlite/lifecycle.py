"""The store itself: looking, cleaning up, and what only an operator does."""

from __future__ import annotations

import heapq
import json
import sqlite3
import time
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timedelta

from onceward.contracts import transitions
from onceward.contracts.errors import StoreError
from onceward.contracts.lifecycle import Health, Lifecycle
from onceward.contracts.records import Lease, LockId, LockState, Run, RunId, Status
from onceward.contracts.requests import Purge, Rearm, RunQuery
from onceward.contracts.times import from_ms, span_ms
from onceward.contracts.transitions import Now
from onceward.runners.sqlite import locks, rows
from onceward.runners.sqlite.base import Base
from onceward.runners.sqlite.rows import COLUMNS

# Runs that match.   Params: see ``_params``.   Result: COLUMNS, by id, from the one seen last on.
# The plus keeps SQLite from sorting what an index on other columns finds: a page is read in the order of ids.
_MATCHES = """
    AND (:stamp IS NULL OR stamp = :stamp)
    AND status IN (SELECT value FROM json_each(:statuses))
    AND (NOT :lapsed OR (status = 'running' AND until <= :elapsed))
"""
_OF_ANY = "+ns = :ns AND (:job IS NULL OR job = :job) AND (:key IS NULL OR key = :key)"
_OF_KEY = "ns = :ns AND job = :job AND key = :key"
_OLDEST_FIRST = "AND id > :after ORDER BY id LIMIT :limit"
_NEWEST_FIRST = "AND id < :after ORDER BY id DESC LIMIT :limit"
RUNS = {
    (one_key, oldest_first): f"SELECT {COLUMNS} FROM runs WHERE {which} {_MATCHES} {order}"
    for one_key, which in ((True, _OF_KEY), (False, _OF_ANY))
    for oldest_first, order in ((True, _OLDEST_FIRST), (False, _NEWEST_FIRST))
}

# What the file says of itself; reading it is the round trip.   Result: (name, value).
DESCRIBE = """
SELECT 'version', sqlite_version() UNION ALL
SELECT 'journal_mode', journal_mode FROM pragma_journal_mode UNION ALL
SELECT 'synchronous', synchronous FROM pragma_synchronous UNION ALL
SELECT 'pages', page_count FROM pragma_page_count UNION ALL
SELECT 'free_pages', freelist_count FROM pragma_freelist_count
"""

# How many runs.   Params: ns[, job], stamp, stamp.   Result: (job, status, count).
COUNTS = """
SELECT job, status, count(*) FROM runs WHERE ns = ? AND (? IS NULL OR stamp = ?) GROUP BY job, status
"""
COUNTS_OF_JOB = """
SELECT job, status, count(*) FROM runs WHERE ns = ? AND job = ? AND (? IS NULL OR stamp = ?) GROUP BY job, status
"""

_ENDED = "ns = :ns AND job = :job AND status IN ('succeeded', 'failed', 'cancelled')"

# Jobs that have ended runs.   Params: ns, the last job seen.   Result: (job) of the next, or no row.
NEXT_ENDED_JOB = """
SELECT job FROM runs WHERE ns = ? AND status IN ('succeeded', 'failed', 'cancelled') AND job > ? ORDER BY job LIMIT 1
"""

# The run before which those are that are not among the latest to end.
#   Params: ns, job, skipped.   Result: (ended, id), or no row: there are no more than that.
LAST_KEPT = f"SELECT ended, id FROM runs WHERE {_ENDED} ORDER BY ended DESC, id DESC LIMIT 1 OFFSET :skipped"

# Ended runs that may go (G14: only ended ones are in this index).
#   Params: see ``_doomed``.   Result: (ended, id), the first to end first.
DOOMED = f"""
SELECT ended, id FROM runs WHERE {_ENDED} AND ended <= :before
    AND (:kept_ended IS NULL OR ended < :kept_ended OR (ended = :kept_ended AND id < :kept_id))
    AND (:stamp IS NULL OR stamp = :stamp)
    AND status IN (SELECT value FROM json_each(:statuses))
ORDER BY ended, id
"""

# purge: a run is gone.   Params: id.
DELETE = "DELETE FROM runs WHERE id = ?"

_NO_RUN = 2**63 - 1


class LifecyclePart(Base, Lifecycle):
    """``Lifecycle`` on the file, but for opening and closing it."""

    def now(self) -> datetime:
        return from_ms(self._clock.wall_ms())

    def health(self) -> Health:
        started = time.perf_counter()
        details: dict[str, str | int | float | bool] = {"store": "sqlite", "path": self._database.path}
        try:
            with self._database.read() as connection:
                details |= dict(connection.execute(DESCRIBE))
        except StoreError as error:
            details["reason"] = str(error)
        latency = timedelta(seconds=time.perf_counter() - started)
        return Health(ok="reason" not in details, latency=latency, details=details)

    def runs(self, query: RunQuery) -> Sequence[Run]:
        statement = RUNS[query.job is not None and query.key is not None, query.oldest_first]
        with self._database.read() as connection:
            found = connection.execute(statement, self._params(query)).fetchall()
        return [rows.run_of(row) for row in found]

    def _params(self, query: RunQuery) -> Mapping[str, object]:
        after = query.after if query.after is not None else 0 if query.oldest_first else _NO_RUN
        return {
            "ns": self._ns, "job": query.job, "key": query.key, "stamp": query.stamp, "lapsed": query.lapsed,
            "statuses": _texts(query.statuses), "elapsed": self._now().elapsed, "after": after, "limit": query.limit,
        }  # fmt: skip

    def locks(self) -> Sequence[LockState]:
        with self._database.read() as connection:
            return locks.held(connection, self._ns, self._now())

    def counts(self, job: str | None = None, *, stamp: str | None = None) -> Mapping[str, Mapping[Status, int]]:
        with self._database.read() as connection:
            if job is None:
                found = connection.execute(COUNTS, (self._ns, stamp, stamp)).fetchall()
            else:
                found = connection.execute(COUNTS_OF_JOB, (self._ns, job, stamp, stamp)).fetchall()
        counts: dict[str, dict[Status, int]] = {}
        for name, status, count in found:
            counts.setdefault(name, {})[Status(status)] = count
        return counts

    def purge(self, request: Purge) -> int:
        with self._database.write() as connection:
            now = self._now()
            locks.purge(connection, self._ns, now, older_than_ms=span_ms(request.older_than))
            jobs = [request.job] if request.job is not None else list(_ended_jobs(connection, self._ns))
            sources = [self._doomed(connection, job, request, now) for job in jobs]
            doomed = [(number,) for (_, number), _ in zip(heapq.merge(*sources), range(request.limit), strict=False)]
            connection.executemany(DELETE, doomed)
        return len(doomed)

    def _doomed(self, connection: sqlite3.Connection, job: str, request: Purge, now: Now) -> Iterator[tuple[int, int]]:
        """(ended, id) of the job's runs that may go."""
        params: dict[str, object] = {
            "ns": self._ns, "job": job, "before": now.wall - span_ms(request.older_than), "stamp": request.stamp,
            "statuses": _texts(request.statuses), "kept_ended": None, "kept_id": None,
        }  # fmt: skip
        if request.keep_last:
            skipped = {"ns": self._ns, "job": job, "skipped": request.keep_last - 1}
            kept = connection.execute(LAST_KEPT, skipped).fetchone()
            if kept is None:
                return iter(())
            params["kept_ended"], params["kept_id"] = kept
        return connection.execute(DOOMED, params)

    def force_unlock(self, resource: RunId | LockId, *, token: int | None = None) -> Lease | None:
        with self._database.write() as connection:
            now = self._now()
            if isinstance(resource, LockId):
                return locks.force(connection, self._ns, resource, token, now)
            found = rows.find(connection, self._ns, resource)
            if found is None or found.run.lease is None or found.lapsed(now):
                return None
            if token is not None and found.run.token != token:
                return None
            rows.write(connection, found, transitions.force_lapse(found, now, token=rows.draw(connection)))
            return found.run.lease

    def rearm(self, rearms: Sequence[Rearm]) -> Sequence[bool]:
        with self._database.write() as connection:
            now = self._now()
            return [self._rearm(connection, each, now) for each in rearms]

    def _rearm(self, connection: sqlite3.Connection, request: Rearm, now: Now) -> bool:
        found = rows.find(connection, self._ns, request.run)
        done, entry = transitions.rearm(found, request.token, now)
        if found is not None and entry is not None:
            rows.write(connection, found, entry)
        return done


def _ended_jobs(connection: sqlite3.Connection, ns: int) -> Iterator[str]:
    job = ""
    while (row := connection.execute(NEXT_ENDED_JOB, (ns, job)).fetchone()) is not None:
        job = row[0]
        yield job


def _texts(statuses: frozenset[Status]) -> str:
    return json.dumps([status.value for status in statuses])
