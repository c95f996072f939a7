"""The connections of one process to one file: a writer under a lock, a few readers, none of them across a fork."""

from __future__ import annotations

import os
import random
import sqlite3
import threading
import time
import weakref
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import TypeVar
from urllib.parse import quote

from onceward.contracts.errors import StoreMisconfigured, StoreUnavailable
from onceward.runners.sqlite import schema
from onceward.runners.sqlite.errors import busy, translated, unstorable

T = TypeVar("T")

#: The first with RETURNING.
_OLDEST_SQLITE = (3, 35, 0)
_READERS_KEPT = 4
#: Pages that each connection may keep in memory, in KiB (SQLite wants it negative then).
_CACHE_KIB = 8_000
#: Seconds between two tries to get the file while another process holds it.
_PAUSE = (0.0002, 0.002)
#: A WAL that grew larger is cut to this many bytes once it has been copied into the database.
_WAL_KEPT = 64 * 1024 * 1024

#: Connections that a forked child got from its parent. Closing them could disturb the parent, so they are kept.
_inherited: list[sqlite3.Connection] = []


def leave_to_parent(*connections: sqlite3.Connection) -> None:
    """Connections from before a fork stay open in the child, unused."""
    _inherited.extend(connections)


class Database:
    """One file. Threads share it; a forked child opens connections of its own by itself.

    Args:
        path: of the file.
        synchronous: SQLite's pragma: "OFF", "NORMAL", "FULL" or "EXTRA".
        busy_timeout: seconds to wait for other processes' transactions.
        create: the file is made if it is not there.
    """

    def __init__(self, path: str, *, synchronous: str, busy_timeout: float, create: bool = True) -> None:
        self.path = path
        self.synchronous = synchronous
        self.busy_timeout = busy_timeout
        self.create = create
        self.committed: Callable[[], None] = lambda: None
        """Called after each commit of this process."""
        self._opened = False
        self._forget_connections()
        _alive.add(self)

    def _forget_connections(self) -> None:
        self.lock = threading.Lock()
        self._pool_lock = threading.Lock()
        self._writer: sqlite3.Connection | None = None
        self._readers: list[sqlite3.Connection] = []
        self._borrowed: set[sqlite3.Connection] = set()

    def open(self) -> None:
        """The file is there and is ours."""
        if sqlite3.sqlite_version_info < _OLDEST_SQLITE:
            oldest = ".".join(map(str, _OLDEST_SQLITE))
            raise StoreMisconfigured(
                f"this Python has SQLite {sqlite3.sqlite_version}; Onceward needs {oldest} or later"
            )
        self._check_path()
        with self.lock:
            if self._writer is None:
                self._writer = self._start()
            self._opened = True

    def _check_path(self) -> None:
        path = Path(self.path)
        try:
            if path.is_dir():
                raise StoreMisconfigured(f"SQLite file {path} is a folder: give the path of a file in it")
            if not path.parent.is_dir():
                raise StoreMisconfigured(f"SQLite file {path}: its folder does not exist; create {path.parent} first")
            if not self.create and not path.exists():
                raise StoreUnavailable(f"SQLite file {path} does not exist, and was not to be made")
        except OSError as error:
            raise StoreMisconfigured(f"SQLite file {path} cannot be reached: {error.strerror}") from error

    def _start(self) -> sqlite3.Connection:
        connection: sqlite3.Connection | None = None
        try:
            connection = self._connect("rwc" if self.create else "rw")
            schema.prepare(connection, self.path, patience=self.busy_timeout)
            self._configure(connection)
            connection.execute("PRAGMA busy_timeout = 0")  # see ``patiently``
        except sqlite3.Error as error:
            if connection is not None:
                connection.close()
            reason = translated(error, self.path)
            raise (reason if busy(error) else StoreMisconfigured(str(reason))) from error
        except BaseException:
            if connection is not None:
                connection.close()
            raise
        return connection

    def _connect(self, mode: str) -> sqlite3.Connection:
        connection = sqlite3.connect(
            f"file:{quote(self.path)}?mode={mode}",
            uri=True,
            isolation_level=None,
            check_same_thread=False,
            timeout=self.busy_timeout,
            cached_statements=256,
        )
        connection.execute("PRAGMA trusted_schema = OFF")
        return connection

    def _configure(self, connection: sqlite3.Connection) -> None:
        connection.execute(f"PRAGMA synchronous = {self.synchronous}")
        connection.execute(f"PRAGMA cache_size = {-_CACHE_KIB}")
        connection.execute(f"PRAGMA journal_size_limit = {_WAL_KEPT}")
        connection.execute("PRAGMA temp_store = MEMORY")

    def close(self) -> None:
        """No connection is left, except those that other threads are still reading with; they close theirs."""
        with self.lock, self._pool_lock:
            self._opened = False
            connections = [*self._readers, *([self._writer] if self._writer is not None else [])]
            self._readers, self._writer = [], None
            for connection in connections:
                connection.close()

    def writer(self) -> sqlite3.Connection:
        """The one connection that writes; use it under ``lock`` only."""
        if self._writer is None:
            self._require_open()
            self._writer = self._start()
        return self._writer

    def drop_writer(self) -> None:
        """The writer is in a state that nobody knows; the next use gets a fresh one."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def _require_open(self) -> None:
        if not self._opened:
            raise StoreUnavailable(f"SQLite file {self.path} is not open: call open(), or use the runner in a with")

    def borrow(self) -> sqlite3.Connection:
        """A connection to read with; give it back."""
        with self._pool_lock:
            self._require_open()
            connection = self._readers.pop() if self._readers else self.reader()
            self._borrowed.add(connection)
            return connection

    def reader(self) -> sqlite3.Connection:
        """A new connection that only reads; close it, and never use it across a fork."""
        self._require_open()
        try:
            connection = self._connect("rw")
            self._configure(connection)
            connection.execute("PRAGMA query_only = ON")
        except sqlite3.Error as error:
            raise translated(error, self.path) from error
        return connection

    def give_back(self, connection: sqlite3.Connection) -> None:
        """The reader is free for the next one, or closed if there are enough."""
        with self._pool_lock:
            if connection not in self._borrowed:
                return  # it is the parent's: this process was forked meanwhile
            self._borrowed.discard(connection)
            if self._opened and len(self._readers) < _READERS_KEPT:
                self._readers.append(connection)
            else:
                connection.close()

    def execute_alone(
        self, connection: sqlite3.Connection, statement: str, params: tuple[object, ...]
    ) -> sqlite3.Cursor:
        """One statement, which is a transaction of its own unless one is open: what it changed is committed."""
        try:
            cursor = connection.execute(statement, params)
        except sqlite3.Error as error:
            if busy(error):
                raise  # not done; ``glance`` tries again
            raise translated(error, self.path, committing=True) from error
        self.committed()
        return cursor

    def write(self) -> Transaction:
        """A transaction that nobody else's can come between."""
        return Transaction(self)

    def glance(self, look: Callable[[sqlite3.Connection], T]) -> T:
        """What ``look`` finds, or does in one statement of its own, on the writer's warm cache.

        It is asked again while another process holds the file, and so must not do anything before its last statement.
        """
        with self.lock:
            try:
                return self.patiently(lambda: look(self.writer()))
            except sqlite3.Error as error:
                raise translated(error, self.path) from error
            except UnicodeEncodeError as error:
                raise unstorable(error) from error

    def patiently(self, call: Callable[[], T]) -> T:
        """The outcome of ``call``, tried again while another process holds the file, for ``busy_timeout`` seconds.

        SQLite's own handler soon sleeps 100 ms between its tries. Among writers that come and go every millisecond it
        hardly ever finds the file free, so that leases ran out while their requests waited; short random pauses give
        everybody a turn.
        """
        until: float | None = None
        while True:
            try:
                return call()
            except sqlite3.Error as error:
                until = until or time.monotonic() + self.busy_timeout
                if not busy(error) or time.monotonic() >= until:
                    raise
                time.sleep(random.uniform(*_PAUSE))

    def read(self) -> Reading:
        """Reads that neither wait for a writer nor hold one up."""
        return Reading(self)

    def after_fork(self) -> None:
        """In the child: the parent's connections and locks are not ours."""
        leave_to_parent(*self._readers, *self._borrowed, *([self._writer] if self._writer is not None else []))
        self._forget_connections()


