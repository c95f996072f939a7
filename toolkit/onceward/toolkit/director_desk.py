"""What the check-ins of one Director share, and which check-in's body is running here."""

from __future__ import annotations

import contextvars
import os
import threading
from typing import TYPE_CHECKING, TypeAlias

from onceward.contracts import Executor, RunId, new_holder
from onceward.toolkit.renewal import Renewer

if TYPE_CHECKING:
    from onceward.toolkit.director_checkin import CheckedIn

Entered: TypeAlias = "contextvars.Token[CheckedIn | None]"

_current: contextvars.ContextVar[CheckedIn | None] = contextvars.ContextVar("onceward_current_checkin", default=None)


def current() -> CheckedIn | None:
    """The check-in whose body is running here; None outside of any."""
    return _current.get()


def enter(checkin: CheckedIn) -> Entered:
    """The body of the check-in is running here."""
    return _current.set(checkin)


def leave(entered: Entered) -> None:
    """The body is over; what ran around it is current again."""
    _current.reset(entered)


class Desk:
    """Where check-ins ask, who renews them, and which ones are held."""

    def __init__(self, executor: Executor, *, stamp: str) -> None:
        self.executor = executor
        self.stamp = stamp
        self.renewer = Renewer(executor)
        self._holder, self._pid = new_holder(), os.getpid()
        self._held: dict[RunId, CheckedIn] = {}
        self._lock = threading.Lock()

    @property
    def holder(self) -> str:
        """This process's name; after a fork the child has one of its own."""
        if self._pid != os.getpid():
            self._holder, self._pid = new_holder(), os.getpid()
        return self._holder

    def keep(self, checkin: CheckedIn, run: RunId) -> None:
        """The check-in can be found until it is checked out."""
        with self._lock:
            self._held[run] = checkin

    def drop(self, checkin: CheckedIn, run: RunId) -> None:
        """The check-in is over."""
        with self._lock:
            if self._held.get(run) is checkin:
                del self._held[run]

    def find(self, run: RunId) -> CheckedIn | None:
        """The check-in by which this Director holds the run."""
        with self._lock:
            return self._held.get(run)

    def held(self) -> list[RunId]:
        """All runs that this Director holds."""
        with self._lock:
            return sorted(self._held)
