"""The counter that a lock guards: it lives outside the store, keeps the largest token it saw, and refuses smaller ones.

Reading raises the fence too: else an older holder could still write between a newer one's read and write.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Protocol


class Register(Protocol):
    """A number that only the newest token may read and write."""

    def read(self, name: str, token: int) -> int | None:
        """The number; None: the token is stale."""
        ...

    def write(self, name: str, token: int, value: int) -> bool:
        """The number is written; False: the token is stale."""
        ...


class ThreadRegister:
    """For the threads of one process."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._cells: dict[str, tuple[int, int]] = {}

    def read(self, name: str, token: int) -> int | None:
        """See ``Register``."""
        with self._lock:
            fence, value = self._cells.get(name, (0, 0))
            if token < fence:
                return None
            self._cells[name] = (token, value)
            return value

    def write(self, name: str, token: int, value: int) -> bool:
        """See ``Register``."""
        with self._lock:
            fence, _ = self._cells.get(name, (0, 0))
            if token < fence:
                return False
            self._cells[name] = (token, value)
            return True


class FileRegister:
    """For processes: a file with a table of its own, which has nothing to do with the store."""

    def __init__(self, path: Path) -> None:
        self._path = path
        with self._open() as file:
            file.execute("CREATE TABLE IF NOT EXISTS cell (name TEXT PRIMARY KEY, fence INTEGER, value INTEGER)")

    def read(self, name: str, token: int) -> int | None:
        """See ``Register``."""
        with self._open() as file:
            fence, value = self._cell(file, name)
            if token < fence:
                return None
            file.execute("INSERT OR REPLACE INTO cell VALUES (?, ?, ?)", (name, token, value))
            return value

    def write(self, name: str, token: int, value: int) -> bool:
        """See ``Register``."""
        with self._open() as file:
            if token < self._cell(file, name)[0]:
                return False
            file.execute("INSERT OR REPLACE INTO cell VALUES (?, ?, ?)", (name, token, value))
            return True

    @staticmethod
    def _cell(file: sqlite3.Connection, name: str) -> tuple[int, int]:
        found = file.execute("SELECT fence, value FROM cell WHERE name = ?", (name,)).fetchone()
        return (0, 0) if found is None else (int(found[0]), int(found[1]))

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        """A transaction that nobody else is in; durability does not matter here."""
        with closing(sqlite3.connect(self._path, timeout=30, isolation_level=None)) as file:
            file.execute("PRAGMA synchronous = OFF")
            file.execute("BEGIN IMMEDIATE")
            yield file
            file.execute("COMMIT")
