"""Watches on a store in memory: every write tells them, and they look at the clock for what comes due."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from onceward.contracts.requests import Interest
from onceward.contracts.scheduler import Watch

#: A clock that is moved by hand tells nobody, so it is looked at this often, in seconds.
_LOOK = 0.02


class MemoryWatch(Watch):
    """Woken by writes of interest and by the passing of time."""

    def __init__(
        self,
        interest: Interest,
        *,
        pass_time: Callable[[MemoryWatch], int | None],
        forget: Callable[[MemoryWatch], None],
    ) -> None:
        self.interest = interest
        self.lapses_told: set[int] = set()
        """Tokens of locks whose lapse this watch has told already."""
        self._pass_time = pass_time
        self._forget = forget
        self._changed = threading.Event()
        self._closed = False

    def tell(self) -> None:
        """Something of interest has changed."""
        self._changed.set()

    def wait(self, timeout: float) -> bool:
        """See ``Watch.wait``."""
        until = time.monotonic() + timeout
        while not self._closed:
            next_ms = self._pass_time(self)
            left = until - time.monotonic()
            if next_ms is not None:
                left = min(left, _LOOK, next_ms / 1000)
            if self._changed.wait(max(left, 0.0)):
                self._changed.clear()
                return not self._closed
            if time.monotonic() >= until:
                return False
        return False

    def close(self) -> None:
        """See ``Watch.close``."""
        self._closed = True
        self._changed.set()
        self._forget(self)
