"""What the parts of the store share: the file, the namespace's number in it, and the clock."""

from __future__ import annotations

from onceward.contracts.clock import Clock
from onceward.contracts.payload import Json
from onceward.contracts.transitions import Now
from onceward.runners.encoding import encode
from onceward.runners.sqlite.database import Database
from onceward.runners.sqlite.watch import SqliteWatch

MAX_PAYLOAD_BYTES = 16 * 1024 * 1024


class Base:
    """State of a store that each part works with; made and opened by ``SqliteStore``."""

    namespace: str
    _database: Database
    _clock: Clock
    _ns: int = 0
    _watches: set[SqliteWatch]

    def _now(self) -> Now:
        """Read it inside the transaction: what waited for the file is judged by the time at which it got it."""
        return Now(self._clock.elapsed_ms(), self._clock.wall_ms())

    def _text(self, value: Json, field: str) -> str | None:
        return encode(value, field=field, most=MAX_PAYLOAD_BYTES)
