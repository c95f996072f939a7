"""How a server is: alive, ready, degraded and why."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta

from onceward.contracts import RunId
from onceward.contracts.records import Record
from onceward.toolkit.server.loops import LoopHealth


class ServerHealth(Record, frozen=True, kw_only=True):
    """How a server is.

    Attributes:
        live: its loops move; if not, restart the process.
        ready: it has started, and the store has answered lately: it does its share of the work.
        degraded: it works, but somebody should look at ``reasons``.
        reasons: in words.
        running: how many runs of each job are here.
        unsent: ends of runs that the store has not confirmed yet.
        events: how often what has happened since the start.
        parked: runs of jobs that no server knows.
    """

    live: bool
    ready: bool
    degraded: bool
    reasons: tuple[str, ...]
    running: Mapping[str, int]
    unsent: int
    events: Mapping[str, int]
    parked: Mapping[str, int]
    loops: Mapping[str, LoopHealth]


class ShutdownReport(Record, frozen=True, kw_only=True):
    """What a shutdown left behind.

    Attributes:
        drained: how many runs ended by themselves while it waited.
        released: runs that were given back unfinished; other servers start them at once.
        abandoned: runs whose end or release the store did not confirm in time: they lapse, and are taken over then.
        claim_open: the store did not answer the latest claim; what it may have taken lapses, too.
        closed: the store was closed in time.
        took: how long it all was.
    """

    drained: int
    released: tuple[RunId, ...]
    abandoned: tuple[RunId, ...]
    claim_open: bool
    closed: bool
    took: timedelta

    @property
    def clean(self) -> bool:
        """True: nothing was left behind."""
        return not self.released and not self.abandoned and not self.claim_open and self.closed
