"""The SQLite store answers every request as the memory store does."""

from __future__ import annotations

import tempfile
from pathlib import Path

from against_memory import BURIED, CLAIMS, QUEUES, SETTINGS, Same, same_claims
from hypothesis import example, given, settings

from onceward.contracts import Store, Want
from onceward.runners.clock import ManualClock
from onceward.runners.sqlite import SqliteStore


class SqliteSame(Same):
    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()

    def make_store(self, namespace: str) -> Store:
        return SqliteStore(Path(self.folder.name) / "same.db", namespace, self.clock, synchronous="OFF")

    def teardown(self) -> None:
        super().teardown()
        self.folder.cleanup()


SqliteSame.TestCase.settings = SETTINGS
TestSameAsMemory = SqliteSame.TestCase


@given(queue=QUEUES, claims=CLAIMS)
@example(**BURIED)
@settings(max_examples=80, deadline=None)
def test_g12_g13_claims_take_the_same_runs_in_the_same_order(
    queue: list[tuple[str, int, int, int | None]], claims: list[tuple[list[Want] | None, int, bool]]
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        clock = ManualClock()
        store = SqliteStore(Path(folder) / "q.db", clock=clock, synchronous="OFF")
        same_claims(store, clock, queue, claims)
