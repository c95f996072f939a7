"""What stands in the file: tables, indexes, and how a file is known to be ours."""

from __future__ import annotations

import sqlite3
import time

from onceward.contracts.errors import StoreMisconfigured
from onceward.runners.sqlite.errors import busy

#: "Once" in ASCII; `file` and SQLite's own tools show it.
APPLICATION_ID = 0x4F6E6365
VERSION = 1

TABLES = (
    # The one counter of the file: ids of runs and all tokens, of runs and locks alike, come from it. It stands at the
    # largest id in ``runs`` or at ``counter.value``, whichever is more: a new run need not write it, and the trigger
    # below keeps what a deleted run had used up. A number never comes back.
    "CREATE TABLE counter (one INTEGER PRIMARY KEY CHECK (one = 1), value INTEGER NOT NULL)",
    #
    # A run's row holds its latest attempt in columns of its own; earlier ones are JSON in ``earlier``, written only
    # when another attempt begins. ``queue``: 0 SCHEDULED, 1 RUNNING and seen to have lapsed, NULL not to be claimed.
    # Times in milliseconds: ``until`` by the lease clock, the others by the wall clock.
    # ``attempt_token`` and ``attempt_request`` differ from ``token`` and ``request`` only after a forced unlock.
    """
    CREATE TABLE runs (
        id               INTEGER PRIMARY KEY,
        ns               INTEGER NOT NULL,
        job              TEXT    NOT NULL,
        key              TEXT    NOT NULL,
        stamp            TEXT    NOT NULL,
        status           TEXT    NOT NULL,
        queue            INTEGER,
        priority         INTEGER NOT NULL DEFAULT 0,
        run_at           INTEGER NOT NULL,
        created          INTEGER NOT NULL,
        origin           TEXT    NOT NULL,
        payload          TEXT,
        result           TEXT,
        error            TEXT,
        progress         TEXT,
        max_crashes      INTEGER,
        attempt          INTEGER NOT NULL DEFAULT 0,
        failures         INTEGER NOT NULL DEFAULT 0,
        crashes          INTEGER NOT NULL DEFAULT 0,
        token            INTEGER NOT NULL DEFAULT 0,
        request          TEXT,
        claimed          INTEGER NOT NULL DEFAULT 0,
        holder           TEXT,
        lease_ms         INTEGER,
        expires          INTEGER,
        until            INTEGER,
        started          INTEGER,
        ended            INTEGER,
        cancel_requested INTEGER NOT NULL DEFAULT 0,
        rearmed          INTEGER NOT NULL DEFAULT 0,
        takeover         INTEGER NOT NULL DEFAULT 0,
        attempt_ended    INTEGER,
        ending           TEXT,
        checkout         TEXT,
        attempt_token    INTEGER,
        attempt_request  TEXT,
        earlier          TEXT
    )
    """,
    """
    CREATE TABLE locks (
        ns       INTEGER NOT NULL,
        name     TEXT    NOT NULL,
        holder   TEXT    NOT NULL,
        token    INTEGER NOT NULL,
        request  TEXT    NOT NULL,
        lease_ms INTEGER NOT NULL,
        expires  INTEGER NOT NULL,
        until    INTEGER NOT NULL,
        acquired INTEGER NOT NULL,
        held     INTEGER NOT NULL,
        note     TEXT,
        PRIMARY KEY (ns, name)
    ) WITHOUT ROWID
    """,
    # A deleted document stays as ``live`` = 0, so that its versions never come back.
    """
    CREATE TABLE configs (
        ns       INTEGER NOT NULL,
        name     TEXT    NOT NULL,
        version  INTEGER NOT NULL,
        live     INTEGER NOT NULL,
        document TEXT,
        updated  INTEGER NOT NULL,
        request  TEXT    NOT NULL,
        PRIMARY KEY (ns, name)
    ) WITHOUT ROWID
    """,
    "CREATE TABLE namespaces (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE)",
    "CREATE TABLE boots (one INTEGER PRIMARY KEY CHECK (one = 1), boot TEXT NOT NULL)",
)