class Transaction:
    """``BEGIN IMMEDIATE`` to ``COMMIT``: all or nothing, also when the process is killed in between."""

    __slots__ = ("_connection", "_database")

    def __init__(self, database: Database) -> None:
        self._database = database
        self._connection: sqlite3.Connection

    def __enter__(self) -> sqlite3.Connection:
        self._database.lock.acquire()
        try:
            self._connection = self._database.writer()
            self._begin()
        except BaseException:
            self._database.lock.release()
            raise
        return self._connection

    def _begin(self) -> None:
        """Wait for other processes, but not for ever. Nothing has been sent before, so every error is definite."""
        try:
            self._database.patiently(lambda: self._connection.execute("BEGIN IMMEDIATE"))
        except sqlite3.Error as error:
            raise translated(error, self._database.path) from error

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if error is None:
                self._commit()
            else:
                self._roll_back()
        finally:
            self._database.lock.release()
        if error is None:
            self._database.committed()
        elif isinstance(error, sqlite3.Error):
            raise translated(error, self._database.path) from error
        elif isinstance(error, UnicodeEncodeError):
            raise unstorable(error) from error

    def _commit(self) -> None:
        try:
            self._connection.execute("COMMIT")
        except sqlite3.Error as error:
            self._roll_back()
            raise translated(error, self._database.path, committing=True) from error

    def _roll_back(self) -> None:
        try:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
        except sqlite3.Error:
            self._database.drop_writer()  # closing rolls back


class Reading:
    """Reads on a connection from the pool."""

    __slots__ = ("_connection", "_database")

    def __init__(self, database: Database) -> None:
        self._database = database
        self._connection: sqlite3.Connection

    def __enter__(self) -> sqlite3.Connection:
        self._connection = self._database.borrow()
        return self._connection

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._database.give_back(self._connection)
        _raise_ours(error, self._database.path)


def _raise_ours(error: BaseException | None, path: str) -> None:
    if isinstance(error, sqlite3.Error):
        raise translated(error, path) from error
    if isinstance(error, UnicodeEncodeError):
        raise unstorable(error) from error


_alive: weakref.WeakSet[Database] = weakref.WeakSet()


def _after_fork() -> None:
    for database in list(_alive):
        database.after_fork()


if hasattr(os, "register_at_fork"):  # not on Windows, where nothing forks
    os.register_at_fork(after_in_child=_after_fork)
