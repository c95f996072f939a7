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

# What a claim with this request id holds.   Params: ns, request.   Result: COLUMNS, in any order.
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

# Due runs of one priority.   Params: ns[, job], priority, wall.   Result: COLUMNS, in claim order.
DUE = f"""
SELECT {COLUMNS} FROM runs WHERE ns = ? AND job = ? AND queue = 0 AND priority = ? AND run_at <= ? ORDER BY run_at, id
"""
DUE_ANY = f"""
SELECT {COLUMNS} FROM runs WHERE ns = ? AND queue = 0 AND priority = ? AND run_at <= ? ORDER BY run_at, id
"""

# Lapsed runs.   Params: ns[, job].   Result: COLUMNS, in claim order.
LAPSED = f"""
SELECT {COLUMNS} FROM runs WHERE ns = ? AND job = ? AND queue = 1 ORDER BY priority DESC, run_at, id
"""
LAPSED_ANY = f"""
SELECT {COLUMNS} FROM runs WHERE ns = ? AND queue = 1 ORDER BY priority DESC, run_at, id
"""


class ClaimPart(Base, Executor):
    """The part of ``Executor`` that is about the queue."""

    def claim(self, request: Claim) -> Sequence[Run]:
        """See ``Executor.claim``.

        A repetition (same request id) answers with those of its runs that it still holds. If it holds none any more,
        there is nothing left of it to repeat, and it claims anew.
        """
        with self._database.write() as connection:
            held = [rows.entry_of(row) for row in connection.execute(HELD, (self._ns, request.request))]
            if held:
                return [rows.public(entry) for entry in sorted(held, key=lambda entry: entry.run.token)]
            now = self._now()
            found = [rows.entry_of(row) for row in self._choose(connection, request, now)]
            taken = self._hold(connection, request, found, now)
        return [rows.public(entry) for entry in taken]

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

    def _hold(
        self, connection: sqlite3.Connection, request: Claim, found: Sequence[Entry], now: Now
    ) -> Sequence[Entry]:
        leases = {want.job: want.lease for want in request.wants or ()}
        taking = [entry for entry in found if not transitions.exhausted(entry, now)]
        for entry in found:
            if transitions.exhausted(entry, now):
                rows.write(connection, entry, transitions.bury(entry, now))
        token = rows.draw(connection, len(taking)) - len(taking) if taking else 0
        taken = []
        for entry in taking:
            token += 1
            lease_ms = span_ms(leases.get(entry.run.job) or request.lease)
            mine = transitions.hold(
                entry, holder=request.holder, request=request.request, lease_ms=lease_ms, now=now, token=token
            )
            rows.write(connection, entry, mine, claimed=True)
            taken.append(mine)
        return taken


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


_NAMES = COLUMNS.split(", ")
_ID, _JOB, _PRIORITY, _RUN_AT = (_NAMES.index(name) for name in ("id", "job", "priority", "run_at"))
_STATUS, _CRASHES, _MAX_CRASHES = (_NAMES.index(name) for name in ("status", "crashes", "max_crashes"))


def _rank(row: Row) -> tuple[int, int, int]:
    """The order of claims (G13): highest priority first, then ``run_at``, then submission."""
    return -row[_PRIORITY], row[_RUN_AT], row[_ID]


def _exhausted(row: Row) -> bool:
    """True for a lapsed run that the claim will bury."""
    budget = row[_MAX_CRASHES]
    return row[_STATUS] == "running" and budget is not None and row[_CRASHES] >= budget
