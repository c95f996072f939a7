"""The clock on which a process counts how long it may trust its leases."""

from __future__ import annotations

import time

_SOURCE: int | None = getattr(time, "CLOCK_BOOTTIME", None)


def lease_time() -> float:
    """Seconds on a clock that never jumps, and that goes on while the machine sleeps where the system has one.

    ``time.monotonic()`` stands still in a suspend on Linux: a laptop that wakes would go on trusting a lease that the
    store gave to somebody else in the meantime.
    """
    return time.monotonic() if _SOURCE is None else time.clock_gettime(_SOURCE)
