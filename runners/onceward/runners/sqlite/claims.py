"""Claims: which runs come next, found in the order of the claim by indexes alone.

A run that may be claimed stands in one of two lists of its job: ``queue`` 0, SCHEDULED, due at ``run_at``; ``queue`` 1,
RUNNING and seen to have lapsed. Both have an index by (priority, run_at, id). The second is read from its front. In the
first, runs of a high priority may not be due yet, so each priority that occurs (at most 201) is looked at once, by its
own front. A claim therefore costs O(log n) per run taken and per job and priority in use, however long the queue is.
"""

from __future__ import annotations

import heapq
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from datetime import timedelta

from onceward.contracts import transitions
from onceward.contracts.executor import Executor
from onceward.contracts.records import Run
from onceward.contracts.requests import Claim, Want
from onceward.contracts.times import span_ms
from onceward.contracts.transitions import Entry, Now
from onceward.runners.sqlite import rows
from onceward.runners.sqlite.base import Base
from onceward.runners.sqlite.priorities import NEXT_PRIORITY, NEXT_PRIORITY_ANY, priorities
from onceward.runners.sqlite.rows import COLUMNS, Row

# What a claim with this request id holds: its answer.   Params: ns, request.   Result: COLUMNS, in any order.
HELD = f"SELECT {COLUMNS} FROM runs WHERE ns = ? AND request = ? AND claimed = 1 AND status = 'running'"

# Jobs that have runs which run.   Params: ns, the last job seen ("" at first).   Result: (job) of the next, or no row.
NEXT_RUNNING_JOB = """
SELECT job FROM runs WHERE ns = ? AND status = 'running' AND queue IS NULL AND job > ? ORDER BY job LIMIT 1
"""

# Runs of a job whose leases have lapsed are queued for claims.   Params: ns, job, elapsed.
QUEUE_LAPSED = """
UPDATE runs SET queue = 1 WHERE ns = ? AND job = ? AND status = 'running' AND queue IS NULL AND until <= ?
"""

# Live leases of a job; lapsed ones have been queued just before.   Params: ns, job, at most.   Result: (count).
COUNT_LIVE = """
SELECT count(*) FROM (SELECT 1 FROM runs WHERE ns = ? AND job = ? AND status = 'running' AND queue IS NULL LIMIT ?)
"""

# What a run is chosen by.
CANDIDATE = "id, job, priority, run_at, status, crashes, max_crashes, attempt"

# Due runs of one priority.   Params: ns[, job], priority, wall.   Result: CANDIDATE, in claim order.
DUE = f"""
SELECT {CANDIDATE} FROM runs WHERE ns = ? AND job = ? AND queue = 0 AND priority = ? AND run_at <= ? ORDER BY run_at, id
"""
DUE_ANY = f"""
SELECT {CANDIDATE} FROM runs WHERE ns = ? AND queue = 0 AND priority = ? AND run_at <= ? ORDER BY run_at, id
"""

# Lapsed runs.   Params: ns[, job].   Result: CANDIDATE, in claim order.
LAPSED = f"""
SELECT {CANDIDATE} FROM runs WHERE ns = ? AND job = ? AND queue = 1 ORDER BY priority DESC, run_at, id
"""
LAPSED_ANY = f"""
SELECT {CANDIDATE} FROM runs WHERE ns = ? AND queue = 1 ORDER BY priority DESC, run_at, id
"""

# claim, of runs that nobody has had yet, which most are: their first attempt, as ``transitions.hold`` makes it.
#   Params: tokens (a JSON object, by id), request, holder, lease_ms, expires, until, started.
#   Result: the row count, as many.   Guarantees G1, G2: they are chosen and changed in one transaction.
HOLD_NEW = """
UPDATE runs SET
    status = 'running', queue = NULL, attempt = 1, token = json_each.value, request = :request, claimed = 1,
    holder = :holder, lease_ms = :lease_ms, expires = :expires, until = :until, started = :started, ended = NULL,
    result = NULL, error = NULL, progress = NULL, cancel_requested = 0, rearmed = 0, takeover = 0
FROM json_each(:tokens)
WHERE runs.id = CAST(json_each.key AS INTEGER) AND status = 'scheduled' AND attempt = 0
"""


