"""An event that costs next to nothing until somebody waits for it."""

from __future__ import annotations

import threading


class Signal(threading.Event):
    """An event whose lock and queue of waiters are made with the first wait: most are only ever looked at.

    A run has several, and short runs would take longer to make them than to run.
    """

    def __init__(self) -> None:
        self._given = False

    def is_set(self) -> bool:
        """True once it was set."""
        return self._given

    def set(self) -> None:
        """All who wait go on, and nobody waits any more."""
        self._given = True
        waited_for: threading.Event | None = self.__dict__.get("_event")
        if waited_for is not None:
            waited_for.set()

    def clear(self) -> None:
        """It is as if it had never been set."""
        self.__dict__.pop("_event", None)
        self._given = False

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until it is set, at most ``timeout`` seconds; True if it is."""
        if not self._given:
            event: threading.Event = self.__dict__.setdefault("_event", threading.Event())  # one step: all share one
            if not self._given:  # who sets it looks for the event afterwards, so that one of us sees the other
                event.wait(timeout)
        return self._given
