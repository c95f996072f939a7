"""Supervised loops: a step that is repeated for as long as the server lives, whatever goes wrong in it.

A step that raises is tried again after a pause that grows; meanwhile the loop is degraded, and says why. A step that
hangs is noticed by the time at which it began. So a loop neither dies quietly nor looks alive when it is not.
"""

from __future__ import annotations

import enum
import logging
import random
import threading
from collections.abc import Callable

from onceward.contracts import StoreError
from onceward.contracts.records import Record
from onceward.toolkit.leasetime import lease_time

log = logging.getLogger("onceward.server")

_FIRST_PAUSE, _LONGEST_PAUSE = 0.1, 10.0
#: No timer is longer than this, so that a machine's sleep or an odd clock costs little.
_LONGEST_WAIT = 60.0
#: A step that takes longer than this hangs.
STALLED_AFTER = 60.0


class LoopState(enum.StrEnum):
    """How a loop is."""

    IDLE = "idle"
    """Not started, or stopped."""
    RUNNING = "running"
    DEGRADED = "degraded"
    """Its last step failed; it tries again."""
    STALLED = "stalled"
    """Its step has not come back for a long time."""
    DEAD = "dead"
    """Its thread is gone, though nobody stopped it."""


class LoopHealth(Record, frozen=True, kw_only=True):
    """How a loop is, how often it failed in a row, and what the last error was."""

    state: LoopState
    failures: int = 0
    error: str | None = None
    since_success: float | None = None
    """Seconds since its last step that succeeded; None: none has, yet."""


class Loop:
    """Repeats ``step`` in a thread of its own.

    Args:
        name: for health and logs.
        step: does one round, and answers how many seconds until the next (0: at once; None: until it is woken).
        longest_pause: between two tries while the step fails, in seconds.
    """

    def __init__(self, name: str, step: Callable[[], float | None], *, longest_pause: float = _LONGEST_PAUSE) -> None:
        self.name = name
        self._step, self._longest_pause = step, longest_pause
        self._stopping = threading.Event()
        self._wake = threading.Event()
        self._turn = threading.Lock()
        """Held while a round is under way, whoever makes it."""
        self._thread: threading.Thread | None = None
        self._failures, self._error = 0, ""
        self._began: float | None = None
        self._succeeded: float | None = None

    def start(self) -> None:
        """The loop runs."""
        thread = threading.Thread(target=self._run, name=f"onceward-{self.name}", daemon=True)
        thread.start()
        self._thread = thread  # only now: one that has not begun looks dead, and cannot be joined

    def wake(self) -> None:
        """The next round begins now, or as soon as the present one is over."""
        if not self._wake.is_set():  # looking is far cheaper than setting, and this is called for every run
            self._wake.set()

    def now(self) -> None:
        """One round is made here and now, by the caller: he knows of work, and a change of threads takes time.

        If one is under way, or it fails, or brings so much that there may be more, the loop's own thread goes on.
        """
        if self._thread is None or self.stopping or not self._turn.acquire(blocking=False):
            self.wake()
            return
        try:
            done, wait = self._tried()
        finally:
            self._turn.release()
        if not done or wait == 0:
            self.wake()

    def stop(self) -> None:
        """No further round begins. Returns at once; see ``join``."""
        self._stopping.set()
        self._wake.set()

    def join(self, timeout: float) -> bool:
        """True: the thread has ended (or never began) within ``timeout`` seconds, and nobody else makes a round."""
        if self._thread is None or self._thread is threading.current_thread():
            return True
        end = lease_time() + timeout
        self._thread.join(max(0.0, timeout))
        if self._thread.is_alive() or not self._turn.acquire(timeout=max(0.0, end - lease_time())):
            return False
        self._turn.release()
        return True

    @property
    def stopping(self) -> bool:
        """True once it was told to stop."""
        return self._stopping.is_set()

    def health(self) -> LoopHealth:
        """How it is now."""
        now = lease_time()
        return LoopHealth(
            state=self._state(now),
            failures=self._failures,
            error=self._error or None,
            since_success=None if self._succeeded is None else now - self._succeeded,
        )

    def _state(self, now: float) -> LoopState:
        if self._thread is None or self.stopping:
            return LoopState.IDLE
        if not self._thread.is_alive():
            return LoopState.DEAD
        began = self._began
        if began is not None and now - began > STALLED_AFTER:
            return LoopState.STALLED
        return LoopState.DEGRADED if self._failures else LoopState.RUNNING

    def _run(self) -> None:
        while not self.stopping:
            self._wake.clear()
            with self._turn:
                done, wait = self._tried()
            if not done:
                self._pause()
            elif wait is None or wait > 0:
                self._wake.wait(_LONGEST_WAIT if wait is None else min(wait, _LONGEST_WAIT))

    def _tried(self) -> tuple[bool, float | None]:
        """One step: whether it succeeded, and the seconds until the next."""
        self._began = lease_time()
        try:
            wait = self._step()
        except StoreError as error:
            self._failed(error)
            log.warning("%s: %s; trying again", self.name, error)
            return False, None
        except BaseException as error:  # a defect, or a listener's sys.exit(), must not end the loop
            self._failed(error)
            log.exception("%s: a round failed; trying again", self.name)
            return False, None
        finally:
            self._began = None
        if self._failures:
            log.info("%s: works again after %d failed rounds", self.name, self._failures)
        self._failures, self._error = 0, ""
        self._succeeded = lease_time()
        return True, wait

    def _failed(self, error: BaseException) -> None:
        self._failures += 1
        self._error = f"{type(error).__name__}: {error}"

    def _pause(self) -> None:
        """Longer after each failure, and never the same on all servers; only the end of the loop cuts it short."""
        pause = min(_FIRST_PAUSE * 2.0 ** min(self._failures - 1, 20), self._longest_pause)
        self._stopping.wait(pause * random.uniform(0.5, 1.0))