class ClaimPart(Base, Executor):
    """The part of ``Executor`` that is about the queue."""

    def claim(self, request: Claim) -> Sequence[Run]:
        """See ``Executor.claim``.

        A repetition (same request id) answers with those of its runs that it still holds. If it holds none any more,
        there is nothing left of it to repeat, and it claims anew.
        """
        with self._database.write() as connection:
            held = self._held(connection, request)
            if not held:
                now = self._now()
                if self._hold(connection, request, self._choose(connection, request, now), now):
                    held = self._held(connection, request)
        return [rows.run_of(row) for row in sorted(held, key=lambda row: row[_TOKEN])]

    def _held(self, connection: sqlite3.Connection, request: Claim) -> list[Row]:
        return connection.execute(HELD, (self._ns, request.request)).fetchall()

    def _choose(self, connection: sqlite3.Connection, request: Claim, now: Now) -> list[Row]:
        """The rows to take or to bury, best first."""
        if request.wants is None:
            self._queue_lapsed(connection, _running_jobs(connection, self._ns), now)
            return _first(_any_job(connection, self._ns, now), request.limit, {})
        self._queue_lapsed(connection, (want.job for want in request.wants), now)
        room = {want.job: self._room(connection, want, request) for want in request.wants}
        sources = [source for job in room for source in _one_job(connection, self._ns, job, now, room)]
        return _first(sources, request.limit, room)

    def _queue_lapsed(self, connection: sqlite3.Connection, jobs: Iterator[str], now: Now) -> None:
        for job in jobs:
            connection.execute(QUEUE_LAPSED, (self._ns, job, now.elapsed))

    def _room(self, connection: sqlite3.Connection, want: Want, request: Claim) -> int:
        """How many more runs of the job this claim may take (G12)."""
        limit = request.limit if want.limit is None else min(want.limit, request.limit)
        if want.max_running is None:
            return limit
        live: int = connection.execute(COUNT_LIVE, (self._ns, want.job, want.max_running)).fetchone()[0]
        return min(limit, want.max_running - live)

    def _hold(self, connection: sqlite3.Connection, request: Claim, chosen: Sequence[Row], now: Now) -> int:
        """What was chosen is taken or buried; how many runs were taken. Their tokens are in the order of the claim."""
        wanted = {want.job: want.lease for want in request.wants or ()}
        taking = [row for row in chosen if not _exhausted(row)]
        for row in chosen:
            if _exhausted(row):
                found = rows.get(connection, row[_ID])
                rows.write(connection, found, transitions.bury(found, now))
        first = rows.draw(connection, len(taking)) - len(taking) + 1 if taking else 0
        new: dict[timedelta, dict[int, int]] = {}
        for token, row in enumerate(taking, first):
            lease = wanted.get(row[_JOB]) or request.lease
            if row[_ATTEMPT] == 0:
                new.setdefault(lease, {})[row[_ID]] = token
            else:
                _hold_again(connection, request, rows.get(connection, row[_ID]), lease, now, token)
        for lease, tokens in new.items():
            _hold_new(connection, request, tokens, lease, now)
        return len(taking)


def _hold_new(
    connection: sqlite3.Connection, request: Claim, tokens: Mapping[int, int], lease: timedelta, now: Now
) -> None:
    lease_ms = span_ms(lease)
    connection.execute(
        HOLD_NEW,
        {
            "tokens": rows.batch(tokens), "request": request.request, "holder": request.holder, "lease_ms": lease_ms,
            "expires": now.wall + lease_ms, "until": now.elapsed + lease_ms, "started": now.wall,
        },
    )  # fmt: skip


def _hold_again(
    connection: sqlite3.Connection, request: Claim, found: Entry, lease: timedelta, now: Now, token: int
) -> None:
    mine = transitions.hold(
        found, holder=request.holder, request=request.request, lease_ms=span_ms(lease), now=now, token=token
    )
    rows.write(connection, found, mine, claimed=True)


def _first(sources: Sequence[Iterator[Row]], limit: int, room: dict[str, int]) -> list[Row]:
    """Rows from the front of all sources together, until ``limit`` of them may be taken."""
    chosen: list[Row] = []
    for row in heapq.merge(*sources, key=_rank):
        job = row[_JOB]
        if room.get(job, limit) <= 0:
            continue  # it was in view before the job's last place was taken
        chosen.append(row)
        if not _exhausted(row):
            limit -= 1
            if job in room:
                room[job] -= 1
        if limit == 0:
            break
    return chosen


def _one_job(
    connection: sqlite3.Connection, ns: int, job: str, now: Now, room: Mapping[str, int]
) -> Sequence[Iterator[Row]]:
    def while_room(source: Iterator[Row]) -> Iterator[Row]:
        while room[job] > 0 and (row := next(source, None)) is not None:
            yield row

    due = _due(connection, NEXT_PRIORITY, DUE, (ns, job), now)
    return while_room(due), while_room(connection.execute(LAPSED, (ns, job)))


def _any_job(connection: sqlite3.Connection, ns: int, now: Now) -> Sequence[Iterator[Row]]:
    due = _due(connection, NEXT_PRIORITY_ANY, DUE_ANY, (ns,), now)
    return due, connection.execute(LAPSED_ANY, (ns,))


def _due(
    connection: sqlite3.Connection, next_priority: str, due: str, params: tuple[int | str, ...], now: Now
) -> Iterator[Row]:
    for priority in priorities(connection, next_priority, params):
        yield from connection.execute(due, (*params, priority, now.wall))


def _running_jobs(connection: sqlite3.Connection, ns: int) -> Iterator[str]:
    job = ""
    while (row := connection.execute(NEXT_RUNNING_JOB, (ns, job)).fetchone()) is not None:
        job = row[0]
        yield job


_ID, _JOB, _PRIORITY, _RUN_AT, _STATUS, _CRASHES, _MAX_CRASHES, _ATTEMPT = range(8)
"""Places in CANDIDATE."""
_TOKEN = COLUMNS.split(", ").index("token")


def _rank(row: Row) -> tuple[int, int, int]:
    """The order of claims (G13): highest priority first, then ``run_at``, then submission."""
    return -row[_PRIORITY], row[_RUN_AT], row[_ID]


def _exhausted(row: Row) -> bool:
    """True for a lapsed run that the claim will bury."""
    budget = row[_MAX_CRASHES]
    return row[_STATUS] == "running" and budget is not None and row[_CRASHES] >= budget
