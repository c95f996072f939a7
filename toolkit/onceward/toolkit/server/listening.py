"""Listening to the store: what others do wakes this server's loops, so that nothing waits for the next look."""

from __future__ import annotations

import threading
from collections.abc import Callable

from onceward.contracts import Interest, Scheduler, StoreError, Watch


class Listener:
    """Waits for changes of interest, and wakes somebody. ``round`` is one wait.

    Args:
        scheduler: where to listen.
        interest: for what; when it changes, a new watch is opened.
        heard: is called when it may be worth looking.
        pause: how many seconds it need not listen after it has heard something.
    """

    def __init__(
        self,
        scheduler: Scheduler,
        interest: Callable[[], Interest],
        heard: Callable[[], object],
        *,
        every: float,
        pause: Callable[[], float] = lambda: 0.0,
    ) -> None:
        self._scheduler, self._interest, self._heard = scheduler, interest, heard
        self._every, self._pause = every, pause
        self._watch: Watch | None = None
        self._of: Interest | None = None
        self._closed = threading.Event()
        self._lock = threading.Lock()

    def round(self) -> float:
        """One wait, or the opening of a watch: that alone shows that the store can be listened to again.

        Raises:
            StoreError: the store cannot be listened to now; the next round begins anew.
        """
        if self._closed.is_set():
            return 1.0
        try:
            watch = self._open()
            if watch is not None and watch.wait(self._every):
                self._heard()
                self._closed.wait(self._pause())
        except StoreError:
            self._drop()
            raise
        return 0.0

    def follow(self) -> None:
        """What is of interest may have changed: a wait for something else ends soon, and the next round begins anew."""
        if self._of is not None and self._of != self._interest():
            self._drop()

    def close(self) -> None:
        """A wait under way ends soon, and no further one begins."""
        self._closed.set()
        self._drop()

    def _open(self) -> Watch | None:
        """The watch that is open already; None: it has only been opened now."""
        wanted = self._interest()
        if self._watch is not None and self._of == wanted:
            return self._watch
        self._drop()
        watch = self._scheduler.watch(wanted)
        with self._lock:
            self._watch, self._of = watch, wanted
        self._heard()  # what changed before the watch was open
        if self._closed.is_set():
            self._drop()
        return None

    def _drop(self) -> None:
        with self._lock:
            watch, self._watch = self._watch, None
        if watch is not None:
            watch.close()
