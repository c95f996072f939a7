"""Watches: SQLite tells nobody of a change, so its change counter is looked at; writes of this process tell at once.

``PRAGMA data_version`` on a connection changes when another connection has committed; it costs one look at shared
memory. Nothing is written when time passes, so the watch also knows when the next run of interest becomes due and the
next lease of interest lapses.
"""

from __future__ import annotations

import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator

from onceward.contracts.requests import Interest
from onceward.contracts.scheduler import Watch
from onceward.contracts.transitions import Now
from onceward.runners.sqlite.database import Database, leave_to_parent
from onceward.runners.sqlite.errors import translated
from onceward.runners.sqlite.priorities import NEXT_PRIORITY, priorities

#: Seconds between two looks: short after a change, longer the longer nothing happens.
_SHORTEST, _LONGEST, _GROWTH = 0.005, 0.05, 1.3

# When a job's next run of one priority becomes due.   Params: ns, job, priority, wall.   Result: (run_at), or no row.
NEXT_DUE = """
SELECT run_at FROM runs WHERE ns = ? AND job = ? AND queue = 0 AND priority = ? AND run_at > ? ORDER BY run_at LIMIT 1
"""

# When a job's next lease lapses.   Params: ns, job, elapsed.   Result: (until), or no row.
NEXT_LAPSE = """
SELECT until FROM runs
WHERE ns = ? AND job = ? AND status = 'running' AND queue IS NULL AND until > ? ORDER BY until LIMIT 1
"""

# When a lock's lease lapses.   Params: ns, name, elapsed.   Result: (until), or no row.
LOCK_LAPSE = "SELECT until FROM locks WHERE ns = ? AND name = ? AND held = 1 AND until > ?"

# Is a run of one priority due?   Params: ns, job, priority, wall.   Result: (1), or no row.
IS_DUE = "SELECT 1 FROM runs WHERE ns = ? AND job = ? AND queue = 0 AND priority = ? AND run_at <= ? LIMIT 1"

# Has a run lapsed that a claim saw?   Params: ns, job.   Result: (1), or no row.
IS_QUEUED_LAPSED = "SELECT 1 FROM runs WHERE ns = ? AND job = ? AND queue = 1 LIMIT 1"

# Has a run lapsed that no claim saw yet?   Params: ns, job, elapsed.   Result: (1), or no row.
IS_LAPSED = """
SELECT 1 FROM runs WHERE ns = ? AND job = ? AND status = 'running' AND queue IS NULL AND until <= ? LIMIT 1
"""

# What a waiter for a lock, for a run, for configurations wants to hear of.   Result: one row, or none.
LOCK_STATE = "SELECT token, held FROM locks WHERE ns = ? AND name = ?"
RUN_STATE = "SELECT token, status FROM runs WHERE ns = ? AND job = ? AND key = ? AND stamp = ?"
CONFIG_STATE = "SELECT total(version) FROM configs WHERE ns = ?"


class SqliteWatch(Watch):
    """A connection of its own that looks for commits of others, and a signal for those of this process."""

    def __init__(
        self,
        database: Database,
        ns: int,
        now: Callable[[], Now],
        interest: Interest,
        watches: set[SqliteWatch],
    ) -> None:
        self._database = database
        self._ns = ns
        self._now = now
        self._interest = interest
        self._watches = watches
        self._signal = threading.Event()
        self._closed = False
        self._connect()
        self._seen = now()
        self._version = self._look()
        self._state = self._read_state()
        watches.add(self)

    def _connect(self) -> None:
        self._pid = os.getpid()
        self._lock = threading.Lock()
        self._connection = self._database.reader()

    def tell(self) -> None:
        """This process has committed something."""
        self._signal.set()

    def wait(self, timeout: float) -> bool:
        """See ``Watch.wait``."""
        deadline = time.monotonic() + timeout
        pause = _SHORTEST
        moments: tuple[float, float] | None = None
        while True:
            self._signal.clear()  # before the look, so that a change after it is not missed
            if self._closed:
                return False
            version, now = self._look(), self._now()
            if version != self._version:
                self._version, moments, pause = version, None, _SHORTEST
                if self._concerns(now):
                    self._seen = now
                    return not self._closed
            moments = moments or self._next_moments()
            if now.wall >= moments[0] or now.elapsed >= moments[1]:
                self._seen = now
                return not self._closed
            left = deadline - time.monotonic()
            if left <= 0:
                return False
            self._signal.wait(min(left, pause))
            pause = min(pause * _GROWTH, _LONGEST)

    def _concerns(self, now: Now) -> bool:
        """True if somebody's commit changed what is watched, or there is something to claim."""
        state = self._read_state()
        if state != self._state:
            self._state = state
            return True
        with self._database.read() as connection:
            return any(self._claimable(connection, job, now) for job in self._interest.jobs)

    def _read_state(self) -> list[object]:
        """The locks, runs and configurations of interest, as far as a waiter for them cares."""
        interest = self._interest
        with self._database.read() as connection:
            state: list[object] = [
                connection.execute(LOCK_STATE, (self._ns, name)).fetchone() for name in sorted(interest.locks)
            ]
            state += [
                connection.execute(RUN_STATE, (self._ns, run.job, run.key, run.stamp)).fetchone()
                for run in sorted(interest.runs)
            ]
            if interest.configs:
                state.append(connection.execute(CONFIG_STATE, (self._ns,)).fetchone())
        return state

    def _claimable(self, connection: sqlite3.Connection, job: str, now: Now) -> bool:
        if connection.execute(IS_QUEUED_LAPSED, (self._ns, job)).fetchone() is not None:
            return True
        if connection.execute(IS_LAPSED, (self._ns, job, now.elapsed)).fetchone() is not None:
            return True
        return any(
            connection.execute(IS_DUE, (self._ns, job, priority, now.wall)).fetchone() is not None
            for priority in priorities(connection, NEXT_PRIORITY, (self._ns, job))
        )

    def close(self) -> None:
        """See ``Watch.close``."""
        self._closed = True
        self._watches.discard(self)
        self._signal.set()
        if self._pid == os.getpid():
            with self._lock:
                self._connection.close()

    def _look(self) -> int:
        """A number that changes when another connection has committed."""
        if self._pid != os.getpid():
            leave_to_parent(self._connection)
            self._connect()
        with self._lock:
            if self._closed:
                return self._version
            try:
                version: int = self._connection.execute("PRAGMA data_version").fetchone()[0]
            except sqlite3.Error as error:
                raise translated(error, self._database.path) from error
        return version

    def _next_moments(self) -> tuple[float, float]:
        """When, after the moment seen last, the next run is due (wall) and the next lease lapses (elapsed)."""
        with self._database.read() as connection:
            return (
                min(self._dues(connection), default=float("inf")),
                min(self._lapses(connection), default=float("inf")),
            )

    def _dues(self, connection: sqlite3.Connection) -> Iterator[int]:
        for job in self._interest.jobs:
            for priority in priorities(connection, NEXT_PRIORITY, (self._ns, job)):
                row = connection.execute(NEXT_DUE, (self._ns, job, priority, self._seen.wall)).fetchone()
                if row is not None:
                    yield row[0]

    def _lapses(self, connection: sqlite3.Connection) -> Iterator[int]:
        for statement, names in ((NEXT_LAPSE, self._interest.jobs), (LOCK_LAPSE, self._interest.locks)):
            for name in names:
                row = connection.execute(statement, (self._ns, name, self._seen.elapsed)).fetchone()
                if row is not None:
                    yield row[0]
