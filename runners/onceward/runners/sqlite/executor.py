"""Check-in, renewal, check-out: the right to run one run."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from typing import TypeAlias

from msgspec.structs import replace

from onceward.contracts import transitions
from onceward.contracts.executor import Executor
from onceward.contracts.records import Ending, LockId, Run, RunId
from onceward.contracts.requests import Admission, CheckIn, CheckInOutcome, CheckOut, Renewal, Renewed
from onceward.contracts.times import span_ms
from onceward.contracts.transitions import Entry, Now
from onceward.runners.sqlite import locks, rows
from onceward.runners.sqlite.base import Base
from onceward.runners.sqlite.rows import NEXT

# checkin: create a run that its maker holds, unless it exists.
#   Params: ns, job, key, stamp, run_at, created, origin, payload, max_crashes, request, holder, lease_ms, expires,
#   until, started.
#   Result: row count 1 and the new id, which is its token too; 0: it exists, nothing changed.
#   Guarantees G1, G2: the id is the counter's next, and moves it on by being there.
CREATE_HELD = f"""
INSERT INTO runs (
    id, ns, job, key, stamp, status, run_at, created, origin, payload, max_crashes, attempt, token, request, holder,
    lease_ms, expires, until, started
) VALUES (
    {NEXT}, ?, ?, ?, ?, 'running', ?, ?, ?, ?, ?, 1,
    {NEXT}, ?, ?, ?, ?, ?, ?
) ON CONFLICT (ns, job, key, stamp) DO NOTHING
"""

# renew: a lease ends later, if it is the newest and has not lapsed.
#   Params: see ``_renew``.   Result: (cancel_requested), or no row: lost, nothing changed.   Guarantee G4.
RENEW = """
UPDATE runs SET
    until = CASE WHEN lease_ms IS NULL THEN until ELSE coalesce(:until, until) END,
    expires = CASE WHEN lease_ms IS NULL THEN expires ELSE coalesce(:expires, expires) END,
    lease_ms = CASE WHEN lease_ms IS NULL THEN lease_ms ELSE coalesce(:lease_ms, lease_ms) END,
    progress = coalesce(:progress, progress)
WHERE ns = :ns AND job = :job AND key = :key AND stamp = :stamp
    AND status = 'running' AND token = :token AND request = :request AND (until IS NULL OR until > :elapsed)
RETURNING cancel_requested
"""

# checkout: attempts of a job have ended alike, those whose token is still the newest; lapsed or not.
#   Params: ns, job, stamp, ending, again (it is due again), wall, ends: a JSON array of what ``_alike`` makes, each run
#   at the most once.
#   Result: row count, how many were recorded; of the others nothing is changed.   Guarantees G4, G6.
#   Reading JSON is most of the work. LIMIT -1 lets each part be read once, and not wherever it stands; that ``ends``
#   says which ``id`` keeps SQLite from going through all runs of the job, with the JSON for each of them.
CHECKOUT = """
UPDATE runs SET
    status = iif(:again, 'scheduled', :ending), queue = iif(:again, 0, NULL), run_at = coalesce(ends.due, run_at),
    result = ends.result, error = ends.error, failures = failures + (:ending IN ('failed', 'retry')),
    claimed = 0, lease_ms = NULL, expires = NULL, until = NULL, ended = iif(:again, NULL, :wall),
    cancel_requested = 0, attempt_ended = :wall, ending = :ending, checkout = ends.checkout
FROM (
    SELECT
        json_extract(value, '$[0]') AS key, json_extract(value, '$[1]') AS token,
        json_extract(value, '$[2]') AS request, json_extract(value, '$[3]') AS checkout,
        json_extract(value, '$[4]') AS due, json_extract(value, '$[5]') AS result, json_extract(value, '$[6]') AS error
    FROM json_each(:ends) LIMIT -1
) AS ends
WHERE runs.id = (SELECT id FROM runs WHERE ns = :ns AND job = :job AND key = ends.key AND stamp = :stamp)
    AND status = 'running' AND runs.token = ends.token AND runs.request = ends.request
