"""What should run and when, and configuration documents."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from datetime import datetime

from onceward.contracts import checks, transitions
from onceward.contracts.records import ConfigDoc, RunId, Status
from onceward.contracts.requests import Cancelled, ConfigWrite, Interest, RunSpec
from onceward.contracts.scheduler import Scheduler, Watch
from onceward.contracts.times import due_ms, from_ms
from onceward.contracts.transitions import Now
from onceward.runners.encoding import decode
from onceward.runners.sqlite import rows
from onceward.runners.sqlite.base import Base
from onceward.runners.sqlite.rows import NEXT
from onceward.runners.sqlite.watch import SqliteWatch

# Who made a run.   Params: ns, job, key, stamp.   Result: (origin), or no row.
ORIGIN = "SELECT origin FROM runs WHERE ns = ? AND job = ? AND key = ? AND stamp = ?"

# submit: a run exists.
#   Params: see ``_submit``.   Result: row count 1 created; 0 it existed, nothing changed.
SUBMIT = f"""
INSERT INTO runs (id, ns, job, key, stamp, status, queue, run_at, created, origin, payload, priority, max_crashes)
VALUES ({NEXT}, ?, ?, ?, ?, 'scheduled', 0, ?, ?, ?, ?, ?, ?)
ON CONFLICT (ns, job, key, stamp) DO NOTHING
"""

# reschedule: a scheduled run is due at another time.
#   Params: run_at, ns, job, key, stamp.   Result: row count 1 moved; 0 not scheduled, nothing changed.
RESCHEDULE = """
UPDATE runs SET run_at = ?
WHERE ns = ? AND job = ? AND key = ? AND stamp = ? AND status = 'scheduled'
"""

# cancel, of a running one: its holder is told with the next renewal.   Params: ns, job, key, stamp.
REQUEST_CANCEL = """
UPDATE runs SET cancel_requested = 1
WHERE ns = ? AND job = ? AND key = ? AND stamp = ? AND status = 'running'
"""

# A document, deleted or not.
#   Params: ns, name.   Result: (name, version, live, document, updated, request), or no row.
READ_CONFIG = "SELECT name, version, live, document, updated, request FROM configs WHERE ns = ? AND name = ?"

# All documents.   Params: ns.   Result: as above, by name.
CONFIGS = """
SELECT name, version, live, document, updated, request FROM configs WHERE ns = ? AND live = 1 ORDER BY name
"""

# write_config: the next version of a document, if the version that was read is still the newest (G11).
#   Params: see ``_write_config``.   Result: row count 1.
WRITE_CONFIG = """
INSERT INTO configs (ns, name, version, live, document, updated, request)
VALUES (:ns, :name, :version, :live, :document, :updated, :request)
ON CONFLICT (ns, name) DO UPDATE SET
    version = excluded.version, live = excluded.live, document = excluded.document, updated = excluded.updated,
    request = excluded.request
WHERE configs.version = excluded.version - 1
"""


class SchedulerPart(Base, Scheduler):
    """``Scheduler`` on the file."""

    def submit(self, specs: Sequence[RunSpec]) -> Sequence[bool]:
        """See ``Scheduler.submit``. If all of them are known already, it is a read."""
        payloads = [self._text(spec.payload, "payload") for spec in specs]
        known = self._database.glance(lambda connection: self._all_known(connection, specs))
        if known is not None:
            return known
        with self._database.write() as connection:
            now = self._now()
            return [self._submit(connection, spec, payload, now) for spec, payload in zip(specs, payloads, strict=True)]

    def _all_known(self, connection: sqlite3.Connection, specs: Sequence[RunSpec]) -> list[bool] | None:
        """The answer if every run exists; None: some do not."""
        known: list[bool] = []
        for spec in specs:
            origin = self._origin(connection, spec)
            if origin is None:
                return None
            known.append(origin == spec.request)
        return known

    def _submit(self, connection: sqlite3.Connection, spec: RunSpec, payload: str | None, now: Now) -> bool:
        run = spec.id
        due = transitions.due(spec.run_at, spec.after, now)
        cursor = connection.execute(
            SUBMIT,
            (
                self._ns, run.job, run.key, run.stamp, due, now.wall, spec.request, payload, spec.priority,
                spec.max_crashes,
            ),
        )  # fmt: skip
        return cursor.rowcount == 1 or self._origin(connection, spec) == spec.request

    def _origin(self, connection: sqlite3.Connection, spec: RunSpec) -> str | None:
        row = connection.execute(ORIGIN, (self._ns, spec.id.job, spec.id.key, spec.id.stamp)).fetchone()
        return None if row is None else str(row[0])

    def reschedule(self, run: RunId, *, run_at: datetime) -> bool:
        checks.instant("run_at", run_at)
        with self._database.write() as connection:
            moved = connection.execute(RESCHEDULE, (due_ms(run_at), self._ns, run.job, run.key, run.stamp)).rowcount
        return moved == 1

    def cancel(self, run: RunId) -> Cancelled:
        with self._database.write() as connection:
            found = rows.find(connection, self._ns, run)
            answer, entry = transitions.cancel(found, self._now())
            if answer is Cancelled.REQUESTED:
                connection.execute(REQUEST_CANCEL, (self._ns, run.job, run.key, run.stamp))
            elif found is not None and entry is not None and found.run.status is Status.SCHEDULED:
                rows.write(connection, found, entry)
        return answer

    def watch(self, interest: Interest) -> Watch:
        return SqliteWatch(self._database, self._ns, self._now, interest, self._watches)

    def read_config(self, name: str) -> ConfigDoc | None:
        with self._database.read() as connection:
            row = connection.execute(READ_CONFIG, (self._ns, name)).fetchone()
        return _document(row) if row is not None and row[_LIVE] else None

    def configs(self) -> Sequence[ConfigDoc]:
        with self._database.read() as connection:
            found = connection.execute(CONFIGS, (self._ns,)).fetchall()
        return [_document(row) for row in found]

    def write_config(self, write: ConfigWrite) -> ConfigDoc | None:
        text = self._text(write.document, "document")
        with self._database.write() as connection:
            row = connection.execute(READ_CONFIG, (self._ns, write.name)).fetchone()
            if row is not None and row[_REQUEST] == write.request:
                return _document(row)
            live, version, kept = (
                (bool(row[_LIVE]), row[_VERSION], row[_DOCUMENT]) if row is not None else (False, 0, None)
            )
            if write.expected_version != (version if live else 0) or (text is None and not live):
                return None
            connection.execute(
                WRITE_CONFIG,
                {
                    "ns": self._ns, "name": write.name, "version": version + 1, "live": text is not None,
                    "document": kept if text is None else text,
                    "updated": self._now().wall, "request": write.request,
                },
            )  # fmt: skip
            return _document(connection.execute(READ_CONFIG, (self._ns, write.name)).fetchone())


_NAME, _VERSION, _LIVE, _DOCUMENT, _UPDATED, _REQUEST = range(6)


def _document(row: rows.Row) -> ConfigDoc:
    return ConfigDoc(
        name=row[_NAME], version=row[_VERSION], document=decode(row[_DOCUMENT]), updated=from_ms(row[_UPDATED])
    )
