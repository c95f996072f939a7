"""Waiting for what other threads and processes, or a server's own clock, bring about."""

from __future__ import annotations

import time
from collections.abc import Callable

PATIENCE = 30.0
"""Seconds after which something that should have happened has not; never reached by a test that passes."""


def until(holds: Callable[[], bool], within: float = PATIENCE) -> None:
    """It has come about; fails when it never does."""
    end = time.monotonic() + within
    while not holds():
        assert time.monotonic() < end, "it did not come about"
        time.sleep(0.005)  # the only way to look again later: neither their threads nor their clocks are ours
