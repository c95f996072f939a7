"""What a store promises, as data. The factory refuses what was asked for and is not there; the suite probes it."""

from __future__ import annotations

import enum
from collections.abc import Callable, Collection, Mapping
from datetime import timedelta

from onceward.contracts.errors import InvalidRequest
from onceward.contracts.records import Record


class LeaseClock(enum.StrEnum):
    """Which clock of the store ends leases."""

    MONOTONIC = "monotonic"
    WALL = "wall"
    """A jump of the server's clock shortens or stretches leases; tokens stay safe."""


class DueClock(enum.StrEnum):
    """Whose clock says that a run is due."""

    STORE = "store"
    CLIENT = "client"


class Failover(enum.StrEnum):
    """What becomes of acknowledged writes when the store fails over to another server."""

    SAFE = "safe"
    LOSSY = "lossy"
    NONE = "none"
    """There is no other server."""


class Traits(Record, frozen=True, kw_only=True):
    """What a store promises.

    Attributes:
        durable: an acknowledged write survives the end of every process, and of the store's own.
        shared: several processes may use the store at once.
        linearizable: every answer reflects all writes acknowledged before it was asked.
        native_wait: a watch is told by the store; otherwise it polls.
        fair: a contended lock is handed over in the order of asking.
        lease_granularity: leases are rounded up to a multiple of this.
        min_lease: shorter leases are refused.
        expiry_slack: a lapsed lease is noticed at most so much later.
        max_payload_bytes: larger payloads and results (in canonical JSON) are refused.
    """

    durable: bool
    shared: bool
    linearizable: bool = True
    native_wait: bool = False
    fair: bool = False
    lease_clock: LeaseClock = LeaseClock.MONOTONIC
    due_clock: DueClock = DueClock.STORE
    failover: Failover = Failover.NONE
    lease_granularity: timedelta = timedelta(milliseconds=1)
    min_lease: timedelta = timedelta(milliseconds=1)
    expiry_slack: timedelta = timedelta(milliseconds=1)
    max_payload_bytes: int = 16 * 1024 * 1024

    def missing(self, needs: Collection[str]) -> list[str]:
        """Those of ``needs`` (names out of ``NEEDS``) that this store does not give.

        Raises:
            InvalidRequest: a need that nobody knows.
        """
        for need in needs:
            if need not in NEEDS:
                raise InvalidRequest("needs", need, f"any of {', '.join(NEEDS)}")
        return [need for need in needs if not NEEDS[need](self)]


#: What a configuration may ask for.
NEEDS: Mapping[str, Callable[[Traits], bool]] = {
    "durable": lambda traits: traits.durable,
    "shared": lambda traits: traits.shared,
    "linearizable": lambda traits: traits.linearizable,
    "native_wait": lambda traits: traits.native_wait,
    "fair": lambda traits: traits.fair,
    "monotonic_leases": lambda traits: traits.lease_clock is LeaseClock.MONOTONIC,
    "safe_failover": lambda traits: traits.failover is Failover.SAFE,
}