INDEXES = (
    # Who is it: check-in, check-out, renewal, listings by job.
    "CREATE UNIQUE INDEX runs_identity ON runs (ns, job, key, stamp)",
    # What may be claimed, in the order of claims; of one job, and of any.
    "CREATE INDEX runs_queue ON runs (ns, job, queue, priority DESC, run_at) WHERE queue IS NOT NULL",
    "CREATE INDEX runs_queue_any ON runs (ns, queue, priority DESC, run_at) WHERE queue IS NOT NULL",
    # Who runs, and when their leases end; runs already seen to have lapsed are in runs_queue instead.
    "CREATE INDEX runs_leases ON runs (ns, job, until) WHERE status = 'running' AND queue IS NULL",
    # What a claim holds, so that its repetition finds it.
    "CREATE INDEX runs_claims ON runs (ns, request) WHERE claimed = 1 AND status = 'running'",
    # What may be purged, the oldest first.
    "CREATE INDEX runs_ended ON runs (ns, job, ended) WHERE status IN ('succeeded', 'failed', 'cancelled')",
)

# Tokens go on behind a run that is gone (G2, G14), whoever deletes it.
TRIGGER = """
CREATE TRIGGER runs_deleted AFTER DELETE ON runs BEGIN
    UPDATE counter SET value = old.id WHERE value < old.id;
END
"""

SETUP = (
    *TABLES,
    *INDEXES,
    TRIGGER,
    "INSERT INTO counter (one, value) VALUES (1, 0)",
    f"PRAGMA application_id = {APPLICATION_ID}",
    f"PRAGMA user_version = {VERSION}",
)

_COUNT_OBJECTS = "SELECT count(*) FROM sqlite_master"


def prepare(connection: sqlite3.Connection, path: str, *, patience: float) -> None:
    """The file is a store of this version, in WAL mode. A file of anybody else is refused, and not written to."""
    connection.execute("BEGIN")  # all that is asked is read at one moment: somebody may just be making the file
    try:
        known = _known(connection, path)
    finally:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
    if not known:
        _create(connection, path, patience)
    elif _pragma(connection, "journal_mode") != "wal":
        _use_wal(connection, path, patience)


def _known(connection: sqlite3.Connection, path: str) -> bool:
    """True for our file, False for an empty one.

    Raises:
        StoreMisconfigured: it is another program's, or a later version's.
    """
    owner, version = _pragma(connection, "application_id"), _pragma(connection, "user_version")
    if owner == APPLICATION_ID:
        if version == VERSION:
            return True
        raise StoreMisconfigured(
            f"SQLite file {path} has schema version {version}, this Onceward knows {VERSION}: "
            "use the version of Onceward that wrote it (or a later one), or give a new path"
        )
    if owner == 0 and version == 0 and connection.execute(_COUNT_OBJECTS).fetchone()[0] == 0:
        return False
    raise StoreMisconfigured(
        f"SQLite file {path} belongs to another program (application_id {owner}); give Onceward a file of its own"
    )


def _create(connection: sqlite3.Connection, path: str, patience: float) -> None:
    _use_wal(connection, path, patience)
    connection.execute("BEGIN IMMEDIATE")
    try:
        if not _known(connection, path):  # else another process was faster
            for statement in SETUP:
                connection.execute(statement)
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def _use_wal(connection: sqlite3.Connection, path: str, patience: float) -> None:
    """Switching to WAL does not wait for other users of the file by itself, so we do."""
    until = time.monotonic() + patience
    while True:
        try:
            mode = connection.execute("PRAGMA journal_mode = WAL").fetchone()[0]
            break
        except sqlite3.Error as error:
            if not busy(error) or time.monotonic() >= until:
                raise
            time.sleep(0.005)
    if mode != "wal":
        raise StoreMisconfigured(
            f"SQLite file {path} cannot use write-ahead logging (its journal mode stays {mode!r}): "
            "give a path on a local file system"
        )


def _pragma(connection: sqlite3.Connection, name: str) -> object:
    return connection.execute(f"PRAGMA {name}").fetchone()[0]