"""

#: Job, stamp and ending; and of one run the rest: key, token, request, check-out, due, result, error.
Alike: TypeAlias = tuple[str, str, Ending]
End: TypeAlias = tuple[str, int, str, str, int | None, str | None, str | None]
_AGAIN = (Ending.RETRY, Ending.RELEASED)

#: Characters of results in one statement, besides one more result. SQLite takes a billion bytes, escapes and all.
_MOST_TEXT = 1 << 26


class ExecutorPart(Base, Executor):
    """The part of ``Executor`` that is about single runs."""

    def checkin(self, request: CheckIn) -> Admission:
        """See ``Executor.checkin``. A refusal is a read: it neither writes nor waits for other processes."""
        if request.payload is not None:
            request = replace(request, payload=self._text(request.payload, "payload"))
        return self._database.glance(lambda connection: self._look(connection, request)) or self._admit(request)

    def _look(self, connection: sqlite3.Connection, request: CheckIn) -> Admission | None:
        """The answer where it takes no transaction: to a new run, and to one that is refused."""
        if rows.exists(connection, self._ns, request.run):
            return self._refuse(connection, request)
        return self._create(connection, request)

    def _refuse(self, connection: sqlite3.Connection, request: CheckIn) -> Admission | None:
        """The answer to a check-in that changes nothing; None: it would."""
        found, now = rows.find(connection, self._ns, request.run), self._now()
        outcome, entry = transitions.checkin(found, request, now, token=_none_yet, sequence=_none_yet)
        return _admission(outcome, entry, now) if entry is found else None

    def _create(self, connection: sqlite3.Connection, request: CheckIn) -> Admission | None:
        """The admission to a run that this makes, in one statement; None: somebody else made it just now."""
        run, now = request.run, self._now()
        lease_ms = None if request.lease is None else span_ms(request.lease)
        cursor = self._database.execute_alone(
            connection,
            CREATE_HELD,
            (
                self._ns, run.job, run.key, run.stamp, now.wall, now.wall, request.request, request.payload,
                request.max_crashes, request.request, request.holder, lease_ms,
                None if lease_ms is None else now.wall + lease_ms,
                None if lease_ms is None else now.elapsed + lease_ms,
                now.wall,
            ),
        )  # fmt: skip
        number = cursor.lastrowid
        if cursor.rowcount != 1 or number is None:
            return None
        outcome, entry = transitions.checkin(None, request, now, token=lambda: number, sequence=lambda: number)
        return _admission(outcome, entry, now)

    def _admit(self, request: CheckIn) -> Admission:
        """The answer to a check-in on a run that was there, whatever became of it meanwhile."""
        with self._database.write() as connection:
            found, now = rows.find(connection, self._ns, request.run), self._now()
            if found is None:
                created = self._create(connection, request)
                assert created is not None  # it was absent a moment ago, in this transaction
                return created
            outcome, entry = transitions.checkin(
                found, request, now, token=lambda: rows.draw(connection), sequence=_none_yet
            )
            rows.write(connection, found, entry)
        return _admission(outcome, entry, now)

    def renew(self, renewals: Sequence[Renewal]) -> Sequence[Renewed]:
        with self._database.write() as connection:
            now = self._now()
            return [
                locks.renew(connection, self._ns, renewal, now)
                if isinstance(renewal.lease.resource, LockId)
                else self._renew(connection, renewal.lease.resource, renewal, now)
                for renewal in renewals
            ]

    def _renew(self, connection: sqlite3.Connection, run: RunId, renewal: Renewal, now: Now) -> Renewed:
        duration = renewal.duration or renewal.lease.duration
        lease_ms = None if duration is None else span_ms(duration)
        token, request = rows.proof(renewal.lease)
        kept = connection.execute(
            RENEW,
            {
                "ns": self._ns, "job": run.job, "key": run.key, "stamp": run.stamp, "token": token, "request": request,
                "lease_ms": lease_ms,
                "until": None if lease_ms is None else now.elapsed + lease_ms,
                "expires": None if lease_ms is None else now.wall + lease_ms,
                "progress": rows.progress_text(renewal.progress),
                "elapsed": now.elapsed,
            },
        ).fetchall()  # fmt: skip
        if not kept:
            return Renewed.LOST
        return Renewed.CANCELLING if kept[0][0] else Renewed.HELD

    def checkout(self, checkouts: Sequence[CheckOut]) -> Sequence[bool]:
        results = [self._text(each.result, "result") for each in checkouts]
        ended: list[bool] = []
        with self._database.write() as connection:
            now = self._now()
            for some in _parts(checkouts, results):
                recorded = sum(self._end(connection, *alike, now) for alike in _alike(some, now).items())
                every = recorded == len(some)
                ended += (every or self._recorded(connection, request, now) for request, _ in some)
        return ended

    def _end(self, connection: sqlite3.Connection, which: Alike, ends: Sequence[End], now: Now) -> int:
        """How many of these attempts have ended by this."""
        job, stamp, ending = which
        return connection.execute(
            CHECKOUT,
            {
                "ns": self._ns, "job": job, "stamp": stamp, "ending": ending.value, "again": ending in _AGAIN,
                "wall": now.wall, "ends": rows.batch(ends),
            },
        ).rowcount  # fmt: skip

    def _recorded(self, connection: sqlite3.Connection, request: CheckOut, now: Now) -> bool:
        """True if this check-out stands in the file: it was recorded just now, or when it was sent before."""
        found = rows.find(connection, self._ns, request.run)
        if found is not None and found.run.token == request.lease.token and found.run.attempts:
            return found.run.attempts[-1].checkout == request.request
        return transitions.checkout(found, request, now)[0]

    def check(self, run: RunId) -> Run | None:
        with self._database.read() as connection:
            found = rows.find(connection, self._ns, run)
        return None if found is None else rows.public(found)


def _parts(checkouts: Sequence[CheckOut], results: Sequence[str | None]) -> Iterator[list[tuple[CheckOut, str | None]]]:
    """The check-outs with their results, in their order, in parts for one statement each.

    No part has a run twice, since its first one counts, nor more text than a statement should carry.
    """
    part: dict[RunId, tuple[CheckOut, str | None]] = {}
    text = 0
    for each, result in zip(checkouts, results, strict=True):
        run = each.run
        if run in part or text > _MOST_TEXT:
            yield list(part.values())
            part, text = {}, 0
        part[run] = each, result
        text += len(result or "")
    yield list(part.values())


def _alike(some: Sequence[tuple[CheckOut, str | None]], now: Now) -> dict[Alike, list[End]]:
    """How attempts end, as CHECKOUT reads it, by what the statement is told once for all of them."""
    alike: dict[Alike, list[End]] = {}
    for request, result in some:
        run, (token, proof), again = request.run, rows.proof(request.lease), request.ending in _AGAIN
        alike.setdefault((run.job, run.stamp, request.ending), []).append(
            (
                run.key,
                token,
                proof,
                request.request,
                transitions.due(request.at, request.after, now) if again else None,
                None if again else result,
                rows.failure_text(request.error),
            )
        )
    return alike


def _none_yet() -> int:
    """A number for a trial run of a transition, whose outcome is looked at and not written."""
    return 0


def _admission(outcome: CheckInOutcome, entry: Entry, now: Now) -> Admission:
    return Admission(outcome=outcome, run=rows.public(entry), remaining=entry.remaining(now))
