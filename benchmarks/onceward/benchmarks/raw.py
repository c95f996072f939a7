"""The raw drivers that runners are measured against: the least that a round trip with the same durability costs."""

from __future__ import annotations

import sqlite3
import threading
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path


class Raw(ABC):
    """A store reduced to one round trip: upsert, and tell the new token. Threads may share it."""

    def create(self, key: str) -> None:
        """A key that nobody used before has a row: the cheapest way to be the first."""
        self.upsert((key,))

    @abstractmethod
    def upsert(self, keys: Sequence[str]) -> list[int]:
        """Every key has a row, with a token one larger than before; all of them in one round trip."""

    @abstractmethod
    def close(self) -> None:
        """Nothing is left open."""


class RawMemory(Raw):
    """A dict under a lock."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._rows: dict[str, tuple[str, int]] = {}

    def upsert(self, keys: Sequence[str]) -> list[int]:
        tokens = []
        with self._lock:
            for key in keys:
                row = self._rows.get(key)
                token = 1 if row is None else row[1] + 1
                self._rows[key] = ("holder", token)
                tokens.append(token)
        return tokens

    def close(self) -> None:
        self._rows.clear()


class RawSqlite(Raw):
    """One connection under a lock: from several threads that is faster than one connection each.

    A single key is one statement in its own transaction; several are one transaction.
    """

    #: As the runner sets them; ``synchronous`` comes on top.
    PRAGMAS = ("journal_mode = WAL", "cache_size = -8000", "journal_size_limit = 67108864", "temp_store = MEMORY")
    CREATE = "CREATE TABLE raw (key TEXT PRIMARY KEY, holder TEXT NOT NULL, token INTEGER NOT NULL) WITHOUT ROWID"
    UPSERT = (
        "INSERT INTO raw (key, holder, token) VALUES (?, ?, 1) "
        "ON CONFLICT (key) DO UPDATE SET holder = excluded.holder, token = token + 1 RETURNING token"
    )

    def __init__(self, path: Path, *, synchronous: str) -> None:
        self._lock = threading.Lock()
        self._connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        for pragma in (*self.PRAGMAS, f"synchronous = {synchronous}"):
            self._connection.execute(f"PRAGMA {pragma}")
        self._connection.execute(self.CREATE)

    def upsert(self, keys: Sequence[str]) -> list[int]:
        execute = self._connection.execute
        with self._lock:
            if len(keys) == 1:
                return [execute(self.UPSERT, (keys[0], "holder")).fetchall()[0][0]]
            execute("BEGIN IMMEDIATE")
            tokens = [execute(self.UPSERT, (key, "holder")).fetchall()[0][0] for key in keys]
            execute("COMMIT")
            return tokens

    def pragma(self, name: str) -> object:
        """What SQLite says of one of its settings."""
        value: object = self._connection.execute(f"PRAGMA {name}").fetchone()[0]
        return value

    def close(self) -> None:
        self._connection.close()
