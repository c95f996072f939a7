"""Which priorities scheduled runs have: a skip-scan over an index, one look per priority that occurs."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator

from onceward.contracts.records import PRIORITY_HIGHEST

# Priorities that scheduled runs have.   Params: ns[, job], the last priority seen.   Result: (priority) of the next.
NEXT_PRIORITY = """
SELECT priority FROM runs WHERE ns = ? AND job = ? AND queue = 0 AND priority < ? ORDER BY priority DESC LIMIT 1
"""
NEXT_PRIORITY_ANY = """
SELECT priority FROM runs WHERE ns = ? AND queue = 0 AND priority < ? ORDER BY priority DESC LIMIT 1
"""


def priorities(connection: sqlite3.Connection, next_priority: str, params: tuple[int | str, ...]) -> Iterator[int]:
    """The priorities that occur, highest first."""
    priority = PRIORITY_HIGHEST + 1
    while (row := connection.execute(next_priority, (*params, priority)).fetchone()) is not None:
        priority = row[0]
        yield priority
