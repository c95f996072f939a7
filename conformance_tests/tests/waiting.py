"""Waiting for what other threads and processes, or a server's own clock, bring about."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

from onceward.contracts import OutcomeUnknown, StoreUnavailable

T = TypeVar("T")

PATIENCE = 30.0
"""Seconds after which something that should have happened has not; never reached by a test that passes."""


def until(holds: Callable[[], bool], within: float = PATIENCE) -> None:
    """It has come about; fails when it never does."""
    end = time.monotonic() + within
    while not holds():
        assert time.monotonic() < end, "it did not come about"
        time.sleep(0.005)  # the only way to look again later: neither their threads nor their clocks are ours


def answered(call: Callable[[], T], within: float = PATIENCE) -> T:
    """The answer, once there is one: the same request is sent again, as whoever does not know its outcome must.

    For stores that are told to give up early, or whose servers have just been away.
    """
    end = time.monotonic() + within
    while True:
        try:
            return call()
        except (OutcomeUnknown, StoreUnavailable):
            if time.monotonic() >= end:
                raise
            time.sleep(0.005)  # see above
